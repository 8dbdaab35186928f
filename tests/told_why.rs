//! Told why: a refused connection, send, request or setting reports its reason to both applications.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test may panic, and runs on the real clock and real threads"
)]

use std::error::Error;
use std::io;
use std::sync::Once;
use std::thread;
use std::time::Duration;

use log::{Level, LevelFilter, Metadata, Record};
use parking_lot::Mutex;
use unbroken::{
    AdmitDecision, Builder, Config, EndCause, EndReason, Event, Identity, Initiator, Node, Outcome,
    PeerConfig, PeerId, RefusedReason, URGENT, WaitError,
};
use unbroken_test_support::cluster::{Peer, TIMEOUT, any_addr, builder, first_addr, within};

/// The text of a report that goes through all sources, as `{:#}` of anyhow does.
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
    // As the system calls them.
    let taken = std::net::TcpListener::bind(first.local_addrs()[0]).unwrap_err().to_string();
    let absent = std::fs::read("/nonexistent/key").unwrap_err().to_string();
    let cases: [(&dyn Error, &str); 3] = [(&in_use, &taken), (&config, "max_events"), (&missing, &absent)];
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
    assert_eq!(dialler.wait_for_links(1, TIMEOUT), Ok(vec![listener.id()]));
    listener.wait_linked(dialler.id(), TIMEOUT).unwrap();
    let receipt = listener.send(dialler.id(), (URGENT, "kept")).unwrap();
    dialler.wait_linked(listener.id(), TIMEOUT).unwrap();
    dialler.wait_for_links(1, TIMEOUT).unwrap();
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
    // A dial that waits when the node shuts down ends at once.
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
    node.wait_linked(listener.id(), TIMEOUT).unwrap();
    let broadcast = node.broadcast((URGENT, "vote"));
    assert_eq!(broadcast.unidentified(), std::slice::from_ref(&absent));
    // The link, and the peer that is absent but known by its id: its message waits.
    let mut peers: Vec<_> = broadcast.receipts().iter().map(|(peer, _)| *peer).collect();
    peers.sort();
    let mut expected = vec![listener.id(), pinned];
    expected.sort();
    assert_eq!(peers, expected);
    let error = broadcast.wait_for(3, TIMEOUT).unwrap_err();
    assert!(error.impossible && error.unidentified == std::slice::from_ref(&absent), "{error:?}");
    assert!(error.to_string().contains(&absent), "{error}");
    assert_eq!(node.broadcast_to(&[pinned], (URGENT, "vote")).unidentified(), [""; 0]);
}

/// The lines that the one logger of this process was given.
struct Sink(Mutex<Vec<(Level, String)>>);

impl log::Log for Sink {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Info && metadata.target().starts_with("unbroken")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.lock().push((record.level(), record.args().to_string()));
        }
    }

    fn flush(&self) {}
}

static SINK: Sink = Sink(Mutex::new(Vec::new()));

fn keep_log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&SINK).unwrap();
        log::set_max_level(LevelFilter::Info);
    });
}

/// Waits for a line that has all these parts.
fn line(level: Level, parts: &[&str]) {
    let fits = |(at, line): &(Level, String)| *at == level && parts.iter().all(|part| line.contains(part));
    let there = within(TIMEOUT, || SINK.0.lock().iter().any(fits));
    assert!(there, "no {level} line with {parts:?} in {:#?}", SINK.0.lock());
}

/// Waits for the refusal of a dial as the dialler hears of it, and as its log does.
fn dial_refused(dialler: &Peer, address: &str) -> RefusedReason {
    let reason = dialler.wait("its dial is refused", |log| {
        log.events.iter().find_map(|(_, event)| match event {
            Event::DialFailed { address: tried, reason, .. } if tried == address => Some(reason.clone()),
            _ => None,
        })
    });
    assert_eq!(reason.by, Initiator::Peer, "{reason}");
    let EndCause::RefusedByPeer { reason: why, .. } = reason.cause else { panic!("{reason:?}") };
    why
}

/// Waits for the refusal as the listener hears of it.
fn told(listener: &Peer, dialler: Option<PeerId>) -> RefusedReason {
    listener.wait("the application is told of the refusal", |log| {
        log.events.iter().find_map(|(_, event)| match event {
            Event::Refused { peer, why, .. } if *peer == dialler => Some(*why),
            _ => None,
        })
    })
}

/// Nothing was said of a connection that never served.
fn never_connected(peer: &Peer) {
    peer.look(|log| {
        let said = |event: &Event| matches!(event, Event::Connected { .. } | Event::LinkUp { .. });
        assert_eq!(log.count(said), 0, "{}", log.story());
    });
}

/// A refusal, with what the event, the error and the log of both sides say of it.
fn refusal(listener: Builder, before: impl FnOnce(&Peer, PeerId), why: RefusedReason, text: &str) {
    keep_log();
    let identity = Identity::generate().unwrap();
    let listener = Peer::start(listener.listen(any_addr()));
    before(&listener, identity.peer_id());
    let address = first_addr(&listener).to_string();
    let dialler = Peer::start(builder(|_| {}).identity(identity).peer(&address));
    assert_eq!(dial_refused(&dialler, &address), why);
    assert_eq!(told(&listener, Some(dialler.id())), why);
    // In the dialler's snapshot as well, though the refusing side has proven who it is, and so has a link
    // here.
    let shown = dialler.peer(listener.id()).and_then(|peer| peer.last_error);
    let cause = shown.map(|reason| reason.cause);
    assert!(matches!(&cause, Some(EndCause::RefusedByPeer { reason, .. }) if *reason == why), "{cause:?}");
    never_connected(&dialler);
    never_connected(&listener);
    line(Level::Warn, &["dial ", &address, &format!("refused: {why}"), "(by the peer)"]);
    line(Level::Info, &["refused ", &dialler.id().to_string(), text]);
}

#[test]
fn a_denied_peer_learns_it() {
    let other = Identity::generate().unwrap().peer_id();
    let listed = builder(|config| config.admission.allow_peers = vec![other]);
    refusal(listed, |_, _| {}, RefusedReason::Denied, "not on the list");
}

#[test]
fn a_peer_that_the_application_refuses_learns_it() {
    let refuses = builder(|_| {}).admit(|_, _| AdmitDecision::Refuse);
    refusal(refuses, |_, _| {}, RefusedReason::Application, "the application refused it");
}

#[test]
fn a_banned_peer_learns_it() {
    let bans = |listener: &Peer, peer| listener.ban(peer, None);
    refusal(builder(|_| {}), bans, RefusedReason::Banned, "banned");
}

#[test]
fn a_peer_learns_that_the_node_is_full() {
    let small = builder(|config| {
        config.admission.max_inbound = 1;
        config.admission.reserved = 0;
    });
    keep_log();
    let listener = Peer::start(small.listen(any_addr()));
    let address = first_addr(&listener).to_string();
    let first = Peer::start(builder(|_| {}).peer(&address));
    first.wait_up(listener.id());
    let second = Peer::start(builder(|_| {}).peer(&address));
    assert_eq!(dial_refused(&second, &address), RefusedReason::Full);
    assert_eq!(told(&listener, Some(second.id())), RefusedReason::Full);
    never_connected(&second);
    assert!(RefusedReason::Full.is_temporary());
}

#[test]
fn strangers_are_told_nothing_if_the_operator_wants_so() {
    let silent = builder(|config| config.admission.tell_strangers = false);
    let listener = Peer::start(silent.admit(|_, _| AdmitDecision::Refuse).listen(any_addr()));
    let address = first_addr(&listener).to_string();
    let dialler = Peer::start(builder(|_| {}).peer(&address));
    let reason = dialler.wait("the dial fails", |log| {
        log.events.iter().find_map(|(_, event)| match event {
            Event::DialFailed { reason, .. } => Some(reason.clone()),
            _ => None,
        })
    });
    assert!(!matches!(reason.cause, EndCause::RefusedByPeer { .. }), "{reason}");
    // The application is told all the same.
    assert_eq!(told(&listener, Some(dialler.id())), RefusedReason::Application);
    // And who was named is told, by its name.
    let identity = Identity::generate().unwrap();
    listener.add_peer(PeerConfig { id: Some(identity.peer_id()), ..PeerConfig::new("127.0.0.1:1") }).unwrap();
    listener.ban(identity.peer_id(), None);
    let named = Peer::start(builder(|_| {}).identity(identity).peer(&address));
    assert_eq!(dial_refused(&named, &address), RefusedReason::Banned);
}

#[test]
fn an_address_or_a_network_that_is_refused_is_told_to_the_application() {
    keep_log();
    let elsewhere =
        builder(|config| config.admission.allow_addresses = vec!["192.0.2.0/24".parse().unwrap()]);
    let listener = Peer::start(elsewhere.listen(any_addr()));
    let _dialler = Peer::start(builder(|_| {}).peer(first_addr(&listener).to_string()));
    assert_eq!(told(&listener, None), RefusedReason::Denied);
    line(Level::Info, &["refused a connection from 127.0.0.1", "not on the list"]);

    let listener = Peer::start(builder(|config| config.network = "main".into()).listen(any_addr()));
    let dialler = builder(|config| config.network = "test".into());
    let dialler = Peer::start(dialler.peer(first_addr(&listener).to_string()));
    assert_eq!(told(&listener, None), RefusedReason::Incompatible);
    let error = dialler.wait("the dial fails", |log| {
        log.events.iter().find_map(|(_, event)| match event {
            Event::DialFailed { reason, .. } => Some(reason.clone()),
            _ => None,
        })
    });
    assert!(error.to_string().contains("another network"), "{error}");
    line(Level::Info, &["refused a connection from 127.0.0.1", "belongs to network \"test\""]);
}

#[test]
fn two_processes_with_one_identity_are_told() {
    keep_log();
    let identity = Identity::generate().unwrap();
    let listener = Peer::start(builder(|_| {}).listen(any_addr()));
    let address = first_addr(&listener).to_string();
    let first = Peer::start(builder(|_| {}).identity(identity.clone()).peer(&address));
    first.wait_up(listener.id());
    let backoff = Duration::from_millis(20);
    let second = builder(|config| config.path.backoff_first = backoff).identity(identity.clone());
    let second = Peer::start(second.peer(&address));
    assert_eq!(dial_refused(&second, &address), RefusedReason::IdentityInUse);
    assert_eq!(told(&listener, Some(identity.peer_id())), RefusedReason::IdentityInUse);
    line(Level::Error, &["dial ", &address, "another process uses this identity"]);
    line(Level::Error, &["refused ", &identity.peer_id().to_string(), "another process uses this identity"]);
    // Not once, however often it tries; and not in a hurry.
    second.wait("a second attempt", |log| {
        (log.count(|event| matches!(event, Event::DialFailed { .. })) > 1).then_some(())
    });
    second.look(|log| {
        for (_, event) in &log.events {
            if let Event::DialFailed { peer, next, .. } = event {
                assert_eq!(*peer, Some(listener.id()), "it has proven who it is");
                assert!(next.is_some_and(|next| next >= backoff * 5), "{event}");
            }
        }
    });
    let is_error = |(level, line): &&(Level, String)| *level == Level::Error && line.contains(&address);
    assert_eq!(SINK.0.lock().iter().filter(is_error).count(), 1, "the same again is no new error");
    never_connected(&second);
    listener.look(|log| assert_eq!(log.count(|event| matches!(event, Event::Connected { .. })), 1));
}

#[test]
fn the_log_and_the_events_of_a_dial_name_the_peer() {
    keep_log();
    let gone = Node::builder().listen(any_addr()).start().unwrap();
    let (address, peer) = (first_addr(&gone).to_string(), gone.id());
    gone.shutdown(Duration::ZERO);
    let label = Some("tokyo-1".into());
    let entry = PeerConfig { label: label.clone(), id: Some(peer), ..PeerConfig::new(&address) };
    let threshold = |config: &mut Config| config.path.breaker_threshold = 1;
    let dialler = Peer::start(builder(threshold).peer_config(entry.clone()));
    let failed = |event: &Event| match event {
        Event::DialFailed { peer, .. } => Some(*peer),
        _ => None,
    };
    let opened = |event: &Event| match event {
        Event::Breaker { peer, .. } => Some(*peer),
        _ => None,
    };
    assert_eq!(dialler.wait_event("the dial fails", 0, failed).1, Some(peer));
    assert_eq!(dialler.wait_event("the breaker opens", 0, opened).1, Some(peer));
    line(Level::Warn, &[&format!("tokyo-1 ({}): dial {address} failed", peer.short())]);
    assert_eq!(dialler.peer(peer).unwrap().label, label);
    // The label is all that is known of this one.
    let other = "127.0.0.1:1";
    let unknown = PeerConfig { label: Some("osaka-1".into()), ..PeerConfig::new(other) };
    dialler.add_peer(unknown).unwrap();
    line(Level::Warn, &[&format!("osaka-1: dial {other} failed")]);
    // The first line about a peer that is known by its address alone has its label.
    let there = Peer::start(builder(|_| {}).listen(any_addr()));
    dialler
        .add_peer(PeerConfig { label: Some("kobe-1".into()), ..first_addr(&there).to_string().into() })
        .unwrap();
    let kobe = format!("kobe-1 ({})", there.id().short());
    line(Level::Info, &[&format!("{kobe}: up")]);
    // So has the last one, although it is written after the label was removed with its entry.
    assert!(dialler.remove_peer(there.id()));
    line(Level::Info, &[&format!("{kobe}: down")]);
    // A peer that dials this node is named in the same way, and may be renamed.
    let identity = Identity::generate().unwrap();
    let inbound = PeerConfig { label: Some("nara-1".into()), ..PeerConfig::inbound_only(identity.peer_id()) };
    let listener = Peer::start(builder(|_| {}).listen(any_addr()).peer_config(inbound.clone()));
    let caller =
        Peer::start(builder(|_| {}).identity(identity.clone()).peer(first_addr(&listener).to_string()));
    caller.wait_up(listener.id());
    let short = identity.peer_id().short();
    line(Level::Info, &[&format!("nara-1 ({short}): up")]);
    listener.add_peer(PeerConfig { label: Some("nara-2".into()), ..inbound }).unwrap();
    caller.shutdown(Duration::ZERO);
    line(Level::Info, &[&format!("nara-2 ({short}): down")]);
    for label in ["", "two\nlines", &"x".repeat(65)] {
        let error = listener.add_peer(PeerConfig { label: Some(label.into()), ..entry.clone() }).unwrap_err();
        assert!(error.to_string().contains("peer.label"), "{error}");
    }
}

#[test]
fn a_failed_dial_names_the_peer_that_refused_it_and_not_the_one_that_was_linked() {
    keep_log();
    let first = Peer::start(builder(|_| {}).listen(any_addr()));
    let second = builder(|_| {}).admit(|_, _| AdmitDecision::Refuse).listen(any_addr());
    let second = Peer::start(second);
    let alternatives = vec![first_addr(&second).to_string()];
    let address = first_addr(&first).to_string();
    let label = Some("sakai-1".into());
    let dialler = PeerConfig { label, alternatives, ..PeerConfig::new(&address) };
    let dialler = Peer::start(builder(|_| {}).peer_config(dialler));
    dialler.wait_up(first.id());
    first.shutdown(Duration::ZERO);
    let refused = |event: &Event| match event {
        Event::DialFailed { peer, reason, .. } => {
            matches!(reason.cause, EndCause::RefusedByPeer { reason: RefusedReason::Application, .. })
                .then_some(*peer)
        }
        _ => None,
    };
    assert_eq!(dialler.wait_event("the second address refuses", 0, refused).1, Some(second.id()));
    let name = format!("sakai-1 ({})", second.id().short());
    line(Level::Warn, &[&format!("{name}: dial {address} failed: refused: the application refused it")]);
    // Nobody proves anything: the one that was linked is the best guess.
    second.shutdown(Duration::ZERO);
    let unreachable = |event: &Event| match event {
        Event::DialFailed { peer, reason, .. } => {
            matches!(reason.cause, EndCause::Io { .. }).then_some(*peer)
        }
        _ => None,
    };
    dialler.dial_now();
    assert_eq!(dialler.wait_event("nobody listens", 0, unreachable).1, Some(first.id()));
}

#[test]
fn a_snapshot_says_whose_it_is() {
    keep_log();
    let node = Node::builder().name("osaka").listen(any_addr()).start().unwrap();
    let snapshot = node.snapshot();
    assert_eq!((snapshot.peer, snapshot.name.as_str()), (node.id(), "osaka"));
    assert_eq!(snapshot.incarnation, node.incarnation());
    let json = serde_json::to_value(&snapshot).unwrap();
    assert_eq!(json["incarnation"], node.incarnation().to_string());
    let read: unbroken::NodeSnapshot = serde_json::from_value(json).unwrap();
    assert_eq!(read.incarnation, node.incarnation());
    assert!(node.snapshot().uptime_ms >= snapshot.uptime_ms);
    line(Level::Info, &["started as ", &node.id().to_string(), &first_addr(&node).to_string()]);
}

#[test]
fn settings_that_do_not_go_together_are_told_at_the_start() {
    keep_log();
    let mut config = Config { max_connections: 11, target_peers: 0, ..Config::default() };
    config.peers = (1..=6)
        .map(|n| PeerConfig { important: true, ..PeerConfig::new(format!("127.0.0.1:{n}")) })
        .collect();
    let _node = Node::builder().config(config).start().unwrap();
    line(Level::Warn, &["setting max_connections: 11 is less than the 12 connections"]);
}
