//! A sender that speaks HTTP/1.1 byte by byte: header values of any bytes, any framing, half requests.
//!
//! It never retries and never repairs: what a test builds is what goes out, and what comes back is kept whole.

use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use crate::wire::{Framing, Head, Headers, Reader, chunk};

/// No answer of any test takes this long; whoever reaches it hangs.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// How the body is framed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// No body and no framing header.
    None,
    /// With `content-length`.
    Sized(Vec<u8>),
    /// With `transfer-encoding: chunked`, in these pieces.
    Chunked(Vec<Vec<u8>>),
}

/// One request to be sent.
#[derive(Clone, Debug)]
pub struct Request {
    /// Request method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The `host` header.
    pub authority: String,
    /// Further headers in order; framing headers are made from `body`.
    pub headers: Headers,
    /// The body with its framing.
    pub body: Body,
}

impl Request {
    /// A request without headers or body.
    pub fn new(method: &str, path: &str) -> Request {
        Request {
            method: method.to_owned(),
            path: path.to_owned(),
            authority: "shop.example".to_owned(),
            headers: Headers::default(),
            body: Body::None,
        }
    }

    /// A POST with a small body that names its path.
    pub fn post(path: &str) -> Request {
        Request::new("POST", path).body(format!("body of {path}"))
    }

    /// With one more header.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Request {
        self.headers.push(name, value);
        self
    }

    /// With a sized body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Request {
        self.body = Body::Sized(body.into());
        self
    }

    /// With a chunked body in these pieces.
    pub fn chunked(mut self, pieces: Vec<Vec<u8>>) -> Request {
        self.body = Body::Chunked(pieces);
        self
    }

    /// The body without its framing.
    pub fn payload(&self) -> Vec<u8> {
        match &self.body {
            Body::None => Vec::new(),
            Body::Sized(bytes) => bytes.clone(),
            Body::Chunked(pieces) => pieces.concat(),
        }
    }

    /// The head as it goes out, framing headers last.
    pub fn head(&self) -> Head {
        let mut headers = Headers::default();
        headers.push("host", &self.authority);
        headers.0.extend(self.headers.0.iter().cloned());
        match &self.body {
            Body::None => {}
            Body::Sized(bytes) => headers.push("content-length", bytes.len().to_string()),
            Body::Chunked(_) => headers.push("transfer-encoding", "chunked"),
        }
        Head { start: format!("{} {} HTTP/1.1", self.method, self.path), headers }
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = self.head().encode();
        match &self.body {
            Body::None => {}
            Body::Sized(body) => bytes.extend_from_slice(body),
            Body::Chunked(pieces) => {
                pieces.iter().filter(|piece| !piece.is_empty()).for_each(|piece| bytes.extend(chunk(piece)));
                bytes.extend(chunk(&[]));
            }
        }
        bytes
    }
}

/// One whole answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status code of the final answer.
    pub status: u16,
    /// Status codes of the interim (1xx) answers before it.
    pub interim: Vec<u16>,
    /// Headers in wire order.
    pub headers: Headers,
    /// The body without its framing.
    pub body: Vec<u8>,
}

/// What the answer says about custody (CONTRACT, section 4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Custody {
    /// Nothing of ours in the answer.
    Unsaid,
    /// `x-redeliver-status: stored`.
    Stored,
    /// `x-redeliver-status: duplicate`.
    Duplicate,
    /// `x-redeliver-status: not-stored; reason=...`.
    NotStored(String),
    /// A status that the contract does not know.
    Unknown(String),
}

impl Response {
    /// A header value as text.
    pub fn header(&self, name: &str) -> Option<String> {
        self.headers.text(name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// What it says about custody.
    pub fn custody(&self) -> Custody {
        let Some(status) = self.header("x-redeliver-status") else { return Custody::Unsaid };
        match status.strip_prefix("not-stored; reason=") {
            Some(reason) => Custody::NotStored(reason.to_owned()),
            None if status == "stored" => Custody::Stored,
            None if status == "duplicate" => Custody::Duplicate,
            None => Custody::Unknown(status),
        }
    }

    /// The id of the stored message.
    ///
    /// # Panics
    /// If the answer is not a 202 that says `stored` and names an id.
    pub fn stored_id(&self) -> String {
        assert_eq!((self.status, self.custody()), (202, Custody::Stored), "not stored: {self:?}");
        self.header("x-redeliver-id").unwrap_or_else(|| panic!("a stored answer without an id: {self:?}"))
    }

    /// Whether the server closes the connection after this answer.
    pub fn closes(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// One keep-alive connection to Envoy.
pub struct Connection {
    reader: Reader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Connection {
    /// Connects to a port of the loopback interface.
    pub async fn open(port: u16) -> Connection {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("Envoy's listener accepts");
        stream.set_nodelay(true).expect("TCP_NODELAY on loopback");
        let (reader, writer) = stream.into_split();
        Connection { reader: Reader::new(reader), writer }
    }

    /// Sends a whole request and reads the whole answer. An answer that comes before the request is out (a 413, say)
    /// ends the sending, as a real client's would.
    pub async fn send(&mut self, request: &Request) -> io::Result<Response> {
        let bytes = request.encode();
        let answer = read_response(&mut self.reader);
        let write = self.writer.write_all(&bytes);
        tokio::pin!(answer, write);
        let both = async {
            tokio::select! {
                biased;
                early = &mut answer => early,
                // A failed write is told by the answer, or by its absence.
                _ = &mut write => answer.await,
            }
        };
        timeout(ANSWER_WITHIN, both).await.map_err(|_| io::Error::from(ErrorKind::TimedOut))?
    }

    /// Sends raw bytes: a half request, a chunk, an upgrade.
    pub async fn write(&mut self, bytes: &[u8]) {
        self.writer.write_all(bytes).await.expect("Envoy takes the bytes");
    }

    /// The next interim or final head of an answer, within the time no answer may take.
    pub async fn read_head(&mut self) -> io::Result<Head> {
        let head =
            timeout(ANSWER_WITHIN, self.reader.head()).await.map_err(|_| io::Error::from(ErrorKind::TimedOut))?;
        head?.ok_or_else(|| ErrorKind::UnexpectedEof.into())
    }

    /// The next chunk of a chunked answer; `None` at its end.
    pub async fn read_chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        timeout(ANSWER_WITHIN, self.reader.chunk()).await.map_err(|_| io::Error::from(ErrorKind::TimedOut))?
    }

    /// Reads one whole answer to bytes that went out by `write`.
    pub async fn read_response(&mut self) -> io::Result<Response> {
        let answer = read_response(&mut self.reader);
        timeout(ANSWER_WITHIN, answer).await.map_err(|_| io::Error::from(ErrorKind::TimedOut))?
    }
}

async fn read_response(reader: &mut Reader<OwnedReadHalf>) -> io::Result<Response> {
    let mut interim = Vec::new();
    loop {
        let head = reader.head().await?.ok_or(ErrorKind::UnexpectedEof)?;
        let status = status_of(&head);
        if (100..200).contains(&status) && status != 101 {
            interim.push(status);
            continue;
        }
        let framing = if matches!(status, 101 | 204 | 304) { Framing::Sized(0) } else { head.framing() };
        let body = reader.body(framing).await?;
        return Ok(Response { status, interim, headers: head.headers, body });
    }
}

/// The status code in a head's first line; 0 if it is no response.
pub fn status_of(head: &Head) -> u16 {
    head.start.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default()
}

/// Sends one request on a connection of its own.
///
/// # Panics
/// If no whole answer comes: every request of the tests deserves one.
pub async fn send(port: u16, request: &Request) -> Response {
    let answer = Connection::open(port).await.send(request).await;
    answer.unwrap_or_else(|error| panic!("no answer to {} {}: {error}", request.method, request.path))
}
