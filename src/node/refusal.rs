//! A connection is refused: the other side, the application and the log are told why.
//!
//! # Invariants
//! - The application is told before the other side is: that may take until the handshake's deadline.
//! - Strangers cause no more than a bounded rate of events and lines, whatever they do.
//! - The reason that is kept is the refusal, also if the other side never closes and the deadline ends the
//!   socket.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;

use log::Level;

use crate::admission::Refusal;
use crate::config::Encryption;
use crate::conn::handshake;
use crate::conn::record::Sealer;
use crate::conn::{ConnHandle, socket};
use crate::error::{EndCause, EndReason};
use crate::id::PeerId;
use crate::wire::control::Refused;
use crate::wire::refused::RefusedReason;

use super::event::Event;
use super::event_queue::Class;
use super::inner::NodeInner;
use super::named::About;

impl NodeInner {
    /// Refuses a connection in the place of HELLO. Returns when the other side has closed, at the latest at
    /// the handshake's deadline. Does nothing if the cause is no refusal.
    pub(super) fn refuse(&self, conn: &ConnHandle, peer: PeerId, reason: &EndReason, sealer: &mut Sealer) {
        let Some(why) = reason_of(&reason.cause) else { return };
        if !conn.dialled {
            self.note_refusal(Some(peer), conn.addr(), &reason.cause);
        }
        if !self.config.admission.tell_strangers && !self.shared.named.contains(peer) {
            return;
        }
        conn.note_end(reason.clone());
        let refused = Refused { reason: why, text: String::new(), wait_secs: None };
        if let Err(error) = handshake::send_refused(&mut socket::Stream(&conn.socket), sealer, &refused) {
            log_line!(Debug, "{} from {}: the refusal was not sent: {error}", conn.id, conn.addr());
        }
    }

    /// Tells the application and the log that a connection to this node was refused. `peer`: if it is known.
    pub(super) fn note_refusal(&self, peer: Option<PeerId>, addr: SocketAddr, cause: &EndCause) {
        let Some(why) = reason_of(cause) else { return };
        // The next attempt succeeds, or the application has ended the node itself.
        if matches!(why, RefusedReason::Retry | RefusedReason::Shutdown) {
            return;
        }
        self.inbound.refused.fetch_add(1, Relaxed);
        let class = peer.map_or(Class::Stranger, |peer| self.shared.named.class_of(peer));
        let level = match (why, class) {
            (RefusedReason::IdentityInUse, _) => Level::Error,
            (_, Class::Named) => Level::Warn,
            (_, Class::Stranger) => Level::Info,
        };
        let log = &self.shared.background;
        let text: &dyn Display = if let EndCause::Refused(why) = cause { why } else { cause };
        match peer {
            Some(peer) => {
                // The whole id, to be copied.
                let about = About { label: self.shared.named.label_of(peer), peer: None };
                log.log(class, level, format_args!("{about}refused {peer} from {addr}: {text}"));
            }
            None => log.log(class, level, format_args!("refused a connection from {addr}: {text}")),
        }
        // In plaintext anybody can claim to be a named peer.
        let is_named = class == Class::Named && self.config.encryption != Encryption::Plaintext;
        if is_named || self.inbound.tells_of_stranger(peer.is_some()) {
            self.shared.tell(Event::Refused { peer, addr, why });
        }
    }
}

/// Returns what the other side is told. `None` if this cause refuses nobody.
fn reason_of(cause: &EndCause) -> Option<RefusedReason> {
    Some(match cause {
        EndCause::NotAdmitted(refusal) => match refusal {
            Refusal::Denied => RefusedReason::Denied,
            Refusal::TooOften => RefusedReason::TooOften,
            Refusal::Handshakes => RefusedReason::Handshakes,
            Refusal::Address => RefusedReason::Address,
            Refusal::Subnet => RefusedReason::Subnet,
            Refusal::Peer => RefusedReason::Peer,
            Refusal::Full | Refusal::Inbox => RefusedReason::Full,
            Refusal::Application => RefusedReason::Application,
        },
        EndCause::Banned => RefusedReason::Banned,
        EndCause::Full => RefusedReason::Full,
        EndCause::IdentityInUse => RefusedReason::IdentityInUse,
        EndCause::Refused(_) => RefusedReason::Incompatible,
        EndCause::Retry => RefusedReason::Retry,
        EndCause::Shutdown => RefusedReason::Shutdown,
        _ => return None,
    })
}
