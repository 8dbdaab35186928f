//! Following names that move: a peer that was dialled by a name is looked up again while its link is up, and
//! a connection to an address that the name no longer stands for gets a successor, as
//! [`Node::replace`](crate::Node::replace) would give it.
//!
//! ```text
//!            the interval is over               answered: among the answers, or no conclusion
//!   Resting ----------------------> Asking ------------------------------------------------> Resting
//!      ^                              | answered: not among them
//!      |                              v
//!      +-- once: noted -------- how often in a row? ---- twice: one connection is replaced --> Resting
//! ```
//!
//! # Invariants
//! - Only connections that this node dialled, and only to peers of which an entry has a name.
//! - A lookup that fails, has no answer in time, or finds no address is no conclusion: nothing is replaced
//!   because a name server is down.
//! - At most one connection of a peer in an interval.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::address;
use crate::id::{ConnId, PeerId};
use crate::roster::ReplaceReason;

use super::event_queue::Class;
use super::inner::NodeInner;
use super::link::LinkHandle;
use super::resolver::Lookup;

/// So often in a row must an address be missing.
const MISSES: u32 = 2;
/// A resolver that goes on to its second name server after 5 s, and tries both twice (resolv.conf(5)), has
/// answered by then.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(20);
/// Results of the resolver are noticed at the latest after this time.
const LOOKUP_POLL: Duration = Duration::from_millis(250);
/// New links are noticed within this part of the interval.
const LOOK_PART: u32 = 4;

/// The names of all peers as they were looked up. Belongs to the monitor.
#[derive(Debug)]
pub(super) struct MovedNames {
    /// Zero: names are not looked up again.
    interval: Duration,
    watches: HashMap<PeerId, Watch>,
    next: Instant,
    rng: fastrand::Rng,
}

#[derive(Debug)]
struct Watch {
    at: Instant,
    question: Option<Question>,
    misses: Misses,
}

/// Names that are being looked up for one peer.
struct Question {
    waiting: Vec<Lookup>,
    found: Vec<SocketAddr>,
    until: Instant,
}

impl std::fmt::Debug for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Question").field("found", &self.found).finish_non_exhaustive()
    }
}

/// How often in a row the address of each connection was missing; [`MISSES`]: it is being replaced.
#[derive(Debug, Default)]
struct Misses(HashMap<ConnId, u32>);

/// The consequence of the answers.
#[derive(Debug, Default, PartialEq, Eq)]
struct Conclusion {
    replace: Option<ConnId>,
    keep: Vec<ConnId>,
}

impl MovedNames {
    pub(super) fn new(interval: Duration, seed: u64, now: Instant) -> Self {
        MovedNames { interval, watches: HashMap::new(), next: now, rng: fastrand::Rng::with_seed(seed) }
    }

    /// Looks up what is due, and sees to the successors of connections to addresses that are no longer in
    /// use. Returns when to be called again.
    pub(super) fn check(&mut self, core: &NodeInner, now: Instant) -> Option<Instant> {
        if self.interval.is_zero() || core.is_closing() {
            self.watches.clear();
            return None;
        }
        if now < self.next {
            return Some(self.next);
        }
        let links = core.links();
        let peers: HashSet<_> = links.iter().map(|link| link.peer).collect();
        self.watches.retain(|peer, _| peers.contains(peer));
        links.iter().for_each(|link| self.check_link(core, link, now));
        let due = |watch: &Watch| if watch.question.is_some() { now + LOOKUP_POLL } else { watch.at };
        let due = self.watches.values().map(due).min();
        let look = now + self.interval / LOOK_PART;
        self.next = due.map_or(look, |due| due.min(look));
        Some(self.next)
    }

    fn check_link(&mut self, core: &NodeInner, link: &Arc<LinkHandle>, now: Instant) {
        let dialled: Vec<_> = link.inspect(|state| {
            let ours = state.link.conns().iter().filter(|conn| conn.dialled && conn.is_serving());
            ours.map(|conn| (conn.id, conn.handle.addr())).collect()
        });
        if dialled.is_empty() {
            self.watches.remove(&link.peer);
            return;
        }
        // Peers that were linked at once are not looked up at once.
        let at = now + self.interval.mul_f64(0.8 + 0.4 * self.rng.f64());
        let watch = self.watches.entry(link.peer).or_insert_with(|| Watch {
            at,
            question: None,
            misses: Misses::default(),
        });
        if watch.question.is_none() && now >= watch.at {
            watch.at = at;
            watch.question = Question::new(core, link.peer, now);
        }
        let answer = watch.question.as_mut().and_then(|question| question.poll(now));
        let Some(answer) = answer else { return };
        watch.question = None;
        let Some(found) = answer else { return };
        let conclusion = watch.misses.judge(&dialled, &found);
        conclusion.keep.iter().for_each(|conn| link.keep(*conn, ReplaceReason::Moved));
        if let Some(conn) = conclusion.replace {
            link.retire(conn, ReplaceReason::Moved);
        }
        link.look_now();
    }
}

impl Question {
    /// Begins to look up all names of this peer. `None` if it has none.
    fn new(core: &NodeInner, peer: PeerId, now: Instant) -> Option<Self> {
        let (mut waiting, mut found) = (Vec::new(), Vec::new());
        let addresses = core.roster.lock().addresses_of(peer);
        for address in addresses {
            match address::literal(&address) {
                Ok(Some(addr)) => found.push(addr),
                // Behind the names of those that are being dialled, which matter more.
                Ok(None) => waiting.push(core.resolver.look_up(&address, Class::Stranger)),
                // An interface that is not there at the moment has no connection either.
                Err(_) => {}
            }
        }
        (!waiting.is_empty()).then_some(Question { waiting, found, until: now + LOOKUP_TIMEOUT })
    }

    /// `None`: not answered yet. `Some(None)`: no conclusion.
    fn poll(&mut self, now: Instant) -> Option<Option<Vec<SocketAddr>>> {
        let mut failed = false;
        let found = &mut self.found;
        self.waiting.retain(|lookup| match lookup.poll() {
            Some(Ok(addrs)) if !addrs.is_empty() => {
                found.extend(addrs);
                false
            }
            Some(_) => {
                failed = true;
                false
            }
            None => true,
        });
        if failed || (now >= self.until && !self.waiting.is_empty()) {
            return Some(None);
        }
        self.waiting.is_empty().then(|| Some(std::mem::take(&mut self.found)))
    }
}

impl Misses {
    /// `conns`: those that this node dialled. `found`: all addresses of the peer.
    fn judge(&mut self, conns: &[(ConnId, SocketAddr)], found: &[SocketAddr]) -> Conclusion {
        self.0.retain(|known, _| conns.iter().any(|(conn, _)| conn == known));
        let mut conclusion = Conclusion::default();
        for (conn, addr) in conns {
            let same = |other: &SocketAddr| {
                (other.ip().to_canonical(), other.port()) == (addr.ip().to_canonical(), addr.port())
            };
            if found.iter().any(same) {
                if self.0.remove(conn).is_some() {
                    conclusion.keep.push(*conn);
                }
                continue;
            }
            let misses = self.0.entry(*conn).or_default();
            match *misses + 1 {
                MISSES if conclusion.replace.is_none() => {
                    conclusion.replace = Some(*conn);
                    *misses = MISSES;
                }
                // It is being replaced, or its turn comes in the next interval.
                MISSES.. => {}
                more => *misses = more,
            }
        }
        conclusion
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use crossbeam_channel::{Receiver, Sender, bounded};
    use parking_lot::Mutex;

    use super::*;
    use crate::clock;
    use crate::node::resolver::Resolver;
    use crate::{Event, Node, PeerConfig};

    const LONG: Duration = Duration::from_secs(60);

    fn addr(host: u8) -> SocketAddr {
        ([10, 0, 0, host], 1).into()
    }

    fn replaces(conn: u64) -> Conclusion {
        Conclusion { replace: Some(ConnId(conn)), keep: Vec::new() }
    }

    #[test]
    fn an_address_must_be_missing_twice_in_a_row() {
        let mut misses = Misses::default();
        let conns = [(ConnId(1), addr(1))];
        let mut judge =
            |found: &[u8]| misses.judge(&conns, &found.iter().map(|host| addr(*host)).collect::<Vec<_>>());
        let nothing = Conclusion::default;
        let kept = || Conclusion { replace: None, keep: vec![ConnId(1)] };
        assert_eq!(judge(&[1, 2]), nothing());
        assert_eq!(judge(&[2]), nothing());
        assert_eq!(judge(&[1]), kept());
        assert_eq!(judge(&[2]), nothing());
        assert_eq!(judge(&[3]), replaces(1));
        // Its successor is on its way.
        assert_eq!(judge(&[3]), nothing());
        // The name has moved back meanwhile.
        assert_eq!(judge(&[1]), kept());
        assert_eq!(judge(&[1]), nothing());
    }

    #[test]
    fn one_connection_in_an_interval_is_replaced() {
        let mut misses = Misses::default();
        let both = [(ConnId(1), addr(1)), (ConnId(2), addr(2))];
        assert_eq!(misses.judge(&both, &[addr(3)]), Conclusion::default());
        assert_eq!(misses.judge(&both, &[addr(3)]), replaces(1));
        assert_eq!(misses.judge(&both, &[addr(3)]), replaces(2));
        assert_eq!(misses.judge(&both, &[addr(3)]), Conclusion::default());
        assert_eq!(misses.judge(&[], &[addr(3)]), Conclusion::default());
        assert!(misses.0.is_empty(), "connections that have ended are forgotten");
    }

    #[test]
    fn an_address_in_the_form_of_ipv6_is_the_same() {
        let mut misses = Misses::default();
        let conns = [(ConnId(1), "10.0.0.1:1".parse().unwrap())];
        for _ in 0..3 {
            let conclusion = misses.judge(&conns, &["[::ffff:10.0.0.1]:1".parse().unwrap()]);
            assert_eq!(conclusion, Conclusion::default());
        }
    }

    /// A name and the answers to it. Each lookup is told.
    #[derive(Clone)]
    struct Name {
        addr: Arc<Mutex<Option<SocketAddr>>>,
        lookups: (Sender<()>, Receiver<()>),
    }

    impl Name {
        fn new(addr: SocketAddr) -> Name {
            Name { addr: Arc::new(Mutex::new(Some(addr))), lookups: bounded(1000) }
        }

        fn set(&self, addr: Option<SocketAddr>) {
            *self.addr.lock() = addr;
        }

        fn resolver(&self) -> Resolver {
            let name = self.clone();
            Resolver::new(move |_: &str| {
                let _ = name.lookups.0.try_send(());
                let addr = *name.addr.lock();
                addr.map(|addr| vec![addr]).ok_or_else(|| io::Error::other("no name server"))
            })
        }

        /// Waits until the name was looked up so often from now on.
        fn wait_for_lookups(&self, count: usize) {
            while self.lookups.1.try_recv().is_ok() {}
            (0..count).for_each(|_| self.lookups.1.recv_timeout(LONG).expect("the name is looked up again"));
        }
    }

    /// A node at two addresses, and one that has dialled it by a name that stands for the first of them.
    fn pair(interval: Duration) -> (Node, Node, Name) {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = Node::builder().listen(any).listen(any).start().unwrap();
        let name = Name::new(listener.local_addrs()[0]);
        let dialer = Node::builder()
            .configure(|config| config.resolve_interval = interval)
            .peer_config(PeerConfig::new("moves.example:1"))
            .start_with(name.resolver())
            .unwrap();
        dialer.wait_linked(listener.id(), LONG).unwrap();
        (listener, dialer, name)
    }

    fn connected_to(dialer: &Node, listener: &Node) -> Vec<SocketAddr> {
        dialer.peer(listener.id()).unwrap().connections.iter().map(|conn| conn.addr).collect()
    }

    #[test]
    fn a_connection_follows_its_name_without_a_gap() {
        let (listener, dialer, name) = pair(Duration::from_secs(1));
        let [first, second] = listener.local_addrs() else { panic!("two addresses") };
        name.wait_for_lookups(2);
        // A name server that is down moves nobody.
        name.set(None);
        name.wait_for_lookups(3);
        assert_eq!(connected_to(&dialer, &listener), [*first]);
        name.set(Some(*second));
        let deadline = clock::now() + LONG;
        let mut events = Vec::new();
        while connected_to(&dialer, &listener) != [*second] {
            assert!(clock::now() < deadline, "{:?}", connected_to(&dialer, &listener));
            events.extend(dialer.recv_timeout(Duration::from_millis(100)).unwrap());
        }
        events.extend(std::iter::from_fn(|| dialer.try_recv().unwrap()));
        let reasons: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                Event::Replacing { reason, .. } => Some(*reason),
                _ => None,
            })
            .collect();
        assert_eq!(reasons, [ReplaceReason::Moved], "{events:?}");
        let down = |event: &Event| matches!(event, Event::LinkDown { .. } | Event::LinkDegraded { .. });
        assert!(!events.iter().any(down), "{events:?}");
        // It stays there.
        name.wait_for_lookups(3);
        assert_eq!(connected_to(&dialer, &listener), [*second]);
    }

    #[test]
    fn without_an_interval_names_are_looked_up_by_dials_alone() {
        let (listener, dialer, name) = pair(Duration::ZERO);
        let moved = MovedNames::new(Duration::ZERO, 1, clock::now()).check(&dialer.handle.core, clock::now());
        assert_eq!(moved, None);
        assert_eq!(name.lookups.1.len(), 1);
        assert_eq!(connected_to(&dialer, &listener), [listener.local_addrs()[0]]);
    }
}
