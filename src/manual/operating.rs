//! Guide: operating a node.
//!
//! # The log
//! By the `log` crate, with the target `unbroken`. `error`: a bug or lost data, or two processes with one
//! identity. `warn`: a peer misbehaved, or the system ran short. `info`: a link came or went, a peer
//! restarted, a lesson was learned. `debug`: each connection and each dial. Lines that a stranger can cause
//! are limited in number. `info` is right for production; `debug` for one node that you look at.
//!
//! A line about a peer begins with the first eight characters of its id (that about a refused one has all of
//! it), behind its label if the configuration has one ([`PeerConfig::label`](crate::PeerConfig::label)):
//! `tokyo-1 (6u7tccph): up`. A line at the start has the node's whole id and its addresses. Warnings at the
//! start name settings that do not go together.
//!
//! # What to watch
//! [`Node::snapshot`](crate::Node::snapshot) is a serde value; take it every few seconds and keep what your
//! monitoring can keep. It costs about a lock for each peer. With the feature `metrics` the module
//! `unbroken::metrics` takes it to the `metrics` facade, and so to Prometheus; `examples/metrics` has a
//! server of the text format and a dashboard for Grafana.
//!
//! | figure | alarm | why |
//! |---|---|---|
//! | [`NodeSnapshot::peers`](crate::NodeSnapshot::peers) whose [`state`](crate::PeerSnapshot::state) is `Up` | fewer than a quorum needs, for 5 s | below that no round ends; 5 s outlast a replacement and most restarts |
//! | a peer's [`state_age_ms`](crate::PeerSnapshot::state_age_ms) while it is `Down` or `Connecting` | more than a minute | it is away, or its address has changed: [`last_error`](crate::PeerSnapshot::last_error) says which |
//! | [`replacements`](crate::NodeSnapshot::replacements) | more than 10 a minute for several minutes | a path loses packets, or a middlebox closes connections; which one is in [`Event::Replacing`](crate::Event::Replacing) |
//! | [`LaneSnapshot::queued_bytes`](crate::LaneSnapshot::queued_bytes) | above half of the lane's queue | the peer takes less than it is sent; soon sends wait or are refused |
//! | [`inbox_bytes`](crate::NodeSnapshot::inbox_bytes) | above a quarter of [`Config::max_inbox`](crate::Config::max_inbox) | this application receives too slowly; above half strangers get no credit |
//! | [`expired_messages`](crate::LaneSnapshot::expired_messages), [`expired_on_arrival`](crate::LaneSnapshot::expired_on_arrival), [`dropped_messages`](crate::LaneSnapshot::dropped_messages) | they grow | votes that came too late, or a link that was given up |
//! | [`events_lost`](crate::NodeSnapshot::events_lost) | above 0 | the application does not take its events |
//! | [`refused`](crate::NodeSnapshot::refused), [`evicted`](crate::NodeSnapshot::evicted) | a jump | a crowd of strangers, or a wrong network name; [`Event::Refused`](crate::Event::Refused) says why |
//! | [`ConnSnapshot::rtt_ms`](crate::ConnSnapshot::rtt_ms), [`score`](crate::ConnSnapshot::score) | a score below 0.7 for minutes | below 0.4 the connection is replaced; in between the path is merely poor |
//!
//! ```
//! use unbroken::{LinkState, NodeSnapshot};
//!
//! /// One line for a log or a status page.
//! fn summary(snapshot: &NodeSnapshot) -> String {
//!     let up = snapshot.peers.iter().filter(|peer| peer.state == LinkState::Up).count();
//!     let worst = snapshot.peers.iter().map(|peer| peer.score).fold(1.0, f64::min);
//!     let expired: u64 =
//!         snapshot.peers.iter().flat_map(|peer| &peer.lanes).map(|lane| lane.expired_messages).sum();
//!     format!(
//!         "{up} of {} peers up, worst score {worst:.2}, {} KiB queued, {expired} expired",
//!         snapshot.peers.len(),
//!         snapshot.queued_bytes / 1024,
//!     )
//! }
//!
//! let node = unbroken::Node::builder().start()?;
//! assert_eq!(summary(&node.snapshot()), "0 of 0 peers up, worst score 1.00, 0 KiB queued, 0 expired");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Capacity
//! Measured on a virtual machine with two processors, 1,000 peers of one node, plaintext; `benches/README.md`
//! has how.
//!
//! | for each connection | |
//! |---|---|
//! | threads | 2, and 3 to 6 more for the node and each of its listening addresses |
//! | file descriptors | 1; raise `ulimit -n` above [`Config::max_connections`](crate::Config::max_connections) (4,000) |
//! | resident memory, idle | about 42 KiB in plaintext and 47 KiB encrypted where it was dialled, 39 and 44 where it was accepted; queues and inboxes come on top, and for a node that receives large messages memory that is used again, at most the sum of the lanes' windows (46 MiB by default), freed some seconds after |
//! | CPU time, idle | 1,000 of them: 0.2 to 0.5 % of a processor |
//! | a message of 64 B in a stream, to one peer | 0.3 to 0.6 us of both sides together |
//! | a vote after a pause, until its receipt | about 60 us of the sender's CPU time |
//!
//! Above some hundred peers a broadcast of one small message costs mostly the wake-ups of the threads: with
//! 1,000 peers the call takes 6 ms, and all receipts have come after 60 ms, when all of them run on the same
//! two processors.
//!
//! # Settings worth a thought
//! [`Config::consensus`](crate::Config::consensus), [`Config::wide_area`](crate::Config::wide_area) and
//! [`Config::local_test`](crate::Config::local_test) are starting points; `examples/node` has each as a file,
//! too: `consensus.toml`, `wide_area.toml`, and `local_test.toml` for tests by hand.
//!
//! - **A few important peers** (consensus): with [`PeerConfig::important`](crate::PeerConfig::important) a
//!   peer has [`Config::important_connections`](crate::Config::important_connections) (2) connections, over
//!   different addresses where it has several, so that votes go on while one connection is replaced.
//! - **A place for a peer that only dials this node**, from no known address:
//!   [`PeerConfig::inbound_only`](crate::PeerConfig::inbound_only), in a file its id alone. It has the rights
//!   of every configured peer, those places that
//!   [`AdmissionConfig::reserved`](crate::AdmissionConfig::reserved) (64) keeps from strangers among them: a
//!   node full of strangers still accepts it. At runtime: [`Node::add_peer`](crate::Node::add_peer).
//! - **Many peers over the open network**: [`Config::target_peers`](crate::Config::target_peers) with
//!   candidates ([`Node::learn`](crate::Node::learn)), and the limits of
//!   [`AdmissionConfig`](crate::AdmissionConfig).
//! - **Several addresses** on one machine: [`Config::outbound_addrs`](crate::Config::outbound_addrs) sets the
//!   local address of the connections that this node dials, one of IPv4 and one of IPv6;
//!   [`Config::outbound_interface`](crate::Config::outbound_interface) sets the interface on Linux, as for a
//!   VPN. Peers that list addresses ([`AdmissionConfig::allow_addresses`](crate::AdmissionConfig)) see this
//!   one. [`Config::listen`](crate::Config::listen) is for the other direction.
//! - **Peers that move**: give them by name. A name is looked up for each dial, and with
//!   [`Config::resolve_interval`](crate::Config::resolve_interval) (off by default; 60 s in
//!   [`Config::consensus`](crate::Config::consensus)) again while the link is up; a connection to an address
//!   that the name no longer stands for is replaced without a gap. So to move a node, let it listen at the
//!   new address, change the name, and stop the old listener two minutes after the time to live of the
//!   record.
//! - **A load balancer** in front of the node:
//!   [`Config::proxy_protocol_from`](crate::Config::proxy_protocol_from), see
//!   [`manual::behind_nat`](crate::manual::behind_nat).
//! - **Deadlines**: [`PathConfig`](crate::PathConfig) has each with its default and what too small and too
//!   large lead to. The defaults were tested from loopback to 16 kbit/s and 300 ms; change them for a reason.
//!
//! # After a start all peers come at once
//! A node that restarts in a large network is dialled by all of it within seconds. There is no setting for a
//! slow start, because admission bounds the work at any time:
//!
//! - At most [`Config::max_handshakes`](crate::Config::max_handshakes) (256) handshakes are under way, each
//!   with a thread of its own. A connection that comes then is refused
//!   ([`RefusedReason::Handshakes`](crate::RefusedReason::Handshakes)) before any cryptography, and dials
//!   again with a backoff that is random, 0.5 s at first
//!   ([`PathConfig::backoff_first`](crate::PathConfig::backoff_first)): so the crowd spreads by itself.
//!   Handshakes that stall for 1 s make room. On a small machine set `max_handshakes` lower.
//! - [`AdmissionConfig::connects_at_once`](crate::AdmissionConfig::connects_at_once) and
//!   [`connects_per_minute`](crate::AdmissionConfig::connects_per_minute) are a token bucket for each
//!   address. There is none for all addresses together: it would make peers wait that the node has room for.
//! - Named peers do not queue with the others: the node dials them itself from its first moment on, which no
//!   limit of handshakes holds up, and of the places for those that dial it
//!   [`AdmissionConfig::reserved`](crate::AdmissionConfig::reserved) are theirs. Before its handshake nobody
//!   knows who comes, so no order among those that are accepted can prefer them.
//!
//! # Why a connection was refused
//! Both sides are told, with the same [`RefusedReason`](crate::RefusedReason):
//!
//! | | the node that dialled | the node that refused |
//! |---|---|---|
//! | event | [`Event::DialFailed`](crate::Event::DialFailed), whose cause is [`EndCause::RefusedByPeer`](crate::EndCause::RefusedByPeer) | [`Event::Refused`](crate::Event::Refused) |
//! | on request | [`PeerSnapshot::last_error`](crate::PeerSnapshot::last_error); [`WaitError::Timeout`](crate::WaitError::Timeout) of a wait for the link | the count [`NodeSnapshot::refused`](crate::NodeSnapshot::refused) |
//! | log | `warn`, unless the last dial failed for the same reason: `PEER: dial ADDRESS failed: refused: REASON (by the peer)` | `info`, `warn` if the peer is configured: `refused PEER from ADDRESS: not admitted: REASON` |
//!
//! ```
//! use std::time::Duration;
//! use unbroken::{AdmitDecision, EndCause, Event, Node, RefusedReason, WaitError};
//!
//! let closed = Node::builder().listen("127.0.0.1:0".parse()?).admit(|_, _| AdmitDecision::Refuse).start()?;
//! let dialler = Node::builder().peer(closed.local_addrs()[0].to_string()).start()?;
//!
//! // The node that dialled.
//! let refused = dialler.events().find_map(|event| match event {
//!     Event::DialFailed { reason, .. } => Some(reason),
//!     _ => None,
//! });
//! let refused = refused.ok_or("the node has shut down")?;
//! let EndCause::RefusedByPeer { reason, .. } = &refused.cause else { return Err(refused.into()) };
//! assert_eq!((*reason, reason.is_temporary()), (RefusedReason::Application, false));
//! assert_eq!(dialler.peers()[0].last_error, Some(refused));
//!
//! // The node that refused.
//! let refusal = closed.events().find_map(|event| match event {
//!     Event::Refused { peer, why, .. } => Some((peer, why)),
//!     _ => None,
//! });
//! assert_eq!(refusal, Some((Some(dialler.id()), RefusedReason::Application)));
//!
//! // The same in words: "0 of 1 links came up in time; 127.0.0.1:4000: refused: the application refused it ..."
//! let error = dialler.wait_for_links(1, Duration::from_millis(1)).unwrap_err();
//! assert!(matches!(&error, WaitError::Timeout { failed, .. } if failed.len() == 1), "{error}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The two sides differ in these cases:
//!
//! - Another network, version or encryption: each side finds it by itself. The node that dialled has
//!   [`EndCause::Refused`](crate::EndCause::Refused) with a text that names the setting; the other one has
//!   [`RefusedReason::Incompatible`](crate::RefusedReason::Incompatible) without a peer.
//! - A denied or banned address: the connection is closed before the handshake, and the node that dialled has
//!   [`EndCause::Closed`](crate::EndCause::Closed) or [`EndCause::Io`](crate::EndCause::Io).
//! - [`AdmissionConfig::tell_strangers`](crate::AdmissionConfig::tell_strangers) is off: the same, for peers
//!   that are not named.
//! - The node that dialled refuses the peer that it found, because of a list or a ban of its own:
//!   [`EndCause::NotAdmitted`](crate::EndCause::NotAdmitted) or
//!   [`EndCause::Banned`](crate::EndCause::Banned).
//!
//! After a refusal that lasts until somebody changes something, as that of a ban or of another network, the
//! node that dialled waits for at least five times
//! [`PathConfig::backoff_first`](crate::PathConfig::backoff_first), 2.5 s by default, before it dials again,
//! also the first time. If the refusal names a time (`wait_secs`), this wait begins when that time is over,
//! or after [`PathConfig::backoff_max`](crate::PathConfig::backoff_max) if that is less. When the lists have
//! been corrected, [`Node::dial_now`](crate::Node::dial_now) ends the wait.
//!
//! # First questions
//! - *A peer does not link.* [`PeerSnapshot::last_error`](crate::PeerSnapshot::last_error) and
//!   [`Event::DialFailed`](crate::Event::DialFailed) say why: refused by the system (nobody listens), no
//!   answer (a firewall), a local address or interface that is not there (`bind`), another network or
//!   encryption, another identity than the one named, banned or full at the other side.
//! - *It links and is lost again and again.* [`Event::Disconnected`](crate::Event::Disconnected) says which
//!   side ended it and why. The same idle time before each end is a middlebox: the ping interval adapts by
//!   itself ([`Event::PingIntervalLearned`](crate::Event::PingIntervalLearned)).
//! - *Sends wait.* The lane's `queued_bytes` at the sender and `inbox_bytes` at the receiver tell the network
//!   from the application.
