//! Configuration text as a tree that still knows everything that was written: duplicate keys, order, kinds of numbers.
//!
//! Never interprets a value and never recurses deeper than serde_json lets it (128 levels), so no text can overflow the
//! stack. serde_json's own `Value` would silently keep the last of two equal keys; an operator wants to hear of both.

use super::fault::Problem;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// One JSON value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json {
    Null,
    Switch(bool),
    Whole(u64),
    Negative(i64),
    /// A fraction, an exponent, or a whole number beyond 64 bits. Always finite: serde_json refuses `1e400` and `NaN`.
    Fraction(f64),
    Text(String),
    List(Vec<Json>),
    Object(Object),
}

/// The entries of an object as they were written, equal keys included.
pub(super) type Object = Vec<(String, Json)>;

impl Json {
    /// Reads one JSON text with nothing after it; the error has line and column.
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        serde_json::from_str(text).map_err(|error| Problem::NotJson(error.to_string()))
    }

    /// What it is, as a word for people, with its article.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Switch(_) => "a boolean",
            Self::Whole(_) | Self::Negative(_) | Self::Fraction(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }

    /// The fault of finding this where `wanted` belongs.
    pub(super) const fn is_not(&self, wanted: &'static str) -> Problem {
        Problem::WrongType { wanted, found: self.kind() }
    }

    /// The text, or the fault that says that `wanted` belongs here.
    pub(super) fn text(&self, wanted: &'static str) -> Result<&str, Problem> {
        if let Self::Text(text) = self { Ok(text) } else { Err(self.is_not(wanted)) }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        source.deserialize_any(Builder)
    }
}

/// Builds a [`Json`] from what serde_json meets. All methods that serde_json calls are here; the provided ones would
/// drag serde's own error texts into the Wasm.
struct Builder;

impl<'de> Visitor<'de> for Builder {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Switch(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Whole(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Json, E> {
        Ok(u64::try_from(value).map_or(Json::Negative(value), Json::Whole))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Fraction(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut object = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            object.push(entry);
        }
        Ok(Json::Object(object))
    }
}
