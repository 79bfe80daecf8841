//! One thread of Envoy: takes its jobs one by one, and carries each through as Envoy does.
//!
//! ```text
//!   inbox ──> job ──> (guest callback ──> what the guest put off)* ──> next job
//!                          │ a host call may let other threads run first
//! ```
//! A thread is a value that a job consumes and gives back, so the event loop can hold the future of a job that waits in
//! the middle of a host call. Nothing here is decided by chance, and nothing waits but for guests.

mod answers;
mod decode;
mod encode;
mod plugins;
mod router;

use crate::abi::Callback;
use crate::guest::{After, Arming, Root, RootLife};
use crate::happening::Happening;
use crate::ids::{ContextId, StreamId, ThreadId, VmId};
use crate::jobs::{Job, Timer};
use crate::shared::{Handle, ThreadLife};
use crate::trace::{Event, Kind};
use crate::vm::{Module, Vm};
use plugins::Plugins;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;

/// One thread.
pub(crate) struct Thread {
    pub id: ThreadId,
    shared: Handle,
    module: Module,
    vms: BTreeMap<VmId, Vm>,
    plugins: Plugins,
}

/// A future that may call itself.
type Turn<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The guest's callback did not answer: its VM has trapped, now or before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct HasFailed;

impl Thread {
    pub(crate) fn new(id: ThreadId, shared: Handle, module: Module) -> Self {
        Self { id, shared, module, vms: BTreeMap::new(), plugins: Plugins::default() }
    }

    /// The largest memory of a VM here, in bytes.
    pub(crate) fn memory_bytes_max(&self) -> usize {
        self.vms.values().map(Vm::memory_bytes).max().unwrap_or(0)
    }

    /// Carries one job through, and gives the thread back.
    pub(crate) async fn run(mut self, job: Job) -> Self {
        match job {
            Job::Load(generation, plugin, place) => self.load(generation, plugin, place).await,
            Job::TryOut(plugin) => {
                // Whether it would be taken shows in the log.
                let _would = self.try_out(&plugin).await;
            }
            Job::Remove(generation) => self.shared.lock().drain(generation),
            Job::Unload(generation) => self.unload(generation).await,
            Job::Tick(vm, root, arming) => self.tick(vm, root, arming).await,
            Job::QueueReady(vm, root, token) => {
                // Best effort: a failed VM is not told, and the item stays (PLATFORM 1.2).
                let _told = self.root_callback(vm, root, Callback::QueueReady, [root.0, token, 0, 0, 0]).await;
            }
            Job::Open(stream, generation) => self.open(stream, generation).await,
            Job::Piece(stream, piece) => self.arrive(stream, piece).await,
            Job::Disconnect(stream) => self.disconnect(stream).await,
            Job::Upstream(stream, attempt, outcome) => self.upstream(stream, attempt, outcome).await,
            Job::RouteTimeout(stream) => self.route_timeout(stream).await,
            Job::Called(vm, token, outcome) => self.called(vm, token, outcome).await,
            Job::Stop => self.stop().await,
        }
        self
    }

    /// Calls a guest, and marks its VM as failed if it traps. `Ok(None)`: not exported.
    async fn enter(
        &mut self,
        vm: VmId,
        context: ContextId,
        callback: Callback,
        arguments: [u32; 5],
    ) -> Result<Option<u32>, HasFailed> {
        if self.has_failed(vm) {
            return Err(HasFailed);
        }
        self.note_callback(vm, context, callback, arguments);
        let found = self.vms.get_mut(&vm).ok_or(HasFailed)?;
        match found.call(callback, context, arguments).await {
            None => Ok(None),
            Some(Ok(answer)) => Ok(Some(answer)),
            Some(Err(trap)) => {
                self.fail(vm, &format!("{trap:#}"));
                Err(HasFailed)
            }
        }
    }

    fn note_callback(&self, vm: VmId, context: ContextId, callback: Callback, arguments: [u32; 5]) {
        let mut shared = self.shared.lock();
        let now = shared.clock.now;
        let numbers = [u64::from(vm.0) << 32 | u64::from(context.0), u64::from(arguments[1]), u64::from(arguments[2])];
        shared.trace.feed(Kind::Callback(callback), now, numbers, &[]);
        if shared.trace.keeps() {
            let text = format!("{} {arguments:?}", callback.export());
            shared.trace.keep(Event { at: now, place: Some((self.id, vm, context)), text });
        }
    }

    fn has_failed(&self, vm: VmId) -> bool {
        self.shared.lock().vm(vm).is_none_or(|vm| vm.has_failed)
    }

    /// A VM has trapped: its contexts answer nothing any more, and the caches forget it (PLATFORM 1.3).
    fn fail(&mut self, vm: VmId, message: &str) {
        self.plugins.forget_vm(vm);
        let mut shared = self.shared.lock();
        if let Some(found) = shared.vm_mut(vm) {
            found.has_failed = true;
            // What it had put off is not done any more (`trap::reply_before_the_trap`).
            found.after.clear();
        }
        shared.happened(Happening::Trapped { thread: self.id, vm, message: message.to_owned() });
    }

    /// Does what guests have put off, until nothing is left (doAfterVmCallActions).
    fn after(&mut self, vm: VmId) -> Turn<'_, ()> {
        Box::pin(async move {
            loop {
                let next = {
                    let mut shared = self.shared.lock();
                    let Some(found) = shared.vm_mut(vm) else { return };
                    found.stop_iteration = false;
                    found.after.pop_front()
                };
                let Some(after) = next else { return };
                self.perform(after, vm).await;
            }
        })
    }

    async fn perform(&mut self, after: After, vm: VmId) {
        match after {
            After::ContinueRequest(stream) => self.continue_request(stream).await,
            After::ContinueResponse(stream) => self.continue_response(stream).await,
            After::Reply(stream, response, details, said) => {
                self.local_reply_saying(stream, response, details, said).await;
            }
            After::Close(stream) => self.close(stream).await,
            After::FinishShutdown(root) => self.finish_shutdown(vm, root).await,
            After::GrpcRefused(root, token, text) => self.grpc_refused(vm, root, token, &text).await,
        }
    }

    /// A callback of a root context.
    async fn root_callback(
        &mut self,
        vm: VmId,
        root: ContextId,
        callback: Callback,
        arguments: [u32; 5],
    ) -> Result<u32, HasFailed> {
        if !self.has_context(vm, root) {
            return Err(HasFailed);
        }
        let answer = self.enter(vm, root, callback, arguments).await;
        self.after(vm).await;
        answer.map(|answer| answer.unwrap_or(0))
    }

    fn has_context(&self, vm: VmId, context: ContextId) -> bool {
        self.shared.lock().vm(vm).is_some_and(|vm| vm.contexts.contains_key(&context))
    }

    async fn tick(&mut self, vm: VmId, root: ContextId, arming: Arming) {
        if self.root(vm, root, |root| root.timer.is_due(arming)) != Some(true) {
            return;
        }
        {
            let mut shared = self.shared.lock();
            let late = shared.thread_mut(self.id).ticks_late_until - shared.clock.now;
            if !late.is_zero() {
                shared.later(late, Timer::Job(self.id, Job::Tick(vm, root, arming)));
                return;
            }
        }
        // A failed VM's timer ends here; nobody would see it.
        if self.root_callback(vm, root, Callback::Tick, [root.0, 0, 0, 0, 0]).await.is_err() {
            return;
        }
        // Armed again after the handler has ended, whatever it has set: the period is the setting and the handler's time
        // (Wasm::tickHandler; PLATFORM 1.5, row "tick").
        self.shared.lock().arm_ticks(vm, root);
    }

    fn root<T>(&self, vm: VmId, root: ContextId, read: impl FnOnce(&Root) -> T) -> Option<T> {
        self.shared.lock().vm(vm)?.root(root).map(read)
    }

    /// `proxy_done` was called: the root context ends now (finishShutdown).
    async fn finish_shutdown(&mut self, vm: VmId, root: ContextId) {
        if self.root(vm, root, |root| root.life) == Some(RootLife::PendingDelete) {
            self.delete_root(vm, root).await;
        }
    }

    async fn delete_root(&mut self, vm: VmId, root: ContextId) {
        // Nothing is asked of a VM that is dead.
        let _deleted = self.root_callback(vm, root, Callback::Delete, [root.0, 0, 0, 0, 0]).await;
        self.shared.lock().remove_context(vm, root);
        self.sweep_vms();
    }

    /// VMs without a root context or a stream are gone.
    fn sweep_vms(&mut self) {
        let mut shared = self.shared.lock();
        let empty: Vec<VmId> = self
            .vms
            .keys()
            .copied()
            .filter(|vm| shared.vm(*vm).is_none_or(|found| found.contexts.keys().all(|context| context.0 == 0)))
            .collect();
        for vm in empty {
            self.vms.remove(&vm);
            self.plugins.forget_vm(vm);
            shared.remove_vm(vm);
        }
    }

    /// SIGTERM: every root context hears of it; the process does not wait (PLATFORM 1.9).
    async fn stop(&mut self) {
        let roots: Vec<(VmId, ContextId)> = {
            let shared = self.shared.lock();
            let mine = |vm: &VmId| self.vms.contains_key(vm);
            shared
                .vms
                .iter()
                .filter(|(vm, _)| mine(vm))
                .flat_map(|(vm, found)| found.roots().map(|(id, _)| (*vm, id)))
                .collect()
        };
        for (vm, root) in roots {
            if self.root_callback(vm, root, Callback::Done, [root.0, 0, 0, 0, 0]).await.is_ok_and(|may_go| may_go != 0)
            {
                self.delete_root(vm, root).await;
            }
        }
        self.shared.lock().thread_mut(self.id).life = ThreadLife::HasStopped;
    }

    fn stream<T>(&self, stream: StreamId, read: impl FnOnce(&crate::stream::Stream) -> T) -> Option<T> {
        self.shared.lock().streams.get(&stream).map(read)
    }

    fn change<T>(&self, stream: StreamId, change: impl FnOnce(&mut crate::stream::Stream) -> T) -> Option<T> {
        self.shared.lock().streams.get_mut(&stream).map(change)
    }
}
