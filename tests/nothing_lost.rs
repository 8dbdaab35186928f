//! Promise 2: while both processes live, every accepted message arrives exactly once and in order on its
//! lane, whatever happens to the connections beneath. If the receiving process restarts, what its
//! application had not taken is sent again.

#![cfg(target_os = "linux")] // As the fault proxy is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test: it fails by panicking, and it reads the real clock"
)]

use std::time::Duration;

use unbroken::test_util::{Direction, FaultProxy, Faults, Side, Ways, black_hole_supported};
use unbroken::{
    AckMode, BULK, Config, EndCause, Event, Identity, LaneId, NORMAL, PeerConfig, RequestError, URGENT,
};
use unbroken_test_support::child::{ChildNode, Taken};
use unbroken_test_support::cluster::{
    Pair, Peer, TIMEOUT, all_taken, any_addr, builder, eventually, first_addr, flood, mixed, skip,
};
use unbroken_test_support::numbered::message;

/// The whole life of a conversation in both directions on two lanes, while `harm` does its worst.
fn converse(pair: &Pair, count: u64, harm: impl FnOnce(&Pair)) {
    let (a, b) = (&pair.a, &pair.b);
    let floods = [
        flood(a, b.id(), URGENT, 1, count, |_| 64),
        flood(a, b.id(), NORMAL, 2, count, mixed),
        flood(b, a.id(), URGENT, 3, count, |_| 64),
        flood(b, a.id(), NORMAL, 4, count, mixed),
    ];
    harm(pair);
    for flood in floods {
        all_taken(&flood.join().unwrap());
    }
    for (peer, streams) in [(b, [1, 2]), (a, [3, 4])] {
        peer.wait_count(URGENT, streams[0], count);
        peer.wait_count(NORMAL, streams[1], count);
        peer.check(2 * count);
    }
}

/// No wait between attempts worth mentioning: these tests lose connections on purpose, by the dozen.
fn eager(config: &mut Config) {
    config.path.backoff_max = Duration::from_millis(100);
    config.path.breaker_threshold = 1000;
}

#[test]
fn resets_lose_nothing() {
    let pair = Pair::start(eager);
    converse(&pair, 1500, |pair| {
        for _ in 0..15 {
            let connected = pair.proxy.stats().connected;
            pair.proxy.reset_all();
            // The next reset comes when data flows again, wherever it then is.
            assert!(pair.proxy.wait_until(TIMEOUT, |stats| stats.connected > connected));
            let bytes = pair.proxy.bytes(Direction::ToTarget);
            pair.proxy.wait_until(Duration::from_millis(300), |stats| stats.bytes.to_target > bytes + 20_000);
        }
    });
    let reconnects = pair.a.peer(pair.b.id()).unwrap().reconnects;
    assert!(reconnects >= 10, "only {reconnects} reconnects");
}

#[test]
fn cuts_after_any_number_of_bytes_lose_nothing() {
    const CUTS: u64 = 40;
    let pair = Pair::start(eager);
    let mut rng = fastrand::Rng::with_seed(2);
    for cut in 0..CUTS {
        // In the preface, in HELLO, in the first frames, and far into the stream.
        let most = [100, 400, 3_000, 150_000][cut as usize % 4];
        let direction = Direction::BOTH[rng.usize(..2)];
        pair.proxy.cut_after(direction, rng.u64(..most));
    }
    converse(&pair, 1500, |pair| {
        pair.proxy.reset_all();
        // Pings alone would take long to use up the larger ones.
        let _ = pair.proxy.wait_until(Duration::from_secs(8), |stats| stats.cut == CUTS);
    });
    let cut = pair.proxy.stats().cut;
    assert!(cut >= 20, "only {cut} cuts");
}

#[test]
fn a_large_message_goes_on_where_it_was_cut() {
    const LEN: usize = 8 * 1024 * 1024;
    let pair = Pair::unconnected(eager, eager);
    pair.proxy.set(Faults {
        // A short queue in the kernel, so that what is under way is little against the message.
        recv_buffer: Some(32 * 1024),
        rate: Ways::only(Direction::ToTarget, Some(20_000_000)),
        ..Faults::default()
    });
    for megabytes in [1, 2, 1, 3] {
        pair.proxy.cut_after(Direction::ToTarget, megabytes * 1_000_000);
    }
    pair.a.add_peer(PeerConfig::new(pair.proxy.addr().to_string())).unwrap();
    pair.wait_up();
    let receipt = pair.a.send(pair.b.id(), (BULK, message(1, 0, LEN))).unwrap();
    all_taken(&[receipt]);
    pair.b.wait_count(BULK, 1, 1);
    pair.b.check(1);
    assert_eq!(pair.proxy.stats().cut, 4);
    let lanes = pair.a.peer(pair.b.id()).unwrap().lanes;
    let resent = lanes.iter().find(|lane| lane.lane == BULK).unwrap().resent_bytes;
    println!("{resent} of {LEN} bytes were sent twice over four cuts");
    assert!(resent < LEN as u64 / 2, "{resent} bytes sent again: not resumed in mid-message");
}

#[test]
fn silent_black_holes_lose_nothing_idle_or_under_load() {
    if !black_hole_supported() {
        return skip("no TCP_MD5SIG, no black hole");
    }
    let pair = Pair::start(eager);
    let (a, b) = (&pair.a, &pair.b);
    for seq in 0..3 {
        assert!(pair.proxy.black_hole());
        let receipt = a.send(b.id(), (URGENT, message(9, seq, 64))).unwrap();
        all_taken(&[receipt]);
        let receipt = b.send(a.id(), (URGENT, message(9, seq, 64))).unwrap();
        all_taken(&[receipt]);
    }
    let harm = |pair: &Pair| {
        for _ in 0..3 {
            let connected = pair.proxy.stats().connected;
            assert!(pair.proxy.black_hole());
            assert!(pair.proxy.wait_until(TIMEOUT, |stats| stats.connected > connected));
        }
    };
    let floods = [flood(a, b.id(), NORMAL, 2, 1000, mixed), flood(b, a.id(), NORMAL, 3, 1000, mixed)];
    harm(&pair);
    for flood in floods {
        all_taken(&flood.join().unwrap());
    }
    b.check(1003);
    a.check(1003);
}

#[test]
fn half_open_and_stalled_connections_lose_nothing() {
    let pair = Pair::start(eager);
    let (a, b) = (&pair.a, &pair.b);
    let mut sent = 0;
    let mut both_ways = |during: &dyn Fn()| {
        let floods = [flood(a, b.id(), NORMAL, sent, 100, mixed), flood(b, a.id(), NORMAL, sent, 100, mixed)];
        during();
        floods.into_iter().for_each(|flood| all_taken(&flood.join().unwrap()));
        sent += 100;
        a.check(sent);
        b.check(sent);
    };
    both_ways(&|| ());
    for side in [Side::Client, Side::Target] {
        match pair.proxy.half_open(side) {
            true => both_ways(&|| ()),
            false => skip("no TCP_MD5SIG, no half-open connection"),
        }
    }
    // All connections at once stand still, new ones too, for longer than it takes to give them up.
    let mark = a.mark();
    pair.proxy.update(|faults| faults.stall = Ways::both(true));
    both_ways(&|| {
        a.wait_event("given up", mark, |event| match event {
            Event::Disconnected { .. } | Event::DialFailed { .. } => Some(()),
            _ => None,
        });
        pair.proxy.update(|faults| faults.stall = Ways::both(false));
    });
}

#[test]
fn two_nodes_that_dial_each_other_agree_and_lose_nothing() {
    let a = Peer::start(builder(eager).listen(any_addr()));
    let b = Peer::start(builder(eager).listen(any_addr()));
    let to_b = FaultProxy::start(first_addr(&b)).unwrap();
    let to_a = FaultProxy::start(first_addr(&a)).unwrap();
    a.add_peer(PeerConfig::new(to_b.addr().to_string())).unwrap();
    b.add_peer(PeerConfig::new(to_a.addr().to_string())).unwrap();
    a.wait_up(b.id());
    b.wait_up(a.id());
    let floods = [flood(&a, b.id(), NORMAL, 1, 1500, mixed), flood(&b, a.id(), NORMAL, 2, 1500, mixed)];
    for round in 0..12 {
        let mark = a.mark();
        if round % 3 == 0 {
            to_a.reset_all();
            to_b.reset_all();
        } else if round % 3 == 1 {
            to_a.reset_all();
        } else {
            to_b.reset_all();
        }
        // Whichever of the two was in use: the one that was not is of no interest.
        let _ = a.wait_within(Duration::from_millis(300), |log| {
            let later = log.events.get(mark..).unwrap_or_default();
            later.iter().any(|(_, event)| matches!(event, Event::Connected { .. })).then_some(())
        });
    }
    for flood in floods {
        all_taken(&flood.join().unwrap());
    }
    a.check(1500);
    b.check(1500);
    let conns = |x: &Peer, y: &Peer| x.peer(y.id()).unwrap().connections.len();
    eventually("one connection is left, on both sides", || conns(&a, &b) == 1 && conns(&b, &a) == 1);
}

#[test]
fn requests_survive_reconnects() {
    let pair = Pair::start(eager);
    let (a, b) = (&pair.a, &pair.b);
    // Asked before the loss, answered after it.
    b.pause();
    let early: Vec<_> =
        (0..20).map(|seq| a.request(b.id(), (NORMAL, message(1, seq, 100))).unwrap()).collect();
    // The first batch may be taken yet; the last of them stay in the inbox.
    eventually("the requests are there", || b.peer(a.id()).is_some_and(|peer| peer.messages_received == 20));
    pair.proxy.reset_all();
    b.resume();
    for (seq, pending) in early.into_iter().enumerate() {
        assert_eq!(pending.wait().unwrap().into_bytes(), message(1, seq as u64, 100));
    }
    // Asked and answered in the middle of a storm.
    let node = a.node.clone();
    let peer = b.id();
    let asker = std::thread::spawn(move || {
        for seq in 0..300 {
            let question = message(2, seq, mixed(seq));
            let reply = node.request(peer, (NORMAL, question.clone())).unwrap().wait();
            assert_eq!(reply.unwrap().into_bytes(), question);
        }
    });
    while !asker.is_finished() {
        let bytes = pair.proxy.bytes(Direction::ToTarget);
        pair.proxy.wait_until(Duration::from_millis(100), |stats| stats.bytes.to_target > bytes + 100_000);
        pair.proxy.reset_all();
    }
    asker.join().unwrap();
    assert_eq!(b.look(|log| log.requests), 320, "each request is seen once");
}

// --- processes ------------------------------------------------------------------------------------

#[test]
#[ignore = "helper: child process"]
fn child_process() {
    unbroken_test_support::child::run();
}

fn child_config() -> Config {
    let mut config = Config { listen: vec![any_addr()], ..unbroken_test_support::cluster::config() };
    eager(&mut config);
    config.lanes[0].ack_mode = AckMode::Done;
    config
}

fn parent_of(child: &ChildNode) -> (Peer, FaultProxy) {
    let proxy = FaultProxy::start(child.addr).unwrap();
    let parent = Peer::start(builder(eager).peer(proxy.addr().to_string()));
    (parent, proxy)
}

fn took(lane: LaneId, stream: u64, seqs: std::ops::Range<u64>) -> Vec<Taken> {
    seqs.map(|seq| Taken { lane, stream, seq }).collect()
}

#[test]
fn a_frozen_and_thawed_peer_misses_nothing_and_repeats_nothing() {
    let identity = Identity::generate().unwrap();
    let mut child = ChildNode::start(&child_config(), &identity);
    let (parent, _proxy) = parent_of(&child);
    parent.wait_up(identity.peer_id());
    child.take_all();
    let flood = flood(&parent, identity.peer_id(), NORMAL, 1, 600, |_| 2000);
    for seq in 0..100 {
        assert_eq!(child.next_taken(), took(NORMAL, 1, seq..seq + 1)[0]);
    }
    let mark = parent.mark();
    child.child.freeze().unwrap();
    parent.wait_event("the frozen peer is given up", mark, |event| match event {
        Event::LinkDown { .. } => Some(()),
        _ => None,
    });
    child.child.thaw().unwrap();
    for seq in 100..600 {
        assert_eq!(child.next_taken(), took(NORMAL, 1, seq..seq + 1)[0]);
    }
    all_taken(&flood.join().unwrap());
    let restarts = parent.look(|log| log.count(|event| matches!(event, Event::PeerRestarted { .. })));
    assert_eq!(restarts, 0, "the same life of the peer goes on");
}

#[test]
fn a_restarted_peer_gets_again_what_it_had_not_taken() {
    let identity = Identity::generate().unwrap();
    let peer = identity.peer_id();
    let mut child = ChildNode::start(&child_config(), &identity);
    let (parent, proxy) = parent_of(&child);
    parent.wait_up(peer);
    // Taken from the inbox of a lane that waits for `done`, and not done.
    let votes = flood(&parent, peer, URGENT, 2, 10, |_| 64).join().unwrap();
    assert_eq!(child.take(10), took(URGENT, 2, 0..10));
    let receipts = flood(&parent, peer, NORMAL, 1, 50, |_| 3000).join().unwrap();
    assert_eq!(child.take(20), took(NORMAL, 1, 0..20));
    all_taken(&receipts[..20]);
    // In the middle of a large message.
    let block = parent.send(peer, (BULK, message(3, 0, 8 * 1024 * 1024))).unwrap();
    let question = parent.request(peer, (NORMAL, message(4, 0, 64))).unwrap();
    eventually("all is under way", || proxy.bytes(Direction::ToTarget) > 2_000_000);
    let mark = parent.mark();
    child.child.kill().unwrap();
    assert!(votes.iter().all(|vote| vote.poll().is_none()), "taken by nobody who lives");
    let mut child = ChildNode::start(&child_config(), &identity);
    proxy.retarget(child.addr);
    let (_, resent) = parent.wait_event("the restart", mark, |event| match event {
        Event::PeerRestarted { peer: who, resent, .. } if *who == peer => Some(*resent),
        _ => None,
    });
    // Exactly these, and none of what had been taken: 30 + 10 + 1 + 1.
    assert!((40..=42).contains(&resent), "{resent} resent");
    let mut taken = child.take(42);
    taken.sort_by_key(|taken| (taken.stream, taken.seq));
    let mut expected = took(NORMAL, 1, 20..50);
    expected.extend(took(URGENT, 2, 0..10));
    expected.extend(took(BULK, 3, 0..1));
    expected.extend(took(NORMAL, 4, 0..1));
    assert_eq!(taken, expected);
    assert_eq!(child.repeated(), Some(resent), "the new life is told too");
    all_taken(&receipts);
    all_taken(&[block]);
    assert!(child.reply().contains("Ok"));
    assert_eq!(question.wait().unwrap().into_bytes(), message(4, 0, 64));
    child.done();
    all_taken(&votes);
}

#[test]
fn a_request_that_was_taken_by_a_killed_peer_says_so() {
    let identity = Identity::generate().unwrap();
    let peer = identity.peer_id();
    let mut child = ChildNode::start(&child_config(), &identity);
    let (parent, proxy) = parent_of(&child);
    parent.wait_up(peer);
    let question = parent.request(peer, (NORMAL, message(1, 0, 64))).unwrap();
    child.take(1);
    all_taken(&[question.receipt().clone()]);
    child.child.kill().unwrap();
    let child = ChildNode::start(&child_config(), &identity);
    proxy.retarget(child.addr);
    assert_eq!(question.wait().err(), Some(RequestError::PeerRestarted));
}

#[test]
fn a_restarted_sender_is_told_apart_and_starts_anew() {
    let identity = Identity::generate().unwrap();
    let peer = identity.peer_id();
    let mut child = ChildNode::start(&child_config(), &identity);
    let (parent, proxy) = parent_of(&child);
    parent.wait_up(peer);
    let greeting = parent.send(peer, (NORMAL, message(1, 0, 64))).unwrap();
    child.take(1);
    all_taken(&[greeting]);
    child.send(NORMAL, 7, 25, 500);
    parent.wait_count(NORMAL, 7, 25);
    let mark = parent.mark();
    child.child.kill().unwrap();
    let (_, reason) = parent.wait_event("the loss", mark, |event| match event {
        Event::Disconnected { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    assert!(matches!(reason.cause, EndCause::Closed | EndCause::Io { .. }), "{reason}");
    let mut child = ChildNode::start(&child_config(), &identity);
    proxy.retarget(child.addr);
    parent.wait_event("the restart", mark, |event| match event {
        Event::PeerRestarted { .. } => Some(()),
        _ => None,
    });
    parent.wait_up(peer);
    child.send(NORMAL, 8, 25, 500);
    parent.wait_count(NORMAL, 8, 25);
    parent.check(50);
}
