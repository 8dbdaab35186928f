//! Events as lines of text.

use std::fmt;
use std::time::Duration;

use super::{Event, RetireReason};
use crate::health::breaker::BreakerState;
use crate::node::link::LinkState;
use crate::node::named::About;
use crate::roster::ReplaceReason;

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Message(message) => {
                let kind = if message.is_request() { "request" } else { "message" };
                let (peer, lane) = (message.peer().short(), message.lane());
                write!(f, "{peer}: {kind} of {} bytes, {lane}", message.len())
            }
            Event::LinkUp { peer, after: Some(after), .. } => {
                write!(f, "{}: up again after {:.3} s", peer.short(), after.as_secs_f64())
            }
            Event::LinkUp { peer, after: None, .. } => write!(f, "{}: up", peer.short()),
            Event::LinkDegraded { peer } => {
                write!(f, "{}: degraded, no connection is above suspicion", peer.short())
            }
            Event::LinkDown { peer, reason } => write!(f, "{}: down: {reason}", peer.short()),
            Event::Connected { peer, conn, addr, dialled } => {
                let how = if *dialled { "dialled" } else { "accepted from" };
                write!(f, "{}: connection {conn} {how} {addr}", peer.short())
            }
            Event::Disconnected { peer, conn, reason } => {
                write!(f, "{}: connection {conn} ended: {reason}", peer.short())
            }
            Event::Suspect { peer, conn } => {
                write!(f, "{}: connection {conn} is suspect, an answer is overdue", peer.short())
            }
            Event::Recovered { peer, conn } => {
                write!(f, "{}: connection {conn} is above suspicion again", peer.short())
            }
            Event::PeerRestarted { peer, resent, .. } => {
                write!(f, "{}: restarted, {resent} messages are sent again", peer.short())
            }
            Event::Repeated { peer, messages } => write!(
                f,
                "{}: {messages} messages may come twice, an earlier life of this node may have processed them",
                peer.short()
            ),
            Event::Lost { peer, messages, by_peer } => {
                let side = if *by_peer { "the peer" } else { "this node" };
                write!(f, "{}: {messages} messages lost, {side} has forgotten the link", peer.short())
            }
            Event::Replacing { peer, conn, slot, reason } => {
                write!(f, "{}: connection {conn} in slot {slot} gets a successor: {reason}", peer.short())
            }
            Event::Replaced { peer, old, new } => {
                write!(f, "{}: connection {old} replaced by {new}", peer.short())
            }
            Event::ConnDegraded { peer, conn } => {
                write!(f, "{}: connection {conn} scores badly", peer.short())
            }
            Event::ConnHealthy { peer, conn } => {
                write!(f, "{}: connection {conn} scores well again", peer.short())
            }
            Event::PingIntervalLearned { peer, ping_interval } => write!(
                f,
                "{}: idle connections die on this path, a ping every {ping_interval:.1?} from now on",
                peer.short()
            ),
            Event::PeerRetired { peer, successor, reason } => {
                write!(f, "{}: let go ({reason}), {} takes its place", peer.short(), successor.short())
            }
            Event::AddressConflict { address, expected, found } => {
                write!(f, "{address} leads to {}, not to {}", found.short(), expected.short())
            }
            Event::DialFailed { peer, address, reason, next } => {
                write!(f, "{}dial {address}: {reason}; again ", About { label: None, peer: *peer })?;
                match next {
                    Some(next) => write!(f, "in {:.2} s", next.as_secs_f64()),
                    None => f.write_str("when something changes"),
                }
            }
            Event::Refused { peer: Some(peer), addr, why } => {
                write!(f, "{}: refused, from {addr}: {why}", peer.short())
            }
            Event::Refused { peer: None, addr, why } => write!(f, "refused {addr}: {why}"),
            Event::Offended { who, misbehavior, strikes } => {
                write!(f, "{who}: {misbehavior}, {strikes} strikes")
            }
            Event::Banned { ban } => {
                write!(f, "{} is banned", ban.who)?;
                if let Some(millis) = ban.remaining_ms {
                    write!(f, " for {}", humantime::format_duration(Duration::from_millis(millis)))?;
                }
                write!(f, ": {}", ban.why)
            }
            Event::Unbanned { who } => write!(f, "{who} is no longer banned"),
            Event::Breaker { peer, address, state } => {
                write!(f, "{}dials to {address}: breaker {state}", About { label: None, peer: *peer })
            }
        }
    }
}

impl fmt::Display for LinkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LinkState::Connecting => "connecting",
            LinkState::Up => "up",
            LinkState::Degraded => "degraded",
            LinkState::Down => "down",
        })
    }
}

impl fmt::Display for BreakerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BreakerState::Closed => "closed",
            BreakerState::Open => "open",
            BreakerState::HalfOpen => "half open",
        })
    }
}

impl fmt::Display for ReplaceReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ReplaceReason::Suspect => "an answer is overdue",
            ReplaceReason::Poor => "it scores badly",
            ReplaceReason::Asked => "the application asked for it",
            ReplaceReason::Moved => "its name has another address now",
            ReplaceReason::Aged => "it reached its maximum age",
        })
    }
}

impl fmt::Display for RetireReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RetireReason::Poor => "it scored badly",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conduct::Ban;
    use crate::error::{EndCause, EndReason, Initiator};
    use crate::id::PeerId;
    use crate::wire::control::GoawayReason;
    use crate::wire::refused::RefusedReason;

    #[test]
    fn an_event_is_one_line_that_names_its_peer() {
        let peer = PeerId::from_bytes([7; 32]);
        let refused =
            EndCause::RefusedByPeer { reason: RefusedReason::Full, text: String::new(), wait_secs: None };
        let refused = EndReason::new(Initiator::Peer, refused);
        let address = || "10.0.0.2:4000".to_string();
        let after = Some(Duration::from_millis(1500));
        let cases = [
            (Event::LinkDegraded { peer }, "PEER: degraded, no connection is above suspicion"),
            (Event::LinkDown { peer, reason: refused.clone() }, "PEER: down: refused: no room (by the peer)"),
            (
                Event::LinkDown {
                    peer,
                    reason: EndReason::new(Initiator::Peer, EndCause::Goaway(GoawayReason::Shutdown)),
                },
                "PEER: down: goodbye: shutdown (by the peer)",
            ),
            (
                Event::DialFailed { peer: None, address: address(), reason: refused.clone(), next: after },
                "dial 10.0.0.2:4000: refused: no room (by the peer); again in 1.50 s",
            ),
            (
                Event::DialFailed { peer: Some(peer), address: address(), reason: refused, next: None },
                "PEER: dial 10.0.0.2:4000: refused: no room (by the peer); again when something changes",
            ),
            (
                Event::Refused { peer: None, addr: ([10, 0, 0, 2], 9).into(), why: RefusedReason::Banned },
                "refused 10.0.0.2:9: banned",
            ),
            (
                Event::Banned { ban: Ban::new(peer, Some(Duration::from_secs(90)), "spam") },
                "peer PEER is banned for 1m 30s: spam",
            ),
            (
                Event::Breaker { peer: Some(peer), address: address(), state: BreakerState::Open },
                "PEER: dials to 10.0.0.2:4000: breaker open",
            ),
        ];
        for (event, text) in cases {
            assert_eq!(event.to_string(), text.replace("PEER", &peer.short()));
        }
    }
}
