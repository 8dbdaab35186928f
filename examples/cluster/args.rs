//! The command line.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::plan::{Fault, SCALE};

/// The settings of a run.
#[derive(Clone, Debug)]
pub(crate) struct Args {
    pub(crate) nodes: usize,
    pub(crate) time: Duration,
    pub(crate) seed: u64,
    pub(crate) faults: Vec<Fault>,
    pub(crate) json: bool,
    pub(crate) real_time: bool,
    /// The directory in which each node serves its live view.
    pub(crate) view: Option<PathBuf>,
    pub(crate) report: Option<PathBuf>,
}

impl Args {
    /// By how much the library's timeouts are shortened.
    pub(crate) fn factor(&self) -> u32 {
        if self.real_time { 1 } else { SCALE }
    }
}

pub(crate) enum Parsed {
    Help,
    Run(Args),
}

/// A command line that cannot be right.
#[derive(Debug)]
pub(crate) struct BadArgs(String);

impl fmt::Display for BadArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (see --help)", self.0)
    }
}

impl std::error::Error for BadArgs {}

const NODES: std::ops::RangeInclusive<usize> = 2..=16;

pub(crate) fn parse(args: impl IntoIterator<Item = String>) -> Result<Parsed, BadArgs> {
    let mut args = args.into_iter();
    let (mut nodes, mut seconds, mut seed, mut faults) = (4, None, None, Vec::new());
    let (mut json, mut real_time, mut view, mut report) = (false, false, None, None);
    while let Some(arg) = args.next() {
        let (flag, inline) = match arg.split_once('=') {
            Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
            None => (arg, None),
        };
        let mut value = |expected: &str| {
            inline
                .clone()
                .or_else(|| args.next())
                .ok_or_else(|| BadArgs(format!("{flag} needs a value: {expected}")))
        };
        match flag.as_str() {
            "--help" | "-h" => return Ok(Parsed::Help),
            "--nodes" => nodes = number(&flag, &value("a number from 2 to 16")?, "a number from 2 to 16")?,
            "--seconds" => {
                let expected = "a number of seconds from 1 to 86400";
                seconds = Some(number::<u64>(&flag, &value(expected)?, expected)?);
            }
            "--seed" => {
                let expected = "a number from 0 to 18446744073709551615";
                seed = Some(number(&flag, &value(expected)?, expected)?);
            }
            "--fault" => {
                let name = value(&format!("one of {}", Fault::names()))?;
                let unknown = || BadArgs(format!("--fault: {name:?} is none of {}", Fault::names()));
                faults.push(Fault::from_name(&name).ok_or_else(unknown)?);
            }
            "--view" => view = Some(value("the path of a directory")?.into()),
            "--report" => report = Some(PathBuf::from(value("the file to write the report to")?)),
            "--json" | "--real-time" if inline.is_some() => {
                return Err(BadArgs(format!("{flag} takes no value")));
            }
            "--json" => json = true,
            "--real-time" => real_time = true,
            _ => {
                return Err(BadArgs(format!(
                    "{flag:?} is none of --nodes, --seconds, --seed, --fault, --json, --real-time, --report, \
                     --view, --help"
                )));
            }
        }
    }
    if !NODES.contains(&nodes) {
        return Err(BadArgs(format!("--nodes: {nodes} is not a number from 2 to 16")));
    }
    let seconds = seconds.unwrap_or(if real_time { 420 } else { 60 });
    if !(1..=86_400).contains(&seconds) {
        return Err(BadArgs(format!("--seconds: {seconds} is not a number of seconds from 1 to 86400")));
    }
    if faults.is_empty() {
        faults = Fault::ALL.to_vec();
    }
    let time = Duration::from_secs(seconds);
    let seed = seed.unwrap_or_else(seed_of_the_day);
    Ok(Parsed::Run(Args { nodes, time, seed, faults, json, real_time, view, report }))
}

fn number<N: std::str::FromStr>(flag: &str, text: &str, expected: &str) -> Result<N, BadArgs> {
    text.parse().map_err(|_| BadArgs(format!("{flag}: {text:?} is not {expected}")))
}

/// Printed at the start, so that a run can be repeated.
fn seed_of_the_day() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_micros() as u64 % 1_000_000)
}

pub(crate) fn help() -> String {
    let mut text = String::from(
        "Runs a cluster of node processes whose links break in turn, and keeps books about every message.

usage: cargo run --release --example cluster -- [flags]

  --nodes N       how many node processes, 2 to 16 (default 4)
  --seconds N     how long the faults take together (default 60; 420 with --real-time);
                  a fault that needs more time takes it
  --seed N        decides sizes, victims and times (default: another one each time, printed)
  --fault NAME    only this fault; repeatable, in the order given (default: all of the list below)
  --json          one JSON object a line on standard output; the last line goes to standard error
  --report FILE   writes a page with charts of the run to this file (HTML with all that it needs)
  --real-time     the library's own timeouts instead of timeouts a tenth as long
  --view DIR      each node serves its live view at DIR/node-N.sock, for examples/dashboard;
                  its keys disconnect and ban upset the books
  --help          this text

faults:
",
    );
    for fault in Fault::ALL {
        text.push_str(&format!("  {:<21}{}\n", fault.name(), fault.what()));
    }
    text.push_str(
        "
Each fault ends with PASS or FAIL: votes came through again, and everything that was sent until
then arrived, once and in order. The last line is `delivered D of S, lost L, duplicated U, out of
order O, send errors E`, after `FAIL: ` where something failed. S is what was sent, less what died
in the queues of a killed sender. The exit code is 0 when all faults pass, D = S, and L, U, O and E
are 0.
",
    );
    text
}
