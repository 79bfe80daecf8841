//! What the sender is told (CONTRACT section 4). No client text ever gets into a header of ours: a value with a line
//! break in it would split the answer (measured).

use crate::headers::{HEADER_ID, HEADER_STATUS};
use crate::message::MessageId;
use std::fmt;

/// Why a failed protected request was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotStored {
    /// No room.
    Full,
    /// The body is longer than `capture.max_body`.
    TooLarge,
    /// It may have been processed, and a repeat may do harm.
    UnknownOutcome,
    /// The whole body was not seen.
    IncompleteBody,
    /// It has trailers, or headers that cannot be sent again; it was stored three times already; it is a gRPC call of
    /// another number of messages than one.
    Unstorable,
    /// `store.accept` is false.
    Closed,
}

impl fmt::Display for NotStored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::TooLarge => "too-large",
            Self::UnknownOutcome => "unknown-outcome",
            Self::IncompleteBody => "incomplete-body",
            Self::Unstorable => "unstorable",
            Self::Closed => "closed",
        })
    }
}

/// An answer that takes the place of a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalReply {
    /// `:status`.
    pub status: u32,
    /// Its headers.
    pub headers: Vec<(&'static str, String)>,
    /// Its body.
    pub body: String,
}

/// Whether the sender asked for an asynchronous answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskedAsync {
    /// `Prefer: respond-async` (RFC 7240).
    Yes,
    /// It did not.
    No,
}

/// The 202: we hold the message, the sender need not send again.
#[must_use]
pub fn accepted(id: MessageId, asked: AskedAsync) -> LocalReply {
    let mut headers = stored_headers(id).to_vec();
    headers.push(("content-type", "application/json".to_owned()));
    match asked {
        AskedAsync::Yes => headers.push(("preference-applied", "respond-async".to_owned())),
        AskedAsync::No => {}
    }
    LocalReply { status: 202, headers, body: format!("{{\"id\": \"{id}\", \"status\": \"stored\"}}\n") }
}

/// What is added to the failure with `reply: original`.
#[must_use]
pub fn stored_headers(id: MessageId) -> [(&'static str, String); 2] {
    [(HEADER_STATUS, "stored".to_owned()), (HEADER_ID, id.to_string())]
}

/// What is added to the failure of a message that was not stored.
#[must_use]
pub fn not_stored_header(reason: NotStored) -> (&'static str, String) {
    (HEADER_STATUS, format!("not-stored; reason={reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn the_202_names_the_id_in_header_and_body() {
        let reply = accepted(MessageId([0xab; 16]), AskedAsync::Yes);
        let id = "ab".repeat(16);
        assert_eq!(reply.status, 202);
        assert!(reply.headers.contains(&(HEADER_ID, id.clone())));
        assert!(reply.headers.contains(&("preference-applied", "respond-async".to_owned())));
        let body: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
        assert_eq!(body, serde_json::json!({"id": id, "status": "stored"}));
    }

    #[test]
    fn an_id_is_url_safe_and_short() {
        let id = MessageId([0xff; 16]).to_string();
        assert!(id.len() <= 40 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    }
}
