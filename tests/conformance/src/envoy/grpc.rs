//! A receiver that speaks gRPC: HTTP/2 without TLS, one answer for every call.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use h2::server::{self, SendResponse};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tokio::net::{TcpListener, TcpStream};

use crate::arm::Problem;
use crate::case::{GrpcAnswer, GrpcForm};
use crate::observation::Message;

/// A receiver; it ends with the runtime that runs it.
pub struct GrpcReceiver {
    port: u16,
    received: Arc<Mutex<Vec<Message>>>,
}

impl GrpcReceiver {
    /// Listens on a free port.
    ///
    /// # Errors
    /// If there is none.
    pub async fn start(answer: &GrpcAnswer) -> Result<GrpcReceiver, Problem> {
        let problem = |error: std::io::Error| Problem::CannotDo(format!("listen for gRPC: {error}"));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(problem)?;
        let port = listener.local_addr().map_err(problem)?.port();
        let received = Arc::default();
        tokio::spawn(accept(listener, answer.clone(), Arc::clone(&received)));
        Ok(GrpcReceiver { port, received })
    }

    /// Where it listens.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// What it has read to its end.
    pub fn received(&self) -> Vec<Message> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn accept(listener: TcpListener, answer: GrpcAnswer, received: Arc<Mutex<Vec<Message>>>) {
    while let Ok((socket, _)) = listener.accept().await {
        tokio::spawn(serve(socket, answer.clone(), Arc::clone(&received)));
    }
}

/// One connection. It ends when Envoy closes it, which is no failure; and a failure shows as an answer that does not come.
async fn serve(socket: TcpStream, answer: GrpcAnswer, received: Arc<Mutex<Vec<Message>>>) -> Result<(), h2::Error> {
    let mut connection = server::handshake(socket).await?;
    while let Some(accepted) = connection.accept().await {
        let (request, respond) = accepted?;
        tokio::spawn(call(request, respond, answer.clone(), Arc::clone(&received)));
    }
    Ok(())
}

async fn call(
    request: Request<h2::RecvStream>,
    respond: SendResponse<Bytes>,
    answer: GrpcAnswer,
    received: Arc<Mutex<Vec<Message>>>,
) -> Result<(), h2::Error> {
    let (head, mut stream) = request.into_parts();
    let mut body = Vec::new();
    while let Some(piece) = stream.data().await {
        let piece = piece?;
        stream.flow_control().release_capacity(piece.len())?;
        body.extend_from_slice(&piece);
    }
    let host = head.uri.authority().map(|authority| ("host".to_owned(), authority.as_str().as_bytes().to_vec()));
    let plain = head.headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
    let headers = host.into_iter().chain(plain).collect();
    let start = format!("{} {}", head.method, head.uri.path());
    received.lock().unwrap_or_else(PoisonError::into_inner).push(Message { start, headers, body });
    reply(respond, &answer)
}

fn reply(mut respond: SendResponse<Bytes>, answer: &GrpcAnswer) -> Result<(), h2::Error> {
    let mut response = Response::new(());
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    match answer.form {
        GrpcForm::TrailersOnly => {
            response.headers_mut().extend(status(answer));
            respond.send_response(response, true).map(drop)
        }
        GrpcForm::Whole => {
            let mut stream = respond.send_response(response, false)?;
            if let Some(message) = &answer.message {
                stream.send_data(Bytes::from(message.framed()), false)?;
            }
            stream.send_trailers(status(answer))
        }
    }
}

fn status(answer: &GrpcAnswer) -> HeaderMap {
    let pairs = answer.status_headers().into_iter().filter_map(|(name, value)| {
        Some((HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).ok()?))
    });
    pairs.collect()
}
