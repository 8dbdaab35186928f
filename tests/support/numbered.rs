//! Messages that say which they are and prove that they are whole, and a checker that holds a lane to
//! exactly once, in order, with the right content.

use std::collections::HashMap;

use bytes::Bytes;
use unbroken::LaneId;

/// The shortest numbered message: stream, number, checksum.
pub const MIN_LEN: usize = 24;

/// Message number `seq` of a stream, `len` bytes long, at least [`MIN_LEN`]. Every byte is determined by the
/// three arguments.
pub fn message(stream: u64, seq: u64, len: usize) -> Bytes {
    assert!(len >= MIN_LEN, "a numbered message has {MIN_LEN} bytes or more");
    let mut bytes = Vec::with_capacity(len + 8);
    bytes.extend_from_slice(&stream.to_le_bytes());
    bytes.extend_from_slice(&seq.to_le_bytes());
    let mut words = Words::new(stream, seq, len);
    while bytes.len() < len {
        bytes.extend_from_slice(&words.next().to_le_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}

/// The stream and number of a message, if all of it is as it was sent.
///
/// # Errors
///
/// Says what is wrong with it.
pub fn read(bytes: &[u8]) -> Result<(u64, u64), String> {
    let word = |range: std::ops::Range<usize>| {
        let bytes = bytes.get(range)?.try_into().ok()?;
        Some(u64::from_le_bytes(bytes))
    };
    let (Some(stream), Some(seq)) = (word(0..8), word(8..16)) else {
        return Err(format!("{} bytes are no numbered message", bytes.len()));
    };
    let mut words = Words::new(stream, seq, bytes.len());
    for (index, piece) in bytes.get(16..).unwrap_or_default().chunks(8).enumerate() {
        if words.next().to_le_bytes().get(..piece.len()) != Some(piece) {
            let at = 16 + 8 * index;
            return Err(format!("message {seq} of stream {stream:#x} is damaged near byte {at}"));
        }
    }
    Ok((stream, seq))
}

/// splitmix64: every word depends on all arguments, so a message of another length, or a piece of
/// another message, is told at its first word.
struct Words(u64);

impl Words {
    fn new(stream: u64, seq: u64, len: usize) -> Self {
        let mut words = Words(stream);
        words.0 = words.next() ^ seq;
        words.0 = words.next() ^ len as u64;
        words
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}

/// Expects each stream on each lane to count 0, 1, 2...
#[derive(Debug, Default)]
pub struct Checker {
    next: HashMap<(LaneId, u64), u64>,
    /// Messages taken so far, right or wrong.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The errors.
    pub errors: Vec<String>,
}

impl Checker {
    pub fn take(&mut self, lane: LaneId, bytes: &[u8]) {
        self.messages += 1;
        self.bytes += bytes.len() as u64;
        match read(bytes) {
            Err(error) => self.errors.push(format!("{lane}: {error}")),
            Ok((stream, seq)) => {
                let next = self.next.entry((lane, stream)).or_default();
                if seq != *next {
                    let kind = if seq < *next { "again" } else { "too early" };
                    let text = format!("{lane}, stream {stream:#x}: {seq} came {kind}, expected {next}");
                    self.errors.push(text);
                }
                *next = (*next).max(seq + 1);
            }
        }
    }

    /// How many messages of this stream have come.
    pub fn count(&self, lane: LaneId, stream: u64) -> u64 {
        self.next.get(&(lane, stream)).copied().unwrap_or(0)
    }
}
