//! Violations of the protocol. Each ends the connection that it came by.

use std::fmt;

use crate::error::EndCause;
use crate::lane::LaneId;
use crate::wire::stream::StreamError;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// A second HELLO, or REFUSED after the first.
    UnexpectedHello,
    UnknownLane(LaneId),
    Gap {
        expected: u64,
        offset: u64,
    },
    CreditExceeded {
        limit: u64,
        end: u64,
    },
    TooManyUntaken {
        max: usize,
    },
    Stream(StreamError),
    /// An acknowledgement is newer in one number and older in another.
    AckContradicts,
    AckOfUnsent {
        acked: u64,
        sent: u64,
    },
    RequestTwice(u64),
    AfterGoaway,
    NoSuchSlot {
        slot: u8,
    },
    TooManyUnaskedPongs,
    /// More frames than are allowed of those that cost more than they bring; see [`super::flood_guard`].
    Flood {
        what: &'static str,
    },
}

impl Violation {
    /// How it ends the connection.
    pub(crate) fn into_cause(self) -> EndCause {
        let what = self.to_string();
        match self {
            Violation::Flood { .. } | Violation::TooManyUnaskedPongs => EndCause::Flood(what),
            Violation::CreditExceeded { .. } | Violation::TooManyUntaken { .. } => {
                EndCause::CreditOverrun(what)
            }
            _ => EndCause::Protocol(what),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::UnexpectedHello => write!(f, "a second HELLO, or REFUSED after the first"),
            Violation::UnknownLane(lane) => write!(f, "a lane that was not agreed: {lane}"),
            Violation::Gap { expected, offset } => {
                write!(f, "a gap in a lane: expected offset {expected}, got {offset}")
            }
            Violation::CreditExceeded { limit, end } => {
                write!(f, "sent up to {end} with credit up to {limit}")
            }
            Violation::TooManyUntaken { max } => write!(f, "more than {max} messages begun and not taken"),
            Violation::Stream(error) => write!(f, "{error}"),
            Violation::AckContradicts => write!(f, "an acknowledgement that contradicts an earlier one"),
            Violation::AckOfUnsent { acked, sent } => {
                write!(f, "acknowledged up to {acked}, but only {sent} were sent")
            }
            Violation::RequestTwice(id) => write!(f, "request {id} was opened twice"),
            Violation::AfterGoaway => write!(f, "a frame after GOAWAY"),
            Violation::NoSuchSlot { slot } => write!(f, "slot {slot} in HELLO, 0 to 2 are allowed"),
            Violation::TooManyUnaskedPongs => write!(f, "too many pongs that were not asked for"),
            Violation::Flood { what } => write!(f, "a flood of {what}"),
        }
    }
}
