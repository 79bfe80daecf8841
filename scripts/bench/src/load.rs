//! The load generator: one request, again and again, on kept HTTP/1.1 connections, as fast as it is answered.
//!
//! It knows just as much of HTTP as the answers here need (a status, a content-length) and takes anything else for a
//! failure: an answer of another status or a closed connection would mean that the row measures something else than it
//! says. It never opens a connection twice.

use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::failure::Failure;

/// Enough to keep one worker busy, few enough that nothing queues for long.
pub const CONNECTIONS: u64 = 16;
/// What Envoy adds to a request without being asked, and what is kept of it like any other header: the scheme,
/// `x-forwarded-proto: http` and an `x-request-id` of 36 characters.
const ADDED_BYTES: usize = "http".len() + "x-forwarded-protohttp".len() + "x-request-id".len() + 36;

/// How large a request's body is.
#[derive(Clone, Copy, Debug)]
pub struct BodyBytes(pub usize);

/// The usual message.
pub const ONE_KIB: BodyBytes = BodyBytes(1024);
/// A batch takes seconds; a machine busy with other things may need many times that, a hang for ever.
const BATCH_WITHIN: Duration = Duration::from_secs(120);

/// One kind of request and the status that it must be answered with.
#[derive(Clone)]
pub struct Load {
    request: Arc<[u8]>,
    expected: u16,
}

const PATH: &str = "/orders";

impl Load {
    /// A POST with a body.
    pub fn post(BodyBytes(body): BodyBytes, expected: u16) -> Load {
        let head = format!(
            "POST {PATH} HTTP/1.1\r\nhost: orders.internal\r\nuser-agent: bench\r\naccept: */*\r\n\
             content-type: application/octet-stream\r\ncontent-length: {body}\r\n\r\n"
        );
        let mut request = head.into_bytes();
        request.resize(request.len() + body, b'x');
        Load { request: request.into(), expected }
    }

    /// A GET, which no default configuration protects.
    pub fn get(expected: u16) -> Load {
        Load::get_from(PATH, expected)
    }

    /// The same, from another path.
    pub fn get_from(path: &str, expected: u16) -> Load {
        let head = format!("GET {path} HTTP/1.1\r\nhost: orders.internal\r\nuser-agent: bench\r\naccept: */*\r\n\r\n");
        Load { request: head.as_bytes().into(), expected }
    }

    /// Names and values of the headers that are kept of such a request, and its body: what a message of it must take.
    pub fn message_bytes(&self) -> usize {
        let head_length = self.request.windows(4).position(|bytes| bytes == b"\r\n\r\n").map_or(0, |at| at + 4);
        let (head, body) = self.request.split_at(head_length);
        let kept = head.split(|byte| *byte == b'\n').map(|line| kept_bytes(line.trim_ascii()));
        kept.sum::<usize>() + ADDED_BYTES + body.len()
    }

    /// The request's bytes.
    pub fn request(&self) -> &[u8] {
        &self.request
    }

    /// Whether an answer's head is the one that it must get, on a connection that stays.
    pub fn check(&self, head: &[u8]) -> Result<(), Failure> {
        if status(head) != Some(self.expected) {
            let head = String::from_utf8_lossy(head).into_owned();
            return Err(Failure::Answer { expected: self.expected, head });
        }
        if header(head, b"connection:").is_some_and(|value| value.eq_ignore_ascii_case(b"close")) {
            let error = io::Error::new(ErrorKind::ConnectionAborted, "Envoy announced that it closes it");
            return Err(Failure::Connection { error });
        }
        Ok(())
    }

    /// Sends this many requests to `port` of the loopback interface and waits for all answers.
    pub async fn run(&self, port: u16, requests: u64) -> Result<(), Failure> {
        let left = Arc::new(AtomicU64::new(requests));
        let mut connections = JoinSet::new();
        for _ in 0..CONNECTIONS.min(requests) {
            connections.spawn(one_connection(self.clone(), port, Arc::clone(&left)));
        }
        let all = async {
            while let Some(ended) = connections.join_next().await {
                ended.map_err(|error| Failure::Connection { error: io::Error::other(error) })??;
            }
            Ok(())
        };
        let too_late = |_| Failure::TooLate {
            what: format!("{requests} requests are answered"),
            seen: format!("{} not yet sent", left.load(Ordering::Relaxed)),
        };
        timeout(BATCH_WITHIN, all).await.map_err(too_late)?
    }
}

async fn one_connection(load: Load, port: u16, left: Arc<AtomicU64>) -> Result<(), Failure> {
    let lost = |error| Failure::Connection { error };
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.map_err(lost)?;
    // Head and body go out in one write; Nagle's algorithm would only hold back the rest of a split one.
    stream.set_nodelay(true).map_err(lost)?;
    let mut buffer = Vec::with_capacity(4096);
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
        let head_length = exchange(&mut stream, &load.request, &mut buffer).await.map_err(lost)?;
        load.check(&buffer[..head_length])?;
    }
    Ok(())
}

/// One request and its whole answer; how long the answer's head in `buffer` is.
async fn exchange(stream: &mut TcpStream, request: &[u8], buffer: &mut Vec<u8>) -> io::Result<usize> {
    buffer.clear();
    stream.write_all(request).await?;
    loop {
        if stream.read_buf(buffer).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if let Some(head_length) = whole_answer(buffer)? {
            return Ok(head_length);
        }
    }
}

/// How long the head of the answer in `buffer` is, once the answer is whole.
pub fn whole_answer(buffer: &[u8]) -> io::Result<Option<usize>> {
    let Some(head_length) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n").map(|at| at + 4) else {
        return Ok(None);
    };
    let is_whole = buffer.len() >= head_length + body_length(&buffer[..head_length])?;
    Ok(is_whole.then_some(head_length))
}

/// Of one line of a request's head: method and path; a host's value only, since it is kept as the authority; nothing of
/// the framing; name and value of any other header.
fn kept_bytes(line: &[u8]) -> usize {
    if line.starts_with(b"content-length:") {
        return 0;
    }
    let text = line.strip_suffix(b" HTTP/1.1").or(line.strip_prefix(b"host:")).unwrap_or(line);
    text.iter().filter(|byte| !matches!(byte, b':' | b' ')).count()
}

fn status(head: &[u8]) -> Option<u16> {
    std::str::from_utf8(head.get(9..12)?).ok()?.parse().ok()
}

fn body_length(head: &[u8]) -> io::Result<usize> {
    let length = header(head, b"content-length:").and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
    length.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "an answer without content-length"))
}

/// The value of a header by its name with the colon.
fn header<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    head.split(|byte| *byte == b'\n').find_map(|line| {
        let (start, value) = line.split_at_checked(name.len())?;
        start.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_answer_it_reads_status_length_and_connection() {
        let head = b"HTTP/1.1 202 Accepted\r\nContent-Length: 57\r\nconnection: close\r\n\r\n";
        assert_eq!(status(head), Some(202));
        assert_eq!(body_length(head).unwrap(), 57);
        assert_eq!(header(head, b"connection:"), Some(&b"close"[..]));
        assert!(body_length(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }

    #[test]
    fn an_answer_is_whole_with_the_last_byte_of_its_body() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        let head_length = answer.len() - 2;
        assert_eq!(whole_answer(answer).unwrap(), Some(head_length));
        for length in [0, head_length - 1, head_length, head_length + 1] {
            assert_eq!(whole_answer(&answer[..length]).unwrap(), None, "{length}");
        }
    }

    #[test]
    fn a_message_is_what_is_kept_of_a_request() {
        let kept = "POST/ordersorders.internaluser-agentbenchaccept*/*content-typeapplication/octet-stream";
        assert_eq!(Load::post(BodyBytes(256), 202).message_bytes(), kept.len() + ADDED_BYTES + 256);
    }
}
