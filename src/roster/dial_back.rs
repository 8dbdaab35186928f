//! Dialling back: how a connection is replaced that the peer opened, to a peer that is no target of this
//! node.
//!
//! The side that accepted a connection often notices first that it no longer answers: a message of its own
//! waits for an acknowledgement, while the dialer has nothing under way and sends its next ping in some
//! seconds. If the peer announced a port ([`Announce`](crate::Announce)), this side dials the address that
//! the connection came from.
//!
//! ```text
//!          no answer, a port announced       the wait is over, and the limits
//!   none --------------------------> Waiting ---------------------------------> Dialing
//!    ^                                 |  ^                                        |
//!    |   it answers again, ended,      |  +------------- failed: backoff ----------+
//!    +-- was replaced, or three dials -+                                           |
//!    +-------------------------------------- joined the link ----------------------+
//! ```
//!
//! The first wait is a quarter of `suspect_after`: where both sides have noticed, the successor that the
//! dialer makes comes in that time, and a second one would be one too many. A peer with an entry that is
//! dialled anyway is no matter of this module: the dial of its entry has the announced address as one more.
//!
//! # Invariants
//! - The address is that of a serving connection from which something was answered, and nobody but that
//!   connection's peer is connected to. So a peer makes this node dial its own address and no other.
//! - One dial at a time to a peer, [`MOST`] for one connection in trouble, and what did not help is repeated
//!   as [`Trials`] says.
//! - Dials come out of the candidates' share of [`Config::max_dials`](crate::Config::max_dials), and count as
//!   strangers' replacements of a serving connection.
//! - No dial is earlier than the peer asked for when it refused one.
//! - An entry lasts while a dial is under way, so that the result finds it, and for as long as its trials
//!   count or the peer refuses. It is made only for a linked peer, and outlasts the link only after a dial:
//!   the limit of replacements bounds how many there are.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::config::{PathConfig, PeerConfig};
use crate::error::EndReason;
use crate::health::backoff::Backoff;
use crate::id::{ConnId, PeerId};
use crate::lane::MAX_SLOTS;

use super::dials::{DialClass, DialCounts};
use super::feedback::SHORTAGE_WAIT;
use super::slots::{LinkView, ReplaceReason, Trouble};
use super::target::{TargetId, answers, wait_after};
use super::trials::Trials;
use super::{Action, Roster};

/// Dials for one connection in trouble.
const MOST: u32 = 3;
/// The first wait, in parts of `suspect_after`.
const FIRST_WAIT: u32 = 4;

#[derive(Debug, Default)]
pub(super) struct DialBacks(BTreeMap<PeerId, DialBack>);

#[derive(Debug)]
struct DialBack {
    id: TargetId,
    need: Option<Need>,
    /// The connection in trouble that the dials so far were for.
    conn: Option<ConnId>,
    made: u32,
    backoff: Backoff,
    next_at: Instant,
    /// The peer has named the time during which it refuses: no dial before this instant, for whatever
    /// connection.
    refused_until: Option<Instant>,
    dialing: Option<Need>,
    trials: Trials,
}

/// A connection that serves, does not answer, and has no successor.
#[derive(Clone, Copy, Debug)]
struct Need {
    slot: u8,
    trouble: Trouble,
    /// Where the peer accepts connections.
    addr: SocketAddr,
    /// Nothing else on the link answers.
    alone: bool,
}

impl Need {
    fn of(view: &LinkView) -> Option<Self> {
        let alone = !answers(view);
        (0..MAX_SLOTS).find_map(|slot| {
            let trouble = view.trouble(slot)?;
            let addr = trouble.redial?;
            let is_cause = matches!(trouble.reason, ReplaceReason::Suspect | ReplaceReason::Aged);
            is_cause.then_some(Need { slot, trouble, addr, alone })
        })
    }

    /// For the trials. The address that an accepted connection came from is another one each time.
    fn path(&self) -> Trouble {
        Trouble { addr: self.addr, ..self.trouble }
    }
}

impl DialBack {
    fn new(id: TargetId, path: &PathConfig, now: Instant) -> Self {
        DialBack {
            id,
            need: None,
            conn: None,
            made: 0,
            backoff: Backoff::new(path.backoff_first, path.backoff_max),
            next_at: now,
            refused_until: None,
            dialing: None,
            trials: Trials::new(path.suspect_after),
        }
    }

    fn set_need(&mut self, need: Option<Need>, first_wait: Duration, now: Instant) {
        let conn = need.map(|need| need.trouble.conn);
        if conn.is_some() && conn != self.conn {
            (self.conn, self.made, self.next_at) = (conn, 0, now + first_wait);
            self.backoff.succeed();
            self.backoff.not_at_once();
        }
        self.need = need;
    }

    /// When the next dial may be made, and for what.
    fn due_at(&self) -> Option<(Instant, Need)> {
        let need = self.need.filter(|_| self.dialing.is_none() && self.made < MOST)?;
        let free_at = self.trials.free_at(&need.path(), need.alone).max(self.refused_until);
        Some((free_at.map_or(self.next_at, |at| at.max(self.next_at)), need))
    }

    fn is_over(&self, now: Instant) -> bool {
        self.need.is_none()
            && self.dialing.is_none()
            && self.refused_until.is_none_or(|until| until <= now)
            && self.trials.are_over(now)
    }
}

impl DialBacks {
    pub(super) fn remove(&mut self, peer: PeerId) {
        self.0.remove(&peer);
    }

    /// The peers that are being dialled back, for which place, and whether nothing on the link answered when
    /// that began.
    pub(super) fn under_way(&self) -> impl Iterator<Item = (PeerId, u8, bool)> {
        self.0.iter().filter_map(|(peer, entry)| {
            let need = entry.dialing?;
            Some((*peer, need.slot, need.alone))
        })
    }

    fn find(&mut self, id: TargetId) -> Option<&mut DialBack> {
        self.0.values_mut().find(|entry| entry.id == id)
    }

    /// A dial has led to a connection that joined its link. False if it was none of these.
    pub(super) fn handle_joined(&mut self, id: TargetId, now: Instant) -> bool {
        let Some(entry) = self.find(id) else { return false };
        // The link says what is in need next.
        entry.need = None;
        if let Some(made) = entry.dialing.take() {
            entry.trials.handle_made(&made.path(), now);
        }
        true
    }

    /// A dial has failed. Returns the wait until the next one; `None` if there will be none.
    pub(super) fn handle_failed(
        &mut self,
        id: TargetId,
        reason: &EndReason,
        path: &PathConfig,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Option<Duration> {
        let entry = self.find(id)?;
        entry.dialing = None;
        let wait = if reason.is_local_shortage() {
            entry.made = entry.made.saturating_sub(1);
            SHORTAGE_WAIT
        } else {
            wait_after(Some(reason), entry.backoff.next(now, rng), path, rng)
        };
        entry.next_at = now + wait;
        entry.refused_until = reason.told_wait().map(|_| entry.next_at);
        entry.due_at().map(|(at, _)| at.saturating_duration_since(now))
    }
}

impl Roster {
    /// The connections that serve on the link to this peer have changed.
    pub(super) fn update_dial_back(&mut self, peer: PeerId, view: &LinkView, now: Instant) {
        let need = Need::of(view);
        self.dial_backs.0.retain(|other, entry| *other == peer || !entry.is_over(now));
        if need.is_none() && !self.dial_backs.0.contains_key(&peer) {
            return;
        }
        let first_wait = self.settings.path.suspect_after / FIRST_WAIT;
        let id = self.next_id();
        let new = || DialBack::new(id, &self.settings.path, now);
        let entry = self.dial_backs.0.entry(peer).or_insert_with(new);
        entry.set_need(need, first_wait, now);
        if entry.is_over(now) {
            self.dial_backs.remove(peer);
        }
    }

    /// The next one that may be made, as far as limits do not forbid it.
    fn first_dial_back(&self, counts: &DialCounts, now: Instant) -> Option<(Instant, PeerId, Need)> {
        if counts.room(DialClass::Candidate, self.settings.max_dials) == 0 {
            return None;
        }
        let due = |(peer, entry): (&PeerId, &DialBack)| {
            let (at, need) = entry.due_at()?;
            Some((at, *peer, need)).filter(|_| !self.may_dial(*peer))
        };
        let (at, peer, need) = self.dial_backs.0.iter().filter_map(due).min_by_key(|(at, ..)| *at)?;
        let free_at = self.replacement_limit.free_at(false, now);
        Some((free_at.map_or(at, |free| free.max(at)), peer, need))
    }

    pub(super) fn next_dial_back(&self, counts: &DialCounts, now: Instant) -> Option<Instant> {
        self.first_dial_back(counts, now).map(|(at, ..)| at)
    }

    pub(super) fn dial_back_due(&mut self, counts: &DialCounts, now: Instant) -> Option<Action> {
        let (_, peer, need) = self.first_dial_back(counts, now).filter(|(at, ..)| *at <= now)?;
        let entry = self.dial_backs.0.get_mut(&peer)?;
        (entry.dialing, entry.made) = (Some(need), entry.made + 1);
        self.replacement_limit.note(false, now);
        Some(Action::Dial {
            target: entry.id,
            named: false,
            peer: Some(peer),
            expected: Some(peer),
            slot: need.slot,
            replaces: Some(need.trouble),
            prefer: None,
            short: false,
            dial_back: true,
            config: Box::new(PeerConfig { id: Some(peer), ..PeerConfig::new(need.addr.to_string()) }),
        })
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Tests need some instant to start from; they never read the clock again.
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::error::{EndCause, Initiator};
    use crate::wire::refused::RefusedReason;

    const PEER: PeerId = PeerId::from_bytes([1; 32]);
    const S: Duration = Duration::from_secs(1);

    fn roster() -> (Roster, Instant) {
        (Roster::new(PeerId::from_bytes([0; 32]), &Config::default(), 1), Instant::now())
    }

    fn listener() -> SocketAddr {
        ([10, 0, 0, 1], 4000).into()
    }

    /// One connection, which came from an address of the peer's host and is in trouble.
    fn view(conn: u64, reason: ReplaceReason, redial: Option<SocketAddr>) -> LinkView {
        let mut view = LinkView::default();
        let addr = ([10, 0, 0, 1], 50_000 + conn as u16).into();
        view.set_trouble(0, Trouble { conn: ConnId(conn), addr, reason, redial });
        view
    }

    fn suspect(conn: u64) -> LinkView {
        view(conn, ReplaceReason::Suspect, Some(listener()))
    }

    fn good() -> LinkView {
        let mut view = LinkView::default();
        view.good.insert(0);
        view
    }

    /// The next dial until then: its target, and when it is made.
    fn next(roster: &mut Roster, mut now: Instant, until: Instant) -> Option<(Action, Instant)> {
        loop {
            if let Some(action) = roster.poll(now) {
                return Some((action, now));
            }
            now = roster.next_timeout(now).filter(|at| *at <= until)?;
        }
    }

    fn dial(roster: &mut Roster, now: Instant, until: Instant) -> Option<(TargetId, Instant)> {
        match next(roster, now, until)? {
            (Action::Dial { target, .. }, at) => Some((target, at)),
            (other, _) => panic!("{other:?}"),
        }
    }

    fn fail(roster: &mut Roster, target: TargetId, now: Instant) -> Option<Duration> {
        roster.handle_dial_failed(target, 0, &EndReason::new(Initiator::Network, EndCause::Closed), now)
    }

    #[test]
    fn a_stranger_that_does_not_answer_is_dialled_where_it_listens_and_nobody_else_is_accepted() {
        let (mut roster, now) = roster();
        roster.handle_link(PEER, good(), now);
        assert_eq!(roster.next_timeout(now), None);
        roster.handle_link(PEER, suspect(1), now);
        let (action, at) = next(&mut roster, now, now + S).unwrap();
        assert_eq!(at, now + S / 4, "a successor that the peer makes comes first");
        let Action::Dial { target, named, expected, slot, replaces, dial_back, config, .. } = action else {
            panic!("{action:?}");
        };
        assert_eq!((named, expected, slot, dial_back), (false, Some(PEER), 0, true));
        assert_eq!(replaces.map(|trouble| trouble.conn), Some(ConnId(1)));
        assert_eq!(config.addresses().collect::<Vec<_>>(), ["10.0.0.1:4000"]);
        assert_eq!(dial(&mut roster, at, at + 100 * S), None, "one at a time");
        assert!(roster.handle_dialled(target, 0, PEER, at), "it need not be wanted");
        roster.handle_link(PEER, good(), at);
        assert_eq!(dial(&mut roster, at, at + 100 * S), None);
        assert!(!roster.is_kept(PEER) && !roster.may_dial(PEER));
    }

    #[test]
    fn a_wanted_peer_without_an_address_is_dialled_back_and_never_else() {
        let (mut roster, now) = roster();
        roster.add(PeerConfig::inbound_only(PEER), now);
        assert!(roster.is_kept(PEER) && roster.named().contains_key(&PEER) && !roster.may_dial(PEER));
        assert_eq!(dial(&mut roster, now, now + 3600 * S), None);
        roster.handle_link(PEER, suspect(1), now);
        let (target, at) = dial(&mut roster, now, now + S).expect("it said where");
        assert!(roster.handle_dialled(target, 0, PEER, at));
        roster.handle_link(PEER, LinkView::default(), at);
        assert_eq!(dial(&mut roster, at, at + 3600 * S), None);
        // Nothing that goes by addresses finds it.
        assert!(roster.records(at).is_empty() && roster.unidentified().is_empty());
        assert_eq!(roster.remove_address(""), None);
        let other = PeerConfig::inbound_only(PeerId::from_bytes([2; 32]));
        assert!(!roster.learn(other, at), "a candidate is one to dial");
        roster.remove(PEER, at);
        assert!(!roster.is_kept(PEER));
    }

    #[test]
    fn three_dials_for_one_connection_and_none_for_one_that_is_well_again() {
        let (mut roster, start) = roster();
        roster.handle_link(PEER, suspect(1), start);
        let mut now = start;
        for made in 1..=3 {
            let (target, at) = dial(&mut roster, now, start + 60 * S).expect("three of them");
            assert_eq!(fail(&mut roster, target, at).is_some(), made < 3);
            now = at;
        }
        assert_eq!(dial(&mut roster, now, now + 3600 * S), None);
        // Another connection does not answer; it does before its dial is made.
        roster.handle_link(PEER, suspect(2), now);
        roster.handle_link(PEER, good(), now + S / 5);
        assert_eq!(dial(&mut roster, now, now + 3600 * S), None);
        roster.handle_link(PEER, LinkView::default(), now);
        assert!(roster.dial_backs.0.is_empty());
    }

    #[test]
    fn only_for_peers_that_said_where_and_have_no_entry_of_their_own() {
        let (mut roster, now) = roster();
        let none = |roster: &mut Roster| dial(roster, now, now + 60 * S).is_none();
        for view in [
            view(1, ReplaceReason::Suspect, None),
            view(1, ReplaceReason::Poor, Some(listener())),
            view(1, ReplaceReason::Asked, Some(listener())),
        ] {
            roster.handle_link(PEER, view, now);
            assert!(none(&mut roster) && roster.dial_backs.0.is_empty(), "{view:?}");
        }
        roster.handle_link(PEER, suspect(1), now);
        roster.remove(PEER, now);
        assert!(none(&mut roster), "it was given up");
    }

    #[test]
    fn the_dial_of_an_entry_has_the_announced_address_as_one_more() {
        let (mut roster, now) = roster();
        roster.add(PeerConfig { id: Some(PEER), ..PeerConfig::new("a:1") }, now);
        roster.handle_link(PEER, suspect(1), now);
        let (action, _) = next(&mut roster, now, now + S).unwrap();
        let Action::Dial { expected, dial_back, config, .. } = action else { panic!("{action:?}") };
        assert_eq!((expected, dial_back), (Some(PEER), false));
        assert_eq!(config.addresses().collect::<Vec<_>>(), ["a:1", "10.0.0.1:4000"]);
        assert_eq!(dial(&mut roster, now, now + 60 * S), None, "one dial at a time");
    }

    #[test]
    fn dials_back_that_did_not_help_become_rarer_from_whatever_port() {
        let (mut roster, start) = roster();
        let (mut now, mut made) = (start, Vec::new());
        for conn in 1.. {
            // Something else answers, so that nothing is urgent.
            let mut view = suspect(conn);
            view.good.insert(1);
            roster.handle_link(PEER, view, now);
            let Some((target, at)) = dial(&mut roster, now, start + 180 * S) else { break };
            made.push((at - start).as_secs());
            assert!(roster.handle_dialled(target, 0, PEER, at));
            roster.handle_link(PEER, good(), at);
            now = at + 3 * S;
        }
        assert_eq!(made, [0, 5, 15, 35, 75, 155]);
    }

    #[test]
    fn a_peer_that_names_a_time_is_not_dialled_back_before_it() {
        let (mut roster, now) = roster();
        roster.handle_link(PEER, suspect(1), now);
        let (target, start) = dial(&mut roster, now, now + S).unwrap();
        let cause =
            EndCause::RefusedByPeer { reason: RefusedReason::Full, text: String::new(), wait_secs: Some(20) };
        let refused = EndReason::new(Initiator::Peer, cause);
        let wait = roster.handle_dial_failed(target, 0, &refused, start).unwrap();
        assert!((20 * S..=21 * S).contains(&wait), "{wait:?}");
        // Nor for another connection of the peer, which may have left meanwhile.
        roster.handle_link(PEER, LinkView::default(), start);
        roster.handle_link(PeerId::from_bytes([2; 32]), good(), start);
        roster.handle_link(PEER, suspect(2), start);
        let (_, at) = dial(&mut roster, start, start + 60 * S).unwrap();
        assert_eq!(at, start + wait);
        roster.handle_link(PEER, LinkView::default(), at);
        assert_eq!(roster.dial_backs.0.len(), 1, "a dial is under way");
        roster.handle_dial_failed(target, 0, &refused, at);
        let later = at + 21 * S;
        roster.handle_link(PeerId::from_bytes([2; 32]), good(), later);
        assert!(roster.dial_backs.0.is_empty(), "nothing is remembered longer than that");
    }

    #[test]
    fn a_dial_under_way_is_remembered_when_the_link_ends() {
        let (mut roster, now) = roster();
        roster.handle_link(PEER, suspect(1), now);
        let (target, now) = dial(&mut roster, now, now + S).unwrap();
        roster.handle_link(PEER, LinkView::default(), now);
        assert!(roster.handle_dialled(target, 0, PEER, now), "its conversation goes on");
    }

    #[test]
    fn strangers_together_have_the_candidates_share_and_half_of_the_replacements() {
        for (dials, replacements, expected) in [(16, 60, 2), (256, 6, 3)] {
            let config =
                Config { max_dials: dials, max_replacements_per_minute: replacements, ..Config::default() };
            let mut roster = Roster::new(PeerId::from_bytes([0; 32]), &config, 1);
            let now = Instant::now();
            (1..100).for_each(|n| roster.handle_link(PeerId::from_bytes([n; 32]), suspect(n.into()), now));
            let made = std::iter::from_fn(|| dial(&mut roster, now, now + 59 * S)).count();
            assert_eq!(made, expected);
        }
    }
}
