//! An attacker tries to take every slot, by seed.
//!
//! He has as many addresses and identities as the case says, answers faster than anybody, sends as much junk
//! as counts for most, replies as anybody does, and never leaves. The honest strangers are as honest
//! ones are: some far away, some silent, and they were here before, unless the case says otherwise.

#![allow(clippy::disallowed_methods)] // Some instant to start from; it never reads the clock again.

use super::tests::peer;
use super::*;

const HOUR: Duration = Duration::from_secs(3600);
/// Slots of strangers.
const SLOTS: usize = 128;
const RESERVED: usize = 32;

struct World {
    admission: Admission,
    rng: fastrand::Rng,
    now: Instant,
    next: u64,
    /// The peers that are in: when each came, and its kind.
    inside: HashMap<ConnId, (Instant, Kind)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Wanted,
    Honest,
    Attacker,
}

impl World {
    fn new(seed: u64) -> World {
        let config = AdmissionConfig {
            max_inbound: SLOTS + RESERVED,
            reserved: RESERVED,
            ..AdmissionConfig::default()
        };
        let mut rng = fastrand::Rng::with_seed(seed);
        let admission = Admission::new(config, 4000, 256, Duration::from_secs(10), rng.u64(..));
        World { admission, rng, now: Instant::now(), next: 0, inside: HashMap::new() }
    }

    /// One comes from this address. True if it got in.
    fn come(&mut self, addr: IpAddr, kind: Kind) -> bool {
        self.next += 1;
        let (conn, name) = (ConnId(self.next), peer(self.next));
        match self.admission.on_accept(conn, addr, self.now) {
            Decision::Refuse(_) => return false,
            Decision::Replace(stalled) => self.admission.release(stalled),
            Decision::Admit => {}
        }
        let (inside, now) = (&self.inside, self.now);
        // Its merit grows with its time here, and is drawn from its name.
        let merit = |conn: ConnId| {
            let (since, kind) = inside[&conn];
            let seconds = (now - since).as_secs();
            let rtt = match kind {
                Kind::Attacker => 1,
                _ => 10 + conn.0 % 200,
            };
            let rate = if kind == Kind::Attacker { 1000 } else { conn.0 % 5 };
            Merit {
                wanted: false,
                rtt: Some(Duration::from_millis(rtt)),
                answers: seconds / 60,
                messages: seconds * rate,
            }
        };
        match self.admission.enter(conn, name, kind == Kind::Wanted, merit, now) {
            Decision::Refuse(_) => {
                self.admission.release(conn);
                return false;
            }
            Decision::Replace(victim) => {
                self.admission.release(victim);
                let gone = self.inside.remove(&victim);
                assert_ne!(gone.map(|(_, kind)| kind), Some(Kind::Wanted));
            }
            Decision::Admit => {}
        }
        self.inside.insert(conn, (self.now, kind));
        true
    }

    /// Honest strangers come over ten hours, at most two from one subnet.
    fn honest(&mut self, count: usize) {
        for number in 0..count {
            self.now += HOUR * 10 / count as u32;
            let addr = 0x0b00_0001 + ((number as u32 * 3 / 4) << 8) + number as u32 % 4;
            self.come(IpAddr::V4(Ipv4Addr::from_bits(addr)), Kind::Honest);
        }
    }

    /// The attacker comes so often from so many subnets, each time from another address if there is one.
    fn attack(&mut self, tries: u32, subnets: u32) {
        for number in 0..tries {
            self.now += Duration::from_millis(self.rng.u64(1..1000));
            let subnet = self.rng.u32(..subnets);
            let addr = 0x2d00_0000 + (subnet << 8) + (number / subnets) % 256;
            self.come(IpAddr::V4(Ipv4Addr::from_bits(addr)), Kind::Attacker);
        }
    }

    /// Wanted peers come, from the attacker's networks too. All must get in.
    fn wanted(&mut self, count: u32) {
        for number in 0..count {
            let addr = if number % 2 == 0 { 0x2d00_0001 } else { 0x3000_0001 + (number << 8) };
            assert!(
                self.come(IpAddr::V4(Ipv4Addr::from_bits(addr)), Kind::Wanted),
                "a wanted peer is kept out"
            );
        }
    }

    fn count(&self, kind: Kind) -> usize {
        self.inside.values().filter(|(_, other)| *other == kind).count()
    }
}

#[test]
fn earlier_peers_keep_three_eighths_of_the_slots_under_any_attack() {
    // From one subnet to more subnets than there are slots.
    for (seed, subnets) in [1, 10, 100, 1000, 20_000].into_iter().enumerate() {
        for honest in [30, 48, 100] {
            let mut world = World::new(seed as u64);
            world.honest(honest);
            assert_eq!(world.count(Kind::Honest), honest);
            world.attack(6_000, subnets);
            world.wanted(RESERVED as u32 / 2);
            world.attack(6_000, subnets);
            world.wanted(RESERVED as u32 / 2);
            let left = world.count(Kind::Honest);
            assert!(left >= honest.min(SLOTS * 3 / 8), "{subnets} subnets: {left} of {honest} survive");
            assert_eq!(world.count(Kind::Wanted), RESERVED);
            println!("{subnets} subnets: {left} of {honest} honest strangers survive");
        }
    }
}

#[test]
fn alone_in_their_subnets_all_survive_an_attacker_with_few() {
    for seed in 0..10 {
        let mut world = World::new(seed);
        world.honest(60);
        world.attack(10_000, SLOTS as u32 / 4);
        assert_eq!(world.count(Kind::Honest), 60);
    }
}

#[test]
fn an_attacker_who_was_here_first_does_not_keep_others_out() {
    for seed in 0..10 {
        let mut world = World::new(seed);
        // He fills every slot and waits for a day.
        world.attack(5_000, SLOTS as u32 / 4);
        assert_eq!(world.count(Kind::Attacker), SLOTS);
        world.now += 24 * HOUR;
        world.honest(60);
        world.attack(5_000, SLOTS as u32 / 4);
        world.wanted(RESERVED as u32);
        let left = world.count(Kind::Honest);
        assert!(left >= 30, "{left} of 60 get in and stay");
        println!("{left} of 60 get in and stay");
    }
}
