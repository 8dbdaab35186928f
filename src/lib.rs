//! Keeps the connections between the nodes of a peer-to-peer network working, with plain threads.
//!
//! A message that [`Node::send`] has accepted arrives exactly once and in order on its lane, whatever
//! happens to the TCP connections beneath: reset, silent black hole, frozen peer, forgetful NAT,
//! replacement in mid-message. Its [`Receipt`] says how it ended.
//!
//! ```
//! use std::time::Duration;
//!
//! use unbroken::{Node, URGENT};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let alice = Node::builder().listen("127.0.0.1:0".parse()?).start()?;
//! let address = alice.local_addrs().first().ok_or("nobody listens")?.to_string();
//! let bob = Node::builder().peer(address).start()?;
//!
//! bob.wait_linked(alice.id(), Duration::from_secs(10))?;
//! // Whatever happens to the connection from here on, the greeting arrives, and once.
//! let receipt = bob.send(alice.id(), (URGENT, "hello, Alice"))?;
//!
//! let greeting = alice.lane_receiver(URGENT).ok_or("no urgent lane")?.recv()?.into_bytes();
//! println!("Alice heard {greeting:?}; Bob's receipt says: {}", receipt.wait()); // taken
//! # Ok(())
//! # }
//! ```
//!
//! # Words
//! - A **node** ([`Node`]) is this process: its [`Identity`], its listeners, its links.
//! - A **peer** is another node, named by its [`PeerId`].
//! - A **link** is the conversation with one peer. It outlives connections, of which it has none, or up to
//!   three, and for a while their successors.
//! - A **lane** ([`LaneConfig`]) is an ordered stream of messages within a link, with its own priority, queue
//!   and credit: [`URGENT`], [`NORMAL`], [`BULK`], or your own. A lane that is full stops no other.
//! - A **receipt** ([`Receipt`]) is what a send returns; a [`Broadcast`] holds many, to wait on for a quorum.
//! - An **incarnation** ([`Incarnation`]) is one life of a node: it tells a restart from a reconnect.
//!
//! # What is guaranteed, and what is not
//! - While both processes live, every accepted message arrives exactly once, in order on its lane. Between
//!   lanes there is no order: that is what lanes are for.
//! - If the receiving process restarts, what its application had not taken is sent again to its new life,
//!   from the start of each message ([`Event::PeerRestarted`]). So across a restart of the receiver a message
//!   can be seen by two lives. If the sending process dies, what it had queued dies with it: nothing is
//!   written to disk.
//! - Every accepted message has a receipt that ends in exactly one way ([`Outcome`]). A refused one comes
//!   back ([`SendError::into_outgoing`]).
//! - A message that is worthless after some time, as a vote is ([`Outgoing::expires_in`]), is dropped when
//!   that is over, by this side or by the peer, and its receipt ends as [`Outcome::Expired`].
//! - After [`Config::resumption`] without any connection a link ends: receipts end as dropped and
//!   [`Event::Lost`] tells.
//! - Connections are encrypted, and each side proves that it holds the secret of its [`PeerId`], unless
//!   [`Config::encryption`] says plaintext. Anybody with a key of his own may connect: which names to trust
//!   is for the application to say; a peer given as `id@host:port` can be nobody else. How much is said, and
//!   when, can be seen on the path. The capabilities of an attacker: [`manual::threat_model`].
//!
//! # How to
//! Each entry but the last two leads to an example that is compiled and, where it can be, run.
//!
//! | task | see |
//! |---|---|
//! | receive messages and events, on one thread or on several | [`manual::event_loop`] |
//! | send serde values, or values in a format of your own | [`codec`] |
//! | ask a peer and wait for its answer | [`Node::request`], [`Message::reply`] |
//! | wait for 3 of 4 acknowledgements of a broadcast | [`Broadcast`]; by stake: [`Broadcast::wait_for_weight`] |
//! | send a vote that is worthless after 2 s, on both sides | [`Outgoing::expires_in`], [example](manual::lanes_and_sizes#messages-that-are-worthless-later) |
//! | keep big blocks from delaying votes | [`URGENT`] and [`BULK`], [example](manual::lanes_and_sizes#votes-beside-blocks) |
//! | decide who may connect | [`Builder::admit`], [`AdmissionConfig`] |
//! | see why a peer was refused, on both sides | [`Event::DialFailed`] and [`Event::Refused`], [example](manual::operating#why-a-connection-was-refused) |
//! | save and restore the key and the peers over a restart | [`Builder::identity_file`] and [`Node::records`], [example](manual::restart_and_recovery#what-to-keep-on-disk) |
//! | reach nodes behind NAT | [`manual::behind_nat`] |
//! | test a node under a NAT that forgets, a black hole, a slow path | [`test_util`] (Linux, feature `test-util`), [example][nat] |
//! | watch a node | [`Node::snapshot`], [`manual::operating`]; Prometheus: [`metrics`] (feature `metrics`) |
//! | replace plain [`TcpStream`](std::net::TcpStream)s | [`manual::from_tcp`] |
//! | use a node from async code | [`manual::async_code`] |
//! | choose between this library and others | [`manual::comparison`] |
//!
//! Whole programs are under `examples/` in the repository: `hello` and `chat` first.
//!
//! # Log levels
//! error: a bug or lost data; warn: a peer misbehaved or the system ran short; info: a link came or
//! went; debug: a connection; trace: nothing yet.
//!
//! # Architecture
//! [`manual::protocol`] describes the bytes and the rules between two nodes. The protocol's code is pure and
//! simulated (`src/link` has its state machine); threads are a thin layer around it.
//!
//! ```text
//! node    the handle, monitor, acceptors, dials       threads and locks
//! conn    one connection: reader and writer           threads and sockets
//! admission, conduct  who may connect, who is banned  pure
//! roster  whom to dial, and when                      pure
//! health  liveness, scores, ping interval, pace ...   pure
//! link    lanes, credit, receipts, resumption         pure
//! wire    bytes <-> frames                            pure
//! ```

// What is behind a feature is linked where it is documented: here, or at docs.rs, which has all features.
#![cfg_attr(all(feature = "test-util", target_os = "linux"), doc = "[nat]: test_util#a-nat-that-forgets")]
#![cfg_attr(
    not(all(feature = "test-util", target_os = "linux")),
    doc = "[`test_util`]: https://docs.rs/unbroken/latest/unbroken/test_util/index.html",
    doc = "[nat]: https://docs.rs/unbroken/latest/unbroken/test_util/index.html#a-nat-that-forgets"
)]
#![cfg_attr(
    not(feature = "metrics"),
    doc = "[`metrics`]: https://docs.rs/unbroken/latest/unbroken/metrics/index.html"
)]

#[cfg(not(any(unix, windows)))]
compile_error!("unbroken supports Unix and Windows: this system has neither poll(2) nor WSAPoll");

// A module uses only modules of its own group and of the groups before it:
// log_line, id, clock, lock, bucket, serde_util | lane, message, outcome | wire, health, admission | error |
// conduct, link, promise | conn, receipt | config | roster | node |
// metrics, test_util

#[macro_use]
mod log_line;

mod admission;
#[doc(hidden)] // For the benches of this crate.
pub mod bench_support;
mod bucket;
mod clock;
pub mod codec;
mod conduct;
mod config;
mod conn;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)] // For the fuzz targets of this crate.
pub mod fuzz_support;
mod health;
mod id;
mod identity_file;
mod lane;
mod link;
mod lock;
pub mod manual;
mod message;
#[cfg(feature = "metrics")]
pub mod metrics;
mod node;
mod outcome;
mod promise;
mod receipt;
mod roster;
mod serde_util;
mod sync;
#[cfg(all(feature = "test-util", target_os = "linux"))]
pub mod test_util;
mod wire;

// The API has types of both: these are the versions that it means.
pub use bytes;
pub use crossbeam_channel;

pub use admission::{AdmissionConfig, AdmitDecision, Refusal};
pub use conduct::{Ban, BanTarget, ConductConfig, Misbehavior};
pub use config::{Announce, Config, ConfigError, Encryption, PathConfig, PeerConfig};
pub use error::{EndCause, EndReason, Initiator, ReplaceError, SendError, SendErrorKind};
pub use health::breaker::BreakerState;
pub use health::keepalive::LearnedInterval;
pub use health::kernel::KernelSample;
pub use health::peer_score::PeerScoreParts;
pub use health::score::ScoreParts;
pub use id::{ConnId, Identity, Incarnation, ParsePeerIdError, PeerId};
pub use identity_file::IdentityError;
pub use lane::{AckMode, BULK, LaneConfig, LaneId, NORMAL, Priority, URGENT, WhenFull};
pub use message::Payload;
pub use node::{
    Builder, Closed, ConnSnapshot, ConnState, Event, EventReceiver, Events, FailedDial, FloodSnapshot,
    LaneReceiver, LaneSnapshot, LinkState, Message, Messages, Node, NodeSnapshot, Outgoing, PeerHandle,
    PeerSnapshot, PendingReply, RetireReason, SendManyError, SendOrRecv, StartError, TypedError, WaitError,
};
pub use outcome::{DropReason, Outcome, RequestError};
pub use receipt::{Broadcast, Progress, QuorumError, Receipt};
pub use roster::{PeerRecord, ReplaceReason};
pub use wire::control::GoawayReason;
pub use wire::refused::RefusedReason;

/// Values of the API go from thread to thread, and those that are shared may be.
#[cfg(test)]
const _: () = {
    const fn is_send<T: Send>() {}
    const fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<Node>();
    is_send_and_sync::<PeerHandle>();
    is_send_and_sync::<Builder>();
    is_send_and_sync::<Config>();
    is_send_and_sync::<Identity>();
    is_send_and_sync::<Receipt>();
    is_send_and_sync::<Broadcast>();
    is_send_and_sync::<PendingReply>();
    is_send_and_sync::<LaneReceiver>();
    is_send_and_sync::<EventReceiver>();
    is_send_and_sync::<Outgoing>();
    is_send_and_sync::<Payload>();
    is_send_and_sync::<NodeSnapshot>();
    is_send_and_sync::<StartError>();
    is_send_and_sync::<SendError>();
    is_send_and_sync::<SendManyError>();
    is_send_and_sync::<TypedError>();
    is_send_and_sync::<WaitError>();
    is_send_and_sync::<IdentityError>();
    is_send::<Message>();
    is_send::<Event>();
};
