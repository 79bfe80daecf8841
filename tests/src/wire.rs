//! HTTP/1.1 as bytes: heads and bodies as they were on the wire, for senders and receivers alike.
//!
//! It keeps header order, repetition and bytes that are no UTF-8, because the tests compare exactly these. It never
//! corrects what it reads: a malformed message is an error.

use std::fmt;
use std::io::{self, ErrorKind};

use tokio::io::{AsyncRead, AsyncReadExt};

/// A header list in wire order; names as on the wire, values as bytes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, Vec<u8>)>);

impl Headers {
    /// The first value of `name`, if there is one.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_slice())
    }

    /// The first value of `name` as text; bytes that are no UTF-8 are replaced.
    pub fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(|value| String::from_utf8_lossy(value).into_owned())
    }

    /// Every value of `name`, in order.
    pub fn all(&self, name: &str) -> Vec<&[u8]> {
        self.0.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_slice()).collect()
    }

    /// The list without the headers whose lower-case name `drops` accepts.
    pub fn without(&self, drops: impl Fn(&str) -> bool) -> Headers {
        Headers(self.0.iter().filter(|(name, _)| !drops(&name.to_ascii_lowercase())).cloned().collect())
    }

    /// Appends one header.
    pub fn push(&mut self, name: &str, value: impl AsRef<[u8]>) {
        self.0.push((name.to_owned(), value.as_ref().to_vec()));
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.0.iter().map(|(name, value)| format!("{name}: {}", value.escape_ascii()));
        f.debug_list().entries(lines).finish()
    }
}

/// The start line and the headers of one message.
#[derive(Clone, Debug)]
pub struct Head {
    /// The first line without its line end.
    pub start: String,
    /// The header list in wire order.
    pub headers: Headers,
}

impl Head {
    /// The bytes of this head, the empty line included.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = format!("{}\r\n", self.start).into_bytes();
        for (name, value) in &self.headers.0 {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes
    }

    /// How the end of the body is known. A response without any length ends with its connection.
    pub fn framing(&self) -> Framing {
        if self.headers.text("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            return Framing::Chunked;
        }
        match self.headers.text("content-length").map(|length| length.parse()) {
            Some(Ok(length)) => Framing::Sized(length),
            Some(Err(_)) => Framing::Sized(usize::MAX),
            None => Framing::Unsaid,
        }
    }
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// `content-length` bytes.
    Sized(usize),
    /// `transfer-encoding: chunked`.
    Chunked,
    /// Neither: a request has no body, a response ends with the connection.
    Unsaid,
}

/// One chunk of a chunked body as bytes; an empty `payload` is the end of the body.
pub fn chunk(payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{:x}\r\n", payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// Reads messages from one connection.
pub struct Reader<R> {
    source: R,
    buffer: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// A reader at the start of a message.
    pub fn new(source: R) -> Self {
        Self { source, buffer: Vec::new() }
    }

    /// The next head; `None` when the connection ended cleanly before its first byte.
    pub async fn head(&mut self) -> io::Result<Option<Head>> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
                return parse_head(&head[..end]).map(Some);
            }
            if !self.fill().await? {
                return if self.buffer.is_empty() { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// The whole body.
    pub async fn body(&mut self, framing: Framing) -> io::Result<Vec<u8>> {
        match framing {
            Framing::Sized(length) => self.exactly(length).await,
            Framing::Unsaid => self.rest().await,
            Framing::Chunked => {
                let mut body = Vec::new();
                while let Some(mut payload) = self.chunk().await? {
                    body.append(&mut payload);
                }
                Ok(body)
            }
        }
    }

    /// The next chunk of a chunked body; `None` at its end.
    pub async fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let line = self.line().await?;
        let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
        let size = std::str::from_utf8(size).ok().and_then(|hex| usize::from_str_radix(hex.trim(), 16).ok());
        let size = size.ok_or_else(|| malformed("chunk size", &line))?;
        if size == 0 {
            while !self.line().await?.is_empty() {}
            return Ok(None);
        }
        let payload = self.exactly(size).await?;
        self.line().await?;
        Ok(Some(payload))
    }

    async fn line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let mut line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                line.truncate(end);
                return Ok(line);
            }
            self.fill_more().await?;
        }
    }

    async fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            self.fill_more().await?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    async fn rest(&mut self) -> io::Result<Vec<u8>> {
        while self.fill().await? {}
        Ok(std::mem::take(&mut self.buffer))
    }

    async fn fill_more(&mut self) -> io::Result<()> {
        if self.fill().await? { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
    }

    async fn fill(&mut self) -> io::Result<bool> {
        Ok(self.source.read_buf(&mut self.buffer).await? > 0)
    }
}

fn parse_head(bytes: &[u8]) -> io::Result<Head> {
    let mut lines = bytes.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let start = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let headers = lines.map(parse_header).collect::<io::Result<_>>()?;
    Ok(Head { start, headers: Headers(headers) })
}

fn parse_header(line: &[u8]) -> io::Result<(String, Vec<u8>)> {
    let colon = find(line, b":").ok_or_else(|| malformed("header", line))?;
    Ok((String::from_utf8_lossy(&line[..colon]).into_owned(), line[colon + 1..].trim_ascii().to_vec()))
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn malformed(what: &str, line: &[u8]) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("malformed {what}: {}", line.escape_ascii()))
}
