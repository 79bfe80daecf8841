//! An arm: something that runs a case and tells what it saw.

use std::fmt;

use crate::case::Case;
use crate::observation::Observation;

/// A host that can be asked.
///
/// What an arm provides:
/// * the set-up of the case: listener, routes, clusters with receivers that behave as they are told, the probe as the filter;
/// * its steps in order, each finished before the next one begins (a step that waits says for what);
/// * everything that is in `Observation`, unfiltered and in order: normalisation is the suite's (`transcript.rs`);
/// * `Case::ends`: after the last step it waits until every stream that a living VM has seen is deleted, unless the case says
///   otherwise. Lines that come later are not part of the observation.
///
/// An arm never compares and never looks at a recording.
pub trait Arm: Sync {
    /// The version of Envoy that it is, or imitates: which recording it is held to.
    ///
    /// # Errors
    /// If it cannot be found out.
    fn version(&self) -> Result<String, Problem>;

    /// Whether what it shows is a fact.
    fn authority(&self) -> Authority;

    /// Runs a case.
    ///
    /// # Errors
    /// If the case cannot be run to its end: the sentence says which step, and what was seen instead.
    fn run(&self, case: &Case) -> Result<Observation, Problem>;
}

/// Whether what an arm shows is a fact that others are held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority {
    /// It is Envoy: its transcripts are recorded.
    Original,
    /// It imitates Envoy: its transcripts are compared, and never recorded.
    Imitation,
}

/// Why a case could not be run to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The host did not take the set-up; its own words.
    NotStarted(String),
    /// What a step waits for did not come.
    NeverCame {
        /// The step.
        step: String,
        /// What was seen instead.
        seen: String,
    },
    /// The case asks for something that this arm cannot do.
    CannotDo(String),
}

impl Problem {
    /// A step speaks of a stream that no step before it has opened.
    #[must_use]
    pub fn not_open(name: &str) -> Self {
        Self::CannotDo(format!("find {name:?}: open it before this step"))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::NotStarted(words) => write!(f, "the host did not start: {words}"),
            Problem::NeverCame { step, seen } => write!(f, "what {step} waits for did not come; seen so far:\n{seen}"),
            Problem::CannotDo(what) => write!(f, "this arm cannot do what the case asks for: {what}"),
        }
    }
}
