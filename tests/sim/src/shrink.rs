//! Makes a failing history small: leaves out actions, as many as possible at a time, as long as it still fails alike.

use crate::history::History;
use crate::violation::Invariant;
use crate::world::{self, Means};
use simvoy::Module;
use std::collections::BTreeSet;

/// The places of the actions that are needed for `invariant` to break, as few as could be found with `runs_max` runs.
#[must_use]
pub fn shrink(
    module: &Module,
    history: &History,
    means: &Means,
    invariant: Invariant,
    runs_max: u32,
) -> BTreeSet<usize> {
    let mut kept: BTreeSet<usize> = (0..history.actions.len()).collect();
    let mut runs = 0;
    let mut step = kept.len().div_ceil(2).max(1);
    loop {
        let mut has_shrunk = false;
        let places: Vec<usize> = kept.iter().copied().collect();
        for chunk in places.chunks(step) {
            if runs >= runs_max {
                return kept;
            }
            runs += 1;
            let fewer: BTreeSet<usize> = kept.iter().copied().filter(|place| !chunk.contains(place)).collect();
            let outcome = world::run(module, &history.keeping(|place| fewer.contains(&place)), means);
            if outcome.violation.is_some_and(|violation| violation.invariant == invariant) {
                kept = fewer;
                has_shrunk = true;
            }
        }
        if step == 1 && !has_shrunk {
            return kept;
        }
        step = (step / 2).max(1);
    }
}

/// Places as a person types them: `3,5-9`.
#[must_use]
pub fn write_places(places: &BTreeSet<usize>) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for place in places {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *place => *last = *place,
            Some(_) | None => ranges.push((*place, *place)),
        }
    }
    let one = |(first, last): &(usize, usize)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    ranges.iter().map(one).collect::<Vec<_>>().join(",")
}

/// The places of such a text.
#[must_use]
pub fn read_places(text: &str) -> Option<BTreeSet<usize>> {
    let mut places = BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        places.extend(first.parse::<usize>().ok()?..=last.parse().ok()?);
    }
    Some(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_read_back_as_written() {
        let places = BTreeSet::from([3, 5, 6, 7, 20]);
        assert_eq!(write_places(&places), "3,5-7,20");
        assert_eq!(read_places("3,5-7,20"), Some(places));
        assert_eq!(read_places("3,x"), None);
    }
}
