//! Every setting, its default, and what happens if it is too small or too large.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::admission::AdmissionConfig;
use crate::conduct::ConductConfig;
use crate::id::PeerId;
use crate::lane::{LaneConfig, MAX_SLOTS, Priority, WINDOW_HEADROOM};
use crate::wire::control::{MAX_LANES, MAX_NAME};
use crate::wire::preface::{Mode, NetworkName};
use crate::wire::stream::MAX_PAYLOAD;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// The settings of a node. `Config::default()` is meant to be right on the open internet.
///
/// In a file (TOML, JSON) durations are written as text: `"15s"`, `"1m 30s"`, `"250ms"`. What is left
/// out has its default; a name that does not exist is an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The network's name, at most 32 bytes. Nodes of different networks refuse each other.
    /// Default `unbroken`.
    pub network: String,
    /// Whether peers prove who they are and nobody else can read or change what is said. Default
    /// [`Encryption::Noise`]. Nodes that differ in this refuse each other.
    pub encryption: Encryption,
    /// This application's name, at most 64 bytes, for the logs of peers. Default empty.
    pub name: String,
    /// Where to accept connections, port 0 for one chosen by the system. Default nowhere: such a node
    /// only dials.
    pub listen: Vec<SocketAddr>,
    /// The peers to keep a link to. More can be added while the node runs
    /// ([`Node::add_peer`](crate::Node::add_peer)).
    pub peers: Vec<PeerConfig>,
    /// The lanes. Default: [`LaneConfig::defaults`].
    pub lanes: Vec<LaneConfig>,
    /// The behaviour towards a peer, unless [`PeerConfig::path`] says otherwise.
    pub path: PathConfig,
    /// How many connections a link to a peer owns that this node dials, 1 to 3. Default 1. More cost two
    /// threads each, and let lanes move at once when one dies.
    pub connections: u8,
    /// The same for peers that are marked as important. Default 2.
    pub important_connections: u8,
    /// How many connections that still serve may be replaced in any minute, over all peers. Default 60.
    /// Beyond it the others wait their turn, the suspect ones first. Dead connections are dialled again
    /// without regard to it. Too small: suspect connections are kept until they are dead. Too large: what
    /// slows all paths down at once makes the node dial everybody at once.
    pub max_replacements_per_minute: u32,
    /// How many peers to be linked with: those configured or added, those that dialled this node, and as
    /// many of the candidates ([`Node::learn`](crate::Node::learn)) as it takes. Default 0: candidates are
    /// not dialled.
    pub target_peers: usize,
    /// How many candidates are remembered. Default 1,000. Beyond it those with the worst record are dropped.
    pub max_candidates: usize,
    /// How long a request waits for its reply unless the call says otherwise. Default 30 s, at most
    /// 60 s.
    #[serde(with = "human")]
    pub request_timeout: Duration,
    /// How many requests may be open at once, per link and direction. Default 1,024. Of a peer that
    /// opens more, those are let go that it gave up, or that have least time left.
    pub max_requests: usize,
    /// How long queues, offsets and receipts are kept after the last connection to a peer was lost.
    /// Default 1 h. Too small: messages to a peer that is away longer are dropped (their receipts say
    /// so). Too large: their memory is kept longer; it is bounded by the queues all the same.
    #[serde(with = "human")]
    pub resumption: Duration,
    /// How long an acknowledgement waits for company when nobody is known to wait for it. Default
    /// 25 ms (as the `max_ack_delay` of QUIC, RFC 9000 section 18.2). Must be far below
    /// `path.suspect_after`.
    #[serde(with = "human")]
    pub ack_delay: Duration,
    /// How long a connection may take from GOAWAY to its end. Default 5 s.
    #[serde(with = "human")]
    pub drain_timeout: Duration,
    /// The most connections at once, those in handshake included. Default 4,000, each with two
    /// threads of about 26 KiB resident (measured). Beyond it newcomers are refused.
    pub max_connections: usize,
    /// How many accepted connections may be in handshake at once. Default 256.
    pub max_handshakes: usize,
    /// For how many peers that are not wanted and have no connection the link is remembered. Default 256.
    /// Beyond it those that went away first are forgotten: what waits for them ends as dropped.
    pub max_absent_strangers: usize,
    /// Bytes of outgoing messages per peer that were not taken yet, over all lanes. Default 128 MiB.
    /// A message counts with 144 bytes more than its own.
    pub max_queued_per_peer: usize,
    /// The same for the whole node. Default 1 GiB. A payload that goes to many peers counts once for each.
    pub max_queued: usize,
    /// Bytes of received messages that the application has not taken, over all peers, from which on no new
    /// credit is given to peers whose messages wait, and nobody is let in who is neither wanted nor was here before.
    /// Default 1 GiB. What was given before may still arrive: the bound is this and the sum of the windows of all lanes,
    /// per peer that is known by then (46 MiB by default). The memory is at most twice that, and per connection 1 MiB for a
    /// chunk that is not complete and 150 KiB for reading.
    pub max_inbox: usize,
    /// How many events (links up and down, and so on) wait for the application; beyond it the
    /// oldest are dropped and counted. Default 4,096. Messages are never dropped so.
    pub max_events: usize,
    /// Who may connect to this node, and how many.
    pub admission: AdmissionConfig,
    /// When a peer that misbehaves is banned.
    pub conduct: ConductConfig,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            network: "unbroken".into(),
            encryption: Encryption::Noise,
            name: String::new(),
            listen: Vec::new(),
            peers: Vec::new(),
            lanes: LaneConfig::defaults(),
            path: PathConfig::default(),
            connections: 1,
            important_connections: 2,
            max_replacements_per_minute: 60,
            target_peers: 0,
            max_candidates: 1000,
            request_timeout: Duration::from_secs(30),
            max_requests: 1024,
            resumption: Duration::from_secs(3600),
            ack_delay: Duration::from_millis(25),
            drain_timeout: Duration::from_secs(5),
            max_connections: 4000,
            max_handshakes: 256,
            max_absent_strangers: 256,
            max_queued_per_peer: 128 * MIB,
            max_queued: 1024 * MIB,
            max_inbox: 1024 * MIB,
            max_events: 4096,
            admission: AdmissionConfig::default(),
            conduct: ConductConfig::default(),
        }
    }
}

/// What protects connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encryption {
    /// `Noise_XX_25519_AESGCM_SHA256` (<https://noiseprotocol.org/noise.html>): each side proves that it holds the
    /// secret of its [`PeerId`], with keys drawn anew for every connection. The setting in files:
    /// `"noise"`.
    #[default]
    Noise,
    /// Nothing: everybody on the path can read and change what is said, and a peer is who it says it is. For
    /// networks that something else protects, and for measuring. The node says so in the log when it
    /// starts. The setting in files: `"plaintext"`.
    Plaintext,
}

impl From<Encryption> for Mode {
    fn from(encryption: Encryption) -> Self {
        match encryption {
            Encryption::Noise => Mode::Noise,
            Encryption::Plaintext => Mode::Plaintext,
        }
    }
}

/// A peer to keep a link to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct PeerConfig {
    /// `host:port`, in a file also `id@host:port`; a name is resolved anew at each attempt and every address is tried.
    pub address: String,
    /// Further addresses of the same peer, tried in this order after `address`. The connections of a pool
    /// begin with different ones, and the successor of a suspect connection with another than that
    /// connection's: so they go by different paths. Default none.
    pub alternatives: Vec<String>,
    /// Who it must be. Default: whoever answers there.
    pub id: Option<PeerId>,
    /// Marks a peer whose link matters most: it gets [`Config::important_connections`]. Shown in snapshots.
    pub important: bool,
    /// How many connections its link owns, 1 to 3. Default: what the node's settings say.
    pub connections: Option<u8>,
    /// The behaviour towards this peer. Default: that of the node.
    pub path: Option<PathConfig>,
}

impl PeerConfig {
    /// A peer at `address`, with the node's behaviour. In `id@host:port` the address says who it must be; an
    /// id that is none is an error when the node starts or the peer is added.
    pub fn new(address: impl Into<String>) -> Self {
        let address = address.into();
        let (id, address) = match address.split_once('@').map(|(id, rest)| (id.parse(), rest)) {
            Some((Ok(id), rest)) => (Some(id), rest.to_string()),
            _ => (None, address),
        };
        PeerConfig { address, id, ..PeerConfig::default() }
    }

    /// All addresses, the first one first.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.address).chain(&self.alternatives)
    }
}

/// A [`PeerConfig`] as it stands in a file.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    address: String,
    alternatives: Vec<String>,
    id: Option<PeerId>,
    important: bool,
    connections: Option<u8>,
    path: Option<PathConfig>,
}

impl TryFrom<Written> for PeerConfig {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let Written { address, alternatives, id, important, connections, path } = written;
        let split = PeerConfig::new(address);
        if let (Some(here), Some(there)) = (split.id, id)
            && here != there
        {
            return Err(format!("{here}@{} and id {there} are different peers", split.address));
        }
        let (address, id) = (split.address, split.id.or(id));
        Ok(PeerConfig { address, alternatives, id, important, connections, path })
    }
}

impl From<&str> for PeerConfig {
    fn from(address: &str) -> Self {
        PeerConfig::new(address)
    }
}

impl From<String> for PeerConfig {
    fn from(address: String) -> Self {
        PeerConfig::new(address)
    }
}

/// How connections to a peer are kept alive, watched and replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PathConfig {
    /// TCP_KEEPIDLE: idle time before the kernel probes (tcp(7)). Default 15 s, below the 30 s after
    /// which the strictest NATs forget a flow. Whole seconds, at least 1.
    #[serde(with = "human")]
    pub keepalive_time: Duration,
    /// TCP_KEEPINTVL. Default 10 s. Whole seconds, at least 1.
    #[serde(with = "human")]
    pub keepalive_interval: Duration,
    /// TCP_KEEPCNT. Default 3. Note that Linux lets `user_timeout` replace it.
    pub keepalive_probes: u32,
    /// TCP_USER_TIMEOUT (RFC 5482): how long sent data may stay unacknowledged by the peer's kernel.
    /// Default 30 s. Without it a black hole with data in flight lasted 938 s (measured). It also ends
    /// a connection to a live peer whose receive window stays closed that long.
    #[serde(with = "human")]
    pub user_timeout: Duration,
    /// How long one write may take, in all and without progress (SO_SNDTIMEO). Default 5 s. Too small:
    /// slow links are taken for dead ones.
    #[serde(with = "human")]
    pub write_timeout: Duration,
    /// Time between pings. Default 10 s, a third of the strictest NAT timeout.
    #[serde(with = "human")]
    pub ping_interval: Duration,
    /// Where a path forgets flows so soon that connections die of silence the interval is learned and
    /// becomes shorter, but never shorter than this. Default 1 s.
    #[serde(with = "human")]
    pub min_ping_interval: Duration,
    /// How long a pong or an acknowledgement may be overdue, with nothing else received, before a
    /// second connection is dialled; 8 round trips if that is longer. Default 1 s. Nothing is closed
    /// for it.
    #[serde(with = "human")]
    pub suspect_after: Duration,
    /// How long nothing at all may be received before the connection is closed; also how long a
    /// frame may take from its first byte to its last. Default 20 s; at least twice `ping_interval`.
    #[serde(with = "human")]
    pub dead_after: Duration,
    /// How old a connection may become that this node dialled; a random part of 20 % earlier or later it
    /// gets a successor, and is drained when that has taken over. Default none: as old as it can. For paths
    /// that end flows after a fixed time however busy they are. Too small: connections are made all the
    /// time, and `max_replacements_per_minute` is used up.
    #[serde(with = "human_option", skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Duration>,
    /// For each address of a peer. Default 5 s. (The system's own would be 134 s, measured.)
    #[serde(with = "human")]
    pub connect_timeout: Duration,
    /// From the first byte to the last of the handshake, however slowly it comes. Default 10 s.
    #[serde(with = "human")]
    pub handshake_timeout: Duration,
    /// The first bound of the backoff after an attempt at once; the wait is a random part of it.
    /// Default 0.5 s.
    #[serde(with = "human")]
    pub backoff_first: Duration,
    /// The bound doubles with each attempt, up to this and to twice the time since the first one. Default
    /// 60 s.
    #[serde(with = "human")]
    pub backoff_max: Duration,
    /// After so many failures in a row the breaker opens. Default 5.
    pub breaker_threshold: u32,
    /// The largest chunk, and the largest unsent backlog in the kernel (TCP_NOTSENT_LOWAT), in bytes.
    /// Default 512 KiB; 16 KiB to 1 MiB. Both start at 16 KiB and follow the measured rate of the
    /// path, about 10 ms worth.
    pub max_chunk: usize,
}

impl Default for PathConfig {
    fn default() -> Self {
        PathConfig {
            keepalive_time: Duration::from_secs(15),
            keepalive_interval: Duration::from_secs(10),
            keepalive_probes: 3,
            user_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(5),
            ping_interval: Duration::from_secs(10),
            min_ping_interval: Duration::from_secs(1),
            suspect_after: Duration::from_secs(1),
            dead_after: Duration::from_secs(20),
            max_age: None,
            connect_timeout: Duration::from_secs(5),
            handshake_timeout: Duration::from_secs(10),
            backoff_first: Duration::from_millis(500),
            backoff_max: Duration::from_secs(60),
            breaker_threshold: 5,
            max_chunk: 512 * KIB,
        }
    }
}

impl From<&PathConfig> for crate::health::liveness::Limits {
    fn from(path: &PathConfig) -> Self {
        crate::health::liveness::Limits {
            ping_interval: path.ping_interval,
            suspect_after: path.suspect_after,
            dead_after: path.dead_after,
        }
    }
}

impl PathConfig {
    /// The same behaviour, `factor` times as fast: for tests and demonstrations that must not take
    /// minutes. The kernel's own timers count in whole seconds and stop at 1 s.
    pub fn scaled_down(&self, factor: u32) -> Self {
        let factor = factor.max(1);
        let scale = |time: Duration| time / factor;
        let whole = |time: Duration| Duration::from_secs((time.as_secs() / u64::from(factor)).max(1));
        PathConfig {
            keepalive_time: whole(self.keepalive_time),
            keepalive_interval: whole(self.keepalive_interval),
            user_timeout: scale(self.user_timeout),
            write_timeout: scale(self.write_timeout),
            ping_interval: scale(self.ping_interval),
            min_ping_interval: scale(self.min_ping_interval),
            suspect_after: scale(self.suspect_after),
            dead_after: scale(self.dead_after),
            max_age: self.max_age.map(scale),
            connect_timeout: scale(self.connect_timeout),
            handshake_timeout: scale(self.handshake_timeout),
            backoff_first: scale(self.backoff_first),
            backoff_max: scale(self.backoff_max),
            ..self.clone()
        }
    }
}

/// A setting that cannot be right, or does not go with another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    setting: String,
    problem: String,
}

impl ConfigError {
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

fn check_address(setting: &str, address: &str) -> Result<(), ConfigError> {
    let parts = address.rsplit_once(':');
    check(parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()), setting, || {
        format!("{address:?} is not of the form host:port")
    })
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
        self.path.validate("path")?;
        for peer in &self.peers {
            peer.validate()?;
        }
        let minute = Duration::from_secs(60);
        check(
            self.request_timeout > Duration::ZERO && self.request_timeout <= minute,
            "request_timeout",
            || format!("{:?} is not between 0 and 60 s", self.request_timeout),
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
            for (setting, bound) in
                [("max_queued_per_peer", self.max_queued_per_peer), ("max_queued", self.max_queued)]
            {
                check(bound >= lane.max_message + KIB, setting, || {
                    format!("{bound} is less than the largest message of {} and 1 KiB", lane.id)
                })?;
            }
        }
        Ok(())
    }
}

impl PeerConfig {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        if let Some((id, _)) = self.address.split_once('@') {
            let problem = match id.parse::<PeerId>() {
                Ok(_) => "the id belongs into `id`: PeerConfig::new takes it out of the address".into(),
                Err(error) => error.to_string(),
            };
            check(false, "peers.address", || format!("{:?}: {problem}", self.address))?;
        }
        check_address("peers.address", &self.address)?;
        self.alternatives.iter().try_for_each(|address| check_address("peers.alternatives", address))?;
        self.connections.map_or(Ok(()), |count| check_connections("peers.connections", count))?;
        self.path.as_ref().map_or(Ok(()), |path| path.validate("peers.path"))
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
        check((16 * KIB..=MIB).contains(&self.max_chunk), name("max_chunk"), || {
            format!("{} is not between 16 KiB and 1 MiB", self.max_chunk)
        })
    }
}

/// Durations as people write them.
pub(crate) mod human {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*time))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map_err(|error| {
            serde::de::Error::custom(format!("{text:?} is not a duration like \"15s\" or \"250ms\": {error}"))
        })
    }
}

/// The same for one that need not be there.
mod human_option {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::human;

    pub(super) fn serialize<S: Serializer>(
        time: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => human::serialize(time, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        #[derive(Deserialize)]
        struct Human(#[serde(with = "human")] Duration);
        Ok(Option::<Human>::deserialize(deserializer)?.map(|Human(time)| time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_survive_a_file() {
        let config = Config::default();
        config.validate().unwrap();
        let text = toml::to_string(&config).unwrap();
        assert_eq!(toml::from_str::<Config>(&text).unwrap(), config, "{text}");
        assert_eq!(toml::from_str::<Config>("").unwrap(), config);
    }

    #[test]
    fn an_age_survives_a_file() {
        let path = PathConfig { max_age: Some(Duration::from_secs(3600)), ..PathConfig::default() };
        let text = toml::to_string(&path).unwrap();
        assert!(text.contains("max_age = \"1h\""), "{text}");
        assert_eq!(toml::from_str::<PathConfig>(&text).unwrap(), path);
        let text = serde_json::to_string(&PathConfig::default()).unwrap();
        assert_eq!(serde_json::from_str::<PathConfig>(&text).unwrap(), PathConfig::default());
    }

    #[test]
    fn a_bad_setting_is_named() {
        type Spoil = fn(&mut Config);
        let cases: [(&str, Spoil); 22] = [
            ("ack_delay", |config| config.ack_delay = Duration::from_secs(1)),
            // Four times as long would be too much for a duration.
            ("ack_delay", |config| config.ack_delay = Duration::MAX),
            ("network", |config| config.network = "x".repeat(33)),
            ("path.dead_after", |config| config.path.ping_interval = config.path.dead_after),
            ("path.suspect_after", |config| config.path.suspect_after = config.path.dead_after),
            ("path.keepalive_time", |config| config.path.keepalive_time = Duration::from_millis(1500)),
            ("lanes[0].window (urgent)", |config| config.lanes[0].window = 1),
            ("lanes[0].window (urgent)", |config| config.lanes[0].window = usize::MAX),
            ("path.min_ping_interval", |config| config.path.min_ping_interval = Duration::ZERO),
            ("lanes[1].id (urgent)", |config| config.lanes[1].id = crate::URGENT),
            ("request_timeout", |config| config.request_timeout = Duration::from_secs(61)),
            ("max_queued", |config| config.max_queued = 1),
            ("admission.max_inbound", |config| config.admission.max_inbound = 0),
            ("conduct.half_life", |config| config.conduct.half_life = Duration::ZERO),
            ("peers.address", |config| config.peers.push(PeerConfig::new("nowhere"))),
            ("peers.alternatives", |config| {
                config.peers.push(PeerConfig { alternatives: vec![":1".into()], ..PeerConfig::new("a:1") });
            }),
            ("peers.connections", |config| {
                config.peers.push(PeerConfig { connections: Some(4), ..PeerConfig::new("a:1") });
            }),
            ("connections", |config| config.connections = 0),
            ("important_connections", |config| config.important_connections = 4),
            ("max_replacements_per_minute", |config| config.max_replacements_per_minute = 0),
            ("target_peers", |config| config.target_peers = config.max_connections + 1),
            ("path.max_age", |config| config.path.max_age = Some(config.path.dead_after)),
        ];
        for (setting, spoil) in cases {
            let mut config = Config::default();
            spoil(&mut config);
            let error = config.validate().unwrap_err();
            assert_eq!(error.setting(), setting, "{error}");
        }
    }

    #[test]
    fn an_address_may_say_who_must_answer_there() {
        let id = PeerId::from_bytes([7; 32]);
        let peer = PeerConfig::new(format!("{id}@[::1]:7000"));
        assert_eq!((peer.id, peer.address.as_str()), (Some(id), "[::1]:7000"));
        peer.validate().unwrap();
        let from = |text: String| toml::from_str::<PeerConfig>(&text).map_err(|error| error.to_string());
        assert_eq!(from(format!("address = '{id}@[::1]:7000'")), Ok(peer.clone()));
        assert_eq!(from(format!("address = '[::1]:7000'\nid = '{id}'")), Ok(peer.clone()));
        assert_eq!(from(toml::to_string(&peer).unwrap()), Ok(peer.clone()));
        assert_eq!(from(format!("address = '{id}@[::1]:7000'\nid = '{id}'")), Ok(peer));
        let other = PeerId::from_bytes([8; 32]);
        let error = from(format!("address = '{id}@host:1'\nid = '{other}'")).unwrap_err();
        assert!(error.contains(&id.to_string()) && error.contains(&other.to_string()), "{error}");
        assert!(from("adress = 'host:1'".into()).unwrap_err().contains("adress"));
    }

    #[test]
    fn a_bad_id_in_an_address_is_an_error_that_says_what_is_wrong() {
        let id = PeerId::from_bytes([7; 32]).to_string();
        for (address, problem) in [
            (format!("{}@host:1", &id[1..]), "55 characters"),
            ("@host:1".into(), "0 characters"),
            (format!("{}a@host:1", &id[..55]), "check does not fit"),
        ] {
            let error = PeerConfig::new(&address).validate().unwrap_err();
            assert_eq!(error.setting(), "peers.address");
            assert!(error.to_string().contains(problem), "{error}");
        }
        let unsplit = PeerConfig { address: format!("{id}@host:1"), ..PeerConfig::default() };
        assert!(unsplit.validate().unwrap_err().to_string().contains("PeerConfig::new"));
    }

    #[test]
    fn plaintext_is_chosen_by_name_only() {
        assert_eq!(Config::default().encryption, Encryption::Noise);
        assert_eq!(
            toml::from_str::<Config>("encryption = 'plaintext'").unwrap().encryption,
            Encryption::Plaintext
        );
        assert!(
            toml::from_str::<Config>("encryption = 'none'").unwrap_err().to_string().contains("plaintext")
        );
        assert!(toml::from_str::<Config>("encryption = false").is_err());
    }

    #[test]
    fn a_file_with_a_wrong_name_or_duration_is_refused() {
        assert!(toml::from_str::<Config>("netwrok = 'x'").unwrap_err().to_string().contains("netwrok"));
        let error = toml::from_str::<Config>("[path]\nping_interval = 'soon'").unwrap_err().to_string();
        assert!(error.contains("is not a duration"), "{error}");
    }

    #[test]
    fn a_scaled_down_path_is_valid() {
        for factor in [1, 2, 10, 20] {
            let config = Config {
                path: PathConfig::default().scaled_down(factor),
                ack_delay: Duration::from_millis(5),
                ..Config::default()
            };
            config.validate().unwrap();
        }
    }
}
