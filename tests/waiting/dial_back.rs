//! A message of the side that accepted the connection, into a path that has died in silence: with the default
//! settings.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test may panic, and runs on the real clock and real threads"
)]

use std::time::{Duration, Instant};

use unbroken::test_util::{FaultProxy, black_hole_supported};
use unbroken::{Announce, Event, Node, Outcome, PeerId, URGENT};
use unbroken_test_support::cluster::any_addr;
use unbroken_test_support::raw::encryption;

const LONG: Duration = Duration::from_secs(60);

/// A node that is dialled through a proxy, and the one that dials it, which listens too.
struct Pair {
    acceptor: Node,
    dialer: Node,
    proxy: FaultProxy,
}

impl Pair {
    /// None if this kernel makes no black holes.
    fn start(announce: Announce) -> Option<Pair> {
        if !black_hole_supported() {
            println!("skipped: this kernel refuses TCP_MD5SIG, without which there is no silent black hole");
            return None;
        }
        let builder = || {
            Node::builder().listen(any_addr()).configure(|config| {
                config.encryption = encryption();
                config.announce = announce;
            })
        };
        let acceptor = builder().start().unwrap();
        let proxy = FaultProxy::start(acceptor.local_addrs()[0]).unwrap();
        let dialer = builder().peer(proxy.addr().to_string()).start().unwrap();
        assert!(dialer.wait_linked(acceptor.id(), LONG).is_ok());
        let pair = Pair { acceptor, dialer, proxy };
        pair.to_dialer("first");
        pair.to_acceptor("first");
        Some(pair)
    }

    fn to_dialer(&self, text: &'static str) -> Duration {
        vote(&self.acceptor, &self.dialer, text)
    }

    fn to_acceptor(&self, text: &'static str) -> Duration {
        vote(&self.dialer, &self.acceptor, text)
    }
}

/// Sends a vote and waits until it was received and acknowledged. Returns the time that took.
fn vote(from: &Node, to: &Node, text: &'static str) -> Duration {
    let start = Instant::now();
    let receipt = from.send(to.id(), (URGENT, text)).unwrap();
    loop {
        match to.recv_timeout(LONG).unwrap().expect("the vote") {
            Event::Message(message) => {
                assert_eq!(message.into_bytes(), text.as_bytes());
                break;
            }
            _ => continue,
        }
    }
    assert_eq!(receipt.wait_timeout(LONG), Some(Outcome::Taken));
    start.elapsed()
}

/// How many connections to that peer this node dialled, by the events until now.
fn dialled(node: &Node, peer: PeerId) -> usize {
    std::iter::from_fn(|| node.try_recv().unwrap())
        .filter(|event| matches!(event, Event::Connected { peer: to, dialled: true, .. } if *to == peer))
        .count()
}

#[test]
fn the_accepting_side_dials_back() {
    let Some(pair) = Pair::start(Announce::ListenPort) else { return };
    assert!(pair.proxy.black_hole());
    let took = pair.to_dialer("into the hole");
    println!("from the accepting side: delivered after {took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert!(took >= Duration::from_millis(900), "{took:?}: was there a black hole at all?");
    assert_eq!(dialled(&pair.acceptor, pair.dialer.id()), 1);
    // The new connection serves both ways, and neither side goes back to the old one.
    assert!(pair.to_acceptor("back") < Duration::from_secs(1));
    assert!(pair.to_dialer("and again") < Duration::from_secs(1));
}

#[test]
fn the_dialling_side_dials_again_as_before() {
    let Some(pair) = Pair::start(Announce::ListenPort) else { return };
    assert!(pair.proxy.black_hole());
    let took = pair.to_acceptor("into the hole");
    println!("from the dialling side: delivered after {took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert!(took >= Duration::from_millis(900), "{took:?}: was there a black hole at all?");
}

/// As behind a NAT: the port that is announced leads to nobody, and the dialer has to notice that the votes
/// have stopped.
#[test]
fn the_dialling_side_asks_when_regular_votes_stop() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let Some(pair) = Pair::start(Announce::Port(nobody)) else { return };
    let every = crossbeam_channel::tick(Duration::from_millis(300));
    let vote_every = |text| {
        every.recv().unwrap();
        pair.to_dialer(text)
    };
    for _ in 0..12 {
        vote_every("regular");
    }
    assert!(pair.proxy.black_hole());
    let took = vote_every("into the hole");
    println!("after regular votes, with a port that leads to nobody: delivered after {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(dialled(&pair.acceptor, pair.dialer.id()), 0);
}

/// As above, without regular votes: the dialer's next ping has to notice.
#[test]
fn a_port_where_nobody_listens_does_no_harm() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let Some(pair) = Pair::start(Announce::Port(nobody)) else { return };
    assert!(pair.proxy.black_hole());
    let took = pair.to_dialer("into the hole");
    println!("with a port that leads to nobody: delivered after {took:?}");
    assert!(took < Duration::from_secs(25), "{took:?}");
    assert_eq!(dialled(&pair.acceptor, pair.dialer.id()), 0);
    assert!(pair.to_acceptor("back") < Duration::from_secs(1));
}
