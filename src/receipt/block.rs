//! The outcomes of many messages in one piece of memory.
//!
//! A receipt is a slot of a block: it costs no memory of its own and no lock, unless somebody waits for it.
//!
//! ```text
//!            end(slots)
//!  pending --------------> ended: never changes again
//!     |  watch(slot)
//!     +--> watched: `end` finds the watchers of its slots in the list and tells them
//! ```
//!
//! Invariants:
//! - A slot is handed out once, and ended once ([`Receipts`](super::Receipts)).
//! - `end` writes the outcomes before it reads `watched`, and `watch` writes `watched` before it reads the
//!   outcome. So one of the two sees the other, and no watcher waits for an outcome that is there. For this
//!   each access to `watched` reads and writes it: each then sees all that was done before the one in front
//!   of it, and the outcomes themselves need no stronger order.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::broadcast::Changes;
use crate::lock::LEAF;
use crate::outcome::{DropReason, Outcome};
use crate::sync::Lock;
use crate::sync::atomic::{AtomicBool, AtomicU8};

/// So many receipts share a block, which lives as long as one of them does.
pub(super) const SLOTS: u8 = 128;

/// An outcome as a number; 0 is none.
const OUTCOMES: [Outcome; 11] = [
    Outcome::Taken,
    Outcome::Expired,
    Outcome::Dropped(DropReason::Shutdown),
    Outcome::Dropped(DropReason::PeerRemoved),
    Outcome::Dropped(DropReason::ResumptionExpired),
    Outcome::Dropped(DropReason::PeerForgot),
    Outcome::Dropped(DropReason::PeerRestarted),
    Outcome::Dropped(DropReason::TooLargeForPeer),
    Outcome::Dropped(DropReason::LaneRefused),
    Outcome::Dropped(DropReason::Cancelled),
    Outcome::Dropped(DropReason::Displaced),
];

fn code(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Taken => 1,
        Outcome::Expired => 2,
        Outcome::Dropped(reason) => match reason {
            DropReason::Shutdown => 3,
            DropReason::PeerRemoved => 4,
            DropReason::ResumptionExpired => 5,
            DropReason::PeerForgot => 6,
            DropReason::PeerRestarted => 7,
            DropReason::TooLargeForPeer => 8,
            DropReason::LaneRefused => 9,
            DropReason::Cancelled => 10,
            DropReason::Displaced => 11,
        },
    }
}

#[derive(Debug)]
pub(super) struct Block {
    outcomes: [AtomicU8; SLOTS as usize],
    /// How many receipts the application has of each slot.
    held: [AtomicU32; SLOTS as usize],
    /// Whether there is anything in `watchers`.
    watched: AtomicBool,
    watchers: Lock<Vec<(u8, Watcher)>, LEAF>,
}

#[derive(Debug)]
enum Watcher {
    Broadcast(Arc<Changes>),
    /// One for each slot, for all that wait for it: it gets a token and is disconnected.
    Channel(Sender<()>, Receiver<()>),
}

impl Watcher {
    fn tell(self, outcome: Outcome) {
        match self {
            Watcher::Broadcast(changes) => changes.tell(outcome),
            Watcher::Channel(sender, _) => {
                let _ = sender.try_send(());
            }
        }
    }
}

impl Block {
    pub(super) fn new() -> Self {
        Block {
            outcomes: std::array::from_fn(|_| AtomicU8::new(0)),
            held: std::array::from_fn(|_| AtomicU32::new(0)),
            watched: AtomicBool::new(false),
            watchers: Lock::new(Vec::new()),
        }
    }

    /// Returns `None` while the slot is pending.
    pub(super) fn outcome(&self, slot: u8) -> Option<Outcome> {
        let code = self.outcomes.get(usize::from(slot))?.load(Acquire);
        OUTCOMES.get(usize::from(code.checked_sub(1)?)).copied()
    }

    /// Ends slots and tells their watchers. Called once for each slot.
    pub(super) fn end(&self, slots: Range<u8>, outcome: Outcome) {
        let cells = self.outcomes.get(usize::from(slots.start)..usize::from(slots.end));
        cells.into_iter().flatten().for_each(|cell| cell.store(code(outcome), Release));
        if !self.watched.fetch_or(false, SeqCst) {
            return;
        }
        let mut watchers = self.watchers.lock();
        let told: Vec<_> = watchers.extract_if(.., |(watched, _)| slots.contains(watched)).collect();
        self.watched.swap(!watchers.is_empty(), SeqCst);
        drop(watchers);
        told.into_iter().for_each(|(_, watcher)| watcher.tell(outcome));
    }

    /// Ends the slots that have not ended. No other thread ends any.
    pub(super) fn end_rest(&self, outcome: Outcome) {
        (0..SLOTS).filter(|slot| self.outcome(*slot).is_none()).for_each(|slot| {
            self.end(slot..slot + 1, outcome);
        });
    }

    /// Counts in `changes` when the slot ends; at once if it has.
    pub(super) fn watch(&self, slot: u8, changes: &Arc<Changes>) {
        let mut watchers = self.watchers.lock();
        self.watched.swap(true, SeqCst);
        let Some(outcome) = self.outcome(slot) else {
            watchers.push((slot, Watcher::Broadcast(Arc::clone(changes))));
            return;
        };
        drop(watchers);
        changes.tell(outcome);
    }

    /// A channel that gets one token and is disconnected when the slot ends; the same for all who ask before.
    pub(super) fn channel(&self, slot: u8) -> Receiver<()> {
        let mut watchers = self.watchers.lock();
        let mut channels = watchers.iter().filter(|(watched, _)| *watched == slot);
        if let Some(Watcher::Channel(_, receiver)) =
            channels.find_map(|(_, watcher)| matches!(watcher, Watcher::Channel(..)).then_some(watcher))
        {
            return receiver.clone();
        }
        self.watched.swap(true, SeqCst);
        let (sender, receiver) = bounded(1);
        if self.outcome(slot).is_some() {
            let _ = sender.try_send(());
        } else {
            watchers.push((slot, Watcher::Channel(sender, receiver.clone())));
        }
        receiver
    }

    /// The first receipt of this slot is handed out: nobody else knows of it yet.
    pub(super) fn open(&self, slot: u8) {
        self.held.get(usize::from(slot)).into_iter().for_each(|held| held.store(1, Relaxed));
    }

    /// There is one more.
    pub(super) fn hold(&self, slot: u8) {
        if let Some(held) = self.held.get(usize::from(slot)) {
            held.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn let_go(&self, slot: u8) {
        let Some(held) = self.held.get(usize::from(slot)) else { return };
        if held.load(Relaxed) == 1 {
            // The last one: there is none left to be cloned or dropped meanwhile.
            held.store(0, Relaxed);
        } else {
            held.fetch_sub(1, Relaxed);
        }
    }

    /// Whether the application has a receipt of one of the slots.
    pub(super) fn is_any_held(&self, slots: Range<u8>) -> bool {
        let held = self.held.get(usize::from(slots.start)..usize::from(slots.end));
        held.into_iter().flatten().any(|held| held.load(Relaxed) > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_a_number_of_its_own() {
        for outcome in OUTCOMES {
            let block = Block::new();
            block.end(3..4, outcome);
            assert_eq!((block.outcome(3), block.outcome(2)), (Some(outcome), None));
        }
    }
}

#[cfg(all(test, shuttle))]
mod every_interleaving {
    use shuttle::check_dfs;
    use shuttle::thread;

    use super::*;

    /// One thread ends two slots, others begin to watch them: each hears of it once.
    #[test]
    fn no_watcher_misses_the_end_of_its_slot() {
        check_dfs(
            || {
                let block = Arc::new(Block::new());
                let ends = thread::spawn({
                    let block = Arc::clone(&block);
                    move || {
                        block.end(0..1, Outcome::Taken);
                        block.end(1..3, Outcome::Taken);
                    }
                });
                let counts = thread::spawn({
                    let block = Arc::clone(&block);
                    move || {
                        let changes = Arc::default();
                        block.watch(0, &changes);
                        changes
                    }
                });
                let ready = block.channel(1);
                ends.join().unwrap();
                assert_eq!(counts.join().unwrap().count(), 1);
                assert_eq!(ready.try_recv(), Ok(()));
                assert!(block.watchers.lock().is_empty());
            },
            None,
        );
    }
}
