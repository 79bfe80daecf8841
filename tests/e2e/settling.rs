//! What an answer to a redelivery means for its message (CONTRACT, section 4, last paragraph), and dead letters.

use std::time::Duration;

use redeliver_tests::wait::throughout;
use redeliver_tests::{Bootstrap, Destination, Envoy, Filter, Receiver, Reply, Request, Route, SOON};
use serde_json::{Value, json};

/// What becomes of a message whose redeliveries are answered with one status for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Delivered,
    Rejected,
    TriedAgain,
}

const ENDS: &[(u16, End)] = &[
    (200, End::Delivered),
    (201, End::Delivered),
    (202, End::Delivered),
    (204, End::Delivered),
    (301, End::Rejected),
    (307, End::Rejected),
    (400, End::Rejected),
    (401, End::Rejected),
    (403, End::Rejected),
    (404, End::Rejected),
    (409, End::Rejected),
    (413, End::Rejected),
    (422, End::Rejected),
    (408, End::TriedAgain),
    (425, End::TriedAgain),
    (429, End::TriedAgain),
    (500, End::TriedAgain),
    (502, End::TriedAgain),
    (503, End::TriedAgain),
    (504, End::TriedAgain),
];

/// The status that a path like `/404` asks for.
fn status_in(path: &str) -> u16 {
    path.trim_start_matches('/').parse().unwrap_or(200)
}

#[tokio::test]
async fn every_answer_to_a_redelivery_ends_its_message_or_has_it_tried_again() {
    let orders = Receiver::absent().await;
    // A destination for each status, so that one that is tried again slows no other.
    let bootstrap = ENDS.iter().fold(Bootstrap::new(), |bootstrap, (status, _)| {
        let name = format!("says-{status}");
        let route = Route::new(&format!("/{status}"), &name);
        bootstrap.destination(Destination::new(&name, orders.port())).route(route)
    });
    let envoy = bootstrap.filter(Filter::quick(json!({}))).start().await;
    for (status, _) in ENDS {
        envoy.send(&Request::post(&format!("/{status}"))).await.stored_id();
    }
    orders.reply_with(|request| Reply::status(status_in(&request.path)));
    orders.come_back().await;
    let count = |end: End| ENDS.iter().filter(|(_, is)| *is == end).count() as u64;
    let metrics = envoy
        .wait_metrics("every final answer was final", SOON, |m| {
            m.delivered() == count(End::Delivered) && m.dead() == count(End::Rejected)
        })
        .await;
    assert_eq!(metrics.dead_lettered(), count(End::Rejected));
    redeliver_tests::eventually("those to be tried again were", SOON, || {
        let tries = |status: &u16| orders.on_path(&format!("/{status}")).len();
        let few: Vec<_> = ENDS.iter().filter(|(s, end)| *end == End::TriedAgain && tries(s) < 2).collect();
        if few.is_empty() { Ok(()) } else { Err(format!("{few:?}")) }
    })
    .await;
    for (status, end) in ENDS.iter().filter(|(_, end)| *end != End::TriedAgain) {
        assert_eq!(orders.on_path(&format!("/{status}")).len(), 1, "{status} is {end:?}");
    }
    // Now that everything is well, nothing remains but the dead letters.
    orders.answer(200);
    let metrics = envoy.wait_drained(SOON).await;
    assert_eq!(
        (metrics.delivered(), metrics.dead()),
        (count(End::Delivered) + count(End::TriedAgain), count(End::Rejected))
    );
}

/// One message to a receiver that answers its redeliveries with 500, under this configuration.
async fn failing(config: Value) -> (Envoy, Receiver) {
    let orders = Receiver::start().await;
    orders.reply_with(|request| Reply::status(if request.attempt().is_some() { 500 } else { 503 }));
    let envoy = Bootstrap::orders(orders.port(), Filter::quick(config)).start().await;
    envoy.send(&Request::post("/poison")).await.stored_id();
    (envoy, orders)
}

#[tokio::test]
async fn after_max_attempts_a_message_is_a_dead_letter() {
    let (envoy, orders) = failing(json!({"redelivery": {"max_attempts": 3}})).await;
    let metrics = envoy.wait_drained(SOON).await;
    assert_eq!((metrics.dead(), metrics.dead_lettered(), metrics.expired()), (1, 1, 0));
    assert_eq!((metrics.attempts(), metrics.attempt_failures()), (3, 3));
    let attempts: Vec<_> = orders.received().iter().map(|request| request.attempt()).collect();
    assert_eq!(attempts, [None, Some(1), Some(2), Some(3)]);
    orders.answer(200);
    throughout("a dead letter is not sent again", Duration::from_secs(2), || match orders.received().len() {
        4 => Ok(()),
        n => Err(format!("{n} requests")),
    })
    .await;
}

#[tokio::test]
async fn being_down_costs_no_attempt() {
    let orders = Receiver::absent().await;
    let filter = Filter::quick(json!({"redelivery": {"max_attempts": 6}, "health": {"probe_max": "200ms"}}));
    let envoy = Bootstrap::orders(orders.port(), filter).start().await;
    for n in 0..3 {
        envoy.send(&Request::post(&format!("/{n}"))).await.stored_id();
    }
    envoy.wait_metrics("orders is down", SOON, |m| m.destinations_down() == 1).await;
    throughout("nothing dies of being down", Duration::from_secs(4), || match envoy.metrics() {
        m if m.dead() == 0 => Ok(()),
        m => Err(format!("{m:?}")),
    })
    .await;
    orders.come_back().await;
    assert_eq!(envoy.wait_drained(SOON).await.delivered(), 3);
}

#[tokio::test]
async fn backoff_grows_and_is_jittered_within_its_bounds() {
    let config = json!({"redelivery": {
        "tick": "20ms", "max_attempts": 5,
        "backoff": {"initial": "200ms", "max": "800ms", "multiplier": 2.0, "jitter": 0.2},
    }});
    let (envoy, orders) = failing(config).await;
    envoy.wait_drained(SOON).await;
    let times: Vec<_> = orders.received().iter().map(|request| request.at).collect();
    let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // The first gap is from the live failure; ticks and scheduling may add, nothing may take away.
    for (gap, nominal) in gaps.iter().skip(1).zip([200u64, 400, 800, 800]) {
        let least = Duration::from_millis(nominal * 8 / 10);
        let most = Duration::from_millis(nominal * 12 / 10 + 400);
        assert!((least..most).contains(gap), "{gap:?} is not about {nominal} ms; all: {gaps:?}");
    }
}

#[tokio::test]
async fn a_message_past_its_time_to_live_is_an_expired_dead_letter() {
    let orders = Receiver::absent().await;
    let envoy = Bootstrap::orders(orders.port(), Filter::quick(json!({"store": {"ttl": "1s"}}))).start().await;
    for n in 0..3 {
        envoy.send(&Request::post(&format!("/{n}"))).await.stored_id();
    }
    let metrics = envoy.wait_drained(SOON).await;
    assert_eq!((metrics.dead(), metrics.dead_lettered(), metrics.expired()), (3, 3, 3));
    orders.come_back().await;
    throughout("an expired message is not sent", Duration::from_secs(2), || match orders.received().len() {
        0 => Ok(()),
        n => Err(format!("{n} requests")),
    })
    .await;
}

#[tokio::test]
async fn a_poisonous_message_blocks_no_other() {
    let orders = Receiver::absent().await;
    let envoy = Bootstrap::orders(orders.port(), Filter::quick(json!({}))).start().await;
    let path = |n: usize| if n.is_multiple_of(3) { format!("/poison/{n}") } else { format!("/good/{n}") };
    for n in 0..30 {
        envoy.send(&Request::post(&path(n))).await.stored_id();
    }
    orders.reply_with(|request| Reply::status(if request.path.starts_with("/poison") { 500 } else { 200 }));
    orders.come_back().await;
    envoy.wait_metrics("the good ones are delivered", SOON, |m| m.delivered() == 20).await;
    orders.answer(200);
    assert_eq!(envoy.wait_drained(SOON).await.delivered(), 30);
}

#[tokio::test]
async fn a_redelivery_that_is_never_answered_times_out_and_is_tried_again() {
    let orders = Receiver::start().await;
    orders.reply_with(|request| match request.attempt() {
        None => Reply::status(503),
        Some(1) => Reply::Hang,
        Some(2) => Reply::CloseUnanswered,
        Some(_) => Reply::status(200),
    });
    let filter = Filter::quick(json!({"redelivery": {"timeout": "500ms"}}));
    let envoy = Bootstrap::orders(orders.port(), filter).start().await;
    envoy.send(&Request::post("/slow")).await.stored_id();
    let metrics = envoy.wait_drained(SOON).await;
    assert_eq!((metrics.delivered(), metrics.attempts(), metrics.attempt_failures()), (1, 3, 2));
}

#[tokio::test]
async fn a_dead_destination_delays_no_other() {
    let (dead, silent, well) = (Receiver::absent().await, Receiver::start().await, Receiver::start().await);
    let bootstrap = [("dead", &dead), ("silent", &silent), ("well", &well)].into_iter().fold(
        Bootstrap::new().filter(Filter::quick(json!({}))).workers(2),
        |bootstrap, (name, receiver)| {
            bootstrap.destination(Destination::new(name, receiver.port())).route(Route::new(&format!("/{name}"), name))
        },
    );
    let envoy = bootstrap.start().await;
    silent.answer(503);
    well.refuse().await;
    for n in 0..20 {
        for name in ["dead", "silent", "well"] {
            envoy.send(&Request::post(&format!("/{name}/{n}"))).await.stored_id();
        }
    }
    silent.reply_with(|_| Reply::Hang);
    well.come_back().await;
    well.wait_received(20, Duration::from_secs(4)).await;
    silent.answer(200);
    dead.come_back().await;
    // The silent one's attempts in hand must first time out (3 s).
    let metrics = envoy.wait_drained(SOON * 2).await;
    assert_eq!((metrics.delivered(), well.received().len()), (60, 20));
}

/// The time between the two attempts of one message whose first redelivery is answered 503 with this `Retry-After`.
async fn gap_after(retry_after: String) -> Duration {
    let orders = Receiver::start().await;
    orders.reply_with(move |request| match request.attempt() {
        None => Reply::status(503),
        Some(1) => Reply::Answer(503, vec![("retry-after", retry_after.clone().into_bytes())]),
        Some(_) => Reply::status(200),
    });
    let filter = Filter::quick(json!({"redelivery": {"backoff": {"initial": "200ms", "max": "4s", "jitter": 0.1}}}));
    let envoy = Bootstrap::orders(orders.port(), filter).start().await;
    envoy.send(&Request::post("/later")).await.stored_id();
    assert_eq!(envoy.wait_drained(SOON).await.delivered(), 1);
    let times: Vec<_> = orders.received().iter().map(|request| request.at).collect();
    assert_eq!(times.len(), 3, "{times:?}");
    times[2] - times[1]
}

#[tokio::test]
async fn retry_after_is_honoured_up_to_backoff_max_and_never_undercut() {
    // Asked for, at least, at most (jitter and ticks may add, nothing may take away).
    for (asked, least, most) in [("2", 2_000, 3_000), ("86400", 4_000, 5_200), ("-5", 180, 1_500), ("soon", 180, 1_500)]
    {
        let gap = gap_after(asked.to_owned()).await;
        assert!((least..most).contains(&gap.as_millis()), "{gap:?} after Retry-After: {asked}");
    }
}

#[tokio::test]
async fn redelivery_goes_no_faster_than_its_rate() {
    let orders = Receiver::absent().await;
    let filter = Filter::quick(json!({"redelivery": {"rate": 10}}));
    let envoy = Bootstrap::orders(orders.port(), filter).workers(2).start().await;
    for n in 0..30 {
        envoy.send(&Request::post(&format!("/{n}"))).await.stored_id();
    }
    orders.come_back().await;
    assert_eq!(envoy.wait_drained(SOON).await.delivered(), 30);
    let times: Vec<_> = orders.received().iter().map(|request| request.at).collect();
    let span = *times.last().expect("thirty") - times[0];
    // One and what two ticks of 50 ms bring may go at once, so 28 at the rate.
    assert!((Duration::from_millis(2_500)..Duration::from_secs(6)).contains(&span), "{span:?} for 30 at 10 a second");
}

#[tokio::test]
async fn beside_live_traffic_redelivery_takes_three_at_a_time_or_a_fifth() {
    let orders = Receiver::start().await;
    orders.reply_with(|request| match request.attempt() {
        None if request.path == "/live" => Reply::Late(Duration::from_secs(7), 200),
        None => Reply::status(503),
        Some(_) => Reply::Late(Duration::from_millis(200), 200),
    });
    let backoff = json!({"initial": "3s", "max": "3s", "jitter": 0});
    let filter = Filter::quick(json!({"redelivery": {"backoff": backoff, "window": {"initial": 20}}}));
    let envoy = Bootstrap::orders(orders.port(), filter).workers(2).start().await;
    for n in 0..30 {
        envoy.send(&Request::post(&format!("/{n}"))).await.stored_id();
    }
    // Live traffic is counted while all workers know of a backlog.
    envoy.wait_metrics("the backlog is known", SOON, |m| m.queued() == 30).await;
    let request = Request::post("/live");
    let live = || envoy.send(&request);
    let (_, _, _, _, _, metrics) = tokio::join!(live(), live(), live(), live(), live(), envoy.wait_drained(SOON));
    assert_eq!(metrics.delivered(), 30);
    assert_eq!(orders.peak_in_hand(), 5 + 3, "five live requests, and three redeliveries");
}
