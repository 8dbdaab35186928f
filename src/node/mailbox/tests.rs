use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::*;
use crate::error::SendError;
use crate::id::Incarnation;
use crate::lane::{AckMode, LaneId, NORMAL, URGENT};
use crate::link::Ticket;
use crate::lock::LEAF;
use crate::node::budget::Wait;
use crate::node::message::{Message, Origin};
use crate::node::outgoing::Outgoing;
use crate::receipt::Receipt;

const TIMEOUT: Duration = Duration::from_secs(30);

/// A link with nothing but inboxes.
struct Inboxes {
    peer: PeerId,
    listed: AtomicU64,
    lanes: Vec<Lock<VecDeque<u64>, LEAF>>,
    /// Runs once, when messages have been taken out of an inbox and the mailbox does not know yet how many
    /// are left.
    in_between: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl std::fmt::Debug for Inboxes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Inboxes({:?})", self.peer)
    }
}

impl Source for Inboxes {
    fn peer(&self) -> PeerId {
        self.peer
    }

    fn listed(&self) -> &AtomicU64 {
        &self.listed
    }

    fn take(self: Arc<Self>, lane: usize, max: usize, taken: Taken<'_>) -> bool {
        let mut inbox = self.lanes[lane].lock();
        let count = max.min(inbox.len());
        let numbers: Vec<u64> = inbox.drain(..count).collect();
        let more = !inbox.is_empty();
        drop(inbox);
        if let Some(in_between) = self.in_between.lock().take() {
            in_between();
        }
        let messages = numbers.into_iter().map(|number| Message {
            origin: Arc::clone(&self) as Arc<dyn Origin>,
            lane: LaneId(lane as u8),
            index: lane as u8,
            incarnation: Incarnation(1),
            payload: Bytes::copy_from_slice(&number.to_le_bytes()).into(),
            request: None,
            ticket: Ticket { epoch: 0, number, bytes: 8 },
            ack_mode: AckMode::Received,
        });
        match taken {
            Taken::Events(taken) => taken.extend(messages.map(Event::Message)),
            Taken::Messages(taken) => taken.extend(messages),
        }
        more
    }
}

impl Origin for Inboxes {
    fn peer(&self) -> PeerId {
        self.peer
    }

    fn is_request_open(&self, _: u64, _: Ticket) -> bool {
        unreachable!("no requests here")
    }

    fn reply(self: Arc<Self>, _: u64, _: Ticket, _: Outgoing, _: Wait) -> Result<Receipt, SendError> {
        unreachable!("no requests here")
    }

    fn abandon(&self, _: u64, _: Ticket) {
        unreachable!("no requests here")
    }

    fn done(self: Arc<Self>, _: usize, _: Ticket) {
        unreachable!("no lane waits for it")
    }
}

fn source(number: u8) -> Arc<Inboxes> {
    Arc::new(Inboxes {
        peer: PeerId::from_bytes([number; 32]),
        listed: AtomicU64::new(0),
        lanes: LaneConfig::defaults().iter().map(|_| Lock::default()).collect(),
        in_between: Mutex::default(),
    })
}

fn mailbox() -> Mailbox {
    Mailbox::new(&LaneConfig::defaults(), 1000)
}

fn arrive(mailbox: &Mailbox, source: &Arc<Inboxes>, lane: LaneId, numbers: impl IntoIterator<Item = u64>) {
    let index = usize::from(lane.0);
    source.lanes[index].lock().extend(numbers);
    mailbox.announce(Arc::clone(source) as Arc<dyn Source>, 1 << index);
}

fn number(message: &Message) -> u64 {
    u64::from_le_bytes(message.payload().clone().into_bytes()[..].try_into().unwrap())
}

/// An event of its own subject each, so that nothing is merged.
fn event(number: u8) -> Event {
    Event::LinkDegraded { peer: PeerId::from_bytes([number; 32]) }
}

/// Takes one by one: `u` is an urgent message, `n` a normal one, `e` an event.
fn order(mailbox: &Mailbox, reader: Reader) -> String {
    let one = || mailbox.take::<Event>(reader, 1).unwrap().pop();
    std::iter::from_fn(one)
        .map(|taken| match taken {
            Event::Message(message) if message.lane() == URGENT => 'u',
            Event::Message(_) => 'n',
            _ => 'e',
        })
        .collect()
}

#[test]
fn urgent_messages_go_first_and_others_get_a_turn() {
    let (mailbox, source) = (mailbox(), source(1));
    arrive(&mailbox, &source, NORMAL, 0..3);
    arrive(&mailbox, &source, URGENT, 0..40);
    let run = "u".repeat(FAIRNESS_RUN);
    assert_eq!(order(&mailbox, Reader::Everything), format!("{run}n{run}n{}n", "u".repeat(8)));
}

#[test]
fn events_about_named_peers_take_turns_with_messages() {
    let (mailbox, source) = (mailbox(), source(1));
    arrive(&mailbox, &source, URGENT, 0..3);
    (10..15).for_each(|number| mailbox.push_event(event(number), Class::Named));
    assert_eq!(order(&mailbox, Reader::Everything), "eueueuee");
}

#[test]
fn events_about_strangers_wait_for_a_run_of_messages() {
    let (mailbox, source) = (mailbox(), source(1));
    arrive(&mailbox, &source, URGENT, 0..20);
    (10..12).for_each(|number| mailbox.push_event(event(number), Class::Stranger));
    let run = "u".repeat(FAIRNESS_RUN);
    assert_eq!(order(&mailbox, Reader::Everything), format!("{run}e{}e", "u".repeat(4)));
}

#[test]
fn an_event_that_came_before_the_messages_of_its_peer_goes_before_them() {
    let (mailbox, source) = (mailbox(), source(1));
    mailbox.push_event(event(1), Class::Stranger);
    mailbox.push_event(event(2), Class::Stranger);
    arrive(&mailbox, &source, URGENT, 0..2);
    let taken = mailbox.take::<Event>(Reader::Everything, 10).unwrap();
    assert!(matches!(&taken[0], Event::LinkDegraded { peer } if *peer == source.peer), "{taken:?}");
    assert!(matches!(&taken[1..3], [Event::Message(_), Event::Message(_)]), "{taken:?}");
}

#[test]
fn links_take_turns_in_the_order_in_which_their_messages_arrived() {
    let mailbox = mailbox();
    let sources: Vec<_> = (1..=3).map(source).collect();
    for source in &sources {
        arrive(&mailbox, source, URGENT, 0..2);
        // The link is in the list already.
        arrive(&mailbox, source, URGENT, 2..3);
    }
    let peers: Vec<_> = std::iter::from_fn(|| mailbox.take::<Event>(Reader::Everything, 1).unwrap().pop())
        .map(|taken| match taken {
            Event::Message(message) => message.peer().as_bytes()[0],
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(peers, [1, 2, 3, 1, 2, 3, 1, 2, 3]);
}

#[test]
fn a_claimed_lane_and_claimed_events_go_to_their_own_receivers() {
    let (mailbox, source) = (mailbox(), source(1));
    arrive(&mailbox, &source, URGENT, 0..1);
    assert!(mailbox.claim(0));
    assert!(!mailbox.claim(0), "it has a receiver");
    assert!(mailbox.claim_events());
    assert!(!mailbox.claim_events(), "they have a receiver");
    arrive(&mailbox, &source, URGENT, 1..3);
    arrive(&mailbox, &source, NORMAL, 0..1);
    mailbox.push_event(event(1), Class::Named);
    assert_eq!(order(&mailbox, Reader::Everything), "n");
    assert!(mailbox.ready(Reader::Lane(0)).try_recv().is_ok());
    assert!(mailbox.ready(Reader::Events).try_recv().is_ok());
    assert_eq!(order(&mailbox, Reader::Lane(0)), "uuu");
    assert_eq!(order(&mailbox, Reader::Events), "e");
    mailbox.unclaim(0);
    mailbox.unclaim_events();
    arrive(&mailbox, &source, URGENT, 0..1);
    mailbox.push_event(event(1), Class::Named);
    assert_eq!(order(&mailbox, Reader::Everything), "eu");
}

#[test]
fn a_closed_mailbox_gives_out_events_and_no_messages_and_wakes_every_waiter() {
    let (mailbox, source) = (mailbox(), source(1));
    let start = Barrier::new(5);
    thread::scope(|scope| {
        let waiters: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    while mailbox.wait::<Event>(Reader::Everything, 1, None).is_ok() {}
                })
            })
            .collect();
        start.wait();
        mailbox.close();
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
    });
    arrive(&mailbox, &source, URGENT, 0..1);
    mailbox.push_event(event(1), Class::Named);
    let taken = mailbox.take::<Event>(Reader::Everything, 10).unwrap();
    assert!(matches!(&taken[..], [Event::LinkDegraded { .. }]), "{taken:?}");
    assert_eq!(mailbox.take::<Event>(Reader::Everything, 10).unwrap_err(), Closed);
}

#[test]
fn a_message_that_arrives_while_others_are_taken_is_listed_again() {
    let (mailbox, source) = (Arc::new(mailbox()), source(1));
    arrive(&mailbox, &source, URGENT, [1]);
    let (its_mailbox, its_source) = (Arc::clone(&mailbox), Arc::clone(&source));
    *source.in_between.lock() = Some(Box::new(move || arrive(&its_mailbox, &its_source, URGENT, [2])));
    assert_eq!(order(&mailbox, Reader::Everything), "uu");
}

#[test]
fn threads_that_announce_and_threads_that_take_leave_no_message_behind() {
    const SOURCES: u8 = 4;
    const EACH: u64 = 5_000;
    let mailbox = mailbox();
    let all = usize::from(SOURCES) * EACH as usize;
    let taken = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for number in 1..=SOURCES {
            let mailbox = &mailbox;
            scope.spawn(move || {
                let source = source(number);
                (0..EACH).for_each(|number| arrive(mailbox, &source, LaneId((number % 2) as u8), [number]));
            });
        }
        for _ in 0..3 {
            scope.spawn(|| {
                let deadline = Instant::now() + TIMEOUT;
                while let Ok(events) = mailbox.wait(Reader::Everything, 7, Some(deadline)) {
                    assert!(!events.is_empty(), "{} of {all} after {TIMEOUT:?}", taken.lock().len());
                    let mut taken = taken.lock();
                    taken.extend(events.into_iter().map(|event| match event {
                        Event::Message(message) => (message.peer(), number(&message)),
                        other => panic!("{other:?}"),
                    }));
                    if taken.len() >= all {
                        mailbox.close();
                    }
                }
            });
        }
    });
    let mut taken = taken.into_inner();
    assert_eq!(taken.len(), all);
    taken.sort_unstable();
    taken.dedup();
    assert_eq!(taken.len(), all, "each once");
}

#[cfg(shuttle)]
mod every_interleaving {
    use shuttle::check_dfs;
    use shuttle::thread;

    use super::*;

    /// Messages arrive while another thread takes: none is left where nobody looks.
    #[test]
    fn no_message_is_left_in_an_inbox_that_is_not_listed() {
        check_dfs(
            || {
                let (mailbox, source) = (Arc::new(mailbox()), source(1));
                let arrives = thread::spawn({
                    let (mailbox, source) = (Arc::clone(&mailbox), Arc::clone(&source));
                    move || (1..=2).for_each(|number| arrive(&mailbox, &source, URGENT, [number]))
                });
                let mut taken = mailbox.take::<Event>(Reader::Everything, 2).unwrap();
                arrives.join().unwrap();
                taken.extend(mailbox.take(Reader::Everything, 2).unwrap());
                assert_eq!(taken.len(), 2);
                assert!(mailbox.main.ready.try_recv().is_ok(), "nobody would have been woken");
            },
            None,
        );
    }
}
