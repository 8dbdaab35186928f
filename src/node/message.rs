//! A message as the application gets it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::codec::{Codec, CodecError};
use crate::error::{SendError, SendErrorKind};
use crate::id::{Incarnation, PeerId};
use crate::lane::{AckMode, LaneId};
use crate::link::Ticket;
use crate::message::Payload;
use crate::receipt::Receipt;

use super::budget::Wait;
use super::outgoing::Outgoing;
use super::outgoing::TypedError;

/// The interface that a message needs of the link by which it came.
pub(crate) trait Origin: Send + Sync {
    fn peer(&self) -> PeerId;
    fn is_request_open(&self, request: u64, ticket: Ticket) -> bool;
    fn reply(
        self: Arc<Self>,
        request: u64,
        ticket: Ticket,
        reply: Outgoing,
        wait: Wait,
    ) -> Result<Receipt, SendError>;
    /// A request was dropped without a reply.
    fn abandon(&self, request: u64, ticket: Ticket);
    /// A message on a lane with [`AckMode::Done`] was processed.
    fn done(self: Arc<Self>, lane: usize, ticket: Ticket);
}

/// A message from a peer.
///
/// On a lane with [`AckMode::Done`] the peer's receipt ends when this value is dropped, or by
/// [`Message::done`]: keep it until the message is processed. A request that is dropped without a
/// reply is left to its deadline.
pub struct Message {
    pub(crate) origin: Arc<dyn Origin>,
    pub(crate) lane: LaneId,
    pub(crate) index: u8,
    pub(crate) incarnation: Incarnation,
    pub(crate) payload: Payload,
    pub(crate) request: Option<u64>,
    pub(crate) ticket: Ticket,
    pub(crate) ack_mode: AckMode,
}

impl Message {
    /// The peer that sent it.
    pub fn peer(&self) -> PeerId {
        self.origin.peer()
    }

    /// The incarnation of the peer that sent it.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The lane that it came by.
    pub fn lane(&self) -> LaneId {
        self.lane
    }

    /// Its content.
    pub fn payload(&self) -> &Payload {
        &self.payload
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.payload.len()
    }

    /// Whether it has no content.
    pub fn is_empty(&self) -> bool {
        self.payload.is_empty()
    }

    /// Its content as one slice. Joins the pieces of a large message, once.
    pub fn bytes(&mut self) -> &[u8] {
        self.payload.as_contiguous()
    }

    /// Takes its content out, as one piece. The message counts as done.
    pub fn into_bytes(mut self) -> Bytes {
        std::mem::take(&mut self.payload).into_bytes()
    }

    /// Takes its content out in the pieces in which it came. The message counts as done.
    pub fn into_payload(mut self) -> Payload {
        std::mem::take(&mut self.payload)
    }

    /// Decodes a typed message by [`Bincode`](crate::codec::Bincode).
    ///
    /// # Errors
    /// When the content is not a whole `M`.
    #[cfg(feature = "bincode")]
    pub fn decode<M: serde::de::DeserializeOwned>(&mut self) -> Result<M, CodecError> {
        crate::codec::decode(self.payload.as_contiguous())
    }

    /// Decodes a typed message by `codec`.
    ///
    /// # Errors
    /// Those of the codec.
    pub fn decode_with<M>(&mut self, codec: &impl Codec<M>) -> Result<M, CodecError> {
        codec.decode(self.payload.as_contiguous())
    }

    /// Whether the sender waits for a reply.
    pub fn is_request(&self) -> bool {
        self.request.is_some()
    }

    /// Whether the sender still waits for the reply: it has not cancelled, its deadline has not passed, and
    /// it has not restarted, as far as this side has heard. A hint: a cancellation that goes ahead of a
    /// request which is sent again is not remembered.
    pub fn is_awaited(&self) -> bool {
        self.request.is_some_and(|request| self.origin.is_request_open(request, self.ticket))
    }

    /// Answers a request, on the lane that it came by. Does not wait: when the queue is full the
    /// reply comes back with the error, and the request stays open.
    ///
    /// ```
    /// use std::time::Duration;
    /// use unbroken::{Event, NORMAL, Node};
    ///
    /// # let bob = Node::builder().listen("127.0.0.1:0".parse()?).start()?;
    /// # let alice = Node::builder().peer(bob.local_addrs()[0].to_string()).start()?;
    /// # alice.wait_linked(bob.id(), Duration::from_secs(30))?;
    /// let height = alice.request(bob.id(), (NORMAL, "height"))?;
    /// for event in bob.events() {
    ///     if let Event::Message(mut message) = event {
    ///         assert!(message.is_request());
    ///         message.reply("42")?;
    ///         break;
    ///     }
    /// }
    /// assert_eq!(height.wait()?.into_bytes(), "42");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`SendErrorKind::NoSuchRequest`] when this is no request or nobody waits any longer, else
    /// as [`Node::try_send`](crate::Node::try_send).
    pub fn reply(&mut self, reply: impl Into<Bytes>) -> Result<Receipt, SendError> {
        self.reply_or_wait(reply.into(), Wait::No)
    }

    /// Answers a request, and waits at most `timeout` while the queue is full. Not for the thread that
    /// receives: what the peer has to take before there is room may wait for this node to receive.
    ///
    /// # Errors
    /// [`SendErrorKind::Timeout`] when the queue was full all the time, and [`SendErrorKind::NoSuchRequest`]
    /// when this is no request or nobody waits any longer, else as
    /// [`Node::try_send`](crate::Node::try_send). The reply comes back with the error, and the request
    /// stays open.
    pub fn reply_timeout(
        &mut self,
        reply: impl Into<Bytes>,
        timeout: Duration,
    ) -> Result<Receipt, SendError> {
        self.reply_or_wait(reply.into(), Wait::at_most(timeout))
    }

    fn reply_or_wait(&mut self, reply: Bytes, wait: Wait) -> Result<Receipt, SendError> {
        let reply = Outgoing::new(self.lane, reply);
        let Some(request) = self.request else { return Err(reply.refused(SendErrorKind::NoSuchRequest)) };
        let receipt = Arc::clone(&self.origin).reply(request, self.ticket, reply, wait)?;
        self.request = None;
        Ok(receipt)
    }

    /// Answers a request with a value, encoded by [`Bincode`](crate::codec::Bincode); the other end uses
    /// [`Node::request_typed`](crate::Node::request_typed) or [`Payload::decode`](crate::Payload::decode).
    ///
    /// # Errors
    /// When the value cannot be serialised, else as [`Message::reply`].
    #[cfg(feature = "bincode")]
    pub fn reply_typed<M: serde::Serialize + ?Sized>(&mut self, reply: &M) -> Result<Receipt, TypedError> {
        Ok(self.reply(crate::codec::encode(reply)?)?)
    }

    /// Answers a request with a value, encoded by `codec`; the other end uses
    /// [`Node::request_typed_with`](crate::Node::request_typed_with) or
    /// [`Payload::decode_with`](crate::Payload::decode_with).
    ///
    /// # Errors
    /// Those of the codec, else as [`Message::reply`].
    pub fn reply_typed_with<M>(&mut self, codec: &impl Codec<M>, reply: &M) -> Result<Receipt, TypedError> {
        Ok(self.reply(codec.encode(reply)?)?)
    }

    /// Says that the message is processed. The same as dropping it.
    pub fn done(self) {}
}

impl Drop for Message {
    fn drop(&mut self) {
        if let Some(request) = self.request {
            self.origin.abandon(request, self.ticket);
        }
        if self.ack_mode == AckMode::Done {
            Arc::clone(&self.origin).done(usize::from(self.index), self.ticket);
        }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("peer", &self.peer())
            .field("lane", &self.lane)
            .field("len", &self.payload.len())
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}
