//! The core by itself: `cargo bench --locked -p redeliver-micro`. Native code on this machine; inside Envoy the same
//! runs as WebAssembly, so compare these figures with each other and with yesterday's, not with those of
//! `scripts/bench.sh`.

#![allow(missing_docs)] // each benchmark is named after what it does

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use redeliver_core::config::{self, Config, Intake, StoreLimits};
use redeliver_core::digest::LineKey;
use redeliver_core::glance::Glance;
use redeliver_core::headers::Envelope;
use redeliver_core::keys::Keys;
use redeliver_core::message;
use redeliver_core::protect::{RouteFacts, RouteSwitch, protection};
use redeliver_core::schedule::Schedule;
use redeliver_core::slot::{DestinationIndex, Epoch, Generation, Head, SlotIndex, SlotState, Spot, Ticket};
use redeliver_core::store::{FirstState, Limits, Now, Settlement, Store};
use redeliver_core::units::{ByteCount, ClusterName, Millis, Monotonic, Wall};
use redeliver_micro::{HostMap, message as sample, request};

fn main() {
    divan::main();
}

const SLOT: SlotIndex = SlotIndex(3);
const GENERATION: Generation = Generation(8);
const BODIES: [usize; 3] = [0, 1 << 10, 64 << 10];
const BACKLOGS: [u32; 2] = [1_000, 1_000_000];

mod record {
    use super::*;

    #[divan::bench(args = BODIES)]
    fn encode(bencher: Bencher, body: usize) {
        let message = sample(body);
        bencher.counter(BytesCount::new(body)).bench(|| black_box(&message).encode(SLOT, GENERATION));
    }

    #[divan::bench(args = BODIES)]
    fn decode(bencher: Bencher, body: usize) {
        let bytes = sample(body).encode(SLOT, GENERATION);
        bencher.counter(BytesCount::new(body)).bench(|| message::decode(black_box(&bytes), SLOT, GENERATION));
    }

    #[divan::bench]
    fn encode_head(bencher: Bencher) {
        let head = Head { attempts: 3, ..Head::free(GENERATION) }.with(SlotState::Queued { due: Monotonic(9) });
        bencher.bench(|| black_box(&head).encode(SLOT));
    }

    #[divan::bench]
    fn decode_head(bencher: Bencher) {
        let bytes = Head::free(GENERATION).with(SlotState::Queued { due: Monotonic(9) }).encode(SLOT);
        bencher.bench(|| Head::decode(black_box(&bytes), SLOT));
    }
}

mod request_path {
    use super::*;

    #[divan::bench]
    fn header_policy(bencher: Bencher) {
        let (headers, dropped) = (request(), ["authorization".to_owned(), "cookie".to_owned()]);
        bencher.bench(|| Envelope::capture(black_box(&headers), &dropped));
    }

    struct Route;

    impl RouteFacts for Route {
        fn cluster(&self) -> Option<ClusterName> {
            Some(ClusterName("orders".to_owned()))
        }

        fn switch(&self) -> RouteSwitch {
            RouteSwitch::Unset
        }
    }

    fn configured(text: &str) -> Config {
        config::parse(text.as_bytes()).expect("the sample configuration has no fault")
    }

    const RULES: [&str; 3] = [
        r#"{"match": {"path_prefixes": ["/orders"]}}"#,
        r#"{"match": {"path_prefixes": ["/a", "/b", "/c", "/orders"], "clusters": ["carts", "orders"]}}"#,
        r#"{"match": {"path_prefixes": ["/elsewhere"]}}"#,
    ];

    #[divan::bench(args = RULES)]
    fn match_rule(bencher: Bencher, rule: &str) {
        let (config, headers) = (configured(rule), request());
        bencher.bench(|| {
            let headers = black_box(&headers);
            protection(black_box(&config.matching), headers, &Glance::at(headers), &Route)
        });
    }

    #[divan::bench]
    fn read_configuration() -> Config {
        configured(black_box(
            r#"{"match": {"clusters": ["orders"]}, "destinations": {"orders": {"store": {"ttl": "1h"}}}}"#,
        ))
    }
}

mod slot_operations {
    use super::*;

    const PLACE: DestinationIndex = DestinationIndex(0);
    const EPOCH: Epoch = Epoch(1);
    const LIMITS: StoreLimits = StoreLimits {
        messages_max: u32::MAX,
        bytes_max: ByteCount(u64::MAX),
        ttl: Millis(u64::MAX),
        intake: Intake::Open,
    };
    const NOW: Now = Now { monotonic: Monotonic(1_000), wall: Wall(1_000) };

    fn put(store: &Store<'_>, message: &message::Message) -> Ticket {
        let first = FirstState::Queued(NOW.monotonic);
        store.place(message, PLACE, first, Limits::shared(&LIMITS), NOW).expect("the store has room").ticket
    }

    fn claim_and_settle(store: &Store<'_>, ticket: Ticket) {
        let claim = store.claim(ticket, EPOCH, Monotonic(2_000), LIMITS.ttl, NOW).expect("the message waits");
        store.settle(ticket, EPOCH, claim.large, Settlement::Delivered, NOW.wall).expect("the attempt is ours");
    }

    /// A store with so many messages in it.
    fn filled(memory: &HostMap, keys: &Keys, backlog: u32) {
        let (store, message) = (Store { memory, keys }, sample(256));
        for _ in 0..backlog {
            put(&store, &message);
        }
    }

    #[divan::bench(args = [0, 1_000, 100_000])]
    fn put_claim_and_settle(bencher: Bencher, backlog: u32) {
        let (memory, keys) = (HostMap::default(), Keys::of(b"redeliver"));
        filled(&memory, &keys, backlog);
        let (store, message) = (Store { memory: &memory, keys: &keys }, sample(1 << 10));
        bencher.bench_local(|| claim_and_settle(&store, put(&store, &message)));
    }

    #[divan::bench]
    fn read_head(bencher: Bencher) {
        let (memory, keys) = (HostMap::default(), Keys::of(b"redeliver"));
        filled(&memory, &keys, 1);
        let store = Store { memory: &memory, keys: &keys };
        bencher.bench_local(|| store.head(black_box(SlotIndex(0))));
    }
}

mod scheduler {
    use super::*;

    fn ticket(slot: u32) -> Ticket {
        Ticket { slot: SlotIndex(slot), generation: Generation(1) }
    }

    /// Due times are spread like those of a backlog with backoff: by a step that shares no factor with the count.
    fn due(slot: u32, backlog: u32) -> Monotonic {
        Monotonic(u64::from(slot) * 7_919 % u64::from(backlog))
    }

    fn filled(backlog: u32, spot: impl Fn(u32) -> Option<Spot>) -> Schedule {
        let mut schedule = Schedule::default();
        for slot in 0..backlog {
            schedule.wait(ticket(slot), due(slot, backlog), Wall(slot.into()), spot(slot));
        }
        schedule
    }

    /// What a leader does with a due message: finds it, sends it, and forgets it; it comes back behind all others, so
    /// that every turn meets another one.
    fn turn(schedule: &mut Schedule, last_due: &mut u64) {
        let found = schedule.due(Monotonic(u64::MAX)).expect("a message is due");
        schedule.out(found, Wall(found.slot.0.into()), None);
        schedule.forget(found);
        *last_due += 1;
        schedule.wait(found, Monotonic(*last_due), Wall(found.slot.0.into()), None);
    }

    #[divan::bench(args = BACKLOGS)]
    fn send_and_forget(bencher: Bencher, backlog: u32) {
        let (mut schedule, mut last_due) = (filled(backlog, |_| None), backlog.into());
        bencher.bench_local(|| turn(&mut schedule, &mut last_due));
    }

    #[divan::bench(args = BACKLOGS)]
    fn nothing_is_due(bencher: Bencher, backlog: u32) {
        let mut schedule = Schedule::default();
        for slot in 0..backlog {
            schedule.wait(ticket(slot), Monotonic(1 + u64::from(slot)), Wall(0), None);
        }
        bencher.bench_local(|| black_box(&schedule).due(Monotonic(0)));
    }

    #[divan::bench(args = BACKLOGS)]
    fn one_more_behind_its_line(bencher: Bencher, backlog: u32) {
        let spot = |slot: u32| Spot { line: LineKey(u64::from(slot % 100)), number: slot.into() };
        let mut schedule = filled(backlog, |slot| Some(spot(slot)));
        bencher.bench_local(|| {
            schedule.wait(ticket(backlog), Monotonic(0), Wall(0), Some(spot(backlog)));
            schedule.forget(ticket(backlog));
        });
    }
}
