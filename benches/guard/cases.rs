//! What callgrind counts: code without system calls, threads or randomness.

use std::cell::RefCell;
use std::hint::black_box;
use std::rc::Rc;

use bytes::Bytes;
use unbroken::bench_support::{Encoder, Pair, ReceiptRound, Records, decode};
use unbroken::{BULK, LaneId, NORMAL};

/// So often is repeated what takes few instructions.
const FRAMES: usize = 100;
const RECEIPTS: usize = 1000;
const RECORD: usize = 64 * 1024;

/// What is done before each run and not counted; the run; and the number that it returns if it did its work.
pub(crate) struct Case {
    prepare: Box<dyn FnMut()>,
    run: Box<dyn FnMut() -> usize>,
    expected: usize,
}

impl Case {
    fn new(expected: usize, run: impl FnMut() -> usize + 'static) -> Self {
        Case { prepare: Box::new(|| ()), run: Box::new(run), expected }
    }
}

type Make = fn() -> Case;

pub(crate) const CASES: [(&str, Make); 11] = [
    ("encode_ack_x100", || encode(Encoder::push_ack)),
    ("decode_ack_x100", || decoded(Encoder::push_ack)),
    ("encode_chunk_of_one_64B_x100", || encode(Encoder::push_chunk)),
    ("decode_chunk_of_one_64B_x100", || decoded(Encoder::push_chunk)),
    ("link_64B_x1000", || link(NORMAL, 64, 1000)),
    ("link_1KiB_x1000", || link(NORMAL, 1024, 1000)),
    ("link_256KiB_x10", || link(BULK, 256 * 1024, 10)),
    ("receipts_x1000", || receipts(false)),
    ("receipts_awaited_x1000", || receipts(true)),
    ("seal_64KiB", seal),
    ("open_64KiB", open),
];

/// Runs one case, under callgrind. Returns whether it failed.
pub(crate) fn run(name: &str) -> bool {
    let (_, make) = CASES.into_iter().find(|(known, _)| *known == name).unwrap();
    let Case { mut prepare, mut run, expected } = make();
    // Lets buffers grow.
    for _ in 0..3 {
        prepare();
        assert_eq!(run(), expected, "{name}");
    }
    prepare();
    assert_eq!(counted_section(&mut *run), expected, "{name}");
    false
}

/// The function whose instructions callgrind counts, with all that it calls; `callgrind.rs` has its name.
#[inline(never)]
fn counted_section(run: &mut dyn FnMut() -> usize) -> usize {
    // Nor may the call be the last instruction, a jump: callgrind would not see the function return.
    black_box(run())
}

/// Chunks with one message: most of each is the head.
fn encoder() -> Encoder {
    Encoder::new(64, 64)
}

fn encode(push: fn(&mut Encoder)) -> Case {
    let mut encoder = encoder();
    (0..FRAMES).for_each(|_| push(&mut encoder));
    let len = encoder.bytes().len();
    Case::new(len, move || {
        encoder.clear();
        (0..FRAMES).for_each(|_| push(&mut encoder));
        encoder.len()
    })
}

fn decoded(push: fn(&mut Encoder)) -> Case {
    let mut encoder = encoder();
    (0..FRAMES).for_each(|_| push(&mut encoder));
    let bytes = encoder.bytes();
    Case::new(FRAMES, move || decode(black_box(&bytes)).0)
}

fn link(lane: LaneId, size: usize, count: u64) -> Case {
    let mut pair = Pair::new();
    let body = Bytes::from(vec![7; size]);
    Case::new(count as usize, move || pair.run(lane, &body, count).taken as usize)
}

fn receipts(watched: bool) -> Case {
    let mut round = ReceiptRound::default();
    Case::new(RECEIPTS, move || round.run(RECEIPTS, watched))
}

/// Records as `src/conn/record.rs` makes them: 16 KiB each, with a length before and a tag behind.
fn seal() -> Case {
    let mut records = Records::new(RECORD);
    Case::new(RECORD + RECORD / (16 * 1024) * (2 + 16), move || records.seal())
}

fn open() -> Case {
    let records = Rc::new(RefCell::new(Records::new(RECORD)));
    let other = Rc::clone(&records);
    let prepare = Box::new(move || {
        let mut records = other.borrow_mut();
        records.seal();
        records.carry();
    });
    Case { prepare, ..Case::new(RECORD, move || records.borrow_mut().open()) }
}
