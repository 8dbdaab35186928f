//! The contestants. Each one is four functions: receive and send one way, echo and ask.

mod message_io;
mod naive;
mod raw;
mod tokio_framed;
mod unbroken;

use crate::Failure;

/// Tells the address that the other process is to dial.
pub type Tell<'a> = &'a mut dyn FnMut(String) -> Result<(), Failure>;

/// Waits until the other process has received everything.
pub type Wait<'a> = &'a mut dyn FnMut() -> Result<(), Failure>;

/// Is called with how many messages came at once.
pub type Came<'a> = &'a mut dyn FnMut(u64);

pub struct Contestant {
    pub name: &'static str,
    /// The part of the messages that it is given, so that a round takes seconds: for 64 bytes and for 1 MiB.
    pub shares: [f64; 2],
    /// How many questions it is asked in a row.
    pub trips: u64,
    /// Receives so many messages of this size.
    pub receive: fn(usize, u64, Tell<'_>, Came<'_>) -> Result<(), Failure>,
    /// Sends so many messages of this size to this address, and waits until they came.
    pub send: fn(usize, u64, &str, Wait<'_>) -> Result<(), Failure>,
    /// Returns so many messages of 64 bytes to their sender.
    pub echo: fn(u64, Tell<'_>) -> Result<(), Failure>,
    /// Sends so many, each when the one before it is back; the last argument is called for each.
    pub ask: fn(u64, &str, Came<'_>) -> Result<(), Failure>,
}

impl Contestant {
    pub fn share_of(&self, size: usize) -> f64 {
        let [small, large] = self.shares;
        if size < 16 * 1024 { small } else { large }
    }
}

/// The first one is what the others are compared with.
pub const CONTESTANTS: [Contestant; 7] = [
    raw::CONTESTANT,
    unbroken::PLAINTEXT,
    unbroken::MANY,
    unbroken::ENCRYPTED,
    tokio_framed::CONTESTANT,
    message_io::CONTESTANT,
    naive::CONTESTANT,
];

/// The size of what goes back and forth.
pub const ASKED: usize = 64;
