//! The small shared cells, read back from shared memory: leadership, evidence, verdict, leases, the notice about buffers,
//! the rule, what VMs say of live traffic, and the table of destinations.
//!
//! Input: the bytes of a cell; its first byte says which reader is meant.

use crate::cell::{Exact, Format};
use redeliver_core::cells::{
    CaptureNotice, Evidence, Leadership, Lease, Observation, Rule, Verdict, decode_destinations, encode_destinations,
};
use redeliver_core::codec::{Damage, Seal};
use redeliver_core::live::LiveCell;
use redeliver_core::units::{ClusterName, Monotonic};
use std::fmt::Debug;

pub(super) fn target(bytes: &[u8]) {
    match bytes.first() {
        Some(b'D') => check(bytes, decode_destinations, |names: &Vec<ClusterName>| encode_destinations(names)),
        Some(b'L') => check(bytes, Leadership::decode, Leadership::encode),
        Some(b'E') => check(bytes, Evidence::decode, Evidence::encode),
        Some(b'V') => {
            check(bytes, Observation::decode, Observation::encode);
            check_observation(bytes);
        }
        Some(b'K') => check(bytes, Lease::decode, Lease::encode),
        Some(b'N') => check(bytes, CaptureNotice::decode, CaptureNotice::encode),
        Some(b'C') => check(bytes, Rule::decode, Rule::encode),
        Some(b'I') => check(bytes, LiveCell::decode, LiveCell::encode),
        Some(_) | None => {}
    }
}

fn check<T: PartialEq + Debug>(bytes: &[u8], decode: fn(&[u8]) -> Result<T, Damage>, encode: fn(&T) -> Vec<u8>) {
    Format::new(decode, encode, Exact::Always).check(bytes);
}

/// A verdict that is repeated keeps its start; another one begins now.
fn check_observation(bytes: &[u8]) {
    let sealed = crate::cell::sealed(bytes, Seal::NONE).unwrap_or_default();
    let Ok(before) = Observation::decode(&sealed) else { return };
    let now = Monotonic(before.seen_at.0.wrapping_add(1));
    for verdict in [Verdict::Healthy, Verdict::Unhealthy] {
        let after = Observation::following(Some(before), verdict, now);
        let since = if verdict == before.verdict { before.since } else { now };
        assert_eq!(after, Observation { verdict, since, seen_at: now });
    }
}
