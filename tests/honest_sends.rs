//! Promise 3: a send never says Ok for something it dropped. Every accepted message has a receipt that ends
//! in exactly one way; a refused one comes back; a full queue blocks, times out or refuses.

#![cfg(target_os = "linux")] // As the fault proxy is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test: it fails by panicking, and it reads the real clock"
)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::select;
use unbroken::test_util::{FaultProxy, Faults, Ways};
use unbroken::{
    AckMode, BULK, Config, DropReason, Event, Identity, LaneConfig, LaneId, Message, NORMAL, Node, Outcome,
    Outgoing, PeerConfig, PeerId, Receipt, RequestError, SendErrorKind, SendOrRecv, URGENT, WhenFull,
};
use unbroken_test_support::cluster::{
    Pair, Peer, TIMEOUT, all_taken, any_addr, builder, calm_path, eventually, first_addr,
};
use unbroken_test_support::numbered::{self, Checker, message};

const KIB: usize = 1024;

fn unloaded(config: &mut Config) {
    config.path = calm_path();
}

/// The link is lost, and stays lost until the proxy says otherwise.
fn cut_off(pair: &Pair) {
    pair.proxy.update(|faults| faults.refuse = true);
    pair.proxy.reset_all();
    for (peer, other) in [(&pair.a, pair.b.id()), (&pair.b, pair.a.id())] {
        eventually("the link is down", || peer.peer(other).unwrap().connections.is_empty());
    }
}

fn reunite(pair: &Pair) {
    pair.proxy.update(|faults| faults.refuse = false);
}

fn next_message(node: &Node) -> Message {
    let deadline = Instant::now() + TIMEOUT;
    while Instant::now() < deadline {
        if let Some(Event::Message(message)) = node.recv_timeout(TIMEOUT).unwrap() {
            return message;
        }
    }
    panic!("no message came")
}

#[test]
fn taken_means_taken() {
    let pair = Pair::start(unloaded);
    pair.b.pause();
    let first = pair.a.send(pair.b.id(), (NORMAL, message(1, 0, 100))).unwrap();
    let receipts: Vec<_> =
        (1..200).map(|seq| pair.a.send(pair.b.id(), (NORMAL, message(1, seq, 100))).unwrap()).collect();
    let received = || pair.b.peer(pair.a.id()).unwrap().messages_received;
    eventually("all are in the peer's memory", || received() == 200);
    // In its memory is not taken: a batch at most was under way when it paused.
    let last = receipts.last().unwrap();
    assert_eq!(last.poll(), None);
    assert_eq!(last.wait_timeout(Duration::from_millis(100)), None);
    let ready = last.ready();
    assert!(ready.is_empty());
    pair.b.resume();
    select! {
        recv(ready) -> token => token.unwrap(),
        default(TIMEOUT) => panic!("the receipt never became ready"),
    }
    assert_eq!(last.poll(), Some(Outcome::Taken));
    // It says the same for ever, however it is asked.
    assert_eq!(last.wait(), Outcome::Taken);
    last.ready().recv_timeout(TIMEOUT).unwrap();
    assert_eq!(first.clone().wait_timeout(TIMEOUT), Some(Outcome::Taken));
    all_taken(&receipts);
    pair.b.check(200);
}

#[test]
fn done_means_processed_in_any_order() {
    let lanes = |config: &mut Config| {
        unloaded(config);
        config.lanes.iter_mut().for_each(|lane| lane.ack_mode = AckMode::Done);
    };
    let b = builder(lanes).listen(any_addr()).start().unwrap();
    let a = Peer::start(builder(lanes).peer(first_addr(&b).to_string()));
    a.wait_up(b.id());
    let receipts: Vec<_> = (0..3).map(|seq| a.send(b.id(), (NORMAL, message(1, seq, 64))).unwrap()).collect();
    let mut held: Vec<Message> = (0..3).map(|_| next_message(&b)).collect();
    assert_eq!(receipts[0].wait_timeout(Duration::from_millis(150)), None, "taken out is not done");
    // Acknowledgements are cumulative: the second is done first, and waits for the first.
    drop(held.remove(1));
    assert_eq!(receipts[1].wait_timeout(Duration::from_millis(150)), None);
    held.remove(0).done();
    all_taken(&receipts[..2]);
    assert_eq!(receipts[2].poll(), None);
    drop(held);
    all_taken(&receipts);
    a.shutdown(Duration::ZERO);
}

#[test]
fn a_message_whose_time_is_over_is_not_sent_and_says_so() {
    let pair = Pair::start(unloaded);
    let peer = pair.b.id();
    cut_off(&pair);
    let brief = Outgoing::new(NORMAL, message(9, 0, 64)).expires_in(Duration::from_millis(100));
    let brief = pair.a.send(peer, brief).unwrap();
    let lasting = pair.a.send(peer, (NORMAL, message(1, 0, 64))).unwrap();
    let long = Outgoing::new(NORMAL, message(1, 1, 64)).expires_in(Duration::from_secs(60));
    let long = pair.a.send(peer, long).unwrap();
    assert_eq!(brief.wait_timeout(TIMEOUT), Some(Outcome::Expired));
    assert_eq!((lasting.poll(), long.poll()), (None, None));
    reunite(&pair);
    all_taken(&[lasting, long]);
    // The expired one is not among them: that would be an error of content and of count.
    pair.b.check(2);
    assert_eq!(pair.b.look(|log| log.checker.count(NORMAL, 9)), 0);
}

/// How many messages the application did not get, because they had expired when it would have taken them.
fn expired_on_arrival(node: &Node, from: PeerId) -> u64 {
    node.peer(from).unwrap().lanes.iter().map(|lane| lane.expired_on_arrival).sum()
}

#[test]
fn a_message_whose_time_is_over_when_the_peer_would_take_it_is_dropped_there_and_says_so() {
    let b = builder(unloaded).listen(any_addr()).start().unwrap();
    let a = Peer::start(builder(unloaded).peer(first_addr(&b).to_string()));
    a.wait_up(b.id());
    // The expiry is read by the clock of the sender, which its first answer tells.
    eventually("the sender has answered", || b.peer(a.id()).unwrap().connections[0].rtt_ms.is_some());
    let send = |seq, time: Option<u64>| {
        let message = Outgoing::new(NORMAL, message(1, seq, 64));
        let message = time.map(Duration::from_millis).into_iter().fold(message, Outgoing::expires_in);
        a.send(b.id(), message).unwrap()
    };
    let stale: Vec<_> = (0..50).map(|seq| send(seq, Some(100))).collect();
    let (lasting, fresh) = (send(50, None), send(51, Some(60_000)));
    eventually("all have arrived", || {
        b.peer(a.id()).unwrap().lanes.iter().any(|lane| lane.inbox_messages == 52)
    });
    assert_eq!(
        stale[0].wait_timeout(Duration::from_millis(200)),
        None,
        "their time is over, and nobody took them"
    );
    for seq in [50, 51] {
        assert_eq!(numbered::read(&next_message(&b).into_bytes()), Ok((1, seq)));
    }
    all_taken(&[lasting, fresh]);
    assert!(stale.iter().all(|receipt| receipt.wait_timeout(TIMEOUT) == Some(Outcome::Expired)));
    assert_eq!(expired_on_arrival(&b, a.id()), 50);
    let ended = a.peer(b.id()).unwrap().lanes.into_iter().find(|lane| lane.lane == NORMAL).unwrap();
    assert_eq!((ended.expired_messages, ended.taken_messages), (50, 2));
    a.shutdown(Duration::ZERO);
}

#[test]
fn a_message_that_had_begun_is_sent_to_its_end_and_expires_at_the_peer() {
    let pair = Pair::unconnected(unloaded, unloaded);
    pair.proxy.set(Faults {
        rate: Ways::both(Some(1_000_000)),
        recv_buffer: Some(16 * KIB),
        ..Faults::default()
    });
    pair.a.add_peer(PeerConfig::new(pair.proxy.addr().to_string())).unwrap();
    pair.wait_up();
    let peer = pair.b.id();
    let expiring =
        |seq| Outgoing::new(BULK, message(1, seq, 700 * KIB)).expires_in(Duration::from_millis(350));
    let first = pair.a.send(peer, expiring(0)).unwrap();
    let second = pair.a.send(peer, expiring(1)).unwrap();
    assert_eq!(second.wait_timeout(TIMEOUT), Some(Outcome::Expired));
    assert_eq!(first.wait_timeout(TIMEOUT), Some(Outcome::Expired));
    assert_eq!(expired_on_arrival(&pair.b, pair.a.id()), 1, "the second one was never sent");
    pair.b.check(0);
}

#[test]
fn messages_left_at_shutdown_end_as_dropped_and_later_ones_are_returned() {
    let pair = Pair::start(unloaded);
    let peer = pair.b.id();
    cut_off(&pair);
    let receipts: Vec<_> =
        (0..10).map(|seq| pair.a.send(peer, (NORMAL, message(1, seq, 64))).unwrap()).collect();
    let pending = pair.a.request(peer, (NORMAL, message(2, 0, 64))).unwrap();
    let waiting = receipts[9].clone();
    let waiter = thread::spawn(move || waiting.wait());
    pair.a.shutdown(Duration::ZERO);
    let dropped = Outcome::Dropped(DropReason::Shutdown);
    assert!(receipts.iter().all(|receipt| receipt.poll() == Some(dropped)));
    assert_eq!(waiter.join().unwrap(), dropped);
    assert_eq!(pending.wait().err(), Some(RequestError::Dropped(DropReason::Shutdown)));
    let late = message(3, 0, 64);
    let error = pair.a.send(peer, (NORMAL, late.clone())).unwrap_err();
    assert_eq!((error.kind(), error.clone().into_message()), (&SendErrorKind::Closed, late));
    let broadcast = pair.a.broadcast((NORMAL, "late"));
    assert_eq!(broadcast.refused(), [(peer, SendErrorKind::Closed)]);
}

#[test]
fn a_removed_peer_and_a_forgotten_one() {
    let pair = Pair::start(|config| {
        unloaded(config);
        config.resumption = Duration::from_millis(400);
    });
    let peer = pair.b.id();
    cut_off(&pair);
    let mark = pair.a.mark();
    let receipt = pair.a.send(peer, (NORMAL, message(1, 0, 64))).unwrap();
    let pending = pair.a.request(peer, (NORMAL, message(1, 1, 64))).unwrap();
    let forgotten = DropReason::ResumptionExpired;
    assert_eq!(receipt.wait_timeout(TIMEOUT), Some(Outcome::Dropped(forgotten)));
    assert_eq!(pending.wait().err(), Some(RequestError::Dropped(forgotten)));
    // Two events if this thread had no processor for so long between the two.
    pair.a.wait("the loss of both", |log| {
        let lost = log.events.iter().skip(mark).filter_map(|(_, event)| match event {
            Event::Lost { messages, by_peer: false, .. } => Some(*messages),
            _ => None,
        });
        (lost.sum::<usize>() == 2).then_some(())
    });
    // And the link works again afterwards, from a new beginning.
    reunite(&pair);
    pair.wait_up();
    let receipt = pair.a.send(peer, (NORMAL, message(2, 0, 64))).unwrap();
    all_taken(&[receipt]);
    pair.b.check(1);

    pair.b.pause();
    let receipts: Vec<_> =
        (1..100).map(|seq| pair.a.send(peer, (NORMAL, message(2, seq, 64))).unwrap()).collect();
    assert!(pair.a.remove_peer(peer));
    let last = receipts.last().unwrap().wait_timeout(TIMEOUT);
    assert_eq!(last, Some(Outcome::Dropped(DropReason::PeerRemoved)));
    assert!(receipts.iter().all(|receipt| receipt.poll().is_some()));
    let error = pair.a.send(peer, (NORMAL, "x")).unwrap_err();
    assert_eq!(error.kind(), &SendErrorKind::UnknownPeer(peer));
}

#[test]
fn messages_that_cannot_be_taken_are_refused_on_either_side() {
    let lane = |id: u8, max: usize| LaneConfig {
        id: LaneId(id),
        max_message: max,
        window: max + 64 * KIB,
        ..LaneConfig::default()
    };
    let pair = Pair::start_each(
        |config| {
            unloaded(config);
            config.lanes = vec![lane(1, 100 * KIB), lane(7, 100 * KIB)];
        },
        |config| {
            unloaded(config);
            config.lanes = vec![lane(1, 10 * KIB)];
        },
    );
    let peer = pair.b.id();
    let large = message(1, 0, 100 * KIB + 1);
    let error = pair.a.send(peer, (NORMAL, large.clone())).unwrap_err();
    assert_eq!(error.kind(), &SendErrorKind::TooLarge { len: 100 * KIB + 1, max: 100 * KIB });
    let again = error.clone().into_outgoing();
    assert_eq!((again.bytes(), error.into_message()), (&large[..], large.clone()));
    let error = pair.a.try_send(peer, (LaneId(9), "x")).unwrap_err();
    assert_eq!(error.kind(), &SendErrorKind::UnknownLane(LaneId(9)));
    assert_eq!(error.into_message(), "x");
    let stranger = PeerId::from_bytes([9; 32]);
    let error = pair.a.send(stranger, (NORMAL, "x")).unwrap_err();
    assert_eq!(error.kind(), &SendErrorKind::UnknownPeer(stranger));
    // Only the peer knows better: then the receipt tells, and what is behind goes on.
    let too_large = pair.a.send(peer, (NORMAL, message(1, 0, 50 * KIB))).unwrap();
    let fits = pair.a.send(peer, (NORMAL, message(2, 0, 10 * KIB))).unwrap();
    assert_eq!(too_large.wait_timeout(TIMEOUT), Some(Outcome::Dropped(DropReason::TooLargeForPeer)));
    all_taken(&[fits]);
    let no_lane = pair.a.send(peer, (LaneId(7), "x")).unwrap();
    assert_eq!(no_lane.wait_timeout(TIMEOUT), Some(Outcome::Dropped(DropReason::LaneRefused)));
    pair.b.check(1);
}

fn small_queue(config: &mut Config) {
    unloaded(config);
    config.lanes[1].max_message = 32 * KIB;
    config.lanes[1].queue = 64 * KIB;
}

/// The peer has only an identity, and dials when the queue has been full for long.
#[test]
fn a_full_queue_that_drops_its_oldest_says_which_and_keeps_the_newest_in_order() {
    const MESSAGES: usize = 1000;
    const LEN: usize = 1000;
    let lanes = |config: &mut Config| {
        unloaded(config);
        config.lanes[1].max_message = 2 * KIB;
        config.lanes[1].queue = 64 * KIB;
        config.lanes[1].when_full = WhenFull::DropOldest;
    };
    let identity = Identity::generate().unwrap();
    let peer = identity.peer_id();
    let a = builder(lanes).listen(any_addr()).peer(peer.to_string()).start().unwrap();
    let status = |number: usize| Bytes::from([&number.to_le_bytes()[..], &[7; LEN - 8]].concat());
    let oldest = a.broadcast((NORMAL, status(MESSAGES)));
    let send = |number| a.try_send(peer, (NORMAL, status(number))).expect("the oldest make room");
    let receipts: Vec<_> = (0..MESSAGES).map(send).collect();
    // Each message counts with 144 bytes more.
    let kept = 64 * KIB / (LEN + 144);
    let displaced = MESSAGES - kept;
    for receipt in &receipts[..displaced] {
        assert_eq!(receipt.poll(), Some(Outcome::Dropped(DropReason::Displaced)));
    }
    assert!(receipts[displaced..].iter().all(|receipt| receipt.poll().is_none()));
    let quorum = oldest.wait_for(1, TIMEOUT).unwrap_err();
    assert!(quorum.impossible, "{quorum}");
    assert_eq!(quorum.progress.failed, [(peer, Outcome::Dropped(DropReason::Displaced))]);
    let b = builder(lanes).identity(identity).peer(format!("{}@{}", a.id(), first_addr(&a)));
    let b = b.start().unwrap();
    for number in displaced..MESSAGES {
        assert_eq!(next_message(&b).into_bytes(), status(number));
    }
    all_taken(&receipts[displaced..]);
    let lane = &a.peer(peer).unwrap().lanes[1];
    assert_eq!((lane.displaced_messages, lane.taken_messages), (displaced as u64 + 1, kept as u64));
    assert_eq!((lane.dropped_messages, lane.refused_messages, lane.queued_bytes), (0, 0, 0));
    b.shutdown(Duration::ZERO);
    a.shutdown(Duration::ZERO);
}

/// The node's budget is short, and other lanes' messages stay.
#[test]
fn a_lane_that_drops_its_oldest_makes_room_from_its_own_messages_only() {
    let lanes = |config: &mut Config| {
        unloaded(config);
        config.max_queued_per_peer = 64 * KIB;
        config.lanes.iter_mut().for_each(|lane| lane.max_message = 4 * KIB);
        config.lanes[1].when_full = WhenFull::DropOldest;
    };
    let peer = Identity::generate().unwrap().peer_id();
    let a = builder(lanes).peer(peer.to_string()).start().unwrap();
    let send = |lane, len| a.try_send(peer, (lane, vec![1; len]));
    let first: Vec<_> = (0..2).map(|_| send(NORMAL, 500).unwrap()).collect();
    let blocks: Vec<_> = std::iter::from_fn(|| send(BULK, 4 * KIB).ok()).collect();
    // All that may go is less than this message needs.
    let error = send(NORMAL, 4 * KIB).unwrap_err();
    assert_eq!(error.kind(), &SendErrorKind::Full);
    let open = |receipts: &[Receipt]| receipts.iter().filter(|receipt| receipt.poll().is_none()).count();
    assert_eq!(open(&first), 2, "nothing was dropped in vain");
    let newer: Vec<_> = (0..4).map(|_| send(NORMAL, 1000).unwrap()).collect();
    assert_eq!((open(&first), open(&newer), newer[3].poll()), (0, 1, None));
    assert_eq!(newer[2].poll(), Some(Outcome::Dropped(DropReason::Displaced)));
    assert_eq!(open(&blocks), blocks.len(), "those of another lane stay");
    a.shutdown(Duration::ZERO);
}

#[test]
fn a_full_queue_refuses_times_out_or_blocks() {
    let pair = Pair::start(small_queue);
    let peer = pair.b.id();
    cut_off(&pair);
    let mut receipts = Vec::new();
    let refused = loop {
        match pair.a.try_send(peer, (NORMAL, message(1, receipts.len() as u64, 10_000))) {
            Ok(receipt) => receipts.push(receipt),
            Err(error) => break error,
        }
        assert!(receipts.len() < 10, "a queue of 64 KiB takes 100,000 bytes");
    };
    let next = receipts.len() as u64;
    assert_eq!(next, 6, "six messages of 10,000 bytes fit into 64 KiB");
    assert_eq!(refused.kind(), &SendErrorKind::Full);
    assert_eq!(refused.into_message(), message(1, next, 10_000));
    // The other lanes have room.
    receipts.push(pair.a.try_send(peer, (URGENT, message(2, 0, 64))).unwrap());

    let patience = Duration::from_millis(200);
    let start = Instant::now();
    let error = pair.a.send_timeout(peer, (NORMAL, message(1, next, 10_000)), patience).unwrap_err();
    assert!(start.elapsed() >= patience, "gave up after {:?}", start.elapsed());
    assert_eq!(error.kind(), &SendErrorKind::Timeout);
    let message_again = error.into_message();
    assert_eq!(message_again, message(1, next, 10_000));

    // One that waits as long as it takes, and one with patience enough.
    let (node, body) = (pair.a.node.clone(), message_again);
    let blocked = thread::spawn(move || node.send(peer, (NORMAL, body)).unwrap());
    let node = pair.a.node.clone();
    let patient =
        thread::spawn(move || node.send_timeout(peer, (LaneId(1), message(3, 0, 10_000)), TIMEOUT).unwrap());
    thread::sleep(Duration::from_millis(100)); // Nothing tells that a thread is blocked but that it does not return.
    assert!(!blocked.is_finished() && !patient.is_finished());
    reunite(&pair);
    receipts.push(blocked.join().unwrap());
    receipts.push(patient.join().unwrap());
    all_taken(&receipts);
    pair.b.check(9);
}

#[test]
fn many_threads_on_a_full_queue_lose_nothing() {
    let pair = Pair::start(small_queue);
    let peer = pair.b.id();
    let senders: Vec<_> = (0..8)
        .map(|stream| {
            let node = pair.a.node.clone();
            thread::spawn(move || {
                let mut receipts = Vec::new();
                while receipts.len() < 150 {
                    let seq = receipts.len() as u64;
                    let mut body = message(stream, seq, 3000);
                    // All three ways, again and again.
                    let mut way = 0;
                    let receipt = loop {
                        way += 1;
                        let outgoing = (NORMAL, body);
                        let sent = match way % 3 {
                            1 => node.try_send(peer, outgoing),
                            2 => node.send_timeout(peer, outgoing, Duration::from_millis(1)),
                            _ => node.send(peer, outgoing),
                        };
                        match sent {
                            Ok(receipt) => break receipt,
                            Err(error) => body = error.into_message(),
                        }
                    };
                    receipts.push(receipt);
                }
                receipts
            })
        })
        .collect();
    for sender in senders {
        all_taken(&sender.join().unwrap());
    }
    pair.b.check(8 * 150);
}

// --- broadcasts -----------------------------------------------------------------------------------

#[test]
fn a_broadcast_waits_for_no_slow_peer_and_says_which_have_it() {
    let hub = Peer::start(builder(small_queue).listen(any_addr()));
    let addr = first_addr(&hub).to_string();
    let proxy = FaultProxy::start(first_addr(&hub)).unwrap();
    let quick: Vec<_> = (0..2).map(|_| Peer::start(builder(small_queue).peer(addr.clone()))).collect();
    let slow = Peer::start(builder(small_queue).peer(proxy.addr().to_string()));
    for peer in quick.iter().chain([&slow]) {
        hub.wait_up(peer.id());
    }
    let mut quick_ids: Vec<PeerId> = quick.iter().map(|peer| peer.id()).collect();
    quick_ids.sort();
    let sorted = |peers: &[PeerId]| {
        let mut peers = peers.to_vec();
        peers.sort();
        peers
    };

    let all = hub.broadcast((NORMAL, message(1, 0, 64)));
    let progress = all.wait_for(3, TIMEOUT).unwrap();
    assert_eq!((progress.taken.len(), progress.failed.len(), progress.pending.len()), (3, 0, 0));
    assert!(all.refused().is_empty());

    // Nobody hears the slow one any more, but its link is not given up.
    proxy.update(|faults| faults.stall = Ways::both(true));
    let one = hub.broadcast((NORMAL, message(1, 1, 64)));
    assert_eq!(sorted(&one.wait_for(2, TIMEOUT).unwrap().taken), quick_ids);
    let error = one.wait_for(3, Duration::from_millis(100)).unwrap_err();
    assert_eq!((error.reached, error.wanted, error.impossible), (2, 3, false));
    assert_eq!(error.progress.pending, [slow.id()]);
    let error = one.wait_for(4, TIMEOUT).unwrap_err();
    assert!(error.impossible, "there are only three peers: {error}");
    // By weight: the slow one alone is worth more than both others.
    let weight = |peer| if peer == slow.id() { 10 } else { 3 };
    assert_eq!(sorted(&one.wait_for_weight(6, TIMEOUT, weight).unwrap().taken), quick_ids);
    let error = one.wait_for_weight(7, Duration::from_millis(50), weight).unwrap_err();
    assert_eq!((error.reached, error.wanted, error.impossible), (6, 7, false));
    let error = one.wait_for_weight(17, TIMEOUT, weight).unwrap_err();
    assert!(error.impossible);

    // Its queue fills, and then it is refused, without delay for anybody.
    let filled = (2..200).find(|seq| {
        let broadcast = hub.broadcast((NORMAL, message(1, *seq, 5000)));
        assert_eq!(sorted(&broadcast.wait_for(2, TIMEOUT).unwrap().taken), quick_ids);
        match broadcast.refused() {
            [] => false,
            refused => {
                assert_eq!(refused, [(slow.id(), SendErrorKind::Full)]);
                true
            }
        }
    });
    let count = filled.expect("a queue of 64 KiB is full some time") + 1;
    for peer in &quick {
        peer.check(count);
    }
    let some = hub.broadcast_to(&[quick_ids[0], PeerId::from_bytes([5; 32])], (URGENT, message(2, 0, 64)));
    assert_eq!(some.wait_for(1, TIMEOUT).unwrap().taken, [quick_ids[0]]);
    assert!(matches!(some.refused(), [(_, SendErrorKind::UnknownPeer(_))]));
    proxy.update(|faults| faults.stall = Ways::both(false));
    one.wait_for(3, TIMEOUT).unwrap();
    slow.check(count - 1);
}

#[test]
fn many_threads_can_wait_on_one_broadcast() {
    let hub = Peer::start(builder(unloaded).listen(any_addr()));
    let addr = first_addr(&hub).to_string();
    let [quick, slow] = [(); 2].map(|()| Peer::start(builder(unloaded).peer(addr.clone())));
    [&quick, &slow].iter().for_each(|peer| hub.wait_up(peer.id()));
    // Messages left in its inbox are not taken. (A batch at most was under way when it paused.)
    slow.pause();
    for seq in 0..20 {
        let broadcast = Arc::new(hub.broadcast((NORMAL, message(1, seq, 64))));
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let broadcast = Arc::clone(&broadcast);
                thread::spawn(move || {
                    let start = Instant::now();
                    broadcast.wait_for(1, TIMEOUT).unwrap();
                    start.elapsed()
                })
            })
            .collect();
        for waiter in waiters {
            let took = waiter.join().unwrap();
            assert!(took < TIMEOUT / 2, "a waiter slept for {took:?} although the message was taken");
        }
    }
}

// --- requests -------------------------------------------------------------------------------------

#[test]
fn a_request_ends_with_a_reply_a_timeout_or_a_cancellation() {
    let b = builder(unloaded).listen(any_addr()).start().unwrap();
    let a = Peer::start(builder(unloaded).peer(first_addr(&b).to_string()));
    a.wait_up(b.id());
    let question = |seq| (NORMAL, message(1, seq, 64));
    let answer = |message: &mut Message| message.reply(Bytes::from_static(b"yes"));

    // Answered, once.
    let pending = a.request(b.id(), question(0)).unwrap();
    let mut message = next_message(&b);
    assert!(message.is_request() && message.is_awaited());
    assert!(pending.poll().is_none() && pending.ready().is_empty());
    answer(&mut message).unwrap();
    assert_eq!(answer(&mut message).unwrap_err().kind(), &SendErrorKind::NoSuchRequest);
    pending.ready().recv_timeout(TIMEOUT).unwrap();
    assert_eq!(pending.poll().unwrap().unwrap().into_bytes(), "yes");
    assert!(pending.poll().is_none(), "the reply is given once");

    // Not in time: the requester is told, and the one who answers too late as well.
    let wait = Duration::from_millis(200);
    let start = Instant::now();
    let pending = a.request_timeout(b.id(), question(1), wait).unwrap();
    let mut message = next_message(&b);
    assert_eq!(pending.wait().err(), Some(RequestError::Timeout));
    assert!(start.elapsed() >= wait);
    eventually("the request is over there too", || !message.is_awaited());
    assert_eq!(answer(&mut message).unwrap_err().kind(), &SendErrorKind::NoSuchRequest);

    // Cancelled after it was seen.
    let pending = a.request(b.id(), question(2)).unwrap();
    let mut message = next_message(&b);
    assert!(message.is_awaited());
    drop(pending);
    eventually("the cancellation has arrived", || !message.is_awaited());
    let error = answer(&mut message).unwrap_err();
    assert_eq!((error.kind(), error.clone().into_message()), (&SendErrorKind::NoSuchRequest, "yes".into()));

    // A plain message cannot be answered.
    let receipt = a.send(b.id(), question(3)).unwrap();
    assert_eq!(answer(&mut next_message(&b)).unwrap_err().kind(), &SendErrorKind::NoSuchRequest);
    all_taken(&[receipt]);
    assert_eq!(a.peer(b.id()).unwrap().requests_waiting, 0);
}

#[test]
fn a_request_that_was_never_sent_is_withdrawn() {
    let pair = Pair::start(|config| {
        unloaded(config);
        config.max_requests = 3;
    });
    let peer = pair.b.id();
    cut_off(&pair);
    let ask = |seq| pair.a.request(peer, (NORMAL, message(1, seq, 64)));
    let pending: Vec<_> = (0..3).map(|seq| ask(seq).unwrap()).collect();
    let error = ask(3).unwrap_err();
    assert_eq!(error.kind(), &SendErrorKind::TooManyRequests { max: 3 });
    assert_eq!(error.into_message(), message(1, 3, 64));
    let receipts: Vec<_> = pending.iter().map(|pending| pending.receipt().clone()).collect();
    drop(pending);
    let cancelled = Some(Outcome::Dropped(DropReason::Cancelled));
    assert!(receipts.iter().all(|receipt| receipt.wait_timeout(TIMEOUT) == cancelled));
    let late = pair.a.request_timeout(peer, (NORMAL, message(1, 4, 64)), Duration::from_millis(50)).unwrap();
    let receipt = late.receipt().clone();
    assert_eq!(late.wait().err(), Some(RequestError::Timeout));
    assert_eq!(receipt.wait_timeout(TIMEOUT), cancelled);
    reunite(&pair);
    pair.wait_up();
    let reply = ask(5).unwrap().wait().unwrap();
    assert_eq!(reply.into_bytes(), message(1, 5, 64));
    assert_eq!(pair.b.look(|log| log.requests), 1, "the others were never sent");
}

// --- waiting for room -----------------------------------------------------------------------------

#[test]
fn errors_that_no_wait_can_change_are_returned_at_once() {
    const MIB: usize = 1024 * KIB;
    let pair = Pair::start(|config| {
        unloaded(config);
        config.max_queued = 4 * MIB;
        config.lanes.iter_mut().for_each(|lane| lane.max_message = MIB);
    });
    let (a, peer) = (&pair.a, pair.b.id());
    for len in [2 * MIB, 5 * MIB] {
        let message = || (NORMAL, vec![1; len]);
        let too_large = SendErrorKind::TooLarge { len, max: MIB };
        assert_eq!(a.send(peer, message()).unwrap_err().kind(), &too_large);
        assert_eq!(a.try_send(peer, message()).unwrap_err().kind(), &too_large);
        assert_eq!(a.send_timeout(peer, message(), TIMEOUT).unwrap_err().kind(), &too_large);
        assert_eq!(a.request(peer, message()).unwrap_err().kind(), &too_large);
        assert_eq!(a.broadcast(message()).refused(), [(peer, too_large)]);
        let lane = LaneId(9);
        let unknown = SendErrorKind::UnknownLane(lane);
        assert_eq!(a.send(peer, (lane, vec![1; len])).unwrap_err().kind(), &unknown);
        assert_eq!(a.broadcast((lane, vec![1; len])).refused(), [(peer, unknown)]);
    }
    // Replies are no exception.
    let c = builder(unloaded).peer(pair.proxy.addr().to_string()).start().unwrap();
    while c.peers().is_empty() || c.peer(peer).is_none_or(|link| link.connections.is_empty()) {
        c.recv_timeout(TIMEOUT).unwrap().expect("it comes up");
    }
    let timeout = Duration::from_secs(120);
    let error = c.request_timeout(peer, (NORMAL, "x"), timeout).unwrap_err();
    let max = Duration::from_secs(60);
    assert_eq!(error.kind(), &SendErrorKind::RequestTimeoutTooLong { timeout, max });
    assert!(error.to_string().contains("60s") && error.into_message() == "x");
    c.shutdown(Duration::ZERO);
}

#[test]
fn a_reply_waits_for_room_and_what_had_none_is_counted() {
    let b = builder(small_queue).listen(any_addr()).start().unwrap();
    let a = Peer::start(builder(small_queue).peer(first_addr(&b).to_string()));
    a.wait_up(b.id());
    a.pause();
    let pending = a.request(b.id(), (NORMAL, "how much?")).unwrap();
    let mut request = next_message(&b);
    // The peer takes nothing: its window fills, and then this side's queue.
    let (mut sent, mut refused) = (0, 0);
    eventually("nothing moves any more", || {
        match b.try_send(a.id(), (NORMAL, message(1, sent, 30_000))) {
            Ok(_) => (sent, refused) = (sent + 1, 0),
            Err(_) => refused += 1,
        }
        refused == 20
    });
    let error = request.reply(vec![7; 30_000]).unwrap_err();
    assert_eq!(error.kind(), &SendErrorKind::Full);
    assert_eq!(error.into_outgoing().lane(), NORMAL);
    let error = request.reply_timeout(vec![7; 30_000], Duration::from_millis(100)).unwrap_err();
    assert_eq!((error.kind(), error.clone().into_message().len()), (&SendErrorKind::Timeout, 30_000));
    let refused = b.peer(a.id()).unwrap().lanes.iter().map(|lane| lane.refused_messages).sum::<u64>();
    assert!(refused >= 22, "{refused} were refused");
    let waits =
        thread::spawn(move || request.reply_timeout(vec![7; 30_000], TIMEOUT).map(|receipt| receipt.wait()));
    a.resume();
    assert_eq!(waits.join().unwrap().ok(), Some(Outcome::Taken));
    assert_eq!(pending.wait().unwrap().len(), 30_000);
    a.shutdown(Duration::ZERO);
}

#[test]
fn a_reply_that_is_too_large_says_so() {
    let server = builder(|config| {
        unloaded(config);
        config.max_queued = 4096 * KIB;
        config.lanes.iter_mut().for_each(|lane| lane.max_message = 1024 * KIB);
    });
    let server = server.listen(any_addr()).start().unwrap();
    let client = Peer::start(builder(unloaded).peer(first_addr(&server).to_string()));
    client.wait_up(server.id());
    let pending = client.request(server.id(), (NORMAL, "how much?")).unwrap();
    let mut request = next_message(&server);
    for len in [2048 * KIB, 5120 * KIB] {
        let error = request.reply(vec![1; len]).unwrap_err();
        assert_eq!(error.kind(), &SendErrorKind::TooLarge { len, max: 1024 * KIB });
    }
    request.reply("less").unwrap();
    assert_eq!(pending.wait().unwrap().into_bytes(), "less");
    server.shutdown(Duration::ZERO);
}

#[test]
fn senders_that_wait_are_served_in_the_order_in_which_they_came() {
    let pair = Pair::unconnected(
        |config| {
            unloaded(config);
            config.lanes[1].max_message = 200 * KIB;
            config.lanes[1].queue = 256 * KIB;
        },
        unloaded,
    );
    pair.proxy.set(Faults { rate: Ways::both(Some(2_000_000)), ..Faults::default() });
    pair.a.add_peer(PeerConfig::new(pair.proxy.addr().to_string())).unwrap();
    pair.wait_up();
    let (peer, accepted) = (pair.b.id(), AtomicUsize::new(0));
    let (stop, node) = (AtomicBool::new(false), &pair.a.node);
    thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        for stream in 0..4 {
            let (accepted, stop) = (&accepted, &stop);
            scope.spawn(move || {
                let mut seq = 0;
                while !stop.load(SeqCst) {
                    node.send(peer, (NORMAL, message(stream, seq, KIB))).unwrap();
                    seq += 1;
                    accepted.fetch_add(1, SeqCst);
                }
            });
        }
        eventually("the queue is full", || accepted.load(SeqCst) > 500);
        let before = accepted.load(SeqCst);
        let large = node.send_timeout(peer, (NORMAL, message(9, 0, 200 * KIB)), TIMEOUT).unwrap();
        let passed = accepted.load(SeqCst) - before;
        // A queue full of them and those that waited already, with generous room for a busy machine.
        assert!(passed < 3000, "{passed} small ones were accepted before it");
        all_taken(&[large]);
    });
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[test]
fn senders_that_wait_while_the_node_shuts_down_learn_that() {
    let pair = Pair::start(small_queue);
    let peer = pair.b.id();
    cut_off(&pair);
    while pair.a.try_send(peer, (NORMAL, vec![1; KIB])).is_ok() {}
    let waiting: Vec<_> = (0..8)
        .map(|_| {
            let node = pair.a.node.clone();
            thread::spawn(move || node.send(peer, (NORMAL, vec![2; KIB])).unwrap_err().kind().clone())
        })
        .collect();
    // Whether they wait by then or come later, they hear the same.
    thread::sleep(Duration::from_millis(200));
    pair.a.shutdown(Duration::ZERO);
    for sender in waiting {
        assert_eq!(sender.join().unwrap(), SendErrorKind::Closed);
    }
}

#[test]
fn senders_and_requesters_that_wait_for_a_slow_peer_while_the_node_shuts_down_learn_that() {
    let b = builder(small_queue).listen(any_addr()).start().unwrap();
    let a = Peer::start(builder(small_queue).peer(first_addr(&b).to_string()));
    let peer = b.id();
    a.wait_up(peer);
    // Its application takes nothing: the window and then the queue fill up.
    while a.send_timeout(peer, (NORMAL, vec![1; 30 * KIB]), Duration::from_millis(500)).is_ok() {}
    let waiting: Vec<_> = (0..9)
        .map(|number| {
            let (node, message) = (a.node.clone(), (NORMAL, vec![2; 30 * KIB]));
            thread::spawn(move || {
                let refused = match number % 3 {
                    0 => node.send(peer, message).map(drop),
                    1 => node.send_timeout(peer, message, TIMEOUT * 4).map(drop),
                    _ => node.request_timeout(peer, message, Duration::from_secs(60)).map(drop),
                };
                refused.unwrap_err().kind().clone()
            })
        })
        .collect();
    thread::sleep(Duration::from_millis(200));
    assert!(waiting.iter().all(|sender| !sender.is_finished()), "they wait");
    a.shutdown(Duration::from_millis(500));
    for sender in waiting {
        assert_eq!(sender.join().unwrap(), SendErrorKind::Closed);
    }
    b.shutdown(Duration::ZERO);
}

// --- one thread that sends and receives -----------------------------------------------------------

/// A node with one thread: sends 100 messages of 1 MiB and receives as many, by [`Node::send_or_recv`].
fn send_and_receive(node: &Node, peer: PeerId) -> Vec<Receipt> {
    const COUNT: u64 = 100;
    let (mut received, mut receipts) = (Checker::default(), Vec::new());
    let take = |received: &mut Checker, event| {
        if let Event::Message(message) = event {
            received.take(message.lane(), &message.into_bytes());
        }
    };
    for seq in 0..COUNT {
        let mut next: Outgoing = (NORMAL, message(1, seq, 1024 * KIB)).into();
        loop {
            match node.send_or_recv(peer, next).unwrap() {
                SendOrRecv::Sent(receipt) => break receipts.push(receipt),
                SendOrRecv::Received { event, message } => {
                    take(&mut received, event);
                    next = message;
                }
            }
        }
    }
    while received.messages < COUNT {
        take(&mut received, node.recv_timeout(TIMEOUT).unwrap().expect("the rest comes"));
    }
    assert!(received.errors.is_empty(), "{:?}", received.errors);
    receipts
}

#[test]
fn two_nodes_with_one_thread_each_do_not_wait_for_each_other_for_ever() {
    let a = builder(unloaded).listen(any_addr()).start().unwrap();
    let b = builder(unloaded).peer(first_addr(&a).to_string()).start().unwrap();
    a.wait_linked(b.id(), TIMEOUT).unwrap();
    b.wait_linked(a.id(), TIMEOUT).unwrap();
    // With a send that only waits they would: the error says what may be the matter.
    let stuck = |node: &Node, peer| {
        let send = || node.send_timeout(peer, (BULK, vec![7; 1024 * KIB]), Duration::from_millis(500));
        let mut sent = 0;
        loop {
            match send() {
                Ok(_) => sent += 1,
                Err(error) => break (sent, error),
            }
        }
    };
    let [from_a, from_b] = thread::scope(|threads| {
        let other = threads.spawn(|| stuck(&b, a.id()));
        [stuck(&a, b.id()), other.join().unwrap()]
    });
    for (node, (sent, error)) in [(&b, from_a), (&a, from_b)] {
        assert_eq!(error.kind(), &SendErrorKind::Timeout);
        assert!(error.to_string().contains("on the thread that receives"), "{error}");
        (0..sent).for_each(|_| drop(next_message(node)));
    }
    let receipts = thread::scope(|threads| {
        let other = threads.spawn(|| send_and_receive(&b, a.id()));
        [send_and_receive(&a, b.id()), other.join().unwrap()]
    });
    receipts.iter().for_each(|receipts| all_taken(receipts));
    // The end of the node ends the wait too.
    let (node, peer) = (a.clone(), b.id());
    let waiting = thread::spawn(move || {
        loop {
            match node.send_or_recv(peer, (BULK, vec![7; 1024 * KIB])) {
                Ok(_) => {}
                Err(error) => break error.kind().clone(),
            }
        }
    });
    // The share of a stranger in the node's budget is some 30 MiB.
    eventually("the queue is full", || a.peer(peer).unwrap().lanes[2].queued_bytes > 25 * 1024 * KIB);
    a.shutdown(Duration::ZERO);
    assert_eq!(waiting.join().unwrap(), SendErrorKind::Closed);
    b.shutdown(Duration::ZERO);
}

/// A pool of buffers behind a lock, as an application may have one.
struct Pool {
    lock: Mutex<usize>,
    node: Node,
    peer: PeerId,
}

struct Buffer(Arc<Pool>, Vec<u8>);

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.1
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.0.node.peer(self.0.peer);
        *self.0.lock.lock().unwrap() += 1;
        self.0.node.peer(self.0.peer);
    }
}

#[test]
fn a_body_s_destructor_may_take_a_lock_that_the_sender_holds_and_call_the_node() {
    let pair = Pair::start(small_queue);
    let (node, peer) = (pair.a.node.clone(), pair.b.id());
    let pool = Arc::new(Pool { lock: Mutex::new(0), node: node.clone(), peer });
    let body = |seq: u64, len| Bytes::from_owner(Buffer(Arc::clone(&pool), message(1, seq, len).to_vec()));
    let mut receipts = Vec::new();
    for seq in 0..3000 {
        let body = body(seq, if seq % 10 == 0 { 20 * KIB } else { 200 });
        let _held = pool.lock.lock().unwrap();
        // It waits for room, which the destructors of earlier ones must not keep from coming.
        receipts.push(node.send_timeout(peer, (NORMAL, body), TIMEOUT).unwrap());
    }
    all_taken(&receipts);
    pair.b.check(3000);
    eventually("all bodies were dropped", || *pool.lock.lock().unwrap() == 3000);
    // A message that ends unsent is no exception, however it ends.
    cut_off(&pair);
    let expiring = Outgoing::new(NORMAL, body(3000, 100)).expires_in(Duration::from_millis(50));
    let expiring = node.send(peer, expiring).unwrap();
    assert_eq!(expiring.wait_timeout(TIMEOUT), Some(Outcome::Expired));
    drop(node.request(peer, (NORMAL, body(3001, 100))).unwrap());
    let kept = node.send(peer, (NORMAL, body(3002, 100))).unwrap();
    let held = pool.lock.lock().unwrap();
    assert!(node.remove_peer(peer));
    assert_eq!(kept.wait_timeout(TIMEOUT), Some(Outcome::Dropped(DropReason::PeerRemoved)));
    // The destructors wait for this thread; it does not wait for them.
    node.shutdown(Duration::from_millis(100));
    drop(held);
    eventually("all bodies were dropped", || *pool.lock.lock().unwrap() == 3003);
}

#[test]
fn many_at_once_arrive_in_order_and_the_first_that_is_refused_says_what_became_of_the_others() {
    let pair = Pair::start(small_queue);
    let (node, peer) = (pair.a.node.clone(), pair.b.id());
    let numbered = |from: u64, to: u64| (from..to).map(|seq| (NORMAL, message(1, seq, 300)));
    // More than the queue holds: it waits.
    let receipts = node.send_many(peer, numbered(0, 3000)).unwrap();
    assert_eq!(receipts.len(), 3000);
    let between = node.send(peer, (NORMAL, message(1, 3000, 300))).unwrap();
    let timed = |seq| Outgoing::new(NORMAL, message(1, seq, 300)).expires_in(TIMEOUT);
    let more = node.send_many(peer, (3001..3100).map(timed)).unwrap();
    all_taken(&receipts);
    all_taken(&[between]);
    all_taken(&more);
    pair.b.check(3100);
    let largest = node.config().lanes.iter().find(|lane| lane.id == NORMAL).unwrap().max_message;
    let bad = numbered(3100, 3110).chain([(NORMAL, vec![7; largest + 1].into())]).chain(numbered(3110, 3400));
    let error = node.send_many(peer, bad).unwrap_err();
    assert_eq!((error.receipts.len(), error.rest.len()), (10, 290));
    assert!(matches!(error.error.kind(), SendErrorKind::TooLarge { .. }), "{error}");
    all_taken(&error.receipts);
    all_taken(&node.send_many(peer, error.rest).unwrap());
    pair.b.check(3400);
}

#[test]
fn a_peer_handle_goes_on_with_a_peer_that_was_removed_and_added_again() {
    let pair = Pair::start(small_queue);
    let peer = pair.b.id();
    let handle = pair.a.peer_handle(peer);
    assert_eq!(handle.send((NORMAL, message(1, 0, 300))).unwrap().wait(), Outcome::Taken);
    assert!(pair.a.remove_peer(peer));
    let again = message(1, 1, 300);
    let refused = [
        handle.send((NORMAL, again.clone())).unwrap_err(),
        handle.send_many([(NORMAL, again.clone())]).unwrap_err().error,
    ];
    for error in refused {
        assert_eq!(*error.kind(), SendErrorKind::UnknownPeer(peer));
        assert_eq!(error.into_message(), again);
    }
    let config = PeerConfig { id: Some(peer), ..PeerConfig::new(pair.proxy.addr().to_string()) };
    pair.a.add_peer(config).unwrap();
    // It waits for the link.
    let receipt = handle.clone().send((NORMAL, again.clone())).unwrap();
    assert_eq!(receipt.wait_timeout(TIMEOUT), Some(Outcome::Taken));
    assert_eq!(
        handle.send((NORMAL, message(1, 2, 300))).unwrap().wait_timeout(TIMEOUT),
        Some(Outcome::Taken)
    );
}
