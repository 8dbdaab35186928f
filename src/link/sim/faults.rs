//! Faults: cuts, black holes, lags, drains, partitions, restarts, withheld credit and pauses of the process.

use std::time::Duration;

use crate::health::kernel::KernelSample;
use crate::id::Incarnation;
use crate::link::harness::Fx;
use crate::link::{ConnSample, Link};

use crate::wire::control::GoawayReason;

use super::app::App;
use super::plan::{MS, SECOND};
use super::world::{Event, State, World};

/// A look at a connection whose kernel has fired a timeout, or has nothing in flight.
fn look(stalled: bool) -> ConnSample {
    let in_flight = u8::from(stalled);
    let kernel = KernelSample {
        unacked: in_flight.into(),
        retransmits: in_flight,
        bytes_acked: Some(1),
        ..KernelSample::default()
    };
    ConnSample { kernel: Some(kernel), ..ConnSample::default() }
}

impl World<'_> {
    pub(super) fn fault(&mut self) {
        if self.now >= self.plan.chaos {
            return;
        }
        self.after(2 * self.plan.fault_every, Event::Fault);
        let live: Vec<usize> = (0..self.conns.len())
            .rev()
            .take(20)
            .filter(|conn| self.conns[*conn].ends.iter().any(|end| end.state != State::Ended))
            .collect();
        let Some(conn) = self.dice.choice(live) else { return };
        let side = self.dice.usize(0..2);
        let notice = [0; 2].map(|_| self.dice.u64(0..=self.plan.notice));
        match self.dice.u8(..16) {
            0 | 1 => self.sever(conn, notice),
            2 | 3 => {
                let sent = self.conns[conn].pipes[side].sent;
                self.plan.cut_notice = notice;
                self.conns[conn].pipes[side].cut_at = Some(sent + self.dice.u64(1..5000));
            }
            4 if self.plan.pings => self.conns[conn].pipes[side].hole = true,
            5 if self.plan.pings => self.conns[conn].pipes.iter_mut().for_each(|pipe| pipe.hole = true),
            // Data that was sent on a lagging connection arrives long after its lanes moved on.
            6 => self.conns[conn].pipes[side].delay = self.dice.u64(100 * MS..4 * SECOND),
            7 => {
                let (id, now, mut output) = (self.conns[conn].ends[side].id, self.instant(), Fx::default());
                self.sides[side].link.drain(id, GoawayReason::Replaced, now, &mut output);
                self.apply(side, output);
            }
            8 if self.plan.restarts => self.restart(side),
            9 if self.plan.forgets => {
                self.partitioned_until = self.now + self.dice.u64(SECOND..8 * SECOND);
                for conn in 0..self.conns.len() {
                    let hole = self.plan.pings && self.dice.bool();
                    let wire = &mut self.conns[conn];
                    if wire.ends.iter().all(|end| end.state == State::Ended) {
                        continue;
                    }
                    if hole {
                        wire.pipes.iter_mut().for_each(|pipe| pipe.hole = true);
                    } else {
                        self.sever(conn, notice);
                    }
                }
            }
            // Only who dials can replace.
            10 if self.plan.dials[side] => {
                let slot = self.conns[conn].slot;
                self.dial(side, slot, true);
            }
            11 => {
                let (now, withheld, mut output) = (self.instant(), self.dice.bool(), Fx::default());
                self.sides[side].link.set_withheld(withheld, now, &mut output);
                self.apply(side, output);
            }
            12 => {
                let gap = Duration::from_micros(self.dice.u64(MS..500 * MS));
                let now = self.instant();
                self.sides[side].link.handle_pause(gap, now);
                self.apply(side, Fx::default());
            }
            13 => {
                let (id, poor) = (self.conns[conn].ends[side].id, self.dice.bool());
                let (now, mut output) = (self.instant(), Fx::default());
                self.sides[side].link.set_poor(id, poor, now, &mut output);
                self.apply(side, output);
            }
            14 => {
                let (id, stalled) = (self.conns[conn].ends[side].id, self.dice.bool());
                let (now, mut output) = (self.instant(), Fx::default());
                self.sides[side].link.handle_sample(id, &look(stalled), now, &mut output);
                self.apply(side, output);
            }
            _ => {
                let slot = self.dice.u8(..self.plan.slots);
                self.after(300 * MS, Event::Dial { side, slot, replaces: false });
            }
        }
    }

    /// No faults from now on, and those that would last are over.
    pub(super) fn heal(&mut self) {
        self.healed = true;
        let now = self.instant();
        for side in 0..2 {
            let ids: Vec<_> = self.sides[side].link.conns().iter().map(|conn| conn.id).collect();
            let mut output = Fx::default();
            let link = &mut self.sides[side].link;
            for id in ids {
                link.set_poor(id, false, now, &mut output);
                link.handle_sample(id, &look(false), now, &mut output);
            }
            link.set_withheld(false, now, &mut output);
            self.apply(side, output);
        }
    }

    /// Cuts a connection. Data under way is lost; each side notices so long after.
    pub(super) fn sever(&mut self, conn: usize, notice: [u64; 2]) {
        self.conns[conn].pipes.iter_mut().for_each(|pipe| pipe.severed = true);
        for (side, notice) in notice.into_iter().enumerate() {
            self.at(self.now + notice, Event::End { side, conn });
        }
    }

    /// The process dies and another one starts: nothing of its memory is left.
    pub(super) fn restart(&mut self, side: usize) {
        for conn in 0..self.conns.len() {
            let wire = &mut self.conns[conn];
            let silent = self.plan.pings && self.dice.bool() && wire.ends[1 - side].state == State::Attached;
            if wire.ends[side].state == State::Ended {
                continue;
            }
            wire.ends[side].state = State::Ended;
            wire.pipes.iter_mut().for_each(|pipe| pipe.severed = true);
            let handshake = wire.ends[1 - side].state == State::Dialling;
            if !silent {
                let late = if handshake { 0 } else { self.plan.notice };
                self.after(late, Event::End { side: 1 - side, conn });
            }
        }
        self.ledger.restarted(side);
        let left = self.sides[side].app.left;
        let seed = self.dice.u64(..);
        let node = &mut self.sides[side];
        node.link = Link::new(self.plan.settings(side), seed);
        node.link.meter.tighten();
        node.incarnation = Incarnation(seed);
        node.app = App::new(&self.plan, side);
        node.app.left = left;
        let life = self.ledger.lives[side];
        self.after(500 * MS, Event::Roster { side, life });
        self.after(500 * MS, Event::App { side, life });
        // Nothing is scheduled for the new link yet; this sets its timer.
        self.apply(side, Fx::default());
    }
}
