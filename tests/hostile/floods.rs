//! Frames that cost more than they carry, as many as fit.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use unbroken::{BULK, EndCause, NORMAL, URGENT};

use crate::scene::{SLACK, Scene, ack, chunk, goaway, in_stream, nonce, reply, request, say};
use unbroken_test_support::cluster::{all_taken, flood, within};
use unbroken_test_support::numbered::message;
use unbroken_test_support::process;
use unbroken_test_support::raw::{self, RawIn};

#[test]
fn floods_end() {
    let scene = Scene::set(|config| config.max_requests = 16);
    let stream: Vec<u8> = in_stream(&[7; 100_000]);
    let one_byte = |at: usize| chunk(BULK, at as u64, &stream[at..=at]);
    for (what, bytes, why) in [
        ("a flood of pings, pongs never read", nonce(raw::PING, 7).repeat(100_000), "a flood of pings"),
        ("a flood of pongs", nonce(raw::PONG, 7).repeat(17), "too many pongs"),
        ("a flood of chunks of one byte", (0..20_000).flat_map(one_byte).collect(), "next to nothing"),
        ("a flood of the same chunk", chunk(NORMAL, 0, &[3, 0, 0, 0, 1]).repeat(20_000), "next to nothing"),
        (
            "a flood of empty acknowledgements",
            ack(&[]).repeat(160_000),
            "acknowledgements of next to nothing",
        ),
        (
            "a flood of the same acknowledgement",
            ack(&[(1, 0, 0, 5); 64]).repeat(3_000),
            "acknowledgements of next to nothing",
        ),
        ("a flood of kinds nobody knows", raw::frame(255, &[]).repeat(20_000), "frames of unknown kinds"),
        ("a flood of cancellations", nonce(raw::CANCEL, 1).repeat(20_000), "cancellations"),
        (
            "a flood of replies to nothing",
            chunk(NORMAL, 0, &(0..80_000).flat_map(reply).collect::<Vec<_>>()),
            "replies that nobody asked for",
        ),
        (
            "a flood of requests, each cancelled at once",
            (0..60_000u64)
                .flat_map(|id| [chunk(NORMAL, id * 16, &request(id)), nonce(raw::CANCEL, id)].concat())
                .collect(),
            "requests beyond those that may be open",
        ),
    ] {
        scene.row(what, || {
            let cause = scene.end_for(|raw| say(raw, &bytes));
            assert!(matches!(&cause, EndCause::Flood(text) if text.contains(why)), "{cause}");
        });
    }
    scene.row("a flood of goodbyes", || {
        scene.protocol_error("a frame after GOAWAY", |raw| say(raw, &goaway(0).repeat(10_000)));
    });
    scene.row("a request opened twice", || {
        // In one chunk: nobody answers in between.
        let twice = chunk(NORMAL, 0, &request(1).repeat(2));
        scene.protocol_error("opened twice", |raw| say(raw, &twice));
    });
    scene.row("one reply to nothing, one pong too many", || {
        let (who, mut raw) = scene.joined();
        say(&mut raw, &[nonce(raw::PONG, 7), chunk(NORMAL, 0, &reply(1)), nonce(raw::CANCEL, 9)].concat());
        let seen = || {
            scene.node.peer(who.id()).is_some_and(|peer| peer.late_replies == 1 && peer.flood.cancels == 1)
        };
        assert!(within(SLACK, seen), "ignored, and counted");
        assert_eq!(scene.node.peer(who.id()).unwrap().connections.len(), 1);
    });
}

#[test]
fn chunks_that_came_before_do_not_fill_the_memory() {
    const MIB: usize = 1 << 20;
    const NEW: usize = 513;
    let scene = Scene::set(|_| ());
    scene.row("200 chunks of 1 MiB, all but 513 bytes of which came before", || {
        let (who, mut raw) = scene.joined();
        let before = process::resident_bytes().unwrap();
        say(&mut raw, &chunk(BULK, 0, &in_stream(&vec![7; 30 * MIB])[..MIB]));
        for count in 0..200 {
            say(&mut raw, &chunk(BULK, ((count + 1) * NEW) as u64, &[7; MIB]));
        }
        let arrived = || scene.node.peer(who.id()).unwrap().bytes_received > 201 * MIB as u64;
        assert!(within(SLACK, arrived), "{}", scene.node.peer(who.id()).unwrap().bytes_received);
        // The message has 1.1 MiB by now.
        let more = process::resident_bytes().unwrap().saturating_sub(before);
        assert!(more < 50 * MIB, "{more} bytes");
    });
}

/// Reads what comes, so that the sender is never held up, and notes how much credit the urgent lane has.
fn drain(mut input: RawIn, limit: &AtomicU64) {
    while let Ok((kind, body)) = raw::read_frame(&mut input) {
        if kind == raw::ACK {
            let lanes = raw::decode_states(&body);
            lanes.iter().filter(|lane| lane.0 == 0).for_each(|lane| limit.store(lane.3, SeqCst));
        }
    }
}

#[test]
fn floods_of_what_is_allowed() {
    let scene = Scene::set(|_| ());
    scene.row("urgent messages at full speed; another peer's bulk beside", || {
        let (who, raw) = scene.joined();
        let (limit, stop) = (AtomicU64::new(raw.hello.lanes[0].limit), AtomicBool::new(false));
        let (stream, input, mut output) = (raw.stream, raw.input, raw.output);
        thread::scope(|threads| {
            threads.spawn(|| drain(input, &limit));
            let flooding = threads.spawn(|| {
                let (mut offset, mut seq) = (0, 0);
                while !stop.load(SeqCst) {
                    // Votes as an honest sender packs them, as many as the credit allows.
                    let votes: Vec<u8> =
                        (seq..seq + 80).flat_map(|seq| in_stream(&message(0xf100d, seq, 200))).collect();
                    if offset + votes.len() as u64 > limit.load(SeqCst) {
                        thread::yield_now();
                        continue;
                    }
                    output.write_all(&chunk(URGENT, offset, &votes)).unwrap();
                    (offset, seq) = (offset + votes.len() as u64, seq + 80);
                }
                offset
            });
            let bulk = flood(scene.honest(), scene.node.id(), BULK, 0xb01c, 60, |_| 500_000);
            all_taken(&bulk.join().unwrap());
            stop.store(true, SeqCst);
            println!("  {} KiB of urgent messages meanwhile", flooding.join().unwrap() >> 10);
            stream.shutdown(std::net::Shutdown::Both).unwrap();
        });
        scene.end_of(&who);
    });
    scene.row("credit byte by byte", || {
        let mut poor = scene.stranger();
        poor.hello.lanes[1].limit = 0;
        let raw = scene.join(&poor);
        let (stream, mut input, mut output) = (raw.stream, raw.input, raw.output);
        let receipt = scene.node.send(poor.id(), (NORMAL, vec![5; 5_000])).unwrap();
        // Only when all has been sent may all be acknowledged.
        let reader = thread::spawn(move || {
            let (mut end, mut chunks) = (0, 0);
            while end < 5_004 {
                let (kind, body) = raw::read_frame(&mut input).unwrap();
                if kind == raw::CHUNK {
                    end = u64::from_le_bytes(body[2..10].try_into().unwrap()) + body.len() as u64 - 10;
                    chunks += 1;
                }
            }
            (input, chunks)
        });
        (1..=5_004).for_each(|limit| output.write_all(&ack(&[(1, 0, 0, limit)])).unwrap());
        let (_input, chunks) = reader.join().unwrap();
        println!("  5,004 bytes in {chunks} chunks");
        output.write_all(&ack(&[(1, 5_004, 5_004, 6_000)])).unwrap();
        assert_eq!(receipt.wait_timeout(SLACK), Some(unbroken::Outcome::Taken));
        stream.shutdown(std::net::Shutdown::Both).unwrap();
    });
    scene.row("half a megabyte in one write, then a reset", || {
        for _ in 0..20 {
            let (who, mut raw) = scene.joined();
            let _ = raw.output.write_all(&chunk(BULK, 0, &in_stream(&[1; 500_000])[..400_000]));
            socket2::SockRef::from(&raw.stream).set_linger(Some(Duration::ZERO)).unwrap();
            drop(raw);
            scene.end_of(&who);
        }
    });
}
