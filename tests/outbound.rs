//! The local address and the interface of outgoing connections.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test may panic, and runs on the real clock and real threads"
)]

use std::net::IpAddr;

use unbroken::{EndCause, Event};
use unbroken_test_support::cluster::{Peer, any_addr, builder, first_addr};

/// A node that listens, and one that dials it from those addresses and by that interface.
fn pair(outbound: &[&str], interface: Option<&str>) -> (Peer, Peer) {
    let listener = Peer::start(builder(|_| {}).listen(any_addr()));
    let tune = |config: &mut unbroken::Config| {
        config.outbound_addrs = outbound.iter().map(|addr| addr.parse().unwrap()).collect();
        config.outbound_interface = interface.map(str::to_owned);
    };
    let dialer = Peer::start(builder(tune).peer(first_addr(&listener).to_string()));
    (listener, dialer)
}

/// What the first dial that failed says.
fn failure(dialer: &Peer) -> String {
    let reason = dialer.wait("a failed dial", |log| {
        log.events.iter().find_map(|(_, event)| match event {
            Event::DialFailed { reason, .. } => Some(reason.clone()),
            _ => None,
        })
    });
    assert!(matches!(&reason.cause, EndCause::Io { doing, .. } if doing == "bind"), "{reason}");
    reason.to_string()
}

#[test]
fn connections_come_from_the_configured_address() {
    // The address of the other family takes no part in these dials.
    for interface in [None, Some("lo")] {
        let (listener, dialer) = pair(&["2001:db8::1", "127.0.0.2"], interface);
        listener.wait_up(dialer.id());
        let conns = listener.peer(dialer.id()).unwrap().connections;
        let from: Vec<IpAddr> = conns.iter().map(|conn| conn.addr.ip()).collect();
        assert_eq!(from, ["127.0.0.2".parse::<IpAddr>().unwrap()], "interface {interface:?}");
    }
}

#[test]
fn an_address_that_this_machine_does_not_have_is_named_by_the_failed_dial() {
    // Of the range for documentation (RFC 5737).
    let (_listener, dialer) = pair(&["192.0.2.1"], None);
    let failure = failure(&dialer);
    assert!(failure.contains("192.0.2.1"), "{failure}");
}

#[test]
fn an_interface_that_this_machine_does_not_have_is_named_by_the_failed_dial() {
    let (_listener, dialer) = pair(&[], Some("nowhere0"));
    let failure = failure(&dialer);
    assert!(failure.contains("nowhere0"), "{failure}");
}

#[test]
fn two_addresses_of_a_family_are_an_error_at_the_start() {
    let node = builder(|config| {
        config.outbound_addrs = vec![[127, 0, 0, 2].into(), [127, 0, 0, 3].into()];
    });
    let error = node.start().unwrap_err().to_string();
    assert!(error.contains("outbound_addrs[1]") && error.contains("127.0.0.3"), "{error}");
}
