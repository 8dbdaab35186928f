//! Joining a connection to the link: which session it belongs to, and what that means for what was
//! under way.

use std::time::{Duration, Instant};

use crate::health::liveness::{Limits, Liveness};
use crate::health::pace::Pace;
use crate::id::Incarnation;
use crate::lane::MAX_SLOTS;
use crate::outcome::{DropReason, RequestError};
use crate::wire::control::{Hello, HelloLane, LaneAck};
use crate::wire::stream::MessageKind;

use super::conns::{Conn, NewConn};
use super::expiry::EXPIRES_ON_ARRIVAL;
use super::lane::Lane;
use super::output::{Notice, Output};
use super::scheduler::Scheduler;
use super::{Link, Token, Violation};

/// A peer that says that it delays acknowledgements for longer is not believed.
const MAX_ACK_DELAY: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Session {
    /// Our half of the session: drawn when our memory of this conversation began.
    session_id: u64,
    peer: Option<PeerSide>,
    /// The session id with which we would begin anew, once a peer with this incarnation has joined.
    next: Option<(Incarnation, u64)>,
    /// Since when the connections of another life of the peer are being probed.
    probing_since: Option<Instant>,
    /// Counts the sessions of this link.
    epoch: u32,
    /// How many messages of this session had been begun towards an earlier life of the peer.
    repeats: usize,
    /// Whether the application was told of those that the peer repeats.
    told_repeats: bool,
}

#[derive(Clone, Copy, Debug)]
struct PeerSide {
    incarnation: Incarnation,
    /// `None` after we forgot.
    session_id: Option<u64>,
}

impl Session {
    pub(super) fn new(rng: &mut fastrand::Rng) -> Self {
        Session {
            session_id: rng.u64(..),
            peer: None,
            next: None,
            probing_since: None,
            epoch: 0,
            repeats: 0,
            told_repeats: false,
        }
    }

    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    pub(super) fn is_forgotten(&self) -> bool {
        self.peer.is_none_or(|peer| peer.session_id.is_none())
    }

    pub(super) fn peer_incarnation(&self) -> Option<Incarnation> {
        self.peer.map(|peer| peer.incarnation)
    }
}

/// Why a connection could not join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AttachError {
    /// The session changed while the hands were shaken. The next handshake will agree.
    Retry,
    /// Another life of this peer has connections; they are being probed. Ask again when one of them
    /// changes, at the latest then.
    Probing(Instant),
    /// Another life of this peer is alive.
    IncumbentAlive,
    /// The link has ended.
    Closed,
    Violation(Violation),
}

impl<T: Token, R, C: Clone> Link<T, R, C> {
    /// Our HELLO for a peer with this incarnation. As the dialer we say which slot of the pool the connection
    /// is for, and whether it is to replace the one that serves there. Where this node accepts connections
    /// depends on the connection, and is for the caller to add.
    pub(crate) fn hello(&mut self, incarnation: Incarnation, slot: u8, replaces: bool) -> Hello {
        let token = self.rng.u64(..);
        let serving = self.conns.iter().filter(|conn| conn.slot == slot && conn.is_serving());
        let replaces = serving.max_by_key(|conn| (conn.rank(), conn.id)).filter(|_| replaces);
        let replaces = replaces.map(|conn| conn.token);
        let restarted = self.session.peer_incarnation().is_some_and(|known| known != incarnation);
        let session_id = match self.session.next {
            _ if !restarted => self.session.session_id,
            Some((candidate, session_id)) if candidate == incarnation => session_id,
            _ => {
                let session_id = self.rng.u64(..);
                self.session.next = Some((incarnation, session_id));
                session_id
            }
        };
        // A session in which nothing happened binds nobody: it gives way to any other.
        let bound = !restarted && !self.is_unused();
        let peer_session_id = self.session.peer.filter(|_| bound).and_then(|peer| peer.session_id);
        let repeats = match restarted {
            true => self.lanes.iter().map(|lane| lane.out.begun()).sum(),
            false => self.session.repeats,
        };
        let stale = self.lanes.iter().filter(|_| !restarted).flat_map(Lane::unsettled).collect();
        let lanes = self.settings.lanes.iter().zip(&mut self.lanes).map(|(config, lane)| HelloLane {
            lane: config.id,
            max_message: config.max_message as u32,
            max_untaken: config.max_untaken,
            state: if restarted { LaneAck::default() } else { lane.inb.grant() },
        });
        Hello {
            session_id,
            peer_session_id,
            token,
            slot,
            replaces,
            lanes: lanes.collect(),
            name: self.settings.name.clone(),
            features: EXPIRES_ON_ARRIVAL,
            ack_delay_ms: u32::try_from(self.settings.ack_delay.as_millis()).ok(),
            repeats: u32::try_from(repeats).ok().filter(|count| *count > 0),
            port: None,
            stale,
        }
    }

    /// Joins a connection to the link.
    pub(crate) fn attach(
        &mut self,
        new: &NewConn<C>,
        now: Instant,
        output: &mut Output<T, R, C>,
    ) -> Result<(), AttachError> {
        if self.closed.is_some() {
            return Err(AttachError::Closed);
        }
        let dialer = new.of_dialer();
        if dialer.slot >= MAX_SLOTS {
            return Err(AttachError::Violation(Violation::NoSuchSlot { slot: dialer.slot }));
        }
        // The states in the peer's HELLO are about a session of ours that is gone. It reads so in our HELLO,
        // forgets as well, and comes back; what began before would be lost with it.
        let speaks_of_another =
            new.theirs.peer_session_id.is_some_and(|session_id| session_id != new.ours.session_id);
        match self.session.peer {
            Some(peer) if peer.incarnation == new.incarnation => {
                if new.ours.session_id != self.session.session_id {
                    return Err(AttachError::Retry);
                }
                match peer.session_id {
                    Some(session_id) if session_id != new.theirs.session_id && !self.is_unused() => {
                        self.peer_forgot(now, output);
                        return Err(AttachError::Retry);
                    }
                    _ if speaks_of_another => return Err(AttachError::Retry),
                    Some(session_id) if session_id == new.theirs.session_id => {}
                    None => self.adopt(new),
                    Some(_) => {
                        self.lose_begun(output);
                        // The limits in our HELLO hold in this session too.
                        self.lanes.iter_mut().for_each(|lane| {
                            lane.inb.grant();
                        });
                        self.adopt(new);
                    }
                }
            }
            _ if speaks_of_another => return Err(AttachError::Retry),
            // The session changed during the handshake: our HELLO named one that is gone.
            None if new.ours.session_id != self.session.session_id => return Err(AttachError::Retry),
            None => self.adopt(new),
            Some(_) => {
                self.probe_incumbents(now)?;
                match self.session.next {
                    Some((incarnation, session_id))
                        if incarnation == new.incarnation && session_id == new.ours.session_id =>
                    {
                        self.peer_restarted(new, session_id, output);
                    }
                    _ => return Err(AttachError::Retry),
                }
            }
        }
        let joined = self.join(new, now, output);
        if joined.is_err() && self.conns.is_empty() {
            // The connections of an earlier session may have gone for it.
            self.down_since.get_or_insert(now);
        }
        joined.map_err(AttachError::Violation)
    }

    fn join(
        &mut self,
        new: &NewConn<C>,
        now: Instant,
        output: &mut Output<T, R, C>,
    ) -> Result<(), Violation> {
        let ended = output.ended.len();
        let expires = new.theirs.features & EXPIRES_ON_ARRIVAL != 0;
        let agreed = self.handle_stale(&new.theirs.stale, now, output).and_then(|()| {
            self.lanes.iter_mut().try_for_each(|lane| {
                let theirs = new.theirs.lanes.iter().find(|hello| hello.lane == lane.id);
                lane.out.handle_hello(theirs, expires, &mut output.ended)?;
                lane.refuse_if_unknown(output);
                lane.compare_limit(theirs, output);
                Ok(())
            })
        });
        // Messages that ended on the lanes in front of a bad one stay ended.
        self.end_unsent_requests(ended, output);
        output.space = true;
        agreed?;
        let limits = Limits {
            ping_interval: self.keepalive.interval(now),
            suspect_after: patience_for(&new.theirs).max(self.settings.liveness.suspect_after),
            ..self.settings.liveness
        };
        let liveness = Liveness::new(limits, now, self.rng.u64(..));
        let pace = Pace::new(self.settings.max_chunk);
        let dialer = new.of_dialer();
        let scheduler = Scheduler::new(self.settings.lanes.iter().map(|lane| lane.priority));
        self.conns.reserve_exact(1); // There are few, and each is large.
        self.conns.push(Conn::new(new, liveness, pace, scheduler, now));
        self.down_since = None;
        self.settle_lessons(now, output);
        self.meter.handle_joined(self.lanes.len());
        output.notices.push(Notice::Joined(new.id));
        if let Some(messages) =
            new.theirs.repeats.filter(|_| !std::mem::replace(&mut self.session.told_repeats, true))
        {
            output.notices.push(Notice::Repeated { messages: messages as usize });
        }
        self.resync(now, output);
        self.reassign(now, output);
        self.settle_newcomer(new.id, dialer.replaces, now, output);
        Ok(())
    }

    fn adopt(&mut self, new: &NewConn<C>) {
        self.session.peer =
            Some(PeerSide { incarnation: new.incarnation, session_id: Some(new.theirs.session_id) });
        self.lanes.iter_mut().for_each(|lane| lane.inb.set_sender(new.incarnation));
    }

    /// Nothing was sent or received in this session.
    fn is_unused(&self) -> bool {
        self.lanes.iter().all(|lane| lane.out.is_unused() && lane.inb.is_unused())
    }

    /// Connections of another life of the peer: are they alive?
    fn probe_incumbents(&mut self, now: Instant) -> Result<(), AttachError> {
        let since = *self.session.probing_since.get_or_insert(now);
        let mut deadline = None;
        for conn in self.conns.iter_mut().filter(|conn| conn.is_up()) {
            if conn.liveness.last_received() > since {
                self.session.probing_since = None;
                return Err(AttachError::IncumbentAlive);
            }
            conn.liveness.probe(now);
            let answer_by = since + conn.liveness.patience();
            if now < answer_by {
                deadline = deadline.max(Some(answer_by));
            }
        }
        match deadline {
            Some(deadline) => Err(AttachError::Probing(deadline)),
            None => {
                self.session.probing_since = None;
                Ok(())
            }
        }
    }

    /// The thread that waited for the outcome of a probe has given up.
    pub(crate) fn stop_probing(&mut self) {
        self.session.probing_since = None;
    }

    fn peer_restarted(&mut self, new: &NewConn<C>, session_id: u64, output: &mut Output<T, R, C>) {
        self.conns.let_go(output);
        self.keepalive.handle_peer_restarted();
        // A reply to an earlier life would meet nobody who asked.
        let resent = self.begin_session(output, |kind, _| {
            matches!(kind, MessageKind::Reply { .. }).then_some(DropReason::PeerRestarted)
        });
        let gone = self.requests.close_where(|id, _| {
            let asks = |kind| matches!(kind, MessageKind::Request { id: asked, .. } if asked == id);
            !self.lanes.iter().any(|lane| lane.out.contains(asks))
        });
        output.replies.extend(gone.into_iter().map(|waiter| (waiter, Err(RequestError::PeerRestarted))));
        self.session.session_id = session_id;
        self.session.next = None;
        self.session.repeats = resent;
        self.adopt(new);
        output.notices.push(Notice::PeerRestarted { incarnation: new.incarnation, resent });
    }

    /// The peer's process lives but its memory of us is gone. Messages that had been begun may have arrived.
    fn peer_forgot(&mut self, now: Instant, output: &mut Output<T, R, C>) {
        self.lose_begun(output);
        if self.down_since.is_none() {
            self.down_since = Some(now);
        }
        self.forget_memory();
    }

    /// The streams begin anew for a peer that forgot. Its connections that are left carry the old ones.
    fn lose_begun(&mut self, output: &mut Output<T, R, C>) {
        self.conns.let_go(output);
        let before = output.ended.len();
        self.begin_session(output, |kind, started| {
            (started || matches!(kind, MessageKind::Reply { .. })).then_some(DropReason::PeerForgot)
        });
        let messages = output.messages_ended(before);
        if messages > 0 {
            output.notices.push(Notice::Lost { messages, by_peer: true });
        }
        self.end_orphans(DropReason::PeerForgot, output);
    }

    /// We give up our memory: nobody came back within the resumption time.
    pub(super) fn forget(&mut self, output: &mut Output<T, R, C>) {
        let before = output.ended.len();
        self.begin_session(output, |_, _| Some(DropReason::ResumptionExpired));
        let messages = output.messages_ended(before);
        if messages > 0 {
            output.notices.push(Notice::Lost { messages, by_peer: false });
        }
        self.end_orphans(DropReason::ResumptionExpired, output);
        self.forget_memory();
    }

    /// Requests that are neither queued nor with the peer any longer.
    fn end_orphans(&mut self, reason: DropReason, output: &mut Output<T, R, C>) {
        let gone = self.requests.close_where(|id, _| {
            let asks = |kind| matches!(kind, MessageKind::Request { id: asked, .. } if asked == id);
            !self.lanes.iter().any(|lane| lane.out.contains(asks))
        });
        output.replies.extend(gone.into_iter().map(|waiter| (waiter, Err(RequestError::Dropped(reason)))));
    }

    fn forget_memory(&mut self) {
        self.session.session_id = self.rng.u64(..);
        self.session.next = None;
        if let Some(peer) = &mut self.session.peer {
            peer.session_id = None;
        }
    }

    /// All streams begin again at 0. `drop_reason` is asked for each message (kind, whether its first byte
    /// was sent). Returns how many messages that had been begun will be sent again.
    fn begin_session(
        &mut self,
        output: &mut Output<T, R, C>,
        drop_reason: impl Fn(MessageKind, bool) -> Option<DropReason>,
    ) -> usize {
        self.session.epoch += 1;
        (self.session.repeats, self.session.told_repeats) = (0, false);
        self.requests.forget_peers();
        self.cancels.clear();
        self.peer_clock = None;
        output.space = true;
        let mut resent = 0;
        for lane in &mut self.lanes {
            resent += lane.out.restart(&mut output.ended, &drop_reason);
            lane.inb.restart();
            (lane.conn, lane.from, lane.acks_by, lane.settled) = (None, None, None, None);
        }
        resent
    }
}

/// How long an acknowledgement of this peer may be overdue: four times as long as it says that it delays one,
/// as this side's own settings have it.
fn patience_for(theirs: &Hello) -> Duration {
    let delay = theirs.ack_delay_ms.map_or(Duration::ZERO, |ms| Duration::from_millis(u64::from(ms)));
    4 * delay.min(MAX_ACK_DELAY)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Tests need some instant to start from; they never read the clock again.
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::config::Config;
    use crate::id::ConnId;
    use crate::lane::NORMAL;
    use crate::link::{OutboundMessage, Purpose, Writes, harness};
    use crate::outcome::Outcome;
    use crate::wire::batch::Batch;
    use crate::wire::frame::Frame;

    fn link() -> Link<bool, ()> {
        harness::link(&Config::default())
    }

    /// A connection on which the peer says that it has so much of every lane.
    fn attach(
        link: &mut Link<bool, ()>,
        id: u64,
        incarnation: u64,
        received: u64,
        now: Instant,
        output: &mut Output<bool, ()>,
    ) -> Result<(), AttachError> {
        let ours = link.hello(Incarnation(incarnation), 0, false);
        let state = LaneAck { received, taken: 0, limit: received + 100 };
        let lanes = ours.lanes.iter().map(|lane| HelloLane { state, ..lane.clone() }).collect();
        let theirs = Hello {
            session_id: incarnation,
            peer_session_id: Some(ours.session_id),
            token: id,
            lanes,
            ..ours.clone()
        };
        let incarnation = Incarnation(incarnation);
        link.attach(
            &NewConn { id: ConnId(id), handle: ConnId(id), dialled: true, incarnation, ours, theirs },
            now,
            output,
        )
    }

    #[test]
    fn the_first_message_that_is_dropped_for_a_lane_that_the_peer_does_not_have_is_told() {
        let (mut link, mut output, now) = (link(), Output::default(), Instant::now());
        let send = |link: &mut Link<_, _, _>, output: &mut Output<_, _, _>| {
            let message = OutboundMessage { lane: NORMAL, body: &Bytes::from_static(b"tx"), deadline: None };
            link.send(message, Purpose::Message, true, now, output).unwrap();
        };
        let attach = |link: &mut Link<_, _, _>, output: &mut Output<_, _, _>, id, has_it| {
            let ours = link.hello(Incarnation(1), 0, false);
            let lanes = ours.lanes.iter().filter(|lane| has_it || lane.lane != NORMAL).cloned().collect();
            let theirs = Hello { session_id: 1, lanes, ..ours.clone() };
            let incarnation = Incarnation(1);
            let new =
                NewConn { id: ConnId(id), handle: ConnId(id), dialled: true, incarnation, ours, theirs };
            link.attach(&new, now, output).unwrap();
        };
        let told = |output: &mut Output<_, _, _>| {
            let told = output.notices.iter().filter(|notice| **notice == Notice::LaneUnknown(NORMAL)).count();
            *output = Output::default();
            told
        };
        attach(&mut link, &mut output, 1, false);
        assert_eq!(told(&mut output), 0, "nobody uses the lane");
        for expected in [1, 0] {
            send(&mut link, &mut output);
            assert_eq!(output.ended.len(), 1);
            assert_eq!(told(&mut output), expected);
        }
        attach(&mut link, &mut output, 2, true);
        attach(&mut link, &mut output, 3, false);
        send(&mut link, &mut output);
        assert_eq!(told(&mut output), 1, "the peer had it meanwhile");
    }

    #[test]
    fn a_lower_limit_of_the_peer_is_told_once_for_each_value() {
        let (mut link, now) = (link(), Instant::now());
        let told = |link: &mut Link<bool, ()>, id, max_message: u32| {
            let mut output = Output::default();
            let ours = link.hello(Incarnation(1), 0, false);
            let lanes = ours.lanes.iter().map(|lane| match lane.lane {
                NORMAL => HelloLane { max_message, ..lane.clone() },
                _ => lane.clone(),
            });
            let theirs = Hello { session_id: 1, lanes: lanes.collect(), ..ours.clone() };
            let (id, dialled, incarnation) = (ConnId(id), true, Incarnation(1));
            let new = NewConn { id, handle: id, dialled, incarnation, ours, theirs };
            link.attach(&new, now, &mut output).unwrap();
            let told = |notice: &Notice| match notice {
                Notice::SmallerMessages { lane: NORMAL, max_message } => Some(*max_message),
                Notice::SmallerMessages { .. } => panic!("{notice:?}"),
                _ => None,
            };
            output.notices.iter().find_map(told)
        };
        let ours = Config::default().lanes.iter().find(|lane| lane.id == NORMAL).unwrap().max_message as u32;
        assert_eq!(told(&mut link, 1, ours), None);
        assert_eq!(told(&mut link, 2, 1000), Some(1000));
        assert_eq!(told(&mut link, 3, 1000), None);
        assert_eq!(told(&mut link, 4, ours + 1), None);
        assert_eq!(told(&mut link, 5, 1000), Some(1000));
    }

    #[test]
    fn a_peer_that_delays_acknowledgements_is_suspect_after_four_times_the_delay_that_it_named() {
        let suspect_at = |ack_delay_ms| {
            let (mut link, mut output, start) = (link(), Output::default(), Instant::now());
            let ours = link.hello(Incarnation(1), 0, false);
            let lanes = ours.lanes.iter().map(|lane| HelloLane {
                state: LaneAck { limit: 100, ..LaneAck::default() },
                ..lane.clone()
            });
            let theirs = Hello { session_id: 1, lanes: lanes.collect(), ack_delay_ms, ..ours.clone() };
            let incarnation = Incarnation(1);
            let new = NewConn { id: ConnId(1), handle: ConnId(1), dialled: true, incarnation, ours, theirs };
            link.attach(&new, start, &mut output).unwrap();
            let message =
                OutboundMessage { lane: NORMAL, body: &Bytes::from_static(b"vote"), deadline: None };
            link.send(message, Purpose::Message, true, start, &mut output).unwrap();
            link.poll_transmit(
                ConnId(1),
                Writes::ForOne,
                start,
                &mut Batch::default(),
                |tokens| tokens.first,
                &mut output,
            );
            while !output.notices.contains(&Notice::Suspect(ConnId(1))) {
                let next = link.next_timeout().expect("a timer runs");
                link.handle_timeout(next, &mut output);
                if output.notices.contains(&Notice::Suspect(ConnId(1))) {
                    return next - start;
                }
            }
            Duration::ZERO
        };
        let seconds = Duration::from_secs;
        assert_eq!(suspect_at(None), seconds(1));
        assert_eq!(suspect_at(Some(25)), seconds(1));
        assert_eq!(suspect_at(Some(1500)), seconds(6));
    }

    /// Also those that were accepted before it was known what the peer understands.
    #[test]
    fn a_peer_that_knows_no_expiry_gets_messages_without_one() {
        for (features, kind) in [(EXPIRES_ON_ARRIVAL, 3), (0, 0)] {
            let (mut link, mut output, start) = (link(), Output::default(), Instant::now());
            let (small, large) = (Bytes::from_static(b"vote"), Bytes::from(vec![7; 4000]));
            let send = |link: &mut Link<bool, ()>, output: &mut _, body| {
                let deadline = Some(start + Duration::from_secs(1));
                let message = OutboundMessage { lane: NORMAL, body, deadline };
                link.send(message, Purpose::Message, true, start, output).unwrap();
            };
            send(&mut link, &mut output, &small);
            send(&mut link, &mut output, &large);
            let ours = link.hello(Incarnation(1), 0, false);
            let state = LaneAck { limit: 100_000, ..LaneAck::default() };
            let lanes = ours.lanes.iter().map(|lane| HelloLane { state, ..lane.clone() }).collect();
            let theirs = Hello { session_id: 1, lanes, features, ..ours.clone() };
            let incarnation = Incarnation(1);
            let new = NewConn { id: ConnId(1), handle: ConnId(1), dialled: true, incarnation, ours, theirs };
            link.attach(&new, start, &mut output).unwrap();
            send(&mut link, &mut output, &small);
            link.check();
            let mut sent = Vec::new();
            while sent.len() < 4000 + 3 * 4 {
                let mut batch = Batch::default();
                link.poll_transmit(
                    ConnId(1),
                    Writes::ForOne,
                    start,
                    &mut batch,
                    |tokens| tokens.first,
                    &mut output,
                );
                let mut bytes = Vec::new();
                batch.copy(0..batch.len(), &mut bytes);
                harness::for_each_frame(&bytes, |frame| {
                    if let Frame::Chunk { data, .. } = frame {
                        sent.extend_from_slice(&data);
                    }
                });
            }
            let at = 1000_u64.to_le_bytes();
            let message = |body: &Bytes| {
                let word = (body.len() as u32 | kind << 28).to_le_bytes();
                [&word[..], at.get(..8 * features as usize).unwrap(), body].concat()
            };
            let stream = [message(&small), message(&large), message(&small)].concat();
            assert!(sent == stream, "with the features {features}");
        }
    }

    /// Found by fuzzing: the connections of the earlier life had gone, none had come, and no timer ran that
    /// would have given up what waited.
    #[test]
    fn a_new_life_whose_hello_lies_leaves_nothing_waiting_for_ever() {
        let (mut link, mut output, start) = (link(), Output::default(), Instant::now());
        attach(&mut link, 1, 1, 0, start, &mut output).unwrap();
        let message = OutboundMessage { lane: NORMAL, body: &Bytes::from_static(b"vote"), deadline: None };
        link.send(message, Purpose::Message, true, start, &mut output).unwrap();
        // Its first connection says nothing any more; another life of it claims what was never sent.
        let later = start + Duration::from_secs(5);
        let probed = attach(&mut link, 2, 2, 0, later, &mut output);
        assert!(matches!(probed, Err(AttachError::Probing(_))), "{probed:?}");
        let later = later + Duration::from_secs(5);
        let lied = attach(&mut link, 2, 2, 7, later, &mut output);
        assert!(matches!(lied, Err(AttachError::Violation(_))), "{lied:?}");
        assert!(link.conns().is_empty());
        let end = link.next_timeout().expect("a timer runs");
        assert_eq!(end, later + Config::default().resumption);
        link.handle_timeout(end, &mut output);
        let outcomes: Vec<_> = output.ended.iter().map(|ended| ended.outcome).collect();
        assert_eq!(outcomes, [Outcome::Dropped(DropReason::ResumptionExpired)]);
    }
}
