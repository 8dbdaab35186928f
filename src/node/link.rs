//! A link with its lock, and what its effects mean for the threads around it. For what the application does
//! with it, and what its connections do, are modules of their own.

pub(super) mod allowance;
mod application;
mod connections;
mod line;
mod receiving;

pub(crate) use application::Intent;

use line::Line;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Condvar;

use crate::clock;
use crate::config::PathConfig;
use crate::conn::{ConnHandle, tcp_info};
use crate::error::{EndCause, EndReason, Initiator};
use crate::id::{ConnId, PeerId};
use crate::link::{CloseReason, ConnSample, Link, Notice, Output, ReplyResult, Settings};
use crate::lock::{Guard, LINK, Ordered};
use crate::outcome::RequestError;
use crate::promise::Promise;
use crate::receipt::{EndedRun, ReceiptToken, Receipts};
use crate::roster::{LinkView, ReplaceReason};
use crate::sync::atomic::AtomicU64;

use super::agenda::Entry;
use super::budget::Turn;
use super::event_queue::Class;
use super::mailbox::Source;
use super::outgoing::Outgoing;
use super::shared::{Report, Shared};
use super::shares::AccountId;

/// Where a reply is waited for.
pub(crate) type Waiter = Arc<Promise<ReplyResult>>;
type LinkOutput = Output<ReceiptToken, Waiter, Arc<ConnHandle>>;

pub(crate) struct LinkHandle {
    pub(crate) peer: PeerId,
    pub(crate) shared: Arc<Shared>,
    /// The account of its queues in the node's budget, and of its inboxes in theirs; names the link, too.
    pub(crate) account: AccountId,
    /// Protects the conversation. Held for computations only, never across a system call.
    core: Ordered<LinkInner, LINK>,
    /// A connection joined, ended, or was heard of while it is probed.
    changed: Condvar,
    /// Lanes (bit = index) that the mailbox has in its lists.
    listed: AtomicU64,
    /// When the monitor looks at it.
    entry: Entry,
    /// It accepts nothing any more.
    ended: AtomicBool,
}

pub(crate) struct LinkInner {
    pub(crate) link: Link<ReceiptToken, Waiter, Arc<ConnHandle>>,
    receipts: Receipts,
    /// Bodies of messages that were copied, until one of them has ended.
    copied: Vec<Bytes>,
    /// The behaviour towards this peer.
    pub(crate) path: PathConfig,
    /// What follows from a call that sends: nothing as a rule. Empty when the lock is free.
    output: LinkOutput,
    /// For each lane the senders that wait for room.
    lines: Vec<Line>,
    /// Bytes of the node's budget that the link has: for what is queued, and for messages to come.
    reserved: usize,
    /// Whether new credit is withheld.
    withheld: bool,
    /// Newcomers that wait until the connections of another life of the peer have answered, or not.
    probing: u32,
    /// How often something was heard while they waited.
    heard: u64,
    /// The history of the link.
    pub(crate) life: Life,
}

impl LinkInner {
    /// The body of a message that was accepted: dropped where code of the application may run, if it has any.
    /// Not on the thread that sends, which may hold a lock that this code takes.
    fn let_go(&mut self, message: &mut Outgoing) {
        if let Some(body) = message.take_owned() {
            self.copied.push(body);
        }
    }

    /// The connections that have not ended.
    pub(crate) fn handles(&self) -> Vec<Arc<ConnHandle>> {
        self.link.handles().map(Arc::clone).collect()
    }

    /// Bytes that are reserved for messages to come.
    fn ahead(&self) -> usize {
        self.reserved.saturating_sub(self.link.queued_bytes())
    }

    /// Returns how many bytes of the node's budget go back to it, after what was done under the lock: all
    /// that are in the queues no longer, except `most` for the next messages as long as others are queued
    /// and no sender waits.
    fn keep_ahead(&mut self, most: usize) -> usize {
        let keeps = self.link.queued_bytes() > 0 && self.lines.iter().all(Line::is_empty);
        let freed = self.ahead().saturating_sub(if keeps { most } else { 0 });
        self.reserved -= freed;
        freed
    }

    /// Bytes of received messages, and those of unfinished ones among them.
    fn held(&self) -> (u64, u64) {
        (self.link.held_bytes(), self.link.unfinished_bytes())
    }
}

type LinkGuard<'a> = Guard<'a, LinkInner, LINK>;

/// The rest of messages that ended under the lock, for after its release.
struct Released {
    receipts: Vec<EndedRun>,
    /// Bodies of messages that were copied.
    bodies: Vec<Bytes>,
    /// Bytes of the node's budget.
    budget: usize,
    /// Senders that wait for room, of each lane the first one.
    turns: Vec<Arc<Turn>>,
}

/// The history of a link, for snapshots and events.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) made: Instant,
    pub(crate) name: String,
    pub(crate) announced: LinkState,
    pub(crate) since: Option<Instant>,
    pub(crate) joined: u64,
    /// Why the last connection ended.
    pub(crate) last_end: Option<EndReason>,
    /// The same of the last one that was not replaced by another connection.
    pub(crate) last_loss: Option<EndReason>,
    /// The view that the roster has of it.
    pub(crate) announced_to_roster: Option<LinkView>,
    /// Connections of which the roster was told that they are proven.
    pub(crate) proofs: Vec<ConnId>,
    /// Connections that serve and are to be replaced, and why.
    pub(crate) retiring: Vec<(ConnId, ReplaceReason)>,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
    pub(crate) score: crate::health::peer_score::PeerScore,
}

impl Life {
    fn new(made: Instant) -> Self {
        Life {
            made,
            name: String::new(),
            announced: LinkState::default(),
            since: None,
            joined: 0,
            last_end: None,
            last_loss: None,
            announced_to_roster: None,
            proofs: Vec::new(),
            retiring: Vec::new(),
            bytes_sent: 0,
            bytes_received: 0,
            score: crate::health::peer_score::PeerScore::default(),
        }
    }
}

/// The state of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkState {
    /// It never had a connection.
    #[default]
    Connecting,
    /// It has a connection above suspicion.
    Up,
    /// All its connections that serve are suspect. (With none but draining ones the state stays what it was
    /// until they have ended.)
    Degraded,
    /// It has none. Messages wait.
    Down,
}

impl fmt::Debug for LinkHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl LinkHandle {
    /// `named`: the operator has configured or added this peer.
    pub(crate) fn new(
        settings: Settings,
        path: PathConfig,
        seed: u64,
        shared: Arc<Shared>,
        named: bool,
    ) -> Self {
        let peer = settings.peer;
        let account = shared.queued.open(peer, named);
        shared.received.open(account, peer, if named { Class::Named } else { Class::Stranger });
        LinkHandle {
            peer,
            account,
            shared,
            core: Ordered::new(LinkInner {
                path,
                lines: settings.lanes.iter().map(|_| Line::default()).collect(),
                reserved: 0,
                output: LinkOutput::default(),
                link: Link::new(settings, seed),
                receipts: Receipts::default(),
                copied: Vec::new(),
                withheld: false,
                probing: 0,
                heard: 0,
                life: Life::new(clock::now()),
            }),
            changed: Condvar::new(),
            listed: AtomicU64::new(0),
            entry: Entry::new(account, peer),
            ended: AtomicBool::new(false),
        }
    }

    /// Does something under the lock and carries out what follows from it after the lock is released. The
    /// monitor hears of the rest.
    fn with<A>(self: &Arc<Self>, act: impl FnOnce(&mut LinkInner, Instant, &mut LinkOutput) -> A) -> A {
        self.with_writers(|conn| conn.wake(), act)
    }

    /// The same for a thread of the application: it writes itself what follows from what it does, if nobody
    /// else writes and it has not done so for too much of its time.
    fn with_writing<A>(
        self: &Arc<Self>,
        act: impl FnOnce(&mut LinkInner, Instant, &mut LinkOutput) -> A,
    ) -> A {
        self.with_writers(|conn| allowance::write_now(conn, self), act)
    }

    /// Carries out what follows from messages that were added to the queues under the lock, after releasing
    /// it. What they cost was reserved, and nothing else has changed. Most of them neither wake a writer
    /// nor end another message: then it is over when the lock is released.
    fn finish_sending(self: &Arc<Self>, mut core: LinkGuard<'_>, write: impl Fn(&Arc<ConnHandle>)) {
        debug_assert!(core.link.queued_bytes() <= core.reserved);
        if core.output.is_empty() {
            drop(core);
            allowance::note_call();
            return;
        }
        let mut output = std::mem::take(&mut core.output);
        let held = core.held();
        let mut notices = Vec::new();
        self.finish(core, held, clock::now(), &mut output, &mut notices, write);
        notices.into_iter().for_each(|notice| self.shared.report(Report::Link(self.peer, notice)));
    }

    fn with_writers<A>(
        self: &Arc<Self>,
        wake: impl Fn(&Arc<ConnHandle>),
        act: impl FnOnce(&mut LinkInner, Instant, &mut LinkOutput) -> A,
    ) -> A {
        let mut notices = Vec::new();
        let result = self.with_notices(&mut notices, wake, act);
        notices.into_iter().for_each(|notice| self.shared.report(Report::Link(self.peer, notice)));
        result
    }

    /// The same for the monitor, which gets the notices. `wake` sees to a connection whose writer sleeps.
    /// Bytes that were reserved of the node's budget and are not in the queues afterwards are released.
    fn with_notices<A>(
        self: &Arc<Self>,
        notices: &mut Vec<Notice>,
        wake: impl Fn(&Arc<ConnHandle>),
        act: impl FnOnce(&mut LinkInner, Instant, &mut LinkOutput) -> A,
    ) -> A {
        let now = clock::now();
        let mut output = LinkOutput::default();
        let mut core = self.core.lock();
        let held = core.held();
        // Before anything else: what is taken next might give credit.
        let over = self.shared.received.withholds(|| self.shared.named.class_of(self.peer));
        if std::mem::replace(&mut core.withheld, over) != over {
            core.link.set_withheld(over, now, &mut output);
        }
        let result = act(&mut core, now, &mut output);
        self.finish(core, held, now, &mut output, notices, wake);
        result
    }

    /// Carries out what follows from what was done under the lock, after releasing it. `held_before`: what it
    /// held when the lock was taken.
    fn finish(
        self: &Arc<Self>,
        mut core: LinkGuard<'_>,
        held_before: (u64, u64),
        now: Instant,
        output: &mut LinkOutput,
        notices: &mut Vec<Notice>,
        wake: impl Fn(&Arc<ConnHandle>),
    ) {
        let budget = core.keep_ahead(self.shared.queued.ahead());
        if budget == 0 && output.is_empty() && core.held() == held_before {
            return;
        }
        let turns: Vec<_> = match output.space {
            true => core.lines.iter().filter_map(Line::first).cloned().collect(),
            false => Vec::new(),
        };
        let held_after = core.held();
        // Under the lock, so that the later statistics are kept.
        let look_at_inboxes = held_after != held_before && {
            let (bytes, unfinished) = held_after;
            self.shared.received.update(self.account, bytes, unfinished, now)
        };
        for (_, reply) in &output.replies {
            match reply {
                Ok(_) => core.life.score.handle_request_answered(now),
                Err(RequestError::Timeout) => core.life.score.handle_request_timed_out(now),
                Err(_) => {}
            }
        }
        let receipts = core.receipts.end(output.ended.drain(..).map(|ended| (ended.tokens, ended.outcome)));
        let bodies = if receipts.is_empty() { Vec::new() } else { std::mem::take(&mut core.copied) };
        drop(core);
        if look_at_inboxes {
            self.shared.agenda.look_at_all();
        }
        self.carry_out(output, Released { receipts, bodies, budget, turns }, notices, wake);
    }

    /// Asks the kernel how a connection does.
    fn sample(self: &Arc<Self>, conn: &ConnHandle, notices: &mut Vec<Notice>) {
        let look = ConnSample { kernel: tcp_info::read(&conn.socket), blocked: conn.take_blocked() };
        let next = self.with_notices(
            notices,
            |conn| conn.wake(),
            |core, now, output| {
                core.link.handle_sample(conn.id, &look, now, output);
                core.link.next_timeout()
            },
        );
        self.look_at(next);
    }

    /// Adds what the node is to hear of to `notices`.
    fn carry_out(
        self: &Arc<Self>,
        output: &mut LinkOutput,
        released: Released,
        notices: &mut Vec<Notice>,
        wake: impl Fn(&Arc<ConnHandle>),
    ) {
        let Released { receipts, bodies, budget, turns } = released;
        output.wake.iter().for_each(wake);
        self.look_at(output.ack_at);
        output.close.iter().for_each(|(conn, why)| conn.end(close_reason(*why)));
        let settled = !receipts.is_empty();
        // First: whoever hears that its message has ended finds the room that it took.
        self.shared.queued.release(self.account, budget);
        receipts.into_iter().for_each(EndedRun::tell);
        self.shared.background.drop_all(bodies);
        output.replies.drain(..).for_each(|(waiter, reply)| waiter.set(reply));
        turns.iter().for_each(|turn| turn.wake());
        if settled {
            self.shared.progress();
        }
        if output.arrived != 0 {
            self.shared.mailbox.announce(Arc::clone(self) as Arc<dyn Source>, output.arrived);
        }
        let heard = output.notices.iter().any(|notice| !matches!(notice, Notice::Goaway(..)));
        if heard {
            self.changed.notify_all();
        }
        notices.append(&mut output.notices);
        output.samples.iter().for_each(|conn| self.sample(conn, notices));
    }

    /// The monitor is to look at this link by then.
    pub(crate) fn look_at(&self, deadline: Option<Instant>) {
        deadline.into_iter().for_each(|at| self.shared.agenda.look_at(&self.entry, at));
    }

    /// The monitor is to look at this link at once.
    pub(crate) fn look_now(&self) {
        self.shared.agenda.look_now(&self.entry);
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.ended.load(SeqCst)
    }

    /// Looks at the link without changing it.
    pub(crate) fn inspect<A>(&self, look: impl FnOnce(&LinkInner) -> A) -> A {
        look(&self.core.lock())
    }

    /// Changes what the node remembers of the link, nothing in the conversation.
    pub(crate) fn update<A>(&self, note: impl FnOnce(&mut LinkInner) -> A) -> A {
        note(&mut self.core.lock())
    }

    /// The behaviour towards this peer, as far as the application has set one, is known from now on: the
    /// link may have been made before it was known who the peer is.
    pub(crate) fn set_path(&self, path: &PathConfig) {
        self.update(|core| {
            core.link.set_path(path.into(), path.min_ping_interval, path.max_chunk);
            core.path.clone_from(path);
        });
    }

    pub(crate) fn path(&self) -> PathConfig {
        self.inspect(|core| core.path.clone())
    }
}

impl Drop for LinkHandle {
    /// Bytes of an unfinished message go with the link.
    fn drop(&mut self) {
        self.shared.queued.close_account(self.account);
        if self.shared.received.close(self.account) {
            self.shared.agenda.look_at_all();
        }
        self.shared.agenda.forget(&self.entry);
    }
}

fn close_reason(why: CloseReason) -> EndReason {
    let cause = match why {
        CloseReason::Dead => EndCause::Dead,
        CloseReason::DrainTimeout => EndCause::DrainTimeout,
        CloseReason::PeerRestarted => EndCause::PeerRestarted,
    };
    EndReason::new(Initiator::Library, cause)
}
