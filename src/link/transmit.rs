//! The next batch of a connection's writer: control frames before all data, then chunks by priority.

use std::time::Instant;

use crate::id::ConnId;
use crate::wire::batch::Batch;
use crate::wire::control::{Ack, Cancel, Goaway, encode_ping, encode_pong};
use crate::wire::header::{MAX_CHUNK, WireError};

use super::conns::Draining;
use super::gather::Writes;
use super::outbound::OVERSHOOT;
use super::output::Output;
use super::{Link, Token, Tokens};

/// The next step of the writer, after the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transmit {
    /// Write it, if it is not empty, and ask again at the latest then. With an empty batch: sleep until
    /// woken or until then. So many messages begin in it.
    Continue { at: Option<Instant>, chunk: usize, messages: usize },
    /// Write it, then shut the write side down: the last word is said.
    Finish,
}

impl<T: Token, R, C: Clone> Link<T, R, C> {
    /// Fills `batch` with what this connection shall send now: everything that is urgent about
    /// control, and one chunk's worth of data. `is_awaited` says whether anybody waits for the receipt behind
    /// one of the tokens.
    pub(crate) fn poll_transmit(
        &mut self,
        id: ConnId,
        writes: Writes,
        now: Instant,
        batch: &mut Batch,
        is_awaited: impl Fn(Tokens<T>) -> bool,
        output: &mut Output<T, R, C>,
    ) -> Transmit {
        let is_control = self.conns.control() == Some(id);
        let Some(conn) = self.conns.by_id(id) else { return Transmit::Finish };
        (conn.idle, conn.gathering) = (false, false);
        let draining = conn.draining();
        if matches!(draining, Some(Draining::ByUs { said: true, .. })) {
            return Transmit::Finish;
        }
        if let Some((nonce, padding)) = conn.pong.take() {
            let clock = Some(self.clock.now(now));
            push_control(batch, |out| {
                encode_pong(nonce, padding, clock, out);
                Ok(())
            });
        }
        if let Some(nonce) = conn.ping.take() {
            let padding = if conn.is_on_trial() { conn.segment } else { 0 };
            push_control(batch, |out| {
                encode_ping(nonce, padding, out);
                Ok(())
            });
        }
        let chunk = conn.pace.chunk();
        if draining.is_some() {
            // The last word: nobody else would tell the peer what was taken.
            for lane in self.lanes.iter_mut().filter(|lane| lane.acks_by == Some(id)) {
                lane.ack_due = lane.ack_due.map(|due| due.min(now));
            }
        }
        let ack_at = self.push_acks(id, now, batch);
        if is_control {
            for request in self.cancels.drain(..) {
                push_control(batch, |out| Cancel { request }.encode(out));
            }
        }
        // With a write that is made anyway nothing needs to wait.
        let gather_until = if batch.is_empty() { self.gather_until(id, now) } else { None };
        let mut messages = 0;
        if draining.is_none() && gather_until.is_none() {
            messages = self.push_data(id, writes, now, chunk, batch, is_awaited, output);
        }
        if ack_at.is_some() && !batch.is_empty() {
            // A write is made anyway: the acknowledgement rides along.
            self.push_acks(id, now + self.settings.ack_delay, batch);
        }
        match draining {
            Some(Draining::ByPeer(_)) => return Transmit::Finish,
            Some(Draining::ByUs { reason, said: false }) => {
                let agreed = self.lanes.iter_mut().filter(|lane| lane.out.is_agreed());
                let (mut lanes, mut stale) = (Vec::new(), Vec::new());
                for lane in agreed {
                    lane.push_stale(&mut stale, &mut self.meter);
                    lanes.push((lane.id, lane.inb.grant()));
                }
                push_control(batch, |out| Goaway { reason, lanes, stale }.encode(out));
                if let Some(conn) = self.conns.by_id(id) {
                    conn.goaway_said();
                }
                // Frames other than data go by another connection from now on.
                self.reassign(now, output);
                return Transmit::Finish;
            }
            _ => {}
        }
        if let Some(conn) = self.conns.by_id(id) {
            if gather_until.is_some() {
                (conn.idle, conn.gathering) = (true, true);
            } else if batch.is_empty() {
                conn.idle = true;
                conn.pace.handle_idle();
                let lanes = self.lanes.iter_mut().filter(|lane| lane.conn == Some(id));
                lanes.for_each(|lane| lane.out.handle_idle());
            } else {
                conn.liveness.handle_sent(now);
            }
        }
        if batch.is_empty() {
            // Nothing else that is sent needs to come before it is due.
            self.next_ack(id).into_iter().for_each(|due| output.handle_ack_scheduled(due));
        }
        Transmit::Continue { at: gather_until, chunk, messages }
    }

    /// Until when the messages for this connection wait for more: see [`super::gather`].
    fn gather_until(&self, id: ConnId, now: Instant) -> Option<Instant> {
        let until = self.conns.iter().find(|conn| conn.id == id)?.gather.until(now)?;
        let mut ready = self.lanes.iter().filter(|lane| lane.is_ready_on(id));
        ready.all(|lane| !lane.is_pressing()).then_some(until)
    }

    /// When the next acknowledgement is due that goes by this connection.
    fn next_ack(&self, id: ConnId) -> Option<Instant> {
        self.lanes.iter().filter(|lane| lane.acks_by == Some(id)).filter_map(|lane| lane.ack_due).min()
    }

    /// Appends the acknowledgements that are due by `by` on this connection. Returns the time of the next.
    fn push_acks(&mut self, id: ConnId, by: Instant, batch: &mut Batch) -> Option<Instant> {
        let mut ack = Ack::default();
        for lane in self.lanes.iter_mut().filter(|lane| lane.acks_by == Some(id)) {
            if lane.ack_due.take_if(|due| *due <= by).is_some()
                // A lane that the peer does not have means nothing to it.
                && lane.out.is_agreed()
            {
                ack.settled.extend(lane.settled.take().map(|to| (lane.id, to)));
                if lane.inb.has_news() {
                    if lane.inb.raises_limit() {
                        self.meter.handle_granted();
                    }
                    ack.lanes.push((lane.id, lane.inb.announce()));
                    lane.push_stale(&mut ack.stale, &mut self.meter);
                }
            }
        }
        if !(ack.lanes.is_empty() && ack.settled.is_empty()) {
            push_control(batch, |out| ack.encode(out));
        }
        self.next_ack(id)
    }

    #[allow(clippy::too_many_arguments)] // Those of `poll_transmit`, and how much.
    fn push_data(
        &mut self,
        id: ConnId,
        writes: Writes,
        now: Instant,
        chunk: usize,
        batch: &mut Batch,
        is_awaited: impl Fn(Tokens<T>) -> bool,
        output: &mut Output<T, R, C>,
    ) -> usize {
        let (mut left, mut messages) = (chunk, 0);
        let ended = output.ended.len();
        let Some(conn) = self.conns.by_id(id) else { return 0 };
        while left > 0 && batch.has_room() {
            let lanes = &self.lanes;
            let ready = |index: usize| lanes.get(index).is_some_and(|lane| lane.is_ready_on(id));
            let Some(index) = conn.scheduler.pick(ready) else { break };
            let Some(lane) = self.lanes.get_mut(index) else { break };
            let (sent, begun) = lane.out.poll_chunk(
                lane.id,
                now,
                left.min(MAX_CHUNK - MAX_CHUNK / OVERSHOOT),
                batch,
                &is_awaited,
                &mut output.ended,
            );
            conn.scheduler.charge(index, sent);
            left = left.saturating_sub(sent);
            messages += begun;
            if sent > 0 {
                self.meter.handle_chunk_sent();
                conn.liveness.handle_data_sent(now);
            }
        }
        conn.gather.handle_sent(messages, writes, now);
        output.space |= output.ended.len() > ended;
        self.end_unsent_requests(ended, output);
        messages
    }
}

/// Control bodies are small and made of plain numbers: that one does not fit its bound is a bug, and
/// then it is better not sent than to end the process.
fn push_control(batch: &mut Batch, encode: impl FnOnce(&mut Vec<u8>) -> Result<(), WireError>) {
    if let Err(error) = batch.push_with(encode) {
        log_line!(Error, "a control frame was not sent: {error}");
        debug_assert!(false, "{error}");
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Tests need some instant to start from; they never read the clock again.
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::config::Config;
    use crate::id::Incarnation;
    use crate::lane::{LaneConfig, LaneId, NORMAL, Priority, URGENT};
    use crate::link::harness;
    use crate::link::{Link, NewConn, OutboundMessage, Purpose};
    use crate::wire::control::{Ack, Hello, HelloLane, LaneAck};
    use crate::wire::frame::Frame;
    use crate::wire::reader::FrameReader;
    use crate::wire::stream::{Header, MessageKind};

    type Fx = Output<bool, ()>;

    /// Adds the bytes of each lane in what the connection sends next; its pings are answered. Returns how
    /// many bytes it sends.
    fn poll(
        link: &mut Link<bool, ()>,
        id: ConnId,
        now: Instant,
        output: &mut Fx,
        bytes: &mut [usize; 4],
    ) -> usize {
        let (mut batch, mut flat) = (Batch::default(), Vec::new());
        link.poll_transmit(id, Writes::ForOne, now, &mut batch, |tokens| tokens.first, output);
        batch.copy(0..batch.len(), &mut flat);
        let mut reader = FrameReader::new(flat.as_slice());
        loop {
            match reader.next_buffered().unwrap() {
                Some(Frame::Chunk { lane, data, .. }) => bytes[usize::from(lane.0)] += data.len(),
                Some(Frame::Ping { nonce, .. }) => {
                    link.handle_frame(id, Frame::pong(nonce), now, output).unwrap()
                }
                Some(_) => {}
                None if reader.fill().is_err() => return flat.len(),
                None => {}
            }
        }
    }

    fn new_link(lanes: Vec<LaneConfig>) -> Link<bool, ()> {
        harness::link(&Config { lanes, ..Config::default() })
    }

    /// Attaches a connection, and lets it send until it is idle. Its number is that of its slot.
    fn attach(link: &mut Link<bool, ()>, slot: u8, now: Instant, output: &mut Fx, bytes: &mut [usize; 4]) {
        let ours = link.hello(Incarnation(1), slot, false);
        let state = LaneAck { received: 0, taken: 0, limit: 1 << 40 };
        let lanes = ours.lanes.iter().map(|lane| HelloLane { state, ..lane.clone() }).collect();
        let theirs = Hello { peer_session_id: Some(ours.session_id), session_id: 2, lanes, ..ours.clone() };
        let id = ConnId(u64::from(slot));
        let new = NewConn { id, handle: id, dialled: true, incarnation: Incarnation(1), ours, theirs };
        link.attach(&new, now, output).unwrap();
        while poll(link, id, now, output, bytes) > 0 {}
    }

    #[test]
    fn an_acknowledgement_wakes_no_writer_before_it_is_due_and_rides_along_with_what_is_sent() {
        let mut link = new_link(LaneConfig::defaults());
        let (now, mut output, id) = (Instant::now(), Fx::default(), ConnId(0));
        let mut bytes = [0; 4];
        attach(&mut link, 0, now, &mut output, &mut bytes);
        let due = now + link.settings.ack_delay;
        let message = [Header::new(MessageKind::Message, 3).as_bytes(), b"abc"].concat();
        let chunk = |number: u64| Frame::Chunk {
            lane: NORMAL,
            flags: 0,
            offset: number * message.len() as u64,
            data: message.clone().into(),
        };

        output = Fx::default();
        link.handle_frame(id, chunk(0), now, &mut output).unwrap();
        assert_eq!((output.wake.len(), output.ack_at), (0, Some(due)));
        assert!(link.next_timeout().is_some_and(|at| at <= due));
        link.handle_timeout(due, &mut output);
        assert_eq!(output.wake, [id]);
        assert!(poll(&mut link, id, due, &mut output, &mut bytes) > 0, "the acknowledgement");
        assert_eq!(poll(&mut link, id, due, &mut output, &mut bytes), 0);

        link.handle_frame(id, chunk(1), due, &mut output).unwrap();
        let answer = OutboundMessage { lane: NORMAL, body: &Bytes::from_static(b"abc"), deadline: None };
        link.send(answer, Purpose::Message, false, due, &mut output).unwrap();
        assert!(poll(&mut link, id, due, &mut output, &mut bytes) > 0);
        assert_eq!(poll(&mut link, id, due, &mut output, &mut bytes), 0);
        output = Fx::default();
        link.handle_timeout(due + link.settings.ack_delay, &mut output);
        assert!(output.wake.is_empty(), "it went with the answer");
    }

    #[test]
    fn small_messages_gather_after_a_write_of_many_and_neither_they_nor_acknowledgements_wake_a_writer() {
        let cases = [(Writes::ForOne, 8), (Writes::InTurn, 2)];
        for ((writes, many), urgent) in cases.into_iter().flat_map(|case| [(case, false), (case, true)]) {
            let mut link = new_link(LaneConfig::defaults());
            let (now, mut output, id) = (Instant::now(), Fx::default(), ConnId(0));
            attach(&mut link, 0, now, &mut output, &mut [0; 4]);
            let write = |link: &mut Link<_, _>, now, output: &mut Fx| {
                let mut batch = Batch::default();
                match link.poll_transmit(id, writes, now, &mut batch, |tokens| tokens.first, output) {
                    Transmit::Continue { at, messages, .. } => (messages, at),
                    Transmit::Finish => unreachable!("the connection stays"),
                }
            };
            let send = |link: &mut Link<_, _>, lane, count, output: &mut Fx| {
                let message = OutboundMessage { lane, body: &Bytes::from_static(b"abc"), deadline: None };
                for _ in 0..count {
                    link.send(message, Purpose::Message, false, now, output).unwrap();
                }
                std::mem::take(&mut output.wake)
            };
            assert_eq!(send(&mut link, NORMAL, many - 1, &mut output), [id]);
            assert_eq!(write(&mut link, now, &mut output), (many - 1, None));
            assert_eq!(write(&mut link, now, &mut output), (0, None), "few do not gather");
            assert_eq!(send(&mut link, NORMAL, many, &mut output), [id]);
            assert_eq!(write(&mut link, now, &mut output), (many, None));
            assert_eq!(send(&mut link, NORMAL, 1, &mut output), [], "it is awake");
            let (written, until) = write(&mut link, now, &mut output);
            let until = until.filter(|until| *until > now).expect("more are to gather");
            assert_eq!((written, send(&mut link, NORMAL, 1, &mut output)), (0, vec![]));
            let taken = (2 * many as u64 - 1) * 7;
            let state = LaneAck { received: taken, taken, limit: 1 << 40 };
            let ack = Frame::Ack(Ack { lanes: vec![(NORMAL, state)], ..Ack::default() });
            link.handle_frame(id, ack, now, &mut output).unwrap();
            assert_eq!(std::mem::take(&mut output.wake), [], "an acknowledgement is no reason");
            if urgent {
                assert_eq!(send(&mut link, URGENT, 1, &mut output), [id], "it does not wait");
                assert_eq!(write(&mut link, now, &mut output), (3, None));
            } else {
                assert_eq!(write(&mut link, until, &mut output), (2, None), "the time is over");
            }
        }
    }

    #[test]
    fn lanes_on_other_connections_take_nothing_from_those_that_share_one() {
        let lane = |id, priority, slot| LaneConfig {
            id: LaneId(id),
            priority,
            slot: Some(slot),
            ..LaneConfig::defaults()[2].clone()
        };
        let lanes = vec![
            lane(0, Priority::Urgent, 0),
            lane(1, Priority::Weighted(4), 2),
            lane(2, Priority::Weighted(1), 1),
            lane(3, Priority::Weighted(2), 2),
        ];
        let mut link = new_link(lanes);
        let (now, mut output, mut bytes) = (Instant::now(), Fx::default(), [0; 4]);
        (0..3).for_each(|slot| attach(&mut link, slot, now, &mut output, &mut bytes));
        for lane in [1, 2, 3] {
            for _ in 0..8 {
                let message =
                    OutboundMessage { lane: LaneId(lane), body: &vec![7; 1 << 20].into(), deadline: None };
                assert!(link.send(message, Purpose::Message, false, now, &mut output).is_ok());
            }
        }
        bytes = [0; 4];
        while bytes[1] + bytes[3] < 6 << 20 {
            (1..3).for_each(|id| {
                poll(&mut link, ConnId(id), now, &mut output, &mut bytes);
            });
        }
        let share = bytes[1] as f64 / bytes[3] as f64;
        assert!((1.8..2.2).contains(&share), "weights 4 and 2: {bytes:?}");
    }
}
