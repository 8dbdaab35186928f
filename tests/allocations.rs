//! Small messages in numbers cost no allocation each: not when they are sent, nor on their way, nor when they
//! are received; and when they are gone the memory that they needed is free again. Tests of their own, one
//! after the other: they count what the whole process allocates.

#![cfg(target_os = "linux")] // As the fault proxy is.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on shall say so")]
#![allow(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use unbroken::{NORMAL, PathConfig};
use unbroken_test_support::cluster::{Pair, TIMEOUT, all_taken, any_addr, builder, first_addr, within};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
/// Bytes that are allocated.
static IN_USE: AtomicUsize = AtomicUsize::new(0);
/// Held by the test that runs.
static ALONE: Mutex<()> = Mutex::new(());

// SAFETY: all of it is done by the allocator of the system.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        IN_USE.fetch_add(layout.size(), Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        IN_USE.fetch_add(size, Relaxed);
        IN_USE.fetch_sub(layout.size(), Relaxed);
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many messages are on their way at once.
const AT_ONCE: usize = 1024;
const ROUNDS: usize = 30;
const COUNTS: usize = 5;

#[test]
fn small_messages_in_numbers_need_no_allocation_each() {
    let _alone = ALONE.lock();
    let pair = Pair::start(|_| {});
    let peer = pair.a.peer_handle(pair.b.id());
    let receiver = pair.b.lane_receiver(NORMAL).unwrap();
    for len in [0, 64, 256, 1024] {
        let body = Bytes::from(vec![7; len]);
        let count = || {
            let before = ALLOCATIONS.load(Relaxed);
            for _ in 0..ROUNDS {
                let receipts = peer.send_many((0..AT_ONCE).map(|_| (NORMAL, body.clone()))).unwrap();
                let mut left = AT_ONCE;
                while left > 0 {
                    let messages = receiver.recv_batch(left).unwrap();
                    assert!(messages.iter().all(|message| message.len() == len));
                    left -= messages.len();
                }
                drop(receipts);
            }
            ALLOCATIONS.load(Relaxed) - before
        };
        // Buffers grow during the first count. Each chunk costs allocations too, and a machine that is busy
        // with something else makes them shorter: the least is what a message costs.
        let least = (0..COUNTS).map(|_| count()).min().unwrap();
        let each = least as f64 / (AT_ONCE * ROUNDS) as f64;
        println!("{len} bytes: {each:.3} allocations a message");
        assert!(each < 0.9, "{each:.3} allocations for a message of {len} bytes");
    }
}

/// A sender that waits for room needs allocations of its own; so does each message if it ends one wait and
/// begins another.
#[test]
fn threads_that_send_into_a_full_queue_do_not_wait_for_each_message() {
    const THREADS: usize = 8;
    const MESSAGES: usize = THREADS * 2_000;
    let _alone = ALONE.lock();
    let pair = Pair::start(|config| {
        config.lanes[1].max_message = 64 * 1024;
        config.lanes[1].queue = 256 * 1024;
    });
    let peer = pair.a.peer_handle(pair.b.id());
    let receiver = pair.b.lane_receiver(NORMAL).unwrap();
    let body = Bytes::from(vec![7; 256]);
    let count = || {
        let before = ALLOCATIONS.load(Relaxed);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..MESSAGES / THREADS {
                        drop(peer.send((NORMAL, body.clone())).unwrap());
                    }
                });
            }
            let mut left = MESSAGES;
            while left > 0 {
                left -= receiver.recv_batch(left).unwrap().len();
            }
        });
        ALLOCATIONS.load(Relaxed) - before
    };
    let least = (0..COUNTS).map(|_| count()).min().unwrap();
    let each = least as f64 / MESSAGES as f64;
    println!("{each:.3} allocations a message");
    assert!(each < 2.0, "{each:.3} allocations a message");
}

/// An application's queue of messages that is as long as the lane's credit allows, in both directions; and a
/// minute's worth of pauses for a connection to notice that it is idle.
#[test]
fn memory_that_many_messages_needed_is_free_again_when_they_are_gone() {
    const COUNT: usize = 20_000;
    let _alone = ALONE.lock();
    // Pings come now and then, as by default. Without a proxy, which keeps memory of its own.
    let path = PathConfig { ping_interval: Duration::from_secs(2), ..PathConfig::default() };
    let node = || builder(|config| config.path = path.clone());
    let b = node().listen(any_addr()).start().unwrap();
    let a = node().peer(first_addr(&b).to_string()).start().unwrap();
    a.wait_linked(b.id(), TIMEOUT).unwrap();
    b.wait_linked(a.id(), TIMEOUT).unwrap();
    let ends = [(&a, &b), (&b, &a)];
    let receivers = ends.map(|(_, to)| to.lane_receiver(NORMAL).unwrap());
    let before = IN_USE.load(Relaxed);
    let body = Bytes::from(vec![7; 64]);
    let receipts =
        ends.map(|(from, to)| from.send_many(to.id(), (0..COUNT).map(|_| (NORMAL, body.clone()))).unwrap());
    for receiver in &receivers {
        let mut left = COUNT;
        while left > 0 {
            left -= receiver.recv_batch(left).unwrap().len();
        }
    }
    receipts.iter().for_each(|receipts| all_taken(receipts));
    drop(receipts);
    let used = || IN_USE.load(Relaxed).saturating_sub(before);
    let busy = used();
    let free = within(Duration::from_secs(60), || used() < 40 * 1024);
    println!("{busy} bytes more when the last message had ended, {} bytes later", used());
    assert!(free, "{} bytes are still in use", used());
}
