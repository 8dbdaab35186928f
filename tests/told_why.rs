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

use support::cluster::{Peer, any_addr, builder, first_addr};
use unbroken::{EndCause, EndReason, Event, Identity, Node};

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
    nobody.shutdown(std::time::Duration::ZERO);
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
