//! Promise 11: shutdown flushes within a grace period, says goodbye, and joins every thread; after any number
//! of reconnects threads, descriptors and memory are where they were.

#![cfg(target_os = "linux")] // As the fault proxy is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test: it fails by panicking, and it reads the real clock"
)]

use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use unbroken::test_util::{Direction, FaultProxy, Ways};
use unbroken::{
    BULK, Config, DropReason, EndCause, Event, GoawayReason, Initiator, NORMAL, Outcome, PeerConfig, URGENT,
};
use unbroken_test_support::cluster::{
    Pair, Peer, THREADS_OF_A_PAIR, TIMEOUT, any_addr, builder, calm_path, eventually, first_addr, flood,
    mixed, wait_for_threads,
};
use unbroken_test_support::numbered::message;
use unbroken_test_support::process;
use unbroken_test_support::raw::{self, RawIdentity};

/// How late the machine may make us.
const SLACK: Duration = Duration::from_secs(4);

/// Threads and descriptors are counted for the whole process: one test at a time.
///
/// A test that ended without [`back_to`] may have left threads that are about to end.
fn alone() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    let lock = LOCK.lock();
    wait_for_threads("no thread of the library is left", 0);
    lock
}

/// Waits until no thread of the library is left, and no more descriptors than before.
fn back_to(fds: usize) {
    wait_for_threads("no thread of the library is left", 0);
    eventually(&format!("{fds} descriptors, not {}", process::fds().unwrap()), || {
        process::fds().unwrap() <= fds
    });
}

#[test]
fn threads_are_named_by_node_and_role() {
    let _alone = alone();
    let pair = Pair::start(|config| config.path = calm_path());
    pair.wait_up();
    let of = |node: &Peer, role| format!("ub-{}-{role}", &node.id().to_string()[..4]);
    let roles = ["log", "monitor", "reader", "writer"];
    let mut expected: Vec<_> =
        [&pair.a, &pair.b].iter().flat_map(|node| roles.map(|role| of(node, role))).collect();
    expected.push(of(&pair.b, "accept"));
    expected.sort();
    eventually("each thread has the name of its node and role", || {
        let mut names = process::library_thread_names().unwrap();
        names.sort();
        names == expected
    });
}

#[test]
fn shutdown_flushes_and_says_goodbye() {
    let _alone = alone();
    let fds = process::fds().unwrap();
    let pair = Pair::start(|config| config.path = calm_path());
    let (a, b) = (&pair.a, &pair.b);
    let mut receipts: Vec<_> =
        (0..500).map(|seq| a.send(b.id(), (NORMAL, message(1, seq, mixed(seq)))).unwrap()).collect();
    receipts.push(a.send(b.id(), (BULK, message(2, 0, 20 << 20))).unwrap());
    let start = Instant::now();
    a.shutdown(TIMEOUT);
    println!("flushed and stopped within {:?}", start.elapsed());
    assert!(receipts.iter().all(|receipt| receipt.poll() == Some(Outcome::Taken)), "not all was flushed");
    b.check(501);
    let (_, reason) = b.wait_event("the goodbye", 0, |event| match event {
        Event::Disconnected { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    assert_eq!((reason.by, reason.cause), (Initiator::Peer, EndCause::Goaway(GoawayReason::Shutdown)));
    // Its own threads are gone when shutdown returns, not some time later.
    let before = process::library_threads().unwrap();
    b.shutdown(Duration::ZERO);
    assert!(before >= 2, "{before}: those of b");
    drop(pair);
    back_to(fds);
}

#[test]
fn shutdown_keeps_to_its_grace() {
    let _alone = alone();
    let fds = process::fds().unwrap();
    for grace in [Duration::ZERO, Duration::from_millis(700)] {
        let pair = Pair::start(|config| config.path = calm_path());
        pair.proxy.update(|faults| faults.stall = Ways::both(true));
        let receipts: Vec<_> =
            (0..3).map(|seq| pair.a.send(pair.b.id(), (BULK, message(1, seq, 8 << 20))).unwrap()).collect();
        let start = Instant::now();
        pair.a.shutdown(grace);
        let took = start.elapsed();
        assert!(took >= grace, "gave up after {took:?} of {grace:?}");
        assert!(took < grace + SLACK, "took {took:?}, not {grace:?}");
        let dropped = Some(Outcome::Dropped(DropReason::Shutdown));
        assert!(receipts.iter().all(|receipt| receipt.poll() == dropped));
    }
    back_to(fds);
}

#[test]
fn shutdown_while_everything_is_busy() {
    let _alone = alone();
    let fds = process::fds().unwrap();
    {
        // A port that accepts in the kernel only, one where nobody listens, and one that hangs in the
        // handshake.
        let hole = TcpListener::bind(any_addr()).unwrap();
        let nobody = FaultProxy::start(any_addr()).unwrap();
        nobody.update(|faults| faults.refuse = true);
        let tune = |config: &mut Config| {
            config.path = calm_path();
            config.lanes[1].max_message = 1 << 20;
            config.lanes[1].window = (1 << 20) + (64 << 10);
            config.lanes[1].queue = 1 << 20;
        };
        let pair = Pair::start_each(
            |config| {
                tune(config);
                // Shutdown must not leave them to their deadline.
                config.path.handshake_timeout = Duration::from_secs(60);
                config.listen.push(any_addr());
                config.peers.push(PeerConfig::new(hole.local_addr().unwrap().to_string()));
                config.peers.push(PeerConfig::new(nobody.addr().to_string()));
            },
            tune,
        );
        let (a, b) = (&pair.a, &pair.b);
        let stalled = raw::preface_only(first_addr(a), &RawIdentity::new(9, 1 << 20)).unwrap();
        b.pause();
        let (node, peer) = (a.node.clone(), b.id());
        // One of each thing that waits. The queue is filled first.
        let mut seq = 0;
        let mut last = None;
        while let Ok(receipt) =
            node.send_timeout(peer, (NORMAL, message(1, seq, 200_000)), Duration::from_millis(300))
        {
            seq += 1;
            last = Some(receipt);
        }
        let last = last.expect("something was accepted");
        let urgent = a.lane_receiver(URGENT).unwrap();
        let pending = node.request(peer, (BULK, "nobody answers")).unwrap();
        let broadcast = node.broadcast((BULK, "nobody takes it"));
        let (node_1, node_2) = (node.clone(), node.clone());
        let busy: Vec<thread::JoinHandle<()>> = vec![
            thread::spawn(move || {
                node_1.send(peer, (NORMAL, vec![0; 500_000])).expect_err("refused at last");
            }),
            thread::spawn(move || {
                let message = (NORMAL, vec![0; 500_000]);
                node_2.send_timeout(peer, message, TIMEOUT * 10).expect_err("refused at last");
            }),
            thread::spawn(move || assert_ne!(last.wait(), Outcome::Expired)),
            thread::spawn(move || assert!(pending.wait().is_err())),
            thread::spawn(move || assert!(broadcast.wait_for(1, TIMEOUT * 10).is_err())),
            thread::spawn(move || assert!(urgent.recv().is_err())),
        ];
        let (node_1, node_2) = (node.clone(), node.clone());
        thread::sleep(Duration::from_millis(50)); // Nothing tells that a thread is blocked.
        let start = Instant::now();
        // From two threads at once.
        let other = thread::spawn(move || node_1.shutdown(Duration::from_millis(200)));
        node_2.shutdown(Duration::from_millis(200));
        other.join().unwrap();
        for thread in busy {
            eventually("a blocked thread comes back", || thread.is_finished());
            thread.join().unwrap();
        }
        assert!(start.elapsed() < Duration::from_millis(200) + SLACK, "{:?}", start.elapsed());
        drop(stalled);
        b.resume();
    }
    back_to(fds);
}

#[test]
fn the_last_handle_can_be_dropped_in_its_own_event_loop() {
    let _alone = alone();
    let fds = process::fds().unwrap();
    let a = builder(|_| ()).listen(any_addr()).start().unwrap();
    let addr = first_addr(&a);
    let peer = a.id();
    let node_loop = thread::spawn(move || {
        let mut kept = Vec::new();
        // The node is owned by this loop; so is the message that ends it, and its link.
        while let Ok(event) = a.recv() {
            if let Event::Message(message) = event {
                kept.push(message);
                break;
            }
        }
        let receipt = a.send(kept[0].peer(), (NORMAL, vec![1; 3_000_000])).unwrap();
        drop(a);
        drop(kept);
        receipt.wait()
    });
    let b = Peer::start(builder(|_| ()).peer(addr.to_string()));
    b.wait_up(peer);
    let receipt = b.send(peer, (NORMAL, "stop")).unwrap();
    eventually("the loop has ended", || node_loop.is_finished());
    let outcome = node_loop.join().unwrap();
    assert!(matches!(outcome, Outcome::Taken | Outcome::Dropped(DropReason::Shutdown)), "{outcome}");
    assert_ne!(receipt.poll(), Some(Outcome::Expired));
    drop(b);
    back_to(fds);
}

#[test]
fn a_node_can_be_started_again_on_its_port_at_once() {
    let _alone = alone();
    let fds = process::fds().unwrap();
    let mut addr = any_addr();
    for _ in 0..20 {
        let b = builder(|_| ()).listen(addr).start().unwrap();
        addr = first_addr(&b);
        let a = Peer::start(builder(|_| ()).peer(addr.to_string()));
        a.wait_up(b.id());
    }
    back_to(fds);
}

/// A message each way over every connection, then a reset.
fn storm(reconnects: u64) {
    let _alone = alone();
    let fds_before = process::fds().unwrap();
    let pair = Pair::start(|config| {
        // Most of the time would be that between two dials.
        config.path.backoff_first = Duration::from_millis(2);
        config.path.backoff_max = Duration::from_millis(10);
        config.path.breaker_threshold = 1_000_000;
        // Whatever a busy machine does, only the resets end connections here.
        config.path.suspect_after = Duration::from_secs(1);
    });
    let (a, b) = (&pair.a, &pair.b);
    let mut sent = 0;
    let mut run = |rounds: u64| {
        let mut connected = 0;
        for _ in 0..rounds {
            let bulk = a.send(b.id(), (BULK, message(1, sent, 40_000))).unwrap();
            let votes = [
                a.send(b.id(), (URGENT, message(1, sent, 64))).unwrap(),
                b.send(a.id(), (URGENT, message(1, sent, 64))).unwrap(),
            ];
            sent += 1;
            for vote in votes {
                assert_eq!(vote.wait_timeout(TIMEOUT), Some(Outcome::Taken));
            }
            // The block may still be under way: then it is hit in its middle.
            drop(bulk);
            connected = pair.proxy.stats().connected;
            // The test's own record would be the only thing that grows.
            a.forget_events();
            b.forget_events();
            pair.proxy.reset_all();
        }
        assert!(pair.proxy.wait_until(TIMEOUT, |stats| stats.connected > connected && stats.flows == 1));
        pair.wait_up();
        eventually("all is flushed", || a.snapshot().queued_bytes + b.snapshot().queued_bytes == 0);
        let one = |node: &Peer| node.snapshot().connections == 1;
        eventually("one connection is left", || one(a) && one(b));
        wait_for_threads("no thread of an ended connection is left", THREADS_OF_A_PAIR);
        (process::fds().unwrap(), process::resident_bytes().unwrap())
    };
    // The first tenth fills what the allocator and the kernel keep for later.
    let (fds, memory) = run(reconnects / 10);
    let start = Instant::now();
    let (fds_after, memory_after) = run(reconnects - reconnects / 10);
    println!(
        "{reconnects} reconnects, {:.2?} each; memory {} -> {} KiB, descriptors {fds} -> {fds_after}",
        start.elapsed() / (reconnects as u32),
        memory >> 10,
        memory_after >> 10,
    );
    assert!(a.peer(b.id()).unwrap().reconnects >= reconnects);
    assert!(fds_after <= fds, "{fds} descriptors before, {fds_after} after");
    assert!(memory_after < memory + (6 << 20), "{memory} bytes resident before, {memory_after} after");
    b.check(2 * sent);
    a.check(sent);
    drop(pair);
    back_to(fds_before);
}

#[test]
fn a_thousand_reconnects_leave_nothing_behind() {
    storm(1_000);
}

#[test]
#[ignore = "takes a minute"]
fn ten_thousand_reconnects_leave_nothing_behind() {
    storm(10_000);
}

#[test]
fn nothing_panics_when_connections_break_at_shutdown() {
    let _alone = alone();
    let fds = process::fds().unwrap();
    for round in 0..10 {
        let pair = Pair::start(|_| ());
        let floods = [
            flood(&pair.a, pair.b.id(), NORMAL, 1, 50, mixed),
            flood(&pair.b, pair.a.id(), NORMAL, 2, 50, mixed),
        ];
        pair.proxy.wait_until(TIMEOUT, |stats| *stats.bytes.get(Direction::ToTarget) > 20_000 * round);
        for flood in floods {
            flood.join().unwrap();
        }
        // At the same moment, in every order.
        let (a, b) = (pair.a.node.clone(), pair.b.node.clone());
        let threads = [
            thread::spawn(move || a.shutdown(Duration::ZERO)),
            thread::spawn(move || b.shutdown(Duration::ZERO)),
        ];
        pair.proxy.reset_all();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
    back_to(fds);
}

#[test]
#[allow(unsafe_code, reason = "fork(2) has no safe form")]
fn a_child_of_fork_that_drops_the_node_leaves_the_parents_listener_alone() {
    let _alone = alone();
    let node = Peer::start(builder(|_| ()).listen(any_addr()));
    let handle = node.node.clone();
    // SAFETY: the child calls nothing of this process but the shutdown, which returns at once, and ends
    // without destructors.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: ends this process should it wait for a thread that it does not have.
        unsafe { libc::alarm(20) };
        handle.shutdown(Duration::ZERO);
        // SAFETY: ends this process and does nothing else.
        unsafe { libc::_exit(0) };
    }
    let mut status = -1;
    let reaped = || {
        // SAFETY: `status` lives as long as the call.
        unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) == child }
    };
    eventually("the child has ended: it waits for no thread", reaped);
    assert_eq!(status, 0);
    let dialler = Peer::start(builder(|_| ()).peer(first_addr(&node).to_string()));
    dialler.wait_up(node.id());
}
