//! Peers that take their time. All of them at once, for time is what they cost.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use unbroken::{BULK, EndCause, NORMAL};

use crate::handshake::{Greeted, greet_by_hand};
use crate::scene::{SLACK, Scene, chunk, goaway, in_stream, path, refusal, say};
use unbroken_test_support::numbered::message;
use unbroken_test_support::raw::{self, RawIdentity, preface_only};

const BEAT: Duration = Duration::from_millis(50);

#[test]
fn handshakes_have_a_deadline_whatever_progress_they_make() {
    let scene = Scene::set(|_| ());
    scene.row("silent, half a handshake, a preface or a HELLO byte by byte", || {
        let since = Instant::now();
        let who = scene.stranger();
        let silent = TcpStream::connect(scene.addr()).unwrap();
        let half = preface_only(scene.addr(), &who).unwrap();
        let mut slow = TcpStream::connect(scene.addr()).unwrap();
        let bytes = who.preface();
        // Proves who it is at once, and then greets as slowly.
        let greeter = scene.stranger();
        let Greeted { stream: mut greeting, mut seal, .. } = greet_by_hand(&scene, &greeter);
        let hello = seal(&raw::frame(raw::HELLO, &greeter.hello.encode()));
        // More slowly than the deadline, and never without progress.
        let mut next = bytes.iter().zip(hello.iter());
        let mut closed = false;
        while !closed && since.elapsed() < path().handshake_timeout + SLACK {
            let more = next.next();
            closed = more.is_none_or(|(byte, of_hello)| {
                slow.write_all(&[*byte]).is_err() && greeting.write_all(&[*of_hello]).is_err()
            });
            thread::sleep(BEAT);
        }
        for mut stream in [silent, half, slow, greeting] {
            let why = refusal(stream.local_addr().unwrap());
            assert_eq!(why, "the handshake timed out (by the library)");
            let _ = stream.read_to_end(&mut Vec::new());
        }
        let took = since.elapsed();
        assert!(took < path().handshake_timeout + SLACK, "{took:?}");
        assert!(took >= path().handshake_timeout, "{took:?}");
    });
}

#[test]
fn silence_and_trickles_end_and_late_answers_do_not() {
    let scene = Scene::set(|_| ());
    scene.row("silence, a frame of 1 MiB announced or trickled, late pongs", || {
        let since = Instant::now();
        let (half_open, _kept_1) = scene.joined();
        let (announcing, mut announcer) = scene.joined();
        say(&mut announcer, &[raw::CHUNK, 0x0a, 0, 0x10]);
        let (trickling, mut trickler) = scene.joined();
        let (late, mut talker) = scene.joined();
        let frame = chunk(BULK, 0, &[0; 100_000]);
        let mut bytes = frame.iter();
        let mut seq = 0;
        let mut offset = 0;
        let over = |who: &RawIdentity| {
            scene.node.look(|log| {
                log.count(
                    |event| matches!(event, unbroken::Event::Disconnected { peer, .. } if *peer == who.id()),
                ) > 0
            })
        };
        while [&half_open, &announcing, &trickling].iter().any(|who| !over(who))
            || since.elapsed() < path().dead_after + Duration::from_secs(1)
        {
            let byte = *bytes.next().unwrap();
            say(&mut trickler, &[byte]);
            // It answers no ping; what it says is a sign of life all the same.
            let bytes = in_stream(&message(0x1a7e, seq, 50));
            say(&mut talker, &chunk(NORMAL, offset, &bytes));
            (seq, offset) = (seq + 1, offset + bytes.len() as u64);
            assert!(since.elapsed() < path().dead_after + SLACK, "too late");
            thread::sleep(BEAT);
        }
        for who in [half_open, announcing, trickling] {
            assert_eq!(scene.end_of(&who).cause, EndCause::Dead);
        }
        assert!(!over(&late), "data is a sign of life");
        scene.node.wait_count(NORMAL, 0x1a7e, seq);
    });
}

#[test]
fn goodbyes_that_are_none() {
    let scene = Scene::set(|_| ());
    scene.row("a goodbye, and then a message", || {
        let late = [goaway(0), chunk(NORMAL, 0, &in_stream(b"late"))].concat();
        scene.protocol_error("a frame after GOAWAY", |raw| say(raw, &late));
    });
    scene.row("a goodbye, and then nothing, not even the end", || {
        let (who, mut raw) = scene.joined();
        let since = Instant::now();
        say(&mut raw, &goaway(0));
        assert_eq!(scene.end_of(&who).cause, EndCause::DrainTimeout);
        let took = since.elapsed();
        assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(1) + SLACK, "{took:?}");
    });
}
