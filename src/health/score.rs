//! How well a connection does: a number from 0 (replace it) to 1 (nothing to complain about).
//!
//! ```text
//! score = answers x retransmission x path x max(round_trip x writer x window, 0.65)
//! ```
//!
//! Each part is between 1 (well) and a floor, which is the most harm that it can do alone. The last three
//! tell of load, which a new connection would not cure: even together they leave 0.65, so that a
//! connection that is merely busy is never replaced. Nothing needs a timer: parts are brought up to date
//! when they are read.
//!
//! | part | computed from | formula | floor | half-life |
//! |---|---|---|---|---|
//! | `answers` | pings and data answered in time (good) or overdue (bad), the last 6 of them at most | (1 + good) / (1 + good + bad) | 0 | 10 s |
//! | `retransmission` | r: retransmitted share of the segments sent; counts from 10 segments on, of 30 at least | 1 / (1 + (r / 5.7 %)^1.5) | 0 | 1.5 s |
//! | `path` | n: timeouts in a row of data in flight of which nothing is acknowledged | 1 / (1 + (n / 2)^2) | 0 | none: whole again with the next acknowledgement |
//! | `round_trip` | smoothed round trip; base: the least seen, which doubles in 10 min unless seen again | 0.7 + 0.3 x min(1, 2 (base + 5 ms) / rtt) | 0.7 | the last 4 samples or so |
//! | `writer` | share of the time that the writer stood blocked | 1 - 0.35 x share | 0.65 | 10 s |
//! | `window` | share of the time that the peer's window was closed and data waited | 1 - 0.3 x share | 0.7 | 10 s |
//!
//! Retransmissions while a queue on the way is full of this connection's own data are not counted: at least
//! 10 segments are in flight at one of two looks, and the kernel's round trip is above 2 (least + 5 ms), or
//! it is above 2 least + 200 ms whatever is in flight. A narrow path that is
//! saturated loses up to a third of what a connection sends at its start (measured, 8 Mbit/s). Losses are
//! found out a timeout later, and hit every connection by that path: neither they nor timeouts count for 2 s
//! after a look at which this connection or another one by the same path filled the queue, and data moved
//! through it; the own timeouts, and answers that are overdue, are excused by another connection only.
//!
//! Retransmissions are not counted either while the peer's receive window holds the sender up for more than
//! half of the time: a receiver whose buffer is full drops segments, and is asked again and again for room
//! (measured: 5 to 10 % of the segments). It reads slowly, by whatever connection. Losses of such a path show
//! in `answers` and `path` alone.
//!
//! The short half-life of `retransmission` is what lets it see a path go bad within seconds; a path that
//! loses a few segments after a pause stays below the least number of segments.
//!
//! Examples, as the test computes them:
//!
//! | case | score |
//! |---|---|
//! | everything answered, nothing retransmitted | 1.00 |
//! | one answer overdue on a connection that answers every ten seconds | 0.75 |
//! | five overdue within as many seconds | 0.37 |
//! | 1 % retransmitted | 0.93 |
//! | 5 % retransmitted | 0.55 |
//! | 15 % retransmitted | 0.19 |
//! | in flight, one timeout | 0.80 |
//! | in flight, three timeouts in a row | 0.31 |
//! | round trip ten times the least | 0.77 |
//! | writer blocked all the time | 0.65 |
//! | peer's window closed all the time | 0.70 |
//! | round trip 2,000 times the least, writer blocked, window closed: busy | 0.65 |
//! | busy, and 5 % retransmitted | 0.36 |
//!
//! # Poor
//! Below 0.4 for 1.5 s it is *poor*, above 0.6 it is well again. 1.5 s, because the burst of losses that ends
//! the slow start of a healthy connection is over sooner (a test computes it), and because a loss that
//! rises from 0 to 30 % in 20 s is found before it reaches 15 %. The first 3 s of a connection do not count:
//! its first segments go out before anything is known of the path's rate. [`ConnScore::poll`] is to be called
//! after each kernel sample, twice a second while data flows.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::decay::{Decaying, left};
use super::kernel::{KernelSample, Stall};

/// Below this a connection is poor.
pub(crate) const POOR: f64 = 0.4;
/// Above this it is well again.
pub(crate) const WELL: f64 = 0.6;
const POOR_AFTER: Duration = Duration::from_millis(1500);
/// A connection begins with ten segments at once (RFC 6928), which nobody has measured the path for. On a
/// path of 16 kbit/s most of them are lost, and the score is low for up to 2.5 s (measured).
const START: Duration = Duration::from_secs(3);

const HALF_LIFE: Duration = Duration::from_secs(10);
const LOSS_HALF_LIFE: Duration = Duration::from_millis(1500);
const BASE_DOUBLES_IN: Duration = Duration::from_secs(600);

/// The least score under load alone.
const LOAD_FLOOR: f64 = 0.65;
const ROUND_TRIP_FLOOR: f64 = 0.7;
const WRITER_FLOOR: f64 = LOAD_FLOOR;
const WINDOW_FLOOR: f64 = 0.7;

/// So many answers count: the next one must weigh something on a busy connection too.
const ANSWERS: f64 = 6.0;
/// Round trips differ by so much, in seconds, for reasons that are nobody's fault: threads to be scheduled.
const ROUND_TRIP_SLACK: f64 = 0.005;
/// Fewer segments are too few to judge by.
const FEWEST_SEGMENTS: f64 = 10.0;
/// One loss among few segments is no share worth speaking of.
const LEAST_SEGMENTS: f64 = 30.0;
/// With fewer segments in flight a long round trip may be an acknowledgement that waits for company (RFC
/// 1122, 4.2.3.2), and not a queue.
const FULL_FLIGHT: u32 = 10;
/// Linux waits for at most 200 ms before it acknowledges.
const LONGEST_DELAYED_ACK_MS: f64 = 200.0;
/// The share of retransmitted segments that halves the score.
const HALVING_LOSS: f64 = 0.057;
/// A lost segment of a full queue is found out so much later.
const FULL_LASTS: Duration = Duration::from_secs(2);
/// Samples that lie further apart say nothing of the time between: nobody looked.
const LONGEST_GAP: Duration = Duration::from_secs(5);

/// The parts of a connection's score. Each part is 1 when all is well, and between 0 and 1 otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ScoreParts {
    /// Whether pings and data were answered in time.
    pub answers: f64,
    /// How few segments had to be sent again: 0.93 at 1 %, 0.55 at 5 %, 0.19 at 15 %.
    pub retransmission: f64,
    /// Whether the peer's kernel acknowledges what is in flight: halved by two timeouts in a row.
    pub path: f64,
    /// The round trip against the least that was seen. At least 0.7.
    pub round_trip: f64,
    /// How little of the time writes stood blocked. At least 0.65.
    pub writer: f64,
    /// How little of the time the peer's receive window was closed to waiting data. At least 0.7.
    pub window: f64,
}

impl ScoreParts {
    /// The score: the product of the parts, of which those that tell of load (`round_trip`, `writer`,
    /// `window`) leave 0.65 at least.
    pub fn value(&self) -> f64 {
        let load = (self.round_trip * self.writer * self.window).max(LOAD_FLOOR);
        self.answers * self.retransmission * self.path * load
    }
}

/// A change that [`ConnScore::poll`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Poor,
    Well,
}

#[derive(Debug)]
pub(crate) struct ConnScore {
    opened: Instant,
    good: Decaying,
    bad: Decaying,
    sent: Decaying,
    retransmitted: Decaying,
    stall: Stall,
    /// Smoothed, in seconds.
    rtt: Option<f64>,
    /// The least of late, in seconds, and when it was.
    base: Option<(f64, Instant)>,
    blocked: Decaying,
    closed: Decaying,
    last: Option<(KernelSample, Instant)>,
    /// When this connection last filled a queue on the way, through which its data moved.
    filled: Option<Instant>,
    /// Another connection by the same path fills the queue.
    crowded: bool,
    low_since: Option<Instant>,
    poor: bool,
}

impl ConnScore {
    pub(crate) fn new(now: Instant) -> Self {
        ConnScore {
            opened: now,
            good: Decaying::new(HALF_LIFE, now),
            bad: Decaying::new(HALF_LIFE, now),
            sent: Decaying::new(LOSS_HALF_LIFE, now),
            retransmitted: Decaying::new(LOSS_HALF_LIFE, now),
            stall: Stall::default(),
            rtt: None,
            base: None,
            blocked: Decaying::new(HALF_LIFE, now),
            closed: Decaying::new(HALF_LIFE, now),
            last: None,
            filled: None,
            crowded: false,
            low_since: None,
            poor: false,
        }
    }

    /// A ping, data, or a request was answered before it was overdue.
    pub(crate) fn handle_answer(&mut self, now: Instant) {
        self.good.add(1.0, now);
        self.keep_few_answers(now);
    }

    /// An answer is overdue.
    pub(crate) fn handle_overdue(&mut self, now: Instant) {
        // It may wait in the queue that another connection fills.
        if self.crowded {
            return;
        }
        self.bad.add(1.0, now);
        self.keep_few_answers(now);
    }

    /// A ping took this long to be answered.
    pub(crate) fn handle_rtt(&mut self, sample: Duration, now: Instant) {
        let sample = sample.as_secs_f64();
        // A quarter of the new sample: pings are rare.
        self.rtt = Some(self.rtt.map_or(sample, |rtt| rtt * 0.75 + sample * 0.25));
        let base = self.base(now).map_or(sample, |base| base.min(sample));
        self.base = Some((base, now));
    }

    /// The least that a ping took of late.
    pub(crate) fn least_rtt(&self) -> Option<Duration> {
        self.base.and_then(|(base, _)| Duration::try_from_secs_f64(base).ok())
    }

    /// The writer stood blocked for this long, until now.
    pub(crate) fn handle_write_blocked(&mut self, time: Duration, now: Instant) {
        self.blocked.add(time.min(LONGEST_GAP).as_secs_f64(), now);
    }

    /// Whether another connection by the same path fills a queue there. To be set before each sample.
    pub(crate) fn set_crowded(&mut self, crowded: bool) {
        self.crowded = crowded;
    }

    /// Whether this connection filled a queue on the way of late.
    pub(crate) fn filled_of_late(&self, now: Instant) -> bool {
        self.filled.is_some_and(|at| now.saturating_duration_since(at) < FULL_LASTS)
    }

    /// A sample of the kernel, twice a second while there is traffic.
    pub(crate) fn handle_kernel(&mut self, sample: &KernelSample, now: Instant) {
        self.stall.handle_kernel(sample, now);
        if let Some((last, at)) = self.last.replace((sample.clone(), now)) {
            let passed = now.saturating_duration_since(at);
            let fills = fills_a_queue(&last, sample);
            if fills && sample.bytes_acked > last.bytes_acked {
                self.filled = Some(now);
            }
            if let (Some(sent), Some(before)) = (sample.data_segs_out, last.data_segs_out) {
                let again = sample.total_retrans.saturating_sub(last.total_retrans);
                let sent = sent.saturating_sub(before);
                let of_load = fills || self.crowded || self.filled_of_late(now);
                let (sent, again) = if of_load || is_held_by_window(&last, sample, passed) {
                    (sent.saturating_sub(again), 0)
                } else {
                    (sent, again)
                };
                self.sent.add(f64::from(sent), now);
                self.retransmitted.add(f64::from(again), now);
            }
            if is_closed(&last, sample) {
                self.closed.add(passed.min(LONGEST_GAP).as_secs_f64(), now);
            }
        }
    }

    /// This process stood still for `gap`.
    pub(crate) fn handle_pause(&mut self, gap: Duration) {
        self.stall.handle_pause(gap);
        self.low_since = None;
    }

    pub(crate) fn parts(&self, now: Instant) -> ScoreParts {
        let (good, bad) = (self.good.value(now), self.bad.value(now));
        let share = |sum: &Decaying| (sum.value(now) / sum.whole(self.opened, 1.0, now)).min(1.0);
        ScoreParts {
            answers: (1.0 + good) / (1.0 + good + bad),
            retransmission: self.retransmission(now),
            path: 1.0 / (1.0 + (f64::from(self.timeouts()) / 2.0).powi(2)),
            round_trip: self.round_trip(now),
            writer: 1.0 - (1.0 - WRITER_FLOOR) * share(&self.blocked),
            window: 1.0 - (1.0 - WINDOW_FLOOR) * share(&self.closed),
        }
    }

    /// The last sample.
    pub(crate) fn kernel(&self) -> Option<&KernelSample> {
        self.last.as_ref().map(|(sample, _)| sample)
    }

    pub(crate) fn value(&self, now: Instant) -> f64 {
        self.parts(now).value()
    }

    /// To be called after each kernel sample.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<Change> {
        let value = self.value(now);
        if value >= POOR {
            self.low_since = None;
            let well = self.poor && value > WELL;
            self.poor &= !well;
            return well.then_some(Change::Well);
        }
        let since = *self.low_since.get_or_insert(now.max(self.opened + START));
        let becomes = !self.poor && now.saturating_duration_since(since) >= POOR_AFTER;
        self.poor |= becomes;
        becomes.then_some(Change::Poor)
    }

    fn timeouts(&self) -> u8 {
        if self.crowded { 0 } else { self.stall.timeouts() }
    }

    fn keep_few_answers(&mut self, now: Instant) {
        let factor = ANSWERS / (self.good.value(now) + self.bad.value(now)).max(ANSWERS);
        self.good.scale(factor);
        self.bad.scale(factor);
    }

    fn retransmission(&self, now: Instant) -> f64 {
        let sent = self.sent.value(now);
        if sent < FEWEST_SEGMENTS {
            return 1.0;
        }
        let share = (self.retransmitted.value(now) / sent.max(LEAST_SEGMENTS)).min(1.0);
        1.0 / (1.0 + (share / HALVING_LOSS).powf(1.5))
    }

    fn round_trip(&self, now: Instant) -> f64 {
        let (Some(rtt), Some(base)) = (self.rtt, self.base(now)) else { return 1.0 };
        let well = 2.0 * (base + ROUND_TRIP_SLACK);
        let share = if rtt <= well { 1.0 } else { well / rtt };
        ROUND_TRIP_FLOOR + (1.0 - ROUND_TRIP_FLOOR) * share
    }

    fn base(&self, now: Instant) -> Option<f64> {
        self.base.map(|(base, at)| base / left(now.saturating_duration_since(at), BASE_DOUBLES_IN))
    }
}

/// Whether what was lost from one sample to the next was lost for the load: so much was in flight that a
/// queue on the way is full of it. On a path that loses for other reasons congestion control keeps little in
/// flight.
fn fills_a_queue(last: &KernelSample, sample: &KernelSample) -> bool {
    let queued = |least| sample.rtt_ms > 2.0 * (least + ROUND_TRIP_SLACK * 1000.0);
    // On a slow link a queue is a few segments. No acknowledgement waits that long for company.
    let stands = sample.min_rtt_ms.is_some_and(|least| sample.rtt_ms > 2.0 * least + LONGEST_DELAYED_ACK_MS);
    if stands {
        return true;
    }
    // One that has just run out of data has little in flight at that moment.
    last.unacked.max(sample.unacked) >= FULL_FLIGHT && sample.min_rtt_ms.is_some_and(queued)
}

/// Whether the peer's receive window was what held data up for most of the time from one sample to the next.
fn is_held_by_window(last: &KernelSample, sample: &KernelSample, passed: Duration) -> bool {
    let limited = sample.rwnd_limited_ms.zip(last.rwnd_limited_ms).map(|(now, before)| now - before);
    limited.is_some_and(|limited| limited > passed.as_secs_f64() * 1000.0 / 2.0)
}

/// Whether data waited from one sample to the next because the peer's window was closed, or too small
/// for a segment.
fn is_closed(last: &KernelSample, sample: &KernelSample) -> bool {
    let waits = |sample: &KernelSample| sample.notsent_bytes.is_some_and(|bytes| bytes > 0);
    let held = |sample: &KernelSample| sample.unacked == 0 || sample.snd_wnd == Some(0);
    let still = sample.bytes_acked.is_some() && sample.bytes_acked == last.bytes_acked;
    waits(last) && waits(sample) && held(last) && held(sample) && still
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Tests need some instant to start from; they never read the clock again.
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: Duration = Duration::from_secs(1);
    const MS: Duration = Duration::from_millis(1);

    /// A sample of a kernel that has all statistics.
    fn sample(sent: u32, retransmitted: u32, acked: u64) -> KernelSample {
        KernelSample {
            bytes_acked: Some(acked),
            data_segs_out: Some(sent),
            total_retrans: retransmitted,
            notsent_bytes: Some(0),
            snd_wnd: Some(65_536),
            ..KernelSample::default()
        }
    }

    fn stalled(timeouts: u8) -> KernelSample {
        KernelSample { unacked: 3, retransmits: timeouts, backoff: timeouts, ..sample(100, 3, 5000) }
    }

    fn shut() -> KernelSample {
        KernelSample { notsent_bytes: Some(16_384), snd_wnd: Some(0), ..sample(100, 0, 5000) }
    }

    /// Ten pings, ten seconds apart, all answered.
    fn healthy() -> (ConnScore, Instant) {
        let mut now = Instant::now();
        let mut score = ConnScore::new(now);
        for _ in 0..10 {
            now += 10 * S;
            score.handle_answer(now);
            score.handle_rtt(MS, now);
        }
        (score, now)
    }

    fn lossy(percent: u32) -> (ConnScore, Instant) {
        let (mut score, mut now) = healthy();
        for tick in 0..100 {
            now += S / 2;
            score.handle_kernel(&sample(tick * 1000, tick * percent * 10, u64::from(tick)), now);
        }
        (score, now)
    }

    /// As bad as load can get.
    fn load(mut score: ConnScore, mut now: Instant, upto: &mut u32) -> (ConnScore, Instant) {
        for _ in 0..400 {
            now += S / 2;
            *upto += 1;
            score.handle_rtt(2000 * MS, now);
            score.handle_write_blocked(S / 2, now);
            score.handle_kernel(&shut(), now);
        }
        (score, now)
    }

    #[test]
    fn the_examples_of_the_documentation() {
        let five = |mut score: ConnScore, mut now: Instant| {
            for _ in 0..5 {
                score.handle_overdue(now);
                now += S;
            }
            score.value(now - S)
        };
        let with = |change: &dyn Fn(&mut ConnScore, Instant)| {
            let (mut score, now) = healthy();
            change(&mut score, now);
            score.value(now)
        };
        let steadily = |change: &dyn Fn(&mut ConnScore, Instant)| {
            let (mut score, mut now) = healthy();
            for _ in 0..400 {
                now += S / 2;
                change(&mut score, now);
            }
            score.value(now)
        };
        let busy = |score, now| load(score, now, &mut 0);
        let (score, now) = healthy();
        let (lossy_score, lossy_now) = lossy(5);
        let (busy_score, busy_now) = busy(score, now);
        // Loss on top of load: the load's samples have none in flight, so the loss comes from the parts.
        let both = ScoreParts {
            retransmission: lossy_score.parts(lossy_now).retransmission,
            ..busy_score.parts(busy_now)
        };
        let (score, now) = healthy();
        let (one, three, fifteen) = (lossy(1), lossy(5), lossy(15));
        let rows = [
            ("everything answered, nothing retransmitted", with(&|_, _| {})),
            (
                "one answer overdue on a connection that answers every ten seconds",
                with(&|score, now| score.handle_overdue(now)),
            ),
            ("five overdue within as many seconds", five(score, now)),
            ("1 % retransmitted", one.0.value(one.1)),
            ("5 % retransmitted", three.0.value(three.1)),
            ("15 % retransmitted", fifteen.0.value(fifteen.1)),
            ("in flight, one timeout", with(&|score, now| score.handle_kernel(&stalled(1), now))),
            ("in flight, three timeouts in a row", with(&|score, now| score.handle_kernel(&stalled(3), now))),
            ("round trip ten times the least", {
                let now = Instant::now();
                let mut score = ConnScore::new(now);
                score.handle_rtt(50 * MS, now);
                (0..40).for_each(|_| score.handle_rtt(500 * MS, now));
                score.value(now)
            }),
            ("writer blocked all the time", steadily(&|score, now| score.handle_write_blocked(S / 2, now))),
            ("peer's window closed all the time", steadily(&|score, now| score.handle_kernel(&shut(), now))),
            (
                "round trip 2,000 times the least, writer blocked, window closed: busy",
                busy_score.value(busy_now),
            ),
            ("busy, and 5 % retransmitted", both.value()),
        ];
        let page = include_str!("score.rs");
        for (case, value) in rows {
            let row = format!("//! | {case} | {value:.2} |");
            assert!(page.contains(&row), "the page lacks: {row}");
        }
    }

    #[test]
    fn every_part_recovers_when_its_cause_is_gone() {
        let (score, now) = healthy();
        let (mut score, mut now) = load(score, now, &mut 0);
        (0..5).for_each(|_| score.handle_overdue(now));
        score.handle_kernel(&stalled(3), now);
        assert!(score.value(now) < 0.1);
        // One acknowledgement, and the path is whole.
        score.handle_kernel(&KernelSample { unacked: 3, ..sample(103, 3, 5001) }, now + MS);
        assert!(score.parts(now + MS).path > 0.999);
        for tick in 0..60 {
            now += S;
            score.handle_rtt(MS, now);
            score.handle_answer(now);
            score.handle_kernel(&sample(103 + tick, 3, 6000 + u64::from(tick)), now);
        }
        assert!(score.value(now) > 0.95, "{:?}", score.parts(now));
    }

    #[test]
    fn many_answers_do_not_outweigh_the_next_ones() {
        let (mut score, now) = healthy();
        (0..10_000).for_each(|_| score.handle_answer(now));
        (0..10).for_each(|_| score.handle_overdue(now));
        assert!(score.value(now) < POOR, "{}", score.value(now));
    }

    #[test]
    fn an_answer_that_waits_in_the_queue_of_another_connection_does_not_count() {
        for crowded in [true, false] {
            let (mut score, now) = healthy();
            score.set_crowded(crowded);
            (0..5).for_each(|_| score.handle_overdue(now));
            assert_eq!(score.value(now) > POOR, crowded, "{}", score.value(now));
        }
    }

    #[test]
    fn few_segments_say_nothing() {
        let (mut score, now) = healthy();
        score.handle_kernel(&sample(0, 0, 0), now);
        score.handle_kernel(&sample(9, 5, 100), now + S);
        assert!(score.parts(now + S).retransmission > 0.999);
    }

    #[test]
    fn a_far_path_with_jitter_is_never_poor() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut now = Instant::now();
        let mut score = ConnScore::new(now);
        let (mut sent, mut again) = (0, 0);
        let mut least = 1.0f64;
        for half in 0..7200 {
            now += S / 2;
            if half % 20 == 0 {
                score.handle_rtt(Duration::from_millis(random.u64(150..450)), now);
                score.handle_answer(now);
            }
            sent += 10;
            again += u32::from(random.u8(..) < 13); // 0.5 % of the segments.
            score.handle_kernel(&sample(sent, again, u64::from(sent)), now);
            least = least.min(score.value(now));
            assert_eq!(score.poll(now), None, "after {half} half seconds: {:?}", score.parts(now));
        }
        assert!(least > POOR, "{least}");
    }

    /// Samples twice a second for 20 s, of a connection that sends 700 segments a second and loses a third of
    /// them, with `unacked` in flight and a round trip of `rtt` ms where 0.01 ms is the least. True if it
    /// was ever poor.
    fn poor_by_losses(unacked: u32, rtt: f64) -> bool {
        let (mut score, mut now) = healthy();
        (1..40).any(|tick| {
            now += S / 2;
            let losing = sample(tick * 350, tick * 120, u64::from(tick) * 300_000);
            let losing = KernelSample { unacked, rtt_ms: rtt, min_rtt_ms: Some(0.01), ..losing };
            score.handle_kernel(&losing, now);
            score.poll(now) == Some(Change::Poor)
        })
    }

    #[test]
    fn losses_in_a_queue_full_of_own_data_do_not_degrade_a_connection() {
        assert!(!poor_by_losses(24, 46.0));
        assert!(poor_by_losses(24, 9.0), "no queue");
        assert!(poor_by_losses(6, 46.0), "too little in flight for a queue");
    }

    /// As measured behind a receiver with a buffer of 128 KiB that reads 1 MB/s, with three times the losses.
    #[test]
    fn segments_sent_again_to_a_full_receiver_do_not_degrade_a_connection() {
        let poor = |limited: Option<f64>| {
            let (mut score, mut now) = healthy();
            [(198, 9, 2964.0), (230, 10, 3460.0), (251, 12, 3960.0), (276, 15, 4460.0), (300, 19, 4960.0)]
                .into_iter()
                .any(|(sent, again, rwnd_limited_ms)| {
                    now += S / 2;
                    score.handle_write_blocked(S / 2, now);
                    let rwnd_limited_ms = limited.map(|share| rwnd_limited_ms * share);
                    let (acked, again) = (u64::from(sent), again * 3);
                    let seen = KernelSample { rwnd_limited_ms, ..sample(sent, again, acked) };
                    score.handle_kernel(&seen, now);
                    score.poll(now) == Some(Change::Poor)
                })
        };
        assert!(!poor(Some(1.0)));
        assert!(poor(Some(0.4)), "the window was open for most of the time");
        assert!(poor(None), "a kernel that does not say");
    }

    /// As measured at 16 kbit/s: the burst of the first ten segments.
    #[test]
    fn the_first_segments_are_forgiven() {
        let poor_after = |age: Duration| {
            let opened = Instant::now();
            let (mut score, begin) = (ConnScore::new(opened), opened + age);
            score.handle_kernel(&sample(0, 0, 0), begin);
            (1..=5).any(|half| {
                let now = begin + S / 2 * half;
                score.handle_kernel(&sample(20 + half * 4, 10 + half * 2, u64::from(half)), now);
                score.poll(now) == Some(Change::Poor)
            })
        };
        assert!(!poor_after(Duration::ZERO));
        assert!(poor_after(10 * S));
    }

    #[test]
    fn a_loss_is_found_out_after_the_queue_was_full() {
        let lost_after = |pause: Duration| {
            let (mut score, now) = healthy();
            let full = |sent, again| KernelSample {
                unacked: 24,
                rtt_ms: 400.0,
                min_rtt_ms: Some(20.0),
                ..sample(sent, again, u64::from(sent))
            };
            score.handle_kernel(&full(100, 0), now);
            score.handle_kernel(&full(200, 0), now + S / 2);
            let found = now + S / 2 + pause;
            let short = KernelSample { unacked: 2, rtt_ms: 30.0, ..full(260, 30) };
            // The look between them: the queue is gone.
            score.handle_kernel(&KernelSample { rtt_ms: 30.0, ..full(201, 0) }, found - S / 4);
            score.handle_kernel(&short, found);
            score.parts(found).retransmission
        };
        assert!(lost_after(S) > 0.99);
        assert!(lost_after(3 * S) < 0.5);
    }

    /// As measured on a saturated path of 8 Mbit/s: the burst at the start, seen once when all was sent.
    #[test]
    fn the_start_on_a_narrow_path_is_forgiven() {
        let mut now = Instant::now();
        let mut score = ConnScore::new(now);
        let rounds = [(1, 0.01), (110, 88.8), (3, 64.2), (42, 72.1), (78, 63.1), (12, 46.6), (20, 33.0)];
        let counts = [(4, 0), (441, 77), (881, 202), (1106, 281), (1473, 290), (1729, 306), (2040, 306)];
        for ((unacked, rtt_ms), (sent, again)) in rounds.into_iter().zip(counts) {
            let seen = KernelSample { unacked, rtt_ms, min_rtt_ms: Some(0.01), ..sample(sent, again, 1) };
            score.handle_kernel(&seen, now);
            assert_eq!(score.poll(now), None);
            now += S / 2;
        }
    }

    #[test]
    fn a_busy_peer_is_never_poor() {
        let mut random = fastrand::Rng::with_seed(2);
        let mut now = Instant::now();
        let mut score = ConnScore::new(now);
        score.handle_rtt(MS, now);
        let (mut sent, mut again, mut acked) = (0u32, 0u32, 0u64);
        let mut least = 1.0f64;
        for step in 0..6000u32 {
            now += S / 10;
            score.handle_write_blocked(80 * MS, now);
            // The queue fills within ten seconds: from 1 ms to 2 s.
            if step % 10 == 0 {
                score.handle_rtt(Duration::from_millis(u64::from(step * 20).clamp(1, 2000)), now);
                score.handle_answer(now);
            }
            if step % 5 == 0 {
                let closed = step % 50 < 15;
                let mut kernel = sample(sent, again, acked);
                if closed {
                    (kernel.notsent_bytes, kernel.snd_wnd) = (Some(16_384), Some(0));
                } else {
                    sent += 345;
                    again += u32::from(random.u8(..) < 128) * 3;
                    acked += 500_000;
                    kernel = KernelSample { unacked: 1400, backoff: 1, ..sample(sent, again, acked) };
                    // The round trip grew faster than the kernel's timer: now and then it fires in vain.
                    kernel.retransmits = u8::from(random.u8(..) < 10);
                    kernel.backoff = kernel.retransmits;
                }
                score.handle_kernel(&kernel, now);
            }
            least = least.min(score.value(now));
            assert_eq!(score.poll(now), None, "after {step} steps: {:?}", score.parts(now));
        }
        assert!(least < 0.66, "the load was none: {least}");
    }

    #[test]
    fn the_losses_that_end_slow_start_do_not_degrade_a_connection() {
        let mut now = Instant::now();
        let mut score = ConnScore::new(now);
        let (mut sent, mut again) = (0, 0);
        score.handle_kernel(&sample(0, 0, 0), now);
        let mut low = false;
        for step in 0..100 {
            // Half of the last flight of 280 is lost and sent again, then 700 segments flow per second.
            (sent, again) = if step == 0 { (560, 140) } else { (sent + 70, again) };
            score.handle_kernel(&sample(sent, again, u64::from(sent)), now);
            low |= score.value(now) < POOR;
            assert_eq!(score.poll(now), None, "after {step} steps: {:?}", score.parts(now));
            now += S / 10;
        }
        assert!(low, "no test of the waiting time");
    }

    #[test]
    fn rising_loss_is_found_before_fifteen_percent() {
        for seed in 0..50 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut now = Instant::now();
            let mut score = ConnScore::new(now);
            let (mut sent, mut again) = (0, 0);
            let mut found = None;
            for half in 0..60 + 40 {
                // A minute of health, then from 0 to 30 % in 20 s.
                let loss = (f64::from(half - 60) / 40.0 * 0.3).max(0.0);
                for _ in 0..200 {
                    sent += 1;
                    again += u32::from(random.f64() < loss);
                }
                now += S / 2;
                score.handle_kernel(&sample(sent, again, u64::from(sent)), now);
                if score.poll(now) == Some(Change::Poor) {
                    found = Some(loss);
                    break;
                }
            }
            let loss = found.expect("found");
            assert!((0.05..0.15).contains(&loss), "seed {seed}: found at {loss}");
        }
    }

    #[test]
    fn poor_is_left_above_the_upper_bound_only() {
        let (mut score, now) = healthy();
        (0..6).for_each(|_| score.handle_overdue(now));
        assert_eq!(score.poll(now), None);
        assert_eq!(score.poll(now + POOR_AFTER - MS), None);
        assert_eq!(score.poll(now + POOR_AFTER), Some(Change::Poor));
        assert!(score.poor);
        let mut at = now + POOR_AFTER;
        while score.value(at) < 0.55 {
            assert_eq!(score.poll(at), None);
            at += S / 10;
        }
        assert!(score.poor);
        while score.poll(at).is_none() {
            at += S / 10;
        }
        assert!(!score.poor && score.value(at) > WELL);
    }

    #[test]
    fn our_own_pause_is_nobodys_fault() {
        let (mut score, now) = healthy();
        (0..6).for_each(|_| score.handle_overdue(now));
        assert_eq!(score.poll(now), None);
        score.handle_pause(3 * S);
        assert_eq!(score.poll(now + 3 * S), None);
    }

    #[derive(Clone, Debug)]
    enum Input {
        Answer,
        Overdue,
        Rtt(u64),
        Blocked(u64),
        Kernel(KernelSample),
    }

    fn kernel() -> impl Strategy<Value = KernelSample> {
        let stats = (any::<u32>(), 0..10u32, any::<u8>(), any::<u8>());
        let optional = prop::option::of(any::<u32>());
        (stats, prop::option::of(0..3u64), optional.clone(), optional.clone(), optional).prop_map(
            |((total_retrans, unacked, retransmits, backoff), acked, segments, notsent, window)| {
                KernelSample {
                    total_retrans,
                    unacked,
                    retransmits,
                    backoff,
                    bytes_acked: acked,
                    data_segs_out: segments,
                    notsent_bytes: notsent,
                    snd_wnd: window,
                    ..KernelSample::default()
                }
            },
        )
    }

    fn input() -> impl Strategy<Value = Input> {
        prop_oneof![
            Just(Input::Answer),
            Just(Input::Overdue),
            any::<u64>().prop_map(Input::Rtt),
            any::<u64>().prop_map(Input::Blocked),
            kernel().prop_map(Input::Kernel),
        ]
    }

    proptest! {
        #[test]
        fn the_floors_hold(inputs in prop::collection::vec((input(), -1000..100_000i64), 0..60)) {
            let start = Instant::now() + Duration::from_secs(3600);
            let (mut now, mut score) = (start, ConnScore::new(start));
            for (input, step) in inputs {
                // A caller's instants may come slightly out of order.
                let size = Duration::from_millis(step.unsigned_abs());
                now = if step < 0 { now - size } else { now + size };
                match input {
                    Input::Answer => score.handle_answer(now),
                    Input::Overdue => score.handle_overdue(now),
                    Input::Rtt(micros) => score.handle_rtt(Duration::from_micros(micros), now),
                    Input::Blocked(micros) => score.handle_write_blocked(Duration::from_micros(micros), now),
                    Input::Kernel(sample) => score.handle_kernel(&sample, now),
                }
                let parts = score.parts(now);
                for (part, floor) in [
                    (parts.answers, 0.0),
                    (parts.retransmission, 0.0),
                    (parts.path, 0.0),
                    (parts.round_trip, 0.7),
                    (parts.writer, 0.65),
                    (parts.window, 0.7),
                ] {
                    // The floors are sums of decimals: a rounding below is none.
                    prop_assert!((floor - 1e-9..=1.0).contains(&part), "{:?}", parts);
                }
                let rest = parts.answers * parts.retransmission * parts.path;
                prop_assert!(parts.value() >= rest * 0.65 && parts.value() <= 1.0, "{:?}", parts);
                score.poll(now);
            }
        }
    }
}
