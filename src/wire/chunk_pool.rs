//! Memory for large chunks, used again.
//!
//! Fresh memory costs more than what is done with it: the kernel maps and clears each page when it is touched
//! first, and reading into it without `unsafe` means to clear it once more. When the last
//! message of a chunk is dropped, its memory goes to the next chunk, with what it holds.
//!
//! Bounds: at most [`KEPT`] pieces are kept, for all connections of a node, and [`ChunkPool::shrink`] frees
//! one of them: called about once a second, it leaves nothing of an idle node. A chunk gets a piece only if
//! it fills half of it, so what a message keeps alive is never more than twice its chunk.

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};

/// Smaller chunks are allocated: their memory costs little, and mostly comes back from the allocator.
const FROM: usize = 64 * 1024;
const KEPT: usize = 8;

#[derive(Clone, Debug)]
pub(crate) struct ChunkPool {
    put: Sender<Vec<u8>>,
    get: Receiver<Vec<u8>>,
}

impl Default for ChunkPool {
    fn default() -> Self {
        let (put, get) = bounded(KEPT);
        ChunkPool { put, get }
    }
}

impl ChunkPool {
    /// Returns memory for a chunk of `len` bytes: empty, or with old content of any length.
    pub(super) fn take(&self, len: usize) -> Vec<u8> {
        if len >= FROM
            && let Ok(memory) = self.get.try_recv()
        {
            if memory.capacity() >= len && memory.capacity() <= 2 * len {
                return memory;
            }
            let _ = self.put.try_send(memory);
        }
        Vec::with_capacity(len)
    }

    /// Turns the first `len` bytes of the memory into bytes that give it back when the last of them is
    /// dropped.
    pub(super) fn share(&self, mut memory: Vec<u8>, len: usize) -> Bytes {
        if len < FROM {
            memory.truncate(len);
            return memory.into();
        }
        Bytes::from_owner(Pooled { memory, len, put: self.put.clone() })
    }

    /// Frees one piece that nobody uses.
    pub(crate) fn shrink(&self) {
        drop(self.get.try_recv());
    }
}

struct Pooled {
    memory: Vec<u8>,
    len: usize,
    put: Sender<Vec<u8>>,
}

impl AsRef<[u8]> for Pooled {
    fn as_ref(&self) -> &[u8] {
        self.memory.get(..self.len).unwrap_or_default()
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let _ = self.put.try_send(std::mem::take(&mut self.memory));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back_when_the_last_slice_is_dropped_and_goes_to_a_chunk_of_its_size() {
        let pool = ChunkPool::default();
        let bytes = pool.share(vec![7; 3 * FROM], 2 * FROM);
        let slice = bytes.slice(FROM..);
        assert_eq!((bytes.len(), &bytes[..2]), (2 * FROM, &[7, 7][..]));
        drop(bytes);
        assert_eq!(pool.take(2 * FROM).capacity(), 2 * FROM, "it is still in use");
        drop(slice);
        assert!(pool.take(FROM).is_empty(), "too large for this one");
        assert_eq!(pool.take(2 * FROM).len(), 3 * FROM, "with what it held");
    }

    #[test]
    fn it_keeps_a_few_and_an_idle_node_keeps_none() {
        let pool = ChunkPool::default();
        let all: Vec<_> = (0..2 * KEPT).map(|_| pool.share(vec![0; FROM], FROM)).collect();
        drop(all);
        assert_eq!(pool.get.len(), KEPT);
        (0..KEPT).for_each(|_| pool.shrink());
        assert!(pool.get.is_empty());
    }
}
