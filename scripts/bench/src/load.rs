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
const CONNECTIONS: u64 = 16;
/// The message size of every row (issue table: 1 KiB).
const BODY_BYTES: usize = 1024;
/// A batch takes seconds; a machine busy with other things may need many times that, a hang for ever.
const BATCH_WITHIN: Duration = Duration::from_secs(120);

/// One kind of request and the status that it must be answered with.
#[derive(Clone)]
pub struct Load {
    request: Arc<[u8]>,
    expected: u16,
}

impl Load {
    /// A POST of 1 KiB.
    pub fn post(expected: u16) -> Load {
        let head = format!(
            "POST /orders HTTP/1.1\r\nhost: orders.internal\r\nuser-agent: bench\r\naccept: */*\r\n\
             content-type: application/octet-stream\r\ncontent-length: {BODY_BYTES}\r\n\r\n"
        );
        let mut request = head.into_bytes();
        request.resize(request.len() + BODY_BYTES, b'x');
        Load { request: request.into(), expected }
    }

    /// A GET, which no default configuration protects.
    pub fn get(expected: u16) -> Load {
        let head = "GET /orders HTTP/1.1\r\nhost: orders.internal\r\nuser-agent: bench\r\naccept: */*\r\n\r\n";
        Load { request: head.as_bytes().into(), expected }
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
        let head = &buffer[..head_length];
        if status(head) != Some(load.expected) {
            return Err(Failure::Answer { expected: load.expected, head: String::from_utf8_lossy(head).into_owned() });
        }
        if header(head, b"connection:").is_some_and(|value| value.eq_ignore_ascii_case(b"close")) {
            return Err(lost(io::Error::new(ErrorKind::ConnectionAborted, "Envoy announced that it closes it")));
        }
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
        let Some(head_length) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n").map(|at| at + 4) else {
            continue;
        };
        if buffer.len() >= head_length + body_length(&buffer[..head_length])? {
            return Ok(head_length);
        }
    }
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
}
