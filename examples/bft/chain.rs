//! Blocks, and the votes of the validators about them.

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

pub(crate) type Hash = [u8; 32];

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Block {
    /// The hash of the block before; zeros in the first one.
    pub(crate) parent: Hash,
    pub(crate) height: u64,
    pub(crate) payload: String,
}

impl Block {
    pub(crate) fn hash(&self) -> Hash {
        let content = [self.parent.as_slice(), &self.height.to_le_bytes(), self.payload.as_bytes()].concat();
        digest(&SHA256, &content).as_ref().try_into().unwrap_or_default()
    }
}

/// The kinds of messages, in the order in which a validator sends them within a round.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// The round before this one has timed out. The hash means nothing.
    #[default]
    RoundChange,
    /// The leader of the round proposes this block.
    Proposal,
    /// The proposal of this round may be committed.
    Prevote,
    /// A quorum has prevoted for this block in this round, and the voter is locked on it.
    Precommit,
    /// The voter has committed this block. The round is 0.
    Committed,
}

/// Height, round and kind. A validator votes once in each, in ascending order.
pub(crate) type Slot = (u64, u32, Kind);

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Vote {
    pub(crate) slot: Slot,
    pub(crate) hash: Hash,
    /// The block of a proposal.
    pub(crate) block: Option<Block>,
}
