//! The order and the times of the attempts of one dial. Pure: addresses and results go in, what to do next
//! comes out of [`Race::poll`].
//!
//! An entry may have several addresses, and a name may stand for several. They are raced as in RFC 8305
//! ("Happy Eyeballs"): the next attempt starts when the one before has failed, or after 250 ms, and the first
//! connection that is made is taken. So an address that does not answer costs 250 ms and not the whole
//! `connect_timeout`.
//!
//! ```text
//!            delay, or a failure                    connected
//!   Waiting --------------------> Connecting ----------------------> Handshake --- ok ---> the dial is done
//!      ^                            |     |                              |
//!      |                            |     +-- failed, or the budget      +-- failed: the others go on
//!      +--- another one connected --+         is used up
//! ```
//!
//! # Invariants
//! - Each address is attempted once, or again only if its attempt was stopped because another one was
//!   connected first.
//! - The attempts of a dial take no longer than its budget, handshakes not counted. If the node has room for
//!   them, all addresses are attempted in that time, up to [`MAX_ADDRESSES`].
//! - At most [`MAX_CONNECTING`] attempts at once. Beyond that, and when the node has no room for more, the
//!   oldest one is given up for the next, if it has lasted for [`GIVE_UP_AFTER`] or a fifth of the budget.
//! - The address that worked last comes first. The address to be avoided comes last: when all others have
//!   failed, or half of the budget is used up.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The "Connection Attempt Delay" of RFC 8305, section 5: 250 ms, and not less than 10 ms.
const DELAY: Duration = Duration::from_millis(250);
const LEAST_DELAY: Duration = Duration::from_millis(10);
const MAX_CONNECTING: usize = 8;
/// As long as a lost SYN takes to be sent again (RFC 6298: 1 s).
const GIVE_UP_AFTER: Duration = Duration::from_secs(1);
/// A name may stand for any number of addresses; no more are attempted.
const MAX_ADDRESSES: usize = 32;

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Connect(SocketAddr),
    /// Its attempt ends: others need its place.
    GiveUp(SocketAddr),
}

#[derive(Debug)]
pub(crate) struct Race {
    prefer: Option<SocketAddr>,
    avoid: Option<SocketAddr>,
    budget: Duration,
    known: Vec<SocketAddr>,
    waiting: VecDeque<SocketAddr>,
    /// The address to be avoided, until it is attempted.
    kept_back: Option<SocketAddr>,
    /// With the instant at which each attempt began, the oldest one first.
    connecting: Vec<(SocketAddr, Instant)>,
    last: Option<SocketAddr>,
    /// When the next attempt may start; `None`: at once.
    next_at: Option<Instant>,
    /// When the first attempt started; later by the time that handshakes took.
    began: Option<Instant>,
}

impl Race {
    pub(crate) fn new(prefer: Option<SocketAddr>, avoid: Option<SocketAddr>, budget: Duration) -> Self {
        Race {
            prefer,
            avoid,
            budget,
            known: Vec::new(),
            waiting: VecDeque::new(),
            kept_back: None,
            connecting: Vec::new(),
            last: None,
            next_at: None,
            began: None,
        }
    }

    /// Further addresses, in the order in which they are to be attempted.
    pub(crate) fn add(&mut self, addrs: impl IntoIterator<Item = SocketAddr>) {
        for addr in addrs {
            if self.known.len() >= MAX_ADDRESSES || self.known.contains(&addr) {
                continue;
            }
            self.known.push(addr);
            match addr {
                _ if Some(addr) == self.avoid => self.kept_back = Some(addr),
                _ if Some(addr) == self.prefer => self.waiting.push_front(addr),
                _ => self.waiting.push_back(addr),
            }
        }
    }

    /// Returns the next step that is due; to be called until it returns `None`. `complete`: no more addresses
    /// will be added. `room`: the node has room for one more attempt beside those that are under way.
    pub(crate) fn poll(&mut self, now: Instant, complete: bool, room: bool) -> Option<Step> {
        let early = self.next_at.is_some_and(|at| at > now);
        if self.is_late(now) || early && !self.connecting.is_empty() {
            return None;
        }
        let keeps_back = self.kept_back.is_some() && complete && self.may_use_last(now);
        if self.waiting.is_empty() && !keeps_back {
            return None;
        }
        if let Some((oldest, since)) = self.connecting.first().copied()
            && (!room || self.connecting.len() >= MAX_CONNECTING)
        {
            let due = since + GIVE_UP_AFTER.min(self.budget / 5);
            if due > now {
                self.next_at = Some(due);
                return None;
            }
            self.connecting.remove(0);
            return Some(Step::GiveUp(oldest));
        }
        let addr = self.take_next()?;
        self.began.get_or_insert(now);
        self.connecting.push((addr, now));
        self.last = Some(addr);
        let attempts = u32::try_from(self.known.len()).unwrap_or(u32::MAX).max(1);
        self.next_at = Some(now + (self.budget / 2 / attempts).clamp(LEAST_DELAY, DELAY));
        Some(Step::Connect(addr))
    }

    /// The families take turns, except that the preferred address and the first one go first.
    fn take_next(&mut self) -> Option<SocketAddr> {
        let first = self.waiting.front().copied();
        let other = |addr: &SocketAddr| self.last.is_some_and(|last| last.is_ipv4() != addr.is_ipv4());
        let index = match first {
            Some(addr) if Some(addr) == self.prefer => 0,
            _ => self.waiting.iter().position(other).unwrap_or(0),
        };
        self.waiting.remove(index).or_else(|| self.kept_back.take())
    }

    fn may_use_last(&self, now: Instant) -> bool {
        self.waiting.is_empty() && (self.connecting.is_empty() || self.half().is_none_or(|at| at <= now))
    }

    fn half(&self) -> Option<Instant> {
        self.began.map(|began| began + self.budget / 2)
    }

    /// When to poll again, if nothing happens before; `None`: no attempt is under way or due.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let next = match (self.waiting.is_empty(), self.kept_back) {
            (false, _) => self.next_at,
            (true, Some(_)) => self.half().max(self.next_at),
            (true, None) => None,
        };
        let deadline = self.began.map(|began| began + self.budget);
        next.into_iter().chain(deadline).min()
    }

    /// An address is left for the next attempt. `complete`: as in [`Race::poll`].
    pub(crate) fn has_next(&self, complete: bool) -> bool {
        !self.waiting.is_empty() || complete && self.kept_back.is_some()
    }

    /// The budget is used up.
    pub(crate) fn is_late(&self, now: Instant) -> bool {
        self.began.is_some_and(|began| began + self.budget <= now)
    }

    /// The attempt to connect to this address has failed: the next one starts at once.
    pub(crate) fn handle_failed(&mut self, addr: SocketAddr) {
        self.connecting.retain(|(other, _)| *other != addr);
        self.next_at = None;
    }

    /// The connection to this address is taken, and the other attempts are stopped.
    pub(crate) fn handle_connected(&mut self, addr: SocketAddr) {
        let stopped = std::mem::take(&mut self.connecting).into_iter().map(|(addr, _)| addr);
        for stopped in stopped.rev().filter(|other| *other != addr) {
            self.waiting.push_front(stopped);
        }
    }

    /// The handshake on the connection that was taken at `since` has failed: the others go on.
    pub(crate) fn handle_handshake_failed(&mut self, since: Instant, now: Instant) {
        self.began = self.began.map(|began| began + now.saturating_duration_since(since));
        self.next_at = None;
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Tests need some instant to start from; they never read the clock again.
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const BUDGET: Duration = Duration::from_secs(5);

    fn v4(host: u8) -> SocketAddr {
        ([10, 0, 0, host], 1).into()
    }

    fn v6(host: u16) -> SocketAddr {
        ([0x2001, 0xdb8, 0, 0, 0, 0, 0, host], 1).into()
    }

    /// The attempts that start until the budget is used up, in milliseconds, if none of them ends.
    fn attempts(race: &mut Race, room: bool) -> Vec<(u128, SocketAddr)> {
        let start = Instant::now();
        let (mut now, mut made, mut connecting) = (start, Vec::new(), 0);
        loop {
            match race.poll(now, true, room) {
                Some(Step::Connect(addr)) => {
                    connecting += 1;
                    made.push(((now - start).as_millis(), addr));
                }
                Some(Step::GiveUp(_)) => connecting -= 1,
                None if race.is_late(now) => return made,
                None => {
                    let next = race.next_timeout().expect("an attempt is under way");
                    assert!(next > now, "a timer that does not fire");
                    now = next;
                }
            }
            assert!(connecting <= if room { MAX_CONNECTING } else { 1 });
        }
    }

    #[test]
    fn a_dead_address_costs_a_quarter_of_a_second() {
        let mut race = Race::new(None, None, BUDGET);
        race.add([v4(1), v4(2), v4(3), v4(2)]);
        assert_eq!(attempts(&mut race, true), [(0, v4(1)), (250, v4(2)), (500, v4(3))]);
    }

    #[test]
    fn one_that_fails_costs_nothing() {
        let (mut race, now) = (Race::new(None, None, BUDGET), Instant::now());
        race.add([v4(1), v4(2)]);
        assert_eq!(race.poll(now, true, true), Some(Step::Connect(v4(1))));
        assert_eq!(race.poll(now, true, true), None);
        race.handle_failed(v4(1));
        assert_eq!(race.poll(now, true, true), Some(Step::Connect(v4(2))));
        race.handle_failed(v4(2));
        assert_eq!(race.poll(now, true, true), None);
    }

    #[test]
    fn families_take_turns_and_the_address_that_worked_goes_first() {
        let mut race = Race::new(Some(v4(3)), None, BUDGET);
        race.add([v6(1), v6(2), v4(1), v4(2), v4(3)]);
        let order: Vec<_> = attempts(&mut race, true).into_iter().map(|(_, addr)| addr).collect();
        assert_eq!(order, [v4(3), v6(1), v4(1), v6(2), v4(2)]);
    }

    #[test]
    fn the_address_to_be_avoided_comes_last() {
        let mut race = Race::new(Some(v4(1)), Some(v4(1)), BUDGET);
        race.add([v4(1), v4(2)]);
        assert_eq!(attempts(&mut race, true), [(0, v4(2)), (2500, v4(1))]);
        let (mut race, now) = (Race::new(None, Some(v4(1)), BUDGET), Instant::now());
        race.add([v4(1)]);
        assert_eq!(race.poll(now, false, true), None, "a name may bring others");
        assert_eq!(race.poll(now, true, true), Some(Step::Connect(v4(1))), "it is the only one");
    }

    #[test]
    fn many_addresses_are_all_attempted_within_the_budget_and_few_at_once() {
        for (count, budget) in [(10, BUDGET), (32, BUDGET), (200, BUDGET), (10, BUDGET / 20)] {
            let mut race = Race::new(None, None, budget);
            race.add((0..count).map(v4));
            let made = attempts(&mut race, true);
            let distinct: std::collections::HashSet<_> = made.iter().map(|(_, addr)| addr).collect();
            assert_eq!(distinct.len(), made.len(), "each once");
            assert_eq!(made.len(), MAX_ADDRESSES.min(count.into()), "{made:?}");
        }
    }

    #[test]
    fn without_room_a_dead_address_is_given_up_after_a_second() {
        let mut race = Race::new(None, None, BUDGET);
        race.add([v4(1), v4(2), v4(3)]);
        assert_eq!(attempts(&mut race, false), [(0, v4(1)), (1000, v4(2)), (2000, v4(3))]);
    }

    #[test]
    fn when_a_handshake_fails_the_others_go_on_and_its_time_does_not_count() {
        let (mut race, start) = (Race::new(None, None, BUDGET), Instant::now());
        race.add([v4(1), v4(2), v4(3)]);
        assert_eq!(race.poll(start, true, true), Some(Step::Connect(v4(1))));
        let now = start + 250 * MS;
        assert_eq!(race.poll(now, true, true), Some(Step::Connect(v4(2))));
        race.handle_connected(v4(2));
        let later = now + 10_000 * MS;
        race.handle_handshake_failed(now, later);
        assert!(!race.is_late(later));
        assert_eq!(race.poll(later, true, true), Some(Step::Connect(v4(1))), "it had not failed");
        assert_eq!(race.poll(later + 250 * MS, true, true), Some(Step::Connect(v4(3))));
        assert!(race.is_late(later + BUDGET));
    }
}
