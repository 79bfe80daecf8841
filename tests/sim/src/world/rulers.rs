//! Which configuration rules, told by what the host does. The one that was configured last does, wherever that was:
//!
//! | the host | then |
//! | --- | --- |
//! | makes root contexts for a push | its text rules |
//! | makes a dead VM anew, for a stream of a listener that drains | that older text rules again: a known gap |
//! | makes the newer root context of that VM anew, for a stream of its listener | the newer text rules again |
//! | lets go of a root context whose text rules | the one before it rules |
//!
//! Never looks at the cell of shared memory that says so.

use simvoy::{Generation, ThreadId};
use std::collections::{BTreeMap, BTreeSet};

/// Whether another configuration may rule from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// Another one may.
    Changes,
    /// The same as before.
    Stays,
}

/// The configurations that there are.
#[derive(Debug, Default)]
pub(super) struct Rulers {
    texts: BTreeMap<Generation, String>,
    /// In the order in which they were last configured.
    rulers: Vec<String>,
    /// The one that ruled when a thread let go of it. Others may have it still, and take the rule until they let go too.
    given_back: Option<String>,
    gone: BTreeSet<(ThreadId, Generation)>,
}

impl Rulers {
    /// A push has this configuration.
    pub(super) fn pushed(&mut self, generation: Generation, text: String) {
        self.texts.insert(generation, text);
    }

    /// A thread has made a root context.
    pub(super) fn configured(&mut self, generation: Generation) -> Rule {
        let Some(text) = self.texts.get(&generation) else { return Rule::Stays };
        if self.rulers.last() == Some(text) {
            return Rule::Stays;
        }
        self.rulers.retain(|ruler| ruler != text);
        self.rulers.push(text.clone());
        self.given_back = None;
        Rule::Changes
    }

    /// A thread has let go of a generation; a later one with the same text keeps its root context.
    pub(super) fn gone(&mut self, thread: ThreadId, generation: Generation) -> Rule {
        self.gone.insert((thread, generation));
        let Some(text) = self.texts.get(&generation) else { return Rule::Stays };
        let mut others = self.texts.iter().filter(|(other, theirs)| **other != generation && *theirs == text);
        if others.any(|(other, _)| !self.gone.contains(&(thread, *other))) {
            return Rule::Stays;
        }
        if self.rulers.last() == Some(text) {
            self.given_back = Some(text.clone());
        }
        self.rulers.retain(|ruler| ruler != text);
        if self.given_back.as_ref() == Some(text) { Rule::Changes } else { Rule::Stays }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKERS: [ThreadId; 2] = [ThreadId(1), ThreadId(2)];
    const OLD: Generation = Generation(1);
    const NEW: Generation = Generation(2);

    fn with_both() -> Rulers {
        let mut rulers = Rulers::default();
        for (generation, text) in [(OLD, "old"), (NEW, "new")] {
            rulers.pushed(generation, text.to_owned());
            assert_eq!(WORKERS.map(|_| rulers.configured(generation)), [Rule::Changes, Rule::Stays]);
        }
        rulers
    }

    #[test]
    fn an_older_configuration_that_a_vm_is_made_anew_with_rules_until_the_newer_one_is_made_there_too() {
        let mut rulers = with_both();
        assert_eq!(
            [OLD, OLD, NEW, NEW].map(|one| rulers.configured(one)),
            [Rule::Changes, Rule::Stays, Rule::Changes, Rule::Stays]
        );
    }

    #[test]
    fn a_listener_that_has_drained_changes_nothing_unless_its_configuration_rules() {
        let mut rulers = with_both();
        assert_eq!(WORKERS.map(|thread| rulers.gone(thread, OLD)), [Rule::Stays, Rule::Stays]);
        let mut rulers = with_both();
        rulers.configured(OLD);
        assert_eq!(WORKERS.map(|thread| rulers.gone(thread, OLD)), [Rule::Changes, Rule::Changes]);
    }

    #[test]
    fn a_push_of_the_same_text_changes_nothing_and_keeps_it() {
        let mut rulers = with_both();
        let again = Generation(3);
        rulers.pushed(again, "new".to_owned());
        assert_eq!(rulers.configured(again), Rule::Stays);
        assert_eq!(rulers.gone(WORKERS[0], NEW), Rule::Stays);
    }
}
