//! A link with its lock, and what its effects mean for the threads around it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use crate::clock;
use crate::config::PathConfig;
use crate::conn::{ConnHandle, Port, tcp_info};
use crate::error::{EndCause, EndReason, Initiator, SendError, SendErrorKind};
use crate::id::{ConnId, Incarnation, PeerId};
use crate::lane::LaneId;
use crate::link::{
    AttachError, CloseReason, Draining, Effects, Link, Look, NewConn, Notice, Parcel, Purpose, Refused,
    ReplyResult, Settings, Ticket, Transmit, Violation,
};
use crate::outcome::{DropReason, RequestError};
use crate::receipt::{OnceCell, Receipt, Token};
use crate::roster::{LinkView, ReplaceReason};
use crate::wire::batch::Batch;
use crate::wire::control::{GoawayReason, Hello};
use crate::wire::frame::Frame;
use crate::wire::stream::MessageKind;

use super::budget::{NoRoom, Patience};
use super::event::Event;
use super::hub::{Hub, Report};
use super::message::Message;

/// Where a reply is waited for.
pub(crate) type Waiter = Arc<OnceCell<ReplyResult>>;
type Fx = Effects<Token, Waiter>;

pub(crate) struct LinkHandle {
    pub(crate) peer: PeerId,
    pub(crate) hub: Arc<Hub>,
    /// Protects the conversation and the list of its connections. Held for computations only, never
    /// across a system call.
    core: Mutex<Core>,
    /// A queue got room, or the link ended.
    space: Condvar,
    /// A connection joined, ended, or was heard of while it is probed.
    changed: Condvar,
    /// Lanes (bit = index) that the mailbox has in its lists.
    pub(crate) listed: AtomicU64,
    /// Whether new credit is withheld.
    withheld: AtomicBool,
}

pub(crate) struct Core {
    pub(crate) link: Link<Token, Waiter>,
    pub(crate) conns: Vec<Arc<ConnHandle>>,
    /// The behaviour towards this peer.
    pub(crate) path: PathConfig,
    /// Newcomers that wait until the connections of another life of the peer have answered, or not.
    probing: u32,
    /// What the node needs to remember of the link's life.
    pub(crate) life: Life,
}

/// The history of a link, for snapshots and events.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) made: Instant,
    pub(crate) name: String,
    pub(crate) announced: LinkState,
    pub(crate) since: Option<Instant>,
    pub(crate) joined: u64,
    pub(crate) last_end: Option<EndReason>,
    /// What the roster was told.
    pub(crate) announced_to_roster: Option<LinkView>,
    /// Connections of which the roster was told that they are proven.
    pub(crate) proofs: Vec<ConnId>,
    /// Connections that serve and are to be replaced, and why.
    pub(crate) retiring: Vec<(ConnId, ReplaceReason)>,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
    pub(crate) score: crate::health::peer_score::PeerScore,
}

impl Life {
    fn new(made: Instant) -> Self {
        Life {
            made,
            name: String::new(),
            announced: LinkState::default(),
            since: None,
            joined: 0,
            last_end: None,
            announced_to_roster: None,
            proofs: Vec::new(),
            retiring: Vec::new(),
            bytes_sent: 0,
            bytes_received: 0,
            score: crate::health::peer_score::PeerScore::default(),
        }
    }
}

/// The state of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkState {
    /// It never had a connection.
    #[default]
    Connecting,
    /// It has a connection above suspicion.
    Up,
    /// All its connections that serve are suspect. (With none but draining ones the state stays what it was until they
    /// have ended.)
    Degraded,
    /// It has none. Messages wait.
    Down,
}

impl fmt::Debug for LinkHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl LinkHandle {
    pub(crate) fn new(settings: Settings, path: PathConfig, seed: u64, hub: Arc<Hub>) -> Self {
        let peer = settings.peer;
        LinkHandle {
            peer,
            hub,
            core: Mutex::new(Core {
                path,
                link: Link::new(settings, seed),
                conns: Vec::new(),
                probing: 0,
                life: Life::new(clock::now()),
            }),
            space: Condvar::new(),
            changed: Condvar::new(),
            listed: AtomicU64::new(0),
            withheld: AtomicBool::new(false),
        }
    }

    /// Does something under the lock and carries out what follows from it after the lock is released.
    fn with<A>(self: &Arc<Self>, act: impl FnOnce(&mut Core, Instant, &mut Fx) -> A) -> A {
        self.with_reserved(0, act)
    }

    /// The same for something that may take up to `reserved` bytes of the node's budget, which were set
    /// aside for it. What the queues do not hold afterwards goes back, whatever became of it.
    fn with_reserved<A>(
        self: &Arc<Self>,
        reserved: usize,
        act: impl FnOnce(&mut Core, Instant, &mut Fx) -> A,
    ) -> A {
        let now = clock::now();
        let mut fx = Fx::default();
        let mut core = self.core.lock();
        let (queued, held) = (core.link.queued_bytes(), core.link.held_bytes());
        let result = act(&mut core, now, &mut fx);
        let freed = (queued + reserved).saturating_sub(core.link.queued_bytes());
        let held_after = core.link.held_bytes();
        let wake: Vec<_> =
            fx.wake.iter().filter_map(|id| core.conns.iter().find(|conn| conn.id == *id).cloned()).collect();
        let close: Vec<_> = fx
            .notices
            .iter()
            .filter_map(|notice| match notice {
                Notice::Close(id, why) => {
                    core.conns.iter().find(|conn| conn.id == *id).map(|conn| (Arc::clone(conn), *why))
                }
                _ => None,
            })
            .collect();
        for (_, reply) in &fx.replies {
            match reply {
                Ok(_) => core.life.score.handle_request_answered(now),
                Err(RequestError::Timeout) => core.life.score.handle_request_timed_out(now),
                Err(_) => {}
            }
        }
        let look: Vec<_> =
            core.conns.iter().filter(|conn| fx.look.contains(&conn.id)).map(Arc::clone).collect();
        drop(core);
        wake.iter().for_each(|conn| conn.wake());
        close.iter().for_each(|(conn, why)| conn.end(close_reason(*why)));
        self.carry_out(fx, freed, held, held_after);
        look.iter().for_each(|conn| self.look_at(conn));
        result
    }

    /// Asks the kernel how a connection does.
    fn look_at(self: &Arc<Self>, conn: &ConnHandle) {
        let look = Look { kernel: tcp_info::read(&conn.socket), blocked: conn.take_blocked() };
        let next = self.with(|core, now, fx| {
            core.link.handle_look(conn.id, &look, now, fx);
            core.link.next_timeout()
        });
        next.into_iter().for_each(|at| self.hub.alarm.at(at));
    }

    fn carry_out(self: &Arc<Self>, fx: Fx, freed: usize, held: u64, held_after: u64) {
        let settled = !fx.ended.is_empty();
        fx.ended.into_iter().for_each(|(token, outcome, _)| token.end(outcome));
        fx.replies.into_iter().for_each(|(waiter, reply)| waiter.set(reply));
        self.hub.queued.release(freed);
        self.hub.inbox_changed(held, held_after);
        if fx.space {
            self.space.notify_all();
        }
        if settled {
            self.hub.progress();
        }
        if fx.arrived != 0 {
            self.hub.mailbox.announce(self, fx.arrived);
        }
        let heard = fx.notices.iter().any(|notice| !matches!(notice, Notice::Goaway(..)));
        if heard {
            self.changed.notify_all();
        }
        for notice in fx.notices {
            self.hub.report(Report::Link(self.peer, notice));
        }
    }

    /// Looks at the link without changing it.
    pub(crate) fn look<A>(&self, look: impl FnOnce(&Core) -> A) -> A {
        look(&self.core.lock())
    }

    /// Changes what the node remembers of the link, nothing in the conversation.
    pub(crate) fn note<A>(&self, note: impl FnOnce(&mut Core) -> A) -> A {
        note(&mut self.core.lock())
    }

    // --- the application ------------------------------------------------------------------------

    pub(crate) fn send(
        self: &Arc<Self>,
        parcel: Parcel,
        reply_by: Option<Instant>,
        patience: Patience,
    ) -> Result<(Receipt, Option<(u64, Waiter)>), SendError> {
        let (lane, len) = (parcel.lane, parcel.body.len());
        let cost = crate::link::cost_of(len);
        loop {
            if let Err(no_room) = self.hub.queued.reserve(cost, patience) {
                return Err(SendError::new(no_room_kind(no_room, patience), parcel.body));
            }
            let (token, receipt) = Token::new();
            let waiter: Option<Waiter> = reply_by.map(|_| OnceCell::new());
            let sent = self.with_reserved(cost, |core, now, fx| {
                let purpose = match (reply_by, &waiter) {
                    // The time that was spent waiting for room is part of the request's.
                    (Some(reply_by), Some(waiter)) => Purpose::Request {
                        wait: reply_by.saturating_duration_since(now),
                        waiter: Arc::clone(waiter),
                    },
                    _ => Purpose::Message,
                };
                let sent = core.link.send(parcel.clone(), purpose, token, now, fx);
                // A message with a deadline, a request, and what begins to wait for a peer that is away may
                // need the monitor earlier.
                let timed = parcel.deadline.is_some() || reply_by.is_some() || core.conns.is_empty();
                sent.map(|id| (id, timed.then(|| core.link.next_timeout()).flatten()))
            });
            let refused = match sent {
                Ok((id, timeout)) => {
                    timeout.into_iter().for_each(|at| self.hub.alarm.at(at));
                    return Ok((receipt, waiter.map(|waiter| (id, waiter))));
                }
                Err(refused) => refused,
            };
            if refused != Refused::Full || !self.wait_for_space(lane, len, patience) {
                return Err(SendError::new(self.refused_kind(refused, lane, len, patience), parcel.body));
            }
        }
    }

    /// Waits until a message of this size may fit. False when the sender's patience is over.
    fn wait_for_space(&self, lane: LaneId, len: usize, patience: Patience) -> bool {
        let mut core = self.core.lock();
        while !core.link.has_room(lane, len) {
            match patience {
                Patience::None => return false,
                Patience::Until(deadline) => {
                    if self.space.wait_until(&mut core, deadline).timed_out() {
                        return false;
                    }
                }
                Patience::Forever => self.space.wait(&mut core),
            }
        }
        !matches!(patience, Patience::None)
    }

    pub(crate) fn reply(
        self: &Arc<Self>,
        request: u64,
        ticket: Ticket,
        body: Bytes,
    ) -> Result<Receipt, SendError> {
        let cost = crate::link::cost_of(body.len());
        if let Err(no_room) = self.hub.queued.reserve(cost, Patience::None) {
            return Err(SendError::new(no_room_kind(no_room, Patience::None), body));
        }
        let (token, receipt) = Token::new();
        match self
            .with_reserved(cost, |core, _, fx| core.link.reply(request, ticket, body.clone(), token, fx))
        {
            Ok(()) => Ok(receipt),
            Err(refused) => Err(SendError::new(
                self.refused_kind(refused, crate::NORMAL, body.len(), Patience::None),
                body,
            )),
        }
    }

    pub(crate) fn cancel(self: &Arc<Self>, request: u64) {
        self.with(|core, _, fx| core.link.cancel(request, fx));
    }

    pub(crate) fn is_request_open(&self, request: u64, ticket: Ticket) -> bool {
        self.look(|core| core.link.is_request_open(request, ticket))
    }

    pub(crate) fn abandon(&self, request: u64, ticket: Ticket) {
        self.note(|core| core.link.abandon(request, ticket));
    }

    pub(crate) fn done(self: &Arc<Self>, lane: usize, ticket: Ticket) {
        self.with(|core, now, fx| core.link.done(lane, ticket, now, fx));
    }

    /// Takes up to `max` messages of a lane. True when there are more.
    pub(crate) fn take(self: &Arc<Self>, lane: usize, max: usize, mut give: impl FnMut(Message)) -> bool {
        let mut arrived = Vec::new();
        let (id, taken_when, more) = self.with(|core, now, fx| {
            while arrived.len() < max
                && let Some(next) = core.link.take(lane, now, fx)
            {
                arrived.push(next);
            }
            (core.link.lane_id(lane), core.link.taken_when(lane), core.link.inbox_len(lane) > 0)
        });
        for mut next in arrived {
            next.payload.unpin();
            give(Message {
                link: Arc::clone(self),
                lane: id,
                index: lane,
                incarnation: next.incarnation,
                payload: next.payload,
                request: match next.kind {
                    MessageKind::Request { id, .. } => Some(id),
                    _ => None,
                },
                ticket: next.ticket,
                taken_when,
            });
        }
        more
    }

    /// The behaviour towards this peer, as far as the application has set one, is known from now on: the
    /// link may have been made before it was known who the peer is.
    pub(crate) fn set_path(&self, path: &PathConfig) {
        self.note(|core| {
            core.link.set_path(path.into(), path.min_ping_interval, path.max_chunk);
            core.path.clone_from(path);
        });
    }

    pub(crate) fn path(&self) -> PathConfig {
        self.look(|core| core.path.clone())
    }

    // --- connections ----------------------------------------------------------------------------

    /// `slot` and `replaces` count for the side that dials.
    pub(crate) fn hello(&self, incarnation: Incarnation, slot: u8, replaces: bool) -> Hello {
        self.note(|core| core.link.hello(incarnation, slot, replaces))
    }

    /// This connection is to be replaced while it serves: the roster sees it as troubled, and dials its
    /// successor, whose HELLO says so.
    pub(crate) fn retire(&self, conn: ConnId, why: ReplaceReason) {
        self.note(|core| {
            if core.life.retiring.iter().all(|(id, _)| *id != conn) {
                core.life.retiring.push((conn, why));
            }
        });
    }

    /// Joins a connection to the link. When connections of another life of the peer are to be probed
    /// first, waits for the outcome, at most until `deadline`.
    pub(crate) fn attach(
        self: &Arc<Self>,
        conn: &Arc<ConnHandle>,
        new: &NewConn,
        deadline: Instant,
    ) -> Result<(), EndReason> {
        loop {
            let result = self.with(|core, now, fx| {
                let result = core.link.attach(new, now, fx);
                if result.is_ok() {
                    if core.conns.is_empty() && core.life.joined > 0 {
                        core.life.score.handle_reconnected(now);
                    }
                    core.conns.push(Arc::clone(conn));
                    core.life.joined += 1;
                    core.life.name.clone_from(&new.theirs.name);
                    // Under the lock, so that it comes before whatever is seen of the link afterwards.
                    let (peer, addr, dialled) = (self.peer, conn.addr, conn.dialled);
                    self.hub.mailbox.push_event(Event::Connected { peer, conn: conn.id, addr, dialled });
                }
                result.map(|()| core.link.next_timeout())
            });
            let refuse = |cause| Err(EndReason::new(Initiator::Library, cause));
            match result {
                Ok(timeout) => {
                    timeout.into_iter().for_each(|at| self.hub.alarm.at(at));
                    return Ok(());
                }
                Err(AttachError::Probing(until)) => {
                    self.hub.alarm.now();
                    let mut core = self.core.lock();
                    if clock::now() >= deadline || conn.reason().is_some() {
                        core.link.stop_probing();
                        return refuse(EndCause::HandshakeTimeout);
                    }
                    core.probing += 1;
                    self.changed.wait_until(&mut core, until.min(deadline));
                    core.probing -= 1;
                }
                Err(AttachError::Retry) => return refuse(EndCause::Retry),
                Err(AttachError::Closed) => return refuse(EndCause::Shutdown),
                Err(AttachError::IncumbentAlive) => {
                    return refuse(EndCause::Refused(
                        "another process with this identity is connected".into(),
                    ));
                }
                Err(AttachError::Violation(violation)) => {
                    return refuse(violation.into_cause());
                }
            }
        }
    }

    /// The connection's threads are done.
    pub(crate) fn detach(self: &Arc<Self>, conn: &ConnHandle, reason: &EndReason) {
        let (proven, proof) = self.with(|core, now, fx| {
            let state = core.link.conns().iter().find(|state| state.id == conn.id && state.proven);
            let (proven, slot) = (state.is_some(), state.map(|state| state.slot));
            let proof = slot.filter(|_| !core.life.proofs.contains(&conn.id));
            core.life.proofs.retain(|id| *id != conn.id);
            core.life.retiring.retain(|(id, _)| *id != conn.id);
            let reset = reason.by == Initiator::Network && matches!(reason.cause, EndCause::Io { .. });
            core.link.handle_conn_ended(conn.id, reset, now, fx);
            core.conns.retain(|other| other.id != conn.id);
            core.life.bytes_sent += conn.bytes_sent.load(std::sync::atomic::Ordering::Relaxed);
            core.life.bytes_received += conn.bytes_received.load(std::sync::atomic::Ordering::Relaxed);
            core.life.last_end = Some(reason.clone());
            (proven, proof)
        });
        self.changed.notify_all();
        self.hub.progress();
        let reason = reason.clone();
        self.hub.report(Report::Ended { peer: self.peer, conn: conn.id, reason, proven, proof });
    }

    /// The monitor's round: deadlines of connections, timers of the link. Gives when to look again.
    pub(crate) fn tick(self: &Arc<Self>) -> Option<Instant> {
        let (next, late) = self.with(|core, now, fx| {
            let (write_timeout, frame_timeout) = (core.path.write_timeout, core.path.dead_after);
            let mut next = None;
            let mut late = Vec::new();
            for conn in &core.conns {
                if let Some(at) = conn.last_received() {
                    core.link.handle_received(conn.id, at, fx);
                }
                match conn.check_deadlines(now, write_timeout, frame_timeout) {
                    Ok(deadline) => next = next.into_iter().chain(deadline).min(),
                    Err(cause) => late.push((Arc::clone(conn), cause)),
                }
            }
            core.link.handle_timeout(now, fx);
            (next.into_iter().chain(core.link.next_timeout()).min(), late)
        });
        late.into_iter().for_each(|(conn, cause)| conn.end(EndReason::new(Initiator::Library, cause)));
        next
    }

    pub(crate) fn handle_pause(&self, gap: Duration, now: Instant) {
        self.note(|core| {
            core.link.handle_pause(gap, now);
            core.conns.iter().for_each(|conn| conn.handle_pause(gap));
        });
    }

    /// Withholds new credit from the peer, or gives it again.
    pub(crate) fn set_withheld(self: &Arc<Self>, withheld: bool) {
        if self.withheld.swap(withheld, SeqCst) == withheld {
            return;
        }
        self.with(|core, now, fx| core.link.set_withheld(withheld, now, fx));
    }

    /// Says goodbye on every connection.
    pub(crate) fn drain_all(self: &Arc<Self>, reason: GoawayReason) {
        self.with(|core, now, fx| {
            for conn in &core.conns {
                core.link.drain(conn.id, reason, now, fx);
            }
        });
        self.hub.alarm.now();
    }

    /// Says goodbye on one connection.
    pub(crate) fn drain_one(self: &Arc<Self>, conn: ConnId, reason: GoawayReason) {
        self.with(|core, now, fx| core.link.drain(conn, reason, now, fx));
        self.hub.alarm.now();
    }

    /// Ends every connection at once.
    pub(crate) fn end_all(&self, reason: &EndReason) {
        let conns = self.look(|core| core.conns.clone());
        conns.iter().for_each(|conn| conn.end(reason.clone()));
    }

    /// Ends the link: everything that was accepted ends with `reason`.
    pub(crate) fn close(self: &Arc<Self>, reason: DropReason) {
        self.with(|core, _, fx| core.link.close(reason, fx));
        self.space.notify_all();
        self.changed.notify_all();
    }

    fn refused_kind(&self, refused: Refused, lane: LaneId, len: usize, patience: Patience) -> SendErrorKind {
        match refused {
            Refused::Full if matches!(patience, Patience::None) => SendErrorKind::Full,
            Refused::Full => SendErrorKind::Timeout,
            Refused::TooLarge { max } => SendErrorKind::TooLarge { len, max },
            Refused::NoLane => SendErrorKind::UnknownLane(lane),
            Refused::TooManyRequests { max } => SendErrorKind::TooManyRequests { max },
            Refused::NoSuchRequest => SendErrorKind::NoSuchRequest,
            // The link was given up, or the whole node is.
            Refused::Closed if self.hub.is_closed() => SendErrorKind::Closed,
            Refused::Closed => SendErrorKind::UnknownPeer(self.peer),
        }
    }
}

impl Drop for LinkHandle {
    /// Bytes of an unfinished message go with the link.
    fn drop(&mut self) {
        self.hub.inbox_changed(self.core.get_mut().link.held_bytes(), 0);
    }
}

impl Port for Arc<LinkHandle> {
    fn poll_transmit(&self, conn: ConnId, batch: &mut Batch) -> Transmit {
        let (transmit, timeout) = self.with(|core, now, fx| {
            let transmit = core.link.poll_transmit(conn, now, batch, fx);
            // What is sent is to be answered in time.
            let timeout = if batch.is_empty() { None } else { core.link.next_timeout() };
            (transmit, timeout)
        });
        timeout.into_iter().for_each(|at| self.hub.alarm.at(at));
        transmit
    }

    fn handle_frames(&self, conn: ConnId, frames: &mut Vec<Frame>, at: Instant) -> Result<(), Violation> {
        let (result, probing) = self.with(|core, _, fx| {
            core.link.handle_received(conn, at, fx);
            let mut frames = frames.drain(..);
            (frames.try_for_each(|frame| core.link.handle_frame(conn, frame, at, fx)), core.probing > 0)
        });
        if probing {
            self.changed.notify_all();
        }
        result
    }

    fn is_draining(&self, conn: ConnId) -> Option<EndReason> {
        self.look(|core| {
            let conn = core.link.conns().iter().find(|state| state.id == conn)?;
            let (by, reason) = match conn.draining()? {
                Draining::ByPeer(reason) => (Initiator::Peer, reason),
                Draining::ByUs { reason, .. } => (Initiator::Library, reason),
            };
            Some(EndReason::new(by, EndCause::Goaway(reason)))
        })
    }

    fn watch_until(&self, deadline: Instant) {
        self.hub.alarm.at(deadline);
    }
}

fn close_reason(why: CloseReason) -> EndReason {
    let cause = match why {
        CloseReason::Dead => EndCause::Dead,
        CloseReason::DrainTimeout => EndCause::DrainTimeout,
        CloseReason::PeerRestarted => EndCause::PeerRestarted,
    };
    EndReason::new(Initiator::Library, cause)
}

fn no_room_kind(no_room: NoRoom, patience: Patience) -> SendErrorKind {
    match (no_room, patience) {
        (NoRoom::Closed, _) => SendErrorKind::Closed,
        (NoRoom::Full, Patience::None) => SendErrorKind::Full,
        (NoRoom::Full, _) => SendErrorKind::Timeout,
    }
}
