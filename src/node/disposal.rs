//! Drops message bodies that belong to the application (`Bytes::from_owner`), on a thread of its own.
//!
//! When the last reference to such a body is dropped, code of the application runs. It may take a lock that a sender holds
//! while it waits in `send`, or call the node. So it must not run under a lock of the library, nor on a thread that the
//! sender waits for: those that read, write, or watch the time.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use crate::conn::threads;

#[derive(Debug, Default)]
pub(crate) struct Disposal {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    bodies: Vec<Bytes>,
    thread: Option<JoinHandle<()>>,
    /// The thread is dropping bodies.
    busy: bool,
    closed: bool,
}

impl Disposal {
    /// Starts the thread.
    pub(crate) fn start(self: &Arc<Self>) -> io::Result<()> {
        let this = Arc::clone(self);
        let on_panic = || log::error!("the thread that drops message bodies ended: a bug in unbroken");
        let thread = threads::spawn_guarded("unbroken-drop", move || this.run(), on_panic)?;
        self.state.lock().thread = Some(thread);
        Ok(())
    }

    pub(crate) fn drop_all(&self, mut bodies: Vec<Bytes>) {
        if bodies.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        if state.thread.is_some() {
            state.bodies.append(&mut bodies);
            drop(state);
            self.changed.notify_all();
        }
    }

    fn run(&self) {
        let mut state = self.state.lock();
        loop {
            let bodies = std::mem::take(&mut state.bodies);
            state.busy = !bodies.is_empty();
            if bodies.is_empty() {
                self.changed.notify_all();
                if state.closed {
                    return;
                }
                self.changed.wait(&mut state);
                continue;
            }
            drop(state);
            for body in bodies {
                if catch_unwind(AssertUnwindSafe(|| drop(body))).is_err() {
                    log::error!("the destructor of a message body panicked");
                }
            }
            state = self.state.lock();
        }
    }

    /// Waits until everything is dropped, and joins the thread. A destructor that does not return by `deadline` is left alone:
    /// it may wait for the caller.
    pub(crate) fn close(&self, deadline: Instant) {
        let mut state = self.state.lock();
        state.closed = true;
        self.changed.notify_all();
        while state.busy || !state.bodies.is_empty() {
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                log::warn!("shutdown does not wait any longer for the destructor of a message body");
                return;
            }
        }
        let thread = state.thread.take();
        drop(state);
        thread.into_iter().for_each(threads::join);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct Owner(Arc<Mutex<u32>>);

    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            b"body"
        }
    }

    impl Drop for Owner {
        fn drop(&mut self) {
            let mut dropped = self.0.lock();
            *dropped += 1;
            assert!(*dropped != 2, "on purpose");
        }
    }

    #[test]
    fn the_caller_waits_for_no_destructor_and_a_panic_in_one_costs_no_other() {
        let (disposal, dropped) = (Arc::<Disposal>::default(), Arc::new(Mutex::new(0)));
        disposal.start().unwrap();
        let held = dropped.lock();
        let bodies = || (0..3).map(|_| Bytes::from_owner(Owner(Arc::clone(&dropped)))).collect();
        disposal.drop_all(bodies());
        disposal.drop_all(bodies());
        // The destructors wait for this thread, which does not wait for them for long.
        disposal.close(crate::clock::now() + Duration::from_millis(20));
        drop(held);
        disposal.close(crate::clock::now() + Duration::from_secs(60));
        assert_eq!(*dropped.lock(), 6);
        assert!(disposal.state.lock().thread.is_none());
    }
}
