//! Records out of any bytes, and sealed streams that somebody on the path has changed.

use super::frames::Cut;
use super::script::Script;
use crate::conn::record::{Key, MAX_BUFFER, Opener, REKEY_AFTER, Sealer};
use crate::wire::batch::Batch;
use crate::wire::reader::{Got, ReadError, Source};

/// The opener returns what was sealed, up to the first record that was changed, left out, repeated or moved;
/// then nothing more, ever.
pub fn records(data: &[u8]) {
    let mut script = Script::new(data);
    let seed = u64::from(script.byte());
    if script.flag() {
        let bytes = script.rest();
        let (opened, _) = open(bytes, 0, seed);
        assert!(opened.is_empty(), "{} bytes that nobody sealed were given out", opened.len());
        return;
    }
    // Now and then across a change of the key.
    let number = if script.flag() { REKEY_AFTER - 2 } else { 0 };
    let (text, sealed, records) = seal(&mut script, number);
    let came = change(&mut script, &sealed, &records);
    let same = sealed.iter().zip(&came).take_while(|(ours, theirs)| ours == theirs).count();
    let whole = records.iter().take_while(|record| record.end <= same);
    let (until, expected) = whole.fold((0, 0), |(_, text), record| (record.end, text + record.text));
    let (opened, end) = open(&came, number, seed);
    assert!(text.starts_with(&opened), "another text was given out");
    assert_eq!(opened.len(), expected, "of {} bytes", text.len());
    match end {
        ReadError::Eof => assert_eq!(until, came.len(), "the end was not seen as what it is"),
        ReadError::Record(_) | ReadError::Torn => assert_ne!(until, came.len(), "accused: {end:?}"),
        end => unreachable!("{end:?}"),
    }
}

struct Record {
    /// Where it begins and ends among the sealed bytes.
    start: usize,
    end: usize,
    /// How many bytes are in it.
    text: usize,
}

fn key() -> Option<Key> {
    Key::new(&[7; 32])
}

/// A few writes of any sizes: the text, what is sent for it, and where each record lies.
fn seal(script: &mut Script<'_>, number: u64) -> (Vec<u8>, Vec<u8>, Vec<Record>) {
    let mut sealer = Sealer::new(key());
    if let Sealer::Noise(sealing) = &mut sealer {
        sealing.go_on_at(number);
    }
    let (mut text, mut sealed) = (Vec::new(), Vec::new());
    for _ in 0..1 + script.byte() % 6 {
        let len = usize::from(script.word()) >> (script.byte() % 12);
        let mut batch = Batch::default();
        let content: Vec<u8> =
            (text.len()..text.len() + len.max(1)).map(|at| ((at * 31) >> 3) as u8).collect();
        batch.push_slice(&content);
        text.extend_from_slice(&content);
        let done = sealer.append(&batch, &mut sealed);
        assert_eq!(done, Ok(()));
    }
    let mut records = Vec::new();
    let mut start = 0;
    while let Some([low, high]) = sealed.get(start..).and_then(|rest| rest.first_chunk()) {
        let len = usize::from(u16::from_le_bytes([*low, *high]));
        records.push(Record { start, end: start + 2 + len, text: len - 16 });
        start += 2 + len;
    }
    assert_eq!(start, sealed.len());
    (text, sealed, records)
}

/// The changes that an attacker on the path makes.
fn change(script: &mut Script<'_>, sealed: &[u8], records: &[Record]) -> Vec<u8> {
    let mut came = sealed.to_vec();
    for _ in 0..8 {
        if script.is_over() {
            break;
        }
        let kind = script.byte() % 6;
        let at = (script.number() as usize).checked_rem(came.len()).unwrap_or(0);
        let record = script.below(records.len()).and_then(|index| records.get(index));
        let bytes = record.and_then(|record| sealed.get(record.start..record.end)).unwrap_or_default();
        let bounds = records.iter().map(|record| record.start).filter(|start| *start <= came.len());
        let bounds: Vec<usize> = bounds.collect();
        let bound = script.pick(&bounds).unwrap_or(0);
        match kind {
            0 => came.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= script.byte()),
            1 => came.truncate(at),
            2 => came.truncate(bound),
            // A record again, or in another place, or instead of another.
            3 => drop(came.splice(bound..bound, bytes.iter().copied())),
            4 => {
                let until = (bound + bytes.len()).min(came.len());
                drop(came.splice(bound..until, bytes.iter().copied()));
            }
            _ => {
                let until = (bound + bytes.len()).min(came.len());
                drop(came.drain(bound..until));
            }
        }
    }
    came
}

/// Everything that is given out, and how it ended.
fn open(bytes: &[u8], number: u64, seed: u64) -> (Vec<u8>, ReadError) {
    let mut opener = Opener::new(Cut { bytes, rng: fastrand::Rng::with_seed(seed) }, key());
    if let Opener::Noise(opening) = &mut opener {
        opening.go_on_at(number);
    }
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut opened = Vec::new();
    let mut next = |opened: &mut Vec<u8>| {
        let room = if rng.bool() { rng.usize(1..20) } else { rng.usize(1..40_000) };
        let filled = opened.len();
        let got = if rng.bool() {
            opener.read_into(opened, filled, filled + room)
        } else {
            let mut to = vec![0; room];
            let got = opener.read(&mut to);
            let count = got.as_ref().map_or(0, |got| got.bytes);
            opened.extend_from_slice(to.get(..count).unwrap_or_default());
            got
        };
        if let Opener::Noise(opening) = &opener {
            assert!(opening.memory() <= MAX_BUFFER, "{} bytes are held", opening.memory());
        }
        assert!(opened.len() <= filled + room);
        got
    };
    let end = loop {
        match next(&mut opened) {
            Ok(got) if got == Got::plain(0) => break ReadError::Eof,
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    for _ in 0..3 {
        let len = opened.len();
        let again = next(&mut opened);
        assert_eq!(opened.len(), len, "after {end:?} came more: {again:?}");
    }
    (opened, end)
}
