//! The state of one destination: whether messages are sent to it, and how many at once (CONTRACT section 6).
//!
//! ```text
//!         unhealthy, no healthy host,            healthy for stable_for; passive: backoff over, or a live success;
//!         5 connection failures in a row         unhealthy for suspect_after
//!   Up ------------------------------> Down ----------------------------------> Probing
//!    ^ ^                                ^ ^                                      |  |
//!    | `-------- backlog empty ---------' `---- 429, 503, no whole answer -------'  | any other answer
//!    |                                                                              v
//!    `----------------------------- backlog empty ------------------------------ Ramping
//! ```
//! Knows no message but the probe, no clock and no memory: facts come in, a state comes out. Every change answers with
//! the reason, for the log.

use crate::answer::Contact;
use crate::cells::{Evidence, Observation, PublishedState, Verdict};
use crate::config::{Backoff, Health};
use crate::store::Ticket;
use crate::units::{Millis, Monotonic};
use std::fmt;

/// Connection failures in a row, without a success, that mean `down` (CONTRACT section 6).
pub const CONNECT_FAILURES_MAX: u32 = 5;
/// A verdict stands for so many intervals after it was last heard; then the passive rules apply (CONTRACT section 6).
pub const VERDICT_INTERVALS: u64 = 3;

/// What is known about a destination at this moment, apart from our own attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signs {
    /// What the active source says; `None`: nothing, or nothing recent.
    pub verdict: Option<Observation>,
    /// What live traffic showed.
    pub evidence: Evidence,
    /// Whether messages wait or are out.
    pub backlog: Backlog,
}

/// Whether anything is stored for a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backlog {
    /// Nothing.
    Empty,
    /// Something.
    Some,
}

/// Why a state was entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The active source.
    Unhealthy,
    /// A live request.
    NoHealthyHost,
    /// Live requests or redeliveries.
    ConnectionFailures,
    /// Envoy does not know the cluster.
    UnknownCluster,
    /// The probe got no good answer.
    ProbeFailed,
    /// Healthy for `stable_for`.
    Healthy,
    /// The wait before a probe is over.
    WaitOver,
    /// A live request went well.
    LiveSuccess,
    /// Unhealthy for `suspect_after`: the source may be wrong.
    Suspect,
    /// The receiver answered the probe.
    ProbeAnswered,
    /// Nothing is stored any more.
    BacklogEmpty,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unhealthy => "unhealthy",
            Self::NoHealthyHost => "no healthy host",
            Self::ConnectionFailures => "connection failures",
            Self::UnknownCluster => "unknown cluster",
            Self::ProbeFailed => "probe failed",
            Self::Healthy => "healthy",
            Self::WaitOver => "wait over",
            Self::LiveSuccess => "live success",
            Self::Suspect => "unhealthy for long, probing anyway",
            Self::ProbeAnswered => "probe answered",
            Self::BacklogEmpty => "backlog empty",
        })
    }
}

/// The state, with what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Messages flow, or there are none.
    Up,
    /// Nothing is sent.
    Down {
        /// Since when.
        since: Monotonic,
    },
    /// One message is out, or will be at once.
    Probing {
        /// The message; `None` until it is chosen.
        probe: Option<Ticket>,
    },
    /// The backlog drains.
    Ramping,
}

/// A change of state, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Before.
    pub from: PublishedState,
    /// After.
    pub to: PublishedState,
    /// Why.
    pub cause: Cause,
}

impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {} ({})", self.from, self.to, self.cause)
    }
}

impl fmt::Display for PublishedState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Probing => "probing",
            Self::Ramping => "ramping",
        })
    }
}

/// One destination as its leader sees it.
#[derive(Clone, Debug)]
pub struct Destination {
    state: State,
    entered_at: Monotonic,
    /// Connection failures of our own attempts in a row.
    connect_failures: u32,
    /// Probes in a row that failed: the passive wait grows with them.
    failed_probes: u16,
    /// The message of the last failed probe: the next probe is another one.
    last_probe: Option<Ticket>,
    /// The last probe's answer asked for peace until then.
    quiet_until: Monotonic,
    /// When a suspect probe may be made, once the source has said unhealthy for long.
    suspect_at: Monotonic,
    /// Envoy would not ask the receiver, at this moment: nothing is sent before the next.
    held_off_at: Monotonic,
    held_off_until: Monotonic,
    /// How often in a row; the wait grows with it.
    times_held_off: u16,
}

impl Destination {
    /// A destination that a new leader takes over, in the state that its predecessor published. A takeover in the middle
    /// of a probe or a ramp starts that again: better too careful than a storm. The first leader of all looks at signs
    /// from before its term: a destination is entered into the table by its first failure.
    #[must_use]
    pub fn taken_over(published: Option<PublishedState>, now: Monotonic) -> Self {
        let state = match published {
            None | Some(PublishedState::Up) => State::Up,
            Some(PublishedState::Down | PublishedState::Probing) => State::Down { since: now },
            Some(PublishedState::Ramping) => State::Ramping,
        };
        Self {
            state,
            entered_at: published.map_or(Monotonic(0), |_| now),
            connect_failures: 0,
            failed_probes: 0,
            last_probe: None,
            quiet_until: Monotonic(0),
            suspect_at: Monotonic(0),
            held_off_at: Monotonic(0),
            held_off_until: Monotonic(0),
            times_held_off: 0,
        }
    }

    /// The state.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// The state as others see it.
    #[must_use]
    pub const fn published(&self) -> PublishedState {
        match self.state {
            State::Up => PublishedState::Up,
            State::Down { .. } => PublishedState::Down,
            State::Probing { .. } => PublishedState::Probing,
            State::Ramping => PublishedState::Ramping,
        }
    }

    /// The message that the next probe must not be, if there is another.
    #[must_use]
    pub const fn last_probe(&self) -> Option<Ticket> {
        self.last_probe
    }

    /// The probe was chosen.
    pub fn probe_chosen(&mut self, ticket: Ticket) {
        if let State::Probing { probe } = &mut self.state {
            *probe = Some(ticket);
        }
    }

    /// The chosen probe could not be claimed; another is chosen.
    pub fn probe_lost(&mut self, ticket: Ticket) {
        if let State::Probing { probe } = &mut self.state
            && *probe == Some(ticket)
        {
            *probe = None;
        }
    }

    /// What the signs of this moment change.
    pub fn observe(&mut self, signs: &Signs, health: &Health, backoff: &Backoff, now: Monotonic) -> Option<Transition> {
        match self.state {
            State::Down { since } => self.observe_down(since, signs, health, backoff, now),
            State::Up => {
                self.end_hold_off(signs);
                self.bad_sign(signs).and_then(|cause| self.go_down(cause, now))
            }
            State::Probing { probe } => {
                if probe.is_none() && signs.backlog == Backlog::Empty {
                    return self.enter(State::Up, Cause::BacklogEmpty, now);
                }
                None
            }
            State::Ramping => match self.bad_sign(signs) {
                Some(cause) => self.go_down(cause, now),
                None if signs.backlog == Backlog::Empty => self.enter(State::Up, Cause::BacklogEmpty, now),
                None => None,
            },
        }
    }

    /// What an answer to one of our attempts changes. `ticket` tells whether it was the probe, `asked` how long the
    /// receiver wants to be left alone.
    pub fn settled(
        &mut self,
        ticket: Ticket,
        contact: Contact,
        asked: Millis,
        signs: &Signs,
        now: Monotonic,
    ) -> Option<Transition> {
        self.count(contact);
        match self.state {
            State::Probing { probe: Some(probe) } if probe == ticket => {
                // What it asks on a message is that message's; on a probe it speaks for itself (RFC 9110 10.2.3: how long
                // the service is expected to be unavailable).
                self.quiet_until = now.after(asked);
                self.probe_settled(ticket, contact, signs, now)
            }
            State::Up | State::Ramping if contact == Contact::Unknown => self.go_down(Cause::UnknownCluster, now),
            State::Up | State::Ramping if self.connect_failures >= CONNECT_FAILURES_MAX => {
                self.go_down(Cause::ConnectionFailures, now)
            }
            State::Up | State::Ramping | State::Down { .. } | State::Probing { .. } => None,
        }
    }

    fn count(&mut self, contact: Contact) {
        match contact {
            Contact::Answered | Contact::Overloaded | Contact::Gateway | Contact::Trouble => {
                self.connect_failures = 0;
                self.times_held_off = 0;
            }
            Contact::NotReached => self.connect_failures = self.connect_failures.saturating_add(1),
            Contact::NotAsked | Contact::Unknown | Contact::Nothing => {}
        }
    }

    /// Envoy refused a dispatch on the spot. That is no sign of being down (a full circuit breaker looks the same), but
    /// asking again at once would be a hot loop: wait as between two probes.
    pub fn hold_off(&mut self, health: &Health, backoff: &Backoff, now: Monotonic) {
        if now >= self.held_off_until {
            self.held_off_at = now;
            self.held_off_until = now.after(doubled_wait(self.times_held_off, health, backoff));
            self.times_held_off = self.times_held_off.saturating_add(1);
        }
    }

    /// A source that says healthy since then knows better than the refusal.
    fn end_hold_off(&mut self, signs: &Signs) {
        let is_healthy = |seen: Observation| seen.verdict == Verdict::Healthy && seen.since > self.held_off_at;
        if signs.verdict.is_some_and(is_healthy) {
            self.held_off_until = Monotonic(0);
        }
    }

    /// Whether nothing is sent for now although the state would allow it.
    #[must_use]
    pub fn is_held_off(&self, now: Monotonic) -> bool {
        now < self.held_off_until
    }

    fn probe_settled(&mut self, ticket: Ticket, contact: Contact, signs: &Signs, now: Monotonic) -> Option<Transition> {
        match contact {
            Contact::Answered | Contact::Gateway => {
                self.failed_probes = 0;
                self.last_probe = None;
                match signs.backlog {
                    Backlog::Empty => self.enter(State::Up, Cause::BacklogEmpty, now),
                    Backlog::Some => self.enter(State::Ramping, Cause::ProbeAnswered, now),
                }
            }
            Contact::Overloaded | Contact::Trouble | Contact::NotReached | Contact::NotAsked | Contact::Unknown => {
                self.failed_probes = self.failed_probes.saturating_add(1);
                self.last_probe = Some(ticket);
                self.go_down(Cause::ProbeFailed, now)
            }
            // The message could not be sent at all: it says nothing, another one is the probe.
            Contact::Nothing => {
                self.state = State::Probing { probe: None };
                None
            }
        }
    }

    fn bad_sign(&self, signs: &Signs) -> Option<Cause> {
        match signs.verdict.map(|seen| seen.verdict) {
            Some(Verdict::Unhealthy) => Some(Cause::Unhealthy),
            Some(Verdict::Healthy) | None if signs.evidence.no_host_at > self.entered_at => Some(Cause::NoHealthyHost),
            Some(Verdict::Healthy) | None if signs.evidence.connect_failures >= CONNECT_FAILURES_MAX => {
                Some(Cause::ConnectionFailures)
            }
            Some(Verdict::Healthy) | None => None,
        }
    }

    fn observe_down(
        &mut self,
        since: Monotonic,
        signs: &Signs,
        health: &Health,
        backoff: &Backoff,
        now: Monotonic,
    ) -> Option<Transition> {
        let cause = match signs.verdict {
            Some(Observation { verdict: Verdict::Unhealthy, since: unhealthy, .. }) => {
                let suspect_at = self.suspect_at.max(unhealthy.after(health.suspect_after));
                (now >= suspect_at).then_some(Cause::Suspect)
            }
            Some(Observation { verdict: Verdict::Healthy, since: healthy, .. }) => {
                // Healthy all along and yet down: the source is slower than the failures were, so probes keep apart.
                let wait = if healthy > since { Millis::ZERO } else { self.probe_wait(health, backoff) };
                let start = healthy.max(since).after(health.stable_for.max(wait));
                (now >= start).then_some(Cause::Healthy)
            }
            None if signs.evidence.success_at > since => Some(Cause::LiveSuccess),
            None => (now >= since.after(self.probe_wait(health, backoff))).then_some(Cause::WaitOver),
        }?;
        if now < self.quiet_until && signs.backlog == Backlog::Some && cause != Cause::LiveSuccess {
            return None;
        }
        match (signs.backlog, cause) {
            (Backlog::Empty, Cause::Suspect) => None,
            (Backlog::Empty, _) => self.enter(State::Up, Cause::BacklogEmpty, now),
            (Backlog::Some, _) => {
                self.suspect_at = now.after(health.suspect_after);
                self.enter(State::Probing { probe: None }, cause, now)
            }
        }
    }

    fn probe_wait(&self, health: &Health, backoff: &Backoff) -> Millis {
        doubled_wait(self.failed_probes, health, backoff)
    }

    fn go_down(&mut self, cause: Cause, now: Monotonic) -> Option<Transition> {
        self.enter(State::Down { since: now }, cause, now)
    }

    fn enter(&mut self, state: State, cause: Cause, now: Monotonic) -> Option<Transition> {
        let from = self.published();
        self.state = state;
        self.entered_at = now;
        self.connect_failures = 0;
        if self.published() == PublishedState::Up {
            self.failed_probes = 0;
            self.last_probe = None;
        }
        Some(Transition { from, to: self.published(), cause })
    }
}

/// The wait after `failures` failures: doubles from the first backoff up to `probe_max`.
fn doubled_wait(failures: u16, health: &Health, backoff: &Backoff) -> Millis {
    let doublings = u32::from(failures).min(32);
    backoff.initial.min(health.probe_max).times(1_u64 << doublings).min(health.probe_max)
}

/// What the active source's last word is worth at `now`.
#[must_use]
pub fn standing(observation: Option<Observation>, health: &Health, now: Monotonic) -> Option<Observation> {
    observation.filter(|seen| now.since(seen.seen_at) <= health.interval.times(VERDICT_INTERVALS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::{Generation, SlotIndex};
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    struct Scene {
        destination: Destination,
        signs: Signs,
        health: Health,
        backoff: Backoff,
        now: Monotonic,
    }

    fn scene() -> Scene {
        let policy = crate::config::parse(b"{}").unwrap().shared;
        let signs = Signs { verdict: None, evidence: Evidence::default(), backlog: Backlog::Some };
        let now = Monotonic(1_000_000);
        Scene {
            destination: Destination::taken_over(None, now),
            signs,
            health: policy.health.clone(),
            backoff: policy.redelivery.backoff.clone(),
            now,
        }
    }

    impl Scene {
        fn pass(&mut self, span: u64) -> Option<Cause> {
            self.now = self.now.after(Millis(span));
            self.destination.observe(&self.signs, &self.health, &self.backoff, self.now).map(|change| change.cause)
        }
        fn says(&mut self, verdict: Verdict) {
            self.signs.verdict = Some(Observation::following(self.signs.verdict, verdict, self.now));
        }
        fn probe(&mut self, slot: u32, contact: Contact) -> Option<Cause> {
            self.probe_asking(slot, contact, 0)
        }
        fn probe_asking(&mut self, slot: u32, contact: Contact, asked: u64) -> Option<Cause> {
            let ticket = Ticket { slot: SlotIndex(slot), generation: Generation(1) };
            self.destination.probe_chosen(ticket);
            let change = self.destination.settled(ticket, contact, Millis(asked), &self.signs, self.now);
            change.map(|change| change.cause)
        }
    }

    #[test]
    fn passive_no_healthy_host_means_down_until_the_wait_is_over() {
        let mut scene = scene();
        scene.signs.evidence.no_host_at = scene.now.after(Millis(1));
        assert_eq!(scene.pass(2), Some(Cause::NoHealthyHost));
        assert_eq!(scene.pass(999), None);
        assert_eq!(scene.pass(1), Some(Cause::WaitOver));
        assert_eq!(scene.probe(1, Contact::NotReached), Some(Cause::ProbeFailed));
        assert_eq!(scene.pass(1_999), None, "the wait doubles");
        assert_eq!(scene.pass(1), Some(Cause::WaitOver));
        assert_eq!(scene.probe(2, Contact::Answered), Some(Cause::ProbeAnswered));
        scene.signs.backlog = Backlog::Empty;
        assert_eq!(scene.pass(1), Some(Cause::BacklogEmpty));
    }

    #[test]
    fn a_failed_probe_that_asks_for_peace_gets_it_unless_live_traffic_shows_otherwise() {
        for verdict in [None, Some(Verdict::Healthy)] {
            let mut scene = scene();
            scene.signs.evidence.no_host_at = scene.now.after(Millis(1));
            scene.pass(2);
            verdict.into_iter().for_each(|verdict| scene.says(verdict));
            assert!(scene.pass(2_000).is_some());
            assert_eq!(scene.probe_asking(1, Contact::Overloaded, 60_000), Some(Cause::ProbeFailed));
            let said = |scene: &mut Scene| verdict.into_iter().for_each(|verdict| scene.says(verdict));
            for _ in 0..59 {
                said(&mut scene);
                assert_eq!(scene.pass(1_000), None, "{verdict:?}");
            }
            said(&mut scene);
            assert!(scene.pass(1_000).is_some(), "{verdict:?}");
        }
        let mut scene = scene();
        scene.signs.evidence.no_host_at = scene.now.after(Millis(1));
        scene.pass(2);
        scene.pass(1_000);
        scene.probe_asking(1, Contact::Overloaded, 60_000);
        scene.signs.evidence.success_at = scene.now.after(Millis(1));
        assert_eq!(scene.pass(2), Some(Cause::LiveSuccess));
    }

    #[test]
    fn the_wait_between_passive_probes_ends_at_probe_max() {
        let mut scene = scene();
        scene.signs.evidence.no_host_at = scene.now.after(Millis(1));
        scene.pass(2);
        for _ in 0..40 {
            assert_eq!(scene.pass(scene.health.probe_max.0), Some(Cause::WaitOver));
            scene.probe(1, Contact::NotReached);
        }
    }

    #[test]
    fn a_live_success_ends_a_passive_down() {
        let mut scene = scene();
        scene.signs.evidence.connect_failures = CONNECT_FAILURES_MAX;
        assert_eq!(scene.pass(1), Some(Cause::ConnectionFailures));
        scene.signs.evidence.success_at = scene.now.after(Millis(5));
        assert_eq!(scene.pass(10), Some(Cause::LiveSuccess));
    }

    #[test]
    fn an_active_source_rules_and_healthy_must_last() {
        let mut scene = scene();
        scene.says(Verdict::Unhealthy);
        assert_eq!(scene.pass(1), Some(Cause::Unhealthy));
        scene.signs.evidence.success_at = scene.now.after(Millis(1));
        assert_eq!(scene.pass(10_000), None, "no passive rule while the source speaks");
        scene.says(Verdict::Healthy);
        assert_eq!(scene.pass(1_999), None);
        assert_eq!(scene.pass(1), Some(Cause::Healthy));
    }

    #[test]
    fn an_unhealthy_destination_is_probed_anyway_once_per_suspect_after() {
        let mut scene = scene();
        scene.says(Verdict::Unhealthy);
        scene.pass(1);
        assert_eq!(scene.pass(299_998), None);
        assert_eq!(scene.pass(1), Some(Cause::Suspect));
        assert_eq!(scene.probe(1, Contact::Trouble), Some(Cause::ProbeFailed));
        assert_eq!(scene.pass(299_999), None);
        assert_eq!(scene.pass(1), Some(Cause::Suspect));
    }

    #[test]
    fn an_empty_backlog_goes_straight_up() {
        let mut scene = scene();
        scene.signs.backlog = Backlog::Empty;
        scene.says(Verdict::Unhealthy);
        assert_eq!(scene.pass(1), Some(Cause::Unhealthy));
        scene.says(Verdict::Healthy);
        assert_eq!(scene.pass(2_000), Some(Cause::BacklogEmpty));
        assert_eq!(scene.destination.state(), State::Up);
    }

    #[test]
    fn overload_fails_a_probe_and_any_other_answer_ends_it() {
        let cases = [
            (Contact::Answered, PublishedState::Ramping),
            (Contact::Gateway, PublishedState::Ramping),
            (Contact::Overloaded, PublishedState::Down),
            (Contact::Trouble, PublishedState::Down),
            (Contact::NotReached, PublishedState::Down),
            (Contact::NotAsked, PublishedState::Down),
            (Contact::Unknown, PublishedState::Down),
            (Contact::Nothing, PublishedState::Probing),
        ];
        for (contact, expected) in cases {
            let mut scene = scene();
            scene.signs.evidence.no_host_at = scene.now.after(Millis(1));
            scene.pass(2);
            scene.pass(1_000);
            scene.probe(1, contact);
            assert_eq!(scene.destination.published(), expected, "{contact:?}");
        }
    }

    #[test]
    fn five_refused_attempts_in_a_row_mean_down_and_an_answer_starts_the_count_again() {
        let mut scene = scene();
        let ticket = Ticket { slot: SlotIndex(1), generation: Generation(1) };
        let mut settle =
            |contact| scene.destination.settled(ticket, contact, Millis::ZERO, &scene.signs, scene.now).is_some();
        for _ in 0..4 {
            assert!(!settle(Contact::NotReached));
        }
        assert!(!settle(Contact::Overloaded));
        for _ in 0..4 {
            assert!(!settle(Contact::NotReached));
        }
        assert!(settle(Contact::NotReached));
    }

    #[test]
    fn a_refusal_on_the_spot_waits_longer_each_time_and_is_no_sign_of_being_down() {
        let mut scene = scene();
        let ticket = Ticket { slot: SlotIndex(1), generation: Generation(1) };
        for wait in [1_000, 2_000, 4_000, 8_000, 10_000, 10_000] {
            assert!(!scene.destination.is_held_off(scene.now));
            for _ in 0..9 {
                let change =
                    scene.destination.settled(ticket, Contact::NotAsked, Millis::ZERO, &scene.signs, scene.now);
                assert_eq!(change, None);
                scene.destination.hold_off(&scene.health, &scene.backoff, scene.now);
            }
            scene.now = scene.now.after(Millis(wait - 1));
            assert!(scene.destination.is_held_off(scene.now), "{wait} ms");
            scene.now = scene.now.after(Millis(1));
        }
        assert_eq!(scene.destination.published(), PublishedState::Up);
    }

    #[test]
    fn a_verdict_stands_for_three_intervals() {
        let scene = scene();
        let seen = Observation::following(None, Verdict::Unhealthy, scene.now);
        assert_eq!(standing(Some(seen), &scene.health, scene.now.after(Millis(3_000))), Some(seen));
        assert_eq!(standing(Some(seen), &scene.health, scene.now.after(Millis(3_001))), None);
    }
}
