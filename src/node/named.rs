//! The peers that the operator named, as every thread of the node may ask for them.
//!
//! The roster knows the same, but only by a search through all addresses under its lock. This is its index by
//! peer: it is written when the roster's answer may have changed
//! ([`NodeInner::classify_links`](super::inner::NodeInner::classify_links)), and read everywhere that named
//! peers have a share of their own: admission, conduct, events, the order of messages.
//!
//! Candidates are not in it: a peer that was learned is a stranger until the operator names it.

use std::collections::HashSet;

use parking_lot::RwLock;

use super::event_queue::Class;
use crate::id::PeerId;

#[derive(Debug, Default)]
pub(crate) struct NamedPeers {
    /// Protects the index. A leaf: no other lock is taken while it is held.
    peers: RwLock<HashSet<PeerId>>,
}

impl NamedPeers {
    pub(crate) fn contains(&self, peer: PeerId) -> bool {
        self.peers.read().contains(&peer)
    }

    /// The class in whose share an event, a message or a log line of this peer is counted.
    pub(crate) fn class_of(&self, peer: PeerId) -> Class {
        if self.contains(peer) { Class::Named } else { Class::Stranger }
    }

    /// A dial for a named address was answered by this peer. The roster hears of it later.
    pub(crate) fn insert(&self, peer: PeerId) {
        self.peers.write().insert(peer);
    }

    pub(crate) fn replace(&self, peers: HashSet<PeerId>) {
        *self.peers.write() = peers;
    }
}
