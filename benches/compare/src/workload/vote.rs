//! Votes of 64 bytes, each of which comes back, beside bulk messages of 1 MiB that are sent without a pause.

use std::thread;
use std::time::{Duration, Instant};

use super::{Plan, READY, Rounds, measure, observed, quantile, sorted};
use crate::Failure;
use crate::contestants::{Ask, Connections, Contestant, Vote};
use crate::process::{Load, Process, tell, wait};
use crate::table::{Row, Table};

/// From one vote to the next, unless the one before is not back yet.
const PAUSE: Duration = Duration::from_millis(5);

/// For how long a run measures, if the plan does not shorten it, and a part of that for warm-up.
const LASTS: Duration = Duration::from_secs(4);

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Mode {
    BulkAlone,
    One,
    Two,
}

impl Mode {
    fn word(self) -> &'static str {
        match self {
            Mode::BulkAlone => "alone",
            Mode::One => "one",
            Mode::Two => "two",
        }
    }

    fn from_word(word: &str) -> Result<Self, Failure> {
        let modes = [Mode::BulkAlone, Mode::One, Mode::Two];
        let found = modes.into_iter().find(|mode| mode.word() == word);
        found.ok_or_else(|| format!("{word:?} is no mode of the votes, expected alone, one or two").into())
    }

    fn connections(self) -> Connections {
        match self {
            Mode::BulkAlone | Mode::One => Connections::One,
            Mode::Two => Connections::Two,
        }
    }
}

struct Run {
    p50: f64,
    p99: f64,
    /// Bulk messages per second.
    bulk: f64,
}

pub fn run(plan: &Plan) -> Result<(), Failure> {
    let of = |contestant: &'static Contestant| contestant.vote.as_ref();
    let contestants = plan.with(of);
    let mut rounds = Rounds::new();
    let load = Load::start()?;
    let lasts = (LASTS / u32::try_from(plan.shorter)?).as_millis().to_string();
    for _ in 0..plan.rounds {
        for mode in [Mode::BulkAlone, Mode::One, Mode::Two] {
            for (name, _) in &contestants {
                let mut serve = Process::start(&["serve", name, mode.word()])?;
                let addr = serve.line()?;
                let voter = Process::start(&["vote", name, mode.word(), &lasts, &addr])?;
                let both = measure(voter, serve)?;
                let [p50, p99] = both.told.map(|nanos| nanos as f64 / 1000.0);
                let bulk = both.came as f64 / Duration::from_nanos(both.nanos).as_secs_f64();
                rounds.add((*name, mode), Run { p50, p99, bulk });
            }
        }
    }
    let title = "Votes of 64 bytes, there and back, beside bulk messages of 1 MiB";
    let mut table = Table::new(title.to_owned(), &load);
    table.columns =
        &["p50 us", "p99 us", "p99, ratio to raw", "lowest to highest", "bulk MB/s", "part of bulk alone"];
    table.bars = "p99 us, median";
    for (mode, words) in [(Mode::One, "one connection"), (Mode::Two, "two connections")] {
        for (name, _) in &contestants {
            let (key, alone) = ((*name, mode), (*name, Mode::BulkAlone));
            let p99 = rounds.median(&key, |run: &Run| run.p99);
            let [lowest, middle, highest] = rounds.ratio(&key, &("raw", mode), |run| run.p99);
            let [_, part, _] = rounds.ratio(&key, &alone, |run| run.bulk);
            table.rows.push(Row {
                name: format!("{name}, {words}"),
                cells: vec![
                    format!("{:.0}", rounds.median(&key, |run| run.p50)),
                    format!("{p99:.0}"),
                    format!("{middle:.2}"),
                    format!("{lowest:.2} to {highest:.2}"),
                    format!("{:.0}", rounds.median(&key, |run| run.bulk) * (1 << 20) as f64 / 1e6),
                    format!("{part:.2}"),
                ],
                bar: p99,
            });
        }
    }
    plan.show(&table, of)
}

pub fn serve(vote: &'static Vote, mode: &str) -> Result<(), Failure> {
    let connections = Mode::from_word(mode)?.connections();
    observed(move |tell, came| (vote.serve)(connections, tell, &mut |messages| came(messages)))
}

pub fn vote(vote: &Vote, mode: &str, lasts: Duration, addr: &str) -> Result<(), Failure> {
    let mode = Mode::from_word(mode)?;
    (vote.vote)(mode.connections(), addr, &mut |ask| {
        paced(mode, lasts / 4, ask)?;
        tell(READY)?;
        wait()?;
        let took = sorted(paced(mode, lasts, ask)?.into_iter());
        tell(&format!("{} {}", quantile(&took, 50) as u64, quantile(&took, 99) as u64))?;
        // The bulk messages go on until the parent has heard how many came.
        wait()
    })
}

/// Asks at fixed times, and returns how long each answer took, in nanoseconds.
fn paced(mode: Mode, lasts: Duration, ask: Ask<'_>) -> Result<Vec<f64>, Failure> {
    let (start, mut took) = (Instant::now(), Vec::new());
    if mode == Mode::BulkAlone {
        thread::sleep(lasts);
        return Ok(took);
    }
    let mut next = start;
    while next - start < lasts {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        let before = Instant::now();
        ask()?;
        took.push(before.elapsed().as_nanos() as f64);
        next = (next + PAUSE).max(Instant::now());
    }
    Ok(took)
}
