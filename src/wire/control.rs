//! The bodies of the control frames, each with its encoding and decoding beside it.

use serde::{Deserialize, Serialize};

use super::frame::{Kind, WireError, encode_header};
use crate::codec::{self, CodecError};
use crate::lane::LaneId;

/// The most lanes a link may have: far beyond any need, and few enough that HELLO and ACK fit their
/// bounds with all of them.
pub(crate) const MAX_LANES: usize = 64;
/// The longest application name, in bytes.
pub(crate) const MAX_NAME: usize = 64;

macro_rules! body {
    ($name:ident, $kind:expr $(, $field:ident <= $max:expr)*) => {
        impl $name {
            /// Appends the whole frame, header included.
            pub(crate) fn encode(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
                let body = codec::encode_limited::<{ $kind.max_body() }, _>(self)?;
                out.extend_from_slice(&encode_header($kind, body.len()));
                out.extend_from_slice(&body);
                Ok(())
            }

            pub(crate) fn decode(body: &[u8]) -> Result<Self, WireError> {
                let body: Self = codec::decode_limited::<{ $kind.max_body() }, _>(body)?;
                $(bounded(stringify!($field), body.$field.len(), $max)?;)*
                Ok(body)
            }
        }
    };
}

fn bounded(field: &'static str, len: usize, max: usize) -> Result<(), WireError> {
    if len > max { Err(WireError::FieldTooLong { field, len, max }) } else { Ok(()) }
}

/// First frame of each side: what it remembers and what it accepts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// The sender's memory of this conversation: drawn at random when that memory began.
    pub(crate) memory: u64,
    /// The memory of the other side that what is said below is about; `None` if the sender knows of
    /// none, or if nothing was sent or received in that session yet.
    pub(crate) paired: Option<u64>,
    /// The dialer's name for this connection, drawn at random; 0 from the listener.
    pub(crate) token: u64,
    /// Which of the link's connections this one is, from 0; the dialer's word counts.
    pub(crate) slot: u8,
    /// The dialer wants this connection in the place of that one.
    pub(crate) replaces: Option<u64>,
    /// What the sender accepts, lane by lane. At most 64.
    pub(crate) lanes: Vec<HelloLane>,
    /// The application's name, at most 64 bytes; for logs only.
    pub(crate) name: String,
}
body!(Hello, Kind::Hello, lanes <= MAX_LANES, name <= MAX_NAME);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct HelloLane {
    pub(crate) lane: LaneId,
    /// The largest message that is accepted, in bytes.
    pub(crate) max_message: u32,
    /// How many messages may be begun that are not taken.
    pub(crate) max_untaken: u32,
    /// What the sender has of this lane's stream; 0 when it has no memory.
    pub(crate) state: LaneAck,
}

/// What the receiver of a lane says of it. Each number only ever grows within a session, so of two
/// states one is the newer in all three numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LaneAck {
    /// Every byte of the stream up to here is in the receiver's memory.
    pub(crate) received: u64,
    /// The application has taken everything up to here.
    pub(crate) taken: u64,
    /// The sender may send up to here.
    pub(crate) limit: u64,
}

/// Acknowledgement and credit, for the lanes where they changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ack {
    pub(crate) lanes: Vec<(LaneId, LaneAck)>,
}
body!(Ack, Kind::Ack, lanes <= MAX_LANES);

/// Why a connection is drained. What the other side does about it is in the second column.
///
/// | reason | the other side |
/// |---|---|
/// | Shutdown, Retired | dials again after the backoff, if it wants this peer |
/// | Replaced, Duplicate | goes on with the connection that stays |
/// | Removed | does not dial this peer until the application asks for it |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GoawayReason {
    /// The node is going down.
    Shutdown,
    /// A newer connection took this one's place.
    Replaced,
    /// Both sides dialled at once and the other connection stays.
    Duplicate,
    /// The application removed this peer.
    Removed,
    /// The node keeps links to better peers.
    Retired,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Goaway {
    pub(crate) reason: GoawayReason,
    /// What the sender has of each lane, over all connections: nobody need wait for it elsewhere.
    pub(crate) lanes: Vec<(LaneId, LaneAck)>,
}
body!(Goaway, Kind::Goaway, lanes <= MAX_LANES);

/// The requester no longer waits for the reply to this request.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cancel {
    pub(crate) request: u64,
}
body!(Cancel, Kind::Cancel);

pub(crate) fn encode_ping(kind: Kind, nonce: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&encode_header(kind, 8));
    out.extend_from_slice(&nonce.to_le_bytes());
}
