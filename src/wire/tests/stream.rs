//! The stream of a lane: however it is cut into chunks, the same messages come out.

use super::*;
use crate::wire::stream::{Header, MAX_HEADER, MAX_PAYLOAD, MessageKind, Parser, StreamError};

type Messages = Vec<(MessageKind, Vec<u8>)>;

const KINDS: [MessageKind; 4] = [
    MessageKind::Message,
    MessageKind::Request { id: 0x0123_4567_89AB_CDEF, wait_ms: u32::MAX },
    MessageKind::Reply { id: u64::MAX },
    MessageKind::Expiring { at: 0x0123_4567_89AB_CDEF },
];

fn stream_of(messages: &Messages) -> Bytes {
    let write = |(kind, payload): &(MessageKind, Vec<u8>)| {
        let header = Header::new(*kind, payload.len());
        assert_eq!(header.as_bytes().len(), kind.header_len());
        [header.as_bytes(), payload].concat()
    };
    messages.iter().flat_map(write).collect()
}

/// Every call takes a byte or gives a message, or else the loop around it would never end.
fn feed(parser: &mut Parser, mut data: Bytes, messages: &mut Messages) -> Result<(), StreamError> {
    while !data.is_empty() {
        let before = data.len();
        let message = parser.next(&mut data)?;
        assert!(data.len() < before, "no progress with {before} bytes left");
        if let Some((kind, payload)) = message {
            let whole = payload.clone().into_bytes().to_vec();
            assert_eq!(payload.len(), whole.len());
            assert!(payload == whole[..]);
            messages.push((kind, whole));
        }
    }
    Ok(())
}

fn parse(stream: &Bytes, cuts: &[usize]) -> Messages {
    let (mut parser, mut messages, mut from) = (Parser::new(MIB), Vec::new(), 0);
    for to in cuts.iter().copied().chain([stream.len()]) {
        feed(&mut parser, stream.slice(from..to), &mut messages).unwrap();
        from = to;
    }
    messages
}

fn short_messages() -> Messages {
    let payloads = [0, 1, 2, 5, 17];
    KINDS.into_iter().flat_map(|kind| payloads.map(|len| (kind, noise(len).to_vec()))).collect()
}

#[test]
fn every_cut_and_every_pair_of_cuts_gives_the_same_messages() {
    let messages = short_messages();
    let stream = stream_of(&messages);
    for first in 0..=stream.len() {
        for second in first..=stream.len() {
            assert!(parse(&stream, &[first, second]) == messages, "cut at {first}, {second}");
        }
    }
    assert_eq!(parse(&stream, &(0..stream.len()).collect::<Vec<_>>()), messages);
}

#[test]
fn every_length_of_payload_survives() {
    for kind in KINDS {
        let messages: Messages = (0..=300).map(|len| (kind, noise(len).to_vec())).collect();
        assert_eq!(parse(&stream_of(&messages), &[]), messages);
        let large = vec![(kind, noise(MIB).to_vec()), (kind, vec![])];
        let stream = stream_of(&large);
        let cuts: Vec<usize> = (0..stream.len()).step_by(16 * KIB - 1).collect();
        assert!(parse(&stream, &cuts) == large);
    }
}

proptest! {
    #![proptest_config(config(64))]

    #[test]
    fn random_messages_survive_random_cuts(
        messages in prop::collection::vec((0..4u8, any::<u64>(), any::<u32>(), 0..3000usize), 1..30),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..100),
    ) {
        let message = |(kind, id, wait_ms, len)| {
            let kind = match kind {
                0 => MessageKind::Message,
                1 => MessageKind::Request { id, wait_ms },
                2 => MessageKind::Reply { id },
                _ => MessageKind::Expiring { at: id },
            };
            (kind, noise(len).to_vec())
        };
        let messages: Messages = messages.into_iter().map(message).collect();
        let stream = stream_of(&messages);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.index(stream.len())).collect();
        cuts.sort_unstable();
        prop_assert!(parse(&stream, &cuts) == messages);
    }

    #[test]
    fn random_bytes_do_no_harm_and_are_seen_alike_however_they_are_cut(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        tag in 0..4u8,
        size in 1..20usize,
    ) {
        // Short lengths, or nearly every stream would end with the first word.
        let mut bytes = bytes;
        bytes.iter_mut().skip(1).for_each(|byte| *byte &= 0x11 * tag);
        let run = |size| {
            let (mut parser, mut messages) = (Parser::new(100), Vec::new());
            let mut parts = bytes.chunks(size).map(Bytes::copy_from_slice);
            let result = parts.try_for_each(|part| feed(&mut parser, part, &mut messages));
            (messages, result)
        };
        prop_assert_eq!(run(size), run(bytes.len().max(1)));
    }
}

/// The first bad word is refused as soon as it is there, by itself, and for good.
fn refused_from_the_word(word: u32, max: usize, expected: StreamError) {
    let word = word.to_le_bytes();
    for cut in 0..4 {
        let mut parser = Parser::new(max);
        assert!(parser.next(&mut Bytes::copy_from_slice(&word[..cut])).unwrap().is_none());
        let mut rest = Bytes::copy_from_slice(&word[cut..]);
        assert_eq!(parser.next(&mut rest).unwrap_err(), expected);
        assert_eq!(parser.next(&mut Bytes::from_static(&[0; 40])).unwrap_err(), expected);
    }
}

#[test]
fn a_message_that_is_too_large_is_refused_from_its_header() {
    for tag in 0..4 {
        for (len, max) in [(1, 0), (1001, 1000), (MAX_PAYLOAD, MAX_PAYLOAD - 1), (MAX_PAYLOAD, 0)] {
            let word = (tag << 28) | len as u32;
            refused_from_the_word(word, max, StreamError::TooLarge { len, max });
        }
    }
}

#[test]
fn the_largest_message_is_accepted_and_nothing_is_reserved_for_it() {
    for kind in KINDS {
        let mut parser = Parser::new(MAX_PAYLOAD);
        let header = Header::new(kind, MAX_PAYLOAD);
        assert!(header.as_bytes().len() <= MAX_HEADER);
        let mut data = Bytes::copy_from_slice(header.as_bytes());
        assert!(parser.next(&mut data).unwrap().is_none());
        assert!(parser.next(&mut noise(10)).unwrap().is_none());
        let missing = format!(", {}, Payload", MAX_PAYLOAD - 10);
        assert!(format!("{parser:?}").contains(&missing), "{parser:?}");
    }
}

#[test]
fn an_unknown_kind_is_refused_from_its_header() {
    for tag in 4..16u32 {
        for len in [0, 1, MAX_PAYLOAD as u32] {
            refused_from_the_word((tag << 28) | len, MAX_PAYLOAD, StreamError::UnknownKind(tag as u8));
        }
    }
}

#[test]
fn large_pieces_are_not_copied_and_crumbs_are_joined() {
    let payload = noise(100_000);
    let stream = stream_of(&vec![(KINDS[0], payload.to_vec())]);
    let pieces_of = |size: usize| {
        let mut parser = Parser::new(MIB);
        let parts = (0..stream.len()).step_by(size).map(|at| stream.slice(at..(at + size).min(stream.len())));
        let message = parts.filter_map(|mut part| parser.next(&mut part).unwrap()).next();
        let (_, payload) = message.unwrap();
        payload.pieces().map(|piece| (piece.as_ptr(), piece.len())).collect::<Vec<_>>()
    };
    let within = stream.as_ptr_range();
    assert!(pieces_of(20_000).iter().all(|(piece, _)| within.contains(piece)));
    for crumb in [1, 2, 7, 100, 511] {
        assert!(pieces_of(crumb).len() <= 100_000 / 512 + 1, "pieces of {crumb} bytes");
    }
}
