//! Internals for the benches. **Not part of the API**: it is hidden and changes without notice.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;

use crate::clock;
use crate::config::Config;
use crate::conn::record::{Key, Opener, Sealer};
use crate::id::{ConnId, Incarnation, PeerId};
use crate::lane::LaneId;
use crate::link::harness::{self, Core, Fx, Numbered};
use crate::link::{Link, NewConn, OutboundMessage, Output, Purpose, Tokens, Writes};
use crate::lock;
use crate::outcome::Outcome;
use crate::receipt::{EndedRun, Receipt, ReceiptToken, Receipts};
use crate::wire::batch::Batch;
use crate::wire::control::{Ack, LaneAck};
use crate::wire::frame::Frame;
use crate::wire::header::MAX_CHUNK;
use crate::wire::reader::{Got, Source};
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
        self.clear();
        self.push_chunk();
        self.push_ack();
        self.batch.len()
    }

    /// The length of the batch, in bytes.
    #[allow(clippy::len_without_is_empty, reason = "nothing asks for it")]
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// Empties the batch.
    pub fn clear(&mut self) {
        self.batch.clear();
    }

    /// Appends one chunk, full of messages.
    pub fn push_chunk(&mut self) {
        let chunk = self.batch.open_chunk();
        let header = Header::new(MessageKind::Message, self.payload.len());
        for _ in 0..self.per_chunk {
            self.batch.push_slice(header.as_bytes());
            self.batch.push_bytes(&self.payload, 0..self.payload.len());
        }
        self.batch.close_chunk(chunk, LaneId(1), 0, 1 << 40);
    }

    /// Appends one acknowledgement.
    pub fn push_ack(&mut self) {
        let state = LaneAck { received: 1 << 40, taken: 1 << 39, limit: 1 << 41 };
        let ack = Ack { lanes: vec![(LaneId(1), state)], ..Ack::default() };
        // Cannot fail: the frame is far below its bound.
        let _ = self.batch.push_with(|out| ack.encode(out));
    }

    /// The batch, as the bytes on the wire.
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

/// Both halves of the encrypted record layer, joined in memory.
pub struct Records {
    batch: Batch,
    sealer: Sealer,
    opener: Opener<Pipe>,
    pipe: Pipe,
    sealed: Vec<u8>,
    opened: Vec<u8>,
}

/// Bytes that one side wrote and the other has not read.
#[derive(Clone, Default)]
struct Pipe(Rc<RefCell<VecDeque<u8>>>);

impl Read for Pipe {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        Read::read(&mut *self.0.borrow_mut(), to)
    }
}

impl Records {
    /// Halves with one key and `size` bytes to send.
    pub fn new(size: usize) -> Self {
        let mut batch = Batch::default();
        batch.push_bytes(&Bytes::from(vec![7; size]), 0..size);
        let key = || Key::new(&[7; 32]);
        let pipe = Pipe::default();
        Records {
            batch,
            sealer: Sealer::new(key()),
            opener: Opener::new(pipe.clone(), key()),
            pipe,
            sealed: Vec::new(),
            opened: vec![0; size],
        }
    }

    /// Seals the bytes once more. Returns the length of the records, or 0 if that failed.
    pub fn seal(&mut self) -> usize {
        self.sealed.clear();
        self.sealer.append(&self.batch, &mut self.sealed).map_or(0, |()| self.sealed.len())
    }

    /// Hands the sealed records to the other half. Called once after each [`Records::seal`].
    pub fn carry(&mut self) {
        self.pipe.0.borrow_mut().extend(self.sealed.drain(..));
    }

    /// Opens what [`Records::carry`] handed over. Returns its length, less if it is not authentic.
    pub fn open(&mut self) -> usize {
        let mut at = 0;
        while let Some(room) = self.opened.get_mut(at..).filter(|room| !room.is_empty()) {
            match self.opener.read(room) {
                // Part of a record may have been all that one read brought.
                Ok(got) if got != Got::plain(0) => at += got.bytes,
                _ => break,
            }
        }
        at
    }
}

impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Records")
    }
}

/// The receipts of one link, both halves.
#[derive(Debug, Default)]
pub struct ReceiptRound {
    receipts: Receipts,
    pending: Vec<ReceiptToken>,
    held: Vec<Receipt>,
}

impl ReceiptRound {
    /// Opens `count` receipts, waits for each by a channel if `watched`, and ends them all. Returns how many
    /// ended as taken.
    pub fn run(&mut self, count: usize, watched: bool) -> usize {
        for _ in 0..count {
            let (pending, receipt) = self.receipts.open();
            self.pending.push(pending);
            self.held.push(receipt);
        }
        if watched {
            self.held.iter().for_each(|receipt| drop(receipt.ready()));
        }
        let tokens = self.pending.drain(..).map(|first| Tokens { first, count: 1 });
        let ended = tokens.map(|tokens| (tokens, Outcome::Taken));
        self.receipts.end(ended).into_iter().for_each(EndedRun::tell);
        self.held.drain(..).filter(|receipt| receipt.poll() == Some(Outcome::Taken)).count()
    }
}

/// How many locks of `src/lock.rs` this process has taken; `None` in builds without debug assertions,
/// which do not count them.
pub fn locks_taken() -> Option<u64> {
    lock::taken()
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
                let token = Numbered { number: sent as usize, awaited: false };
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
            for ended in self.from.output.ended.drain(..) {
                debug_assert_eq!(
                    (ended.tokens.first.number as u64, ended.outcome),
                    (moved.receipts, Outcome::Taken)
                );
                moved.receipts += ended.tokens.count as u64;
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
        let (bytes, _) = harness::write(&mut from.link, CONN, Writes::ForOne, now, &mut from.output);
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
