//! Which peers a node is linked with, and by how many connections: candidates fill up to `target_peers`, a
//! poor one is exchanged, a pool is kept and replaced, and what was learned outlives the node.

#![cfg(target_os = "linux")] // As the fault proxy is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test: it fails by panicking, and it reads the real clock"
)]

use std::net::SocketAddr;
use std::time::Duration;

use unbroken::test_util::FaultProxy;
use unbroken::{
    Config, EndCause, Event, GoawayReason, Identity, LinkState, NORMAL, Node, PathConfig, PeerConfig, PeerId,
    PeerRecord, ReplaceError, ReplaceReason, RetireReason,
};
use unbroken_test_support::cluster::{
    Peer, TIMEOUT, any_addr, builder, calm_path, eventually, first_addr, flood, mixed,
};

fn calm(tune: impl FnOnce(&mut Config)) -> unbroken::Builder {
    builder(|config| {
        config.path = calm_path();
        tune(config);
    })
}

/// A node in a /16 of its own: all of 127.0.0.0/8 is this machine.
fn listener(network: u8) -> Peer {
    Peer::start(calm(|_| ()).listen(SocketAddr::from(([127, network, 0, 1], 0))))
}

fn address(node: &Node) -> String {
    first_addr(node).to_string()
}

fn linked(node: &Node) -> Vec<PeerId> {
    let up = node.peers().into_iter().filter(|peer| peer.state == LinkState::Up);
    up.filter_map(|peer| peer.peer).collect()
}

fn slots_up(node: &Node, peer: PeerId) -> Vec<u8> {
    let peer = node.peer(peer);
    let conns = peer.into_iter().flat_map(|peer| peer.connections);
    let mut slots: Vec<u8> =
        conns.filter(|conn| conn.state == unbroken::ConnState::Up).map(|conn| conn.slot).collect();
    slots.sort_unstable();
    slots
}

/// Nobody gets through any more.
fn cut_off(proxy: &FaultProxy) {
    proxy.update(|faults| faults.refuse = true);
    proxy.reset_all();
}

// --- candidates ---------------------------------------------------------------------------------

#[test]
fn as_many_peers_as_there_should_be_are_kept_while_peers_stop() {
    let mut others: Vec<Peer> = (1..=8).map(listener).collect();
    let node = Peer::start(calm(|config| config.target_peers = 3));
    assert_eq!(node.learn(others.iter().map(|other| address(other))), 8);
    assert_eq!(node.learn(others.iter().map(|other| address(other))), 0, "they are known");
    assert_eq!(node.learn(["nonsense", ":7", "a:port"]), 0);
    for _ in 0..4 {
        eventually("three peers are linked", || linked(&node).len() == 3);
        let snapshot = node.snapshot();
        assert_eq!(snapshot.candidates, 8);
        assert!(snapshot.peers.iter().all(|peer| !peer.wanted));
        let victim = linked(&node)[0];
        let index = others.iter().position(|other| other.id() == victim).unwrap();
        drop(others.remove(index));
        eventually("the stopped one is missed", || !linked(&node).contains(&victim));
    }
    eventually("three peers are linked", || linked(&node).len() == 3);
}

#[test]
fn inbound_peers_count_and_the_rest_come_from_several_networks() {
    let crowd: Vec<Peer> = (0..4).map(|_| listener(50)).collect();
    let (far, wanted, inbound) = (listener(51), listener(52), listener(53));
    let node = Peer::start(calm(|config| config.target_peers = 4).listen(any_addr()));
    node.add_peer(PeerConfig::new(address(&wanted))).unwrap();
    inbound.add_peer(PeerConfig::new(address(&node))).unwrap();
    eventually("the wanted one and the one that dialled are linked", || linked(&node).len() == 2);
    node.learn(crowd.iter().chain([&far]).map(|other| address(other)));
    eventually("four peers are linked", || linked(&node).len() == 4);
    assert!(linked(&node).contains(&far.id()), "it is the only one of its network");
    assert_eq!(linked(&node).iter().filter(|peer| crowd.iter().any(|other| other.id() == **peer)).count(), 1);
    let wanted = node.peer(wanted.id()).unwrap();
    assert_eq!((wanted.wanted, wanted.connections_wanted), (true, 1));
    assert_eq!(node.peer(inbound.id()).unwrap().connections_wanted, 0);
}

#[test]
fn a_poor_candidate_gives_way_and_a_poor_wanted_peer_does_not() {
    // Quick: three times `dead_after` is how long somebody has to do badly.
    let quick = |config: &mut Config| {
        config.path.ping_interval = Duration::from_millis(100);
        config.path.dead_after = Duration::from_millis(900);
        config.path.suspect_after = Duration::from_millis(500);
    };
    let (poor, wanted, good) = (listener(1), listener(2), listener(3));
    let [to_poor, to_wanted] = [&poor, &wanted].map(|peer| FaultProxy::start(first_addr(peer)).unwrap());
    let node = Peer::start(calm(|config| {
        quick(config);
        config.target_peers = 2;
    }));
    node.add_peer(PeerConfig::new(to_wanted.addr().to_string())).unwrap();
    node.learn([to_poor.addr().to_string()]);
    eventually("both are linked", || linked(&node).len() == 2);
    // Lost again and again, each time after something was answered: that is what costs score.
    let score = |peer: &Peer| node.peer(peer.id()).unwrap().score;
    let mut rounds = 0;
    while score(&poor).max(score(&wanted)) > 0.37 {
        rounds += 1;
        assert!(rounds < 40, "{} {}", score(&poor), score(&wanted));
        for (proxy, peer) in [(&to_poor, &poor), (&to_wanted, &wanted)] {
            let before = proxy.stats().connected;
            proxy.reset_all();
            assert!(proxy.wait_until(TIMEOUT, |stats| stats.connected > before));
            node.wait_up(peer.id());
        }
    }
    let mark = node.mark();
    node.learn([address(&good)]);
    let (_, retired) = node.wait_event("the poor one is retired", mark, |event| match event {
        Event::PeerRetired { peer, successor, reason } => Some((*peer, *successor, *reason)),
        _ => None,
    });
    assert_eq!(retired, (poor.id(), good.id(), RetireReason::Poor));
    // Connect first: the successor was there before the other one went.
    node.look(|log| {
        let position = |which: &dyn Fn(&Event) -> bool| {
            log.events.iter().skip(mark).position(|(_, event)| which(event)).expect("it happened")
        };
        let up = position(&|event| matches!(event, Event::LinkUp { peer, .. } if *peer == good.id()));
        let retired = position(&|event| matches!(event, Event::PeerRetired { .. }));
        assert!(up < retired, "{up} {retired}");
    });
    eventually("the poor one is gone", || !linked(&node).contains(&poor.id()));
    assert!(linked(&node).contains(&wanted.id()) && linked(&node).contains(&good.id()));
    let (_, reason) = poor.wait_event("a goodbye", 0, |event| match event {
        Event::Disconnected { reason, .. } => Some(reason.cause.clone()).filter(
            |cause| matches!(cause, unbroken::EndCause::Goaway(reason) if *reason != GoawayReason::Shutdown),
        ),
        _ => None,
    });
    println!("the retired one heard: {reason}");
    assert_eq!(node.look(|log| log.count(|event| matches!(event, Event::PeerRetired { .. }))), 1);
}

#[test]
fn learned_peers_are_restored_and_preferred() {
    let (good, gone) = (listener(1), listener(2));
    let node = Peer::start(calm(|config| config.target_peers = 2));
    let dead_end = FaultProxy::start(first_addr(&gone)).unwrap();
    let lost = dead_end.addr().to_string();
    node.learn([address(&good), lost.clone()]);
    eventually("both are linked", || linked(&node).len() == 2);
    cut_off(&dead_end);
    node.wait_event("the lost one is dialled in vain", 0, |event| {
        matches!(event, Event::DialFailed { address, .. } if *address == lost).then_some(())
    });
    let text = serde_json::to_string(&node.records()).unwrap();
    drop(node);

    let records: Vec<PeerRecord> = serde_json::from_str(&text).unwrap();
    let of = |address: &str| records.iter().find(|record| record.addresses == [address]).unwrap();
    assert_eq!(of(&address(&good)).peer, Some(good.id()));
    assert!(of(&address(&good)).score > Some(0.5) && of(&address(&good)).failures == 0, "{text}");
    assert!(of(&address(&good)).last_seen.is_some_and(|age| age < TIMEOUT));
    assert_eq!((of(&lost).peer, of(&lost).failures), (Some(gone.id()), 1), "{text}");

    // Unknown ones beside them: the one with the good record is the first that is dialled.
    let unknown: Vec<Peer> = (10..14).map(listener).collect();
    let mut records = records;
    records.extend(unknown.iter().map(|other| PeerRecord::new(address(other))));
    let next = Peer::start(calm(|config| config.target_peers = 1).records(records));
    eventually("one peer is linked", || linked(&next).len() == 1);
    assert_eq!(linked(&next), [good.id()]);
    assert_eq!(next.snapshot().candidates, 6);
    assert!(!next.records().is_empty());
}

#[test]
fn candidates_that_lead_here_or_to_a_known_peer_are_dialled_once() {
    let other = Peer::start(calm(|_| ()).listen(any_addr()).listen(any_addr()));
    let [first, second] = [0, 1].map(|index| other.local_addrs()[index].to_string());
    let node = Peer::start(calm(|config| config.target_peers = 5).listen(any_addr()));
    node.add_peer(PeerConfig::new(first)).unwrap();
    eventually("linked", || linked(&node) == [other.id()]);
    let own = address(&node);
    assert_eq!(node.learn([own.clone(), second]), 2);
    node.wait_event("this node itself is recognised", 0, |event| {
        matches!(event, Event::DialFailed { address, next: None, .. } if *address == own).then_some(())
    });
    // Both dials are made once: the other one as a connection that is the second of its place.
    eventually("the other address was tried", || node.peer(other.id()).unwrap().reconnects == 1);
    eventually("one connection is left", || {
        slots_up(&node, other.id()) == [0] && node.snapshot().connections == 1
    });
    assert!(node.peer(other.id()).unwrap().wanted);
    assert!(
        node.wait_within(Duration::from_secs(2), |log| {
            (log.count(|event| matches!(event, Event::Connected { .. })) > 2).then_some(())
        })
        .is_none(),
        "no more dials"
    );
}

// --- pools --------------------------------------------------------------------------------------

#[test]
fn a_pool_is_filled_and_filled_again() {
    let other = listener(1);
    let proxy = FaultProxy::start(first_addr(&other)).unwrap();
    let node = Peer::start(calm(|config| {
        config.peers.push(PeerConfig { connections: Some(3), ..PeerConfig::new(proxy.addr().to_string()) });
    }));
    for _ in 0..5 {
        eventually("three connections", || slots_up(&node, other.id()) == [0, 1, 2]);
        eventually("on the other side as well", || slots_up(&other, node.id()) == [0, 1, 2]);
        let before = proxy.stats().connected;
        proxy.reset_all();
        assert!(proxy.wait_until(TIMEOUT, |stats| stats.connected >= before + 3));
    }
    eventually("three connections", || slots_up(&node, other.id()) == [0, 1, 2]);
    let peer = node.peer(other.id()).unwrap();
    assert_eq!((peer.connections_wanted, peer.connections.len()), (3, 3));
}

#[test]
fn places_of_a_pool_begin_with_different_addresses_and_fall_back_to_all() {
    let other = Peer::start(calm(|_| ()).listen(any_addr()));
    let [one, two] = [(); 2].map(|()| FaultProxy::start(first_addr(&other)).unwrap());
    let node = Peer::start(calm(|config| {
        config.peers.push(PeerConfig {
            connections: Some(2),
            alternatives: vec!["no.such.host.invalid:1".into(), two.addr().to_string()],
            ..PeerConfig::new(one.addr().to_string())
        });
    }));
    eventually("two connections", || slots_up(&node, other.id()) == [0, 1]);
    let by = |node: &Peer| {
        let mut conns = node.peer(other.id()).unwrap().connections;
        conns.sort_by_key(|conn| conn.slot);
        conns.iter().map(|conn| conn.addr).collect::<Vec<_>>()
    };
    assert_eq!(by(&node), [one.addr(), two.addr()]);
    // One path is gone: both go by the other.
    cut_off(&one);
    eventually("two connections by one path", || {
        slots_up(&node, other.id()) == [0, 1] && by(&node) == [two.addr(), two.addr()]
    });
}

#[test]
fn replacing_goes_by_another_path_and_loses_nothing() {
    let other = Peer::start(calm(|_| ()).listen(any_addr()));
    let [one, two] = [(); 2].map(|()| FaultProxy::start(first_addr(&other)).unwrap());
    let node = Peer::start(calm(|config| {
        config.peers.push(PeerConfig {
            alternatives: vec![two.addr().to_string()],
            ..PeerConfig::new(one.addr().to_string())
        });
    }));
    node.wait_up(other.id());
    assert_eq!(node.replace(PeerId::from_bytes([9; 32])), Err(ReplaceError::NotConnected));
    assert_eq!(other.replace(node.id()), Err(ReplaceError::NoAddress));
    let flood = flood(&node, other.id(), NORMAL, 1, 2_000, mixed);
    for path in [two.addr(), one.addr(), two.addr()] {
        let old = node.peer(other.id()).unwrap().connections[0].id;
        let mark = node.mark();
        assert_eq!(node.replace(other.id()), Ok(1));
        let (_, replacing) = node.wait_event("the decision", mark, |event| match event {
            Event::Replacing { conn, slot, reason, .. } => Some((*conn, *slot, *reason)),
            _ => None,
        });
        assert_eq!(replacing, (old, 0, ReplaceReason::Asked));
        node.wait_event("the end of the old one", mark, |event| {
            matches!(event, Event::Disconnected { conn, .. } if *conn == old).then_some(())
        });
        let conns = node.peer(other.id()).unwrap().connections;
        assert_eq!(conns.iter().map(|conn| conn.addr).collect::<Vec<_>>(), [path]);
    }
    assert_eq!(node.snapshot().replacements, 3);
    let gaps = |log: &unbroken_test_support::cluster::Log| {
        log.count(|event| matches!(event, Event::LinkDown { .. }))
    };
    assert_eq!(node.look(gaps), 0);
    flood.join().unwrap();
    other.check(2_000);
}

#[test]
fn an_old_connection_is_replaced_by_the_side_that_dialled() {
    let path = PathConfig { max_age: Some(Duration::from_millis(2_500)), ..calm_path() };
    let other = Peer::start(builder(|config| config.path = path.clone()).listen(any_addr()));
    let node = Peer::start(builder(|config| config.path = path).listen(any_addr()));
    node.add_peer(PeerConfig::new(address(&other))).unwrap();
    other.wait_up(node.id());
    // The other side could dial as well, and leaves it to the one that did.
    other.add_peer(PeerConfig { id: Some(node.id()), ..PeerConfig::new(address(&node)) }).unwrap();
    let joined = |event: &Event| matches!(event, Event::Connected { .. });
    node.wait("three successors", |log| (log.count(joined) >= 4).then_some(()));
    let gaps = |log: &unbroken_test_support::cluster::Log| {
        log.count(|event| matches!(event, Event::LinkDown { .. }))
    };
    assert_eq!(node.look(gaps), 0);
    let mut aged = 0;
    for side in [&node, &other] {
        side.look(|log| {
            let own = |id| {
                let dialled = |event: &Event| {
                    matches!(event, Event::Connected { conn, dialled: true, .. } if *conn == id)
                };
                log.count(dialled) == 1
            };
            for (_, event) in &log.events {
                if let Event::Replacing { conn, reason: ReplaceReason::Aged, .. } = event {
                    assert!(own(*conn), "{conn} was dialled by the other side");
                    aged += 1;
                }
            }
        });
    }
    assert!(aged >= 3, "{aged}");
}

#[test]
fn a_peer_known_by_name_that_dialled_us_is_not_dialled() {
    let identity = Identity::generate().unwrap();
    let id = identity.peer_id();
    let node = Peer::start(calm(|_| ()).listen(any_addr()));
    let other = Peer::start(calm(|_| ()).identity(identity).listen(any_addr()));
    other.add_peer(PeerConfig::new(address(&node))).unwrap();
    node.wait_up(id);
    node.add_peer(PeerConfig { id: Some(id), ..PeerConfig::new(address(&other)) }).unwrap();
    assert!(
        node.wait_within(Duration::from_secs(1), |log| {
            (log.count(|event| matches!(event, Event::Connected { .. })) > 1).then_some(())
        })
        .is_none()
    );
    assert_eq!(slots_up(&node, id), [0]);
}

#[test]
fn an_expected_identity_is_expected_in_the_next_life() {
    let impostor = listener(1);
    let expected = Identity::generate().unwrap().peer_id();
    let at = address(&impostor);
    let first = Peer::start(calm(|_| ()));
    assert_eq!(first.learn([format!("{expected}@{at}")]), 1);
    let text = serde_json::to_string(&first.records()).unwrap();
    drop(first);

    let records: Vec<PeerRecord> = serde_json::from_str(&text).unwrap();
    assert_eq!((records[0].id, records[0].addresses.as_slice()), (Some(expected), [at.clone()].as_slice()));
    let from_text = PeerRecord::new(format!("{expected}@{at}"));
    for record in [records[0].clone(), from_text] {
        let next = Peer::start(calm(|config| config.target_peers = 1).records(vec![record]));
        next.wait_event("another key is refused", 0, |event| match event {
            Event::DialFailed { reason, .. } => {
                assert!(matches!(reason.cause, EndCause::Refused(_)), "{reason}");
                Some(())
            }
            _ => None,
        });
        assert_eq!(linked(&next), []);
        assert_eq!(next.records()[0].id, Some(expected));
    }
}
