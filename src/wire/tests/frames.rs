//! Frames and prefaces: round trips, bounds, and what a liar gets.

use super::*;
use crate::wire::preface::{Mode, NetworkName, PREFACE_LEN, Preface, PrefaceError};

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
        survives(chunk(1, frame::ACK_NOW, len as u64, len));
    }
}

proptest! {
    #![proptest_config(config(64))]

    #[test]
    fn random_frames_survive(frame in any_frame(5000)) {
        survives(frame);
    }

    #[test]
    fn random_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 1..=7u8) {
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

/// What is accepted has one form only: what was decoded from changed bytes encodes to these bytes.
#[test]
fn every_changed_bit_is_an_error_or_another_frame() {
    for frame in small_frames() {
        let bytes = encode_all(&[frame.clone(), Frame::Ping(5)]);
        for bit in 0..encode(&frame).len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let (frames, end) = read_simply(&changed);
            assert_eq!(read_all(changed.as_slice()), (frames.clone(), end));
            if !frames.contains(&Frame::Hint) {
                assert!(changed.starts_with(&encode_all(&frames)));
                assert!(frames.first() != Some(&frame));
            }
        }
    }
}

#[test]
fn every_body_that_is_cut_or_stretched_is_an_error() {
    for frame in small_frames() {
        let bytes = encode(&frame);
        let (kind, body) = (bytes[0], &bytes[HEADER_LEN..]);
        if matches!(frame, Frame::Chunk { .. } | Frame::Hint) {
            continue; // Their length is theirs to choose.
        }
        for len in (0..body.len()).chain([body.len() + 1]) {
            let mut other = header(kind, len).to_vec();
            other.extend(body.iter().chain([&0]).take(len));
            let (frames, end) = read_all(other.as_slice());
            assert!(frames.is_empty() && end.starts_with("wire: "), "{len} bytes of {frame:?}: {end}");
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
                let error = frame::decode_header(header(kind, 0)).unwrap_err();
                assert_eq!(error.to_string(), format!("unknown frame kind {kind}"));
                continue;
            }
        };
        for len in [0, 1, max] {
            assert_eq!(frame::decode_header(header(kind, len)).unwrap().body_len(), len);
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
fn a_chunk_has_data_and_no_reserved_flags() {
    for len in 0..=CHUNK_HEAD_LEN {
        let bytes = [&header(2, len)[..], &[0; CHUNK_HEAD_LEN][..len]].concat();
        let (frames, end) = read_all(bytes.as_slice());
        assert_eq!((frames, end), (vec![], format!("wire: Chunk frame with only {len} bytes")));
    }
    for flags in 2..=255 {
        // Complete, hardly begun, and one that would be read straight into its own memory.
        for len in [1, 100, MIB] {
            let head = encode_chunk_head(LaneId(0), flags, 0, len);
            let mut reader = FrameReader::new(Script::cut(&[&head[..], &[0]].concat(), &[]));
            let before = reader.memory();
            reader.fill().unwrap();
            let error = end(&reader.next_buffered().unwrap_err());
            assert_eq!(error, format!("wire: chunk with reserved flags set: {flags:#04x}"));
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
            bytes.extend(encode(&Frame::Ping(9)));
            let frames = vec![Frame::Hint, Frame::Ping(9)];
            assert_eq!(read_all(bytes.as_slice()), (frames, "eof".into()));
        }
    }
}

/// Bodies that fit their bound in bytes and break one within.
#[test]
fn counts_within_a_body_are_bounded() {
    let refused = |frame: Frame, told: &str| {
        let (frames, end) = read_all(encode(&frame).as_slice());
        assert!(frames.is_empty());
        assert_eq!(end, format!("wire: {told}"));
    };
    refused(Frame::Hello(hello(65, "")), "the field lanes is 65 long, at most 64 is allowed");
    refused(Frame::Hello(hello(1, &"n".repeat(65))), "the field name is 65 long, at most 64 is allowed");
    refused(Frame::Ack(ack(65)), "the field lanes is 65 long, at most 64 is allowed");
}

#[test]
fn counts_that_lie_are_errors() {
    for count in [3, 65, 1 << 32, u64::MAX] {
        for (frame, at) in [(Frame::Hello(hello(2, "name")), 27), (Frame::Ack(ack(2)), 0)] {
            let mut bytes = encode(&frame);
            bytes[HEADER_LEN + at..][..8].copy_from_slice(&count.to_le_bytes());
            let (frames, end) = read_all(bytes.as_slice());
            assert!(frames.is_empty() && end.starts_with("wire: "), "{end}");
        }
    }
}

#[test]
fn what_the_other_side_would_refuse_is_not_encoded() {
    let mut out = vec![1, 2, 3];
    assert!(hello(1, &"n".repeat(9000)).encode(&mut out).is_err());
    assert!(ack(700).encode(&mut out).is_err());
    assert_eq!(out, [1, 2, 3]);
}

#[test]
fn every_changed_bit_of_a_preface_is_seen() {
    let network = NetworkName::new("net").unwrap();
    for mode in [Mode::Plaintext, Mode::Noise] {
        let ours = Preface { mode, network };
        let check = |theirs: [u8; PREFACE_LEN]| {
            ours.check_opening(theirs.first_chunk().unwrap())?;
            ours.check_network(theirs.last_chunk().unwrap())
        };
        let bytes = ours.encode();
        assert_eq!(check(bytes), Ok(()));
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes;
            changed[bit / 8] ^= 1 << (bit % 8);
            let error = check(changed).unwrap_err();
            let seen = match bit / 8 {
                0..8 => error == PrefaceError::Magic,
                8..10 => matches!(error, PrefaceError::Version(_)),
                10..12 => matches!(error, PrefaceError::Mode { .. }),
                _ => matches!(error, PrefaceError::Network { .. }),
            };
            assert!(seen, "bit {bit}: {error}");
        }
    }
}

#[test]
fn what_is_wrong_with_a_mode_is_said_with_both_names() {
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
    let ours = Preface { mode: Mode::Noise, network: NetworkName::new("other").unwrap() };
    let error =
        ours.check_network(b"net".iter().copied().chain([0; 29]).collect::<Vec<_>>().first_chunk().unwrap());
    let error = error.unwrap_err().to_string();
    assert_eq!(error, r#"the other side belongs to network "net", this side to "other""#);
}
