//! The promises against real faults: three network namespaces, a - router - b, in which real NATs forget,
//! links go down, packets are lost and processes are killed, while both nodes vote.
//!
//! Each test runs the faults of one family at once, each in namespaces of its own, and prints a table of
//! what they did (`cargo test --test netns -- --nocapture`). `UNBROKEN_FAULT=reset` runs only those with
//! that word in their name. Where namespaces or tools are not to be had, a test says so and is skipped,
//! unless `UNBROKEN_NETNS=required`. Root needs nothing else; a user may try `unshare -Urnm` with a tmpfs
//! on /run.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test may panic, and runs on the real clock and real threads"
)]

#[path = "../support/mod.rs"]
mod support;

mod agent;
mod hosts;
mod ledger;
mod nat;
mod net;
mod pair;
mod path;
mod table;

use table::run;

#[test]
#[ignore = "helper: child process"]
fn child_process() {
    agent::run();
}

#[test]
fn behind_a_nat() {
    run(&[
        ("NAT of 3 s, idle, invalid dropped", nat::outlived_silent),
        ("NAT of 3 s, idle, invalid passed", nat::outlived_open),
        ("NAT forgets, invalid dropped", nat::forgotten_silent),
        ("NAT forgets, invalid passed", nat::forgotten_open),
        ("NAT forgets, only the listener votes", nat::forgotten_to_a),
        ("NAT reboot, invalid dropped", nat::reboot_silent),
        ("NAT reboot, invalid passed", nat::reboot_open),
    ]);
}

#[test]
fn silence() {
    run(&[
        ("flow dropped, found by pings", path::drop_unused),
        ("flow dropped, idle", path::drop_idle),
        ("flow dropped, under load", path::drop_load),
        ("flow dropped, idle, a to b only", path::drop_idle_to_b),
        ("flow dropped, idle, b to a only", path::drop_idle_to_a),
        ("flow dropped, under load, a to b only", path::drop_load_to_b),
        ("flow dropped, under load, b to a only", path::drop_load_to_a),
        ("large packets lost, a to b", path::large_lost_to_b),
        ("large packets lost, a to b, under load", path::large_lost_to_b_load),
        ("large packets lost, b to a", path::large_lost_to_a),
        ("path dropped for 1.5 s, under load", path::path_drop),
    ]);
}

#[test]
fn links_and_resets() {
    run(&[
        ("link down for 1.5 s", path::link_flap),
        ("link down for 1.5 s, under load", path::link_flap_load),
        ("resets to the dialler", path::reset_dialler),
        ("resets to the listener", path::reset_listener),
        ("resets to both, under load", path::reset_both),
    ]);
}

#[test]
fn loss_and_narrow_links() {
    run(&[
        ("5 % of packets lost", path::loss_5),
        ("10 % of packets lost", path::loss_10),
        ("10 % lost, a to b only", path::loss_one_way),
        ("8 Mbit/s, saturated both ways", path::narrow),
    ]);
}

#[test]
fn processes_and_addresses() {
    run(&[
        ("listener frozen for 3 s", hosts::frozen_listener),
        ("dialler frozen for 3 s", hosts::frozen_dialler),
        ("listener killed, restarted", hosts::killed_listener),
        ("listener killed under load, restarted", hosts::killed_under_load),
        ("dialler killed, restarted", hosts::killed_dialler),
        ("listener moves, known by name", hosts::moved_by_name),
        ("listener moves, known by two addresses", hosts::moved_by_list),
        ("listener restarts elsewhere, known by name", hosts::restarted_elsewhere),
    ]);
}

#[test]
#[ignore = "ten minutes behind a NAT of 30 s, with the default settings"]
fn ten_minutes_behind_a_nat_that_forgets_after_30_s() {
    run(&[("NAT of 30 s, defaults, 10 minutes", nat::ten_minutes)]);
}
