//! How messages and requests end.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How an accepted message ended. Each ends in exactly one of these ways, and there will be no others; the
/// reasons for which a message is dropped may become more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The peer's application has taken it (or is done with it, as that lane is set). A reply has arrived; it
    /// is thrown away if nobody waits for it any longer.
    Taken,
    /// Its time was over before its first byte was sent, or before the peer's application took it: then the
    /// peer has dropped it. The peer's application has not seen it; an earlier life of the peer may have, if
    /// it had been sent to that.
    Expired,
    /// It was dropped, for this reason.
    Dropped(DropReason),
}

/// Why an accepted message was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DropReason {
    /// This node shut down. The peer may have received it, but did not say that it was taken.
    Shutdown,
    /// The application removed the peer. The peer may have received it.
    PeerRemoved,
    /// The peer could not be reached for the whole resumption time
    /// ([`Config::resumption`](crate::Config::resumption)), or was one absent stranger too many
    /// ([`Config::max_absent_strangers`](crate::Config::max_absent_strangers)), or a stranger whose
    /// unfinished messages took too much memory ([`Config::max_inbox`](crate::Config::max_inbox)). It may
    /// have received the message.
    ResumptionExpired,
    /// The peer's process still runs but has given up its memory of this link: after being out of reach, or
    /// because this node is a stranger to it and what it had sent in part took too much memory there. It
    /// may or may not have taken the message.
    PeerForgot,
    /// The peer restarted and the message was a reply to a request of its earlier life.
    PeerRestarted,
    /// The peer accepts no message as large as this on this lane.
    TooLargeForPeer,
    /// The peer does not have this lane.
    LaneRefused,
    /// It was a request that the application cancelled before it was sent.
    Cancelled,
    /// The lane's queue was full and newer messages took its place
    /// ([`WhenFull::DropOldest`](crate::WhenFull::DropOldest)). No byte of it was sent: the peer has not seen
    /// it.
    Displaced,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Taken => f.write_str("taken"),
            Outcome::Expired => f.write_str("expired before the peer's application took it"),
            Outcome::Dropped(reason) => write!(f, "dropped: {reason}"),
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DropReason::Shutdown => "this node shut down",
            DropReason::PeerRemoved => "the peer was removed",
            DropReason::ResumptionExpired => "the peer was out of reach for the whole resumption time",
            DropReason::PeerForgot => "the peer gave up its memory of the link",
            DropReason::PeerRestarted => "it replied to an earlier life of the peer",
            DropReason::TooLargeForPeer => "it is larger than the peer accepts on this lane",
            DropReason::LaneRefused => "the peer does not have this lane",
            DropReason::Cancelled => "the request was cancelled",
            DropReason::Displaced => "newer messages took its place in the full queue",
        })
    }
}

/// Why a request has no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RequestError {
    /// No reply came within the request's own deadline
    /// ([`Config::request_timeout`](crate::Config::request_timeout)).
    Timeout,
    /// The request message expired before its first byte was sent.
    Expired,
    /// The peer's application had taken the request and then its process restarted.
    PeerRestarted,
    /// The request message itself was dropped, for this reason.
    Dropped(DropReason),
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestError::Timeout => f.write_str("no reply came within the request's deadline"),
            RequestError::Expired => f.write_str("the request expired before it was sent"),
            RequestError::PeerRestarted => f.write_str("the peer restarted after it had taken the request"),
            RequestError::Dropped(reason) => write!(f, "the request was dropped: {reason}"),
        }
    }
}

impl std::error::Error for RequestError {}
