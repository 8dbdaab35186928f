//! System calls per message of two nodes in one process, linked over loopback and encrypted, counted by
//! strace.
//!
//! How many messages share one write depends on when the threads run, and strace slows the calls down. So
//! each figure is the least of several rounds, and the bounds are three times the median of 20 runs on a
//! machine that was busy with something else, or more: they find a write for each message, or a second
//! wake-up, not a difference of 10 %. `sched_yield` is shown but not bounded: a thread yields before it
//! sleeps, as often as the machine lets it.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::bounded;
use unbroken::{Encryption, Event, NORMAL, Outcome, URGENT};

use crate::{common, scratch, under};

/// The argument that makes this program run what strace counts.
pub(crate) const RUN: &str = "--loopback";
const ROUNDS: usize = 5;
const BURST: usize = 10_000;
const TRIPS: usize = 100;
/// Waits are for failures only.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Files that do not exist: asking for one shows strace where a round begins and ends.
const BEGIN: &str = "unbroken-guard-begins-";
const END: &str = "unbroken-guard-ends";

struct Bound {
    name: &'static str,
    /// Messages in a round, or round trips.
    count: usize,
    /// The most system calls of both nodes for one of them.
    all: f64,
    /// The most reads and writes among these, which vary less.
    io: f64,
}

const BOUNDS: [Bound; 4] = [
    Bound { name: "burst_64B", count: BURST, all: 0.3, io: 0.3 },
    Bound { name: "burst_1KiB", count: BURST, all: 0.3, io: 0.3 },
    Bound { name: "vote_and_receipt", count: TRIPS, all: 20.0, io: 6.0 },
    Bound { name: "request_and_reply", count: TRIPS, all: 30.0, io: 6.0 },
];

/// Returns whether there were more calls than the bounds allow.
pub(crate) fn compare() -> bool {
    let out = scratch("strace");
    let mut command = match under("strace", &["-f", "-qq", "-o", &out]) {
        Ok(command) => command,
        Err(why) => {
            println!("system calls: SKIPPED, {why}");
            return false;
        }
    };
    let status = command.arg(std::env::current_exe().unwrap()).arg(RUN).status().unwrap();
    assert!(status.success(), "the loopback run: {status}");
    let rounds = rounds(&fs::read_to_string(&out).unwrap());
    fs::remove_file(&out).unwrap();
    let mut worse = false;
    println!(
        "{:30} {:>12} {:>7} {:>13} {:>7}   mean by name",
        "", "system calls", "bound", "reads, writes", "bound"
    );
    for Bound { name, count, all, io } in BOUNDS {
        let of_name: Vec<_> =
            rounds.iter().filter(|(round, _)| round == name).map(|(_, calls)| calls).collect();
        assert_eq!(of_name.len(), ROUNDS, "rounds of {name}");
        let sum = |calls: &Calls, wanted: fn(&str) -> bool| {
            let calls = calls.iter().filter(|(call, _)| wanted(call)).map(|(_, count)| count);
            calls.sum::<usize>() as f64 / count as f64
        };
        let least = |wanted| of_name.iter().map(|calls| sum(calls, wanted)).min_by(f64::total_cmp).unwrap();
        let (found_all, found_io) = (least(|call| call != "sched_yield"), least(is_io));
        let mut by_name: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (call, calls) in of_name.iter().copied().flatten() {
            by_name.entry(call).or_default().push(*calls);
        }
        // Means: the rounds with the least differ from call to call.
        let mut means: Vec<_> =
            by_name.iter().map(|(call, calls)| (calls.iter().sum::<usize>(), call)).collect();
        means.sort_unstable_by(|a, b| b.cmp(a));
        let means = means
            .iter()
            .take(4)
            .map(|(calls, call)| format!("{call} {:.3}", *calls as f64 / (count * ROUNDS) as f64));
        let means: Vec<_> = means.collect();
        let is_worse = found_all > all || found_io > io;
        let word = if is_worse { "WORSE" } else { "" };
        println!(
            "{name:30} {found_all:12.3} {all:7.1} {found_io:13.3} {io:7.1}   {} {word}",
            means.join(", ")
        );
        worse |= is_worse;
    }
    worse
}

fn is_io(call: &str) -> bool {
    ["send", "recv", "read", "write"].iter().any(|start| call.starts_with(start))
}

type Calls = BTreeMap<String, usize>;

/// The calls of each round by name, in the output of `strace -f`: `pid name(arguments) = result`, or, if
/// another thread was faster, `pid name(arguments <unfinished ...>` and `pid <... name resumed>) = result`.
fn rounds(trace: &str) -> Vec<(String, Calls)> {
    let mut rounds: Vec<(String, Calls)> = Vec::new();
    let mut inside = false;
    for line in trace.lines() {
        let Some((_, call)) = line.split_once(' ') else { continue };
        let Some((name, arguments)) = call.trim_start().split_once('(') else { continue };
        if name.starts_with('<') {
            continue;
        }
        if let Some((_, rest)) = arguments.split_once(BEGIN) {
            let round = rest.split('"').next().unwrap_or_default();
            rounds.push((round.to_owned(), BTreeMap::new()));
            inside = true;
        } else if arguments.contains(END) {
            inside = false;
        } else if let Some((_, calls)) = rounds.last_mut().filter(|_| inside) {
            *calls.entry(name.to_owned()).or_default() += 1;
        }
    }
    rounds
}

/// What strace counts. Returns false: a failure is a panic.
pub(crate) fn run() -> bool {
    let nodes = common::nodes(Encryption::Noise);
    let to = nodes.a.peer_handle(nodes.b_id);
    let receiver = nodes.b.lane_receiver(NORMAL).unwrap();
    let (done, all_taken) = bounded(1);
    common::spawn("receiver", move || {
        let mut taken = 0;
        while let Ok(messages) = receiver.recv_batch(1024) {
            taken += messages.len();
            for mut message in messages.into_iter().filter(unbroken::Message::is_request) {
                taken = 0;
                let reply = message.payload().clone().into_bytes();
                message.reply(reply).unwrap();
            }
            if taken == BURST {
                taken = 0;
                let _ = done.send(());
            }
        }
    });
    let server = nodes.b.clone();
    common::spawn("events", move || {
        while let Ok(Event::Message(_) | Event::LinkUp { .. } | Event::Connected { .. }) = server.recv() {}
    });
    let burst = |size| {
        let body = Bytes::from(vec![7; size]);
        (0..BURST).for_each(|_| drop(to.send((NORMAL, body.clone())).unwrap()));
        all_taken.recv_timeout(TIMEOUT).unwrap();
    };
    let body = || Bytes::from_static(&[7; 64]);
    rounds_of("burst_64B", || burst(64));
    rounds_of("burst_1KiB", || burst(1024));
    rounds_of("vote_and_receipt", || {
        for _ in 0..TRIPS {
            assert_eq!(to.send((URGENT, body())).unwrap().wait_timeout(TIMEOUT), Some(Outcome::Taken));
        }
    });
    rounds_of("request_and_reply", || {
        for _ in 0..TRIPS {
            to.request((NORMAL, body())).unwrap().wait().unwrap();
        }
    });
    false
}

fn rounds_of(name: &str, mut round: impl FnMut()) {
    for _ in 0..ROUNDS {
        let _ = fs::metadata(format!("{BEGIN}{name}"));
        round();
        let _ = fs::metadata(END);
    }
}
