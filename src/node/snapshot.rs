//! The state of a node and its links, for people, dashboards and tests.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::error::EndReason;
use crate::health::breaker::BreakerState;
use crate::health::kernel::KernelSample;
use crate::health::peer_score::PeerScoreParts;
use crate::health::score::ScoreParts;
use crate::id::{ConnId, Incarnation, PeerId};
use crate::lane::LaneId;
use crate::link::flood_guard::FloodGuard;
use crate::roster::TargetStats;

use super::Node;
use super::link::{LinkHandle, LinkState};

/// A peer that is, or should be, linked with this node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PeerSnapshot {
    /// Its name; `None` until it has answered for the first time.
    pub peer: Option<PeerId>,
    /// The application's name that it gave.
    pub name: String,
    /// What this node's operator calls it ([`PeerConfig::label`](crate::PeerConfig::label)).
    pub label: Option<String>,
    /// The addresses by which it is wanted; empty for one that only dials us.
    pub addresses: Vec<String>,
    /// Whether it was configured or added. Otherwise it is a candidate that was chosen, if it has an
    /// address here, or it dialled this node.
    pub wanted: bool,
    /// How many connections its link is to own that this node dials; 0 when it dials none.
    pub connections_wanted: u8,
    /// Whether it was marked as important.
    pub important: bool,
    /// The state of the link.
    pub state: LinkState,
    /// How long it has been in this state, in milliseconds. For a peer that has never been linked: since it
    /// was added, or the node was started.
    pub state_age_ms: f64,
    /// Which life of the peer this is.
    pub incarnation: Option<Incarnation>,
    /// How well it has done lately: 0 (never answers) to 1 (always does). The product of its parts.
    pub score: f64,
    /// The parts of the score; all have a half-life of a minute.
    pub score_parts: Option<PeerScoreParts>,
    /// The time between pings, in milliseconds: as configured, or less where the path has taught so.
    pub ping_interval_ms: Option<f64>,
    /// The smoothed round trip of its best connection, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Its connections.
    pub connections: Vec<ConnSnapshot>,
    /// Its lanes.
    pub lanes: Vec<LaneSnapshot>,
    /// How many connections came after the first: those for lost ones, those that replaced others, and the
    /// further ones of its pool.
    pub reconnects: u64,
    /// Bytes written to its connections so far.
    pub bytes_sent: u64,
    /// Bytes read from its connections so far.
    pub bytes_received: u64,
    /// Messages accepted for it.
    pub messages_sent: u64,
    /// Messages received whole from it.
    pub messages_received: u64,
    /// Our requests that wait for its reply.
    pub requests_waiting: usize,
    /// Its requests that wait for our reply.
    pub requests_open: usize,
    /// Replies that came when nobody waited any longer.
    pub late_replies: u64,
    /// Its frames that cost more than they brought.
    pub flood: FloodSnapshot,
    /// Why the last dial to it failed, if none has succeeded since; otherwise why its last connection ended.
    /// Connections that were replaced, or duplicates, do not count. `None` if neither has happened.
    pub last_error: Option<EndReason>,
    /// The state of its breaker.
    pub breaker: BreakerState,
    /// Dials that failed in a row.
    pub failures: u32,
    /// When it will be dialled next, in milliseconds from now.
    pub next_dial_ms: Option<f64>,
}

/// Frames of a peer that cost more than they brought, since the link began. Some of each are in the nature of
/// things; too many are a flood, which ends the connection ([`EndCause::Flood`](crate::EndCause::Flood)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FloodSnapshot {
    /// Chunks of less than 64 new bytes that ended no message.
    pub chunks: u64,
    /// Acknowledgements, lane by lane, that ended no message.
    pub acks: u64,
    /// Pings.
    pub pings: u64,
    /// Requests that it gave up.
    pub cancels: u64,
    /// Requests for which another one had to go, because it has too many open.
    pub overcommitted: u64,
    /// Replies that nobody waited for.
    pub late_replies: u64,
    /// Frames of a kind that this version does not know.
    pub unknown: u64,
}

impl From<FloodGuard> for FloodSnapshot {
    fn from(counts: FloodGuard) -> Self {
        FloodSnapshot {
            chunks: counts.poor_chunks,
            acks: counts.poor_acks,
            pings: counts.pings,
            cancels: counts.cancels,
            overcommitted: counts.overcommitted,
            late_replies: counts.late_replies,
            unknown: counts.hints,
        }
    }
}

/// The state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnState {
    /// Above suspicion.
    Up,
    /// An answer is overdue.
    Suspect,
    /// No new data goes by it; it ends in order.
    Draining,
}

impl fmt::Display for ConnState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ConnState::Up => "up",
            ConnState::Suspect => "suspect",
            ConnState::Draining => "draining",
        })
    }
}

/// One connection of a link.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ConnSnapshot {
    /// Its number in this node.
    pub id: ConnId,
    /// Its place in the pool of the link, from 0.
    pub slot: u8,
    /// The other side's address.
    pub addr: SocketAddr,
    /// Whether this node dialled.
    pub dialled: bool,
    /// Its state.
    pub state: ConnState,
    /// Its age in milliseconds.
    pub age_ms: f64,
    /// Time since the last byte was received, in milliseconds.
    pub silent_ms: f64,
    /// Its smoothed round trip in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Bytes written to it.
    pub bytes_sent: u64,
    /// Bytes read from it.
    pub bytes_received: u64,
    /// The size of its chunks now, in bytes.
    pub chunk: usize,
    /// How well it does: 0 to 1, the product of its parts. Below 0.4 for 1.5 s it is replaced.
    pub score: f64,
    /// The parts of the score.
    pub score_parts: ScoreParts,
    /// Whether it is to be replaced for its score.
    pub poor: bool,
    /// The kernel's last statistics of it. Sampled only while answers are awaited.
    pub kernel: Option<KernelSample>,
}

/// One lane of a link.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LaneSnapshot {
    /// The lane.
    pub lane: LaneId,
    /// Messages that the peer's application has not taken.
    pub queued_messages: usize,
    /// Their bytes, with 144 more for each.
    pub queued_bytes: usize,
    /// Bytes that may be sent before the peer's application takes some ([`LaneConfig::window`] of the peer,
    /// less what it has not taken); 0 until the peer has said what it allows.
    ///
    /// [`LaneConfig::window`]: crate::LaneConfig::window
    #[serde(default)]
    pub credit: u64,
    /// Bytes that were sent more than once, after a connection was lost or replaced.
    pub resent_bytes: u64,
    /// Messages that ended because the peer's application took them.
    pub taken_messages: u64,
    /// Messages that ended because their time was over
    /// ([`Outgoing::expires_in`](crate::Outgoing::expires_in)) before they were sent, or before the
    /// peer's application took them.
    pub expired_messages: u64,
    /// Messages that ended in another way; [`DropReason`](crate::DropReason) has which there are.
    pub dropped_messages: u64,
    /// Messages that ended because newer ones took their place in the full queue
    /// ([`WhenFull::DropOldest`](crate::WhenFull::DropOldest)).
    #[serde(default)]
    pub displaced_messages: u64,
    /// Sends and replies that were not accepted because the queue was full, at once or for the whole time
    /// that they waited ([`SendErrorKind::Full`](crate::SendErrorKind::Full),
    /// [`SendErrorKind::Timeout`](crate::SendErrorKind::Timeout)).
    pub refused_messages: u64,
    /// Messages that wait for this application.
    pub inbox_messages: usize,
    /// Bytes that this application has not taken, or is not done with.
    pub inbox_bytes: u64,
    /// Bytes that came more than once.
    pub duplicate_bytes: u64,
    /// Messages from the peer that were dropped because their time was over before this application took
    /// them.
    pub expired_on_arrival: u64,
}

/// The node as a whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NodeSnapshot {
    /// The node's own name.
    pub peer: PeerId,
    /// The application's name that it announces ([`Config::name`](crate::Config::name)).
    pub name: String,
    /// Which life of the node this is.
    pub incarnation: Incarnation,
    /// How long ago it was started, in milliseconds.
    pub uptime_ms: f64,
    /// The links, and the peers that are wanted but not linked yet.
    pub peers: Vec<PeerSnapshot>,
    /// Connections, handshakes and dials at this moment.
    pub connections: usize,
    /// Bytes in all outgoing queues.
    pub queued_bytes: usize,
    /// Bytes received and not taken, over all peers.
    pub inbox_bytes: u64,
    /// Candidates that are remembered, those that are linked included.
    pub candidates: usize,
    /// Successors that were dialled for serving connections in the last minute.
    pub replacements: usize,
    /// Events that were dropped because nobody took them. Those that were merged into later ones of the same
    /// peer do not count.
    pub events_lost: u64,
    /// Connections that were not let in.
    pub refused: u64,
    /// Connections and handshakes that had to make room for others.
    pub evicted: u64,
    /// Identities and addresses that are banned.
    pub banned: usize,
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

impl Node {
    /// The state of all peers.
    pub fn peers(&self) -> Vec<PeerSnapshot> {
        let now = clock::now();
        let core = &self.handle.core;
        let targets: Vec<TargetStats> = core.roster.lock().stats(now);
        let mut peers: Vec<PeerSnapshot> =
            core.links().iter().map(|link| of_link(link, &targets, now)).collect();
        for target in &targets {
            if target.peer.is_none_or(|peer| core.link(peer).is_none()) {
                peers.push(of_target(target, now));
            }
        }
        peers.sort_by(|a, b| (a.peer, &a.addresses).cmp(&(b.peer, &b.addresses)));
        peers
    }

    /// The state of one peer. `None` when there is no link to it.
    pub fn peer(&self, peer: PeerId) -> Option<PeerSnapshot> {
        let core = &self.handle.core;
        let now = clock::now();
        let targets = core.roster.lock().stats(now);
        core.link(peer).map(|link| of_link(&link, &targets, now))
    }

    /// The state of the whole node.
    pub fn snapshot(&self) -> NodeSnapshot {
        let core = &self.handle.core;
        let now = clock::now();
        let (candidates, replacements) = {
            let roster = core.roster.lock();
            (roster.candidates(), roster.replacements(now))
        };
        NodeSnapshot {
            peer: core.card.peer,
            name: core.config.name.clone(),
            incarnation: core.card.incarnation,
            uptime_ms: millis(now.saturating_duration_since(core.started)),
            peers: self.peers(),
            connections: core.connections.load(SeqCst),
            queued_bytes: core.shared.queued.used(),
            inbox_bytes: core.shared.received.held(),
            candidates,
            replacements,
            events_lost: core.shared.mailbox.events_lost(),
            refused: core.inbound.refused.load(Relaxed),
            evicted: core.inbound.evicted.load(Relaxed),
            banned: core.inbound.bans().len(),
        }
    }
}

fn of_link(link: &LinkHandle, targets: &[TargetStats], now: Instant) -> PeerSnapshot {
    let targets: Vec<_> = targets.iter().filter(|target| target.peer == Some(link.peer)).collect();
    let first = targets.first();
    link.inspect(|core| {
        let connections: Vec<ConnSnapshot> = core
            .link
            .conns()
            .iter()
            .map(|state| {
                let handle = &state.handle;
                let heard = handle.last_received().unwrap_or(handle.opened);
                ConnSnapshot {
                    id: handle.id,
                    slot: state.slot,
                    addr: handle.addr(),
                    dialled: handle.dialled,
                    state: match (state.is_serving(), state.is_up()) {
                        (_, true) => ConnState::Up,
                        (true, false) => ConnState::Suspect,
                        (false, false) => ConnState::Draining,
                    },
                    age_ms: millis(now.saturating_duration_since(handle.opened)),
                    silent_ms: millis(now.saturating_duration_since(heard)),
                    rtt_ms: state.liveness.rtt().map(millis),
                    bytes_sent: handle.bytes_sent.load(Relaxed),
                    bytes_received: handle.bytes_received.load(Relaxed),
                    chunk: state.pace.chunk(),
                    score: state.score.value(now),
                    score_parts: state.score.parts(now),
                    poor: state.poor,
                    kernel: state.score.kernel().cloned(),
                }
            })
            .collect();
        let (requests_waiting, requests_open) = core.link.open_requests();
        let life = &core.life;
        let sum = |of: fn(&ConnSnapshot) -> u64| connections.iter().map(of).sum::<u64>();
        PeerSnapshot {
            peer: Some(link.peer),
            name: life.name.clone(),
            label: targets.iter().find_map(|target| target.config.label.clone()),
            addresses: targets.iter().flat_map(|target| target.config.addresses().cloned()).collect(),
            wanted: targets.iter().any(|target| target.wanted),
            connections_wanted: targets.iter().map(|target| target.connections).max().unwrap_or(0),
            important: targets.iter().any(|target| target.config.important),
            state: life.announced,
            state_age_ms: life
                .since
                .or(first.map(|target| target.since))
                .map_or(0.0, |since| millis(now.saturating_duration_since(since))),
            incarnation: core.link.incarnation(),
            score: life.score.value(now),
            score_parts: Some(life.score.parts(now)),
            ping_interval_ms: Some(millis(core.link.ping_interval(now))),
            rtt_ms: connections.iter().filter_map(|conn| conn.rtt_ms).min_by(f64::total_cmp),
            lanes: core.link.lane_stats().map(LaneSnapshot::from).collect(),
            reconnects: life.joined.saturating_sub(1),
            bytes_sent: life.bytes_sent + sum(|conn| conn.bytes_sent),
            bytes_received: life.bytes_received + sum(|conn| conn.bytes_received),
            messages_sent: core.link.counters.messages_sent,
            messages_received: core.link.counters.messages_received,
            requests_waiting,
            requests_open,
            late_replies: core.link.meter.counts.late_replies,
            flood: core.link.meter.counts.into(),
            last_error: targets
                .iter()
                .find_map(|target| target.last_error.clone())
                .or_else(|| life.last_loss.clone()),
            breaker: first.map(|target| target.breaker).unwrap_or_default(),
            failures: first.map_or(0, |target| target.failures),
            next_dial_ms: first.and_then(|target| next_dial(target, now)),
            connections,
        }
    })
}

fn of_target(target: &TargetStats, now: Instant) -> PeerSnapshot {
    PeerSnapshot {
        peer: target.peer,
        name: String::new(),
        label: target.config.label.clone(),
        addresses: target.config.addresses().cloned().collect(),
        wanted: target.wanted,
        connections_wanted: target.connections,
        important: target.config.important,
        state: LinkState::Connecting,
        state_age_ms: millis(now.saturating_duration_since(target.since)),
        incarnation: None,
        score: 0.0,
        score_parts: None,
        ping_interval_ms: None,
        rtt_ms: None,
        connections: Vec::new(),
        lanes: Vec::new(),
        reconnects: 0,
        bytes_sent: 0,
        bytes_received: 0,
        messages_sent: 0,
        messages_received: 0,
        requests_waiting: 0,
        requests_open: 0,
        late_replies: 0,
        flood: FloodSnapshot::default(),
        last_error: target.last_error.clone(),
        breaker: target.breaker,
        failures: target.failures,
        next_dial_ms: next_dial(target, now),
    }
}

fn next_dial(target: &TargetStats, now: Instant) -> Option<f64> {
    match target.dialing {
        true => Some(0.0),
        false => target.retry_at.map(|at| millis(at.saturating_duration_since(now))),
    }
}

impl From<crate::link::LaneStats> for LaneSnapshot {
    fn from(stats: crate::link::LaneStats) -> Self {
        LaneSnapshot {
            lane: stats.lane,
            queued_messages: stats.queued_messages,
            queued_bytes: stats.queued_bytes,
            credit: stats.credit,
            resent_bytes: stats.resent_bytes,
            taken_messages: stats.ends.taken,
            expired_messages: stats.ends.expired,
            dropped_messages: stats.ends.dropped,
            displaced_messages: stats.ends.displaced,
            refused_messages: stats.ends.refused,
            inbox_messages: stats.inbox_messages,
            inbox_bytes: stats.inbox_bytes,
            duplicate_bytes: stats.duplicate_bytes,
            expired_on_arrival: stats.expired_on_arrival,
        }
    }
}
