//! Promise 8: a connection that is in trouble, too old, or not wanted any longer gets a successor while it
//! still serves. The application sees no gap.

#![cfg(target_os = "linux")] // As the fault proxy is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test: it fails by panicking, and it reads the real clock"
)]

use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use unbroken::test_util::{Direction, Faults, Ways, black_hole_supported};
use unbroken::{BULK, Config, EndCause, Event, NORMAL, PeerConfig, URGENT};
use unbroken_test_support::cluster::{
    Log, Pair, Peer, TIMEOUT, all_taken, builder, calm_path, eventually, flood, link_was_down, only_conn,
    skip, within,
};
use unbroken_test_support::numbered::message;
use unbroken_test_support::raw::{self, Raw, RawIdentity};

const MIB: usize = 1 << 20;

fn calm(config: &mut Config) {
    config.path = calm_path();
    config.max_replacements_per_minute = 100_000;
}

/// One connection has two ends, and both ask at once.
#[test]
fn both_sides_ask_at_once() {
    let pair = Pair::start_each(
        |config| {
            calm(config);
            config.listen = vec![unbroken_test_support::cluster::any_addr()];
        },
        calm,
    );
    let (a, b) = (&pair.a, &pair.b);
    b.add_peer(PeerConfig::new(unbroken_test_support::cluster::first_addr(a).to_string())).unwrap();
    // Before it has answered there once `b` does not know that this is `a`.
    let blocks = flood(a, b.id(), NORMAL, 1, 2000, |_| 20_000);
    for _ in 0..30 {
        let old = (only_conn(a, b), only_conn(b, a));
        thread::scope(|scope| {
            scope.spawn(|| a.replace(b.id()));
            scope.spawn(|| b.replace(a.id()));
        });
        eventually("another one", || only_conn(a, b) != old.0 && only_conn(b, a) != old.1);
    }
    all_taken(&blocks.join().unwrap());
    b.check(2000);
}

#[test]
fn without_a_successor_the_old_one_stays() {
    let pair = Pair::start(calm);
    let (a, b) = (&pair.a, &pair.b);
    let old = only_conn(a, b);
    let mark = a.mark();
    pair.proxy.update(|faults| faults.refuse = true);
    a.replace(b.id()).unwrap();
    a.wait("three dials that failed", |log| {
        let failed = |(_, event): &&(Instant, Event)| matches!(event, Event::DialFailed { .. });
        (log.events.iter().skip(mark).filter(failed).count() >= 3).then_some(())
    });
    all_taken(&[a.send(b.id(), (URGENT, message(1, 0, 64))).unwrap()]);
    assert_eq!(only_conn(a, b), old);
    assert!(!link_was_down(a, mark));
    pair.proxy.update(|faults| faults.refuse = false);
    eventually("a successor", || only_conn(a, b) != old);
    assert!(!link_was_down(a, mark));
    b.check(1);
}

/// The newcomer's path breaks during its handshake, or before its first ping was answered: the incumbent must
/// not be drained for it.
#[test]
fn a_successor_that_is_cut_takes_nothing_over_before_it_has_proved_itself() {
    let pair = Pair::start(calm);
    let (a, b) = (&pair.a, &pair.b);
    // In plaintext the handshake has about 270 bytes, encrypted about 450.
    let sizes = [50, 150, 250, 260, 270, 280, 290, 420, 430, 440, 450, 460, 470, 480, 490, 500];
    for (round, bytes) in sizes.into_iter().enumerate() {
        let (old, mark, of_b, cut) = (only_conn(a, b), a.mark(), b.mark(), pair.proxy.stats().cut);
        pair.proxy.cut_after(Direction::ToTarget, bytes);
        // Nobody else comes through: what stays is the incumbent, or nothing.
        a.replace(b.id()).unwrap();
        assert!(pair.proxy.wait_until(TIMEOUT, |stats| stats.cut > cut));
        all_taken(&[a.send(b.id(), (URGENT, message(1, round as u64, 64))).unwrap()]);
        eventually("a second try succeeds", || only_conn(a, b) != old);
        // If it was cut after its first answer, to either side, the incumbent was gone already.
        let count = |peer: &Peer, mark: usize, which: fn(&Event) -> bool| {
            peer.look(|log| log.events.iter().skip(mark).filter(|(_, event)| which(event)).count())
        };
        let replaced = |event: &Event| matches!(event, Event::Replaced { .. });
        let replaced = count(a, mark, replaced).max(count(b, of_b, replaced));
        let down = link_was_down(a, mark);
        let story = || [a, b].map(|peer| peer.look(Log::story)).concat();
        assert!(replaced > 0 || !down, "cut after {bytes}\n{}", story());
    }
    b.check(sizes.len() as u64);
}

/// Answers pings and acknowledges votes until the connection ends.
fn be_honest(mut raw: Raw) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        while let Ok((kind, body)) = raw.read_frame() {
            let said = match kind {
                raw::PING => raw.send(raw::PONG, &body),
                raw::CHUNK => {
                    let have = u64::from_le_bytes(body[2..10].try_into().unwrap()) + body.len() as u64 - 10;
                    raw.send(raw::ACK, &raw::encode_states(&[(body[0], have, have, 1 << 20)]))
                }
                _ => Ok(()),
            };
            if said.is_err() {
                break;
            }
        }
    })
}

#[test]
fn a_successor_that_joins_and_answers_nothing_takes_nothing_over() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut who = RawIdentity::new(1, 1 << 20);
    let address = format!("{}@{}", who.id(), listener.local_addr().unwrap());
    let a = Peer::start(builder(calm).peer(address));
    let accept = |who: &RawIdentity, mark: usize| {
        // One that was dialled meanwhile may have been given up already.
        let raw = (0..10).find_map(|_| Raw::accept(&listener, who).ok()).unwrap();
        let conn = a.wait("it joins", |log| {
            log.events.iter().skip(mark).find_map(|(_, event)| match event {
                Event::Connected { conn, .. } => Some(*conn),
                _ => None,
            })
        });
        (raw, conn)
    };
    let (first, old) = accept(&who, 0);
    who.hello.peer_session_id = Some(first.hello.session_id);
    let first = be_honest(first);
    a.wait_up(who.id());
    let mark = a.mark();
    a.replace(who.id()).unwrap();
    let (silent, newcomer) = accept(&who, mark);
    assert!(silent.hello.replaces.is_some());
    let end = a.wait("the end of the silent one", |log| {
        log.events.iter().skip(mark).find_map(|(_, event)| match event {
            Event::Disconnected { conn, reason, .. } => Some((*conn, reason.cause.clone())),
            _ => None,
        })
    });
    // It is given up because it is dead, or because the old one answers and it does not: then it is drained,
    // in vain.
    assert_eq!(end.0, newcomer);
    assert!(matches!(end.1, EndCause::Dead | EndCause::DrainTimeout), "{end:?}");
    // All the while the old one serves.
    all_taken(&[a.send(who.id(), (URGENT, message(1, 0, 64))).unwrap()]);
    assert!(!link_was_down(&a, mark));
    let replaced = |event: &Event| matches!(event, Event::Replaced { .. });
    assert_eq!(a.look(|log| log.count(replaced)), 0);
    // From now on everyone answers. One that was dialled meanwhile may be at the end of its time.
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(SeqCst) {
                drop(Raw::accept(&listener, &who).map(be_honest));
            }
        });
        a.wait("an honest one takes over", |log| {
            let is = |event: &Event| matches!(event, Event::Replaced { old: from, .. } if *from == old);
            (log.count(is) == 1).then_some(())
        });
        over.store(true, SeqCst);
        drop(TcpStream::connect(listener.local_addr().unwrap()));
    });
    drop((a, silent));
    first.join().unwrap();
}

#[test]
fn a_suspect_connection_is_replaced_before_it_dies() {
    if !black_hole_supported() {
        return skip("no TCP_MD5SIG, no black hole");
    }
    // From suspicion to death a busy machine has some seconds for the handshake of the successor.
    let pair = Pair::start(|config| {
        calm(config);
        config.path.dead_after = Duration::from_secs(10);
        config.drain_timeout = Duration::from_millis(500);
    });
    let (a, b) = (&pair.a, &pair.b);
    for round in 0..5 {
        let old = only_conn(a, b);
        let mark = a.mark();
        // Connections that exist go into a black hole; new ones are served.
        assert!(pair.proxy.black_hole());
        let vote = a.send(b.id(), (URGENT, message(1, round, 64))).unwrap();
        all_taken(&[vote]);
        let new = a.wait("a successor before the end of the old one", |log| {
            let mut events = log.events.iter().skip(mark);
            let found = events.find_map(|(_, event)| match event {
                Event::Connected { conn, .. } => Some(Ok(*conn)),
                Event::Disconnected { conn, .. } if *conn == old => Some(Err(*conn)),
                _ => None,
            });
            found.map(|first| first.unwrap_or_else(|conn| panic!("{conn} ended first\n{}", log.story())))
        });
        assert_ne!(new, old);
        a.wait_event("the end of the old one", mark, |event| match event {
            Event::Disconnected { conn, .. } if *conn == old => Some(()),
            _ => None,
        });
        let down = |event: &Event| matches!(event, Event::LinkDown { .. });
        a.look(|log| assert_eq!(log.count(down), 0));
    }
    b.check(5);
}

#[test]
fn old_age_is_no_gap() {
    let pair = Pair::start(|config| {
        calm(config);
        config.path.max_age = Some(config.path.dead_after * 3 / 2);
    });
    let (a, b) = (&pair.a, &pair.b);
    let mark = a.mark();
    let blocks = flood(a, b.id(), NORMAL, 1, 3000, |_| 30_000);
    let votes = flood(b, a.id(), URGENT, 2, 3000, |_| 64);
    a.wait("three connections came and went", |log| {
        (log.count(|event| matches!(event, Event::Disconnected { .. })) >= 3).then_some(())
    });
    all_taken(&blocks.join().unwrap());
    all_taken(&votes.join().unwrap());
    assert!(!link_was_down(a, mark));
    b.check(3000);
    a.check(3000);
}

#[test]
fn there_is_never_a_storm() {
    let pair = Pair::start(|config| {
        config.path = calm_path();
        config.max_replacements_per_minute = 3;
    });
    let (a, b) = (&pair.a, &pair.b);
    for _ in 0..3 {
        let old = only_conn(a, b);
        a.replace(b.id()).unwrap();
        eventually("a successor", || only_conn(a, b) != old);
    }
    for peer in [a.peer(b.id()), b.peer(a.id())] {
        assert_eq!(peer.unwrap().last_error, None, "a successor is no error");
    }
    let (old, accepted) = (only_conn(a, b), pair.proxy.accepted());
    for _ in 0..100 {
        a.replace(b.id()).unwrap();
    }
    assert!(!within(Duration::from_secs(2), || pair.proxy.accepted() > accepted));
    assert_eq!(only_conn(a, b), old);
    // A reconnect is no replacement.
    pair.proxy.reset_all();
    eventually("a new one at once", || only_conn(a, b) != old);
}

/// 300 ms of round trip, and a link of 1 MB/s with a queue before it, saturated: slow, and nothing is wrong.
#[test]
fn slow_and_busy_is_no_reason() {
    for (delay, rate) in [(150, None), (1, Some(1_000_000))] {
        let pair = Pair::start(|config| {
            config.path.suspect_after = Duration::from_secs(1);
            config.path.ping_interval = Duration::from_millis(300);
            config.path.write_timeout = Duration::from_secs(5);
            config.path.dead_after = Duration::from_secs(5);
        });
        pair.proxy.set(Faults {
            delay: Ways::both(Duration::from_millis(delay)),
            rate: Ways::both(rate),
            recv_buffer: Some(128 * 1024),
            ..Faults::default()
        });
        let (a, b) = (&pair.a, &pair.b);
        let fast = only_conn(a, b);
        pair.proxy.reset_all();
        eventually("a connection of the slow kind", || only_conn(a, b) != fast);
        let slow = only_conn(a, b);
        let mark = a.mark();
        let blocks = flood(a, b.id(), BULK, 1, 6, |_| MIB);
        all_taken(&blocks.join().unwrap());
        assert_eq!(only_conn(a, b), slow, "{}", [a, b].map(|peer| peer.look(Log::story)).concat());
        a.look(|log| {
            let troubled = |event: &Event| matches!(event, Event::Suspect { .. } | Event::Replacing { .. });
            let troubled: Vec<_> =
                log.events.iter().skip(mark).filter(|(_, event)| troubled(event)).collect();
            assert!(troubled.is_empty(), "{troubled:?}");
        });
        b.check(6);
    }
}
