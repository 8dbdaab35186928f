//! The events that wait for the application. Pure: no lock, no clock.
//!
//! # Whose events
//! Each event has a subject: a peer, an address that is dialled, or an address that is banned. A subject is
//! either *named* by the operator, or a *stranger's*; candidates count as strangers. When the answer changes,
//! what waits moves along.
//!
//! # Invariants
//! - The events of one subject come out in the order in which they went in; so do those of one class, named
//!   or strangers'.
//! - No more than `max` events wait. When there are more, the class that has more than half of them loses
//!   one. So neither class can drive out the other's half, and either may use what the other leaves.
//! - In the class that loses one, the oldest goes that does not tell of a loss of messages; one that does
//!   goes only when nothing else is left.
//! - No subject has more than [`MAX_PER_SUBJECT`] events. From [`MERGED_FROM`] on they are merged: what
//!   nobody has seen and what is over goes, what it amounts to stays.
//!
//! # Merging
//! | what waits for one subject | what is left |
//! |---|---|
//! | `Connected` and `Disconnected` of one connection, and what was told of it in between | nothing |
//! | several states of the link (`LinkUp`, `LinkDegraded`, `LinkDown`) | the last one |
//! | `Suspect` and `Recovered`, `Poor` and `Well` of one connection; `Banned` and `Unbanned` | the last one |
//! | `Lost`, `PeerRestarted`, `Repeated` | the last one, with the sum of the messages |
//! | any other kind | the last one |

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use crate::conduct::BanTarget;
use crate::id::{ConnId, PeerId};

use super::event::Event;

/// So many events of one subject wait as they came. Far more than an application sees that keeps up.
const MERGED_FROM: usize = 16;
/// Whatever they are, no more of one subject wait.
const MAX_PER_SUBJECT: usize = 32;

/// The subject of an event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Subject {
    Peer(PeerId),
    /// An address as it was configured.
    Dialled(String),
    /// An address that was refused, offends or is banned.
    Address(IpAddr),
}

/// Whether the operator named it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    Named,
    Stranger,
}

/// Events of one topic make earlier ones of the same subject stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Topic {
    Link,
    Joined(ConnId),
    Ended(ConnId),
    Suspicion(ConnId),
    Quality(ConnId),
    Replacing(ConnId),
    Replaced(ConnId),
    Restarted,
    Repeated,
    Lost { by_peer: bool },
    PingInterval,
    Retired,
    Dial,
    Conflict,
    Breaker,
    Offended,
    Ban,
    Refused,
}

impl Event {
    /// `None` for a message, which waits elsewhere.
    pub(crate) fn subject(&self) -> Option<Subject> {
        Some(match self {
            Event::Message(_) => return None,
            Event::LinkUp { peer, .. }
            | Event::LinkDegraded { peer }
            | Event::LinkDown { peer, .. }
            | Event::Connected { peer, .. }
            | Event::Disconnected { peer, .. }
            | Event::Suspect { peer, .. }
            | Event::Recovered { peer, .. }
            | Event::PeerRestarted { peer, .. }
            | Event::Repeated { peer, .. }
            | Event::Lost { peer, .. }
            | Event::Replacing { peer, .. }
            | Event::Replaced { peer, .. }
            | Event::ConnDegraded { peer, .. }
            | Event::ConnHealthy { peer, .. }
            | Event::PingIntervalLearned { peer, .. }
            | Event::PeerRetired { peer, .. }
            | Event::Refused { peer: Some(peer), .. } => Subject::Peer(*peer),
            Event::DialFailed { address, .. }
            | Event::Breaker { address, .. }
            | Event::AddressConflict { address, .. } => Subject::Dialled(address.clone()),
            Event::Refused { peer: None, addr, .. } => of_ban_target(BanTarget::at(addr.ip())),
            Event::Offended { who, .. } | Event::Unbanned { who } => of_ban_target(*who),
            Event::Banned { ban } => of_ban_target(ban.who),
        })
    }

    fn topic(&self) -> Option<Topic> {
        Some(match self {
            Event::Message(_) => return None,
            Event::LinkUp { .. } | Event::LinkDegraded { .. } | Event::LinkDown { .. } => Topic::Link,
            Event::Connected { conn, .. } => Topic::Joined(*conn),
            Event::Disconnected { conn, .. } => Topic::Ended(*conn),
            Event::Suspect { conn, .. } | Event::Recovered { conn, .. } => Topic::Suspicion(*conn),
            Event::ConnDegraded { conn, .. } | Event::ConnHealthy { conn, .. } => Topic::Quality(*conn),
            Event::Replacing { conn, .. } => Topic::Replacing(*conn),
            Event::Replaced { old, .. } => Topic::Replaced(*old),
            Event::PeerRestarted { .. } => Topic::Restarted,
            Event::Repeated { .. } => Topic::Repeated,
            Event::Lost { by_peer, .. } => Topic::Lost { by_peer: *by_peer },
            Event::PingIntervalLearned { .. } => Topic::PingInterval,
            Event::PeerRetired { .. } => Topic::Retired,
            Event::DialFailed { .. } => Topic::Dial,
            Event::AddressConflict { .. } => Topic::Conflict,
            Event::Breaker { .. } => Topic::Breaker,
            Event::Offended { .. } => Topic::Offended,
            Event::Refused { .. } => Topic::Refused,
            Event::Banned { .. } | Event::Unbanned { .. } => Topic::Ban,
        })
    }

    fn speaks_of(&self, conn: ConnId) -> bool {
        match self {
            Event::Replaced { old, new, .. } => *old == conn || *new == conn,
            Event::Connected { conn: its, .. }
            | Event::Disconnected { conn: its, .. }
            | Event::Suspect { conn: its, .. }
            | Event::Recovered { conn: its, .. }
            | Event::ConnDegraded { conn: its, .. }
            | Event::ConnHealthy { conn: its, .. }
            | Event::Replacing { conn: its, .. } => *its == conn,
            _ => false,
        }
    }

    /// Messages may be lost, or come twice: nobody finds that out by asking for the state of the node.
    fn tells_of_loss(&self) -> bool {
        matches!(self, Event::Lost { .. } | Event::PeerRestarted { .. } | Event::Repeated { .. })
    }

    /// Takes over what an earlier event of the same topic counted.
    fn absorb(&mut self, earlier: &Event) {
        match (self, earlier) {
            (Event::Lost { messages, .. }, Event::Lost { messages: before, .. })
            | (Event::Repeated { messages, .. }, Event::Repeated { messages: before, .. })
            | (Event::PeerRestarted { resent: messages, .. }, Event::PeerRestarted { resent: before, .. }) => {
                *messages = messages.saturating_add(*before);
            }
            _ => {}
        }
    }
}

fn of_ban_target(who: BanTarget) -> Subject {
    match who {
        BanTarget::Peer(peer) => Subject::Peer(peer),
        BanTarget::Address(addr) => Subject::Address(addr),
    }
}

/// The events of one class, by their numbers.
#[derive(Debug, Default)]
struct Waiting {
    events: BTreeMap<u64, Event>,
    /// Those that tell of no loss.
    droppable: BTreeSet<u64>,
}

impl Waiting {
    fn insert(&mut self, number: u64, event: Event) {
        if !event.tells_of_loss() {
            self.droppable.insert(number);
        }
        self.events.insert(number, event);
    }

    fn remove(&mut self, number: u64) -> Option<Event> {
        self.droppable.remove(&number);
        self.events.remove(&number)
    }

    fn least(&self) -> Option<u64> {
        self.droppable.first().or(self.events.keys().next()).copied()
    }
}

/// The events of one subject that wait.
#[derive(Debug)]
struct Pending {
    class: Class,
    numbers: Vec<u64>,
}

#[derive(Debug)]
pub(crate) struct EventQueue {
    max: usize,
    named: Waiting,
    strangers: Waiting,
    subjects: HashMap<Subject, Pending>,
    next: u64,
    dropped: u64,
}

impl EventQueue {
    pub(crate) fn new(max: usize) -> Self {
        EventQueue {
            max: max.max(1),
            named: Waiting::default(),
            strangers: Waiting::default(),
            subjects: HashMap::new(),
            next: 0,
            dropped: 0,
        }
    }

    pub(crate) fn push(&mut self, event: Event, class: Class) {
        let Some(subject) = event.subject() else { return };
        self.set_class(&subject, class);
        let number = self.next;
        self.next += 1;
        self.class_mut(class).insert(number, event);
        let pending = self.subjects.entry(subject.clone()).or_insert(Pending { class, numbers: Vec::new() });
        pending.numbers.push(number);
        if pending.numbers.len() > MERGED_FROM {
            self.merge(&subject);
        }
        while self.len() > self.max {
            let half = self.max / 2;
            let class = if self.strangers.events.len() > half { Class::Stranger } else { Class::Named };
            self.drop_least(class);
        }
    }

    pub(crate) fn has(&self, class: Class) -> bool {
        !self.class(class).events.is_empty()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn pop(&mut self, class: Class) -> Option<Event> {
        let number = *self.class(class).events.keys().next()?;
        self.remove(class, number)
    }

    /// The number of the next event: those that wait have smaller ones.
    pub(crate) fn next_number(&self) -> u64 {
        self.next
    }

    /// The next event of this subject, if it is older than the event of this number.
    pub(crate) fn pop_before(&mut self, subject: &Subject, number: u64) -> Option<Event> {
        let pending = self.subjects.get(subject)?;
        let first = pending.numbers.first().copied().filter(|first| *first < number)?;
        self.remove(pending.class, first)
    }

    /// How many events were dropped. Those that were merged do not count.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    fn len(&self) -> usize {
        self.named.events.len() + self.strangers.events.len()
    }

    fn class(&self, class: Class) -> &Waiting {
        match class {
            Class::Named => &self.named,
            Class::Stranger => &self.strangers,
        }
    }

    fn class_mut(&mut self, class: Class) -> &mut Waiting {
        match class {
            Class::Named => &mut self.named,
            Class::Stranger => &mut self.strangers,
        }
    }

    /// Moves the events of this subject to this class.
    fn set_class(&mut self, subject: &Subject, class: Class) {
        let Some(pending) = self.subjects.get_mut(subject) else { return };
        let before = std::mem::replace(&mut pending.class, class);
        if before == class {
            return;
        }
        for number in pending.numbers.clone() {
            if let Some(event) = self.class_mut(before).remove(number) {
                self.class_mut(class).insert(number, event);
            }
        }
    }

    fn remove(&mut self, class: Class, number: u64) -> Option<Event> {
        let event = self.class_mut(class).remove(number)?;
        let subject = event.subject()?;
        if let Some(pending) = self.subjects.get_mut(&subject) {
            pending.numbers.retain(|other| *other != number);
            if pending.numbers.is_empty() {
                self.subjects.remove(&subject);
            }
        }
        Some(event)
    }

    fn drop_least(&mut self, class: Class) {
        if let Some(least) = self.class(class).least() {
            self.remove(class, least);
            self.dropped += 1;
        }
    }

    fn merge(&mut self, subject: &Subject) {
        let Some(Pending { class, numbers }) = self.subjects.remove(subject) else { return };
        let waiting = self.class_mut(class);
        let taken = numbers.iter().filter_map(|number| Some((*number, waiting.remove(*number)?))).collect();
        let mut left = merged(taken);
        while left.len() > MAX_PER_SUBJECT {
            let least = left.iter().position(|(_, event)| !event.tells_of_loss()).unwrap_or(0);
            left.remove(least);
            self.dropped += 1;
        }
        let numbers = left.iter().map(|(number, _)| *number).collect();
        let waiting = self.class_mut(class);
        left.into_iter().for_each(|(number, event)| waiting.insert(number, event));
        self.subjects.insert(subject.clone(), Pending { class, numbers });
    }
}

/// The events of one subject, merged; see the table above.
fn merged(mut events: Vec<(u64, Event)>) -> Vec<(u64, Event)> {
    let of = |events: &[(u64, Event)], pick: fn(&Event) -> Option<ConnId>| -> Vec<ConnId> {
        events.iter().filter_map(|(_, event)| pick(event)).collect()
    };
    let joined = of(&events, |event| match event {
        Event::Connected { conn, .. } => Some(*conn),
        _ => None,
    });
    let ended = of(&events, |event| match event {
        Event::Disconnected { conn, .. } => Some(*conn),
        _ => None,
    });
    let unseen: Vec<_> = joined.into_iter().filter(|conn| ended.contains(conn)).collect();
    events.retain(|(_, event)| !unseen.iter().any(|conn| event.speaks_of(*conn)));
    let mut left: Vec<(u64, Event)> = Vec::new();
    for (number, mut event) in events {
        if let Some(stale) = left.iter().position(|(_, earlier)| earlier.topic() == event.topic()) {
            event.absorb(&left.remove(stale).1);
        }
        left.push((number, event));
    }
    left
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::error::{EndCause, EndReason, Initiator};
    use crate::id::Incarnation;

    fn peer(name: u8) -> PeerId {
        PeerId::from_bytes([name; 32])
    }

    fn connected(name: u8, conn: u64) -> Event {
        let addr = "127.0.0.1:1".parse().unwrap();
        Event::Connected { peer: peer(name), conn: ConnId(conn), addr, dialled: false }
    }

    fn disconnected(name: u8, conn: u64) -> Event {
        let reason = EndReason::new(Initiator::Peer, EndCause::Closed);
        Event::Disconnected { peer: peer(name), conn: ConnId(conn), reason }
    }

    fn up(name: u8) -> Event {
        Event::LinkUp { peer: peer(name), incarnation: Incarnation(1), after: None }
    }

    fn down(name: u8) -> Event {
        Event::LinkDown { peer: peer(name), reason: EndReason::new(Initiator::Peer, EndCause::Closed) }
    }

    fn lost(name: u8, messages: usize) -> Event {
        Event::Lost { peer: peer(name), messages, by_peer: true }
    }

    fn drain(queue: &mut EventQueue, class: Class) -> Vec<String> {
        std::iter::from_fn(|| queue.pop(class)).map(|event| format!("{event:?}")).collect()
    }

    #[test]
    fn a_few_events_come_out_as_they_went_in() {
        let mut queue = EventQueue::new(100);
        let story = || [connected(1, 1), up(1), connected(2, 2), down(1), disconnected(1, 1), lost(1, 3)];
        story().into_iter().for_each(|event| queue.push(event, Class::Named));
        let expected: Vec<_> = story().iter().map(|event| format!("{event:?}")).collect();
        assert_eq!(drain(&mut queue, Class::Named), expected);
        assert!(queue.is_empty() && queue.subjects.is_empty());
    }

    #[test]
    fn a_peer_that_flaps_has_a_bounded_number_of_events_and_the_last_state_is_told() {
        let mut queue = EventQueue::new(4096);
        queue.push(disconnected(1, 7), Class::Stranger); // Its connection was told of before.
        for conn in 100..1_100 {
            for event in [connected(1, conn), up(1), lost(1, 2), down(1), disconnected(1, conn)] {
                queue.push(event, Class::Stranger);
                assert!(queue.len() <= MAX_PER_SUBJECT);
            }
        }
        queue.push(connected(1, 2_000), Class::Stranger);
        queue.push(up(1), Class::Stranger);
        assert_eq!(queue.dropped(), 0);
        let mut told = (0, Vec::new(), Vec::new());
        while let Some(event) = queue.pop(Class::Stranger) {
            match event {
                Event::Lost { messages, .. } => told.0 += messages,
                Event::Connected { conn, .. } => told.1.push(conn.0),
                Event::Disconnected { conn, .. } => told.2.push(conn.0),
                Event::LinkUp { .. } | Event::LinkDown { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(told.0, 2_000, "no loss goes untold");
        // A program that keeps a list by these events has the right one at the end: 2,000 and nothing else.
        assert!(told.2.contains(&7) && told.1.contains(&2_000));
        assert!(told.1.iter().filter(|conn| !told.2.contains(conn)).eq([&2_000]));
    }

    #[test]
    fn strangers_do_not_drive_out_the_events_of_named_peers() {
        let mut queue = EventQueue::new(10);
        (0..4).for_each(|conn| queue.push(connected(1, conn), Class::Named));
        (10..210).for_each(|name| queue.push(up(name), Class::Stranger));
        assert_eq!(queue.len(), 10);
        assert_eq!(drain(&mut queue, Class::Named).len(), 4);
        assert_eq!(drain(&mut queue, Class::Stranger).len(), 6);
        assert_eq!(queue.dropped(), 194);
        // Nor the other way round.
        (0..3).for_each(|name| queue.push(up(name), Class::Stranger));
        (10..210).for_each(|name| queue.push(up(name), Class::Named));
        assert_eq!(drain(&mut queue, Class::Stranger).len(), 3);
        assert_eq!(drain(&mut queue, Class::Named).len(), 7);
    }

    #[test]
    fn events_of_losses_are_dropped_last() {
        let mut queue = EventQueue::new(8);
        queue.push(lost(1, 5), Class::Stranger);
        (0..100).for_each(|name| queue.push(up(name), Class::Stranger));
        assert!(drain(&mut queue, Class::Stranger).first().unwrap().starts_with("Lost"));
        // Only among its like the oldest goes.
        (0..20).for_each(|name| queue.push(lost(name, 1), Class::Stranger));
        let left = drain(&mut queue, Class::Stranger);
        assert!(left.len() == 8 && left[0].contains(&format!("{:?}", peer(12))), "{left:?}");
    }

    #[test]
    fn a_peer_that_is_named_takes_its_events_along() {
        let mut queue = EventQueue::new(100);
        queue.push(connected(1, 1), Class::Stranger);
        queue.push(up(2), Class::Named);
        queue.push(up(1), Class::Named);
        let told = drain(&mut queue, Class::Named);
        assert!(told[0].starts_with("Connected") && told[1].starts_with("LinkUp") && told.len() == 3);
        assert!(!queue.has(Class::Stranger));
        queue.push(down(1), Class::Stranger);
        let told = queue.next_number();
        queue.push(up(1), Class::Stranger);
        assert!(queue.pop_before(&Subject::Peer(peer(2)), told).is_none());
        assert!(queue.pop_before(&Subject::Peer(peer(1)), told).is_some());
        assert!(queue.pop_before(&Subject::Peer(peer(1)), told).is_none(), "it was told afterwards");
    }

    fn any_event() -> impl Strategy<Value = Event> {
        (0..6u8, 0..4u64, 0..9u8).prop_map(|(name, conn, kind)| match kind {
            0 => connected(name, conn),
            1 => disconnected(name, conn),
            2 => up(name),
            3 => down(name),
            4 => lost(name, 1),
            5 => Event::Suspect { peer: peer(name), conn: ConnId(conn) },
            6 => Event::Replaced { peer: peer(name), old: ConnId(conn), new: ConnId(conn + 1) },
            7 => Event::Unbanned { who: BanTarget::Address([127, 0, 0, name].into()) },
            _ => Event::PingIntervalLearned { peer: peer(name), ping_interval: Duration::from_secs(conn) },
        })
    }

    proptest! {
        /// Whatever comes: the bounds hold, the books agree, and no loss goes untold while there is room for it.
        #[test]
        fn the_bounds_hold(
            max in 1usize..60,
            steps in prop::collection::vec((any_event(), any::<bool>(), 0..4u8), 1..400),
        ) {
            let mut queue = EventQueue::new(max);
            let (mut lost, mut told) = (0, 0);
            for (event, named, pops) in steps {
                lost += usize::from(matches!(event, Event::Lost { .. }));
                queue.push(event, if named { Class::Named } else { Class::Stranger });
                for _ in 0..pops.saturating_sub(2) {
                    let popped = queue.pop(Class::Named).or_else(|| queue.pop(Class::Stranger));
                    if let Some(Event::Lost { messages, .. }) = popped {
                        told += messages;
                    }
                }
                prop_assert!(queue.len() <= max);
                let listed: usize = queue.subjects.values().map(|pending| pending.numbers.len()).sum();
                prop_assert_eq!(listed, queue.len());
                for (subject, pending) in &queue.subjects {
                    prop_assert!(!pending.numbers.is_empty() && pending.numbers.len() <= MAX_PER_SUBJECT);
                    for number in &pending.numbers {
                        let event = queue.class(pending.class).events.get(number);
                        prop_assert_eq!(event.and_then(Event::subject), Some(subject.clone()));
                    }
                }
            }
            for class in [Class::Named, Class::Stranger] {
                while let Some(event) = queue.pop(class) {
                    if let Event::Lost { messages, .. } = event {
                        told += messages;
                    }
                }
            }
            // Six subjects can lose by one kind each: with room for them on both sides none is dropped.
            prop_assert!(told == lost || max < 24, "{} of {}", told, lost);
        }
    }
}
