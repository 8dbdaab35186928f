//! How often to ping a peer: as seldom as configured, and as often as its path needs.
//!
//! A NAT or firewall on the way may forget a flow that was silent for some time, and a proxy may close it.
//! There are two kinds of lesson, after which the interval becomes shorter than t:
//!
//! - A connection is found dead at its first use after a silence of t.
//! - Connections in a row were *cut*, that is closed or reset without a goodbye, after about the same silence
//!   t, and nothing outlived a silence of t in between. Two of them are enough where no silence of t was
//!   outlived since the last lesson, elsewhere it takes three: a path that cuts at random does so twice alike
//!   now and then.
//!
//! ```text
//! a lesson of t:    interval = max(0.6 t, least), if that is shorter
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
//! - A death after less than half of the present interval: the connection was in use, it died of something
//!   else. A cut after less than the least interval.
//! - The first death after a silence that the path had outlived just so since the last death (0.9 t at
//!   least): a path that forgets does so every time. The second one in a row counts. While the interval grows
//!   back, the first one counts too: there the silence before was only a little shorter.
//! - An end that the peer did not survive: nothing is learned from it before the peer is heard of again, and
//!   nothing at all if it is another process then. Nor an end with a goodbye.
//! - A silence of which nobody knows how long it was, as this process itself stood still ([`super::liveness`]
//!   sees to it).

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::decay::left;
use super::liveness::Silences;
use crate::serde_util::human;

/// The new interval, as a part of the silence that was deadly.
const SHRINK: f64 = 0.6;
/// A silence as long as this part of another counts as the same.
const SAME: f64 = 0.9;
/// Or one that differs by less than this: the threads that notice an end may have to wait for a processor.
const SLACK: Duration = Duration::from_millis(200);
/// How many cuts after the same silence are a lesson: two, or three where such a silence was outlived before.
const CUTS: u32 = 2;
const CUTS_OF_A_CHANGE: u32 = 3;
/// So many connections of one link can end before the peer is heard of again: more than a pool has.
const MAX_UNSETTLED: usize = 8;
const DOUBLES_IN: Duration = Duration::from_secs(3600);
const DOUBLES_AT_LEAST_IN: Duration = Duration::from_secs(24 * 3600);

/// A ping interval that a path taught, to be kept in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LearnedInterval {
    /// The interval as it was learned.
    #[serde(with = "human")]
    pub interval: Duration,
    /// How long ago that was; to be raised by the file's age when read. It has grown since.
    #[serde(with = "human")]
    pub age: Duration,
    /// How many lessons it took.
    pub lessons: u32,
}

impl LearnedInterval {
    /// One lesson, just learned.
    pub fn new(interval: Duration) -> Self {
        LearnedInterval { interval, age: Duration::ZERO, lessons: 1 }
    }

    /// The interval now, grown back as far as its age says.
    fn grown(&self) -> Duration {
        let doubles_in = DOUBLES_IN
            .saturating_mul(2u32.saturating_pow(self.lessons.saturating_sub(1)))
            .min(DOUBLES_AT_LEAST_IN);
        let factor = 1.0 / left(self.age.saturating_sub(doubles_in / 2), doubles_in);
        Duration::try_from_secs_f64(self.interval.as_secs_f64() * factor).unwrap_or(Duration::MAX)
    }
}

/// The ping interval towards one peer.
#[derive(Clone, Debug)]
pub(crate) struct Keepalive {
    configured: Duration,
    least: Duration,
    learned: Option<(LearnedInterval, Instant)>,
    /// The longest silence that was survived since the last death.
    outlived: Duration,
    /// The longest silence that was survived since the last lesson.
    longest: Duration,
    /// The silence after which connections were cut last, and how many of them in a row.
    cut: Option<(Duration, u32)>,
    /// The ends after which the peer was not heard of yet.
    unsettled: Vec<Silences>,
}

impl Keepalive {
    /// `least`: the interval is never made shorter than this.
    pub(crate) fn new(configured: Duration, least: Duration) -> Self {
        Keepalive {
            configured,
            least: least.min(configured),
            learned: None,
            outlived: Duration::ZERO,
            longest: Duration::ZERO,
            cut: None,
            unsettled: Vec::new(),
        }
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

    /// Returns what was learned, if it still makes a difference.
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

    /// A connection ended; `silences` is what it has shown. It counts when the peer is heard of again.
    pub(crate) fn handle_ended(&mut self, silences: Silences) {
        if self.unsettled.len() < MAX_UNSETTLED {
            self.unsettled.push(silences);
        }
    }

    /// The peer is another process than the one whose connections ended: they may have ended with it.
    pub(crate) fn handle_peer_restarted(&mut self) {
        let outlived = self.unsettled.drain(..).filter_map(|silences| silences.outlived).max();
        self.handle_outlived(outlived);
    }

    fn handle_outlived(&mut self, silence: Option<Duration>) {
        self.outlived = self.outlived.max(silence.unwrap_or_default());
        self.longest = self.longest.max(self.outlived);
    }

    /// The peer lives on after its connections ended. True if the interval became shorter: the peer's
    /// other connections are to be told.
    pub(crate) fn handle_peer_lives(&mut self, now: Instant) -> bool {
        let unsettled = std::mem::take(&mut self.unsettled);
        unsettled.into_iter().fold(false, |shorter, silences| self.learn(silences, now) | shorter)
    }

    fn learn(&mut self, silences: Silences, now: Instant) -> bool {
        self.handle_outlived(silences.outlived);
        let interval = self.interval(now);
        if let Some(deadly) = silences.deadly.filter(|deadly| *deadly >= interval / 2) {
            return self.handle_deadly(deadly, now);
        }
        if let Some(cut) = silences.cut.filter(|cut| *cut >= self.least) {
            return self.handle_cut(cut, now);
        }
        false
    }

    fn handle_deadly(&mut self, deadly: Duration, now: Instant) -> bool {
        let outlived = std::mem::take(&mut self.outlived);
        // An interval that grows back outlives nearly what it dies of: there that says nothing.
        let grows = self.save(now).is_some_and(|learned| learned.grown() > learned.interval);
        if !grows && outlived >= deadly.mul_f64(SAME) {
            return false;
        }
        self.shorten(deadly, now)
    }

    fn handle_cut(&mut self, cut: Duration, now: Instant) -> bool {
        let outlived = std::mem::take(&mut self.outlived);
        let (cut, times) = match self.cut {
            Some((before, times)) if is_same(before, cut) && outlived < before.min(cut) => {
                (before.min(cut), times + 1)
            }
            _ => (cut, 1),
        };
        self.cut = Some((cut, times));
        let enough = if self.longest >= cut { CUTS_OF_A_CHANGE } else { CUTS };
        times >= enough && self.shorten(cut, now)
    }

    /// A silence of `deadly` is too long for this path.
    fn shorten(&mut self, deadly: Duration, now: Instant) -> bool {
        let shorter = deadly.mul_f64(SHRINK).max(self.least);
        if shorter >= self.interval(now) {
            return false;
        }
        (self.longest, self.cut) = (Duration::ZERO, None);
        let lessons = self.save(now).map_or(0, |learned| learned.lessons).saturating_add(1);
        self.learned = Some((LearnedInterval { interval: shorter, age: Duration::ZERO, lessons }, now));
        true
    }
}

fn is_same(one: Duration, other: Duration) -> bool {
    let (shorter, longer) = (one.min(other), one.max(other));
    shorter >= longer.mul_f64(SAME) || longer - shorter <= SLACK
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Tests need some instant to start from; they never read the clock again.
mod tests {
    use super::super::liveness::{Ending, Limits, Liveness, LivenessEvent};
    use super::*;

    const S: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_secs(60);
    const STEP: Duration = Duration::from_millis(50);
    const RTT: Duration = Duration::from_millis(40);

    /// How a path tells that it has forgotten a flow.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Tells {
        Nothing,
        /// It resets the flow at its next use.
        WhenUsed,
        /// It closes the flow at once.
        AtOnce,
    }

    /// A peer behind a path that forgets a flow after some silence. One connection at a time, in steps.
    struct World {
        now: Instant,
        forgets_after: Option<Duration>,
        tells: Tells,
        /// How often the application sends.
        traffic: Option<Duration>,
        /// How often the peer pings, and how long after this side has connected it begins.
        peer_pings: Option<(Duration, Duration)>,
        /// Nothing passes from then until then.
        outage: Option<(Instant, Instant)>,
        keepalive: Keepalive,
        random: fastrand::Rng,
        deaths: u32,
    }

    impl World {
        fn new(configured: Duration, forgets_after: Option<Duration>) -> Self {
            World {
                now: Instant::now(),
                forgets_after,
                tells: Tells::Nothing,
                traffic: None,
                peer_pings: None,
                outage: None,
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

        fn ended(&mut self, liveness: &Liveness, ending: Ending) {
            self.keepalive.handle_ended(liveness.silences(ending, self.now));
            // A connection joins as soon as there is a path.
            if let Some((from, to)) = self.outage
                && self.now >= from
            {
                self.now = self.now.max(to);
            }
            self.keepalive.handle_peer_lives(self.now);
        }

        fn one_connection(&mut self, end: Instant, killer: Option<u32>) {
            let interval = self.keepalive.interval(self.now);
            let limits = Limits { ping_interval: interval, suspect_after: S, dead_after: 60 * S };
            let mut liveness = Liveness::new(limits, self.now, self.random.u64(..));
            let mut passed = self.now;
            let mut dead = false;
            let mut answers: Vec<(Instant, Option<u64>)> = Vec::new();
            let mut next_data = self.traffic.map(|every| self.now + every);
            let mut next_asked = self.peer_pings.map(|(_, first)| self.now + first);
            while self.now < end {
                self.now += STEP;
                let now = self.now;
                dead |= killer.is_some_and(|odds| self.random.u32(..odds) == 0);
                let dark = self.outage.is_some_and(|(from, to)| (from..to).contains(&now));
                let forgotten = self.forgets_after.is_some_and(|after| now - passed > after);
                if (forgotten || dead) && self.tells == Tells::AtOnce {
                    self.deaths += 1;
                    return self.ended(&liveness, Ending::Closed);
                }
                let mut sent = Vec::new();
                if next_data.is_some_and(|at| now >= at) {
                    next_data = self.traffic.map(|every| now + every);
                    liveness.handle_data_sent(now);
                    sent.push(None);
                }
                if !dead && !dark {
                    for (_, nonce) in answers.extract_if(.., |(at, _)| *at <= now) {
                        liveness.handle_received(now);
                        passed = now;
                        match nonce {
                            Some(nonce) => assert!(liveness.handle_pong(nonce, now).is_some()),
                            None => liveness.handle_progress(now, false),
                        }
                    }
                }
                if next_asked.is_some_and(|at| now >= at) {
                    next_asked = self.peer_pings.map(|(every, _)| now + every);
                    dead |= dark || forgotten;
                    if !dead {
                        liveness.handle_received(now);
                        liveness.handle_ping(now);
                        liveness.handle_sent(now);
                        passed = now;
                    }
                }
                let mut over = false;
                while let Some(verdict) = liveness.poll(now) {
                    match verdict {
                        LivenessEvent::Ping(nonce) => sent.push(Some(nonce)),
                        LivenessEvent::Suspect => over = true,
                        LivenessEvent::Recovered | LivenessEvent::Dead => panic!("{verdict:?}"),
                    }
                }
                for what in sent {
                    dead |= dark || forgotten;
                    if !dead {
                        passed = now;
                        answers.push((now + RTT, what));
                    }
                }
                let reset = dead && self.tells == Tells::WhenUsed;
                let ending = if reset { Ending::Failed } else { Ending::Deliberate };
                if over || (reset && liveness.silences(ending, now).deadly.is_some()) {
                    self.deaths += 1;
                    // The replacement is there at once, and the old one ends unheard.
                    return self.ended(&liveness, ending);
                }
            }
            // The end of the simulation.
            self.ended(&liveness, Ending::Deliberate);
        }
    }

    #[test]
    fn converges_and_then_ten_minutes_without_a_death() {
        for (configured, forgets_after, deaths) in
            [(10, 12, 0), (10, 5, 2), (10, 30, 0), (20, 12, 2), (20, 5, 3), (20, 30, 0), (10, 3, 3)]
        {
            for tells in [Tells::Nothing, Tells::WhenUsed, Tells::AtOnce] {
                let mut world = World::new(configured * S, Some(forgets_after * S));
                world.tells = tells;
                // It takes two alike to learn from a silence whose end is told at once.
                let deaths = if tells == Tells::AtOnce { deaths.min(1) * 2 } else { deaths };
                let case = format!("{forgets_after} s, pinged every {configured} s, tells: {tells:?}");
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
    fn an_interval_that_failed_is_tried_ever_more_seldom() {
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
        for tells in [Tells::Nothing, Tells::WhenUsed, Tells::AtOnce] {
            let mut world = World::new(10 * S, None);
            world.traffic = Some(S / 5);
            world.tells = tells;
            world.run(60 * MINUTE, Some(600));
            assert!(world.deaths > 30, "{}", world.deaths);
            assert_eq!(world.keepalive.interval(world.now), 10 * S, "tells: {tells:?}");
        }
    }

    #[test]
    fn a_killer_of_idle_connections_teaches_nothing() {
        let mut world = World::new(10 * S, None);
        world.tells = Tells::AtOnce;
        world.run(240 * MINUTE, Some(1200));
        assert!(world.deaths > 100, "{}", world.deaths);
        assert_eq!(world.keepalive.interval(world.now), 10 * S);
    }

    #[test]
    fn an_outage_of_an_idle_link_teaches_nothing() {
        // The peer's pings come shortly before ours, shortly after them, in between, and more often.
        for (every, first) in
            [(10.0, 9.9), (9.5, 0.1), (9.5, 9.4), (10.0, 0.1), (10.0, 5.0), (4.0, 0.1), (10.5, 0.1)]
        {
            for begins in (0..200).map(|tenth| 2 * MINUTE + tenth * S / 10) {
                let mut world = World::new(10 * S, None);
                world.peer_pings = Some((Duration::from_secs_f64(every), Duration::from_secs_f64(first)));
                let start = world.now + begins;
                world.outage = Some((start, start + 40 * S));
                world.run(4 * MINUTE, None);
                let case =
                    format!("pings of the peer every {every} s from {first} s on, outage at {begins:?}");
                assert_eq!(world.deaths, 1, "{case}");
                assert_eq!(world.keepalive.interval(world.now), 10 * S, "{case}");
                // Nor does a second one, on the connection that came then.
                let start = world.now + 2 * MINUTE;
                world.outage = Some((start, start + 40 * S));
                world.run(5 * MINUTE, None);
                assert_eq!((world.deaths, world.keepalive.interval(world.now)), (2, 10 * S), "{case}");
            }
        }
    }

    #[test]
    fn an_outage_does_not_shorten_what_was_learned() {
        let mut world = World::new(10 * S, Some(7 * S));
        world.run(5 * MINUTE, None);
        let (deaths, learned) = (world.deaths, world.keepalive.interval(world.now));
        for outage in 1..=3 {
            let start = world.now + 2 * MINUTE;
            world.outage = Some((start, start + 40 * S));
            world.run(4 * MINUTE, None);
            assert_eq!((world.deaths, world.keepalive.interval(world.now)), (deaths + outage, learned));
        }
    }

    #[test]
    fn a_peer_that_is_killed_teaches_nothing() {
        // Its kernel says so at once, or nothing if the machine died with it.
        for (ending, asked) in [(Ending::Closed, false), (Ending::Failed, false), (Ending::Failed, true)] {
            let mut keepalive = Keepalive::new(10 * S, S);
            let mut now = Instant::now();
            for _ in 0..5 {
                let limits = Limits { ping_interval: 10 * S, suspect_after: S, dead_after: 20 * S };
                let mut liveness = Liveness::new(limits, now, 7);
                let Some(LivenessEvent::Ping(nonce)) = liveness.poll(now) else { panic!("no ping") };
                liveness.handle_received(now + RTT);
                assert!(liveness.handle_pong(nonce, now + RTT).is_some());
                now += 7 * S;
                if asked {
                    liveness.handle_data_sent(now);
                }
                let silences = liveness.silences(ending, now);
                assert!(silences.cut.is_some() && silences.deadly.is_some() == asked, "{silences:?}");
                keepalive.handle_ended(silences);
                keepalive.handle_peer_restarted();
                assert!(!keepalive.handle_peer_lives(now));
            }
            assert_eq!(keepalive.interval(now), 10 * S);
        }
    }

    #[test]
    fn one_cut_is_chance_and_two_or_three_alike_are_none() {
        let cut =
            |seconds: f64| Silences { cut: Some(Duration::from_secs_f64(seconds)), ..Silences::default() };
        let outlived = |seconds| Silences { outlived: Some(seconds * S), ..cut(5.0) };
        let busy = cut(0.5);
        for (what, ends, learned) in [
            ("one", vec![cut(5.0)], None),
            ("two", vec![cut(5.0), cut(5.2)], Some(3 * S)),
            ("two unlike", vec![cut(5.0), cut(8.0)], None),
            ("two of three", vec![cut(8.0), cut(5.0), cut(5.0)], Some(3 * S)),
            ("a longer silence before the first", vec![outlived(9), cut(5.0)], None),
            ("three after a longer silence", vec![outlived(9), cut(5.0), cut(5.1)], Some(3 * S)),
            ("a longer silence in between", vec![cut(5.0), outlived(9)], None),
            ("in the middle of traffic", vec![busy, busy, busy], None),
        ] {
            let (mut keepalive, now) = (Keepalive::new(10 * S, S), Instant::now());
            for silences in ends {
                keepalive.handle_ended(silences);
                keepalive.handle_peer_lives(now);
            }
            assert_eq!(keepalive.save(now).map(|learned| learned.interval), learned, "{what}");
        }
    }

    #[test]
    fn one_death_after_many_such_silences_is_chance_and_two_are_none() {
        let now = Instant::now();
        let mut keepalive = Keepalive::new(10 * S, S);
        let death = Silences { outlived: Some(S * 99 / 10), deadly: Some(10 * S), cut: None };
        keepalive.handle_ended(death);
        assert!(!keepalive.handle_peer_lives(now));
        keepalive.handle_ended(Silences { outlived: None, ..death });
        assert!(keepalive.handle_peer_lives(now + MINUTE));
        assert_eq!(keepalive.interval(now + MINUTE), 6 * S);
    }

    #[test]
    fn the_least_interval_holds() {
        let mut now = Instant::now();
        let mut keepalive = Keepalive::new(10 * S, S);
        for _ in 0..20 {
            let deadly = Some(keepalive.interval(now));
            keepalive.handle_ended(Silences { deadly, ..Silences::default() });
            keepalive.handle_peer_lives(now);
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
        keepalive.handle_ended(Silences { deadly: Some(5 * S), ..Silences::default() });
        assert!(keepalive.handle_peer_lives(now));
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
