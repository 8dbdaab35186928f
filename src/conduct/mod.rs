//! Strikes and bans. Pure: time is an argument, nothing is carried out here.
//!
//! ```text
//!                 strikes below the threshold
//!                +---+
//!     misbehavior    v   |   threshold, a stranger          the time is over, or unban
//!   ---------> on record --------------------> banned --------------------------> forgotten
//!                |   threshold, a wanted peer
//!                +--> its connections are ended, the record begins anew, it is dialled again with backoff
//! ```
//!
//! # Who is meant
//! An identity that was **proven** by the handshake is struck and banned by its name, wherever it comes from.
//! That begins with the proof, before HELLO. In plaintext nothing is proven, and whoever breaks the protocol
//! is struck by its address, IPv6 by its /64. Many share an address behind a NAT, so such a ban is short; it
//! keeps out whoever dials from there, and a wanted peer behind it can still be dialled. Exempt addresses
//! (loopback) get no strikes. A name that is only claimed is never struck by the library: anybody could get
//! anybody banned.
//!
//! # Wanted peers
//! A wanted peer is one that the operator named: to ban it silently would turn one bug in a validator's new
//! version into a partition, which harms more than the peer can. So by default it gets its
//! strikes, is disconnected at the threshold, and redialled with backoff. [`ConductConfig::ban_wanted`] says
//! otherwise, and [`Node::ban`](crate::Node::ban) bans anybody.
//!
//! # Invariants
//! - Both tables are bounded. The record with the fewest strikes goes first, and the ban that ends first; one
//!   without an end goes last. So offenders with many names drive out each other's records before those of
//!   worse ones.
//! - A ban that ended is not given out, even if nobody has asked since.

mod config;
mod misbehavior;

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::id::PeerId;

pub use config::ConductConfig;
pub use misbehavior::Misbehavior;

/// A peer or an address that has strikes or is banned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BanTarget {
    /// An identity, wherever it comes from.
    Peer(PeerId),
    /// An address, and every peer that comes from there; for IPv6 the /64 that it belongs to.
    Address(IpAddr),
}

impl BanTarget {
    /// The target at this address: IPv4 as it is, also as an IPv4-mapped IPv6 address; IPv6 by its /64, which
    /// is what one customer has at least (RFC 6177).
    pub fn at(addr: IpAddr) -> Self {
        BanTarget::Address(match addr.to_canonical() {
            IpAddr::V6(addr) => IpAddr::V6(Ipv6Addr::from_bits(addr.to_bits() >> 64 << 64)),
            v4 => v4,
        })
    }

    /// As it is kept: see [`BanTarget::at`].
    pub(crate) fn normal(self) -> Self {
        match self {
            BanTarget::Address(addr) => BanTarget::at(addr),
            peer => peer,
        }
    }
}

impl From<PeerId> for BanTarget {
    fn from(peer: PeerId) -> Self {
        BanTarget::Peer(peer)
    }
}

impl From<IpAddr> for BanTarget {
    fn from(addr: IpAddr) -> Self {
        BanTarget::at(addr)
    }
}

impl fmt::Display for BanTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BanTarget::Peer(peer) => write!(f, "peer {}", peer.short()),
            BanTarget::Address(addr) => write!(f, "address {addr}"),
        }
    }
}

/// A ban, in a form that can be kept over a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Ban {
    /// The peer or address that is banned.
    pub who: BanTarget,
    /// How much longer, in milliseconds; `None`: until it is lifted. The number does not run down while it
    /// lies in a file: subtract the time that has passed if it should.
    pub remaining_ms: Option<u64>,
    /// Why.
    pub why: String,
}

impl Ban {
    /// A ban for so long, or until it is lifted.
    pub fn new(who: impl Into<BanTarget>, time: Option<Duration>, why: impl Into<String>) -> Self {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Ban { who: who.into().normal(), remaining_ms: time.map(millis), why: why.into() }
    }
}

/// The consequence of a misbehavior.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Penalty {
    /// It is on record. So many strikes by now.
    Noted(u32),
    /// Its connections are to be ended.
    Disconnect,
    /// The same, and it is banned for so long.
    Banned(Duration),
}

impl fmt::Display for Penalty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Penalty::Noted(1) => f.write_str("it has 1 strike"),
            Penalty::Noted(strikes) => write!(f, "it has {strikes} strikes"),
            Penalty::Disconnect => f.write_str("it is disconnected"),
            Penalty::Banned(time) => write!(f, "it is banned for {}", humantime::format_duration(*time)),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Record {
    strikes: f64,
    at: Instant,
}

#[derive(Clone, Debug)]
struct Sentenced {
    until: Option<Instant>,
    why: String,
}

/// The longest reason that is kept with a ban, in bytes.
const MAX_WHY: usize = 256;
/// A century: an end beyond it is none.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The records and the bans.
#[derive(Debug)]
pub(crate) struct Conduct {
    config: ConductConfig,
    records: HashMap<BanTarget, Record>,
    bans: HashMap<BanTarget, Sentenced>,
}

impl Conduct {
    pub(crate) fn new(config: ConductConfig) -> Self {
        Conduct { config, records: HashMap::new(), bans: HashMap::new() }
    }

    /// a misbehavior of this target. `wanted`: the operator named it.
    pub(crate) fn report(
        &mut self,
        who: BanTarget,
        misbehavior: Misbehavior,
        wanted: bool,
        now: Instant,
    ) -> Penalty {
        let who = who.normal();
        let half_life = self.config.half_life;
        let worth = |record: &Record| record.decayed(half_life, now);
        if !self.records.contains_key(&who) {
            drop_least(&mut self.records, self.config.max_records, |record| worth(record));
        }
        let record = self.records.entry(who).or_insert(Record { strikes: 0.0, at: now });
        *record = Record { strikes: worth(record) + f64::from(misbehavior.strikes()), at: now };
        if record.strikes < f64::from(self.config.threshold) {
            return Penalty::Noted(record.strikes as u32);
        }
        self.records.remove(&who);
        if wanted && !self.config.ban_wanted {
            return Penalty::Disconnect;
        }
        let time = match who {
            BanTarget::Peer(_) => self.config.ban_time,
            BanTarget::Address(_) => self.config.address_ban_time,
        };
        self.ban(&Ban::new(who, Some(time), misbehavior.to_string()), now);
        Penalty::Banned(time)
    }

    /// Bans for so long. If the target is already banned, the later expiry wins.
    pub(crate) fn ban(&mut self, ban: &Ban, now: Instant) {
        let who = ban.who.normal();
        // An end that lies beyond what the clock can hold is none.
        let time = ban.remaining_ms.map(Duration::from_millis).filter(|time| *time < FOR_EVER);
        let until = time.and_then(|time| now.checked_add(time));
        if self.bans.get(&who).is_some_and(|known| later(known.until, until)) {
            return;
        }
        if !self.bans.contains_key(&who) {
            drop_least(&mut self.bans, self.config.max_bans, |ban| {
                ban.until.map_or(f64::INFINITY, |until| (until - now).as_secs_f64())
            });
        }
        let mut why = ban.why.clone();
        let end = (0..=MAX_WHY.min(why.len())).rev().find(|end| why.is_char_boundary(*end));
        why.truncate(end.unwrap_or(0));
        self.bans.insert(who, Sentenced { until, why });
    }

    /// Lifts a ban and forgets the record. False if there was neither.
    pub(crate) fn unban(&mut self, who: BanTarget) -> bool {
        let who = who.normal();
        let known = self.records.remove(&who).is_some();
        self.bans.remove(&who).is_some() || known
    }

    pub(crate) fn is_banned(&self, who: BanTarget, now: Instant) -> bool {
        self.bans.get(&who.normal()).is_some_and(|ban| ban.holds(now))
    }

    /// All bans, by name.
    pub(crate) fn bans(&self, now: Instant) -> Vec<Ban> {
        let holding = self.bans.iter().filter(|(_, ban)| ban.holds(now));
        let mut bans: Vec<_> = holding
            .map(|(who, ban)| Ban::new(*who, ban.until.map(|until| until - now), ban.why.clone()))
            .collect();
        bans.sort_by_key(|ban| ban.who);
        bans
    }

    /// How many strikes somebody has now.
    pub(crate) fn strikes(&self, who: BanTarget, now: Instant) -> u32 {
        let record = self.records.get(&who.normal());
        record.map_or(0, |record| record.decayed(self.config.half_life, now) as u32)
    }

    /// Forgets the bans that are over. Returns their targets.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<BanTarget> {
        self.bans.extract_if(|_, ban| !ban.holds(now)).map(|(who, _)| who).collect()
    }

    /// When the next ban ends.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.bans.values().filter_map(|ban| ban.until).min()
    }
}

impl Record {
    fn decayed(&self, half_life: Duration, now: Instant) -> f64 {
        let halves = now.saturating_duration_since(self.at).as_secs_f64() / half_life.as_secs_f64();
        self.strikes * 0.5f64.powf(halves)
    }
}

impl Sentenced {
    fn holds(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// Whether the first end is the later one.
fn later(one: Option<Instant>, other: Option<Instant>) -> bool {
    match (one, other) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(one), Some(other)) => one > other,
    }
}

/// Makes room for one more where `max` may be.
fn drop_least<K: Copy + Eq + Hash, V>(table: &mut HashMap<K, V>, max: usize, worth: impl Fn(&V) -> f64) {
    while table.len() >= max.max(1) {
        let least = table.iter().min_by(|(_, a), (_, b)| worth(a).total_cmp(&worth(b)));
        let Some(key) = least.map(|(key, _)| *key) else { return };
        table.remove(&key);
    }
}

#[cfg(test)]
mod tests;
