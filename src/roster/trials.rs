//! The results of replacements on a path, so that those that did not help are not repeated.
//!
//! To replace a connection that is suspect or poor is an experiment: it may be the connection that is ill, or
//! the path. If the successor, or the next one, is in trouble on the same path again, the replacement did not
//! help, and the next one waits. W is 5 x `suspect_after` (5 s by default):
//!
//! ```text
//! the n-th replacement on a path:    W x 2^(n-2) after the last one, at most 128 W; the first at once
//!   while nothing else answers:      n less five, and at most 4 W: messages wait for it
//! ```
//!
//! A path on which nothing had to be replaced for 12 W, and for twice the wait that was due, starts afresh.
//! So a path that loses 5 % for ever costs six connections in the first three minutes, and one about every
//! ten minutes later.
//!
//! Only a successor that joined the link counts: a dial that failed says nothing of what it would have
//! cured, and has a backoff of its own. A connection that is old, or whose replacement the application asked
//! for, is not replaced for doing badly, and neither waits nor counts. A path is the address of the other
//! side.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::slots::{ReplaceReason, Trouble};

/// W, in units of `suspect_after`.
const FIRST: u32 = 5;
const LONGEST: u32 = 128;
const LONGEST_WHILE_NOTHING_ANSWERS: u32 = 4;
/// So many more replacements are made before any has to wait while nothing else answers.
const MORE_WHILE_NOTHING_ANSWERS: u32 = 5;
const AFRESH_AFTER: u32 = 12;
/// More addresses than a peer has; the one that was tried least recently is forgotten.
const MAX_PATHS: usize = 8;

#[derive(Debug)]
pub(super) struct Trials {
    first: Duration,
    paths: Vec<Trial>,
}

#[derive(Debug)]
struct Trial {
    addr: SocketAddr,
    made: u32,
    last: Instant,
}

impl Trials {
    pub(super) fn new(suspect_after: Duration) -> Self {
        Trials { first: suspect_after.saturating_mul(FIRST), paths: Vec::new() }
    }

    /// When this connection may be replaced; `None`: now. `alone`: nothing else on the link answers, nor does
    /// it.
    pub(super) fn free_at(&self, trouble: &Trouble, alone: bool) -> Option<Instant> {
        if !is_for_doing_badly(trouble) {
            return None;
        }
        let trial = self.paths.iter().find(|trial| trial.addr == trouble.addr)?;
        let (more, longest) = match alone {
            true => (MORE_WHILE_NOTHING_ANSWERS, LONGEST_WHILE_NOTHING_ANSWERS),
            false => (0, LONGEST),
        };
        let wait = self.wait(trial.made.saturating_sub(more)).min(self.first.saturating_mul(longest));
        trial.last.checked_add(wait).filter(|_| !wait.is_zero())
    }

    /// No path has to be remembered any longer.
    pub(super) fn are_over(&self, now: Instant) -> bool {
        !self.paths.iter().any(|trial| self.counts(trial, now))
    }

    /// The next replacement on that path does not start afresh.
    fn counts(&self, trial: &Trial, now: Instant) -> bool {
        let afresh = self.first.saturating_mul(AFRESH_AFTER) + self.wait(trial.made) * 2;
        now.saturating_duration_since(trial.last) < afresh
    }

    /// A successor of this connection has joined.
    pub(super) fn handle_made(&mut self, trouble: &Trouble, now: Instant) {
        if !is_for_doing_badly(trouble) {
            return;
        }
        let index = self.paths.iter().position(|trial| trial.addr == trouble.addr);
        let before = index.map(|index| self.paths.swap_remove(index));
        let counts = |trial: &Trial| self.counts(trial, now);
        let made = before.filter(counts).map_or(0, |trial| trial.made).saturating_add(1);
        if self.paths.len() >= MAX_PATHS
            && let Some(oldest) =
                (0..self.paths.len()).min_by_key(|index| self.paths.get(*index).map(|t| t.last))
        {
            self.paths.swap_remove(oldest);
        }
        self.paths.push(Trial { addr: trouble.addr, made, last: now });
    }

    /// After so many that did not help.
    fn wait(&self, made: u32) -> Duration {
        match made {
            0 => Duration::ZERO,
            made => self.first.saturating_mul(1 << (made - 1).min(LONGEST.ilog2())),
        }
    }
}

fn is_for_doing_badly(trouble: &Trouble) -> bool {
    matches!(trouble.reason, ReplaceReason::Suspect | ReplaceReason::Poor)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Tests need some instant to start from; they never read the clock again.
mod tests {
    use super::*;
    use crate::id::ConnId;

    const S: Duration = Duration::from_secs(1);

    fn trouble(host: u8, reason: ReplaceReason) -> Trouble {
        Trouble { conn: ConnId(1), addr: ([10, 0, 0, host], 1).into(), reason, redial: None }
    }

    /// When replacements are made on a path where each successor is in trouble after `ill_after`, in seconds.
    fn made(reason: ReplaceReason, alone: bool, ill_after: Duration, time: Duration) -> Vec<u64> {
        let (mut trials, start) = (Trials::new(S), Instant::now());
        let (mut now, mut made) = (start, Vec::new());
        loop {
            now = trials.free_at(&trouble(1, reason), alone).map_or(now, |at| at.max(now));
            if now - start > time {
                return made;
            }
            trials.handle_made(&trouble(1, reason), now);
            made.push((now - start).as_secs());
            now += ill_after;
        }
    }

    #[test]
    fn replacements_that_did_not_help_become_rarer() {
        let poor = ReplaceReason::Poor;
        assert_eq!(made(poor, false, 3 * S, 180 * S), [0, 5, 15, 35, 75, 155]);
        assert!(made(poor, false, 3 * S, 24 * 3600 * S).len() < 24 * 6 + 10);
    }

    #[test]
    fn where_nothing_answers_five_more_are_made_and_the_wait_stays_short() {
        let made = made(ReplaceReason::Suspect, true, 2 * S, 180 * S);
        assert_eq!(made[..9], [0, 2, 4, 6, 8, 10, 15, 25, 45]);
        assert!(made.windows(2).all(|pair| pair[1] - pair[0] <= 20), "{made:?}");
    }

    #[test]
    fn a_connection_that_served_for_long_was_worth_it() {
        let every = 80 * S;
        let made = made(ReplaceReason::Poor, false, every, 3600 * S);
        assert!(made.windows(2).all(|pair| pair[1] - pair[0] == 80), "{made:?}");
    }

    #[test]
    fn another_path_and_other_reasons_do_not_wait() {
        let (mut trials, now) = (Trials::new(S), Instant::now());
        for _ in 0..5 {
            trials.handle_made(&trouble(1, ReplaceReason::Poor), now);
        }
        assert_eq!(trials.free_at(&trouble(1, ReplaceReason::Poor), false), Some(now + 80 * S));
        assert_eq!(trials.free_at(&trouble(2, ReplaceReason::Poor), false), None);
        for reason in [ReplaceReason::Asked, ReplaceReason::Aged] {
            assert_eq!(trials.free_at(&trouble(1, reason), false), None);
            trials.handle_made(&trouble(3, reason), now);
        }
        assert_eq!(trials.free_at(&trouble(3, ReplaceReason::Poor), false), None);
        for host in 0..=255 {
            trials.handle_made(&trouble(host, ReplaceReason::Poor), now);
        }
        assert!(trials.paths.len() <= MAX_PATHS);
    }
}
