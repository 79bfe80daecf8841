//! The callbacks that the host makes, and the contexts that they are about. Decides nothing.
//!
//! ```text
//! host ──> proxy_on_...(context, ...) ──> the root or the stream of that number ──> its method
//! ```
//! They take the place of the SDK's (scripts/finish, the last step of the build), which would do for all but one:
//!
//! | the SDK's | these |
//! | --- | --- |
//! | panics at a context, a token or a status that it does not know: a trap | pass such a call over |
//! | ask the host to set the context before each answer to a call | leave it as the host has set it |
//! | know two answers to a piece of a body, Continue and Pause | a third one, stop and watermark |
//! | make the module 17 KB larger | |
//!
//! | a held body is answered with | full buffer | resumed from the timer |
//! | --- | --- | --- |
//! | 1, stop and buffer: the SDK's Pause | 413 | Envoy up to 1.39.0 loses the next piece |
//! | 2, stop and watermark | Envoy stops reading until the filter lets go | every byte arrives |
//!
//! Measured on 1.36.4, 1.39.0 and 1.40.0. The host never calls while it is being called, so the contexts are always free;
//! if they were not, the request would pass.

use crate::root::Root;
use crate::stream::Stream;
use litemap::LiteMap;
use redeliver_core::capture::{EndOfStream, HasBody};
use std::cell::RefCell;

/// What the host calls a filter's answer (proxy-wasm ABI 0.2.1, `proxy_action_t` and Envoy's FilterDataStatus).
const CONTINUE: u32 = 0;
const PAUSE: u32 = 1;
const STOP_AND_WATERMARK: u32 = 2;

/// Whether a request or an answer goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It does.
    Continue,
    /// It waits, or was answered.
    Pause,
}

/// All contexts of this VM.
struct Contexts {
    /// One for each configuration that is in force or on its way out: a few.
    roots: Vec<(u32, Root)>,
    /// In the order of their numbers, which grow: most streams are gone before many others have come.
    streams: LiteMap<u32, Box<Stream>>,
}

thread_local! {
    static CONTEXTS: RefCell<Contexts> = const { RefCell::new(Contexts { roots: Vec::new(), streams: LiteMap::new_vec() }) };
}

fn with_contexts<T>(otherwise: T, run: impl FnOnce(&mut Contexts) -> T) -> T {
    CONTEXTS.with(|contexts| match contexts.try_borrow_mut() {
        Ok(mut contexts) => run(&mut contexts),
        Err(_) => otherwise,
    })
}

fn with_root<T>(context: u32, otherwise: T, run: impl FnOnce(&mut Root) -> T) -> T {
    with_contexts(None, |contexts| contexts.root(context).map(run)).unwrap_or(otherwise)
}

fn with_stream<T>(context: u32, otherwise: T, run: impl FnOnce(&mut Stream) -> T) -> T {
    with_contexts(None, |contexts| contexts.streams.get_mut(&context).map(|stream| run(stream))).unwrap_or(otherwise)
}

impl Contexts {
    fn root(&mut self, context: u32) -> Option<&mut Root> {
        self.roots.iter_mut().find(|(found, _)| *found == context).map(|(_, root)| root)
    }

    /// `of` is zero for a root context.
    fn create(&mut self, context: u32, of: u32) {
        if of == 0 {
            self.roots.push((context, Root::new(context)));
        } else if let Some(stream) = self.root(of).map(|root| root.stream(context)) {
            self.streams.insert(context, Box::new(stream));
        }
    }

    /// The context is done. Answers whether it may go at once; a root that may not, goes with the last answer that it waits
    /// for. `proxy_on_delete` would only say so again, and costs every stream a call.
    fn end(&mut self, context: u32) -> bool {
        if self.streams.remove(&context).is_some() {
            return true;
        }
        let may_go = self.root(context).is_none_or(|root| root.stop());
        if may_go {
            self.forget_root(context);
        }
        may_go
    }

    /// Nothing is asked of it any more.
    fn forget_root(&mut self, context: u32) {
        self.roots.retain(|(found, _)| *found != context);
    }
}

const fn end_of_stream(end: u32) -> EndOfStream {
    if end == 0 { EndOfStream::No } else { EndOfStream::Yes }
}

const fn answer(action: Action) -> u32 {
    match action {
        Action::Continue => CONTINUE,
        Action::Pause => PAUSE,
    }
}

#[unsafe(no_mangle)]
extern "C" fn redeliver_on_context_create(context: u32, of: u32) {
    with_contexts((), |contexts| contexts.create(context, of));
}

#[unsafe(no_mangle)]
const extern "C" fn redeliver_on_vm_start(_context: u32, _size: u32) -> u32 {
    1
}

#[unsafe(no_mangle)]
extern "C" fn redeliver_on_configure(context: u32, _size: u32) -> u32 {
    with_root(context, false, Root::configure).into()
}

#[unsafe(no_mangle)]
extern "C" fn redeliver_on_tick(context: u32) {
    with_root(context, (), |root| root.tick());
}

#[unsafe(no_mangle)]
extern "C" fn redeliver_on_http_call_response(context: u32, token: u32, headers: u32, body: usize, trailers: u32) {
    with_contexts((), |contexts| {
        let may_go = contexts.root(context).is_some_and(|root| root.call_answered(token, headers, body, trailers));
        if may_go {
            contexts.forget_root(context);
        }
    });
}

#[unsafe(no_mangle)]
extern "C" fn redeliver_on_request_headers(context: u32, _count: u32, end: u32) -> u32 {
    let has_body = if end == 0 { HasBody::Yes } else { HasBody::No };
    answer(with_stream(context, Action::Continue, |stream| stream.on_request_headers(has_body)))
}

#[unsafe(no_mangle)]
extern "C" fn redeliver_on_request_body(context: u32, size: usize, end: u32) -> u32 {
    match with_stream(context, Action::Continue, |stream| stream.on_request_body(size, end_of_stream(end))) {
        Action::Continue => CONTINUE,
        Action::Pause => STOP_AND_WATERMARK,
    }
}

#[unsafe(no_mangle)]
extern "C" fn redeliver_on_request_trailers(context: u32, _count: u32) -> u32 {
    answer(with_stream(context, Action::Continue, Stream::on_request_trailers))
}

#[unsafe(no_mangle)]
extern "C" fn redeliver_on_response_headers(context: u32, _count: u32, end: u32) -> u32 {
    answer(with_stream(context, Action::Continue, |stream| stream.on_response_headers(end_of_stream(end))))
}

#[unsafe(no_mangle)]
extern "C" fn redeliver_on_response_trailers(context: u32, _count: u32) -> u32 {
    with_stream(context, (), Stream::on_response_trailers);
    CONTINUE
}

#[unsafe(no_mangle)]
extern "C" fn redeliver_on_log(context: u32) {
    with_stream(context, (), Stream::on_log);
}

/// Only a root context may have to wait for answers. What else there is to do for a stream was done at its log.
#[unsafe(no_mangle)]
extern "C" fn redeliver_on_done(context: u32) -> u32 {
    with_contexts(true, |contexts| contexts.end(context)).into()
}
