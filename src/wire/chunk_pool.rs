//! Memory for large chunks, used again.
//!
//! Fresh memory costs more than what is done with it: the kernel maps and clears each page when it is touched
//! first, and reading into it without `unsafe` means to clear it once more. When the last
//! message of a chunk is dropped, its memory goes to the next chunk, with what it holds.
//!
//! The piece that was used last goes first: it is most likely in the processor's cache.
//!
//! Bounds: pieces of as many bytes as the pool was made for are kept, for all connections of a node, and
//! [`ChunkPool::shrink`] frees half of them: called about once a second, it leaves nothing of an idle node. A
//! chunk gets a piece only if it fills half of it, so what a message keeps alive is never more than twice its
//! chunk.

use std::sync::Arc;

use bytes::Bytes;

use crate::lock::{LEAF, Ordered};

/// Smaller chunks are allocated: their memory costs little, and mostly comes back from the allocator.
const FROM: usize = 64 * 1024;

#[derive(Clone, Debug)]
pub(crate) struct ChunkPool {
    free: Arc<Ordered<Free, LEAF>>,
}

#[derive(Debug)]
struct Free {
    pieces: Vec<Vec<u8>>,
    bytes: usize,
    most_bytes: usize,
}

impl Free {
    fn remove(&mut self, index: usize) -> Vec<u8> {
        let piece = self.pieces.remove(index);
        self.bytes -= piece.capacity();
        piece
    }
}

impl ChunkPool {
    /// Keeps `most_bytes` that nobody uses, at most.
    pub(crate) fn new(most_bytes: usize) -> Self {
        let free = Free { pieces: Vec::new(), bytes: 0, most_bytes };
        ChunkPool { free: Arc::new(Ordered::new(free)) }
    }

    /// Returns memory for a chunk of `len` bytes: empty, or with old content of any length.
    pub(super) fn take(&self, len: usize) -> Vec<u8> {
        if len >= FROM {
            let mut free = self.free.lock();
            let fits = |piece: &Vec<u8>| (len..=2 * len).contains(&piece.capacity());
            if let Some(index) = free.pieces.iter().rposition(fits) {
                return free.remove(index);
            }
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
        Bytes::from_owner(Pooled { memory, len, pool: self.clone() })
    }

    /// Frees half of the memory that nobody uses.
    pub(crate) fn shrink(&self) {
        let freed: Vec<_> = {
            let mut free = self.free.lock();
            let half = free.pieces.len().div_ceil(2);
            // Those that were used longest ago.
            (0..half).map(|_| free.remove(0)).collect()
        };
        drop(freed);
    }

    fn put(&self, piece: Vec<u8>) {
        let mut free = self.free.lock();
        if free.bytes + piece.capacity() <= free.most_bytes {
            free.bytes += piece.capacity();
            free.pieces.push(piece);
        }
    }
}

struct Pooled {
    memory: Vec<u8>,
    len: usize,
    pool: ChunkPool,
}

impl AsRef<[u8]> for Pooled {
    fn as_ref(&self) -> &[u8] {
        self.memory.get(..self.len).unwrap_or_default()
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        self.pool.put(std::mem::take(&mut self.memory));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back_when_the_last_slice_is_dropped_and_goes_to_a_chunk_of_its_size() {
        let pool = ChunkPool::new(16 * FROM);
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
    fn it_keeps_some_and_an_idle_node_keeps_none() {
        const KEPT: usize = 16 * FROM;
        let pool = ChunkPool::new(KEPT);
        let all: Vec<_> = (0..2 * KEPT / FROM).map(|_| pool.share(vec![0; FROM], FROM)).collect();
        drop(all);
        let kept = || pool.free.lock().pieces.len();
        assert_eq!((kept(), pool.free.lock().bytes), (KEPT / FROM, KEPT));
        pool.shrink();
        assert_eq!(kept(), KEPT / FROM / 2);
        (0..KEPT.ilog2()).for_each(|_| pool.shrink());
        assert_eq!((kept(), pool.free.lock().bytes), (0, 0));
    }
}
