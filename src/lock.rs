//! Mutexes with a place in the order of locks.
//!
//! A thread takes locks in the order of this table, from the top down, and never two of one row. Then no two
//! threads can wait for each other. Debug builds, and so the tests, check it at each lock, whether or not
//! another thread is there.
//!
//! | rank | lock | protects | held while |
//! |---|---|---|---|
//! | [`SHUTDOWN`] | `NodeInner::shutting_down` | nothing: the callers of `shutdown` wait here for the one that carries it out | everything ends |
//! | [`LEAVING`] | `NodeInner::leaving` | the links that were given up and still have connections | those links are looked at |
//! | [`LINKS`] | `NodeInner::links` | the table of links, not the links | links or the roster are looked at |
//! | [`ROSTER`] | `NodeInner::roster` | the plan of what to dial | it computes |
//! | [`WRITER`] | `ConnHandle::write_half` | the right to write to a socket | a batch is taken from the link and written |
//! | [`LINK`] | `LinkHandle::core` | one conversation and the list of its connections | it computes; effects are carried out after unlocking |
//! | [`MAILBOX`] | `Mailbox::state` | what waits for the application | it computes |
//! | [`LEAF`] | all others | counters, lists and budgets | they compute; no other lock is taken |
//!
//! Except for those of the shutdown and of writers, no lock is held across a system call, while code of the
//! application runs, or while a thread waits for anything but that lock's own condition.

use std::cell::Cell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};

pub(crate) const SHUTDOWN: u8 = 0;
pub(crate) const LEAVING: u8 = 1;
pub(crate) const LINKS: u8 = 2;
pub(crate) const ROSTER: u8 = 3;
pub(crate) const WRITER: u8 = 4;
pub(crate) const LINK: u8 = 5;
pub(crate) const MAILBOX: u8 = 6;
pub(crate) const LEAF: u8 = 7;

thread_local! {
    /// The ranks of the locks that this thread holds, a bit each.
    static HELD: Cell<u8> = const { Cell::new(0) };
}

/// How many locks were taken, for `tests/locks.rs`. In debug builds only: all threads write it.
static TAKEN: AtomicU64 = AtomicU64::new(0);

/// How many locks this process has taken; `None` if this build does not count.
pub(crate) fn taken() -> Option<u64> {
    cfg!(debug_assertions).then(|| TAKEN.load(Relaxed))
}

/// A mutex of this rank.
#[derive(Default)]
pub(crate) struct Ordered<T, const RANK: u8> {
    mutex: Mutex<T>,
}

impl<T, const RANK: u8> Ordered<T, RANK> {
    pub(crate) const fn new(value: T) -> Self {
        Ordered { mutex: Mutex::new(value) }
    }

    pub(crate) fn lock(&self) -> Guard<'_, T, RANK> {
        Self::assert_order();
        Guard::of(self.mutex.lock())
    }

    /// `None` if another thread holds the lock.
    pub(crate) fn try_lock(&self) -> Option<Guard<'_, T, RANK>> {
        Self::assert_order();
        self.mutex.try_lock().map(Guard::of)
    }

    fn assert_order() {
        if cfg!(debug_assertions) {
            let held = HELD.get();
            assert!(held >> RANK == 0, "lock of rank {RANK} taken under the locks of ranks {held:#b}");
        }
    }
}

impl<T: fmt::Debug, const RANK: u8> fmt::Debug for Ordered<T, RANK> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.mutex.fmt(f)
    }
}

/// The lock is held.
pub(crate) struct Guard<'a, T, const RANK: u8> {
    guard: MutexGuard<'a, T>,
}

impl<'a, T, const RANK: u8> Guard<'a, T, RANK> {
    fn of(guard: MutexGuard<'a, T>) -> Self {
        if cfg!(debug_assertions) {
            HELD.set(HELD.get() | 1 << RANK);
            TAKEN.fetch_add(1, Relaxed);
        }
        Guard { guard }
    }

    /// Unlocks, waits to be notified, and locks again.
    pub(crate) fn wait(guard: &mut Self, changed: &parking_lot::Condvar) {
        Self::assert_alone();
        changed.wait(&mut guard.guard);
    }

    /// The same, until `deadline` at the latest. True if it was notified.
    pub(crate) fn wait_until(guard: &mut Self, changed: &parking_lot::Condvar, deadline: Instant) -> bool {
        Self::assert_alone();
        !changed.wait_until(&mut guard.guard, deadline).timed_out()
    }

    fn assert_alone() {
        if cfg!(debug_assertions) {
            let held = HELD.get() & !(1 << SHUTDOWN);
            assert!(held == 1 << RANK, "waits under the lock of rank {RANK} and others: {held:#b}");
        }
    }
}

/// A condition whose waits take the guard and return it, as those of `shuttle` do.
#[derive(Debug, Default)]
pub(crate) struct Condvar(parking_lot::Condvar);

impl Condvar {
    /// Unlocks, waits to be notified, and locks again.
    pub(crate) fn wait<'a, T, const RANK: u8>(&self, mut guard: Guard<'a, T, RANK>) -> Guard<'a, T, RANK> {
        Guard::wait(&mut guard, &self.0);
        guard
    }

    /// The same, until `deadline` at the latest. True if it was notified.
    pub(crate) fn wait_until<'a, T, const RANK: u8>(
        &self,
        mut guard: Guard<'a, T, RANK>,
        deadline: Instant,
    ) -> (Guard<'a, T, RANK>, bool) {
        let notified = Guard::wait_until(&mut guard, &self.0, deadline);
        (guard, notified)
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }
}

impl<T, const RANK: u8> Drop for Guard<'_, T, RANK> {
    fn drop(&mut self) {
        if cfg!(debug_assertions) {
            HELD.set(HELD.get() & !(1 << RANK));
        }
    }
}

impl<T, const RANK: u8> Deref for Guard<'_, T, RANK> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T, const RANK: u8> DerefMut for Guard<'_, T, RANK> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn locks_in_order_in_any_order_of_release() {
        let (links, link, leaf) =
            (Ordered::<_, LINKS>::new(1), Ordered::<_, LINK>::new(2), Ordered::<_, LEAF>::new(3));
        for _ in 0..2 {
            let outer = links.lock();
            let inner = link.lock();
            let last = leaf.lock();
            assert_eq!(*outer + *inner + *last, 6);
            drop(inner);
            drop(last);
            drop(outer);
        }
    }

    #[test]
    fn locks_against_the_order_and_twice_at_one_rank_are_found() {
        let (links, link, other) =
            (Ordered::<_, LINKS>::new(()), Ordered::<_, LINK>::new(()), Ordered::<_, LINK>::new(()));
        for (first, second) in [(&link, &other), (&link, &link)] {
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                let _first = first.lock();
                let _second = second.lock();
            }));
            assert!(panicked.is_err());
        }
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _inner = link.lock();
            let _outer = links.lock();
        }));
        assert!(panicked.is_err());
        // The guards of the panicked closures released what they held.
        drop((links.lock(), link.lock()));
    }

    #[test]
    fn a_wait_under_another_lock_is_found() {
        let (links, link) = (Ordered::<_, LINKS>::new(()), Ordered::<_, LINK>::new(()));
        let _links = links.lock();
        let waits = || Guard::wait_until(&mut link.lock(), &parking_lot::Condvar::new(), crate::clock::now());
        assert!(catch_unwind(AssertUnwindSafe(waits)).is_err());
    }
}
