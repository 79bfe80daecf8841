//! Header maps. Which map is there at a moment is [`crate::stream::Visible`]'s business.

use super::gate::{Answer, NOTHING};
use super::host_call;
use super::memory::{give, read, write_word};
use crate::abi::{MapType, Status, read_pairs, write_pairs};
use crate::http::Headers;
use crate::shared::Shared;
use crate::vm::Guest;
use wasmtime::{Caller, Linker, Result};

pub(super) fn link(linker: &mut Linker<Guest>) -> Result<()> {
    host_call!(
        linker,
        "proxy_get_header_map_pairs",
        GetMapPairs,
        NOTHING,
        |caller, _passed, map: u32, pairs_at: u32, size_at: u32| { Ok(get_pairs(caller, map, pairs_at, size_at)) }
    );
    host_call!(linker, "proxy_get_header_map_size", GetMapSize, NOTHING, |caller, _passed, map: u32, size_at: u32| Ok(
        get_size(caller, map, size_at)
    ));
    host_call!(
        linker,
        "proxy_set_header_map_pairs",
        SetMapPairs,
        NOTHING,
        |caller, _passed, map: u32, pairs: u32, size: u32| { Ok(set_pairs(caller, map, (pairs, size))) }
    );
    host_call!(
        linker,
        "proxy_get_header_map_value",
        GetMapValue,
        (name, size),
        |caller, _passed, map: u32, name: u32, size: u32, value_at: u32, size_at: u32| {
            Ok(get_value(caller, map, (name, size), value_at, size_at))
        }
    );
    host_call!(
        linker,
        "proxy_replace_header_map_value",
        ReplaceMapValue,
        (name, size),
        |caller, _passed, map: u32, name: u32, size: u32, value: u32, value_size: u32| {
            Ok(change(caller, map, (name, size), (value, value_size), |headers, name, value| {
                headers.replace(name, value)
            }))
        }
    );
    host_call!(
        linker,
        "proxy_add_header_map_value",
        AddMapValue,
        (name, size),
        |caller, _passed, map: u32, name: u32, size: u32, value: u32, value_size: u32| {
            Ok(change(caller, map, (name, size), (value, value_size), |headers, name, value| headers.add(name, value)))
        }
    );
    host_call!(
        linker,
        "proxy_remove_header_map_value",
        RemoveMapValue,
        (name, size),
        |caller, _passed, map: u32, name: u32, size: u32| {
            Ok(change(caller, map, (name, size), NOTHING, |headers, name, _| headers.remove(name)))
        }
    );
    Ok(())
}

/// A map that is not there reads as an empty one: no error (PLATFORM 1.4 item 5).
fn get_pairs(caller: &mut Caller<'_, Guest>, map: u32, pairs_at: u32, size_at: u32) -> Answer {
    let Some(map) = MapType::of(map) else { return Status::BadArgument.into() };
    let pairs = {
        let guest = caller.data();
        let shared = guest.shared.lock();
        shared.map(guest.vm, guest.speaker(), map).map(write_pairs).unwrap_or_default()
    };
    give(caller, &pairs, pairs_at, size_at)
}

/// The bytes of all names and values, not the number of pairs; of a call's answer it cannot be asked
/// (`reading::option_missing`, `dispatch::answered`).
fn get_size(caller: &mut Caller<'_, Guest>, map: u32, size_at: u32) -> Status {
    let size = {
        let guest = caller.data();
        let shared = guest.shared.lock();
        match MapType::of(map) {
            Some(MapType::CallHeaders | MapType::CallTrailers) | None => None,
            Some(map) => shared.map(guest.vm, guest.speaker(), map).map(Headers::byte_count),
        }
    };
    match size {
        Some(size) => write_word(caller, size_at, u32::try_from(size).unwrap_or(u32::MAX)),
        None => Status::BadArgument,
    }
}

fn set_pairs(caller: &mut Caller<'_, Guest>, map: u32, pairs: (u32, u32)) -> Status {
    let Some(map) = MapType::of(map) else { return Status::BadArgument };
    let Some(pairs) = read(caller, pairs) else { return Status::InvalidMemoryAccess };
    with_map(caller, map, |headers| *headers = read_pairs(&pairs))
}

fn get_value(caller: &mut Caller<'_, Guest>, map: u32, name: (u32, u32), value_at: u32, size_at: u32) -> Answer {
    let Some(map) = MapType::of(map) else { return Status::BadArgument.into() };
    let Some(name) = read_name(caller, name) else { return Status::InvalidMemoryAccess.into() };
    let found = {
        let guest = caller.data();
        let shared = guest.shared.lock();
        match shared.map(guest.vm, guest.speaker(), map) {
            Some(headers) => headers.first(&name).map(<[u8]>::to_vec).ok_or(Status::NotFound),
            // While the log is written, a map that is missing has no headers; otherwise it is the wrong phase.
            None if is_logging(&shared, guest) => Err(Status::NotFound),
            None => Err(Status::BadArgument),
        }
    };
    match found {
        Ok(value) => give(caller, &value, value_at, size_at),
        Err(status) => status.into(),
    }
}

fn is_logging(shared: &Shared, guest: &Guest) -> bool {
    let stream = shared.stream_of(guest.vm, guest.speaker());
    stream.and_then(|stream| shared.streams.get(&stream)).is_some_and(|stream| stream.visible.log)
}

fn change(
    caller: &mut Caller<'_, Guest>,
    map: u32,
    name: (u32, u32),
    value: (u32, u32),
    apply: impl FnOnce(&mut Headers, &str, Vec<u8>),
) -> Status {
    let Some(map) = MapType::of(map) else { return Status::BadArgument };
    let (Some(name), Some(value)) = (read_name(caller, name), read(caller, value)) else {
        return Status::InvalidMemoryAccess;
    };
    with_map(caller, map, |headers| apply(headers, &name, value))
}

fn with_map(caller: &mut Caller<'_, Guest>, map: MapType, apply: impl FnOnce(&mut Headers)) -> Status {
    let guest = caller.data();
    let mut shared = guest.shared.lock();
    match shared.map_mut(guest.vm, guest.speaker(), map) {
        Some(headers) => {
            apply(headers);
            Status::Ok
        }
        None => Status::BadArgument,
    }
}

/// Envoy lowers every name (LowerCaseString).
fn read_name(caller: &mut Caller<'_, Guest>, name: (u32, u32)) -> Option<String> {
    read(caller, name).map(|name| String::from_utf8_lossy(&name).to_ascii_lowercase())
}
