//! The local address and the interface of the connections that this node dials.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

/// The longest name of an interface: IFNAMSIZ of Linux without the zero byte at its end.
const MAX_INTERFACE: usize = 15;

/// Where one connection comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outbound<'a> {
    /// With port 0. `None`: the system chooses the address.
    pub(crate) addr: Option<SocketAddr>,
    /// `None`: the routes choose the interface.
    pub(crate) interface: Option<&'a str>,
}

impl<'a> Outbound<'a> {
    /// The address of the family of `to`, if `addrs` has one.
    pub(super) fn new(addrs: &[IpAddr], interface: Option<&'a str>, to: SocketAddr) -> Self {
        let chosen = addrs.iter().find(|addr| addr.is_ipv4() == to.ip().to_canonical().is_ipv4());
        let addr = chosen.map(|addr| match (addr, to) {
            // An IPv6 socket reaches such an address from a mapped one only.
            (IpAddr::V4(addr), SocketAddr::V6(_)) => SocketAddr::new(addr.to_ipv6_mapped().into(), 0),
            // A link-local address is one of the interface by which the peer is reached.
            (IpAddr::V6(addr), SocketAddr::V6(to)) if addr.is_unicast_link_local() => {
                SocketAddrV6::new(*addr, 0, 0, to.scope_id()).into()
            }
            (addr, _) => SocketAddr::new(*addr, 0),
        });
        Outbound { addr, interface }
    }
}

/// Returns the setting that cannot be right and the problem with it, if there is one.
pub(super) fn problem(addrs: &[IpAddr], interface: Option<&str>) -> Option<(String, String)> {
    for (index, addr) in addrs.iter().enumerate() {
        let problem = if addr.is_unspecified() {
            Some("no address in particular; leave the list empty and the system chooses one")
        } else if addr.is_multicast() {
            Some("a multicast address, from which nobody can connect")
        } else if addr.to_canonical() != *addr {
            Some("an IPv4 address in the form of an IPv6 one; write it as IPv4")
        } else if addrs.iter().take(index).any(|other| other.is_ipv4() == addr.is_ipv4()) {
            Some("the second one of its family; at most one of IPv4 and one of IPv6 are allowed")
        } else {
            None
        };
        if let Some(problem) = problem {
            return Some((format!("outbound_addrs[{index}]"), format!("{addr} is {problem}")));
        }
    }
    let interface = interface?;
    let problem = if !cfg!(any(target_os = "linux", target_os = "android")) {
        "only Linux and Android can bind a connection to an interface; use outbound_addrs".into()
    } else if interface.is_empty() || interface.len() > MAX_INTERFACE {
        format!("{interface:?} is not between 1 and {MAX_INTERFACE} bytes")
    } else if interface.contains(|c: char| c == '/' || c == '\0' || c.is_whitespace()) {
        format!("{interface:?} holds a character that no name of an interface has")
    } else {
        return None;
    };
    Some(("outbound_interface".into(), problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_the_family_is_chosen() {
        let both = ["192.0.2.1", "2001:db8::1"];
        for (addrs, to, expected) in [
            (&[][..], "10.0.0.1:1", None),
            (&both[..], "10.0.0.1:1", Some("192.0.2.1:0")),
            (&both[..], "[2001:db8::2]:1", Some("[2001:db8::1]:0")),
            (&both[..1], "[2001:db8::2]:1", None),
            (&both[1..], "10.0.0.1:1", None),
            (&both[..], "[::ffff:10.0.0.1]:1", Some("[::ffff:192.0.2.1]:0")),
            (&["fe80::1"], "[fe80::2%3]:1", Some("[fe80::1%3]:0")),
        ] {
            let addrs: Vec<IpAddr> = addrs.iter().map(|addr| addr.parse().unwrap()).collect();
            let chosen = Outbound::new(&addrs, Some("eth1"), to.parse().unwrap());
            let expected =
                Outbound { addr: expected.map(|addr| addr.parse().unwrap()), interface: Some("eth1") };
            assert_eq!(chosen, expected, "{addrs:?} {to}");
        }
    }

    #[test]
    fn what_cannot_be_bound_is_named() {
        for (addrs, setting, said) in [
            (&["0.0.0.0"][..], "outbound_addrs[0]", "leave the list empty"),
            (&["::"], "outbound_addrs[0]", "leave the list empty"),
            (&["ff02::1"], "outbound_addrs[0]", "multicast"),
            (&["::ffff:192.0.2.1"], "outbound_addrs[0]", "write it as IPv4"),
            (&["192.0.2.1", "2001:db8::1", "192.0.2.2"], "outbound_addrs[2]", "192.0.2.2 is the second one"),
        ] {
            let addrs: Vec<IpAddr> = addrs.iter().map(|addr| addr.parse().unwrap()).collect();
            let (named, problem) = problem(&addrs, None).unwrap();
            assert_eq!(named, setting);
            assert!(problem.contains(said), "{problem}");
        }
        assert_eq!(problem(&["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()], None), None);
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[test]
    fn an_interface_has_a_name_that_the_kernel_takes() {
        for bad in ["", "a/b", "a b", "a\0", "sixteen-bytes-xx"] {
            assert_eq!(problem(&[], Some(bad)).unwrap().0, "outbound_interface", "{bad:?}");
        }
        assert_eq!(problem(&[], Some("fifteen-bytes-x")), None);
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    #[test]
    fn an_interface_is_an_error_where_the_system_cannot() {
        assert!(problem(&[], Some("eth0")).unwrap().1.contains("only Linux"));
    }

    #[test]
    fn it_survives_a_file() {
        let text = "outbound_addrs = '192.0.2.1'\noutbound_interface = 'eth1'";
        let config: crate::Config = toml::from_str(text).unwrap();
        assert_eq!(config.outbound_addrs, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(config.outbound_interface.as_deref(), Some("eth1"));
        let again: crate::Config = toml::from_str(&toml::to_string(&config).unwrap()).unwrap();
        assert_eq!(again, config);
        let error = toml::from_str::<crate::Config>("outbound_addrs = ['eth1']").unwrap_err().to_string();
        assert!(error.contains("IP address"), "{error}");
    }
}
