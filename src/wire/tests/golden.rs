//! The bytes themselves, as [`crate::manual::protocol`] has them.

use super::*;
use crate::id::{Incarnation, PeerId};
use crate::wire::preface::{CLAIM_LEN, Claim, Mode, NetworkName, PREFACE_LEN, Preface, Versions};
use crate::wire::stream::{Header, MessageKind};

const STATE: LaneAck =
    LaneAck { received: 0x0807_0605_0403_0201, taken: 0x1817_1615_1413_1211, limit: 0x2827_2625_2423_2221 };
const STATE_BYTES: [u8; 24] = [
    0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, // received
    0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, // taken
    0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28, // limit
];

fn pin(frame: &Frame, parts: &[&[u8]]) {
    let golden = parts.concat();
    assert_eq!(encode(frame), golden, "{frame:?}");
    assert_eq!(read_simply(&golden), (vec![frame.clone()], "eof".into()));
}

#[test]
fn preface() {
    let network = NetworkName::new("testnet").unwrap();
    let versions = Versions { lowest: 1, highest: 3 };
    for (mode, byte) in [(Mode::Plaintext, 0), (Mode::Noise, 1)] {
        let mut golden = b"unbroken".to_vec();
        golden.extend([1, 3, byte, 0]);
        golden.extend(b"testnet");
        golden.extend([0; 25]);
        assert_eq!(golden.len(), PREFACE_LEN);
        assert_eq!(Preface { versions, mode, network }.encode().as_slice(), golden);
    }
}

#[test]
fn claim() {
    let claim = Claim {
        peer: PeerId::from_bytes(std::array::from_fn(|n| n as u8)),
        incarnation: Incarnation(0x0807_0605_0403_0201),
    };
    let mut golden: Vec<u8> = (0..32).collect();
    golden.extend([1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(golden.len(), CLAIM_LEN);
    assert_eq!(claim.encode().as_slice(), golden);
    assert_eq!(Claim::decode(&claim.encode()), claim);
}

#[test]
fn hello() {
    let lane = |lane, max_message, max_untaken, state| HelloLane { lane, max_message, max_untaken, state };
    let hello = Hello {
        session_id: 0x0807_0605_0403_0201,
        peer_session_id: Some(0x3837_3635_3433_3231),
        token: 0x1817_1615_1413_1211,
        slot: 9,
        replaces: Some(0x2827_2625_2423_2221),
        lanes: vec![
            lane(LaneId(7), 0x0403_0201, 0x1413_1211, STATE),
            lane(LaneId(8), 1, 2, LaneAck::default()),
        ],
        name: "né".into(),
        features: 0x4847_4645_4443_4241,
        ack_delay_ms: Some(0x0403_0201),
        repeats: Some(0x1413_1211),
        port: None,
        stale: vec![],
    };
    pin(
        &Frame::Hello(hello),
        &[
            &[1, 138, 0, 0],
            &[1, 2, 3, 4, 5, 6, 7, 8],                         // memory
            &[0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18], // token
            &[9],                                              // slot
            &[2, 33],                                          // lanes
            &[7, 1, 2, 3, 4, 0x11, 0x12, 0x13, 0x14],
            &STATE_BYTES,
            &[8, 1, 0, 0, 0, 2, 0, 0, 0],
            &[0; 24],
            &[1, 8, 0, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38], // peer_session_id
            &[2, 8, 0, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28], // replaces
            &[3, 3, 0, b'n', 0xC3, 0xA9],                               // name
            &[4, 8, 0, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48], // features
            &[5, 4, 0, 1, 2, 3, 4],                                     // ack_delay
            &[6, 4, 0, 0x11, 0x12, 0x13, 0x14],                         // repeats
        ],
    );
}

#[test]
fn hello_with_a_port() {
    let hello = Hello { session_id: 1, token: 2, port: Some(0x0201), ..Hello::default() };
    let session_and_token = [1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0];
    pin(&Frame::Hello(hello), &[&[1, 24, 0, 0], &session_and_token, &[0], &[0, 33], &[7, 2, 0, 1, 2]]);
}

#[test]
fn hello_without_fields() {
    let hello = Hello { session_id: 1, token: 2, ..Hello::default() };
    let memory_and_token = [1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0];
    pin(&Frame::Hello(hello), &[&[1, 19, 0, 0], &memory_and_token, &[0], &[0, 33]]);
}

#[test]
fn chunk() {
    let data = Bytes::from_static(b"abc");
    let chunk = Frame::Chunk { lane: LaneId(5), flags: 1, offset: 0x0807_0605_0403_0201, data };
    pin(&chunk, &[&[2, 13, 0, 0], &[5, 1], &[1, 2, 3, 4, 5, 6, 7, 8], b"abc"]);
    // The third byte of the length.
    assert_eq!(encode_chunk_head(LaneId(0), 0, 0, MIB)[..HEADER_LEN], [2, 10, 0, 16]);
}

#[test]
fn ack() {
    let lanes = vec![(LaneId(2), STATE), (LaneId(0), LaneAck::default())];
    let (stale, settled) = (vec![], vec![]);
    pin(
        &Frame::Ack(Ack { lanes, stale, settled }),
        &[&[3, 52, 0, 0], &[2, 25], &[2], &STATE_BYTES, &[0], &[0; 24]],
    );
}

/// Ranges of stale messages in the three frames that tell of them, and what is settled.
#[test]
fn stale_ranges() {
    let range = StaleRange { lane: LaneId(2), from: 0x0807_0605_0403_0201, to: 0x1817_1615_1413_1211 };
    let entry = [2, 1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18];
    let settled = vec![(LaneId(4), 0x0807_0605_0403_0201)];
    pin(
        &Frame::Ack(Ack { lanes: vec![], stale: vec![range], settled }),
        &[
            &[3, 38, 0, 0],
            &[0, 25],
            &[1, 19, 0, 1, 17],
            &entry,
            &[2, 11, 0, 1, 9],
            &[4, 1, 2, 3, 4, 5, 6, 7, 8],
        ],
    );
    pin(
        &Frame::Goaway(Goaway { reason: GoawayReason::Retired, lanes: vec![], stale: vec![range] }),
        &[&[6, 25, 0, 0], &[4], &[0, 25], &[1, 19, 0, 1, 17], &entry],
    );
    let hello = Hello { session_id: 1, token: 2, stale: vec![range], ..Hello::default() };
    let session_and_token = [1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0];
    pin(
        &Frame::Hello(hello),
        &[&[1, 41, 0, 0], &session_and_token, &[0], &[0, 33], &[8, 19, 0, 1, 17], &entry],
    );
}

#[test]
fn ping_and_pong() {
    pin(&Frame::ping(0x0807_0605_0403_0201), &[&[4, 8, 0, 0], &[1, 2, 3, 4, 5, 6, 7, 8]]);
    pin(&Frame::pong(0x0807_0605_0403_0201), &[&[5, 8, 0, 0], &[1, 2, 3, 4, 5, 6, 7, 8]]);
    pin(
        &Frame::Pong { nonce: 1, clock: Some(0x0807_0605_0403_0201) },
        &[&[5, 19, 0, 0], &[1, 0, 0, 0, 0, 0, 0, 0], &[2, 8, 0], &[1, 2, 3, 4, 5, 6, 7, 8]],
    );
}

/// The padding of a PING counts, that of a PONG does not, and what it holds means nothing.
#[test]
fn padded_ping_and_pong() {
    let nonce = 0x0807_0605_0403_0201;
    pin(
        &Frame::Ping { nonce, padding: 258 },
        &[&[4, 13, 1, 0], &[1, 2, 3, 4, 5, 6, 7, 8], &[1, 2, 1], &[0; 258]],
    );
    let mut pong = Vec::new();
    encode_pong(nonce, 2, None, &mut pong);
    assert_eq!(pong, [5, 13, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 0, 0, 0]);
    assert_eq!(read_simply(&pong), (vec![Frame::pong(nonce)], "eof".into()));
    // A PONG with a time is as long as its PING, or longer if there is little padding to leave out.
    for (padding, len) in [
        (0, 8 + 11),
        (2, 8 + 5 + 11),
        (11, 8 + 14 + 11),
        (12, 8 + 15),
        (500, 8 + 503),
        (MAX_PADDING, 16 * KIB),
        (usize::MAX, 16 * KIB),
    ] {
        let mut pong = Vec::new();
        encode_pong(nonce, padding, Some(7), &mut pong);
        assert_eq!(pong.len(), HEADER_LEN + len, "for a padding of {padding}");
        assert_eq!(read_simply(&pong), (vec![Frame::Pong { nonce, clock: Some(7) }], "eof".into()));
    }
    let any = [&[4, 13, 0, 0][..], &[1, 2, 3, 4, 5, 6, 7, 8], &[1, 2, 0, 7, 255]].concat();
    assert_eq!(read_simply(&any), (vec![Frame::Ping { nonce, padding: 2 }], "eof".into()));
    // Never past the bound of the body.
    let mut longest = Vec::new();
    encode_ping(nonce, usize::MAX, &mut longest);
    assert_eq!(longest.len(), HEADER_LEN + Kind::Ping.max_body());
    assert_eq!(read_simply(&longest), (vec![Frame::Ping { nonce, padding: MAX_PADDING }], "eof".into()));
}

#[test]
fn goaway() {
    use GoawayReason::{Duplicate, Other, Removed, Replaced, Retired, Shutdown};
    let known = [Shutdown, Replaced, Duplicate, Removed, Retired];
    for (number, reason) in (0..).zip(known).chain([(5, Other(5)), (255, Other(255))]) {
        let lanes = vec![(LaneId(2), STATE)];
        pin(
            &Frame::Goaway(Goaway { reason, lanes, stale: vec![] }),
            &[&[6, 28, 0, 0], &[number], &[1, 25], &[2], &STATE_BYTES],
        );
    }
}

#[test]
fn cancel() {
    let cancel = Cancel { request: 0x0807_0605_0403_0201 };
    pin(&Frame::Cancel(cancel), &[&[7, 8, 0, 0], &[1, 2, 3, 4, 5, 6, 7, 8]]);
}

#[test]
fn refused() {
    let codes = [0, 1, 2, 3, 4, 5, 128, 129, 130, 131, 132, 133, 134, 135];
    let known = codes.into_iter().zip(RefusedReason::KNOWN);
    for (number, reason) in known.chain([6, 127, 136, 255].map(|n| (n, RefusedReason::Other(n)))) {
        assert_eq!(reason.is_temporary(), number >= 128);
        let text_and_wait = [1, 3, 0, b'n', 0xC3, 0xA9, 2, 4, 0, 1, 2, 3, 4];
        pin(&Frame::Refused(super::refused(reason)), &[&[8, 14, 0, 0], &[number], &text_and_wait]);
        let bare = Refused { reason, text: String::new(), wait_secs: None };
        pin(&Frame::Refused(bare), &[&[8, 1, 0, 0, number]]);
    }
}

#[test]
fn message_headers() {
    let (id, len) = (0x0807_0605_0403_0201, 0x0A0B_0C0D);
    let header = |kind| Header::new(kind, len).as_bytes().to_vec();
    assert_eq!(header(MessageKind::Message), [0x0D, 0x0C, 0x0B, 0x0A]);
    assert_eq!(
        header(MessageKind::Request { id, wait_ms: 0x1413_1211 }),
        [0x0D, 0x0C, 0x0B, 0x1A, 1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x13, 0x14]
    );
    assert_eq!(header(MessageKind::Reply { id }), [0x0D, 0x0C, 0x0B, 0x2A, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(header(MessageKind::Expiring { at: id }), [0x0D, 0x0C, 0x0B, 0x3A, 1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn greatest_bodies() {
    let bounds = Kind::ALL.map(|kind| (kind as u8, kind.max_body()));
    let documented = [
        (1, 8 * KIB),
        (2, MIB + 10),
        (3, 16 * KIB),
        (4, 16 * KIB),
        (5, 16 * KIB),
        (6, 16 * KIB),
        (7, KIB),
        (8, KIB),
    ];
    assert_eq!(bounds, documented);
}
