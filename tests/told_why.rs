//! Told why: a refused connection, send, request or setting reports its reason to both applications.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test may panic, and runs on the real clock and real threads"
)]

mod support;

use std::error::Error;
use std::io;
use std::thread;
use std::time::Duration;

use support::cluster::{PATIENCE, Peer, any_addr, builder, first_addr};
use unbroken::{Config, EndCause, EndReason, Event, Identity, Node, Outcome, URGENT, WaitError};

/// What a report prints that goes through all sources, as `{:#}` of anyhow does.
fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

#[test]
fn an_error_with_its_sources_says_everything_once() {
    let first = Node::builder().listen(any_addr()).start().unwrap();
    let in_use = Node::builder().listen(first.local_addrs()[0]).start().unwrap_err();
    let config = Node::builder().configure(|config| config.max_events = 0).start().unwrap_err();
    let missing = Identity::load("/nonexistent/key").unwrap_err();
    let cases: [(&dyn Error, &str); 3] =
        [(&in_use, "Address already in use"), (&config, "max_events"), (&missing, "No such file")];
    for (error, reason) in cases {
        assert!(error.to_string().contains(reason), "{error}");
        let text = with_sources(error);
        assert_eq!(text.matches(reason).count(), 1, "{text}");
    }
}

#[test]
fn a_failed_dial_has_a_kind_to_match_on() {
    let nobody = Node::builder().listen(any_addr()).start().unwrap();
    let address = first_addr(&nobody);
    nobody.shutdown(Duration::ZERO);
    let dialler = Peer::start(builder(|_| {}).peer(address.to_string()));
    let reason: EndReason = dialler.wait("the dial fails", |log| {
        log.events.iter().find_map(|(_, event)| match event {
            Event::DialFailed { reason, .. } => Some(reason.clone()),
            _ => None,
        })
    });
    let EndCause::Io { doing, kind, os_error, .. } = &reason.cause else { panic!("{reason:?}") };
    assert_eq!((doing.as_str(), *kind), ("connect", io::ErrorKind::ConnectionRefused));
    assert!(os_error.is_some());
    let as_error: Box<dyn Error> = Box::new(reason);
    assert_eq!(as_error.to_string(), with_sources(as_error.as_ref()));
}

#[test]
fn waiting_for_a_link_takes_no_message() {
    let listener = Node::builder().listen(any_addr()).start().unwrap();
    let dialler = Node::builder().peer(first_addr(&listener).to_string()).start().unwrap();
    assert_eq!(dialler.wait_for_links(1, PATIENCE), Ok(vec![listener.id()]));
    listener.wait_linked(dialler.id(), PATIENCE).unwrap();
    let receipt = listener.send(dialler.id(), (URGENT, "kept")).unwrap();
    dialler.wait_linked(listener.id(), PATIENCE).unwrap();
    dialler.wait_for_links(1, PATIENCE).unwrap();
    assert_eq!(receipt.poll(), None);
    let message = dialler.events().find_map(|event| match event {
        Event::Message(message) => Some(message.into_bytes()),
        _ => None,
    });
    assert_eq!(message.unwrap(), "kept");
    assert_eq!(receipt.wait(), Outcome::Taken);
}

#[test]
fn waiting_for_a_link_that_does_not_come_says_why() {
    let gone = Node::builder().listen(any_addr()).start().unwrap();
    let (address, peer) = (first_addr(&gone).to_string(), gone.id());
    gone.shutdown(Duration::ZERO);
    let dialler = Node::builder().peer(format!("{peer}@{address}")).start().unwrap();
    // Until the first dial has failed there is nothing to tell.
    let failed = dialler.events().any(|event| matches!(event, Event::DialFailed { .. }));
    assert!(failed);
    let short = Duration::from_millis(1);
    for error in [
        dialler.wait_linked(peer, short).unwrap_err(),
        dialler.wait_for_links(1, short).map(drop).unwrap_err(),
    ] {
        let WaitError::Timeout { linked: 0, wanted: 1, failed } = &error else { panic!("{error:?}") };
        assert_eq!(failed.len(), 1, "{error}");
        assert_eq!(failed[0].address, address);
        let EndCause::Io { kind, .. } = &failed[0].reason.cause else { panic!("{error:?}") };
        assert_eq!(*kind, io::ErrorKind::ConnectionRefused);
        assert!(error.to_string().contains(&address), "{error}");
    }
    // Another peer's failures are none of its reasons.
    let other = Identity::generate().unwrap().peer_id();
    let error = dialler.wait_linked(other, short).unwrap_err();
    assert_eq!(error.to_string(), "0 of 1 links came up in time; no dial has failed");
    // Who waits when the node shuts down learns it at once.
    let waiter = dialler.clone();
    let waits = thread::spawn(move || waiter.wait_linked(peer, Duration::MAX));
    dialler.shutdown(Duration::ZERO);
    assert_eq!(waits.join().unwrap(), Err(WaitError::Closed));
}

#[test]
fn settings_that_would_be_discarded_are_an_error() {
    let config = Config::default;
    let late = [
        ("listen()", Node::builder().listen(any_addr()).config(config())),
        ("peer()", Node::builder().peer("127.0.0.1:1").config(config())),
        ("network()", Node::builder().network("other").config(config()).listen(any_addr())),
        ("configure()", Node::builder().configure(|config| config.target_peers = 8).config(config())),
    ];
    for (method, builder) in late {
        let error = builder.start().unwrap_err().to_string();
        assert!(error.contains("Builder::config") && error.contains(method), "{error}");
    }
    let node = Node::builder().config(config()).config(config()).listen(any_addr()).start().unwrap();
    assert_eq!(node.local_addrs().len(), 1);
}

#[test]
fn a_broadcast_names_the_configured_peers_that_it_cannot_address() {
    let listener = Node::builder().listen(any_addr()).start().unwrap();
    let linked = first_addr(&listener).to_string();
    let gone = Node::builder().listen(any_addr()).start().unwrap();
    let (absent, pinned) = (first_addr(&gone).to_string(), Identity::generate().unwrap().peer_id());
    gone.shutdown(Duration::ZERO);
    let node = Node::builder().peer(linked).peer(absent.clone()).peer(format!("{pinned}@127.0.0.1:1"));
    let node = node.start().unwrap();
    node.wait_linked(listener.id(), PATIENCE).unwrap();
    let broadcast = node.broadcast((URGENT, "vote"));
    assert_eq!(broadcast.unidentified(), std::slice::from_ref(&absent));
    // The link, and the peer that is absent but known by its id: its message waits.
    let mut peers: Vec<_> = broadcast.receipts().iter().map(|(peer, _)| *peer).collect();
    peers.sort();
    let mut expected = vec![listener.id(), pinned];
    expected.sort();
    assert_eq!(peers, expected);
    let error = broadcast.wait_for(3, PATIENCE).unwrap_err();
    assert!(error.impossible && error.unidentified == std::slice::from_ref(&absent), "{error:?}");
    assert!(error.to_string().contains(&absent), "{error}");
    assert_eq!(node.broadcast_to(&[pinned], (URGENT, "vote")).unidentified(), [""; 0]);
}
