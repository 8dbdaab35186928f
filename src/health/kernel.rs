//! The kernel's statistics of a connection, and whether data in flight arrives.
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
//!
//! A question that stands behind other data in the own send queue has not been asked yet. [`Delivery`] tells
//! when the peer's kernel had it, and until then, when the queue last moved.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// The kernel's view of a connection: TCP_INFO of tcp(7), as far as the kernel at hand has it.
///
/// Counters count from the connection's beginning; times are in milliseconds. Fields that came after Linux
/// 4.0 are `None` on a kernel that lacks them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct KernelSample {
    /// Segments in flight: sent, and not acknowledged by the peer's kernel.
    pub unacked: u32,
    /// The largest segment that is sent, in bytes.
    pub snd_mss: u32,
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
    /// Bytes sent, the retransmitted ones included (Linux 4.19).
    pub bytes_sent: Option<u64>,
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

    /// The stream position behind all that was written so far. `None` on a kernel that does not tell what was
    /// acknowledged or not sent yet; before Linux 4.19, where it does not tell what was sent, as far as the
    /// segments in flight reach if they are full. (`bytes_acked` counts the SYN of a connection that was
    /// dialled: there the position is passed one byte early.)
    pub(crate) fn written(&self) -> Option<u64> {
        let acked = self.bytes_acked?;
        let most = acked + u64::from(self.unacked) * u64::from(self.snd_mss);
        let sent = match (self.bytes_sent, self.bytes_retrans) {
            (Some(sent), Some(again)) => sent.saturating_sub(again).clamp(acked, most),
            _ => most,
        };
        Some(sent + u64::from(self.notsent_bytes?))
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

/// When the peer's kernel received a question.
///
/// Invariant: `moved` grows only while the queue moves and the end of it, as it was at the first sample after
/// the question, is not acknowledged. So what is sent after the question excuses nobody.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Delivery {
    /// The question, by its time.
    asked: Option<Instant>,
    /// The end of the queue in which it stands; `None` when the peer has it.
    target: Option<u64>,
    acked: Option<u64>,
    /// When the queue moved last.
    moved: Option<Instant>,
}

impl Delivery {
    /// `asked`: when the oldest question that is open was asked.
    pub(crate) fn handle_kernel(&mut self, sample: &KernelSample, asked: Option<Instant>, now: Instant) {
        if asked != self.asked {
            *self = Delivery { asked, target: asked.and(sample.written()), acked: self.acked, moved: None };
        }
        let moves = sample.bytes_acked > self.acked.or(sample.bytes_acked);
        self.acked = sample.bytes_acked;
        if moves && self.target.is_some() {
            let ago = Duration::try_from_secs_f64(sample.last_ack_recv_ms / 1000.0).unwrap_or_default();
            self.moved = self.moved.max(now.checked_sub(ago));
        }
        self.target = self.target.filter(|target| sample.bytes_acked < Some(*target));
    }

    /// This process stood still for `gap`.
    pub(crate) fn handle_pause(&mut self, gap: Duration) {
        self.moved = self.moved.map(|moved| moved + gap);
        self.asked = self.asked.map(|asked| asked + gap);
    }

    /// From when on the answer to the question of that time may be expected.
    pub(crate) fn since(&self, asked: Instant) -> Instant {
        let moved = self.moved.filter(|_| self.asked == Some(asked));
        moved.map_or(asked, |moved| moved.max(asked))
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Tests need some instant to start from; they never read the clock again.
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn queue(acked: u64, notsent: u32) -> KernelSample {
        KernelSample {
            bytes_acked: Some(acked),
            notsent_bytes: Some(notsent),
            unacked: 1,
            snd_mss: 1000,
            ..KernelSample::default()
        }
    }

    #[test]
    fn a_question_is_asked_when_the_queue_before_it_is_gone() {
        let asked = Instant::now();
        let mut delivery = Delivery::default();
        delivery.handle_kernel(&queue(0, 4000), Some(asked), asked);
        assert_eq!(delivery.since(asked), asked);
        for second in 1..=5 {
            // More is written behind it all the time.
            let now = asked + S * second;
            delivery.handle_kernel(&queue(1000 * u64::from(second), 4000), Some(asked), now);
            assert_eq!(delivery.since(asked), now);
        }
        // Bytes that move now were written after it.
        delivery.handle_kernel(&queue(6000, 4000), Some(asked), asked + S * 6);
        assert_eq!(delivery.since(asked), asked + S * 5);
    }

    #[test]
    fn a_queue_that_stands_still_excuses_nobody() {
        let asked = Instant::now();
        let mut delivery = Delivery::default();
        for second in 0..5 {
            delivery.handle_kernel(&queue(1000, 4000), Some(asked), asked + S * second);
            assert_eq!(delivery.since(asked), asked);
        }
    }

    /// A segment that carries a vote is far from full: on loopback the largest has 64 KiB.
    #[test]
    fn small_messages_that_are_sent_after_a_question_excuse_nobody() {
        const VOTE: u64 = 132;
        let asked = Instant::now();
        let mut delivery = Delivery::default();
        // The question is in flight when the first sample is taken, and each later vote is acknowledged.
        for vote in 0..30u32 {
            let sample = KernelSample {
                bytes_acked: Some(VOTE * u64::from(vote)),
                bytes_sent: Some(VOTE * u64::from(vote + 1)),
                bytes_retrans: Some(0),
                notsent_bytes: Some(0),
                unacked: 1,
                snd_mss: 65_483,
                ..KernelSample::default()
            };
            delivery.handle_kernel(&sample, Some(asked), asked + S / 5 * vote);
        }
        assert_eq!(delivery.since(asked), asked + S / 5, "acknowledged with the second sample");
    }

    #[test]
    fn what_was_written_is_told_by_what_was_sent_as_far_as_the_segments_in_flight_reach() {
        let sample = |sent, again| KernelSample {
            bytes_sent: Some(sent),
            bytes_retrans: Some(again),
            ..queue(5000, 70)
        };
        assert_eq!(queue(5000, 70).written(), Some(6070), "an old kernel");
        assert_eq!(sample(5400, 0).written(), Some(5470));
        assert_eq!(sample(7400, 2000).written(), Some(5470), "sent again");
        // Counted as sent again, and not as sent, because there was no memory for it.
        assert_eq!(sample(7400, 9000).written(), Some(5070));
        assert_eq!(sample(9400, 0).written(), Some(6070));
    }
}
