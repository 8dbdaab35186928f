//! Small messages in numbers cost no allocation each: not when they are sent, nor on their way, nor when they
//! are received. A test of its own: it counts what the whole process allocates.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on shall say so")]
#![allow(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use unbroken::NORMAL;
use unbroken_test_support::cluster::Pair;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: all of it is done by the allocator of the system.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
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
