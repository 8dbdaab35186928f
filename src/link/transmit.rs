//! What a connection's writer sends next: control frames before all data, then chunks by priority.

use std::time::Instant;

use crate::id::ConnId;
use crate::wire::batch::Batch;
use crate::wire::control::{Ack, Cancel, Goaway};
use crate::wire::frame::{Kind, MAX_CHUNK};

use super::conns::Draining;
use super::effects::Effects;
use super::{Awaited, Link};

/// What the writer is to do with the batch that it got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transmit {
    /// Write it, if it is not empty, and ask again at the latest then. With an empty batch: sleep until
    /// woken or until then.
    Continue { at: Option<Instant>, chunk: usize },
    /// Write it, then shut the write side down: the last word is said.
    Finish,
}

impl<T: Awaited, R> Link<T, R> {
    /// Fills `batch` with what this connection shall send now: everything that is urgent about
    /// control, and one chunk's worth of data.
    pub(crate) fn poll_transmit(
        &mut self,
        id: ConnId,
        now: Instant,
        batch: &mut Batch,
        fx: &mut Effects<T, R>,
    ) -> Transmit {
        let is_control = self.control_conn() == Some(id);
        let Some(conn) = self.conns.iter_mut().find(|conn| conn.id == id) else { return Transmit::Finish };
        conn.idle = false;
        let draining = conn.draining();
        if matches!(draining, Some(Draining::ByUs { said: true, .. })) {
            return Transmit::Finish;
        }
        if let Some(nonce) = conn.pong.take() {
            push_ping(batch, Kind::Pong, nonce);
        }
        if let Some(nonce) = conn.ping.take() {
            push_ping(batch, Kind::Ping, nonce);
        }
        let chunk = conn.pace.chunk();
        if draining.is_some() && is_control {
            // The last word: nobody else would tell the peer what was taken.
            self.ack_due = self.ack_due.map(|due| due.min(now));
        }
        let ack_at = if is_control { self.push_acks(now, batch) } else { None };
        if is_control {
            for request in self.cancels.drain(..) {
                push_control(batch, |out| Cancel { request }.encode(out));
            }
        }
        if draining.is_none() {
            self.push_data(id, now, chunk, batch, fx);
        }
        if is_control && ack_at.is_some() && !batch.is_empty() {
            // A write is made anyway: the acknowledgement rides along.
            self.ack_due = Some(now);
            self.push_acks(now, batch);
        }
        match draining {
            Some(Draining::ByPeer(_)) => return Transmit::Finish,
            Some(Draining::ByUs { reason, said: false }) => {
                push_control(batch, |out| Goaway { reason }.encode(out));
                if let Some(conn) = self.conn_mut(id) {
                    conn.goaway_said();
                }
                return Transmit::Finish;
            }
            _ => {}
        }
        if batch.is_empty()
            && let Some(conn) = self.conn_mut(id)
        {
            conn.idle = true;
            conn.pace.handle_idle();
        }
        Transmit::Continue { at: self.ack_due.filter(|_| is_control), chunk }
    }

    /// Appends the acknowledgements if they are due. Gives the time at which they will be.
    fn push_acks(&mut self, now: Instant, batch: &mut Batch) -> Option<Instant> {
        let due = self.ack_due?;
        if due > now {
            return Some(due);
        }
        self.ack_due = None;
        // A lane that the peer does not have means nothing to it.
        let news = self.lanes.iter_mut().filter(|lane| lane.out.is_agreed() && lane.inb.has_news());
        let lanes: Vec<_> = news.map(|lane| (lane.id, lane.inb.tell())).collect();
        if !lanes.is_empty() {
            push_control(batch, |out| Ack { lanes }.encode(out));
        }
        None
    }

    fn push_data(
        &mut self,
        id: ConnId,
        now: Instant,
        chunk: usize,
        batch: &mut Batch,
        fx: &mut Effects<T, R>,
    ) {
        let mut left = chunk;
        let ended = fx.ended.len();
        while left > 0 && batch.has_room() {
            let lanes = &self.lanes;
            let ready = |index: usize| {
                lanes.get(index).is_some_and(|lane| lane.conn == Some(id) && lane.out.is_ready())
            };
            let Some(index) = self.scheduler.pick(ready) else { break };
            let Some(lane) = self.lanes.get_mut(index) else { break };
            let sent = lane.out.poll_chunk(lane.id, now, left.min(MAX_CHUNK), batch, &mut fx.ended);
            self.scheduler.charge(index, sent);
            left = left.saturating_sub(sent);
            if sent > 0
                && let Some(conn) = self.conn_mut(id)
            {
                conn.liveness.handle_data_sent(now);
            }
        }
        fx.space |= fx.ended.len() > ended;
        self.end_unsent_requests(ended, fx);
    }
}

fn push_ping(batch: &mut Batch, kind: Kind, nonce: u64) {
    push_control(batch, |out| {
        crate::wire::control::encode_ping(kind, nonce, out);
        Ok(())
    });
}

/// Control bodies are small and made of plain numbers: that one does not fit its bound is a bug, and
/// then it is better not sent than to end the process.
fn push_control(
    batch: &mut Batch,
    encode: impl FnOnce(&mut Vec<u8>) -> Result<(), crate::codec::CodecError>,
) {
    if let Err(error) = batch.push_with(encode) {
        log::error!("a control frame was not sent: {error}");
        debug_assert!(false, "{error}");
    }
}
