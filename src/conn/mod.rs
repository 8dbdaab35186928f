//! One TCP connection: a blocking reader thread and a blocking writer thread.
//!
//! ```text
//!   resolve -> connect --+      (several sockets may connect; the first that does is the connection)
//!                        +--> handshake --> joined to the link --> reading and writing --> ended
//!   accept --------------+       |                                      |
//!                                +--- every step can end it: the first cause is kept ------+
//! ```
//!
//! # Invariants
//! - Exactly one thread writes to the socket at a time: the handshake, and after it the one that holds the
//!   [`WriteHalf`](writer::WriteHalf).
//! - A write that fails or runs out of time ends the connection; the stream is never written to again.
//! - The reader blocks on its socket and on nothing else, and runs no application code.
//! - The thread that ends the connection says why; the first reason stays ([`ConnHandle::end`]).
//! - No thread needs to return from a system call for a deadline to hold: `shutdown(2)` by the monitor wakes
//!   both, on Windows with `CancelIoEx`.
//! - One file descriptor per connection, closed when the last of its threads is done.

pub(crate) mod handshake;
pub(crate) mod noise;
pub(crate) mod poll;
pub(crate) mod reader;
pub(crate) mod record;
pub(crate) mod socket;
pub(crate) mod stack;
pub(crate) mod tcp_info;
pub(crate) mod threads;
mod write_watch;
pub(crate) mod writer;

#[cfg(test)]
mod tests;

use std::net::{Shutdown, SocketAddr};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use socket2::Socket;

use crate::clock;
use crate::error::{EndCause, EndReason};
use crate::id::{ConnId, PeerId};
use crate::link::{Transmit, Violation, Writes};
use crate::lock::{LEAF, Ordered, WRITER};
use crate::wire::batch::Batch;
use crate::wire::frame::Frame;

pub(crate) use write_watch::WriteLimits;
use write_watch::WriteWatch;
use writer::WriteHalf;

/// A write that takes longer has met a full buffer.
const LONG_WRITE: Duration = Duration::from_millis(1);

/// The interface that a connection needs of its link.
pub(crate) trait Port {
    /// Fills the batch with what is to be written next.
    fn poll_transmit(&self, conn: ConnId, writes: Writes, batch: &mut Batch) -> Transmit;
    /// Frames arrived. Takes them all out of `frames`.
    fn handle_frames(&self, conn: ConnId, frames: &mut Vec<Frame>, at: Instant) -> Result<(), Violation>;
    /// Whether the peer has said GOAWAY on this connection, or we have.
    fn is_draining(&self, conn: ConnId) -> Option<EndReason>;
    /// Makes sure that the monitor looks at this connection at `deadline`.
    fn watch_until(&self, deadline: Instant);
}

/// A connection as the rest of the node sees it: can be watched, woken and ended.
#[derive(Debug)]
pub(crate) struct ConnHandle {
    pub(crate) id: ConnId,
    /// The other end of the socket.
    addr: SocketAddr,
    /// The client's address, as the proxy at the other end says.
    client: OnceLock<SocketAddr>,
    /// Whether this node dialled.
    pub(crate) dialled: bool,
    pub(crate) opened: Instant,
    pub(crate) socket: Socket,
    /// The peer at the other end, once that is proven; in plaintext, claimed.
    pub(crate) peer: OnceLock<PeerId>,
    wake: Sender<()>,
    woken: Receiver<()>,
    ended: OnceLock<EndReason>,
    /// Instants below are microseconds after `opened`; 0 is none.
    last_received: AtomicU64,
    frame_since: AtomicU64,
    write_since: AtomicU64,
    /// Held by the thread that writes. `None` before the handshake is over and after the last write.
    write_half: Ordered<Option<WriteHalf>, WRITER>,
    /// The watch of the write that is under way.
    write: Ordered<Option<WriteWatch>, LEAF>,
    /// How long writes took that are over, in microseconds.
    blocked: AtomicU64,
    pub(crate) bytes_received: AtomicU64,
    pub(crate) bytes_sent: AtomicU64,
    /// How many messages its link had received when it joined.
    pub(crate) messages_before: AtomicU64,
}

impl ConnHandle {
    pub(crate) fn new(id: ConnId, addr: SocketAddr, dialled: bool, socket: Socket) -> Self {
        let (wake, woken) = bounded(1);
        ConnHandle {
            id,
            addr,
            client: OnceLock::new(),
            dialled,
            opened: clock::now(),
            socket,
            peer: OnceLock::new(),
            wake,
            woken,
            ended: OnceLock::new(),
            last_received: AtomicU64::new(0),
            frame_since: AtomicU64::new(0),
            write_since: AtomicU64::new(0),
            write_half: Ordered::new(None),
            write: Ordered::new(None),
            blocked: AtomicU64::new(0),
            bytes_received: AtomicU64::new(0),
            bytes_sent: AtomicU64::new(0),
            messages_before: AtomicU64::new(0),
        }
    }

    /// The other side's address.
    pub(crate) fn addr(&self) -> SocketAddr {
        *self.client.get().unwrap_or(&self.addr)
    }

    /// A proxy at the other end has said whose connection it is.
    pub(crate) fn set_client(&self, addr: SocketAddr) {
        let _ = self.client.set(addr);
    }

    /// Ends the connection: both of its threads wake up. Only the first reason counts.
    pub(crate) fn end(&self, reason: EndReason) {
        // Its queue is of no use to anybody.
        if matches!(reason.cause, EndCause::Dead | EndCause::WriteTimeout | EndCause::DrainTimeout) {
            socket::discard_on_close(&self.socket);
        }
        self.note_end(reason);
        // Fails when the socket is not connected (any more): then there is nobody to wake.
        let _ = self.socket.shutdown(Shutdown::Both);
        socket::cancel_calls(&self.socket);
    }

    /// Notes the reason and lets the writer finish what it has to say.
    pub(crate) fn note_end(&self, reason: EndReason) {
        let _ = self.ended.set(reason);
        self.wake();
    }

    pub(crate) fn reason(&self) -> Option<&EndReason> {
        self.ended.get()
    }

    /// Wakes the writer. Many wake-ups before it looks are one.
    pub(crate) fn wake(&self) {
        let _ = self.wake.try_send(());
    }

    /// The writer sleeps until it is woken, or until then. Returns whether it was woken.
    fn sleep(&self, until: Option<Instant>) -> bool {
        match until {
            Some(until) => self.woken.recv_deadline(until).is_ok(),
            None => self.woken.recv().is_ok(),
        }
    }

    pub(crate) fn last_received(&self) -> Option<Instant> {
        self.at(&self.last_received)
    }

    fn at(&self, cell: &AtomicU64) -> Option<Instant> {
        match cell.load(Relaxed) {
            0 => None,
            micros => Some(self.opened + Duration::from_micros(micros)),
        }
    }

    fn note(&self, cell: &AtomicU64, at: Instant) {
        let micros = at.saturating_duration_since(self.opened).as_micros() as u64;
        cell.store(micros.max(1), Relaxed);
    }

    /// How long the writer stood blocked since this was asked last.
    pub(crate) fn take_blocked(&self) -> Duration {
        let over = Duration::from_micros(self.blocked.swap(0, Relaxed));
        // A write that lasts still is counted when it is over, unless it lasts so long that it tells.
        let current = self.at(&self.write_since).map(|since| clock::now().saturating_duration_since(since));
        over + current.filter(|lasts| *lasts >= LONG_WRITE).unwrap_or_default()
    }

    /// Whether a write or an incoming frame has taken too long; then why the connection is to be ended.
    /// Otherwise the next instant at which to look.
    pub(crate) fn check_deadlines(
        &self,
        now: Instant,
        limits: WriteLimits,
        frame_timeout: Duration,
    ) -> Result<Option<Instant>, EndCause> {
        let write = self.check_write(limits, now).map_err(|()| EndCause::WriteTimeout)?;
        let frame = self.at(&self.frame_since).map(|since| since + frame_timeout);
        if frame.is_some_and(|at| at <= now) {
            return Err(EndCause::Dead);
        }
        Ok(write.into_iter().chain(frame).min())
    }

    /// Whether the write that lasts may go on; then when to check it again.
    fn check_write(&self, limits: WriteLimits, now: Instant) -> Result<Option<Instant>, ()> {
        let sample = || {
            let kernel = tcp_info::read(&self.socket)?;
            Some(write_watch::Sample { acked: kernel.bytes_acked, retransmits: kernel.retransmits })
        };
        self.write.lock().as_mut().map(|write| write.check(limits, now, sample)).transpose()
    }

    /// This process stood still for `gap`.
    pub(crate) fn handle_pause(&self, gap: Duration) {
        self.write.lock().iter_mut().for_each(|write| write.handle_pause(gap));
        for cell in [&self.write_since, &self.frame_since] {
            let _ = cell.fetch_update(Relaxed, Relaxed, |micros| {
                (micros > 0).then(|| micros + gap.as_micros() as u64)
            });
        }
    }
}
