//! A sender that speaks HTTP/2 with prior knowledge: one connection, one request, one answer.
//!
//! It never pools and never retries; the HTTP/1.1 sender is the one for byte-exact work.

use std::net::Ipv4Addr;

use bytes::Bytes;
use h2::client;
use http::{HeaderMap, HeaderValue};
use tokio::net::TcpStream;

use crate::sender::{Request, Response};
use crate::wire::Headers;

/// Sends `request` over HTTP/2. Framing follows from HTTP/2; only the payload of the body counts.
///
/// # Panics
/// If Envoy does not answer in full.
pub async fn send(port: u16, request: &Request) -> Response {
    exchange(port, request, None).await
}

/// As `send`, with one trailer after the body.
///
/// # Panics
/// If Envoy does not answer in full.
pub async fn send_with_trailers(port: u16, request: &Request) -> Response {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", HeaderValue::from_static("after the body"));
    exchange(port, request, Some(trailers)).await
}

async fn exchange(port: u16, request: &Request, trailers: Option<HeaderMap>) -> Response {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("Envoy's listener accepts");
    let (client, connection) = client::handshake(stream).await.expect("HTTP/2 by prior knowledge");
    let driver = tokio::spawn(connection);
    let mut client = client.ready().await.expect("a stream is free");
    let payload = request.payload();
    let bare = payload.is_empty() && trailers.is_none();
    let (response, body) = client.send_request(head_of(request), bare).expect("a valid request");
    let upload = tokio::spawn(upload(body, payload, trailers));
    let (head, body) = response.await.expect("an answer over HTTP/2").into_parts();
    let body = download(body).await;
    upload.abort();
    driver.abort();
    let headers = head.headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
    Response { status: head.status.as_u16(), interim: Vec::new(), headers: Headers(headers), body }
}

fn head_of(request: &Request) -> http::Request<()> {
    let uri = format!("http://{}{}", request.authority, request.path);
    let mut head = http::Request::builder().method(request.method.as_str()).uri(uri);
    for (name, value) in &request.headers.0 {
        head = head.header(name.as_str(), value.as_slice());
    }
    head.body(()).expect("a valid request")
}

/// Sends as the flow-control window allows. A stream that Envoy has closed early needs no more bytes.
async fn upload(mut stream: h2::SendStream<Bytes>, payload: Vec<u8>, trailers: Option<HeaderMap>) {
    let mut rest = Bytes::from(payload);
    while !rest.is_empty() {
        stream.reserve_capacity(rest.len());
        let Some(Ok(room)) = std::future::poll_fn(|context| stream.poll_capacity(context)).await else { return };
        let piece = rest.split_to(room.min(rest.len()));
        if stream.send_data(piece, rest.is_empty() && trailers.is_none()).is_err() {
            return;
        }
    }
    if let Some(trailers) = trailers {
        // As above: who has answered already needs no more.
        stream.send_trailers(trailers).ok();
    }
}

async fn download(mut body: h2::RecvStream) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece.expect("an unbroken answer");
        body.flow_control().release_capacity(piece.len()).expect("bytes that were received");
        whole.extend_from_slice(&piece);
    }
    whole
}
