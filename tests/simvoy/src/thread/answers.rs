//! Answers to calls of guests, on the thread whose VM made them.

use super::Thread;
use crate::abi::{Callback, Status};
use crate::calls::envoys_reply;
use crate::guest::{Call, CallKind, Speaks};
use crate::happening::Happening;
use crate::http::Response;
use crate::ids::{CallToken, ContextId, VmId};
use crate::network::{Outcome, Tries, VIA_UPSTREAM};
use crate::trace::Kind;
use crate::unary::as_call;

impl Thread {
    /// The answer to a call, or what Envoy says in its place. A call that was answered before, and one whose VM has
    /// failed or whose root context is gone, hears nothing (PLATFORM 1.3).
    pub(super) async fn called(&mut self, vm: VmId, token: CallToken, outcome: Outcome) {
        let Some((root, call)) = self.shared.lock().end_call(vm, token) else { return };
        if matches!(outcome, Outcome::Answer(_)) {
            self.shared.lock().clusters.idles(&call.cluster, self.id);
        }
        match call.kind {
            CallKind::Http => self.http_called(vm, root, token, call, outcome).await,
            CallKind::Grpc => self.grpc_called(vm, root, token, outcome).await,
        }
    }

    async fn http_called(&mut self, vm: VmId, root: ContextId, token: CallToken, call: Call, outcome: Outcome) {
        let (arguments, status) = match limited(outcome) {
            Outcome::Answer(response) => {
                let status = response.code();
                (self.show(vm, root, response), Some(status))
            }
            Outcome::Failed(failure) => {
                let reply = envoys_reply(failure.status(), &failure.text(Tries::One), &[]);
                (self.show(vm, root, said_to(&call, reply)), Some(failure.status()))
            }
            Outcome::Replied { reply, .. } => {
                let status = reply.code();
                (self.show(vm, root, said_to(&call, reply)), Some(status))
            }
            // The answer broke off: no headers at all, and a status for whoever asks.
            Outcome::Broken(_) => {
                self.set_status(vm, root, Status::BrokenConnection as u32, "reset");
                ([0; 3], None)
            }
        };
        let [headers, body, trailers] = arguments;
        let arguments = [root.0, token.0, headers, body, trailers];
        self.shared.lock().happened(Happening::Told { vm, token });
        // A dead VM hears nothing.
        if self.root_callback(vm, root, Callback::CallResponse, arguments).await.is_ok() {
            self.shared.lock().happened(Happening::Heard { vm, token, status });
        }
        self.forget_answer(vm, root);
    }

    /// Lets the guest read the answer, and counts what is in it.
    fn show(&self, vm: VmId, root: ContextId, response: Response) -> [u32; 3] {
        let counts = [
            response.headers.count(),
            u32::try_from(response.body.len()).unwrap_or(u32::MAX),
            response.trailers.count(),
        ];
        self.note_shown(vm, root, [response.headers.digest(), response.trailers.digest()], &response.body);
        if let Some(found) = self.shared.lock().vm_mut(vm).and_then(|vm| vm.root_mut(root)) {
            found.answer = Some(response);
        }
        counts
    }

    fn note_shown(&self, vm: VmId, root: ContextId, [headers, trailers]: [u64; 2], body: &[u8]) {
        let mut shared = self.shared.lock();
        let now = shared.clock.now;
        let place = u64::from(vm.0) << 32 | u64::from(root.0);
        shared.trace.feed(Kind::Shown, now, [place, headers, trailers], body);
    }

    fn set_status(&self, vm: VmId, root: ContextId, code: u32, text: &str) {
        if let Some(found) = self.shared.lock().vm_mut(vm).and_then(|vm| vm.root_mut(root)) {
            found.status = (code, text.to_owned());
        }
    }

    fn forget_answer(&self, vm: VmId, root: ContextId) {
        if let Some(found) = self.shared.lock().vm_mut(vm).and_then(|vm| vm.root_mut(root)) {
            found.answer = None;
            found.status = (0, String::new());
            found.grpc_message.clear();
        }
    }

    /// A call that could not begin.
    pub(super) async fn grpc_refused(&mut self, vm: VmId, root: ContextId, token: CallToken, text: &str) {
        self.set_status(vm, root, UNAVAILABLE, text);
        let arguments = [root.0, token.0, UNAVAILABLE, 0, 0];
        let _heard = self.root_callback(vm, root, Callback::GrpcClose, arguments).await;
        self.forget_answer(vm, root);
    }

    /// A unary call: the message if there is a whole one, then the close with its status (PLATFORM 1.7).
    async fn grpc_called(&mut self, vm: VmId, root: ContextId, token: CallToken, outcome: Outcome) {
        let (status, text, message) = read_grpc(outcome);
        if let Some(message) = message {
            let size = u32::try_from(message.len()).unwrap_or(u32::MAX);
            self.note_shown(vm, root, [0; 2], &message);
            if let Some(found) = self.shared.lock().vm_mut(vm).and_then(|vm| vm.root_mut(root)) {
                found.grpc_message = message;
            }
            let _heard = self.root_callback(vm, root, Callback::GrpcReceive, [root.0, token.0, size, 0, 0]).await;
        } else {
            self.set_status(vm, root, status, &text);
            let _heard = self.root_callback(vm, root, Callback::GrpcClose, [root.0, token.0, status, 0, 0]).await;
        }
        self.forget_answer(vm, root);
    }
}

/// What Envoy says in the receiver's place, as the request is spoken to.
fn said_to(call: &Call, reply: Response) -> Response {
    match call.speaks {
        Speaks::Http => reply,
        Speaks::Grpc => as_call(reply, None),
    }
}

/// `http.async_response_buffer_limit`, as Envoy's runtime has it by default (PLATFORM 1.5, row "response body of a
/// dispatch").
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// An answer that is too large breaks off.
fn limited(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Answer(response) if response.body.len() > ANSWER_BYTES_MAX => Outcome::Broken(response),
        Outcome::Answer(_) | Outcome::Broken(_) | Outcome::Failed(_) | Outcome::Replied { .. } => outcome,
    }
}

/// `UNAVAILABLE` and `INTERNAL` of gRPC.
const UNAVAILABLE: u32 = 14;
const INTERNAL: u32 = 13;

fn read_grpc(outcome: Outcome) -> (u32, String, Option<Vec<u8>>) {
    let response = match outcome {
        Outcome::Answer(response) => response,
        Outcome::Broken(_) => return (UNAVAILABLE, String::new(), None),
        // Envoy's own answers; a timeout is one of them (`grpc::silent`, `grpc::refused`).
        Outcome::Failed(failure) => {
            let text = with_details(&failure.text(Tries::One), &failure.details());
            return (UNAVAILABLE, text, None);
        }
        Outcome::Replied { reply, details, .. } => {
            let text = with_details(&String::from_utf8_lossy(&reply.body), details);
            return (UNAVAILABLE, text, None);
        }
    };
    let said = |name: &str| response.trailers.text(name).or_else(|| response.headers.text(name));
    match said("grpc-status").and_then(|text| text.parse::<u32>().ok()) {
        Some(0) => match message(&response.body) {
            Some(message) => (0, String::new(), Some(message)),
            None => (INTERNAL, String::new(), None),
        },
        Some(status) => (status, with_details(said("grpc-message").unwrap_or_default(), VIA_UPSTREAM), None),
        // No gRPC server.
        None if response.code() == 200 => (INTERNAL, with_details("", VIA_UPSTREAM), None),
        None => (UNAVAILABLE, String::new(), None),
    }
}

/// The text that a guest gets has the details behind it, or is the details (`grpc::answered_with_a_status`,
/// `grpc::http1_peer`).
fn with_details(text: &str, details: &str) -> String {
    if text.is_empty() { details.to_owned() } else { format!("{text}{{{details}}}") }
}

/// The one message of a unary answer: a flag, a length, the bytes.
fn message(body: &[u8]) -> Option<Vec<u8>> {
    let (head, rest) = body.split_first_chunk::<5>()?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    rest.get(..length).map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_32_mib_is_whole_and_one_byte_more_breaks_off() {
        for (bytes, is_whole) in [(ANSWER_BYTES_MAX, true), (ANSWER_BYTES_MAX + 1, false)] {
            let outcome = limited(Outcome::Answer(Response::status(200).body(vec![0; bytes])));
            assert_eq!(matches!(outcome, Outcome::Answer(_)), is_whole, "{bytes} bytes");
        }
    }

    #[test]
    fn a_message_is_what_its_length_says() {
        let cases: [(&[u8], Option<&[u8]>); 4] = [
            (b"\0\0\0\0\x02ab", Some(b"ab")),
            (b"\0\0\0\0\0", Some(b"")),
            (b"\0\0\0\0\x03ab", None),
            (b"\0\0\0\0", None),
        ];
        for (body, expected) in cases {
            assert_eq!(message(body).as_deref(), expected, "{body:?}");
        }
    }
}
