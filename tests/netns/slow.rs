//! Links down to 16 kbit/s with a queue of half a second: what is slow is not dead. Each is run twice in
//! networks of their own, side by side: with nodes and their default settings, and with plain TCP and chunks
//! of the same size, from when that is known.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use unbroken::{BULK, PathConfig, URGENT};

use crate::net::Net;
use crate::pair::{Pair, SECOND, Setup, millis};
use crate::table::Line;

/// The share of the rate that blocks take, in percent.
const LOAD: u64 = 40;

/// The nodes of these tests take no larger one, in bytes.
const LARGEST_BLOCK: usize = 256 << 10;

/// A case: the link, and what is sent over it.
struct Case {
    kbit: u32,
    pool: u8,
    block: usize,
    time: Duration,
    /// So many connections may be replaced.
    replaced: usize,
}

/// The outcome of the votes and blocks.
struct Ride {
    /// Delays of votes, in both directions.
    median: Duration,
    late: Duration,
    worst: Duration,
    blocks: usize,
    chunk: usize,
    connections: usize,
    suspects: usize,
}

pub(crate) struct SlowRow {
    ours: Ride,
    plain: Ride,
}

/// `settled` is told the size of chunks after the first third of the time.
fn ride(net: Net, case: &Case, plain: Option<usize>, settled: impl FnOnce(usize)) -> Ride {
    net.no_offload();
    net.slow(case.kbit);
    let patience = SECOND * 30 + SECOND * (case.block * 24 / 1000) as u32 / case.kbit;
    let (path, pool) = (PathConfig::default(), case.pool);
    let mut pair = Pair::start(net, Setup { path, pool, plain, patience, ..Setup::default() });
    pair.fault();
    pair.vote(SECOND);
    let every = millis(case.block as u64 * 8 * 100 / LOAD / u64::from(case.kbit));
    pair.bulk(every, case.block);
    pair.pass(case.time / 3);
    pair.figures();
    let chunk = pair.a.figures().conns.iter().map(|conn| conn.chunk).min().unwrap_or_default();
    settled(chunk);
    pair.pass(case.time - case.time / 3);
    pair.hold();
    let story = pair.story();
    pair.a.votes.check();
    pair.b.votes.check();
    let mut delays = [pair.a.votes.delays(URGENT), pair.b.votes.delays(URGENT)].concat();
    delays.sort_unstable();
    let at = |percent: usize| delays[(delays.len() - 1) * percent / 100];
    let count = |name: &str| pair.a.count(name).max(pair.b.count(name));
    let found = Ride {
        median: at(50),
        late: at(95),
        worst: at(100),
        blocks: pair.a.votes.delays(BULK).len(),
        chunk: plain.unwrap_or(chunk),
        connections: count("Connected"),
        suspects: pair.a.count("Suspect") + pair.b.count("Suspect"),
    };
    if std::env::var_os("UNBROKEN_STORY").is_some() {
        eprintln!("{} kbit/s, pool {pool}, {plain:?}\n{story}", case.kbit);
    }
    found
}

fn run(net: Net, case: Case) -> Result<SlowRow, String> {
    let (other, plain_case) = (net.another()?, Case { pool: 1, ..case });
    let (settled, chunk) = mpsc::channel();
    let plain = thread::spawn(move || Some(ride(other, &plain_case, Some(chunk.recv().ok()?), drop)));
    let ours = ride(net, &case, None, |chunk| settled.send(chunk).expect("the other ride waits"));
    let plain = plain.join().expect("the ride over plain TCP").expect("a size of chunks");
    let (row, kbit) = (SlowRow { ours, plain }, u64::from(case.kbit));
    println!("{}", row.line(&format!("{kbit} kbit/s, pool of {}", case.pool)));
    // A packet of each, and the machine, which may be busy with other tests.
    let packets = millis(1500 * 8 * 2 / kbit) + SECOND / 2;
    let made = usize::from(case.pool)..=usize::from(case.pool) + case.replaced;
    assert!(made.contains(&row.ours.connections), "slow is not dead: {} connections", row.ours.connections);
    assert!(row.ours.blocks >= row.plain.blocks.saturating_sub(1), "fewer blocks than by plain TCP");
    assert!(row.ours.late <= row.plain.late * 3 / 2 + packets, "votes wait for too long");
    Ok(row)
}

/// Half a minute is enough for the default patience of 1, 5 and 20 s to run out. Of 28 half minutes of two
/// connections at 64 kbit/s one had a replacement, on a machine busy with other tests.
fn short(net: Net, kbit: u32, pool: u8) -> Result<SlowRow, String> {
    run(
        net,
        Case { kbit, pool, block: kbit as usize * 512, time: SECOND * 30, replaced: usize::from(pool > 1) },
    )
}

fn long(net: Net, kbit: u32, pool: u8) -> Result<SlowRow, String> {
    let block = (kbit as usize * 1024).min(LARGEST_BLOCK);
    run(net, Case { kbit, pool, block, time: SECOND * 180, replaced: 0 })
}

pub(crate) fn short_512(net: Net) -> Result<SlowRow, String> {
    short(net, 512, 1)
}

pub(crate) fn short_64(net: Net) -> Result<SlowRow, String> {
    short(net, 64, 1)
}

pub(crate) fn short_64_pool(net: Net) -> Result<SlowRow, String> {
    short(net, 64, 2)
}

pub(crate) fn short_16(net: Net) -> Result<SlowRow, String> {
    short(net, 16, 1)
}

pub(crate) fn long_512(net: Net) -> Result<SlowRow, String> {
    long(net, 512, 1)
}

pub(crate) fn long_512_pool(net: Net) -> Result<SlowRow, String> {
    long(net, 512, 2)
}

pub(crate) fn long_128(net: Net) -> Result<SlowRow, String> {
    long(net, 128, 1)
}

pub(crate) fn long_128_pool(net: Net) -> Result<SlowRow, String> {
    long(net, 128, 2)
}

pub(crate) fn long_64(net: Net) -> Result<SlowRow, String> {
    long(net, 64, 1)
}

pub(crate) fn long_64_pool(net: Net) -> Result<SlowRow, String> {
    long(net, 64, 2)
}

pub(crate) fn long_32(net: Net) -> Result<SlowRow, String> {
    long(net, 32, 1)
}

pub(crate) fn long_32_pool(net: Net) -> Result<SlowRow, String> {
    long(net, 32, 2)
}

pub(crate) fn long_16(net: Net) -> Result<SlowRow, String> {
    long(net, 16, 1)
}

pub(crate) fn long_16_pool(net: Net) -> Result<SlowRow, String> {
    long(net, 16, 2)
}

impl Line for SlowRow {
    fn heading() -> String {
        let of = "of plain TCP";
        format!(
            "| {:<26} | chunk | connections | suspects | votes: median | 95 % | worst | {of}: median | 95 % | worst | blocks | {of} |\n",
            "link"
        )
    }

    fn line(&self, name: &str) -> String {
        let times = |ride: &Ride| {
            let [median, late, worst] = [ride.median, ride.late, ride.worst].map(|time| time.as_millis());
            format!("{median:>6} ms | {late:>6} ms | {worst:>6} ms")
        };
        let Ride { chunk, connections, suspects, blocks, .. } = self.ours;
        format!(
            "| {name:<26} | {chunk:>6} | {connections:>3} | {suspects:>3} | {} | {} | {blocks:>3} | {:>3} |\n",
            times(&self.ours),
            times(&self.plain),
            self.plain.blocks
        )
    }
}
