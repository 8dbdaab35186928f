//! A thread of its own for code that the application might block: destructors of message bodies
//! (`Bytes::from_owner`), and the sink of the log.
//!
//! When the last reference to such a body is dropped, code of the application runs. It may take a lock that a
//! sender holds while it waits in `send`, or call the node. A sink of the log may block for as long as its
//! disk or pipe does. So neither may run under a lock of the library, nor on a thread that a sender waits
//! for: those that read, write, or watch the time.
//!
//! # Bodies
//! A large body that is sent is wrapped ([`Background::guard`]), so that whoever drops it last hands it over
//! to this thread; a small one is copied, and handed over by the call that sends it.
//!
//! After its work the thread rests for [`REST`]: bodies that come meanwhile wake it only when [`ENOUGH`]
//! bytes wait. Otherwise each message that ends would cost two changes of threads.
//!
//! # Lines
//! Each class of peers has a rate, so that no stranger fills the log, and none keeps a line about a named
//! peer out of it. Lines beyond it are counted, and the next line of the class says how many were left out;
//! so are lines that would wait behind more than [`MAX_WAITING`] others.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use log::Level;
use parking_lot::Condvar;

use super::event_queue::Class;
use crate::bucket::Bucket;
use crate::clock;
use crate::conn::threads;
use crate::lock::{Guard, LEAF, Ordered};
use crate::log_line::TARGET;

/// Lines that wait for the sink, of each class.
const MAX_WAITING: usize = 128;
/// How long a body waits at most for its destructor while the thread has nothing to do.
const REST: Duration = Duration::from_millis(10);
/// Bodies of so many bytes together are not kept waiting. Each counts with what it costs at least.
const ENOUGH: usize = 1024 * 1024;
const LEAST_COST: usize = 64;

#[derive(Debug)]
pub(crate) struct Background {
    state: Ordered<State, LEAF>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    tasks: VecDeque<Task>,
    /// By class.
    lines: [Lines; 2],
    thread: Option<JoinHandle<()>>,
    /// Bytes of bodies that came since the thread took the last task.
    bodies: usize,
    /// The thread is at work.
    busy: bool,
    /// It has nothing to do, and looks again soon.
    resting: bool,
    closed: bool,
}

#[derive(Debug)]
enum Task {
    Drop(Vec<Bytes>),
    Log { class: Class, level: Level, text: String },
}

/// The lines that one class may write.
#[derive(Debug)]
struct Lines {
    rate: Bucket,
    waiting: usize,
    left_out: u64,
}

impl Lines {
    fn new(per_second: f64, burst: f64) -> Self {
        Lines { rate: Bucket::new(per_second, burst), waiting: 0, left_out: 0 }
    }

    /// Whether one more line may be written, and how many were left out before it. An operator that asked for
    /// debug lines gets them all.
    fn admit(&mut self, level: Level, now: Instant) -> Option<u64> {
        if self.waiting >= MAX_WAITING || level <= Level::Info && !self.rate.acquire(1.0, now) {
            self.left_out += 1;
            return None;
        }
        self.waiting += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

impl Default for Background {
    fn default() -> Self {
        let state = State {
            tasks: VecDeque::new(),
            lines: [Lines::new(10.0, 200.0), Lines::new(1.0, 20.0)],
            thread: None,
            bodies: 0,
            busy: false,
            resting: false,
            closed: false,
        };
        Background { state: Ordered::new(state), changed: Condvar::new() }
    }
}

impl Background {
    /// Starts the thread.
    pub(crate) fn start(self: &Arc<Self>, name: &str) -> io::Result<()> {
        let this = Arc::clone(self);
        let on_panic = || log_line!(Error, "the thread that writes the log ended: a bug in unbroken");
        let thread = threads::spawn_guarded(name, move || this.run(), on_panic)?;
        self.state.lock().thread = Some(thread);
        Ok(())
    }

    /// Returns the same bytes. When the last reference to them is dropped, on whatever thread and under
    /// whatever lock, the body is dropped by this thread.
    pub(crate) fn guard(self: &Arc<Self>, body: Bytes) -> Bytes {
        Bytes::from_owner(Guarded { body, background: Arc::clone(self) })
    }

    pub(crate) fn drop_all(&self, bodies: Vec<Bytes>) {
        if bodies.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        if state.thread.is_some() {
            state.bodies += bodies.iter().map(|body| body.len().max(LEAST_COST)).sum::<usize>();
            state.tasks.push_back(Task::Drop(bodies));
            let waits = state.resting && state.bodies < ENOUGH;
            drop(state);
            if !waits {
                self.changed.notify_all();
            }
        }
    }

    /// Writes a line about a peer of this class, unless there were too many of them.
    pub(crate) fn log(&self, class: Class, level: Level, line: fmt::Arguments<'_>) {
        if level > log::max_level() {
            return;
        }
        let mut state = self.state.lock();
        if state.thread.is_none() {
            return;
        }
        let Some(lines) = state.lines.get_mut(class as usize) else { return };
        let Some(left_out) = lines.admit(level, clock::now()) else { return };
        let text = match left_out {
            0 => line.to_string(),
            count => format!("{line} ({count} lines like this were left out)"),
        };
        state.tasks.push_back(Task::Log { class, level, text });
        drop(state);
        self.changed.notify_all();
    }

    fn run(&self) {
        let mut state = self.state.lock();
        let mut has_worked = false;
        loop {
            let task = state.tasks.pop_front();
            state.busy = task.is_some();
            state.bodies = 0;
            let Some(task) = task else {
                if state.closed {
                    self.changed.notify_all();
                    return;
                }
                state.resting = std::mem::take(&mut has_worked);
                if state.resting {
                    Guard::wait_until(&mut state, &self.changed, clock::now() + REST);
                    state.resting = false;
                } else {
                    Guard::wait(&mut state, &self.changed);
                }
                continue;
            };
            has_worked = true;
            drop(state);
            let done = self.carry_out(task);
            state = self.state.lock();
            if let Some(lines) = done.and_then(|class| state.lines.get_mut(class as usize)) {
                lines.waiting -= 1;
            }
        }
    }

    /// Returns the class of a line that was written.
    fn carry_out(&self, task: Task) -> Option<Class> {
        match task {
            Task::Drop(bodies) => {
                for body in bodies {
                    if catch_unwind(AssertUnwindSafe(|| drop(body))).is_err() {
                        log_line!(Error, "the destructor of a message body panicked");
                    }
                }
                None
            }
            Task::Log { class, level, text } => {
                // A sink that panics costs its line.
                let _ = catch_unwind(|| log::log!(target: TARGET, level, "{text}"));
                Some(class)
            }
        }
    }

    /// Waits until everything is done, and joins the thread. A destructor or a sink that does not return by
    /// `deadline` is left alone: it may wait for the caller.
    pub(crate) fn close(&self, deadline: Instant) {
        let mut state = self.state.lock();
        state.closed = true;
        self.changed.notify_all();
        while state.busy || !state.tasks.is_empty() {
            if !Guard::wait_until(&mut state, &self.changed, deadline) {
                return;
            }
        }
        let thread = state.thread.take();
        drop(state);
        thread.into_iter().for_each(threads::join);
    }
}

/// The body of a message, with code of the application.
struct Guarded {
    body: Bytes,
    background: Arc<Background>,
}

impl AsRef<[u8]> for Guarded {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.background.drop_all(vec![std::mem::take(&mut self.body)]);
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

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
    fn strangers_fill_neither_the_log_nor_the_share_of_named_peers() {
        let now = crate::clock::now();
        let background = Background::default();
        let [named, strangers] = &mut background.state.lock().lines;
        let admitted = (0..1000).filter(|_| strangers.admit(Level::Warn, now).is_some()).count();
        assert_eq!(admitted, 20);
        assert_eq!(named.admit(Level::Warn, now), Some(0));
        let later = now + Duration::from_secs(1);
        assert_eq!(strangers.admit(Level::Warn, later), Some(980), "it says how many were left out");
        // A sink that blocks: nothing piles up, however slowly they come.
        let admitted =
            (0..10_000).filter(|n| named.admit(Level::Warn, now + Duration::from_secs(*n)).is_some()).count();
        assert_eq!(admitted, MAX_WAITING - 1);
    }

    #[test]
    fn a_guarded_body_is_dropped_by_the_thread_after_its_last_slice() {
        let (background, dropped) = (Arc::<Background>::default(), Arc::new(Mutex::new(0)));
        background.start("log").unwrap();
        let guarded = background.guard(Bytes::from_owner(Owner(Arc::clone(&dropped))));
        let slice = guarded.slice(1..);
        drop(guarded);
        assert_eq!((&slice[..], *dropped.lock()), (&b"ody"[..], 0));
        // A destructor on this thread would wait for ever.
        let held = dropped.lock();
        drop(slice);
        drop(held);
        background.close(crate::clock::now() + Duration::from_secs(60));
        assert_eq!(*dropped.lock(), 1);
    }

    #[test]
    fn the_caller_waits_for_no_destructor_and_a_panic_in_one_costs_no_other() {
        let (background, dropped) = (Arc::<Background>::default(), Arc::new(Mutex::new(0)));
        background.start("log").unwrap();
        let held = dropped.lock();
        let bodies = || (0..3).map(|_| Bytes::from_owner(Owner(Arc::clone(&dropped)))).collect();
        background.drop_all(bodies());
        background.drop_all(bodies());
        // The destructors wait for this thread, which does not wait for them for long.
        background.close(crate::clock::now() + Duration::from_millis(20));
        drop(held);
        background.close(crate::clock::now() + Duration::from_secs(60));
        assert_eq!(*dropped.lock(), 6);
        assert!(background.state.lock().thread.is_none());
    }
}
