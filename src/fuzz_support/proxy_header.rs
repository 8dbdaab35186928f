//! The header of a load balancer, out of any bytes.

use super::frames::Cut;
use crate::wire::proxy_header::{MAX_LEN, SIGNATURE, read};

/// How the bytes are cut does not matter; no more is read than the header and its bound; and the address is
/// one of a client.
pub fn proxy_header(data: &[u8]) {
    let (seed, bytes) = data.split_first().map_or((0, data), |(seed, bytes)| (*seed, bytes));
    let mut rest = bytes;
    let whole = read(&mut rest).map_err(|error| error.to_string());
    let mut cut = Cut { bytes, rng: fastrand::Rng::with_seed(seed.into()) };
    assert_eq!(read(&mut cut).map_err(|error| error.to_string()), whole, "it matters how it is cut");
    let taken = bytes.len() - rest.len();
    assert!(taken <= MAX_LEN, "{taken} bytes were read");
    let Ok(client) = whole else { return };
    let length = bytes.get(14..).and_then(<[u8]>::first_chunk::<2>).map_or(0, |len| u16::from_be_bytes(*len));
    assert!(bytes.starts_with(&SIGNATURE) && taken == 16 + usize::from(length), "{taken} bytes were read");
    assert!(cut.bytes == rest, "{} bytes are left, {} when it is cut", rest.len(), cut.bytes.len());
    let ip = client.map(|addr| addr.ip());
    assert!(ip.is_none_or(|ip| !ip.is_unspecified() && !ip.is_multicast() && ip == ip.to_canonical()));
}
