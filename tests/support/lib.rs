//! Shared by the tests and the cluster example: child processes, and addresses that do not answer; and for
//! the tests of promises, nodes that keep a record of what they hear.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::new_without_default,
    reason = "a test fails by panicking, and reads the real clock"
)]

pub mod black_hole;
pub mod child;
pub mod cluster;
pub mod numbered;
pub mod process;
pub mod raw;
pub mod rig;
