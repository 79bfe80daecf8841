//! The turnstile: a few functions of Wasm between a guest and the host, one for each host call.
//!
//! A host function in plain Rust cannot wait for a turn, and one that can (an async one) costs ten times as much, which
//! millions of calls that do not wait would pay. Nor may it call the guest's allocator, as Envoy does. Wasm may do both:
//!
//! ```text
//!   (func (export "env.proxy_x") (param ...) (result i32) (local $answer i32)
//!     (loop $again
//!       (local.tee $answer (call $host_x ...))        ;; plain: asks the fault hook, does the call
//!       (if (i32.ge_s (i32.const 0)) (return $answer))
//!       (if (i32.eq $answer TURN)                     ;; others may run first:
//!         (call $turn)                                ;;   the one async host function; suspends
//!         (br $again)))                               ;;   the call is decided already, and now made
//!     (call $deliver                                  ;; bytes for the guest, -$answer of them:
//!       (call_indirect $allocate (i32.neg $answer)))) ;;   its own malloc, then the host writes them there
//! ```
//! Never decides anything, and never touches memory: what an answer means is the host's business (`calls/gate.rs`).

use wasmtime::{ExternType, FuncType, Module, ValType};

/// A host function answers so if other threads may run before the call is made.
pub(crate) const TURN: i32 = i32::MIN;
/// Where the turnstile finds its own two host functions.
pub(crate) const MODULE: &str = "simvoy";
pub(crate) const TURN_FUNCTION: &str = "turn";
pub(crate) const DELIVER_FUNCTION: &str = "deliver";
/// The exported table whose one element is the guest's allocator.
pub(crate) const ALLOCATE_TABLE: &str = "allocate";

/// The name under which a host call is handed to the guest.
pub(crate) fn export_name(module: &str, name: &str) -> String {
    format!("{module}.{name}")
}

/// The turnstile for everything that `guest` imports, as a module's bytes. What is no call with an `i32` for an answer is
/// handed through.
pub(crate) fn bytes_for(guest: &Module) -> Vec<u8> {
    let imports = guest.imports();
    let calls: Vec<Call<'_>> = imports
        .filter_map(|import| match import.ty() {
            ExternType::Func(shape) => Some(Call { module: import.module(), name: import.name(), shape }),
            _ => None,
        })
        .collect();
    let mut bytes = b"\0asm\x01\0\0\0".to_vec();
    for (id, content) in [
        (SECTION_TYPE, types(&calls)),
        (SECTION_IMPORT, imports_of(&calls)),
        (SECTION_FUNCTION, vector(gated(&calls).map(|(place, _)| number(place)))),
        (SECTION_TABLE, vec![1, TYPE_FUNCREF, LIMITS_BOTH, 1, 1]),
        (SECTION_EXPORT, exports(&calls)),
        (SECTION_CODE, vector(gated(&calls).map(|(place, call)| sized(body(&calls, place, call))))),
    ] {
        bytes.push(id);
        bytes.extend(sized(content));
    }
    bytes
}

struct Call<'a> {
    module: &'a str,
    name: &'a str,
    shape: FuncType,
}

impl Call<'_> {
    fn is_gated(&self) -> bool {
        let mut results = self.shape.results();
        matches!((results.next(), results.next()), (Some(ValType::I32), None))
    }
}

/// The calls that get a function here, with their place among all.
fn gated<'a>(calls: &'a [Call<'a>]) -> impl ExactSizeIterator<Item = (u32, &'a Call<'a>)> {
    let gated: Vec<_> = (0..).zip(calls).filter(|(_, call)| call.is_gated()).collect();
    gated.into_iter()
}

pub(crate) const SECTION_TYPE: u8 = 1;
pub(crate) const SECTION_IMPORT: u8 = 2;
pub(crate) const SECTION_FUNCTION: u8 = 3;
const SECTION_TABLE: u8 = 4;
pub(crate) const SECTION_EXPORT: u8 = 7;
pub(crate) const SECTION_CODE: u8 = 10;

pub(crate) const TYPE_I32: u8 = 0x7f;
const TYPE_I64: u8 = 0x7e;
const TYPE_FUNCREF: u8 = 0x70;
pub(crate) const TYPE_FUNCTION: u8 = 0x60;
const LIMITS_BOTH: u8 = 1;
pub(crate) const KIND_FUNCTION: u8 = 0;
const KIND_TABLE: u8 = 1;

/// One type for each call, then that of `turn`, then that of `deliver`, which is the allocator's too.
fn types(calls: &[Call<'_>]) -> Vec<u8> {
    let of_values = |values: Vec<ValType>| vector(values.into_iter().map(|value| vec![value_type(&value)]));
    let of_calls = calls.iter().map(|call| {
        let (takes, gives) = (call.shape.params().collect(), call.shape.results().collect());
        [vec![TYPE_FUNCTION], of_values(takes), of_values(gives)].concat()
    });
    let turn = vec![TYPE_FUNCTION, 0, 0];
    let deliver = vec![TYPE_FUNCTION, 1, TYPE_I32, 1, TYPE_I32];
    vector(of_calls.chain([turn, deliver]).collect::<Vec<_>>().into_iter())
}

/// Only integers go through the ABI.
fn value_type(value: &ValType) -> u8 {
    match value {
        ValType::I64 => TYPE_I64,
        _ => TYPE_I32,
    }
}

fn imports_of(calls: &[Call<'_>]) -> Vec<u8> {
    let own = [(MODULE, TURN_FUNCTION), (MODULE, DELIVER_FUNCTION)];
    let names = calls.iter().map(|call| (call.module, call.name)).chain(own);
    let imports = (0..)
        .zip(names)
        .map(|(place, (module, name))| [text(module), text(name), vec![KIND_FUNCTION], number(place)].concat());
    vector(imports.collect::<Vec<_>>().into_iter())
}

fn exports(calls: &[Call<'_>]) -> Vec<u8> {
    let first_own = count(calls) + 2;
    let own = (first_own..).zip(gated(calls)).map(|(function, (_, call))| (function, call));
    let through = (0..).zip(calls).filter(|(_, call)| !call.is_gated());
    let functions = own.chain(through).map(|(function, call)| {
        [text(&export_name(call.module, call.name)), vec![KIND_FUNCTION], number(function)].concat()
    });
    let table = [text(ALLOCATE_TABLE), vec![KIND_TABLE, 0]].concat();
    vector(functions.chain([table]).collect::<Vec<_>>().into_iter())
}

/// The code of one function, as the head of this file has it.
fn body(calls: &[Call<'_>], place: u32, call: &Call<'_>) -> Vec<u8> {
    const LOOP: u8 = 0x03;
    const IF: u8 = 0x04;
    const NO_RESULT: u8 = 0x40;
    const END: u8 = 0x0b;
    const BRANCH: u8 = 0x0c;
    const RETURN: u8 = 0x0f;
    const CALL: u8 = 0x10;
    const CALL_INDIRECT: u8 = 0x11;
    const GET: u8 = 0x20;
    const TEE: u8 = 0x22;
    const CONST: u8 = 0x41;
    const EQUAL: u8 = 0x46;
    const AT_LEAST: u8 = 0x4e;
    const SUBTRACT: u8 = 0x6b;
    let arguments = u32::try_from(call.shape.params().len()).unwrap_or(u32::MAX);
    let answer = number(arguments);
    let (turn, deliver) = (number(count(calls)), number(count(calls) + 1));
    let allocator_type = number(count(calls) + 1);
    let get = |local: Vec<u8>| [vec![GET], local].concat();
    [
        // One local beside the arguments.
        vec![1, 1, TYPE_I32],
        vec![LOOP, NO_RESULT],
        (0..arguments).flat_map(|argument| get(number(argument))).collect(),
        [vec![CALL], number(place), vec![TEE], answer.clone()].concat(),
        vec![CONST, 0, AT_LEAST, IF, NO_RESULT],
        get(answer.clone()),
        vec![RETURN, END],
        get(answer.clone()),
        [vec![CONST], signed(TURN), vec![EQUAL, IF, NO_RESULT]].concat(),
        [vec![CALL], turn, vec![BRANCH, 1, END, END]].concat(),
        vec![CONST, 0],
        get(answer),
        vec![SUBTRACT, CONST, 0],
        [vec![CALL_INDIRECT], allocator_type, vec![0]].concat(),
        [vec![CALL], deliver, vec![END]].concat(),
    ]
    .concat()
}

fn count(calls: &[Call<'_>]) -> u32 {
    u32::try_from(calls.len()).unwrap_or(u32::MAX)
}

/// LEB128.
pub(crate) fn number(mut value: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// Signed LEB128, always in five bytes.
pub(crate) fn signed(value: i32) -> Vec<u8> {
    let byte = |place: i32| (value >> (7 * place)) as u8 & 0x7f;
    (0..4).map(|place| byte(place) | 0x80).chain([byte(4)]).collect()
}

pub(crate) fn sized(content: Vec<u8>) -> Vec<u8> {
    let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
    [number(size), content].concat()
}

pub(crate) fn text(text: &str) -> Vec<u8> {
    sized(text.as_bytes().to_vec())
}

pub(crate) fn vector(items: impl ExactSizeIterator<Item = Vec<u8>>) -> Vec<u8> {
    let length = u32::try_from(items.len()).unwrap_or(u32::MAX);
    items.fold(number(length), |bytes, item| [bytes, item].concat())
}

#[cfg(test)]
mod tests {
    use crate::abi::{Callback, HostCall};
    use crate::network::{Exchange, Origin, Receivers};
    use crate::tiny;
    use crate::{Chaos, Happening, Moment, Plugin, Point, Process, Request, Settings, Step, Verdict, VmId};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    /// One verdict, for one call of the first VM; and which calls of that VM were asked about.
    struct At(u32, Verdict, Arc<Mutex<Vec<HostCall>>>);

    impl Chaos for At {
        fn at(&mut self, point: &Point<'_>) -> Verdict {
            if (point.vm, point.callback) != (VmId(1), Callback::Configure) {
                return Verdict::Proceed;
            }
            self.2.lock().unwrap().push(point.call);
            if point.nth == self.0 { self.1 } else { Verdict::Proceed }
        }
    }

    struct Nobody;

    impl Receivers for Nobody {
        fn exchange(&mut self, _: &str, _: Origin, _: &Request, _: Moment) -> Exchange {
            Exchange::Silence
        }
    }

    /// What is stored under `key` and `copy` after the step in which the verdict strikes; what it comes to in the end;
    /// and that each call was asked about once, in order, whatever happened to it.
    fn check(nth: u32, verdict: Verdict, meanwhile: [bool; 2], trap: Option<&str>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let mut process = Process::new(&tiny::module(), Settings::default());
        process.set_chaos(Box::new(At(nth, verdict, asked.clone())));
        process.push(Some(Plugin::new("v", "")));
        let stored = |process: &Process| {
            ["key", "copy"].map(|key| process.value("v", key.as_bytes()).is_some_and(|value| value.bytes == b"value"))
        };
        let what = format!("call {nth}: {verdict:?}");
        assert!(matches!(process.step(&mut Nobody, Moment::NEVER), Step::Ran(_)), "{what}");
        assert_eq!(stored(&process), meanwhile, "{what}, meanwhile");
        process.run_for(&mut Nobody, Duration::from_secs(60));
        let traps: Vec<String> = process
            .take_happenings()
            .into_iter()
            .filter_map(|happening| match happening {
                Happening::Trapped { message, .. } => Some(message),
                _ => None,
            })
            .collect();
        let all = [HostCall::SetSharedData, HostCall::GetSharedData, HostCall::SetSharedData];
        match trap {
            None => {
                assert_eq!(stored(&process), [true, true], "{what}, in the end");
                assert_eq!(
                    (traps.as_slice(), asked.lock().unwrap().as_slice()),
                    (&[] as &[String], &all[..]),
                    "{what}"
                );
            }
            Some(text) => {
                assert!(traps.len() == 1 && traps[0].contains(text), "{what}: {traps:?}");
                assert_eq!(asked.lock().unwrap().as_slice(), &all[..=nth as usize], "{what}");
            }
        }
    }

    #[test]
    fn a_turn_comes_before_the_effect_of_the_call_that_it_was_decided_for() {
        for verdict in [Verdict::Yield, Verdict::Stall(Duration::from_secs(5))] {
            check(0, verdict, [false, false], None);
            check(1, verdict, [true, false], None);
            check(2, verdict, [true, false], None);
        }
    }

    #[test]
    fn what_strikes_a_call_strikes_it_before_or_behind_its_effect() {
        check(0, Verdict::Trap, [false, false], Some("injected trap in place of SetSharedData"));
        check(0, Verdict::TrapAfter, [true, false], Some("injected trap after SetSharedData"));
        check(1, Verdict::Trap, [true, false], Some("injected trap in place of GetSharedData"));
        check(1, Verdict::TrapAfter, [true, false], Some("injected trap after GetSharedData"));
    }

    #[test]
    fn a_guest_is_given_bytes_where_its_own_allocator_says() {
        check(9, Verdict::Proceed, [true, true], None);
    }

    #[test]
    fn calls_that_are_no_part_of_the_abi_are_asked_about_too_and_made_before_a_trap_behind_them() {
        let calls = [("wasi_snapshot_preview1", "sock_send"), ("wasi_unstable", "path_filestat_get")];
        for (nth, call) in [(0, HostCall::SockSend), (1, HostCall::PathFilestatGet), (2, HostCall::SockSend)] {
            for (verdict, text) in [(Verdict::Trap, "in place of"), (Verdict::TrapAfter, "after")] {
                let asked = Arc::new(Mutex::new(Vec::new()));
                let mut process = Process::new(&tiny::module_with(calls), Settings::default());
                process.set_chaos(Box::new(At(nth, verdict, asked.clone())));
                process.push(Some(Plugin::new("v", "")));
                process.run_for(&mut Nobody, Duration::from_secs(1));
                let wanted = format!("injected trap {text} {call:?}");
                let happenings = process.take_happenings();
                let is_it = |happening: &Happening| matches!(happening, Happening::Trapped { message, .. } if message.contains(&wanted));
                assert!(happenings.iter().any(is_it), "{wanted}: {happenings:?}");
                assert_eq!(asked.lock().unwrap().last(), Some(&call));
            }
        }
    }
}
