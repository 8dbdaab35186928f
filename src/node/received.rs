//! The bytes that links hold of received messages: how much of it strangers may have, and which of them has
//! to give it back.
//!
//! ```text
//! max_inbox = half that named peers always have   strangers: the other half, all of them together
//!                                                  of that at most half, or one message of each lane, unfinished
//! ```
//!
//! - **Credit** is withheld from a class while the node holds more than `max_inbox` and that class more than
//!   its half; from strangers also while they hold more than their half, whatever named peers hold. It comes
//!   back a quarter below the bound.
//! - **New strangers** are refused while credit is withheld from strangers.
//! - **Unfinished messages** of strangers are different: no application can take them, and they stay when
//!   their connection goes, so that the peer can go on where it was. When strangers hold more of them than
//!   their part, the one that has used the most memory for the longest time (bytes times seconds) is
//!   forgotten: its link is closed, and its sender is told that what it had begun may be lost. The last one
//!   that holds any is never forgotten for that, so a message of the greatest size gets through in the end.
//!
//! Bytes times seconds, not the time since the last byte: otherwise a byte now and then would keep 32 MiB for
//! ever, and the connection of an honest sender that stalls for a moment would go for it. To outlast an
//! honest transfer a stranger has to send as much.
//!
//! Invariants: `held` and `unfinished` are the sums over the accounts; an account that was given up counts as
//! unfinished no more.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Instant;

use super::event_queue::Class;
use super::shares::{AccountId, ByAccount};
use crate::clock;
use crate::id::PeerId;
use crate::lock::{LEAF, Ordered};

#[derive(Debug)]
struct Account {
    peer: PeerId,
    class: Class,
    held: u64,
    unfinished: u64,
    /// Bytes times seconds that unfinished messages were held, and until when that was counted.
    spent: f64,
    counted: Instant,
    /// Its link is being closed for what it holds.
    given_up: bool,
}

impl Account {
    /// The bytes that count in the strangers' part of unfinished messages.
    fn counts(&self) -> u64 {
        if self.class == Class::Stranger && !self.given_up { self.unfinished } else { 0 }
    }

    fn spent(&self, now: Instant) -> f64 {
        self.spent + self.unfinished as f64 * now.saturating_duration_since(self.counted).as_secs_f64()
    }

    fn set_unfinished(&mut self, unfinished: u64, now: Instant) {
        let mut spent = self.spent(now);
        if unfinished < self.unfinished {
            // In proportion: finishing small messages beside a large one clears little.
            spent *= unfinished as f64 / self.unfinished as f64;
        }
        (self.spent, self.unfinished) = (spent, unfinished);
        self.counted = self.counted.max(now);
    }
}

/// The accounts. Pure: no lock, no clock.
#[derive(Debug)]
struct Accounts {
    max: u64,
    max_unfinished: u64,
    accounts: ByAccount<Account>,
    named: u64,
    strangers: u64,
    /// The bytes of strangers that were not given up.
    unfinished: u64,
    /// From which classes credit is withheld.
    over: Over,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Over {
    named: bool,
    strangers: bool,
}

impl Accounts {
    /// `largest`: what one link can hold of unfinished messages.
    fn new(max: u64, largest: u64) -> Self {
        Accounts {
            max,
            max_unfinished: (max / 4).max(largest),
            accounts: ByAccount::default(),
            named: 0,
            strangers: 0,
            unfinished: 0,
            over: Over::default(),
        }
    }

    fn open(&mut self, id: AccountId, peer: PeerId, class: Class, now: Instant) {
        let account =
            Account { peer, class, held: 0, unfinished: 0, spent: 0.0, counted: now, given_up: false };
        self.accounts.insert(id, account);
    }

    fn close(&mut self, id: AccountId) {
        self.accounts.remove(&id);
        self.recount();
    }

    fn classify(&mut self, class_of: impl Fn(PeerId) -> Class) {
        self.accounts.values_mut().for_each(|account| account.class = class_of(account.peer));
        self.recount();
    }

    fn recount(&mut self) {
        let held = |class| {
            let of_class = self.accounts.values().filter(|account| account.class == class);
            of_class.map(|account| account.held).sum()
        };
        (self.named, self.strangers) = (held(Class::Named), held(Class::Stranger));
        self.unfinished = self.accounts.values().map(Account::counts).sum();
        self.judge();
    }

    fn update(&mut self, id: AccountId, held: u64, unfinished: u64, now: Instant) {
        let Some(account) = self.accounts.get_mut(&id) else { return };
        let of_class = match account.class {
            Class::Named => &mut self.named,
            Class::Stranger => &mut self.strangers,
        };
        *of_class = *of_class - account.held + held;
        account.held = held;
        let before = account.counts();
        account.set_unfinished(unfinished, now);
        self.unfinished = self.unfinished - before + account.counts();
        self.judge();
    }

    fn held(&self) -> u64 {
        self.named + self.strangers
    }

    fn judge(&mut self) {
        // A quarter of hysteresis, so that a bound is not crossed with every message.
        let above = |was: bool, held: u64, max: u64| held > if was { max / 4 * 3 } else { max };
        let Over { named, strangers } = self.over;
        let half = self.max / 2;
        let full = |was| above(was, self.held(), self.max);
        self.over = Over {
            named: full(named) && above(named, self.named, half),
            strangers: above(strangers, self.strangers, half),
        };
    }

    fn has_surplus(&self) -> bool {
        self.unfinished > self.max_unfinished
            && self.accounts.values().filter(|account| account.counts() > 0).nth(1).is_some()
    }

    /// The stranger that has to give back what it holds.
    fn give_up(&mut self, now: Instant) -> Option<PeerId> {
        if !self.has_surplus() {
            return None;
        }
        let holders = self.accounts.values_mut().filter(|account| account.counts() > 0);
        let victim = holders.max_by(|one, other| one.spent(now).total_cmp(&other.spent(now)))?;
        self.unfinished -= victim.counts();
        victim.given_up = true;
        Some(victim.peer)
    }
}

/// The accounts of all links of a node.
#[derive(Debug)]
pub(crate) struct Received {
    /// A leaf in the order of locks.
    accounts: Ordered<Accounts, LEAF>,
    /// A copy of what every use of a link has to know.
    over_named: AtomicBool,
    over_strangers: AtomicBool,
}

impl Received {
    /// `largest`: what one link can hold of unfinished messages.
    pub(crate) fn new(max: usize, largest: usize) -> Self {
        Received {
            accounts: Ordered::new(Accounts::new(max as u64, largest as u64)),
            over_named: AtomicBool::new(false),
            over_strangers: AtomicBool::new(false),
        }
    }

    pub(crate) fn open(&self, id: AccountId, peer: PeerId, class: Class) {
        self.accounts.lock().open(id, peer, class, clock::now());
    }

    pub(crate) fn close(&self, id: AccountId) -> bool {
        self.change(|accounts| accounts.close(id))
    }

    /// Sets the class of every account. True if the monitor has something to do.
    pub(crate) fn classify(&self, class_of: impl Fn(PeerId) -> Class) -> bool {
        self.change(|accounts| accounts.classify(class_of))
    }

    /// A link holds so much now. True if the monitor has something to do.
    pub(crate) fn update(&self, id: AccountId, held: u64, unfinished: u64, now: Instant) -> bool {
        self.change(|accounts| accounts.update(id, held, unfinished, now))
    }

    /// True if the monitor has something to do: to give or withhold credit, or to forget a stranger.
    fn change(&self, change: impl FnOnce(&mut Accounts)) -> bool {
        let mut accounts = self.accounts.lock();
        let (before, unfinished) = (accounts.over, accounts.unfinished);
        change(&mut accounts);
        self.over_named.store(accounts.over.named, SeqCst);
        self.over_strangers.store(accounts.over.strangers, SeqCst);
        accounts.over != before || accounts.unfinished > unfinished && accounts.has_surplus()
    }

    /// Whether credit is withheld from a peer. Its class is asked for only if that matters.
    pub(crate) fn withholds(&self, class: impl FnOnce() -> Class) -> bool {
        match (self.over_named.load(SeqCst), self.over_strangers.load(SeqCst)) {
            (named, strangers) if named == strangers => named,
            (named, strangers) => {
                if class() == Class::Named {
                    named
                } else {
                    strangers
                }
            }
        }
    }

    pub(crate) fn held(&self) -> u64 {
        self.accounts.lock().held()
    }

    /// The stranger to forget, as long as the unfinished messages of strangers take more than their part.
    pub(crate) fn give_up(&self, now: Instant) -> Option<PeerId> {
        self.accounts.lock().give_up(now)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Tests need some instant to start from; they never read the clock again.
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::node::shares::Shares;

    const MAX: u64 = 1000;
    const LARGEST: u64 = 100;
    const PART: u64 = MAX / 4;

    struct Scene {
        accounts: Accounts,
        ids: Vec<AccountId>,
        now: Instant,
    }

    fn peer(number: usize) -> PeerId {
        PeerId::from_bytes([number as u8; 32])
    }

    /// The first is named, the others are strangers.
    fn scene(count: usize) -> Scene {
        let (mut accounts, now) = (Accounts::new(MAX, LARGEST), Instant::now());
        let mut names = Shares::new(1, 1, 1);
        let mut ids = Vec::new();
        for number in 0..count {
            let id = names.open(peer(number), number == 0);
            accounts.open(id, peer(number), if number == 0 { Class::Named } else { Class::Stranger }, now);
            ids.push(id);
        }
        Scene { accounts, ids, now }
    }

    impl Scene {
        fn after(&mut self, millis: u64) -> &mut Self {
            self.now += Duration::from_millis(millis);
            self
        }

        fn unfinished(&mut self, number: usize, bytes: u64) {
            self.accounts.update(self.ids[number], bytes, bytes, self.now);
        }

        fn given_up(&mut self) -> Vec<PeerId> {
            std::iter::from_fn(|| self.accounts.give_up(self.now)).collect()
        }
    }

    #[test]
    fn unfinished_messages_of_strangers_are_bounded_and_leave_room_for_the_next_one() {
        let mut scene = scene(60);
        scene.unfinished(0, 4 * LARGEST);
        for number in 1..60 {
            scene.after(1).unfinished(number, LARGEST);
            scene.given_up();
            assert!(scene.accounts.unfinished <= PART);
            let gone: Vec<_> =
                scene.accounts.accounts.values().filter(|account| account.given_up).map(|a| a.peer).collect();
            assert!(!gone.contains(&peer(0)), "a named peer is never forgotten");
            assert!(!gone.contains(&peer(number)), "the newcomer has used the least");
            // The link is closed, and gives back what it holds.
            for id in scene.ids.clone() {
                if scene.accounts.accounts.get(&id).is_some_and(|account| account.given_up) {
                    scene.accounts.close(id);
                }
            }
        }
        assert!(!scene.accounts.over.strangers, "newcomers are not refused for it");
        assert_eq!(scene.accounts.strangers, scene.accounts.unfinished);
    }

    #[test]
    fn a_byte_now_and_then_keeps_no_memory_and_a_moment_of_silence_loses_none() {
        let mut scene = scene(5);
        (1..=2).for_each(|hoarder| scene.unfinished(hoarder, LARGEST - 50));
        for second in 0..50 {
            (1..=2).for_each(|hoarder| scene.unfinished(hoarder, LARGEST - 50 + second));
            scene.after(1000);
        }
        // An honest one comes, sends most of its message, and stalls for longer than the others ever did.
        scene.unfinished(3, LARGEST - 10);
        scene.after(10_000).unfinished(4, 60);
        assert_eq!(scene.given_up().len(), 1);
        let is_given_up = |number: usize| scene.accounts.accounts[&scene.ids[number]].given_up;
        assert!(is_given_up(1) || is_given_up(2), "it was the one that stalled");
    }

    #[test]
    fn small_messages_beside_an_unfinished_one_clear_nothing() {
        let mut scene = scene(4);
        scene.unfinished(1, 90);
        for _ in 0..1000 {
            scene.after(10).unfinished(1, 91);
            scene.after(10).unfinished(1, 90);
        }
        (2..4).for_each(|number| scene.unfinished(number, 90));
        scene.after(10);
        assert_eq!(scene.given_up(), [peer(1)]);
        // A finished one clears all.
        scene.unfinished(2, 0);
        assert_eq!(scene.accounts.accounts[&scene.ids[2]].spent(scene.now), 0.0);
    }

    #[test]
    fn the_last_one_is_never_forgotten() {
        let mut scene = scene(3);
        scene.unfinished(1, 10 * MAX);
        assert_eq!(scene.given_up(), []);
        scene.after(10).unfinished(2, 1);
        assert_eq!(scene.given_up(), [peer(1)]);
    }

    #[test]
    fn bytes_held_for_strangers_withhold_no_credit_from_named_peers() {
        let mut scene = scene(3);
        let hold = |scene: &mut Scene, number: usize, held| {
            scene.accounts.update(scene.ids[number], held, 0, scene.now);
            scene.accounts.over
        };
        assert_eq!(hold(&mut scene, 0, MAX / 2), Over::default());
        assert_eq!(hold(&mut scene, 1, 10 * MAX), Over { named: false, strangers: true });
        assert_eq!(hold(&mut scene, 0, MAX / 2 + 1), Over { named: true, strangers: true });
        assert_eq!(hold(&mut scene, 0, MAX / 8 * 3 - 1), Over { named: false, strangers: true });
        assert_eq!(hold(&mut scene, 1, 0), Over::default());
        // Named peers may have all of it.
        assert_eq!(hold(&mut scene, 0, MAX), Over::default());
        assert_eq!(hold(&mut scene, 0, MAX + 1), Over { named: true, strangers: false });
        // A removed peer is a stranger from then on.
        scene.accounts.classify(|_| Class::Stranger);
        assert_eq!(scene.accounts.over, Over { named: false, strangers: true });
    }
}
