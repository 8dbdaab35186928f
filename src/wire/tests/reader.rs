//! However a stream is cut into reads, the same frames come out.

use std::cell::Cell;

use super::*;

#[test]
fn every_cut_and_every_pair_of_cuts_gives_the_same_frames() {
    let frames = small_frames();
    let bytes = encode_all(&frames);
    let whole = (frames, "eof".to_string());
    for first in 0..=bytes.len() {
        for second in first..=bytes.len() {
            assert!(read_all(Script::cut(&bytes, &[first, second])) == whole, "cut at {first}, {second}");
        }
    }
}

/// Frames of all sizes that are treated differently, one after the other.
fn mixed_sizes() -> Vec<Frame> {
    let around = |size: usize| [size - 15, size - 14, size - 13, size - 1, size, size + 1];
    let sizes = [vec![1, 2047, 2048], [4, 8, 16, 64, 72].map(|n| around(n * KIB)).concat()].concat();
    let mut frames = Vec::new();
    for (at, len) in sizes.into_iter().enumerate() {
        frames.extend([chunk(at as u8, 0, 0, len), Frame::ping(at as u64)]);
    }
    frames.extend([chunk(0, 1, 7, 512 * KIB), Frame::Ack(ack(64)), chunk(0, 1, 7, MIB), Frame::Extension]);
    frames
}

#[test]
fn every_size_of_read_gives_the_same_frames() {
    let frames = mixed_sizes();
    let bytes = encode_all(&frames);
    let whole = (frames, "eof".to_string());
    for at_most in [1, 3, 1000, 4095, 4096, 10_007, 65_535, 65_536, usize::MAX] {
        // A reader, not a script: a script copies what it has left.
        struct Slow<'a>(&'a [u8], usize);
        impl Read for Slow<'_> {
            fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
                assert!(!to.is_empty());
                let len = to.len().min(self.1);
                self.0.read(&mut to[..len])
            }
        }
        assert!(read_all(Slow(&bytes, at_most)) == whole, "reads of {at_most} bytes");
    }
}

/// A chunk whose beginning comes to lie at every place of a buffer that has grown to its full size (the
/// first reads fill 0.5, 2, 8, 32 and 64 KiB), so that anything from nothing to all of it is missing.
#[test]
fn a_chunk_may_straddle_the_end_of_the_buffer_anywhere() {
    let pings = encode_all(&vec![Frame::ping(1); 10_000]);
    for total in [15, 8 * KIB, 57 * KIB, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 70 * KIB, 80 * KIB] {
        let straddler = chunk(1, 0, 5, total - 14);
        let tail = encode_all(&[straddler.clone(), Frame::pong(1)]);
        let near_the_end = 109_020..109_070;
        for before in (20_000..near_the_end.start).step_by(499).chain(near_the_end) {
            let count = (before - 15) / 12;
            let filler = chunk(0, 0, 0, before - count * 12 - 14);
            let bytes = [&pings[..count * 12], &encode(&filler), &tail].concat();
            let (frames, end) = read_all(bytes.as_slice());
            assert_eq!((frames.len(), end.as_str()), (count + 3, "eof"), "{total} bytes behind {before}");
            assert!(frames[count..] == [filler, straddler.clone(), Frame::pong(1)]);
        }
    }
}

/// Small frames fill the buffer completely, so that it has grown when the large one comes.
#[test]
fn a_chunk_may_end_anywhere_behind_a_full_buffer() {
    let small = vec![chunk(0, 0, 0, 1000 - 14); 90];
    for len in (64 * KIB - 20..64 * KIB + 20).chain([72 * KIB - 1, 72 * KIB, 72 * KIB + 1]) {
        let mut frames = small.clone();
        frames.extend([chunk(1, 1, 1, len), Frame::ping(1), chunk(1, 1, 1, len), Frame::pong(2)]);
        assert!(read_all(Script::cut(&encode_all(&frames), &[])) == (frames, "eof".into()), "{len} bytes");
    }
}

#[test]
fn an_interrupted_read_is_repeated_and_a_timeout_can_be_resumed() {
    let frames = [small_frames(), vec![chunk(0, 0, 0, 40 * KIB)], small_frames()].concat();
    let bytes = encode_all(&frames);
    let mut cuts: Vec<usize> = (0..400).collect();
    cuts.extend((400..bytes.len()).step_by(1013));
    cuts.extend(bytes.len() - 400..bytes.len());
    cuts.sort_unstable();
    for kind in [io::ErrorKind::Interrupted, io::ErrorKind::WouldBlock] {
        let mut script = Script::default();
        for step in Script::cut(&bytes, &cuts).steps {
            script.steps.extend([Step::Fail(kind), Step::Fail(kind), step]);
        }
        assert!(read_all(script) == (frames.clone(), "eof".into()));
    }
}

#[test]
fn an_error_of_the_source_is_handed_on() {
    let bytes = encode(&chunk(0, 0, 0, 20 * KIB));
    for cut in [0, 2, 14, 1000, 15 * KIB] {
        let mut script = Script::cut(&bytes[..cut], &[]);
        script.steps.push_back(Step::Fail(io::ErrorKind::ConnectionReset));
        let (frames, end) = read_all(script);
        assert!(frames.is_empty() && end.starts_with("io: "), "{end}");
    }
}

#[test]
fn a_stream_that_ends_in_a_large_chunk_is_torn() {
    let bytes = encode_all(&[Frame::ping(1), chunk(0, 0, 0, 100 * KIB)]);
    for len in [12, 13, 15, 26, 27, 4096, 60 * KIB, bytes.len() - 1] {
        let end = if len == 12 { "eof" } else { "torn" };
        assert_eq!(read_all(&bytes[..len]), (vec![Frame::ping(1)], end.into()));
    }
}

#[test]
fn a_reader_knows_whether_it_is_inside_a_frame() {
    for frame in [Frame::ping(1), chunk(0, 0, 0, 100), chunk(0, 0, 0, 20 * KIB)] {
        let bytes = encode(&frame);
        let mut reader = FrameReader::new(Script::at_most(&bytes, 5));
        let mut read = 0;
        loop {
            assert_eq!(reader.inside_frame(), read > 0);
            read += reader.fill().unwrap();
            if reader.next_buffered().unwrap().is_some() {
                break;
            }
        }
        assert!(!reader.inside_frame());
        assert_eq!(read, bytes.len());
    }
}

#[test]
fn memory_starts_small_and_grows_with_what_arrives() {
    let pings = encode_all(&vec![Frame::ping(1); 10]);
    let mut reader = FrameReader::new(pings.as_slice());
    reader.fill().unwrap();
    while reader.next_buffered().unwrap().is_some() {}
    assert_eq!(reader.memory(), KIB / 2);
    // Many small frames at full speed: one buffer of 64 KiB, however many there are.
    let pings = encode_all(&vec![Frame::ping(1); 100_000]);
    let mut reader = FrameReader::new(pings.as_slice());
    while reader.fill().is_ok() {
        while reader.next_buffered().unwrap().is_some() {}
    }
    assert_eq!(reader.memory(), 64 * KIB);
}

#[test]
fn a_chunk_never_takes_more_than_its_length() {
    let bytes = encode(&chunk(0, 0, 0, MIB));
    let mut reader = FrameReader::new(bytes.as_slice());
    loop {
        if let Some(frame) = reader.next_buffered().unwrap() {
            assert!(frame == chunk(0, 0, 0, MIB));
            break;
        }
        // No more is cleared ahead than that.
        assert!(reader.fill().unwrap() <= 64 * KIB);
        assert!(reader.memory() <= KIB / 2 + MIB);
    }
    assert_eq!(reader.memory(), KIB / 2);
}

proptest! {
    #![proptest_config(config(40))]

    #[test]
    fn random_cuts_give_the_same_frames(
        frames in prop::collection::vec(any_frame(100 * KIB), 1..12),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
        pause in any::<bool>(),
    ) {
        let bytes = encode_all(&frames);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.index(bytes.len())).collect();
        cuts.sort_unstable();
        let mut script = Script::cut(&bytes, &cuts);
        if pause {
            let steps = script.steps.drain(..).flat_map(|step| [step, Step::Fail(io::ErrorKind::WouldBlock)]);
            script.steps = steps.collect();
        }
        prop_assert!(read_all(script) == (frames, "eof".into()));
    }

    #[test]
    fn random_damage_is_seen_alike_however_the_stream_is_cut(
        frames in prop::collection::vec(any_frame(20 * KIB), 1..6),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        at_most in 1..30_000usize,
    ) {
        let mut bytes = encode_all(&frames);
        for (at, value) in damage {
            *at.get_mut(&mut bytes) = value;
        }
        let simple = read_simply(&bytes);
        let (frames, end) = read_all(Script::at_most(&bytes, at_most));
        prop_assert!(frames == simple.0);
        // Flags are seen before the rest of a large chunk has come, and so perhaps instead of its end.
        prop_assert!(end == simple.1 || (simple.1 == "torn" && end.contains("reserved flags")));
    }
}

#[test]
fn memory_that_was_used_before_is_filled_by_one_read() {
    struct Counted<'a>(&'a [u8], &'a Cell<usize>);
    impl Read for Counted<'_> {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            self.1.set(self.1.get() + 1);
            self.0.read(to)
        }
    }
    let frame = chunk(0, 0, 0, 600 * KIB);
    let bytes = encode_all(&vec![frame.clone(); 2]);
    let reads = Cell::new(0);
    let mut reader = FrameReader::new(Counted(&bytes, &reads));
    let mut reads_of_next = || {
        let before = reads.get();
        loop {
            match reader.next_buffered().unwrap() {
                Some(next) => break assert!(next == frame),
                None => reader.fill().map(drop).unwrap(),
            }
        }
        reads.get() - before
    };
    let (fresh, used) = (reads_of_next(), reads_of_next());
    assert!(fresh >= 600 / 64, "{fresh} reads clear too much ahead");
    assert!(used <= 3, "{used} reads into used memory");
}
