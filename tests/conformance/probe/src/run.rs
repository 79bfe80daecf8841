//! The interpreter: writes down a callback, runs the rules that hold, writes down each host call and what came of it.

use crate::bytes::shown;
use crate::call::{self, encoded, plain, shown_pairs};
use crate::host::{self, Served, Status};
use crate::script::{Callback, GrpcCall, HttpCall, LocalResponse, Message, Op, VmKind, When};
use crate::trace::{END, Line, TRAP, status_name};
use crate::vm;

/// One callback of the host.
#[derive(Clone, Copy)]
pub struct Event {
    pub callback: Callback,
    pub context: u32,
    /// Whether the message goes on, where that is said.
    pub message: Option<Message>,
}

/// Writes one line of the trace.
pub fn note(context: u32, text: String) {
    host::log(&Line { vm: vm::id(), context, text }.to_string());
}

/// A callback with its arguments in words; `default` is returned unless a rule says otherwise.
pub fn callback(event: Event, words: String, default: u32) -> u32 {
    note(event.context, words);
    let answer = rules(event, default, "").unwrap_or(default);
    note(event.context, END.to_owned());
    answer
}

/// As `callback`, but leaves no line if no rule runs.
pub fn quiet_callback(event: Event, words: &str) {
    if rules(event, 0, words).is_some() {
        note(event.context, END.to_owned());
    }
}

/// Runs the rules that hold; `words` become a line before the first of them. What to return, if any rule ran.
fn rules(event: Event, default: u32, mut words: &str) -> Option<u32> {
    let script = vm::script(event.context)?;
    let mut answer = None;
    for (place, rule) in script.0.get(&event.callback).into_iter().flatten().enumerate() {
        if !holds(event, &rule.when) || !vm::may_run(event.context, event.callback, place, rule.times) {
            continue;
        }
        if !words.is_empty() {
            note(event.context, std::mem::take(&mut words).to_owned());
        }
        answer = answer.or(Some(default));
        rule.ops.iter().for_each(|op| perform(event.context, op));
        if let Some(given) = rule.answer {
            note(event.context, format!("  return {given}"));
            answer = Some(given);
        }
    }
    answer
}

fn holds(event: Event, when: &When) -> bool {
    let When { path, flag, shared, vm: kind, message } = when;
    path.as_ref().is_none_or(|path| vm::has_path(event.context, path))
        && flag.as_ref().is_none_or(|flag| vm::is_raised(flag))
        && message.is_none_or(|message| event.message == Some(message))
        && kind.is_none_or(|kind| vm::is_worker() == (kind == VmKind::Worker))
        // The only condition that asks the host; last, so that it is rarely asked.
        && shared.as_ref().is_none_or(|key| host::shared_data(key.as_bytes()).0.1.is_some_and(|value| !value.is_empty()))
}

fn perform(context: u32, op: &Op) {
    // Before the deed: a trap leaves no later moment.
    if *op == Op::Trap {
        note(context, TRAP.to_owned());
        core::arch::wasm32::unreachable();
    }
    let outcome = outcome(context, op);
    if !outcome.is_empty() {
        note(context, format!("  {outcome}"));
    }
}

fn status(status: Status) -> String {
    match status {
        0 => "-> 0".to_owned(),
        other => format!("-> {other} {}", status_name(other)),
    }
}

fn served(served: Served, show: impl Fn(&[u8]) -> String) -> String {
    match served {
        (0, None) => "-> 0 nothing".to_owned(),
        (0, Some(bytes)) => format!("-> 0 {}", show(&bytes)),
        (code, None) => status(code),
        (code, Some(bytes)) => format!("{}, and yet {}", status(code), show(&bytes)),
    }
}

fn numbered<T: std::fmt::Display>((code, value): (Status, T)) -> String {
    if code == 0 { format!("-> 0 {value}") } else { status(code) }
}

fn outcome(context: u32, op: &Op) -> String {
    match op {
        Op::Say(text) => format!("say {text}"),
        Op::Raise(flag) => {
            vm::raise(flag);
            String::new()
        }
        Op::Trap => String::new(),
        Op::GetHeaderMapPairs(_)
        | Op::GetHeaderMapSize(_)
        | Op::GetHeaderMapValue(..)
        | Op::SetHeaderMapPairs(..)
        | Op::AddHeaderMapValue(..)
        | Op::ReplaceHeaderMapValue(..)
        | Op::RemoveHeaderMapValue(..) => map_outcome(op),
        Op::GetBufferBytes(kind, start, length) => {
            let found = host::buffer(*kind as u32, *start, *length);
            format!("get_buffer_bytes {} {start} {length} {}", word(kind), served(found, shown))
        }
        Op::SetBufferBytes(kind, start, length, bytes) => {
            let code = host::set_buffer(*kind as u32, *start, *length, &bytes.0);
            format!("set_buffer_bytes {} {start} {length} {} {}", word(kind), shown(&bytes.0), status(code))
        }
        Op::GetProperty(path) => {
            format!("get_property {} {}", path.join("."), served(host::property(&call::path(path)), shown))
        }
        Op::SetProperty(path, value) => {
            let code = host::set_property(&call::path(path), &value.0);
            format!("set_property {} {} {}", path.join("."), shown(&value.0), status(code))
        }
        Op::GetSharedData(..)
        | Op::SetSharedData(..)
        | Op::RegisterSharedQueue(..)
        | Op::ResolveSharedQueue(..)
        | Op::EnqueueSharedQueue(..)
        | Op::DequeueSharedQueue(..) => shared_outcome(op),
        Op::DefineMetric(..) | Op::IncrementMetric(..) | Op::RecordMetric(..) | Op::GetMetric(..) => metric_outcome(op),
        Op::HttpCall(call) => http_call(call),
        Op::GrpcCall(call) => grpc_call(call),
        Op::GrpcCancel => format!("grpc_cancel {}", status(host::grpc_cancel(vm::last_call()))),
        Op::GrpcClose => format!("grpc_close {}", status(host::grpc_close(vm::last_call()))),
        Op::GetStatus => {
            let (message, code) = host::status();
            format!("get_status {}, code {code}", served(message, shown))
        }
        Op::SendLocalResponse(response) => local_response(response),
        Op::ContinueStream(half) => {
            format!("continue_stream {} {}", word(half), status(host::continue_stream(*half as u32)))
        }
        Op::CloseStream(half) => format!("close_stream {} {}", word(half), status(host::close_stream(*half as u32))),
        Op::SetEffectiveContext(named) => {
            let number = vm::context(named, context);
            format!("set_effective_context {number} {}", status(host::set_effective_context(number)))
        }
        Op::SetTickPeriodMilliseconds(period) => {
            format!("set_tick_period_milliseconds {period} {}", status(host::set_tick_period(*period)))
        }
        Op::Done => format!("done {}", status(host::done())),
        Op::GetLogLevel => format!("get_log_level {}", numbered(host::log_level())),
        Op::GetCurrentTimeNanoseconds => format!("get_current_time_nanoseconds {}", call::clock()),
        Op::RandomGet => {
            let differ = if host::random() == host::random() { "the same bytes twice" } else { "different bytes" };
            format!("random_get -> {differ}")
        }
    }
}

fn map_outcome(op: &Op) -> String {
    match op {
        Op::GetHeaderMapPairs(map) => {
            format!("get_header_map_pairs {} {}", word(map), served(host::map_pairs(*map as u32), shown_pairs))
        }
        Op::GetHeaderMapSize(map) => {
            format!("get_header_map_size {} {}", word(map), numbered(host::map_size(*map as u32)))
        }
        Op::GetHeaderMapValue(map, name) => {
            let found = served(host::map_value(*map as u32, &name.0), shown);
            format!("get_header_map_value {} {} {found}", word(map), name.0.escape_ascii())
        }
        Op::SetHeaderMapPairs(map, headers) => {
            let pairs = encoded(&plain(headers));
            let code = host::set_map_pairs(*map as u32, &pairs);
            format!("set_header_map_pairs {} {} {}", word(map), shown_pairs(&pairs), status(code))
        }
        Op::AddHeaderMapValue(map, name, value) => {
            let code = host::add_map_value(*map as u32, &name.0, &value.0);
            changed("add_header_map_value", *map, &name.0, &shown(&value.0), code)
        }
        Op::ReplaceHeaderMapValue(map, name, value) => {
            let code = host::replace_map_value(*map as u32, &name.0, &value.0);
            changed("replace_header_map_value", *map, &name.0, &shown(&value.0), code)
        }
        Op::RemoveHeaderMapValue(map, name) => {
            let code = host::remove_map_value(*map as u32, &name.0);
            changed("remove_header_map_value", *map, &name.0, "", code)
        }
        other => unreachable!("{other:?} is about no header map"),
    }
}

fn changed(call: &str, map: crate::script::Map, name: &[u8], value: &str, code: Status) -> String {
    let value = if value.is_empty() { String::new() } else { format!("{value} ") };
    format!("{call} {} {} {value}{}", word(&map), name.escape_ascii(), status(code))
}

fn shared_outcome(op: &Op) -> String {
    match op {
        Op::GetSharedData(key) => {
            let (found, cas) = host::shared_data(&key.0);
            vm::set_last_cas(&key.0, cas);
            format!("get_shared_data {} {}, cas {cas}", key.0.escape_ascii(), served(found, shown))
        }
        Op::SetSharedData(key, value, cas) => {
            let cas = call::cas(*cas, &key.0);
            let code = host::set_shared_data(&key.0, &value.0, cas);
            format!("set_shared_data {} {} cas {cas} {}", key.0.escape_ascii(), shown(&value.0), status(code))
        }
        Op::RegisterSharedQueue(name) => {
            let registered = host::register_queue(name.as_bytes());
            vm::name_handle(name, registered.1);
            format!("register_shared_queue {name} {}", token(registered))
        }
        Op::ResolveSharedQueue(vm_id, name) => {
            let resolved = host::resolve_queue(vm_id.as_bytes(), name.as_bytes());
            if resolved.0 == 0 {
                vm::name_handle(name, resolved.1);
            }
            format!("resolve_shared_queue {vm_id:?} {name} {}", token(resolved))
        }
        Op::EnqueueSharedQueue(queue, value) => {
            let number = vm::handle(queue);
            format!(
                "enqueue_shared_queue queue {number} {} {}",
                shown(&value.0),
                status(host::enqueue(number, &value.0))
            )
        }
        Op::DequeueSharedQueue(queue) => {
            let number = vm::handle(queue);
            format!("dequeue_shared_queue queue {number} {}", served(host::dequeue(number), shown))
        }
        other => unreachable!("{other:?} is about nothing shared"),
    }
}

fn token((code, token): (Status, u32)) -> String {
    if code == 0 { format!("-> 0 queue {token}") } else { status(code) }
}

fn metric_outcome(op: &Op) -> String {
    match op {
        Op::DefineMetric(kind, name) => {
            let defined = host::define_metric(*kind as u32, name.as_bytes());
            vm::name_handle(name, defined.1);
            format!("define_metric {} {name} {}", word(kind), numbered(defined))
        }
        Op::IncrementMetric(metric, by) => {
            let number = vm::handle(metric);
            format!("increment_metric {number} {by} {}", status(host::increment_metric(number, *by)))
        }
        Op::RecordMetric(metric, value) => {
            let number = vm::handle(metric);
            format!("record_metric {number} {value} {}", status(host::record_metric(number, *value)))
        }
        Op::GetMetric(metric) => {
            let number = vm::handle(metric);
            format!("get_metric {number} {}", numbered(host::metric(number)))
        }
        other => unreachable!("{other:?} is about no metric"),
    }
}

fn http_call(call: &HttpCall) -> String {
    let mut headers = plain(&call.headers);
    headers.extend((0..call.more_headers).map(|n| (format!("x-more-{n}").into_bytes(), b"1".to_vec())));
    let pairs = encoded(&headers);
    let trailers = encoded(&plain(&call.trailers));
    let made = host::http_call(call.cluster.as_bytes(), &pairs, &call.body.0, &trailers, call.timeout_ms);
    vm::set_last_call(made.1);
    let line = headers.iter().filter(|(name, _)| name == b":method" || name == b":path");
    let line: Vec<String> = line.map(|(_, value)| value.escape_ascii().to_string()).collect();
    format!("http_call {} {} timeout {} {}", call.cluster, line.join(" "), call.timeout_ms, call_token(made))
}

fn grpc_call(call: &GrpcCall) -> String {
    let service = call::service(&call.service);
    let made =
        host::grpc_call(&service, call.name.as_bytes(), call.method.as_bytes(), &call.message.0, call.timeout_ms);
    vm::set_last_call(made.1);
    format!("grpc_call {} {}/{} {}", shown(&service), call.name, call.method, call_token(made))
}

fn call_token((code, token): (Status, u32)) -> String {
    if code == 0 { format!("-> 0 call {token}") } else { status(code) }
}

fn local_response(response: &LocalResponse) -> String {
    let headers = encoded(&plain(&response.headers));
    let code = host::send_local_response(response.status, &response.details.0, &response.body.0, &headers);
    format!("send_local_response {} {} {}", response.status, shown(&response.body.0), status(code))
}

/// A name of the ABI as scripts write it.
fn word(name: &impl std::fmt::Debug) -> String {
    let mut word = String::new();
    for char in format!("{name:?}").chars() {
        if char.is_ascii_uppercase() && !word.is_empty() {
            word.push('_');
        }
        word.push(char.to_ascii_lowercase());
    }
    word
}
