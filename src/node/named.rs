//! The peers that the operator named, as every thread of the node may ask for them.
//!
//! The roster knows the same, but only by a search through all addresses under its lock. This is its index by
//! peer: it is written when the roster's answer may have changed
//! ([`NodeInner::classify_links`](super::inner::NodeInner::classify_links)), and read everywhere that named
//! peers have a share of their own: admission, conduct, events, the order of messages.
//!
//! Candidates are not in it: a peer that was learned is a stranger until the operator names it.

use std::collections::HashMap;
use std::fmt;

use parking_lot::RwLock;

use super::event_queue::Class;
use crate::id::PeerId;

#[derive(Debug, Default)]
pub(crate) struct NamedPeers {
    /// Protects the index. A leaf: no other lock is taken while it is held.
    peers: RwLock<HashMap<PeerId, Option<String>>>,
}

/// The beginning of a line of the log about a peer: its label and the first characters of its id, as far as
/// they are known.
#[derive(Debug)]
pub(crate) struct About {
    pub(crate) label: Option<String>,
    pub(crate) peer: Option<PeerId>,
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.label, self.peer) {
            (Some(label), Some(peer)) => write!(f, "{label} ({}): ", peer.short()),
            (Some(label), None) => write!(f, "{label}: "),
            (None, Some(peer)) => write!(f, "{}: ", peer.short()),
            (None, None) => Ok(()),
        }
    }
}

impl NamedPeers {
    pub(crate) fn contains(&self, peer: PeerId) -> bool {
        self.peers.read().contains_key(&peer)
    }

    /// The class in whose share an event, a message or a log line of this peer is counted.
    pub(crate) fn class_of(&self, peer: PeerId) -> Class {
        if self.contains(peer) { Class::Named } else { Class::Stranger }
    }

    /// A dial for a named address was answered by this peer. The roster hears of it later.
    pub(crate) fn insert(&self, peer: PeerId, label: Option<String>) {
        let mut peers = self.peers.write();
        let known = peers.entry(peer).or_default();
        if known.is_none() {
            *known = label;
        }
    }

    pub(crate) fn label_of(&self, peer: PeerId) -> Option<String> {
        self.peers.read().get(&peer).cloned().flatten()
    }

    /// The peers, with their labels.
    pub(crate) fn replace(&self, peers: HashMap<PeerId, Option<String>>) {
        *self.peers.write() = peers;
    }
}
