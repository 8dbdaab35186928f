//! Messages on their way out.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::clock;
use crate::codec::{Codec, CodecError};
use crate::error::{SendError, SendErrorKind};
use crate::lane::LaneId;
use crate::link::{COPY_BELOW, OutboundMessage};
use crate::outcome::RequestError;
use crate::receipt::Receipt;

use super::background::Background;
use super::event::Event;

/// A message to send: its lane, its bytes, and how long it may wait.
///
/// ```
/// use std::time::Duration;
/// use unbroken::{Outgoing, URGENT};
///
/// let vote = Outgoing::new(URGENT, "yes").expires_in(Duration::from_secs(2));
/// let the_same_without_expiry: Outgoing = (URGENT, "yes").into();
/// ```
#[derive(Clone, Debug)]
pub struct Outgoing {
    lane: LaneId,
    body: Bytes,
    /// Its memory may belong to the application, whose code runs when the last reference is dropped.
    owned: bool,
    expires_in: Option<Duration>,
}

impl Outgoing {
    /// These bytes, on this lane, waiting as long as it takes.
    pub fn new(lane: LaneId, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        // Plain memory with one owner: no code of the application runs when it is freed.
        let owned = !body.is_empty() && !body.is_unique();
        Outgoing { lane, body, owned, expires_in: None }
    }

    /// A serde value, encoded by [`Bincode`](crate::codec::Bincode);
    /// [`Message::decode`](crate::Message::decode) is the other end.
    ///
    /// # Errors
    /// When the value cannot be serialised.
    #[cfg(feature = "bincode")]
    pub fn typed<M: serde::Serialize + ?Sized>(lane: LaneId, message: &M) -> Result<Self, CodecError> {
        Ok(Outgoing::new(lane, crate::codec::encode(message)?))
    }

    /// A value, encoded by `codec`; [`Message::decode_with`](crate::Message::decode_with) is the other end.
    ///
    /// # Errors
    /// Those of the codec.
    pub fn typed_with<M>(codec: &impl Codec<M>, lane: LaneId, message: &M) -> Result<Self, CodecError> {
        Ok(Outgoing::new(lane, codec.encode(message)?))
    }

    /// The message is worth nothing after this time. It is dropped if its first byte was not sent by then,
    /// and also by the peer, if its application has not taken it by then; either way the receipt ends as
    /// [`Outcome::Expired`](crate::Outcome::Expired). In the second case it ends when that application comes
    /// to the message, which may be long after this time. An example of both:
    /// [`manual::lanes_and_sizes`](crate::manual::lanes_and_sizes#messages-that-are-worthless-later).
    ///
    /// The peer reads the time by this node's clock, of which its PONGs tell: it drops nothing too early, and
    /// too late by the time that such a frame took at most. Until the first one has come, a few milliseconds
    /// after a link's beginning, it drops nothing. For requests only the first half holds: they carry the
    /// time that the requester waits.
    pub fn expires_in(mut self, time: Duration) -> Self {
        self.expires_in = Some(time);
        self
    }

    /// The lane.
    pub fn lane(&self) -> LaneId {
        self.lane
    }

    /// How many bytes the message has.
    pub fn len(&self) -> usize {
        self.body.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.body.is_empty()
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.body
    }

    /// The time of [`Outgoing::expires_in`]; `None`: it does not expire.
    pub fn expiry(&self) -> Option<Duration> {
        self.expires_in
    }

    /// From here on the body may be dropped anywhere: if it is not copied, it is wrapped.
    pub(crate) fn guard(&mut self, background: &Arc<Background>) {
        if self.owned && self.body.len() >= COPY_BELOW {
            self.body = background.guard(std::mem::take(&mut self.body));
            self.owned = false;
        }
    }

    /// The instant at which it expires if it is sent now.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.expires_in.and_then(|time| clock::now().checked_add(time))
    }

    pub(crate) fn as_message(&self, deadline: Option<Instant>) -> OutboundMessage<'_> {
        OutboundMessage { lane: self.lane, body: &self.body, deadline }
    }

    /// The error with which it goes back to the application.
    pub(crate) fn refused(self, kind: SendErrorKind) -> SendError {
        SendError::new(kind, self.lane, self.body, self.expires_in)
    }

    /// The same message, for the time that this one exists, which is guarded. Dropping it runs no code of the
    /// application.
    pub(crate) fn lend(&self) -> Outgoing {
        Outgoing { owned: false, ..self.clone() }
    }

    /// The body, if code of the application may run when it is dropped.
    pub(crate) fn into_owned(mut self) -> Option<Bytes> {
        self.take_owned()
    }

    /// Takes the body out, if code of the application may run when it is dropped.
    pub(crate) fn take_owned(&mut self) -> Option<Bytes> {
        self.owned.then(|| std::mem::take(&mut self.body))
    }
}

impl SendError {
    /// The message as it was, to send it again or to another peer. Its time, if it expires, counts anew from
    /// that call on. A reply becomes a message on the lane of its request.
    ///
    /// ```
    /// use unbroken::{Node, PeerId, URGENT};
    ///
    /// # let nobody = PeerId::from_bytes([7; 32]);
    /// let node = Node::builder().listen("127.0.0.1:0".parse()?).start()?;
    /// let error = node.send(nobody, (URGENT, "vote")).unwrap_err();
    /// let again = error.into_outgoing();
    /// assert_eq!((again.lane(), again.bytes()), (URGENT, &b"vote"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn into_outgoing(self) -> Outgoing {
        let (lane, expires_in) = self.terms();
        Outgoing { expires_in, ..Outgoing::new(lane, self.into_message()) }
    }
}

impl<B: Into<Bytes>> From<(LaneId, B)> for Outgoing {
    fn from((lane, body): (LaneId, B)) -> Self {
        Outgoing::new(lane, body)
    }
}

/// A call with typed messages failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum TypedError {
    /// A value could not be encoded, or the reply is no such value.
    Codec(CodecError),
    /// The message was not accepted.
    Send(SendError),
    /// The request ended without a reply.
    Request(RequestError),
}

impl fmt::Display for TypedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TypedError::Codec(error) => error.fmt(f),
            TypedError::Send(error) => error.fmt(f),
            TypedError::Request(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for TypedError {}

impl From<CodecError> for TypedError {
    fn from(error: CodecError) -> Self {
        TypedError::Codec(error)
    }
}

impl From<SendError> for TypedError {
    fn from(error: SendError) -> Self {
        TypedError::Send(error)
    }
}

impl From<RequestError> for TypedError {
    fn from(error: RequestError) -> Self {
        TypedError::Request(error)
    }
}

/// The result of a send that receives while it waits: room for the message, or something to receive. See
/// [`Node::send_or_recv`](crate::Node::send_or_recv).
#[derive(Debug)]
pub enum SendOrRecv {
    /// The message was accepted. The receipt tells how it ends.
    Sent(Receipt),
    /// There was no room for the message yet, and this event came.
    Received {
        /// The event, as from [`Node::recv`](crate::Node::recv).
        event: Event,
        /// The message, to try again.
        message: Outgoing,
    },
}

/// One of many messages was not accepted ([`Node::send_many`](crate::Node::send_many)).
#[derive(Debug)]
#[non_exhaustive]
pub struct SendManyError {
    /// The receipts of the messages before it, which were accepted.
    pub receipts: Vec<Receipt>,
    /// Why it was not accepted, with the message.
    pub error: SendError,
    /// The messages behind it.
    pub rest: Vec<Outgoing>,
}

impl fmt::Display for SendManyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (accepted, rest) = (self.receipts.len(), self.rest.len());
        write!(
            f,
            "{}; {accepted} messages before it were accepted, {rest} behind it were not sent",
            self.error
        )
    }
}

impl std::error::Error for SendManyError {}
