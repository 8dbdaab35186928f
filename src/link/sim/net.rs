//! Byte pipes: one for each direction of a connection.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::rc::Rc;

/// The bytes that have arrived at one end and were not read yet.
#[derive(Default)]
pub(super) struct Arrivals {
    pub(super) bytes: VecDeque<u8>,
    pub(super) eof: bool,
}

/// The socket as the reader sees it. Where a real one blocks, this one says `WouldBlock`.
pub(super) struct Source {
    arrivals: Rc<RefCell<Arrivals>>,
    rng: fastrand::Rng,
}

impl Source {
    pub(super) fn new(seed: u64) -> (Source, Rc<RefCell<Arrivals>>) {
        let arrivals = Rc::default();
        (Source { arrivals: Rc::clone(&arrivals), rng: fastrand::Rng::with_seed(seed) }, arrivals)
    }
}

impl Read for Source {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let mut arrivals = self.arrivals.borrow_mut();
        let most = arrivals.bytes.len().min(to.len());
        if most == 0 {
            return if arrivals.eof { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let count = if self.rng.bool() { most } else { self.rng.usize(1..=most) };
        let taken = arrivals.bytes.drain(..count);
        to.iter_mut().zip(taken).for_each(|(to, byte)| *to = byte);
        Ok(count)
    }
}

/// One direction of a connection.
#[derive(Default)]
pub(super) struct Pipe {
    /// Bytes put into it so far.
    pub(super) sent: u64,
    /// The connection is cut when so many bytes have passed here.
    pub(super) cut_at: Option<u64>,
    /// Swallows everything from now on, also the news of its end.
    pub(super) hole: bool,
    pub(super) severed: bool,
    pub(super) delay: u64,
    /// Bytes never overtake each other.
    pub(super) last_arrival: u64,
}

impl Pipe {
    /// When something that is sent now arrives.
    pub(super) fn arrival(&mut self, now: u64, jitter: u64) -> u64 {
        self.last_arrival = self.last_arrival.max(now + self.delay + jitter);
        self.last_arrival
    }
}
