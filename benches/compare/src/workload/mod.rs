//! The workloads. Each has a part for the program that was started, which starts two processes for each run,
//! and one part for each of these two.

pub mod broadcast;
pub mod idle;
pub mod one_way;
pub mod round_trip;
pub mod senders;
pub mod vote;

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use crate::Failure;
use crate::contestants::{Contestant, Count, Tell};
use crate::process::{Process, cpu_time, fail, tell, wait};
use crate::table::{Row, Table};

/// The names that `--only-workload` takes.
pub const WORKLOADS: [&str; 6] = ["one-way", "senders", "round-trip", "vote", "broadcast", "idle"];

const QUICK_ROUNDS: usize = 3;

/// A quick run has one part of so many.
const QUICK_PART: u64 = 6;

/// What is measured.
pub struct Plan {
    pub contestants: Vec<&'static Contestant>,
    pub rounds: usize,
    /// The same for memory, which differs little from round to round.
    pub idle_rounds: usize,
    /// Each run has a part of the full length: one half, for example, if this is 2.
    pub shorter: u64,
    /// The sizes of the messages one way, and how many of them a contestant with a share of 1 is given.
    pub one_way: Vec<(usize, u64)>,
    /// How many threads send at once.
    pub senders: Vec<usize>,
    /// How many peers a broadcast has.
    pub broadcast: Vec<usize>,
    /// How many idle connections there are.
    pub idle: usize,
    /// Where the plots go.
    pub svg: Option<std::path::PathBuf>,
}

impl Plan {
    /// Makes it last about two minutes, and says what that leaves out.
    pub fn shorten(&mut self, fewer_sizes: bool, fewer_senders: bool, left_out: &mut Vec<String>) {
        left_out.push(format!(
            "by `--quick`, rounds beyond {QUICK_ROUNDS} (beyond one of idle connections) and {} of {QUICK_PART} \
             parts of each run",
            QUICK_PART - 1
        ));
        (self.rounds, self.idle_rounds, self.shorter) = (QUICK_ROUNDS, 1, QUICK_PART);
        if fewer_sizes {
            left_out.push("by `--quick`, messages of 256 bytes and 4 MiB one way".to_owned());
            self.one_way.retain(|(size, _)| [64, 1024, 256 * 1024].contains(size));
        }
        if fewer_senders {
            left_out.push("by `--quick`, 1, 32 and 64 threads that send".to_owned());
            self.senders.retain(|threads| *threads == 8);
        }
    }

    /// The contestants that have this workload, with it.
    fn with<T>(&self, what: impl Fn(&'static Contestant) -> Option<T>) -> Vec<(&'static str, T)> {
        let mut with = Vec::new();
        for contestant in &self.contestants {
            with.extend(what(contestant).map(|workload| (contestant.name, workload)));
        }
        with
    }

    /// The names of the others.
    fn without<T>(&self, what: impl Fn(&'static Contestant) -> Option<T>) -> Vec<&'static str> {
        let without = self.contestants.iter().filter(|contestant| what(contestant).is_none());
        without.map(|contestant| contestant.name).collect()
    }

    /// Prints the table, and draws it if that is wanted.
    fn show<T>(&self, table: &Table, what: impl Fn(&'static Contestant) -> Option<T>) -> Result<(), Failure> {
        println!("{table}");
        let without = self.without(what);
        if !without.is_empty() {
            println!("\nWithout this workload: {}.", without.join("; "));
        }
        match &self.svg {
            Some(folder) => table.draw(folder),
            None => Ok(()),
        }
    }
}

/// What each contestant measured, round by round.
struct Rounds<K, R>(HashMap<K, Vec<R>>);

impl<K: Eq + Hash, R> Rounds<K, R> {
    fn new() -> Self {
        Rounds(HashMap::new())
    }

    fn add(&mut self, key: K, run: R) {
        self.0.entry(key).or_default().push(run);
    }

    fn of(&self, key: &K) -> &[R] {
        self.0.get(key).map(Vec::as_slice).unwrap_or_default()
    }

    /// The middle one of what the rounds measured.
    fn median(&self, key: &K, value: impl Fn(&R) -> f64) -> f64 {
        median(&sorted(self.of(key).iter().map(value)))
    }

    /// The lowest, middle and highest of the quotients of two in the same round.
    fn ratio(&self, key: &K, base: &K, value: impl Fn(&R) -> f64) -> [f64; 3] {
        let pairs = self.of(key).iter().zip(self.of(base));
        let ratios = sorted(pairs.map(|(run, base)| value(run) / value(base)));
        let end = |which: Option<&f64>| which.copied().unwrap_or_default();
        [end(ratios.first()), median(&ratios), end(ratios.last())]
    }
}

/// Delays of one run and what they cost, in microseconds.
struct Delays {
    p50: f64,
    p99: f64,
    /// CPU time of both processes.
    cpu: f64,
}

/// Appends a row for each contestant, with the CPU time to so many digits.
fn delay_rows(
    table: &mut Table,
    rounds: &Rounds<&'static str, Delays>,
    names: impl Iterator<Item = &'static str>,
    digits: usize,
) {
    table.bars = "p50 us, median";
    for name in names {
        let [lowest, middle, highest] = rounds.ratio(&name, &"raw", |run| run.p50);
        let p50 = rounds.median(&name, |run| run.p50);
        table.rows.push(Row {
            name: name.to_owned(),
            cells: vec![
                format!("{p50:.0}"),
                format!("{middle:.2}"),
                format!("{lowest:.2} to {highest:.2}"),
                format!("{:.0}", rounds.median(&name, |run| run.p99)),
                format!("{:.digits$}", rounds.median(&name, |run| run.cpu)),
            ],
            bar: p50,
        });
    }
}

pub fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> f64 {
    quantile(sorted, 50)
}

fn quantile(sorted: &[f64], percent: usize) -> f64 {
    sorted.get(sorted.len() * percent / 100).copied().unwrap_or_default()
}

// --- two processes that measure for the same time -----------------------------------------------------

/// What both processes measured between the same two moments.
struct Both<const N: usize> {
    /// The line of the process that works.
    told: [u64; N],
    /// How many messages the other one received.
    came: u64,
    /// For how long it received them, in nanoseconds.
    nanos: u64,
    /// CPU time of the other one, in nanoseconds.
    cpu: u64,
}

/// Runs both: `worker` says when it is warm, goes on when `other` has begun to measure, and then tells its
/// figures.
fn measure<const N: usize>(mut worker: Process, mut other: Process) -> Result<Both<N>, Failure> {
    let ready = worker.line()?;
    if ready != READY {
        return Err(format!("a child told {ready:?}, expected {READY:?}").into());
    }
    other.go_on()?;
    let before: [u64; 3] = other.numbers()?;
    worker.go_on()?;
    let told = worker.numbers()?;
    other.go_on()?;
    let after: [u64; 3] = other.numbers()?;
    let [came, nanos, cpu] = [0, 1, 2].map(|index| after[index] - before[index]);
    // It ends first: for the other one it would be an error that its messages cease.
    drop(other);
    Ok(Both { told, came, nanos, cpu })
}

const READY: &str = "ready";

/// Runs the other process: does its part on a thread of its own, and tells what it has received, when that
/// was and the CPU time that it took, whenever it is asked.
fn observed(
    part: impl FnOnce(Tell<'_>, Count<'_>) -> Result<(), Failure> + Send + 'static,
) -> Result<(), Failure> {
    let start = Instant::now();
    let received = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&received);
    thread::spawn(move || {
        let came = |messages| {
            counter.fetch_add(messages, Ordering::Relaxed);
        };
        let ended = part(&mut |addr| tell(&addr), &came);
        fail(&*ended.err().unwrap_or_else(|| "this side's part is over, expected it to last".into()));
    });
    // Until the parent ends this process.
    loop {
        wait()?;
        let (came, nanos) = (received.load(Ordering::Relaxed), start.elapsed().as_nanos());
        tell(&format!("{came} {nanos} {}", cpu_time().as_nanos()))?;
    }
}
