//! Promise 10: whatever a peer sends, that connection alone ends, or nothing happens. Threads, descriptors
//! and memory are flat afterwards, and an honest pair that votes all the time is not harmed.
//!
//! Every row of the list of hostile inputs is here, over real sockets, by a peer made by hand that lies after
//! an honest handshake; in the mode of [`unbroken_test_support::raw::encryption`]. Each row prints what the
//! honest pair measured beside it. Those that another file tests at length are only named:
//!
//! | row | where |
//! |---|---|
//! | both dial at once, 200 times | `pooled.rs`: two_hundred_simultaneous_dials |
//! | bulk lane saturated, urgent lane flooded, by the sender | `urgent_first.rs` |
//! | restarts in the middle of a replay | `nothing_lost.rs`: a_restarted_peer_gets_again_what_it_had_not_taken |
//! | cut after every single byte | `nothing_lost.rs`: cuts_after_any_number_of_bytes_lose_nothing |
//! | descriptors run out in accept | `descriptors.rs` |
//! | shutdown while every thread is busy | `clean_exit.rs` |
//! | wall clock steps | no code reads it: `clippy.toml`, and `Instant` in `clock.rs` is monotonic |

#![cfg(target_os = "linux")] // It counts the descriptors and threads of the process in /proc.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test may panic, and runs on the real clock and real threads"
)]

mod credit;
mod deadlines;
mod floods;
mod frames;
mod handshake;
mod overload;
mod scene;
mod sessions;
