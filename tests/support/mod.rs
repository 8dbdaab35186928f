//! What the tests and the cluster example share: a proxy that causes faults, and child processes.

pub mod process;
pub mod proxy;
