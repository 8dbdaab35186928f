//! The settings of one peer.

use serde::{Deserialize, Serialize};

use super::PathConfig;
use crate::id::PeerId;

/// A peer to keep a link to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct PeerConfig {
    /// `host:port`, in a file also `id@host:port`; a name is looked up anew for each dial, and every address that it stands
    /// for is attempted. A link-local address needs its interface, as in `[fe80::1%eth0]:port`.
    pub address: String,
    /// Further addresses of the same peer, attempted in this order after `address`, 250 ms apart (RFC 8305) and IPv4 and IPv6
    /// in turn; but first the one that worked last. The connections of a pool
    /// begin with different ones, and the successor of a suspect connection with another than that
    /// connection's: so they go by different paths. Default none.
    pub alternatives: Vec<String>,
    /// Who it must be. Default: whoever answers there.
    pub id: Option<PeerId>,
    /// Marks a peer whose link matters most: it gets [`Config::important_connections`](crate::Config::important_connections). Shown in snapshots.
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
