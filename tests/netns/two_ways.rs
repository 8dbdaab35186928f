//! Two paths between a and b, each with addresses of its own: a knows both addresses of b, and spreads its
//! pool of two over them. Votes go by the first, blocks by the second.

use std::time::{Duration, Instant};

use unbroken::{BULK, PathConfig, URGENT};

use crate::agent::micros;
use crate::net::{B_SECOND, Net, PORT, Place, Way};
use crate::pair::{Pair, SECOND, Setup, millis};
use crate::table::Row;
use unbroken_test_support::cluster::TIMEOUT;

const SLACK: Duration = Duration::from_secs(1);

/// Both vote 100 times a second, and send so many blocks a second.
fn start(net: Net, path: PathConfig, blocks: u64) -> Result<Pair, String> {
    net.second_way()?;
    let alternatives = vec![format!("{B_SECOND}:{PORT}")];
    let mut pair = Pair::start(net, Setup { alternatives, pool: 2, path, ..Setup::default() });
    let deadline = Instant::now() + TIMEOUT;
    while [Way::First, Way::Second].iter().any(|way| pair.conns_by(*way) != 1) {
        assert!(Instant::now() < deadline, "the pool is not spread\n{}", pair.story());
    }
    pair.work(false);
    pair.blocks(SECOND / blocks as u32);
    Ok(pair)
}

/// Loss on the path of the votes rises to 30 % in twenty steps, stays there for a while, and then nothing
/// gets through at all. By then nobody uses it.
fn ramp(net: Net, step: Duration, stay: Duration) -> Result<Row, String> {
    let mut pair = start(net, PathConfig::default(), 20)?;
    let usual = pair.traffic(Way::First, SECOND);
    assert!(usual > 10_000, "{usual} bytes a second by the path of the votes");
    pair.fault();
    let began = micros();
    let mut steps = Vec::new();
    for percent in (1..=20).map(|step| step * 3 / 2) {
        steps.push((micros(), percent));
        pair.net.rules(&[Way::First.loses(percent)]);
        pair.pass(step);
    }
    pair.pass(stay);
    let left = pair.traffic(Way::First, SECOND);
    assert!(left < usual / 10, "{left} bytes of {usual} still go by it\n{}", pair.story());
    let Some((at, what)) = pair.heard_of(&["ConnDegraded", "Suspect"]) else {
        panic!("nothing was said\n{}", pair.story());
    };
    let (to_b, to_a) = pair.worst_since(began, URGENT);
    let percent =
        steps.iter().filter(|(since, _)| *since < at).map(|(_, percent)| *percent).max().unwrap_or(0);
    let what = what.split(' ').next().unwrap_or_default();
    eprintln!("{what} at {percent} % of loss; until it died votes took up to {to_b:?} and {to_a:?}");
    // Votes that were lost wait for TCP's timers, and those for each other.
    assert!(to_b.max(to_a) < SECOND * 3, "{to_b:?} to b, {to_a:?} to a\n{}", pair.story());
    pair.fault();
    pair.net.rules(&[Way::First.loses(100)]);
    pair.pass(SECOND * 2);
    pair.until_votes();
    Ok(pair.finish(millis(500) + SLACK / 2))
}

pub(crate) fn goes_bad(net: Net) -> Result<Row, String> {
    ramp(net, millis(400), SECOND)
}

pub(crate) fn goes_bad_slowly(net: Net) -> Result<Row, String> {
    ramp(net, SECOND, Duration::ZERO)
}

/// One path is gone; the other is as well as before.
fn black(net: Net, way: Way, bound: Duration, blocks_bound: Duration) -> Result<Row, String> {
    let mut pair = start(net, PathConfig::default(), 40)?;
    let began = micros();
    pair.fault();
    pair.net.rules(&[way.loses(100)]);
    pair.pass(SECOND * 2);
    pair.until_votes();
    pair.wait("a successor by the other path", |pair| {
        pair.a.has_event(began, "Replaced") && pair.b.has_event(began, "Replaced")
    });
    let row = pair.finish(bound);
    let (to_b, to_a) = pair.worst_since(began, BULK);
    assert!(to_b.max(to_a) <= blocks_bound, "blocks: {to_b:?} to b, {to_a:?} to a\n{}", pair.story());
    Ok(row)
}

/// The suspicion takes 1 s.
const SUSPECTED: Duration = Duration::from_millis(1500);

pub(crate) fn first_black(net: Net) -> Result<Row, String> {
    black(net, Way::First, SUSPECTED + SLACK, SECOND)
}

/// Votes see no gap; blocks do.
pub(crate) fn second_black(net: Net) -> Result<Row, String> {
    black(net, Way::Second, millis(700), SUSPECTED + SLACK)
}

/// How long a path is gone.
const GONE: Duration = Duration::from_millis(1500);

pub(crate) fn both_black(net: Net) -> Result<Row, String> {
    let mut pair = start(net, Setup::fast().path, 40)?;
    pair.fault();
    pair.net.rules(&[Way::First.loses(100), Way::Second.loses(100)]);
    pair.pass(GONE);
    pair.net.rules(&[Way::First.loses(100)]);
    let gone = pair.since_fault();
    pair.until_votes();
    // The longest wait between two dials by then, and a dial to each address.
    Ok(pair.finish(gone + millis(1300 + 2 * 500) + SLACK))
}

/// Votes go on by the other path each time, whichever they have come to use.
pub(crate) fn flaps(net: Net) -> Result<Row, String> {
    let mut pair = start(net, Setup::fast().path, 40)?;
    pair.fault();
    for way in [Way::First, Way::Second, Way::First] {
        pair.net.tool("ip", Place::Router, &format!("link set {} down", way.to_b()));
        pair.until_votes();
        pair.pass(GONE);
        pair.net.tool("ip", Place::Router, &format!("link set {} up", way.to_b()));
        pair.pass(millis(500));
    }
    Ok(pair.finish(millis(600 + 500) + SLACK))
}
