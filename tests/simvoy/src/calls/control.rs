//! Streams, replies, timers, the log, and the odds and ends of the ABI.

use super::gate::{Answer, NOTHING};
use super::host_call;
use super::memory::{both, give, read, slice, write, write_word};
use crate::abi::{Callback, Status, read_pairs};
use crate::guest::{After, Context, RootLife};
use crate::happening::Happening;
use crate::http::{Headers, Response};
use crate::ids::ContextId;
use crate::vm::Guest;
use std::time::Duration;
use wasmtime::{Caller, Linker, Result, bail};

pub(super) fn link(linker: &mut Linker<Guest>) -> Result<()> {
    host_call!(
        linker,
        "proxy_send_local_response",
        SendLocalResponse,
        NOTHING,
        |caller,
         _passed,
         code: u32,
         details: u32,
         details_size: u32,
         body: u32,
         body_size: u32,
         headers: u32,
         headers_size: u32,
         grpc_status: u32| {
            let said = u32::try_from(grpc_status.cast_signed()).ok();
            reply(caller, code, said, [(details, details_size), (body, body_size), (headers, headers_size)])
        }
    );
    host_call!(linker, "proxy_continue_stream", ContinueStream, NOTHING, |caller, _passed, stream: u32| Ok(
        continue_stream(caller, stream)
    ));
    host_call!(linker, "proxy_close_stream", CloseStream, NOTHING, |caller, _passed, stream: u32| close_stream(
        caller, stream
    ));
    host_call!(
        linker,
        "proxy_set_effective_context",
        SetEffectiveContext,
        NOTHING,
        |caller, _passed, context: u32| Ok(speak_for(caller, ContextId(context)))
    );
    host_call!(linker, "proxy_done", Done, NOTHING, |caller, _passed| Ok(done(caller)));
    host_call!(
        linker,
        "proxy_set_tick_period_milliseconds",
        SetTickPeriod,
        NOTHING,
        |caller, _passed, period: u32| Ok(set_tick(caller, period))
    );
    host_call!(linker, "proxy_log", Log, (text, size), |caller, _passed, level: u32, text: u32, size: u32| Ok(log(
        caller,
        level,
        (text, size)
    )));
    host_call!(linker, "proxy_get_log_level", GetLogLevel, NOTHING, |caller, _passed, level_at: u32| Ok(write_word(
        caller, level_at, 2
    )));
    host_call!(
        linker,
        "proxy_get_current_time_nanoseconds",
        GetCurrentTime,
        NOTHING,
        |caller, _passed, time_at: u32| {
            let wall = caller.data().shared.lock().clock.wall();
            Ok(write(caller, time_at, &wall.to_le_bytes()))
        }
    );
    host_call!(
        linker,
        "proxy_get_status",
        GetStatus,
        NOTHING,
        |caller, _passed, code_at: u32, text_at: u32, size_at: u32| {
            Ok(get_status(caller, code_at, text_at, size_at))
        }
    );
    host_call!(
        linker,
        "proxy_call_foreign_function",
        CallForeignFunction,
        (name, size),
        |_caller,
         _passed,
         name: u32,
         size: u32,
         _arguments: u32,
         _arguments_size: u32,
         _results: u32,
         _results_size: u32| Ok(Status::NotFound)
    );
    Ok(())
}

/// What a guest does to a stream happens after it has returned (PLATFORM 1.4 item 7).
fn put_off(caller: &mut Caller<'_, Guest>, after: impl FnOnce(crate::StreamId) -> After) {
    let guest = caller.data();
    let mut shared = guest.shared.lock();
    if let Some(vm) = shared.vm_mut(guest.vm)
        && let Some(stream) = vm.stream_of(guest.speaker())
    {
        vm.after.push_back(after(stream));
    }
}

fn reply(caller: &mut Caller<'_, Guest>, code: u32, said: Option<u32>, spans: [(u32, u32); 3]) -> Result<Status> {
    let [Some(details), Some(body), Some(headers)] = spans.map(|span| read(caller, span)) else {
        return Ok(Status::InvalidMemoryAccess);
    };
    let mut response = Response::status(u16::try_from(code).unwrap_or(0));
    response.headers.0.extend(read_pairs(&headers).0);
    response.body = body;
    complete_head(&mut response);
    let details = String::from_utf8_lossy(&details).replace(char::is_whitespace, "_");
    if is_logging(caller) {
        return recurses(caller, "send_local_response");
    }
    if !has_replied(caller) {
        put_off(caller, |stream| After::Reply(stream, response, details, said));
    }
    let guest = caller.data();
    if let Some(vm) = guest.shared.lock().vm_mut(guest.vm) {
        vm.stop_iteration = true;
    }
    Ok(Status::Ok)
}

/// The first of two replies counts (`reply::twice`).
fn has_replied(caller: &Caller<'_, Guest>) -> bool {
    let guest = caller.data();
    let shared = guest.shared.lock();
    let Some(vm) = shared.vm(guest.vm) else { return false };
    let speaker = vm.stream_of(guest.speaker());
    vm.after.iter().any(|after| matches!(after, After::Reply(stream, ..) if Some(*stream) == speaker))
}

/// A stream's `on_log` runs: an answer or a close in it calls it again, until Envoy's stack is full
/// (`reply::in_on_log_aborts`, `reply::close_stream_in_on_log_aborts`).
fn is_logging(caller: &Caller<'_, Guest>) -> bool {
    let guest = caller.data();
    guest.callback == Callback::Log && guest.shared.lock().stream_of(guest.vm, guest.speaker()).is_some()
}

fn recurses(caller: &mut Caller<'_, Guest>, call: &str) -> Result<Status> {
    let why = format!("{call} in on_log calls on_log again, without an end");
    caller.data().shared.lock().happened(Happening::Aborted(why));
    bail!("Envoy aborts: {call} in on_log");
}

/// What Envoy adds to its own replies.
pub(crate) fn complete_head(response: &mut Response) {
    if !response.body.is_empty() {
        response.headers.set("content-length", response.body.len().to_string());
        if response.headers.first("content-type").is_none() {
            response.headers.add("content-type", "text/plain");
        }
    }
}

fn continue_stream(caller: &mut Caller<'_, Guest>, stream: u32) -> Status {
    match stream {
        0 => put_off(caller, After::ContinueRequest),
        1 => put_off(caller, After::ContinueResponse),
        2 => return Status::Ok,
        3 => return Status::Unimplemented,
        _ => return Status::BadArgument,
    }
    let guest = caller.data();
    let mut shared = guest.shared.lock();
    // The filter lets go of the request's maps at once, whichever side continues (Context::continueStream).
    if let Some(stream) = shared.stream_of(guest.vm, guest.speaker())
        && let Some(stream) = shared.streams.get_mut(&stream)
    {
        stream.visible.request_headers = false;
        stream.visible.request_trailers = false;
        stream.piece = Vec::new();
    }
    Status::Ok
}

fn close_stream(caller: &mut Caller<'_, Guest>, stream: u32) -> Result<Status> {
    match stream {
        0 | 1 if is_logging(caller) => return recurses(caller, "close_stream"),
        0 | 1 => put_off(caller, After::Close),
        2 | 3 => {}
        _ => return Ok(Status::BadArgument),
    }
    Ok(Status::Ok)
}

fn speak_for(caller: &mut Caller<'_, Guest>, context: ContextId) -> Status {
    let guest = caller.data_mut();
    let is_there = guest.shared.lock().vm(guest.vm).is_some_and(|vm| vm.contexts.contains_key(&context));
    if !is_there {
        return Status::BadArgument;
    }
    guest.effective = Some(context);
    Status::Ok
}

/// Only a root context whose `on_done` has answered false may end so (PLATFORM 1.4 item 2).
fn done(caller: &mut Caller<'_, Guest>) -> Status {
    let guest = caller.data();
    let mut shared = guest.shared.lock();
    let Some(vm) = shared.vm_mut(guest.vm) else { return Status::NotFound };
    let root = vm.root_of(guest.speaker());
    match vm.root_mut(root) {
        Some(found) if found.life == RootLife::PendingDone => found.life = RootLife::PendingDelete,
        Some(_) | None => return Status::NotFound,
    }
    vm.after.push_back(After::FinishShutdown(root));
    Status::Ok
}

/// What was armed is so no more, and the new period begins now (Wasm::setTimerPeriod; `life_cycle::tick_set_again`).
fn set_tick(caller: &mut Caller<'_, Guest>, period: u32) -> Status {
    let guest = caller.data();
    let mut shared = guest.shared.lock();
    let Some(vm) = shared.vm_mut(guest.vm) else { return Status::InternalFailure };
    let root = vm.root_of(guest.speaker());
    let Some(found) = vm.root_mut(root) else { return Status::Ok };
    found.timer.set((period > 0).then(|| Duration::from_millis(u64::from(period))));
    shared.arm_ticks(guest.vm, root);
    Status::Ok
}

/// Levels are 0 to 5 (log in exports.cc).
fn log(caller: &mut Caller<'_, Guest>, level: u32, text: (u32, u32)) -> Status {
    if level > LOG_LEVEL_MAX {
        return Status::BadArgument;
    }
    let Some((memory, guest)) = both(caller) else { return Status::InvalidMemoryAccess };
    let Some(text) = slice(memory, text) else { return Status::InvalidMemoryAccess };
    guest.shared.lock().logged(guest.thread, guest.vm, level, text);
    Status::Ok
}

/// `critical`.
const LOG_LEVEL_MAX: u32 = 5;

/// The status of the call or gRPC answer that the root context's callback is about.
fn get_status(caller: &mut Caller<'_, Guest>, code_at: u32, text_at: u32, size_at: u32) -> Answer {
    let (code, text) = {
        let guest = caller.data();
        let shared = guest.shared.lock();
        let vm = shared.vm(guest.vm);
        let root = vm.and_then(|vm| match vm.contexts.get(&vm.root_of(guest.speaker()))? {
            Context::Root(root) => Some(root.status.clone()),
            Context::Vm | Context::Stream { .. } => None,
        });
        root.unwrap_or_default()
    };
    match write_word(caller, code_at, code) {
        Status::Ok => give(caller, text.as_bytes(), text_at, size_at),
        bad => bad.into(),
    }
}

/// Headers of one of Envoy's own replies.
pub(crate) fn envoys_reply(status: u16, text: &str, more: &[(&str, &str)]) -> Response {
    let mut response = Response::status(status).body(text);
    response.headers.0.extend(Headers::of(more).0);
    complete_head(&mut response);
    response
}

/// `response.code_details` of a full circuit breaker.
pub(crate) const OVERFLOW: &str = "upstream_reset_before_response_started{overflow}";

/// The answer of a full circuit breaker.
pub(crate) fn envoys_overflow() -> Response {
    let text = "upstream connect error or disconnect/reset before headers. reset reason: overflow";
    envoys_reply(503, text, &[("x-envoy-overloaded", "true")])
}
