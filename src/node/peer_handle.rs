//! One peer of a node.

use std::time::Duration;

use super::outgoing::{Outgoing, PendingReply};
use super::snapshot::PeerSnapshot;
use super::{LinkState, Node};
use crate::error::SendError;
use crate::id::PeerId;
use crate::receipt::Receipt;

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
#[derive(Clone, Debug)]
pub struct PeerHandle {
    node: Node,
    peer: PeerId,
}

impl PeerHandle {
    pub(super) fn new(node: Node, peer: PeerId) -> Self {
        PeerHandle { node, peer }
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
        self.node.send(self.peer, message)
    }

    /// As [`Node::try_send`].
    ///
    /// # Errors
    /// Those of [`Node::try_send`].
    pub fn try_send(&self, message: impl Into<Outgoing>) -> Result<Receipt, SendError> {
        self.node.try_send(self.peer, message)
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
        self.node.send_timeout(self.peer, message, timeout)
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

    /// Returns whether the link is up. `None` if there is no link to the peer.
    pub fn state(&self) -> Option<LinkState> {
        self.snapshot().map(|snapshot| snapshot.state)
    }

    /// As [`Node::peer`].
    pub fn snapshot(&self) -> Option<PeerSnapshot> {
        self.node.peer(self.peer)
    }
}
