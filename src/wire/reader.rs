//! Takes frames out of a byte stream, many out of one read.

use std::io::{self, Read};

use super::buffer::ReadBuffer;
use super::chunk_pool::ChunkPool;
use super::frame::{self, Frame};
use super::header::{self, Announced, CHUNK_HEAD_LEN, HEADER_LEN, Kind, WireError};
use crate::lane::LaneId;

/// Reads of this size stay in the second-level cache, which is worth 1.2 to 1.7 times the
/// throughput of reads of 256 KiB (measured on a 2-core machine, loopback).
const MAX_BUFFER: usize = 64 * 1024;
/// From this size on, the rest of a chunk is read straight into its own memory.
const DIRECT_FROM: usize = 8 * 1024;
/// At most this much memory is cleared ahead of what has arrived.
const CLEARED_AHEAD: usize = 64 * 1024;

/// Why a stream of frames ended.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The stream ended between two frames.
    Eof,
    /// The stream ended inside a frame.
    Torn,
    Io(io::Error),
    /// The protection of the stream failed.
    Record(String),
    Wire(WireError),
}

impl From<WireError> for ReadError {
    fn from(error: WireError) -> Self {
        ReadError::Wire(error)
    }
}

/// Where the bytes of frames come from: a socket, or what opens the records that come from one.
pub(crate) trait Source {
    /// Waits for bytes once, unless some are held back already.
    fn read(&mut self, to: &mut [u8]) -> Result<Got, ReadError>;

    /// The same into memory whose first `filled` bytes are there already, as far as `until`. The bytes
    /// behind them have no meaning.
    fn read_into(&mut self, memory: &mut Vec<u8>, filled: usize, until: usize) -> Result<Got, ReadError> {
        // Each byte is zeroed once only, however short the reads are.
        memory.resize(until.max(memory.len()), 0);
        memory.get_mut(filled..until).map_or(Err(ReadError::Torn), |room| self.read(room))
    }

    /// Whether something was received that was not given out.
    fn holds_back(&self) -> bool {
        false
    }

    /// Frees memory that only a busy source needs.
    fn shrink(&mut self) {}
}

/// The result of one read. Nothing of either: the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Got {
    /// Bytes of frames.
    pub(crate) bytes: usize,
    /// Bytes that arrived, which may be more, or less, or not enough for any of the others.
    pub(crate) received: usize,
}

impl Got {
    pub(crate) fn plain(count: usize) -> Self {
        Got { bytes: count, received: count }
    }
}

impl<R: Read> Source for R {
    fn read(&mut self, to: &mut [u8]) -> Result<Got, ReadError> {
        read_once(self, to).map(Got::plain)
    }
}

/// Frames out of `S`. Memory: one buffer of at most 64 KiB, and one chunk (its length is
/// checked against the bound of 1 MiB before memory is reserved; untouched pages cost nothing).
pub(crate) struct FrameReader<S> {
    source: S,
    buffer: ReadBuffer,
    pool: ChunkPool,
    /// A chunk whose data is being read straight into its own memory.
    partial: Option<Partial>,
}

struct Partial {
    lane: LaneId,
    flags: u8,
    offset: u64,
    len: usize,
    /// Zeroed only a little ahead of what has arrived, and each byte only once. May be longer than the
    /// chunk.
    memory: Vec<u8>,
    filled: usize,
}

impl<S: Source> FrameReader<S> {
    pub(crate) fn new(source: S) -> Self {
        FrameReader::with_pool(source, ChunkPool::new(header::MAX_CHUNK))
    }

    /// The memory of large chunks comes from `pool`.
    pub(crate) fn with_pool(source: S, pool: ChunkPool) -> Self {
        FrameReader { source, buffer: ReadBuffer::new(MAX_BUFFER), pool, partial: None }
    }

    /// The kind of the next frame, once its header is there.
    pub(crate) fn kind_ahead(&self) -> Option<Kind> {
        let header = self.buffer.waiting().first_chunk::<HEADER_LEN>()?;
        match header::decode_header(*header) {
            Ok(Announced::Frame(kind, _)) => Some(kind),
            // An error is told with the frame.
            Ok(Announced::Extension(_)) | Err(_) => None,
        }
    }

    /// A frame that is in memory already. `None`: call [`FrameReader::fill`].
    pub(crate) fn next_buffered(&mut self) -> Result<Option<Frame>, ReadError> {
        if let Some(frame) = self.finish_partial() {
            return Ok(Some(frame));
        }
        if self.partial.is_some() {
            return Ok(None);
        }
        let waiting = self.buffer.waiting();
        let Some((header, behind)) = waiting.split_first_chunk::<HEADER_LEN>() else { return Ok(None) };
        let announced = header::decode_header(*header)?;
        let len = announced.body_len();
        if let Some(body) = behind.get(..len) {
            let frame = match announced {
                Announced::Frame(kind, _) => frame::decode_body(kind, body)?,
                Announced::Extension(_) => Frame::Extension,
            };
            self.buffer.consume(HEADER_LEN + len);
            return Ok(Some(frame));
        }
        if let (Announced::Frame(Kind::Chunk, _), Some((head, data))) =
            (announced, behind.split_first_chunk::<CHUNK_HEAD_LEN>())
        {
            // As soon as it is there, so that an error does not depend on how much came with it.
            let (lane, flags, offset) = header::decode_chunk_head(*head)?;
            let len = len - CHUNK_HEAD_LEN;
            if len - data.len() >= DIRECT_FROM || HEADER_LEN + CHUNK_HEAD_LEN + len > MAX_BUFFER {
                let mut memory = self.pool.take(len);
                overwrite(&mut memory, 0, data);
                let filled = data.len();
                self.buffer.consume(waiting.len());
                self.partial = Some(Partial { lane, flags, offset, len, memory, filled });
            }
        }
        Ok(None)
    }

    /// Reads once. Blocks until something arrives; returns how many bytes did.
    pub(crate) fn fill(&mut self) -> Result<usize, ReadError> {
        if let Some(partial) = &mut self.partial {
            // Memory that was used before needs no clearing.
            let until = partial.len.min(partial.memory.len().max(partial.filled + CLEARED_AHEAD));
            let got = self.source.read_into(&mut partial.memory, partial.filled, until)?;
            partial.filled += got.bytes;
            return if got == Got::plain(0) { Err(ReadError::Torn) } else { Ok(got.received) };
        }
        let got = self.source.read(self.buffer.room())?;
        if got == Got::plain(0) {
            return Err(if self.buffer.is_empty() { ReadError::Eof } else { ReadError::Torn });
        }
        self.buffer.filled(got.bytes);
        Ok(got.received)
    }

    fn finish_partial(&mut self) -> Option<Frame> {
        let Partial { lane, flags, offset, len, memory, .. } =
            self.partial.take_if(|partial| partial.filled == partial.len)?;
        Some(Frame::Chunk { lane, flags, offset, data: self.pool.share(memory, len) })
    }

    /// Frees memory that only a busy connection needs.
    pub(crate) fn shrink(&mut self) {
        self.buffer.shrink();
        self.source.shrink();
    }

    /// True while a frame has begun that is not complete, if asked after [`FrameReader::next_buffered`]
    /// had nothing to give.
    pub(crate) fn inside_frame(&self) -> bool {
        self.partial.is_some() || !self.buffer.is_empty() || self.source.holds_back()
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn memory(&self) -> usize {
        self.buffer.capacity() + self.partial.as_ref().map_or(0, |partial| partial.memory.capacity())
    }
}

/// Writes `bytes` at `at`, over what stands there and beyond the end; `at` is not behind the end.
pub(crate) fn overwrite(memory: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let (over, behind) = bytes.split_at(bytes.len().min(memory.len().saturating_sub(at)));
    if let Some(old) = memory.get_mut(at..at + over.len()) {
        old.copy_from_slice(over);
    }
    memory.extend_from_slice(behind);
}

/// One read, repeated if a signal interrupted it.
pub(crate) fn read_once(from: &mut impl Read, to: &mut [u8]) -> Result<usize, ReadError> {
    loop {
        match from.read(to) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map_err(ReadError::Io),
        }
    }
}
