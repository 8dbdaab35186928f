//! The bytes of small messages that are queued, as they stand in the stream: header and payload, one message
//! behind the other, so that many of them are copied to a write as one piece.
//!
//! Invariants: a message lies in one block; a block that has no message left is used again or freed, the last
//! one in its place. The
//! owner calls [`SendBuffer::compact`] after it took messages out of the middle: so no more than twice what
//! is queued is held, and two blocks ([`SendBuffer::check`]).

use std::collections::VecDeque;
use std::ops::Range;

/// The most that a block holds.
const BLOCK: usize = 64 * 1024;

/// Where a message lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    block: u32,
    at: u32,
    len: u32,
}

impl Place {
    /// That of a message of so many bytes that lies elsewhere.
    pub(super) fn outside(len: usize) -> Self {
        Place { block: 0, at: 0, len: len as u32 }
    }

    pub(super) fn len(self) -> usize {
        self.len as usize
    }

    /// Returns the part of it that `range` names.
    pub(super) fn part(self, range: Range<usize>) -> Self {
        Place { at: self.at + range.start as u32, len: range.len() as u32, ..self }
    }

    /// Returns both as one piece, if `next` begins where this one ends.
    pub(super) fn join(self, next: Self) -> Option<Self> {
        let follows = self.block == next.block && self.at + self.len == next.at;
        follows.then(|| Place { len: self.len + next.len, ..self })
    }
}

#[derive(Debug, Default)]
struct Block {
    bytes: Vec<u8>,
    /// Bytes of messages that are still queued.
    live: usize,
}

#[derive(Debug, Default)]
pub(super) struct SendBuffer {
    /// Blocks that get no more messages.
    full: VecDeque<Block>,
    /// The number of the first block.
    first: u32,
    /// The block that gets the next message.
    last: Block,
    /// Memory for the block after it.
    spare: Vec<u8>,
}

impl SendBuffer {
    #[inline]
    pub(super) fn push(&mut self, header: &[u8], body: &[u8]) -> Place {
        let len = header.len() + body.len();
        if self.last.bytes.len() + len > BLOCK {
            self.add_block();
        }
        let block = self.first.wrapping_add(self.full.len() as u32);
        let at = self.last.bytes.len();
        self.last.bytes.reserve(len);
        self.last.bytes.extend_from_slice(header);
        self.last.bytes.extend_from_slice(body);
        self.last.live += len;
        Place { block, at: at as u32, len: len as u32 }
    }

    #[cold]
    fn add_block(&mut self) {
        let mut bytes = std::mem::take(&mut self.spare);
        bytes.reserve(BLOCK); // Many messages come: it does not need to grow step by step.
        self.full.push_back(std::mem::replace(&mut self.last, Block { bytes, live: 0 }));
        self.free_first();
    }

    pub(super) fn get(&self, place: Place) -> &[u8] {
        let block = self.full.get(place.block.wrapping_sub(self.first) as usize).unwrap_or(&self.last);
        let range = place.at as usize..place.at as usize + place.len();
        block.bytes.get(range).unwrap_or_default()
    }

    /// The message at this place is queued no longer.
    pub(super) fn release(&mut self, place: Place) {
        match self.full.get_mut(place.block.wrapping_sub(self.first) as usize) {
            Some(block) => block.live -= place.len(),
            None => self.last.live -= place.len(),
        }
        self.free_first();
    }

    /// Frees the first blocks that have no message left.
    fn free_first(&mut self) {
        while self.full.front().is_some_and(|block| block.live == 0)
            && let Some(mut block) = self.full.pop_front()
        {
            self.first = self.first.wrapping_add(1);
            block.bytes.clear();
            self.spare = block.bytes;
        }
        if self.last.live == 0 {
            self.last.bytes.clear();
        }
    }

    /// Moves the messages together, whose places these are, if more memory is held for messages that are gone
    /// than for those that are queued.
    pub(super) fn compact<'a>(&mut self, places: impl Iterator<Item = &'a mut Place>) {
        let blocks = || self.full.iter().chain([&self.last]);
        let held: usize = blocks().map(|block| block.bytes.len()).sum();
        let live: usize = blocks().map(|block| block.live).sum();
        if held > 2 * live + BLOCK {
            let old = std::mem::take(self);
            places.for_each(|place| *place = self.push(&[], old.get(*place)));
        }
    }

    /// The writer sleeps: memory that nothing is queued in is freed.
    pub(super) fn shrink(&mut self) {
        self.spare = Vec::new();
        if self.last.live == 0 {
            self.last.bytes = Vec::new();
        }
    }

    #[cfg(any(test, fuzzing))]
    fn memory(&self) -> usize {
        let blocks = self.full.iter().chain([&self.last]);
        blocks.map(|block| block.bytes.capacity()).sum::<usize>() + self.spare.capacity()
    }

    /// `queued`: the bytes of all messages. A vector takes up to twice what it needs, and a block is left for
    /// the next messages.
    #[cfg(any(test, fuzzing))]
    pub(super) fn check(&self, queued: usize) {
        assert!(self.memory() <= 2 * (2 * queued + 3 * BLOCK), "{} for {queued}", self.memory());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_keep_their_bytes_whatever_is_released_between_them() {
        let mut rng = fastrand::Rng::with_seed(5);
        let (mut buffer, mut queued) = (SendBuffer::default(), VecDeque::new());
        for number in 0..20_000u32 {
            let body = vec![number as u8; rng.usize(..2000)];
            let place = buffer.push(&number.to_le_bytes(), &body);
            queued.push_back((place, [number.to_le_bytes().as_slice(), &body].concat()));
            while queued.len() > rng.usize(1..200) {
                // Mostly the first one, as acknowledgements do.
                let index = if rng.u8(..) < 200 { 0 } else { rng.usize(..queued.len()) };
                let (place, bytes) = queued.remove(index).unwrap();
                assert_eq!(buffer.get(place), bytes);
                buffer.release(place);
            }
            buffer.compact(queued.iter_mut().map(|(place, _)| place));
            buffer.check(queued.iter().map(|(_, bytes)| bytes.len()).sum());
        }
        queued.drain(..).for_each(|(place, _)| buffer.release(place));
        buffer.shrink();
        assert_eq!(buffer.memory(), 0);
    }

    #[test]
    fn neighbours_join_to_one_piece() {
        let mut buffer = SendBuffer::default();
        let (one, two) = (buffer.push(b"ab", b"cd"), buffer.push(b"ef", b"gh"));
        assert_eq!(buffer.get(one.part(1..4).join(two.part(0..3)).unwrap()), b"bcdefg");
        assert_eq!(one.part(0..3).join(two), None);
    }
}
