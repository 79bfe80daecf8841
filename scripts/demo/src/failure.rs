//! Why a demo could not be told to its end, and what to do about it. Losses are no failure: they are a verdict.

use std::fmt;
use std::path::PathBuf;

/// One variant per cause; the text names the cure.
pub enum Failure {
    /// A file that the demo needs is not there or cannot be read.
    Unreadable { what: &'static str, path: PathBuf, cause: String, cure: &'static str },
    /// The bootstrap does not parse.
    NotYaml { path: PathBuf, cause: String },
    /// The bootstrap parses, but misses what the demo has to set.
    Lacks { path: PathBuf, place: String },
    /// Envoy could not be started at all.
    NotStarted { cause: String },
    /// Envoy ended by itself.
    Stopped { status: String, log_tail: String },
    /// Envoy runs, but something did not happen in time.
    TooLate { what: &'static str, log_tail: String },
    /// A receiver's port was taken by another program.
    PortLost { receiver: &'static str, cause: String },
    /// Someone asked us to stop.
    Interrupted,
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { what, path, cause, cure } => {
                write!(out, "{what} {} cannot be read ({cause}): {cure}", path.display())
            }
            Self::NotYaml { path, cause } => write!(out, "{} is no valid YAML: {cause}", path.display()),
            Self::Lacks { path, place } => {
                write!(out, "{} has no {place}: the demo needs the names of envoy/envoy.yaml", path.display())
            }
            Self::NotStarted { cause } => {
                write!(out, "Envoy does not start ({cause}): remove .tools and run scripts/demo.sh again")
            }
            Self::Stopped { status, log_tail } => {
                write!(out, "Envoy ended by itself ({status}); the end of its log:\n{log_tail}")
            }
            Self::TooLate { what, log_tail } => {
                write!(out, "gave up waiting: {what}; the end of Envoy's log:\n{log_tail}")
            }
            Self::PortLost { receiver, cause } => {
                write!(out, "the receiver of {receiver} cannot have its port ({cause}): run the demo again")
            }
            Self::Interrupted => write!(out, "interrupted"),
        }
    }
}
