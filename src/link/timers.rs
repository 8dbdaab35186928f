//! The link's timers: liveness of connections, drains, expiry of messages and requests, resumption.

use std::time::{Duration, Instant};

use crate::health::liveness::Verdict;
use crate::outcome::{DropReason, Outcome, RequestError};

use super::effects::{CloseReason, Effects, Notice};
use super::{Awaited, Link, conns};

impl<T: Awaited, R> Link<T, R> {
    /// Does what is due. To be called at [`Link::next_timeout`]; earlier does no harm.
    pub(crate) fn handle_timeout(&mut self, now: Instant, fx: &mut Effects<T, R>) {
        self.check_conns(now, fx);
        let ended = fx.ended.len();
        for lane in &mut self.lanes {
            lane.out.expire(now, &mut fx.ended);
        }
        self.end_unsent_requests(ended, fx);
        for (id, pending) in self.requests.expire(now) {
            fx.replies.push((pending.waiter, Err(RequestError::Timeout)));
            self.withdraw_or_cancel(id, pending.lane, Outcome::Dropped(DropReason::Cancelled), fx);
        }
        if self.down_since.is_some_and(|since| now >= since + self.settings.resumption) {
            self.down_since = None;
            self.forget(fx);
        }
        fx.space |= fx.ended.len() > ended;
    }

    fn check_conns(&mut self, now: Instant, fx: &mut Effects<T, R>) {
        let mut changed = false;
        let (mut pinged, mut failed) = (Vec::new(), Vec::new());
        // It grows back slowly.
        let ping_interval = self.keepalive.interval(now);
        for conn in self.conns.iter_mut().filter(|conn| !conn.is_given_up()) {
            if conn.drain_deadline().is_some_and(|deadline| now >= deadline) {
                fx.notices.push(Notice::Close(conn.id, CloseReason::DrainTimeout));
                conn.give_up();
                changed = true;
                continue;
            }
            while let Some(verdict) = conn.liveness.poll(now) {
                match verdict {
                    Verdict::Ping(nonce) => {
                        conn.ping = Some(nonce);
                        conn.liveness.set_ping_interval(ping_interval, now);
                        pinged.push(conn.id);
                    }
                    Verdict::Suspect => {
                        conn.score.handle_overdue(now);
                        if conn.is_on_trial() {
                            failed.push(conn.id);
                        }
                        fx.notices.push(Notice::Suspect(conn.id));
                    }
                    Verdict::Recovered => fx.notices.push(Notice::Recovered(conn.id)),
                    Verdict::Dead => {
                        fx.notices.push(Notice::Close(conn.id, CloseReason::Dead));
                        conn.give_up();
                    }
                }
                changed |= !matches!(verdict, Verdict::Ping(_));
                if conn.is_given_up() {
                    break;
                }
            }
        }
        failed.into_iter().for_each(|conn| self.handle_failed_trial(conn));
        if changed {
            self.drop_failed_successors(now, fx);
            self.reassign(now, fx);
        }
        self.settle_contests(now, fx);
        self.ask_for_looks(now, fx);
        pinged.into_iter().for_each(|conn| self.wake(conn, fx));
    }

    /// This process stood still for `gap`: what seems overdue is not.
    pub(crate) fn handle_pause(&mut self, gap: Duration, now: Instant) {
        for conn in &mut self.conns {
            conn.liveness.handle_pause(gap, now);
            conn.score.handle_pause(gap);
        }
    }

    /// When something is due next. `None`: nothing is, until some input comes.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let conns = self.conns.iter().filter_map(conns::Conn::next_timeout);
        let lanes = self.lanes.iter().filter_map(|lane| lane.out.next_expiry());
        let resumption = self.down_since.map(|since| since + self.settings.resumption);
        conns.chain(lanes).chain(self.requests.next_deadline()).chain(resumption).min()
    }
}
