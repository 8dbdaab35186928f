//! The messages of the link: numbered and checksummed, and the check of those that arrive.

use std::collections::HashMap;

use unbroken::{BULK, Incarnation, LaneId, Message, PeerId, URGENT};

/// The two kinds of messages, each on a lane of its own and with numbers of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Vote,
    Bulk,
}

impl Kind {
    pub(crate) const ALL: [Kind; 2] = [Kind::Vote, Kind::Bulk];

    pub(crate) fn lane(self) -> LaneId {
        match self {
            Kind::Vote => URGENT,
            Kind::Bulk => BULK,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Vote => "vote",
            Kind::Bulk => "bulk",
        }
    }
}

/// A tag, the number, the checksum.
pub(crate) const OVERHEAD: usize = 4 + 8 + 8;
/// The size of a vote, signature and all, in a typical consensus protocol.
pub(crate) const VOTE_SIZE: usize = 128;

const VOTE_TAG: [u8; 4] = *b"vote";
const BULK_TAG: [u8; 4] = *b"bulk";

/// A message of `size` bytes: tag, number, a pattern that depends on the number, checksum.
pub(crate) fn encode(kind: Kind, seq: u64, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size.max(OVERHEAD));
    bytes.extend_from_slice(if kind == Kind::Vote { &VOTE_TAG } else { &BULK_TAG });
    bytes.extend_from_slice(&seq.to_le_bytes());
    let mut state = seq;
    while bytes.len() + 8 < size {
        state = mix(state);
        let left = size - 8 - bytes.len();
        bytes.extend(state.to_le_bytes().into_iter().take(left));
    }
    let sum = checksum(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

/// The kind and number of a message. `None`: it is damaged, or not ours at all.
pub(crate) fn decode(bytes: &[u8]) -> Option<(Kind, u64)> {
    let (content, sum) = bytes.split_last_chunk::<8>()?;
    if checksum(content) != u64::from_le_bytes(*sum) {
        return None;
    }
    let (tag, rest) = content.split_first_chunk::<4>()?;
    let kind = match *tag {
        VOTE_TAG => Kind::Vote,
        BULK_TAG => Kind::Bulk,
        _ => return None,
    };
    Some((kind, u64::from_le_bytes(*rest.first_chunk::<8>()?)))
}

/// Finds every changed bit, exchanged word and changed length; no defence against malice.
fn checksum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut state = mix(bytes.len() as u64);
    for word in words {
        state = mix(state ^ u64::from_le_bytes(*word));
    }
    rest.iter().fold(state, |state, byte| mix(state ^ u64::from(*byte)))
}

/// One step of splitmix64: a bijection, so that no difference is ever lost.
fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The meaning of a message's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sequence {
    /// The first that was heard from this life of the peer: there is nothing to compare it with.
    First,
    Next,
    /// So many before it are missing.
    Gap {
        missing: u64,
    },
    /// It was here before, or comes out of order.
    Repeat {
        expected: u64,
    },
}

/// Returns the fault of a message whose content does not belong on its lane.
pub(crate) const DAMAGED: &str = "its checksum is wrong, or it comes from another application";

/// Checks numbers per peer, per life of the peer, and per kind.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    /// Only the latest life of each peer: messages of an earlier one come before those of the next.
    expected: HashMap<(PeerId, Kind), (Incarnation, u64)>,
}

impl Checker {
    pub(crate) fn check(&mut self, message: &mut Message) -> Result<(Kind, u64, Sequence), &'static str> {
        let (peer, incarnation, lane) = (message.peer(), message.incarnation(), message.lane());
        let (kind, seq) = decode(message.bytes()).filter(|(kind, _)| kind.lane() == lane).ok_or(DAMAGED)?;
        Ok((kind, seq, self.note(peer, incarnation, kind, seq)))
    }

    fn note(&mut self, peer: PeerId, incarnation: Incarnation, kind: Kind, seq: u64) -> Sequence {
        let expected = match self.expected.insert((peer, kind), (incarnation, seq.wrapping_add(1))) {
            Some((life, expected)) if life == incarnation => expected,
            _ => return Sequence::First,
        };
        match seq.cmp(&expected) {
            std::cmp::Ordering::Equal => Sequence::Next,
            std::cmp::Ordering::Greater => Sequence::Gap { missing: seq - expected },
            std::cmp::Ordering::Less => {
                // The number that is expected next has not changed.
                self.expected.insert((peer, kind), (incarnation, expected));
                Sequence::Repeat { expected }
            }
        }
    }
}
