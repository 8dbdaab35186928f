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
    index: RwLock<Index>,
}

#[derive(Debug, Default)]
struct Index {
    /// With their labels.
    peers: HashMap<PeerId, Option<String>>,
    /// Labels of peers that were removed, for the lines of the log until their links have ended.
    removed: HashMap<PeerId, String>,
}

/// The beginning of a line of the log about a peer: its name, as far as it is known.
#[derive(Debug)]
pub(crate) struct About {
    pub(crate) label: Option<String>,
    pub(crate) peer: Option<PeerId>,
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.label.as_deref(), self.peer) {
            (label, Some(peer)) => write!(f, "{}: ", name(label, peer)),
            (Some(label), None) => write!(f, "{label}: "),
            (None, None) => Ok(()),
        }
    }
}

/// A peer in a line of the log: its label, if it has one, and the first characters of its id.
fn name(label: Option<&str>, peer: PeerId) -> String {
    match label {
        Some(label) => format!("{label} ({})", peer.short()),
        None => peer.short(),
    }
}

impl NamedPeers {
    pub(crate) fn contains(&self, peer: PeerId) -> bool {
        self.index.read().peers.contains_key(&peer)
    }

    /// The class in whose share an event, a message or a log line of this peer is counted.
    pub(crate) fn class_of(&self, peer: PeerId) -> Class {
        if self.contains(peer) { Class::Named } else { Class::Stranger }
    }

    /// A dial for a named address was answered by this peer. The roster hears of it later.
    pub(crate) fn insert(&self, peer: PeerId, label: Option<String>) {
        let mut index = self.index.write();
        let known = index.peers.entry(peer).or_default();
        if known.is_none() {
            *known = label;
        }
    }

    /// The label of a peer, also if it was removed and its link has not ended yet.
    pub(crate) fn label_of(&self, peer: PeerId) -> Option<String> {
        let index = self.index.read();
        index.peers.get(&peer).cloned().flatten().or_else(|| index.removed.get(&peer).cloned())
    }

    /// The peer in a line of the log.
    pub(crate) fn name_of(&self, peer: PeerId) -> String {
        name(self.label_of(peer).as_deref(), peer)
    }

    /// The peers, with their labels.
    pub(crate) fn replace(&self, peers: HashMap<PeerId, Option<String>>) {
        self.index.write().peers = peers;
    }

    /// The operator removes this peer: its label is kept until [`NamedPeers::forget_removed`].
    pub(crate) fn keep_label(&self, peer: PeerId) {
        let mut index = self.index.write();
        if let Some(label) = index.peers.get(&peer).cloned().flatten() {
            index.removed.insert(peer, label);
        }
    }

    /// The peers whose labels are kept although they were removed.
    pub(crate) fn removed(&self) -> Vec<PeerId> {
        self.index.read().removed.keys().copied().collect()
    }

    pub(crate) fn forget_removed(&self, peer: PeerId) {
        self.index.write().removed.remove(&peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_about_a_peer_begins_with_what_is_known_of_it() {
        let peer = PeerId::from_bytes([7; 32]);
        let short = peer.short();
        let label = || Some("tokyo-1".to_owned());
        for (label, peer, text) in [
            (label(), Some(peer), format!("tokyo-1 ({short}): ")),
            (None, Some(peer), format!("{short}: ")),
            (label(), None, "tokyo-1: ".to_owned()),
            (None, None, String::new()),
        ] {
            assert_eq!(About { label, peer }.to_string(), text);
        }
    }

    #[test]
    fn the_label_of_a_removed_peer_is_kept_until_its_link_has_ended() {
        let named = NamedPeers::default();
        let [peer, other] = [1, 2].map(|byte| PeerId::from_bytes([byte; 32]));
        let label = || Some("tokyo-1".to_owned());
        named.replace([(peer, label()), (other, None)].into());
        [peer, other].into_iter().for_each(|peer| named.keep_label(peer));
        named.replace(HashMap::new());
        assert_eq!((named.contains(peer), named.label_of(peer)), (false, label()));
        assert_eq!(named.removed(), [peer], "the other one had none");
        named.insert(peer, Some("tokyo-2".to_owned()));
        assert_eq!(named.name_of(peer), format!("tokyo-2 ({})", peer.short()));
        named.replace(HashMap::new());
        named.forget_removed(peer);
        assert_eq!(named.label_of(peer), None);
    }
}
