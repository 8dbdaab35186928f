//! Guide: choosing lanes and sizes.
//!
//! # The three lanes that are there
//!
//! | lane | for | largest message | window | queue | priority |
//! |---|---|---|---|---|---|
//! | [`URGENT`](crate::URGENT) | votes, proposals, evidence | 1 MiB | 4 MiB | 8 MiB | before the others |
//! | [`NORMAL`](crate::NORMAL) | transactions, requests | 4 MiB | 8 MiB | 16 MiB | weight 4 |
//! | [`BULK`](crate::BULK) | blocks, synchronisation | 32 MiB | 34 MiB | 64 MiB | weight 1 |
//!
//! Messages of one lane arrive in the order in which they were sent; there is no order between lanes. A lane
//! that is full, because its receiver takes nothing, stops no other lane. So put two kinds of messages on two
//! lanes if one must not wait for the other, and on one lane if their order matters.
//!
//! Messages of lanes that are not urgent gather for a moment when they come faster than they are written: up
//! to 0.1 ms, and up to 2 ms in a stream to many peers, unless 64 KiB wait. One message alone, and one of an
//! urgent lane, is written at once.
//!
//! # A lane of one's own
//! Nodes that exchange messages on a lane both need one with its id; limits may differ, and the receiver's
//! bind the sender. A peer without the lane ends messages on it as
//! [`DropReason::LaneRefused`](crate::DropReason::LaneRefused).
//!
//! ```
//! use std::time::Duration;
//! use unbroken::{AckMode, LaneConfig, LaneId, Node, Priority};
//!
//! const GOSSIP: LaneId = LaneId(7);
//!
//! let builder = || {
//!     Node::builder().lane(LaneConfig {
//!         id: GOSSIP,
//!         priority: Priority::Weighted(2),
//!         max_message: 64 * 1024,
//!         window: 1024 * 1024,
//!         // The receipt ends when the message was processed, not when it was received.
//!         ack_mode: AckMode::Done,
//!         ..LaneConfig::default()
//!     })
//! };
//! let bob = builder().listen("127.0.0.1:0".parse()?).start()?;
//! let alice = builder().peer(bob.local_addrs()[0].to_string()).start()?;
//! alice.wait_linked(bob.id(), Duration::from_secs(30))?;
//!
//! let receipt = alice.send(bob.id(), (GOSSIP, "peers: 12"))?;
//! let gossip = bob.lane_receiver(GOSSIP).expect("no other receiver of this lane");
//! let message = gossip.recv()?;
//! assert_eq!(receipt.poll(), None, "received, and not processed");
//! drop(message);
//! receipt.wait();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Sizes
//! - **[`max_message`](crate::LaneConfig::max_message)**: the largest message, of both sides the smaller. A
//!   send above one's own is refused at once; above the peer's it ends as
//!   [`DropReason::TooLargeForPeer`](crate::DropReason::TooLargeForPeer).
//! - **[`window`](crate::LaneConfig::window)**: the bytes that a peer may have under way to this node or in
//!   its inbox. The throughput of a lane is at most one window in a round trip: 8 MiB at 100 ms are 80 MiB/s.
//!   A receiver that does not take costs one window of memory for each peer and lane;
//!   [`Config::max_inbox`](crate::Config::max_inbox) bounds the sum.
//! - **[`queue`](crate::LaneConfig::queue)**: the bytes that wait at the sender until the peer's application
//!   has taken them. It is what an outage costs: at 100 KiB/s of votes and blocks for a peer, 16 MiB are
//!   almost three minutes. [`Config::max_queued`](crate::Config::max_queued) bounds the sum over all peers.
//! - **[`max_untaken`](crate::LaneConfig::max_untaken)**: bounds the cost of very small messages, about 120
//!   bytes each.
//!
//! Large messages need no cutting: they are sent in chunks, and an urgent message goes between two of them.
//! Cut what need not be whole: a receiver gets a message when its last byte has come.
//!
//! # Messages that are worthless later
//! [`Outgoing::expires_in`](crate::Outgoing::expires_in) drops a message that was not begun in time, so that
//! a peer that was away gets the votes of this round and not those of the last hundred. The time travels with
//! the message: if a path stalls, or the peer's application is slow, the peer drops what is stale when its
//! application would take it. Both sides count such messages, and the receipt ends as
//! [`Outcome::Expired`](crate::Outcome::Expired), so that it counts for no quorum:
//!
//! ```
//! use std::time::Duration;
//! use unbroken::{Identity, Node, Outcome, Outgoing, URGENT};
//!
//! let bob = Node::builder().listen("127.0.0.1:0".parse()?).start()?;
//! let carol = Identity::generate()?.peer_id(); // She is away.
//! let alice = Node::builder()
//!     .peer(format!("{}@{}", bob.id(), bob.local_addrs()[0]))
//!     .peer(format!("{carol}@127.0.0.1:1"))
//!     .start()?;
//! alice.wait_linked(bob.id(), Duration::from_secs(30))?;
//!
//! let time = Duration::from_secs(2);
//! let vote = Outgoing::new(URGENT, "round 12: yes").expires_in(time);
//! let to_bob = alice.send(bob.id(), vote.clone())?;
//! let to_carol = alice.send(carol, vote)?;
//!
//! // Alice's side: never sent, and dropped when the time is over.
//! assert_eq!(to_carol.wait(), Outcome::Expired);
//!
//! // Bob's side: sent, but his application comes to it too late. It gets the next vote.
//! to_bob.wait_timeout(time / 10);
//! alice.send(bob.id(), (URGENT, "round 13: no"))?;
//! let votes = bob.lane_receiver(URGENT).expect("no other receiver of this lane");
//! assert_eq!(votes.recv()?.into_bytes(), "round 13: no");
//! assert_eq!(to_bob.wait(), Outcome::Expired);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A receipt can be open for longer than that time: once the first byte was sent it ends when the peer's
//! application comes to the message, or with the link. So wait with a timeout of your own, as
//! [`Broadcast::wait_for`](crate::Broadcast::wait_for) does.
//!
//! # Votes beside blocks
//! Send votes on [`URGENT`](crate::URGENT) and blocks on [`BULK`](crate::BULK), or on lanes of your own with
//! such priorities. No other setting is needed:
//!
//! - On the way a vote waits for at most one chunk of a block and what the kernel holds, which the node keeps
//!   at 10 ms worth of a fast path and 125 ms worth of a slow one
//!   ([`PathConfig::max_chunk`](crate::PathConfig::max_chunk)).
//! - A block that the peer's application does not take holds up other blocks and no vote.
//! - With [`PeerConfig::important`](crate::PeerConfig::important) votes have a connection of their own
//!   (below).
//! - In the application a vote waits for the block that is being processed, unless each lane has a thread of
//!   its own: [`Node::lane_receiver`](crate::Node::lane_receiver).
//!
//! ```
//! use std::time::Duration;
//! use unbroken::bytes::Bytes;
//! use unbroken::{BULK, Node, Outcome, PeerConfig, URGENT};
//!
//! let bob = Node::builder().listen("127.0.0.1:0".parse()?).start()?;
//! let address = bob.local_addrs()[0].to_string();
//! let alice =
//!     Node::builder().peer_config(PeerConfig { important: true, ..PeerConfig::new(address) }).start()?;
//! alice.wait_linked(bob.id(), Duration::from_secs(30))?;
//!
//! // More blocks than the lane accepts, and nobody takes them.
//! let block = Bytes::from(vec![7; 16 << 20]);
//! while alice.try_send(bob.id(), (BULK, block.clone())).is_ok() {}
//!
//! let votes = bob.lane_receiver(URGENT).expect("no other receiver of this lane");
//! let vote = alice.send(bob.id(), (URGENT, "round 12: yes"))?;
//! assert_eq!(votes.recv()?.into_bytes(), "round 12: yes");
//! assert_eq!(vote.wait(), Outcome::Taken);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Messages of which only the newest matters
//! Status that is sent again and again is worth nothing when a newer one waits behind it. A lane with
//! [`WhenFull::DropOldest`](crate::WhenFull::DropOldest) drops the oldest messages that have not begun to be
//! sent when its queue to a peer is full, so a send to a slow or absent peer neither waits nor fails:
//!
//! ```
//! use unbroken::{Identity, LaneConfig, LaneId, Node, Outcome, PeerConfig, WhenFull};
//!
//! const STATUS: LaneId = LaneId(8);
//!
//! # let absent = Identity::generate()?.peer_id();
//! let node = Node::builder()
//!     .lane(LaneConfig {
//!         id: STATUS,
//!         max_message: 4 * 1024,
//!         queue: 64 * 1024,
//!         when_full: WhenFull::DropOldest,
//!         ..LaneConfig::default()
//!     })
//!     .peer_config(PeerConfig::inbound_only(absent))
//!     .start()?;
//! let receipts: Vec<_> = (0..1000u32)
//!     .map(|height| node.try_send(absent, (STATUS, height.to_le_bytes().to_vec())))
//!     .collect::<Result<_, _>>()?;
//! // The first ones have made room, and say so; the last ones wait.
//! let displaced = receipts.iter().take_while(|receipt| receipt.poll().is_some()).count();
//! assert!(displaced > 500 && receipts[displaced..].iter().all(|receipt| receipt.poll().is_none()));
//! assert_eq!(receipts[0].wait().to_string(), "dropped: newer messages took its place in the full queue");
//! # node.shutdown(std::time::Duration::ZERO);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The receipt of a dropped message ends as [`DropReason::Displaced`](crate::DropReason::Displaced): the peer
//! has not seen it, and it counts for no quorum.
//! [`LaneSnapshot::displaced_messages`](crate::LaneSnapshot::displaced_messages) counts them. What has begun
//! to be sent is never dropped, and takes half of the queue at most; so the queue must hold two of the
//! largest messages. The smaller the queue, the newer what a slow peer gets. Use such a lane for nothing
//! else: requests and replies are dropped like other messages.
//!
//! # Which connection carries a lane
//! With more than one connection to a peer ([`Config::connections`](crate::Config::connections),
//! [`PeerConfig::important`](crate::PeerConfig::important)) each lane has a home: urgent ones the first,
//! those of weight 1 the second, others the third; in a smaller pool they share. When a connection is in
//! trouble its lanes move at once. So votes do not share the queue of a kernel with blocks.
//! [`LaneConfig::slot`](crate::LaneConfig::slot) chooses another home.
//!
//! # How full they are
//! [`LaneSnapshot`](crate::LaneSnapshot) of each peer: messages queued, in the inbox, taken, expired,
//! dropped and displaced. A queue that grows for minutes is a peer that takes less than it is sent; an inbox
//! that grows is this application.
