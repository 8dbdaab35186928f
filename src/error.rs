//! Errors, sorted by who is to blame: the configuration, the caller, the peer, the network.
//!
//! `Display` of every error in this crate is complete: it includes the text of whatever caused the error. So
//! `Error::source` returns `None`, and a report that prints the chain of sources says nothing twice. Causes
//! to match on are public fields.

mod io_kind;

use std::fmt;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::admission::Refusal;
use crate::id::PeerId;
use crate::lane::LaneId;
use crate::wire::control::{GoawayReason, Refused};
use crate::wire::refused::RefusedReason;

/// Why a message was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendErrorKind {
    /// The lane's queue, the peer's or the node's is full. `send` would have waited.
    Full,
    /// The queue stayed full for the whole timeout: the peer is away, or its application took nothing. Both
    /// applications take nothing if each waits to send on the thread that receives; see
    /// [`Node::send`](crate::Node::send).
    Timeout,
    /// No link to this peer was ever made, or the peer was removed, or it is a stranger that was forgotten
    /// ([`Config::max_absent_strangers`](crate::Config::max_absent_strangers),
    /// [`Config::max_inbox`](crate::Config::max_inbox)).
    UnknownPeer(PeerId),
    /// This node has no such lane.
    UnknownLane(LaneId),
    /// The message is larger than the lane allows.
    TooLarge {
        /// Its length in bytes.
        len: usize,
        /// The largest that the lane allows, in bytes.
        max: usize,
    },
    /// So many requests are open already.
    TooManyRequests {
        /// The configured bound.
        max: usize,
    },
    /// The message was not a request, or it was answered already, timed out, was cancelled, or came from
    /// an earlier life of the peer.
    NoSuchRequest,
    /// A request cannot wait for so long.
    RequestTimeoutTooLong {
        /// The timeout that was asked for.
        timeout: Duration,
        /// The longest one.
        max: Duration,
    },
    /// The node is shutting down.
    Closed,
}

impl fmt::Display for SendErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendErrorKind::Full => write!(f, "the queue is full"),
            SendErrorKind::Timeout => f.write_str(
                "the queue stayed full for the whole timeout: the peer is away, or its application takes no messages \
                 (perhaps because it waits to send on the thread that receives)",
            ),
            SendErrorKind::UnknownPeer(peer) => write!(f, "there is no link to peer {}", peer.short()),
            SendErrorKind::UnknownLane(lane) => write!(f, "there is no lane {}", lane.0),
            SendErrorKind::TooLarge { len, max } => {
                write!(f, "the message has {len} bytes, `max_message` of its lane is {max}")
            }
            SendErrorKind::TooManyRequests { max } => write!(f, "{max} requests are open already"),
            SendErrorKind::NoSuchRequest => write!(f, "nobody waits for this reply"),
            SendErrorKind::RequestTimeoutTooLong { timeout, max } => {
                write!(f, "a request cannot wait for {timeout:?}, at most for {max:?}")
            }
            SendErrorKind::Closed => write!(f, "the node is shutting down"),
        }
    }
}

/// A message was not accepted. It comes back with the error.
#[derive(Clone, PartialEq, Eq)]
pub struct SendError(Box<NotSent>);

/// In a box, so that the results of calls that succeed are small.
#[derive(Clone, PartialEq, Eq)]
struct NotSent {
    kind: SendErrorKind,
    lane: LaneId,
    message: Bytes,
    expires_in: Option<Duration>,
}

/// The length stands for the message, which may be megabytes.
impl fmt::Debug for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NotSent { kind, lane, message, .. } = &*self.0;
        let mut debug = f.debug_struct("SendError");
        debug.field("kind", kind).field("lane", lane).field("bytes", &message.len()).finish()
    }
}

impl SendError {
    pub(crate) fn new(
        kind: SendErrorKind,
        lane: LaneId,
        message: Bytes,
        expires_in: Option<Duration>,
    ) -> Self {
        SendError(Box::new(NotSent { kind, lane, message, expires_in }))
    }

    /// Why it was not accepted.
    pub fn kind(&self) -> &SendErrorKind {
        &self.0.kind
    }

    /// The bytes of the message. [`SendError::into_outgoing`] returns it with its lane and its expiry.
    pub fn into_message(self) -> Bytes {
        self.0.message
    }

    /// Its lane and its expiry.
    pub(crate) fn terms(&self) -> (LaneId, Option<Duration>) {
        (self.0.lane, self.0.expires_in)
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not sent: {}", self.0.kind)
    }
}

impl std::error::Error for SendError {}

/// Connections to a peer cannot be replaced ([`Node::replace`](crate::Node::replace)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplaceError {
    /// It has no connection.
    NotConnected,
    /// It dialled this node, which has no address to dial it by; or it asked this node to stay away.
    NoAddress,
}

impl fmt::Display for ReplaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ReplaceError::NotConnected => "there is no connection to replace",
            ReplaceError::NoAddress => "there is no address to dial this peer by",
        })
    }
}

impl std::error::Error for ReplaceError {}

/// The side that ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Initiator {
    /// This application.
    Us,
    /// The library on this side.
    Library,
    /// The other side.
    Peer,
    /// The network, or one of the kernels.
    Network,
}

/// Why a connection ended, or never came to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EndCause {
    /// In order, with GOAWAY.
    Goaway(GoawayReason),
    /// The stream ended without GOAWAY: the other process ended, or something between closed it.
    Closed,
    /// A read or a write failed.
    Io {
        /// The operation: `resolve`, `make a socket`, `bind`, `set options`, `connect`, `handshake`, `read`,
        /// `write` or `start a thread`.
        doing: String,
        /// The kind of the error. [`io::ErrorKind::Other`] where the standard library has no stable name for
        /// it.
        #[serde(with = "io_kind")]
        kind: io::ErrorKind,
        /// The system's error number (`errno`). `None` if the error does not come from a system call, as for
        /// a name that cannot be resolved.
        os_error: Option<i32>,
        /// The system's description.
        error: String,
    },
    /// A write did not complete: the peer's kernel acknowledged nothing for `write_timeout`, or it lasted for
    /// `dead_after`.
    WriteTimeout,
    /// Nothing was received for `dead_after`, or a frame took longer than that.
    Dead,
    /// The drain took longer than `drain_timeout`.
    DrainTimeout,
    /// The handshake took longer than `handshake_timeout`.
    HandshakeTimeout,
    /// The other side broke the protocol.
    Protocol(String),
    /// A record did not authenticate: it was changed, left out or repeated on the way. Anybody on the path
    /// can do that.
    Tampered(String),
    /// The other side sent more than it had credit for.
    CreditOverrun(String),
    /// The other side sent too many frames that cost more than they carry; see [`crate::manual::protocol`].
    Flood(String),
    /// The other side is not who it should be, or not of our network.
    Refused(String),
    /// The other side proved who it is, does not want the connection, and said why. What it sees itself:
    /// [`manual::operating`](crate::manual::operating#why-a-connection-was-refused).
    RefusedByPeer {
        /// Why, to match on.
        reason: RefusedReason,
        /// An explanation for people to read. May be empty. At most 256 bytes; chosen by the peer.
        text: String,
        /// The time in seconds during which it will refuse again, as far as it knows.
        wait_secs: Option<u32>,
    },
    /// Another process with the other side's identity is connected to this node, and alive.
    IdentityInUse,
    /// The other side turned out to be this node.
    SelfConnection,
    /// The session changed during the handshake; the next attempt will agree.
    Retry,
    /// The connection belonged to an earlier life of the peer.
    PeerRestarted,
    /// Too many connections already.
    Full,
    /// This node does not let the other side in.
    NotAdmitted(Refusal),
    /// This node gave the connection's place to another one.
    Evicted,
    /// The peer is banned.
    Banned,
    /// A bug in this library: the thread panicked.
    Panic,
    /// The node is shutting down.
    Shutdown,
}

impl fmt::Display for EndCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EndCause::Goaway(reason) => write!(f, "goodbye: {reason}"),
            EndCause::Closed => f.write_str("closed without goodbye"),
            EndCause::Io { doing, error, .. } => write!(f, "{doing}: {error}"),
            EndCause::WriteTimeout => f.write_str("a write timed out"),
            EndCause::Dead => f.write_str("nothing received"),
            EndCause::DrainTimeout => f.write_str("the drain timed out"),
            EndCause::HandshakeTimeout => f.write_str("the handshake timed out"),
            EndCause::Protocol(what) => write!(f, "protocol error: {what}"),
            EndCause::Tampered(what) => write!(f, "tampered with: {what}"),
            EndCause::Refused(why) => write!(f, "refused: {why}"),
            EndCause::RefusedByPeer { reason, text, wait_secs } => {
                let refused = Refused { reason: *reason, text: text.clone(), wait_secs: *wait_secs };
                write!(f, "refused: {refused}")
            }
            EndCause::IdentityInUse => f.write_str("another process uses this identity"),
            EndCause::SelfConnection => f.write_str("this node itself"),
            EndCause::Retry => f.write_str("the session changed during the handshake"),
            EndCause::PeerRestarted => f.write_str("the peer restarted"),
            EndCause::CreditOverrun(what) => write!(f, "more than the credit: {what}"),
            EndCause::Flood(what) => write!(f, "{what}"),
            EndCause::NotAdmitted(refusal) => write!(f, "not admitted: {refusal}"),
            EndCause::Evicted => f.write_str("its place was given to another"),
            EndCause::Banned => f.write_str("banned"),
            EndCause::Full => f.write_str("this node has as many connections as `max_connections` allows"),
            EndCause::Panic => f.write_str("a bug in the library"),
            EndCause::Shutdown => f.write_str("this node shuts down"),
        }
    }
}

/// The system's numbers of what [`EndReason::is_local_shortage`] is about.
#[cfg(unix)]
const SHORTAGES: [i32; 4] = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
#[cfg(windows)]
const SHORTAGES: [i32; 3] = {
    use windows_sys::Win32::Networking::WinSock::{WSA_NOT_ENOUGH_MEMORY, WSAEMFILE, WSAENOBUFS};
    [WSAEMFILE, WSAENOBUFS, WSA_NOT_ENOUGH_MEMORY]
};

/// The side that ended a connection, and why: the first cause that either of its threads met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndReason {
    /// The side that ended it.
    pub by: Initiator,
    /// Why.
    pub cause: EndCause,
}

impl EndReason {
    pub(crate) fn new(by: Initiator, cause: EndCause) -> Self {
        EndReason { by, cause }
    }

    /// Another attempt is in vain until somebody changes something, as far as it is known.
    pub(crate) fn is_lasting(&self) -> bool {
        match &self.cause {
            EndCause::Refused(_) => true,
            EndCause::RefusedByPeer { reason, .. } => !reason.is_temporary(),
            _ => false,
        }
    }

    /// How long the other side refuses again, if it said so.
    pub(crate) fn told_wait(&self) -> Option<Duration> {
        match &self.cause {
            EndCause::RefusedByPeer { wait_secs, .. } => wait_secs.map(u64::from).map(Duration::from_secs),
            _ => None,
        }
    }

    /// This process or machine lacked something for a dial: descriptors, threads, memory, source ports, the
    /// configured local address or interface. That says nothing of the peer.
    pub(crate) fn is_local_shortage(&self) -> bool {
        match &self.cause {
            EndCause::Full => self.by == Initiator::Library,
            EndCause::Io { doing, .. } if doing == "start a thread" || doing == "bind" => true,
            EndCause::Io { doing, kind, os_error, .. } if doing != "read" && doing != "write" => {
                *kind == io::ErrorKind::AddrNotAvailable
                    || os_error.is_some_and(|number| SHORTAGES.contains(&number))
            }
            _ => false,
        }
    }

    pub(crate) fn io(doing: &str, error: &io::Error) -> Self {
        EndReason::io_text(doing, error, error.to_string())
    }

    /// The same, where the description has to name what it is about.
    pub(crate) fn io_at(doing: &str, what: &dyn fmt::Display, error: &io::Error) -> Self {
        EndReason::io_text(doing, error, format!("{what}: {error}"))
    }

    fn io_text(doing: &str, io: &io::Error, error: String) -> Self {
        let (doing, kind) = (doing.into(), io_kind::stable(io.kind()));
        let cause = EndCause::Io { doing, kind, os_error: io.raw_os_error(), error };
        EndReason { by: Initiator::Network, cause }
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = match self.by {
            Initiator::Us => "by us",
            Initiator::Library => "by the library",
            Initiator::Peer => "by the peer",
            Initiator::Network => "by the network",
        };
        write!(f, "{} ({by})", self.cause)
    }
}

impl std::error::Error for EndReason {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_io_error_keeps_its_kind_and_number_also_in_a_file() {
        let refused = io::Error::from_raw_os_error(111);
        let reason = EndReason::io("connect", &refused);
        let EndCause::Io { kind, os_error, .. } = &reason.cause else { panic!("{reason:?}") };
        assert_eq!((*kind, *os_error), (refused.kind(), Some(111)));
        // A kind without a stable name, and an error that no system call made.
        let unnamed = EndReason::io("read", &io::Error::from_raw_os_error(71));
        let made = EndReason::io("resolve", &io::Error::other("no address"));
        for reason in [reason, unnamed, made] {
            let text = serde_json::to_string(&reason).unwrap();
            assert_eq!(serde_json::from_str::<EndReason>(&text).unwrap(), reason, "{text}");
        }
    }
}
