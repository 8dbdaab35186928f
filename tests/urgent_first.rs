//! Promise 4: an urgent message waits for at most one chunk of bulk data plus what the kernel already holds;
//! a lane that is full, or whose consumer is slow, stops itself and no other.

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

use unbroken::test_util::{Direction, Faults, Ways};
use unbroken::{BULK, Config, Event, NORMAL, Outcome, PeerConfig, URGENT};
use unbroken_test_support::cluster::{
    Pair, TIMEOUT, all_taken, any_addr, builder, calm_path, eventually, first_addr, flood,
};
use unbroken_test_support::numbered::message;

const MIB: usize = 1 << 20;

fn calm(config: &mut Config) {
    config.path = calm_path();
}

/// A link of 1 MB/s towards `b`, with a short queue before it.
fn slow_link() -> Pair {
    let pair = Pair::unconnected(calm, calm);
    pair.proxy.set(Faults {
        rate: Ways::only(Direction::ToTarget, Some(1_000_000)),
        recv_buffer: Some(32 * 1024),
        ..Faults::default()
    });
    pair.a.add_peer(PeerConfig::new(pair.proxy.addr().to_string())).unwrap();
    pair.wait_up();
    pair
}

/// Bytes per second that pass the proxy towards `b` while `during` runs, which has to take a while.
fn throughput(pair: &Pair, during: impl FnOnce()) -> f64 {
    let (start, before) = (Instant::now(), pair.proxy.bytes(Direction::ToTarget));
    during();
    (pair.proxy.bytes(Direction::ToTarget) - before) as f64 / start.elapsed().as_secs_f64()
}

/// One vote after the other until the time is over; how long each took from send to receipt.
fn vote(pair: &Pair, lasting: Duration) -> Vec<Duration> {
    let mut times = Vec::new();
    let end = Instant::now() + lasting;
    while Instant::now() < end {
        let start = Instant::now();
        let vote = pair.a.send(pair.b.id(), (URGENT, message(1, times.len() as u64, 64))).unwrap();
        assert_eq!(vote.wait_timeout(TIMEOUT), Some(Outcome::Taken));
        times.push(start.elapsed());
        thread::sleep(Duration::from_millis(20)); // The next vote of the next round.
    }
    times.sort();
    times
}

#[test]
fn votes_pass_blocks_on_a_saturated_link() {
    const WINDOW: Duration = Duration::from_secs(4);
    let pair = slow_link();
    let idle = vote(&pair, Duration::from_millis(300));
    let blocks = flood(&pair.a, pair.b.id(), BULK, 2, 16, |_| MIB);
    pair.b.wait_count(BULK, 2, 1);
    let alone = throughput(&pair, || thread::sleep(WINDOW));
    let mut times = Vec::new();
    let base = idle.len() as u64;
    let shared = throughput(&pair, || {
        let end = Instant::now() + WINDOW;
        let mut seq = base;
        while Instant::now() < end {
            let start = Instant::now();
            let vote = pair.a.send(pair.b.id(), (URGENT, message(1, seq, 64))).unwrap();
            assert_eq!(vote.wait_timeout(TIMEOUT), Some(Outcome::Taken));
            times.push(start.elapsed());
            seq += 1;
            thread::sleep(Duration::from_millis(20)); // The votes of a network come at some pace.
        }
    });
    times.sort();
    let at = |part: usize| times[(times.len() - 1) * part / 100];
    println!(
        "{} votes: p50 {:.1?}, p95 {:.1?}, worst {:.1?} (idle: {:.1?}); bulk {:.0} KB/s alone, {:.0} KB/s with votes ({:.1} %)",
        times.len(),
        at(50),
        at(95),
        at(100),
        idle[idle.len() / 2],
        alone / 1e3,
        shared / 1e3,
        100.0 * shared / alone,
    );
    assert!(at(95) < Duration::from_millis(250), "p95 {:?}", at(95));
    assert!(shared > 0.8 * alone, "{shared} bytes/s with votes, {alone} alone");
    assert!(alone > 600_000.0, "{alone} bytes/s: the link was not saturated");
    let (votes, blocks_taken) = pair.b.look(|log| (log.checker.count(URGENT, 1), log.checker.count(BULK, 2)));
    assert!(votes >= 20 && (5..16).contains(&blocks_taken), "{votes} votes, {blocks_taken} blocks");
    pair.b.check(votes + blocks_taken);
    blocks.join().unwrap();
}

#[test]
fn an_urgent_message_overtakes_what_is_queued() {
    let pair = slow_link();
    let (a, peer) = (&pair.a, pair.b.id());
    let block = a.send(peer, (BULK, message(1, 0, 3 * MIB))).unwrap();
    let transactions: Vec<_> =
        (0..100).map(|seq| a.send(peer, (NORMAL, message(2, seq, 10_000))).unwrap()).collect();
    eventually("the link is busy", || pair.proxy.bytes(Direction::ToTarget) > 100_000);
    let vote = a.send(peer, (URGENT, message(3, 0, 64))).unwrap();
    all_taken(&[vote]);
    assert_eq!((block.poll(), transactions[99].poll()), (None, None), "the vote came last");
    // The normal lane has four times the weight of the bulk lane: 1 MB of the one, 3 MiB of the other.
    all_taken(&transactions);
    assert_eq!(block.poll(), None, "bulk took more than its share");
    all_taken(&[block]);
    pair.b.check(102);
}

#[test]
fn a_flood_of_urgent_messages_starves_nobody() {
    let pair = slow_link();
    let urgent = flood(&pair.a, pair.b.id(), URGENT, 1, 160, |_| 50_000);
    pair.b.wait_count(URGENT, 1, 2);
    let block = pair.a.send(pair.b.id(), (BULK, message(2, 0, 60_000))).unwrap();
    all_taken(&[block]);
    let taken = pair.b.look(|log| log.checker.count(URGENT, 1));
    println!("the block arrived after {taken} of 160 urgent messages");
    assert!(taken < 155, "the block waited for the end of the flood");
    drop(urgent);
}

#[test]
fn a_consumer_that_stands_still_stops_its_own_lane_only() {
    let tune = |config: &mut Config| {
        calm(config);
        config.lanes[2].max_message = MIB;
        config.lanes[2].window = 2 * MIB;
        config.lanes[2].queue = 4 * MIB;
    };
    let pair = Pair::start(tune);
    let (a, b) = (&pair.a, &pair.b);
    let bulk = b.lane_receiver(BULK).unwrap();
    let blocks = flood(a, b.id(), BULK, 1, 12, |_| MIB / 2);
    eventually("the lane is full to its window, and so is its queue", || {
        let lane = |peer: &unbroken::PeerSnapshot| peer.lanes.iter().find(|lane| lane.lane == BULK).cloned();
        let full = b.peer(a.id()).and_then(|peer| lane(&peer)).unwrap().inbox_bytes > 3 * MIB as u64 / 2;
        let queue = a.peer(b.id()).and_then(|peer| lane(&peer)).unwrap().queued_bytes;
        full && queue > 7 * MIB / 2
    });
    assert!(!blocks.is_finished(), "the sender is held up");
    let mark = a.mark();
    for seq in 0..300 {
        let vote = a.send(b.id(), (URGENT, message(2, seq, 64))).unwrap();
        let transaction = a.send(b.id(), (NORMAL, message(3, seq, 5_000))).unwrap();
        let back = b.send(a.id(), (BULK, message(4, seq, 5_000))).unwrap();
        all_taken(&[vote, transaction, back]);
    }
    assert_eq!(a.mark(), mark, "the link had trouble");
    let mut seen = unbroken_test_support::numbered::Checker::default();
    while seen.messages < 12 {
        let message = bulk.recv_timeout(TIMEOUT).unwrap().expect("a block");
        seen.take(BULK, &message.into_bytes());
    }
    assert!(seen.errors.is_empty(), "{:?}", seen.errors);
    all_taken(&blocks.join().unwrap());
    b.check(600);
    a.check(300);
}

#[test]
fn the_receiving_application_gets_urgent_messages_first() {
    let b = builder(calm).listen(any_addr()).start().unwrap();
    let a = builder(calm).peer(first_addr(&b).to_string()).start().unwrap();
    eventually("linked", || a.peer(b.id()).is_some() && b.peer(a.id()).is_some());
    for lane in [BULK, NORMAL, URGENT] {
        for text in ["1", "2"] {
            a.send(b.id(), (lane, text)).unwrap();
        }
    }
    eventually("all have arrived", || b.peer(a.id()).unwrap().messages_received == 6);
    let mut order = Vec::new();
    while order.len() < 6 {
        if let Some(Event::Message(message)) = b.recv_timeout(TIMEOUT).unwrap() {
            order.push((message.lane(), message.into_bytes()));
        }
    }
    let expected = [URGENT, NORMAL, BULK].map(|lane| [(lane, "1".into()), (lane, "2".into())]).concat();
    assert_eq!(order, expected);
}
