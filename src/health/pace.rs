//! How much to hand to the kernel at a time: the size of a chunk, and of the kernel's unsent backlog.
//!
//! An urgent message waits for what was handed over before it. At 1 MB/s a chunk of 16 KiB and an equal
//! backlog (TCP_NOTSENT_LOWAT) cost it 30 ms; the same on a fast link would cost throughput (128 KiB
//! to 512 KiB per write raised it from 0.66 to 0.92 of a raw socket on loopback). So the size follows
//! the rate at which the peer acknowledges while there is more to send than goes out: about 10 ms
//! worth, between 16 KiB and 512 KiB. What the kernel accepts is no measure: it takes megabytes
//! into its buffers before the path shows how slow it is.

use std::time::{Duration, Instant};

pub(crate) const MIN_CHUNK: usize = 16 * 1024;
pub(crate) const MAX_CHUNK: usize = 512 * 1024;

/// The part of a second whose worth of bytes one chunk should be.
const CHUNKS_PER_SECOND: u64 = 100;
/// Rates are measured over at least this long.
const SAMPLE: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(crate) struct Pace {
    chunk: usize,
    max: usize,
    since: Option<Instant>,
    acked: u64,
}

impl Pace {
    /// `max` is the largest chunk allowed by the configuration.
    pub(crate) fn new(max: usize) -> Self {
        Pace { chunk: MIN_CHUNK.min(max), max, since: None, acked: 0 }
    }

    /// Stream bytes per chunk, now.
    pub(crate) fn chunk(&self) -> usize {
        self.chunk
    }

    /// Everything was sent: the rate from here on would measure the application, not the path.
    pub(crate) fn handle_idle(&mut self) {
        self.since = None;
    }

    /// The peer acknowledged `bytes` more.
    pub(crate) fn handle_acked(&mut self, bytes: u64, now: Instant) {
        let Some(since) = self.since else {
            (self.since, self.acked) = (Some(now), 0);
            return;
        };
        self.acked += bytes;
        let elapsed = now.saturating_duration_since(since);
        if elapsed < SAMPLE {
            return;
        }
        let rate = (self.acked as f64 / elapsed.as_secs_f64()) as u64;
        let worth = (rate / CHUNKS_PER_SECOND) as usize;
        // At most doubled at a time: one burst out of a buffer somewhere is no proof of a fast path.
        // The configured maximum goes last, because it may be below the usual minimum.
        self.chunk = worth.min(self.chunk * 2).clamp(MIN_CHUNK, MAX_CHUNK).min(self.max);
        (self.since, self.acked) = (Some(now), 0);
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Tests need some instant to start from; they never read the clock again.
mod tests {
    use super::*;

    #[test]
    fn grows_on_a_fast_path_and_shrinks_at_once_on_a_slow_one() {
        let mut now = Instant::now();
        let mut pace = Pace::new(MAX_CHUNK);
        let mut run = |pace: &mut Pace, rate: u64| {
            for _ in 0..10 {
                now += SAMPLE;
                pace.handle_acked(rate / 50, now);
            }
            pace.chunk()
        };
        assert_eq!(run(&mut pace, 1_000_000), MIN_CHUNK);
        assert_eq!(run(&mut pace, 1_000_000_000), MAX_CHUNK);
        assert_eq!(run(&mut pace, 10_000_000), 100_000);
        assert_eq!(run(&mut pace, 1_000), MIN_CHUNK);
    }
}
