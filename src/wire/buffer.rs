//! Bytes that were read from a source and not used yet.

/// The size that a connection starts with, and has while it is idle: pings and single votes fit.
const MIN: usize = 512;

/// A buffer that is filled at one end and used up at the other. A read that has filled it makes it four
/// times as large, up to its bound: it grows only with what arrives.
pub(crate) struct ReadBuffer {
    memory: Vec<u8>,
    max: usize,
    start: usize,
    end: usize,
}

impl ReadBuffer {
    pub(crate) fn new(max: usize) -> Self {
        ReadBuffer { memory: vec![0; MIN.min(max)], max, start: 0, end: 0 }
    }

    pub(crate) fn waiting(&self) -> &[u8] {
        self.memory.get(self.start..self.end).unwrap_or_default()
    }

    pub(crate) fn waiting_mut(&mut self) -> &mut [u8] {
        self.memory.get_mut(self.start..self.end).unwrap_or_default()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The first `count` bytes that wait were used.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start = self.end.min(self.start + count);
    }

    /// Room for the next read. None at all only if everything up to the bound waits.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        let full = self.end == self.memory.len();
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
        } else if full {
            self.memory.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        // A read that filled the buffer says that more is waiting than fits.
        if full && self.memory.len() < self.max {
            let len = (self.memory.len() * 4).min(self.max);
            // Left to itself a vector takes twice what it had, and the last step may be far less than that.
            self.memory.reserve_exact(len - self.memory.len());
            self.memory.resize(len, 0);
        }
        self.memory.get_mut(self.end..).unwrap_or_default()
    }

    /// Nothing is expected for a while: with nothing that waits it is as small again as at the beginning.
    pub(crate) fn shrink(&mut self) {
        if self.is_empty() && self.memory.len() > MIN {
            *self = ReadBuffer::new(self.max);
        }
    }

    /// So many bytes were read into [`ReadBuffer::room`].
    pub(crate) fn filled(&mut self, count: usize) {
        self.end = self.memory.len().min(self.end + count);
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn capacity(&self) -> usize {
        self.memory.capacity()
    }
}
