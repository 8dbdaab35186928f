//! Open requests, in both directions. They belong to the link and survive its connections.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::lane::LaneId;

use super::Violation;

/// The longest that a request may wait.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Pending<R> {
    pub(crate) lane: LaneId,
    deadline: Instant,
    pub(crate) waiter: R,
}

#[derive(Debug)]
struct Open {
    lane: LaneId,
    deadline: Instant,
    cancelled: bool,
}

/// Whether the requester waits, until when, and the request: the first one goes first when there is no room.
type Rank = (bool, Instant, u64);

impl Open {
    fn rank(&self, id: u64) -> Rank {
        (!self.cancelled, self.deadline, id)
    }
}

#[derive(Debug)]
pub(crate) struct Requests<R> {
    max_open: usize,
    next_id: u64,
    /// Ours, waiting for a reply.
    pending: HashMap<u64, Pending<R>>,
    /// The peer's, with our application.
    open: HashMap<u64, Open>,
    /// The same, in the order in which they go.
    ranks: BTreeSet<Rank>,
    /// The earliest of all deadlines, or earlier.
    next_deadline: Option<Instant>,
}

impl<R> Requests<R> {
    pub(crate) fn new(max_open: usize, first_id: u64) -> Self {
        Requests {
            max_open,
            next_id: first_id,
            pending: HashMap::new(),
            open: HashMap::new(),
            ranks: BTreeSet::new(),
            next_deadline: None,
        }
    }

    // --- ours -----------------------------------------------------------------------------------

    pub(crate) fn has_room(&self) -> bool {
        self.pending.len() < self.max_open
    }

    pub(crate) fn next_id(&mut self) -> u64 {
        self.next_id = self.next_id.wrapping_add(1);
        self.next_id
    }

    pub(crate) fn ask(&mut self, id: u64, lane: LaneId, deadline: Instant, waiter: R) {
        self.note(deadline);
        self.pending.insert(id, Pending { lane, deadline, waiter });
    }

    /// The reply has come, or nobody waits any longer.
    pub(crate) fn close(&mut self, id: u64) -> Option<Pending<R>> {
        self.pending.remove(&id)
    }

    /// Ends all requests for which `goes` holds.
    pub(crate) fn close_where(&mut self, goes: impl Fn(u64, LaneId) -> bool) -> Vec<R> {
        let ids: Vec<u64> =
            self.pending.iter().filter(|(id, pending)| goes(**id, pending.lane)).map(|(id, _)| *id).collect();
        ids.into_iter().filter_map(|id| self.pending.remove(&id)).map(|pending| pending.waiter).collect()
    }

    // --- the peer's -----------------------------------------------------------------------------

    /// Opens a request. True if another one had to go for it.
    pub(crate) fn handle_request(
        &mut self,
        id: u64,
        lane: LaneId,
        wait: Duration,
        now: Instant,
    ) -> Result<bool, Violation> {
        let full = self.open.len() >= self.max_open;
        if full {
            self.make_room();
        }
        let deadline = now + wait.min(MAX_WAIT);
        self.note(deadline);
        if self.open.contains_key(&id) {
            return Err(Violation::RequestTwice(id));
        }
        let open = Open { lane, deadline, cancelled: false };
        self.ranks.insert(open.rank(id));
        self.open.insert(id, open);
        Ok(full)
    }

    /// A requester stops waiting before this side hears of it (its time is over, its CANCEL got lost
    /// or went ahead of the request), so an honest one may seem to have more open than it may. The one
    /// that it gave up goes, or else the one that has least time left.
    fn make_room(&mut self) {
        if let Some((_, _, id)) = self.ranks.pop_first() {
            self.open.remove(&id);
        }
    }

    pub(crate) fn handle_cancel(&mut self, id: u64) {
        if let Some(open) = self.open.get_mut(&id) {
            self.ranks.remove(&open.rank(id));
            open.cancelled = true;
            self.ranks.insert(open.rank(id));
        }
    }

    /// Whether the requester still waits.
    pub(crate) fn is_open(&self, id: u64) -> bool {
        self.open.get(&id).is_some_and(|open| !open.cancelled)
    }

    pub(crate) fn lane_of(&self, id: u64) -> Option<LaneId> {
        self.open.get(&id).map(|open| open.lane)
    }

    /// The application answers, or lets the request go.
    pub(crate) fn answer(&mut self, id: u64) {
        if let Some(open) = self.open.remove(&id) {
            self.ranks.remove(&open.rank(id));
        }
    }

    pub(crate) fn forget_peers(&mut self) {
        self.open.clear();
        self.ranks.clear();
    }

    // --- time -----------------------------------------------------------------------------------

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.next_deadline
    }

    /// Ends what is overdue. Returns our own requests that nobody answered.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<(u64, Pending<R>)> {
        if self.next_deadline.is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.open.retain(|_, open| open.deadline > now);
        self.ranks.retain(|(_, deadline, _)| *deadline > now);
        let ids: Vec<u64> =
            self.pending.iter().filter(|(_, pending)| pending.deadline <= now).map(|(id, _)| *id).collect();
        let over = ids.into_iter().filter_map(|id| Some((id, self.pending.remove(&id)?))).collect();
        let open = self.open.values().map(|open| open.deadline);
        self.next_deadline = open.chain(self.pending.values().map(|pending| pending.deadline)).min();
        over
    }

    fn note(&mut self, deadline: Instant) {
        self.next_deadline = Some(self.next_deadline.map_or(deadline, |at| at.min(deadline)));
    }

    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.pending.len(), self.open.len())
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn check(&self) {
        assert_eq!(self.ranks.len(), self.open.len());
        assert!(self.open.iter().all(|(id, open)| self.ranks.contains(&open.rank(*id))));
    }
}
