//! The roster in small scenarios, step by step.

#![allow(clippy::disallowed_methods)] // Tests need some instant to start from; they never read the clock again.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::config::{Config, PathConfig, PeerConfig};
use crate::error::{EndCause, EndReason, Initiator};
use crate::health::breaker::BreakerState;
use crate::health::keepalive::LearnedInterval;
use crate::id::{ConnId, PeerId};
use crate::wire::control::GoawayReason;
use crate::wire::refused::RefusedReason;

use super::slots::{LinkView, ReplaceReason, Trouble};
use super::{Action, HeldUp, PeerRecord, Roster, TargetId};

const US: PeerId = PeerId::from_bytes([0; 32]);
const PEER: PeerId = PeerId::from_bytes([1; 32]);
const OTHER: PeerId = PeerId::from_bytes([2; 32]);
const S: Duration = Duration::from_secs(1);

fn roster_with(change: impl FnOnce(&mut Config)) -> (Roster, Instant) {
    let mut config = Config::default();
    change(&mut config);
    (Roster::new(US, &config, 1), Instant::now())
}

fn roster() -> (Roster, Instant) {
    let (mut roster, now) = roster_with(|_| {});
    roster.add(PeerConfig::new("a:1"), now);
    (roster, now)
}

/// With a pool of two that is linked, and has proved itself.
fn pool() -> (Roster, Instant, TargetId) {
    let (mut roster, now) = roster_with(|config| config.connections = 2);
    roster.add(PeerConfig::new("a:1"), now);
    let (target, slot) = dial(&mut roster, now).expect("the probe dial");
    assert_eq!(slot, 0);
    assert_eq!(dial(&mut roster, now), None, "one probe at a time");
    roster.handle_dialled(target, 0, PEER, now);
    assert_eq!(dial(&mut roster, now), Some((target, 1)), "the probe succeeded");
    roster.handle_dialled(target, 1, PEER, now);
    roster.handle_link(PEER, good(&[0, 1]), now);
    [0, 1].into_iter().for_each(|slot| roster.handle_proven(PEER, slot, now));
    let now = now + PathConfig::default().dead_after;
    assert_eq!(dial(&mut roster, now), None);
    (roster, now, target)
}

fn dial(roster: &mut Roster, now: Instant) -> Option<(TargetId, u8)> {
    dial_with(roster, now).map(|(target, slot, _)| (target, slot))
}

fn dial_with(roster: &mut Roster, now: Instant) -> Option<(TargetId, u8, Option<ReplaceReason>)> {
    loop {
        match roster.poll(now)? {
            Action::Dial { target, slot, replaces, .. } => {
                return Some((target, slot, replaces.map(|trouble| trouble.reason)));
            }
            Action::BreakerChanged { .. } => {}
            Action::Retire { .. } => panic!("nobody is retired here"),
        }
    }
}

fn good(slots: &[u8]) -> LinkView {
    let mut view = LinkView::default();
    slots.iter().for_each(|slot| view.good.insert(*slot));
    view
}

fn troubled(mut view: LinkView, slot: u8, reason: ReplaceReason) -> LinkView {
    view.set_trouble(
        slot,
        Trouble { conn: ConnId(u64::from(slot)), addr: ([10, 0, 0, 1], 1).into(), reason, redial: None },
    );
    view
}

fn reason(cause: EndCause) -> EndReason {
    EndReason::new(Initiator::Library, cause)
}

fn refused(roster: &mut Roster, (target, slot): (TargetId, u8), now: Instant) -> Option<Duration> {
    roster.handle_dial_failed(target, slot, &reason(EndCause::Closed), now)
}

fn refused_by_peer(reason: RefusedReason, wait_secs: Option<u32>) -> EndReason {
    let cause = EndCause::RefusedByPeer { reason, text: String::new(), wait_secs };
    EndReason::new(Initiator::Peer, cause)
}

#[test]
fn a_refusal_that_lasts_is_not_met_again_at_once() {
    let wait = |reason| {
        let (mut roster, now) = roster();
        let (target, slot) = dial(&mut roster, now).unwrap();
        roster.handle_dial_failed(target, slot, &reason, now).unwrap()
    };
    // The first bound of the backoff is half a second, the longest a minute.
    assert!(wait(refused_by_peer(RefusedReason::Full, None)) <= S / 2);
    let lasting = wait(refused_by_peer(RefusedReason::Denied, None));
    assert!((5 * S / 2..=5 * S).contains(&lasting), "{lasting:?}");
    let other = wait(reason(EndCause::Refused("another network".into())));
    assert!((5 * S / 2..=5 * S).contains(&other), "{other:?}");
}

#[test]
fn the_time_that_a_peer_names_is_kept_and_those_who_were_told_the_same_do_not_return_together() {
    for (reason, told, least, most) in [
        (RefusedReason::Full, 20, 20 * S, 20 * S + S / 2),
        (RefusedReason::Denied, 20, 45 * S / 2, 25 * S),
        // It is believed up to the longest backoff.
        (RefusedReason::Full, u32::MAX, 60 * S, 60 * S + S / 2),
    ] {
        let (mut roster, now) = roster_with(|_| {});
        (0..10).for_each(|n| roster.add(PeerConfig::new(format!("a:{n}")), now));
        let dials: Vec<_> = std::iter::from_fn(|| dial(&mut roster, now)).collect();
        let refused = refused_by_peer(reason, Some(told));
        let mut waits: Vec<_> = dials
            .into_iter()
            .map(|(target, slot)| roster.handle_dial_failed(target, slot, &refused, now).unwrap())
            .collect();
        assert!(waits.iter().all(|wait| (least..=most).contains(wait)), "{reason:?}, {told}: {waits:?}");
        waits.sort_unstable();
        waits.dedup();
        assert_eq!(waits.len(), 10, "{waits:?}");
    }
}

// --- one connection -----------------------------------------------------------------------------

#[test]
fn dials_at_once_and_only_once_at_a_time() {
    let (mut roster, now) = roster();
    assert!(dial(&mut roster, now).is_some());
    assert!(dial(&mut roster, now + 100 * S).is_none());
}

#[test]
fn a_proven_link_that_is_lost_is_dialled_at_once() {
    let (mut roster, mut now) = roster();
    for _ in 0..50 {
        let (target, slot) = dial(&mut roster, now).expect("at once");
        roster.handle_dialled(target, slot, PEER, now);
        roster.handle_link(PEER, good(&[0]), now);
        roster.handle_proven(PEER, 0, now);
        now = roster.next_timeout(now).expect("it lasts");
        assert!(dial(&mut roster, now).is_none());
        roster.handle_link(PEER, LinkView::default(), now);
    }
}

#[test]
fn a_peer_that_accepts_and_leaves_in_a_loop_is_backed_off() {
    for connections in 1..=3 {
        let (mut roster, start) = roster_with(|config| config.connections = connections);
        roster.add(PeerConfig::new("a:1"), start);
        let (mut now, mut dials) = (start, 0);
        while now < start + 600 * S {
            let Some((target, slot)) = dial(&mut roster, now) else {
                now = roster.next_timeout(now).expect("for ever");
                continue;
            };
            dials += 1;
            roster.handle_dialled(target, slot, PEER, now);
            roster.handle_link(PEER, good(&[slot]), now);
            roster.handle_link(PEER, LinkView::default(), now);
        }
        assert!((10..=30 + 30 * u32::from(connections)).contains(&dials), "{connections}: {dials}");
    }
}

#[test]
fn a_breaker_that_losses_open_or_the_operator_closes_is_told() {
    let (mut roster, now) = roster_with(|config| config.path.breaker_threshold = 1);
    roster.add(PeerConfig::new("a:1"), now);
    let (target, slot) = dial(&mut roster, now).unwrap();
    roster.handle_dialled(target, slot, PEER, now);
    roster.handle_link(PEER, good(&[0]), now);
    roster.handle_proven(PEER, 0, now);
    roster.handle_link(PEER, LinkView::default(), now);
    assert_eq!(breaker_told(&mut roster, now), Some((Some(PEER), BreakerState::Open)), "it died young");
    roster.add(PeerConfig::new("a:1"), now);
    assert_eq!(breaker_told(&mut roster, now), Some((Some(PEER), BreakerState::Closed)));
}

/// What the next action says of a breaker.
fn breaker_told(roster: &mut Roster, now: Instant) -> Option<(Option<PeerId>, BreakerState)> {
    match roster.poll(now) {
        Some(Action::BreakerChanged { peer, state, .. }) => Some((peer, state)),
        _ => None,
    }
}

#[test]
fn a_breaker_that_a_late_answer_opens_is_told() {
    let (mut roster, now) = roster_with(|config| config.path.breaker_threshold = 1);
    roster.add(PeerConfig::new("a:1"), now);
    let (target, slot) = dial(&mut roster, now).unwrap();
    roster.handle_identified(target, PEER);
    // The peer has dialled this node meanwhile, and another one answers at its address.
    roster.handle_link(PEER, good(&[0]), now);
    roster.handle_dialled(target, slot, OTHER, now);
    assert_eq!(breaker_told(&mut roster, now), Some((Some(PEER), BreakerState::Open)));
    assert_eq!(breaker_told(&mut roster, now), None, "once");
}

#[test]
fn the_breaker_opens_and_is_tried_for_ever() {
    let (mut roster, mut now) = roster();
    let (mut states, mut dials) = (Vec::new(), 0);
    for _ in 0..500 {
        match roster.poll(now) {
            Some(Action::Dial { target, slot, .. }) => {
                dials += 1;
                refused(&mut roster, (target, slot), now);
            }
            Some(Action::BreakerChanged { state, .. }) => states.push(state),
            Some(Action::Retire { .. }) => panic!("a wanted peer is not retired"),
            None => now = roster.next_timeout(now).expect("for ever"),
        }
    }
    assert_eq!(states, [BreakerState::Open], "the trials are not told");
    assert!(dials > 100, "{dials}");
}

#[test]
fn a_candidate_that_is_this_node_itself_is_not_dialled_again() {
    let (mut roster, now) = roster_with(|config| config.target_peers = 1);
    assert!(roster.learn(PeerConfig::new("a:1"), now));
    let (target, slot) = dial(&mut roster, now).unwrap();
    assert_eq!(roster.handle_dial_failed(target, slot, &reason(EndCause::SelfConnection), now), None);
    assert!(roster.next_timeout(now).is_none());
    assert!(dial(&mut roster, now + 3600 * S).is_none());
}

#[test]
fn a_goodbye_is_not_answered_with_a_dial_at_once() {
    let (mut roster, now) = roster();
    let (target, slot) = dial(&mut roster, now).unwrap();
    roster.handle_dialled(target, slot, PEER, now);
    roster.handle_proven(PEER, 0, now);
    roster.hold_up(PEER, HeldUp::Gone);
    roster.handle_link(PEER, LinkView::default(), now);
    assert_eq!(dial(&mut roster, now), None);
    let later = roster.next_timeout(now).unwrap();
    assert!(dial(&mut roster, later).is_some());
}

#[test]
fn a_goodbye_by_a_connection_that_was_of_use_is_not_answered_with_a_dial_at_once() {
    for (goodbye, link_tells_first) in [
        (GoawayReason::Shutdown, false),
        (GoawayReason::Shutdown, true),
        (GoawayReason::Other(7), false),
        (GoawayReason::Replaced, false),
        (GoawayReason::Duplicate, true),
    ] {
        let (mut roster, now) = roster();
        let (target, slot) = dial(&mut roster, now).unwrap();
        roster.handle_dialled(target, slot, PEER, now);
        roster.handle_proven(PEER, 0, now);
        let held_up = HeldUp::after(goodbye);
        roster.hold_up(PEER, held_up);
        if link_tells_first {
            roster.handle_link(PEER, LinkView::default(), now);
        }
        roster.handle_useful(PEER, 0, Some(held_up), now);
        roster.handle_link(PEER, LinkView::default(), now);
        assert_eq!(dial(&mut roster, now), None, "{goodbye:?}, {link_tells_first}");
        let later = roster.next_timeout(now).unwrap();
        assert!(later <= now + S && dial(&mut roster, later).is_some(), "{goodbye:?}, {link_tells_first}");
    }
}

#[test]
fn a_connection_that_the_peer_has_replaced_is_not_missed_at_once() {
    let (mut roster, now) = roster();
    let (target, slot) = dial(&mut roster, now).unwrap();
    roster.handle_dialled(target, slot, PEER, now);
    roster.handle_proven(PEER, 0, now);
    roster.hold_up(PEER, HeldUp::Moved);
    roster.handle_link(PEER, LinkView::default(), now);
    assert_eq!(dial(&mut roster, now), None);
    roster.handle_link(PEER, good(&[0]), now);
    assert_eq!((dial(&mut roster, now + S), roster.next_timeout(now)), (None, None));
}

#[test]
fn a_peer_that_asked_us_to_stay_away_rests_unless_the_application_asks() {
    let (mut roster, now) = roster();
    let (target, slot) = dial(&mut roster, now).unwrap();
    roster.handle_dialled(target, slot, PEER, now);
    let rest = 10 * PathConfig::default().backoff_max;
    assert_eq!(roster.handle_removed(PEER, now), [("a:1".to_owned(), rest)]);
    roster.handle_link(PEER, LinkView::default(), now);
    assert_eq!((dial(&mut roster, now + rest - S), roster.next_timeout(now)), (None, Some(now + rest)));
    roster.add(PeerConfig::new("a:1"), now);
    assert!(dial(&mut roster, now).is_some());
}

#[test]
fn an_operators_entry_is_tried_again_after_this_node_itself_answered() {
    let (mut roster, now) = roster();
    let (target, slot) = dial(&mut roster, now).unwrap();
    let ourselves = EndReason::new(Initiator::Library, EndCause::SelfConnection);
    let next = roster.handle_dial_failed(target, slot, &ourselves, now);
    let rest = PathConfig::default().backoff_max;
    assert_eq!(next, Some(rest), "the name may stand for another node by then");
    assert_eq!(dial(&mut roster, now + rest - S), None);
    assert!(dial(&mut roster, now + rest).is_some());
}

#[test]
fn connections_that_die_young_are_dialled_ever_more_rarely() {
    for (age, most, least) in [(0.005, 12, 4), (0.2, 12, 4), (6.0, 90, 60)] {
        let (mut roster, start) = roster();
        let (mut now, mut dials) = (start, 0u32);
        // Ten seconds, or for the connection that lasts ten minutes.
        let end = start + if age < 1.0 { 10 * S } else { 540 * S };
        while now < end {
            if let Some((target, slot)) = dial(&mut roster, now) {
                dials += 1;
                roster.handle_dialled(target, slot, PEER, now);
                roster.handle_link(PEER, good(&[0]), now);
                roster.handle_proven(PEER, 0, now);
                now += S.mul_f64(age);
                roster.poll(now);
                roster.handle_link(PEER, LinkView::default(), now);
            }
            now = roster.next_timeout(now).unwrap_or(end).max(now + S / 1000);
        }
        assert!((least..=most).contains(&dials), "{dials} dials of connections that live {age} s");
    }
}

#[test]
fn a_local_shortage_opens_no_breaker() {
    let (mut roster, mut now) = roster();
    for errno in [libc::EMFILE, libc::EADDRNOTAVAIL, libc::ENOBUFS].repeat(10) {
        let (target, slot) = dial(&mut roster, now).unwrap();
        let reason = EndReason::io("connect", &std::io::Error::from_raw_os_error(errno));
        let next = roster.handle_dial_failed(target, slot, &reason, now).unwrap();
        assert!(next < S, "{next:?}");
        now += next;
    }
    let stats = roster.stats(now);
    assert_eq!((stats[0].breaker, stats[0].failures), (BreakerState::Closed, 0));
    assert!(dial(&mut roster, now).is_some(), "as soon as there is enough again");
}

#[test]
fn two_addresses_of_one_peer_are_dialled_one_at_a_time() {
    let (mut roster, now) = roster();
    roster.add(PeerConfig::new("b:1"), now);
    for _ in 0..2 {
        let (target, slot) = dial(&mut roster, now).unwrap();
        roster.handle_dialled(target, slot, PEER, now);
    }
    roster.handle_proven(PEER, 0, now);
    roster.handle_link(PEER, LinkView::default(), now);
    let first = dial(&mut roster, now).expect("at once");
    assert_eq!(dial(&mut roster, now), None);
    refused(&mut roster, first, now);
    assert_ne!(dial(&mut roster, now).expect("the other address").0, first.0);
}

#[test]
fn entries_with_one_address_and_different_ids_are_all_kept() {
    let (mut roster, now) = roster_with(|_| {});
    let with = |id| PeerConfig { id, ..PeerConfig::new("a:1") };
    [Some(PEER), Some(OTHER), Some(PEER), None].into_iter().for_each(|id| roster.add(with(id), now));
    let kept = |roster: &Roster| roster.stats(now).into_iter().map(|stats| stats.peer).collect::<Vec<_>>();
    assert_eq!(kept(&roster), [Some(PEER), Some(OTHER)], "the last entry is the first again");
    assert_eq!(roster.named(), [(PEER, None), (OTHER, None)].into());
    assert_eq!(roster.remove_address("a:1"), Some(vec![PEER, OTHER]));
    assert_eq!((roster.remove_address("a:1"), kept(&roster)), (None, vec![]));
}

// --- the identity of an entry -------------------------------------------------------------------

/// The peer that the next dial is made for.
fn expected(roster: &mut Roster, now: Instant) -> (TargetId, u8, Option<PeerId>) {
    loop {
        match roster.poll(now).expect("a dial is due") {
            Action::Dial { target, slot, expected, .. } => return (target, slot, expected),
            Action::BreakerChanged { .. } => {}
            Action::Retire { .. } => panic!("nobody is retired here"),
        }
    }
}

#[test]
fn while_the_link_serves_dials_are_made_for_its_peer_alone() {
    let (mut roster, now) = roster_with(|config| config.connections = 2);
    roster.add(PeerConfig::new("a:1"), now);
    let (target, slot, whom) = expected(&mut roster, now);
    assert_eq!(whom, None, "nobody is known there");
    roster.handle_dialled(target, slot, PEER, now);
    assert_eq!(expected(&mut roster, now), (target, 1, Some(PEER)));
    assert_eq!([(); 3].map(|()| roster.handle_wrong_peer(target)), [true, false, false], "told once");
    refused(&mut roster, (target, 1), now);
    // The link is lost: the node behind the address may be another one today.
    roster.handle_link(PEER, good(&[0]), now);
    roster.handle_link(PEER, LinkView::default(), now);
    let later = roster.next_timeout(now).unwrap();
    let (target, slot, whom) = expected(&mut roster, later);
    assert_eq!(whom, None);
    assert!(roster.handle_dialled(target, slot, OTHER, later));
    assert!(roster.handle_wrong_peer(target), "another binding");
}

#[test]
fn an_entry_with_an_id_is_never_dialled_for_another_peer() {
    let (mut roster, now) = roster_with(|_| {});
    roster.add(PeerConfig { id: Some(PEER), ..PeerConfig::new("a:1") }, now);
    assert_eq!(expected(&mut roster, now).2, Some(PEER));
}

#[test]
fn a_late_answer_does_not_take_the_entry_of_a_linked_peer() {
    let (mut roster, mut now) = roster_with(|_| {});
    roster.add(PeerConfig::new("a:1"), now);
    let (target, slot, _) = expected(&mut roster, now);
    roster.handle_dialled(target, slot, PEER, now);
    roster.handle_link(PEER, LinkView::default(), now);
    now = roster.next_timeout(now).unwrap();
    let (target, slot, _) = expected(&mut roster, now);
    // It dials us while our dial reaches another node.
    roster.handle_link(PEER, good(&[0]), now);
    assert!(!roster.handle_dialled(target, slot, OTHER, now));
    assert!(roster.is_kept(PEER) && !roster.is_kept(OTHER));
    assert_eq!((dial(&mut roster, now + S), roster.next_timeout(now)), (None, None), "all is well");
}

// --- pools --------------------------------------------------------------------------------------

#[test]
fn an_important_peer_has_more_connections_unless_it_says_otherwise() {
    for (important, own, expected) in
        [(false, None, 1), (true, None, 2), (true, Some(1), 1), (false, Some(3), 3)]
    {
        let (mut roster, now) = roster_with(|_| {});
        roster.add(PeerConfig { important, connections: own, ..PeerConfig::new("a:1") }, now);
        let mut slots = Vec::new();
        while let Some((target, slot)) = dial(&mut roster, now) {
            roster.handle_dialled(target, slot, PEER, now);
            slots.push(slot);
        }
        assert_eq!(slots, (0..expected).collect::<Vec<_>>());
    }
}

#[test]
fn a_place_that_is_refused_again_and_again_does_not_delay_the_other() {
    let (mut roster, mut now, target) = pool();
    roster.handle_link(PEER, good(&[0]), now);
    for _ in 0..10 {
        assert_eq!(dial(&mut roster, now), Some((target, 1)));
        refused(&mut roster, (target, 1), now);
        now = roster.next_timeout(now).unwrap();
    }
    assert_eq!(dial(&mut roster, now), Some((target, 1)));
    // Its dial hangs while the other connection dies.
    roster.handle_link(PEER, LinkView::default(), now);
    assert_eq!(dial(&mut roster, now), Some((target, 0)), "at once");
}

#[test]
fn a_success_elsewhere_does_not_make_a_refused_place_be_hammered() {
    let (mut roster, start, target) = pool();
    roster.handle_link(PEER, good(&[0]), start);
    let (mut now, mut refusals) = (start, 0);
    while now < start + 600 * S {
        match dial(&mut roster, now) {
            Some((_, 1)) => {
                refusals += 1;
                refused(&mut roster, (target, 1), now);
            }
            Some((_, slot)) => {
                roster.handle_dialled(target, slot, PEER, now);
                roster.handle_link(PEER, good(&[0]), now);
                roster.handle_proven(PEER, 0, now);
            }
            None => {
                // The first connection dies and comes back every five seconds, and answers each time.
                now = roster.next_timeout(now).unwrap().min(now + 5 * S);
                roster.handle_link(PEER, LinkView::default(), now);
            }
        }
    }
    assert!((8..60).contains(&refusals), "{refusals} in ten minutes");
}

#[test]
fn a_place_that_fails_is_no_failure_of_the_peer() {
    let (mut roster, mut now, target) = pool();
    roster.handle_link(PEER, good(&[0]), now);
    for _ in 0..20 {
        assert_eq!(dial(&mut roster, now), Some((target, 1)));
        refused(&mut roster, (target, 1), now);
        now = roster.next_timeout(now).unwrap();
    }
    let stats = &roster.stats(now)[0];
    assert_eq!((stats.breaker, stats.failures), (BreakerState::Closed, 0));
}

#[test]
fn a_suspect_connection_gets_a_successor_and_only_one() {
    let (mut roster, now, target) = pool();
    let view = troubled(good(&[0]), 1, ReplaceReason::Suspect);
    roster.handle_link(PEER, view, now);
    assert_eq!(dial_with(&mut roster, now), Some((target, 1, Some(ReplaceReason::Suspect))));
    assert_eq!(dial(&mut roster, now + 3600 * S), None);
    roster.handle_dialled(target, 1, PEER, now);
    // The successor is there, the other one has not gone.
    roster.handle_link(PEER, troubled(good(&[0, 1]), 1, ReplaceReason::Suspect), now);
    assert_eq!(dial(&mut roster, now + 3600 * S), None);
    assert_eq!(roster.replacements(now), 1);
}

#[test]
fn a_replacement_that_fails_is_backed_off_and_the_breaker_of_an_answering_peer_stays_closed() {
    let (mut roster, now) = roster();
    let (target, _) = dial(&mut roster, now).unwrap();
    roster.handle_dialled(target, 0, PEER, now);
    roster.handle_proven(PEER, 0, now);
    roster.handle_link(PEER, troubled(good(&[]), 0, ReplaceReason::Aged), now);
    let (mut at, mut attempts) = (now, 0);
    while at < now + 600 * S {
        match dial(&mut roster, at) {
            Some(dialled) => {
                attempts += 1;
                refused(&mut roster, dialled, at);
            }
            None => at = roster.next_timeout(at).unwrap(),
        }
    }
    assert!((8..60).contains(&attempts), "{attempts}");
    assert_eq!(roster.stats(at)[0].breaker, BreakerState::Closed);
    roster.handle_link(PEER, LinkView::default(), at);
    assert!(
        dial(&mut roster, at).is_some(),
        "a dead connection does not wait for what the old one waited for"
    );
}

#[test]
fn a_requested_replacement_is_made_beyond_our_own_part_of_the_pool() {
    for (reason, expected) in [(ReplaceReason::Asked, true), (ReplaceReason::Suspect, false)] {
        let (mut roster, now) = roster();
        let (target, _) = dial(&mut roster, now).unwrap();
        roster.handle_dialled(target, 0, PEER, now);
        // The peer keeps two connections, we one.
        roster.handle_link(PEER, troubled(good(&[0]), 1, reason), now);
        assert_eq!(dial(&mut roster, now).is_some(), expected, "{reason:?}");
    }
}

#[test]
fn a_storm_is_limited_loses_nobody_and_lets_the_suspect_and_the_dead_go_first() {
    let (mut roster, start) = roster_with(|config| config.max_replacements_per_minute = 10);
    let mut targets = Vec::new();
    for peer in 0..50u8 {
        roster.add(PeerConfig::new(format!("10.{peer}.0.1:1")), start);
        let (target, slot) = dial(&mut roster, start).unwrap();
        let id = PeerId::from_bytes([peer + 1; 32]);
        roster.handle_dialled(target, slot, id, start);
        roster.handle_proven(id, 0, start);
        targets.push((target, id));
    }
    for (index, (_, id)) in targets.iter().enumerate() {
        let reason = match index {
            0..10 => ReplaceReason::Aged,
            10..25 => ReplaceReason::Asked,
            _ => ReplaceReason::Suspect,
        };
        let view = if index == 7 { good(&[]) } else { troubled(good(&[]), 0, reason) };
        roster.handle_link(*id, view, start);
    }
    let (mut now, mut made) = (start, Vec::new());
    assert_eq!(dial_with(&mut roster, now), Some((targets[7].0, 0, None)), "the dead one first");
    while made.len() < 49 {
        match dial_with(&mut roster, now) {
            Some((target, slot, replaces)) => {
                made.push((now, replaces));
                let (_, id) = targets.iter().find(|(other, _)| *other == target).unwrap();
                roster.handle_dialled(target, slot, *id, now);
                roster.handle_link(*id, good(&[0]), now);
            }
            None => now = roster.next_timeout(now).expect("nobody is forgotten"),
        }
    }
    assert!(made.windows(11).all(|window| window[10].0 - window[0].0 >= 60 * S));
    assert!(made.is_sorted_by_key(|(_, reason)| *reason), "{made:?}");
    assert_eq!(made[24].1, Some(ReplaceReason::Suspect));
    assert_eq!(now - start, 240 * S, "and no later than it must be");
}

#[test]
fn a_replacement_that_did_not_help_waits_and_another_reason_does_not() {
    for slots in [1, 2] {
        let (mut roster, start) = roster_with(|config| config.connections = slots);
        roster.add(PeerConfig::new("a:1"), start);
        let (target, _) = dial(&mut roster, start).unwrap();
        roster.handle_dialled(target, 0, PEER, start);
        // All are poor, and so is each successor.
        let poor = |view| (0..slots).fold(view, |view, slot| troubled(view, slot, ReplaceReason::Poor));
        let (mut now, mut made) = (start, 0);
        while now < start + 180 * S {
            roster.handle_link(PEER, poor(good(&[])), now);
            while let Some((target, slot)) = dial(&mut roster, now) {
                made += 1;
                roster.handle_dialled(target, slot, PEER, now);
                roster.handle_link(PEER, good(&(0..slots).collect::<Vec<_>>()), now);
            }
            now += S;
        }
        assert_eq!(made, 6, "a pool of {slots}");
        roster.handle_link(PEER, troubled(good(&[]), 0, ReplaceReason::Asked), now);
        assert!(dial(&mut roster, now).is_some(), "the application asks");
    }
}

#[test]
fn dials_that_fail_are_no_replacements_that_did_not_help() {
    let (mut roster, start, target) = pool();
    let poor = troubled(good(&[1]), 0, ReplaceReason::Poor);
    roster.handle_link(PEER, poor, start);
    let mut now = start;
    for _ in 0..5 {
        while dial(&mut roster, now).is_none() {
            now = roster.next_timeout(now).unwrap();
        }
        refused(&mut roster, (target, 0), now);
    }
    assert!(now < start + 31 * S, "the backoff of dials, and nothing else: {:?}", now - start);
}

#[test]
fn candidates_leave_half_of_the_replacements_to_named_peers() {
    let (mut roster, start) = roster_with(|config| {
        (config.max_replacements_per_minute, config.target_peers) = (6, 8);
    });
    (1..=6u8).for_each(|n| assert!(roster.learn(PeerConfig::new(format!("10.{n}.0.1:1")), start)));
    roster.add(PeerConfig::new("10.100.0.1:1"), start);
    roster.add(PeerConfig::new("10.101.0.1:1"), start);
    let mut linked = Vec::new();
    let mut now = start;
    while linked.len() < 8 {
        match dial(&mut roster, now) {
            Some((target, _)) => {
                let id = PeerId::from_bytes([linked.len() as u8 + 1; 32]);
                roster.handle_dialled(target, 0, id, now);
                roster.handle_link(id, good(&[0]), now);
                roster.handle_proven(id, 0, now);
                linked.push(id);
            }
            None => now = roster.next_timeout(now).unwrap(),
        }
    }
    // The candidates are in trouble first.
    let mut made = [0, 0];
    let (candidates, named): (Vec<PeerId>, Vec<PeerId>) =
        linked.iter().partition(|id| !roster.named().contains_key(id));
    for (group, ids) in [candidates, named].into_iter().enumerate() {
        for id in ids {
            roster.handle_link(id, troubled(good(&[]), 0, ReplaceReason::Suspect), now);
        }
        while let Some((_, _, Some(_))) = dial_with(&mut roster, now) {
            made[group] += 1;
        }
    }
    assert_eq!(made, [3, 2], "half of six, and the two that were named at once");
}

#[test]
fn an_inbound_link_needs_no_dial() {
    let (mut roster, now) = roster_with(|_| {});
    roster.handle_link(PEER, good(&[0]), now);
    roster.add(PeerConfig { id: Some(PEER), ..PeerConfig::new("a:1") }, now);
    assert_eq!(dial(&mut roster, now), None);
    roster.handle_link(PEER, LinkView::default(), now);
    let later = roster.next_timeout(now).unwrap();
    assert!(dial(&mut roster, later).is_some());
}

// --- candidates ---------------------------------------------------------------------------------

fn learned(
    addresses: impl IntoIterator<Item = String>,
    change: impl FnOnce(&mut Config),
) -> (Roster, Instant) {
    let (mut roster, now) = roster_with(change);
    addresses.into_iter().for_each(|address| assert!(roster.learn(PeerConfig::new(address), now)));
    (roster, now)
}

#[test]
fn candidates_are_dialled_only_when_peers_are_lacking() {
    let (mut roster, now) = learned(["10.0.0.1:1".into()], |_| {});
    assert_eq!((dial(&mut roster, now), roster.next_timeout(now)), (None, None));
    let (mut roster, now) = learned(["10.0.0.1:1".into()], |config| config.target_peers = 1);
    roster.handle_link(OTHER, good(&[0]), now);
    assert_eq!((dial(&mut roster, now), roster.next_timeout(now)), (None, None));
    roster.handle_link(OTHER, LinkView::default(), now);
    assert!(dial(&mut roster, now).is_some());
}

#[test]
fn known_addresses_and_this_node_itself_are_not_learned() {
    let (mut roster, now) = roster();
    let alternatives = vec!["b:1".to_string()];
    roster.add(PeerConfig { alternatives, ..PeerConfig::new("c:1") }, now);
    for address in ["a:1", "b:1", "c:1"] {
        assert!(!roster.learn(PeerConfig::new(address), now), "{address}");
    }
    assert!(!roster.learn(PeerConfig { id: Some(US), ..PeerConfig::new("d:1") }, now));
    assert!(roster.learn(PeerConfig::new("d:1"), now));
    assert!(!roster.learn(PeerConfig::new("d:1"), now));
    assert_eq!(roster.candidates(), 1);
}

#[test]
fn a_candidate_that_is_a_known_peer_is_not_dialled_again() {
    let (mut roster, now) = learned(["10.0.0.1:1".into()], |config| config.target_peers = 2);
    roster.add(PeerConfig::new("a:1"), now);
    while let Some((target, slot)) = dial(&mut roster, now) {
        roster.handle_dialled(target, slot, PEER, now);
    }
    assert_eq!(roster.next_timeout(now), None);
    assert!(roster.stats(now).iter().all(|stats| stats.wanted));
    // Removed, it stays known and is left alone.
    roster.remove(PEER, now);
    assert!(!roster.learn(PeerConfig::new("10.0.0.1:1"), now));
    assert_eq!((dial(&mut roster, now), roster.next_timeout(now)), (None, None));
}

#[test]
fn a_candidate_that_is_added_is_wanted_from_then_on() {
    let (mut roster, now) = learned(["10.0.0.1:1".into()], |config| config.target_peers = 1);
    let (target, slot) = dial(&mut roster, now).unwrap();
    roster.handle_dialled(target, slot, PEER, now);
    roster.add(PeerConfig::new("10.0.0.1:1"), now);
    assert_eq!((roster.candidates(), dial(&mut roster, now)), (0, None));
    roster.handle_link(PEER, LinkView::default(), now);
    let later = roster.next_timeout(now).unwrap();
    assert!(dial(&mut roster, later).is_some());
}

#[test]
fn the_worst_candidates_are_dropped_first_and_a_flood_displaces_nobody() {
    let (mut roster, now) = learned([], |config| config.max_candidates = 10);
    let restore = |roster: &mut Roster, address: String, score, failures| {
        let mut record = super::PeerRecord::new(address);
        (record.score, record.failures, record.last_seen) = (Some(score), failures, Some(Duration::ZERO));
        roster.restore(&record, now);
    };
    (0..5).for_each(|host| restore(&mut roster, format!("10.{host}.0.1:1"), 0.9, 0));
    (5..8).for_each(|host| restore(&mut roster, format!("10.{host}.0.1:1"), 0.5, 4));
    assert!(roster.learn(PeerConfig::new("10.8.0.1:1"), now));
    let flood = |host: u32| PeerConfig::new(format!("10.200.{}.{}:1", host / 250, host % 250));
    (0..1000).for_each(|host| {
        roster.learn(flood(host), now);
    });
    let records = roster.records(now);
    assert_eq!(records.len(), 10);
    assert_eq!(records.iter().filter(|record| record.score == Some(0.9)).count(), 5);
    assert_eq!(records.iter().filter(|record| record.failures > 0).count(), 0, "{records:?}");
    assert!(records.iter().any(|record| record.addresses == ["10.8.0.1:1"]));
    assert!(roster.targets.len() == 10);
}

#[test]
fn records_prefer_and_survive() {
    let (mut roster, now) = learned([], |config| config.target_peers = 1);
    for (address, score) in [("10.1.0.1:1", 0.2), ("10.2.0.1:1", 0.9), ("10.3.0.1:1", 0.6)] {
        let mut record = super::PeerRecord::new(address);
        (record.score, record.last_seen) = (Some(score), Some(60 * S));
        (record.peer, record.learned) = (Some(OTHER), Some(LearnedInterval::new(7 * S)));
        roster.restore(&record, now);
    }
    let (target, slot) = dial(&mut roster, now).unwrap();
    // The peer that answers is another than the record says: that blocks nobody.
    assert!(roster.handle_dialled(target, slot, PEER, now));
    roster.handle_score(PEER, 0.8, now);
    let records = roster.records(now + S);
    let best = records.iter().find(|record| record.addresses == ["10.2.0.1:1"]).unwrap();
    assert_eq!((best.peer, best.score, best.last_seen), (Some(PEER), Some(0.8), Some(Duration::ZERO)));
    assert!(
        records
            .iter()
            .all(|record| record.learned.unwrap().interval == 7 * S && record.learned.unwrap().age == S)
    );
    let other = records.iter().find(|record| record.addresses == ["10.3.0.1:1"]).unwrap();
    assert_eq!((other.score, other.last_seen), (Some(0.6), Some(61 * S)));
}

// --- which address first ------------------------------------------------------------------------

/// Which address the next dial is to attempt first, for each place of a pool of two.
fn preferred(roster: &mut Roster, target: TargetId, now: Instant) -> Vec<Option<SocketAddr>> {
    roster.handle_link(PEER, LinkView::default(), now);
    let mut preferred = Vec::new();
    for slot in [0, 1] {
        match roster.poll(now + 600 * S) {
            Some(Action::Dial { slot: its_slot, prefer, .. }) if slot == its_slot => preferred.push(prefer),
            other => panic!("{other:?}"),
        }
        roster.handle_dialled(target, slot, PEER, now);
    }
    roster.handle_link(PEER, good(&[0, 1]), now);
    preferred
}

#[test]
fn the_address_that_worked_last_goes_first_and_a_pool_that_shares_one_spreads_again() {
    let (mut roster, now, target) = pool();
    let [one, other] = [1, 2].map(|host| SocketAddr::from(([10, 0, 0, host], 1)));
    assert_eq!(preferred(&mut roster, target, now), [None, None]);
    roster.handle_reached(target, 0, one);
    roster.handle_reached(target, 1, other);
    assert_eq!(preferred(&mut roster, target, now), [Some(one), Some(other)]);
    roster.handle_reached(target, 0, other);
    assert_eq!(preferred(&mut roster, target, now), [Some(other), None]);
}

// --- how many at once ---------------------------------------------------------------------------

/// The dials that are due, and no longer: each with its target and whether it is short.
fn all_due(roster: &mut Roster, now: Instant) -> Vec<(TargetId, bool)> {
    let dial = |action| match action {
        Action::Dial { target, short, .. } => Some((target, short)),
        _ => None,
    };
    let due: Vec<_> = std::iter::from_fn(|| roster.poll(now)).filter_map(dial).collect();
    assert!(roster.next_timeout(now).is_none_or(|at| at > now), "what waits for room is no timer");
    due
}

#[test]
fn absent_peers_leave_room_and_one_that_was_linked_before_is_dialled_at_once() {
    let (mut roster, now) = roster_with(|config| config.target_peers = 20);
    (0..1500).for_each(|n| roster.add(PeerConfig::new(format!("absent{n}:1")), now));
    (0..100).for_each(|n| assert!(roster.learn(PeerConfig::new(format!("candidate{n}:1")), now)));
    let first = all_due(&mut roster, now);
    assert!((192..=192 + 32).contains(&first.len()), "{}", first.len());
    roster.add(PeerConfig::new("seen:1"), now);
    let last_seen = Some(600 * S);
    roster.restore(&PeerRecord { last_seen, ..PeerRecord::new("seen:1") }, now);
    roster.add(PeerConfig::new("new:1"), now);
    let seen = roster.targets.iter().find(|target| target.config.address == "seen:1").unwrap().id;
    assert_eq!(all_due(&mut roster, now), [(seen, false)], "the last one waits for its turn");
}

#[test]
fn a_dial_that_waits_is_no_failure_and_comes_in_its_turn() {
    let (mut roster, start) = roster_with(|config| config.max_dials = 8);
    (0..100).for_each(|n| roster.add(PeerConfig::new(format!("absent{n}:1")), start));
    let (mut now, mut order) = (start, Vec::new());
    while order.len() < 100 {
        let due = all_due(&mut roster, now);
        assert_eq!(due.len(), 6, "three quarters of them");
        assert!(order.len() >= 94 || due.iter().all(|(_, short)| *short), "others wait");
        order.extend(due.iter().map(|(target, _)| target.0));
        now += S;
        for (target, _) in due {
            refused(&mut roster, (target, 0), now);
        }
    }
    // Each had its turn before any had a second one.
    order.truncate(100);
    assert!(order.is_sorted() && order.windows(2).all(|pair| pair[0] < pair[1]), "{order:?}");
    let failed = roster.stats(now).iter().filter(|stats| stats.failures > 1).count();
    assert!(failed <= 6, "{failed}");
}

// --- the network is back ------------------------------------------------------------------------

#[test]
fn dial_now_ends_every_wait_of_a_wanted_peer() {
    let (mut roster, mut now) = roster();
    let mut wait = Duration::ZERO;
    while wait <= S {
        now += wait;
        let one = dial(&mut roster, now).expect("a dial is due");
        wait = refused(&mut roster, one, now).expect("a wait");
    }
    assert!(dial(&mut roster, now).is_none());
    roster.dial_now(now);
    let one = dial(&mut roster, now).expect("a dial at once");
    // The next wait is a short one again.
    assert!(refused(&mut roster, one, now).is_some_and(|wait| wait <= S));
}
