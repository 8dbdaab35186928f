//! unbroken beside plain sockets and other libraries: two processes over loopback, interleaved rounds,
//! medians, and ratios to plain sockets in the same round.
//!
//! ```text
//! unbroken-compare [--quick] [--only NAME[;NAME]] [--only-workload NAME[,NAME]] [--size BYTES[,BYTES]]
//!     [--threads COUNT[,COUNT]] [--peers COUNT[,COUNT]] [--svg DIR]
//! ```
//!
//! The ratios count: absolute figures drift by a third from run to run on a virtual machine. The CPU
//! time of both processes drifts less. The load that others put on the machine is printed above each table.
//!
//! See `README.md` for what each workload measures, and for the settings of each contestant.

mod contestants;
mod process;
mod table;
mod workload;

use std::error::Error;
use std::time::Duration;

use contestants::{CONTESTANTS, Contestant};
use workload::{Plan, WORKLOADS, broadcast, idle, one_way, round_trip, senders, vote};

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|first| first == "child") {
        return child(&args[1..]);
    }
    let quick = take_flag(&mut args, "--quick");
    // Some names have a comma.
    let only = take_list(&mut args, "--only", ';', |name| one_of(name, CONTESTANTS.iter().map(|c| c.name)))?;
    let workloads = take_list(&mut args, "--only-workload", ',', |name| one_of(name, WORKLOADS.into_iter()))?;
    let sizes = one_way::SIZES.map(|(size, _)| size.to_string());
    let sizes = take_list(&mut args, "--size", ',', |size| one_of(size, sizes.iter().map(String::as_str)))?;
    let threads = take_counts(&mut args, "--threads")?;
    let peers = take_counts(&mut args, "--peers")?;
    let svg = take_value(&mut args, "--svg")?.map(Into::into);
    if let Some(unknown) = args.first() {
        return Err(format!(
            "{unknown:?} is no option, expected --quick, --only NAME[;NAME], --only-workload NAME[,NAME], \
             --size BYTES[,BYTES], --threads COUNT[,COUNT], --peers COUNT[,COUNT] or --svg DIR"
        )
        .into());
    }
    let chosen = |only: &Option<Vec<String>>, name: &str| {
        only.as_ref().is_none_or(|only| only.iter().any(|other| other == name))
    };
    let mut left_out = Vec::new();
    if !cfg!(feature = "native") {
        left_out.push("ZeroMQ and nng, which need `--features native`".to_owned());
    }
    if !cfg!(feature = "libp2p") {
        left_out.push("libp2p, which needs `--features libp2p`".to_owned());
    }
    let mut plan = Plan {
        // The others are compared with the first one.
        contestants: CONTESTANTS.iter().filter(|c| c.name == "raw" || chosen(&only, c.name)).collect(),
        rounds: 5,
        idle_rounds: 3,
        shorter: 1,
        one_way: one_way::SIZES.into_iter().filter(|(size, _)| chosen(&sizes, &size.to_string())).collect(),
        senders: threads.clone().unwrap_or_else(|| senders::THREADS.to_vec()),
        broadcast: peers.unwrap_or_else(|| broadcast::PEERS.to_vec()),
        idle: idle::CONNECTIONS,
        svg,
    };
    if quick {
        plan.shorten(sizes.is_none(), threads.is_none(), &mut left_out);
    }
    println!(
        "{} rounds ({} of idle connections), medians; ratios are of the same round.",
        plan.rounds, plan.idle_rounds
    );
    if !left_out.is_empty() {
        println!("\nLeft out: {}.", left_out.join("; "));
    }
    for name in WORKLOADS.iter().filter(|name| chosen(&workloads, name)) {
        match *name {
            "one-way" => one_way::run(&plan)?,
            "senders" => senders::run(&plan)?,
            "round-trip" => round_trip::run(&plan)?,
            "vote" => vote::run(&plan)?,
            "broadcast" => broadcast::run(&plan)?,
            "idle" => idle::run(&plan)?,
            other => unreachable!("{other:?} is in the list of workloads, expected a match for it"),
        }
    }
    Ok(())
}

fn one_of<'a>(name: &str, names: impl Iterator<Item = &'a str> + Clone) -> Result<(), Failure> {
    if names.clone().any(|other| other == name) {
        return Ok(());
    }
    let names: Vec<_> = names.collect();
    Err(format!("{name:?} is unknown, expected one of {}", names.join("; ")).into())
}

fn take_counts(args: &mut Vec<String>, option: &str) -> Result<Option<Vec<usize>>, Failure> {
    let count = |text: &str| text.trim().parse().ok().filter(|count| *count > 0);
    let checked = |text: &str| {
        count(text).ok_or_else(|| format!("{option}: {text:?} is no count, expected one from 1 on").into())
    };
    take_value(args, option)?.map(|list| list.split(',').map(checked).collect()).transpose()
}

fn take_flag(args: &mut Vec<String>, flag: &str) -> bool {
    let before = args.len();
    args.retain(|arg| arg != flag);
    args.len() < before
}

fn take_value(args: &mut Vec<String>, option: &str) -> Result<Option<String>, Failure> {
    let Some(at) = args.iter().position(|arg| arg == option) else { return Ok(None) };
    if at + 1 >= args.len() {
        return Err(format!("{option} stands alone, expected a value behind it").into());
    }
    let value = args.remove(at + 1);
    args.remove(at);
    Ok(Some(value))
}

fn take_list(
    args: &mut Vec<String>,
    option: &str,
    separator: char,
    check: impl Fn(&str) -> Result<(), Failure>,
) -> Result<Option<Vec<String>>, Failure> {
    let Some(value) = take_value(args, option)? else { return Ok(None) };
    let list: Vec<String> = value.split(separator).map(|name| name.trim().to_owned()).collect();
    for name in &list {
        check(name).map_err(|error| format!("{option}: {error}"))?;
    }
    Ok(Some(list))
}

/// The part of one of the two processes of a run.
fn child(args: &[String]) -> Result<(), Failure> {
    let [role, name, rest @ ..] = args else { return Err("expected a role and a name".into()) };
    let contestant = CONTESTANTS.iter().find(|contestant| contestant.name == name);
    let contestant = contestant.ok_or_else(|| format!("{name:?} is no contestant, expected a known one"))?;
    process::raise_file_limit()?;
    run_role(contestant, role, rest)?;
    // The parent ends both when it has heard both.
    process::wait()
}

fn run_role(contestant: &'static Contestant, role: &str, rest: &[String]) -> Result<(), Failure> {
    let Contestant { name, one_way, senders, round_trip, vote, broadcast, idle } = contestant;
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    match (role, &rest[..]) {
        ("receive", [size, count]) => one_way::receive(has(one_way, name)?, size.parse()?, count.parse()?),
        ("send", [size, count, addr]) => {
            one_way::send(has(one_way, name)?, size.parse()?, count.parse()?, addr)
        }
        ("many-receive", [peers]) => senders::receive(has(senders, name)?, peers.parse()?),
        ("many-send", [threads, peers, millis, addrs]) => {
            let lasts = Duration::from_millis(millis.parse()?);
            senders::send(has(senders, name)?, threads.parse()?, peers.parse()?, lasts, addrs)
        }
        ("echo", [count]) => round_trip::echo(has(round_trip, name)?, count.parse()?),
        ("ask", [count, addr]) => round_trip::ask(has(round_trip, name)?, count.parse()?, addr),
        ("serve", [mode]) => vote::serve(has(vote, name)?, mode),
        ("vote", [mode, millis, addr]) => {
            vote::vote(has(vote, name)?, mode, Duration::from_millis(millis.parse()?), addr)
        }
        ("broadcast", [peers, count]) => {
            broadcast::broadcast(has(broadcast, name)?, peers.parse()?, count.parse()?)
        }
        ("peers", [peers, addr]) => {
            broadcast::peers(has(broadcast, name)?, peers.parse()?, (*addr).to_owned())
        }
        ("idle-accept", [shape, count]) => idle::accept(has(idle, name)?, shape, count.parse()?),
        ("idle-dial", [shape, count, addrs]) => idle::dial(has(idle, name)?, shape, count.parse()?, addrs),
        _ => Err(format!("{role} {rest:?} is no role, expected one with its arguments").into()),
    }
}

fn has<'a, T>(workload: &'a Option<T>, name: &str) -> Result<&'a T, Failure> {
    workload.as_ref().ok_or_else(|| format!("{name} has not this workload, expected one that it has").into())
}
