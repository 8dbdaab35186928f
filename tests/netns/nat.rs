//! Real NATs: masquerading by the kernel's connection tracking, with its memory cut short.

use std::time::Duration;

use crate::net::Net;
use crate::pair::{Pair, SECOND, Setup, millis};
use crate::support::cluster::calm_path;
use crate::table::Row;
use unbroken::PathConfig;

/// A tenth of what the strictest NATs keep.
const MEMORY: u32 = 3;
const SLACK: Duration = Duration::from_secs(1);

/// Idles for longer than the NAT remembers, votes, and again: pings keep the flow alive.
fn outlived(net: Net, drop_invalid: bool) -> Result<Row, String> {
    net.nat(MEMORY, drop_invalid)?;
    let mut pair = Pair::start(net, Setup::default());
    pair.fault();
    for _ in 0..2 {
        pair.pass(millis(4000));
        pair.work(false);
        pair.hold();
        assert_eq!(pair.net.remembered(), 1, "flows that the NAT knows");
    }
    pair.assert_untouched();
    let row = pair.finish(millis(500) + SLACK / 2);
    assert_eq!(row.reconnects, 0);
    Ok(row)
}

pub(crate) fn outlived_silent(net: Net) -> Result<Row, String> {
    outlived(net, true)
}

pub(crate) fn outlived_open(net: Net) -> Result<Row, String> {
    outlived(net, false)
}

/// Pings that come too seldom for a NAT of one second.
fn seldom() -> Setup {
    let path = PathConfig {
        ping_interval: SECOND * 4,
        dead_after: SECOND * 8,
        keepalive_time: SECOND * 60,
        suspect_after: millis(200),
        ..calm_path()
    };
    Setup { path, ..Setup::default() }
}

/// The NAT forgets, and the next votes meet that.
fn forgotten(net: Net, drop_invalid: bool) -> Result<Row, String> {
    net.nat(1, drop_invalid)?;
    let mut pair = Pair::start(net, seldom());
    pair.work(false);
    pair.hold();
    pair.fault();
    for _ in 0..2 {
        // The pings begin with the silence: these are between two of them.
        pair.pass(millis(2500));
        pair.work(false);
        pair.hold();
    }
    let row = pair.finish(millis(200 + 500) + SLACK);
    assert!(row.reconnects >= 1, "the NAT forgot nothing");
    Ok(row)
}

pub(crate) fn forgotten_silent(net: Net) -> Result<Row, String> {
    forgotten(net, true)
}

pub(crate) fn forgotten_open(net: Net) -> Result<Row, String> {
    forgotten(net, false)
}

/// Only the listener has something to say. It cannot dial into the NAT: its votes wait for the dialler's ping.
pub(crate) fn forgotten_to_a(net: Net) -> Result<Row, String> {
    net.nat(1, true)?;
    let mut pair = Pair::start(net, seldom());
    pair.work(false);
    pair.hold();
    pair.pass(millis(2500));
    pair.fault();
    pair.b_votes();
    let row = pair.finish(SECOND * 4 + millis(200 + 500) + SLACK);
    assert!(row.reconnects >= 1, "the NAT forgot nothing");
    Ok(row)
}

/// The NAT loses its memory while both vote and send blocks.
fn reboot(net: Net, drop_invalid: bool) -> Result<Row, String> {
    net.nat(60, drop_invalid)?;
    let mut pair = Pair::start(net, Setup::fast());
    pair.work(true);
    pair.fault();
    for _ in 0..3 {
        pair.net.forget();
        pair.until_votes();
        pair.pass(millis(500));
    }
    let row = pair.finish(millis(500) + SLACK);
    assert!(row.reconnects >= 3, "{} reconnects: did the NAT forget at all?", row.reconnects);
    Ok(row)
}

pub(crate) fn reboot_silent(net: Net) -> Result<Row, String> {
    reboot(net, true)
}

pub(crate) fn reboot_open(net: Net) -> Result<Row, String> {
    reboot(net, false)
}

/// The defaults, in real time: a few votes every 51 s, each at once.
pub(crate) fn ten_minutes(net: Net) -> Result<Row, String> {
    net.nat(30, true)?;
    let mut pair = Pair::start(net, Setup { path: PathConfig::default(), ..Setup::default() });
    pair.fault();
    for _ in 0..12 {
        pair.pass(SECOND * 50);
        pair.work(false);
        pair.hold();
    }
    pair.assert_untouched();
    let row = pair.finish(millis(900));
    assert_eq!(row.reconnects, 0);
    Ok(row)
}
