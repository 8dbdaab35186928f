//! The counters of the summary.

use std::time::Duration;

use unbroken::{DropReason, Outcome};

/// Everything about the messages of one kind to and from one peer, or all of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) sent: u64,
    pub(crate) taken: u64,
    /// Dropped or expired while the node ran.
    pub(crate) failed: u64,
    /// Not accepted, because the queue was full.
    pub(crate) refused: u64,
    pub(crate) received: u64,
    pub(crate) received_bytes: u64,
    /// Numbers that never came.
    pub(crate) missing: u64,
    /// Numbers that came again, or out of order.
    pub(crate) repeated: u64,
    /// From sending to the receipt.
    pub(crate) delays: Delays,
}

impl Tally {
    pub(crate) fn ended(&mut self, outcome: Outcome, delay: Duration) {
        match outcome {
            Outcome::Taken => {
                self.taken += 1;
                self.delays.add(delay);
            }
            // The peer was away, or too slow, when this node stopped: nothing failed.
            Outcome::Dropped(DropReason::Shutdown) => {}
            _ => self.failed += 1,
        }
    }

    pub(crate) fn add(&mut self, other: &Tally) {
        self.sent += other.sent;
        self.taken += other.taken;
        self.failed += other.failed;
        self.refused += other.refused;
        self.received += other.received;
        self.received_bytes += other.received_bytes;
        self.missing += other.missing;
        self.repeated += other.repeated;
        self.delays.merge(&other.delays);
    }

    /// Not taken when the node stopped.
    pub(crate) fn left(&self) -> u64 {
        self.sent.saturating_sub(self.taken + self.failed)
    }
}

/// How the links of one peer, or all, fared.
#[derive(Clone, Debug, Default)]
pub(crate) struct LinkTally {
    pub(crate) ups: u64,
    pub(crate) downs: u64,
    pub(crate) suspects: u64,
    pub(crate) restarts: u64,
    /// Received messages that were not what their lane should carry.
    pub(crate) damaged: u64,
}

impl LinkTally {
    pub(crate) fn add(&mut self, other: &LinkTally) {
        self.ups += other.ups;
        self.downs += other.downs;
        self.suspects += other.suspects;
        self.restarts += other.restarts;
        self.damaged += other.damaged;
    }
}

/// A histogram of delays with steps of 1/16, so that a node can run for a year in the same memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Delays {
    /// Counts by [`bucket`] of the microseconds.
    counts: Vec<u64>,
    total: u64,
    max: Duration,
}

const STEPS: u64 = 16;

/// Up to `2 * STEPS` exactly, above it by the highest five bits.
fn bucket(micros: u64) -> usize {
    let shift = u64::from((micros / STEPS).checked_ilog2().unwrap_or(0));
    (shift * STEPS + (micros >> shift)) as usize
}

/// The least number of microseconds in a bucket.
fn floor_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    match (bucket / STEPS).saturating_sub(1) {
        0 => bucket,
        shift => (bucket - shift * STEPS) << shift,
    }
}

impl Delays {
    fn add(&mut self, delay: Duration) {
        let bucket = bucket(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX));
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts.iter_mut().skip(bucket).take(1).for_each(|count| *count += 1);
        self.total += 1;
        self.max = self.max.max(delay);
    }

    fn merge(&mut self, other: &Delays) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, other)| *count += other);
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    pub(crate) fn max_ms(&self) -> f64 {
        self.max.as_secs_f64() * 1e3
    }

    /// The delay in milliseconds that `percent` of all did not exceed, to 1/16. 0 when there were none.
    pub(crate) fn percentile_ms(&self, percent: u64) -> f64 {
        let rank = (self.total * percent).div_ceil(100);
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        found.map_or(0.0, |bucket| floor_of(bucket) as f64 / 1e3)
    }
}
