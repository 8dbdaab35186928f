//! The messages of a lane that wait for the application.
//!
//! Most of them lie whole in the chunk in which they came, one behind the other. The inbox keeps that chunk
//! once, and where a run of them begins: each one's length is read from its header when it is taken.
//! References to the chunk are counted by the thread that takes the messages, and not by the reader too.
//!
//! Invariant: messages and bodies are in the order in which they came, and the bodies know how many of their
//! messages wait. So the first message lies in the first body.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

use super::Ticket;
use crate::id::Incarnation;
use crate::message::Payload;
use crate::wire::stream::{MessageKind, message_lens};

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

/// A message, and those that lie behind it in its chunk. Kept small: there may be a hundred thousand.
#[derive(Debug)]
struct Waiting {
    kind: MessageKind,
    number: u64,
    /// Where its payload lies in its chunk.
    from: u32,
    to: u32,
    /// How many messages lie behind it: of kind [`Message`](MessageKind::Message), as it is, if there are
    /// any.
    behind: u32,
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
    /// How many messages that are.
    len: usize,
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
        self.len += 1;
        match received {
            Received::Whole(chunk, range) => {
                // Chunks are below 2 MiB.
                let (from, to) = (range.start as u32, range.end as u32);
                self.messages.push_back(Waiting { kind, number, from, to, behind: 0 });
                self.add_to_body(chunk, 1, epoch, incarnation);
            }
            Received::Pieces(payload) => {
                self.messages.push_back(Waiting { kind, number, from: 0, to: 0, behind: 0 });
                self.bodies.push_back(Body { content: Content::Own(payload), epoch, incarnation });
            }
        }
    }

    /// Adds `count` messages of kind [`Message`](MessageKind::Message) that begin at `at` in `chunk`. `first`
    /// is the ticket of the first one.
    pub(super) fn push_run(
        &mut self,
        chunk: &Bytes,
        at: usize,
        count: usize,
        first: Ticket,
        incarnation: Incarnation,
    ) {
        self.len += count;
        let from = (at + MessageKind::Message.header_len()) as u32;
        self.messages.push_back(Waiting {
            kind: MessageKind::Message,
            number: first.number,
            from,
            to: from + first.bytes,
            behind: count as u32 - 1,
        });
        self.add_to_body(chunk, count as u32, first.epoch, incarnation);
    }

    fn add_to_body(&mut self, chunk: &Bytes, messages: u32, epoch: u32, incarnation: Incarnation) {
        // Both are kept, so the same memory is the same chunk.
        if let Some(Content::Chunk(last, count)) = self.bodies.back_mut().map(|last| &mut last.content)
            && last.as_ptr_range() == chunk.as_ptr_range()
        {
            *count += messages;
            return;
        }
        let content = Content::Chunk(chunk.clone(), messages);
        self.bodies.push_back(Body { content, epoch, incarnation });
    }

    /// Whether the next message may be worthless by now.
    pub(super) fn next_expires(&self) -> bool {
        self.messages.front().is_some_and(|next| matches!(next.kind, MessageKind::Expiring { .. }))
    }

    pub(super) fn pop(&mut self) -> Option<Arrived> {
        let mut popped = None;
        self.pop_run(1, |arrived| popped = Some(arrived));
        popped
    }

    /// Takes the next message out, and those that lie behind it, `most` at most. Returns how many there were,
    /// and the ticket of the first one with the bytes of all. `most` is at least 1.
    pub(super) fn pop_run(&mut self, most: usize, mut give: impl FnMut(Arrived)) -> Option<(usize, Ticket)> {
        let next = self.messages.front_mut()?;
        let Body { content, epoch, incarnation } = self.bodies.front_mut()?;
        let (kind, number, epoch, incarnation) = (next.kind, next.number, *epoch, *incarnation);
        let messages = most.min(1 + next.behind as usize);
        let mut all = Ticket { number, epoch, bytes: 0 };
        let mut give = |payload: Payload, number| {
            let ticket = Ticket { number, epoch, bytes: payload.len() as u32 };
            all.bytes += ticket.bytes;
            give(Arrived { kind, payload, ticket, incarnation });
        };
        let is_last = match content {
            Content::Chunk(chunk, count) => {
                let (mut from, mut to) = (next.from as usize, next.to as usize);
                for index in 0..messages {
                    give(chunk.slice(from..to).into(), number + index as u64);
                    if index < next.behind as usize {
                        let len = chunk.get(to..).and_then(|rest| message_lens(rest).next());
                        from = to + MessageKind::Message.header_len();
                        to += len.unwrap_or_default();
                    }
                }
                (next.from, next.to) = (from as u32, to as u32);
                *count -= messages as u32;
                *count == 0
            }
            Content::Own(payload) => {
                give(std::mem::take(payload), number);
                true
            }
        };
        if messages > next.behind as usize {
            self.messages.pop_front();
        } else {
            next.number += messages as u64;
            next.behind -= messages as u32;
        }
        if is_last {
            self.bodies.pop_front();
        }
        self.len -= messages;
        Some((messages, all))
    }

    pub(super) fn len(&self) -> usize {
        self.len
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
        let messages: usize = self.messages.iter().map(|first| 1 + first.behind as usize).sum();
        assert_eq!(self.len, messages);
        assert_eq!(self.len, self.bodies.iter().map(count).sum::<usize>());
        assert!(self.bodies.iter().all(|body| count(body) > 0));
    }
}
