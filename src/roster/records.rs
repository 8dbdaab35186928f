//! Records of peers, kept from one life of the node to the next.
//!
//! A record prefers, and bars nobody; who it says answered last is not believed. The one thing that it
//! demands is the identity that the application itself gave with the address ([`PeerRecord::id`]).

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::config::PeerConfig;
use crate::health::keepalive::LearnedInterval;
use crate::id::PeerId;
use crate::serde_util::human_option;

/// The score of a peer of which nothing is known.
const UNKNOWN: f64 = 0.5;
/// After so long half of what was known has no weight any more.
const HALF_LIFE: Duration = Duration::from_secs(24 * 3600);

/// Everything that a node remembers of a peer: to be kept by the application and given to the node's next
/// life ([`Builder::records`](crate::Builder::records)).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct PeerRecord {
    /// Its addresses, as `host:port`; the first is what it is known by.
    pub addresses: Vec<String>,
    /// The identity that must answer there, if the application said so (`id@host:port`,
    /// [`PeerConfig::id`](crate::PeerConfig::id)). It binds the next life too: a peer with another key
    /// is not linked.
    pub id: Option<PeerId>,
    /// The peer that answered there last. Another peer may answer there the next time.
    pub peer: Option<PeerId>,
    /// How well it did, from 0 to 1, when it was linked last. `None` if it never was.
    pub score: Option<f64>,
    /// Dials that failed since it answered last.
    pub failures: u32,
    /// The time between pings that its path was found to need, if that is less than what is configured.
    pub learned: Option<LearnedInterval>,
    /// How long ago it was linked last. `None` if it never was.
    #[serde(with = "human_option")]
    pub last_seen: Option<Duration>,
}

impl PeerRecord {
    /// Nothing but an address, as `host:port` or `id@host:port`.
    pub fn new(address: impl Into<String>) -> Self {
        let PeerConfig { address, id, .. } = PeerConfig::new(address);
        let addresses = Some(address).filter(|address| !address.is_empty());
        PeerRecord { addresses: addresses.into_iter().collect(), id, ..PeerRecord::default() }
    }
}

/// A peer of an earlier life of the node as one to keep a link to, which
/// [`Node::add_peer`](crate::Node::add_peer) and [`Builder::peer_config`](crate::Builder::peer_config) take;
/// or as a candidate, for [`Node::learn`](crate::Node::learn).
///
/// The first address is [`PeerConfig::address`], the others are [`PeerConfig::alternatives`], and
/// [`PeerRecord::id`] is the identity that the peer must prove. [`PeerRecord::peer`] is not: only the
/// application says who must answer. If another peer with the same address shall not be accepted, set
/// [`PeerConfig::id`] to it. The score and what else was learned is not part of a configuration; a node that
/// gets the same records by [`Builder::records`](crate::Builder::records) finds it by the address.
///
/// A record without an address becomes [`PeerConfig::inbound_only`]. One that has no identity either is
/// refused where the configuration is used, as is one whose address is none.
///
/// ```
/// use unbroken::{Node, PeerRecord};
///
/// let text = r#"[{ "addresses": ["10.0.0.2:4000", "10.0.1.2:4000"] }, { "addresses": ["10.0.0.3:4000"] }]"#;
/// let records: Vec<PeerRecord> = serde_json::from_str(text)?;
/// // All of them are dialled, for ever, and with what was learned of them.
/// let node = Node::builder().records(records.clone()).start()?;
/// for record in records {
///     node.add_peer(record.into())?;
/// }
/// assert_eq!(node.peers().len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl From<PeerRecord> for PeerConfig {
    fn from(record: PeerRecord) -> Self {
        let mut addresses = record.addresses.into_iter();
        let first = addresses.next().map_or_else(PeerConfig::default, PeerConfig::new);
        PeerConfig { alternatives: addresses.collect(), id: record.id.or(first.id), ..first }
    }
}

/// The same while the node runs.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    pub(super) score: Option<f64>,
    pub(super) failures: u32,
    /// As of that instant.
    learned: Option<(LearnedInterval, Instant)>,
    /// How long ago it was seen, at that instant.
    seen: Option<(Duration, Instant)>,
}

impl Memory {
    pub(super) fn restored(record: &PeerRecord, now: Instant) -> Self {
        Memory {
            // A value from a file may be anything, NaN included.
            score: record.score.filter(|score| score.is_finite()).map(|score| score.clamp(0.0, 1.0)),
            failures: record.failures,
            learned: record.learned.map(|learned| (learned, now)),
            seen: record.last_seen.map(|age| (age, now)),
        }
    }

    pub(super) fn handle_seen(&mut self, now: Instant) {
        self.seen = Some((Duration::ZERO, now));
        self.failures = 0;
    }

    /// It was linked, in this life of the node or in one before.
    pub(super) fn was_seen(&self) -> bool {
        self.seen.is_some()
    }

    pub(super) fn set_learned(&mut self, learned: Option<LearnedInterval>, now: Instant) {
        self.learned = learned.map(|learned| (learned, now));
    }

    pub(super) fn learned(&self, now: Instant) -> Option<LearnedInterval> {
        let (mut learned, at) = self.learned?;
        learned.age = learned.age.saturating_add(now.saturating_duration_since(at));
        Some(learned)
    }

    pub(super) fn age(&self, now: Instant) -> Option<Duration> {
        self.seen.map(|(age, at)| age.saturating_add(now.saturating_duration_since(at)))
    }

    /// How promising it is to dial this peer, from 0 to 1: half for somebody unknown, and towards that the
    /// longer ago it was seen; divided for each dial that failed since.
    pub(super) fn rank(&self, now: Instant) -> f64 {
        let halves = self.age(now).map_or(0.0, |age| age.as_secs_f64() / HALF_LIFE.as_secs_f64());
        let known = self.score.unwrap_or(UNKNOWN) - UNKNOWN;
        (UNKNOWN + known * 0.5f64.powf(halves)) / f64::from(self.failures.saturating_add(1))
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Tests need some instant to start from; they never read the clock again.
mod tests {
    use super::*;

    #[test]
    fn a_good_record_is_better_than_none_and_none_better_than_a_bad_one() {
        let now = Instant::now();
        let of = |score, failures, days: u64| {
            let last_seen = Some(Duration::from_secs(days * 24 * 3600));
            Memory::restored(&PeerRecord { score, failures, last_seen, ..PeerRecord::default() }, now)
                .rank(now)
        };
        let unknown = Memory::default().rank(now);
        assert!(of(Some(0.9), 0, 0) > of(Some(0.9), 0, 3) && of(Some(0.9), 0, 3) > unknown);
        assert!(of(Some(0.1), 0, 0) < unknown && of(Some(0.9), 1, 0) < unknown);
        assert!(of(None, 3, 0) < of(None, 2, 0));
        assert_eq!(of(Some(f64::NAN), 0, 0), unknown);
        assert_eq!(of(Some(7.0), 0, 0), 1.0);
    }

    #[test]
    fn a_record_survives_a_file() {
        let record = PeerRecord {
            peer: Some(PeerId::from_bytes([3; 32])),
            score: Some(0.25),
            last_seen: Some(Duration::from_secs(7)),
            ..PeerRecord::new("a:1")
        };
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<PeerRecord>(&text).unwrap(), record);
        let short: PeerRecord = serde_json::from_str(r#"{"addresses":["a:1"]}"#).unwrap();
        assert_eq!(short, PeerRecord::new("a:1"));
    }

    #[test]
    fn a_record_is_a_configuration_without_what_was_learned() {
        let [id, other] = [3, 4].map(|byte| PeerId::from_bytes([byte; 32]));
        let record = PeerRecord {
            addresses: vec!["a:1".into(), "b:1".into(), "c:1".into()],
            id: Some(id),
            peer: Some(other),
            score: Some(0.25),
            failures: 2,
            ..PeerRecord::default()
        };
        let alternatives = vec!["b:1".into(), "c:1".into()];
        let config = PeerConfig { id: Some(id), alternatives, ..PeerConfig::new("a:1") };
        assert_eq!(PeerConfig::from(record.clone()), config);
        // The application did not say who must answer there.
        let anybody = PeerRecord { id: None, ..record };
        assert_eq!(PeerConfig::from(anybody), PeerConfig { id: None, ..config });

        // As it may stand in a file.
        let text = format!(r#"{{"addresses":["{id}@a:1"]}}"#);
        let written: PeerRecord = serde_json::from_str(&text).unwrap();
        assert_eq!(PeerConfig::from(written.clone()).id, Some(id));
        let twice = PeerRecord { id: Some(other), ..written };
        assert_eq!(PeerConfig::from(twice), PeerConfig { id: Some(other), ..PeerConfig::new("a:1") });

        let inbound = PeerRecord { id: Some(id), ..PeerRecord::default() };
        assert_eq!(PeerConfig::from(inbound), PeerConfig::inbound_only(id));
        let nobody = PeerConfig::from(PeerRecord { peer: Some(id), ..PeerRecord::default() });
        assert!(nobody.validate("peer").is_err());
    }
}
