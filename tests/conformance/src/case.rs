//! A case as data: the first document of its file.
//!
//! ```yaml
//! case: a held request is let go from a tick          # a sentence
//! fact: PLATFORM 0                                    # which row it shows
//! setup: {workers: 1}                                 # everything has a default
//! clusters: {orders: {receiver: {answers: {status: 200}}}}
//! routes: [{prefix: /, cluster: orders}]
//! script: {on_request_headers: [{return: 1}]}         # see redeliver-probe, script.rs
//! steps: [{send: {path: /a}}]                         # see step.rs
//! watch: [worker]                                     # whose traces count
//! ```
//!
//! Parsing is strict: an unknown word is refused with the words that are known. Nothing here runs anything.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroU32;
use std::path::Path;

use redeliver_probe::bytes::Bytes;
use redeliver_probe::script::Script;
use serde::Deserialize;
use serde_json::Value;

use crate::step::Step;

/// One case.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it shows, as a sentence.
    pub case: String,
    /// The row of PLATFORM.md, or the fact in words.
    pub fact: String,
    /// How the host is set up.
    #[serde(default)]
    pub setup: Setup,
    /// The destinations, by name.
    #[serde(default = "orders")]
    pub clusters: BTreeMap<String, Cluster>,
    /// The routes of the listener; the first that matches wins.
    #[serde(default = "everything_to_orders")]
    pub routes: Vec<Route>,
    /// The plugin configuration: a script of the probe.
    #[serde(default)]
    pub script: Value,
    /// The VM configuration: what on_vm_start does.
    #[serde(default)]
    pub vm_script: Value,
    /// What happens, in order.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// When the case is over.
    #[serde(default)]
    pub ends: Ends,
    /// Whose traces are compared.
    #[serde(default = "worker")]
    pub watch: Vec<Watched>,
}

/// When a case is over, after its last step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ends {
    /// When every stream of a VM that has not trapped is deleted.
    #[default]
    WhenStreamsAreGone,
    /// At once.
    AtOnce,
    /// When the host has aborted: a process that kills itself leaves no trace to compare.
    WhenTheHostAborts,
}

/// A part of the transcript.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Watched {
    /// The throw-away VM that tries a configuration out.
    Canary,
    /// The main thread's VM.
    Main,
    /// The workers' VMs.
    Worker,
}

/// How the host is set up.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Setup {
    /// Worker threads.
    pub workers: NonZeroU32,
    /// What happens after a trap.
    pub failure_policy: FailurePolicy,
    /// With `fail_reload`: the back-off before a new VM; without it, Envoy's 1 s.
    pub reload_after_ms: Option<u32>,
    /// The plugin option `allow_on_headers_stop_iteration`.
    pub headers_stop_iteration: StopIteration,
    /// The namespace of shared data, and half of what tells VMs apart.
    pub vm_id: String,
    /// The `root_id` of the plugin.
    pub root_id: String,
    /// How long a replaced configuration lives on, in seconds.
    pub drain_time_seconds: u64,
    /// `per_connection_buffer_limit_bytes` of the listener; without it, 1 MiB.
    pub buffer_limit_bytes: Option<u32>,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            workers: NonZeroU32::MIN,
            failure_policy: FailurePolicy::Unspecified,
            reload_after_ms: None,
            headers_stop_iteration: StopIteration::Missing,
            vm_id: "probe".to_owned(),
            root_id: "probe".to_owned(),
            drain_time_seconds: 600,
            buffer_limit_bytes: None,
        }
    }
}

/// `failure_policy` of the plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // Envoy's names
pub enum FailurePolicy {
    Unspecified,
    FailClosed,
    FailOpen,
    FailReload,
}

/// Whether a plugin option is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopIteration {
    /// `allow_on_headers_stop_iteration: true`.
    Given,
    /// Not mentioned.
    Missing,
}

/// One destination.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// What its one receiver does.
    #[serde(default)]
    pub receiver: Receiver,
    /// `circuit_breakers.thresholds.max_requests`.
    pub max_requests: Option<u32>,
}

/// What a receiver does with each request.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Receiver {
    /// Reads the whole request and answers.
    Answers(Answer),
    /// As soon as it has the head of a request, answers, and reads on.
    AnswersEarly(Answer),
    /// Reads the whole request, then sends the head and each piece of the body after one `release` step each.
    AnswersStepwise(Stepwise),
    /// Reads the whole request and answers after a while.
    AnswersLate(Late),
    /// Speaks gRPC over HTTP/2: reads the whole call and answers. All the case long: no step changes it.
    SpeaksGrpc(GrpcAnswer),
    /// Reads the whole request and never answers.
    Silent,
    /// Reads the whole request and answers what is no HTTP; then closes.
    SpeaksGarbage,
    /// Reads the whole request and closes.
    ClosesUnanswered,
    /// Reads the whole request, answers 200 with a body of 100 bytes, closes after the first ten.
    BreaksOff,
    /// A port that nobody listens on.
    Refuses,
    /// A machine that neither accepts nor refuses.
    Dead,
    /// Would answer 200, but fails its health check.
    Unhealthy,
    /// The cluster has no endpoint.
    Absent,
    /// The first request meets the first of these, the second the second; the last one stays.
    InTurn(Vec<Receiver>),
}

/// What Envoy knows of a cluster's hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hosts {
    /// One, which may be asked.
    Healthy,
    /// One, which fails its health check.
    Unhealthy,
    /// None.
    None,
}

impl Receiver {
    /// What Envoy knows of a cluster with this receiver.
    #[must_use]
    pub const fn hosts(&self) -> Hosts {
        match self {
            Self::Unhealthy => Hosts::Unhealthy,
            Self::Absent => Hosts::None,
            Self::Answers(_)
            | Self::AnswersEarly(_)
            | Self::AnswersLate(_)
            | Self::SpeaksGrpc(_)
            | Self::AnswersStepwise(_)
            | Self::Silent
            | Self::SpeaksGarbage
            | Self::ClosesUnanswered
            | Self::BreaksOff
            | Self::Refuses
            | Self::Dead
            | Self::InTurn(_) => Hosts::Healthy,
        }
    }
}

impl Receiver {
    /// Whether it is spoken to in HTTP/2.
    #[must_use]
    pub const fn speaks_http_2(&self) -> bool {
        matches!(self, Self::SpeaksGrpc(_))
    }
}

impl Default for Receiver {
    fn default() -> Receiver {
        Receiver::Answers(Answer::default())
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Headers; framing is made from the body.
    pub headers: Vec<(String, Bytes)>,
    /// The body.
    pub body: Bytes,
    /// Trailers; with them the body is chunked.
    pub trailers: Vec<(String, Bytes)>,
}

impl Default for Answer {
    fn default() -> Answer {
        Answer { status: 200, headers: Vec::new(), body: Bytes(b"fine".to_vec()), trailers: Vec::new() }
    }
}

/// An answer that takes its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Late {
    /// The time.
    pub after_ms: u64,
    /// The status code, which the body repeats.
    pub status: u16,
}

/// The end of a unary gRPC call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GrpcAnswer {
    /// `grpc-status`.
    pub status: u32,
    /// `grpc-message`.
    pub text: Option<String>,
    /// The message, unframed; without it there is none.
    pub message: Option<GrpcMessage>,
    /// Where the status is.
    pub form: GrpcForm,
}

/// The bytes of a gRPC message.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct GrpcMessage(pub Bytes);

/// How an answer tells its status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GrpcForm {
    /// Headers, the message, trailers with the status.
    #[default]
    Whole,
    /// Headers with the status, and nothing else.
    TrailersOnly,
}

impl GrpcMessage {
    /// As it is on the wire: no compression, four bytes of length, the message.
    #[must_use]
    pub fn framed(&self) -> Vec<u8> {
        let length = u32::try_from(self.0.0.len()).unwrap_or(u32::MAX).to_be_bytes();
        [&[0], length.as_slice(), &self.0.0].concat()
    }
}

impl GrpcAnswer {
    /// The headers that tell the status.
    #[must_use]
    pub fn status_headers(&self) -> Vec<(&'static str, String)> {
        let text = self.text.clone().map(|text| ("grpc-message", text));
        [("grpc-status", self.status.to_string())].into_iter().chain(text).collect()
    }
}

/// An answer in pieces, chunked.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stepwise {
    /// The status code.
    pub status: u16,
    /// The pieces of the body; the end comes with the last one, or with its trailers.
    pub pieces: Vec<Bytes>,
    /// Trailers: with them the end is a step of its own.
    #[serde(default)]
    pub trailers: Vec<(String, Bytes)>,
}

/// One route by path prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Route {
    /// The prefix.
    pub prefix: String,
    /// Where to; empty with `direct_status`.
    pub cluster: String,
    /// Answered by the host itself, without any cluster.
    pub direct_status: Option<u16>,
    /// The time for the whole answer; without it, Envoy's 15 s.
    pub timeout_ms: Option<u64>,
    /// `retry_on`, and how often at most.
    pub retry: Option<(String, u32)>,
    /// What the prefix becomes.
    pub rewrite_prefix: Option<String>,
    /// What the authority becomes.
    pub rewrite_host: Option<String>,
    /// `metadata.filter_metadata`.
    pub metadata: Option<Value>,
}

fn orders() -> BTreeMap<String, Cluster> {
    BTreeMap::from([("orders".to_owned(), Cluster::default())])
}

fn everything_to_orders() -> Vec<Route> {
    vec![Route { prefix: "/".to_owned(), cluster: "orders".to_owned(), ..Route::default() }]
}

fn worker() -> Vec<Watched> {
    vec![Watched::Worker]
}

impl Case {
    /// The case in a file.
    ///
    /// # Errors
    /// A sentence with the file, the place, and the words that are known there.
    pub fn read(file: &Path) -> Result<Case, String> {
        let text = fs::read_to_string(file).map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
        Case::parse(&text).map_err(|problem| format!("{}: {problem}", file.display()))
    }

    fn parse(text: &str) -> Result<Case, String> {
        let first = text.split("\n---").next().unwrap_or_default();
        let value: Value = serde_norway::from_str(first).map_err(|error| format!("this is no YAML: {error}"))?;
        let case: Case = serde_json::from_value(value).map_err(|error| format!("correct the case: {error}"))?;
        check_script("script", &case.script)?;
        check_script("vm_script", &case.vm_script)?;
        case.steps.iter().try_for_each(Step::check)?;
        Ok(case)
    }

    /// The text that the host gets as the plugin configuration.
    pub fn configuration(&self) -> String {
        text_of(&self.script)
    }

    /// The text that the host gets as the VM configuration.
    pub fn vm_configuration(&self) -> String {
        text_of(&self.vm_script)
    }
}

/// A script as configuration text; nothing if there is none.
pub fn text_of(script: &Value) -> String {
    if script.is_null() { String::new() } else { script.to_string() }
}

/// Refuses a script that the probe would refuse.
///
/// # Errors
/// A sentence that names the script and the word.
pub fn check_script(name: &str, script: &Value) -> Result<(), String> {
    Script::parse(text_of(script).as_bytes()).map(drop).map_err(|error| format!("correct the {name}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let problem = Case::parse(text).expect_err("the case is wrong");
        assert!(problem.contains(expected), "{problem}");
    }

    #[test]
    fn a_wrong_word_is_named_with_the_words_that_are_known() {
        check("case: a\nfact: b\nstep: []", "unknown field `step`, expected one of `case`, `fact`");
        check("case: a\nfact: b\nsteps: [{snd: {path: /}}]", "unknown variant `snd`, expected one of `send`");
        check("case: a\nfact: b\nscript: {on_tik: []}", "unknown variant `on_tik`");
        check("case: a\nfact: b\nscript: {on_tick: [{do: [dnoe]}]}", "correct the script: unknown variant `dnoe`");
        check("case: a\nfact: b\nsteps: [{send: {path: a}}]", "a path that begins with /");
        check("case: a\nfact: b\nsetup: {workers: 0}", "expected a nonzero u32");
        check("case: [", "this is no YAML");
    }
}
