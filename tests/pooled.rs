//! Promise 9: a link may own up to three connections. Both sides agree which exist, however often both dial
//! at once; when one dies its lanes move to another at once, and back when it has a successor.

#![cfg(target_os = "linux")] // As the fault proxy is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test: it fails by panicking, and it reads the real clock"
)]

use std::thread;
use std::time::{Duration, Instant};

use unbroken::test_util::{Direction, FaultProxy, black_hole_supported};
use unbroken::{BULK, Config, ConnState, Event, NORMAL, Node, Outcome, PeerConfig, PeerId, URGENT};
use unbroken_test_support::cluster::{
    Log, Peer, TIMEOUT, all_taken, any_addr, builder, calm_path, eventually, first_addr, flood, skip, within,
};
use unbroken_test_support::numbered::message;

const MIB: usize = 1 << 20;

fn calm(config: &mut Config) {
    config.path = calm_path();
}

/// `a` dials `b` with a pool; each of its connections has a path, and a proxy, of its own.
struct Pooled {
    a: Peer,
    b: Peer,
    paths: Vec<FaultProxy>,
}

impl Pooled {
    fn start(connections: u8) -> Pooled {
        let b = Peer::start(builder(calm).listen(any_addr()));
        let a = Peer::start(builder(calm));
        let paths: Vec<_> = (0..connections).map(|_| FaultProxy::start(first_addr(&b)).unwrap()).collect();
        let mut addresses = paths.iter().map(|path| path.addr().to_string());
        let address = addresses.next().unwrap();
        a.add_peer(PeerConfig {
            connections: Some(connections),
            alternatives: addresses.collect(),
            ..PeerConfig::new(address)
        })
        .unwrap();
        let pooled = Pooled { a, b, paths };
        pooled.wait_full(connections);
        pooled
    }

    /// Every slot has one connection that has proved itself, on both sides.
    fn wait_full(&self, connections: u8) {
        eventually("the pool is full", || {
            slots_of(&self.a, self.b.id()) == (0..connections).collect::<Vec<_>>()
                && slots_of(&self.b, self.a.id()) == (0..connections).collect::<Vec<_>>()
        });
    }

    fn bytes(&self, path: usize) -> u64 {
        self.paths[path].bytes(Direction::ToTarget)
    }
}

/// The slots of the connections above suspicion, those that have measured a round trip.
fn slots_of(node: &Node, peer: PeerId) -> Vec<u8> {
    let Some(peer) = node.peer(peer) else { return Vec::new() };
    let proven = peer.connections.iter().filter(|conn| conn.state == ConnState::Up && conn.rtt_ms.is_some());
    let mut slots: Vec<_> = proven.map(|conn| conn.slot).collect();
    slots.sort();
    slots
}

/// Votes one after the other while `during` runs; gives how long each took from send to receipt.
fn vote_while(node: &Node, peer: PeerId, during: impl FnOnce() + Send) -> Vec<Duration> {
    thread::scope(|scope| {
        let during = scope.spawn(during);
        let mut times = Vec::new();
        while !during.is_finished() {
            let start = Instant::now();
            let vote = node.send(peer, (URGENT, message(1, times.len() as u64, 64))).unwrap();
            assert_eq!(vote.wait_timeout(TIMEOUT), Some(Outcome::Taken));
            times.push(start.elapsed());
            thread::sleep(Duration::from_millis(2)); // The next vote of the next round.
        }
        during.join().unwrap();
        times
    })
}

#[test]
fn each_lane_goes_by_its_own_connection() {
    let pooled = Pooled::start(3);
    let before: Vec<_> = (0..3).map(|path| pooled.bytes(path)).collect();
    let grown = |path: usize| pooled.bytes(path) - before[path];
    for (lane, size, path) in [(URGENT, MIB / 2, 0), (BULK, 2 * MIB, 1), (NORMAL, MIB, 2)] {
        let receipt = pooled.a.send(pooled.b.id(), (lane, message(lane.0.into(), 0, size))).unwrap();
        all_taken(&[receipt]);
        assert!(grown(path) > size as u64, "{lane}: {:?}", (0..3).map(grown).collect::<Vec<_>>());
    }
    // Nothing but control came on the others meanwhile.
    assert!(grown(0) < MIB as u64 && grown(1) < 3 * MIB as u64 && grown(2) < 2 * MIB as u64);
}

#[test]
fn votes_go_on_when_their_path_is_black_holed_under_load() {
    if !black_hole_supported() {
        return skip("no TCP_MD5SIG, no black hole");
    }
    let pooled = Pooled::start(2);
    let (a, b) = (&pooled.a, &pooled.b);
    let times = vote_while(a, b.id(), || {
        let blocks = flood(a, b.id(), BULK, 2, 400, |_| MIB);
        let back = flood(b, a.id(), NORMAL, 3, 2000, |_| 1000);
        b.wait_count(BULK, 2, 20);
        assert!(pooled.paths[0].black_hole_new(true));
        assert!(pooled.paths[0].black_hole());
        b.wait_count(BULK, 2, 400);
        all_taken(&blocks.join().unwrap());
        all_taken(&back.join().unwrap());
    });
    let worst = times.iter().max().unwrap();
    // Suspect after 1 s of silence (calm_path); the rest is for a busy machine.
    assert!(*worst < Duration::from_secs(3), "{worst:?}");
    eprintln!("{} votes, the one into the hole took {worst:?}", times.len());
    // Back home when the slot has a connection again, by whatever path: at once if it is a new one, and if it
    // is the one that was in the hole, when the kernel has had an answer.
    pooled.paths[0].heal();
    pooled.wait_full(2);
    let sent = || {
        let conns = a.peer(b.id()).unwrap().connections;
        conns
            .iter()
            .find(|conn| conn.slot == 0 && conn.state == ConnState::Up)
            .map_or(0, |conn| conn.bytes_sent)
    };
    let mut more = 0;
    eventually("the urgent lane is at home again", || {
        let before = sent();
        all_taken(&[a.send(b.id(), (URGENT, message(4, more, MIB / 2))).unwrap()]);
        more += 1;
        // The bytes that were counted when the write was over may be a part of the one before.
        sent().saturating_sub(before) > MIB as u64 / 4
    });
    b.check(times.len() as u64 + 400 + more);
    a.check(2000);
}

#[test]
fn votes_see_no_gap_when_the_other_path_is_black_holed() {
    if !black_hole_supported() {
        return skip("no TCP_MD5SIG, no black hole");
    }
    let pooled = Pooled::start(2);
    let (a, b) = (&pooled.a, &pooled.b);
    let times = vote_while(a, b.id(), || {
        let blocks = flood(a, b.id(), BULK, 2, 200, |_| MIB);
        b.wait_count(BULK, 2, 20);
        assert!(pooled.paths[1].black_hole_new(true));
        assert!(pooled.paths[1].black_hole());
        b.wait_count(BULK, 2, 200);
        all_taken(&blocks.join().unwrap());
    });
    let worst = times.iter().max().unwrap();
    eprintln!("{} votes, the slowest took {worst:?}", times.len());
    // The hole is found after 1 s: no vote waited for that.
    assert!(*worst < Duration::from_millis(900), "{worst:?}");
    b.check(times.len() as u64 + 200);
}

#[test]
fn a_connection_that_is_cut_moves_its_lanes_in_the_middle_of_a_message() {
    let pooled = Pooled::start(2);
    let (a, b) = (&pooled.a, &pooled.b);
    let blocks = flood(a, b.id(), BULK, 2, 40, |_| 4 * MIB);
    for round in 1..=10 {
        b.wait_count(BULK, 2, 3 * round);
        pooled.paths[round as usize % 2].reset_all();
    }
    all_taken(&blocks.join().unwrap());
    b.check(40);
    pooled.wait_full(2);
}

/// Both dial at once, with a pool, again and again: one connection for each slot stays, the same on both
/// sides.
#[test]
fn two_hundred_simultaneous_dials() {
    const ROUNDS: u64 = 200;
    let nodes = || [(); 2].map(|()| Peer::start(builder(calm).listen(any_addr())));
    let mut pair = nodes();
    for round in 0..ROUNDS {
        if round % 20 == 0 {
            pair = nodes();
        }
        let [a, b] = &pair;
        let want = |at: &Peer, other: &Peer| {
            at.add_peer(PeerConfig {
                connections: Some(1 + (round % 2) as u8),
                ..PeerConfig::new(first_addr(other).to_string())
            })
            .unwrap();
        };
        thread::scope(|scope| {
            scope.spawn(|| want(a, b));
            scope.spawn(|| want(b, a));
        });
        if !within(TIMEOUT, || agreed(a, b, 1 + round % 2)) {
            let story = |peer: &Peer| peer.look(Log::story);
            panic!("round {round}: no agreement: {:#?}\n{}\n{}", [a.peers(), b.peers()], story(a), story(b));
        }
        all_taken(&[
            a.send(b.id(), (NORMAL, message(round, 0, 100))).unwrap(),
            b.send(a.id(), (URGENT, message(round, 0, 100))).unwrap(),
        ]);
        thread::scope(|scope| {
            // The address too: when only the other's dials came through nobody knows yet where it leads.
            let unwant = |at: &Peer, other: &Peer| {
                at.remove_address(&first_addr(other).to_string());
                at.remove_peer(other.id());
            };
            scope.spawn(move || unwant(a, b));
            scope.spawn(move || unwant(b, a));
        });
        // A report that is still under way would speak against the next round's replacement.
        let heard_of_all = |log: &Log| {
            let count = |which: fn(&Event) -> bool| log.count(which);
            let joined = count(|event| matches!(event, Event::Connected { .. }));
            (joined == count(|event| matches!(event, Event::Disconnected { .. }))).then_some(())
        };
        eventually("nothing is left", || a.snapshot().connections == 0 && b.snapshot().connections == 0);
        [a, b].iter().for_each(|peer| peer.wait("the end of every connection", heard_of_all));
    }
}

/// Both have the same connections, one for each slot, and nothing else under way.
fn agreed(a: &Node, b: &Node, slots: u64) -> bool {
    let conns = |node: &Node, peer: &Node| {
        let peer = node.peer(peer.id());
        let mut conns: Vec<_> = peer.map(|peer| peer.connections).unwrap_or_default();
        conns.sort_by_key(|conn| conn.slot);
        conns
    };
    let (here, there) = (conns(a, b), conns(b, a));
    let slots: Vec<_> = (0..slots as u8).collect();
    here.iter().map(|conn| conn.slot).eq(slots.iter().copied())
        && there.iter().map(|conn| conn.slot).eq(slots)
        && here.iter().zip(&there).all(|(here, there)| here.dialled != there.dialled)
}
