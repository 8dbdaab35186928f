//! Promise 8 under load: planned replacements cost votes and blocks at full speed nothing. A test of its own,
//! because it measures how long votes take.

#![cfg(target_os = "linux")] // As the fault proxy is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test: it fails by panicking, and it reads the real clock"
)]

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use unbroken::{BULK, Config, EndCause, Event, Outcome, URGENT};
use unbroken_test_support::cluster::{
    Pair, TIMEOUT, all_taken, calm_path, eventually, link_was_down, only_conn,
};
use unbroken_test_support::numbered::message;

const MIB: usize = 1 << 20;

fn calm(config: &mut Config) {
    config.path = calm_path();
    config.max_replacements_per_minute = 100_000;
}

/// Votes and blocks both ways at full speed while `during` runs; gives how long each vote took from send to
/// receipt, in order of length.
fn under_load(pair: &Pair, stream: u64, during: impl FnOnce() + Send) -> Vec<Duration> {
    let (a, b) = (&pair.a, &pair.b);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for (from, to) in [(a, b), (b, a)] {
            let over = &over;
            scope.spawn(move || {
                let mut receipts = Vec::new();
                for seq in 0.. {
                    if over.load(SeqCst) {
                        break;
                    }
                    receipts.push(from.send(to.id(), (BULK, message(stream, seq, MIB / 4))).unwrap());
                }
                all_taken(&receipts);
            });
        }
        let voter = scope.spawn(|| {
            let mut times = Vec::new();
            while !over.load(SeqCst) {
                let start = Instant::now();
                let vote = message(stream + 1, times.len() as u64, 64);
                let vote = a.send(b.id(), (URGENT, vote)).unwrap();
                assert_eq!(vote.wait_timeout(TIMEOUT), Some(Outcome::Taken));
                times.push(start.elapsed());
                thread::sleep(Duration::from_millis(1)); // The next vote of the next round.
            }
            times.sort();
            times
        });
        during();
        over.store(true, SeqCst);
        voter.join().unwrap()
    })
}

fn planned_replacements(rounds: usize, more_than_usual: Duration) {
    let pair = Pair::start(calm);
    let (a, b) = (&pair.a, &pair.b);
    let usual = under_load(&pair, 10, || thread::sleep(Duration::from_secs(3)));
    let p99 = usual[usual.len() * 99 / 100];
    let (of_a, of_b) = (a.mark(), b.mark());
    let times = under_load(&pair, 20, || {
        for _ in 0..rounds {
            let old = only_conn(a, b);
            a.replace(b.id()).unwrap();
            eventually("a successor has taken over", || only_conn(a, b) != old);
        }
    });
    let worst = *times.last().unwrap();
    eprintln!(
        "{} votes, usual p99 {p99:?} (worst {:?}); {rounds} replacements: p99 {:?}, worst {worst:?}",
        times.len(),
        usual.last().unwrap(),
        times[times.len() * 99 / 100]
    );
    assert!(worst <= p99 + more_than_usual, "usual p99 {p99:?}, worst {worst:?}");
    assert!(!link_was_down(a, of_a) && !link_was_down(b, of_b));
    for peer in [a, b] {
        peer.look(|log| assert!(log.checker.errors.is_empty(), "{:?}", log.checker.errors));
    }
    // Each ended in order, because the successor had proved itself.
    let orderly = |event: &Event| match event {
        Event::Disconnected { reason, .. } => matches!(reason.cause, EndCause::Goaway(_)),
        _ => false,
    };
    let ended = |event: &Event| matches!(event, Event::Disconnected { .. });
    a.wait("the old ones have ended", |log| (log.count(ended) >= rounds).then_some(()));
    a.look(|log| assert_eq!(log.count(orderly), log.count(ended), "{:?}", log.events));
}

#[test]
fn planned_replacements_under_full_load() {
    planned_replacements(25, Duration::from_secs(1));
}

/// The figure of the documentation. Wants a machine with nothing else to do.
#[test]
#[ignore = "holds a bound of 50 ms, on a quiet machine"]
fn two_hundred_planned_replacements_within_50_ms() {
    planned_replacements(200, Duration::from_millis(50));
}
