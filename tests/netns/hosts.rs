//! Faults of hosts: processes that stand still or die, and addresses that change.

use std::time::Duration;

use crate::net::{B, B_LATER, Net, PORT, Place};
use crate::pair::{Pair, Setup, millis};
use crate::table::Row;

const SLACK: Duration = Duration::from_secs(1);
/// Longer than `dead_after`.
const FROZEN: Duration = Duration::from_secs(3);
const NAME: &str = "bob.test";

fn frozen(net: Net, place: Place) -> Row {
    let mut pair = Pair::start(net, Setup::fast());
    pair.work(false);
    let host = |pair: &mut Pair, freeze: bool| {
        let host = if place == Place::A { &mut pair.a } else { &mut pair.b };
        let done = if freeze { host.child().freeze() } else { host.child().thaw() };
        done.expect("a signal");
    };
    pair.fault();
    host(&mut pair, true);
    pair.pass(FROZEN);
    host(&mut pair, false);
    pair.until_votes();
    // By then dials have met a kernel that answers and a process that does not.
    pair.finish(FROZEN + millis(1500) + SLACK)
}

pub(crate) fn frozen_listener(net: Net) -> Result<Row, String> {
    Ok(frozen(net, Place::B))
}

pub(crate) fn frozen_dialler(net: Net) -> Result<Row, String> {
    Ok(frozen(net, Place::A))
}

/// How long a process is gone.
const DEAD: Duration = Duration::from_millis(500);

fn kill(pair: &mut Pair, place: Place) {
    let (host, other) =
        if place == Place::A { (&mut pair.a, &mut pair.b) } else { (&mut pair.b, &mut pair.a) };
    host.kill(&mut other.votes);
}

fn killed(net: Net, place: Place, load: bool) -> Row {
    let mut pair = Pair::start(net, Setup::fast());
    pair.work(load);
    pair.fault();
    kill(&mut pair, place);
    pair.pass(DEAD);
    pair.restart(place);
    pair.until_votes();
    pair.finish(DEAD + millis(1000) + SLACK)
}

pub(crate) fn killed_listener(net: Net) -> Result<Row, String> {
    Ok(killed(net, Place::B, false))
}

pub(crate) fn killed_dialler(net: Net) -> Result<Row, String> {
    Ok(killed(net, Place::A, false))
}

pub(crate) fn killed_under_load(net: Net) -> Result<Row, String> {
    Ok(killed(net, Place::B, true))
}

fn moves(pair: &Pair) {
    pair.net.tool("ip", Place::B, &format!("addr add {B_LATER}/24 dev eth0"));
    pair.net.tool("ip", Place::B, &format!("addr del {B}/24 dev eth0"));
    // Removing the first address of a subnet may take the others, and routes, with it.
    pair.net.tool("ip", Place::B, &format!("addr replace {B_LATER}/24 dev eth0"));
    pair.net.tool("ip", Place::B, "route replace default via 10.77.2.1");
}

fn by_name(net: Net) -> Result<Pair, String> {
    net.hosts(Place::A, &format!("{B} {NAME}"))?;
    let setup = Setup { addresses: vec![format!("{NAME}:{PORT}")], ..Setup::fast() };
    let mut pair = Pair::start(net, setup);
    pair.work(false);
    Ok(pair)
}

/// The process lives on, and its machine gets another address, which its name says a little later.
pub(crate) fn moved_by_name(net: Net) -> Result<Row, String> {
    let mut pair = by_name(net)?;
    pair.fault();
    moves(&pair);
    pair.pass(millis(300));
    pair.net.hosts(Place::A, &format!("{B_LATER} {NAME}"))?;
    pair.until_votes();
    // A dial to where it is no longer may have to end first.
    Ok(pair.finish(millis(300 + 500 + 500) + SLACK))
}

pub(crate) fn moved_by_list(net: Net) -> Result<Row, String> {
    let addresses = [B, B_LATER].map(|addr| format!("{addr}:{PORT}")).to_vec();
    let mut pair = Pair::start(net, Setup { addresses, ..Setup::fast() });
    pair.work(false);
    pair.fault();
    moves(&pair);
    pair.until_votes();
    Ok(pair.finish(millis(500 + 1000) + SLACK))
}

pub(crate) fn restarted_elsewhere(net: Net) -> Result<Row, String> {
    let mut pair = by_name(net)?;
    pair.fault();
    kill(&mut pair, Place::B);
    moves(&pair);
    pair.net.hosts(Place::A, &format!("{B_LATER} {NAME}"))?;
    pair.pass(DEAD);
    pair.restart(Place::B);
    pair.until_votes();
    Ok(pair.finish(DEAD + millis(500 + 1000) + SLACK))
}
