//! What must never happen: the invariants of the scorecard, by their numbers.

use crate::message::Number;
use std::fmt;

/// An invariant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// I1: what was acknowledged is delivered, kept, or was removed by rule.
    NothingLost,
    /// I2: nothing arrives that was not sent, or that had ended.
    NothingUnexpected,
    /// I3: what arrives is what was sent.
    ContentEqual,
    /// I4: no repeat without a cause.
    NoCauselessRepeat,
    /// I5: no two attempts of one message are out at once.
    OneLease,
    /// I6: attempts, gaps and window keep their limits; nobody is stormed.
    Paced,
    /// I7: budgets and keys are bounded.
    Bounded,
    /// I8: guests do not grow.
    GuestMemory,
    /// I9: no trap that was not injected.
    NoTrap,
    /// I10: the books balance.
    BooksBalance,
    /// I11: no 202 without a whole record, and no failure passed over in silence.
    Acknowledged,
    /// I12: when all is well, the backlog ends.
    Drains,
    /// I13: nobody waits for another destination.
    Fair,
    /// I14: the same seed, the same run.
    Deterministic,
    /// I15: messages of one ordering key end in turn, and nothing waits without need.
    InOrder,
    /// I16: a retry is taken for one, and nothing else is.
    OnePerKey,
}

impl Invariant {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::NothingLost,
        Self::NothingUnexpected,
        Self::ContentEqual,
        Self::NoCauselessRepeat,
        Self::OneLease,
        Self::Paced,
        Self::Bounded,
        Self::GuestMemory,
        Self::NoTrap,
        Self::BooksBalance,
        Self::Acknowledged,
        Self::Drains,
        Self::Fair,
        Self::Deterministic,
        Self::InOrder,
        Self::OnePerKey,
    ];
}

impl Invariant {
    /// What has happened where it is broken.
    #[must_use]
    pub const fn broken(self) -> &'static str {
        match self {
            Self::NothingLost => "lost",
            Self::NothingUnexpected => "unexpected",
            Self::ContentEqual => "arrived otherwise than sent",
            Self::NoCauselessRepeat => "repeated without a cause",
            Self::OneLease => "two live leases",
            Self::Paced => "a limit of attempts, gaps or window broken",
            Self::Bounded => "a limit of the store broken",
            Self::GuestMemory => "a guest that kept what it should not",
            Self::NoTrap => "a trap that was not injected",
            Self::BooksBalance => "books out of balance",
            Self::Acknowledged => "a sender told what is not so",
            Self::Drains => "a backlog that does not end",
            Self::Fair => "a wait for another destination",
            Self::Deterministic => "two runs of one seed that differ",
            Self::InOrder => "a message of a key out of its turn",
            Self::OnePerKey => "a retry taken for what it is not",
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "I{}", *self as u8 + 1)
    }
}

/// One broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// The message that it is about, if it is about one.
    pub number: Option<Number>,
    /// How.
    pub text: String,
}

impl Violation {
    /// A violation about one message.
    #[must_use]
    pub fn of(invariant: Invariant, number: Number, text: impl Into<String>) -> Self {
        Self { invariant, number: Some(number), text: text.into() }
    }

    /// A violation about the whole.
    #[must_use]
    pub fn whole(invariant: Invariant, text: impl Into<String>) -> Self {
        Self { invariant, number: None, text: text.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            Some(number) => write!(f, "{}: message {}: {}", self.invariant, number.0, self.text),
            None => write!(f, "{}: {}", self.invariant, self.text),
        }
    }
}
