//! The port that this node's HELLO announces, at which peers may dial it back.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Whether HELLO tells peers at which port this node accepts connections.
///
/// A node that accepted a connection can replace it only if it knows where to dial. When the connection no
/// longer answers, such a node dials the address that the connection came from, at the announced port. So
/// messages of the accepting side leave a dead path after about
/// [`PathConfig::suspect_after`](crate::PathConfig::suspect_after), and need not wait until the dialling side
/// has noticed, which takes up to [`PathConfig::ping_interval`](crate::PathConfig::ping_interval).
///
/// In files: `"listen_port"`, `"nothing"`, or `{ port = 4000 }`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Announce {
    /// The port of the listener that accepts connections at the local address of the connection. Nothing if
    /// there is none, as on a node that does not listen.
    #[default]
    ListenPort,
    /// Nothing: peers do not dial back. For nodes whose listeners cannot be reached at the address that their
    /// own connections come from, as behind a NAT: peers would dial in vain, three times for each
    /// connection that does not answer.
    Nothing,
    /// This port, 1 to 65,535, on every connection: where a NAT, or another program, forwards it to a
    /// listener of this node.
    Port(u16),
}

/// Where a listener accepts connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listening {
    pub(crate) addr: SocketAddr,
    /// If it is the unspecified IPv6 address: it does not accept IPv4.
    pub(crate) only_v6: bool,
}

impl Listening {
    fn accepts_at(&self, local: IpAddr) -> bool {
        match self.addr.ip() {
            IpAddr::V6(ip) if ip.is_unspecified() => local.is_ipv6() || !self.only_v6,
            IpAddr::V4(ip) if ip.is_unspecified() => local.is_ipv4(),
            ip => ip.to_canonical() == local,
        }
    }
}

impl Announce {
    /// The port to announce on a connection from this local address.
    pub(crate) fn port(self, listeners: impl IntoIterator<Item = Listening>, local: IpAddr) -> Option<u16> {
        match self {
            Announce::ListenPort => {
                let local = local.to_canonical();
                let accepting = listeners.into_iter().filter(|listener| listener.accepts_at(local));
                // One that was bound to this very address, if there is one.
                accepting
                    .map(|listener| listener.addr)
                    .min_by_key(|addr| addr.ip().is_unspecified())
                    .map(|addr| addr.port())
            }
            Announce::Nothing => None,
            Announce::Port(port) => Some(port),
        }
    }

    /// Returns the problem with it on a node that listens there, if there is one.
    pub(super) fn problem(self, listen: &[SocketAddr]) -> Option<String> {
        match self {
            Announce::Port(0) => Some("port 0 is none: 1 to 65,535, or \"nothing\", are allowed".into()),
            Announce::Port(port) if listen.is_empty() => Some(format!(
                "port {port} is announced, but `listen` is empty: no listener could accept there"
            )),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(announce: Announce, listeners: &[(&str, bool)], local: &str) -> Option<u16> {
        let listening =
            |(addr, only_v6): &(&str, bool)| Listening { addr: addr.parse().unwrap(), only_v6: *only_v6 };
        announce.port(listeners.iter().map(listening), local.parse().unwrap())
    }

    #[test]
    fn the_port_is_that_of_a_listener_which_accepts_where_the_connection_comes_from() {
        let listen = Announce::ListenPort;
        for (listeners, local, expected) in [
            (&[][..], "10.0.0.1", None),
            (&[("10.0.0.1:1", false)], "10.0.0.1", Some(1)),
            (&[("127.0.0.1:1", false)], "10.0.0.1", None),
            (&[("0.0.0.0:1", false), ("10.0.0.1:2", false)], "10.0.0.1", Some(2)),
            (&[("0.0.0.0:1", false)], "2001:db8::1", None),
            (&[("[::]:1", false)], "10.0.0.1", Some(1)),
            (&[("[::]:1", true)], "10.0.0.1", None),
            (&[("[::]:1", true), ("0.0.0.0:2", false)], "::ffff:10.0.0.1", Some(2)),
            (&[("[::]:1", true), ("0.0.0.0:2", false)], "2001:db8::1", Some(1)),
        ] {
            assert_eq!(port(listen, listeners, local), expected, "{listeners:?} {local}");
            assert_eq!(port(Announce::Nothing, listeners, local), None);
            assert_eq!(port(Announce::Port(7), listeners, local), Some(7));
        }
    }

    #[test]
    fn every_form_survives_a_file() {
        for announce in [Announce::ListenPort, Announce::Nothing, Announce::Port(4000)] {
            let config = crate::Config { announce, ..crate::Config::default() };
            let text = toml::to_string(&config).unwrap();
            assert_eq!(toml::from_str::<crate::Config>(&text).unwrap().announce, announce, "{text}");
        }
        assert_eq!(
            toml::from_str::<crate::Config>("announce = { port = 7 }").unwrap().announce,
            Announce::Port(7)
        );
    }
}
