//! The system calls that neither std nor socket2 wraps.

#![allow(unsafe_code, reason = "raw system calls, each with its argument")]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Instant;

use crate::clock;

/// Wakes a thread out of [`poll`]. A wake-up before the poll is not lost.
pub(super) struct Wake(File);

impl Wake {
    pub(super) fn new() -> io::Result<Wake> {
        // SAFETY: no pointers involved.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else owns it.
        Ok(Wake(File::from(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    pub(super) fn wake(&self) {
        // Fails only when the counter is full, and then the thread is awake anyway.
        let _ = (&self.0).write(&1u64.to_ne_bytes());
    }

    /// Takes all wake-ups up to now.
    pub(super) fn clear(&self) {
        let _ = (&self.0).read(&mut [0; 8]);
    }

    pub(super) fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// A slot for [`poll`]; `None` leaves the slot out, so that not even a hang-up is reported.
pub(super) fn slot(fd: Option<RawFd>, events: libc::c_short) -> libc::pollfd {
    libc::pollfd { fd: fd.unwrap_or(-1), events, revents: 0 }
}

/// Waits for one of the slots, or until the moment has come (`None`: for ever).
pub(super) fn poll(slots: &mut [libc::pollfd], until: Option<Instant>) {
    let timeout = until.map(|until| {
        let left = until.saturating_duration_since(clock::now());
        libc::timespec {
            tv_sec: libc::time_t::try_from(left.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: libc::c_long::from(left.subsec_nanos().cast_signed()),
        }
    });
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    // An error (a signal) leaves `revents` at 0: the caller's loop comes back here.
    // SAFETY: pointer and length describe `slots`, and `timeout` outlives the call.
    unsafe {
        libc::ppoll(slots.as_mut_ptr(), slots.len() as libc::nfds_t, timeout, ptr::null());
    }
}

/// Bytes that were written and that the peer's kernel has not acknowledged yet.
pub(super) fn unacknowledged(socket: &impl AsRawFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: TIOCOUTQ stores one int.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// Returns the size of the receive buffer to the kernel's care after SO_RCVBUF (Linux 5.14).
pub(super) fn unlock_buffers(socket: &impl AsRawFd) {
    let none: libc::c_int = 0;
    // Where it is refused, the restored size stays fixed, which is harmless.
    // SAFETY: the option value is one int, and it outlives the call.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BUF_LOCK,
            (&raw const none).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        );
    }
}
