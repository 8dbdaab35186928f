//! Frame headers: kinds, lengths and their bounds, and the head of a chunk.

use std::fmt;

use crate::lane::LaneId;

pub(crate) const HEADER_LEN: usize = 4;
/// Lane, flags and offset, before a chunk's data.
pub(crate) const CHUNK_HEAD_LEN: usize = 10;
/// The most stream bytes in one chunk. The sender chooses the size; this is what must be accepted.
pub(crate) const MAX_CHUNK: usize = 1024 * 1024;
const MAX_HINT: usize = 1024;

/// Flags of a chunk that a receiver must know to understand it. The others it may ignore.
const MUST_KNOW: u8 = 0x0F;

/// Set on a chunk when somebody waits for a receipt in it: acknowledge as soon as it is taken.
pub(crate) const ACK_NOW: u8 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Hello = 1,
    Chunk = 2,
    Ack = 3,
    Ping = 4,
    Pong = 5,
    Goaway = 6,
    Cancel = 7,
    Refused = 8,
}

impl Kind {
    pub(crate) const ALL: [Kind; 8] = [
        Kind::Hello,
        Kind::Chunk,
        Kind::Ack,
        Kind::Ping,
        Kind::Pong,
        Kind::Goaway,
        Kind::Cancel,
        Kind::Refused,
    ];

    fn from_byte(byte: u8) -> Option<Self> {
        Kind::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }

    pub(crate) const fn max_body(self) -> usize {
        match self {
            Kind::Hello => 8 * 1024,
            Kind::Chunk => CHUNK_HEAD_LEN + MAX_CHUNK,
            // Room for a full segment, also of a network with jumbo frames, and for all lanes.
            Kind::Ack | Kind::Ping | Kind::Pong | Kind::Goaway => 16 * 1024,
            Kind::Cancel | Kind::Refused => 1024,
        }
    }
}

/// The announcement of a frame header. Its length is already checked against the kind's bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Announced {
    Frame(Kind, usize),
    /// A kind that this version does not know but may skip.
    Extension(usize),
}

impl Announced {
    pub(crate) fn body_len(self) -> usize {
        match self {
            Announced::Frame(_, len) | Announced::Extension(len) => len,
        }
    }
}

/// The bytes are not a frame.
#[derive(Debug)]
pub(crate) enum WireError {
    UnknownKind(u8),
    TooLong {
        kind: u8,
        len: usize,
        max: usize,
    },
    ShortBody {
        kind: Kind,
        len: usize,
    },
    BadBody {
        kind: Kind,
        field: &'static str,
        what: &'static str,
    },
    /// A list or text in the body is longer than its bound.
    FieldTooLong {
        field: &'static str,
        len: usize,
        max: usize,
    },
    BadFlags(u8),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WireError::UnknownKind(kind) => write!(f, "unknown frame kind {kind}"),
            WireError::TooLong { kind, len, max } => {
                write!(f, "frame of kind {kind} announces {len} bytes, at most {max} are allowed")
            }
            WireError::ShortBody { kind, len } => write!(f, "{kind:?} frame with only {len} bytes"),
            WireError::BadBody { kind, field, what } => write!(f, "{kind:?} frame whose {field} {what}"),
            WireError::FieldTooLong { field, len, max } => {
                write!(f, "the field {field} is {len} long, at most {max} is allowed")
            }
            WireError::BadFlags(flags) => write!(f, "chunk with flags that are not known: {flags:#04x}"),
        }
    }
}

pub(crate) fn encode_header(kind: Kind, body_len: usize) -> [u8; HEADER_LEN] {
    debug_assert!(body_len <= kind.max_body());
    let [a, b, c, _] = (body_len as u32).to_le_bytes();
    [kind as u8, a, b, c]
}

pub(crate) fn decode_header([kind, a, b, c]: [u8; HEADER_LEN]) -> Result<Announced, WireError> {
    let len = u32::from_le_bytes([a, b, c, 0]) as usize;
    let (announced, max) = match Kind::from_byte(kind) {
        Some(known) => (Announced::Frame(known, len), known.max_body()),
        None if kind >= 128 => (Announced::Extension(len), MAX_HINT),
        None => return Err(WireError::UnknownKind(kind)),
    };
    if len > max { Err(WireError::TooLong { kind, len, max }) } else { Ok(announced) }
}

/// The bytes of a chunk frame before its data.
pub(crate) fn encode_chunk_head(
    lane: LaneId,
    flags: u8,
    offset: u64,
    data_len: usize,
) -> [u8; HEADER_LEN + CHUNK_HEAD_LEN] {
    let [h0, h1, h2, h3] = encode_header(Kind::Chunk, CHUNK_HEAD_LEN + data_len);
    let [o0, o1, o2, o3, o4, o5, o6, o7] = offset.to_le_bytes();
    [h0, h1, h2, h3, lane.0, flags, o0, o1, o2, o3, o4, o5, o6, o7]
}

/// The counterpart of [`encode_chunk_head`]: lane, flags, offset.
pub(crate) fn decode_chunk_head(head: [u8; CHUNK_HEAD_LEN]) -> Result<(LaneId, u8, u64), WireError> {
    let [lane, flags, offset @ ..] = head;
    if flags & MUST_KNOW & !ACK_NOW != 0 {
        return Err(WireError::BadFlags(flags));
    }
    Ok((LaneId(lane), flags, u64::from_le_bytes(offset)))
}
