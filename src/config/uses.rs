//! Settings for three common uses. The files `consensus.toml`, `wide_area.toml` and `local_test.toml` of the
//! example `node` hold the same, with addresses.

use std::time::Duration;

use super::{Announce, Config, MIB, PathConfig};
use crate::admission::AdmissionConfig;

impl Config {
    /// Settings for few nodes that all know each other, as validators do, each an important peer of the
    /// others ([`PeerConfig::important`](crate::PeerConfig::important)). A dead path is noticed after 6 s
    /// also when nothing is sent, a peer that was away for long is dialled every 10 s, a
    /// connection follows the name of a peer that moves within two minutes, and what waits for
    /// it is given up after 10 minutes.
    ///
    /// ```
    /// use unbroken::{Config, Node, PeerConfig};
    ///
    /// let important = |address| PeerConfig { important: true, ..PeerConfig::new(address) };
    /// let peers = ["10.0.0.2:7000", "10.0.0.3:7000"].map(important);
    /// let config = Config { peers: peers.into(), network: "my-chain".into(), ..Config::consensus() };
    /// let builder = Node::builder().config(config);
    /// ```
    pub fn consensus() -> Self {
        Config {
            resumption: Duration::from_secs(600),
            resolve_interval: Duration::from_secs(60),
            max_queued: 512 * MIB,
            path: PathConfig {
                ping_interval: Duration::from_secs(5),
                backoff_max: Duration::from_secs(10),
                ..PathConfig::default()
            },
            admission: AdmissionConfig { max_inbound: 200, ..AdmissionConfig::default() },
            ..Config::default()
        }
    }

    /// Settings for one of many nodes of an open network over wide areas, which takes its peers from
    /// candidates ([`Node::learn`](crate::Node::learn)): it keeps links to 24 of them, exchanges poor
    /// ones, accepts 100 others, and reserves 20 places for those that it wants.
    pub fn wide_area() -> Self {
        Config {
            target_peers: 24,
            max_candidates: 4000,
            max_inbox: 256 * MIB,
            path: PathConfig { connect_timeout: Duration::from_secs(10), ..PathConfig::default() },
            admission: AdmissionConfig {
                max_inbound: 100,
                max_inbound_per_address: 8,
                max_inbound_per_subnet: 16,
                reserved: 20,
                ..AdmissionConfig::default()
            },
            ..Config::default()
        }
    }

    /// Settings for tests on one machine: everything that takes time is ten times as fast, and nobody is
    /// dialled back, past a proxy that may stand in between. Not for real networks: a path with a round
    /// trip of 100 ms, or a busy machine, would look broken.
    pub fn local_test() -> Self {
        Config {
            announce: Announce::Nothing,
            path: PathConfig {
                ping_interval: Duration::from_secs(1),
                min_ping_interval: Duration::from_millis(100),
                suspect_after: Duration::from_millis(100),
                dead_after: Duration::from_secs(3),
                write_timeout: Duration::from_secs(3),
                user_timeout: Duration::from_secs(3),
                connect_timeout: Duration::from_secs(1),
                backoff_first: Duration::from_millis(50),
                backoff_max: Duration::from_secs(6),
                ..PathConfig::default()
            },
            ..Config::default()
        }
    }
}
