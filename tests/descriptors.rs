//! When the process runs out of file descriptors, accepting pauses, nothing spins, and links live on.
//! A file of its own, with one test: it uses up what the whole process has.

#![cfg(target_os = "linux")] // It limits the descriptors of the process, which it reads in /proc.
#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test may panic, runs on the real clock, and asks the kernel what std does not offer"
)]

use std::fs::File;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};
use unbroken::{Event, Node, Outcome, PeerId, URGENT};

const LONG: Duration = Duration::from_secs(60);

fn cpu_time() -> Duration {
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) }, 0);
    let time = |at: libc::timeval| Duration::new(at.tv_sec as u64, at.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// Takes every descriptor that is left.
fn exhaust() -> Vec<File> {
    let limit = libc::rlimit { rlim_cur: 256, rlim_max: 256 };
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
    let mut files = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        files.push(file);
    }
    files
}

fn vote(from: &Node, to: PeerId, at: &Node) {
    let receipt = from.send(to, (URGENT, "still here")).unwrap();
    let came = at.events().any(|event| matches!(event, Event::Message(_)));
    assert!(came);
    assert_eq!(receipt.wait_timeout(LONG), Some(Outcome::Taken));
}

#[test]
fn accepting_pauses_and_links_live_on() {
    let listener = Node::builder().listen("127.0.0.1:0".parse().unwrap()).start().unwrap();
    let addr = listener.local_addrs()[0];
    let dialer = Node::builder().peer(addr.to_string()).start().unwrap();
    let up = dialer.events().any(|event| matches!(event, Event::LinkUp { .. }));
    assert!(up);
    let before = listener.snapshot().connections;

    let clients = [(); 2].map(|()| Socket::new(Domain::IPV4, Type::STREAM, None).unwrap());
    let files = exhaust();
    clients.iter().for_each(|client| client.connect(&SockAddr::from(addr)).unwrap());

    // `accept` fails for as long as this lasts: without a pause it would take a whole core.
    let (start, used) = (Instant::now(), cpu_time());
    while start.elapsed() < Duration::from_secs(2) {
        vote(&dialer, listener.id(), &listener);
        // Time itself is what is tested.
        let _ = dialer.recv_timeout(Duration::from_millis(100)).unwrap();
    }
    let used = cpu_time() - used;
    assert!(used < Duration::from_secs(1), "{used:?} of processor time in two seconds");
    // The kernel had set a descriptor aside for the call to `accept` that was waiting: one came in.
    assert_eq!(listener.snapshot().connections, before + 1, "no more was accepted");

    drop(files);
    while listener.snapshot().connections == before + 1 {
        assert!(start.elapsed() < LONG, "accepting goes on when there are descriptors again");
        let _ = dialer.recv_timeout(Duration::from_millis(20)).unwrap();
    }
    vote(&dialer, listener.id(), &listener);
}
