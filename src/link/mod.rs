//! The conversation with one peer: pure, without socket, clock, thread or lock.
//!
//! # What a link is
//! A link owns everything that must outlive a socket: the lanes with their offsets, queues and credit,
//! the receipts, the open requests. Connections come and go beneath it; each lane is carried by one of
//! them at a time and can move to another at any byte.
//!
//! # Sessions
//! Offsets have a meaning only while both sides remember the conversation. Each side draws a random
//! number, its *memory*, when its memory of the conversation begins, and says it in HELLO. A *session*
//! is a pair of memories.
//!
//! ```text
//!                  HELLO names the memory we know: same session, go on from its offsets
//!                 +---+
//!                 v   |
//!   no peer --> in session --- HELLO from a new incarnation: the peer restarted ---> new session
//!                 |                 what it had not taken is sent again from the start of the message
//!                 |
//!                 +--- HELLO, same incarnation, other memory: the peer forgot ---> new memory, retry
//!                 |         what had been begun is dropped (it may have arrived), the rest stays
//!                 |
//!                 +--- no connection for the resumption time: we forget ---> new memory
//!                           receipts end as dropped, the application is told
//! ```
//!
//! Incarnations are exchanged before HELLO, so both sides of a restart draw their new memories before
//! they say them, and one handshake is enough. A side that forgot refuses the first handshake with a
//! peer that still says the memory it forgot: that peer learns of it there, and nothing is begun that
//! the peer would then drop. A session in which nothing was acknowledged is re-paired without a new
//! memory, but what had been begun is dropped there too: that no acknowledgement came does not say that
//! nothing arrived. A new session begins without the connections of the old one. A new incarnation is believed only when no connection of the old one answers a
//! probe: two processes with one identity cannot take turns at tearing the link down.
//!
//! # Connections
//! ```text
//!            answer overdue             replaced, duplicate, GOAWAY, shutdown
//!   Up  <------------------>  Suspect ------------------------------------> Draining --> ended
//!            byte received                       (Up drains alike)
//! ```
//! A connection that the link has asked to be closed serves no longer and has no timers.
//! Lanes prefer Up to Suspect and never use Draining. When a lane moves, its cursor goes back to what
//! the peer has acknowledged. So on every connection the chunks of a lane begin at or before what the
//! receiver has, and are contiguous from there: the receiver drops what it knows, and a gap is a lie.
//! It follows that both sides may choose connections freely without agreeing first; they agree only
//! on which connections to keep.
//!
//! # Invariants
//! - Each accepted message ends in exactly one outcome.
//! - In one session each stream byte is accepted once, in order; each message enters the inbox once.
//! - Bytes held for a lane never exceed its window; bytes queued never exceed its queue.
//! - A message is forgotten only when the peer's application has taken it, or with an outcome.

pub(crate) mod conns;
pub(crate) mod effects;
pub(crate) mod inbound;
pub(crate) mod outbound;
pub(crate) mod requests;
pub(crate) mod scheduler;
mod session;
mod timers;
mod transmit;
mod violation;

#[cfg(test)]
mod sim;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::health::liveness;
use crate::id::{ConnId, Incarnation, PeerId};
use crate::lane::{LaneConfig, LaneId};
use crate::message::Payload;
use crate::outcome::{DropReason, Outcome, RequestError};
use crate::wire::control::Ack;
use crate::wire::frame::Frame;
use crate::wire::stream::MessageKind;

use conns::Conn;
pub(crate) use conns::Draining;
pub(crate) use effects::{CloseReason, Effects, Notice};
use inbound::{Arrived, Inbound, Urgency};
use outbound::Outbound;
pub(crate) use outbound::cost_of;
use requests::Requests;
use scheduler::Scheduler;
pub(crate) use session::{AttachError, NewConn};
pub(crate) use transmit::Transmit;
pub(crate) use violation::Violation;

/// Does anybody wait for the receipt behind this token?
pub(crate) trait Awaited {
    fn is_awaited(&self) -> bool;
}

/// Names one message that the application has, to say later that it is done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) epoch: u32,
    pub(crate) number: u64,
    pub(crate) bytes: u64,
}

/// What a link needs to know from the configuration.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) us: PeerId,
    pub(crate) peer: PeerId,
    pub(crate) name: String,
    pub(crate) lanes: Arc<[LaneConfig]>,
    pub(crate) liveness: liveness::Limits,
    /// The longest that an acknowledgement waits for company.
    pub(crate) ack_delay: Duration,
    pub(crate) resumption: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) max_requests: usize,
    /// Bytes in the queues of all lanes together.
    pub(crate) max_queued: usize,
    pub(crate) max_chunk: usize,
}

/// Why a message was not accepted. It goes back to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Full,
    TooLarge {
        max: usize,
    },
    NoLane,
    TooManyRequests {
        max: usize,
    },
    /// The request is answered already, timed out, or was of an earlier life of the peer.
    NoSuchRequest,
    Closed,
}

/// A message as the application hands it over.
#[derive(Clone, Debug)]
pub(crate) struct Parcel {
    pub(crate) lane: LaneId,
    pub(crate) body: Bytes,
    /// Dropped if its first byte was not sent by then.
    pub(crate) deadline: Option<Instant>,
}

/// What an accepted message is for, with the waiter for its reply if it is a request.
pub(crate) enum Purpose<R> {
    Message,
    Request { wait: Duration, waiter: R },
}

struct Lane<T> {
    id: LaneId,
    max_message: usize,
    out: Outbound<T>,
    inb: Inbound,
    /// The connection that carries it.
    conn: Option<ConnId>,
}

/// Bytes and messages since the link began.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) messages_sent: u64,
    pub(crate) messages_received: u64,
    pub(crate) stream_bytes_sent: u64,
    pub(crate) stream_bytes_received: u64,
    pub(crate) late_replies: u64,
    pub(crate) hints_ignored: u64,
}

pub(crate) struct Link<T, R> {
    settings: Settings,
    lanes: Vec<Lane<T>>,
    requests: Requests<R>,
    conns: Vec<Conn>,
    scheduler: Scheduler,
    session: session::Session,
    /// The connection on which the peer was told last what there is to tell.
    control: Option<ConnId>,
    /// When the next acknowledgement is due, if there is something to acknowledge.
    ack_due: Option<Instant>,
    /// CANCEL frames to send.
    cancels: Vec<u64>,
    /// When the last connection ended.
    down_since: Option<Instant>,
    closed: Option<DropReason>,
    rng: fastrand::Rng,
    pub(crate) counters: Counters,
}

impl<T: Awaited, R> Link<T, R> {
    pub(crate) fn new(settings: Settings, seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let lanes = settings.lanes.iter().map(|config| Lane {
            id: config.id,
            max_message: config.max_message,
            out: Outbound::new(config),
            inb: Inbound::new(config),
            conn: None,
        });
        Link {
            lanes: lanes.collect(),
            requests: Requests::new(settings.max_requests, rng.u64(..)),
            conns: Vec::new(),
            scheduler: Scheduler::new(settings.lanes.iter().map(|lane| lane.priority)),
            session: session::Session::new(&mut rng),
            control: None,
            ack_due: None,
            cancels: Vec::new(),
            down_since: None,
            closed: None,
            rng,
            counters: Counters::default(),
            settings,
        }
    }

    pub(crate) fn lane_index(&self, lane: LaneId) -> Option<usize> {
        self.lanes.iter().position(|candidate| candidate.id == lane)
    }

    // --- from the application -------------------------------------------------------------------

    /// Accepts a message for sending, or says why not; then nothing has changed, and the token and the
    /// waiter are dropped without a word. Gives the id of a request.
    pub(crate) fn send(
        &mut self,
        parcel: Parcel,
        purpose: Purpose<R>,
        token: T,
        now: Instant,
        fx: &mut Effects<T, R>,
    ) -> Result<u64, Refused> {
        let Parcel { lane, body, deadline } = parcel;
        let index = self.admit(lane, body.len())?;
        let (kind, id) = match purpose {
            Purpose::Message => (MessageKind::Message, 0),
            Purpose::Request { wait, waiter } => {
                if !self.requests.has_room() {
                    return Err(Refused::TooManyRequests { max: self.settings.max_requests });
                }
                let wait = wait.min(requests::MAX_WAIT);
                let id = self.requests.next_id();
                self.requests.ask(id, lane, now + wait, waiter);
                (MessageKind::Request { id, wait_ms: wait.as_millis() as u32 }, id)
            }
        };
        self.enqueue(index, kind, body, deadline, token, fx);
        Ok(id)
    }

    /// Answers a request of the peer's, which came with `ticket`.
    pub(crate) fn reply(
        &mut self,
        request: u64,
        ticket: Ticket,
        body: Bytes,
        token: T,
        fx: &mut Effects<T, R>,
    ) -> Result<(), Refused> {
        if ticket.epoch != self.session.epoch() || !self.requests.is_open(request) {
            return Err(Refused::NoSuchRequest);
        }
        let lane = self.requests.lane_of(request).ok_or(Refused::NoSuchRequest)?;
        let index = self.admit(lane, body.len())?;
        self.requests.answer(request);
        self.enqueue(index, MessageKind::Reply { id: request }, body, None, token, fx);
        Ok(())
    }

    fn admit(&self, lane: LaneId, len: usize) -> Result<usize, Refused> {
        if self.closed.is_some() {
            return Err(Refused::Closed);
        }
        let index = self.lane_index(lane).ok_or(Refused::NoLane)?;
        let lane = self.lanes.get(index).ok_or(Refused::NoLane)?;
        if len > lane.max_message {
            return Err(Refused::TooLarge { max: lane.max_message });
        }
        let queued = self.queued_bytes();
        let fits =
            lane.out.has_room(len) && (queued == 0 || queued + cost_of(len) <= self.settings.max_queued);
        if fits { Ok(index) } else { Err(Refused::Full) }
    }

    fn enqueue(
        &mut self,
        index: usize,
        kind: MessageKind,
        body: Bytes,
        deadline: Option<Instant>,
        token: T,
        fx: &mut Effects<T, R>,
    ) {
        if let Some(lane) = self.lanes.get_mut(index) {
            lane.out.push(kind, body, deadline, token);
            self.counters.messages_sent += 1;
            let ended = fx.ended.len();
            lane.out.refuse_if_unknown(&mut fx.ended);
            let conn = lane.conn;
            self.end_unsent_requests(ended, fx);
            if let Some(conn) = conn {
                self.wake(conn, fx);
            }
        }
    }

    /// A request whose message will never be sent has no reply to wait for. Looks at what ended since
    /// `fx.ended` had `from` entries.
    fn end_unsent_requests(&mut self, from: usize, fx: &mut Effects<T, R>) {
        for (_, outcome, kind) in fx.ended.iter().skip(from) {
            let error = match outcome {
                Outcome::Taken => continue,
                Outcome::Expired => RequestError::Expired,
                Outcome::Dropped(reason) => RequestError::Dropped(*reason),
            };
            if let MessageKind::Request { id, .. } = kind
                && let Some(pending) = self.requests.close(*id)
            {
                fx.replies.push((pending.waiter, Err(error)));
            }
        }
    }

    /// The application takes the next message of a lane.
    pub(crate) fn take(&mut self, index: usize, now: Instant, fx: &mut Effects<T, R>) -> Option<Arrived> {
        let (arrived, urgency) = self.lanes.get_mut(index)?.inb.take()?;
        self.schedule_ack(urgency, now, fx);
        Some(arrived)
    }

    /// The application is done with a message that it took.
    pub(crate) fn done(&mut self, index: usize, ticket: Ticket, now: Instant, fx: &mut Effects<T, R>) {
        if let Some(lane) = self.lanes.get_mut(index) {
            let urgency = lane.inb.done(ticket);
            self.schedule_ack(urgency, now, fx);
        }
    }

    /// Nobody waits for the reply to this request any longer.
    pub(crate) fn cancel(&mut self, request: u64, fx: &mut Effects<T, R>) {
        let Some(pending) = self.requests.close(request) else { return };
        self.withdraw_or_cancel(request, pending.lane, Outcome::Dropped(DropReason::Cancelled), fx);
    }

    fn withdraw_or_cancel(&mut self, request: u64, lane: LaneId, outcome: Outcome, fx: &mut Effects<T, R>) {
        let is_request = |kind| matches!(kind, MessageKind::Request { id, .. } if id == request);
        let Some(lane) = self.lane_index(lane).and_then(|index| self.lanes.get_mut(index)) else { return };
        match lane.out.withdraw(is_request) {
            Some((token, kind)) => fx.ended.push((token, outcome, kind)),
            None => {
                self.cancels.push(request);
                // More than the peer may have open at once cannot be of interest to it.
                if self.cancels.len() > self.settings.max_requests {
                    self.cancels.remove(0);
                }
                self.wake_control(fx);
            }
        }
    }

    /// Whether the requester of a request of the peer's still waits.
    pub(crate) fn is_request_open(&self, request: u64, ticket: Ticket) -> bool {
        ticket.epoch == self.session.epoch() && self.requests.is_open(request)
    }

    /// The application lets a request go without an answer.
    pub(crate) fn abandon(&mut self, request: u64, ticket: Ticket) {
        if ticket.epoch == self.session.epoch() {
            self.requests.answer(request);
        }
    }

    /// Gives no new credit on lanes whose messages wait for the application, or gives it again.
    pub(crate) fn set_withheld(&mut self, withheld: bool, now: Instant, fx: &mut Effects<T, R>) {
        for index in 0..self.lanes.len() {
            if let Some(lane) = self.lanes.get_mut(index) {
                let urgency = lane.inb.set_withheld(withheld);
                self.schedule_ack(urgency, now, fx);
            }
        }
    }

    /// Ends the link for good: every message and request ends with `reason`.
    pub(crate) fn close(&mut self, reason: DropReason, fx: &mut Effects<T, R>) {
        self.closed = Some(reason);
        for lane in &mut self.lanes {
            lane.out.clear(reason, &mut fx.ended);
        }
        let waiters = self.requests.close_where(|_, _| true);
        fx.replies.extend(waiters.into_iter().map(|waiter| (waiter, Err(RequestError::Dropped(reason)))));
    }

    // --- from the peer --------------------------------------------------------------------------

    /// Bytes arrived on this connection, whatever they mean.
    pub(crate) fn handle_received(&mut self, conn: ConnId, at: Instant, fx: &mut Effects<T, R>) {
        if let Some(conn) = self.conn_mut(conn) {
            conn.liveness.handle_received(at);
            if conn.liveness.is_suspect() {
                self.handle_timeout(at, fx);
            }
        }
        self.settle_contests(at, fx);
    }

    /// One frame from the peer. An error ends the connection that it came by.
    pub(crate) fn handle_frame(
        &mut self,
        conn: ConnId,
        frame: Frame,
        now: Instant,
        fx: &mut Effects<T, R>,
    ) -> Result<(), Violation> {
        // A connection that is not, or no longer, part of the link has no say in it.
        if self.conn_mut(conn).is_none() {
            return Ok(());
        }
        match frame {
            Frame::Hello(_) => Err(Violation::UnexpectedHello),
            Frame::Chunk { lane, flags, offset, data } => {
                self.handle_chunk(conn, lane, flags, offset, data, now, fx)
            }
            Frame::Ack(ack) => self.handle_ack(ack, now, fx),
            Frame::Ping(nonce) => {
                if let Some(state) = self.conn_mut(conn) {
                    // One pending pong at most: a flood of pings costs nothing more.
                    state.pong = Some(nonce);
                }
                self.wake(conn, fx);
                Ok(())
            }
            Frame::Pong(nonce) => match self.conn_mut(conn) {
                Some(state) => state.handle_pong(nonce, now),
                None => Ok(()),
            },
            Frame::Goaway(goaway) => {
                self.handle_goaway(conn, goaway.reason, now, fx);
                Ok(())
            }
            Frame::Cancel(cancel) => {
                self.requests.handle_cancel(cancel.request);
                Ok(())
            }
            Frame::Hint => {
                self.counters.hints_ignored += 1;
                Ok(())
            }
        }
    }

    #[allow(clippy::too_many_arguments)] // The fields of one frame.
    fn handle_chunk(
        &mut self,
        conn: ConnId,
        lane: LaneId,
        flags: u8,
        offset: u64,
        data: Bytes,
        now: Instant,
        fx: &mut Effects<T, R>,
    ) -> Result<(), Violation> {
        if self.conn_mut(conn).is_some_and(|conn| conn.is_drained_by_peer()) {
            return Err(Violation::ChunkAfterGoaway);
        }
        let index = self.lane_index(lane).ok_or(Violation::UnknownLane(lane))?;
        let Some(state) = self.lanes.get_mut(index) else { return Ok(()) };
        let (requests, counters) = (&mut self.requests, &mut self.counters);
        let mut refused = None;
        let received = state.inb.handle_chunk(offset, flags, data, |kind, payload| {
            counters.messages_received += 1;
            match kind {
                MessageKind::Message => Some(payload),
                MessageKind::Request { id, wait_ms } => {
                    let wait = Duration::from_millis(u64::from(wait_ms));
                    refused = requests.handle_request(id, lane, wait, now).err().or(refused.take());
                    Some(payload)
                }
                MessageKind::Reply { id } => {
                    match requests.close(id) {
                        Some(pending) => fx.replies.push((pending.waiter, Ok(payload))),
                        None => counters.late_replies += 1,
                    }
                    None
                }
            }
        })?;
        self.counters.stream_bytes_received += received.new_bytes;
        if received.arrived > 0 {
            fx.arrived |= 1 << index;
        }
        self.schedule_ack(received.urgency, now, fx);
        refused.map_or(Ok(()), Err)
    }

    fn handle_ack(&mut self, ack: Ack, now: Instant, fx: &mut Effects<T, R>) -> Result<(), Violation> {
        for (id, state) in ack.lanes {
            let index = self.lane_index(id).ok_or(Violation::UnknownLane(id))?;
            let Some(lane) = self.lanes.get_mut(index) else { continue };
            let (before, ended) = (lane.out.acked(), fx.ended.len());
            let progress = lane.out.handle_ack(state, &mut fx.ended)?;
            fx.space |= fx.ended.len() > ended;
            let (acked, ready, conn) = (lane.out.acked() - before, lane.out.is_ready(), lane.conn);
            let Some(conn) = conn else { continue };
            if progress {
                let outstanding =
                    self.lanes.iter().any(|lane| lane.conn == Some(conn) && lane.out.outstanding() > 0);
                if let Some(conn) = self.conn_mut(conn) {
                    conn.liveness.handle_progress(now, outstanding);
                    conn.pace.handle_acked(acked, now);
                    conn.proven = true;
                }
            }
            if ready {
                self.wake(conn, fx); // New credit, or room under `max_untaken`.
            }
        }
        Ok(())
    }

    /// Sees to it that the peer hears of what changed, now or within the acknowledgement delay.
    fn schedule_ack(&mut self, urgency: Urgency, now: Instant, fx: &mut Effects<T, R>) {
        let due = match urgency {
            Urgency::Nothing => return,
            Urgency::Soon => now + self.settings.ack_delay,
            Urgency::Now => now,
        };
        if self.ack_due.is_none_or(|at| due < at) {
            self.ack_due = Some(due);
            self.wake_control(fx);
        }
    }

    // --- figures --------------------------------------------------------------------------------

    /// True when nothing waits to be taken by the peer.
    pub(crate) fn is_flushed(&self) -> bool {
        self.lanes.iter().all(|lane| lane.out.is_empty())
    }

    pub(crate) fn has_room(&self, lane: LaneId, len: usize) -> bool {
        self.closed.is_some() || !matches!(self.admit(lane, len), Err(Refused::Full))
    }

    pub(crate) fn lane_figures(&self) -> impl Iterator<Item = LaneFigures> {
        self.lanes.iter().map(|lane| {
            let (queued_messages, queued_bytes) = lane.out.queued();
            LaneFigures {
                lane: lane.id,
                queued_messages,
                queued_bytes,
                resent_bytes: lane.out.resent,
                inbox_messages: lane.inb.inbox_len(),
                inbox_bytes: lane.inb.held_bytes(),
                duplicate_bytes: lane.inb.duplicate_bytes,
            }
        })
    }

    /// Bytes in the queues of all lanes, with what each message costs beyond its own.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.lanes.iter().map(|lane| lane.out.queued().1).sum()
    }

    /// Bytes received and not taken, over all lanes.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.inb.held_bytes()).sum()
    }

    /// Whether the link has no connection and remembers nothing that could matter to anybody.
    pub(crate) fn is_forgotten(&self) -> bool {
        self.conns.is_empty()
            && self.session.is_forgotten()
            && self.is_flushed()
            && self.lanes.iter().all(|lane| lane.inb.inbox_len() == 0)
    }

    pub(crate) fn lane_id(&self, index: usize) -> LaneId {
        self.lanes.get(index).map_or(crate::lane::NORMAL, |lane| lane.id)
    }

    pub(crate) fn inbox_len(&self, index: usize) -> usize {
        self.lanes.get(index).map_or(0, |lane| lane.inb.inbox_len())
    }

    pub(crate) fn taken_when(&self, index: usize) -> crate::lane::TakenWhen {
        self.lanes.get(index).map(|lane| lane.inb.taken_when()).unwrap_or_default()
    }

    pub(crate) fn open_requests(&self) -> (usize, usize) {
        self.requests.counts()
    }

    pub(crate) fn incarnation(&self) -> Option<Incarnation> {
        self.session.peer_incarnation()
    }
}

/// The state of one lane, for a snapshot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LaneFigures {
    pub(crate) lane: LaneId,
    pub(crate) queued_messages: usize,
    pub(crate) queued_bytes: usize,
    pub(crate) resent_bytes: u64,
    pub(crate) inbox_messages: usize,
    pub(crate) inbox_bytes: u64,
    pub(crate) duplicate_bytes: u64,
}

/// A message that a request's waiter gets.
pub(crate) type ReplyResult = Result<Payload, RequestError>;
