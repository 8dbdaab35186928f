//! The batch of one write: many frames in one list of pieces, small ones copied together, large
//! payloads shared with whoever owns them.

use std::io::IoSlice;
use std::ops::Range;

use bytes::Bytes;

use super::header::{CHUNK_HEAD_LEN, HEADER_LEN, encode_chunk_head};
use crate::lane::LaneId;

/// From this size on a payload is written from where it lies. Below it, copying costs less than one
/// more piece for the kernel to look at.
const SHARE_FROM: usize = 2048;

/// How many pieces one `writev` takes (`IOV_MAX` is 1024 on Linux, writev(2)).
pub(crate) const MAX_PIECES: usize = 1024;

#[derive(Debug)]
enum Piece {
    Inline(Range<usize>),
    Shared(Bytes),
}

/// Frames that are ready to be written, in order. Reused, so that a busy writer allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    inline: Vec<u8>,
    pieces: Vec<Piece>,
    len: usize,
}

/// Where a chunk frame began that is still being filled.
pub(crate) struct OpenChunk {
    head_at: usize,
    len_before: usize,
}

impl Batch {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether a chunk may be opened, or another message put into one that is open. Leaves enough for
    /// the control frames behind it.
    pub(crate) fn has_room(&self) -> bool {
        // Counted as if the piece for the next header stood there already. Otherwise opening a chunk
        // could take the room for its data, and an empty chunk is a protocol error.
        let closed = !matches!(self.pieces.last(), Some(Piece::Inline(_)));
        self.pieces.len() + usize::from(closed) + 3 < MAX_PIECES
    }

    pub(crate) fn clear(&mut self) {
        self.inline.clear();
        self.pieces.clear();
        self.len = 0;
        // One burst of small messages must not cost its memory for ever.
        self.inline.shrink_to(1024 * 1024);
    }

    /// The memory that it keeps for its own bytes.
    pub(crate) fn capacity(&self) -> usize {
        self.inline.capacity()
    }

    /// Appends what `write` appends; nothing if it fails.
    pub(crate) fn push_with<E>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.inline.len();
        write(&mut self.inline).inspect_err(|_| self.inline.truncate(start))?;
        let end = self.inline.len();
        self.len += end - start;
        match self.pieces.last_mut() {
            Some(Piece::Inline(range)) if range.end == start => range.end = end,
            _ => self.pieces.push(Piece::Inline(start..end)),
        }
        Ok(())
    }

    pub(crate) fn push_slice(&mut self, bytes: &[u8]) {
        let _: Result<(), std::convert::Infallible> = self.push_with(|out| {
            out.extend_from_slice(bytes);
            Ok(())
        });
    }

    /// Appends bytes that belong to somebody else: copied if small, shared if large.
    pub(crate) fn push_bytes(&mut self, bytes: &Bytes, range: Range<usize>) {
        if range.len() >= SHARE_FROM {
            self.len += range.len();
            self.pieces.push(Piece::Shared(bytes.slice(range)));
        } else if let Some(bytes) = bytes.get(range) {
            self.push_slice(bytes);
        }
    }

    /// Reserves the head of a chunk frame, to be filled in by [`Batch::close_chunk`] when the chunk's
    /// data has been pushed and its length is known.
    pub(crate) fn open_chunk(&mut self) -> OpenChunk {
        let head_at = self.inline.len();
        self.push_slice(&[0; HEADER_LEN + CHUNK_HEAD_LEN]);
        OpenChunk { head_at, len_before: self.len }
    }

    pub(crate) fn chunk_len(&self, chunk: &OpenChunk) -> usize {
        self.len - chunk.len_before
    }

    pub(crate) fn close_chunk(&mut self, chunk: OpenChunk, lane: LaneId, flags: u8, offset: u64) {
        let head = encode_chunk_head(lane, flags, offset, self.chunk_len(&chunk));
        if let Some(reserved) = self.inline.get_mut(chunk.head_at..chunk.head_at + head.len()) {
            reserved.copy_from_slice(&head);
        }
    }

    /// The pieces from byte `skip` on, as a `writev` takes them.
    pub(crate) fn slices<'a>(&'a self, mut skip: usize, out: &mut Vec<IoSlice<'a>>) {
        for piece in &self.pieces {
            let bytes = self.bytes(piece);
            match bytes.get(skip..) {
                Some(rest) if !rest.is_empty() => {
                    skip = 0;
                    out.push(IoSlice::new(rest));
                    if out.len() == MAX_PIECES {
                        return;
                    }
                }
                _ => skip -= bytes.len().min(skip),
            }
        }
    }

    /// Appends a range of the batch to `out`.
    pub(crate) fn copy(&self, range: Range<usize>, out: &mut Vec<u8>) {
        let (mut skip, mut left) = (range.start, range.len());
        for piece in &self.pieces {
            let bytes = self.bytes(piece);
            let from = skip.min(bytes.len());
            let taken = bytes.get(from..from + left.min(bytes.len() - from)).unwrap_or_default();
            out.extend_from_slice(taken);
            skip -= from;
            left -= taken.len();
            if left == 0 {
                return;
            }
        }
    }

    fn bytes<'a>(&'a self, piece: &'a Piece) -> &'a [u8] {
        match piece {
            Piece::Inline(range) => self.inline.get(range.clone()).unwrap_or_default(),
            Piece::Shared(bytes) => bytes,
        }
    }

    #[cfg(test)]
    pub(crate) fn to_vec(&self) -> Vec<u8> {
        let mut slices = Vec::new();
        self.slices(0, &mut slices);
        slices.iter().flat_map(|slice| slice.iter().copied()).collect()
    }
}
