//! The atomics and locks of the parts whose interleavings are checked: those of `shuttle`, which runs a test
//! in every order of its threads' steps, in tests with `--cfg shuttle`; everywhere else those of the standard
//! library and of [`crate::lock`].
//!
//! ```text
//! RUSTC_WORKSPACE_WRAPPER=.ci/cfg/shuttle cargo test --lib every_interleaving
//! ```
//!
//! `shuttle` explores sequentially consistent executions, so what uses it relies on `SeqCst`, or says why
//! less is enough.

#[cfg(not(all(test, shuttle)))]
pub(crate) use {crate::lock::Condvar, crate::lock::Ordered as Lock, std::sync::atomic};

#[cfg(all(test, shuttle))]
pub(crate) use {checked::Condvar, checked::Lock, shuttle::sync::atomic};

#[cfg(all(test, shuttle))]
mod checked {
    use std::time::Instant;

    use shuttle::sync::{Mutex, MutexGuard, PoisonError};

    /// [`crate::lock::Ordered`], without a check of the order.
    #[derive(Debug, Default)]
    pub(crate) struct Lock<T, const RANK: u8>(Mutex<T>);

    impl<T, const RANK: u8> Lock<T, RANK> {
        pub(crate) fn new(value: T) -> Self {
            Lock(Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    /// [`crate::lock::Condvar`]. Its waits have no end: the time does not pass in a test.
    #[derive(Debug, Default)]
    pub(crate) struct Condvar(shuttle::sync::Condvar);

    impl Condvar {
        pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
            self.0.wait(guard).unwrap_or_else(PoisonError::into_inner)
        }

        pub(crate) fn wait_until<'a, T>(
            &self,
            guard: MutexGuard<'a, T>,
            _: Instant,
        ) -> (MutexGuard<'a, T>, bool) {
            (self.wait(guard), true)
        }

        pub(crate) fn notify_one(&self) {
            self.0.notify_one();
        }
    }
}
