//! Admission and conduct in the node: the decisions of
//! [`InboundControl`](super::inbound_control::InboundControl) are carried out here.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use log::Level;

use crate::admission::evict::Merit;
use crate::admission::{AdmitDecision, Decision, Refusal};
use crate::clock;
use crate::conduct::{Ban, BanTarget, Misbehavior, Penalty};
use crate::config::Encryption;
use crate::conn::ConnHandle;
use crate::error::{EndCause, EndReason, Initiator};
use crate::id::{ConnId, PeerId};
use crate::wire::control::GoawayReason;

use super::Node;
use super::event::Event;
use super::event_queue::Class;
use super::inbound_control::AdmitHook;
use super::inner::NodeInner;
use super::link::{LinkHandle, LinkInner};

/// A peer that leaves this soon and sent no message counts as a wasted connection.
const WASTED_CONNECTION: Duration = Duration::from_secs(1);

/// The permit of an accepted connection, from its acceptance to its end.
pub(crate) struct InboundPermit {
    core: Arc<NodeInner>,
    conn: ConnId,
}

impl Drop for InboundPermit {
    fn drop(&mut self) {
        self.core.inbound.admission.lock().release(self.conn);
    }
}

impl NodeInner {
    /// A connection was accepted. It keeps its place until that is dropped.
    pub(crate) fn on_accept(
        self: &Arc<Self>,
        conn: ConnId,
        addr: SocketAddr,
    ) -> Result<InboundPermit, EndReason> {
        let (now, inbound) = (clock::now(), &self.inbound);
        if inbound.conduct.lock().is_banned(BanTarget::at(addr.ip()), now) {
            return Err(refused(EndCause::Banned));
        }
        let decision = inbound.admission.lock().on_accept(conn, addr.ip(), now);
        self.begin(conn, decision)
    }

    /// A connection of a proxy was accepted. Whose it is [`NodeInner::on_header`] is told.
    pub(crate) fn on_accept_proxied(
        self: &Arc<Self>,
        conn: ConnId,
        proxy: SocketAddr,
    ) -> Result<InboundPermit, EndReason> {
        let decision = self.inbound.admission.lock().on_accept_proxied(conn, proxy.ip(), clock::now());
        self.begin(conn, decision)
    }

    fn begin(self: &Arc<Self>, conn: ConnId, decision: Decision) -> Result<InboundPermit, EndReason> {
        match decision {
            Decision::Refuse(refusal) => return Err(refused(EndCause::NotAdmitted(refusal))),
            Decision::Replace(stalled) => self.evict(stalled),
            Decision::Admit => {}
        }
        Ok(InboundPermit { core: Arc::clone(self), conn })
    }

    /// The proxy has said from where the connection comes.
    pub(crate) fn on_header(&self, conn: ConnId, addr: SocketAddr) -> Result<(), EndReason> {
        let (now, inbound) = (clock::now(), &self.inbound);
        if inbound.conduct.lock().is_banned(BanTarget::at(addr.ip()), now) {
            return Err(refused(EndCause::Banned));
        }
        let checked = inbound.admission.lock().on_header(conn, addr.ip(), now);
        checked.map_err(|refusal| refused(EndCause::NotAdmitted(refusal)))
    }

    /// It is known who is at the other end. `chosen`: this node dials that peer by itself, and asks nobody.
    pub(crate) fn enter(&self, conn: &ConnHandle, peer: PeerId, chosen: bool) -> Result<(), EndReason> {
        let inbound = &self.inbound;
        if self.is_banned(conn, peer) {
            return Err(refused(EndCause::Banned));
        }
        if chosen {
            return Ok(());
        }
        let wanted = self.shared.named.contains(peer);
        // Each name has windows of its own, and what they brought stays when the connection goes: who has
        // many names would fill the memory of an application that is slow. A peer that has a link
        // already is held to its windows.
        if !wanted && self.shared.received.withholds(|| Class::Stranger) && self.any_link(peer).is_none() {
            return Err(refused(EndCause::NotAdmitted(Refusal::Inbox)));
        }
        let listed = inbound.admission.lock().listed(&peer, wanted);
        match (listed, &inbound.admit_hook.0) {
            (Some(false), _) => return Err(refused(EndCause::NotAdmitted(Refusal::Denied))),
            // Under no lock: it is the application's.
            // A peer that is dialled back was asked about when it came.
            (None, Some(hook)) if !conn.dialled && hook(&peer, conn.addr()) == AdmitDecision::Refuse => {
                return Err(refused(EndCause::NotAdmitted(Refusal::Application)));
            }
            _ => {}
        }
        let merits = if inbound.admission.lock().is_crowded() { self.merits() } else { HashMap::new() };
        let merit = |conn: ConnId| merits.get(&conn).copied().unwrap_or_default();
        let decision = inbound.admission.lock().enter(conn.id, peer, wanted, merit, clock::now());
        match decision {
            Decision::Admit => {}
            Decision::Refuse(refusal) => return Err(refused(EndCause::NotAdmitted(refusal))),
            Decision::Replace(victim) => {
                // In this order: it is in the list of handshakes until it has joined its link.
                self.evict(victim);
                let has = |link: &&Arc<LinkHandle>| {
                    link.inspect(|core| core.link.handles().any(|conn| conn.id == victim))
                };
                if let Some(link) = self.all_links().iter().find(has) {
                    let line = format_args!("makes room for {}", self.shared.named.name_of(peer));
                    self.shared.log(link.peer, Level::Info, line);
                    link.drain_one(victim, GoawayReason::Retired);
                }
            }
        }
        Ok(())
    }

    /// Ends a connection that has to go for another one, if it has not joined its link yet.
    fn evict(&self, conn: ConnId) {
        self.inbound.evicted.fetch_add(1, Relaxed);
        let conn = self.pending.lock().get(&conn).map(|(conn, _)| Arc::clone(conn));
        let evicted = EndReason::new(Initiator::Library, EndCause::Evicted);
        conn.into_iter().for_each(|conn| conn.end(evicted.clone()));
    }

    /// Whether this peer is, or the address that it has come from: that may have been banned since it was
    /// accepted.
    pub(crate) fn is_banned(&self, conn: &ConnHandle, peer: PeerId) -> bool {
        let by_address = !conn.dialled && !self.shared.named.contains(peer);
        let (now, conduct) = (clock::now(), self.inbound.conduct.lock());
        conduct.is_banned(peer.into(), now)
            || by_address && conduct.is_banned(BanTarget::at(conn.addr().ip()), now)
    }

    /// How useful each connection was.
    fn merits(&self) -> HashMap<ConnId, Merit> {
        let of = |link: &Arc<LinkHandle>| {
            // It may have been named only after it came.
            let wanted = self.shared.named.contains(link.peer);
            link.inspect(|core| {
                let counters = core.link.counters;
                let (answers, messages) = (counters.answers, counters.messages_received);
                let merit = |rtt| Merit { wanted, rtt, answers, messages };
                core.link.conns().iter().map(|conn| (conn.id, merit(conn.liveness.rtt()))).collect::<Vec<_>>()
            })
        };
        self.links().iter().flat_map(of).collect()
    }

    // --- conduct --------------------------------------------------------------------------------

    /// A connection has ended: whether that speaks against the other side. `link`: that it had joined.
    pub(crate) fn judge(&self, conn: &ConnHandle, link: Option<&LinkHandle>, reason: &EndReason) {
        let misbehavior = Misbehavior::of(reason, link.is_some())
            .or_else(|| link.filter(|link| is_wasted(conn, link, reason)).map(|_| Misbehavior::WastedEffort));
        let Some(misbehavior) = misbehavior else { return };
        // In plaintext a name is only claimed: by it anybody could get anybody banned.
        let names_are_proven = self.config.encryption != Encryption::Plaintext;
        match conn.peer.get() {
            Some(peer) if names_are_proven => self.report((*peer).into(), misbehavior),
            // A peer that this node dialled was chosen: the address says nothing.
            _ if conn.dialled || self.inbound.admission.lock().is_exempt(conn.addr().ip()) => {}
            _ => self.report(BanTarget::at(conn.addr().ip()), misbehavior),
        }
    }

    pub(crate) fn report(&self, who: BanTarget, misbehavior: Misbehavior) {
        let wanted = matches!(who, BanTarget::Peer(peer) if self.shared.named.contains(peer));
        let now = clock::now();
        let penalty = self.inbound.conduct.lock().report(who, misbehavior, wanted, now);
        let line = format_args!("{misbehavior}; {penalty}");
        match who {
            BanTarget::Peer(peer) => self.shared.log(peer, Level::Warn, line),
            BanTarget::Address(_) => {
                self.shared.background.log(Class::Stranger, Level::Warn, format_args!("{who}: {line}"));
            }
        }
        let shared = &self.shared;
        match penalty {
            // There are so many addresses that they would drive out other events.
            Penalty::Noted(_) if matches!(who, BanTarget::Address(_)) => {}
            Penalty::Noted(strikes) => shared.tell(Event::Offended { who, misbehavior, strikes }),
            Penalty::Disconnect => {
                shared.tell(Event::Offended { who, misbehavior, strikes: self.config.conduct.threshold });
                self.put_out(who);
            }
            Penalty::Banned(time) => self.banned(Ban::new(who, Some(time), misbehavior.to_string())),
        }
    }

    fn ban(&self, ban: &Ban) {
        let ban = Ban { who: ban.who.normal(), ..ban.clone() };
        self.inbound.conduct.lock().ban(&ban, clock::now());
        self.banned(ban);
    }

    /// After the ban: who joins later finds it, see [`NodeInner::is_banned`]. The application hears of it
    /// before it hears of the connections that it ends.
    fn banned(&self, ban: Ban) {
        let who = ban.who;
        self.shared.tell(Event::Banned { ban });
        self.put_out(who);
        // It has a new deadline.
        self.shared.agenda.round_now();
    }

    /// Ends the connections of this target. For an address only connections that came from there, and none of
    /// a wanted peer.
    fn put_out(&self, who: BanTarget) {
        let reason = EndReason::new(Initiator::Library, EndCause::Banned);
        match who {
            BanTarget::Peer(peer) => self.any_link(peer).iter().for_each(|link| link.end_all(&reason)),
            BanTarget::Address(_) => {
                for link in self.all_links().iter().filter(|link| !self.shared.named.contains(link.peer)) {
                    let conns = link.inspect(LinkInner::handles);
                    let from_there =
                        |conn: &&Arc<ConnHandle>| !conn.dialled && BanTarget::at(conn.addr().ip()) == who;
                    conns.iter().filter(from_there).for_each(|conn| conn.end(reason.clone()));
                }
            }
        }
    }

    /// Lifts the bans that are over. Returns when the next one is.
    pub(crate) fn expire_bans(&self, now: Instant) -> Option<Instant> {
        let mut conduct = self.inbound.conduct.lock();
        let over = conduct.expire(now);
        let next = conduct.next_timeout();
        drop(conduct);
        over.into_iter().for_each(|who| self.shared.tell(Event::Unbanned { who }));
        next
    }
}

fn refused(cause: EndCause) -> EndReason {
    EndReason::new(Initiator::Library, cause)
}

/// The peer dialled, said goodbye at once, and no message of it arrived meanwhile. Messages that this node
/// sent do not count: a node that broadcasts sends something to everybody. Connections of a pool that were
/// one too many end otherwise.
fn is_wasted(conn: &ConnHandle, link: &LinkHandle, reason: &EndReason) -> bool {
    let left = matches!(
        reason,
        EndReason {
            by: Initiator::Peer,
            cause: EndCause::Goaway(GoawayReason::Shutdown | GoawayReason::Removed)
        }
    );
    left && !conn.dialled
        && clock::now().saturating_duration_since(conn.opened) < WASTED_CONNECTION
        && link.inspect(|core| core.link.counters.messages_received) == conn.messages_before.load(Relaxed)
}

impl super::Builder {
    /// Asks the application about peers that dial this node and are neither wanted nor on
    /// [`AdmissionConfig::allow_peers`](crate::AdmissionConfig::allow_peers). Default: whoever there is room
    /// for comes in.
    ///
    /// It runs on the connection's own thread, after the handshake's proof of identity and before the peer
    /// learns of it, many at once, and never on the thread that accepts. **It must not wait for long**: the
    /// handshake's deadline goes on, and shutdown waits for it. If it panics, that connection ends and
    /// nothing else. It should not own a [`Node`]: the node owns the hook, and would never be the last to
    /// be dropped.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use unbroken::{AdmitDecision, Node, PeerId};
    /// use unbroken::crossbeam_channel::unbounded;
    ///
    /// // Whatever the application knows of its validators, shared with the hook.
    /// let validators: Arc<Vec<PeerId>> = Arc::default();
    /// let (asked, questions) = unbounded();
    /// let node = Node::builder()
    ///     .listen("127.0.0.1:0".parse()?)
    ///     .admit(move |peer, _from| {
    ///         let _ = asked.send(*peer);
    ///         if validators.contains(peer) { AdmitDecision::Admit } else { AdmitDecision::Refuse }
    ///     })
    ///     .start()?;
    /// let stranger = Node::builder().peer(node.local_addrs()[0].to_string()).start()?;
    /// assert_eq!(questions.recv()?, stranger.id());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn admit(
        mut self,
        hook: impl Fn(&PeerId, SocketAddr) -> AdmitDecision + Send + Sync + 'static,
    ) -> Self {
        self.admit_hook = AdmitHook(Some(Arc::new(hook)));
        self
    }
}

impl Node {
    /// Reports a misbehavior of a peer, of which the application has proof: see [`Misbehavior`] for what
    /// follows. At the threshold a stranger is banned and its connections end; a wanted peer is
    /// disconnected ([`ConductConfig::ban_wanted`](crate::ConductConfig::ban_wanted)).
    pub fn report(&self, peer: PeerId, misbehavior: Misbehavior) {
        self.handle.core.report(peer.into(), misbehavior);
    }

    /// Bans an identity, or an address, for `time`; `None`: until [`Node::unban`]. Its connections end. It
    /// holds for wanted peers too: they are still dialled, in vain, until [`Node::remove_peer`]. An
    /// address keeps out whoever dials from there; peers behind it can still be dialled. If a ban exists,
    /// the later end counts.
    pub fn ban(&self, who: impl Into<BanTarget>, time: Option<Duration>) {
        self.handle.core.ban(&Ban::new(who, time, "by the application"));
    }

    /// Bans again those who were banned when [`Node::bans`] was kept.
    pub fn restore_bans(&self, bans: &[Ban]) {
        bans.iter().for_each(|ban| self.handle.core.ban(ban));
    }

    /// Lifts a ban and forgets the strikes. False if there was neither.
    pub fn unban(&self, who: impl Into<BanTarget>) -> bool {
        let (core, who) = (&self.handle.core, who.into().normal());
        let (banned, known) = {
            let mut conduct = core.inbound.conduct.lock();
            (conduct.is_banned(who, clock::now()), conduct.unban(who))
        };
        if banned {
            core.shared.tell(Event::Unbanned { who });
        }
        known
    }

    /// Returns the targets that are banned, for how much longer, and why: to be kept, and given to
    /// [`Node::restore_bans`] in the next life.
    pub fn bans(&self) -> Vec<Ban> {
        self.handle.core.inbound.bans()
    }

    /// How many strikes a peer has now. They fade: see
    /// [`ConductConfig::half_life`](crate::ConductConfig::half_life).
    pub fn strikes(&self, who: impl Into<BanTarget>) -> u32 {
        self.handle.core.inbound.conduct.lock().strikes(who.into(), clock::now())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use socket2::{Domain, Socket, Type};

    use super::*;
    use crate::config::{Config, PeerConfig};
    use crate::conn::handshake::Card;
    use crate::conn::threads;
    use crate::id::{Identity, Incarnation};
    use crate::node::resolver::Resolver;
    use crate::wire::preface::{Mode, NetworkName, Versions};

    fn peer(number: u32) -> PeerId {
        let mut bytes = [9; 32];
        bytes[..4].copy_from_slice(&number.to_le_bytes());
        PeerId::from_bytes(bytes)
    }

    /// The roster knows peers only by a search through every address. At a full node that search once for
    /// each link, and for each newcomer, would let strangers keep the roster from everybody else.
    #[test]
    fn a_newcomer_at_a_full_node_does_not_wait_for_the_roster() {
        const LINKS: u32 = 1000;
        let config = Config { max_connections: 40, ..Config::default() };
        let identity = Identity::generate().unwrap();
        let card = Card {
            versions: Versions::OURS,
            mode: Mode::Noise,
            network: NetworkName::empty(),
            peer: identity.peer_id(),
            identity,
            incarnation: Incarnation(1),
        };
        let core =
            Arc::new(NodeInner::new(config, card, Vec::new(), AdmitHook::default(), Resolver::default(), 1));
        for number in 0..LINKS {
            let id = Some(peer(number));
            let address = format!("192.0.2.1:{}", number + 1);
            core.roster.lock().add(PeerConfig { id, ..PeerConfig::new(address) }, clock::now());
            core.link_for(peer(number)).unwrap();
        }
        core.classify_links();
        let roster = core.roster.lock();
        let (done, came) = mpsc::channel();
        let its = Arc::clone(&core);
        let newcomers = threads::spawn("newcomers", move || {
            let addr = SocketAddr::from(([127, 0, 0, 1], 1));
            let mut places = Vec::new();
            for number in LINKS..LINKS + 100 {
                let id = its.next_conn();
                let conn =
                    ConnHandle::new(id, addr, false, Socket::new(Domain::IPV4, Type::STREAM, None).unwrap());
                let place = its.on_accept(id, addr).unwrap();
                if its.enter(&conn, peer(number), false).is_ok() {
                    places.push(place);
                }
            }
            assert!(its.inbound.admission.lock().is_crowded());
            done.send(()).unwrap();
        });
        let answer = came.recv_timeout(Duration::from_secs(60));
        drop(roster);
        newcomers.unwrap().join().unwrap();
        assert_eq!(answer, Ok(()), "a newcomer waited for the roster");
    }
}
