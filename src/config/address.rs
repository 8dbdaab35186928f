//! Addresses as an operator writes them: `host:port`.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs};

/// Splits `host:port`, and takes the brackets off an IPv6 address. `None` if it is not of that form.
pub(crate) fn split(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let bare = host.strip_prefix('[').map_or(Some(host), |rest| rest.strip_suffix(']'))?;
    Some((bare, port.parse().ok()?)).filter(|_| !bare.is_empty())
}

/// The address, if it is a literal one, which needs no resolver; `None` if the host is a name. An IPv6
/// address may name its interface (RFC 4007, section 11: `[fe80::1%eth0]:port`, or by its number) and may
/// stand without brackets.
///
/// # Errors
/// There is no such interface at the moment.
pub(crate) fn literal(address: &str) -> io::Result<Option<SocketAddr>> {
    let Some((host, port)) = split(address) else { return Ok(None) };
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(Some(SocketAddr::new(ip, port)));
    }
    match host.split_once('%') {
        Some((ip, interface)) if ip.parse::<Ipv6Addr>().is_ok() => {
            // The system looks the interface up in the kernel; nothing is sent.
            let unknown = || {
                io::Error::new(io::ErrorKind::NotFound, format!("{address}: no interface {interface:?} here"))
            };
            let mut addrs = (host, port).to_socket_addrs().map_err(|_| unknown())?;
            addrs.next().map(Some).ok_or_else(unknown)
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literal_addresses_are_told_from_names() {
        for (address, is) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("[::1]:80", "[::1]:80"),
            ("::1:80", "[::1]:80"),
            ("[fe80::1%7]:80", "[fe80::1%7]:80"),
            ("fe80::1%7:80", "[fe80::1%7]:80"),
            // The loopback interface has this name and this number on every Linux.
            ("[fe80::1%lo]:80", "[fe80::1%1]:80"),
            ("fe80::1%lo:80", "[fe80::1%1]:80"),
        ] {
            let literal = literal(address).unwrap();
            assert_eq!(literal.map(|addr| addr.to_string()).as_deref(), Some(is), "{address}");
        }
        for name in ["localhost:80", "a.example:1", "a%lo:1", "nowhere", "", ":1", "a:b", "[]:1", "[::1:80"] {
            assert_eq!(literal(name).unwrap(), None, "{name}");
        }
        let error = literal("[fe80::1%nowhere0]:80").unwrap_err().to_string();
        assert!(error.contains("nowhere0"), "{error}");
    }
}
