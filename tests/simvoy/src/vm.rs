//! One VM: a module made alive, the guest's memory, and the way into its callbacks.
//!
//! Knows nothing of Envoy but the exports' names and shapes.

use crate::abi::{Callback, Status};
use crate::calls::{self, Parcel, Passed};
use crate::ids::{ContextId, ThreadId, VmId};
use crate::plugin::Plugin;
use crate::shared::Handle;
use crate::turnstile;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use wasmtime::{
    Config, Engine, Extern, Instance, InstanceAllocationStrategy, InstancePre, Linker, Memory, PoolingAllocationConfig,
    Ref, Store, StoreLimits, StoreLimitsBuilder, TypedFunc, error::Context as _,
};

/// V8's limit in Envoy: 1 GiB and not the 4 GiB of the format (PLATFORM 1.5).
const MEMORY_BYTES_MAX: usize = 1 << 30;
/// VMs that may live at the same time in one test process: nine threads, each with an old and a new VM, in a few
/// processes side by side. The pool only reserves address space.
const VMS_MAX: u32 = 200;
/// What a guest leaves behind in a pooled memory is wiped by hand up to here, instead of by the kernel.
const KEEP_RESIDENT_BYTES: usize = 1 << 20;

/// Why a module cannot be used.
#[derive(Debug)]
pub enum LoadError {
    /// The file cannot be read.
    File(String, std::io::Error),
    /// The engine refuses it.
    Module(String, wasmtime::Error),
    /// It asks for something that no proxy-wasm host gives.
    Import(String, wasmtime::Error),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(name, error) => write!(f, "{name} cannot be read ({error}): build it first"),
            Self::Module(name, error) => write!(f, "{name} is no module that the engine takes: {error:#}"),
            Self::Import(name, error) => {
                write!(f, "{name} imports what this host does not have ({error:#}): add the call to simvoy's src/calls")
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
        let refused = |error| LoadError::Module(name.to_owned(), error);
        let engine = engine().map_err(refused)?;
        let guest = wasmtime::Module::new(&engine, bytes).map_err(refused)?;
        let mut linker = Linker::new(&engine);
        calls::link(&mut linker).map_err(refused)?;
        // What it imports goes through the turnstile; whether all of that is there is asked of the host calls themselves.
        linker.instantiate_pre(&guest).map_err(|error| LoadError::Import(name.to_owned(), error))?;
        let turnstile = wasmtime::Module::new(&engine, turnstile::bytes_for(&guest)).map_err(refused)?;
        let turnstile = linker.instantiate_pre(&turnstile).map_err(refused)?;
        let reactor = ["_initialize", "_start"].into_iter().find(|start| guest.get_export(start).is_some());
        Ok(Self { guest, turnstile, reactor })
    }
}

impl Module {
    /// Callbacks of the ABI that it exports and this host never makes.
    #[must_use]
    pub fn unknown_callbacks(&self) -> Vec<String> {
        let known = |name: &str| Callback::ALL.iter().any(|callback| callback.export() == name);
        let callbacks = self.guest.exports().map(|export| export.name()).filter(|name| name.starts_with("proxy_on_"));
        // What the host allocates with is no callback.
        callbacks.filter(|name| *name != "proxy_on_memory_allocate" && !known(name)).map(str::to_owned).collect()
    }
}

fn engine() -> wasmtime::Result<Engine> {
    let mut pool = PoolingAllocationConfig::default();
    // Each VM is two instances with a table each, the guest and its turnstile, of which one has a memory.
    pool.total_core_instances(2 * VMS_MAX).total_tables(2 * VMS_MAX).total_memories(VMS_MAX).total_stacks(VMS_MAX);
    pool.max_memory_size(MEMORY_BYTES_MAX).table_elements(10_000);
    pool.linear_memory_keep_resident(KEEP_RESIDENT_BYTES).async_stack_keep_resident(64 << 10);
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
    /// With what the call before ended.
    pub last_status: Status,
    /// Somebody wants to read in words what happened.
    pub keeps_events: bool,
    limits: StoreLimits,
}

impl Guest {
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

/// One VM.
pub(crate) struct Vm {
    store: Store<Guest>,
    exports: Vec<Option<Export>>,
}

impl Vm {
    /// Makes the module alive. Nothing of it has run yet.
    pub(crate) async fn new(module: &Module, shared: &Handle, vm: VmId, thread: ThreadId) -> wasmtime::Result<Self> {
        let guest = Guest {
            shared: shared.clone(),
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
            last_status: Status::Ok,
            keeps_events: shared.lock().trace.keeps(),
            limits: StoreLimitsBuilder::new().memory_size(MEMORY_BYTES_MAX).build(),
        };
        let mut store = Store::new(module.guest.engine(), guest);
        store.limiter(|guest| &mut guest.limits);
        let turnstile = module.turnstile.instantiate_async(&mut store).await?;
        let calls = calls_through(&turnstile, &mut store, &module.guest)?;
        let instance = Instance::new_async(&mut store, &module.guest, &calls).await?;
        let memory = instance.get_memory(&mut store, "memory");
        // The host takes malloc first, and the SDK's own name if there is none (getFunctions in wasm.cc).
        let allocate = ["malloc", "proxy_on_memory_allocate"]
            .into_iter()
            .find_map(|name| instance.get_typed_func::<u32, u32>(&mut store, name).ok());
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
        guest.last_status = Status::Ok;
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

fn find(instance: &Instance, store: &mut Store<Guest>, callback: Callback, module: &Module) -> Option<Export> {
    let name = match callback {
        Callback::Initialize => module.reactor?,
        _ => callback.export(),
    };
    match callback {
        Callback::Initialize => instance.get_typed_func(store, name).ok().map(Export::Void0),
        Callback::Tick | Callback::Log | Callback::Delete => {
            instance.get_typed_func(store, name).ok().map(Export::Void1)
        }
        Callback::ContextCreate | Callback::QueueReady => instance.get_typed_func(store, name).ok().map(Export::Void2),
        Callback::GrpcInitialMetadata
        | Callback::GrpcReceive
        | Callback::GrpcTrailingMetadata
        | Callback::GrpcClose => instance.get_typed_func(store, name).ok().map(Export::Void3),
        Callback::CallResponse => instance.get_typed_func(store, name).ok().map(Export::Void5),
        Callback::Done => instance.get_typed_func(store, name).ok().map(Export::Word1),
        Callback::VmStart | Callback::Configure | Callback::RequestTrailers | Callback::ResponseTrailers => {
            instance.get_typed_func(store, name).ok().map(Export::Word2)
        }
        Callback::RequestHeaders | Callback::RequestBody | Callback::ResponseHeaders | Callback::ResponseBody => {
            instance.get_typed_func(store, name).ok().map(Export::Word3)
        }
    }
}
