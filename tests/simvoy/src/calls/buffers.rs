//! Buffers: bodies, configurations, answers of calls.

use super::gate::{Answer, NOTHING};
use super::host_call;
use super::memory::{give, read, write_word};
use crate::abi::{BufferType, Status};
use crate::stream::Stream;
use crate::vm::Guest;
use wasmtime::{Caller, Linker, Result};

pub(super) fn link(linker: &mut Linker<Guest>) -> Result<()> {
    host_call!(
        linker,
        "proxy_get_buffer_bytes",
        GetBuffer,
        NOTHING,
        |caller, _passed, buffer: u32, start: u32, length: u32, bytes_at: u32, size_at: u32| {
            Ok(get(caller, buffer, (start, length), bytes_at, size_at))
        }
    );
    host_call!(
        linker,
        "proxy_get_buffer_status",
        GetBufferStatus,
        NOTHING,
        |caller, _passed, buffer: u32, length_at: u32, flags_at: u32| {
            Ok(get_status(caller, buffer, length_at, flags_at))
        }
    );
    host_call!(
        linker,
        "proxy_set_buffer_bytes",
        SetBuffer,
        NOTHING,
        |caller, _passed, buffer: u32, start: u32, length: u32, bytes: u32, size: u32| {
            Ok(set(caller, buffer, (start, length), (bytes, size)))
        }
    );
    Ok(())
}

/// A length beyond the end is cut; a start beyond it reads nothing (get_buffer_bytes in exports.cc).
fn get(
    caller: &mut Caller<'_, Guest>,
    buffer: u32,
    (start, length): (u32, u32),
    bytes_at: u32,
    size_at: u32,
) -> Answer {
    let Some(buffer) = BufferType::of(buffer) else { return Status::BadArgument.into() };
    let Some(bytes) = contents(caller.data(), buffer, start as usize, length as usize) else {
        return Status::NotFound.into();
    };
    give(caller, &bytes, bytes_at, size_at)
}

/// The length; flags are always 0 (get_buffer_status in exports.cc).
fn get_status(caller: &mut Caller<'_, Guest>, buffer: u32, length_at: u32, flags_at: u32) -> Status {
    let Some(buffer) = BufferType::of(buffer) else { return Status::BadArgument };
    let Some(bytes) = contents(caller.data(), buffer, 0, usize::MAX) else { return Status::NotFound };
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    match write_word(caller, length_at, length) {
        Status::Ok => write_word(caller, flags_at, 0),
        bad => bad,
    }
}

fn contents(guest: &Guest, buffer: BufferType, start: usize, length: usize) -> Option<Vec<u8>> {
    let cut = |bytes: &[u8]| {
        let end = start.saturating_add(length).min(bytes.len());
        bytes.get(start..end).unwrap_or_default().to_vec()
    };
    let shared = guest.shared.lock();
    let vm = shared.vm(guest.vm)?;
    let root = vm.root(vm.root_of(guest.speaker()));
    let stream = vm.stream_of(guest.speaker()).and_then(|stream| shared.streams.get(&stream));
    match buffer {
        BufferType::RequestBody => {
            let shown = |stream: &Stream| cut(if stream.is_buffering { &stream.buffered } else { &stream.piece });
            Some(stream.map(shown).unwrap_or_default())
        }
        BufferType::ResponseBody => {
            let shown = |stream: &Stream| {
                cut(if stream.is_response_buffering { &stream.response_buffered } else { &stream.response_piece })
            };
            Some(stream.map(shown).unwrap_or_default())
        }
        BufferType::CallBody => root?.answer.as_ref().map(|answer| cut(&answer.body)),
        BufferType::GrpcMessage => root.map(|root| cut(&root.grpc_message)),
        BufferType::VmConfiguration => Some(cut(&vm.vm_configuration)),
        BufferType::PluginConfiguration => guest.configuring.as_ref().map(|plugin| cut(&plugin.configuration)),
        BufferType::CallData => Some(Vec::new()),
        BufferType::Network => None,
    }
}

/// Only bodies can be changed: from the front, where `length` bytes go first, or behind the end (Buffer::copyFrom).
fn set(caller: &mut Caller<'_, Guest>, buffer: u32, (start, length): (u32, u32), bytes: (u32, u32)) -> Status {
    let Some(buffer) = BufferType::of(buffer) else { return Status::BadArgument };
    let Some(bytes) = read(caller, bytes) else { return Status::InvalidMemoryAccess };
    let guest = caller.data();
    let mut shared = guest.shared.lock();
    let stream = shared.stream_of(guest.vm, guest.speaker());
    let Some(stream) = stream.and_then(|stream| shared.streams.get_mut(&stream)) else { return Status::NotFound };
    let target = match buffer {
        BufferType::RequestBody if stream.is_buffering => &mut stream.buffered,
        BufferType::RequestBody => &mut stream.piece,
        BufferType::ResponseBody if stream.is_response_buffering => &mut stream.response_buffered,
        BufferType::ResponseBody => &mut stream.response_piece,
        BufferType::Network
        | BufferType::CallBody
        | BufferType::GrpcMessage
        | BufferType::VmConfiguration
        | BufferType::PluginConfiguration
        | BufferType::CallData => return Status::BadArgument,
    };
    let (start, length) = (start as usize, length as usize);
    if start == 0 {
        target.splice(0..length.min(target.len()), bytes);
    } else if start >= target.len() {
        target.extend_from_slice(&bytes);
    } else {
        return Status::BadArgument;
    }
    Status::Ok
}
