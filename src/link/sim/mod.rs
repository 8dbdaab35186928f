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
//! - [`app`]: the two applications
//! - [`ledger`]: what was promised for each message, and whether it was kept
//! - [`watch`]: what must hold after every step and in every batch
//! - [`exhaustive`], [`random`]: the tests
//!
//! To replay one random run with a trace: `UNBROKEN_SEED=17 cargo test one_seed -- --ignored --nocapture`.

mod app;
mod exhaustive;
mod faults;
mod handshake;
mod ledger;
mod net;
mod plan;
mod random;
mod watch;
mod world;
