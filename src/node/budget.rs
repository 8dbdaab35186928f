//! The bytes that the whole node may keep in its queues.

use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// What a sender does when there is no room.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Patience {
    /// It gives up at once.
    None,
    /// It waits until then.
    Until(Instant),
    /// It waits as long as it takes.
    Forever,
}

#[derive(Debug)]
pub(crate) struct Budget {
    max: usize,
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    used: usize,
    closed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoom {
    Full,
    Closed,
}

impl Budget {
    pub(crate) fn new(max: usize) -> Self {
        Budget { max, state: Mutex::default(), freed: Condvar::new() }
    }

    /// Sets `bytes` aside. The sum never exceeds the maximum.
    pub(crate) fn reserve(&self, bytes: usize, patience: Patience) -> Result<(), NoRoom> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return Err(NoRoom::Closed);
            }
            if state.used + bytes <= self.max {
                state.used += bytes;
                return Ok(());
            }
            match patience {
                Patience::None => return Err(NoRoom::Full),
                Patience::Until(deadline) => {
                    if self.freed.wait_until(&mut state, deadline).timed_out() {
                        return Err(NoRoom::Full);
                    }
                }
                Patience::Forever => self.freed.wait(&mut state),
            }
        }
    }

    pub(crate) fn release(&self, bytes: usize) {
        if bytes > 0 {
            let mut state = self.state.lock();
            state.used = state.used.saturating_sub(bytes);
            drop(state);
            self.freed.notify_all();
        }
    }

    /// Nobody waits any longer.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.freed.notify_all();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    pub(crate) fn used(&self) -> usize {
        self.state.lock().used
    }
}
