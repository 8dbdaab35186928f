//! Looking names up, on a few threads that nobody waits for longer than he wants to.
//!
//! The system's resolver cannot be interrupted: with name servers that do not answer, a call takes 10 s and
//! more. So it is called on threads that are not joined, and a dial waits for the result only as long as it
//! may; when the node shuts down, or the dial is over, a lookup is left to itself. Its thread ends when the
//! resolver returns.
//!
//! # Invariants
//! - At most [`MAX_LOOKUPS`] threads; none while nothing is looked up.
//! - For one name, however many wait for it, one lookup is under way or waits for a thread. A lookup that
//!   nobody waits for any longer gets no thread.
//! - Names of peers that the operator named go first, and names of candidates have no more than half of the
//!   threads.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Select, Sender, TryRecvError, bounded};

use super::event_queue::Class;
use crate::conn::threads;
use crate::error::{EndCause, EndReason, Initiator};
use crate::lock::{LEAF, Ordered};

const MAX_LOOKUPS: usize = 32;

type Addrs = Result<Vec<SocketAddr>, EndReason>;
type System = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

pub(crate) struct Resolver {
    /// Protects who waits for which name, and the number of threads. A leaf: no other lock is taken while it
    /// is held.
    state: Ordered<State, LEAF>,
    system: Box<System>,
}

#[derive(Default)]
struct State {
    names: HashMap<String, Name>,
    /// Names that wait for a thread, by class. One that is not in `names`, or has a thread, is skipped.
    queues: [VecDeque<String>; 2],
    threads: usize,
    /// Threads at work for names of candidates.
    strangers: usize,
    next_ticket: u64,
    closed: bool,
}

/// A lookup for a thread.
#[derive(Clone)]
struct Job {
    name: String,
    /// In whose share.
    class: Class,
}

struct Name {
    class: Class,
    running: bool,
    waiters: HashMap<u64, Sender<Addrs>>,
}

/// A name that is being looked up for somebody.
pub(crate) struct Lookup {
    resolver: Arc<Resolver>,
    name: String,
    ticket: u64,
    result: Receiver<Addrs>,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("Resolver").field("names", &state.names.len()).finish_non_exhaustive()
    }
}

impl Default for Resolver {
    fn default() -> Self {
        Resolver::new(|name: &str| Ok(name.to_socket_addrs()?.collect()))
    }
}

impl Resolver {
    pub(crate) fn new(
        system: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Resolver {
        Resolver { state: Ordered::default(), system: Box::new(system) }
    }

    /// Begins to look up `host:port`.
    pub(crate) fn look_up(self: &Arc<Self>, name: &str, class: Class) -> Lookup {
        let (sender, result) = bounded(1);
        let mut state = self.state.lock();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        // Closed, it drops the sender: the caller learns that nothing will come.
        if !state.closed {
            state.wait(name, class, ticket, sender);
            self.start_thread(&mut state);
        }
        Lookup { resolver: Arc::clone(self), name: name.into(), ticket, result }
    }

    /// No lookup is begun any more, and whoever waits for one is told.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.queues = Default::default();
        state.names.clear();
    }

    /// Starts one more thread, if there is work for it.
    fn start_thread(self: &Arc<Self>, state: &mut State) {
        if state.threads >= MAX_LOOKUPS {
            return;
        }
        let Some(job) = state.take_next() else { return };
        let (this, its_job) = (Arc::clone(self), job.clone());
        match threads::spawn("ub-resolver", move || this.run(its_job)) {
            Ok(_detached) => state.threads += 1,
            Err(error) => state.end(&job, &Err(EndReason::io("start a thread", &error))),
        }
    }

    fn run(&self, mut job: Job) {
        loop {
            let found = catch_unwind(AssertUnwindSafe(|| (self.system)(&job.name)));
            let found = match found {
                Ok(found) => found.map_err(|error| EndReason::io("resolve", &error)),
                Err(_) => Err(EndReason::new(Initiator::Library, EndCause::Panic)),
            };
            let mut state = self.state.lock();
            state.end(&job, &found);
            job = match state.take_next() {
                Some(next) => next,
                None => {
                    state.threads -= 1;
                    return;
                }
            };
        }
    }
}

impl State {
    fn wait(&mut self, name: &str, class: Class, ticket: u64, sender: Sender<Addrs>) {
        let entry = self.names.entry(name.into()).or_insert_with(|| Name {
            class: Class::Stranger,
            running: false,
            waiters: HashMap::new(),
        });
        let first = entry.waiters.is_empty() && !entry.running;
        let rises = class < entry.class && !entry.running;
        entry.waiters.insert(ticket, sender);
        if first || rises {
            entry.class = class;
            if let Some(queue) = self.queues.get_mut(class as usize) {
                queue.push_back(name.into());
            }
        }
    }

    /// The next name that a thread may look up.
    fn take_next(&mut self) -> Option<Job> {
        for class in [Class::Named, Class::Stranger] {
            if class == Class::Stranger && self.strangers >= MAX_LOOKUPS / 2 {
                continue;
            }
            while let Some(name) = self.queues.get_mut(class as usize).and_then(VecDeque::pop_front) {
                if let Some(entry) = self.names.get_mut(&name)
                    && !entry.running
                {
                    entry.running = true;
                    self.strangers += usize::from(class == Class::Stranger);
                    return Some(Job { name, class });
                }
            }
        }
        None
    }

    fn end(&mut self, job: &Job, found: &Addrs) {
        self.strangers -= usize::from(job.class == Class::Stranger);
        let waiters = self.names.remove(&job.name).into_iter().flat_map(|name| name.waiters);
        waiters.for_each(|(_, sender)| drop(sender.try_send(found.clone())));
    }

    fn release(&mut self, name: &str, ticket: u64) {
        if let Some(entry) = self.names.get_mut(name) {
            entry.waiters.remove(&ticket);
            if entry.waiters.is_empty() && !entry.running {
                self.names.remove(name);
                self.queues.iter_mut().for_each(|queue| queue.retain(|other| other != name));
            }
        }
    }
}

impl Lookup {
    /// The result, if it is there.
    pub(crate) fn poll(&self) -> Option<Addrs> {
        match self.result.try_recv() {
            Ok(found) => Some(found),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(EndReason::new(Initiator::Us, EndCause::Shutdown))),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Waits until one of them has a result, or the time is over.
    pub(crate) fn wait_any(lookups: &[Lookup], deadline: Instant) {
        let mut select = Select::new();
        for lookup in lookups {
            select.recv(&lookup.result);
        }
        // Which one it is, or that the time is over, the caller sees.
        let _ = select.ready_deadline(deadline);
    }
}

impl Drop for Lookup {
    fn drop(&mut self) {
        self.resolver.state.lock().release(&self.name, self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::time::Duration;

    use super::*;
    use crate::clock;

    const LONG: Duration = Duration::from_secs(60);

    /// Names that begin with `held` are answered when the sender is dropped; counts the calls.
    fn resolver() -> (Arc<Resolver>, Sender<()>, Arc<AtomicUsize>) {
        let (release, held) = bounded::<()>(0);
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let resolver = Resolver::new(move |name: &str| {
            counted.fetch_add(1, SeqCst);
            if name.starts_with("held") {
                let _ = held.recv();
            }
            assert!(!name.starts_with("bug"), "on purpose");
            Ok(vec![([10, 0, 0, 1], 1).into()])
        });
        (Arc::new(resolver), release, calls)
    }

    fn wait(lookup: Lookup) -> Addrs {
        let lookups = [lookup];
        Lookup::wait_any(&lookups, clock::now() + LONG);
        lookups[0].poll().expect("a result in time")
    }

    fn held(resolver: &Arc<Resolver>, class: Class, count: usize) -> Vec<Lookup> {
        (0..count).map(|n| resolver.look_up(&format!("held{n}:1"), class)).collect()
    }

    #[test]
    fn candidates_leave_threads_for_the_names_of_named_peers() {
        let (resolver, release, _) = resolver();
        let strangers = held(&resolver, Class::Stranger, 1000);
        assert!(resolver.state.lock().threads <= MAX_LOOKUPS / 2);
        wait(resolver.look_up("quick:1", Class::Named)).unwrap();
        let more = resolver.look_up("more:1", Class::Stranger);
        Lookup::wait_any(std::slice::from_ref(&more), clock::now() + Duration::from_millis(50));
        assert!(more.poll().is_none(), "half of the threads are theirs, and busy");
        drop(release);
        wait(more).unwrap();
        strangers.into_iter().for_each(|lookup| drop(wait(lookup).unwrap()));
    }

    #[test]
    fn threads_are_bounded_and_end() {
        let (resolver, release, calls) = resolver();
        let lookups = held(&resolver, Class::Named, 1000);
        // The same names again, as by a second dial: no further calls.
        let again = held(&resolver, Class::Named, 1000);
        assert_eq!(resolver.state.lock().threads, MAX_LOOKUPS);
        // Those that nobody waits for any longer are not looked up.
        drop(again);
        drop(lookups);
        assert!(resolver.state.lock().names.len() <= MAX_LOOKUPS);
        drop(release);
        wait(resolver.look_up("last:1", Class::Named)).unwrap();
        let deadline = clock::now() + LONG;
        while resolver.state.lock().threads > 0 {
            assert!(clock::now() < deadline, "the threads end");
            std::thread::yield_now();
        }
        assert!(calls.load(SeqCst) <= MAX_LOOKUPS + 1);
        let state = resolver.state.lock();
        assert!(
            state.names.is_empty() && state.strangers == 0 && state.queues.iter().all(VecDeque::is_empty)
        );
    }

    #[test]
    fn every_waiter_is_told_when_it_closes_or_panics() {
        let (resolver, release, _) = resolver();
        let bug = wait(resolver.look_up("bug:1", Class::Named)).unwrap_err();
        assert_eq!(bug.cause, EndCause::Panic);
        let before = resolver.look_up("held:1", Class::Named);
        resolver.close();
        let after = resolver.look_up("held:1", Class::Named);
        for lookup in [before, after] {
            assert_eq!(wait(lookup).unwrap_err().cause, EndCause::Shutdown);
        }
        drop(release);
    }

    #[test]
    fn a_name_that_a_named_peer_needs_too_does_not_wait_with_the_strangers() {
        let (resolver, release, _) = resolver();
        let strangers = held(&resolver, Class::Stranger, MAX_LOOKUPS);
        let theirs = resolver.look_up("both:1", Class::Stranger);
        wait(resolver.look_up("both:1", Class::Named)).unwrap();
        wait(theirs).unwrap();
        drop(release);
        drop(strangers);
    }
}
