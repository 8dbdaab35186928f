//! The knowledge of a path belongs to the link and the peer's address, not to the connection that found it
//! out: a newcomer begins with the round trip and the rate of those before it.
//!
//! # Segments that the path drops
//! Some paths pass small packets and drop full ones in one direction, without a word: a tunnel that cuts the
//! MTU, and ICMP that is filtered (RFC 4821). Every connection by such a path can be made, and carries votes,
//! until the first full segment stops its stream. So the successor of a connection in trouble is on trial:
//! its PINGs are padded to a full segment, and so are the answers (as RFC 9000 section 8.2.1 does), and
//! nothing else proves it.
//!
//! ```text
//!   joined, named a predecessor     padded PONG
//!      on trial ---------------------------------> proven: takes over, the predecessor is drained
//!         |
//!         +-- no answer in time: later connections to this address have segments of 536 bytes;
//!             a predecessor that is well again stays, and the successor is drained
//! ```
//!
//! Small frames have passed both ways by then: they made the handshake. One that stopped for another reason
//! costs the later ones some 7 % more headers. The size stays reduced for as long as the address is
//! remembered.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::id::ConnId;
use crate::wire::control::GoawayReason;

use super::conns::Conn;
use super::output::Output;
use super::{Link, Token};

#[cfg(test)]
mod tests;

/// A peer has a few addresses; of more, the ones that were used last are remembered.
const MAX_PATHS: usize = 8;

/// The size to which segments are reduced, in bytes: what fits the smallest datagram that every IPv4 host
/// accepts (RFC 9293 section 3.7.1).
pub(crate) const REDUCED_SEGMENT: u16 = 536;

/// The measurements of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    rtt: Option<Duration>,
    /// Stands for the rate.
    chunk: usize,
    /// Full segments did not pass.
    reduced: bool,
}

impl Measured {
    fn of<C>(conn: &Conn<C>) -> Self {
        Measured { rtt: conn.liveness.measured_rtt(), chunk: conn.pace.chunk(), reduced: false }
    }
}

/// By address, the one that was used last at the end. At most [`MAX_PATHS`].
#[derive(Debug, Default)]
pub(super) struct Paths(Vec<(IpAddr, Measured)>);

impl Paths {
    fn remember(&mut self, address: IpAddr, measured: Measured) {
        let before = self.0.iter().position(|(known, _)| *known == address).map(|at| self.0.remove(at).1);
        let rtt = measured.rtt.or(before.and_then(|before| before.rtt));
        let reduced = measured.reduced || before.is_some_and(|before| before.reduced);
        self.0.push((address, Measured { rtt, reduced, ..measured }));
        if self.0.len() > MAX_PATHS {
            self.0.remove(0);
        }
    }

    fn of(&self, address: IpAddr) -> Option<Measured> {
        self.0.iter().find(|(known, _)| *known == address).map(|(_, measured)| *measured)
    }
}

impl<T: Token, R, C: Clone> Link<T, R, C> {
    /// Where the connection that has just joined leads. `segment`: its full segment in bytes, 0 if that is
    /// not known.
    pub(crate) fn set_address(&mut self, id: ConnId, address: IpAddr, segment: usize) {
        let others = self.conns.iter().filter(|conn| conn.address == Some(address));
        let serving = others.max_by_key(|conn| conn.id).map(Measured::of);
        let measured = serving.or_else(|| self.paths.of(address));
        let Some(conn) = self.conns.by_id(id) else { return };
        (conn.address, conn.segment) = (Some(address), segment);
        if let Some(Measured { rtt, chunk, .. }) = measured {
            rtt.into_iter().for_each(|rtt| conn.liveness.inherit(rtt));
            conn.pace.inherit(chunk);
        }
    }

    /// The largest segment for a connection to this address, if full ones do not pass there.
    pub(crate) fn segment_limit(&self, address: IpAddr) -> Option<u16> {
        self.paths.of(address).filter(|measured| measured.reduced).map(|_| REDUCED_SEGMENT)
    }

    /// A connection on trial has not answered in time.
    pub(super) fn handle_failed_trial(&mut self, id: ConnId) {
        let conn = self.conns.iter().find(|conn| conn.id == id);
        if let Some(conn) = conn.filter(|conn| conn.segment > usize::from(REDUCED_SEGMENT))
            && let Some(address) = conn.address
        {
            self.paths.remember(address, Measured { reduced: true, ..Measured::of(conn) });
        }
    }

    /// A successor that this side dialled and that does not answer goes when what it should succeed is well
    /// again.
    pub(super) fn drop_failed_successors(&mut self, now: Instant, output: &mut Output<T, R, C>) {
        let is_up = |id: &ConnId| self.conns.iter().any(|conn| conn.id == *id && conn.is_up());
        let failed =
            |conn: &&Conn<C>| conn.dialled && conn.is_on_trial() && conn.is_serving() && !conn.is_up();
        let failed: Vec<_> = self
            .conns
            .iter()
            .filter(failed)
            .filter(|conn| conn.succeeds.iter().any(is_up))
            .map(|conn| conn.id)
            .collect();
        failed.into_iter().for_each(|id| self.drain(id, GoawayReason::Duplicate, now, output));
    }

    /// The connection has ended.
    pub(super) fn remember_path(&mut self, id: ConnId) {
        let conn = self.conns.iter().find(|conn| conn.id == id);
        if let Some((address, measured)) = conn.and_then(|conn| Some((conn.address?, Measured::of(conn)))) {
            self.paths.remember(address, measured);
        }
    }
}
