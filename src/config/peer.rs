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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PeerConfig {
    /// `host:port`, in a file also `id@host:port`; a name is looked up anew for each dial, and every address
    /// that it stands for is attempted. While the link is up it is looked up again
    /// ([`Config::resolve_interval`](crate::Config::resolve_interval)). A link-local address needs its
    /// interface, as in `[fe80::1%eth0]:port`.
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
    connections: Option<u8>,
    path: Option<PathConfig>,
}

known_names!(Written);

impl TryFrom<Written> for PeerConfig {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let Written { address, alternatives, id, important, connections, path } = written;
        let split = PeerConfig::new(address);
        if split.address.is_empty() {
            return Err("a peer needs its address, as in address = \"host:4000\"".into());
        }
        if let (Some(first), Some(second)) = (split.id, PeerConfig::new(split.address.as_str()).id) {
            return Err(format!("two ids are given, {first} and {second}: expected id@host:port"));
        }
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
