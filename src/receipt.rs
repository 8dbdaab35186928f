//! Receipts: how a message ended.

mod block;
mod broadcast;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;

pub use broadcast::{Broadcast, Progress, QuorumError};

use crate::clock;
use crate::link::{Token, Tokens};
use crate::outcome::{DropReason, Outcome};

use block::{Block, SLOTS};
use broadcast::Changes;

/// The library's half of a receipt, until it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReceiptToken {
    block: u32,
    slot: u8,
}

impl Token for ReceiptToken {
    /// Blocks do not follow each other.
    fn skip(self, count: usize) -> Self {
        ReceiptToken { slot: self.slot + count as u8, ..self }
    }
}

/// The receipts of a link. Its lock covers this too, so that a token needs no reference to its block.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    /// The blocks with receipts that have not ended, or were not handed out.
    blocks: Vec<Option<Open>>,
    /// Places in `blocks` without a block.
    free: Vec<u32>,
    /// The next token, if its block has a slot for it.
    next: Option<ReceiptToken>,
}

#[derive(Debug)]
struct Open {
    block: Arc<Block>,
    /// So many of its receipts have not ended.
    left: u8,
}

impl Receipts {
    /// Returns both halves of a new receipt.
    pub(crate) fn open(&mut self) -> (ReceiptToken, Receipt) {
        let token = self.next.unwrap_or_else(|| self.add_block());
        let slot = token.slot;
        self.next = (slot + 1 < SLOTS).then_some(ReceiptToken { slot: slot + 1, ..token });
        // There is such a block: `next` names none other.
        let block = self.get(token).map_or_else(|| Arc::new(Block::new()), |open| Arc::clone(&open.block));
        block.open(slot);
        (token, Receipt { block, slot })
    }

    fn add_block(&mut self) -> ReceiptToken {
        let block = self.free.pop().unwrap_or_else(|| {
            self.blocks.push(None);
            (self.blocks.len() - 1) as u32
        });
        if let Some(place) = self.blocks.get_mut(block as usize) {
            *place = Some(Open { block: Arc::new(Block::new()), left: SLOTS });
        }
        ReceiptToken { block, slot: 0 }
    }

    fn get(&self, token: ReceiptToken) -> Option<&Open> {
        self.blocks.get(token.block as usize)?.as_ref()
    }

    /// Whether the application has one of the receipts.
    pub(crate) fn is_awaited(&self, tokens: Tokens<ReceiptToken>) -> bool {
        self.get(tokens.first).is_some_and(|open| open.block.is_any_held(slots(tokens)))
    }

    /// Forgets tokens, each of which ends here once. Most end in the order in which they were opened, and in
    /// the same way: these are one item. The caller tells them ([`EndedRun::tell`]) after the lock is
    /// released.
    pub(crate) fn end(
        &mut self,
        ended: impl Iterator<Item = (Tokens<ReceiptToken>, Outcome)>,
    ) -> Vec<EndedRun> {
        let mut runs: Vec<EndedRun> = Vec::new();
        for (tokens, outcome) in ended {
            let slots = slots(tokens);
            if let Some(last) = runs.last_mut().filter(|last| last.is_continued_by(tokens.first, outcome)) {
                last.slots.end = slots.end;
            } else if let Some(open) = self.get(tokens.first) {
                let block = Arc::clone(&open.block);
                runs.push(EndedRun { place: tokens.first.block, block, slots, outcome });
            }
        }
        for run in &runs {
            let Some(place) = self.blocks.get_mut(run.place as usize) else { continue };
            place.iter_mut().for_each(|open| open.left -= run.slots.len() as u8);
            if place.take_if(|open| open.left == 0).is_some() {
                self.free.push(run.place);
            }
        }
        if self.free.len() == self.blocks.len() {
            (self.blocks, self.free) = Default::default();
        }
        runs
    }
}

/// The slots of tokens that follow each other: all of one block.
fn slots(tokens: Tokens<ReceiptToken>) -> Range<u8> {
    tokens.first.slot..tokens.first.slot + tokens.count as u8
}

impl Drop for Receipts {
    /// No receipt stays open: what is forgotten without a word went down with the node.
    fn drop(&mut self) {
        for open in self.blocks.iter().flatten() {
            open.block.end_rest(Outcome::Dropped(DropReason::Shutdown));
        }
    }
}

/// Receipts that end in the same way.
#[derive(Debug)]
pub(crate) struct EndedRun {
    place: u32,
    block: Arc<Block>,
    slots: Range<u8>,
    outcome: Outcome,
}

impl EndedRun {
    fn is_continued_by(&self, token: ReceiptToken, outcome: Outcome) -> bool {
        (self.place, self.slots.end, self.outcome) == (token.block, token.slot, outcome)
    }

    /// Ends the receipts. Wakes threads: not under a lock.
    pub(crate) fn tell(self) {
        self.block.end(self.slots, self.outcome);
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
pub struct Receipt {
    block: Arc<Block>,
    slot: u8,
}

impl Receipt {
    /// Waits until the message has ended.
    pub fn wait(&self) -> Outcome {
        loop {
            if let Some(outcome) = self.poll() {
                return outcome;
            }
            let _ = self.ready().recv();
        }
    }

    /// Waits at most `timeout`; `None` when the message has not ended by then.
    pub fn wait_timeout(&self, timeout: Duration) -> Option<Outcome> {
        let Some(deadline) = clock::now().checked_add(timeout) else { return Some(self.wait()) };
        self.poll().or_else(|| {
            let _ = self.ready().recv_deadline(deadline);
            self.poll()
        })
    }

    /// How the message ended, if it has.
    pub fn poll(&self) -> Option<Outcome> {
        self.block.outcome(self.slot)
    }

    /// A channel for `crossbeam_channel::select!`: when the message has ended it gets one token and is
    /// disconnected, so everybody who selects on it wakes up, with a token or an error.
    pub fn ready(&self) -> Receiver<()> {
        self.block.channel(self.slot)
    }

    fn watch(&self, changes: &Arc<Changes>) {
        self.block.watch(self.slot, changes);
    }
}

impl fmt::Debug for Receipt {
    /// Its block has the receipts of many others.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Receipt").field(&self.poll()).finish()
    }
}

impl Clone for Receipt {
    fn clone(&self) -> Self {
        self.block.hold(self.slot);
        Receipt { block: Arc::clone(&self.block), slot: self.slot }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        self.block.let_go(self.slot);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn selecting_in_a_loop_uses_one_channel_and_wakes_every_waiter() {
        let mut receipts = Receipts::default();
        let (token, receipt) = receipts.open();
        let waiting = [receipt.ready(), receipt.ready()];
        assert!(waiting[0].same_channel(&waiting[1]));
        assert!(waiting[0].is_empty());
        end(&mut receipts, token, Outcome::Taken);
        for ready in &waiting {
            let _ = ready.recv_timeout(Duration::from_secs(60));
        }
        assert_eq!(waiting[0].try_recv(), Err(crossbeam_channel::TryRecvError::Disconnected));
        assert_eq!(receipt.ready().try_recv(), Ok(()));
    }

    /// Threads that wait, select and count against one that ends receipts, on the slots of a few blocks.
    #[test]
    fn no_waiter_misses_the_end_of_its_receipt() {
        let mut receipts = Receipts::default();
        let (tokens, open): (Vec<_>, Vec<_>) = (0..1000).map(|_| receipts.open()).unzip();
        thread::scope(|scope| {
            let open = &open;
            for waiter in 0..4 {
                scope.spawn(move || {
                    for (number, receipt) in open.iter().enumerate() {
                        let expected = outcome_of(number);
                        match waiter {
                            0 => assert_eq!(receipt.wait(), expected),
                            1 => {
                                let outcome = receipt.wait_timeout(Duration::from_secs(60));
                                assert_eq!(outcome, Some(expected));
                            }
                            2 => {
                                let _ = receipt.ready().recv();
                                assert_eq!(receipt.poll(), Some(expected));
                            }
                            _ => {
                                let changes = Arc::default();
                                receipt.watch(&changes);
                                assert_eq!(receipt.clone().wait(), expected);
                            }
                        }
                    }
                });
            }
            for (number, token) in tokens.into_iter().enumerate() {
                end(&mut receipts, token, outcome_of(number));
            }
        });
    }

    fn outcome_of(number: usize) -> Outcome {
        if number.is_multiple_of(3) { Outcome::Expired } else { Outcome::Taken }
    }

    fn one(token: ReceiptToken) -> Tokens<ReceiptToken> {
        Tokens { first: token, count: 1 }
    }

    fn end(receipts: &mut Receipts, token: ReceiptToken, outcome: Outcome) {
        receipts.end([(one(token), outcome)].into_iter()).into_iter().for_each(EndedRun::tell);
    }

    #[test]
    fn a_receipt_is_awaited_as_long_as_the_application_has_it() {
        let mut receipts = Receipts::default();
        let (token, receipt) = receipts.open();
        let again = receipt.clone();
        drop(receipt);
        assert!(receipts.is_awaited(one(token)));
        drop(again);
        assert!(!receipts.is_awaited(one(token)));
    }

    #[test]
    fn all_end_with_the_link_unless_they_have_ended_before() {
        let mut receipts = Receipts::default();
        let open: Vec<_> = (0..300).map(|_| receipts.open()).collect();
        end(&mut receipts, open[140].0, Outcome::Expired);
        drop(receipts);
        for (number, (_, receipt)) in open.iter().enumerate() {
            let expected =
                if number == 140 { Outcome::Expired } else { Outcome::Dropped(DropReason::Shutdown) };
            assert_eq!(receipt.poll(), Some(expected), "{number}");
        }
    }

    #[test]
    fn receipts_that_end_alike_and_in_order_are_one_item_for_each_block_and_their_memory_is_used_again() {
        let mut receipts = Receipts::default();
        let mut open = |count| -> (Vec<_>, Vec<_>) { (0..count).map(|_| receipts.open()).unzip() };
        let (tokens, held) = open(3 * usize::from(SLOTS));
        let outcome = |number| if number == 200 { Outcome::Expired } else { Outcome::Taken };
        let ended = tokens.iter().enumerate().map(|(number, token)| (one(*token), outcome(number)));
        // In the middle of the second block one ends in another way.
        let runs = receipts.end(ended);
        let lens: Vec<_> = runs.iter().map(|run| run.slots.len()).collect();
        assert_eq!(lens, [128, 72, 1, 55, 128]);
        assert!(held.iter().all(|receipt| receipt.poll().is_none()), "told before it is said");
        runs.into_iter().for_each(EndedRun::tell);
        for (number, receipt) in held.iter().enumerate() {
            assert_eq!(receipt.poll(), Some(outcome(number)), "{number}");
        }
        assert!(receipts.blocks.is_empty() && receipts.free.is_empty());
        // One that stays open keeps its own block and no other.
        let (stays, receipt) = receipts.open();
        for _ in 0..10_000 {
            let (token, _) = receipts.open();
            end(&mut receipts, token, Outcome::Taken);
        }
        assert_eq!(receipts.blocks.len(), 2);
        end(&mut receipts, stays, Outcome::Expired);
        assert_eq!(receipt.poll(), Some(Outcome::Expired));
    }
}
