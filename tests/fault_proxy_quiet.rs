//! No thread spins. A file of its own, with one test: it measures the process's CPU time.

#![cfg(target_os = "linux")] // As the fault proxy is.
#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test may panic, and runs on the real clock and real threads"
)]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use socket2::SockRef;
use unbroken::test_util::{Direction, Side, Ways};
use unbroken_test_support::rig::*;

fn cpu_time() -> Duration {
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) }, 0);
    let time = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

#[test]
fn waiting_costs_no_cpu() {
    let black_holes = can_black_hole();
    // The acts of the ends, under faults that keep the proxy from finishing the flow.
    for fault in 0..6 {
        let rig = Rig::new();
        let mut kept = Vec::new();
        let mut flows: Vec<_> = (0..8).map(|_| rig.connect()).collect();
        match fault {
            0 => {}
            1 => rig.proxy.update(|f| f.stall = Ways::both(true)),
            2 => rig.proxy.update(|f| f.stall = Ways::only(Direction::ToClient, true)),
            3 => rig.proxy.update(|f| f.delay = Ways::both(LONG * 10)),
            4 => rig.proxy.update(|f| f.rate = Ways::both(Some(0))),
            _ if black_holes => assert!(rig.proxy.half_open(Side::Client)),
            _ => {}
        }
        for (n, (mut client, mut target)) in flows.drain(..).enumerate() {
            match n {
                0 => {}
                1 => reset(client),
                2 => reset(target),
                3 => client.shutdown(Shutdown::Write).unwrap(),
                4 => {
                    client.shutdown(Shutdown::Write).unwrap();
                    target.shutdown(Shutdown::Write).unwrap();
                    kept.push(client);
                    kept.push(target);
                }
                5 => {
                    client.shutdown(Shutdown::Write).unwrap();
                    reset(client);
                    kept.push(target);
                }
                6 => {
                    // Sending is what ends a half-open flow.
                    if fault != 5 || !black_holes {
                        fill(&client);
                    }
                    kept.push(client);
                    kept.push(target);
                }
                _ => {
                    client.write_all(b"1").unwrap();
                    if fault == 0 {
                        target.read_exact(&mut [0]).unwrap();
                    }
                    target.write_all(b"2").unwrap();
                    reset(target);
                    kept.push(client);
                }
            }
        }
        let wall = Duration::from_millis(500);
        let settled = cpu_time();
        std::thread::sleep(wall);
        let used = cpu_time() - settled;
        println!("fault {fault}: {used:?}, {} flows", rig.proxy.flows());
        assert!(used < wall / 4, "fault {fault}: {used:?}");
    }
}
