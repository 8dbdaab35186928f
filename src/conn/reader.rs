//! The reader thread: takes frames from the socket and hands them to the link, many at a time. After a pause
//! it frees the memory that it needed before: a thousand connections that were busy once and are idle now
//! need no more than those that never were. It learns of a pause by what arrives after it, a ping at the
//! latest.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::clock;
use crate::error::{EndCause, EndReason, Initiator};
use crate::wire::reader::{FrameReader, ReadError, Source};

use super::{ConnHandle, Port, stack};

/// How many frames are handed over at once, at most: bounds how long the link is locked.
const MAX_FRAMES: usize = 256;

/// What arrives so long after what came before says that the connection is idle.
const PAUSE: Duration = Duration::from_secs(1);
/// It still is after so many reads: the answer to a ping comes, and a ping of the peer.
const IDLE_READS: u32 = 5;

/// Runs until the connection ends, and notes why.
pub(crate) fn run(conn: &ConnHandle, port: &impl Port, reader: &mut FrameReader<impl Source>) {
    let (mut frames, mut last) = (Vec::new(), clock::now());
    // Reads until it passes for busy.
    let mut idle_reads = IDLE_READS;
    loop {
        let step = reader.next_buffered().map(|frame| {
            let nothing = frame.is_none();
            frames.extend(frame);
            nothing || frames.len() == MAX_FRAMES
        });
        match step {
            Ok(false) => continue,
            Ok(true) if frames.is_empty() => {
                if idle_reads > 0 {
                    frames = Vec::new();
                    reader.shrink();
                    stack::give_back();
                }
                match fill(conn, reader) {
                    Ok(now) => {
                        let paused = now.saturating_duration_since(last) >= PAUSE;
                        idle_reads = if paused { IDLE_READS } else { idle_reads.saturating_sub(1) };
                        last = now;
                        continue;
                    }
                    Err(error) => return note(conn, port, error),
                }
            }
            // Frames before a broken one are still handed over.
            Ok(true) | Err(_) => {
                // Frames were completed: what is unfinished now began with the last read at the earliest.
                conn.frame_since.store(0, Relaxed);
                if let Err(violation) = port.handle_frames(conn.id, &mut frames, clock::now()) {
                    return accuse(conn, violation.into_cause());
                }
            }
        }
        if let Err(error) = step {
            return note(conn, port, error);
        }
    }
}

/// Waits for bytes. Returns when some arrived.
fn fill(conn: &ConnHandle, reader: &mut FrameReader<impl Source>) -> Result<Instant, ReadError> {
    let count = reader.fill()?;
    let now = clock::now();
    if count > 0 {
        conn.note(&conn.last_received, now);
    }
    conn.bytes_received.fetch_add(count as u64, Relaxed);
    if !reader.inside_frame() {
        conn.frame_since.store(0, Relaxed);
    } else if conn.frame_since.load(Relaxed) == 0 {
        conn.note(&conn.frame_since, now);
    }
    Ok(now)
}

fn note(conn: &ConnHandle, port: &impl Port, error: ReadError) {
    match error {
        ReadError::Eof => match port.is_draining(conn.id) {
            // Both have said what they had to say, or the writer is about to.
            Some(reason) => conn.note_end(reason),
            None => conn.end(EndReason::new(Initiator::Peer, EndCause::Closed)),
        },
        ReadError::Torn => conn.end(EndReason::new(Initiator::Peer, EndCause::Closed)),
        ReadError::Io(error) => conn.end(EndReason::io("read", &error)),
        ReadError::Record(error) => accuse(conn, EndCause::Tampered(error)),
        ReadError::Wire(error) => accuse(conn, EndCause::Protocol(error.to_string())),
    }
}

fn accuse(conn: &ConnHandle, cause: EndCause) {
    conn.end(EndReason::new(Initiator::Library, cause));
}
