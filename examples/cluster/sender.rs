//! The sending half of a node: proposals, votes, transactions and blocks, each reported before it is
//! handed to the library.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use unbroken::{BULK, Broadcast, LaneId, NORMAL, Outcome, PeerId, Receipt, SendErrorKind, URGENT};

use crate::Failure;
use crate::content::{self, Header, Kind, mix};
use crate::node::{Shared, spawn};
use crate::wire::{Report, Work};

/// A task of the sender.
pub(crate) enum Job {
    Work(Work),
    Row(usize),
    /// There are links to all peers.
    Linked,
    /// A proposal came: vote for it.
    Vote,
}

/// The workload's clock.
const TICK: Duration = Duration::from_millis(20);
/// Blocks under way to a peer at most, and always while its link is to be saturated.
const BLOCKS: u64 = 8;
/// How long a quorum may take before it counts as missed.
const QUORUM_PATIENCE: Duration = Duration::from_secs(10);

/// One lane to one peer.
struct Stream {
    lane: LaneId,
    to: usize,
    id: PeerId,
    next: u64,
    /// Receipts in the order of the messages, from number `taken` on. None are kept on the normal lane, so
    /// that acknowledgements nobody waits for are tried too.
    receipts: VecDeque<Receipt>,
    taken: u64,
    due: Instant,
}

struct Workload<'a> {
    shared: &'a Shared,
    work: Work,
    row: usize,
    linked: bool,
    rng: fastrand::Rng,
    /// The number of the next message to all.
    next_urgent: u64,
    votes_due: usize,
    proposal_due: Instant,
    streams: Vec<Stream>,
    quorums: Sender<Broadcast>,
}

/// Runs until the node quits.
pub(crate) fn run(shared: &Arc<Shared>, jobs: &Receiver<Job>) -> Result<(), Failure> {
    let (quorums, broadcasts) = bounded(1024);
    let waiter = spawn("quorums", {
        let shared = Arc::clone(shared);
        move || wait_for_quorums(&shared, &broadcasts)
    })?;
    Workload::new(shared, quorums).run(jobs)?;
    waiter.join().map_err(|_| "the thread that waits for quorums panicked")?
}

impl<'a> Workload<'a> {
    fn new(shared: &'a Shared, quorums: Sender<Broadcast>) -> Self {
        let now = Instant::now();
        let role = &shared.role;
        let streams = shared.peers.iter().flat_map(|(to, id)| {
            [URGENT, NORMAL, BULK].map(|lane| Stream {
                lane,
                to: *to,
                id: *id,
                next: 0,
                receipts: VecDeque::new(),
                taken: 0,
                due: now,
            })
        });
        let salt = mix(role.index as u64, u64::from(role.life));
        Workload {
            shared,
            work: Work::default(),
            row: 0,
            linked: false,
            rng: fastrand::Rng::with_seed(mix(role.seed, salt)),
            next_urgent: 0,
            votes_due: 0,
            proposal_due: now,
            streams: streams.collect(),
            quorums,
        }
    }

    fn run(mut self, jobs: &Receiver<Job>) -> Result<(), Failure> {
        let mut tick = Instant::now();
        loop {
            // Votes are sent when they are due, the rest at each tick.
            let Ok(job) = crate::node::next_job(jobs, tick) else { return Ok(()) };
            for job in job.into_iter().chain(jobs.try_iter().take(256)) {
                match job {
                    Job::Work(work) => self.start(work),
                    Job::Row(row) => self.row = row,
                    Job::Linked => {
                        self.linked = true;
                        self.shared.reporter.report(&[Report::Linked])?;
                    }
                    Job::Vote => self.votes_due += 1,
                }
            }
            let now = Instant::now();
            if self.linked {
                self.votes(now)?;
            }
            if now < tick {
                continue;
            }
            tick = now + TICK;
            self.sweep()?;
            if self.linked {
                self.transactions()?;
                self.blocks(now)?;
            }
        }
    }

    fn start(&mut self, work: Work) {
        let now = Instant::now();
        // Not all nodes at once.
        self.proposal_due = now + Duration::from_millis(self.rng.u64(0..=work.proposal_ms));
        for stream in &mut self.streams {
            stream.due = now + Duration::from_millis(self.rng.u64(0..=work.block_ms));
        }
        self.work = work;
    }

    fn votes(&mut self, now: Instant) -> Result<(), Failure> {
        let on = self.work.proposal_ms > 0;
        for _ in 0..std::mem::take(&mut self.votes_due) {
            if on {
                self.broadcast(Kind::Vote)?;
            }
        }
        if on && now >= self.proposal_due {
            // The nodes wake each other by their votes: with even intervals all would fall into step, and
            // a fault might meet a silence.
            let interval = Duration::from_millis(self.rng.u64(0..=self.work.proposal_ms * 2));
            self.proposal_due = now + interval;
            let broadcast = self.broadcast(Kind::Proposal)?;
            // A queue of quorums that is full has enough to wait for.
            let _ = self.quorums.try_send(broadcast);
        }
        Ok(())
    }

    fn broadcast(&mut self, kind: Kind) -> Result<Broadcast, Failure> {
        let seq = self.next_urgent;
        self.next_urgent += 1;
        let (lane, upto) = (URGENT.0, seq + 1);
        self.shared.reporter.report(&[Report::Intent { lane, to: None, upto, row: self.row }])?;
        let bytes = self.encode(kind, seq, 0);
        let ids: Vec<_> = self.shared.peers.iter().map(|(_, id)| *id).collect();
        let broadcast = self.shared.node.broadcast_to(&ids, (URGENT, bytes));
        let mut reports = Vec::new();
        for stream in self.streams.iter_mut().filter(|stream| stream.lane == URGENT) {
            if let Some((_, receipt)) = broadcast.receipts().iter().find(|(id, _)| *id == stream.id) {
                stream.receipts.push_back(receipt.clone());
            }
            if let Some((_, why)) = broadcast.refused().iter().find(|(id, _)| *id == stream.id) {
                reports.push(Report::Refused { lane, to: stream.to, seq, why: why.to_string() });
            }
        }
        reports.push(Report::Accepted { lane, to: None, upto });
        self.shared.reporter.report(&reports)?;
        Ok(broadcast)
    }

    fn encode(&self, kind: Kind, seq: u64, to: usize) -> Vec<u8> {
        let role = &self.shared.role;
        let header = Header { kind, from: role.index, life: role.life, seq, sent_us: content::now_us() };
        content::encode(header, to, role.seed)
    }

    fn transactions(&mut self) -> Result<(), Failure> {
        let mean = self.work.transactions * TICK.as_millis() as u64;
        for index in 0..self.streams.len() {
            if self.streams.get(index).is_some_and(|stream| stream.lane == NORMAL) {
                // On average `mean` thousandths of a transaction, between none and twice as many.
                let count = self.rng.u64(0..=mean * 2).div_euclid(1000);
                self.send(index, Kind::Transaction, count)?;
            }
        }
        Ok(())
    }

    fn blocks(&mut self, now: Instant) -> Result<(), Failure> {
        for index in 0..self.streams.len() {
            let Some(stream) = self.streams.get_mut(index).filter(|stream| stream.lane == BULK) else {
                continue;
            };
            let under_way = stream.next - stream.taken;
            let count = if self.work.saturate.contains(&stream.to) {
                BLOCKS.saturating_sub(under_way)
            } else if self.work.block_ms > 0 && now >= stream.due && under_way < BLOCKS {
                stream.due = now + Duration::from_millis(self.work.block_ms);
                1
            } else {
                0
            };
            self.send(index, Kind::Block, count)?;
        }
        Ok(())
    }

    /// Sends up to `count` messages to one peer; fewer when its queue is full, which is no error.
    fn send(&mut self, index: usize, kind: Kind, count: u64) -> Result<(), Failure> {
        let Some(stream) = self.streams.get(index).filter(|_| count > 0) else { return Ok(()) };
        let (lane, to, first, id) = (stream.lane, stream.to, stream.next, stream.id);
        let intent = Report::Intent { lane: lane.0, to: Some(to), upto: first + count, row: self.row };
        self.shared.reporter.report(&[intent])?;
        let (mut receipts, mut reports) = (Vec::new(), Vec::new());
        for seq in first..first + count {
            match self.shared.node.try_send(id, (lane, self.encode(kind, seq, to))) {
                Ok(receipt) => receipts.push(receipt),
                Err(error) if *error.kind() == SendErrorKind::Full => break,
                Err(error) => {
                    let why = error.to_string();
                    reports.push(Report::Refused { lane: lane.0, to, seq, why });
                    break;
                }
            }
        }
        let Some(stream) = self.streams.get_mut(index) else { return Ok(()) };
        stream.next = first + receipts.len() as u64;
        if lane == BULK {
            stream.receipts.extend(receipts);
        }
        reports.push(Report::Accepted { lane: lane.0, to: Some(to), upto: stream.next });
        Ok(self.shared.reporter.report(&reports)?)
    }

    /// Looks which receipts have ended.
    fn sweep(&mut self) -> Result<(), Failure> {
        let mut reports = Vec::new();
        for stream in &mut self.streams {
            let before = stream.taken;
            while let Some(outcome) = stream.receipts.front().and_then(Receipt::poll) {
                if outcome != Outcome::Taken {
                    let (lane, to, seq) = (stream.lane.0, stream.to, stream.taken);
                    reports.push(Report::Dropped { lane, to, seq, why: outcome.to_string() });
                }
                stream.receipts.pop_front();
                stream.taken += 1;
            }
            if stream.taken > before {
                reports.push(Report::Taken { lane: stream.lane.0, to: stream.to, upto: stream.taken });
            }
        }
        Ok(self.shared.reporter.report(&reports)?)
    }
}

/// Waits until more than half of the nodes, this one included, have processed each proposal.
fn wait_for_quorums(shared: &Shared, broadcasts: &Receiver<Broadcast>) -> Result<(), Failure> {
    let others = shared.role.nodes / 2;
    for broadcast in broadcasts {
        let quorum = broadcast.wait_for(others, QUORUM_PATIENCE);
        let (reached, missed) = if quorum.is_ok() { (1, 0) } else { (0, 1) };
        shared.reporter.report(&[Report::Quorums { reached, missed }])?;
    }
    Ok(())
}
