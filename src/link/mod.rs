//! The conversation with one peer: pure, without socket, clock, thread or lock.
//!
//! # What a link is
//! A link owns everything that must outlive a socket: the lanes with their offsets, queues and credit,
//! the receipts, the open requests. Connections come and go beneath it; each lane is carried by one of
//! them at a time and can move to another at any byte.
//!
//! # Sessions
//! Offsets have a meaning only while both sides remember the conversation. Each side draws a random
//! number, its *session id*, when its memory of the conversation begins, and sends it in HELLO. A *session*
//! is a pair of session ids.
//!
//! ```text
//!                  HELLO names the session id we know: same session, go on from its offsets
//!                 +---+
//!                 v   |
//!   no peer --> in session --- HELLO from a new incarnation: the peer restarted ---> new session
//!                 |                 what it had not taken is sent again from the start of the message
//!                 |
//!                 +--- HELLO, same incarnation, other id: the peer forgot ---> new session id, retry
//!                 |         what had been begun is dropped (it may have arrived), the rest stays
//!                 |
//!                 +--- no connection for the resumption time: we forget ---> new session id
//!                           receipts end as dropped, the application is told
//! ```
//!
//! Incarnations are exchanged before HELLO, so both sides of a restart draw their new session ids before
//! they send them, and one handshake is enough. A HELLO also names the session id of the other side that its
//! offsets are about. One that is about a session that is gone is refused: the peer learns of it in that
//! handshake, and nothing is begun that the peer would then drop. A session in which nothing was sent or
//! received is renewed with the same session id; any other is not, for the receiver would take the bytes of
//! the new stream for those of the old. A new session begins without the connections of the old one. A new
//! incarnation is believed only when no connection of the old one answers a probe: two processes that were
//! given one identity do not take turns at tearing the link down. (A peer that lies about its incarnation
//! can. For that it needs the key, and with the key, or in plaintext, it is that peer.)
//!
//! # Connections
//! ```text
//!             PONG, or ack       answer overdue            replaced, duplicate, GOAWAY, shutdown
//!   newcomer -------------> Up <----------------> Suspect ------------------------------------> Draining --> ended
//!                                byte received                    (any other drains alike)
//! ```
//! A connection that the link has asked to be closed serves no longer and has no timers.
//! Small messages that follow each other are one entry of the queue (`outbound::run`), and of the `inbox` in
//! which they wait for the application. Their bytes wait for the writer in `send_buffer`, for a worthwhile
//! write by the rule of `gather`. How much of a lane may be under way while urgent messages
//! come: `bdp`.
//!
//! How they form a pool, which of them carries which lane, and how one replaces another: `pool`. What
//! is known of how they do: `path_stats`. The knowledge of a path that outlives them: `paths`.
//!
//! # Invariants
//! - Each accepted message ends in exactly one outcome.
//! - In one session each stream byte is accepted once, in order; each message enters the inbox once.
//! - Bytes held for a lane never exceed its window, and the memory they keep not twice that and a chunk;
//!   bytes queued never exceed its queue.
//! - A message is forgotten only when the peer's application has taken it, or with an outcome.

mod application;
mod bdp;
pub(crate) mod conns;
mod expiry;
pub(crate) mod flood_guard;
mod frames;
mod gather;
pub(crate) mod inbound;
mod inbox;
mod lane;
pub(crate) mod outbound;
pub(crate) mod output;
mod path_stats;
mod paths;
mod pool;
pub(crate) mod requests;
pub(crate) mod scheduler;
mod send_buffer;
mod session;
mod stats;
mod timers;
mod transmit;
mod violation;

pub(crate) mod harness;
#[cfg(any(test, fuzzing))]
pub(crate) mod sim;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::health::keepalive::Keepalive;
use crate::health::liveness;
use crate::id::{ConnId, PeerId};
use crate::lane::{LaneConfig, LaneId};
use crate::message::Payload;
use crate::outcome::{DropReason, RequestError};

use conns::Conns;
pub(crate) use conns::{Draining, NewConn};
pub(crate) use gather::{ENOUGH, Writes};
use lane::Lane;
pub(crate) use outbound::{COPY_BELOW, Token, Tokens, cost_of};
pub(crate) use output::{CloseReason, Notice, Output};
pub(crate) use path_stats::ConnSample;
pub(crate) use paths::REDUCED_SEGMENT;
pub(crate) use requests::MAX_WAIT;
use requests::Requests;
pub(crate) use session::AttachError;
pub(crate) use stats::{Counters, LaneStats};
pub(crate) use transmit::Transmit;
pub(crate) use violation::Violation;

/// Names one message that the application has, to say later that it is done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) number: u64,
    pub(crate) epoch: u32,
    /// The length of its payload, which is below 2^28.
    pub(crate) bytes: u32,
}

/// The settings of a link.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) us: PeerId,
    pub(crate) peer: PeerId,
    pub(crate) name: String,
    pub(crate) lanes: Arc<[LaneConfig]>,
    pub(crate) liveness: liveness::Limits,
    /// The ping interval that is learned is never shorter.
    pub(crate) min_ping_interval: Duration,
    /// The longest that an acknowledgement waits for company.
    pub(crate) ack_delay: Duration,
    pub(crate) resumption: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) max_requests: usize,
    /// Bytes in the queues of all lanes together.
    pub(crate) max_queued: usize,
    pub(crate) max_chunk: usize,
}

impl Settings {
    /// The time between two looks at a connection ([`ConnSample`]).
    fn sample_interval(&self) -> Duration {
        self.liveness.suspect_after / 2
    }
}

/// Why a message was not accepted. It goes back to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Full,
    TooLarge {
        max: usize,
    },
    NoLane,
    TooManyRequests {
        max: usize,
    },
    /// The request is answered already, timed out, or was of an earlier life of the peer.
    NoSuchRequest,
    /// The link has ended, for this reason.
    Closed(DropReason),
}

/// A message as the application hands it over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OutboundMessage<'a> {
    pub(crate) lane: LaneId,
    pub(crate) body: &'a Bytes,
    /// Worth nothing from then on.
    pub(crate) deadline: Option<Instant>,
}

/// The purpose of an accepted message, with the waiter for its reply if it is a request.
pub(crate) enum Purpose<R> {
    Message,
    Request { wait: Duration, waiter: R },
}

/// One side of the conversation: a state machine without I/O. The caller performs all input and output:
///
/// 1. *Queries* take `&self` and change nothing: [`Link::conns`], [`Link::check_send`], [`Link::lane_stats`],
///    [`Link::next_timeout`] and the like. They can be called at any time.
/// 2. *Inputs* are named `handle_*` and report what happened outside: [`Link::handle_received`] when bytes
///    arrive, then [`Link::handle_frame`] for each frame in them; [`Link::handle_timeout`],
///    [`Link::handle_sample`], [`Link::handle_pause`], and [`Link::handle_conn_ended`] when the threads of a
///    connection are done.
/// 3. *Commands* are verbs and carry out what the application or the node asks for: [`Link::send`],
///    [`Link::reply`], [`Link::take`], [`Link::done`], [`Link::cancel`], [`Link::drain`], [`Link::close`],
///    [`Link::set_withheld`]. A connection starts with [`Link::hello`] and joins with [`Link::attach`];
///    frames count only after that.
/// 4. The *output* that is pulled is [`Link::poll_transmit`]: the next batch of a connection's writer.
///
/// Inputs, commands and `poll_transmit` append what follows from them to an [`Output`]. The caller must carry
/// it out after every call (or every few calls made in one go): wake the writers in `wake`, which then call
/// `poll_transmit` until the batch is empty, close the connections in `close`, and take the
/// samples in `samples`. Then it asks [`Link::next_timeout`] again, because any of these calls can change it.
/// Instants must not go back.
pub(crate) struct Link<T, R, C = ConnId> {
    settings: Settings,
    /// A lane is looked up where input enters; from there on functions take the lane itself, next to the
    /// other parts of the link that they need.
    lanes: Vec<Lane<T>>,
    requests: Requests<R>,
    conns: Conns<C>,
    keepalive: Keepalive,
    paths: paths::Paths,
    session: session::Session,
    clock: expiry::OwnClock,
    /// `None` until a PONG has told.
    peer_clock: Option<expiry::PeerClock>,
    /// CANCEL frames to send.
    cancels: Vec<u64>,
    /// When an urgent message came last, and by which connection.
    urgent: Option<(ConnId, Instant)>,
    /// When the last connection ended.
    down_since: Option<Instant>,
    closed: Option<DropReason>,
    /// The budgets of the peer's frames.
    pub(crate) meter: flood_guard::FrameMeter,
    rng: fastrand::Rng,
    pub(crate) counters: Counters,
}

impl<T: Token, R, C: Clone> Link<T, R, C> {
    pub(crate) fn new(settings: Settings, seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let lanes = settings.lanes.iter().enumerate().map(|(index, config)| Lane::new(index, config));
        Link {
            lanes: lanes.collect(),
            requests: Requests::new(settings.max_requests, rng.u64(..)),
            conns: Conns::default(),
            keepalive: Keepalive::new(settings.liveness.ping_interval, settings.min_ping_interval),
            paths: paths::Paths::default(),
            session: session::Session::new(&mut rng),
            clock: expiry::OwnClock::default(),
            peer_clock: None,
            cancels: Vec::new(),
            urgent: None,
            down_since: None,
            closed: None,
            meter: flood_guard::FrameMeter::default(),
            rng,
            counters: Counters::default(),
            settings,
        }
    }

    pub(crate) fn lane_index(&self, lane: LaneId) -> Option<usize> {
        self.lanes.iter().position(|candidate| candidate.id == lane)
    }
}

/// A message that a request's waiter gets.
pub(crate) type ReplyResult = Result<Payload, RequestError>;
