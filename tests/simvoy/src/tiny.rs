//! A guest of a few bytes, for tests of this crate: it writes `key` in `on_configure`, reads it back, and writes what it was
//! given under `copy`.

use crate::Module;
use crate::turnstile::{
    KIND_FUNCTION, SECTION_CODE, SECTION_EXPORT, SECTION_FUNCTION, SECTION_IMPORT, SECTION_TYPE, TYPE_FUNCTION,
    TYPE_I32, signed, sized, text, vector,
};

const SECTION_MEMORY: u8 = 5;
const SECTION_DATA: u8 = 11;
const KIND_MEMORY: u8 = 2;

/// What a module exports under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exported {
    Memory,
    /// Takes one word and gives one.
    Malloc,
    /// Takes two words and gives one.
    Configure,
}

/// What a whole guest exports.
pub(crate) const EXPORTS: [(&str, Exported); 4] = [
    ("memory", Exported::Memory),
    ("malloc", Exported::Malloc),
    ("proxy_on_configure", Exported::Configure),
    ("proxy_abi_version_0_2_1", Exported::Malloc),
];

/// The whole guest, compiled.
pub(crate) fn module() -> Module {
    module_with(CALLS)
}

/// What the guest calls: the first, the second, and the first again.
pub(crate) const CALLS: [(&str, &str); 2] = [("env", "proxy_set_shared_data"), ("env", "proxy_get_shared_data")];

/// The guest with other calls in their place, which must take five words too.
pub(crate) fn module_with(calls: [(&str, &str); 2]) -> Module {
    Module::from_bytes("a tiny guest", &bytes(calls, &EXPORTS)).unwrap_or_else(|wrong| panic!("{wrong}"))
}

/// The guest with other imports and exports.
pub(crate) fn bytes(calls: [(&str, &str); 2], exports: &[(&str, Exported)]) -> Vec<u8> {
    let list = |items: Vec<Vec<u8>>| vector(items.into_iter());
    let import = |(module, name)| [text(module), text(name), vec![KIND_FUNCTION, 0]].concat();
    let sections = [
        (SECTION_TYPE, list(vec![shape(5), shape(1), shape(2)])),
        (SECTION_IMPORT, list(calls.map(import).to_vec())),
        (SECTION_FUNCTION, list(vec![vec![1], vec![2]])),
        (SECTION_MEMORY, vec![1, 0, 1]),
        (SECTION_EXPORT, list(exports.iter().map(export).collect())),
        (SECTION_CODE, list(vec![sized(malloc()), sized(configure())])),
        (SECTION_DATA, [vec![1, 0], constant(0), vec![END], text("key     value   copy")].concat()),
    ];
    let sections = sections.map(|(id, content)| [vec![id], sized(content)].concat());
    [b"\0asm\x01\0\0\0".to_vec(), sections.concat()].concat()
}

const CONST: u8 = 0x41;
const LOAD: u8 = 0x28;
const CALL: u8 = 0x10;
const DROP: u8 = 0x1a;
const END: u8 = 0x0b;

fn shape(takes: u8) -> Vec<u8> {
    [vec![TYPE_FUNCTION, takes], vec![TYPE_I32; usize::from(takes)], vec![1, TYPE_I32]].concat()
}

fn export((name, exported): &(&str, Exported)) -> Vec<u8> {
    let (kind, place) = match exported {
        Exported::Memory => (KIND_MEMORY, 0),
        Exported::Malloc => (KIND_FUNCTION, 2),
        Exported::Configure => (KIND_FUNCTION, 3),
    };
    [text(name), vec![kind, place]].concat()
}

fn constant(value: i32) -> Vec<u8> {
    [vec![CONST], signed(value)].concat()
}

/// There is room for everything at the same place.
fn malloc() -> Vec<u8> {
    [vec![0], constant(512), vec![END]].concat()
}

fn configure() -> Vec<u8> {
    let load = |at: i32| [constant(at), vec![LOAD, 2, 0]].concat();
    let call = |function: u8, arguments: [Vec<u8>; 5]| [arguments.concat(), vec![CALL, function, DROP]].concat();
    [
        vec![0],
        call(0, [constant(0), constant(3), constant(8), constant(5), constant(0)]),
        call(1, [constant(0), constant(3), constant(100), constant(104), constant(108)]),
        call(0, [constant(16), constant(4), load(100), load(104), constant(0)]),
        constant(1),
        vec![END],
    ]
    .concat()
}
