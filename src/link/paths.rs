//! What is known of a path belongs to the link and the peer's address, not to the connection that found it out: a
//! newcomer begins with the round trip and the rate of those before it.

use std::net::IpAddr;
use std::time::Duration;

use crate::id::ConnId;

use super::conns::Conn;
use super::{Awaited, Link};

/// A peer has a few addresses; of more, the ones that were used last are remembered.
const MAX_PATHS: usize = 8;

/// What a connection measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    rtt: Option<Duration>,
    /// Stands for the rate.
    chunk: usize,
}

impl Measured {
    fn of(conn: &Conn) -> Self {
        Measured { rtt: conn.liveness.measured_rtt(), chunk: conn.pace.chunk() }
    }
}

/// By address, the one that was used last at the end. At most [`MAX_PATHS`].
#[derive(Debug, Default)]
pub(super) struct Paths(Vec<(IpAddr, Measured)>);

impl Paths {
    fn remember(&mut self, address: IpAddr, measured: Measured) {
        let before = self.0.iter().position(|(known, _)| *known == address).map(|at| self.0.remove(at).1);
        let rtt = measured.rtt.or(before.and_then(|before| before.rtt));
        self.0.push((address, Measured { rtt, ..measured }));
        if self.0.len() > MAX_PATHS {
            self.0.remove(0);
        }
    }

    fn of(&self, address: IpAddr) -> Option<Measured> {
        self.0.iter().find(|(known, _)| *known == address).map(|(_, measured)| *measured)
    }
}

impl<T: Awaited, R> Link<T, R> {
    /// Where the connection that has just joined leads.
    pub(crate) fn set_address(&mut self, id: ConnId, address: IpAddr) {
        let others = self.conns.iter().filter(|conn| conn.address == Some(address));
        let serving = others.max_by_key(|conn| conn.id).map(Measured::of);
        let measured = serving.or_else(|| self.paths.of(address));
        let Some(conn) = self.conn_mut(id) else { return };
        conn.address = Some(address);
        if let Some(Measured { rtt, chunk }) = measured {
            rtt.into_iter().for_each(|rtt| conn.liveness.inherit(rtt));
            conn.pace.inherit(chunk);
        }
    }

    /// The connection has ended.
    pub(super) fn remember_path(&mut self, id: ConnId) {
        let conn = self.conns.iter().find(|conn| conn.id == id);
        if let Some((address, measured)) = conn.and_then(|conn| Some((conn.address?, Measured::of(conn)))) {
            self.paths.remember(address, measured);
        }
    }
}
