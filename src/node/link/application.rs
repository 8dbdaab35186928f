//! What the application does with a link: it sends, takes, answers, and is done.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::{LinkHandle, Waiter};
use crate::error::{SendError, SendErrorKind};
use crate::lane::{LaneId, NORMAL};
use crate::link::{Parcel, Purpose, Refused, Ticket};
use crate::node::budget::{NoRoom, Patience};
use crate::node::message::Message;
use crate::receipt::{OnceCell, Receipt, Token};
use crate::wire::stream::MessageKind;

impl LinkHandle {
    pub(crate) fn send(
        self: &Arc<Self>,
        parcel: Parcel,
        reply_by: Option<Instant>,
        patience: Patience,
    ) -> Result<(Receipt, Option<(u64, Waiter)>), SendError> {
        let (lane, len) = (parcel.lane, parcel.body.len());
        let cost = crate::link::cost_of(len);
        loop {
            if let Err(no_room) = self.hub.queued.reserve(cost, patience) {
                return Err(SendError::new(no_room_kind(no_room, patience), parcel.body));
            }
            let (token, receipt) = Token::new();
            let waiter: Option<Waiter> = reply_by.map(|_| OnceCell::new());
            let sent = self.with_reserved(cost, |core, now, fx| {
                let purpose = match (reply_by, &waiter) {
                    // The time that was spent waiting for room is part of the request's.
                    (Some(reply_by), Some(waiter)) => Purpose::Request {
                        wait: reply_by.saturating_duration_since(now),
                        waiter: Arc::clone(waiter),
                    },
                    _ => Purpose::Message,
                };
                let sent = core.link.send(parcel.clone(), purpose, token, now, fx);
                // A message with a deadline, a request, and what begins to wait for a peer that is away may
                // need the monitor earlier.
                let timed = parcel.deadline.is_some() || reply_by.is_some() || core.conns.is_empty();
                sent.map(|id| (id, timed.then(|| core.link.next_timeout()).flatten()))
            });
            let refused = match sent {
                Ok((id, timeout)) => {
                    timeout.into_iter().for_each(|at| self.hub.alarm.at(at));
                    return Ok((receipt, waiter.map(|waiter| (id, waiter))));
                }
                Err(refused) => refused,
            };
            if refused != Refused::Full || !self.wait_for_space(lane, len, patience) {
                return Err(SendError::new(self.refused_kind(refused, lane, len, patience), parcel.body));
            }
        }
    }

    /// Waits until a message of this size may fit. False when the sender's patience is over.
    fn wait_for_space(&self, lane: LaneId, len: usize, patience: Patience) -> bool {
        let mut core = self.core.lock();
        while !core.link.has_room(lane, len) {
            match patience {
                Patience::None => return false,
                Patience::Until(deadline) => {
                    if self.space.wait_until(&mut core, deadline).timed_out() {
                        return false;
                    }
                }
                Patience::Forever => self.space.wait(&mut core),
            }
        }
        !matches!(patience, Patience::None)
    }

    pub(crate) fn reply(
        self: &Arc<Self>,
        request: u64,
        ticket: Ticket,
        body: Bytes,
    ) -> Result<Receipt, SendError> {
        let cost = crate::link::cost_of(body.len());
        if let Err(no_room) = self.hub.queued.reserve(cost, Patience::None) {
            return Err(SendError::new(no_room_kind(no_room, Patience::None), body));
        }
        let (token, receipt) = Token::new();
        match self
            .with_reserved(cost, |core, _, fx| core.link.reply(request, ticket, body.clone(), token, fx))
        {
            Ok(()) => Ok(receipt),
            Err(refused) => {
                Err(SendError::new(self.refused_kind(refused, NORMAL, body.len(), Patience::None), body))
            }
        }
    }

    pub(crate) fn cancel(self: &Arc<Self>, request: u64) {
        self.with(|core, _, fx| core.link.cancel(request, fx));
    }

    pub(crate) fn is_request_open(&self, request: u64, ticket: Ticket) -> bool {
        self.look(|core| core.link.is_request_open(request, ticket))
    }

    pub(crate) fn abandon(&self, request: u64, ticket: Ticket) {
        self.note(|core| core.link.abandon(request, ticket));
    }

    pub(crate) fn done(self: &Arc<Self>, lane: usize, ticket: Ticket) {
        self.with(|core, now, fx| core.link.done(lane, ticket, now, fx));
    }

    /// Takes up to `max` messages of a lane. True when there are more.
    pub(crate) fn take(self: &Arc<Self>, lane: usize, max: usize, mut give: impl FnMut(Message)) -> bool {
        let mut arrived = Vec::new();
        let (id, taken_when, more) = self.with(|core, now, fx| {
            while arrived.len() < max
                && let Some(next) = core.link.take(lane, now, fx)
            {
                arrived.push(next);
            }
            (core.link.lane_id(lane), core.link.taken_when(lane), core.link.inbox_len(lane) > 0)
        });
        for mut next in arrived {
            next.payload.unpin();
            give(Message {
                link: Arc::clone(self),
                lane: id,
                index: lane,
                incarnation: next.incarnation,
                payload: next.payload,
                request: match next.kind {
                    MessageKind::Request { id, .. } => Some(id),
                    _ => None,
                },
                ticket: next.ticket,
                taken_when,
            });
        }
        more
    }

    fn refused_kind(&self, refused: Refused, lane: LaneId, len: usize, patience: Patience) -> SendErrorKind {
        match refused {
            Refused::Full if matches!(patience, Patience::None) => SendErrorKind::Full,
            Refused::Full => SendErrorKind::Timeout,
            Refused::TooLarge { max } => SendErrorKind::TooLarge { len, max },
            Refused::NoLane => SendErrorKind::UnknownLane(lane),
            Refused::TooManyRequests { max } => SendErrorKind::TooManyRequests { max },
            Refused::NoSuchRequest => SendErrorKind::NoSuchRequest,
            // The link was given up, or the whole node is.
            Refused::Closed if self.hub.is_closed() => SendErrorKind::Closed,
            Refused::Closed => SendErrorKind::UnknownPeer(self.peer),
        }
    }
}

fn no_room_kind(no_room: NoRoom, patience: Patience) -> SendErrorKind {
    match (no_room, patience) {
        (NoRoom::Closed, _) => SendErrorKind::Closed,
        (NoRoom::Full, Patience::None) => SendErrorKind::Full,
        (NoRoom::Full, _) => SendErrorKind::Timeout,
    }
}
