//! The promises with the default settings: nothing is scaled down here. Only the mode
//! is as in all tests.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test may panic, and runs on the real clock and real threads"
)]

use std::time::{Duration, Instant};

use unbroken::test_util::{FaultProxy, Faults, black_hole_supported};
use unbroken::{Event, Node, Outcome, PeerId, URGENT};
use unbroken_test_support::cluster::any_addr;
use unbroken_test_support::raw::encryption;

const LONG: Duration = Duration::from_secs(60);

/// A node that listens, one that dials it through a proxy, and the listener's name.
struct Pair {
    listener: Node,
    dialer: Node,
    peer: PeerId,
    proxy: FaultProxy,
}

impl Pair {
    fn start(faults: Faults) -> Pair {
        let builder = || {
            Node::builder().configure(|config| {
                config.encryption = encryption();
            })
        };
        let listener = builder().listen(any_addr()).start().unwrap();
        let proxy = FaultProxy::start(listener.local_addrs()[0]).unwrap();
        proxy.set(faults);
        let dialer = builder().peer(proxy.addr().to_string()).start().unwrap();
        let peer = listener.id();
        let pair = Pair { listener, dialer, peer, proxy };
        pair.vote("first");
        pair
    }

    /// Sends a vote and waits until it was received and acknowledged. Returns the time that took.
    fn vote(&self, text: &'static str) -> Duration {
        let mut start = Instant::now();
        let receipt = loop {
            match self.dialer.send(self.peer, (URGENT, text)) {
                Ok(receipt) => break receipt,
                // The very first one: the link is not made yet.
                Err(_) => {
                    self.dialer.recv_timeout(LONG).unwrap().expect("an event");
                    start = Instant::now();
                }
            }
        };
        let message = self.listener.events().find_map(|event| match event {
            Event::Message(message) => Some(message),
            _ => None,
        });
        assert_eq!(message.unwrap().into_bytes(), text.as_bytes());
        assert_eq!(receipt.wait_timeout(LONG), Some(Outcome::Taken));
        start.elapsed()
    }

    fn connections_made(&self) -> u64 {
        self.dialer.peer(self.peer).unwrap().reconnects + 1
    }
}

fn black_holes_work() -> bool {
    let supported = black_hole_supported();
    if !supported {
        println!("skipped: this kernel refuses TCP_MD5SIG, without which there is no silent black hole");
    }
    supported
}

#[test]
fn a_vote_into_a_black_hole_arrives_within_three_seconds() {
    if !black_holes_work() {
        return;
    }
    let pair = Pair::start(Faults::default());
    assert!(pair.proxy.black_hole());
    let took = pair.vote("into the hole");
    println!("delivered again after {took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert!(took >= Duration::from_millis(900), "{took:?}: was there a black hole at all?");
}

#[test]
fn an_idle_black_hole_is_replaced_within_twenty_five_seconds() {
    if !black_holes_work() {
        return;
    }
    let pair = Pair::start(Faults::default());
    let start = Instant::now();
    assert!(pair.proxy.black_hole());
    let before = pair.proxy.stats().connected;
    assert!(pair.proxy.wait_until(LONG, |stats| stats.connected > before));
    let took = pair.vote("after the hole");
    println!("a new connection after {:?}, a vote over it in {took:?}", start.elapsed() - took);
    assert!(start.elapsed() < Duration::from_secs(25), "{:?}", start.elapsed());
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
#[ignore = "idles for 51 s; run by .ci/run"]
fn after_51_s_behind_a_nat_that_forgets_after_30_s_the_first_vote_goes_at_once() {
    if !black_holes_work() {
        return;
    }
    let pair = Pair::start(Faults { forget_idle: Some(Duration::from_secs(30)), ..Faults::default() });
    // Nothing is sent: the time itself is what is tested.
    assert!(!pair.proxy.wait_until(Duration::from_secs(51), |stats| stats.forgotten > 0));
    let took = pair.vote("after a long silence");
    println!("acknowledged after {took:?}");
    assert!(took < Duration::from_millis(900), "{took:?}: not over the connection that idled");
    assert_eq!(pair.connections_made(), 1);
}
