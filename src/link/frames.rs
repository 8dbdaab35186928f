//! The peer's side of a link: what its frames do.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::id::ConnId;
use crate::lane::LaneId;
use crate::wire::control::{LaneAck, StaleRange};
use crate::wire::frame::Frame;
use crate::wire::stream::MessageKind;

use super::expiry::PeerClock;
use super::flood_guard::FrameCosts;
use super::inbound::Urgency;
use super::lane::Lane;
use super::output::Output;
use super::{Link, Token, Violation};

impl<T: Token, R, C: Clone> Link<T, R, C> {
    /// Bytes arrived on this connection, whatever they mean.
    pub(crate) fn handle_received(&mut self, conn: ConnId, at: Instant, output: &mut Output<T, R, C>) {
        if let Some(conn) = self.conns.by_id(conn) {
            conn.liveness.handle_received(at);
            if conn.liveness.is_suspect() {
                self.handle_timeout(at, output);
            }
        }
        self.settle_contests(at, output);
    }

    /// One frame from the peer. An error ends the connection that it came by.
    pub(crate) fn handle_frame(
        &mut self,
        conn: ConnId,
        frame: Frame,
        now: Instant,
        output: &mut Output<T, R, C>,
    ) -> Result<(), Violation> {
        // A connection that is not, or no longer, part of the link has no say in it.
        match self.conns.by_id(conn) {
            None => return Ok(()),
            Some(conn) if conn.goaway_heard => return Err(Violation::AfterGoaway),
            Some(_) => {}
        }
        // Frames of a conversation that is over here are not the peer's fault.
        if self.closed.is_some() && !matches!(frame, Frame::Goaway(_) | Frame::Ping { .. }) {
            return Ok(());
        }
        match frame {
            Frame::Hello(_) | Frame::Refused(_) => Err(Violation::UnexpectedHello),
            Frame::Chunk { lane, flags, offset, data } => {
                let dialled = self.conns.by_id(conn).filter(|conn| conn.dialled);
                dialled.into_iter().for_each(|conn| conn.liveness.handle_data_received(now));
                self.handle_chunk(conn, lane, flags, offset, data, now, output)
            }
            Frame::Ack(ack) => {
                for (lane, to) in &ack.settled {
                    let lane = Lane::find(&mut self.lanes, *lane).ok_or(Violation::UnknownLane(*lane))?;
                    lane.inb.unsettled.settle(*to);
                }
                self.handle_stale(&ack.stale, now, output)?;
                self.handle_acks(conn, &ack.lanes, now, output)
            }
            Frame::Ping { nonce, padding } => {
                self.meter.handle_ping(now)?;
                // Comes now and then, whatever else does.
                self.lanes.iter_mut().for_each(|lane| lane.inb.free_memory());
                if let Some(state) = self.conns.by_id(conn) {
                    // One pending pong at most: a flood of pings costs nothing more.
                    state.pong = Some((nonce, padding));
                    state.liveness.handle_ping(now);
                }
                self.conns.wake(conn, output);
                Ok(())
            }
            Frame::Pong { nonce, clock } => {
                self.lanes.iter_mut().for_each(|lane| lane.inb.free_memory());
                if let Some(state) = self.conns.by_id(conn)
                    && let Some(round_trip) = state.handle_pong(nonce, now)?
                {
                    if let Some(millis) = clock {
                        self.peer_clock = Some(PeerClock::observe(self.peer_clock, millis, round_trip, now));
                    }
                    self.handle_proven(conn, now, output);
                }
                Ok(())
            }
            Frame::Goaway(goaway) => {
                if self.closed.is_none() {
                    self.handle_stale(&goaway.stale, now, output)?;
                    self.handle_acks(conn, &goaway.lanes, now, output)?;
                }
                self.handle_goaway(conn, goaway.reason, now, output);
                Ok(())
            }
            Frame::Cancel(cancel) => {
                self.requests.handle_cancel(cancel.request);
                self.meter.handle_cancel(now)
            }
            Frame::Extension => self.meter.handle_hint(now),
        }
    }

    #[allow(clippy::too_many_arguments)] // The fields of a chunk, and where and when it came.
    fn handle_chunk(
        &mut self,
        conn: ConnId,
        lane: LaneId,
        flags: u8,
        offset: u64,
        data: Bytes,
        now: Instant,
        output: &mut Output<T, R, C>,
    ) -> Result<(), Violation> {
        let state = Lane::find(&mut self.lanes, lane).ok_or(Violation::UnknownLane(lane))?;
        if state.is_urgent {
            self.urgent = Some((conn, now));
        } else if let Some(by) = self.conns.by_id(conn) {
            let urgent_at = self.urgent.filter(|(urgent, _)| *urgent == conn).map(|(_, at)| at);
            state.bound_under_way(data.len(), by, urgent_at, &self.settings, now, output);
        }
        let (requests, counters, meter) = (&mut self.requests, &mut self.counters, &mut self.meter);
        let (len, old) = (data.len(), state.inb.duplicate_bytes);
        let mut refused = None;
        let received = state.inb.handle_chunk(offset, flags, data, |kind, payload| {
            match kind {
                MessageKind::Message | MessageKind::Expiring { .. } => Some(payload),
                // When it has opened too many nothing more is opened for it: the connection ends.
                MessageKind::Request { .. } if refused.is_some() => Some(payload),
                MessageKind::Request { id, wait_ms } => {
                    let wait = Duration::from_millis(u64::from(wait_ms));
                    let opened = requests.handle_request(id, lane, wait, now);
                    let opened = opened.and_then(|full| meter.handle_request(full, now));
                    refused = refused.take().or(opened.err());
                    Some(payload)
                }
                MessageKind::Reply { id } => {
                    match requests.close(id) {
                        Some(pending) => {
                            counters.answers += 1;
                            output.replies.push((pending.waiter, Ok(payload.into_payload())));
                        }
                        None => {
                            refused = refused.take().or(meter.handle_late_reply(now).err());
                        }
                    }
                    None
                }
            }
        });
        let old_bytes = (state.inb.duplicate_bytes - old) as usize;
        let messages = received.messages;
        counters.messages_received += messages;
        let brought = FrameCosts { new_bytes: len - old_bytes, old_bytes, messages };
        let flood = meter.handle_chunk(brought, self.settings.max_chunk, now).err();
        if received.arrived > 0 {
            output.arrived |= 1 << state.index;
        }
        if state.from != Some(conn) {
            state.from = Some(conn);
            state.route_acks(&mut self.conns, now, output);
        }
        state.schedule_ack(received.urgency, &self.settings, &mut self.conns, now, output);
        received.violation.or(refused).or(flood).map_or(Ok(()), Err)
    }

    /// The peer has dropped messages that had expired. It repeats so until it is told that this side knows.
    pub(super) fn handle_stale(
        &mut self,
        ranges: &[StaleRange],
        now: Instant,
        output: &mut Output<T, R, C>,
    ) -> Result<(), Violation> {
        for StaleRange { lane, from, to } in ranges {
            let lane = Lane::find(&mut self.lanes, *lane).ok_or(Violation::UnknownLane(*lane))?;
            lane.out.handle_stale(*from, *to)?;
            lane.settled = lane.settled.max(Some(*to));
            lane.schedule_ack(Urgency::Soon, &self.settings, &mut self.conns, now, output);
        }
        Ok(())
    }

    fn handle_acks(
        &mut self,
        by: ConnId,
        acks: &[(LaneId, LaneAck)],
        now: Instant,
        output: &mut Output<T, R, C>,
    ) -> Result<(), Violation> {
        if acks.is_empty() {
            self.meter.handle_ack(0, now)?;
        }
        for (id, state) in acks {
            let lane = Lane::find(&mut self.lanes, *id).ok_or(Violation::UnknownLane(*id))?;
            let (before, ended) = (lane.out.acked(), output.ended.len());
            let progress = lane.out.handle_ack(*state, &mut output.ended)?;
            output.space |= output.ended.len() > ended;
            self.meter.handle_ack(output.ended.len() - ended, now)?;
            let (acked, ready, conn) = (lane.out.acked() - before, lane.out.is_ready(), lane.conn);
            let Some(conn) = conn else { continue };
            if progress {
                let outstanding =
                    self.lanes.iter().any(|lane| lane.conn == Some(conn) && lane.out.outstanding() > 0);
                if let Some(conn) = self.conns.by_id(conn) {
                    conn.liveness.handle_progress(now, outstanding);
                    conn.pace.handle_acked(acked, now);
                    conn.score.handle_answer(now);
                }
                // By another one it may speak of what that one carried before.
                let on_trial = self.conns.by_id(conn).is_some_and(|conn| conn.is_on_trial());
                if conn == by && !on_trial {
                    self.handle_proven(conn, now, output);
                }
            }
            if let Some(lane) = Lane::find(&mut self.lanes, *id) {
                if ready {
                    lane.wake_to_send(&mut self.conns, output); // New credit, or room under `max_untaken`.
                }
                lane.handle_acked(&mut self.conns, output);
            }
        }
        Ok(())
    }
}
