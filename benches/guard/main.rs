//! A guard against regressions that does not depend on how busy the machine is. It measures no time:
//!
//! - instructions and allocations of what runs on one thread in memory, counted by callgrind (`cases.rs`),
//!   against the figures in `baseline.txt`;
//! - system calls per message of two nodes over loopback, counted by strace (`calls.rs`), against fixed
//!   bounds.
//!
//! ```text
//! cargo bench --bench guard                # compares; fails if something is worse
//! cargo bench --bench guard -- --update    # writes the baseline
//! ```
//!
//! It starts itself again under each tool. Locks are counted by `tests/locks.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a bench that cannot run shall say so and stop"
)]

mod baseline;
mod callgrind;
mod calls;
mod cases;
#[allow(dead_code, unreachable_pub, reason = "shared with other benches")]
#[path = "../common/mod.rs"]
mod common;

use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    // `cargo bench` appends `--bench`.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let worse = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => callgrind::compare() | calls::compare(),
        ["--update"] => callgrind::update(),
        [callgrind::RUN, name] => cases::run(name),
        [calls::RUN] => calls::run(),
        _ => {
            eprintln!("usage: cargo bench --bench guard [-- --update]");
            true
        }
    };
    ExitCode::from(u8::from(worse))
}

/// This program, to be run by a tool, and why it cannot be: the tool is missing, or cannot run even `true`.
fn under(tool: &str, args: &[&str]) -> Result<Command, String> {
    let mut command = Command::new(tool);
    command.args(args);
    let mut probe = Command::new(tool);
    match probe.args(args).arg("true").output() {
        Ok(output) if output.status.success() => Ok(command),
        Ok(output) => {
            Err(format!("{tool} cannot run here: {}", String::from_utf8_lossy(&output.stderr).trim()))
        }
        Err(error) => Err(format!("{tool} cannot be started: {error}")),
    }
}

/// A file for the output of a tool.
fn scratch(name: &str) -> String {
    format!("{}/guard-{}-{name}", env!("CARGO_TARGET_TMPDIR"), std::process::id())
}
