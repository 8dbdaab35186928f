//! Which lane sends the next chunk on a connection. Each connection has a scheduler of its own: lanes that
//! others carry do not sleep, and take nothing from those that are here.
//!
//! Urgent lanes go first, in turn. The weighted lanes share the rest by stride scheduling (each lane
//! has a *pass* that grows by bytes / weight as it sends; the lane with the lowest pass goes next). After
//! [`URGENT_RUN`] urgent chunks in a row a waiting weighted lane gets one, so an urgent flood starves
//! nobody, and an urgent message still waits for one chunk at most.

use crate::lane::Priority;

const URGENT_RUN: u32 = 16;

#[derive(Debug, Default)]
pub(crate) struct Scheduler {
    lanes: Vec<Slot>,
    urgent_run: u32,
    /// The pass of the lane that was served last, of the urgent and of the weighted: where a lane that
    /// wakes up joins.
    floors: [u64; 2],
}

#[derive(Debug)]
struct Slot {
    priority: Priority,
    pass: u64,
    was_ready: bool,
}

impl Scheduler {
    pub(crate) fn new(priorities: impl Iterator<Item = Priority>) -> Self {
        let lanes = priorities.map(|priority| Slot { priority, pass: 0, was_ready: false }).collect();
        Scheduler { lanes, urgent_run: 0, floors: [0; 2] }
    }

    /// The lane to serve next among those that `ready` names.
    pub(crate) fn pick(&mut self, ready: impl Fn(usize) -> bool) -> Option<usize> {
        let (mut urgent, mut weighted) = (None, None);
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            let is_ready = ready(index);
            if is_ready && !lane.was_ready {
                // It slept: no claim to what it did not use.
                let [urgent, weighted] = self.floors;
                lane.pass = lane.pass.max(if lane.priority == Priority::Urgent { urgent } else { weighted });
            }
            lane.was_ready = is_ready;
            let best = if lane.priority == Priority::Urgent { &mut urgent } else { &mut weighted };
            if is_ready && best.is_none_or(|best: (u64, usize)| (lane.pass, index) < best) {
                *best = Some((lane.pass, index));
            }
        }
        match (urgent, weighted) {
            (Some(_), Some((pass, index))) if self.urgent_run >= URGENT_RUN => {
                self.urgent_run = 0;
                self.floors[1] = pass;
                Some(index)
            }
            (Some((pass, index)), weighted) => {
                self.floors[0] = pass;
                self.urgent_run = if weighted.is_some() { self.urgent_run + 1 } else { 0 };
                Some(index)
            }
            (None, Some((pass, index))) => {
                self.urgent_run = 0;
                self.floors[1] = pass;
                Some(index)
            }
            (None, None) => None,
        }
    }

    /// A lane has sent.
    pub(crate) fn charge(&mut self, index: usize, bytes: usize) {
        if let Some(lane) = self.lanes.get_mut(index) {
            let weight = match lane.priority {
                Priority::Urgent => 255,
                Priority::Weighted(weight) => u64::from(weight.max(1)),
            };
            // At least one, so that equal lanes take turns however small their chunks are.
            lane.pass += (bytes as u64 * 255 / weight).max(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: usize = 16 * 1024;

    fn run(scheduler: &mut Scheduler, rounds: usize, ready: &[bool]) -> Vec<usize> {
        let mut counts = vec![0; ready.len()];
        for _ in 0..rounds {
            let Some(lane) = scheduler.pick(|index| ready[index]) else { break };
            scheduler.charge(lane, CHUNK);
            counts[lane] += 1;
        }
        counts
    }

    fn three() -> Scheduler {
        Scheduler::new([Priority::Urgent, Priority::Weighted(4), Priority::Weighted(1)].into_iter())
    }

    #[test]
    fn urgent_goes_first_and_starves_nobody() {
        let counts = run(&mut three(), 1700, &[true, true, true]);
        assert_eq!(counts[0], 1600);
        assert!(counts[2] >= 19, "{counts:?}");
    }

    #[test]
    fn weights_are_shares() {
        assert_eq!(run(&mut three(), 1000, &[false, true, true]), [0, 800, 200]);
    }

    #[test]
    fn a_lane_that_slept_has_no_claim_to_the_past() {
        let mut scheduler = three();
        run(&mut scheduler, 1000, &[false, true, false]);
        let counts = run(&mut scheduler, 50, &[false, true, true]);
        assert!(counts[1] >= 38, "{counts:?}");
    }

    #[test]
    fn one_chunk_after_sixteen_is_the_most_that_urgent_waits() {
        let mut scheduler = three();
        let mut last_urgent = 0;
        for round in 0..500 {
            let lane = scheduler.pick(|_| true).unwrap();
            scheduler.charge(lane, CHUNK);
            if lane == 0 {
                assert!(round - last_urgent <= 2);
                last_urgent = round;
            }
        }
    }
}
