//! The writer thread: asks the link what to send, writes it, sleeps when there is nothing.

use std::io::{self, IoSlice, Write};
use std::net::Shutdown;
use std::sync::atomic::Ordering::Relaxed;

use crate::clock;
use crate::error::{EndCause, EndReason, Initiator};
use crate::link::Transmit;
use crate::wire::batch::Batch;

use super::record::Sealer;
use super::{ConnHandle, LONG_WRITE, Port, WriteLimits, WriteWatch, socket};

/// Runs until the connection ends.
pub(crate) fn run(conn: &ConnHandle, port: &impl Port, sealer: &mut Sealer, limits: WriteLimits) {
    let mut batch = Batch::default();
    let mut backlog = 0;
    loop {
        batch.clear();
        let transmit = port.poll_transmit(conn.id, &mut batch);
        let nothing = batch.is_empty();
        if !nothing && let Err(reason) = write(conn, port, sealer, &batch, limits) {
            conn.end(reason);
            return;
        }
        match transmit {
            Transmit::Finish => {
                // The other side reads to the end, answers with its own, and nothing in flight is
                // destroyed by a reset.
                let _ = conn.socket.shutdown(Shutdown::Write);
                return;
            }
            Transmit::Continue { at, chunk } => {
                if chunk != backlog {
                    backlog = chunk;
                    // Only a hint to the kernel: without it urgent data waits longer, nothing breaks.
                    if let Err(error) = socket::set_backlog(&conn.socket, chunk) {
                        log::debug!("{}: TCP_NOTSENT_LOWAT: {error}", conn.id);
                    }
                }
                if nothing {
                    if conn.reason().is_some() {
                        return;
                    }
                    // A token, or the time: either way there may be something to send.
                    let _ = match at {
                        Some(at) => conn.woken.recv_deadline(at).is_ok(),
                        None => conn.woken.recv().is_ok(),
                    };
                }
            }
        }
    }
}

fn write(
    conn: &ConnHandle,
    port: &impl Port,
    sealer: &mut Sealer,
    batch: &Batch,
    limits: WriteLimits,
) -> Result<(), EndReason> {
    let start = clock::now();
    *conn.write.lock() = Some(WriteWatch::new(start));
    conn.note(&conn.write_since, start);
    port.watch_until(start + limits.write_timeout / 4);
    let is_late = || conn.reason().is_some() || conn.check_write(limits, clock::now()).is_err();
    let result = write_batch(&mut socket::Stream(&conn.socket), sealer, batch, is_late);
    conn.write_since.store(0, Relaxed);
    *conn.write.lock() = None;
    let lasted = clock::now().saturating_duration_since(start);
    if lasted >= LONG_WRITE {
        conn.blocked.fetch_add(lasted.as_micros() as u64, Relaxed);
    }
    match result {
        Ok(count) => {
            conn.bytes_sent.fetch_add(count as u64, Relaxed);
            Ok(())
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
