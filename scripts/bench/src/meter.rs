//! With what the cost of a request is read: the processor's time, which is what anybody pays, or the instructions that
//! were executed, which come out the same on a busy machine and say where the time goes. It never judges: goals are
//! about time.

use std::path::PathBuf;

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
    /// QEMU's user-mode emulator of this machine.
    pub emulator: PathBuf,
    /// `redeliver-counter`.
    pub plugin: PathBuf,
}

impl Emulation {
    /// The emulator of the machine's own instructions.
    pub fn of(options: &Options) -> Emulation {
        let emulator = PathBuf::from(format!("qemu-{}", std::env::consts::ARCH));
        Emulation { emulator, plugin: options.counter.clone() }
    }

    /// Whether it can be started.
    pub fn is_there(&self) -> bool {
        let version = std::process::Command::new(&self.emulator).arg("--version").output();
        version.is_ok_and(|output| output.status.success())
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
