//! Receipts: how a message ended.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Condvar;

use crate::clock;
use crate::id::PeerId;
use crate::link::ReceiptHandle;
use crate::lock::{Guard, LEAF, Ordered};
use crate::outcome::{DropReason, Outcome};

/// The waiting end of a value that is set once.
#[derive(Debug)]
pub(crate) struct Promise<V> {
    state: Ordered<State<V>, LEAF>,
    set: Condvar,
}

#[derive(Debug)]
enum State<V> {
    Pending {
        /// The groups that it belongs to.
        groups: Vec<Arc<Changes>>,
        /// The channel of [`Promise::ready`], once it was asked for.
        ready: Option<(Sender<()>, Receiver<()>)>,
    },
    Set(Option<V>),
}

/// Counts the values of a group that were set, for any number of threads that wait on the group: a token
/// in a channel would wake one of them only.
#[derive(Debug, Default)]
struct Changes {
    count: Ordered<u64, LEAF>,
    changed: Condvar,
}

impl Changes {
    fn tell(&self) {
        *self.count.lock() += 1;
        self.changed.notify_all();
    }
}

impl<V> Promise<V> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Promise {
            state: Ordered::new(State::Pending { groups: Vec::new(), ready: None }),
            set: Condvar::new(),
        })
    }

    /// Sets the value and wakes everybody. Only the first call counts.
    pub(crate) fn set(&self, value: V) {
        let mut state = self.state.lock();
        if let State::Pending { groups, ready } = &mut *state {
            let (groups, ready) = (std::mem::take(groups), ready.take());
            *state = State::Set(Some(value));
            drop(state);
            self.set.notify_all();
            if let Some((sender, _)) = ready {
                let _ = sender.try_send(());
            }
            groups.iter().for_each(|group| group.tell());
        }
    }

    /// Waits until the value is set, and looks at it.
    pub(crate) fn wait<A>(
        &self,
        deadline: Option<Instant>,
        look: impl FnOnce(&mut Option<V>) -> A,
    ) -> Option<A> {
        let mut state = self.state.lock();
        loop {
            if let State::Set(value) = &mut *state {
                return Some(look(value));
            }
            match deadline {
                Some(deadline) if !Guard::wait_until(&mut state, &self.set, deadline) => {
                    return match &mut *state {
                        State::Set(value) => Some(look(value)),
                        State::Pending { .. } => None,
                    };
                }
                Some(_) => {}
                None => Guard::wait(&mut state, &self.set),
            }
        }
    }

    pub(crate) fn poll<A>(&self, look: impl FnOnce(&mut Option<V>) -> A) -> Option<A> {
        match &mut *self.state.lock() {
            State::Set(value) => Some(look(value)),
            State::Pending { .. } => None,
        }
    }

    /// Counts in `group` when the value is set; at once if it is.
    fn watch(&self, group: Arc<Changes>) {
        if let State::Pending { groups, .. } = &mut *self.state.lock() {
            return groups.push(group);
        }
        group.tell();
    }

    /// A channel for `select!`, the same for all who ask before the value is set: then it gets one token and
    /// is disconnected, and both make a `select!` ready.
    pub(crate) fn ready(&self) -> Receiver<()> {
        match &mut *self.state.lock() {
            State::Pending { ready, .. } => ready.get_or_insert_with(|| bounded(1)).1.clone(),
            State::Set(_) => {
                let (sender, receiver) = bounded(1);
                let _ = sender.try_send(());
                receiver
            }
        }
    }
}

/// The library's half of a receipt.
#[derive(Debug)]
pub(crate) struct PendingReceipt {
    cell: Option<Arc<Promise<Outcome>>>,
    /// The message's body, if code of the application runs when it is dropped: the last reference, so that
    /// this does not happen where the link forgets the message, under its lock.
    kept: Option<Bytes>,
}

impl PendingReceipt {
    pub(crate) fn new(kept: Option<Bytes>) -> (PendingReceipt, Receipt) {
        let cell = Promise::new();
        (PendingReceipt { cell: Some(Arc::clone(&cell)), kept }, Receipt { cell })
    }

    /// Returns the body that is to be dropped where code of the application may run.
    pub(crate) fn end(mut self, outcome: Outcome) -> Option<Bytes> {
        if let Some(cell) = self.cell.take() {
            cell.set(outcome);
        }
        self.kept.take()
    }
}

impl Drop for PendingReceipt {
    /// No receipt stays open: what is forgotten without a word went down with the node.
    fn drop(&mut self) {
        if let Some(cell) = self.cell.take() {
            cell.set(Outcome::Dropped(DropReason::Shutdown));
        }
    }
}

impl ReceiptHandle for PendingReceipt {
    fn is_awaited(&self) -> bool {
        // The application holds the other half, or a broadcast does.
        self.cell.as_ref().is_some_and(|cell| Arc::strong_count(cell) > 1)
    }

    fn keeps_body(&self) -> bool {
        self.kept.is_some()
    }
}

/// The receipt of one message: tells how it ended.
///
/// Dropping it is fine; the message goes on, only nobody is told.
///
/// ```
/// use std::time::Duration;
/// use unbroken::{Event, Node, Outcome, URGENT};
///
/// # let bob = Node::builder().listen("127.0.0.1:0".parse()?).start()?;
/// # let alice = Node::builder().peer(bob.local_addrs()[0].to_string()).start()?;
/// # alice.wait_linked(bob.id(), Duration::from_secs(30))?;
/// let receipt = alice.send(bob.id(), (URGENT, "vote"))?;
/// // Taken means: the application at the other end has received it.
/// assert_eq!(receipt.wait_timeout(Duration::from_millis(10)), None);
/// bob.events().find(|event| matches!(event, Event::Message(_)));
/// assert_eq!(receipt.wait(), Outcome::Taken);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Receipt {
    cell: Arc<Promise<Outcome>>,
}

impl Receipt {
    /// Waits until the message has ended.
    pub fn wait(&self) -> Outcome {
        let outcome = self.cell.wait(None, |outcome| *outcome).flatten();
        outcome.unwrap_or(Outcome::Dropped(DropReason::Shutdown))
    }

    /// Waits at most `timeout`; `None` when the message has not ended by then.
    pub fn wait_timeout(&self, timeout: Duration) -> Option<Outcome> {
        self.cell.wait(clock::now().checked_add(timeout), |outcome| *outcome).flatten()
    }

    /// How the message ended, if it has.
    pub fn poll(&self) -> Option<Outcome> {
        self.cell.poll(|outcome| *outcome).flatten()
    }

    /// A channel for `crossbeam_channel::select!`: when the message has ended it gets one token and is
    /// disconnected, so everybody who selects on it wakes up, with a token or an error.
    pub fn ready(&self) -> Receiver<()> {
        self.cell.ready()
    }
}

/// The receipts of one message to many peers.
///
/// ```
/// use std::thread;
/// use std::time::Duration;
/// use unbroken::{Node, URGENT};
///
/// let listener = || Node::builder().listen("127.0.0.1:0".parse().unwrap()).start();
/// let peers = [listener()?, listener()?, listener()?];
/// let node = Node::builder().peers(peers.iter().map(|peer| peer.local_addrs()[0].to_string())).start()?;
/// node.wait_for_links(3, Duration::from_secs(30))?;
///
/// let vote = node.broadcast((URGENT, "block 7"));
/// // The applications of two of the three receive it.
/// for peer in peers.iter().take(2).cloned() {
///     thread::spawn(move || peer.events().for_each(drop));
/// }
/// let progress = vote.wait_for(2, Duration::from_secs(30))?;
/// assert_eq!((progress.taken.len(), progress.pending.len()), (2, 1));
/// # peers.iter().for_each(|peer| peer.shutdown(Duration::ZERO));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Broadcast {
    receipts: Vec<(PeerId, Receipt)>,
    refused: Vec<(PeerId, crate::error::SendErrorKind)>,
    unidentified: Vec<String>,
    changes: Arc<Changes>,
}

/// How far a broadcast has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The peers whose application has taken the message.
    pub taken: Vec<PeerId>,
    /// The peers with which it ended in another way.
    pub failed: Vec<(PeerId, Outcome)>,
    /// The peers with which it is under way.
    pub pending: Vec<PeerId>,
}

/// A quorum was not reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumError {
    /// The state when the wait ended.
    pub progress: Progress,
    /// The sum of weights that was reached, and the sum that was wanted.
    pub reached: u64,
    /// The sum of weights that was wanted.
    pub wanted: u64,
    /// True when it can no longer be reached, false when the time was over.
    pub impossible: bool,
    /// The addresses of [`Broadcast::unidentified`]: the message did not go to the peers there.
    pub unidentified: Vec<String>,
}

impl fmt::Display for QuorumError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.impossible { "can no longer be reached" } else { "was not reached in time" };
        write!(f, "a quorum of {} {how}: {} so far", self.wanted, self.reached)?;
        if !self.unidentified.is_empty() {
            write!(f, "; not sent to {}: nobody has answered there yet", self.unidentified.join(", "))?;
        }
        Ok(())
    }
}

impl std::error::Error for QuorumError {}

impl Broadcast {
    pub(crate) fn new(
        receipts: Vec<(PeerId, Receipt)>,
        refused: Vec<(PeerId, crate::error::SendErrorKind)>,
    ) -> Self {
        let changes = Arc::<Changes>::default();
        for (_, receipt) in &receipts {
            receipt.cell.watch(Arc::clone(&changes));
        }
        Broadcast { receipts, refused, unidentified: Vec::new(), changes }
    }

    pub(crate) fn refuse(&mut self, refused: Vec<(PeerId, crate::error::SendErrorKind)>) {
        self.refused.extend(refused);
    }

    /// It could not be sent to the peers at these addresses.
    pub(crate) fn set_unidentified(&mut self, addresses: Vec<String>) {
        self.unidentified = addresses;
    }

    /// The receipt of each peer that the message was accepted for.
    pub fn receipts(&self) -> &[(PeerId, Receipt)] {
        &self.receipts
    }

    /// The peers for which the message was refused, and why (a full queue, for example).
    pub fn refused(&self) -> &[(PeerId, crate::error::SendErrorKind)] {
        &self.refused
    }

    /// The addresses of peers that were configured or added without an id and had not answered yet, so that
    /// the message could not be addressed to them: they have no receipt. Empty for
    /// [`Node::broadcast_to`](crate::Node::broadcast_to). With `id@host:port` messages wait for a peer
    /// from the start; otherwise wait for the links first
    /// ([`Node::wait_for_links`](crate::Node::wait_for_links)).
    pub fn unidentified(&self) -> &[String] {
        &self.unidentified
    }

    /// How far it has come.
    pub fn progress(&self) -> Progress {
        let mut progress = Progress::default();
        for (peer, receipt) in &self.receipts {
            match receipt.poll() {
                Some(Outcome::Taken) => progress.taken.push(*peer),
                Some(other) => progress.failed.push((*peer, other)),
                None => progress.pending.push(*peer),
            }
        }
        progress
    }

    /// Waits until `k` peers have taken the message, and says which.
    ///
    /// # Errors
    /// When the time is over, or when so many have failed that `k` can no longer be reached.
    pub fn wait_for(&self, k: usize, timeout: Duration) -> Result<Progress, QuorumError> {
        self.wait_for_weight(k as u64, timeout, |_| 1)
    }

    /// Waits until peers with a total weight of `wanted` have taken the message. `weight` gives the
    /// weight of each; a peer without a vote weighs 0.
    ///
    /// # Errors
    /// As [`Broadcast::wait_for`].
    pub fn wait_for_weight(
        &self,
        wanted: u64,
        timeout: Duration,
        weight: impl Fn(PeerId) -> u64,
    ) -> Result<Progress, QuorumError> {
        let deadline = clock::now().checked_add(timeout);
        let weights: HashMap<PeerId, u64> =
            self.receipts.iter().map(|(peer, _)| (*peer, weight(*peer))).collect();
        let sum = |peers: &[PeerId]| {
            peers
                .iter()
                .filter_map(|peer| weights.get(peer))
                .fold(0, |sum: u64, weight| sum.saturating_add(*weight))
        };
        loop {
            let seen = *self.changes.count.lock();
            let progress = self.progress();
            let reached = sum(&progress.taken);
            if reached >= wanted {
                return Ok(progress);
            }
            let impossible = reached.saturating_add(sum(&progress.pending)) < wanted;
            let over = deadline.is_some_and(|deadline| deadline <= clock::now());
            if impossible || over {
                let unidentified = self.unidentified.clone();
                return Err(QuorumError { progress, reached, wanted, impossible, unidentified });
            }
            let mut count = self.changes.count.lock();
            while *count == seen {
                match deadline {
                    Some(deadline) if !Guard::wait_until(&mut count, &self.changes.changed, deadline) => {
                        break;
                    }
                    Some(_) => {}
                    None => Guard::wait(&mut count, &self.changes.changed),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selecting_in_a_loop_uses_one_channel_and_wakes_every_waiter() {
        let (token, receipt) = PendingReceipt::new(None);
        let waiting = [receipt.ready(), receipt.ready()];
        assert!(waiting[0].same_channel(&waiting[1]));
        assert!(waiting[0].is_empty());
        token.end(Outcome::Taken);
        for ready in &waiting {
            let _ = ready.recv_timeout(Duration::from_secs(60));
        }
        assert_eq!(waiting[0].try_recv(), Err(crossbeam_channel::TryRecvError::Disconnected));
        assert_eq!(receipt.ready().try_recv(), Ok(()));
    }
}
