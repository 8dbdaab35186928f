//! Which stranger is evicted when strangers have filled the node and another one comes.
//!
//! After the idea of Bitcoin Core's `SelectNodeToEvict`: whatever an attacker is good at protects a few of
//! his connections, not all, and what he cannot be good at afterwards is having been there before.
//!
//! 1. Wanted peers are no candidates.
//! 2. A sixteenth of the candidates is protected by each of: the subnet (one of each of the subnets that come
//!    first by a secret hash: nobody knows which those are), the round trip, the replies that it gave to our
//!    requests, the messages that were taken from it.
//! 3. The half of the others that has been connected the longest is protected.
//! 4. Among those that are left, the largest subnet (IPv4 /24, IPv6 /56; protected ones count) loses the
//!    youngest.
//! 5. The newcomer gets the place only if its own subnet has fewer strangers here than that one.
//!
//! If strangers were here before an attack began, up to three eighths of the slots of strangers
//! survive it, whatever the attacker's addresses, round trips and messages are; all that are
//! alone in their subnet survive an attacker with fewer subnets than half the slots. The simulation in `sim`
//! holds it to this.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::id::ConnId;

/// How useful a peer was, over the life of its link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Merit {
    /// The operator has named it meanwhile.
    pub(crate) wanted: bool,
    pub(crate) rtt: Option<Duration>,
    /// Replies to requests of ours.
    pub(crate) answers: u64,
    /// Messages that arrived whole.
    pub(crate) messages: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) conn: ConnId,
    pub(super) subnet: IpAddr,
    /// The secret hash of the subnet.
    pub(super) draw: u64,
    pub(super) since: Instant,
    pub(super) merit: Merit,
}

/// Returns the one to evict for a newcomer from this subnet. `None`: nobody, the newcomer is not let in.
pub(super) fn choose(mut candidates: Vec<Candidate>, newcomer: IpAddr) -> Option<ConnId> {
    let mut sizes: HashMap<IpAddr, usize> = HashMap::new();
    candidates.iter().for_each(|candidate| *sizes.entry(candidate.subnet).or_default() += 1);
    let size = |subnet: IpAddr| sizes.get(&subnet).copied().unwrap_or(0);

    let share = candidates.len() / 16;
    protect_subnets(&mut candidates, share);
    protect(&mut candidates, share, |one| (one.merit.rtt.unwrap_or(Duration::MAX), one.since, one.conn));
    for merit in [|one: &Candidate| one.merit.answers, |one: &Candidate| one.merit.messages] {
        // A peer that has none of it is not protected for it.
        let with = candidates.iter().filter(|one| merit(one) > 0).count();
        protect(&mut candidates, share.min(with), |one| (u64::MAX - merit(one), one.since, one.conn));
    }
    let half = candidates.len() / 2;
    protect(&mut candidates, half, |one| (one.since, one.conn));

    let victim = candidates.iter().max_by_key(|one| (size(one.subnet), one.since, one.conn))?;
    (size(newcomer) < size(victim.subnet)).then_some(victim.conn)
}

/// Takes the `count` first by `key` out of the candidates.
fn protect<K: Ord>(candidates: &mut Vec<Candidate>, count: usize, key: impl Fn(&Candidate) -> K) {
    candidates.sort_by_key(key);
    candidates.drain(..count.min(candidates.len()));
}

/// The one that has been here longest of each of the `count` subnets that come first by lot.
fn protect_subnets(candidates: &mut Vec<Candidate>, count: usize) {
    candidates.sort_by_key(|one| (one.draw, one.subnet, one.since, one.conn));
    let (mut last, mut left) = (None, count);
    candidates.retain(|one| {
        let first = last != Some(one.subnet);
        last = Some(one.subnet);
        let protected = first && left > 0;
        left -= usize::from(protected);
        !protected
    });
}
