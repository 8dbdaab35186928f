//! One peer of a node.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::budget::Wait;
use super::link::{Intent, LinkHandle};
use super::outgoing::{Outgoing, SendManyError, TypedError};
use super::pending_reply::PendingReply;
use super::snapshot::PeerSnapshot;
use super::{LinkState, Node};
use crate::codec::Codec;
use crate::error::{SendError, SendErrorKind};
use crate::id::PeerId;
use crate::lane::LaneId;
use crate::receipt::Receipt;

/// So many messages are accepted under one lock.
const RUN: usize = 128;

/// A node and one of its peers: the calls of [`Node`] that concern a peer, without naming it each time. Made
/// by [`Node::peer_handle`].
///
/// It is also a clone of the node: as long as it is there, the node does not shut down by itself.
///
/// ```
/// use std::time::Duration;
/// use unbroken::{Event, LinkState, NORMAL, Node};
///
/// let bob = Node::builder().listen("127.0.0.1:0".parse()?).start()?;
/// let address = bob.local_addrs()[0].to_string();
/// let alice = Node::builder().peer(address).start()?;
/// alice.wait_linked(bob.id(), Duration::from_secs(30))?;
///
/// let to_bob = alice.peer_handle(bob.id());
/// assert_eq!(to_bob.state(), Some(LinkState::Up));
/// to_bob.send((NORMAL, "hello"))?;
/// let message = bob.events().find_map(|event| match event {
///     Event::Message(message) => Some(message.into_bytes()),
///     _ => None,
/// });
/// assert_eq!(message.as_deref(), Some(&b"hello"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PeerHandle {
    node: Node,
    peer: PeerId,
    /// The first link, so that it is not looked up for each message: most handles never see another one.
    /// When it has ended the others are looked up.
    first: OnceLock<Arc<LinkHandle>>,
}

impl PeerHandle {
    pub(super) fn new(node: Node, peer: PeerId) -> Self {
        let first = node.handle.core.link(peer).map_or_else(OnceLock::new, OnceLock::from);
        PeerHandle { node, peer, first }
    }

    /// Returns the link to send by.
    ///
    /// # Errors
    /// When the node shuts down, or does not know the peer.
    fn link(&self) -> Result<Cow<'_, Arc<LinkHandle>>, SendErrorKind> {
        self.node.check_open()?;
        if let Some(link) = self.first.get().filter(|link| !link.is_ended()) {
            return Ok(Cow::Borrowed(link));
        }
        let link = self.node.handle.core.link(self.peer).ok_or(SendErrorKind::UnknownPeer(self.peer))?;
        let _ = self.first.set(Arc::clone(&link));
        Ok(Cow::Owned(link))
    }

    fn send_with(&self, message: Outgoing, wait: Wait) -> Result<Receipt, SendError> {
        match self.link() {
            Ok(link) => link.send(message, Intent::Message, wait).map(|(receipt, _)| receipt),
            Err(kind) => Err(message.refused(kind)),
        }
    }

    /// The peer.
    pub fn id(&self) -> PeerId {
        self.peer
    }

    /// The node.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// As [`Node::send`].
    ///
    /// # Errors
    /// Those of [`Node::send`].
    pub fn send(&self, message: impl Into<Outgoing>) -> Result<Receipt, SendError> {
        self.send_with(message.into(), Wait::Forever)
    }

    /// As [`Node::try_send`].
    ///
    /// # Errors
    /// Those of [`Node::try_send`].
    pub fn try_send(&self, message: impl Into<Outgoing>) -> Result<Receipt, SendError> {
        self.send_with(message.into(), Wait::No)
    }

    /// As [`Node::send_timeout`].
    ///
    /// # Errors
    /// Those of [`Node::send_timeout`].
    pub fn send_timeout(
        &self,
        message: impl Into<Outgoing>,
        timeout: Duration,
    ) -> Result<Receipt, SendError> {
        self.send_with(message.into(), Wait::at_most(timeout))
    }

    /// As [`Node::send_many`].
    ///
    /// # Errors
    /// Those of [`Node::send_many`].
    pub fn send_many<M: Into<Outgoing>>(
        &self,
        messages: impl IntoIterator<Item = M>,
    ) -> Result<Vec<Receipt>, SendManyError> {
        let mut messages = messages.into_iter().map(Into::into);
        let (mut receipts, mut run) = (Vec::new(), VecDeque::with_capacity(RUN));
        loop {
            // Made without the lock: this is code of the application.
            run.extend(messages.by_ref().take(RUN));
            if run.is_empty() {
                return Ok(receipts);
            }
            receipts.reserve(run.len());
            if let Ok(link) = self.link() {
                link.send_run(&mut run, &mut receipts);
            }
            // This one has to wait, or cannot be accepted.
            if let Some(message) = run.pop_front() {
                match self.send_with(message, Wait::Forever) {
                    Ok(receipt) => receipts.push(receipt),
                    Err(error) => {
                        return Err(SendManyError {
                            receipts,
                            error,
                            rest: run.into_iter().chain(messages).collect(),
                        });
                    }
                }
            }
        }
    }

    /// As [`Node::request`].
    ///
    /// # Errors
    /// Those of [`Node::request`].
    pub fn request(&self, request: impl Into<Outgoing>) -> Result<PendingReply, SendError> {
        self.node.request(self.peer, request)
    }

    /// As [`Node::request_timeout`].
    ///
    /// # Errors
    /// Those of [`Node::request_timeout`].
    pub fn request_timeout(
        &self,
        request: impl Into<Outgoing>,
        timeout: Duration,
    ) -> Result<PendingReply, SendError> {
        self.node.request_timeout(self.peer, request, timeout)
    }

    /// As [`Node::request_typed`].
    ///
    /// # Errors
    /// Those of [`Node::request_typed`].
    #[cfg(feature = "bincode")]
    pub fn request_typed<Q, A>(&self, lane: LaneId, request: &Q) -> Result<A, TypedError>
    where
        Q: serde::Serialize + ?Sized,
        A: serde::de::DeserializeOwned,
    {
        self.node.request_typed(self.peer, lane, request)
    }

    /// As [`Node::request_typed_timeout`].
    ///
    /// # Errors
    /// Those of [`Node::request_typed`].
    #[cfg(feature = "bincode")]
    pub fn request_typed_timeout<Q, A>(
        &self,
        lane: LaneId,
        request: &Q,
        timeout: Duration,
    ) -> Result<A, TypedError>
    where
        Q: serde::Serialize + ?Sized,
        A: serde::de::DeserializeOwned,
    {
        self.node.request_typed_timeout(self.peer, lane, request, timeout)
    }

    /// As [`Node::request_typed_with`].
    ///
    /// # Errors
    /// Those of [`Node::request_typed_with`].
    pub fn request_typed_with<C, Q, A>(&self, codec: &C, lane: LaneId, request: &Q) -> Result<A, TypedError>
    where
        C: Codec<Q> + Codec<A>,
    {
        self.node.request_typed_with(codec, self.peer, lane, request)
    }

    /// Returns whether the link is up. `None` if there is no link to the peer.
    pub fn state(&self) -> Option<LinkState> {
        self.snapshot().map(|snapshot| snapshot.state)
    }

    /// As [`Node::peer`].
    pub fn snapshot(&self) -> Option<PeerSnapshot> {
        self.node.peer(self.peer)
    }
}

impl Clone for PeerHandle {
    fn clone(&self) -> Self {
        PeerHandle { node: self.node.clone(), peer: self.peer, first: self.first.clone() }
    }
}
