//! What can be wrong with a configuration, and the words for it: every sentence that an operator can read is here.
//!
//! Never stops at the first fault, and never prints a value that could break a log line: text of the configuration is
//! quoted, cut and escaped by [`Quoted`]. No number is formatted as floating point (23 KB of Wasm).

use std::fmt;

/// Everything that is wrong with one configuration; at least one fault.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The key as an operator writes it, `redelivery.backoff.max`; `configuration` when the text as a whole is meant.
    pub path: String,
    /// What is wrong there.
    pub problem: Problem,
}

/// The causes, one variant each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Bytes that are no text: what a `Struct` looks like to a Wasm plugin.
    RawProtobuf,
    /// Text that does not even start like an object, such as YAML.
    NotJsonObjectText,
    /// Text that breaks the grammar of JSON; the reader's own words, with line and column.
    NotJson(String),
    /// A key that this configuration does not have, with the nearest one that it has.
    UnknownKey {
        /// The path that was probably meant.
        nearest: Option<String>,
    },
    /// `"a.b": 1` where `"a": {"b": 1}` was meant.
    DottedKey,
    /// The same key twice in one object: JSON readers disagree about which one counts, so none does.
    GivenTwice,
    /// A key of an area that is not built yet.
    NotInThisBuild,
    /// A value of another JSON type.
    WrongType {
        /// What belongs here.
        wanted: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// None of the words that are allowed here.
    NoSuchChoice {
        /// The words that are.
        choices: Vec<&'static str>,
        /// The word that was found.
        found: String,
    },
    /// Smaller than the least that makes sense, or than another key allows.
    Below {
        /// The value.
        found: String,
        /// The least value, with the key that says so if it is another one.
        least: String,
    },
    /// Larger than the most that makes sense, or than another key allows.
    Above {
        /// The value.
        found: String,
        /// The most, with the key that says so if it is another one.
        most: String,
    },
    /// A decimal number outside its range; the number itself is not repeated (no float formatting).
    DecimalOutside {
        /// The least value.
        least: String,
        /// The greatest value.
        most: String,
    },
    /// More than three decimals: we count in thousandths.
    TooFine,
    /// A whole number was wanted, a fraction (or a number beyond 64 bits) was found.
    NotWhole,
    /// `1.5s`, `0.5MiB`.
    DecimalQuantity(String),
    /// `10`: a quantity without a unit.
    NoUnit {
        /// The text.
        found: String,
        /// The units there are.
        units: &'static str,
    },
    /// `10d`, `64KB`.
    UnknownUnit {
        /// The unit that was found.
        found: String,
        /// The units there are.
        units: &'static str,
    },
    /// `30m1h`, `1s1s`: units repeat or rise.
    UnitOrder(String),
    /// Text that is no quantity at all.
    Malformed {
        /// The text.
        found: String,
        /// What belongs here, with an example.
        wanted: &'static str,
    },
    /// A text that breaks a rule of its kind.
    Breaks {
        /// The text.
        found: String,
        /// The rule, as a sentence that continues "... must".
        rule: &'static str,
    },
    /// A list that may not be empty.
    EmptyList(&'static str),
    /// A value that only makes sense together with another one.
    Needs {
        /// The value that was found.
        found: &'static str,
        /// The other key and its value.
        other: &'static str,
    },
}

impl Faults {
    /// Notes a fault.
    pub(super) fn note(&mut self, path: &str, problem: Problem) {
        self.0.push(Fault { path: path.to_owned(), problem });
    }

    /// Notes a fault and gives the value that is not there, so that a reader can end with it.
    pub(super) fn refuse<T>(&mut self, path: &str, problem: Problem) -> Option<T> {
        self.note(path, problem);
        None
    }

    /// The value, or `None` and a fault at `path`.
    pub(super) fn keep<T>(&mut self, path: &str, outcome: Result<T, Problem>) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(problem) => self.refuse(path, problem),
        }
    }
}

impl fmt::Display for Faults {
    /// One line per fault, without a line end after the last.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, fault) in self.0.iter().enumerate() {
            if nth > 0 {
                f.write_str("\n")?;
            }
            fault.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.problem)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RawProtobuf => f.write_str("is raw protobuf, not JSON text: use StringValue, not Struct"),
            Self::NotJsonObjectText => {
                f.write_str("must be a JSON object that starts with {: use StringValue, not Struct, and JSON, not YAML")
            }
            Self::NotJson(words) => write!(f, "is not JSON: {words}"),
            Self::UnknownKey { nearest: None } => f.write_str("unknown key"),
            Self::UnknownKey { nearest: Some(path) } => write!(f, "unknown key, did you mean {path}?"),
            Self::DottedKey => f.write_str("unknown key: keys are nested objects, not joined by dots"),
            Self::GivenTwice => f.write_str("is given twice"),
            Self::NotInThisBuild => f.write_str("not in this build"),
            Self::WrongType { wanted, found } => write!(f, "must be {wanted}, found {found}"),
            Self::NoSuchChoice { choices, found } => {
                write!(f, "must be one of {}, found {}", choices.join(", "), Quoted(found))
            }
            Self::Below { found, least } => write!(f, "{} is below {least}", Plain(found)),
            Self::Above { found, most } => write!(f, "{} is above {most}", Plain(found)),
            Self::DecimalOutside { least, most } => write!(f, "must be a number from {least} to {most}"),
            Self::TooFine => f.write_str("must have at most three decimals"),
            Self::NotWhole => f.write_str("must be a whole number below 2^64, without decimals or an exponent"),
            Self::DecimalQuantity(found) => {
                write!(f, "{} has decimals: write whole numbers in a smaller unit", Quoted(found))
            }
            Self::NoUnit { found, units } => write!(f, "{} has no unit: write one of {units}", Quoted(found)),
            Self::UnknownUnit { found, units } => write!(f, "unit {} is unknown: write one of {units}", Quoted(found)),
            Self::UnitOrder(found) => write!(f, "{} must name each unit once, the largest first", Quoted(found)),
            Self::Malformed { found, wanted } => write!(f, "{} is not {wanted}", Quoted(found)),
            Self::Breaks { found, rule } => write!(f, "{} must {rule}", Quoted(found)),
            Self::EmptyList(what) => write!(f, "must name at least one {what}"),
            Self::Needs { found, other } => write!(f, "{found} needs {other}"),
        }
    }
}

/// Text of the configuration inside a sentence of ours: in quotes, at most [`Quoted::CHARS_MAX`] characters of it, and
/// on one line.
pub(super) struct Quoted<'a>(pub &'a str);

impl Quoted<'_> {
    /// Enough to recognise a value, too little to flood a log line.
    const CHARS_MAX: usize = 80;
}

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        write_plain(f, self.0)?;
        f.write_str("\"")
    }
}

/// A key inside a path: as it is, unless it is empty or would break the line.
pub(super) struct KeyName<'a>(pub &'a str);

impl fmt::Display for KeyName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("\"\"") } else { write_plain(f, self.0) }
    }
}

/// A quantity as it was written, cut and on one line: beyond 64 bits nobody has looked at the text behind its digits.
struct Plain<'a>(&'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_plain(f, self.0)
    }
}

fn write_plain(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    let mut chars = text.chars();
    for char in chars.by_ref().take(Quoted::CHARS_MAX) {
        if char.is_control() { write!(f, "{}", char.escape_default())? } else { write!(f, "{char}")? }
    }
    if chars.next().is_some() { f.write_str("...") } else { Ok(()) }
}
