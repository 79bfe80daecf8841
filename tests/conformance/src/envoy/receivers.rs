//! The receivers of a case, one per cluster, on the harness's scripted receiver.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use redeliver_probe::bytes::Bytes;
use redeliver_tests::wire::{Head, Headers, chunk};
use redeliver_tests::{Receiver, Reply};
use tokio::sync::Semaphore;

use super::grpc::GrpcReceiver;
use crate::arm::Problem;
use crate::case::{self, Answer, Case, Stepwise};
use crate::observation::Message;

/// What a receiver that breaks off promises, and how much of it comes.
const PROMISED_BYTES: &str = "100";
const KEPT_BYTES: &[u8] = b"ten bytes.";

enum Actor {
    Http {
        receiver: Receiver,
        /// One permit per `release` step.
        releases: Arc<Semaphore>,
    },
    Grpc(GrpcReceiver),
}

/// All receivers of a case.
pub struct Receivers {
    actors: BTreeMap<String, Actor>,
}

impl Receivers {
    /// Receivers that do what the case says they do first.
    pub async fn start(case: &Case) -> Result<Receivers, Problem> {
        let mut receivers = Receivers { actors: BTreeMap::new() };
        for (name, cluster) in &case.clusters {
            if let case::Receiver::SpeaksGrpc(answer) = &cluster.receiver {
                receivers.actors.insert(name.clone(), Actor::Grpc(GrpcReceiver::start(answer).await?));
                continue;
            }
            let actor = Actor::Http { receiver: Receiver::start().await, releases: Arc::new(Semaphore::new(0)) };
            receivers.actors.insert(name.clone(), actor);
            receivers.behave(name, &cluster.receiver).await?;
        }
        Ok(receivers)
    }

    /// The port of a cluster's receiver.
    pub fn port(&self, cluster: &str) -> u16 {
        self.actors.get(cluster).map_or(0, |actor| match actor {
            Actor::Http { receiver, .. } => receiver.port(),
            Actor::Grpc(receiver) => receiver.port(),
        })
    }

    /// How many requests a receiver has read.
    pub fn count(&self, cluster: &str) -> Result<usize, Problem> {
        Ok(self.actor(cluster)?.received().len())
    }

    /// Lets a stepwise receiver send one more piece.
    pub fn release(&self, cluster: &str) -> Result<(), Problem> {
        let (_, releases) = self.actor(cluster)?.http()?;
        releases.add_permits(1);
        Ok(())
    }

    /// Everything that was received.
    pub fn received(&self) -> BTreeMap<String, Vec<Message>> {
        self.actors.iter().map(|(name, actor)| (name.clone(), actor.received())).collect()
    }

    /// Changes what a receiver does.
    pub async fn behave(&self, cluster: &str, behaviour: &case::Receiver) -> Result<(), Problem> {
        let (receiver, releases) = self.actor(cluster)?.http()?;
        match behaviour {
            case::Receiver::Refuses => receiver.refuse().await,
            case::Receiver::Dead => receiver.swallow().await,
            case::Receiver::Unhealthy => receiver.health(503),
            case::Receiver::Absent => {}
            case::Receiver::SpeaksGrpc(_) => return Err(Actor::no_change()),
            case::Receiver::AnswersEarly(answer) => receiver.answer_heads(encode(answer)),
            case::Receiver::InTurn(behaviours) => in_turn(receiver, behaviours, releases)?,
            case::Receiver::Answers(_)
            | case::Receiver::AnswersStepwise(_)
            | case::Receiver::AnswersLate(_)
            | case::Receiver::Silent
            | case::Receiver::SpeaksGarbage
            | case::Receiver::ClosesUnanswered
            | case::Receiver::BreaksOff => {
                let reply = reply(behaviour, releases)?;
                receiver.reply_with(move |_| reply.clone());
                if receiver.is_away() {
                    receiver.come_back().await;
                }
            }
        }
        Ok(())
    }

    fn actor(&self, cluster: &str) -> Result<&Actor, Problem> {
        self.actors.get(cluster).ok_or_else(|| Problem::CannotDo(format!("find a cluster {cluster:?} in the case")))
    }
}

impl Actor {
    fn received(&self) -> Vec<Message> {
        match self {
            Actor::Http { receiver, .. } => receiver.received().into_iter().map(message).collect(),
            Actor::Grpc(receiver) => receiver.received(),
        }
    }

    fn http(&self) -> Result<(&Receiver, &Arc<Semaphore>), Problem> {
        match self {
            Actor::Http { receiver, releases } => Ok((receiver, releases)),
            Actor::Grpc(_) => Err(Actor::no_change()),
        }
    }

    fn no_change() -> Problem {
        Problem::CannotDo(
            "let a receiver begin or cease to speak gRPC: give the case one that does so all along".to_owned(),
        )
    }
}

fn in_turn(receiver: &Receiver, behaviours: &[case::Receiver], releases: &Arc<Semaphore>) -> Result<(), Problem> {
    let replies = behaviours.iter().map(|behaviour| reply(behaviour, releases)).collect::<Result<Vec<_>, _>>()?;
    let next = std::sync::atomic::AtomicUsize::new(0);
    receiver.reply_with(move |_| {
        let turn = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        replies.get(turn).or(replies.last()).cloned().unwrap_or(Reply::Hang)
    });
    Ok(())
}

/// What is done with a request that was read to its end.
fn reply(behaviour: &case::Receiver, releases: &Arc<Semaphore>) -> Result<Reply, Problem> {
    match behaviour {
        case::Receiver::Answers(answer) => Ok(Reply::Raw(encode(answer))),
        case::Receiver::AnswersStepwise(answer) => Ok(Reply::Pieces(stepwise(answer), Arc::clone(releases))),
        case::Receiver::AnswersLate(late) => Ok(Reply::Late(Duration::from_millis(late.after_ms), late.status)),
        case::Receiver::Silent => Ok(Reply::Hang),
        case::Receiver::SpeaksGarbage => Ok(Reply::RawThenClose(b"this is not HTTP\r\n\r\n".to_vec())),
        case::Receiver::ClosesUnanswered => Ok(Reply::CloseUnanswered),
        case::Receiver::BreaksOff => {
            let head = head(200, &[], ("content-length", PROMISED_BYTES));
            Ok(Reply::RawThenClose([head, KEPT_BYTES.to_vec()].concat()))
        }
        case::Receiver::Refuses => Ok(Reply::VanishUnanswered),
        case::Receiver::Dead
        | case::Receiver::Unhealthy
        | case::Receiver::Absent
        | case::Receiver::AnswersEarly(_)
        | case::Receiver::SpeaksGrpc(_)
        | case::Receiver::InTurn(_) => Err(Problem::CannotDo(format!("take turns with {behaviour:?}"))),
    }
}

fn head(status: u16, headers: &[(String, Bytes)], framing: (&str, &str)) -> Vec<u8> {
    let mut head = Head { start: format!("HTTP/1.1 {status} Scripted"), headers: Headers::default() };
    headers.iter().for_each(|(name, value)| head.headers.push(name, &value.0));
    head.headers.push(framing.0, framing.1);
    head.encode()
}

fn encode(answer: &Answer) -> Vec<u8> {
    let Answer { status, headers, body, trailers } = answer;
    if trailers.is_empty() {
        let length = body.0.len().to_string();
        return [head(*status, headers, ("content-length", &length)), body.0.clone()].concat();
    }
    let head = head(*status, headers, ("transfer-encoding", "chunked"));
    [head, chunk(&body.0), end_of_chunks(trailers)].concat()
}

fn stepwise(answer: &Stepwise) -> Vec<Vec<u8>> {
    let mut pieces = vec![head(answer.status, &[], ("transfer-encoding", "chunked"))];
    pieces.extend(answer.pieces.iter().map(|piece| chunk(&piece.0)));
    match pieces.last_mut() {
        Some(last) if answer.trailers.is_empty() => last.extend(end_of_chunks(&[])),
        Some(_) | None => pieces.push(end_of_chunks(&answer.trailers)),
    }
    pieces
}

/// The last chunk of a body, with its trailers.
pub fn end_of_chunks(trailers: &[(String, Bytes)]) -> Vec<u8> {
    let mut bytes = b"0\r\n".to_vec();
    for (name, value) in trailers {
        bytes.extend([name.as_bytes(), b": ", &value.0, b"\r\n"].concat());
    }
    bytes.extend(b"\r\n");
    bytes
}

fn message(received: redeliver_tests::Received) -> Message {
    Message {
        start: format!("{} {}", received.method, received.path),
        headers: received.headers.0,
        body: received.body,
    }
}
