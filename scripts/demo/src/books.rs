//! The books: what each message's sender was told, and what its receiver got. The verdict is drawn up from them alone.
//!
//! | the sender was told | intact arrivals | the message is |
//! | --- | --- | --- |
//! | 2xx | 0 | lost |
//! | anything | 2 or more | duplicated: the receiver finishes what it has, so no outcome here is unknown |
//! | not 2xx, or nothing | any | a fault: in this story the filter has to bridge every one |

use std::fmt;
use std::sync::Mutex;

/// What the sender was told.
pub enum Answer {
    /// Nothing yet.
    Pending,
    /// The receiver's own 2xx.
    Delivered,
    /// `202` with `x-redeliver-status: stored`.
    Stored { id: String },
    /// Any other answer.
    Refused { status: u16, redeliver_status: String },
    /// No answer at all.
    None { cause: String },
}

/// One request that reached a receiver.
pub enum Arrival {
    /// Everything is as sent; `redelivery` is the value of `x-redeliver-id`, if it had one.
    Intact { redelivery: Option<String> },
    /// Something differs.
    Damaged { difference: String },
}

struct Entry {
    answer: Answer,
    arrivals: Vec<Arrival>,
}

/// One entry per message, by its number.
#[derive(Default)]
pub struct Books(Mutex<Vec<Entry>>);

/// The totals at one moment.
#[derive(Clone, Copy, Default)]
pub struct Totals {
    /// Messages handed to the sender.
    pub sent: usize,
    /// Messages that a receiver got intact, each counted once.
    pub delivered: usize,
    /// Messages whose sender was told that they are stored.
    pub stored: usize,
    /// Stored messages that have not arrived yet.
    pub waiting: usize,
    /// Messages answered 2xx that have not arrived yet.
    pub lost: usize,
    /// Messages that arrived more than once.
    pub duplicated: usize,
}

/// The end of the story.
pub struct Verdict {
    totals: Totals,
    faults: Vec<String>,
}

impl Books {
    /// A new message's number.
    pub fn open(&self) -> usize {
        let mut entries = self.lock();
        entries.push(Entry { answer: Answer::Pending, arrivals: Vec::new() });
        entries.len() - 1
    }

    /// The sender of message `number` was told this.
    pub fn answered(&self, number: usize, answer: Answer) {
        self.lock()[number].answer = answer;
    }

    /// Message `number` reached a receiver. False if no such message was ever sent.
    #[must_use]
    pub fn arrived(&self, number: usize, arrival: Arrival) -> bool {
        match self.lock().get_mut(number) {
            Some(entry) => {
                entry.arrivals.push(arrival);
                true
            }
            None => false,
        }
    }

    /// The totals now.
    pub fn totals(&self) -> Totals {
        let entries = self.lock();
        let mut totals = Totals { sent: entries.len(), ..Totals::default() };
        for entry in entries.iter() {
            let intact = entry.intact_arrivals();
            totals.delivered += usize::from(intact > 0);
            totals.duplicated += usize::from(intact > 1);
            totals.stored += usize::from(entry.is_stored());
            totals.waiting += usize::from(entry.is_stored() && intact == 0);
            totals.lost += usize::from(entry.is_promised() && intact == 0);
        }
        totals
    }

    /// The verdict, to be asked for when nothing can arrive any more.
    pub fn verdict(&self) -> Verdict {
        let totals = self.totals();
        let mut faults: Vec<String> =
            self.lock().iter().enumerate().flat_map(|(number, entry)| entry.faults(number)).collect();
        if totals.stored == 0 {
            faults.push("nothing was stored: is the filter in Envoy, and does it protect the destinations?".into());
        }
        Verdict { totals, faults }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Entry>> {
        self.0.lock().expect("no task panics while it holds the books")
    }
}

impl Entry {
    fn intact_arrivals(&self) -> usize {
        self.arrivals.iter().filter(|arrival| matches!(arrival, Arrival::Intact { .. })).count()
    }

    fn is_stored(&self) -> bool {
        matches!(self.answer, Answer::Stored { .. })
    }

    fn is_promised(&self) -> bool {
        match self.answer {
            Answer::Delivered | Answer::Stored { .. } => true,
            Answer::Pending | Answer::Refused { .. } | Answer::None { .. } => false,
        }
    }

    fn faults(&self, number: usize) -> Vec<String> {
        let answer_fault = match &self.answer {
            Answer::Delivered | Answer::Stored { .. } => None,
            Answer::Pending => Some("its sender was still waiting at the end".to_owned()),
            Answer::Refused { status, redeliver_status } => {
                Some(format!("its sender was answered {status}, x-redeliver-status: {redeliver_status}"))
            }
            Answer::None { cause } => Some(format!("its sender got no answer: {cause}")),
        };
        let arrival_faults = self.arrivals.iter().filter_map(|arrival| self.arrival_fault(arrival));
        answer_fault.into_iter().chain(arrival_faults).map(|fault| format!("message {number}: {fault}")).collect()
    }

    /// A redelivery must carry the very id that the sender was given, and only a stored message is redelivered.
    fn arrival_fault(&self, arrival: &Arrival) -> Option<String> {
        match (arrival, &self.answer) {
            (Arrival::Damaged { difference }, _) => Some(difference.clone()),
            (Arrival::Intact { redelivery: Some(arrived) }, Answer::Stored { id }) if arrived == id => None,
            (Arrival::Intact { redelivery: Some(arrived) }, Answer::Stored { id }) => {
                Some(format!("the sender was given the id {id}, the receiver {arrived}"))
            }
            (Arrival::Intact { redelivery: Some(_) }, _) => {
                Some("it was redelivered although its sender was not told that it is stored".to_owned())
            }
            (Arrival::Intact { redelivery: None }, Answer::Stored { .. }) => {
                Some("it was stored although its first attempt reached the receiver".to_owned())
            }
            (Arrival::Intact { redelivery: None }, _) => None,
        }
    }
}

impl Verdict {
    /// Nothing lost, nothing duplicated, no fault.
    pub fn is_good(&self) -> bool {
        self.totals.lost == 0 && self.totals.duplicated == 0 && self.faults.is_empty()
    }

    /// The first few faults and how many there are: three hundred equal lines help nobody.
    pub fn faults_to_show(&self) -> Vec<String> {
        let mut shown: Vec<String> = self.faults.iter().take(5).cloned().collect();
        if self.faults.len() > shown.len() {
            shown.push(format!("... and {} more faults", self.faults.len() - shown.len()));
        }
        shown
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Totals { sent, delivered, stored, lost, duplicated, waiting: _ } = self.totals;
        write!(out, "sent {sent}, delivered {delivered}, stored {stored}, lost {lost}, duplicated {duplicated}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(id: &str) -> Answer {
        Answer::Stored { id: id.into() }
    }

    fn first_attempt() -> Arrival {
        Arrival::Intact { redelivery: None }
    }

    fn redelivery(id: &str) -> Arrival {
        Arrival::Intact { redelivery: Some(id.into()) }
    }

    fn refused() -> Answer {
        Answer::Refused { status: 503, redeliver_status: "not-stored; reason=full".into() }
    }

    /// Books with one well bridged message and the one in question.
    fn check(answer: Answer, arrivals: Vec<Arrival>, line: &str, first_fault: Option<&str>) {
        let books = Books::default();
        let bridged = books.open();
        books.answered(bridged, stored("a"));
        assert!(books.arrived(bridged, redelivery("a")));
        let number = books.open();
        books.answered(number, answer);
        for arrival in arrivals {
            assert!(books.arrived(number, arrival));
        }
        let verdict = books.verdict();
        assert_eq!(verdict.to_string(), line);
        assert_eq!(verdict.faults_to_show().first().map(String::as_str), first_fault);
        let good = first_fault.is_none() && line.ends_with("lost 0, duplicated 0");
        assert_eq!(verdict.is_good(), good, "{line}, {:?}", verdict.faults_to_show());
    }

    #[test]
    fn a_message_delivered_once_is_good_at_once_or_later() {
        check(Answer::Delivered, vec![first_attempt()], "sent 2, delivered 2, stored 1, lost 0, duplicated 0", None);
        check(stored("b"), vec![redelivery("b")], "sent 2, delivered 2, stored 2, lost 0, duplicated 0", None);
    }

    #[test]
    fn a_promise_without_an_arrival_is_a_loss() {
        check(stored("b"), vec![], "sent 2, delivered 1, stored 2, lost 1, duplicated 0", None);
        check(Answer::Delivered, vec![], "sent 2, delivered 1, stored 1, lost 1, duplicated 0", None);
    }

    #[test]
    fn a_damaged_arrival_is_no_delivery() {
        check(
            stored("b"),
            vec![Arrival::Damaged { difference: "another body".into() }],
            "sent 2, delivered 1, stored 2, lost 1, duplicated 0",
            Some("message 1: another body"),
        );
    }

    #[test]
    fn a_second_arrival_is_a_duplicate() {
        let arrivals = vec![redelivery("b"), redelivery("b")];
        check(stored("b"), arrivals, "sent 2, delivered 2, stored 2, lost 0, duplicated 1", None);
    }

    #[test]
    fn a_failure_that_the_sender_saw_is_no_loss_but_a_fault() {
        check(
            refused(),
            vec![],
            "sent 2, delivered 1, stored 1, lost 0, duplicated 0",
            Some("message 1: its sender was answered 503, x-redeliver-status: not-stored; reason=full"),
        );
    }

    #[test]
    fn a_redelivery_under_another_id_is_a_fault() {
        check(
            stored("b"),
            vec![redelivery("c")],
            "sent 2, delivered 2, stored 2, lost 0, duplicated 0",
            Some("message 1: the sender was given the id b, the receiver c"),
        );
    }

    #[test]
    fn a_run_in_which_nothing_was_stored_is_not_good() {
        let books = Books::default();
        books.answered(books.open(), Answer::Delivered);
        assert!(books.arrived(0, first_attempt()));
        assert!(!books.verdict().is_good());
    }

    #[test]
    fn an_arrival_that_nobody_sent_is_told() {
        assert!(!Books::default().arrived(0, first_attempt()));
    }
}
