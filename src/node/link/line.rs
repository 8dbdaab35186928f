//! The senders of one lane that wait for room, in the order in which they came.
//!
//! # Who may take the room that there is
//! | a sender | may |
//! |---|---|
//! | that waits | if it is the first |
//! | that does not wait, with nobody in the line | always |
//! | that does not wait, with others in the line | while the first has been first for less than [`PATIENCE`] |
//!
//! An acknowledgement makes room for many messages at once. If each of them went to the sender that has
//! waited longest, each would cost a change of threads: 8 threads that send 256 B to one peer came to 0.06 M
//! messages/s, and come to 3 M because a sender that runs goes on while there is room (2 processors,
//! loopback). So the senders are served in the order of the line, but a sender that was served may send more
//! before the next one. The first of the line waits at most `PATIENCE` longer for that.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::node::budget::Turn;

/// For so long the first of a line lets others go before it.
const PATIENCE: Duration = Duration::from_millis(1);

#[derive(Default)]
pub(super) struct Line {
    turns: VecDeque<Arc<Turn>>,
    /// When the first one became the first.
    since: Option<Instant>,
}

impl Line {
    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    pub(super) fn first(&self) -> Option<&Arc<Turn>> {
        self.turns.front()
    }

    pub(super) fn turns(&self) -> impl Iterator<Item = &Arc<Turn>> {
        self.turns.iter()
    }

    /// Whether a sender may take the room that there is. `turn`: its place, if it waits.
    pub(super) fn may_go(&self, turn: Option<&Arc<Turn>>, now: impl FnOnce() -> Instant) -> bool {
        match (turn, self.since) {
            (Some(turn), _) => self.is_first(turn),
            (None, None) => true,
            (None, Some(since)) => now().saturating_duration_since(since) < PATIENCE,
        }
    }

    pub(super) fn is_first(&self, turn: &Arc<Turn>) -> bool {
        self.first().is_some_and(|first| Arc::ptr_eq(first, turn))
    }

    pub(super) fn join(&mut self, turn: &Arc<Turn>, now: impl FnOnce() -> Instant) {
        self.since.get_or_insert_with(now);
        self.turns.push_back(Arc::clone(turn));
    }

    /// Returns the one that is the first now.
    pub(super) fn leave(&mut self, turn: &Arc<Turn>, now: impl FnOnce() -> Instant) -> Option<Arc<Turn>> {
        let was_first = self.is_first(turn);
        self.turns.retain(|other| !Arc::ptr_eq(other, turn));
        if was_first {
            self.since = self.first().is_some().then(now);
        }
        self.first().cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_sender_that_runs_goes_before_the_first_only_while_that_one_is_patient() {
        let (mut line, [first, second]) = (Line::default(), [Turn::new(), Turn::new()]);
        let start = clock::now();
        let after = |part: f64| start + PATIENCE.mul_f64(part);
        assert!(line.may_go(None, || unreachable!("nobody waits")));
        line.join(&first, || start);
        line.join(&second, || after(0.5));
        assert!(line.may_go(Some(&first), || start) && !line.may_go(Some(&second), || start));
        assert!(line.may_go(None, || after(0.9)) && !line.may_go(None, || after(1.0)));
        // The next one has patience of its own.
        assert!(line.leave(&first, || after(2.0)).is_some_and(|next| Arc::ptr_eq(&next, &second)));
        assert!(line.may_go(None, || after(2.9)) && !line.may_go(None, || after(3.0)));
        assert!(line.leave(&second, || after(3.0)).is_none());
        assert!(line.may_go(None, || unreachable!("nobody waits")));
    }

    #[test]
    fn one_that_leaves_the_middle_of_the_line_renews_nobodys_patience() {
        let (mut line, [first, second]) = (Line::default(), [Turn::new(), Turn::new()]);
        let start = clock::now();
        line.join(&first, || start);
        line.join(&second, || start);
        line.leave(&second, || start + PATIENCE);
        assert!(line.is_first(&first) && !line.may_go(None, || start + PATIENCE));
    }
}
