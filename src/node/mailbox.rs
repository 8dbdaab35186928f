//! Where messages and events wait for the application.
//!
//! The messages themselves stay in the inboxes of their lanes; the mailbox only knows which links have
//! some. So a message counts as taken at the moment when the application gets it, and many messages
//! cost one wake-up. Events wait in an [`EventQueue`].
//!
//! # The order of `Node::recv`
//! - Messages: the most urgent lane first; but a lane that was passed over for [`FAIRNESS_RUN`] messages gets
//!   its turn, as it does at the sender. Otherwise one stranger that sends urgent messages faster than the
//!   application takes them would keep it from everybody's other ones.
//! - Events about named peers come first, in turn with messages: between two of them there is a message, if
//!   one waits.
//! - Events about strangers come last; one is given out when they were passed over for [`FAIRNESS_RUN`]
//!   messages and events.
//! - An event about a peer that came before its message is given out before that message. This belongs to the
//!   turn of that link: no more than [`EventQueue`] keeps for one subject.
//!
//! So events delay an urgent message by at most one other event, and those of the peers that it takes turns
//! with.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Instant;

use crossbeam_channel::{Receiver, select};

use crate::clock;
use crate::id::PeerId;
use crate::lane::{LaneConfig, Priority};
use crate::lock::MAILBOX;
use crate::sync::Lock;
use crate::sync::atomic::AtomicU64;

use super::event::Event;
use super::event_queue::{Class, EventQueue, Subject};
use super::message::Message;
use super::signal::Signal;

/// After so many messages of more urgent lanes a lane that waits gets one.
const FAIRNESS_RUN: usize = 16;

/// A source of messages on lanes: a link.
pub(crate) trait Source: std::fmt::Debug + Send + Sync {
    fn peer(&self) -> PeerId;
    /// Lanes (bit = index) that the mailbox has in its lists. The mailbox alone uses it.
    fn listed(&self) -> &AtomicU64;
    /// Adds up to `max` messages of a lane to `taken`. True when there are more.
    fn take(self: Arc<Self>, lane: usize, max: usize, taken: Taken<'_>) -> bool;
}

/// Where messages go that the application takes. They are made in their place, because each copy of one costs
/// as much as the rest of its way.
#[derive(Debug)]
pub(crate) enum Taken<'a> {
    Events(&'a mut Vec<Event>),
    Messages(&'a mut Vec<Message>),
}

/// What a receiver gets: events, of which messages are some, or messages alone.
pub(crate) trait Item: Sized {
    /// `None` if the receiver gets no such events.
    fn from_event(event: Event) -> Option<Self>;
    fn list(taken: &mut Vec<Self>) -> Taken<'_>;
}

impl Item for Event {
    fn from_event(event: Event) -> Option<Event> {
        Some(event)
    }

    fn list(taken: &mut Vec<Event>) -> Taken<'_> {
        Taken::Events(taken)
    }
}

impl Item for Message {
    fn from_event(event: Event) -> Option<Message> {
        match event {
            Event::Message(message) => Some(message),
            _ => None,
        }
    }

    fn list(taken: &mut Vec<Message>) -> Taken<'_> {
        Taken::Messages(taken)
    }
}

/// The node shuts down: nothing more will be received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the node shuts down")
    }
}

impl std::error::Error for Closed {}

#[derive(Debug)]
pub(crate) struct Mailbox {
    state: Lock<State, MAILBOX>,
    main: Signal,
    /// Used once the events have a receiver of their own.
    events: Signal,
    /// One for each lane, used once the lane has a receiver of its own.
    lanes: Vec<Signal>,
    /// The lanes, most urgent first.
    order: Vec<usize>,
}

#[derive(Debug)]
struct State {
    events: EventQueue,
    /// For each lane the links that have messages, each once.
    ready: Vec<VecDeque<Ready>>,
    /// For each lane how many messages of others were given out while it waited.
    passed_over: Vec<usize>,
    /// The same for events about strangers: how many messages and other events.
    strangers_passed_over: usize,
    /// The last thing given out to the receiver of everything was an event about a named peer.
    event_was_last: bool,
    /// Lanes (bit = index) that have a receiver of their own.
    claimed: u64,
    /// The events have a receiver of their own.
    events_claimed: bool,
    closed: bool,
}

/// A link with messages on a lane.
#[derive(Debug)]
struct Ready {
    source: Arc<dyn Source>,
    /// Events that were told before this number come before the messages.
    told: u64,
}

/// The next thing to give out.
enum Next {
    Event(Event),
    /// Up to so many messages of this lane of the link.
    Messages(usize, Arc<dyn Source>, usize),
}

impl State {
    fn next(&mut self, order: &[usize], reader: Reader) -> Option<Next> {
        let (lane, most) = match reader {
            Reader::Lane(own) => (own, usize::MAX),
            Reader::Events => return self.next_event(None).map(Next::Event),
            Reader::Everything => {
                let lane = self.first_of(order);
                if self.gives_events()
                    && let Some(event) = self.next_event(lane.map(|(lane, _)| lane))
                {
                    return Some(Next::Event(event));
                }
                // An event may be due after so many messages.
                let (lane, most) = lane?;
                (lane, if self.gives_events() { most.min(FAIRNESS_RUN) } else { most })
            }
        };
        if let Some(passed_over) = self.passed_over.get_mut(lane) {
            *passed_over = 0;
        }
        Some(Next::Messages(lane, self.ready.get_mut(lane)?.pop_front()?.source, most))
    }

    fn gives_events(&self) -> bool {
        !self.events_claimed && !self.events.is_empty()
    }

    /// The event that goes before the messages of this lane, whose turn it is; with no lane, any event.
    fn next_event(&mut self, lane: Option<usize>) -> Option<Event> {
        let strangers_wait = self.events.has(Class::Stranger);
        if strangers_wait && self.strangers_passed_over >= FAIRNESS_RUN {
            self.strangers_passed_over = 0;
            return self.events.pop(Class::Stranger);
        }
        let mut event = None;
        if lane.is_none() || !self.event_was_last {
            event = self.events.pop(Class::Named);
            self.event_was_last = event.is_some();
        }
        match lane {
            _ if event.is_some() => {}
            None => {
                self.strangers_passed_over = 0;
                return self.events.pop(Class::Stranger);
            }
            Some(lane) => {
                let first = self.ready.get(lane)?.front()?;
                event = self.events.pop_before(&Subject::Peer(first.source.peer()), first.told);
            }
        }
        self.strangers_passed_over += usize::from(event.is_some() && strangers_wait);
        event
    }

    fn first_of(&self, order: &[usize]) -> Option<(usize, usize)> {
        let passed_over = |lane: usize| self.passed_over.get(lane).copied().unwrap_or(0);
        let mut waiting =
            order.iter().copied().filter(|lane| self.claimed & (1 << lane) == 0 && self.waits(*lane));
        let first = waiting.next()?;
        let Some(next) = waiting.next() else { return Some((first, usize::MAX)) };
        let worst = waiting
            .fold(next, |worst, lane| if passed_over(lane) > passed_over(worst) { lane } else { worst });
        if passed_over(worst) >= FAIRNESS_RUN { Some((worst, 1)) } else { Some((first, FAIRNESS_RUN)) }
    }

    fn waits(&self, lane: usize) -> bool {
        self.ready.get(lane).is_some_and(|ready| !ready.is_empty())
    }

    /// So many messages of this lane were given out, and others waited.
    fn given(&mut self, lane: usize, count: usize) {
        self.event_was_last = false;
        if self.events.has(Class::Stranger) {
            self.strangers_passed_over += count;
        }
        for (index, (passed_over, ready)) in self.passed_over.iter_mut().zip(&self.ready).enumerate() {
            if index != lane && !ready.is_empty() {
                *passed_over += count;
            }
        }
    }
}

/// Which receiver asks: the one of everything that has no receiver of its own, that of one lane, or that of
/// events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    Everything,
    Lane(usize),
    Events,
}

impl Mailbox {
    pub(crate) fn new(lanes: &[LaneConfig], max_events: usize) -> Self {
        let mut order: Vec<usize> = (0..lanes.len()).collect();
        order.sort_by_key(|index| match lanes.get(*index).map(|lane| lane.priority) {
            Some(Priority::Weighted(weight)) => 256 - u16::from(weight),
            _ => 0,
        });
        Mailbox {
            state: Lock::new(State {
                events: EventQueue::new(max_events),
                ready: lanes.iter().map(|_| VecDeque::new()).collect(),
                passed_over: vec![0; lanes.len()],
                strangers_passed_over: 0,
                event_was_last: false,
                claimed: 0,
                events_claimed: false,
                closed: false,
            }),
            main: Signal::new(),
            events: Signal::new(),
            lanes: lanes.iter().map(|_| Signal::new()).collect(),
            order,
        }
    }

    pub(crate) fn push_event(&self, event: Event, class: Class) {
        let mut state = self.state.lock();
        state.events.push(event, class);
        let claimed = state.events_claimed;
        drop(state);
        if claimed { self.events.set() } else { self.main.set() }
    }

    /// How many events were dropped because there was no room for them.
    pub(crate) fn events_lost(&self) -> u64 {
        self.state.lock().events.dropped()
    }

    /// These lanes (bit = index) of the link have messages.
    pub(crate) fn announce(&self, source: Arc<dyn Source>, lanes: u64) {
        // A lane that is in the list already will be looked at anyway.
        let new = lanes & !source.listed().fetch_or(lanes, SeqCst);
        if new == 0 {
            return;
        }
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        let told = state.events.next_number();
        for (index, ready) in state.ready.iter_mut().enumerate() {
            if new & (1 << index) != 0 {
                ready.push_back(Ready { source: Arc::clone(&source), told });
            }
        }
        let claimed = state.claimed;
        drop(state);
        self.signal(new, claimed);
    }

    fn signal(&self, lanes: u64, claimed: u64) {
        if lanes & !claimed != 0 {
            self.main.set();
        }
        for (index, signal) in self.lanes.iter().enumerate() {
            if lanes & claimed & (1 << index) != 0 {
                signal.set();
            }
        }
    }

    /// Claims a lane for a receiver of its own. False when it has one.
    pub(crate) fn claim(&self, lane: usize) -> bool {
        let mut state = self.state.lock();
        let bit = 1 << lane;
        let free = state.claimed & bit == 0;
        state.claimed |= bit;
        drop(state);
        if free && let Some(signal) = self.lanes.get(lane) {
            signal.set(); // Messages that waited before are its own now.
        }
        free
    }

    pub(crate) fn unclaim(&self, lane: usize) {
        self.state.lock().claimed &= !(1 << lane);
        self.main.set();
    }

    /// Claims the events for a receiver of their own. False when they have one.
    pub(crate) fn claim_events(&self) -> bool {
        let free = !std::mem::replace(&mut self.state.lock().events_claimed, true);
        if free {
            self.events.set();
        }
        free
    }

    pub(crate) fn unclaim_events(&self) {
        self.state.lock().events_claimed = false;
        self.main.set();
    }

    pub(crate) fn ready(&self, reader: Reader) -> &Receiver<()> {
        &self.signal_of(reader).ready
    }

    fn signal_of(&self, reader: Reader) -> &Signal {
        match reader {
            Reader::Lane(lane) => self.lanes.get(lane).unwrap_or(&self.main),
            Reader::Events => &self.events,
            Reader::Everything => &self.main,
        }
    }

    /// Takes up to `max` messages and events, most urgent first, without waiting.
    pub(crate) fn take<T: Item>(&self, reader: Reader, max: usize) -> Result<Vec<T>, Closed> {
        let mut taken = Vec::new();
        while taken.len() < max {
            let mut state = self.state.lock();
            let next = state.next(&self.order, reader);
            let closed = state.closed;
            drop(state);
            match next {
                Some(Next::Event(event)) => taken.extend(T::from_event(event)),
                Some(Next::Messages(lane, source, most)) => {
                    let before = taken.len();
                    self.take_from(source, lane, most.min(max - before), T::list(&mut taken));
                    if most < usize::MAX {
                        self.state.lock().given(lane, taken.len() - before);
                    }
                }
                None if closed && taken.is_empty() => {
                    // At the end every thread that waits is to learn of it, one from the other.
                    self.pass_on(reader);
                    return Err(Closed);
                }
                None => break,
            }
        }
        Ok(taken)
    }

    fn take_from(&self, source: Arc<dyn Source>, lane: usize, max: usize, taken: Taken<'_>) {
        // Off the list before the inbox is looked at: what arrives from here on lists it again.
        source.listed().fetch_and(!(1 << lane), SeqCst);
        // Links take turns, a run of messages each.
        if Arc::clone(&source).take(lane, max, taken) {
            self.announce(source, 1 << lane);
        }
    }

    /// Waits until something is there, and takes up to `max`. Empty when the time is over.
    pub(crate) fn wait<T: Item>(
        &self,
        reader: Reader,
        max: usize,
        deadline: Option<Instant>,
    ) -> Result<Vec<T>, Closed> {
        loop {
            let taken = self.take(reader, max)?;
            if !taken.is_empty() {
                // Another thread may wait for what is left.
                self.pass_on(reader);
                return Ok(taken);
            }
            if deadline.is_some_and(|deadline| deadline <= clock::now()) {
                return Ok(Vec::new());
            }
            self.signal_of(reader).wait(deadline);
        }
    }

    /// Waits for the next message or event, or until `other` has a token: `None`. The token is taken from it.
    pub(crate) fn wait_or(&self, reader: Reader, other: &Receiver<()>) -> Result<Option<Event>, Closed> {
        loop {
            if other.try_recv().is_ok() {
                return Ok(None);
            }
            if let Some(event) = self.take(reader, 1)?.pop() {
                // Another thread may wait for what is left.
                self.pass_on(reader);
                return Ok(Some(event));
            }
            select! {
                recv(other) -> _ => return Ok(None),
                recv(self.ready(reader)) -> _ => {}
            }
        }
    }

    /// Sets the signal again if something is left.
    fn pass_on(&self, reader: Reader) {
        let state = self.state.lock();
        let left = match reader {
            Reader::Lane(lane) => state.ready.get(lane).is_some_and(|ready| !ready.is_empty()),
            Reader::Events => !state.events.is_empty(),
            Reader::Everything => {
                let waits = |(index, ready): (usize, &VecDeque<_>)| {
                    state.claimed & (1 << index) == 0 && !ready.is_empty()
                };
                state.gives_events() || state.ready.iter().enumerate().any(waits)
            }
        } || state.closed;
        drop(state);
        if left {
            match reader {
                Reader::Everything => self.main.set(),
                Reader::Events => self.events.set(),
                Reader::Lane(lane) => self.lanes.get(lane).into_iter().for_each(Signal::set),
            }
        }
    }

    /// No message is given out any longer: the peers could not be told that it was taken, and would
    /// send it again to the next life of this node. Events can still be taken.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let ready = std::mem::take(&mut state.ready);
        drop(state);
        drop(ready);
        self.main.set();
        self.events.set();
        self.lanes.iter().for_each(Signal::set);
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests read the real clock")]
mod tests;
