//! Queries: they do not change the link.

use crate::id::{ConnId, Incarnation};
use crate::lane::{AckMode, LaneId, NORMAL};

use super::conns::Conn;
use super::outbound::Ends;
use super::{Link, Token};

/// Messages since the link began.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) messages_sent: u64,
    pub(crate) messages_received: u64,
    /// Replies for which somebody waited.
    pub(crate) answers: u64,
}

/// The state of one lane, for a snapshot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LaneStats {
    pub(crate) lane: LaneId,
    pub(crate) queued_messages: usize,
    pub(crate) queued_bytes: usize,
    pub(crate) credit: u64,
    pub(crate) resent_bytes: u64,
    pub(crate) ends: Ends,
    pub(crate) inbox_messages: usize,
    pub(crate) inbox_bytes: u64,
    pub(crate) duplicate_bytes: u64,
    pub(crate) expired_on_arrival: u64,
}

impl<T: Token, R, C: Clone> Link<T, R, C> {
    /// The connections of this session.
    pub(crate) fn conns(&self) -> &[Conn<C>] {
        &self.conns
    }

    pub(crate) fn conn(&self, id: ConnId) -> Option<&Conn<C>> {
        self.conns.iter().find(|conn| conn.id == id)
    }

    /// The handles of all connections that have not ended, those of an earlier session among them.
    pub(crate) fn handles(&self) -> impl Iterator<Item = &C> {
        self.conns.handles()
    }

    /// Whether all connections have ended.
    pub(crate) fn is_detached(&self) -> bool {
        self.handles().next().is_none()
    }

    /// True when nothing waits to be taken by the peer.
    pub(crate) fn is_flushed(&self) -> bool {
        self.lanes.iter().all(|lane| lane.out.is_empty())
    }

    pub(crate) fn lane_stats(&self) -> impl Iterator<Item = LaneStats> {
        self.lanes.iter().map(|lane| {
            let (queued_messages, queued_bytes) = lane.out.queued();
            LaneStats {
                lane: lane.id,
                queued_messages,
                queued_bytes,
                credit: lane.out.credit(),
                resent_bytes: lane.out.resent,
                ends: lane.out.ends,
                inbox_messages: lane.inb.inbox_len(),
                inbox_bytes: lane.inb.held_bytes(),
                duplicate_bytes: lane.inb.duplicate_bytes,
                expired_on_arrival: lane.inb.expired,
            }
        })
    }

    /// Bytes in the queues of all lanes, with what each message costs beyond its own.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.lanes.iter().map(|lane| lane.out.queued().1).sum()
    }

    /// Messages that nobody has acknowledged yet, over all lanes.
    pub(crate) fn queued_messages(&self) -> usize {
        self.lanes.iter().map(|lane| lane.out.queued().0).sum()
    }

    /// Bytes received and not taken, over all lanes.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.inb.held_bytes()).sum()
    }

    /// Those of unfinished messages.
    pub(crate) fn unfinished_bytes(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.inb.unfinished_bytes()).sum()
    }

    /// Whether the link has no connection and remembers nothing that could matter to anybody.
    pub(crate) fn is_forgotten(&self) -> bool {
        self.conns.is_empty()
            && self.session.is_forgotten()
            && self.is_flushed()
            && self.lanes.iter().all(|lane| lane.inb.inbox_len() == 0)
    }

    pub(crate) fn lane_id(&self, index: usize) -> LaneId {
        self.lanes.get(index).map_or(NORMAL, |lane| lane.id)
    }

    pub(crate) fn inbox_len(&self, index: usize) -> usize {
        self.lanes.get(index).map_or(0, |lane| lane.inb.inbox_len())
    }

    pub(crate) fn ack_mode(&self, index: usize) -> AckMode {
        self.lanes.get(index).map(|lane| lane.inb.ack_mode()).unwrap_or_default()
    }

    pub(crate) fn open_requests(&self) -> (usize, usize) {
        self.requests.counts()
    }

    pub(crate) fn incarnation(&self) -> Option<Incarnation> {
        self.session.peer_incarnation()
    }

    /// The invariants after every input, whatever the peer has sent.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn check(&self) {
        for (lane, config) in self.lanes.iter().zip(self.settings.lanes.iter()) {
            lane.out.check();
            lane.inb.check();
            let (messages, bytes) = lane.out.queued();
            assert!(bytes <= config.queue || messages <= 1, "{bytes} bytes are queued");
            let held = lane.inb.held_bytes();
            assert!(held <= config.window as u64, "{held} bytes are held");
            let most = config.max_untaken as usize + config.window / super::outbound::BOOKKEEPING;
            assert!(lane.inb.inbox_len() <= most, "{} messages are held", lane.inb.inbox_len());
        }
        let (queued, messages) = (self.queued_bytes(), self.queued_messages());
        assert!(queued <= self.settings.max_queued || messages <= 1, "{queued} bytes are queued");
        self.requests.check();
        let (pending, open) = self.requests.counts();
        assert!(pending.max(open).max(self.cancels.len()) <= self.settings.max_requests);
        assert!(pending + open == 0 || self.requests.next_deadline().is_some(), "a request waits for ever");
        // Messages that wait without a connection are given up some day.
        let waits = self.conns.is_empty() && self.closed.is_none() && !self.is_flushed();
        assert!(!waits || self.down_since.is_some(), "what is queued waits for ever");
    }
}
