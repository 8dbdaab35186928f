//! The application's side of a link: sending, replying, taking, letting go.

use std::time::Instant;

use bytes::Bytes;

use crate::lane::LaneId;
use crate::outcome::{DropReason, Outcome, RequestError};
use crate::wire::stream::MessageKind;

use super::inbox::Arrived;
use super::lane::Lane;
use super::outbound::{Ended, Oldest, cost_of};
use super::output::Output;
use super::{Link, OutboundMessage, Purpose, Refused, Ticket, Token, requests};

impl<T: Token, R, C: Clone> Link<T, R, C> {
    /// Whether a message of this size could be accepted for sending now. Returns the index of its lane.
    pub(crate) fn check_send(&self, lane: LaneId, len: usize, asks: bool) -> Result<usize, Refused> {
        let index = self.check_lane(lane, len)?.index;
        if asks && !self.requests.has_room() {
            return Err(Refused::TooManyRequests { max: self.settings.max_requests });
        }
        Ok(index)
    }

    /// The same for the answer to a request.
    pub(crate) fn check_reply(&self, request: u64, ticket: Ticket, len: usize) -> Result<usize, Refused> {
        if !self.is_request_open(request, ticket) {
            return Err(Refused::NoSuchRequest);
        }
        let lane = self.requests.lane_of(request).ok_or(Refused::NoSuchRequest)?;
        self.check_lane(lane, len).map(|lane| lane.index)
    }

    /// Accepts a message for sending, or says why not; then nothing has changed, and the token and the
    /// waiter are dropped without a word. Returns the id of a request.
    pub(crate) fn send(
        &mut self,
        message: OutboundMessage<'_>,
        purpose: Purpose<R>,
        token: T,
        now: Instant,
        output: &mut Output<T, R, C>,
    ) -> Result<u64, Refused> {
        let len = message.body.len();
        let index = self.check_send(message.lane, len, matches!(purpose, Purpose::Request { .. }))?;
        self.check_room(index, len)?;
        Ok(self.enqueue(index, message, purpose, token, || now, output))
    }

    /// Accepts a message that was checked ([`Link::check_send`], [`Link::check_room`]); `index` is that of
    /// its lane. `now` is asked only if something depends on it. Returns the id of a request.
    pub(crate) fn enqueue(
        &mut self,
        index: usize,
        message: OutboundMessage<'_>,
        purpose: Purpose<R>,
        token: T,
        now: impl Fn() -> Instant,
        output: &mut Output<T, R, C>,
    ) -> u64 {
        let OutboundMessage { lane, body, deadline } = message;
        let (kind, id) = match purpose {
            Purpose::Message => match deadline {
                Some(deadline) => (MessageKind::Expiring { at: self.clock.at(deadline, now()) }, 0),
                None => (MessageKind::Message, 0),
            },
            Purpose::Request { wait, waiter } => {
                let wait = wait.min(requests::MAX_WAIT);
                let id = self.requests.next_id();
                self.requests.ask(id, lane, now() + wait, waiter);
                self.meter.handle_asked();
                (MessageKind::Request { id, wait_ms: wait.as_millis() as u32 }, id)
            }
        };
        if self.conns.is_empty() {
            // Never connected, or forgotten while away: from here on there is something to give up.
            self.down_since.get_or_insert_with(now);
        }
        self.push(index, kind, body, deadline, token, output);
        id
    }

    /// Answers a request of the peer's, which came with `ticket`.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn reply(
        &mut self,
        request: u64,
        ticket: Ticket,
        body: &Bytes,
        token: T,
        output: &mut Output<T, R, C>,
    ) -> Result<(), Refused> {
        let index = self.check_reply(request, ticket, body.len())?;
        self.check_room(index, body.len())?;
        self.enqueue_reply(index, request, body, token, output);
        Ok(())
    }

    /// Accepts a reply that was checked ([`Link::check_reply`], [`Link::check_room`]).
    pub(crate) fn enqueue_reply(
        &mut self,
        index: usize,
        request: u64,
        body: &Bytes,
        token: T,
        output: &mut Output<T, R, C>,
    ) {
        self.requests.answer(request);
        self.push(index, MessageKind::Reply { id: request }, body, None, token, output);
    }

    fn push(
        &mut self,
        index: usize,
        kind: MessageKind,
        body: &Bytes,
        deadline: Option<Instant>,
        token: T,
        output: &mut Output<T, R, C>,
    ) {
        let Some(lane) = self.lanes.get_mut(index) else { return };
        let ended = output.ended.len();
        lane.enqueue(kind, body, deadline, token, &mut self.conns, output);
        self.counters.messages_sent += 1;
        if output.ended.len() > ended {
            self.end_unsent_requests(ended, output);
        }
    }

    fn check_lane(&self, lane: LaneId, len: usize) -> Result<&Lane<T>, Refused> {
        if let Some(reason) = self.closed {
            return Err(Refused::Closed(reason));
        }
        let lane = self.lanes.iter().find(|candidate| candidate.id == lane).ok_or(Refused::NoLane)?;
        if len > lane.max_message {
            return Err(Refused::TooLarge { max: lane.max_message });
        }
        Ok(lane)
    }

    /// A message of the application was not accepted for want of room.
    pub(crate) fn note_refused(&mut self, lane: LaneId) {
        if let Some(lane) = Lane::find(&mut self.lanes, lane) {
            lane.out.ends.refused += 1;
        }
    }

    /// Whether the queues of the lane and of the peer have room for a message.
    pub(crate) fn check_room(&self, index: usize, len: usize) -> Result<(), Refused> {
        if self.has_room(index, len, self.queued_bytes()) { Ok(()) } else { Err(Refused::Full) }
    }

    /// The same, with what is [queued](Link::queued_bytes).
    pub(crate) fn has_room(&self, index: usize, len: usize, queued: usize) -> bool {
        self.lanes.get(index).is_some_and(|lane| lane.out.has_room(len))
            && (queued == 0 || queued + cost_of(len) <= self.settings.max_queued)
    }

    /// Returns the oldest messages of a lane to displace so that one of `len` bytes has room and at least
    /// `bytes` bytes are freed; `None` if the lane displaces nothing, or cannot make that room.
    pub(crate) fn displaceable(&self, index: usize, len: usize, bytes: usize) -> Option<Oldest> {
        let lane = self.lanes.get(index)?;
        let link = (self.queued_bytes() + cost_of(len)).saturating_sub(self.settings.max_queued);
        lane.out.oldest(lane.out.excess(len).max(link).max(bytes))
    }

    /// Displaces messages of a lane ([`Link::displaceable`]) for one that is sent next.
    pub(crate) fn displace(&mut self, index: usize, oldest: Oldest, output: &mut Output<T, R, C>) {
        let Some(lane) = self.lanes.get_mut(index) else { return };
        let ended = output.ended.len();
        lane.out.displace(oldest, &mut output.ended);
        output.space = true;
        self.end_unsent_requests(ended, output);
    }

    /// A request whose message will never be sent has no reply to wait for. Looks at what ended since
    /// `output.ended` had `from` entries.
    pub(super) fn end_unsent_requests(&mut self, from: usize, output: &mut Output<T, R, C>) {
        for Ended { outcome, kind, .. } in output.ended.iter().skip(from) {
            let error = match outcome {
                Outcome::Taken => continue,
                Outcome::Expired => RequestError::Expired,
                Outcome::Dropped(reason) => RequestError::Dropped(*reason),
            };
            if let MessageKind::Request { id, .. } = kind
                && let Some(pending) = self.requests.close(*id)
            {
                output.replies.push((pending.waiter, Err(error)));
            }
        }
    }

    /// The application takes the next message of a lane that has not expired.
    pub(crate) fn take(
        &mut self,
        index: usize,
        now: Instant,
        output: &mut Output<T, R, C>,
    ) -> Option<Arrived> {
        let mut taken = None;
        self.take_run(index, 1, now, output, |arrived| taken = Some(arrived));
        taken
    }

    /// The application takes the next messages of a lane that have not expired, `max` at most, one after the
    /// other.
    pub(crate) fn take_run(
        &mut self,
        index: usize,
        max: usize,
        now: Instant,
        output: &mut Output<T, R, C>,
        give: impl FnMut(Arrived),
    ) {
        let Some(lane) = self.lanes.get_mut(index) else { return };
        let clock = self.peer_clock;
        let urgency = lane.inb.take_run(max, |at| clock.is_some_and(|clock| clock.now(now) >= at), give);
        lane.schedule_ack(urgency, &self.settings, &mut self.conns, now, output);
    }

    /// The application is done with a message that it took.
    pub(crate) fn done(&mut self, index: usize, ticket: Ticket, now: Instant, output: &mut Output<T, R, C>) {
        if let Some(lane) = self.lanes.get_mut(index) {
            let urgency = lane.inb.done(ticket);
            lane.schedule_ack(urgency, &self.settings, &mut self.conns, now, output);
        }
    }

    /// Nobody waits for the reply to this request any longer.
    pub(crate) fn cancel(&mut self, request: u64, output: &mut Output<T, R, C>) {
        let Some(pending) = self.requests.close(request) else { return };
        self.withdraw_or_cancel(request, pending.lane, Outcome::Dropped(DropReason::Cancelled), output);
    }

    pub(super) fn withdraw_or_cancel(
        &mut self,
        request: u64,
        lane: LaneId,
        outcome: Outcome,
        output: &mut Output<T, R, C>,
    ) {
        let is_request = |kind| matches!(kind, MessageKind::Request { id, .. } if id == request);
        let lane = Lane::find(&mut self.lanes, lane);
        if lane.is_some_and(|lane| lane.out.withdraw(outcome, &mut output.ended, is_request)) {
            output.space = true;
            return;
        }
        self.cancels.push(request);
        // More than the peer may have open at once cannot be of interest to it.
        if self.cancels.len() > self.settings.max_requests {
            self.cancels.remove(0);
        }
        self.conns.control().into_iter().for_each(|conn| self.conns.wake(conn, output));
    }

    /// Whether the requester of a request of the peer's still waits.
    pub(crate) fn is_request_open(&self, request: u64, ticket: Ticket) -> bool {
        ticket.epoch == self.session.epoch() && self.requests.is_open(request)
    }

    /// The application lets a request go without an answer.
    pub(crate) fn abandon(&mut self, request: u64, ticket: Ticket) {
        if ticket.epoch == self.session.epoch() {
            self.requests.answer(request);
        }
    }

    /// Withholds new credit on lanes whose messages wait for the application, or grants it again.
    pub(crate) fn set_withheld(&mut self, withheld: bool, now: Instant, output: &mut Output<T, R, C>) {
        for lane in &mut self.lanes {
            let urgency = lane.inb.set_withheld(withheld);
            lane.schedule_ack(urgency, &self.settings, &mut self.conns, now, output);
        }
    }

    /// Ends the link for good: every message and request ends with `reason`. Whole messages that arrived stay
    /// for the application.
    pub(crate) fn close(&mut self, reason: DropReason, output: &mut Output<T, R, C>) {
        self.closed = Some(reason);
        for lane in &mut self.lanes {
            lane.out.clear(reason, &mut output.ended);
            lane.inb.discard_unfinished();
        }
        let waiters = self.requests.close_where(|_, _| true);
        output.replies.extend(waiters.into_iter().map(|waiter| (waiter, Err(RequestError::Dropped(reason)))));
    }
}
