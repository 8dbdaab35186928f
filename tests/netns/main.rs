//! The promises against real faults: three network namespaces, a - router - b, some with a second path, in
//! which real NATs forget, links go down, packets are lost and processes are killed, while both nodes vote.
//!
//! Each test runs the faults of one family at once, each in namespaces of its own, and prints a table of
//! what they did (`cargo test --test netns -- --nocapture`). `UNBROKEN_FAULT=reset` runs only those with
//! that word in their name. Where namespaces or tools are not to be had, a test says so and is skipped,
//! unless `UNBROKEN_NETNS=required`. Root needs nothing else; a user may try `unshare -Urnm` with a tmpfs
//! on /run.

#![cfg(target_os = "linux")] // As the namespaces are.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test may panic, and runs on the real clock and real threads"
)]

mod agent;
mod hosts;
mod ledger;
mod mtu;
mod nat;
mod net;
mod pair;
mod path;
mod plain;
mod slow;
mod table;
mod two_ways;

use table::{Case, run, run_under};

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
        ("NAT of 2 s, ping every 4 s, learned", nat::learned_soon),
        ("NAT reboot, invalid dropped", nat::reboot_silent),
        ("NAT reboot, invalid passed", nat::reboot_open),
    ]);
}

const SILENCE: &[Case] = &[
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
];

#[test]
fn silence() {
    run(SILENCE);
}

const RESETS: &[Case] = &[
    ("link down for 1.5 s", path::link_flap),
    ("link down for 1.5 s, under load", path::link_flap_load),
    ("resets to the dialler", path::reset_dialler),
    ("resets to the listener", path::reset_listener),
    ("resets to both, under load", path::reset_both),
];

#[test]
fn links_and_resets() {
    run(RESETS);
}

const LOSS: &[Case] = &[
    ("5 % of packets lost", path::loss_5),
    ("10 % of packets lost", path::loss_10),
    ("10 % lost, a to b only", path::loss_one_way),
    ("8 Mbit/s, saturated both ways", path::narrow),
];

#[test]
fn loss_and_narrow_links() {
    run(LOSS);
}

const MTU: &[Case] = &[
    ("packets above 600 lost, a to b", mtu::to_b_600),
    ("packets above 600 lost, b to a", mtu::to_a_600),
    ("packets above 1300 lost, a to b", mtu::to_b_1300),
    ("packets above 600 lost, a to b, probing", mtu::to_b_600_probing),
    ("packets above 1300 lost, a to b, probing", mtu::to_b_1300_probing),
    ("packets above 1300 lost, b to a, probing", mtu::to_a_1300_probing),
    ("packets above 600 lost, votes only", mtu::votes_only),
];

#[test]
fn mtu_holes() {
    run(MTU);
}

#[test]
#[ignore = "three minutes on paths that drop large packets, under each congestion control"]
fn mtu_holes_for_three_minutes() {
    run_under(
        CONTROLS,
        &[
            ("packets above 1300 lost", mtu::long_1300),
            ("packets above 1300 lost, probing", mtu::long_1300_probing),
            ("packets above 600 lost, pool of two", mtu::pool_600),
            ("packets above 1300 lost, pool of two", mtu::pool_1300),
            ("packets above 1300 lost, b to a, pool of two", mtu::pool_1300_to_a),
            ("packets above 600 lost, pool of two, probing", mtu::pool_600_probing),
            ("packets above 1300 lost, pool of two, probing", mtu::pool_1300_probing),
        ],
    );
}

const SLOW: &[Case<slow::SlowRow>] = &[
    ("512 kbit/s", slow::short_512),
    ("64 kbit/s", slow::short_64),
    ("64 kbit/s, pool of two", slow::short_64_pool),
    ("16 kbit/s", slow::short_16),
];

/// It takes the longest, and its name makes it the first to begin.
#[test]
fn a_slow_link_is_not_a_dead_one() {
    run(SLOW);
}

#[test]
#[ignore = "three minutes on slow links"]
fn slow_links_for_three_minutes() {
    run(&[
        ("512 kbit/s", slow::long_512),
        ("512 kbit/s, pool of two", slow::long_512_pool),
        ("128 kbit/s", slow::long_128),
        ("128 kbit/s, pool of two", slow::long_128_pool),
        ("64 kbit/s", slow::long_64),
        ("64 kbit/s, pool of two", slow::long_64_pool),
        ("32 kbit/s", slow::long_32),
        ("32 kbit/s, pool of two", slow::long_32_pool),
        ("16 kbit/s", slow::long_16),
        ("16 kbit/s, pool of two", slow::long_16_pool),
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
fn another_path() {
    run(&[
        ("first path goes bad in 8 s, then dies", two_ways::goes_bad),
        ("first path black, under load", two_ways::first_black),
        ("second path black, under load", two_ways::second_black),
        ("both paths black, the second comes back", two_ways::both_black),
        ("each path's link down for 1.5 s in turn", two_ways::flaps),
    ]);
}

#[test]
#[ignore = "ten runs of half a minute, at once"]
fn a_path_goes_bad_in_20_s_then_dies() {
    let names = ["1st run", "2nd run", "3rd run", "4th run", "5th run"];
    let more = ["6th run", "7th run", "8th run", "9th run", "10th run"];
    let runs = names.into_iter().chain(more).map(|name| (name, two_ways::goes_bad_slowly as table::Fault));
    run(&runs.collect::<Vec<_>>());
}

#[test]
#[ignore = "ten minutes behind NATs that forget"]
fn ten_minutes_behind_a_nat() {
    run(&[
        ("NAT of 30 s, defaults, 10 minutes", nat::ten_minutes_30),
        ("NAT of 12 s, defaults, 10 minutes", nat::ten_minutes_12),
        ("NAT of 12 s, ping every 21 s, 10 minutes", nat::learned_12),
    ]);
}

/// The machine's congestion control paces by what it measures (bbr) or takes each loss for congestion (reno,
/// cubic): on one path they behave differently, and so do the kernel's counters.
const CONTROLS: &[&str] = &["reno", "bbr", "cubic"];

#[test]
fn the_most_telling_paths_under_reno() {
    run_under(
        &["reno"],
        &[
            ("flow dropped, under load, a to b only", path::drop_load_to_b),
            ("large packets lost, a to b, under load", path::large_lost_to_b_load),
            ("resets to both, under load", path::reset_both),
            ("5 % of packets lost", path::loss_5),
            ("10 % of packets lost", path::loss_10),
            ("8 Mbit/s, saturated both ways", path::narrow),
        ],
    );
}

#[test]
#[ignore = "three minutes on a path that loses packets, once for each congestion control"]
fn loss_for_three_minutes() {
    run_under(CONTROLS, &[("5 % of packets lost, three minutes", path::loss_5_for_three_minutes)]);
}

#[test]
#[ignore = "all faults of paths, once for each congestion control"]
fn paths_under_each_congestion_control() {
    [SILENCE, RESETS, LOSS, MTU].into_iter().for_each(|faults| run_under(CONTROLS, faults));
    run_under(CONTROLS, SLOW);
}
