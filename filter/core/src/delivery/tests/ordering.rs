//! Tests of `redelivery.order: by_key` over all of a process: leaders, answers, dead letters, lost hints, dying VMs.

use super::*;
use crate::digest::LineKey;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// Ordered, with the keyless numbers above 1,000.
const ORDERED: &str = r#"{"match": {"clusters": ["orders"]}, "capture": {"as": "arrived"},
    "redelivery": {"order": "by_key", "window": {"initial": 8, "max": 8}}}"#;

/// Three lines: by the number's remainder.
fn three_lines(number: u32) -> Option<LineKey> {
    (number <= 1_000).then(|| LineKey(u64::from(number % 3) + 1))
}

fn one_line(number: u32) -> Option<LineKey> {
    (number <= 1_000).then_some(LineKey(1))
}

fn world(workers: usize, settings: &str, line_of: fn(u32) -> Option<LineKey>) -> World {
    let mut world = World::new(workers, &config(settings));
    world.line_of = line_of;
    world
}

#[test]
fn each_key_is_delivered_in_order_from_whatever_worker_and_keyless_messages_do_not_wait() {
    let mut world = world(3, ORDERED, three_lines);
    // The first of line 1 fails for half a minute.
    world.receiver(|asked| (Answers::Status(if asked.number == 3 && asked.at < 30_000 { 500 } else { 200 }), 50));
    for number in 1..31 {
        let vm = 1 + usize::try_from(number % 7 % 3).unwrap();
        world.store(vm, "orders", number..number + 1);
        world.store(vm, "orders", number + 1_000..number + 1_001);
    }
    world.pass(10_000);
    let mut still_waiting: Vec<u32> = (1..31).filter(|number| !world.delivered.contains_key(number)).collect();
    assert!(still_waiting.iter().all(|number| number % 3 == 0) && still_waiting.len() == 10, "{still_waiting:?}");
    assert!((1_001..1_031).all(|number| world.delivered.contains_key(&number)), "{}", world.state());
    let tried: Vec<u32> = world.asked.iter().map(|asked| asked.number).filter(|number| number % 3 == 0).collect();
    assert!(tried.iter().filter(|number| **number <= 1_000).all(|number| *number == 3), "{tried:?}");
    world.pass_until(60_000, |world| world.queued() == 0);
    world.pass(1_000);
    still_waiting.sort_unstable();
    world.check_order("in the end");
    world.check_delivered_once(1..31);
    world.check_books();
}

#[test]
fn the_next_of_a_key_goes_out_with_its_predecessors_answer() {
    let mut world = world(2, ORDERED, one_line);
    world.receiver(|_| (Answers::Status(200), 20));
    world.store(1, "orders", 1..101);
    world.pass_until(3_000, |world| !world.asked.is_empty());
    let took = world.pass_until(10_000, |world| world.queued() == 0);
    assert!(took <= 100 * 20 + 200, "{took} ms for 100 messages, a tick is 100 ms{}", world.state());
    world.check_order("by answers");
    world.check_delivered_once(1..101);
}

#[test]
fn a_line_has_one_message_out_at_a_time() {
    let mut world = world(2, ORDERED, three_lines);
    world.receiver(|_| (Answers::Status(200), 500));
    world.store(1, "orders", 1..31);
    world.pass_until(30_000, |world| world.queued() == 0);
    for pair in world.asked.iter().filter(|asked| asked.number % 3 == 0).collect::<Vec<_>>().windows(2) {
        assert!(pair[1].at >= pair[0].at + 500, "{pair:?}");
    }
}

#[test]
fn a_dead_letter_releases_its_line_or_blocks_it_until_it_is_removed() {
    for (policy, delivered) in [("release", vec![2, 3]), ("block", vec![])] {
        let settings = ORDERED.replace("by_key\"", &format!("by_key\", \"on_dead_head\": \"{policy}\""));
        let settings = Config { dead_letter_ttl: Millis(20_000), ..config(&settings) };
        let mut world = World::new(2, &settings);
        world.line_of = one_line;
        world.receiver(|asked| (Answers::Status(if asked.number == 1 { 400 } else { 200 }), 20));
        world.store(1, "orders", 1..4);
        world.store(2, "orders", 1_001..1_003);
        world.pass(10_000);
        let arrived: Vec<u32> = world.arrivals.iter().copied().filter(|number| *number <= 1_000).collect();
        assert_eq!((arrived, world.dead()), (delivered, 1), "{policy}{}", world.state());
        assert_eq!(world.published("orders"), Some(PublishedState::Up), "what is held up is no backlog");
        // A new leader learns of the dead letter too.
        let leader = world.leaders("orders")[0];
        world.kill(leader);
        world.pass(8_000);
        assert_eq!(world.queued(), if policy == "block" { 2 } else { 0 }, "{policy}{}", world.state());
        world.pass(20_000);
        assert_eq!((world.queued(), world.dead()), (0, 0), "{policy}{}", world.state());
        world.check_order(policy);
        world.check_ledger();
    }
}

#[test]
fn a_parked_message_holds_its_line_up_until_another_configuration_rules() {
    for on_dead_head in ["release", "block"] {
        let parking = |tries: u32| {
            let more = format!(
                r#"by_key", "on_dead_head": "{on_dead_head}", "on_unauthorized": "park", "max_attempts": {tries}"#
            );
            config(&ORDERED.replace("by_key\"", &more))
        };
        let mut world = World::new(2, &parking(5));
        world.line_of = one_line;
        world.receiver(|asked| (Answers::Status(if asked.at < 30_000 && asked.number == 1 { 401 } else { 200 }), 20));
        world.store(1, "orders", 1..4);
        world.store(2, "orders", 1_001..1_003);
        world.pass(10_000);
        let others = vec![1_001, 1_002];
        let mut arrivals = world.arrivals.clone();
        arrivals.sort_unstable();
        assert_eq!((arrivals, world.queued(), world.dead()), (others, 3, 0), "{on_dead_head}{}", world.state());
        assert_eq!(world.published("orders"), Some(PublishedState::Up), "what is held up is no backlog");
        // A new leader of the same configuration holds it too.
        let leader = world.leaders("orders")[0];
        world.kill(leader);
        world.pass(25_000);
        assert_eq!(world.queued(), 3, "{on_dead_head}{}", world.state());
        let mended = world.start(&parking(6), 3);
        world.vms[mended].delivery.saw_stream();
        world.pass(20_000);
        assert_eq!((world.queued(), world.dead()), (0, 0), "{on_dead_head}{}", world.state());
        world.check_order(on_dead_head);
        world.check_delivered_once(1..4);
        world.check_delivered_once(1_001..1_003);
        world.check_books();
    }
}

#[test]
fn only_destinations_that_ask_for_order_have_it() {
    let settings = r#"{"match": {"clusters": ["orders", "mail"]}, "capture": {"as": "arrived"},
        "destinations": {"orders": {"redelivery": {"order": "by_key"}}}}"#;
    for (to, arrived, queued) in [("orders", vec![], 3), ("mail", vec![2, 3], 1)] {
        let mut world = world(2, settings, one_line);
        world.receiver(|asked| (Answers::Status(if asked.number == 1 { 500 } else { 200 }), 20));
        world.store(1, to, 1..4);
        world.pass(10_000);
        let mut arrivals = world.arrivals.clone();
        arrivals.sort_unstable();
        assert_eq!((arrivals, world.queued()), (arrived, queued), "{to}{}", world.state());
    }
}

#[test]
fn a_blocked_line_goes_on_when_somebody_else_removes_the_dead_letter() {
    let settings = ORDERED.replace("by_key\"", "by_key\", \"on_dead_head\": \"block\"");
    let mut world = world(2, &settings, one_line);
    world.receiver(|asked| (Answers::Status(if asked.number == 1 { 400 } else { 200 }), 20));
    world.store(1, "orders", 1..4);
    world.pass(5_000);
    assert_eq!((world.dead(), world.queued()), (1, 2), "{}", world.state());
    let keys = Keys::of(b"world");
    let store = Store { memory: &world.memory, keys: &keys };
    let ticket = Ticket { slot: SlotIndex(0), generation: Generation(1) };
    store.discard(ticket, |head| matches!(head.state, SlotState::Dead { .. })).unwrap();
    world.pass_until(1_000, |world| world.queued() == 0);
    assert_eq!(world.arrivals, [2, 3]);
}

/// Its place in the line is lost with its head, so not even `block` can be kept for it.
#[test]
fn a_line_goes_on_without_a_message_whose_head_was_damaged() {
    type Moment = fn(&World) -> bool;
    let waiting: Moment = |world| world.queued() == 4;
    let out: Moment = |world| world.asked.iter().any(|asked| asked.at >= 5_000);
    let cases = [(waiting, 0, vec![2, 3, 4]), (out, 0, vec![1, 2, 3, 4]), (waiting, 1, vec![1, 3, 4])];
    for policy in ["release", "block"] {
        for (nth, (moment, slot, delivered)) in cases.iter().enumerate() {
            let settings = ORDERED.replace("by_key\"", &format!("by_key\", \"on_dead_head\": \"{policy}\""));
            let mut world = world(2, &settings, one_line);
            world.receiver(|asked| if asked.at < 5_000 { (REFUSED, 5) } else { (Answers::Status(200), 1_000) });
            world.witness(1, "orders", Sign::NoHealthyHost);
            world.store(1, "orders", 1..5);
            world.pass_until(20_000, moment);
            let head = Keys::of(b"world").head(SlotIndex(*slot));
            world.memory.set(&head, b"damaged", Expect::Anything).unwrap();
            world.pass(30_000);
            let story = format!("{policy}, case {nth}{}", world.state());
            assert_eq!((world.queued(), world.dead(), &world.arrivals), (0, 1, delivered), "{story}");
            assert_eq!(world.counter(Counter::Corrupt), 1, "{story}");
        }
    }
}

/// The housekeeper's sweep needs many seconds for so many slots.
#[test]
fn a_line_does_not_wait_for_the_sweep_to_mend_what_is_in_its_way() {
    const OTHERS: u32 = 8_000;
    let settings = ORDERED.replace("[\"orders\"]", "[\"orders\", \"stock\", \"mail\", \"none\"]");
    let mut world = world(3, &settings, |number| (number < 100).then_some(LineKey(1)));
    world.receiver(|asked| if asked.cluster == "none" { (REFUSED, 5) } else { (Answers::Status(200), 200) });
    world.witness(1, "none", Sign::NoHealthyHost);
    world.store(1, "none", 1_000..1_000 + OTHERS);
    world.pass(2_000);
    let keeper = world.house_keepers()[0];
    let led_by_another = |of: &&str| world.leaders(of) != [keeper];
    let to = ["orders", "stock", "mail"].into_iter().find(led_by_another).unwrap();
    world.store(1, to, 1..5);
    let head = Keys::of(b"world").head(SlotIndex(OTHERS));
    world.memory.set(&head, b"damaged", Expect::Anything).unwrap();
    let took = world.pass_until(20_000, |world| world.arrivals.len() == 3);
    assert!(took < 1_000 + 500 + 3 * 200 + 500, "{took} ms: backoff, a second look, three answers{}", world.state());
    assert_eq!((world.arrivals.clone(), world.dead()), (vec![2, 3, 4], 1));
    // What the damaged head had booked is found by two audits, each a round of the sweep.
    world.pass(60_000);
    world.check_ledger();
}

#[test]
fn what_outlives_its_ttl_ends_in_its_turn() {
    for policy in ["release", "block"] {
        let settings = ORDERED
            .replace("by_key\"", &format!("by_key\", \"on_dead_head\": \"{policy}\""))
            .replace("\"capture\"", "\"store\": {\"ttl\": \"10s\"}, \"capture\"");
        let mut world = world(2, &settings, one_line);
        world.witness(1, "orders", Sign::NoHealthyHost);
        world.receiver(|_| (REFUSED, 5));
        world.store(1, "orders", 1..8);
        world.pass(15_000);
        assert_eq!((world.dead(), world.queued()), (7, 0), "{policy}{}", world.state());
        assert_eq!(world.counter(Counter::Expired), 7);
        world.check_books();
    }
}

#[test]
fn a_lost_hint_lets_nobody_overtake() {
    let mut world = world(2, ORDERED, one_line);
    let ready = Keys::of(b"world").ready(DestinationIndex(0));
    for number in 1..6 {
        world.store(1, "orders", number..number + 1);
        if number % 2 == 1 {
            // The hint just written: whoever took it has died.
            while world.memory.dequeue(&ready).is_some() {}
        }
    }
    world.pass_until(20_000, |world| world.queued() == 0);
    world.check_order("hints lost");
    world.check_delivered_once(1..6);
}

#[test]
fn a_successor_goes_on_where_its_predecessor_was() {
    let mut world = world(3, ORDERED, three_lines);
    world.receiver(|_| (Answers::Status(200), 300));
    world.store(1, "orders", 1..61);
    for _ in 0..2 {
        world.pass(3_000);
        let leader = world.leaders("orders")[0];
        world.kill(leader);
        world.pass_until(10_000, |world| !world.leaders("orders").is_empty());
    }
    world.pass_until(60_000, |world| world.queued() == 0);
    world.check_order("two leaders died");
    assert!((1..61).all(|number| world.delivered.contains_key(&number)), "{}", world.state());
}

/// A VM that died while it stored is waited for, as it may live; meanwhile a probe is not offered again and again.
#[test]
fn a_probe_that_must_wait_for_a_dead_vm_is_left_for_the_next_tick() {
    for cut in 2..9 {
        let mut world = world(2, ORDERED, one_line);
        world.pass(1_000);
        world.witness(2, "orders", Sign::NoHealthyHost);
        world.pass(200);
        let leader = world.leaders("orders")[0];
        let doomed = if leader == 1 { 2 } else { 1 };
        world.vms[doomed].changes_left = Some(cut);
        world.try_store(doomed, "orders", 1);
        world.kill(doomed);
        world.store(leader, "orders", 2..4);
        world.pass_until(40_000, |world| world.queued() == 0);
        assert!(world.calls_max < 200, "cut {cut}: {} calls in one callback", world.calls_max);
        world.check_order(&format!("cut {cut}"));
        assert!([2, 3].iter().all(|number| world.delivered.contains_key(number)), "{}", world.state());
    }
}

/// As [`BRIEF`], ordered.
fn brief_ordered() -> String {
    BRIEF
        .replace("{\"tick\"", "{\"order\": \"by_key\", \"tick\"")
        .replace("\"redelivery\"", "\"capture\": {\"as\": \"arrived\"}, \"redelivery\"")
}

#[test]
fn a_vm_may_die_at_any_change_that_it_makes_and_the_order_stands() {
    at_every_change(|cut| {
        let mut world = world_with_a_doomed_vm(cut, &config(&brief_ordered()));
        world.line_of = one_line;
        world.receiver(|asked| {
            let answer = if asked.attempt == 1 && asked.number == 2 { 500 } else { 200 };
            (Answers::Status(answer), 30)
        });
        let (mut promised, mut doubtful) = (Vec::new(), Vec::new());
        for number in 1..5 {
            if world.vms[1].life == Life::Alive {
                match world.try_store(1, "orders", number) {
                    Some(put) => put.map(|_| promised.push(number)).unwrap(),
                    None => doubtful.push(number),
                }
            }
            world.pass(200);
        }
        world.pass(CUT_UNTIL - world.now);
        world.vms[1].changes_left = None;
        world.store(2, "orders", 5..8);
        promised.extend(5..8);
        world.pass(32_000);
        let story = format!("death at change {cut}");
        check_after_death(&world, &promised, &doubtful, &story);
        world.check_order(&story);
        world.vms[1].life
    });
}

#[test]
fn chaos_keeps_the_order_of_every_key() {
    for seed in 0..CHAOS_SEEDS {
        let mut chaos = Chaos::new(seed, &brief_ordered());
        // Odd numbers go to one destination and even ones to the other.
        chaos.world.line_of = |number| Some(LineKey(u64::from(number % 6)));
        let world = chaos.run(seed);
        world.check_order(&format!("seed {seed}"));
        let longest = world.arrivals_by_line().values().map(Vec::len).max();
        assert!(longest > Some(20), "seed {seed}: {longest:?}");
    }
}
