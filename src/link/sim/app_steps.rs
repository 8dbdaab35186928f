//! The steps of the two applications: they send, take, are done, answer and cancel, fast or slowly.

use std::time::Duration;

use crate::lane::{AckMode, WhenFull};
use crate::link::harness::{Fx, Numbered};
use crate::link::{OutboundMessage, Purpose, Refused, cost_of};
use crate::wire::stream::MessageKind;

use super::dice::Dice;
use super::ledger::{Kind, content};
use super::plan::{MS, SECOND};
use super::world::{Event, World};

impl World<'_> {
    pub(super) fn apps_are_done(&self) -> bool {
        self.sides.iter().all(|side| side.app.is_done())
    }

    pub(super) fn app(&mut self, side: usize, life: usize) {
        if self.ledger.lives[side] != life {
            return;
        }
        let eager = self.healed;
        let every = match eager {
            false => self.plan.app_every[side],
            true if self.sides[side].app.is_done() => 50 * MS,
            true => 5 * MS,
        };
        self.after(2 * every, Event::App { side, life });
        for lane in 0..self.plan.lanes[side].len() {
            while self.sides[side].app.arrived & (1 << lane) != 0 && (eager || self.dice.u8(..4) > 0) {
                self.take(side, lane);
            }
        }
        while !self.sides[side].app.held.is_empty() && (eager || self.dice.bool()) {
            self.finish_one(side);
        }
        while !self.sides[side].app.asked.is_empty() && (eager || self.dice.bool()) {
            if !self.answer_one(side) {
                break;
            }
        }
        if self.plan.cancels && self.dice.u8(..8) == 0 {
            self.cancel_one(side);
        }
        self.send_some(side);
    }

    fn take(&mut self, side: usize, lane: usize) {
        let (now, mut output) = (self.instant(), Fx::default());
        let Some(arrived) = self.sides[side].link.take(lane, now, &mut output) else {
            self.sides[side].app.arrived &= !(1 << lane);
            self.apply(side, output); // Messages that had expired were dropped.
            return;
        };
        let request = match arrived.kind {
            MessageKind::Request { id, .. } => Some(id),
            _ => None,
        };
        let number = self.ledger.got(side, lane, request, arrived.payload, self.now);
        let app = &mut self.sides[side].app;
        if let (Some(id), Kind::Request(asked)) = (request, self.ledger.messages[number].kind) {
            app.asked.push((lane, id, arrived.ticket, asked));
        }
        match self.plan.lanes[side][lane].ack_mode {
            AckMode::Received => self.ledger.taken(side, number),
            AckMode::Done => app.held.push((lane, arrived.ticket, number)),
        }
        self.apply(side, output);
    }

    fn finish_one(&mut self, side: usize) {
        let count = self.sides[side].app.held.len();
        let (lane, ticket, number) = self.sides[side].app.held.swap_remove(self.dice.usize(..count));
        self.ledger.taken(side, number);
        let (now, mut output) = (self.instant(), Fx::default());
        self.sides[side].link.done(lane, ticket, now, &mut output);
        self.apply(side, output);
    }

    /// Answers a request. False when the queue is full.
    fn answer_one(&mut self, side: usize) -> bool {
        let count = self.sides[side].app.asked.len();
        let chosen = self.dice.usize(..count);
        let (lane, id, ticket, asked) = self.sides[side].app.asked[chosen];
        if !self.healed && self.dice.u8(..10) == 0 {
            self.sides[side].app.asked.swap_remove(chosen);
            self.sides[side].link.abandon(id, ticket);
            return true;
        }
        let number = self.ledger.next();
        let len = self.length(side, lane);
        let token = Numbered { number, awaited: self.dice.bool() };
        let mut output = Fx::default();
        self.make_room(side, lane, len, &mut output);
        let result = self.sides[side].link.reply(id, ticket, &content(number, len), token, &mut output);
        match result {
            Ok(()) => self.ledger.accepted(side, lane, len, Kind::Reply(asked), None),
            Err(Refused::Full) => {
                self.apply(side, output);
                return false;
            }
            Err(Refused::NoSuchRequest) => {
                let excused = self.plan.restarts || self.plan.forgets || self.plan.cancels;
                assert!(excused || !self.ledger.is_awaited(asked), "request {asked} is still awaited");
            }
            Err(other) => panic!("a reply is refused: {other:?}"),
        }
        self.sides[side].app.asked.swap_remove(chosen);
        self.apply(side, output);
        true
    }

    fn cancel_one(&mut self, side: usize) {
        let life = self.ledger.life(side);
        let requests = self.ledger.requests_of(life);
        let Some((number, id)) = self.dice.choice(requests) else { return };
        self.ledger.cancelled(number, self.now);
        let mut output = Fx::default();
        self.sides[side].link.cancel(id, &mut output);
        self.apply(side, output);
    }

    fn send_some(&mut self, side: usize) {
        loop {
            let app = &mut self.sides[side].app;
            let next = if app.blocked.is_some() {
                if !std::mem::take(&mut app.space) {
                    return;
                }
                app.blocked.take()
            } else if let Some(next) = app.script.pop() {
                Some(next)
            } else if app.left > 0 && (self.healed || self.dice.bool()) {
                app.left -= 1;
                // Mostly on the same lane: messages that follow each other are queued as one run.
                if self.dice.u8(..4) == 0 {
                    app.lane = self.dice.usize(..self.plan.lanes[side].len());
                }
                let lane = app.lane;
                Some((lane, self.length(side, lane), self.dice.u8(..4) == 0))
            } else {
                None
            };
            let Some((lane, len, asks)) = next else { return };
            self.send(side, lane, len, asks);
        }
    }

    fn length(&mut self, side: usize, lane: usize) -> usize {
        let (least, most) = (self.plan.min_len, self.plan.lanes[side][lane].max_message);
        if self.plan.script.is_some() {
            return most / 2;
        }
        // The largest messages in the smallest pieces would take most of the time and show the least.
        let tiny = self.plan.max_chunk < 100 || self.plan.piece < 1000;
        let most = if tiny { most.min(300) } else { most };
        match self.dice.u8(..6) {
            0 => least,
            1 => most,
            2 => self.dice.usize(least..=most),
            _ => self.dice.usize(least..=most.min(200)),
        }
    }

    fn send(&mut self, side: usize, lane: usize, len: usize, asks: bool) {
        let number = self.ledger.next();
        let config = &self.plan.lanes[side][lane];
        let (id, max) = (config.id, config.max_message);
        let chance = |of: bool, dice: &mut Dice<'_>| of && dice.u8(..4) == 0;
        let deadline =
            chance(self.plan.deadlines, &mut self.dice).then(|| self.now + self.dice.u64(0..2 * SECOND));
        // A message without a name could not be told from its neighbours if one of them was dropped.
        let deadline = deadline.filter(|_| len >= 4);
        let wait = if chance(self.plan.cancels, &mut self.dice) {
            self.dice.u64(MS..3 * SECOND) / MS * MS
        } else {
            60 * SECOND
        };
        let request = self.ledger.requests.len();
        let purpose = || match asks {
            true => Purpose::Request { wait: Duration::from_micros(wait), waiter: request },
            false => Purpose::Message,
        };
        // Tokens follow each other if both are awaited or none is.
        let awaited =
            if self.plan.script.is_some() { self.dice.bool() } else { (number / 8).is_multiple_of(2) };
        let token = Numbered { number, awaited };
        let (now, mut output) = (self.instant(), Fx::default());
        let at = deadline.map(|at| self.instant_at(at));
        if self.dice.u8(..20) == 0 {
            let stranger = Numbered { number: usize::MAX, awaited: true };
            let message = OutboundMessage { lane: id, body: &content(0, max + 1), deadline: None };
            let result = self.sides[side].link.send(message, purpose(), stranger, now, &mut output);
            assert_eq!(result, Err(Refused::TooLarge { max }));
        }
        self.make_room(side, lane, len, &mut output);
        let queued = self.queued(side, lane);
        let message = OutboundMessage { lane: id, body: &content(number, len), deadline: at };
        match self.sides[side].link.send(message, purpose(), token, now, &mut output) {
            Ok(id) => {
                let kind = if asks { Kind::Request(request) } else { Kind::Message };
                self.ledger.accepted(side, lane, len, kind, deadline);
                if asks {
                    self.ledger.asked(side, id, number, self.now + wait);
                }
            }
            Err(refused) => {
                assert_eq!(self.queued(side, lane), queued, "a refused message was kept");
                match refused {
                    Refused::Full => self.sides[side].app.blocked = Some((lane, len, asks)),
                    Refused::TooManyRequests { .. } => {}
                    other => panic!("refused: {other:?}"),
                }
            }
        }
        self.apply(side, output);
    }

    /// As the node does: a lane that drops its oldest messages makes room. Sometimes the node's budget is
    /// short of all that the new message needs.
    fn make_room(&mut self, side: usize, lane: usize, len: usize, output: &mut Fx) {
        if self.plan.lanes[side][lane].when_full == WhenFull::Refuse {
            return;
        }
        let short = self.dice.u8(..8) == 0;
        let link = &mut self.sides[side].link;
        if link.check_room(lane, len).is_ok() && !short {
            return;
        }
        let bytes = if short { cost_of(len) } else { 0 };
        let oldest = link.displaceable(lane, len, bytes);
        if let Some(oldest) = oldest {
            assert!(oldest.messages > 0 && oldest.bytes >= bytes);
            let (messages, queued) = link.lanes[lane].out.queued();
            link.displace(lane, oldest, output);
            let left = (messages - oldest.messages, queued - oldest.bytes);
            assert_eq!(link.lanes[lane].out.queued(), left, "what was displaced is gone");
        }
        // What the budget is short of may be more than the lane can free.
        let is_full = short || link.queued_bytes() + cost_of(len) > self.plan.settings(side).max_queued;
        assert!(is_full || link.check_room(lane, len).is_ok(), "there is room, or a message to displace");
    }

    fn queued(&self, side: usize, lane: usize) -> (usize, usize) {
        self.sides[side].link.lanes[lane].out.queued()
    }
}

impl super::ledger::Ledger {
    /// Requests that wait for their reply: number and id.
    fn requests_of(&self, life: super::ledger::Life) -> Vec<(usize, u64)> {
        let waiting =
            self.requests.iter().enumerate().filter(|(_, one)| one.ended.is_none() && one.from == life);
        waiting.map(|(number, one)| (number, one.id)).collect()
    }
}
