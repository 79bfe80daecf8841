//! The sender: a steady stream of messages that does not care how the receivers are. It never sends a message twice.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, header};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::books::{Answer, Books};
use crate::message::{AUTHORITY, Message};
use crate::wire;

/// 100 messages a second: enough for a backlog that can be seen, little enough for any machine.
const PERIOD: Duration = Duration::from_millis(10);
/// Above the routes' 5 s, so that Envoy answers first if a receiver hangs.
const PATIENCE: Duration = Duration::from_secs(8);

/// A running sender.
pub struct Sender {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Sender {
    /// Sends to Envoy's listener at `ingress` from now on.
    pub fn start(ingress: SocketAddr, books: Arc<Books>) -> Self {
        let (stop, stopped) = oneshot::channel();
        Self { stop, task: tokio::spawn(send_steadily(ingress, books, stopped)) }
    }

    /// Sends no more, and returns when every message has its answer or was given up.
    pub async fn stop(self) {
        drop(self.stop);
        self.task.await.expect("the sender does not panic");
    }
}

async fn send_steadily(ingress: SocketAddr, books: Arc<Books>, mut stopped: oneshot::Receiver<()>) {
    let mut under_way = JoinSet::new();
    let mut ticks = interval(PERIOD);
    // A late tick is made up for: the rate holds on a busy machine too.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            _ = ticks.tick() => {
                let number = books.open();
                let books = Arc::clone(&books);
                under_way.spawn(async move { books.answered(number, send(ingress, number).await) });
            }
            Some(_) = under_way.join_next() => {}
        }
    }
    under_way.join_all().await;
}

async fn send(ingress: SocketAddr, number: usize) -> Answer {
    match timeout(PATIENCE, wire::exchange(ingress, request(Message::numbered(number)))).await {
        Ok(Ok(response)) => read_answer(&response),
        Ok(Err(cause)) => Answer::None { cause },
        Err(_) => Answer::None { cause: format!("none within {} s", PATIENCE.as_secs()) },
    }
}

fn request(message: Message) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(message.body));
    *request.method_mut() = message.method;
    *request.uri_mut() = message.path.parse().expect("our own paths are valid");
    *request.headers_mut() = message.headers;
    request.headers_mut().insert(header::HOST, header::HeaderValue::from_static(AUTHORITY));
    request
}

/// The contract's word for custody is `202` with `x-redeliver-status: stored` and an id; nothing less counts as stored.
fn read_answer(response: &Response<Bytes>) -> Answer {
    let text =
        |name: &str| response.headers().get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    match (response.status().as_u16(), text("x-redeliver-status"), text("x-redeliver-id")) {
        (202, Some(status), Some(id)) if status == "stored" => Answer::Stored { id },
        (200..=299, None, _) => Answer::Delivered,
        (status, redeliver_status, _) => {
            Answer::Refused { status, redeliver_status: redeliver_status.unwrap_or_else(|| "(none)".to_owned()) }
        }
    }
}
