//! Shares of one byte budget. Pure: no lock, no clock.
//!
//! Every link has an account, which is *named* (the operator configured or added its peer) or that of a
//! stranger.
//!
//! ```text
//! max = guaranteed parts, one for each named account  +  common part
//!       none of them lends anything to anybody           named accounts beyond their guarantee: any of it
//!                                                        strangers: half of it, all of them together
//! ```
//!
//! - A named account always gets what is left of its guarantee, whatever others hold.
//! - Beyond that a named account may hold at most as much of the common part as stays free in it.
//! - A stranger may hold a sixteenth of what stays free of the strangers' part, so that many of them, one
//!   after the other, release something to the next one. Its first message may take half of what is free, or
//!   all if no other stranger holds anything.
//! - Everybody leaves room for one message of the greatest size in the common part, which only a named
//!   account may use that holds nothing. So such a message gets through in the end, also when it is larger
//!   than the guarantee.
//!
//! - A named account that becomes a stranger's keeps what it has. When such accounts keep named ones from
//!   their guarantees the budget is *overdrawn*, and absent strangers have to be forgotten.
//!
//! Invariants: the sum of all accounts is at most `max`; what strangers hold beside their part came before
//! the parts changed. The guarantees follow the number of named accounts: what an account holds beyond a
//! guarantee that has shrunk counts in the common part from then on.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::id::PeerId;

/// A stranger may hold one in so many bytes that stay free of the strangers' part: 20 of them release a third
/// of it, 64 (all that one address may have by default) a fiftieth.
const STRANGERS: usize = 16;

/// Names an account. A peer that was removed and added again has a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AccountId(u64);

#[cfg(test)]
impl AccountId {
    pub(crate) fn numbered(number: u64) -> Self {
        AccountId(number)
    }
}

/// A table of accounts, which are looked up for every message that is sent: their numbers come from this
/// process alone, so nobody can choose them to collide.
pub(crate) type ByAccount<A> = HashMap<AccountId, A, BuildHasherDefault<NumberHasher>>;

/// Spreads consecutive numbers (Fibonacci hashing: Knuth, The Art of Computer Programming 3, 6.4).
#[derive(Debug, Default)]
pub(crate) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[derive(Debug)]
struct Account {
    peer: PeerId,
    named: bool,
    used: usize,
}

#[derive(Debug)]
pub(crate) struct Shares {
    max: usize,
    /// The largest amount that one message can need.
    largest: usize,
    /// No account can use more than this.
    max_each: usize,
    accounts: ByAccount<Account>,
    next: u64,
    named: usize,
    /// The bytes of all accounts.
    used: usize,
    /// The bytes of named accounts beyond their guarantees.
    borrowed: usize,
    /// The bytes of strangers.
    strangers: usize,
}

impl Shares {
    /// `max` is at least three times `largest`: then a message of the greatest size fits into the strangers'
    /// part.
    pub(crate) fn new(max: usize, largest: usize, max_each: usize) -> Self {
        Shares {
            max,
            largest,
            max_each,
            accounts: ByAccount::default(),
            next: 0,
            named: 0,
            used: 0,
            borrowed: 0,
            strangers: 0,
        }
    }

    pub(crate) fn open(&mut self, peer: PeerId, named: bool) -> AccountId {
        self.next += 1;
        let id = AccountId(self.next);
        self.accounts.insert(id, Account { peer, named, used: 0 });
        self.recount();
        id
    }

    /// Closes an account. Its bytes are free again.
    pub(crate) fn close(&mut self, id: AccountId) {
        self.accounts.remove(&id);
        self.recount();
    }

    /// Sets the class of every account.
    pub(crate) fn classify(&mut self, is_named: impl Fn(PeerId) -> bool) {
        self.accounts.values_mut().for_each(|account| account.named = is_named(account.peer));
        self.recount();
    }

    fn recount(&mut self) {
        let accounts = self.accounts.values();
        self.named = accounts.clone().filter(|account| account.named).count();
        self.used = accounts.clone().map(|account| account.used).sum();
        self.strangers = accounts.clone().filter(|account| !account.named).map(|account| account.used).sum();
        let guarantee = self.guarantee();
        let named = accounts.filter(|account| account.named);
        self.borrowed = named.map(|account| account.used.saturating_sub(guarantee)).sum();
    }

    /// The bytes that each named account always has.
    fn guarantee(&self) -> usize {
        let half = self.max.saturating_sub(self.largest) / 2;
        half.checked_div(self.named).unwrap_or(0).min(self.max_each)
    }

    fn common(&self) -> usize {
        self.max - self.named * self.guarantee()
    }

    /// Takes `bytes` for an account, if it may have them now.
    pub(crate) fn try_reserve(&mut self, id: AccountId, bytes: usize) -> bool {
        let fits = self.accounts.get(&id).is_some_and(|account| self.fits(account, bytes));
        if fits {
            self.change(id, |used| used + bytes);
        }
        fits
    }

    pub(crate) fn release(&mut self, id: AccountId, bytes: usize) {
        self.change(id, |used| used.saturating_sub(bytes));
    }

    fn change(&mut self, id: AccountId, change: impl FnOnce(usize) -> usize) {
        let guarantee = self.guarantee();
        let Some(account) = self.accounts.get_mut(&id) else { return };
        let (before, after) = (account.used, change(account.used));
        account.used = after;
        self.used = self.used - before + after;
        if account.named {
            let beyond = |used: usize| used.saturating_sub(guarantee);
            self.borrowed = self.borrowed - beyond(before) + beyond(after);
        } else {
            self.strangers = self.strangers - before + after;
        }
    }

    fn fits(&self, account: &Account, bytes: usize) -> bool {
        let after = account.used + bytes;
        if self.used + bytes > self.max {
            return false;
        }
        let guarantee = if account.named { self.guarantee() } else { 0 };
        let beyond = after.saturating_sub(guarantee);
        if beyond == 0 {
            return true;
        }
        let more = beyond - account.used.saturating_sub(guarantee);
        let common = self.common();
        let Some(free) = common.checked_sub(self.borrowed + self.strangers + more) else { return false };
        if account.named {
            return account.used == 0 || beyond + self.largest <= free;
        }
        let Some(left) = (common / 2).checked_sub(self.strangers + more) else { return false };
        let first = account.used == 0 && (self.strangers == 0 || bytes <= left);
        free >= self.largest && (first || beyond <= left / STRANGERS)
    }

    /// Whether strangers hold so much beyond their part that a named account does not get its guarantee. No
    /// reservation leads to that, only a change of classes or parts. Absent strangers are forgotten then
    /// ([`NodeInner::forget_strangers`]).
    ///
    /// [`NodeInner::forget_strangers`]: super::inner::NodeInner::forget_strangers
    pub(crate) fn is_overdrawn(&self) -> bool {
        let common = self.common();
        self.strangers > common / 2 && self.borrowed + self.strangers > common
    }

    pub(crate) fn used(&self) -> usize {
        self.used
    }

    pub(crate) fn max(&self) -> usize {
        self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1000;
    const LARGEST: usize = 50;

    fn peer(number: usize) -> PeerId {
        PeerId::from_bytes([number as u8; 32])
    }

    fn shares() -> Shares {
        Shares::new(MAX, LARGEST, MAX)
    }

    fn open(shares: &mut Shares, named: usize, strangers: usize) -> (Vec<AccountId>, Vec<AccountId>) {
        let named: Vec<_> = (0..named).map(|number| shares.open(peer(number), true)).collect();
        (named, (100..100 + strangers).map(|number| shares.open(peer(number), false)).collect())
    }

    /// Takes as much as it can, in pieces of 1.
    fn hog(shares: &mut Shares, account: AccountId) -> usize {
        (0..).take_while(|_| shares.try_reserve(account, 1)).count()
    }

    #[test]
    fn whatever_strangers_take_a_named_account_has_its_guarantee_and_room_for_the_largest_message() {
        for count in [1, 2, 20, 150] {
            let mut shares = shares();
            let (named, strangers) = open(&mut shares, 2, count);
            let taken: usize = strangers.iter().map(|id| hog(&mut shares, *id)).sum();
            assert!(taken <= MAX / 3, "{count} strangers hold {taken}");
            assert!(shares.try_reserve(named[0], LARGEST));
            let guarantee = (MAX - LARGEST) / 2 / 2;
            assert!(hog(&mut shares, named[0]) + LARGEST >= guarantee);
            assert!(hog(&mut shares, named[1]) >= guarantee);
            assert!(shares.used() <= MAX);
        }
    }

    #[test]
    fn strangers_that_take_what_they_can_leave_something_to_the_next_one() {
        let mut shares = Shares::new(MAX * MAX, LARGEST * LARGEST, MAX * MAX);
        let (_, strangers) = open(&mut shares, 1, 64);
        for id in strangers {
            let taken = hog(&mut shares, id);
            assert!((300..=MAX * MAX / 4 / 16).contains(&taken), "{taken}");
        }
        let honest = shares.open(peer(200), false);
        assert!(hog(&mut shares, honest) >= 100);
    }

    #[test]
    fn absent_named_peers_leave_the_others_their_share() {
        let mut shares = shares();
        let (named, _) = open(&mut shares, 17, 0);
        let guarantee = (MAX - LARGEST) / 2 / 17;
        for id in &named[1..] {
            assert!(hog(&mut shares, *id) >= guarantee);
        }
        // Larger than the guarantee: it uses what the others had to release.
        assert!(LARGEST > guarantee);
        assert!(shares.try_reserve(named[0], LARGEST));
        shares.release(named[0], LARGEST);
        assert!(hog(&mut shares, named[0]) >= guarantee);
        assert!(shares.used() <= MAX);
    }

    #[test]
    fn in_the_smallest_budget_a_message_of_the_greatest_size_fits_for_each_class() {
        let mut shares = Shares::new(LARGEST * 3, LARGEST, MAX);
        let (named, strangers) = open(&mut shares, 3, 2);
        assert!(shares.try_reserve(strangers[0], LARGEST));
        assert!(shares.try_reserve(named[0], LARGEST));
        shares.release(strangers[0], LARGEST);
        assert!(shares.try_reserve(strangers[1], 1));
        assert!(shares.used() <= LARGEST * 3);
    }

    #[test]
    fn a_class_can_change_and_a_closed_account_gives_everything_back() {
        let mut shares = shares();
        let (named, strangers) = open(&mut shares, 0, 2);
        assert!(named.is_empty());
        let before = hog(&mut shares, strangers[0]);
        // It is added: it may have more from now on. The other one has what a stranger has.
        shares.classify(|id| id == peer(100));
        assert!(hog(&mut shares, strangers[0]) > before);
        assert!(hog(&mut shares, strangers[1]) > 0);
        // It is removed: it keeps what it has, and gets no more.
        shares.classify(|_| false);
        assert!(!shares.try_reserve(strangers[0], 1));
        shares.close(strangers[0]);
        shares.close(strangers[1]);
        assert_eq!((shares.used(), shares.borrowed, shares.strangers), (0, 0, 0));
    }

    /// A peer that comes back with a new key at the same address, again and again: the old names hold what
    /// they had when they were named.
    #[test]
    fn accounts_of_forgotten_names_are_overdrawn_when_they_are_in_the_way() {
        let mut shares = Shares::new(MAX, LARGEST, MAX / 8);
        let healthy = shares.open(peer(0), true);
        for life in 1..20 {
            shares.open(peer(life), true);
            shares.classify(|id| id == peer(0) || id == peer(life));
            while shares.is_overdrawn() {
                let gone = shares.accounts.iter().find(|(_, account)| !account.named && account.used > 0);
                let gone = *gone.expect("a stranger holds something").0;
                shares.close(gone);
            }
            let named = *shares.accounts.iter().find(|(_, account)| account.peer == peer(life)).unwrap().0;
            let taken = (0..MAX / 8).take_while(|_| shares.try_reserve(named, 1)).count();
            assert_eq!(taken, MAX / 8, "life {life} has its guarantee");
        }
        let taken = (0..MAX / 8).take_while(|_| shares.try_reserve(healthy, 1)).count();
        assert_eq!(taken, MAX / 8);
    }

    #[test]
    fn the_sums_hold_after_any_sequence() {
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..50 {
            let mut shares = shares();
            let (named, strangers) = open(&mut shares, 4, 4);
            let all: Vec<_> = named.into_iter().chain(strangers).collect();
            let mut held = vec![0; all.len()];
            for _ in 0..500 {
                let index = rng.usize(..all.len());
                match rng.u8(..8) {
                    0..5 => {
                        let bytes = rng.usize(1..LARGEST);
                        held[index] += bytes * usize::from(shares.try_reserve(all[index], bytes));
                    }
                    5 | 6 => {
                        let bytes = rng.usize(..=held[index]);
                        shares.release(all[index], bytes);
                        held[index] -= bytes;
                    }
                    _ => {
                        let mask = rng.u8(..);
                        shares.classify(|id| mask & (1 << (id.as_bytes()[0] % 8)) != 0);
                    }
                }
                let sums = (shares.used, shares.borrowed, shares.strangers);
                shares.recount();
                assert_eq!(sums, (shares.used, shares.borrowed, shares.strangers));
                assert_eq!(shares.used, held.iter().sum::<usize>());
                assert!(shares.used <= MAX);
            }
        }
    }
}
