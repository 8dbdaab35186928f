//! The faults that the proxy can be told to cause, and its counters.

use std::time::Duration;

/// One of the two ways through the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client that connected to the proxy, to the target.
    ToTarget,
    /// From the target, to the client.
    ToClient,
}

impl Direction {
    /// Both directions, for loops.
    pub const BOTH: [Direction; 2] = [Direction::ToTarget, Direction::ToClient];

    /// The end that sends in this direction.
    pub fn source(self) -> Side {
        match self {
            Direction::ToTarget => Side::Client,
            Direction::ToClient => Side::Target,
        }
    }

    /// The end that receives in this direction.
    pub fn sink(self) -> Side {
        match self {
            Direction::ToTarget => Side::Target,
            Direction::ToClient => Side::Client,
        }
    }
}

/// One of the two ends of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The end that connected to the proxy.
    Client,
    /// The end that the proxy connected to.
    Target,
}

impl Side {
    /// The direction in which this end sends.
    pub(super) fn outgoing(self) -> Direction {
        match self {
            Side::Client => Direction::ToTarget,
            Side::Target => Direction::ToClient,
        }
    }

    /// The direction in which this end receives.
    pub(super) fn incoming(self) -> Direction {
        match self {
            Side::Client => Direction::ToClient,
            Side::Target => Direction::ToTarget,
        }
    }
}

/// One value for each direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ways<T> {
    /// The value for bytes that go to the target.
    pub to_target: T,
    /// The value for bytes that go to the client.
    pub to_client: T,
}

impl<T> Ways<T> {
    /// The same value in both directions.
    pub fn both(value: T) -> Self
    where
        T: Clone,
    {
        Ways { to_target: value.clone(), to_client: value }
    }

    /// The value in one direction; the default (no fault) in the other.
    pub fn only(direction: Direction, value: T) -> Self
    where
        T: Default,
    {
        let mut ways = Ways { to_target: T::default(), to_client: T::default() };
        *ways.get_mut(direction) = value;
        ways
    }

    /// The value for `direction`.
    pub fn get(&self, direction: Direction) -> &T {
        match direction {
            Direction::ToTarget => &self.to_target,
            Direction::ToClient => &self.to_client,
        }
    }

    /// The value for `direction`, to change it.
    pub fn get_mut(&mut self, direction: Direction) -> &mut T {
        match direction {
            Direction::ToTarget => &mut self.to_target,
            Direction::ToClient => &mut self.to_client,
        }
    }
}

impl<T: Clone> From<T> for Ways<T> {
    /// The same value in both directions.
    fn from(value: T) -> Self {
        Ways::both(value)
    }
}

/// The idle timeout of a middlebox that tells both ends of it, as HAProxy and nginx do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseIdle {
    /// How long no byte may be forwarded. Segments without data (keepalive probes) do not count.
    pub after: Duration,
    /// By RST, instead of FIN.
    pub reset: bool,
}

/// The lasting faults. The default is none: bytes pass at full speed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// One-way delay. A round trip takes the sum of both directions. Applies to bytes that are
    /// already under way, too. At most 4 MiB are under way in a direction, which bounds the
    /// throughput to 4 MiB per `delay`.
    pub delay: Ways<Duration>,
    /// Bandwidth in bytes per second. `Some(0)` lets nothing pass. Bytes that have to wait stay in
    /// the kernel's receive buffer (see `recv_buffer`), not in the proxy, which takes one
    /// millisecond's worth at a time (16 KiB at most).
    pub rate: Ways<Option<u64>>,
    /// One byte per interval, whatever `rate` says.
    pub trickle: Ways<Option<Duration>>,
    /// Nothing is read or forwarded, nor is a FIN or RST: a peer that is alive for the kernel (it
    /// acknowledges until its window is full) and stands still otherwise.
    pub stall: Ways<bool>,
    /// New connections are refused with RST, by the kernel, as on a port where nobody listens.
    /// Existing flows are not touched. The port stays bound meanwhile, so the kernel assigns it to
    /// nobody else, and a client that tries often does not meet itself there.
    pub refuse: bool,
    /// A NAT that forgets: a flow on which neither end sent any segment (data, acknowledgement or
    /// keepalive probe) for this long is silently black-holed, for good. The clock starts when
    /// this is switched on, and it runs up to an eighth late, never early. Where the kernel
    /// refuses TCP_MD5SIG, the flow is stalled for good instead.
    pub forget_idle: Option<Duration>,
    /// A middlebox that closes a flow on which no byte was forwarded for some time, and says so.
    pub close_idle: Option<CloseIdle>,
    /// SO_RCVBUF in bytes (the kernel doubles it) of the proxy's sockets, for flows that are
    /// accepted from now on. Small values keep the queue before a slow link short; `None` leaves
    /// it to the kernel, which lets it grow to megabytes.
    pub recv_buffer: Option<usize>,
}

/// The sum of the faults for one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) delay: Duration,
    pub(super) rate: Option<u64>,
    pub(super) trickle: Option<Duration>,
    pub(super) stall: bool,
}

impl Faults {
    pub(super) fn link(&self, direction: Direction) -> Link {
        Link {
            delay: *self.delay.get(direction),
            rate: *self.rate.get(direction),
            trickle: *self.trickle.get(direction),
            stall: *self.stall.get(direction),
        }
    }
}

/// Counters of a proxy, as of one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Flows that are connected on both sides now. Includes black-holed and half-open ones, but
    /// not those forgotten by `forget_idle`.
    pub flows: usize,
    /// Connections accepted from clients so far.
    pub accepted: u64,
    /// Flows that got connected on both sides so far. To wait for a new flow, wait for this to
    /// grow: `flows` may shrink at the same time.
    pub connected: u64,
    /// Accepted connections that were reset because the target could not be reached.
    pub unreachable: u64,
    /// Flows that `forget_idle` has black-holed so far.
    pub forgotten: u64,
    /// Flows that `close_idle` has closed so far.
    pub timed_out: u64,
    /// Flows that `cut_after` has reset so far.
    pub cut: u64,
    /// Bytes handed to the receiving kernel so far. May lag a moment behind what was received.
    pub bytes: Ways<u64>,
}
