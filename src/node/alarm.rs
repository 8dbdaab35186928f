//! How other threads make the monitor look earlier than it had planned.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::clock;

/// The monitor sleeps until the earliest deadline that it knows. Whoever sets an earlier one wakes it;
/// all others pay one atomic load.
///
/// Invariant: while the monitor computes its next wake-up, `planned` is "never", so that every
/// deadline set meanwhile leaves a token.
#[derive(Debug)]
pub(crate) struct Alarm {
    base: Instant,
    /// Microseconds after `base`.
    planned: AtomicU64,
    wake: Sender<()>,
    woken: Receiver<()>,
}

const NEVER: u64 = u64::MAX;

impl Alarm {
    pub(crate) fn new() -> Self {
        let (wake, woken) = bounded(1);
        Alarm { base: clock::now(), planned: AtomicU64::new(NEVER), wake, woken }
    }

    /// The monitor is to look at `deadline`, at the latest.
    pub(crate) fn at(&self, deadline: Instant) {
        if self.micros(deadline) < self.planned.load(SeqCst) {
            self.now();
        }
    }

    /// The monitor is to look at once.
    pub(crate) fn now(&self) {
        let _ = self.wake.try_send(());
    }

    /// The monitor begins to look at everything. What is set from here on will wake it.
    pub(crate) fn begin(&self) {
        self.planned.store(NEVER, SeqCst);
        let _ = self.woken.try_recv();
    }

    /// The monitor sleeps until `next` or until it is woken.
    pub(crate) fn sleep(&self, next: Instant) {
        self.planned.store(self.micros(next), SeqCst);
        let _ = self.woken.recv_deadline(next);
    }

    fn micros(&self, at: Instant) -> u64 {
        at.checked_duration_since(self.base).unwrap_or(Duration::ZERO).as_micros() as u64
    }
}
