//! Promise 15: replacing connections never makes a path deliver later than leaving the connection alone would
//! have. Packet loss and narrow links are in `netns`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test: it fails by panicking, and it reads the real clock"
)]

use std::time::{Duration, Instant};

use unbroken::test_util::Ways;
use unbroken::{Config, Event, URGENT};
use unbroken_test_support::cluster::{Pair, all_taken, path};
use unbroken_test_support::numbered::message;

fn tune(config: &mut Config) {
    // A fault that no new connection cures must not end one either.
    config.path = path();
    config.path.dead_after = Duration::from_secs(20);
    config.path.write_timeout = Duration::from_secs(20);
    config.path.user_timeout = Duration::from_secs(20);
    config.path.connect_timeout = Duration::from_secs(5);
    config.path.handshake_timeout = Duration::from_secs(10);
}

/// The whole path stands still again and again, and goes on by itself: a successor is as ill as what it
/// replaces.
#[test]
fn a_path_that_stands_still_again_and_again_is_not_met_with_a_connection_each_time() {
    const STALLS: usize = 24;
    let stall = Duration::from_millis(400);
    let pair = Pair::start(tune);
    let (a, b) = (&pair.a, &pair.b);
    let mut worst = Duration::ZERO;
    let mut seq = 0;
    let mut vote = || {
        seq += 1;
        a.send(b.id(), (URGENT, message(1, seq, 64))).unwrap()
    };
    for _ in 0..STALLS {
        pair.proxy.update(|faults| faults.stall = Ways::both(true));
        let waiting = vote();
        // Time itself is the fault.
        std::thread::sleep(stall);
        pair.proxy.update(|faults| faults.stall = Ways::default());
        let healed = Instant::now();
        all_taken(&[waiting]);
        worst = worst.max(healed.elapsed());
        all_taken(&[vote()]);
        std::thread::sleep(stall / 4);
    }
    let count = |what: fn(&Event) -> bool| a.look(|log| log.count(what));
    let suspect = count(|event| matches!(event, Event::Suspect { .. }));
    let replaced = count(|event| matches!(event, Event::Replaced { .. }));
    println!(
        "{STALLS} stalls: {suspect} suspects, {replaced} replaced, a vote {worst:?} after the path at most"
    );
    // A busy machine notices fewer of them.
    assert!(suspect > STALLS / 4, "{suspect} suspects: did the path stand still at all?");
    assert!(replaced <= STALLS * 2 / 3, "{replaced} replaced, and it never helped");
}
