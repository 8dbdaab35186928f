//! The rules of the consensus, without any input or output: votes and the time go in, votes and blocks come
//! out.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::chain::{Block, Hash, Kind, Slot, Vote};

/// From a commit to the next proposal.
const BLOCK_TIME: Duration = Duration::from_millis(200);
/// How long the first round of a height may take; the second may take twice as long, and so on.
const ROUND_TIME: Duration = Duration::from_millis(500);

/// Everything that a validator must remember across a restart.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct State {
    /// The slot of its last vote.
    last: Slot,
    /// The block that it is locked on, and the slot of the prevotes that made it so.
    lock: (Slot, Hash),
    /// The proposed blocks, from the height that is being decided on.
    blocks: BTreeMap<Hash, Block>,
    /// Its votes since its last commit, to be repeated to peers that restart, and to all after its own
    /// restart.
    pub(crate) votes: Vec<Vote>,
}

#[derive(Default)]
pub(crate) struct Consensus {
    /// The number of this validator, and of how many.
    me: usize,
    validators: usize,
    pub(crate) state: State,
    /// The committed blocks, from height 1 on, and the hash of the last one.
    pub(crate) chain: Vec<Block>,
    head: Hash,
    round: u32,
    /// When this validator is to propose a block, if it is the leader and has not done so yet.
    propose_at: Option<Instant>,
    round_ends: Option<Instant>,
    /// The first vote of each validator in each slot, from the height that is being decided on.
    votes: BTreeMap<Slot, BTreeMap<usize, Hash>>,
    /// The votes that are to be sent to all others, once the state is stored.
    pub(crate) outbox: Vec<Vote>,
}

impl Consensus {
    /// The state is that of the earlier life.
    pub(crate) fn new(me: usize, validators: usize, state: State, now: Instant) -> Consensus {
        let mut consensus = Consensus { me, validators, state, ..Consensus::default() };
        consensus.begin_height(now);
        std::mem::take(&mut consensus.state.votes).into_iter().for_each(|vote| consensus.say(vote));
        consensus
    }

    /// The height that is being decided.
    pub(crate) fn height(&self) -> u64 {
        self.chain.len() as u64 + 1
    }

    /// When `advance` must be called at the latest.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.propose_at.into_iter().chain(self.round_ends).min()
    }

    /// Takes the vote of a validator. Nothing follows from it before `advance`.
    pub(crate) fn take(&mut self, from: usize, vote: Vote) {
        if vote.slot.0 >= self.height() {
            self.votes.entry(vote.slot).or_default().entry(from).or_insert(vote.hash);
            self.state.blocks.extend(vote.block.map(|block| (block.hash(), block)));
        }
    }

    /// Does everything that the votes so far and the time allow.
    pub(crate) fn advance(&mut self, now: Instant) {
        let mut before = None;
        while before != Some(self.outbox.len()) {
            before = Some(self.outbox.len());
            self.count_votes(now);
            self.cast_votes(now);
        }
    }

    /// The validators that have committed a block which is missing here: each of them can be asked for it.
    pub(crate) fn ahead(&self) -> Vec<usize> {
        let mut claims = self.votes.iter().rev().filter(|(slot, _)| slot.2 == Kind::Committed);
        let latest = claims.find(|(slot, _)| self.agreed(slot).is_some());
        latest.into_iter().flat_map(|(_, votes)| votes.keys().copied()).collect()
    }

    /// Commits the blocks of one peer up to the last one that enough validators say they have committed: the
    /// hashes of the parents prove those before it.
    pub(crate) fn catch_up(&mut self, blocks: Vec<Block>, now: Instant) {
        let (height, mut parent, mut chain) = (self.height(), self.head, Vec::new());
        for block in blocks.into_iter().skip_while(|block| block.height < height) {
            if block.parent != parent {
                return;
            }
            parent = block.hash();
            let slot = (block.height, 0, Kind::Committed);
            chain.push(block);
            if self.agreed(&slot) == Some(parent) {
                self.commit(&mut chain, parent, now);
            }
        }
    }

    fn commit(&mut self, blocks: &mut Vec<Block>, hash: Hash, now: Instant) {
        self.chain.append(blocks);
        self.head = hash;
        self.begin_height(now);
        self.say(Vote { slot: (self.height() - 1, 0, Kind::Committed), hash, block: None });
    }

    fn begin_height(&mut self, now: Instant) {
        let height = self.height();
        self.votes = self.votes.split_off(&(height, 0, Kind::RoundChange));
        self.state.blocks.retain(|_, block| block.height >= height);
        self.state.votes.retain(|vote| vote.slot.0 >= height);
        // An earlier life may have come further.
        let round = if self.state.last.0 == height { self.state.last.1 } else { 0 };
        self.begin_round(round, now + BLOCK_TIME);
    }

    fn begin_round(&mut self, round: u32, start: Instant) {
        self.round = round;
        self.propose_at = (self.leader() == self.me).then_some(start);
        self.round_ends = Some(start + ROUND_TIME * (round + 1).min(8));
    }

    fn leader(&self) -> usize {
        ((self.height() + u64::from(self.round)) % self.validators as u64) as usize
    }

    /// Changes the round, locks or commits, where a quorum has voted for it.
    fn count_votes(&mut self, now: Instant) {
        let height = self.height();
        let slots = self.votes.range((height, 0, Kind::RoundChange)..(height + 1, 0, Kind::RoundChange));
        let agreed: Vec<_> = slots.filter_map(|(slot, _)| Some((*slot, self.agreed(slot)?))).collect();
        for (slot, hash) in agreed {
            match (slot.2, self.state.blocks.get(&hash)) {
                (Kind::RoundChange, _) if slot.1 > self.round => self.begin_round(slot.1, now),
                (Kind::Prevote, Some(_)) if slot > self.state.lock.0 => self.state.lock = (slot, hash),
                (Kind::Precommit, Some(block)) => return self.commit(&mut vec![block.clone()], hash, now),
                _ => {}
            }
        }
    }

    /// Proposes and votes, where it is time for it.
    fn cast_votes(&mut self, now: Instant) {
        let (height, round, parent) = (self.height(), self.round, self.head);
        let (locked_in, locked) = self.state.lock;
        let is_locked = locked_in.0 >= height;
        if self.propose_at.take_if(|at| *at <= now).is_some() {
            let payload = format!("block {height}, made by validator {} in round {round}", self.me);
            let new = Some(Block { parent, height, payload });
            let block = if is_locked { self.state.blocks.get(&locked).cloned() } else { new };
            let hash = block.as_ref().map(Block::hash).unwrap_or_default();
            self.vote((height, round, Kind::Proposal), hash, block);
        }
        let proposals = self.votes.get(&(height, round, Kind::Proposal));
        let proposal = proposals.and_then(|votes| votes.get(&self.leader())).copied();
        let follows = |block: &Block| (block.parent, block.height) == (parent, height);
        if let Some(hash) = proposal
            && self.state.blocks.get(&hash).is_some_and(follows)
            && (!is_locked || hash == locked)
        {
            self.vote((height, round, Kind::Prevote), hash, None);
        }
        if locked_in == (height, round, Kind::Prevote) {
            self.vote((height, round, Kind::Precommit), locked, None);
        }
        if self.round_ends.is_none_or(|end| end <= now) {
            self.round_ends = Some(now + ROUND_TIME);
            self.vote((height, round + 1, Kind::RoundChange), Hash::default(), None);
        }
    }

    /// Does nothing where this life or an earlier one has voted already, in this slot or a later one.
    fn vote(&mut self, slot: Slot, hash: Hash, block: Option<Block>) {
        if slot > self.state.last {
            self.state.last = slot;
            self.say(Vote { slot, hash, block });
        }
    }

    fn say(&mut self, vote: Vote) {
        self.take(self.me, vote.clone());
        self.state.votes.push(vote.clone());
        self.outbox.push(vote);
    }

    /// The hash with enough votes. Any two quorums (2f + 1 of 3f + 1) have an honest validator in common; and
    /// of f + 1 validators that say they have committed a block one is honest.
    fn agreed(&self, slot: &Slot) -> Option<Hash> {
        let (votes, faulty) = (self.votes.get(slot)?, (self.validators - 1) / 3);
        let quorum = (self.validators + faulty) / 2 + 1;
        let needed = if slot.2 == Kind::Committed { faulty + 1 } else { quorum };
        let count = |hash: &Hash| votes.values().filter(|other| *other == hash).count();
        votes.values().copied().find(|hash| count(hash) >= needed)
    }
}
