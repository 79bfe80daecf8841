//! Neighbours: other Envoys with this filter, before or after this one, and what is believed of their `x-redeliver-*`
//! headers (CONTRACT section 4, `trust`).
//!
//! | header | on | of a stranger | of a neighbour that `trust` names |
//! | --- | --- | --- | --- |
//! | any of ours | a protected request, or its answer | removed | handed on |
//! | `x-redeliver-hops: n` | a request that fails | not believed: n is 0 | below 3: stored, redelivered with n + 1; from 3 on: not stored, `unstorable` |
//! | `x-redeliver-id` | a request that is stored | not believed: a new id | kept: the first sender's id is the one that the receiver sees |
//! | `x-redeliver-status: stored`, `duplicate` | an answer | not believed | the neighbour has custody: handed on unchanged, nothing is stored here |
//! | the same | the answer to a redelivery | not believed | delivered: custody has moved on, whatever the answer's status is |
//!
//! So custody is in one place at a time, and moves towards the receiver. Decides only; never touches a header map.

use crate::config::Trust;
use crate::headers::{HEADER_HOPS, HEADER_ID, HEADER_STATUS, HeaderList, forged};
use crate::message::MessageId;
use crate::reply::NotStored;

/// How many filters have stored a message, the one that redelivers it included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hops(pub u8);

impl Hops {
    /// Nobody has.
    pub const NONE: Self = Self(0);
    /// The first filter has.
    pub const FIRST: Self = Self(1);
    /// A message that was stored this often is not stored again: a row of three is the longest that makes sense (a
    /// gateway, an egress and a sidecar), and a loop ends here.
    pub const MAX: Self = Self(3);

    /// What a redelivery with these headers says: of several, the largest.
    #[must_use]
    pub fn said(arrived: &HeaderList) -> Self {
        arrived.all(HEADER_HOPS).map(Self::read).max().unwrap_or(Self::NONE)
    }

    /// What one header said. Garbage counts as nothing, too large a number as many.
    fn read(value: &[u8]) -> Self {
        let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let number =
            std::str::from_utf8(value).ok().filter(|_| is_number).map(|digits| digits.parse().unwrap_or(u8::MAX));
        number.map_or(Self::NONE, Self)
    }

    /// One more; `None` if it is too many.
    fn next(self) -> Option<Self> {
        (self < Self::MAX).then_some(Self(self.0.saturating_add(1)))
    }
}

/// Where a request that is to be stored comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The id under which the hop before had it.
    pub id: Option<MessageId>,
    /// What our redeliveries of it say.
    pub hops: Hops,
}

impl Origin {
    /// The origin of the request with these headers.
    ///
    /// # Errors
    /// [`NotStored::Unstorable`] when it was stored too often already.
    pub fn read(arrived: &HeaderList, senders: Trust) -> Result<Self, NotStored> {
        match senders {
            Trust::Withheld => Ok(Self { id: None, hops: Hops::FIRST }),
            Trust::Given => {
                let id = arrived.first(HEADER_ID).and_then(MessageId::read);
                Hops::said(arrived).next().map(|hops| Self { id, hops }).ok_or(NotStored::Unstorable)
            }
        }
    }
}

/// Those of our headers that nobody may believe here: they are removed.
pub fn unbelieved(headers: &HeaderList, trust: Trust) -> impl Iterator<Item = &'static str> {
    forged(headers).filter(move |_| trust == Trust::Withheld)
}

/// Whether the receiver's side says that it has taken custody.
#[must_use]
pub fn has_custody(answer: &HeaderList, receivers: Trust) -> bool {
    match receivers {
        Trust::Withheld => false,
        Trust::Given => answer.all(HEADER_STATUS).any(|status| matches!(status, b"stored" | b"duplicate")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::HEADER_ATTEMPT;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn list(fields: &[(&str, &str)]) -> HeaderList {
        fields.iter().copied().collect()
    }

    #[test]
    fn hops_are_counted_on_and_end_at_three() {
        let cases = [
            (None, Ok(1)),
            (Some("0"), Ok(1)),
            (Some("1"), Ok(2)),
            (Some("2"), Ok(3)),
            (Some("3"), Err(NotStored::Unstorable)),
            (Some("4"), Err(NotStored::Unstorable)),
            (Some("99999999999999999999"), Err(NotStored::Unstorable)),
            (Some("-1"), Ok(1)),
            (Some("many"), Ok(1)),
            (Some(""), Ok(1)),
        ];
        for (value, expected) in cases {
            let headers = list(&value.map(|value| (HEADER_HOPS, value)).into_iter().collect::<Vec<_>>());
            let found = Origin::read(&headers, Trust::Given).map(|origin| origin.hops.0);
            assert_eq!(found, expected, "{value:?}");
            let stranger = Origin::read(&headers, Trust::Withheld);
            assert_eq!(stranger, Ok(Origin { id: None, hops: Hops::FIRST }), "{value:?}");
        }
    }

    #[test]
    fn of_several_hop_counts_the_largest_is_believed() {
        let headers = list(&[(HEADER_HOPS, "1"), (HEADER_HOPS, "3")]);
        assert_eq!(Origin::read(&headers, Trust::Given), Err(NotStored::Unstorable));
    }

    #[test]
    fn the_id_of_the_hop_before_is_kept_if_it_is_one_of_ours() {
        let id = MessageId([0xab; 16]);
        let read = |value: &str| Origin::read(&list(&[(HEADER_ID, value)]), Trust::Given).unwrap().id;
        assert_eq!(read(&id.to_string()), Some(id));
        for other in ["", "abc", &id.to_string().to_uppercase(), &format!("{id}0"), &"g".repeat(32)] {
            assert_eq!(read(other), None, "{other}");
        }
    }

    #[test]
    fn a_strangers_headers_are_removed_and_a_neighbours_are_not() {
        let headers = list(&[(HEADER_ID, "1"), (HEADER_ATTEMPT, "2"), ("x-other", "3")]);
        assert_eq!(unbelieved(&headers, Trust::Withheld).collect::<Vec<_>>(), [HEADER_ID, HEADER_ATTEMPT]);
        assert_eq!(unbelieved(&headers, Trust::Given).count(), 0);
    }

    #[test]
    fn only_a_neighbour_can_say_that_it_has_custody() {
        for (status, expected) in
            [("stored", true), ("duplicate", true), ("not-stored; reason=full", false), ("", false)]
        {
            let answer = list(&[(HEADER_STATUS, status)]);
            assert_eq!(has_custody(&answer, Trust::Given), expected, "{status}");
            assert!(!has_custody(&answer, Trust::Withheld), "{status}");
        }
    }
}
