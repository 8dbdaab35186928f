//! The node that is attacked, an honest peer that votes with it all the time, and what is measured beside
//! each attack.

use std::cell::Cell;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use unbroken::{Config, EndCause, EndReason, Event, Initiator, LaneId, Outcome, PathConfig, URGENT};

use unbroken_test_support::cluster::{
    Peer, THREADS_OF_A_PAIR, TIMEOUT, any_addr, builder, calm_path, eventually, first_addr, wait_for_threads,
};
use unbroken_test_support::numbered::message;
use unbroken_test_support::process;
use unbroken_test_support::raw::{self, Raw, RawIdentity};

/// The credit of a stranger to the node.
pub(crate) const CREDIT: u64 = 1 << 20;
/// How much later than its deadline a busy machine may make an end.
pub(crate) const SLACK: Duration = Duration::from_secs(6);
/// How much resident memory may grow by one attack: what one connection may have under way, and what the
/// allocator keeps.
const MEMORY: usize = 64 << 20;
/// A machine that is busy with other things delays votes too; what an attack does to them is printed.
const WORST_P99: Duration = Duration::from_secs(3);

pub(crate) fn path() -> PathConfig {
    PathConfig { dead_after: Duration::from_secs(3), ..calm_path() }
}

pub(crate) struct Scene {
    pub(crate) node: Peer,
    honest: Peer,
    voting: Arc<Voting>,
    voter: Option<JoinHandle<()>>,
    strangers: Cell<u16>,
    /// Threads and descriptors are counted for the whole process: one scene at a time.
    _alone: MutexGuard<'static, ()>,
}

#[derive(Default)]
struct Voting {
    stop: AtomicBool,
    votes: Mutex<Vec<Duration>>,
    most_threads: AtomicUsize,
    most_memory: AtomicUsize,
}

pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock()
}

impl Scene {
    pub(crate) fn set(tune: impl Fn(&mut Config)) -> Scene {
        let alone = alone();
        listen_to_the_log();
        // They are counted: see `row`.
        wait_for_threads("no thread of an earlier scene is left", 0);
        let config = |config: &mut Config| {
            config.path = path();
            config.drain_timeout = Duration::from_secs(1);
            // The honest peer comes from there. Attackers may come from the rest of 127.0.0.0/8.
            config.admission.exempt = vec!["127.0.0.1/32".parse().unwrap()];
            tune(config);
        };
        let node = Peer::start(builder(config).listen(any_addr()));
        let honest = Peer::start(builder(config).peer(format!("{}@{}", node.id(), first_addr(&node))));
        honest.wait_up(node.id());
        node.wait_up(honest.id());
        eventually("one connection", || node.snapshot().connections == 1);
        let voting = Arc::new(Voting::default());
        let (its, nodes) = (Arc::clone(&voting), [honest.node.clone(), node.node.clone()]);
        let voter = thread::spawn(move || its.vote(&nodes));
        wait_for_threads("all threads have started", THREADS_OF_A_PAIR);
        Scene { node, honest, voting, voter: Some(voter), strangers: Cell::new(0), _alone: alone }
    }

    /// Somebody who was never here.
    pub(crate) fn stranger(&self) -> RawIdentity {
        self.strangers.set(self.strangers.get() + 1);
        RawIdentity::new(self.strangers.get(), CREDIT)
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        first_addr(&self.node)
    }

    /// A stranger whose handshake was honest.
    pub(crate) fn joined(&self) -> (RawIdentity, Raw) {
        let who = self.stranger();
        let raw = self.join(&who);
        (who, raw)
    }

    pub(crate) fn join(&self, who: &RawIdentity) -> Raw {
        let raw = Raw::dial(self.addr(), who).unwrap();
        let local = raw.stream.local_addr().unwrap();
        self.node.wait_event("it has joined", 0, |event| match event {
            Event::Connected { addr, .. } if *addr == local => Some(()),
            _ => None,
        });
        raw
    }

    /// How this stranger's last connection ended.
    pub(crate) fn end_of(&self, who: &RawIdentity) -> EndReason {
        let ended = self.node.wait_event("its end", 0, |event| match event {
            Event::Disconnected { peer, reason, .. } if *peer == who.id() => Some(reason.clone()),
            _ => None,
        });
        ended.1
    }

    /// Says something as a new stranger. Returns how the connection ended: by the library.
    pub(crate) fn end_for(&self, say: impl FnOnce(&mut Raw)) -> EndCause {
        let (who, mut raw) = self.joined();
        say(&mut raw);
        let reason = self.end_of(&who);
        assert_eq!(reason.by, Initiator::Library, "{reason}");
        reason.cause
    }

    /// The same, for a protocol error that names this.
    pub(crate) fn protocol_error(&self, text: &str, say: impl FnOnce(&mut Raw)) {
        let cause = self.end_for(say);
        assert!(
            matches!(&cause, EndCause::Protocol(what) if what.contains(text)),
            "{cause} and not {text:?}"
        );
    }

    /// Runs one attack, and checks what is left of it: nothing.
    pub(crate) fn row(&self, what: &str, attack: impl FnOnce()) {
        let before = process::resident_bytes().unwrap();
        let fds = process::fds().unwrap();
        self.voting.begin(before);
        let start = Instant::now();
        attack();
        let took = start.elapsed();
        eventually(&format!("{what}: all connections are gone but one"), || {
            self.node.snapshot().connections == 1
        });
        wait_for_threads(&format!("{what}: the threads are those of the honest pair"), THREADS_OF_A_PAIR);
        eventually(&format!("{what}: descriptors are back at {fds}"), || process::fds().unwrap() <= fds);
        eventually("enough votes", || self.voting.votes.lock().len() >= 30);
        let mut votes = std::mem::take(&mut *self.voting.votes.lock());
        votes.sort();
        let quantile = |part: usize| votes[(votes.len() - 1) * part / 100];
        let (most, after) = (self.voting.most_memory.load(SeqCst), process::resident_bytes().unwrap());
        println!(
            "{what:<62} {took:>9.2?}  votes {:>5}, p50 {:>9.2?}, p99 {:>9.2?}, worst {:>9.2?}  \
             threads +{:<3} memory +{} KiB, left {} KiB",
            votes.len(),
            quantile(50),
            quantile(99),
            quantile(100),
            self.voting.most_threads.load(SeqCst).saturating_sub(THREADS_OF_A_PAIR),
            most.saturating_sub(before) >> 10,
            after.saturating_sub(before) >> 10,
        );
        assert!(quantile(99) < WORST_P99, "{what}: votes took {:?}", quantile(99));
        let most = most.max(after);
        assert!(most < before + MEMORY, "{what}: {before} bytes resident before, {most} at most");
        self.check_honest(what);
        // The record would be what grows.
        self.node.forget_events();
    }

    fn check_honest(&self, what: &str) {
        let trouble = |event: &Event| matches!(event, Event::Disconnected { .. } | Event::LinkDown { .. });
        assert_eq!(
            self.honest.look(|log| log.count(trouble)),
            0,
            "{what}: {}",
            self.honest.look(|log| log.story())
        );
        let snapshot = self.node.peer(self.honest.id()).unwrap();
        assert_eq!((snapshot.reconnects, snapshot.connections.len()), (0, 1), "{what}");
        for peer in [&self.honest, &self.node] {
            let wrong = peer.look(|log| {
                log.checker.errors.iter().find(|error| error.contains(&format!("stream {VOTES:#x}"))).cloned()
            });
            assert_eq!(wrong, None, "{what}");
        }
    }

    pub(crate) fn honest(&self) -> &Peer {
        &self.honest
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.voting.stop.store(true, SeqCst);
        let panicked = self.voter.take().is_some_and(|voter| voter.join().is_err());
        assert!(!panicked || thread::panicking(), "an honest vote was not taken");
    }
}

const VOTES: u64 = 0x0707;

impl Voting {
    fn begin(&self, memory: usize) {
        self.votes.lock().clear();
        self.most_threads.store(0, SeqCst);
        self.most_memory.store(memory, SeqCst);
    }

    /// One vote after the other, in turn from both sides.
    fn vote(&self, nodes: &[unbroken::Node; 2]) {
        for seq in 0.. {
            for (from, to) in [(0, 1), (1, 0)] {
                if self.stop.load(SeqCst) {
                    return;
                }
                let start = Instant::now();
                let vote = nodes[from].send(nodes[to].id(), (URGENT, message(VOTES, seq, 64))).unwrap();
                assert_eq!(vote.wait_timeout(TIMEOUT), Some(Outcome::Taken), "vote {seq}");
                self.votes.lock().push(start.elapsed());
            }
            if seq % 16 == 0 {
                self.most_threads.fetch_max(process::library_threads().unwrap(), SeqCst);
                self.most_memory.fetch_max(process::resident_bytes().unwrap(), SeqCst);
            }
            // A vote now and then: the machine has other things to do.
            thread::sleep(Duration::from_millis(2));
        }
    }
}

// --- why a connection ended that never joined: no event tells, the log does ---------------------------

static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Log;

impl log::Log for Log {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Debug && metadata.target().starts_with("unbroken")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            LOG.lock().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

pub(crate) fn listen_to_the_log() {
    if log::set_logger(&Log).is_ok() {
        log::set_max_level(log::LevelFilter::Debug);
    }
    LOG.lock().clear();
}

/// Why the node ended, or refused, the connection that came from there before it had joined.
pub(crate) fn refusal(from: SocketAddr) -> String {
    let ended = format!("from {from}: ");
    let look = || {
        let log = LOG.lock();
        // The line of the connection, not the one for the operator.
        let lines = log.iter().filter(|line| !line.starts_with("refused "));
        lines.filter_map(|line| line.split_once(&ended)).map(|(_, reason)| reason.to_string()).next()
    };
    eventually(&format!("the end of {from}"), || look().is_some());
    look().unwrap()
}

// --- frames ----------------------------------------------------------------------------------------------

pub(crate) fn chunk(lane: LaneId, offset: u64, data: &[u8]) -> Vec<u8> {
    raw::frame(raw::CHUNK, &[&[lane.0, 0][..], &offset.to_le_bytes(), data].concat())
}

pub(crate) use unbroken_test_support::raw::State;

pub(crate) fn ack(lanes: &[State]) -> Vec<u8> {
    raw::frame(raw::ACK, &raw::encode_states(lanes))
}

pub(crate) fn goaway(reason: u8) -> Vec<u8> {
    raw::frame(raw::GOAWAY, &raw::encode_goaway(reason))
}

pub(crate) fn nonce(kind: u8, nonce: u64) -> Vec<u8> {
    raw::frame(kind, &nonce.to_le_bytes())
}

/// A message as it stands in the stream of a lane.
pub(crate) fn in_stream(payload: &[u8]) -> Vec<u8> {
    [&(payload.len() as u32).to_le_bytes()[..], payload].concat()
}

pub(crate) fn request(id: u64) -> Vec<u8> {
    [&(1u32 << 28).to_le_bytes()[..], &id.to_le_bytes(), &60_000u32.to_le_bytes()].concat()
}

pub(crate) fn reply(id: u64) -> Vec<u8> {
    [&(2u32 << 28).to_le_bytes()[..], &id.to_le_bytes()].concat()
}

/// Says it as far as the node listens.
pub(crate) fn say(raw: &mut Raw, bytes: &[u8]) {
    let _ = raw.output.write_all(bytes);
}
