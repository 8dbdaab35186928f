//! Which connections are accepted, and which have to make room. Pure: time is an argument; it decides, others
//! carry out.
//!
//! ```text
//!                  on_accept: address, rate,         enter: identity, hook,
//!                  handshakes under way            connections open
//!   accepted -----------------------> handshake ----------------------> inbound ---> release
//!       |                                 |                                 |
//!       +--> refused                      +--> refused                      +--> evicted for another one
//! ```
//!
//! # The rules
//! Before the handshake only the address is known, after it the identity is proven.
//!
//! | step | refused | limits |
//! |---|---|---|
//! | on_accept | networks that are denied, or not allowed; banned addresses | handshakes in all, per address, per subnet; new connections per address and time |
//! | enter | identities that are denied, not allowed or banned; who the application's hook refuses | open connections in all, per address, per subnet, per identity |
//!
//! - An address is an IPv4 address or an IPv6 /64; a subnet is an IPv4 /24 or an IPv6 /56.
//! - The connection of a proxy counts among the handshakes when it is accepted, and from the address that its
//!   header says when that has been read.
//! - Addresses on the exempt list (loopback) know only the limits in all. Nor do wanted peers know those per
//!   address and per subnet once they have proven who they are.
//! - **Rate**: a wanted peer that is admitted refunds the token of its connection to its address. So any
//!   number of them behind one address come back at once, and an attacker, who is not wanted, gains nothing.
//! - **Reserved slots**: strangers never get the last ones, so a wanted peer finds room; if there is none a
//!   stranger goes for it.
//! - **Handshakes full**: the oldest handshake of the largest subnet goes, if it is older than a tenth of its
//!   deadline. An honest one takes two or three round trips, so those that stall make room for those that do
//!   not.
//! - **Address or subnet full**: a further connection of a peer is worth less than the first one of another.
//!   So the first connection of a newcomer takes the place of the youngest connection of the stranger that
//!   has the most from there, if that has several. A peer that has one already is refused.
//! - **Strangers full**: [`evict`] says which one goes.
//!
//! # Invariants
//! - Memory is bounded: by the connections, and for the rates by [`rate::MAX_TRACKED`] addresses.
//! - Every connection that knocked and was not refused leaves exactly once, whatever becomes of it.

mod config;
pub(crate) mod evict;
mod rate;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::id::{ConnId, PeerId};

pub use config::AdmissionConfig;
use evict::{Candidate, Merit};
use rate::Rates;

/// Why a connection was not let in, as in [`EndCause::NotAdmitted`](crate::EndCause::NotAdmitted). What the
/// other side is told and [`Event::Refused`](crate::Event::Refused) reports is the
/// [`RefusedReason`](crate::RefusedReason).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Refusal {
    /// Its address or identity is denied, or is not among those allowed.
    Denied,
    /// Its address opens connections too often.
    TooOften,
    /// Too many handshakes are under way, in all or from there.
    Handshakes,
    /// Too many connections come from its address.
    Address,
    /// Too many connections come from its subnet.
    Subnet,
    /// It has too many connections itself.
    Peer,
    /// The node has as many connections as
    /// [`AdmissionConfig::max_inbound`](crate::AdmissionConfig::max_inbound) and
    /// [`Config::max_connections`](crate::Config::max_connections) leave to such a peer.
    Full,
    /// Messages that the application has not taken fill
    /// [`Config::max_inbox`](crate::Config::max_inbox): strangers that are not linked have to wait.
    Inbox,
    /// The application did not want it.
    Application,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Denied => "it is not on the list",
            Refusal::TooOften => "its address connects too often (`admission.connects_per_minute`)",
            Refusal::Handshakes => "too many handshakes are under way",
            Refusal::Address => "too many connections from its address (`admission.max_inbound_per_address`)",
            Refusal::Subnet => "too many connections from its subnet (`admission.max_inbound_per_subnet`)",
            Refusal::Peer => "it has too many connections (`admission.max_inbound_per_peer`)",
            Refusal::Full => "no room (`admission.max_inbound`, `max_connections`)",
            Refusal::Inbox => "messages that the application has not taken fill `max_inbox`",
            Refusal::Application => "the application refused it",
        })
    }
}

/// The application's decision about an unknown peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AdmitDecision {
    /// It may come in, if there is room.
    Admit,
    /// It may not.
    Refuse,
}

/// Asked for each peer that dials us and is neither wanted nor on the list of those allowed; see
/// [`Builder::admit`](crate::Builder::admit).
pub(crate) type Hook = dyn Fn(&PeerId, SocketAddr) -> AdmitDecision + Send + Sync;

/// The decision about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Decision {
    Admit,
    /// Admit it, and end this one, whose place it got.
    Replace(ConnId),
    Refuse(Refusal),
}

/// In its handshake.
#[derive(Clone, Copy, Debug)]
struct Handshaking {
    /// Of the proxy, as long as its header is awaited.
    addr: IpAddr,
    since: Instant,
    awaits_header: bool,
}

/// Let in.
#[derive(Clone, Copy, Debug)]
struct Inbound {
    addr: IpAddr,
    peer: PeerId,
    wanted: bool,
    since: Instant,
}

#[derive(Debug)]
pub(crate) struct Admission {
    config: AdmissionConfig,
    max_handshakes: usize,
    /// Open connections, and how many of them strangers may have.
    capacity: usize,
    for_strangers: usize,
    /// Evicted connections that may be about to end at the same time.
    max_leaving: usize,
    /// A handshake that is older may go for another one.
    patience: Duration,
    handshaking: HashMap<ConnId, Handshaking>,
    inbound: HashMap<ConnId, Inbound>,
    /// Evicted, and not ended yet.
    leaving: HashMap<ConnId, IpAddr>,
    rates: Rates,
    secret: u64,
}

impl Admission {
    /// `secret` is drawn at random: by it nobody can tell which subnets are protected.
    pub(crate) fn new(
        config: AdmissionConfig,
        max_connections: usize,
        max_handshakes: usize,
        handshake_timeout: Duration,
        secret: u64,
    ) -> Self {
        let max_handshakes = max_handshakes.min((max_connections / 4).max(1));
        let max_leaving = 64.min(max_connections / 16).max(1);
        // Reserved twice: for wanted peers that dial us, and for our own dials.
        let reserved = config.reserved.min(config.most_reserved(max_connections));
        let left = max_connections.saturating_sub(max_handshakes + max_leaving + reserved).max(1);
        let capacity = config.max_inbound.min(left);
        Admission {
            max_handshakes,
            capacity,
            for_strangers: capacity.saturating_sub(reserved).max(1),
            max_leaving,
            patience: handshake_timeout / 10,
            handshaking: HashMap::new(),
            inbound: HashMap::new(),
            leaving: HashMap::new(),
            rates: Rates::new(config.connects_per_minute, config.connects_at_once),
            secret,
            config,
        }
    }

    /// No limit per address or subnet holds for it, and it is not banned by its address.
    pub(crate) fn is_exempt(&self, addr: IpAddr) -> bool {
        contains(&self.config.exempt, addr.to_canonical())
    }

    /// A connection was accepted. Unless it is refused it is counted from now on.
    pub(crate) fn on_accept(&mut self, conn: ConnId, addr: IpAddr, now: Instant) -> Decision {
        let addr = addr.to_canonical();
        match self.check_origin(addr, now) {
            Ok(()) => self.begin(conn, Handshaking { addr, since: now, awaits_header: false }, now),
            Err(refusal) => Decision::Refuse(refusal),
        }
    }

    /// A connection of a proxy was accepted, which will say in a header whose it is. It counts as one that
    /// was accepted, and towards no limit of an address until [`Admission::on_header`].
    pub(crate) fn on_accept_proxied(&mut self, conn: ConnId, proxy: IpAddr, now: Instant) -> Decision {
        let addr = proxy.to_canonical();
        self.begin(conn, Handshaking { addr, since: now, awaits_header: true }, now)
    }

    /// The proxy has said that it comes from `addr`: now it is as if it had been accepted from there.
    pub(crate) fn on_header(&mut self, conn: ConnId, addr: IpAddr, now: Instant) -> Result<(), Refusal> {
        let addr = addr.to_canonical();
        // Not there when its place was given to another handshake meanwhile.
        let Handshaking { since, .. } = self.handshaking.remove(&conn).ok_or(Refusal::Handshakes)?;
        self.check_origin(addr, now)?;
        self.handshaking.insert(conn, Handshaking { addr, since, awaits_header: false });
        Ok(())
    }

    /// Whether one more handshake may begin from there.
    fn check_origin(&mut self, addr: IpAddr, now: Instant) -> Result<(), Refusal> {
        let config = &self.config;
        let allowed = config.allow_addresses.is_empty() || contains(&config.allow_addresses, addr);
        if contains(&config.deny_addresses, addr) || !allowed {
            return Err(Refusal::Denied);
        }
        if !self.is_exempt(addr) {
            let from = |same: fn(IpAddr) -> IpAddr| {
                let known = self.handshaking.values().filter(|handshaking| !handshaking.awaits_header);
                known.filter(|handshaking| same(handshaking.addr) == same(addr)).count()
            };
            if from(address) >= config.max_handshakes_per_address
                || from(subnet) >= config.max_handshakes_per_subnet
            {
                return Err(Refusal::Handshakes);
            }
            if !self.rates.take(address(addr), now) {
                return Err(Refusal::TooOften);
            }
        }
        Ok(())
    }

    fn begin(&mut self, conn: ConnId, handshaking: Handshaking, now: Instant) -> Decision {
        let mut decision = Decision::Admit;
        if self.handshaking.len() >= self.max_handshakes {
            let Some(stalled) = self.stalled(now) else { return Decision::Refuse(Refusal::Handshakes) };
            self.handshaking.remove(&stalled);
            decision = Decision::Replace(stalled);
        }
        self.handshaking.insert(conn, handshaking);
        decision
    }

    /// The oldest handshake of the largest subnet, if it is old enough to go.
    fn stalled(&self, now: Instant) -> Option<ConnId> {
        let mut sizes: HashMap<IpAddr, usize> = HashMap::new();
        self.handshaking
            .values()
            .for_each(|handshaking| *sizes.entry(subnet(handshaking.addr)).or_default() += 1);
        let old = self
            .handshaking
            .iter()
            .filter(|(_, handshaking)| now.saturating_duration_since(handshaking.since) >= self.patience);
        let size = |handshaking: &Handshaking| sizes.get(&subnet(handshaking.addr)).copied().unwrap_or(0);
        old.max_by_key(|(conn, handshaking)| {
            (size(handshaking), std::cmp::Reverse(handshaking.since), std::cmp::Reverse(**conn))
        })
        .map(|(conn, _)| *conn)
    }

    /// Whether [`Admission::enter`] will want to know what the inbound are good for.
    pub(crate) fn is_crowded(&self) -> bool {
        self.inbound.len() + 1 >= self.for_strangers
    }

    /// Whether this peer may come in as far as the lists say. `None`: they do not say, the application's hook
    /// is to be asked.
    pub(crate) fn listed(&self, peer: &PeerId, wanted: bool) -> Option<bool> {
        let config = &self.config;
        if config.deny_peers.contains(peer) {
            Some(false)
        } else if wanted || config.allow_peers.contains(peer) {
            Some(true)
        } else if !config.allow_peers.is_empty() {
            Some(false)
        } else {
            None
        }
    }

    /// It is known who it is, and nobody had anything against that. Unless it is let in it has still to
    /// release. `merit` says what a inbound is good for.
    pub(crate) fn enter(
        &mut self,
        conn: ConnId,
        peer: PeerId,
        wanted: bool,
        merit: impl Fn(ConnId) -> Merit,
        now: Instant,
    ) -> Decision {
        // Not there when its place was given to another handshake meanwhile.
        let Some(Handshaking { addr, .. }) = self.handshaking.remove(&conn) else {
            return Decision::Refuse(Refusal::Handshakes);
        };
        let count =
            |is: &dyn Fn(&Inbound) -> bool| self.inbound.values().filter(|inbound| is(inbound)).count();
        if count(&|inbound| inbound.peer == peer) >= self.config.max_inbound_per_peer {
            return Decision::Refuse(Refusal::Peer);
        }
        if !wanted && !self.is_exempt(addr) {
            let leaving = |same: fn(IpAddr) -> IpAddr| {
                self.leaving.values().filter(|other| same(**other) == same(addr)).count()
            };
            let from = |same: fn(IpAddr) -> IpAddr| {
                count(&|inbound| !inbound.wanted && same(inbound.addr) == same(addr)) + leaving(same)
            };
            let limits = [
                (address as fn(IpAddr) -> IpAddr, self.config.max_inbound_per_address, Refusal::Address),
                (subnet, self.config.max_inbound_per_subnet, Refusal::Subnet),
            ];
            let exceeded = limits.into_iter().find(|(same, limit, _)| from(*same) >= *limit);
            if let Some((same, _, refusal)) = exceeded {
                // One at a time, so that the connections that are about to end do not add up.
                let spare = if leaving(same) == 0 {
                    self.spare(peer, |inbound| same(inbound) == same(addr))
                } else {
                    None
                };
                return match spare {
                    Some(victim) => {
                        self.replace(victim, conn, Inbound { addr, peer, wanted, since: now });
                        Decision::Replace(victim)
                    }
                    None => Decision::Refuse(refusal),
                };
            }
        }
        self.inbound.iter_mut().for_each(|(conn, inbound)| inbound.wanted |= merit(*conn).wanted);
        let strangers = self.inbound.values().filter(|inbound| !inbound.wanted).count();
        let full = self.inbound.len() >= self.capacity || (!wanted && strangers >= self.for_strangers);
        if full {
            // A wanted peer comes from nowhere: whoever is left by the rule goes for it.
            let from = if wanted { NO_SUBNET } else { subnet(addr) };
            let busy = !wanted && self.leaving.len() >= self.max_leaving;
            let victim = if busy { None } else { evict::choose(self.candidates(merit), from) };
            let Some(victim) = victim else { return Decision::Refuse(Refusal::Full) };
            self.replace(victim, conn, Inbound { addr, peer, wanted, since: now });
            return Decision::Replace(victim);
        }
        self.let_in(conn, Inbound { addr, peer, wanted, since: now });
        Decision::Admit
    }

    fn let_in(&mut self, conn: ConnId, inbound: Inbound) {
        if inbound.wanted {
            self.rates.give_back(address(inbound.addr));
        }
        self.inbound.insert(conn, inbound);
    }

    fn replace(&mut self, victim: ConnId, conn: ConnId, inbound: Inbound) {
        if let Some(victims) = self.inbound.remove(&victim) {
            self.leaving.insert(victim, victims.addr);
        }
        self.let_in(conn, inbound);
    }

    /// The connection that goes for the first one of `newcomer`: the youngest of the stranger that has the
    /// most from there, if it has more than one. `None` if the newcomer has a connection.
    fn spare(&self, newcomer: PeerId, from_there: impl Fn(IpAddr) -> bool) -> Option<ConnId> {
        if self.inbound.values().any(|inbound| inbound.peer == newcomer) {
            return None;
        }
        let there = || self.inbound.iter().filter(|(_, inbound)| !inbound.wanted && from_there(inbound.addr));
        let mut counts: HashMap<PeerId, usize> = HashMap::new();
        there().for_each(|(_, inbound)| *counts.entry(inbound.peer).or_default() += 1);
        let count = |inbound: &Inbound| counts.get(&inbound.peer).copied().unwrap_or(0);
        let several = there().filter(|(_, inbound)| count(inbound) > 1);
        several.max_by_key(|(conn, inbound)| (count(inbound), inbound.since, **conn)).map(|(conn, _)| *conn)
    }

    fn candidates(&self, merit: impl Fn(ConnId) -> Merit) -> Vec<Candidate> {
        let strangers = self.inbound.iter().filter(|(_, inbound)| !inbound.wanted);
        let candidate = |(conn, inbound): (&ConnId, &Inbound)| {
            let subnet = subnet(inbound.addr);
            let mut hasher = DefaultHasher::new();
            (self.secret, subnet).hash(&mut hasher);
            Candidate {
                conn: *conn,
                subnet,
                draw: hasher.finish(),
                since: inbound.since,
                merit: merit(*conn),
            }
        };
        strangers.map(candidate).collect()
    }

    /// A connection that had knocked has ended.
    pub(crate) fn release(&mut self, conn: ConnId) {
        self.handshaking.remove(&conn);
        self.inbound.remove(&conn);
        self.leaving.remove(&conn);
    }

    /// Handshakes under way, and inbound.
    #[cfg(test)]
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.handshaking.len(), self.inbound.len())
    }
}

/// Not the subnet of any connection.
const NO_SUBNET: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

fn contains(networks: &[IpNet], addr: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&addr))
}

/// The key of limits per address.
fn address(addr: IpAddr) -> IpAddr {
    masked(addr, 32, 64)
}

/// The key of limits per subnet.
fn subnet(addr: IpAddr) -> IpAddr {
    masked(addr, 24, 56)
}

fn masked(addr: IpAddr, v4: u32, v6: u32) -> IpAddr {
    match addr {
        IpAddr::V4(addr) => {
            IpAddr::V4(Ipv4Addr::from_bits(addr.to_bits() & u32::MAX.checked_shl(32 - v4).unwrap_or(0)))
        }
        IpAddr::V6(addr) => {
            IpAddr::V6(Ipv6Addr::from_bits(addr.to_bits() & u128::MAX.checked_shl(128 - v6).unwrap_or(0)))
        }
    }
}
