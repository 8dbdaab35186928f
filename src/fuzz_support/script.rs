//! The meaning of the fuzzer's bytes: a list of small decisions. Bytes that are not there are zero, so every
//! input is a script, and a shorter one does less.

pub(super) struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Script(data)
    }

    pub(super) fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub(super) fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    pub(super) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    pub(super) fn small(&mut self) -> usize {
        usize::from(self.byte())
    }

    pub(super) fn word(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// One of `count` things.
    pub(super) fn below(&mut self, count: usize) -> Option<usize> {
        self.small().checked_rem(count)
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let index = self.below(from.len())?;
        from.get(index).copied()
    }

    /// A number that is in some relation to `known`, or at the edge of what there is.
    pub(super) fn near(&mut self, known: u64) -> u64 {
        match self.byte() {
            byte @ 0..=127 => known.wrapping_add_signed(i64::from(byte) - 64),
            128..=159 => known,
            160..=191 => u64::from(self.word()),
            192..=207 => known.wrapping_add(u64::from(self.word())),
            208..=215 => known.wrapping_sub(u64::from(self.word())),
            216..=223 => u64::MAX,
            224..=231 => u64::MAX - self.small() as u64,
            232..=239 => 1 << (self.byte() % 64),
            _ => self.number(),
        }
    }

    pub(super) fn number(&mut self) -> u64 {
        (0..8).fold(0, |number, _| number << 8 | u64::from(self.byte()))
    }
}
