//! The pool: which connections of a link stay, which of them carries which lane, and how one takes the
//! place of another.
//!
//! # Slots
//! A link has up to three slots, and a slot holds one connection. The dialer says in HELLO which slot its
//! connection is for, and which connection, if any, it is to replace. Until both sides have come to the same
//! choice all of them serve. When a connection joins a slot that has one:
//!
//! | the incumbent | who opened the two | what happens |
//! |---|---|---|
//! | is named by the newcomer, or is suspect | any | it is drained when the newcomer has proved itself; the newcomer goes if it does not answer and the incumbent does again |
//! | is up | the same side twice | it is drained at once: its opener knows that it is gone |
//! | is up | one each | the one opened by the smaller `PeerId` stays; but an incumbent that should stay is probed first, and if it does not answer it is drained instead |
//!
//! Both sides see the same connections and come to the same choice. A newcomer *proves itself* by a PONG, or
//! by an acknowledgement of data that it carried; one that names an incumbent only by the PONG to a padded
//! PING (see [`super::paths`]). If it never does, the incumbent stays as long as it lives.
//!
//! # Which connection carries a lane
//! The best by rank, and among equals the one of the lane's home slot
//! ([`preference`](super::conns::preference)):
//!
//! | rank | connection |
//! |---|---|
//! | 4 | up and proven |
//! | 3 | up, but its score is poor |
//! | 2 | up, not proven yet |
//! | 1 | suspect |
//! | 0 | draining, or given up: carries nothing |
//!
//! Among equals an urgent lane goes by one that is not *stalled*, whatever its home. A connection is stalled
//! while the kernel sends again after a timeout (RFC 6298): a single small segment that is lost has nothing
//! behind it that would tell of the loss sooner, and where a bulk transfer keeps the queue on the way full,
//! the next tries are lost too. 64 kbit/s, two connections: a vote waited for 10 s (measured). The data that
//! is sent twice for it is small; the other lanes stay.
//!
//! So the lanes of a slot that dies move at once to the best survivor, and back when the slot has a
//! connection that has proved itself: the urgent ones at once, the others when the peer has acknowledged what
//! they have sent, because it would be sent twice. A lane that moves goes on from what the peer has
//! acknowledged: on every connection its chunks begin at or before what the receiver has, and are contiguous
//! from there. It follows that both sides may choose freely, without agreeing first.
//!
//! # Acknowledgements
//! Data that arrives on a connection is acknowledged on it as long as it is up, else by the best there is. So
//! the missing acknowledgement of a black hole speaks of that hole, and no other connection becomes suspect
//! for it. When the way of a lane's acknowledgements changes, its state is told again.

use std::time::Instant;

use crate::health::liveness::Ending;
use crate::id::ConnId;
use crate::wire::control::GoawayReason;

use super::conns::Draining;
use super::output::{Notice, Output};
use super::{Link, Token};

impl<T: Token, R, C: Clone> Link<T, R, C> {
    // --- which stay ----------------------------------------------------------------------------

    /// A connection has joined: settles which connections of its slot stay.
    pub(super) fn settle_newcomer(
        &mut self,
        id: ConnId,
        replaces: Option<u64>,
        now: Instant,
        output: &mut Output<T, R, C>,
    ) {
        let (us, peer) = (self.settings.us, self.settings.peer);
        let Some(newcomer) = self.conns.by_id(id) else { return };
        let (slot, opener) = (newcomer.slot, newcomer.opener(us, peer));
        let (mut drained, mut succeeds, mut contests) = (Vec::new(), Vec::new(), Vec::new());
        for conn in
            self.conns.iter_mut().filter(|conn| conn.id != id && conn.slot == slot && conn.is_serving())
        {
            let theirs = conn.opener(us, peer);
            if replaces == Some(conn.token) || !conn.is_up() {
                succeeds.push(conn.id);
            } else if theirs == opener {
                drained.push((conn.id, GoawayReason::Replaced));
            } else if opener < theirs {
                drained.push((conn.id, GoawayReason::Duplicate));
            } else {
                conn.liveness.probe(now);
                contests.push((conn.id, now));
            }
        }
        if let Some(newcomer) = self.conns.by_id(id) {
            newcomer.contests = contests;
            newcomer.succeeds = succeeds;
        }
        for (id, reason) in drained {
            self.drain(id, reason, now, output);
        }
    }

    /// Something of ours was answered on this connection.
    pub(super) fn handle_proven(&mut self, id: ConnId, now: Instant, output: &mut Output<T, R, C>) {
        let Some(conn) = self.conns.by_id(id).filter(|conn| !conn.proven) else { return };
        conn.proven = true;
        output.notices.push(Notice::PoolChanged);
        let slot = conn.slot;
        for old in std::mem::take(&mut conn.succeeds) {
            if self.conns.iter().any(|conn| conn.id == old && conn.slot == slot && conn.is_serving()) {
                output.notices.push(Notice::Replaced { old, new: id });
                self.drain(old, GoawayReason::Replaced, now, output);
            }
        }
        self.reassign(now, output);
    }

    /// Ends the contests that are decided.
    pub(super) fn settle_contests(&mut self, now: Instant, output: &mut Output<T, R, C>) {
        let mut drained = Vec::new();
        for index in 0..self.conns.len() {
            let Some(conn) = self.conns.get_mut(index) else { break };
            let (newcomer, contests) = (conn.id, std::mem::take(&mut conn.contests));
            let open = contests.into_iter().filter(|(incumbent, since)| {
                let serving = self.conns.iter().find(|conn| conn.id == *incumbent && conn.is_serving());
                let loser = match serving {
                    Some(incumbent) if incumbent.liveness.last_received() > *since => {
                        Some((newcomer, GoawayReason::Duplicate))
                    }
                    Some(incumbent) if incumbent.is_up() => return true,
                    Some(incumbent) => Some((incumbent.id, GoawayReason::Replaced)),
                    None => None,
                };
                drained.extend(loser);
                false
            });
            let open = open.collect();
            if let Some(conn) = self.conns.get_mut(index) {
                conn.contests = open;
            }
        }
        for (id, reason) in drained {
            self.drain(id, reason, now, output);
        }
    }

    /// Its score has fallen below, or risen above, what is worth keeping.
    pub(crate) fn set_poor(&mut self, id: ConnId, poor: bool, now: Instant, output: &mut Output<T, R, C>) {
        if let Some(conn) = self.conns.by_id(id)
            && std::mem::replace(&mut conn.poor, poor) != poor
        {
            self.reassign(now, output);
        }
    }

    /// No new data on this connection; GOAWAY, then its orderly end.
    pub(crate) fn drain(
        &mut self,
        id: ConnId,
        reason: GoawayReason,
        now: Instant,
        output: &mut Output<T, R, C>,
    ) {
        let drain_timeout = self.settings.drain_timeout;
        let Some(conn) = self.conns.by_id(id) else { return };
        // Bytes in the queue of one that does not answer would only compete with its successor.
        let suspect = conn.liveness.is_suspect();
        let time = if suspect { drain_timeout.min(conn.liveness.patience()) } else { drain_timeout };
        let deadline = now + time;
        if conn.start_draining(Draining::ByUs { reason, said: false }, deadline) {
            output.notices.push(Notice::PoolChanged);
            self.reassign(now, output);
            self.conns.wake(id, output);
        }
    }

    pub(super) fn handle_goaway(
        &mut self,
        id: ConnId,
        reason: GoawayReason,
        now: Instant,
        output: &mut Output<T, R, C>,
    ) {
        let deadline = now + self.settings.drain_timeout;
        let Some(conn) = self.conns.by_id(id) else { return };
        conn.goaway_heard = true;
        // When both say it at once, ours is on its way already and the end is the same.
        conn.start_draining(Draining::ByPeer(reason), deadline);
        output.notices.push(Notice::Goaway(id, reason));
        // To the other side its successor has proved itself.
        if reason == GoawayReason::Replaced
            && let Some(successor) = self.conns.iter_mut().find(|conn| conn.succeeds.contains(&id))
        {
            successor.succeeds.retain(|old| *old != id);
            let new = successor.id;
            output.notices.push(Notice::Replaced { old: id, new });
            self.handle_proven(new, now, output);
        }
        self.reassign(now, output);
        self.conns.wake(id, output);
    }

    /// A connection has ended, for whatever reason.
    pub(crate) fn handle_conn_ended(
        &mut self,
        id: ConnId,
        ending: Ending,
        now: Instant,
        output: &mut Output<T, R, C>,
    ) {
        self.learn_from(id, ending, now, output);
        self.remember_path(id);
        if !self.conns.remove(id) {
            return;
        }
        if self.conns.is_empty() {
            self.down_since = Some(now);
        }
        // Its last bytes may not have arrived.
        self.resync(now, output);
        self.reassign(now, output);
        self.settle_contests(now, output);
    }

    // --- which carries what ---------------------------------------------------------------------

    /// Assigns every lane, and its acknowledgements, to the best connection.
    pub(super) fn reassign(&mut self, now: Instant, output: &mut Output<T, R, C>) {
        for lane in &mut self.lanes {
            lane.reassign(&mut self.conns, output);
            lane.route_acks(&mut self.conns, now, output);
        }
        for conn in self.conns.iter_mut() {
            let carries =
                self.lanes.iter().any(|lane| lane.conn == Some(conn.id) && lane.out.outstanding() > 0);
            if !carries {
                conn.liveness.handle_progress(now, false);
            }
        }
    }

    /// Nothing that was announced to the peer may be relied upon: announces everything again.
    pub(super) fn resync(&mut self, now: Instant, output: &mut Output<T, R, C>) {
        self.lanes.iter_mut().for_each(|lane| lane.resync(&mut self.conns, now, output));
    }
}
