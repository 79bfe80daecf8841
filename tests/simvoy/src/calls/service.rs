//! Whom a gRPC call is for: the bytes that a guest passes are a GrpcService message or, if they are none, a cluster's name
//! (PLATFORM 1.7 and 1.0 H1; cases `grpc::bare_etcd1_aborts`, `grpc::bare_name`, `grpc::encoded_short_name`).
//!
//! Knows as much of protobuf as that takes: fields, varints, lengths.

/// What the bytes of a gRPC service say when Envoy parses them as a GrpcService message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    Cluster(String),
    /// `google_grpc`: Envoy would use another client, which knows no clusters.
    Google,
    /// A message, with nothing in the oneof.
    Unset,
    /// No message: taken as a cluster's name.
    Unparsable,
}

pub(super) fn target(bytes: &[u8]) -> Target {
    let mut found = Target::Unset;
    let mut rest = bytes;
    while !rest.is_empty() {
        let Some((field, kind, value, after)) = next_field(rest) else { return Target::Unparsable };
        // The last of several wins, as in any oneof.
        match (field, kind) {
            (1, 2) => match cluster_name(value) {
                Some(name) => found = Target::Cluster(name),
                None => return Target::Unparsable,
            },
            (2, 2) => found = Target::Google,
            _ => {}
        }
        rest = after;
    }
    found
}

/// `envoy_grpc.cluster_name`: field 1 of the inner message.
fn cluster_name(bytes: &[u8]) -> Option<String> {
    let mut name = String::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (field, kind, value, after) = next_field(rest)?;
        if (field, kind) == (1, 2) {
            name = std::str::from_utf8(value).ok()?.to_owned();
        }
        rest = after;
    }
    Some(name)
}

type Field<'a> = (u64, u64, &'a [u8], &'a [u8]);

/// One field of a protobuf message: number, wire type, its bytes if it has a length, and what follows.
fn next_field(bytes: &[u8]) -> Option<Field<'_>> {
    let (tag, rest) = varint(bytes)?;
    let (field, kind) = (tag >> 3, tag & 7);
    if field == 0 {
        return None;
    }
    let length = match kind {
        0 => {
            let (_, after) = varint(rest)?;
            return Some((field, kind, &[], after));
        }
        1 => 8,
        5 => 4,
        2 => {
            let (length, after) = varint(rest)?;
            let (value, after) = after.split_at_checked(usize::try_from(length).ok()?)?;
            return Some((field, kind, value, after));
        }
        _ => return None,
    };
    let (value, after) = rest.split_at_checked(length)?;
    Some((field, kind, value, after))
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (place, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f).checked_shl(u32::try_from(place).ok()? * 7)?;
        if byte & 0x80 == 0 {
            return Some((value, &bytes[place + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_that_parses_has_no_target_as_measured() {
        for name in ["etcd1", "pg", "users", "mysql", ""] {
            assert_eq!(target(name.as_bytes()), Target::Unset, "{name}");
        }
        for name in ["etcd", "etcd-0", "etcd_cluster", "up1"] {
            assert_eq!(target(name.as_bytes()), Target::Unparsable, "{name}");
        }
    }

    #[test]
    fn an_encoded_service_names_its_cluster() {
        let encoded = [&[0x0a, 7, 0x0a, 5], b"etcd1".as_slice()].concat();
        assert_eq!(target(&encoded), Target::Cluster("etcd1".to_owned()));
        let google = [&[0x12, 3, 0x0a, 1], b"a".as_slice()].concat();
        assert_eq!(target(&google), Target::Google, "another client is no missing target");
    }
}
