//! How one value is read: durations, sizes, numbers, words, lists. Each reader knows its bounds and can say them, so
//! the reference shows the very bounds that are enforced.
//!
//! Never knows which key it reads: [`super::table`] does. Never compares two keys: [`super::relations`] does.

use super::fault::{Faults, Problem};
use super::tree::Json;
use super::{ClusterName, Rate, walk};
use crate::headers;
use crate::units::{ByteCount, Millis, Permille};
use litemap::LiteMap;

/// Reads one kind of value.
pub(super) trait Reads {
    /// What comes out.
    type Value;

    /// The value, or `None` and at least one fault at `path` or below it.
    fn read(&self, path: &str, json: &Json, faults: &mut Faults) -> Option<Self::Value>;

    /// What belongs here, for the reference.
    fn form(&self) -> String;
}

// --- quantities ---------------------------------------------------------------------------------------------------

/// A duration: whole numbers with the units ms, s, m, h, such as `250ms` or `1h30m`.
pub(super) struct Duration {
    pub least: Millis,
    pub most: Millis,
}

/// A number of bytes: a JSON number, or a whole number with the unit B, KiB, MiB or GiB.
pub(super) struct Size {
    pub least: ByteCount,
    pub most: ByteCount,
}

/// A whole number.
pub(super) struct Whole {
    pub least: u32,
    pub most: u32,
}

/// A decimal number with at most three decimals, kept in thousandths.
pub(super) struct Decimal {
    pub least: Permille,
    pub most: Permille,
}

/// A number per second with at most three decimals; 0 means that there is no limit.
pub(super) struct PerSecond {
    pub most: Permille,
}

/// Unit names with what they stand for, the largest first.
type Units = [(&'static str, u64)];

const DURATION_UNITS: &Units = &[("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const SIZE_UNITS: &Units = &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl Reads for Duration {
    type Value = Millis;

    fn read(&self, path: &str, json: &Json, faults: &mut Faults) -> Option<Millis> {
        let read = json.text("a duration such as \"10s\"").and_then(duration);
        faults.keep(path, read.and_then(|found| within(found, self.least, self.most)))
    }

    fn form(&self) -> String {
        format!("duration, `{}` to `{}`", self.least, self.most)
    }
}

impl Reads for Size {
    type Value = ByteCount;

    fn read(&self, path: &str, json: &Json, faults: &mut Faults) -> Option<ByteCount> {
        faults.keep(path, size(json).and_then(|found| within(found, self.least, self.most)))
    }

    fn form(&self) -> String {
        format!("size, `{}` to `{}`", self.least, self.most)
    }
}

impl Reads for Whole {
    type Value = u32;

    fn read(&self, path: &str, json: &Json, faults: &mut Faults) -> Option<u32> {
        faults.keep(path, whole(json, self.least, self.most))
    }

    fn form(&self) -> String {
        format!("{} to {}", self.least, self.most)
    }
}

impl Reads for Decimal {
    type Value = Permille;

    fn read(&self, path: &str, json: &Json, faults: &mut Faults) -> Option<Permille> {
        let read = thousandths(json).and_then(|found| {
            let outside = || Problem::DecimalOutside { least: self.least.to_string(), most: self.most.to_string() };
            found.filter(|value| (self.least..=self.most).contains(value)).ok_or_else(outside)
        });
        faults.keep(path, read)
    }

    fn form(&self) -> String {
        format!("{} to {}", self.least, self.most)
    }
}

impl Reads for PerSecond {
    type Value = Rate;

    fn read(&self, path: &str, json: &Json, faults: &mut Faults) -> Option<Rate> {
        let number = Decimal { least: Permille(0), most: self.most }.read(path, json, faults)?;
        Some(if number == Permille(0) { Rate::Unlimited } else { Rate::PerSecond(number) })
    }

    fn form(&self) -> String {
        Decimal { least: Permille(0), most: self.most }.form()
    }
}

/// `found`, if it lies between the bounds, both included.
fn within<T: Ord + Copy + ToString>(found: T, least: T, most: T) -> Result<T, Problem> {
    if found < least {
        Err(Problem::Below { found: found.to_string(), least: least.to_string() })
    } else if found > most {
        Err(Problem::Above { found: found.to_string(), most: most.to_string() })
    } else {
        Ok(found)
    }
}

fn whole(json: &Json, least: u32, most: u32) -> Result<u32, Problem> {
    match json {
        Json::Whole(number) => {
            within(*number, u64::from(least), u64::from(most)).map(|number| u32::try_from(number).unwrap_or(most))
        } // `most` is 32 bits wide, so the conversion holds
        Json::Negative(number) => Err(Problem::Below { found: number.to_string(), least: least.to_string() }),
        Json::Fraction(_) => Err(Problem::NotWhole),
        Json::Null | Json::Switch(_) | Json::Text(_) | Json::List(_) | Json::Object(_) => {
            Err(json.is_not("a whole number"))
        }
    }
}

/// The number in thousandths; `None` if it is negative or beyond 32 bits.
fn thousandths(json: &Json) -> Result<Option<Permille>, Problem> {
    match json {
        Json::Whole(number) => {
            let scaled = number.checked_mul(1000).and_then(|scaled| u32::try_from(scaled).ok());
            Ok(scaled.map(Permille))
        }
        Json::Negative(_) => Ok(None),
        Json::Fraction(number) => fraction_in_thousandths(*number),
        Json::Null | Json::Switch(_) | Json::Text(_) | Json::List(_) | Json::Object(_) => Err(json.is_not("a number")),
    }
}

fn fraction_in_thousandths(number: f64) -> Result<Option<Permille>, Problem> {
    let scaled = number * 1000.0;
    let nearest = scaled.round();
    if !(0.0..=f64::from(u32::MAX)).contains(&scaled) {
        Ok(None)
    } else if (scaled - nearest).abs() > 1e-6 {
        Err(Problem::TooFine) // 1e-6 is far above the rounding of `* 1000` and far below the next decimal
    } else {
        Ok(Some(Permille(nearest as u32))) // exact: whole and within 32 bits by the lines above
    }
}

fn duration(text: &str) -> Result<Millis, Problem> {
    let malformed = || Problem::Malformed { found: text.to_owned(), wanted: "a duration such as \"10s\" or \"1h30m\"" };
    let too_long = || Problem::Above { found: text.to_owned(), most: Millis(u64::MAX).to_string() };
    let (mut rest, mut total, mut unit_before) = (text, 0_u64, u64::MAX);
    while !rest.is_empty() || unit_before == u64::MAX {
        let part = Part::first_of(rest, text, DURATION_UNITS, "ms, s, m, h", malformed)?;
        if part.unit >= unit_before {
            return Err(Problem::UnitOrder(text.to_owned()));
        }
        let span = part.number.and_then(|number| number.checked_mul(part.unit)).ok_or_else(too_long)?;
        total = total.checked_add(span).ok_or_else(too_long)?;
        (rest, unit_before) = (part.rest, part.unit);
    }
    Ok(Millis(total))
}

fn size(json: &Json) -> Result<ByteCount, Problem> {
    const WANTED: &str = "a size such as \"256KiB\" or a number of bytes";
    match json {
        Json::Whole(bytes) => Ok(ByteCount(*bytes)),
        Json::Negative(bytes) => Err(Problem::Below { found: bytes.to_string(), least: ByteCount(0).to_string() }),
        Json::Fraction(_) => Err(Problem::NotWhole),
        Json::Text(text) => {
            let malformed = || Problem::Malformed { found: text.to_owned(), wanted: WANTED };
            let too_large = || Problem::Above { found: text.to_owned(), most: ByteCount(u64::MAX).to_string() };
            let part = Part::first_of(text, text, SIZE_UNITS, "B, KiB, MiB, GiB", malformed)?;
            if !part.rest.is_empty() {
                return Err(malformed());
            }
            part.number.and_then(|number| number.checked_mul(part.unit)).map(ByteCount).ok_or_else(too_large)
        }
        Json::Null | Json::Switch(_) | Json::List(_) | Json::Object(_) => Err(json.is_not(WANTED)),
    }
}

/// One whole number with its unit, at the front of a quantity.
struct Part<'a> {
    /// `None`: beyond 64 bits.
    number: Option<u64>,
    unit: u64,
    rest: &'a str,
}

impl<'a> Part<'a> {
    /// Splits the first part off `rest`, which is the end of `whole`; `names` lists `units` for people.
    fn first_of(
        rest: &'a str,
        whole: &str,
        units: &Units,
        names: &'static str,
        malformed: impl Fn() -> Problem,
    ) -> Result<Self, Problem> {
        let (digits, tail) = split_where(rest, |char| !char.is_ascii_digit());
        let (unit_name, rest) = split_where(tail, |char| char.is_ascii_digit());
        if digits.is_empty() {
            return Err(malformed());
        }
        if unit_name.starts_with(['.', ',']) {
            return Err(Problem::DecimalQuantity(whole.to_owned()));
        }
        if unit_name.is_empty() {
            return Err(Problem::NoUnit { found: whole.to_owned(), units: names });
        }
        let unknown = || Problem::UnknownUnit { found: unit_name.to_owned(), units: names };
        let (_, unit) = units.iter().find(|(name, _)| *name == unit_name).ok_or_else(unknown)?;
        Ok(Self { number: digits.parse().ok(), unit: *unit, rest })
    }
}

/// `text` before and from the first character that `ends` it.
fn split_where(text: &str, ends: impl Fn(char) -> bool) -> (&str, &str) {
    text.find(ends).and_then(|at| text.split_at_checked(at)).unwrap_or((text, ""))
}

// --- words --------------------------------------------------------------------------------------------------------

/// One of a few words, each with its meaning.
pub(super) struct Choice<T: 'static>(pub &'static [(&'static str, T)]);

/// `true` or `false`, given a name at once: nothing behind this file sees a bare boolean.
pub(super) struct Switch<T> {
    pub off: T,
    pub on: T,
}

impl<T: Copy> Reads for Choice<T> {
    type Value = T;

    fn read(&self, path: &str, json: &Json, faults: &mut Faults) -> Option<T> {
        let chosen = json.text("a string").and_then(|text| {
            let none = || Problem::NoSuchChoice {
                choices: self.0.iter().map(|(word, _)| *word).collect(),
                found: text.to_owned(),
            };
            self.0.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning).ok_or_else(none)
        });
        faults.keep(path, chosen)
    }

    fn form(&self) -> String {
        self.0.iter().map(|(word, _)| format!("`{word}`")).collect::<Vec<_>>().join(", ")
    }
}

impl<T: Copy> Reads for Switch<T> {
    type Value = T;

    fn read(&self, path: &str, json: &Json, faults: &mut Faults) -> Option<T> {
        match json {
            Json::Switch(false) => Some(self.off),
            Json::Switch(true) => Some(self.on),
            Json::Null
            | Json::Whole(_)
            | Json::Negative(_)
            | Json::Fraction(_)
            | Json::Text(_)
            | Json::List(_)
            | Json::Object(_) => faults.refuse(path, json.is_not("true or false")),
        }
    }

    fn form(&self) -> String {
        "`false`, `true`".to_owned()
    }
}

// --- one text, many texts -----------------------------------------------------------------------------------------

/// One value that a function reads.
pub(super) struct One<T> {
    pub item: fn(&Json) -> Result<T, Problem>,
    pub form: &'static str,
}

/// A list whose items a function reads.
pub(super) struct List<T> {
    pub item: fn(&Json) -> Result<T, Problem>,
    pub form: &'static str,
    pub empty: WhenEmpty,
}

/// Whether a list without items means something.
pub(super) enum WhenEmpty {
    /// It does.
    Allowed,
    /// It does not: at least one of these has to be named.
    Refused(&'static str),
}

impl<T> Reads for One<T> {
    type Value = T;

    fn read(&self, path: &str, json: &Json, faults: &mut Faults) -> Option<T> {
        faults.keep(path, (self.item)(json))
    }

    fn form(&self) -> String {
        self.form.to_owned()
    }
}

impl<T> Reads for List<T> {
    type Value = Vec<T>;

    fn read(&self, path: &str, json: &Json, faults: &mut Faults) -> Option<Vec<T>> {
        let Json::List(items) = json else {
            return faults.refuse(path, json.is_not("a list"));
        };
        if let (true, WhenEmpty::Refused(what)) = (items.is_empty(), &self.empty) {
            return faults.refuse(path, Problem::EmptyList(what));
        }
        let mut values = Vec::new();
        for (nth, item) in items.iter().enumerate() {
            values.extend(faults.keep(&format!("{path}[{nth}]"), (self.item)(item)));
        }
        (values.len() == items.len()).then_some(values)
    }

    fn form(&self) -> String {
        format!("list of {}", self.form)
    }
}

/// An HTTP status that can mean failure.
pub(super) fn failure_status(json: &Json) -> Result<u16, Problem> {
    narrow(whole(json, 400, 599)?)
}

/// A gRPC status other than 0 (OK); the codes end at 16 (UNAUTHENTICATED).
pub(super) fn grpc_failure_status(json: &Json) -> Result<u16, Problem> {
    narrow(whole(json, 1, 16)?)
}

/// Both status readers stay far below 16 bits; a number that did not would be above.
fn narrow(number: u32) -> Result<u16, Problem> {
    u16::try_from(number).map_err(|_| Problem::Above { found: number.to_string(), most: u16::MAX.to_string() })
}

/// The start of a `:path`.
pub(super) fn path_prefix(json: &Json) -> Result<String, Problem> {
    let text = json.text("a string")?;
    obeys(text, text.starts_with('/'), "start with /")?;
    obeys(text, is_visible_ascii(text), PERCENT_ENCODED)?;
    obeys(text, !text.contains(['?', '#']), "be a path, without ? or #")?;
    Ok(text.to_owned())
}

/// An HTTP method, case-sensitive by RFC 9110 section 9.1; CONNECT opens a tunnel, which is no message.
pub(super) fn method(json: &Json) -> Result<String, Problem> {
    let text = json.text("a string")?;
    obeys(text, is_token(text), "be an HTTP method")?;
    obeys(text, !text.bytes().any(|byte| byte.is_ascii_lowercase()), "be in upper case")?;
    obeys(text, text != "CONNECT", "be another method: a tunnel cannot be stored")?;
    Ok(text.to_owned())
}

/// A header name, in lower case as Envoy shows it to filters.
pub(super) fn header_name(json: &Json) -> Result<String, Problem> {
    let text = json.text("a string")?;
    obeys(text, !text.starts_with(':'), "be a header, not a pseudo-header")?;
    obeys(text, is_token(text), "be a header name")?;
    Ok(text.to_ascii_lowercase())
}

/// A header name that a redelivery can carry.
pub(super) fn sent_header_name(json: &Json) -> Result<String, Problem> {
    let name = header_name(json)?;
    obeys(&name, !headers::is_never_kept(name.as_bytes()), "be a header that a redelivery carries")?;
    Ok(name)
}

/// The name of a cluster of this Envoy.
pub(super) fn cluster_name(json: &Json) -> Result<ClusterName, Problem> {
    named_cluster(json.text("a string")?)
}

/// The name of a cluster, or no text at all for none.
pub(super) fn cluster_name_if_any(json: &Json) -> Result<Option<ClusterName>, Problem> {
    match json.text("a string")? {
        "" => Ok(None),
        name => named_cluster(name).map(Some),
    }
}

/// The path of the health question, with or without `{cluster}`.
pub(super) fn health_path(json: &Json) -> Result<String, Problem> {
    let text = json.text("a string")?;
    obeys(text, text.starts_with('/'), "start with /")?;
    obeys(text, is_visible_ascii(text), PERCENT_ENCODED)?;
    Ok(text.to_owned())
}

const PERCENT_ENCODED: &str = "consist of visible ASCII characters, others percent-encoded";

fn named_cluster(text: &str) -> Result<ClusterName, Problem> {
    obeys(text, !text.is_empty(), "be the name of a cluster")?;
    obeys(text, !text.chars().any(char::is_control), "have no control characters")?;
    Ok(ClusterName(text.to_owned()))
}

fn authority(json: &Json) -> Result<String, Problem> {
    let text = json.text("a string")?;
    let is_host = !text.is_empty() && is_visible_ascii(text) && !text.contains(['/', '?', '#', '@', ',', '\\']);
    obeys(text, is_host, "be a host, or host:port")?;
    Ok(text.to_owned())
}

fn obeys(text: &str, holds: bool, rule: &'static str) -> Result<(), Problem> {
    if holds { Ok(()) } else { Err(Problem::Breaks { found: text.to_owned(), rule }) }
}

fn is_visible_ascii(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A token of RFC 9110 section 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

// --- destinations -------------------------------------------------------------------------------------------------

/// The object `destinations`: who is named there, and with which `authority`.
pub(super) struct Authorities;

impl Reads for Authorities {
    type Value = LiteMap<ClusterName, Option<String>>;

    /// `json` is the whole object, or null if there is none. What is no object in it, [`walk`] has refused.
    fn read(&self, path: &str, json: &Json, faults: &mut Faults) -> Option<Self::Value> {
        let mut authorities = LiteMap::new();
        let (Json::Object(destinations), Some((group, key))) = (json, path.split_once(walk::OF_ANY_CLUSTER)) else {
            return Some(authorities);
        };
        for (name, keys) in destinations {
            let place = walk::below(group, name);
            let cluster = faults.keep(&place, named_cluster(name));
            let given = if let Json::Object(keys) = keys { walk::first(keys, key) } else { None };
            let authority = given.and_then(|json| faults.keep(&walk::below(&place, key), authority(json)));
            if let Some(cluster) = cluster {
                authorities.insert(cluster, authority);
            }
        }
        Some(authorities)
    }

    fn form(&self) -> String {
        "host, or host:port".to_owned()
    }
}

// --- not built ----------------------------------------------------------------------------------------------------

/// A key whose value nobody reads yet; only the reference knows what will belong here.
pub(super) struct Later(pub &'static str);

/// The value of such a key.
#[derive(Clone)]
pub(super) struct Unread;

/// A group whose keys are those of another one; only the reference knows it by itself.
pub(super) struct KeyByKey(pub &'static str);

impl Reads for KeyByKey {
    type Value = Unread;

    fn read(&self, _path: &str, _json: &Json, _faults: &mut Faults) -> Option<Unread> {
        Some(Unread)
    }

    fn form(&self) -> String {
        self.0.to_owned()
    }
}

impl Reads for Later {
    type Value = Unread;

    fn read(&self, _path: &str, _json: &Json, _faults: &mut Faults) -> Option<Unread> {
        Some(Unread)
    }

    fn form(&self) -> String {
        self.0.to_owned()
    }
}
