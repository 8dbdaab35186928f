//! The promises for each message, and whether they were kept. The ledger knows both sides, which no node
//! does.
//!
//! The content of a message follows from its number. A message of at least 4 bytes begins with that
//! number and so names itself; a shorter one is known by its place in the order, which is exact as long
//! as nobody restarts or forgets.

use std::collections::HashMap;

use bytes::Bytes;

use crate::lane::WhenFull;
use crate::link::ReplyResult;
use crate::message::Payload;
use crate::outcome::{DropReason, Outcome, RequestError};

use super::plan::Plan;

/// One life of one side: (side, how often it restarted).
pub(super) type Life = (usize, usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Message,
    Request(usize),
    Reply(usize),
}

#[derive(Debug)]
pub(super) struct Message {
    pub(super) from: Life,
    lane: usize,
    len: usize,
    pub(super) kind: Kind,
    deadline: Option<u64>,
    pub(super) outcome: Option<Outcome>,
    /// The lives of the peer whose application got it, and whether it was done with it.
    got: Vec<(Life, bool)>,
}

#[derive(Debug)]
pub(super) struct Request {
    pub(super) id: u64,
    pub(super) from: Life,
    message: usize,
    deadline: u64,
    pub(super) cancelled: bool,
    /// The reply's message, if the peer's application gave one.
    reply: Option<usize>,
    pub(super) ended: Option<u64>,
    answered: bool,
}

#[derive(Default)]
pub(super) struct Ledger {
    pub(super) messages: Vec<Message>,
    pub(super) requests: Vec<Request>,
    /// Messages and requests in the order of their acceptance, by sender and lane.
    order: HashMap<(Life, usize), Vec<usize>>,
    /// How far a receiver's life has read a sender's life on a lane.
    read: HashMap<(Life, Life, usize), usize>,
    /// The sender's life that a receiver's life heard last on a lane.
    heard: HashMap<(Life, usize), Life>,
    /// The current life of each side.
    pub(super) lives: [usize; 2],
    /// Messages and requests of current lives that have not ended.
    open: usize,
    pub(super) forgotten: bool,
    /// The message of a life that was displaced last on a lane.
    displaced: HashMap<(Life, usize), usize>,
}

pub(super) fn content(number: usize, len: usize) -> Bytes {
    let name = (number as u32).to_le_bytes();
    let rest = (4..len).map(|at| (number.wrapping_mul(37) ^ at.wrapping_mul(11) ^ (at >> 8)) as u8);
    name.into_iter().chain(rest).take(len).collect()
}

impl Ledger {
    pub(super) fn life(&self, side: usize) -> Life {
        (side, self.lives[side])
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.open == 0
    }

    pub(super) fn pending(&self) -> String {
        let lives = [self.life(0), self.life(1)];
        let messages = self
            .messages
            .iter()
            .enumerate()
            .filter(|(_, message)| message.outcome.is_none() && lives.contains(&message.from));
        let requests =
            self.requests.iter().filter(|request| request.ended.is_none() && lives.contains(&request.from));
        format!("{:?} {:?}", messages.take(5).collect::<Vec<_>>(), requests.take(5).collect::<Vec<_>>())
    }

    /// The number that the next message will have.
    pub(super) fn next(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn accepted(
        &mut self,
        side: usize,
        lane: usize,
        len: usize,
        kind: Kind,
        deadline: Option<u64>,
    ) {
        let (number, from) = (self.messages.len(), self.life(side));
        self.messages.push(Message { from, lane, len, kind, deadline, outcome: None, got: Vec::new() });
        self.open += 1;
        match kind {
            Kind::Reply(request) => self.requests[request].reply = Some(number),
            _ => self.order.entry((from, lane)).or_default().push(number),
        }
    }

    pub(super) fn asked(&mut self, side: usize, id: u64, message: usize, deadline: u64) {
        let from = self.life(side);
        self.open += 1;
        self.requests.push(Request {
            id,
            from,
            message,
            deadline,
            cancelled: false,
            reply: None,
            ended: None,
            answered: false,
        });
    }

    /// An application cancelled: it will hear no more of this request.
    pub(super) fn cancelled(&mut self, request: usize, now: u64) {
        let request = &mut self.requests[request];
        request.cancelled = true;
        if request.ended.is_none() {
            request.ended = Some(now);
            self.open -= 1;
        }
    }

    pub(super) fn restarted(&mut self, side: usize) {
        let life = self.life(side);
        let messages = self.messages.iter().filter(|message| message.from == life);
        self.open -= messages.filter(|message| message.outcome.is_none()).count();
        let requests = self.requests.iter().filter(|request| request.from == life);
        self.open -= requests.filter(|request| request.ended.is_none()).count();
        self.lives[side] += 1;
    }

    /// The application of `side` has got a message. Returns its number.
    pub(super) fn got(
        &mut self,
        side: usize,
        lane: usize,
        request: Option<u64>,
        payload: Payload,
        now: u64,
    ) -> usize {
        let (to, bytes) = (self.life(side), payload.into_bytes());
        let peer = 1 - side;
        let number = match bytes.first_chunk::<4>() {
            Some(name) => u32::from_le_bytes(*name) as usize,
            None => self.next_in_order(to, self.life(peer), lane),
        };
        let message = self.messages.get(number).unwrap_or_else(|| panic!("nobody sent {number}"));
        let from = message.from;
        assert_eq!((from.0, message.lane), (peer, lane), "message {number} on a wrong way");
        assert_eq!(bytes, content(number, message.len), "content of message {number}");
        match message.kind {
            Kind::Message => assert_eq!(request, None),
            Kind::Request(asked) => assert_eq!(request, Some(self.requests[asked].id)),
            Kind::Reply(_) => panic!("a reply in the inbox"),
        }
        assert!(message.got.iter().all(|(life, _)| *life != to), "message {number} came twice");
        let order = &self.order[&(from, lane)];
        let place = order.binary_search(&number).unwrap_or_else(|_| panic!("{number} has no place"));
        let heard = self.heard.insert((to, lane), from);
        assert!(heard.is_none_or(|heard| heard <= from), "message {number} of an earlier life came late");
        let read = self.read.insert((to, from, lane), place + 1).unwrap_or(0);
        assert!(read <= place, "message {number} came out of order: {place} after {read}");
        for skipped in &order[read..place] {
            let message = &self.messages[*skipped];
            let may_be_stale = message.kind == Kind::Message && message.deadline.is_some_and(|at| at <= now);
            assert!(
                message.outcome.is_some() || may_be_stale,
                "message {skipped} {message:?} was passed over by {number}"
            );
        }
        let message = &mut self.messages[number];
        assert!(
            !matches!(
                message.outcome,
                Some(Outcome::Expired | Outcome::Dropped(DropReason::Cancelled | DropReason::Displaced))
            ),
            "message {number} came although it ended as {:?}",
            message.outcome
        );
        message.got.push((to, false));
        number
    }

    fn next_in_order(&self, to: Life, from: Life, lane: usize) -> usize {
        let read = self.read.get(&(to, from, lane)).copied().unwrap_or(0);
        let order = self.order.get(&(from, lane)).map_or(&[][..], |order| &order[read..]);
        // Those with a name between them may have expired on arrival.
        let next = order.iter().map(|number| (*number, &self.messages[*number])).find(|(_, message)| {
            message.len < 4 && !matches!(message.outcome, Some(Outcome::Expired | Outcome::Dropped(_)))
        });
        let next = next.map(|(number, _)| number);
        next.unwrap_or_else(|| panic!("a message that nobody sent on lane {lane}"))
    }

    pub(super) fn taken(&mut self, side: usize, number: usize) {
        let life = self.life(side);
        let got = self.messages[number].got.iter_mut().find(|(who, _)| *who == life);
        got.unwrap_or_else(|| panic!("{number} was never got")).1 = true;
    }

    /// A receipt has ended.
    pub(super) fn ended(&mut self, side: usize, number: usize, outcome: Outcome, now: u64, plan: &Plan) {
        let life = self.life(side);
        let restarted = self.lives[1 - side] > 0;
        let Some(message) = self.messages.get_mut(number) else { panic!("a refused message has ended") };
        assert_eq!(message.from, life);
        assert_eq!(message.outcome, None, "message {number} ended twice, now as {outcome:?}");
        message.outcome = Some(outcome);
        self.open -= 1;
        let why = format!("message {number} ended as {outcome:?}: {message:?} at {now}");
        match (outcome, message.kind) {
            (Outcome::Taken, Kind::Reply(request)) => {
                let request = &self.requests[request];
                let gone = request.from != (1 - side, self.lives[1 - side]);
                assert!(gone || request.ended.is_some(), "{why}, but nobody got it");
            }
            (Outcome::Taken, _) => assert!(message.got.iter().any(|(_, done)| *done), "{why}"),
            (Outcome::Expired, _) => {
                assert!(message.deadline.is_some_and(|deadline| deadline <= now), "{why}");
                // An earlier life of the peer may have got it.
                let peer = (1 - side, self.lives[1 - side]);
                assert!(message.got.iter().all(|(life, _)| *life != peer), "{why}");
            }
            (Outcome::Dropped(DropReason::Cancelled), Kind::Request(request)) => {
                let request = &self.requests[request];
                assert!(request.cancelled || request.deadline <= now, "{why}");
            }
            (Outcome::Dropped(DropReason::PeerRestarted), Kind::Reply(_)) => assert!(restarted, "{why}"),
            (Outcome::Dropped(DropReason::PeerForgot | DropReason::ResumptionExpired), _) => {
                assert!(plan.forgets, "{why}");
                self.forgotten = true;
            }
            (Outcome::Dropped(DropReason::TooLargeForPeer), _) => {
                let lane = plan.lanes[1 - side].get(message.lane);
                assert!(lane.is_some_and(|lane| message.len > lane.max_message), "{why}");
            }
            (Outcome::Dropped(DropReason::LaneRefused), _) => {
                assert!(plan.lanes[1 - side].len() <= message.lane, "{why}");
            }
            (Outcome::Dropped(DropReason::Displaced), _) => {
                let lane = message.lane;
                assert_eq!(plan.lanes[side][lane].when_full, WhenFull::DropOldest, "{why}");
                assert!(message.got.is_empty(), "{why}");
                // What is older than it and open was begun, and stays.
                let before = self.displaced.insert((life, lane), number);
                assert!(before.is_none_or(|before| before < number), "{why}, after {before:?}");
            }
            _ => panic!("{why}"),
        }
    }

    /// A request has ended.
    pub(super) fn replied(
        &mut self,
        side: usize,
        request: usize,
        result: ReplyResult,
        now: u64,
        plan: &Plan,
    ) {
        let life = self.life(side);
        let number = request;
        let request = &mut self.requests[request];
        assert_eq!(request.from, life);
        assert_eq!(request.ended, None, "request {number} ended twice, now as {result:?}");
        request.ended = Some(now);
        self.open -= 1;
        match result {
            Ok(payload) => {
                let reply = request.reply.unwrap_or_else(|| panic!("nobody answered request {number}"));
                assert_eq!(payload.into_bytes(), content(reply, self.messages[reply].len));
                assert_ne!(self.messages[reply].outcome, Some(Outcome::Dropped(DropReason::Displaced)));
                request.answered = true;
            }
            Err(RequestError::Timeout) => {
                assert!(now >= request.deadline, "request {number} timed out too early");
                assert!(now <= request.deadline + 1, "request {number} timed out too late");
            }
            Err(RequestError::Expired) => {
                assert_eq!(self.messages[request.message].outcome, Some(Outcome::Expired));
            }
            Err(RequestError::PeerRestarted) => {
                assert!(self.lives[1 - side] > 0);
                assert!(self.messages[request.message].outcome.is_some());
            }
            Err(RequestError::Dropped(reason @ DropReason::Displaced)) => {
                assert_eq!(self.messages[request.message].outcome, Some(Outcome::Dropped(reason)));
            }
            Err(RequestError::Dropped(_)) => {
                assert!(plan.forgets || plan.lanes[0] != plan.lanes[1], "request {number}");
            }
        }
    }

    /// Whether a reply to this request may be refused.
    pub(super) fn is_awaited(&self, request: usize) -> bool {
        let request = &self.requests[request];
        request.ended.is_none() && request.from == self.life(request.from.0)
    }
}
