//! One link whose peer says whatever it likes.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::script::Script;
use super::side::{Ledger, Side, lanes, settings};
use crate::clock;
use crate::health::kernel::KernelSample;
use crate::health::liveness::{Ending, Limits};
use crate::id::{ConnId, Incarnation};
use crate::lane::LaneId;
use crate::link::Writes;
use crate::link::harness::{self, Fx};
use crate::link::{AttachError, ConnSample, NewConn, Ticket};
use crate::outcome::DropReason;
use crate::wire::control::{Ack, Cancel, Goaway, GoawayReason, Hello, HelloLane, LaneAck, StaleRange};
use crate::wire::frame::Frame;
use crate::wire::stream::{Header, MessageKind};

const LANES: usize = 3;
const REASONS: [GoawayReason; 5] = [
    GoawayReason::Shutdown,
    GoawayReason::Replaced,
    GoawayReason::Duplicate,
    GoawayReason::Removed,
    GoawayReason::Retired,
];

/// Nothing that a peer says, and nothing that the application does about it, is a panic; memory stays within
/// what was configured; and whatever was accepted ends once.
pub fn link(data: &[u8]) {
    let mut script = Script::new(data);
    let mut liar = Liar::new(&mut script);
    while !script.is_over() {
        liar.step(&mut script);
        liar.side.link.check();
    }
    liar.side.link.close(DropReason::Shutdown, &mut liar.output);
    liar.apply();
    liar.side.link.check();
    liar.ledger.check_end();
}

struct Liar {
    side: Side,
    output: Fx,
    ledger: Ledger,
    now: Instant,
    /// The connections of the link, and whether one broke a rule, so that nothing more is read from it.
    conns: Vec<(ConnId, bool)>,
    next_conn: u64,
    /// HELLOs of the link that were not answered yet: for whom, and who dialled.
    hellos: Vec<(Hello, Incarnation, bool)>,
    /// The link's memory as it was said last.
    session_id: u64,
    /// The announcements of the link for each lane, and how far it has sent.
    told: [LaneAck; LANES],
    sent: [u64; LANES],
    /// How far the peer has sent.
    at: [u64; LANES],
    tokens: Vec<u64>,
    nonces: Vec<u64>,
    /// Requests of the link: the id, and the number of the waiter.
    asked: Vec<(u64, usize)>,
    /// Messages that the application has, and requests among them.
    tickets: Vec<(usize, Ticket)>,
    requests: Vec<(u64, Ticket)>,
}

impl Liar {
    fn new(script: &mut Script<'_>) -> Self {
        let small = script.flag();
        Liar {
            side: Side::new(settings(0, lanes(small), script.flag()), 7),
            output: Fx::default(),
            ledger: Ledger::default(),
            now: clock::now(),
            conns: Vec::new(),
            next_conn: 1,
            hellos: Vec::new(),
            session_id: 0,
            told: Default::default(),
            sent: [0; LANES],
            at: [0; LANES],
            tokens: Vec::new(),
            nonces: Vec::new(),
            asked: Vec::new(),
            tickets: Vec::new(),
            requests: Vec::new(),
        }
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let (now, index) = (self.now, script.small());
        let (kind, lane) = (index / 4, index % LANES);
        match kind {
            0..=7 => {
                let asks = kind == 7;
                let accepted = self.side.send(script, lane, asks, now, &mut self.ledger, &mut self.output);
                self.asked.extend(accepted.filter(|_| asks));
            }
            8..=11 => self.take(lane),
            12 | 13 => self.done(script),
            14 => self.reply(script),
            15 => self.cancel(script),
            16 => self.prepare(script),
            17..=20 => {
                self.prepare(script);
                self.attach(script);
            }
            21 => self.attach(script),
            22..=31 => self.transmit(script),
            32 => self.end(script),
            33..=47 => self.chunk(script, lane),
            48..=51 => self.ack(script),
            52..=55 => self.other_frame(script),
            56 | 57 => self.pass(Duration::from_millis(u64::from(script.word()))),
            58 => self.pass(Duration::from_micros(u64::from(script.word()))),
            59 => self.alarm(),
            60 => self.look(script),
            61 => self.manage(script),
            _ => {
                let conn = script.pick(&self.conns).map(|(id, _)| id);
                conn.into_iter().for_each(|conn| self.side.link.handle_received(conn, now, &mut self.output));
            }
        }
        self.apply();
    }

    fn apply(&mut self) {
        let output = std::mem::take(&mut self.output);
        for (id, _) in &output.close {
            // The threads of a connection notice a little later that it is to end: see `end`.
            self.conns.iter_mut().filter(|(conn, _)| conn == id).for_each(|(_, broken)| *broken = true);
        }
        self.ledger.note(output);
    }

    // --- the application -----------------------------------------------------------------------

    fn take(&mut self, lane: usize) {
        let Some(arrived) = self.side.link.take(lane, self.now, &mut self.output) else { return };
        self.tickets.push((lane, arrived.ticket));
        if let MessageKind::Request { id, .. } = arrived.kind {
            self.requests.push((id, arrived.ticket));
        }
    }

    fn done(&mut self, script: &mut Script<'_>) {
        let Some(index) = script.below(self.tickets.len()) else { return };
        // Once for each.
        let (lane, ticket) = self.tickets.swap_remove(index);
        // On the other lanes the taking was all.
        if lane == 1 {
            self.side.link.done(lane, ticket, self.now, &mut self.output);
        }
    }

    fn reply(&mut self, script: &mut Script<'_>) {
        let Some((id, ticket)) = script.pick(&self.requests) else { return };
        self.side.link.is_request_open(id, ticket);
        if script.flag() {
            self.side.link.abandon(id, ticket);
            return;
        }
        let body = Bytes::from(vec![9; script.small()]);
        let token = self.ledger.token(script.flag());
        let number = token.number;
        let replied = self.side.link.reply(id, ticket, &body, token, &mut self.output);
        self.ledger.accepted(number, replied.is_ok());
    }

    fn cancel(&mut self, script: &mut Script<'_>) {
        let Some(index) = script.below(self.asked.len()) else { return };
        let (id, number) = self.asked.swap_remove(index);
        self.side.link.cancel(id, &mut self.output);
        self.ledger.cancelled(number);
    }

    fn manage(&mut self, script: &mut Script<'_>) {
        let (link, output, now) = (&mut self.side.link, &mut self.output, self.now);
        let conn = script.pick(&self.conns).map(|(id, _)| id);
        match script.byte() % 8 {
            0 | 1 => link.set_withheld(script.flag(), now, output),
            2 => {
                let reason = script.pick(&REASONS).unwrap_or(GoawayReason::Shutdown);
                conn.into_iter().for_each(|conn| link.drain(conn, reason, now, output));
            }
            3 => link.stop_probing(),
            4 => {
                let ping_interval = Duration::from_millis(1 + u64::from(script.word()));
                let limits =
                    Limits { ping_interval, suspect_after: ping_interval, dead_after: 2 * ping_interval };
                link.set_path(limits, ping_interval / 2, 16 * 1024);
            }
            5 => {
                let gap = Duration::from_millis(u64::from(script.word()));
                self.now += gap;
                link.handle_pause(gap, self.now);
            }
            6 => drop(link.learned(now).map(|learned| link.restore_learned(learned, now))),
            _ if script.byte() == 255 => link.close(DropReason::Shutdown, output),
            _ => {}
        }
    }

    // --- time, and the connections -------------------------------------------------------------

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.timeout();
    }

    /// On to when the link wants to be asked.
    fn alarm(&mut self) {
        if let Some(next) = self.side.link.next_timeout() {
            self.now = self.now.max(next);
            self.timeout();
        }
    }

    fn timeout(&mut self) {
        self.side.link.handle_timeout(self.now, &mut self.output);
        let next = self.side.link.next_timeout();
        assert!(next.is_none_or(|next| next > self.now), "a timer that does not move on would spin");
    }

    fn look(&mut self, script: &mut Script<'_>) {
        let Some((conn, _)) = script.pick(&self.conns) else { return };
        let kernel = KernelSample {
            unacked: u32::from(script.word()),
            retransmits: script.byte(),
            backoff: script.byte(),
            total_retrans: u32::from(script.word()),
            rtt_ms: f64::from(script.word()),
            last_ack_recv_ms: f64::from(script.word()),
            bytes_acked: script.flag().then(|| script.near(0)),
            data_segs_out: script.flag().then(|| u32::from(script.word())),
            snd_wnd: script.flag().then(|| u32::from(script.byte())),
            rwnd_limited_ms: script.flag().then(|| f64::from(script.word())),
            busy_ms: script.flag().then(|| f64::from(script.word())),
            ..KernelSample::default()
        };
        let blocked = Duration::from_millis(u64::from(script.word()));
        let look = ConnSample { kernel: script.flag().then_some(kernel), blocked };
        self.side.link.handle_sample(conn, &look, self.now, &mut self.output);
    }

    fn prepare(&mut self, script: &mut Script<'_>) {
        let what = script.byte();
        let incarnation = Incarnation(u64::from(what & 3));
        let hello = self.side.link.hello(incarnation, what >> 3 & 3, what & 32 != 0);
        assert_eq!(hello.lanes.len(), LANES);
        self.hellos.truncate(3);
        self.hellos.insert(0, (hello, incarnation, what & 4 != 0));
    }

    fn attach(&mut self, script: &mut Script<'_>) {
        let Some(index) = script.below(self.hellos.len()) else { return };
        let (ours, incarnation, dialled) = self.hellos.remove(index);
        if ours.session_id != std::mem::replace(&mut self.session_id, ours.session_id) {
            self.sent = [0; LANES];
        }
        for (index, lane) in ours.lanes.iter().enumerate() {
            self.told.iter_mut().skip(index).take(1).for_each(|told| *told = lane.state);
            self.at.iter_mut().skip(index).take(1).for_each(|at| *at = lane.state.received);
        }
        let theirs = self.hello(script, &ours);
        let id = ConnId(self.next_conn);
        self.next_conn += 1;
        self.tokens.extend([ours.token, theirs.token]);
        let new = NewConn { id, handle: id, dialled, incarnation, ours, theirs };
        match self.side.link.attach(&new, self.now, &mut self.output) {
            Ok(()) => self.conns.push((id, false)),
            Err(AttachError::Probing(until)) => {
                assert!(until > self.now, "asking again at once would spin");
                self.hellos.push((new.ours, incarnation, dialled));
            }
            Err(_) => {}
        }
    }

    fn transmit(&mut self, script: &mut Script<'_>) {
        let Some((conn, _)) = script.pick(&self.conns) else { return };
        let writes = if script.flag() { Writes::InTurn } else { Writes::ForOne };
        let (bytes, _) = harness::write(&mut self.side.link, conn, writes, self.now, &mut self.output);
        harness::for_each_frame(&bytes, |frame| match frame {
            Frame::Ping { nonce, .. } => self.nonces.push(nonce),
            Frame::Ack(Ack { lanes, .. }) | Frame::Goaway(Goaway { lanes, .. }) => {
                for (lane, state) in lanes {
                    let told = self.told.get_mut(index_of(lane));
                    told.into_iter().for_each(|told| *told = state);
                }
            }
            Frame::Chunk { lane, offset, data, .. } => {
                let sent = self.sent.get_mut(index_of(lane));
                sent.into_iter().for_each(|sent| *sent = (*sent).max(offset + data.len() as u64));
            }
            _ => {}
        });
    }

    fn end(&mut self, script: &mut Script<'_>) {
        let Some(index) = script.below(self.conns.len()) else { return };
        let (conn, _) = self.conns.swap_remove(index);
        let endings = [Ending::Deliberate, Ending::Failed, Ending::Closed];
        let ending = script.pick(&endings).unwrap_or(Ending::Deliberate);
        self.side.link.handle_conn_ended(conn, ending, self.now, &mut self.output);
    }

    // --- what the peer says --------------------------------------------------------------------

    fn say(&mut self, script: &mut Script<'_>, frame: Frame) -> bool {
        let conn = script.below(self.conns.len()).and_then(|index| self.conns.get_mut(index));
        let Some((conn, broken)) = conn.filter(|(_, broken)| !*broken) else { return false };
        self.side.link.handle_received(*conn, self.now, &mut self.output);
        let handled = self.side.link.handle_frame(*conn, frame, self.now, &mut self.output);
        *broken = handled.is_err();
        handled.is_ok()
    }

    fn hello(&mut self, script: &mut Script<'_>, ours: &Hello) -> Hello {
        let what = script.byte();
        let mut lanes = Vec::new();
        for (index, lane) in [0, 1, 7].into_iter().enumerate() {
            if what & 1 << index == 0 {
                let (max_message, max_untaken) = match script.byte() {
                    0..=15 => (u32::from(script.byte()), u32::from(script.byte())),
                    16 => (u32::MAX, u32::MAX),
                    _ => (1000, 20),
                };
                lanes.push(HelloLane {
                    lane: LaneId(lane),
                    max_message,
                    max_untaken,
                    state: self.state(script, index),
                });
            }
        }
        if what >= 240 {
            lanes.extend(lanes.first().cloned());
        }
        Hello {
            session_id: u64::from(what >> 3 & 3),
            peer_session_id: match script.byte() % 4 {
                0 => None,
                3 => Some(script.near(ours.session_id)),
                _ => Some(ours.session_id),
            },
            token: script.number(),
            slot: script.byte() % 4,
            replaces: if script.flag() { script.pick(&self.tokens) } else { None },
            lanes,
            ack_delay_ms: script.flag().then(|| script.number() as u32),
            repeats: script.flag().then(|| script.number() as u32),
            port: Some(u16::from(what)),
            features: u64::from(what & 1),
            ..Hello::default()
        }
    }

    /// The part that the peer claims to have of a lane that the link sends on.
    fn state(&mut self, script: &mut Script<'_>, lane: usize) -> LaneAck {
        let sent = self.sent.get(lane).copied().unwrap_or(0);
        match script.byte() {
            0..=63 => LaneAck { received: sent, taken: sent, limit: sent + 4000 },
            64..=95 => LaneAck { received: sent, taken: 0, limit: sent + 4000 },
            96..=127 => LaneAck { received: 0, taken: 0, limit: 4000 },
            128..=143 => LaneAck { received: sent, taken: script.near(sent), limit: sent + 100 },
            144..=159 => LaneAck { received: sent, taken: sent, limit: script.near(sent) },
            160..=175 => LaneAck::default(),
            _ => LaneAck { received: script.near(sent), taken: script.near(sent), limit: script.near(sent) },
        }
    }

    /// Parts of the streams that the link sends, in which the peer claims to have dropped messages.
    fn stale(&mut self, script: &mut Script<'_>) -> Vec<StaleRange> {
        if script.byte() < 192 {
            return Vec::new();
        }
        let range = |script: &mut Script<'_>| {
            let lane = usize::from(script.byte() % 2);
            let sent = self.sent.get(lane).copied().unwrap_or(0);
            let from = if script.flag() { 0 } else { script.near(sent) };
            StaleRange {
                lane: LaneId(lane as u8),
                from,
                to: if script.flag() { sent } else { script.near(sent) },
            }
        };
        (0..script.byte() % 4).map(|_| range(script)).collect()
    }

    /// A chunk that goes on where the last one ended, or nearly so, with messages in it, or nearly so.
    fn chunk(&mut self, script: &mut Script<'_>, lane: usize) {
        let at = self.at.get(lane).copied().unwrap_or(0);
        let what = script.byte();
        let offset = match what & 7 {
            0 => script.near(at),
            _ => at,
        };
        let mut data = Vec::new();
        for _ in 0..1 + (what >> 3) % 8 {
            let kind = match script.byte() {
                0..=31 => MessageKind::Request {
                    id: u64::from(script.byte() % 16),
                    wait_ms: u32::from(script.word()),
                },
                32..=63 => MessageKind::Reply { id: script.pick(&self.asked).map_or(0, |(id, _)| id) },
                64..=71 => {
                    let count = script.small();
                    data.extend_from_slice(script.bytes(count));
                    continue;
                }
                72..=79 => MessageKind::Request { id: script.number(), wait_ms: u32::MAX },
                80..=95 => MessageKind::Expiring { at: u64::from(script.word()) },
                _ => MessageKind::Message,
            };
            let announced = usize::from(script.byte()) << (script.byte() % 4);
            data.extend_from_slice(Header::new(kind, announced).as_bytes());
            let missing = if what >= 192 { script.small() } else { 0 };
            data.resize(data.len() + announced.saturating_sub(missing), 5);
        }
        if data.is_empty() {
            return;
        }
        let len = data.len() as u64;
        let id = LaneId([0, 1, 7].get(lane).copied().filter(|_| what != 63).unwrap_or(9));
        let chunk = Frame::Chunk { lane: id, flags: what >> 6 & 1, offset, data: data.into() };
        if self.say(script, chunk) && offset == at {
            self.at.iter_mut().skip(lane).take(1).for_each(|at| *at += len);
        }
    }

    fn ack(&mut self, script: &mut Script<'_>) {
        let what = script.byte();
        let mut lanes = Vec::new();
        for (index, lane) in [0, 1, 7, 9].into_iter().enumerate() {
            if what & 1 << index != 0 {
                lanes.push((LaneId(lane), self.state(script, index)));
            }
        }
        let stale = self.stale(script);
        let settled = script.flag().then(|| (LaneId(script.byte() % 2), script.number()));
        let frame = match what {
            0..=239 => Frame::Ack(Ack { lanes, stale, settled: settled.into_iter().collect() }),
            _ => Frame::Goaway(Goaway {
                reason: script.pick(&REASONS).unwrap_or(GoawayReason::Shutdown),
                lanes,
                stale,
            }),
        };
        self.say(script, frame);
    }

    fn other_frame(&mut self, script: &mut Script<'_>) {
        let frame = match script.byte() % 8 {
            0 => Frame::Ping { nonce: script.number(), padding: script.number() as usize },
            1..=3 => Frame::Pong { nonce: self.nonces.pop().unwrap_or(0), clock: Some(script.number()) },
            4 => Frame::Pong { nonce: script.number(), clock: None },
            5 => Frame::Cancel(Cancel { request: u64::from(script.byte() % 16) }),
            6 => Frame::Extension,
            _ => match self.hellos.first().map(|(hello, ..)| hello.clone()) {
                Some(hello) => Frame::Hello(hello),
                None => Frame::Goaway(Goaway {
                    reason: GoawayReason::Retired,
                    lanes: Vec::new(),
                    stale: Vec::new(),
                }),
            },
        };
        self.say(script, frame);
    }
}

fn index_of(lane: LaneId) -> usize {
    [0, 1, 7].iter().position(|id| *id == lane.0).unwrap_or(LANES)
}
