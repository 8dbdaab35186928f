//! Several threads that write to one socket: the writer, and others while it sleeps.

use std::collections::VecDeque;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use socket2::Socket;

use crate::clock;
use crate::conn::record::{Opener, Sealer};
use crate::conn::{ConnHandle, Port, WriteLimits, writer};
use crate::error::EndReason;
use crate::id::ConnId;
use crate::link::{Transmit, Violation, Writes};
use crate::wire::batch::Batch;
use crate::wire::frame::Frame;
use crate::wire::reader::Source;

use super::key;
#[cfg(target_os = "linux")]
use crate::conn::stack::tests as stack;

const LONG: Duration = Duration::from_secs(60);

/// Returns bytes as batches, then the end, and notes the threads that took them.
#[derive(Default)]
struct Script {
    batches: Mutex<VecDeque<Vec<u8>>>,
    /// Until when messages gather while there are no batches.
    gathers: Mutex<Option<Instant>>,
    ended: Mutex<bool>,
    takers: Mutex<Vec<ThreadId>>,
    /// Called on the thread that takes a batch.
    takes: Option<Box<dyn Fn() + Send + Sync>>,
}

impl Port for &Script {
    fn poll_transmit(&self, _: ConnId, _: Writes, batch: &mut Batch) -> Transmit {
        // Both locked, so that the end does not come before the last batch.
        let (ended, next) = (self.ended.lock().unwrap(), self.batches.lock().unwrap().pop_front());
        if let Some(bytes) = next {
            self.takers.lock().unwrap().push(thread::current().id());
            self.takes.iter().for_each(|takes| takes());
            batch.push_slice(&bytes);
        } else if *ended {
            return Transmit::Finish;
        }
        let at = self.gathers.lock().unwrap().filter(|_| batch.is_empty());
        Transmit::Continue { at, chunk: 16 * 1024, messages: 1 }
    }

    fn handle_frames(&self, _: ConnId, _: &mut Vec<Frame>, _: Instant) -> Result<(), Violation> {
        unreachable!("nobody reads here")
    }

    fn is_draining(&self, _: ConnId) -> Option<EndReason> {
        None
    }

    fn watch_until(&self, _: Instant) {}
}

/// Bytes of which each names its place in the stream.
fn bytes(from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(|place| (place ^ place >> 8 ^ place >> 16) as u8).collect()
}

/// A connection, and the other end of its socket.
fn connection() -> (ConnHandle, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = Socket::from(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
    let (theirs, addr) = listener.accept().unwrap();
    (ConnHandle::new(ConnId(1), addr, true, socket), theirs)
}

/// The writer starts when a batch was left: whole, because it is `large`, or in part, because the kernel is
/// full.
fn write_by_turns(large: bool, sealer: Sealer, open: impl FnOnce(TcpStream) -> Opener<TcpStream> + Send) {
    let (conn, theirs) = connection();
    // Soon full, so that writes are cut.
    conn.socket.set_send_buffer_size(8 * 1024).unwrap();
    conn.socket.set_write_timeout(Some(LONG)).unwrap();
    let script = Script::default();
    writer::begin(&conn, sealer);
    let (mut sent, limits) = (0, WriteLimits { write_timeout: LONG, longest: LONG });
    let (mut now, len) = (clock::now(), if large { 30_000 } else { 3000 });
    while script.batches.lock().unwrap().is_empty() {
        script.batches.lock().unwrap().push_back(bytes(sent, len));
        sent += len;
        now += LONG;
        writer::write_now(&conn, &&script, now);
        if large {
            break;
        }
    }
    thread::scope(|scope| {
        let writes = scope.spawn(|| writer::run(&conn, &&script, limits));
        let reads = scope.spawn(|| {
            let (mut opener, mut all, mut piece) = (open(theirs), Vec::new(), [0; 4096]);
            loop {
                let got = opener.read(&mut piece).unwrap();
                all.extend_from_slice(&piece[..got.bytes]);
                if got.bytes + got.received == 0 {
                    return all;
                }
            }
        });
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..2000 {
            let len = if rng.u8(..8) == 0 { rng.usize(16_000..40_000) } else { rng.usize(1..3000) };
            script.batches.lock().unwrap().push_back(bytes(sent, len));
            sent += len;
            // Long after any write before it: this thread may write, if nothing is left of the last one.
            now += LONG;
            writer::write_now(&conn, &&script, now);
        }
        *script.ended.lock().unwrap() = true;
        conn.wake();
        assert!(reads.join().unwrap() == bytes(0, sent), "the stream is another one");
        writes.join().unwrap();
    });
    let takers = script.takers.into_inner().unwrap();
    let here = |taker: &&ThreadId| **taker == thread::current().id();
    let taken = takers.iter().filter(here).count();
    assert!(
        taken > 0 && taken < takers.len(),
        "{taken} of {} batches were taken by this thread",
        takers.len()
    );
}

#[test]
fn what_two_threads_write_by_turns_is_one_stream() {
    for large in [true, false] {
        write_by_turns(large, Sealer::Plaintext, |stream| Opener::new(stream, None));
        write_by_turns(large, Sealer::new(key(1)), |stream| Opener::new(stream, key(1)));
    }
}

#[test]
fn a_thread_that_writes_in_turn_comes_back_to_what_gathers_and_wakes_the_writer_for_the_rest() {
    let (conn, mut theirs) = connection();
    let script = Script::default();
    writer::begin(&conn, Sealer::Plaintext);
    let write_in_turn = |batch: Vec<u8>| {
        script.batches.lock().unwrap().push_back(batch);
        let again = writer::write_in_turn(&conn, &&script);
        (again, conn.woken.try_recv().is_ok())
    };
    assert_eq!(write_in_turn(bytes(0, 100)), (None, false));
    let until = clock::now() + LONG;
    *script.gathers.lock().unwrap() = Some(until);
    // Larger than what a thread of the application writes, and right after another write.
    assert_eq!(write_in_turn(bytes(100, 20_000)), (Some(until), false));
    let mut read = vec![0; 20_100];
    theirs.read_exact(&mut read).unwrap();
    assert!(read == bytes(0, 20_100));
    writer::write_now(&conn, &&script, until);
    assert!(conn.woken.try_recv().is_ok(), "a call does not come back");
    assert_eq!(write_in_turn(bytes(20_100, 100_000)), (None, true), "too large");
}

#[test]
fn a_write_that_fails_now_ends_the_connection_and_its_writer() {
    let (conn, mut theirs) = connection();
    let script = Script::default();
    writer::begin(&conn, Sealer::Plaintext);
    let limits = WriteLimits { write_timeout: LONG, longest: LONG };
    thread::scope(|scope| {
        let writes = scope.spawn(|| writer::run(&conn, &&script, limits));
        conn.socket.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(Read::read(&mut theirs, &mut [0]).unwrap(), 0);
        script.batches.lock().unwrap().push_back(vec![1]);
        writer::write_now(&conn, &&script, clock::now());
        writes.join().unwrap();
    });
    assert!(conn.reason().is_some_and(|reason| reason.to_string().contains("write")), "{:?}", conn.reason());
    writer::write_now(&conn, &&script, clock::now() + LONG);
    assert!(script.takers.into_inner().unwrap().len() == 1, "nothing is taken from the link any more");
}

#[test]
#[cfg(target_os = "linux")]
fn a_writer_that_rests_gives_the_memory_of_its_stack_back() {
    let (conn, mut theirs) = connection();
    let (tell, told) = crossbeam_channel::bounded(1);
    let takes = move || {
        stack::use_stack(100);
        tell.send(stack::lowest()).unwrap();
    };
    let script = Script {
        batches: Mutex::new([b"first".to_vec()].into()),
        takes: Some(Box::new(takes)),
        ..Script::default()
    };
    writer::begin(&conn, Sealer::Plaintext);
    let limits = WriteLimits { write_timeout: LONG, longest: LONG };
    thread::scope(|scope| {
        scope.spawn(|| writer::run(&conn, &&script, limits));
        let stack = told.recv().unwrap();
        let start = clock::now();
        let mut kept = usize::MAX;
        // Measuring takes a millisecond.
        while kept > 50 * 1024 && start.elapsed() < LONG {
            kept = stack::resident(stack);
        }
        *script.ended.lock().unwrap() = true;
        conn.wake();
        assert!(kept <= 50 * 1024, "{kept} bytes");
    });
    let mut all = Vec::new();
    theirs.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"first");
}
