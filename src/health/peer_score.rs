//! How well a peer has done lately: a number from 0 (never answers) to 1 (always does).
//!
//! ```text
//! score = connections x dials x answers x current
//! ```
//!
//! Everything loses half of its weight every minute, so the last few minutes count.
//!
//! | part | computed from | formula | floor |
//! |---|---|---|---|
//! | `connections` | marks, see below | good / (good + bad) | 0 |
//! | `dials` | dials failed | 1 / (1 + failed) | 0 |
//! | `answers` | our requests answered and timed out | (1 + answered) / (1 + answered + timed out) | 0 |
//! | `current` | the score of its best connection | 0.5 + 0.5 x score; 1 without any | 0.5 |
//!
//! | what happened | mark |
//! |---|---|
//! | a connection ends over which something of ours was answered | 1 good |
//! | a minute without trouble | 1 good |
//! | a connection turned suspect | 1 bad |
//! | a connection was lost without goodbye | 2 bad |
//! | a connection came in place of one that was lost | 0.5 bad |
//!
//! Examples: always well 1.0; one loss after an hour of health 0.5, back at 0.9 after three minutes;
//! a peer that was dialled five times without an answer 0.17; a third of the requests timed out 0.67.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::decay::left;

const HALF_LIFE: Duration = Duration::from_secs(60);
/// The sum that one good mark per half-life converges to: that of a peer that does nothing wrong.
const STEADY: f64 = 2.0;
const CURRENT_FLOOR: f64 = 0.5;

/// The parts of a peer's score. Each part is 1 when all is well, and between 0 and 1 otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PeerScoreParts {
    /// Whether its connections lasted, and answered.
    pub connections: f64,
    /// Whether it could be dialled: 0.5 after one failure, 0.17 after five.
    pub dials: f64,
    /// The share of our requests that it answered in time.
    pub answers: f64,
    /// How well its best connection does now. At least 0.5.
    pub current: f64,
}

impl PeerScoreParts {
    /// The score: the product of the parts.
    pub fn value(&self) -> f64 {
        self.connections * self.dials * self.answers * self.current
    }
}

#[derive(Clone, Copy, Debug)]
struct Marks {
    good: f64,
    bad: f64,
    dials_failed: f64,
    answered: f64,
    timed_out: f64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerScore {
    marks: Marks,
    current: f64,
    at: Option<Instant>,
}

impl Default for PeerScore {
    fn default() -> Self {
        let marks = Marks { good: 1.0, bad: 0.0, dials_failed: 0.0, answered: 0.0, timed_out: 0.0 };
        PeerScore { marks, current: 1.0, at: None }
    }
}

impl PeerScore {
    /// A connection ended. `proven`: something of ours was answered over it.
    pub(crate) fn handle_ended(&mut self, proven: bool, orderly: bool, now: Instant) {
        self.decay(now);
        self.marks.good += if proven { 1.0 } else { 0.0 };
        self.marks.bad += if orderly { 0.0 } else { 2.0 };
    }

    pub(crate) fn handle_suspect(&mut self, now: Instant) {
        self.decay(now);
        self.marks.bad += 1.0;
    }

    /// A connection joined after another had been lost.
    pub(crate) fn handle_reconnected(&mut self, now: Instant) {
        self.decay(now);
        self.marks.bad += 0.5;
    }

    pub(crate) fn handle_dial_failed(&mut self, now: Instant) {
        self.decay(now);
        self.marks.dials_failed += 1.0;
    }

    pub(crate) fn handle_request_answered(&mut self, now: Instant) {
        self.decay(now);
        self.marks.answered += 1.0;
    }

    pub(crate) fn handle_request_timed_out(&mut self, now: Instant) {
        self.decay(now);
        self.marks.timed_out += 1.0;
    }

    /// The score of its best connection; `None` when it has none.
    pub(crate) fn handle_current(&mut self, best: Option<f64>) {
        self.current = best.unwrap_or(1.0).clamp(0.0, 1.0);
    }

    pub(crate) fn parts(mut self, now: Instant) -> PeerScoreParts {
        self.decay(now);
        let marks = &self.marks;
        PeerScoreParts {
            connections: marks.good / (marks.good + marks.bad),
            dials: 1.0 / (1.0 + marks.dials_failed),
            answers: (1.0 + marks.answered) / (1.0 + marks.answered + marks.timed_out),
            current: CURRENT_FLOOR + (1.0 - CURRENT_FLOOR) * self.current,
        }
    }

    pub(crate) fn value(self, now: Instant) -> f64 {
        self.parts(now).value()
    }

    fn decay(&mut self, now: Instant) {
        let passed = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.at = Some(now);
        self.marks.decay(passed);
    }
}

impl Marks {
    fn decay(&mut self, passed: Duration) {
        let left = left(passed, HALF_LIFE);
        self.good = STEADY + (self.good - STEADY) * left;
        for sum in [&mut self.bad, &mut self.dials_failed, &mut self.answered, &mut self.timed_out] {
            *sum *= left;
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Tests need some instant to start from; they never read the clock again.
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn after_an_hour() -> (PeerScore, Instant) {
        let mut now = Instant::now();
        let mut score = PeerScore::default();
        for _ in 0..60 {
            score.handle_ended(false, true, now);
            now += MINUTE;
        }
        (score, now)
    }

    #[test]
    fn the_examples_of_the_documentation() {
        let (mut score, now) = after_an_hour();
        assert!((score.value(now) - 1.0).abs() < 1e-9);
        score.handle_ended(false, false, now);
        assert!((0.45..0.55).contains(&score.value(now)), "{}", score.value(now));
        assert!(score.value(now + 3 * MINUTE) > 0.85, "{}", score.value(now + 3 * MINUTE));

        let mut absent = PeerScore::default();
        (0..5).for_each(|_| absent.handle_dial_failed(now));
        assert!((0.16..0.175).contains(&absent.value(now)), "{}", absent.value(now));

        let mut mute = PeerScore::default();
        for _ in 0..1000 {
            mute.handle_request_answered(now);
            mute.handle_request_answered(now);
            mute.handle_request_timed_out(now);
        }
        assert!((0.66..0.68).contains(&mute.value(now)), "{}", mute.value(now));
    }

    #[test]
    fn each_input_moves_its_part_and_no_other() {
        let (score, now) = after_an_hour();
        let well = score.parts(now);
        let moved = |change: fn(&mut PeerScore, Instant)| {
            let mut score = score;
            change(&mut score, now);
            score.parts(now)
        };
        let parts = moved(|score, now| score.handle_suspect(now));
        assert!(parts.connections < 0.7, "{parts:?}");
        assert_eq!(PeerScoreParts { connections: well.connections, ..parts }, well);
        let suspect = parts.connections;
        let parts = moved(|score, now| score.handle_reconnected(now));
        assert!(parts.connections < 0.9 && parts.connections > suspect, "{parts:?}");
        let parts = moved(|score, now| score.handle_dial_failed(now));
        assert_eq!(parts, PeerScoreParts { dials: 0.5, ..well });
        let parts = moved(|score, now| score.handle_request_timed_out(now));
        assert_eq!(parts, PeerScoreParts { answers: 0.5, ..well });
        let parts = moved(|score, _| score.handle_current(Some(0.2)));
        assert_eq!(parts, PeerScoreParts { current: 0.6, ..well });

        let mut lost = score;
        lost.handle_ended(false, false, now);
        let before = lost.parts(now).connections;
        lost.handle_ended(true, true, now);
        assert!(lost.parts(now).connections > before, "a proven connection is a good mark");
    }
}
