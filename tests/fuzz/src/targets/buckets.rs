//! The memory of idempotency keys and the ends of lines, read back from shared memory.
//!
//! Input: the bytes of a bucket, of either kind. Key and line are taken from its first entry, so that it is met. No slot
//! was ever written, so an entry of a stored message is stale and must not be believed; one of a delivery may be.

use crate::cell::sealed;
use crate::memory::Memory;
use redeliver_core::codec::Seal;
use redeliver_core::config::{OnDeadHead, StoreLimits, parse};
use redeliver_core::digest::{Content, Fingerprint, Identity, LineKey};
use redeliver_core::duplicates::{Known, Recall};
use redeliver_core::headers::{Envelope, HeaderList};
use redeliver_core::keys::{Bucket, Keys};
use redeliver_core::lines::Line;
use redeliver_core::message::{Message, MessageId, Ties};
use redeliver_core::neighbours::Hops;
use redeliver_core::slot::DestinationIndex;
use redeliver_core::store::{FirstState, Limits, Now, PutError, Store};
use redeliver_core::units::{ClusterName, Monotonic, Wall};

/// Where the first entry of a bucket of keys has its identity, and that of a bucket of lines its line.
const IDENTITY_AT: usize = 6 + 2;
const LINE_AT: usize = 6 + 8 + 2;
const NOW: Now = Now { monotonic: Monotonic(1_000), wall: Wall(5_000_000) };

pub(super) fn target(bytes: &[u8]) {
    check(bytes);
    if let Some(sealed) = sealed(bytes, Seal::NONE) {
        check(&sealed);
    }
}

fn check(bytes: &[u8]) {
    let identity = Identity(chunk(bytes, IDENTITY_AT));
    let line = LineKey(u64::from_le_bytes(chunk(bytes, LINE_AT)));
    let keys = Keys::of(b"fuzz");
    let memory = Memory::default();
    memory.put(&keys.duplicates(bucket(&identity.0)), bytes);
    memory.put(&keys.lines(bucket(&line.0.to_le_bytes())), bytes);
    let store = Store { memory: &memory, keys: &keys };
    let recall = store.recall(identity, NOW);
    assert_eq!(
        store.line(line, OnDeadHead::Block, NOW.monotonic),
        Line::Empty,
        "a slot that nobody wrote is waited for"
    );
    let content = Content([9; 16]);
    let message = message(Ties { fingerprint: Some(Fingerprint { identity, content }), line: Some(line) });
    let first = FirstState::Queued(NOW.monotonic);
    let placed = store.place(&message, DestinationIndex(0), first, Limits::shared(&limits()), NOW);
    let put = placed.map(|placed| placed.ticket);
    match recall {
        Recall::New => {
            assert!(put.is_ok(), "{put:?}");
            let held = put.ok();
            assert_eq!(store.recall(identity, NOW), Recall::Known(Known { id: message.id, content, held }));
            assert_eq!(store.line(line, OnDeadHead::Release, NOW.monotonic), Line::Waiting);
        }
        Recall::Known(known) => assert_eq!(put, Err(PutError::Known(known)), "delivered not long ago"),
        Recall::BeingStored => panic!("nobody stores anything"),
    }
}

fn chunk<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; N])
}

fn bucket(digest: &[u8]) -> Bucket {
    Bucket::of(chunk(digest, 0))
}

fn limits() -> StoreLimits {
    parse(b"{}").expect("the defaults").shared.store.clone()
}

fn message(ties: Ties) -> Message {
    let text = |text: &str| text.as_bytes().to_vec();
    let arrived = Envelope {
        method: text("POST"),
        scheme: text("http"),
        authority: text("orders"),
        path: text("/"),
        fields: HeaderList::default(),
    };
    let cluster = ClusterName("orders".to_owned());
    Message { id: MessageId([3; 16]), hops: Hops::FIRST, cluster, arrived, routed: None, body: Vec::new(), ties }
}
