//! One way: a sender and a receiver, as fast as they may.

use std::time::{Duration, Instant};

use super::{Plan, Rounds};
use crate::Failure;
use crate::contestants::{ALSO_ENCRYPTED, Contestant, ENCRYPTED, OneWay};
use crate::process::{Load, Process, cpu_time, tell, wait};
use crate::table::{Row, Table};

/// The sizes of a message, and how many of them a contestant with a share of 1 is given.
pub const SIZES: [(usize, u64); 5] =
    [(64, 10_000_000), (256, 5_000_000), (1024, 3_000_000), (256 * 1024, 20_000), (4 << 20, 1_000)];

struct Run {
    /// Messages per second.
    rate: f64,
    /// CPU time of both processes for a message, in seconds.
    cpu: f64,
}

pub fn run(plan: &Plan) -> Result<(), Failure> {
    for (size, count) in &plan.one_way {
        run_size(plan, *size, count / plan.shorter)?;
    }
    Ok(())
}

fn run_size(plan: &Plan, size: usize, count: u64) -> Result<(), Failure> {
    let of = |contestant: &'static Contestant| contestant.one_way.as_ref();
    let contestants = plan.with(of);
    let mut rounds = Rounds::new();
    let load = Load::start()?;
    for _ in 0..plan.rounds {
        for (name, one_way) in &contestants {
            rounds.add(*name, run_once(name, one_way, size, count)?);
        }
    }
    let mut table = Table::new(format!("One way, {size} bytes"), &load);
    table.columns =
        &["messages/s", "MB/s", "ratio to raw", "lowest to highest", "CPU s per million messages"];
    table.bars = "messages/s, median";
    for (name, _) in &contestants {
        let rate = rounds.median(name, |run: &Run| run.rate);
        let [lowest, middle, highest] = rounds.ratio(name, &"raw", |run| run.rate);
        table.rows.push(Row {
            name: (*name).to_owned(),
            cells: vec![
                format!("{rate:.0}"),
                format!("{:.0}", rate * size as f64 / 1e6),
                format!("{middle:.3}"),
                format!("{lowest:.3} to {highest:.3}"),
                format!("{:.3}", rounds.median(name, |run| run.cpu) * 1e6),
            ],
            bar: rate,
        });
    }
    plan.show(&table, of)?;
    for other in ALSO_ENCRYPTED {
        if [ENCRYPTED, other].iter().all(|name| !rounds.of(name).is_empty()) {
            let [lowest, middle, highest] = rounds.ratio(&ENCRYPTED, other, |run| run.rate);
            println!("\n{ENCRYPTED} beside {other}: {middle:.3} ({lowest:.3} to {highest:.3}).");
        }
    }
    Ok(())
}

fn run_once(name: &str, one_way: &OneWay, size: usize, count: u64) -> Result<Run, Failure> {
    // Slow ones get fewer messages, so that a round takes seconds at most.
    let count = (count as f64 * one_way.share_of(size)).max(10.0) as u64;
    let (size, text) = (size.to_string(), count.to_string());
    let mut receiver = Process::start(&["receive", name, &size, &text])?;
    let addr = receiver.line()?;
    let mut sender = Process::start(&["send", name, &size, &text, &addr])?;
    let [nanos, received_cpu] = receiver.numbers()?;
    sender.go_on()?;
    let [sent_cpu] = sender.numbers()?;
    let cpu = Duration::from_nanos(sent_cpu + received_cpu);
    Ok(Run {
        rate: count as f64 / Duration::from_nanos(nanos).as_secs_f64(),
        cpu: cpu.as_secs_f64() / count as f64,
    })
}

/// So many messages go before those that are measured: buffers, windows and chunks grow meanwhile.
fn warm_up(count: u64) -> u64 {
    count / 2
}

pub fn receive(one_way: &OneWay, size: usize, count: u64) -> Result<(), Failure> {
    let warm_up = warm_up(count);
    let (mut seen, mut start) = (0, None);
    (one_way.receive)(size, count + warm_up, &mut |addr| tell(&addr), &mut |messages| {
        seen += messages;
        if seen >= warm_up && start.is_none() {
            start = Some((Instant::now(), cpu_time(), seen));
        }
    })?;
    let (since, cpu, at) = start.ok_or("no message came, expected some")?;
    let part = |nanos: u128| (nanos as f64 * count as f64 / (seen - at).max(1) as f64) as u64;
    let (lasted, cpu) = (since.elapsed().as_nanos(), (cpu_time() - cpu).as_nanos());
    tell(&format!("{} {}", part(lasted), part(cpu)))
}

pub fn send(one_way: &OneWay, size: usize, count: u64, addr: &str) -> Result<(), Failure> {
    let all = count + warm_up(count);
    (one_way.send)(size, all, addr, &mut wait)?;
    let cpu = cpu_time().as_nanos() as f64 * count as f64 / all as f64;
    tell(&(cpu as u64).to_string())
}
