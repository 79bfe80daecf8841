//! The shape of a configuration against the table of keys: unknown keys, keys given twice, keys not built yet, and
//! anything but an object where keys belong.
//!
//! Never reads a value of a built key: the readers of [`super::table`] do. Afterwards every key is either read by one of
//! them or has its fault; none is accepted and ignored.
//!
//! ```text
//! key of the text                      known as                              then
//! redelivery.tick                      a key of a built area                 left to its reader
//! metrics.labels                       a key of another area                 not in this build
//! redelivery                           a group with a built key in it        must be an object; walked
//! operator                             a group without one                   walked, or not in this build as a whole
//! destinations.a                       destinations.<cluster>                walked
//! destinations.a.redelivery.timeout    redelivery.timeout, overridden        left to its reader
//! ```

use super::fault::{Faults, KeyName, Problem};
use super::table::{Area, KEYS};
use super::tree::{Json, Object};
use litemap::LiteMap;

/// The part of a known path that stands for any cluster name.
const ANY_CLUSTER: &str = "<cluster>";
/// Where the names of clusters are keys.
pub(super) const PER_CLUSTER: &str = "destinations";
/// What lies between the two in a known path.
pub(super) const OF_ANY_CLUSTER: &str = ".<cluster>.";

/// Refuses all of `object` that is no built key, or not in its place.
pub(super) fn check(object: &Object, faults: &mut Faults) {
    let top = Place { shown: String::new(), known: String::new() };
    top.check(object, faults);
}

/// The value at the path of a known key, if it is given: the first one, as [`check`] refuses a second. Under
/// `destinations` it is that whole object, because a key there has one value per cluster.
pub(super) fn find<'a>(object: &'a Object, path: &str) -> Option<&'a Json> {
    let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
    let value = first(object, name)?;
    match rest {
        None => Some(value),
        Some(_) if name == PER_CLUSTER => Some(value),
        Some(rest) => {
            if let Json::Object(inner) = value {
                find(inner, rest)
            } else {
                None
            }
        }
    }
}

/// The first value of a key.
pub(super) fn first<'a>(object: &'a Object, name: &str) -> Option<&'a Json> {
    object.iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

/// The path of a key in the object at `path`, for people.
pub(super) fn below(path: &str, key: &str) -> String {
    if path.is_empty() { KeyName(key).to_string() } else { format!("{path}.{}", KeyName(key)) }
}

/// An object of the text, as people see it and as the table knows it.
struct Place {
    shown: String,
    known: String,
}

/// What the table says about a path.
enum Known {
    Key(Built),
    /// An object that holds keys; `Built::Later` when none of them is built.
    Group(Built),
    /// The path, under `destinations.<cluster>`, of a top-level group that may be given for one cluster.
    Override(&'static str),
    Nothing,
}

#[derive(Clone, Copy, PartialEq)]
enum Built {
    Now,
    Later,
}

impl Place {
    fn check(&self, object: &Object, faults: &mut Faults) {
        let mut seen = LiteMap::new_vec();
        for (key, value) in object {
            let shown = below(&self.shown, key);
            if seen.insert(key, ()).is_none() {
                self.check_entry(shown, key, value, faults);
            } else {
                faults.note(&shown, Problem::GivenTwice);
            }
        }
    }

    fn check_entry(&self, shown: String, key: &str, value: &Json, faults: &mut Faults) {
        let known = self.known_path(key);
        match self.lookup(key, &known) {
            Known::Key(Built::Now) => {}
            Known::Key(Built::Later) => faults.note(&shown, Problem::NotInThisBuild),
            Known::Group(built) => Self { shown, known }.check_group(built, value, faults),
            Known::Override(of) => Self { shown, known: of.to_owned() }.check_group(Built::Now, value, faults),
            Known::Nothing => faults.note(&shown, self.unknown(key)),
        }
    }

    /// Walks a group; one of which nothing is built is refused even if it names no key, for it asks for something.
    fn check_group(&self, built: Built, value: &Json, faults: &mut Faults) {
        let object = if let Json::Object(object) = value { Some(object) } else { None };
        match (object, built) {
            (Some(object), Built::Now) => self.check(object, faults),
            (Some(object), Built::Later) if !object.is_empty() => self.check(object, faults),
            (Some(_) | None, Built::Later) => faults.note(&self.shown, Problem::NotInThisBuild),
            (None, Built::Now) => faults.note(&self.shown, value.is_not("an object")),
        }
    }

    /// The path in the table of a key in this object.
    fn known_path(&self, key: &str) -> String {
        match self.known.as_str() {
            "" => key.to_owned(),
            PER_CLUSTER => format!("{PER_CLUSTER}.{ANY_CLUSTER}"),
            known => format!("{known}.{key}"),
        }
    }

    fn lookup(&self, key: &str, known: &str) -> Known {
        if (key.is_empty() || key.contains('.')) && self.known != PER_CLUSTER {
            return Known::Nothing; // neither is a key of the table, but both would be taken for another path of it
        }
        if let Some((path, area)) = KEYS.iter().find(|(path, _)| *path == known) {
            return match overridden(path) {
                Some(of) if KEYS.iter().all(|(key, _)| *key != of) => Known::Override(of),
                Some(_) | None => Known::Key(built(*area)),
            };
        }
        let mut areas =
            KEYS.iter().filter(|(path, _)| rest_below(path, known).is_some()).map(|(_, area)| *area).peekable();
        if areas.peek().is_none() {
            Known::Nothing
        } else if areas.any(|area| built(area) == Built::Now) {
            Known::Group(Built::Now)
        } else {
            Known::Group(Built::Later)
        }
    }

    /// The fault of a key that the table does not have, with what was probably meant.
    fn unknown(&self, key: &str) -> Problem {
        if key.contains('.') {
            return Problem::DottedKey;
        }
        let sibling = self.siblings().filter_map(|name| Some((closeness(key, name)?, name))).min();
        let built = KEYS.iter().filter(|(_, area)| built(*area) == Built::Now).map(|(path, _)| *path);
        let elsewhere = || built.clone().find(|path| path.rsplit('.').next() == Some(key));
        let nearest = match sibling {
            Some((_, name)) => Some(below(&self.shown, name)),
            None => elsewhere().map(str::to_owned),
        };
        Problem::UnknownKey { nearest }
    }

    /// The keys and groups that this object can hold.
    fn siblings(&self) -> impl Iterator<Item = &'static str> {
        let per_cluster = format!("{PER_CLUSTER}.{ANY_CLUSTER}");
        let known = if self.known == PER_CLUSTER { per_cluster } else { self.known.clone() };
        KEYS.iter().filter_map(move |(path, _)| rest_below(path, &known)).filter_map(|rest| rest.split('.').next())
    }
}

const fn built(area: Area) -> Built {
    match area {
        Area::Filter => Built::Now,
        Area::Operations | Area::Durable => Built::Later,
    }
}

/// The keys and groups that may be given for one cluster too.
pub(super) fn overridable() -> Vec<&'static str> {
    KEYS.iter().filter_map(|(key, _)| overridden(key)).collect()
}

/// Whether `path` is that group, or in it.
pub(super) fn is_in(path: &str, group: &str) -> bool {
    path == group || rest_below(path, group).is_some()
}

/// `path` without the group in front of it; nothing if it is not in that group. Everything is in the group "".
fn rest_below<'a>(path: &'a str, group: &str) -> Option<&'a str> {
    if group.is_empty() { Some(path) } else { path.strip_prefix(group)?.strip_prefix('.') }
}

/// The top-level key or group that a path under `destinations.<cluster>` overrides.
fn overridden(path: &'static str) -> Option<&'static str> {
    let name = rest_below(rest_below(path, PER_CLUSTER)?, ANY_CLUSTER)?;
    KEYS.iter().any(|(key, _)| *key == name || rest_below(key, name).is_some()).then_some(name)
}

/// How many characters lie between a key and a name, if so few that the name was probably meant: a third of it, at
/// least one.
fn closeness(key: &str, name: &str) -> Option<usize> {
    let most = name.len().div_euclid(3).max(1);
    let near_in_length = key.len().abs_diff(name.len()) <= most;
    near_in_length.then(|| edit_distance(key, name)).filter(|distance| *distance <= most)
}

/// Insertions, deletions and replacements from one text to the other (Levenshtein, one row at a time).
fn edit_distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (nth, from_char) in from.chars().enumerate() {
        let mut left = nth.saturating_add(1);
        let mut next = vec![left];
        for ((to_char, diagonal), above) in to.chars().zip(row.iter()).zip(row.iter().skip(1)) {
            let replaced = diagonal.saturating_add(usize::from(from_char != to_char));
            left = replaced.min(above.saturating_add(1)).min(left.saturating_add(1));
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}
