//! The state that the proxy's threads share: the settings for new flows, the list of flows, the counters.

use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::Socket;

use crate::clock;

use super::faults::{Direction, Faults, Stats};
use super::flow::{Command, Flow, Handle, Start};
use super::{md5sig, sys};

const BACKLOG: i32 = 1024;
/// After an accept that failed for lack of descriptors, and the like.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
/// A flow's thread needs little; there may be thousands.
const FLOW_STACK: usize = 256 * 1024;

pub(super) struct Shared {
    /// Bound to its port for the whole life of the proxy, whether it listens or not.
    listener: Socket,
    /// The receive buffer of the listener as the kernel chose it.
    default_recv_buffer: usize,
    state: Mutex<State>,
    /// Any change of the state.
    changed: Condvar,
}

pub(super) struct State {
    pub(super) faults: Faults,
    pub(super) target: SocketAddr,
    /// One for each of the next flows.
    pub(super) cuts: VecDeque<(Direction, u64)>,
    /// The listener has a key.
    pub(super) hole: bool,
    pub(super) stats: Stats,
    stop: bool,
    /// In the order of their start.
    flows: Vec<Entry>,
    next_id: u64,
    threads: Vec<JoinHandle<()>>,
    /// Threads that wait for `changed`.
    waiting: usize,
}

struct Entry {
    id: u64,
    handle: Handle,
    /// Counted in `Stats::flows`.
    live: bool,
}

impl State {
    /// Asks all flows. Done under the lock, so that every flow sees all commands in one order.
    #[must_use]
    pub(super) fn ask_all(&self, command: Command) -> Vec<Receiver<bool>> {
        let ask = |entry: &Entry| entry.handle.ask(command);
        self.flows.iter().map(ask).collect()
    }

    /// Asks the `n` oldest live flows.
    #[must_use]
    pub(super) fn ask_live(&self, n: usize, command: Command) -> Vec<Receiver<bool>> {
        let live = self.flows.iter().filter(|entry| entry.live).take(n);
        live.map(|entry| entry.handle.ask(command)).collect()
    }
}

impl Shared {
    pub(super) fn new(listener: Socket, target: SocketAddr) -> io::Result<Shared> {
        let default_recv_buffer = listener.recv_buffer_size()?;
        listener.listen(BACKLOG)?;
        Ok(Shared {
            listener,
            default_recv_buffer,
            state: Mutex::new(State {
                faults: Faults::default(),
                target,
                cuts: VecDeque::new(),
                hole: false,
                stats: Stats::default(),
                stop: false,
                flows: Vec::new(),
                next_id: 0,
                threads: Vec::new(),
                waiting: 0,
            }),
            changed: Condvar::new(),
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the new setting, and has every flow take it before it returns.
    pub(super) fn update(&self, change: impl FnOnce(&mut Faults)) {
        let mut state = self.lock();
        let old = state.faults;
        change(&mut state.faults);
        let new = state.faults;
        if old.recv_buffer != new.recv_buffer {
            self.set_recv_buffer(new.recv_buffer);
        }
        if old.refuse != new.refuse {
            // Shutting a listener down takes it out of the listening state, with the port still
            // bound: so nobody else gets the port, and no client meets itself there. A failure
            // here is retried by the accept loop.
            let _ = if new.refuse {
                self.listener.shutdown(Shutdown::Both)
            } else {
                self.listener.listen(BACKLOG)
            };
        }
        let answers = state.ask_all(Command::SetFaults(new));
        self.notify(&state);
        drop(state);
        wait_for(answers);
    }

    pub(super) fn set_hole(&self, state: &mut State, hole: bool) -> bool {
        let set = if hole { md5sig::block } else { md5sig::unblock };
        let done = set(&self.listener, false).is_ok();
        if done {
            state.hole = hole;
        }
        done
    }

    /// Ends everything, and returns when all threads have ended.
    pub(super) fn stop(&self, accept_thread: Option<JoinHandle<()>>) {
        let mut state = self.lock();
        state.stop = true;
        let answers = state.ask_all(Command::Reset);
        self.notify(&state);
        drop(state);
        let _ = self.listener.shutdown(Shutdown::Both);
        drop(answers);
        // It adds no more flows once it has ended.
        if let Some(thread) = accept_thread {
            let _ = thread.join();
        }
        let threads = std::mem::take(&mut self.lock().threads);
        for thread in threads {
            let _ = thread.join();
        }
    }

    pub(super) fn wait_until(&self, timeout: Duration, done: impl Fn(&Stats) -> bool) -> bool {
        let deadline = clock::now().checked_add(timeout);
        let mut state = self.lock();
        loop {
            let seen = state.stats;
            // Not under the lock: the caller may ask the proxy in there.
            drop(state);
            if done(&seen) {
                return true;
            }
            state = self.lock();
            while state.stats == seen {
                let left = match deadline {
                    Some(deadline) => deadline.saturating_duration_since(clock::now()),
                    None => timeout,
                };
                if left.is_zero() {
                    return false;
                }
                state = self.wait(state, left);
            }
        }
    }

    /// Accepts until the end.
    pub(super) fn accept_loop(self: &Arc<Shared>) {
        loop {
            let mut state = self.lock();
            while state.faults.refuse && !state.stop {
                state = self.wait(state, Duration::MAX);
            }
            if state.stop {
                return;
            }
            drop(state);
            let client = match self.listener.accept() {
                Ok((client, _)) => client,
                Err(error) => {
                    self.accept_failed(&error);
                    continue;
                }
            };
            // Whatever drops the socket from here on resets it, but for an orderly end of the flow.
            let _ = client.set_linger(Some(Duration::ZERO));
            let _ = self.admit(client);
        }
    }

    fn accept_failed(&self, error: &io::Error) {
        let state = self.lock();
        if state.stop || state.faults.refuse || error.kind() == io::ErrorKind::Interrupted {
            return;
        }
        if error.kind() == io::ErrorKind::InvalidInput {
            // Not listening, though nothing is to be refused any more.
            let _ = self.listener.listen(BACKLOG);
        }
        drop(self.wait(state, ACCEPT_PAUSE));
    }

    fn admit(self: &Arc<Shared>, client: Socket) -> io::Result<()> {
        let mut state = self.lock();
        if state.stop || state.faults.refuse {
            return Ok(());
        }
        let (flow, handle) = Flow::new(Start {
            client,
            target: state.target,
            faults: state.faults,
            cut: state.cuts.pop_front(),
            black_holed: state.hole,
        })?;
        let id = state.next_id;
        let registration = Registration { shared: Arc::clone(self), id };
        let builder = thread::Builder::new().name("proxy-flow".into());
        // The thread may find the lock taken, which is what makes it see itself registered.
        let thread = builder.stack_size(FLOW_STACK).spawn(move || flow.run(registration))?;
        state.next_id += 1;
        state.stats.accepted += 1;
        state.flows.push(Entry { id, handle, live: false });
        let (ended, running) =
            std::mem::take(&mut state.threads).into_iter().partition(JoinHandle::is_finished);
        state.threads = running;
        state.threads.push(thread);
        self.notify(&state);
        drop(state);
        let ended: Vec<JoinHandle<()>> = ended;
        for thread in ended {
            let _ = thread.join();
        }
        Ok(())
    }

    fn set_recv_buffer(&self, size: Option<usize>) {
        // Accepted sockets inherit it, and the window scale is settled with the SYN: it has to be
        // on the listener. Sizes beyond the system's limit are clamped by the kernel.
        match size {
            Some(size) => drop(self.listener.set_recv_buffer_size(size)),
            None => {
                let size = self.default_recv_buffer / 2;
                drop(self.listener.set_recv_buffer_size(size));
                sys::unlock_buffers(&self.listener);
            }
        }
    }

    fn wait<'a>(&self, mut state: MutexGuard<'a, State>, most: Duration) -> MutexGuard<'a, State> {
        state.waiting += 1;
        let waited = self.changed.wait_timeout(state, most);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        state
    }

    /// To be called with the lock held, after a change.
    fn notify(&self, state: &State) {
        if state.waiting > 0 {
            self.changed.notify_all();
        }
    }
}

/// A flow's place in the list, from its start to its end, however its thread ends.
pub(super) struct Registration {
    shared: Arc<Shared>,
    id: u64,
}

impl Registration {
    pub(super) fn count(&self, change: impl FnOnce(&mut Stats)) {
        let mut state = self.shared.lock();
        change(&mut state.stats);
        self.shared.notify(&state);
    }

    pub(super) fn connected(&self) {
        self.set_live(true, |stats| stats.connected += 1);
    }

    pub(super) fn forgotten(&self) {
        self.set_live(false, |stats| stats.forgotten += 1);
    }

    /// Takes the flow out of the list, and counts its end in the same moment.
    pub(super) fn end(self, change: impl FnOnce(&mut Stats)) {
        let mut state = self.shared.lock();
        change(&mut state.stats);
        state.remove(self.id);
        self.shared.notify(&state);
    }

    fn set_live(&self, live: bool, change: impl FnOnce(&mut Stats)) {
        let mut state = self.shared.lock();
        if let Some(entry) = state.flows.iter_mut().find(|entry| entry.id == self.id) {
            entry.live = live;
        }
        state.recount();
        change(&mut state.stats);
        self.shared.notify(&state);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.remove(self.id);
        self.shared.notify(&state);
    }
}

impl State {
    fn remove(&mut self, id: u64) {
        self.flows.retain(|entry| entry.id != id);
        self.recount();
    }

    fn recount(&mut self) {
        self.stats.flows = self.flows.iter().filter(|entry| entry.live).count();
    }
}

/// Waits for the answers. The number of flows that answered yes, and of those that answered.
pub(super) fn wait_for(answers: Vec<Receiver<bool>>) -> (usize, usize) {
    let answers = answers.into_iter().filter_map(|answer| answer.recv().ok());
    answers.fold((0, 0), |(yes, all), answer| (yes + usize::from(answer), all + 1))
}
