//! One node for real machines: keeps links to its peers, sends them numbered votes and blocks, and
//! prints a line for everything that happens.
//!
//! ```text
//! machine a$ cargo run --release --example node -- --listen 0.0.0.0:7000 --name a
//! machine b$ cargo run --release --example node -- --peer a.example.org:7000 --name b
//! ```
//!
//! With `--view PATH` it can be watched and commanded from another terminal of the same machine: see
//! `examples/dashboard`.
//!
//! Pull a cable, freeze or kill one of them, restart it, leave both idle behind a NAT: every vote that
//! was sent gets its receipt, and no number is missing or repeated. `--help` lists the flags.

#![allow(clippy::disallowed_methods, reason = "an application reads the clock")]

mod args;
mod records;
mod report;
mod run;
mod tally;
#[path = "../view/mod.rs"]
mod view;
mod vote;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use crossbeam_channel::{Receiver, bounded};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use unbroken::{Identity, Node, StartError};

use args::{Args, Parsed};

/// Why it could not start: the exit code says whether the command line was wrong, or the world.
enum Failure {
    Usage(String),
    System(String),
}

fn main() -> ExitCode {
    env_logger::init();
    let args = match args::parse(std::env::args().skip(1)) {
        Ok(Parsed::Run(args)) => args,
        Ok(Parsed::Help) => {
            // If nobody reads it there is nobody to tell.
            let _ = writeln!(io::stdout(), "{}", args::USAGE);
            return ExitCode::SUCCESS;
        }
        Ok(Parsed::Keygen(file)) => {
            let identity = Identity::generate().map_err(|error| Failure::System(error.to_string()));
            return print_id(identity.and_then(|identity| match identity.save(&file) {
                Ok(()) => Ok(identity),
                Err(error) => Err(Failure::System(error.to_string())),
            }));
        }
        Ok(Parsed::Id(file)) => {
            return print_id(Identity::load(&file).map_err(|error| Failure::System(error.to_string())));
        }
        Err(wrong) => return fail(Failure::Usage(wrong)),
    };
    match start(*args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => fail(failure),
    }
}

fn print_id(identity: Result<Identity, Failure>) -> ExitCode {
    match identity {
        Ok(identity) => {
            let _ = writeln!(io::stdout(), "{}", identity.peer_id());
            ExitCode::SUCCESS
        }
        Err(failure) => fail(failure),
    }
}

fn fail(failure: Failure) -> ExitCode {
    let (text, code) = match failure {
        Failure::Usage(text) => (text, 2),
        Failure::System(text) => (text, 1),
    };
    let _ = writeln!(io::stderr(), "node: {text}");
    ExitCode::from(code)
}

/// Runs a node to its end. True when every message came through.
fn start(args: Args) -> Result<bool, Failure> {
    let signals = signals().map_err(|error| Failure::System(format!("cannot handle signals: {error}")))?;
    let mut builder = Node::builder().config(args.config.clone());
    if let Some(path) = &args.identity {
        builder = builder.identity(identity(path)?);
    }
    if let Some(path) = &args.records {
        builder = builder.records(records::load(path).map_err(Failure::Usage)?);
    }
    let node = builder.start().map_err(|error| match error {
        StartError::Config(error) => Failure::Usage(error.to_string()),
        error => Failure::System(error.to_string()),
    })?;
    node.learn(args.learn.clone());
    let view = args.view.as_deref().map(|path| view::View::serve(&node, path)).transpose();
    let view = view.map_err(|error| Failure::System(format!("--view: {error}")))?;
    match run::Run::new(node, args, view).run(&signals) {
        // The reader of the lines has had enough, as `head` does.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(true),
        result => result.map_err(|error| Failure::System(error.to_string())),
    }
}

fn identity(path: &Path) -> Result<Identity, Failure> {
    Identity::load_or_generate(path).map_err(|error| Failure::Usage(format!("--identity: {error}")))
}

/// A channel that gets each SIGINT and SIGTERM, so that the main loop can wait for them as for
/// anything else.
fn signals() -> io::Result<Receiver<i32>> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let (sender, receiver) = bounded(2);
    let forward = move || signals.forever().try_for_each(|signal| sender.send(signal));
    std::thread::Builder::new().name("signals".into()).spawn(forward)?;
    Ok(receiver)
}
