//! The entries of a queue: runs of messages that are alike and lie one behind the other.
//!
//! A message that is copied and does not expire joins the run before it, if its token follows that run's
//! tokens and its bytes lie behind that run's bytes. So a queue of small messages costs an entry for a
//! hundred of them, they are written with one copy, and they end together. Where one of them begins is read
//! from their headers, which lie in the buffer; only a run that ends in parts needs to know.
//!
//! Invariants:
//! - A run of more than one message has [`Rare`] of none of them: no deadline, kind
//!   [`Message`](MessageKind::Message), payloads in the [`SendBuffer`].
//! - A run that has an offset in the stream, or had one, grows no more.

use std::time::Instant;

use bytes::Bytes;

use super::{BEGUN_BEFORE, COPY_BELOW, NOT_STARTED, cost_of};
use crate::link::send_buffer::{Place, SendBuffer};
use crate::wire::stream::{MessageKind, message_lens};

/// The caller's half of a message: comes back when the message has ended.
pub(crate) trait Token: Copy + PartialEq {
    /// Returns the token that is `count` behind this one.
    fn skip(self, count: usize) -> Self;
}

/// Tokens that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tokens<T> {
    pub(crate) first: T,
    pub(crate) count: usize,
}

#[cfg(any(test, fuzzing))]
impl<T: Token> Tokens<T> {
    pub(crate) fn iter(self) -> impl Iterator<Item = T> {
        (0..self.count).map(move |index| self.first.skip(index))
    }
}

/// Messages in a queue. Kept small: there may be a million.
#[derive(Debug)]
pub(super) struct Run<T> {
    /// The length of the messages, and where headers and payloads lie in the lane's [`SendBuffer`], unless
    /// [`Rare::shared`] has the payload.
    pub(super) place: Place,
    count: u32,
    /// Where it begins in the stream, or [`NOT_STARTED`], or [`BEGUN_BEFORE`].
    pub(super) start: u64,
    token: T,
    /// `None` for messages that are copied and do not expire.
    pub(super) rare: Option<Box<Rare>>,
}

/// The part of a message that most do not have.
#[derive(Debug)]
pub(super) struct Rare {
    pub(super) kind: MessageKind,
    /// The payload, where the application put it.
    pub(super) shared: Option<Bytes>,
    /// Dropped if the first byte was not sent by then.
    pub(super) deadline: Option<Instant>,
    /// The peer has dropped it, because it expired.
    pub(super) stale: bool,
}

/// The part of a run that lies before some offset in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Before {
    /// Whole messages.
    messages: usize,
    /// Their bytes.
    bytes: usize,
    /// The length of the message that is cut, or 0.
    cut: usize,
}

impl<T: Token> Run<T> {
    /// A run of one message.
    pub(super) fn new(place: Place, token: T, rare: Option<Box<Rare>>) -> Self {
        Run { place, count: 1, start: NOT_STARTED, token, rare }
    }

    /// Adds a message that is copied and does not expire. False if it does not follow.
    #[inline]
    pub(super) fn join(&mut self, place: Place, token: T) -> bool {
        if self.start != NOT_STARTED || self.rare.is_some() || self.token.skip(self.count as usize) != token {
            return false;
        }
        let Some(joined) = self.place.join(place) else { return false };
        self.place = joined;
        self.count += 1;
        true
    }

    /// Takes the first `count` of its messages out.
    pub(super) fn split_off_front(&mut self, count: usize, buffer: &SendBuffer) -> Self {
        let bytes = message_lens(buffer.get(self.place)).take(count).sum::<usize>();
        let front = Run {
            place: self.place.part(0..bytes),
            count: count as u32,
            start: self.start,
            token: self.token,
            rare: None,
        };
        self.place = self.place.part(bytes..self.len());
        self.count -= front.count;
        self.token = self.token.skip(count);
        if !self.is_waiting() {
            self.start += bytes as u64;
        }
        front
    }

    /// How many messages it has.
    pub(super) fn messages(&self) -> usize {
        self.count as usize
    }

    pub(super) fn tokens(&self) -> Tokens<T> {
        Tokens { first: self.token, count: self.messages() }
    }

    pub(super) fn kind(&self) -> MessageKind {
        self.rare.as_ref().map_or(MessageKind::Message, |rare| rare.kind)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.rare.as_ref()?.deadline
    }

    pub(super) fn shared(&self) -> Option<&Bytes> {
        self.rare.as_ref()?.shared.as_ref()
    }

    pub(super) fn is_stale(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.stale)
    }

    /// Bytes of its messages in the stream.
    pub(super) fn len(&self) -> usize {
        self.place.len()
    }

    /// Bytes of its messages for the application.
    pub(super) fn payload_len(&self) -> usize {
        self.len() - self.messages() * self.kind().header_len()
    }

    pub(super) fn cost(&self) -> usize {
        self.payload_len() + self.messages() * cost_of(0)
    }

    /// Whether it has no offset.
    pub(super) fn is_waiting(&self) -> bool {
        self.start >= BEGUN_BEFORE
    }

    pub(super) fn end(&self) -> u64 {
        self.start.saturating_add(self.len() as u64)
    }

    fn before(&self, offset: usize, buffer: &SendBuffer) -> Before {
        let mut before = Before { messages: 0, bytes: 0, cut: 0 };
        if offset >= self.len() {
            return Before { messages: self.messages(), bytes: self.len(), ..before };
        }
        if self.count == 1 {
            return Before { cut: if offset > 0 { self.len() } else { 0 }, ..before };
        }
        for len in message_lens(buffer.get(self.place)) {
            if before.bytes + len > offset {
                before.cut = if offset > before.bytes { len } else { 0 };
                break;
            }
            before.messages += 1;
            before.bytes += len;
        }
        before
    }

    /// How many of its messages, from the first one on, have a payload of at most `max` bytes.
    pub(super) fn fitting(&self, max: usize, buffer: &SendBuffer) -> usize {
        if self.payload_len() <= max || (self.count > 1 && COPY_BELOW <= max) {
            return self.messages();
        }
        if self.count == 1 {
            return 0;
        }
        let header = self.kind().header_len();
        message_lens(buffer.get(self.place)).take_while(|len| len - header <= max).count()
    }

    /// How many of its messages end at or before this place of the stream, which it has reached.
    pub(super) fn ended_at(&self, offset: u64, buffer: &SendBuffer) -> usize {
        self.before(self.offset(offset), buffer).messages
    }

    /// How many of its messages begin before this place of the stream.
    pub(super) fn begun_at(&self, offset: u64, buffer: &SendBuffer) -> usize {
        let before = self.before(self.offset(offset), buffer);
        before.messages + usize::from(before.cut > 0)
    }

    /// Returns where a chunk that is to stop at `stop` ends in this run, and the tokens of the messages of
    /// which it has a part when it begins at `from`. It ends with a message if that is at most `slack`
    /// bytes later, and before `limit`.
    pub(super) fn piece(
        &self,
        from: u64,
        stop: u64,
        slack: usize,
        limit: u64,
        buffer: &SendBuffer,
    ) -> (u64, Tokens<T>) {
        if from == self.start && self.end() <= stop {
            return (self.end(), self.tokens());
        }
        let before = self.before(self.offset(stop), buffer);
        let mut to = self.end().min(stop);
        if before.cut > 0 {
            let end = self.start + (before.bytes + before.cut) as u64;
            if end - to <= slack as u64 && end <= limit {
                to = end;
            }
        }
        let first = self.ended_at(from, buffer);
        let count = before.messages + usize::from(before.cut > 0) - first;
        (to, Tokens { first: self.token.skip(first), count })
    }

    fn offset(&self, place: u64) -> usize {
        place.saturating_sub(self.start) as usize
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn check(&self, buffer: &SendBuffer) {
        assert!(self.count > 0);
        if self.count > 1 {
            assert!(self.rare.is_none());
            let lens: Vec<_> = message_lens(buffer.get(self.place)).collect();
            assert_eq!((lens.len(), lens.iter().sum()), (self.messages(), self.len()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::harness::Numbered;
    use crate::wire::stream::Header;

    const START: u64 = 1000;

    /// A run of messages with payloads of these lengths that begins at [`START`], and where they end.
    fn run(lens: &[usize], buffer: &mut SendBuffer) -> (Run<Numbered>, Vec<u64>) {
        let mut runs = lens.iter().enumerate().map(|(number, len)| {
            let place = buffer.push(&Header::of_message(*len), &vec![number as u8; *len]);
            (place, Numbered { number, awaited: false })
        });
        let (place, token) = runs.next().unwrap();
        let mut run = Run::new(place, token, None);
        runs.for_each(|(place, token)| assert!(run.join(place, token)));
        run.start = START;
        let ends = lens.iter().scan(START, |end, len| {
            *end += 4 + *len as u64;
            Some(*end)
        });
        (run, ends.collect())
    }

    #[test]
    fn a_message_joins_if_it_follows_and_the_run_was_never_started() {
        let mut buffer = SendBuffer::default();
        let token = |number| Numbered { number, awaited: false };
        let [first, second, third] = [0; 3].map(|len| buffer.push(&Header::of_message(len), &[]));
        let mut run = Run::new(first, token(7), None);
        assert!(!run.join(second, token(9)), "another token");
        assert!(!run.join(third, token(8)), "another place");
        for start in [0, BEGUN_BEFORE] {
            run.start = start;
            assert!(!run.join(second, token(8)), "started");
        }
        run.start = NOT_STARTED;
        assert!(run.join(second, token(8)) && run.join(third, token(9)));
        assert_eq!(run.tokens(), Tokens { first: token(7), count: 3 });
        run.check(&buffer);
    }

    #[test]
    fn a_cut_at_any_place_falls_where_the_messages_say() {
        let mut rng = fastrand::Rng::with_seed(3);
        for _ in 0..200 {
            let lens: Vec<_> = (0..rng.usize(1..6)).map(|_| rng.usize(..12)).collect();
            let mut buffer = SendBuffer::default();
            let (run, ends) = run(&lens, &mut buffer);
            let end = run.end();
            assert_eq!(ends.last(), Some(&end));
            let begins = |index: usize| index.checked_sub(1).map_or(START, |before| ends[before]);
            for place in START..=end + 1 {
                let ended = ends.iter().filter(|end| **end <= place).count();
                let begun = (0..lens.len()).filter(|index| begins(*index) < place).count();
                assert_eq!((run.ended_at(place, &buffer), run.begun_at(place, &buffer)), (ended, begun));
            }
            for from in START..end {
                let (stop, slack, limit) =
                    (rng.u64(from + 1..end + 3), rng.usize(..6), rng.u64(from + 1..end + 9));
                let stop = stop.min(limit);
                let (to, tokens) = run.piece(from, stop, slack, limit, &buffer);
                let cut = ends.iter().copied().find(|end| *end >= stop).unwrap_or(end);
                let whole = cut <= limit && cut.saturating_sub(stop) <= slack as u64;
                assert_eq!(
                    to,
                    if whole { cut } else { stop.min(end) },
                    "{lens:?} {from} {stop} {slack} {limit}"
                );
                let first = run.ended_at(from, &buffer);
                let expected = Tokens {
                    first: Numbered { number: first, awaited: false },
                    count: run.begun_at(to, &buffer) - first,
                };
                assert_eq!(tokens, expected);
            }
        }
    }

    #[test]
    fn messages_fit_up_to_the_first_one_that_is_too_large() {
        let mut buffer = SendBuffer::default();
        let (small, _) = run(&[30, 0, 31, 500, 2], &mut buffer);
        for (max, fitting) in [(COPY_BELOW, 5), (563, 5), (500, 5), (499, 3), (30, 2), (29, 0)] {
            assert_eq!(small.fitting(max, &buffer), fitting, "{max}");
        }
        let (one, _) = run(&[31], &mut buffer);
        assert_eq!((one.fitting(31, &buffer), one.fitting(30, &buffer)), (1, 0));
    }

    #[test]
    fn both_parts_of_a_run_that_is_split_keep_their_messages() {
        let mut buffer = SendBuffer::default();
        for count in 1..4 {
            let (mut rest, ends) = run(&[3, 0, 300, 7], &mut buffer);
            let (bytes, cost) = (buffer.get(rest.place).to_vec(), rest.cost());
            let front = rest.split_off_front(count, &buffer);
            [&front, &rest].into_iter().for_each(|part| part.check(&buffer));
            assert_eq!((front.start, front.end(), rest.start), (START, ends[count - 1], ends[count - 1]));
            assert_eq!(front.cost() + rest.cost(), cost);
            assert_eq!([buffer.get(front.place), buffer.get(rest.place)].concat(), bytes);
            let numbers: Vec<_> =
                front.tokens().iter().chain(rest.tokens().iter()).map(|token| token.number).collect();
            assert_eq!(numbers, [0, 1, 2, 3]);
        }
    }
}
