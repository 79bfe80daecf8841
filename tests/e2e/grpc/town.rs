//! A real gRPC receiver and sender (tonic), messages as raw bytes: no schema is under test.
//!
//! | the receiver says | on the wire |
//! | --- | --- |
//! | `Ok` | headers, one message, trailers with `grpc-status: 0` |
//! | `TrailersOnly` | headers with `grpc-status`, and nothing else |
//! | `Trailers` | headers, trailers with `grpc-status` |
//! | `MessageThenTrailers` | headers, one message, trailers with `grpc-status` that is no success |
//! | `Http` | an HTTP status and no gRPC answer at all |
//! | `Hang` | nothing |
//!
//! The method `/orders.Orders/Echo` is a streaming one: each message comes back as it arrives. Neither side ever tries
//! again by itself.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, BufMut};
use http::HeaderMap;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use redeliver_tests::bootstrap::http2_options;
use redeliver_tests::ports::free_port;
use redeliver_tests::{Destination, eventually};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_stream::{Stream, iter};
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{ServerStreamingService, StreamingService, UnaryService};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};

/// The path of a unary method.
pub const PLACE: &str = "/orders.Orders/Place";
/// The path of the streaming method.
pub const ECHO: &str = "/orders.Orders/Echo";

/// What the receiver says to a call.
#[derive(Clone, Copy, Debug)]
pub enum Say {
    Ok,
    TrailersOnly(Code),
    Trailers(Code),
    MessageThenTrailers(Code),
    Http(u16),
    Hang,
}

/// One call as it arrived.
#[derive(Clone, Debug)]
pub struct Call {
    pub path: String,
    pub headers: HeaderMap,
    pub message: Vec<u8>,
}

impl Call {
    /// A header's only value.
    pub fn header(&self, name: &str) -> Option<String> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next()?;
        assert_eq!(values.next(), None, "{name} is there twice: {self:?}");
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    }
}

type Script = Box<dyn Fn(&Call) -> Say + Send>;

struct Shared {
    script: Mutex<Script>,
    calls: Mutex<Vec<Call>>,
}

/// A gRPC receiver on a port of its own.
pub struct GrpcReceiver {
    port: u16,
    shared: Arc<Shared>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl GrpcReceiver {
    /// One that says `Ok` to everything.
    pub async fn start() -> GrpcReceiver {
        let receiver = GrpcReceiver::absent();
        receiver.come_back().await;
        receiver
    }

    /// One whose port refuses until `come_back`.
    pub fn absent() -> GrpcReceiver {
        let shared = Shared { script: Mutex::new(Box::new(|_| Say::Ok)), calls: Mutex::default() };
        GrpcReceiver { port: free_port(), shared: Arc::new(shared), task: Mutex::default() }
    }

    /// The destination `orders` in Envoy, which speaks HTTP/2 to it.
    pub fn destination(&self) -> Destination {
        grpc_destination(self.port)
    }

    /// From now on says this to every call.
    pub fn say(&self, say: Say) {
        self.say_by(move |_| say);
    }

    /// From now on says to each call what `script` says.
    pub fn say_by(&self, script: impl Fn(&Call) -> Say + Send + 'static) {
        *locked(&self.shared.script) = Box::new(script);
    }

    /// All calls so far; streaming ones are not recorded.
    pub fn calls(&self) -> Vec<Call> {
        locked(&self.shared.calls).clone()
    }

    /// Cuts every connection; then the port refuses.
    pub async fn refuse(&self) {
        let task = locked(&self.task).take();
        if let Some(task) = task {
            task.abort();
            // It was told to end before its time, so it says so.
            task.await.ok();
        }
    }

    /// Listens on the same port.
    pub async fn come_back(&self) {
        self.refuse().await;
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.expect("the port stayed ours");
        *locked(&self.task) = Some(tokio::spawn(accept(listener, Arc::clone(&self.shared))));
    }
}

impl Drop for GrpcReceiver {
    fn drop(&mut self) {
        if let Some(task) = locked(&self.task).take() {
            task.abort();
        }
    }
}

/// A cluster `orders` that speaks HTTP/2 to `port`.
pub fn grpc_destination(port: u16) -> Destination {
    Destination::new("orders", port).with("typed_extension_protocol_options", http2_options())
}

/// The connections end with the task.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("accepting on loopback");
        connections.spawn(serve(stream, Arc::clone(&shared)));
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let service = hyper::service::service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, std::convert::Infallible>(answer(request, shared).await) }
    });
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    // A proxy that cuts a connection is a case under test.
    connection.serve_connection(TokioIo::new(stream), service).await.ok();
}

async fn answer(request: http::Request<Incoming>, shared: Arc<Shared>) -> http::Response<Body> {
    let mut server = tonic::server::Grpc::new(Raw);
    let path = request.uri().path().to_owned();
    if path == ECHO {
        return server.streaming(Echo, request).await;
    }
    let call = Call { path, headers: request.headers().clone(), message: Vec::new() };
    let say = locked(&shared.script)(&call);
    let method = Method { call, shared, say };
    match say {
        Say::Ok | Say::TrailersOnly(_) | Say::Hang => server.unary(method, request).await,
        Say::Trailers(_) | Say::MessageThenTrailers(_) => server.server_streaming(method, request).await,
        Say::Http(status) => {
            let mut response = http::Response::new(Body::empty());
            *response.status_mut() = http::StatusCode::from_u16(status).expect("a status");
            response
        }
    }
}

struct Method {
    call: Call,
    shared: Arc<Shared>,
    say: Say,
}

impl Method {
    fn record(&self, message: &[u8]) {
        locked(&self.shared.calls).push(Call { message: message.to_vec(), ..self.call.clone() });
    }
}

type Answer<T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>;
type Messages = Pin<Box<dyn Stream<Item = Result<Vec<u8>, Status>> + Send>>;

impl UnaryService<Vec<u8>> for Method {
    type Response = Vec<u8>;
    type Future = Answer<Vec<u8>>;

    fn call(&mut self, request: Request<Vec<u8>>) -> Self::Future {
        self.record(request.get_ref());
        let say = self.say;
        Box::pin(async move {
            match say {
                Say::TrailersOnly(code) => Err(status(code)),
                Say::Hang => std::future::pending().await,
                Say::Ok | Say::Trailers(_) | Say::MessageThenTrailers(_) | Say::Http(_) => {
                    Ok(Response::new(b"done".to_vec()))
                }
            }
        })
    }
}

impl ServerStreamingService<Vec<u8>> for Method {
    type Response = Vec<u8>;
    type ResponseStream = Messages;
    type Future = Answer<Messages>;

    fn call(&mut self, request: Request<Vec<u8>>) -> Self::Future {
        self.record(request.get_ref());
        let messages = match self.say {
            Say::Trailers(code) => vec![Err(status(code))],
            Say::MessageThenTrailers(code) => vec![Ok(b"half".to_vec()), Err(status(code))],
            Say::Ok | Say::TrailersOnly(_) | Say::Http(_) | Say::Hang => Vec::new(),
        };
        Box::pin(async move { Ok(Response::new(Box::pin(iter(messages)) as Messages)) })
    }
}

struct Echo;

impl StreamingService<Vec<u8>> for Echo {
    type Response = Vec<u8>;
    type ResponseStream = Streaming<Vec<u8>>;
    type Future = Answer<Streaming<Vec<u8>>>;

    fn call(&mut self, request: Request<Streaming<Vec<u8>>>) -> Self::Future {
        Box::pin(async move { Ok(Response::new(request.into_inner())) })
    }
}

fn status(code: Code) -> Status {
    Status::new(code, "the receiver says so")
}

/// Messages as they are.
#[derive(Clone, Copy)]
pub struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut message = vec![0; buffer.remaining()];
        buffer.copy_to_slice(&mut message);
        Ok(Some(message))
    }
}

/// A sender with one connection to Envoy.
pub struct GrpcSender {
    client: tonic::client::Grpc<Channel>,
}

impl GrpcSender {
    /// Connects to a port of the loopback interface.
    pub async fn connect(port: u16) -> GrpcSender {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).expect("an address");
        let channel = endpoint.connect().await.expect("Envoy's listener accepts");
        GrpcSender { client: tonic::client::Grpc::new(channel) }
    }

    /// A unary call with metadata and a deadline of 20 s.
    pub async fn call(&mut self, message: &[u8], metadata: &[(&'static str, &'static str)]) -> Result<Vec<u8>, Status> {
        let mut request = Request::new(message.to_vec());
        request.set_timeout(Duration::from_secs(20));
        for (name, value) in metadata {
            request.metadata_mut().insert(*name, value.parse().expect("metadata"));
        }
        self.client.ready().await.expect("the connection is there");
        let answer = self.client.unary(request, PLACE.parse().expect("a path"), Raw).await;
        answer.map(Response::into_inner)
    }

    /// A streaming call of these messages; answers what came back.
    pub async fn echo(
        &mut self,
        messages: impl Stream<Item = Vec<u8>> + Send + 'static,
    ) -> Result<Streaming<Vec<u8>>, Status> {
        self.client.ready().await.expect("the connection is there");
        let answer = self.client.streaming(Request::new(messages), ECHO.parse().expect("a path"), Raw).await;
        answer.map(Response::into_inner)
    }
}

/// Waits until the receiver has had so many calls.
pub async fn wait_calls(receiver: &GrpcReceiver, count: usize) -> Vec<Call> {
    eventually(&format!("{count} calls"), redeliver_tests::SOON, || match receiver.calls() {
        calls if calls.len() >= count => Ok(calls),
        calls => Err(format!("{} calls", calls.len())),
    })
    .await
}

/// A poisoned lock only says that another test thread failed.
fn locked<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
