//! Plugins on one thread: VMs and root contexts made, shared, replaced after a trap, and let go (wasm.cc of Envoy and of
//! proxy-wasm-cpp-host; PLATFORM 1.3 and 1.9).
//!
//! ```text
//!   push ──> main thread: throw-away VM ──> every thread: VM of that VM key, root context of that plugin key
//!   trap ──> the caches forget VM and root context ──> next stream after the back-off makes both anew
//!   drain ─> on_done ── true ──> on_delete          ── false ──> lives on until proxy_done
//! ```

use super::{HasFailed, Thread, Turn};
use crate::abi::Callback;
use crate::guest::{Context, Root, RootLife, TickTimer};
use crate::happening::Happening;
use crate::ids::{ContextId, Generation, ThreadId, VmId};
use crate::jobs::{Job, Place};
use crate::plugin::{FailurePolicy, Plugin, PluginKey, VmKey};
use crate::shared::Tried;
use crate::time::Moment;
use crate::vm::{Stillborn, Vm};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What a thread remembers of its plugins.
#[derive(Default)]
pub(super) struct Plugins {
    /// One per generation of the listener (SinglePluginHandle).
    handles: BTreeMap<Generation, PluginHandle>,
    /// VMs that are well, by what makes them the same (local_wasms).
    vms: BTreeMap<VmKey, VmId>,
    /// Root contexts in VMs that are well (local_plugins).
    roots: BTreeMap<PluginKey, (VmId, ContextId)>,
}

#[derive(Clone)]
struct PluginHandle {
    plugin: Arc<Plugin>,
    vm: VmId,
    root: ContextId,
    last_load: Moment,
}

/// Who stands for a new stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Root(VmId, ContextId),
    /// The VM is dead and the policy is to fail.
    Dead,
    /// There is no filter, or it fails open.
    Skipped,
}

impl Plugins {
    /// A VM has failed or is gone.
    pub(super) fn forget_vm(&mut self, vm: VmId) {
        self.vms.retain(|_, found| *found != vm);
        self.roots.retain(|_, (found, _)| *found != vm);
    }
}

impl Thread {
    /// A push: the main thread tries it first, once per plugin; then every thread makes its root context.
    pub(super) async fn load(&mut self, generation: Generation, plugin: Arc<Plugin>, place: Place) {
        if self.id == ThreadId::MAIN {
            let is_well = self.try_out(&plugin).await;
            let mut shared = self.shared.lock();
            if !is_well {
                shared.happened(Happening::Refused(generation));
                return;
            }
            shared.holders.insert(generation, plugin.vm_id.clone());
            if place == Place::Instead {
                shared.replace_listener(Some(generation));
            }
            shared.happened(Happening::Taken(generation));
            let workers: Vec<ThreadId> = (1..shared.threads.len()).map(|id| ThreadId(id as u32)).collect();
            for worker in workers {
                shared.post(worker, Job::Load(generation, plugin.clone(), place));
            }
        }
        let loaded = self.root_for(generation, &plugin).await;
        let mut shared = self.shared.lock();
        if let Ok((vm, root)) = loaded {
            let handle = PluginHandle { plugin, vm, root, last_load: shared.clock.now };
            self.plugins.handles.insert(generation, handle);
            shared.loaded.insert((self.id, generation));
        }
    }

    /// `on_configure` runs in a VM that is thrown away afterwards: no on_done, no on_delete (PLATFORM H10).
    pub(super) async fn try_out(&mut self, plugin: &Arc<Plugin>) -> bool {
        let key = plugin.key();
        if let Some(tried) = self.shared.lock().tried.get(&key) {
            return *tried == Tried::Well;
        }
        let is_well = match self.new_vm(plugin).await {
            Ok(vm) => {
                let made = self.new_root(vm, plugin).await;
                self.plugins.forget_vm(vm);
                self.vms.remove(&vm);
                // The base VM outlives the canary, so shared data does: it is the first push if no other VM is there.
                self.shared.lock().take_vm(vm);
                made.is_ok()
            }
            Err(HasFailed) => false,
        };
        let tried = if is_well { Tried::Well } else { Tried::Badly };
        self.shared.lock().tried.insert(key, tried);
        is_well
    }

    /// The root context of a plugin, made if it is not there (getOrCreateThreadLocalPlugin).
    async fn root_for(&mut self, generation: Generation, plugin: &Arc<Plugin>) -> Result<(VmId, ContextId), HasFailed> {
        if let Some(found) = self.plugins.roots.get(&plugin.key()) {
            return Ok(*found);
        }
        let vm = match self.plugins.vms.get(&plugin.vm_key()) {
            Some(vm) => *vm,
            None => {
                let vm = self.new_vm(plugin).await?;
                self.plugins.vms.insert(plugin.vm_key(), vm);
                self.shared.lock().happened(Happening::Started { thread: self.id, vm });
                vm
            }
        };
        let root = self.new_root(vm, plugin).await?;
        self.plugins.roots.insert(plugin.key(), (vm, root));
        self.shared.lock().happened(Happening::Configured { thread: self.id, generation });
        Ok((vm, root))
    }

    async fn new_vm(&mut self, plugin: &Plugin) -> Result<VmId, HasFailed> {
        let id = self.shared.lock().add_vm(self.id, plugin);
        match Vm::new(&self.module, &self.shared, id, self.id).await {
            Ok(vm) => {
                self.vms.insert(id, vm);
            }
            Err(stillborn) => {
                let (thread, mut shared) = (self.id, self.shared.lock());
                shared.take_vm(id);
                shared.happened(match stillborn {
                    Stillborn::Guest(message) => Happening::Trapped { thread, vm: id, message },
                    Stillborn::Engine(message) => Happening::NotMade { thread, message },
                });
                return Err(HasFailed);
            }
        }
        if let Err(HasFailed) = self.enter(id, ContextId(0), Callback::Initialize, [0; 5]).await {
            self.vms.remove(&id);
            self.shared.lock().take_vm(id);
            return Err(HasFailed);
        }
        self.after(id).await;
        Ok(id)
    }

    /// A new root context: created, VM started, for every root context
    /// (`life_cycle::new_configuration`), configured.
    async fn new_root(&mut self, vm: VmId, plugin: &Arc<Plugin>) -> Result<ContextId, HasFailed> {
        let size = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let root = {
            let mut shared = self.shared.lock();
            let found = shared.vm_mut(vm).ok_or(HasFailed)?;
            found.add_context(Context::Root(Box::new(Root {
                plugin: plugin.clone(),
                calls: BTreeMap::new(),
                answer: None,
                grpc_message: Vec::new(),
                status: (0, String::new()),
                timer: TickTimer::default(),
                life: RootLife::Live,
            })))
        };
        self.enter(vm, root, Callback::ContextCreate, [root.0, 0, 0, 0, 0]).await?;
        let vm_size = size(&plugin.vm_configuration);
        let started = self.enter(vm, root, Callback::VmStart, [root.0, vm_size, 0, 0, 0]).await?;
        self.after(vm).await;
        if started == Some(0) {
            return self.refuse(vm, root);
        }
        self.configuring(vm, Some(plugin.clone()));
        let plugin_size = size(&plugin.configuration);
        let configured = self.enter(vm, root, Callback::Configure, [root.0, plugin_size, 0, 0, 0]).await;
        self.configuring(vm, None);
        self.after(vm).await;
        if configured? == Some(0) {
            return self.refuse(vm, root);
        }
        Ok(root)
    }

    fn refuse(&mut self, vm: VmId, root: ContextId) -> Result<ContextId, HasFailed> {
        self.shared.lock().remove_context(vm, root);
        Err(HasFailed)
    }

    fn configuring(&mut self, vm: VmId, plugin: Option<Arc<Plugin>>) {
        if let Some(vm) = self.vms.get_mut(&vm) {
            vm.configure(plugin);
        }
    }

    /// Who stands for a new stream of a generation; may make a dead VM anew (createContext and
    /// maybeReloadHandleIfNeeded: only here, and only this generation's handle).
    pub(super) fn standing(&mut self, generation: Option<Generation>) -> Turn<'_, Standing> {
        Box::pin(async move {
            let Some(generation) = generation else { return Standing::Skipped };
            let Some(handle) = self.plugins.handles.get(&generation).cloned() else { return Standing::Dead };
            if !self.has_failed(handle.vm) {
                return Standing::Root(handle.vm, handle.root);
            }
            match handle.plugin.failure_policy {
                FailurePolicy::Open => Standing::Skipped,
                FailurePolicy::Closed => Standing::Dead,
                FailurePolicy::Reload { base } => self.reload(generation, handle, base).await,
            }
        })
    }

    async fn reload(&mut self, generation: Generation, handle: PluginHandle, base: Duration) -> Standing {
        let now = {
            let mut shared = self.shared.lock();
            // The jitter is taken modulo half the base, in whole milliseconds
            // (`trap::reload_after_one_millisecond_aborts`).
            if base.as_millis() < 2 {
                shared.happened(Happening::Aborted("division by zero in the back-off of a reload".to_owned()));
                return Standing::Dead;
            }
            // The interval is drawn anew for each stream: the base and up to half of it more.
            let span = shared.random.u64(0..=(base.as_millis() as u64) / 2);
            if shared.clock.now - handle.last_load < base + Duration::from_millis(span) {
                return Standing::Dead;
            }
            shared.clock.now
        };
        self.let_go_of_dead(&handle);
        let made = self.root_for(generation, &handle.plugin).await;
        let Some(found) = self.plugins.handles.get_mut(&generation) else { return Standing::Dead };
        found.last_load = now;
        match made {
            Ok((vm, root)) => {
                (found.vm, found.root) = (vm, root);
                Standing::Root(vm, root)
            }
            Err(HasFailed) => Standing::Dead,
        }
    }

    /// The old root context goes, and its calls are cancelled (PLATFORM 1.3).
    fn let_go_of_dead(&mut self, handle: &PluginHandle) {
        let is_used = self.plugins.handles.values().filter(|other| (other.vm, other.root) == (handle.vm, handle.root));
        if is_used.count() <= 1 {
            self.shared.lock().remove_context(handle.vm, handle.root);
        }
    }

    /// The listener of this generation has drained: its root context is asked to go, unless another generation has the
    /// same plugin.
    pub(super) async fn unload(&mut self, generation: Generation) {
        let Some(handle) = self.plugins.handles.remove(&generation) else {
            self.shared.lock().let_go(self.id, generation);
            return;
        };
        let key = handle.plugin.key();
        let is_shared = self.plugins.handles.values().any(|other| other.plugin.key() == key && other.vm == handle.vm);
        if !is_shared {
            // A handle whose VM is dead lets the root context alone that a living VM has made for the same plugin since.
            if self.plugins.roots.get(&key) == Some(&(handle.vm, handle.root)) {
                self.plugins.roots.remove(&key);
            }
            self.end_root(handle.vm, handle.root).await;
        }
        self.sweep_vms();
        let mut shared = self.shared.lock();
        shared.happened(Happening::Gone { thread: self.id, generation });
        shared.let_go(self.id, generation);
    }

    async fn end_root(&mut self, vm: VmId, root: ContextId) {
        match self.root_callback(vm, root, Callback::Done, [root.0, 0, 0, 0, 0]).await {
            Ok(0) => {
                if let Some(found) = self.shared.lock().vm_mut(vm).and_then(|vm| vm.root_mut(root)) {
                    found.life = RootLife::PendingDone;
                }
            }
            Ok(_) => self.delete_root(vm, root).await,
            Err(HasFailed) => {
                self.shared.lock().remove_context(vm, root);
            }
        }
    }
}
