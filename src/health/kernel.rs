//! What the kernel knows of a connection, and whether what is in flight gets there.
//!
//! The peer's *kernel* acknowledges what arrives even if its process is frozen or busy. So data in
//! flight of which nothing is acknowledged, retransmission after retransmission, says that this
//! direction of the path is gone, whatever the other one still brings.
//!
//! ```text
//!              in flight, and nothing of it acknowledged since the last sample
//!   Moving ----------------------------------------------------------------> Stalled { since }
//!      ^                                                                          |
//!      +--- an acknowledgement of new bytes, nothing in flight, or a window of 0 -+
//! ```

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// The kernel's view of a connection: TCP_INFO of tcp(7), as far as the kernel at hand has it.
///
/// Counters count from the connection's beginning; times are in milliseconds. What came after Linux 4.0 is
/// `None` on a kernel that lacks it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct KernelSample {
    /// Segments in flight: sent, and not acknowledged by the peer's kernel.
    pub unacked: u32,
    /// Retransmission timeouts in a row without an acknowledgement of anything new.
    pub retransmits: u8,
    /// How often the timer that runs now was doubled; also for probes of a closed window.
    pub backoff: u8,
    /// Segments retransmitted.
    pub total_retrans: u32,
    /// The kernel's smoothed round trip.
    pub rtt_ms: f64,
    /// Since the last acknowledgement of any kind.
    pub last_ack_recv_ms: f64,
    /// Since the last data.
    pub last_data_recv_ms: f64,
    /// Bytes that the peer's kernel has acknowledged (Linux 4.1).
    pub bytes_acked: Option<u64>,
    /// Segments sent with data, the retransmitted ones included (Linux 4.6).
    pub data_segs_out: Option<u32>,
    /// Bytes written that were not sent yet (Linux 4.6).
    pub notsent_bytes: Option<u32>,
    /// The least round trip of late (Linux 4.6).
    pub min_rtt_ms: Option<f64>,
    /// How long there was something to send (Linux 4.10).
    pub busy_ms: Option<f64>,
    /// How long the peer's receive window was what held it up (Linux 4.10).
    pub rwnd_limited_ms: Option<f64>,
    /// How long our send buffer was what held it up (Linux 4.10).
    pub sndbuf_limited_ms: Option<f64>,
    /// Bytes retransmitted (Linux 4.19).
    pub bytes_retrans: Option<u64>,
    /// The peer's receive window, in bytes (Linux 5.4).
    pub snd_wnd: Option<u32>,
}

impl KernelSample {
    /// Whether there is something in flight that the peer lets in.
    fn is_waiting(&self) -> bool {
        // A peer that shrinks its window to nothing does not acknowledge what it has no room for.
        self.unacked > 0 && self.snd_wnd != Some(0)
    }

    /// Timeouts in a row of what is in flight.
    fn timeouts(&self) -> u8 {
        if self.is_waiting() { self.retransmits.max(self.backoff) } else { 0 }
    }
}

/// Since when nothing of what is in flight was acknowledged.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stall {
    acked: Option<u64>,
    since: Option<Instant>,
    timeouts: u8,
}

impl Stall {
    pub(crate) fn handle_kernel(&mut self, sample: &KernelSample, now: Instant) {
        let moved = self.acked != sample.bytes_acked;
        self.acked = sample.bytes_acked;
        // A kernel that does not tell what was acknowledged gives no ground for a judgement.
        if sample.bytes_acked.is_none() || !sample.is_waiting() {
            (self.since, self.timeouts) = (None, 0);
            return;
        }
        if moved {
            self.since = Some(now);
        }
        self.since.get_or_insert(now);
        self.timeouts = sample.timeouts();
    }

    /// This process stood still for `gap`.
    pub(crate) fn handle_pause(&mut self, gap: Duration) {
        self.since = self.since.map(|since| since + gap);
    }

    /// For how long nothing was acknowledged.
    pub(crate) fn lasts(&self, now: Instant) -> Duration {
        self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Timeouts in a row, of which none was answered.
    pub(crate) fn timeouts(&self) -> u8 {
        self.timeouts
    }
}
