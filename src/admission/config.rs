//! The settings.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::id::PeerId;
use crate::serde_util::known::known_settings;
use crate::serde_util::{list, networks};

/// Which peers may connect to this node, and how many.
///
/// Address lists hold networks, as in `"192.0.2.0/24"` or `"2001:db8::/32"`. In a file a bare address stands
/// for its `/32` or `/128`, and the only entry of a list may stand alone: `allow_addresses = "192.0.2.7"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(doc, serde(default))] // See `known_settings`.
#[cfg_attr(not(doc), serde(default, deny_unknown_fields, remote = "Self"))]
pub struct AdmissionConfig {
    /// Only these identities may connect; wanted peers always may. Default empty: everybody.
    #[serde(deserialize_with = "list::deserialize")]
    pub allow_peers: Vec<PeerId>,
    /// These identities may not connect, wanted or not. Goes before `allow_peers`. Default empty.
    #[serde(deserialize_with = "list::deserialize")]
    pub deny_peers: Vec<PeerId>,
    /// Connections are accepted from these networks only. Default empty: from everywhere. It holds for
    /// wanted peers too, because who comes is not known before the handshake.
    #[serde(with = "networks")]
    pub allow_addresses: Vec<IpNet>,
    /// No connection is accepted from these networks. Goes before `allow_addresses`. Default empty.
    #[serde(with = "networks")]
    pub deny_addresses: Vec<IpNet>,
    /// How many handshakes may be under way from one address (IPv6: one /64). Default 64: the
    /// peers of a whole office behind one NAT may come back at once.
    pub max_handshakes_per_address: usize,
    /// The same from one subnet (IPv4 /24, IPv6 /56). Default 128, half of [`Config::max_handshakes`].
    ///
    /// [`Config::max_handshakes`]: crate::Config::max_handshakes
    pub max_handshakes_per_subnet: usize,
    /// How many accepted connections may be open, after their handshake. Default 3,000. Less, if
    /// [`Config::max_connections`] leaves less beside handshakes, reserved slots and dials.
    ///
    /// [`Config::max_connections`]: crate::Config::max_connections
    pub max_inbound: usize,
    /// How many of them from one address (IPv6: one /64). Default 64. Too small: peers behind one NAT keep
    /// each other out. Too large: one machine fills the node.
    pub max_inbound_per_address: usize,
    /// How many of them from one subnet (IPv4 /24, IPv6 /56). Default 256.
    pub max_inbound_per_subnet: usize,
    /// How many of one identity. Default 6: a full pool of three and the successor of each.
    pub max_inbound_per_peer: usize,
    /// Slots of `max_inbound` that strangers never get: they are for peers that this node wants
    /// ([`Config::peers`]), those among them that are known by their identity alone
    /// ([`PeerConfig::inbound_only`](crate::PeerConfig::inbound_only)). Default 64; at most a quarter of
    /// `max_inbound` and an eighth of [`Config::max_connections`](crate::Config::max_connections). Too
    /// small: when strangers have filled the node, peers that it needs cannot reach it (it can
    /// still dial them).
    ///
    /// [`Config::peers`]: crate::Config::peers
    pub reserved: usize,
    /// How many connections one address (IPv6: one /64) may open at once. Default 128, twice
    /// `max_inbound_per_address`: raise both together, or the peers behind that address come back one by
    /// one at `connects_per_minute` when this node was away. The connections of wanted peers do not
    /// count once they are let in.
    pub connects_at_once: u32,
    /// How many it may open in a minute in the long run. Default 120. A peer that behaves as this library
    /// does dials less than once a minute in the long run.
    pub connects_per_minute: u32,
    /// Whether a stranger that is refused after it has proved its identity is told why. Default true: a peer
    /// that is missing on a list, or banned, is otherwise only disconnected, and its operator cannot
    /// know why. False: it learns nothing. Peers that the operator named are always told.
    pub tell_strangers: bool,
    /// For these networks there is no limit per address or per subnet, no limit of the rate, and no ban of
    /// an address. Default loopback: everything on this machine has the same address. A cluster on a
    /// private network may add it.
    #[serde(with = "networks")]
    pub exempt: Vec<IpNet>,
}

known_settings!(AdmissionConfig);

impl AdmissionConfig {
    /// The largest [`AdmissionConfig::reserved`] that has an effect.
    pub(crate) fn most_reserved(&self, max_connections: usize) -> usize {
        (self.max_inbound / 4).min(max_connections / 8)
    }
}

impl Default for AdmissionConfig {
    fn default() -> Self {
        let loopback =
            [IpNet::new([127, 0, 0, 0].into(), 8), IpNet::new([0, 0, 0, 0, 0, 0, 0, 1].into(), 128)];
        AdmissionConfig {
            allow_peers: Vec::new(),
            deny_peers: Vec::new(),
            allow_addresses: Vec::new(),
            deny_addresses: Vec::new(),
            max_handshakes_per_address: 64,
            max_handshakes_per_subnet: 128,
            max_inbound: 3000,
            max_inbound_per_address: 64,
            max_inbound_per_subnet: 256,
            max_inbound_per_peer: 6,
            reserved: 64,
            connects_at_once: 128,
            connects_per_minute: 120,
            tell_strangers: true,
            exempt: loopback.into_iter().flatten().collect(),
        }
    }
}

impl AdmissionConfig {
    /// The first setting that cannot be right, and what was expected.
    pub(crate) fn problem(&self) -> Option<(&'static str, String)> {
        let positive = [
            ("admission.max_handshakes_per_address", self.max_handshakes_per_address),
            ("admission.max_handshakes_per_subnet", self.max_handshakes_per_subnet),
            ("admission.max_inbound", self.max_inbound),
            ("admission.max_inbound_per_address", self.max_inbound_per_address),
            ("admission.max_inbound_per_subnet", self.max_inbound_per_subnet),
            ("admission.max_inbound_per_peer", self.max_inbound_per_peer),
            ("admission.connects_at_once", self.connects_at_once as usize),
            ("admission.connects_per_minute", self.connects_per_minute as usize),
        ];
        let zero = positive.into_iter().find(|(_, value)| *value == 0);
        zero.map(|(name, _)| (name, "must be at least 1".to_owned()))
    }
}
