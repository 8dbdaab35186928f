//! Two honest links, and a network and two applications that do what the script says.
//!
//! The simulation of [`crate::link`] draws such runs at random; here the fuzzer looks for those that lead
//! somewhere new. Modelled as there: bytes arrive in order on each connection or not at all, HELLO comes
//! first, and a side reads nothing else before it has joined the connection to its link.

#![allow(clippy::indexing_slicing)] // A panic is how a fuzz target speaks.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::script::Script;
use super::side::{Fx, Ledger, Side, lanes, settings};
use crate::clock;
use crate::health::liveness::Ending;
use crate::id::{ConnId, Incarnation};
use crate::lane::AckMode;
use crate::link::{AttachError, NewConn, Ticket, Transmit};
use crate::outcome::DropReason;
use crate::wire::control::{GoawayReason, Hello};
use crate::wire::frame::Frame;
use crate::wire::stream::MessageKind;

/// An honest peer is never accused; each message arrives once in each life of the receiver, in order on its
/// lane; what is said to be taken was; and whatever was accepted ends once.
pub fn pair(data: &[u8]) {
    let mut script = Script::new(data);
    let mut pair = Pair::new(&mut script);
    while !script.is_over() {
        pair.step(&mut script);
        pair.sides.iter().for_each(|node| node.side.link.check());
    }
    pair.come_to_rest();
}

/// One of the two nodes.
struct Node {
    side: Side,
    incarnation: u64,
    ledger: Ledger,
    small: bool,
    hurried: bool,
    /// The highest number that its application has taken, lane by lane.
    seen: [u64; 3],
    /// Messages that the application has and is not done with: lane, ticket, number.
    tickets: Vec<(usize, Ticket, u64)>,
    requests: Vec<(u64, Ticket)>,
    asked: Vec<(u64, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Dialling,
    Joined,
    Ended,
}

/// One side's end of a connection.
struct End {
    state: State,
    ours: Option<Hello>,
    theirs: Option<Hello>,
    /// The life of the peer to which the hand was given.
    peer: Incarnation,
    /// The messages on their way here. The last one says that no more will come.
    comes: VecDeque<Option<Frame>>,
    /// The link wants it closed.
    condemned: bool,
    /// It waits for the outcome of a probe.
    probes: bool,
    wrote_last: bool,
    read_last: bool,
}

struct Conn {
    id: ConnId,
    dialler: usize,
    slot: u8,
    replaces: bool,
    /// Swallows everything from now on.
    hole: bool,
    /// Indexed by side.
    ends: [End; 2],
}

struct Pair {
    now: Instant,
    sides: [Node; 2],
    conns: Vec<Conn>,
    next_conn: u64,
    lives: u64,
    /// The messages that an application of either side has taken, in any life.
    taken: HashSet<(usize, u64)>,
}

impl Node {
    fn new(side: usize, small: bool, hurried: bool, incarnation: u64, ledger: Ledger) -> Self {
        Node {
            side: Side::new(settings(side, lanes(small), hurried), incarnation),
            incarnation,
            ledger,
            small,
            hurried,
            seen: [0; 3],
            tickets: Vec::new(),
            requests: Vec::new(),
            asked: Vec::new(),
        }
    }
}

impl End {
    fn new(peer: u64) -> Self {
        End {
            state: State::Dialling,
            ours: None,
            theirs: None,
            peer: Incarnation(peer),
            comes: VecDeque::new(),
            condemned: false,
            probes: false,
            wrote_last: false,
            read_last: false,
        }
    }
}

impl Pair {
    fn new(script: &mut Script<'_>) -> Self {
        let sides = [0, 1].map(|side| {
            let what = script.byte();
            Node::new(side, what & 1 == 1, what & 6 == 6, side as u64 + 1, Ledger::default())
        });
        Pair { now: clock::now(), sides, conns: Vec::new(), next_conn: 1, lives: 2, taken: HashSet::new() }
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let what = script.byte();
        let (side, lane) = (usize::from(what & 1), script.small() % 3);
        let now = self.now;
        match what >> 1 {
            0..=23 => {
                let asks = what >> 1 >= 20;
                let node = &mut self.sides[side];
                let mut output = Fx::default();
                let sent = node.side.send(script, lane, asks, now, &mut node.ledger, &mut output);
                node.asked.extend(sent.filter(|_| asks));
                self.apply(side, output);
            }
            24..=35 => _ = self.take(side, lane),
            36..=39 => {
                let index = script.below(self.sides[side].tickets.len());
                index.into_iter().for_each(|index| self.done(side, index));
            }
            40 | 41 => self.reply(side, script),
            42 | 43 => self.cancel(side, script),
            44..=49 => {
                self.dial(side, script);
                self.join_all();
            }
            50 => self.dial(side, script),
            51 => self.each(script, |pair, conn| pair.hello(side, conn)),
            52 => self.each(script, |pair, conn| pair.attach(side, conn)),
            53..=76 => self.each(script, |pair, conn| _ = pair.transmit(side, conn)),
            77..=104 => {
                let count = script.small();
                self.each(script, |pair, conn| pair.deliver(side, conn, count));
            }
            105 => {
                let left = [script.small(), script.small()];
                self.each(script, |pair, conn| pair.cut(conn, left));
            }
            106 => self.each(script, |pair, conn| {
                pair.conns[conn].hole = true;
                pair.conns[conn].ends.iter_mut().for_each(|end| end.comes.clear());
            }),
            107..=110 => {
                self.now += Duration::from_millis(u64::from(script.word()) >> (script.byte() % 16));
                let who = script.byte() % 4;
                (0..2).filter(|side| who != *side + 1).for_each(|side| self.timeout(usize::from(side)));
            }
            111 | 112 => self.alarm(side),
            113 => self.manage(side, script),
            114 => self.restart(side),
            115..=122 => self.flush(),
            _ => self.end_condemned(),
        }
    }

    fn each(&mut self, script: &mut Script<'_>, act: impl FnOnce(&mut Self, usize)) {
        // The latest connections are those that matter.
        let back = script.small() % 4;
        if let Some(conn) = self.conns.len().checked_sub(back + 1) {
            act(self, conn);
        }
    }

    fn apply(&mut self, side: usize, output: Fx) {
        for (id, _) in &output.close {
            let conn = self.conns.iter_mut().rev().find(|conn| conn.id == *id);
            conn.into_iter().for_each(|conn| conn.ends[side].condemned = true);
        }
        let ledger = &mut self.sides[side].ledger;
        ledger.note(output);
        for number in ledger.taken.drain(..) {
            assert!(self.taken.contains(&(side, number)), "{number} of {side} was never taken");
        }
    }

    // --- the applications ----------------------------------------------------------------------

    fn take(&mut self, side: usize, lane: usize) -> bool {
        let node = &mut self.sides[side];
        let mut output = Fx::default();
        let Some(arrived) = node.side.link.take(lane, self.now, &mut output) else { return false };
        let body = arrived.payload.into_bytes();
        let number = body.first_chunk().map_or(0, |number| u64::from_le_bytes(*number));
        assert!(number > node.seen[lane], "{number} after {}", node.seen[lane]);
        node.seen[lane] = number;
        if let MessageKind::Request { id, .. } = arrived.kind {
            node.requests.push((id, arrived.ticket));
        }
        match node.side.link.ack_mode(lane) {
            AckMode::Received => drop(self.taken.insert((1 - side, number))),
            AckMode::Done => node.tickets.push((lane, arrived.ticket, number)),
        }
        self.apply(side, output);
        true
    }

    fn done(&mut self, side: usize, index: usize) {
        let node = &mut self.sides[side];
        let (lane, ticket, number) = node.tickets.swap_remove(index);
        let mut output = Fx::default();
        node.side.link.done(lane, ticket, self.now, &mut output);
        self.taken.insert((1 - side, number));
        self.apply(side, output);
    }

    fn reply(&mut self, side: usize, script: &mut Script<'_>) {
        let node = &mut self.sides[side];
        let Some((id, ticket)) = script.pick(&node.requests) else { return };
        let mut output = Fx::default();
        let token = node.ledger.token(script.flag());
        let number = token.number();
        let replied = node.side.link.reply(id, ticket, &vec![9; script.small()].into(), token, &mut output);
        node.ledger.accepted(number, replied.is_ok());
        self.apply(side, output);
    }

    fn cancel(&mut self, side: usize, script: &mut Script<'_>) {
        let node = &mut self.sides[side];
        let Some(index) = script.below(node.asked.len()) else { return };
        let (id, number) = node.asked.swap_remove(index);
        let mut output = Fx::default();
        node.side.link.cancel(id, &mut output);
        node.ledger.cancelled(number);
        self.apply(side, output);
    }

    fn manage(&mut self, side: usize, script: &mut Script<'_>) {
        let mut output = Fx::default();
        let (now, what) = (self.now, script.byte());
        let last = self.conns.last().map(|conn| conn.id);
        let link = &mut self.sides[side].side.link;
        match what % 4 {
            0 | 1 => link.set_withheld(what & 4 == 4, now, &mut output),
            2 => last.into_iter().for_each(|conn| link.drain(conn, GoawayReason::Retired, now, &mut output)),
            _ => {
                let gap = Duration::from_millis(u64::from(script.word()));
                self.now += gap;
                link.handle_pause(gap, self.now);
            }
        }
        self.apply(side, output);
    }

    // --- time ----------------------------------------------------------------------------------

    fn timeout(&mut self, side: usize) {
        let mut output = Fx::default();
        let link = &mut self.sides[side].side.link;
        link.handle_timeout(self.now, &mut output);
        let next = link.next_timeout();
        assert!(next.is_none_or(|next| next > self.now), "a timer that does not move on would spin");
        self.apply(side, output);
    }

    fn alarm(&mut self, side: usize) {
        if let Some(next) = self.sides[side].side.link.next_timeout() {
            self.now = self.now.max(next);
            self.timeout(side);
        }
    }

    // --- connections ---------------------------------------------------------------------------

    fn dial(&mut self, side: usize, script: &mut Script<'_>) {
        let what = script.byte();
        self.connect(side, what % 3, what & 8 == 8);
    }

    fn connect(&mut self, dialler: usize, slot: u8, replaces: bool) {
        let ends = [1, 0].map(|peer: usize| End::new(self.sides[peer].incarnation));
        let id = ConnId(self.next_conn);
        self.next_conn += 1;
        self.conns.push(Conn { id, dialler, slot, replaces, hole: false, ends });
    }

    fn join_all(&mut self) {
        let Some(conn) = self.conns.len().checked_sub(1) else { return };
        for side in [0, 1] {
            self.hello(side, conn);
        }
        for side in [0, 1] {
            self.deliver(side, conn, 1);
            self.attach(side, conn);
        }
    }

    fn hello(&mut self, side: usize, conn: usize) {
        let (number, conn) = (conn, &mut self.conns[conn]);
        let end = &mut conn.ends[side];
        if end.state != State::Dialling || end.ours.is_some() {
            return;
        }
        let (slot, replaces) = if conn.dialler == side { (conn.slot, conn.replaces) } else { (0, false) };
        let hello = self.sides[side].side.link.hello(end.peer, slot, replaces);
        end.ours = Some(hello.clone());
        self.put(number, side, [Some(Frame::Hello(hello))]);
    }

    /// The bytes that a side writes come to the other, if any do.
    fn put(&mut self, conn: usize, from: usize, frames: impl IntoIterator<Item = Option<Frame>>) {
        let conn = &mut self.conns[conn];
        let end = &mut conn.ends[1 - from];
        if !conn.hole && end.state != State::Ended {
            end.comes.extend(frames);
        }
    }

    fn attach(&mut self, side: usize, conn: usize) {
        let end = &self.conns[conn].ends[side];
        let (State::Dialling, Some(ours), Some(theirs)) = (end.state, &end.ours, &end.theirs) else { return };
        let new = NewConn {
            id: self.conns[conn].id,
            handle: self.conns[conn].id,
            dialled: self.conns[conn].dialler == side,
            incarnation: end.peer,
            ours: ours.clone(),
            theirs: theirs.clone(),
        };
        let mut output = Fx::default();
        let joined = self.sides[side].side.link.attach(&new, self.now, &mut output);
        self.conns[conn].ends[side].probes = false;
        self.apply(side, output);
        match joined {
            Ok(()) => self.conns[conn].ends[side].state = State::Joined,
            Err(AttachError::Probing(until)) => {
                assert!(until > self.now, "asking again at once would spin");
                self.conns[conn].ends[side].probes = true;
            }
            Err(AttachError::Retry | AttachError::IncumbentAlive) => self.end(side, conn),
            Err(error) => unreachable!("an honest peer is refused: {error:?}"),
        }
    }

    /// Lets the writer write once. True if it may have more to write.
    fn transmit(&mut self, side: usize, conn: usize) -> bool {
        let end = &self.conns[conn].ends[side];
        if end.state != State::Joined || end.wrote_last {
            return false;
        }
        let mut output = Fx::default();
        let id = self.conns[conn].id;
        let (frames, bytes, transmit) = self.sides[side].side.transmit(id, self.now, &mut output);
        self.put(conn, side, frames.into_iter().map(Some));
        let finished = transmit == Transmit::Finish;
        if finished {
            self.put(conn, side, [None]);
            self.conns[conn].ends[side].wrote_last = true;
        }
        self.apply(side, output);
        if finished && self.conns[conn].ends[side].read_last {
            self.end(side, conn);
        }
        !finished && !bytes.is_empty()
    }

    /// Lets the reader read so many frames, as far as they are there.
    fn deliver(&mut self, side: usize, conn: usize, count: usize) {
        for _ in 0..count {
            let id = self.conns[conn].id;
            let end = &mut self.conns[conn].ends[side];
            if end.state == State::Ended || end.read_last {
                return;
            }
            let joined = end.state == State::Joined;
            if !joined && end.theirs.is_some() {
                return;
            }
            let Some(next) = end.comes.pop_front() else { return };
            let wrote_last = end.wrote_last;
            let link = &mut self.sides[side].side.link;
            match next {
                None => {
                    let drains = link.conns().iter().any(|conn| conn.id == id && conn.draining().is_some());
                    self.conns[conn].ends[side].read_last = true;
                    if !drains || wrote_last {
                        self.end(side, conn);
                    }
                }
                Some(Frame::Hello(hello)) if !joined => end.theirs = Some(hello),
                Some(frame) => {
                    let mut output = Fx::default();
                    link.handle_received(id, self.now, &mut output);
                    let handled = link.handle_frame(id, frame, self.now, &mut output);
                    assert_eq!(handled, Ok(()), "an honest peer is accused");
                    self.apply(side, output);
                }
            }
        }
    }

    /// This side is done with a connection.
    fn end(&mut self, side: usize, conn: usize) {
        let end = &mut self.conns[conn].ends[side];
        let before = std::mem::replace(&mut end.state, State::Ended);
        let (probes, wrote_last) = (end.probes, end.wrote_last);
        end.comes.clear();
        if before == State::Ended {
            return;
        }
        if !wrote_last {
            self.put(conn, side, [None]);
        }
        let mut output = Fx::default();
        let id = self.conns[conn].id;
        let link = &mut self.sides[side].side.link;
        if probes {
            link.stop_probing();
        }
        if before == State::Joined {
            let ending = if id.get().is_multiple_of(2) { Ending::Failed } else { Ending::Closed };
            link.handle_conn_ended(id, ending, self.now, &mut output);
        }
        self.apply(side, output);
    }

    fn end_condemned(&mut self) {
        for conn in 0..self.conns.len() {
            for side in [0, 1] {
                if self.conns[conn].ends[side].condemned {
                    self.end(side, conn);
                }
            }
        }
    }

    /// The network resets a connection: of what was on its way so many frames arrive, by side.
    fn cut(&mut self, conn: usize, left: [usize; 2]) {
        let conn = &mut self.conns[conn];
        for (end, left) in conn.ends.iter_mut().zip(left).filter(|(end, _)| end.state != State::Ended) {
            end.comes.truncate(left);
            end.comes.push_back(None);
        }
        conn.hole = true;
    }

    /// A process dies and another one takes its place.
    fn restart(&mut self, side: usize) {
        self.lives += 1;
        let old = &self.sides[side];
        let ledger = old.ledger.next_life();
        self.sides[side] = Node::new(side, old.small, old.hurried, self.lives, ledger);
        for conn in 0..self.conns.len() {
            if self.conns[conn].ends[side].state != State::Ended {
                self.cut(conn, [0; 2]);
                self.conns[conn].ends[side].state = State::Ended;
            }
        }
    }

    /// Everything that both sides have to say goes over, as far as anything does.
    fn flush(&mut self) {
        for conn in self.conns.len().saturating_sub(8)..self.conns.len() {
            for side in [0, 1] {
                let mut left = 20;
                while left > 0 && self.transmit(side, conn) {
                    left -= 1;
                }
                self.deliver(1 - side, conn, usize::MAX);
            }
        }
    }

    /// The network heals, and the applications take all there is: then nothing is left under way.
    fn come_to_rest(&mut self) {
        for conn in 0..self.conns.len() {
            self.end(0, conn);
            self.end(1, conn);
        }
        (0..2).for_each(|side| self.sides[side].side.link.set_withheld(false, self.now, &mut Fx::default()));
        for _ in 0..200 {
            self.now += Duration::from_millis(50);
            for side in [0, 1] {
                self.timeout(side);
                for lane in 0..3 {
                    while self.take(side, lane) {}
                }
                while !self.sides[side].tickets.is_empty() {
                    self.done(side, 0);
                }
            }
            self.end_condemned();
            let serves = |node: &Node| node.side.link.conns().iter().any(|conn| conn.is_serving());
            if !self.sides.iter().all(serves) {
                self.connect(0, 0, false);
                self.join_all();
            }
            self.flush();
            self.sides.iter().for_each(|node| node.side.link.check());
            if self.sides.iter().all(|node| node.side.link.is_flushed()) {
                return self.close();
            }
        }
        unreachable!("stuck: {:?}", self.sides.iter().map(|node| node.side.link.conns()).collect::<Vec<_>>());
    }

    fn close(&mut self) {
        for side in [0, 1] {
            let mut output = Fx::default();
            self.sides[side].side.link.close(DropReason::Shutdown, &mut output);
            self.apply(side, output);
            self.sides[side].ledger.check_end();
        }
    }
}
