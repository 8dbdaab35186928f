//! Internals for the benches. **Not part of the API**: it is hidden and changes without notice.

use std::time::Instant;

use bytes::Bytes;

use crate::clock;
use crate::config::Config;
use crate::id::{ConnId, Incarnation, PeerId};
use crate::lane::LaneId;
use crate::link::harness::{self, Core, Fx, Token};
use crate::link::{Link, NewConn, OutboundMessage, Output, Purpose};
use crate::outcome::Outcome;
use crate::wire::batch::Batch;
use crate::wire::control::{Ack, LaneAck};
use crate::wire::frame::Frame;
use crate::wire::header::MAX_CHUNK;
use crate::wire::stream::{Header, MessageKind, Parser};

/// Frames as the writer makes them: chunks of whole messages, each with an acknowledgement behind it.
#[derive(Debug)]
pub struct Encoder {
    payload: Bytes,
    per_chunk: usize,
    batch: Batch,
}

impl Encoder {
    /// Messages of `size` bytes, as many in each chunk as `chunk` bytes hold.
    pub fn new(size: usize, chunk: usize) -> Self {
        let per_chunk = (chunk.min(MAX_CHUNK) / (size + 4)).max(1);
        Encoder { payload: Bytes::from(vec![7; size]), per_chunk, batch: Batch::default() }
    }

    /// Messages in one round of [`Encoder::encode`].
    pub fn per_round(&self) -> usize {
        self.per_chunk
    }

    /// One chunk and one acknowledgement into the reused batch. Returns the length in bytes.
    pub fn encode(&mut self) -> usize {
        self.batch.clear();
        let chunk = self.batch.open_chunk();
        let header = Header::new(MessageKind::Message, self.payload.len());
        for _ in 0..self.per_chunk {
            self.batch.push_slice(header.as_bytes());
            self.batch.push_bytes(&self.payload, 0..self.payload.len());
        }
        self.batch.close_chunk(chunk, LaneId(1), 0, 1 << 40);
        let state = LaneAck { received: 1 << 40, taken: 1 << 39, limit: 1 << 41 };
        let ack = Ack { lanes: vec![(LaneId(1), state)], ..Ack::default() };
        // Cannot fail: the frame is far below its bound.
        let _ = self.batch.push_with(|out| ack.encode(out));
        self.batch.len()
    }

    /// The output of [`Encoder::encode`], as the bytes on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.batch.len());
        self.batch.copy(0..self.batch.len(), &mut bytes);
        bytes
    }
}

/// Reads frames and finds the messages in them. Returns the number of both.
pub fn decode(bytes: &[u8]) -> (usize, usize) {
    let mut parser = Parser::new(MAX_CHUNK);
    let (mut frames, mut messages) = (0, 0);
    harness::for_each_frame(bytes, |frame| {
        frames += 1;
        if let Frame::Chunk { mut data, .. } = frame {
            while !data.is_empty() {
                messages += usize::from(parser.next(&mut data).is_ok_and(|found| found.is_some()));
            }
        }
    });
    (frames, messages)
}

/// Two link cores joined in memory: no socket, no thread, no lock.
pub struct Pair {
    from: Side,
    to: Side,
    now: Instant,
}

struct Side {
    link: Core,
    output: Fx,
}

/// The bytes and messages that one call moved.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moved {
    /// Chunk frames.
    pub chunks: u64,
    /// Messages that the application took.
    pub taken: u64,
    /// Messages whose receipt ended as taken.
    pub receipts: u64,
}

const CONN: ConnId = ConnId(1);

impl Pair {
    /// Two cores with default settings and one connection.
    pub fn new() -> Self {
        let names = [[1; 32], [2; 32]].map(PeerId::from_bytes);
        let [a, b] = names;
        let now = clock::now();
        let (mut from, mut to) = (Side::new(a, b, 1), Side::new(b, a, 2));
        let (hello_a, hello_b) =
            (from.link.hello(Incarnation(2), 0, false), to.link.hello(Incarnation(1), 0, false));
        let joined = [
            from.link.attach(
                &NewConn {
                    id: CONN,
                    handle: CONN,
                    dialled: true,
                    incarnation: Incarnation(2),
                    ours: hello_a.clone(),
                    theirs: hello_b.clone(),
                },
                now,
                &mut from.output,
            ),
            to.link.attach(
                &NewConn {
                    id: CONN,
                    handle: CONN,
                    dialled: false,
                    incarnation: Incarnation(1),
                    ours: hello_b,
                    theirs: hello_a,
                },
                now,
                &mut to.output,
            ),
        ];
        debug_assert!(joined.iter().all(Result::is_ok), "{joined:?}");
        Pair { from, to, now }
    }

    /// Sends messages until the queue is full or there were `count`, and moves everything across:
    /// chunks over, taken by the application, acknowledgements back.
    pub fn run(&mut self, lane: LaneId, body: &Bytes, count: u64) -> Moved {
        let mut moved = Moved::default();
        let mut sent = 0;
        while moved.receipts < count {
            while sent < count {
                let message = OutboundMessage { lane, body, deadline: None };
                let token = Token { number: sent as usize, awaited: false };
                let output = &mut self.from.output;
                let refused =
                    self.from.link.send(message, Purpose::Message, token, self.now, output).is_err();
                if refused {
                    break;
                }
                sent += 1;
            }
            // A tick of the clock, as between two system calls.
            self.now += std::time::Duration::from_micros(20);
            moved.chunks += carry(&mut self.from, &mut self.to, self.now);
            for index in 0..3 {
                while self.to.link.take(index, self.now, &mut self.to.output).is_some() {
                    moved.taken += 1;
                }
            }
            self.now += std::time::Duration::from_millis(30); // Longer than the delay of an acknowledgement.
            carry(&mut self.to, &mut self.from, self.now);
            for (token, outcome, _) in self.from.output.ended.drain(..) {
                debug_assert_eq!((token.number as u64, outcome), (moved.receipts, Outcome::Taken));
                moved.receipts += 1;
            }
            self.from.output.wake.clear();
            self.to.output.wake.clear();
        }
        moved
    }
}

impl Default for Pair {
    fn default() -> Self {
        Pair::new()
    }
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pair")
    }
}

impl Side {
    fn new(us: PeerId, peer: PeerId, seed: u64) -> Self {
        let config = Config::default();
        let settings = config.link_settings(&config.path, us, peer);
        Side { link: Link::new(settings, seed), output: Output::default() }
    }
}

/// Writes what one side has to say into the other, through the bytes on the wire. Returns the number of
/// chunks.
fn carry(from: &mut Side, to: &mut Side, now: Instant) -> u64 {
    let mut chunks = 0;
    loop {
        let (bytes, _) = harness::write(&mut from.link, CONN, now, &mut from.output);
        if bytes.is_empty() {
            return chunks;
        }
        to.link.handle_received(CONN, now, &mut to.output);
        harness::for_each_frame(&bytes, |frame| {
            chunks += u64::from(matches!(frame, Frame::Chunk { .. }));
            let handled = to.link.handle_frame(CONN, frame, now, &mut to.output);
            debug_assert!(handled.is_ok(), "{handled:?}");
        });
    }
}
