//! Shared by the tests and the cluster example: child processes, and addresses that do not answer; and for
//! the tests of promises, nodes that keep a record of what they hear. What needs the fault proxy, signals or
//! /proc is there on Linux only.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::new_without_default,
    reason = "a test fails by panicking, and reads the real clock"
)]

#[cfg(target_os = "linux")]
pub mod black_hole;
#[cfg(target_os = "linux")]
pub mod child;
pub mod cluster;
pub mod numbered;
#[cfg(target_os = "linux")]
pub mod process;
pub mod raw;
#[cfg(target_os = "linux")]
pub mod rig;
