//! Exhaustive tests where the input is small, random ones where it is long.

mod batch;
mod frames;
mod golden;
mod reader;
mod stream;

use std::collections::VecDeque;
use std::io::{self, Read};

use bytes::Bytes;
use proptest::prelude::*;

use super::control::{
    Ack, Cancel, Goaway, GoawayReason, Hello, HelloLane, LaneAck, MAX_PADDING, Refused, StaleRange,
    encode_ping, encode_pong,
};
use super::frame::{self, Frame};
use super::header::{self, Announced, CHUNK_HEAD_LEN, HEADER_LEN, Kind, encode_chunk_head};
use super::reader::{FrameReader, ReadError};
use super::refused::RefusedReason;
use crate::lane::LaneId;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// The frame as it goes over the wire.
fn encode(frame: &Frame) -> Vec<u8> {
    let mut out = Vec::new();
    match frame {
        Frame::Hello(hello) => hello.encode(&mut out).unwrap(),
        Frame::Ack(ack) => ack.encode(&mut out).unwrap(),
        Frame::Goaway(goaway) => goaway.encode(&mut out).unwrap(),
        Frame::Cancel(cancel) => cancel.encode(&mut out).unwrap(),
        Frame::Refused(refused) => refused.encode(&mut out).unwrap(),
        Frame::Ping { nonce, padding } => encode_ping(*nonce, *padding, &mut out),
        Frame::Pong { nonce, clock } => encode_pong(*nonce, 0, *clock, &mut out),
        Frame::Chunk { lane, flags, offset, data } => {
            out.extend_from_slice(&encode_chunk_head(*lane, *flags, *offset, data.len()));
            out.extend_from_slice(data);
        }
        Frame::Extension => out.extend_from_slice(&[200, 3, 0, 0, 1, 2, 3]),
    }
    out
}

fn encode_all(frames: &[Frame]) -> Vec<u8> {
    frames.iter().flat_map(encode).collect()
}

/// Bytes in which no piece looks like another.
fn noise(len: usize) -> Bytes {
    let mut rng = fastrand::Rng::with_seed(len as u64);
    std::iter::repeat_with(|| rng.u8(..)).take(len).collect()
}

fn chunk(lane: u8, flags: u8, offset: u64, len: usize) -> Frame {
    Frame::Chunk { lane: LaneId(lane), flags, offset, data: noise(len) }
}

fn lane_ack(n: u64) -> LaneAck {
    LaneAck { received: n.wrapping_mul(3), taken: n, limit: u64::MAX - n }
}

fn hello(lanes: usize, name: &str) -> Hello {
    let lane = |n: usize| HelloLane {
        lane: LaneId(n as u8),
        max_message: u32::MAX - n as u32,
        max_untaken: n as u32,
        state: lane_ack(n as u64),
    };
    let lanes = (0..lanes).map(lane).collect();
    Hello {
        session_id: 0x0123_4567_89AB_CDEF,
        peer_session_id: None,
        token: 0x77,
        slot: 3,
        replaces: Some(5),
        lanes,
        name: name.into(),
        features: 1 << 63,
        ack_delay_ms: Some(25),
        repeats: None,
        port: Some(4000),
        stale: vec![stale(3), stale(300)],
    }
}

fn stale(n: u64) -> StaleRange {
    StaleRange { lane: LaneId(n as u8), from: n, to: u64::MAX - n }
}

fn ack(lanes: usize) -> Ack {
    let states = (0..lanes).map(|n| (LaneId(n as u8), lane_ack(n as u64)));
    let settled = (0..lanes / 2).map(|n| (LaneId(n as u8), u64::MAX - n as u64));
    Ack { lanes: states.collect(), stale: (0..lanes as u64).map(stale).collect(), settled: settled.collect() }
}

fn refused(reason: RefusedReason) -> Refused {
    Refused { reason, text: "né".into(), wait_secs: Some(0x0403_0201) }
}

/// At least one of every kind, all short.
fn small_frames() -> Vec<Frame> {
    vec![
        Frame::Hello(hello(0, "")),
        Frame::Hello(hello(2, "né")),
        chunk(0, 0, 0, 1),
        chunk(255, header::ACK_NOW, u64::MAX, 20),
        Frame::Ack(ack(0)),
        Frame::Ack(ack(3)),
        Frame::ping(1),
        Frame::pong(u64::MAX),
        Frame::Pong { nonce: 1, clock: Some(u64::MAX) },
        Frame::Goaway(Goaway { reason: GoawayReason::Removed, lanes: ack(2).lanes, stale: vec![stale(7)] }),
        Frame::Cancel(Cancel { request: 77 }),
        Frame::Refused(Refused { reason: RefusedReason::Full, text: String::new(), wait_secs: None }),
        Frame::Refused(refused(RefusedReason::Other(255))),
        Frame::Extension,
    ]
}

fn any_lane_ack() -> impl Strategy<Value = LaneAck> {
    any::<[u64; 3]>().prop_map(|[received, taken, limit]| LaneAck { received, taken, limit })
}

fn any_hello() -> impl Strategy<Value = Frame> {
    let lane = (any::<[u8; 1]>(), any::<[u32; 2]>(), any_lane_ack()).prop_map(
        |([lane], [max_message, max_untaken], state)| HelloLane {
            lane: LaneId(lane),
            max_message,
            max_untaken,
            state,
        },
    );
    let lanes = prop::collection::vec(lane, 0..=64);
    let numbers = any::<[Option<u32>; 2]>();
    let port = any::<Option<u16>>();
    let last = (port, any_stale());
    (any::<[u64; 3]>(), any::<u8>(), any::<[Option<u64>; 2]>(), lanes, "\\PC{0,16}", numbers, last).prop_map(
        |(
            [session_id, token, features],
            slot,
            [peer_session_id, replaces],
            lanes,
            name,
            [ack_delay_ms, repeats],
            (port, stale),
        )| {
            Frame::Hello(Hello {
                session_id,
                peer_session_id,
                token,
                slot,
                replaces,
                lanes,
                name,
                features,
                ack_delay_ms,
                repeats,
                port,
                stale,
            })
        },
    )
}

fn any_stale() -> impl Strategy<Value = Vec<StaleRange>> {
    let range =
        any::<(u8, u64, u64)>().prop_map(|(lane, from, to)| StaleRange { lane: LaneId(lane), from, to });
    prop::collection::vec(range, 0..=100)
}

fn any_frame(max_chunk: usize) -> impl Strategy<Value = Frame> {
    use GoawayReason::{Duplicate, Other, Removed, Replaced, Retired, Shutdown};
    let states = || {
        let state = (any::<u8>(), any_lane_ack()).prop_map(|(lane, state)| (LaneId(lane), state));
        prop::collection::vec(state, 0..=64)
    };
    prop_oneof![
        1 => any_hello(),
        4 => (any::<u8>(), 0..2u8, any::<u64>(), 1..=max_chunk)
            .prop_map(|(lane, flags, offset, len)| chunk(lane, flags, offset, len)),
        1 => (states(), any_stale(), any::<[u64; 3]>()).prop_map(|(lanes, stale, settled)| {
            let settled = settled.into_iter().enumerate().map(|(n, to)| (LaneId(n as u8), to)).collect();
            Frame::Ack(Ack { lanes, stale, settled })
        }),
        1 => (any::<u64>(), 0..2000usize).prop_map(|(nonce, padding)| Frame::Ping { nonce, padding }),
        1 => any::<(u64, Option<u64>)>().prop_map(|(nonce, clock)| Frame::Pong { nonce, clock }),
        1 => (
            prop::sample::select(vec![Shutdown, Replaced, Duplicate, Removed, Retired, Other(5), Other(255)]),
            states(),
            any_stale(),
        )
            .prop_map(|(reason, lanes, stale)| Frame::Goaway(Goaway { reason, lanes, stale })),
        1 => any::<u64>().prop_map(|request| Frame::Cancel(Cancel { request })),
        1 => (prop::sample::select(RefusedReason::KNOWN.to_vec()), "\\PC{0,60}", any::<Option<u32>>())
            .prop_map(|(reason, text, wait_secs)| Frame::Refused(Refused { reason, text, wait_secs })),
        1 => Just(Frame::Extension),
    ]
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// The action of one call of `read`.
enum Step {
    Give(Vec<u8>),
    Fail(io::ErrorKind),
}

/// A `Read` that gives exactly the pieces it was told to, then the end of the stream.
#[derive(Default)]
struct Script {
    steps: VecDeque<Step>,
    /// No read gives more than this.
    at_most: Option<usize>,
}

impl Script {
    /// The bytes, cut at these positions.
    fn cut(bytes: &[u8], cuts: &[usize]) -> Self {
        let mut script = Script::default();
        let mut from = 0;
        for to in cuts.iter().copied().chain([bytes.len()]) {
            if from < to {
                script.steps.push_back(Step::Give(bytes[from..to].to_vec()));
            }
            from = to;
        }
        script
    }

    fn at_most(bytes: &[u8], at_most: usize) -> Self {
        Script { at_most: Some(at_most), ..Script::cut(bytes, &[]) }
    }
}

impl Read for Script {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        assert!(!to.is_empty(), "a read without room cannot be told from the end of the stream");
        match self.steps.pop_front() {
            Some(Step::Give(bytes)) => {
                let len = bytes.len().min(to.len()).min(self.at_most.unwrap_or(usize::MAX));
                to[..len].copy_from_slice(&bytes[..len]);
                if len < bytes.len() {
                    let mut rest = bytes;
                    rest.drain(..len);
                    self.steps.push_front(Step::Give(rest));
                }
                Ok(len)
            }
            Some(Step::Fail(kind)) => Err(kind.into()),
            None => Ok(0),
        }
    }
}

/// Everything that comes out of a stream, and how it ended. `WouldBlock` is tried again, as after a
/// read timeout. The memory bound is checked at every step.
fn read_all(source: impl Read) -> (Vec<Frame>, String) {
    let mut reader = FrameReader::new(source);
    let mut frames = Vec::new();
    loop {
        let result = match reader.next_buffered() {
            Ok(Some(frame)) => {
                frames.push(frame);
                continue;
            }
            Ok(None) => reader.fill(),
            Err(error) => Err(error),
        };
        assert!(reader.memory() <= 64 * KIB + MIB);
        match result {
            Ok(read) => assert!(read > 0),
            Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return (frames, end(&error)),
        }
    }
}

fn end(error: &ReadError) -> String {
    match error {
        ReadError::Eof => "eof".into(),
        ReadError::Torn => "torn".into(),
        ReadError::Io(error) => format!("io: {error}"),
        ReadError::Record(error) => format!("record: {error}"),
        ReadError::Wire(error) => format!("wire: {error}"),
    }
}

/// The same as [`read_all`], in the simplest way: all bytes are there from the start.
fn read_simply(mut bytes: &[u8]) -> (Vec<Frame>, String) {
    let mut frames = Vec::new();
    let end = loop {
        let Some((header, behind)) = bytes.split_first_chunk::<HEADER_LEN>() else {
            break if bytes.is_empty() { "eof".into() } else { "torn".into() };
        };
        let announced = match header::decode_header(*header) {
            Ok(announced) => announced,
            Err(error) => break format!("wire: {error}"),
        };
        let Some((body, rest)) = behind.split_at_checked(announced.body_len()) else {
            // A chunk's head counts as soon as it is there.
            let head = behind.first_chunk().filter(|_| matches!(announced, Announced::Frame(Kind::Chunk, _)));
            break match head.map(|head| header::decode_chunk_head(*head)) {
                Some(Err(error)) => format!("wire: {error}"),
                _ => "torn".into(),
            };
        };
        bytes = rest;
        match announced {
            Announced::Extension(_) => frames.push(Frame::Extension),
            Announced::Frame(kind, _) => match frame::decode_body(kind, body) {
                Ok(frame) => frames.push(frame),
                Err(error) => break format!("wire: {error}"),
            },
        }
    };
    (frames, end)
}

fn header(kind: u8, len: usize) -> [u8; HEADER_LEN] {
    let [a, b, c, _] = (len as u32).to_le_bytes();
    [kind, a, b, c]
}
