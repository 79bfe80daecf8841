//! One Envoy process of a row: started, awaited, its processor time read, and gone with its value.
//!
//! The harness has such a value too, but gives out no process id and runs at most two at a time; a row needs the first
//! and up to four. It never touches a process that it did not start.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use redeliver_tests::Admin;
use redeliver_tests::ports::free_port;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::failure::Failure;
use crate::meter::Meter;

/// Compiling a module takes about a second on an idle machine; a busy one may need far longer, an emulated one too.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// For everything that takes well under a second on an idle machine.
pub const SOON: Duration = Duration::from_secs(20);
/// `USER_HZ`, the unit of `/proc/<pid>/stat`: 100 on every Linux that Envoy is released for (x86-64 and arm64).
const CLOCK_TICKS_PER_SECOND: f64 = 100.0;
/// Enough of a log to see why an Envoy ended.
const LOG_TAIL_LINES: usize = 3;

/// Processor time in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct CpuMicros(pub f64);

/// How many worker threads an Envoy has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workers(pub u32);

/// A running Envoy.
pub struct Envoy {
    name: String,
    child: Child,
    folder: TempDir,
    admin: Admin,
}

/// The file in an Envoy's folder that its instructions are counted in.
const COUNT: &str = "instructions";

impl Envoy {
    /// Starts `binary` and waits until its workers accept. `bootstrap` gets its own folder, for files it wants to
    /// write.
    pub async fn start(
        name: &str,
        binary: &Path,
        workers: Workers,
        bootstrap: impl FnOnce(&Path) -> Value,
    ) -> Result<Envoy, Failure> {
        Envoy::start_for(&Meter::Time, name, binary, workers, bootstrap).await
    }

    /// The same, so that `meter` can read what it costs.
    pub async fn start_for(
        meter: &Meter,
        name: &str,
        binary: &Path,
        workers: Workers,
        bootstrap: impl FnOnce(&Path) -> Value,
    ) -> Result<Envoy, Failure> {
        let here = |error| Failure::Machine { what: PathBuf::from("a temporary folder"), error };
        let folder = tempfile::Builder::new().prefix("redeliver-bench-").tempdir().map_err(here)?;
        let admin_port = free_port();
        let mut document = bootstrap(folder.path());
        let address = json!({"socket_address": {"address": "127.0.0.1", "port_value": admin_port}});
        document["admin"] = json!({"address": address});
        document["node"] = json!({"id": "bench", "cluster": "bench"});
        fs::write(folder.path().join("envoy.json"), document.to_string()).map_err(here)?;
        let child = spawn(meter, binary, workers, folder.path())
            .map_err(|error| Failure::Machine { what: binary.to_owned(), error })?;
        let mut envoy = Envoy { name: name.to_owned(), child, folder, admin: Admin::new(admin_port) };
        envoy.ready().await?;
        Ok(envoy)
    }

    async fn ready(&mut self) -> Result<(), Failure> {
        let start = Instant::now();
        loop {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return Err(Failure::EnvoyEnded { name: self.name.clone(), log_tail: self.log_tail() });
            }
            let stats = self.admin.get("/stats?filter=^listener_manager.workers_started$").unwrap_or_default();
            if stats.contains(": 1") {
                return Ok(());
            }
            if start.elapsed() > READY_WITHIN {
                return Err(Failure::TooLate { what: format!("Envoy \"{}\" is ready", self.name), seen: stats });
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A file in its folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The processor time of the whole process so far, all threads, user and system.
    ///
    /// The same sum stands in two places: by thread in nanoseconds, and in all in steps of 10 ms, which is a tenth of a
    /// small batch. A kernel without scheduler statistics has zeros in the first.
    pub fn cpu(&self) -> Result<CpuMicros, Failure> {
        let process = PathBuf::from(format!("/proc/{}", self.child.id()));
        let read = match nanos_of_threads(&process) {
            Ok(nanos @ 1..) => Ok(CpuMicros(nanos as f64 / 1e3)),
            Ok(0) | Err(_) => of_process(&process),
        };
        read.map_err(|error| Failure::Machine { what: process, error })
    }

    /// The instructions of the whole process so far, if it was started to have them counted.
    pub fn instructions(&self) -> Result<u64, Failure> {
        let file = self.file(COUNT);
        let read = fs::read(&file).and_then(|bytes| {
            let none = |_| io::Error::new(io::ErrorKind::InvalidData, "no count of eight bytes");
            bytes.try_into().map(u64::from_ne_bytes).map_err(none)
        });
        read.map_err(|error| Failure::Machine { what: file, error })
    }

    /// The bytes of memory that the process has now.
    pub fn resident(&self) -> Result<f64, Failure> {
        let status = PathBuf::from(format!("/proc/{}/status", self.child.id()));
        let read = fs::read_to_string(&status).and_then(|text| {
            let none = || io::Error::new(io::ErrorKind::InvalidData, "status without VmRSS");
            resident_kib(&text).map(|kib| kib as f64 * 1024.0).ok_or_else(none)
        });
        read.map_err(|error| Failure::Machine { what: status, error })
    }

    /// `POST path` to its admin port.
    pub fn tell(&self, path: &str) -> Result<(), Failure> {
        let told = self.admin.post(path);
        told.map(drop).map_err(|error| Failure::Machine { what: PathBuf::from(format!("admin port {path}")), error })
    }

    /// Waits until a stat has this value.
    pub async fn wait_stat(&self, name: &str, value: u64) -> Result<(), Failure> {
        let what = format!("{name} is {value} in Envoy \"{}\"", self.name);
        until(&what, SOON, || match self.stat(name)? {
            seen if seen == value => Ok(()),
            seen => Err(seen.to_string()),
        })
        .await
    }

    /// One stat by its full name; 0 if Envoy has not made it yet, as Envoy makes many on first use.
    pub fn stat(&self, name: &str) -> Result<u64, String> {
        let path = format!("/stats?filter=^{}$", name.replace('.', "\\."));
        let text = self.admin.get(&path).map_err(|error| format!("no answer of its admin port: {error}"))?;
        Ok(text.lines().find_map(|line| line.split_once(": ")?.1.parse().ok()).unwrap_or_default())
    }

    /// The filter's metrics once nothing is queued or in flight and `delivered` messages have arrived in all.
    pub async fn wait_delivered(&self, delivered: u64) -> Result<(), Failure> {
        let look = || {
            let metrics = self.admin.try_metrics().map_err(|error| error.to_string())?;
            if metrics.at_rest() && metrics.delivered() == delivered { Ok(()) } else { Err(format!("{metrics:?}")) }
        };
        match until("the books balance", SOON, look).await {
            Err(Failure::TooLate { seen, .. }) => Err(Failure::Books { stored: delivered, seen }),
            other => other,
        }
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.file("envoy.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join(" / ")
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        // It may have ended by itself; reaping it cannot fail then.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn spawn(meter: &Meter, binary: &Path, workers: Workers, folder: &Path) -> io::Result<Child> {
    let log = fs::File::create(folder.join("envoy.log"))?;
    let mut command = match meter {
        Meter::Time => Command::new(binary),
        Meter::Instructions(emulation) => emulation.command(&folder.join(COUNT), binary),
    };
    command
        .arg("-c")
        .arg(folder.join("envoy.json"))
        .args(["--concurrency", &workers.0.to_string()])
        // A configuration that was replaced is gone soon, as a row that pushes one expects.
        .args(["--drain-time-s", "2"])
        // Several Envoys run side by side; none of them is ever restarted hot.
        .arg("--disable-hot-restart")
        .args(["--log-level", "warning"])
        // The log of health events is read back; ten seconds, the default, is too long to wait for it.
        .args(["--file-flush-interval-msec", "100"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
}

/// The first field of each thread's schedstat (Linux, Documentation/scheduler/sched-stats.rst). Envoy keeps its threads
/// for life, so none takes its share away with it.
fn nanos_of_threads(process: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(process.join("task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        let nanos = text.split(' ').next().and_then(|nanos| nanos.parse::<u64>().ok());
        sum += nanos.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "schedstat without a time"))?;
    }
    Ok(sum)
}

fn of_process(process: &Path) -> io::Result<CpuMicros> {
    let ticks = ticks(&fs::read_to_string(process.join("stat"))?);
    let ticks = ticks.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "stat without utime and stime"))?;
    Ok(CpuMicros(ticks as f64 / CLOCK_TICKS_PER_SECOND * 1e6))
}

/// utime + stime: fields 14 and 15 (proc_pid_stat(5)), counted behind the name, which may hold blanks and brackets.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

/// `VmRSS` of `/proc/<pid>/status` (proc_pid_status(5)), which is in KiB whatever it says.
fn resident_kib(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// Looks until `look` returns a value. (The harness's own way of waiting ends in a panic, as a test should.)
pub async fn until<T>(what: &str, within: Duration, mut look: impl FnMut() -> Result<T, String>) -> Result<T, Failure> {
    let start = Instant::now();
    loop {
        match look() {
            Ok(value) => return Ok(value),
            Err(seen) if start.elapsed() > within => return Err(Failure::TooLate { what: what.to_owned(), seen }),
            Err(_) => sleep(Duration::from_millis(5)).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_behind_a_name_with_brackets() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 120 30 99 99 20 0";
        assert_eq!(ticks(stat), Some(150));
        assert_eq!(ticks("7 (cut short) S 1"), None);
    }

    #[test]
    fn memory_is_read_in_kib() {
        assert_eq!(resident_kib("VmHWM:\t  200 kB\nVmRSS:\t  1234 kB\nThreads:\t3\n"), Some(1234));
        assert_eq!(resident_kib("Threads:\t3\n"), None);
    }
}
