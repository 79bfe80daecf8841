//! What users of other store-and-forward systems complain about and no other test here shows: see docs/complaints.md.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// The most attempts that were out at once while every second message is answered `status`, and the others 200.
fn most_out(status: u16) -> usize {
    let settings = PLAIN.replace(
        "{\"window\": {\"initial\": 3, \"max\": 3}}",
        "{\"max_attempts\": 60000, \"window\": {\"initial\": 3, \"max\": 12}}",
    );
    let mut world = World::new(2, &config(&settings));
    world.receiver(move |asked| (Answers::Status(if asked.number % 2 == 0 { status } else { 200 }), 50));
    world.store(1, "orders", 1..301);
    let mut most = 0;
    for _ in 0..1_000 {
        world.pass(10);
        most = most.max(world.out("orders"));
        assert_ne!(world.published("orders"), Some(PublishedState::Down), "{status}{}", world.state());
    }
    most
}

/// Complaint 3: a failure that is the message's own charges that message, not the destination.
#[test]
fn a_bug_in_one_kind_of_message_throttles_no_other() {
    for status in [400, 404, 500, 501, 408, 200] {
        assert_eq!(most_out(status), 12, "{status}: the window grows to its limit");
    }
    for status in [429, 502, 503, 504] {
        assert!(most_out(status) < 8, "{status} is the destination's trouble: {}", most_out(status));
    }
}

/// Complaint 9: an attempt is written down before it goes out, so that none is forgotten whose outcome never comes.
#[test]
fn attempts_whose_outcome_never_comes_are_counted_and_end_the_message() {
    let settings = PLAIN.replace("{\"window\"", "{\"max_attempts\": 3, \"timeout\": \"1s\", \"window\"");
    // The answer gets lost; and whoever has the attempt out dies each time, before any answer could come.
    for dies in [false, true] {
        let mut world = World::new(4, &config(&settings));
        world.receiver(|_| (Answers::Never, 0));
        world.store(1, "orders", 1..2);
        for attempt in 1..=3 {
            world.pass_until(20_000, |world| world.asked.len() == attempt);
            if dies {
                let sender = world.asked[attempt - 1].vm;
                world.kill(sender);
            }
        }
        world.pass_until(20_000, |world| world.dead() == 1);
        world.pass(20_000);
        let attempts: Vec<u16> = world.asked.iter().map(|asked| asked.attempt).collect();
        assert_eq!(attempts, [1, 2, 3], "{dies}{}", world.state());
        let head = world.heads()[0].unwrap();
        assert_eq!((head.state, head.attempts), (SlotState::Dead { reason: DeadReason::Attempts }, 3), "{dies}");
        world.check_books();
    }
}
