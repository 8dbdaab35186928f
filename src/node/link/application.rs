//! Sending: messages and requests, and the senders that wait for room.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::{LinkHandle, LinkInner, Waiter, allowance};
use crate::clock;
use crate::conn::ConnHandle;
use crate::error::{SendError, SendErrorKind};
use crate::lane::LaneId;
use crate::link::{COPY_BELOW, Purpose, Refused, Ticket, cost_of};
use crate::node::budget::{Turn, Wait};
use crate::node::outgoing::Outgoing;
use crate::outcome::DropReason;
use crate::receipt::Receipt;

/// The use of a message for the application.
#[derive(Clone, Copy)]
pub(crate) enum Intent<'a> {
    Message,
    /// A reply by this time, for this waiter.
    Request {
        by: Instant,
        waiter: &'a Waiter,
    },
    /// It answers this request of the peer, which came with the ticket.
    Reply {
        request: u64,
        ticket: Ticket,
    },
}

impl LinkInner {
    /// Accepts a message that is copied and does not expire, over a link that has a connection, if it may
    /// take the room that there is and what it costs is reserved already. `None`, and nothing has
    /// changed, otherwise: [`LinkHandle::accept`] is for all.
    fn accept_plain(&mut self, message: &mut Outgoing) -> Option<Receipt> {
        let len = message.len();
        if message.expiry().is_some() || len >= COPY_BELOW || self.link.conns().is_empty() {
            return None;
        }
        let index = self.link.check_send(message.lane(), len, false).ok()?;
        let queued = self.link.queued_bytes();
        let may_go = self.lines.get(index).is_some_and(|line| line.may_go(None, clock::now));
        if !may_go || queued + cost_of(len) > self.reserved || !self.link.has_room(index, len, queued) {
            return None;
        }
        let (token, receipt) = self.receipts.open();
        let (outbound, purpose) = (message.as_message(None), Purpose::Message);
        self.link.enqueue(index, outbound, purpose, token, clock::now, &mut self.output);
        self.let_go(message);
        Some(receipt)
    }
}

impl LinkHandle {
    /// Accepts a message; returns its receipt and, for a request, its id. Errors that no wait could change
    /// are returned at once. Senders of one lane are served in the order in which they came; only the
    /// first of them waits for room.
    pub(crate) fn send(
        self: &Arc<Self>,
        message: Outgoing,
        intent: Intent<'_>,
        wait: Wait,
    ) -> Result<(Receipt, u64), SendError> {
        self.send_waiting(message, intent, wait, |turn| turn.wait(wait))
    }

    /// Like [`LinkHandle::send`], with a wait of the caller's own: true when the turn was woken, false to
    /// give up.
    pub(crate) fn send_waiting(
        self: &Arc<Self>,
        message: Outgoing,
        intent: Intent<'_>,
        wait: Wait,
        pause: impl FnMut(&Turn) -> bool,
    ) -> Result<(Receipt, u64), SendError> {
        let lane = message.lane();
        self.send_with(message, intent, wait, pause, |conn| self.see_to(conn, [lane]))
    }

    /// Like [`LinkHandle::send`] of a message that does not wait. `write` sees to a connection whose writer
    /// sleeps.
    pub(crate) fn send_one_of_many(
        self: &Arc<Self>,
        message: Outgoing,
        write: impl Fn(&Arc<ConnHandle>),
    ) -> Result<Receipt, SendError> {
        self.send_with(message, Intent::Message, Wait::No, |_| false, write).map(|(receipt, _)| receipt)
    }

    /// Writes messages of these lanes that were sent over a connection whose writer sleeps, or leaves that to
    /// another thread.
    fn see_to(self: &Arc<Self>, conn: &Arc<ConnHandle>, lanes: impl IntoIterator<Item = LaneId>) {
        let fan_out = &self.shared.fan_out;
        let is_done = if fan_out.is_busy() {
            // First, so that many senders do not each use up their allowance.
            fan_out.take(self, conn, lanes) || allowance::try_write_now(conn, self)
        } else {
            allowance::try_write_now(conn, self) || fan_out.take(self, conn, lanes)
        };
        if !is_done {
            conn.wake();
        }
    }

    fn send_with(
        self: &Arc<Self>,
        mut message: Outgoing,
        intent: Intent<'_>,
        wait: Wait,
        mut pause: impl FnMut(&Turn) -> bool,
        write: impl Fn(&Arc<ConnHandle>),
    ) -> Result<(Receipt, u64), SendError> {
        let (lane, len, deadline) = (message.lane(), message.len(), message.deadline());
        let mut place = None;
        let refused = loop {
            let mut core = self.core.lock();
            if matches!(intent, Intent::Message)
                && place.is_none()
                && let Some(receipt) = core.accept_plain(&mut message)
            {
                self.finish_sending(core, write);
                return Ok((receipt, 0));
            }
            let sent = self.accept(&mut core, &mut message, deadline, intent, wait, &mut place);
            self.finish_sending(core, &write);
            match sent {
                Ok((receipt, id, timeout)) => {
                    place.into_iter().for_each(|place| self.leave_line(lane, len, &place));
                    self.look_at(timeout);
                    return Ok((receipt, id));
                }
                Err(Refused::Full) if place.as_ref().is_some_and(|place| pause(place)) => {}
                Err(refused) => break refused,
            }
        };
        place.into_iter().for_each(|place| self.leave_line(lane, len, &place));
        if refused == Refused::Full {
            self.update(|core| core.link.note_refused(lane));
        }
        Err(message.refused(self.refused_kind(refused, lane, len, wait)))
    }

    /// Accepts a message, if it is this sender's turn and there is room. Returns its receipt, the id of a
    /// request, and the time at which the monitor is to look at the latest.
    fn accept(
        &self,
        core: &mut LinkInner,
        message: &mut Outgoing,
        deadline: Option<Instant>,
        intent: Intent<'_>,
        wait: Wait,
        place: &mut Option<Arc<Turn>>,
    ) -> Result<(Receipt, u64, Option<Instant>), Refused> {
        let len = message.len();
        let index = match intent {
            Intent::Reply { request, ticket } => core.link.check_reply(request, ticket, len)?,
            Intent::Request { .. } => core.link.check_send(message.lane(), len, true)?,
            Intent::Message => core.link.check_send(message.lane(), len, false)?,
        };
        if !self.reserve_in_turn(core, index, len, wait, place)
            && !self.displace(core, index, len, place.as_ref())
        {
            return Err(Refused::Full);
        }
        // A message with a deadline, a request, and what begins to wait for a peer that is away may need the
        // monitor earlier.
        let timed =
            deadline.is_some() || matches!(intent, Intent::Request { .. }) || core.link.conns().is_empty();
        let (token, receipt) = core.receipts.open();
        message.guard(&self.shared.background);
        let outbound = message.as_message(deadline);
        let id = match intent {
            Intent::Message => {
                core.link.enqueue(index, outbound, Purpose::Message, token, clock::now, &mut core.output)
            }
            Intent::Request { by, waiter } => {
                let now = clock::now();
                // The time that was spent waiting for room is part of the request's.
                let wait = by.saturating_duration_since(now);
                let purpose = Purpose::Request { wait, waiter: Arc::clone(waiter) };
                core.link.enqueue(index, outbound, purpose, token, || now, &mut core.output)
            }
            Intent::Reply { request, .. } => {
                core.link.enqueue_reply(index, request, outbound.body, token, &mut core.output);
                request
            }
        };
        core.let_go(message);
        Ok((receipt, id, timed.then(|| core.link.next_timeout()).flatten()))
    }

    /// Accepts messages from the front of `run` as long as none has to wait, under one lock. They may be
    /// without a deadline only.
    pub(crate) fn send_run(self: &Arc<Self>, run: &mut VecDeque<Outgoing>, receipts: &mut Vec<Receipt>) {
        let mut sent = 0;
        let mut core = self.core.lock();
        // The monitor needs to know of the first one that waits for a connection.
        let at_once = if core.link.conns().is_empty() { 0 } else { run.len() };
        for message in run.iter_mut().take(at_once).take_while(|message| message.expiry().is_none()) {
            let accepted = core.accept_plain(message).or_else(|| {
                let accepted = self.accept(&mut core, message, None, Intent::Message, Wait::No, &mut None);
                accepted.ok().map(|(receipt, ..)| receipt)
            });
            let Some(receipt) = accepted else { break };
            receipts.push(receipt);
            sent += 1;
        }
        self.finish_sending(core, |conn| self.see_to(conn, run.iter().take(sent).map(Outgoing::lane)));
        run.drain(..sent);
    }

    /// Reserves what a message costs of the node's budget, if it is this sender's turn and the queues have
    /// room. A sender that waits gets a place in the lane's line otherwise.
    pub(super) fn reserve_in_turn(
        &self,
        core: &mut LinkInner,
        index: usize,
        len: usize,
        wait: Wait,
        place: &mut Option<Arc<Turn>>,
    ) -> bool {
        let Some(line) = core.lines.get(index) else { return false };
        let may_go = line.may_go(place.as_ref(), clock::now);
        let has_room = may_go && core.link.check_room(index, len).is_ok();
        let cost = cost_of(len);
        if has_room && self.reserve_ahead(core, cost) {
            return true;
        }
        let mut reserved = has_room && self.shared.queued.reserve(self.account, cost, place.as_ref());
        if !reserved && place.is_none() && !matches!(wait, Wait::No) {
            let turn = place.insert(Turn::new());
            let is_first = core.lines.get_mut(index).is_some_and(|line| {
                line.join(turn, clock::now);
                line.is_first(turn)
            });
            // Once more: from here on it is woken when the budget has room. Only the first of a line waits
            // for that.
            reserved = is_first && has_room && self.shared.queued.reserve(self.account, cost, Some(turn));
        }
        if reserved {
            core.reserved += cost;
        }
        reserved
    }

    /// Whether what is reserved ahead is enough for a message, after reserving more if other messages are
    /// queued: one alone needs no more than it costs.
    fn reserve_ahead(&self, core: &mut LinkInner, cost: usize) -> bool {
        let (ahead, more) = (core.ahead(), self.shared.queued.ahead());
        if ahead >= cost {
            return true;
        }
        let reserves = cost <= more
            && core.link.queued_bytes() > 0
            && self.shared.queued.reserve(self.account, more, None);
        core.reserved += if reserves { more } else { 0 };
        reserves
    }

    /// Drops the oldest messages of a lane that does so when it is full, if it is this sender's turn and that
    /// makes room. The new message takes over what they had of the node's budget.
    fn displace(&self, core: &mut LinkInner, index: usize, len: usize, place: Option<&Arc<Turn>>) -> bool {
        if !core.lines.get(index).is_some_and(|line| line.may_go(place, clock::now)) {
            return false;
        }
        let Some(mut oldest) = core.link.displaceable(index, len, 0) else { return false };
        let missing = cost_of(len).saturating_sub(oldest.bytes);
        if missing > 0 && self.shared.queued.reserve(self.account, missing, None) {
            core.reserved += missing;
        } else if missing > 0 {
            match core.link.displaceable(index, len, cost_of(len)) {
                Some(more) => oldest = more,
                None => return false,
            }
        }
        core.link.displace(index, oldest, &mut core.output);
        true
    }

    /// A sender was served, or waits no longer: the next one is to look.
    fn leave_line(&self, lane: LaneId, len: usize, place: &Arc<Turn>) {
        let next = self.update(|core| {
            let line = core.link.lane_index(lane).and_then(|index| core.lines.get_mut(index))?;
            line.leave(place, clock::now)
        });
        self.shared.queued.withdraw(self.account, cost_of(len), place);
        next.into_iter().for_each(|turn| turn.wake());
    }

    pub(crate) fn cancel(self: &Arc<Self>, request: u64) {
        self.with(|core, _, output| core.link.cancel(request, output));
    }

    pub(super) fn refused_kind(
        &self,
        refused: Refused,
        lane: LaneId,
        len: usize,
        wait: Wait,
    ) -> SendErrorKind {
        match refused {
            Refused::Full if matches!(wait, Wait::No) => SendErrorKind::Full,
            Refused::Full => SendErrorKind::Timeout,
            Refused::TooLarge { max } => SendErrorKind::TooLarge { len, max },
            Refused::NoLane => SendErrorKind::UnknownLane(lane),
            Refused::TooManyRequests { max } => SendErrorKind::TooManyRequests { max },
            Refused::NoSuchRequest => SendErrorKind::NoSuchRequest,
            Refused::Closed(DropReason::Shutdown) => SendErrorKind::Closed,
            Refused::Closed(_) => SendErrorKind::UnknownPeer(self.peer),
        }
    }
}
