//! The messages of a lane that wait for the application.
//!
//! Most of them lie whole in the chunk in which they came. The inbox keeps that chunk once, and for each
//! message the place in it: references to the chunk are counted by the thread that takes the messages, and
//! not by the reader too.
//!
//! Invariant: messages and bodies are in the order in which they came, and the bodies know how many of their
//! messages wait. So the first message lies in the first body.

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

/// Kept small: there may be a hundred thousand.
#[derive(Debug)]
struct Waiting {
    kind: MessageKind,
    number: u64,
    /// Where it lies in its chunk.
    from: u32,
    to: u32,
}

/// What messages lie in that came one after the other.
#[derive(Debug)]
struct Body {
    content: Content,
    epoch: u32,
    incarnation: Incarnation,
}

#[derive(Debug)]
enum Content {
    /// A chunk, and how many of its messages wait.
    Chunk(Bytes, u32),
    /// One message.
    Own(Payload),
}

#[derive(Debug, Default)]
pub(super) struct Inbox {
    messages: VecDeque<Waiting>,
    bodies: VecDeque<Body>,
}

impl Inbox {
    pub(super) fn push(
        &mut self,
        kind: MessageKind,
        received: Received<'_>,
        ticket: Ticket,
        incarnation: Incarnation,
    ) {
        let Ticket { number, epoch, .. } = ticket;
        let (from, to) = match &received {
            Received::Whole(_, range) => (range.start as u32, range.end as u32), // Chunks are below 2 MiB.
            Received::Pieces(_) => (0, 0),
        };
        self.messages.push_back(Waiting { kind, number, from, to });
        let content = match received {
            Received::Whole(chunk, _) => {
                // Both are kept, so the same memory is the same chunk.
                if let Some(Content::Chunk(last, count)) =
                    self.bodies.back_mut().map(|last| &mut last.content)
                    && last.as_ptr_range() == chunk.as_ptr_range()
                {
                    *count += 1;
                    return;
                }
                Content::Chunk(chunk.clone(), 1)
            }
            Received::Pieces(payload) => Content::Own(payload),
        };
        self.bodies.push_back(Body { content, epoch, incarnation });
    }

    pub(super) fn pop(&mut self) -> Option<Arrived> {
        let Waiting { kind, number, from, to } = self.messages.pop_front()?;
        let Body { content, epoch, incarnation } = self.bodies.front_mut()?;
        let (epoch, incarnation) = (*epoch, *incarnation);
        let (payload, is_last) = match content {
            Content::Chunk(chunk, count) => {
                *count -= 1;
                (chunk.slice(from as usize..to as usize).into(), *count == 0)
            }
            Content::Own(payload) => (std::mem::take(payload), true),
        };
        if is_last {
            self.bodies.pop_front();
        }
        let ticket = Ticket { number, epoch, bytes: payload.len() as u32 };
        Some(Arrived { kind, payload, ticket, incarnation })
    }

    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// Frees memory for more than so many messages, if no more wait.
    pub(super) fn shrink_to(&mut self, messages: usize) {
        self.messages.shrink_to(messages);
        self.bodies.shrink_to(messages);
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn check(&self) {
        let count = |body: &Body| match body.content {
            Content::Chunk(_, count) => count as usize,
            Content::Own(_) => 1,
        };
        assert_eq!(self.messages.len(), self.bodies.iter().map(count).sum::<usize>());
        assert!(self.bodies.iter().all(|body| count(body) > 0));
    }
}
