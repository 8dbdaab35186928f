//! One node and many peers at full speed, for a given time: threads that send to each peer, a thread that
//! broadcasts, a thread that waits for the receipt of one vote after the other, and, with `--faults`, a
//! thread that cuts connections. Every message is checked where it arrives: content, order, once.
//!
//! ```text
//! cargo bench --bench stress -- --peers 50 --seconds 10 --faults
//! ```
//!
//! The peers are nodes of a second process. `--help` lists the flags. The exit code is 1 if a message was
//! lost, doubled, damaged or out of order.

#![allow(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "a program, not the library: it reads the real clock, and stops if it cannot go on"
)]

#[cfg(not(target_os = "linux"))]
compile_error!("the stress bench needs Linux: it reads /proc, and its fault proxy needs poll(2)");

mod args;
mod figures;
mod peers;
mod traffic;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use unbroken::test_util::FaultProxy;
use unbroken::{Event, Node};
use unbroken_test_support::process::Child;

use args::Args;
use figures::{Spread, Usage};
use traffic::Traffic;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Far longer than anything takes.
const LONG: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    // Cargo adds `--bench`.
    let given: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let args = match Args::parse(&given) {
        Ok(args) => args,
        Err(text) if text == args::HELP => {
            println!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(text) => {
            eprintln!("{text}");
            return ExitCode::from(2);
        }
    };
    let result = if args.child { peers::run(&args).map(|()| true) } else { run(&args) };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// True if every message arrived as it was sent.
fn run(args: &Args) -> Result<bool, Failure> {
    let mut command = Child::current_exe()?;
    command.args(args.for_child());
    let mut child = Child::spawn(command)?;
    let line =
        child.wait_line(LONG, |line| line.starts_with("listening ")).ok_or("the peers did not start")?;
    let addrs: Vec<SocketAddr> = line.split(' ').skip(1).map(str::parse).collect::<Result<_, _>>()?;
    let proxies: Vec<FaultProxy> = match args.faults {
        true => addrs.iter().map(|addr| FaultProxy::start(*addr)).collect::<Result<_, _>>()?,
        false => Vec::new(),
    };
    let dialled: Vec<SocketAddr> =
        if args.faults { proxies.iter().map(FaultProxy::addr).collect() } else { addrs };

    let start = Instant::now();
    let hub = Node::builder()
        .configure(|config| args.configure(config))
        .peers(dialled.iter().map(SocketAddr::to_string))
        .start()?;
    let peers = hub.wait_for_links(args.peers, LONG)?;
    println!("{} peers linked in {:.2} s", peers.len(), start.elapsed().as_secs_f64());
    idle(args, &child)?;

    let traffic = Traffic { hub: &hub, peers: &peers, args };
    let before = (Usage::here()?, Usage::of(child.pid())?);
    let start = Instant::now();
    let sent = traffic.run(&proxies)?;
    let taken = start.elapsed();
    let after = (Usage::here()?, Usage::of(child.pid())?);

    proxies.iter().for_each(FaultProxy::heal);
    child.send_line("report")?;
    let line =
        child.wait_line(LONG, |line| line.starts_with("received ")).ok_or("the peers did not report")?;
    let received: u64 = line.split(' ').nth(1).ok_or("no count")?.parse()?;
    let errors: Vec<String> =
        child.skipped().iter().filter(|line| line.starts_with("error ")).cloned().collect();
    let connections = hub.snapshot().peers.iter().map(|peer| peer.reconnects).sum::<u64>();
    if args.outage > Duration::ZERO {
        outage(args, &hub, &mut child)?;
    }

    let rate = |count: u64| count as f64 / taken.as_secs_f64();
    println!("\n| | |\n| --- | --- |");
    println!(
        "| messages | {} in {:.1} s, {:.0}/s |",
        sent.messages,
        taken.as_secs_f64(),
        rate(sent.messages)
    );
    println!(
        "| broadcasts | {}, {:.1}/s, to {} peers |",
        sent.broadcasts,
        rate(sent.broadcasts),
        peers.len()
    );
    println!("| a broadcast's call, ms | {} |", Spread::of(&sent.calls));
    println!("| until all its receipts, ms | {} |", Spread::of(&sent.rounds));
    println!("| a vote until its receipt, ms | {} |", Spread::of(&sent.votes));
    println!("| connections made, cuts | {connections}, {} |", sent.cuts);
    for (name, before, after) in [("sender", before.0, after.0), ("peers", before.1, after.1)] {
        let cpu = after.cpu - before.cpu;
        println!(
            "| {name}: CPU, memory, threads | {:.2} processors, {:.2} us a message; {} MiB; {} |",
            cpu.as_secs_f64() / taken.as_secs_f64(),
            cpu.as_secs_f64() * 1e6 / sent.delivered as f64,
            after.resident >> 20,
            after.threads,
        );
    }
    let whole = received == sent.delivered && errors.is_empty();
    errors.iter().take(10).for_each(|error| println!("{error}"));
    println!(
        "\n{}: {} messages sent, {received} received, {} errors",
        if whole { "OK" } else { "FAILED" },
        sent.delivered,
        errors.len()
    );
    hub.shutdown(Duration::ZERO);
    Ok(whole)
}

/// Prints what the linked nodes use while nothing is sent.
fn idle(args: &Args, child: &Child) -> Result<(), Failure> {
    if args.idle.is_zero() {
        return Ok(());
    }
    let before = (Usage::here()?, Usage::of(child.pid())?);
    std::thread::sleep(args.idle);
    let after = (Usage::here()?, Usage::of(child.pid())?);
    for (name, before, after) in [("sender", before.0, after.0), ("peers", before.1, after.1)] {
        println!(
            "idle, {name}: {:.2} % of a processor, {:.1} MiB, {} threads",
            (after.cpu - before.cpu).as_secs_f64() * 100.0 / args.idle.as_secs_f64(),
            after.resident as f64 / 1024.0 / 1024.0,
            after.threads,
        );
    }
    Ok(())
}

/// All peers are gone for some time, and come back.
fn outage(args: &Args, hub: &Node, child: &mut Child) -> Result<(), Failure> {
    child.send_line("down")?;
    child.wait_line(LONG, |line| line == "down").ok_or("the peers did not stop")?;
    std::thread::sleep(args.outage);
    let failed = hub.snapshot().peers.iter().map(|peer| peer.reconnects).sum::<u64>();
    let start = Instant::now();
    child.send_line("up")?;
    child.wait_line(LONG, |line| line == "up").ok_or("the peers did not start again")?;
    let started = start.elapsed();
    let mut dials = 0;
    while hub.snapshot().peers.iter().filter(|peer| peer.state == unbroken::LinkState::Up).count()
        < args.peers
    {
        if start.elapsed() > LONG {
            return Err("not all peers came back".into());
        }
        dials +=
            u64::from(matches!(hub.recv_timeout(Duration::from_millis(10))?, Some(Event::DialFailed { .. })));
    }
    let made = hub.snapshot().peers.iter().map(|peer| peer.reconnects).sum::<u64>() - failed;
    println!(
        "after {:.0} s without peers all were back {:.2} s after the first listened again ({:.2} s to start them), with {made} connections; {dials} dials had failed",
        args.outage.as_secs_f64(),
        start.elapsed().as_secs_f64(),
        started.as_secs_f64(),
    );
    Ok(())
}
