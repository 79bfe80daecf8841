//! One Envoy process: started, awaited, looked into, and gone with its value.
//!
//! ```text
//!   folder/  envoy.json  listeners.json (watched)  envoy.log  main.access  plain.access
//! ```
//!
//! When a test fails, dropping the Envoy prints the tail of its log and the filter's metrics. It never touches a
//! process that it did not start.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::admin::{Admin, Metrics};
use crate::bootstrap::{Bootstrap, Company, Ports};
use crate::ports::free_port;
use crate::sender::{self, Request, Response};
use crate::wait::{SOON, eventually, throughout};

/// Two at a time: each has several busy threads, and the tests measure durations.
static ENVOYS: Semaphore = Semaphore::const_new(2);

/// Compiling the module takes about a second on an idle machine; a busy one may need far longer.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Ten ticks of the quick test configuration.
const STAYS_FOR: Duration = Duration::from_millis(500);

/// How much of the log a failing test prints.
const LOG_TAIL_LINES: usize = 60;

/// The workspace that this package belongs to.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in a workspace").to_owned()
}

/// The Envoy binary: `ENVOY_BIN`, or what `scripts/envoy.sh` keeps (`ENVOY_VERSION` picks another version there).
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("ENVOY_BIN") {
        Some(path) => PathBuf::from(path),
        None => {
            let script = workspace().join("scripts/envoy.sh");
            let output = Command::new(&script).arg("--print-path").stderr(Stdio::inherit()).output();
            let output = output.unwrap_or_else(|error| panic!("{} does not run: {error}", script.display()));
            assert!(output.status.success(), "{} --print-path failed", script.display());
            PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
        }
    })
}

/// A running Envoy.
pub struct Envoy {
    child: Child,
    folder: TempDir,
    ports: Ports,
    bootstrap: Bootstrap,
    /// Its admin port.
    pub admin: Admin,
    _permit: SemaphorePermit<'static>,
}

/// How an Envoy that did not come up ended.
#[derive(Debug)]
pub struct Ending {
    /// Its exit code; `None` if it runs on without the listeners that it rejected.
    pub code: Option<i32>,
    /// Everything it logged.
    pub log: String,
}

impl Bootstrap {
    /// Starts Envoy with this configuration and waits until it is ready.
    ///
    /// # Panics
    /// If it ends or does not become ready.
    pub async fn start(self) -> Envoy {
        match self.try_start().await {
            Ok(envoy) => envoy,
            Err(ending) => panic!("Envoy ended with {:?}:\n{}", ending.code, tail(&ending.log)),
        }
    }

    /// Lets Envoy check this configuration without running it (`--mode validate`).
    pub async fn validate(self) -> Ending {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let ports = Ports { main: free_port(), plain: free_port(), admin: free_port() };
        validate(&self.static_listeners().document(ports, folder.path())).await
    }

    /// Starts Envoy; how it ended if it did not come up.
    pub async fn try_start(self) -> Result<Envoy, Ending> {
        loop {
            match self.clone().start_once().await {
                // Another test process took one of the ports in the moment before Envoy did.
                Err(ending) if ending.log.contains("Address already in use") => {}
                ended => return ended,
            }
        }
    }

    async fn start_once(self) -> Result<Envoy, Ending> {
        let turns = match self.company {
            Company::Alone => 1,
            Company::First => 2,
            Company::Second => 0,
        };
        let permit = ENVOYS.acquire_many(turns).await.expect("the semaphore is never closed");
        let folder = tempfile::Builder::new().prefix("redeliver-e2e-").tempdir().expect("a temporary folder");
        let ports = Ports { main: free_port(), plain: free_port(), admin: free_port() };
        fs::write(folder.path().join("envoy.json"), self.document(ports, folder.path()).to_string()).expect("writable");
        put_listeners(&self, ports, folder.path());
        let child = spawn(&self, folder.path());
        let admin = Admin::new(ports.admin);
        let mut envoy = Envoy { child, folder, ports, bootstrap: self, admin, _permit: permit };
        let code = eventually("Envoy is ready", READY_WITHIN, || envoy.ready_or_ended()).await;
        match code {
            None => Ok(envoy),
            Some(code) => Err(Ending { code, log: envoy.log() }),
        }
    }
}

fn spawn(bootstrap: &Bootstrap, folder: &Path) -> Child {
    let log = fs::File::create(folder.join("envoy.log")).expect("writable");
    Command::new(binary())
        .arg("-c")
        .arg(folder.join("envoy.json"))
        .args(["--concurrency", &bootstrap.workers.to_string()])
        .args(["--drain-time-s", &bootstrap.drain_time.as_secs().to_string()])
        // Several Envoys run side by side; none of them is ever restarted hot.
        .arg("--disable-hot-restart")
        // Info of what the filter and the listeners do; Envoy's own start-up lines would bury it.
        .args(["--log-level", "warning", "--component-log-level", "wasm:info,upstream:info,config:info"])
        // Access logs are evidence; ten seconds, the default, is too long to wait for it.
        .args(["--file-flush-interval-msec", "100"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| panic!("{} does not start: {error}", binary().display()))
}

/// Replaces the watched file in one step: Envoy reads it when a name moves over it.
fn put_listeners(bootstrap: &Bootstrap, ports: Ports, folder: &Path) {
    let next = folder.join("listeners.next");
    fs::write(&next, bootstrap.listeners(ports, folder).to_string()).expect("writable");
    fs::rename(next, folder.join("listeners.json")).expect("in the same folder");
}

/// How Envoy took a push of listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Push {
    /// It runs the new one.
    Taken,
    /// It keeps the old one.
    Rejected,
}

impl Envoy {
    fn ready_or_ended(&mut self) -> Result<Option<Option<i32>>, String> {
        if let Some(status) = self.child.try_wait().map_err(|error| error.to_string())? {
            return Ok(Some(status.code()));
        }
        if self.admin.get("/stats?filter=lds.update_rejected").is_ok_and(|text| text.contains(": 1")) {
            return Ok(Some(None));
        }
        let live = self.admin.get("/ready").map_err(|error| error.to_string())?;
        // LDS from a file is read before Envoy says LIVE, but workers accept a moment later.
        let accepting = self.admin.stat("listener_manager.workers_started");
        if live.trim() == "LIVE" && accepting == 1 { Ok(None) } else { Err(format!("{live} workers {accepting}")) }
    }

    /// The port of the listener with the filter.
    pub fn port(&self) -> u16 {
        self.ports.main
    }

    /// The port of the listener without the filter, with the same routes.
    pub fn plain_port(&self) -> u16 {
        self.ports.plain
    }

    /// Sends one request through the filter on a connection of its own.
    pub async fn send(&self, request: &Request) -> Response {
        sender::send(self.ports.main, request).await
    }

    /// Sends one request past the filter on a connection of its own.
    pub async fn send_plain(&self, request: &Request) -> Response {
        sender::send(self.ports.plain, request).await
    }

    /// The filter's metrics now.
    pub fn metrics(&self) -> Metrics {
        self.admin.metrics()
    }

    /// Waits until the metrics are as `holds` says.
    pub async fn wait_metrics(&self, what: &str, within: Duration, holds: impl Fn(&Metrics) -> bool) -> Metrics {
        eventually(what, within, || {
            let metrics = self.metrics();
            if holds(&metrics) { Ok(metrics) } else { Err(format!("{metrics:?}")) }
        })
        .await
    }

    /// Waits until nothing is queued or in flight and the books balance.
    pub async fn wait_drained(&self, within: Duration) -> Metrics {
        self.wait_metrics("the backlog is empty and the books balance", within, Metrics::at_rest).await
    }

    /// Fails if the metrics are, or soon become, other than `holds` says: for what must not be counted. Metrics may lag
    /// behind by some ticks.
    pub async fn metrics_stay(&self, what: &str, holds: impl Fn(&Metrics) -> bool) {
        throughout(what, STAYS_FOR, || {
            let metrics = self.metrics();
            if holds(&metrics) { Ok(()) } else { Err(format!("{metrics:?}")) }
        })
        .await;
    }

    /// Waits until Envoy itself sees `count` healthy hosts in `cluster`.
    pub async fn wait_healthy(&self, cluster: &str, count: u64) {
        let name = format!("cluster.{cluster}.membership_healthy");
        self.wait_stat(&name, count).await;
    }

    /// Waits until no connection to `cluster` is open: a receiver that crashed is then known to be gone.
    pub async fn wait_disconnected(&self, cluster: &str) {
        self.wait_stat(&format!("cluster.{cluster}.upstream_cx_active"), 0).await;
    }

    /// Waits until a stat has this value.
    pub async fn wait_stat(&self, name: &str, value: u64) {
        eventually(&format!("{name} = {value}"), SOON, || match self.admin.stat(name) {
            seen if seen == value => Ok(()),
            seen => Err(seen.to_string()),
        })
        .await;
    }

    /// Pushes the listeners of another configuration through LDS and waits for Envoy's verdict.
    pub async fn push(&self, bootstrap: &Bootstrap) -> Push {
        let before = self.push_counts();
        put_listeners(bootstrap, self.ports, self.folder.path());
        eventually("Envoy takes or rejects the push", READY_WITHIN, || {
            let now = self.push_counts();
            match (now.0 > before.0 && now.2 == 0, now.1 > before.1) {
                (_, true) => Ok(Push::Rejected),
                (true, false) => Ok(Push::Taken),
                (false, false) => Err(format!("{now:?}, before {before:?}")),
            }
        })
        .await
    }

    fn push_counts(&self) -> (u64, u64, u64) {
        let stat = |name: &str| self.admin.stat(&format!("listener_manager.{name}"));
        let taken = stat("listener_added") + stat("listener_modified") + stat("listener_removed");
        (taken, stat("lds.update_rejected"), stat("total_listeners_warming"))
    }

    /// The configuration that it was started with, as a base for a push.
    pub fn bootstrap(&self) -> Bootstrap {
        self.bootstrap.clone()
    }

    /// Everything logged so far.
    pub fn log(&self) -> String {
        read_lossy(&self.folder.path().join("envoy.log"))
    }

    /// The id of the process, which is also the id of its main thread.
    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// Tells the process to end (SIGTERM) and waits until it has.
    pub async fn terminate(&mut self) {
        let told = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(told.is_ok_and(|status| status.success()), "the process {} takes no signal", self.child.id());
        eventually("Envoy ends", READY_WITHIN, || match self.child.try_wait() {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err("it runs".to_owned()),
            Err(error) => Err(error.to_string()),
        })
        .await;
    }

    /// The next process, with the same configuration on the same ports.
    ///
    /// # Panics
    /// If it does not become ready.
    pub async fn start_again(&mut self) {
        self.child = spawn(&self.bootstrap, self.folder.path());
        let ended = eventually("Envoy is ready again", READY_WITHIN, || self.ready_or_ended()).await;
        assert_eq!(ended, None, "Envoy ended:\n{}", tail(&self.log()));
    }

    /// The log lines that contain `text`.
    pub fn log_lines_with(&self, text: &str) -> Vec<String> {
        self.log().lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
    }

    /// Waits until `count` log lines contain `text`, and returns them.
    pub async fn wait_log(&self, text: &str, count: usize) -> Vec<String> {
        eventually(&format!("{count} log lines with {text:?}"), SOON, || {
            let lines = self.log_lines_with(text);
            if lines.len() >= count { Ok(lines) } else { Err(format!("{lines:?}")) }
        })
        .await
    }

    /// The access log line for `path` on the listener `main` or `plain`, once Envoy has written it.
    pub async fn access_line(&self, listener: &str, path: &str) -> String {
        let file = self.folder.path().join(format!("{listener}.access"));
        eventually(&format!("an access log line for {path}"), SOON, || {
            let log = read_lossy(&file);
            log.lines().find(|line| line.split(' ').nth(1) == Some(path)).map(str::to_owned).ok_or(log)
        })
        .await
    }

    /// Whether the process still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let metrics = self.admin.try_metrics();
            eprintln!("--- metrics: {metrics:?}\n--- Envoy's log:\n{}", tail(&self.log()));
        }
        // It may have ended by itself, which is what some tests want; reaping it cannot fail then.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Lets Envoy check a whole configuration without running it; how that ended (0: valid).
pub async fn validate(document: &serde_json::Value) -> Ending {
    let _permit = ENVOYS.acquire().await.expect("the semaphore is never closed");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("envoy.json");
    fs::write(&file, document.to_string()).expect("writable");
    let output = Command::new(binary()).arg("-c").arg(file).args(["--mode", "validate"]).output().expect("Envoy runs");
    let log = [output.stdout, output.stderr].concat();
    Ending { code: output.status.code(), log: String::from_utf8_lossy(&log).into_owned() }
}

fn read_lossy(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}
