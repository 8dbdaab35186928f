//! Is this connection alive? One state machine for each connection.
//!
//! ```text
//!          an answer is overdue              a byte arrives
//!   Up ------------------------> Suspect ---------------------> Up
//!    |                              |
//!    |   no byte for `dead_after`   |
//!    +------------> Dead <----------+
//! ```
//!
//! Only a byte makes a suspect connection Up again: that its data moved elsewhere proves nothing.
//!
//! An *answer* is a pong to a ping, or an acknowledgement of data. It is overdue when neither it nor
//! anything else has arrived for max(`suspect_after`, 8 x RTT) since it was first expected: any byte
//! received is a sign of life, so a pong that is late behind a large block makes nobody suspect.
//! TCP itself would notice much later (an established connection with data in flight into a silent
//! black hole failed after 938 s with keepalive alone; measured on Linux 6.18).

use std::time::{Duration, Instant};

/// The settings of the state machine; see [`crate::Config`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) ping_interval: Duration,
    pub(crate) suspect_after: Duration,
    pub(crate) dead_after: Duration,
}

/// What a timer of the state machine asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Send a ping with this nonce.
    Ping(u64),
    Suspect,
    Recovered,
    Dead,
}

#[derive(Debug)]
pub(crate) struct Liveness {
    limits: Limits,
    last_received: Instant,
    /// When the oldest data that is not acknowledged was sent, or when the last acknowledgement came.
    unacked_since: Option<Instant>,
    ping: Option<(u64, Instant)>,
    next_ping: Instant,
    next_nonce: u64,
    rtt: Option<Duration>,
    suspect: bool,
    /// A byte has arrived since it became suspect.
    heard: bool,
    /// Pongs that were not asked for.
    strikes: u32,
}

impl Liveness {
    /// `nonce` makes the nonces of this connection unguessable.
    pub(crate) fn new(limits: Limits, now: Instant, nonce: u64) -> Self {
        Liveness {
            limits,
            last_received: now,
            unacked_since: None,
            ping: None,
            // The first ping goes at once: it measures the round trip and proves the way there and back.
            next_ping: now,
            next_nonce: nonce,
            rtt: None,
            suspect: false,
            heard: false,
            strikes: 0,
        }
    }

    /// A byte arrived at `at`. To be told of the same byte again is no new sign of life: the monitor
    /// repeats what it last heard of in each of its rounds.
    pub(crate) fn handle_received(&mut self, at: Instant) {
        if at > self.last_received {
            self.last_received = at;
            self.heard = true;
        }
    }

    pub(crate) fn handle_data_sent(&mut self, now: Instant) {
        self.unacked_since.get_or_insert(now);
    }

    /// An acknowledgement came, or what was outstanding moved elsewhere.
    pub(crate) fn handle_progress(&mut self, now: Instant, outstanding: bool) {
        self.unacked_since = outstanding.then_some(now);
    }

    /// Returns false for a pong that nobody asked for.
    pub(crate) fn handle_pong(&mut self, nonce: u64, now: Instant) -> bool {
        match self.ping.take_if(|(asked, _)| *asked == nonce) {
            Some((_, sent)) => {
                let sample = now.saturating_duration_since(sent);
                // RFC 6298's smoothing: an eighth of the new sample.
                self.rtt = Some(self.rtt.map_or(sample, |rtt| (rtt * 7 + sample) / 8));
                true
            }
            None => {
                self.strikes += 1;
                false
            }
        }
    }

    /// This process itself stood still for `gap` (stopped, or a machine asleep): nobody's answer is
    /// late for that reason.
    pub(crate) fn handle_pause(&mut self, gap: Duration, now: Instant) {
        // What arrived meanwhile may have been noted already: nothing is heard in the future.
        self.last_received = (self.last_received + gap).min(now);
        self.unacked_since = self.unacked_since.map(|at| at + gap);
        self.ping = self.ping.map(|(nonce, at)| (nonce, at + gap));
    }

    /// Asks for a ping now, to find out whether the other side answers.
    pub(crate) fn probe(&mut self, now: Instant) {
        if self.ping.is_none() {
            self.next_ping = now;
        }
    }

    pub(crate) fn poll(&mut self, now: Instant) -> Option<Verdict> {
        if now >= self.last_received + self.limits.dead_after {
            return Some(Verdict::Dead);
        }
        let overdue = self.overdue_at().is_some_and(|at| now >= at);
        if overdue && !self.suspect {
            (self.suspect, self.heard) = (true, false);
            return Some(Verdict::Suspect);
        }
        // That what was outstanding moved elsewhere says nothing for this connection.
        if self.suspect && !overdue && self.heard {
            self.suspect = false;
            return Some(Verdict::Recovered);
        }
        if self.ping.is_none() && now >= self.next_ping {
            self.next_ping = now + self.limits.ping_interval;
            self.next_nonce = self.next_nonce.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            self.ping = Some((self.next_nonce, now));
            return Some(Verdict::Ping(self.next_nonce));
        }
        None
    }

    pub(crate) fn next_timeout(&self) -> Instant {
        let dead = self.last_received + self.limits.dead_after;
        let overdue = self.overdue_at().filter(|_| !self.suspect).unwrap_or(dead);
        let ping = if self.ping.is_none() { self.next_ping } else { dead };
        dead.min(overdue).min(ping)
    }

    fn overdue_at(&self) -> Option<Instant> {
        let expected = match (self.ping, self.unacked_since) {
            (Some((_, ping)), Some(data)) => ping.min(data),
            (Some((_, at)), None) | (None, Some(at)) => at,
            (None, None) => return None,
        };
        Some(expected.max(self.last_received) + self.patience())
    }

    /// How long an answer may take.
    pub(crate) fn patience(&self) -> Duration {
        self.limits.suspect_after.max(self.rtt.unwrap_or_default() * 8)
    }

    pub(crate) fn strikes(&self) -> u32 {
        self.strikes
    }

    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    pub(crate) fn last_received(&self) -> Instant {
        self.last_received
    }

    pub(crate) fn is_suspect(&self) -> bool {
        self.suspect
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Tests need some instant to start from; they never read the clock again.
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn start() -> (Liveness, Instant) {
        let now = Instant::now();
        let limits = Limits { ping_interval: 10 * S, suspect_after: S, dead_after: 20 * S };
        (Liveness::new(limits, now, 7), now)
    }

    fn ping(liveness: &mut Liveness, now: Instant) -> u64 {
        match liveness.poll(now) {
            Some(Verdict::Ping(nonce)) => nonce,
            other => panic!("expected a ping, got {other:?}"),
        }
    }

    #[test]
    fn an_unanswered_ping_makes_suspect_then_dead() {
        let (mut liveness, now) = start();
        ping(&mut liveness, now);
        assert_eq!(liveness.poll(now + S / 2), None);
        assert_eq!(liveness.poll(now + S), Some(Verdict::Suspect));
        assert_eq!(liveness.poll(now + 19 * S), None);
        assert_eq!(liveness.poll(now + 20 * S), Some(Verdict::Dead));
    }

    #[test]
    fn any_byte_is_a_sign_of_life() {
        let (mut liveness, now) = start();
        ping(&mut liveness, now);
        for half in 1..100 {
            let now = now + half * S / 2;
            liveness.handle_received(now);
            assert_eq!(liveness.poll(now), None, "after {half} half seconds");
        }
    }

    #[test]
    fn missing_acknowledgement_makes_suspect_and_a_byte_recovers() {
        let (mut liveness, now) = start();
        let nonce = ping(&mut liveness, now);
        assert!(liveness.handle_pong(nonce, now + S / 100));
        liveness.handle_received(now + S / 100);
        let sent = now + 5 * S;
        liveness.handle_data_sent(sent);
        assert_eq!(liveness.poll(sent + S - S / 100), None);
        assert_eq!(liveness.poll(sent + S), Some(Verdict::Suspect));
        liveness.handle_received(sent + 2 * S);
        assert_eq!(liveness.poll(sent + 2 * S), Some(Verdict::Recovered));
    }

    #[test]
    fn the_same_byte_again_is_no_sign_of_life() {
        let (mut liveness, now) = start();
        ping(&mut liveness, now);
        let heard = now + S / 2;
        liveness.handle_received(heard);
        assert_eq!(liveness.poll(now + 2 * S), Some(Verdict::Suspect));
        for round in 0..10 {
            liveness.handle_received(heard);
            // As the monitor's round does: first at the time of the byte, then at its own.
            assert_eq!(liveness.poll(heard), None, "round {round}");
            assert_eq!(liveness.poll(now + 2 * S), None, "round {round}");
        }
    }

    #[test]
    fn a_slow_path_gets_eight_round_trips() {
        let (mut liveness, now) = start();
        let nonce = ping(&mut liveness, now);
        liveness.handle_received(now + S / 2);
        assert!(liveness.handle_pong(nonce, now + S / 2));
        liveness.handle_data_sent(now + S);
        assert_eq!(liveness.poll(now + S + 3 * S), None);
        assert_eq!(liveness.poll(now + S + 4 * S), Some(Verdict::Suspect));
    }

    #[test]
    fn an_unasked_pong_changes_nothing_but_the_strikes() {
        let (mut liveness, now) = start();
        let nonce = ping(&mut liveness, now);
        assert!(!liveness.handle_pong(nonce + 1, now + S / 2));
        assert_eq!(liveness.rtt(), None);
        assert!(liveness.handle_pong(nonce, now + S / 4));
        assert!(!liveness.handle_pong(nonce, now + S / 2));
        assert_eq!(liveness.rtt(), Some(S / 4));
        assert_eq!(liveness.strikes, 2);
    }

    #[test]
    fn our_own_pause_is_nobodys_fault() {
        let (mut liveness, now) = start();
        ping(&mut liveness, now);
        liveness.handle_pause(60 * S, now + 60 * S);
        assert_eq!(liveness.poll(now + 60 * S), None);
        assert_eq!(liveness.poll(now + 61 * S), Some(Verdict::Suspect));
    }

    #[test]
    fn the_next_timeout_is_when_something_happens() {
        let (mut liveness, mut now) = start();
        let mut seen = Vec::new();
        while seen.last() != Some(&Verdict::Dead) {
            match liveness.poll(now) {
                Some(verdict) => seen.push(verdict),
                None => {
                    let next = liveness.next_timeout();
                    assert!(next > now, "a timer that does not fire would spin");
                    now = next;
                }
            }
        }
        assert_eq!(seen.len(), 3, "{seen:?}");
    }
}
