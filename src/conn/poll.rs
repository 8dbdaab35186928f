//! Waiting for several sockets at once: poll(2), which no crate that is used here offers.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use socket2::Socket;

/// Waits until connecting has ended, well or badly, on any of these sockets, and returns for each whether it has. None has
/// when the time is over, or a signal came.
pub(crate) fn connected(sockets: &[&Socket], timeout: Duration) -> io::Result<Vec<bool>> {
    let entry = |socket: &&Socket| libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    let mut entries: Vec<_> = sockets.iter().map(entry).collect();
    // Rounded up: woken too early, the caller would call again and again.
    let millis = timeout.as_nanos().div_ceil(1_000_000);
    let millis = libc::c_int::try_from(millis).unwrap_or(libc::c_int::MAX);
    let count = libc::nfds_t::try_from(entries.len()).map_err(io::Error::other)?;
    // SAFETY: `entries` holds `count` initialised entries for as long as the call lasts, and the descriptors are open for
    // as long as `sockets` are borrowed. The kernel writes to `revents` alone.
    let ready = unsafe { libc::poll(entries.as_mut_ptr(), count, millis) };
    if ready < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
        return Ok(vec![false; sockets.len()]);
    }
    Ok(entries.iter().map(|entry| entry.revents != 0).collect())
}
