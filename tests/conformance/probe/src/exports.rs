//! The exports of the ABI: every callback of an HTTP filter, each one line of the trace and then the script's.

use crate::host;
use crate::run::{Event, callback, note, quiet_callback};
use crate::script::{Callback, Map, Message, Script};
use crate::vm;

/// Room for whole configurations: as much as there is.
const ALL: u32 = u32::MAX;
const VM_CONFIGURATION: u32 = 6;
const PLUGIN_CONFIGURATION: u32 = 7;

const CONTINUE: u32 = 0;
const TRUE: u32 = 1;

unsafe extern "C" {
    /// Made by the linker; a reactor calls it once before anything else.
    fn __wasm_call_ctors();
}

#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    // SAFETY: the host calls this export once, first.
    unsafe { __wasm_call_ctors() };
}

#[unsafe(no_mangle)]
extern "C" fn proxy_abi_version_0_2_1() {}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    let mut room = std::mem::ManuallyDrop::new(Vec::<u8>::with_capacity(size));
    room.as_mut_ptr()
}

fn event(callback: Callback, context: u32) -> Event {
    Event { callback, context, message: None }
}

fn piece(callback: Callback, context: u32, ends: u32) -> Event {
    let message = if ends == 0 { Message::GoesOn } else { Message::Ends };
    Event { callback, context, message: Some(message) }
}

fn end(ends: u32) -> &'static str {
    if ends == 0 { "goes on" } else { "ends" }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_context_create(context: u32, parent: u32) {
    vm::add_context(context, parent);
    callback(event(Callback::OnContextCreate, context), format!("on_context_create parent {parent}"), 0);
}

/// Reads a script from a configuration of this size and makes it the context's. In words: what there was to read.
fn read_script(context: u32, buffer: u32, size: usize) -> String {
    let (status, bytes) = host::buffer(buffer, 0, ALL);
    let bytes = bytes.unwrap_or_default();
    let words = match (status, size) {
        (0, 0) if bytes.is_empty() => "no configuration".to_owned(),
        (0, size) if bytes.len() == size => "configuration".to_owned(),
        (status, size) => format!("configuration of {size} bytes, status {status}, {} read", bytes.len()),
    };
    match Script::parse(&bytes) {
        Ok(script) => vm::set_script(context, script),
        Err(problem) => note(context, format!("the script is wrong: {problem}")),
    }
    words
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_vm_start(context: u32, size: usize) -> u32 {
    let words = read_script(context, VM_CONFIGURATION, size);
    callback(event(Callback::OnVmStart, context), format!("on_vm_start {words}"), TRUE)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_configure(context: u32, size: usize) -> u32 {
    let words = read_script(context, PLUGIN_CONFIGURATION, size);
    callback(event(Callback::OnConfigure, context), format!("on_configure {words}"), TRUE)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_tick(context: u32) {
    quiet_callback(event(Callback::OnTick, context), "on_tick");
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_queue_ready(context: u32, token: u32) {
    callback(event(Callback::OnQueueReady, context), format!("on_queue_ready queue {token}"), 0);
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_headers(context: u32, count: u32, ends: u32) -> u32 {
    let path = host::map_value(Map::RequestHeaders as u32, b":path").1.unwrap_or_default();
    vm::set_path(context, String::from_utf8_lossy(&path).into_owned());
    let words = format!("on_request_headers {count} {}", end(ends));
    callback(piece(Callback::OnRequestHeaders, context, ends), words, CONTINUE)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_body(context: u32, size: u32, ends: u32) -> u32 {
    let words = format!("on_request_body {size} {}", end(ends));
    callback(piece(Callback::OnRequestBody, context, ends), words, CONTINUE)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_trailers(context: u32, count: u32) -> u32 {
    callback(event(Callback::OnRequestTrailers, context), format!("on_request_trailers {count}"), CONTINUE)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_headers(context: u32, count: u32, ends: u32) -> u32 {
    let words = format!("on_response_headers {count} {}", end(ends));
    callback(piece(Callback::OnResponseHeaders, context, ends), words, CONTINUE)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_body(context: u32, size: u32, ends: u32) -> u32 {
    let words = format!("on_response_body {size} {}", end(ends));
    callback(piece(Callback::OnResponseBody, context, ends), words, CONTINUE)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_trailers(context: u32, count: u32) -> u32 {
    callback(event(Callback::OnResponseTrailers, context), format!("on_response_trailers {count}"), CONTINUE)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_http_call_response(context: u32, token: u32, headers: u32, body: u32, trailers: u32) {
    let words = format!("on_http_call_response call {token} headers {headers} body {body} trailers {trailers}");
    callback(event(Callback::OnHttpCallResponse, context), words, 0);
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_grpc_receive_initial_metadata(context: u32, token: u32, count: u32) {
    let words = format!("on_grpc_receive_initial_metadata call {token} headers {count}");
    callback(event(Callback::OnGrpcReceiveInitialMetadata, context), words, 0);
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_grpc_receive(context: u32, token: u32, size: u32) {
    callback(event(Callback::OnGrpcReceive, context), format!("on_grpc_receive call {token} {size}"), 0);
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_grpc_receive_trailing_metadata(context: u32, token: u32, count: u32) {
    let words = format!("on_grpc_receive_trailing_metadata call {token} trailers {count}");
    callback(event(Callback::OnGrpcReceiveTrailingMetadata, context), words, 0);
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_grpc_close(context: u32, token: u32, code: u32) {
    callback(event(Callback::OnGrpcClose, context), format!("on_grpc_close call {token} code {code}"), 0);
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_done(context: u32) -> u32 {
    callback(event(Callback::OnDone, context), "on_done".to_owned(), TRUE)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_log(context: u32) {
    callback(event(Callback::OnLog, context), "on_log".to_owned(), 0);
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_delete(context: u32) {
    callback(event(Callback::OnDelete, context), "on_delete".to_owned(), 0);
}
