//! How often to ping a peer: as seldom as configured, and as often as its path needs.
//!
//! A NAT or firewall on the way may forget a flow that was silent for some time. When a connection is found
//! dead at its first use after a silence of t, the interval becomes shorter than t:
//!
//! ```text
//! a deadly silence t:    interval = max(0.6 t, least), if that is shorter
//! for D / 2:             it stays so
//! from then on:          it doubles every D, up to the configured one; then the lesson is forgotten
//!                        D = 1 h, and twice as long after each further lesson, up to 24 h
//! ```
//!
//! So after the first lesson the t that failed is tried again after 74 minutes at the earliest (0.6 x 2^0.74
//! = 1), and where it fails again and again about once a day. Convergence from 10 s: a path that
//! forgets after 5 s costs two connections (6 s, 3.6 s), one that forgets after 12 s none.
//!
//! # What is no lesson
//! - A death after less than half of the present interval: the connection was in use, it died of something else.
//! - While nothing is learned, the first death after a silence that the path had outlived just so since the last
//!   death (0.9 t at least): a path that forgets does so every time. The second one in a row counts.
//! - A silence of which nobody knows how long it was, as this process itself stood still
//!   ([`super::liveness`] sees to it).

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::decay::left;
use super::liveness::Silences;

/// Of the silence that was deadly.
const SHRINK: f64 = 0.6;
/// A silence as long as this part of another counts as the same.
const SAME: f64 = 0.9;
const DOUBLES_IN: Duration = Duration::from_secs(3600);
const DOUBLES_AT_LEAST_IN: Duration = Duration::from_secs(24 * 3600);

/// A ping interval that a path taught, to be kept in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LearnedInterval {
    /// The interval as it was learned.
    pub interval: Duration,
    /// How long ago that was; to be raised by the file's age when read. It has grown since.
    pub age: Duration,
    /// How many lessons it took.
    pub lessons: u32,
}

impl LearnedInterval {
    /// One lesson, just learned.
    pub fn new(interval: Duration) -> Self {
        LearnedInterval { interval, age: Duration::ZERO, lessons: 1 }
    }

    /// What has become of it.
    fn grown(&self) -> Duration {
        let doubles_in = DOUBLES_IN
            .saturating_mul(2u32.saturating_pow(self.lessons.saturating_sub(1)))
            .min(DOUBLES_AT_LEAST_IN);
        let factor = 1.0 / left(self.age.saturating_sub(doubles_in / 2), doubles_in);
        Duration::try_from_secs_f64(self.interval.as_secs_f64() * factor).unwrap_or(Duration::MAX)
    }
}

/// The ping interval towards one peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keepalive {
    configured: Duration,
    least: Duration,
    learned: Option<(LearnedInterval, Instant)>,
    /// The longest silence that was survived since the last death.
    outlived: Duration,
}

impl Keepalive {
    /// `least`: the interval is never made shorter than this.
    pub(crate) fn new(configured: Duration, least: Duration) -> Self {
        Keepalive { configured, least: least.min(configured), learned: None, outlived: Duration::ZERO }
    }

    /// The settings have changed; what was learned stays.
    pub(crate) fn configure(&mut self, configured: Duration, least: Duration) {
        (self.configured, self.least) = (configured, least.min(configured));
    }

    /// Goes on from what was saved.
    pub(crate) fn restore(
        configured: Duration,
        least: Duration,
        saved: LearnedInterval,
        now: Instant,
    ) -> Self {
        let mut keepalive = Keepalive::new(configured, least);
        let interval = saved.interval.max(keepalive.least);
        keepalive.learned = Some((LearnedInterval { interval, ..saved }, now));
        keepalive
    }

    /// What was learned, if it still makes a difference.
    pub(crate) fn save(&self, now: Instant) -> Option<LearnedInterval> {
        let (learned, at) = self.learned?;
        let age = learned.age.saturating_add(now.saturating_duration_since(at));
        let learned = LearnedInterval { age, ..learned };
        (learned.grown() < self.configured).then_some(learned)
    }

    /// The time between pings at present.
    pub(crate) fn interval(&self, now: Instant) -> Duration {
        self.save(now).map_or(self.configured, |learned| learned.grown())
    }

    /// A connection ended; `silences` is what it has shown. True if the interval became shorter: the peer's
    /// other connections are to be told.
    pub(crate) fn handle_ended(&mut self, silences: Silences, now: Instant) -> bool {
        self.outlived = self.outlived.max(silences.outlived.unwrap_or_default());
        let present = self.save(now);
        let interval = self.interval(now);
        let Some(deadly) = silences.deadly.filter(|deadly| *deadly >= interval / 2) else { return false };
        let outlived = std::mem::take(&mut self.outlived);
        // An interval that grows back outlives nearly what it dies of: there that says nothing.
        if present.is_none() && outlived >= deadly.mul_f64(SAME) {
            return false;
        }
        let shorter = deadly.mul_f64(SHRINK).max(self.least);
        if shorter >= interval {
            return false;
        }
        let lessons = present.map_or(0, |learned| learned.lessons).saturating_add(1);
        self.learned = Some((LearnedInterval { interval: shorter, age: Duration::ZERO, lessons }, now));
        true
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Tests need some instant to start from; they never read the clock again.
mod tests {
    use super::super::liveness::{Limits, Liveness, Verdict};
    use super::*;

    const S: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_secs(60);
    const STEP: Duration = Duration::from_millis(50);
    const RTT: Duration = Duration::from_millis(40);

    /// A peer behind a path that forgets a flow after some silence. One connection at a time, in steps.
    struct World {
        now: Instant,
        forgets_after: Option<Duration>,
        /// It says so with a reset, instead of silence.
        resets: bool,
        /// How often the application sends.
        traffic: Option<Duration>,
        keepalive: Keepalive,
        random: fastrand::Rng,
        deaths: u32,
    }

    impl World {
        fn new(configured: Duration, forgets_after: Option<Duration>) -> Self {
            World {
                now: Instant::now(),
                forgets_after,
                resets: false,
                traffic: None,
                keepalive: Keepalive::new(configured, S),
                random: fastrand::Rng::with_seed(1),
                deaths: 0,
            }
        }

        /// Lets it run for `time`; `killer` strikes connections about once in so many steps.
        fn run(&mut self, time: Duration, killer: Option<u32>) {
            let end = self.now + time;
            while self.now < end {
                self.one_connection(end, killer);
            }
        }

        fn one_connection(&mut self, end: Instant, killer: Option<u32>) {
            let interval = self.keepalive.interval(self.now);
            let limits = Limits { ping_interval: interval, suspect_after: S, dead_after: 60 * S };
            let mut liveness = Liveness::new(limits, self.now, self.random.u64(..));
            let mut passed = self.now;
            let mut dead = false;
            let mut answers: Vec<(Instant, Option<u64>)> = Vec::new();
            let mut next_data = self.traffic.map(|every| self.now + every);
            while self.now < end {
                self.now += STEP;
                let now = self.now;
                dead |= killer.is_some_and(|odds| self.random.u32(..odds) == 0);
                let mut sent = Vec::new();
                if next_data.is_some_and(|at| now >= at) {
                    next_data = self.traffic.map(|every| now + every);
                    liveness.handle_data_sent(now);
                    sent.push(None);
                }
                if !dead {
                    for (_, nonce) in answers.extract_if(.., |(at, _)| *at <= now) {
                        liveness.handle_received(now);
                        passed = now;
                        match nonce {
                            Some(nonce) => assert!(liveness.handle_pong(nonce, now).is_some()),
                            None => liveness.handle_progress(now, false),
                        }
                    }
                }
                let mut over = false;
                while let Some(verdict) = liveness.poll(now) {
                    match verdict {
                        Verdict::Ping(nonce) => sent.push(Some(nonce)),
                        Verdict::Suspect => over = true,
                        Verdict::Recovered | Verdict::Dead => panic!("{verdict:?}"),
                    }
                }
                for what in sent {
                    dead |= self.forgets_after.is_some_and(|after| now - passed > after);
                    if !dead {
                        passed = now;
                        answers.push((now + RTT, what));
                    }
                }
                if over || (dead && self.resets && liveness.silences(true).deadly.is_some()) {
                    self.deaths += 1;
                    // The replacement is there at once, and the old one ends unheard.
                    self.keepalive.handle_ended(liveness.silences(self.resets), now);
                    return;
                }
            }
            // The end of the simulation: an orderly one.
            self.keepalive.handle_ended(liveness.silences(false), self.now);
        }
    }

    #[test]
    fn converges_and_then_ten_minutes_without_a_death() {
        for (configured, forgets_after, deaths) in
            [(10, 12, 0), (10, 5, 2), (10, 30, 0), (20, 12, 2), (20, 5, 3), (20, 30, 0), (10, 3, 3)]
        {
            for resets in [false, true] {
                let mut world = World::new(configured * S, Some(forgets_after * S));
                world.resets = resets;
                let case = format!("{forgets_after} s, pinged every {configured} s, resets: {resets}");
                world.run(3 * MINUTE, None);
                assert!(world.deaths <= deaths, "{case}: {} deaths", world.deaths);
                assert_eq!(world.deaths == 0, forgets_after > configured, "{case}");
                let before = world.deaths;
                world.run(10 * MINUTE, None);
                assert_eq!(world.deaths, before, "{case}: dies after it has learned");
                let interval = world.keepalive.interval(world.now);
                assert!(interval < (forgets_after * S), "{case}: {interval:?}");
                assert!(
                    interval >= (configured * S).min(forgets_after * S).mul_f64(0.3),
                    "{case}: {interval:?}"
                );
            }
        }
    }

    #[test]
    fn what_failed_is_tried_again_ever_more_seldom() {
        let mut world = World::new(10 * S, Some(5 * S));
        let mut hours = Vec::new();
        for _ in 0..48 {
            let before = world.deaths;
            world.run(60 * MINUTE, None);
            hours.push(world.deaths - before);
        }
        assert!(hours[1..].iter().all(|deaths| *deaths <= 1), "{hours:?}");
        assert!(hours[24..].iter().sum::<u32>() <= 2, "{hours:?}");
    }

    #[test]
    fn the_configured_interval_comes_back_when_the_path_is_well_again() {
        let mut world = World::new(10 * S, Some(5 * S));
        world.run(3 * MINUTE, None);
        world.forgets_after = None;
        let (deaths, learned) = (world.deaths, world.keepalive.interval(world.now));
        world.run(50 * MINUTE, None);
        assert_eq!(world.keepalive.interval(world.now), learned);
        world.run(70 * MINUTE, None);
        let grown = world.keepalive.interval(world.now);
        assert!(grown > learned && grown < 10 * S, "{learned:?} {grown:?}");
        world.run(180 * MINUTE, None);
        assert_eq!(world.keepalive.interval(world.now), 10 * S);
        assert_eq!(world.keepalive.save(world.now), None);
        assert_eq!(world.deaths, deaths);
    }

    #[test]
    fn a_killer_of_busy_connections_teaches_nothing() {
        for resets in [false, true] {
            let mut world = World::new(10 * S, None);
            world.traffic = Some(S / 5);
            world.resets = resets;
            world.run(60 * MINUTE, Some(600));
            assert!(world.deaths > 30, "{}", world.deaths);
            assert_eq!(world.keepalive.interval(world.now), 10 * S, "resets: {resets}");
        }
    }

    #[test]
    fn a_peer_that_is_killed_teaches_nothing() {
        // Its kernel says so at once: there was no question, or it was answered by the end of the stream.
        let now = Instant::now();
        let limits = Limits { ping_interval: 10 * S, suspect_after: S, dead_after: 20 * S };
        let mut liveness = Liveness::new(limits, now, 7);
        let Some(Verdict::Ping(nonce)) = liveness.poll(now) else { panic!("no ping") };
        liveness.handle_received(now + RTT);
        assert!(liveness.handle_pong(nonce, now + RTT).is_some());
        let mut keepalive = Keepalive::new(10 * S, S);
        let killed = now + 9 * S;
        assert!(!keepalive.handle_ended(liveness.silences(true), killed), "reset while idle");
        liveness.handle_data_sent(killed);
        assert!(!keepalive.handle_ended(liveness.silences(false), killed + RTT), "ended by a goodbye");
    }

    #[test]
    fn one_death_after_many_such_silences_is_chance_and_two_are_none() {
        let now = Instant::now();
        let mut keepalive = Keepalive::new(10 * S, S);
        let death = Silences { outlived: Some(S * 99 / 10), deadly: Some(10 * S) };
        assert!(!keepalive.handle_ended(death, now));
        assert!(keepalive.handle_ended(Silences { outlived: None, ..death }, now + MINUTE));
        assert_eq!(keepalive.interval(now + MINUTE), 6 * S);
    }

    #[test]
    fn the_least_interval_holds() {
        let mut now = Instant::now();
        let mut keepalive = Keepalive::new(10 * S, S);
        for _ in 0..20 {
            let deadly = Some(keepalive.interval(now));
            keepalive.handle_ended(Silences { outlived: None, deadly }, now);
            assert!(keepalive.interval(now) >= S);
            now += MINUTE;
        }
        assert!(keepalive.interval(now) < 2 * S, "{:?}", keepalive.interval(now));
    }

    #[test]
    fn it_is_saved_and_restored_with_its_age() {
        let mut now = Instant::now();
        let mut keepalive = Keepalive::new(10 * S, S);
        assert_eq!(keepalive.save(now), None);
        keepalive.handle_ended(Silences { outlived: None, deadly: Some(5 * S) }, now);
        now += 30 * MINUTE;
        let text = serde_json::to_string(&keepalive.save(now).unwrap()).unwrap();
        let mut saved: LearnedInterval = serde_json::from_str(&text).unwrap();
        assert_eq!(saved, LearnedInterval { interval: 3 * S, age: 30 * MINUTE, lessons: 1 });
        let restored = Keepalive::restore(10 * S, S, saved, now);
        assert_eq!(restored.interval(now), keepalive.interval(now));
        assert_eq!(restored.interval(now + 30 * MINUTE), keepalive.interval(now + 30 * MINUTE));
        // The file was read a day later, or is nonsense.
        saved.age = Duration::MAX;
        saved.lessons = u32::MAX;
        assert_eq!(Keepalive::restore(10 * S, S, saved, now).interval(now), 10 * S);
        saved = LearnedInterval { interval: Duration::ZERO, age: Duration::ZERO, lessons: 0 };
        assert_eq!(Keepalive::restore(10 * S, S, saved, now).interval(now), S);
    }
}
