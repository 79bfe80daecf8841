//! A response on its way out: through the filter, to the sender; and the end of the stream.
//!
//! A local reply goes through the filter only if nothing has been encoded yet. One that a guest makes out of a response
//! that it holds goes to the sender directly, and the filter does not see it (sendLocalReply in filter_manager.cc; cases
//! `reply::in_request_headers`, `reply::failure_with_body_replaced`, `reply::held_failure_answered_from_a_tick`).
//! What a filter holds: `stream::pause_response_headers`, `stream::pause_response_headers_option_given`,
//! `stream::pause_response_body`.

use super::decode::Answered;
use super::{Thread, Turn};
use crate::abi::Callback;
use crate::connection::{Then, leave};
use crate::happening::Happening;
use crate::http::Response;
use crate::ids::{ContextId, StreamId, VmId};
use crate::network::{Origin, flag};
use crate::plugin::HeadersStop;
use crate::stream::{Encode, End, Part};
use crate::unary::{as_call, is_call};
use std::collections::VecDeque;

impl Thread {
    /// Envoy, a filter or a guest answers in the receiver's place.
    pub(super) fn local_reply(&mut self, stream: StreamId, reply: Response, details: String) -> Turn<'_, ()> {
        self.local_reply_saying(stream, reply, details, None)
    }

    /// The same, with a status of gRPC if the request is a call.
    pub(super) fn local_reply_saying(
        &mut self,
        stream: StreamId,
        reply: Response,
        details: String,
        said: Option<u32>,
    ) -> Turn<'_, ()> {
        Box::pin(async move {
            let fate = self.change(stream, |stream| {
                if stream.is_finished {
                    return None;
                }
                stream.is_aborted = true;
                stream.info.details = Some(details);
                if stream.response_headers_continued {
                    return Some(Reply::TooLate);
                }
                stream.info.code = Some(reply.code());
                stream.response = if is_call(&stream.request) { as_call(reply, said) } else { reply };
                stream.parts.clear();
                Some(if stream.encode == Encode::None { Reply::ThroughTheFilter } else { Reply::Directly })
            });
            match fate.flatten() {
                Some(Reply::ThroughTheFilter) => {
                    let body = self.change(stream, |stream| std::mem::take(&mut stream.response.body));
                    let parts = body.filter(|body| !body.is_empty()).map(|body| Part::Data(body, End::Last));
                    self.encode(stream, parts.into_iter().collect()).await;
                }
                Some(Reply::Directly) => self.send(stream).await,
                Some(Reply::TooLate) => self.finish(stream, Happening::Reset { stream }).await,
                None => {}
            }
        })
    }

    /// Shows the filter a response, and sends it unless the filter holds it.
    pub(super) async fn encode(&mut self, stream: StreamId, parts: VecDeque<Part>) {
        let end = parts.is_empty();
        let Some(count) = self.change(stream, |stream| {
            stream.encode = Encode::InFilter;
            stream.visible.response_headers = true;
            stream.parts = parts;
            stream.response.headers.count()
        }) else {
            return;
        };
        let answered = self.encode_callback(stream, Callback::ResponseHeaders, [count, u32::from(end)]).await;
        if self.is_elsewhere(stream) {
            return;
        }
        match (answered, self.headers_stop(stream)) {
            (Answered::With(0) | Answered::Failed, _) => {
                self.change(stream, |stream| {
                    stream.visible.response_headers = false;
                    stream.response_headers_continued = true;
                });
                self.encode_parts(stream).await;
            }
            // The body's callback may let the headers go; without a body, only the guest can.
            (Answered::With(1), HeadersStop::HeadersOnly) => self.encode_parts(stream).await,
            (Answered::With(_) | Answered::WithReply, _) => {
                self.change(stream, |stream| stream.encode = if end { Encode::Held } else { Encode::HeldWhole });
            }
        }
    }

    /// Another answer has taken the response's place meanwhile, or the stream is over.
    fn is_elsewhere(&self, stream: StreamId) -> bool {
        self.stream(stream, |stream| stream.encode == Encode::InFilter && !stream.is_finished) != Some(true)
    }

    /// A stream that was failed is not shown to the guest any more (failure_local_reply_sent_).
    async fn encode_callback(&mut self, stream: StreamId, callback: Callback, rest: [u32; 2]) -> Answered {
        if self.stream(stream, |stream| stream.has_failed) == Some(true) {
            return Answered::With(0);
        }
        self.stream_callback(stream, callback, rest).await
    }

    /// Shows the filter what is behind the headers; then the response leaves, or is held.
    async fn encode_parts(&mut self, stream: StreamId) {
        while let Some(part) = self.change(stream, |stream| stream.parts.pop_front()).flatten() {
            let answered = match part {
                Part::Data(bytes, end) => self.encode_data(stream, bytes, end).await,
                Part::Trailers => self.encode_trailers(stream).await,
                Part::Cut => return self.cut(stream).await,
            };
            if self.is_elsewhere(stream) {
                return;
            }
            self.part_answered(stream, answered);
        }
        let is_held = self.change(stream, |stream| {
            let is_held = stream.is_response_held;
            if is_held {
                stream.encode = Encode::Held;
            }
            is_held
        });
        if is_held == Some(false) {
            self.send(stream).await;
        }
    }

    async fn encode_data(&mut self, stream: StreamId, bytes: Vec<u8>, end: End) -> Answered {
        let size = self.change(stream, |stream| {
            if stream.is_response_buffering {
                stream.response_buffered.extend_from_slice(&bytes);
                return stream.response_buffered.len();
            }
            stream.response_piece = bytes;
            stream.response_piece.len()
        });
        let size = u32::try_from(size.unwrap_or(0)).unwrap_or(u32::MAX);
        self.encode_callback(stream, Callback::ResponseBody, [size, u32::from(end == End::Last)]).await
    }

    async fn encode_trailers(&mut self, stream: StreamId) -> Answered {
        let count = self.change(stream, |stream| {
            stream.visible.response_trailers = true;
            stream.response.trailers.count()
        });
        self.encode_callback(stream, Callback::ResponseTrailers, [count.unwrap_or(0), 0]).await
    }

    /// What becomes of a piece: as on the way in, it goes on with all that waits, or is kept.
    fn part_answered(&self, stream: StreamId, answered: Answered) {
        self.change(stream, |stream| {
            let piece = std::mem::take(&mut stream.response_piece);
            stream.response_buffered.extend_from_slice(&piece);
            stream.is_response_buffering = answered == Answered::With(1);
            stream.is_response_held = !matches!(answered, Answered::With(0) | Answered::Failed);
            if !stream.is_response_held {
                stream.response_headers_continued = true;
                stream.response.body.append(&mut stream.response_buffered);
            }
        });
    }

    /// The receiver's connection ended in the middle of its answer.
    async fn cut(&mut self, stream: StreamId) {
        self.change(stream, |stream| {
            stream.info.flags |= flag::PROTOCOL_ERROR;
            stream.info.details = Some("upstream_reset_after_response_started{protocol_error}".to_owned());
        });
        self.finish(stream, Happening::Reset { stream }).await;
    }

    /// The guest lets a response go.
    pub(super) async fn continue_response(&mut self, stream: StreamId) {
        let was = self.change(stream, |stream| {
            let was = stream.encode;
            if matches!(was, Encode::HeldWhole | Encode::Held) {
                stream.encode = Encode::InFilter;
                stream.visible.response_headers = false;
                stream.visible.response_trailers = false;
                stream.response_headers_continued = true;
                stream.response.body.append(&mut stream.response_buffered);
            }
            was
        });
        match was {
            Some(Encode::HeldWhole) => {
                self.change(stream, |stream| stream.parts = joined(std::mem::take(&mut stream.parts)));
                self.encode_parts(stream).await;
            }
            Some(Encode::Held) => self.send(stream).await,
            Some(Encode::None | Encode::InFilter | Encode::Sent) | None => {}
        }
    }

    /// The response leaves for the sender, and with it the stream ends.
    async fn send(&mut self, stream: StreamId) {
        let now = self.shared.lock().clock.wall();
        let Some(response) = self.change(stream, |stream| {
            stream.encode = Encode::Sent;
            stream.info.code = Some(stream.response.code());
            let is_last = stream.wants_close || !stream.request_complete;
            leave(&mut stream.response.headers, now, if is_last { Then::Close } else { Then::KeepAlive });
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
                    (outgoing.cluster.clone(), outgoing.attempt)
                });
                (Some(stream.guest()), out)
            }) else {
                return;
            };
            let Some(guest) = guest else { return };
            if let Some((cluster, attempt)) = out {
                let mut shared = self.shared.lock();
                shared.clusters.back(&cluster);
                shared.hang_up(Origin::Live(stream), attempt);
            }
            if let Some((vm, context)) = guest {
                self.end_context(stream, vm, context).await;
            }
            let mut shared = self.shared.lock();
            let ended = shared.streams.remove(&stream);
            match ended.and_then(|ended| Some((ended.caller?, ended))) {
                None => shared.happened(happening),
                Some((caller, ended)) => shared.answer_caller(caller, ended, happening),
            }
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

/// Where a local reply goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reply {
    ThroughTheFilter,
    /// To the sender, in the place of what the filter holds.
    Directly,
    /// Headers have left already: the sender's connection is closed.
    TooLate,
}

/// A body that waited as a whole is shown as a whole (iterate_from_current_filter).
fn joined(parts: VecDeque<Part>) -> VecDeque<Part> {
    let mut body = Vec::new();
    let mut last = End::More;
    let mut rest = VecDeque::new();
    for part in parts {
        match part {
            Part::Data(bytes, end) => {
                body.extend(bytes);
                last = end;
            }
            Part::Trailers | Part::Cut => rest.push_back(part),
        }
    }
    if !body.is_empty() {
        rest.push_front(Part::Data(body, last));
    }
    rest
}
