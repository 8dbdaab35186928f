//! The life of one connection's thread: accept (or [`dial`](super::dial)), handshake, join the link, read to
//! the end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Instant;

use socket2::Socket;

use crate::clock;
use crate::config::PathConfig;
use crate::conn::handshake::{self, HandshakeError, Introduced};
use crate::conn::reader;
use crate::conn::record::{Opener, Sealer};
use crate::conn::{ConnHandle, socket, threads, writer};
use crate::error::{EndCause, EndReason, Initiator};
use crate::id::{ConnId, PeerId};
use crate::link::NewConn;
use crate::roster::TargetId;
use crate::wire::control::{Hello, Refused};
use crate::wire::proxy_header::{self, ProxyHeaderError};
use crate::wire::reader::FrameReader;
use log::Level;

use super::event_queue::Class;
use super::inner::NodeInner;
use super::link::LinkHandle;
use super::shared::Report;

/// Starts the thread of an accepted connection. A connection that cannot have one is closed.
pub(crate) fn accept(core: &Arc<NodeInner>, socket: Socket, addr: SocketAddr) {
    let id = core.next_conn();
    let full = || EndReason::new(Initiator::Library, EndCause::Full);
    let proxied = core.config.is_proxy(addr.ip());
    let place = if proxied { core.on_accept_proxied(id, addr) } else { core.on_accept(id, addr) };
    let admitted = place.and_then(|place| Ok((place, Permit::new(core).ok_or_else(full)?)));
    let (place, permit) = match admitted {
        Ok(admitted) => admitted,
        Err(reason) => {
            core.note_refusal(None, addr, &reason.cause);
            let line = format_args!("{id} from {addr}: {reason}");
            return core.shared.background.log(Class::Stranger, Level::Debug, line);
        }
    };
    let conn = Arc::new(ConnHandle::new(id, addr, false, socket));
    let (inner, of_panic) = (Arc::clone(core), Arc::clone(&conn));
    let deadline = clock::now() + core.config.path.handshake_timeout;
    let pending = Pending::new(core, &conn, deadline);
    let started = core.threads.spawn(
        "reader",
        move || {
            let (_permit, _place) = (permit, place);
            if let Err(reason) = run_accepted(&inner, &conn, proxied, pending) {
                let reason = conn.reason().unwrap_or(&reason);
                inner.judge(&conn, None, reason);
                if let EndCause::Refused(_) = reason.cause {
                    inner.note_refusal(None, conn.addr(), &reason.cause);
                }
                log_line!(Debug, "{} from {}: {reason}", conn.id, conn.addr());
            }
        },
        move |panicked| {
            if panicked.0 {
                of_panic.end(EndReason::new(Initiator::Library, EndCause::Panic));
            }
        },
    );
    if let Err(error) = started {
        let line = format_args!("{addr}: refused, no thread: {error}");
        core.shared.background.log(Class::Stranger, Level::Warn, line);
    }
}

fn run_accepted(
    core: &Arc<NodeInner>,
    conn: &Arc<ConnHandle>,
    proxied: bool,
    pending: Pending,
) -> Result<(), EndReason> {
    // A shutdown that came before this was in the list would not end it.
    if core.is_closing() {
        return Err(EndReason::new(Initiator::Us, EndCause::Shutdown));
    }
    if proxied {
        read_proxy_header(core, conn)?;
    }
    let joined = shake_hands(core, conn, None, &core.config.path, &pending)?;
    drop(pending);
    configure(conn, &joined.link);
    serve(core, conn, joined);
    Ok(())
}

/// Only now is it known who this is and what was configured for it.
#[inline(never)] // What it needs of the stack is not kept while the connection serves.
fn configure(conn: &ConnHandle, link: &LinkHandle) {
    if let Err(error) = socket::configure(&conn.socket, &link.path().socket_options()) {
        conn.end(EndReason::io("set options", &error));
    }
}

/// Learns from the proxy whose connection this is, and whether it may come in from there. The handshake's
/// deadline goes on.
fn read_proxy_header(core: &NodeInner, conn: &ConnHandle) -> Result<(), EndReason> {
    let client = proxy_header::read(&mut socket::Stream(&conn.socket)).map_err(|error| match error {
        // As a load balancer does that only looks whether the port is open.
        ProxyHeaderError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            EndReason::new(Initiator::Peer, EndCause::Closed)
        }
        ProxyHeaderError::Io(error) => EndReason::io("handshake", &error),
        error => EndReason::new(Initiator::Library, EndCause::Refused(error.to_string())),
    })?;
    client.into_iter().for_each(|addr| conn.set_client(addr));
    let admitted = core.on_header(conn.id, conn.addr());
    admitted.inspect_err(|reason| core.note_refusal(None, conn.addr(), &reason.cause))
}

/// The part of a dial that its handshake needs.
pub(super) struct Dialled<'a> {
    pub(super) target: TargetId,
    pub(super) address: &'a str,
    /// The only peer that may answer; `None`: any.
    pub(super) expected: Option<PeerId>,
    /// The place of the connection in the pool.
    pub(super) slot: u8,
    /// It is to replace another connection.
    pub(super) replaces: bool,
    /// The peer dialled this node and is dialled back.
    pub(super) dial_back: bool,
}

/// A connection that belongs to a link. Small: it lies on the stack of the thread that serves.
pub(super) struct Joined<'a> {
    pub(super) link: Arc<LinkHandle>,
    reader: Box<FrameReader<Opener<&'a Socket>>>,
    sealer: Sealer,
}

pub(super) fn shake_hands<'a>(
    core: &Arc<NodeInner>,
    conn: &'a Arc<ConnHandle>,
    dial: Option<&Dialled<'_>>,
    path: &PathConfig,
    pending: &Pending,
) -> Result<Joined<'a>, EndReason> {
    socket::configure(&conn.socket, &path.socket_options())
        .map_err(|error| EndReason::io("set options", &error))?;
    let mut stream = socket::Stream(&conn.socket);
    let expected = dial.and_then(|dial| dial.expected);
    let failed = |error: HandshakeError| {
        if let (HandshakeError::WrongPeer { expected, found }, Some(dial)) = (&error, dial) {
            let (target, address) = (dial.target, dial.address.to_owned());
            core.shared.report(Report::WrongPeer { target, address, expected: *expected, found: *found });
        }
        end_reason(error)
    };
    let Introduced { peer, incarnation, mut sealer, opens } =
        handshake::introduce(&mut stream, conn.dialled, &core.card, expected).map_err(failed)?;
    conn.peer.get_or_init(|| peer);
    if let Some(dial) = dial {
        // Before the link can come up: whoever sees it up finds the address identified, and what this peer
        // does from here on is a named peer's doing.
        let mut roster = core.roster.lock();
        roster.handle_identified(dial.target, peer);
        if roster.is_named(dial.target) {
            core.shared.named.insert(peer, roster.label_of(dial.target));
        }
    }
    let chosen = dial.is_some_and(|dial| !dial.dial_back);
    let admitted = core.enter(conn, peer, chosen).and_then(|()| core.link_for(peer));
    let link = admitted.inspect_err(|reason| core.refuse(conn, peer, reason, &mut sealer))?;
    if conn.dialled {
        link.set_path(path);
    }
    let (slot, replaces) = dial.map_or((0, false), |dial| (dial.slot, dial.replaces));
    let opener = Opener::new(&conn.socket, opens);
    let mut reader = Box::new(FrameReader::with_pool(opener, core.shared.chunks.clone()));
    let (id, handle, dialled) = (conn.id, Arc::clone(conn), conn.dialled);
    if dialled {
        let ours = Hello { port: core.announced_port(conn), ..link.hello(incarnation, slot, replaces) };
        handshake::send_hello(&mut stream, &mut sealer, &ours).map_err(end_reason)?;
        let theirs = handshake::read_hello(&mut reader).map_err(end_reason)?;
        let new = NewConn { id, handle, dialled, incarnation, ours, theirs };
        link.attach(&new, pending.deadline())?;
        stay(core, conn, &link)?;
    } else {
        // Its HELLO is the listener's consent: the dialer tells its application of no connection before.
        let theirs = handshake::read_hello(&mut reader).map_err(end_reason)?;
        let ours = Hello { port: core.announced_port(conn), ..link.hello(incarnation, slot, replaces) };
        let new = NewConn { id, handle, dialled, incarnation, ours: ours.clone(), theirs };
        let attached = link.attach(&new, pending.deadline()).and_then(|()| stay(core, conn, &link));
        attached.inspect_err(|reason| core.refuse(conn, peer, reason, &mut sealer))?;
        if let Err(error) = handshake::send_hello(&mut stream, &mut sealer, &ours) {
            return Err(release(conn, &link, end_reason(error)));
        }
    }
    Ok(Joined { link, reader, sealer })
}

/// Whether a connection that has just joined may stay: its peer may have been banned or given up meanwhile.
fn stay(core: &NodeInner, conn: &ConnHandle, link: &Arc<LinkHandle>) -> Result<(), EndReason> {
    let banned = core.is_banned(conn, link.peer);
    if !banned && core.is_kept(link) {
        return Ok(());
    }
    let cause = if banned { EndCause::Banned } else { EndCause::Retry };
    Err(release(conn, link, EndReason::new(Initiator::Library, cause)))
}

/// A connection that has joined leaves its link again before it has served.
fn release(conn: &ConnHandle, link: &Arc<LinkHandle>, reason: EndReason) -> EndReason {
    conn.note_end(reason.clone());
    // Another thread may have ended it before: then that is why.
    let reason = conn.reason().cloned().unwrap_or(reason);
    link.detach(conn, &reason);
    reason
}

/// Reads and writes until the connection ends.
pub(super) fn serve(core: &NodeInner, conn: &Arc<ConnHandle>, joined: Joined<'_>) {
    let Joined { link, mut reader, sealer } = joined;
    writer::begin(conn, sealer);
    // Detached even if a thread panics: the link must not wait for a connection that is gone.
    let detach = Detach { conn, link: &link };
    let (its_conn, its_link, limits) = (Arc::clone(conn), Arc::clone(&link), link.path().write_limits());
    let of_panic = Arc::clone(conn);
    let writer = threads::spawn_guarded(
        &core.threads.name("writer"),
        move || writer::run(&its_conn, &its_link, limits),
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
        let peer = self.link.shared.named.name_of(self.link.peer);
        log_line!(Debug, "{} {peer} {}: {reason}", self.conn.id, self.conn.addr());
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
        HandshakeError::Refused(refused) => {
            let Refused { reason, text, wait_secs } = refused;
            EndReason::new(Initiator::Peer, EndCause::RefusedByPeer { reason, text, wait_secs })
        }
        HandshakeError::Noise(_) => EndReason::new(Initiator::Library, EndCause::Tampered(error.to_string())),
        HandshakeError::Record(what) => EndReason::new(Initiator::Library, EndCause::Tampered(what)),
        HandshakeError::Protocol(what) => EndReason::new(Initiator::Library, EndCause::Protocol(what)),
    }
}

/// One of the node's `max_connections`.
pub(super) struct Permit(Arc<NodeInner>);

impl Permit {
    pub(super) fn new(core: &Arc<NodeInner>) -> Option<Self> {
        let max = core.config.max_connections;
        core.connections.fetch_update(SeqCst, SeqCst, |count| (count < max).then_some(count + 1)).ok()?;
        Some(Permit(Arc::clone(core)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, SeqCst);
        self.0.shared.progress();
        self.0.shared.agenda.round_now();
    }
}

/// A connection in its handshake, under the eyes of the monitor.
pub(super) struct Pending {
    core: Arc<NodeInner>,
    id: ConnId,
}

impl Pending {
    pub(super) fn new(core: &Arc<NodeInner>, conn: &Arc<ConnHandle>, deadline: Instant) -> Self {
        core.pending.lock().insert(conn.id, (Arc::clone(conn), deadline));
        core.shared.agenda.round_at(deadline);
        Pending { core: Arc::clone(core), id: conn.id }
    }

    pub(super) fn set_deadline(&self, deadline: Instant) {
        if let Some((_, old)) = self.core.pending.lock().get_mut(&self.id) {
            *old = deadline;
        }
        self.core.shared.agenda.round_at(deadline);
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
