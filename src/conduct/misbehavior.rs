//! Misbehavior: what counts against a peer, and what never does.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{EndCause, EndReason, Initiator};

/// Something that a peer did which no honest and healthy one does.
///
/// | misbehavior | strikes | who notices |
/// |---|---|---|
/// | [`Protocol`](Misbehavior::Protocol) | 60 | the library |
/// | [`CreditOverrun`](Misbehavior::CreditOverrun) | 60 | the library |
/// | [`Flood`](Misbehavior::Flood) | 60 | the library |
/// | [`BadHandshake`](Misbehavior::BadHandshake) | 10 | the library |
/// | [`WastedEffort`](Misbehavior::WastedEffort) | 2 | the library |
/// | [`InvalidData`](Misbehavior::InvalidData) | 25 | the application |
/// | [`Application`](Misbehavior::Application) | what it says | the application |
///
/// At 100 strikes (by default) the peer is banned for a while. Strikes lose half of their weight every ten
/// minutes (by default), so one protocol error, which may be a bug in a new version, bans nobody, and two
/// within five minutes do.
///
/// Faults of the network (reset, silence, a torn stream, a write that timed out) and a
/// restart are never misbehavior.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Misbehavior {
    /// It broke the protocol on a connection that had joined.
    Protocol,
    /// It sent more than it had credit for, in bytes or in messages.
    CreditOverrun,
    /// It sent too many frames that cost more than they carry.
    Flood,
    /// It broke the protocol before it had joined.
    BadHandshake,
    /// It dialled, joined, and left in order within a second, without a message on that visit. Earlier visits
    /// do not excuse it, nor does what this node sent to it. Once is nothing, in a loop it is a nuisance.
    WastedEffort,
    /// The application found invalid what it sent: a block that does not check, a wrong signature.
    InvalidData,
    /// Whatever else the application holds against it, with so many strikes.
    Application(u32),
}

impl Misbehavior {
    /// How many strikes it counts.
    pub fn strikes(self) -> u32 {
        match self {
            Misbehavior::Protocol | Misbehavior::CreditOverrun | Misbehavior::Flood => 60,
            Misbehavior::BadHandshake => 10,
            Misbehavior::WastedEffort => 2,
            Misbehavior::InvalidData => 25,
            Misbehavior::Application(strikes) => strikes,
        }
    }

    /// Returns what the end of a connection says against the other side. `joined`: whether the handshake was
    /// complete.
    ///
    /// | cause | misbehavior | why |
    /// |---|---|---|
    /// | Protocol | Protocol, before the connection joined BadHandshake | the bytes came as they were sent: encryption proves it, in plaintext TCP checks them |
    /// | CreditOverrun, Flood | the same | |
    /// | Tampered, also Noise messages that do not fit | none | anybody on the path could get anybody banned |
    /// | Closed, Io, WriteTimeout, Dead | none | the network, or a process that died |
    /// | HandshakeTimeout, DrainTimeout | none | a slow path looks the same; its slot is bounded |
    /// | Goaway, PeerRestarted, Retry | none | the protocol provides for it |
    /// | Refused, RefusedByPeer, IdentityInUse, SelfConnection | none | another network, another version, or an old address: a mistake of people |
    /// | Full, NotAdmitted, Evicted, Banned, Shutdown | none | our own decision |
    /// | Panic | none | our own bug |
    ///
    /// Only what this library noticed counts: the same cause told by the other side is its accusation of us.
    pub(crate) fn of(reason: &EndReason, joined: bool) -> Option<Misbehavior> {
        if reason.by != Initiator::Library {
            return None;
        }
        // No wildcard: who adds a cause has to decide.
        match reason.cause {
            EndCause::Protocol(_) if joined => Some(Misbehavior::Protocol),
            EndCause::Protocol(_) => Some(Misbehavior::BadHandshake),
            EndCause::CreditOverrun(_) => Some(Misbehavior::CreditOverrun),
            EndCause::Flood(_) => Some(Misbehavior::Flood),
            EndCause::Closed
            | EndCause::Io { .. }
            | EndCause::WriteTimeout
            | EndCause::Dead
            | EndCause::HandshakeTimeout
            | EndCause::DrainTimeout
            | EndCause::Goaway(_)
            | EndCause::PeerRestarted
            | EndCause::Retry
            | EndCause::Refused(_)
            | EndCause::RefusedByPeer { .. }
            | EndCause::IdentityInUse
            | EndCause::SelfConnection
            | EndCause::Full
            | EndCause::NotAdmitted(_)
            | EndCause::Evicted
            | EndCause::Banned
            | EndCause::Shutdown
            | EndCause::Tampered(_)
            | EndCause::Panic => None,
        }
    }
}

impl fmt::Display for Misbehavior {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Misbehavior::Protocol => f.write_str("it broke the protocol"),
            Misbehavior::CreditOverrun => f.write_str("it sent more than it had credit for"),
            Misbehavior::Flood => f.write_str("it flooded"),
            Misbehavior::BadHandshake => f.write_str("it broke the protocol in the handshake"),
            Misbehavior::WastedEffort => f.write_str("it came and went for nothing"),
            Misbehavior::InvalidData => f.write_str("it sent invalid data"),
            Misbehavior::Application(strikes) => write!(f, "the application gave it {strikes} strikes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::admission::Refusal;
    use crate::wire::control::GoawayReason;

    use super::*;

    #[test]
    fn trouble_of_the_network_and_decisions_of_ours_are_no_offences() {
        let innocent = [
            EndCause::Goaway(GoawayReason::Shutdown),
            EndCause::Goaway(GoawayReason::Removed),
            EndCause::Goaway(GoawayReason::Replaced),
            EndCause::Goaway(GoawayReason::Duplicate),
            EndCause::Goaway(GoawayReason::Retired),
            EndCause::Closed,
            EndReason::io("read", &std::io::ErrorKind::ConnectionReset.into()).cause,
            EndCause::WriteTimeout,
            EndCause::Dead,
            EndCause::DrainTimeout,
            EndCause::HandshakeTimeout,
            EndCause::Refused("another network".into()),
            EndCause::SelfConnection,
            EndCause::Retry,
            EndCause::PeerRestarted,
            EndCause::Full,
            EndCause::NotAdmitted(Refusal::Denied),
            EndCause::Evicted,
            EndCause::Banned,
            EndCause::Tampered("x".into()),
            EndCause::Panic,
            EndCause::Shutdown,
        ];
        let all = [Initiator::Us, Initiator::Library, Initiator::Peer, Initiator::Network];
        for cause in innocent {
            for (by, joined) in all.into_iter().flat_map(|by| [(by, true), (by, false)]) {
                let reason = EndReason::new(by, cause.clone());
                assert_eq!(Misbehavior::of(&reason, joined), None, "{reason}");
            }
        }
    }

    #[test]
    fn violations_that_the_library_found_count_and_claims_of_the_peer_do_not() {
        let text = || "x".to_owned();
        let guilty = [
            (EndCause::Protocol(text()), true, Misbehavior::Protocol),
            (EndCause::Protocol(text()), false, Misbehavior::BadHandshake),
            (EndCause::CreditOverrun(text()), true, Misbehavior::CreditOverrun),
            (EndCause::Flood(text()), true, Misbehavior::Flood),
        ];
        for (cause, joined, misbehavior) in guilty {
            assert_eq!(
                Misbehavior::of(&EndReason::new(Initiator::Library, cause.clone()), joined),
                Some(misbehavior)
            );
            for by in [Initiator::Us, Initiator::Peer, Initiator::Network] {
                assert_eq!(Misbehavior::of(&EndReason::new(by, cause.clone()), joined), None);
            }
        }
    }
}
