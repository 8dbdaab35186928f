//! Credit and acknowledgements that lie.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;
use unbroken::{EndCause, NORMAL, Outcome, Outgoing, PeerConfig, SendErrorKind, URGENT};

use crate::scene::{CREDIT, SLACK, Scene, ack, chunk, in_stream, say};
use unbroken_test_support::cluster::within;
use unbroken_test_support::numbered::message;
use unbroken_test_support::raw::{self, Raw};

fn small(config: &mut unbroken::Config) {
    let lane = &mut config.lanes[1];
    (lane.max_message, lane.window, lane.max_untaken, lane.queue) = (60_000, 128 << 10, 100, 256 << 10);
}

/// Reads on until the chunks of this lane reach so far.
fn read_up_to(raw: &mut Raw, lane: u8, end: u64) {
    loop {
        let (kind, body) = raw.read_frame().unwrap();
        if kind == raw::CHUNK && body[0] == lane {
            let offset = u64::from_le_bytes(body[2..10].try_into().unwrap());
            if offset + (body.len() as u64 - 10) >= end {
                return;
            }
        }
    }
}

#[test]
fn more_than_the_credit() {
    let scene = Scene::set(small);
    scene.row("bytes past the credit", || {
        let cause = scene.end_for(|raw| say(raw, &chunk(NORMAL, 0, &vec![0; 200_000])));
        assert!(
            matches!(&cause, EndCause::CreditOverrun(text) if text.contains("with credit up to")),
            "{cause}"
        );
    });
    scene.row("messages past those that may be untaken", || {
        let cause = scene.end_for(|raw| say(raw, &chunk(NORMAL, 0, &in_stream(&[]).repeat(500))));
        assert!(
            matches!(&cause, EndCause::CreditOverrun(text) if text.contains("more than 100 messages")),
            "{cause}"
        );
    });
    scene.row("a message that never ends", || {
        let (who, mut raw) = scene.joined();
        say(&mut raw, &chunk(NORMAL, 0, &[&60_000u32.to_le_bytes()[..], &[1; 30_000]].concat()));
        let held = || scene.node.peer(who.id()).map(|peer| peer.lanes[1].inbox_bytes);
        assert!(within(SLACK, || held() == Some(30_004)), "no more is held than was sent");
    });
}

#[test]
fn acknowledgements_that_lie() {
    let scene = Scene::set(small);
    scene.row("what was never sent is acknowledged; nothing is forgotten", || {
        let mut who = scene.stranger();
        let mut raw = scene.join(&who);
        let receipt = scene.node.send(who.id(), (NORMAL, vec![5; 1_000])).unwrap();
        read_up_to(&mut raw, 1, 1_004);
        say(&mut raw, &ack(&[(1, 1_000_000, 1_000_000, 2_000_000)]));
        let cause = scene.end_of(&who).cause;
        assert!(
            matches!(&cause, EndCause::Protocol(text) if text.contains("but only 1004 were sent")),
            "{cause}"
        );
        assert_eq!(receipt.poll(), None, "on the word of a liar nothing is forgotten");
        who.hello.peer_session_id = Some(raw.hello.session_id);
        scene.node.forget_events();
        let mut raw = scene.join(&who);
        read_up_to(&mut raw, 1, 1_004);
        // Backwards, repeated, and the limit shrinks: all of that is an older state that came late.
        let newest = (1, 1_004, 1_004, CREDIT);
        say(&mut raw, &ack(&[newest, (1, 1_004, 0, 0), (1, 1_004, 1_004, 400_000), newest]));
        assert_eq!(receipt.wait_timeout(SLACK), Some(Outcome::Taken));
        let receipt = scene.node.send(who.id(), (NORMAL, "more")).unwrap();
        read_up_to(&mut raw, 1, 1_012);
        say(&mut raw, &ack(&[(1, 1_012, 1_012, CREDIT)]));
        assert_eq!(receipt.wait_timeout(SLACK), Some(Outcome::Taken));
    });
    for (what, state) in [
        ("taken before it was received", (1, 0, 5, 2_000_000)),
        ("newer in one number and older in another", (1, 1_004, 0, 1)),
    ] {
        scene.row(what, || {
            let (who, mut raw) = scene.joined();
            let receipt = scene.node.send(who.id(), (NORMAL, vec![5; 1_000])).unwrap();
            read_up_to(&mut raw, 1, 1_004);
            say(&mut raw, &ack(&[state]));
            let cause = scene.end_of(&who).cause;
            assert!(matches!(&cause, EndCause::Protocol(text) if text.contains("acknowledge")), "{cause}");
            assert_eq!(receipt.poll(), None);
        });
    }
    scene.row("credit without an end", || {
        let (who, mut raw) = scene.joined();
        say(&mut raw, &ack(&[(1, 0, 0, u64::MAX)]));
        let receipt = scene.node.send(who.id(), (NORMAL, vec![5; 50_000])).unwrap();
        read_up_to(&mut raw, 1, 50_004);
        say(&mut raw, &ack(&[(1, 50_004, 50_004, u64::MAX)]));
        assert_eq!(receipt.wait_timeout(SLACK), Some(Outcome::Taken));
    });
    scene.row("credit withheld for ever on one lane", || {
        let mut who = scene.stranger();
        who.hello.lanes[1].limit = 0;
        let mut raw = scene.join(&who);
        let short = Outgoing::new(NORMAL, vec![1; 1_000]).expires_in(Duration::from_millis(100));
        let short = scene.node.send(who.id(), short).unwrap();
        // The queue fills and says so; the bytes in it are bounded.
        let mut accepted = 0;
        let error = loop {
            match scene.node.try_send(who.id(), (NORMAL, vec![1; 50_000])) {
                Ok(_) => accepted += 1,
                Err(error) => break error,
            }
        };
        assert_eq!((error.kind(), accepted), (&SendErrorKind::Full, 5));
        assert_eq!(short.wait_timeout(SLACK), Some(Outcome::Expired));
        let vote = scene.node.send(who.id(), (URGENT, vec![1; 100])).unwrap();
        read_up_to(&mut raw, 0, 104);
        say(&mut raw, &ack(&[(0, 104, 104, 1 << 20)]));
        assert_eq!(vote.wait_timeout(SLACK), Some(Outcome::Taken), "the other lanes go on");
    });
}

#[test]
fn the_largest_messages_pass_through_tiny_buffers_both_ways() {
    let scene = Scene::set(|config| {
        config.lanes[1].max_message = 1 << 20;
        config.lanes[1].window = (1 << 20) + (64 << 10);
    });
    scene.row("both send the largest message, sockets of 4 KiB", || {
        let mut who = scene.stranger();
        who.hello.lanes[1].limit = 2 << 20;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        SockRef::from(&listener).set_recv_buffer_size(4096).unwrap();
        SockRef::from(&listener).set_send_buffer_size(4096).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        scene.node.add_peer(PeerConfig::new(address.clone())).unwrap();
        let mut raw = Raw::accept(&listener, &who).unwrap();
        scene.node.wait_up(who.id());
        let len = 1 << 20;
        let receipt = scene.node.send(who.id(), (NORMAL, message(0x616, 0, len))).unwrap();
        let bytes = in_stream(&message(0x616, 0, len));
        let mut output = raw.output;
        let sender = thread::spawn(move || {
            for (index, piece) in bytes.chunks(16_384).enumerate() {
                output.write_all(&chunk(NORMAL, index as u64 * 16_384, piece)).unwrap();
            }
            output
        });
        // Reads the node's while its own is on the way.
        let mut end = 0;
        while end < len as u64 + 4 {
            let (kind, body) = raw::read_frame(&mut raw.input).unwrap();
            if kind == raw::CHUNK && body[0] == 1 {
                end = u64::from_le_bytes(body[2..10].try_into().unwrap()) + body.len() as u64 - 10;
            }
        }
        let mut output = sender.join().unwrap();
        output.write_all(&ack(&[(1, end, end, 2 << 20)])).unwrap();
        assert_eq!(receipt.wait_timeout(SLACK), Some(Outcome::Taken));
        scene.node.wait_count(NORMAL, 0x616, 1);
        scene.node.remove_address(&address);
    });
}

#[test]
fn a_peer_that_reads_nothing_is_ended_by_the_write_deadline() {
    let scene = Scene::set(|config| config.path.write_timeout = Duration::from_secs(1));
    scene.row("answers pings, never drains its data", || {
        let mut who = scene.stranger();
        who.hello.lanes[2].limit = 64 << 20;
        let mut raw = scene.join(&who);
        let since = Instant::now();
        let _block = scene.node.send(who.id(), (unbroken::BULK, vec![1; 20 << 20])).unwrap();
        let ended = || {
            scene.node.look(|log| {
                log.count(
                    |event| matches!(event, unbroken::Event::Disconnected { peer, .. } if *peer == who.id()),
                ) > 0
            })
        };
        // It talks all the time.
        while !ended() && since.elapsed() < Duration::from_secs(1) + SLACK {
            say(&mut raw, &raw::frame(raw::PING, &[1; 8]));
            thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(scene.end_of(&who).cause, EndCause::WriteTimeout);
        assert!(since.elapsed() < Duration::from_secs(1) + SLACK);
        let _ = raw.stream.read(&mut [0; 1]);
    });
}
