//! Promise 12: queues are bounded in bytes, per lane, per peer and for the whole node, on both sides.

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
use std::time::Duration;

use unbroken::test_util::FaultProxy;
use unbroken::{
    BULK, Config, Event, Identity, LaneId, LaneSnapshot, NORMAL, Node, PeerConfig, PeerId, Receipt,
    SendErrorKind, URGENT,
};
use unbroken_test_support::cluster::{
    Pair, Peer, TIMEOUT, all_taken, any_addr, builder, calm_path, eventually, first_addr, flood,
};
use unbroken_test_support::numbered::{Checker, message};

const KIB: usize = 1024;
/// The cost of a queued message beyond its bytes: header and bookkeeping.
const EACH: usize = 16 + 128;

/// Small lanes: messages to 64 KiB, windows of 256 KiB, queues of 512 KiB.
fn small(config: &mut Config) {
    config.path = calm_path();
    for lane in &mut config.lanes {
        lane.max_message = 64 * KIB;
        lane.window = 256 * KIB;
        lane.queue = 512 * KIB;
    }
}

/// A node that wants peers which are not there: everything that is sent to them waits.
fn lonely(peers: usize, tune: impl Fn(&mut Config)) -> (Peer, Vec<PeerId>, FaultProxy) {
    let nobody = FaultProxy::start(any_addr()).unwrap();
    nobody.update(|faults| faults.refuse = true);
    let ids: Vec<PeerId> = (0..peers).map(|_| Identity::generate().unwrap().peer_id()).collect();
    let node = Peer::start(builder(|config| {
        small(config);
        tune(config);
        for (index, id) in ids.iter().enumerate() {
            // One proxy for all, under different names, which nobody answers.
            let address = format!("127.0.0.{}:{}", index + 1, nobody.addr().port());
            config.peers.push(PeerConfig { id: Some(*id), ..PeerConfig::new(address) });
        }
    }));
    (node, ids, nobody)
}

/// Sends until it is refused; gives what was accepted.
fn fill(node: &Node, peer: PeerId, lane: LaneId, len: usize) -> Vec<Receipt> {
    let mut receipts = Vec::new();
    loop {
        match node.try_send(peer, (lane, vec![7; len])) {
            Ok(receipt) => receipts.push(receipt),
            Err(error) => {
                assert_eq!(error.kind(), &SendErrorKind::Full);
                assert_eq!(error.into_message().len(), len);
                return receipts;
            }
        }
        assert!(receipts.len() < 100_000, "there is no bound");
    }
}

fn lane_of(node: &Node, peer: PeerId, lane: LaneId) -> LaneSnapshot {
    node.peer(peer).unwrap().lanes.into_iter().find(|snapshot| snapshot.lane == lane).unwrap()
}

#[test]
fn a_lane_s_queue_is_bounded_in_bytes_and_so_are_empty_messages() {
    let (node, ids, _nobody) = lonely(2, |_| ());
    let accepted = fill(&node, ids[0], NORMAL, 10_000).len();
    assert_eq!(accepted, 512 * KIB / (10_000 + EACH));
    assert!(lane_of(&node, ids[0], NORMAL).queued_bytes <= 512 * KIB);
    // Other lanes, and other peers, are not concerned.
    assert_eq!(fill(&node, ids[0], BULK, 10_000).len(), accepted);
    assert_eq!(fill(&node, ids[1], NORMAL, 10_000).len(), accepted);
    let empty = fill(&node, ids[0], URGENT, 0).len();
    assert_eq!(empty, 512 * KIB / EACH, "empty messages cost something too");
}

#[test]
fn the_credit_of_a_lane_is_the_window_less_what_was_not_taken() {
    let start = |peer: Option<String>| {
        let tune = |config: &mut Config| {
            small(config);
            config.listen = vec![any_addr()];
            config.peers.extend(peer.iter().cloned().map(PeerConfig::new));
        };
        builder(tune).start().unwrap()
    };
    let to = start(None);
    let from = start(Some(to.local_addrs()[0].to_string()));
    from.wait_linked(to.id(), TIMEOUT).unwrap();
    let credit = || lane_of(&from, to.id(), NORMAL).credit;
    assert_eq!(credit(), 256 * KIB as u64);
    let message = || (NORMAL, vec![7; 60_000]);
    let receipts: Vec<Receipt> = (0..4).map(|_| from.send(to.id(), message()).unwrap()).collect();
    eventually("all of it was sent", || credit() < 256 * KIB as u64 - 4 * 60_000);
    let lane = to.lane_receiver(NORMAL).unwrap();
    (0..4).for_each(|_| drop(lane.recv().unwrap()));
    all_taken(&receipts);
    eventually("credit came back", || credit() > 256 * KIB as u64 - 60_000);
}

#[test]
fn a_peer_s_queues_are_bounded_together() {
    let (node, ids, _nobody) = lonely(2, |config| config.max_queued_per_peer = 700 * KIB);
    let first = fill(&node, ids[0], NORMAL, 10_000).len();
    let second = fill(&node, ids[0], BULK, 10_000).len();
    assert_eq!(first, 512 * KIB / (10_000 + EACH));
    assert_eq!(first + second, 700 * KIB / (10_000 + EACH));
    let queued: usize = node.peer(ids[0]).unwrap().lanes.iter().map(|lane| lane.queued_bytes).sum();
    assert!(queued <= 700 * KIB);
    assert_eq!(fill(&node, ids[1], NORMAL, 10_000).len(), first);
}

#[test]
fn a_node_s_queues_are_bounded_together_and_room_is_given_back() {
    let (node, ids, _nobody) = lonely(3, |config| config.max_queued = 1200 * KIB);
    let mut accepted: Vec<Vec<Receipt>> = ids.iter().map(|id| fill(&node, *id, NORMAL, 10_000)).collect();
    let count: usize = accepted.iter().map(Vec::len).sum();
    let queued = node.snapshot().queued_bytes;
    assert!(queued <= 1200 * KIB && queued == count * (10_000 + EACH), "{queued}");
    // Nobody got less than a third of what is guaranteed to all, which is half of what one message leaves.
    let guaranteed = (1200 - 65) * KIB / 2 / 3 / (10_000 + EACH);
    assert!(accepted.iter().all(|receipts| receipts.len() >= guaranteed), "{guaranteed} were guaranteed");
    // A broadcast is held against the same bound, for each peer once.
    assert_eq!(node.broadcast((URGENT, vec![0; 60_000])).refused().len(), 3);
    // A sender that waits for room gets it when another peer's messages go.
    let (waiting, peer) = (node.node.clone(), ids[2]);
    let blocked = thread::spawn(move || waiting.send(peer, (BULK, vec![7; 10_000])).unwrap());
    let timed = node.send_timeout(peer, (NORMAL, vec![7; 10_000]), Duration::from_millis(50));
    assert_eq!(timed.unwrap_err().kind(), &SendErrorKind::Timeout);
    assert!(!blocked.is_finished());
    let freed = accepted.remove(0);
    assert!(node.remove_peer(ids[0]));
    assert!(freed.iter().all(|receipt| receipt.wait_timeout(TIMEOUT).is_some()));
    drop(blocked.join().unwrap());
    assert_eq!(node.snapshot().queued_bytes, (count - freed.len() + 1) * (10_000 + EACH));
    assert!(!fill(&node, ids[2], BULK, 10_000).is_empty());
}

/// Votes to a peer whose application takes them are accepted, however many wait for others.
fn votes_are_accepted(node: &Node, peer: PeerId) {
    for _ in 0..600 {
        let vote = node.try_send(peer, (URGENT, vec![1; 100]));
        all_taken(&[vote.unwrap()]);
    }
}

#[test]
fn messages_for_absent_peers_take_nothing_from_others() {
    let honest = Peer::start(builder(small).listen(any_addr()));
    let address = first_addr(&honest).to_string();
    let (node, absent, _nobody) = lonely(16, |config| {
        config.max_queued = 4096 * KIB;
        config.peers.push(PeerConfig::new(address.clone()));
    });
    node.wait_up(honest.id());
    for id in &absent {
        // More than the budget, if nobody bounded it.
        assert!(!fill(&node, *id, BULK, 40_000).is_empty());
        assert!(!fill(&node, *id, NORMAL, 1000).is_empty());
    }
    votes_are_accepted(&node, honest.id());
    // The largest message is more than a share, and gets through as well.
    all_taken(&[node.send(honest.id(), (BULK, vec![2; 64 * KIB])).unwrap()]);
}

#[test]
fn strangers_that_take_nothing_take_nothing_from_others() {
    let honest = Peer::start(builder(small).listen(any_addr()));
    let node = Peer::start(
        builder(|config| {
            small(config);
            config.max_queued = 2048 * KIB;
        })
        .listen(any_addr())
        .peer(first_addr(&honest).to_string()),
    );
    node.wait_up(honest.id());
    let stranger = || builder(small).peer(first_addr(&node).to_string());
    let deaf: Vec<Node> = (0..8).map(|_| stranger().start().unwrap()).collect();
    let mut waiting = Vec::new();
    for stranger in &deaf {
        node.wait_up(stranger.id());
        waiting.extend(fill(&node, stranger.id(), BULK, 40_000));
        waiting.extend(fill(&node, stranger.id(), NORMAL, 1000));
    }
    assert!(node.broadcast((BULK, vec![3; 60_000])).refused().len() >= 7);
    votes_are_accepted(&node, honest.id());
    all_taken(&[node.send(honest.id(), (BULK, vec![2; 64 * KIB])).unwrap()]);
    // Another stranger has a share too.
    let other = Peer::start(stranger());
    node.wait_up(other.id());
    votes_are_accepted(&node, other.id());
    let held: usize = node.snapshot().queued_bytes;
    assert!(held <= (2048 + 65) * KIB / 4, "strangers hold {held} bytes");
    // Bytes that are given up are released.
    for stranger in &deaf {
        assert!(node.remove_peer(stranger.id()));
    }
    assert!(waiting.iter().all(|receipt| receipt.wait_timeout(TIMEOUT).is_some()));
    eventually("nothing is queued", || node.snapshot().queued_bytes == 0);
    deaf.iter().for_each(|node| node.shutdown(Duration::ZERO));
}

// --- the receiving side ---------------------------------------------------------------------------

/// A node whose application takes nothing until the test does.
fn receiver(tune: impl FnOnce(&mut Config)) -> Node {
    builder(tune).listen(any_addr()).start().unwrap()
}

fn sender_to(node: &Node) -> Peer {
    let sender = Peer::start(builder(small).peer(first_addr(node).to_string()));
    sender.wait_up(node.id());
    sender
}

/// Takes messages until `enough`.
fn take_until(node: &Node, checker: &mut Checker, mut enough: impl FnMut(&Checker) -> bool) {
    while !enough(checker) {
        let event = node.recv_timeout(TIMEOUT).unwrap().expect("something to take");
        if let Event::Message(message) = event {
            let lane = message.lane();
            checker.take(lane, &message.into_bytes());
        }
    }
}

#[test]
fn a_slow_consumer_costs_one_window_and_its_sender_waits() {
    let b = receiver(small);
    let a = sender_to(&b);
    // More than window and queue together.
    let flood = flood(&a, b.id(), NORMAL, 1, 200, |_| 10_000);
    eventually("the window and the queue are full", || {
        lane_of(&b, a.id(), NORMAL).inbox_bytes > 240_000
            && lane_of(&a, b.id(), NORMAL).queued_bytes > 500_000
    });
    let full = lane_of(&a, b.id(), NORMAL);
    assert!(!flood.is_finished());
    let mut checker = Checker::default();
    while checker.messages < 200 {
        let held = b.snapshot().inbox_bytes;
        assert!(held <= 256 * KIB as u64, "{held} bytes held, the window is 256 KiB");
        let next = checker.messages + 1;
        take_until(&b, &mut checker, |checker| checker.messages >= next);
    }
    assert!(checker.errors.is_empty(), "{:?}", checker.errors);
    all_taken(&flood.join().unwrap());
    assert!(full.queued_bytes <= 512 * KIB);
    eventually("nothing is held", || b.snapshot().inbox_bytes == 0);
    b.shutdown(Duration::ZERO);
}

#[test]
fn a_window_is_one_window_over_any_number_of_connections() {
    let b = receiver(small);
    let proxy = FaultProxy::start(first_addr(&b)).unwrap();
    let a = Peer::start(builder(small).peer(proxy.addr().to_string()));
    a.wait_up(b.id());
    let flood = flood(&a, b.id(), NORMAL, 1, 100, |_| 10_000);
    for _ in 0..10 {
        eventually("the window is full", || lane_of(&b, a.id(), NORMAL).inbox_bytes > 240_000);
        let connected = proxy.stats().connected;
        proxy.reset_all();
        assert!(proxy.wait_until(TIMEOUT, |stats| stats.connected > connected));
        a.wait_up(b.id());
        let held = b.snapshot().inbox_bytes;
        assert!(held <= 256 * KIB as u64, "{held} bytes held, the window is 256 KiB");
    }
    let mut checker = Checker::default();
    take_until(&b, &mut checker, |checker| checker.messages == 100);
    assert!(checker.errors.is_empty(), "{:?}", checker.errors);
    all_taken(&flood.join().unwrap());
    b.shutdown(Duration::ZERO);
}

#[test]
fn many_tiny_messages_are_bounded_by_number() {
    let b = receiver(|config| {
        small(config);
        config.lanes[1].max_untaken = 100;
    });
    let a = sender_to(&b);
    let flood = flood(&a, b.id(), NORMAL, 1, 1000, |_| 24);
    eventually("as many as are allowed", || lane_of(&b, a.id(), NORMAL).inbox_messages == 100);
    let vote = a.send(b.id(), (URGENT, message(2, 0, 64))).unwrap();
    eventually("the vote is there too", || lane_of(&b, a.id(), URGENT).inbox_messages == 1);
    assert_eq!(lane_of(&b, a.id(), NORMAL).inbox_messages, 100);
    let mut checker = Checker::default();
    take_until(&b, &mut checker, |checker| {
        assert!(lane_of(&b, a.id(), NORMAL).inbox_messages <= 100);
        checker.messages == 1001
    });
    assert!(checker.errors.is_empty(), "{:?}", checker.errors);
    all_taken(&flood.join().unwrap());
    all_taken(&[vote]);
    b.shutdown(Duration::ZERO);
}

#[test]
fn a_node_that_holds_too_much_gives_no_new_credit_until_it_holds_less() {
    const WINDOW: u64 = 256 * KIB as u64;
    let b = receiver(|config| {
        small(config);
        config.max_inbox = 300 * KIB;
    });
    let senders: Vec<Peer> = (0..3).map(|_| sender_to(&b)).collect();
    let mut floods: Vec<_> = Vec::new();
    let start_flood = |sender: &Peer, stream| flood(sender, b.id(), NORMAL, stream, 150, |_| 10_000);
    for (stream, sender) in senders.iter().enumerate() {
        floods.push(start_flood(sender, stream as u64));
    }
    let full = |count: u64| {
        eventually("every window is full", || b.snapshot().inbox_bytes > count * (WINDOW - 16_000));
    };
    full(3);
    // A stranger that comes when it is too much already is not let in: names cost nothing, and each has a
    // window.
    let late = Peer::start(builder(small).peer(first_addr(&b).to_string()));
    late.wait_event("its refusal", 0, |event| matches!(event, Event::DialFailed { .. }).then_some(()));
    assert_eq!(b.peers().len(), 3);
    let most = b.snapshot().inbox_bytes;
    assert!(most <= 3 * WINDOW, "{most} bytes held, three windows are {}", 3 * WINDOW);
    // More than half is taken: without the bound the senders would fill their windows again.
    let mut checker = Checker::default();
    take_until(&b, &mut checker, |checker| checker.bytes >= most * 6 / 10);
    let left = most - checker.bytes;
    thread::sleep(Duration::from_millis(400)); // That nothing comes is told by no event.
    let held = b.snapshot().inbox_bytes;
    // Messages for which credit had been granted still come.
    let granted = 3 * WINDOW - most;
    assert!(
        held <= left + granted,
        "{held} bytes held, {left} were left, {granted} granted: credit was given"
    );
    // And then it is given again, all of it arrives, and the stranger comes in.
    take_until(&b, &mut checker, |checker| checker.messages == 450);
    late.wait_up(b.id());
    floods.push(start_flood(&late, 3));
    take_until(&b, &mut checker, |checker| checker.messages == 600);
    assert!(checker.errors.is_empty(), "{:?}", checker.errors);
    for flood in floods {
        all_taken(&flood.join().unwrap());
    }
    b.shutdown(Duration::ZERO);
}

#[test]
fn events_are_bounded_and_messages_are_never_dropped_with_them() {
    let pair = Pair::start_each(small, |config| {
        small(config);
        config.max_events = 8;
    });
    let (a, b) = (&pair.a, &pair.b);
    b.pause();
    // One batch may be under way.
    eventually("its application stands still", || {
        let receipt = a.send(b.id(), (URGENT, message(9, 0, 24))).unwrap();
        receipt.wait_timeout(Duration::from_millis(300)).is_none()
    });
    for round in 0..12 {
        a.send(b.id(), (NORMAL, message(1, round, 1000))).unwrap();
        let connected = pair.proxy.stats().connected;
        pair.proxy.reset_all();
        assert!(pair.proxy.wait_until(TIMEOUT, |stats| stats.connected > connected));
        pair.wait_up();
    }
    eventually("the messages are there", || lane_of(b, a.id(), NORMAL).inbox_messages == 12);
    let lost = b.snapshot().events_lost;
    assert!(lost >= 12, "{lost} events lost of at least 24 and 8 kept");
    let before = b.mark();
    b.resume();
    b.wait_count(NORMAL, 1, 12);
    let kept = b.mark() - before;
    assert!(kept <= 8 + 2, "{kept} events were kept");
}
