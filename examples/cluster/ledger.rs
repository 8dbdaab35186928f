//! The books: what every node says it sent and processed, message by message.
//!
//! A *stream* is what one life of a node sends to one peer on one lane. Its messages are numbered from
//! 0. The sender reports numbers before it sends them (`intended`) and after the library accepted them
//! (`accepted`); a receiver reports a message after it has processed it and before it lets it go. So
//! whatever is killed, the books know: a message is *sent* when it was reported as accepted, or when
//! it arrived.

use std::collections::{BTreeMap, BTreeSet};

/// Sender, its life, receiver, lane.
type Key = (usize, u32, usize, u8);

#[derive(Debug, Default)]
struct Stream {
    /// For each intended message its row in the table.
    rows: Vec<usize>,
    accepted: u64,
    /// The outcomes that receipts have told.
    taken: u64,
    /// Numbers that were refused, to this peer alone: not sent.
    refused: BTreeSet<u64>,
    /// Numbers whose receipts ended as dropped, and the row in which that was told.
    dropped: BTreeMap<u64, usize>,
    /// For each number that arrived, the last life of the receiver that it arrived in.
    arrived: Vec<Option<u32>>,
    /// How many arrived at all.
    delivered: u64,
    /// The receiver's life and the number that it expects next.
    expected: Option<(u32, u64)>,
    /// The sender was killed: what it had in its queues has died.
    ended: bool,
}

/// One row of the final table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) out_of_order: u64,
    pub(crate) died: u64,
    pub(crate) again: u64,
    pub(crate) errors: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Counts) {
        self.sent += other.sent;
        self.received += other.received;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.out_of_order += other.out_of_order;
        self.died += other.died;
        self.again += other.again;
        self.errors += other.errors;
    }

    pub(crate) fn wrong(&self) -> u64 {
        self.lost + self.duplicated + self.out_of_order + self.errors
    }

    /// Nothing happened that must not happen.
    pub(crate) fn balance(&self) -> bool {
        self.wrong() == 0 && self.received + self.died == self.sent
    }
}

/// What each stream had sent at some time.
pub(crate) struct Sent(Vec<(Key, u64)>);

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    streams: BTreeMap<Key, Stream>,
    /// Events are counted here when they happen; the rest is counted at the end.
    incidents: Vec<Counts>,
    row: usize,
    /// The first things that went wrong, in words.
    complaints: Vec<String>,
    /// The current life of each node.
    lives: Vec<u32>,
}

const MAX_COMPLAINTS: usize = 20;

fn lane_name(lane: u8) -> String {
    unbroken::LaneId(lane).to_string()
}

fn name((from, life, to, lane): Key) -> String {
    format!("{} from node {from} (life {life}) to node {to}", lane_name(lane))
}

impl Ledger {
    pub(crate) fn new(nodes: usize) -> Self {
        Ledger { lives: vec![0; nodes], incidents: vec![Counts::default()], ..Ledger::default() }
    }

    /// Everything from now on belongs to this row.
    pub(crate) fn set_row(&mut self, row: usize) {
        self.row = row;
        self.incidents.resize(self.incidents.len().max(row + 1), Counts::default());
    }

    /// A node was killed; everything that it had reported is in the books.
    pub(crate) fn killed(&mut self, node: usize) {
        let Some(life) = self.lives.get_mut(node) else { return };
        for ((from, of, _, _), stream) in &mut self.streams {
            stream.ended |= (*from, *of) == (node, *life);
        }
        *life += 1;
    }

    // --- what senders say -----------------------------------------------------------------------

    pub(crate) fn intend(&mut self, from: usize, lane: u8, to: Option<usize>, upto: u64, row: usize) {
        self.each(from, lane, to, |stream| {
            if stream.rows.len() < upto as usize {
                stream.rows.resize(upto as usize, row);
            }
        });
    }

    pub(crate) fn accept(&mut self, from: usize, lane: u8, to: Option<usize>, upto: u64) {
        self.each(from, lane, to, |stream| stream.accepted = stream.accepted.max(upto));
    }

    pub(crate) fn taken(&mut self, from: usize, lane: u8, to: usize, upto: u64) {
        self.each(from, lane, Some(to), |stream| stream.taken = stream.taken.max(upto));
    }

    pub(crate) fn dropped(&mut self, from: usize, lane: u8, to: usize, seq: u64, why: &str) {
        self.complain(format!("node {from} to node {to}, {} {seq}: receipt {why}", lane_name(lane)));
        let row = self.row;
        self.each(from, lane, Some(to), |stream| _ = stream.dropped.insert(seq, row));
    }

    pub(crate) fn refused(&mut self, from: usize, lane: u8, to: usize, seq: u64, why: &str) {
        self.complain(format!("node {from} to node {to}, {} {seq}: {why}", lane_name(lane)));
        self.incident(|counts| counts.errors += 1);
        // A refused message to one peer gives its number to the next one.
        if lane == unbroken::URGENT.0 {
            self.each(from, lane, Some(to), |stream| _ = stream.refused.insert(seq));
        }
    }

    fn each(&mut self, from: usize, lane: u8, to: Option<usize>, mut act: impl FnMut(&mut Stream)) {
        let life = self.lives.get(from).copied().unwrap_or_default();
        let others = (0..self.lives.len()).filter(|other| *other != from);
        for to in to.map_or_else(|| others.collect(), |to| vec![to]) {
            act(self.streams.entry((from, life, to, lane)).or_default());
        }
    }

    // --- what receivers say ---------------------------------------------------------------------

    /// The receiver, in its present life, has processed `first` to `last`, one after the other.
    pub(crate) fn receive(&mut self, to: usize, lane: u8, from: usize, life: u32, first: u64, last: u64) {
        let to_life = self.lives.get(to).copied().unwrap_or_default();
        let key = (from, life, to, lane);
        for seq in first..=last {
            let stream = self.streams.entry(key).or_default();
            let index = seq as usize;
            if stream.arrived.len() <= index {
                stream.arrived.resize(index + 1, None);
            }
            let before = stream.arrived.get_mut(index).and_then(|life| life.replace(to_life));
            // A new life begins with what its predecessor was not done with.
            let expected = match stream.expected {
                Some((life, next)) if life == to_life => next,
                _ => stream.first_missing().min(seq),
            };
            stream.expected = Some((to_life, expected.max(seq + 1)));
            stream.delivered += u64::from(before.is_none());
            if before == Some(to_life) {
                self.complain(format!("{}: {seq} came twice", name(key)));
                self.incident(|counts| counts.duplicated += 1);
            } else if seq < expected {
                // A skipped message is late when it comes, and lost when it never does.
                self.complain(format!("{}: {seq} came when {expected} was expected", name(key)));
                self.incident(|counts| counts.out_of_order += 1);
            }
            if before.is_some_and(|life| life != to_life) {
                self.incident(|counts| counts.again += 1);
            }
        }
    }

    /// A message with wrong content: whatever it should have been is missing, and this was never sent.
    pub(crate) fn bad(&mut self, to: usize, why: &str) {
        self.complain(format!("node {to} received wrong content: {why}"));
        self.incident(|counts| counts.errors += 1);
    }

    fn incident(&mut self, count: impl FnMut(&mut Counts)) {
        self.incidents.get_mut(self.row).into_iter().for_each(count);
    }

    fn complain(&mut self, what: String) {
        if self.complaints.len() < MAX_COMPLAINTS {
            self.complaints.push(what);
        }
    }

    // --- the balance ----------------------------------------------------------------------------

    /// Accepted and delivered so far, over all streams.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let add = |(sent, got), stream: &Stream| (sent + stream.accepted, got + stream.delivered);
        self.streams.values().fold((0, 0), add)
    }

    /// The same for one node: what it sent, what it received.
    pub(crate) fn totals_of(&self, node: usize) -> (u64, u64) {
        let mut totals = (0, 0);
        for ((from, _, to, _), stream) in &self.streams {
            totals.0 += if *from == node { stream.accepted } else { 0 };
            totals.1 += if *to == node { stream.delivered } else { 0 };
        }
        totals
    }

    /// The errors so far.
    pub(crate) fn incidents(&self) -> Counts {
        let mut sum = Counts::default();
        self.incidents.iter().for_each(|counts| sum.add(counts));
        sum
    }

    /// Nothing is under way from senders that live.
    pub(crate) fn is_settled(&self) -> bool {
        self.streams.values().all(|stream| {
            stream.ended || stream.delivered >= stream.accepted - stream.refused_below_accepted()
        })
    }

    /// What senders that live have sent so far.
    pub(crate) fn sent(&self) -> Sent {
        let living = self.streams.iter().filter(|(_, stream)| !stream.ended);
        Sent(living.map(|(key, stream)| (*key, stream.accepted - stream.refused_below_accepted())).collect())
    }

    /// All of that has arrived, but for what has died with its sender since.
    pub(crate) fn has(&self, sent: &Sent) -> bool {
        sent.0.iter().all(|(key, sent)| {
            self.streams.get(key).is_none_or(|stream| stream.ended || stream.delivered >= *sent)
        })
    }

    /// Something went wrong in this row.
    pub(crate) fn is_wrong(&self, row: usize) -> bool {
        self.incidents.get(row).is_some_and(|counts| counts.wrong() > 0)
            || self.streams.values().any(|stream| stream.dropped.values().any(|told| *told == row))
    }

    /// The streams that still miss something, for the story of a failed run.
    pub(crate) fn unsettled(&self) -> Vec<String> {
        let open = self.streams.iter().filter(|(_, stream)| !stream.ended);
        open.filter(|(_, stream)| stream.delivered < stream.accepted)
            .map(|(key, stream)| {
                let Stream { accepted, delivered, taken, .. } = stream;
                let missing = stream.first_missing();
                format!(
                    "{}: {delivered} of {accepted} delivered, {taken} receipts, first missing {missing}",
                    name(*key)
                )
            })
            .collect()
    }

    /// The rows of the table, and what went wrong in words. For when everything has ended.
    pub(crate) fn close(mut self) -> (Vec<Counts>, Vec<String>) {
        let mut rows = std::mem::take(&mut self.incidents);
        for (key, stream) in &std::mem::take(&mut self.streams) {
            let sent = stream.accepted.max(stream.arrived.len() as u64);
            // A message that was never sent cannot arrive.
            if stream.arrived.len() > stream.rows.len() {
                self.complain(format!("{}: more arrived than was sent", name(*key)));
            }
            // Only a tail can die with its sender: what came later shows that it had been sent before.
            let tail = stream.arrived.len() as u64;
            for seq in (0..sent).filter(|seq| !stream.refused.contains(seq)) {
                let row = stream.rows.get(seq as usize).copied().unwrap_or(0);
                let Some(counts) = rows.get_mut(row) else { continue };
                counts.sent += 1;
                if stream.arrived.get(seq as usize).is_some_and(Option::is_some) {
                    counts.received += 1;
                    counts.duplicated += u64::from(seq as usize >= stream.rows.len());
                } else if stream.ended && seq >= tail.max(stream.taken) {
                    counts.died += 1;
                } else {
                    counts.lost += 1;
                    self.complain(format!("{}: {seq} is lost", name(*key)));
                }
            }
            // A receipt that says dropped is a broken promise although the message may have arrived.
            for row in stream.dropped.values() {
                rows.get_mut(*row).into_iter().for_each(|counts| counts.errors += 1);
            }
        }
        (rows, self.complaints)
    }
}

impl Stream {
    fn first_missing(&self) -> u64 {
        self.arrived.iter().position(Option::is_none).unwrap_or(self.arrived.len()) as u64
    }

    fn refused_below_accepted(&self) -> u64 {
        self.refused.range(..self.accepted).count() as u64
    }
}
