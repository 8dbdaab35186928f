//! Nodes behind a load balancer that says by the PROXY protocol whose connection it passes on. All of
//! 127.0.0.0/8 is this machine: the load balancer has an address of its own.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test may panic, and runs on the real clock and real threads"
)]

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use unbroken::{Config, EndCause, Event, RefusedReason};
use unbroken_test_support::cluster::{Peer, TIMEOUT, any_addr, builder, first_addr};
use unbroken_test_support::raw::{RawIdentity, connect_from};

const BALANCER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 5));
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The header for a client over IPv4, with a TLV behind the addresses.
fn header(client: SocketAddrV4) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend([0x21, 0x11, 0, 12 + 7]);
    bytes.extend(client.ip().octets());
    bytes.extend([203, 0, 113, 1]);
    bytes.extend(client.port().to_be_bytes());
    bytes.extend(4000_u16.to_be_bytes());
    bytes.extend([4, 0, 4, 0, 0, 0, 0]);
    bytes
}

/// A load balancer whose connections to `target` begin with that header. Returns its address.
fn balancer(target: SocketAddr, header: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind(any_addr()).unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(mut node) = connect_from(BALANCER, target) else { continue };
            if node.write_all(&header).is_err() {
                continue;
            }
            node.set_read_timeout(None).unwrap();
            let back = (node.try_clone().unwrap(), client.try_clone().unwrap());
            for (mut from, mut to) in [(client, node), back] {
                thread::spawn(move || {
                    let _ = io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Write);
                });
            }
        }
    });
    addr
}

fn behind(change: impl FnOnce(&mut Config)) -> Peer {
    let tune = |config: &mut Config| {
        config.proxy_protocol_from = vec![BALANCER.into()];
        config.admission.exempt = Vec::new();
        change(config);
    };
    Peer::start(builder(tune).listen(any_addr()))
}

/// A client that reaches the node through a load balancer, which says that it comes from there.
fn client(node: &Peer, from: &str) -> Peer {
    let at = balancer(first_addr(node), header(from.parse().unwrap()));
    Peer::start(builder(|_| {}).peer(at.to_string()))
}

/// The addresses from which this client came, as the node shows them.
fn shown(node: &Peer, client: &Peer) -> Vec<SocketAddr> {
    node.peer(client.id()).unwrap().connections.iter().map(|conn| conn.addr).collect()
}

/// The first connection that the node refused from this address.
fn refused(node: &Peer, from: IpAddr) -> RefusedReason {
    node.wait("a refusal", |log| {
        log.events.iter().find_map(|(_, event)| match event {
            Event::Refused { addr, why, .. } if addr.ip() == from => Some(*why),
            _ => None,
        })
    })
}

/// The other side closes without having said anything.
fn expect_closed(mut stream: &TcpStream) {
    match stream.read(&mut [0; 1]) {
        Ok(count) => assert_eq!(count, 0),
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
}

#[test]
fn clients_behind_one_load_balancer_are_limited_separately() {
    let node = behind(|config| config.admission.max_inbound_per_address = 1);
    let first = client(&node, "198.51.100.1:1111");
    node.wait_up(first.id());
    assert_eq!(shown(&node, &first), ["198.51.100.1:1111".parse().unwrap()]);
    let second = client(&node, "198.51.100.1:2222");
    let why = second.wait("a refused dial", |log| {
        log.events.iter().find_map(|(_, event)| match event {
            Event::DialFailed { reason, .. } => Some(reason.cause.clone()),
            _ => None,
        })
    });
    assert!(matches!(why, EndCause::RefusedByPeer { reason: RefusedReason::Address, .. }), "{why:?}");
    assert_eq!(refused(&node, [198, 51, 100, 1].into()), RefusedReason::Address);
    let elsewhere = client(&node, "198.51.100.2:1111");
    node.wait_up(elsewhere.id());
    assert_eq!(shown(&node, &elsewhere), ["198.51.100.2:1111".parse().unwrap()]);
}

#[test]
fn lists_of_addresses_are_about_the_clients() {
    let node = behind(|config| config.admission.deny_addresses = vec!["198.51.100.0/25".parse().unwrap()]);
    let denied = client(&node, "198.51.100.1:1111");
    assert_eq!(refused(&node, [198, 51, 100, 1].into()), RefusedReason::Denied);
    let other = client(&node, "198.51.100.200:1111");
    node.wait_up(other.id());
    assert!(node.peer(denied.id()).is_none());
}

#[test]
fn a_header_is_accepted_from_the_load_balancer_only() {
    let node = behind(|_| {});
    let liar: IpAddr = [127, 0, 0, 9].into();
    let mut stream = connect_from(liar, first_addr(&node)).unwrap();
    stream.write_all(&header("198.51.100.1:1111".parse().unwrap())).unwrap();
    stream.write_all(&RawIdentity::new(1, 0).preface()).unwrap();
    expect_closed(&stream);
    assert_eq!(refused(&node, liar), RefusedReason::Incompatible);
    // Without a header it is let in from there.
    let direct =
        Peer::start(builder(|config| config.outbound_addrs = vec![liar]).peer(first_addr(&node).to_string()));
    node.wait_up(direct.id());
    assert_eq!(shown(&node, &direct)[0].ip(), liar);
}

#[test]
fn a_missing_or_bad_header_is_refused_and_the_next_connection_is_not() {
    let node = behind(|_| {});
    let preface = RawIdentity::new(1, 0).preface();
    let too_long = [&SIGNATURE[..], &[0x21, 0x11, 2, 9]].concat();
    let text = b"PROXY TCP4 198.51.100.1 203.0.113.1 1111 4000\r\n".to_vec();
    for (count, bytes) in [preface, too_long, text].iter().enumerate() {
        let mut stream = connect_from(BALANCER, first_addr(&node)).unwrap();
        stream.write_all(bytes).unwrap();
        expect_closed(&stream);
        node.wait("one more refusal", |log| {
            let is_of_balancer = |event: &Event| {
                matches!(event, Event::Refused { addr, why: RefusedReason::Incompatible, peer: None }
                    if addr.ip() == BALANCER)
            };
            (log.count(is_of_balancer) == count + 1).then_some(())
        });
    }
    // As a health check does that only looks whether the port is open.
    drop(connect_from(BALANCER, first_addr(&node)).unwrap());
    let honest = client(&node, "198.51.100.1:1111");
    node.wait_up(honest.id());
    assert!(node.bans().is_empty());
}

#[test]
fn a_connection_of_the_load_balancer_itself_has_its_address() {
    let node = behind(|_| {});
    let local = [&SIGNATURE[..], &[0x20, 0, 0, 0]].concat();
    let at = balancer(first_addr(&node), local);
    let client = Peer::start(builder(|_| {}).peer(at.to_string()));
    node.wait_up(client.id());
    assert_eq!(shown(&node, &client)[0].ip(), BALANCER);
}

#[test]
fn a_header_that_does_not_come_ends_with_the_handshake_and_keeps_no_node_from_its_end() {
    let node = behind(|config| config.path.handshake_timeout = Duration::from_millis(300));
    let mut stream = connect_from(BALANCER, first_addr(&node)).unwrap();
    stream.write_all(&SIGNATURE[..7]).unwrap();
    expect_closed(&stream);

    let node = behind(|config| {
        config.path.handshake_timeout = 10 * TIMEOUT;
        config.max_handshakes = 1;
    });
    let waits = connect_from(BALANCER, first_addr(&node)).unwrap();
    // It has the only place.
    let further = connect_from(BALANCER, first_addr(&node)).unwrap();
    expect_closed(&further);
    let start = Instant::now();
    node.shutdown(Duration::ZERO);
    assert!(start.elapsed() < TIMEOUT, "{:?}", start.elapsed());
    expect_closed(&waits);
}
