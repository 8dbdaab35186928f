//! The writer gets what was pushed, whatever part of it was written before.

use std::io::IoSlice;

use super::*;
use crate::wire::batch::{Batch, MAX_PIECES};

fn slices(batch: &Batch, skip: usize) -> Vec<IoSlice<'_>> {
    let mut out = Vec::new();
    batch.slices(skip, &mut out);
    out
}

fn tail(batch: &Batch, skip: usize) -> Vec<u8> {
    slices(batch, skip).iter().flat_map(|slice| slice.to_vec()).collect()
}

/// Small and large, next to each other in every order, with empty ones between.
fn mixed() -> (Batch, Vec<u8>) {
    let (mut batch, mut expected) = (Batch::default(), Vec::new());
    let source = noise(9000);
    for len in [0, 3, 2048, 2049, 0, 1, 2047, 0, 2500, 10, 0] {
        batch.push_bytes(&source, len..len + len);
        expected.extend_from_slice(&source[len..len + len]);
        batch.push_slice(&source[..len % 7]);
        expected.extend_from_slice(&source[..len % 7]);
    }
    (batch, expected)
}

#[test]
fn slices_from_anywhere_are_the_tail() {
    let (batch, expected) = mixed();
    assert_eq!(batch.len(), expected.len());
    assert_eq!(batch.to_vec(), expected);
    for skip in 0..=expected.len() {
        assert!(tail(&batch, skip) == expected[skip..], "skip {skip}");
        assert!(slices(&batch, skip).iter().all(|slice| !slice.is_empty()));
    }
    assert!(slices(&batch, expected.len() + 1).is_empty());
}

#[test]
fn payloads_are_shared_from_2048_bytes_on() {
    let source = noise(5000);
    for (len, shared) in [(1, false), (2047, false), (2048, true), (4000, true)] {
        let mut batch = Batch::default();
        batch.push_slice(b"head");
        batch.push_bytes(&source, 500..500 + len);
        let slices = slices(&batch, 0);
        assert_eq!(slices.len(), if shared { 2 } else { 1 });
        assert_eq!(slices.last().unwrap().as_ptr() == source[500..].as_ptr(), shared);
        assert_eq!(batch.len(), 4 + len);
    }
}

#[test]
fn small_neighbours_are_one_piece() {
    let mut batch = Batch::default();
    (0..5000).for_each(|_| batch.push_slice(b"12345"));
    assert_eq!(slices(&batch, 0).len(), 1);
    assert_eq!(batch.len(), 25_000);
}

#[test]
fn more_pieces_than_one_write_takes_are_written_in_turns() {
    let source = noise(5000);
    let (mut batch, mut expected) = (Batch::default(), Vec::new());
    for at in 0..1500 {
        batch.push_slice(&[1, 2]);
        batch.push_bytes(&source, at..at + 2048);
        expected.extend([&[1, 2], &source[at..at + 2048]].concat());
    }
    let (mut written, mut writes) = (Vec::new(), 0);
    while written.len() < batch.len() {
        let slices = slices(&batch, written.len());
        assert!(slices.len() <= MAX_PIECES);
        slices.iter().for_each(|slice| written.extend_from_slice(slice));
        writes += 1;
    }
    assert!(written == expected);
    assert_eq!(writes, 3);
}

/// Fills a batch while it has room, as a writer does: with the first message cut anywhere, chunks that
/// hold any number of messages, and control frames before, between and behind.
#[test]
fn a_batch_within_its_room_fits_one_write() {
    let source = noise(2048);
    for per_chunk in [1, 2, 3, 1000] {
        for first in [0, 100, 2048] {
            for control_every in [1, 2, 5, 1000] {
                let mut batch = Batch::default();
                let mut chunks = 0;
                while batch.has_room() {
                    if chunks % control_every == 0 {
                        batch.push_slice(b"control");
                    }
                    let open = batch.open_chunk();
                    assert!(batch.has_room(), "the chunk would be empty");
                    if chunks == 0 {
                        batch.push_bytes(&source, 0..first);
                    }
                    let mut messages = 0;
                    while messages < per_chunk && batch.has_room() {
                        batch.push_slice(b"header");
                        batch.push_bytes(&source, 0..2048);
                        messages += 1;
                    }
                    assert!(messages > 0);
                    assert!(batch.chunk_len(&open) >= 2048);
                    batch.close_chunk(open, LaneId(0), 0, 0);
                    chunks += 1;
                }
                batch.push_slice(b"acknowledgement");
                batch.push_slice(b"goaway");
                let pieces = slices(&batch, 0);
                assert_eq!(pieces.iter().map(|piece| piece.len()).sum::<usize>(), batch.len());
                assert!(pieces.len() > MAX_PIECES - 8, "{} pieces: room is wasted", pieces.len());
            }
        }
    }
}

#[test]
fn a_chunk_may_be_opened_whatever_was_pushed_while_there_is_room() {
    let source = noise(2048);
    for two_in_a_row in 0..4 {
        let mut batch = Batch::default();
        (0..two_in_a_row).for_each(|_| batch.push_bytes(&source, 0..2048));
        while batch.has_room() {
            let open = batch.open_chunk();
            assert!(batch.has_room());
            batch.push_bytes(&source, 0..2048);
            batch.close_chunk(open, LaneId(0), 0, 0);
        }
        assert!(slices(&batch, 0).len() < MAX_PIECES);
    }
}

#[test]
fn a_failed_push_leaves_nothing() {
    let mut batch = Batch::default();
    batch.push_slice(b"before ");
    let result = batch.push_with(|out| {
        out.extend_from_slice(b"half a fra");
        Err("no")
    });
    assert_eq!(result, Err("no"));
    batch.push_slice(b"after");
    assert_eq!(batch.to_vec(), b"before after");
    assert_eq!(batch.len(), 12);
    assert_eq!(slices(&batch, 0).len(), 1);
}

#[test]
fn a_cleared_batch_is_as_good_as_new_and_gives_a_burst_back() {
    let (mut batch, expected) = mixed();
    batch.push_slice(&vec![7; 5 * MIB]);
    assert!(!batch.is_empty());
    batch.clear();
    assert!(batch.is_empty() && slices(&batch, 0).is_empty());
    assert!(batch.capacity() <= MIB);
    let source = Bytes::from(expected.clone());
    batch.push_bytes(&source, 0..10);
    batch.push_bytes(&source, 10..expected.len());
    assert!(batch.to_vec() == expected);
}

#[test]
fn a_chunk_is_closed_with_its_own_length_and_place() {
    let source = noise(3000);
    let mut batch = Batch::default();
    let mut frames = Vec::new();
    for (lane, len) in [(1, 1), (2, 2047), (3, 2048), (4, 3000), (5, 7)] {
        let mut ping = Vec::new();
        encode_ping(len as u64, 0, &mut ping);
        batch.push_slice(&ping);
        let open = batch.open_chunk();
        assert_eq!(batch.chunk_len(&open), 0);
        batch.push_slice(b"header");
        batch.push_bytes(&source, 0..len);
        assert_eq!(batch.chunk_len(&open), 6 + len);
        batch.close_chunk(open, LaneId(lane), lane & 1, 1 << lane);
        let data = [b"header", &source[..len]].concat().into();
        frames.push(Frame::ping(len as u64));
        frames.push(Frame::Chunk { lane: LaneId(lane), flags: lane & 1, offset: 1 << lane, data });
    }
    assert!(read_all(batch.to_vec().as_slice()) == (frames, "eof".into()));
}

proptest! {
    #![proptest_config(config(64))]

    #[test]
    fn random_pushes_come_out_in_order(
        pushes in prop::collection::vec((0..5000usize, any::<bool>()), 0..60),
        steps in prop::collection::vec(1..9000usize, 1..20),
    ) {
        let source = noise(5000);
        let (mut batch, mut expected) = (Batch::default(), Vec::new());
        for (len, copied) in pushes {
            if copied {
                batch.push_slice(&source[..len]);
            } else {
                batch.push_bytes(&source, 0..len);
            }
            expected.extend_from_slice(&source[..len]);
        }
        prop_assert!(batch.to_vec() == expected);
        // As a socket takes it that is full at any byte.
        let (mut written, mut steps) = (Vec::new(), steps.into_iter().cycle());
        while written.len() < batch.len() {
            let taken = steps.next().unwrap();
            let slices = slices(&batch, written.len());
            let front: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).take(taken).collect();
            written.extend(front);
        }
        prop_assert!(written == expected);
    }
}
