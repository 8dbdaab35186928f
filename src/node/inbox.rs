//! A receiver for one lane alone.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;

use super::event::Event;
use crate::clock;
use crate::lane::LaneId;

use super::hub::Hub;
use super::mailbox::{Closed, Reader};
use super::message::Message;

/// Receives the messages of one lane, from all peers in turn; [`Node::recv`](crate::Node::recv) then
/// no longer gives them. Dropping it gives the lane back.
///
/// A message counts as taken exactly when it is received here. That is why this is no
/// plain channel of messages: one waiting in a channel would be neither here nor there. For
/// `crossbeam_channel::select!` there is [`LaneReceiver::ready`].
#[derive(Debug)]
pub struct LaneReceiver {
    pub(crate) hub: Arc<Hub>,
    pub(crate) lane: LaneId,
    pub(crate) index: usize,
}

impl LaneReceiver {
    /// The lane.
    pub fn lane(&self) -> LaneId {
        self.lane
    }

    /// Waits for the next message.
    ///
    /// # Errors
    /// When the node shuts down.
    pub fn recv(&self) -> Result<Message, Closed> {
        loop {
            if let Some(message) = messages(self.hub.mailbox.wait(self.reader(), 1, None)?).pop() {
                return Ok(message);
            }
        }
    }

    /// Waits for the next message, at most for `timeout`. `None` when the time is over.
    ///
    /// # Errors
    /// When the node shuts down.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Option<Message>, Closed> {
        let deadline = clock::now().checked_add(timeout);
        Ok(messages(self.hub.mailbox.wait(self.reader(), 1, deadline)?).pop())
    }

    /// The next message, if there is one.
    ///
    /// # Errors
    /// When the node shuts down.
    pub fn try_recv(&self) -> Result<Option<Message>, Closed> {
        Ok(messages(self.hub.mailbox.take(self.reader(), 1)?).pop())
    }

    /// Waits for at least one message and takes up to `max`: cheaper than one at a time.
    ///
    /// # Errors
    /// When the node shuts down.
    pub fn recv_batch(&self, max: usize) -> Result<Vec<Message>, Closed> {
        Ok(messages(self.hub.mailbox.wait(self.reader(), max.max(1), None)?))
    }

    /// A channel that has a token when there may be messages, for `crossbeam_channel::select!`. After
    /// the token was received, call [`LaneReceiver::try_recv`] until it gives `None`: one token may stand for many
    /// messages.
    pub fn ready(&self) -> &Receiver<()> {
        self.hub.mailbox.ready(self.reader())
    }

    fn reader(&self) -> Reader {
        Reader::Lane(self.index)
    }
}

impl Drop for LaneReceiver {
    fn drop(&mut self) {
        self.hub.mailbox.unclaim(self.index);
    }
}

fn messages(events: Vec<Event>) -> Vec<Message> {
    events
        .into_iter()
        .filter_map(|event| match event {
            Event::Message(message) => Some(message),
            _ => None,
        })
        .collect()
}
