//! The link as its connections and the monitor use it.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};

use super::{LinkHandle, LinkInner};
use crate::clock;
use crate::conn::{ConnHandle, Port, tcp_info, writer};
use crate::error::{EndCause, EndReason, Initiator};
use crate::health::liveness::Ending;
use crate::id::{ConnId, Incarnation};
use crate::link::{AttachError, Draining, NewConn, Notice, Transmit, Violation, Writes};
use crate::lock::Guard;
use crate::node::event::Event;
use crate::node::shared::Report;
use crate::outcome::DropReason;
use crate::roster::ReplaceReason;
use crate::wire::batch::Batch;
use crate::wire::control::{GoawayReason, Hello};
use crate::wire::frame::Frame;

/// A connection over which the other side said so many bytes carried more than a handshake and a ping.
const USEFUL: u64 = 16 * 1024;

impl LinkHandle {
    /// `slot` and `replaces` count for the side that dials.
    pub(crate) fn hello(&self, incarnation: Incarnation, slot: u8, replaces: bool) -> Hello {
        self.update(|core| core.link.hello(incarnation, slot, replaces))
    }

    /// This connection is to be replaced while it serves: the roster sees it as troubled, and dials its
    /// successor, whose HELLO says so.
    pub(crate) fn retire(&self, conn: ConnId, why: ReplaceReason) {
        self.update(|core| {
            if core.life.retiring.iter().all(|(id, _)| *id != conn) {
                core.life.retiring.push((conn, why));
            }
        });
    }

    /// This connection needs no successor for that reason any longer.
    pub(crate) fn keep(&self, conn: ConnId, why: ReplaceReason) {
        self.update(|core| core.life.retiring.retain(|retiring| *retiring != (conn, why)));
    }

    /// Joins a connection to the link. When connections of another life of the peer are to be probed
    /// first, waits for the outcome, at most until `deadline`.
    pub(crate) fn attach(
        self: &Arc<Self>,
        new: &NewConn<Arc<ConnHandle>>,
        deadline: Instant,
    ) -> Result<(), EndReason> {
        let conn = &new.handle;
        let segment = tcp_info::read(&conn.socket).map_or(0, |sample| sample.snd_mss as usize);
        loop {
            let (result, heard) = self.with(|core, now, output| {
                let returns = core.link.is_detached() && core.life.joined > 0;
                let result = core.link.attach(new, now, output);
                core.probing += u32::from(matches!(result, Err(AttachError::Probing(_))));
                if result.is_ok() {
                    core.link.set_address(conn.id, conn.addr().ip(), segment);
                    if returns {
                        core.life.score.handle_reconnected(now);
                    }
                    conn.messages_before.store(core.link.counters.messages_received, Relaxed);
                    core.life.joined += 1;
                    core.life.name.clone_from(&new.theirs.name);
                    // Under the lock, so that it comes before whatever is seen of the link afterwards.
                    let (peer, addr, dialled) = (self.peer, conn.addr(), conn.dialled);
                    self.shared.tell(Event::Connected { peer, conn: conn.id, addr, dialled });
                }
                (result.map(|()| core.link.next_timeout()), core.heard)
            });
            let refuse = |cause| Err(EndReason::new(Initiator::Library, cause));
            match result {
                Ok(timeout) => {
                    self.look_at(timeout);
                    return Ok(());
                }
                Err(AttachError::Probing(until)) => {
                    self.look_now();
                    let mut core = self.core.lock();
                    let over = clock::now() >= deadline || conn.reason().is_some();
                    if !over && core.heard == heard {
                        Guard::wait_until(&mut core, &self.changed, until.min(deadline));
                    }
                    core.probing -= 1;
                    if over {
                        core.link.stop_probing();
                        return refuse(EndCause::HandshakeTimeout);
                    }
                }
                Err(AttachError::Retry) => return refuse(EndCause::Retry),
                Err(AttachError::Closed) => return refuse(EndCause::Shutdown),
                Err(AttachError::IncumbentAlive) => return refuse(EndCause::IdentityInUse),
                Err(AttachError::Violation(violation)) => {
                    return refuse(violation.into_cause());
                }
            }
        }
    }

    /// The connection's threads are done.
    pub(crate) fn detach(self: &Arc<Self>, conn: &ConnHandle, reason: &EndReason) {
        let received = conn.bytes_received.load(Relaxed);
        let (proven, proof, useful) = self.with(|core, now, output| {
            let state = core.link.conn(conn.id).filter(|state| state.proven);
            let (proven, slot) = (state.is_some(), state.map(|state| state.slot));
            let proof = slot.filter(|_| !core.life.proofs.contains(&conn.id));
            let useful = slot.filter(|_| received >= USEFUL);
            core.life.proofs.retain(|id| *id != conn.id);
            core.life.retiring.retain(|(id, _)| *id != conn.id);
            core.link.handle_conn_ended(conn.id, ending(reason), now, output);
            core.life.bytes_sent += conn.bytes_sent.load(Relaxed);
            core.life.bytes_received += conn.bytes_received.load(Relaxed);
            core.life.last_end = Some(reason.clone());
            if !matches!(reason.cause, EndCause::Goaway(goodbye) if goodbye.is_changeover()) {
                core.life.last_loss = Some(reason.clone());
            }
            (proven, proof, useful)
        });
        self.changed.notify_all();
        self.shared.progress();
        let reason = reason.clone();
        self.shared.report(Report::Ended { peer: self.peer, conn: conn.id, reason, proven, proof, useful });
    }

    /// The monitor's round: deadlines of connections, timers of the link, and whether credit is withheld.
    /// Returns when to look again, and what the node is to hear of.
    pub(crate) fn tick(self: &Arc<Self>) -> (Option<Instant>, Vec<Notice>) {
        let now = clock::now();
        let (conns, limits, frame_timeout) =
            self.inspect(|core| (core.handles(), core.path.write_limits(), core.path.dead_after));
        let mut deadline = None;
        for conn in conns {
            // Without the lock: it may ask the kernel.
            match conn.check_deadlines(now, limits, frame_timeout) {
                Ok(next) => deadline = deadline.into_iter().chain(next).min(),
                Err(cause) => conn.end(EndReason::new(Initiator::Library, cause)),
            }
        }
        let mut notices = Vec::new();
        let next = self.with_notices(
            &mut notices,
            // An acknowledgement or a ping, for which no thread need be woken.
            |conn| writer::write_now(conn, self, now),
            |core, now, output| {
                for conn in core.handles() {
                    if let Some(at) = conn.last_received() {
                        core.link.handle_received(conn.id, at, output);
                    }
                }
                core.link.handle_timeout(now, output);
                core.link.next_timeout()
            },
        );
        (deadline.into_iter().chain(next).min(), notices)
    }

    pub(crate) fn handle_pause(&self, gap: Duration, now: Instant) {
        self.update(|core| {
            core.link.handle_pause(gap, now);
            core.link.handles().for_each(|conn| conn.handle_pause(gap));
        });
    }

    /// Says goodbye on every connection.
    pub(crate) fn drain_all(self: &Arc<Self>, reason: GoawayReason) {
        self.with(|core, now, output| {
            for conn in core.handles() {
                core.link.drain(conn.id, reason, now, output);
            }
        });
        self.look_now();
    }

    /// Says goodbye on one connection.
    pub(crate) fn drain_one(self: &Arc<Self>, conn: ConnId, reason: GoawayReason) {
        self.with(|core, now, output| core.link.drain(conn, reason, now, output));
        self.look_now();
    }

    /// Ends every connection at once.
    pub(crate) fn end_all(&self, reason: &EndReason) {
        let conns = self.inspect(LinkInner::handles);
        conns.iter().for_each(|conn| conn.end(reason.clone()));
    }

    /// Ends the link: everything that was accepted ends with `reason`.
    pub(crate) fn close(self: &Arc<Self>, reason: DropReason) {
        let waiting = self.with(|core, _, output| {
            core.link.close(reason, output);
            self.ended.store(true, SeqCst);
            core.lines.iter().flat_map(|line| line.turns()).cloned().collect::<Vec<_>>()
        });
        waiting.iter().for_each(|turn| turn.wake());
        self.changed.notify_all();
    }
}

/// The kind of an end, as far as it tells about the path.
fn ending(reason: &EndReason) -> Ending {
    match (reason.by, &reason.cause) {
        (Initiator::Peer, EndCause::Closed) => Ending::Closed,
        (Initiator::Network, EndCause::Io { .. }) => Ending::Failed,
        _ => Ending::Deliberate,
    }
}

impl Port for Arc<LinkHandle> {
    fn poll_transmit(&self, conn: ConnId, writes: Writes, batch: &mut Batch) -> Transmit {
        let (transmit, timeout) = self.with(|core, now, output| {
            let LinkInner { link, receipts, .. } = core;
            let is_awaited = |tokens| receipts.is_awaited(tokens);
            let transmit = link.poll_transmit(conn, writes, now, batch, is_awaited, output);
            // Frames that are sent are to be answered in time.
            let timeout = if batch.is_empty() { None } else { core.link.next_timeout() };
            (transmit, timeout)
        });
        self.look_at(timeout);
        transmit
    }

    fn handle_frames(&self, conn: ConnId, frames: &mut Vec<Frame>, at: Instant) -> Result<(), Violation> {
        // Acknowledgements and pongs go out on this thread if the writer sleeps.
        let wake = |conn: &Arc<ConnHandle>| writer::write_now(conn, self, at);
        let (result, probing) = self.with_writers(wake, |core, _, output| {
            core.link.handle_received(conn, at, output);
            core.heard += u64::from(core.probing > 0);
            let mut frames = frames.drain(..);
            (frames.try_for_each(|frame| core.link.handle_frame(conn, frame, at, output)), core.probing > 0)
        });
        if probing {
            self.changed.notify_all();
        }
        result
    }

    fn is_draining(&self, conn: ConnId) -> Option<EndReason> {
        self.inspect(|core| {
            let conn = core.link.conn(conn)?;
            let (by, reason) = match conn.draining()? {
                Draining::ByPeer(reason) => (Initiator::Peer, reason),
                Draining::ByUs { reason, .. } => (Initiator::Library, reason),
            };
            Some(EndReason::new(by, EndCause::Goaway(reason)))
        })
    }

    fn watch_until(&self, deadline: Instant) {
        self.look_at(Some(deadline));
    }
}
