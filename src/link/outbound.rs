//! The sending half of a lane: a queue of messages that becomes a stream with offsets.
//!
//! ```text
//!            taken      received        cursor     sent       end
//! stream  ----|------------|--------------|----------|---------|
//!         forgotten  kept: a new incarnation  resent    never    messages beyond `end` wait
//!                    gets them again          after a   sent     without an offset
//!                                             rewind
//! ```
//!
//! Invariants, checked by [`Outbound::check`] in every simulated step:
//! - `taken <= received <= sent <= end` and `received <= cursor <= sent` (or `cursor <= end` while new bytes
//!   are sent);
//! - the first `started` runs of the queue have offsets, without a gap, and end at `end`; they have `untaken`
//!   messages, no more than the peer agreed to;
//! - the first message of the queue ends behind `taken`;
//! - no byte at or past `limit` was ever sent.
//!
//! The entries of the queue are runs of messages: [`run`]. A queue that drops its oldest messages when it is
//! full has more invariants, and runs of one message only: [`displace`].

mod displace;
mod run;

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;

use crate::lane::{LaneConfig, WhenFull};
use crate::outcome::{DropReason, Outcome};
use crate::wire::batch::Batch;
use crate::wire::control::{HelloLane, LaneAck};
use crate::wire::header::ACK_NOW;
use crate::wire::stream::{Header, MAX_HEADER, MessageKind};

use super::Violation;
use super::send_buffer::{Place, SendBuffer};
use displace::NO_LIMIT;
pub(crate) use displace::Oldest;
use run::{Rare, Run};
pub(crate) use run::{Token, Tokens};

/// A payload below this size is copied when it is accepted: less work than to count references to it.
pub(crate) const COPY_BELOW: usize = 2048;

/// Behind every cursor, so that the queue is sorted by `start`.
const NOT_STARTED: u64 = u64::MAX;
/// Not started, but a byte of it was sent in an earlier session. Such messages come before the others that
/// are not started, so this is behind every cursor and before [`NOT_STARTED`].
const BEGUN_BEFORE: u64 = NOT_STARTED - 1;

/// The lists of an idle lane keep memory for so many messages.
pub(super) const IDLE_MESSAGES: usize = 16;

/// A chunk may be larger by one part in so many, if it ends where a message ends then: the receiver copies a
/// message together that comes in two.
pub(super) const OVERSHOOT: usize = 64;

/// The cost of a message in a queue beyond its bytes. Counted, so that a queue of empty messages is
/// bounded too.
pub(super) const BOOKKEEPING: usize = 128;

/// Returns the most that a message with a payload of `len` bytes costs in a queue.
pub(crate) fn cost_of(len: usize) -> usize {
    len + MAX_HEADER + BOOKKEEPING
}

/// The limits of the peer on this lane, from its HELLO.
#[derive(Clone, Copy, Debug)]
struct Terms {
    max_message: usize,
    max_untaken: usize,
    /// It knows messages that expire.
    expires: bool,
}

#[derive(Debug)]
pub(crate) struct Outbound<T> {
    capacity: usize,
    /// What was begun may cost so much.
    begun_limit: usize,
    queue: VecDeque<Run<T>>,
    buffer: SendBuffer,
    /// Messages in the queue.
    messages: usize,
    queued_bytes: usize,
    /// Bytes of messages that have no offset.
    waiting_bytes: u64,
    /// How many runs of the queue have an offset.
    started: usize,
    /// How many messages these have.
    untaken: usize,
    /// The run that holds `cursor`; `started` when the cursor is at the end.
    at: usize,
    cursor: u64,
    sent: u64,
    end: u64,
    peer: LaneAck,
    /// Messages before this place of the stream that the peer has dropped are marked as stale.
    stale_to: u64,
    /// `None` until the peer's first HELLO, or when it does not have this lane.
    terms: Option<Terms>,
    /// The peer said HELLO without this lane.
    refused: bool,
    /// A message ended for that since the peer had the lane.
    refusal_told: bool,
    /// The earliest deadline among messages not started, or earlier.
    next_expiry: Option<Instant>,
    /// Bytes that were sent more than once.
    pub(crate) resent: u64,
    pub(crate) ends: Ends,
}

/// How many messages of a lane have ended, and how; and how many were not accepted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ends {
    pub(crate) taken: u64,
    pub(crate) expired: u64,
    pub(crate) dropped: u64,
    pub(crate) displaced: u64,
    pub(crate) refused: u64,
}

impl Ends {
    fn count(&mut self, outcome: Outcome, messages: usize) {
        *match outcome {
            Outcome::Taken => &mut self.taken,
            Outcome::Expired => &mut self.expired,
            Outcome::Dropped(DropReason::Displaced) => &mut self.displaced,
            Outcome::Dropped(_) => &mut self.dropped,
        } += messages as u64;
    }
}

/// Messages that have ended in the same way.
#[derive(Debug)]
pub(crate) struct Ended<T> {
    pub(crate) tokens: Tokens<T>,
    pub(crate) outcome: Outcome,
    pub(crate) kind: MessageKind,
}

impl<T: Token> Outbound<T> {
    pub(crate) fn new(config: &LaneConfig) -> Self {
        Outbound {
            capacity: config.queue,
            begun_limit: match config.when_full {
                WhenFull::Refuse => NO_LIMIT,
                WhenFull::DropOldest => config.queue / 2,
            },
            queue: VecDeque::new(),
            buffer: SendBuffer::default(),
            messages: 0,
            queued_bytes: 0,
            waiting_bytes: 0,
            started: 0,
            untaken: 0,
            at: 0,
            cursor: 0,
            sent: 0,
            end: 0,
            peer: LaneAck::default(),
            stale_to: 0,
            terms: None,
            refused: false,
            refusal_told: false,
            next_expiry: None,
            resent: 0,
            ends: Ends::default(),
        }
    }

    // --- from the application -------------------------------------------------------------------

    /// Whether a message of `len` bytes fits now. An empty queue takes any message, so that the
    /// largest one always gets through.
    pub(crate) fn has_room(&self, len: usize) -> bool {
        self.queue.is_empty() || self.queued_bytes + cost_of(len) <= self.capacity
    }

    pub(crate) fn push(&mut self, kind: MessageKind, body: &Bytes, deadline: Option<Instant>, token: T) {
        let kind = self.known_kind(kind);
        let copied = body.len() < COPY_BELOW;
        if copied && deadline.is_none() && kind == MessageKind::Message {
            return self.push_plain(body, token);
        }
        let (place, shared) = match copied {
            true => (self.buffer.push(Header::new(kind, body.len()).as_bytes(), body), None),
            false => (Place::outside(kind.header_len() + body.len()), Some(body.clone())),
        };
        self.note_pushed(place, body.len());
        let rare = Rare { kind, shared, deadline, stale: false };
        self.next_expiry = earliest(self.next_expiry, deadline);
        self.queue.push_back(Run::new(place, token, Some(Box::new(rare))));
    }

    /// Adds a message that is copied and does not expire.
    fn push_plain(&mut self, body: &[u8], token: T) {
        let place = self.buffer.push(&Header::of_message(body.len()), body);
        self.note_pushed(place, body.len());
        // What may be displaced is displaced one by one.
        let joins = self.begun_limit == NO_LIMIT && self.started < self.queue.len();
        if !(joins && self.queue.back_mut().is_some_and(|run| run.join(place, token))) {
            self.queue.push_back(Run::new(place, token, None));
        }
    }

    fn note_pushed(&mut self, place: Place, body_len: usize) {
        self.messages += 1;
        self.queued_bytes += cost_of(body_len);
        self.waiting_bytes += place.len() as u64;
    }

    /// The same kind, or without the expiry that the peer does not know.
    fn known_kind(&self, kind: MessageKind) -> MessageKind {
        match kind {
            MessageKind::Expiring { .. } if self.terms.is_some_and(|terms| !terms.expires) => {
                MessageKind::Message
            }
            kind => kind,
        }
    }

    /// Messages have left the queue.
    fn end(&mut self, run: Run<T>, outcome: Outcome, ended: &mut Vec<Ended<T>>) {
        self.messages -= run.messages();
        self.queued_bytes -= run.cost();
        if run.is_waiting() {
            self.waiting_bytes -= run.len() as u64;
        }
        if run.shared().is_none() {
            self.buffer.release(run.place);
        }
        self.ends.count(outcome, run.messages());
        ended.push(Ended { tokens: run.tokens(), outcome, kind: run.kind() });
    }

    /// The first `count` messages of a run become a run of their own, if it has more.
    fn split(&mut self, index: usize, count: usize) {
        let run = self.queue.get_mut(index).filter(|run| run.messages() > count);
        let Some(front) = run.map(|run| run.split_off_front(count, &self.buffer)) else { return };
        self.queue.insert(index, front);
        if index < self.started {
            self.started += 1;
            self.find_cursor();
        }
    }

    /// Messages were taken out of the middle of the queue: the rest moves together if that frees memory.
    fn compact(&mut self) {
        let copied = self.queue.iter_mut().filter(|message| message.shared().is_none());
        self.buffer.compact(copied.map(|message| &mut message.place));
    }

    /// Takes a message back. False if there is none, or if it was started.
    pub(crate) fn withdraw(
        &mut self,
        outcome: Outcome,
        ended: &mut Vec<Ended<T>>,
        matches: impl Fn(MessageKind) -> bool,
    ) -> bool {
        let mut waiting = self.started..self.queue.len();
        let index =
            waiting.find(|index| self.queue.get(*index).is_some_and(|message| matches(message.kind())));
        let Some(message) = index.and_then(|index| self.queue.remove(index)) else { return false };
        self.end(message, outcome, ended);
        self.compact();
        true
    }

    /// The peer has this lane too.
    pub(crate) fn is_agreed(&self) -> bool {
        self.terms.is_some()
    }

    pub(crate) fn contains(&self, matches: impl Fn(MessageKind) -> bool) -> bool {
        self.queue.iter().any(|message| matches(message.kind()))
    }

    // --- from the peer --------------------------------------------------------------------------

    /// The peer's HELLO: its limits, and what it has. `None`: the peer does not have this lane, and what
    /// waits is to be dropped ([`Outbound::refuse_if_unknown`]).
    pub(crate) fn handle_hello(
        &mut self,
        hello: Option<&HelloLane>,
        expires: bool,
        ended: &mut Vec<Ended<T>>,
    ) -> Result<(), Violation> {
        self.terms = hello.map(|lane| Terms {
            max_message: lane.max_message as usize,
            max_untaken: lane.max_untaken as usize,
            expires,
        });
        self.refused = false;
        self.leave_out_expiry();
        match hello {
            Some(lane) => {
                self.refusal_told = false;
                self.handle_ack(lane.state, ended).map(|_| ())
            }
            None => {
                self.refused = true;
                Ok(())
            }
        }
    }

    /// Messages that were accepted before it was known that the peer does not know their expiry.
    fn leave_out_expiry(&mut self) {
        if self.terms.is_none_or(|terms| terms.expires) {
            return;
        }
        for index in self.started..self.queue.len() {
            let Some(kind) = self.queue.get(index).map(Run::kind) else { return };
            let known = self.known_kind(kind);
            if let Some(message) = self.queue.get_mut(index).filter(|_| known != kind) {
                let (cost, len, place) = (message.cost(), message.len() as u64, message.place);
                if message.shared().is_some() {
                    message.place = Place::outside(message.payload_len() + known.header_len());
                } else {
                    let payload = self.buffer.get(place.part(kind.header_len()..place.len())).to_vec();
                    self.buffer.release(place);
                    message.place = self.buffer.push(Header::new(known, payload.len()).as_bytes(), &payload);
                }
                message.rare.iter_mut().for_each(|rare| rare.kind = known);
                self.waiting_bytes = self.waiting_bytes + message.len() as u64 - len;
                self.queued_bytes = self.queued_bytes + message.cost() - cost;
            }
        }
        self.compact();
    }

    /// The peer has dropped all messages with an expiry of this part of the stream.
    pub(crate) fn handle_stale(&mut self, from: u64, to: u64) -> Result<(), Violation> {
        if from > to || to > self.sent {
            return Err(Violation::AckOfUnsent { acked: from.max(to), sent: self.sent });
        }
        // Looked at once, whatever the peer repeats.
        let from = from.max(self.stale_to);
        self.stale_to = self.stale_to.max(to);
        let first = self.queue.partition_point(|message| message.start < from);
        for message in self.queue.range_mut(first..).take_while(|message| message.end() <= to) {
            if let Some(rare) = &mut message.rare {
                rare.stale = matches!(rare.kind, MessageKind::Expiring { .. });
            }
        }
        Ok(())
    }

    /// Drops what waits on a lane that the peer does not have. Returns whether something was dropped for the
    /// first time since it had the lane.
    pub(crate) fn refuse_if_unknown(&mut self, ended: &mut Vec<Ended<T>>) -> bool {
        if !self.refused {
            return false;
        }
        let before = ended.len();
        self.drop_where(ended, |_| Some(DropReason::LaneRefused));
        ended.len() > before && !std::mem::replace(&mut self.refusal_told, true)
    }

    /// The peer's acknowledgement. Returns whether it has received more than before.
    pub(crate) fn handle_ack(&mut self, ack: LaneAck, ended: &mut Vec<Ended<T>>) -> Result<bool, Violation> {
        let old = self.peer;
        let grows = ack.received >= old.received && ack.taken >= old.taken && ack.limit >= old.limit;
        let falls = ack.received <= old.received && ack.taken <= old.taken && ack.limit <= old.limit;
        if falls {
            return Ok(false); // An older state that came late, by another connection perhaps.
        }
        if !grows {
            return Err(Violation::AckContradicts);
        }
        if ack.received > self.sent || ack.taken > ack.received {
            return Err(Violation::AckOfUnsent { acked: ack.received.max(ack.taken), sent: self.sent });
        }
        self.peer = ack;
        if self.cursor < ack.received {
            self.cursor = ack.received;
            self.find_cursor();
        }
        while self.started > 0
            && let Some(taken) = self.queue.front().map(|run| run.ended_at(ack.taken, &self.buffer))
            && taken > 0
        {
            self.split(0, taken);
            let Some(run) = self.queue.pop_front() else { break };
            self.started -= 1;
            self.untaken -= run.messages();
            self.at = self.at.saturating_sub(1);
            let outcome = if run.is_stale() { Outcome::Expired } else { Outcome::Taken };
            self.end(run, outcome, ended);
        }
        Ok(ack.received > old.received)
    }

    /// The lane moves to another connection: go on from what the peer is known to have.
    pub(crate) fn rewind(&mut self) {
        self.cursor = self.peer.received;
        self.find_cursor();
    }

    /// The peer's memory is gone. Messages that it had not taken become unsent again, from the start of each
    /// message; `keep` says which messages. Returns how many of the kept had been started.
    pub(crate) fn restart(
        &mut self,
        ended: &mut Vec<Ended<T>>,
        drop_reason: impl Fn(MessageKind, bool) -> Option<DropReason>,
    ) -> usize {
        if let Some(index) = self.started.checked_sub(1)
            && let Some(begun) = self.queue.get(index).map(|run| run.begun_at(self.sent, &self.buffer))
            && begun > 0
        {
            self.split(index, begun);
        }
        let sent = self.sent;
        (self.started, self.untaken) = (0, 0);
        let mut again = 0;
        self.drop_where(ended, |run| {
            let reason = drop_reason(run.kind(), run.start < sent);
            again += if run.start < sent && reason.is_none() { run.messages() } else { 0 };
            reason
        });
        for run in &mut self.queue {
            run.rare.iter_mut().for_each(|rare| rare.stale = false);
            if !run.is_waiting() {
                // Its first byte went out in time; to call it expired now would deny that it was seen.
                run.rare.iter_mut().for_each(|rare| rare.deadline = None);
                run.start = BEGUN_BEFORE;
                self.waiting_bytes += run.len() as u64;
            }
        }
        (self.at, self.cursor, self.sent, self.end, self.stale_to) = (0, 0, 0, 0, 0);
        self.peer = LaneAck::default();
        self.next_expiry = self.queue.iter().filter_map(Run::deadline).min();
        again
    }

    /// How many messages were begun, and are not known to be taken, that would be sent again to another life
    /// of the peer.
    pub(crate) fn begun(&self) -> usize {
        let begun = self.queue.iter().take(self.started);
        let begun = begun.filter(|run| !matches!(run.kind(), MessageKind::Reply { .. }));
        begun.map(|run| run.begun_at(self.sent, &self.buffer)).sum()
    }

    /// Nothing was ever sent in this session: its stream at 0 is as good for any other one. A stream of
    /// which something was sent is not, although nothing was acknowledged: under the same pair of
    /// memories the receiver would take the bytes of the next stream for those that it has.
    pub(crate) fn is_unused(&self) -> bool {
        self.sent == 0
    }

    /// Drops messages that were not started, for the reason given.
    fn drop_where(
        &mut self,
        ended: &mut Vec<Ended<T>>,
        mut reason: impl FnMut(&Run<T>) -> Option<DropReason>,
    ) {
        let waiting = self.queue.split_off(self.started);
        for message in waiting {
            match reason(&message) {
                Some(reason) => {
                    self.end(message, Outcome::Dropped(reason), ended);
                }
                None => self.queue.push_back(message),
            }
        }
        self.compact();
    }

    /// Drops everything: the link ends.
    pub(crate) fn clear(&mut self, reason: DropReason, ended: &mut Vec<Ended<T>>) -> usize {
        let count = self.messages;
        self.restart(ended, |_, _| Some(reason));
        count
    }

    // --- time -----------------------------------------------------------------------------------

    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.next_expiry
    }

    pub(crate) fn expire(&mut self, now: Instant, ended: &mut Vec<Ended<T>>) {
        if self.next_expiry.is_none_or(|at| at > now) {
            return;
        }
        self.next_expiry = None;
        for message in self.queue.split_off(self.started) {
            if message.deadline().is_some_and(|deadline| deadline <= now) {
                self.end(message, Outcome::Expired, ended);
            } else {
                self.next_expiry = earliest(self.next_expiry, message.deadline());
                self.queue.push_back(message);
            }
        }
        self.compact();
    }

    // --- to the wire ----------------------------------------------------------------------------

    /// Whether a chunk could be sent now.
    pub(crate) fn is_ready(&self) -> bool {
        if self.cursor >= self.peer.limit {
            return false;
        }
        self.cursor < self.end || self.can_start()
    }

    fn can_start(&self) -> bool {
        self.started < self.queue.len()
            && self.terms.is_some_and(|terms| self.untaken < terms.max_untaken)
            && self.end < self.peer.limit
            && self.is_below_begun_limit()
    }

    /// The peer has received everything up to here.
    pub(crate) fn acked(&self) -> u64 {
        self.peer.received
    }

    /// Bytes that were not sent since the last rewind.
    pub(super) fn unsent(&self) -> u64 {
        self.end - self.cursor + self.waiting_bytes
    }

    /// Bytes sent that the peer has not acknowledged as received.
    pub(crate) fn outstanding(&self) -> u64 {
        self.cursor - self.peer.received
    }

    /// Assigns the next waiting run its place in the stream. Messages whose deadline has passed, or that the
    /// peer would not accept, end here.
    fn start_next(&mut self, now: Instant, ended: &mut Vec<Ended<T>>) {
        while self.can_start()
            && let Some(terms) = self.terms
        {
            let Some(run) = self.queue.get(self.started) else { return };
            let fitting = run.fitting(terms.max_message, &self.buffer);
            self.split(self.started, fitting.clamp(1, terms.max_untaken - self.untaken));
            let Some(run) = self.queue.get_mut(self.started) else { return };
            let outcome = if fitting == 0 {
                Outcome::Dropped(DropReason::TooLargeForPeer)
            } else if run.deadline().is_some_and(|deadline| deadline <= now) {
                Outcome::Expired
            } else {
                run.start = self.end;
                self.end = run.end();
                self.waiting_bytes -= run.len() as u64;
                self.started += 1;
                self.untaken += run.messages();
                return;
            };
            if let Some(run) = self.queue.remove(self.started) {
                self.end(run, outcome, ended);
            }
        }
    }

    /// Appends one chunk of about `max` stream bytes to `batch`. Returns the number of stream bytes, and of
    /// messages of which it has some. `is_awaited`: see [`Link::poll_transmit`](super::Link::poll_transmit).
    pub(crate) fn poll_chunk(
        &mut self,
        lane: crate::lane::LaneId,
        now: Instant,
        max: usize,
        batch: &mut Batch,
        is_awaited: impl Fn(Tokens<T>) -> bool,
        ended: &mut Vec<Ended<T>>,
    ) -> (usize, usize) {
        if !self.is_ready() {
            return (0, 0);
        }
        if self.cursor == self.end {
            self.start_next(now, ended);
            if self.cursor == self.end {
                return (0, 0);
            }
        }
        let chunk = batch.open_chunk();
        let offset = self.cursor;
        let stop = self.peer.limit.min(offset + max as u64);
        let (mut flags, mut messages) = (0, 0);
        // Neighbours in the buffer, to be copied as one piece.
        let mut piece: Option<Place> = None;
        while self.cursor < stop && batch.has_room() {
            if self.cursor == self.end {
                self.start_next(now, ended);
            }
            let Some(run) = self.queue.get(self.at).filter(|_| self.at < self.started) else { break };
            let (to, tokens) = run.piece(self.cursor, stop, max / OVERSHOOT, self.peer.limit, &self.buffer);
            let range = (self.cursor - run.start) as usize..(to - run.start) as usize;
            match run.shared() {
                None => {
                    let place = run.place.part(range);
                    piece = match piece.map(|piece| (piece, piece.join(place))) {
                        Some((_, Some(joined))) => Some(joined),
                        Some((piece, None)) => {
                            batch.push_slice(self.buffer.get(piece));
                            Some(place)
                        }
                        None => Some(place),
                    };
                }
                Some(body) => {
                    piece.take().into_iter().for_each(|piece| batch.push_slice(self.buffer.get(piece)));
                    let header = Header::new(run.kind(), body.len());
                    let header = header.as_bytes();
                    if let Some(part) = header.get(range.start..range.end.min(header.len())) {
                        batch.push_slice(part);
                    }
                    let [from, to] = [range.start, range.end].map(|at| at.saturating_sub(header.len()));
                    batch.push_bytes(body, from..to);
                }
            }
            // The reply to a request brings the acknowledgement, and that of a reply is seldom waited for.
            let alone = || matches!(run.kind(), MessageKind::Message | MessageKind::Expiring { .. });
            if flags == 0 && alone() && is_awaited(tokens) {
                flags = ACK_NOW;
            }
            self.cursor = to;
            self.at += usize::from(to == run.end());
            messages += tokens.count;
        }
        piece.into_iter().for_each(|piece| batch.push_slice(self.buffer.get(piece)));
        let len = batch.chunk_len(&chunk);
        batch.close_chunk(chunk, lane, flags, offset);
        self.resent += self.sent.min(self.cursor).saturating_sub(offset);
        self.sent = self.sent.max(self.cursor);
        (len, messages)
    }

    fn find_cursor(&mut self) {
        self.at = self.queue.partition_point(|message| message.end() <= self.cursor);
    }

    /// The writer has nothing to send.
    pub(crate) fn handle_idle(&mut self) {
        if self.queue.is_empty() {
            self.buffer.shrink();
            self.queue.shrink_to(IDLE_MESSAGES);
        }
    }

    // --- stats --------------------------------------------------------------------------------

    /// Bytes that may be sent before the peer returns more credit.
    pub(crate) fn credit(&self) -> u64 {
        self.peer.limit.saturating_sub(self.cursor)
    }

    pub(crate) fn queued(&self) -> (usize, usize) {
        (self.messages, self.queued_bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn check(&self) {
        assert!(self.peer.taken <= self.peer.received);
        assert!(self.peer.received <= self.cursor && self.cursor <= self.sent && self.sent <= self.end);
        assert!(self.sent <= self.peer.limit || self.sent == 0);
        assert!(self.stale_to <= self.sent);
        let mut at = None;
        for message in self.queue.iter().take(self.started) {
            assert!(at.is_none_or(|at| at == message.start), "started messages have no gap");
            at = Some(message.end());
        }
        assert!(at.is_none_or(|at| at == self.end));
        let waiting = self.queue.iter().skip(self.started).map(Run::len).sum::<usize>();
        assert_eq!(self.waiting_bytes, waiting as u64);
        assert_eq!(self.queued_bytes, self.queue.iter().map(Run::cost).sum::<usize>());
        assert_eq!(self.messages, self.queue.iter().map(Run::messages).sum::<usize>());
        let untaken: usize = self.queue.iter().take(self.started).map(Run::messages).sum();
        assert_eq!(self.untaken, untaken);
        self.queue.iter().for_each(|run| run.check(&self.buffer));
        let copied = self.queue.iter().filter(|run| run.shared().is_none());
        self.check_begun();
        self.buffer.check(copied.map(Run::len).sum());
        if let Some(message) = self.queue.get(self.at).filter(|_| self.at < self.started) {
            assert!(message.start <= self.cursor && self.cursor < message.end());
        } else {
            assert_eq!(self.cursor, self.end);
        }
    }
}

fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
