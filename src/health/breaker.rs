//! A breaker for each wanted peer: stops hammering one that fails.
//!
//! ```text
//!          `threshold` failures in a row          the wait is over
//!  Closed ------------------------------> Open --------------------> HalfOpen
//!    ^                                     ^                            |
//!    |               success               |          failure           |
//!    +-------------------------------------+----------------------------+
//! ```
//!
//! Open, no dial is made for any reason; half-open, exactly one is.

use serde::{Deserialize, Serialize};

/// The state of a breaker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Dials go through.
    #[default]
    Closed,
    /// Too many failures in a row: no dial until the backoff has passed.
    Open,
    /// One trial dial is under way.
    HalfOpen,
}

#[derive(Debug, Clone)]
pub(crate) struct Breaker {
    threshold: u32,
    failures: u32,
    state: BreakerState,
}

impl Breaker {
    pub(crate) fn new(threshold: u32) -> Self {
        Breaker { threshold, failures: 0, state: BreakerState::Closed }
    }

    pub(crate) fn state(&self) -> BreakerState {
        self.state
    }

    /// A dial is about to be made, its wait being over.
    pub(crate) fn handle_dial(&mut self) {
        if self.state == BreakerState::Open {
            self.state = BreakerState::HalfOpen;
        }
    }

    pub(crate) fn handle_failure(&mut self) {
        self.failures = self.failures.saturating_add(1);
        if self.state == BreakerState::HalfOpen || self.failures >= self.threshold {
            self.state = BreakerState::Open;
        }
    }

    pub(crate) fn handle_success(&mut self) {
        self.failures = 0;
        self.state = BreakerState::Closed;
    }

    /// How many dials failed in a row.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_after_the_threshold_and_tries_once() {
        let mut breaker = Breaker::new(5);
        for _ in 0..4 {
            breaker.handle_failure();
            assert_eq!(breaker.state(), BreakerState::Closed);
        }
        breaker.handle_failure();
        assert_eq!(breaker.state(), BreakerState::Open);
        breaker.handle_dial();
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        breaker.handle_failure();
        assert_eq!(breaker.state(), BreakerState::Open);
        breaker.handle_dial();
        breaker.handle_success();
        assert_eq!((breaker.state(), breaker.failures()), (BreakerState::Closed, 0));
    }
}
