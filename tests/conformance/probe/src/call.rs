//! Host calls that need arguments put together or results taken apart: serialised header maps, handles, encoded targets.

use crate::bytes::shown;
use crate::host;
use crate::script::{Cas, Headers, Service};
use crate::vm;

/// Header pairs as the ABI wants them: count, then the sizes, then names and values, each with a zero behind it.
pub fn encoded(headers: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let size = |bytes: &[u8]| (bytes.len() as u32).to_le_bytes();
    let mut bytes = (headers.len() as u32).to_le_bytes().to_vec();
    for (name, value) in headers {
        bytes.extend(size(name));
        bytes.extend(size(value));
    }
    for (name, value) in headers {
        bytes.extend_from_slice(name);
        bytes.push(0);
        bytes.extend_from_slice(value);
        bytes.push(0);
    }
    bytes
}

/// Plain pairs of a script's headers.
pub fn plain(headers: &Headers) -> Vec<(Vec<u8>, Vec<u8>)> {
    headers.iter().map(|(name, value)| (name.0.clone(), value.0.clone())).collect()
}

/// A serialised map as a trace shows it; bytes that are no map are shown as bytes.
pub fn shown_pairs(bytes: &[u8]) -> String {
    match decoded(bytes) {
        Some(pairs) => {
            let pairs = pairs.iter().map(|(name, value)| format!("{} {}", name.escape_ascii(), shown(value)));
            format!("[{}]", pairs.collect::<Vec<_>>().join(", "))
        }
        None => format!("no map: {}", shown(bytes)),
    }
}

fn decoded(bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let word = |at: usize| {
        let word = bytes.get(at..at.checked_add(4)?)?;
        Some(u32::from_le_bytes(word.try_into().ok()?) as usize)
    };
    let count = word(0)?;
    let mut at = count.checked_mul(8)?.checked_add(4)?;
    let mut take = |size: usize| {
        let taken = bytes.get(at..at.checked_add(size)?)?;
        at += size + 1;
        Some(taken)
    };
    (0..count).map(|pair| Some((take(word(4 + pair * 8)?)?, take(word(8 + pair * 8)?)?))).collect()
}

/// A property's path as the ABI wants it.
pub fn path(parts: &[String]) -> Vec<u8> {
    parts.join("\0").into_bytes()
}

/// The number of a comparison.
pub fn cas(cas: Cas, key: &[u8]) -> u32 {
    match cas {
        Cas::Any => 0,
        Cas::Last => vm::last_cas(key),
        Cas::NeverIssued => u32::MAX,
        Cas::Literal(number) => number,
    }
}

/// What the host gets as the target of a gRPC call: `0A n+2 0A n name` is GrpcService.envoy_grpc.cluster_name.
pub fn service(service: &Service) -> Vec<u8> {
    match service {
        Service::Raw(bytes) => bytes.0.clone(),
        Service::Encoded(name) => {
            let size = name.len() as u8;
            [&[0x0a, size + 2, 0x0a, size], name.as_bytes()].concat()
        }
    }
}

/// Whether the wall clock moves between two looks.
pub fn clock() -> String {
    let (first_status, first) = host::current_time();
    let (status, second) = host::current_time();
    let moved = match second.cmp(&first) {
        std::cmp::Ordering::Less => "went back",
        std::cmp::Ordering::Equal | std::cmp::Ordering::Greater => "does not go back",
    };
    let year_2020 = 1_577_836_800_000_000_000;
    let epoch = if first > year_2020 { "wall time" } else { "not wall time" };
    format!("-> {first_status}, {status} {epoch}, {moved}")
}
