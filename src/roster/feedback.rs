//! Feedback to the roster: the results of dials, and the changes of links.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::error::{EndCause, EndReason};
use crate::id::PeerId;
use crate::wire::control::GoawayReason;
use crate::wire::refused::RefusedReason;

use super::Roster;
use super::slots::LinkView;
use super::target::{Target, TargetId};

/// For how many times the longest backoff an entry rests where this node itself answered.
const SELF_REST: u32 = 1;
/// The same where the peer asked us to stay away.
const REMOVED_REST: u32 = 10;
/// A dial that this node had no means for is made again after about so long.
pub(super) const SHORTAGE_WAIT: Duration = Duration::from_millis(500);

/// Why a peer is not dialled again at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeldUp {
    /// It goes down, has no room, or has broken the protocol: it will not be there.
    Gone,
    /// It has put another connection in the place of one. We may hear of the end of the old before the new
    /// one has joined on our side, and must not dial a third at once.
    Moved,
}

impl HeldUp {
    /// A peer that has found better ones will not be there at once either.
    pub(crate) fn after(goodbye: GoawayReason) -> Self {
        if goodbye.is_changeover() { HeldUp::Moved } else { HeldUp::Gone }
    }

    /// A candidate is not held up by a connection that moved: it would lose its turn for that.
    fn concerns(self, target: &Target) -> bool {
        self == HeldUp::Gone || target.is_wanted()
    }
}

impl Roster {
    /// A peer has proven who it is on a dialled connection that has not joined its link yet.
    pub(crate) fn handle_identified(&mut self, target: TargetId, peer: PeerId) {
        if let Some(target) = self.targets.iter_mut().find(|candidate| candidate.id == target) {
            target.peer.get_or_insert(peer);
        }
    }

    /// The address by which a dial has led to a connection that joined its link.
    pub(crate) fn handle_reached(&mut self, target: TargetId, slot: u8, addr: SocketAddr) {
        let target = self.targets.iter_mut().find(|candidate| candidate.id == target);
        if let Some(place) = target.and_then(|target| target.place_mut(slot)) {
            place.worked = Some(addr);
        }
    }

    /// A dial has led to a peer, whose connection joined its link. False when nobody wants that peer any
    /// longer; one that was dialled back need not be wanted.
    pub(crate) fn handle_dialled(&mut self, target: TargetId, slot: u8, peer: PeerId, now: Instant) -> bool {
        if self.dial_backs.handle_joined(target, now) {
            self.peers.entry(peer).or_default().view.good.insert(slot);
            return true;
        }
        let known_otherwise = self
            .targets
            .iter()
            .any(|other| other.id != target && other.known() == Some(peer) && other.is_kept());
        let serves = |bound: PeerId| bound != peer && self.peers.contains_key(&bound);
        if let Some(target) = self.targets.iter_mut().find(|candidate| candidate.id == target) {
            if target.peer.is_some_and(serves) {
                // The bound peer was linked by its own dial while this one was under way.
                target.handle_failed(slot, None, &self.settings.path, now, &mut self.rng);
                return self.is_kept(peer);
            }
            if let Some(place) = target.place_mut(slot) {
                place.retried = false;
                let replaced = place.dialing.take().and_then(|dialing| dialing.replaces);
                replaced.into_iter().for_each(|trouble| target.trials.handle_made(&trouble, now));
            }
            if target.peer.replace(peer) != Some(peer) {
                target.conflict_told = false;
            }
            target.last_error = None;
            target.rests_until = None;
            target.memory.handle_seen(now);
            if target.is_candidate() && known_otherwise {
                target.deactivate(now);
            }
            // Until the link says otherwise: a loss in between must count as one.
            self.peers.entry(peer).or_default().view.good.insert(slot);
        }
        self.is_kept(peer)
    }

    /// Somebody else than the expected peer answered. True if the application is to be told: once for each
    /// binding.
    pub(crate) fn handle_wrong_peer(&mut self, target: TargetId) -> bool {
        let target = self.targets.iter_mut().find(|candidate| candidate.id == target);
        target.is_some_and(|target| !std::mem::replace(&mut target.conflict_told, true))
    }

    /// A dial has failed. Returns the wait until the next one; `None` when it depends on something else.
    pub(crate) fn handle_dial_failed(
        &mut self,
        target: TargetId,
        slot: u8,
        reason: &EndReason,
        now: Instant,
    ) -> Option<Duration> {
        let Some(index) = self.targets.iter().position(|candidate| candidate.id == target) else {
            return self.dial_backs.handle_failed(target, reason, &self.settings.path, now, &mut self.rng);
        };
        let target = self.targets.get_mut(index)?;
        target.last_error = Some(reason.clone());
        if reason.cause == EndCause::SelfConnection {
            let wait = target.rest_time(SELF_REST, &self.settings.path);
            target.stay_away(wait, now);
            target.place_mut(slot)?.dialing = None;
            self.settle_candidate(index, now);
            return self.targets.get(index)?.is_kept().then_some(wait);
        }
        if reason.is_local_shortage() {
            let wait = SHORTAGE_WAIT.mul_f64(0.5 + self.rng.f64());
            return target.handle_shortage(slot, wait, now);
        }
        // Once: a peer that never agrees must not be dialled in a loop.
        let changed = match &reason.cause {
            EndCause::Retry => true,
            EndCause::RefusedByPeer { reason, .. } => *reason == RefusedReason::Retry,
            _ => false,
        };
        if changed && target.retry(slot, now) {
            return Some(Duration::ZERO);
        }
        let wait = target.handle_failed(slot, Some(reason), &self.settings.path, now, &mut self.rng);
        self.settle_candidate(index, now);
        wait.filter(|_| self.targets.get(index).is_some_and(Target::is_kept))
    }

    /// The connections that serve on the link to this peer have changed.
    pub(crate) fn handle_link(&mut self, peer: PeerId, view: LinkView, now: Instant) {
        let old = self.peers.get(&peer).map(|linked| linked.view).unwrap_or_default();
        let score = self.peers.get(&peer).and_then(|linked| linked.score);
        match view.is_linked() {
            true => self.peers.entry(peer).or_default().view = view,
            false => drop(self.peers.remove(&peer)),
        }
        for index in 0..self.targets.len() {
            let Some(target) = self.targets.get_mut(index) else { continue };
            if target.known() == Some(peer) {
                target.handle_link(&old, &view, now, &mut self.rng);
                target.memory.score = score.or(target.memory.score);
                self.settle_candidate(index, now);
            }
        }
        self.update_dial_back(peer, &view, now);
    }

    /// A candidate that is not to be dialled at once makes room for others.
    fn settle_candidate(&mut self, index: usize, now: Instant) {
        let Some(target) = self.targets.get_mut(index) else { return };
        let is_linked = target.known().is_some_and(|peer| self.peers.contains_key(&peer));
        let rests = target.blocked || (target.retry_at > now && !is_linked);
        if target.is_active_candidate() && target.dialing().slots.is_empty() && rests {
            target.deactivate(target.retry_at);
        }
    }

    /// Something of ours was answered over a connection in this place, for the first time. To be told once
    /// for each connection. When it has lasted, what went wrong before is forgiven.
    pub(crate) fn handle_proven(&mut self, peer: PeerId, slot: u8, now: Instant) {
        let known = self.targets.iter_mut().filter(|target| target.known() == Some(peer));
        known.for_each(|target| target.handle_proven(slot, now));
        self.complete_exchange(peer, now);
    }

    /// A connection has ended that answered and carried something: it was a success, however soon it ended.
    /// What the peer is held up for because of its end stays.
    pub(crate) fn handle_useful(&mut self, peer: PeerId, slot: u8, held_up: Option<HeldUp>, now: Instant) {
        for target in self.targets.iter_mut().filter(|target| target.known() == Some(peer)) {
            if held_up.is_some_and(|why| why.concerns(target)) {
                target.succeed(slot);
                target.not_at_once();
            } else {
                target.handle_useful(slot, now, &mut self.rng);
            }
        }
    }

    /// Connections that have lasted count as successes.
    pub(super) fn handle_ages(&mut self, now: Instant) {
        self.targets.iter_mut().for_each(|target| target.handle_age(now));
    }

    /// The peer is not to be dialled at once when it is missed.
    pub(crate) fn hold_up(&mut self, peer: PeerId, why: HeldUp) {
        let of_peer = self.targets.iter_mut().filter(|target| target.known() == Some(peer));
        of_peer.filter(|target| why.concerns(target)).for_each(Target::not_at_once);
    }

    /// The peer asked us to stay away. Returns the addresses that rest, and for how long.
    pub(crate) fn handle_removed(&mut self, peer: PeerId, now: Instant) -> Vec<(String, Duration)> {
        let mut resting = Vec::new();
        for target in self.targets.iter_mut().filter(|target| target.known() == Some(peer)) {
            let wait = target.rest_time(REMOVED_REST, &self.settings.path);
            target.stay_away(wait, now);
            if target.config.has_address() {
                resting.push((target.config.address.clone(), wait));
            }
            if target.is_active_candidate() {
                target.deactivate(target.retry_at);
            }
        }
        resting
    }
}
