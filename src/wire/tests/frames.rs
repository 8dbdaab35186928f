//! Frames and prefaces: round trips, bounds, and what a liar gets.

use super::*;
use crate::wire::preface::{Mode, NetworkName, PREFACE_LEN, Preface, PrefaceError, Versions};

fn survives(frame: Frame) {
    let bytes = encode(&frame);
    assert!(read_simply(&bytes) == (vec![frame], "eof".into()), "{} bytes", bytes.len());
}

#[test]
fn every_kind_survives() {
    small_frames().into_iter().for_each(survives);
    for lanes in 0..=64 {
        survives(Frame::Hello(hello(lanes, &"n".repeat(lanes))));
        survives(Frame::Ack(ack(lanes)));
    }
    for len in [1, 2047, 2048, 16 * KIB, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 512 * KIB, MIB] {
        survives(chunk(1, header::ACK_NOW, len as u64, len));
    }
}

proptest! {
    #![proptest_config(config(64))]

    #[test]
    fn random_frames_survive(frame in any_frame(5000)) {
        survives(frame);
    }

    #[test]
    fn random_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 1..=8u8) {
        // As a stream, and as the body of every kind, so that they get past the header.
        let framed = [&header(kind, bytes.len())[..], &bytes].concat();
        for bytes in [bytes, framed] {
            assert_eq!(read_all(bytes.as_slice()), read_simply(&bytes));
        }
    }
}

#[test]
fn every_prefix_is_torn() {
    for frame in small_frames() {
        let bytes = encode(&frame);
        for len in 1..bytes.len() {
            assert_eq!(read_all(&bytes[..len]), (vec![], "torn".into()), "{len} bytes of {frame:?}");
        }
        assert_eq!(read_all(&bytes[..0]), (vec![], "eof".into()));
    }
}

#[test]
fn every_changed_bit_is_an_error_or_another_frame() {
    for frame in small_frames() {
        let bytes = encode_all(&[frame.clone(), Frame::ping(5)]);
        for bit in 0..encode(&frame).len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let (frames, end) = read_simply(&changed);
            assert_eq!(read_all(changed.as_slice()), (frames.clone(), end));
            if !frames.contains(&Frame::Extension) {
                assert_eq!(read_simply(&encode_all(&frames)).0, frames);
                let same = frames.first() == Some(&frame);
                assert!(!same || is_length_of_no_entries(&frame, bit / 8), "bit {bit} of {frame:?}");
            }
        }
    }
}

/// The length of the entries of an empty list says nothing.
fn is_length_of_no_entries(frame: &Frame, byte: usize) -> bool {
    match frame {
        Frame::Hello(hello) => hello.lanes.is_empty() && byte == HEADER_LEN + 18,
        Frame::Ack(ack) => ack.lanes.is_empty() && byte == HEADER_LEN + 1,
        Frame::Goaway(goaway) => goaway.lanes.is_empty() && byte == HEADER_LEN + 2,
        _ => false,
    }
}

#[test]
fn every_body_that_is_cut_or_stretched_is_an_error() {
    for frame in small_frames() {
        let bytes = encode(&frame);
        let (kind, body) = (bytes[0], &bytes[HEADER_LEN..]);
        if matches!(frame, Frame::Chunk { .. } | Frame::Extension) {
            continue; // Their length is theirs to choose.
        }
        for len in (0..body.len()).chain([body.len() + 1]) {
            let mut other = header(kind, len).to_vec();
            other.extend(body.iter().chain([&0]).take(len));
            let (frames, end) = read_all(other.as_slice());
            // Without its last fields it is another frame, and that one's only form.
            let fewer_fields = len < body.len() && !frames.is_empty() && encode_all(&frames) == other;
            let refused = frames.is_empty() && end.starts_with("wire: ");
            assert!(fewer_fields || refused, "{len} bytes of {frame:?}: {frames:?}, {end}");
        }
    }
}

#[test]
fn a_length_is_checked_before_the_body_comes() {
    for kind in 0..=255u8 {
        let known = Kind::ALL.into_iter().find(|known| *known as u8 == kind);
        let max = match known {
            Some(known) => known.max_body(),
            None if kind >= 128 => KIB,
            None => {
                let error = header::decode_header(header(kind, 0)).unwrap_err();
                assert_eq!(error.to_string(), format!("unknown frame kind {kind}"));
                continue;
            }
        };
        for len in [0, 1, max] {
            assert_eq!(header::decode_header(header(kind, len)).unwrap().body_len(), len);
        }
        for len in [max + 1, 0xFF_FFFF] {
            // The header alone; a reader that waited for more would say that the stream is torn.
            let mut reader = FrameReader::new(Script::cut(&header(kind, len), &[]));
            let before = reader.memory();
            reader.fill().unwrap();
            let error = reader.next_buffered().unwrap_err();
            let told = format!("wire: frame of kind {kind} announces {len} bytes, at most {max} are allowed");
            assert_eq!(end(&error), told);
            assert_eq!(reader.memory(), before);
        }
    }
}

#[test]
fn a_chunk_has_data_and_no_flags_that_must_be_known() {
    for len in 0..=CHUNK_HEAD_LEN {
        let bytes = [&header(2, len)[..], &[0; CHUNK_HEAD_LEN][..len]].concat();
        let (frames, end) = read_all(bytes.as_slice());
        assert_eq!((frames, end), (vec![], format!("wire: Chunk frame with only {len} bytes")));
    }
    for flags in (0..=255).filter(|flags| flags & 0x0E == 0) {
        survives(Frame::Chunk { lane: LaneId(0), flags, offset: 0, data: noise(3) });
    }
    for flags in (0..=255).filter(|flags| flags & 0x0E != 0) {
        // Complete, hardly begun, and one that would be read straight into its own memory.
        for len in [1, 100, MIB] {
            let head = encode_chunk_head(LaneId(0), flags, 0, len);
            let mut reader = FrameReader::new(Script::cut(&[&head[..], &[0]].concat(), &[]));
            let before = reader.memory();
            reader.fill().unwrap();
            let error = end(&reader.next_buffered().unwrap_err());
            assert_eq!(error, format!("wire: chunk with flags that are not known: {flags:#04x}"));
            assert_eq!(reader.memory(), before);
        }
    }
}

#[test]
fn unknown_kinds_from_128_are_skipped() {
    for kind in 128..=255 {
        for len in [0, 1, KIB] {
            let mut bytes = header(kind, len).to_vec();
            bytes.extend(noise(len));
            bytes.extend(encode(&Frame::ping(9)));
            let frames = vec![Frame::Extension, Frame::ping(9)];
            assert_eq!(read_all(bytes.as_slice()), (frames, "eof".into()));
        }
    }
}

/// Bodies that fit their bound in bytes and break one within.
#[test]
fn counts_within_a_body_are_bounded() {
    let lanes = "the field lanes is 65 long, at most 64 is allowed";
    let entries =
        |count: u8, len: usize| [&[count, len as u8][..], &vec![0; usize::from(count) * len]].concat();
    refused(1, &[&[0; 17][..], &entries(65, 33)].concat(), lanes);
    refused(3, &entries(65, 25), lanes);
    refused(6, &[&[0][..], &entries(65, 25)].concat(), lanes);
    let text = |len: u16| [&[len as u8, (len >> 8) as u8][..], &vec![b'n'; usize::from(len)]].concat();
    let name = [&[0; 17][..], &[0, 33, 3], &text(65)].concat();
    refused(1, &name, "the field name is 65 long, at most 64 is allowed");
    refused(8, &[&[0, 1][..], &text(257)].concat(), "the field text is 257 long, at most 256 is allowed");
}

/// A later version adds fields behind those of this one, bytes behind the values of fields, and bytes behind
/// the entries of lists.
#[test]
fn additions_of_a_later_version_are_skipped() {
    for frame in small_frames() {
        if matches!(frame, Frame::Chunk { .. } | Frame::Extension) {
            continue;
        }
        let bytes = encode(&frame);
        for added in [&[250, 0, 0][..], &[250, 2, 0, 1, 2], &[249, 1, 0, 7, 255, 0, 0]] {
            let body = [&bytes[HEADER_LEN..], added].concat();
            let longer = [&header(bytes[0], body.len())[..], &body].concat();
            assert_eq!(read_all(longer.as_slice()), (vec![frame.clone()], "eof".into()));
        }
    }
    let state = LaneAck { received: 1, taken: 1, limit: 1 };
    let entry = |extra: usize| [vec![5], [1, 0, 0, 0, 0, 0, 0, 0].repeat(3), vec![9; extra]].concat();
    for extra in [0, 1, 230] {
        let body = [vec![2, 25 + extra as u8], entry(extra), entry(extra)].concat();
        let ack = Frame::Ack(Ack { lanes: vec![(LaneId(5), state); 2], ..Ack::default() });
        assert_eq!(read_all([&header(3, body.len())[..], &body].concat().as_slice()).0, [ack]);
    }
    let hello = Hello { peer_session_id: Some(7), ..Hello::default() };
    let body = [&[0; 17][..], &[0, 40], &[1, 10, 0, 7, 0, 0, 0, 0, 0, 0, 0, 1, 2]].concat();
    assert_eq!(read_all([&header(1, body.len())[..], &body].concat().as_slice()).0, [Frame::Hello(hello)]);
}

#[test]
fn fields_are_in_order_once_and_whole() {
    let state_less = [&[0; 17][..], &[0, 33]].concat();
    for (fields, told) in [
        (
            &[2, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0][..],
            "field is out of order or there twice",
        ),
        (&[9, 0, 0, 9, 0, 0], "field is out of order or there twice"),
        (&[9], "field is cut short"),
        (&[9, 1], "field is cut short"),
        (&[9, 1, 0], "field is cut short"),
        (&[1, 7, 0, 0, 0, 0, 0, 0, 0, 0], "peer_session_id is cut short"),
        (&[3, 2, 0, 0xC3, 0x28], "name is not UTF-8"),
    ] {
        refused(1, &[&state_less[..], fields].concat(), &format!("Hello frame whose {told}"));
    }
    refused(3, &[1, 24, 0, 0], "Ack frame whose lanes has entries that are too short");
}

/// This body is refused, and with these words.
fn refused(kind: u8, body: &[u8], told: &str) {
    let (frames, end) = read_all([&header(kind, body.len())[..], body].concat().as_slice());
    assert!(frames.is_empty(), "{frames:?}");
    assert_eq!(end, format!("wire: {told}"));
}

#[test]
fn counts_that_lie_are_errors() {
    for (count, len) in [(5, 33), (65, 33), (255, 33), (2, 0), (2, 24), (2, 255), (255, 255)] {
        for (frame, at) in [(Frame::Hello(hello(2, "name")), 17), (Frame::Ack(ack(2)), 0)] {
            let mut bytes = encode(&frame);
            bytes[HEADER_LEN + at..][..2].copy_from_slice(&[count, len]);
            let (frames, end) = read_all(bytes.as_slice());
            assert!(frames.is_empty() && end.starts_with("wire: "), "{end}");
        }
    }
}

#[test]
fn a_frame_that_the_other_side_would_refuse_is_not_encoded() {
    let mut out = vec![1, 2, 3];
    assert!(hello(1, &"n".repeat(9000)).encode(&mut out).is_err());
    assert!(ack(65).encode(&mut out).is_err());
    assert_eq!(out, [1, 2, 3]);
}

#[test]
fn every_changed_bit_of_a_preface_is_seen() {
    let network = NetworkName::new("net").unwrap();
    for mode in [Mode::Plaintext, Mode::Noise] {
        let ours = Preface { versions: Versions::OURS, mode, network };
        let check = |theirs: [u8; PREFACE_LEN]| {
            let versions = ours.check_opening(theirs.first_chunk().unwrap())?;
            ours.check_network(theirs.last_chunk().unwrap()).map(|()| versions)
        };
        let bytes = ours.encode();
        assert_eq!(check(bytes), Ok(Versions::OURS));
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes;
            changed[bit / 8] ^= 1 << (bit % 8);
            let checked = check(changed);
            let seen = match (bit / 8, &checked) {
                (0..8, Err(error)) => *error == PrefaceError::Magic,
                (8..10, Err(error)) => matches!(error, PrefaceError::Versions { .. }),
                // A wider range has a version in common. The handshake sees that it was changed.
                (8..10, Ok(versions)) => *versions != Versions::OURS,
                (10, Err(error)) => matches!(error, PrefaceError::Mode { .. }),
                (11, Err(error)) => error.to_string().contains("other side"),
                (_, Err(error)) => matches!(error, PrefaceError::Network { theirs: Some(_), .. }),
                (_, Ok(_)) => false,
            };
            assert!(seen, "bit {bit}: {checked:?}");
        }
    }
}

#[test]
fn two_sides_speak_the_highest_version_that_both_know() {
    let versions = |lowest, highest| Versions { lowest, highest };
    for (a, b, common) in [
        (versions(1, 1), versions(1, 1), Some(1)),
        (versions(1, 1), versions(1, 2), Some(1)),
        (versions(1, 3), versions(2, 5), Some(3)),
        (versions(1, 255), versions(255, 255), Some(255)),
        (versions(1, 1), versions(2, 3), None),
        (versions(1, 9), versions(5, 4), None),
    ] {
        assert_eq!((a.common(b), b.common(a)), (common, common), "{a} and {b}");
    }
    let network = NetworkName::new("net").unwrap();
    let [ours, theirs] =
        [versions(1, 1), versions(2, 3)].map(|versions| Preface { versions, mode: Mode::Noise, network });
    let error = ours.check_opening(theirs.encode().first_chunk().unwrap()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the other side speaks versions 2 to 3 of the protocol, this side version 1"
    );
    // The dialer learns the same from the answer, also if it could have gone on.
    let answer = ours.refusal(&error).unwrap();
    assert_eq!(answer[8..], [1, 1, 1, 1]);
    for dialer in [theirs, ours] {
        assert!(matches!(dialer.check_opening(&answer), Err(PrefaceError::Versions { .. })));
    }
}

#[test]
fn a_wrong_mode_is_reported_with_both_names() {
    let error = |theirs, ours| PrefaceError::Mode { theirs, ours }.to_string();
    let texts = [error(0, Mode::Noise), error(1, Mode::Plaintext), error(7, Mode::Noise)];
    let [noise, plaintext] = ["encryption by Noise (mode 1)", "plaintext (mode 0)"];
    assert!(texts.iter().take(2).all(|text| text.contains(noise) && text.contains(plaintext)), "{texts:?}");
    assert!(texts[2].contains("mode 7") && texts[2].contains(noise), "{texts:?}");
}

#[test]
fn network_names_have_32_bytes_at_most() {
    assert!(NetworkName::new("").is_some());
    assert_eq!(NetworkName::new(&"é".repeat(16)).unwrap().to_string(), format!("{:?}", "é".repeat(16)));
    for name in ["n".repeat(33), "n".repeat(1000), "a\0b".into(), "a\0".into()] {
        assert!(NetworkName::new(&name).is_none());
    }
    let network = NetworkName::new("other").unwrap();
    let ours = Preface { versions: Versions::OURS, mode: Mode::Noise, network };
    let error =
        ours.check_network(b"net".iter().copied().chain([0; 29]).collect::<Vec<_>>().first_chunk().unwrap());
    let error = error.unwrap_err().to_string();
    assert_eq!(error, r#"the other side belongs to network "net", this side to "other""#);
}
