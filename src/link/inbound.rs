//! The receiving half of a lane: a stream with offsets that becomes messages in an inbox.
//!
//! ```text
//!            taken                       received                limit
//! stream  ----|-----------------------------|---------------------|
//!         done with   in the inbox, or with    credit that the
//!                     the application          peer may use
//! ```
//!
//! Invariants: `taken <= received <= limit`; all three only grow within a session; `limit - taken` is at
//! most the window; each message enters the inbox once. While `under_way` is set, no credit is added beyond
//! that many bytes behind `received`.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

use crate::id::Incarnation;
use crate::lane::{AckMode, LaneConfig};
use crate::wire::control::LaneAck;
use crate::wire::header::ACK_NOW;
use crate::wire::stream::{MessageKind, MessageRun, Parser};

use super::expiry::Unsettled;
use super::inbox::{Arrived, Inbox, Received};
use super::outbound::{BOOKKEEPING, IDLE_MESSAGES};
use super::{Ticket, Violation};

/// Messages that the application has not taken, in the order of the stream. More than one only on a lane
/// whose messages are taken in that order ([`AckMode::Received`]), and only of kind
/// [`Message`](MessageKind::Message).
#[derive(Debug)]
struct Untaken {
    end: u64,
    messages: u32,
    /// The length of their payloads.
    bytes: u32,
    done: bool,
}

#[derive(Debug)]
pub(crate) struct Inbound {
    window: u64,
    max_message: usize,
    max_untaken: usize,
    ack_mode: AckMode,

    /// How much may be under way beyond what was received ([`super::bdp`]); the window if that is less.
    under_way: u64,
    /// No new credit while messages wait: the node as a whole holds too much.
    withheld: bool,
    sender: Incarnation,
    /// Counts sessions: a ticket of an older session moves nothing.
    epoch: u32,
    parser: Parser,
    received: u64,
    /// Where the last whole message ends.
    whole: u64,
    /// Bytes behind `whole` that were thrown away, once the link has ended.
    discarded: u64,
    taken: u64,
    untaken: VecDeque<Untaken>,
    /// The number of the first message in `untaken`, counted from the start of the session.
    first_untaken: u64,
    /// The number of the next message that is received.
    next_number: u64,
    inbox: Inbox,
    pub(super) unsettled: Unsettled,
    /// Bytes of older sessions that the application still holds or has not fetched. They count
    /// against the window, so that a peer that restarts in a loop cannot fill the memory.
    former: u64,
    /// How many messages that are. They count with what each costs beyond its bytes, or empty ones would be
    /// free.
    former_messages: u64,

    /// The state that the peer is sure to know.
    told: LaneAck,
    /// The highest limit that was ever put into a frame of this session.
    announced: u64,
    /// Somebody at the peer waits for everything up to here to be taken.
    awaited: u64,
    pub(crate) duplicate_bytes: u64,
    /// Messages that were dropped because they had expired.
    pub(crate) expired: u64,
}

/// How soon the peer should hear of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    Nothing,
    Soon,
    Now,
}

impl Inbound {
    pub(crate) fn new(config: &LaneConfig) -> Self {
        Inbound {
            window: config.window as u64,
            max_message: config.max_message,
            max_untaken: config.max_untaken as usize,
            ack_mode: config.ack_mode,
            under_way: u64::MAX,
            withheld: false,
            sender: Incarnation(0),
            epoch: 0,
            parser: Parser::new(config.max_message),
            received: 0,
            whole: 0,
            discarded: 0,
            taken: 0,
            untaken: VecDeque::new(),
            first_untaken: 0,
            next_number: 0,
            inbox: Inbox::default(),
            unsettled: Unsettled::default(),
            former: 0,
            former_messages: 0,
            told: LaneAck::default(),
            announced: 0,
            awaited: 0,
            duplicate_bytes: 0,
            expired: 0,
        }
    }

    /// A new session begins at 0. Whole messages of the old one stay in the inbox; a partial one goes.
    pub(crate) fn restart(&mut self) {
        // Credit that the application still has to return: messages in the inbox or in its hands.
        for message in self.untaken.iter().filter(|message| !message.done) {
            self.former += u64::from(message.bytes);
            self.former_messages += u64::from(message.messages);
        }
        self.epoch += 1;
        self.under_way = u64::MAX;
        self.parser = Parser::new(self.max_message);
        (self.received, self.whole, self.discarded, self.taken) = (0, 0, 0, 0);
        (self.first_untaken, self.next_number, self.awaited) = (0, 0, 0);
        self.untaken.clear();
        self.unsettled = Unsettled::default();
        self.told = LaneAck::default();
        self.announced = 0;
    }

    /// The link has ended: nothing more of an unfinished message will come. Bytes that were received are
    /// still acknowledged.
    pub(crate) fn discard_unfinished(&mut self) {
        self.parser = Parser::new(self.max_message);
        self.discarded = self.received - self.whole;
    }

    pub(crate) fn is_unused(&self) -> bool {
        self.received == 0
    }

    /// Bytes of the stream from the peer. Messages go to `divert`, which takes replies for itself and returns
    /// everything else for the inbox; [plain](MessageKind::Message) ones that lie whole in the chunk go there
    /// at once. Messages in front of a violation count as received, and belong to the application.
    pub(crate) fn handle_chunk(
        &mut self,
        offset: u64,
        flags: u8,
        data: Bytes,
        mut divert: impl for<'a> FnMut(MessageKind, Received<'a>) -> Option<Received<'a>>,
    ) -> ChunkResult {
        let mut result = ChunkResult { messages: 0, arrived: 0, urgency: Urgency::Nothing, violation: None };
        let taken_before = self.taken;
        result.violation = self.read_chunk(offset, flags, data, &mut result, &mut divert).err();
        result.urgency = self.urgency(taken_before);
        result
    }

    fn read_chunk(
        &mut self,
        offset: u64,
        flags: u8,
        mut data: Bytes,
        result: &mut ChunkResult,
        divert: &mut impl for<'a> FnMut(MessageKind, Received<'a>) -> Option<Received<'a>>,
    ) -> Result<(), Violation> {
        if offset > self.received {
            return Err(Violation::Gap { expected: self.received, offset });
        }
        let end = offset
            .checked_add(data.len() as u64)
            .ok_or(Violation::Gap { expected: self.received, offset })?;
        if end > self.announced {
            return Err(Violation::CreditExceeded { limit: self.announced, end });
        }
        let known = (self.received - offset).min(data.len() as u64);
        self.duplicate_bytes += known;
        data.advance(known as usize);
        if known > data.len() as u64 {
            // Otherwise a few new bytes would keep the memory of the whole chunk.
            data = Bytes::copy_from_slice(&data);
        }
        if flags & ACK_NOW != 0 {
            self.awaited = self.awaited.max(end);
        }
        let mut at = 0;
        while let Some(rest) = data.get(at..).filter(|rest| !rest.is_empty()) {
            let run = self.parser.run(rest, self.most_in_a_run());
            if run.messages > 0 {
                self.push_run(&data, at, run);
                at += run.bytes;
                result.messages += run.messages as u64;
                result.arrived += run.messages;
                continue;
            }
            let whole = self.parser.whole(rest).map_err(Violation::Stream)?;
            let (kind, payload) = match whole {
                Some((kind, range)) => {
                    let range = at + range.start..at + range.end;
                    self.received += (range.end - at) as u64;
                    at = range.end;
                    (kind, Received::Whole(&data, range))
                }
                None => {
                    let mut rest = data.slice(at..);
                    let message = self.parser.next(&mut rest).map_err(Violation::Stream)?;
                    self.received += (data.len() - at - rest.len()) as u64;
                    at = data.len() - rest.len();
                    let Some((kind, payload)) = message else { continue };
                    (kind, Received::Pieces(payload))
                }
            };
            self.whole = self.received;
            if self.most_in_a_run() == 0 {
                return Err(Violation::TooManyUntaken { max: self.max_untaken });
            }
            result.messages += 1;
            let ticket = self.next_ticket(payload.len());
            let payload = divert(kind, payload);
            let (end, bytes, done) = (self.received, ticket.bytes, payload.is_none());
            self.untaken.push_back(Untaken { end, messages: 1, bytes, done });
            self.next_number += 1;
            match payload {
                Some(payload) => {
                    self.inbox.push(kind, payload, ticket, self.sender);
                    result.arrived += 1;
                }
                None => self.pop_done(),
            }
        }
        Ok(())
    }

    fn next_ticket(&self, bytes: usize) -> Ticket {
        Ticket { epoch: self.epoch, number: self.next_number, bytes: bytes as u32 }
    }

    fn untaken_messages(&self) -> usize {
        (self.next_number - self.first_untaken) as usize
    }

    /// How many messages the next entry may have: one if they may end in any order, and none if there are as
    /// many as were agreed.
    fn most_in_a_run(&self) -> usize {
        let most = self.max_untaken.saturating_sub(self.untaken_messages());
        if self.ack_mode == AckMode::Received { most } else { most.min(1) }
    }

    /// Messages of kind [`Message`](MessageKind::Message) that lie whole in a chunk.
    fn push_run(&mut self, chunk: &Bytes, at: usize, run: MessageRun) {
        let first = self.next_ticket(run.first);
        self.inbox.push_run(chunk, at, run.messages, first, self.sender);
        self.next_number += run.messages as u64;
        self.received += run.bytes as u64;
        self.whole = self.received;
        let (end, messages, bytes) = (self.received, run.messages as u32, run.payload_bytes() as u32);
        self.untaken.push_back(Untaken { end, messages, bytes, done: false });
    }

    /// The application takes the next messages, `max` at most; those before them whose time of the peer's
    /// clock has come, which `is_over` tells, are dropped. Returns how soon the peer should hear.
    pub(crate) fn take_run(
        &mut self,
        max: usize,
        is_over: impl Fn(u64) -> bool,
        mut give: impl FnMut(Arrived),
    ) -> Urgency {
        let (before, mut count) = (self.taken, 0);
        while count < max {
            if self.inbox.next_expires()
                && let Some(arrived) = self.inbox.pop()
            {
                let drops = self.drops(&arrived, &is_over);
                if drops || self.ack_mode == AckMode::Received {
                    self.settle(1, arrived.ticket);
                }
                if drops {
                    self.expired += 1;
                } else {
                    give(arrived);
                    count += 1;
                }
                continue;
            }
            let Some((messages, all)) = self.inbox.pop_run(max - count, &mut give) else { break };
            if self.ack_mode == AckMode::Received {
                self.settle(messages, all);
            }
            count += messages;
        }
        self.urgency(before)
    }

    /// Whether this message, which has left the inbox, is stale; keeps for the peer that it is.
    fn drops(&mut self, arrived: &Arrived, is_over: impl Fn(u64) -> bool) -> bool {
        let MessageKind::Expiring { at } = arrived.kind else { return false };
        // One of an older session has no place in this stream.
        let number = arrived.ticket.number.checked_sub(self.first_untaken);
        let number = number.filter(|_| arrived.ticket.epoch == self.epoch);
        let Some(end) = number.and_then(|index| self.untaken.get(index as usize)).map(|untaken| untaken.end)
        else {
            return false;
        };
        let start = end - (arrived.kind.header_len() + arrived.payload.len()) as u64;
        let stale = is_over(at) && self.unsettled.add(start, end);
        if !stale {
            self.unsettled.handle_fresh(end);
        }
        stale
    }

    /// The application is done with a message. Any order, once each; tickets of older sessions only
    /// give their memory back.
    pub(crate) fn done(&mut self, ticket: Ticket) -> Urgency {
        let before = self.taken;
        self.settle(1, ticket);
        self.urgency(before)
    }

    /// The application is done with messages of one entry. `first` is the ticket of the first one, with the
    /// bytes of all.
    fn settle(&mut self, messages: usize, first: Ticket) {
        if first.epoch != self.epoch {
            self.former = self.former.saturating_sub(u64::from(first.bytes));
            self.former_messages = self.former_messages.saturating_sub(messages as u64);
            return;
        }
        let Some(index) = first.number.checked_sub(self.first_untaken) else { return };
        if index > 0 {
            debug_assert_eq!(self.ack_mode, AckMode::Done, "others are taken in order");
            self.untaken.get_mut(index as usize).into_iter().for_each(|message| message.done = true);
            return;
        }
        let Some(front) = self.untaken.front_mut() else { return };
        front.messages -= messages as u32;
        front.bytes -= first.bytes;
        self.first_untaken += messages as u64;
        if front.messages > 0 {
            let headers = front.messages as usize * MessageKind::Message.header_len();
            self.taken = front.end - u64::from(front.bytes) - headers as u64;
        } else {
            self.taken = front.end;
            self.untaken.pop_front();
            self.pop_done();
        }
    }

    fn pop_done(&mut self) {
        while let Some(message) = self.untaken.front().filter(|message| message.done) {
            self.first_untaken += u64::from(message.messages);
            self.taken = message.end;
            self.untaken.pop_front();
        }
    }

    pub(crate) fn set_withheld(&mut self, withheld: bool) -> Urgency {
        self.withheld = withheld;
        self.urgency(self.taken)
    }

    /// `None`: as much as the window allows.
    pub(super) fn set_under_way(&mut self, bytes: Option<u64>) {
        self.under_way = bytes.unwrap_or(u64::MAX);
    }

    pub(crate) fn set_sender(&mut self, incarnation: Incarnation) {
        self.sender = incarnation;
    }

    pub(crate) fn ack_mode(&self) -> AckMode {
        self.ack_mode
    }

    /// How soon the peer should hear what changed since it was told last; `taken_before` is where
    /// `taken` stood before the change.
    fn urgency(&self, taken_before: u64) -> Urgency {
        let state = self.state();
        let credit = state.limit - self.told.limit;
        let unheard = state.received - self.told.received;
        if (self.taken > taken_before && self.awaited > taken_before)
            || credit >= self.window.min(self.under_way) / 4
            || unheard >= self.window / 8
        {
            Urgency::Now
        } else if state != self.told {
            Urgency::Soon
        } else {
            Urgency::Nothing
        }
    }

    pub(crate) fn state(&self) -> LaneAck {
        // An unfinished message alone always gets the whole window: withheld credit must not keep it
        // from ever being finished.
        let former = self.former + self.former_messages * BOOKKEEPING as u64;
        let full = self.taken + self.window.saturating_sub(former);
        let full = full.min(self.received.saturating_add(self.under_way));
        let limit = if self.withheld && !self.untaken.is_empty() { self.announced } else { full };
        LaneAck { received: self.received, taken: self.taken, limit: limit.max(self.announced) }
    }

    pub(crate) fn has_news(&self) -> bool {
        self.state() != self.told
    }

    /// Whether the next acknowledgement gives credit that was not given before.
    pub(crate) fn raises_limit(&self) -> bool {
        self.state().limit > self.announced
    }

    /// The state as it is told to the peer now.
    pub(crate) fn announce(&mut self) -> LaneAck {
        self.told = self.grant();
        self.told
    }

    /// The state as it stands in a HELLO, which may or may not reach the peer.
    pub(crate) fn grant(&mut self) -> LaneAck {
        let state = self.state();
        self.announced = state.limit;
        state
    }

    /// The last announcement may not have arrived.
    pub(crate) fn resync(&mut self) {
        self.told = LaneAck::default();
    }

    /// Frees the memory of lists that were long once, if nothing waits.
    pub(super) fn free_memory(&mut self) {
        if self.untaken.is_empty() {
            self.untaken.shrink_to(IDLE_MESSAGES);
            self.inbox.shrink_to(IDLE_MESSAGES);
        }
    }

    pub(crate) fn inbox_len(&self) -> usize {
        self.inbox.len()
    }

    /// Bytes in the inbox, with the application, or of an unfinished message.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.received - self.discarded - self.taken + self.former
    }

    /// Those of an unfinished message.
    pub(crate) fn unfinished_bytes(&self) -> u64 {
        self.received - self.discarded - self.whole
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn check(&self) {
        let state = self.state();
        assert!(state.taken <= self.whole && self.whole <= self.received);
        assert!(state.taken <= state.received && state.received <= state.limit);
        assert!(self.received <= self.announced);
        assert!(state.limit - state.taken <= self.window.max(self.announced - self.taken));
        assert!(self.untaken_messages() <= self.max_untaken);
        let messages: u64 = self.untaken.iter().map(|untaken| u64::from(untaken.messages)).sum();
        assert_eq!(messages, self.next_number - self.first_untaken);
        assert!(
            self.ack_mode == AckMode::Received || self.untaken.iter().all(|untaken| untaken.messages == 1)
        );
        self.inbox.check();
        self.unsettled.check(self.received);
        assert!(self.untaken.front().is_none_or(|message| !message.done));
    }
}

/// The result of a chunk.
pub(crate) struct ChunkResult {
    /// Messages that are whole now.
    pub(crate) messages: u64,
    /// Messages that went to the inbox.
    pub(crate) arrived: usize,
    pub(crate) urgency: Urgency,
    /// It ends the connection that the chunk came by.
    pub(crate) violation: Option<Violation>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes alone do not bound them: empty messages have none, and each life may begin `max_untaken` of
    /// them.
    #[test]
    fn a_peer_that_restarts_in_a_loop_cannot_fill_the_memory_with_empty_messages() {
        let (max_untaken, window) = (20, 1000);
        let config = LaneConfig { max_message: 100, window, max_untaken, ..LaneConfig::default() };
        let mut lane = Inbound::new(&config);
        for _ in 0..100 {
            lane.grant();
            let header = Bytes::from_static(&[0; 4]);
            let mut sent = (0..u64::from(max_untaken)).map(|n| {
                lane.handle_chunk(4 * n, 0, header.clone(), |_, payload| Some(payload)).violation.is_none()
            });
            if !sent.all(|sent| sent) {
                assert!(lane.state().limit < 80, "refused although it had the credit");
            }
            lane.restart();
        }
        assert!(lane.inbox_len() <= 20 + window / BOOKKEEPING, "{} messages are held", lane.inbox_len());
        // It all comes back.
        lane.take_run(usize::MAX, |_| false, drop);
        assert_eq!(lane.grant(), LaneAck { received: 0, taken: 0, limit: window as u64 });
    }
}
