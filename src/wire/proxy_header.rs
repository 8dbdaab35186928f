//! The header by which a load balancer says whose connection it passes on: version 2 of the PROXY protocol
//! (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>).
//!
//! ```text
//!   0            12      13      14       16                                    16 + length
//!   | signature  | 2 | command | family, transport | length | addresses | TLVs  |
//! ```
//!
//! # Invariants
//! - Exactly the header is read, and no byte of what follows.
//! - No more than [`MAX_LEN`] bytes are read, on nobody's word.
//! - TLVs are skipped, PP2_TYPE_CRC32C among them: TCP has a checksum, and who could change the one could
//!   change the other.

use std::fmt;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The first bytes of each header.
pub(crate) const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The part of a fixed length.
const HEAD_LEN: usize = 16;
/// The longest header that is read: the two parts of which every sender has to make do with 16 and 520
/// bytes, section 2.2.
pub(crate) const MAX_LEN: usize = 536;
/// Source and destination, with their ports.
const IPV4_LEN: usize = 12;
const IPV6_LEN: usize = 36;
const UNIX_LEN: usize = 216;

/// Why no header was read.
#[derive(Debug)]
pub(crate) enum ProxyHeaderError {
    /// The connection ended or failed before its end.
    Io(io::Error),
    /// The connection begins with something else.
    Signature,
    /// A text header, of version 1.
    Text,
    Version(u8),
    Command(u8),
    /// The byte of the family and the transport has no meaning.
    Family(u8),
    /// The length of the whole header.
    TooLong(usize),
    /// The addresses of its family do not fit into its length.
    TooShort(usize),
    /// A source from which nobody can connect.
    Source(IpAddr),
}

impl fmt::Display for ProxyHeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PROXY header: ")?;
        match self {
            ProxyHeaderError::Io(error) => write!(f, "{error}"),
            ProxyHeaderError::Signature => {
                f.write_str("there is none, but `proxy_protocol_from` holds this address")
            }
            ProxyHeaderError::Text => f.write_str("it is of version 1, only version 2 is understood"),
            ProxyHeaderError::Version(version) => {
                write!(f, "it is of version {version}, only version 2 is understood")
            }
            ProxyHeaderError::Command(command) => write!(f, "unknown command {command}"),
            ProxyHeaderError::Family(byte) => write!(f, "unknown address family and transport {byte:#04x}"),
            ProxyHeaderError::TooLong(len) => write!(f, "{len} bytes, at most {MAX_LEN} are read"),
            ProxyHeaderError::TooShort(len) => write!(f, "{len} bytes hold no addresses of its family"),
            ProxyHeaderError::Source(ip) => write!(f, "{ip} is the address of no client"),
        }
    }
}

/// The header's first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    content: Content,
    /// How many bytes follow.
    rest: usize,
}

/// What follows, as far as it counts here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Ipv4,
    Ipv6,
    /// The connection is the proxy's own, or the client has no internet address.
    NoClient,
}

impl Head {
    fn decode(bytes: [u8; HEAD_LEN]) -> Result<Self, ProxyHeaderError> {
        let [signature @ .., version, family, high, low] = bytes;
        if signature != SIGNATURE {
            return Err(match signature.starts_with(b"PROXY ") {
                true => ProxyHeaderError::Text,
                false => ProxyHeaderError::Signature,
            });
        }
        let (version, command) = (version >> 4, version & 0xf);
        if version != 2 {
            return Err(ProxyHeaderError::Version(version));
        }
        let rest = usize::from(u16::from_be_bytes([high, low]));
        if HEAD_LEN + rest > MAX_LEN {
            return Err(ProxyHeaderError::TooLong(HEAD_LEN + rest));
        }
        let (content, least) = match (command, family) {
            // What else it says is to be ignored.
            (0, _) => (Content::NoClient, 0),
            (1, 0x11) => (Content::Ipv4, IPV4_LEN),
            (1, 0x21) => (Content::Ipv6, IPV6_LEN),
            // Valid combinations that are of no use here are to be taken as "unspecified": datagrams of both
            // internet families, and Unix sockets.
            (1, 0x00) => (Content::NoClient, 0),
            (1, 0x12) => (Content::NoClient, IPV4_LEN),
            (1, 0x22) => (Content::NoClient, IPV6_LEN),
            (1, 0x31 | 0x32) => (Content::NoClient, UNIX_LEN),
            (1, family) => return Err(ProxyHeaderError::Family(family)),
            (command, _) => return Err(ProxyHeaderError::Command(command)),
        };
        if rest < least {
            return Err(ProxyHeaderError::TooShort(HEAD_LEN + rest));
        }
        Ok(Head { content, rest })
    }

    /// The client's address, out of what follows.
    fn client(self, rest: &[u8]) -> Result<Option<SocketAddr>, ProxyHeaderError> {
        let short = || ProxyHeaderError::TooShort(HEAD_LEN + rest.len());
        let port = |at: usize| {
            let bytes = rest.get(at..).and_then(<[u8]>::first_chunk::<2>).ok_or_else(short)?;
            Ok(u16::from_be_bytes(*bytes))
        };
        let (ip, port) = match self.content {
            Content::NoClient => return Ok(None),
            Content::Ipv4 => (Ipv4Addr::from(*rest.first_chunk::<4>().ok_or_else(short)?).into(), port(8)?),
            Content::Ipv6 => {
                let ip = Ipv6Addr::from(*rest.first_chunk::<16>().ok_or_else(short)?);
                (ip.to_canonical(), port(32)?)
            }
        };
        match ip {
            ip if ip.is_unspecified() || ip.is_multicast() => Err(ProxyHeaderError::Source(ip)),
            ip => Ok(Some(SocketAddr::new(ip, port))),
        }
    }
}

/// Reads the header with which a connection begins. Returns the client's address; `None`: the socket's own
/// counts.
pub(crate) fn read(stream: &mut impl Read) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    let mut head = [0; HEAD_LEN];
    stream.read_exact(&mut head).map_err(ProxyHeaderError::Io)?;
    let head = Head::decode(head)?;
    let mut rest = [0; MAX_LEN - HEAD_LEN];
    let rest = rest.get_mut(..head.rest).ok_or(ProxyHeaderError::TooLong(HEAD_LEN + head.rest))?;
    stream.read_exact(rest).map_err(ProxyHeaderError::Io)?;
    head.client(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let len = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &len, rest].concat()
    }

    /// Returns the result of reading these bytes, and the bytes that are left.
    fn read_of(mut bytes: &[u8]) -> (Result<Option<SocketAddr>, String>, usize) {
        let read = read(&mut bytes).map_err(|error| error.to_string());
        (read, bytes.len())
    }

    const V4: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0xdc, 0x04, 0x0f, 0xa0];

    fn v6(source: &str) -> Vec<u8> {
        let ip = |ip: &str| ip.parse::<Ipv6Addr>().unwrap().octets();
        [&ip(source)[..], &ip("2001:db8::1"), &[0xdc, 0x04, 0x0f, 0xa0]].concat()
    }

    #[test]
    fn golden_bytes() {
        // As haproxy sends it, with `send-proxy-v2` and a TLV of four bytes.
        let golden = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x21\x11\x00\x13\
            \xc0\x00\x02\x07\x0a\x00\x00\x01\xdc\x04\x0f\xa0\x04\x00\x04\x00\x00\x00\x00behind";
        assert_eq!(read_of(golden), (Ok(Some("192.0.2.7:56324".parse().unwrap())), 6));
    }

    #[test]
    fn the_clients_address_is_read_and_no_byte_more() {
        let tlvs = [4, 0, 200, 0].repeat(50);
        for (command, family, addresses, client) in [
            (0x21, 0x11, &V4[..], Some("192.0.2.7:56324")),
            (0x21, 0x21, &v6("2001:db8::7"), Some("[2001:db8::7]:56324")),
            (0x21, 0x21, &v6("::ffff:192.0.2.7"), Some("192.0.2.7:56324")),
            // Valid, and of no internet client.
            (0x21, 0x00, &[], None),
            (0x21, 0x12, &V4, None),
            (0x21, 0x22, &v6("2001:db8::7"), None),
            (0x21, 0x31, &[b'a'; 216], None),
            (0x21, 0x32, &[b'a'; 216], None),
            // LOCAL, whatever it says.
            (0x20, 0x00, &[], None),
            (0x20, 0x11, &V4, None),
            (0x20, 0xff, &[1], None),
        ] {
            for tlvs in [&[][..], &tlvs] {
                let bytes = header(command, family, &[addresses, tlvs].concat());
                let client = client.map(|addr| addr.parse().unwrap());
                assert_eq!(read_of(&[&bytes[..], b"unbroken"].concat()), (Ok(client), 8), "{bytes:?}");
                // Every cut is an end, and never a client.
                for cut in 0..bytes.len() {
                    let error = read(&mut &bytes[..cut]).unwrap_err();
                    let is_end = |error: &io::Error| error.kind() == io::ErrorKind::UnexpectedEof;
                    assert!(matches!(&error, ProxyHeaderError::Io(error) if is_end(error)), "{cut}: {error}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_header_is_refused_for_a_reason_that_is_named() {
        let mut spoiled = header(0x21, 0x11, &V4);
        spoiled[11] = b'\r';
        for (bytes, said) in [
            (b"unbroken\x01\x01\x01\x00and more".to_vec(), "there is none"),
            (spoiled, "there is none"),
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 56324 4000\r\n".to_vec(), "version 1"),
            (header(0x11, 0x11, &V4), "version 1,"),
            (header(0x31, 0x11, &V4), "version 3,"),
            (header(0x22, 0x11, &V4), "unknown command 2"),
            (header(0x21, 0x01, &V4), "0x01"),
            (header(0x21, 0x10, &V4), "0x10"),
            (header(0x21, 0x13, &V4), "0x13"),
            (header(0x21, 0x41, &[0; 216]), "0x41"),
            (header(0x21, 0x11, &V4[..11]), "27 bytes hold no addresses"),
            (header(0x21, 0x21, &[1; 35]), "51 bytes hold no addresses"),
            (header(0x21, 0x31, &[1; 215]), "231 bytes hold no addresses"),
            (header(0x21, 0x11, &[0; 12]), "0.0.0.0"),
            (header(0x21, 0x11, &[224; 12]), "224.224.224.224"),
            (header(0x21, 0x21, &v6("::")), "::"),
            (header(0x21, 0x21, &v6("::ffff:0.0.0.0")), "0.0.0.0"),
            (header(0x21, 0x11, &[1; MAX_LEN - HEAD_LEN + 1]), "537 bytes, at most 536"),
            (header(0x20, 0x00, &[1; u16::MAX as usize]), "65551 bytes, at most 536"),
        ] {
            let (read, _) = read_of(&bytes);
            let error = read.unwrap_err();
            assert!(error.contains(said), "{error}, expected {said}");
        }
        let longest = header(0x21, 0x11, &[1; MAX_LEN - HEAD_LEN]);
        assert_eq!(read_of(&longest), (Ok(Some("1.1.1.1:257".parse().unwrap())), 0));
    }
}
