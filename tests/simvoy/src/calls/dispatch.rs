//! Calls of a guest to clusters: HTTP and gRPC (PLATFORM 1.6 and 1.7). What they meet at once is decided here; what
//! comes back is a job for later.

use super::control::{OVERFLOW, envoys_overflow, envoys_reply};
use super::gate::NOTHING;
use super::host_call;
use super::memory::{read, write_word};
use super::service::{Target, target};
use crate::abi::{Status, read_pairs};
use crate::cluster::Admission;
use crate::guest::{After, Call, CallKind, Speaks, TokenKind, VmShared};
use crate::happening::Happening;
use crate::http::{Headers, Request};
use crate::ids::{CallToken, ContextId};
use crate::jobs::{Arrival, Job, Timer};
use crate::network::{EXPECTED_TIMEOUT, Failure, Origin, Outcome};
use crate::shared::Shared;
use crate::trace::Kind;
use crate::unary::is_call;
use crate::vm::Guest;
use std::time::Duration;
use wasmtime::{Caller, Linker, Result, bail};

pub(super) fn link(linker: &mut Linker<Guest>) -> Result<()> {
    host_call!(
        linker,
        "proxy_http_call",
        HttpCall,
        (cluster, cluster_size),
        |caller,
         _passed,
         cluster: u32,
         cluster_size: u32,
         headers: u32,
         headers_size: u32,
         body: u32,
         body_size: u32,
         trailers: u32,
         trailers_size: u32,
         timeout: u32,
         token_at: u32| {
            Ok(http_call(
                caller,
                [(cluster, cluster_size), (headers, headers_size), (body, body_size), (trailers, trailers_size)],
                timeout,
                token_at,
            ))
        }
    );
    host_call!(
        linker,
        "proxy_grpc_call",
        GrpcCall,
        (service, service_size),
        |caller,
         _passed,
         service: u32,
         service_size: u32,
         name: u32,
         name_size: u32,
         method: u32,
         method_size: u32,
         metadata: u32,
         metadata_size: u32,
         message: u32,
         message_size: u32,
         timeout: u32,
         token_at: u32| {
            grpc_call(
                caller,
                [
                    (service, service_size),
                    (name, name_size),
                    (method, method_size),
                    (metadata, metadata_size),
                    (message, message_size),
                ],
                timeout,
                token_at,
            )
        }
    );
    // Streams of gRPC are not modelled: no guest here opens one.
    host_call!(
        linker,
        "proxy_grpc_stream",
        GrpcStream,
        NOTHING,
        |_caller,
         _passed,
         _service: u32,
         _service_size: u32,
         _name: u32,
         _name_size: u32,
         _method: u32,
         _method_size: u32,
         _metadata: u32,
         _metadata_size: u32,
         _token_at: u32| Ok(Status::Unimplemented)
    );
    host_call!(
        linker,
        "proxy_grpc_send",
        GrpcSend,
        NOTHING,
        |_caller, _passed, token: u32, _message: u32, _size: u32, _end: u32| Ok(send(token))
    );
    host_call!(linker, "proxy_grpc_cancel", GrpcCancel, NOTHING, |caller, _passed, token: u32| Ok(cancel(
        caller, token
    )));
    host_call!(linker, "proxy_grpc_close", GrpcClose, NOTHING, |caller, _passed, token: u32| Ok(cancel(caller, token)));
    Ok(())
}

fn http_call(caller: &mut Caller<'_, Guest>, spans: [(u32, u32); 4], timeout: u32, token_at: u32) -> Status {
    let [Some(cluster), Some(headers), Some(body), Some(trailers)] = spans.map(|span| read(caller, span)) else {
        return Status::InvalidMemoryAccess;
    };
    if write_word(caller, token_at, 0) != Status::Ok {
        return Status::InvalidMemoryAccess;
    }
    // A timeout above 2^31 - 1 is negative to the host (PLATFORM 1.5).
    if i32::try_from(timeout).is_err() {
        return Status::BadArgument;
    }
    let cluster = String::from_utf8_lossy(&cluster).into_owned();
    let (headers, trailers) = (read_pairs(&headers), read_pairs(&trailers));
    let dispatched = {
        let guest = caller.data();
        let mut shared = guest.shared.lock();
        let head = headers.clone();
        let dispatched =
            dispatch(&mut shared, guest, cluster, Request { headers, body, trailers }, CallKind::Http, timeout);
        if let Ok(token) = dispatched {
            shared.happened(Happening::Called { vm: guest.vm, token: CallToken(token), head });
        }
        dispatched
    };
    match dispatched {
        Ok(token) => write_word(caller, token_at, token),
        Err(status) => status,
    }
}

fn dispatch(
    shared: &mut Shared,
    guest: &Guest,
    cluster: String,
    mut request: Request,
    kind: CallKind,
    timeout: u32,
) -> Result<u32, Status> {
    let now = shared.clock.now;
    shared.trace.feed(Kind::CallBody, now, [u64::from(guest.vm.0), 0, 0], &request.body);
    if shared.clusters.get(&cluster).is_none() {
        return Err(refuse_unknown(shared, guest, kind));
    }
    fold_pseudo_headers(&mut request.headers);
    let timeout = steered(&mut request.headers, timeout);
    let is_whole = [":method", ":path", ":authority"].iter().all(|name| request.headers.first(name).is_some());
    if !is_whole {
        return Err(Status::BadArgument);
    }
    let admission = shared.clusters.admit(&cluster, guest.thread);
    let vm = shared.vms.get_mut(&guest.vm).ok_or(Status::InternalFailure)?;
    let root = vm.root_of(guest.speaker());
    // A call that is refused from here on has used its token up (`dispatch::tokens`).
    let token = vm.next_token(kind);
    let reply = match admission {
        Admission::Unknown => return Err(Status::BadArgument),
        Admission::NoHealthyHost => {
            put_off_end(vm, root, token, kind, "no healthy upstream{no_healthy_upstream}");
            return Err(Status::InternalFailure);
        }
        Admission::Overflow => {
            put_off_end(vm, root, token, kind, "");
            return Err(Status::InternalFailure);
        }
        Admission::OverflowLater => Some((envoys_overflow(), OVERFLOW)),
        Admission::Out => unsendable(&request.headers).map(|text| (envoys_reply(503, &text, &[]), "")),
    };
    let speaks = if is_call(&request.headers) { Speaks::Grpc } else { Speaks::Http };
    let call = Call { cluster: cluster.clone(), kind, speaks };
    vm.root_mut(root).ok_or(Status::InternalFailure)?.calls.insert(token, call);
    if admission == Admission::OverflowLater {
        shared.clusters.take(&cluster);
    }
    frame(&mut request, kind);
    add_what_envoy_adds(&mut request.headers, timeout);
    match reply {
        Some((reply, details)) => {
            let outcome = Outcome::Replied { reply, details, flags: 0 };
            shared.later(Duration::ZERO, Timer::Job(guest.thread, Job::Called(guest.vm, token, outcome)));
        }
        None => go_out(shared, guest, token, cluster, request, timeout),
    }
    Ok(token.0)
}

/// The request is on its way, and its time begins.
fn go_out(shared: &mut Shared, guest: &Guest, token: CallToken, cluster: String, request: Request, timeout: u32) {
    let origin = Origin::Dispatch(guest.vm, token);
    let arrival = Arrival::Whole;
    shared.later(Duration::ZERO, Timer::Exchange { origin, attempt: 1, cluster, request: Box::new(request), arrival });
    // Zero means that nobody ever gives up (PLATFORM 1.5, `dispatch::timeout_zero`).
    if timeout > 0 {
        let job = Job::Called(guest.vm, token, Outcome::Failed(Failure::Timeout));
        shared.later(Duration::from_millis(u64::from(timeout)), Timer::Job(guest.thread, job));
    }
}

fn add_what_envoy_adds(headers: &mut Headers, timeout: u32) {
    headers.add("x-envoy-internal", "true");
    if timeout > 0 {
        headers.add(EXPECTED_TIMEOUT, timeout.to_string());
    }
}

/// An unknown cluster is a bad argument to an HTTP call; a gRPC client is made without asking for it, and its first
/// request fails (`dispatch::unknown_cluster`, `grpc::unknown_cluster`).
fn refuse_unknown(shared: &mut Shared, guest: &Guest, kind: CallKind) -> Status {
    match (kind, shared.vms.get_mut(&guest.vm)) {
        (CallKind::Http, _) | (CallKind::Grpc, None) => Status::BadArgument,
        (CallKind::Grpc, Some(vm)) => {
            let token = vm.next_token(kind);
            let root = vm.root_of(guest.speaker());
            put_off_end(vm, root, token, kind, "Cluster not available");
            Status::InternalFailure
        }
    }
}

/// A gRPC call that is refused at once ends all the same, after the guest has returned; an HTTP call does not.
fn put_off_end(vm: &mut VmShared, root: ContextId, token: CallToken, kind: CallKind, text: &str) {
    match kind {
        CallKind::Http => {}
        CallKind::Grpc => vm.after.push_back(After::GrpcRefused(root, token, text.to_owned())),
    }
}

/// Repeated pseudo headers are joined, `host` is the authority, and unknown ones go (PLATFORM 1.6;
/// `dispatch::unknown_pseudo_header`).
fn fold_pseudo_headers(headers: &mut Headers) {
    let mut folded = Headers::default();
    for (name, value) in std::mem::take(&mut headers.0) {
        let name = if name == "host" { ":authority".to_owned() } else { name };
        let is_pseudo = name.starts_with(':');
        if is_pseudo && ![":method", ":path", ":authority", ":scheme"].contains(&name.as_str()) {
            continue;
        }
        match folded.0.iter_mut().find(|(known, _)| is_pseudo && *known == name) {
            Some((_, joined)) => {
                joined.push(b',');
                joined.extend(value);
            }
            None => folded.0.push((name, value)),
        }
    }
    *headers = folded;
}

/// The caller's own header shortens or lengthens a call, and does not go out
/// (`dispatch::steering_timeout`). Retries that a caller steers are
/// not modelled.
fn steered(headers: &mut Headers, timeout: u32) -> u32 {
    const HEADER: &str = "x-envoy-upstream-rq-timeout-ms";
    let wanted = headers.text(HEADER).and_then(|text| text.parse().ok());
    headers.remove(HEADER);
    wanted.unwrap_or(timeout)
}

/// A gRPC request is sent as a stream, without a length.
fn frame(request: &mut Request, kind: CallKind) {
    match kind {
        CallKind::Http if !request.body.is_empty() => {
            request.headers.set("content-length", request.body.len().to_string());
        }
        CallKind::Http | CallKind::Grpc => {}
    }
}

/// What Envoy says of a head that no codec puts on a wire (PLATFORM 1.6; on a new connection:
/// `dispatch::line_break_in_value`, `dispatch::space_in_name`).
fn unsendable(headers: &Headers) -> Option<String> {
    let is_bad = |byte: &u8| matches!(byte, b'\r' | b'\n' | 0);
    headers.0.iter().find_map(|(name, value)| {
        if name.bytes().any(|byte| is_bad(&byte) || byte == b' ') {
            return Some(format!("invalid header name: {}", name.escape_default()));
        }
        value.iter().any(is_bad).then(|| format!("invalid header value for: {name}"))
    })
}

fn grpc_call(caller: &mut Caller<'_, Guest>, spans: [(u32, u32); 5], timeout: u32, token_at: u32) -> Result<Status> {
    let [Some(service), Some(name), Some(method), Some(metadata), Some(message)] = spans.map(|span| read(caller, span))
    else {
        return Ok(Status::InvalidMemoryAccess);
    };
    let cluster = match target(&service) {
        Target::Cluster(name) => name,
        Target::Unparsable => {
            let name = String::from_utf8_lossy(&service).into_owned();
            if caller.data().shared.lock().clusters.get(&name).is_none() {
                return Ok(Status::ParseFailure);
            }
            name
        }
        Target::Google => bail!("a call through google_grpc is not modelled: name the cluster with envoy_grpc"),
        // H1: a bare name that happens to parse leaves the message without a target, and Envoy aborts.
        Target::Unset => {
            let why = "async_client_manager_impl.cc: panic: unset oneof".to_owned();
            caller.data().shared.lock().happened(Happening::Aborted(why));
            bail!("Envoy aborts: the gRPC service has no target");
        }
    };
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let request = grpc_request(&cluster, &text(name), &text(method), read_pairs(&metadata), &message, timeout);
    let dispatched = {
        let guest = caller.data();
        dispatch(&mut guest.shared.lock(), guest, cluster, request, CallKind::Grpc, timeout)
    };
    Ok(match dispatched {
        Ok(token) => write_word(caller, token_at, token),
        // The client is made without asking whether the cluster exists; the first request then fails.
        Err(_) => Status::InternalFailure,
    })
}

fn grpc_request(
    cluster: &str,
    service: &str,
    method: &str,
    metadata: Headers,
    message: &[u8],
    timeout: u32,
) -> Request {
    let mut headers = Headers::of(&[
        (":method", "POST"),
        (":path", &format!("/{service}/{method}")),
        (":authority", cluster),
        ("te", "trailers"),
    ]);
    if timeout > 0 {
        headers.add("grpc-timeout", format!("{timeout}m"));
    }
    headers.add("content-type", "application/grpc");
    headers.0.extend(metadata.0);
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    Request { headers, body: [&[0], length.as_slice(), message].concat(), trailers: Headers::default() }
}

/// Only a gRPC call can be cancelled so: what a token is shows in it (Context::grpcCancel and Context::grpcClose;
/// `grpc::cancelled_by_another_kind`).
fn cancel(caller: &mut Caller<'_, Guest>, token: u32) -> Status {
    if TokenKind::of(token) == TokenKind::Http {
        return Status::BadArgument;
    }
    let guest = caller.data();
    match guest.shared.lock().end_call(guest.vm, CallToken(token)) {
        Some(_) => Status::Ok,
        None => Status::NotFound,
    }
}

/// No guest has a stream, since none is opened (Context::grpcSend).
fn send(token: u32) -> Status {
    match TokenKind::of(token) {
        TokenKind::GrpcStream => Status::NotFound,
        TokenKind::Http | TokenKind::GrpcCall => Status::BadArgument,
    }
}
