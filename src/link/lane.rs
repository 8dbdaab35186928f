//! A lane: both halves of its stream, and the connections that carry them.

use std::time::Instant;

use bytes::Bytes;

use crate::id::ConnId;
use crate::lane::{LaneConfig, LaneId, Priority};
use crate::wire::control::{HelloLane, StaleRange};
use crate::wire::stream::MessageKind;

use super::Settings;
use super::bdp::{Rate, URGENT_FOR};
use super::conns::{Conn, Conns};
use super::flood_guard::FrameMeter;
use super::gather::ENOUGH;
use super::inbound::{Inbound, Urgency};
use super::outbound::{Outbound, Token};
use super::output::{Notice, Output};

pub(super) struct Lane<T> {
    pub(super) id: LaneId,
    /// Its position among the lanes: its bit in sets of lanes, and its place in each scheduler.
    pub(super) index: usize,
    pub(super) max_message: usize,
    pub(super) is_urgent: bool,
    pub(super) out: Outbound<T>,
    pub(super) inb: Inbound,
    /// The slot of the pool that is its own.
    pub(super) home: u8,
    /// The connection that carries what we send.
    pub(super) conn: Option<ConnId>,
    /// Sends nothing until the peer has acknowledged what was sent, and moves then.
    leaving: bool,
    /// The connection that brought something last.
    pub(super) from: Option<ConnId>,
    /// How fast its bytes come.
    rate: Rate,
    /// The connection that carries our acknowledgements.
    pub(super) acks_by: Option<ConnId>,
    /// When the next acknowledgement is due, if there is something to acknowledge.
    pub(super) ack_due: Option<Instant>,
    /// Up to here the peer is to be told that this side knows what expired there.
    pub(super) settled: Option<u64>,
    /// The largest message that the peer takes, if that is less than [`Lane::max_message`].
    lower_limit: Option<usize>,
}

impl<T: Token> Lane<T> {
    pub(super) fn new(index: usize, config: &LaneConfig) -> Self {
        Lane {
            id: config.id,
            index,
            max_message: config.max_message,
            is_urgent: config.priority == Priority::Urgent,
            out: Outbound::new(config),
            inb: Inbound::new(config),
            home: config.home(),
            conn: None,
            leaving: false,
            from: None,
            rate: Rate::default(),
            acks_by: None,
            ack_due: None,
            settled: None,
            lower_limit: None,
        }
    }

    /// The ranges of stale messages that the peer may not know of.
    pub(super) fn unsettled(&self) -> impl Iterator<Item = StaleRange> {
        self.inb.unsettled.ranges(self.id)
    }

    /// Appends them to what a frame tells.
    pub(super) fn push_stale(&self, told: &mut Vec<StaleRange>, meter: &mut FrameMeter) {
        let before = told.len();
        told.extend(self.unsettled());
        if told.len() > before {
            meter.handle_stale_told();
        }
    }

    pub(super) fn find(lanes: &mut [Self], id: LaneId) -> Option<&mut Self> {
        lanes.iter_mut().find(|lane| lane.id == id)
    }

    pub(super) fn enqueue<R, C: Clone>(
        &mut self,
        kind: MessageKind,
        body: &Bytes,
        deadline: Option<Instant>,
        token: T,
        conns: &mut Conns<C>,
        output: &mut Output<T, R, C>,
    ) {
        self.out.push(kind, body, deadline, token);
        self.refuse_if_unknown(output);
        self.wake_to_send(conns, output);
    }

    /// The connection is to send what is ready, unless that waits for more to gather.
    pub(super) fn wake_to_send<R, C: Clone>(&self, conns: &mut Conns<C>, output: &mut Output<T, R, C>) {
        if let Some(conn) = self.conn.and_then(|id| conns.by_id(id))
            && conn.idle
            && (!conn.gathering || self.is_pressing())
        {
            conn.wake(output);
        }
    }

    /// Drops what waits if the peer does not have this lane.
    pub(super) fn refuse_if_unknown<R, C>(&mut self, output: &mut Output<T, R, C>) {
        if self.out.refuse_if_unknown(&mut output.ended) {
            output.notices.push(Notice::LaneUnknown(self.id));
        }
    }

    /// Tells of a limit of the peer that is lower than that of this side.
    pub(super) fn compare_limit<R, C>(&mut self, theirs: Option<&HelloLane>, output: &mut Output<T, R, C>) {
        let limit = theirs.map(|hello| hello.max_message as usize).filter(|limit| *limit < self.max_message);
        if std::mem::replace(&mut self.lower_limit, limit) != limit
            && let Some(max_message) = limit
        {
            output.notices.push(Notice::SmallerMessages { lane: self.id, max_message });
        }
    }

    /// Whether what is to be sent does not wait for more to gather.
    pub(super) fn is_pressing(&self) -> bool {
        self.is_urgent || self.out.unsent() >= ENOUGH
    }

    /// Moves the lane to the best connection. It stays where it is as long as nothing is better; when it
    /// moves it goes back to what the peer has acknowledged. A lane that is not urgent leaves a connection
    /// that serves as well as the other one only when that is everything: what was sent may be much, and
    /// would be sent twice.
    pub(super) fn reassign<R, C: Clone>(&mut self, conns: &mut Conns<C>, output: &mut Output<T, R, C>) {
        let best = conns.best(self.home, self.is_urgent, self.conn);
        let rank = conns.iter().find(|conn| Some(conn.id) == self.conn).map(Conn::rank);
        let is_equal = best.map(Conn::rank) == rank;
        let best = best.map(|conn| conn.id);
        let waits = best != self.conn && is_equal && !self.is_urgent && self.out.outstanding() > 0;
        let was_leaving = std::mem::replace(&mut self.leaving, waits);
        if best != self.conn && !waits {
            self.conn = best;
            self.out.rewind();
        } else if waits || !was_leaving {
            return;
        }
        self.conn.into_iter().for_each(|conn| conns.wake(conn, output));
    }

    /// The peer has acknowledged data: a lane that waited for it moves.
    pub(super) fn handle_acked<R, C: Clone>(&mut self, conns: &mut Conns<C>, output: &mut Output<T, R, C>) {
        if self.leaving {
            self.reassign(conns, output);
        }
    }

    /// Whether it has something for this connection to send now.
    pub(super) fn is_ready_on(&self, conn: ConnId) -> bool {
        self.conn == Some(conn) && !self.leaving && self.out.is_ready()
    }

    /// Bytes come by this connection. Bounds how many may be under way if urgent messages come by it too, the
    /// last one at `urgent_at`.
    pub(super) fn bound_under_way<R, C: Clone>(
        &mut self,
        bytes: usize,
        conn: &mut Conn<C>,
        urgent_at: Option<Instant>,
        settings: &Settings,
        now: Instant,
        output: &mut Output<T, R, C>,
    ) {
        let round_trip = conn.path_rtt();
        self.rate.handle_received(bytes, round_trip.unwrap_or_default(), now);
        let is_bounded = urgent_at.is_some_and(|at| now.saturating_duration_since(at) < URGENT_FOR);
        if is_bounded {
            conn.request_sample(settings.sample_interval(), now, output);
        }
        let under_way = round_trip.filter(|_| is_bounded).map(|time| self.rate.under_way(time));
        self.inb.set_under_way(under_way);
    }

    /// Chooses the connection for the lane's acknowledgements: where its chunks arrive if that is up. When it
    /// changes, everything is announced again there.
    pub(super) fn route_acks<R, C: Clone>(
        &mut self,
        conns: &mut Conns<C>,
        now: Instant,
        output: &mut Output<T, R, C>,
    ) {
        let from = conns.iter().find(|conn| Some(conn.id) == self.from && conn.is_up());
        let route = from.map(|conn| conn.id).or_else(|| conns.control());
        if route != self.acks_by {
            self.acks_by = route;
            self.resync(conns, now, output);
        }
    }

    /// The peer may have missed any earlier announcement: announces everything again.
    pub(super) fn resync<R, C: Clone>(
        &mut self,
        conns: &mut Conns<C>,
        now: Instant,
        output: &mut Output<T, R, C>,
    ) {
        self.inb.resync();
        self.ack_due = Some(now);
        self.wake_for_ack(conns, output);
    }

    /// Schedules the acknowledgement of a change on this lane, now or within the acknowledgement delay. One
    /// that has time wakes no writer: most ride along with what is sent until then.
    pub(super) fn schedule_ack<R, C: Clone>(
        &mut self,
        urgency: Urgency,
        settings: &Settings,
        conns: &mut Conns<C>,
        now: Instant,
        output: &mut Output<T, R, C>,
    ) {
        let due = match urgency {
            Urgency::Nothing => return,
            Urgency::Soon => now + settings.ack_delay,
            Urgency::Now => now,
        };
        if self.ack_due.is_none_or(|at| due < at) {
            self.ack_due = Some(due);
            if due <= now {
                self.wake_for_ack(conns, output);
            } else {
                output.handle_ack_scheduled(due);
            }
        }
    }

    /// The connection that carries the acknowledgements is to send the one that is due.
    pub(super) fn wake_for_ack<R, C: Clone>(&self, conns: &mut Conns<C>, output: &mut Output<T, R, C>) {
        self.acks_by.into_iter().for_each(|conn| conns.wake(conn, output));
    }
}
