//! The contestants. Each has the workloads that mean something for it; a workload is a pair of functions, one
//! for each process.

#[cfg(feature = "libp2p")]
mod libp2p;
mod message_io;
mod naive;
#[cfg(feature = "native")]
mod nng;
mod raw;
mod rustls;
mod tokio_framed;
mod unbroken;
mod yamux;
#[cfg(feature = "native")]
mod zeromq;

use std::thread;

use crate::Failure;

/// Tells the address that the other process is to dial.
pub type Tell<'a> = &'a mut dyn FnMut(String) -> Result<(), Failure>;

/// Waits until the other process has received everything, or as long as the connections are needed.
pub type Wait<'a> = &'a mut dyn FnMut() -> Result<(), Failure>;

/// Is called with how many messages came at once.
pub type Came<'a> = &'a mut dyn FnMut(u64);

/// The same, for receivers on several threads.
pub type Count<'a> = &'a (dyn Fn(u64) + Sync);

/// Sends one message, and returns when what answers it is here.
pub type Ask<'a> = &'a mut dyn FnMut() -> Result<(), Failure>;

/// Calls what it is given as often as it measures, and returns when the connections are no longer needed.
pub type Work<'a> = &'a mut dyn FnMut(Ask<'_>) -> Result<(), Failure>;

pub struct Contestant {
    pub name: &'static str,
    pub one_way: Option<OneWay>,
    pub senders: Option<Senders>,
    pub round_trip: Option<RoundTrip>,
    pub vote: Option<Vote>,
    pub broadcast: Option<Broadcast>,
    pub idle: Option<Idle>,
}

pub struct OneWay {
    /// The part of the messages that it is given, so that a round takes seconds: below 16 KiB, and from
    /// there on.
    pub shares: [f64; 2],
    /// Receives so many messages of this size.
    pub receive: fn(usize, u64, Tell<'_>, Came<'_>) -> Result<(), Failure>,
    /// Sends so many messages of this size to this address, and waits until they came.
    pub send: fn(usize, u64, &str, Wait<'_>) -> Result<(), Failure>,
}

/// Messages of 256 bytes from several threads to the same peers, all of which are in the other process.
pub struct Senders {
    /// So many peers, which count what comes. They end with the process. The addresses have spaces between
    /// them; a single one is that of all.
    pub receive: fn(usize, Tell<'_>, Count<'_>) -> Result<(), Failure>,
    /// So many threads, each of which sends to so many peers by turns, as fast as it may, until the last
    /// argument, which is called when all have begun, returns.
    pub send: fn(usize, usize, &str, Wait<'_>) -> Result<(), Failure>,
}

pub struct RoundTrip {
    /// How many questions it is asked in a row.
    pub trips: u64,
    /// Returns so many messages of 64 bytes to their sender.
    pub echo: fn(u64, Tell<'_>) -> Result<(), Failure>,
    /// Sends so many, each when the one before it is back; the last argument is called for each.
    pub ask: fn(u64, &str, Came<'_>) -> Result<(), Failure>,
}

/// Votes of 64 bytes, each of which comes back, beside a stream of bulk messages of 1 MiB in the same
/// direction.
pub struct Vote {
    /// Returns the votes, and reports the bulk messages that came. Ends with the process.
    pub serve: fn(Connections, Tell<'_>, Came<'_>) -> Result<(), Failure>,
    /// Sends bulk messages as fast as it may, and a vote whenever it is asked for one.
    pub vote: fn(Connections, &str, Work<'_>) -> Result<(), Failure>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    /// Votes and bulk messages share a connection.
    One,
    /// Each kind has its own.
    Two,
}

/// Messages of 256 bytes to many peers, all of which are in the other process.
pub struct Broadcast {
    /// Waits for so many peers to connect, and sends a message to all of them whenever it is asked to;
    /// returns from that when all have acknowledged it.
    pub broadcast: fn(usize, Tell<'_>, Work<'_>) -> Result<(), Failure>,
    /// So many peers, which acknowledge each message. They end with the process.
    pub peers: fn(usize, &str) -> Result<(), Failure>,
}

/// Many connections that carry nothing.
pub struct Idle {
    pub shapes: &'static [Shape],
    /// Accepts so many connections, waits when all stand, and closes them.
    pub accept: fn(Shape, usize, Tell<'_>, Wait<'_>) -> Result<(), Failure>,
    /// Calls the first function when everything is ready to dial, dials these addresses (the same one so
    /// many times, or so many with spaces between), waits when all connections stand, and closes them.
    pub dial: Dial,
}

pub type Dial = fn(Shape, usize, &str, &mut dyn FnMut(), Wait<'_>) -> Result<(), Failure>;

/// The side whose memory is measured is one socket, node or the like with all connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Both sides are.
    Both,
    /// The side that accepts is; each of the others is a node of its own.
    OneAccepts,
    /// The side that dials is.
    OneDials,
}

impl Shape {
    /// For so many connections: how many nodes accept them, and how many connections each has.
    pub fn accepting(self, count: usize) -> (usize, usize) {
        match self {
            Shape::OneAccepts | Shape::Both => (1, count),
            Shape::OneDials => (count, 1),
        }
    }

    /// The same for those that dial.
    pub fn dialling(self, count: usize) -> (usize, usize) {
        match self {
            Shape::OneAccepts => (count, 1),
            Shape::OneDials | Shape::Both => (1, count),
        }
    }
}

impl Contestant {
    pub const fn named(name: &'static str) -> Self {
        Contestant {
            name,
            one_way: None,
            senders: None,
            round_trip: None,
            vote: None,
            broadcast: None,
            idle: None,
        }
    }
}

impl OneWay {
    pub fn share_of(&self, size: usize) -> f64 {
        let [small, large] = self.shares;
        if size < 16 * 1024 { small } else { large }
    }
}

/// Runs a function for each item, on a thread of its own. Returns when all have ended, with the error of the
/// first item that has one.
fn on_threads<T: Send>(
    items: impl IntoIterator<Item = T>,
    each: impl Fn(T) -> Result<(), Failure> + Sync,
) -> Result<(), Failure> {
    thread::scope(|scope| {
        let each = &each;
        let running: Vec<_> = items.into_iter().map(|item| scope.spawn(move || each(item))).collect();
        running.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a receiver panicked")?)
    })
}

/// The first one is what the others are compared with.
pub const CONTESTANTS: &[Contestant] = &[
    raw::CONTESTANT,
    raw::ONE_WRITE_EACH,
    unbroken::PLAINTEXT,
    unbroken::MANY,
    tokio_framed::CONTESTANT,
    yamux::CONTESTANT,
    message_io::CONTESTANT,
    naive::CONTESTANT,
    #[cfg(feature = "native")]
    zeromq::CONTESTANT,
    #[cfg(feature = "native")]
    nng::CONTESTANT,
    rustls::CONTESTANT,
    #[cfg(feature = "libp2p")]
    libp2p::CONTESTANT,
    unbroken::ENCRYPTED,
];

/// The one that is compared with the others that encrypt, too.
pub const ENCRYPTED: &str = unbroken::ENCRYPTED.name;

/// The others that encrypt.
pub const ALSO_ENCRYPTED: &[&str] = &[
    rustls::CONTESTANT.name,
    #[cfg(feature = "libp2p")]
    libp2p::CONTESTANT.name,
];

/// The size of what goes back and forth, and of a vote.
pub const ASKED: usize = 64;

/// The size of a bulk message.
pub const BULK: usize = 1 << 20;

/// The size of a message of one of many threads.
pub const SENT: usize = 256;

/// The size of a message to all peers.
pub const BROADCAST: usize = 256;
