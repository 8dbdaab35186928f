//! Is this connection alive? One state machine for each connection.
//!
//! ```text
//!          an answer is overdue, or a hole           a byte arrives, and the hole is none
//!   Up -----------------------------------> Suspect --------------------------------------> Up
//!    |                                         |
//!    |          no byte for `dead_after`       |
//!    +-----------------> Dead <----------------+
//! ```
//!
//! Only a byte makes a silent connection Up again: that its data moved elsewhere proves nothing.
//!
//! An *answer* is a pong to a ping, or an acknowledgement of data. It is overdue when neither it nor
//! anything else has arrived for max(`suspect_after`, 8 x RTT) since it was first expected: any byte
//! received is a sign of life, so a pong that is late behind a large block makes nobody suspect.
//! While the question stands in the own send queue and the peer's kernel acknowledges what stands before it,
//! the time does not run: a slow link needs seconds for what was written before. RTT is the largest one of
//! the pings', the kernel's, and the kernel's of the other connections by the same path: a packet waits in
//! one queue with theirs, and is lost with theirs where that queue is full.
//! TCP itself would notice much later (an established connection with data in flight into a silent
//! black hole failed after 938 s with keepalive alone; measured on Linux 6.18).
//!
//! A *hole* swallows what we send, or the larger part of it, while what the peer sends arrives:
//!
//! ```text
//!              something in flight, of which the peer's kernel acknowledged nothing for
//!              max(`suspect_after`, 8 x RTT), nor after two timeouts in a row
//!   no hole -------------------------------------------------------------------------> hole
//!      ^                                                                                 |
//!      +------- an acknowledgement of new bytes, nothing in flight, a window of 0 -------+
//! ```
//!
//! No byte received helps against a hole. It makes a connection suspect, never dead: as long as bytes
//! arrive, its end is left to the kernel (TCP_USER_TIMEOUT). A path that is slow has its data acknowledged
//! all the same, and the data for a peer that does not read is not in flight: neither is a hole.
//!
//! For the learned ping interval ([`super::keepalive`]) it keeps the longest silence that the path outlived,
//! and the one at which it ended. A *silence* is a time without a byte in either direction. It was outlived
//! when a *question* of ours (a ping or data) after it was answered, or when the peer spoke first. It was
//! deadly when a question after it was not answered. A ping of the peer ends the silence where the path
//! works: if one was due before our question, it was lost, and the deadly silence lasted only until then.

use std::time::{Duration, Instant};

use super::kernel::{Delivery, KernelSample, Stall};
use super::rhythm::Rhythm;

/// One timeout may be fired in vain, by a round trip that grew faster than the kernel's timer (RFC 5682).
const TIMEOUTS_OF_A_HOLE: u8 = 2;

/// The peer counts on it: [`crate::link`]'s budget of pings.
const LEAST_PING_INTERVAL: Duration = Duration::from_millis(1);

/// The settings of the state machine; see [`crate::Config`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) ping_interval: Duration,
    pub(crate) suspect_after: Duration,
    pub(crate) dead_after: Duration,
}

/// The action that a timer of the state machine asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LivenessEvent {
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
    /// When the last ping went.
    pinged: Option<Instant>,
    next_ping: Instant,
    next_nonce: u64,
    rtt: Option<Duration>,
    /// The round trip is that of an earlier connection by the same path: the first one of its own takes its
    /// place.
    inherited: bool,
    /// The kernel's round trip: data queues on the way that no ping has met yet.
    kernel_rtt: Duration,
    /// The longest that the kernel measures on any connection by the same path: they wait in the same queue.
    path_rtt: Duration,
    delivery: Delivery,
    /// An answer is overdue.
    silent: bool,
    /// A byte has arrived since it became silent.
    heard: bool,
    stall: Stall,
    hole: bool,
    /// Since when it is silent, or has a hole, and said so.
    suspect_since: Option<Instant>,
    /// When anything was last sent or received. `None`: this process stood still, and nobody knows.
    active: Option<Instant>,
    question: Option<Question>,
    outlived: Option<Duration>,
    peer_pings: Option<PeerPings>,
    rhythm: Rhythm,
    /// Pongs that were not asked for.
    strikes: u32,
}

/// The first ping or data after which nothing was heard yet.
#[derive(Clone, Copy, Debug)]
struct Question {
    at: Instant,
    /// How long nothing had gone either way before it, if that is known.
    idle: Option<Duration>,
}

/// When the peer's last ping came, and the longest time between two of them.
#[derive(Clone, Copy, Debug)]
struct PeerPings {
    last: Instant,
    every: Option<Duration>,
}

/// How long a connection has shown that its path may stay silent. Asked for at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Silences {
    /// The longest after which something still came through.
    pub(crate) outlived: Option<Duration>,
    /// The one after which a question was not answered.
    pub(crate) deadly: Option<Duration>,
    /// The one at which the stream was closed or reset without a goodbye.
    pub(crate) cut: Option<Duration>,
}

/// How a connection ended, as far as that tells something about its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// One of the two sides said goodbye, or this side gave it up.
    Deliberate,
    /// The stream ended (FIN) without a goodbye.
    Closed,
    /// The network ended it with an error: a reset, a host that cannot be reached.
    Failed,
}

impl Liveness {
    /// `nonce` makes the nonces of this connection unguessable.
    pub(crate) fn new(limits: Limits, now: Instant, nonce: u64) -> Self {
        Liveness {
            limits,
            last_received: now,
            unacked_since: None,
            ping: None,
            pinged: None,
            // The first ping goes at once: it measures the round trip and proves the way there and back.
            next_ping: now,
            next_nonce: nonce,
            rtt: None,
            inherited: false,
            kernel_rtt: Duration::ZERO,
            path_rtt: Duration::ZERO,
            delivery: Delivery::default(),
            silent: false,
            heard: false,
            stall: Stall::default(),
            hole: false,
            suspect_since: None,
            active: Some(now),
            question: None,
            outlived: None,
            peer_pings: None,
            rhythm: Rhythm::default(),
            strikes: 0,
        }
    }

    /// A byte arrived at `at`. To be told of the same byte again is no new sign of life: the monitor
    /// repeats what it last heard of in each of its rounds.
    pub(crate) fn handle_received(&mut self, at: Instant) {
        if at > self.last_received {
            self.last_received = at;
            self.heard = true;
            // A question of ours broke the silence, or the peer does so now.
            let silence = match self.question.take_if(|question| at > question.at) {
                Some(question) => question.idle,
                None => self.silence(at),
            };
            self.outlived = self.outlived.max(silence);
            self.active = Some(self.active.map_or(at, |active| active.max(at)));
        }
    }

    /// The peer's ping came.
    pub(crate) fn handle_ping(&mut self, at: Instant) {
        let gap = self.peer_pings.map(|pings| at.saturating_duration_since(pings.last));
        let every = self.peer_pings.and_then(|pings| pings.every);
        self.peer_pings = Some(PeerPings { last: at, every: every.max(gap) });
    }

    /// The peer's data came on a connection that this side dialled. When such data comes regularly and stops,
    /// the next ping goes at once ([`super::rhythm`]).
    pub(crate) fn handle_data_received(&mut self, at: Instant) {
        self.rhythm.handle_data(at);
    }

    /// How long nothing has gone either way, if that is known.
    fn silence(&self, now: Instant) -> Option<Duration> {
        self.active.map(|active| now.saturating_duration_since(active))
    }

    pub(crate) fn handle_data_sent(&mut self, now: Instant) {
        self.unacked_since.get_or_insert(now);
        self.ask(now);
    }

    /// Anything at all was sent. Functions that send data or a ping imply it.
    pub(crate) fn handle_sent(&mut self, now: Instant) {
        // After a pause only a byte from there tells that the path is still there.
        self.active = self.active.map(|active| active.max(now));
    }

    /// A sample of the kernel. To be followed by [`Liveness::poll`].
    pub(crate) fn handle_kernel(&mut self, sample: &KernelSample, now: Instant) {
        self.stall.handle_kernel(sample, now);
        self.delivery.handle_kernel(sample, self.asked_at(), now);
        self.kernel_rtt = Duration::try_from_secs_f64(sample.rtt_ms / 1000.0).unwrap_or_default();
        self.hole = self.stall.timeouts() >= TIMEOUTS_OF_A_HOLE && self.stall.lasts(now) >= self.patience();
    }

    /// The kernel sends again after a timeout, and nothing that is in flight was acknowledged since.
    pub(crate) fn is_stalled(&self) -> bool {
        self.stall.timeouts() > 0
    }

    /// An acknowledgement came, or what was outstanding moved elsewhere.
    pub(crate) fn handle_progress(&mut self, now: Instant, outstanding: bool) {
        self.unacked_since = outstanding.then_some(now);
    }

    /// Returns the round trip; nothing for a pong that nobody asked for.
    pub(crate) fn handle_pong(&mut self, nonce: u64, now: Instant) -> Option<Duration> {
        let Some((_, sent)) = self.ping.take_if(|(asked, _)| *asked == nonce) else {
            self.strikes += 1;
            return None;
        };
        let sample = now.saturating_duration_since(sent);
        // RFC 6298's smoothing: an eighth of the new sample.
        let earlier = self.rtt.filter(|_| !std::mem::take(&mut self.inherited));
        self.rtt = Some(earlier.map_or(sample, |rtt| (rtt * 7 + sample) / 8));
        Some(sample)
    }

    /// This process itself stood still for `gap` (stopped, or a machine asleep): nobody's answer is
    /// late for that reason.
    pub(crate) fn handle_pause(&mut self, gap: Duration, now: Instant) {
        // Arrivals meanwhile may have been noted already: nothing is heard in the future.
        self.last_received = (self.last_received + gap).min(now);
        self.unacked_since = self.unacked_since.map(|at| at + gap);
        self.ping = self.ping.map(|(nonce, at)| (nonce, at + gap));
        self.stall.handle_pause(gap);
        self.delivery.handle_pause(gap);
        self.rhythm.handle_pause();
        // How long the path was silent meanwhile is not known: it teaches nothing.
        self.active = None;
        self.peer_pings = None;
        if let Some(question) = &mut self.question {
            question.idle = None;
        }
    }

    /// The learned interval changed.
    pub(crate) fn set_ping_interval(&mut self, interval: Duration, now: Instant) {
        self.limits.ping_interval = interval;
        self.next_ping = self.next_ping.min(now + interval);
    }

    /// Returns what its silences have shown, asked for when it has ended.
    pub(crate) fn silences(&self, ending: Ending, now: Instant) -> Silences {
        let before_question = self.question.and_then(|question| question.idle);
        let deadly = self
            .question
            .filter(|_| self.silent || ending == Ending::Failed)
            .and_then(|question| Some(self.until_peer_asks(question.at, question.idle?)));
        let cut = if self.question.is_some() { before_question } else { self.silence(now) };
        let cut = cut.filter(|_| ending != Ending::Deliberate && !self.silent);
        Silences { outlived: self.outlived, deadly, cut }
    }

    /// The part of a silence of `idle` until `at` in which the peer had nothing to say: from then on its ping
    /// was lost.
    fn until_peer_asks(&self, at: Instant, idle: Duration) -> Duration {
        let Some(PeerPings { last, every }) = self.peer_pings else { return idle };
        // After one ping of a peer its interval is not known.
        let due = last + every.unwrap_or(self.limits.ping_interval);
        idle.saturating_sub(at.saturating_duration_since(due))
    }

    /// When the question was asked of which no answer was heard yet.
    pub(crate) fn unanswered_since(&self) -> Option<Instant> {
        self.question.map(|question| question.at)
    }

    /// Asks for a ping now, to find out whether the other side answers.
    pub(crate) fn probe(&mut self, now: Instant) {
        if self.ping.is_none() {
            self.next_ping = now;
        }
    }

    /// The application wants a ping now. There is at most one each [`LEAST_PING_INTERVAL`].
    pub(crate) fn handle_ping_wanted(&mut self, now: Instant) {
        let earliest = self.pinged.map_or(now, |at| now.max(at + LEAST_PING_INTERVAL));
        if self.ping.is_none() {
            self.next_ping = self.next_ping.min(earliest);
        }
    }

    pub(crate) fn poll(&mut self, now: Instant) -> Option<LivenessEvent> {
        if now >= self.last_received + self.limits.dead_after {
            return Some(LivenessEvent::Dead);
        }
        let overdue = self.overdue_at().is_some_and(|at| now >= at);
        if overdue && !self.silent {
            (self.silent, self.heard) = (true, false);
        }
        // That what was outstanding moved elsewhere says nothing for this connection.
        if !overdue && self.heard {
            self.silent = false;
        }
        let suspect = self.silent || self.hole;
        if suspect != self.is_suspect() {
            self.suspect_since = suspect.then_some(now);
            if suspect {
                // Its data moves elsewhere: without a question nobody would learn that it is well again.
                self.probe(now);
            }
            return Some(if suspect { LivenessEvent::Suspect } else { LivenessEvent::Recovered });
        }
        if self.rhythm.stopped_at().is_some_and(|at| now >= at) {
            self.rhythm.handle_asked();
            self.probe(now);
        }
        if self.ping.is_none() && now >= self.next_ping {
            self.next_ping = now + self.limits.ping_interval;
            self.next_nonce = self.next_nonce.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            self.ping = Some((self.next_nonce, now));
            self.pinged = Some(now);
            self.ask(now);
            return Some(LivenessEvent::Ping(self.next_nonce));
        }
        None
    }

    pub(crate) fn next_timeout(&self) -> Instant {
        let dead = self.last_received + self.limits.dead_after;
        let overdue = self.overdue_at().filter(|_| !self.silent).unwrap_or(dead);
        let ping = if self.ping.is_none() { self.next_ping } else { dead };
        dead.min(overdue).min(ping).min(self.rhythm.stopped_at().unwrap_or(dead))
    }

    fn ask(&mut self, now: Instant) {
        let idle = self.silence(now);
        self.question.get_or_insert(Question { at: now, idle });
        self.handle_sent(now);
    }

    fn overdue_at(&self) -> Option<Instant> {
        self.asked_at().map(|asked| self.delivery.since(asked) + self.patience())
    }

    /// When the oldest question was asked whose answer may be expected; the last byte received counts as an
    /// answer.
    fn asked_at(&self) -> Option<Instant> {
        let expected = match (self.ping, self.unacked_since) {
            (Some((_, ping)), Some(data)) => ping.min(data),
            (Some((_, at)), None) | (None, Some(at)) => at,
            (None, None) => return None,
        };
        Some(expected.max(self.last_received))
    }

    /// A ping or data waits for its answer.
    pub(crate) fn expects_answer(&self) -> bool {
        self.ping.is_some() || self.unacked_since.is_some()
    }

    /// How long an answer may take.
    pub(crate) fn patience(&self) -> Duration {
        let rtt = self.rtt.unwrap_or_default().max(self.kernel_rtt).max(self.path_rtt);
        self.limits.suspect_after.max(rtt * 8)
    }

    /// The kernel's round trip at the last sample.
    pub(crate) fn kernel_rtt(&self) -> Duration {
        self.kernel_rtt
    }

    /// The longest round trip that the kernel measures on connections by the same path.
    pub(crate) fn set_path_rtt(&mut self, rtt: Duration) {
        self.path_rtt = rtt;
    }

    /// The round trip, with what queues on the way, if this connection has measured it.
    pub(crate) fn measured_rtt(&self) -> Option<Duration> {
        self.rtt.map(|rtt| rtt.max(self.kernel_rtt)).filter(|_| !self.inherited)
    }

    /// The round trip of the path, as an earlier connection measured it.
    pub(crate) fn inherit(&mut self, rtt: Duration) {
        if self.rtt.is_none() {
            (self.rtt, self.inherited) = (Some(rtt), true);
        }
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
        self.suspect_since.is_some()
    }

    pub(crate) fn suspect_since(&self) -> Option<Instant> {
        self.suspect_since
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
            Some(LivenessEvent::Ping(nonce)) => nonce,
            other => panic!("expected a ping, got {other:?}"),
        }
    }

    #[test]
    fn an_unanswered_ping_makes_suspect_then_dead() {
        let (mut liveness, now) = start();
        ping(&mut liveness, now);
        assert_eq!(liveness.poll(now + S / 2), None);
        assert_eq!(liveness.poll(now + S), Some(LivenessEvent::Suspect));
        assert_eq!(liveness.poll(now + 19 * S), None);
        assert_eq!(liveness.poll(now + 20 * S), Some(LivenessEvent::Dead));
    }

    #[test]
    fn a_ping_goes_soon_after_regular_data_stops() {
        let (mut liveness, mut now) = start();
        let nonce = ping(&mut liveness, now);
        liveness.handle_received(now);
        liveness.handle_pong(nonce, now);
        for _ in 0..9 {
            now += S / 2;
            liveness.handle_received(now);
            liveness.handle_data_received(now);
            assert_eq!(liveness.poll(now), None);
        }
        assert_eq!(liveness.next_timeout(), now + S);
        assert_eq!(liveness.poll(now + S * 99 / 100), None);
        ping(&mut liveness, now + S);
        assert_eq!(liveness.poll(now + S * 199 / 100), None);
        assert_eq!(liveness.poll(now + S * 2), Some(LivenessEvent::Suspect));
    }

    #[test]
    fn a_wanted_ping_goes_at_once_but_not_twice_in_a_millisecond() {
        let (mut liveness, now) = start();
        let first = ping(&mut liveness, now);
        // An answer is awaited already.
        liveness.handle_ping_wanted(now);
        assert_eq!(liveness.poll(now), None);
        liveness.handle_pong(first, now);
        assert_eq!(liveness.poll(now), None);
        liveness.handle_ping_wanted(now);
        assert_eq!(liveness.poll(now), None);
        assert_eq!(liveness.next_timeout(), now + LEAST_PING_INTERVAL);
        let second = ping(&mut liveness, now + LEAST_PING_INTERVAL);
        liveness.handle_pong(second, now + S / 2);
        liveness.handle_ping_wanted(now + S / 2);
        ping(&mut liveness, now + S / 2);
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
        assert!(liveness.handle_pong(nonce, now + S / 100).is_some());
        liveness.handle_received(now + S / 100);
        let sent = now + 5 * S;
        liveness.handle_data_sent(sent);
        assert_eq!(liveness.poll(sent + S - S / 100), None);
        assert_eq!(liveness.poll(sent + S), Some(LivenessEvent::Suspect));
        liveness.handle_received(sent + 2 * S);
        assert_eq!(liveness.poll(sent + 2 * S), Some(LivenessEvent::Recovered));
    }

    #[test]
    fn the_same_byte_again_is_no_sign_of_life() {
        let (mut liveness, now) = start();
        ping(&mut liveness, now);
        let heard = now + S / 2;
        liveness.handle_received(heard);
        assert_eq!(liveness.poll(now + 2 * S), Some(LivenessEvent::Suspect));
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
        assert!(liveness.handle_pong(nonce, now + S / 2).is_some());
        liveness.handle_data_sent(now + S);
        assert_eq!(liveness.poll(now + S + 3 * S), None);
        assert_eq!(liveness.poll(now + S + 4 * S), Some(LivenessEvent::Suspect));
    }

    #[test]
    fn an_unasked_pong_changes_nothing_but_the_strikes() {
        let (mut liveness, now) = start();
        let nonce = ping(&mut liveness, now);
        assert_eq!(liveness.handle_pong(nonce + 1, now + S / 2), None);
        assert_eq!(liveness.rtt(), None);
        assert!(liveness.handle_pong(nonce, now + S / 4).is_some());
        assert_eq!(liveness.handle_pong(nonce, now + S / 2), None);
        assert_eq!(liveness.rtt(), Some(S / 4));
        assert_eq!(liveness.strikes, 2);
    }

    #[test]
    fn our_own_pause_is_nobodys_fault() {
        let (mut liveness, now) = start();
        ping(&mut liveness, now);
        liveness.handle_pause(60 * S, now + 60 * S);
        assert_eq!(liveness.poll(now + 60 * S), None);
        assert_eq!(liveness.poll(now + 61 * S), Some(LivenessEvent::Suspect));
    }

    #[test]
    fn the_next_timeout_is_when_something_happens() {
        let (mut liveness, mut now) = start();
        let mut seen = Vec::new();
        while seen.last() != Some(&LivenessEvent::Dead) {
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

    /// Something in flight; `acked` bytes got through, and the last `timeouts` tries did not.
    fn in_flight(acked: u64, timeouts: u8) -> KernelSample {
        KernelSample {
            unacked: 10,
            retransmits: timeouts,
            backoff: timeouts,
            bytes_acked: Some(acked),
            snd_wnd: Some(65_536),
            ..KernelSample::default()
        }
    }

    /// A connection over which a ping was answered 10 ms after it was opened.
    fn proven() -> (Liveness, Instant) {
        let (mut liveness, now) = start();
        let nonce = ping(&mut liveness, now);
        let now = now + S / 100;
        liveness.handle_received(now);
        assert!(liveness.handle_pong(nonce, now).is_some());
        (liveness, now)
    }

    /// Polls once, with a byte from the peer just before.
    fn hear(liveness: &mut Liveness, now: Instant) -> Option<LivenessEvent> {
        liveness.handle_received(now);
        match liveness.poll(now) {
            Some(LivenessEvent::Ping(nonce)) => {
                assert!(liveness.handle_pong(nonce, now + S / 1000).is_some());
                liveness.poll(now)
            }
            other => other,
        }
    }

    #[test]
    fn a_hole_makes_suspect_although_bytes_arrive() {
        let (mut liveness, start) = proven();
        let mut suspect = None;
        for tick in 1..100 {
            let now = start + tick * S / 10;
            // The kernel tries after 200 ms, doubling.
            let timeouts = (0..9).filter(|n| tick >= 2 << n).count() as u8;
            liveness.handle_kernel(&in_flight(5000, timeouts), now);
            match hear(&mut liveness, now) {
                Some(LivenessEvent::Suspect) => suspect = Some(tick),
                None => {}
                other => panic!("{other:?}"),
            }
        }
        // `suspect_after` is a second, counted from the first sample.
        assert_eq!(suspect, Some(11));
        let now = start + 10 * S;
        liveness.handle_kernel(&in_flight(6000, 0), now);
        assert_eq!(hear(&mut liveness, now), Some(LivenessEvent::Recovered));
    }

    #[test]
    fn a_hole_that_falls_silent_recovers_by_both_only() {
        let (mut liveness, start) = proven();
        liveness.handle_data_sent(start);
        liveness.handle_kernel(&in_flight(5000, 0), start);
        let now = start + 2 * S;
        liveness.handle_kernel(&in_flight(5000, 3), now);
        assert_eq!(liveness.poll(now), Some(LivenessEvent::Suspect));
        ping(&mut liveness, now);
        assert_eq!(liveness.poll(now), None);
        liveness.handle_received(now + S);
        assert_eq!(liveness.poll(now + S), None, "the hole is still there");
        liveness.handle_kernel(&in_flight(5001, 0), now + S);
        assert_eq!(liveness.poll(now + S), Some(LivenessEvent::Recovered));
    }

    #[test]
    fn one_timeout_or_a_short_stall_is_no_hole() {
        let (mut liveness, start) = proven();
        for tick in 0..200 {
            let now = start + tick * S / 10;
            // Every 0.9 s something gets through; or, later, never more than one timeout.
            let sample = if tick < 100 { in_flight(u64::from(tick / 9), 3) } else { in_flight(100, 1) };
            liveness.handle_kernel(&sample, now);
            assert_eq!(hear(&mut liveness, now), None, "tick {tick}");
        }
    }

    #[test]
    fn a_slow_saturated_path_is_no_hole() {
        let (mut liveness, start) = proven();
        for tick in 0..600u32 {
            let now = start + tick * S / 2;
            // 20 KB/s, and the queue's growth fires a timer in vain now and then.
            liveness.handle_kernel(&in_flight(u64::from(tick) * 10_000, u8::from(tick % 7 == 0) * 2), now);
            assert_eq!(hear(&mut liveness, now), None, "tick {tick}");
        }
    }

    #[test]
    fn a_peer_that_does_not_read_is_no_hole() {
        // Closed; shrunk by the peer to less than was in flight; closed, by a kernel that does not tell.
        for (unacked, window) in [(0, Some(0)), (3, Some(0)), (0, None)] {
            let (mut liveness, start) = proven();
            for tick in 0..600 {
                let now = start + tick * S / 2;
                // The kernel probes the window, less and less often.
                let sample = KernelSample { unacked, backoff: 9, snd_wnd: window, ..in_flight(5000, 0) };
                liveness.handle_kernel(&sample, now);
                assert_eq!(hear(&mut liveness, now), None, "{unacked} {window:?}, tick {tick}");
            }
        }
    }

    #[test]
    fn our_own_pause_makes_no_hole() {
        let (mut liveness, start) = proven();
        liveness.handle_kernel(&in_flight(5000, 0), start);
        let now = start + 60 * S;
        liveness.handle_pause(60 * S, now);
        liveness.handle_kernel(&in_flight(5000, 2), now);
        assert_eq!(hear(&mut liveness, now), None);
    }

    #[test]
    fn a_kernel_that_reports_too_little_makes_no_connection_suspect() {
        let (mut liveness, start) = proven();
        for tick in 0..100 {
            let now = start + tick * S / 2;
            let sample = KernelSample { bytes_acked: None, ..in_flight(0, 5) };
            liveness.handle_kernel(&sample, now);
            assert_eq!(hear(&mut liveness, now), None, "tick {tick}");
        }
    }

    #[test]
    fn the_silence_before_an_unanswered_question_is_known() {
        let (mut liveness, start) = proven();
        let now = start + 7 * S;
        liveness.handle_data_sent(now);
        liveness.handle_data_sent(now + S / 2);
        let failed = |liveness: &Liveness| liveness.silences(Ending::Failed, now + S).deadly;
        let silences = |liveness: &Liveness| liveness.silences(Ending::Deliberate, now + S);
        assert_eq!(silences(&liveness).deadly, None, "not overdue yet");
        assert_eq!(failed(&liveness), Some(7 * S), "reset at its first use");
        assert_eq!(liveness.poll(now + S), Some(LivenessEvent::Suspect));
        assert_eq!(silences(&liveness).deadly, Some(7 * S));
        assert_eq!(silences(&liveness).outlived, Some(Duration::ZERO));

        liveness.handle_received(now + 2 * S);
        assert_eq!(liveness.poll(now + 2 * S), Some(LivenessEvent::Recovered));
        assert_eq!(failed(&liveness), None);
        assert_eq!(silences(&liveness).outlived, Some(7 * S));
    }

    #[test]
    fn sending_ends_the_silence_too() {
        let (mut liveness, start) = proven();
        liveness.handle_sent(start + 6 * S);
        liveness.handle_data_sent(start + 7 * S);
        assert_eq!(liveness.silences(Ending::Failed, start + 7 * S).deadly, Some(S));
    }

    #[test]
    fn a_silence_that_the_peer_ends_was_outlived() {
        let (mut liveness, start) = proven();
        liveness.handle_received(start + 9 * S);
        liveness.handle_ping(start + 9 * S);
        liveness.handle_sent(start + 9 * S);
        ping(&mut liveness, start + 10 * S);
        assert_eq!(liveness.silences(Ending::Failed, start + 11 * S).outlived, Some(9 * S));
    }

    #[test]
    fn a_peer_that_pings_breaks_the_silence_of_a_path_that_works() {
        let (mut liveness, start) = proven();
        for seconds in [0, 4, 8] {
            liveness.handle_received(start + seconds * S);
            liveness.handle_ping(start + seconds * S);
        }
        let nonce = ping(&mut liveness, start + 10 * S);
        liveness.handle_received(start + 10 * S + S / 10);
        assert!(liveness.handle_pong(nonce, start + 10 * S + S / 10).is_some());
        // Its pings of 12, 16 and 20 s are lost.
        ping(&mut liveness, start + 20 * S);
        assert_eq!(liveness.poll(start + 21 * S), Some(LivenessEvent::Suspect));
        let silences = liveness.silences(Ending::Deliberate, start + 22 * S);
        assert_eq!((silences.outlived, silences.deadly), (Some(4 * S), Some(S * 19 / 10)));
    }

    #[test]
    fn the_silence_at_which_it_was_cut_is_known() {
        let (mut liveness, start) = proven();
        let cut = |liveness: &Liveness, ending, at: Duration| liveness.silences(ending, start + at).cut;
        for ending in [Ending::Closed, Ending::Failed] {
            assert_eq!(cut(&liveness, ending, 5 * S), Some(5 * S));
        }
        assert_eq!(cut(&liveness, Ending::Deliberate, 5 * S), None);
        // A question that was on its way meanwhile broke no silence.
        liveness.handle_data_sent(start + 5 * S);
        assert_eq!(cut(&liveness, Ending::Closed, 5 * S + S / 2), Some(5 * S));
        assert_eq!(liveness.poll(start + 6 * S), Some(LivenessEvent::Suspect));
        assert_eq!(cut(&liveness, Ending::Closed, 7 * S), None, "it was dead before it ended");
    }

    #[test]
    fn a_pause_teaches_nothing() {
        let (mut liveness, start) = proven();
        liveness.handle_pause(60 * S, start + 60 * S);
        liveness.handle_data_sent(start + 61 * S);
        assert_eq!(liveness.silences(Ending::Failed, start + 70 * S).deadly, None);

        let (mut liveness, start) = proven();
        liveness.handle_data_sent(start + 7 * S);
        liveness.handle_pause(60 * S, start + 68 * S);
        assert_eq!(liveness.silences(Ending::Failed, start + 70 * S).deadly, None);
    }

    #[test]
    fn a_shorter_interval_holds_at_once() {
        let (mut liveness, start) = proven();
        liveness.set_ping_interval(2 * S, start);
        assert_eq!(liveness.next_timeout(), start + 2 * S);
        ping(&mut liveness, start + 2 * S);
    }
}
