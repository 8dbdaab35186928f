//! Which peers to dial, and when. Pure: time is an argument, actions come out of [`Roster::poll`].
//!
//! # Places
//! A link owns a pool of 1 to 3 connections. For each place of the pool of each peer that is to be linked:
//!
//! ```text
//!              a connection above suspicion               the wait is over
//!    Good <---------------------------------+    +------------------------------+
//!      |                                    |    |                              v
//!      +-- lost ------> Missing ------------+----+-- failed: backoff ------ Dialing
//!      |                                    |    |                              |
//!      +-- suspect, poor, aged, asked for --+----+   and the limit              |
//!                   -> Troubled: serves, needs a successor                      |
//!                                           ^                                   |
//!                                           +--------- joined the link ---------+
//! ```
//!
//! The first attempt after a loss is made at once, then with exponential backoff and full jitter, for
//! ever. Only a connection over which something of ours was answered, and that has lasted for a quarter of
//! `dead_after` or carried something, resets the backoff and closes the breaker: a handshake is no proof of a
//! path that works, and a peer that accepts and says goodbye in a loop is not dialled in a loop. A shortage
//! of this node itself at a dial (descriptors, ports, threads) says nothing of the peer.
//!
//! # Two waits
//! - **Of the peer**, with the breaker: while nothing on the link answers, one dial at a time, the *probe*,
//!   finds out whether the peer is there. The breaker counts probe dials that failed in a row.
//! - **Of the place**: while the link answers elsewhere, each place waits for itself.
//!
//! So a place that is refused again and again neither hammers the peer nor delays another: a success
//! elsewhere does not reset its wait, and when the link is lost the probe goes at once, whatever that
//! place waits for. A peer that refuses a dial may name a time: the dialled place, or the peer if that was
//! the probe, waits for that time, up to the longest backoff, and then for the backoff. A peer that is away
//! is dialled as often with three connections as with one.
//!
//! # The identity of an entry
//! An entry of the configuration names addresses; a link belongs to a peer. Which peer an entry stands for:
//!
//! ```text
//!                  anybody answers                      its last connection ends
//!   Unbound ------------------------> Bound, linked ------------------------------+
//!                                       ^  |  ^                                   v
//!            another peer answers:      +--+  +------- anybody answers ---- Bound, not linked
//!            the dial failed, the place waits          and is bound instead
//! ```
//!
//! While the link of the bound peer serves, every dial is made for that peer ([`Action::Dial`], `expected`):
//! whoever else answers at one of the addresses is not connected to, the next address is tried, and the place
//! backs off. So addresses that lead to several nodes (a name with two records, a load balancer) cost a few
//! dials a minute, and the application is told once for each binding. An entry with an id is bound to that id
//! for ever.
//!
//! # Who
//! Wanted peers (configured, added) always; candidates when there are fewer peers than there should be:
//! see [`candidates`]. Others only to replace a connection of theirs that does not answer: see [`dial_back`].
//!
//! # Invariants
//! - No more dials at once than [`Config::max_dials`] says, shared as [`dials`] says.
//! - One dial at a time for each place of a peer, by however many addresses it is known; one probe.
//! - A wanted peer is dialled for ever and never retired.
//! - A replacement that did not help is not repeated on the same path: see [`trials`].
//! - In no minute more replacements of serving connections than the setting says, and for candidates no more
//!   than half of that: the rest belongs to the peers that the operator named. A place that has to wait for
//!   that is served later, suspect ones first; a dead connection does not wait for it.
//! - Nobody is retired before the successor has answered.
//! - Candidates that are this node itself, or a peer known by another address, are not dialled again. An
//!   operator's entry at which this node itself answers, or whose peer asked us to stay away, rests for a
//!   while.
//! - Memory: one entry for each wanted address, at most `max_candidates` others, and one for each linked
//!   peer.

mod addresses;
mod age;
mod candidates;
mod dial_back;
mod dials;
mod feedback;
mod race;
mod records;
mod replacement_limit;
mod slots;
mod target;
mod trials;

#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use crate::config::{Config, PathConfig, PeerConfig};
use crate::error::EndReason;
use crate::health::breaker::BreakerState;
use crate::id::PeerId;

pub(crate) use addresses::rotated;
pub(crate) use age::aged_at;
use dial_back::DialBacks;
pub(crate) use dials::SHORT;
use dials::{DialClass, DialCounts};
pub(crate) use feedback::HeldUp;
pub(crate) use race::{Race, Step};
pub use records::PeerRecord;
use replacement_limit::ReplacementLimit;
pub use slots::ReplaceReason;
pub(crate) use slots::{LinkView, Trouble};
pub(crate) use target::TargetId;
use target::{Busy, DialRequest, Dialing, Role, Target};

/// An action for the node.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// `replaces`: the connection that serves in this place and is to be relieved.
    Dial {
        target: TargetId,
        /// The operator named it.
        named: bool,
        peer: Option<PeerId>,
        /// Nobody else is to be connected to; `None`: whoever answers.
        expected: Option<PeerId>,
        slot: u8,
        replaces: Option<Trouble>,
        /// The address to attempt first.
        prefer: Option<SocketAddr>,
        /// It has only a part of the time to connect: others wait.
        short: bool,
        /// The peer is no target: it is dialled at the address that it announced, and counts as one that
        /// dialled this node.
        dial_back: bool,
        config: Box<PeerConfig>,
    },
    BreakerChanged {
        /// As far as it is known.
        peer: Option<PeerId>,
        address: String,
        state: BreakerState,
    },
    /// Somebody better is linked and has answered.
    Retire { peer: PeerId, successor: PeerId },
}

/// The settings of the roster.
#[derive(Clone, Debug)]
struct Settings {
    us: PeerId,
    path: PathConfig,
    connections: u8,
    important_connections: u8,
    target_peers: usize,
    max_candidates: usize,
    max_dials: usize,
}

/// A peer whose link serves.
#[derive(Debug, Default)]
struct Linked {
    view: LinkView,
    score: Option<f64>,
    poor_since: Option<Instant>,
}

#[derive(Debug)]
pub(crate) struct Roster {
    settings: Settings,
    targets: Vec<Target>,
    /// Everybody whose link serves, strangers that dialled us included.
    peers: BTreeMap<PeerId, Linked>,
    dial_backs: DialBacks,
    replacement_limit: ReplacementLimit,
    swap: Option<candidates::Swap>,
    /// When the last swap ended.
    last_swap: Option<Instant>,
    next_id: u64,
    rng: fastrand::Rng,
    announced: VecDeque<Action>,
}

/// The state of an address that is dialled, for snapshots.
#[derive(Clone, Debug)]
pub(crate) struct TargetStats {
    pub(crate) config: PeerConfig,
    pub(crate) peer: Option<PeerId>,
    /// Configured or added; otherwise a candidate that was chosen.
    pub(crate) wanted: bool,
    /// How many connections its link is to own.
    pub(crate) connections: u8,
    pub(crate) dialing: bool,
    pub(crate) breaker: BreakerState,
    pub(crate) failures: u32,
    pub(crate) retry_at: Option<Instant>,
    pub(crate) last_error: Option<EndReason>,
    /// Since when it has been known, or wanted.
    pub(crate) since: Instant,
}

impl Roster {
    pub(crate) fn new(us: PeerId, config: &Config, seed: u64) -> Self {
        Roster {
            settings: Settings {
                us,
                path: config.path.clone(),
                connections: config.connections,
                important_connections: config.important_connections,
                target_peers: config.target_peers,
                max_candidates: config.max_candidates,
                max_dials: config.max_dials,
            },
            targets: Vec::new(),
            peers: BTreeMap::new(),
            dial_backs: DialBacks::default(),
            replacement_limit: ReplacementLimit::new(config.max_replacements_per_minute),
            swap: None,
            last_swap: None,
            next_id: 0,
            rng: fastrand::Rng::with_seed(seed),
            announced: VecDeque::new(),
        }
    }

    // --- who ------------------------------------------------------------------------------------

    /// A new entry to keep a link to. One that is known already, by the same address and no other id, is
    /// dialled afresh. Entries of different ids with one address, or without any (peers that only dial
    /// us), are different peers.
    pub(crate) fn add(&mut self, config: PeerConfig, now: Instant) {
        let path = config.path.as_ref().unwrap_or(&self.settings.path).clone();
        let same = |target: &&mut Target| {
            let ids = target.config.id.zip(config.id);
            target.config.address == config.address && ids.is_none_or(|(old, new)| old == new)
        };
        match self.targets.iter_mut().find(same) {
            Some(known) => known.want(config, &path, now),
            None => {
                let id = self.next_id();
                self.push(id, config, Role::Wanted, now);
            }
        }
    }

    fn next_id(&mut self) -> TargetId {
        self.next_id += 1;
        TargetId(self.next_id)
    }

    fn push(&mut self, id: TargetId, config: PeerConfig, role: Role, now: Instant) {
        let path = config.path.as_ref().unwrap_or(&self.settings.path);
        self.targets.push(Target::new(id, config.clone(), role, path, now));
    }

    /// Removes an address. Returns the peers that are known by no other one; `None` if nothing has this
    /// address.
    pub(crate) fn remove_address(&mut self, address: &str) -> Option<Vec<PeerId>> {
        let names =
            |target: &Target, address| target.config.has_address() && target.config.address == address;
        let removed: Vec<_> = self.targets.extract_if(.., |target| names(target, address)).collect();
        let peers = removed.iter().filter_map(Target::known).filter(|peer| !self.is_kept(*peer)).collect();
        (!removed.is_empty()).then_some(peers)
    }

    /// Removes a peer. Candidates that lead to it stay known, so that to learn them again changes nothing.
    pub(crate) fn remove(&mut self, peer: PeerId, now: Instant) {
        self.targets.retain(|target| target.known() != Some(peer) || target.is_candidate());
        self.handle_removed(peer, now);
        self.peers.remove(&peer);
        self.dial_backs.remove(peer);
    }

    /// This address is that of a wanted peer or of a candidate.
    pub(crate) fn knows(&self, address: &str) -> bool {
        self.targets.iter().any(|target| target.config.address == address)
    }

    /// The operator named this address.
    pub(crate) fn is_named(&self, target: TargetId) -> bool {
        self.targets.iter().any(|candidate| candidate.id == target && candidate.is_wanted())
    }

    /// The label of an entry of the operator.
    pub(crate) fn label_of(&self, target: TargetId) -> Option<String> {
        self.targets.iter().find(|candidate| candidate.id == target)?.config.label.clone()
    }

    /// The operator named a peer at this address.
    pub(crate) fn is_named_address(&self, address: &str) -> bool {
        self.targets.iter().any(|target| target.is_wanted() && target.config.address == address)
    }

    /// Addresses that the operator named without an id, and where nobody has answered yet.
    pub(crate) fn unidentified(&self) -> Vec<String> {
        let unknown = |target: &&Target| target.is_wanted() && !target.blocked && target.known().is_none();
        self.targets.iter().filter(unknown).map(|target| target.config.address.clone()).collect()
    }

    /// The peers whose links are to be kept: [`Roster::is_kept`], for many.
    pub(crate) fn kept_peers(&self) -> HashSet<PeerId> {
        let kept = |target: &&Target| target.is_wanted() || target.is_active_candidate();
        self.targets.iter().filter(kept).filter_map(Target::known).collect()
    }

    /// The peers that the operator named, and those that answered last at an address that the operator named,
    /// with their labels.
    pub(crate) fn named(&self) -> HashMap<PeerId, Option<String>> {
        let mut named = HashMap::new();
        for target in self.targets.iter().filter(|target| target.is_wanted()) {
            let Some(peer) = target.known() else { continue };
            let label: &mut Option<String> = named.entry(peer).or_default();
            if label.is_none() {
                label.clone_from(&target.config.label);
            }
        }
        named
    }

    /// A link to this peer is to be kept.
    pub(crate) fn is_kept(&self, peer: PeerId) -> bool {
        let kept = |target: &Target| target.is_wanted() || target.is_active_candidate();
        self.targets.iter().any(|target| target.known() == Some(peer) && kept(target))
    }

    /// There is an address by which this peer is dialled when it needs to be.
    pub(crate) fn may_dial(&self, peer: PeerId) -> bool {
        self.targets.iter().any(|target| target.known() == Some(peer) && target.is_kept())
    }

    /// The settings for a peer, as far as it is known by an address.
    pub(crate) fn config_of(&self, peer: PeerId) -> Option<&PeerConfig> {
        let known = self.targets.iter().filter(|target| target.known() == Some(peer));
        known.max_by_key(|target| target.is_wanted()).map(|target| &target.config)
    }

    /// All addresses by which this peer is dialled.
    pub(crate) fn addresses_of(&self, peer: PeerId) -> Vec<String> {
        let entries = self.targets.iter().filter(|target| target.known() == Some(peer) && target.is_kept());
        entries.flat_map(|target| target.config.addresses().cloned()).collect()
    }

    /// The peer that answered last at this address.
    pub(crate) fn peer_of(&self, target: TargetId) -> Option<PeerId> {
        self.targets.iter().find(|candidate| candidate.id == target)?.peer
    }

    /// Why the last dial failed; `None` if none has failed since the last one that led to a peer.
    pub(crate) fn last_error(&self, target: TargetId) -> Option<&EndReason> {
        self.targets.iter().find(|candidate| candidate.id == target)?.last_error.as_ref()
    }

    // --- what is to be done ---------------------------------------------------------------------

    /// Returns the next action that is due. To be called until it returns none.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<Action> {
        self.check_swap(now);
        self.handle_ages(now);
        loop {
            let announced = self.announced.pop_front().or_else(|| self.breaker_change());
            let action = announced.or_else(|| self.dial_due(now));
            if action.is_some() || !self.activate_candidate(now) {
                return action;
            }
        }
    }

    /// A breaker that has opened or closed, whatever changed it. The trial dials of an open one are told by
    /// how they end.
    fn breaker_change(&mut self) -> Option<Action> {
        self.targets.iter_mut().find_map(|target| {
            let state = target.breaker.state();
            let open = state != BreakerState::Closed;
            let changed = std::mem::replace(&mut target.told_open, open) != open;
            let (peer, address) = (target.known(), &target.config.address);
            changed.then(|| Action::BreakerChanged { peer, address: address.clone(), state })
        })
    }

    /// Dials every wanted peer that is not linked, whatever it waits for, but for those that asked this node
    /// to stay away.
    pub(crate) fn dial_now(&mut self, now: Instant) {
        let rests = |target: &Target| target.blocked || target.rests_until.is_some_and(|until| until > now);
        let wanted = self.targets.iter_mut().filter(|target| target.is_wanted() && !rests(target));
        wanted.for_each(|target| target.dial_now(now));
    }

    pub(crate) fn next_timeout(&self, now: Instant) -> Option<Instant> {
        let busy = self.busy();
        let counts = self.dial_counts();
        // Dials that wait for room are considered when a dial has ended.
        let has_room = |target: &&Target| counts.room(DialClass::of(target), self.settings.max_dials) > 0;
        let dials = self.targets.iter().filter(has_room).flat_map(|target| {
            let free_at = self.replacement_limit.free_at(target.is_wanted(), now);
            self.dial_requests(target, &busy).filter_map(move |request| due_at(&request, free_at))
        });
        let dial = dials.min();
        let success = self.targets.iter().filter_map(Target::success_at).min();
        let dial_back = self.next_dial_back(&counts, now);
        dial.into_iter().chain(self.next_activation(now)).chain(success).chain(dial_back).min()
    }

    /// Makes the dial that is due and matters most.
    fn dial_due(&mut self, now: Instant) -> Option<Action> {
        let busy = self.busy();
        let counts = self.dial_counts();
        let mut due = Vec::new();
        for (index, target) in self.targets.iter().enumerate() {
            let class = DialClass::of(target);
            if counts.room(class, self.settings.max_dials) > 0 {
                let free_at = self.replacement_limit.free_at(target.is_wanted(), now);
                let now = move |request: &DialRequest| due_at(request, free_at).is_none_or(|at| at <= now);
                due.extend(
                    self.dial_requests(target, &busy).filter(now).map(|request| (class, index, request)),
                );
            }
        }
        // Dead connections first, among them those of peers that are away; then by reason.
        let rank = |(class, _, request): &(DialClass, usize, DialRequest)| {
            (*class, request.replaces.map(|trouble| trouble.reason), !request.probe, request.at)
        };
        let Some((class, index, request)) = due.iter().min_by_key(|request| rank(request)).copied() else {
            return self.dial_back_due(&counts, now);
        };
        let waiting = due.iter().filter(|(other, ..)| *other == class).count();
        let crowded = waiting > counts.room(class, self.settings.max_dials);
        let target = self.targets.get_mut(index)?;
        let short = crowded && class == DialClass::New && target.breaker.failures() == 0;
        let named = target.is_wanted();
        let DialRequest { slot, probe, replaces, .. } = request;
        let place = target.place_mut(slot)?;
        (place.dialing, place.retry_at) = (Some(Dialing { probe, replaces }), None);
        if replaces.is_some() {
            self.replacement_limit.note(named, now);
        }
        if probe {
            target.breaker.handle_dial();
        }
        let expected = target.config.id.or(target.peer.filter(|peer| self.peers.contains_key(peer)));
        let mut config = target.config.clone();
        // The peer is there: its own word is one more address, beside those of the entry.
        let announced = replaces.and_then(|trouble| trouble.redial.filter(|addr| *addr != trouble.addr));
        if let Some(address) = announced.filter(|_| expected.is_some()).map(|addr| addr.to_string())
            && !config.addresses().any(|known| *known == address)
        {
            config.alternatives.push(address);
        }
        let dial = Action::Dial {
            target: target.id,
            named,
            peer: target.known(),
            expected,
            slot,
            replaces,
            prefer: target.preferred(slot),
            short,
            dial_back: false,
            config: Box::new(config),
        };
        Some(dial)
    }

    fn dial_counts(&self) -> DialCounts {
        DialCounts::of(&self.targets, self.dial_backs.under_way().count())
    }

    fn dial_requests(
        &self,
        target: &Target,
        busy: &BTreeMap<PeerId, Busy>,
    ) -> impl Iterator<Item = DialRequest> + use<> {
        let peer = target.known();
        let view = peer.and_then(|peer| self.peers.get(&peer)).map(|linked| linked.view).unwrap_or_default();
        let busy = match peer {
            Some(peer) => busy.get(&peer).copied().unwrap_or_default(),
            None => target.dialing(),
        };
        target.dial_requests(view, busy, self.connections(&target.config))
    }

    /// Dials under way to peers that are known, by all of their addresses.
    fn busy(&self) -> BTreeMap<PeerId, Busy> {
        let mut all: BTreeMap<PeerId, Busy> = BTreeMap::new();
        for target in &self.targets {
            let dialing = target.dialing();
            if let Some(peer) = target.known().filter(|_| !dialing.slots.is_empty()) {
                let busy = all.entry(peer).or_default();
                busy.slots = busy.slots.or(dialing.slots);
                busy.probing |= dialing.probing;
            }
        }
        for (peer, slot, alone) in self.dial_backs.under_way() {
            let busy = all.entry(peer).or_default();
            busy.slots.insert(slot);
            busy.probing |= alone;
        }
        all
    }

    fn connections(&self, config: &PeerConfig) -> u8 {
        config.pool_size(self.settings.connections, self.settings.important_connections)
    }

    // --- for snapshots --------------------------------------------------------------------------

    /// Replacements of serving connections that were begun in the last minute.
    pub(crate) fn replacements(&self, now: Instant) -> usize {
        self.replacement_limit.in_last_minute(now)
    }

    pub(crate) fn stats(&self, now: Instant) -> Vec<TargetStats> {
        let busy = self.busy();
        let free_at = |target: &Target| self.replacement_limit.free_at(target.is_wanted(), now);
        let shown = |target: &&Target| target.is_wanted() || target.is_active_candidate();
        let stats = |target: &Target| TargetStats {
            config: target.config.clone(),
            peer: target.known(),
            wanted: target.is_wanted(),
            connections: self.connections(&target.config),
            dialing: !target.dialing().slots.is_empty(),
            breaker: target.breaker.state(),
            failures: target.breaker.failures(),
            retry_at: self
                .dial_requests(target, &busy)
                .map(|request| due_at(&request, free_at(target)).unwrap_or(now))
                .min(),
            last_error: target.last_error.clone(),
            since: target.since,
        };
        self.targets.iter().filter(shown).map(stats).collect()
    }
}

/// When a dial may be made; `None`: now. Only those that relieve a serving connection are limited.
fn due_at(request: &DialRequest, free_at: Option<Instant>) -> Option<Instant> {
    request.at.max(free_at.filter(|_| request.replaces.is_some()))
}
