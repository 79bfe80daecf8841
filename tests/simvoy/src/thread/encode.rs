//! A response on its way out: through the filter, to the sender; and the end of the stream.
//!
//! A local reply goes through the filter only if nothing has been encoded yet. One that a guest makes out of a response
//! that it holds goes to the sender directly, and the filter does not see it (sendLocalReply in filter_manager.cc).

use super::decode::Answered;
use super::router::Broken;
use super::{Thread, Turn};
use crate::abi::Callback;
use crate::http::Response;
use crate::ids::{ContextId, StreamId, VmId};
use crate::plugin::HeadersStop;
use crate::shared::Happening;
use crate::stream::Encode;

impl Thread {
    /// Envoy, a filter or a guest answers in the receiver's place.
    pub(super) fn local_reply(&mut self, stream: StreamId, reply: Response, details: String) -> Turn<'_, ()> {
        Box::pin(async move {
            let encode = self.change(stream, |stream| {
                if stream.is_finished {
                    return None;
                }
                stream.is_aborted = true;
                stream.info.details = Some(details);
                stream.info.code = Some(reply.code());
                let encode = stream.encode;
                if encode != Encode::Sent {
                    stream.response = reply;
                }
                Some(encode)
            });
            match encode.flatten() {
                Some(Encode::None) => self.encode(stream, None).await,
                Some(Encode::InFilter | Encode::Held) => self.send(stream).await,
                Some(Encode::Sent) => self.finish(stream, Happening::Reset { stream }).await,
                None => {}
            }
        })
    }

    /// Shows the filter a response, and sends it unless the filter holds it.
    pub(super) async fn encode(&mut self, stream: StreamId, broken: Option<Broken>) {
        let Some((count, end)) = self.change(stream, |stream| {
            stream.encode = Encode::InFilter;
            stream.visible.response_headers = true;
            let response = &stream.response;
            (response.headers.count(), broken.is_none() && response.body.is_empty() && response.trailers.0.is_empty())
        }) else {
            return;
        };
        let answered = self.encode_callback(stream, Callback::ResponseHeaders, [count, u32::from(end)]).await;
        if self.stream(stream, |stream| stream.encode == Encode::InFilter) != Some(true) {
            return;
        }
        let stop = self.headers_stop(stream);
        let holds = match (answered, stop) {
            (Answered::With(0) | Answered::FailedOpen | Answered::Failed, _) => Holds::Nothing,
            (Answered::With(1), HeadersStop::HeadersOnly) => Holds::Headers,
            (Answered::With(_) | Answered::WithReply, _) => Holds::Everything,
        };
        match holds {
            Holds::Nothing => {
                self.change(stream, |stream| stream.visible.response_headers = false);
                self.encode_body(stream, broken).await;
            }
            // The body's callback may let the headers go; without a body, only the guest can.
            Holds::Headers if !end => self.encode_body(stream, broken).await,
            Holds::Headers | Holds::Everything => {
                self.change(stream, |stream| stream.encode = Encode::Held);
            }
        }
    }

    /// A stream that was failed is not shown to the guest any more (failure_local_reply_sent_).
    async fn encode_callback(&mut self, stream: StreamId, callback: Callback, rest: [u32; 2]) -> Answered {
        if self.stream(stream, |stream| stream.has_failed) == Some(true) {
            return Answered::With(0);
        }
        self.stream_callback(stream, callback, rest).await
    }

    async fn encode_body(&mut self, stream: StreamId, broken: Option<Broken>) {
        let Some((size, trailers)) =
            self.stream(stream, |stream| (stream.response.body.len(), stream.response.trailers.count()))
        else {
            return;
        };
        if size > 0 && self.encode_piece(stream, size, trailers == 0 && broken.is_none()).await == Goes::Nowhere {
            return;
        }
        if trailers > 0 {
            self.change(stream, |stream| stream.visible.response_trailers = true);
            let answered = self.encode_callback(stream, Callback::ResponseTrailers, [trailers, 0]).await;
            if self.is_held_by(stream, answered) {
                return;
            }
        }
        match broken {
            None => self.send(stream).await,
            Some(Broken) => self.finish(stream, Happening::Reset { stream }).await,
        }
    }

    /// The body, in the pieces in which an HTTP/1 codec gives it: what has come, and its end (measured).
    async fn encode_piece(&mut self, stream: StreamId, size: usize, ends: bool) -> Goes {
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        let is_upstreams = self.stream(stream, |stream| stream.info.details.as_deref() == Some("via_upstream"));
        let pieces: &[(u32, bool)] =
            if is_upstreams == Some(true) && ends { &[(size, false), (0, true)] } else { &[(size, ends)] };
        for (size, end) in pieces {
            let answered = self.encode_callback(stream, Callback::ResponseBody, [*size, u32::from(*end)]).await;
            if self.is_held_by(stream, answered) {
                return Goes::Nowhere;
            }
        }
        Goes::On
    }

    /// Whether the response stays, or has gone another way meanwhile.
    fn is_held_by(&self, stream: StreamId, answered: Answered) -> bool {
        if self.stream(stream, |stream| stream.encode == Encode::InFilter) != Some(true) {
            return true;
        }
        match answered {
            Answered::With(0) | Answered::FailedOpen | Answered::Failed => false,
            Answered::With(_) | Answered::WithReply => {
                self.change(stream, |stream| stream.encode = Encode::Held);
                true
            }
        }
    }

    /// The guest lets a response go.
    pub(super) async fn continue_response(&mut self, stream: StreamId) {
        if self.stream(stream, |stream| stream.encode) == Some(Encode::Held) {
            self.change(stream, |stream| stream.visible.response_headers = false);
            self.send(stream).await;
        }
    }

    /// The response leaves for the sender, and with it the stream ends.
    async fn send(&mut self, stream: StreamId) {
        let Some(response) = self.change(stream, |stream| {
            stream.encode = Encode::Sent;
            stream.response.clone()
        }) else {
            return;
        };
        self.finish(stream, Happening::Answered { stream, response }).await;
    }

    /// The end: what is out is cancelled, the guest hears log, done and delete, and the sender gets its bytes; in this
    /// order (PLATFORM 0: `on_log` runs before the bytes of a reply leave).
    pub(super) fn finish(&mut self, stream: StreamId, happening: Happening) -> Turn<'_, ()> {
        Box::pin(async move {
            let Some((guest, out)) = self.change(stream, |stream| {
                if std::mem::replace(&mut stream.is_finished, true) {
                    return (None, None);
                }
                stream.visible.log = true;
                let out = stream.outgoing.as_mut().filter(|outgoing| outgoing.is_out).map(|outgoing| {
                    outgoing.is_out = false;
                    outgoing.cluster.clone()
                });
                (Some(stream.guest()), out)
            }) else {
                return;
            };
            let Some(guest) = guest else { return };
            if let Some(cluster) = out {
                self.shared.lock().clusters.back(&cluster);
            }
            if let Some((vm, context)) = guest {
                self.end_context(stream, vm, context).await;
            }
            let mut shared = self.shared.lock();
            shared.streams.remove(&stream);
            shared.happened(happening);
        })
    }

    async fn end_context(&mut self, stream: StreamId, vm: VmId, context: ContextId) {
        for callback in [Callback::Log, Callback::Done, Callback::Delete] {
            // A dead VM hears nothing.
            let _heard = self.root_callback(vm, context, callback, [context.0, 0, 0, 0, 0]).await;
            if callback == Callback::Log {
                self.change(stream, |stream| stream.visible.log = false);
            }
        }
        self.shared.lock().remove_context(vm, context);
        self.sweep_vms();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    Nothing,
    Headers,
    Everything,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goes {
    On,
    Nowhere,
}
