//! Receivers for one lane alone, and for events alone.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;

use super::event::Event;
use crate::clock;
use crate::lane::LaneId;

use super::mailbox::{Closed, Reader};
use super::message::Message;
use super::shared::Shared;

/// Receives the messages of one lane, from all peers in turn; [`Node::recv`](crate::Node::recv) then
/// no longer returns them. Dropping it returns the lane.
///
/// A message counts as taken exactly when it is received here. That is why this is no
/// plain channel of messages: one waiting in a channel would be neither here nor there. For
/// `crossbeam_channel::select!` there is [`LaneReceiver::ready`].
#[derive(Debug)]
pub struct LaneReceiver {
    pub(crate) shared: Arc<Shared>,
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
            if let Some(message) = self.shared.mailbox.wait(self.reader(), 1, None)?.pop() {
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
        Ok(self.shared.mailbox.wait(self.reader(), 1, deadline)?.pop())
    }

    /// The next message, if there is one.
    ///
    /// # Errors
    /// When the node shuts down.
    pub fn try_recv(&self) -> Result<Option<Message>, Closed> {
        Ok(self.shared.mailbox.take(self.reader(), 1)?.pop())
    }

    /// Waits for at least one message and takes up to `max`: cheaper than one at a time.
    ///
    /// # Errors
    /// When the node shuts down.
    pub fn recv_batch(&self, max: usize) -> Result<Vec<Message>, Closed> {
        self.shared.mailbox.wait(self.reader(), max.max(1), None)
    }

    /// The messages as they come, until the node shuts down: the same as `for message in &receiver`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use unbroken::{NORMAL, Node};
    ///
    /// let bob = Node::builder().listen("127.0.0.1:0".parse()?).start()?;
    /// let alice = Node::builder().peer(bob.local_addrs()[0].to_string()).start()?;
    /// alice.wait_linked(bob.id(), Duration::from_secs(30))?;
    ///
    /// let normal = bob.lane_receiver(NORMAL).expect("nobody else receives this lane");
    /// for text in ["one", "two", "three"] {
    ///     alice.send(bob.id(), (NORMAL, text))?;
    /// }
    /// let texts: Vec<_> = normal.iter().take(3).map(|message| message.into_bytes()).collect();
    /// assert_eq!(texts, ["one", "two", "three"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn iter(&self) -> Messages<'_> {
        Messages(self)
    }

    /// A channel that has a token when there may be messages, for `crossbeam_channel::select!`. After
    /// the token was received, call [`LaneReceiver::try_recv`] until it returns `None`: one token may stand
    /// for many messages.
    pub fn ready(&self) -> &Receiver<()> {
        self.shared.mailbox.ready(self.reader())
    }

    fn reader(&self) -> Reader {
        Reader::Lane(self.index)
    }
}

impl<'a> IntoIterator for &'a LaneReceiver {
    type Item = Message;
    type IntoIter = Messages<'a>;

    fn into_iter(self) -> Messages<'a> {
        self.iter()
    }
}

/// The messages of one lane, each waited for: [`LaneReceiver::iter`].
#[derive(Clone, Debug)]
pub struct Messages<'a>(&'a LaneReceiver);

impl Iterator for Messages<'_> {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        self.0.recv().ok()
    }
}

impl Drop for LaneReceiver {
    fn drop(&mut self) {
        self.shared.mailbox.unclaim(self.index);
    }
}

/// Receives the events that are no messages; [`Node::recv`](crate::Node::recv) then returns messages alone.
/// Dropping it returns the events.
///
/// Events about named peers come before those about strangers. Events and messages that are received apart
/// have no common order: a message may be taken before the event that tells of its peer's connection.
#[derive(Debug)]
pub struct EventReceiver {
    pub(crate) shared: Arc<Shared>,
}

impl EventReceiver {
    /// Waits for the next event. It is never [`Event::Message`].
    ///
    /// # Errors
    /// When the node shuts down and no event is left.
    pub fn recv(&self) -> Result<Event, Closed> {
        loop {
            if let Some(event) = self.shared.mailbox.wait(Reader::Events, 1, None)?.pop() {
                return Ok(event);
            }
        }
    }

    /// Waits for the next event, at most for `timeout`. `None` when the time is over.
    ///
    /// # Errors
    /// When the node shuts down and no event is left.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Option<Event>, Closed> {
        let deadline = clock::now().checked_add(timeout);
        Ok(self.shared.mailbox.wait(Reader::Events, 1, deadline)?.pop())
    }

    /// The next event, if there is one.
    ///
    /// # Errors
    /// When the node shuts down and no event is left.
    pub fn try_recv(&self) -> Result<Option<Event>, Closed> {
        Ok(self.shared.mailbox.take(Reader::Events, 1)?.pop())
    }

    /// The events as they come, until the node shuts down: the same as `for event in &receiver`.
    pub fn iter(&self) -> Events<'_> {
        Events(self)
    }

    /// A channel that has a token when there may be events, for `crossbeam_channel::select!`. After the token
    /// was received, call [`EventReceiver::try_recv`] until it returns `None`.
    pub fn ready(&self) -> &Receiver<()> {
        self.shared.mailbox.ready(Reader::Events)
    }
}

impl<'a> IntoIterator for &'a EventReceiver {
    type Item = Event;
    type IntoIter = Events<'a>;

    fn into_iter(self) -> Events<'a> {
        self.iter()
    }
}

/// The events, each waited for: [`EventReceiver::iter`].
#[derive(Clone, Debug)]
pub struct Events<'a>(&'a EventReceiver);

impl Iterator for Events<'_> {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.0.recv().ok()
    }
}

impl Drop for EventReceiver {
    fn drop(&mut self) {
        self.shared.mailbox.unclaim_events();
    }
}
