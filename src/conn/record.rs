//! The record layer: between the frames and the socket, where encryption has its place.
//!
//! Each direction has its own half with its own cipher state. The writer thread owns the sealing half,
//! the reader thread the opening half, so neither needs a lock. In plaintext both hand the bytes
//! through.

use std::io::{self, Read};

use socket2::Socket;

use crate::wire::batch::Batch;

/// The writer's half.
#[derive(Debug)]
pub(crate) enum Sealer {
    Plaintext,
}

impl Sealer {
    /// Turns a batch of frames into what goes to the socket.
    pub(crate) fn seal(&mut self, _batch: &mut Batch) {
        match self {
            Sealer::Plaintext => {}
        }
    }
}

/// The reader's half: reads records from the socket and gives what is in them.
#[derive(Debug)]
pub(crate) enum Opener<'a> {
    Plaintext(&'a Socket),
}

impl Read for Opener<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        match self {
            Opener::Plaintext(socket) => socket.read(to),
        }
    }
}
