//! Shared data and shared queues (PLATFORM 1.1 and 1.2).

use super::gate::{Answer, NOTHING, Passed, Span};
use super::host_call;
use super::memory::{Places, both, give, read, slice, write_word};
use crate::abi::Status;
use crate::jobs::Job;
use crate::memory::Registrant;
use crate::trace::Kind;
use crate::vm::Guest;
use wasmtime::{Caller, Linker, Result};

pub(super) fn link(linker: &mut Linker<Guest>) -> Result<()> {
    host_call!(
        linker,
        "proxy_get_shared_data",
        GetSharedData,
        (key, size),
        |caller, _passed, key: u32, size: u32, value_at: u32, size_at: u32, cas_at: u32| {
            Ok(get(caller, (key, size), (value_at, size_at, cas_at)))
        }
    );
    host_call!(
        linker,
        "proxy_set_shared_data",
        SetSharedData,
        (key, size),
        |caller, passed, key: u32, size: u32, value: u32, value_size: u32, cas: u32| {
            Ok(set(caller, passed, (key, size), (value, value_size), cas))
        }
    );
    host_call!(
        linker,
        "proxy_register_shared_queue",
        RegisterQueue,
        (name, size),
        |caller, _passed, name: u32, size: u32, token_at: u32| { Ok(register(caller, (name, size), token_at)) }
    );
    host_call!(
        linker,
        "proxy_resolve_shared_queue",
        ResolveQueue,
        (name, size),
        |caller, _passed, vm_id: u32, vm_id_size: u32, name: u32, size: u32, token_at: u32| {
            Ok(resolve(caller, (vm_id, vm_id_size), (name, size), token_at))
        }
    );
    host_call!(
        linker,
        "proxy_enqueue_shared_queue",
        EnqueueQueue,
        NOTHING,
        |caller, passed, token: u32, item: u32, size: u32| { Ok(enqueue(caller, passed, token, (item, size))) }
    );
    host_call!(
        linker,
        "proxy_dequeue_shared_queue",
        DequeueQueue,
        NOTHING,
        |caller, passed, token: u32, item_at: u32, size_at: u32| {
            Ok(dequeue(caller, passed, token, item_at, size_at))
        }
    );
    Ok(())
}

fn get(caller: &mut Caller<'_, Guest>, key: Span, (pointer_at, length_at, cas_at): (u32, u32, u32)) -> Answer {
    let Some((memory, guest)) = both(caller) else { return Status::InvalidMemoryAccess.into() };
    let Some(key) = slice(memory, key) else { return Status::InvalidMemoryAccess.into() };
    let shared = guest.shared.lock();
    let found = shared.vm(guest.vm).and_then(|vm| shared.data.get_in(vm.space, key));
    let Some(value) = found else { return Status::NotFound.into() };
    let places = Places { pointer_at, length_at, word: Some((cas_at, value.cas)) };
    guest.parcel.send(memory, &value.bytes, places)
}

fn set(caller: &mut Caller<'_, Guest>, passed: Passed, key: Span, value: Span, cas: u32) -> Status {
    let Some((memory, guest)) = both(caller) else { return Status::InvalidMemoryAccess };
    let (Some(key), Some(value)) = (slice(memory, key), slice(memory, value)) else {
        return Status::InvalidMemoryAccess;
    };
    let shared = &mut *guest.shared.lock();
    let Some(space) = shared.vm(guest.vm).map(|vm| vm.space) else { return Status::InternalFailure };
    let now = shared.clock.now;
    shared.trace.feed(Kind::SharedValue, now, [u64::from(cas), 0, 0], value);
    if passed == Passed::IntoConflict && cas != 0 {
        // As if another VM had just written what was there.
        shared.data.rewrite_in(space, key);
    }
    shared.data.set_in(space, key, value, cas)
}

fn register(caller: &mut Caller<'_, Guest>, name: (u32, u32), token_at: u32) -> Status {
    let Some(name) = read(caller, name) else { return Status::InvalidMemoryAccess };
    let token = {
        let guest = caller.data();
        let shared = &mut *guest.shared.lock();
        let Some(vm) = shared.vms.get(&guest.vm) else { return Status::InternalFailure };
        // A stream registers for its root context: that is where the notification goes.
        let registrant = Registrant { vm: guest.vm, root: vm.root_of(guest.speaker()) };
        shared.queues.register(&vm.vm_id, &name, registrant)
    };
    write_word(caller, token_at, token)
}

fn resolve(caller: &mut Caller<'_, Guest>, vm_id: (u32, u32), name: (u32, u32), token_at: u32) -> Status {
    let (Some(vm_id), Some(name)) = (read(caller, vm_id), read(caller, name)) else {
        return Status::InvalidMemoryAccess;
    };
    let token = {
        let guest = caller.data();
        let shared = guest.shared.lock();
        let own = shared.vm(guest.vm).map(|vm| vm.vm_id.clone()).unwrap_or_default();
        let vm_id = if vm_id.is_empty() { own } else { String::from_utf8_lossy(&vm_id).into_owned() };
        shared.queues.resolve(&vm_id, &name)
    };
    match token {
        Some(token) => write_word(caller, token_at, token),
        None => Status::NotFound,
    }
}

fn enqueue(caller: &mut Caller<'_, Guest>, passed: Passed, token: u32, item: (u32, u32)) -> Status {
    let Some(item) = read(caller, item) else { return Status::InvalidMemoryAccess };
    let guest = caller.data();
    let mut shared = guest.shared.lock();
    if passed == Passed::IntoLoss {
        return if shared.queues.knows(token) { Status::Ok } else { Status::NotFound };
    }
    let Some(registrant) = shared.queues.enqueue(token, &item) else { return Status::NotFound };
    // A VM that is gone is not told (PLATFORM 1.2).
    if let Some(thread) = shared.vm(registrant.vm).filter(|vm| !vm.has_failed).map(|vm| vm.thread) {
        shared.post(thread, Job::QueueReady(registrant.vm, registrant.root, token));
    }
    Status::Ok
}

fn dequeue(caller: &mut Caller<'_, Guest>, passed: Passed, token: u32, item_at: u32, size_at: u32) -> Answer {
    let taken = caller.data().shared.lock().queues.dequeue(token);
    match taken {
        Ok(_) if passed == Passed::IntoLoss => Status::Empty.into(),
        Ok(item) => give(caller, &item, item_at, size_at),
        Err(status) => status.into(),
    }
}
