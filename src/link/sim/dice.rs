//! The choices of a run: drawn from a seed, or made by a fuzzer's input.

use std::ops::{Bound, RangeBounds};

/// A source of choices. The bytes of a script come first, so that a fuzzer steers the run; behind their end,
/// and without a script from the start, choices are drawn at random, so that every run comes to an end that
/// resembles other runs.
pub(super) struct Dice<'a> {
    script: &'a [u8],
    rng: fastrand::Rng,
}

impl<'a> Dice<'a> {
    pub(super) fn seeded(seed: u64) -> Dice<'a> {
        Dice { script: &[], rng: fastrand::Rng::with_seed(seed) }
    }

    pub(super) fn scripted(script: &'a [u8]) -> Dice<'a> {
        Dice { script, rng: fastrand::Rng::with_seed(0) }
    }

    pub(super) fn u64(&mut self, range: impl RangeBounds<u64>) -> u64 {
        let least = match range.start_bound() {
            Bound::Included(least) => *least,
            Bound::Excluded(below) => below + 1,
            Bound::Unbounded => 0,
        };
        let most = match range.end_bound() {
            Bound::Included(most) => *most,
            Bound::Excluded(above) => above - 1,
            Bound::Unbounded => u64::MAX,
        };
        assert!(least <= most, "a choice among nothing");
        if self.script.is_empty() {
            return self.rng.u64(least..=most);
        }
        // As few bytes as the range needs: 0 to 8.
        let count = (u64::BITS - (most - least).leading_zeros()).div_ceil(8) as usize;
        let (bytes, rest) = self.script.split_at(count.min(self.script.len()));
        self.script = rest;
        let number = bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        match (most - least).checked_add(1) {
            Some(choices) => least + number % choices,
            None => number,
        }
    }

    pub(super) fn u8(&mut self, range: impl RangeBounds<u8>) -> u8 {
        let as_u64 = |bound: Bound<&u8>| bound.map(|value| u64::from(*value));
        let end = match as_u64(range.end_bound()) {
            Bound::Unbounded => Bound::Included(u64::from(u8::MAX)),
            end => end,
        };
        self.u64((as_u64(range.start_bound()), end)) as u8
    }

    pub(super) fn usize(&mut self, range: impl RangeBounds<usize>) -> usize {
        let as_u64 = |bound: Bound<&usize>| bound.map(|value| *value as u64);
        self.u64((as_u64(range.start_bound()), as_u64(range.end_bound()))) as usize
    }

    pub(super) fn bool(&mut self) -> bool {
        self.u64(0..2) == 1
    }

    /// One of several; `None` if there are none.
    pub(super) fn choice<T>(
        &mut self,
        from: impl IntoIterator<Item = T, IntoIter: ExactSizeIterator>,
    ) -> Option<T> {
        let mut from = from.into_iter();
        let count = from.len();
        if count == 0 { None } else { from.nth(self.usize(..count)) }
    }
}
