//! The atomics and locks of the parts whose interleavings are checked: those of `shuttle`, which runs a test
//! in every order of its threads' steps, in tests with `--cfg shuttle`; everywhere else those of the standard
//! library and of [`crate::lock`].
//!
//! ```text
//! RUSTC_WORKSPACE_WRAPPER=.ci/cfg/shuttle cargo test --lib every_interleaving
//! ```
//!
//! `shuttle` explores sequentially consistent executions, so what uses it relies on `SeqCst` alone.

#[cfg(not(all(test, shuttle)))]
pub(crate) use {crate::lock::Ordered as Lock, std::sync::atomic};

#[cfg(all(test, shuttle))]
pub(crate) use {checked::Lock, shuttle::sync::atomic};

#[cfg(all(test, shuttle))]
mod checked {
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
}
