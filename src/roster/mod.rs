//! Which peers to dial, and when. Pure: time is an argument, actions come out of [`Roster::poll`].
//!
//! For each wanted address:
//!
//! ```text
//!              the link is up                 the link has no connection above suspicion,
//!   Resting <------------------+              and the wait is over
//!      |                       |                        |
//!      +-- lost or suspect --> Waiting --------------> Dialing
//!                                ^    failed, or the       |
//!                                +--- connection ended ----+
//! ```
//!
//! The first attempt after a loss is made at once, then with exponential backoff and full jitter, for
//! ever. Only a connection over which something of ours was answered resets the backoff: a peer that
//! accepts and says goodbye in a loop is not dialled in a loop. The breaker counts failures in a row.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config::{PathConfig, PeerConfig};
use crate::error::{EndCause, EndReason};
use crate::health::backoff::Backoff;
use crate::health::breaker::{Breaker, BreakerState};
use crate::id::PeerId;

/// Names a wanted address for as long as the node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TargetId(u64);

#[derive(Debug)]
struct Target {
    id: TargetId,
    config: PeerConfig,
    /// Who answered there last.
    peer: Option<PeerId>,
    /// The link has a connection above suspicion.
    up: bool,
    /// Nobody is to be dialled: it is this node itself, or the peer asked us to stay away.
    resting_for_good: bool,
    dialing: bool,
    retry_at: Option<Instant>,
    backoff: Backoff,
    breaker: Breaker,
    last_error: Option<EndReason>,
    /// The last dial was made again at once because the session had changed.
    retried: bool,
}

/// What the node is to do.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    Dial { target: TargetId, config: Box<PeerConfig> },
    BreakerChanged { address: String, state: BreakerState },
}

#[derive(Debug)]
pub(crate) struct Roster {
    path: PathConfig,
    targets: Vec<Target>,
    next_id: u64,
    rng: fastrand::Rng,
    announced: VecDeque<(String, BreakerState)>,
}

/// What is known of a wanted address, for snapshots.
#[derive(Clone, Debug)]
pub(crate) struct TargetFigures {
    pub(crate) config: PeerConfig,
    pub(crate) peer: Option<PeerId>,
    pub(crate) dialing: bool,
    pub(crate) breaker: BreakerState,
    pub(crate) failures: u32,
    pub(crate) retry_at: Option<Instant>,
    pub(crate) last_error: Option<EndReason>,
}

impl Roster {
    pub(crate) fn new(path: PathConfig, seed: u64) -> Self {
        Roster {
            path,
            targets: Vec::new(),
            next_id: 0,
            rng: fastrand::Rng::with_seed(seed),
            announced: VecDeque::new(),
        }
    }

    /// A new address to keep a link to. One that is known already is dialled afresh.
    pub(crate) fn add(&mut self, config: PeerConfig, now: Instant) {
        let path = config.path.clone().unwrap_or_else(|| self.path.clone());
        self.targets.retain(|target| target.config.address != config.address || target.dialing);
        self.next_id += 1;
        self.targets.push(Target {
            id: TargetId(self.next_id),
            config,
            peer: None,
            up: false,
            resting_for_good: false,
            dialing: false,
            retry_at: Some(now),
            backoff: Backoff::new(path.backoff_first, path.backoff_max),
            breaker: Breaker::new(path.breaker_threshold),
            last_error: None,
            retried: false,
        });
        if let Some(target) = self.targets.last_mut() {
            // The attempt that is due now is the one at once.
            target.backoff.not_at_once();
        }
    }

    /// Gives an address up. Gives the peer that is known by no other one.
    pub(crate) fn remove_address(&mut self, address: &str) -> Option<Option<PeerId>> {
        let index = self.targets.iter().position(|target| target.config.address == address)?;
        let target = self.targets.remove(index);
        let peer = target.peer.or(target.config.id);
        Some(peer.filter(|peer| self.config_of(*peer).is_none()))
    }

    pub(crate) fn remove(&mut self, peer: PeerId) {
        self.targets.retain(|target| target.peer != Some(peer) && target.config.id != Some(peer));
    }

    /// What is due now. To be called until it gives nothing.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<Action> {
        if let Some((address, state)) = self.announced.pop_front() {
            return Some(Action::BreakerChanged { address, state });
        }
        let dialing = self.peers_dialed();
        let due =
            |target: &&mut Target| target.may_dial(&dialing) && target.retry_at.is_none_or(|at| at <= now);
        let target = self.targets.iter_mut().find(due)?;
        target.dialing = true;
        target.retry_at = None;
        let before = target.breaker.state();
        target.breaker.handle_dial();
        if target.breaker.state() != before {
            self.announced.push_back((target.config.address.clone(), target.breaker.state()));
        }
        Some(Action::Dial { target: target.id, config: Box::new(target.config.clone()) })
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let dialing = self.peers_dialed();
        self.targets
            .iter()
            .filter(|target| target.may_dial(&dialing))
            .filter_map(|target| target.retry_at)
            .min()
    }

    fn peers_dialed(&self) -> Vec<PeerId> {
        self.targets.iter().filter(|target| target.dialing).filter_map(|target| target.peer).collect()
    }

    /// A dial has led to a peer, whose connection joined its link. False when nobody wants that peer any
    /// longer.
    pub(crate) fn handle_dialled(&mut self, target: TargetId, peer: PeerId) -> bool {
        if let Some(target) = self.target_mut(target) {
            target.dialing = false;
            target.peer = Some(peer);
            // Until the link says otherwise: a loss in between must count as one.
            target.up = true;
            target.last_error = None;
            target.retried = false;
        }
        self.config_of(peer).is_some()
    }

    /// A dial has failed. Gives the wait until the next one.
    pub(crate) fn handle_dial_failed(
        &mut self,
        target: TargetId,
        reason: &EndReason,
        now: Instant,
    ) -> Option<Duration> {
        let for_good = reason.cause == EndCause::SelfConnection;
        let retry = reason.cause == EndCause::Retry;
        let rng = &mut self.rng;
        let target = self.targets.iter_mut().find(|candidate| candidate.id == target)?;
        target.dialing = false;
        target.last_error = Some(reason.clone());
        if for_good {
            target.resting_for_good = true;
            return None;
        }
        // Once: a peer that never agrees must not be dialled in a loop.
        if retry && !std::mem::replace(&mut target.retried, true) {
            target.retry_at = Some(now);
            return Some(Duration::ZERO);
        }
        let before = target.breaker.state();
        target.breaker.handle_failure();
        if target.breaker.state() != before {
            self.announced.push_back((target.config.address.clone(), target.breaker.state()));
        }
        let wait = target.backoff.next(rng);
        target.retry_at = Some(now + wait);
        Some(wait)
    }

    /// The link to this peer has, or has no longer, a connection above suspicion.
    pub(crate) fn handle_link(&mut self, peer: PeerId, up: bool, now: Instant) {
        let rng = &mut self.rng;
        for target in self.targets.iter_mut().filter(|target| target.peer == Some(peer)) {
            if target.up && !up {
                target.retry_at = Some(now + target.backoff.next(rng));
            }
            target.up = up;
        }
    }

    /// Something of ours was answered by this peer: what went wrong before is forgiven.
    pub(crate) fn handle_proven(&mut self, peer: PeerId) {
        for target in self.targets.iter_mut().filter(|target| target.peer == Some(peer)) {
            target.backoff.succeed();
            if target.breaker.state() != BreakerState::Closed {
                self.announced.push_back((target.config.address.clone(), BreakerState::Closed));
            }
            target.breaker.handle_success();
        }
    }

    /// The peer said that it goes down: it will not be there at once.
    pub(crate) fn handle_shutdown(&mut self, peer: PeerId) {
        for target in self.targets.iter_mut().filter(|target| target.peer == Some(peer)) {
            target.backoff.not_at_once();
        }
    }

    /// The peer asked us to stay away.
    pub(crate) fn handle_removed(&mut self, peer: PeerId) {
        for target in self.targets.iter_mut().filter(|target| target.peer == Some(peer)) {
            target.resting_for_good = true;
        }
    }

    fn target_mut(&mut self, id: TargetId) -> Option<&mut Target> {
        self.targets.iter_mut().find(|target| target.id == id)
    }

    /// Who answered last at this address.
    pub(crate) fn peer_of(&self, target: TargetId) -> Option<PeerId> {
        self.targets.iter().find(|candidate| candidate.id == target)?.peer
    }

    /// The settings for a peer, as far as it is known by a wanted address.
    pub(crate) fn config_of(&self, peer: PeerId) -> Option<&PeerConfig> {
        let known = |target: &&Target| target.peer == Some(peer) || target.config.id == Some(peer);
        self.targets.iter().find(known).map(|target| &target.config)
    }

    pub(crate) fn figures(&self) -> impl Iterator<Item = TargetFigures> {
        self.targets.iter().map(|target| TargetFigures {
            config: target.config.clone(),
            peer: target.peer.or(target.config.id),
            dialing: target.dialing,
            breaker: target.breaker.state(),
            failures: target.breaker.failures(),
            retry_at: target.retry_at.filter(|_| target.wants_dial()),
            last_error: target.last_error.clone(),
        })
    }
}

impl Target {
    /// Two addresses may belong to one peer: one dial at a time is enough.
    fn may_dial(&self, dialing: &[PeerId]) -> bool {
        self.wants_dial() && self.peer.is_none_or(|peer| !dialing.contains(&peer))
    }

    fn wants_dial(&self) -> bool {
        !self.up && !self.dialing && !self.resting_for_good
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Tests need some instant to start from; they never read the clock again.
mod tests {
    use super::*;

    fn roster() -> (Roster, Instant) {
        let now = Instant::now();
        let mut roster = Roster::new(PathConfig::default(), 1);
        roster.add(PeerConfig::new("a:1"), now);
        (roster, now)
    }

    fn dial(roster: &mut Roster, now: Instant) -> Option<TargetId> {
        loop {
            match roster.poll(now)? {
                Action::Dial { target, .. } => return Some(target),
                Action::BreakerChanged { .. } => {}
            }
        }
    }

    fn reason(cause: EndCause) -> EndReason {
        EndReason::new(crate::error::Initiator::Library, cause)
    }

    const PEER: PeerId = PeerId::from_bytes([1; 32]);

    #[test]
    fn dials_at_once_and_only_once_at_a_time() {
        let (mut roster, now) = roster();
        assert!(dial(&mut roster, now).is_some());
        assert!(dial(&mut roster, now + Duration::from_secs(100)).is_none());
    }

    #[test]
    fn a_proven_link_that_is_lost_is_dialled_at_once() {
        let (mut roster, now) = roster();
        for _ in 0..50 {
            let target = dial(&mut roster, now).expect("at once");
            roster.handle_dialled(target, PEER);
            roster.handle_link(PEER, true, now);
            assert!(dial(&mut roster, now).is_none());
            roster.handle_proven(PEER);
            roster.handle_link(PEER, false, now);
        }
    }

    #[test]
    fn a_peer_that_accepts_and_leaves_in_a_loop_is_backed_off() {
        let (mut roster, mut now) = roster();
        let start = now;
        for _ in 0..20 {
            let target = loop {
                match dial(&mut roster, now) {
                    Some(target) => break target,
                    None => now = roster.next_timeout().expect("for ever"),
                }
            };
            roster.handle_dialled(target, PEER);
            roster.handle_link(PEER, true, now);
            roster.handle_link(PEER, false, now);
        }
        assert!(now - start > Duration::from_secs(60), "{:?}", now - start);
    }

    #[test]
    fn the_breaker_opens_and_is_tried_for_ever() {
        let (mut roster, mut now) = roster();
        let mut states = Vec::new();
        for _ in 0..500 {
            match roster.poll(now) {
                Some(Action::Dial { target, .. }) => {
                    roster.handle_dial_failed(target, &reason(EndCause::Closed), now);
                }
                Some(Action::BreakerChanged { state, .. }) => states.push(state),
                None => now = roster.next_timeout().expect("for ever"),
            }
        }
        assert_eq!(states[..3], [BreakerState::Open, BreakerState::HalfOpen, BreakerState::Open]);
        assert!(states.len() > 100);
    }

    #[test]
    fn this_node_itself_is_not_dialled_again() {
        let (mut roster, now) = roster();
        let target = dial(&mut roster, now).unwrap();
        assert_eq!(roster.handle_dial_failed(target, &reason(EndCause::SelfConnection), now), None);
        assert!(roster.next_timeout().is_none());
        assert!(dial(&mut roster, now + Duration::from_secs(3600)).is_none());
    }
}
