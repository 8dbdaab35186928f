//! The monitor thread: holds every deadline, pings, dials, and tells the application.
//!
//! It never touches a socket in a way that could block: it ends connections with `shutdown(2)` and
//! leaves dialling to threads of their own. So a deadline holds whatever the other threads wait for.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use super::event::{Event, RetireReason};
use super::event_queue::Class;
use crate::clock;
use crate::conduct::Misbehavior;
use crate::error::{EndCause, EndReason, Initiator};
use crate::id::PeerId;
use crate::link::Notice;
use crate::roster::{Action, HeldUp, LinkView, Trouble};
use crate::wire::control::GoawayReason;
use crate::wire::refused::RefusedReason;
use log::Level;

use super::dial::{self, Dial};
use super::inner::NodeInner;
use super::link::{LinkHandle, LinkState};
use super::moved::MovedNames;
use super::named::About;
use super::pool;
use super::shared::Report;

const SHORTEST_SLEEP: Duration = Duration::from_millis(1);
/// A link that is to be forgotten, and that another thread holds, is looked at again after this time.
const TIDY_AGAIN: Duration = Duration::from_secs(1);
/// When it wakes up so much later than planned, the whole process stood still (SIGSTOP, a suspended
/// machine), and what seems overdue is not.
const PAUSE: Duration = Duration::from_millis(700);

/// The roster hears of scores so often in the time after which a silent connection is dead: once a second by
/// default, and only when the monitor is awake anyway.
const SCORES: u32 = 20;

pub(crate) fn run(core: &Arc<NodeInner>) {
    let agenda = &core.shared.agenda;
    let mut planned = None;
    let mut scores_at = clock::now();
    let mut moved = MovedNames::new(core.config.resolve_interval, core.seed, scores_at);
    loop {
        agenda.begin();
        // Looked at before the reports are: the last connection reports its end before it is gone.
        let last_round = core.is_closing() && core.connections.load(SeqCst) == 0;
        let now = clock::now();
        forgive_pause(core, planned, now);
        handle_reports(core, now);
        if last_round {
            return;
        }
        let due = agenda.due(now);
        if due.all {
            core.all_links().iter().for_each(|link| look_at(core, link, now));
        } else {
            let links = due.links.into_iter().filter_map(|(account, peer)| core.link_of(account, peer));
            links.for_each(|link| look_at(core, &link, now));
        }
        core.forget_strangers();
        core.reclaim_unfinished(now);
        if now >= scores_at {
            core.update_scores(now);
            core.shared.chunks.shrink();
            scores_at = now + core.config.path.dead_after / SCORES;
        }
        if due.round {
            let next = [check_pending(core, now), core.expire_bans(now)];
            next.into_iter().flatten().for_each(|at| agenda.round_at(at));
            core.threads.reap();
        }
        moved.check(core, now).into_iter().for_each(|at| agenda.round_at(at));
        // Reports of other threads since then: the application hears of a cause before the dial.
        handle_reports(core, now);
        if due.round {
            release_left(core, now);
        }
        dial_due(core, now).into_iter().for_each(|at| agenda.round_at(at));
        // Overdue timers are being settled by another thread: no reason to spin.
        planned = Some(agenda.sleep(now + SHORTEST_SLEEP));
    }
}

/// Settles what is due on a link, and plans the next look.
fn look_at(core: &Arc<NodeInner>, link: &Arc<LinkHandle>, now: Instant) {
    let (next, notices) = link.tick();
    notices.into_iter().for_each(|notice| handle_notice(core, link.peer, Some(link), notice, now));
    let aged = pool::retire_aged(link, core.seed, now);
    announce_state(core, link, now);
    let tidy = core.tidy(link).then(|| now + TIDY_AGAIN);
    link.look_at([next, aged, tidy].into_iter().flatten().min());
}

/// Forgets the links on their way out that have ended. The last connection of one may have ended after the
/// reports were taken: nobody else tells of it then.
fn release_left(core: &Arc<NodeInner>, now: Instant) {
    for link in core.take_left() {
        if core.link(link.peer).is_none() {
            announce_state(core, &link, now);
        }
    }
    core.forget_labels();
}

fn forgive_pause(core: &NodeInner, planned: Option<Instant>, now: Instant) {
    let late = planned.map_or(Duration::ZERO, |planned| now.saturating_duration_since(planned));
    if late > PAUSE {
        core.shared.background.log(
            Class::Named,
            Level::Warn,
            format_args!("this process stood still for {late:?}"),
        );
        core.all_links().iter().for_each(|link| link.handle_pause(late, now));
        core.pending.lock().values_mut().for_each(|(_, deadline)| *deadline += late);
    }
}

/// Ends handshakes that take too long. Returns the next deadline.
fn check_pending(core: &NodeInner, now: Instant) -> Option<Instant> {
    let mut next = None;
    let mut late = Vec::new();
    for (conn, deadline) in core.pending.lock().values() {
        if *deadline <= now {
            late.push(Arc::clone(conn));
        } else {
            next = next.into_iter().chain([*deadline]).min();
        }
    }
    for conn in late {
        conn.end(EndReason::new(Initiator::Library, EndCause::HandshakeTimeout));
    }
    next
}

fn dial_due(core: &Arc<NodeInner>, now: Instant) -> Option<Instant> {
    if core.is_closing() {
        return None;
    }
    loop {
        let action = core.roster.poll(now, |roster| roster.poll(now).ok_or_else(|| roster.next_timeout(now)));
        match action {
            Ok(Action::Dial {
                target,
                named,
                peer,
                expected,
                slot,
                replaces,
                prefer,
                short,
                dial_back,
                config,
            }) => {
                if let Some((peer, Trouble { conn, reason, .. })) = peer.zip(replaces) {
                    core.shared.tell(Event::Replacing { peer, conn, slot, reason });
                }
                let class = if named { Class::Named } else { Class::Stranger };
                let config = *config;
                dial::dial(
                    core,
                    Dial { target, class, peer, expected, slot, replaces, prefer, short, dial_back, config },
                );
            }
            Ok(Action::Retire { peer, successor }) => {
                if let Some(link) = core.link(peer) {
                    let line = format_args!("retired for {}", core.shared.named.name_of(successor));
                    core.shared.log(peer, Level::Info, line);
                    link.drain_all(GoawayReason::Retired);
                    let reason = RetireReason::Poor;
                    core.shared.tell(Event::PeerRetired { peer, successor, reason });
                }
            }
            Ok(Action::BreakerChanged { peer, address, state }) => {
                tell_of_dials(core, &address.clone(), Event::Breaker { peer, address, state });
            }
            Err(next) => return next,
        }
    }
}

/// Tells the application how dials of this address do.
fn tell_of_dials(core: &NodeInner, address: &str, event: Event) {
    let named = core.roster.lock().is_named_address(address);
    core.shared.mailbox.push_event(event, if named { Class::Named } else { Class::Stranger });
}

fn handle_reports(core: &Arc<NodeInner>, now: Instant) {
    core.shared.take_reports().into_iter().for_each(|report| handle_report(core, report, now));
}

fn handle_report(core: &Arc<NodeInner>, report: Report, now: Instant) {
    match report {
        Report::Link(peer, notice) => {
            // A stranger's link may have been forgotten since. The application hears of it all the same.
            let link = core.any_link(peer);
            handle_notice(core, peer, link.as_ref(), notice, now);
            link.into_iter().for_each(|link| link.look_now());
        }
        Report::Ended { peer, conn, reason, proven, proof, useful } => {
            if let Some(slot) = proof {
                core.roster.lock().handle_proven(peer, slot, now);
            }
            let refused = reason.cause == EndCause::Banned || Misbehavior::of(&reason, true).is_some();
            if let Some(slot) = useful {
                let held_up = match &reason {
                    _ if refused => Some(HeldUp::Gone),
                    EndReason { by: Initiator::Peer, cause: EndCause::Goaway(goodbye) } => {
                        Some(HeldUp::after(*goodbye))
                    }
                    _ => None,
                };
                core.roster.lock().handle_useful(peer, slot, held_up, now);
            }
            if refused {
                core.roster.lock().hold_up(peer, HeldUp::Gone);
            }
            if core.link(peer).is_none() {
                // It was given up: nobody else says that nothing serves.
                core.roster.lock().handle_link(peer, LinkView::default(), now);
            }
            let orderly = matches!(reason.cause, EndCause::Goaway(_) | EndCause::Shutdown);
            if let EndReason {
                by: Initiator::Library,
                cause: EndCause::Tampered(_) | EndCause::Protocol(_),
            } = &reason
            {
                core.shared.log(peer, Level::Warn, format_args!("{conn} ended: {reason}"));
            }
            core.shared.tell(Event::Disconnected { peer, conn, reason });
            if let Some(link) = core.any_link(peer) {
                link.update(|state| state.life.score.handle_ended(proven, orderly, now));
                announce_state(core, &link, now);
                link.look_now();
            }
        }
        Report::Dialled { target, slot, peer, address, addr } => {
            let (wanted, known) = {
                let mut roster = core.roster.lock();
                roster.handle_reached(target, slot, addr);
                (roster.handle_dialled(target, slot, peer, now), roster.knows(&address))
            };
            core.classify_links();
            match (wanted, known) {
                (true, _) => {}
                // It was given up while it was being dialled.
                (false, false) => {
                    core.remove(peer);
                    return;
                }
                // And added again, or it is a candidate that rests: the conversation stays, for a while.
                (false, true) => {
                    core.link(peer).into_iter().for_each(|link| link.drain_all(GoawayReason::Retired));
                }
            }
            if let Some(link) = core.link(peer) {
                link.update(|state| state.life.announced_to_roster = None);
                announce_state(core, &link, now);
                link.look_now();
            }
        }
        Report::WrongPeer { target, address, expected, found } => {
            if core.roster.lock().handle_wrong_peer(target) {
                let line = format_args!(
                    "{} answered at {address} in its place: correct the id or the address of this entry in `peers`",
                    core.shared.named.name_of(found)
                );
                core.shared.log(expected, Level::Warn, line);
                let event = Event::AddressConflict { address: address.clone(), expected, found };
                tell_of_dials(core, &address, event);
            }
        }
        Report::DialFailed { target, slot, peer, label, address, reason } => {
            let (next, answered, level) = {
                let mut roster = core.roster.lock();
                let level = dial_level(&reason, roster.is_named(target), roster.last_error(target));
                let next = roster.handle_dial_failed(target, slot, &reason, now);
                (next, roster.peer_of(target), level)
            };
            let peer = peer.or(answered);
            // One that was linked by this entry before is not to blame if another one has refused.
            if let Some(link) = answered.filter(|_| answered == peer).and_then(|peer| core.link(peer)) {
                link.update(|state| state.life.score.handle_dial_failed(now));
            }
            let label = label.or_else(|| core.shared.named.label_of(peer?));
            let about = About { label, peer };
            let line = format_args!("{about}dial {address} failed: {reason}");
            core.shared.background.log(Class::Named, level, line);
            tell_of_dials(core, &address.clone(), Event::DialFailed { peer, address, reason, next });
        }
    }
}

/// The first failed dial of a named peer is told aloud, and so is each one with another reason than the last.
/// An identity that two processes use is an error.
fn dial_level(reason: &EndReason, named: bool, last: Option<&EndReason>) -> Level {
    use EndCause::RefusedByPeer;
    let is_same = |last: &EndReason| match (&last.cause, &reason.cause) {
        (RefusedByPeer { reason: last, .. }, RefusedByPeer { reason, .. }) => last == reason,
        (last, cause) => std::mem::discriminant(last) == std::mem::discriminant(cause),
    };
    match &reason.cause {
        _ if last.is_some_and(is_same) => Level::Debug,
        RefusedByPeer { reason: RefusedReason::IdentityInUse, .. } | EndCause::IdentityInUse => Level::Error,
        RefusedByPeer { reason: RefusedReason::Retry, .. } | EndCause::Retry | EndCause::Shutdown => {
            Level::Debug
        }
        _ if named => Level::Warn,
        _ => Level::Debug,
    }
}

fn handle_notice(
    core: &Arc<NodeInner>,
    peer: PeerId,
    link: Option<&Arc<LinkHandle>>,
    notice: Notice,
    now: Instant,
) {
    let shared = &core.shared;
    match notice {
        // The application was told when it joined.
        Notice::Joined(_) | Notice::PoolChanged => {}
        Notice::Suspect(conn) => {
            if let Some(link) = link {
                link.update(|state| state.life.score.handle_suspect(now));
            }
            shared.tell(Event::Suspect { peer, conn });
        }
        Notice::Recovered(conn) => shared.tell(Event::Recovered { peer, conn }),
        Notice::Goaway(_, reason) => {
            let mut resting = Vec::new();
            let mut roster = core.roster.lock();
            match reason.meaning() {
                GoawayReason::Removed => resting = roster.handle_removed(peer, now),
                // Before the roster hears that the connection serves no longer: that dials at once.
                _ => roster.hold_up(peer, HeldUp::after(reason)),
            }
            drop(roster);
            for (address, wait) in resting {
                let reason = EndReason::new(Initiator::Peer, EndCause::Goaway(reason));
                let line = format_args!("asked not to be dialled at {address}; next attempt in {wait:?}");
                core.shared.log(peer, Level::Warn, line);
                let (peer, next) = (Some(peer), Some(wait));
                let event = Event::DialFailed { peer, address: address.clone(), reason, next };
                tell_of_dials(core, &address, event);
            }
        }
        Notice::Replaced { old, new } => shared.tell(Event::Replaced { peer, old, new }),
        Notice::ConnDegraded(conn) => shared.tell(Event::ConnDegraded { peer, conn }),
        Notice::ConnHealthy(conn) => shared.tell(Event::ConnHealthy { peer, conn }),
        Notice::Learned { ping_interval } => {
            core.shared.log(
                peer,
                Level::Info,
                format_args!("idle connections die on this path; ping interval lowered to {ping_interval:?}"),
            );
            shared.tell(Event::PingIntervalLearned { peer, ping_interval });
        }
        Notice::PeerRestarted { incarnation, resent } => {
            core.shared.log(peer, Level::Info, format_args!("restarted, {resent} messages go again"));
            shared.tell(Event::PeerRestarted { peer, incarnation, resent });
        }
        Notice::Repeated { messages } => {
            let line = format_args!("{messages} messages may come for the second time");
            core.shared.log(peer, Level::Info, line);
            core.shared.tell(Event::Repeated { peer, messages });
        }
        Notice::LaneUnknown(lane) => {
            let line =
                format_args!("messages are dropped, since the peer does not have {lane} among its `lanes`");
            shared.log(peer, Level::Warn, line);
        }
        Notice::SmallerMessages { lane, max_message } => {
            let line =
                format_args!("takes messages of at most {max_message} bytes on {lane}, less than this node");
            shared.log(peer, Level::Info, line);
        }
        Notice::Lost { messages, by_peer } => {
            core.shared.log(peer, Level::Error, format_args!("{messages} messages lost"));
            shared.tell(Event::Lost { peer, messages, by_peer });
        }
    }
    if let Some(link) = link {
        announce_state(core, link, now);
    }
}

/// Tells the application and the roster when the state of a link has changed.
fn announce_state(core: &Arc<NodeInner>, link: &Arc<LinkHandle>, now: Instant) {
    let peer = link.peer;
    let change = link.update(|state| {
        let conns = state.link.conns();
        let current = if conns.iter().any(|conn| conn.is_up()) {
            LinkState::Up
        } else if conns.iter().any(|conn| conn.is_serving()) {
            LinkState::Degraded
        } else if !conns.is_empty() {
            // The last ones are draining: what that leads to shows when they have ended.
            state.life.announced
        } else if state.life.joined > 0 {
            LinkState::Down
        } else {
            LinkState::Connecting
        };
        let feedback = pool::feedback(state, now);
        let previous = std::mem::replace(&mut state.life.announced, current);
        let changed = (previous != current).then(|| {
            let since = state.life.since.replace(now);
            (previous, current, since, state.link.incarnation(), state.life.last_end.clone())
        });
        (feedback, changed)
    });
    let (feedback, changed) = change;
    link.look_at(feedback.next);
    // One that was given up does not speak for one that came after it.
    if core.is_kept(link) {
        pool::notify_roster(core, peer, feedback, now);
    }
    let Some((previous, current, since, incarnation, last_end)) = changed else { return };
    // A thread that waits for links counts them again.
    core.shared.progress();
    let event = match (current, incarnation) {
        (LinkState::Up, Some(incarnation)) => {
            let after = since.filter(|_| previous == LinkState::Down).map(|since| now - since);
            core.shared.log(peer, Level::Info, format_args!("up"));
            Event::LinkUp { peer, incarnation, after }
        }
        (LinkState::Degraded, _) => Event::LinkDegraded { peer },
        (LinkState::Down, _) => {
            let reason = last_end.unwrap_or(EndReason::new(Initiator::Network, EndCause::Closed));
            core.shared.log(peer, Level::Info, format_args!("down: {reason}"));
            Event::LinkDown { peer, reason }
        }
        _ => return,
    };
    core.shared.tell(event);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Node;

    #[test]
    fn what_a_link_has_said_is_told_although_it_was_forgotten_meanwhile() {
        let node = Node::builder().start().unwrap();
        let stranger = PeerId::from_bytes([7; 32]);
        let lost = Notice::Lost { messages: 2, by_peer: true };
        node.handle.core.shared.report(Report::Link(stranger, lost));
        let told = node.recv_timeout(Duration::from_secs(60)).unwrap();
        assert!(matches!(told, Some(Event::Lost { peer, messages: 2, by_peer: true }) if peer == stranger));
    }
}
