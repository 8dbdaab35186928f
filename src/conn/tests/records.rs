//! Records: however they are cut, the same frames come out, and nothing that was not sealed.

use std::io::{self, IoSlice, Read, Write};

use super::*;
use crate::conn::record::{MAX_BUFFER, Opener, REKEY_AFTER, RecordError, Sealer};
use crate::conn::writer::write_batch;
use crate::lane::LaneId;
use crate::wire::batch::Batch;
use crate::wire::frame::Frame;
use crate::wire::reader::{FrameReader, Got, ReadError};

const TAG: usize = 16;

/// Frames of all sizes that are treated differently: many in one record, one in many.
fn batch() -> (Batch, Vec<Frame>) {
    let mut batch = Batch::default();
    let mut frames = Vec::new();
    for (at, len) in [1, 100, 3000, 16_384 - 31, 40_000, 8192, 150_000].into_iter().enumerate() {
        let payload: Vec<u8> = (0..len).map(|n| (n * 7 + at) as u8).collect();
        let chunk = batch.open_chunk();
        batch.push_bytes(&payload.clone().into(), 0..len);
        batch.close_chunk(chunk, LaneId(at as u8), 0, 5);
        frames.push(Frame::Chunk { lane: LaneId(at as u8), flags: 0, offset: 5, data: payload.into() });
        batch.push_slice(&ping(at as u64));
        frames.push(Frame::ping(at as u64));
    }
    (batch, frames)
}

fn ping(nonce: u64) -> Vec<u8> {
    [[4, 8, 0, 0].as_slice(), &nonce.to_le_bytes()].concat()
}

fn pings(count: u64) -> Batch {
    let mut batch = Batch::default();
    (0..count).for_each(|nonce| batch.push_slice(&ping(nonce)));
    batch
}

fn seal(sealer: &mut Sealer, batch: &Batch) -> Vec<u8> {
    let mut sealed = Vec::new();
    sealer.append(batch, &mut sealed).unwrap();
    sealed
}

/// The records of a stream, each with its length.
fn records(mut sealed: &[u8]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    while let Some((length, _)) = sealed.split_first_chunk() {
        let (record, behind) = sealed.split_at(2 + usize::from(u16::from_le_bytes(*length)));
        records.push(record.to_vec());
        sealed = behind;
    }
    records
}

/// Everything that comes out, and how it ends.
fn read_all(source: impl Read) -> (Vec<Frame>, ReadError) {
    let mut reader = FrameReader::new(Opener::new(source, key(7)));
    let mut frames = Vec::new();
    loop {
        match reader.next_buffered() {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => {
                if let Err(error) = reader.fill() {
                    return (frames, error);
                }
            }
            Err(error) => return (frames, error),
        }
    }
}

/// Returns a few bytes at a time.
struct Slow<'a, F>(&'a [u8], F);

impl<F: FnMut() -> usize> Read for Slow<'_, F> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        assert!(!to.is_empty());
        let len = to.len().min((self.1)());
        self.0.read(&mut to[..len])
    }
}

#[test]
fn however_the_reads_fall_the_same_frames_come_out() {
    let (batch, frames) = batch();
    let sealed = seal(&mut Sealer::new(key(7)), &batch);
    for at_most in [1, 2, 17, 1000, 4096, 16_402, 65_536, usize::MAX] {
        let (got, end) = read_all(Slow(&sealed, || at_most));
        assert!(got == frames && matches!(end, ReadError::Eof), "reads of {at_most}: {end:?}");
    }
    let mut rng = fastrand::Rng::with_seed(1);
    for round in 0..50 {
        let (got, end) = read_all(Slow(&sealed, || {
            let bits = rng.u32(1..18);
            rng.usize(1..1 << bits)
        }));
        assert!(got == frames && matches!(end, ReadError::Eof), "round {round}: {end:?}");
    }
}

#[test]
fn every_cut_and_every_pair_of_cuts_gives_the_same_frames() {
    let mut sealer = Sealer::new(key(7));
    let sealed =
        [seal(&mut sealer, &pings(3)), seal(&mut sealer, &pings(1)), seal(&mut sealer, &pings(2))].concat();
    let nonces = [0, 1, 2, 0, 0, 1].map(Frame::ping);
    for first in 0..=sealed.len() {
        for second in first..=sealed.len() {
            let mut parts = [&sealed[..first], &sealed[first..second], &sealed[second..]]
                .into_iter()
                .filter(|part| !part.is_empty());
            let mut part: &[u8] = &[];
            let source = FromFn(|to: &mut [u8]| {
                if part.is_empty() {
                    part = parts.next().unwrap_or_default();
                }
                part.read(to)
            });
            let (got, end) = read_all(source);
            assert!(
                got == nonces && matches!(end, ReadError::Eof),
                "cut at {first}, {second}: {got:?} {end:?}"
            );
        }
    }
}

struct FromFn<F>(F);

impl<F: FnMut(&mut [u8]) -> io::Result<usize>> Read for FromFn<F> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        (self.0)(to)
    }
}

#[test]
fn a_truncated_stream_gives_what_came_whole_and_is_torn() {
    let (batch, frames) = batch();
    let sealed = seal(&mut Sealer::new(key(7)), &batch);
    for at in (0..sealed.len()).step_by(97).chain([1, 2, 3, sealed.len() - 1]) {
        let (got, end) = read_all(&sealed[..at]);
        assert!(got.len() < frames.len() && got == frames[..got.len()], "{at}");
        let between = at == 0;
        assert!(matches!(end, ReadError::Torn) || between && matches!(end, ReadError::Eof), "{at}: {end:?}");
    }
}

#[test]
fn no_flipped_bit_gets_through() {
    let mut sealer = Sealer::new(key(7));
    let stream: Vec<u8> = (0..4).flat_map(|_| seal(&mut sealer, &pings(2))).collect();
    let frames: Vec<Frame> = (0..8).map(|n| Frame::ping(n % 2)).collect();
    let record = 2 + 24 + TAG;
    for bit in 0..stream.len() * 8 {
        let mut spoiled = stream.clone();
        spoiled[bit / 8] ^= 1 << (bit % 8);
        let (got, end) = read_all(spoiled.as_slice());
        // All records before the spoiled one, and no frame of it or of those behind it.
        let whole = bit / 8 / record;
        assert!(got == frames[..whole * 2], "bit {bit}: {got:?}");
        match end {
            ReadError::Record(text) => {
                assert!(text.contains("does not authenticate") || text.contains("a record of"), "{text}");
            }
            // The length says that more must come.
            ReadError::Torn => assert!(bit / 8 % record < 2),
            end => panic!("bit {bit}: {end:?}"),
        }
    }
}

#[test]
fn records_left_out_repeated_or_swapped_do_not_open() {
    let mut sealer = Sealer::new(key(7));
    let records: Vec<Vec<u8>> = (0..4).map(|_| seal(&mut sealer, &pings(1))).collect();
    for (order, whole) in
        [(&[0, 1, 2, 3][..], 4), (&[1], 0), (&[0, 2], 1), (&[0, 0], 1), (&[0, 1, 0], 2), (&[0, 2, 1, 3], 1)]
    {
        let stream: Vec<u8> = order.iter().flat_map(|at| records[*at].clone()).collect();
        let (got, end) = read_all(stream.as_slice());
        assert_eq!(got.len(), whole, "{order:?}");
        assert_eq!(
            matches!(&end, ReadError::Record(text) if text.contains("left out")),
            whole < 4,
            "{end:?}"
        );
    }
    // Another connection's.
    let other = seal(&mut Sealer::new(key(8)), &pings(1));
    assert!(matches!(read_all(other.as_slice()), (got, ReadError::Record(_)) if got.is_empty()));
}

#[test]
fn after_a_broken_record_nothing_comes_any_more() {
    let mut sealer = Sealer::new(key(7));
    let (good, mut bad) = (seal(&mut sealer, &pings(1)), seal(&mut sealer, &pings(1)));
    bad[5] ^= 1;
    let stream = [good, bad, seal(&mut sealer, &pings(1))].concat();
    let mut reader = FrameReader::new(Opener::new(stream.as_slice(), key(7)));
    reader.fill().unwrap();
    assert_eq!(reader.next_buffered().unwrap(), Some(Frame::ping(0)));
    for _ in 0..5 {
        assert!(matches!(reader.fill(), Err(ReadError::Record(_))));
        assert!(matches!(reader.next_buffered(), Ok(None)));
    }
}

#[test]
fn a_record_without_content_is_refused() {
    for len in 0..=TAG as u16 {
        let record = [&len.to_le_bytes()[..], &vec![0; usize::from(len)]].concat();
        let (_, end) = read_all(record.as_slice());
        assert!(matches!(&end, ReadError::Record(text) if text.contains("at least 17")), "{len}: {end:?}");
    }
    // Not even one that authenticates.
    let tag = key(7).unwrap().seal(0, &[], &mut []).unwrap();
    assert!(matches!(read_all([&[16, 0][..], &tag].concat().as_slice()), (_, ReadError::Record(_))));
}

#[test]
fn small_frames_share_a_record_and_records_are_full() {
    let sealed = seal(&mut Sealer::new(key(7)), &pings(1000));
    assert_eq!(sealed.len(), 1000 * 12 + 2 + TAG);
    let (batch, _) = batch();
    let sealed = records(&seal(&mut Sealer::new(key(7)), &batch));
    assert_eq!(sealed.len(), batch.len().div_ceil(16 * 1024));
}

#[test]
fn the_greatest_record_is_taken() {
    let text: Vec<u8> = (0..5500).flat_map(ping).take(65_535 - TAG).collect();
    let mut sealed = text.clone();
    let tag = key(7).unwrap().seal(0, &[], &mut sealed).unwrap();
    let stream = [&u16::MAX.to_le_bytes()[..], &sealed, &tag].concat();
    for at_most in [1000, 4096, usize::MAX] {
        let (got, end) = read_all(Slow(&stream, || at_most));
        assert_eq!(got.len(), text.len() / 12);
        assert!(matches!(end, ReadError::Torn), "inside a frame: {end:?}");
    }
}

#[test]
fn a_write_keeps_its_place_whatever_the_socket_takes() {
    /// Takes a few bytes at a time, as a full socket does.
    struct Full(Vec<u8>, fastrand::Rng);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.1.u8(..4) == 0 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let len = bytes.len().min(self.1.usize(1..3000));
            self.0.extend_from_slice(&bytes[..len]);
            Ok(len)
        }
        fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            self.write(&slices[0])
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    #[allow(clippy::disallowed_methods)] // Some instant to start from.
    let (batch, frames) = batch();
    let mut sealer = Sealer::new(key(7));
    let mut socket = Full(Vec::new(), fastrand::Rng::with_seed(3));
    let count = write_batch(&mut socket, &mut sealer, &batch, || false).unwrap();
    assert_eq!(count, socket.0.len());
    assert!(read_all(socket.0.as_slice()).0 == frames);
    let late = write_batch(&mut socket, &mut sealer, &batch, || true).unwrap_err();
    assert_eq!(late.kind(), io::ErrorKind::TimedOut);
}

/// Past two changes of the key, and `snow` on the other side agrees.
#[test]
fn keys_are_replaced_as_noise_says() {
    let (keys, mut stock) = keys_and_stock();
    let mut sealer = Sealer::new(Some(keys.ours));
    let (one, mut buffer, mut back) = (pings(1), [0; 64], Vec::new());
    for number in 1..=2 * REKEY_AFTER + 2 {
        let record = seal(&mut sealer, &one);
        let len = stock.read_message(&record[2..], &mut buffer).unwrap();
        assert_eq!(buffer[..len], ping(0));
        let len = stock.write_message(&ping(number), &mut buffer).unwrap();
        back.extend_from_slice(&(len as u16).to_le_bytes());
        back.extend_from_slice(&buffer[..len]);
        if number % REKEY_AFTER == 0 {
            stock.rekey_incoming();
            stock.rekey_outgoing();
        }
    }
    let mut reader = FrameReader::new(Opener::new(back.as_slice(), Some(keys.theirs)));
    for number in 1..=2 * REKEY_AFTER + 2 {
        let frame = loop {
            match reader.next_buffered().unwrap() {
                Some(frame) => break frame,
                None => reader.fill().unwrap(),
            };
        };
        assert_eq!(frame, Frame::ping(number));
    }
}

#[test]
fn a_number_is_never_used_twice_even_at_the_end_of_all() {
    let mut sealer = Sealer::new(key(7));
    let Sealer::Noise(sealing) = &mut sealer else { panic!("not encrypted") };
    sealing.go_on_at(u64::MAX - 1);
    assert!(!seal(&mut sealer, &pings(1)).is_empty(), "the last but one");
    for _ in 0..3 {
        assert_eq!(sealer.append(&pings(1), &mut Vec::new()), Err(RecordError::Exhausted));
    }
}

#[test]
fn a_length_reserves_nothing() {
    let mut opener = Opener::new([0xff, 0xff, 1].as_slice(), key(7));
    let Opener::Noise(opening) = &mut opener else { panic!("not encrypted") };
    let before = opening.memory();
    assert!(opening.read(1000, |bytes| assert!(bytes.is_empty())).is_ok());
    assert_eq!(opening.memory(), before);
}

/// Found by fuzzing: a vector that grows by its own rule took 128 KiB for 80.
#[test]
fn the_buffer_takes_no_more_than_it_says() {
    let mut sealer = Sealer::new(key(7));
    let sealed: Vec<u8> = (0..8).flat_map(|_| seal(&mut sealer, &batch().0)).collect();
    let mut opener = Opener::new(sealed.as_slice(), key(7));
    let Opener::Noise(opening) = &mut opener else { panic!("not encrypted") };
    let mut most = 0;
    while opening.read(10_000, |_| {}).unwrap() != Got::plain(0) {
        most = most.max(opening.memory());
    }
    assert_eq!(most, MAX_BUFFER);
}
