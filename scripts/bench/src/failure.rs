//! What can go wrong in a run, one sentence each. It never says what to do next with the figures: there are none then.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a row has no figures.
#[derive(Debug)]
pub enum Failure {
    /// An Envoy did not come up, or went away.
    EnvoyEnded {
        /// Which one.
        name: String,
        /// The end of its log.
        log_tail: String,
    },
    /// Something did not become true in time.
    TooLate {
        /// What.
        what: String,
        /// What was seen instead.
        seen: String,
    },
    /// A request was answered otherwise than the row needs it.
    Answer {
        /// The status wanted.
        expected: u16,
        /// The answer's head.
        head: String,
    },
    /// A connection of the load generator broke, or Envoy closed it.
    Connection {
        /// What happened.
        error: io::Error,
    },
    /// A file or a process of this machine.
    Machine {
        /// Which.
        what: PathBuf,
        /// What happened.
        error: io::Error,
    },
    /// The receiver got another number of messages than were stored.
    Books {
        /// How many were stored.
        stored: u64,
        /// What the filter's metrics say.
        seen: String,
    },
    /// Instructions cannot be counted here.
    Emulator {
        /// Why not, and what to do.
        why: String,
    },
    /// The simulator ended without a result.
    Simulator {
        /// What it wrote instead; its reasons are on stderr.
        said: String,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::EnvoyEnded { name, log_tail } => {
                write!(f, "Envoy \"{name}\" ended; its log ends with: {log_tail}")
            }
            Failure::TooLate { what, seen } => write!(f, "not in time: {what}; last seen: {seen}"),
            Failure::Answer { expected, head } => write!(f, "an answer should have been {expected} and was: {head}"),
            Failure::Connection { error } => write!(f, "a connection of the load generator was lost: {error}"),
            Failure::Machine { what, error } => write!(f, "{}: {error}", what.display()),
            Failure::Emulator { why } => f.write_str(why),
            Failure::Simulator { said } => write!(f, "the simulator ended without a result, and said {said:?}"),
            Failure::Books { stored, seen } => write!(f, "{stored} messages were stored, but the metrics say {seen}"),
        }
    }
}

impl std::error::Error for Failure {}
