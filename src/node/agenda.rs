//! Which links the monitor looks at, and when.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock;
use crate::id::PeerId;
use crate::lock::LEAF;
use crate::sync::Lock;
use crate::sync::atomic::{AtomicU64, Ordering::SeqCst};

use super::shares::AccountId;
use super::signal::Signal;

/// Each link has at most one deadline here, the earliest that was set since it was looked at last, and the
/// node's own round one more. The monitor sleeps until the first of them.
///
/// ```text
///          look_at(deadline)                    due: the deadline has come  
///   none --------------------> on the agenda ----------------------------------> none, and due:
///                               ^    | look_at(an earlier one)                   the monitor looks at it
///                               +----+
/// ```
///
/// Invariants:
/// - A deadline that is set for a link is on the agenda, or an earlier one is, or the monitor looks at the
///   link after it was set: the thread that sets it has changed the link before; the monitor takes the link
///   from the agenda before it looks.
/// - The monitor does not sleep past a deadline on the agenda: both are changed under the lock, and a thread
///   that sets one before the planned end of the sleep wakes it.
/// - A deadline that is not the link's earliest costs its thread one atomic load.
#[derive(Debug)]
pub(crate) struct Agenda {
    base: Instant,
    state: Lock<State, LEAF>,
    woken: Signal,
}

/// A link's place on the agenda.
#[derive(Debug)]
pub(crate) struct Entry {
    id: AccountId,
    peer: PeerId,
    /// Its deadline, in microseconds after the agenda's `base`; [`NEVER`]: none. Written under the agenda's
    /// lock.
    at: Arc<AtomicU64>,
}

#[derive(Debug)]
struct State {
    links: BTreeMap<(u64, AccountId), (Arc<AtomicU64>, PeerId)>,
    round: u64,
    /// All links are to be looked at.
    all: bool,
    /// There is something to do that is not on the agenda.
    other: bool,
    /// The end of the monitor's sleep. `None` while it is awake.
    planned: Option<u64>,
}

/// The tasks of the monitor.
#[derive(Debug)]
pub(crate) struct Due {
    pub(crate) links: Vec<(AccountId, PeerId)>,
    /// Not only those, but all links.
    pub(crate) all: bool,
    pub(crate) round: bool,
}

const NEVER: u64 = u64::MAX;
/// With nothing due the monitor looks around at this interval: a safety net, not a mechanism.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

impl State {
    /// When the monitor has something to do: 0 for at once.
    fn first(&self) -> u64 {
        if self.all || self.other {
            return 0;
        }
        self.links.first_key_value().map_or(NEVER, |((at, _), _)| *at).min(self.round)
    }
}

impl Entry {
    pub(crate) fn new(id: AccountId, peer: PeerId) -> Self {
        Entry { id, peer, at: Arc::new(AtomicU64::new(NEVER)) }
    }
}

impl Agenda {
    /// The first round is due at once.
    pub(crate) fn new() -> Self {
        let state = State { links: BTreeMap::new(), round: 0, all: false, other: false, planned: None };
        Agenda { base: clock::now(), state: Lock::new(state), woken: Signal::new() }
    }

    /// The link is to be looked at by `deadline`.
    pub(crate) fn look_at(&self, entry: &Entry, deadline: Instant) {
        self.look(entry, self.micros(deadline));
    }

    /// The link is to be looked at, at once.
    pub(crate) fn look_now(&self, entry: &Entry) {
        self.look(entry, 0);
    }

    fn look(&self, entry: &Entry, at: u64) {
        if entry.at.load(SeqCst) <= at {
            return;
        }
        self.change(at, |state| {
            let before = entry.at.load(SeqCst);
            if at < before {
                state.links.remove(&(before, entry.id));
                state.links.insert((at, entry.id), (Arc::clone(&entry.at), entry.peer));
                entry.at.store(at, SeqCst);
            }
        });
    }

    /// The link is gone.
    pub(crate) fn forget(&self, entry: &Entry) {
        let mut state = self.state.lock();
        state.links.remove(&(entry.at.load(SeqCst), entry.id));
    }

    /// All links are to be looked at, at once.
    pub(crate) fn look_at_all(&self) {
        self.change(0, |state| state.all = true);
    }

    /// The node's own tasks are due at `deadline`.
    pub(crate) fn round_at(&self, deadline: Instant) {
        let at = self.micros(deadline);
        self.change(at, |state| state.round = state.round.min(at));
    }

    /// The node's own tasks are due.
    pub(crate) fn round_now(&self) {
        self.change(0, |state| (state.round, state.other) = (0, true));
    }

    /// The monitor has something to do that is not on the agenda.
    pub(crate) fn wake(&self) {
        self.change(0, |state| state.other = true);
    }

    fn change(&self, at: u64, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        change(&mut state);
        // Nobody else wakes it for the same or a later time.
        let wakes = state.planned.is_some_and(|planned| at < planned);
        if wakes {
            state.planned = Some(at);
        }
        drop(state);
        if wakes {
            self.woken.set();
        }
    }

    /// The monitor is awake, and looks for what is not on the agenda from here on.
    pub(crate) fn begin(&self) {
        let mut state = self.state.lock();
        state.planned = None;
        state.other = false;
        let _ = self.woken.ready.try_recv();
    }

    /// Takes what is due from the agenda.
    pub(crate) fn due(&self, now: Instant) -> Due {
        let now = self.passed(now);
        let mut state = self.state.lock();
        let mut links = Vec::new();
        while let Some(first) = state.links.first_entry().filter(|first| first.key().0 <= now) {
            let (_, id) = *first.key();
            let (at, peer) = first.remove();
            at.store(NEVER, SeqCst);
            links.push((id, peer));
        }
        let round = state.round <= now;
        if round {
            state.round = NEVER;
        }
        Due { links, all: std::mem::take(&mut state.all), round }
    }

    /// The monitor sleeps until the first deadline, but not before `least`, or until there is something to do
    /// that is not on the agenda. Returns until when it meant to sleep.
    pub(crate) fn sleep(&self, least: Instant) -> Instant {
        loop {
            let planned = self.base + Duration::from_micros(self.plan(least));
            self.woken.sleep(Some(planned));
            let now = clock::now();
            // An earlier deadline makes the sleep shorter, and is no reason for a pass over the node.
            if planned <= now || self.state.lock().first() <= self.passed(now) {
                return planned;
            }
        }
    }

    fn plan(&self, least: Instant) -> u64 {
        let mut state = self.state.lock();
        let least = self.micros(least);
        let planned = state.first().clamp(least, least + LONGEST_SLEEP.as_micros() as u64);
        state.planned = Some(planned);
        planned
    }

    /// The whole microseconds that have passed.
    fn passed(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.base).as_micros() as u64
    }

    /// The first whole microsecond that is not before `at`.
    fn micros(&self, at: Instant) -> u64 {
        let nanos = at.saturating_duration_since(self.base).as_nanos();
        u64::try_from(nanos.div_ceil(1000)).unwrap_or(NEVER)
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(20);

    fn entry(agenda: &mut Agenda, number: u8) -> (Entry, (AccountId, PeerId)) {
        // The first round is over.
        agenda.due(clock::now());
        let peer = PeerId::from_bytes([number; 32]);
        let id = AccountId::numbered(number.into());
        (Entry::new(id, peer), (id, peer))
    }

    #[test]
    fn a_link_is_due_once_at_its_earliest_deadline() {
        let mut agenda = Agenda::new();
        let (entry, name) = entry(&mut agenda, 1);
        let start = agenda.base;
        for deadline in [start + 2 * SHORT, start + SHORT, start + LONG] {
            agenda.look_at(&entry, deadline);
        }
        assert!(agenda.due(start + SHORT / 2).links.is_empty());
        assert_eq!(agenda.due(start + SHORT).links, [name]);
        assert!(agenda.due(start + LONG).links.is_empty());
        agenda.look_at(&entry, start + LONG);
        assert_eq!(agenda.due(start + LONG).links, [name]);
        agenda.look_now(&entry);
        assert_eq!(agenda.due(start).links, [name]);
        agenda.look_now(&entry);
        agenda.forget(&entry);
        assert!(agenda.due(start + LONG).links.is_empty());
    }

    #[test]
    fn everything_that_is_asked_for_while_the_monitor_is_awake_keeps_it_awake() {
        let mut agenda = Agenda::new();
        let (entry, _) = entry(&mut agenda, 1);
        let asks: [fn(&Agenda, &Entry); 5] = [
            |agenda, entry| agenda.look_now(entry),
            |agenda, _| agenda.look_at_all(),
            |agenda, _| agenda.round_now(),
            |agenda, _| agenda.round_at(clock::now()),
            |agenda, _| agenda.wake(),
        ];
        for ask in asks {
            ask(&agenda, &entry);
            let least = clock::now() + SHORT;
            assert!(agenda.sleep(least) < least + SHORT, "it does not spin, and it does not sleep");
            agenda.begin();
            agenda.due(least);
            assert!(agenda.plan(least) > agenda.micros(least + LONG / 2), "it was settled");
            agenda.begin();
        }
    }

    #[test]
    fn an_earlier_deadline_makes_the_sleep_shorter_and_does_not_end_it() {
        let mut agenda = Agenda::new();
        let (entry, name) = entry(&mut agenda, 1);
        agenda.round_at(clock::now() + LONG);
        thread::scope(|scope| {
            let sleeper = scope.spawn(|| agenda.sleep(clock::now()));
            while agenda.state.lock().planned.is_none() {
                thread::yield_now();
            }
            let at = clock::now() + SHORT;
            agenda.look_at(&entry, at);
            let planned = sleeper.join().unwrap();
            assert!(planned >= at && clock::now() >= at);
        });
        assert_eq!(agenda.due(clock::now()).links, [name]);
    }

    #[test]
    fn an_earlier_deadline_wakes_the_sleeper_and_a_later_one_does_not() {
        let mut agenda = Agenda::new();
        let (entry, _) = entry(&mut agenda, 1);
        let now = clock::now();
        agenda.round_at(now + LONG);
        agenda.plan(now);
        agenda.look_at(&entry, now + 2 * LONG);
        assert!(agenda.woken.ready.is_empty(), "later than planned");
        thread::scope(|scope| {
            let sleeper = scope.spawn(|| agenda.woken.ready.recv_timeout(LONG));
            agenda.look_at(&entry, now + SHORT);
            assert_eq!(sleeper.join().unwrap(), Ok(()));
        });
        agenda.look_at(&entry, now);
        assert!(agenda.woken.ready.len() <= 1);
    }
}

#[cfg(all(test, shuttle))]
mod every_interleaving {
    use shuttle::check_dfs;
    use shuttle::thread;

    use super::*;

    /// A thread changes a link and sets its deadline, while the monitor takes an earlier deadline of the link
    /// from the agenda, looks at it and goes to sleep.
    #[test]
    fn the_monitor_sees_a_change_or_its_deadline() {
        check_dfs(
            || {
                let agenda = Arc::new(Agenda::new());
                let entry = Arc::new(Entry::new(AccountId::numbered(1), PeerId::from_bytes([1; 32])));
                let (changed, start) = (Arc::new(AtomicU64::new(0)), agenda.base);
                agenda.due(start);
                agenda.look_now(&entry);
                let later = start + Duration::from_secs(1);
                let changes = thread::spawn({
                    let (agenda, entry, changed) =
                        (Arc::clone(&agenda), Arc::clone(&entry), Arc::clone(&changed));
                    move || {
                        changed.store(1, SeqCst);
                        agenda.look_at(&entry, later);
                    }
                });
                agenda.begin();
                agenda.due(start);
                let seen = changed.load(SeqCst) == 1;
                let planned = agenda.plan(start);
                changes.join().unwrap();
                let wakes = agenda.woken.ready.try_recv().is_ok();
                assert!(seen || planned <= 1_000_000 || wakes, "it would sleep past the deadline");
            },
            None,
        );
    }
}
