//! An application: what it still has to do.

use crate::link::Ticket;

use super::plan::Plan;

pub(super) struct App {
    /// Messages that it will still send.
    pub(super) left: usize,
    pub(super) script: Vec<(usize, usize, bool)>,
    /// The lane of the last message.
    pub(super) lane: usize,
    /// The message that was refused because the queue was full: (lane, length, is a request).
    pub(super) blocked: Option<(usize, usize, bool)>,
    /// Lanes that were said to have messages.
    pub(super) arrived: u64,
    /// It was said that a queue has room.
    pub(super) space: bool,
    /// Messages that it is not done with: (lane, ticket, number).
    pub(super) held: Vec<(usize, Ticket, usize)>,
    /// Requests that it will answer: (lane, id, ticket, number of the request).
    pub(super) asked: Vec<(usize, u64, Ticket, usize)>,
}

impl App {
    pub(super) fn new(plan: &Plan, side: usize) -> App {
        let script = plan.script.iter().flatten().filter(|(from, ..)| *from == side);
        App {
            left: plan.messages,
            script: script.map(|(_, lane, len, asks)| (*lane, *len, *asks)).rev().collect(),
            lane: 0,
            blocked: None,
            arrived: 0,
            space: false,
            held: Vec::new(),
            asked: Vec::new(),
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.left == 0
            && self.script.is_empty()
            && self.blocked.is_none()
            && self.held.is_empty()
            && self.asked.is_empty()
    }
}
