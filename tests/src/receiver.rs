//! A receiver whose faults are scripted: it records every whole request, then answers, hangs, dies or goes away.
//!
//! | call                  | what a real service would do                                                   |
//! | --------------------- | ------------------------------------------------------------------------------ |
//! | `leave`               | a rolling update: accepts no more, finishes what it has, exits                 |
//! | `refuse`              | a crash: every connection is cut, the port refuses                             |
//! | `swallow`             | a dead machine: connecting gets no answer at all                               |
//! | `come_back`           | the next instance on the same port                                             |
//! | `reply_with`          | what it does with a request that it has read to its end                        |
//! | `health`              | what `/healthz` says; such requests are not recorded                           |
//!
//! | `answer_heads`         | what it answers before it has read a body; such requests are recorded without   |
//!
//! A path that contains `/duplex` is echoed chunk by chunk while it arrives, the way a streaming call is. The receiver
//! never repairs a request and never answers one it has not recorded.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::ports::free_port;
use crate::wait::eventually;
use crate::wire::{Framing, Head, Headers, Reader, chunk};

/// An idle connection of a leaving receiver is kept for this long, so that a request that is already on its way is
/// still finished: a proxy that reuses its connections needs some milliseconds to notice.
const LEAVE_IDLE: Duration = Duration::from_millis(700);

/// Answers to "did the SYN get through": loopback needs microseconds.
const CONNECT_ANSWERS_WITHIN: Duration = Duration::from_millis(200);

/// One request as it arrived, complete.
#[derive(Clone, Debug)]
pub struct Received {
    /// Request method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Every header, `host` included, in wire order.
    pub headers: Headers,
    /// The body without its framing.
    pub body: Vec<u8>,
    /// When its last byte was read.
    pub at: Instant,
    /// The status that the receiver answered, or is about to answer; `None` if it never does.
    pub answered: Option<u16>,
}

impl Received {
    /// The authority (`host`).
    pub fn authority(&self) -> String {
        self.headers.text("host").unwrap_or_default()
    }

    /// The number of the redelivery; `None` for a live request.
    pub fn attempt(&self) -> Option<u32> {
        self.headers.text("x-redeliver-attempt").and_then(|text| text.parse().ok())
    }
}

/// What the receiver does with a request that it has read to its end.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Answers, and keeps the connection.
    Answer(u16, Vec<(&'static str, Vec<u8>)>),
    /// Answers after a while.
    Late(Duration, u16),
    /// Never answers; the connection stays until the other side closes it.
    Hang,
    /// Processed, but the connection closes before the first byte of an answer.
    CloseUnanswered,
    /// Processed; then the port refuses, and only then the connection closes unanswered.
    VanishUnanswered,
    /// Writes these bytes, whatever they are, and keeps the connection.
    Raw(Vec<u8>),
    /// Writes these bytes, whatever they are, and closes the connection.
    RawThenClose(Vec<u8>),
    /// Writes each of these pieces when there is a permit for it, and keeps the connection.
    Pieces(Vec<Vec<u8>>, Arc<Semaphore>),
}

impl Reply {
    fn answered(&self) -> Option<u16> {
        match self {
            Reply::Answer(status, _) | Reply::Late(_, status) => Some(*status),
            Reply::Hang | Reply::CloseUnanswered | Reply::VanishUnanswered => None,
            Reply::Raw(_) | Reply::RawThenClose(_) | Reply::Pieces(..) => None,
        }
    }

    /// A plain answer.
    pub fn status(status: u16) -> Reply {
        Reply::Answer(status, Vec::new())
    }
}

type Script = Box<dyn Fn(&Received) -> Reply + Send>;

#[derive(Default)]
struct Load {
    now: usize,
    peak: usize,
}

/// One request that is read and not yet answered.
struct InHand(Arc<Shared>);

impl InHand {
    fn new(shared: &Arc<Shared>) -> InHand {
        let mut load = locked(&shared.load);
        load.now += 1;
        load.peak = load.peak.max(load.now);
        InHand(Arc::clone(shared))
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        locked(&self.0.load).now -= 1;
    }
}

struct Shared {
    load: Mutex<Load>,
    received: Mutex<Vec<Received>>,
    script: Mutex<Script>,
    health: Mutex<u16>,
    /// What is answered to a head, if anything.
    early: Mutex<Option<Vec<u8>>>,
}

/// Whether new connections are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Serving,
    Leaving,
    /// Leaving, and the port refuses already.
    Closed,
}

enum Presence {
    Serving {
        task: JoinHandle<()>,
        mood: watch::Sender<Mood>,
    },
    /// Held open: the sockets that fill the accept queue of a port that never accepts.
    Swallowing {
        _sockets: Vec<TcpStream>,
        _listener: TcpListener,
    },
    Away,
}

/// One scripted receiver on a port of its own.
pub struct Receiver {
    port: u16,
    shared: Arc<Shared>,
    presence: Mutex<Presence>,
}

impl Receiver {
    /// A receiver that answers 200 to everything.
    pub async fn start() -> Receiver {
        let shared = Shared {
            load: Mutex::default(),
            received: Mutex::default(),
            script: Mutex::new(Box::new(|_| Reply::status(200))),
            health: Mutex::new(200),
            early: Mutex::default(),
        };
        let (port, listener) = listen_anywhere().await;
        let receiver = Receiver { port, shared: Arc::new(shared), presence: Mutex::new(Presence::Away) };
        receiver.serve(listener);
        receiver
    }

    /// A port that refuses until `come_back`.
    pub async fn absent() -> Receiver {
        let receiver = Receiver::start().await;
        receiver.refuse().await;
        receiver
    }

    /// Its port on the loopback interface; the same for its whole life.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on does with each request what `script` says.
    pub fn reply_with(&self, script: impl Fn(&Received) -> Reply + Send + 'static) {
        *locked(&self.shared.script) = Box::new(script);
    }

    /// From now on answers every request with `status`.
    pub fn answer(&self, status: u16) {
        self.reply_with(move |_| Reply::status(status));
    }

    /// From now on answers these bytes as soon as it has a request's head, and reads on without a word.
    pub fn answer_heads(&self, bytes: Vec<u8>) {
        *locked(&self.shared.early) = Some(bytes);
    }

    /// From now on answers `/healthz` with `status`.
    pub fn health(&self, status: u16) {
        *locked(&self.shared.health) = status;
    }

    /// Everything received so far, in order of completion.
    pub fn received(&self) -> Vec<Received> {
        locked(&self.shared.received).clone()
    }

    /// What it answered 2xx: the requests that count as delivered.
    pub fn delivered(&self) -> Vec<Received> {
        self.received().into_iter().filter(|request| request.answered.is_some_and(|status| status / 100 == 2)).collect()
    }

    /// The most requests that were ever in hand at the same time.
    pub fn peak_in_hand(&self) -> usize {
        locked(&self.shared.load).peak
    }

    /// What was received on `path`, query included.
    pub fn on_path(&self, path: &str) -> Vec<Received> {
        locked(&self.shared.received).iter().filter(|request| request.path == path).cloned().collect()
    }

    /// Waits until `count` requests have been received in all.
    pub async fn wait_received(&self, count: usize, within: Duration) -> Vec<Received> {
        eventually(&format!("{count} requests received"), within, || {
            let received = self.received();
            if received.len() >= count { Ok(received) } else { Err(format!("{} requests", received.len())) }
        })
        .await
    }

    /// Whether its port refuses, or takes nothing.
    pub fn is_away(&self) -> bool {
        match &*locked(&self.presence) {
            Presence::Serving { .. } => false,
            Presence::Swallowing { .. } | Presence::Away => true,
        }
    }

    /// A crash: cuts every connection, then the port refuses.
    pub async fn refuse(&self) {
        if let Presence::Serving { task, mood } = self.take_presence() {
            task.abort();
            // Every connection watches the mood: when nobody does any more, the last socket is closed.
            mood.closed().await;
        }
    }

    /// A rolling update: accepts no more, finishes what it has, exits. Returns when the last connection is closed.
    pub async fn leave(&self) {
        if let Presence::Serving { task, mood } = self.take_presence() {
            mood.send_replace(Mood::Leaving);
            task.await.expect("the accept loop ended by itself");
        }
    }

    /// A dead machine: the port accepts nothing and refuses nothing.
    pub async fn swallow(&self) {
        self.refuse().await;
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("SO_REUSEADDR");
        socket.bind(self.address()).expect("the port is ours");
        let listener = socket.listen(1).expect("listening with the shortest queue");
        let mut sockets = Vec::new();
        // Once the queue is full, the kernel drops every further SYN.
        while let Ok(connected) = timeout(CONNECT_ANSWERS_WITHIN, TcpStream::connect(self.address())).await {
            sockets.push(connected.expect("loopback connects or stays silent"));
        }
        *locked(&self.presence) = Presence::Swallowing { _sockets: sockets, _listener: listener };
    }

    /// The next instance: listens on the same port. What was recorded and scripted stays.
    pub async fn come_back(&self) {
        self.refuse().await;
        self.serve(TcpListener::bind(self.address()).await.expect("the port stayed ours"));
    }

    fn serve(&self, listener: TcpListener) {
        let (mood, watcher) = watch::channel(Mood::Serving);
        let task = tokio::spawn(accept(listener, Arc::clone(&self.shared), mood.clone(), watcher));
        *locked(&self.presence) = Presence::Serving { task, mood };
    }

    fn take_presence(&self) -> Presence {
        std::mem::replace(&mut *locked(&self.presence), Presence::Away)
    }

    fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Presence::Serving { task, .. } = self.take_presence() {
            task.abort();
        }
    }
}

/// Another test process may take a free port in the moment before we do.
async fn listen_anywhere() -> (u16, TcpListener) {
    loop {
        let port = free_port();
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            return (port, listener);
        }
    }
}

async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    mood: watch::Sender<Mood>,
    mut watcher: watch::Receiver<Mood>,
) {
    let mut connections = JoinSet::new();
    while let Some(stream) = next_connection(&listener, &mut watcher).await {
        let connection = Connection::new(stream, Arc::clone(&shared), mood.clone(), watcher.clone());
        connections.spawn(connection.serve());
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    mood.send_replace(Mood::Closed);
    while connections.join_next().await.is_some() {}
}

/// The next connection. Connections that were complete before the receiver began to leave are still served: their
/// senders may have sent something already.
async fn next_connection(listener: &TcpListener, mood: &mut watch::Receiver<Mood>) -> Option<TcpStream> {
    tokio::select! {
        biased;
        accepted = listener.accept() => Some(accepted.expect("accepting on loopback").0),
        () = begin_to_leave(mood) => None,
    }
}

/// Waits until no new connection is wanted. A mood that nobody can change any more is wanted by nobody either.
async fn begin_to_leave(mood: &mut watch::Receiver<Mood>) {
    drop(mood.wait_for(|mood| *mood != Mood::Serving).await);
}

struct Connection {
    reader: Reader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    shared: Arc<Shared>,
    mood: watch::Sender<Mood>,
    watcher: watch::Receiver<Mood>,
}

/// Whether the connection can carry another request.
enum After {
    Keep,
    Close,
}

impl Connection {
    fn new(stream: TcpStream, shared: Arc<Shared>, mood: watch::Sender<Mood>, watcher: watch::Receiver<Mood>) -> Self {
        let (reader, writer) = stream.into_split();
        Self { reader: Reader::new(reader), writer, shared, mood, watcher }
    }

    async fn serve(mut self) {
        while let Some(head) = self.next_head().await {
            match self.one_request(head).await {
                Ok(After::Keep) => {}
                // A proxy that cuts its request is a case under test, not a fault of the receiver.
                Ok(After::Close) | Err(_) => return,
            }
        }
    }

    async fn next_head(&mut self) -> Option<Head> {
        let Self { reader, watcher, .. } = self;
        let head = reader.head();
        tokio::pin!(head);
        let read = tokio::select! {
            biased;
            read = &mut head => read,
            () = begin_to_leave(watcher) => timeout(LEAVE_IDLE, head).await.unwrap_or(Ok(None)),
        };
        read.ok().flatten()
    }

    async fn one_request(&mut self, head: Head) -> std::io::Result<After> {
        let mut words = head.start.splitn(3, ' ').map(str::to_owned);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if path == "/healthz" {
            let status = *locked(&self.shared.health);
            return self.answer(status, &[]).await;
        }
        if path.contains("/duplex") {
            return self.echo(&head).await;
        }
        let early = locked(&self.shared.early).clone();
        if let Some(bytes) = early {
            let (headers, at) = (head.headers, Instant::now());
            locked(&self.shared.received).push(Received {
                method,
                path,
                headers,
                body: Vec::new(),
                at,
                answered: None,
            });
            self.writer.write_all(&bytes).await?;
            return self.until_closed().await;
        }
        let body = match head.framing() {
            Framing::Unsaid => Vec::new(),
            framing => self.reader.body(framing).await?,
        };
        let request = Received { method, path, headers: head.headers, body, at: Instant::now(), answered: None };
        let reply = locked(&self.shared.script)(&request);
        locked(&self.shared.received).push(Received { answered: reply.answered(), ..request });
        let _in_hand = InHand::new(&self.shared);
        self.reply(reply).await
    }

    async fn reply(&mut self, reply: Reply) -> std::io::Result<After> {
        match reply {
            Reply::Answer(status, headers) => self.answer(status, &headers).await,
            Reply::Late(delay, status) => {
                tokio::time::sleep(delay).await;
                self.answer(status, &[]).await
            }
            Reply::Hang => self.until_closed().await,
            Reply::CloseUnanswered => Ok(After::Close),
            Reply::Raw(bytes) => self.writer.write_all(&bytes).await.map(|()| After::Keep),
            Reply::RawThenClose(bytes) => self.writer.write_all(&bytes).await.map(|()| After::Close),
            Reply::Pieces(pieces, permits) => self.pieces(&pieces, &permits).await,
            Reply::VanishUnanswered => {
                self.mood.send_if_modified(leave);
                // An error would mean that the accept loop is gone, which refuses just as well.
                drop(self.watcher.wait_for(|mood| *mood == Mood::Closed).await);
                Ok(After::Close)
            }
        }
    }

    async fn answer(&mut self, status: u16, headers: &[(&'static str, Vec<u8>)]) -> std::io::Result<After> {
        // These have no body by definition (RFC 9110, sections 15.2, 15.3.5 and 15.4.5).
        let bodiless = matches!(status, 100..=199 | 204 | 304);
        let body = if bodiless { String::new() } else { format!("receiver says {status}\n") };
        let mut head = Head { start: format!("HTTP/1.1 {status} Scripted"), headers: Headers::default() };
        for (name, value) in headers {
            head.headers.push(name, value);
        }
        if !bodiless {
            head.headers.push("content-length", body.len().to_string());
        }
        let after = match *self.mood.borrow() {
            Mood::Serving => After::Keep,
            Mood::Leaving | Mood::Closed => {
                head.headers.push("connection", "close");
                After::Close
            }
        };
        self.writer.write_all(&[head.encode(), body.into_bytes()].concat()).await?;
        Ok(after)
    }

    async fn pieces(&mut self, pieces: &[Vec<u8>], permits: &Semaphore) -> std::io::Result<After> {
        for piece in pieces {
            permits.acquire().await.map_err(std::io::Error::other)?.forget();
            self.writer.write_all(piece).await?;
        }
        Ok(After::Keep)
    }

    async fn echo(&mut self, head: &Head) -> std::io::Result<After> {
        let mut answer = Head { start: "HTTP/1.1 200 Scripted".to_owned(), headers: Headers::default() };
        answer.headers.push("transfer-encoding", "chunked");
        self.writer.write_all(&answer.encode()).await?;
        if head.framing() == Framing::Chunked {
            while let Some(payload) = self.reader.chunk().await? {
                self.writer.write_all(&chunk(&payload)).await?;
            }
        }
        self.writer.write_all(&chunk(&[])).await?;
        Ok(After::Keep)
    }

    async fn until_closed(&mut self) -> std::io::Result<After> {
        while self.reader.head().await?.is_some() {}
        Ok(After::Close)
    }
}

fn leave(mood: &mut Mood) -> bool {
    let serving = *mood == Mood::Serving;
    if serving {
        *mood = Mood::Leaving;
    }
    serving
}

/// A poisoned lock only says that another test thread failed; its own panic is the message.
fn locked<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
