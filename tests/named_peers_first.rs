//! Promise 13: whatever strangers use up, the peers that the operator named still have their share of it. The
//! shares of the queues are in `known_cost.rs` too, for small budgets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test may panic, and runs on the real clock and real threads"
)]

use std::net::IpAddr;
use std::time::Duration;

use unbroken::{BULK, Config, Event, Identity, Node, PeerConfig, PeerId, URGENT};
use unbroken_test_support::cluster::{Peer, TIMEOUT, all_taken, any_addr, builder, eventually, first_addr};
use unbroken_test_support::raw::{self, Raw, RawIdentity};

const CREDIT: u64 = 1 << 20;

/// A node whose application takes nothing yet, and a peer that it named and that is linked with it.
fn node_and_named_peer(tune: impl FnOnce(&mut Config)) -> (Node, Peer) {
    let identity = Identity::generate().unwrap();
    let named = identity.peer_id();
    let node = builder(|config| {
        config.peers.push(PeerConfig::inbound_only(named));
        config.admission.exempt = vec!["127.0.0.1/32".parse().unwrap()];
        config.admission.connects_at_once = 10_000;
        tune(config);
    });
    let node = node.listen(any_addr()).start().unwrap();
    let peer = builder(|_| {}).identity(identity).peer(format!("{}@{}", node.id(), first_addr(&node)));
    let peer = Peer::start(peer);
    peer.wait_up(node.id());
    eventually("the peer is connected", || is_connected(&node, &peer));
    (node, peer)
}

fn is_connected(node: &Node, peer: &Node) -> bool {
    node.peer(peer.id()).is_some_and(|peer| !peer.connections.is_empty())
}

/// So many strangers come, one after the other, and leave.
fn visits(node: &Node, count: u16) {
    for visit in 0..count {
        let from: IpAddr = [127, 1, (visit % 250) as u8, 1].into();
        drop(Raw::dial_from(from, first_addr(node), &RawIdentity::new(visit, CREDIT)).unwrap());
    }
    eventually("they have left", || node.snapshot().connections == 1);
}

#[test]
fn events_of_strangers_keep_no_urgent_message_waiting() {
    const VOTES: usize = 64;
    let (node, peer) = node_and_named_peer(|_| {});
    visits(&node, 200);
    let votes: Vec<_> = (0..VOTES).map(|_| peer.send(node.id(), (URGENT, "vote")).unwrap()).collect();
    eventually("the votes have arrived", || node.peer(peer.id()).unwrap().lanes[0].inbox_messages == VOTES);
    let (mut taken, mut events) = (0, 0);
    while taken < VOTES {
        match node.recv_timeout(TIMEOUT).unwrap().expect("a vote") {
            Event::Message(_) => taken += 1,
            _ => events += 1,
        }
    }
    all_taken(&votes);
    // Those of the named peer itself, and one of a stranger for 16 others.
    assert!(events < VOTES / 2, "{events} events came before the last of {VOTES} votes");
    let rest = std::iter::from_fn(|| node.try_recv().unwrap()).count();
    assert!(rest > 400, "{rest} events were left: too few to delay anything");
}

#[test]
fn events_have_a_receiver_of_their_own() {
    let (node, peer) = node_and_named_peer(|_| {});
    let events = node.event_receiver().expect("the first one");
    assert!(node.event_receiver().is_none());
    visits(&node, 3);
    let vote = peer.send(node.id(), (URGENT, "vote")).unwrap();
    let first = node.recv_timeout(TIMEOUT).unwrap();
    assert!(matches!(first, Some(Event::Message(_))), "{first:?}");
    all_taken(&[vote]);
    assert!(node.try_recv().unwrap().is_none());
    // Events about the named peer come first.
    let about = |event: Event| match event {
        Event::Connected { peer, .. } => Some(peer),
        _ => None,
    };
    let told: Vec<_> = std::iter::from_fn(|| events.try_recv().unwrap()).filter_map(about).collect();
    assert_eq!((told.first(), told.len()), (Some(&peer.id()), 4), "{told:?}");
    visits(&node, 1);
    drop(events);
    assert!(node.recv_timeout(TIMEOUT).unwrap().is_some(), "they are given back");
    assert!(node.event_receiver().is_some());
    node.shutdown(Duration::ZERO);
}

#[test]
fn a_peer_that_is_known_by_its_identity_alone_finds_its_place_among_strangers() {
    let identity = Identity::generate().unwrap();
    let named = identity.peer_id();
    let node = builder(|config| {
        config.peers.push(PeerConfig::inbound_only(named));
        (config.admission.max_inbound, config.admission.reserved) = (8, 2);
    });
    let node = node.listen(any_addr()).start().unwrap();
    let addr = first_addr(&node);
    let known = node.peer(named).unwrap();
    assert!(known.wanted && known.addresses.is_empty() && known.next_dial_ms.is_none());
    let early = node.send(named, (URGENT, "it waits")).unwrap();
    let strangers: Vec<_> =
        (0..12).map(|seed| Raw::dial(addr, &RawIdentity::new(seed + 1, CREDIT))).collect();
    eventually("strangers have all that they may have", || node.snapshot().connections == 6);
    eventually("others were refused, or took their places", || {
        let snapshot = node.snapshot();
        snapshot.refused + snapshot.evicted >= 6
    });
    let peer = Peer::start(builder(|_| {}).identity(identity).peer(format!("{}@{addr}", node.id())));
    peer.wait_up(node.id());
    eventually("the peer is connected", || is_connected(&node, &peer));
    all_taken(&[early]);
    assert_eq!(node.snapshot().connections, 7, "beside the strangers");
    // Its records are for dials, and there is nothing to dial.
    assert!(node.records().iter().all(|record| record.peer != Some(named)));
    drop(strangers);
    peer.shutdown(Duration::ZERO);
    eventually("it is gone", || !is_connected(&node, &peer));
    assert!(node.remove_peer(named) && node.peer(named).is_none());
    node.shutdown(Duration::ZERO);
}

// --- unfinished messages --------------------------------------------------------------------------

const MIB: usize = 1 << 20;

/// So many bytes of the stream of the bulk lane, from `offset`: a message of `len` bytes, of which the last
/// one is left out.
fn begin_message(raw: &mut Raw, len: usize) {
    let stream = [&(len as u32).to_le_bytes()[..], &vec![7; len - 1]].concat();
    send_stream(raw, 0, &stream);
}

fn send_stream(raw: &mut Raw, offset: usize, stream: &[u8]) {
    for (index, piece) in stream.chunks(MIB / 2).enumerate() {
        let offset = (offset + index * (MIB / 2)) as u64;
        raw.send(raw::CHUNK, &[&[BULK.0, 0][..], &offset.to_le_bytes(), piece].concat()).unwrap();
    }
}

fn bulk_bytes(node: &Node, peer: PeerId) -> u64 {
    node.peer(peer).map_or(0, |peer| peer.lanes[2].inbox_bytes)
}

#[test]
fn unfinished_messages_of_strangers_keep_nobody_out_and_named_peers_go_on_where_they_were() {
    const LEN: usize = 4 * MIB;
    const MAX: usize = 32 * MIB;
    let mut named = RawIdentity::new(1, CREDIT);
    let node = Peer::start(
        builder(|config| {
            config.max_inbox = MAX;
            config.lanes.iter_mut().for_each(|lane| lane.max_message = MIB);
            config.lanes[2].max_message = LEN;
            config.admission.connects_at_once = 10_000;
            config.peers.push(named.id().into());
        })
        .listen(any_addr()),
    );
    let addr = first_addr(&node);
    // A named peer is cut in the middle of a message.
    let half = [&(LEN as u32).to_le_bytes()[..], &vec![5; LEN / 2]].concat();
    let mut raw = Raw::dial(addr, &named).unwrap();
    send_stream(&mut raw, 0, &half);
    eventually("half of it has arrived", || bulk_bytes(&node, named.id()) == half.len() as u64);
    named.hello.peer_session_id = Some(raw.hello.session_id);
    drop(raw);
    // One address, one connection at a time, 28 identities.
    let from: IpAddr = [127, 1, 1, 1].into();
    let mut most = 0;
    for seed in 100..128 {
        let who = RawIdentity::new(seed, CREDIT);
        let mut raw =
            Raw::dial_from(from, addr, &who).expect("nobody is refused for what others left behind");
        begin_message(&mut raw, LEN);
        eventually("it has arrived", || bulk_bytes(&node, who.id()) == LEN as u64 + 3);
        most = most.max(node.snapshot().inbox_bytes);
    }
    eventually("they are gone", || node.snapshot().connections == 0);
    let share = || node.snapshot().inbox_bytes <= (half.len() + MAX / 4) as u64;
    eventually("strangers have their share at most", share);
    // Until the monitor has looked, one more of them may be there.
    assert!(most <= (half.len() + MAX / 4 + 2 * LEN) as u64, "{most} bytes");
    // An honest stranger gets through, with messages of the greatest size.
    let honest = Peer::start(builder(|_| {}).peer(addr.to_string()));
    honest.wait_up(node.id());
    let blocks: Vec<_> = (0..8).map(|_| honest.send(node.id(), (BULK, vec![3; LEN])).unwrap()).collect();
    all_taken(&blocks);
    // The named peer goes on where it was.
    let mut raw = Raw::dial(addr, &named).unwrap();
    assert_eq!(raw.hello.lanes[2].received, half.len() as u64);
    send_stream(&mut raw, half.len(), &vec![5; LEN / 2]);
    eventually("it is whole and taken", || bulk_bytes(&node, named.id()) == 0);
    assert_eq!(node.peer(named.id()).unwrap().messages_received, 1);
}

#[test]
fn strangers_that_stay_with_unfinished_messages_make_room_too() {
    const LEN: usize = 4 * MIB;
    let node = Peer::start(
        builder(|config| {
            config.max_inbox = 32 * MIB;
            config.lanes.iter_mut().for_each(|lane| lane.max_message = MIB);
            config.lanes[2].max_message = LEN;
        })
        .listen(any_addr()),
    );
    let mut kept = Vec::new();
    for seed in 100..108 {
        let who = RawIdentity::new(seed, CREDIT);
        let mut raw = Raw::dial(first_addr(&node), &who).unwrap();
        begin_message(&mut raw, LEN);
        eventually("it has arrived", || bulk_bytes(&node, who.id()) == LEN as u64 + 3);
        kept.push((who, raw));
    }
    eventually("strangers have their share at most", || node.snapshot().inbox_bytes <= 8 * MIB as u64);
    // The one that was here first has used the most. It is told why.
    let (who, raw) = &mut kept[0];
    assert!(node.peer(who.id()).is_none_or(|peer| peer.connections.is_empty()));
    let told = loop {
        match raw.read_frame().unwrap() {
            (raw::GOAWAY, body) => break body[0],
            _ => continue,
        }
    };
    assert_eq!(told, 4, "retired");
}

// --- the queues, with default settings ------------------------------------------------------------

/// Blocks to everybody and votes to the named peer, none of which is refused there.
fn broadcasts_reach(node: &Node, named: PeerId, rounds: usize, block: &[u8], votes: usize) {
    let block = bytes::Bytes::copy_from_slice(block);
    let mut refused_elsewhere = 0;
    for round in 0..rounds {
        let broadcast = node.broadcast((BULK, block.clone()));
        let refused = broadcast.refused();
        assert!(refused.iter().all(|(peer, _)| *peer != named), "block {round}: {refused:?}");
        refused_elsewhere += refused.len();
        for _ in 0..votes {
            let vote = node.broadcast((URGENT, "vote"));
            assert!(
                vote.refused().iter().all(|(peer, _)| *peer != named),
                "vote {round}: {:?}",
                vote.refused()
            );
        }
        // As far as the named peer is concerned nothing waits.
        let taken =
            || node.peer(named).is_some_and(|peer| peer.lanes.iter().all(|lane| lane.queued_bytes == 0));
        eventually("the named peer has taken it", taken);
    }
    assert!(refused_elsewhere > 0, "the budget was never short");
}

#[test]
fn strangers_that_grant_no_credit_take_no_vote_from_a_named_peer() {
    let honest = Peer::start(builder(|_| {}).listen(any_addr()));
    let node = Peer::start(
        builder(|config| config.path = unbroken::PathConfig::default()).listen(any_addr()).peer(format!(
            "{}@{}",
            honest.id(),
            first_addr(&honest)
        )),
    );
    node.wait_up(honest.id());
    let addr = first_addr(&node);
    let strangers: Vec<_> = (0..20)
        .map(|seed| {
            let mut raw = Raw::dial(addr, &RawIdentity::new(seed + 1, 0)).unwrap();
            let stream = raw.stream.try_clone().unwrap();
            let answers = std::thread::spawn(move || {
                while let Ok((kind, body)) = raw.read_frame() {
                    if kind == raw::PING && raw.send(raw::PONG, &body).is_err() {
                        break;
                    }
                }
            });
            (stream, answers)
        })
        .collect();
    eventually("they are linked", || node.snapshot().connections == 21);
    broadcasts_reach(&node, honest.id(), 200, &vec![7; MIB], 3);
    assert_eq!(node.snapshot().connections, 21, "they were linked all the time");
    assert!(node.snapshot().queued_bytes <= 256 * MIB);
    for (stream, answers) in strangers {
        stream.shutdown(std::net::Shutdown::Both).unwrap();
        answers.join().unwrap();
    }
}

#[test]
fn absent_peers_take_no_vote_from_a_healthy_one() {
    let healthy = Peer::start(builder(|_| {}).listen(any_addr()));
    let absent = (0..16u8).map(|number| {
        let id = Identity::generate().unwrap().peer_id();
        PeerConfig::new(format!("{id}@127.0.0.{}:9", number + 1))
    });
    let node = Peer::start(builder(|config| {
        config.peers.extend(absent);
        config.peers.push(PeerConfig::new(format!("{}@{}", healthy.id(), first_addr(&healthy))));
    }));
    node.wait_up(healthy.id());
    broadcasts_reach(&node, healthy.id(), 40, &vec![7; 4 * MIB], 15);
}

#[test]
fn names_that_are_gone_take_no_vote_from_a_healthy_peer() {
    let healthy = Peer::start(builder(|_| {}).listen(any_addr()));
    let mut life = builder(|_| {}).listen(any_addr()).start().unwrap();
    let addr = first_addr(&life);
    let node = Peer::start(builder(|config| {
        config.path.backoff_max = config.path.backoff_first;
        config.peers.push(PeerConfig::new(addr.to_string()));
        config.peers.push(PeerConfig::new(format!("{}@{}", healthy.id(), first_addr(&healthy))));
    }));
    node.wait_up(healthy.id());
    // Each with a new key at the same address, and blocks that it had no time to take.
    let block = bytes::Bytes::from(vec![7; 4 * MIB]);
    for _ in 0..18 {
        node.wait_up(life.id());
        let gone = life.id();
        life.shutdown(Duration::ZERO);
        while node.try_send(gone, (BULK, block.clone())).is_ok() {}
        life = builder(|_| {}).listen(addr).start().unwrap();
    }
    node.wait_up(life.id());
    // The messages that wait for the last names are more than strangers may have, unless the first ones were
    // forgotten for it.
    let queued = node.snapshot().queued_bytes;
    println!("{} MiB wait for names that are gone", queued / MIB);
    assert!(queued > 256 * MIB, "{queued} bytes: the budget was never short");
    for _ in 0..880 {
        let vote = node.broadcast((URGENT, "vote"));
        assert!(vote.refused().iter().all(|(peer, _)| *peer != healthy.id()), "{:?}", vote.refused());
    }
    let last = [(URGENT, bytes::Bytes::from("the last one")), (BULK, block.clone()), (BULK, block)];
    all_taken(&last.map(|last| node.send_timeout(healthy.id(), last, TIMEOUT).unwrap()));
    life.shutdown(Duration::ZERO);
}
