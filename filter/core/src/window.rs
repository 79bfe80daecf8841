//! How many redeliveries may be out to one destination at once: it grows with success and shrinks with refusal.
//!
//! Postfix's rule (PEERS 3.1): a success adds `1/window` of credit, a refusal takes `1/window`; a full credit moves the
//! window by one. So it grows at the end of a run of successes and shrinks at the start of a run of refusals. Only
//! refusals of the destination count (transport, gateway, 429, 503): a bug in one kind of message throttles nobody.

use crate::config::Window as WindowLimits;

/// The window of one destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    size: u32,
    /// Successes since the size last moved.
    successes: u32,
    /// Refusals since the size last moved.
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
        self.successes = self.successes.saturating_add(1);
        self.refusals = 0;
        if self.successes >= self.size && self.size < in_flight.saturating_add(limits.initial) {
            *self = Self { size: self.size.saturating_add(1).min(limits.max), successes: 0, refusals: 0 };
        }
    }

    /// The destination refused or was not reached. The first of a run shrinks the window at once.
    pub fn refusal(&mut self) {
        self.successes = 0;
        if self.refusals == 0 {
            self.size = self.size.saturating_sub(1).max(1);
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
    fn an_unused_window_does_not_grow() {
        let mut window = Window::initial(&WindowLimits { initial: 1, max: 64 });
        for _ in 0..100 {
            window.success(1, &WindowLimits { initial: 1, max: 64 });
        }
        assert_eq!(window.size(), 2);
    }
}
