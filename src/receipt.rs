//! Receipts: how a message ended.

mod block;
mod broadcast;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;

pub use broadcast::{Broadcast, Progress, QuorumError};

use crate::clock;
use crate::link::ReceiptHandle;
use crate::outcome::{DropReason, Outcome};

use block::{Block, SLOTS};
use broadcast::Changes;

/// Hands out the receipts of a link.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    /// The block that has slots left, and the next one of them.
    block: Option<(Arc<Block>, u8)>,
}

impl Receipts {
    /// Returns both halves of a new receipt.
    pub(crate) fn open(&mut self) -> (PendingReceipt, Receipt) {
        let (block, next) = match &mut self.block {
            Some(open) if open.1 < SLOTS => open,
            all => all.insert((Arc::new(Block::new()), 0)),
        };
        let slot = *next;
        *next += 1;
        block.open(slot);
        let receipt = Receipt { block: Arc::clone(block), slot };
        (PendingReceipt { block: Some(Arc::clone(block)), slot }, receipt)
    }
}

/// The library's half of a receipt.
#[derive(Debug)]
pub(crate) struct PendingReceipt {
    /// `None` when it has ended.
    block: Option<Arc<Block>>,
    slot: u8,
}

impl PendingReceipt {
    pub(crate) fn end(mut self, outcome: Outcome) {
        self.set(outcome);
    }

    fn set(&mut self, outcome: Outcome) {
        if let Some(block) = self.block.take() {
            block.set(self.slot, outcome);
        }
    }
}

impl Drop for PendingReceipt {
    /// No receipt stays open: what is forgotten without a word went down with the node.
    fn drop(&mut self) {
        self.set(Outcome::Dropped(DropReason::Shutdown));
    }
}

impl ReceiptHandle for PendingReceipt {
    fn is_awaited(&self) -> bool {
        self.block.as_ref().is_some_and(|block| block.is_held(self.slot))
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
        let (token, receipt) = Receipts::default().open();
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
                token.end(outcome_of(number));
            }
        });
    }

    fn outcome_of(number: usize) -> Outcome {
        if number.is_multiple_of(3) { Outcome::Expired } else { Outcome::Taken }
    }

    #[test]
    fn a_receipt_is_awaited_as_long_as_the_application_has_it_and_ends_when_its_token_is_lost() {
        let (token, receipt) = Receipts::default().open();
        let again = receipt.clone();
        drop(receipt);
        assert!(token.is_awaited());
        drop(token);
        assert_eq!(again.poll(), Some(Outcome::Dropped(DropReason::Shutdown)));
        let (token, receipt) = Receipts::default().open();
        drop(receipt);
        assert!(!token.is_awaited());
    }
}
