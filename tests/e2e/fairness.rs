//! Fairness between destinations (CONTRACT, sections 3 and 6): one sender's flood and one dead destination cost the others
//! nothing. Counts decide, never times.

use redeliver_tests::{
    Bootstrap, Custody, Destination, Envoy, Filter, Receiver, Request, Response, Route, SOON, sender,
};
use serde_json::{Value, json};

/// What the whole store takes in these tests, and what `flooded` may take of it if it has a part of its own.
const WHOLE: usize = 20;
const PART: usize = 6;
const FLOOD: usize = 40;
const QUIET: usize = 10;

fn full() -> Custody {
    Custody::NotStored("full".to_owned())
}

/// Two destinations that are away, on three workers.
async fn two_outages(destinations: Value) -> (Envoy, Receiver, Receiver) {
    let (flooded, quiet) = (Receiver::absent().await, Receiver::absent().await);
    let filter = Filter::quick(json!({"store": {"max_messages": WHOLE}, "destinations": destinations}));
    let bootstrap = [("flooded", &flooded), ("quiet", &quiet)].into_iter().fold(
        Bootstrap::new().workers(3).filter(filter),
        |bootstrap, (name, receiver)| {
            bootstrap.destination(Destination::new(name, receiver.port())).route(Route::new(&format!("/{name}"), name))
        },
    );
    (bootstrap.start().await, flooded, quiet)
}

/// Everything that `count` senders of a destination are answered, who all send at once.
async fn all_at_once(envoy: &Envoy, to: &str, count: usize) -> Vec<Response> {
    let port = envoy.port();
    let send = |n| {
        let request = Request::post(&format!("/{to}/{n}"));
        tokio::spawn(async move { sender::send(port, &request).await })
    };
    let tasks: Vec<_> = (0..count).map(send).collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.expect("an answer"));
    }
    answers
}

fn count(answers: &[Response], custody: &Custody) -> usize {
    answers.iter().filter(|answer| answer.custody() == *custody).count()
}

#[tokio::test]
async fn one_senders_flood_leaves_the_others_their_part_of_the_store() {
    let part = json!({"flooded": {"store": {"max_messages": PART}}});
    let (envoy, flooded, quiet) = two_outages(part).await;
    let flood = all_at_once(&envoy, "flooded", FLOOD).await;
    assert_eq!((count(&flood, &Custody::Stored), count(&flood, &full())), (PART, FLOOD - PART));
    let others = all_at_once(&envoy, "quiet", QUIET).await;
    assert_eq!(count(&others, &Custody::Stored), QUIET, "the flood took what is not its own");
    assert_eq!(envoy.send(&Request::post("/flooded/late")).await.custody(), full());

    // The others are delivered while the flooded one is down, and that makes no room for the flood.
    quiet.come_back().await;
    envoy.wait_metrics("the others are delivered", SOON, |m| m.delivered() == QUIET as u64).await;
    assert_eq!(envoy.send(&Request::post("/flooded/later")).await.custody(), full());
    assert_eq!((quiet.received().len(), flooded.received().len()), (QUIET, 0));

    flooded.come_back().await;
    let metrics = envoy.wait_drained(SOON).await;
    assert_eq!((metrics.stored(), metrics.delivered()), ((PART + QUIET) as u64, (PART + QUIET) as u64));
    assert_eq!(metrics.not_stored(), (FLOOD - PART + 2) as u64);
}

/// What the limit of the test above is there for.
#[tokio::test]
async fn without_a_part_of_its_own_a_flood_takes_the_whole_store() {
    let (envoy, _flooded, _quiet) = two_outages(json!({})).await;
    let flood = all_at_once(&envoy, "flooded", FLOOD).await;
    assert_eq!((count(&flood, &Custody::Stored), count(&flood, &full())), (WHOLE, FLOOD - WHOLE));
    let others = all_at_once(&envoy, "quiet", QUIET).await;
    assert_eq!(count(&others, &full()), QUIET);
}

#[tokio::test]
async fn a_live_destinations_backlog_is_delivered_while_another_is_dead() {
    let (envoy, dead, live) = two_outages(json!({})).await;
    // Half of what waits belongs to the dead one, and it came first.
    assert_eq!(count(&all_at_once(&envoy, "flooded", QUIET).await, &Custody::Stored), QUIET);
    assert_eq!(count(&all_at_once(&envoy, "quiet", QUIET).await, &Custody::Stored), QUIET);
    live.come_back().await;
    let metrics = envoy
        .wait_metrics("the live one is drained", SOON, |m| {
            m.delivered() == QUIET as u64 && m.queued() == QUIET as u64 && m.destinations_down() == 1
        })
        .await;
    assert_eq!((metrics.dead(), live.received().len(), dead.received().len()), (0, QUIET, 0), "{metrics:?}");
    dead.come_back().await;
    assert_eq!(envoy.wait_drained(SOON).await.delivered(), 2 * QUIET as u64);
    assert_eq!((live.received().len(), dead.received().len()), (QUIET, QUIET), "each once");
}
