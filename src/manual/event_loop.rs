//! Guide: the event loop of a node.
//!
//! # Threads
//! The library has threads of its own and calls none of the application's code on them, with two exceptions:
//! the hook of [`Builder::admit`](crate::Builder::admit), and the application's logger. Everything else
//! happens on the application's threads, in calls of [`Node`](crate::Node). A node can be cloned and used
//! from any number of threads at once.
//!
//! The smallest program receives on one thread and sends from others:
//!
//! ```
//! use std::thread;
//! use std::time::Duration;
//! use unbroken::{Event, Node, URGENT};
//!
//! let bob = Node::builder().listen("127.0.0.1:0".parse()?).start()?;
//! let alice = Node::builder().peer(bob.local_addrs()[0].to_string()).start()?;
//! alice.wait_linked(bob.id(), Duration::from_secs(30))?;
//!
//! let receiving = bob.clone();
//! let receiver = thread::spawn(move || {
//!     for event in receiving.events() {
//!         match event {
//!             Event::Message(message) => return Some(message.into_bytes()),
//!             // Log everything else at first; the table below says what is worth acting upon.
//!             other => eprintln!("{other:?}"),
//!         }
//!     }
//!     None // The node has shut down.
//! });
//! alice.send(bob.id(), (URGENT, "vote"))?.wait();
//! assert_eq!(receiver.join().unwrap().unwrap(), "vote");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Never `send` from the thread that receives
//! [`Node::send`](crate::Node::send) waits while the peer's queue is full, and it is full until the peer's
//! application receives. If both applications send from the thread that also receives, both can wait for
//! ever: the same as two threads with two bounded channels between them. There are three ways out:
//!
//! - receive on one thread and send from others, as above;
//! - [`Node::try_send`](crate::Node::try_send), which returns the message when there is no room, or
//!   [`Node::broadcast`](crate::Node::broadcast), which never waits;
//! - [`Node::send_or_recv`](crate::Node::send_or_recv), which receives while it waits.
//!
//! # With other channels
//! A node that also has timers and channels selects over all of them. Each receiver has a channel `ready`
//! with a token when there may be something; one token may stand for many messages:
//!
//! ```
//! use std::time::Duration;
//! use unbroken::crossbeam_channel::{after, select, unbounded};
//! use unbroken::{Event, NORMAL, Node};
//!
//! let bob = Node::builder().listen("127.0.0.1:0".parse()?).start()?;
//! let alice = Node::builder().peer(bob.local_addrs()[0].to_string()).start()?;
//! alice.wait_linked(bob.id(), Duration::from_secs(30))?;
//!
//! let (commands, inbox) = unbounded();
//! commands.send("propose")?;
//! let mut round_ends = after(Duration::from_millis(50));
//! let (mut messages, mut rounds) = (0, 0);
//! while messages == 0 || rounds == 0 {
//!     select! {
//!         recv(bob.ready()) -> _ => while let Some(event) = bob.try_recv()? {
//!             messages += usize::from(matches!(event, Event::Message(_)));
//!         },
//!         recv(inbox) -> command => {
//!             alice.try_send(bob.id(), (NORMAL, command?))?;
//!         }
//!         recv(round_ends) -> _ => {
//!             rounds += 1;
//!             round_ends = after(Duration::from_millis(50));
//!         }
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Several receivers
//! [`Node::lane_receiver`](crate::Node::lane_receiver) moves a lane from `Node::recv` to a
//! thread of its own, and [`Node::event_receiver`](crate::Node::event_receiver) does so with the events that
//! are no messages. The order then:
//!
//! - Messages of one peer on one lane come in the order in which they were sent, as long as one thread
//!   receives that lane. Two threads that call `recv` on the same receiver share the messages, and which of
//!   them is done first with its message is open.
//! - Between lanes there is no order, with one receiver or with several.
//! - With one receiver an event about a peer that came before its message is returned before that message.
//!   With an event receiver of its own a message may be received before the event that tells of its peer's
//!   link.
//!
//! # What keeps a node alive
//! The node shuts down when its last clone is dropped, without grace. A
//! [`PeerHandle`](crate::PeerHandle) holds a clone. A [`LaneReceiver`](crate::LaneReceiver), an
//! [`EventReceiver`](crate::EventReceiver), a [`Message`](crate::Message), a [`Receipt`](crate::Receipt) and
//! a [`PendingReply`](crate::PendingReply) do not: after the end they return errors or their last state. To
//! flush what was sent call [`Node::shutdown`](crate::Node::shutdown) with a grace; threads that wait in
//! `recv` return [`Closed`](crate::Closed) then.
//!
//! # Each event and what to do
//! Most events need nothing: the library acts by itself, and the event is for the log. Those in bold are for
//! the operator.
//!
//! | event | what the application may do |
//! |---|---|
//! | `Message` | process it; drop it soon on lanes with `AckMode::Done` |
//! | `LinkUp` | tell a newcomer where you stand, as with a status message; count quorums by it |
//! | `LinkDegraded`, `LinkDown` | nothing: messages wait, and the library dials. Choose another peer for what is urgent |
//! | `PeerRestarted` | expect questions that were answered before; forget what its earlier life had promised |
//! | `Repeated` | ignore messages that were processed before: they are among the first of their lanes |
//! | **`Lost`** | the conversation was given up: synchronise with the peer anew |
//! | `Connected`, `Disconnected`, `Suspect`, `Recovered`, `Replacing`, `Replaced`, `ConnDegraded`, `ConnHealthy` | log; many of them for one peer speak of its path |
//! | `PingIntervalLearned` | log: something on the path forgets idle connections |
//! | `DialFailed` | log; it names the reason, and when the next attempt comes. Repeated `RefusedByPeer`: see its reason |
//! | **`AddressConflict`** | correct the configuration: an address leads to another node than the one it stands for |
//! | **`Refused`** with `IdentityInUse` | two processes run with one identity: stop one |
//! | `Refused` otherwise | log; raise a limit if honest peers are refused |
//! | `Offended`, `Banned`, `Unbanned` | log; share with other nodes if you trust each other |
//! | `PeerRetired` | nothing: a better candidate took its place |
//! | `Breaker` | log: dials of an address fail again and again, or succeed again |
