//! Guide: restart, upgrade and recovery.
//!
//! # What a process remembers, and what it does not
//! A link outlives its connections, and ends with the process: queues, inboxes and the numbers that make
//! delivery exactly once are in memory. When a process ends, the messages that its peers had not taken are
//! gone with it. When it starts again with the same identity it is another *incarnation* of the same peer.
//!
//! | the process that | its messages under way | the peer's messages under way to it |
//! |---|---|---|
//! | loses its connections | arrive, each once | arrive, each once |
//! | restarts | are gone: send again what your application knows to be open | arrive at the new incarnation: those that its application had not taken |
//! | is away for longer than [`Config::resumption`](crate::Config::resumption) (1 hour) | end as [`DropReason::ResumptionExpired`](crate::DropReason::ResumptionExpired) | the same at the peer |
//!
//! Both sides are told: the peer by [`Event::PeerRestarted`](crate::Event::PeerRestarted), with the number of
//! messages that it sends again, and the new incarnation by [`Event::Repeated`](crate::Event::Repeated): so
//! many messages may have been processed by the earlier one. An application that must process each message
//! once over restarts keeps a number of its own in its messages, and skips those that it has processed.
//!
//! # What to keep on disk
//! - **The identity**: [`Builder::identity_file`](crate::Builder::identity_file) makes the file at the first
//!   start, readable by its owner alone. Without it every start is a new peer.
//! - **What was learned of peers**: [`Node::records`](crate::Node::records), given to
//!   [`Builder::records`](crate::Builder::records): addresses that worked, scores, ping intervals that paths
//!   need. Save them from time to time and before the end; they are serde values. For a peer that is
//!   configured its record is found by its address. The others are candidates: the next life dials them only
//!   as long as it has fewer links than [`Config::target_peers`](crate::Config::target_peers), which is 0 by
//!   default. A record is also a [`PeerConfig`](crate::PeerConfig), by `into()`, for peers to be dialled
//!   whatever happens.
//! - **Peers that were added while it ran** ([`Node::add_peer`](crate::Node::add_peer)), if the next life
//!   shall dial them whatever happens. They are the [`addresses`](crate::PeerSnapshot::addresses) of
//!   [`Node::peers`](crate::Node::peers) that are [`wanted`](crate::PeerSnapshot::wanted), configured ones
//!   among them. [`Builder::peer`](crate::Builder::peer) takes them.
//! - **Bans**, if they shall outlast the process: [`Node::bans`](crate::Node::bans) and
//!   [`Node::restore_bans`](crate::Node::restore_bans).
//!
//! ```
//! use std::time::Duration;
//! use unbroken::{Node, PeerRecord};
//!
//! # let home = std::env::temp_dir().join(format!("unbroken-guide-{}", std::process::id()));
//! # std::fs::create_dir_all(&home)?;
//! let start = || -> Result<Node, Box<dyn std::error::Error>> {
//!     let records: Vec<PeerRecord> = match std::fs::read(home.join("peers.json")) {
//!         Ok(text) => serde_json::from_slice(&text)?,
//!         Err(_) => Vec::new(),
//!     };
//!     Ok(Node::builder()
//!         .identity_file(home.join("node.key"))
//!         .records(records)
//!         // Without it the records are kept and nobody is dialled for them.
//!         .configure(|config| config.target_peers = 8)
//!         .start()?)
//! };
//! let seed = Node::builder().listen("127.0.0.1:0".parse()?).start()?;
//!
//! let node = start()?;
//! let (id, first) = (node.id(), node.incarnation());
//! node.learn([seed.local_addrs()[0].to_string()]);
//! node.wait_linked(seed.id(), Duration::from_secs(30))?;
//! std::fs::write(home.join("peers.json"), serde_json::to_vec(&node.records())?)?;
//! node.shutdown(Duration::from_secs(1));
//! drop(node);
//!
//! // The next life is told no address.
//! let node = start()?;
//! assert_eq!(node.id(), id);
//! assert_ne!(node.incarnation(), first);
//! node.wait_linked(seed.id(), Duration::from_secs(30))?;
//! # std::fs::remove_dir_all(&home)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The end of a process
//! [`Node::shutdown`](crate::Node::shutdown) with a grace: what was accepted still goes out, for at most that
//! time, then GOAWAY on every connection, so that peers know at once and do not redial at once. A process
//! that is killed does no harm: its peers see a reset or an end of the stream, dial again, and get a refusal
//! until it listens again.
//!
//! Two processes with one identity at the same time are an error of operation: each peer that the
//! first is linked with refuses the second one. The peer has [`Event::Refused`](crate::Event::Refused) with
//! [`RefusedReason::IdentityInUse`](crate::RefusedReason::IdentityInUse), the second process
//! [`Event::DialFailed`](crate::Event::DialFailed), and both write it to the log at level `error`, the second
//! process once for each peer. The first process is told nothing. End the old process before the new one
//! starts.
//!
//! # Upgrades, one node after the other
//! Versions of the protocol are negotiated: two nodes speak the highest version that both know, and
//! [`manual::protocol`](super::protocol) says what a later version may add without a new number. So upgrade
//! one node at a time, with `shutdown` before and a check after:
//! [`Node::wait_for_links`](crate::Node::wait_for_links) until the links that a quorum needs are back.
//!
//! # After an outage
//! Nothing is to be done: links come back by themselves, a peer that was away for time t is dialled no later
//! than 2t after it went away. A program that hears that the network is back need not wait for that:
//! [`Node::dial_now`](crate::Node::dial_now). The state of each peer, with its next dial and the last error,
//! is in [`Node::snapshot`](crate::Node::snapshot).
