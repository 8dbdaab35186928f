//! Two link cores over a simulated network, in virtual time, by seed.
//!
//! Everything between the two cores is real down to the bytes: `Batch` -> bytes -> pieces of random
//! sizes -> `FrameReader` -> frames. Simulated are the kernel, the threads around the core (modelled as
//! the node has them: a writer sleeps until it is woken or until the time that it was given, timers
//! fire at `next_timeout` and at no other time), the application and the faults.
//!
//! - [`plan`]: what one run does, drawn from its seed
//! - [`net`]: byte pipes that delay, cut and swallow
//! - [`world`]: the event queue, the connections' readers and writers, the timers
//! - [`handshake`]: dialling, HELLO, joining the link
//! - [`faults`]: what goes wrong, and restarts
//! - [`app`], [`app_steps`]: the two applications
//! - [`ledger`]: what was promised for each message, and whether it was kept
//! - [`watch`]: what must hold after every step and in every batch
//! - [`dice`]: the choices of a run, drawn from a seed or made by a fuzzer
//! - [`exhaustive`], [`random`]: the tests
//!
//! To replay one random run with a trace: `UNBROKEN_SEED=17 cargo test one_seed -- --ignored --nocapture`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a failed check panics")]
#![cfg_attr(not(test), allow(dead_code, reason = "the tests use the rest"))]

mod app;
mod app_steps;
mod dice;
#[cfg(test)]
mod exhaustive;
mod faults;
mod handshake;
mod ledger;
mod net;
mod plan;
#[cfg(test)]
mod random;
mod waits;
mod watch;
mod world;

use self::dice::Dice;
use self::plan::{MS, Plan, SECOND};
use self::world::World;

/// Runs two links whose plan, network, faults and applications are chosen by `script`, the input of a fuzz
/// target. Panics if a promise is broken.
pub fn pair(script: &[u8]) {
    let mut dice = Dice::scripted(script);
    let mut plan = Plan::random(&mut dice);
    // Short, so that the fuzzer tries many.
    plan.messages = plan.messages.min(8);
    plan.chaos = plan.chaos.min(SECOND);
    plan.fault_every = plan.fault_every.min(100 * MS);
    plan.max_chunk = plan.max_chunk.max(100);
    plan.piece = plan.piece.max(300);
    for lane in plan.lanes.iter_mut().flatten() {
        lane.max_message = lane.max_message.min(1000);
    }
    World::new(plan, dice, false).run();
}
