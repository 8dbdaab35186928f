//! Where a dial goes first, and which addresses share a fate.

use std::net::IpAddr;

use crate::config::address::split;

/// Addresses that are likely to fail together, or to belong to one owner: an IPv4 /16, an IPv6 /32, or the
/// name of a host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Group {
    V4([u8; 2]),
    V6([u8; 4]),
    Name(String),
}

impl From<IpAddr> for Group {
    fn from(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => {
                let [a, b, ..] = ip.octets();
                Group::V4([a, b])
            }
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.octets();
                Group::V6([a, b, c, d])
            }
        }
    }
}

impl Group {
    /// That of `host:port`.
    pub(super) fn of(address: &str) -> Self {
        let host = split(address).map_or(address, |(host, _)| host);
        let ip = host.split_once('%').map_or(host, |(ip, _interface)| ip);
        match ip.parse::<IpAddr>() {
            Ok(ip) => ip.into(),
            Err(_) => Group::Name(host.to_ascii_lowercase()),
        }
    }
}

/// The same addresses, begun with another one for each place of a pool: so a pool spreads over paths.
pub(crate) fn rotated<T>(mut addresses: Vec<T>, slot: u8) -> Vec<T> {
    let shift = usize::from(slot).checked_rem(addresses.len()).unwrap_or(0);
    addresses.rotate_left(shift);
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_networks_or_names() {
        for (a, b, same) in [
            ("10.1.2.3:1", "10.1.200.3:9", true),
            ("10.1.2.3:1", "10.2.2.3:1", false),
            ("[2001:db8:1::1]:1", "[2001:db8:ffff::9]:2", true),
            ("[2001:db8::1]:1", "[2001:db9::1]:1", false),
            ("[fe80::1%eth0]:1", "[fe80::2%eth1]:1", true),
            ("[::ffff:10.1.0.1]:1", "10.1.9.9:1", true),
            ("Node.example:1", "node.example:2", true),
            ("a.example:1", "b.example:1", false),
        ] {
            assert_eq!(Group::of(a) == Group::of(b), same, "{a} {b}");
        }
    }

    #[test]
    fn each_place_begins_with_another_address() {
        assert_eq!(rotated(vec!['a', 'b'], 0), ['a', 'b']);
        assert_eq!(rotated(vec!['a', 'b'], 1), ['b', 'a']);
        assert_eq!(rotated(vec!['a', 'b'], 2), ['a', 'b']);
        assert_eq!(rotated(Vec::<char>::new(), 2), []);
    }
}
