//! The lines between a node and its dashboards: one JSON object each. Shared by the examples that serve the
//! live view and by the package of the dashboard, so nothing here needs the library.
//!
//! The node sends [`FromNode`]: `{"snapshot": {...}}` four times a second, `{"events": [...]}` as they come,
//! and `{"answer": {...}}` to each [`Command`] of the dashboard:
//!
//! ```text
//! {"command": "ping", "peer": "ywk3qz7a..."}
//! {"answer": {"command": "ping", "peer": "ywk3qz7a...", "ok": "2 connections asked"}}
//! ```
//!
//! Times are in milliseconds, sizes in bytes. A reader ignores fields that it does not know, and every field
//! of [`Snapshot`] may be missing: the dashboard and the node need not be of the same version.

use serde::{Deserialize, Serialize};

/// A line of a command is no longer.
pub(crate) const MAX_COMMAND: usize = 4096;
/// The name of a peer, and any other text that a stranger chose, is no longer.
pub(crate) const MAX_TEXT: usize = 512;

/// A line of the node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FromNode {
    Snapshot(Box<Snapshot>),
    /// The first ones are those that came before the dashboard.
    Events(Vec<Event>),
    Answer(Answer),
    /// The node does not serve this dashboard, and why. Nothing follows.
    Refused(String),
}

/// Something that happened at the node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Event {
    /// Since the view was opened.
    pub(crate) t_ms: u64,
    /// Empty if it concerns no peer.
    pub(crate) peer: String,
    /// In a word, as `suspect`.
    pub(crate) event: String,
    pub(crate) text: String,
}

/// The actions that a dashboard may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Action {
    /// Asks each connection of the peer whether it answers.
    Ping,
    /// Replaces the connections of the peer, without a gap.
    Replace,
    /// Ends the link, and dials the peer no longer.
    Disconnect,
    /// Lets the peer in no longer, for an hour.
    Ban,
    /// Lifts the ban.
    Unban,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Command {
    pub(crate) command: Action,
    /// The printed id; for `disconnect` also the address of a peer that has not answered yet.
    pub(crate) peer: String,
}

/// The result of a command: either `ok` or `error`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Answer {
    /// `None` if the line was no command.
    pub(crate) command: Option<Action>,
    pub(crate) peer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ok: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Snapshot {
    /// Since the view was opened.
    pub(crate) t_ms: u64,
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) listening: Vec<String>,
    /// Connections, handshakes and dials.
    pub(crate) connections: u64,
    pub(crate) queued_bytes: u64,
    pub(crate) inbox_bytes: u64,
    pub(crate) candidates: u64,
    /// Successors dialled in the last minute.
    pub(crate) replacements: u64,
    pub(crate) refused: u64,
    pub(crate) evicted: u64,
    pub(crate) banned: u64,
    pub(crate) events_lost: u64,
    pub(crate) peers: Vec<Peer>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Peer {
    /// Empty until it has answered.
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) addresses: Vec<String>,
    pub(crate) important: bool,
    pub(crate) banned: bool,
    /// `connecting`, `up`, `degraded` or `down`.
    pub(crate) state: String,
    pub(crate) state_age_ms: f64,
    pub(crate) score: f64,
    pub(crate) rtt_ms: Option<f64>,
    pub(crate) ping_interval_ms: Option<f64>,
    pub(crate) connections_wanted: u8,
    pub(crate) connections: Vec<Conn>,
    pub(crate) lanes: Vec<Lane>,
    pub(crate) reconnects: u64,
    /// Connections that a successor relieved since the view was opened.
    pub(crate) replaced: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
    pub(crate) messages_sent: u64,
    pub(crate) messages_received: u64,
    /// Dials that failed in a row.
    pub(crate) failures: u32,
    pub(crate) next_dial_ms: Option<f64>,
    pub(crate) last_error: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Conn {
    pub(crate) id: u64,
    /// Its place in the pool.
    pub(crate) slot: u8,
    pub(crate) addr: String,
    pub(crate) dialled: bool,
    /// `up`, `suspect` or `draining`.
    pub(crate) state: String,
    pub(crate) age_ms: f64,
    pub(crate) silent_ms: f64,
    pub(crate) rtt_ms: Option<f64>,
    pub(crate) score: f64,
    /// The part of the segments that were sent again, 0 to 1, if the kernel tells.
    pub(crate) loss: Option<f64>,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Lane {
    pub(crate) name: String,
    pub(crate) queued_messages: u64,
    pub(crate) queued_bytes: u64,
    /// Bytes that may be sent before the peer's application takes some.
    pub(crate) credit: u64,
    pub(crate) taken: u64,
    pub(crate) expired: u64,
    pub(crate) dropped: u64,
    pub(crate) resent_bytes: u64,
    pub(crate) inbox_messages: u64,
    pub(crate) inbox_bytes: u64,
}
