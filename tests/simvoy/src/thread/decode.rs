//! A request on its way in: through the filter, to the router (Envoy's filter manager with one filter in it).
//!
//! | the filter answers headers with | headers | body |
//! | --- | --- | --- |
//! | 0 Continue | go on | is shown to the filter piece by piece |
//! | 1 with `HeadersOnly` | wait | is shown to the filter, and kept |
//! | anything else, or 1 without the option | wait | is kept and not shown until the filter continues |
//!
//! | the filter answers a piece with | |
//! | --- | --- |
//! | 0 Continue | headers that wait go on, then what is kept, then the piece |
//! | 1 StopAndBuffer | kept; the next callback is about all that is kept; more than the buffer may hold is a 413 |
//! | 2 StopAndWatermark | kept; the next callback is about its own piece; a full buffer stops the reading |
//! | 3 StopNoBuffer | dropped |
//!
//! Source: PLATFORM 0, first rows, and 1.5, row "request body while paused"; the cases `stream::pause_headers_option_given`,
//! `stream::pause_headers_option_missing`, `stream::body_paused_and_continued_by_the_callback`, `stream::body_watermarked`,
//! `stream::body_paused_and_resumed_in_the_middle`, `stream::buffer_full_pause`.

use super::{HasFailed, Thread, Turn};
use crate::abi::Callback;
use crate::calls::envoys_reply;
use crate::guest::Context;
use crate::happening::Happening;
use crate::http::Headers;
use crate::ids::{ContextId, Generation, StreamId, VmId};
use crate::network::flag;
use crate::plugin::HeadersStop;
use crate::stream::{Decode, End, Filter, Piece, Stream};

use super::plugins::Standing;

/// What a stream callback came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// The guest's number; 0 if it does not export the callback.
    With(u32),
    /// A local reply was asked for: nothing goes on, whatever the number was.
    WithReply,
    /// The VM is dead: the stream was failed, whatever the policy, which is for new streams
    /// (`trap::open_stream_waiting_for_its_answer`).
    Failed,
}

/// What a full buffer does (`stream::buffer_full_pause`, `stream::buffer_full_watermark`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WhenFull {
    /// The sender is not read any more until there is room.
    StopReading,
    /// 413.
    Refuse,
}

impl Thread {
    /// A callback of a stream, with what the guest puts off done before the answer is looked at (CHECK_FAIL_HTTP and
    /// DeferAfterCallActions in context.cc).
    pub(super) fn stream_callback(
        &mut self,
        stream: StreamId,
        callback: Callback,
        rest: [u32; 2],
    ) -> Turn<'_, Answered> {
        Box::pin(async move {
            let filter = self.stream(stream, |stream| stream.filter);
            let (vm, context) = match filter {
                Some(Filter::Guest(vm, context)) => (vm, context),
                Some(Filter::Skipped) | None => return Answered::With(0),
                Some(Filter::Dead) => return self.fail_stream(stream).await,
            };
            if self.has_failed(vm) {
                return self.fail_stream(stream).await;
            }
            let answer = self.enter(vm, context, callback, [context.0, rest[0], rest[1], 0, 0]).await;
            let is_stopped = self.shared.lock().vm(vm).is_some_and(|vm| vm.stop_iteration);
            let answered = match answer {
                Err(HasFailed) => self.fail_stream(stream).await,
                Ok(_) if is_stopped => Answered::WithReply,
                Ok(answer) => Answered::With(answer.unwrap_or(0)),
            };
            self.after(vm).await;
            answered
        })
    }

    async fn fail_stream(&mut self, stream: StreamId) -> Answered {
        let is_news = self.change(stream, |stream| !std::mem::replace(&mut stream.has_failed, true)).unwrap_or(false);
        if is_news {
            self.local_reply(stream, envoys_reply(503, "", &[]), "wasm_fail_stream".to_owned()).await;
        }
        Answered::Failed
    }

    /// A request's headers have arrived.
    pub(super) async fn open(&mut self, stream: StreamId, generation: Option<Generation>) {
        let standing = self.standing(generation).await;
        let filter = match standing {
            Standing::Skipped => Filter::Skipped,
            Standing::Dead => Filter::Dead,
            Standing::Root(vm, root) => match self.new_stream_context(stream, vm, root) {
                Some(context) => Filter::Guest(vm, context),
                None => Filter::Dead,
            },
        };
        let Some(end) = self.change(stream, |stream| {
            stream.filter = filter;
            stream.visible.request_headers = true;
            if stream.request_complete { End::Last } else { End::More }
        }) else {
            return;
        };
        self.shared.lock().choose_route(stream);
        if let Filter::Guest(vm, context) = filter {
            self.create_context(vm, context).await;
        }
        self.decode_headers(stream, end).await;
    }

    fn new_stream_context(&self, stream: StreamId, vm: VmId, root: ContextId) -> Option<ContextId> {
        let mut shared = self.shared.lock();
        Some(shared.vm_mut(vm)?.add_context(Context::Stream { stream, root }))
    }

    async fn create_context(&mut self, vm: VmId, context: ContextId) {
        let root = self.shared.lock().vm(vm).map_or(0, |vm| vm.root_of(context).0);
        // If it traps, the next callback fails the stream.
        let _created = self.enter(vm, context, Callback::ContextCreate, [context.0, root, 0, 0, 0]).await;
        self.after(vm).await;
    }

    async fn decode_headers(&mut self, stream: StreamId, end: End) {
        let count = self.stream(stream, |stream| stream.request.count()).unwrap_or(0);
        let answered =
            self.stream_callback(stream, Callback::RequestHeaders, [count, u32::from(end == End::Last)]).await;
        let stop = self.headers_stop(stream);
        let decode = match (answered, stop) {
            (Answered::With(0), _) => Decode::Iterating,
            (Answered::With(1), HeadersStop::HeadersOnly) => Decode::StoppedHeaders,
            (Answered::With(_) | Answered::WithReply | Answered::Failed, _) => Decode::StoppedAll,
        };
        let may_go_on = self.change(stream, |stream| {
            // A guest that has already continued from inside its own callback is past this.
            if stream.headers_continued || stream.is_aborted {
                return false;
            }
            stream.decode = decode;
            if decode == Decode::Iterating {
                stream.visible.request_headers = false;
            }
            decode == Decode::Iterating
        });
        if may_go_on == Some(true) {
            self.headers_go_on(stream).await;
        }
    }

    pub(super) fn headers_stop(&self, stream: StreamId) -> HeadersStop {
        self.stream(stream, |stream| stream.plugin.as_ref().map(|plugin| plugin.headers_stop))
            .flatten()
            .unwrap_or(HeadersStop::Everything)
    }

    /// Headers leave the filter for the router.
    async fn headers_go_on(&mut self, stream: StreamId) {
        let is_whole = self.change(stream, |stream| {
            stream.headers_continued = true;
            stream.request_complete && stream.buffered.is_empty() && stream.request_trailers.is_none()
        });
        match is_whole {
            Some(true) => self.router_headers(stream, End::Last).await,
            Some(false) => self.router_headers(stream, End::More).await,
            None => {}
        }
    }

    /// A piece of a body or trailers have arrived.
    pub(super) async fn arrive(&mut self, stream: StreamId, piece: Piece) {
        let takes = self.change(stream, |stream| {
            if stream.is_finished || stream.is_aborted {
                return false;
            }
            if stream.is_read_disabled {
                stream.unread.push_back(piece.clone());
                return false;
            }
            true
        });
        if takes != Some(true) {
            return;
        }
        match piece {
            Piece::Data(bytes, end) => {
                self.change(stream, |stream| {
                    stream.info.bytes_received += bytes.len() as u64;
                    stream.request_complete = end == End::Last;
                });
                self.decode_data(stream, bytes, end).await;
            }
            Piece::Trailers(trailers) => {
                self.change(stream, |stream| stream.request_complete = true);
                self.decode_trailers(stream, trailers).await;
            }
        }
    }

    async fn decode_data(&mut self, stream: StreamId, bytes: Vec<u8>, end: End) {
        let Some(decode) = self.stream(stream, |stream| stream.decode) else { return };
        if decode == Decode::StoppedAll {
            let is_buffering = self.stream(stream, |stream| stream.is_buffering).unwrap_or(false);
            let full = if is_buffering { WhenFull::Refuse } else { WhenFull::StopReading };
            return self.keep(stream, bytes, full).await;
        }
        self.show_data(stream, bytes, end).await;
    }

    /// Shows the filter a piece of the body, and does with it as it answers.
    fn show_data(&mut self, stream: StreamId, bytes: Vec<u8>, end: End) -> Turn<'_, ()> {
        Box::pin(async move {
            let is_buffering = self.stream(stream, |stream| stream.is_buffering).unwrap_or(false);
            let Some(size) = self.change(stream, |stream| {
                if is_buffering {
                    stream.buffered.extend_from_slice(&bytes);
                }
                stream.piece = bytes;
                if is_buffering { stream.buffered.len() } else { stream.piece.len() }
            }) else {
                return;
            };
            if self.stream(stream, |stream| stream.is_aborted) != Some(false) {
                return;
            }
            let size = u32::try_from(size).unwrap_or(u32::MAX);
            let answered =
                self.stream_callback(stream, Callback::RequestBody, [size, u32::from(end == End::Last)]).await;
            let Some(piece) = self.change(stream, |stream| {
                stream.is_buffering = answered == Answered::With(1);
                let piece = std::mem::take(&mut stream.piece);
                // The piece is in the buffer already.
                if is_buffering { Vec::new() } else { piece }
            }) else {
                return;
            };
            self.data_answered(stream, answered, piece, end).await;
        })
    }

    async fn data_answered(&mut self, stream: StreamId, answered: Answered, piece: Vec<u8>, end: End) {
        if self.stream(stream, Stream::is_over) != Some(false) {
            return;
        }
        match answered {
            Answered::With(0) => {
                let waits =
                    self.change(stream, |stream| stream.decode != Decode::Iterating || !stream.headers_continued);
                if waits == Some(true) {
                    self.change(stream, |stream| stream.buffered.extend_from_slice(&piece));
                    self.go_on(stream).await;
                } else {
                    // The buffer has what came since the guest continued from elsewhere (up to 1.37 Envoy lost it).
                    let mut kept =
                        self.change(stream, |stream| std::mem::take(&mut stream.buffered)).unwrap_or_default();
                    kept.extend(piece);
                    self.router_data(stream, kept, end).await;
                }
            }
            Answered::With(1 | 2) => {
                self.change(stream, |stream| stream.decode = Decode::StoppedHeaders);
                let full = if answered == Answered::With(2) { WhenFull::StopReading } else { WhenFull::Refuse };
                self.keep(stream, piece, full).await;
            }
            Answered::With(_) | Answered::WithReply | Answered::Failed => {
                self.change(stream, |stream| stream.decode = Decode::StoppedHeaders);
            }
        }
    }

    /// Keeps a piece while what is before it waits.
    async fn keep(&mut self, stream: StreamId, bytes: Vec<u8>, when_full: WhenFull) {
        let limit = self.shared.lock().buffer_limit;
        let is_too_much = self.change(stream, |stream| {
            stream.buffered.extend_from_slice(&bytes);
            let is_full = stream.buffered.len() > limit;
            match when_full {
                WhenFull::StopReading => {
                    stream.is_read_disabled |= is_full;
                    false
                }
                WhenFull::Refuse => is_full,
            }
        });
        if is_too_much == Some(true) {
            let reply = envoys_reply(413, "Payload Too Large", &[]);
            self.local_reply(stream, reply, "request_payload_too_large".to_owned()).await;
        }
    }

    async fn decode_trailers(&mut self, stream: StreamId, trailers: Headers) {
        let Some((decode, count)) = self.change(stream, |stream| {
            let count = trailers.count();
            stream.request_trailers = Some(trailers);
            (stream.decode, count)
        }) else {
            return;
        };
        if decode == Decode::StoppedAll {
            return;
        }
        self.change(stream, |stream| stream.visible.request_trailers = true);
        let answered = self.stream_callback(stream, Callback::RequestTrailers, [count, 0]).await;
        if matches!(answered, Answered::With(0)) {
            self.change(stream, |stream| stream.visible.request_trailers = false);
            self.trailers_go_on(stream).await;
        } else {
            self.change(stream, |stream| stream.decode = Decode::StoppedHeaders);
        }
    }

    async fn trailers_go_on(&mut self, stream: StreamId) {
        let waits = self.stream(stream, |stream| stream.decode != Decode::Iterating || !stream.headers_continued);
        match waits {
            Some(true) => self.go_on(stream).await,
            Some(false) => self.router_trailers(stream).await,
            None => {}
        }
    }

    /// The guest asked to continue, from a callback or from a timer.
    pub(super) async fn continue_request(&mut self, stream: StreamId) {
        let was = self.stream(stream, |stream| (stream.decode, stream.is_over()));
        match was {
            Some((Decode::StoppedHeaders, false)) => self.go_on(stream).await,
            Some((Decode::StoppedAll, false)) => self.go_on_from_everything(stream).await,
            Some((Decode::Iterating, _) | (_, true)) | None => {}
        }
    }

    /// commonContinue: headers if they still wait, what is kept, trailers.
    async fn go_on(&mut self, stream: StreamId) {
        let Some(needs_headers) = self.change(stream, |stream| {
            stream.decode = Decode::Iterating;
            !stream.headers_continued
        }) else {
            return;
        };
        if needs_headers {
            self.headers_go_on(stream).await;
        }
        let Some((kept, end, has_trailers)) = self.change(stream, |stream| {
            let has_trailers = stream.request_trailers.is_some();
            let end = if stream.request_complete && !has_trailers { End::Last } else { End::More };
            (std::mem::take(&mut stream.buffered), end, has_trailers)
        }) else {
            return;
        };
        if !kept.is_empty() || (end == End::Last && !needs_headers) {
            self.router_data(stream, kept, end).await;
        }
        if has_trailers {
            self.router_trailers(stream).await;
        }
        self.read_on(stream).await;
    }

    /// After everything had to wait, the filter sees what was kept: it has not seen it yet (iterate_from_current_filter).
    async fn go_on_from_everything(&mut self, stream: StreamId) {
        let Some((kept, is_complete)) = self.change(stream, |stream| {
            stream.decode = Decode::Iterating;
            (std::mem::take(&mut stream.buffered), stream.request_complete)
        }) else {
            return;
        };
        let has_trailers = self.stream(stream, |stream| stream.request_trailers.is_some()).unwrap_or(false);
        let is_whole = is_complete && kept.is_empty() && !has_trailers;
        self.change(stream, |stream| stream.headers_continued = true);
        self.router_headers(stream, if is_whole { End::Last } else { End::More }).await;
        if !kept.is_empty() {
            let end = if is_complete && !has_trailers { End::Last } else { End::More };
            self.show_data(stream, kept, end).await;
        }
        let trailers = self.stream(stream, |stream| stream.request_trailers.clone()).flatten();
        if let Some(trailers) = trailers {
            self.decode_trailers(stream, trailers).await;
        }
        self.read_on(stream).await;
    }

    /// The sender is read again.
    fn read_on(&mut self, stream: StreamId) -> Turn<'_, ()> {
        Box::pin(async move {
            let unread = self.change(stream, |stream| {
                stream.is_read_disabled = false;
                std::mem::take(&mut stream.unread)
            });
            for piece in unread.into_iter().flatten() {
                self.arrive(stream, piece).await;
            }
        })
    }

    /// The sender has closed.
    pub(super) async fn disconnect(&mut self, stream: StreamId) {
        let is_open = self.change(stream, |stream| {
            stream.is_aborted = true;
            stream.info.flags |= flag::DOWNSTREAM_CONNECTION_TERMINATION;
            stream.info.details = Some("downstream_remote_disconnect".to_owned());
            stream.info.code = None;
            !stream.is_finished
        });
        if is_open == Some(true) {
            self.finish(stream, Happening::Reset { stream }).await;
        }
    }

    /// The guest closed the stream.
    pub(super) async fn close(&mut self, stream: StreamId) {
        self.change(stream, |stream| {
            stream.is_aborted = true;
            stream.info.details.get_or_insert_with(|| "wasm_close_stream".to_owned());
        });
        self.finish(stream, Happening::Reset { stream }).await;
    }
}
