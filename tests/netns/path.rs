//! Faults of the path: what the router drops, cuts, resets and delays.

use std::time::Duration;

use crate::net::{Net, Place};
use crate::pair::{Pair, SECOND, Setup, millis};
use crate::table::Row;

/// How late the machine may make us: it may be busy with other tests.
const SLACK: Duration = Duration::from_secs(1);

/// Drops what the flow that is in use sends, or gets, without a word. New flows get through.
fn drop_flow(net: Net, load: bool, to_b: bool, to_a: bool) -> Row {
    let mut pair = Pair::start(net, Setup::suspicious());
    pair.work(load);
    if !load {
        pair.hold();
    }
    let ports = pair.ports();
    pair.fault();
    for port in ports {
        if to_b {
            pair.net.rule(&format!("tcp sport {port} drop"));
        }
        if to_a {
            pair.net.rule(&format!("tcp dport {port} drop"));
        }
    }
    if !load {
        // Shorter than the pings need to see it: the votes themselves meet the hole.
        pair.pass(millis(50));
        pair.work(false);
    }
    pair.until_votes();
    pair.pass(SECOND);
    // Suspicion and a dial; one way only, two timeouts of the kernel.
    pair.finish(millis(500) + SLACK)
}

/// Nobody votes: the pings meet the hole, and the first vote finds a link that works.
pub(crate) fn drop_unused(net: Net) -> Result<Row, String> {
    let mut pair = Pair::start(net, Setup::suspicious());
    pair.work(false);
    pair.hold();
    for port in pair.ports() {
        pair.net.rule(&format!("tcp sport {port} drop"));
        pair.net.rule(&format!("tcp dport {port} drop"));
    }
    pair.fault();
    pair.pass(Setup::suspicious().path.ping_interval + SLACK);
    let row = pair.votes_at_once();
    assert!(row.reconnects >= 1, "nobody noticed");
    Ok(row)
}

pub(crate) fn drop_idle(net: Net) -> Result<Row, String> {
    Ok(drop_flow(net, false, true, true))
}

pub(crate) fn drop_load(net: Net) -> Result<Row, String> {
    Ok(drop_flow(net, true, true, true))
}

pub(crate) fn drop_idle_to_b(net: Net) -> Result<Row, String> {
    Ok(drop_flow(net, false, true, false))
}

pub(crate) fn drop_idle_to_a(net: Net) -> Result<Row, String> {
    Ok(drop_flow(net, false, false, true))
}

pub(crate) fn drop_load_to_b(net: Net) -> Result<Row, String> {
    Ok(drop_flow(net, true, true, false))
}

pub(crate) fn drop_load_to_a(net: Net) -> Result<Row, String> {
    Ok(drop_flow(net, true, false, true))
}

/// A flow that loses its large packets, one way, as where a tunnel cuts the MTU and ICMP is dropped: what the
/// other side says, and the acknowledgements of that, still come. Only the kernel's counters tell.
fn large_lost(net: Net, way: &str, load: bool) -> Row {
    let mut pair = Pair::start(net, Setup::suspicious());
    pair.work(false);
    let ports = pair.ports();
    pair.fault();
    for port in ports {
        pair.net.rule(&format!("tcp {way} {port} ip length > 600 drop"));
    }
    // Blocks fill the kernel's queue, and the writer meets that; letters do not.
    if load {
        pair.blocks(millis(50));
    } else {
        pair.letters(millis(100));
    }
    pair.until_votes();
    pair.pass(SECOND * 2);
    // The first two timeouts of the kernel come after 0.2 and 0.6 s.
    let row = pair.finish(millis(800) + SLACK);
    assert!(row.reconnects >= 1, "nobody noticed");
    row
}

pub(crate) fn large_lost_to_b(net: Net) -> Result<Row, String> {
    Ok(large_lost(net, "sport", false))
}

pub(crate) fn large_lost_to_b_load(net: Net) -> Result<Row, String> {
    Ok(large_lost(net, "sport", true))
}

pub(crate) fn large_lost_to_a(net: Net) -> Result<Row, String> {
    Ok(large_lost(net, "dport", false))
}

/// How long the whole path is gone.
const GONE: Duration = Duration::from_millis(1500);
/// How soon votes come when it is back: the longest wait between two dials by then, and a dial.
const BACK: Duration = Duration::from_millis(1300);

pub(crate) fn path_drop(net: Net) -> Result<Row, String> {
    let mut pair = Pair::start(net, Setup::fast());
    pair.work(true);
    pair.fault();
    pair.net.rule("drop");
    pair.pass(GONE);
    pair.net.no_rules();
    let gone = pair.since_fault();
    pair.until_votes();
    Ok(pair.finish(gone + BACK + SLACK))
}

fn flap(net: Net, load: bool) -> Row {
    let mut pair = Pair::start(net, Setup::fast());
    pair.work(load);
    pair.fault();
    pair.net.tool("ip", Place::Router, "link set to-b down");
    pair.pass(GONE);
    pair.net.tool("ip", Place::Router, "link set to-b up");
    let gone = pair.since_fault();
    pair.until_votes();
    pair.finish(gone + BACK + SLACK)
}

pub(crate) fn link_flap(net: Net) -> Result<Row, String> {
    Ok(flap(net, false))
}

pub(crate) fn link_flap_load(net: Net) -> Result<Row, String> {
    Ok(flap(net, true))
}

/// Resets, three times, to whoever sends what the rule matches.
fn resets(net: Net, load: bool, ways: &[&str]) -> Row {
    let mut pair = Pair::start(net, Setup::fast());
    pair.work(load);
    pair.fault();
    for _ in 0..3 {
        for port in pair.ports() {
            for way in ways {
                pair.net.rule(&format!("tcp {way} {port} reject with tcp reset"));
            }
        }
        pair.until_votes();
        pair.pass(millis(300));
    }
    let row = pair.finish(millis(500) + SLACK);
    assert!(row.reconnects >= 3, "{} reconnects: were there resets at all?", row.reconnects);
    row
}

pub(crate) fn reset_dialler(net: Net) -> Result<Row, String> {
    Ok(resets(net, false, &["sport"]))
}

pub(crate) fn reset_listener(net: Net) -> Result<Row, String> {
    Ok(resets(net, false, &["dport"]))
}

pub(crate) fn reset_both(net: Net) -> Result<Row, String> {
    Ok(resets(net, true, &["sport", "dport"]))
}

/// A path that loses packets for ever gets no better by replacements: so many are made for a peer in three
/// minutes, at most.
const REPLACEMENTS: usize = 6;

fn loss(net: Net, rule: &str, time: Duration) -> Row {
    let mut pair = Pair::start(net, Setup::default());
    pair.work(false);
    pair.blocks(millis(100));
    pair.fault();
    pair.net.rule(rule);
    pair.pass(time);
    pair.net.no_rules();
    pair.until_votes();
    // TCP waits 0.2, 0.4, 0.8 s between its own attempts; by then the link is suspect, and redialled.
    let row = pair.finish(Setup::default().path.dead_after + SLACK);
    assert!(row.replaced <= REPLACEMENTS, "{} replacements\n{}", row.replaced, pair.story());
    row
}

pub(crate) fn loss_5(net: Net) -> Result<Row, String> {
    Ok(loss(net, "numgen random mod 100 < 5 drop", SECOND * 7))
}

pub(crate) fn loss_5_for_three_minutes(net: Net) -> Result<Row, String> {
    Ok(loss(net, "numgen random mod 100 < 5 drop", SECOND * 180))
}

pub(crate) fn loss_10(net: Net) -> Result<Row, String> {
    Ok(loss(net, "numgen random mod 100 < 10 drop", SECOND * 7))
}

pub(crate) fn loss_one_way(net: Net) -> Result<Row, String> {
    Ok(loss(net, "oifname to-b numgen random mod 100 < 10 drop", SECOND * 7))
}

/// Blocks fill the link; votes go ahead of them, and nobody takes the slow link for a dead one.
pub(crate) fn narrow(net: Net) -> Result<Row, String> {
    let mut pair = Pair::start(net, Setup::default());
    for dev in ["to-a", "to-b"] {
        let tbf = format!("qdisc add dev {dev} root tbf rate 8mbit burst 16kb latency 50ms");
        pair.net.tool("tc", Place::Router, &tbf);
    }
    pair.vote(millis(20));
    // Three times what goes through.
    pair.blocks(millis(20));
    pair.pass(SECOND);
    pair.fault();
    pair.pass(SECOND * 5);
    pair.assert_untouched();
    Ok(pair.finish(millis(500) + SLACK / 2))
}
