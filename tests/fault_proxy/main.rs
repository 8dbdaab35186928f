//! The fault proxy does what it says: everything else here relies on it.

#![cfg(target_os = "linux")] // As the fault proxy is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test may panic, and runs on the real clock and real threads"
)]

mod breaks;
mod holes;
mod link;
mod process;
