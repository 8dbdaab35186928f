//! Writing to many peers: the thread that calls writes itself for a while, and hands the connections that
//! are left to one other thread of the node. For a broadcast that while is [`ON_THE_CALLER`]; for calls that
//! send to one peer each it is their thread's [allowance], and they hand over a connection only
//! if they go to many peers by turns.
//!
//! A small write takes 5 to 15 us, so a call that makes one for each of 1,000 peers takes more than 10 ms.
//! To wake the writers of all these connections takes longer still: on two processors 80 ms, because each of
//! them takes the processor from the caller. One thread that writes to all of them is woken once; while it is
//! on its way further messages gather in the queues, and go with the same writes. In a stream to many peers
//! it takes the place of the writers.
//!
//! A stream to few peers is left to their writers, which write beside each other, and so are messages of
//! urgent lanes that are sent to one peer: this thread may be busy with others. What tells a stream to many
//! is that the connection is none of the [`MANY`] that senders left last. While connections wait for this
//! thread a sender hands over at once, whatever its allowance: many senders would each use up theirs first.
//!
//! Invariants:
//! - A connection that was handed over is written to, or its writer is woken. If several messages went with
//!   its write, more of them are expected: the thread comes back to it after the time of [`Writes::InTurn`].
//! - Those that wait are served in the order of the times at which they are due.
//! - The thread is started when something is handed over for the first time, and joined by [`FanOut::close`].
//! - It waits for no peer: what the kernel does not take at once is left to the connection's writer.

use std::cell::RefCell;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Condvar;

use super::link::{LinkHandle, allowance};
use crate::clock;
use crate::conn::{ConnHandle, threads, writer};
use crate::id::ConnId;
use crate::lane::{LaneConfig, LaneId, Priority};
use crate::lock::{Guard, LEAF, Ordered};

/// For how long the call itself writes: to some 300 peers over loopback.
const ON_THE_CALLER: Duration = Duration::from_millis(4);

/// More connections than this are many.
const MANY: usize = 16;

/// A connection whose link has something to send, while its writer sleeps.
type Due = (Arc<LinkHandle>, Arc<ConnHandle>);

#[derive(Debug)]
pub(crate) struct FanOut {
    /// The name of the thread.
    name: String,
    /// The lanes whose messages to one peer are not for this thread.
    urgent: Vec<LaneId>,
    left: Ordered<Left, LEAF>,
    /// Connections wait that were handed over.
    is_busy: AtomicBool,
    state: Ordered<State, LEAF>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// What was handed over, and when.
    due: VecDeque<(Instant, Due)>,
    /// Connections where messages gather, and until when; each once.
    gathering: VecDeque<(Instant, Due)>,
    gathers: HashSet<ConnId>,
    /// Once something was handed over.
    thread: Option<JoinHandle<()>>,
    closed: bool,
}

/// The connections that senders left last to their writers or this thread, each once, at most [`MANY`]; the
/// last one is at the back.
#[derive(Debug, Default)]
struct Left(VecDeque<ConnId>);

/// The writes of one call.
#[derive(Debug)]
pub(super) struct Call<'a> {
    fan_out: &'a Arc<FanOut>,
    until: Instant,
    left: RefCell<Vec<Due>>,
}

impl Left {
    /// A connection is left. Returns whether [`MANY`] others were since it was left before.
    fn leave(&mut self, conn: ConnId) -> bool {
        let place = self.0.iter().rposition(|other| *other == conn);
        let is_one_of_many = place.is_none() && self.0.len() == MANY;
        if is_one_of_many {
            self.0.pop_front();
        }
        place.and_then(|place| self.0.remove(place));
        self.0.push_back(conn);
        is_one_of_many
    }
}

impl State {
    /// When the next connection is due.
    fn first(&self) -> Option<Instant> {
        let fronts = [self.due.front(), self.gathering.front()];
        fronts.into_iter().flatten().map(|(at, _)| *at).min()
    }

    /// Takes the next connection that is due.
    fn pop(&mut self, now: Instant) -> Option<Due> {
        let at = self.first().filter(|at| *at <= now)?;
        if self.due.front().is_some_and(|(front, _)| *front == at) {
            return self.due.pop_front().map(|(_, due)| due);
        }
        let (_, due) = self.gathering.pop_front()?;
        self.gathers.remove(&due.1.id);
        Some(due)
    }

    /// The thread is to come back to a connection. If it does so earlier, it hears then of this time.
    fn gather(&mut self, until: Instant, due: Due) {
        if self.gathers.insert(due.1.id) {
            self.gathering.push_back((until, due));
        }
    }
}

impl Call<'_> {
    /// Writes what the link has for this connection, or notes it for the other thread.
    pub(super) fn see_to(&self, link: &Arc<LinkHandle>, conn: &Arc<ConnHandle>) {
        let mut left = self.left.borrow_mut();
        if !left.is_empty() || clock::now() >= self.until || !allowance::try_write_now(conn, link) {
            left.push((Arc::clone(link), Arc::clone(conn)));
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let left = self.left.take();
        if !left.is_empty() {
            self.fan_out.hand_over(left);
        }
    }
}

impl FanOut {
    pub(super) fn new(name: String, lanes: &[LaneConfig]) -> Arc<Self> {
        let urgent = lanes.iter().filter(|lane| lane.priority == Priority::Urgent).map(|lane| lane.id);
        Arc::new(FanOut {
            name,
            urgent: urgent.collect(),
            left: Ordered::default(),
            is_busy: AtomicBool::new(false),
            state: Ordered::default(),
            changed: Condvar::new(),
        })
    }

    pub(super) fn call(self: &Arc<Self>) -> Call<'_> {
        Call { fan_out: self, until: clock::now() + ON_THE_CALLER, left: RefCell::default() }
    }

    /// Connections wait, so a stream to many peers is under way. A guess: it may change at any time.
    pub(super) fn is_busy(&self) -> bool {
        self.is_busy.load(Relaxed)
    }

    /// A sender of messages of these lanes to one peer would rather not write them itself. Returns whether
    /// they are handed over.
    pub(super) fn take(
        self: &Arc<Self>,
        link: &Arc<LinkHandle>,
        conn: &Arc<ConnHandle>,
        lanes: impl IntoIterator<Item = LaneId>,
    ) -> bool {
        if lanes.into_iter().any(|lane| self.urgent.contains(&lane)) {
            return false;
        }
        let is_one_of_many = self.left.lock().leave(conn.id);
        if is_one_of_many {
            self.hand_over([(Arc::clone(link), Arc::clone(conn))]);
        }
        is_one_of_many
    }

    /// The first one starts the thread.
    fn hand_over(self: &Arc<Self>, due: impl IntoIterator<Item = Due>) {
        let now = clock::now();
        let mut state = self.state.lock();
        state.due.extend(due.into_iter().map(|due| (now, due)));
        self.is_busy.store(true, Relaxed);
        if state.thread.is_none() && !state.closed {
            let (this, panicked) = (Arc::clone(self), Arc::clone(self));
            let started = threads::spawn_guarded(&self.name, move || this.run(), move || panicked.give_up());
            state.thread = started.ok();
        }
        let runs = state.thread.is_some();
        drop(state);
        if runs {
            self.changed.notify_one();
        } else {
            self.wake_writers();
        }
    }

    /// Leaves to the writers what is due, and what gathers.
    fn wake_writers(&self) {
        let (due, gathering) = {
            let mut state = self.state.lock();
            state.gathers.clear();
            self.is_busy.store(false, Relaxed);
            (std::mem::take(&mut state.due), std::mem::take(&mut state.gathering))
        };
        due.iter().chain(&gathering).for_each(|(_, (_, conn))| conn.wake());
    }

    /// The thread has panicked.
    fn give_up(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        // It is this one, so nobody joins it.
        state.thread = None;
        drop(state);
        self.wake_writers();
    }

    /// Runs until it is closed, and leaves to the writers what is there then.
    fn run(&self) {
        let mut state = self.state.lock();
        while !state.closed {
            if let Some((link, conn)) = state.pop(clock::now()) {
                self.is_busy.store(!state.due.is_empty(), Relaxed);
                drop(state);
                let again = writer::write_in_turn(&conn, &link);
                state = self.state.lock();
                if let Some(until) = again {
                    state.gather(until, (link, conn));
                }
            } else if let Some(at) = state.first() {
                Guard::wait_until(&mut state, &self.changed, at);
            } else {
                Guard::wait(&mut state, &self.changed);
            }
        }
        drop(state);
        self.wake_writers();
    }

    /// Joins the thread; none is started any more.
    pub(super) fn close(&self) {
        let thread = {
            let mut state = self.state.lock();
            state.closed = true;
            state.thread.take()
        };
        self.changed.notify_one();
        thread.into_iter().for_each(threads::join);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{self, AssertUnwindSafe};
    use std::thread;

    use super::*;
    use crate::node::Node;
    use crate::{NORMAL, Outcome, PeerId, URGENT};

    const LONG: Duration = Duration::from_secs(60);

    /// A node that is linked to so many others.
    fn with_peers<T>(count: usize, act: impl FnOnce(&Node, &[PeerId]) -> T) -> T {
        let node = Node::builder().listen("127.0.0.1:0".parse().unwrap()).start().unwrap();
        let address = node.local_addrs()[0].to_string();
        let others: Vec<_> =
            (0..count).map(|_| Node::builder().peer(address.clone()).start().unwrap()).collect();
        thread::scope(|scope| {
            for other in &others {
                scope.spawn(|| other.events().for_each(drop));
            }
            let peers = node.wait_for_links(count, LONG).unwrap();
            // The threads of this scope end with their nodes, also when it panics.
            let result = panic::catch_unwind(AssertUnwindSafe(|| act(&node, &peers)));
            node.shutdown(Duration::ZERO);
            others.iter().for_each(|other| other.shutdown(Duration::ZERO));
            result.unwrap_or_else(|panic| panic::resume_unwind(panic))
        })
    }

    fn is_started(node: &Node) -> bool {
        node.handle.core.shared.fan_out.state.lock().thread.is_some()
    }

    #[test]
    fn what_a_call_leaves_reaches_all_peers() {
        with_peers(8, |node, _| {
            let start = clock::now();
            // Until this thread has written for more than its share.
            while !is_started(node) {
                assert!(start.elapsed() < LONG, "nothing was handed over");
                node.broadcast((URGENT, "vote")).wait_for(8, LONG).unwrap();
            }
            for _ in 0..100 {
                node.broadcast((URGENT, "vote")).wait_for(8, LONG).unwrap();
            }
            let fan_out = &node.handle.core.shared.fan_out;
            let stream =
                |count| -> Vec<_> { (0..count).map(|_| node.broadcast((NORMAL, "block"))).collect() };
            let mut most = 0;
            // Votes go between the blocks, and are handed over too.
            for _ in 0..200 {
                let (blocks, vote) = (stream(20), node.broadcast((URGENT, "vote")));
                most = most.max(fan_out.state.lock().gathering.len());
                for broadcast in blocks.into_iter().chain([vote]) {
                    broadcast.wait_for(8, LONG).unwrap();
                }
            }
            assert!(most <= 8, "{most} entries for 8 connections");
            // Messages gather when it ends.
            let last = stream(100);
            fan_out.close();
            for broadcast in last {
                broadcast.wait_for(8, LONG).unwrap();
            }
            node.broadcast((URGENT, "late")).wait_for(8, LONG).unwrap();
        });
    }

    /// Sends to `count` peers by turns, without a pause, until the thread is there or `most` messages were
    /// sent on a lane, and until all have come. Returns whether the thread is there.
    fn starts_for(count: usize, lane: LaneId, most: usize) -> bool {
        with_peers(count, |node, peers| {
            let (mut sent, mut receipts) = (0, Vec::new());
            while sent < most && !is_started(node) {
                receipts.extend(peers.iter().map(|peer| node.send(*peer, (lane, "block")).unwrap()));
                sent += count;
                // So that writers sleep again.
                if sent.is_multiple_of(8 * count) {
                    receipts.drain(..).for_each(|receipt| assert_eq!(receipt.wait(), Outcome::Taken));
                }
            }
            receipts.drain(..).for_each(|receipt| assert_eq!(receipt.wait(), Outcome::Taken));
            is_started(node)
        })
    }

    #[test]
    fn a_stream_to_many_peers_is_handed_over_and_one_to_few_is_not() {
        let many = 2 * MANY;
        assert!(starts_for(many, NORMAL, 10_000 * many));
        assert!(!starts_for(many, URGENT, 100 * many));
        assert!(!starts_for(4, NORMAL, 800 * 4));
    }

    #[test]
    fn while_connections_wait_others_are_handed_over_at_once() {
        with_peers(2 * MANY, |node, peers| {
            let fan_out = &node.handle.core.shared.fan_out;
            for is_busy in [false, true] {
                // Two rounds: their writes are less than what this thread may spend.
                assert!(!is_started(node));
                for peer in peers {
                    fan_out.is_busy.store(is_busy, Relaxed);
                    assert_eq!(node.send(*peer, (NORMAL, "block")).unwrap().wait(), Outcome::Taken);
                }
            }
            assert!(is_started(node));
        });
    }
}
