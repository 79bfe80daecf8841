//! With what the cost of a request is read: the processor's time, which is what anybody pays, or the instructions that
//! were executed, which come out nearly the same on a busy machine and say where the time goes. It never judges: goals
//! are about time.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::envoy::Envoy;
use crate::failure::Failure;
use crate::goal::Goal;
use crate::options::Options;
use crate::row::Row;

/// One of the two.
#[derive(Clone, Debug)]
pub enum Meter {
    /// Microseconds of processor time, all threads, user and system.
    Time,
    /// Thousands of instructions in user space, all threads.
    Instructions(Emulation),
}

/// What an Envoy runs under while its instructions are counted; ten to twenty times slower than without.
#[derive(Clone, Debug)]
pub struct Emulation {
    emulator: PathBuf,
    plugin: PathBuf,
}

/// `rep movsb` would count once for each byte: a C library that believes it to be fast copies by nothing else.
const CPU: &str = if cfg!(target_arch = "x86_64") { "max,-erms,-fsrm" } else { "max" };

impl Emulation {
    /// QEMU's emulator of the machine's own instructions, with `redeliver-counter` in it.
    pub fn of(options: &Options) -> Emulation {
        let emulator = PathBuf::from(format!("qemu-{}", std::env::consts::ARCH));
        Emulation { emulator, plugin: options.counter.clone() }
    }

    /// Its version, if it can count: it runs this program once.
    ///
    /// # Errors
    /// One sentence that says why not, and what to do.
    pub fn version(&self) -> Result<String, String> {
        let emulator = self.emulator.display();
        let missing =
            |_| format!("{emulator} is not installed: QEMU 7.2 to 8.2 can count (Debian 12 has it in qemu-user)");
        let version = Command::new(&self.emulator).arg("--version").output().map_err(missing)?;
        let text = String::from_utf8_lossy(&version.stdout).into_owned();
        let version =
            text.split("version ").nth(1).and_then(|rest| rest.split([' ', '\n']).next()).unwrap_or("unknown");
        let try_out = || {
            let folder = tempfile::tempdir()?;
            self.command(&folder.path().join("count"), &std::env::current_exe()?).arg("--help").output()
        };
        match try_out() {
            Ok(output) if output.status.success() => Ok(version.to_owned()),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', " / ");
                Err(format!(
                    "{emulator} {version} does not run with {}, which is made for QEMU 7.2 to 8.2: {said}",
                    self.plugin.display()
                ))
            }
            Err(error) => Err(format!("{emulator} {version} cannot be tried out: {error}")),
        }
    }

    /// `binary`, whose instructions will be counted in the file `count`.
    pub fn command(&self, count: &Path, binary: &Path) -> Command {
        let mut command = Command::new(&self.emulator);
        let plugin = format!("{},into={}", self.plugin.display(), count.display());
        command.args(["-cpu", CPU, "-plugin", &plugin]).arg(binary);
        command
    }
}

impl Meter {
    /// Of [`Meter::read`].
    pub const fn unit(&self) -> &'static str {
        match self {
            Meter::Time => "us",
            Meter::Instructions(_) => "k instr",
        }
    }

    /// What an Envoy that was started for this meter has cost since it began.
    pub fn read(&self, envoy: &Envoy) -> Result<f64, Failure> {
        match self {
            Meter::Time => Ok(envoy.cpu()?.0),
            Meter::Instructions(_) => Ok(envoy.instructions()? as f64 / 1e3),
        }
    }

    /// The row that the figures stand in.
    pub const fn row(&self, timed: Row) -> Row {
        match self {
            Meter::Time => timed,
            Meter::Instructions(_) => Row::Count,
        }
    }

    /// What the figures are to reach.
    pub const fn goal(&self, timed: Goal) -> Goal {
        match self {
            Meter::Time => timed,
            Meter::Instructions(_) => Goal::None,
        }
    }
}
