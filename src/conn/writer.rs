//! Writing: a thread for each connection that asks the link what to send, writes it, and sleeps when there is
//! nothing; and, while that thread sleeps, the threads of the application, the reader and the monitor, which
//! then need not wake it.
//!
//! ```text
//!               nothing to send                    a thread of the application has sent, and may write
//!   writing ----------------------> asleep ------------------------------------------------+
//!      ^                             |  ^                                                  v
//!      |    woken, or time is over   |  |   all of it was taken by the kernel         written now
//!      +-----------------------------+  +--------------------------------------------------+
//!      ^                                                                                   |
//!      +-------- woken: a part is left, or more than [`MOST_NOW`] bytes wait --------------+
//! ```
//!
//! When messages come faster than one in [`LEAST_GAP`], or the writer has written several at once within
//! [`WRITER_FIRST`], it is woken instead: with one write for each message they would go slower.
//!
//! Invariants:
//! - The thread that holds the [`WriteHalf`] polls the link and writes: batches go out in the order in which
//!   the link made them.
//! - A batch that was taken from the link and not written whole stays in the half, and the writer is woken.
//!   It writes that first.
//! - A thread of the application waits neither for the half nor for the kernel.
//! - When the half is released with nothing left in it, the link knows that nobody writes (its last batch was
//!   empty), and the writer wakes up by the time that the link has asked for.

use std::io::{self, IoSlice, Write};
use std::net::Shutdown;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::clock;
use crate::error::{EndCause, EndReason, Initiator};
use crate::link::{ENOUGH, Transmit, Writes};
use crate::wire::batch::Batch;

use super::record::Sealer;
use super::{ConnHandle, LONG_WRITE, Port, WriteLimits, WriteWatch, socket, stack};

/// A larger batch is left to the writer by a thread of the application or the reader. A thread that writes to
/// many connections leaves it those that are larger than what is worth a write.
const MOST_NOW: usize = 16 * 1024;
/// So many batches are written now before the writer is woken for the rest.
const BATCHES_NOW: usize = 3;
/// So soon after another write the writer is woken: it takes many messages with each write.
const LEAST_GAP: Duration = Duration::from_micros(20);
/// After a write of several messages it is woken for so long: there will be more that gather.
const WRITER_FIRST: Duration = Duration::from_millis(1);

/// An idle connection keeps so much memory for what it writes, and more for so long, as well as the memory of
/// the writer's stack that only writing needs.
const KEPT: usize = 4 * 1024;
const KEPT_FOR: Duration = Duration::from_secs(1);

/// The state of writing to a connection, and the right to.
pub(crate) struct WriteHalf {
    sealer: Sealer,
    batch: Batch,
    /// The batch was not written yet; the step that follows it.
    unwritten: Option<Transmit>,
    /// Bytes for the socket of a batch that was written in part.
    rest: Vec<u8>,
    /// Until when the writer sleeps. `None`: until it is woken.
    sleeps_until: Option<Instant>,
    /// When something was written last, and when several messages were at once.
    written: Option<Instant>,
    several_written: Option<Instant>,
}

impl std::fmt::Debug for WriteHalf {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteHalf").field("rest", &self.rest.len()).finish_non_exhaustive()
    }
}

/// Writing may begin.
pub(crate) fn begin(conn: &ConnHandle, sealer: Sealer) {
    let (batch, rest) = (Batch::default(), Vec::new());
    *conn.write_half.lock() = Some(WriteHalf {
        sealer,
        batch,
        unwritten: None,
        rest,
        sleeps_until: None,
        written: None,
        several_written: None,
    });
}

/// Runs until the connection ends.
pub(crate) fn run(conn: &ConnHandle, port: &impl Port, limits: WriteLimits) {
    let mut backlog = 0;
    // The stack was given back since this thread wrote last.
    let mut is_shallow = false;
    loop {
        let mut guard = conn.write_half.lock();
        // A write on another thread has failed.
        let Some(half) = guard.as_mut() else { return };
        match half.write_next(conn, port, limits) {
            Err(reason) => {
                *guard = None;
                conn.end(reason);
                return;
            }
            Ok(Transmit::Finish) => {
                *guard = None;
                // The other side reads to the end, answers with its own, and nothing in flight is
                // destroyed by a reset.
                let _ = conn.socket.shutdown(Shutdown::Write);
                return;
            }
            Ok(Transmit::Continue { at, chunk, .. }) => {
                if chunk != backlog {
                    backlog = chunk;
                    // Only a hint to the kernel: without it urgent data waits longer, nothing breaks.
                    if let Err(error) = socket::set_backlog(&conn.socket, chunk) {
                        log_line!(Debug, "{}: TCP_NOTSENT_LOWAT: {error}", conn.id);
                    }
                }
                is_shallow &= half.batch.is_empty();
                if half.batch.is_empty() {
                    if conn.reason().is_some() {
                        *guard = None;
                        return;
                    }
                    half.sleeps_until = at;
                    let has_memory = !is_shallow || half.memory() > KEPT;
                    drop(guard);
                    let frees_at = has_memory.then(|| clock::now() + KEPT_FOR);
                    if frees_at.is_some_and(|frees_at| at.is_none_or(|at| frees_at < at)) {
                        if conn.sleep(frees_at) {
                            continue;
                        }
                        conn.write_half.lock().iter_mut().for_each(WriteHalf::free_memory);
                        stack::give_back();
                        is_shallow = true;
                    }
                    // A token, or the time: either way there may be something to send.
                    conn.sleep(at);
                }
            }
        }
    }
}

/// Writes what the link has to send on this thread, if the writer sleeps and the kernel takes it at once.
/// The writer does the rest.
pub(crate) fn write_now(conn: &ConnHandle, port: &impl Port, now: Instant) {
    if try_write_now(conn, port, now, Writes::ForOne) != Left::Nothing {
        conn.wake();
    }
}

/// The same, whenever the last write was, on a thread that writes to many connections in turn. Returns when
/// it is to come back, if messages wait for more to gather.
pub(crate) fn write_in_turn(conn: &ConnHandle, port: &impl Port) -> Option<Instant> {
    match try_write_now(conn, port, clock::now(), Writes::InTurn) {
        Left::Nothing => None,
        Left::Gathering { until } => Some(until),
        Left::ToWriter => {
            conn.wake();
            None
        }
    }
}

/// The messages that a write leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Nothing,
    /// They wait for more, and the writer does not look by then.
    Gathering {
        until: Instant,
    },
    ToWriter,
}

fn try_write_now(conn: &ConnHandle, port: &impl Port, now: Instant, writes: Writes) -> Left {
    let (least_gap, most) = match writes {
        Writes::ForOne => (true, MOST_NOW),
        Writes::InTurn => (false, ENOUGH as usize),
    };
    let may_write = |half: &&mut WriteHalf| half.is_empty() && !(least_gap && half.is_writer_first(now));
    let Some(mut guard) = conn.write_half.try_lock() else { return Left::ToWriter };
    let Some(half) = guard.as_mut().filter(may_write) else { return Left::ToWriter };
    half.written = Some(now);
    for _ in 0..BATCHES_NOW {
        half.batch.clear();
        let transmit = port.poll_transmit(conn.id, writes, &mut half.batch);
        match transmit {
            Transmit::Continue { at, .. } if half.batch.is_empty() => {
                let at = at.filter(|at| half.sleeps_until.is_none_or(|until| *at < until));
                return at.map_or(Left::Nothing, |until| Left::Gathering { until });
            }
            Transmit::Continue { .. } if half.batch.len() <= most => match half.send_now(conn) {
                Ok(true) => {}
                Ok(false) => return Left::ToWriter,
                Err(reason) => {
                    *guard = None;
                    conn.end(reason);
                    return Left::ToWriter;
                }
            },
            _ => {
                half.unwritten = Some(transmit);
                return Left::ToWriter;
            }
        }
    }
    Left::ToWriter
}

impl WriteHalf {
    fn memory(&self) -> usize {
        self.batch.capacity() + self.rest.capacity() + self.sealer.capacity()
    }

    /// Frees the memory in which nothing waits to be written.
    fn free_memory(&mut self) {
        self.rest.shrink_to_fit();
        if self.unwritten.is_none() {
            self.batch = Batch::default();
            self.sealer.shrink();
        }
    }

    /// Nothing is left of what was taken from the link.
    fn is_empty(&self) -> bool {
        self.rest.is_empty() && self.unwritten.is_none()
    }

    /// Whether messages come so fast that the writer takes several with one write.
    fn is_writer_first(&self, now: Instant) -> bool {
        let within = |since: Option<Instant>, time| since.is_some_and(|at| now < at + time);
        within(self.written, LEAST_GAP) || within(self.several_written, WRITER_FIRST)
    }

    fn note_written(&mut self, transmit: Transmit, at: Instant) {
        self.written = Some(at);
        if let Transmit::Continue { messages: 2.., .. } = transmit {
            self.several_written = Some(at);
        }
    }

    /// Writes what another thread has left of a batch, and the next batch: one that was left whole, or what
    /// the link has.
    fn write_next(
        &mut self,
        conn: &ConnHandle,
        port: &impl Port,
        limits: WriteLimits,
    ) -> Result<Transmit, EndReason> {
        if !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            let slices = |from, out: &mut Vec<_>| out.extend(rest.get(from..).map(IoSlice::new));
            watched(conn, port, limits, |to, is_late| write_all(to, rest.len(), slices, &is_late))?;
        }
        let transmit = self.unwritten.take().unwrap_or_else(|| {
            self.batch.clear();
            port.poll_transmit(conn.id, Writes::ForOne, &mut self.batch)
        });
        if !self.batch.is_empty() {
            let (sealer, batch) = (&mut self.sealer, &self.batch);
            let ended = watched(conn, port, limits, |to, is_late| write_batch(to, sealer, batch, is_late))?;
            self.note_written(transmit, ended);
        }
        Ok(transmit)
    }

    /// Sends the batch as far as the kernel takes it at once. True if that is all of it.
    fn send_now(&mut self, conn: &ConnHandle) -> Result<bool, EndReason> {
        let failed = |error: io::Error| EndReason::io("write", &error);
        self.sealer.append(&self.batch, &mut self.rest).map_err(|error| failed(io::Error::other(error)))?;
        let sent = socket::send_now(&conn.socket, &self.rest).map_err(failed)?;
        conn.bytes_sent.fetch_add(sent as u64, Relaxed);
        self.rest.drain(..sent);
        Ok(self.rest.is_empty())
    }
}

/// A write that may block, under the eyes of the monitor. Returns when it ended.
fn watched(
    conn: &ConnHandle,
    port: &impl Port,
    limits: WriteLimits,
    write: impl FnOnce(&mut socket::Stream<'_>, &dyn Fn() -> bool) -> io::Result<usize>,
) -> Result<Instant, EndReason> {
    let start = clock::now();
    *conn.write.lock() = Some(WriteWatch::new(start));
    conn.note(&conn.write_since, start);
    port.watch_until(start + limits.write_timeout / 4);
    let is_late = || conn.reason().is_some() || conn.check_write(limits, clock::now()).is_err();
    let result = write(&mut socket::Stream(&conn.socket), &is_late);
    conn.write_since.store(0, Relaxed);
    *conn.write.lock() = None;
    let end = clock::now();
    let lasted = end.saturating_duration_since(start);
    if lasted >= LONG_WRITE {
        conn.blocked.fetch_add(lasted.as_micros() as u64, Relaxed);
    }
    match result {
        Ok(count) => {
            conn.bytes_sent.fetch_add(count as u64, Relaxed);
            Ok(end)
        }
        Err(error) if is_timeout(&error) => Err(EndReason::new(Initiator::Library, EndCause::WriteTimeout)),
        Err(error) => Err(EndReason::io("write", &error)),
    }
}

fn is_timeout(error: &io::Error) -> bool {
    // SO_SNDTIMEO reports EAGAIN (socket(7)).
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Writes the whole batch. Sealed piece by piece, so that the other side opens one while the next is made.
/// Returns how many bytes that were.
pub(crate) fn write_batch(
    to: &mut impl Write,
    sealer: &mut Sealer,
    batch: &Batch,
    is_late: impl Fn() -> bool,
) -> io::Result<usize> {
    let sealing = match sealer {
        Sealer::Plaintext => {
            let slices = |from, out: &mut Vec<_>| batch.slices(from, out);
            return write_all(to, batch.len(), slices, &is_late);
        }
        Sealer::Noise(sealing) => sealing,
    };
    let (mut at, mut written) = (0, 0);
    while at < batch.len() {
        let (sealed, next) = sealing.seal(batch, at).map_err(io::Error::other)?;
        let slices = |from, out: &mut Vec<_>| out.extend(sealed.get(from..).map(IoSlice::new));
        written += write_all(to, sealed.len(), slices, &is_late)?;
        at = next;
    }
    Ok(written)
}

/// Writes `len` bytes, keeping its place across partial writes; `slices` gives those from a place on.
/// SO_SNDTIMEO bounds one call and starts anew with every byte that goes, so the whole is checked here after
/// each call, and by the monitor for a call that does not return.
fn write_all<'a>(
    to: &mut impl Write,
    len: usize,
    slices: impl Fn(usize, &mut Vec<IoSlice<'a>>),
    is_late: &impl Fn() -> bool,
) -> io::Result<usize> {
    let mut written = 0;
    let mut pieces = Vec::with_capacity(16);
    while written < len {
        pieces.clear();
        slices(written, &mut pieces);
        match to.write_vectored(&pieces) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // SO_SNDTIMEO has passed: a slow link may have taken something of what was written before.
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error),
        }
        if written < len && is_late() {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a few bytes at a time, as a full socket does.
    struct Slow {
        got: Vec<u8>,
        calls: usize,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.calls += 1;
            if self.calls.is_multiple_of(3) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let count = bytes.len().min(7);
            self.got.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn batch() -> Batch {
        let mut batch = Batch::default();
        batch.push_slice(b"small");
        batch.push_bytes(&vec![7; 5000].into(), 0..5000);
        batch.push_slice(b"end");
        batch
    }

    #[test]
    fn keeps_its_place_across_partial_and_interrupted_writes() {
        let mut slow = Slow { got: Vec::new(), calls: 0 };
        write_batch(&mut slow, &mut Sealer::Plaintext, &batch(), || false).unwrap();
        assert_eq!(slow.got, batch().to_vec());
    }

    #[test]
    fn the_whole_has_an_end_although_every_call_makes_progress() {
        let asked = std::cell::Cell::new(0);
        let is_late = || {
            asked.set(asked.get() + 1);
            asked.get() == 10
        };
        let mut slow = Slow { got: Vec::new(), calls: 0 };
        let error = write_batch(&mut slow, &mut Sealer::Plaintext, &batch(), is_late).unwrap_err();
        assert!(is_timeout(&error));
        assert!(slow.got.len() < 100);
    }
}
