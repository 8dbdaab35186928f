//! The settings of one peer.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::PathConfig;
use crate::id::PeerId;
use crate::serde_util::known::known_names;
use crate::serde_util::list;

/// A peer to keep a link to.
///
/// In a file an address may stand alone: `peers = ["host:4000", { address = "other:4000", important = true
/// }]`.
///
/// # Without an address
/// A peer that only dials this node, behind a NAT for example, needs no address:
/// [`PeerConfig::inbound_only`], in a file its id alone, `peers = ["<id>"]` or `{ id = "<id>", important =
/// true }`. It is never dialled. In everything else it is a configured peer: the places that
/// [`AdmissionConfig::reserved`](crate::AdmissionConfig::reserved) keeps from strangers are for it too,
/// messages wait for it before it was ever here, and its part of
/// [`Config::max_queued`](crate::Config::max_queued) is guaranteed. When a connection that it opened no
/// longer answers, this node dials it back if it announced a port ([`Announce`](crate::Announce)), as it does
/// with strangers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PeerConfig {
    /// `host:port`, in a file also `id@host:port`; a name is looked up anew for each dial, and every address
    /// that it stands for is attempted. While the link is up it is looked up again
    /// ([`Config::resolve_interval`](crate::Config::resolve_interval)). A link-local address needs its
    /// interface, as in `[fe80::1%eth0]:port`. Empty: the peer only dials this node, and `id` says who it
    /// is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// Further addresses of the same peer, attempted in this order after `address`, 250 ms apart (RFC 8305)
    /// and IPv4 and IPv6 in turn; but first the one that worked last. The connections of a pool
    /// begin with different ones, and the successor of a suspect connection with another than that
    /// connection's: so they go by different paths. Default none.
    pub alternatives: Vec<String>,
    /// The identity that the peer must prove. Default: any.
    pub id: Option<PeerId>,
    /// Marks a peer whose link matters most: it gets
    /// [`Config::important_connections`](crate::Config::important_connections). Shown in snapshots.
    pub important: bool,
    /// What the operator calls the peer, for example `tokyo-1`: it stands before the peer's id in the log,
    /// and in snapshots and metrics. 1 to 64 bytes without control characters. Only this node knows it;
    /// the name that a peer announces is [`PeerSnapshot::name`](crate::PeerSnapshot::name). Default
    /// none.
    pub label: Option<String>,
    /// How many connections its link owns, 1 to 3. Default: what the node's settings say.
    pub connections: Option<u8>,
    /// The behaviour towards this peer. Default: that of the node.
    pub path: Option<PathConfig>,
}

impl PeerConfig {
    /// A peer at `address`, with the node's behaviour. In `id@host:port` the address says who it must be, and
    /// an id alone is [`PeerConfig::inbound_only`]; an id that is none is an error when the node starts or
    /// the peer is added.
    pub fn new(address: impl Into<String>) -> Self {
        let address = address.into();
        if let Ok(id) = address.parse() {
            return PeerConfig::inbound_only(id);
        }
        let (id, address) = match address.split_once('@').map(|(id, rest)| (id.parse(), rest)) {
            Some((Ok(id), rest)) if !rest.is_empty() => (Some(id), rest.to_string()),
            _ => (None, address),
        };
        PeerConfig { address, id, ..PeerConfig::default() }
    }

    /// A peer without an address: it dials this node, and is never dialled.
    ///
    /// ```
    /// use unbroken::{Identity, Node, PeerConfig};
    ///
    /// # let validator = Identity::generate()?.peer_id();
    /// let node = Node::builder()
    ///     .listen("127.0.0.1:0".parse()?)
    ///     .peer_config(PeerConfig { important: true, ..PeerConfig::inbound_only(validator) })
    ///     .start()?;
    /// // It is not connected yet; the message waits for it.
    /// node.send(validator, (unbroken::NORMAL, "welcome"))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn inbound_only(id: PeerId) -> Self {
        PeerConfig { id: Some(id), ..PeerConfig::default() }
    }

    /// All addresses, the first one first.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.address).filter(|address| !address.is_empty()).chain(&self.alternatives)
    }

    /// How many connections its link is to own. `usual` and `important`: what the node's settings say.
    pub(crate) fn pool_size(&self, usual: u8, important: u8) -> u8 {
        self.connections.unwrap_or(if self.important { important } else { usual })
    }

    /// Whether there is an address to dial.
    pub(crate) fn has_address(&self) -> bool {
        !self.address.is_empty()
    }
}

impl<'de> Deserialize<'de> for PeerConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PeerVisitor)
    }
}

/// An address alone, or a table of settings.
struct PeerVisitor;

impl<'de> Visitor<'de> for PeerVisitor {
    type Value = PeerConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a peer: an address such as \"host:4000\", or a table with `address` and other settings")
    }

    fn visit_str<E: Error>(self, address: &str) -> Result<PeerConfig, E> {
        let written = Written { address: address.into(), ..Written::default() };
        PeerConfig::try_from(written).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, settings: A) -> Result<PeerConfig, A::Error> {
        let written = <Written as Deserialize>::deserialize(MapAccessDeserializer::new(settings))?;
        PeerConfig::try_from(written).map_err(A::Error::custom)
    }
}

/// A [`PeerConfig`] as it stands in a file.
#[derive(Default, Deserialize)]
#[serde(default, remote = "Self")]
struct Written {
    address: String,
    #[serde(deserialize_with = "list::deserialize")]
    alternatives: Vec<String>,
    id: Option<PeerId>,
    important: bool,
    label: Option<String>,
    connections: Option<u8>,
    path: Option<PathConfig>,
}

known_names!(Written);

impl TryFrom<Written> for PeerConfig {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let Written { address, alternatives, id, important, label, connections, path } = written;
        let split = PeerConfig::new(address);
        if split.address.ends_with('@') || !split.has_address() && split.id.or(id).is_none() {
            return Err("a peer needs its address, as in address = \"host:4000\", or its id".into());
        }
        if let (Some(first), Some(second)) = (split.id, PeerConfig::new(split.address.as_str()).id) {
            return Err(format!("two ids are given, {first} and {second}: expected id@host:port"));
        }
        if let (Some(here), Some(there)) = (split.id, id)
            && here != there
        {
            let at = if split.has_address() { "@" } else { "" };
            return Err(format!("{here}{at}{} and id {there} are different peers", split.address));
        }
        let (address, id) = (split.address, split.id.or(id));
        Ok(PeerConfig { address, alternatives, id, important, label, connections, path })
    }
}

impl From<&str> for PeerConfig {
    fn from(address: &str) -> Self {
        PeerConfig::new(address)
    }
}

/// The peer is never dialled: [`PeerConfig::inbound_only`].
impl From<PeerId> for PeerConfig {
    fn from(id: PeerId) -> Self {
        PeerConfig::inbound_only(id)
    }
}

impl From<String> for PeerConfig {
    fn from(address: String) -> Self {
        PeerConfig::new(address)
    }
}
