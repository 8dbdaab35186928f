//! The stream of a lane: message headers, and a parser that finds the messages again however the
//! stream was cut into chunks.

use std::fmt;
use std::ops::Range;

use bytes::{Buf, Bytes};

use crate::message::Payload;

/// The purpose of a message in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MessageKind {
    Message,
    /// Expects a reply that names `id`; the requester waits `wait_ms` from when it was sent.
    Request {
        id: u64,
        wait_ms: u32,
    },
    Reply {
        id: u64,
    },
    /// A message that is worth nothing from this time of its sender's clock on, in milliseconds.
    Expiring {
        at: u64,
    },
}

impl MessageKind {
    pub(crate) fn header_len(self) -> usize {
        match self {
            MessageKind::Message => 4,
            MessageKind::Request { .. } => 16,
            MessageKind::Reply { .. } | MessageKind::Expiring { .. } => 12,
        }
    }
}

/// The longest header: a request's.
pub(crate) const MAX_HEADER: usize = 16;
/// The format's greatest payload: 28 bits of length.
pub(crate) const MAX_PAYLOAD: usize = (1 << 28) - 1;

/// A message header in its wire form, as short as its kind allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    bytes: [u8; MAX_HEADER],
    len: u8,
}

impl Header {
    pub(crate) fn new(kind: MessageKind, payload_len: usize) -> Self {
        debug_assert!(payload_len <= MAX_PAYLOAD);
        let (tag, id, wait) = match kind {
            MessageKind::Message => (0u32, 0, 0),
            MessageKind::Request { id, wait_ms } => (1, id, wait_ms),
            MessageKind::Reply { id } => (2, id, 0),
            MessageKind::Expiring { at } => (3, at, 0),
        };
        let word = (tag << 28) | payload_len as u32;
        // Word, id or time, and time to wait, one behind the other.
        let bytes = (u128::from(word) | u128::from(id) << 32 | u128::from(wait) << 96).to_le_bytes();
        Header { bytes, len: kind.header_len() as u8 }
    }

    /// That of a [`MessageKind::Message`] in its wire form.
    pub(crate) fn of_message(payload_len: usize) -> [u8; 4] {
        debug_assert!(payload_len <= MAX_PAYLOAD);
        (payload_len as u32).to_le_bytes()
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&self.bytes)
    }
}

/// Returns the lengths, with their headers, of [messages](MessageKind::Message) that lie one behind the
/// other.
pub(crate) fn message_lens(mut messages: &[u8]) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let header = messages.first_chunk::<4>()?;
        // With 32 bits the sum may be too much.
        let len = header.len().checked_add(u32::from_le_bytes(*header) as usize)?;
        messages = messages.get(len..)?;
        Some(len)
    })
}

/// [Messages](MessageKind::Message) that lie one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MessageRun {
    pub(crate) messages: usize,
    /// Their length, with their headers.
    pub(crate) bytes: usize,
    /// The length of the first one's payload.
    pub(crate) first: usize,
}

impl MessageRun {
    pub(crate) fn payload_bytes(self) -> usize {
        self.bytes - self.messages * MessageKind::Message.header_len()
    }
}

/// The stream does not hold messages, or one that is too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamError {
    UnknownKind(u8),
    TooLarge { len: usize, max: usize },
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StreamError::UnknownKind(kind) => write!(f, "message of unknown kind {kind}"),
            StreamError::TooLarge { len, max } => {
                write!(f, "message of {len} bytes, at most {max} were agreed")
            }
        }
    }
}

/// Finds the messages in a lane's stream. Keeps the unfinished one; its memory grows only with the
/// bytes that arrived.
#[derive(Debug)]
pub(crate) struct Parser {
    max_message: usize,
    header: [u8; MAX_HEADER],
    have: usize,
    body: Option<(MessageKind, usize, Payload)>,
}

impl Parser {
    pub(crate) fn new(max_message: usize) -> Self {
        Parser { max_message, header: [0; MAX_HEADER], have: 0, body: None }
    }

    /// Takes the next bytes of the stream out of `data`, up to the end of one message or of `data`.
    /// Returns the message if it is whole. An error is final: the same one comes back ever after.
    pub(crate) fn next(&mut self, data: &mut Bytes) -> Result<Option<(MessageKind, Payload)>, StreamError> {
        if self.body.is_none() && !self.read_header(data)? {
            return Ok(None);
        }
        let Some((_, missing, payload)) = &mut self.body else { return Ok(None) };
        let take = data.len().min(*missing);
        if take > 0 {
            payload.push(data.split_to(take));
            *missing -= take;
        }
        if *missing > 0 {
            return Ok(None);
        }
        self.have = 0;
        Ok(self.body.take().map(|(kind, _, payload)| (kind, payload)))
    }

    /// The [messages](MessageKind::Message) that lie whole at the front of `data`, `most` at most, if nothing
    /// of the first one came before. What is behind them is left to the other calls, errors too.
    pub(crate) fn run(&self, data: &[u8], most: usize) -> MessageRun {
        let mut run = MessageRun { messages: 0, bytes: 0, first: 0 };
        if self.have > 0 || self.body.is_some() {
            return run;
        }
        let header = MessageKind::Message.header_len();
        // The length of one of another kind has bits that are above every maximum.
        for len in message_lens(data).take(most).take_while(|len| len - header <= self.max_message) {
            run.first = if run.messages == 0 { len - header } else { run.first };
            run.messages += 1;
            run.bytes += len;
        }
        run
    }

    /// The next message, if it lies whole in `data` and nothing of it came before: its kind, and where its
    /// payload is. An error is as final as that of [`Parser::next`].
    pub(crate) fn whole(&self, data: &[u8]) -> Result<Option<(MessageKind, Range<usize>)>, StreamError> {
        if self.have > 0 || self.body.is_some() || data.len() < 4 {
            return Ok(None);
        }
        let header = match data.first_chunk() {
            Some(header) => *header,
            None => {
                let mut header = [0; MAX_HEADER];
                header.iter_mut().zip(data).for_each(|(to, from)| *to = *from);
                header
            }
        };
        let (kind, len) = self.decode_header(&header)?;
        let start = kind.header_len();
        Ok((start + len <= data.len()).then_some((kind, start..start + len)))
    }

    /// The kind and the length that the first word says; the rest counts only if it is there.
    fn decode_header(&self, header: &[u8; MAX_HEADER]) -> Result<(MessageKind, usize), StreamError> {
        let [w0, w1, w2, w3, id @ .., a0, a1, a2, a3] = *header;
        let word = u32::from_le_bytes([w0, w1, w2, w3]);
        let id = u64::from_le_bytes(id);
        let kind = match word >> 28 {
            0 => MessageKind::Message,
            1 => MessageKind::Request { id, wait_ms: u32::from_le_bytes([a0, a1, a2, a3]) },
            2 => MessageKind::Reply { id },
            3 => MessageKind::Expiring { at: id },
            tag => return Err(StreamError::UnknownKind(tag as u8)),
        };
        let len = (word & MAX_PAYLOAD as u32) as usize;
        if len > self.max_message {
            return Err(StreamError::TooLarge { len, max: self.max_message });
        }
        Ok((kind, len))
    }

    /// True when the header is complete and `body` stands ready.
    fn read_header(&mut self, data: &mut Bytes) -> Result<bool, StreamError> {
        // A header may have been cut anywhere, so more of it than its first word may be here already.
        let mut need = self.have.max(4);
        loop {
            let Some(missing) = self.header.get_mut(self.have..need) else { return Ok(false) };
            let take = missing.len().min(data.len());
            if let Some(missing) = missing.get_mut(..take) {
                data.copy_to_slice(missing);
            }
            self.have += take;
            if self.have < need {
                return Ok(false);
            }
            let (kind, len) = self.decode_header(&self.header)?;
            need = kind.header_len();
            if self.have == need {
                self.body = Some((kind, len, Payload::default()));
                return Ok(true);
            }
        }
    }
}
