//! A dial: from the addresses of an entry to a connection that has joined its link.
//!
//! Each dial has a thread, on which its attempts are raced with non-blocking sockets: the order and the times
//! are those of [`Race`]. Literal addresses are attempted at once; names are looked up by the
//! [`Resolver`](super::resolver::Resolver) meanwhile. The first connection that is made is taken, and this
//! thread becomes its reader.
//!
//! # Bounds
//! The roster begins no more than [`Config::max_dials`](crate::Config::max_dials) dials at once. Attempts
//! beyond the first one of each dial come out of a part of their own, half as large. An attempt that finds no
//! room there waits until the one before it has failed, or takes its place.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use crate::clock;
use crate::config::{PathConfig, PeerConfig, address};
use crate::conn::{ConnHandle, poll, socket};
use crate::error::{EndCause, EndReason, Initiator};
use crate::id::PeerId;
use crate::roster::{Race, SHORT, Step, TargetId, Trouble, rotated};

use super::connect::{Dialled, Joined, Pending, Permit, serve, shake_hands};
use super::event_queue::Class;
use super::inbound::InboundPermit;
use super::inner::NodeInner;
use super::resolver::Lookup;
use super::shared::Report;

/// For how long a dial waits for the resolver when it has nothing else to do: a resolver that goes on to its
/// second name server after 5 s, and tries both twice (resolv.conf(5)), has answered by then.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(20);
/// While connections are attempted, results of the resolver are noticed at the latest after this time.
const LOOKUP_POLL: Duration = Duration::from_millis(25);

/// A dial that the roster asked for.
#[derive(Clone, Debug)]
pub(crate) struct Dial {
    pub(crate) target: TargetId,
    /// Whether the operator named it.
    pub(crate) class: Class,
    /// The peer that answered there last.
    pub(crate) peer: Option<PeerId>,
    /// Nobody else is to be connected to; `None`: whoever answers.
    pub(crate) expected: Option<PeerId>,
    /// Its place in the pool.
    pub(crate) slot: u8,
    /// The connection that it is to relieve.
    pub(crate) replaces: Option<Trouble>,
    /// The address that led to the connection that was in this place before.
    pub(crate) prefer: Option<SocketAddr>,
    /// It has only a part of the time to connect.
    pub(crate) short: bool,
    /// The peer dialled this node and is dialled back: the connection is admitted as one that it dialled.
    pub(crate) dial_back: bool,
    pub(crate) config: PeerConfig,
}

/// Why a dial, or one of its attempts, has failed.
struct Failure {
    reason: EndReason,
    /// The peer that had proven by then who it is.
    proven: Option<PeerId>,
}

impl From<EndReason> for Failure {
    fn from(reason: EndReason) -> Self {
        Failure { reason, proven: None }
    }
}

impl Dial {
    fn failed(&self, core: &NodeInner, failure: impl Into<Failure>) {
        let Failure { reason, proven } = failure.into();
        let (target, slot, peer) = (self.target, self.slot, self.expected.or(proven).or(self.peer));
        let (label, address) = (self.config.label.clone(), self.config.address.clone());
        core.shared.report(Report::DialFailed { target, slot, peer, label, address, reason });
    }
}

/// Starts the thread that dials.
pub(crate) fn dial(core: &Arc<NodeInner>, dial: Dial) {
    let Some(permit) = Permit::new(core) else {
        return dial.failed(core, EndReason::new(Initiator::Library, EndCause::Full));
    };
    let (inner, after) = (Arc::clone(core), Arc::clone(core));
    // Shared: what a thread is started with lies on its stack several times.
    let dial = Arc::new(dial);
    let (ours, theirs) = (Arc::clone(&dial), Arc::clone(&dial));
    let started = core.threads.spawn(
        "dial",
        move || {
            let _permit = permit;
            if let Err(failure) = run(&inner, &ours) {
                ours.failed(&inner, failure);
            }
        },
        move |panicked| {
            if panicked.0 {
                theirs.failed(&after, EndReason::new(Initiator::Library, EndCause::Panic));
            }
        },
    );
    if let Err(error) = started {
        dial.failed(core, EndReason::io("start a thread", &error));
    }
}

/// Dials until a connection has ended that had joined the link, or no address is left. An error says why no
/// connection came to be; how one ended is reported by the link.
fn run(core: &Arc<NodeInner>, dial: &Dial) -> Result<(), Failure> {
    let path = dial.config.path.as_ref().unwrap_or(&core.config.path);
    let mut attempts = Attempts::new(core, dial, path);
    while let Some(attempt) = attempts.connect()? {
        let since = clock::now();
        attempt.pending.set_deadline(since + path.handshake_timeout);
        let conn = Arc::clone(&attempt.conn);
        match join(core, dial, path, attempt, &conn) {
            Ok((joined, _place)) => {
                drop(attempts);
                core.threads.change_role("reader");
                serve(core, &conn, joined);
                return Ok(());
            }
            Err(reason) => attempts.handle_handshake_failed(&conn, reason, since),
        }
    }
    Err(attempts.failure())
}

/// The handshake. An error says why the connection has not joined its link.
#[inline(never)] // As `Attempts::new`.
fn join<'a>(
    core: &Arc<NodeInner>,
    dial: &Dial,
    path: &PathConfig,
    attempt: Attempt,
    conn: &'a Arc<ConnHandle>,
) -> Result<(Joined<'a>, Option<InboundPermit>), EndReason> {
    let Attempt { pending, room, .. } = attempt;
    drop(room);
    // Otherwise strangers could have more connections than admission allows, by not answering on those that
    // it counts.
    let place = dial.dial_back.then(|| core.on_accept(conn.id, conn.addr())).transpose()?;
    let Dial { target, expected, slot, dial_back, .. } = *dial;
    let (address, replaces) = (&*dial.config.address, dial.replaces.is_some());
    let dialled = Dialled { target, address, expected, slot, replaces, dial_back };
    let joined = shake_hands(core, conn, Some(&dialled), path, &pending)
        .map_err(|reason| conn.reason().cloned().unwrap_or(reason))?;
    drop(pending);
    let (peer, address) = (joined.link.peer, address.to_owned());
    core.shared.report(Report::Dialled { target, slot, peer, address, addr: conn.addr() });
    Ok((joined, place))
}

/// A socket that connects.
struct Attempt {
    conn: Arc<ConnHandle>,
    pending: Pending,
    room: Option<Room>,
}

/// The attempts of one dial.
struct Attempts<'a> {
    core: &'a Arc<NodeInner>,
    path: &'a PathConfig,
    /// The peer whose link knows the paths there.
    peer: Option<PeerId>,
    race: Race,
    slot: u8,
    lookups: Vec<Lookup>,
    connecting: Vec<Attempt>,
    last: Option<Failure>,
}

impl<'a> Attempts<'a> {
    /// Not on the stack of the thread, where it would stay in memory while the connection serves. Nor is what
    /// the functions below need, as long as they are not inlined.
    #[inline(never)]
    fn new(core: &'a Arc<NodeInner>, dial: &Dial, path: &'a PathConfig) -> Box<Self> {
        let avoid = dial.replaces.map(|trouble| trouble.addr);
        let budget = if dial.short { path.connect_timeout / SHORT } else { path.connect_timeout };
        let race = Race::new(dial.prefer, avoid, budget);
        let (lookups, connecting) = (Vec::new(), Vec::new());
        let (peer, slot) = (dial.peer, dial.slot);
        let mut this = Box::new(Attempts { core, path, peer, race, slot, lookups, connecting, last: None });
        for address in rotated(dial.config.addresses().collect(), dial.slot) {
            match address::literal(address) {
                Ok(Some(addr)) => this.race.add([addr]),
                Ok(None) => this.lookups.push(core.resolver.look_up(address, dial.class)),
                Err(error) => this.note(EndReason::io("resolve", &error)),
            }
        }
        this
    }

    /// The next connection that is made. `None` if there is none, and will be none.
    #[inline(never)]
    fn connect(&mut self) -> Result<Option<Attempt>, EndReason> {
        let names_until = clock::now() + LOOKUP_TIMEOUT;
        loop {
            // A shutdown that came before an attempt was in the list of those that it ends would not end it.
            if self.core.is_closing() {
                return Err(EndReason::new(Initiator::Us, EndCause::Shutdown));
            }
            self.take_names();
            let now = clock::now();
            self.start(now);
            if let Some(attempt) = self.take_connected(now)? {
                return Ok(Some(attempt));
            }
            let timed_out = || std::io::Error::from(std::io::ErrorKind::TimedOut);
            if self.race.is_late(now) {
                if !self.connecting.is_empty() {
                    self.note(EndReason::io("connect", &timed_out()));
                }
                return Ok(None);
            }
            if self.connecting.is_empty() && self.race.has_next(self.lookups.is_empty()) {
                continue;
            }
            if self.connecting.is_empty() && self.lookups.is_empty() {
                return Ok(None);
            }
            if self.connecting.is_empty() {
                if now >= names_until {
                    let name = self.lookups.first().map_or("", Lookup::name);
                    let what = format!("{name}: no answer from the resolver in {LOOKUP_TIMEOUT:?}");
                    let error = std::io::Error::new(std::io::ErrorKind::TimedOut, what);
                    self.lookups.clear();
                    self.note(EndReason::io("resolve", &error));
                } else {
                    Lookup::wait_any(&self.lookups, names_until);
                }
            }
        }
    }

    fn take_names(&mut self) {
        let mut found = Vec::new();
        self.lookups.retain(|lookup| match lookup.poll() {
            Some(result) => {
                found.push(result);
                false
            }
            None => true,
        });
        for result in found {
            match result {
                Ok(addrs) => self.race.add(rotated(addrs, self.slot)),
                Err(reason) => self.note(reason),
            }
        }
    }

    /// Starts the attempts that are due.
    fn start(&mut self, now: Instant) {
        loop {
            let first = self.connecting.is_empty();
            let room = if first { None } else { Room::new(self.core) };
            match self.race.poll(now, self.lookups.is_empty(), first || room.is_some()) {
                Some(Step::Connect(addr)) => match self.begin(addr, room) {
                    Ok(attempt) => self.connecting.push(attempt),
                    Err(reason) => self.handle_failed(addr, reason),
                },
                Some(Step::GiveUp(addr)) => {
                    self.connecting.retain(|attempt| attempt.conn.addr() != addr);
                    let error = std::io::Error::from(std::io::ErrorKind::TimedOut);
                    self.handle_failed(addr, EndReason::io("connect", &error));
                }
                None => return,
            }
        }
    }

    fn begin(&self, addr: SocketAddr, room: Option<Room>) -> Result<Attempt, EndReason> {
        let socket = socket::for_dialing(addr, self.segment(addr))
            .map_err(|error| EndReason::io("make a socket", &error))?;
        socket::bind_outbound(&socket, self.core.config.outbound(addr))?;
        let conn = Arc::new(ConnHandle::new(self.core.next_conn(), addr, true, socket));
        let deadline = clock::now() + self.path.connect_timeout + self.path.handshake_timeout;
        let pending = Pending::new(self.core, &conn, deadline);
        socket::begin_connect(&conn.socket, addr).map_err(|error| EndReason::io("connect", &error))?;
        Ok(Attempt { conn, pending, room })
    }

    /// The largest segment that is configured, or known to pass there, if full ones are not to be sent.
    fn segment(&self, addr: SocketAddr) -> Option<u16> {
        let link = self.peer.and_then(|peer| self.core.link(peer));
        let reduced = link.and_then(|link| link.inspect(|state| state.link.segment_limit(addr.ip())));
        self.path.max_segment.into_iter().chain(reduced).min()
    }

    /// Waits until an attempt ends, or another one is due.
    fn take_connected(&mut self, now: Instant) -> Result<Option<Attempt>, EndReason> {
        if self.connecting.is_empty() {
            return Ok(None);
        }
        let mut wait = self.race.next_timeout().map_or(LOOKUP_POLL, |at| at.saturating_duration_since(now));
        // Only on Linux does the shutdown of a socket that connects end the wait for it.
        if !self.lookups.is_empty() || cfg!(not(target_os = "linux")) {
            wait = wait.min(LOOKUP_POLL);
        }
        let sockets: Vec<_> = self.connecting.iter().map(|attempt| &attempt.conn.socket).collect();
        let ended = poll::connected(&sockets, wait).map_err(|error| EndReason::io("poll", &error))?;
        let mut ended = ended.into_iter();
        let has_ended = |attempt: &mut Attempt| {
            let is_ready = ended.next() == Some(true);
            is_ready || attempt.conn.reason().is_some()
        };
        let ended: Vec<_> = self.connecting.extract_if(.., has_ended).collect();
        for attempt in ended {
            let addr = attempt.conn.addr();
            match socket::finish_connect(&attempt.conn.socket, addr) {
                Ok(()) => {
                    self.race.handle_connected(addr);
                    self.connecting.clear();
                    return Ok(Some(attempt));
                }
                Err(error) => {
                    let reason = attempt.conn.reason().cloned();
                    self.handle_failed(addr, reason.unwrap_or_else(|| EndReason::io("connect", &error)));
                }
            }
        }
        Ok(None)
    }

    fn handle_failed(&mut self, addr: SocketAddr, reason: EndReason) {
        self.race.handle_failed(addr);
        self.note(reason);
    }

    #[inline(never)]
    fn handle_handshake_failed(&mut self, conn: &ConnHandle, reason: EndReason, since: Instant) {
        self.race.handle_handshake_failed(since, clock::now());
        self.note(Failure { reason, proven: conn.peer.get().copied() });
    }

    /// One address of several may lead back to this node. That says nothing of the others.
    fn note(&mut self, failure: impl Into<Failure>) {
        let failure = failure.into();
        if failure.reason.cause != EndCause::SelfConnection || self.last.is_none() {
            self.last = Some(failure);
        }
    }

    /// Why there is no connection.
    fn failure(self) -> Failure {
        let nothing = || EndReason::io("resolve", &std::io::Error::other("the name has no address"));
        self.last.unwrap_or_else(|| nothing().into())
    }
}

/// The right to one attempt more than one in a dial.
struct Room(Arc<NodeInner>);

impl Room {
    fn new(core: &Arc<NodeInner>) -> Option<Self> {
        let max = core.config.max_dials / 2;
        core.further_attempts
            .fetch_update(SeqCst, SeqCst, |count| (count < max).then_some(count + 1))
            .ok()?;
        Some(Room(Arc::clone(core)))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.0.further_attempts.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use crossbeam_channel::bounded;

    use crate::node::resolver::Resolver;
    use crate::{Node, PeerConfig};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// A node whose resolver does not answer for as long as the sender lives.
    fn node() -> (Node, crossbeam_channel::Sender<()>) {
        let (release, held) = bounded::<()>(0);
        let resolver = Resolver::new(move |_: &str| {
            let _ = held.recv();
            Ok(Vec::new())
        });
        (Node::builder().start_with(resolver).unwrap(), release)
    }

    #[test]
    fn a_literal_address_waits_for_no_resolver() {
        let (node, _release) = node();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let alternatives = vec![listener.local_addr().unwrap().to_string()];
        node.add_peer(PeerConfig { alternatives, ..PeerConfig::new("silent.example:1") }).unwrap();
        listener.accept().unwrap();
    }

    #[test]
    fn after_an_address_that_refuses_the_others_are_attempted() {
        let node = Node::builder().start().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let alternatives = vec![listener.local_addr().unwrap().to_string()];
        node.add_peer(PeerConfig { alternatives, ..PeerConfig::new(closed.to_string()) }).unwrap();
        listener.accept().unwrap();
    }

    #[test]
    fn shutdown_does_not_wait_for_the_resolver() {
        let (node, release) = node();
        (0..100).for_each(|n| node.add_peer(PeerConfig::new(format!("n{n}.example:1"))).unwrap());
        let dials = || node.snapshot().connections;
        let deadline = clock::now() + LONG;
        while dials() < 100 {
            assert!(clock::now() < deadline, "{} dials are under way", dials());
            std::thread::yield_now();
        }
        let start = clock::now();
        node.shutdown(Duration::ZERO);
        // The resolver answers only after it.
        assert!(start.elapsed() < LOOKUP_TIMEOUT, "{:?}", start.elapsed());
        assert_eq!(node.snapshot().connections, 0);
        drop(release);
    }
}
