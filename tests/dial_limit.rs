//! Peers that are absent use up neither the descriptors nor the threads of the process, and one that was
//! linked before is dialled at once. A file of its own, with one test: it limits and counts what the whole
//! process has.

#![cfg(target_os = "linux")] // It counts the descriptors and threads of the process in /proc.
#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test may panic, runs on the real clock, and asks the kernel what std does not offer"
)]

use unbroken::{Event, PeerConfig, PeerRecord, URGENT};
use unbroken_test_support::black_hole::BlackHole;
use unbroken_test_support::cluster::{
    Peer, TIMEOUT, all_taken, any_addr, builder, calm_path, eventually, first_addr,
};
use unbroken_test_support::process;

const DIALS: usize = 64;
const ABSENT: u16 = 1_500;

#[test]
fn absent_peers_leave_descriptors_and_threads_for_others() {
    let limit = libc::rlimit { rlim_cur: 256, rlim_max: 256 };
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
    let hole = BlackHole::start();
    let other = Peer::start(builder(|_| {}).listen(any_addr()));
    let at = first_addr(&other).to_string();
    let before = [process::fds().unwrap(), process::threads().unwrap()];

    let mut record = PeerRecord::new(at.clone());
    record.last_seen = Some(TIMEOUT);
    let node = builder(|config| {
        config.path = calm_path();
        // None of the absent ones fails, and so makes room for another.
        config.path.connect_timeout = 100 * TIMEOUT;
        config.max_dials = DIALS;
        let absent = (0..ABSENT).map(|n| hole.addr(n).to_string());
        config.peers = absent.chain([at]).map(PeerConfig::new).collect();
    });
    let node = Peer::start(node.records(vec![record]));
    node.wait_up(other.id());
    let usual = DIALS - DIALS / 4;
    eventually("all dials that may be are under way", || node.snapshot().connections == usual + 1);
    for _ in 0..3 {
        // Every connection of it ends; it is dialled again at once.
        let mark = node.mark();
        all_taken(&[other.send(node.id(), (URGENT, vec![0; 20_000])).unwrap()]);
        assert_eq!(node.replace(other.id()), Ok(1));
        node.wait_event("another connection", mark, |event| match event {
            Event::Replaced { .. } => Some(()),
            _ => None,
        });
    }
    let now = [process::fds().unwrap(), process::threads().unwrap()];
    let used = [now[0] - before[0], now[1] - before[1]];
    // One of each for a dial, and a few for the link.
    assert!(used.iter().all(|used| *used <= DIALS + 10), "{used:?} descriptors and threads");
    let failed = node.look(|log| log.count(|event| matches!(event, Event::DialFailed { .. })));
    assert_eq!(failed, 0, "a dial that waits has not failed");
}
