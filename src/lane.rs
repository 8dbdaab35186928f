//! Lanes: the ordered streams of messages within a link.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::serde_util::size;

/// The number of a lane, agreed between all nodes of a network.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LaneId(pub u8);

/// Votes and proposals: goes before the other lanes. Messages up to 1 MiB by default.
pub const URGENT: LaneId = LaneId(0);
/// Transactions and requests. Messages up to 4 MiB by default.
pub const NORMAL: LaneId = LaneId(1);
/// Blocks and synchronisation. Messages up to 32 MiB by default.
pub const BULK: LaneId = LaneId(2);

impl fmt::Display for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            URGENT => f.write_str("urgent"),
            NORMAL => f.write_str("normal"),
            BULK => f.write_str("bulk"),
            LaneId(other) => write!(f, "lane {other}"),
        }
    }
}

impl fmt::Debug for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// When a lane's bytes are sent, compared with the other lanes of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Priority {
    /// Before every weighted lane. So that a flood here cannot starve the rest, a waiting weighted
    /// lane gets one chunk after every 16 urgent ones.
    Urgent,
    /// Shares what the urgent lanes leave, in proportion to the weight (1 to 255).
    Weighted(u8),
}

/// When a message counts as *taken*, which ends its receipt and returns its credit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AckMode {
    /// The application took it out of the inbox.
    #[default]
    Received,
    /// The application is done with it: it dropped the [`Message`](crate::Message) or called
    /// [`Message::done`](crate::Message::done). A receipt then means *processed*.
    Done,
}

/// What happens to a message for which a lane's queue has no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WhenFull {
    /// It is not accepted: the call waits for room, times out or fails, as the caller chose.
    #[default]
    Refuse,
    /// The oldest messages of the queue that have not begun to be sent are dropped for it, as many as needed:
    /// for status messages of which only the newest matters. Their receipts end as
    /// [`DropReason::Displaced`](crate::DropReason::Displaced), and they count for no quorum.
    ///
    /// Messages of which a byte was sent stay; at most half of the queue is sent before the peer's
    /// application has taken some of it. So a message always finds room on its lane. Room that the link or
    /// the node is short of ([`Config::max_queued_per_peer`](crate::Config::max_queued_per_peer),
    /// [`Config::max_queued`](crate::Config::max_queued)) is made in the same way, but only from this lane's
    /// own messages: if these are not enough, nothing is dropped and the message is not accepted.
    ///
    /// Requests and replies are dropped like other messages. For a reply that was dropped the requester waits
    /// until its time is over, so send both on another lane.
    DropOldest,
}

/// The settings of one lane. Both sides of a link need a lane with the same id; limits may differ,
/// and the receiver's bind the sender.
///
/// In a file only `id` must be given; the other settings default to those of the default lane with that id,
/// if there is one ([`LaneConfig::defaults`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LaneConfig {
    /// The lane's number on the wire.
    pub id: LaneId,
    /// When its bytes are sent. Default: weighted, 4.
    pub priority: Priority,
    /// The largest message in bytes. Default 4 MiB; at most 256 MiB - 1. Larger ones are refused when
    /// they are sent.
    #[serde(serialize_with = "size::serialize")]
    pub max_message: usize,
    /// How many bytes a peer may have under way to this node or waiting in its inbox. Default 8 MiB;
    /// at least `max_message` + 64 KiB, so that the largest message always gets through. Too small:
    /// throughput is limited to one window per round trip. Too large: a slow consumer costs memory.
    /// While urgent messages come by the same connection, no more is under way than 2 MiB and one and
    /// a half times what the path holds, so that those do not wait behind it.
    #[serde(serialize_with = "size::serialize")]
    pub window: usize,
    /// How many messages a peer may have begun that the application has not taken. Default 65,536.
    /// Bounds the memory that very small messages cost beyond their bytes (about 120 bytes each).
    /// Messages of earlier lives of a peer that were not taken count against its window, with 128 bytes more
    /// for each message than its own.
    pub max_untaken: u32,
    /// How many bytes of outgoing messages wait here until the peer's application has taken them.
    /// Default 16 MiB; at least `max_message`, and twice that and 1 KiB with [`WhenFull::DropOldest`].
    #[serde(serialize_with = "size::serialize")]
    pub queue: usize,
    /// What happens when the queue is full. Default: it blocks, times out or refuses, as the caller chose.
    pub when_full: WhenFull,
    /// When a receipt ends. Default: the application took the message from the inbox.
    pub ack_mode: AckMode,
    /// Which connection of a pool carries it: 0, 1 or 2. Default by priority: urgent lanes 0, of weight 1
    /// (bulk) 1, others 2. Where the pool has no such connection, or it is in trouble, another carries it:
    /// slot 2 stands in for slot 0, and slots 1 and 2 stand in for each other.
    pub slot: Option<u8>,
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// The most connections of one link.
pub(crate) const MAX_SLOTS: u8 = 3;

/// The headroom that a window needs beyond the largest message, for its header and its neighbours.
pub(crate) const WINDOW_HEADROOM: usize = 64 * KIB;

impl Default for LaneConfig {
    fn default() -> Self {
        LaneConfig {
            id: NORMAL,
            priority: Priority::Weighted(4),
            max_message: 4 * MIB,
            window: 8 * MIB,
            max_untaken: 65_536,
            queue: 16 * MIB,
            when_full: WhenFull::Refuse,
            ack_mode: AckMode::Received,
            slot: None,
        }
    }
}

impl LaneConfig {
    /// The default urgent lane: messages up to 1 MiB, a window of 4 MiB, a queue of 8 MiB.
    pub fn urgent() -> Self {
        LaneConfig {
            id: URGENT,
            priority: Priority::Urgent,
            max_message: MIB,
            window: 4 * MIB,
            queue: 8 * MIB,
            ..LaneConfig::default()
        }
    }

    /// The default normal lane: messages up to 4 MiB, a window of 8 MiB, a queue of 16 MiB, weight 4.
    pub fn normal() -> Self {
        LaneConfig::default()
    }

    /// The default bulk lane: messages up to 32 MiB, a window of 34 MiB, a queue of 64 MiB, weight 1.
    pub fn bulk() -> Self {
        LaneConfig {
            id: BULK,
            priority: Priority::Weighted(1),
            max_message: 32 * MIB,
            window: 34 * MIB,
            queue: 64 * MIB,
            ..LaneConfig::default()
        }
    }

    /// The connection of a full pool that carries it.
    pub(crate) fn home(&self) -> u8 {
        self.slot.unwrap_or(match self.priority {
            Priority::Urgent => 0,
            Priority::Weighted(0 | 1) => 1,
            Priority::Weighted(_) => 2,
        })
    }

    /// The three default lanes.
    pub fn defaults() -> Vec<Self> {
        vec![Self::urgent(), Self::normal(), Self::bulk()]
    }
}
