//! The messages that were sent and those that were taken, and whether they are the same.

use std::collections::BTreeMap;
use std::time::Duration;

use unbroken::{LaneId, URGENT};

/// One direction.
#[derive(Default)]
pub(crate) struct Ledger {
    /// When each message was sent, by lane and stream.
    sent: BTreeMap<(u8, u64), BTreeMap<u64, u64>>,
    took: Vec<Took>,
    /// Streams whose sender was killed: their end may be missing.
    cut: Vec<u64>,
}

struct Took {
    /// Which life of the receiver.
    life: u32,
    lane: u8,
    stream: u64,
    seq: u64,
    at: u64,
}

impl Ledger {
    pub(crate) fn sent(&mut self, words: &[u64]) {
        let [lane, stream, seq, at] = *words else { panic!("{words:?}") };
        self.sent.entry((lane as u8, stream)).or_default().insert(seq, at);
    }

    pub(crate) fn took(&mut self, life: u32, words: &[u64]) {
        let [lane, stream, seq, at] = *words else { panic!("{words:?}") };
        self.took.push(Took { life, lane: lane as u8, stream, seq, at });
    }

    /// The sender was killed: what it had not delivered is lost with it.
    pub(crate) fn cut(&mut self) {
        self.cut.extend(self.sent.keys().map(|(_, stream)| *stream));
    }

    /// Votes taken so far, each time they came.
    pub(crate) fn votes(&self) -> usize {
        self.took.iter().filter(|took| took.lane == URGENT.0).count()
    }

    /// Votes taken after this time.
    pub(crate) fn votes_since(&self, time: u64) -> usize {
        self.took.iter().filter(|took| took.lane == URGENT.0 && took.at > time).count()
    }

    /// All messages taken so far.
    pub(crate) fn messages(&self) -> usize {
        self.took.len()
    }

    /// The messages that were sent and have not come.
    pub(crate) fn missing(&self) -> usize {
        let missing = self.sent.iter().filter(|((_, stream), _)| !self.cut.contains(stream));
        missing
            .map(|(key, sent)| {
                let last = self.took.iter().filter(|took| (took.lane, took.stream) == *key);
                let came = last.map(|took| took.seq + 1).max().unwrap_or(0);
                sent.keys().next_back().map_or(0, |last| (last + 1).saturating_sub(came) as usize)
            })
            .sum()
    }

    /// Everything came, once and in order within each life of the receiver, and a new life goes on where the
    /// one before ended (which may have taken one message more, and been killed before it told), or repeats
    /// the last that it took. Returns how many were repeated so.
    pub(crate) fn check(&self) -> usize {
        assert_eq!(self.missing(), 0, "lost");
        let mut again = 0;
        // The lives that took a message and did not tell: one each, as they take one after the other.
        let mut untold = Vec::new();
        for key in self.sent.keys() {
            let (mut next, mut its_life) = (0, 0);
            for took in self.took.iter().filter(|took| (took.lane, took.stream) == *key) {
                let lane = LaneId(took.lane);
                if took.life != its_life && took.seq < next {
                    again += (next - took.seq) as usize;
                    next = took.seq;
                }
                if took.life != its_life && took.seq == next + 1 && !untold.contains(&its_life) {
                    untold.push(its_life);
                    next = took.seq;
                }
                its_life = took.life;
                let what = if took.seq < next { "again" } else { "too early" };
                let Took { seq, stream, life, .. } = took;
                assert_eq!(*seq, next, "{lane}, stream {stream}: {seq} came {what} in life {life}");
                next += 1;
            }
        }
        let known = |took: &&Took| self.sent.contains_key(&(took.lane, took.stream));
        assert_eq!(self.took.iter().filter(known).count(), self.took.len(), "taken but never sent");
        again
    }

    /// The longest that a message of a lane took, of those that came after the fault; what it waited before
    /// that does not count.
    pub(crate) fn worst_since(&self, fault: u64, lane: LaneId) -> Duration {
        let late = self.took.iter().filter(|took| took.lane == lane.0 && took.at > fault);
        let waits = late.filter_map(|took| {
            let sent = *self.sent.get(&(took.lane, took.stream))?.get(&took.seq)?;
            Some(took.at.saturating_sub(sent.max(fault)))
        });
        Duration::from_micros(waits.max().unwrap_or(0))
    }

    /// How long the messages of a lane took, in order of size.
    pub(crate) fn delays(&self, lane: LaneId) -> Vec<Duration> {
        let took = self.took.iter().filter(|took| took.lane == lane.0);
        let mut delays: Vec<_> = took
            .filter_map(|took| {
                let sent = *self.sent.get(&(took.lane, took.stream))?.get(&took.seq)?;
                Some(Duration::from_micros(took.at.saturating_sub(sent)))
            })
            .collect();
        delays.sort_unstable();
        delays
    }
}
