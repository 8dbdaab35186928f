//! The plan of one run.

use std::sync::Arc;
use std::time::Duration;

use crate::health::liveness::Limits;
use crate::id::PeerId;
use crate::lane::{AckMode, LaneConfig, LaneId, MAX_SLOTS, Priority, WhenFull};
use crate::link::{Settings, cost_of};

use super::dice::Dice;

/// Virtual time is counted in microseconds.
pub(super) const MS: u64 = 1_000;
pub(super) const SECOND: u64 = 1_000 * MS;

#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) lanes: [Vec<LaneConfig>; 2],
    pub(super) ack_delay: u64,
    /// Without pings only a wake-up in its right place moves things on: a lost one shows.
    pub(super) pings: bool,
    pub(super) limits: Limits,
    pub(super) resumption: u64,
    pub(super) drain_timeout: u64,
    pub(super) max_requests: usize,
    pub(super) max_chunk: usize,
    /// How many messages each side sends.
    pub(super) messages: usize,
    /// Faults happen until then.
    pub(super) chaos: u64,
    /// The mean time between two faults; 0: none.
    pub(super) fault_every: u64,
    pub(super) dials: [bool; 2],
    /// A side that does not dial replaces connections that do not answer all the same.
    pub(super) dials_back: bool,
    pub(super) slots: u8,
    pub(super) delay: u64,
    pub(super) jitter: u64,
    /// The largest piece in which bytes arrive.
    pub(super) piece: usize,
    pub(super) restarts: bool,
    /// Partitions that outlast the resumption time.
    pub(super) forgets: bool,
    pub(super) deadlines: bool,
    pub(super) cancels: bool,
    /// One application step in so many microseconds.
    pub(super) app_every: [u64; 2],
    /// The shortest message. From 4 on a message names itself, see `ledger`.
    pub(super) min_len: usize,
    /// How long after a cut the two sides notice it, at most.
    pub(super) notice: u64,
    /// The side with the smaller `PeerId`.
    pub(super) smaller: usize,
    /// Microseconds for each byte of a write.
    pub(super) byte_time: u64,
    /// No random traffic: these messages (side, lane index, length, is a request), all at the start.
    pub(super) script: Option<Vec<(usize, usize, usize, bool)>>,
    /// The test dials, not the two nodes.
    pub(super) dials_by_hand: bool,
    /// Cuts the n-th connection after so many bytes from that side.
    pub(super) cuts: Vec<(usize, u64)>,
    /// How long after such a cut each side notices.
    pub(super) cut_notice: [u64; 2],
}

impl Plan {
    pub(super) fn random(dice: &mut Dice<'_>) -> Plan {
        let restarts = dice.u8(..4) == 0;
        let forgets = dice.u8(..5) == 0;
        let pings = forgets || dice.bool();
        let count = dice.usize(1..=4);
        let mut lanes: Vec<_> = (0..count).map(|index| lane(dice, index)).collect();
        if dice.u8(..3) == 0
            && let Some(first) = lanes.first_mut()
        {
            first.priority = Priority::Urgent;
        }
        let mut theirs = lanes.clone();
        // The two sides need not agree on limits, nor on which lanes there are.
        if dice.u8(..4) == 0 {
            theirs = theirs
                .iter()
                .enumerate()
                .map(|(index, old)| LaneConfig { priority: old.priority, ..lane(dice, index) })
                .collect();
            if dice.bool() && count > 1 {
                theirs.pop();
            }
        }
        let suspect = dice.u64(50..1000);
        let day = 86_400_000;
        let (ping, dead) =
            if pings { (dice.u64(300..10_000), suspect + dice.u64(1000..20_000)) } else { (day, 2 * day) };
        let mut plan = Plan {
            lanes: [lanes, theirs],
            ack_delay: *dice.choice(&[0, MS, 20 * MS]).unwrap_or(&0),
            pings,
            limits: Limits {
                ping_interval: Duration::from_millis(ping),
                suspect_after: Duration::from_millis(suspect),
                dead_after: Duration::from_millis(dead),
            },
            resumption: if forgets { dice.u64(SECOND..5 * SECOND) } else { 100_000 * SECOND },
            drain_timeout: dice.u64(100 * MS..3 * SECOND),
            max_requests: dice.usize(1..20),
            max_chunk: *dice.choice(&[1, 7, 100, 1000, 1000, 5000, 20_000]).unwrap_or(&100),
            messages: dice.usize(1..60),
            chaos: dice.u64(SECOND..10 * SECOND),
            fault_every: dice.u64(20 * MS..SECOND),
            dials: *dice.choice(&[[true, true], [true, false], [false, true]]).unwrap_or(&[true, true]),
            slots: dice.u8(1..=MAX_SLOTS),
            delay: *dice.choice(&[0, MS, 20 * MS, 100 * MS]).unwrap_or(&0),
            jitter: *dice.choice(&[1, 5 * MS]).unwrap_or(&1),
            piece: *dice.choice(&[20, 1000, 10_000]).unwrap_or(&1000),
            restarts,
            forgets,
            deadlines: dice.u8(..3) == 0,
            cancels: dice.bool(),
            app_every: [dice.u64(MS..300 * MS), dice.u64(MS..300 * MS)],
            min_len: if restarts || forgets { 4 } else { 0 },
            notice: *dice.choice(&[0, 50 * MS, 2 * SECOND]).unwrap_or(&0),
            smaller: dice.usize(..2),
            byte_time: dice.u64(0..3),
            dials_back: dice.bool(),
            script: None,
            dials_by_hand: false,
            cuts: Vec::new(),
            cut_notice: [0, 0],
        };
        // Drawn last: runs without such lanes stay what they were.
        if dice.u8(..4) == 0 {
            plan.lanes.iter_mut().flatten().for_each(|lane| let_drop_oldest(dice, lane));
        }
        plan
    }

    /// A short conversation without chance: what the exhaustive tests cut to pieces.
    pub(super) fn short(script: Vec<(usize, usize, usize, bool)>) -> Plan {
        let config = |id, ack_mode| LaneConfig {
            id: LaneId(id),
            priority: if id == 0 { Priority::Urgent } else { Priority::Weighted(1) },
            max_message: 64,
            window: 100,
            max_untaken: 3,
            queue: 4096,
            ack_mode,
            ..LaneConfig::default()
        };
        let lanes = vec![config(0, AckMode::Received), config(1, AckMode::Done)];
        let day = Duration::from_secs(86_400);
        Plan {
            lanes: [lanes.clone(), lanes],
            ack_delay: 0,
            pings: false,
            limits: Limits {
                ping_interval: day,
                suspect_after: Duration::from_millis(200),
                dead_after: 2 * day,
            },
            resumption: 100_000 * SECOND,
            drain_timeout: SECOND,
            max_requests: 4,
            max_chunk: 30,
            messages: 0,
            chaos: 0,
            fault_every: 0,
            dials: [true, false],
            dials_back: false,
            slots: 1,
            delay: MS,
            jitter: 1,
            piece: 1000,
            restarts: false,
            forgets: false,
            deadlines: false,
            cancels: false,
            app_every: [3 * MS, 2 * MS],
            min_len: 0,
            notice: 0,
            smaller: 0,
            byte_time: 0,
            script: Some(script),
            ..Plan::random(&mut Dice::seeded(0))
        }
    }

    pub(super) fn settings(&self, side: usize) -> Settings {
        let id = |side: usize| PeerId::from_bytes([1 + u8::from(side != self.smaller); 32]);
        Settings {
            us: id(side),
            peer: id(1 - side),
            name: String::new(),
            lanes: Arc::from(self.lanes[side].clone()),
            liveness: self.limits,
            min_ping_interval: self.limits.ping_interval / 10,
            ack_delay: Duration::from_micros(self.ack_delay),
            resumption: Duration::from_micros(self.resumption),
            drain_timeout: Duration::from_micros(self.drain_timeout),
            max_requests: self.max_requests,
            max_queued: 1 << 20,
            max_chunk: self.max_chunk,
        }
    }
}

fn lane(dice: &mut Dice<'_>, index: usize) -> LaneConfig {
    let max_message = *dice.choice(&[4, 100, 4096, 4096, 16 * 1024, 64 * 1024]).unwrap_or(&100);
    LaneConfig {
        id: LaneId(index as u8),
        priority: if dice.u8(..4) == 0 { Priority::Urgent } else { Priority::Weighted(dice.u8(1..=8)) },
        max_message,
        // The longest header is 16 bytes: the smallest window that lets the largest message through.
        window: max_message + 16 + *dice.choice(&[0, 1, 100, 5000]).unwrap_or(&0),
        max_untaken: *dice.choice(&[1, 2, 5, 100]).unwrap_or(&1),
        queue: max_message + dice.usize(0..3 * max_message + 2000),
        ack_mode: if dice.bool() { AckMode::Received } else { AckMode::Done },
        slot: if dice.bool() { None } else { Some(dice.u8(..MAX_SLOTS)) },
        ..LaneConfig::default()
    }
}

/// Half of such lanes have no room for more than two of the largest messages.
fn let_drop_oldest(dice: &mut Dice<'_>, lane: &mut LaneConfig) {
    if dice.bool() {
        lane.when_full = WhenFull::DropOldest;
        let least = 2 * cost_of(lane.max_message);
        lane.queue = if dice.bool() { least } else { lane.queue.max(least) };
    }
}
