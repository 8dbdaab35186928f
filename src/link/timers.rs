//! The link's timers: liveness of connections, drains, expiry of messages and requests, resumption.

use std::time::{Duration, Instant};

use crate::health::liveness::LivenessEvent;
use crate::outcome::{DropReason, Outcome, RequestError};

use super::output::{CloseReason, Notice, Output};
use super::{Link, Token, conns};

impl<T: Token, R, C: Clone> Link<T, R, C> {
    /// Does what is due. To be called at [`Link::next_timeout`]; earlier does no harm.
    pub(crate) fn handle_timeout(&mut self, now: Instant, output: &mut Output<T, R, C>) {
        self.check_conns(now, output);
        for lane in self.lanes.iter().filter(|lane| lane.ack_due.is_some_and(|due| due <= now)) {
            lane.wake_for_ack(&mut self.conns, output);
        }
        let ended = output.ended.len();
        for lane in &mut self.lanes {
            lane.out.expire(now, &mut output.ended);
        }
        self.end_unsent_requests(ended, output);
        for (id, pending) in self.requests.expire(now) {
            output.replies.push((pending.waiter, Err(RequestError::Timeout)));
            self.withdraw_or_cancel(id, pending.lane, Outcome::Dropped(DropReason::Cancelled), output);
        }
        if self.down_since.is_some_and(|since| now >= since + self.settings.resumption) {
            self.down_since = None;
            self.forget(output);
        }
        output.space |= output.ended.len() > ended;
    }

    fn check_conns(&mut self, now: Instant, output: &mut Output<T, R, C>) {
        let mut changed = false;
        let (mut pinged, mut failed) = (Vec::new(), Vec::new());
        // It grows back slowly.
        let ping_interval = self.keepalive.interval(now);
        for conn in self.conns.iter_mut().filter(|conn| !conn.closing) {
            if conn.drain_deadline().is_some_and(|deadline| now >= deadline) {
                output.close.push((conn.handle.clone(), CloseReason::DrainTimeout));
                conn.give_up();
                changed = true;
                continue;
            }
            while let Some(verdict) = conn.liveness.poll(now) {
                match verdict {
                    LivenessEvent::Ping(nonce) => {
                        conn.ping = Some(nonce);
                        conn.liveness.set_ping_interval(ping_interval, now);
                        pinged.push(conn.id);
                    }
                    LivenessEvent::Suspect => {
                        conn.score.handle_overdue(now);
                        if conn.is_on_trial() {
                            failed.push(conn.id);
                        }
                        output.notices.push(Notice::Suspect(conn.id));
                    }
                    LivenessEvent::Recovered => output.notices.push(Notice::Recovered(conn.id)),
                    LivenessEvent::Dead => {
                        output.close.push((conn.handle.clone(), CloseReason::Dead));
                        conn.give_up();
                    }
                }
                changed |= !matches!(verdict, LivenessEvent::Ping(_));
                if conn.closing {
                    break;
                }
            }
        }
        failed.into_iter().for_each(|conn| self.handle_failed_trial(conn));
        if changed {
            self.drop_failed_successors(now, output);
            self.reassign(now, output);
        }
        self.settle_contests(now, output);
        self.request_samples(now, output);
        pinged.into_iter().for_each(|conn| self.conns.wake(conn, output));
    }

    /// The application wants to know whether the peer answers: each connection is to send a ping. To be
    /// followed by [`Link::handle_timeout`]. Returns how many connections those are.
    pub(crate) fn ping(&mut self, now: Instant) -> usize {
        let conns = self.conns.iter_mut().filter(|conn| !conn.closing);
        conns.map(|conn| conn.liveness.handle_ping_wanted(now)).count()
    }

    /// This process stood still for `gap`: what seems overdue is not.
    pub(crate) fn handle_pause(&mut self, gap: Duration, now: Instant) {
        for conn in self.conns.iter_mut() {
            conn.liveness.handle_pause(gap, now);
            conn.score.handle_pause(gap);
        }
    }

    /// When something is due next. `None`: nothing is, until some input comes.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let conns = self.conns.iter().filter_map(conns::Conn::next_timeout);
        let lanes = self.lanes.iter().filter_map(|lane| lane.out.next_expiry());
        let resumption = self.down_since.map(|since| since + self.settings.resumption);
        // While a connection sends, it sends them without being asked.
        let idle = |id| self.conns.iter().any(|conn| Some(conn.id) == id && conn.idle);
        let acks = self.lanes.iter().filter_map(|lane| lane.ack_due.filter(|_| idle(lane.acks_by)));
        conns.chain(lanes).chain(acks).chain(self.requests.next_deadline()).chain(resumption).min()
    }
}
