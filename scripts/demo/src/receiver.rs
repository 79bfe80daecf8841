//! A receiver that can go away as a good service does, and come back on the same port.
//!
//! ```text
//! leave(): stop accepting -> say "connection: close" on what still comes -> close idle connections -> gone
//! ```
//!
//! It never answers before it has compared the whole request with the message that must have been sent, and it never
//! drops a request that it has begun: so every attempt in the demo has a known outcome.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use crate::books::{Arrival, Books};
use crate::failure::Failure;
use crate::message::{AUTHORITY, BYTES_HEADER, Destination, Message, NUMBER_HEADER, TAG_HEADER};

/// What one message costs a receiver; without it nothing would be under way when the receiver leaves.
const WORK: Duration = Duration::from_millis(5);
/// Envoy uses each of its few idle connections again well within this time, and is told then that it closes.
const LAST_CALLS: Duration = Duration::from_millis(500);

/// One destination's receiver.
pub struct Receiver {
    destination: Destination,
    address: SocketAddr,
    books: Arc<Books>,
    presence: Presence,
}

enum Presence {
    Here {
        leave: watch::Sender<bool>,
        serving: JoinHandle<JoinSet<()>>,
    },
    /// The port stays ours: a socket that is bound but does not listen refuses every connection.
    Away {
        port: TcpSocket,
    },
}

impl Receiver {
    /// A receiver on a free port of loopback, not yet here.
    pub fn new(destination: Destination, books: Arc<Books>) -> Result<Self, Failure> {
        let lost = |error: io::Error| Failure::PortLost { receiver: destination.cluster(), cause: error.to_string() };
        let port = bind(SocketAddr::from(([127, 0, 0, 1], 0))).map_err(lost)?;
        let address = port.local_addr().map_err(lost)?;
        Ok(Self { destination, address, books, presence: Presence::Away { port } })
    }

    /// Where it listens when it is here.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts from now on. A receiver that is here stays here.
    pub fn come(self) -> Result<Self, Failure> {
        let Presence::Away { port } = self.presence else { return Ok(self) };
        let listener = port.listen(1024).map_err(|error| port_lost(self.destination, &error))?;
        let (leave, leaving) = watch::channel(false);
        let serving = tokio::spawn(accept(listener, Arc::clone(&self.books), leaving));
        Ok(Self { presence: Presence::Here { leave, serving }, ..self })
    }

    /// Stops accepting at once; returns when what it had is finished. A receiver that is away stays away.
    pub async fn leave(self) -> Result<Self, Failure> {
        let Presence::Here { leave, serving } = self.presence else { return Ok(self) };
        leave.send_replace(true);
        let connections = serving.await.expect("the accept loop does not panic");
        let port = bind(self.address).map_err(|error| port_lost(self.destination, &error))?;
        connections.join_all().await;
        Ok(Self { presence: Presence::Away { port }, ..self })
    }
}

fn port_lost(destination: Destination, error: &io::Error) -> Failure {
    Failure::PortLost { receiver: destination.cluster(), cause: error.to_string() }
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?; // closed connections keep the port for a minute (TIME_WAIT, RFC 9293 section 3.6.1)
    socket.bind(address)?;
    Ok(socket)
}

/// Accepts until told to leave; then the listener is gone, and the open connections are the result.
async fn accept(listener: TcpListener, books: Arc<Books>, mut leaving: watch::Receiver<bool>) -> JoinSet<()> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = leaving.changed() => return connections,
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                connections.spawn(serve(stream, Arc::clone(&books), leaving.clone()));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, books: Arc<Books>, mut leaving: watch::Receiver<bool>) {
    let last_call = leaving.clone();
    let service = service_fn(move |request| {
        let (books, leaving) = (Arc::clone(&books), last_call.clone());
        async move { Ok::<_, Infallible>(answer(request, &books, &leaving).await) }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let closing = async {
        // An error means that the receiver itself was dropped: the demo is over.
        if leaving.changed().await.is_ok() {
            sleep(LAST_CALLS).await;
        }
    };
    // A connection that breaks is Envoy's business: whether its request counted is in the books already.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = closing => {
            connection.as_mut().graceful_shutdown();
            let _closed = connection.await;
        }
    }
}

async fn answer(request: Request<Incoming>, books: &Books, leaving: &watch::Receiver<bool>) -> Response<Full<Bytes>> {
    let status = if request.uri().path() == "/healthz" { StatusCode::OK } else { receive(request, books).await };
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = status;
    if *leaving.borrow() {
        response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    }
    response
}

/// 200 for an intact message; 400 for anything else, which the filter must not send again.
async fn receive(request: Request<Incoming>, books: &Books) -> StatusCode {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return StatusCode::BAD_REQUEST };
    sleep(WORK).await;
    let number = head.headers.get(NUMBER_HEADER).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let Some(number) = number else { return StatusCode::BAD_REQUEST };
    let arrival = compare(&Message::numbered(number), &head, &body.to_bytes());
    let status = match arrival {
        Arrival::Intact { .. } => StatusCode::OK,
        Arrival::Damaged { .. } => StatusCode::BAD_REQUEST,
    };
    if books.arrived(number, arrival) { status } else { StatusCode::BAD_REQUEST }
}

fn compare(sent: &Message, head: &hyper::http::request::Parts, body: &Bytes) -> Arrival {
    let difference = if head.method != sent.method {
        Some(format!("method {} arrived as {}", sent.method, head.method))
    } else if head.uri != *sent.path {
        Some(format!("path {} arrived as {}", sent.path, head.uri))
    } else if head.headers.get(header::HOST).is_none_or(|host| host != AUTHORITY) {
        Some(format!("authority {AUTHORITY} arrived as {:?}", head.headers.get(header::HOST)))
    } else if *body != sent.body {
        Some(format!("a body of {} bytes arrived as another one, of {} bytes", sent.body.len(), body.len()))
    } else {
        different_header(&sent.headers, &head.headers).or_else(|| wrong_redelivery_headers(&head.headers))
    };
    match difference {
        Some(difference) => Arrival::Damaged { difference },
        None => Arrival::Intact { redelivery: text(&head.headers, "x-redeliver-id") },
    }
}

fn different_header(sent: &HeaderMap, arrived: &HeaderMap) -> Option<String> {
    [NUMBER_HEADER, TAG_HEADER, BYTES_HEADER]
        .into_iter()
        .find(|name| !sent.get_all(name).iter().eq(arrived.get_all(name).iter()))
        .map(|name| format!("header {name} arrived as {:?}", arrived.get_all(&name).iter().collect::<Vec<_>>()))
}

/// A redelivery says so with an id, an attempt from 1 on and an idempotency key; a first attempt has none of them.
fn wrong_redelivery_headers(arrived: &HeaderMap) -> Option<String> {
    let id = text(arrived, "x-redeliver-id");
    let attempt = text(arrived, "x-redeliver-attempt");
    let key = text(arrived, "idempotency-key");
    match (&id, &attempt, &key) {
        (None, None, None) => None,
        (Some(_), Some(attempt), Some(_)) if attempt.parse::<u32>().is_ok_and(|attempt| attempt >= 1) => None,
        _ => Some(format!("x-redeliver-id {id:?}, x-redeliver-attempt {attempt:?}, idempotency-key {key:?} arrived")),
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}
