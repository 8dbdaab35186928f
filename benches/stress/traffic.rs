//! The threads that send, broadcast, vote and cut.

use std::collections::VecDeque;
use std::thread;
use std::time::{Duration, Instant};

use unbroken::test_util::{Direction, FaultProxy};
use unbroken::{NORMAL, Node, Outcome, PeerId, Receipt, URGENT};
use unbroken_test_support::numbered::message;

use super::{Args, Failure, LONG};

/// The streams of broadcasts and of votes; sender threads count from 0.
const BROADCASTS: u64 = 1 << 32;
const VOTES: u64 = 2 << 32;
const BROADCAST_LEN: usize = 256;
const VOTE_LEN: usize = 64;
/// Broadcasts of a stream that wait for their receipts.
const IN_STREAM: usize = 1000;
/// Between two cuts.
const CUT_EVERY: Duration = Duration::from_millis(100);

pub struct Traffic<'a> {
    pub hub: &'a Node,
    pub peers: &'a [PeerId],
    pub args: &'a Args,
}

/// What was sent, and how long it took.
#[derive(Default)]
pub struct Sent {
    /// Of the sender threads.
    pub messages: u64,
    pub broadcasts: u64,
    /// All messages, those of broadcasts for each peer.
    pub delivered: u64,
    pub calls: Vec<Duration>,
    pub rounds: Vec<Duration>,
    pub votes: Vec<Duration>,
    pub cuts: u64,
}

impl Traffic<'_> {
    /// Runs all threads for the given time, and waits until everything has arrived.
    pub fn run(&self, proxies: &[FaultProxy]) -> Result<Sent, Failure> {
        let end = Instant::now() + self.args.time;
        thread::scope(|scope| {
            let senders: Vec<_> = (0..self.args.threads)
                .map(|number| scope.spawn(move || self.send(number as u64, end)))
                .collect();
            let votes = scope.spawn(|| self.vote(end));
            let cuts = scope.spawn(|| cut(proxies, end));
            let mut sent = self.broadcast(end)?;
            for sender in senders {
                sent.messages += sender.join().map_err(|_| "a sender panicked")??;
            }
            sent.votes = votes.join().map_err(|_| "the voter panicked")??;
            sent.cuts = cuts.join().map_err(|_| "the thread that cuts panicked")?;
            sent.delivered += sent.messages + sent.votes.len() as u64;
            Ok(sent)
        })
    }

    /// A message to each peer by turns. Returns how many.
    fn send(&self, stream: u64, end: Instant) -> Result<u64, Failure> {
        let handles: Vec<_> = self.peers.iter().map(|peer| self.hub.peer_handle(*peer)).collect();
        let mut last: Vec<Option<Receipt>> = handles.iter().map(|_| None).collect();
        let mut rounds = 0;
        while Instant::now() < end {
            for (handle, last) in handles.iter().zip(&mut last) {
                *last = Some(handle.send((NORMAL, message(stream, rounds, self.args.size)))?);
            }
            rounds += 1;
        }
        // They arrive in order: with the last one of a peer all have.
        last.iter().flatten().try_for_each(taken)?;
        Ok(rounds * handles.len() as u64)
    }

    fn broadcast(&self, end: Instant) -> Result<Sent, Failure> {
        let (lane, most) = if self.args.stream { (NORMAL, IN_STREAM) } else { (URGENT, 1) };
        let (mut sent, mut under_way) = (Sent::default(), VecDeque::new());
        loop {
            let goes_on = Instant::now() < end;
            if goes_on {
                let body = message(BROADCASTS, sent.broadcasts, BROADCAST_LEN);
                let start = Instant::now();
                let broadcast = self.hub.broadcast((lane, body));
                sent.calls.push(start.elapsed());
                sent.broadcasts += 1;
                under_way.push_back((start, broadcast));
            }
            if goes_on && under_way.len() < most {
                continue;
            }
            let Some((start, broadcast)) = under_way.pop_front() else { return Ok(sent) };
            let progress = broadcast.wait_for(self.peers.len(), LONG)?;
            sent.rounds.push(start.elapsed());
            sent.delivered += progress.taken.len() as u64;
            if !self.args.stream {
                thread::sleep(self.args.pause);
            }
        }
    }

    /// One vote after the other, to each peer by turns.
    fn vote(&self, end: Instant) -> Result<Vec<Duration>, Failure> {
        let mut votes = Vec::new();
        for seq in 0.. {
            for peer in self.peers {
                let start = Instant::now();
                if start >= end {
                    return Ok(votes);
                }
                taken(&self.hub.send(*peer, (URGENT, message(VOTES, seq, VOTE_LEN)))?)?;
                votes.push(start.elapsed());
            }
        }
        Ok(votes)
    }
}

fn taken(receipt: &Receipt) -> Result<(), Failure> {
    match receipt.wait_timeout(LONG) {
        Some(Outcome::Taken) => Ok(()),
        Some(other) => Err(format!("a message ended as {other}").into()),
        None => Err("a message did not arrive in two minutes".into()),
    }
}

/// Cuts one connection after the other: at once, or inside the data to come. Returns how often.
fn cut(proxies: &[FaultProxy], end: Instant) -> u64 {
    let mut cuts = 0;
    let mut rng = fastrand::Rng::with_seed(7);
    while !proxies.is_empty() && Instant::now() < end {
        let proxy = &proxies[rng.usize(..proxies.len())];
        match rng.u8(..3) {
            0 => proxy.reset_all(),
            1 => proxy.cut_after(Direction::ToTarget, rng.u64(..10_000)),
            _ => proxy.cut_after(Direction::ToClient, rng.u64(..1_000)),
        }
        cuts += 1;
        thread::sleep(CUT_EVERY);
    }
    cuts
}
