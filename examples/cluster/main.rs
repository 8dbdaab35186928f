//! The main job: a cluster of node processes that keep talking while their links are idle, frozen,
//! black-holed, reset and throttled beneath them, with exact books about every message.
//!
//! ```text
//!   parent ── owns ──> fault proxies (two per directed pair, a path each), the books, the table
//!     │  lines on stdin: Command        ▲ lines on stdout: Report
//!     ▼                                 │
//!   node 0 ══> proxies 0>1 ══> node 1   a node reports what it is about to send before it sends it,
//!          <══ proxies 1>0 <══          and what it has processed before it says that it is done
//! ```
//!
//! Every link is a pool of two connections that go by different paths: the votes' by path 0, the blocks' by
//! path 1, until something happens. The decisions of the library about them, and why, are shown as they
//! happen.
//!
//! Run it with `cargo run --release --example cluster`; `--help` lists the flags.
//!
//! `report.png`, the picture in the README, is the upper half of a report, made at the top of the repository
//! (started by root, `chromium` needs `--no-sandbox`):
//!
//! ```text
//! cargo run --release --example cluster -- --seed 8 --report report.html
//! chromium --headless --hide-scrollbars --window-size=1280,1456 --screenshot=report.png report.html
//! pngquant --speed 1 --force --output examples/cluster/report.png report.png
//! ```

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "an application, not the library: it reads the real clock, and its lines have its own target"
)]

#[cfg(not(target_os = "linux"))]
compile_error!("the cluster example needs Linux: it freezes processes and makes the kernel drop packets");

mod args;
mod cluster;
mod content;
mod display;
mod faults;
mod ledger;
mod member;
mod monitor;
mod node;
mod plan;
mod record;
mod report;
mod sender;
mod strangers;
mod table;
mod terminal;
#[path = "../view/mod.rs"]
mod view;
mod wire;

use std::process::ExitCode;

/// Whatever can go wrong outside the library; printed and followed by exit code 1.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    env_logger::init();
    let result = match node::Role::from_environment() {
        Some(role) => role.and_then(node::run).map(|()| true),
        None => parent(),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cluster: {error}");
            ExitCode::FAILURE
        }
    }
}

/// True when the books balance.
fn parent() -> Result<bool, Failure> {
    match args::parse(std::env::args().skip(1))? {
        args::Parsed::Help => {
            print!("{}", args::help());
            Ok(true)
        }
        args::Parsed::Run(args) => faults::run(&args),
    }
}
