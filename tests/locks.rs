//! How many locks a message takes on its way. A test of its own: it counts those of the whole process.

#![cfg(target_os = "linux")] // As the fault proxy is.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say so")]

use bytes::Bytes;
use unbroken::NORMAL;
use unbroken::bench_support::locks_taken;
use unbroken_test_support::cluster::Pair;

const MESSAGES: usize = 5_000;
const COUNTS: usize = 5;

#[test]
fn a_message_takes_few_locks() {
    if locks_taken().is_none() {
        return; // A release build does not count them.
    }
    let pair = Pair::start(|_| {});
    let peer = pair.a.peer_handle(pair.b.id());
    let receiver = pair.b.lane_receiver(NORMAL).unwrap();
    let body = Bytes::from(vec![7; 64]);
    let taken = || locks_taken().unwrap();
    // Both sides together, from the first send until all were taken out.
    let each = |send: &dyn Fn()| {
        let count = || {
            let before = taken();
            send();
            let mut left = MESSAGES;
            while left > 0 {
                left -= receiver.recv_batch(left).unwrap().len();
            }
            taken() - before
        };
        // The more messages share a write, the fewer locks: the least is what a message costs.
        (0..COUNTS).map(|_| count()).min().unwrap() as f64 / MESSAGES as f64
    };
    let single = each(&|| (0..MESSAGES).for_each(|_| drop(peer.send((NORMAL, body.clone())).unwrap())));
    let many = each(&|| drop(peer.send_many((0..MESSAGES).map(|_| (NORMAL, body.clone()))).unwrap()));
    // Three and one, whatever the machine does; the rest, 0.01 to 0.12, is shared by the messages of a write.
    // One lock more for each message is too much.
    println!("{single:.3} locks a message; {many:.3} with send_many");
    assert!(single < 3.8, "{single:.3} locks a message");
    assert!(many < 1.8, "{many:.3} locks a message, sent many at once");
}
