//! Paths that drop packets above a size one way, without a word, as where a tunnel cuts the MTU and ICMP is filtered.
//! Every flow meets the hole, the successors too: only smaller segments pass, and only where somebody finds that out (the
//! kernel after some seconds, if `net.ipv4.tcp_mtu_probing` is 1).

use std::time::Duration;

use unbroken::{PathConfig, URGENT};

use crate::net::{Net, Place};
use crate::pair::{Pair, SECOND, Setup, millis};
use crate::table::Row;

/// Votes on the way that is well: a suspicion, and what a busy machine takes.
const WELL: Duration = Duration::from_millis(2500);
/// Votes behind what was stopped.
const ILL: Duration = Duration::from_secs(20);
/// The connection that meets the hole, the one on trial, and one with smaller segments.
const CONNECTIONS: usize = 3;

/// From `way` on (`to-b` or `to-a`) packets above `limit` bytes are dropped, while a sends blocks and both vote.
fn hole(net: Net, way: &str, limit: u32, probing: bool) -> Result<Row, String> {
    net.no_offload();
    for place in [Place::A, Place::B] {
        net.set(place, "net/ipv4/tcp_mtu_probing", u32::from(probing))?;
    }
    let mut pair = Pair::start(net, Setup { path: PathConfig::default(), ..Setup::default() });
    pair.vote(millis(50));
    pair.blocks(millis(500));
    pair.pass(SECOND * 2);
    pair.fault();
    pair.net.rule(&format!("oifname {way} meta length > {limit} drop"));
    pair.pass(SECOND * 25);
    let connections = pair.a.count("Connected").max(pair.b.count("Connected"));
    assert!(connections <= CONNECTIONS, "{connections} connections\n{}", pair.story());
    let row = pair.finish(ILL);
    let (to_b, to_a) = pair.worst_since(0, URGENT);
    let well = if way == "to-b" { to_a } else { to_b };
    assert!(well <= WELL, "the healthy way waited {well:?}\n{}", pair.story());
    Ok(row)
}

pub(crate) fn to_b_600(net: Net) -> Result<Row, String> {
    hole(net, "to-b", 600, false)
}

pub(crate) fn to_a_600(net: Net) -> Result<Row, String> {
    hole(net, "to-a", 600, false)
}

pub(crate) fn to_b_1300(net: Net) -> Result<Row, String> {
    hole(net, "to-b", 1300, false)
}

pub(crate) fn to_b_600_probing(net: Net) -> Result<Row, String> {
    hole(net, "to-b", 600, true)
}

pub(crate) fn to_b_1300_probing(net: Net) -> Result<Row, String> {
    hole(net, "to-b", 1300, true)
}

pub(crate) fn to_a_1300_probing(net: Net) -> Result<Row, String> {
    hole(net, "to-a", 1300, true)
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
