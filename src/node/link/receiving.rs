//! The link as the mailbox and the messages that were taken from it use it.

use std::cell::Cell;
use std::sync::Arc;

use crate::conn::ConnHandle;
use crate::error::SendError;
use crate::id::PeerId;
use crate::link::Ticket;
use crate::node::budget::Wait;
use crate::node::event::Event;
use crate::node::mailbox::{Source, Taken};
use crate::node::message::{Message, Origin};
use crate::node::outgoing::Outgoing;
use crate::receipt::Receipt;
use crate::sync::atomic::AtomicU64;
use crate::wire::stream::MessageKind;

use super::{Intent, LinkHandle, allowance};

impl Source for LinkHandle {
    fn peer(&self) -> PeerId {
        self.peer
    }

    fn listed(&self) -> &AtomicU64 {
        &self.listed
    }

    fn take(self: Arc<Self>, lane: usize, max: usize, taken: Taken<'_>) -> bool {
        match taken {
            Taken::Events(taken) => self.take_as(lane, max, taken, Event::Message),
            Taken::Messages(taken) => self.take_as(lane, max, taken, |message| message),
        }
    }
}

impl LinkHandle {
    fn take_as<T>(
        self: &Arc<Self>,
        lane: usize,
        max: usize,
        taken: &mut Vec<T>,
        item: impl Fn(Message) -> T,
    ) -> bool {
        let more = Cell::new(false);
        // With the last one of those that came together this thread acknowledges them itself.
        let see_to = |conn: &Arc<ConnHandle>| match more.get() {
            true => conn.wake(),
            false => allowance::write_now(conn, self),
        };
        self.with_writers(see_to, |core, now, output| {
            let (id, ack_mode) = (core.link.lane_id(lane), core.link.ack_mode(lane));
            taken.reserve(core.link.inbox_len(lane).min(max));
            core.link.take_run(lane, max, now, output, |next| {
                taken.push(item(Message {
                    origin: Arc::clone(self) as Arc<dyn Origin>,
                    lane: id,
                    index: lane as u8, // No more than 64.
                    incarnation: next.incarnation,
                    payload: next.payload,
                    request: match next.kind {
                        MessageKind::Request { id, .. } => Some(id),
                        _ => None,
                    },
                    ticket: next.ticket,
                    ack_mode,
                }));
            });
            more.set(core.link.inbox_len(lane) > 0);
        });
        more.get()
    }
}

impl Origin for LinkHandle {
    fn peer(&self) -> PeerId {
        self.peer
    }

    fn reply(
        self: Arc<Self>,
        request: u64,
        ticket: Ticket,
        reply: Outgoing,
        wait: Wait,
    ) -> Result<Receipt, SendError> {
        self.send(reply, Intent::Reply { request, ticket }, wait).map(|(receipt, _)| receipt)
    }

    fn is_request_open(&self, request: u64, ticket: Ticket) -> bool {
        self.inspect(|core| core.link.is_request_open(request, ticket))
    }

    fn abandon(&self, request: u64, ticket: Ticket) {
        self.update(|core| core.link.abandon(request, ticket));
    }

    fn done(self: Arc<Self>, lane: usize, ticket: Ticket) {
        self.with_writing(|core, now, output| core.link.done(lane, ticket, now, output));
    }
}
