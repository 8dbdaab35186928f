//! Making sockets, and the options that keep a connection honest.

use std::io::{self, IoSlice, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};

use super::handshake::Duplex;
use crate::config::Outbound;
use crate::error::EndReason;
use crate::health::pace::FIRST_CHUNK;
use crate::lock::{LEAF, Ordered};

/// How many connections the kernel holds ready between two accepts; it caps it at `somaxconn`.
const BACKLOG: i32 = 1024;

/// Listens on one address. `only_v6`: an IPv6 address takes no IPv4 connections. `segment`: the largest
/// segment of the connections that are accepted.
pub(crate) fn listen(
    addr: SocketAddr,
    only_v6: bool,
    segment: Option<u16>,
) -> io::Result<(Socket, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted node gets its port back although old connections linger in TIME_WAIT. On Windows it does
    // without, and the option would let another process take the port.
    if cfg!(unix) {
        socket.set_reuse_address(true)?;
    }
    if addr.is_ipv6() {
        // Set either way: the system's default can be either (ipv6(7), `net.ipv6.bindv6only`).
        socket.set_only_v6(only_v6)?;
    }
    limit_segment(&socket, segment)?;
    socket.bind(&SockAddr::from(addr))?;
    socket.listen(BACKLOG)?;
    let bound = to_std(socket.local_addr()?)?;
    Ok((socket, bound))
}

/// `segment`: the largest segment in both directions.
pub(crate) fn for_dialing(addr: SocketAddr, segment: Option<u16>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    limit_segment(&socket, segment)?;
    Ok(socket)
}

/// Binds a socket that has not connected yet: to the interface, to the address.
///
/// # Errors
/// Each names what could not be bound.
pub(crate) fn bind_outbound(socket: &Socket, outbound: Outbound<'_>) -> Result<(), EndReason> {
    if let Some(interface) = outbound.interface {
        bind_interface(socket, interface).map_err(|error| EndReason::io_at("bind", &interface, &error))?;
    }
    let Some(addr) = outbound.addr else { return Ok(()) };
    socket.bind(&SockAddr::from(addr)).map_err(|error| EndReason::io_at("bind", &addr.ip(), &error))
}

/// SO_BINDTODEVICE, socket(7).
#[cfg(any(target_os = "linux", target_os = "android"))]
fn bind_interface(socket: &Socket, interface: &str) -> io::Result<()> {
    socket.bind_device(Some(interface.as_bytes()))
}

/// The settings allow no interface here.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn bind_interface(_: &Socket, _: &str) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// TCP_MAXSEG (tcp(7)), which counts if it is set before the connection is made: this side sends no larger
/// segments, and asks the other side for none. Windows has no such option.
fn limit_segment(socket: &Socket, segment: Option<u16>) -> io::Result<()> {
    #[cfg(unix)]
    segment.map_or(Ok(()), |segment| socket.set_tcp_mss(segment.into()))?;
    #[cfg(not(unix))]
    let _ = (socket, segment);
    Ok(())
}

/// Begins to connect; [`poll`](super::poll) tells when that has ended, and [`finish_connect`] how.
pub(crate) fn begin_connect(socket: &Socket, addr: SocketAddr) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::from(addr)) {
        Err(error) if !is_in_progress(&error) => Err(error),
        _ => Ok(()),
    }
}

#[cfg(unix)]
fn is_in_progress(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EINPROGRESS)
}

#[cfg(windows)]
fn is_in_progress(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// How connecting has ended. Refuses a connection to itself: dialling a dead port in the ephemeral range over
/// and over, the kernel may pick that very port as the source and connect the socket to itself (measured:
/// after some 8,500 tries).
pub(crate) fn finish_connect(socket: &Socket, addr: SocketAddr) -> io::Result<()> {
    if let Some(error) = socket.take_error()? {
        return Err(error);
    }
    // A socket that was shut down while it connected has no error to take.
    socket.peer_addr()?;
    if to_std(socket.local_addr()?)? == addr {
        // Closed by a reset. After a FIN to itself the port would stay in TIME_WAIT for a minute, and its
        // owner could not listen on it, with SO_REUSEADDR or without (measured).
        socket.set_linger(Some(Duration::ZERO))?;
        return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "nobody listens there"));
    }
    socket.set_nonblocking(false)
}

/// The options of a connected socket; see [`PathConfig`](crate::PathConfig).
#[derive(Clone, Copy, Debug)]
pub(crate) struct SocketOptions {
    pub(crate) keepalive_time: Duration,
    pub(crate) keepalive_interval: Duration,
    pub(crate) keepalive_probes: u32,
    pub(crate) user_timeout: Duration,
    pub(crate) write_timeout: Duration,
}

/// Sets the options of a connected socket.
pub(crate) fn configure(socket: &Socket, options: &SocketOptions) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    let keepalive =
        TcpKeepalive::new().with_time(options.keepalive_time).with_interval(options.keepalive_interval);
    // Windows has TCP_KEEPCNT from version 10.0.15063 on.
    let counted = keepalive.clone().with_retries(options.keepalive_probes);
    if !is_had("TCP_KEEPCNT", socket.set_tcp_keepalive(&counted))? {
        socket.set_tcp_keepalive(&keepalive)?;
    }
    set_user_timeout(socket, options.user_timeout)?;
    #[cfg(target_vendor = "apple")]
    socket.set_nosigpipe(true)?;
    socket.set_write_timeout(Some(options.write_timeout))?;
    set_backlog(socket, FIRST_CHUNK)
}

/// How long data may go unacknowledged: TCP_USER_TIMEOUT (tcp(7)).
#[cfg(any(target_os = "linux", target_os = "android"))]
fn set_user_timeout(socket: &Socket, timeout: Duration) -> io::Result<()> {
    socket.set_tcp_user_timeout(Some(timeout))
}

/// How long data may go unacknowledged: TCP_MAXRT, in whole seconds.
#[cfg(windows)]
#[allow(unsafe_code)]
fn set_user_timeout(socket: &Socket, timeout: Duration) -> io::Result<()> {
    use std::os::windows::io::AsRawSocket;
    use windows_sys::Win32::Networking::WinSock::{IPPROTO_TCP, TCP_MAXRT, setsockopt};

    let seconds = u32::try_from(timeout.as_secs().max(1)).unwrap_or(u32::MAX).to_ne_bytes();
    let length = i32::try_from(seconds.len()).unwrap_or_default();
    let (socket, option) = (socket.as_raw_socket() as usize, TCP_MAXRT as i32);
    // SAFETY: the socket is open for as long as it is borrowed, and `length` bytes are read from `seconds`.
    let failed = unsafe { setsockopt(socket, IPPROTO_TCP, option, seconds.as_ptr(), length) };
    let set = if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    is_had("TCP_MAXRT", set).map(drop)
}

/// Other systems have no such option that socket2 knows: pings find what has died.
#[cfg(not(any(target_os = "linux", target_os = "android", windows)))]
fn set_user_timeout(_: &Socket, _: Duration) -> io::Result<()> {
    Ok(())
}

/// Whether the system has an option, as setting it shows. Each one that is missing is logged once.
fn is_had(option: &'static str, set: io::Result<()>) -> io::Result<bool> {
    static LOGGED: Ordered<Vec<&str>, LEAF> = Ordered::new(Vec::new());
    match set {
        Err(error) if is_no_such_option(&error) => {
            let mut logged = LOGGED.lock();
            if !logged.contains(&option) {
                logged.push(option);
                drop(logged);
                log_line!(Warn, "this system has no {option}: {error}; going on without it");
            }
            Ok(false)
        }
        set => set.map(|()| true),
    }
}

#[cfg(unix)]
fn is_no_such_option(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOPROTOOPT)
}

#[cfg(windows)]
fn is_no_such_option(error: &io::Error) -> bool {
    error.raw_os_error() == Some(windows_sys::Win32::Networking::WinSock::WSAENOPROTOOPT)
}

/// How much unsent data the kernel accepts before a write waits (TCP_NOTSENT_LOWAT, tcp(7)). Data
/// in flight is not counted, so throughput does not suffer. Elsewhere than on Linux the kernel's send buffer
/// is the limit.
pub(crate) fn set_backlog(socket: &Socket, bytes: usize) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_notsent_lowat(u32::try_from(bytes).unwrap_or(u32::MAX))?;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = (socket, bytes);
    Ok(())
}

/// When the last handle of the socket is closed, what its queue holds is thrown away and the connection reset
/// (SO_LINGER of 0, socket(7)). Otherwise the kernel goes on sending it, for minutes, and on a narrow path it
/// competes with the connection that took over.
pub(crate) fn discard_on_close(socket: &Socket) {
    // Fails only where there is no socket any more.
    let _ = socket.set_linger(Some(Duration::ZERO));
}

/// Ends the calls of other threads that wait for this socket, which was shut down before: later ones fail at
/// once. Elsewhere than on Windows the shutdown has ended them. There it is documented for later calls only;
/// it ends waiting ones, too, but not under wine (measured with 8.0).
pub(crate) fn cancel_calls(socket: &Socket) {
    #[cfg(windows)]
    cancel_io(socket);
    #[cfg(not(windows))]
    let _ = socket;
}

#[cfg(windows)]
#[allow(unsafe_code)]
fn cancel_io(socket: &Socket) {
    use std::os::windows::io::AsRawSocket;

    let handle = socket.as_raw_socket() as usize as windows_sys::Win32::Foundation::HANDLE;
    // SAFETY: the socket is open for as long as it is borrowed; a null pointer stands for all of its calls.
    // The system waits for nothing here, and a call that is cancelled returns an error as others do.
    // It fails when there is nothing to cancel.
    let _ = unsafe { windows_sys::Win32::System::IO::CancelIoEx(handle, std::ptr::null()) };
}

/// A write to a connection that was reset is an error here, and not SIGPIPE, which ends a process that has
/// not chosen to ignore it (`MSG_NOSIGNAL`, send(2)). Apple's systems have a socket option for that,
/// SO_NOSIGPIPE, and Windows has no signals.
#[cfg(all(unix, not(target_vendor = "apple")))]
const SEND_FLAGS: i32 = libc::MSG_NOSIGNAL;
#[cfg(not(all(unix, not(target_vendor = "apple"))))]
const SEND_FLAGS: i32 = 0;

/// Sends as much as the kernel takes at once, without waiting (`MSG_DONTWAIT`, send(2)). 0: it takes nothing
/// now, or the system has no such flag.
pub(crate) fn send_now(socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
    #[cfg(unix)]
    return loop {
        match socket.send_with_flags(bytes, SEND_FLAGS | libc::MSG_DONTWAIT) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(0),
            result => break result,
        }
    };
    #[cfg(not(unix))]
    {
        let _ = (socket, bytes);
        Ok(0)
    }
}

/// A socket as a stream that never raises SIGPIPE.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream<'a>(pub(crate) &'a Socket);

impl Read for Stream<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.0.read(to)
    }
}

impl Write for Stream<'_> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.0.send_with_flags(from, SEND_FLAGS)
    }

    fn write_vectored(&mut self, from: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.send_vectored_with_flags(from, SEND_FLAGS)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Duplex for Stream<'_> {
    fn close_writing(&self) -> io::Result<()> {
        self.0.shutdown(Shutdown::Write)
    }
}

/// The address as everything else in the library knows it: an IPv4 address that a socket for both versions
/// shows as `::ffff:a.b.c.d` is that IPv4 address.
pub(crate) fn to_std(addr: SockAddr) -> io::Result<SocketAddr> {
    let addr = addr
        .as_socket()
        .ok_or_else(|| io::Error::new(io::ErrorKind::AddrNotAvailable, "not an internet address"))?;
    Ok(match addr.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, addr.port()),
        IpAddr::V6(_) => addr,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Binds without SO_REUSEADDR: fails while anything of the port is left.
    fn bind(addr: SocketAddr) -> io::Result<Socket> {
        let socket = for_dialing(addr, None)?;
        socket.bind(&SockAddr::from(addr))?;
        Ok(socket)
    }

    #[test]
    fn a_connection_to_itself_is_refused_and_leaves_the_port_to_its_owner() {
        // The kernel chooses the source port of a dial from the range in which the dead port lies; here it is
        // given.
        let socket = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let port = to_std(socket.local_addr().unwrap()).unwrap();
        begin_connect(&socket, port).unwrap();
        assert_eq!(super::super::poll::connected(&[&socket], Duration::from_secs(60)).unwrap(), [true]);
        let error = finish_connect(&socket, port).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{error}");
        drop(socket);
        bind(port).unwrap().listen(1).unwrap();
        listen(port, false, None).unwrap();
    }

    #[test]
    fn a_limit_of_the_segment_holds_on_both_sides() {
        let any = ([127, 0, 0, 1], 0).into();
        for (of_listener, of_dialler) in [(None, Some(536)), (Some(536), None)] {
            let (listener, bound) = listen(any, false, of_listener).unwrap();
            let socket = for_dialing(bound, of_dialler).unwrap();
            socket.connect(&SockAddr::from(bound)).unwrap();
            let accepted = listener.accept().unwrap().0;
            for side in [&socket, &accepted] {
                let segment = crate::conn::tcp_info::read(side).unwrap().snd_mss;
                assert!(segment <= 536, "{segment} with {of_listener:?} and {of_dialler:?}");
            }
        }
    }

    #[test]
    fn an_ipv6_wildcard_takes_ipv4_unless_told_otherwise() {
        for only_v6 in [false, true] {
            let Ok((socket, bound)) = listen("[::]:0".parse().unwrap(), only_v6, None) else {
                return println!("skipped: no IPv6 here");
            };
            let by_v4 = std::net::TcpStream::connect(("127.0.0.1", bound.port()));
            assert_eq!(by_v4.is_ok(), !only_v6);
            if !only_v6 {
                let from = to_std(socket.accept().unwrap().1).unwrap();
                assert!(from.is_ipv4(), "{from}: limits by address know IPv4 addresses as such");
            }
        }
    }
}
