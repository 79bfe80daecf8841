//! The oracle: what each sender was told, what each receiver saw, and what follows from it.
//!
//! It knows the contract and nothing of how the filter works. Every sight is checked when it comes, so the work for one
//! event does not grow with the history; what must hold for all messages at once is looked at by [`crate::audit`].

mod custody;
mod death;
mod duplicates;
mod ending;
mod order;
mod pace;
mod record;

pub use custody::{Failure, Room, View};
pub use duplicates::{Glance, Road};
pub use ending::{Seen, Writes};
pub use order::held_up;
pub use record::{Attempt, Contact, Knowledge, LiveContact, Record, Sighting};

use crate::hook::Standstill;
use crate::keys::{Identity, Line};
use crate::message::{Destination, KEY, Manner, Message, Number, Poison};
use crate::receiving::own::OWNER;
use crate::receiving::through::allowed;
use crate::receiving::{calls, neighbours};
use crate::rules::{ROUTE_TIMEOUT, Rules};
use crate::violation::{Invariant, Violation};
use duplicates::Duplicates;
use order::Lines;
use pace::Pace;
use record::{LEASE_SLACK, header_number, is_success};
use simvoy::{CallToken, Exchange, Headers, Moment, Request, Response, ThreadId, VmId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Everything that is known.
pub struct Oracle {
    /// The rules of this history.
    pub rules: Rules,
    /// Those of destinations that have others.
    own_rules: BTreeMap<Destination, Rules>,
    /// All messages.
    pub records: BTreeMap<Number, Record>,
    /// The first thing that went wrong.
    pub violation: Option<Violation>,
    /// Ids that senders were told.
    ids: BTreeSet<String>,
    calls: BTreeMap<(VmId, CallToken), Number>,
    /// Redeliveries on their way out: how many attempts had failed before.
    claims: BTreeMap<(VmId, CallToken), u16>,
    answers: BTreeMap<Destination, u64>,
    trouble: BTreeMap<Destination, Moment>,
    /// When a receiver was last not reached, be it for the message's own sake.
    pub not_reached: BTreeMap<Destination, Moment>,
    /// When a redelivery was last sent, and by which VM.
    last_attempts: BTreeMap<Destination, (Moment, VmId)>,
    /// Redeliveries that are at a receiver, each until it ends by itself.
    at_receiver: BTreeMap<Destination, BTreeMap<(VmId, CallToken), Moment>>,
    /// Answers of receivers that VMs have heard.
    heard_answers: BTreeMap<(VmId, Destination), u64>,
    /// The thread of each VM.
    threads: BTreeMap<VmId, ThreadId>,
    trapped: BTreeSet<VmId>,
    /// When a VM of a thread last died, or the thread stood still or was late: until then nothing there is as usual.
    troubled_threads: BTreeMap<ThreadId, Moment>,
    /// How often a VM died or stood still at work on redeliveries.
    interruptions: usize,
    /// Clusters that Envoy had not, each until it had them again; the end of time while it has not.
    absent: BTreeMap<Destination, Moment>,
    /// A thread stood still for longer than a lease, until this moment: what it does just then is excused, since no fence
    /// reaches a receiver.
    stalls: BTreeMap<ThreadId, Moment>,
    /// When the process was last disturbed: another VM may lead since, and not know what the one before it saw.
    pub disturbed_at: Moment,
    letters_gone_before: Number,
    pace: Pace,
    /// Since when something has waited for a destination, as its VMs can know; none: nothing does.
    pub backlog_since: BTreeMap<Destination, Moment>,
    /// When a configuration last came or went, or an older one was loaded again.
    pub configured_at: Moment,
    /// When the wall clock last jumped: a callback that began before knows the time before.
    pub jumped_at: Moment,
    /// Cells were damaged on purpose, and are mended by then: what was out may have been forgotten.
    pub doubt_until: Moment,
    /// Counts for the report.
    pub counts: Counts,
    /// How long redelivered messages took, by destination.
    pub delays: BTreeMap<Destination, Delay>,
    /// When everything was last looked at: a death that was seen then may be a little older.
    pub looked_at: Moment,
    duplicates: Duplicates,
    order: Lines,
}

/// How long messages took, together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delay {
    sum: Duration,
    count: u32,
}

impl Delay {
    /// How long one took on average; `None`: there was none.
    #[must_use]
    pub fn mean(self) -> Option<Duration> {
        self.sum.checked_div(self.count)
    }
}

/// What happened, for the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests sent.
    pub sent: u64,
    /// 202s with an id.
    pub acknowledged: u64,
    /// Messages that arrived by redelivery.
    pub delivered: u64,
    /// Messages that were processed twice after a cut, a timeout or a lost answer.
    pub duplicated_unknown: u64,
    /// Messages that were processed twice because a VM died or stood still.
    pub duplicated_lost: u64,
    /// Messages that arrived though nobody was told that they were stored.
    pub recovered: u64,
    /// Redeliveries.
    pub attempts: u64,
    /// Dead letters seen.
    pub dead: u64,
    /// Requests that senders sent again.
    pub retries: u64,
    /// Retries that were told the first id.
    pub joined: u64,
    /// Requests that were refused since their key was used for another one.
    pub refused: u64,
    /// Messages that were stored in a line.
    pub ordered: u64,
}

impl Oracle {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self {
            own_rules: rules.receiving.own.iter().map(|own| (OWNER, own.over(&rules))).collect(),
            rules,
            records: BTreeMap::new(),
            violation: None,
            ids: BTreeSet::new(),
            calls: BTreeMap::new(),
            claims: BTreeMap::new(),
            answers: BTreeMap::new(),
            trouble: BTreeMap::new(),
            not_reached: BTreeMap::new(),
            last_attempts: BTreeMap::new(),
            at_receiver: BTreeMap::new(),
            heard_answers: BTreeMap::new(),
            threads: BTreeMap::new(),
            trapped: BTreeSet::new(),
            troubled_threads: BTreeMap::new(),
            interruptions: 0,
            absent: BTreeMap::new(),
            stalls: BTreeMap::new(),
            disturbed_at: Moment(0),
            letters_gone_before: Number(0),
            pace: Pace::default(),
            backlog_since: BTreeMap::new(),
            configured_at: Moment(0),
            jumped_at: Moment(0),
            doubt_until: Moment(0),
            counts: Counts::default(),
            delays: BTreeMap::new(),
            looked_at: Moment(0),
            duplicates: Duplicates::default(),
            order: Lines::default(),
        }
    }

    /// The rules of a destination.
    #[must_use]
    pub fn rules_of(&self, destination: Destination) -> &Rules {
        self.own_rules.get(&destination).unwrap_or(&self.rules)
    }

    /// Something went wrong; the first is kept.
    pub fn violated(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }

    /// A sender begins.
    pub fn sends(&mut self, message: Message, thread: ThreadId, now: Moment, wall_millis: u64) {
        self.counts.sent += 1;
        self.duplicates.begins(Identity::of(&message, &self.rules.keys), message.number);
        self.order.begins(Line::of(&message, &self.rules), message.number);
        let record = Record {
            thread,
            sent: now,
            sent_wall: wall_millis,
            is_sent_whole: false,
            went_on: false,
            answer: None,
            acknowledged: None,
            live: Vec::new(),
            attempts: Vec::new(),
            identity: None,
            is_settled: false,
            is_dead: false,
            parked: None,
            parked_for: Duration::ZERO,
            is_elsewhere: false,
            is_damaged: false,
            message,
        };
        self.records.insert(record.message.number, record);
    }

    /// A sender has sent all of it.
    pub fn sent_whole(&mut self, number: Number) {
        if let Some(record) = self.records.get_mut(&number) {
            record.is_sent_whole = true;
        }
    }

    /// The head of a live request is at its receiver, and the body is still to come.
    pub fn went_on(&mut self, number: Number) {
        if let Some(record) = self.records.get_mut(&number) {
            record.went_on = true;
        }
    }

    /// A sender that has paused for longer than `capture.max_hold` goes on: the filter must have let go by now.
    pub fn goes_on_after_pause(&mut self, number: Number) {
        let Some(record) = self.records.get(&number) else { return };
        if !record.went_on && record.live.is_empty() && record.answer.is_none() {
            let text = "held for longer than capture.max_hold";
            self.violated(Violation::of(Invariant::Drains, number, text));
        }
    }

    /// Whether a message is a gRPC call.
    #[must_use]
    pub fn is_call(&self, number: Number) -> bool {
        self.records.get(&number).is_some_and(|record| record.message.is_call())
    }

    /// What is wrong with a message.
    #[must_use]
    pub fn poison(&self, number: Number) -> Poison {
        self.records.get(&number).map_or(Poison::None, |record| record.message.poison)
    }

    /// The wall clock has jumped so far that dead letters of messages before this one may have been removed.
    pub fn letters_gone(&mut self, before: Number) {
        self.letters_gone_before = before;
    }

    /// Whether any may have been.
    #[must_use]
    pub fn are_letters_gone(&self) -> bool {
        self.letters_gone_before > Number(0)
    }

    /// Whether it may have been removed since it was a dead letter for too long.
    #[must_use]
    pub fn may_be_removed(&self, record: &Record) -> bool {
        record.message.number < self.letters_gone_before
    }

    /// A VM lives on this thread.
    pub fn started(&mut self, vm: VmId, thread: ThreadId) {
        self.threads.insert(vm, thread);
    }

    /// A VM has trapped.
    pub fn trapped(&mut self, vm: VmId, now: Moment) {
        self.trapped.insert(vm);
        if let Some(thread) = self.threads.get(&vm).copied() {
            self.thread_troubled(thread, now + RELOAD_MAX);
        }
    }

    /// Until this moment a thread does not do what it should when it should.
    pub fn thread_troubled(&mut self, thread: ThreadId, until: Moment) {
        let known = self.troubled_threads.entry(thread).or_insert(until);
        *known = until.max(*known);
    }

    /// Whether everything has gone as usual on this thread since then.
    #[must_use]
    pub fn is_untroubled(&self, thread: ThreadId, since: Moment) -> bool {
        self.troubled_threads.get(&thread).is_none_or(|until| *until < since)
    }

    /// A thread stands still.
    pub fn stalled(&mut self, standstill: &Standstill) {
        self.thread_troubled(standstill.thread, standstill.until);
        let until = self.stalls.entry(standstill.thread).or_insert(standstill.until);
        *until = standstill.until.max(*until);
    }

    /// When the thread of this VM last came back after it had stood still.
    fn back_at(&self, vm: VmId) -> Moment {
        self.threads.get(&vm).and_then(|thread| self.stalls.get(thread)).copied().unwrap_or(Moment(0))
    }

    /// What this VM can know now. One whose thread stood still acts on what it knew, for as long as it takes to see that
    /// its leases are lost.
    fn knowledge(&self, vm: VmId, now: Moment) -> Knowledge {
        let back_at = self.back_at(vm);
        let is_old = back_at > Moment(0) && now <= back_at + Duration::from_secs(1);
        if is_old { Knowledge::Old } else { Knowledge::Current }
    }

    /// A sender has its answer.
    pub fn answered(&mut self, number: Number, response: &Response, wall_millis: u64, view: View) {
        let Some(record) = self.records.get_mut(&number) else { return };
        let rules = self.own_rules.get(&record.message.destination).unwrap_or(&self.rules);
        record.answer = Some(response.code());
        if let Some(wrong) = record.wrong_word(response, rules, view) {
            return self.violated(Violation::of(Invariant::Acknowledged, number, wrong));
        }
        if response.headers.text("x-redeliver-status") != Some("stored") {
            return;
        }
        if neighbours::are_receivers_words(&record.message, response, rules) {
            return;
        }
        let Some(id) = response.headers.text("x-redeliver-id").map(str::to_owned) else {
            return self.violated(Violation::of(Invariant::Acknowledged, number, "stored, and no x-redeliver-id"));
        };
        if let Some(known) = neighbours::id_before(&record.message, rules).filter(|known| *known != id) {
            let text = format!("acknowledged as {id}, and the hop before has it as {known}");
            return self.violated(Violation::of(Invariant::Acknowledged, number, text));
        }
        if !self.ids.insert(id.clone()) {
            let text = format!("acknowledged as {id}, as another one was before");
            return self.violated(Violation::of(Invariant::Acknowledged, number, text));
        }
        record.acknowledged = Some((id, wall_millis));
        self.counts.acknowledged += 1;
        let is_whole = record.is_sent_whole || record.message.body.is_empty();
        let is_protected = record.message.is_protected();
        if matches!(record.message.manner, Manner::Trailers(..)) {
            let text = "acknowledged, and nobody has kept its trailers";
            self.violated(Violation::of(Invariant::ContentEqual, number, text));
        } else if neighbours::has_gone_round(&record.message, rules) {
            let text = "acknowledged, and it has been stored three times before";
            self.violated(Violation::of(Invariant::Acknowledged, number, text));
        } else if record.message.is_odd_call() {
            let text = "acknowledged, and it is a call of more than one message";
            self.violated(Violation::of(Invariant::Acknowledged, number, text));
        } else if !is_whole || !is_protected {
            let text = format!("acknowledged: whole {is_whole}, protected {is_protected}");
            self.violated(Violation::of(Invariant::Acknowledged, number, text));
        }
    }

    /// A live request reached its receiver.
    pub fn reached_live(
        &mut self,
        number: Option<Number>,
        request: &Request,
        contact: Contact,
        exchange: &Exchange,
        now: Moment,
    ) {
        let Some(known) = number.and_then(|number| self.records.get(&number)) else { return };
        let notice = self.notice(known.message.destination, known.sent);
        let Some(record) = number.and_then(|number| self.records.get_mut(&number)) else { return };
        if contact == Contact::None {
            self.not_reached.insert(record.message.destination, now);
        }
        record.live.push(LiveContact { contact, said: said(exchange, record.message.is_call(), &self.rules) });
        let (destination, is_settled) = (record.message.destination, record.acknowledged.is_some());
        let thread = record.thread;
        // In time, that is: a route has its timeout, for all attempts together.
        let is_in_time = self.rules.retries == 0 && span(exchange).is_some_and(|span| span < ROUTE_TIMEOUT);
        record.is_elsewhere = is_in_time && is_taken_over(exchange, &self.rules);
        let forged = neighbours::forged(&record.message, &request.headers, &self.rules);
        *self.answers.entry(destination).or_default() += u64::from(contact != Contact::None);
        let until = now + span(exchange).unwrap_or(self.rules.timeout_longest());
        self.pace.serves(destination, thread, notice, (now, until));
        let number = record.message.number;
        if let Some(text) = forged {
            self.violated(Violation::of(Invariant::NothingUnexpected, number, text));
        }
        if is_settled {
            self.violated(Violation::of(
                Invariant::NothingUnexpected,
                number,
                format!("sent on at {now} after its 202"),
            ));
        }
    }

    /// A redelivery reached its receiver, or would have.
    pub fn reached_again(
        &mut self,
        number: Option<Number>,
        sighting: &Sighting,
        request: &Request,
        contact: Contact,
        exchange: &Exchange,
    ) {
        self.counts.attempts += 1;
        let Some(number) = number.filter(|number| self.records.contains_key(number)) else {
            let text = format!("a redelivery of what nobody sent: {:?}", request.headers);
            return self.violated(Violation::whole(Invariant::NothingUnexpected, text));
        };
        let knowledge = self.knowledge(sighting.vm, sighting.now);
        let faults = self.faults_of(number, sighting, request, knowledge);
        faults.into_iter().for_each(|fault| self.violated(fault));
        let timeout = allowed(self.rules_of(sighting.destination), sighting.destination);
        let ends = sighting.now + span(exchange).unwrap_or(timeout).min(timeout);
        self.last_attempts.insert(sighting.destination, (sighting.now, sighting.vm));
        if contact == Contact::None {
            self.not_reached.insert(sighting.destination, sighting.now);
        }
        let said = said(exchange, self.is_call(number), &self.rules);
        self.count_out(sighting, ends, knowledge, said);
        let heard_before = self.heard_answers.get(&(sighting.vm, sighting.destination)).copied().unwrap_or(0);
        let answers = self.answers.entry(sighting.destination).or_default();
        let answers_before = *answers;
        *answers += u64::from(contact != Contact::None && !matches!(exchange, Exchange::CutBeforeHeaders { .. }));
        let call = (sighting.vm, sighting.token);
        self.calls.insert(call, number);
        let failures_before = self.claims.remove(&call);
        let Some(record) = self.records.get_mut(&number) else { return };
        if contact == Contact::Processed && record.times_processed() > 0 {
            match record.attempts.iter().any(|attempt| attempt.heard.is_none()) {
                true => self.counts.duplicated_lost += 1,
                false => self.counts.duplicated_unknown += 1,
            }
        }
        let header = |name| request.headers.first(name).map(|value| String::from_utf8_lossy(value).into_owned());
        record
            .identity
            .get_or_insert_with(|| (header("x-redeliver-id").unwrap_or_default(), header(KEY).unwrap_or_default()));
        record.attempts.push(Attempt {
            number: header_number(&request.headers, "x-redeliver-attempt").unwrap_or(0),
            call,
            sent: sighting.now,
            contact,
            heard: None,
            was_told: false,
            said,
            code: match exchange {
                Exchange::Answer { response, .. } => Some(response.code()),
                _ => None,
            },
            ends,
            answers_before,
            heard_before,
            others_answered: false,
            must_count: false,
            knowledge,
            wish: sighting.wish,
            failures_before,
            told: None,
            kept_until: None,
        });
        record.parked = None;
    }

    /// Whether nothing has been on its way to a receiver for so long.
    #[must_use]
    pub fn is_idle(&self, destination: Destination, span: Duration, now: Moment) -> bool {
        let is_out = self.at_receiver.get(&destination).is_some_and(|out| out.values().any(|ends| *ends > now));
        !is_out && self.last_attempt_at(destination).is_none_or(|at| now - at > span)
    }

    /// When a redelivery was last sent to this destination.
    #[must_use]
    pub fn last_attempt_at(&self, destination: Destination) -> Option<Moment> {
        self.last_attempts.get(&destination).map(|(at, _)| *at)
    }

    /// The thread that sent it.
    #[must_use]
    pub fn last_sender(&self, destination: Destination) -> Option<ThreadId> {
        self.last_attempts.get(&destination).and_then(|(_, vm)| self.threads.get(vm)).copied()
    }

    /// I6: no more than `window.max` are at a receiver at once, whoever sent them, dead VMs too.
    fn count_out(&mut self, sighting: &Sighting, ends: Moment, knowledge: Knowledge, said: Option<u16>) {
        let window = self.rules_of(sighting.destination).window.1;
        let out = self.at_receiver.entry(sighting.destination).or_default();
        out.retain(|_, ends| *ends > sighting.now);
        if ends > sighting.now && knowledge == Knowledge::Current {
            out.insert((sighting.vm, sighting.token), ends);
        }
        let (count, window) = (out.len(), window as usize);
        if count > window && self.doubt_until <= sighting.now {
            let text =
                format!("{count} redeliveries are at {}: window.max is {window}", sighting.destination.cluster());
            self.violated(Violation::whole(Invariant::Paced, text));
        }
        self.pace(sighting, knowledge, count, said);
    }

    /// The slots of these messages were parked for this last part of the time.
    pub fn parked(&mut self, numbers: &[Number], span: Duration) {
        for number in numbers {
            if let Some(record) = self.records.get_mut(number) {
                record.parked_for += span;
            }
        }
    }

    /// A call goes out with this head: framing is Envoy's, and not replayed.
    pub fn called(&mut self, head: &Headers) {
        let Some(number) = Message::number_in(head) else { return };
        if let Some(wrong) = crate::content::replayed(head).filter(|_| self.records.contains_key(&number)) {
            self.violated(Violation::of(Invariant::ContentEqual, number, wrong));
        }
    }

    /// Everything that is wrong with a redelivery.
    fn faults_of(
        &self,
        number: Number,
        sighting: &Sighting,
        request: &Request,
        knowledge: Knowledge,
    ) -> Vec<Violation> {
        let Some(record) = self.records.get(&number) else { return Vec::new() };
        let rules = self.rules_of(record.message.destination);
        let mut faults = Vec::new();
        let mut check = |invariant, wrong: Option<String>| {
            faults.extend(wrong.map(|text| Violation::of(invariant, number, text)));
        };
        check(Invariant::ContentEqual, crate::content::difference(&record.message, request, rules));
        check(Invariant::NothingUnexpected, record.wrong_place(sighting));
        check(Invariant::NoCauselessRepeat, record.wrong_identity(request));
        check(Invariant::NoCauselessRepeat, record.unsafe_repeat(rules));
        if knowledge == Knowledge::Current {
            check(Invariant::NoCauselessRepeat, record.number_behind(request));
            if sighting.now - self.jumped_at > Duration::from_secs(1) {
                check(Invariant::NothingUnexpected, record.after_the_end(sighting, rules));
            }
            check(Invariant::NoCauselessRepeat, record.causeless_repeat(sighting));
            check(Invariant::NoCauselessRepeat, self.unheard_success(record, sighting));
            check(Invariant::Paced, record.one_too_many(rules));
            check(Invariant::OneLease, record.second_lease(sighting, rules));
            check(Invariant::Paced, self.too_soon(record, sighting));
            check(Invariant::Paced, self.asked_too_soon(record, sighting));
            check(Invariant::NothingUnexpected, self.after_parking(record));
            let is_elsewhere = record.is_elsewhere.then(|| "sent again, and a neighbour has it".to_owned());
            check(Invariant::NoCauselessRepeat, is_elsewhere);
        }
        faults
    }

    /// A message that failed in earnest so many times waits at least its shortest backoff. (A probe does not wait, so the
    /// state of the destination must be such that this is none: the attempt before was answered.)
    fn too_soon(&self, record: &Record, sighting: &Sighting) -> Option<String> {
        let last = record.attempts.last().filter(|last| last.failed_plainly())?;
        let failures = record.attempts.iter().filter(|attempt| attempt.failed_plainly()).count();
        let (_, status) = last.heard?;
        // The wait begins when its VM is told, however long that callback then takes.
        let (heard, _) = last.told?;
        let (gap, least) = (sighting.now - heard, self.rules_of(sighting.destination).backoff_min(failures));
        (gap < least && !self.may_probe(sighting)).then(|| {
            format!("sent again {gap:?} after {status:?}; the shortest wait after {failures} failures is {least:?}")
        })
    }

    /// Another attempt though the one before went well, and nothing kept its VM from hearing so.
    fn unheard_success(&self, record: &Record, sighting: &Sighting) -> Option<String> {
        let unheard =
            record.attempts.iter().find(|attempt| !attempt.was_told && self.must_be_heard(record, attempt))?;
        (sighting.now - unheard.ends > Duration::from_secs(1) && !record.is_damaged)
            .then(|| format!("sent again: nobody waited for the answer to attempt {}, a success", unheard.number))
    }

    /// Whether this attempt is a success that its VM hears, or will, before it may give it up.
    fn must_be_heard(&self, record: &Record, attempt: &Attempt) -> bool {
        let vm = attempt.call.0;
        let went_well = attempt.said.is_some_and(is_success)
            && attempt.ends
                < attempt.sent + allowed(self.rules_of(record.message.destination), record.message.destination);
        went_well && !self.trapped.contains(&vm) && self.back_at(vm) < attempt.sent
    }

    /// A destination was seen to be down, or probed, at this moment.
    pub fn troubled(&mut self, destination: Destination, now: Moment) {
        self.trouble.insert(destination, now);
    }

    /// Whether the last attempt of this message may have been a probe.
    #[must_use]
    pub fn was_probe(&self, number: Number) -> bool {
        let record = &self.records[&number];
        let troubled = self.trouble.get(&record.message.destination);
        record.attempts.last().is_some_and(|last| troubled.is_some_and(|at| *at + PROBE_SEEN > last.sent))
    }

    fn may_probe(&self, sighting: &Sighting) -> bool {
        self.trouble.get(&sighting.destination).is_some_and(|at| sighting.now - *at < PROBE_SEEN)
    }

    /// The filter is told the end of a call: it may have acted on it even if it then trapped.
    pub fn told(&mut self, call: (VmId, CallToken), now: Moment, wall_millis: u64) {
        for out in self.at_receiver.values_mut() {
            out.remove(&call);
        }
        let record = self.calls.get(&call).and_then(|number| self.records.get_mut(number));
        if let Some(attempt) = record.and_then(|r| r.attempts.iter_mut().find(|attempt| attempt.call == call)) {
            attempt.was_told = true;
            attempt.told = Some((now, wall_millis));
        }
    }

    /// The filter heard the end of a call.
    pub fn heard(&mut self, call: (VmId, CallToken), status: Option<u16>, now: Moment) {
        let Some(number) = self.calls.get(&call) else { return };
        let Some(record) = self.records.get_mut(number) else { return };
        let is_known = record.acknowledged.is_some();
        let answers = self.heard_answers.entry((call.0, record.message.destination)).or_default();
        let Some(attempt) = record.attempts.iter_mut().find(|attempt| attempt.call == call) else { return };
        let rules = self.own_rules.get(&record.message.destination).unwrap_or(&self.rules);
        let status = match heard_as(attempt, status, &record.message, rules) {
            Heard::Receiver => attempt.said,
            Heard::Envoy(status) => status,
        };
        attempt.heard = Some((now, status));
        let others_answered = *answers > attempt.heard_before;
        let is_undisturbed = self.disturbed_at + self.rules.timeout_longest() + LEASE_SLACK * 2 < attempt.sent;
        attempt.must_count = others_answered && is_undisturbed;
        // Behind a listener, what Envoy says for a cluster that it has not looks like an answer (a known gap).
        let destination = record.message.destination;
        let was_absent = self.absent.get(&destination).is_some_and(|until| *until > attempt.sent);
        attempt.others_answered = others_answered || (was_absent && rules.through(destination).is_some());
        *answers += u64::from(attempt.said.is_some() && attempt.said == status);
        if status.is_some_and(is_success) && !record.is_settled {
            record.is_settled = true;
            let delay = self.delays.entry(record.message.destination).or_default();
            (delay.sum, delay.count) = (delay.sum + (now - record.sent), delay.count + 1);
            self.counts.delivered += 1;
            self.counts.recovered += u64::from(!is_known);
        }
    }
}

/// Envoy makes a VM that died anew with a stream, but not within its back-off: 1 s at first, 10 s at most
/// (reload_config's default).
const RELOAD_MAX: Duration = Duration::from_secs(10);

/// The world looks at the states of destinations a few times a second; a probe is over well within this.
const PROBE_SEEN: Duration = Duration::from_secs(2);

/// Whose answer the filter has heard.
enum Heard {
    Receiver,
    /// With this status of HTTP.
    Envoy(Option<u16>),
}

/// A call's status is not that of HTTP, nor is a neighbour's word. And what the router behind a listener says to a call has
/// the status 200 too, as a receiver's answer would that came too late for it.
fn heard_as(attempt: &Attempt, status: Option<u16>, message: &Message, rules: &Rules) -> Heard {
    let is_calls_way = message.is_call() && rules.through(message.destination).is_some();
    let is_over = attempt.ends >= attempt.sent + allowed(rules, message.destination);
    match status {
        Some(200) if is_calls_way && (is_over || attempt.code != status) => Heard::Envoy(Some(503)),
        _ if attempt.code.is_some() && attempt.code == status => Heard::Receiver,
        _ => Heard::Envoy(status),
    }
}

/// Whether this answer says that a neighbour has the message now.
fn is_taken_over(exchange: &Exchange, rules: &Rules) -> bool {
    matches!(exchange, Exchange::Answer { response, .. } if neighbours::has_custody(response, rules))
}

/// The status that a receiver gives; of a neighbour that takes custody, 202.
fn said(exchange: &Exchange, is_call: bool, rules: &Rules) -> Option<u16> {
    match exchange {
        _ if is_taken_over(exchange, rules) => Some(202),
        Exchange::Answer { response, .. } if is_call => Some(calls::meaning(response)),
        Exchange::Answer { response, .. } => Some(response.code()),
        _ => None,
    }
}

/// How long an exchange takes; `None`: for ever.
fn span(exchange: &Exchange) -> Option<Duration> {
    match exchange {
        Exchange::Answer { after, .. }
        | Exchange::ConnectTimeout { after }
        | Exchange::CutBeforeHeaders { after }
        | Exchange::CutAfterHeaders { after, .. }
        | Exchange::Garbage { after } => Some(*after),
        Exchange::Refused => Some(Duration::ZERO),
        Exchange::Silence => None,
    }
}
