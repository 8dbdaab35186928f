//! The bytes that the whole node may keep in its queues, and the senders that wait for some of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::shares::{AccountId, Shares};
use crate::clock;
use crate::id::PeerId;
use crate::lock::{LEAF, Ordered};

/// How a sender waits when there is no room.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wait {
    /// It gives up at once.
    No,
    /// It waits until then.
    Until(Instant),
    /// It waits as long as it takes.
    Forever,
}

impl Wait {
    pub(crate) fn at_most(timeout: Duration) -> Self {
        clock::now().checked_add(timeout).map_or(Wait::Forever, Wait::Until)
    }
}

/// A sender's place in the line of its lane. Only the first of a line waits for bytes of the node's budget.
#[derive(Debug)]
pub(crate) struct Turn {
    wake: Sender<()>,
    pub(crate) woken: Receiver<()>,
    /// The bytes that it waited for are reserved. Changed under the budget's lock.
    granted: AtomicBool,
}

impl Turn {
    pub(crate) fn new() -> Arc<Self> {
        let (wake, woken) = bounded(1);
        Arc::new(Turn { wake, woken, granted: AtomicBool::new(false) })
    }

    /// It should look again. A wake-up that comes before it waits is not lost.
    pub(crate) fn wake(&self) {
        let _ = self.wake.try_send(());
    }

    /// Waits to be woken. False when the sender's patience is over.
    pub(crate) fn wait(&self, wait: Wait) -> bool {
        match wait {
            Wait::No => false,
            Wait::Until(deadline) => self.woken.recv_deadline(deadline).is_ok(),
            Wait::Forever => self.woken.recv().is_ok(),
        }
    }
}

/// The most that a link reserves ahead of its messages: a hundred small ones.
const MOST_AHEAD: usize = 16 * 1024;
/// The links of a node reserve no more than one in so many bytes each ahead of their messages.
const AHEAD: usize = 4096;

/// While messages of a link are queued it may reserve some bytes [ahead](Budget::ahead) of the next ones, so
/// that most messages do not come here. They go back when its queues are empty, and when a sender waits for
/// room in them.
#[derive(Debug)]
pub(crate) struct Budget {
    ahead: usize,
    /// A leaf in the order of locks.
    state: Ordered<State, LEAF>,
}

#[derive(Debug)]
struct State {
    shares: Shares,
    /// In the order in which they came. Each is looked at when something is released: one that may not have
    /// more yet does not keep others from what they may have.
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    account: AccountId,
    bytes: usize,
    turn: Arc<Turn>,
}

impl Budget {
    pub(crate) fn new(shares: Shares) -> Self {
        let ahead = (shares.max() / AHEAD).min(MOST_AHEAD);
        Budget { ahead, state: Ordered::new(State { shares, waiting: Vec::new() }) }
    }

    /// How many bytes a link may reserve ahead.
    pub(crate) fn ahead(&self) -> usize {
        self.ahead
    }

    pub(crate) fn open(&self, peer: PeerId, named: bool) -> AccountId {
        self.state.lock().shares.open(peer, named)
    }

    /// Closes an account. Its bytes are free again.
    pub(crate) fn close_account(&self, account: AccountId) {
        self.change(|shares| shares.close(account));
    }

    /// Sets the class of every account.
    pub(crate) fn classify(&self, is_named: impl Fn(PeerId) -> bool) {
        self.change(|shares| shares.classify(is_named));
    }

    /// Takes `bytes` for an account. If it may not have them now, `turn` waits for them: it is woken when
    /// they were reserved for it, and has them when it asks again.
    pub(crate) fn reserve(&self, account: AccountId, bytes: usize, turn: Option<&Arc<Turn>>) -> bool {
        let mut state = self.state.lock();
        if turn.is_some_and(|turn| turn.granted.swap(false, SeqCst)) {
            return true;
        }
        let reserved = state.shares.try_reserve(account, bytes);
        if let Some(turn) = turn {
            let waits = state.waiting.iter().position(|waiting| Arc::ptr_eq(&waiting.turn, turn));
            match (reserved, waits) {
                (true, Some(index)) => drop(state.waiting.remove(index)),
                (false, None) => state.waiting.push(Waiting { account, bytes, turn: Arc::clone(turn) }),
                _ => {}
            }
        }
        reserved
    }

    /// This turn waits no longer, and gives back what was reserved for it.
    pub(crate) fn withdraw(&self, account: AccountId, bytes: usize, turn: &Arc<Turn>) {
        self.state.lock().waiting.retain(|waiting| !Arc::ptr_eq(&waiting.turn, turn));
        if turn.granted.swap(false, SeqCst) {
            self.release(account, bytes);
        }
    }

    pub(crate) fn release(&self, account: AccountId, bytes: usize) {
        if bytes > 0 {
            self.change(|shares| shares.release(account, bytes));
        }
    }

    /// Changes the shares, and reserves for those that wait what they may have now.
    fn change(&self, change: impl FnOnce(&mut Shares)) {
        let mut state = self.state.lock();
        let State { shares, waiting } = &mut *state;
        change(shares);
        if waiting.is_empty() {
            return;
        }
        let served = |waiting: &mut Waiting| {
            let reserved = shares.try_reserve(waiting.account, waiting.bytes);
            waiting.turn.granted.fetch_or(reserved, SeqCst);
            reserved
        };
        let served: Vec<_> = waiting.extract_if(.., served).collect();
        drop(state);
        served.iter().for_each(|waiting| waiting.turn.wake());
    }

    /// Strangers hold so much that named peers cannot have what is guaranteed to them.
    pub(crate) fn is_overdrawn(&self) -> bool {
        self.state.lock().shares.is_overdrawn()
    }

    pub(crate) fn used(&self) -> usize {
        self.state.lock().shares.used()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_bytes_go_to_the_first_waiter_that_may_have_them() {
        let budget = Budget::new(Shares::new(1000, 10, 1000));
        let (hog, other) =
            (budget.open(PeerId::from_bytes([1; 32]), true), budget.open(PeerId::from_bytes([2; 32]), true));
        while budget.reserve(hog, 1, None) {}
        while budget.reserve(other, 1, None) {}
        let full = budget.used();
        let turns = [Turn::new(), Turn::new(), Turn::new()];
        let wants = [(hog, 8), (other, 1), (other, 1)];
        for ((account, bytes), turn) in wants.into_iter().zip(&turns) {
            assert!(!budget.reserve(account, bytes, Some(turn)));
        }
        // Too little for the first one, enough for the second.
        budget.release(other, 1);
        let woken: Vec<bool> = turns.iter().map(|turn| !turn.woken.is_empty()).collect();
        assert_eq!(woken, [false, true, false]);
        assert_eq!(budget.used(), full, "it is reserved for the one that was woken");
        budget.withdraw(other, 1, &turns[1]);
        assert!(!turns[2].woken.is_empty(), "the next one has what the other gave back");
        assert!(budget.reserve(other, 1, Some(&turns[2])));
        budget.release(hog, 100);
        assert!(budget.reserve(hog, 8, Some(&turns[0])));
    }
}
