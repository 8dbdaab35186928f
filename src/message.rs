//! The bytes of a message as they arrived: one piece or several, never copied together unless asked.

use std::collections::VecDeque;
use std::io;

use bytes::{Buf, Bytes, BytesMut};

use crate::codec::{Codec, CodecError};

/// The content of a received message.
///
/// A small message is one piece. A large one is a list of the pieces in which it came from the
/// network (very small ones are joined): [`Payload::pieces`] reads them without a copy,
/// [`Payload::into_bytes`] joins them (one copy, unless there is only one piece). A message shares memory
/// with what came beside it in the same chunk, up to 1 MiB, as long as it is a [`Message`](crate::Message) or
/// a payload. [`Payload::into_bytes`] copies one of less than 4 KiB out of it; an application that keeps many
/// larger ones for long copies them itself.
#[derive(Clone, Debug, Default)]
pub struct Payload {
    first: Bytes,
    /// In a box, because most messages have no more than one piece.
    rest: Option<Box<Rest>>,
}

/// The pieces behind the first one: at least one.
#[derive(Clone, Debug, Default)]
struct Rest {
    pieces: VecDeque<Bytes>,
    len: usize,
}

impl Payload {
    pub(crate) fn push(&mut self, piece: Bytes) {
        let len = piece.len();
        let last = match &mut self.rest {
            Some(rest) => {
                rest.len += len;
                rest.pieces.back_mut().unwrap_or(&mut self.first)
            }
            None => &mut self.first,
        };
        if last.is_empty() {
            *last = piece;
        } else if last.len() + len <= Self::JOIN_UP_TO {
            *last = [last.as_ref(), piece.as_ref()].concat().into();
        } else if !piece.is_empty() {
            let rest = self.rest.get_or_insert_with(|| Box::new(Rest { pieces: VecDeque::new(), len }));
            rest.pieces.push_back(piece);
        }
    }

    /// Neighbours that are together no longer than this are copied together. A piece costs about 100
    /// bytes beside its content, so without this a peer that cuts its messages into single bytes would
    /// cost a hundred times the window that it was given.
    const JOIN_UP_TO: usize = 1024;

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.first.len() + self.rest.as_ref().map_or(0, |rest| rest.len)
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pieces in order.
    pub fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        std::iter::once(&self.first)
            .filter(|piece| !piece.is_empty())
            .chain(self.rest.iter().flat_map(|rest| rest.pieces.iter()))
    }

    /// All bytes in one piece.
    pub fn into_bytes(self) -> Bytes {
        if self.rest.is_none() {
            let is_small = self.first.len() < Self::COPY_BELOW;
            return if is_small { Bytes::copy_from_slice(&self.first) } else { self.first };
        }
        let mut whole = BytesMut::with_capacity(self.len());
        self.pieces().for_each(|piece| whole.extend_from_slice(piece));
        whole.freeze()
    }

    /// Decodes a typed message by [`Bincode`](crate::codec::Bincode).
    ///
    /// # Errors
    /// When the content is not a whole `M`.
    #[cfg(feature = "bincode")]
    pub fn decode<M: serde::de::DeserializeOwned>(mut self) -> Result<M, CodecError> {
        crate::codec::decode(self.as_contiguous())
    }

    /// Decodes a typed message by `codec`.
    ///
    /// # Errors
    /// Those of the codec.
    pub fn decode_with<M>(mut self, codec: &impl Codec<M>) -> Result<M, CodecError> {
        codec.decode(self.as_contiguous())
    }

    /// Takes the first of the pieces behind the first one.
    fn next_piece(&mut self) -> Bytes {
        let next = self.rest.as_mut().and_then(|rest| {
            let next = rest.pieces.pop_front()?;
            rest.len -= next.len();
            Some(next)
        });
        self.rest.take_if(|rest| rest.pieces.is_empty());
        next.unwrap_or_default()
    }

    /// All bytes in one piece, which afterwards is the only one.
    pub(crate) fn as_contiguous(&mut self) -> &[u8] {
        if self.rest.is_some() {
            self.first = std::mem::take(self).into_bytes();
        }
        &self.first
    }

    /// Below this size a message that is taken out is copied: otherwise one that the application keeps would
    /// keep the whole chunk with it.
    const COPY_BELOW: usize = 4096;
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Payload { first: bytes, rest: None }
    }
}

impl PartialEq<[u8]> for Payload {
    fn eq(&self, other: &[u8]) -> bool {
        let mut rest = other;
        self.len() == other.len()
            && self.pieces().all(|piece| match rest.split_at_checked(piece.len()) {
                Some((front, behind)) => {
                    rest = behind;
                    front == piece
                }
                None => false,
            })
    }
}

impl Buf for Payload {
    fn remaining(&self) -> usize {
        self.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.first
    }

    fn advance(&mut self, mut count: usize) {
        count = count.min(self.len());
        while count >= self.first.len() && count > 0 {
            count -= self.first.len();
            self.first = self.next_piece();
        }
        self.first.advance(count);
        if self.first.is_empty() {
            self.first = self.next_piece();
        }
    }
}

impl io::Read for Payload {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let count = to.len().min(self.len());
        if let Some(to) = to.get_mut(..count) {
            self.copy_to_slice(to);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_joined_and_slices_are_not() {
        let whole: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        let whole = Bytes::from(whole);
        let mut tiny = Payload::default();
        (0..whole.len()).for_each(|at| tiny.push(whole.slice(at..at + 1)));
        assert!(tiny == whole[..]);
        assert!(tiny.pieces().count() <= 100_000 / 1024 + 1);
        let mut slices = Payload::default();
        (0..50).for_each(|at| slices.push(whole.slice(at * 2000..at * 2000 + 2000)));
        assert!(slices == whole[..]);
        assert!(slices.pieces().enumerate().all(|(at, piece)| piece.as_ptr() == whole[at * 2000..].as_ptr()));
    }

    #[test]
    fn pieces_read_like_one() {
        let whole: Vec<u8> = (0..100).collect();
        for cut in 0..=100 {
            let mut payload = Payload::default();
            payload.push(Bytes::copy_from_slice(&whole[..cut]));
            payload.push(Bytes::copy_from_slice(&whole[cut..]));
            assert!(payload == whole[..]);
            assert!(payload != whole[1..]);
            assert_eq!(payload.clone().into_bytes(), whole);
            let mut read = Vec::new();
            io::Read::read_to_end(&mut payload, &mut read).unwrap();
            assert_eq!(read, whole);
        }
    }
}
