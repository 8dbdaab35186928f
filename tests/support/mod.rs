//! What the tests and the cluster example share: a proxy that causes faults, and child processes; and
//! for the tests of promises, nodes that keep a record of what they hear.

pub mod black_hole;
pub mod child;
pub mod cluster;
pub mod numbered;
pub mod process;
pub mod proxy;
pub mod raw;
