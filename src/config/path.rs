//! The settings of the path to a peer.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::KIB;
use crate::conn::socket::SocketOptions;
use crate::serde_util::known::known_settings;
use crate::serde_util::{human, human_option, size};

/// How connections to a peer are kept alive, watched and replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(doc, serde(default))] // See `known_settings`.
#[cfg_attr(not(doc), serde(default, deny_unknown_fields, remote = "Self"))]
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
    /// How long one write may take while the peer's kernel acknowledges nothing (SO_SNDTIMEO). Default 5 s.
    /// As long as it acknowledges more, or has retransmitted fewer than three times in a row, it may
    /// take `dead_after`, if that is longer: a slow link is not dead. Too small: a pause of the path
    /// ends connections.
    #[serde(with = "human")]
    pub write_timeout: Duration,
    /// Time between pings. Default 10 s, a third of the strictest NAT timeout. The side that dialled also
    /// pings once when data that came regularly stops: after twice the longest of the last eight gaps,
    /// 500 ms at least.
    #[serde(with = "human")]
    pub ping_interval: Duration,
    /// Where a path forgets flows, or closes them, so soon that connections die of silence the interval is
    /// learned and becomes shorter, but never shorter than this. Default 1 s.
    #[serde(with = "human")]
    pub min_ping_interval: Duration,
    /// How long a pong or an acknowledgement may be overdue, with nothing else received, before a
    /// second connection is dialled; 8 round trips if that is longer. Default 1 s. The time begins when the
    /// peer's kernel has what is to be answered, as far as the kernel here tells (Linux 4.6). Nothing is
    /// closed for it.
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
    /// How long a dial may take to connect, over all addresses of a peer together. They are attempted 250 ms
    /// apart (RFC 8305), closer if there are more than ten, the one that worked last first; a literal
    /// address waits for no name. Default 5 s. (The system's own would be 134 s for each, measured.) Too
    /// small: distant peers are not reached, and of many addresses the last ones have little time. Too
    /// large: peers that are absent use up `max_dials` for longer.
    #[serde(with = "human")]
    pub connect_timeout: Duration,
    /// From the first byte to the last of the handshake, however slowly it comes. Default 10 s.
    #[serde(with = "human")]
    pub handshake_timeout: Duration,
    /// The first bound of the backoff after an attempt at once; the wait is a random part of it. After a
    /// refusal that lasts until somebody changes something
    /// ([`RefusedReason::is_temporary`](crate::RefusedReason::is_temporary) is false, or the other side is
    /// not who it should be) the wait is at least five times this, or `backoff_max` if that is less. If the
    /// peer names a time with its refusal, all of this comes after that time. Default 0.5 s.
    #[serde(with = "human")]
    pub backoff_first: Duration,
    /// The bound doubles with each attempt, up to this and to the time since the first one. A time that a
    /// peer names with its refusal is believed up to this. Default 60 s.
    #[serde(with = "human")]
    pub backoff_max: Duration,
    /// After so many failures in a row the breaker opens. Default 5.
    pub breaker_threshold: u32,
    /// The largest chunk (one that ends where a message ends may have a 64th more), and the largest unsent
    /// backlog in the kernel (TCP_NOTSENT_LOWAT), in bytes. Default 512 KiB; 16 KiB to 1 MiB. Both start
    /// at 2 KiB, or at what earlier connections to this address had come to, and follow the measured
    /// rate of the path: 10 ms worth on a fast one, 125 ms worth on a slow one, 1 KiB at least.
    #[serde(with = "size")]
    pub max_chunk: usize,
    /// The largest segment of connections that this node makes, in bytes of data (TCP_MAXSEG, tcp(7)); that
    /// of the node's own settings also holds for those it accepts. Default none: what the interfaces and
    /// the path allow. 536 to 32,767. For paths that drop full packets and do not say so: where a
    /// successor's full segments do not pass, the later connections to that address have 536 without
    /// this setting. Too small: more headers and more work, 7 % at 536.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_segment: Option<u16>,
}

known_settings!(PathConfig);

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
            max_segment: None,
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
    pub(crate) fn socket_options(&self) -> SocketOptions {
        SocketOptions {
            keepalive_time: self.keepalive_time,
            keepalive_interval: self.keepalive_interval,
            keepalive_probes: self.keepalive_probes,
            user_timeout: self.user_timeout,
            write_timeout: self.write_timeout,
        }
    }

    pub(crate) fn write_limits(&self) -> crate::conn::WriteLimits {
        crate::conn::WriteLimits { write_timeout: self.write_timeout, longest: self.dead_after }
    }

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
