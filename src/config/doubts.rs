//! Settings each of which is valid, and which together can hardly be meant. The log has them when a node
//! starts.

use std::collections::HashMap;

use super::validate::ConfigError;
use super::{Config, PeerConfig};
use crate::admission::AdmissionConfig;
use crate::id::PeerId;

impl Config {
    /// `us`: the node's own identity.
    pub(crate) fn doubts(&self, us: PeerId) -> Vec<ConfigError> {
        let peers = self.peers.iter().enumerate();
        let own = peers.filter(|(_, peer)| peer.id == Some(us)).map(|(index, _)| {
            ConfigError::new(format!("peers[{index}].id"), "this node's own: it is never linked".into())
        });
        own.chain(self.shared_addresses())
            .chain(self.connections_doubt())
            .chain(self.reserved_doubt())
            .collect()
    }

    /// Entries of different peers that have an address in common.
    fn shared_addresses(&self) -> impl Iterator<Item = ConfigError> {
        let mut first: HashMap<&str, (usize, PeerId)> = HashMap::new();
        self.peers.iter().enumerate().filter_map(move |(index, peer)| {
            let id = peer.id?;
            peer.addresses().find_map(|address| {
                let (before, other) = *first.entry(address).or_insert((index, id));
                let problem =
                    format!("{address} leads to another peer by peers[{before}]: one node has one id");
                (other != id).then(|| ConfigError::new(format!("peers[{index}]"), problem))
            })
        })
    }

    fn connections_doubt(&self) -> Option<ConfigError> {
        // An address that is listed twice is one entry.
        let entries: HashMap<_, _> = self.peers.iter().map(|peer| ((&peer.address, peer.id), peer)).collect();
        let dialled = entries.into_values().filter(|peer| peer.has_address());
        let of_peer = |peer: &PeerConfig| peer.pool_size(self.connections, self.important_connections);
        let of_peers: usize = dialled.map(|peer| usize::from(of_peer(peer))).sum();
        let of_candidates = self.target_peers.saturating_mul(self.connections.into());
        let wanted = of_peers.saturating_add(of_candidates);
        (wanted > self.max_connections).then(|| {
            let problem = format!(
                "{} is less than the {wanted} connections that `peers` and `target_peers` are to have",
                self.max_connections
            );
            ConfigError::new("max_connections".into(), problem)
        })
    }

    /// The default raises no doubt, however small the node is.
    fn reserved_doubt(&self) -> Option<ConfigError> {
        let reserved = self.admission.reserved;
        let most = self.admission.most_reserved(self.max_connections);
        let is_default = reserved == AdmissionConfig::default().reserved;
        (!is_default && reserved > most).then(|| {
            let problem = format!(
                "{reserved} is more than {most}, which is the most: a quarter of admission.max_inbound ({}), and an eighth of max_connections ({})",
                self.admission.max_inbound, self.max_connections
            );
            ConfigError::new("admission.reserved".into(), problem)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: PeerId = PeerId::from_bytes([1; 32]);

    fn doubts(config: &Config) -> Vec<String> {
        config.validate().unwrap();
        config.doubts(US).iter().map(|doubt| doubt.setting().to_owned()).collect()
    }

    fn entry(id: u8, address: &str) -> PeerConfig {
        PeerConfig { id: Some(PeerId::from_bytes([id; 32])), ..PeerConfig::new(address) }
    }

    #[test]
    fn settings_that_go_together_raise_no_doubt() {
        for config in [
            Config::default(),
            Config::consensus(),
            Config::wide_area(),
            Config::local_test(),
            Config { peers: vec![entry(2, "a:1"), entry(2, "a:1"), "a:1".into()], ..Config::default() },
        ] {
            assert_eq!(doubts(&config), [""; 0]);
        }
        let admission = AdmissionConfig { max_inbound: 8, ..AdmissionConfig::default() };
        assert_eq!(doubts(&Config { admission, ..Config::default() }), [""; 0], "the default for `reserved`");
    }

    #[test]
    fn each_doubt_names_its_setting() {
        let own = Config { peers: vec!["a:1".into(), entry(1, "b:1")], ..Config::default() };
        assert_eq!(doubts(&own), ["peers[1].id"]);
        let alternatives = vec!["c:1".into(), "a:1".into()];
        let third = PeerConfig { alternatives, ..entry(3, "b:1") };
        let shared = Config { peers: vec![entry(2, "a:1"), third], ..Config::default() };
        assert_eq!(doubts(&shared), ["peers[1]"]);
        let important = |address: &str| PeerConfig { important: true, ..PeerConfig::new(address) };
        let peers = ["a:1", "b:1", "c:1"].map(important).to_vec();
        let few = Config { peers, max_connections: 5, target_peers: 0, ..Config::default() };
        assert_eq!(doubts(&few), ["max_connections"]);
        assert_eq!(doubts(&Config { max_connections: 6, ..few.clone() }), [""; 0]);
        let peers = few.peers.iter().chain(&few.peers).cloned().collect();
        assert_eq!(doubts(&Config { peers, max_connections: 6, ..few }), [""; 0], "each is listed twice");
        for (reserved, max_inbound, max_connections, is_doubtful) in
            [(25, 100, 4000, false), (26, 100, 4000, true), (25, 100, 200, false), (26, 1000, 200, true)]
        {
            let admission = AdmissionConfig { max_inbound, reserved, ..AdmissionConfig::default() };
            let config = Config { admission, max_connections, target_peers: 0, ..Config::default() };
            let expected: &[&str] = if is_doubtful { &["admission.reserved"] } else { &[] };
            assert_eq!(doubts(&config), expected, "{reserved} of {max_inbound}, {max_connections}");
        }
    }
}
