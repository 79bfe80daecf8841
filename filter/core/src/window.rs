//! How many redeliveries may be out to one destination at once: it grows with success and shrinks with refusal.
//!
//! Postfix's rule (PEERS 3.1), counted in results in place of fractions of credit:
//!
//! | result | counts for | moves the window | and starts the count of |
//! | --- | --- | --- | --- |
//! | success | growth | +1 at the end of a windowful of them, while the window is in use | refusals |
//! | refusal | shrinking | -1 at the start of a windowful of them, never below 1 | successes |
//!
//! Neither kind touches the other's count before it has moved the window: a single refusal among successes would else
//! shrink it each time, and it would never get near what the receiver can take. Only refusals of the destination count
//! (transport, gateway, 429, 503): a bug in one kind of message throttles nobody.

use crate::config::Window as WindowLimits;

/// The window of one destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    size: u32,
    /// Successes towards the next step up.
    successes: u32,
    /// Refusals of the last step down; 0: the next one is another step.
    refusals: u32,
}

impl Window {
    /// A window as it stands after an outage.
    #[must_use]
    pub const fn initial(limits: &WindowLimits) -> Self {
        Self { size: limits.initial, successes: 0, refusals: 0 }
    }

    /// Redeliveries that may be out at once; at least 1.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.size.max(1)
    }

    /// The receiver took a message. The window grows only while it is used (`in_flight` near it): otherwise a later
    /// refusal would have no bite.
    pub fn success(&mut self, in_flight: u32, limits: &WindowLimits) {
        if self.size >= in_flight.saturating_add(limits.initial) {
            return;
        }
        self.successes = self.successes.saturating_add(1);
        if self.successes >= self.size() {
            *self = Self { size: self.size.saturating_add(1).min(limits.max), successes: 0, refusals: 0 };
        }
    }

    /// The destination refused or was not reached. The first of a windowful shrinks the window at once.
    pub fn refusal(&mut self) {
        if self.refusals == 0 {
            self.size = self.size.saturating_sub(1).max(1);
            self.successes = 0;
        }
        self.refusals = self.refusals.saturating_add(1);
        if self.refusals >= self.size {
            self.refusals = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const LIMITS: WindowLimits = WindowLimits { initial: 5, max: 8 };

    #[test]
    fn it_grows_by_one_after_a_windowful_of_successes_up_to_its_limit() {
        let mut window = Window::initial(&LIMITS);
        for _ in 0..4 {
            window.success(5, &LIMITS);
        }
        assert_eq!(window.size(), 5);
        window.success(5, &LIMITS);
        assert_eq!(window.size(), 6);
        for _ in 0..1_000 {
            window.success(64, &LIMITS);
        }
        assert_eq!(window.size(), 8);
    }

    #[test]
    fn the_first_refusal_of_a_run_shrinks_it_and_it_never_closes() {
        let mut window = Window::initial(&LIMITS);
        window.refusal();
        assert_eq!(window.size(), 4);
        window.refusal();
        assert_eq!(window.size(), 4, "one step for a windowful of refusals");
        for _ in 0..100 {
            window.refusal();
        }
        assert_eq!(window.size(), 1);
    }

    #[test]
    fn a_success_between_two_refusals_is_no_reason_for_another_step_down() {
        let mut window = Window::initial(&LIMITS);
        for _ in 0..3 {
            window.refusal();
            window.success(5, &LIMITS);
        }
        assert_eq!(window.size(), 4, "one windowful of refusals is not over yet");
    }

    #[test]
    fn a_refusal_among_successes_does_not_start_their_run_again() {
        let mut window = Window::initial(&LIMITS);
        window.refusal();
        for _ in 0..3 {
            window.success(4, &LIMITS);
        }
        window.refusal();
        window.success(4, &LIMITS);
        assert_eq!(window.size(), 5, "four successes at a window of four");
    }

    #[test]
    fn an_unused_window_does_not_grow() {
        let mut window = Window::initial(&WindowLimits { initial: 1, max: 64 });
        for _ in 0..100 {
            window.success(1, &WindowLimits { initial: 1, max: 64 });
        }
        assert_eq!(window.size(), 2);
    }
}
