//! The host's side of one VM: its contexts, the calls that are out, and what is to be done when the guest has returned.

use crate::http::Response;
use crate::ids::{CallToken, ContextId, StreamId, ThreadId};
use crate::memory::SpaceId;
use crate::metrics::MetricIds;
use crate::plugin::Plugin;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// A call of a guest that is out.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub cluster: String,
    pub kind: CallKind,
    pub speaks: Speaks,
}

/// What an HTTP call is by its content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    Http,
    Grpc,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallKind {
    Http,
    Grpc,
}

/// The end of a root context's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RootLife {
    Live,
    /// `on_done` answered false.
    PendingDone,
    /// The guest has called `proxy_done`.
    PendingDelete,
}

#[derive(Debug)]
pub(crate) struct Root {
    pub plugin: Arc<Plugin>,
    pub calls: BTreeMap<CallToken, Call>,
    /// The answer that a callback is about (http_call_response_).
    pub answer: Option<Response>,
    /// The message that a callback is about (grpc_receive_buffer_).
    pub grpc_message: Vec<u8>,
    pub status: (u32, String),
    pub timer: TickTimer,
    pub life: RootLife,
}

/// A root context's timer (Wasm::setTimerPeriod and Wasm::tickHandler in Envoy's wasm.cc). What is armed anew makes what
/// was armed before stale: each arming has a number of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TickTimer {
    /// `None`: no ticks.
    pub period: Option<Duration>,
    armed: Arming,
}

/// The number of one arming of a timer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arming(u64);

impl TickTimer {
    /// Another period: what is armed is so no more.
    pub(crate) fn set(&mut self, period: Option<Duration>) {
        self.period = period;
        self.armed.0 += 1;
    }

    /// Arms it for the whole period from now; `None` if there are no ticks.
    pub(crate) fn arm(&mut self) -> Option<(Duration, Arming)> {
        self.armed.0 += 1;
        self.period.map(|period| (period, self.armed))
    }

    /// Whether this arming is the last one.
    pub(crate) fn is_due(&self, arming: Arming) -> bool {
        self.period.is_some() && self.armed == arming
    }
}

#[derive(Debug)]
pub(crate) enum Context {
    /// The VM's own, for `_initialize`.
    Vm,
    Root(Box<Root>),
    Stream {
        stream: StreamId,
        root: ContextId,
    },
}

/// What a guest asked for and Envoy does after the guest has returned (addAfterVmCallAction: calls never nest).
#[derive(Debug)]
pub(crate) enum After {
    ContinueRequest(StreamId),
    ContinueResponse(StreamId),
    Reply(StreamId, Response, String, Option<u32>),
    Close(StreamId),
    FinishShutdown(ContextId),
    /// A gRPC call that could not begin ends all the same (`grpc::no_endpoint`).
    GrpcRefused(ContextId, CallToken, String),
}

/// The host's side of one VM.
#[derive(Debug)]
pub(crate) struct VmShared {
    pub thread: ThreadId,
    pub vm_id: String,
    /// Where its shared data is.
    pub space: SpaceId,
    pub contexts: BTreeMap<ContextId, Context>,
    pub after: VecDeque<After>,
    /// A local reply was sent in this callback: whatever the guest answers, nothing goes on.
    pub stop_iteration: bool,
    pub has_failed: bool,
    pub metric_ids: MetricIds,
    pub random: fastrand::Rng,
    pub environment: Vec<(String, String)>,
    pub vm_configuration: Vec<u8>,
    next_context: u32,
    last_http_token: u32,
    last_grpc_token: u32,
}

/// Tokens of one kind are four apart; the low bits are the kind (Wasm::kCalloutIncrement).
const TOKEN_STEP: u32 = 4;

/// What a token is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    Http,
    GrpcCall,
    GrpcStream,
}

impl TokenKind {
    pub(crate) const fn of(token: u32) -> Self {
        match token % TOKEN_STEP {
            1 => Self::GrpcCall,
            2 => Self::GrpcStream,
            _ => Self::Http,
        }
    }
}

impl VmShared {
    pub(crate) fn new(thread: ThreadId, plugin: &Plugin, space: SpaceId, random: fastrand::Rng) -> Self {
        Self {
            thread,
            vm_id: plugin.vm_id.clone(),
            space,
            contexts: BTreeMap::from([(ContextId(0), Context::Vm)]),
            after: VecDeque::new(),
            stop_iteration: false,
            has_failed: false,
            metric_ids: MetricIds::default(),
            random,
            environment: plugin.environment.clone(),
            vm_configuration: plugin.vm_configuration.clone(),
            next_context: 1,
            last_http_token: 0,
            last_grpc_token: 1,
        }
    }

    pub(crate) fn add_context(&mut self, context: Context) -> ContextId {
        let id = ContextId(self.next_context);
        self.next_context += 1;
        self.contexts.insert(id, context);
        id
    }

    pub(crate) fn next_token(&mut self, kind: CallKind) -> CallToken {
        let last = match kind {
            CallKind::Http => &mut self.last_http_token,
            CallKind::Grpc => &mut self.last_grpc_token,
        };
        *last = last.wrapping_add(TOKEN_STEP);
        CallToken(*last)
    }

    pub(crate) fn has_call(&self, token: CallToken) -> bool {
        self.roots().any(|(_, root)| root.calls.contains_key(&token))
    }

    pub(crate) fn root_of(&self, context: ContextId) -> ContextId {
        match self.contexts.get(&context) {
            Some(Context::Stream { root, .. }) => *root,
            Some(Context::Root(_) | Context::Vm) | None => context,
        }
    }

    pub(crate) fn root(&self, context: ContextId) -> Option<&Root> {
        match self.contexts.get(&context)? {
            Context::Root(root) => Some(root),
            Context::Vm | Context::Stream { .. } => None,
        }
    }

    pub(crate) fn root_mut(&mut self, context: ContextId) -> Option<&mut Root> {
        match self.contexts.get_mut(&context)? {
            Context::Root(root) => Some(root),
            Context::Vm | Context::Stream { .. } => None,
        }
    }

    pub(crate) fn stream_of(&self, context: ContextId) -> Option<StreamId> {
        match self.contexts.get(&context)? {
            Context::Stream { stream, .. } => Some(*stream),
            Context::Vm | Context::Root(_) => None,
        }
    }

    pub(crate) fn roots(&self) -> impl Iterator<Item = (ContextId, &Root)> {
        self.contexts.iter().filter_map(|(id, context)| match context {
            Context::Root(root) => Some((*id, root.as_ref())),
            Context::Vm | Context::Stream { .. } => None,
        })
    }
}
