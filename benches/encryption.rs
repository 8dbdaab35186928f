//! The cost of encryption: the same rounds encrypted and in plaintext by turns, so that whatever else the
//! machine does meets both alike. Prints the medians and their ratio. Wanted on loopback: at 256 KiB at least
//! 60 % of the rate in plaintext, at 64 B at least 80 %, there and back at most 1.25 times the time.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a bench that cannot run shall say so and stop; it reads the clock"
)]

#[allow(dead_code, unreachable_pub, reason = "shared with other benches")]
mod common;

use std::time::Instant;

use bytes::Bytes;
use crossbeam_channel::{Receiver, bounded};
use unbroken::{BULK, Encryption, Event, LaneId, NORMAL, Outcome, URGENT};

/// How fast a pair of nodes is depends on where the kernel happens to put its threads and buffers: many
/// pairs.
const PAIRS: usize = 10;
const ROUNDS: usize = 10;

fn main() {
    println!("{:12} {:>14} {:>14} {:>10}", "", "encrypted", "plaintext", "rate");
    for (name, lane, size, count) in
        [("64 B", NORMAL, 64, 20_000), ("1 KiB", NORMAL, 1024, 10_000), ("256 KiB", BULK, 256 * 1024, 200)]
    {
        compare(name, count, |encryption| one_way(encryption, lane, size, count));
    }
    compare("there, back", 200, there_and_back);
}

/// Alternates the two, with their order.
fn compare<F: FnMut()>(name: &str, count: u64, start: impl Fn(Encryption) -> F) {
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..PAIRS {
        let mut modes = [start(Encryption::Noise), start(Encryption::Plaintext)];
        modes.iter_mut().for_each(|round| (0..3).for_each(|_| round()));
        for round in 0..ROUNDS {
            for mode in [round % 2, 1 - round % 2] {
                let start = Instant::now();
                modes[mode]();
                times[mode].push(start.elapsed());
            }
        }
    }
    let [encrypted, plaintext] = times.map(|mut times| {
        times.sort_unstable();
        times[PAIRS * ROUNDS / 2].as_secs_f64() * 1e6 / count as f64
    });
    println!("{name:12} {encrypted:11.2} us {plaintext:11.2} us {:8.0} %", 100.0 * plaintext / encrypted);
}

fn one_way(encryption: Encryption, lane: LaneId, size: usize, count: u64) -> impl FnMut() {
    let nodes = common::nodes(encryption);
    let receiver = nodes.b.lane_receiver(lane).unwrap();
    let (done, all_taken): (_, Receiver<()>) = bounded(1);
    let keep = nodes.b.clone();
    common::spawn("receiver", move || {
        let mut taken = 0;
        while let Ok(messages) = receiver.recv_batch(1024) {
            taken += messages.len() as u64;
            if taken == count {
                taken = 0;
                let _ = done.send(());
            }
        }
        drop(keep);
    });
    let body = Bytes::from(vec![7; size]);
    move || {
        for _ in 0..count {
            nodes.a.send(nodes.b_id, (lane, body.clone())).unwrap();
        }
        all_taken.recv().unwrap();
    }
}

fn there_and_back(encryption: Encryption) -> impl FnMut() {
    let nodes = common::nodes(encryption);
    let server = nodes.b.clone();
    common::spawn("server", move || {
        while let Ok(Event::Message(_) | Event::LinkUp { .. } | Event::Connected { .. }) = server.recv() {}
    });
    move || {
        for _ in 0..200 {
            let receipt = nodes.a.send(nodes.b_id, (URGENT, Bytes::from_static(&[7; 64]))).unwrap();
            assert_eq!(receipt.wait(), Outcome::Taken);
        }
    }
}
