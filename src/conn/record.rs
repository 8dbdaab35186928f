//! The record layer: between the frames and the socket, where encryption has its place.
//!
//! ```text
//!   frames -> Batch -> Sealer -> | length | sealed | length | sealed | ... -> Opener -> frames
//! ```
//!
//! Each direction has its own half with its own key and counter. The writer thread owns the sealing half,
//! the reader thread the opening half, so neither needs a lock. In plaintext both hand the bytes
//! through.
//!
//! # Invariants
//! - Records cut the stream of frames anywhere: many small frames share one record and its tag, a large one
//!   takes several.
//! - No byte is given out that was not authenticated, in its place: the counter goes up by one with each
//!   record, so one that is left out, repeated or swapped does not open. Then nothing more is ever given out.
//! - A sealed byte is sent once and never sealed again: the write loop keeps its place in what was sealed.
//! - Memory: a write's worth of sealed records here, the longest record there; both grow only with what there
//!   is.

use std::fmt;
use std::io::Read;
use std::ops::Range;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::wire::batch::Batch;
use crate::wire::buffer::ReadBuffer;
use crate::wire::reader::{Got, ReadError, Source, overwrite, read_once};

/// Before each record: the length of what follows.
const LENGTH: usize = 2;
const TAG: usize = 16;
/// A record that is received is never longer, by the width of its length field.
const MAX_RECORD: usize = u16::MAX as usize;
/// The most that a record holds which this side sends. The other side can use nothing of a record before all
/// of it is there, so a vote should not wait in one with too much behind it; 16 KiB is the smallest chunk,
/// and costs 0.1 % in lengths and tags.
const FILL: usize = 16 * 1024;
/// So much is sealed before it is written. Measured with `benches/compare` at 256 KiB a message: half of this
/// costs a sixth more CPU time, the double no less.
const WRITE: usize = 4 * FILL;
/// The most that one read takes: a record of any length, and several of those that are sent here.
pub(crate) const MAX_BUFFER: usize = 5 * (LENGTH + FILL + TAG);
const _: () = assert!(MAX_BUFFER >= LENGTH + MAX_RECORD);
/// After so many records (at most 4 GiB) the key is replaced by one that cannot be turned back into it
/// (Noise, section 4.2). Far below what AES-GCM may protect with one key (RFC 9001 section 6.6: 2^23
/// packets), and whoever steals a key from memory cannot read what went before.
pub(crate) const REKEY_AFTER: u64 = 1 << 16;

/// Why a record was not accepted, or could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordError {
    Short(usize),
    Forged,
    Exhausted,
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecordError::Short(len) => write!(f, "a record of {len} bytes, at least {} are needed", TAG + 1),
            RecordError::Forged => write!(
                f,
                "a record does not authenticate: changed on the way, left out, repeated, or not of this connection"
            ),
            RecordError::Exhausted => write!(f, "the connection has used up its record numbers"),
        }
    }
}

impl std::error::Error for RecordError {}

impl From<RecordError> for ReadError {
    fn from(error: RecordError) -> Self {
        ReadError::Record(error.to_string())
    }
}

/// A key of AES-256-GCM with Noise's nonces.
pub(crate) struct Key(Box<LessSafeKey>);

impl Key {
    pub(crate) fn new(key: &[u8; 32]) -> Option<Self> {
        UnboundKey::new(&AES_256_GCM, key).ok().map(|key| Key(Box::new(LessSafeKey::new(key))))
    }

    /// Encrypts in place; gives the tag. The caller uses each number once.
    pub(crate) fn seal(&self, number: u64, with: &[u8], text: &mut [u8]) -> Result<[u8; TAG], RecordError> {
        let tag = self.0.seal_in_place_separate_tag(nonce(number), Aad::from(with), text);
        tag.ok().and_then(|tag| tag.as_ref().try_into().ok()).ok_or(RecordError::Exhausted)
    }

    /// Decrypts in place; gives the text without the tag behind it.
    pub(crate) fn open<'a>(
        &self,
        number: u64,
        with: &[u8],
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], RecordError> {
        self.0.open_in_place(nonce(number), Aad::from(with), sealed).map_err(|_| RecordError::Forged)
    }

    /// The key that follows this one: REKEY of Noise.
    fn next(&self) -> Option<Self> {
        let mut bytes = Zeroizing::new([0; 32]);
        self.seal(u64::MAX, &[], bytes.as_mut_slice()).ok()?;
        Key::new(&bytes)
    }
}

fn nonce(number: u64) -> Nonce {
    let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
    Nonce::assume_unique_for_key([0, 0, 0, 0, a, b, c, d, e, f, g, h])
}

/// A key and the number of the next record.
struct Counted {
    key: Key,
    number: u64,
}

impl Counted {
    fn new(key: Key) -> Self {
        Counted { key, number: 0 }
    }

    /// The number of the next record; the last one of all is kept for new keys.
    fn number(&self) -> Result<u64, RecordError> {
        if self.number < u64::MAX { Ok(self.number) } else { Err(RecordError::Exhausted) }
    }

    fn advance(&mut self) -> Result<(), RecordError> {
        self.number += 1;
        if self.number.is_multiple_of(REKEY_AFTER) {
            self.key = self.key.next().ok_or(RecordError::Exhausted)?;
        }
        Ok(())
    }

    fn seal(&mut self, text: &mut [u8]) -> Result<[u8; TAG], RecordError> {
        let tag = self.key.seal(self.number()?, &[], text)?;
        self.advance()?;
        Ok(tag)
    }

    fn open(&mut self, sealed: &mut [u8]) -> Result<usize, RecordError> {
        let len = self.key.open(self.number()?, &[], sealed)?.len();
        self.advance()?;
        Ok(len)
    }
}

/// The writer's half.
pub(crate) enum Sealer {
    Plaintext,
    Noise(Sealing),
}

/// Makes records.
pub(crate) struct Sealing {
    key: Counted,
    sealed: Vec<u8>,
}

impl Sealer {
    pub(crate) fn new(key: Option<Key>) -> Self {
        match key {
            None => Sealer::Plaintext,
            Some(key) => Sealer::Noise(Sealing { key: Counted::new(key), sealed: Vec::new() }),
        }
    }

    /// The memory that is kept for records.
    pub(crate) fn capacity(&self) -> usize {
        match self {
            Sealer::Plaintext => 0,
            Sealer::Noise(sealing) => sealing.sealed.capacity(),
        }
    }

    /// Frees that memory.
    pub(crate) fn shrink(&mut self) {
        if let Sealer::Noise(sealing) = self {
            sealing.sealed = Vec::new();
        }
    }

    /// Appends what goes to the socket for a whole batch.
    pub(crate) fn append(&mut self, batch: &Batch, out: &mut Vec<u8>) -> Result<(), RecordError> {
        let Sealer::Noise(sealing) = self else {
            batch.copy(0..batch.len(), out);
            return Ok(());
        };
        let mut at = 0;
        while at < batch.len() {
            let (sealed, next) = sealing.seal(batch, at)?;
            out.extend_from_slice(sealed);
            at = next;
        }
        Ok(())
    }
}

impl Sealing {
    #[cfg(any(test, fuzzing))]
    pub(crate) fn go_on_at(&mut self, number: u64) {
        self.key.number = number;
    }

    /// Seals the bytes of a batch from `from` on, as many as one write takes. Returns the records, and
    /// where the next ones begin.
    pub(crate) fn seal(&mut self, batch: &Batch, from: usize) -> Result<(&[u8], usize), RecordError> {
        self.sealed.clear();
        let until = batch.len().min(from + WRITE);
        let mut at = from;
        while at < until {
            let end = until.min(at + FILL);
            let len = (end - at + TAG) as u16; // FILL + TAG fits.
            self.sealed.extend_from_slice(&len.to_le_bytes());
            let start = self.sealed.len();
            batch.copy(at..end, &mut self.sealed);
            let text = self.sealed.get_mut(start..).unwrap_or_default();
            let tag = self.key.seal(text)?;
            self.sealed.extend_from_slice(&tag);
            at = end;
        }
        Ok((&self.sealed, at))
    }
}

/// The reader's half: reads records from the socket and gives what is in them.
pub(crate) enum Opener<R> {
    Plaintext(R),
    Noise(Opening<R>),
}

/// Opens records.
pub(crate) struct Opening<R> {
    source: R,
    key: Counted,
    buffer: ReadBuffer,
    /// The bytes that were opened and not given out, if not empty: in the record at the front of the buffer.
    open: Range<usize>,
    broken: Option<RecordError>,
}

impl<R: Read> Opener<R> {
    pub(crate) fn new(source: R, key: Option<Key>) -> Self {
        match key {
            None => Opener::Plaintext(source),
            Some(key) => Opener::Noise(Opening {
                source,
                key: Counted::new(key),
                buffer: ReadBuffer::new(MAX_BUFFER),
                open: 0..0,
                broken: None,
            }),
        }
    }
}

impl<R: Read> Source for Opener<R> {
    fn read(&mut self, to: &mut [u8]) -> Result<Got, ReadError> {
        match self {
            Opener::Plaintext(source) => read_once(source, to).map(Got::plain),
            Opener::Noise(opening) => {
                let mut given = 0;
                opening.read(to.len(), |bytes| {
                    if let Some(room) = to.get_mut(given..given + bytes.len()) {
                        room.copy_from_slice(bytes);
                    }
                    given += bytes.len();
                })
            }
        }
    }

    fn read_into(&mut self, memory: &mut Vec<u8>, filled: usize, until: usize) -> Result<Got, ReadError> {
        match self {
            Opener::Plaintext(source) => source.read_into(memory, filled, until),
            Opener::Noise(opening) => {
                let mut at = filled;
                opening.read(until - filled, |bytes| {
                    overwrite(memory, at, bytes);
                    at += bytes.len();
                })
            }
        }
    }

    fn holds_back(&self) -> bool {
        match self {
            Opener::Plaintext(_) => false,
            Opener::Noise(opening) => !opening.buffer.is_empty(),
        }
    }

    fn shrink(&mut self) {
        if let Opener::Noise(opening) = self {
            opening.buffer.shrink();
        }
    }
}

impl<R: Read> Opening<R> {
    /// Returns what is there already if there is anything, or else what one read of the socket brings; at
    /// most `room` bytes.
    pub(crate) fn read(&mut self, room: usize, mut give: impl FnMut(&[u8])) -> Result<Got, ReadError> {
        let given = self.give(room, &mut give)?;
        if given > 0 {
            return Ok(Got { bytes: given, received: 0 });
        }
        let received = read_once(&mut self.source, self.buffer.room())?;
        if received == 0 {
            return if self.buffer.is_empty() { Ok(Got::plain(0)) } else { Err(ReadError::Torn) };
        }
        self.buffer.filled(received);
        Ok(Got { bytes: self.give(room, &mut give)?, received })
    }

    /// Opens as many records as there are and there is room for.
    fn give(&mut self, room: usize, give: &mut impl FnMut(&[u8])) -> Result<usize, RecordError> {
        let mut given = 0;
        loop {
            let piece = self.open.start..self.open.end.min(self.open.start + room - given);
            given += piece.len();
            self.open.start = piece.end;
            self.buffer
                .waiting()
                .get(piece)
                .filter(|piece| !piece.is_empty())
                .into_iter()
                .for_each(&mut *give);
            if self.open.is_empty() && self.open.end > 0 {
                self.buffer.consume(self.open.end + TAG);
                self.open = 0..0;
            }
            if given == room {
                return Ok(given);
            }
            match self.open_next() {
                Ok(true) => {}
                // Bytes before a broken record are still given out.
                Ok(false) | Err(_) if given > 0 => return Ok(given),
                Ok(false) => return Ok(0),
                Err(error) => return Err(error),
            }
        }
    }

    /// Opens the next record in place, if all of it is there. The one before it has been given out.
    fn open_next(&mut self) -> Result<bool, RecordError> {
        if let Some(error) = self.broken {
            return Err(error);
        }
        let Some((length, behind)) = self.buffer.waiting_mut().split_first_chunk_mut::<LENGTH>() else {
            return Ok(false);
        };
        let len = usize::from(u16::from_le_bytes(*length));
        if len <= TAG {
            return Err(*self.broken.insert(RecordError::Short(len)));
        }
        let Some(sealed) = behind.get_mut(..len) else { return Ok(false) };
        match self.key.open(sealed) {
            Ok(opened) => {
                self.open = LENGTH..LENGTH + opened;
                Ok(true)
            }
            Err(error) => Err(*self.broken.insert(error)),
        }
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn go_on_at(&mut self, number: u64) {
        self.key.number = number;
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn memory(&self) -> usize {
        self.buffer.capacity()
    }
}
