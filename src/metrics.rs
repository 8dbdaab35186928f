//! The figures of a node for the [`metrics`](https://docs.rs/metrics) facade, and by it for Prometheus and others.
//! Needs the feature `metrics`.
//!
//! The application decides when to look: [`Reporter::report`] takes one [`NodeSnapshot`] to the recorder that
//! is installed. Once in 10 s is enough for alarms; a look costs about a lock for each peer.
//! `examples/metrics` serves them to Prometheus, and has a dashboard for Grafana;
//! [`manual::operating`](crate::manual::operating) says which deserve an alarm, and why.
//!
//! ```
//! use unbroken::metrics::Reporter;
//!
//! let node = unbroken::Node::builder().start()?;
//! let mut reporter = Reporter::new();
//! // Once in 10 s, or when somebody asks for the figures:
//! reporter.report(&node.snapshot());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Figures of the node
//! | name | kind | meaning |
//! |---|---|---|
//! | `unbroken_peers` | gauge | peers by `state` (`connecting`, `up`, `degraded`, `down`) and `wanted` (`true`, `false`) |
//! | `unbroken_connections` | gauge | connections, handshakes and dials |
//! | `unbroken_queued_bytes` | gauge | bytes in all outgoing queues |
//! | `unbroken_inbox_bytes` | gauge | bytes received that the application has not taken |
//! | `unbroken_candidates` | gauge | candidates that are remembered |
//! | `unbroken_banned` | gauge | identities and addresses that are banned |
//! | `unbroken_replacements` | gauge | successors dialled for serving connections in the last minute |
//! | `unbroken_refused_total` | counter | connections that were not let in |
//! | `unbroken_evicted_total` | counter | connections and handshakes that made room for others |
//! | `unbroken_events_lost_total` | counter | events that nobody took in time |
//!
//! # Figures of each peer
//! The label `peer` is the peer's printed id, or its first address until it has answered; the label `label`
//! what the operator calls it ([`PeerConfig::label`](crate::PeerConfig::label)), if anything. Only peers that
//! are *wanted* (configured, added, or chosen from candidates) have these, because others choose their own
//! names: the number of series is bounded by what this side asked for. A peer that is wanted no longer shows
//! 0, and NaN under a label that it had before.
//!
//! | name | kind | meaning |
//! |---|---|---|
//! | `unbroken_peer_up` | gauge | 1 while its link is up, otherwise 0 |
//! | `unbroken_peer_score` | gauge | how well it has done lately, 0 to 1 |
//! | `unbroken_peer_rtt_seconds` | gauge | smoothed round trip of its best connection; NaN until it is measured |
//! | `unbroken_peer_connections` | gauge | its connections |
//! | `unbroken_peer_dial_failures` | gauge | dials that failed in a row |
//! | `unbroken_peer_requests_waiting` | gauge | requests that wait for its reply |
//! | `unbroken_peer_reconnects_total` | counter | connections that came after the first |
//! | `unbroken_peer_sent_bytes_total` | counter | bytes written to its connections |
//! | `unbroken_peer_received_bytes_total` | counter | bytes read from its connections |
//! | `unbroken_peer_sent_messages_total` | counter | messages accepted for it |
//! | `unbroken_peer_received_messages_total` | counter | messages received whole from it |
//!
//! # Figures of each lane of such a peer
//! With the labels `peer`, `label` and `lane` (its number).
//!
//! | name | kind | meaning |
//! |---|---|---|
//! | `unbroken_lane_queued_messages` | gauge | messages that the peer's application has not taken |
//! | `unbroken_lane_queued_bytes` | gauge | their bytes |
//! | `unbroken_lane_inbox_bytes` | gauge | bytes that this application has not taken |
//! | `unbroken_lane_taken_total` | counter | messages that the peer's application took |
//! | `unbroken_lane_expired_total` | counter | messages whose time was over before they were sent or the peer's application took them |
//! | `unbroken_lane_dropped_total` | counter | messages that ended in another way |
//! | `unbroken_lane_displaced_total` | counter | messages that newer ones displaced in a full queue |
//! | `unbroken_lane_refused_total` | counter | messages that were not accepted because the queue was full |
//! | `unbroken_lane_resent_bytes_total` | counter | bytes sent more than once, after a connection was lost or replaced |
//! | `unbroken_lane_duplicate_bytes_total` | counter | bytes that came more than once |
//! | `unbroken_lane_expired_on_arrival_total` | counter | messages from the peer whose time was over before this application took them |
//!
//! Counters go on when a link begins anew: what was counted before is kept.

use std::collections::{HashMap, HashSet};

use metrics::Unit;

use crate::node::{LaneSnapshot, LinkState, NodeSnapshot, PeerSnapshot};

/// Takes snapshots of one node to the recorder of the `metrics` facade.
///
/// Without a recorder, reports go nowhere.
#[derive(Debug, Default)]
pub struct Reporter {
    /// The counters of the last report.
    counted: HashMap<Series, u64>,
    /// The gauges of the last report.
    shown: HashSet<Series>,
}

/// A figure of a peer or of one of its lanes; of the node with an empty peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Series {
    name: &'static str,
    peer: String,
    label: Option<String>,
    lane: Option<u8>,
}

struct Figure<T> {
    name: &'static str,
    unit: Unit,
    meaning: &'static str,
    value: Value<T>,
}

enum Value<T> {
    Gauge(fn(&T) -> f64),
    Counter(fn(&T) -> u64),
}

use Value::{Counter, Gauge};

const PEERS: &str = "unbroken_peers";

#[rustfmt::skip] // A table.
const OF_NODE: &[Figure<NodeSnapshot>] = &[
    figure("unbroken_connections", Unit::Count, "connections, handshakes and dials", Gauge(|node| node.connections as f64)),
    figure("unbroken_queued_bytes", Unit::Bytes, "bytes in all outgoing queues", Gauge(|node| node.queued_bytes as f64)),
    figure("unbroken_inbox_bytes", Unit::Bytes, "bytes received that the application has not taken", Gauge(|node| node.inbox_bytes as f64)),
    figure("unbroken_candidates", Unit::Count, "candidates that are remembered", Gauge(|node| node.candidates as f64)),
    figure("unbroken_banned", Unit::Count, "identities and addresses that are banned", Gauge(|node| node.banned as f64)),
    figure("unbroken_replacements", Unit::Count, "successors dialled for serving connections in the last minute", Gauge(|node| node.replacements as f64)),
    figure("unbroken_refused_total", Unit::Count, "connections that were not let in", Counter(|node| node.refused)),
    figure("unbroken_evicted_total", Unit::Count, "connections and handshakes that made room for others", Counter(|node| node.evicted)),
    figure("unbroken_events_lost_total", Unit::Count, "events that nobody took in time", Counter(|node| node.events_lost)),
];

#[rustfmt::skip]
const OF_PEER: &[Figure<PeerSnapshot>] = &[
    figure("unbroken_peer_up", Unit::Count, "1 while the link is up", Gauge(|peer| if peer.state == LinkState::Up { 1.0 } else { 0.0 })),
    figure("unbroken_peer_score", Unit::Count, "how well the peer has done lately, 0 to 1", Gauge(|peer| peer.score)),
    figure("unbroken_peer_rtt_seconds", Unit::Seconds, "smoothed round trip of the best connection", Gauge(|peer| peer.rtt_ms.map_or(f64::NAN, |ms| ms / 1000.0))),
    figure("unbroken_peer_connections", Unit::Count, "connections", Gauge(|peer| peer.connections.len() as f64)),
    figure("unbroken_peer_dial_failures", Unit::Count, "dials that failed in a row", Gauge(|peer| f64::from(peer.failures))),
    figure("unbroken_peer_requests_waiting", Unit::Count, "requests that wait for a reply", Gauge(|peer| peer.requests_waiting as f64)),
    figure("unbroken_peer_reconnects_total", Unit::Count, "connections that came after the first", Counter(|peer| peer.reconnects)),
    figure("unbroken_peer_sent_bytes_total", Unit::Bytes, "bytes written to connections", Counter(|peer| peer.bytes_sent)),
    figure("unbroken_peer_received_bytes_total", Unit::Bytes, "bytes read from connections", Counter(|peer| peer.bytes_received)),
    figure("unbroken_peer_sent_messages_total", Unit::Count, "messages accepted for the peer", Counter(|peer| peer.messages_sent)),
    figure("unbroken_peer_received_messages_total", Unit::Count, "messages received whole from the peer", Counter(|peer| peer.messages_received)),
];

#[rustfmt::skip]
const OF_LANE: &[Figure<LaneSnapshot>] = &[
    figure("unbroken_lane_queued_messages", Unit::Count, "messages that the peer's application has not taken", Gauge(|lane| lane.queued_messages as f64)),
    figure("unbroken_lane_queued_bytes", Unit::Bytes, "bytes of messages that the peer's application has not taken", Gauge(|lane| lane.queued_bytes as f64)),
    figure("unbroken_lane_inbox_bytes", Unit::Bytes, "bytes that this application has not taken", Gauge(|lane| lane.inbox_bytes as f64)),
    figure("unbroken_lane_taken_total", Unit::Count, "messages that the peer's application took", Counter(|lane| lane.taken_messages)),
    figure("unbroken_lane_expired_total", Unit::Count, "messages whose time was over before they were sent or the peer's application took them", Counter(|lane| lane.expired_messages)),
    figure("unbroken_lane_dropped_total", Unit::Count, "messages that ended in another way", Counter(|lane| lane.dropped_messages)),
    figure("unbroken_lane_displaced_total", Unit::Count, "messages that newer ones displaced in a full queue", Counter(|lane| lane.displaced_messages)),
    figure("unbroken_lane_refused_total", Unit::Count, "messages that were not accepted because the queue was full", Counter(|lane| lane.refused_messages)),
    figure("unbroken_lane_resent_bytes_total", Unit::Bytes, "bytes sent more than once", Counter(|lane| lane.resent_bytes)),
    figure("unbroken_lane_duplicate_bytes_total", Unit::Bytes, "bytes that came more than once", Counter(|lane| lane.duplicate_bytes)),
    figure("unbroken_lane_expired_on_arrival_total", Unit::Count, "messages from the peer whose time was over before this application took them", Counter(|lane| lane.expired_on_arrival)),
];

const fn figure<T>(name: &'static str, unit: Unit, meaning: &'static str, value: Value<T>) -> Figure<T> {
    Figure { name, unit, meaning, value }
}

impl Reporter {
    /// Describes all figures to the recorder that is installed at this moment.
    pub fn new() -> Self {
        metrics::describe_gauge!(PEERS, Unit::Count, "peers by state");
        describe(OF_NODE);
        describe(OF_PEER);
        describe(OF_LANE);
        Reporter::default()
    }

    /// Reports these figures. `snapshot` is always of the same node.
    pub fn report(&mut self, snapshot: &NodeSnapshot) {
        report_states(&snapshot.peers);
        let before = std::mem::take(self);
        self.report_all(OF_NODE, snapshot, &Series::default(), &before);
        for peer in snapshot.peers.iter().filter(|peer| peer.wanted || !peer.addresses.is_empty()) {
            let id = peer.peer.map(|id| id.to_string());
            let Some(name) = id.or_else(|| peer.addresses.first().cloned()) else { continue };
            let series = Series { peer: name, label: peer.label.clone(), ..Series::default() };
            self.report_all(OF_PEER, peer, &series, &before);
            for lane in &peer.lanes {
                let series = Series { lane: Some(lane.lane.0), ..series.clone() };
                self.report_all(OF_LANE, lane, &series, &before);
            }
        }
        let known: HashSet<_> = self.shown.iter().map(Series::without_label).collect();
        for series in before.shown.difference(&self.shown) {
            // Of a peer whose label has changed nothing is known under the old one.
            let value = if known.contains(&series.without_label()) { f64::NAN } else { 0.0 };
            metrics::gauge!(series.name, series.labels()).set(value);
        }
    }

    fn report_all<T>(&mut self, figures: &[Figure<T>], of: &T, series: &Series, before: &Reporter) {
        for Figure { name, value, .. } in figures {
            let series = Series { name, ..series.clone() };
            match value {
                Gauge(value) => {
                    metrics::gauge!(*name, series.labels()).set(value(of));
                    self.shown.insert(series);
                }
                Counter(value) => {
                    let (value, before) = (value(of), before.counted.get(&series).copied().unwrap_or(0));
                    // One that fell began anew.
                    let grown = value.checked_sub(before).unwrap_or(value);
                    metrics::counter!(*name, series.labels()).increment(grown);
                    self.counted.insert(series, value);
                }
            }
        }
    }
}

impl Series {
    fn without_label(&self) -> (&'static str, &str, Option<u8>) {
        (self.name, &self.peer, self.lane)
    }

    fn labels(&self) -> Vec<metrics::Label> {
        let peer = (!self.peer.is_empty()).then(|| metrics::Label::new("peer", self.peer.clone()));
        let label = self.label.clone().map(|label| metrics::Label::new("label", label));
        let lane = self.lane.map(|lane| metrics::Label::new("lane", lane.to_string()));
        peer.into_iter().chain(label).chain(lane).collect()
    }
}

fn describe<T>(figures: &[Figure<T>]) {
    for Figure { name, unit, meaning, value } in figures {
        match value {
            Gauge(_) => metrics::describe_gauge!(*name, *unit, *meaning),
            Counter(_) => metrics::describe_counter!(*name, *unit, *meaning),
        }
    }
}

fn report_states(peers: &[PeerSnapshot]) {
    for wanted in [true, false] {
        for (state, label) in [
            (LinkState::Connecting, "connecting"),
            (LinkState::Up, "up"),
            (LinkState::Degraded, "degraded"),
            (LinkState::Down, "down"),
        ] {
            let count = peers.iter().filter(|peer| peer.wanted == wanted && peer.state == state).count();
            let wanted = if wanted { "true" } else { "false" };
            metrics::gauge!(PEERS, "state" => label, "wanted" => wanted).set(count as f64);
        }
    }
}
