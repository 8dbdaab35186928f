//! The thread that accepts connections on one address. It never waits for a handshake.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use socket2::Socket;

use crate::clock;
use crate::config::Listening;
use crate::conn::socket::to_std;
use crate::lock::{LEAF, Ordered};
use log::Level;

use super::event_queue::Class;
use super::shared::Shared;

/// How long accepting pauses when the system has no descriptors or memory: `accept` would fail
/// at once, millions of times a second (measured).
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A connection within this machine is made at once, or the listener's queue is full and its thread is awake.
const WAKE_TIMEOUT: Duration = Duration::from_millis(500);

/// A listening socket, and how to stop the thread that accepts on it.
#[derive(Debug)]
pub(crate) struct Acceptor {
    /// `None` once it is closed. A leaf: no other lock is taken while it is held.
    socket: Ordered<Option<Arc<Socket>>, LEAF>,
    /// Where it listens.
    pub(crate) listening: Listening,
    stop: Sender<()>,
    stopped: Receiver<()>,
}

impl Acceptor {
    pub(crate) fn new(socket: Socket, listening: Listening) -> Self {
        let (stop, stopped) = bounded(1);
        Acceptor { socket: Ordered::new(Some(Arc::new(socket))), listening, stop, stopped }
    }

    /// Wakes the thread out of `accept` or a pause, for good.
    pub(crate) fn stop(&self) {
        let _ = self.stop.try_send(());
        let Some(socket) = self.socket.lock().clone() else { return };
        let woken = socket.shutdown(Shutdown::Both).is_ok();
        // Only Linux lets shutdown(2) of a listening socket end accept(2); elsewhere a connection does.
        if !(woken && cfg!(target_os = "linux")) {
            let _ = TcpStream::connect_timeout(&reachable(self.listening.addr), WAKE_TIMEOUT);
        }
    }

    /// Releases the address, when the thread has ended. On Linux [`Acceptor::stop`] did so. Elsewhere the
    /// system would go on making connections that nobody accepts.
    pub(crate) fn close(&self) {
        let socket = self.socket.lock().take();
        drop(socket);
    }

    /// Passes each connection to `accepted`, until `is_closing` and a call of [`Acceptor::stop`].
    pub(crate) fn run(
        &self,
        shared: &Shared,
        is_closing: impl Fn() -> bool,
        accepted: impl Fn(Socket, SocketAddr),
    ) {
        let Some(listener) = self.socket.lock().clone() else { return };
        let mut pause = FIRST_PAUSE;
        while !is_closing() {
            match listener.accept() {
                Ok((socket, addr)) => {
                    pause = FIRST_PAUSE;
                    // A client that was reset before it was accepted has no address: its own trouble.
                    match to_std(addr) {
                        Ok(addr) => accepted(socket, addr),
                        Err(error) => log_line!(Debug, "accepted without an address: {error}"),
                    }
                }
                Err(_) if is_closing() => return,
                Err(error) if is_of_one_client(&error) => log_line!(Debug, "accept: {error}"),
                Err(error) => {
                    let line = format_args!("accept: {error}; pausing for {pause:?}");
                    shared.background.log(Class::Named, Level::Error, line);
                    if self.stopped.recv_deadline(clock::now() + pause).is_ok() {
                        return;
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }
}

/// The address by which a process of this machine reaches a listener.
fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}

/// Errors that accept(2) reports for a connection that broke before it was accepted.
fn is_of_one_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}
