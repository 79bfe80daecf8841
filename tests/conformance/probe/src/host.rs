//! The imports of the ABI (proxy-wasm 0.2.1), one safe function each: arguments in, status and results out.
//!
//! Nothing is interpreted here and no status is refused; `call` turns the results into trace lines.

use std::ptr::null_mut;

/// A status number of the ABI.
pub type Status = u32;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_log(level: u32, text: *const u8, size: usize) -> Status;
    fn proxy_get_log_level(level: *mut u32) -> Status;
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> Status;
    fn proxy_set_tick_period_milliseconds(period: u32) -> Status;
    fn proxy_get_buffer_bytes(kind: u32, start: u32, length: u32, data: *mut *mut u8, size: *mut usize) -> Status;
    fn proxy_set_buffer_bytes(kind: u32, start: u32, length: u32, data: *const u8, size: usize) -> Status;
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> Status;
    fn proxy_get_header_map_size(map: u32, size: *mut u32) -> Status;
    fn proxy_set_header_map_pairs(map: u32, data: *const u8, size: usize) -> Status;
    fn proxy_get_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> Status;
    fn proxy_add_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> Status;
    fn proxy_replace_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> Status;
    fn proxy_remove_header_map_value(map: u32, name: *const u8, name_size: usize) -> Status;
    fn proxy_get_property(path: *const u8, path_size: usize, data: *mut *mut u8, size: *mut usize) -> Status;
    fn proxy_set_property(path: *const u8, path_size: usize, value: *const u8, value_size: usize) -> Status;
    fn proxy_get_shared_data(
        key: *const u8,
        key_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
        cas: *mut u32,
    ) -> Status;
    fn proxy_set_shared_data(key: *const u8, key_size: usize, value: *const u8, value_size: usize, cas: u32) -> Status;
    fn proxy_register_shared_queue(name: *const u8, name_size: usize, token: *mut u32) -> Status;
    fn proxy_resolve_shared_queue(
        vm_id: *const u8,
        vm_id_size: usize,
        name: *const u8,
        name_size: usize,
        token: *mut u32,
    ) -> Status;
    fn proxy_enqueue_shared_queue(token: u32, value: *const u8, value_size: usize) -> Status;
    fn proxy_dequeue_shared_queue(token: u32, data: *mut *mut u8, size: *mut usize) -> Status;
    fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, metric: *mut u32) -> Status;
    fn proxy_increment_metric(metric: u32, by: i64) -> Status;
    fn proxy_record_metric(metric: u32, value: u64) -> Status;
    fn proxy_get_metric(metric: u32, value: *mut u64) -> Status;
    fn proxy_http_call(
        upstream: *const u8,
        upstream_size: usize,
        headers: *const u8,
        headers_size: usize,
        body: *const u8,
        body_size: usize,
        trailers: *const u8,
        trailers_size: usize,
        timeout: u32,
        token: *mut u32,
    ) -> Status;
    fn proxy_grpc_call(
        service: *const u8,
        service_size: usize,
        name: *const u8,
        name_size: usize,
        method: *const u8,
        method_size: usize,
        metadata: *const u8,
        metadata_size: usize,
        message: *const u8,
        message_size: usize,
        timeout: u32,
        token: *mut u32,
    ) -> Status;
    fn proxy_grpc_cancel(token: u32) -> Status;
    fn proxy_grpc_close(token: u32) -> Status;
    fn proxy_get_status(code: *mut u32, data: *mut *mut u8, size: *mut usize) -> Status;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> Status;
    fn proxy_continue_stream(half: u32) -> Status;
    fn proxy_close_stream(half: u32) -> Status;
    fn proxy_set_effective_context(context: u32) -> Status;
    fn proxy_done() -> Status;
}

#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    fn random_get(buffer: *mut u8, length: usize) -> u16;
}

/// LogLevel::Info of the ABI.
const INFO: u32 = 2;
/// "No gRPC status" in a local response.
const NO_GRPC_STATUS: i32 = -1;

/// What a call that serves bytes gives: nothing if the host set no pointer.
pub type Served = (Status, Option<Vec<u8>>);

/// Takes over what the host has allocated with `proxy_on_memory_allocate`.
fn served(call: impl FnOnce(*mut *mut u8, *mut usize) -> Status) -> Served {
    let (mut data, mut size) = (null_mut(), 0);
    let status = call(&raw mut data, &raw mut size);
    // SAFETY: the host got the pointer from `proxy_on_memory_allocate(size)`, a vector of that capacity that was given up.
    let bytes = (!data.is_null()).then(|| unsafe { Vec::from_raw_parts(data, size, size) });
    (status, bytes)
}

fn number<T: Default>(call: impl FnOnce(*mut T) -> Status) -> (Status, T) {
    let mut value = T::default();
    let status = call(&raw mut value);
    (status, value)
}

// SAFETY of every block below: each pointer comes with the length of a slice, or points to a local, that outlives the call;
// the host writes to results only, which are locals too.

pub fn log(text: &str) {
    // A host that refuses to log leaves no trace, which no test can miss.
    unsafe { proxy_log(INFO, text.as_ptr(), text.len()) };
}

pub fn log_level() -> (Status, u32) {
    number(|level| unsafe { proxy_get_log_level(level) })
}

pub fn current_time() -> (Status, u64) {
    number(|time| unsafe { proxy_get_current_time_nanoseconds(time) })
}

pub fn set_tick_period(milliseconds: u32) -> Status {
    unsafe { proxy_set_tick_period_milliseconds(milliseconds) }
}

pub fn buffer(kind: u32, start: u32, length: u32) -> Served {
    served(|data, size| unsafe { proxy_get_buffer_bytes(kind, start, length, data, size) })
}

pub fn set_buffer(kind: u32, start: u32, length: u32, bytes: &[u8]) -> Status {
    unsafe { proxy_set_buffer_bytes(kind, start, length, bytes.as_ptr(), bytes.len()) }
}

pub fn map_pairs(map: u32) -> Served {
    served(|data, size| unsafe { proxy_get_header_map_pairs(map, data, size) })
}

pub fn map_size(map: u32) -> (Status, u32) {
    number(|size| unsafe { proxy_get_header_map_size(map, size) })
}

pub fn set_map_pairs(map: u32, pairs: &[u8]) -> Status {
    unsafe { proxy_set_header_map_pairs(map, pairs.as_ptr(), pairs.len()) }
}

pub fn map_value(map: u32, name: &[u8]) -> Served {
    served(|data, size| unsafe { proxy_get_header_map_value(map, name.as_ptr(), name.len(), data, size) })
}

pub fn add_map_value(map: u32, name: &[u8], value: &[u8]) -> Status {
    unsafe { proxy_add_header_map_value(map, name.as_ptr(), name.len(), value.as_ptr(), value.len()) }
}

pub fn replace_map_value(map: u32, name: &[u8], value: &[u8]) -> Status {
    unsafe { proxy_replace_header_map_value(map, name.as_ptr(), name.len(), value.as_ptr(), value.len()) }
}

pub fn remove_map_value(map: u32, name: &[u8]) -> Status {
    unsafe { proxy_remove_header_map_value(map, name.as_ptr(), name.len()) }
}

pub fn property(path: &[u8]) -> Served {
    served(|data, size| unsafe { proxy_get_property(path.as_ptr(), path.len(), data, size) })
}

pub fn set_property(path: &[u8], value: &[u8]) -> Status {
    unsafe { proxy_set_property(path.as_ptr(), path.len(), value.as_ptr(), value.len()) }
}

pub fn shared_data(key: &[u8]) -> (Served, u32) {
    let mut cas = 0;
    let found =
        served(|data, size| unsafe { proxy_get_shared_data(key.as_ptr(), key.len(), data, size, &raw mut cas) });
    (found, cas)
}

pub fn set_shared_data(key: &[u8], value: &[u8], cas: u32) -> Status {
    unsafe { proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), cas) }
}

pub fn register_queue(name: &[u8]) -> (Status, u32) {
    number(|token| unsafe { proxy_register_shared_queue(name.as_ptr(), name.len(), token) })
}

pub fn resolve_queue(vm_id: &[u8], name: &[u8]) -> (Status, u32) {
    number(|token| unsafe { proxy_resolve_shared_queue(vm_id.as_ptr(), vm_id.len(), name.as_ptr(), name.len(), token) })
}

pub fn enqueue(token: u32, value: &[u8]) -> Status {
    unsafe { proxy_enqueue_shared_queue(token, value.as_ptr(), value.len()) }
}

pub fn dequeue(token: u32) -> Served {
    served(|data, size| unsafe { proxy_dequeue_shared_queue(token, data, size) })
}

pub fn define_metric(kind: u32, name: &[u8]) -> (Status, u32) {
    number(|metric| unsafe { proxy_define_metric(kind, name.as_ptr(), name.len(), metric) })
}

pub fn increment_metric(metric: u32, by: i64) -> Status {
    unsafe { proxy_increment_metric(metric, by) }
}

pub fn record_metric(metric: u32, value: u64) -> Status {
    unsafe { proxy_record_metric(metric, value) }
}

pub fn metric(metric: u32) -> (Status, u64) {
    number(|value| unsafe { proxy_get_metric(metric, value) })
}

pub fn http_call(upstream: &[u8], headers: &[u8], body: &[u8], trailers: &[u8], timeout: u32) -> (Status, u32) {
    number(|token| unsafe {
        proxy_http_call(
            upstream.as_ptr(),
            upstream.len(),
            headers.as_ptr(),
            headers.len(),
            body.as_ptr(),
            body.len(),
            trailers.as_ptr(),
            trailers.len(),
            timeout,
            token,
        )
    })
}

pub fn grpc_call(service: &[u8], name: &[u8], method: &[u8], message: &[u8], timeout: u32) -> (Status, u32) {
    let metadata: [u8; 0] = [];
    number(|token| unsafe {
        proxy_grpc_call(
            service.as_ptr(),
            service.len(),
            name.as_ptr(),
            name.len(),
            method.as_ptr(),
            method.len(),
            metadata.as_ptr(),
            metadata.len(),
            message.as_ptr(),
            message.len(),
            timeout,
            token,
        )
    })
}

pub fn grpc_cancel(token: u32) -> Status {
    unsafe { proxy_grpc_cancel(token) }
}

pub fn grpc_close(token: u32) -> Status {
    unsafe { proxy_grpc_close(token) }
}

/// The status and message of what the current callback is about: a gRPC code, or the cause of a failed HTTP call.
pub fn status() -> (Served, u32) {
    let mut code = 0;
    let message = served(|data, size| unsafe { proxy_get_status(&raw mut code, data, size) });
    (message, code)
}

pub fn send_local_response(status: u32, details: &[u8], body: &[u8], headers: &[u8]) -> Status {
    unsafe {
        proxy_send_local_response(
            status,
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            NO_GRPC_STATUS,
        )
    }
}

pub fn continue_stream(half: u32) -> Status {
    unsafe { proxy_continue_stream(half) }
}

pub fn close_stream(half: u32) -> Status {
    unsafe { proxy_close_stream(half) }
}

pub fn set_effective_context(context: u32) -> Status {
    unsafe { proxy_set_effective_context(context) }
}

pub fn done() -> Status {
    unsafe { proxy_done() }
}

pub fn random() -> [u8; 8] {
    let mut bytes = [0; 8];
    unsafe { random_get(bytes.as_mut_ptr(), bytes.len()) };
    bytes
}
