//! Metrics.

use super::gate::NOTHING;
use super::host_call;
use super::memory::{read, write, write_word};
use crate::abi::Status;
use crate::metrics::{MetricIds, Metrics};
use crate::vm::Guest;
use wasmtime::{Caller, Linker, Result};

pub(super) fn link(linker: &mut Linker<Guest>) -> Result<()> {
    host_call!(
        linker,
        "proxy_define_metric",
        DefineMetric,
        (name, size),
        |caller, _passed, kind: u32, name: u32, size: u32, id_at: u32| {
            Ok(define(caller, kind, (name, size), id_at))
        }
    );
    host_call!(linker, "proxy_increment_metric", IncrementMetric, NOTHING, |caller, _passed, id: u32, by: u64| {
        Ok(with(caller, |metrics, ids| metrics.increment(ids, id, by.cast_signed())))
    });
    host_call!(linker, "proxy_record_metric", RecordMetric, NOTHING, |caller, _passed, id: u32, value: u64| {
        Ok(with(caller, |metrics, ids| metrics.record(ids, id, value)))
    });
    host_call!(linker, "proxy_get_metric", GetMetric, NOTHING, |caller, _passed, id: u32, value_at: u32| {
        Ok(get(caller, id, value_at))
    });
    Ok(())
}

fn with(caller: &mut Caller<'_, Guest>, change: impl FnOnce(&mut Metrics, &mut MetricIds) -> Status) -> Status {
    let guest = caller.data();
    let shared = &mut *guest.shared.lock();
    match shared.vms.get_mut(&guest.vm) {
        Some(vm) => change(&mut shared.metrics, &mut vm.metric_ids),
        None => Status::InternalFailure,
    }
}

fn define(caller: &mut Caller<'_, Guest>, kind: u32, name: (u32, u32), id_at: u32) -> Status {
    let Some(name) = read(caller, name) else { return Status::InvalidMemoryAccess };
    let name = String::from_utf8_lossy(&name).into_owned();
    let mut defined = Err(Status::InternalFailure);
    with(caller, |metrics, ids| {
        defined = metrics.define(ids, kind, &name);
        Status::Ok
    });
    match defined {
        Ok(id) => write_word(caller, id_at, id),
        Err(status) => status,
    }
}

fn get(caller: &mut Caller<'_, Guest>, id: u32, value_at: u32) -> Status {
    let mut value = 0;
    let status = with(caller, |metrics, ids| match metrics.read(ids, id) {
        Ok(found) => {
            value = found;
            Status::Ok
        }
        Err(status) => status,
    });
    if status == Status::Ok { write(caller, value_at, &value.to_le_bytes()) } else { status }
}
