//! Promise 6: behind a NAT that forgets idle flows a link stays up, and its first send after any idle time
//! succeeds. Here ten times as fast; the default settings in real time are in `default_settings.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test: it fails by panicking, and it reads the real clock"
)]

use std::time::{Duration, Instant};

use unbroken::test_util::{CloseIdle, Faults, black_hole_supported};
use unbroken::{Config, ConnState, Event, PathConfig, PeerConfig, URGENT};
use unbroken_test_support::cluster::{Pair, Peer, all_taken, calm_path, eventually};
use unbroken_test_support::numbered::message;

/// A tenth of what the strictest NATs keep.
const MEMORY: Duration = Duration::from_secs(3);

fn calm(config: &mut Config) {
    config.path = calm_path();
}

fn behind_nat(memory: Duration, tune: impl Fn(&mut Config)) -> Pair {
    let pair = Pair::unconnected(&tune, &tune);
    pair.proxy.set(Faults { forget_idle: Some(memory), ..Faults::default() });
    pair.a.add_peer(PeerConfig::new(pair.proxy.addr().to_string())).unwrap();
    pair.wait_up();
    pair
}

fn only_conn(peer: &Peer, other: &Peer) -> unbroken::ConnSnapshot {
    let conns = peer.peer(other.id()).unwrap().connections;
    assert_eq!(conns.len(), 1, "{conns:#?}");
    conns[0].clone()
}

#[test]
fn an_idle_link_outlives_the_memory_of_its_nat() {
    if !black_hole_supported() {
        return unbroken_test_support::cluster::skip("no TCP_MD5SIG, no forgetful NAT");
    }
    let pair = behind_nat(MEMORY, calm);
    let (a, b) = (&pair.a, &pair.b);
    let (of_a, of_b) = (only_conn(a, b), only_conn(b, a));
    // Time itself is what is tested: nothing is sent for four times the NAT's memory.
    let forgotten = pair.proxy.wait_until(MEMORY * 4, |stats| stats.forgotten > 0);
    assert!(!forgotten, "the NAT has forgotten the flow");
    for (seq, (from, to)) in [(a, b), (b, a)].into_iter().enumerate() {
        let start = Instant::now();
        let vote = from.send(to.id(), (URGENT, message(seq as u64, 0, 64))).unwrap();
        all_taken(&[vote]);
        println!("the first vote after {:?} of idling took {:?}", MEMORY * 4, start.elapsed());
        // Not by a new connection, nor by luck: the one of before, and it was never even suspected.
        let ended = from.look(|log| {
            log.count(|event| matches!(event, Event::Disconnected { .. } | Event::Suspect { .. }))
        });
        assert_eq!(ended, 0, "{:?}", from.peers());
    }
    let (now_a, now_b) = (only_conn(a, b), only_conn(b, a));
    assert_eq!((now_a.id, now_b.id), (of_a.id, of_b.id));
    assert_eq!((now_a.state, now_b.state), (ConnState::Up, ConnState::Up));
    assert!(now_a.age_ms > (MEMORY * 4).as_secs_f64() * 1000.0);
    assert_eq!(a.peer(b.id()).unwrap().reconnects, 0);
}

#[test]
fn where_pings_come_too_seldom_the_kernel_keeps_the_flow_alive() {
    if !black_hole_supported() {
        return unbroken_test_support::cluster::skip("no TCP_MD5SIG, no forgetful NAT");
    }
    // An application may set a slow ping; keepalive alone has to do then.
    let pair = behind_nat(MEMORY, |config| {
        calm(config);
        config.path.ping_interval = Duration::from_secs(60);
        config.path.dead_after = Duration::from_secs(120);
    });
    assert!(!pair.proxy.wait_until(MEMORY * 3, |stats| stats.forgotten > 0), "the flow was forgotten");
    let vote = pair.a.send(pair.b.id(), (URGENT, message(1, 0, 64))).unwrap();
    all_taken(&[vote]);
    assert_eq!(pair.a.peer(pair.b.id()).unwrap().reconnects, 0);
}

#[test]
fn a_nat_that_forgets_sooner_than_pings_come_loses_no_message() {
    if !black_hole_supported() {
        return unbroken_test_support::cluster::skip("no TCP_MD5SIG, no forgetful NAT");
    }
    let pair = behind_nat(Duration::from_millis(400), |config| {
        calm(config);
        config.path.suspect_after = Duration::from_millis(300);
    });
    let (a, b) = (&pair.a, &pair.b);
    for seq in 0..4 {
        let forgotten = pair.proxy.stats().forgotten;
        eventually("the flow is forgotten", || pair.proxy.stats().forgotten > forgotten);
        let votes = [
            a.send(b.id(), (URGENT, message(1, seq, 64))).unwrap(),
            b.send(a.id(), (URGENT, message(2, seq, 64))).unwrap(),
        ];
        all_taken(&votes);
    }
    a.check(4);
    b.check(4);
}

/// Idles behind a middlebox that announces its timeout, until pings come often enough, and for `calm` from
/// then on.
fn timeout_is_learned(after: Duration, reset: bool, path: PathConfig, calm: Duration) {
    let tune = |config: &mut Config| config.path = path.clone();
    let pair = Pair::unconnected(tune, tune);
    pair.proxy.set(Faults { close_idle: Some(CloseIdle { after, reset }), ..Faults::default() });
    pair.a.add_peer(PeerConfig::new(pair.proxy.addr().to_string())).unwrap();
    pair.wait_up();
    let interval = || pair.a.peer(pair.b.id()).and_then(|peer| peer.ping_interval_ms);
    let most = after.as_secs_f64() * 1000.0;
    eventually("the timeout is learned", || interval().is_some_and(|interval| interval < most));
    eventually("a connection after the last flap", || pair.proxy.flows() == 1);
    let flaps = pair.proxy.stats().timed_out;
    println!("{after:?}, by {}: learned after {flaps} flaps", if reset { "RST" } else { "FIN" });
    assert!((1..=3).contains(&flaps), "{flaps} flaps");
    assert!(!pair.proxy.wait_until(calm, |stats| stats.timed_out > flaps), "closed again after the lesson");
    let votes = [(&pair.a, &pair.b), (&pair.b, &pair.a)]
        .map(|(from, to)| from.send(to.id(), (URGENT, message(1, 0, 64))).unwrap());
    all_taken(&votes);
}

/// Each timeout, announced by FIN and by RST, side by side.
fn timeouts_are_learned(timeouts: [Duration; 2], path: &PathConfig, calm: Duration) {
    std::thread::scope(|scope| {
        for after in timeouts {
            for reset in [false, true] {
                scope.spawn(move || timeout_is_learned(after, reset, path.clone(), calm));
            }
        }
    });
}

#[test]
fn an_idle_timeout_that_is_announced_is_learned() {
    // Pings then come after 0.6 of the timeout. A busy machine has the rest for a late one.
    let timeouts = [1200, 1800].map(Duration::from_millis);
    let path = PathConfig {
        ping_interval: Duration::from_secs(4),
        dead_after: Duration::from_secs(8),
        ..calm_path()
    };
    timeouts_are_learned(timeouts, &path, Duration::from_secs(6));
}

#[test]
#[ignore = "ten minutes behind idle timeouts of 5 and 8 s, with the default settings"]
fn an_idle_timeout_that_is_announced_is_learned_in_real_time() {
    timeouts_are_learned([5, 8].map(Duration::from_secs), &PathConfig::default(), Duration::from_secs(600));
}
