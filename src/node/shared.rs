//! The state that the links and the node share.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use log::Level;
use parking_lot::Condvar;

use crate::config::Config;
use crate::error::EndReason;
use crate::id::{ConnId, PeerId};
use crate::link::{Notice, cost_of};
use crate::lock::{Guard, LEAF, Ordered};
use crate::roster::TargetId;
use crate::wire::chunk_pool::ChunkPool;

use super::agenda::Agenda;
use super::background::Background;
use super::budget::Budget;
use super::event::Event;
use super::event_queue::{Class, Subject};
use super::fan_out::FanOut;
use super::mailbox::Mailbox;
use super::named::{About, NamedPeers};
use super::received::Received;
use super::shares::Shares;

/// A report to the monitor.
#[derive(Debug)]
pub(crate) enum Report {
    Link(PeerId, Notice),
    /// A connection's threads are done. `proven`: something of ours was answered over it; `proof`: its
    /// place in the pool, if the roster was not told so yet.
    Ended {
        peer: PeerId,
        conn: ConnId,
        reason: EndReason,
        proven: bool,
        proof: Option<u8>,
        /// Its place in the pool, if it answered and carried something.
        useful: Option<u8>,
    },
    Dialled {
        target: TargetId,
        slot: u8,
        peer: PeerId,
        address: String,
        /// The one of its addresses that led there.
        addr: SocketAddr,
    },
    /// Not the peer answered for whom the dial was made.
    WrongPeer {
        target: TargetId,
        address: String,
        expected: PeerId,
        found: PeerId,
    },
    DialFailed {
        target: TargetId,
        slot: u8,
        /// The peer that the dial was made for, or else the one that refused it, or else the one that was
        /// linked by it before.
        peer: Option<PeerId>,
        label: Option<String>,
        address: String,
        reason: EndReason,
    },
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) mailbox: Mailbox,
    /// When the monitor looks at which link.
    pub(crate) agenda: Agenda,
    pub(crate) named: NamedPeers,
    /// Bytes in the queues of all links.
    pub(crate) queued: Budget,
    pub(crate) background: Arc<Background>,
    pub(crate) fan_out: Arc<FanOut>,
    /// Protects what the monitor has not looked at yet.
    reports: Ordered<Vec<Report>, LEAF>,
    /// Bytes of received messages that were not taken, over all links.
    pub(crate) received: Received,
    pub(crate) chunks: ChunkPool,
    /// For those who wait until queues are empty, connections gone or links up; counts the occasions.
    progress: Ordered<u64, LEAF>,
    progressed: Condvar,
}

impl Shared {
    pub(crate) fn new(config: &Config, fan_out: Arc<FanOut>) -> Self {
        Shared {
            mailbox: Mailbox::new(&config.lanes, config.max_events),
            agenda: Agenda::new(),
            named: NamedPeers::default(),
            queued: Budget::new(queue_shares(config)),
            background: Arc::default(),
            fan_out,
            reports: Ordered::default(),
            received: Received::new(config.max_inbox, largest_unfinished(config)),
            // As much as one busy peer may have in the inboxes.
            chunks: ChunkPool::new(config.lanes.iter().fold(0, |sum, lane| lane.window.saturating_add(sum))),
            progress: Ordered::default(),
            progressed: Condvar::new(),
        }
    }

    /// Tells the application about a peer, or an address that was banned.
    pub(crate) fn tell(&self, event: Event) {
        let class = match event.subject() {
            Some(Subject::Peer(peer)) => self.named.class_of(peer),
            _ => Class::Stranger,
        };
        self.mailbox.push_event(event, class);
    }

    /// Writes a line about this peer to the log, which begins with its label and its id; see [`Background`].
    pub(crate) fn log(&self, peer: PeerId, level: Level, line: fmt::Arguments<'_>) {
        if level > log::max_level() {
            return;
        }
        let about = About { label: self.named.label_of(peer), peer: Some(peer) };
        self.background.log(self.named.class_of(peer), level, format_args!("{about}{line}"));
    }

    pub(crate) fn report(&self, report: Report) {
        self.reports.lock().push(report);
        self.agenda.wake();
    }

    pub(crate) fn take_reports(&self) -> Vec<Report> {
        std::mem::take(&mut self.reports.lock())
    }

    pub(crate) fn progress(&self) {
        *self.progress.lock() += 1;
        self.progressed.notify_all();
    }

    /// Waits until `done`, looked at again after each progress. False when the time is over.
    pub(crate) fn wait_until(&self, deadline: Instant, done: impl Fn() -> bool) -> bool {
        loop {
            let seen = *self.progress.lock();
            if done() {
                return true;
            }
            let mut count = self.progress.lock();
            while *count == seen {
                if !Guard::wait_until(&mut count, &self.progressed, deadline) {
                    drop(count);
                    return done();
                }
            }
        }
    }
}

fn queue_shares(config: &Config) -> Shares {
    let largest = config.lanes.iter().map(|lane| cost_of(lane.max_message)).max().unwrap_or(0);
    Shares::new(config.max_queued, largest, config.max_queued_per_peer)
}

/// The most bytes of unfinished messages that one link can hold.
fn largest_unfinished(config: &Config) -> usize {
    config.lanes.iter().map(|lane| cost_of(lane.max_message)).sum()
}
