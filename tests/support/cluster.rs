//! Nodes for tests: scaled-down timeouts, a thread that takes everything and keeps a record, and waiting by
//! condition instead of by time.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use unbroken::{
    Builder, Config, ConnId, Event, LaneId, LinkState, Node, Outcome, PathConfig, PeerConfig, PeerId, Receipt,
};

use super::numbered::{Checker, MIN_LEN, message};
#[cfg(target_os = "linux")]
use super::process;
use super::raw::encryption;
#[cfg(target_os = "linux")]
use unbroken::test_util::FaultProxy;

/// How long a test waits for what must come, on a machine that is busy with other things.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// The default behaviour, ten times as fast: a ping each second, dead after two.
pub fn path() -> PathConfig {
    PathConfig::default().scaled_down(10)
}

/// The same for tests in which a connection must *not* be suspected for the machine being busy.
pub fn calm_path() -> PathConfig {
    PathConfig { suspect_after: Duration::from_secs(1), write_timeout: Duration::from_secs(2), ..path() }
}

/// A loopback address with a port that the system chooses.
pub fn any_addr() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// A node with a thread that takes all its events and messages, answers requests with their own bytes,
/// and keeps a record. Dropping it shuts the node down.
pub struct Peer {
    pub node: Node,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    log: Mutex<Log>,
    changed: Condvar,
    paused: Mutex<bool>,
    resumed: Condvar,
}

/// The events and messages that a node has received.
#[derive(Default)]
pub struct Log {
    /// Everything but messages, with the time at which it was taken.
    pub events: Vec<(Instant, Event)>,
    pub checker: Checker,
    /// Requests answered.
    pub requests: u64,
    closed: bool,
}

impl Log {
    pub fn count(&self, mut which: impl FnMut(&Event) -> bool) -> usize {
        self.events.iter().filter(|(_, event)| which(event)).count()
    }

    pub fn story(&self) -> String {
        let skip = self.events.len().saturating_sub(40);
        let first = self.events.first().map(|(at, _)| *at);
        let lines = self.events.iter().skip(skip).map(|(at, event)| {
            let after = first.map_or(Duration::ZERO, |first| *at - first);
            format!("  {after:>12.3?} {event:?}\n")
        });
        let errors = &self.checker.errors;
        format!(
            "{} messages, errors {errors:?}, events:\n{}",
            self.checker.messages,
            lines.collect::<String>()
        )
    }
}

impl Deref for Peer {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

impl Peer {
    pub fn start(builder: Builder) -> Peer {
        Peer::of(builder.start().expect("the node starts"))
    }

    pub fn of(node: Node) -> Peer {
        let shared = Arc::new(Shared::default());
        let (its_node, its_shared) = (node.clone(), Arc::clone(&shared));
        let thread = thread::Builder::new().name("taker".into());
        let thread = thread.spawn(move || its_shared.take_all(&its_node)).expect("a thread");
        Peer { node, shared, thread: Some(thread) }
    }

    /// Takes nothing any more, until [`Peer::resume`]. One batch may still be under way.
    pub fn pause(&self) {
        *self.shared.paused.lock() = true;
    }

    pub fn resume(&self) {
        *self.shared.paused.lock() = false;
        self.shared.resumed.notify_all();
    }

    /// Lets the events so far go, with their memory.
    pub fn forget_events(&self) {
        self.shared.log.lock().events = Vec::new();
    }

    /// Looks at the record.
    pub fn look<A>(&self, look: impl FnOnce(&Log) -> A) -> A {
        look(&self.shared.log.lock())
    }

    /// Waits until the record gives an answer. Fails the test, with the whole story, if it does not.
    pub fn wait<A>(&self, what: &str, look: impl FnMut(&Log) -> Option<A>) -> A {
        match self.wait_within(TIMEOUT, look) {
            Some(answer) => answer,
            None => {
                let story = self.look(Log::story);
                panic!("waited in vain for: {what}\n{:?}\n{story}\n{:#?}", self.node, self.node.peers())
            }
        }
    }

    /// The same with a time limit of its own, and no failure.
    pub fn wait_within<A>(&self, timeout: Duration, mut look: impl FnMut(&Log) -> Option<A>) -> Option<A> {
        let deadline = Instant::now() + timeout;
        let mut log = self.shared.log.lock();
        loop {
            if let Some(answer) = look(&log) {
                return Some(answer);
            }
            if self.shared.changed.wait_until(&mut log, deadline).timed_out() {
                return look(&log);
            }
        }
    }

    /// How many events there are, to wait for later ones only.
    pub fn mark(&self) -> usize {
        self.look(|log| log.events.len())
    }

    /// Waits for an event behind a mark; gives when it was taken, and what `pick` makes of it.
    pub fn wait_event<A>(
        &self,
        what: &str,
        mark: usize,
        mut pick: impl FnMut(&Event) -> Option<A>,
    ) -> (Instant, A) {
        self.wait(what, |log| {
            log.events.iter().skip(mark).find_map(|(at, event)| pick(event).map(|found| (*at, found)))
        })
    }

    /// Waits until so many messages of a stream have come.
    pub fn wait_count(&self, lane: LaneId, stream: u64, count: u64) {
        let what = format!("{count} messages of stream {stream:#x} on {lane}");
        self.wait(&what, |log| (log.checker.count(lane, stream) >= count).then_some(()));
    }

    /// Waits for that many messages in all; fails the test if anything came twice, out of order or
    /// damaged, or if there are more.
    pub fn check(&self, messages: u64) {
        let what = format!("{messages} messages");
        self.wait(&what, |log| (log.checker.messages >= messages).then_some(()));
        self.look(|log| {
            assert!(log.checker.errors.is_empty(), "{:?}", log.checker.errors);
            assert_eq!(log.checker.messages, messages);
        });
    }

    /// Waits until the link to `peer` is up.
    pub fn wait_up(&self, peer: PeerId) {
        eventually("the link is up", || self.node.peer(peer).is_some_and(|peer| peer.state == LinkState::Up));
    }
}

impl Shared {
    fn take_all(&self, node: &Node) {
        loop {
            let mut paused = self.paused.lock();
            while *paused {
                self.resumed.wait(&mut paused);
            }
            drop(paused);
            let Ok(batch) = node.recv_batch(64, Duration::from_millis(200)) else { break };
            if batch.is_empty() {
                continue;
            }
            let now = Instant::now();
            for event in batch {
                match event {
                    Event::Message(mut message) if message.is_request() => {
                        let echo = message.payload().clone().into_bytes();
                        self.log.lock().requests += 1;
                        // Nobody may wait any more: that is the requester's business.
                        let _ = message.reply(echo);
                    }
                    Event::Message(message) => {
                        let lane = message.lane();
                        let bytes = message.into_bytes();
                        self.log.lock().checker.take(lane, &bytes);
                    }
                    other => self.log.lock().events.push((now, other)),
                }
            }
            self.changed.notify_all();
        }
        self.log.lock().closed = true;
        self.changed.notify_all();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.resume();
        self.node.shutdown(Duration::ZERO);
        if let Some(thread) = self.thread.take() {
            let panicked = thread.join().is_err();
            assert!(!panicked || thread::panicking(), "the taking thread panicked");
        }
    }
}

/// Two nodes with a proxy between them: `a` dials `b`.
#[cfg(target_os = "linux")]
pub struct Pair {
    pub a: Peer,
    pub b: Peer,
    pub proxy: FaultProxy,
}

#[cfg(target_os = "linux")]
impl Pair {
    /// With [`path`] for both, and whatever `tune` changes for both.
    pub fn start(tune: impl Fn(&mut Config)) -> Pair {
        Pair::start_each(&tune, &tune)
    }

    pub fn start_each(tune_a: impl Fn(&mut Config), tune_b: impl Fn(&mut Config)) -> Pair {
        let pair = Pair::unconnected(tune_a, tune_b);
        pair.a.add_peer(PeerConfig::new(pair.proxy.addr().to_string())).expect("an address");
        pair.wait_up();
        pair
    }

    /// `a` has not dialled yet.
    pub fn unconnected(tune_a: impl Fn(&mut Config), tune_b: impl Fn(&mut Config)) -> Pair {
        let b = Peer::start(builder(&tune_b).listen(any_addr()));
        let proxy = FaultProxy::start(first_addr(&b)).expect("a proxy");
        let a = Peer::start(builder(&tune_a));
        Pair { a, b, proxy }
    }

    pub fn wait_up(&self) {
        self.a.wait_up(self.b.id());
        self.b.wait_up(self.a.id());
    }
}

/// Default settings with [`path`], in the mode that the tests run in.
pub fn config() -> Config {
    Config { path: path(), encryption: encryption(), ..Config::default() }
}

/// A node with [`config`] and what `tune` changes.
pub fn builder(tune: impl FnOnce(&mut Config)) -> Builder {
    Node::builder().config(config()).configure(|config| {
        tune(config);
    })
}

pub fn first_addr(node: &Node) -> SocketAddr {
    *node.local_addrs().first().expect("the node listens")
}

/// The library's threads of two nodes, of which one listens, with one connection: each node has one that
/// watches and one that writes the log and drops bodies, the listener has an acceptor, and each end of the
/// connection has two.
pub const THREADS_OF_A_PAIR: usize = 2 * 2 + 1 + 2 * 2;

/// Waits until this process has so many threads of the library. They start and end a little later than what
/// is told of them: the writer of a connection after the link is up, and a joined thread is listed for some
/// microseconds more.
#[cfg(target_os = "linux")]
pub fn wait_for_threads(what: &str, count: usize) {
    eventually(what, || process::library_threads().unwrap() == count);
}

/// Waits for something that no event tells. Fails the test when it does not come.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    assert!(within(TIMEOUT, &mut condition), "waited in vain for: {what}");
}

/// Whether the condition comes true in time.
pub fn within(timeout: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + timeout;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(3));
    }
}

/// Waits until all have ended as taken.
pub fn all_taken(receipts: &[Receipt]) {
    for (index, receipt) in receipts.iter().enumerate() {
        let outcome = receipt.wait_timeout(TIMEOUT);
        assert_eq!(outcome, Some(Outcome::Taken), "receipt {index} of {}", receipts.len());
    }
}

/// Says why a test does nothing here.
pub fn skip(why: &str) {
    eprintln!("skipped: {why}");
}

/// Sends numbered messages from a thread of its own; gives their receipts. Waits when a queue is full.
pub fn flood(
    node: &Node,
    peer: PeerId,
    lane: LaneId,
    stream: u64,
    count: u64,
    size: impl Fn(u64) -> usize + Send + 'static,
) -> JoinHandle<Vec<Receipt>> {
    let node = node.clone();
    thread::spawn(move || {
        let send = |seq| {
            let message = message(stream, seq, size(seq));
            node.send(peer, (lane, message)).expect("accepted")
        };
        (0..count).map(send).collect()
    })
}

/// Mostly small, some of many chunks: between 24 bytes and 300 KB, decided by the number.
pub fn mixed(seq: u64) -> usize {
    let mut rng = fastrand::Rng::with_seed(seq ^ 0x5eed);
    match rng.u8(..) {
        0..=200 => rng.usize(MIN_LEN..400),
        201..=250 => rng.usize(400..20_000),
        _ => rng.usize(20_000..300_000),
    }
}

/// The only connection of `at` to `to`, once there is only one and it has proved itself.
pub fn only_conn(at: &Peer, to: &Peer) -> ConnId {
    let mut found = None;
    eventually("one connection", || {
        let conns = at.peer(to.id()).expect("a peer that is known").connections;
        found = conns.first().filter(|conn| conns.len() == 1 && conn.rtt_ms.is_some()).map(|conn| conn.id);
        found.is_some()
    });
    let found = found.expect("it was found");
    // Events come later: the one that it joined must not pass for that of another.
    let joined = |event: &Event| matches!(event, Event::Connected { conn, .. } if *conn == found);
    at.wait("the event that it joined", |log| (log.count(joined) == 1).then_some(()));
    found
}

/// Whether the link of the peer was degraded or down after this mark of its events.
pub fn link_was_down(peer: &Peer, since: usize) -> bool {
    let down = |event: &Event| matches!(event, Event::LinkDown { .. } | Event::LinkDegraded { .. });
    peer.look(|log| log.events.iter().skip(since).any(|(_, event)| down(event)))
}
