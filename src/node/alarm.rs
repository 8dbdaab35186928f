//! How other threads make the monitor look earlier than it had planned.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::clock;

/// The monitor sleeps until the earliest deadline that it knows. A thread that sets an earlier one wakes it;
/// all others pay two atomic loads.
///
/// ```text
///            begin                          sleep(next): until min(next, earliest)
/// asleep ------------> looks at everything ----------------------------------------> asleep
///   ^ at(deadline) before `planned` wakes    at(deadline) lowers `earliest`, wakes nobody
/// ```
///
/// Invariants:
/// - A deadline that is set while the monitor looks at everything is in `earliest` or was seen by it: the
///   monitor sleeps no longer than until then. It does not look again at once: with many busy links it would
///   never sleep.
/// - `at` writes `earliest` before it reads `planned`, and `sleep` writes `planned` before it reads
///   `earliest`, so one of the two sees the other.
#[derive(Debug)]
pub(crate) struct Alarm {
    base: Instant,
    /// Microseconds after `base`: when the monitor looks next. [`NEVER`] while it does.
    planned: AtomicU64,
    /// The same: the earliest deadline that was set since it began to look.
    earliest: AtomicU64,
    wake: Sender<()>,
    woken: Receiver<()>,
}

const NEVER: u64 = u64::MAX;

impl Alarm {
    pub(crate) fn new() -> Self {
        let (wake, woken) = bounded(1);
        let (planned, earliest) = (AtomicU64::new(NEVER), AtomicU64::new(NEVER));
        Alarm { base: clock::now(), planned, earliest, wake, woken }
    }

    /// The monitor is to look at `deadline`, at the latest.
    pub(crate) fn at(&self, deadline: Instant) {
        let deadline = self.micros(deadline);
        if deadline < self.earliest.load(SeqCst) {
            self.earliest.fetch_min(deadline, SeqCst);
        }
        let planned = self.planned.load(SeqCst);
        if planned != NEVER && deadline < planned {
            self.now();
        }
    }

    /// The monitor is to look at once.
    pub(crate) fn now(&self) {
        let _ = self.wake.try_send(());
    }

    /// The monitor begins to look at everything. Deadlines that were set before are seen by it.
    pub(crate) fn begin(&self) {
        self.planned.store(NEVER, SeqCst);
        self.earliest.store(NEVER, SeqCst);
        let _ = self.woken.try_recv();
    }

    /// The monitor sleeps until `next` or an earlier deadline that was set meanwhile, but not before `least`,
    /// or until it is woken. Returns until when it meant to sleep.
    pub(crate) fn sleep(&self, next: Instant, least: Instant) -> Instant {
        let next = next.max(least);
        self.planned.store(self.micros(next), SeqCst);
        let earliest = self.earliest.load(SeqCst);
        let mut next = next;
        if earliest < self.micros(next) {
            next = (self.base + Duration::from_micros(earliest)).max(least);
            self.planned.store(self.micros(next), SeqCst);
        }
        let _ = self.woken.recv_deadline(next);
        next
    }

    fn micros(&self, at: Instant) -> u64 {
        at.checked_duration_since(self.base).unwrap_or(Duration::ZERO).as_micros() as u64
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(20);

    #[test]
    fn a_deadline_that_is_set_during_the_look_ends_the_sleep_and_leaves_no_token() {
        let alarm = Alarm::new();
        alarm.begin();
        let deadline = clock::now() + SHORT;
        alarm.at(deadline);
        assert!(alarm.woken.is_empty());
        let now = clock::now();
        let until = alarm.sleep(now + LONG, now);
        assert!(until <= deadline && clock::now() >= until);
    }

    #[test]
    fn a_deadline_in_the_past_does_not_make_it_spin() {
        let alarm = Alarm::new();
        alarm.begin();
        let now = clock::now();
        alarm.at(now);
        assert_eq!(alarm.sleep(now + LONG, now + SHORT), now + SHORT);
    }

    #[test]
    fn an_earlier_deadline_wakes_the_sleeper_and_a_later_one_does_not() {
        let alarm = Alarm::new();
        alarm.begin();
        let now = clock::now();
        alarm.sleep(now, now);
        alarm.at(now + LONG);
        assert!(alarm.woken.is_empty(), "later than planned");
        thread::scope(|scope| {
            let sleeper = scope.spawn(|| {
                alarm.begin();
                let now = clock::now();
                alarm.sleep(now + LONG, now);
                clock::now()
            });
            while alarm.planned.load(SeqCst) < alarm.micros(now + LONG / 2)
                || alarm.planned.load(SeqCst) == NEVER
            {
                thread::yield_now();
            }
            alarm.at(now + SHORT);
            assert!(sleeper.join().is_ok_and(|woke| woke < now + LONG));
        });
    }
}
