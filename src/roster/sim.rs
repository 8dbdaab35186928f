//! A world of peers that die, refuse, accept and leave, or answer badly, and a node in it. Seeded: a failure
//! names its seed. The invariants of the module's page are checked with each action.

#![allow(clippy::disallowed_methods)] // Tests need some instant to start from; they never read the clock again.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use crate::config::{Config, PeerConfig};
use crate::error::{EndCause, EndReason, Initiator};
use crate::id::{ConnId, PeerId};

use super::candidates::MAX_DIALS;
use super::slots::{LinkView, ReplaceReason, Trouble};
use super::{Action, Roster, TargetId};
use crate::lane::MAX_SLOTS;

const S: Duration = Duration::from_secs(1);
const US: PeerId = PeerId::from_bytes([255; 32]);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Well,
    /// Dials run into their timeout, connections turn suspect and die.
    Dead,
    Refuses,
    /// Takes connections and ends them before anything is answered.
    Leaves,
    /// Answers, but with a low score.
    Poor,
    /// Takes one connection and refuses all further ones.
    OnlyOne,
}

#[derive(Debug)]
struct Host {
    peer: PeerId,
    mood: Mood,
}

#[derive(Debug)]
struct Conn {
    id: ConnId,
    slot: u8,
    trouble: Option<ReplaceReason>,
    proven: bool,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happens {
    DialEnds {
        target: TargetId,
        slot: u8,
        host: usize,
    },
    Answers {
        host: usize,
        conn: ConnId,
    },
    ConnEnds {
        host: usize,
        conn: ConnId,
    },
    Scores,
    /// Something is done to somebody, drawn when it happens.
    Fate,
}

struct World {
    seed: u64,
    rng: fastrand::Rng,
    now: Instant,
    start: Instant,
    config: Config,
    roster: Roster,
    hosts: Vec<Host>,
    addresses: BTreeMap<String, usize>,
    wanted: Vec<usize>,
    links: BTreeMap<usize, Vec<Conn>>,
    next_conn: u64,
    queue: BinaryHeap<Reverse<(Instant, u64, Happens)>>,
    pushed: u64,
    flying: Vec<(TargetId, u8, usize)>,
    replacements: VecDeque<Instant>,
    /// Dials so far, by host.
    dials: BTreeMap<usize, u32>,
    retired: Vec<(usize, usize)>,
    dial_backs: u32,
    /// A peer that was linked once is dialled again at once after a loss, without being chosen anew.
    linked_once: BTreeSet<usize>,
    /// Trouble comes no more: what is to be reached is reached.
    calm: bool,
}

impl World {
    fn new(seed: u64, wanted: usize, candidates: usize, change: impl FnOnce(&mut Config)) -> World {
        let mut config = Config::default();
        change(&mut config);
        let now = Instant::now();
        let mut world = World {
            seed,
            rng: fastrand::Rng::with_seed(seed),
            now,
            start: now,
            roster: Roster::new(US, &config, seed),
            config,
            hosts: Vec::new(),
            addresses: BTreeMap::new(),
            wanted: (0..wanted).collect(),
            links: BTreeMap::new(),
            next_conn: 0,
            queue: BinaryHeap::new(),
            pushed: 0,
            flying: Vec::new(),
            replacements: VecDeque::new(),
            dials: BTreeMap::new(),
            retired: Vec::new(),
            dial_backs: 0,
            linked_once: BTreeSet::new(),
            calm: false,
        };
        for host in 0..wanted + candidates {
            let [high, low] = (host as u16).to_be_bytes();
            let peer = PeerId::from_bytes([high, low].repeat(16).try_into().unwrap());
            world.hosts.push(Host { peer, mood: Mood::Well });
            // One in ten /16s is a network of its own, the others share one.
            let network = if host % 10 == 0 { low } else { 200 };
            let address = format!("10.{network}.{high}.{low}:1");
            world.addresses.insert(address.clone(), host);
            if host < wanted {
                world.roster.add(PeerConfig::new(address), now);
            } else {
                assert!(world.roster.learn(PeerConfig::new(address), now));
            }
        }
        world.at(S, Happens::Scores);
        world
    }

    fn at(&mut self, after: Duration, what: Happens) {
        self.pushed += 1;
        self.queue.push(Reverse((self.now + after, self.pushed, what)));
    }

    fn between(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.rng.u64(from..to))
    }

    fn story(&self) -> String {
        format!("seed {} after {:?}", self.seed, self.now - self.start)
    }

    // --- the node -------------------------------------------------------------------------------

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            let mut polls = 0;
            while let Some(action) = self.roster.poll(self.now) {
                polls += 1;
                assert!(polls < 10_000, "{}: polled without end", self.story());
                self.act(action);
            }
            let next = self.roster.next_timeout(self.now);
            assert!(next.is_none_or(|at| at > self.now), "{}: a timer that does not fire", self.story());
            let event = self.queue.peek().map(|Reverse((at, ..))| *at);
            let next = next.into_iter().chain(event).chain([end]).min().unwrap();
            self.now = next;
            while let Some(Reverse((at, _, what))) = self.queue.pop_if_due(self.now) {
                assert!(at <= self.now);
                self.happen(what);
            }
            self.check();
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Dial { target, slot, replaces, config, peer, expected, dial_back, .. } => {
                let host = self.addresses[&config.address];
                if dial_back {
                    let link = Some(self.hosts[host].peer);
                    assert!(replaces.is_some() && expected == link && peer == link, "{}", self.story());
                    assert!(!self.wanted.contains(&host), "{}: has an entry of its own", self.story());
                    self.dial_backs += 1;
                }
                let twice = |(other, its_slot, its_host): &(TargetId, u8, usize)| {
                    *its_slot == slot && (*other == target || (peer.is_some() && *its_host == host))
                };
                assert!(!self.flying.iter().any(twice), "{}: two dials for one place", self.story());
                if replaces.is_some() {
                    self.replacements.push_back(self.now);
                    let serves = self.links.get(&host).is_some_and(|conns| {
                        conns.iter().any(|conn| Some(conn.id) == replaces.map(|trouble| trouble.conn))
                    });
                    assert!(serves, "{}: a successor for nobody", self.story());
                }
                self.flying.push((target, slot, host));
                *self.dials.entry(host).or_default() += 1;
                let takes = match self.hosts[host].mood {
                    Mood::Dead => 5 * S,
                    _ => self.between(1, 300),
                };
                self.at(takes, Happens::DialEnds { target, slot, host });
            }
            Action::BreakerChanged { .. } => {}
            Action::Retire { peer, successor } => {
                let [poor, good] = [peer, successor].map(|peer| self.host_of(peer));
                assert!(!self.wanted.contains(&poor), "{}: a wanted peer was retired", self.story());
                let proven = self.links.get(&good).is_some_and(|conns| conns.iter().any(|conn| conn.proven));
                assert!(proven, "{}: retired before the successor answered", self.story());
                assert!(self.links.contains_key(&poor), "{}", self.story());
                self.retired.push((poor, good));
                self.links.remove(&poor);
                self.tell(poor);
            }
        }
    }

    fn host_of(&self, peer: PeerId) -> usize {
        self.hosts.iter().position(|host| host.peer == peer).unwrap()
    }

    fn check(&mut self) {
        while self.replacements.front().is_some_and(|at| *at + 60 * S <= self.now) {
            self.replacements.pop_front();
        }
        let max = self.config.max_replacements_per_minute as usize;
        assert!(self.replacements.len() <= max, "{}: a storm", self.story());
        assert_eq!(self.roster.replacements(self.now), self.replacements.len());
        let strangers = |(_, _, host): &&(TargetId, u8, usize)| {
            !self.wanted.contains(host) && !self.linked_once.contains(host)
        };
        let flying = self.flying.iter().filter(strangers).count();
        // One more for an exchange.
        assert!(flying <= MAX_DIALS + 1, "{}: {flying} candidates dialled at once", self.story());
        assert!(self.flying.len() <= self.config.max_dials, "{}: too many dials", self.story());
        assert!(self.roster.candidates() <= self.config.max_candidates);
    }

    fn tell(&mut self, host: usize) {
        let mut view = LinkView::default();
        let addr = ([10, 0, 0, 1], 1).into();
        // All announce the address at which they are to be dialled.
        let address =
            self.addresses.iter().find(|(_, its_host)| **its_host == host).map(|(address, _)| address);
        let redial = address.and_then(|address| address.parse().ok());
        for conn in self.links.get(&host).into_iter().flatten() {
            match conn.trouble {
                None => view.good.insert(conn.slot),
                Some(reason) => view.set_trouble(conn.slot, Trouble { conn: conn.id, addr, reason, redial }),
            }
        }
        self.links.retain(|_, conns| !conns.is_empty());
        self.roster.handle_link(self.hosts[host].peer, view, self.now);
    }

    // --- what happens to it ---------------------------------------------------------------------

    fn happen(&mut self, what: Happens) {
        match what {
            Happens::DialEnds { target, slot, host } => self.dial_ends(target, slot, host),
            Happens::Answers { host, conn } => {
                let Some(conn) = self.conn(host, conn) else { return };
                conn.proven = true;
                let (slot, peer) = (conn.slot, self.hosts[host].peer);
                self.roster.handle_proven(peer, slot, self.now);
            }
            Happens::ConnEnds { host, conn } => {
                if let Some(conns) = self.links.get_mut(&host) {
                    conns.retain(|other| other.id != conn);
                    self.tell(host);
                }
            }
            Happens::Scores => {
                for host in self.links.keys() {
                    let score = if self.hosts[*host].mood == Mood::Poor { 0.2 } else { 0.9 };
                    self.roster.handle_score(self.hosts[*host].peer, score, self.now);
                }
                self.at(S, Happens::Scores);
            }
            Happens::Fate if self.calm => {}
            Happens::Fate => {
                self.fate();
                let pause = self.between(100, 20_000);
                self.at(pause, Happens::Fate);
            }
        }
    }

    fn conn(&mut self, host: usize, conn: ConnId) -> Option<&mut Conn> {
        self.links.get_mut(&host)?.iter_mut().find(|other| other.id == conn)
    }

    fn dial_ends(&mut self, target: TargetId, slot: u8, host: usize) {
        self.flying.retain(|(other, its_slot, _)| (*other, *its_slot) != (target, slot));
        let mood = self.hosts[host].mood;
        let has_one = self.links.get(&host).is_some_and(|conns| conns.iter().any(|conn| conn.slot != slot));
        if matches!(mood, Mood::Dead | Mood::Refuses) || (mood == Mood::OnlyOne && has_one) {
            let reason = EndReason::new(Initiator::Network, EndCause::Closed);
            self.roster.handle_dial_failed(target, slot, &reason, self.now);
            return;
        }
        if self.roster.handle_dialled(target, slot, self.hosts[host].peer, self.now) {
            self.join(host, slot);
        } else {
            let retired = self.retired.iter().any(|(poor, _)| *poor == host);
            assert!(retired, "{}: {host} was dialled for nothing", self.story());
            self.tell(host);
        }
    }

    fn join(&mut self, host: usize, slot: u8) {
        self.next_conn += 1;
        let conn = ConnId(self.next_conn);
        self.linked_once.insert(host);
        let conns = self.links.entry(host).or_default();
        // The successor takes over, or the same side has dialled again.
        conns.retain(|old| old.slot != slot);
        conns.push(Conn { id: conn, slot, trouble: None, proven: false });
        self.tell(host);
        match self.hosts[host].mood {
            Mood::Leaves => {
                let stays = self.between(1, 100);
                self.at(stays, Happens::ConnEnds { host, conn });
            }
            _ => {
                let answer = self.between(1, 200);
                self.at(answer, Happens::Answers { host, conn });
            }
        }
    }

    fn fate(&mut self) {
        let host = self.rng.usize(0..self.hosts.len());
        match self.rng.u8(0..10) {
            0..4 => {
                let moods = [
                    Mood::Well,
                    Mood::Dead,
                    Mood::Refuses,
                    Mood::Leaves,
                    Mood::Poor,
                    Mood::OnlyOne,
                    Mood::Well,
                ];
                self.hosts[host].mood = moods[self.rng.usize(0..moods.len())];
                if self.hosts[host].mood == Mood::Dead {
                    self.trouble(host, ReplaceReason::Suspect);
                    for conn in self
                        .links
                        .get(&host)
                        .map_or(Vec::new(), |conns| conns.iter().map(|conn| conn.id).collect())
                    {
                        self.at(20 * S, Happens::ConnEnds { host, conn });
                    }
                }
            }
            4 => {
                self.links.remove(&host);
                self.tell(host);
            }
            5 => {
                // A storm: everything is suspect at once.
                let linked: Vec<_> = self.links.keys().copied().collect();
                linked.into_iter().for_each(|host| self.trouble(host, ReplaceReason::Suspect));
            }
            6 => self.trouble(host, ReplaceReason::Aged),
            7 => {
                // They recover.
                self.links.values_mut().flatten().for_each(|conn| conn.trouble = None);
                let linked: Vec<_> = self.links.keys().copied().collect();
                linked.into_iter().for_each(|host| self.tell(host));
            }
            _ if self.hosts[host].mood == Mood::Well => self.join(host, 0), // It dials us.
            _ => {}
        }
    }

    fn trouble(&mut self, host: usize, reason: ReplaceReason) {
        if let Some(conns) = self.links.get_mut(&host) {
            conns.iter_mut().for_each(|conn| conn.trouble = Some(reason));
            self.tell(host);
        }
    }

    fn set_all(&mut self, mood: Mood) {
        self.hosts.iter_mut().for_each(|host| host.mood = mood);
    }

    fn linked_candidates(&self) -> Vec<usize> {
        self.links.keys().copied().filter(|host| !self.wanted.contains(host)).collect()
    }
}

trait PopIfDue {
    fn pop_if_due(&mut self, now: Instant) -> Option<Reverse<(Instant, u64, Happens)>>;
}

impl PopIfDue for BinaryHeap<Reverse<(Instant, u64, Happens)>> {
    fn pop_if_due(&mut self, now: Instant) -> Option<Reverse<(Instant, u64, Happens)>> {
        self.peek().is_some_and(|Reverse((at, ..))| *at <= now).then(|| self.pop()).flatten()
    }
}

#[test]
fn whatever_happens_the_invariants_hold_and_calm_brings_everybody_back() {
    let mut dial_backs = 0;
    for seed in 0..300 {
        let pool = (seed % 3) as u8 + 1;
        let (wanted, target) = ((seed % 7) as usize, (seed % 11) as usize);
        let mut world = World::new(seed, wanted, 30, |config| {
            config.connections = pool;
            config.target_peers = target;
            config.max_replacements_per_minute = 1 + (seed % 20) as u32;
            config.max_candidates = 30;
            config.max_dials = if seed % 2 == 0 { 8 } else { 256 };
        });
        world.at(S, Happens::Fate);
        world.run(1800 * S);
        world.calm = true;
        world.set_all(Mood::Well);
        // The longest wait of a wanted peer is a minute, of a candidate ten; the replacement limit may hold
        // up more.
        world.links.values_mut().flatten().for_each(|conn| conn.trouble = None);
        for host in world.links.keys().copied().collect::<Vec<_>>() {
            world.tell(host);
        }
        world.run(1200 * S);
        let story = world.story();
        for host in 0..wanted {
            let conns = &world.links.get(&host).unwrap_or_else(|| panic!("{story}: {host} is missing"));
            for slot in 0..pool {
                let in_slot: Vec<_> = conns.iter().filter(|conn| conn.slot == slot).collect();
                assert!(in_slot.len() == 1 && in_slot[0].trouble.is_none(), "{story}: {host} {conns:?}");
            }
            assert!(conns.iter().all(|conn| conn.slot < MAX_SLOTS));
        }
        assert!(world.links.len() >= target, "{story}: {} of {target}", world.links.len());
        dial_backs += world.dial_backs;
    }
    assert!(dial_backs > 100, "{dial_backs}");
}

#[test]
fn a_failing_address_is_dialled_ever_more_seldom_and_never_given_up() {
    for seed in 0..100 {
        for mood in [Mood::Dead, Mood::Refuses, Mood::Leaves, Mood::OnlyOne] {
            let pool = (seed % 3) as u8 + 1;
            let mut world = World::new(seed, 1, 0, |config| config.connections = pool);
            world.set_all(mood);
            world.run(600 * S);
            let early = world.dials[&0];
            world.run(3600 * S);
            let late = world.dials[&0] - early;
            let places = if mood == Mood::OnlyOne { u32::from(pool) - 1 } else { 1 };
            // A random part of a minute each: 120 in an hour on average, for each place that waits for
            // itself.
            let places = if mood == Mood::Leaves { u32::from(pool) } else { places };
            assert!(late <= 220 * places, "seed {seed} {mood:?}: {late} dials in an hour");
            assert!(places == 0 || late >= 40, "seed {seed} {mood:?}: {late} dials in an hour");
        }
    }
}

#[test]
fn there_are_as_many_peers_as_there_should_be_while_some_die() {
    for seed in 0..200 {
        let mut world = World::new(seed, 2, 40, |config| config.target_peers = 8);
        world.run(10 * S);
        assert_eq!(world.links.len(), 8, "{}: and not one more", world.story());
        for _ in 0..20 {
            let linked = world.linked_candidates();
            let victim = linked[world.rng.usize(0..linked.len())];
            world.hosts[victim].mood = Mood::Refuses;
            world.links.remove(&victim);
            world.tell(victim);
            world.run(2 * S);
            assert_eq!(world.links.len(), 8, "{}", world.story());
            assert!(!world.links.contains_key(&victim));
        }
    }
}

#[test]
fn ninety_of_a_hundred_in_one_network_are_not_all_that_is_chosen() {
    let mut from_elsewhere = Vec::new();
    for seed in 0..200 {
        let mut world = World::new(seed, 0, 100, |config| config.target_peers = 8);
        world.run(10 * S);
        let chosen = world.linked_candidates();
        assert_eq!(chosen.len(), 8, "{}", world.story());
        from_elsewhere.push(chosen.iter().filter(|host| *host % 10 == 0).count());
        // Without any other there is no objection to the same.
        for host in (0..100).filter(|host| host % 10 == 0) {
            world.hosts[host].mood = Mood::Refuses;
            world.links.remove(&host);
            world.tell(host);
        }
        world.run(30 * S);
        assert_eq!(world.links.len(), 8, "{}", world.story());
    }
    assert!(from_elsewhere.iter().all(|count| *count >= 7), "{from_elsewhere:?}");
}

#[test]
fn a_poor_candidate_is_exchanged_and_a_poor_wanted_peer_is_kept() {
    for seed in 0..200 {
        let mut world = World::new(seed, 2, 20, |config| config.target_peers = 5);
        world.run(10 * S);
        let linked = world.linked_candidates();
        assert_eq!(linked.len(), 3);
        [0, 1, linked[0], linked[1]].into_iter().for_each(|host| world.hosts[host].mood = Mood::Poor);
        world.run(59 * S);
        assert_eq!(world.retired, [], "{}: too soon", world.story());
        world.run(4 * S);
        assert_eq!(world.retired.len(), 1, "{}: one at a time", world.story());
        assert_eq!(world.links.len(), 5, "{}", world.story());
        world.run(50 * S);
        assert_eq!(world.retired.len(), 1, "{}: and a pause between", world.story());
        world.run(20 * S);
        let mut gone: Vec<_> = world.retired.iter().map(|(poor, _)| *poor).collect();
        gone.sort_unstable();
        let mut expected = vec![linked[0], linked[1]];
        expected.sort_unstable();
        assert_eq!(gone, expected, "{}", world.story());
        world.run(600 * S);
        assert_eq!((world.retired.len(), world.links.len()), (2, 5), "{}", world.story());
    }
}

#[test]
fn nobody_is_exchanged_for_somebody_worse() {
    for seed in 0..50 {
        let mut world = World::new(seed, 0, 6, |config| config.target_peers = 3);
        world.run(10 * S);
        let linked = world.linked_candidates();
        for host in 0..6 {
            world.hosts[host].mood = if linked.contains(&host) { Mood::Poor } else { Mood::Refuses };
        }
        world.run(3600 * S);
        assert_eq!((world.retired.len(), world.linked_candidates()), (0, linked), "{}", world.story());
        let others = (0..6).filter(|host| !world.links.contains_key(host));
        let dials: u32 = others.filter_map(|host| world.dials.get(&host)).sum();
        assert!(dials <= 3 * 4, "{}: {dials} dials in an hour in vain", world.story());
    }
}
