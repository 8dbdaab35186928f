//! Paths that drop packets above a size one way, without a word, as where a tunnel cuts the MTU and ICMP is
//! filtered. Every flow meets the hole, the successors too: only smaller segments pass, and only where
//! somebody finds that out (the kernel after some seconds, if `net.ipv4.tcp_mtu_probing` is 1).

use std::time::Duration;

use unbroken::{PathConfig, URGENT};

use crate::net::{Net, Place};
use crate::pair::{Pair, SECOND, Setup, millis};
use crate::table::Row;

/// Votes on the way that is well: a suspicion, and what a busy machine takes.
const WELL: Duration = Duration::from_millis(2500);
/// Votes behind what was stopped.
const ILL: Duration = Duration::from_secs(20);
/// For each place of the pool: the connection that meets the hole, the one on trial, and one with smaller
/// segments.
const CONNECTIONS: usize = 3;

/// A case: the pool, how long the hole lasts, and whether the kernel looks for segments that pass.
#[derive(Clone, Copy)]
struct Case {
    pool: u8,
    time: Duration,
    probing: bool,
}

const SHORT: Case = Case { pool: 1, time: Duration::from_secs(25), probing: false };
const PROBING: Case = Case { probing: true, ..SHORT };

/// From now on packets above `limit` bytes are dropped on `way` (`to-b` or `to-a`), while a sends blocks and
/// both vote.
fn hole(net: Net, way: &str, limit: u32, case: Case) -> Result<Row, String> {
    let Case { pool, time, probing } = case;
    net.no_offload();
    for place in [Place::A, Place::B] {
        net.set(place, "net/ipv4/tcp_mtu_probing", u32::from(probing))?;
    }
    let mut pair = Pair::start(net, Setup { path: PathConfig::default(), pool, ..Setup::default() });
    pair.vote(millis(50));
    pair.blocks(millis(500));
    pair.pass(SECOND * 2);
    pair.fault();
    pair.net.rule(&format!("oifname {way} meta length > {limit} drop"));
    pair.pass(time);
    let connections = pair.a.count("Connected").max(pair.b.count("Connected"));
    assert!(connections <= CONNECTIONS * usize::from(pool), "{connections} connections\n{}", pair.story());
    let row = pair.finish(ILL);
    let (to_b, to_a) = pair.worst_since(0, URGENT);
    let well = if way == "to-b" { to_a } else { to_b };
    assert!(well <= WELL, "the healthy way waited {well:?}\n{}", pair.story());
    Ok(row)
}

pub(crate) fn to_b_600(net: Net) -> Result<Row, String> {
    hole(net, "to-b", 600, SHORT)
}

pub(crate) fn to_a_600(net: Net) -> Result<Row, String> {
    hole(net, "to-a", 600, SHORT)
}

pub(crate) fn to_b_1300(net: Net) -> Result<Row, String> {
    hole(net, "to-b", 1300, SHORT)
}

pub(crate) fn to_b_600_probing(net: Net) -> Result<Row, String> {
    hole(net, "to-b", 600, PROBING)
}

pub(crate) fn to_b_1300_probing(net: Net) -> Result<Row, String> {
    hole(net, "to-b", 1300, PROBING)
}

pub(crate) fn to_a_1300_probing(net: Net) -> Result<Row, String> {
    hole(net, "to-a", 1300, PROBING)
}

const LONG: Case = Case { time: Duration::from_secs(180), ..SHORT };
const LONG_PROBING: Case = Case { probing: true, ..LONG };
const POOL: Case = Case { pool: 2, ..LONG };
const POOL_PROBING: Case = Case { probing: true, ..POOL };

pub(crate) fn long_1300(net: Net) -> Result<Row, String> {
    hole(net, "to-b", 1300, LONG)
}

pub(crate) fn long_1300_probing(net: Net) -> Result<Row, String> {
    hole(net, "to-b", 1300, LONG_PROBING)
}

pub(crate) fn pool_600(net: Net) -> Result<Row, String> {
    hole(net, "to-b", 600, POOL)
}

pub(crate) fn pool_1300(net: Net) -> Result<Row, String> {
    hole(net, "to-b", 1300, POOL)
}

pub(crate) fn pool_1300_to_a(net: Net) -> Result<Row, String> {
    hole(net, "to-a", 1300, POOL)
}

pub(crate) fn pool_600_probing(net: Net) -> Result<Row, String> {
    hole(net, "to-b", 600, POOL_PROBING)
}

pub(crate) fn pool_1300_probing(net: Net) -> Result<Row, String> {
    hole(net, "to-b", 1300, POOL_PROBING)
}

/// Nothing fills a packet.
pub(crate) fn votes_only(net: Net) -> Result<Row, String> {
    net.no_offload();
    let mut pair = Pair::start(net, Setup::default());
    pair.work(false);
    pair.fault();
    pair.net.rule("meta length > 600 drop");
    pair.pass(SECOND * 5);
    pair.assert_untouched();
    Ok(pair.finish(SECOND))
}
