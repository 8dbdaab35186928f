//! How the connections do: what the kernel tells of them, what they score, what their deaths teach.
//!
//! While an answer is awaited on a connection, or it does poorly, the link asks for a *look* at it twice
//! per `suspect_after` (every 0.5 s by default). A look finds a hole that swallows only what we send, and
//! moves the score; a connection whose score is poor ranks below any that does well, and is to be replaced.

use std::time::{Duration, Instant};

use crate::health::keepalive::{Keepalive, LearnedInterval};
use crate::health::kernel::KernelSample;
use crate::health::liveness::{Ending, Limits};
use crate::health::score::Change;
use crate::id::ConnId;

use super::conns::Conn;
use super::output::{Notice, Output};
use super::{Link, Token};

/// A sample of a connection, taken from outside.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConnSample {
    /// `None` where the system has no such statistics.
    pub(crate) kernel: Option<KernelSample>,
    /// How long its writer stood blocked since the last look.
    pub(crate) blocked: Duration,
}

impl<T: Token, R, C: Clone> Link<T, R, C> {
    /// Asks for looks at the connections where one is due.
    pub(super) fn request_samples(&mut self, now: Instant, output: &mut Output<T, R, C>) {
        let every = self.settings.sample_interval();
        let watched = self.conns.iter_mut().filter(|conn| conn.is_watched());
        watched.for_each(|conn| conn.request_sample(every, now, output));
    }

    pub(crate) fn handle_sample(
        &mut self,
        id: ConnId,
        look: &ConnSample,
        now: Instant,
        output: &mut Output<T, R, C>,
    ) {
        let crowded = self.others_by_path(id).any(|conn| conn.score.filled_of_late(now));
        let rtt = self.others_by_path(id).map(|conn| conn.liveness.kernel_rtt()).max().unwrap_or_default();
        let Some(conn) = self.conns.by_id(id) else { return };
        let was_stalled = conn.liveness.is_stalled();
        conn.score.handle_write_blocked(look.blocked, now);
        if let Some(kernel) = &look.kernel {
            conn.score.set_crowded(crowded);
            conn.liveness.set_path_rtt(rtt);
            conn.liveness.handle_kernel(kernel, now);
            conn.score.handle_kernel(kernel, now);
        }
        let stall_changed = conn.liveness.is_stalled() != was_stalled;
        let change = conn.score.poll(now);
        if let Some(change) = change {
            let poor = change == Change::Poor;
            output.notices.push(if poor { Notice::ConnDegraded(id) } else { Notice::ConnHealthy(id) });
            self.set_poor(id, poor, now, output);
        }
        if stall_changed {
            self.reassign(now, output);
        }
        self.handle_timeout(now, output);
    }

    /// Whether a successor of this suspect connection would only wait in the same queue, and lengthen it:
    /// another connection by the same path fills that queue, and its data moves. For half of `dead_after`
    /// at most.
    pub(crate) fn is_queued_out(&self, id: ConnId, now: Instant) -> bool {
        let conn = self.conns.iter().find(|conn| conn.id == id);
        let longest = self.settings.liveness.dead_after / 2;
        let recently = |since| now.saturating_duration_since(since) < longest;
        conn.and_then(|conn| conn.liveness.suspect_since()).is_some_and(recently)
            && self.others_by_path(id).any(|conn| conn.is_up() && conn.score.filled_of_late(now))
    }

    /// The other connections to the same address.
    fn others_by_path(&self, id: ConnId) -> impl Iterator<Item = &Conn<C>> {
        let address = self.conns.iter().find(|conn| conn.id == id).and_then(|conn| conn.address);
        let same = move |conn: &&Conn<C>| address.is_some() && conn.address == address && conn.id != id;
        self.conns.iter().filter(same)
    }

    /// The settings for connections that join from now on.
    pub(crate) fn set_path(&mut self, liveness: Limits, min_ping_interval: Duration, max_chunk: usize) {
        self.settings.liveness = liveness;
        self.settings.max_chunk = max_chunk;
        self.keepalive.configure(liveness.ping_interval, min_ping_interval);
    }

    /// A connection has ended: how long was its path silent before?
    pub(super) fn learn_from(
        &mut self,
        id: ConnId,
        ending: Ending,
        now: Instant,
        output: &mut Output<T, R, C>,
    ) {
        let Some(conn) = self.conns.by_id(id) else { return };
        let since = conn.liveness.unanswered_since().unwrap_or(now);
        let silences = conn.liveness.silences(ending, now);
        self.keepalive.handle_ended(silences);
        // Otherwise the next connection tells whether the peer lives.
        let lives = |conn: &Conn<C>| conn.id != id && conn.liveness.last_received() > since;
        if self.conns.iter().any(lives) {
            self.settle_lessons(now, output);
        }
    }

    /// The peer lives: what ended did not end with it.
    pub(super) fn settle_lessons(&mut self, now: Instant, output: &mut Output<T, R, C>) {
        if self.keepalive.handle_peer_lives(now) {
            let interval = self.keepalive.interval(now);
            self.conns.iter_mut().for_each(|conn| conn.liveness.set_ping_interval(interval, now));
            output.notices.push(Notice::Learned { ping_interval: interval });
        }
    }

    /// The time between pings at present.
    pub(crate) fn ping_interval(&self, now: Instant) -> Duration {
        self.keepalive.interval(now)
    }

    /// The lesson of the path, to be kept.
    pub(crate) fn learned(&self, now: Instant) -> Option<LearnedInterval> {
        self.keepalive.save(now)
    }

    /// Goes on from what was learned in an earlier life.
    pub(crate) fn restore_learned(&mut self, learned: LearnedInterval, now: Instant) {
        let (configured, least) = (self.settings.liveness.ping_interval, self.settings.min_ping_interval);
        self.keepalive = Keepalive::restore(configured, least, learned, now);
    }
}
