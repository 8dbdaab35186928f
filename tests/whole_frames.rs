//! Promise 1: one thread at a time writes to a socket, and no frame is ever torn or interleaved; a stream cut
//! inside a frame is never written to again.

#![cfg(target_os = "linux")] // As the fault proxy is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test: it fails by panicking, and it reads the real clock"
)]

use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use unbroken::test_util::{Direction, Faults, Ways};
use unbroken::{BULK, Config, EndCause, Event, LaneId, NORMAL, PeerConfig, URGENT};
use unbroken_test_support::cluster::{
    Pair, Peer, TIMEOUT, all_taken, any_addr, builder, calm_path, eventually, first_addr, mixed,
};
use unbroken_test_support::numbered::{self, message};
use unbroken_test_support::raw::{self, Raw, RawIdentity};

fn calm(config: &mut Config) {
    config.path = calm_path();
}

#[test]
fn the_checker_sees_every_change() {
    for len in numbered::MIN_LEN..numbered::MIN_LEN + 20 {
        let message = message(7, 3, len);
        assert_eq!(numbered::read(&message), Ok((7, 3)));
        for at in 0..len {
            let mut bytes = message.to_vec();
            bytes[at] ^= 1;
            assert!(numbered::read(&bytes).is_err(), "byte {at} of {len}");
        }
        assert!(numbered::read(&message[..len - 1]).is_err());
    }
}

#[test]
fn many_senders_over_a_path_that_splits_and_trickles() {
    const EACH: u64 = 60;
    let pair = Pair::start(calm);
    // Two threads to each lane, in both directions.
    let mut senders = Vec::new();
    for (from, to) in [(&pair.a, &pair.b), (&pair.b, &pair.a)] {
        for stream in 0..6 {
            let (node, peer) = (from.node.clone(), to.id());
            let lane = LaneId(stream as u8 % 3);
            senders.push(thread::spawn(move || -> Vec<_> {
                let size = |seq| mixed(seq * 7 + stream);
                (0..EACH)
                    .map(|seq| node.send(peer, (lane, message(stream, seq, size(seq)))).unwrap())
                    .collect()
            }));
        }
    }
    // Whatever the pieces are in which it arrives: a few bytes, one byte, a lot.
    let faults = [
        Faults { rate: Ways::both(Some(3_000_000)), ..Faults::default() },
        Faults { trickle: Ways::both(Some(Duration::from_micros(50))), ..Faults::default() },
        Faults {
            rate: Ways::both(Some(300_000)),
            delay: Ways::both(Duration::from_millis(3)),
            ..Faults::default()
        },
        Faults::default(),
    ];
    for fault in faults {
        let bytes = pair.proxy.bytes(Direction::ToTarget);
        pair.proxy.set(fault);
        pair.proxy.wait_until(Duration::from_millis(400), |stats| stats.bytes.to_target > bytes + 500_000);
    }
    for sender in senders {
        all_taken(&sender.join().unwrap());
    }
    pair.a.check(6 * EACH);
    pair.b.check(6 * EACH);
    let protocol_errors = |peer: &Peer| {
        peer.look(|log| {
            log.count(|event| {
                matches!(event, Event::Disconnected { reason, .. } if matches!(reason.cause, EndCause::Protocol(_)))
            })
        })
    };
    assert_eq!((protocol_errors(&pair.a), protocol_errors(&pair.b)), (0, 0));
}

#[test]
fn every_size_from_nothing_on() {
    let b = builder(calm).listen(any_addr()).start().unwrap();
    let a = Peer::start(builder(calm).peer(first_addr(&b).to_string()));
    a.wait_up(b.id());
    // Around every bound in the code: empty, header, copied or shared, direct reads, buffers, chunks.
    let near = |size: usize| size.saturating_sub(20)..=size + 20;
    let mut sizes: Vec<usize> = (0..80).collect();
    for size in [2048, 4096, 8192, 16 << 10, 64 << 10, 512 << 10, 1 << 20] {
        sizes.extend(near(size).step_by(if size > 100_000 { 7 } else { 1 }));
    }
    let content = |size: usize| -> Bytes { (0..size).map(|at| (at * 31 + size) as u8).collect() };
    let receipts: Vec<_> = {
        let (node, peer, sizes) = (a.node.clone(), b.id(), sizes.clone());
        thread::spawn(move || {
            let send = |size: usize| node.send(peer, (NORMAL, content(size))).unwrap();
            sizes.into_iter().map(send).collect()
        })
    }
    .join()
    .unwrap();
    let messages = b.lane_receiver(NORMAL).unwrap();
    for size in sizes {
        let message = messages.recv_timeout(TIMEOUT).unwrap().expect("a message");
        assert_eq!(message.len(), size);
        assert!(message.into_bytes() == content(size), "the message of {size} bytes is damaged");
    }
    all_taken(&receipts);
    b.shutdown(Duration::ZERO);
}

// --- seen from the other end of the socket --------------------------------------------------------

/// The bulk stream as it should be: for each message its header and its bytes.
fn stream_of(count: u64, len: usize) -> Vec<u8> {
    let mut stream = Vec::new();
    for seq in 0..count {
        stream.extend_from_slice(&(len as u32).to_le_bytes());
        stream.extend_from_slice(&message(1, seq, len));
    }
    stream
}

/// The content of one connection: the part of the bulk stream, from which offset, and how many bytes of
/// an unfinished frame stood at its end.
struct Came {
    from: Option<u64>,
    stream: Vec<u8>,
    torn: usize,
}

/// Reads frames until the connection ends or so many bytes of stream have come. Every frame must be
/// one that the protocol knows, and chunks must follow each other.
fn read_frames(raw: &mut Raw, enough: usize) -> Came {
    let mut came = Came { from: None, stream: Vec::new(), torn: 0 };
    while came.stream.len() < enough {
        let mut header = [0; 4];
        match raw::read_up_to(&mut raw.input, &mut header).unwrap() {
            4 => {}
            some => {
                came.torn = some;
                break;
            }
        }
        let [kind, a, b, c] = header;
        assert!((raw::CHUNK..=raw::CANCEL).contains(&kind), "a frame of kind {kind}: the stream is broken");
        let mut body = vec![0; u32::from_le_bytes([a, b, c, 0]) as usize];
        let len = body.len();
        let read = raw::read_up_to(&mut raw.input, &mut body).unwrap();
        if read < len {
            came.torn = 4 + read;
            break;
        }
        if kind == raw::CHUNK && body[0] == BULK.0 {
            let offset = u64::from_le_bytes(body[2..10].try_into().unwrap());
            let from = *came.from.get_or_insert(offset);
            assert_eq!(offset, from + came.stream.len() as u64, "chunks follow each other");
            came.stream.extend_from_slice(&body[10..]);
        }
    }
    came
}

#[test]
fn after_a_write_that_timed_out_nothing_more_is_written() {
    // The kernel takes parts of a write, and where it stops may by chance be the end of a frame or record.
    let torn = (0..20).map(|nth| write_that_times_out((1 << 20) + 7919 * nth)).find(|torn| *torn > 0);
    assert!(torn.is_some(), "never cut inside a frame: the test did not reach what it is for");
}

/// Returns how many bytes of an unfinished frame or record came last.
fn write_that_times_out(len: usize) -> usize {
    let node = Peer::start(
        builder(|config| {
            config.path.user_timeout = Duration::from_secs(30);
            config.path.dead_after = Duration::from_secs(60);
        })
        .listen(any_addr()),
    );
    let who = RawIdentity::new(4, 1 << 40);
    let mut raw = Raw::dial(first_addr(&node), &who).unwrap();
    node.wait_up(who.id());
    let receipts: Vec<_> =
        (0..16).map(|seq| node.send(who.id(), (BULK, message(1, seq, len))).unwrap()).collect();
    let (_, reason) = node.wait_event("the write timeout", 0, |event| match event {
        Event::Disconnected { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    assert_eq!(reason.cause, EndCause::WriteTimeout);
    // More is waiting, and pings are due; but the stream was cut inside a frame.
    let came = read_frames(&mut raw, usize::MAX);
    let expected = stream_of(16, len);
    // In the middle of a record the cut may look like one between two frames.
    let torn = came.torn + raw.input.torn;
    println!("{} bytes of stream came, and {torn} of a torn frame or record", came.stream.len());
    assert_eq!(came.from, Some(0));
    assert!(came.stream.len() > 50_000 && came.stream[..] == expected[..came.stream.len()]);
    assert!(receipts.iter().all(|receipt| receipt.poll().is_none()));
    torn
}

#[test]
fn every_connection_begins_with_a_preface_and_goes_on_at_the_byte_that_was_asked_for() {
    const LEN: usize = 300_000;
    const COUNT: u64 = 6;
    let listener = TcpListener::bind(any_addr()).unwrap();
    let mut who = RawIdentity::new(5, 1 << 40);
    let node = Peer::start(builder(|config| {
        calm(config);
        config.path.backoff_max = Duration::from_millis(100);
        config.path.breaker_threshold = 1000;
        config.peers.push(PeerConfig {
            id: Some(who.id()),
            ..PeerConfig::new(listener.local_addr().unwrap().to_string())
        });
    }));
    for seq in 0..COUNT {
        node.send(who.id(), (BULK, message(1, seq, LEN))).unwrap();
    }
    let expected = stream_of(COUNT, LEN);
    let mut rng = fastrand::Rng::with_seed(8);
    let mut have = 0;
    let mut connections = 0;
    while have < expected.len() {
        // Raw::accept insists on a preface and a HELLO at the start.
        let mut raw = Raw::accept(&listener, &who).unwrap();
        connections += 1;
        let came = read_frames(&mut raw, rng.usize(1..250_000));
        assert_eq!(came.from, Some(have as u64), "goes on from where the HELLO said");
        assert!(came.stream[..] == expected[have..have + came.stream.len()]);
        // It remembers any part of what it got: that is what the next connection has to begin at.
        have += match have + came.stream.len() == expected.len() {
            true => came.stream.len(),
            false => rng.usize(1..=came.stream.len()),
        };
        let bulk = who.hello.lanes.iter_mut().find(|lane| lane.lane == BULK.0).unwrap();
        bulk.received = have as u64;
        socket2::SockRef::from(&raw.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
    assert!(connections >= 5, "{connections} connections");
    eventually("all of it was received, and nothing taken", || {
        node.peer(who.id()).unwrap().lanes.iter().any(|lane| lane.queued_messages == COUNT as usize)
    });
}

#[test]
fn small_and_large_frames_share_a_write_without_mixing() {
    // Batches of many small messages on two lanes beside large ones that are written from where they lie.
    let pair = Pair::start(calm);
    let (a, peer) = (&pair.a, pair.b.id());
    let senders: Vec<_> = (0..4)
        .map(|stream| {
            let node = a.node.clone();
            thread::spawn(move || {
                let lane = [URGENT, NORMAL, NORMAL, BULK][stream as usize];
                let send = |seq| {
                    let len = if seq % 50 == 49 { 900_000 } else { 24 + seq as usize % 40 };
                    node.send(peer, (lane, message(stream, seq, len))).unwrap()
                };
                (0..500).map(send).collect::<Vec<_>>()
            })
        })
        .collect();
    for sender in senders {
        all_taken(&sender.join().unwrap());
    }
    pair.b.check(2000);
    assert_eq!(a.peer(peer).unwrap().reconnects, 0);
}
