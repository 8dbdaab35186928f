//! The invariants after every step, in every batch, and at the end.

use crate::id::ConnId;
use crate::lane::Priority;
use crate::link::outbound::OVERSHOOT;
use crate::wire::header::{HEADER_LEN, Kind};

use super::world::{State, World};

/// The data that a connection could send before it was asked.
pub(super) struct Before {
    chunk: usize,
    urgent: bool,
    weighted: bool,
}

impl World<'_> {
    fn ready(&self, side: usize, id: ConnId, urgent: bool) -> bool {
        let lanes = self.sides[side].link.lanes.iter().zip(&self.plan.lanes[side]);
        lanes
            .into_iter()
            .any(|(lane, config)| (config.priority == Priority::Urgent) == urgent && lane.is_ready_on(id))
    }

    pub(super) fn before_batch(&self, side: usize, id: ConnId) -> Before {
        let link = &self.sides[side].link;
        let conn = link.conns().iter().find(|conn| conn.id == id);
        Before {
            chunk: conn.map_or(0, |conn| conn.pace.chunk()),
            urgent: self.ready(side, id, true),
            weighted: self.ready(side, id, false),
        }
    }

    pub(super) fn check_batch(&mut self, side: usize, id: ConnId, before: Before, mut bytes: &[u8]) {
        let waits_still = self.ready(side, id, false);
        let mut chunks = Vec::new();
        let mut data = 0;
        while !bytes.is_empty() {
            let (header, rest) = bytes.split_first_chunk::<HEADER_LEN>().unwrap();
            let len = u32::from_le_bytes([header[1], header[2], header[3], 0]) as usize;
            let (body, rest) = rest.split_at(len);
            bytes = rest;
            if header[0] == Kind::Chunk as u8 {
                data += len - 10;
                assert!(len > 10, "an empty chunk");
                let config = self.plan.lanes[side].iter().find(|config| config.id.0 == body[0]).unwrap();
                chunks.push(config.priority == Priority::Urgent);
            } else {
                let may_follow = [Kind::Ack as u8, Kind::Goaway as u8].contains(&header[0]);
                assert!(chunks.is_empty() || may_follow, "control waits behind data");
            }
        }
        // It may end where a message ends.
        assert!(data <= before.chunk + before.chunk / OVERSHOOT, "{data} bytes of data in one batch");
        // A lane whose next messages end unsent (expired, too large) is ready and then has nothing.
        if self.plan.deadlines || self.plan.lanes[0] != self.plan.lanes[1] {
            return;
        }
        let waits = self.waits.entry((side, id)).or_default();
        let passed = before.urgent && chunks.first() == Some(&false);
        waits.passed_over = if passed { waits.passed_over + 1 } else { 0 };
        assert!(waits.passed_over <= 1, "an urgent message waits for more than one chunk");
        if !before.weighted {
            waits.urgent_run = 0;
        }
        for urgent in chunks {
            waits.urgent_run = if urgent && before.weighted { waits.urgent_run + 1 } else { 0 };
        }
        // A lane that got all that it wanted in this batch does not wait.
        if !waits_still {
            waits.urgent_run = 0;
        }
        assert!(waits.urgent_run <= 17, "a weighted lane starves");
    }

    pub(super) fn watch_end(&self) {
        for side in &self.sides {
            assert!(side.link.is_flushed());
            assert_eq!(side.link.open_requests().0, 0);
            for lane in &side.link.lanes {
                assert_eq!(lane.inb.inbox_len(), 0);
                assert_eq!(lane.out.queued(), (0, 0));
            }
        }
    }

    /// Checks that a successor that replaces has proved itself and is of the same slot.
    pub(super) fn check_replaced(&self, side: usize, old: ConnId, new: ConnId) {
        let of = |id| self.sides[side].link.conns().iter().find(|conn| conn.id == id);
        if let (Some(old), Some(new)) = (of(old), of(new)) {
            assert!(new.proven && old.slot == new.slot && !old.is_serving(), "{new:?} replaces {old:?}");
        }
    }

    /// Returns what the two sides have not agreed on yet: one connection for each slot, the lanes on their
    /// own.
    pub(super) fn quarrel(&self) -> Option<String> {
        if self.plan.dials_by_hand {
            return None;
        }
        for slot in 0..self.plan.slots {
            let serving = [0, 1].map(|side| {
                let link = &self.sides[side].link;
                let serving = |id| link.conns().iter().any(|conn| conn.id == id && conn.is_serving());
                let attached = self.conns.iter().enumerate().filter(|(_, conn)| {
                    let end = &conn.ends[side];
                    conn.slot == slot && end.state == State::Attached && serving(end.id)
                });
                attached.map(|(index, _)| index).collect::<Vec<_>>()
            });
            if serving[0].len() != 1 || serving[0] != serving[1] {
                return Some(format!("slot {slot} has {serving:?}"));
            }
        }
        for side in &self.sides {
            for lane in &side.link.lanes {
                let conn = side.link.conns().iter().find(|conn| Some(conn.id) == lane.conn);
                let away = conn.is_none_or(|conn| lane.home < self.plan.slots && conn.slot != lane.home);
                if away && side.link.conns().iter().all(|conn| conn.proven) {
                    return Some(format!("{} is not at home on {conn:?}", lane.id));
                }
            }
        }
        None
    }

    pub(super) fn stuck(&self) -> String {
        let links: Vec<_> = self
            .sides
            .iter()
            .map(|side| {
                let lanes: Vec<_> = side.link.lane_stats().collect();
                format!("{:?} {lanes:?}", side.link.conns())
            })
            .collect();
        format!("{}\n{}", self.ledger.pending(), links.join("\n"))
    }
}
