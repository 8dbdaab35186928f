//! Round trip: a message of 64 bytes goes there and comes back, one at a time.

use std::time::Instant;

use super::{Delays, Plan, Rounds, delay_rows, quantile, sorted};
use crate::Failure;
use crate::contestants::{Contestant, RoundTrip};
use crate::process::{Load, Process, cpu_time, tell};
use crate::table::Table;

pub fn run(plan: &Plan) -> Result<(), Failure> {
    let of = |contestant: &'static Contestant| contestant.round_trip.as_ref();
    let contestants = plan.with(of);
    let mut rounds = Rounds::new();
    let load = Load::start()?;
    for _ in 0..plan.rounds {
        for (name, round_trip) in &contestants {
            let count = (round_trip.trips / plan.shorter).max(20);
            let text = count.to_string();
            let mut echo = Process::start(&["echo", name, &text])?;
            let addr = echo.line()?;
            let mut asker = Process::start(&["ask", name, &text, &addr])?;
            let [p50, p99, cpu] = asker.numbers()?;
            let [echo_cpu] = echo.numbers()?;
            let micros = |nanos: u64| nanos as f64 / 1000.0;
            let cpu = micros(cpu + echo_cpu) / count as f64;
            rounds.add(*name, Delays { p50: micros(p50), p99: micros(p99), cpu });
        }
    }
    let mut table = Table::new("Round trip, 64 bytes, one at a time".to_owned(), &load);
    table.columns = &["p50 us", "ratio to raw", "lowest to highest", "p99 us", "CPU us of both sides"];
    delay_rows(&mut table, &rounds, contestants.iter().map(|(name, _)| *name), 1);
    plan.show(&table, of)
}

pub fn echo(round_trip: &RoundTrip, count: u64) -> Result<(), Failure> {
    (round_trip.echo)(count, &mut |addr| tell(&addr))?;
    tell(&cpu_time().as_nanos().to_string())
}

pub fn ask(round_trip: &RoundTrip, count: u64, addr: &str) -> Result<(), Failure> {
    let mut took = Vec::new();
    let mut before = Instant::now();
    (round_trip.ask)(count, addr, &mut |_| {
        took.push(before.elapsed().as_nanos() as f64);
        before = Instant::now();
    })?;
    let cpu = cpu_time().as_nanos();
    let took = sorted(took.into_iter().skip((count / 10) as usize));
    tell(&format!("{} {} {cpu}", quantile(&took, 50) as u64, quantile(&took, 99) as u64))
}
