//! Where messages and events wait for the application.
//!
//! The messages themselves stay in the inboxes of their lanes; the mailbox only knows which links have
//! some. So a message counts as taken at the moment when the application gets it, and many messages
//! cost one wake-up.
//!
//! Most urgent first; but a lane that was passed over for [`PATIENCE`] messages gets its turn, as it does at the sender.
//! Otherwise one stranger that sends urgent messages faster than the application takes them would keep it from everybody's
//! other ones.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

use super::event::Event;
use crate::clock;
use crate::lane::{LaneConfig, Priority};

use super::link::LinkHandle;
use super::message::Message;

/// After so many messages of more urgent lanes a lane that waits gets one.
const PATIENCE: usize = 16;

/// A token in a channel: something is there. Many tokens are one.
#[derive(Debug)]
pub(crate) struct Signal {
    set: Sender<()>,
    pub(crate) ready: Receiver<()>,
}

impl Signal {
    fn new() -> Self {
        let (set, ready) = bounded(1);
        Signal { set, ready }
    }

    fn set(&self) {
        let _ = self.set.try_send(());
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
    state: Mutex<State>,
    main: Signal,
    /// One for each lane, used once the lane has a receiver of its own.
    lanes: Vec<Signal>,
    /// The lanes, most urgent first.
    order: Vec<usize>,
    max_events: usize,
    pub(crate) events_lost: AtomicU64,
}

#[derive(Debug)]
struct State {
    events: VecDeque<Event>,
    /// For each lane the links that have messages, each once.
    ready: Vec<VecDeque<Arc<LinkHandle>>>,
    /// For each lane how many messages of others were given out while it waited.
    passed_over: Vec<usize>,
    /// Lanes (bit = index) that have a receiver of their own.
    claimed: u64,
    closed: bool,
}

impl State {
    /// The lane whose turn it is, a link that has messages on it, and how many of them may be given out.
    fn next(&mut self, order: &[usize], reader: Reader) -> Option<(usize, Arc<LinkHandle>, usize)> {
        let (lane, most) = match reader {
            Reader::Lane(own) => (own, usize::MAX),
            Reader::Everything => self.first_of(order)?,
        };
        if let Some(passed_over) = self.passed_over.get_mut(lane) {
            *passed_over = 0;
        }
        Some((lane, self.ready.get_mut(lane)?.pop_front()?, most))
    }

    fn first_of(&self, order: &[usize]) -> Option<(usize, usize)> {
        let passed_over = |lane: usize| self.passed_over.get(lane).copied().unwrap_or(0);
        let mut waiting =
            order.iter().copied().filter(|lane| self.claimed & (1 << lane) == 0 && self.waits(*lane));
        let first = waiting.next()?;
        let Some(next) = waiting.next() else { return Some((first, usize::MAX)) };
        let worst = waiting
            .fold(next, |worst, lane| if passed_over(lane) > passed_over(worst) { lane } else { worst });
        if passed_over(worst) >= PATIENCE { Some((worst, 1)) } else { Some((first, PATIENCE)) }
    }

    fn waits(&self, lane: usize) -> bool {
        self.ready.get(lane).is_some_and(|ready| !ready.is_empty())
    }

    /// So many messages of this lane were given out, and others waited.
    fn given(&mut self, lane: usize, count: usize) {
        for (index, (passed_over, ready)) in self.passed_over.iter_mut().zip(&self.ready).enumerate() {
            if index != lane && !ready.is_empty() {
                *passed_over += count;
            }
        }
    }
}

/// Whose turn it is: the receiver of everything, or that of one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    Everything,
    Lane(usize),
}

impl Mailbox {
    pub(crate) fn new(lanes: &[LaneConfig], max_events: usize) -> Self {
        let mut order: Vec<usize> = (0..lanes.len()).collect();
        order.sort_by_key(|index| match lanes.get(*index).map(|lane| lane.priority) {
            Some(Priority::Weighted(weight)) => 256 - u16::from(weight),
            _ => 0,
        });
        Mailbox {
            state: Mutex::new(State {
                events: VecDeque::new(),
                ready: lanes.iter().map(|_| VecDeque::new()).collect(),
                passed_over: vec![0; lanes.len()],
                claimed: 0,
                closed: false,
            }),
            main: Signal::new(),
            lanes: lanes.iter().map(|_| Signal::new()).collect(),
            order,
            max_events,
            events_lost: AtomicU64::new(0),
        }
    }

    pub(crate) fn push_event(&self, event: Event) {
        let mut state = self.state.lock();
        if state.events.len() >= self.max_events {
            state.events.pop_front();
            self.events_lost.fetch_add(1, SeqCst);
        }
        state.events.push_back(event);
        drop(state);
        self.main.set();
    }

    /// These lanes (bit = index) of the link have messages.
    pub(crate) fn announce(&self, link: &Arc<LinkHandle>, lanes: u64) {
        // A lane that is in the list already will be looked at anyway.
        let new = lanes & !link.listed.fetch_or(lanes, SeqCst);
        if new == 0 {
            return;
        }
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        for (index, ready) in state.ready.iter_mut().enumerate() {
            if new & (1 << index) != 0 {
                ready.push_back(Arc::clone(link));
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

    /// Gives a lane a receiver of its own. False when it has one.
    pub(crate) fn claim(&self, lane: usize) -> bool {
        let mut state = self.state.lock();
        let bit = 1 << lane;
        let free = state.claimed & bit == 0;
        state.claimed |= bit;
        drop(state);
        if free && let Some(signal) = self.lanes.get(lane) {
            signal.set(); // What waited before is its own now.
        }
        free
    }

    pub(crate) fn unclaim(&self, lane: usize) {
        self.state.lock().claimed &= !(1 << lane);
        self.main.set();
    }

    pub(crate) fn ready(&self, reader: Reader) -> &Receiver<()> {
        match reader {
            Reader::Lane(lane) => self.lanes.get(lane).map_or(&self.main.ready, |signal| &signal.ready),
            Reader::Everything => &self.main.ready,
        }
    }

    /// Takes up to `max` messages and events, most urgent first, without waiting.
    pub(crate) fn take(&self, reader: Reader, max: usize) -> Result<Vec<Event>, Closed> {
        let mut taken = Vec::new();
        while taken.len() < max {
            let mut state = self.state.lock();
            if reader == Reader::Everything
                && let Some(event) = state.events.pop_front()
            {
                taken.push(event);
                continue;
            }
            let next = state.next(&self.order, reader);
            let closed = state.closed;
            drop(state);
            match next {
                Some((lane, link, most)) => {
                    let before = taken.len();
                    self.take_from(&link, lane, most.min(max - before), &mut taken);
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

    fn take_from(&self, link: &Arc<LinkHandle>, lane: usize, max: usize, taken: &mut Vec<Event>) {
        // Off the list before the inbox is looked at: what arrives from here on lists it again.
        link.listed.fetch_and(!(1 << lane), SeqCst);
        // Links take turns, a run of messages each.
        let more = link.take(lane, max, |message: Message| taken.push(Event::Message(message)));
        if more {
            self.announce(link, 1 << lane);
        }
    }

    /// Waits until something is there, and takes up to `max`. Empty when the time is over.
    pub(crate) fn wait(
        &self,
        reader: Reader,
        max: usize,
        deadline: Option<Instant>,
    ) -> Result<Vec<Event>, Closed> {
        loop {
            let taken = self.take(reader, max)?;
            if !taken.is_empty() {
                // Another thread may wait for what is left.
                self.pass_on(reader);
                return Ok(taken);
            }
            let ready = self.ready(reader);
            match deadline {
                Some(deadline) if deadline <= clock::now() => return Ok(Vec::new()),
                Some(deadline) => {
                    let _ = ready.recv_deadline(deadline);
                }
                None => {
                    let _ = ready.recv();
                }
            }
        }
    }

    /// Sets the signal again if something is left.
    fn pass_on(&self, reader: Reader) {
        let state = self.state.lock();
        let left = match reader {
            Reader::Lane(lane) => state.ready.get(lane).is_some_and(|ready| !ready.is_empty()),
            Reader::Everything => {
                let waits = |(index, ready): (usize, &VecDeque<_>)| {
                    state.claimed & (1 << index) == 0 && !ready.is_empty()
                };
                !state.events.is_empty() || state.ready.iter().enumerate().any(waits)
            }
        } || state.closed;
        drop(state);
        if left {
            match reader {
                Reader::Everything => self.main.set(),
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
        self.lanes.iter().for_each(Signal::set);
    }
}
