//! A token that threads wait for, in a channel or asleep.
//!
//! A thread that waits in a channel yields the processor about eight times before it sleeps. That lets a
//! stream of messages gather, and costs more than the sleep when the next message is far. So here a thread
//! yields only if its last wait was short.
//!
//! ```text
//!              wait, the last one took less than SHORT          no token after YIELDS
//!   awake ------------------------------------------> yielding -----------------------+
//!     ^  |                                                                            v
//!     |  +---- wait, otherwise ---------------------------------------------------> asleep
//!     +---- a token was taken, or the time is over -----------------------------------+
//! ```
//!
//! Invariants:
//! - A thread counts as a sleeper before it looks for the token for the last time, and `set` puts the token
//!   there before it looks for sleepers. So one of the two sees the other.
//! - A thread that was woken, or whose time is over, takes the token if it is there: no token lies there
//!   while another one sleeps for it.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::clock;
use crate::lock::LEAF;
use crate::sync::atomic::AtomicUsize;
use crate::sync::{Condvar, Lock};

/// After a wait of this time or more the next one is expected to last as long.
const SHORT: Duration = Duration::from_micros(30);
const YIELDS: usize = 8;

/// A token: something is there. Many tokens are one.
#[derive(Debug)]
pub(crate) struct Signal {
    set: Sender<()>,
    /// For `select!`.
    pub(crate) ready: Receiver<()>,
    /// How many threads sleep, or are about to. Written under the lock.
    sleepers: AtomicUsize,
    lock: Lock<(), LEAF>,
    changed: Condvar,
    /// How long the last wait took, in nanoseconds.
    last_wait: AtomicU64,
}

impl Signal {
    pub(crate) fn new() -> Self {
        let (set, ready) = bounded(1);
        Signal {
            set,
            ready,
            sleepers: AtomicUsize::new(0),
            lock: Lock::new(()),
            changed: Condvar::default(),
            last_wait: AtomicU64::new(0),
        }
    }

    pub(crate) fn set(&self) {
        // With a token there already, the thread that was woken for it takes it.
        if self.set.try_send(()).is_ok() && self.sleepers.load(SeqCst) > 0 {
            // A sleeper that has seen no token has begun to wait when the lock is free.
            drop(self.lock.lock());
            self.changed.notify_one();
        }
    }

    /// Takes the token, and waits for it until `deadline`. Something may be there afterwards either way.
    pub(crate) fn wait(&self, deadline: Option<Instant>) {
        let start = clock::now();
        let yields = if self.last_wait.load(Relaxed) < SHORT.as_nanos() as u64 { YIELDS } else { 0 };
        let came = (0..yields).any(|_| {
            let came = self.take();
            if !came {
                thread::yield_now();
            }
            came
        });
        if !came {
            self.sleep(deadline);
        }
        let lasted = clock::now().saturating_duration_since(start);
        self.last_wait.store(u64::try_from(lasted.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// The same without yielding: what is waited for is far.
    pub(crate) fn sleep(&self, deadline: Option<Instant>) {
        let mut guard = self.lock.lock();
        self.sleepers.fetch_add(1, SeqCst);
        while !self.take() {
            match deadline {
                None => guard = self.changed.wait(guard),
                Some(deadline) => {
                    let woken;
                    (guard, woken) = self.changed.wait_until(guard, deadline);
                    if !woken {
                        self.take();
                        break;
                    }
                }
            }
        }
        self.sleepers.fetch_sub(1, SeqCst);
        drop(guard);
    }

    fn take(&self) -> bool {
        self.ready.try_recv().is_ok()
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_wait_takes_the_token_or_ends_in_time() {
        let signal = Signal::new();
        signal.set();
        signal.set();
        signal.wait(None);
        assert!(signal.ready.is_empty(), "two tokens are one");
        signal.wait(Some(clock::now() + Duration::from_millis(1)));
        assert!(signal.last_wait.load(Relaxed) >= SHORT.as_nanos() as u64, "the next one sleeps at once");
        assert_eq!(signal.sleepers.load(SeqCst), 0);
    }

    /// Each token is answered before the next one is set: if one were lost, the last wait would not end.
    #[test]
    fn threads_that_wait_in_both_ways_get_every_token() {
        const TOKENS: usize = 20_000;
        let (signal, (answer, answers)) = (Signal::new(), bounded(TOKENS));
        thread::scope(|scope| {
            for waiter in 0..3 {
                let (signal, answer) = (&signal, answer.clone());
                scope.spawn(move || {
                    // The end of the scope is an answer that cannot be given.
                    loop {
                        match waiter {
                            0 => signal.sleep(None),
                            1 => signal.wait(Some(clock::now() + LONG)),
                            _ => assert!(signal.ready.recv().is_ok()),
                        }
                        if answer.send(()).is_err() {
                            return signal.set();
                        }
                    }
                });
            }
            for _ in 0..TOKENS {
                signal.set();
                assert_eq!(answers.recv_timeout(LONG), Ok(()));
            }
            drop(answers);
            signal.set();
        });
    }
}

#[cfg(all(test, shuttle))]
mod every_interleaving {
    use std::sync::Arc;

    use shuttle::check_dfs;
    use shuttle::thread;

    use super::*;

    /// Two threads sleep while two tokens are set, each of which may be taken by either: no thread sleeps on
    /// while a token is there. The one that was woken passes on what is left, as the mailbox does.
    #[test]
    fn no_thread_sleeps_while_a_token_is_there() {
        check_dfs(
            || {
                let signal = Arc::new(Signal::new());
                let sleeps = || {
                    let signal = Arc::clone(&signal);
                    thread::spawn(move || {
                        signal.sleep(None);
                        signal.set();
                    })
                };
                let threads = [sleeps(), sleeps()];
                signal.set();
                threads.into_iter().for_each(|thread| thread.join().unwrap());
                assert_eq!(signal.ready.try_recv(), Ok(()));
            },
            None,
        );
    }
}
