//! The one place where threads are made: each has a name, a small stack, a guard that turns a panic
//! into a value, and is joined.
//!
//! # Names
//! `ub-`, four characters of the node's id, and the thread's role: 15 characters at most, which is what Linux
//! keeps (pthread_setname_np(3)). `ps -L -o comm` and `top -H` show them.
//!
//! | role | threads | does |
//! |---|---|---|
//! | `monitor` | one | deadlines, pings, dials |
//! | `fan-out` | none or one | writes what a broadcast to many peers leaves to it |
//! | `log` | one | writes log lines and drops message bodies |
//! | `accept` | one for each listened address | accepts |
//! | `dial` | one for each dial under way | connects and shakes hands, then becomes the `reader` (on Linux its name changes) |
//! | `reader` | one for each connection | shakes hands if the peer dialled, then reads |
//! | `writer` | one for each connection | writes |
//! | `stop` | none or one | a shutdown that was asked for on a thread of a node |
//!
//! The threads that look up names may outlive their node, and are all called `ub-resolver`.

use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle, ThreadId};

use crate::id::PeerId;
use crate::lock::{LEAF, Ordered};

/// A thread touches about 10 KiB of its stack, whatever its size (measured); the rest is only
/// address space.
const STACK: usize = 256 * 1024;

/// The longest role has seven.
const NODE_CHARS: usize = 4;

thread_local! {
    static OF_A_NODE: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is one that a node, this or another, joins when it ends.
pub(crate) fn is_of_a_node() -> bool {
    OF_A_NODE.get()
}

/// The threads of one node.
#[derive(Debug)]
pub(crate) struct Threads {
    /// The part of the threads' names that tells nodes apart.
    node: String,
    /// Protects the handles of all threads that were not joined.
    live: Ordered<HashMap<ThreadId, JoinHandle<()>>, LEAF>,
}

impl Threads {
    pub(crate) fn new(node: PeerId) -> Self {
        let mut node = node.short();
        node.truncate(NODE_CHARS);
        Threads { node, live: Ordered::default() }
    }

    /// The name of a thread of this node.
    pub(crate) fn name(&self, role: &str) -> String {
        format!("ub-{}-{role}", self.node)
    }

    /// Changes the role in the name of the calling thread. Outside Linux the name stays.
    pub(crate) fn change_role(&self, role: &str) {
        if cfg!(target_os = "linux") {
            // proc_pid_comm(5). Without /proc it keeps its name, which harms nobody.
            let _ = std::fs::write("/proc/thread-self/comm", self.name(role));
        }
    }

    /// Starts a thread. When `run` panics, `after` still runs and is told.
    pub(crate) fn spawn(
        self: &Arc<Self>,
        role: &str,
        run: impl FnOnce() + Send + 'static,
        after: impl FnOnce(Panicked) + Send + 'static,
    ) -> io::Result<()> {
        self.reap();
        // Held while the thread starts, so that it is in the list before it can end.
        let mut live = self.live.lock();
        let handle = spawn(&self.name(role), move || {
            OF_A_NODE.set(true);
            let panicked = guarded(run);
            // A panic in the end handler must not pass for a live thread either.
            guarded(move || after(panicked));
        })?;
        live.insert(handle.thread().id(), handle);
        Ok(())
    }

    /// Joins the threads that have ended.
    pub(crate) fn reap(&self) {
        let ended: Vec<_> = self.live.lock().extract_if(|_, handle| handle.is_finished()).collect();
        ended.into_iter().for_each(|(_, handle)| join(handle));
    }

    /// Joins all threads, those too that they start meanwhile. The caller is none of them.
    pub(crate) fn join_all(&self) {
        loop {
            let handles: Vec<_> = self.live.lock().drain().collect();
            if handles.is_empty() {
                return;
            }
            handles.into_iter().for_each(|(_, handle)| join(handle));
        }
    }
}

/// Whether a thread's work ended in a panic, which is a bug in this library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Panicked(pub(crate) bool);

fn guarded(run: impl FnOnce()) -> Panicked {
    let panicked = catch_unwind(AssertUnwindSafe(run)).is_err();
    if panicked {
        log_line!(Error, "thread {:?} panicked: a bug in unbroken", std::thread::current().name());
    }
    Panicked(panicked)
}

/// Starts a thread that somebody joins with [`join`].
#[allow(clippy::disallowed_methods)] // Their one home.
pub(crate) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name.into()).stack_size(STACK).spawn(run)
}

/// Starts the writer of a connection; its reader joins it.
pub(crate) fn spawn_guarded(
    name: &str,
    run: impl FnOnce() + Send + 'static,
    on_panic: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    spawn(name, move || {
        OF_A_NODE.set(true);
        if guarded(run) == Panicked(true) {
            on_panic();
        }
    })
}

pub(crate) fn join(handle: JoinHandle<()>) {
    // Panics were caught inside; there is nothing to learn from the result.
    let _ = handle.join();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::bounded;

    #[test]
    fn a_panic_is_a_value_and_the_thread_is_joined() {
        let threads = Arc::new(Threads::new(PeerId::from_bytes([1; 32])));
        let (sender, receiver) = bounded(2);
        let panics = sender.clone();
        threads
            .spawn("test", || panic!("on purpose"), move |panicked| panics.send(panicked).unwrap())
            .unwrap();
        threads.spawn("test", || (), move |panicked| sender.send(panicked).unwrap()).unwrap();
        threads.join_all();
        let mut got: Vec<bool> = receiver.try_iter().map(|panicked| panicked.0).collect();
        got.sort_unstable();
        assert_eq!(got, [false, true]);
        assert!(threads.live.lock().is_empty());
    }
}
