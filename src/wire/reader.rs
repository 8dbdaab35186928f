//! Takes frames out of a byte stream, many out of one read.

use std::io::{self, Read};

use bytes::Bytes;

use super::frame::{self, Announced, CHUNK_HEAD_LEN, Frame, HEADER_LEN, Kind, WireError};

/// Reads of this size stay in the second-level cache, which is worth 1.2 to 1.7 times the
/// throughput of reads of 256 KiB (measured on a 2-core machine, loopback).
const MAX_BUFFER: usize = 64 * 1024;
/// What an idle connection keeps.
const MIN_BUFFER: usize = 4 * 1024;
/// From this size on, the rest of a chunk is read straight into its own memory.
const DIRECT_FROM: usize = 8 * 1024;
/// At most this much is read between two signs of life.
const DIRECT_PIECE: usize = 64 * 1024;

/// Why a stream of frames ended.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The stream ended between two frames.
    Eof,
    /// The stream ended inside a frame.
    Torn,
    Io(io::Error),
    Wire(WireError),
}

impl From<WireError> for ReadError {
    fn from(error: WireError) -> Self {
        ReadError::Wire(error)
    }
}

/// Frames out of `R`. Memory: one buffer of at most 64 KiB, and one chunk (its length is
/// checked against the bound of 1 MiB before memory is reserved; untouched pages cost nothing).
pub(crate) struct FrameReader<R> {
    source: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// A chunk whose data is being read straight into its own memory.
    partial: Option<(PartialHead, Vec<u8>)>,
}

struct PartialHead {
    lane: crate::lane::LaneId,
    flags: u8,
    offset: u64,
    len: usize,
}

impl<R: Read> FrameReader<R> {
    pub(crate) fn new(source: R) -> Self {
        FrameReader { source, buffer: vec![0; MIN_BUFFER], start: 0, end: 0, partial: None }
    }

    /// A frame that is in memory already. `None`: call [`FrameReader::fill`].
    pub(crate) fn next_buffered(&mut self) -> Result<Option<Frame>, ReadError> {
        if let Some(frame) = self.finish_partial() {
            return Ok(Some(frame));
        }
        if self.partial.is_some() {
            return Ok(None);
        }
        let Some(available) = self.buffer.get(self.start..self.end) else { return Ok(None) };
        let Some((header, behind)) = available.split_first_chunk::<HEADER_LEN>() else { return Ok(None) };
        let announced = frame::decode_header(*header)?;
        let len = announced.body_len();
        if let Some(body) = behind.get(..len) {
            self.start += HEADER_LEN + len;
            return Ok(Some(match announced {
                Announced::Frame(kind, _) => frame::decode_body(kind, Bytes::copy_from_slice(body))?,
                Announced::Hint(_) => Frame::Hint,
            }));
        }
        if let (Announced::Frame(Kind::Chunk, _), Some((head, data))) =
            (announced, behind.split_first_chunk::<CHUNK_HEAD_LEN>())
            && (len - CHUNK_HEAD_LEN - data.len() >= DIRECT_FROM || HEADER_LEN + len > MAX_BUFFER)
        {
            let (lane, flags, offset) = frame::decode_chunk_head(*head)?;
            let len = len - CHUNK_HEAD_LEN;
            let mut memory = Vec::with_capacity(len);
            memory.extend_from_slice(data);
            self.start = self.end;
            self.partial = Some((PartialHead { lane, flags, offset, len }, memory));
        }
        Ok(None)
    }

    /// Reads once. Blocks until something arrives; returns how many bytes did.
    pub(crate) fn fill(&mut self) -> Result<usize, ReadError> {
        if let Some((head, memory)) = &mut self.partial {
            let missing = (head.len - memory.len()).min(DIRECT_PIECE);
            let read = read_some(&mut self.source, missing, memory)?;
            return if read == 0 { Err(ReadError::Torn) } else { Ok(read) };
        }
        self.make_room();
        let Some(room) = self.buffer.get_mut(self.end..) else { return Err(ReadError::Torn) };
        let read = retry(|| self.source.read(room))?;
        if read == 0 {
            return Err(if self.start == self.end { ReadError::Eof } else { ReadError::Torn });
        }
        self.end += read;
        Ok(read)
    }

    fn finish_partial(&mut self) -> Option<Frame> {
        let (head, data) = self.partial.take_if(|(head, memory)| memory.len() == head.len)?;
        Some(Frame::Chunk { lane: head.lane, flags: head.flags, offset: head.offset, data: data.into() })
    }

    /// True while a frame has begun that is not complete.
    pub(crate) fn inside_frame(&self) -> bool {
        self.partial.is_some() || self.start != self.end
    }

    fn make_room(&mut self) {
        let full = self.end == self.buffer.len();
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if full {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        // A read that filled the buffer says that more is waiting than fits.
        if full && self.buffer.len() < MAX_BUFFER {
            self.buffer.resize(self.buffer.len() * 4, 0);
        }
    }
}

/// Appends at most `limit` bytes of one read to `memory`.
fn read_some<R: Read>(source: &mut R, limit: usize, memory: &mut Vec<u8>) -> Result<usize, ReadError> {
    let start = memory.len();
    memory.resize(start + limit, 0);
    let read = match memory.get_mut(start..) {
        Some(room) => retry(|| source.read(room)),
        None => Ok(0),
    };
    memory.truncate(start + *read.as_ref().unwrap_or(&0));
    read
}

fn retry(mut read: impl FnMut() -> io::Result<usize>) -> Result<usize, ReadError> {
    loop {
        match read() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map_err(ReadError::Io),
        }
    }
}
