#![allow(clippy::disallowed_methods)] // Tests need some instant to start from; they never read the clock again.

use std::time::Duration;

use bytes::Bytes;

use crate::config::Config;
use crate::id::{ConnId, Incarnation, PeerId};
use crate::lane::{LaneConfig, NORMAL};
use crate::link::{Link, NewConn, OutboundMessage, Output, Purpose, Transmit, Writes};
use crate::outcome::Outcome;
use crate::wire::batch::Batch;
use crate::wire::control::{Ack, Cancel, Hello, LaneAck};
use crate::wire::frame::Frame;
use crate::wire::reader::FrameReader;
use crate::wire::stream::{Header, MessageKind};

use super::*;

/// For every receipt somebody waits, so that each message is acknowledged at once.
type Fx = Output<bool, ()>;

struct Side {
    link: Link<bool, ()>,
    output: Fx,
}

const CONN: ConnId = ConnId(1);

fn side(us: u8, ack_delay: Duration, lanes: Vec<LaneConfig>) -> Side {
    let config = Config { lanes, ack_delay, ..Config::default() };
    let seed = u64::from(us);
    let (us, peer) = (PeerId::from_bytes([us; 32]), PeerId::from_bytes([3 - us; 32]));
    let settings = config.link_settings(&config.path, us, peer);
    Side { link: Link::new(settings, seed), output: Fx::default() }
}

fn pair(ack_delay: Duration) -> (Side, Side, Instant) {
    pair_with(ack_delay, LaneConfig::defaults())
}

fn pair_with(ack_delay: Duration, lanes: Vec<LaneConfig>) -> (Side, Side, Instant) {
    let now = Instant::now();
    let (mut a, mut b) = (side(1, ack_delay, lanes.clone()), side(2, ack_delay, lanes));
    let hello_a = a.link.hello(Incarnation(2), 0, false);
    let hello_b = b.link.hello(Incarnation(1), 0, false);
    let join = |side: &mut Side, dialled, ours: &Hello, theirs: &Hello| {
        let incarnation = Incarnation(if dialled { 2 } else { 1 });
        let new = NewConn {
            id: CONN,
            handle: CONN,
            dialled,
            incarnation,
            ours: ours.clone(),
            theirs: theirs.clone(),
        };
        side.link.attach(&new, now, &mut side.output).unwrap();
    };
    join(&mut a, true, &hello_a, &hello_b);
    join(&mut b, false, &hello_b, &hello_a);
    (a, b, now)
}

/// Everything that one side has to say goes over, a batch at a time. Returns the number of chunks.
fn carry(from: &mut Side, to: &mut Side, mut now: Instant) -> Result<u64, Violation> {
    let mut chunks = 0;
    loop {
        let mut batch = Batch::default();
        let next = from.link.poll_transmit(
            CONN,
            Writes::ForOne,
            now,
            &mut batch,
            |tokens| tokens.first,
            &mut from.output,
        );
        if batch.is_empty() {
            match next {
                // The writer waits for more to gather.
                Transmit::Continue { at: Some(at), .. }
                    if at > now && at < now + Duration::from_millis(1) =>
                {
                    now = at;
                    continue;
                }
                _ => return Ok(chunks),
            }
        }
        let bytes = batch.to_vec();
        let mut reader = FrameReader::new(bytes.as_slice());
        loop {
            match reader.next_buffered().unwrap() {
                Some(frame) => {
                    chunks += u64::from(matches!(frame, Frame::Chunk { .. }));
                    to.link.handle_frame(CONN, frame, now, &mut to.output)?;
                }
                None if reader.fill().is_err() => break,
                None => {}
            }
        }
    }
}

/// Each vote in a chunk of its own, each acknowledged twice (received, taken), and in the worst order:
/// nothing is taken before all have arrived. `tight`: with hardly any room in the buckets.
fn votes(count: u64, per_second: u64, len: usize, at_once: u64, tight: bool) -> (FrameMeter, FrameMeter) {
    let (mut a, mut b, mut now) = pair(Duration::ZERO);
    if tight {
        a.link.meter.tighten();
        b.link.meter.tighten();
    }
    let body = Bytes::from(vec![7; len]);
    let (mut chunks, mut taken) = (0, 0);
    for _ in 0..count / at_once {
        for _ in 0..at_once {
            let message = OutboundMessage { lane: NORMAL, body: &body, deadline: None };
            assert!(a.link.send(message, Purpose::Message, true, now, &mut a.output).is_ok());
            chunks += carry(&mut a, &mut b, now).expect("an honest sender");
            carry(&mut b, &mut a, now).expect("an honest receiver");
            now += Duration::from_nanos(1_000_000_000 / per_second);
        }
        let lane = b.link.lane_index(NORMAL).unwrap();
        while b.link.take(lane, now, &mut b.output).is_some() {
            taken += 1;
            carry(&mut b, &mut a, now).expect("an honest receiver");
        }
        let ended = a.output.ended.drain(..).filter(|ended| ended.outcome == Outcome::Taken);
        assert_eq!(ended.map(|ended| ended.tokens.count as u64).sum::<u64>(), at_once);
        (a.output, b.output) = (Fx::default(), Fx::default());
    }
    assert_eq!((chunks, taken), (count, count), "one vote in each chunk");
    (a.link.meter, b.link.meter)
}

#[test]
fn a_hundred_thousand_votes_a_second_each_in_its_own_chunk_cost_nothing() {
    for len in [0, 1, 60, 64] {
        let (sender, receiver) = votes(200_000, 100_000, len, 20_000, false);
        assert_eq!(receiver.counts.poor_chunks, 0, "{len}");
        // The acknowledgements that only said `received` were earned.
        assert!(sender.counts.poor_acks >= 199_000, "{:?}", sender.counts);
    }
}

#[test]
fn nor_do_they_live_on_what_is_there_at_the_start() {
    votes(50_000, 1_000_000, 1, 10_000, true);
}

/// A window full of tiny messages with a large one behind them: each that is taken lets five bytes of the
/// large one go, in a chunk that ends nothing.
#[test]
fn credit_that_comes_back_in_crumbs_pays_for_the_crumbs_that_it_lets_go() {
    const TINY: u64 = 4000;
    let lane = LaneConfig { max_message: 40_000, window: 5 * TINY as usize, ..LaneConfig::normal() };
    let (mut a, mut b, now) = pair_with(Duration::ZERO, vec![lane]);
    a.link.meter.tighten();
    b.link.meter.tighten();
    let send = |a: &mut Side, len| {
        let message = OutboundMessage { lane: NORMAL, body: &vec![7; len].into(), deadline: None };
        assert!(a.link.send(message, Purpose::Message, true, now, &mut a.output).is_ok());
    };
    (0..TINY).for_each(|_| send(&mut a, 1));
    send(&mut a, 5 * TINY as usize - 100);
    carry(&mut a, &mut b, now).expect("an honest sender");
    for _ in 0..TINY - 100 {
        assert!(b.link.take(0, now, &mut b.output).is_some());
        carry(&mut b, &mut a, now).expect("an honest receiver");
        assert_eq!(carry(&mut a, &mut b, now).expect("an honest sender"), 1);
    }
    assert!(b.link.meter.counts.poor_chunks >= TINY - 100);
}

/// The number of frames until the link has had enough.
fn flood(mut next: impl FnMut(u64) -> Frame, most: u64) -> (u64, Violation) {
    let (_, mut b, now) = pair(Duration::from_millis(25));
    for count in 0..most {
        if let Err(violation) = b.link.handle_frame(CONN, next(count), now, &mut b.output) {
            return (count, violation);
        }
    }
    panic!("{most} frames and no end");
}

fn chunk(offset: u64, data: Vec<u8>) -> Frame {
    Frame::Chunk { lane: NORMAL, flags: 0, offset, data: data.into() }
}

#[test]
fn a_flood_of_each_kind_ends() {
    let is_flood =
        |violation: Violation| assert!(matches!(violation, Violation::Flood { .. }), "{violation}");
    // A message of 1 MiB, byte by byte.
    let header = Header::new(MessageKind::Message, 1 << 20).as_bytes().to_vec();
    let byte = |at: u64| chunk(at, vec![header.get(at as usize).copied().unwrap_or(7)]);
    let (count, violation) = flood(byte, 1 << 20);
    assert!((4096..4300).contains(&count), "{count}");
    is_flood(violation);
    // The same few bytes again and again.
    let (count, violation) =
        flood(|at| if at == 0 { chunk(0, header.clone()) } else { chunk(0, vec![1; 4]) }, 10_000);
    assert!((4000..4300).contains(&count), "{count}");
    is_flood(violation);

    let (count, violation) = flood(|_| Frame::Ack(Ack::default()), 1 << 20);
    assert!((131_072..131_100).contains(&count), "{count}");
    is_flood(violation);
    // Credit that grows by one each time.
    let ack = |limit| LaneAck { received: 0, taken: 0, limit: (1 << 30) + limit };
    let (count, violation) =
        flood(|at| Frame::Ack(Ack { lanes: vec![(NORMAL, ack(at))], ..Ack::default() }), 1 << 20);
    assert!((131_072..131_100).contains(&count), "{count}");
    is_flood(violation);
    let (count, violation) = flood(Frame::ping, 10_000);
    assert!(count <= 4_001, "{count}");
    is_flood(violation);
    let (count, violation) = flood(|request| Frame::Cancel(Cancel { request }), 10_000);
    assert_eq!(count, 8_192);
    is_flood(violation);
    let (count, violation) = flood(|_| Frame::Extension, 100_000);
    assert_eq!(count, 10_000);
    is_flood(violation);
}

#[test]
fn replies_to_nobody_and_requests_beyond_the_bound_end_the_connection() {
    let message = |at: u64, kind: MessageKind| {
        let header = Header::new(kind, 0);
        chunk(at * header.as_bytes().len() as u64, header.as_bytes().to_vec())
    };
    let (count, violation) = flood(|at| message(at, MessageKind::Reply { id: at }), 100_000);
    assert_eq!((count, violation), (65_536, Violation::Flood { what: "replies that nobody asked for" }));
    let request = |at| message(at, MessageKind::Request { id: at, wait_ms: 60_000 });
    let (count, violation) = flood(request, 100_000);
    let what = "requests beyond those that may be open";
    assert_eq!((count, violation), (1024 + 16_384, Violation::Flood { what }));
}

#[test]
fn the_budget_of_a_flood_fills_with_time_only() {
    let (_, mut b, now) = pair(Duration::from_millis(25));
    let ping = |b: &mut Side, at| b.link.handle_frame(CONN, Frame::ping(1), at, &mut b.output).is_ok();
    while ping(&mut b, now) {}
    assert!(!ping(&mut b, now));
    let later = now + Duration::from_millis(10);
    assert_eq!((0..100).filter(|_| ping(&mut b, later)).count(), 40);
}
