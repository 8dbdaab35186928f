//! Frames and records that are none, or that nobody agreed on.

use std::io::Write;
use std::net::Shutdown;

use unbroken::{Encryption, EndCause, EndReason, Initiator, NORMAL};

use crate::scene::{Scene, chunk, in_stream, nonce, say};
use unbroken_test_support::numbered::message;
use unbroken_test_support::raw::{self, encryption};

#[test]
fn frames_that_are_none() {
    let scene = Scene::set(|_| ());
    let huge = |kind| vec![kind, 0xff, 0xff, 0xff];
    let ack_of = |body: &[u8]| raw::frame(raw::ACK, body);
    for (what, bytes, why) in [
        ("a length of 16 MiB", huge(raw::CHUNK), "announces 16777215 bytes"),
        ("a length of 16 MiB, of a kind that may be skipped", huge(200), "announces 16777215 bytes"),
        ("an unknown kind", raw::frame(100, &[]), "unknown frame kind 100"),
        ("kind 0, as in nothing but zeros", vec![0; 4096], "unknown frame kind 0"),
        ("a list of 255 items that are not there", ack_of(&[255, 25]), "lanes is cut short"),
        ("a list of items that are too short", ack_of(&[1, 24]), "entries that are too short"),
        ("a list of 65 items", raw::frame(raw::ACK, &raw::encode_states(&[(0, 0, 0, 0); 65])), "lanes is 65"),
        ("a body with half a field behind it", ack_of(&[0, 25, 9, 1, 0]), "field is cut short"),
        ("a field that is there twice", ack_of(&[0, 25, 9, 0, 0, 9, 0, 0]), "out of order or there twice"),
        ("a body that is too short", raw::frame(raw::PING, &[0; 7]), "nonce is cut short"),
        ("a chunk without data or offset", raw::frame(raw::CHUNK, &[NORMAL.0, 0]), "only 2 bytes"),
        ("an empty chunk", chunk(NORMAL, 0, &[]), "only 10 bytes"),
        (
            "a chunk with flags nobody knows",
            raw::frame(raw::CHUNK, &[1, 0xfe, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
            "flags that are not known",
        ),
        ("a lane that was not agreed", chunk(unbroken::LaneId(77), 0, b"x"), "not agreed"),
        ("a gap in a lane", chunk(NORMAL, 100, b"x"), "a gap in a lane"),
        ("an offset at the end of numbers", chunk(NORMAL, u64::MAX, b"xx"), "a gap in a lane"),
        ("a message of unknown kind", chunk(NORMAL, 0, &0xf000_0000u32.to_le_bytes()), "unknown kind 15"),
        ("a message that is too large", chunk(NORMAL, 0, &0x0fff_ffffu32.to_le_bytes()), "at most"),
        (
            "an acknowledgement for a lane nobody has",
            raw::frame(raw::ACK, &raw::encode_states(&[(9, 0, 0, 0)])),
            "not agreed",
        ),
    ] {
        scene.row(what, || scene.protocol_error(why, |raw| say(raw, &bytes)));
    }
    scene.row("a gap, and then it comes back and goes on", || {
        let mut who = scene.stranger();
        let mut raw = scene.join(&who);
        let first = in_stream(&message(0xabc, 0, 100));
        say(&mut raw, &chunk(NORMAL, 0, &first));
        scene.node.wait_count(NORMAL, 0xabc, 1);
        say(&mut raw, &chunk(NORMAL, first.len() as u64 + 1, b"x"));
        assert!(matches!(scene.end_of(&who).cause, EndCause::Protocol(_)));
        who.hello.peer_session_id = Some(raw.hello.session_id);
        scene.node.forget_events();
        let mut raw = scene.join(&who);
        assert_eq!(raw.hello.lanes[1].received, first.len() as u64, "the node says where it stands");
        // From the start: what it has already it drops.
        let both = [first, in_stream(&message(0xabc, 1, 100))].concat();
        say(&mut raw, &chunk(NORMAL, 0, &both));
        scene.node.wait_count(NORMAL, 0xabc, 2);
    });
    scene.row("good messages in front of a bad one in the same chunk are the application's at once", || {
        let who = scene.stranger();
        let mut raw = scene.join(&who);
        let good = [in_stream(&message(0xbad, 0, 100)), in_stream(&message(0xbad, 1, 100))].concat();
        say(&mut raw, &chunk(NORMAL, 0, &[&good[..], &0xf000_0000u32.to_le_bytes()].concat()));
        assert!(matches!(scene.end_of(&who).cause, EndCause::Protocol(_)));
        scene.node.wait_count(NORMAL, 0xbad, 2);
    });
    scene.row("kinds that may be skipped are skipped", || {
        let (who, mut raw) = scene.joined();
        for kind in 128..=255 {
            say(&mut raw, &raw::frame(kind, &[7; 1024]));
        }
        say(&mut raw, &chunk(NORMAL, 0, &in_stream(&message(0xdef, 0, 100))));
        scene.node.wait_count(NORMAL, 0xdef, 1);
        assert_eq!(scene.node.peer(who.id()).unwrap().flood.unknown, 128);
    });
    scene.row("the stream ends inside a frame", || {
        let (who, mut raw) = scene.joined();
        say(&mut raw, &nonce(raw::PING, 1)[..7]);
        raw.stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(scene.end_of(&who), EndReason { by: Initiator::Peer, cause: EndCause::Closed });
    });
    scene.row("an honest stream, one byte in each write and record", || {
        let (_who, mut raw) = scene.joined();
        let bytes = chunk(NORMAL, 0, &in_stream(&message(0x1b, 0, 20_000)));
        bytes.chunks(1).for_each(|byte| say(&mut raw, byte));
        scene.node.wait_count(NORMAL, 0x1b, 1);
    });
}

#[test]
fn records_that_do_not_hold() {
    if encryption() == Encryption::Plaintext {
        return; // There are none.
    }
    let scene = Scene::set(|_| ());
    type Lie = fn(&mut raw::Raw, Vec<u8>);
    let lies: [(&str, Lie); 9] = [
        ("a flipped bit in a record", |raw, mut record| {
            record[10] ^= 1;
            raw.stream.write_all(&record).unwrap();
        }),
        ("a flipped bit in a tag", |raw, mut record| {
            *record.last_mut().unwrap() ^= 0x80;
            raw.stream.write_all(&record).unwrap();
        }),
        ("a record said twice", |raw, record| raw.stream.write_all(&record.repeat(2)).unwrap()),
        ("a record left out", |raw, _| raw.send(raw::PING, &[0; 8]).unwrap()),
        ("two records in the wrong order", |raw, record| {
            let next = raw.output.seal(&nonce(raw::PING, 2));
            raw.stream.write_all(&[next, record].concat()).unwrap();
        }),
        ("a record cut short, and the next one behind it", |raw, record| {
            let next = raw.output.seal(&nonce(raw::PING, 2));
            raw.stream.write_all(&[&record[..record.len() - 4], &next].concat()).unwrap();
        }),
        ("a record of length 0", |raw, _| raw.stream.write_all(&[0, 0]).unwrap()),
        ("a record of a tag alone", |raw, _| {
            let empty = raw.output.seal(&[]);
            raw.stream.write_all(&empty).unwrap();
        }),
        ("plaintext after the handshake, read as a record of 64 KiB", |raw, _| {
            let _ = raw.stream.write_all(&vec![0xff; 70_000]);
        }),
    ];
    for (what, lie) in lies {
        scene.row(what, || {
            let cause = scene.end_for(|raw| {
                let record = raw.output.seal(&nonce(raw::PING, 1));
                lie(raw, record);
            });
            assert!(matches!(&cause, EndCause::Tampered(what) if what.contains("record")), "{cause}");
        });
    }
    scene.row("the stream ends inside a record", || {
        let (who, mut raw) = scene.joined();
        let record = raw.output.seal(&nonce(raw::PING, 1));
        raw.stream.write_all(&record[..9]).unwrap();
        raw.stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(scene.end_of(&who), EndReason { by: Initiator::Peer, cause: EndCause::Closed });
    });
}
