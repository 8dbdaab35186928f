//! Identities, incarnations, slots and tokens: who is who, and which connection stays.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use unbroken::{BanTarget, Encryption, EndCause, Event, NORMAL, Outcome};

use crate::scene::{SLACK, Scene, ack, goaway, refusal, say};
use unbroken_test_support::cluster::{eventually, within};
use unbroken_test_support::raw::{self, Raw, encryption};

#[test]
fn one_identity_twice() {
    // Longer than a probe of the incumbent.
    let scene = Scene::set(|config| config.path.handshake_timeout = Duration::from_secs(5));
    scene.row("the same life again: the older connection goes", || {
        let mut who = scene.stranger();
        let mut first = scene.join(&who);
        who.hello.peer_session_id = Some(first.hello.session_id);
        who.hello.token += 1;
        let _second = scene.join(&who);
        loop {
            let (kind, body) = first.read_frame().unwrap();
            if kind == raw::GOAWAY {
                assert_eq!(body[0], 1, "replaced");
                break;
            }
        }
    });
    scene.row("another life, and the first one is half-open", || {
        let who = scene.stranger();
        let _first = scene.join(&who);
        let mut other = who.clone();
        (other.incarnation, other.hello.session_id) = (999, 999);
        let since = Instant::now();
        let newcomer = Raw::dial(scene.addr(), &other).unwrap();
        scene.node.wait_event("it is in", 0, |event| match event {
            Event::PeerRestarted { peer, .. } if *peer == who.id() => Some(()),
            _ => None,
        });
        assert_eq!(scene.end_of(&who).cause, EndCause::PeerRestarted);
        assert!(since.elapsed() < Duration::from_secs(1) + SLACK);
        drop(newcomer);
    });
    scene.row("200 connections of one identity, in all slots, with tokens of others", || {
        let mut who = scene.stranger();
        let mut kept = Vec::new();
        let mut most = 0;
        let foreign = scene.node.peer(scene.honest().id()).unwrap().connections.len() as u64;
        for count in 0..200u64 {
            who.hello.token = count / 2;
            who.hello.slot = (count % 3) as u8;
            who.hello.replaces = (count % 5 > 0).then_some(count.wrapping_mul(foreign) % 7);
            kept.extend(Raw::dial(scene.addr(), &who).ok());
            if let Some(last) = kept.last() {
                who.hello.peer_session_id = Some(last.hello.session_id);
            }
            if count % 10 == 0 {
                most = most.max(scene.node.snapshot().connections);
            }
        }
        // Six of them, and as many that have been refused and are not gone yet.
        assert!(most <= 1 + 6 + 6, "{most}");
        assert!(scene.node.peer(who.id()).unwrap().connections.len() <= 6);
    });
}

#[test]
fn another_life_is_refused_as_soon_as_the_first_one_answers() {
    // The handshake's deadline comes long before the first one would be suspected.
    let scene = Scene::set(|config| {
        config.path.suspect_after = Duration::from_secs(20);
        config.path.dead_after = Duration::from_secs(60);
    });
    scene.row("another life, and the first one answers", || {
        let who = scene.stranger();
        let mut first = scene.join(&who);
        let stop = AtomicBool::new(false);
        thread::scope(|threads| {
            let stream = first.stream.try_clone().unwrap();
            let answering = threads.spawn(|| {
                while let Ok((kind, body)) = first.read_frame() {
                    if kind == raw::PING && !stop.load(SeqCst) {
                        first.send(raw::PONG, &body).unwrap();
                    }
                }
            });
            let mut other = who.clone();
            (other.incarnation, other.hello.session_id) = (999, 999);
            let newcomer = Raw::dial(scene.addr(), &other);
            let connections = scene.node.peer(who.id()).unwrap().connections.len();
            stop.store(true, SeqCst);
            stream.shutdown(std::net::Shutdown::Both).unwrap();
            answering.join().unwrap();
            let refused = newcomer.err().unwrap().to_string();
            assert_eq!(refused, "refused, reason 4", "another process uses this identity");
            assert_eq!(connections, 1);
        });
    });
}

#[test]
fn resuming_with_lies() {
    let scene = Scene::set(|_| ());
    scene.row("resumes with less than it had acknowledged: it is held to its word", || {
        let mut who = scene.stranger();
        let mut raw = scene.join(&who);
        let receipt = scene.node.send(who.id(), (NORMAL, vec![1; 1_000])).unwrap();
        eventually("it was sent", || scene.node.peer(who.id()).unwrap().bytes_sent > 1_000);
        eventually("it is acknowledged", || {
            say(&mut raw, &ack(&[(1, 1_004, 1_004, 1 << 20)]));
            within(Duration::from_millis(20), || receipt.poll() == Some(Outcome::Taken))
        });
        raw.stream.shutdown(std::net::Shutdown::Both).unwrap();
        scene.end_of(&who);
        who.hello.peer_session_id = Some(raw.hello.session_id);
        scene.node.forget_events();
        let mut raw = scene.join(&who);
        let next = scene.node.send(who.id(), (NORMAL, "next")).unwrap();
        loop {
            let (kind, body) = raw.read_frame().unwrap();
            if kind == raw::CHUNK {
                assert_eq!(body[2..10], 1_004u64.to_le_bytes(), "it goes on where it was acknowledged");
                break;
            }
        }
        say(&mut raw, &ack(&[(1, 1_012, 1_012, 1 << 20)]));
        assert_eq!(next.wait_timeout(SLACK), Some(Outcome::Taken));
    });
    scene.row("forgets again and again; what is lost is told", || {
        let mut who = scene.stranger();
        let mut kept = vec![scene.join(&who)];
        let receipt = scene.node.send(who.id(), (NORMAL, vec![1; 1_000])).unwrap();
        eventually("it was sent", || scene.node.peer(who.id()).unwrap().bytes_sent > 1_000);
        for memory in 5_000..5_030 {
            // A memory it never had before: the node draws a new one too, and the next connection agrees.
            who.hello.session_id = memory;
            who.hello.peer_session_id = None;
            kept.extend(Raw::dial(scene.addr(), &who).ok());
        }
        assert!(matches!(receipt.wait_timeout(SLACK), Some(Outcome::Dropped(_))), "its fate is told");
        scene.node.wait_event("what was lost", 0, |event| match event {
            Event::Lost { peer, by_peer: true, messages: 1 } if *peer == who.id() => Some(()),
            _ => None,
        });
    });
}

#[test]
fn visits_for_nothing_lead_to_a_ban() {
    let scene = Scene::set(|config| config.conduct.threshold = 19);
    scene.row("comes, greets, leaves, in a loop", || {
        let from: IpAddr = [127, 0, 9, 9].into();
        let who = scene.stranger();
        let mut visits = 0;
        while let Ok(mut raw) = Raw::dial_from(from, scene.addr(), &who) {
            visits += 1;
            assert!(visits <= 12, "never banned");
            say(&mut raw, &goaway(0));
            // In order: with anything unread a close would be a reset, and that may be the network's fault.
            raw.stream.shutdown(std::net::Shutdown::Write).unwrap();
            while raw.read_frame().is_ok() {}
            let ended = |log: &unbroken_test_support::cluster::Log| {
                log.count(|event| matches!(event, Event::Disconnected { peer, .. } if *peer == who.id()))
            };
            eventually("the visit is over", || scene.node.look(ended) == visits);
        }
        assert!((10..=12).contains(&visits), "{visits} visits of two strikes each");
        let target = match encryption() {
            Encryption::Noise => BanTarget::Peer(who.id()),
            _ => BanTarget::Address(from),
        };
        assert_eq!(scene.node.bans()[0].who, target);
        assert!(scene.node.unban(target));
    });
}

#[test]
fn a_name_that_is_only_claimed_takes_nothing_over() {
    if encryption() == Encryption::Noise {
        return; // It cannot be claimed: see `only_the_invited.rs`.
    }
    let scene = Scene::set(|config| config.path.handshake_timeout = Duration::from_secs(5));
    scene.row("somebody claims the honest peer's name", || {
        let mut liar = scene.stranger();
        liar.secret = [0; 32];
        let claim = [scene.honest().id().as_bytes().as_slice(), &liar.incarnation.to_le_bytes()].concat();
        for _ in 0..3 {
            let mut stream = std::net::TcpStream::connect(scene.addr()).unwrap();
            use std::io::{Read, Write};
            stream.set_read_timeout(Some(SLACK)).unwrap();
            let hello = raw::frame(raw::HELLO, &liar.hello.encode());
            stream.write_all(&[liar.preface(), claim.clone(), hello].concat()).unwrap();
            let _ = stream.read_to_end(&mut Vec::new());
            let why = refusal(stream.local_addr().unwrap());
            assert!(why.contains("another process uses this identity"), "{why}");
        }
    });
}
