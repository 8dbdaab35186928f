//! One flow: the two sockets, and the thread that is the only one to touch them.

use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::clock;
use crate::conn::tcp_info;

use super::faults::{Direction, Faults, Side, Ways};
use super::md5sig;
use super::pipe::{Pipe, Step, earlier};
use super::shared::Registration;
use super::sys::{self, Wake};

/// Steps of one direction before the other one, and the requests, get their turn.
const STEPS_PER_TURN: usize = 32;
/// No event tells that the peer's kernel has acknowledged all.
const ACKNOWLEDGED_POLL: Duration = Duration::from_millis(1);
/// A cut does not wait longer for a receiver whose window is closed.
const ACKNOWLEDGED_PATIENCE: Duration = Duration::from_secs(10);

/// A command to a flow.
#[derive(Clone, Copy)]
pub(super) enum Command {
    SetFaults(Faults),
    Reset,
    HalfClose(Direction),
    BlackHole,
    Heal,
    HalfOpen(Side),
}

type Request = (Command, SyncSender<bool>);

/// How others reach the flow's thread.
pub(super) struct Handle {
    requests: Sender<Request>,
    wake: Arc<Wake>,
}

impl Handle {
    /// Asks, without waiting. The answer comes when the command has taken effect; none comes from
    /// a flow that had ended before.
    pub(super) fn ask(&self, command: Command) -> Receiver<bool> {
        let (reply, answer) = mpsc::sync_channel(1);
        // If the thread is gone, the reply is dropped here and the receiver knows.
        if self.requests.send((command, reply)).is_ok() {
            self.wake.wake();
        }
        answer
    }
}

/// The start of a new flow.
pub(super) struct Start {
    pub(super) client: Socket,
    pub(super) target: SocketAddr,
    pub(super) faults: Faults,
    pub(super) cut: Option<(Direction, u64)>,
    pub(super) black_holed: bool,
}

pub(super) struct Flow {
    client: Option<Socket>,
    target: Option<Socket>,
    target_addr: SocketAddr,
    pipes: Ways<Pipe>,
    phase: Phase,
    faults: Faults,
    black_holed: bool,
    idle: Idle,
    /// When a byte was last forwarded.
    forwarded_at: Instant,
    cut_since: Option<Instant>,
    requests: Receiver<Request>,
    wake: Arc<Wake>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    Open,
    /// `forget_idle` has struck: there is no way back.
    Forgotten,
}

/// Why a flow is over.
enum Over {
    /// Both ends have sent and received FIN.
    Finished,
    /// Both ends are to be reset.
    Reset,
    /// The same, because the target did not answer the connect.
    Unreachable,
    /// The same, by `cut_after`.
    Cut,
    /// Both ends are to be closed, or reset, by `close_idle`.
    TimedOut { reset: bool },
    /// The same, by a request that waits until it is done.
    Asked(SyncSender<bool>),
}

impl Flow {
    pub(super) fn new(start: Start) -> io::Result<(Flow, Handle)> {
        let wake = Arc::new(Wake::new()?);
        let (sender, requests) = mpsc::channel();
        let now = clock::now();
        let pipe = |direction| {
            let cut = start.cut.filter(|(at, _)| *at == direction);
            Pipe::new(start.faults.link(direction), cut.map(|(_, n)| n), now)
        };
        let pipes = Ways { to_target: pipe(Direction::ToTarget), to_client: pipe(Direction::ToClient) };
        start.client.set_nonblocking(true)?;
        start.client.set_tcp_nodelay(true)?;
        let flow = Flow {
            client: Some(start.client),
            target: None,
            target_addr: start.target,
            pipes,
            phase: Phase::Connecting,
            faults: start.faults,
            black_holed: start.black_holed,
            idle: Idle::new(now),
            forwarded_at: now,
            cut_since: None,
            requests,
            wake: Arc::clone(&wake),
        };
        let handle = Handle { requests: sender, wake };
        Ok((flow, handle))
    }

    /// The thread's whole life. A thread that learns of its end (by an answer, or by the counters) can
    /// rely on the sockets being closed.
    pub(super) fn run(mut self, registration: Registration) {
        let over = match self.connect() {
            Ok(()) => self.relay(&registration),
            Err(_) => Over::Unreachable,
        };
        let linger = match over {
            Over::Finished | Over::TimedOut { reset: false } => None,
            _ => Some(Duration::ZERO),
        };
        for side in [Side::Client, Side::Target] {
            if let Some(socket) = self.socket(side) {
                let _ = md5sig::unblock(socket, self.is_ipv6(side));
                let _ = socket.set_linger(linger);
            }
        }
        drop(self);
        registration.end(|stats| match over {
            Over::Cut => stats.cut += 1,
            Over::TimedOut { .. } => stats.timed_out += 1,
            Over::Unreachable => stats.unreachable += 1,
            Over::Finished | Over::Reset | Over::Asked(_) => {}
        });
        if let Over::Asked(reply) = over {
            let _ = reply.send(true);
        }
    }

    fn connect(&mut self) -> io::Result<()> {
        let domain = Domain::for_address(self.target_addr);
        let target = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        target.set_nonblocking(true)?;
        target.set_tcp_nodelay(true)?;
        if let Some(size) = self.faults.recv_buffer {
            target.set_recv_buffer_size(size)?;
        }
        match target.connect(&self.target_addr.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            _ => self.target = Some(target),
        }
        if self.black_holed {
            self.set_hole(true);
        }
        Ok(())
    }

    fn relay(&mut self, registration: &Registration) -> Over {
        loop {
            self.wake.clear();
            while let Ok((command, reply)) = self.requests.try_recv() {
                if matches!(command, Command::Reset) {
                    return Over::Asked(reply);
                }
                let _ = reply.send(self.obey(command));
            }
            let mut until = None;
            if self.phase == Phase::Open {
                match self.pump(registration) {
                    Ok(soonest) => until = soonest,
                    Err(over) => return over,
                }
                let now = clock::now();
                match self.idle_deadline(now) {
                    Some(deadline) if deadline <= now => self.forget(registration),
                    deadline => until = earlier(until, deadline),
                }
                if let Some(limit) = self.faults.close_idle {
                    let deadline = self.forwarded_at + limit.after;
                    if deadline <= now {
                        return Over::TimedOut { reset: limit.reset };
                    }
                    until = earlier(until, Some(deadline));
                }
            }

            let mut slots = [
                sys::slot(Some(self.wake.fd()), libc::POLLIN),
                self.slot(Side::Client),
                self.slot(Side::Target),
            ];
            sys::poll(&mut slots, until);
            let [_, client, target] = slots;

            if self.phase == Phase::Connecting {
                if target.revents != 0 {
                    match self.connected() {
                        true => registration.connected(),
                        false => return Over::Unreachable,
                    }
                }
                continue;
            }
            for (side, slot) in [(Side::Client, client), (Side::Target, target)] {
                // Nothing was waited for but bad news: see `slot`.
                if slot.events == 0 && slot.revents != 0 {
                    let pipe = self.pipes.get_mut(side.outgoing());
                    pipe.source_gone(clock::now());
                }
            }
        }
    }

    fn connected(&mut self) -> bool {
        let Some(target) = &self.target else {
            return false;
        };
        let established = matches!(target.take_error(), Ok(None));
        // Connecting to a dead port of the ephemeral range can meet oneself.
        let oneself = match (target.local_addr(), target.peer_addr()) {
            (Ok(local), Ok(peer)) => local.as_socket() == peer.as_socket(),
            _ => true,
        };
        self.phase = Phase::Open;
        self.forwarded_at = clock::now();
        self.idle = Idle::new(self.forwarded_at);
        established && !oneself
    }

    /// Moves what can be moved. Returns when to come back even if no socket is ready.
    fn pump(&mut self, registration: &Registration) -> Result<Option<Instant>, Over> {
        let mut until = None;
        for direction in Direction::BOTH {
            let mut forwarded = 0;
            let soonest = self.pump_one(direction, &mut forwarded);
            if forwarded > 0 {
                self.forwarded_at = clock::now();
                registration.count(|stats| *stats.bytes.get_mut(direction) += forwarded);
            }
            until = earlier(until, soonest?);
        }
        let [out, back] = Direction::BOTH.map(|direction| self.pipes.get(direction));
        if out.complete() && back.complete() {
            return Err(Over::Finished);
        }
        if out.sink_gone() && back.sink_gone() {
            return Err(Over::Reset);
        }
        // The survivor of a half-open flow has closed.
        for direction in Direction::BOTH {
            let vanished = self.socket(direction.sink()).is_none();
            if vanished && self.pipes.get(direction).source_finished() {
                return Err(Over::Finished);
            }
        }
        if self.client.is_none() && self.target.is_none() {
            return Err(Over::Reset);
        }
        Ok(until)
    }

    fn pump_one(&mut self, direction: Direction, forwarded: &mut u64) -> Result<Option<Instant>, Over> {
        for _ in 0..STEPS_PER_TURN {
            let now = clock::now();
            let (source, sink) = match direction {
                Direction::ToTarget => (&self.client, &self.target),
                Direction::ToClient => (&self.target, &self.client),
            };
            let pipe = self.pipes.get_mut(direction);
            let Some(source) = source else {
                // Its end of the flow vanished without a word.
                return Ok(None);
            };
            let step = match sink {
                Some(sink) => pipe.step(source, sink, now),
                None => pipe.step(source, Nowhere, now),
            };
            match step {
                Step::Wait => return Ok(self.pipes.get(direction).wait().until),
                Step::Again => {}
                Step::Forwarded(n) => *forwarded += n as u64,
                Step::Fin => {
                    if let Some(sink) = sink {
                        // Fails if the sink is gone, which the next read or write will find.
                        let _ = sink.shutdown(Shutdown::Write);
                    }
                }
                Step::Reset => return Err(Over::Reset),
                Step::Cut => return self.cut(direction, now).map(Some),
                Step::SinkGone => {
                    let back = self.pipes.get_mut(direction.sink().outgoing());
                    back.source_gone(now);
                }
            }
            self.idle.last = now;
        }
        Ok(Some(clock::now()))
    }

    /// A reset destroys what is still on its way, so the bytes before it have to arrive first.
    fn cut(&mut self, direction: Direction, now: Instant) -> Result<Instant, Over> {
        let since = *self.cut_since.get_or_insert(now);
        let left = self.socket(direction.sink()).map(sys::unacknowledged);
        if matches!(left, Some(Ok(1..))) && now < since + ACKNOWLEDGED_PATIENCE {
            Ok(now + ACKNOWLEDGED_POLL)
        } else {
            Err(Over::Cut)
        }
    }

    fn obey(&mut self, command: Command) -> bool {
        let now = clock::now();
        match command {
            Command::Reset => {}
            Command::SetFaults(faults) => {
                if self.faults.forget_idle != faults.forget_idle {
                    self.idle = Idle::new(now);
                }
                if self.faults.close_idle != faults.close_idle {
                    self.forwarded_at = now;
                }
                self.faults = faults;
                for direction in Direction::BOTH {
                    let link = faults.link(direction);
                    self.pipes.get_mut(direction).set_link(link, now);
                }
            }
            Command::HalfClose(direction) => self.pipes.get_mut(direction).finish(now),
            Command::BlackHole => return self.set_hole(true),
            Command::Heal if self.phase != Phase::Forgotten => return self.set_hole(false),
            Command::Heal => {}
            Command::HalfOpen(side) => return self.vanish(side),
        }
        true
    }

    fn set_hole(&mut self, hole: bool) -> bool {
        let mut done = true;
        for side in [Side::Client, Side::Target] {
            if let Some(socket) = self.socket(side) {
                let set = if hole { md5sig::block } else { md5sig::unblock };
                done &= set(socket, self.is_ipv6(side)).is_ok();
            }
        }
        done
    }

    /// Closes the socket towards `side`, whose kernel must not hear of it: the key makes it drop
    /// the RST, and without the linger setting there would be retransmissions of a FIN.
    fn vanish(&mut self, side: Side) -> bool {
        let ipv6 = self.is_ipv6(side);
        let socket = match side {
            Side::Client => &mut self.client,
            Side::Target => &mut self.target,
        };
        if let Some(visible) = socket {
            if md5sig::block(visible, ipv6).is_err() || visible.set_linger(Some(Duration::ZERO)).is_err() {
                return false;
            }
            *socket = None;
            self.pipes.get_mut(side.incoming()).swallow();
        }
        true
    }

    fn forget(&mut self, registration: &Registration) {
        // Not forwarding any more is all that can be done where there are no keys.
        let _ = self.set_hole(true);
        self.phase = Phase::Forgotten;
        registration.forgotten();
    }

    /// When the flow has been idle for too long, or when to look again whether it has.
    fn idle_deadline(&mut self, now: Instant) -> Option<Instant> {
        let limit = self.faults.forget_idle?;
        let segments = [&self.client, &self.target].map(|s| s.as_ref().and_then(tcp_info::segments_in));
        if self.idle.segments != Some(segments) {
            self.idle.segments = Some(segments);
            self.idle.last = now;
        }
        let deadline = self.idle.last.checked_add(limit)?;
        if deadline <= now {
            return Some(deadline);
        }
        // Segments without data wake nobody: look often enough to date them.
        Some(deadline.min(now + (limit / 8).max(Duration::from_millis(1))))
    }

    fn slot(&self, side: Side) -> libc::pollfd {
        let Some(socket) = self.socket(side) else {
            return sys::slot(None, 0);
        };
        let fd = Some(socket.as_raw_fd());
        let (outgoing, incoming) = (self.pipes.get(side.outgoing()), self.pipes.get(side.incoming()));
        match self.phase {
            Phase::Forgotten => return sys::slot(None, 0),
            Phase::Connecting if side == Side::Target => return sys::slot(fd, libc::POLLOUT),
            Phase::Connecting => return sys::slot(None, 0),
            Phase::Open => {}
        }
        let mut events = 0;
        if outgoing.wait().readable {
            events |= libc::POLLIN;
        }
        if incoming.wait().writable {
            events |= libc::POLLOUT;
        }
        // A hang-up is reported whether asked for or not, and for ever: a socket may be in the set
        // only if the report leads to something. That is a read, a write, or, once this end has
        // sent FIN, the discovery that it is gone.
        let watch = outgoing.source_finished() && !incoming.sink_done();
        sys::slot(fd.filter(|_| events != 0 || watch), events)
    }

    fn socket(&self, side: Side) -> Option<&Socket> {
        match side {
            Side::Client => self.client.as_ref(),
            Side::Target => self.target.as_ref(),
        }
    }

    fn is_ipv6(&self, side: Side) -> bool {
        side == Side::Target && self.target_addr.is_ipv6()
    }
}

/// When a flow was last used.
struct Idle {
    last: Instant,
    segments: Option<[Option<u32>; 2]>,
}

impl Idle {
    fn new(now: Instant) -> Idle {
        Idle { last: now, segments: None }
    }
}

/// The sink in place of a vanished socket. The pipe discards before it would write here.
struct Nowhere;

impl Write for Nowhere {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
