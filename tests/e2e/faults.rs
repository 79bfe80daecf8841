//! The nine ways in which a request can fail, one destination for each, in one Envoy.
//!
//! | path                     | what happens                                               | cleared by            |
//! | ------------------------ | ---------------------------------------------------------- | --------------------- |
//! | /no-healthy-host         | the health check fails, the port would answer              | a healthy check       |
//! | /refused                 | the port refuses                                           | the receiver is back  |
//! | /connect-timeout         | the port neither accepts nor refuses                       | the receiver is back  |
//! | /overflow                | the circuit breaker lets no request pass                   | a runtime override    |
//! | /by-the-receiver         | the receiver answers 503                                   | it answers 200        |
//! | /response-timeout        | the receiver reads all and is silent; the route gives up   | it answers 200        |
//! | /reset-after-send        | the receiver reads all and closes                          | it answers 200        |
//! | /processed-then-refused  | it reads all, closes, refuses; the route retries once      | the receiver is back  |
//! | /processed-then-ejected  | it reads all and closes; outlier detection takes it out of its cluster before the route retries | it answers 200, and is back in the cluster |

use redeliver_tests::{Bootstrap, Destination, Envoy, Received, Receiver, Reply, Route};
use serde_json::json;

/// The receivers of the nine destinations.
pub struct Faults {
    /// By path (without the slash) and cluster name.
    receivers: Vec<(&'static str, Receiver)>,
}

/// Path (without the slash) and cluster name of each.
pub const NAMES: [&str; 9] = [
    "no-healthy-host",
    "refused",
    "connect-timeout",
    "overflow",
    "by-the-receiver",
    "response-timeout",
    "reset-after-send",
    "processed-then-refused",
    "processed-then-ejected",
];

impl Faults {
    /// Nine receivers that are still well.
    pub async fn start() -> Faults {
        let mut receivers = Vec::new();
        for name in NAMES {
            receivers.push((name, Receiver::start().await));
        }
        Faults { receivers }
    }

    /// One destination and one route for each.
    pub fn bootstrap(&self) -> Bootstrap {
        self.receivers.iter().fold(Bootstrap::new(), |bootstrap, (name, receiver)| {
            bootstrap.destination(destination(name, receiver.port())).route(route(name))
        })
    }

    /// The receiver of one destination.
    pub fn receiver(&self, name: &str) -> &Receiver {
        let found = self.receivers.iter().find(|(of, _)| *of == name);
        &found.unwrap_or_else(|| panic!("no fault is called {name}")).1
    }

    /// Makes all nine happen from now on.
    pub async fn inject(&self, envoy: &Envoy) {
        self.receiver("no-healthy-host").health(503);
        self.receiver("refused").refuse().await;
        self.receiver("connect-timeout").swallow().await;
        self.receiver("by-the-receiver").answer(503);
        self.receiver("response-timeout").reply_with(live_only(Reply::Hang));
        self.receiver("reset-after-send").reply_with(live_only(Reply::CloseUnanswered));
        self.receiver("processed-then-refused").reply_with(live_only(Reply::VanishUnanswered));
        self.receiver("processed-then-ejected").reply_with(live_only(Reply::CloseUnanswered));
        envoy.wait_healthy("no-healthy-host", 0).await;
    }

    /// Makes a fault that uses itself up ready for the next request.
    pub async fn reload(&self, envoy: &Envoy, name: &str) {
        match name {
            "processed-then-refused" => self.receiver(name).come_back().await,
            "processed-then-ejected" => envoy.wait_healthy(name, 1).await,
            _ => {}
        }
    }

    /// Undoes `inject`.
    pub async fn clear(&self, envoy: &Envoy) {
        for (name, receiver) in &self.receivers {
            receiver.health(200);
            receiver.answer(200);
            if matches!(*name, "refused" | "connect-timeout" | "processed-then-refused") {
                receiver.come_back().await;
            }
        }
        let lift = "/runtime_modify?circuit_breakers.overflow.default.max_requests=1000";
        envoy.admin.post(lift).expect("the runtime has an admin layer");
    }
}

/// Redeliveries are told to come later, so that what a receiver processed twice is only what the fault is about.
fn live_only(reply: Reply) -> impl Fn(&Received) -> Reply {
    move |request| if request.attempt().is_some() { Reply::status(503) } else { reply.clone() }
}

fn destination(name: &str, port: u16) -> Destination {
    let plain = Destination::new(name, port);
    match name {
        "no-healthy-host" => plain.checked(),
        "processed-then-ejected" => plain.with(
            "outlier_detection",
            json!({
                "consecutive_5xx": 1, "max_ejection_percent": 100, "interval": "0.1s",
                "base_ejection_time": "0.3s", "max_ejection_time": "0.3s",
            }),
        ),
        "overflow" => plain.with("circuit_breakers", json!({"thresholds": [{"max_requests": 0}]})),
        _ => plain,
    }
}

fn route(name: &str) -> Route {
    let plain = Route::new(&format!("/{name}"), name);
    match name {
        "response-timeout" => plain.action("timeout", json!("0.4s")),
        "processed-then-refused" => {
            plain.action("retry_policy", json!({"retry_on": "reset,connect-failure", "num_retries": 1}))
        }
        // The first retry may be quicker than the ejection, which the main thread decides.
        "processed-then-ejected" => plain.action("retry_policy", json!({"retry_on": "reset", "num_retries": 9})),
        _ => plain,
    }
}
