//! A toy BFT chain: how to build a consensus node on unbroken. The parent starts validators in processes of
//! their own, silences the connections to one, freezes another one, kills a third one and restarts it, and
//! checks that all have committed the same chain.
//!
//! ```text
//! cargo run --example bft -- --nodes 4 --seconds 20
//! ```
//!
//! # The protocol
//! A simplified Tendermint (<https://arxiv.org/abs/1807.04938>) of n = 3f + 1 validators, any f of which may be
//! faulty. At each height:
//!
//! 1. The leader, chosen by height and round, proposes a block; if it is locked on one, that.
//! 2. A validator prevotes for the proposal, once in each round.
//! 3. With 2f + 1 prevotes for a block in this round a validator locks it and precommits. At this height it
//!    prevotes for no other block, until it sees 2f + 1 prevotes for another one in a later round.
//! 4. With 2f + 1 precommits for a block in one round a validator commits it.
//! 5. When a round has timed out a validator votes for the next round, and takes no part in this one any
//!    longer. With 2f + 1 such votes the next round begins.
//!
//! Two blocks cannot be committed at one height: of 2f + 1 validators that have precommitted the first one
//! f + 1 are honest and locked, so no later round has 2f + 1 prevotes for another block.
//!
//! A validator stores its last vote and its lock in a file before it sends the vote. After a restart it
//! repeats its votes since its last commit, and contradicts none. The chain itself is not stored. A validator
//! that misses blocks asks a peer for them and believes the chain up to a block that f + 1 validators say
//! they have committed.
//!
//! # What each part of the library does here
//! - Votes and proposals go by the urgent lane, missing blocks by request and reply on the bulk lane.
//! - `broadcast_to` never waits, so one thread sends and receives; `select!` waits for messages, the reply
//!   and the time at once.
//! - Messages to a validator that is frozen, or whose connections are silent, arrive later, once and in
//!   order: the consensus repeats nothing while both processes live. Silent connections are replaced after a
//!   second.
//! - The votes that a killed validator had received are lost with it. At `Event::PeerRestarted` its peers
//!   repeat their votes since their last commit.
//! - Each connection proves the identity of its peer: a vote counts for the validator that sent it.
//!
//! # What it is not
//! - Votes and blocks have no signatures of their own. Nobody can prove to a third party what a validator has
//!   said, so there are no certificates, no light clients and no penalties for double votes.
//! - Votes are not passed on, which needs signatures, too. A faulty validator that tells each peer something
//!   else cannot make them commit different blocks, but it can lock them on different blocks, and then no
//!   further block is committed. Faulty validators that crash, are silent or restart do not stop the chain.
//! - Nothing bounds the memory that a faulty validator can use up with votes for future heights, and blocks
//!   are requested all at once.
//! - The file of votes is not flushed to the disk: it survives the end of the process, not of the machine.
//! - The chain is in memory. If more than f validators restart at once it may be lost, and no block follows.
//! - A message that is refused because the queue for its peer is full (8 MiB) is not sent again. Such a peer
//!   catches up when the others have committed more blocks.
//! - The set of validators is fixed, and there are no transactions.

#![allow(clippy::disallowed_methods, reason = "an application, not the library: it reads the real clock")]

#[cfg(not(target_os = "linux"))]
compile_error!("the bft example needs Linux: it freezes processes and makes the kernel drop packets");

mod chain;
mod consensus;
mod node;
mod parent;

use std::time::Duration;

/// An error is printed and followed by exit code 1.
pub(crate) type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The variable that makes a process a validator: the directory of what it keeps.
pub(crate) const HOME: &str = "UNBROKEN_BFT_HOME";

fn main() -> Result {
    if let Some(home) = std::env::var_os(HOME) {
        return node::run(home.as_ref());
    }
    let (mut nodes, mut seconds) = (4, 20);
    let mut words = std::env::args().skip(1);
    while let Some(flag) = words.next() {
        match (flag.as_str(), words.next().and_then(|value| value.parse().ok())) {
            ("--nodes", Some(value @ 4..=7)) => nodes = value,
            ("--seconds", Some(value @ 10..=120)) => seconds = value,
            _ => return Err("usage: bft [--nodes 4..7] [--seconds 10..120]".into()),
        }
    }
    let directory = std::env::temp_dir().join(format!("unbroken-bft-{}", std::process::id()));
    let result = parent::run(nodes as usize, Duration::from_secs(seconds), &directory);
    let _ = std::fs::remove_dir_all(&directory); // It may not be there if nothing could be started.
    result
}
