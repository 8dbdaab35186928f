//! The life of one connection's thread: dial or accept, handshake, join the link, read to the end.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Instant;

use socket2::Socket;

use crate::clock;
use crate::config::{PathConfig, PeerConfig};
use crate::conn::handshake::{self, HandshakeError};
use crate::conn::reader;
use crate::conn::record::{Opener, Sealer};
use crate::conn::{ConnHandle, socket, threads, writer};
use crate::error::{EndCause, EndReason, Initiator};
use crate::id::{ConnId, PeerId};
use crate::link::NewConn;
use crate::roster::TargetId;
use crate::wire::reader::FrameReader;

use super::core::Core;
use super::hub::Report;
use super::link::LinkHandle;

/// Starts the thread that dials `target`.
pub(crate) fn dial(core: &Arc<Core>, target: TargetId, config: &PeerConfig) {
    let failed = move |core: &Core, config: &PeerConfig, reason| {
        let address = config.address.clone();
        core.hub.report(Report::DialFailed { target, address, reason });
    };
    let Some(permit) = Permit::new(core) else {
        return failed(core, config, EndReason::new(Initiator::Library, EndCause::Full));
    };
    let (inner, after) = (Arc::clone(core), Arc::clone(core));
    let (ours, theirs) = (config.clone(), config.clone());
    let started = core.threads.spawn(
        "unbroken-dial",
        move || {
            let _permit = permit;
            if let Err(reason) = run_dialled(&inner, target, &ours) {
                failed(&inner, &ours, reason);
            }
        },
        move |panicked| {
            if panicked.0 {
                failed(&after, &theirs, EndReason::new(Initiator::Library, EndCause::Panic));
            }
        },
    );
    if let Err(error) = started {
        failed(core, config, EndReason::io("start a thread", &error));
    }
}

/// Tries every address. An error says why no connection came to be; how one ended is the link's news.
fn run_dialled(core: &Arc<Core>, target: TargetId, config: &PeerConfig) -> Result<(), EndReason> {
    let addrs = config.address.to_socket_addrs().map_err(|error| EndReason::io("resolve", &error))?;
    let mut last = EndReason::io("resolve", &std::io::Error::other("the name has no address"));
    for addr in addrs {
        if core.is_closing() {
            return Err(EndReason::new(Initiator::Us, EndCause::Shutdown));
        }
        let path = config.path.as_ref().unwrap_or(&core.config.path);
        match try_address(core, target, config, addr, path) {
            Ok(()) => return Ok(()),
            Err(reason) => last = reason,
        }
    }
    Err(last)
}

fn try_address(
    core: &Arc<Core>,
    target: TargetId,
    config: &PeerConfig,
    addr: SocketAddr,
    path: &PathConfig,
) -> Result<(), EndReason> {
    let socket = socket::for_dialing(addr).map_err(|error| EndReason::io("make a socket", &error))?;
    let conn = Arc::new(ConnHandle::new(core.next_conn(), addr, true, socket));
    let deadline = clock::now() + path.connect_timeout + path.handshake_timeout;
    let pending = Pending::new(core, &conn, deadline);
    // A shutdown that came before this was in the list would not end it.
    if core.is_closing() {
        return Err(EndReason::new(Initiator::Us, EndCause::Shutdown));
    }
    socket::connect(&conn.socket, addr, path).map_err(|error| EndReason::io("connect", &error))?;
    pending.set_deadline(clock::now() + path.handshake_timeout);
    let joined = shake_hands(core, &conn, config.id, path, &pending);
    drop(pending);
    match joined {
        Ok(joined) => {
            core.hub.report(Report::Dialled { target, peer: joined.link.peer });
            serve(core, &conn, joined);
            Ok(())
        }
        Err(reason) => Err(conn.reason().cloned().unwrap_or(reason)),
    }
}

/// Starts the thread of an accepted connection. A connection that cannot have one is closed.
pub(crate) fn accept(core: &Arc<Core>, socket: Socket, addr: SocketAddr) {
    let id = core.next_conn();
    let full = || EndReason::new(Initiator::Library, EndCause::Full);
    let admitted = core.knock(id, addr).and_then(|place| Ok((place, Permit::new(core).ok_or_else(full)?)));
    let (place, permit) = match admitted {
        Ok(admitted) => admitted,
        Err(reason) => return log::debug!("{addr}: refused, {reason}"),
    };
    let conn = Arc::new(ConnHandle::new(id, addr, false, socket));
    let (inner, of_panic) = (Arc::clone(core), Arc::clone(&conn));
    let deadline = clock::now() + core.config.path.handshake_timeout;
    let pending = Pending::new(core, &conn, deadline);
    let started = core.threads.spawn(
        "unbroken-accept",
        move || {
            let (_permit, _place) = (permit, place);
            if let Err(reason) = run_accepted(&inner, &conn, pending) {
                let reason = conn.reason().unwrap_or(&reason);
                inner.judge(&conn, None, reason);
                log::debug!("{} from {addr}: {reason}", conn.id);
            }
        },
        move |panicked| {
            if panicked.0 {
                of_panic.end(EndReason::new(Initiator::Library, EndCause::Panic));
            }
        },
    );
    if let Err(error) = started {
        log::warn!("{addr}: refused, no thread: {error}");
    }
}

fn run_accepted(core: &Arc<Core>, conn: &Arc<ConnHandle>, pending: Pending) -> Result<(), EndReason> {
    // A shutdown that came before this was in the list would not end it.
    if core.is_closing() {
        return Err(EndReason::new(Initiator::Us, EndCause::Shutdown));
    }
    let joined = shake_hands(core, conn, None, &core.config.path, &pending)?;
    drop(pending);
    // Only now is it known who this is and what was configured for it.
    if let Err(error) = socket::configure(&conn.socket, &joined.link.path()) {
        conn.end(EndReason::io("set options", &error));
    }
    serve(core, conn, joined);
    Ok(())
}

/// A connection that belongs to a link.
struct Joined<'a> {
    link: Arc<LinkHandle>,
    reader: FrameReader<Opener<'a>>,
    sealer: Sealer,
}

fn shake_hands<'a>(
    core: &Arc<Core>,
    conn: &'a Arc<ConnHandle>,
    expected: Option<PeerId>,
    path: &PathConfig,
    pending: &Pending,
) -> Result<Joined<'a>, EndReason> {
    socket::configure(&conn.socket, path).map_err(|error| EndReason::io("set options", &error))?;
    let mut stream = socket::Stream(&conn.socket);
    let (peer, incarnation) =
        handshake::introduce(&mut stream, conn.dialled, &core.card, expected).map_err(end_reason)?;
    core.enter(conn, peer)?;
    let link = core.link_for(peer)?;
    if conn.dialled {
        link.set_path(path);
    }
    let ours = link.hello(incarnation, conn.dialled);
    handshake::send_hello(&mut stream, &ours).map_err(end_reason)?;
    let mut reader = FrameReader::new(Opener::Plaintext(&conn.socket));
    let theirs = handshake::read_hello(&mut reader).map_err(end_reason)?;
    let new = NewConn { id: conn.id, dialled: conn.dialled, incarnation, ours, theirs };
    link.attach(conn, &new, pending.deadline())?;
    let banned = core.is_banned(peer);
    if banned || !core.is_kept(&link) {
        let cause = if banned { EndCause::Banned } else { EndCause::Retry };
        let reason = EndReason::new(Initiator::Library, cause);
        conn.end(reason.clone());
        link.detach(conn, &reason);
        return Err(reason);
    }
    Ok(Joined { link, reader, sealer: Sealer::Plaintext })
}

/// Reads and writes until the connection ends.
fn serve(core: &Core, conn: &Arc<ConnHandle>, joined: Joined<'_>) {
    let Joined { link, mut reader, mut sealer } = joined;
    // Detached even if a thread panics: the link must not wait for a connection that is gone.
    let detach = Detach { conn, link: &link };
    let (its_conn, its_link, write_timeout) =
        (Arc::clone(conn), Arc::clone(&link), link.path().write_timeout);
    let of_panic = Arc::clone(conn);
    let writer = threads::spawn_guarded(
        "unbroken-writer",
        move || writer::run(&its_conn, &its_link, &mut sealer, write_timeout),
        move || of_panic.end(EndReason::new(Initiator::Library, EndCause::Panic)),
    );
    match writer {
        Ok(writer) => {
            let guard = JoinWriter { conn, writer: Some(writer) };
            reader::run(conn, &link, &mut reader);
            drop(guard);
        }
        Err(error) => conn.end(EndReason::io("start a thread", &error)),
    }
    // Before the application hears of the end.
    conn.reason().into_iter().for_each(|reason| core.judge(conn, Some(&link), reason));
    drop(detach);
}

/// Ends and joins the writer, also when the reader panics.
struct JoinWriter<'a> {
    conn: &'a ConnHandle,
    writer: Option<std::thread::JoinHandle<()>>,
}

impl Drop for JoinWriter<'_> {
    fn drop(&mut self) {
        if self.conn.reason().is_none() {
            self.conn.end(EndReason::new(Initiator::Library, EndCause::Panic));
        }
        self.conn.wake();
        self.writer.take().into_iter().for_each(threads::join);
    }
}

struct Detach<'a> {
    conn: &'a ConnHandle,
    link: &'a Arc<LinkHandle>,
}

impl Drop for Detach<'_> {
    fn drop(&mut self) {
        let panic = EndReason::new(Initiator::Library, EndCause::Panic);
        let reason = self.conn.reason().unwrap_or(&panic);
        log::debug!("{} {} {}: {reason}", self.conn.id, self.link.peer.short(), self.conn.addr);
        self.link.detach(self.conn, reason);
    }
}

fn end_reason(error: HandshakeError) -> EndReason {
    match error {
        HandshakeError::Io(error) => EndReason::io("handshake", &error),
        HandshakeError::Closed => EndReason::new(Initiator::Peer, EndCause::Closed),
        HandshakeError::SelfConnection => EndReason::new(Initiator::Library, EndCause::SelfConnection),
        HandshakeError::Preface(_) | HandshakeError::WrongPeer { .. } => {
            EndReason::new(Initiator::Library, EndCause::Refused(error.to_string()))
        }
        HandshakeError::Protocol(what) => EndReason::new(Initiator::Library, EndCause::Protocol(what)),
    }
}

/// One of the node's `max_connections`.
struct Permit(Arc<Core>);

impl Permit {
    fn new(core: &Arc<Core>) -> Option<Self> {
        let max = core.config.max_connections;
        core.connections.fetch_update(SeqCst, SeqCst, |count| (count < max).then_some(count + 1)).ok()?;
        Some(Permit(Arc::clone(core)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, SeqCst);
        self.0.hub.progress();
        self.0.hub.alarm.now();
    }
}

/// A connection in its handshake, under the eyes of the monitor.
struct Pending {
    core: Arc<Core>,
    id: ConnId,
}

impl Pending {
    fn new(core: &Arc<Core>, conn: &Arc<ConnHandle>, deadline: Instant) -> Self {
        core.pending.lock().insert(conn.id, (Arc::clone(conn), deadline));
        core.hub.alarm.at(deadline);
        Pending { core: Arc::clone(core), id: conn.id }
    }

    fn set_deadline(&self, deadline: Instant) {
        if let Some((_, old)) = self.core.pending.lock().get_mut(&self.id) {
            *old = deadline;
        }
        self.core.hub.alarm.at(deadline);
    }

    fn deadline(&self) -> Instant {
        self.core.pending.lock().get(&self.id).map_or_else(clock::now, |(_, deadline)| *deadline)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.core.pending.lock().remove(&self.id);
    }
}
