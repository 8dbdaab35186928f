//! Networks in files, as in `"192.0.2.0/24"`; a bare address is the network that holds nothing else.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserializer, Serializer};

use super::list::{self, text_entry};

const EXPECTED: &str = "an address or a network such as \"192.0.2.7\", \"192.0.2.0/24\" or \"2001:db8::/32\"";

pub(crate) fn serialize<S: Serializer>(networks: &[IpNet], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(networks.iter().map(IpNet::to_string))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let networks: Vec<Network> = list::deserialize(deserializer)?;
    Ok(networks.into_iter().map(|Network(network)| network).collect())
}

struct Network(IpNet);

text_entry!(Network, EXPECTED, |text| {
    let bare = || text.parse::<IpAddr>().map(IpNet::from);
    let network = text.parse::<IpNet>().or_else(|_| bare());
    network.map(Network).map_err(|_| format!("{text:?} is not {EXPECTED}"))
});
