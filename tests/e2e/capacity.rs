//! A receiver that can take so many requests at a time, and no more (CONTRACT, section 6: the window): redelivery finds out
//! how many, stays there, and does not storm. What decides is what the receiver counted.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redeliver_tests::{Bootstrap, Filter, Receiver, Reply, Request, SOON};
use serde_json::json;

/// What the receiver takes at a time (PEERS 3.1 measured with 5; this is the figure that redelivery is held to here).
const CAPACITY: usize = 8;
/// How long it works on each.
const WORK: Duration = Duration::from_millis(60);
const BACKLOG: usize = 400;
/// The share of attempts that it may have to refuse, in percent.
const REFUSED_MAX: usize = 20;

/// What the receiver counted.
#[derive(Default)]
struct Counts {
    /// When each request that is being worked on will be done.
    ends: Vec<Instant>,
    taken: usize,
    refused: usize,
    /// Of those taken, the ones that took the last free place.
    filled: usize,
}

impl Counts {
    /// One more request has come.
    fn come(&mut self) -> Reply {
        let now = Instant::now();
        self.ends.retain(|end| *end > now);
        if self.ends.len() == CAPACITY {
            self.refused += 1;
            return Reply::status(503);
        }
        self.ends.push(now + WORK);
        self.taken += 1;
        self.filled += usize::from(self.ends.len() == CAPACITY);
        Reply::Late(WORK, 200)
    }
}

async fn settles_near_the_capacity(workers: u32) {
    let orders = Receiver::absent().await;
    let filter = Filter::quick(json!({"redelivery": {"window": {"initial": 5, "max": 64}, "max_attempts": 1000}}));
    let envoy = Bootstrap::orders(orders.port(), filter).workers(workers).start().await;
    for n in 0..BACKLOG {
        envoy.send(&Request::post(&format!("/{n}"))).await.stored_id();
    }
    let counts = Arc::new(Mutex::new(Counts::default()));
    let shared = Arc::clone(&counts);
    orders.reply_with(move |_| shared.lock().unwrap_or_else(PoisonError::into_inner).come());
    orders.come_back().await;
    let metrics = envoy.wait_drained(SOON * 3).await;
    let counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
    let attempts = counts.taken + counts.refused;
    let (refused, filled, peak) = (counts.refused * 100 / attempts, counts.filled, orders.peak_in_hand());
    println!(
        "{workers} workers: {refused} % of {attempts} attempts refused, {peak} in hand at most, full {filled} times"
    );
    assert_eq!((metrics.delivered(), counts.taken), (BACKLOG as u64, BACKLOG), "each once");
    assert!(refused <= REFUSED_MAX, "{workers} workers: {refused} % of {attempts} attempts were refused");
    // Beside the eight there is what is being refused: a window that has grown too far is seen at once.
    assert!((CAPACITY..=CAPACITY + CAPACITY / 2).contains(&peak), "{workers} workers: {peak} in hand at most");
    // A window that stays at the capacity fills it once with every eight, and one that stays below it never does.
    assert!(filled >= BACKLOG / CAPACITY / 4, "{workers} workers: the receiver was full {filled} times only");
}

#[tokio::test]
async fn redelivery_settles_near_what_a_receiver_takes_at_a_time_with_1_worker() {
    settles_near_the_capacity(1).await;
}

#[tokio::test]
async fn redelivery_settles_near_what_a_receiver_takes_at_a_time_with_3_workers() {
    settles_near_the_capacity(3).await;
}

#[tokio::test]
async fn redelivery_settles_near_what_a_receiver_takes_at_a_time_with_8_workers() {
    settles_near_the_capacity(8).await;
}
