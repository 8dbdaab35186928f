//! One address to dial: what is planned for each place of the pool behind it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::config::{PathConfig, PeerConfig};
use crate::error::{EndCause, EndReason};
use crate::health::backoff::Backoff;
use crate::health::breaker::Breaker;
use crate::id::PeerId;

use super::addresses::Group;
use super::records::Memory;
use super::slots::{LinkView, ReplaceReason, Slots, Trouble};
use super::trials::Trials;
use crate::lane::MAX_SLOTS;

/// Names an address for as long as the node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TargetId(pub(super) u64);

/// A candidate that was just dialled in vain is one of many: it is left alone for longer than a peer that is
/// wanted, by these factors for the first and the longest wait.
const CANDIDATE_FIRST: u32 = 4;
const CANDIDATE_MAX: u32 = 10;
/// A connection counts as a success when it has answered and is so old: a handshake is no proof of a path
/// that works. By default 5 s, a quarter of `dead_after`.
const PROOF_PART: u32 = 4;

/// After a refusal that lasts, the next dial comes no sooner than after half of so many times the first bound
/// of the backoff: by default 2.5 to 5 s.
const LASTING: u32 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Configured or added: dialled for ever, never retired.
    Wanted,
    /// Learned. Dialled only while it is active: chosen, and linked or on the way to be.
    Candidate { active: bool },
}

#[derive(Debug)]
pub(super) struct Target {
    pub(super) id: TargetId,
    pub(super) config: PeerConfig,
    pub(super) group: Group,
    pub(super) role: Role,
    /// The peer that answered there last.
    pub(super) peer: Option<PeerId>,
    /// The application was told that somebody else than the bound peer answers there, too.
    pub(super) conflict_told: bool,
    /// A candidate that is not to be dialled: it is this node itself, or asked us to stay away.
    pub(super) blocked: bool,
    /// No dial before this instant: this node itself answered, or the peer asked us to stay away. An
    /// operator's entry is tried again some time: names change what they stand for, and a peer forgets
    /// that it removed us.
    pub(super) rests_until: Option<Instant>,
    pub(super) places: [PoolSlot; MAX_SLOTS as usize],
    /// The next attempt while nothing answers on the link; of a candidate at rest, when it may be chosen.
    pub(super) retry_at: Instant,
    pub(super) backoff: Backoff,
    pub(super) breaker: Breaker,
    /// The application was told last that the breaker is open.
    pub(super) told_open: bool,
    pub(super) last_error: Option<EndReason>,
    /// Since when it has been known, or wanted.
    pub(super) since: Instant,
    pub(super) memory: Memory,
    pub(super) trials: Trials,
    /// How old a connection that answers must be to count as a success.
    proof_age: Duration,
    /// An answer forgives what went before only once until a connection has lasted.
    spent: bool,
}

/// The plan for one slot of the pool.
#[derive(Debug)]
pub(super) struct PoolSlot {
    pub(super) dialing: Option<Dialing>,
    /// The next attempt while the link answers elsewhere; `None`: at once.
    pub(super) retry_at: Option<Instant>,
    pub(super) backoff: Backoff,
    /// The last dial was made again at once because the session had changed.
    pub(super) retried: bool,
    /// When something of ours was answered over the connection in this place, which has not proved to last
    /// yet.
    pub(super) answered: Option<Instant>,
    /// As [`Target::spent`], for this place.
    pub(super) spent: bool,
    /// The address that led to the last connection in this place.
    pub(super) worked: Option<SocketAddr>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Dialing {
    /// Made because nothing answered on the link: it speaks for the peer, not only for the place.
    pub(super) probe: bool,
    pub(super) replaces: Option<Trouble>,
}

/// The dials under way to one peer, by any of its addresses.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Busy {
    pub(super) slots: Slots,
    pub(super) probing: bool,
}

/// A dial that is to be made.
#[derive(Clone, Copy, Debug)]
pub(super) struct DialRequest {
    pub(super) slot: u8,
    /// `None`: at once.
    pub(super) at: Option<Instant>,
    pub(super) probe: bool,
    pub(super) replaces: Option<Trouble>,
}

impl Target {
    pub(super) fn new(id: TargetId, config: PeerConfig, role: Role, path: &PathConfig, now: Instant) -> Self {
        let place = || PoolSlot {
            dialing: None,
            retry_at: None,
            backoff: Backoff::new(path.backoff_first, path.backoff_max),
            retried: false,
            answered: None,
            spent: false,
            worked: None,
        };
        Target {
            id,
            group: Group::of(&config.address),
            config,
            role,
            peer: None,
            conflict_told: false,
            blocked: false,
            rests_until: None,
            places: [place(), place(), place()],
            retry_at: now,
            backoff: backoff_of(role, path),
            breaker: Breaker::new(path.breaker_threshold),
            told_open: false,
            last_error: None,
            since: now,
            memory: Memory::default(),
            trials: Trials::new(path.suspect_after),
            proof_age: path.dead_after / PROOF_PART,
            spent: false,
        }
    }

    /// The application asks for it (again): it is dialled now, whatever was before.
    pub(super) fn want(&mut self, config: PeerConfig, path: &PathConfig, now: Instant) {
        if config.id.is_some() && config.id != self.peer {
            self.peer = None;
        }
        let id = config.id.or(self.config.id);
        self.config = PeerConfig { id, ..config };
        if !self.is_wanted() {
            self.since = now;
        }
        self.role = Role::Wanted;
        self.blocked = false;
        self.conflict_told = false;
        self.rests_until = None;
        self.retry_at = now;
        self.backoff = backoff_of(self.role, path);
        self.breaker = Breaker::new(path.breaker_threshold);
        self.trials = Trials::new(path.suspect_after);
        for place in &mut self.places {
            (place.retry_at, place.retried) = (None, false);
            place.backoff = Backoff::new(path.backoff_first, path.backoff_max);
        }
    }

    /// The peer behind it, as far as it is known.
    pub(super) fn known(&self) -> Option<PeerId> {
        self.peer.or(self.config.id)
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.role == Role::Wanted
    }

    pub(super) fn is_candidate(&self) -> bool {
        !self.is_wanted()
    }

    pub(super) fn is_active_candidate(&self) -> bool {
        self.role == Role::Candidate { active: true }
    }

    /// Connections to it are to be made.
    pub(super) fn is_kept(&self) -> bool {
        !self.blocked && self.role != Role::Candidate { active: false } && self.config.has_address()
    }

    /// A candidate is not to be dialled until it is chosen again, at the earliest at `until`.
    pub(super) fn deactivate(&mut self, until: Instant) {
        self.role = Role::Candidate { active: false };
        self.retry_at = until;
    }

    pub(super) fn place_mut(&mut self, slot: u8) -> Option<&mut PoolSlot> {
        self.places.get_mut(usize::from(slot))
    }

    /// The address that worked last for this place, unless an earlier place goes there, too: so a pool that
    /// had to share an address spreads again.
    pub(super) fn preferred(&self, slot: u8) -> Option<SocketAddr> {
        let (before, rest) = self.places.split_at_checked(slot.into())?;
        let worked = rest.first()?.worked?;
        (!before.iter().any(|place| place.worked == Some(worked))).then_some(worked)
    }

    /// How many dials to it are under way.
    pub(super) fn dials(&self) -> usize {
        self.places.iter().filter(|place| place.dialing.is_some()).count()
    }

    pub(super) fn dialing(&self) -> Busy {
        let mut busy = Busy::default();
        for (slot, dialing) in
            (0u8..).zip(&self.places).filter_map(|(slot, place)| Some((slot, place.dialing?)))
        {
            busy.slots.insert(slot);
            busy.probing |= dialing.probe;
        }
        busy
    }

    /// The dials that its link needs and that are not under way. `wanted`: how many connections it is to own.
    pub(super) fn dial_requests(
        &self,
        view: LinkView,
        busy: Busy,
        wanted: u8,
    ) -> impl Iterator<Item = DialRequest> + use<> {
        let mut dial_requests = [None; MAX_SLOTS as usize];
        let needs = |slot: u8| match view.trouble(slot) {
            Some(trouble) if slot < wanted || trouble.reason == ReplaceReason::Asked => Some(Some(trouble)),
            None if slot < wanted && !view.good.contains(slot) => Some(None),
            _ => None,
        };
        let probing = !answers(&view);
        if self.is_kept() && !(probing && busy.probing) {
            for (slot, (request, place)) in (0u8..).zip(dial_requests.iter_mut().zip(&self.places)) {
                if !busy.slots.contains(slot)
                    && let Some(replaces) = needs(slot)
                {
                    let at = if probing { Some(self.retry_at) } else { place.retry_at };
                    let at = at.max(replaces.and_then(|trouble| self.trials.free_at(&trouble, probing)));
                    let at = at.max(self.rests_until);
                    *request = Some(DialRequest { slot, at, probe: probing, replaces });
                }
            }
        }
        // While nothing answers one dial tells whether the peer is there, rather one that replaces nobody.
        let probe = dial_requests
            .iter()
            .flatten()
            .min_by_key(|request| (request.replaces.is_some(), request.slot))
            .copied();
        if probing {
            dial_requests = [probe, None, None];
        }
        dial_requests.into_iter().flatten()
    }

    /// The link has changed.
    pub(super) fn handle_link(
        &mut self,
        old: &LinkView,
        new: &LinkView,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) {
        let mut died_young = false;
        for (slot, place) in (0u8..).zip(&mut self.places) {
            if old.serving().contains(slot) && !new.serving().contains(slot) {
                died_young |= place.answered.take().is_some();
            }
            if old.good.contains(slot) && !new.good.contains(slot) {
                place.retry_at = Some(now + place.backoff.next(now, rng));
            }
        }
        if answers(old) && !answers(new) {
            self.retry_at = now + self.backoff.next(now, rng);
            if died_young {
                self.breaker.handle_failure();
            }
        }
        if old.is_linked() || new.is_linked() {
            self.memory.handle_seen(now);
        }
    }

    /// A dial to this place has failed. Returns the wait until the next one; `None` when none was under way.
    /// `reason`: `None` if that does not count against the peer.
    pub(super) fn handle_failed(
        &mut self,
        slot: u8,
        reason: Option<&EndReason>,
        usual: &PathConfig,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Option<Duration> {
        let place = self.places.get_mut(usize::from(slot))?;
        let dialing = place.dialing.take()?;
        let path = self.config.path.as_ref().unwrap_or(usual);
        let backoff = if dialing.probe { &mut self.backoff } else { &mut place.backoff };
        let wait = wait_after(reason, backoff.next(now, rng), path, rng);
        place.retry_at = Some(now + wait);
        if dialing.probe {
            self.retry_at = now + wait;
            self.breaker.handle_failure();
            let counts =
                reason.is_some_and(|reason| !matches!(reason.cause, EndCause::Shutdown | EndCause::Panic));
            self.memory.failures = self.memory.failures.saturating_add(u32::from(counts));
        }
        Some(wait)
    }

    /// A dial of one place is to be made again at once; false if it was already.
    pub(super) fn retry(&mut self, slot: u8, now: Instant) -> bool {
        let Some(place) = self.place_mut(slot).filter(|place| place.dialing.is_some() && !place.retried)
        else {
            return false;
        };
        (place.dialing, place.retry_at, place.retried) = (None, Some(now), true);
        self.retry_at = now;
        true
    }

    /// Something of ours was answered over a new connection in this place.
    pub(super) fn handle_proven(&mut self, slot: u8, now: Instant) {
        if !std::mem::replace(&mut self.spent, true) {
            self.backoff.succeed();
        }
        if let Some(place) = self.place_mut(slot) {
            place.answered = Some(now);
            if !std::mem::replace(&mut place.spent, true) {
                place.backoff.succeed();
            }
        }
    }

    /// When the next connection that answers is old enough to count as a success.
    pub(super) fn success_at(&self) -> Option<Instant> {
        self.places.iter().filter_map(|place| place.answered).min().map(|at| at + self.proof_age)
    }

    /// Connections that are old enough count as a success.
    pub(super) fn handle_age(&mut self, now: Instant) {
        for slot in 0..MAX_SLOTS {
            let answered = self.places.get(usize::from(slot)).and_then(|place| place.answered);
            if answered.is_some_and(|at| at + self.proof_age <= now) {
                self.succeed(slot);
            }
        }
    }

    /// Earlier failures are forgiven.
    pub(super) fn succeed(&mut self, slot: u8) {
        if let Some(place) = self.place_mut(slot) {
            (place.answered, place.spent) = (None, false);
            place.backoff.succeed();
        }
        self.spent = false;
        self.backoff.succeed();
        self.breaker.handle_success();
    }

    /// A connection in this place has ended that was of use, however young it was: the next dial is made at
    /// once.
    pub(super) fn handle_useful(&mut self, slot: u8, now: Instant, rng: &mut fastrand::Rng) {
        self.succeed(slot);
        // The link may have told of the loss before.
        if self.retry_at > now {
            self.retry_at = now + self.backoff.next(now, rng);
        }
        if let Some(place) = self.place_mut(slot).filter(|place| place.retry_at.is_some_and(|at| at > now)) {
            place.retry_at = Some(now + place.backoff.next(now, rng));
        }
    }

    /// This node lacked something for a dial: that says nothing of the peer.
    pub(super) fn handle_shortage(&mut self, slot: u8, wait: Duration, now: Instant) -> Option<Duration> {
        let place = self.place_mut(slot)?;
        place.dialing.take()?;
        place.retry_at = Some(now + wait);
        self.retry_at = self.retry_at.max(now + wait);
        Some(wait)
    }

    /// So many times the longest backoff of this peer's path.
    pub(super) fn rest_time(&self, times: u32, usual: &PathConfig) -> Duration {
        self.config.path.as_ref().unwrap_or(usual).backoff_max.saturating_mul(times)
    }

    /// Rests for so long. Candidates that rest for such a reason are not chosen again.
    pub(super) fn stay_away(&mut self, wait: Duration, now: Instant) {
        self.blocked = self.is_candidate();
        self.rests_until = Some(now + wait);
    }

    /// All waits are over and begin anew.
    pub(super) fn dial_now(&mut self, now: Instant) {
        self.retry_at = self.retry_at.min(now);
        self.backoff.succeed();
        for place in &mut self.places {
            place.retry_at = place.retry_at.map(|at| at.min(now));
            place.backoff.succeed();
        }
    }

    pub(super) fn not_at_once(&mut self) {
        self.backoff.not_at_once();
        self.places.iter_mut().for_each(|place| place.backoff.not_at_once());
    }
}

/// Whether anything on the link answers: a connection that is old or poor does, a suspect one does not.
pub(super) fn answers(view: &LinkView) -> bool {
    let answering = |trouble: &Trouble| trouble.reason != ReplaceReason::Suspect;
    !view.good.is_empty() || view.troubled.iter().flatten().any(answering)
}

/// The wait after a dial that failed so. A refusal that lasts is not met once more within moments, however
/// short the backoff still is. The time that the peer has named, which is believed up to the longest backoff,
/// comes before all of that: so the peer is not dialled earlier, and not by all at once that it told the
/// same.
pub(super) fn wait_after(
    reason: Option<&EndReason>,
    backoff: Duration,
    path: &PathConfig,
    rng: &mut fastrand::Rng,
) -> Duration {
    let lasting = reason.filter(|reason| reason.is_lasting()).map_or(Duration::ZERO, |_| {
        path.backoff_first.saturating_mul(LASTING).mul_f64(0.5 + rng.f64() / 2.0).min(path.backoff_max)
    });
    let told = reason.and_then(EndReason::told_wait).unwrap_or_default().min(path.backoff_max);
    told + backoff.max(lasting)
}

/// The attempt that is due when it is made is the one at once.
fn backoff_of(role: Role, path: &PathConfig) -> Backoff {
    let (first, max) = match role {
        Role::Wanted => (1, 1),
        Role::Candidate { .. } => (CANDIDATE_FIRST, CANDIDATE_MAX),
    };
    let mut backoff =
        Backoff::new(path.backoff_first.saturating_mul(first), path.backoff_max.saturating_mul(max));
    backoff.not_at_once();
    backoff
}
