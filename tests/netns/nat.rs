//! Real NATs: masquerading by the kernel's connection tracking, with its memory cut short.

use std::time::Duration;

use crate::net::Net;
use crate::pair::{Pair, SECOND, Setup, millis};
use crate::table::Row;
use unbroken::PathConfig;
use unbroken_test_support::cluster::calm_path;

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

/// Only the listener has something to say. It cannot dial into the NAT: its votes wait for the dialler's
/// ping.
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

/// A NAT that forgets sooner than the pings come.
struct Lesson {
    memory: u32,
    path: PathConfig,
    /// A connection that was replaced ends after that at the latest, and only its end teaches.
    drain_timeout: Duration,
    /// How often both idle after a has learned, and for how long.
    idles: u32,
    idle: Duration,
}

/// Idles until a has learned what the NAT remembers; from then on nobody notices the NAT.
fn learned(net: Net, lesson: Lesson) -> Result<Row, String> {
    let Lesson { memory, path, drain_timeout, idles, idle } = lesson;
    net.nat(memory, true)?;
    let (interval, memory) = (path.ping_interval, SECOND * memory);
    let mut pair = Pair::start(net, Setup { path, drain_timeout, ..Setup::default() });
    pair.fault();
    // A death is a silence of an interval, a suspicion, and the end of what was replaced.
    let patience = (interval + drain_timeout + SECOND * 2) * 4;
    let mut waited = Duration::ZERO;
    // An interval only just below what the NAT remembers may cost another death.
    let mut calm = Duration::ZERO;
    let mut deaths = 0;
    while pair.ping_interval() >= memory || calm < drain_timeout + memory * 2 {
        assert!(waited < patience, "nothing learned in {waited:?}\n{}", pair.story());
        pair.pass(millis(500));
        waited += millis(500);
        calm += millis(500);
        if pair.a.count("Suspect") > deaths {
            (deaths, calm) = (pair.a.count("Suspect"), Duration::ZERO);
        }
    }
    assert!((1..=3).contains(&deaths), "{deaths} deaths until it had learned\n{}", pair.story());
    assert!(pair.a.count("PingIntervalLearned") >= 1, "{}", pair.story());
    eprintln!("after {deaths} deaths a ping every {:?}", pair.ping_interval());
    pair.fault();
    for _ in 0..idles {
        pair.pass(idle);
        pair.work(false);
        pair.hold();
        assert_eq!(pair.net.remembered(), 1, "flows that the NAT knows");
    }
    pair.assert_untouched();
    assert!(pair.ping_interval() < memory, "{:?}", pair.ping_interval());
    Ok(pair.finish(millis(500) + SLACK / 2))
}

/// A NAT that forgets after 2 s of silence, and a ping every 4 s.
pub(crate) fn learned_soon(net: Net) -> Result<Row, String> {
    let path = PathConfig {
        ping_interval: SECOND * 4,
        dead_after: SECOND * 9,
        keepalive_time: SECOND * 60,
        ..calm_path()
    };
    learned(net, Lesson { memory: 2, path, drain_timeout: millis(300), idles: 3, idle: SECOND * 4 })
}

/// The first lesson, 0.6 x 21 s, is not enough. Whether that of 20 s were would be chance.
pub(crate) fn learned_12(net: Net) -> Result<Row, String> {
    let path = PathConfig {
        ping_interval: SECOND * 21,
        dead_after: SECOND * 45,
        keepalive_time: SECOND * 60,
        ..PathConfig::default()
    };
    let drain_timeout = Setup::default().drain_timeout;
    learned(net, Lesson { memory: 12, path, drain_timeout, idles: 12, idle: SECOND * 50 })
}

/// The defaults, in real time: a few votes every 51 s, each at once.
fn ten_minutes(net: Net, memory: u32) -> Result<Row, String> {
    net.nat(memory, true)?;
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

pub(crate) fn ten_minutes_30(net: Net) -> Result<Row, String> {
    ten_minutes(net, 30)
}

pub(crate) fn ten_minutes_12(net: Net) -> Result<Row, String> {
    ten_minutes(net, 12)
}
