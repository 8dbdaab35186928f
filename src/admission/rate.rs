//! How often an address may open a connection, for a bounded number of addresses.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use crate::bucket::Bucket;

/// How many addresses are remembered with their rates. An attacker with more of them makes the
/// oldest ones forgotten: the limits in all hold him.
pub(super) const MAX_TRACKED: usize = 4096;

#[derive(Debug)]
pub(super) struct Rates {
    full: Bucket,
    by_address: HashMap<IpAddr, Bucket>,
}

impl Rates {
    pub(super) fn new(per_minute: u32, at_once: u32) -> Self {
        let full = Bucket::new(f64::from(per_minute) / 60.0, f64::from(at_once));
        Rates { full, by_address: HashMap::new() }
    }

    /// One more connection from this address. False when they come too often.
    pub(super) fn take(&mut self, addr: IpAddr, now: Instant) -> bool {
        if !self.by_address.contains_key(&addr) && self.by_address.len() >= MAX_TRACKED {
            self.make_room(now);
        }
        self.by_address.entry(addr).or_insert(self.full).acquire(1.0, now)
    }

    /// A connection from this address does not count after all.
    pub(super) fn give_back(&mut self, addr: IpAddr) {
        self.by_address.get_mut(&addr).into_iter().for_each(|bucket| bucket.refund(1.0));
    }

    /// Forgets those who have nothing against them any more, or else the quarter that was last seen longest
    /// ago: not one at a time, for the search costs as much as the table is large.
    fn make_room(&mut self, now: Instant) {
        self.by_address.retain(|_, bucket| !bucket.is_full(now));
        if self.by_address.len() < MAX_TRACKED {
            return;
        }
        let mut seen: Vec<_> =
            self.by_address.iter().map(|(addr, bucket)| (bucket.last_used(), *addr)).collect();
        seen.sort();
        seen.iter().take(MAX_TRACKED / 4).for_each(|(_, addr)| {
            self.by_address.remove(addr);
        });
    }

    #[cfg(test)]
    pub(super) fn tracked(&self) -> usize {
        self.by_address.len()
    }
}
