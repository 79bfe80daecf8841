//! Properties: what Envoy's attributes say about the plugin and about a stream.
//!
//! | path | when there |
//! | --- | --- |
//! | `plugin_name`, `plugin_root_id`, `plugin_vm_id` | always |
//! | `xds.cluster_name` | a route matched; it is the one that was chosen last |
//! | `xds.route_metadata.filter_metadata.<ns>.<key>` | the route has it |
//! | `request.*` | `total_size` always; what is read from the headers while the filter has them |
//! | `response.code`, `.flags`, `.code_details` | flags always, the others once they are known |
//! | `upstream.request_attempt_count` | always; 0 before the router |
//! | `upstream.address` | an attempt chose a host; here all hosts have one address |
//! | one part, none of these | the guest has set it |

use super::gate::Answer;
use super::host_call;
use super::memory::{give, read};
use crate::abi::Status;
use crate::route::Metadata;
use crate::shared::Shared;
use crate::stream::Stream;
use crate::vm::Guest;
use wasmtime::{Caller, Linker, Result};

pub(super) fn link(linker: &mut Linker<Guest>) -> Result<()> {
    host_call!(
        linker,
        "proxy_get_property",
        GetProperty,
        (path, size),
        |caller, _passed, path: u32, size: u32, value_at: u32, size_at: u32| {
            Ok(get(caller, (path, size), value_at, size_at))
        }
    );
    host_call!(
        linker,
        "proxy_set_property",
        SetProperty,
        (path, size),
        |caller, _passed, path: u32, size: u32, value: u32, value_size: u32| {
            Ok(set(caller, (path, size), (value, value_size)))
        }
    );
    Ok(())
}

fn get(caller: &mut Caller<'_, Guest>, path: (u32, u32), value_at: u32, size_at: u32) -> Answer {
    let Some(path) = read(caller, path) else { return Status::InvalidMemoryAccess.into() };
    if path.is_empty() {
        return Status::SerializationFailure.into();
    }
    let path = String::from_utf8_lossy(&path).into_owned();
    let parts: Vec<&str> = path.trim_end_matches('\0').split('\0').collect();
    let value = {
        let guest = caller.data();
        property(&guest.shared.lock(), guest, &parts)
    };
    match value {
        Some(value) => give(caller, &value, value_at, size_at),
        None => Status::NotFound.into(),
    }
}

/// A guest may set a property of its own on a stream. One with a path of several parts is taken and not found again, and
/// none stands before Envoy's own
/// (`reading::own_properties`).
fn set(caller: &mut Caller<'_, Guest>, path: (u32, u32), value: (u32, u32)) -> Status {
    let (Some(path), Some(value)) = (read(caller, path), read(caller, value)) else {
        return Status::InvalidMemoryAccess;
    };
    let name = String::from_utf8_lossy(&path).trim_end_matches('\0').to_owned();
    let guest = caller.data();
    let mut shared = guest.shared.lock();
    let stream = shared.stream_of(guest.vm, guest.speaker());
    match stream.and_then(|stream| shared.streams.get_mut(&stream)) {
        Some(stream) => {
            stream.properties.insert(name, value);
            Status::Ok
        }
        None => Status::NotFound,
    }
}

fn property(shared: &Shared, guest: &Guest, parts: &[&str]) -> Option<Vec<u8>> {
    let vm = shared.vm(guest.vm)?;
    let plugin = || guest.configuring.as_ref().or_else(|| Some(&vm.root(vm.root_of(guest.speaker()))?.plugin));
    let stream = || shared.streams.get(&vm.stream_of(guest.speaker())?);
    match parts {
        ["plugin_name"] => plugin().map(|plugin| plugin.name.clone().into_bytes()),
        ["plugin_root_id"] => plugin().map(|plugin| plugin.root_id.clone().into_bytes()),
        ["plugin_vm_id"] => Some(vm.vm_id.clone().into_bytes()),
        ["xds", rest @ ..] => xds(stream()?, rest),
        ["request", rest @ ..] => request(stream()?, rest),
        ["response", rest @ ..] => response(stream()?, rest),
        ["upstream", "request_attempt_count"] => Some(number(stream()?.info.attempts)),
        ["upstream", "address"] => stream()?.info.has_host.then(|| HOST.to_vec()),
        [own] => stream()?.properties.get(*own).cloned(),
        _ => None,
    }
}

/// The address of every host: nobody connects to it.
const HOST: &[u8] = b"127.0.0.1:1";

fn xds(stream: &Stream, parts: &[&str]) -> Option<Vec<u8>> {
    match parts {
        // Routes here have no names.
        ["route_name"] => stream.info.route.as_ref().map(|_| Vec::new()),
        ["cluster_name"] => stream.info.cluster.clone().map(String::into_bytes),
        ["route_metadata", "filter_metadata", path @ ..] => {
            Metadata::find(&stream.info.route.as_ref()?.metadata, path)?.bytes()
        }
        _ => None,
    }
}

fn request(stream: &Stream, parts: &[&str]) -> Option<Vec<u8>> {
    let header = |name: &str| {
        let is_there = stream.visible.shows_request_headers();
        stream.request.first(name).filter(|_| is_there).map(<[u8]>::to_vec)
    };
    match parts {
        ["total_size"] => Some(number(stream.total_size())),
        ["size"] => Some(number(stream.size())),
        ["path"] => header(":path"),
        ["url_path"] => header(":path").map(|path| split_at_query(&path).0.to_vec()),
        ["query"] => header(":path").map(|path| split_at_query(&path).1.to_vec()),
        ["protocol"] => Some(b"HTTP/1.1".to_vec()),
        ["method"] => header(":method"),
        ["host"] => header(":authority"),
        ["scheme"] => header(":scheme"),
        ["id"] => header("x-request-id"),
        ["headers", name] => header(name),
        _ => None,
    }
}

fn response(stream: &Stream, parts: &[&str]) -> Option<Vec<u8>> {
    match parts {
        ["flags"] => Some(number(stream.info.flags)),
        ["code"] => stream.info.code.map(|code| number(u64::from(code))),
        ["code_details"] => stream.info.details.clone().map(String::into_bytes),
        ["headers", name] => {
            let is_there = stream.visible.shows_response_headers();
            stream.response.headers.first(name).filter(|_| is_there).map(<[u8]>::to_vec)
        }
        _ => None,
    }
}

/// The path before the question mark, and what is behind it.
fn split_at_query(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().position(|byte| *byte == b'?') {
        Some(place) => (&path[..place], &path[place + 1..]),
        None => (path, &[]),
    }
}

/// Numbers are eight bytes, little-endian (serializeValue in context.cc).
fn number(value: u64) -> Vec<u8> {
    value.to_le_bytes().to_vec()
}
