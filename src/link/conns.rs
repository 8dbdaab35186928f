//! One connection as the link sees it.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use crate::health::liveness::Liveness;
use crate::health::pace::Pace;
use crate::health::score::ConnScore;
use crate::id::{ConnId, Incarnation, PeerId};
use crate::wire::control::{GoawayReason, Hello};

use super::Violation;
use super::gather::Gather;
use super::output::{CloseReason, Output};
use super::scheduler::Scheduler;

/// Pongs that nobody asked for before the connection ends.
const MAX_STRIKES: u32 = 16;

/// A connection whose handshake is complete.
pub(crate) struct NewConn<C = ConnId> {
    pub(crate) id: ConnId,
    /// By this the link names the connection in its output.
    pub(crate) handle: C,
    /// Whether this side dialled.
    pub(crate) dialled: bool,
    pub(crate) incarnation: Incarnation,
    pub(crate) ours: Hello,
    pub(crate) theirs: Hello,
}

impl<C> NewConn<C> {
    /// The HELLO of the side that dialled: it names the connection.
    pub(super) fn of_dialer(&self) -> &Hello {
        if self.dialled { &self.ours } else { &self.theirs }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Draining {
    /// We said or will say GOAWAY.
    ByUs { reason: GoawayReason, said: bool },
    /// The peer said it.
    ByPeer(GoawayReason),
}

#[derive(Debug)]
pub(crate) struct Conn<C = ConnId> {
    pub(crate) id: ConnId,
    pub(crate) handle: C,
    /// The dialer's name for it.
    pub(super) token: u64,
    pub(crate) slot: u8,
    /// Where the other end is, if that is known.
    pub(super) address: Option<IpAddr>,
    /// Whether this side dialled.
    pub(crate) dialled: bool,
    /// The port at which the other side accepts connections, as it said.
    pub(crate) peer_port: Option<NonZeroU16>,
    pub(crate) liveness: Liveness,
    pub(crate) pace: Pace,
    pub(crate) score: ConnScore,
    pub(super) scheduler: Scheduler,
    /// When the kernel is to be asked next how the connection does.
    pub(super) next_sample: Instant,
    /// The pong to send: its nonce and padding.
    pub(crate) pong: Option<(u64, usize)>,
    /// The ping to send.
    pub(crate) ping: Option<u64>,
    /// Something of ours came through: the way there and back works.
    pub(crate) proven: bool,
    /// It is to take the place of another one: only the answer to a PING that fills a segment proves it.
    pub(super) on_trial: bool,
    /// The bytes of a full segment, if they are known.
    pub(super) segment: usize,
    /// Its writer sleeps until it is woken.
    pub(crate) idle: bool,
    pub(super) gather: Gather,
    /// Its writer sleeps although there are messages: see [`super::gather`].
    pub(super) gathering: bool,
    /// Its score is so low that any other one is better.
    pub(crate) poor: bool,
    draining: Option<(Draining, Instant)>,
    /// The link has asked for its end, and will not ask again.
    pub(super) closing: bool,
    /// The peer has said its last word.
    pub(super) goaway_heard: bool,
    /// This newcomer goes if one of these incumbents shows a sign of life after the instant.
    pub(super) contests: Vec<(ConnId, Instant)>,
    /// The connection that it replaces when it has proved itself.
    pub(super) succeeds: Vec<ConnId>,
}

/// Where a lane goes whose home is slot `home`, best first. Urgent lanes (home 0) would rather be with the
/// normal ones (2) than with bulk (1); those two would rather be with each other.
pub(super) fn preference(home: u8, slot: u8) -> u8 {
    match (home, slot) {
        (home, slot) if home == slot => 2,
        (0, 2) | (1, 2) | (2, 1) => 1,
        _ => 0,
    }
}

impl<C: Clone> Conn<C> {
    /// Wakes its writer if it sleeps.
    pub(super) fn wake<T, R>(&mut self, output: &mut Output<T, R, C>) {
        if std::mem::take(&mut self.idle) {
            output.wake.push(self.handle.clone());
        }
    }

    pub(super) fn new(
        new: &NewConn<C>,
        liveness: Liveness,
        pace: Pace,
        scheduler: Scheduler,
        now: Instant,
    ) -> Self {
        let dialer = new.of_dialer();
        Conn {
            id: new.id,
            handle: new.handle.clone(),
            token: dialer.token,
            slot: dialer.slot,
            address: None,
            dialled: new.dialled,
            peer_port: new.theirs.port.and_then(NonZeroU16::new),
            liveness,
            pace,
            score: ConnScore::new(now),
            scheduler,
            next_sample: now,
            pong: None,
            ping: None,
            proven: false,
            on_trial: dialer.replaces.is_some(),
            segment: 0,
            idle: false,
            gather: Gather::default(),
            gathering: false,
            poor: false,
            draining: None,
            closing: false,
            goaway_heard: false,
            contests: Vec::new(),
            succeeds: Vec::new(),
        }
    }

    pub(crate) fn draining(&self) -> Option<Draining> {
        self.draining.map(|(draining, _)| draining)
    }

    pub(crate) fn drain_deadline(&self) -> Option<Instant> {
        self.draining.map(|(_, deadline)| deadline)
    }

    /// It is given up: it serves no longer, and waits for its end.
    pub(super) fn give_up(&mut self) {
        self.closing = true;
    }

    /// When something is due on it next.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let look = self.is_watched().then_some(self.next_sample);
        let next = self.drain_deadline().into_iter().chain(look).chain([self.liveness.next_timeout()]).min();
        next.filter(|_| !self.closing)
    }

    /// Whether the kernel's view of it can tell anything new.
    pub(super) fn is_watched(&self) -> bool {
        self.is_serving() && (self.poor || self.liveness.is_stalled() || self.liveness.expects_answer())
    }

    pub(crate) fn goaway_said(&mut self) {
        if let Some((Draining::ByUs { said, .. }, _)) = &mut self.draining {
            *said = true;
        }
    }

    /// How well it serves; see [`super::pool`].
    pub(super) fn rank(&self) -> u8 {
        if self.closing || self.draining.is_some() {
            0
        } else if self.liveness.is_suspect() {
            1
        } else if !self.proven {
            2
        } else if self.poor {
            3
        } else {
            4
        }
    }

    /// Whether the padded PING that is to prove it was not answered yet.
    pub(super) fn is_on_trial(&self) -> bool {
        self.on_trial && !self.proven
    }

    /// Above suspicion.
    pub(crate) fn is_up(&self) -> bool {
        self.rank() > 1
    }

    pub(crate) fn is_serving(&self) -> bool {
        self.rank() > 0
    }

    /// Control frames may be sent on it.
    pub(super) fn speaks(&self) -> bool {
        !self.closing && !matches!(self.draining(), Some(Draining::ByUs { said: true, .. }))
    }

    /// False if it was draining already.
    pub(super) fn start_draining(&mut self, how: Draining, deadline: Instant) -> bool {
        let starts = self.draining.is_none();
        self.draining.get_or_insert((how, deadline));
        starts
    }

    pub(crate) fn handle_pong(&mut self, nonce: u64, now: Instant) -> Result<Option<Duration>, Violation> {
        if let Some(round_trip) = self.liveness.handle_pong(nonce, now) {
            self.score.handle_rtt(round_trip, now);
            self.score.handle_answer(now);
            return Ok(Some(round_trip));
        }
        if self.liveness.strikes() > MAX_STRIKES { Err(Violation::TooManyUnaskedPongs) } else { Ok(None) }
    }

    /// Asks for a look at it if none was asked for of late.
    pub(super) fn request_sample<T, R>(
        &mut self,
        every: Duration,
        now: Instant,
        output: &mut Output<T, R, C>,
    ) {
        if self.next_sample <= now {
            self.next_sample = now + every;
            output.samples.push(self.handle.clone());
        }
    }

    /// The round trip of the path if it is known, without the time for which bytes wait for our reader: what
    /// the kernel measures, which may end at a proxy, or the least that a ping took.
    pub(super) fn path_rtt(&self) -> Option<Duration> {
        self.score.least_rtt().map(|least| least.max(self.liveness.kernel_rtt()))
    }

    /// The side that opened it, in a form that both sides agree on.
    pub(super) fn opener(&self, us: PeerId, peer: PeerId) -> PeerId {
        if self.dialled { us } else { peer }
    }
}

/// The connections of a link, in the order in which they joined.
#[derive(Debug)]
pub(super) struct Conns<C> {
    joined: Vec<Conn<C>>,
    /// Connections of an earlier session: the link has asked for their end, and they carry nothing.
    former: Vec<(ConnId, C)>,
}

impl<C> Default for Conns<C> {
    fn default() -> Self {
        Conns { joined: Vec::new(), former: Vec::new() }
    }
}

/// Those of this session.
impl<C> Deref for Conns<C> {
    type Target = Vec<Conn<C>>;

    fn deref(&self) -> &Vec<Conn<C>> {
        &self.joined
    }
}

impl<C> DerefMut for Conns<C> {
    fn deref_mut(&mut self) -> &mut Vec<Conn<C>> {
        &mut self.joined
    }
}

impl<C: Clone> Conns<C> {
    /// The handles of all connections that have not ended.
    pub(super) fn handles(&self) -> impl Iterator<Item = &C> {
        self.joined.iter().map(|conn| &conn.handle).chain(self.former.iter().map(|(_, handle)| handle))
    }

    /// The session is over: its connections are to end.
    pub(super) fn let_go<T, R>(&mut self, output: &mut Output<T, R, C>) {
        for conn in self.joined.drain(..) {
            output.close.push((conn.handle.clone(), CloseReason::PeerRestarted));
            self.former.push((conn.id, conn.handle));
        }
    }

    /// The connection has ended. False if the link had let go of it before.
    pub(super) fn remove(&mut self, id: ConnId) -> bool {
        self.former.retain(|(former, _)| *former != id);
        let before = self.joined.len();
        self.joined.retain(|conn| conn.id != id);
        self.joined.len() < before
    }

    pub(super) fn by_id(&mut self, id: ConnId) -> Option<&mut Conn<C>> {
        self.iter_mut().find(|conn| conn.id == id)
    }

    /// The connection that serves lanes of that home best, the current one among equals; an urgent lane would
    /// rather have one that is not stalled.
    pub(super) fn best(&self, home: u8, is_urgent: bool, current: Option<ConnId>) -> Option<&Conn<C>> {
        self.iter().filter(|conn| conn.is_serving()).max_by_key(|conn| {
            let moves = !(is_urgent && conn.liveness.is_stalled());
            (conn.rank(), moves, preference(home, conn.slot), Some(conn.id) == current, Reverse(conn.id))
        })
    }

    /// The connection that carries cancellations, and acknowledgements that have no better way: the best
    /// there is, and if there is no other, one that drains and has not sent its GOAWAY.
    pub(super) fn control(&self) -> Option<ConnId> {
        let speaking = || self.iter().filter(|conn| conn.speaks()).min_by_key(|conn| conn.id);
        self.best(0, false, None).or_else(speaking).map(|conn| conn.id)
    }

    /// Wakes the writer of this connection if it sleeps.
    pub(super) fn wake<T, R>(&mut self, id: ConnId, output: &mut Output<T, R, C>) {
        self.by_id(id).into_iter().for_each(|conn| conn.wake(output));
    }
}
