//! The content of messages: a header that says which message it is, and a pattern that follows from
//! it, so that the receiver can tell whether every single byte is the right one.

use std::time::{SystemTime, UNIX_EPOCH};

use unbroken::{BULK, LaneId, NORMAL, URGENT};

/// The purpose of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// To all, answered by a vote of each.
    Proposal,
    /// To all.
    Vote,
    /// To one.
    Transaction,
    /// To one.
    Block,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Proposal, Kind::Vote, Kind::Transaction, Kind::Block];

    pub(crate) fn lane(self) -> LaneId {
        match self {
            Kind::Proposal | Kind::Vote => URGENT,
            Kind::Transaction => NORMAL,
            Kind::Block => BULK,
        }
    }

    fn sizes(self) -> std::ops::Range<usize> {
        match self {
            Kind::Vote => 64..256,
            Kind::Proposal => 256..8 * 1024,
            Kind::Transaction => 64..4 * 1024,
            Kind::Block => 16 * 1024..1024 * 1024,
        }
    }
}

/// Which message it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    /// The sending node, and which life of it, both counted from 0.
    pub(crate) from: usize,
    pub(crate) life: u32,
    /// Counted from 0 in each life and lane; for messages to one peer also by peer.
    pub(crate) seq: u64,
    /// [`now_us`] when it was handed to the library.
    pub(crate) sent_us: u64,
}

const HEADER: usize = 40;

/// The wall clock in microseconds: what parent and children have in common.
pub(crate) fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_micros() as u64)
}

/// The message's bytes. `to` is 0 for messages to all.
pub(crate) fn encode(header: Header, to: usize, seed: u64) -> Vec<u8> {
    let mut pattern = pattern_of(&header, to, seed);
    let len = pattern.usize(header.kind.sizes());
    let mut bytes = Vec::with_capacity(len);
    bytes.extend_from_slice(b"UBC");
    bytes.push(Kind::ALL.iter().position(|kind| *kind == header.kind).unwrap_or(0) as u8);
    bytes.extend_from_slice(&(header.from as u32).to_le_bytes());
    bytes.extend_from_slice(&header.life.to_le_bytes());
    bytes.extend_from_slice(&(len as u32).to_le_bytes());
    bytes.extend_from_slice(&header.seq.to_le_bytes());
    bytes.extend_from_slice(&header.sent_us.to_le_bytes());
    let sum = checksum(&bytes, seed);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes.resize(len, 0);
    pattern.fill(bytes.get_mut(HEADER..).unwrap_or_default());
    bytes
}

/// Which message this is, if every byte of it is right.
pub(crate) fn verify(bytes: &[u8], to: usize, seed: u64) -> Result<Header, String> {
    let header = decode(bytes, seed).ok_or_else(|| format!("a broken header in {} bytes", bytes.len()))?;
    let to = if header.kind.lane() == URGENT { 0 } else { to };
    let mut pattern = pattern_of(&header, to, seed);
    let len = pattern.usize(header.kind.sizes());
    if bytes.len() != len {
        return Err(format!("{header:?}: {} bytes instead of {len}", bytes.len()));
    }
    let mut expected = vec![0; len - HEADER];
    pattern.fill(&mut expected);
    let found = bytes.get(HEADER..).unwrap_or_default();
    if found == expected {
        return Ok(header);
    }
    let at = found.iter().zip(&expected).position(|(found, expected)| found != expected).unwrap_or(0);
    Err(format!("{header:?}: byte {} of {len} is wrong", at + HEADER))
}

fn decode(bytes: &[u8], seed: u64) -> Option<Header> {
    let (signed, rest) = bytes.split_at_checked(HEADER - 8)?;
    let (sum, _) = rest.split_first_chunk()?;
    if u64::from_le_bytes(*sum) != checksum(signed, seed) {
        return None;
    }
    let (magic, rest) = signed.split_first_chunk::<3>()?;
    let (kind, rest) = rest.split_first()?;
    let (from, rest) = rest.split_first_chunk()?;
    let (life, rest) = rest.split_first_chunk()?;
    let (len, rest) = rest.split_first_chunk()?;
    let (seq, rest) = rest.split_first_chunk()?;
    let (sent, _) = rest.split_first_chunk()?;
    (magic == b"UBC" && u32::from_le_bytes(*len) as usize == bytes.len()).then_some(())?;
    Some(Header {
        kind: *Kind::ALL.get(usize::from(*kind))?,
        from: u32::from_le_bytes(*from) as usize,
        life: u32::from_le_bytes(*life),
        seq: u64::from_le_bytes(*seq),
        sent_us: u64::from_le_bytes(*sent),
    })
}

/// Returns the length first, then the bytes.
fn pattern_of(header: &Header, to: usize, seed: u64) -> fastrand::Rng {
    let words =
        [u64::from(header.kind.lane().0), header.from as u64, to as u64, u64::from(header.life), header.seq];
    fastrand::Rng::with_seed(words.into_iter().fold(seed, mix))
}

/// FNV-1a, which is enough against accidents.
fn checksum(bytes: &[u8], seed: u64) -> u64 {
    bytes.iter().fold(mix(seed, 0xcbf2_9ce4_8422_2325), |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// One step of a hash: splitmix64's finaliser.
pub(crate) fn mix(a: u64, b: u64) -> u64 {
    let mut z = a.rotate_left(23) ^ b.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
