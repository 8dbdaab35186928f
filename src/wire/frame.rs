//! Frames as values.

use bytes::Bytes;

use super::control::{Ack, Cancel, Goaway, Hello, Refused, decode_probe};
use super::header::{CHUNK_HEAD_LEN, Kind, WireError, decode_chunk_head};
use crate::lane::LaneId;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Frame {
    Hello(Hello),
    Chunk {
        lane: LaneId,
        flags: u8,
        offset: u64,
        data: Bytes,
    },
    Ack(Ack),
    /// `padding`: so many bytes of it; the answer is to be as long.
    Ping {
        nonce: u64,
        padding: usize,
    },
    /// `clock`: the time of the sender's clock, in milliseconds.
    Pong {
        nonce: u64,
        clock: Option<u64>,
    },
    Goaway(Goaway),
    Cancel(Cancel),
    Refused(Refused),
    Extension,
}

#[cfg(test)]
impl Frame {
    /// A PING without padding.
    pub(crate) fn ping(nonce: u64) -> Frame {
        Frame::Ping { nonce, padding: 0 }
    }

    /// A PONG without a time.
    pub(crate) fn pong(nonce: u64) -> Frame {
        Frame::Pong { nonce, clock: None }
    }
}

/// Decodes the body of a frame that is wholly in memory. `body` has the announced length. The data of a chunk
/// is copied, nothing else.
pub(crate) fn decode_body(kind: Kind, body: &[u8]) -> Result<Frame, WireError> {
    let short = || WireError::ShortBody { kind, len: body.len() };
    Ok(match kind {
        Kind::Chunk => {
            let (head, data) = body.split_first_chunk::<CHUNK_HEAD_LEN>().ok_or_else(short)?;
            let (lane, flags, offset) = decode_chunk_head(*head)?;
            if data.is_empty() {
                return Err(short());
            }
            Frame::Chunk { lane, flags, offset, data: Bytes::copy_from_slice(data) }
        }
        Kind::Ping => {
            let probe = decode_probe(kind, body)?;
            Frame::Ping { nonce: probe.nonce, padding: probe.padding }
        }
        Kind::Pong => {
            let probe = decode_probe(kind, body)?;
            Frame::Pong { nonce: probe.nonce, clock: probe.clock }
        }
        Kind::Hello => Frame::Hello(Hello::decode(body)?),
        Kind::Ack => Frame::Ack(Ack::decode(body)?),
        Kind::Goaway => Frame::Goaway(Goaway::decode(body)?),
        Kind::Cancel => Frame::Cancel(Cancel::decode(body)?),
        Kind::Refused => Frame::Refused(Refused::decode(body)?),
    })
}
