//! The event queue, the connections' readers and writers, and the timers.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::health::liveness::Ending;
use crate::id::{ConnId, Incarnation};
use crate::link::Writes;
use crate::link::harness::{self, Core, Fx};
use crate::link::{Link, Notice, Transmit};
use crate::wire::control::Hello;
use crate::wire::frame::Frame;
use crate::wire::reader::{FrameReader, ReadError};

use super::app::App;
use super::dice::Dice;
use super::ledger::Ledger;
use super::net::{Arrivals, Pipe, Source};
use super::plan::{MS, Plan, SECOND};
use super::waits::Waits;

#[derive(Debug)]
pub(super) enum Event {
    Dial {
        side: usize,
        slot: u8,
        replaces: bool,
    },
    Hello {
        side: usize,
        conn: usize,
    },
    Attach {
        side: usize,
        conn: usize,
    },
    HandshakeTimeout {
        side: usize,
        conn: usize,
    },
    Arrive {
        conn: usize,
        to: usize,
        bytes: Vec<u8>,
    },
    Eof {
        conn: usize,
        to: usize,
    },
    Sever {
        conn: usize,
        notice: [u64; 2],
    },
    /// The connection ends for this side, because of an error or because the link wants it closed.
    End {
        side: usize,
        conn: usize,
    },
    Poll {
        side: usize,
        conn: usize,
        ask: u64,
    },
    Timer {
        side: usize,
        at: u64,
    },
    Roster {
        side: usize,
        life: usize,
    },
    App {
        side: usize,
        life: usize,
    },
    Fault,
    Heal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Dialling,
    Attached,
    Ended,
}

/// One side's end of a connection.
pub(super) struct End {
    pub(super) id: ConnId,
    pub(super) state: State,
    pub(super) peer: Incarnation,
    pub(super) reader: FrameReader<Source>,
    pub(super) arrivals: Rc<RefCell<Arrivals>>,
    pub(super) ours: Option<Hello>,
    pub(super) theirs: Option<Hello>,
    pub(super) read_done: bool,
    pub(super) write_done: bool,
    /// The link has deferred this connection until the one that serves has answered.
    pub(super) probing: bool,
    asleep: bool,
    /// Numbers the writer's questions, so that an old alarm does not wake it.
    ask: u64,
}

pub(super) struct Conn {
    pub(super) slot: u8,
    pub(super) replaces: bool,
    pub(super) dialler: usize,
    /// Indexed by the side that writes.
    pub(super) pipes: [Pipe; 2],
    pub(super) ends: [End; 2],
}

pub(super) struct Side {
    pub(super) link: Core,
    pub(super) incarnation: Incarnation,
    pub(super) app: App,
    pub(super) next_conn: u64,
    /// When it last dialled a replacement, by slot.
    pub(super) replaced_at: [u64; 3],
    timer: Option<u64>,
}

pub(super) struct World<'a> {
    pub(super) plan: Plan,
    pub(super) dice: Dice<'a>,
    base: Instant,
    pub(super) now: u64,
    events: BTreeMap<(u64, u64), Event>,
    scheduled: u64,
    pub(super) sides: [Side; 2],
    pub(super) conns: Vec<Conn>,
    pub(super) ledger: Ledger,
    /// On each connection of each side.
    pub(super) waits: HashMap<(usize, ConnId), Waits>,
    pub(super) partitioned_until: u64,
    pub(super) healed: bool,
    pub(super) trace: bool,
    timers_in_a_row: u32,
}

impl<'a> World<'a> {
    pub(super) fn new(plan: Plan, mut dice: Dice<'a>, trace: bool) -> World<'a> {
        let sides = [0, 1].map(|side| Side {
            link: Link::new(plan.settings(side), dice.u64(..)),
            incarnation: Incarnation(dice.u64(..)),
            app: App::new(&plan, side),
            next_conn: 1,
            replaced_at: [0; 3],
            timer: None,
        });
        let mut world = World {
            dice,
            base: crate::clock::now(),
            now: 0,
            events: BTreeMap::new(),
            scheduled: 0,
            sides,
            conns: Vec::new(),
            ledger: Ledger::default(),
            waits: HashMap::new(),
            partitioned_until: 0,
            healed: false,
            trace,
            timers_in_a_row: 0,
            plan,
        };
        for side in 0..2 {
            world.sides[side].link.meter.tighten();
            world.at(0, Event::Roster { side, life: 0 });
            world.at(0, Event::App { side, life: 0 });
        }
        if world.plan.fault_every > 0 {
            let first = world.dice.u64(0..world.plan.fault_every);
            world.at(first, Event::Fault);
        }
        world.at(world.plan.chaos, Event::Heal);
        world
    }

    /// Runs until nothing that was promised is pending.
    pub(super) fn run(&mut self) {
        let limit = self.plan.chaos + 1000 * SECOND;
        while !(self.healed && self.ledger.is_quiet() && self.apps_are_done() && self.inboxes_are_empty()) {
            assert!(self.now < limit, "stuck: {}", self.stuck());
            self.step();
        }
        self.watch_end();
        self.settle();
    }

    /// Runs on until both sides agree on one connection for each slot, which they do before long.
    pub(super) fn settle(&mut self) {
        let limit = self.now + 60 * SECOND;
        while let Some(quarrel) = self.quarrel() {
            assert!(self.now < limit, "{quarrel}: {}", self.stuck());
            self.step();
        }
    }

    /// Messages of a peer's earlier life are no open promise any longer, but they wait for the application
    /// all the same.
    fn inboxes_are_empty(&self) -> bool {
        self.sides.iter().flat_map(|side| &side.link.lanes).all(|lane| lane.inb.inbox_len() == 0)
    }

    /// Runs for so long.
    pub(super) fn run_for(&mut self, micros: u64) {
        let until = self.now + micros;
        while self.events.first_key_value().is_some_and(|((at, _), _)| *at <= until) {
            self.step();
        }
        self.now = until;
    }

    fn step(&mut self) {
        let Some(((at, _), event)) = self.events.pop_first() else { panic!("nothing left to happen") };
        self.now = at;
        if self.trace {
            match &event {
                Event::Arrive { conn, to, bytes } => {
                    eprintln!("{at:>10} Arrive {{ conn: {conn}, to: {to}, bytes: {} }}", bytes.len());
                }
                event => eprintln!("{at:>10} {event:?}"),
            }
        }
        if !matches!(event, Event::Timer { .. }) {
            self.timers_in_a_row = 0;
        }
        match event {
            Event::Dial { side, slot, replaces } => self.dial(side, slot, replaces),
            Event::Hello { side, conn } => self.say_hello(side, conn),
            Event::Attach { side, conn } => self.attach(side, conn),
            Event::HandshakeTimeout { side, conn } => {
                if self.conns[conn].ends[side].state == State::Dialling {
                    self.end(side, conn);
                }
            }
            Event::Arrive { conn, to, bytes } => self.arrive(conn, to, &bytes),
            Event::Eof { conn, to } => {
                let pipe = &self.conns[conn].pipes[1 - to];
                if !pipe.severed && !pipe.hole {
                    self.conns[conn].ends[to].arrivals.borrow_mut().eof = true;
                    self.read(to, conn);
                }
            }
            Event::Sever { conn, notice } => self.sever(conn, notice),
            Event::End { side, conn } => self.end(side, conn),
            Event::Poll { side, conn, ask } => {
                if self.conns[conn].ends[side].ask == ask {
                    self.poll(side, conn);
                }
            }
            Event::Timer { side, at } => self.fire(side, at),
            Event::Roster { side, life } => self.roster(side, life),
            Event::App { side, life } => self.app(side, life),
            Event::Fault => self.fault(),
            Event::Heal => self.heal(),
        }
    }

    // --- time -----------------------------------------------------------------------------------

    pub(super) fn at(&mut self, at: u64, event: Event) {
        assert!(at >= self.now);
        self.scheduled += 1;
        self.events.insert((at, self.scheduled), event);
    }

    pub(super) fn after(&mut self, most: u64, event: Event) {
        let at = self.now + self.dice.u64(0..=most);
        self.at(at, event);
    }

    pub(super) fn instant(&self) -> Instant {
        self.instant_at(self.now)
    }

    pub(super) fn instant_at(&self, at: u64) -> Instant {
        self.base + Duration::from_micros(at)
    }

    /// The first whole microsecond that is not before `at`.
    pub(super) fn micros(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.base).as_nanos().div_ceil(1000) as u64
    }

    /// A timer fires at the time that the link asked for, and at no other.
    fn fire(&mut self, side: usize, at: u64) {
        if self.sides[side].timer != Some(at) {
            return;
        }
        self.timers_in_a_row += 1;
        assert!(self.timers_in_a_row < 1000, "timers fire in a row without an end");
        let (now, mut output) = (self.instant(), Fx::default());
        self.sides[side].timer = None;
        self.sides[side].link.handle_timeout(now, &mut output);
        let next = self.sides[side].link.next_timeout();
        assert!(next.is_none_or(|next| next > now), "a timer that does not move on would spin");
        self.apply(side, output);
    }

    // --- what the link wants --------------------------------------------------------------------

    pub(super) fn apply(&mut self, side: usize, output: Fx) {
        let now = self.now;
        for ended in output.ended {
            for token in ended.tokens.iter() {
                self.ledger.ended(side, token.number, ended.outcome, now, &self.plan);
            }
        }
        for (waiter, result) in output.replies {
            self.ledger.replied(side, waiter, result, now, &self.plan);
        }
        for notice in output.notices {
            if self.trace {
                eprintln!("{now:>10}   {side}: {notice:?}");
            }
            match notice {
                Notice::Lost { .. } => assert!(self.plan.forgets),
                Notice::PeerRestarted { .. } => assert!(self.ledger.lives[1 - side] > 0),
                Notice::Repeated { .. } => assert!(self.ledger.lives[side] > 0),
                Notice::Replaced { old, new } => self.check_replaced(side, old, new),
                Notice::ConnDegraded(_) | Notice::ConnHealthy(_) | Notice::Learned { .. } => {}
                Notice::PoolChanged | Notice::LaneUnknown(_) | Notice::SmallerMessages { .. } => {}
                Notice::Joined(_) | Notice::Suspect(_) | Notice::Recovered(_) | Notice::Goaway(..) => {}
            }
        }
        for (id, _) in output.close {
            if let Some(conn) = self.find(side, id) {
                self.after(5 * MS, Event::End { side, conn });
            }
        }
        for id in output.wake {
            let Some(conn) = self.find(side, id) else { continue };
            assert!(self.conns[conn].ends[side].asleep, "a writer is woken that does not sleep");
            self.ask_again(side, conn, now);
        }
        self.sides[side].app.arrived |= output.arrived;
        self.sides[side].app.space |= output.space;
        self.sides[side].link.check();
        let next = self.sides[side].link.next_timeout().map(|at| self.micros(at).max(now));
        if next != self.sides[side].timer {
            self.sides[side].timer = next;
            if let Some(at) = next {
                self.at(at, Event::Timer { side, at });
            }
        }
    }

    pub(super) fn find(&self, side: usize, id: ConnId) -> Option<usize> {
        self.conns.iter().rposition(|conn| {
            let end = &conn.ends[side];
            end.id == id && end.state != State::Ended
        })
    }

    // --- the writer -----------------------------------------------------------------------------

    /// Lets the writer ask at that time, and forget its alarm.
    pub(super) fn ask_again(&mut self, side: usize, conn: usize, at: u64) {
        let end = &mut self.conns[conn].ends[side];
        end.asleep = false;
        end.ask += 1;
        let ask = end.ask;
        self.at(at, Event::Poll { side, conn, ask });
    }

    fn poll(&mut self, side: usize, conn: usize) {
        let end = &self.conns[conn].ends[side];
        if end.state != State::Attached || end.write_done {
            return;
        }
        let (id, now) = (end.id, self.instant());
        let mut output = Fx::default();
        let before = self.before_batch(side, id);
        let writes = if self.dice.u64(0..4) == 0 { Writes::InTurn } else { Writes::ForOne };
        let (bytes, transmit) = harness::write(&mut self.sides[side].link, id, writes, now, &mut output);
        self.check_batch(side, id, before, &bytes);
        self.write(conn, side, &bytes);
        match transmit {
            Transmit::Finish => {
                self.conns[conn].ends[side].write_done = true;
                self.send_eof(conn, side);
                if self.conns[conn].ends[side].read_done {
                    self.after(MS, Event::End { side, conn });
                }
            }
            Transmit::Continue { .. } if !bytes.is_empty() => {
                let busy = bytes.len() as u64 * self.plan.byte_time + self.dice.u64(1..100);
                self.ask_again(side, conn, self.now + busy);
            }
            Transmit::Continue { at, .. } => {
                if let Some(at) = at {
                    self.ask_again(side, conn, self.micros(at));
                }
                self.conns[conn].ends[side].asleep = true;
            }
        }
        self.apply(side, output);
    }

    /// Puts bytes into the pipe.
    pub(super) fn write(&mut self, conn: usize, from: usize, bytes: &[u8]) {
        let pipe = &mut self.conns[conn].pipes[from];
        if pipe.severed {
            return;
        }
        let left = pipe.cut_at.map_or(usize::MAX, |at| (at - pipe.sent) as usize);
        let mut bytes = &bytes[..bytes.len().min(left)];
        pipe.sent += bytes.len() as u64;
        let cut = pipe.cut_at == Some(pipe.sent);
        while !bytes.is_empty() && !self.conns[conn].pipes[from].hole {
            let (piece, rest) = bytes.split_at(self.dice.usize(1..=self.plan.piece.min(bytes.len())));
            bytes = rest;
            let jitter = self.dice.u64(0..self.plan.jitter);
            let at = self.conns[conn].pipes[from].arrival(self.now, jitter);
            self.at(at, Event::Arrive { conn, to: 1 - from, bytes: piece.to_vec() });
        }
        if cut {
            let at = self.conns[conn].pipes[from].arrival(self.now, 0);
            let notice = self.plan.cut_notice;
            self.at(at, Event::Sever { conn, notice });
        }
    }

    pub(super) fn send_eof(&mut self, conn: usize, from: usize) {
        if !self.conns[conn].pipes[from].hole {
            let at = self.conns[conn].pipes[from].arrival(self.now, 0);
            self.at(at, Event::Eof { conn, to: 1 - from });
        }
    }

    // --- the reader -----------------------------------------------------------------------------

    fn arrive(&mut self, conn: usize, to: usize, bytes: &[u8]) {
        let pipe = &self.conns[conn].pipes[1 - to];
        if !pipe.severed && !pipe.hole {
            self.conns[conn].ends[to].arrivals.borrow_mut().bytes.extend(bytes);
            self.read(to, conn);
        }
    }

    /// Reads what has arrived. Before the link is joined: the HELLO and no more.
    pub(super) fn read(&mut self, side: usize, conn: usize) {
        loop {
            let end = &mut self.conns[conn].ends[side];
            if end.state == State::Ended || end.read_done {
                return;
            }
            let attached = end.state == State::Attached;
            if !attached && end.theirs.is_some() {
                return;
            }
            let id = end.id;
            match end.reader.next_buffered() {
                Ok(Some(Frame::Hello(hello))) if !attached => {
                    end.theirs = Some(hello);
                    if !self.plan.dials_by_hand || conn == 0 {
                        self.after(self.plan.delay, Event::Attach { side, conn });
                    }
                }
                Ok(Some(frame)) => {
                    assert!(attached, "HELLO is the first frame");
                    let (now, mut output) = (self.instant(), Fx::default());
                    if let Err(violation) = self.sides[side].link.handle_frame(id, frame, now, &mut output) {
                        panic!("side {side}, connection {conn}: an honest peer is accused: {violation}");
                    }
                    self.apply(side, output);
                }
                Ok(None) => match end.reader.fill() {
                    Ok(_) if attached => {
                        let (now, mut output) = (self.instant(), Fx::default());
                        self.sides[side].link.handle_received(id, now, &mut output);
                        self.apply(side, output);
                    }
                    Ok(_) => {}
                    Err(ReadError::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                    Err(error) => return self.read_ended(side, conn, &error),
                },
                Err(error) => panic!("an honest peer sent what is no frame: {error:?}"),
            }
        }
    }

    fn read_ended(&mut self, side: usize, conn: usize, error: &ReadError) {
        let orderly = self.conns[conn].ends[1 - side].write_done;
        assert!(!orderly || matches!(error, ReadError::Eof), "a drained connection ended inside a frame");
        let id = self.conns[conn].ends[side].id;
        let mut conns = self.sides[side].link.conns().iter();
        let draining = conns.any(|conn| conn.id == id && conn.draining().is_some());
        self.conns[conn].ends[side].read_done = true;
        if !draining || self.conns[conn].ends[side].write_done {
            self.end(side, conn);
        }
    }

    /// The connection has ended for this side. The other side hears of it by EOF, if it can.
    pub(super) fn end(&mut self, side: usize, conn: usize) {
        let end = &mut self.conns[conn].ends[side];
        let (id, state) = (end.id, end.state);
        end.state = State::Ended;
        end.ask += 1;
        if state == State::Ended {
            return;
        }
        if !self.conns[conn].ends[side].write_done && !self.conns[conn].pipes[side].severed {
            self.send_eof(conn, side);
        }
        if self.conns[conn].ends[side].probing {
            self.sides[side].link.stop_probing();
        }
        if state == State::Attached {
            let (now, mut output) = (self.instant(), Fx::default());
            let endings = [Ending::Deliberate, Ending::Closed, Ending::Failed];
            let ending = endings[self.dice.usize(..endings.len())];
            self.sides[side].link.handle_conn_ended(id, ending, now, &mut output);
            self.apply(side, output);
        }
    }
}

impl End {
    pub(super) fn new(peer: Incarnation, seed: u64) -> End {
        let (source, arrivals) = Source::new(seed);
        End {
            id: ConnId(0),
            state: State::Dialling,
            peer,
            reader: FrameReader::new(source),
            arrivals,
            ours: None,
            theirs: None,
            read_done: false,
            write_done: false,
            probing: false,
            asleep: false,
            ask: 0,
        }
    }
}
