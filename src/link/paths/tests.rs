//! Two links over streams that an MTU hole stops: a full segment, and everything behind it, waits until the
//! kernel heals the stream by smaller ones, or for ever.

#![allow(clippy::disallowed_methods)] // Tests need some instant to start from; they never read the clock again.

use super::*;
use crate::config::Config;
use crate::health::kernel::KernelSample;
use crate::id::{Incarnation, PeerId};
use crate::lane::{LaneId, URGENT};
use crate::link::{ConnSample, NewConn, Notice, OutboundMessage, Purpose, Writes};
use crate::wire::batch::Batch;
use crate::wire::reader::FrameReader;

const FULL: u16 = 1448;
const STEP: Duration = Duration::from_millis(10);

struct Side {
    link: Link<bool, ()>,
    output: Output<bool, ()>,
    /// When each vote was sent that the other side has not taken.
    votes: Vec<Instant>,
    worst: Duration,
}

/// The bytes that one side has sent on one connection.
#[derive(Default)]
struct Stream {
    waits: Vec<u8>,
    stopped: Option<Instant>,
}

struct Wire {
    id: ConnId,
    segment: u16,
    /// The stream of a, then that of b.
    streams: [Stream; 2],
}

struct World {
    now: Instant,
    sides: [Side; 2],
    wires: Vec<Wire>,
    made: u64,
    /// The side whose segments above the reduced size are dropped.
    hole: Option<usize>,
    /// After so long the kernel heals a stream that was stopped.
    heals: Option<Duration>,
}

impl World {
    fn new(heals: Option<Duration>) -> World {
        let (a, b) = (PeerId::from_bytes([1; 32]), PeerId::from_bytes([2; 32]));
        let config = Config::default();
        let side = |us, peer, seed| Side {
            link: Link::new(config.link_settings(&config.path, us, peer), seed),
            output: Output::default(),
            votes: Vec::new(),
            worst: Duration::ZERO,
        };
        let sides = [side(a, b, 1), side(b, a, 2)];
        let mut world = World { now: Instant::now(), sides, wires: Vec::new(), made: 0, hole: None, heals };
        world.dial(0, false);
        world
    }

    /// a dials b.
    fn dial(&mut self, slot: u8, replaces: bool) {
        self.made += 1;
        let (id, address) = (ConnId(self.made), IpAddr::from([10, 0, 0, 1]));
        let now = self.now;
        let [a, b] = &mut self.sides;
        let segment = a.link.segment_limit(address).unwrap_or(FULL);
        let hello_a = a.link.hello(Incarnation(2), slot, replaces);
        let hello_b = b.link.hello(Incarnation(1), slot, false);
        for (side, dialled) in [(a, true), (b, false)] {
            let (ours, theirs) = if dialled { (&hello_a, &hello_b) } else { (&hello_b, &hello_a) };
            let incarnation = Incarnation(if dialled { 2 } else { 1 });
            let new =
                NewConn { id, handle: id, dialled, incarnation, ours: ours.clone(), theirs: theirs.clone() };
            side.link.attach(&new, now, &mut side.output).unwrap();
            side.link.set_address(id, address, segment.into());
        }
        self.wires.push(Wire { id, segment, streams: Default::default() });
    }

    fn send(&mut self, side: usize, lane: LaneId, len: usize) {
        let now = self.now;
        let side = &mut self.sides[side];
        let message = OutboundMessage { lane, body: &vec![7; len].into(), deadline: None };
        side.link.send(message, Purpose::Message, true, now, &mut side.output).unwrap();
        if lane == URGENT {
            side.votes.push(now);
        }
    }

    /// Votes both ways every 100 ms, blocks from the side of the hole every second, for so long; a replaces
    /// what is suspect, at most every 250 ms.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        let mut last_dial = self.now;
        let mut tick = 0u32;
        while self.now < end {
            if tick.is_multiple_of(10) {
                (0..2).for_each(|side| self.send(side, URGENT, 64));
            }
            if tick.is_multiple_of(100)
                && let Some(side) = self.hole
            {
                self.send(side, crate::lane::BULK, 20_000);
            }
            tick += 1;
            self.step();
            let conns = self.sides[0].link.conns();
            if !conns.iter().any(Conn::is_up) && self.now >= last_dial + Duration::from_millis(250) {
                last_dial = self.now;
                self.dial(0, true);
            }
        }
    }

    fn step(&mut self) {
        self.now += STEP;
        let now = self.now;
        for at in 0..2 {
            let side = &mut self.sides[at];
            side.link.handle_timeout(now, &mut side.output);
            for wire in &mut self.wires {
                let stream = &mut wire.streams[at];
                let mut batch = Batch::default();
                side.link.poll_transmit(
                    wire.id,
                    Writes::ForOne,
                    now,
                    &mut batch,
                    |tokens| tokens.first,
                    &mut side.output,
                );
                let before = stream.waits.len();
                batch.copy(0..batch.len(), &mut stream.waits);
                let full = stream.waits.len() - before >= FULL.into() && wire.segment == FULL;
                if full && self.hole == Some(at) {
                    stream.stopped.get_or_insert(now);
                }
                if stream.stopped.is_some_and(|since| self.heals.is_some_and(|heals| now >= since + heals)) {
                    (stream.stopped, wire.segment) = (None, REDUCED_SEGMENT);
                }
                let kernel = KernelSample {
                    unacked: u32::from(stream.stopped.is_some()),
                    retransmits: if stream.stopped.is_some() { 3 } else { 0 },
                    bytes_acked: Some(1),
                    ..KernelSample::default()
                };
                let look = ConnSample { kernel: Some(kernel), blocked: Duration::ZERO };
                side.link.handle_sample(wire.id, &look, now, &mut side.output);
            }
        }
        for wire in &mut self.wires {
            for at in 0..2 {
                let stream = &mut wire.streams[at];
                if stream.stopped.is_some() || stream.waits.is_empty() {
                    continue;
                }
                let bytes = std::mem::take(&mut stream.waits);
                let mut reader = FrameReader::new(bytes.as_slice());
                let other = &mut self.sides[1 - at];
                other.link.handle_received(wire.id, now, &mut other.output);
                loop {
                    match reader.next_buffered().unwrap() {
                        Some(frame) => {
                            other.link.handle_frame(wire.id, frame, now, &mut other.output).unwrap()
                        }
                        None if reader.fill().is_err() => break,
                        None => {}
                    }
                }
            }
        }
        for at in 0..2 {
            let [ref mut a, ref mut b] = self.sides;
            let (to, from) = if at == 0 { (a, b) } else { (b, a) };
            for index in 0..3 {
                while to.link.take(index, now, &mut to.output).is_some() {
                    if index == 0 {
                        let sent = from.votes.remove(0);
                        from.worst = from.worst.max(now - sent);
                    }
                }
            }
            to.output.notices.clear();
            for (id, _) in to.output.close.drain(..) {
                to.link.handle_conn_ended(
                    id,
                    crate::health::liveness::Ending::Deliberate,
                    now,
                    &mut Output::default(),
                );
            }
        }
        // A connection that one side has let go of ends for both.
        let ids: Vec<_> = self.wires.iter().map(|wire| wire.id).collect();
        for id in ids {
            let gone = |side: &Side| !side.link.conns().iter().any(|conn| conn.id == id);
            let drained =
                |side: &Side| side.link.conns().iter().any(|conn| conn.id == id && conn.goaway_heard);
            if self.sides.iter().any(|side| gone(side) || drained(side)) {
                for side in &mut self.sides {
                    let ending = crate::health::liveness::Ending::Deliberate;
                    side.link.handle_conn_ended(id, ending, now, &mut side.output);
                }
                self.wires.retain(|wire| wire.id != id);
            }
        }
    }

    fn up(&self) -> Vec<ConnId> {
        self.sides[0]
            .link
            .conns()
            .iter()
            .filter(|conn| conn.is_up() && conn.proven)
            .map(|conn| conn.id)
            .collect()
    }
}

#[test]
fn a_hole_for_full_segments_ends_with_smaller_ones() {
    for sick in [0, 1] {
        for heals in [None, Some(Duration::from_secs(3))] {
            let mut world = World::new(heals);
            world.run(Duration::from_secs(2));
            assert_eq!(world.made, 1);
            world.hole = Some(sick);
            world.run(Duration::from_secs(60));
            let what = format!("sick {sick}, heals after {heals:?}");
            assert!(world.made <= 3, "{what}: {} connections", world.made);
            let [a, b] = &world.sides;
            let (to_sick, of_sick) = if sick == 0 { (b.worst, a.worst) } else { (a.worst, b.worst) };
            assert!(to_sick < Duration::from_secs(2), "{what}: the healthy way waited {to_sick:?}");
            assert!(of_sick < Duration::from_secs(5), "{what}: {of_sick:?}");
            assert!(world.sides.iter().all(|side| side.votes.len() <= 1), "{what}");
            assert_eq!(world.up(), [ConnId(world.made)], "{what}");
        }
    }
}

/// Without bulk there is no full segment on a connection that replaces none: the hole is never met.
#[test]
fn votes_alone_meet_no_hole() {
    let mut world = World::new(None);
    for side in [0, 1] {
        for _ in 0..100 {
            world.send(side, URGENT, 64);
            world.hole = Some(side);
            (0..10).for_each(|_| world.step());
        }
    }
    assert_eq!((world.made, world.up()), (1, vec![ConnId(1)]));
    assert!(world.sides.iter().all(|side| side.worst <= STEP * 4));
}

/// The machine was busy: the connection that was suspected is well again before its successor has answered.
#[test]
fn a_successor_that_does_not_answer_goes_when_the_incumbent_is_well() {
    let mut world = World::new(Some(Duration::from_secs(2)));
    world.run(Duration::from_secs(1));
    world.hole = Some(0);
    world.send(0, crate::lane::BULK, 20_000);
    // Until the successor is made, and the first one is healed.
    while world.made < 2 {
        world.step();
        if !world.sides[0].link.conns().iter().any(Conn::is_up) {
            world.dial(0, true);
        }
    }
    // The kernel of the successor never heals it.
    world.wires[1].segment = FULL;
    (0..150).for_each(|_| world.step());
    world.heals = None;
    (0..300).for_each(|_| world.step());
    assert_eq!((world.made, world.up()), (2, vec![ConnId(1)]));
    assert_eq!(world.sides[0].link.segment_limit([10, 0, 0, 1].into()), Some(REDUCED_SEGMENT));
}

/// The notices about the second of two connections in `tenths` of a second in which it sends a little, loses
/// half of it, and has timeouts in a row. The first one sends a block by the same path, whose least round
/// trip is 25 ms; with the queue it is `rtt`. Returns also whether no successor of the second one is needed.
fn notices_about_the_second(rtt: f64, tenths: u32) -> (Vec<Notice>, bool) {
    let mut world = World::new(None);
    world.dial(1, false);
    let mut now = world.now;
    let Side { link, output, .. } = &mut world.sides[0];
    let mut notices = Vec::new();
    for tick in 1..=tenths {
        now += STEP * 10;
        let block = KernelSample {
            unacked: 20,
            rtt_ms: rtt,
            min_rtt_ms: Some(25.0),
            bytes_acked: Some(u64::from(tick) * 1_000),
            data_segs_out: Some(tick * 2),
            ..KernelSample::default()
        };
        let little = KernelSample {
            unacked: 2,
            retransmits: 3,
            total_retrans: tick * 2,
            rtt_ms: 25.0,
            min_rtt_ms: Some(25.0),
            bytes_acked: Some(100),
            data_segs_out: Some(tick * 4),
            ..KernelSample::default()
        };
        link.handle_received(ConnId(1), now, output);
        for (id, kernel) in [(1, block), (2, little)] {
            let sample = ConnSample { kernel: Some(kernel), blocked: Duration::ZERO };
            link.handle_sample(ConnId(id), &sample, now, output);
        }
        let mut batch = Batch::default();
        link.poll_transmit(ConnId(2), Writes::ForOne, now, &mut batch, |tokens| tokens.first, output);
        notices.append(&mut output.notices);
    }
    let of_second =
        |notice: &Notice| matches!(notice, Notice::Suspect(ConnId(2)) | Notice::ConnDegraded(ConnId(2)));
    (notices.into_iter().filter(of_second).collect(), link.is_queued_out(ConnId(2), now))
}

#[test]
fn a_queue_that_another_connection_fills_makes_no_connection_suspect_or_poor() {
    assert_eq!(notices_about_the_second(2_000.0, 60), (vec![], false));
    let (notices, _) = notices_about_the_second(30.0, 60);
    assert!(notices.contains(&Notice::Suspect(ConnId(2))), "{notices:?}");
    assert!(notices.contains(&Notice::ConnDegraded(ConnId(2))), "{notices:?}");
}

#[test]
fn a_connection_that_a_full_queue_keeps_out_gets_no_successor_at_first() {
    let suspect = vec![Notice::Suspect(ConnId(2))];
    assert_eq!(notices_about_the_second(100.0, 60), (suspect.clone(), true));
    // It has been suspect for half of `dead_after`.
    assert_eq!(notices_about_the_second(100.0, 130), (suspect, false));
    assert!(!notices_about_the_second(30.0, 60).1, "no queue");
}

#[test]
fn votes_leave_a_connection_that_is_in_a_timeout_and_blocks_stay() {
    let mut world = World::new(None);
    world.dial(1, false);
    world.run(Duration::from_secs(1));
    let at = |world: &World| {
        let lane =
            |id| world.sides[0].link.lanes.iter().find(|lane| lane.id == id).and_then(|lane| lane.conn);
        (lane(URGENT), lane(crate::lane::BULK))
    };
    let first = (Some(ConnId(1)), Some(ConnId(2)));
    assert_eq!(at(&world), first);
    let mut look = |id, unacked| {
        let kernel =
            KernelSample { unacked, retransmits: 1, bytes_acked: Some(1), ..KernelSample::default() };
        let (look, now) = (ConnSample { kernel: Some(kernel), blocked: Duration::ZERO }, world.now);
        let side = &mut world.sides[0];
        side.link.handle_sample(ConnId(id), &look, now, &mut side.output);
        at(&world)
    };
    assert_eq!(look(2, 1), first, "blocks have no better place");
    assert_eq!(look(1, 1), first, "neither is better");
    assert_eq!(look(2, 0), (Some(ConnId(2)), Some(ConnId(2))));
    assert_eq!(look(1, 0), first, "what was in flight is acknowledged");
}

#[test]
fn a_lane_goes_home_when_what_it_has_sent_is_acknowledged() {
    let mut world = World::new(None);
    world.run(Duration::from_millis(200));
    world.send(0, crate::lane::BULK, 200_000);
    world.step();
    world.dial(1, false);
    let lane = |world: &World, id| {
        let lane = world.sides[0].link.lanes.iter().find(|lane| lane.id == id).unwrap();
        (lane.conn, lane.out.outstanding())
    };
    let mut waited = false;
    while lane(&world, crate::lane::BULK).0 == Some(ConnId(1)) {
        waited |= world.sides[0].link.conns().iter().all(|conn| conn.proven);
        world.step();
    }
    assert!(waited, "nothing was outstanding");
    assert_eq!(lane(&world, crate::lane::BULK), (Some(ConnId(2)), 0));
    world.run(Duration::from_secs(1));
    assert!(world.sides[0].link.lanes.iter().all(|lane| lane.out.is_empty()));
}
