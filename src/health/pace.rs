//! How much to hand to the kernel at a time: the size of a chunk, and of the kernel's unsent backlog.
//!
//! An urgent message waits for what was handed over before it, one chunk and an equal backlog
//! (TCP_NOTSENT_LOWAT): at 1 MB/s 16 KiB of each cost it 30 ms, at 16 kbit/s 16 s. The same on a fast link
//! would cost throughput (128 KiB to 512 KiB per write raised it from 0.66 to 0.92 of a raw socket on
//! loopback). So the size follows the rate at which the peer acknowledges while there is more to send than
//! goes out:
//!
//! | rate | chunk |
//! |---|---|
//! | above 1.6 MB/s | 10 ms worth, at most 512 KiB |
//! | 131 kB/s to 1.6 MB/s | 16 KiB |
//! | below | 125 ms worth, at least 1 KiB: below that the headers cost too much |
//!
//! The bytes that the kernel accepts are no measure: it takes megabytes into its buffers before the path
//! shows how slow it is. Until the rate is known the chunk is 2 KiB, or what an earlier connection by the
//! same path had come to.

use std::time::{Duration, Instant};

pub(crate) const MIN_CHUNK: usize = 1024;
pub(crate) const FIRST_CHUNK: usize = 2 * 1024;
const USUAL_CHUNK: usize = 16 * 1024;
pub(crate) const MAX_CHUNK: usize = 512 * 1024;

/// The part of a second whose worth of bytes one chunk should be on a fast path.
const CHUNKS_PER_SECOND: u64 = 100;
/// The same for a path on which the usual chunk takes longer.
const SLOW_CHUNKS_PER_SECOND: u64 = 8;
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
        Pace { chunk: FIRST_CHUNK.min(max), max, since: None, acked: 0 }
    }

    /// Stream bytes per chunk, now.
    pub(crate) fn chunk(&self) -> usize {
        self.chunk
    }

    /// The chunk of an earlier connection by the same path.
    pub(crate) fn inherit(&mut self, chunk: usize) {
        self.chunk = chunk.clamp(MIN_CHUNK, MAX_CHUNK).min(self.max);
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
        let fast = (rate / CHUNKS_PER_SECOND) as usize;
        let slow = (rate / SLOW_CHUNKS_PER_SECOND) as usize;
        let worth = fast.max(slow.min(USUAL_CHUNK));
        // At most doubled at a time: one burst out of a buffer somewhere is no proof of a fast path. Below
        // the usual size at most halved: one pause of either process is none of a slow one. The
        // configured maximum goes last, because it may be below the usual minimum.
        let least = self.chunk.min(USUAL_CHUNK) / 2;
        self.chunk = worth.clamp(least, self.chunk * 2).clamp(MIN_CHUNK, MAX_CHUNK).min(self.max);
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
        assert_eq!(pace.chunk(), FIRST_CHUNK);
        assert_eq!(run(&mut pace, 1_000_000), USUAL_CHUNK);
        assert_eq!(run(&mut pace, 1_000_000_000), MAX_CHUNK);
        assert_eq!(run(&mut pace, 10_000_000), 100_000);
        assert_eq!(run(&mut pace, 64_000), 8_000);
        assert_eq!(run(&mut pace, 1_000), MIN_CHUNK);
    }
}
