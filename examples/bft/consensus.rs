//! The rules of the consensus, without any input or output: messages and the time go in, messages and blocks
//! come out.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::chain::{Block, GENESIS, Hash, Kind, Message, Slot};

/// From a commit to the next proposal.
pub(crate) const BLOCK_TIME: Duration = Duration::from_millis(200);
/// How long the first round of a height may take; the second may take twice as long, and so on.
pub(crate) const ROUND_TIME: Duration = Duration::from_millis(500);

/// The votes and the lock that a validator must remember across a restart.
pub(crate) type Promise = (Slot, Option<(u32, Block)>);

pub(crate) struct Consensus {
    /// The number of this validator.
    me: usize,
    validators: usize,
    /// The committed blocks, from height 1 on.
    chain: Vec<Block>,
    round: u32,
    propose_at: Option<Instant>,
    round_ends: Instant,
    /// By height and round, from this height on.
    proposals: BTreeMap<(u64, u32), Block>,
    /// The first vote of each validator, from this height on.
    votes: BTreeMap<Slot, BTreeMap<usize, Hash>>,
    /// The block with the latest quorum of prevotes at this height, and the round of that.
    lock: Option<(u32, Block)>,
    /// The last vote of this validator.
    last: Slot,
    /// The lock that the earlier life had at the height of `last`.
    restored: Option<(u32, Block)>,
    /// What this validator has said since its last commit, for a peer that has restarted.
    said: Vec<Message>,
    /// What is to be sent to all others.
    outbox: Vec<Message>,
}

impl Consensus {
    pub(crate) fn new(me: usize, validators: usize, promise: Option<Promise>, now: Instant) -> Consensus {
        let (last, restored) = promise.unwrap_or(((0, 0, Kind::RoundChange), None));
        let mut consensus = Consensus {
            me,
            validators,
            chain: Vec::new(),
            round: 0,
            propose_at: None,
            round_ends: now,
            proposals: BTreeMap::new(),
            votes: BTreeMap::new(),
            lock: None,
            last,
            restored,
            said: Vec::new(),
            outbox: Vec::new(),
        };
        consensus.begin_height(now);
        consensus
    }

    pub(crate) fn chain(&self) -> &[Block] {
        &self.chain
    }

    /// The height that is being decided.
    pub(crate) fn height(&self) -> u64 {
        self.chain.len() as u64 + 1
    }

    pub(crate) fn promise(&self) -> Promise {
        let lock = if self.last.0 > self.height() { &self.restored } else { &self.lock };
        (self.last, lock.clone())
    }

    pub(crate) fn said(&self) -> &[Message] {
        &self.said
    }

    /// The messages for all others. The promise must be stored before they are sent.
    pub(crate) fn take_outbox(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.outbox)
    }

    /// When `advance` must be called at the latest.
    pub(crate) fn deadline(&self) -> Instant {
        self.propose_at.map_or(self.round_ends, |at| at.min(self.round_ends))
    }

    /// Takes a message of a validator. Nothing happens before `advance`.
    pub(crate) fn take(&mut self, from: usize, message: Message) {
        match message {
            Message::Proposal { round, block } => {
                if block.height >= self.height() && self.leader(block.height, round) == from {
                    self.proposals.entry((block.height, round)).or_insert(block);
                }
            }
            Message::Vote { slot, hash } => {
                if slot.0 >= self.height() {
                    self.votes.entry(slot).or_default().entry(from).or_insert(hash);
                }
            }
        }
    }

    /// Does everything that the messages so far and the time allow.
    pub(crate) fn advance(&mut self, now: Instant) {
        loop {
            if let Some(block) = self.decided() {
                self.commit(vec![block], now);
                continue;
            }
            if let Some(round) = self.next_round() {
                self.begin_round(round, now, now);
            }
            self.update_lock();
            if !(self.propose(now) || self.prevote() || self.precommit() || self.time_out(now)) {
                break;
            }
        }
    }

    /// The validators that have committed a block which is missing here: any of them can be asked for it.
    pub(crate) fn ahead(&self) -> Option<Vec<usize>> {
        let mut claims = self.votes.iter().rev().filter(|(slot, _)| slot.2 == Kind::Committed);
        let (hash, votes) = claims.find_map(|(slot, votes)| Some((self.agreed(*slot)?, votes)))?;
        Some(votes.iter().filter(|(_, vote)| **vote == hash).map(|(validator, _)| *validator).collect())
    }

    /// Commits the blocks of one peer up to the last one that enough validators say they have committed: the
    /// hashes of the parents prove those before it.
    pub(crate) fn catch_up(&mut self, blocks: Vec<Block>, now: Instant) {
        let (mut chain, mut proven) = (Vec::new(), 0);
        let (mut height, mut parent) = (self.height(), self.head());
        for block in blocks.into_iter().skip_while(|block| block.height < self.height()) {
            if (block.height, block.parent) != (height, parent) {
                break;
            }
            (height, parent) = (height + 1, block.hash());
            let claimed = self.agreed((block.height, 0, Kind::Committed));
            chain.push(block);
            if claimed == Some(parent) {
                proven = chain.len();
            }
        }
        chain.truncate(proven);
        if !chain.is_empty() {
            self.commit(chain, now);
        }
    }

    // --- commits and rounds ----------------------------------------------------------------------

    fn head(&self) -> Hash {
        self.chain.last().map_or(GENESIS, Block::hash)
    }

    fn leader(&self, height: u64, round: u32) -> usize {
        (height.wrapping_add(u64::from(round)) % self.validators as u64) as usize
    }

    fn commit(&mut self, blocks: Vec<Block>, now: Instant) {
        self.chain.extend(blocks);
        self.begin_height(now);
        self.say(Message::Vote { slot: (self.height() - 1, 0, Kind::Committed), hash: self.head() });
    }

    fn begin_height(&mut self, now: Instant) {
        let height = self.height();
        self.votes = self.votes.split_off(&(height, 0, Kind::RoundChange));
        self.proposals = self.proposals.split_off(&(height, 0));
        self.lock = self.restored.clone().filter(|(_, block)| block.height == height);
        self.said.clear();
        self.begin_round(0, now + BLOCK_TIME, now);
    }

    fn begin_round(&mut self, round: u32, propose_at: Instant, now: Instant) {
        self.round = round;
        self.propose_at = (self.leader(self.height(), round) == self.me).then_some(propose_at);
        self.round_ends = propose_at.max(now) + ROUND_TIME * (round + 1).min(8);
    }

    /// The block with a quorum of precommits.
    fn decided(&self) -> Option<Block> {
        self.slots(Kind::Precommit).find_map(|slot| self.block(self.agreed(slot)?)).cloned()
    }

    /// The latest round that a quorum wants, if it is later than this one.
    fn next_round(&self) -> Option<u32> {
        let rounds = self.slots(Kind::RoundChange).filter(|slot| self.agreed(*slot).is_some());
        rounds.map(|(_, round, _)| round).filter(|round| *round > self.round).max()
    }

    /// Locks the block with the latest quorum of prevotes.
    fn update_lock(&mut self) {
        let newer = |round| self.lock.as_ref().is_none_or(|(locked, _)| round > *locked);
        let prevoted = self.slots(Kind::Prevote).filter(|slot| newer(slot.1));
        let latest =
            prevoted.filter_map(|slot| Some((slot.1, self.block(self.agreed(slot)?)?.clone()))).last();
        if latest.is_some() {
            self.lock = latest;
        }
    }

    // --- what this validator says ----------------------------------------------------------------

    /// A leader that is locked proposes that block again.
    fn propose(&mut self, now: Instant) -> bool {
        if self.propose_at.is_none_or(|at| now < at) {
            return false;
        }
        self.propose_at = None;
        let (height, round) = (self.height(), self.round);
        if self.last >= (height, round, Kind::Prevote) || self.proposals.contains_key(&(height, round)) {
            return false; // An earlier life has made its proposal.
        }
        let payload = || format!("block {height}, made by validator {} in round {round}", self.me);
        let new = || Block { parent: self.head(), height, payload: payload() };
        let block = self.lock.as_ref().map_or_else(new, |(_, block)| block.clone());
        self.say(Message::Proposal { round, block });
        true
    }

    /// A validator that is locked prevotes for no other block.
    fn prevote(&mut self) -> bool {
        let Some(block) = self.proposals.get(&(self.height(), self.round)) else { return false };
        let hash = block.hash();
        let fits = block.parent == self.head();
        let free = self.lock.as_ref().is_none_or(|(_, locked)| locked.hash() == hash);
        fits && free && self.vote(self.round, Kind::Prevote, hash)
    }

    fn precommit(&mut self) -> bool {
        let locked = self.lock.as_ref().filter(|(round, _)| *round == self.round);
        locked.map(|(_, block)| block.hash()).is_some_and(|hash| self.vote(self.round, Kind::Precommit, hash))
    }

    fn time_out(&mut self, now: Instant) -> bool {
        if now < self.round_ends {
            return false;
        }
        self.round_ends = now + ROUND_TIME;
        self.vote(self.round + 1, Kind::RoundChange, GENESIS)
    }

    /// False where this life or an earlier one has voted already, here or later.
    fn vote(&mut self, round: u32, kind: Kind, hash: Hash) -> bool {
        let slot = (self.height(), round, kind);
        if slot <= self.last {
            return false;
        }
        self.last = slot;
        self.say(Message::Vote { slot, hash });
        true
    }

    fn say(&mut self, message: Message) {
        self.take(self.me, message.clone());
        self.said.push(message.clone());
        self.outbox.push(message);
    }

    // --- what the others have said ---------------------------------------------------------------

    /// The slots of one kind at this height in which anybody has voted, the earliest round first.
    fn slots(&self, kind: Kind) -> impl Iterator<Item = Slot> {
        let height = self.height();
        let range = (height, 0, Kind::RoundChange)..(height + 1, 0, Kind::RoundChange);
        self.votes.range(range).map(|(slot, _)| *slot).filter(move |slot| slot.2 == kind)
    }

    /// The hash with a quorum: any two quorums share a validator that is honest. That a block is committed is
    /// believed when at least one honest validator says so.
    fn agreed(&self, slot: Slot) -> Option<Hash> {
        let faulty = (self.validators - 1) / 3;
        let quorum = (self.validators + faulty) / 2 + 1;
        let needed = if slot.2 == Kind::Committed { faulty + 1 } else { quorum };
        let votes = self.votes.get(&slot)?;
        let count = |hash: &Hash| votes.values().filter(|other| *other == hash).count();
        votes.values().copied().find(|hash| count(hash) >= needed)
    }

    /// A block that was proposed at this height.
    fn block(&self, hash: Hash) -> Option<&Block> {
        let height = self.height();
        let proposals = self.proposals.range((height, 0)..(height + 1, 0)).map(|(_, block)| block);
        proposals.chain(self.lock.iter().map(|(_, block)| block)).find(|block| block.hash() == hash)
    }
}
