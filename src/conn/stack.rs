//! Returns memory of a thread's stack to the kernel that was used once. A thread that reads from a connection
//! shook hands before, which takes 20 KiB more of its stack than waiting for the next frame does (measured),
//! and the kernel keeps what was touched until the thread ends. A reader that waits has two pages in memory:
//! the functions below it in its stack are written so that it needs no third.
#![cfg_attr(target_os = "linux", allow(unsafe_code))]

/// Memory below [`give_back`]'s frame that stays: for the frame of the call that it makes, and the 128 bytes
/// that functions on x86-64 use below their frame.
#[cfg(target_os = "linux")]
const KEPT: usize = 512;

/// Returns the unused part of the calling thread's stack to the kernel; it is there again, zeroed, when it
/// is used (madvise(2), `MADV_DONTNEED`). Costs two system calls. Does nothing on other systems than Linux.
///
/// For threads of this library: the kernel does not reserve the whole stack of a process's first thread.
#[cfg(target_os = "linux")]
pub(crate) fn give_back() {
    let here = 0_u8;
    let Some(lowest) = lowest_address() else { return };
    // SAFETY: `sysconf` reads a number.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let Ok(page) = usize::try_from(page) else { return };
    let end = (std::ptr::from_ref(&here).addr().saturating_sub(KEPT)) / page * page;
    let Some(len) = end.checked_sub(lowest.addr()).filter(|len| *len > 0) else { return };
    // SAFETY: the range is a part of this thread's own stack, page by page, and lies below the frame of this
    // function by more than the frame of the call needs. Nothing that is alive lies there: a stack grows
    // downwards on all systems that Rust's Linux targets run on. An error leaves the memory as it is.
    unsafe { libc::madvise(lowest, len, libc::MADV_DONTNEED) };
}

/// The end of this thread's stack that is reached last. It lies at the beginning of a page.
#[cfg(target_os = "linux")]
fn lowest_address() -> Option<*mut libc::c_void> {
    let mut attributes = std::mem::MaybeUninit::uninit();
    let (mut lowest, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: pthread_getattr_np(3) initialises the attributes if it returns 0, and only then they are read,
    // and freed. All pointers are to live local variables.
    let failed = unsafe {
        libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) != 0 || {
            let failed = libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut lowest, &raw mut size);
            libc::pthread_attr_destroy(attributes.as_mut_ptr());
            failed != 0
        }
    };
    (!failed && !lowest.is_null()).then_some(lowest)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn give_back() {}

#[cfg(test)]
#[cfg(target_os = "linux")]
pub(super) mod tests {
    use super::*;
    use crate::conn::threads;

    /// The end of this thread's stack.
    pub(in crate::conn) fn lowest() -> usize {
        lowest_address().unwrap().addr()
    }

    /// Bytes of the stack with this end that are in memory.
    pub(in crate::conn) fn resident(lowest: usize) -> usize {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut in_stack = false;
        for line in smaps.lines() {
            if let Some((from, to)) = line.split(' ').next().and_then(|range| range.split_once('-')) {
                let [from, to] = [from, to].map(|address| usize::from_str_radix(address, 16).unwrap_or(0));
                in_stack = (from..to).contains(&lowest);
            } else if let Some(size) = line.strip_prefix("Rss:").filter(|_| in_stack) {
                return 1024 * size.trim().trim_end_matches(" kB").parse::<usize>().unwrap();
            }
        }
        panic!("no stack in {smaps}");
    }

    #[inline(never)]
    pub(in crate::conn) fn use_stack(depth: usize) -> usize {
        let used = std::hint::black_box([depth as u8; 1024]);
        if depth == 0 { 0 } else { use_stack(depth - 1) + usize::from(used[depth % 1024]) }
    }

    #[test]
    fn memory_that_was_used_once_is_given_back_and_can_be_used_again() {
        let run = || {
            let kept = [7_u8; 300];
            let sum = use_stack(100);
            let before = resident(lowest());
            give_back();
            let after = resident(lowest());
            // Reading the list above took some of it again.
            assert!(before > 100 * 1024 && after < before - 50 * 1024, "{before} and {after} bytes");
            assert!(use_stack(100) == sum && std::hint::black_box(kept) == [7; 300]);
        };
        threads::spawn("stack", run).unwrap().join().unwrap();
    }
}
