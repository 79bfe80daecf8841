//! What the sender is told (CONTRACT section 4). No client text ever gets into a header of ours: a value with a line
//! break in it would split the answer (measured).

use crate::headers::{HEADER_ID, HEADER_STATUS};
use crate::message::{MessageId, hexadecimal};
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
    /// The same to a gRPC call, which gets no body.
    pub grpc_status: CallStatus,
    /// Its headers.
    pub headers: Vec<(&'static str, String)>,
    /// Its body.
    pub body: String,
}

/// What a gRPC call is told that was not asked on: a 202 would be no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallStatus {
    /// 3: it must not be sent again like this.
    InvalidArgument,
    /// 14: the status of a call that failed and was stored.
    Unavailable,
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
    acknowledged(id, "stored", asked)
}

fn acknowledged(id: MessageId, status: &str, asked: AskedAsync) -> LocalReply {
    let id = hexadecimal(&id.0);
    // Not by `format!`, whose machinery takes as long as the rest of the answer.
    let body = ["{\"id\": \"", &id, "\", \"status\": \"", status, "\"}\n"].concat();
    let mut headers = Vec::with_capacity(4);
    headers.extend([
        (HEADER_STATUS, status.to_owned()),
        (HEADER_ID, id),
        ("content-type", "application/json".to_owned()),
    ]);
    match asked {
        AskedAsync::Yes => headers.push(("preference-applied", "respond-async".to_owned())),
        AskedAsync::No => {}
    }
    LocalReply { status: 202, grpc_status: CallStatus::Unavailable, headers, body }
}

/// The 202 for a retry: we have this message already, or had it and delivered it.
#[must_use]
pub fn duplicate(id: MessageId, asked: AskedAsync) -> LocalReply {
    acknowledged(id, "duplicate", asked)
}

/// The 422 for an idempotency key that was used for another request (draft-ietf-httpapi-idempotency-key-header, 2.6).
#[must_use]
pub fn key_reused() -> LocalReply {
    problem(
        (422, CallStatus::InvalidArgument),
        "idempotency key reused",
        "a stored message has the same key and other content: the same key means the same request",
    )
}

/// The 503 for a request that must not overtake stored messages of its ordering key and cannot be stored behind them.
#[must_use]
pub fn must_wait(reason: NotStored) -> LocalReply {
    let mut reply = problem(
        (503, CallStatus::Unavailable),
        "earlier messages of this key are waiting",
        "messages with the same ordering key are stored and come first, and this request could not be stored behind them",
    );
    reply.headers.push(not_stored_header(reason));
    reply
}

/// A problem document (RFC 9457).
fn problem((status, grpc_status): (u32, CallStatus), title: &str, detail: &str) -> LocalReply {
    let body = format!("{{\"title\": \"{title}\", \"status\": {status}, \"detail\": \"{detail}\"}}\n");
    LocalReply { status, grpc_status, headers: vec![("content-type", "application/problem+json".to_owned())], body }
}

/// What is added to the failure of a retry whose answer stands.
#[must_use]
pub fn duplicate_headers(id: MessageId) -> [(&'static str, String); 2] {
    [(HEADER_STATUS, "duplicate".to_owned()), (HEADER_ID, id.to_string())]
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
    fn a_retry_is_told_the_id_and_that_it_is_one() {
        let reply = duplicate(MessageId([0xab; 16]), AskedAsync::No);
        assert_eq!(reply.status, 202);
        assert!(reply.headers.contains(&(HEADER_STATUS, "duplicate".to_owned())));
        assert!(reply.headers.contains(&(HEADER_ID, "ab".repeat(16))));
    }

    #[test]
    fn a_refusal_is_a_problem_document_with_its_own_status() {
        for (reply, status) in [(key_reused(), 422), (must_wait(NotStored::Full), 503)] {
            let body: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
            assert_eq!((reply.status, &body["status"]), (status, &serde_json::json!(status)));
            assert!(reply.headers.contains(&("content-type", "application/problem+json".to_owned())));
        }
        assert!(must_wait(NotStored::Full).headers.contains(&(HEADER_STATUS, "not-stored; reason=full".to_owned())));
    }

    #[test]
    fn an_id_is_url_safe_and_short() {
        let id = MessageId([0xff; 16]).to_string();
        assert!(id.len() <= 40 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    }
}
