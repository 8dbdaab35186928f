//! A message of 256 bytes to many peers, until all have acknowledged it.

use std::time::Instant;

use super::{Delays, Plan, READY, Rounds, delay_rows, measure, observed, quantile, sorted};
use crate::Failure;
use crate::contestants::{Broadcast, Contestant};
use crate::process::{Load, Process, cpu_time, tell, wait};
use crate::table::Table;

/// How many peers there are.
pub const PEERS: [usize; 2] = [50, 200];

/// How many messages all peers of a run get together, if the plan does not shorten it.
const DELIVERIES: u64 = 100_000;

pub fn run(plan: &Plan) -> Result<(), Failure> {
    for peers in &plan.broadcast {
        run_peers(plan, *peers)?;
    }
    Ok(())
}

fn run_peers(plan: &Plan, peers: usize) -> Result<(), Failure> {
    let of = |contestant: &'static Contestant| contestant.broadcast.as_ref();
    let contestants = plan.with(of);
    let mut rounds = Rounds::new();
    let load = Load::start()?;
    let count = DELIVERIES / peers as u64 / plan.shorter;
    let (number, text) = (peers.to_string(), count.to_string());
    for _ in 0..plan.rounds {
        for (name, _) in &contestants {
            let mut broadcast = Process::start(&["broadcast", name, &number, &text])?;
            let addr = broadcast.line()?;
            let others = Process::start(&["peers", name, &number, &addr])?;
            let both = measure(broadcast, others)?;
            let [p50, p99, cpu] = both.told;
            let micros = |nanos: u64| nanos as f64 / 1000.0;
            let cpu = micros(cpu + both.cpu) / (count * peers as u64) as f64;
            rounds.add(*name, Delays { p50: micros(p50), p99: micros(p99), cpu });
        }
    }
    let title = format!("Broadcast of 256 bytes to {peers} peers, until all have acknowledged it");
    let mut table = Table::new(title, &load);
    table.columns =
        &["p50 us", "ratio to raw", "lowest to highest", "p99 us", "CPU us of both sides for each peer"];
    delay_rows(&mut table, &rounds, contestants.iter().map(|(name, _)| *name), 2);
    plan.show(&table, of)
}

pub fn peers(broadcast: &'static Broadcast, peers: usize, addr: String) -> Result<(), Failure> {
    observed(move |_, _| (broadcast.peers)(peers, &addr))
}

pub fn broadcast(broadcast: &Broadcast, peers: usize, count: u64) -> Result<(), Failure> {
    (broadcast.broadcast)(peers, &mut |addr| tell(&addr), &mut |send| {
        (0..count / 4).try_for_each(|_| send())?;
        tell(READY)?;
        wait()?;
        let (mut took, cpu) = (Vec::new(), cpu_time());
        for _ in 0..count {
            let before = Instant::now();
            send()?;
            took.push(before.elapsed().as_nanos() as f64);
        }
        let (took, cpu) = (sorted(took.into_iter()), (cpu_time() - cpu).as_nanos());
        tell(&format!("{} {} {cpu}", quantile(&took, 50) as u64, quantile(&took, 99) as u64))?;
        wait()
    })
}
