//! The state that all threads of a node share.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::clock;
use crate::config::{Config, PathConfig, PeerConfig};
use crate::conn::ConnHandle;
use crate::conn::handshake::Card;
use crate::conn::threads::{self, Threads};
use crate::error::{EndCause, EndReason, Initiator};
use crate::id::{ConnId, PeerId};
use crate::lock::{LEAF, LEAVING, LINKS, Ordered, SHUTDOWN};
use crate::outcome::DropReason;
use crate::roster::Roster;
use crate::wire::control::GoawayReason;

use super::acceptor::Acceptor;
use super::event::Event;
use super::event_queue::Class;
use super::fan_out::FanOut;
use super::inbound_control::{AdmitHook, InboundControl};
use super::link::{self, LinkHandle};
use super::resolver::Resolver;
use super::shared::Shared;
use super::shares::AccountId;
use super::tracked::Tracked;

/// How long the last goodbyes may take when no grace is left.
const GOODBYE_TIME: Duration = Duration::from_millis(100);
/// A link that was lost this recently may come back while the node waits to flush it.
const RECONNECT_GRACE: Duration = Duration::from_secs(2);

pub(crate) struct NodeInner {
    pub(crate) config: Config,
    pub(crate) card: Card,
    pub(crate) shared: Arc<Shared>,
    pub(crate) threads: Arc<Threads>,
    pub(crate) acceptors: Vec<Acceptor>,
    /// Protects the list of links, not the links. May be held while a link or the roster is looked at,
    /// never the other way round.
    links: Ordered<HashMap<PeerId, Arc<LinkHandle>>, LINKS>,
    /// Links that were given up and whose connections have not ended.
    leaving: Ordered<Vec<Arc<LinkHandle>>, LEAVING>,
    /// Admission of inbound connections.
    pub(crate) inbound: InboundControl,
    /// Protects the plan of whom to dial.
    pub(crate) roster: Tracked<Roster>,
    /// Protects the list of connections in handshake, with their deadlines.
    pub(crate) pending: Ordered<HashMap<ConnId, (Arc<ConnHandle>, Instant)>, LEAF>,
    /// Connections and dials, to be held against `max_connections`.
    pub(crate) connections: AtomicUsize,
    pub(crate) resolver: Arc<Resolver>,
    /// Attempts of dials beyond the first one of each.
    pub(crate) further_attempts: AtomicUsize,
    next_conn: AtomicU64,
    pub(crate) started: Instant,
    /// The process that started the node.
    process: u32,
    closing: AtomicBool,
    closed: AtomicBool,
    /// Held by the caller that carries out the shutdown; the others wait for it.
    shutting_down: Ordered<(), SHUTDOWN>,
    rng: Ordered<fastrand::Rng, LEAF>,
    /// Decides what has to be decided the same way each time.
    pub(crate) seed: u64,
}

impl NodeInner {
    pub(crate) fn new(
        config: Config,
        card: Card,
        acceptors: Vec<Acceptor>,
        admit_hook: AdmitHook,
        resolver: Resolver,
        seed: u64,
    ) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let threads = Threads::new(card.peer);
        let fan_out = FanOut::new(threads.name("fan-out"), &config.lanes);
        let shared = Arc::new(Shared::new(&config, fan_out));
        NodeInner {
            shared,
            threads: Arc::new(threads),
            acceptors,
            links: Ordered::default(),
            leaving: Ordered::default(),
            inbound: InboundControl::new(&config, admit_hook, rng.u64(..)),
            roster: Tracked::new(Roster::new(card.peer, &config, rng.u64(..))),
            seed: rng.u64(..),
            pending: Ordered::default(),
            connections: AtomicUsize::new(0),
            resolver: Arc::new(resolver),
            further_attempts: AtomicUsize::new(0),
            next_conn: AtomicU64::new(0),
            started: clock::now(),
            process: std::process::id(),
            closing: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            shutting_down: Ordered::default(),
            rng: Ordered::new(rng),
            config,
            card,
        }
    }

    pub(crate) fn next_conn(&self) -> ConnId {
        ConnId(self.next_conn.fetch_add(1, SeqCst) + 1)
    }

    /// The port that this side's HELLO on the connection announces.
    pub(crate) fn announced_port(&self, conn: &ConnHandle) -> Option<u16> {
        let local = conn.socket.local_addr().ok()?.as_socket()?.ip();
        self.config.announce.port(self.acceptors.iter().map(|acceptor| acceptor.listening), local)
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(SeqCst)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(SeqCst)
    }

    // --- links ----------------------------------------------------------------------------------

    pub(crate) fn link(&self, peer: PeerId) -> Option<Arc<LinkHandle>> {
        self.links.lock().get(&peer).cloned()
    }

    pub(crate) fn links(&self) -> Vec<Arc<LinkHandle>> {
        self.links.lock().values().cloned().collect()
    }

    /// The links, and those that are on their way out.
    pub(crate) fn all_links(&self) -> Vec<Arc<LinkHandle>> {
        let leaving = self.leaving.lock().clone();
        self.links().into_iter().chain(leaving).collect()
    }

    /// The link with this account, also if it is on its way out.
    pub(crate) fn link_of(&self, account: AccountId, peer: PeerId) -> Option<Arc<LinkHandle>> {
        let leaving = || self.leaving.lock().iter().find(|link| link.account == account).cloned();
        self.link(peer).filter(|link| link.account == account).or_else(leaving)
    }

    /// Forgets the links on their way out that have no connection any longer, and returns them.
    pub(crate) fn take_left(&self) -> Vec<Arc<LinkHandle>> {
        let has_ended = |link: &mut Arc<LinkHandle>| link.inspect(|core| core.link.is_detached());
        self.leaving.lock().extract_if(.., has_ended).collect()
    }

    /// Forgets the labels of removed peers whose links have ended.
    pub(crate) fn forget_labels(&self) {
        let ended = self.shared.named.removed().into_iter().filter(|peer| self.any_link(*peer).is_none());
        ended.for_each(|peer| self.shared.named.forget_removed(peer));
    }

    pub(crate) fn any_link(&self, peer: PeerId) -> Option<Arc<LinkHandle>> {
        self.link(peer).or_else(|| self.leaving.lock().iter().find(|link| link.peer == peer).cloned())
    }

    /// The links of peers that are wanted or connected: not of strangers who may never come back.
    pub(crate) fn links_in_use(&self) -> Vec<Arc<LinkHandle>> {
        let kept = self.roster.lock().kept_peers();
        let in_use = |link: &Arc<LinkHandle>| {
            kept.contains(&link.peer) || link.inspect(|core| !core.link.is_detached())
        };
        self.links().into_iter().filter(in_use).collect()
    }

    /// Forgets links of strangers without a connection, those first that were lost first, until no more are
    /// left than may be, and what waits for them keeps no named peer from its part of the queues.
    pub(crate) fn forget_strangers(&self) {
        let few = self.links.lock().len() <= self.config.max_absent_strangers;
        if few && !self.shared.queued.is_overdrawn() {
            return;
        }
        let links = self.links();
        let kept = self.roster.lock().kept_peers();
        // One that never had a connection may be about to get its first.
        let goes =
            |core: &link::LinkInner, unused| core.link.is_detached() && (unused || core.life.joined > 0);
        let absent = |link: Arc<LinkHandle>| {
            let unused = Arc::strong_count(&link) == 2;
            let since = link.inspect(|core| goes(core, unused).then_some(core.life.since));
            since.filter(|_| !kept.contains(&link.peer)).map(|since| (since, link))
        };
        let mut absent: Vec<_> = links.into_iter().filter_map(absent).collect();
        absent.sort_by_key(|(since, _)| *since);
        let surplus = absent.len().saturating_sub(self.config.max_absent_strangers);
        for (index, (_, link)) in absent.into_iter().enumerate() {
            let queued = || link.inspect(|core| core.link.queued_bytes());
            if index >= surplus && !(self.shared.queued.is_overdrawn() && queued() > 0) {
                continue;
            }
            if self.unlist(&link, goes) {
                let messages = link.inspect(|core| core.link.queued_messages());
                link.close(DropReason::ResumptionExpired);
                if messages > 0 {
                    let peer = link.peer;
                    self.shared.tell(Event::Lost { peer, messages, by_peer: false });
                }
            }
        }
    }

    /// Takes the link of a stranger from the list if it `goes`, which is told whether nobody else holds it. A
    /// handshake that holds it has joined before that, and then it has a connection, or learns when it joins
    /// that the link is not kept.
    fn unlist(&self, link: &Arc<LinkHandle>, goes: impl FnOnce(&link::LinkInner, bool) -> bool) -> bool {
        let mut links = self.links.lock();
        // The list's and the caller's. While the list is locked nobody can get another one.
        let unused = Arc::strong_count(link) == 2;
        let unlisted = links.get(&link.peer).is_some_and(|kept| Arc::ptr_eq(kept, link))
            && link.inspect(|core| goes(core, unused))
            && !self.roster.lock().is_kept(link.peer);
        if unlisted {
            links.remove(&link.peer);
        }
        unlisted
    }

    /// Forgets strangers until their unfinished messages take no more than their part.
    pub(crate) fn reclaim_unfinished(&self, now: Instant) {
        while let Some(peer) = self.shared.received.give_up(now) {
            let Some(link) = self.link(peer) else { continue };
            let messages = link.inspect(|core| core.link.queued_messages());
            self.end_link(&link, DropReason::ResumptionExpired, GoawayReason::Retired);
            let line = format_args!("forgotten, its unfinished messages took too much memory");
            self.shared.log(peer, log::Level::Info, line);
            if messages > 0 {
                self.shared.tell(Event::Lost { peer, messages, by_peer: false });
            }
        }
    }

    /// The operator has removed these peers. Returns how many of them had a link.
    pub(crate) fn remove_named(&self, peers: &[PeerId]) -> usize {
        // The last lines of the log about them are written after this.
        peers.iter().for_each(|peer| self.shared.named.keep_label(*peer));
        self.classify_links();
        peers.iter().filter(|peer| self.remove(**peer)).count()
    }

    /// Removes a peer. False when there is no link to it.
    pub(crate) fn remove(&self, peer: PeerId) -> bool {
        let link = self.link(peer);
        link.iter().for_each(|link| self.end_link(link, DropReason::PeerRemoved, GoawayReason::Removed));
        link.is_some()
    }

    /// Takes a link from the list: everything under way to its peer ends with `reason`, its connections with
    /// a goodbye.
    pub(crate) fn end_link(&self, link: &Arc<LinkHandle>, reason: DropReason, goodbye: GoawayReason) {
        // Closed first: a handshake that is under way finds either the closed link, or none.
        link.close(reason);
        self.leaving.lock().push(Arc::clone(link));
        let mut links = self.links.lock();
        if links.get(&link.peer).is_some_and(|kept| Arc::ptr_eq(kept, link)) {
            links.remove(&link.peer);
        }
        drop(links);
        link.drain_all(goodbye);
    }

    /// The link to a peer whose handshake has come so far that its name is known.
    pub(crate) fn link_for(&self, peer: PeerId) -> Result<Arc<LinkHandle>, EndReason> {
        if self.is_closing() {
            return Err(EndReason::new(Initiator::Us, EndCause::Shutdown));
        }
        if let Some(link) = self.link(peer) {
            return Ok(link);
        }
        let path = self.path_for(peer);
        let settings = self.config.link_settings(&path, self.card.peer, peer);
        let seed = self.rng.lock().u64(..);
        let now = clock::now();
        let learned = self.roster.lock().learned_of(peer, now);
        let mut links = self.links.lock();
        let link = links.entry(peer).or_insert_with(|| {
            let named = self.shared.named.contains(peer);
            let link = LinkHandle::new(settings, path, seed, Arc::clone(&self.shared), named);
            link.update(|core| {
                learned.into_iter().for_each(|learned| core.link.restore_learned(learned, now))
            });
            Arc::new(link)
        });
        let link = Arc::clone(link);
        drop(links);
        link.look_now();
        Ok(link)
    }

    /// A connection has joined this link. False when the link was given up meanwhile: it would be one
    /// that nobody can find.
    pub(crate) fn is_kept(&self, link: &Arc<LinkHandle>) -> bool {
        self.links.lock().get(&link.peer).is_some_and(|kept| Arc::ptr_eq(kept, link))
    }

    /// Forgets a link of a stranger that has nothing left to remember, and that nobody else is about to
    /// use: a handshake would join, and a send would be accepted by, a link that nobody can find. True if it
    /// is kept for that reason alone, so that another attempt is due.
    pub(crate) fn tidy(&self, link: &Arc<LinkHandle>) -> bool {
        link.inspect(|core| core.link.is_forgotten())
            && !self.unlist(link, |core, unused| unused && core.link.is_forgotten())
            && self.is_kept(link)
            && !self.roster.lock().is_kept(link.peer)
    }

    /// One more peer is to be dialled, for ever.
    pub(crate) fn want(&self, peer: PeerConfig) {
        let id = peer.id;
        self.roster.lock().add(peer, clock::now());
        // A peer that is known by name can be sent to before it was ever reached.
        if let Some(id) = id.filter(|id| *id != self.card.peer) {
            let _ = self.link_for(id);
        }
        self.classify_links();
        self.shared.agenda.wake();
    }

    /// The set of peers that the operator has named may have changed.
    pub(crate) fn classify_links(&self) {
        let roster = self.roster.lock();
        let named = roster.named();
        self.shared.queued.classify(|peer| named.contains_key(&peer));
        let class_of = |peer| if named.contains_key(&peer) { Class::Named } else { Class::Stranger };
        let look_at_inboxes = self.shared.received.classify(class_of);
        // Under the roster's lock, so that the later answer is kept.
        self.shared.named.replace(named);
        if look_at_inboxes {
            self.shared.agenda.look_at_all();
        }
    }

    /// The roster hears how well the linked peers do.
    pub(crate) fn update_scores(&self, now: Instant) {
        let score = |link: &Arc<LinkHandle>| {
            link.update(|core| {
                let best = core.link.conns().iter().filter(|conn| conn.is_serving());
                let best = best.map(|conn| conn.score.value(now)).max_by(f64::total_cmp);
                core.life.score.handle_current(best);
                (link.peer, core.life.score.value(now), core.link.learned(now))
            })
        };
        let scores: Vec<_> = self.links().iter().map(score).collect();
        let learned = scores.iter().map(|(peer, _, learned)| (*peer, *learned)).collect();
        let mut roster = self.roster.lock();
        scores.into_iter().for_each(|(peer, score, _)| roster.handle_score(peer, score, now));
        roster.handle_learned(&learned, now);
    }

    pub(crate) fn path_for(&self, peer: PeerId) -> PathConfig {
        let roster = self.roster.lock();
        let own = roster.config_of(peer).and_then(|config| config.path.as_ref());
        own.unwrap_or(&self.config.path).clone()
    }

    // --- the end --------------------------------------------------------------------------------

    /// Flushes within `grace`, says goodbye, ends every connection and joins every thread. The first
    /// caller does it; later ones wait until it is done.
    pub(crate) fn shutdown(self: &Arc<Self>, grace: Duration) {
        // A child of fork(2) has copies of the descriptors and none of the threads: shutdown(2) there would
        // stop the listeners of the parent, and no thread could be joined.
        if std::process::id() != self.process {
            return;
        }
        if threads::is_of_a_node() {
            // The application's hook runs here: who is to be joined cannot wait for that.
            let core = Arc::clone(self);
            if let Err(error) = threads::spawn(&self.threads.name("stop"), move || core.shutdown(grace)) {
                log_line!(Error, "this node does not shut down, no thread: {error}");
            }
            return;
        }
        let _done = self.shutting_down.lock();
        if self.closed.swap(true, SeqCst) {
            return;
        }
        let start = clock::now();
        let deadline = clock::after(grace);
        // From here on the API refuses what is new, while what was accepted still goes out.
        if grace > Duration::ZERO {
            let flushed = || self.links().iter().all(|link| self.is_flushed(link));
            // That hope is over is no event: look again from time to time.
            while !self.shared.wait_until(deadline.min(clock::now() + RECONNECT_GRACE / 8), flushed)
                && clock::now() < deadline
            {}
        }
        self.closing.store(true, SeqCst);
        self.shared.mailbox.close();
        self.shared.progress();
        self.acceptors.iter().for_each(Acceptor::stop);
        self.resolver.close();
        let shutdown = EndReason::new(Initiator::Us, EndCause::Shutdown);
        self.end_pending(&shutdown);
        self.all_links().iter().for_each(|link| link.drain_all(GoawayReason::Shutdown));
        self.shared.wait_until(deadline.max(clock::now() + GOODBYE_TIME), || {
            self.all_links().iter().all(|link| link.inspect(|core| core.link.is_detached()))
        });
        self.end_pending(&shutdown);
        self.all_links().iter().for_each(|link| link.end_all(&shutdown));
        self.links().iter().for_each(|link| link.close(DropReason::Shutdown));
        self.shared.agenda.round_now();
        self.shared.fan_out.close();
        self.threads.join_all();
        self.acceptors.iter().for_each(Acceptor::close);
        self.shared.background.close(deadline.max(clock::now() + GOODBYE_TIME));
        log_line!(Info, "{} stopped after {:?}", self.card.peer.short(), start.elapsed());
    }

    /// A thread that the node cannot do without has panicked: the application hears that the node has
    /// ended, and what is left is taken down with its last handle.
    pub(crate) fn give_up(&self) {
        self.closing.store(true, SeqCst);
        self.shared.mailbox.close();
        self.shared.progress();
        self.resolver.close();
        let panic = EndReason::new(Initiator::Library, EndCause::Panic);
        self.end_pending(&panic);
        let links = self.all_links();
        links.iter().for_each(|link| link.end_all(&panic));
        // A thread that waits for something of them would wait for ever: nobody looks at the clock any
        // longer.
        links.iter().for_each(|link| link.close(DropReason::Shutdown));
    }

    fn is_flushed(&self, link: &LinkHandle) -> bool {
        link.inspect(|core| {
            let since = core.life.since.unwrap_or(core.life.made);
            core.link.is_flushed() || (core.link.is_detached() && clock::now() > since + RECONNECT_GRACE)
        })
    }

    pub(crate) fn end_pending(&self, reason: &EndReason) {
        let pending: Vec<_> = self.pending.lock().values().map(|(conn, _)| Arc::clone(conn)).collect();
        pending.iter().for_each(|conn| conn.end(reason.clone()));
    }
}

#[cfg(test)]
mod tests {
    use crate::error::SendErrorKind;
    use crate::id::Identity;
    use crate::lane::NORMAL;
    use crate::node::budget::Wait;
    use crate::outcome::Outcome;
    use crate::wire::preface::{Mode, NetworkName, Versions};

    use super::*;

    fn core() -> NodeInner {
        let config = Config { max_absent_strangers: 0, ..Config::default() };
        let identity = Identity::generate().unwrap();
        let card = Card {
            versions: Versions::OURS,
            mode: Mode::Noise,
            network: NetworkName::empty(),
            peer: identity.peer_id(),
            identity,
            incarnation: crate::id::Incarnation(1),
        };
        NodeInner::new(config, card, Vec::new(), AdmitHook::default(), Resolver::default(), 1)
    }

    #[test]
    fn when_the_monitor_is_gone_nobody_waits_for_it() {
        let core = core();
        let link = core.link_for(PeerId::from_bytes([7; 32])).unwrap();
        let (receipt, _) = link.send((NORMAL, "never sent").into(), link::Intent::Message, Wait::No).unwrap();
        assert_eq!(receipt.poll(), None);
        core.give_up();
        assert_eq!(receipt.poll(), Some(Outcome::Dropped(DropReason::Shutdown)));
        let refused = link.send((NORMAL, "late").into(), link::Intent::Message, Wait::Forever).unwrap_err();
        assert_eq!(*refused.kind(), SendErrorKind::Closed);
    }

    #[test]
    fn a_strangers_link_is_forgotten_only_when_nobody_is_about_to_use_it() {
        let core = core();
        let stranger = PeerId::from_bytes([7; 32]);
        let in_handshake = core.link_for(stranger).unwrap();
        core.tidy(&core.link(stranger).unwrap());
        core.forget_strangers();
        assert!(core.is_kept(&in_handshake));
        drop(in_handshake);
        core.tidy(&core.link(stranger).unwrap());
        assert!(core.link(stranger).is_none());
    }
}
