//! Many threads that send messages of 256 bytes, each to all peers by turns.

use std::thread;
use std::time::Duration;

use super::{Plan, READY, Rounds, measure, observed};
use crate::Failure;
use crate::contestants::{Contestant, Senders};
use crate::process::{Load, Process, cpu_time, tell, wait};
use crate::table::{Row, Table};

/// How many peers there are, in one table each.
const PEERS: [usize; 3] = [1, 16, 200];

/// How many threads send.
pub const THREADS: [usize; 4] = [1, 8, 32, 64];

/// For how long a run measures, if the plan does not shorten it, and a part of that for warm-up.
const LASTS: Duration = Duration::from_secs(2);

struct Run {
    /// Messages per second.
    rate: f64,
    /// CPU time of both processes for a message, in seconds.
    cpu: f64,
}

pub fn run(plan: &Plan) -> Result<(), Failure> {
    for peers in PEERS {
        run_peers(plan, peers)?;
    }
    Ok(())
}

fn run_peers(plan: &Plan, peers: usize) -> Result<(), Failure> {
    let of = |contestant: &'static Contestant| contestant.senders.as_ref();
    let contestants = plan.with(of);
    let mut rounds = Rounds::new();
    let load = Load::start()?;
    let (number, lasts) = (peers.to_string(), (LASTS / u32::try_from(plan.shorter)?).as_millis().to_string());
    for _ in 0..plan.rounds {
        for threads in &plan.senders {
            let text = threads.to_string();
            for (name, _) in &contestants {
                let mut receivers = Process::start(&["many-receive", name, &number])?;
                let addrs = receivers.line()?;
                let senders = Process::start(&["many-send", name, &text, &number, &lasts, &addrs])?;
                let both = measure(senders, receivers)?;
                let [cpu] = both.told;
                let rate = both.came as f64 / Duration::from_nanos(both.nanos).as_secs_f64();
                let cpu = Duration::from_nanos(cpu + both.cpu).as_secs_f64() / both.came.max(1) as f64;
                rounds.add((*name, *threads), Run { rate, cpu });
            }
        }
    }
    let to = if peers == 1 { "one peer".to_owned() } else { format!("{peers} peers") };
    let mut table = Table::new(format!("Threads that send messages of 256 bytes to {to}"), &load);
    table.columns = &["messages/s", "ratio to raw", "lowest to highest", "CPU s per million messages"];
    table.bars = "messages/s, median";
    for threads in &plan.senders {
        for (name, _) in &contestants {
            let key = (*name, *threads);
            let rate = rounds.median(&key, |run: &Run| run.rate);
            let [lowest, middle, highest] = rounds.ratio(&key, &("raw", *threads), |run| run.rate);
            table.rows.push(Row {
                name: format!("{name}, {threads} {}", if *threads == 1 { "thread" } else { "threads" }),
                cells: vec![
                    format!("{rate:.0}"),
                    format!("{middle:.3}"),
                    format!("{lowest:.3} to {highest:.3}"),
                    format!("{:.3}", rounds.median(&key, |run| run.cpu) * 1e6),
                ],
                bar: rate,
            });
        }
    }
    plan.show(&table, of)
}

pub fn receive(senders: &'static Senders, peers: usize) -> Result<(), Failure> {
    observed(move |tell, came| (senders.receive)(peers, tell, came))
}

pub fn send(
    senders: &Senders,
    threads: usize,
    peers: usize,
    lasts: Duration,
    addrs: &str,
) -> Result<(), Failure> {
    (senders.send)(threads, peers, addrs, &mut || {
        thread::sleep(lasts / 4);
        tell(READY)?;
        wait()?;
        let cpu = cpu_time();
        thread::sleep(lasts);
        tell(&(cpu_time() - cpu).as_nanos().to_string())?;
        // The threads go on until the parent has heard how many messages came.
        wait()
    })
}
