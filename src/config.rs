//! Every setting, its default, and what happens if it is too small or too large.

pub(crate) mod address;
mod announce;
mod doubts;
mod lanes;
mod listen;
mod outbound;
mod path;
mod peer;
#[cfg(test)]
mod tests;
mod uses;
mod validate;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::admission::AdmissionConfig;
use crate::conduct::ConductConfig;
use crate::id::PeerId;
use crate::lane::LaneConfig;
use crate::link;
use crate::serde_util::{human, list, networks, size};
use crate::wire::preface::Mode;

pub use announce::Announce;
pub(crate) use announce::Listening;
pub(crate) use outbound::Outbound;
pub use path::PathConfig;
pub use peer::PeerConfig;
pub use validate::ConfigError;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// The settings of a node. `Config::default()` is meant to be right on the open internet.
///
/// # In files
/// In a file of a format that describes itself (TOML, JSON):
///
/// - Durations are text with their unit: `"15s"`, `"1m 30s"`, `"250ms"`. A number without a unit is an error,
///   and so is `"5M"`, which may be minutes or months.
/// - Sizes are numbers of bytes, or text: `"64KiB"`, `"4MiB"` (powers of 1,024) or `"64kB"`, `"4MB"` (powers
///   of 1,000). They are written as text with the largest unit of the first kind that divides them.
/// - The only entry of a list may stand alone: `listen = "0.0.0.0:4000"`.
/// - A setting that is left out has its default; a name that does not exist is an error.
///
/// ```
/// let config: unbroken::Config = toml::from_str(
///     r#"
///     listen = "0.0.0.0:4000"
///     peers = ["seed.example.org:4000", { address = "10.0.0.2:4000", important = true }]
///     max_queued = "2GiB"
///
///     [[lanes]]
///     id = 2 # bulk; the other default lanes stay as they are
///     window = "64MiB"
///
///     [path]
///     ping_interval = "5s"
///
///     [admission]
///     deny_addresses = ["192.0.2.7", "198.51.100.0/24"]
///     "#,
/// )?;
/// config.validate()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The same rule holds for everything else that is serialised: a duration that is meant to be kept, as in
/// [`PeerRecord`](crate::PeerRecord), is text with its unit; a number that stands for a time counts
/// milliseconds, and its name ends in `_ms` ([`PeerSnapshot`](crate::PeerSnapshot), [`Ban`](crate::Ban)).
/// Only metrics count seconds, and their names end in `_seconds`, as Prometheus has it.
///
/// # In code, and in later versions
/// Settings are plain structs without `#[non_exhaustive]`, because with it no other crate could write
/// `Config { max_dials: 100, ..Config::default() }`. So write `..Config::default()`, and the same for
/// [`LaneConfig`], [`PeerConfig`], [`PathConfig`], [`AdmissionConfig`] and [`ConductConfig`], also where all
/// fields are named, and `..` in patterns: **a new setting comes with a minor version**, with a default that
/// changes nothing. The [`Builder`](crate::Builder) has methods for the settings that most nodes need, and
/// [`Builder::configure`](crate::Builder::configure) for all others.
///
/// Enums that may grow are `#[non_exhaustive]`: those of settings, events, errors and reasons. The others
/// ([`Outcome`](crate::Outcome), [`LinkState`](crate::LinkState), [`ConnState`](crate::ConnState),
/// [`BreakerState`](crate::BreakerState), [`Initiator`](crate::Initiator),
/// [`SendOrRecv`](crate::SendOrRecv)) are complete, so that a `match` needs no arm for what cannot happen: a
/// new variant of these would be a major version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(doc, serde(default))] // See `known_settings`.
#[cfg_attr(not(doc), serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Config {
    /// The network's name, at most 32 bytes. Nodes of different networks refuse each other.
    /// Default `unbroken`.
    pub network: String,
    /// Whether peers prove who they are and nobody else can read or change what is said. Default
    /// [`Encryption::Noise`]. Nodes that differ in this refuse each other.
    pub encryption: Encryption,
    /// This application's name, at most 64 bytes, for people. Peers have it in
    /// [`PeerSnapshot::name`](crate::PeerSnapshot::name); it proves nothing, and lines of the log and events
    /// name a peer by its id. Default empty.
    pub name: String,
    /// Where to accept connections, port 0 for one chosen by the system. Default nowhere: such a node
    /// only dials.
    ///
    /// `[::]:port` accepts IPv4 as well, as other software does by default. Not if `0.0.0.0` with the same
    /// port is listed too, or with [`listen_only_v6`](Self::listen_only_v6).
    ///
    /// A link-local address needs its interface: in a file `"[fe80::1%eth0]:port"`, where the interface must
    /// exist when the file is read. It is written with the interface's number.
    #[serde(with = "listen")]
    pub listen: Vec<SocketAddr>,
    /// Whether listening on `[::]` leaves out IPv4 (IPV6_V6ONLY, ipv6(7)). Default false. Set it where
    /// another program accepts IPv4 on the same port.
    pub listen_only_v6: bool,
    /// The networks of the load balancers whose connections begin with a header of the PROXY protocol,
    /// version 2, which says whose connection it is. Default none. A connection from these networks that
    /// has no such header is refused, and a header from anywhere else is refused as well.
    ///
    /// The client's address takes the place of the load balancer's everywhere: in the limits and lists of
    /// [`admission`](Self::admission), bans, logs, events, snapshots, and where this node dials back. After
    /// the command LOCAL (a health check), and where the client has no internet address, the socket's own
    /// counts. A header of more than 536 bytes is refused. TLVs are ignored, that of CRC-32C among them.
    ///
    /// Too large: whoever connects from these networks can claim any address.
    #[serde(with = "networks")]
    pub proxy_protocol_from: Vec<IpNet>,
    /// Where peers may dial this node back when a connection that it dialled does not answer. Default
    /// [`Announce::ListenPort`].
    pub announce: Announce,
    /// The local addresses that this node dials from, at most one of IPv4 and one of IPv6; the system
    /// chooses the port. Default empty: the system chooses the address, too. Dials of a family that the
    /// list does not have are left to the system. For a machine with several addresses of which peers,
    /// or a firewall, know one.
    ///
    /// An address that the machine does not have is no error at the start, because it may come later: the
    /// dials fail with `bind`, name the address, and are made again about every 500 ms.
    #[serde(deserialize_with = "list::deserialize")]
    pub outbound_addrs: Vec<IpAddr>,
    /// The network interface that dials leave by, as in `"eth1"` or `"wg0"` (SO_BINDTODEVICE, socket(7)),
    /// whatever the routes say. Default none: the routes choose. Linux and Android only; elsewhere it is an
    /// error at the start. Replies that come in by another interface are not received. An interface that
    /// does not exist fails the dials as an address does.
    pub outbound_interface: Option<String>,
    /// The peers to keep a link to. More can be added while the node runs
    /// ([`Node::add_peer`](crate::Node::add_peer)).
    #[serde(deserialize_with = "list::deserialize")]
    pub peers: Vec<PeerConfig>,
    /// How often the names of linked peers are looked up again, each time up to 20 % more or less. Default
    /// 0: never; otherwise it is 1 s to a day. [`Config::consensus`] has 60 s. When the address of a
    /// connection that this node dialled is twice in a row not among the answers, the connection gets a
    /// successor to one of them, and serves until that has proved itself
    /// ([`ReplaceReason::Moved`](crate::ReplaceReason::Moved)): at most one connection of a peer in an
    /// interval. A lookup that fails changes nothing.
    ///
    /// Too small: the name servers are asked more often than they change their answers. Too large, or off:
    /// a connection stays where its name pointed when it was dialled, until it ends. Leave it off where a
    /// name server answers with a few of many addresses, others each time: connections would be replaced in
    /// vain.
    #[serde(with = "human")]
    pub resolve_interval: Duration,
    /// The lanes. Default: [`LaneConfig::defaults`].
    ///
    /// In a file an entry changes the lane with its `id`, or adds one. The default lanes that the file does
    /// not mention stay as they are, behind those that it does; `{ id = 2, remove = true }` removes the
    /// default lane 2.
    #[serde(with = "lanes")]
    pub lanes: Vec<LaneConfig>,
    /// The behaviour towards a peer, unless [`PeerConfig::path`] says otherwise.
    pub path: PathConfig,
    /// How many connections a link to a peer owns that this node dials, 1 to 3. Default 1. More cost two
    /// threads each, and let lanes move at once when one dies.
    pub connections: u8,
    /// The same for peers that are marked as important. Default 2.
    pub important_connections: u8,
    /// How many connections that still serve may be replaced in any minute, over all peers. Default 60.
    /// Half of them are for named peers alone, and strangers have no more than the other half (of a limit of
    /// 1, what is left). Beyond it the others wait their turn, the suspect ones first. Dead connections
    /// are dialled again without regard to it. Too small: suspect connections are kept until they are
    /// dead. Too large: what slows all paths down at once makes the node dial everybody at once.
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
    /// How many requests may be open at once, per link and direction. Default 1,024. When a
    /// peer opens more, requests that it cancelled are dropped first, then those with the least time left.
    pub max_requests: usize,
    /// How long queues, offsets and receipts are kept after the last connection to a peer was lost.
    /// Default 1 h. Too small: messages to a peer that is away longer are dropped (their receipts say
    /// so). Too large: their memory is kept longer; it is bounded by the queues all the same. A stranger is
    /// forgotten earlier where others need the room: see [`Config::max_absent_strangers`] and
    /// [`Config::max_inbox`].
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
    /// How many dials may be under way at once, from the first attempt to connect to the end of the
    /// handshake. Default 256, at least 8: each takes a thread and a descriptor, of which a process
    /// often has 1,024. Half as many sockets again serve to attempt several addresses of an entry at
    /// once.
    ///
    /// Peers that were configured or added and were linked before, in this life or by their record, go first
    /// and have at most 7/8; those that never were have at most 3/4, and candidates 1/8. A dial that has
    /// to wait has not failed. While more wait than there is room for, the first dial to a peer that was
    /// never linked has a fifth of `connect_timeout`. Too small: many absent peers delay the first dial
    /// to one that is there, by that time for each so many of them. Too large: absent peers use up the
    /// descriptors.
    pub max_dials: usize,
    /// How many accepted connections may be in handshake at once. Default 256.
    pub max_handshakes: usize,
    /// How many disconnected peers that are not named to keep link state for. Default 256.
    /// Beyond it those that went away first are forgotten: what waits for them ends as dropped. So are they
    /// when what waits for them keeps configured peers from their part of [`Config::max_queued`]: a peer
    /// that comes back under new names was configured each time.
    pub max_absent_strangers: usize,
    /// Bytes of outgoing messages per peer that were not taken yet, over all lanes. Default 128 MiB.
    /// A message counts with 144 bytes more than its own.
    #[serde(with = "size")]
    pub max_queued_per_peer: usize,
    /// The same for the whole node. Default 1 GiB, at least three times the largest message of any lane and
    /// 1 KiB. A payload that goes to many peers counts once for each.
    ///
    /// Half of it, less one largest message, is guaranteed to the peers that were configured or added, in
    /// equal parts of at most `max_queued_per_peer`: what waits for absent ones takes nothing from the
    /// others. The rest is common. In it each of them may have as much as stays free for others. All
    /// strangers together may have half of it, and each a sixteenth of what stays free of that, or one
    /// message of at most half of it. Too small: large messages to peers whose parts are smaller than
    /// that wait for each other.
    #[serde(with = "size")]
    pub max_queued: usize,
    /// Bytes of received messages that the application has not taken, over all peers, from which on no new
    /// credit is given to peers whose messages wait. Default 1 GiB. Half of it is for the peers that were
    /// configured or added: what strangers hold withholds no credit from them. All strangers together
    /// may have the other half; while they hold more, they get no credit and new strangers are refused.
    ///
    /// Strangers may have at most half of their half (or one message of each lane, if that is more) in
    /// messages that are not complete, which no application can take. Beyond it the one whose unfinished
    /// messages took the most memory for the longest time is forgotten, connected or not: its sender
    /// sees what it had begun end as [`DropReason::PeerForgot`](crate::DropReason::PeerForgot). Too
    /// small: strangers on slow paths lose large messages to each other.
    ///
    /// Credit that was given before may still be used: the bound is this and the sum of the windows of all
    /// lanes, per peer that is known by then (46 MiB by default). The memory is at most twice that, and
    /// per connection 1 MiB for a chunk that is not complete and 150 KiB for reading.
    #[serde(with = "size")]
    pub max_inbox: usize,
    /// How many events (links up and down, and so on) wait for the application. Default 4,096, up to about
    /// 500 bytes each. Half belongs to events about named peers, half to those about strangers, and each
    /// class may use what the other leaves. Beyond it the oldest of the class that has more than its
    /// half is dropped and counted ([`NodeSnapshot::events_lost`](crate::NodeSnapshot::events_lost));
    /// one that tells of lost messages only if there is no other. More than 16 events about one peer are
    /// merged into what they amount to. Messages are never dropped so. Too small: an application that
    /// stops for a moment misses events. Too large: memory, and old news.
    pub max_events: usize,
    /// Which peers may connect to this node, and how many.
    pub admission: AdmissionConfig,
    /// When a peer that misbehaves is banned.
    pub conduct: ConductConfig,
}

crate::serde_util::known::known_settings!(Config);

impl Default for Config {
    fn default() -> Self {
        Config {
            network: "unbroken".into(),
            encryption: Encryption::Noise,
            name: String::new(),
            listen: Vec::new(),
            listen_only_v6: false,
            proxy_protocol_from: Vec::new(),
            announce: Announce::default(),
            outbound_addrs: Vec::new(),
            outbound_interface: None,
            peers: Vec::new(),
            resolve_interval: Duration::ZERO,
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
            max_dials: 256,
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

/// How connections are protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Encryption {
    /// `Noise_XX_25519_AESGCM_SHA256` (<https://noiseprotocol.org/noise.html>): each side proves that it holds the
    /// secret of its [`PeerId`](crate::PeerId), with keys drawn anew for every connection. The setting in
    /// files: `"noise"`.
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

impl Config {
    /// Whether the socket that listens there must leave IPv4 to another one.
    pub(crate) fn only_v6(&self, addr: SocketAddr) -> bool {
        let takes_v4 =
            |other: &SocketAddr| other.is_ipv4() && other.port() == addr.port() && addr.port() != 0;
        self.listen_only_v6 || self.listen.iter().any(takes_v4)
    }

    /// Whether connections from there begin with a PROXY header.
    pub(crate) fn is_proxy(&self, addr: IpAddr) -> bool {
        self.proxy_protocol_from.iter().any(|network| network.contains(&addr.to_canonical()))
    }

    /// Where a connection to `to` comes from.
    pub(crate) fn outbound(&self, to: SocketAddr) -> Outbound<'_> {
        Outbound::new(&self.outbound_addrs, self.outbound_interface.as_deref(), to)
    }

    /// The settings of the link to `peer`, of which `path` may be its own.
    pub(crate) fn link_settings(&self, path: &PathConfig, us: PeerId, peer: PeerId) -> link::Settings {
        link::Settings {
            us,
            peer,
            name: self.name.clone(),
            lanes: self.lanes.clone().into(),
            liveness: path.into(),
            min_ping_interval: path.min_ping_interval,
            ack_delay: self.ack_delay,
            resumption: self.resumption,
            drain_timeout: self.drain_timeout,
            max_requests: self.max_requests,
            max_queued: self.max_queued_per_peer,
            max_chunk: path.max_chunk,
        }
    }
}
