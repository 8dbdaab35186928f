//! Which settings are valid, and what the error says of one that is not.

use std::fmt;
use std::time::Duration;

use super::address::split;
use super::outbound;
use super::{Config, KIB, MIB, PathConfig, PeerConfig};
use crate::id::PeerId;
use crate::lane::{MAX_SLOTS, Priority, WINDOW_HEADROOM, WhenFull};
use crate::link::REDUCED_SEGMENT;
use crate::wire::control::{MAX_LANES, MAX_NAME};
use crate::wire::preface::NetworkName;
use crate::wire::stream::MAX_PAYLOAD;

/// So that each class of peers has at least one.
const MIN_DIALS: usize = 8;

/// The longest [`PeerConfig::label`], in bytes.
const MAX_LABEL: usize = 64;

/// The largest value of TCP_MAXSEG that Linux takes.
const MAX_SEGMENT: u16 = 32_767;

/// A setting that cannot be right, or does not go with another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    setting: String,
    problem: String,
}

impl ConfigError {
    /// All settings were replaced after this method of the builder had changed some.
    pub(crate) fn discarded(method: &str) -> Self {
        ConfigError {
            setting: "Builder::config".into(),
            problem: format!("called after {method}(), whose settings it would discard: call config() first"),
        }
    }

    pub(super) fn new(setting: String, problem: String) -> Self {
        ConfigError { setting, problem }
    }

    /// The name of the setting, as in `path.dead_after`.
    pub fn setting(&self) -> &str {
        &self.setting
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "setting {}: {}", self.setting, self.problem)
    }
}

impl std::error::Error for ConfigError {}

fn check(ok: bool, setting: impl Into<String>, problem: impl FnOnce() -> String) -> Result<(), ConfigError> {
    if ok { Ok(()) } else { Err(ConfigError { setting: setting.into(), problem: problem() }) }
}

fn check_connections(setting: &str, count: u8) -> Result<(), ConfigError> {
    check((1..=MAX_SLOTS).contains(&count), setting, || format!("{count} is not between 1 and {MAX_SLOTS}"))
}

fn check_address(setting: String, address: &str) -> Result<(), ConfigError> {
    check(split(address).is_some(), setting, || format!("{address:?} is not of the form host:port"))
}

impl Config {
    /// Checks every setting and the combinations.
    ///
    /// # Errors
    /// Names the first setting that cannot be right, what it is and what was expected.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check(NetworkName::new(&self.network).is_some(), "network", || {
            format!("{:?} is longer than 32 bytes or holds a zero byte", self.network)
        })?;
        check(self.name.len() <= MAX_NAME, "name", || {
            format!("{} bytes, at most {MAX_NAME} are allowed", self.name.len())
        })?;
        for (index, network) in self.proxy_protocol_from.iter().enumerate() {
            let mapped = network.addr().to_canonical() != network.addr();
            check(!mapped, format!("proxy_protocol_from[{index}]"), || {
                format!("{network} is an IPv4 network in the form of an IPv6 one; write it as IPv4")
            })?;
            check(!self.listen.is_empty(), "proxy_protocol_from", || {
                "`listen` is empty: no load balancer could connect".into()
            })?;
        }
        if let Some(problem) = self.announce.problem(&self.listen) {
            return Err(ConfigError { setting: "announce".into(), problem });
        }
        if let Some((setting, problem)) =
            outbound::problem(&self.outbound_addrs, self.outbound_interface.as_deref())
        {
            return Err(ConfigError { setting, problem });
        }
        self.path.validate("path")?;
        for (index, peer) in self.peers.iter().enumerate() {
            peer.validate(&format!("peers[{index}]"))?;
        }
        let minute = Duration::from_secs(60);
        check(
            self.request_timeout > Duration::ZERO && self.request_timeout <= minute,
            "request_timeout",
            || format!("{:?} is not between 0 and 60 s", self.request_timeout),
        )?;
        let day = Duration::from_secs(24 * 3600);
        check(
            self.resolve_interval.is_zero()
                || (Duration::from_secs(1)..=day).contains(&self.resolve_interval),
            "resolve_interval",
            || format!("{:?} is neither 0 (off) nor between 1 s and a day", self.resolve_interval),
        )?;
        let far = Duration::from_secs(365 * 24 * 3600);
        for (setting, value) in [("resumption", self.resumption), ("drain_timeout", self.drain_timeout)] {
            check(value > Duration::ZERO && value <= far, setting, || {
                format!("{value:?} is not between 0 and a year")
            })?;
        }
        for (setting, value) in
            [("connections", self.connections), ("important_connections", self.important_connections)]
        {
            check_connections(setting, value)?;
        }
        check(
            (1..=100_000).contains(&self.max_replacements_per_minute),
            "max_replacements_per_minute",
            || format!("{} is not between 1 and 100,000", self.max_replacements_per_minute),
        )?;
        check(self.target_peers <= self.max_connections, "target_peers", || {
            format!("{} is more than max_connections ({})", self.target_peers, self.max_connections)
        })?;
        let positive = [
            ("max_candidates", self.max_candidates),
            ("max_requests", self.max_requests),
            ("max_connections", self.max_connections),
            ("max_handshakes", self.max_handshakes),
            ("max_events", self.max_events),
            ("max_inbox", self.max_inbox),
        ];
        for (setting, value) in positive {
            check(value > 0, setting, || "must be at least 1".into())?;
        }
        check(self.max_dials >= MIN_DIALS, "max_dials", || {
            format!("{} is less than {MIN_DIALS}", self.max_dials)
        })?;
        check(self.ack_delay <= self.path.suspect_after / 4, "ack_delay", || {
            format!(
                "{:?} is more than a quarter of path.suspect_after ({:?}): peers would suspect healthy connections",
                self.ack_delay, self.path.suspect_after
            )
        })?;
        if let Some((setting, problem)) = self.admission.problem().or_else(|| self.conduct.problem()) {
            return Err(ConfigError { setting: setting.into(), problem });
        }
        self.validate_lanes()
    }

    fn validate_lanes(&self) -> Result<(), ConfigError> {
        check((1..=MAX_LANES).contains(&self.lanes.len()), "lanes", || {
            format!("{} lanes, 1 to {MAX_LANES} are allowed", self.lanes.len())
        })?;
        for (index, lane) in self.lanes.iter().enumerate() {
            let name = |field: &str| format!("lanes[{index}].{field} ({})", lane.id);
            check(!self.lanes.iter().take(index).any(|other| other.id == lane.id), name("id"), || {
                "another lane has this id".into()
            })?;
            check((1..=MAX_PAYLOAD).contains(&lane.max_message), name("max_message"), || {
                format!("{} is not between 1 and {MAX_PAYLOAD}", lane.max_message)
            })?;
            check(lane.window >= lane.max_message + WINDOW_HEADROOM, name("window"), || {
                format!(
                    "{} is less than max_message + 64 KiB ({}): the largest message might never get through",
                    lane.window,
                    lane.max_message + WINDOW_HEADROOM
                )
            })?;
            check(lane.queue >= lane.max_message, name("queue"), || {
                format!("{} is less than max_message ({})", lane.queue, lane.max_message)
            })?;
            // So that there is always room, or a message to drop.
            let least = 2 * lane.max_message + KIB;
            check(lane.when_full == WhenFull::Refuse || lane.queue >= least, name("queue"), || {
                format!(
                    "{} is less than twice max_message and 1 KiB ({least}), as a lane needs that drops its oldest messages",
                    lane.queue
                )
            })?;
            check(lane.slot.is_none_or(|slot| slot < MAX_SLOTS), name("slot"), || {
                format!("{:?} is none of the {MAX_SLOTS} connections of a pool, 0 to 2", lane.slot)
            })?;
            for (field, value) in [("window", lane.window), ("queue", lane.queue)] {
                check(value as u64 <= 1 << 40, name(field), || format!("{value} is more than 1 TiB"))?;
            }
            check(lane.max_untaken > 0, name("max_untaken"), || "must be at least 1".into())?;
            check(lane.priority != Priority::Weighted(0), name("priority"), || {
                "a weight of 0 would never be served; 1 to 255 are allowed".into()
            })?;
            check(self.max_queued_per_peer >= lane.max_message + KIB, "max_queued_per_peer", || {
                format!(
                    "{} is less than the largest message of {} and 1 KiB",
                    self.max_queued_per_peer, lane.id
                )
            })?;
            // So that one such message fits into what all peers share, and into the strangers' half of that.
            let least = 3 * (lane.max_message + KIB);
            check(self.max_queued >= least, "max_queued", || {
                format!(
                    "{} is less than three times the largest message of {} and 1 KiB ({least})",
                    self.max_queued, lane.id
                )
            })?;
        }
        Ok(())
    }
}

impl PeerConfig {
    /// `prefix` is how errors name the entry.
    pub(crate) fn validate(&self, prefix: &str) -> Result<(), ConfigError> {
        let name = |field: &str| format!("{prefix}.{field}");
        if let Some((id, _)) = self.address.split_once('@') {
            let problem = match id.parse::<PeerId>() {
                Ok(_) if self.address.ends_with('@') => "there is no host:port behind the id".into(),
                Ok(_) => "the id belongs into `id`: PeerConfig::new takes it out of the address".into(),
                Err(error) => error.to_string(),
            };
            check(false, name("address"), || format!("{:?}: {problem}", self.address))?;
        }
        if self.has_address() {
            check_address(name("address"), &self.address)?;
        } else {
            check(self.id.is_some(), name("address"), || "a peer needs its address, or its id".into())?;
            check(self.alternatives.is_empty(), name("alternatives"), || {
                "there is no address before them".into()
            })?;
        }
        for (index, address) in self.alternatives.iter().enumerate() {
            check_address(name(&format!("alternatives[{index}]")), address)?;
        }
        if let Some(label) = &self.label {
            let is_printable = !label.chars().any(char::is_control);
            check((1..=MAX_LABEL).contains(&label.len()) && is_printable, name("label"), || {
                format!("{label:?} is not of 1 to {MAX_LABEL} bytes without control characters")
            })?;
        }
        self.connections.map_or(Ok(()), |count| check_connections(&name("connections"), count))?;
        self.path.as_ref().map_or(Ok(()), |path| path.validate(&name("path")))
    }
}

impl PathConfig {
    fn validate(&self, prefix: &str) -> Result<(), ConfigError> {
        let name = |field: &str| format!("{prefix}.{field}");
        let second = Duration::from_secs(1);
        for (field, value) in
            [("keepalive_time", self.keepalive_time), ("keepalive_interval", self.keepalive_interval)]
        {
            check(
                value >= second && value.as_secs() <= 32_767 && value.subsec_nanos() == 0,
                name(field),
                || {
                    format!(
                        "{value:?} is not a whole number of seconds from 1 to 32,767 (the kernel counts so)"
                    )
                },
            )?;
        }
        check((1..=127).contains(&self.keepalive_probes), name("keepalive_probes"), || {
            format!("{} is not between 1 and 127", self.keepalive_probes)
        })?;
        let (millisecond, day) = (Duration::from_millis(1), Duration::from_secs(24 * 3600));
        for (field, value) in [
            ("user_timeout", self.user_timeout),
            ("write_timeout", self.write_timeout),
            ("ping_interval", self.ping_interval),
            ("min_ping_interval", self.min_ping_interval),
            ("suspect_after", self.suspect_after),
            ("dead_after", self.dead_after),
            ("connect_timeout", self.connect_timeout),
            ("handshake_timeout", self.handshake_timeout),
            ("backoff_first", self.backoff_first),
            ("backoff_max", self.backoff_max),
        ] {
            check(value >= millisecond && value <= day, name(field), || {
                format!("{value:?} is not between 1 ms and a day")
            })?;
        }
        if let Some(age) = self.max_age {
            check(age > self.dead_after && age <= 365 * day, name("max_age"), || {
                format!("{age:?} is not between dead_after ({:?}) and a year", self.dead_after)
            })?;
        }
        check(self.suspect_after < self.dead_after, name("suspect_after"), || {
            format!("{:?} is not below dead_after ({:?})", self.suspect_after, self.dead_after)
        })?;
        check(self.ping_interval * 2 <= self.dead_after, name("dead_after"), || {
            format!(
                "{:?} is less than twice ping_interval ({:?}): one lost ping would close an idle connection",
                self.dead_after, self.ping_interval
            )
        })?;
        check(self.backoff_first <= self.backoff_max, name("backoff_max"), || {
            format!("{:?} is below backoff_first ({:?})", self.backoff_max, self.backoff_first)
        })?;
        check(self.breaker_threshold > 0, name("breaker_threshold"), || "must be at least 1".into())?;
        if let Some(segment) = self.max_segment {
            check((REDUCED_SEGMENT..=MAX_SEGMENT).contains(&segment), name("max_segment"), || {
                format!("{segment} is not between {REDUCED_SEGMENT} and {MAX_SEGMENT}")
            })?;
        }
        check((16 * KIB..=MIB).contains(&self.max_chunk), name("max_chunk"), || {
            format!("{} is not between 16 KiB and 1 MiB", self.max_chunk)
        })
    }
}
