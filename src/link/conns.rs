//! The connections of a link: which of them carries which lane, and which of them stay.
//!
//! # Which stay
//! A slot of the pool holds one connection. When a second one joins it:
//!
//! | the incumbent | who opened the two | what happens |
//! |---|---|---|
//! | is suspect, or the newcomer was dialled to replace it | any | the incumbent is drained |
//! | is up | the same side twice | the incumbent is drained: its opener knows that it is gone |
//! | is up | one each | the one opened by the smaller `PeerId` stays; but an incumbent that should stay is probed first, and if it does not answer it is drained instead |
//!
//! Both sides see the same two connections and come to the same choice. Until they have, both
//! connections serve.

use std::time::Instant;

use crate::health::liveness::Liveness;
use crate::health::pace::Pace;
use crate::id::{ConnId, PeerId};
use crate::wire::control::GoawayReason;

use super::effects::{Effects, Notice};
use super::{Awaited, Link, Violation};

/// Pongs that nobody asked for before the connection ends.
const MAX_STRIKES: u32 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Draining {
    /// We said or will say GOAWAY.
    ByUs { reason: GoawayReason, said: bool },
    /// The peer said it.
    ByPeer(GoawayReason),
}

#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) id: ConnId,
    pub(crate) slot: u8,
    /// Whether this side dialled.
    pub(crate) dialled: bool,
    pub(crate) liveness: Liveness,
    pub(crate) pace: Pace,
    /// The pong to send.
    pub(crate) pong: Option<u64>,
    /// The ping to send.
    pub(crate) ping: Option<u64>,
    /// Something of ours came through: the way there and back works.
    pub(crate) proven: bool,
    /// Its writer sleeps until it is woken.
    pub(crate) idle: bool,
    draining: Option<(Draining, Instant)>,
    /// The link has asked for its end, and will not ask again.
    closing: bool,
    /// The peer has said its last word.
    goaway_heard: bool,
    /// This newcomer goes if the incumbent shows a sign of life after the instant.
    contest: Option<(ConnId, Instant)>,
}

impl Conn {
    pub(crate) fn new(id: ConnId, slot: u8, dialled: bool, liveness: Liveness, pace: Pace) -> Self {
        Conn {
            id,
            slot,
            dialled,
            liveness,
            pace,
            pong: None,
            ping: None,
            proven: false,
            idle: false,
            draining: None,
            closing: false,
            goaway_heard: false,
            contest: None,
        }
    }

    pub(crate) fn draining(&self) -> Option<Draining> {
        self.draining.map(|(draining, _)| draining)
    }

    pub(super) fn has_heard_goaway(&self) -> bool {
        self.goaway_heard
    }

    pub(crate) fn drain_deadline(&self) -> Option<Instant> {
        self.draining.map(|(_, deadline)| deadline)
    }

    /// It is given up: it serves no longer, and waits for its end.
    pub(super) fn give_up(&mut self) {
        self.closing = true;
    }

    /// When something is due on it next.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let liveness = self.liveness.next_timeout();
        let next = self.drain_deadline().map_or(liveness, |deadline| deadline.min(liveness));
        (!self.closing).then_some(next)
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.closing
    }

    pub(crate) fn goaway_said(&mut self) {
        if let Some((Draining::ByUs { said, .. }, _)) = &mut self.draining {
            *said = true;
        }
    }

    /// Higher serves better; 0 does not serve at all.
    fn rank(&self) -> u8 {
        match (self.draining, self.liveness.is_suspect()) {
            _ if self.closing => 0,
            (Some(_), _) => 0,
            (None, true) => 1,
            (None, false) => 2,
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.rank() == 2
    }

    pub(crate) fn is_serving(&self) -> bool {
        self.rank() > 0
    }

    pub(crate) fn handle_pong(&mut self, nonce: u64, now: Instant) -> Result<(), Violation> {
        if self.liveness.handle_pong(nonce, now) {
            self.proven = true;
            return Ok(());
        }
        if self.liveness.strikes() > MAX_STRIKES { Err(Violation::TooManyUnaskedPongs) } else { Ok(()) }
    }

    /// Who opened it, in a form that both sides agree on.
    fn opener(&self, us: PeerId, peer: PeerId) -> PeerId {
        if self.dialled { us } else { peer }
    }
}

impl<T: Awaited, R> Link<T, R> {
    pub(crate) fn conns(&self) -> &[Conn] {
        &self.conns
    }

    pub(crate) fn conn_mut(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.conns.iter_mut().find(|conn| conn.id == id)
    }

    /// The connection that carries acknowledgements and cancellations: the best there is, and if
    /// there is no other, one that drains and has not said its last word.
    pub(super) fn control_conn(&self) -> Option<ConnId> {
        let speaks = |conn: &&Conn| {
            !conn.closing && !matches!(conn.draining(), Some(Draining::ByUs { said: true, .. }))
        };
        self.conns
            .iter()
            .filter(speaks)
            .max_by_key(|conn| (conn.rank(), std::cmp::Reverse(conn.id)))
            .map(|conn| conn.id)
    }

    pub(super) fn wake(&mut self, id: ConnId, fx: &mut Effects<T, R>) {
        if let Some(conn) = self.conn_mut(id)
            && std::mem::take(&mut conn.idle)
        {
            fx.wake.push(id);
        }
    }

    pub(super) fn wake_control(&mut self, fx: &mut Effects<T, R>) {
        if let Some(conn) = self.control_conn() {
            self.wake(conn, fx);
        }
    }

    /// A connection has joined: settles which connections of its slot stay.
    pub(super) fn settle_newcomer(
        &mut self,
        id: ConnId,
        replaces: bool,
        now: Instant,
        fx: &mut Effects<T, R>,
    ) {
        let (us, peer) = (self.settings.us, self.settings.peer);
        let Some(newcomer) = self.conn_mut(id) else { return };
        let (slot, opener) = (newcomer.slot, newcomer.opener(us, peer));
        let mut drained = Vec::new();
        let mut contest = None;
        for conn in
            self.conns.iter_mut().filter(|conn| conn.id != id && conn.slot == slot && conn.is_serving())
        {
            let theirs = conn.opener(us, peer);
            if replaces || !conn.is_up() || theirs == opener {
                drained.push((conn.id, GoawayReason::Replaced));
            } else if opener < theirs {
                drained.push((conn.id, GoawayReason::Duplicate));
            } else {
                conn.liveness.probe(now);
                contest = Some((conn.id, now));
            }
        }
        if let Some(newcomer) = self.conn_mut(id) {
            newcomer.contest = contest;
        }
        for (id, reason) in drained {
            self.drain(id, reason, now, fx);
        }
    }

    /// Ends the contests that are decided.
    pub(super) fn settle_contests(&mut self, now: Instant, fx: &mut Effects<T, R>) {
        let mut drained = Vec::new();
        for conn in &self.conns {
            let Some((incumbent, since)) = conn.contest else { continue };
            match self.conns.iter().find(|other| other.id == incumbent && other.is_serving()) {
                Some(incumbent) if incumbent.liveness.last_received() > since => {
                    drained.push((conn.id, Some((conn.id, GoawayReason::Duplicate))));
                }
                Some(incumbent) if incumbent.is_up() => {}
                Some(incumbent) => drained.push((conn.id, Some((incumbent.id, GoawayReason::Replaced)))),
                None => drained.push((conn.id, None)),
            }
        }
        for (contestant, loser) in drained {
            if let Some(conn) = self.conn_mut(contestant) {
                conn.contest = None;
            }
            if let Some((id, reason)) = loser {
                self.drain(id, reason, now, fx);
            }
        }
    }

    /// No new data on this connection; GOAWAY, then its orderly end.
    pub(crate) fn drain(&mut self, id: ConnId, reason: GoawayReason, now: Instant, fx: &mut Effects<T, R>) {
        let deadline = now + self.settings.drain_timeout;
        let Some(conn) = self.conn_mut(id).filter(|conn| conn.draining.is_none()) else { return };
        conn.draining = Some((Draining::ByUs { reason, said: false }, deadline));
        self.reassign(now, fx);
        self.wake(id, fx);
    }

    pub(super) fn handle_goaway(
        &mut self,
        id: ConnId,
        reason: GoawayReason,
        now: Instant,
        fx: &mut Effects<T, R>,
    ) {
        let deadline = now + self.settings.drain_timeout;
        let Some(conn) = self.conn_mut(id) else { return };
        conn.goaway_heard = true;
        // When both say it at once, ours is on its way already and the end is the same.
        if conn.draining.is_none() {
            conn.draining = Some((Draining::ByPeer(reason), deadline));
        }
        fx.notices.push(Notice::Goaway(id, reason));
        self.reassign(now, fx);
        self.wake(id, fx);
    }

    /// A connection has ended, for whatever reason.
    pub(crate) fn handle_conn_ended(&mut self, id: ConnId, now: Instant, fx: &mut Effects<T, R>) {
        let before = self.conns.len();
        self.conns.retain(|conn| conn.id != id);
        if self.conns.len() == before {
            return; // The link had let go of it already.
        }
        if self.conns.is_empty() {
            self.down_since = Some(now);
        }
        // What it carried last may not have arrived.
        self.retell(now, fx);
        self.reassign(now, fx);
        self.settle_contests(now, fx);
    }

    /// Gives every lane the best connection. A lane stays where it is as long as nothing is better;
    /// when it moves it goes back to what the peer has acknowledged. When what speaks for the link moves,
    /// all is told again there.
    pub(super) fn reassign(&mut self, now: Instant, fx: &mut Effects<T, R>) {
        let lanes = self.lanes.len();
        for index in 0..lanes {
            let current = self.lanes.get(index).and_then(|lane| lane.conn);
            let best = self
                .conns
                .iter()
                .filter(|conn| conn.is_serving())
                .max_by_key(|conn| (conn.rank(), Some(conn.id) == current, std::cmp::Reverse(conn.id)))
                .map(|conn| conn.id);
            if best == current {
                continue;
            }
            if let Some(lane) = self.lanes.get_mut(index) {
                lane.conn = best;
                lane.out.rewind();
            }
            best.into_iter().for_each(|conn| self.wake(conn, fx));
        }
        let control = self.control_conn();
        if control != self.control {
            self.control = control;
            self.retell(now, fx);
        }
        for conn in &mut self.conns {
            let carries =
                self.lanes.iter().any(|lane| lane.conn == Some(conn.id) && lane.out.outstanding() > 0);
            if !carries {
                conn.liveness.handle_progress(now, false);
            }
        }
    }

    /// Nothing that was told to the peer may be relied upon: tell it all again.
    pub(super) fn retell(&mut self, now: Instant, fx: &mut Effects<T, R>) {
        self.lanes.iter_mut().for_each(|lane| lane.inb.retell());
        self.ack_due = Some(now);
        self.wake_control(fx);
    }
}
