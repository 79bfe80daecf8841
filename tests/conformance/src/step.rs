//! What happens in a case, one step at a time.
//!
//! | step                                             | over when                                              |
//! | ------------------------------------------------ | ------------------------------------------------------ |
//! | `send: {path: /a}`                               | the sender has its whole answer, or its connection is closed |
//! | `send_until: {status: 200, request: {path: /a}}`  | as `send`, again and again until the answer has this status; only the last one counts |
//! | `open: {path: /a}`                               | the head is out; the body is open                      |
//! | `more: {of: /a, bytes: abc}`                     | the piece is out                                       |
//! | `end: {of: /a}`                                  | the end of the body is out                             |
//! | `answer: /a`                                     | as `send`, for what was opened                         |
//! | `hang_up: /a`                                    | the sender's connection is closed                      |
//! | `trace: on_tick`                                 | a watched VM has written such a line                   |
//! | `received: {cluster: orders, count: 1}`          | the receiver has read so many requests                 |
//! | `receiver: {cluster: orders, does: silent}`      | it does so from now on                                 |
//! | `release: orders`                                | the receiver has sent its next piece                   |
//! | `push: {script: ...}`                            | the host has taken, or refused, the new configuration  |
//! | `old_configuration_is_gone`                      | the drain time of what was replaced is over            |
//! | `remove_listener`, `add_listener`                | the host has done it                                   |
//! | `terminate`                                      | the process has ended, told to by SIGTERM              |
//!
//! A request is called by its path unless it has a `name`. Time never decides: every step that waits has a condition.

use redeliver_probe::bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use crate::case::{FailurePolicy, Receiver, check_script};

/// One step.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Sends a whole request and waits for the whole answer.
    Send(Request),
    /// Sends a whole request again and again until it is answered with a status.
    SendUntil(SendUntil),
    /// Sends the head of a request with a body that is still open.
    Open(Request),
    /// Sends a piece of an open body.
    More(Piece),
    /// Ends an open body.
    End(End),
    /// Waits for the whole answer to an opened request.
    Answer(String),
    /// Closes a sender's connection.
    HangUp(String),
    /// Waits for lines of the trace.
    Trace(Wanted),
    /// Waits for requests that a receiver has read.
    Received(Count),
    /// Makes a receiver behave in another way.
    Receiver(Change),
    /// Lets a stepwise receiver send its next piece.
    Release(String),
    /// Pushes a new configuration.
    Push(Push),
    /// Waits until what was replaced is gone.
    OldConfigurationIsGone,
    /// Takes the listener away and waits until it is gone.
    RemoveListener,
    /// Brings it back as it was.
    AddListener,
    /// Ends the process with SIGTERM.
    Terminate,
}

/// A request of a sender.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Request {
    /// What later steps and the transcript call it; without it, its path.
    pub name: Option<String>,
    /// The method; without it, POST with a body and GET without.
    pub method: Option<String>,
    /// Path and query.
    pub path: String,
    /// Further headers.
    pub headers: Vec<(String, Bytes)>,
    /// The body; without it there is none.
    pub body: Option<Bytes>,
    /// How its end is told.
    pub framing: Framing,
}

impl Request {
    /// What the transcript calls it.
    pub fn called(&self) -> &str {
        self.name.as_ref().unwrap_or(&self.path)
    }
}

/// A request that is sent until it is answered as wanted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SendUntil {
    /// The status of the answer.
    pub status: u16,
    /// The request.
    pub request: Request,
}

/// How the end of a request's body is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Framing {
    /// `content-length`.
    #[default]
    Sized,
    /// `transfer-encoding: chunked`.
    Chunked,
}

/// A piece of an open body.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Piece {
    /// The request.
    pub of: String,
    /// The bytes.
    pub bytes: Bytes,
}

/// The end of an open body, which was opened chunked.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// The request.
    pub of: String,
    /// Trailers.
    #[serde(default)]
    pub trailers: Vec<(String, Bytes)>,
}

/// Lines to wait for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "WrittenWanted")]
pub struct Wanted {
    /// What a line contains.
    pub line: String,
    /// How many such lines, in all VMs and from the start of the case.
    pub count: usize,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a line of the trace, or {line: a line, count: how many in all}")]
enum WrittenWanted {
    Line(String),
    Counted(Counted),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Counted {
    line: String,
    count: usize,
}

impl From<WrittenWanted> for Wanted {
    fn from(written: WrittenWanted) -> Wanted {
        match written {
            WrittenWanted::Line(line) => Wanted { line, count: 1 },
            WrittenWanted::Counted(Counted { line, count }) => Wanted { line, count },
        }
    }
}

/// How many requests a receiver has read in all.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Count {
    /// Whose receiver.
    pub cluster: String,
    /// In all, from the start of the case.
    pub count: usize,
}

/// Another behaviour.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Whose receiver.
    pub cluster: String,
    /// What it does from now on.
    pub does: Receiver,
}

/// A new configuration: what is not named stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Push {
    /// Another script.
    pub script: Option<Value>,
    /// Another VM configuration: then it is another VM.
    pub vm_script: Option<Value>,
    /// Another vm_id: then it is another VM, and another namespace.
    pub vm_id: Option<String>,
    /// Another failure policy.
    pub failure_policy: Option<FailurePolicy>,
    /// What the host does with it.
    pub is: Verdict,
}

/// What the host does with a push.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It runs the new one.
    #[default]
    Taken,
    /// It keeps the old one.
    Rejected,
}

impl Step {
    /// Refuses what can be seen to be wrong without running it.
    ///
    /// # Errors
    /// A sentence that names the step.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Step::Send(request) | Step::Open(request) | Step::SendUntil(SendUntil { request, .. })
                if !request.path.starts_with('/') =>
            {
                Err(format!("give {self:?} a path that begins with /"))
            }
            Step::Push(Push { script, vm_script, .. }) => {
                check_script("pushed script", script.as_ref().unwrap_or(&Value::Null))?;
                check_script("pushed vm_script", vm_script.as_ref().unwrap_or(&Value::Null))
            }
            Step::Send(_)
            | Step::SendUntil(_)
            | Step::Open(_)
            | Step::More(_)
            | Step::End(_)
            | Step::Answer(_)
            | Step::HangUp(_)
            | Step::Trace(_)
            | Step::Received(_)
            | Step::Receiver(_)
            | Step::Release(_)
            | Step::OldConfigurationIsGone
            | Step::RemoveListener
            | Step::AddListener
            | Step::Terminate => Ok(()),
        }
    }
}
