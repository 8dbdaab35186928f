//! The messages of a lane that wait for the application.
//!
//! Most of them lie whole in the chunk in which they came. The inbox keeps that chunk once, and for each
//! message the place in it: references to the chunk are counted by the thread that takes the messages, and
//! not by the reader too.
//!
//! Invariant: messages and chunks are in the order in which they came, and `chunks` holds for each chunk how
//! many of its messages wait. So the first message that lies in a chunk lies in the first chunk.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

use super::Ticket;
use crate::id::Incarnation;
use crate::message::Payload;
use crate::wire::stream::MessageKind;

/// A whole message that waits for the application.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) kind: MessageKind,
    pub(crate) payload: Payload,
    pub(crate) ticket: Ticket,
    /// Which life of the peer sent it.
    pub(crate) incarnation: Incarnation,
}

/// The payload of a message that was just received.
#[derive(Debug)]
pub(crate) enum Received<'a> {
    /// It lies in this chunk, there.
    Whole(&'a Bytes, Range<usize>),
    /// It came in several chunks.
    Pieces(Payload),
}

impl Received<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            Received::Whole(_, range) => range.len(),
            Received::Pieces(payload) => payload.len(),
        }
    }

    pub(crate) fn into_payload(self) -> Payload {
        match self {
            Received::Whole(chunk, range) => chunk.slice(range).into(),
            Received::Pieces(payload) => payload,
        }
    }
}

#[derive(Debug)]
struct Waiting {
    kind: MessageKind,
    ticket: Ticket,
    incarnation: Incarnation,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// From and to, in the first chunk when it is the message's turn.
    InChunk(u32, u32),
    Own(Box<Payload>),
}

#[derive(Debug, Default)]
pub(super) struct Inbox {
    messages: VecDeque<Waiting>,
    chunks: VecDeque<(Bytes, usize)>,
}

impl Inbox {
    pub(super) fn push(
        &mut self,
        kind: MessageKind,
        received: Received<'_>,
        ticket: Ticket,
        incarnation: Incarnation,
    ) {
        let content = match received {
            Received::Whole(chunk, range) => {
                let (from, to) = (range.start as u32, range.end as u32); // Chunks are below 2 MiB.
                match self.chunks.back_mut() {
                    // Both are kept, so the same memory is the same chunk.
                    Some((last, count)) if last.as_ptr_range() == chunk.as_ptr_range() => *count += 1,
                    _ => self.chunks.push_back((chunk.clone(), 1)),
                }
                Content::InChunk(from, to)
            }
            Received::Pieces(payload) => Content::Own(Box::new(payload)),
        };
        self.messages.push_back(Waiting { kind, ticket, incarnation, content });
    }

    pub(super) fn pop(&mut self) -> Option<Arrived> {
        let Waiting { kind, ticket, incarnation, content } = self.messages.pop_front()?;
        let payload = match content {
            Content::InChunk(from, to) => {
                let (chunk, count) = self.chunks.front_mut()?;
                *count -= 1;
                let payload = chunk.slice(from as usize..to as usize);
                if *count == 0 {
                    self.chunks.pop_front();
                }
                payload.into()
            }
            Content::Own(payload) => *payload,
        };
        Some(Arrived { kind, payload, ticket, incarnation })
    }

    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// Frees memory for more than so many messages, if no more wait.
    pub(super) fn shrink_to(&mut self, messages: usize) {
        self.messages.shrink_to(messages);
        self.chunks.shrink_to(messages);
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn check(&self) {
        let here = self.messages.iter().filter(|waiting| matches!(waiting.content, Content::InChunk(..)));
        assert_eq!(here.count(), self.chunks.iter().map(|(_, count)| count).sum::<usize>());
        assert!(self.chunks.iter().all(|(_, count)| *count > 0));
    }
}
