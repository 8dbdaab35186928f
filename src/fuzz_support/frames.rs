//! Frames out of any bytes, however they arrive.

use std::io::{self, Read};

use super::script::Script;
use crate::lane::LaneId;
use crate::wire::control::{encode_ping, encode_pong};
use crate::wire::frame::Frame;
use crate::wire::header::{self, Announced, HEADER_LEN, MAX_CHUNK};
use crate::wire::reader::{FrameReader, ReadError};

/// One buffer and one chunk are all that a reader may hold.
const MOST_MEMORY: usize = 64 * 1024 + MAX_CHUNK;

/// How the bytes are cut does not matter; what was decoded, encoded again, are the bytes that came, but for
/// what a later version would have added; and memory stays within its bound.
pub fn frames(data: &[u8]) {
    let mut script = Script::new(data);
    let seed = u64::from(script.byte());
    let bytes = stream(&mut script);
    let (whole, end) = decode(bytes.as_slice());
    let cuts = Cut { bytes: &bytes, rng: fastrand::Rng::with_seed(seed) };
    let (cut, cut_end) = decode(cuts);
    assert!(whole == cut, "it matters how the stream is cut");
    assert_eq!(end, cut_end, "it matters how the stream is cut");
    let mut rest = bytes.as_slice();
    for frame in &whole {
        let header = rest.first_chunk::<HEADER_LEN>().copied().unwrap_or_default();
        let len = HEADER_LEN + header::decode_header(header).map_or(0, Announced::body_len);
        let (came, behind) = rest.split_at_checked(len).unwrap_or_default();
        let mut again = Vec::new();
        encode(frame, came, &mut again);
        assert_said(&again, came);
        assert!(decode(again.as_slice()).0 == [frame.clone()], "{frame:?} is another one when it is sent on");
        rest = behind;
    }
    assert!(end != "Eof" || rest.is_empty(), "{} bytes were never looked at", rest.len());
}

/// Bytes as they are, or frames that are well-formed but for what they say, of any size.
fn stream(script: &mut Script<'_>) -> Vec<u8> {
    if !script.flag() {
        return script.rest().to_vec();
    }
    let mut bytes = Vec::new();
    while !script.is_over() && bytes.len() < 256 * 1024 {
        match script.byte() % 4 {
            0 => {
                let count = script.small();
                bytes.extend_from_slice(script.bytes(count));
            }
            1 => encode_pong(script.number(), 0, Some(script.number()), &mut bytes),
            _ => {
                let (lane, flags) = (LaneId(script.byte()), script.byte() & 1);
                let len = usize::from(script.word()) << (script.byte() / 64);
                let len = len.clamp(1, MAX_CHUNK);
                bytes.extend_from_slice(&header::encode_chunk_head(lane, flags, script.near(0), len));
                bytes.resize(bytes.len() + len, lane.0);
            }
        }
    }
    bytes
}

fn decode(source: impl Read) -> (Vec<Frame>, String) {
    let mut reader = FrameReader::new(source);
    let mut frames = Vec::new();
    loop {
        let end = match reader.next_buffered() {
            Ok(Some(frame)) => {
                frames.push(frame);
                continue;
            }
            Ok(None) => reader.fill().err(),
            Err(error) => Some(error),
        };
        assert!(reader.memory() <= MOST_MEMORY, "{} bytes are held", reader.memory());
        match end {
            None => {}
            Some(ReadError::Torn) => assert!(reader.inside_frame(), "torn between two frames"),
            Some(ReadError::Eof) => assert!(!reader.inside_frame(), "the end, inside a frame"),
            Some(_) => {}
        }
        if let Some(end) = end {
            return (frames, format!("{end:?}"));
        }
    }
}

/// A frame that was encoded again is what came, which may begin more, or what of it this version knows: then
/// it is shorter.
pub(super) fn assert_said(again: &[u8], came: &[u8]) {
    let len = |bytes: &[u8]| {
        let header = bytes.first_chunk::<HEADER_LEN>().copied().unwrap_or_default();
        HEADER_LEN + header::decode_header(header).map_or(0, Announced::body_len)
    };
    let came = came.get(..len(came)).unwrap_or_default();
    assert!(again.first() == came.first() && again.len() <= came.len(), "more than was said");
    assert!(again.len() < came.len() || again == came, "something else than was said");
}

/// Appends the frame as it is sent. For a frame that this version does not know it appends the bytes that
/// came.
fn encode(frame: &Frame, came: &[u8], out: &mut Vec<u8>) {
    let mut encoded = Ok(());
    match frame {
        Frame::Hello(hello) => encoded = hello.encode(out),
        Frame::Ack(ack) => encoded = ack.encode(out),
        Frame::Goaway(goaway) => encoded = goaway.encode(out),
        Frame::Cancel(cancel) => encoded = cancel.encode(out),
        Frame::Refused(refused) => encoded = refused.encode(out),
        Frame::Ping { nonce, padding } => encode_ping(*nonce, *padding, out),
        Frame::Pong { nonce, clock } => encode_pong(*nonce, 0, *clock, out),
        Frame::Chunk { lane, flags, offset, data } => {
            out.extend_from_slice(&header::encode_chunk_head(*lane, *flags, *offset, data.len()));
            out.extend_from_slice(data);
        }
        Frame::Extension => {
            let header = came.first_chunk::<HEADER_LEN>().copied().unwrap_or_default();
            let announced = header::decode_header(header);
            assert!(matches!(announced, Ok(Announced::Extension(_))), "skipped: {announced:?}");
            out.extend_from_slice(came);
        }
    }
    assert!(encoded.is_ok(), "{frame:?} cannot be encoded: {encoded:?}");
}

/// A socket that gives a few bytes at a time, and is interrupted now and then.
pub(super) struct Cut<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) rng: fastrand::Rng,
}

impl Read for Cut<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let most = match self.rng.u8(..8) {
            0 => return Err(io::ErrorKind::Interrupted.into()),
            1..=3 => 3,
            4 | 5 => 300,
            _ => usize::MAX,
        };
        let count = self.bytes.len().min(to.len()).min(most);
        let (taken, rest) = self.bytes.split_at(count);
        to.iter_mut().zip(taken).for_each(|(to, from)| *to = *from);
        self.bytes = rest;
        Ok(count)
    }
}
