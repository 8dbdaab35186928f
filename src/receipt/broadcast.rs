//! One message to many peers, and the quorum that is waited for.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Condvar;

use super::Receipt;
use crate::clock;
use crate::error::SendErrorKind;
use crate::id::PeerId;
use crate::lock::{Guard, LEAF, Ordered};
use crate::outcome::Outcome;

/// Counts the receipts of a broadcast that ended, for any number of threads that wait for them: a token in a
/// channel would wake one of them only.
///
/// A thread that waits says how many receipts have to end before it needs to look again. So a quorum wakes it
/// once, and not each receipt on the way there.
#[derive(Debug, Default)]
pub(super) struct Changes {
    state: Ordered<State, LEAF>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ends: Ends,
    /// The first numbers of ends for which threads wait: each thread that is woken sets its own anew.
    wanted: Option<Ends>,
    /// How many receipts there are.
    total: usize,
    /// The channel of [`Broadcast::ready`], once it was asked for and until all have ended.
    ready: Option<(Sender<()>, Receiver<()>)>,
}

/// How many receipts have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ends {
    taken: usize,
    failed: usize,
}

impl Ends {
    fn count(self) -> usize {
        self.taken + self.failed
    }

    /// Whether one of the two numbers is reached.
    fn reach(self, wanted: Ends) -> bool {
        self.taken >= wanted.taken || self.failed >= wanted.failed
    }
}

impl State {
    /// False if so many have ended. Otherwise the thread that waits for them is woken when they have.
    fn waits_for(&mut self, wanted: Ends) -> bool {
        let waits = !self.ends.reach(wanted);
        if waits {
            let first = self.wanted.unwrap_or(wanted);
            let (taken, failed) = (first.taken.min(wanted.taken), first.failed.min(wanted.failed));
            self.wanted = Some(Ends { taken, failed });
        }
        waits
    }
}

impl Changes {
    fn of(total: usize) -> Arc<Self> {
        Arc::new(Changes {
            state: Ordered::new(State { total, ..State::default() }),
            changed: Condvar::new(),
        })
    }

    /// A receipt has ended.
    pub(super) fn tell(&self, outcome: Outcome) {
        let mut state = self.state.lock();
        match outcome {
            Outcome::Taken => state.ends.taken += 1,
            _ => state.ends.failed += 1,
        }
        let ends = state.ends;
        let wakes = state.wanted.take_if(|wanted| ends.reach(*wanted)).is_some();
        let all = ends.count() >= state.total;
        let ready = if all { state.ready.take() } else { state.ready.clone() };
        drop(state);
        if wakes {
            self.changed.notify_all();
        }
        // With the last one the channel is disconnected, when this sender is dropped.
        if let Some((sender, _)) = ready {
            let _ = sender.try_send(());
        }
    }

    fn ready(&self) -> Receiver<()> {
        let mut state = self.state.lock();
        if let Some((_, receiver)) = &state.ready {
            return receiver.clone();
        }
        let (sender, receiver) = bounded(1);
        if state.ends.count() > 0 {
            let _ = sender.try_send(());
        }
        if state.ends.count() < state.total {
            state.ready = Some((sender, receiver.clone()));
        }
        receiver
    }

    #[cfg(all(test, shuttle))]
    pub(super) fn count(&self) -> usize {
        self.state.lock().ends.count()
    }
}

/// The receipts of one message to many peers, returned by [`Node::broadcast`](crate::Node::broadcast).
///
/// A peer counts when its application has taken the message ([`Outcome::Taken`]), which is later than its
/// kernel's or its node's acknowledgement. The sending node is not counted: for a quorum that it belongs to
/// wait for one less.
///
/// ```
/// use std::thread;
/// use std::time::Duration;
/// use unbroken::{Node, URGENT};
///
/// let listener = || Node::builder().listen("127.0.0.1:0".parse().unwrap()).start();
/// let peers = [listener()?, listener()?, listener()?, listener()?];
/// let node = Node::builder().peers(peers.iter().map(|peer| peer.local_addrs()[0].to_string())).start()?;
/// node.wait_for_links(4, Duration::from_secs(30))?;
///
/// let vote = node.broadcast((URGENT, "block 7"));
/// // The applications of three of the four receive it.
/// for peer in peers.iter().take(3).cloned() {
///     thread::spawn(move || peer.events().for_each(drop));
/// }
/// let progress = vote.wait_for(3, Duration::from_secs(30))?;
/// assert_eq!((progress.taken.len(), progress.pending.len()), (3, 1));
///
/// let error = vote.wait_for(4, Duration::from_millis(10)).unwrap_err();
/// assert_eq!((error.reached, error.impossible), (3, false)); // The fourth may still take it.
/// # peers.iter().for_each(|peer| peer.shutdown(Duration::ZERO));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Broadcast {
    receipts: Vec<(PeerId, Receipt)>,
    refused: Vec<(PeerId, SendErrorKind)>,
    unidentified: Vec<String>,
    changes: Arc<Changes>,
}

/// How far a broadcast has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
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
#[non_exhaustive]
pub struct QuorumError {
    /// The state when the wait ended.
    pub progress: Progress,
    /// The sum of weights that was reached; of [`Broadcast::wait_for`] the number of peers.
    pub reached: u64,
    /// The sum, or the number, that was wanted.
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
        if !self.progress.pending.is_empty() {
            write!(f, "; {} pending", self.progress.pending.len())?;
        }
        if let Some((peer, outcome)) = self.progress.failed.first() {
            let count = self.progress.failed.len();
            write!(f, "; {count} failed, {} for one: {outcome}", peer.short())?;
        }
        if !self.unidentified.is_empty() {
            write!(f, "; not sent to {}: nobody has answered there yet", self.unidentified.join(", "))?;
        }
        Ok(())
    }
}

impl std::error::Error for QuorumError {}

impl Broadcast {
    pub(crate) fn new(receipts: Vec<(PeerId, Receipt)>, refused: Vec<(PeerId, SendErrorKind)>) -> Self {
        let changes = Changes::of(receipts.len());
        for (_, receipt) in &receipts {
            receipt.watch(&changes);
        }
        Broadcast { receipts, refused, unidentified: Vec::new(), changes }
    }

    pub(crate) fn refuse(&mut self, refused: Vec<(PeerId, SendErrorKind)>) {
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
    pub fn refused(&self) -> &[(PeerId, SendErrorKind)] {
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

    /// The receipt of one peer, if the message was accepted for it.
    pub fn receipt(&self, peer: PeerId) -> Option<&Receipt> {
        self.receipts.iter().find(|(id, _)| *id == peer).map(|(_, receipt)| receipt)
    }

    /// A channel for `crossbeam_channel::select!`, the same for all who ask: it gets a token when receipts
    /// have ended since the last token, and is disconnected when all have. After each token look at
    /// [`Broadcast::progress`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use unbroken::crossbeam_channel::{after, select};
    /// use unbroken::{Node, URGENT};
    ///
    /// # let listener = || Node::builder().listen("127.0.0.1:0".parse().unwrap()).start();
    /// # let peers = [listener()?, listener()?];
    /// # let node = Node::builder().peers(peers.iter().map(|peer| peer.local_addrs()[0].to_string())).start()?;
    /// # node.wait_for_links(2, Duration::from_secs(30))?;
    /// # peers.clone().map(|peer| std::thread::spawn(move || peer.events().for_each(drop)));
    /// let vote = node.broadcast((URGENT, "block 7"));
    /// let (ready, timeout) = (vote.ready(), after(Duration::from_secs(30)));
    /// while vote.progress().taken.len() < 2 {
    ///     select! {
    ///         recv(ready) -> _ => {}
    ///         recv(timeout) -> _ => panic!("no quorum within 30 s"),
    ///     }
    /// }
    /// # peers.iter().for_each(|peer| peer.shutdown(Duration::ZERO));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn ready(&self) -> Receiver<()> {
        self.changes.ready()
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
    /// When the time is over, or at once when so many have failed that `k` can no longer be reached
    /// ([`QuorumError::impossible`]). The broadcast goes on, and can be waited for again.
    pub fn wait_for(&self, k: usize, timeout: Duration) -> Result<Progress, QuorumError> {
        self.wait_for_weight(k as u64, timeout, |_| 1)
    }

    /// Waits until peers with a total weight of `wanted` have taken the message. `weight` returns the
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
        let weights: Vec<u64> = self.receipts.iter().map(|(peer, _)| weight(*peer)).collect();
        loop {
            let tally = self.tally(&weights);
            let over = deadline.is_some_and(|deadline| deadline <= clock::now());
            if tally.reached >= wanted {
                return Ok(self.progress());
            }
            let reached = tally.reached;
            let next = tally.next_look(wanted);
            let Some(next) = next.filter(|_| !over) else {
                let (progress, impossible) = (self.progress(), next.is_none());
                let unidentified = self.unidentified.clone();
                return Err(QuorumError { progress, reached, wanted, impossible, unidentified });
            };
            let mut state = self.changes.state.lock();
            while state.waits_for(next) {
                match deadline {
                    Some(deadline) if !Guard::wait_until(&mut state, &self.changes.changed, deadline) => {
                        break;
                    }
                    Some(_) => {}
                    None => Guard::wait(&mut state, &self.changes.changed),
                }
            }
        }
    }

    fn tally(&self, weights: &[u64]) -> Tally {
        let mut tally = Tally::default();
        for ((_, receipt), weight) in self.receipts.iter().zip(weights) {
            match receipt.poll() {
                Some(Outcome::Taken) => {
                    tally.reached = tally.reached.saturating_add(*weight);
                    tally.ends.taken += 1;
                }
                Some(_) => tally.ends.failed += 1,
                None => tally.pending.push(*weight),
            }
        }
        tally
    }
}

/// The weights that a quorum is made of.
#[derive(Debug, Default)]
struct Tally {
    ends: Ends,
    reached: u64,
    pending: Vec<u64>,
}

impl Tally {
    /// The first numbers of ends with which the quorum may be reached, or can no longer be reached. `None`:
    /// it cannot be reached now.
    fn next_look(mut self, wanted: u64) -> Option<Ends> {
        self.pending.sort_unstable_by(|one, other| other.cmp(one));
        // How many peers it takes at least that their weights have this sum.
        let fewest = |sum: u64| {
            let mut left = sum;
            let enough = self.pending.iter().position(|weight| {
                left = left.saturating_sub(*weight);
                left == 0
            });
            enough.map(|index| index + 1)
        };
        let pending = self.pending.iter().fold(0, |sum: u64, weight| sum.saturating_add(*weight));
        let missing = wanted.saturating_sub(self.reached);
        let taken = self.ends.taken + fewest(missing)?;
        // More than can fail with enough left.
        let spare = pending.checked_sub(missing)?;
        let failed = self.ends.failed + fewest(spare.saturating_add(1))?;
        Some(Ends { taken, failed })
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::TryRecvError;

    use super::*;
    use crate::link::Tokens;
    use crate::outcome::DropReason;
    use crate::receipt::{EndedRun, Receipts};

    #[test]
    fn its_channel_tells_of_each_end_and_disconnects_with_the_last() {
        let mut receipts = Receipts::default();
        let (mut tokens, open): (Vec<_>, Vec<_>) = (0..3).map(|_| receipts.open()).unzip();
        let peer = |number| PeerId::from_bytes([number; 32]);
        let mut end = |outcome| {
            let token = tokens.pop().unwrap();
            receipts
                .end([(Tokens { first: token, count: 1 }, outcome)].into_iter())
                .into_iter()
                .for_each(EndedRun::tell);
        };
        let broadcast = Broadcast::new((1..4).map(peer).zip(open).collect(), Vec::new());
        let ready = broadcast.ready();
        assert_eq!(ready.try_recv(), Err(TryRecvError::Empty));
        end(Outcome::Taken);
        assert_eq!(ready.try_recv(), Ok(()));
        assert_eq!(broadcast.receipt(peer(3)).and_then(Receipt::poll), Some(Outcome::Taken));
        assert!(broadcast.receipt(peer(4)).is_none());
        end(Outcome::Expired);
        end(Outcome::Dropped(DropReason::PeerRemoved));
        assert_eq!(ready.try_recv(), Ok(()), "two ends, one token");
        assert_eq!(ready.try_recv(), Err(TryRecvError::Disconnected));

        let error = broadcast.wait_for(2, Duration::ZERO).unwrap_err().to_string();
        let text = "a quorum of 2 can no longer be reached: 1 so far; 2 failed, ";
        assert!(error.starts_with(text) && error.contains("for one: "), "{error}");
        let late = broadcast.ready();
        assert_eq!((late.try_recv(), late.try_recv()), (Ok(()), Err(TryRecvError::Disconnected)));
        let empty = Broadcast::new(Vec::new(), Vec::new()).ready();
        assert_eq!(empty.try_recv(), Err(TryRecvError::Disconnected));
    }
    /// Every way in which pending receipts can end: the wait is woken by the time that it is decided, and not
    /// before it can be.
    #[test]
    fn a_wait_is_woken_when_its_quorum_can_be_decided() {
        let ended = Ends { taken: 2, failed: 1 };
        for weights in [[1, 1, 1, 1], [0, 0, 3, 1], [5, 2, 2, 1], [u64::MAX, u64::MAX, 1, 0]] {
            let sum = weights.iter().fold(0, |sum: u64, weight| sum.saturating_add(*weight));
            for wanted in 11..=sum.min(20) + 10 {
                let tally = || Tally { ends: ended, reached: 10, pending: weights.to_vec() };
                let next = tally().next_look(wanted).expect("it can be reached");
                let (mut first_reached, mut first_impossible) = (usize::MAX, usize::MAX);
                for ways in 0..3_u32.pow(4) {
                    let (mut ends, mut reached, mut left) = (ended, 10, 10);
                    for (index, weight) in weights.into_iter().enumerate() {
                        match ways / 3_u32.pow(index as u32) % 3 {
                            0 => (ends.taken, reached) = (ends.taken + 1, weight.saturating_add(reached)),
                            1 => ends.failed += 1,
                            _ => {}
                        }
                        if ways / 3_u32.pow(index as u32) % 3 != 1 {
                            left = weight.saturating_add(left);
                        }
                    }
                    if reached >= wanted {
                        assert!(ends.reach(next), "{weights:?}, {wanted}: {ends:?} reach it");
                        first_reached = first_reached.min(ends.taken);
                    }
                    if left < wanted {
                        assert!(ends.reach(next), "{weights:?}, {wanted}: {ends:?} make it impossible");
                        first_impossible = first_impossible.min(ends.failed);
                    }
                }
                // A sum that no number holds may wake it too early.
                if sum < u64::MAX {
                    assert_eq!(next, Ends { taken: first_reached, failed: first_impossible });
                }
            }
            assert_eq!(Tally { ends: ended, reached: 10, pending: vec![2, 1] }.next_look(14), None);
        }
    }

    #[test]
    fn threads_with_different_quorums_are_woken_by_the_first_of_them() {
        let mut state = State::default();
        let wanted = |taken, failed| Ends { taken, failed };
        assert!(state.waits_for(wanted(5, 2)));
        assert!(state.waits_for(wanted(3, 9)));
        assert_eq!(state.wanted, Some(wanted(3, 2)));
        state.ends = wanted(3, 1);
        assert!(!state.waits_for(wanted(3, 9)));
        assert!(state.waits_for(wanted(5, 2)));
    }
}
