//! Dialling, HELLO, and joining the link, in whatever order the two sides come to it.

use crate::id::ConnId;
use crate::link::harness::Fx;
use crate::link::{AttachError, NewConn};

use super::net::Pipe;
use super::plan::{MS, SECOND};
use super::world::{Conn, End, Event, State, World};

impl World<'_> {
    /// Sees to it that each slot has a connection, as the node's roster does.
    pub(super) fn roster(&mut self, side: usize, life: usize) {
        if self.ledger.lives[side] != life {
            return;
        }
        let again = self.now + 20 * MS + self.dice.u64(0..50 * MS);
        self.at(again, Event::Roster { side, life });
        if self.plan.dials_by_hand {
            return;
        }
        for slot in 0..self.plan.slots {
            let dialling = self.conns.iter().rev().take(50).any(|conn| {
                conn.slot == slot && conn.dialler == side && conn.ends[side].state == State::Dialling
            });
            let mut conns = self.sides[side].link.conns().iter().filter(|conn| conn.slot == slot);
            let serves = conns.clone().any(|conn| conn.is_serving());
            let may_dial = self.plan.dials[side] || self.plan.dials_back && serves;
            if may_dial && !dialling && !conns.any(|conn| conn.is_up() && !conn.poor) {
                self.dial(side, slot, serves);
            }
        }
    }

    pub(super) fn dial(&mut self, side: usize, slot: u8, replaces: bool) {
        // A settings' `suspect_after` below the round trip distrusts every newcomer: not too often.
        let replaced_at = &mut self.sides[side].replaced_at[usize::from(slot)];
        if self.now < self.partitioned_until || replaces && self.now < *replaced_at + SECOND {
            return;
        }
        if replaces {
            *replaced_at = self.now;
        }
        let conn = self.connect(side, slot, replaces);
        self.after(self.plan.delay, Event::Hello { side, conn });
        self.after(2 * self.plan.delay, Event::Hello { side: 1 - side, conn });
    }

    /// A connection on which nobody has said anything yet.
    pub(super) fn connect(&mut self, dialler: usize, slot: u8, replaces: bool) -> usize {
        let index = self.conns.len();
        let mut pipes = [(); 2].map(|()| Pipe { delay: self.plan.delay, ..Pipe::default() });
        if let Some((side, at)) = self.plan.cuts.get(index) {
            pipes[*side].cut_at = Some(*at);
        }
        let ends = [1, 0].map(|peer: usize| End::new(self.sides[peer].incarnation, self.dice.u64(..)));
        self.conns.push(Conn { slot, replaces, dialler, pipes, ends });
        for side in 0..2 {
            self.at(self.now + 3 * SECOND, Event::HandshakeTimeout { side, conn: index });
        }
        index
    }

    pub(super) fn say_hello(&mut self, side: usize, conn: usize) {
        let wire = &mut self.conns[conn];
        let end = &mut wire.ends[side];
        if end.state == State::Ended {
            return;
        }
        let node = &mut self.sides[side];
        end.id = ConnId(node.next_conn);
        node.next_conn += 1;
        let dialled = wire.dialler == side;
        let (slot, replaces) = if dialled { (wire.slot, wire.replaces) } else { (0, false) };
        let hello = node.link.hello(end.peer, slot, replaces);
        let mut bytes = Vec::new();
        hello.encode(&mut bytes).unwrap();
        end.ours = Some(hello);
        self.write(conn, side, &bytes);
        if !self.plan.dials_by_hand || conn == 0 {
            self.attach(side, conn);
        }
    }

    /// Both HELLOs are there: joins, unless this side is not ready to.
    pub(super) fn attach(&mut self, side: usize, conn: usize) {
        let end = &self.conns[conn].ends[side];
        let (State::Dialling, Some(ours), Some(theirs)) = (end.state, &end.ours, &end.theirs) else { return };
        let new = NewConn {
            id: end.id,
            handle: end.id,
            dialled: self.conns[conn].dialler == side,
            incarnation: end.peer,
            ours: ours.clone(),
            theirs: theirs.clone(),
        };
        let (now, mut output) = (self.instant(), Fx::default());
        let result = self.sides[side].link.attach(&new, now, &mut output);
        self.conns[conn].ends[side].probing = matches!(result, Err(AttachError::Probing(_)));
        if self.trace {
            let (ours, theirs) = (new.ours.session_id, new.theirs.session_id);
            eprintln!(
                "{:>10}   {side}: connection {conn} joins as {}, {ours:x} with {theirs:x}: {result:?}, then {:?}",
                self.now, new.id, self.sides[side].link.session
            );
        }
        match result {
            Ok(()) => {
                self.conns[conn].ends[side].state = State::Attached;
                self.apply(side, output);
                self.ask_again(side, conn, self.now);
                self.read(side, conn);
            }
            Err(AttachError::Probing(deadline)) => {
                assert!(deadline > now, "asking again at once would spin");
                self.apply(side, output);
                let at = self.micros(deadline).min(self.now + 30 * MS);
                self.at(at, Event::Attach { side, conn });
            }
            Err(AttachError::Retry | AttachError::IncumbentAlive) => {
                self.apply(side, output);
                self.end(side, conn);
            }
            Err(error) => panic!("side {side} refuses an honest peer: {error:?}"),
        }
    }
}
