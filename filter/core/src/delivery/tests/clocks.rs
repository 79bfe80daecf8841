//! What a wall clock that jumps costs: nothing but what goes by the wall clock on purpose.
//!
//! | goes by | | a jump ahead | a jump back |
//! | --- | --- | --- | --- |
//! | the monotonic clock | leases, backoff, states, rate, attempts' deadlines | nothing | nothing |
//! | the wall clock | `store.ttl`, `dead_letter.ttl` | what is older by then ends | what is stored is kept for as much longer |
//! | the wall clock | the time that a message was parked | nothing: it does not count | nothing |
//! | both | a date in `Retry-After`: a wait from the moment of the answer on, up to `backoff.max` | it is past: ours | at most the cap |

use super::*;
use crate::config::Config;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const HOUR: i64 = 3_600_000;
const TEN_YEARS: i64 = 10 * 365 * 24 * HOUR;
const JUMPS: [(&str, i64); 4] =
    [("an hour ahead", HOUR), ("an hour back", -HOUR), ("ten years ahead", TEN_YEARS), ("ten years back", -TEN_YEARS)];

/// Messages that never grow too old: then nothing at all may go by the wall clock.
fn ageless(settings: &str) -> Config {
    let mut config = config(settings);
    Rc::make_mut(&mut config.shared).store.ttl = Millis(u64::MAX);
    config
}

/// All that a receiver sees of an outage, a hand-over to another leader, and failures with their backoff, while the wall
/// clock jumps again and again.
fn attempts_of_a_troubled_minute(jump: i64) -> Vec<(u64, usize, u32, u16)> {
    let settings = PLAIN.replace("{\"window\"", "{\"rate\": 5, \"window\"");
    let mut world = World::new(3, &ageless(&settings));
    world.receiver(|asked| match (asked.at, asked.number % 5) {
        (0..10_000, _) => (REFUSED, 20),
        (10_000..40_000, 0) => (Answers::Status(500), 300),
        (10_000..20_000, _) => (Answers::Never, 0),
        (_, _) => (Answers::Status(200), 300),
    });
    world.store(1, "orders", 1..21);
    for second in 0..90 {
        world.pass(1_000);
        if second % 7 == 3 {
            world.wall_ahead += if world.wall_ahead == 0 { jump } else { -jump };
        }
        if second == 30 {
            let leader = world.leaders("orders")[0];
            world.kill(leader);
        }
    }
    world.check_books();
    assert_eq!((world.queued(), world.dead()), (0, 0), "{jump}{}", world.state());
    world.asked.iter().map(|asked| (asked.at, asked.vm, asked.number, asked.attempt)).collect()
}

#[test]
fn leases_backoff_rate_and_states_know_nothing_of_the_wall_clock() {
    let untroubled = attempts_of_a_troubled_minute(0);
    assert!(untroubled.len() > 30, "{untroubled:?}");
    for (name, jump) in JUMPS {
        assert_eq!(attempts_of_a_troubled_minute(jump), untroubled, "{name}");
    }
}

#[test]
fn what_is_stored_and_what_is_dead_ends_by_the_wall_clock() {
    // The two limits, and what is left after each jump of one waiting message and one dead letter.
    let cases = [("24h", "168h", [(1, 1), (1, 1), (0, 1), (1, 1)]), ("30m", "30m", [(0, 1), (1, 1), (0, 1), (1, 1)])];
    for (ttl, dead_ttl, left) in cases {
        for ((name, jump), (queued, dead)) in JUMPS.into_iter().zip(left) {
            let settings = format!(
                r#"{{"match": {{"clusters": ["orders"]}}, "store": {{"ttl": "{ttl}"}}, "dead_letter": {{"ttl": "{dead_ttl}"}},
                    "redelivery": {{"backoff": {{"initial": "100s", "max": "100s"}}}}}}"#
            );
            let mut world = World::new(2, &config(&settings));
            world.receiver(|asked| (Answers::Status(if asked.number == 1 { 400 } else { 503 }), 20));
            world.store(1, "orders", 1..3);
            world.pass_until(150_000, |world| world.dead() == 1 && world.asked.len() > 1);
            world.wall_ahead += jump;
            world.pass(5_000);
            // What expired is a dead letter of this moment, so it is still there.
            assert_eq!((world.queued(), world.dead()), (queued, dead), "{name}, {ttl}{}", world.state());
            let ended = (world.counter(Counter::Expired), world.counter(Counter::DeadExpired));
            assert_eq!(ended, (1 - queued, 1 + (1 - queued) - dead), "{name}, {ttl}{}", world.state());
            world.check_books();
            // Back where it was: what has not ended is as old as ever.
            world.wall_ahead -= jump;
            world.pass(5_000);
            assert_eq!((world.queued(), world.dead()), (queued, dead), "{name} and back, {ttl}{}", world.state());
        }
    }
}

#[test]
fn a_message_that_was_parked_while_the_clock_jumped_is_no_older() {
    for (name, jump) in JUMPS {
        let parking = |tries: u32| {
            config(&format!(
                r#"{{"match": {{"clusters": ["orders"]}}, "store": {{"ttl": "60s"}},
                    "redelivery": {{"on_unauthorized": "park", "max_attempts": {tries}}}}}"#
            ))
        };
        let mut world = World::new(2, &parking(5));
        world.receiver(|asked| (Answers::Status(if asked.at < 20_000 { 401 } else { 200 }), 20));
        world.store(1, "orders", 1..2);
        world.pass(15_000);
        world.wall_ahead += jump;
        world.pass(15_000);
        assert_eq!((world.queued(), world.dead()), (1, 0), "{name}{}", world.state());
        let mended = world.start(&parking(6), 2);
        world.vms[mended].delivery.saw_stream();
        world.pass(20_000);
        world.check_delivered_once(1..2);
        world.check_books();
    }
}

/// How long a message waits whose receiver asks for half a minute, by a date of the true clock. The jump is before its
/// answer or after it.
fn wait_for_a_date(before: i64, after: i64) -> u64 {
    let settings = PLAIN.replace("{\"window\"", "{\"backoff\": {\"initial\": \"2s\", \"max\": \"60s\"}, \"window\"");
    let mut world = World::new(1, &ageless(&settings));
    world.wall_ahead = before;
    // The true clock of the world says 22:13:20 at its start; the answer comes some seconds later.
    let asks = Answers::RetryAfter(503, "Tue, 14 Nov 2023 22:13:55 GMT");
    world.receiver(move |asked| (if asked.attempt == 1 { asks } else { Answers::Status(200) }, 0));
    world.store(1, "orders", 1..2);
    world.pass_until(10_000, |world| !world.asked.is_empty());
    world.pass(1_000);
    world.wall_ahead += after;
    world.pass_until(100_000, |world| world.queued() == 0);
    world.asked[1].at - world.asked[0].at
}

#[test]
fn a_date_in_retry_after_is_read_at_once_and_no_jump_makes_it_longer_than_the_cap() {
    // Theirs, ours, and the cap, with a fifth of jitter, a step and a tick.
    let (theirs, ours, cap) = (30_000..=42_300, 1_600..=2_700, 60_000..=72_300);
    assert!(theirs.contains(&wait_for_a_date(0, 0)), "{}", wait_for_a_date(0, 0));
    // An hour back it is an hour away; ten years back it is more than a year away, which nobody can mean.
    let before = [ours.clone(), cap, ours.clone(), ours];
    for ((name, jump), expected) in JUMPS.into_iter().zip(before) {
        let waited = wait_for_a_date(jump, 0);
        assert!(expected.contains(&waited), "{name} before the answer: {waited} ms");
        let waited = wait_for_a_date(0, jump);
        assert!(theirs.contains(&waited), "{name} after the answer: {waited} ms");
    }
}
