//! Events: what the library tells the application.

mod text;

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::message::Message;
use crate::conduct::{Ban, BanTarget, Misbehavior};
use crate::error::EndReason;
use crate::health::breaker::BreakerState;
use crate::id::{ConnId, Incarnation, PeerId};
use crate::roster::ReplaceReason;
use crate::wire::refused::RefusedReason;

/// Why a peer that was a candidate is let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RetireReason {
    /// Its score stayed low.
    Poor,
}

/// Something that happened.
///
/// `Display` prints a line for a log: the first eight characters of the peer's id, if it is about a peer, and
/// what happened. `{:?}` prints every field. What to do with each event:
/// [`manual::event_loop`](crate::manual::event_loop).
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A message, or a request ([`Message::is_request`]), arrived.
    Message(Message),
    /// A link has a connection above suspicion: for the first time, again, or in the place of suspect
    /// ones.
    LinkUp {
        /// The peer.
        peer: PeerId,
        /// Which life of it.
        incarnation: Incarnation,
        /// How long the link had none; `None` if it had, or never had one before.
        after: Option<Duration>,
    },
    /// No connection of the link is above suspicion. Messages wait or go by a suspect one.
    LinkDegraded {
        /// The peer.
        peer: PeerId,
    },
    /// A link lost its last connection. Messages wait.
    LinkDown {
        /// The peer.
        peer: PeerId,
        /// Why the last connection ended.
        reason: EndReason,
    },
    /// A connection joined a link.
    Connected {
        /// The peer.
        peer: PeerId,
        /// The connection.
        conn: ConnId,
        /// The other side's address.
        addr: SocketAddr,
        /// Whether this node dialled.
        dialled: bool,
    },
    /// A connection of a link ended.
    Disconnected {
        /// The peer.
        peer: PeerId,
        /// The connection.
        conn: ConnId,
        /// Why.
        reason: EndReason,
    },
    /// An answer is overdue on this connection; a second one is dialled.
    Suspect {
        /// The peer.
        peer: PeerId,
        /// The connection.
        conn: ConnId,
    },
    /// The suspect connection showed a sign of life.
    Recovered {
        /// The peer.
        peer: PeerId,
        /// The connection.
        conn: ConnId,
    },
    /// The peer is a new process. Messages that its application had not taken are sent again.
    PeerRestarted {
        /// The peer.
        peer: PeerId,
        /// Its new life.
        incarnation: Incarnation,
        /// How many messages that had been begun are sent again.
        resent: usize,
    },
    /// The peer knew an earlier life of this process (the same identity, another incarnation). So many of the
    /// messages that it sends now may have been processed by that one.
    Repeated {
        /// The peer.
        peer: PeerId,
        /// How many messages may come for the second time. They are among the first of their lanes.
        messages: usize,
    },
    /// Messages were dropped whose fate is not known; their receipts say so.
    Lost {
        /// The peer.
        peer: PeerId,
        /// How many.
        messages: usize,
        /// Whether the peer gave up its memory (or this node, after the resumption time).
        by_peer: bool,
    },
    /// A successor is dialled for a connection that still serves. Every attempt is one event.
    Replacing {
        /// The peer.
        peer: PeerId,
        /// The connection that is to be relieved.
        conn: ConnId,
        /// Its place in the pool.
        slot: u8,
        /// Why.
        reason: ReplaceReason,
    },
    /// A successor has proved itself and carries what the old connection did; that one is drained.
    Replaced {
        /// The peer.
        peer: PeerId,
        /// The connection that goes.
        old: ConnId,
        /// Its successor.
        new: ConnId,
    },
    /// A connection scores so low, for so long, that it is to be replaced; whatever can go by another one
    /// does.
    ConnDegraded {
        /// The peer.
        peer: PeerId,
        /// The connection.
        conn: ConnId,
    },
    /// A connection that was poor scores well again.
    ConnHealthy {
        /// The peer.
        peer: PeerId,
        /// The connection.
        conn: ConnId,
    },
    /// A connection to this peer died of silence: from now on pings come more often.
    PingIntervalLearned {
        /// The peer.
        peer: PeerId,
        /// The time between pings now. It grows back slowly.
        ping_interval: Duration,
    },
    /// A candidate was linked, and this linked candidate is let go in its favour: its connections are
    /// drained.
    PeerRetired {
        /// The peer that is disconnected.
        peer: PeerId,
        /// The peer that takes its place.
        successor: PeerId,
        /// Why.
        reason: RetireReason,
    },
    /// The addresses of one entry lead to more than one node, or not to the one whose id it names: a name
    /// with records of several nodes, a load balancer, or a wrong id. The other node is not connected to.
    /// Give each peer an entry of its own, best as `id@host:port`. Reported once for as long as
    /// `expected` is the same.
    AddressConflict {
        /// The address as it was configured; the alternatives of the entry may be meant as well.
        address: String,
        /// The peer that the entry stands for.
        expected: PeerId,
        /// The peer that answered.
        found: PeerId,
    },
    /// A dial failed. If the other side refused this node, and said why, the cause is
    /// [`EndCause::RefusedByPeer`](crate::EndCause::RefusedByPeer).
    DialFailed {
        /// The peer that the dial was made for: the one whose id the entry names, or whose link serves. If
        /// there is none, the one that answered and proved its id before the dial failed (in plaintext it is
        /// only claimed). If none did, the one that the entry led to before, which need not be what is at
        /// the address now. `None` if nobody has answered there yet.
        peer: Option<PeerId>,
        /// The address as it was configured.
        address: String,
        /// Why.
        reason: EndReason,
        /// When the next attempt will be made; `None`: not before something changes. For a candidate that
        /// is: when it is chosen again.
        next: Option<Duration>,
    },
    /// A connection that another node opened was refused. After the peer has proven who it is, it is told the
    /// same, unless [`AdmissionConfig::tell_strangers`](crate::AdmissionConfig::tell_strangers) says
    /// otherwise. For strangers at most 20 events at once and one a second in the long run, and as many
    /// for connections that were refused before their peer was known;
    /// [`NodeSnapshot::refused`](crate::NodeSnapshot::refused) counts all.
    Refused {
        /// The peer; in plaintext only claimed. `None` if it was refused before it could say who it is: by
        /// its address, or because it belongs to another network.
        peer: Option<PeerId>,
        /// The address it came from.
        addr: SocketAddr,
        /// Why. With [`RefusedReason::Address`] as many connections come from one address as
        /// [`AdmissionConfig::max_inbound_per_address`](crate::AdmissionConfig::max_inbound_per_address)
        /// allows. [`RefusedReason::IdentityInUse`] means that two processes run with the identity
        /// `peer`.
        why: RefusedReason,
    },
    /// A peer offended: see [`Misbehavior`] for what follows. When it led to a ban, [`Event::Banned`] comes
    /// instead. For an address only bans are told.
    Offended {
        /// The peer or address that offended.
        who: BanTarget,
        /// The kind of misbehavior.
        misbehavior: Misbehavior,
        /// Its strikes by now. At the threshold a wanted peer was disconnected.
        strikes: u32,
    },
    /// A ban began, or was made longer.
    Banned {
        /// Its target, its time and its reason.
        ban: Ban,
    },
    /// A ban is over, or was lifted.
    Unbanned {
        /// The peer or address that was banned.
        who: BanTarget,
    },
    /// A breaker opened or closed. An open one lets trial dials through, each of which ends as
    /// [`Event::DialFailed`] or [`Event::Connected`];
    /// [`PeerSnapshot::breaker`](crate::PeerSnapshot::breaker) says whether one is under way.
    Breaker {
        /// The peer that the entry led to last, otherwise the one whose id it names. `None` if it has no id,
        /// and nobody has answered yet.
        peer: Option<PeerId>,
        /// The address as it was configured.
        address: String,
        /// The new state: [`BreakerState::Open`] or [`BreakerState::Closed`].
        state: BreakerState,
    },
}
