//! What the probe remembers in one VM. Every function borrows, answers and lets go: no borrow lives across a host call.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::host;
use crate::script::{Callback, Context, Handle, Script};

/// A stream's context as the script can name it.
#[derive(Clone)]
struct Stream {
    root: u32,
    path: String,
}

#[derive(Default)]
struct Vm {
    id: String,
    scripts: BTreeMap<u32, Rc<Script>>,
    /// Also those that are deleted: a script may speak for one that is gone.
    streams: BTreeMap<u32, Stream>,
    flags: BTreeSet<String>,
    /// How often each rule ran, by root context, callback and place.
    runs: BTreeMap<(u32, Callback, usize), u32>,
    /// Numbers of queues and metrics by name.
    handles: BTreeMap<String, u32>,
    last_cas: BTreeMap<Vec<u8>, u32>,
    last_call: u32,
}

thread_local! {
    static VM: RefCell<Vm> = RefCell::default();
}

fn with<T>(look: impl FnOnce(&mut Vm) -> T) -> T {
    VM.with_borrow_mut(look)
}

/// The random name that this VM gave itself when it was asked first.
pub fn id() -> String {
    let known = with(|vm| vm.id.clone());
    if !known.is_empty() {
        return known;
    }
    let id = format!("{:016x}", u64::from_le_bytes(host::random()));
    with(|vm| vm.id.clone_from(&id));
    id
}

/// A new context; `parent` 0 means a root context.
pub fn add_context(context: u32, parent: u32) {
    if parent != 0 {
        with(|vm| vm.streams.insert(context, Stream { root: parent, path: String::new() }));
    }
}

/// The script of a root context, as its latest configuration has it.
pub fn set_script(root: u32, script: Script) {
    with(|vm| vm.scripts.insert(root, Rc::new(script)));
}

/// The script that a context follows: its root's.
pub fn script(context: u32) -> Option<Rc<Script>> {
    with(|vm| vm.scripts.get(&vm.streams.get(&context).map_or(context, |stream| stream.root)).cloned())
}

/// The root of a context, which may be itself.
pub fn root_of(context: u32) -> u32 {
    with(|vm| vm.streams.get(&context).map_or(context, |stream| stream.root))
}

/// Remembers the path of a stream.
pub fn set_path(context: u32, path: String) {
    with(|vm| {
        if let Some(stream) = vm.streams.get_mut(&context) {
            stream.path = path;
        }
    });
}

/// Whether the context is a stream with this path.
pub fn has_path(context: u32, path: &str) -> bool {
    with(|vm| vm.streams.get(&context).is_some_and(|stream| stream.path == path))
}

/// Whether this VM ever had a stream.
pub fn is_worker() -> bool {
    with(|vm| !vm.streams.is_empty())
}

/// The number of a context that a script names.
pub fn context(named: &Context, this: u32) -> u32 {
    match named {
        Context::Number(number) => *number,
        Context::Name(name) if name == "this" => this,
        Context::Name(name) if name == "root" => root_of(this),
        Context::Name(path) => {
            with(|vm| vm.streams.iter().rev().find(|(_, stream)| stream.path == *path).map_or(0, |(number, _)| *number))
        }
    }
}

/// Raises a flag.
pub fn raise(flag: &str) {
    with(|vm| vm.flags.insert(flag.to_owned()));
}

/// Whether a flag is raised.
pub fn is_raised(flag: &str) -> bool {
    with(|vm| vm.flags.contains(flag))
}

/// How often a rule has run before; counts this run if it is below `limit`.
pub fn may_run(context: u32, callback: Callback, rule: usize, limit: Option<u32>) -> bool {
    let root = root_of(context);
    with(|vm| {
        let runs = vm.runs.entry((root, callback, rule)).or_default();
        let may = limit.is_none_or(|limit| *runs < limit);
        *runs += u32::from(may);
        may
    })
}

/// Makes a number known by name.
pub fn name_handle(name: &str, number: u32) {
    with(|vm| vm.handles.insert(name.to_owned(), number));
}

/// The number of a handle; a name that no call made known is 0, which no host gives out.
pub fn handle(handle: &Handle) -> u32 {
    match handle {
        Handle::Number(number) => *number,
        Handle::Name(name) => with(|vm| vm.handles.get(name).copied().unwrap_or_default()),
    }
}

/// Remembers what a read of shared data said.
pub fn set_last_cas(key: &[u8], cas: u32) {
    with(|vm| vm.last_cas.insert(key.to_vec(), cas));
}

/// What the last read of this key said; 0 before the first.
pub fn last_cas(key: &[u8]) -> u32 {
    with(|vm| vm.last_cas.get(key).copied().unwrap_or_default())
}

/// Remembers the call that was made last.
pub fn set_last_call(token: u32) {
    with(|vm| vm.last_call = token);
}

/// The call that was made last.
pub fn last_call() -> u32 {
    with(|vm| vm.last_call)
}
