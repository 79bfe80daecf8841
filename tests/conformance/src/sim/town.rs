//! The receivers of a case: what each does with a request, and what it has read.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use simvoy::{Exchange, Headers, Moment, Origin, Receivers, Request, Response};

use super::wire::{self, Written};
use crate::arm::Problem;
use crate::case::{Answer, Case, GrpcAnswer, GrpcForm, GrpcMessage, Late, Receiver, Stepwise};
use crate::observation::Message;

/// How long a receiver takes for an answer.
const AFTER: Duration = Duration::from_millis(1);
/// `connect_timeout` of every cluster.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// What a receiver that breaks off promises, and how much of it comes.
const PROMISED_BYTES: &str = "100";
const KEPT_BYTES: &[u8] = b"ten bytes.";

/// All receivers of a case.
pub struct Town {
    actors: BTreeMap<String, Actor>,
    /// Requests whose head was on the wire before their end.
    by_pieces: BTreeSet<u64>,
}

struct Actor {
    behaviour: Receiver,
    /// Requests that have met this behaviour.
    met: usize,
    presence: Presence,
    received: Vec<Message>,
    /// Requests that wait for a `release`.
    waiting: VecDeque<(Origin, Stepwise)>,
    /// `release` steps that nobody has used yet.
    releases: usize,
}

/// Whether a receiver's port is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    Listens,
    /// It has closed in the middle of a request, and stays away.
    Vanished,
}

impl Town {
    /// Receivers that do what the case says they do first.
    pub fn new(case: &Case) -> Town {
        let actor = |behaviour: &Receiver| Actor {
            behaviour: behaviour.clone(),
            met: 0,
            presence: Presence::Listens,
            received: Vec::new(),
            waiting: VecDeque::new(),
            releases: 0,
        };
        let actors = case.clusters.iter().map(|(name, cluster)| (name.clone(), actor(&cluster.receiver))).collect();
        Town { actors, by_pieces: BTreeSet::new() }
    }

    /// How many requests a receiver has read.
    pub fn count(&self, cluster: &str) -> usize {
        self.actors.get(cluster).map_or(0, |actor| actor.received.len())
    }

    /// Everything that was received.
    pub fn received(&self) -> BTreeMap<String, Vec<Message>> {
        self.actors.iter().map(|(name, actor)| (name.clone(), actor.received.clone())).collect()
    }

    /// Changes what a receiver does.
    pub fn behave(&mut self, cluster: &str, behaviour: &Receiver) -> Result<(), Problem> {
        let actor = self.actor(cluster)?;
        (actor.behaviour, actor.met, actor.presence) = (behaviour.clone(), 0, Presence::Listens);
        Ok(())
    }

    /// One more piece of a stepwise answer may go. Simvoy takes whole answers, so the last release sends everything.
    pub fn release(&mut self, cluster: &str) -> Result<Option<(Origin, Exchange)>, Problem> {
        let actor = self.actor(cluster)?;
        actor.releases += 1;
        Ok(actor.released())
    }

    fn actor(&mut self, cluster: &str) -> Result<&mut Actor, Problem> {
        self.actors.get_mut(cluster).ok_or_else(|| Problem::CannotDo(format!("find a cluster {cluster:?} in the case")))
    }

    fn written(&self, cluster: &str, origin: Origin, request: &Request) -> Written {
        if self.actors.get(cluster).is_some_and(|actor| actor.behaviour.speaks_http_2()) {
            return Written::InFrames;
        }
        let is_by_pieces = match origin {
            Origin::Live(stream) => self.by_pieces.contains(&stream.0),
            Origin::Dispatch(..) | Origin::Through(..) => {
                request.headers.text("content-type") == Some("application/grpc")
            }
        };
        if is_by_pieces { Written::PieceByPiece } else { Written::AtOnce }
    }
}

impl Receivers for Town {
    fn exchange(&mut self, cluster: &str, origin: Origin, request: &Request, _: Moment) -> Exchange {
        let message = wire::request(request, self.written(cluster, origin, request));
        match self.actors.get_mut(cluster) {
            Some(actor) => actor.meet(origin, message),
            None => Exchange::Refused,
        }
    }

    fn early(&mut self, cluster: &str, origin: Origin, head: &Request, _: Moment) -> Option<Exchange> {
        if let Origin::Live(stream) = origin {
            self.by_pieces.insert(stream.0);
        }
        let actor = self.actors.get_mut(cluster)?;
        match &actor.behaviour {
            Receiver::AnswersEarly(answer) => {
                actor.received.push(wire::request(head, Written::PieceByPiece));
                Some(Exchange::Answer { after: AFTER, response: response(answer) })
            }
            Receiver::Answers(_)
            | Receiver::AnswersStepwise(_)
            | Receiver::AnswersLate(_)
            | Receiver::SpeaksGrpc(_)
            | Receiver::Silent
            | Receiver::SpeaksGarbage
            | Receiver::ClosesUnanswered
            | Receiver::BreaksOff
            | Receiver::Refuses
            | Receiver::Dead
            | Receiver::Unhealthy
            | Receiver::Absent
            | Receiver::InTurn(_) => None,
        }
    }
}

impl Actor {
    fn meet(&mut self, origin: Origin, message: Message) -> Exchange {
        if self.presence == Presence::Vanished {
            return Exchange::Refused;
        }
        match &self.behaviour {
            Receiver::Refuses => return Exchange::Refused,
            Receiver::Dead => return Exchange::ConnectTimeout { after: CONNECT_TIMEOUT },
            Receiver::InTurn(_)
            | Receiver::Answers(_)
            | Receiver::AnswersEarly(_)
            | Receiver::AnswersStepwise(_)
            | Receiver::AnswersLate(_)
            | Receiver::SpeaksGrpc(_)
            | Receiver::Silent
            | Receiver::SpeaksGarbage
            | Receiver::ClosesUnanswered
            | Receiver::BreaksOff
            | Receiver::Unhealthy
            | Receiver::Absent => {}
        }
        self.received.push(message);
        let behaviour = match &self.behaviour {
            Receiver::InTurn(turns) => turns.get(self.met).or(turns.last()).cloned().unwrap_or_default(),
            only => only.clone(),
        };
        self.met += 1;
        self.react(origin, behaviour)
    }

    /// What is done with a request that was read to its end.
    fn react(&mut self, origin: Origin, behaviour: Receiver) -> Exchange {
        match behaviour {
            Receiver::Answers(answer) | Receiver::AnswersEarly(answer) => {
                Exchange::Answer { after: AFTER, response: response(&answer) }
            }
            Receiver::AnswersStepwise(stepwise) => {
                self.waiting.push_back((origin, stepwise));
                self.released().map_or(Exchange::Silence, |(_, exchange)| exchange)
            }
            Receiver::AnswersLate(Late { after_ms, status }) => {
                Exchange::Answer { after: Duration::from_millis(after_ms), response: late(status) }
            }
            Receiver::SpeaksGrpc(answer) => Exchange::Answer { after: AFTER, response: grpc(&answer) },
            Receiver::SpeaksGarbage => Exchange::Garbage { after: AFTER },
            Receiver::ClosesUnanswered => Exchange::CutBeforeHeaders { after: AFTER },
            Receiver::BreaksOff => {
                let head = Response::status(200).header("content-length", PROMISED_BYTES);
                Exchange::CutAfterHeaders { after: AFTER, response: head.body(KEPT_BYTES) }
            }
            Receiver::Refuses => {
                self.presence = Presence::Vanished;
                Exchange::CutBeforeHeaders { after: AFTER }
            }
            Receiver::Silent | Receiver::Dead | Receiver::Unhealthy | Receiver::Absent | Receiver::InTurn(_) => {
                Exchange::Silence
            }
        }
    }

    /// The answer that has just been released whole.
    fn released(&mut self) -> Option<(Origin, Exchange)> {
        let (_, stepwise) = self.waiting.front()?;
        let has_end_of_its_own = !stepwise.trailers.is_empty() || stepwise.pieces.is_empty();
        let needed = 1 + stepwise.pieces.len() + usize::from(has_end_of_its_own);
        if self.releases < needed {
            return None;
        }
        self.releases -= needed;
        let (origin, stepwise) = self.waiting.pop_front()?;
        let mut response = Response::status(stepwise.status).header("transfer-encoding", "chunked");
        response.body = stepwise.pieces.iter().flat_map(|piece| piece.0.clone()).collect();
        response.trailers = Headers(stepwise.trailers.into_iter().map(|(name, value)| (name, value.0)).collect());
        Some((origin, Exchange::Answer { after: Duration::ZERO, response }))
    }
}

fn grpc(answer: &GrpcAnswer) -> Response {
    let mut response = Response::status(200).header("content-type", "application/grpc");
    let status = answer.status_headers().into_iter().map(|(name, value)| (name.to_owned(), value.into_bytes()));
    match answer.form {
        GrpcForm::TrailersOnly => response.headers.0.extend(status),
        GrpcForm::Whole => {
            response.body = answer.message.as_ref().map(GrpcMessage::framed).unwrap_or_default();
            response.trailers = Headers(status.collect());
        }
    }
    response
}

/// As the harness's receiver answers.
fn late(status: u16) -> Response {
    let body = format!("receiver says {status}\n");
    Response::status(status).header("content-length", &body.len().to_string()).body(body)
}

fn response(answer: &Answer) -> Response {
    let mut response = Response::status(answer.status);
    for (name, value) in &answer.headers {
        response.headers.add(&name.to_ascii_lowercase(), value.0.clone());
    }
    if !answer.trailers.is_empty() {
        response.headers.add("transfer-encoding", "chunked");
    } else if answer.status != 204 {
        // A codec takes the length off an answer that can have no body.
        response.headers.add("content-length", answer.body.0.len().to_string());
    }
    response.body = answer.body.0.clone();
    response.trailers = Headers(answer.trailers.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect());
    response
}
