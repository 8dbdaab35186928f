//! The rules of the consensus, without any input or output: messages and the time go in, messages and blocks
//! come out.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::chain::{Block, Hash, Kind, Message, Slot};

/// From a commit to the next proposal.
const BLOCK_TIME: Duration = Duration::from_millis(200);
/// How long the first round of a height may take; the second may take twice as long, and so on.
const ROUND_TIME: Duration = Duration::from_millis(500);

#[derive(Default)]
pub(crate) struct Consensus {
    /// The number of this validator, and of how many.
    me: usize,
    validators: usize,
    /// The last vote of this validator.
    pub(crate) last: Slot,
    /// The block that this validator is locked on, and the prevotes that made it so.
    pub(crate) lock: (Slot, Hash),
    /// The committed blocks, from height 1 on, and the hash of the last one.
    pub(crate) chain: Vec<Block>,
    head: Hash,
    round: u32,
    /// When this validator is to propose a block, if it is the leader and has not done so yet.
    propose_at: Option<Instant>,
    round_ends: Option<Instant>,
    /// What was proposed by height and round, and the first vote of each validator, from this height on.
    proposals: BTreeMap<(u64, u32), Hash>,
    blocks: BTreeMap<Hash, Block>,
    votes: BTreeMap<Slot, BTreeMap<usize, Hash>>,
    /// What this validator has said since its last commit, for peers that restart.
    pub(crate) said: Vec<Message>,
    /// What is to be sent to all others, once `last` and `lock` are stored.
    pub(crate) outbox: Vec<Message>,
}

impl Consensus {
    pub(crate) fn new(me: usize, validators: usize, now: Instant) -> Consensus {
        let mut consensus = Consensus { me, validators, ..Consensus::default() };
        consensus.begin_round(0, now);
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

    /// Takes a message of a validator. Nothing follows from it before `advance`.
    pub(crate) fn take(&mut self, from: usize, message: Message) {
        match message {
            Message::Vote { slot, hash } if slot.0 >= self.height() => {
                self.votes.entry(slot).or_default().entry(from).or_insert(hash);
            }
            Message::Proposal { round, block } if self.leader(block.height, round) == from => {
                let hash = block.hash();
                self.proposals.entry((block.height, round)).or_insert(hash);
                self.blocks.insert(hash, block);
            }
            _ => {} // It comes too late, or from another one than the leader.
        }
    }

    /// Does everything that the messages so far and the time allow.
    pub(crate) fn advance(&mut self, now: Instant) {
        let mut before = None;
        while before != Some((self.height(), self.last)) {
            before = Some((self.height(), self.last));
            self.count_votes(now);
            self.speak(now);
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

    fn leader(&self, height: u64, round: u32) -> usize {
        (height.wrapping_add(round.into()) % self.validators as u64) as usize
    }

    fn commit(&mut self, blocks: &mut Vec<Block>, head: Hash, now: Instant) {
        self.chain.append(blocks);
        self.head = head;
        let height = self.height();
        self.votes = self.votes.split_off(&(height, 0, Kind::RoundChange));
        self.proposals = self.proposals.split_off(&(height, 0));
        self.blocks.retain(|_, block| block.height >= height);
        self.said.clear();
        self.say(Message::Vote { slot: (height - 1, 0, Kind::Committed), hash: head });
        self.begin_round(0, now + BLOCK_TIME);
    }

    fn begin_round(&mut self, round: u32, start: Instant) {
        self.round = round;
        self.propose_at = (self.leader(self.height(), round) == self.me).then_some(start);
        self.round_ends = Some(start + ROUND_TIME * (round + 1).min(8));
    }

    /// Changes the round, locks or commits, where a quorum has voted for it.
    fn count_votes(&mut self, now: Instant) {
        let height = self.height();
        let slots = self.votes.range((height, 0, Kind::RoundChange)..(height + 1, 0, Kind::RoundChange));
        let agreed: Vec<_> = slots.filter_map(|(slot, _)| Some((*slot, self.agreed(slot)?))).collect();
        for (slot, hash) in agreed {
            match (slot.2, self.blocks.get(&hash)) {
                (Kind::RoundChange, _) if slot.1 > self.round => self.begin_round(slot.1, now),
                (Kind::Prevote, Some(_)) if slot > self.lock.0 => self.lock = (slot, hash),
                (Kind::Precommit, Some(block)) => return self.commit(&mut vec![block.clone()], hash, now),
                _ => {}
            }
        }
    }

    /// Proposes and votes, where it is time for it.
    fn speak(&mut self, now: Instant) {
        let (height, round, me, parent) = (self.height(), self.round, self.me, self.head);
        let prevote = (height, round, Kind::Prevote);
        let (locked_in, locked) = self.lock;
        let is_free = locked_in.0 < height;
        if self.propose_at.take_if(|at| *at <= now).is_some() && self.last < prevote {
            let payload = format!("block {height}, made by validator {me} in round {round}");
            let new = Some(Block { parent, height, payload });
            let block = if is_free { new } else { self.blocks.get(&locked).cloned() };
            block.into_iter().for_each(|block| self.say(Message::Proposal { round, block }));
        }
        let follows = |hash: &Hash| self.blocks.get(hash).is_some_and(|block| block.parent == parent);
        let proposed = self.proposals.get(&(height, round)).copied();
        if let Some(hash) = proposed.filter(|hash| if is_free { follows(hash) } else { *hash == locked }) {
            self.vote(prevote, hash);
        }
        if locked_in == prevote {
            self.vote((height, round, Kind::Precommit), locked);
        }
        if self.round_ends.is_none_or(|end| end <= now) {
            self.round_ends = Some(now + ROUND_TIME);
            self.vote((height, round + 1, Kind::RoundChange), Hash::default());
        }
    }

    /// Says nothing where this life or an earlier one has voted already, in this slot or a later one.
    fn vote(&mut self, slot: Slot, hash: Hash) {
        if slot > self.last {
            self.last = slot;
            self.say(Message::Vote { slot, hash });
        }
    }

    fn say(&mut self, message: Message) {
        self.take(self.me, message.clone());
        self.said.push(message.clone());
        self.outbox.push(message);
    }

    /// The hash with enough votes. Any two quorums (2f + 1 of 3f + 1) have an honest validator in common; and
    /// of f + 1 validators that say they have committed a block one is honest.
    fn agreed(&self, slot: &Slot) -> Option<Hash> {
        let faulty = (self.validators - 1) / 3;
        let needed = if slot.2 == Kind::Committed { faulty + 1 } else { (self.validators + faulty) / 2 + 1 };
        let votes = self.votes.get(slot)?;
        let count = |hash: &Hash| votes.values().filter(|other| *other == hash).count();
        votes.values().copied().find(|hash| count(hash) >= needed)
    }
}
