//! One request of a sender inside Envoy: everything about it but the code that moves it on (`thread/`).
//!
//! ```text
//!   decode:  Iterating ──> StoppedHeaders ──> Continued          (a 1 from the filter, headers only)
//!                    `───> StoppedAll ──────> Continued          (everything waits, the body too)
//!   encode:  None ──> InFilter ──> (HeldWhole | Held) ──> Sent
//! ```
//! What a guest may read of it at a moment is [`Visible`], because Envoy's filter lets go of maps as it goes on
//! (PLATFORM 1.4 item 5, and section 0 row "At response time").

use crate::http::{Headers, Response};
use crate::ids::{ContextId, ThreadId, VmId};
use crate::network::Origin;
use crate::plugin::Plugin;
use crate::route::Route;
use crate::time::Moment;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Whether more of a body comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// More comes.
    More,
    /// This is the last of it.
    Last,
}

/// A piece of a request on its way in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Data(Vec<u8>, End),
    Trailers(Headers),
}

/// Whose request a stream on an internal listener is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    pub origin: Origin,
    pub attempt: u64,
    pub since: Moment,
}

/// Who stands in the filter's place for this stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    /// No filter: none is configured, or it failed open.
    Skipped,
    /// A guest's context.
    Guest(VmId, ContextId),
    /// The filter's VM was dead when the stream came: every callback fails the stream.
    Dead,
}

/// How far the request has got through the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decode {
    /// Nothing has stopped it.
    Iterating,
    /// Headers wait, body callbacks go on.
    StoppedHeaders,
    /// Everything waits.
    StoppedAll,
}

/// How far the response has got through the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encode {
    /// There is none yet.
    None,
    /// The filter is shown it.
    InFilter,
    /// The filter holds its headers, and has not seen what is behind them.
    HeldWhole,
    /// The filter has seen all of it, and holds it.
    Held,
    /// It has left.
    Sent,
}

/// What the guest may read. Envoy's filter has pointers; they are set when a phase begins and cleared when it lets go.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Visible {
    pub request_headers: bool,
    pub request_trailers: bool,
    pub response_headers: bool,
    pub response_trailers: bool,
    /// The access log phase shows the final maps, read-only.
    pub log: bool,
}

impl Visible {
    /// The final maps are shown while the log is written.
    pub(crate) const fn shows_request_headers(&self) -> bool {
        self.request_headers || self.log
    }

    pub(crate) const fn shows_response_headers(&self) -> bool {
        self.response_headers || self.log
    }

    pub(crate) const fn shows_response_trailers(&self) -> bool {
        self.response_trailers || self.log
    }
}

/// What is known about the stream besides its bytes (Envoy's StreamInfo).
#[derive(Clone, Debug, Default)]
pub(crate) struct Info {
    pub flags: u64,
    pub details: Option<String>,
    pub code: Option<u16>,
    /// Attempts; 0 before the router (`reading::request_properties`).
    pub attempts: u64,
    /// Whether one of them chose a host (`failure::the_host`).
    pub has_host: bool,
    pub bytes_received: u64,
    pub cluster: Option<String>,
    /// The route that was chosen last.
    pub route: Option<Arc<Route>>,
}

/// The request's way to a receiver.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outgoing {
    pub cluster: String,
    pub body: Vec<u8>,
    /// The number of the attempt that is out; answers to others come too late.
    pub attempt: u64,
    pub is_out: bool,
    /// It has no connection and will get none: its end is on its way.
    pub is_refused: bool,
    /// When the whole request was there: the route's time counts from then, over all attempts.
    pub whole_at: Option<Moment>,
}

/// A piece of a response on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Data(Vec<u8>, End),
    Trailers,
    /// The receiver's connection has ended in the middle.
    Cut,
}

/// One stream.
#[derive(Debug)]
pub(crate) struct Stream {
    pub thread: ThreadId,
    /// On an internal listener.
    pub caller: Option<Caller>,
    pub plugin: Option<Arc<Plugin>>,
    pub filter: Filter,
    pub request: Headers,
    pub request_trailers: Option<Headers>,
    pub decode: Decode,
    pub headers_continued: bool,
    /// The whole request has arrived.
    pub request_complete: bool,
    /// What is kept of the body while headers or everything wait (buffered_request_data_).
    pub buffered: Vec<u8>,
    /// The last answer to a body callback was 1: callbacks get the whole buffer (buffering_request_body_).
    pub is_buffering: bool,
    /// The piece that the current body callback is about.
    pub piece: Vec<u8>,
    /// Pieces that wait because Envoy does not read any more from this sender.
    pub unread: VecDeque<Piece>,
    pub is_read_disabled: bool,
    pub outgoing: Option<Outgoing>,
    pub encode: Encode,
    /// Its body is what has passed the filter.
    pub response: Response,
    /// The response's headers have passed the filter.
    pub response_headers_continued: bool,
    /// What the filter has not seen of the response.
    pub parts: VecDeque<Part>,
    /// What is kept of the response's body (buffered_response_data_).
    pub response_buffered: Vec<u8>,
    /// As `is_buffering`, of the response.
    pub is_response_buffering: bool,
    /// The filter's last answer keeps the response from going on.
    pub is_response_held: bool,
    /// The piece that the current response body callback is about.
    pub response_piece: Vec<u8>,
    /// Properties that the guest has set.
    pub properties: BTreeMap<String, Vec<u8>>,
    /// The sender said that it closes the connection.
    pub wants_close: bool,
    pub visible: Visible,
    pub info: Info,
    /// The stream was failed because its VM is dead; the guest is not asked any more.
    pub has_failed: bool,
    /// A local reply or a reset ended the decoding.
    pub is_aborted: bool,
    pub is_finished: bool,
}

impl Stream {
    pub(crate) fn new(thread: ThreadId, plugin: Option<Arc<Plugin>>, request: Headers, end: End) -> Self {
        Self {
            thread,
            caller: None,
            plugin,
            filter: Filter::Skipped,
            request,
            request_trailers: None,
            decode: Decode::Iterating,
            headers_continued: false,
            request_complete: end == End::Last,
            buffered: Vec::new(),
            is_buffering: false,
            piece: Vec::new(),
            unread: VecDeque::new(),
            is_read_disabled: false,
            outgoing: None,
            encode: Encode::None,
            response: Response::default(),
            response_headers_continued: false,
            parts: VecDeque::new(),
            response_buffered: Vec::new(),
            is_response_buffering: false,
            is_response_held: false,
            response_piece: Vec::new(),
            properties: BTreeMap::new(),
            wants_close: false,
            visible: Visible::default(),
            info: Info::default(),
            has_failed: false,
            is_aborted: false,
            is_finished: false,
        }
    }

    /// The guest's context for this stream, if there is one.
    pub(crate) const fn guest(&self) -> Option<(VmId, ContextId)> {
        match self.filter {
            Filter::Guest(vm, context) => Some((vm, context)),
            Filter::Skipped | Filter::Dead => None,
        }
    }

    /// A local reply, a reset or the sender's answer has ended it.
    pub(crate) const fn is_over(&self) -> bool {
        self.is_aborted || self.is_finished
    }

    /// `request.size`: what the headers say while the filter has them, what has arrived afterwards
    /// (`reading::request_properties`).
    pub(crate) fn size(&self) -> u64 {
        let is_there = self.visible.shows_request_headers();
        let said = self.request.text("content-length").filter(|_| is_there).and_then(|text| text.parse().ok());
        said.unwrap_or(self.info.bytes_received)
    }

    /// `request.total_size`: body bytes that arrived, and the headers while the filter has them (the same).
    pub(crate) fn total_size(&self) -> u64 {
        let headers = if self.visible.shows_request_headers() { self.request.byte_count() } else { 0 };
        self.info.bytes_received + headers as u64
    }
}
