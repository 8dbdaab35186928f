//! Nothing is left behind. A file of its own, with one test: it counts what the process has.

#![cfg(target_os = "linux")] // As the fault proxy is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test may panic, and runs on the real clock and real threads"
)]

use std::io::Write;
use std::time::Instant;

use unbroken::test_util::{Faults, Side, Ways};
use unbroken_test_support::process::{fds, resident_bytes, threads};
use unbroken_test_support::rig::*;

#[test]
fn drop_joins_threads_and_closes_sockets() {
    can_black_hole();
    let before = (threads().unwrap(), fds().unwrap());
    assert!(resident_bytes().unwrap() > 100_000);
    for round in 0..6 {
        let rig = Rig::new();
        let mut flows: Vec<_> = (0..8).map(|_| rig.connect()).collect();
        match round {
            0 => {}
            1 => rig.proxy.update(|f| f.stall = Ways::both(true)),
            2 => rig.proxy.update(|f| f.refuse = true),
            3 => drop(rig.proxy.black_hole() && rig.proxy.black_hole_new(true)),
            4 => drop(rig.proxy.half_open(Side::Client)),
            _ => rig.proxy.set(Faults {
                rate: Ways::both(Some(1)),
                delay: Ways::both(LONG),
                ..Faults::default()
            }),
        }
        for (client, target) in &mut flows {
            client.write_all(&[0; 10_000]).unwrap();
            target.write_all(&[0; 10_000]).ok();
        }
        let Rig { proxy, target } = rig;
        let start = Instant::now();
        drop(proxy);
        assert!(start.elapsed() < LONG / 4, "round {round}");
        drop((flows, target));
        assert_eq!(fds().unwrap(), before.1, "round {round}");
        // A thread that was joined may still be on its way out of the kernel.
        while threads().unwrap() != before.0 {
            assert!(start.elapsed() < LONG, "round {round}");
            std::thread::yield_now();
        }
    }
}
