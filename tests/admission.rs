//! Admission over real sockets: peers that may connect, that have to make room, and that are put out. All of
//! 127.0.0.0/8 is this machine, so one test has as many addresses and subnets as it likes, once loopback is
//! not exempt.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test may panic, and runs on the real clock and real threads"
)]

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use unbroken::{
    AdmissionConfig, AdmitDecision, Ban, BanTarget, Config, DropReason, Encryption, EndCause, Event,
    Identity, Misbehavior, NORMAL, Node, Outcome, PeerConfig, PeerId, Refusal, RefusedReason,
};
use unbroken_test_support::raw::{GOAWAY, PING, Raw, RawIdentity, connect_from, encryption, frame};

const LONG: Duration = Duration::from_secs(30);
const CREDIT: u64 = 1 << 20;

fn node(change: impl FnOnce(&mut Config)) -> Node {
    builder(change).start().unwrap()
}

fn builder(change: impl FnOnce(&mut Config)) -> unbroken::Builder {
    Node::builder().listen("127.0.0.1:0".parse().unwrap()).configure(|config| {
        config.admission.exempt = Vec::new();
        config.encryption = encryption();
        change(config);
    })
}

fn addr(node: &Node) -> SocketAddr {
    node.local_addrs()[0]
}

/// 127.0.`subnet`.`host`.
fn source(subnet: u8, host: u8) -> IpAddr {
    [127, 0, subnet, host].into()
}

/// Comes from there and shakes hands. `None` if it is not let in.
fn come(node: &Node, subnet: u8, host: u8, seed: u8) -> Option<Raw> {
    Raw::dial_from(source(subnet, host), addr(node), &RawIdentity::new(seed.into(), CREDIT)).ok()
}

/// Whether the node has closed this connection, or does soon. A connection that it keeps stays silent.
fn is_closed(mut stream: &TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    match stream.read(&mut [0; 1]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

/// The first event of which `pick` makes something.
fn wait_for<T>(node: &Node, mut pick: impl FnMut(Event) -> Option<T>) -> T {
    let deadline = Instant::now() + LONG;
    loop {
        let event = node.recv_timeout(deadline.saturating_duration_since(Instant::now())).unwrap();
        if let Some(found) = pick(event.expect("an event in time")) {
            return found;
        }
    }
}

fn connected(node: &Node) -> PeerId {
    wait_for(node, |event| match event {
        Event::Connected { peer, .. } => Some(peer),
        _ => None,
    })
}

fn banned(node: &Node) -> Ban {
    wait_for(node, |event| match event {
        Event::Banned { ban } => Some(ban),
        _ => None,
    })
}

fn ended(node: &Node) -> EndCause {
    wait_for(node, |event| match event {
        Event::Disconnected { reason, .. } => Some(reason.cause),
        _ => None,
    })
}

#[test]
fn half_handshakes_from_one_address_leave_room_for_others() {
    let node = node(|config| {
        config.admission.max_handshakes_per_address = 8;
        config.admission.max_handshakes_per_subnet = 12;
        config.admission.connects_at_once = 1000;
    });
    let stall = |host| connect_from(source(1, host), addr(&node)).unwrap();
    let stalled: Vec<_> = (0..200).map(|_| stall(1)).collect();
    let kept: Vec<_> = stalled.iter().filter(|stream| !is_closed(stream)).collect();
    assert_eq!(kept.len(), 8);
    // The subnet has four left, and another subnet all.
    let neighbours: Vec<_> = (2..10).map(stall).collect();
    assert_eq!(neighbours.iter().filter(|stream| !is_closed(stream)).count(), 4);
    assert!(come(&node, 2, 1, 1).is_some());
    assert_eq!(node.snapshot().refused, 192 + 4);
}

#[test]
fn handshakes_that_stall_make_room() {
    let node = node(|config| {
        config.max_handshakes = 4;
        config.path.handshake_timeout = Duration::from_secs(20);
    });
    let stalled: Vec<_> =
        (1..=4).map(|subnet| connect_from(source(subnet, 1), addr(&node)).unwrap()).collect();
    assert!(come(&node, 9, 1, 1).is_none(), "they might be honest yet");
    // Two seconds are a tenth of the deadline.
    let start = Instant::now();
    while come(&node, 9, 1, 1).is_none() {
        assert!(start.elapsed() < LONG);
    }
    assert!(start.elapsed() > Duration::from_secs(1));
    assert_eq!(stalled.iter().filter(|stream| is_closed(stream)).count(), 1);
}

#[test]
fn an_address_has_its_share_of_connections_and_of_attempts() {
    let node = node(|config| {
        config.admission.max_inbound_per_address = 3;
        config.admission.max_inbound_per_subnet = 5;
        config.admission.connects_at_once = 6;
        config.admission.connects_per_minute = 1;
    });
    let mut kept: Vec<_> = (1..=3).map(|seed| come(&node, 1, 1, seed).expect("within the share")).collect();
    assert!(come(&node, 1, 1, 4).is_none());
    kept.extend((5..=6).map(|seed| come(&node, 1, 2, seed).expect("another address")));
    assert!(come(&node, 1, 3, 7).is_none(), "the subnet is full");
    // When one leaves there is room again: that was the fifth attempt, and there is a sixth.
    kept.remove(0);
    ended(&node);
    let mut attempts = 4;
    while come(&node, 1, 1, 8).map(|raw| kept.push(raw)).is_none() {
        attempts += 1;
        assert!(attempts < 6, "the place is free when the threads are done");
    }
    kept.pop();
    ended(&node);
    while attempts < 6 {
        attempts += 1;
        come(&node, 1, 1, 9);
    }
    assert!(come(&node, 1, 1, 9).is_none(), "too often");
    assert!(come(&node, 2, 1, 10).is_some());
}

#[test]
fn a_second_connection_makes_room_for_the_first_one_of_another_peer() {
    let node = node(|config| config.admission.max_inbound_per_address = 2);
    let who = RawIdentity::new(1, CREDIT);
    let mut second = who.clone();
    (second.hello.slot, second.hello.token) = (1, 99);
    let from = source(1, 1);
    let _first = Raw::dial_from(from, addr(&node), &who).unwrap();
    assert_eq!(connected(&node), who.id());
    let mut spare = Raw::dial_from(from, addr(&node), &second).unwrap();
    assert_eq!(connected(&node), who.id());
    let _other = come(&node, 1, 1, 2).expect("its first connection");
    assert!(is_retired(&mut spare), "the second connection of the first peer goes");
    // Both have one now: a third peer is refused, and this node is told.
    drop(spare);
    ended(&node);
    assert!(come(&node, 1, 1, 3).is_none());
    let refused = wait_for(&node, |event| match event {
        Event::Refused { why, .. } => Some(why),
        _ => None,
    });
    assert_eq!(refused, RefusedReason::Address);
}

#[test]
fn loopback_is_exempt_unless_it_is_said_otherwise() {
    let node = node(|config| {
        config.admission = AdmissionConfig {
            max_inbound_per_address: 1,
            max_inbound_per_subnet: 1,
            max_handshakes_per_address: 1,
            connects_at_once: 1,
            connects_per_minute: 1,
            ..AdmissionConfig::default()
        };
    });
    let kept: Vec<_> = (1..=20).map(|seed| come(&node, 0, 1, seed)).collect();
    assert!(kept.iter().all(Option::is_some));
}

#[test]
fn a_denied_peer_stays_out() {
    let denied = RawIdentity::new(7, CREDIT).id();
    let node = node(|config| {
        config.admission.deny_addresses = vec!["127.0.4.0/24".parse().unwrap()];
        config.admission.deny_peers = vec![denied];
    });
    assert!(come(&node, 4, 1, 1).is_none());
    assert!(come(&node, 5, 1, 7).is_none());
    assert!(come(&node, 5, 1, 1).is_some());
    assert_eq!(connected(&node), RawIdentity::new(1, CREDIT).id());
    assert!(node.peer(denied).is_none(), "nothing of it is kept");
}

#[test]
fn only_who_is_allowed_or_wanted_comes_in() {
    let id = |seed| RawIdentity::new(seed, CREDIT).id();
    let node = node(|config| {
        config.admission.allow_peers = vec![id(1)];
        config.peers.push(PeerConfig { id: Some(id(2)), ..PeerConfig::new("127.0.0.1:1") });
    });
    assert!(come(&node, 1, 1, 1).is_some());
    assert!(come(&node, 1, 1, 2).is_some());
    assert!(come(&node, 1, 1, 3).is_none());
}

#[test]
fn gossip_about_a_peer_does_not_make_it_wanted() {
    let id = |seed| RawIdentity::new(seed, CREDIT).id();
    let node = node(|config| config.admission.allow_peers = vec![id(1)]);
    assert_eq!(node.learn([PeerConfig { id: Some(id(2)), ..PeerConfig::new("127.0.0.1:1") }]), 1);
    assert!(come(&node, 1, 1, 2).is_none());
    assert!(come(&node, 1, 1, 1).is_some());
}

#[test]
fn the_first_lost_stranger_is_forgotten_and_its_messages_are_reported() {
    let node = node(|config| config.max_absent_strangers = 1);
    let visit = |seed: u8| {
        let visitor = come(&node, 1, 1, seed).unwrap();
        let peer = connected(&node);
        let receipt = node.send(peer, (NORMAL, "never acknowledged")).unwrap();
        visitor.stream.shutdown(Shutdown::Both).unwrap();
        node.events()
            .find(|event| matches!(event, Event::LinkDown { peer: lost, .. } if *lost == peer))
            .unwrap();
        (peer, receipt)
    };
    let (first, receipt) = visit(1);
    let (second, kept) = visit(2);
    assert_eq!(receipt.wait_timeout(LONG), Some(Outcome::Dropped(DropReason::ResumptionExpired)));
    let lost = node.events().find_map(|event| match event {
        Event::Lost { peer, messages, by_peer: false } => Some((peer, messages)),
        _ => None,
    });
    assert_eq!(lost, Some((first, 1)));
    assert!(node.peer(first).is_none() && node.peer(second).is_some());
    assert_eq!(kept.poll(), None);
}

#[test]
fn the_hook_may_end_the_node() {
    let own = Arc::new(OnceLock::<Weak<Node>>::new());
    let its = Arc::clone(&own);
    let node = builder(|_| {}).admit(move |_, _| {
        let node = its.get().and_then(Weak::upgrade).unwrap();
        node.shutdown(LONG);
        AdmitDecision::Refuse
    });
    let node = Arc::new(node.start().unwrap());
    own.set(Arc::downgrade(&node)).unwrap();
    assert!(come(&node, 1, 1, 1).is_none());
    assert_eq!(node.events().filter(|event| matches!(event, Event::LinkUp { .. })).count(), 0);
    // Waits until the other one is done.
    node.shutdown(LONG);
}

#[test]
fn the_hook_decides_on_strangers_and_its_panic_ends_one_connection() {
    let id = |seed| RawIdentity::new(seed, CREDIT).id();
    let (refused, fatal, wanted) = (id(1), id(2), id(3));
    let node = builder(|config| {
        config.peers.push(PeerConfig { id: Some(wanted), ..PeerConfig::new("127.0.0.1:1") });
    })
    .admit(move |peer, addr| {
        assert_ne!(*peer, fatal, "a bug in the application");
        assert_ne!(*peer, wanted, "who is wanted is not asked about");
        if *peer == refused || addr.ip() == source(9, 9) {
            AdmitDecision::Refuse
        } else {
            AdmitDecision::Admit
        }
    })
    .start()
    .unwrap();
    assert!(come(&node, 1, 1, 1).is_none());
    assert!(come(&node, 1, 1, 2).is_none());
    assert!(come(&node, 9, 9, 4).is_none());
    assert!(come(&node, 1, 1, 3).is_some());
    assert!(come(&node, 1, 1, 4).is_some());
    assert_eq!(node.snapshot().refused, 2);
    node.shutdown(Duration::ZERO);
}

#[test]
fn strangers_fill_the_node_and_wanted_peers_still_come_in() {
    let id = |seed| RawIdentity::new(seed, CREDIT).id();
    let node = node(|config| {
        (config.admission.max_inbound, config.admission.reserved) = (8, 2);
        for seed in 101..=104 {
            let mut peer = PeerConfig { id: Some(id(seed)), ..PeerConfig::new("127.0.0.1:1") };
            peer.address = format!("127.0.0.1:{seed}");
            config.peers.push(peer);
        }
    });
    // Six places for strangers, and twelve that want them, each from a subnet of its own.
    let mut strangers: Vec<_> = (1..=12).filter_map(|seed| come(&node, seed, 1, seed)).collect();
    let wanted: Vec<_> = (101..=104).map(|seed| come(&node, 50, 1, seed)).collect();
    assert!(wanted.iter().all(Option::is_some));
    // Two places were kept, and two strangers went for the other two.
    let retired = strangers.iter_mut().map(is_retired).filter(|retired| *retired).count();
    assert_eq!(strangers.len() - retired, 4);
}

/// Whether the node has said goodbye on this connection, or has ended it before it had joined.
fn is_retired(raw: &mut Raw) -> bool {
    raw.stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    loop {
        match raw.read_frame() {
            Ok((GOAWAY, _)) => return true,
            Ok(_) => {}
            // A read that runs out of time, on Unix and on Windows.
            Err(error) => return !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }
}

#[test]
fn a_newcomer_gets_the_place_of_the_youngest_from_the_largest_subnet() {
    let node = node(|config| {
        (config.admission.max_inbound, config.admission.reserved) = (8, 2);
    });
    // Two alone, four from one subnet.
    let mut alone: Vec<_> = (1..=2).map(|seed| come(&node, seed, 1, seed).unwrap()).collect();
    let mut crowd: Vec<_> = (1..=4).map(|host| come(&node, 9, host, 10 + host).unwrap()).collect();
    assert!(come(&node, 9, 5, 15).is_none(), "one more of the crowd has to wait");
    let mut newcomer = come(&node, 3, 1, 3).expect("one from elsewhere has not");
    assert!(is_retired(crowd.last_mut().unwrap()));
    assert!(!alone.iter_mut().chain(crowd.iter_mut().take(3)).any(is_retired));
    assert!(!is_retired(&mut newcomer));
    assert_eq!(node.snapshot().evicted, 1);
}

/// A node that dials this one with a short backoff.
fn dialer(to: &Node, identity: Identity) -> Node {
    let path = unbroken::PathConfig {
        backoff_first: Duration::from_millis(20),
        backoff_max: Duration::from_millis(50),
        ..Config::default().path
    };
    let config = Config { path, encryption: encryption(), ..Config::default() };
    Node::builder().config(config).identity(identity).peer(addr(to).to_string()).start().unwrap()
}

#[test]
fn reports_ban_a_stranger_until_the_ban_is_lifted() {
    let node = node(|_| {});
    let offender = dialer(&node, Identity::generate().unwrap());
    assert_eq!(connected(&node), offender.id());
    for _ in 0..4 {
        node.report(offender.id(), Misbehavior::InvalidData);
    }
    assert!((99..=100).contains(&node.strikes(offender.id())));
    assert!(node.bans().is_empty());
    node.report(offender.id(), Misbehavior::InvalidData);
    let ban = banned(&node);
    assert_eq!((ban.who, ban.why.as_str()), (BanTarget::Peer(offender.id()), "it sent invalid data"));
    assert_eq!(ended(&node), EndCause::Banned);
    // It tries again and again, and is refused.
    let refused = node.snapshot().refused;
    let start = Instant::now();
    while node.snapshot().refused < refused + 3 {
        assert!(start.elapsed() < LONG);
        offender.recv_timeout(Duration::from_millis(50)).unwrap();
    }
    // Another identity at the same address comes in.
    let neighbour = dialer(&node, Identity::generate().unwrap());
    assert_eq!(connected(&node), neighbour.id());
    assert!(node.unban(offender.id()));
    assert_eq!(connected(&node), offender.id());
}

#[test]
fn a_ban_ends_in_time_and_survives_a_restart() {
    let identity = Identity::generate().unwrap();
    let first = node(|_| {});
    let offender = dialer(&first, identity.clone());
    connected(&first);
    first.ban(offender.id(), Some(Duration::from_secs(3)));
    assert_eq!(ended(&first), EndCause::Banned);
    let text = serde_json::to_string(&first.bans()).unwrap();
    drop((first, offender));

    let second = node(|_| {});
    let kept: Vec<Ban> = serde_json::from_str(&text).unwrap();
    let start = Instant::now();
    second.restore_bans(&kept);
    let offender = dialer(&second, identity);
    let mut unbanned = false;
    let peer = wait_for(&second, |event| match event {
        Event::Connected { peer, .. } => Some(peer),
        Event::Unbanned { who } => {
            assert_eq!(who, BanTarget::Peer(offender.id()));
            unbanned = true;
            None
        }
        _ => None,
    });
    assert_eq!(peer, offender.id());
    assert!(unbanned || second.bans().is_empty());
    let left = Duration::from_millis(kept[0].remaining_ms.unwrap());
    assert!(start.elapsed() >= left && left > Duration::from_secs(1), "{left:?}");
    assert!(second.snapshot().refused > 0);
}

#[test]
fn a_wanted_peer_is_disconnected_and_comes_back() {
    let listener = node(|_| {});
    let judge = dialer(&listener, Identity::generate().unwrap());
    assert_eq!(connected(&judge), listener.id());
    judge.report(listener.id(), Misbehavior::Application(100));
    assert_eq!(ended(&judge), EndCause::Banned);
    assert_eq!(connected(&judge), listener.id());
    assert!(judge.bans().is_empty());
    // Unless the application bans it itself: then it is dialled in vain.
    judge.ban(listener.id(), None);
    wait_for(&judge, |event| match event {
        Event::DialFailed { reason, .. } => (reason.cause == EndCause::Banned).then_some(()),
        Event::Connected { .. } => panic!("connected with a banned peer"),
        _ => None,
    });
}

/// The target of a ban for what a connection did: the peer where names are proven, else the address.
#[test]
fn a_candidate_that_was_dialled_is_banned_like_any_stranger() {
    let listener = node(|_| {});
    let judge = node(|config| config.target_peers = 1);
    assert_eq!(judge.learn([addr(&listener).to_string()]), 1);
    assert_eq!(connected(&judge), listener.id());
    judge.report(listener.id(), Misbehavior::Application(1000));
    assert_eq!(banned(&judge).who, BanTarget::Peer(listener.id()));
    assert_eq!(ended(&judge), EndCause::Banned);
    let deadline = Instant::now() + Duration::from_secs(1);
    while let Some(event) = judge.recv_timeout(deadline.saturating_duration_since(Instant::now())).unwrap() {
        assert!(!matches!(event, Event::Connected { .. }), "linked with a banned candidate");
    }
    assert_eq!(judge.bans().len(), 1);
    // Once the operator names it, strikes disconnect it and ban it no longer.
    judge.unban(listener.id());
    judge.add_peer(PeerConfig::new(format!("{}@{}", listener.id(), addr(&listener)))).unwrap();
    assert_eq!(connected(&judge), listener.id());
    judge.report(listener.id(), Misbehavior::Application(1000));
    assert_eq!(ended(&judge), EndCause::Banned);
    assert_eq!(connected(&judge), listener.id());
    assert!(judge.bans().is_empty());
}

fn target(subnet: u8, seed: u8) -> BanTarget {
    match encryption() {
        Encryption::Plaintext => BanTarget::Address(source(subnet, 1)),
        _ => BanTarget::Peer(RawIdentity::new(seed.into(), CREDIT).id()),
    }
}

#[test]
fn a_flood_ends_the_connection_and_in_the_end_bans() {
    let node = node(|_| {});
    // Returns the bans that came of it.
    let flood = || {
        let who = RawIdentity::new(1, CREDIT);
        let mut raw = Raw::dial_from(source(1, 1), addr(&node), &who).unwrap();
        let pings = frame(PING, &[0; 8]).repeat(10_000);
        // The node closes before it has read all.
        let _ = raw.output.write_all(&pings);
        let mut bans = Vec::new();
        let cause = wait_for(&node, |event| match event {
            Event::Banned { ban } => {
                bans.push(ban.who);
                None
            }
            Event::Disconnected { reason, .. } => Some(reason.cause),
            _ => None,
        });
        assert_eq!(cause, EndCause::Flood("a flood of pings".into()));
        assert!(node.peer(who.id()).unwrap().flood.pings > 2000);
        bans
    };
    assert_eq!(flood(), []);
    assert_eq!(flood(), [target(1, 1)]);
    assert!(come(&node, 1, 1, 1).is_none());
    assert!(come(&node, 1, 2, 3).is_some(), "its neighbour is another");
}

#[test]
fn a_peer_that_connects_and_leaves_in_a_loop_is_banned_for_a_time() {
    let node = node(|config| {
        config.conduct.threshold = 9;
        config.conduct.ban_time = Duration::from_secs(2);
        config.conduct.address_ban_time = Duration::from_secs(2);
    });
    let goodbye = unbroken_test_support::raw::encode_goaway(0);
    let visit = || {
        let mut raw = come(&node, 1, 1, 1).expect("not banned yet");
        raw.send(GOAWAY, &goodbye).unwrap();
        // Read to the end: what is left unread when a socket is closed resets the connection.
        raw.stream.shutdown(Shutdown::Write).unwrap();
        let _ = raw.stream.read_to_end(&mut Vec::new());
        wait_for(&node, |event| match event {
            Event::Banned { ban } => Some(Some(ban.who)),
            Event::Disconnected { .. } => Some(None),
            _ => None,
        })
    };
    // Two strikes each.
    assert!((1..=4).all(|_| visit().is_none()));
    assert_eq!(visit(), Some(target(1, 1)));
    assert!(come(&node, 1, 1, 1).is_none());
    assert!(come(&node, 2, 1, 7).is_some());
    wait_for(&node, |event| matches!(event, Event::Unbanned { .. }).then_some(()));
    assert!(come(&node, 1, 1, 1).is_some());
}

#[test]
fn one_message_on_an_earlier_visit_excuses_no_loop_of_visits() {
    let node = node(|config| {
        config.conduct.threshold = 9;
        config.admission.connects_at_once = 100;
    });
    let who = RawIdentity::new(1, CREDIT);
    let mut sent = 0;
    // Comes, sends a message or not, takes what the node sends, and leaves in order.
    let mut visit = |sends: bool| {
        let mut raw = come(&node, 1, 1, 1).expect("not banned yet");
        assert_eq!(connected(&node), who.id());
        // The node broadcasts to everybody.
        assert!(node.broadcast((NORMAL, "to everybody")).refused().is_empty());
        if sends {
            let message =
                [&[NORMAL.0, 0][..], &(sent * 6u64).to_le_bytes(), &2u32.to_le_bytes(), b"hi"].concat();
            raw.send(unbroken_test_support::raw::CHUNK, &message).unwrap();
            sent += 1;
            wait_for(&node, |event| matches!(event, Event::Message(_)).then_some(()));
        }
        raw.send(GOAWAY, &unbroken_test_support::raw::encode_goaway(0)).unwrap();
        raw.stream.shutdown(Shutdown::Write).unwrap();
        let _ = raw.stream.read_to_end(&mut Vec::new());
        wait_for(&node, |event| match event {
            Event::Banned { .. } => Some(true),
            Event::Disconnected { .. } => Some(false),
            _ => None,
        })
    };
    assert!((0..6).all(|_| !visit(true)), "visits that bring something");
    // Two strikes each.
    assert!((0..4).all(|_| !visit(false)));
    assert!(visit(false));
    assert_eq!(node.bans().len(), 1);
}

#[test]
fn trouble_on_the_way_is_no_offence() {
    let node = node(|config| config.conduct.threshold = 1);
    for round in 1..=10 {
        let raw = come(&node, 1, 1, 20).unwrap();
        let socket = socket2::SockRef::from(&raw.stream);
        // Some are reset, in the middle of a frame or of a record; some are spoilt on the way.
        match (round % 3, encryption()) {
            (0, Encryption::Noise) => (&raw.stream).write_all(&[20; 22]).unwrap(),
            (1, _) => {
                (&raw.stream).write_all(&frame(PING, &[0; 8])[..5]).unwrap();
                socket.set_linger(Some(Duration::ZERO)).unwrap();
            }
            _ => (&raw.stream).write_all(&frame(PING, &[0; 8])[..5]).unwrap(),
        }
        drop(raw);
        assert!(!matches!(ended(&node), EndCause::Protocol(_)));
    }
    assert!(node.bans().is_empty());
    // And a bad frame is one.
    let mut raw = come(&node, 1, 1, 20).unwrap();
    raw.send(100, &[]).unwrap();
    assert_eq!(banned(&node).who, target(1, 20));
}

#[test]
fn a_refusal_is_counted() {
    let node = builder(|_| {}).admit(|_, _| AdmitDecision::Refuse).start().unwrap();
    assert!(come(&node, 1, 1, 1).is_none());
    let told = wait_for(&node, |event| match event {
        Event::Refused { peer, addr, why } => Some((peer, addr.ip(), why)),
        _ => None,
    });
    assert_eq!(told, (Some(RawIdentity::new(1, CREDIT).id()), source(1, 1), RefusedReason::Application));
    assert_eq!(node.snapshot().refused, 1);
    assert_eq!(
        EndCause::NotAdmitted(Refusal::Application).to_string(),
        "not admitted: the application refused it"
    );
}

#[test]
fn a_herd_of_named_peers_behind_one_address_comes_back_at_once() {
    const SIZE: usize = 40;
    let identities: Vec<_> = (0..SIZE).map(|_| Identity::generate().unwrap()).collect();
    let own = Identity::generate().unwrap();
    let start = |at: SocketAddr| {
        let node = Node::builder().listen(at).identity(own.clone()).configure(|config| {
            config.admission.exempt = Vec::new();
            config.encryption = encryption();
            // The rest of them would need half an hour.
            (config.admission.connects_at_once, config.admission.connects_per_minute) = (SIZE as u32 / 4, 1);
            config.admission.max_handshakes_per_address = SIZE / 4;
            // Placeholders: they are only ever accepted.
            let named = |identity: &Identity| format!("{}@127.0.0.1:9", identity.peer_id()).into();
            config.peers = identities.iter().map(named).collect();
        });
        node.start().unwrap()
    };
    let all_linked = |node: &Node| {
        let linked = || node.peers().iter().filter(|peer| !peer.connections.is_empty()).count();
        let deadline = Instant::now() + 2 * LONG;
        while linked() < SIZE {
            assert!(Instant::now() < deadline, "{} of {SIZE} are linked", linked());
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    let node = start("127.0.0.1:0".parse().unwrap());
    let at = addr(&node);
    let herd = identities.iter().map(|identity| {
        let node = Node::builder().identity(identity.clone()).peer(at.to_string());
        node.configure(|config| config.encryption = encryption()).start().unwrap()
    });
    let _herd: Vec<_> = herd.collect();
    all_linked(&node);
    node.shutdown(Duration::ZERO);
    drop(node);
    all_linked(&start(at));
}
