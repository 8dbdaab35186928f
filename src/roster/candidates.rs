//! Which candidates to be linked with.
//!
//! ```text
//!             chosen: too few peers, or in the place of a poor one
//!   resting --------------------------------------------------------> active: dialled, linked
//!      ^                                                                   |
//!      |     the dial failed, the link was lost and is not to be dialled   |
//!      +---- at once, it is somebody we know already, or it was retired ---+
//! ```
//!
//! **Chosen** is who promises most: a good record, divided by how many peers of the same group there are
//! already. So diversity is preferred and nobody is refused for the lack of it. Nobody is chosen while
//! [`MAX_DIALS`] candidates are on the way.
//!
//! **Swap**: a linked candidate whose score stays below [`POOR`] gets a successor that promises more.
//! The successor is linked first, and only when it has answered is the poor one let go. One swap
//! at a time, and a pause after each, however it ended.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use crate::config::PeerConfig;
use crate::health::keepalive::LearnedInterval;
use crate::id::PeerId;

use super::addresses::Group;
use super::records::{Memory, PeerRecord};
use super::target::{Role, Target, TargetId};
use super::{Action, Roster};

/// Candidates that are dialled at once, beside wanted peers.
pub(super) const MAX_DIALS: usize = 4;
/// A score below this is poor. One lost connection gives half; it takes more.
pub(super) const POOR: f64 = 0.4;
/// How much more a candidate has to rank than the poor one gives.
const MARGIN: f64 = 0.1;
/// For how many times `dead_after` a score has to stay poor, and how long it takes at least from one
/// swap to the next. A minute by default: the half-life of scores.
const TIMEOUT: u32 = 3;
/// A peer that was retired is left alone for so many times the longest backoff.
const RETIRED: u32 = 10;

/// A poor peer is being replaced.
#[derive(Clone, Copy, Debug)]
pub(super) struct Swap {
    poor: PeerId,
    with: TargetId,
}

impl Roster {
    /// A candidate. False when its address is known already, or it is this node itself.
    pub(crate) fn learn(&mut self, config: PeerConfig, now: Instant) -> bool {
        let is_known = |target: &Target| target.config.addresses().any(|known| *known == config.address);
        if !config.has_address() || config.id == Some(self.settings.us) || self.targets.iter().any(is_known) {
            return false;
        }
        let id = self.next_id();
        self.push(id, config, Role::Candidate { active: false }, now);
        self.drop_the_worst(now);
        self.targets.iter().any(|target| target.id == id)
    }

    /// Restores a record of an earlier life of this node. A peer that is not known yet becomes a candidate,
    /// and is expected to have the identity that was expected then.
    pub(crate) fn restore(&mut self, record: &PeerRecord, now: Instant) {
        let config = PeerConfig::from(record.clone());
        if !config.has_address()
            || config.validate("record").is_err()
            || record.peer == Some(self.settings.us)
        {
            return;
        }
        let (address, id) = (config.address.clone(), config.id);
        self.learn(config, now);
        if let Some(target) = self.targets.iter_mut().find(|target| target.config.address == address) {
            target.memory = Memory::restored(record, now);
            // The configuration takes precedence; a candidate that was learned before keeps the expected
            // identity of either.
            if target.is_candidate() {
                target.config.id = target.config.id.or(id);
            }
        }
        // Judged again, now that it has a record.
        self.drop_the_worst(now);
    }

    /// Returns a record of each peer that was ever dialled, learned or wanted.
    pub(crate) fn records(&self, now: Instant) -> Vec<PeerRecord> {
        let record = |target: &Target| {
            let linked = target.known().and_then(|peer| self.peers.get(&peer));
            PeerRecord {
                addresses: target.config.addresses().cloned().collect(),
                id: target.config.id,
                peer: target.known(),
                score: linked.and_then(|linked| linked.score).or(target.memory.score),
                failures: target.memory.failures,
                learned: target.memory.learned(now),
                last_seen: linked.map(|_| Duration::ZERO).or_else(|| target.memory.age(now)),
            }
        };
        let dialled = |target: &&Target| !target.blocked && target.config.has_address();
        self.targets.iter().filter(dialled).map(record).collect()
    }

    /// How well a linked peer does, to be told again and again.
    pub(crate) fn handle_score(&mut self, peer: PeerId, score: f64, now: Instant) {
        if let Some(linked) = self.peers.get_mut(&peer) {
            linked.score = Some(score);
            linked.poor_since = (score < POOR).then(|| linked.poor_since.unwrap_or(now));
        }
    }

    /// The lessons of the paths to these peers, to be told with their scores.
    pub(crate) fn handle_learned(
        &mut self,
        learned: &HashMap<PeerId, Option<LearnedInterval>>,
        now: Instant,
    ) {
        for target in &mut self.targets {
            if let Some(learned) = target.known().and_then(|peer| learned.get(&peer)) {
                target.memory.set_learned(*learned, now);
            }
        }
    }

    /// The last lesson of the path to a peer.
    pub(crate) fn learned_of(&self, peer: PeerId, now: Instant) -> Option<LearnedInterval> {
        let known = self.targets.iter().filter(|target| target.known() == Some(peer));
        known.filter_map(|target| target.memory.learned(now)).min_by_key(|learned| learned.interval)
    }

    /// Candidates that are remembered.
    pub(crate) fn candidates(&self) -> usize {
        self.targets.iter().filter(|target| target.is_candidate()).count()
    }

    fn drop_the_worst(&mut self, now: Instant) {
        if self.candidates() <= self.settings.max_candidates {
            return;
        }
        let mut groups = BTreeMap::new();
        for target in &self.targets {
            *groups.entry(&target.group).or_insert(0) += 1;
        }
        // Among equals the one that has most of its kind, then the newest: a flood does not displace who came
        // before it.
        let worth = |target: &Target| if target.blocked { -1.0 } else { target.memory.rank(now) };
        let worst = self.targets.iter().enumerate().filter(|(_, target)| self.is_idle(target)).min_by(
            |(_, a), (_, b)| {
                let crowd = |target: &Target| groups.get(&target.group).copied().unwrap_or(0);
                worth(a).total_cmp(&worth(b)).then(crowd(b).cmp(&crowd(a))).then(b.id.cmp(&a.id))
            },
        );
        if let Some((index, _)) = worst {
            self.targets.remove(index);
        }
    }

    /// A candidate for which nothing is under way.
    fn is_idle(&self, target: &Target) -> bool {
        target.role == Role::Candidate { active: false }
            && target.dialing().slots.is_empty()
            && !self.is_linked(target)
    }

    fn is_linked(&self, target: &Target) -> bool {
        target.known().is_some_and(|peer| self.peers.contains_key(&peer))
    }

    /// Makes one more candidate active if one is needed. False when there is nothing to do.
    pub(super) fn activate_candidate(&mut self, now: Instant) -> bool {
        if self.settings.target_peers == 0 {
            return false;
        }
        let chosen = match self.lacking() {
            0 => self.begin_exchange(now),
            _ if self.candidates_coming() < MAX_DIALS => self.best(None, now),
            _ => None,
        };
        let Some(target) = chosen.and_then(|index| self.targets.get_mut(index)) else { return false };
        target.role = Role::Candidate { active: true };
        true
    }

    /// When a candidate may be chosen for which it is too early now.
    pub(super) fn next_activation(&self, now: Instant) -> Option<Instant> {
        let idle = |target: &&Target| self.is_eligible(target);
        let ready = self.targets.iter().filter(idle).map(|target| target.retry_at).min()?;
        if self.settings.target_peers == 0 {
            None
        } else if self.lacking() > 0 {
            // Otherwise what becomes of those on the way comes first.
            Some(ready).filter(|_| self.candidates_coming() < MAX_DIALS)
        } else if self.swap.is_none() {
            let due = self.poor_peers().map(|(_, since, _)| since + self.patience()).min()?;
            let after = self.last_swap.map_or(due, |last| due.max(last + self.patience()));
            // A swap that is due and was not made lacks a better candidate: the next score may bring one.
            Some(after.max(ready)).filter(|at| *at > now)
        } else {
            None
        }
    }

    fn candidates_coming(&self) -> usize {
        let coming = |target: &&Target| target.is_active_candidate() && !self.is_linked(target);
        self.targets.iter().filter(coming).count()
    }

    /// How many peers there are too few, those on the way counted.
    fn lacking(&self) -> usize {
        // Wanted peers count while they are dialled, but not those that have failed before.
        let hopeful = |target: &&Target| {
            target.is_wanted()
                && !self.is_linked(target)
                && target.dialing().probing
                && target.breaker.failures() == 0
        };
        let wanted = self.targets.iter().filter(hopeful).count();
        self.settings.target_peers.saturating_sub(self.peers.len() + self.candidates_coming() + wanted)
    }

    /// A candidate that nothing speaks against, except that it may be too early.
    fn is_eligible(&self, target: &Target) -> bool {
        let taken = |peer: PeerId| self.is_kept(peer) || peer == self.settings.us;
        self.is_idle(target) && !target.blocked && !target.known().is_some_and(taken)
    }

    /// The candidate that promises most, and more than `floor` if there is one.
    fn best(&mut self, floor: Option<f64>, now: Instant) -> Option<usize> {
        let groups = self.groups_in_use();
        let mut best: Option<(usize, f64, u32)> = None;
        for (index, target) in self.targets.iter().enumerate() {
            let rank = target.memory.rank(now);
            if target.retry_at > now || floor.is_some_and(|floor| rank <= floor) || !self.is_eligible(target)
            {
                continue;
            }
            let alike = groups.get(&target.group).copied().unwrap_or(0);
            // Among equals by draw, so that not all nodes of a network choose the same.
            let (weight, draw) = (rank / f64::from(alike + 1), self.rng.u32(..));
            if best.is_none_or(|(_, other, other_lot)| (weight, draw) > (other, other_lot)) {
                best = Some((index, weight, draw));
            }
        }
        best.map(|(index, ..)| index)
    }

    /// How many peers there are, or are on the way, of each group.
    fn groups_in_use(&self) -> BTreeMap<Group, u32> {
        let mut of_peer: BTreeMap<PeerId, Group> = self
            .peers
            .iter()
            .filter_map(|(peer, linked)| Some((*peer, Group::from(linked.view.addr?.ip()))))
            .collect();
        let mut groups = BTreeMap::new();
        for target in &self.targets {
            match target.known().filter(|peer| self.peers.contains_key(peer)) {
                // The address by which it was chosen says more than the one that a name led to.
                Some(peer) if target.is_kept() => drop(of_peer.insert(peer, target.group.clone())),
                None if target.is_active_candidate() => *groups.entry(target.group.clone()).or_insert(0) += 1,
                _ => {}
            }
        }
        of_peer.into_values().for_each(|group| *groups.entry(group).or_insert(0) += 1);
        groups
    }

    // --- swap -------------------------------------------------------------------------------

    fn patience(&self) -> Duration {
        self.settings.path.dead_after.saturating_mul(TIMEOUT)
    }

    /// Linked candidates that do badly: who, since when, how badly. Never one that is wanted.
    fn poor_peers(&self) -> impl Iterator<Item = (PeerId, Instant, f64)> {
        let poor =
            self.peers.iter().filter_map(|(peer, linked)| Some((*peer, linked.poor_since?, linked.score?)));
        poor.filter(|(peer, ..)| self.may_be_retired(*peer))
    }

    fn may_be_retired(&self, peer: PeerId) -> bool {
        let mut of_peer = self.targets.iter().filter(|target| target.known() == Some(peer)).peekable();
        of_peer.peek().is_some() && of_peer.all(Target::is_candidate)
    }

    fn begin_exchange(&mut self, now: Instant) -> Option<usize> {
        let patience = self.patience();
        let pausing = self.last_swap.is_some_and(|last| last + patience > now);
        // More peers than wanted: nobody needs to come for one to go, and nobody is sent away for that.
        if self.swap.is_some() || pausing {
            return None;
        }
        let due = self.poor_peers().filter(|(_, since, _)| *since + patience <= now);
        let (poor, _, score) = due.min_by(|(.., a), (.., b)| a.total_cmp(b))?;
        let index = self.best(Some(score + MARGIN), now)?;
        let with = self.targets.get(index)?.id;
        self.swap = Some(Swap { poor, with });
        Some(index)
    }

    /// Ends an swap that came to nothing.
    pub(super) fn check_swap(&mut self, now: Instant) {
        let Some(Swap { poor, with }) = self.swap else { return };
        let coming = self.targets.iter().any(|target| target.id == with && target.is_active_candidate());
        if !coming || !self.peers.contains_key(&poor) || !self.may_be_retired(poor) {
            self.swap = None;
            self.last_swap = Some(now);
        }
    }

    /// This peer has answered: if it came in the place of a poor one, that one goes.
    pub(super) fn complete_exchange(&mut self, successor: PeerId, now: Instant) {
        self.check_swap(now);
        let Some(Swap { poor, with }) = self.swap else { return };
        let is_successor = |target: &Target| target.id == with && target.peer == Some(successor);
        if poor == successor || !self.targets.iter().any(is_successor) {
            return;
        }
        (self.swap, self.last_swap) = (None, Some(now));
        let score = self.peers.get(&poor).and_then(|linked| linked.score);
        let until = now + self.settings.path.backoff_max.saturating_mul(RETIRED);
        for target in self.targets.iter_mut().filter(|target| target.known() == Some(poor)) {
            target.deactivate(until);
            target.memory.score = score;
        }
        self.announced.push_back(Action::Retire { peer: poor, successor });
    }
}
