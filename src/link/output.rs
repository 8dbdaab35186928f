//! The effects of an input to the link, for the threads around it to carry out after the lock is
//! released.

use std::time::{Duration, Instant};

use crate::id::{ConnId, Incarnation};
use crate::lane::LaneId;
use crate::wire::control::GoawayReason;

use super::ReplyResult;
use super::outbound::Ended;

/// Something that the node or the application should hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// A connection joined the link.
    Joined(ConnId),
    /// A connection was proven, or serves no longer: the roster's view of the pool has changed.
    PoolChanged,
    /// An answer is overdue on this connection.
    Suspect(ConnId),
    /// A byte arrived on a suspect connection.
    Recovered(ConnId),
    /// The connection scores so low that it is to be replaced.
    ConnDegraded(ConnId),
    /// It scores well again.
    ConnHealthy(ConnId),
    /// A connection died of silence: pings come more often from now on.
    Learned { ping_interval: Duration },
    /// A successor has proved itself; the connection that it replaces is drained.
    Replaced { old: ConnId, new: ConnId },
    /// The peer said goodbye on this connection.
    Goaway(ConnId, GoawayReason),
    /// The peer is a new process. So many messages will be sent to it again.
    PeerRestarted { incarnation: Incarnation, resent: usize },
    /// This process is a new life to the peer: so many messages of the session that begins may have been
    /// processed by the earlier one.
    Repeated { messages: usize },
    /// A message was dropped because the peer does not have this lane. Said once, until it has.
    LaneUnknown(LaneId),
    /// The peer takes no messages as large as this side accepts for the lane, only up to this many bytes.
    /// Said once for each size.
    SmallerMessages { lane: LaneId, max_message: usize },
    /// Messages whose fate is not known were dropped: the peer, or this side, gave up its memory.
    Lost { messages: usize, by_peer: bool },
}

/// Why the link wants a connection closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseReason {
    /// No byte was received for `dead_after`.
    Dead,
    /// The drain did not come to its end in time.
    DrainTimeout,
    /// It belongs to an earlier life of the peer, or to a conversation that the peer forgot.
    PeerRestarted,
}

/// `C` is what the caller gave with each connection ([`super::NewConn::handle`]).
#[derive(Debug)]
pub(crate) struct Output<T, R, C = ConnId> {
    /// Messages that ended.
    pub(crate) ended: Vec<Ended<T>>,
    /// Requests that ended.
    pub(crate) replies: Vec<(R, ReplyResult)>,
    pub(crate) notices: Vec<Notice>,
    /// Connections whose writer sleeps and has something to do.
    pub(crate) wake: Vec<C>,
    /// Connections that are to be closed at once.
    pub(crate) close: Vec<(C, CloseReason)>,
    /// Connections of which the kernel's view is wanted ([`super::ConnSample`]).
    pub(crate) samples: Vec<C>,
    /// Lanes (bit = index) whose inbox got messages.
    pub(crate) arrived: u64,
    /// A queue got room.
    pub(crate) space: bool,
    /// An acknowledgement was scheduled: [`super::Link::handle_timeout`] is to be called by then.
    pub(crate) ack_at: Option<Instant>,
}

impl<T, R, C> Output<T, R, C> {
    pub(super) fn handle_ack_scheduled(&mut self, due: Instant) {
        self.ack_at = self.ack_at.into_iter().chain([due]).min();
    }

    /// How many messages have ended since `ended` had `from` entries.
    pub(super) fn messages_ended(&self, from: usize) -> usize {
        self.ended.iter().skip(from).map(|ended| ended.tokens.count).sum()
    }

    /// Whether nothing follows from the input.
    pub(crate) fn is_empty(&self) -> bool {
        let Output { ended, replies, notices, wake, close, samples, arrived, space, ack_at } = self;
        ended.is_empty()
            && replies.is_empty()
            && notices.is_empty()
            && wake.is_empty()
            && close.is_empty()
            && samples.is_empty()
            && *arrived == 0
            && !*space
            && ack_at.is_none()
    }
}

impl<T, R, C> Default for Output<T, R, C> {
    fn default() -> Self {
        Output {
            ended: Vec::new(),
            replies: Vec::new(),
            notices: Vec::new(),
            wake: Vec::new(),
            close: Vec::new(),
            samples: Vec::new(),
            arrived: 0,
            space: false,
            ack_at: None,
        }
    }
}
