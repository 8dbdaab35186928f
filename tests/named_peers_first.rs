//! Promise 13: whatever strangers use up, the peers that the operator named still have their share of it. The shares of the
//! queues are in `known_cost.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test may panic, and runs on the real clock and real threads"
)]

mod support;

use std::net::IpAddr;
use std::time::Duration;

use support::cluster::{PATIENCE, Peer, all_taken, any_addr, builder, eventually, first_addr};
use support::raw::{Raw, RawIdentity};
use unbroken::{Config, Event, Identity, Node, PeerConfig, URGENT};

const CREDIT: u64 = 1 << 20;

/// A node whose application takes nothing yet, and a peer that it named and that is linked with it.
fn node_and_named_peer(tune: impl FnOnce(&mut Config)) -> (Node, Peer) {
    let identity = Identity::generate().unwrap();
    let named = identity.peer_id();
    let node = builder(|config| {
        // Placeholder of a peer that is only ever accepted.
        config.peers.push(PeerConfig::new(format!("{named}@127.0.0.1:9")));
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
        match node.recv_timeout(PATIENCE).unwrap().expect("a vote") {
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
    let first = node.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(first, Some(Event::Message(_))), "{first:?}");
    all_taken(&[vote]);
    assert!(node.try_recv().unwrap().is_none());
    // What tells of the named peer comes first.
    let about = |event: Event| match event {
        Event::Connected { peer, .. } => Some(peer),
        _ => None,
    };
    let told: Vec<_> = std::iter::from_fn(|| events.try_recv().unwrap()).filter_map(about).collect();
    assert_eq!((told.first(), told.len()), (Some(&peer.id()), 4), "{told:?}");
    visits(&node, 1);
    drop(events);
    assert!(node.recv_timeout(PATIENCE).unwrap().is_some(), "they are given back");
    assert!(node.event_receiver().is_some());
    node.shutdown(Duration::ZERO);
}
