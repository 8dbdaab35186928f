//! The edges: the end of a node seen by many threads, peers that are given up, addresses
//! that never answered, names that are given twice.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test may panic, and runs on the real clock and real threads"
)]

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
use unbroken::test_util::{FaultProxy, Ways};
use unbroken::{
    Event, Identity, LaneConfig, LaneId, NORMAL, Node, Outcome, PeerConfig, PeerId, SendErrorKind,
    StartError, URGENT,
};

const LONG: Duration = Duration::from_secs(60);

fn listener() -> Node {
    Node::builder().listen("127.0.0.1:0".parse().unwrap()).start().unwrap()
}

fn connected(node: &Node) -> PeerId {
    node.events()
        .find_map(|event| match event {
            Event::LinkUp { peer, .. } => Some(peer),
            _ => None,
        })
        .unwrap()
}

#[test]
fn every_waiting_thread_learns_of_the_end() {
    let node = listener();
    let lane = node.lane_receiver(NORMAL).unwrap();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| node.events().count());
            scope.spawn(|| lane.recv().unwrap_err());
        }
        node.shutdown(Duration::ZERO);
    });
}

#[test]
fn the_end_is_told_to_the_next_one_also_by_who_only_looks() {
    for _ in 0..20 {
        let node = listener();
        let lane = node.lane_receiver(NORMAL).unwrap();
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| while node.ready().recv().is_ok() && node.try_recv().is_ok() {});
                scope.spawn(|| node.events().count());
                scope.spawn(|| while lane.ready().recv().is_ok() && lane.try_recv().is_ok() {});
                scope.spawn(|| lane.recv().unwrap_err());
            }
            node.shutdown(Duration::ZERO);
        });
    }
}

#[test]
fn an_address_is_free_after_shutdown_though_a_handle_is_left() {
    let node = listener();
    let addr = node.local_addrs()[0];
    node.shutdown(Duration::ZERO);
    let refused = TcpStream::connect(addr).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let next = Node::builder().listen(addr).start().unwrap();
    assert_eq!(next.local_addrs(), [addr]);
    drop(node);
}

#[test]
fn peers_that_do_not_answer_the_handshake_do_not_hold_up_the_end() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let node = Node::builder()
        .listen("127.0.0.1:0".parse().unwrap())
        .peer(silent.local_addr().unwrap().to_string())
        .configure(|config| config.path.handshake_timeout = LONG)
        .start()
        .unwrap();
    // The node waits for an answer here, and for the first byte there.
    let mut dialled = silent.accept().unwrap().0;
    dialled.read_exact(&mut [0]).unwrap();
    let accepted = TcpStream::connect(node.local_addrs()[0]).unwrap();
    let start = Instant::now();
    while node.snapshot().connections < 2 {
        assert!(start.elapsed() < LONG, "{} connections", node.snapshot().connections);
        thread::yield_now();
    }
    node.shutdown(Duration::ZERO);
    assert!(start.elapsed() < LONG / 2, "{:?}", start.elapsed());
    drop((dialled, accepted));
}

#[cfg(target_os = "linux")]
#[test]
fn a_removed_peer_that_stands_still_does_not_hold_up_the_end() {
    let listener = listener();
    let proxy = FaultProxy::start(listener.local_addrs()[0]).unwrap();
    let node = Node::builder()
        .peer(proxy.addr().to_string())
        .configure(|config| config.drain_timeout = Duration::from_millis(500))
        .start()
        .unwrap();
    let peer = connected(&node);
    proxy.update(|faults| faults.stall = Ways::both(true));
    let receipt = node.send(peer, (URGENT, "never read")).unwrap();
    assert!(node.remove_peer(peer));
    assert!(matches!(receipt.wait_timeout(LONG), Some(Outcome::Dropped(_))));
    // Its connection is watched to its end, although the link is gone.
    let ended = node.events().any(|event| matches!(event, Event::Disconnected { .. }));
    assert!(ended);
    let error = node.send(peer, (URGENT, "gone")).unwrap_err();
    assert_eq!(*error.kind(), SendErrorKind::UnknownPeer(peer));
    assert_eq!(error.into_message(), "gone");
    let start = Instant::now();
    node.shutdown(Duration::from_secs(1));
    assert!(start.elapsed() < LONG);
}

#[cfg(target_os = "linux")]
#[test]
fn an_address_that_never_answered_can_be_given_up() {
    let nobody = FaultProxy::start("127.0.0.1:1".parse().unwrap()).unwrap();
    nobody.update(|faults| faults.refuse = true);
    let address = nobody.addr().to_string();
    let node = Node::builder().peer(&address).start().unwrap();
    let failed = node.events().any(|event| matches!(event, Event::DialFailed { .. }));
    assert!(failed);
    assert_eq!(node.peers().len(), 1);
    assert!(node.remove_address(&address));
    assert!(!node.remove_address(&address));
    assert!(node.peers().is_empty());
}

#[test]
fn a_peer_that_is_named_twice_counts_once_for_a_quorum() {
    let listener = listener();
    let node = Node::builder().peer(listener.local_addrs()[0].to_string()).start().unwrap();
    let peer = connected(&node);
    let stranger = PeerId::from_bytes([7; 32]);
    let broadcast = node.broadcast_to(&[peer, peer, stranger], (URGENT, "one vote"));
    assert_eq!(broadcast.receipts().len(), 1);
    assert_eq!(broadcast.refused(), [(stranger, SendErrorKind::UnknownPeer(stranger))]);
    let error = broadcast.wait_for(2, LONG).unwrap_err();
    assert!(error.impossible, "{error}");
}

#[test]
fn unwanted_messages_cost_nothing_of_the_budget() {
    // The listener has no bulk lane: what is sent there ends at once, and its room comes back.
    let lanes = vec![LaneConfig::urgent(), LaneConfig::normal()];
    let listener = Node::builder()
        .listen("127.0.0.1:0".parse().unwrap())
        .configure(|config| config.lanes = lanes)
        .start()
        .unwrap();
    let node = Node::builder().peer(listener.local_addrs()[0].to_string()).start().unwrap();
    let peer = connected(&node);
    for _ in 0..100 {
        let receipt = node.send(peer, (unbroken::BULK, vec![0; 100_000])).unwrap();
        assert!(matches!(receipt.wait_timeout(LONG), Some(Outcome::Dropped(_))));
    }
    assert_eq!(node.snapshot().queued_bytes, 0);
}

#[cfg(target_os = "linux")]
#[test]
fn behaviour_that_is_set_for_an_address_holds_for_who_answers_there() {
    let listener = listener();
    let proxy = FaultProxy::start(listener.local_addrs()[0]).unwrap();
    let node = Node::builder().start().unwrap();
    let mut path = node.config().path.clone();
    path.suspect_after = Duration::from_millis(200);
    path.ping_interval = Duration::from_millis(300);
    let wanted = PeerConfig { path: Some(path), ..PeerConfig::new(proxy.addr().to_string()) };
    node.add_peer(wanted).unwrap();
    connected(&node);
    let start = Instant::now();
    proxy.update(|faults| faults.stall = Ways::both(true));
    let suspect = node.events().any(|event| matches!(event, Event::Suspect { .. }));
    assert!(suspect);
    // With the node's own behaviour the next ping would be ten seconds away.
    assert!(start.elapsed() < Duration::from_secs(9), "{:?}", start.elapsed());
}

/// A link-local address of this machine, with the name of its interface.
#[cfg(target_os = "linux")]
fn link_local() -> Option<(std::net::Ipv6Addr, String)> {
    // A line each: address, number of the interface, prefix, scope, flags, name (proc_net(5)).
    let lines = std::fs::read_to_string("/proc/net/if_inet6").ok()?;
    lines.lines().find(|line| line.starts_with("fe80")).and_then(|line| {
        let bits = u128::from_str_radix(line.split_whitespace().next()?, 16).ok()?;
        Some((bits.into(), line.split_whitespace().last()?.to_string()))
    })
}

#[cfg(target_os = "linux")]
#[test]
fn a_link_local_address_is_dialled_and_listened_on_by_the_name_of_its_interface() {
    let Some((ip, interface)) = link_local() else {
        return println!("skipped: no interface here has a link-local address");
    };
    let listen = format!(r#"{{"listen": ["[{ip}%{interface}]:0"]}}"#);
    let config: unbroken::Config = serde_json::from_str(&listen).unwrap();
    let node = Node::builder().config(config).start().unwrap();
    let port = node.local_addrs()[0].port();
    for address in [format!("[{ip}%{interface}]:{port}"), format!("{ip}%{interface}:{port}")] {
        let other = Node::builder().peer(address).start().unwrap();
        assert_eq!(connected(&other), node.id());
    }
}

#[test]
fn a_node_with_an_identity_file_is_the_same_node_in_its_next_life() {
    let path = std::env::temp_dir().join(format!("unbroken-edges-identity-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let start = || Node::builder().identity_file(&path).start();
    let first = start().unwrap().id();
    assert_eq!(start().unwrap().id(), first);
    assert_eq!(Identity::load(&path).unwrap().peer_id(), first);
    std::fs::write(&path, "no key").unwrap();
    let error = start().unwrap_err();
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(error, StartError::Identity(_)), "{error}");
    assert!(error.to_string().contains("unbroken-edges-identity"), "{error}");
}

#[test]
fn a_lane_of_the_builder_is_added_or_replaces_the_one_with_its_id() {
    let gossip = LaneConfig { id: LaneId(7), ..LaneConfig::default() };
    let small = LaneConfig { id: LaneId(7), max_message: 1000, ..LaneConfig::default() };
    let node = Node::builder().lane(gossip).lane(small).start().unwrap();
    let lanes = &node.config().lanes;
    assert_eq!(lanes.len(), LaneConfig::defaults().len() + 1);
    let limit = lanes.iter().find(|lane| lane.id == LaneId(7)).map(|lane| lane.max_message);
    assert_eq!(limit, Some(1000));
    let mistaken = Node::builder().peers(["10.0.0.3:4000"]).config(unbroken::Config::default()).start();
    assert!(matches!(mistaken, Err(StartError::Config(_))));
}
