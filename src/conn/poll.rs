//! Waiting for several sockets at once: poll(2), or WSAPoll on Windows. No crate that is used here offers
//! either.
#![allow(unsafe_code)]

use std::io;
use std::time::Duration;

use socket2::Socket;

#[cfg(windows)]
use windows_sys::Win32::Networking::WinSock::{POLLOUT, WSAPOLLFD as PollFd};
#[cfg(unix)]
use {libc::POLLOUT, libc::pollfd as PollFd};

/// Waits until connecting has ended, well or badly, on any of these sockets, and returns for each whether it
/// has. None has when the time is over, or a signal came.
pub(crate) fn connected(sockets: &[&Socket], timeout: Duration) -> io::Result<Vec<bool>> {
    let entry = |socket: &&Socket| PollFd { fd: descriptor(socket), events: POLLOUT, revents: 0 };
    let mut entries: Vec<_> = sockets.iter().map(entry).collect();
    // Rounded up: woken too early, the caller would call again and again.
    let millis = timeout.as_nanos().div_ceil(1_000_000);
    match poll(&mut entries, i32::try_from(millis).unwrap_or(i32::MAX)) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(vec![false; sockets.len()]),
        Err(error) => Err(error),
        Ok(()) => Ok(entries.iter().map(|entry| entry.revents != 0).collect()),
    }
}

#[cfg(unix)]
fn descriptor(socket: &Socket) -> i32 {
    std::os::fd::AsRawFd::as_raw_fd(socket)
}

#[cfg(unix)]
fn poll(entries: &mut [PollFd], millis: i32) -> io::Result<()> {
    let count = libc::nfds_t::try_from(entries.len()).map_err(io::Error::other)?;
    // SAFETY: `entries` holds `count` initialised entries for as long as the call lasts, and the descriptors
    // are open for as long as the caller borrows their sockets. The kernel writes to `revents` alone.
    let ready = unsafe { libc::poll(entries.as_mut_ptr(), count, millis) };
    if ready < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(windows)]
fn descriptor(socket: &Socket) -> usize {
    // The type of a socket there is as wide as a pointer.
    std::os::windows::io::AsRawSocket::as_raw_socket(socket) as usize
}

#[cfg(windows)]
fn poll(entries: &mut [PollFd], millis: i32) -> io::Result<()> {
    let count = u32::try_from(entries.len()).map_err(io::Error::other)?;
    // SAFETY: as with poll(2).
    let ready =
        unsafe { windows_sys::Win32::Networking::WinSock::WSAPoll(entries.as_mut_ptr(), count, millis) };
    if ready < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
