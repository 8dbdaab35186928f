//! Sending, receiving and asking: the daily use of a node.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;

use super::event::Event;
use crate::clock;
use crate::codec::Codec;
use crate::config::{ConfigError, PeerConfig};
use crate::error::{ReplaceError, SendError, SendErrorKind};
use crate::id::PeerId;
use crate::lane::LaneId;
use crate::link::MAX_WAIT;
use crate::promise::Promise;
use crate::receipt::{Broadcast, Receipt};
use crate::roster::PeerRecord;

use super::Node;
use super::budget::Wait;
use super::lane_receiver::{EventReceiver, LaneReceiver};
use super::link::{Intent, LinkHandle};
use super::mailbox::{Closed, Reader};
use super::outgoing::{Outgoing, SendManyError, SendOrRecv, TypedError};
use super::peer_handle::PeerHandle;
use super::pending_reply::PendingReply;

impl Node {
    // --- sending --------------------------------------------------------------------------------

    /// Sends a message to a peer. Waits while the queue is full, as long as it takes. `Ok` means accepted:
    /// the receipt tells how it ends.
    ///
    /// A peer need not be connected: what is accepted waits for the link to come back.
    ///
    /// **Not from the thread that receives.** A queue has room again when the peer's application takes
    /// messages. If both applications send from the thread that also receives, both can wait here for the
    /// other one to receive, for ever: the same as two threads with two bounded channels between them.
    /// Receive on another thread, or send with [`Node::send_or_recv`], which receives while it waits,
    /// with [`Node::send_timeout`], or with [`Node::try_send`].
    ///
    /// # Errors
    /// The message comes back with the reason; see [`SendErrorKind`].
    pub fn send(&self, peer: PeerId, message: impl Into<Outgoing>) -> Result<Receipt, SendError> {
        self.send_with(peer, message.into(), Wait::Forever)
    }

    /// Like [`Node::send`], but gives up at once when the queue is full.
    ///
    /// # Errors
    /// The message comes back with the reason, [`SendErrorKind::Full`] among them.
    pub fn try_send(&self, peer: PeerId, message: impl Into<Outgoing>) -> Result<Receipt, SendError> {
        self.send_with(peer, message.into(), Wait::No)
    }

    /// Like [`Node::send`], but for a thread that also receives: while there is no room for the message it
    /// waits for the next event too, as [`Node::recv`] does, and returns whichever comes first, with the
    /// message if that is the event. Two nodes with one thread each that send by it cannot block each
    /// other.
    ///
    /// Room comes first if there is both. Each call takes its place behind the senders that wait already, and
    /// the time of [`Outgoing::expires_in`] counts from the last call.
    ///
    /// ```no_run
    /// # fn handle(_: unbroken::Event) {}
    /// # fn f(node: unbroken::Node, peer: unbroken::PeerId) -> Result<(), unbroken::SendError> {
    /// use unbroken::{NORMAL, Outgoing, SendOrRecv};
    ///
    /// let mut message = Outgoing::new(NORMAL, vec![0; 1 << 20]);
    /// let receipt = loop {
    ///     match node.send_or_recv(peer, message)? {
    ///         SendOrRecv::Sent(receipt) => break receipt,
    ///         SendOrRecv::Received { event, message: again } => {
    ///             handle(event);
    ///             message = again;
    ///         }
    ///     }
    /// };
    /// # drop(receipt); Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The message comes back with the reason; see [`SendErrorKind`].
    pub fn send_or_recv(&self, peer: PeerId, message: impl Into<Outgoing>) -> Result<SendOrRecv, SendError> {
        let (link, message) = self.link_to(peer, message.into())?;
        let again = message.clone();
        let mut received = None;
        let sent = link.send_waiting(message, Intent::Message, Wait::Forever, |turn| {
            match self.mailbox().wait_or(Reader::Everything, &turn.woken) {
                Ok(event) => {
                    received = event;
                    received.is_none()
                }
                // Nothing more will be received: the link is about to end, which wakes the turn.
                Err(Closed) => turn.wait(Wait::Forever),
            }
        });
        match (sent, received) {
            (Ok((receipt, _)), _) => Ok(SendOrRecv::Sent(receipt)),
            (Err(_), Some(event)) => Ok(SendOrRecv::Received { event, message: again }),
            (Err(error), None) => Err(error),
        }
    }

    /// Like [`Node::send`], but gives up when the queue stays full for `timeout`.
    ///
    /// # Errors
    /// The message comes back with the reason, [`SendErrorKind::Timeout`] among them.
    pub fn send_timeout(
        &self,
        peer: PeerId,
        message: impl Into<Outgoing>,
        timeout: Duration,
    ) -> Result<Receipt, SendError> {
        self.send_with(peer, message.into(), Wait::at_most(timeout))
    }

    /// Sends many messages to a peer, in order and for much less than a call for each. Waits while the queue
    /// is full, as [`Node::send`] does, and returns the receipts in the same order.
    ///
    /// ```
    /// use std::time::Duration;
    /// use unbroken::{NORMAL, Node};
    ///
    /// # let bob = Node::builder().listen("127.0.0.1:0".parse()?).start()?;
    /// # let alice = Node::builder().peer(bob.local_addrs()[0].to_string()).start()?;
    /// # alice.wait_linked(bob.id(), Duration::from_secs(30))?;
    /// let receipts = alice.send_many(bob.id(), (0..1000).map(|number: u32| (NORMAL, number.to_string())))?;
    /// assert_eq!(receipts.len(), 1000);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// For the first message that was not accepted. Those before it were: their receipts are in the error,
    /// and so are the messages behind it.
    pub fn send_many<M: Into<Outgoing>>(
        &self,
        peer: PeerId,
        messages: impl IntoIterator<Item = M>,
    ) -> Result<Vec<Receipt>, SendManyError> {
        self.peer_handle(peer).send_many(messages)
    }

    fn send_with(&self, peer: PeerId, message: Outgoing, wait: Wait) -> Result<Receipt, SendError> {
        let (link, message) = self.link_to(peer, message)?;
        link.send(message, Intent::Message, wait).map(|(receipt, _)| receipt)
    }

    /// Sends a message to every peer that is wanted or connected; disconnected peers that were never
    /// configured or added are skipped. The bytes are shared, not copied. [`Broadcast::wait_for`] waits
    /// for a quorum. This call never waits: a peer whose queue is full is in [`Broadcast::refused`] and
    /// delays nobody. A peer that was configured by address alone and has not answered yet is in
    /// [`Broadcast::unidentified`], and does not get the message.
    pub fn broadcast(&self, message: impl Into<Outgoing>) -> Broadcast {
        let core = &self.handle.core;
        // Before the links: who answers in between is told twice rather than not at all.
        let unidentified = core.roster.lock().unidentified();
        let mut broadcast = self.broadcast_over(core.links_in_use(), message.into());
        broadcast.set_unidentified(unidentified);
        broadcast
    }

    /// Sends a message to these peers, as [`Node::broadcast`] does.
    pub fn broadcast_to(&self, peers: &[PeerId], message: impl Into<Outgoing>) -> Broadcast {
        let core = &self.handle.core;
        // Each once: a peer that is named twice must not count twice for a quorum.
        let mut links: Vec<Arc<LinkHandle>> = Vec::with_capacity(peers.len());
        for link in peers.iter().filter_map(|peer| core.link(*peer)) {
            if links.iter().all(|other| other.peer != link.peer) {
                links.push(link);
            }
        }
        let unknown = peers.iter().filter(|peer| links.iter().all(|link| link.peer != **peer));
        let unknown: Vec<_> = unknown.map(|peer| (*peer, SendErrorKind::UnknownPeer(*peer))).collect();
        let mut broadcast = self.broadcast_over(links, message.into());
        broadcast.refuse(unknown);
        broadcast
    }

    fn broadcast_over(&self, links: Vec<Arc<LinkHandle>>, mut message: Outgoing) -> Broadcast {
        message.guard(&self.handle.core.shared.background);
        let (mut receipts, mut refused) = (Vec::with_capacity(links.len()), Vec::new());
        let call = self.handle.core.shared.fan_out.call();
        for link in links {
            let sent = self.check_open().and_then(|()| {
                let sent = link.send_one_of_many(message.lend(), |conn| call.see_to(&link, conn));
                sent.map_err(|error| error.kind().clone())
            });
            match sent {
                Ok(receipt) => receipts.push((link.peer, receipt)),
                Err(kind) => refused.push((link.peer, kind)),
            }
        }
        drop(call);
        self.handle.core.shared.background.drop_all(message.into_owned().into_iter().collect());
        Broadcast::new(receipts, refused)
    }

    /// Returns a handle for the calls that concern this peer alone. There need not be a link to it yet.
    pub fn peer_handle(&self, peer: PeerId) -> PeerHandle {
        PeerHandle::new(self.clone(), peer)
    }

    /// Asks a peer. The reply is waited for as long as
    /// [`Config::request_timeout`](crate::Config::request_timeout) says. Waits while the queue is
    /// full, within the same time.
    ///
    /// # Errors
    /// The request comes back with the reason.
    pub fn request(&self, peer: PeerId, request: impl Into<Outgoing>) -> Result<PendingReply, SendError> {
        self.request_timeout(peer, request, self.config().request_timeout)
    }

    /// Asks a peer. Waits at most `timeout` while the queue is full, and lets the peer know that the reply is
    /// waited for until `timeout` after the call.
    ///
    /// # Errors
    /// The request comes back with the reason. More than 60 s is [`SendErrorKind::RequestTimeoutTooLong`]:
    /// the peer would not keep the request open for longer.
    pub fn request_timeout(
        &self,
        peer: PeerId,
        request: impl Into<Outgoing>,
        timeout: Duration,
    ) -> Result<PendingReply, SendError> {
        let request = request.into();
        if timeout > MAX_WAIT {
            let kind = SendErrorKind::RequestTimeoutTooLong { timeout, max: MAX_WAIT };
            return Err(request.refused(kind));
        }
        let (link, request) = self.link_to(peer, request)?;
        let waiter = Promise::new();
        let intent = Intent::Request { by: clock::after(timeout), waiter: &waiter };
        let (receipt, id) = link.send(request, intent, Wait::at_most(timeout))?;
        Ok(PendingReply { link, id, waiter, receipt })
    }

    /// Asks a peer with a value and waits for a value, both encoded by [`Bincode`](crate::codec::Bincode);
    /// the other end uses [`Message::decode`](crate::Message::decode) and
    /// [`Message::reply_typed`](crate::Message::reply_typed). Waits as long as
    /// [`Config::request_timeout`](crate::Config::request_timeout) says.
    ///
    /// ```
    /// use std::time::Duration;
    /// use unbroken::{Event, NORMAL, Node};
    ///
    /// # let bob = Node::builder().listen("127.0.0.1:0".parse()?).start()?;
    /// # let alice = Node::builder().peer(bob.local_addrs()[0].to_string()).start()?;
    /// # alice.wait_linked(bob.id(), Duration::from_secs(30))?;
    /// # let server = bob.clone();
    /// std::thread::spawn(move || {
    ///     for event in server.events() {
    ///         if let Event::Message(mut message) = event
    ///             && let Ok((name, height)) = message.decode::<(String, u64)>()
    ///         {
    ///             message.reply_typed(&format!("{name} {height}")).expect("room in the queue");
    ///         }
    ///     }
    /// });
    /// let answer: String = alice.request_typed(bob.id(), NORMAL, &("block", 7_u64))?;
    /// assert_eq!(answer, "block 7");
    /// # bob.shutdown(Duration::ZERO);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Says which step failed.
    #[cfg(feature = "bincode")]
    pub fn request_typed<Q, A>(&self, peer: PeerId, lane: LaneId, request: &Q) -> Result<A, TypedError>
    where
        Q: serde::Serialize + ?Sized,
        A: serde::de::DeserializeOwned,
    {
        self.request_typed_timeout(peer, lane, request, self.config().request_timeout)
    }

    /// As [`Node::request_typed`], and waits for at most `timeout`, as [`Node::request_timeout`] does.
    ///
    /// ```
    /// use std::time::Duration;
    /// use unbroken::{NORMAL, Node, RequestError, TypedError};
    ///
    /// # let bob = Node::builder().listen("127.0.0.1:0".parse()?).start()?;
    /// # let alice = Node::builder().peer(bob.local_addrs()[0].to_string()).start()?;
    /// # alice.wait_linked(bob.id(), Duration::from_secs(30))?;
    /// // Bob's application does not answer.
    /// let patience = Duration::from_millis(100);
    /// let answer = alice.request_typed_timeout::<_, String>(bob.id(), NORMAL, "block 7", patience);
    /// assert!(matches!(answer, Err(TypedError::Request(RequestError::Timeout))));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Says which step failed.
    #[cfg(feature = "bincode")]
    pub fn request_typed_timeout<Q, A>(
        &self,
        peer: PeerId,
        lane: LaneId,
        request: &Q,
        timeout: Duration,
    ) -> Result<A, TypedError>
    where
        Q: serde::Serialize + ?Sized,
        A: serde::de::DeserializeOwned,
    {
        let reply = self.request_timeout(peer, Outgoing::typed(lane, request)?, timeout)?.wait()?;
        Ok(crate::codec::decode(&reply.into_bytes())?)
    }

    /// Asks a peer with a value and waits for a value, both encoded by `codec`; the other end uses
    /// [`Message::decode_with`](crate::Message::decode_with) and
    /// [`Message::reply_typed_with`](crate::Message::reply_typed_with). Waits as long as
    /// [`Config::request_timeout`](crate::Config::request_timeout) says.
    ///
    /// ```
    /// use std::time::Duration;
    /// use unbroken::codec::{Codec, CodecError};
    /// use unbroken::{NORMAL, Node};
    ///
    /// struct BigEndian;
    ///
    /// impl Codec<u64> for BigEndian {
    ///     fn encode(&self, number: &u64) -> Result<Vec<u8>, CodecError> {
    ///         Ok(number.to_be_bytes().to_vec())
    ///     }
    ///
    ///     fn decode(&self, bytes: &[u8]) -> Result<u64, CodecError> {
    ///         bytes.try_into().map(u64::from_be_bytes).map_err(CodecError::decode::<u64>)
    ///     }
    /// }
    ///
    /// # let bob = Node::builder().listen("127.0.0.1:0".parse()?).start()?;
    /// # let alice = Node::builder().peer(bob.local_addrs()[0].to_string()).start()?;
    /// # alice.wait_linked(bob.id(), Duration::from_secs(30))?;
    /// let requests = bob.lane_receiver(NORMAL).expect("a lane of every node");
    /// std::thread::spawn(move || {
    ///     for mut message in &requests {
    ///         if let Ok(number) = message.decode_with(&BigEndian) {
    ///             message.reply_typed_with(&BigEndian, &(number + 1)).expect("room in the queue");
    ///         }
    ///     }
    /// });
    /// let answer: u64 = alice.request_typed_with(&BigEndian, bob.id(), NORMAL, &41)?;
    /// assert_eq!(answer, 42);
    /// # bob.shutdown(Duration::ZERO);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// A codec that is written for single types and not for all of a framework implements [`Codec`] for the
    /// type of the request and for that of the reply.
    ///
    /// # Errors
    /// Says which step failed.
    pub fn request_typed_with<C, Q, A>(
        &self,
        codec: &C,
        peer: PeerId,
        lane: LaneId,
        request: &Q,
    ) -> Result<A, TypedError>
    where
        C: Codec<Q> + Codec<A>,
    {
        let reply = self.request(peer, Outgoing::typed_with(codec, lane, request)?)?.wait()?;
        Ok(reply.decode_with(codec)?)
    }

    fn link_to(&self, peer: PeerId, message: Outgoing) -> Result<(Arc<LinkHandle>, Outgoing), SendError> {
        let link = self
            .check_open()
            .and_then(|()| self.handle.core.link(peer).ok_or(SendErrorKind::UnknownPeer(peer)));
        match link {
            Ok(link) => Ok((link, message)),
            Err(kind) => Err(message.refused(kind)),
        }
    }

    pub(super) fn check_open(&self) -> Result<(), SendErrorKind> {
        if self.handle.core.is_closed() { Err(SendErrorKind::Closed) } else { Ok(()) }
    }

    // --- receiving ------------------------------------------------------------------------------

    /// Waits for the next event: messages, the most urgent lane first and peers in turn, and what happened to
    /// links.
    ///
    /// Events about named peers come in turn with messages. Events about strangers come when nothing else
    /// waits, or when they were passed over for 16 messages. So no number of events keeps an urgent
    /// message waiting. An event about a peer that came before its message is returned before that
    /// message.
    ///
    /// # Errors
    /// When the node shuts down.
    pub fn recv(&self) -> Result<Event, Closed> {
        loop {
            if let Some(event) = self.mailbox().wait(Reader::Everything, 1, None)?.pop() {
                return Ok(event);
            }
        }
    }

    /// All events as they come, until the node has shut down.
    pub fn events(&self) -> impl Iterator<Item = Event> + '_ {
        std::iter::from_fn(|| self.recv().ok())
    }

    /// Waits for the next event, at most for `timeout`. `None` when the time is over.
    ///
    /// # Errors
    /// When the node shuts down.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Option<Event>, Closed> {
        Ok(self.mailbox().wait(Reader::Everything, 1, clock::now().checked_add(timeout))?.pop())
    }

    /// The next event, if there is one.
    ///
    /// # Errors
    /// When the node shuts down.
    pub fn try_recv(&self) -> Result<Option<Event>, Closed> {
        Ok(self.mailbox().take(Reader::Everything, 1)?.pop())
    }

    /// Waits for at least one event, at most for `timeout`, and takes up to `max`: cheaper than one at a
    /// time. Empty when the time is over.
    ///
    /// # Errors
    /// When the node shuts down.
    pub fn recv_batch(&self, max: usize, timeout: Duration) -> Result<Vec<Event>, Closed> {
        self.mailbox().wait(Reader::Everything, max.max(1), clock::now().checked_add(timeout))
    }

    /// A channel that has a token when there may be events, for `crossbeam_channel::select!`. After the
    /// token was received, call [`Node::try_recv`] until it returns `None`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use unbroken::crossbeam_channel::{select, tick};
    /// use unbroken::{Event, Node, URGENT};
    ///
    /// # let bob = Node::builder().listen("127.0.0.1:0".parse()?).start()?;
    /// # let alice = Node::builder().peer(bob.local_addrs()[0].to_string()).start()?;
    /// # alice.wait_linked(bob.id(), Duration::from_secs(30))?;
    /// alice.send(bob.id(), (URGENT, "vote"))?;
    /// let rounds = tick(Duration::from_millis(200));
    /// let mut votes = 0;
    /// while votes == 0 {
    ///     select! {
    ///         recv(bob.ready()) -> _ => while let Some(event) = bob.try_recv()? {
    ///             if let Event::Message(message) = event {
    ///                 assert_eq!(message.into_bytes(), "vote");
    ///                 votes += 1;
    ///             }
    ///         },
    ///         recv(rounds) -> _ => println!("a round without a vote"),
    ///     }
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn ready(&self) -> &Receiver<()> {
        self.mailbox().ready(Reader::Everything)
    }

    /// A receiver for one lane alone, to put a thread of its own on it. `None` when there is no such
    /// lane, or it has a receiver already.
    pub fn lane_receiver(&self, lane: LaneId) -> Option<LaneReceiver> {
        let index = self.config().lanes.iter().position(|config| config.id == lane)?;
        let claimed = self.mailbox().claim(index);
        claimed.then(|| LaneReceiver { shared: Arc::clone(&self.handle.core.shared), lane, index })
    }

    /// A receiver for the events that are no messages, to handle them on a thread of their own. `None` when
    /// there is one already.
    pub fn event_receiver(&self) -> Option<EventReceiver> {
        let claimed = self.mailbox().claim_events();
        claimed.then(|| EventReceiver { shared: Arc::clone(&self.handle.core.shared) })
    }

    fn mailbox(&self) -> &super::mailbox::Mailbox {
        &self.handle.core.shared.mailbox
    }

    // --- peers ----------------------------------------------------------------------------------

    /// Keeps a link to one more peer, dialling it for ever. With [`PeerConfig::id`] messages to it are
    /// accepted from now on; without, who it is becomes known when it answers ([`Event::LinkUp`]).
    ///
    /// # Errors
    /// When the address or the settings cannot be right.
    pub fn add_peer(&self, peer: PeerConfig) -> Result<(), ConfigError> {
        peer.validate("peer")?;
        self.handle.core.want(peer);
        Ok(())
    }

    /// Peers that this node may be linked with, as `host:port` or [`PeerConfig`]. Candidates are dialled
    /// while the node is linked with fewer peers than
    /// [`Config::target_peers`](crate::Config::target_peers), those first that promise most; see
    /// [`Config::max_candidates`](crate::Config::max_candidates) for how many are remembered.
    ///
    /// Returns how many of them are new and remembered: those that are malformed, known already, or this
    /// node itself are not.
    pub fn learn<C: Into<PeerConfig>>(&self, candidates: impl IntoIterator<Item = C>) -> usize {
        let core = &self.handle.core;
        let now = clock::now();
        let new = candidates.into_iter().map(Into::into).filter(|candidate| {
            match candidate.validate("candidate") {
                // Locked for each: a long list does not hold up the monitor.
                Ok(()) => core.roster.lock().learn(candidate.clone(), now),
                Err(error) => {
                    log_line!(Debug, "not a candidate: {error}");
                    false
                }
            }
        });
        let new = new.count();
        core.shared.agenda.wake();
        new
    }

    /// The network is back: dials every wanted peer that is not linked now, whatever its backoff. The waits
    /// begin anew. A peer that asked this node to stay away is left alone until that time is over. For a
    /// program that hears of its machine's network, as from netlink on Linux.
    pub fn dial_now(&self) {
        let core = &self.handle.core;
        core.roster.lock().dial_now(clock::now());
        core.shared.agenda.wake();
    }

    /// Returns what this node knows of peers, to be kept for its next life
    /// ([`Builder::records`](crate::Builder::records)). Ask for it while the node runs.
    ///
    /// ```
    /// use unbroken::{Node, PeerRecord};
    ///
    /// let node = Node::builder().start()?;
    /// node.learn(["10.0.0.2:4000", "10.0.0.3:4000"]);
    /// let text = serde_json::to_string(&node.records())?;
    /// drop(node);
    ///
    /// let records: Vec<PeerRecord> = serde_json::from_str(&text)?;
    /// assert_eq!(records.len(), 2);
    /// let next_life = Node::builder().records(records).start()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn records(&self) -> Vec<PeerRecord> {
        let now = clock::now();
        self.handle.core.update_scores(now);
        self.handle.core.roster.lock().records(now)
    }

    /// Asks a peer on each of its connections whether it answers, now and not only when
    /// [`PathConfig::ping_interval`](crate::PathConfig::ping_interval) is over. Returns how many connections
    /// those are; one that owes an answer to an earlier ping is not asked again. The answers count as those
    /// to any ping: they show in [`ConnSnapshot::rtt_ms`](crate::ConnSnapshot::rtt_ms), and a connection
    /// that does not answer becomes suspect.
    pub fn ping(&self, peer: PeerId) -> usize {
        self.handle.core.ping(peer)
    }

    /// Replaces the connections to a peer while they serve, without a gap: each gets a successor and is
    /// drained when that has taken over. For when the application knows that a path is about to change.
    /// [`Config::max_replacements_per_minute`](crate::Config::max_replacements_per_minute) applies. Returns
    /// how many connections that are.
    ///
    /// # Errors
    /// When there is nothing to replace, or no address to dial.
    pub fn replace(&self, peer: PeerId) -> Result<usize, ReplaceError> {
        self.handle.core.replace(peer)
    }

    /// Removes a peer: it is not dialled any longer, its connections are ended with a goodbye that asks it
    /// not to dial, and everything under way to it ends as dropped. False when it is not known.
    pub fn remove_peer(&self, peer: PeerId) -> bool {
        let core = &self.handle.core;
        core.roster.lock().remove(peer, clock::now());
        core.remove_named(&[peer]) > 0
    }

    /// Removes an address that was configured or added, whether anybody ever answered there or not; with
    /// it the peer behind it, if it is wanted by no other address. False when it is not known.
    pub fn remove_address(&self, address: &str) -> bool {
        let core = &self.handle.core;
        let removed = core.roster.lock().remove_address(address);
        core.remove_named(removed.as_deref().unwrap_or_default());
        removed.is_some()
    }
}
