//! One VM: a module made alive, the guest's memory, and the way into its callbacks.
//!
//! Knows nothing of Envoy but the exports' names and shapes.

use crate::abi::{Callback, Shape};
use crate::calls::{self, Parcel, Passed};
use crate::ids::{ContextId, ThreadId, VmId};
use crate::plugin::Plugin;
use crate::shared::Handle;
use crate::turnstile;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use wasmtime::{
    Config, Engine, Extern, ExternType, Instance, InstanceAllocationStrategy, InstancePre, Linker, Memory,
    PoolingAllocationConfig, Ref, Store, StoreLimits, StoreLimitsBuilder, TypedFunc, error::Context as _,
};

/// V8's limit in Envoy: 1 GiB and not the 4 GiB of the format (PLATFORM 1.5).
const MEMORY_BYTES_MAX: usize = 1 << 30;
/// VMs that may live at the same time in one test process: 65 threads, each with an old and a new VM, and some more; or
/// nine threads in a few processes side by side. The pool only reserves address space.
const VMS_MAX: u32 = 200;
/// What a guest leaves behind in a pooled memory is wiped by hand up to here, instead of by the kernel: filters that hold
/// no bodies stay below it.
const KEEP_RESIDENT_BYTES: usize = 1 << 20;
/// The same for the stack of a job: a guest's calls are rarely deeper.
const KEEP_RESIDENT_STACK_BYTES: usize = 64 << 10;
/// Functions that a guest may call by their number: redeliver has some 300, the largest SDK examples a few thousand.
const TABLE_ELEMENTS_MAX: usize = 10_000;

/// Why a module cannot be used. Each holds the module's name, and says what to do about it.
#[derive(Debug)]
#[non_exhaustive]
pub enum LoadError {
    /// The file cannot be read.
    File(String, std::io::Error),
    /// The engine cannot be made on this machine; the engine's words.
    Engine(String),
    /// It is no WebAssembly, or more of it than the engine takes; the engine's words.
    Module(String, String),
    /// It asks for something that Envoy does not have; the engine's words.
    Import(String, String),
    /// It does not say that it speaks an ABI that Envoy and this host know, or has none of what every host needs.
    Export(String, &'static str),
    /// A callback takes or gives something else than the ABI says: its name, and the shape that it should have.
    Shape(String, &'static str, String),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(name, error) => write!(f, "{name} cannot be read ({error}): build it first"),
            Self::Engine(words) => {
                write!(
                    f,
                    "the engine cannot be made ({words}): it reserves address space, so raise the limit (ulimit -v)"
                )
            }
            Self::Module(name, words) => {
                write!(f, "{name} is no module that the engine takes ({words}): build it for wasm32-wasip1")
            }
            Self::Import(name, words) => {
                write!(f, "{name} imports what this host does not have ({words}): Envoy has no such call either")
            }
            Self::Export(name, export) => {
                write!(f, "{name} does not export {export}: build it with an SDK of proxy-wasm 0.2.1, as a reactor")
            }
            Self::Shape(name, export, shape) => {
                write!(f, "{name} exports {export} in another shape than the ABI's: make it {shape}")
            }
        }
    }
}

impl std::error::Error for LoadError {}

/// A compiled module, linked to the host calls: cheap to copy, and to make VMs of.
#[derive(Clone)]
pub struct Module {
    guest: wasmtime::Module,
    turnstile: InstancePre<Guest>,
    reactor: Option<&'static str>,
}

impl Module {
    /// Compiles the module in a file.
    ///
    /// # Errors
    /// A sentence that names the file and the cure.
    pub fn from_file(path: &Path) -> Result<Self, LoadError> {
        let name = path.display().to_string();
        let bytes = std::fs::read(path).map_err(|error| LoadError::File(name.clone(), error))?;
        Self::from_bytes(&name, &bytes)
    }

    /// Compiles a module; `name` is for messages.
    ///
    /// # Errors
    /// As [`Module::from_file`].
    pub fn from_bytes(name: &str, bytes: &[u8]) -> Result<Self, LoadError> {
        let named = || name.to_owned();
        let of_engine = |error: wasmtime::Error| LoadError::Engine(format!("{error:#}"));
        let engine = engine().map_err(of_engine)?;
        let guest =
            wasmtime::Module::new(&engine, bytes).map_err(|error| LoadError::Module(named(), format!("{error:#}")))?;
        let mut linker = Linker::new(&engine);
        calls::link(&mut linker).map_err(of_engine)?;
        // What it imports goes through the turnstile; whether all of that is there is asked of the host calls themselves.
        linker.instantiate_pre(&guest).map_err(|error| LoadError::Import(named(), format!("{error:#}")))?;
        check_exports(name, &guest)?;
        let turnstile = wasmtime::Module::new(&engine, turnstile::bytes_for(&guest)).map_err(of_engine)?;
        let turnstile = linker.instantiate_pre(&turnstile).map_err(of_engine)?;
        let reactor = REACTORS.into_iter().find(|start| guest.get_export(start).is_some());
        Ok(Self { guest, turnstile, reactor })
    }
}

/// What a module may begin with (WasmBase::getFunctions).
const REACTORS: [&str; 2] = ["_initialize", "_start"];
/// The ABIs that are the same to this host; Envoy looks for these exports (WasmBase::load).
const ABI_VERSIONS: [&str; 2] = ["proxy_abi_version_0_2_1", "proxy_abi_version_0_2_0"];
/// What a guest allocates with; the first one counts (WasmBase::getFunctions).
const ALLOCATORS: [&str; 2] = ["malloc", "proxy_on_memory_allocate"];

/// Envoy refuses these modules too: a wrong shape is a "bad function signature", and the rest has names of its own.
fn check_exports(name: &str, guest: &wasmtime::Module) -> Result<(), LoadError> {
    let is_there = |export: &str| guest.get_export(export).is_some();
    let missing = |export| LoadError::Export(name.to_owned(), export);
    if !ABI_VERSIONS.into_iter().any(is_there) {
        return Err(missing(ABI_VERSIONS[0]));
    }
    if !matches!(guest.get_export("memory"), Some(ExternType::Memory(_))) {
        return Err(missing("memory"));
    }
    if !ALLOCATORS.into_iter().any(is_there) {
        return Err(missing(ALLOCATORS[0]));
    }
    let of_callbacks = Callback::ALL.into_iter().skip(1).map(|callback| (callback.export(), callback.shape()));
    let of_reactors = REACTORS.map(|start| (start, Callback::Initialize.shape()));
    let of_allocators = ALLOCATORS.map(|allocator| (allocator, Shape { takes: 1, gives: 1 }));
    for (export, shape) in of_callbacks.chain(of_reactors).chain(of_allocators) {
        let is_wrong = guest.get_export(export).is_some_and(|found| !shape.is_of(&found));
        if is_wrong {
            return Err(LoadError::Shape(name.to_owned(), export, shape.to_string()));
        }
    }
    Ok(())
}

impl Shape {
    fn is_of(self, export: &ExternType) -> bool {
        let ExternType::Func(function) = export else { return false };
        (function.params().len(), function.results().len()) == (self.takes, self.gives)
            && function.params().chain(function.results()).all(|value| value.is_i32())
    }
}

impl Module {
    /// The callbacks that it exports, by name.
    pub fn callbacks(&self) -> impl Iterator<Item = &str> {
        // What the host allocates with is no callback.
        let is_callback = |name: &&str| name.starts_with("proxy_on_") && !ALLOCATORS.contains(name);
        self.guest.exports().map(|export| export.name()).filter(is_callback)
    }
}

fn engine() -> wasmtime::Result<Engine> {
    let mut pool = PoolingAllocationConfig::default();
    // Each VM is two instances with a table each, the guest and its turnstile, of which one has a memory.
    pool.total_core_instances(2 * VMS_MAX).total_tables(2 * VMS_MAX).total_memories(VMS_MAX).total_stacks(VMS_MAX);
    pool.max_memory_size(MEMORY_BYTES_MAX).table_elements(TABLE_ELEMENTS_MAX);
    pool.linear_memory_keep_resident(KEEP_RESIDENT_BYTES).async_stack_keep_resident(KEEP_RESIDENT_STACK_BYTES);
    let mut config = Config::new();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config)
}

/// What host calls find in the store.
pub(crate) struct Guest {
    pub shared: Handle,
    pub vm: VmId,
    pub thread: ThreadId,
    /// The context of the callback that runs.
    pub context: ContextId,
    /// The one that the guest speaks for, if it said so in this callback.
    pub effective: Option<ContextId>,
    pub callback: Callback,
    /// Calls made in this callback.
    pub calls: u32,
    /// Set while `on_configure` runs: only then there is a plugin configuration to read.
    pub configuring: Option<Arc<Plugin>>,
    pub memory: Option<Memory>,
    /// What the guest is being given.
    pub parcel: Parcel,
    /// A call that waits for its turn is decided already: so it will be made.
    pub passed: Option<Passed>,
    /// What the call before has given: the number of a status, or of an error of WASI.
    pub last_given: i32,
    /// Somebody wants to read in words what happened.
    pub keeps_events: bool,
    limits: StoreLimits,
}

impl Guest {
    pub(crate) fn new(shared: Handle, vm: VmId, thread: ThreadId) -> Self {
        let keeps_events = shared.lock().trace.keeps();
        Self {
            keeps_events,
            shared,
            vm,
            thread,
            context: ContextId(0),
            effective: None,
            callback: Callback::Initialize,
            calls: 0,
            configuring: None,
            memory: None,
            parcel: Parcel::default(),
            passed: None,
            last_given: 0,
            limits: StoreLimitsBuilder::new().memory_size(MEMORY_BYTES_MAX).build(),
        }
    }

    /// The context that a host call speaks for.
    pub(crate) fn speaker(&self) -> ContextId {
        self.effective.unwrap_or(self.context)
    }
}

/// An exported callback, by shape.
#[derive(Clone)]
enum Export {
    Void0(TypedFunc<(), ()>),
    Void1(TypedFunc<u32, ()>),
    Void2(TypedFunc<(u32, u32), ()>),
    Void3(TypedFunc<(u32, u32, u32), ()>),
    Void5(TypedFunc<(u32, u32, u32, u32, u32), ()>),
    Word1(TypedFunc<u32, u32>),
    Word2(TypedFunc<(u32, u32), u32>),
    Word3(TypedFunc<(u32, u32, u32), u32>),
}

/// Why a VM could not be made.
#[derive(Debug)]
pub(crate) enum Stillborn {
    /// The guest trapped in its start function.
    Guest(String),
    /// The engine has no room for it.
    Engine(String),
}

/// One VM.
pub(crate) struct Vm {
    store: Store<Guest>,
    exports: Vec<Option<Export>>,
}

impl Vm {
    /// Makes the module alive. Nothing of it has run yet, but for a start function if it has one.
    ///
    /// # Errors
    /// Who is to blame, and the engine's words.
    pub(crate) async fn new(module: &Module, shared: &Handle, vm: VmId, thread: ThreadId) -> Result<Self, Stillborn> {
        Self::instantiate(module, shared, vm, thread).await.map_err(|error| {
            let words = format!("{error:#}");
            if error.is::<wasmtime::Trap>() { Stillborn::Guest(words) } else { Stillborn::Engine(words) }
        })
    }

    async fn instantiate(module: &Module, shared: &Handle, vm: VmId, thread: ThreadId) -> wasmtime::Result<Self> {
        let mut store = Store::new(module.guest.engine(), Guest::new(shared.clone(), vm, thread));
        store.limiter(|guest| &mut guest.limits);
        let turnstile = module.turnstile.instantiate_async(&mut store).await?;
        let calls = calls_through(&turnstile, &mut store, &module.guest)?;
        let instance = Instance::new_async(&mut store, &module.guest, &calls).await?;
        let memory = instance.get_memory(&mut store, "memory");
        // The host takes malloc first, and the SDK's own name if there is none (getFunctions in wasm.cc).
        let allocate =
            ALLOCATORS.into_iter().find_map(|name| instance.get_typed_func::<u32, u32>(&mut store, name).ok());
        store.data_mut().memory = memory;
        if let (Some(allocate), Some(table)) = (allocate, turnstile.get_table(&mut store, turnstile::ALLOCATE_TABLE)) {
            table.set(&mut store, 0, Ref::Func(Some(*allocate.func())))?;
            store.data_mut().parcel.can_allocate = true;
        }
        let exports = Callback::ALL.into_iter().map(|callback| find(&instance, &mut store, callback, module)).collect();
        Ok(Self { store, exports })
    }

    /// The guest's memory in bytes. It never shrinks.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.store.data().memory.map_or(0, |memory| memory.data_size(&self.store))
    }

    pub(crate) fn configure(&mut self, plugin: Option<Arc<Plugin>>) {
        self.store.data_mut().configuring = plugin;
    }

    /// Calls a callback. `None`: the module does not export it. An answer of a callback without one is 0.
    pub(crate) async fn call(
        &mut self,
        callback: Callback,
        context: ContextId,
        arguments: [u32; 5],
    ) -> Option<wasmtime::Result<u32>> {
        let Self { store, exports } = self;
        let export = exports.get(callback as usize)?.as_ref()?;
        let guest = store.data_mut();
        (guest.context, guest.effective, guest.callback, guest.calls) = (context, None, callback, 0);
        guest.last_given = 0;
        let [a, b, c, d, e] = arguments;
        Some(match export {
            Export::Void0(function) => function.call_async(store, ()).await.map(|()| 0),
            Export::Void1(function) => function.call_async(store, a).await.map(|()| 0),
            Export::Void2(function) => function.call_async(store, (a, b)).await.map(|()| 0),
            Export::Void3(function) => function.call_async(store, (a, b, c)).await.map(|()| 0),
            Export::Void5(function) => function.call_async(store, (a, b, c, d, e)).await.map(|()| 0),
            Export::Word1(function) => function.call_async(store, a).await,
            Export::Word2(function) => function.call_async(store, (a, b)).await,
            Export::Word3(function) => function.call_async(store, (a, b, c)).await,
        })
    }
}

/// What the guest imports, in the order in which it does.
fn calls_through(
    turnstile: &Instance,
    store: &mut Store<Guest>,
    guest: &wasmtime::Module,
) -> wasmtime::Result<Vec<Extern>> {
    let names = guest.imports().map(|import| turnstile::export_name(import.module(), import.name()));
    let find = |name: String| turnstile.get_export(&mut *store, &name).with_context(|| format!("no call {name}"));
    names.map(find).collect()
}

/// A callback that the module exports; its shape was checked when it was loaded.
fn find(instance: &Instance, store: &mut Store<Guest>, callback: Callback, module: &Module) -> Option<Export> {
    let name = if callback == Callback::Initialize { module.reactor? } else { callback.export() };
    let Shape { takes, gives } = callback.shape();
    match (takes, gives) {
        (0, 0) => instance.get_typed_func(store, name).ok().map(Export::Void0),
        (1, 0) => instance.get_typed_func(store, name).ok().map(Export::Void1),
        (2, 0) => instance.get_typed_func(store, name).ok().map(Export::Void2),
        (3, 0) => instance.get_typed_func(store, name).ok().map(Export::Void3),
        (5, 0) => instance.get_typed_func(store, name).ok().map(Export::Void5),
        (1, 1) => instance.get_typed_func(store, name).ok().map(Export::Word1),
        (2, 1) => instance.get_typed_func(store, name).ok().map(Export::Word2),
        (3, 1) => instance.get_typed_func(store, name).ok().map(Export::Word3),
        // No callback of the ABI has another one.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tiny::{self, CALLS, EXPORTS, Exported};

    #[track_caller]
    fn check(bytes: &[u8], expected: &str) {
        match Module::from_bytes("a.wasm", bytes) {
            Ok(_) => panic!("it is loaded, in the place of: {expected}"),
            Err(problem) => assert!(problem.to_string().contains(expected), "{problem}"),
        }
    }

    #[test]
    fn what_envoy_would_not_load_is_refused_with_the_cure() {
        let without = |name: &str| {
            let exports: Vec<_> = EXPORTS.into_iter().filter(|(export, _)| *export != name).collect();
            tiny::bytes(CALLS, &exports)
        };
        let with = |name, exported| tiny::bytes(CALLS, &[EXPORTS.as_slice(), &[(name, exported)]].concat());
        let cases: [(&[u8], &str); 8] = [
            (b"no module", "a.wasm is no module that the engine takes"),
            (&tiny::bytes([("env", "proxy_teleport"), CALLS[1]], &EXPORTS), "proxy_teleport"),
            (&tiny::bytes([("env", "proxy_done"), CALLS[1]], &EXPORTS), "imports what this host does not have"),
            (&without("proxy_abi_version_0_2_1"), "does not export proxy_abi_version_0_2_1"),
            (&without("memory"), "does not export memory"),
            (&without("malloc"), "does not export malloc"),
            (
                &with("proxy_on_tick", Exported::Malloc),
                "exports proxy_on_tick in another shape than the ABI's: make it (i32) -> ()",
            ),
            (
                &with("_initialize", Exported::Memory),
                "exports _initialize in another shape than the ABI's: make it () -> ()",
            ),
        ];
        for (bytes, expected) in cases {
            check(bytes, expected);
        }
    }
}
