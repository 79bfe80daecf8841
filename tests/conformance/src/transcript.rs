//! A transcript: an observation with everything taken out that two right hosts may differ in, as text in sections.
//!
//! | in an observation                            | in a transcript                                                 |
//! | -------------------------------------------- | --------------------------------------------------------------- |
//! | the order of lines of different VMs          | gone: one section per VM, since threads interleave as they like |
//! | random VM ids                                | `canary`, `main`, `worker 1`..., see `roles`                    |
//! | compare-and-set numbers                      | `#1`, `#2`... as first seen in that VM: the counter is one for the whole process. 0 and u32::MAX stay |
//! | `date`, `x-request-id`, `x-envoy-upstream-service-time`, `x-forwarded-for` | `*`: times, random ids, addresses |
//! | `x-envoy-expected-rq-timeout-ms` of 1 to 60 seconds | rounded up to a second: a second attempt has less time left, by as much as the first took |
//! | more than 20 headers                         | their number and a hash                                         |
//! | the `end` lines of callbacks                 | gone: they only tell who waits that a callback is complete      |
//! | the second and later VM of a worker          | `worker 1, VM 2`: after a reload, or with another vm_id         |
//!
//! Context ids, call tokens, queue tokens, metric ids, sizes, counts and statuses are compared as they are: in one VM they
//! follow from what was done.

use std::collections::BTreeMap;

use redeliver_probe::bytes::{hash, shown};
use redeliver_probe::trace::END;

use crate::case::{Case, Watched};
use crate::observation::{Host, Message, Observation, Outcome, Thread, Traced};

/// Sections in order: a title and its lines.
pub type Transcript = Vec<(String, Vec<String>)>;

/// Headers whose values say when, who or where, never what.
const VOLATILE: [&str; 4] = ["date", "x-request-id", "x-envoy-upstream-service-time", "x-forwarded-for"];

/// More headers than that are not read, only compared.
const SHOWN_HEADERS_MAX: usize = 20;

/// The transcript of an observation, as far as the case watches it.
pub fn transcript(case: &Case, seen: &Observation) -> Transcript {
    let mut sections = traces(case, seen);
    if !seen.answers.is_empty() {
        sections.push(("senders".to_owned(), seen.answers.iter().map(answer_line).collect()));
    }
    for (cluster, messages) in seen.received.iter().filter(|(_, messages)| !messages.is_empty()) {
        let lines = messages.iter().map(message_line).collect();
        sections.push((format!("receiver {cluster}"), lines));
    }
    match seen.host {
        Host::Runs => {}
        Host::Ended => sections.push(("host".to_owned(), vec!["ended as told".to_owned()])),
        Host::Aborted => sections.push(("host".to_owned(), vec!["aborted".to_owned()])),
    }
    sections
}

fn traces(case: &Case, seen: &Observation) -> Transcript {
    let mut by_vm: Vec<(Role, Vec<String>)> = Vec::new();
    for (vm, role) in roles(&seen.trace) {
        if case.watch.contains(&role.watched()) {
            let lines = seen.trace.iter().filter(|traced| traced.line.vm == vm && traced.line.text != END);
            by_vm.push((role, normalised(lines)));
        }
    }
    // Workers that never had a stream cannot be told apart, so they are put in the order of what they wrote.
    by_vm.sort();
    let mut sections: Transcript = Vec::new();
    for (role, lines) in by_vm {
        sections.push((role.title(), lines));
    }
    sections
}

/// What a VM is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Canary { nth: usize },
    Main { nth: usize },
    Worker { worker: usize, nth: usize },
}

impl Role {
    fn watched(self) -> Watched {
        match self {
            Role::Canary { .. } => Watched::Canary,
            Role::Main { .. } => Watched::Main,
            Role::Worker { .. } => Watched::Worker,
        }
    }

    fn title(self) -> String {
        let numbered = |name: &str, nth: usize| if nth == 1 { name.to_owned() } else { format!("{name}, VM {nth}") };
        match self {
            Role::Canary { nth: 1 } => "canary".to_owned(),
            Role::Canary { nth } => format!("canary {nth}"),
            Role::Main { nth } => numbered("main", nth),
            Role::Worker { worker, nth } => numbered(&format!("worker {worker}"), nth),
        }
    }
}

/// Who is who, by VM id.
///
/// On the main thread a configuration is tried in a throw-away VM first and then given to the lasting one. So a VM that is
/// new there is a canary, unless a canary is waiting for its lasting VM, or that one was known already. Workers are
/// numbered in the order of their first streams, those without streams after them.
fn roles(trace: &[Traced]) -> Vec<(String, Role)> {
    let mut roles: Vec<(String, Role)> = Vec::new();
    let mut canary_waits = false;
    let workers = worker_numbers(trace);
    for Traced { thread, line } in trace {
        let known = roles.iter().find(|(vm, _)| *vm == line.vm).map(|(_, role)| *role);
        match (thread, known) {
            (Thread::Main, Some(Role::Main { .. })) if line.text.starts_with("on_configure") => canary_waits = false,
            (_, Some(Role::Canary { .. })) if line.text == "  return 0" => canary_waits = false,
            (_, Some(_)) => {}
            (Thread::Main, None) if canary_waits => {
                canary_waits = false;
                let nth = 1 + count(&roles, |role| matches!(role, Role::Main { .. }));
                roles.push((line.vm.clone(), Role::Main { nth }));
            }
            (Thread::Main, None) => {
                canary_waits = true;
                let nth = 1 + count(&roles, |role| matches!(role, Role::Canary { .. }));
                roles.push((line.vm.clone(), Role::Canary { nth }));
            }
            (Thread::Worker(_), None) => {
                let worker = workers.get(thread).copied().unwrap_or_default();
                let nth = 1 + count(&roles, |role| matches!(role, Role::Worker { worker: w, .. } if w == worker));
                roles.push((line.vm.clone(), Role::Worker { worker, nth }));
            }
        }
    }
    roles
}

fn count(roles: &[(String, Role)], is: impl Fn(Role) -> bool) -> usize {
    roles.iter().filter(|(_, role)| is(*role)).count()
}

fn worker_numbers(trace: &[Traced]) -> BTreeMap<Thread, usize> {
    let mut numbers = BTreeMap::new();
    let streams_first = trace.iter().filter(|traced| is_new_stream(&traced.line.text)).chain(trace);
    for Traced { thread, .. } in streams_first.filter(|traced| traced.thread != Thread::Main) {
        let next = numbers.len() + 1;
        numbers.entry(*thread).or_insert(next);
    }
    numbers
}

/// Whether this line is the beginning of a stream's context.
pub fn is_new_stream(text: &str) -> bool {
    text.strip_prefix("on_context_create parent ").is_some_and(|parent| parent != "0")
}

fn normalised<'a>(lines: impl Iterator<Item = &'a Traced>) -> Vec<String> {
    let mut numbers: Vec<u32> = Vec::new();
    lines
        .map(|Traced { line, .. }| {
            let text = without_port(&without_volatile(&line.text));
            format!("{} {}", line.context, with_cas_in_order(&text, &mut numbers))
        })
        .collect()
}

fn with_cas_in_order(text: &str, numbers: &mut Vec<u32>) -> String {
    let Some((before, rest)) = text.split_once(" cas ") else { return text.to_owned() };
    let digits = rest.find(|char: char| !char.is_ascii_digit()).unwrap_or(rest.len());
    let (number, after) = rest.split_at(digits);
    let shown = match number.parse() {
        Ok(0 | u32::MAX) | Err(_) => number.to_owned(),
        Ok(number) => {
            let place = numbers.iter().position(|known| *known == number).unwrap_or_else(|| {
                numbers.push(number);
                numbers.len() - 1
            });
            format!("#{}", place + 1)
        }
    };
    format!("{before} cas {shown}{after}")
}

/// Header values in a map of a trace line are written as `name "value"`.
fn without_volatile(text: &str) -> String {
    let mut text = text.to_owned();
    for name in VOLATILE {
        for lead in [format!("[{name} "), format!(", {name} ")] {
            let Some(at) = text.find(&lead) else { continue };
            let value = at + lead.len();
            let end = text[value..].find(['"', ',']).map_or(text.len(), |quote| value + quote);
            let end = text[end..].strip_prefix('"').and_then(|rest| rest.find('"')).map_or(end, |size| end + size + 2);
            text.replace_range(value..end, "*");
        }
    }
    text
}

/// A receiver's address ends with a port of the moment.
fn without_port(text: &str) -> String {
    const HOST: &str = "\"127.0.0.1:";
    match text.split_once(HOST) {
        Some((before, rest)) => {
            format!("{before}{HOST}*{}", rest.trim_start_matches(|char: char| char.is_ascii_digit()))
        }
        None => text.to_owned(),
    }
}

fn answer_line((name, outcome): &(String, Outcome)) -> String {
    match outcome {
        Outcome::Answered(message) => format!("{name} got {}", message_line(message)),
        Outcome::Closed => format!("{name} got no whole answer: the connection was closed"),
        Outcome::Unread => format!("{name} did not wait"),
    }
}

fn message_line(message: &Message) -> String {
    let headers: Vec<String> = message.headers.iter().map(header).collect();
    let headers = headers.join(", ");
    let headers = match message.headers.len() {
        0..=SHOWN_HEADERS_MAX => headers,
        count => format!("{count} headers, hash {:016x}", hash(headers.as_bytes())),
    };
    let body = if message.body.is_empty() { "no body".to_owned() } else { shown(&message.body) };
    format!("{} [{headers}] {body}", message.start)
}

fn header((name, value): &(String, Vec<u8>)) -> String {
    let value = match name.as_str() {
        volatile if VOLATILE.contains(&volatile) => "*".to_owned(),
        "x-envoy-expected-rq-timeout-ms" => shown(&whole_seconds(value)),
        _ => shown(value),
    };
    format!("{name} {value}")
}

fn whole_seconds(milliseconds: &[u8]) -> Vec<u8> {
    match std::str::from_utf8(milliseconds).ok().and_then(|text| text.parse::<u64>().ok()) {
        Some(number @ 1_001..=60_000) => (number.div_ceil(1000) * 1000).to_string().into_bytes(),
        Some(_) | None => milliseconds.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use redeliver_probe::trace::Line;

    use super::*;

    const MAIN: Thread = Thread::Main;
    const WORKER: Thread = Thread::Worker(7);

    fn trace(lines: &[(Thread, &str, &str)]) -> Vec<Traced> {
        let line = |vm: &str, text: &str| Line { vm: vm.to_owned(), context: 1, text: text.to_owned() };
        lines.iter().map(|(thread, vm, text)| Traced { thread: *thread, line: line(vm, text) }).collect()
    }

    #[track_caller]
    fn check(lines: &[(Thread, &str, &str)], expected: &[(&str, &str)]) {
        let named: Vec<(String, String)> =
            roles(&trace(lines)).into_iter().map(|(vm, role)| (vm, role.title())).collect();
        let expected: Vec<(String, String)> =
            expected.iter().map(|(vm, title)| (vm.to_string(), title.to_string())).collect();
        assert_eq!(named, expected);
    }

    #[test]
    fn a_port_of_the_moment_is_left_out() {
        assert_eq!(without_port(r#"get -> 0 "127.0.0.1:4711""#), r#"get -> 0 "127.0.0.1:*""#);
        assert_eq!(without_port(r#"get -> 0 "10.0.0.1:4711""#), r#"get -> 0 "10.0.0.1:4711""#);
    }

    #[test]
    fn the_first_vm_of_the_main_thread_is_thrown_away_and_the_second_lasts() {
        let start = [(MAIN, "a", "on_configure"), (MAIN, "b", "on_configure"), (WORKER, "c", "on_configure")];
        check(&start, &[("a", "canary"), ("b", "main"), ("c", "worker 1")]);
    }

    #[test]
    fn a_configuration_that_the_lasting_vm_takes_had_a_canary_of_its_own() {
        let lines = [
            (MAIN, "a", "on_configure"),
            (MAIN, "b", "on_configure"),
            (MAIN, "c", "on_configure"),
            (MAIN, "b", "on_configure"),
            (MAIN, "d", "on_configure"),
            (MAIN, "e", "on_configure"),
        ];
        let expected = [("a", "canary"), ("b", "main"), ("c", "canary 2"), ("d", "canary 3"), ("e", "main, VM 2")];
        check(&lines, &expected);
    }

    #[test]
    fn a_refused_canary_waits_for_no_lasting_vm() {
        let lines = [(MAIN, "a", "on_configure"), (MAIN, "a", "  return 0"), (MAIN, "b", "on_configure")];
        check(&lines, &[("a", "canary"), ("b", "canary 2")]);
    }

    #[test]
    fn workers_are_numbered_by_their_first_streams() {
        let (first, second) = (Thread::Worker(1), Thread::Worker(2));
        let lines =
            [(first, "a", "on_configure"), (second, "b", "on_configure"), (second, "b", "on_context_create parent 1")];
        check(&lines, &[("a", "worker 2"), ("b", "worker 1")]);
    }

    #[test]
    fn compare_and_set_numbers_are_told_apart_and_not_told() {
        let mut numbers = Vec::new();
        let lines = ["get a -> 0, cas 70", "set a cas 70 -> 0", "get a -> 0, cas 93", "set a cas 0 -> 0"];
        let shown: Vec<String> = lines.iter().map(|line| with_cas_in_order(line, &mut numbers)).collect();
        assert_eq!(shown, ["get a -> 0, cas #1", "set a cas #1 -> 0", "get a -> 0, cas #2", "set a cas 0 -> 0"]);
    }

    #[test]
    fn times_and_random_ids_are_starred_wherever_a_map_shows_them() {
        let text = r#"pairs -> 0 [date "Wed, 25 Nov", x-a "kept", x-request-id "6d7f", x-b ""]"#;
        assert_eq!(without_volatile(text), r#"pairs -> 0 [date *, x-a "kept", x-request-id *, x-b ""]"#);
    }
}
