//! Strangers do not fill the log, and a sink that blocks holds nothing up.

#![cfg(target_os = "linux")] // As the fault proxy is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test: it fails by panicking, and it reads the real clock"
)]

use std::sync::LazyLock;
use std::thread;
use std::time::Instant;

use log::{Level, LevelFilter, Metadata, Record};
use parking_lot::Mutex;
use unbroken::{Event, Outcome, URGENT};
use unbroken_test_support::cluster::{Pair, TIMEOUT, any_addr, builder, eventually, first_addr};
use unbroken_test_support::numbered::message;
use unbroken_test_support::raw::{Raw, RawIdentity};

/// Keeps what is written. The holder of the lock stands for a disk that is full, or a pipe that nobody reads.
struct Sink(Mutex<Vec<(Level, String)>>);

impl log::Log for Sink {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Info && metadata.target().starts_with("unbroken")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.lock().push((record.level(), record.args().to_string()));
        }
    }

    fn flush(&self) {}
}

static SINK: Sink = Sink(Mutex::new(Vec::new()));
/// Both tests look at the one log that a process has.
static ONE_AT_A_TIME: LazyLock<Mutex<()>> = LazyLock::new(|| {
    log::set_logger(&SINK).unwrap();
    log::set_max_level(LevelFilter::Info);
    Mutex::new(())
});

#[test]
fn a_sink_that_blocks_keeps_no_link_from_being_dialled_again() {
    let _turn = ONE_AT_A_TIME.lock();
    let pair = Pair::start(|_| ());
    let stuck = SINK.0.lock();
    for round in 0..3 {
        let connected = pair.proxy.stats().connected;
        pair.proxy.reset_all();
        assert!(pair.proxy.wait_until(TIMEOUT, |stats| stats.connected > connected), "dialled again");
        let vote = pair.a.send(pair.b.id(), (URGENT, message(1, round, 64))).unwrap();
        assert_eq!(vote.wait_timeout(TIMEOUT), Some(Outcome::Taken));
    }
    drop(stuck);
    eventually("the lines are written late", || {
        SINK.0.lock().iter().filter(|(_, line)| line.ends_with(" up")).count() >= 2
    });
}

#[test]
fn strangers_fill_no_log() {
    const VISITS: u16 = 150;
    let _turn = ONE_AT_A_TIME.lock();
    let node = builder(|config| config.conduct.threshold = 1_000_000).listen(any_addr()).start().unwrap();
    let before = SINK.0.lock().len();
    let since = Instant::now();
    let threads = (0..3).map(|thread| {
        let addr = first_addr(&node);
        thread::spawn(move || {
            for visit in 0..VISITS / 3 {
                let mut raw = Raw::dial(addr, &RawIdentity::new(1 + thread * 1000 + visit, 1 << 20)).unwrap();
                // No frame has this kind: the end is a line, the strikes for it another one, and so is the
                // link's state.
                let _ = raw.send(99, &[]);
                while raw.read_frame().is_ok() {}
            }
        })
    });
    threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
    let mut ended = 0;
    eventually("all have gone", || {
        while let Some(event) = node.try_recv().unwrap() {
            ended += u16::from(matches!(event, Event::Disconnected { .. }));
        }
        ended == VISITS
    });
    let seconds = since.elapsed().as_secs() as usize;
    node.shutdown(TIMEOUT);
    let lines = SINK.0.lock()[before..].to_vec();
    // 20 at once and one each second; what the node says of itself besides is a few lines.
    assert!(lines.len() <= 20 + seconds + 1 + 5, "{} lines: {lines:#?}", lines.len());
    assert!(lines.len() >= 20, "{lines:#?}");
}
