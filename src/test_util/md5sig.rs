//! Silent black holes without privileges, by TCP_MD5SIG.
//!
//! A socket with an RFC 2385 key signs what it sends and drops what comes in without a signature;
//! a peer that has no key drops what is signed. So a key on one socket is enough to make segments
//! vanish in both directions, with no acknowledgement, FIN or RST, and without the key TCP's
//! retransmissions carry on as if there had been an outage.

#![allow(unsafe_code, reason = "socket2 has no TCP_MD5SIG")]

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::time::Duration;

/// `TCP_MD5SIG_EXT`: like TCP_MD5SIG, but honours the prefix length.
const TCP_MD5SIG_EXT: libc::c_int = 32;
/// `TCP_MD5SIG_FLAG_PREFIX`.
const FLAG_PREFIX: u8 = 1;
const KEY: &[u8] = b"black hole";

/// `struct tcp_md5sig` of linux/tcp.h.
#[repr(C)]
struct TcpMd5Sig {
    addr: libc::sockaddr_storage,
    flags: u8,
    prefix_len: u8,
    key_len: u16,
    ifindex: libc::c_int,
    key: [u8; 80],
}

/// Whether this kernel makes black holes by TCP_MD5SIG. Tries it on a connection of its own, in
/// about half a second; later calls return the first answer.
pub fn black_hole_supported() -> bool {
    static SUPPORTED: OnceLock<bool> = OnceLock::new();
    *SUPPORTED.get_or_init(|| probe().unwrap_or(false))
}

/// Drops all segments of this socket from now on. On a listener: those of new connections.
pub(super) fn block(socket: &impl AsRawFd, ipv6: bool) -> io::Result<()> {
    set_key(socket, ipv6, KEY)
}

/// Undoes [`block`].
pub(super) fn unblock(socket: &impl AsRawFd, ipv6: bool) -> io::Result<()> {
    match set_key(socket, ipv6, &[]) {
        // There was no key.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result,
    }
}

/// One key for all peers, by a prefix of length 0. An empty one deletes it.
fn set_key(socket: &impl AsRawFd, ipv6: bool, key: &[u8]) -> io::Result<()> {
    // SAFETY: a plain C struct of integers, for which zero is valid.
    let mut option: TcpMd5Sig = unsafe { std::mem::zeroed() };
    let family = if ipv6 { libc::AF_INET6 } else { libc::AF_INET };
    option.addr.ss_family = family as libc::sa_family_t;
    option.flags = FLAG_PREFIX;
    for (to, from) in option.key.iter_mut().zip(key) {
        *to = *from;
        option.key_len += 1;
    }
    // SAFETY: pointer and length describe `option`, which outlives the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            TCP_MD5SIG_EXT,
            (&raw const option).cast(),
            size_of::<TcpMd5Sig>() as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A byte must get through, must not with a key, and must again without it.
fn probe() -> io::Result<bool> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut sender = TcpStream::connect(listener.local_addr()?)?;
    let (mut receiver, _) = listener.accept()?;
    let mut byte = [0];

    receiver.set_read_timeout(Some(Duration::from_secs(10)))?;
    sender.write_all(b"1")?;
    receiver.read_exact(&mut byte)?;

    block(&receiver, false)?;
    sender.write_all(b"2")?;
    // Loopback delivers within microseconds, and without any wait on our part.
    receiver.set_read_timeout(Some(Duration::from_millis(50)))?;
    match receiver.read(&mut byte) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        _ => return Ok(false),
    }

    unblock(&receiver, false)?;
    receiver.set_read_timeout(Some(Duration::from_secs(10)))?;
    receiver.read_exact(&mut byte)?;
    Ok(byte == *b"2")
}
