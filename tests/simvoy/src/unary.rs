//! What Envoy says to a gRPC request in a receiver's place: a call gets its answer in headers, whatever the reason
//! (sendLocalReply in Envoy's utility.cc; `failure::refused_call`, `failure::unhealthy_call`, `dispatch::refused_call`,
//! `reply::of_a_call`).

use crate::http::{Headers, Response};

const CALL: &[u8] = b"application/grpc";

/// Whether these are the headers of a gRPC request (Grpc::Common::hasGrpcContentType).
pub(crate) fn is_call(request: &Headers) -> bool {
    let rest = request.first("content-type").and_then(|value| value.strip_prefix(CALL));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"+"))
}

/// A reply as a call gets it: its own headers, the status of gRPC that `said` names or that stands for the HTTP status, and
/// its text beside that. What the filter is told of the status (`response.code`) stays the HTTP one until it has left.
pub(crate) fn as_call(reply: Response, said: Option<u32>) -> Response {
    let status = said.unwrap_or_else(|| status_of(reply.code()));
    let own = reply.headers.0.into_iter();
    let own = own.filter(|(name, _)| !matches!(name.as_str(), ":status" | "content-type" | "content-length"));
    let mut headers = Headers::of(&[(":status", "200")]);
    headers.0.extend(own);
    headers.add("content-type", CALL);
    headers.add("grpc-status", status.to_string());
    if !reply.body.is_empty() {
        headers.add("grpc-message", reply.body);
    }
    Response { headers, ..Response::default() }
}

/// Grpc::Utility::httpToGrpcStatus.
const fn status_of(http: u16) -> u32 {
    match http {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}
