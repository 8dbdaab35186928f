#![allow(clippy::disallowed_methods)] // Tests need some instant to start from; they never read the clock again.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

pub(super) fn peer(number: u64) -> PeerId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    PeerId::from_bytes(bytes)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn admission(change: impl FnOnce(&mut AdmissionConfig)) -> (Admission, Instant) {
    let mut config = AdmissionConfig::default();
    change(&mut config);
    (Admission::new(config, 4000, 256, Duration::from_secs(10), 7), Instant::now())
}

/// The n-th of many addresses of which no two share a subnet.
fn far(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x0b00_0001 + (number << 8)))
}

fn no_merit(_: ConnId) -> Merit {
    Merit::default()
}

#[test]
fn lists_of_addresses_and_the_clothes_of_ipv4() {
    let (mut admission, now) = admission(|config| {
        config.allow_addresses = vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        config.deny_addresses = vec!["192.0.2.128/25".parse().unwrap()];
    });
    for (text, admitted) in [
        ("192.0.2.1", true),
        ("::ffff:192.0.2.1", true),
        ("192.0.2.200", false),
        ("::ffff:192.0.2.200", false),
        ("198.51.100.1", false),
        ("2001:db8::1", true),
        ("2001:db9::1", false),
    ] {
        let decision = admission.on_accept(ConnId(1), ip(text), now);
        let expected = if admitted { Decision::Admit } else { Decision::Refuse(Refusal::Denied) };
        assert_eq!(decision, expected, "{text}");
        admission.release(ConnId(1));
    }
}

#[test]
fn a_connection_of_a_proxy_counts_for_nobody_until_it_is_known_whose_it_is() {
    let (mut admission, now) = admission(|config| {
        config.max_handshakes_per_address = 2;
        config.connects_at_once = 3;
        config.connects_per_minute = 1;
        config.deny_addresses = vec!["192.0.2.128/25".parse().unwrap()];
    });
    let proxy = ip("198.51.100.1");
    for conn in 0..20 {
        assert_eq!(admission.on_accept_proxied(ConnId(conn), proxy, now), Decision::Admit);
    }
    for (conn, client, expected) in [
        (0, "192.0.2.1", Ok(())),
        (1, "192.0.2.1", Ok(())),
        (2, "192.0.2.1", Err(Refusal::Handshakes)),
        (3, "::ffff:192.0.2.2", Ok(())),
        (4, "192.0.2.200", Err(Refusal::Denied)),
        // Of its own, as after LOCAL: those that wait for a header do not count.
        (5, "198.51.100.1", Ok(())),
    ] {
        assert_eq!(admission.on_header(ConnId(conn), ip(client), now), expected, "{client}");
    }
    (0..6).for_each(|conn| admission.release(ConnId(conn)));
    assert_eq!(admission.on_header(ConnId(6), ip("192.0.2.1"), now), Ok(()));
    admission.release(ConnId(6));
    assert_eq!(admission.on_header(ConnId(7), ip("192.0.2.1"), now), Err(Refusal::TooOften));
    assert_eq!(admission.counts(), (12, 0));
}

#[test]
fn connections_that_wait_for_a_header_are_bounded_and_the_oldest_goes() {
    let (mut admission, start) = admission(|_| {});
    let proxy = ip("198.51.100.1");
    for conn in 0..256 {
        assert_eq!(admission.on_accept_proxied(ConnId(conn), proxy, start), Decision::Admit);
    }
    let full = Decision::Refuse(Refusal::Handshakes);
    assert_eq!(admission.on_accept_proxied(ConnId(300), proxy, start), full);
    assert_eq!(admission.on_accept(ConnId(300), far(1), start), full);
    let later = start + Duration::from_secs(1);
    assert_eq!(admission.on_accept(ConnId(300), far(1), later), Decision::Replace(ConnId(0)));
    assert_eq!(admission.on_header(ConnId(0), far(2), later), Err(Refusal::Handshakes));
    assert_eq!(admission.counts(), (256, 0));
}

#[test]
fn lists_of_identities() {
    let (open, _) = admission(|config| config.deny_peers = vec![peer(1)]);
    assert_eq!(open.listed(&peer(1), true), Some(false), "denied is denied, wanted or not");
    assert_eq!(open.listed(&peer(2), true), Some(true));
    assert_eq!(open.listed(&peer(2), false), None);
    let (closed, _) = admission(|config| config.allow_peers = vec![peer(1)]);
    assert_eq!(closed.listed(&peer(1), false), Some(true));
    assert_eq!(closed.listed(&peer(2), false), Some(false));
    assert_eq!(closed.listed(&peer(2), true), Some(true));
}

#[test]
fn one_address_has_its_share_of_handshakes_and_others_still_get_in() {
    let (mut admission, now) = admission(|config| config.connects_at_once = 5000);
    let admitted = |admission: &mut Admission, from: u64, addr: &dyn Fn(u64) -> IpAddr| {
        let on_accept = |number| admission.on_accept(ConnId(from + number), addr(number), now);
        (0..2000).map(on_accept).filter(|decision| *decision == Decision::Admit).count()
    };
    assert_eq!(admitted(&mut admission, 0, &|_| ip("192.0.2.1")), 64);
    // The rest of its subnet has as many again, IPv6 counts by /64 and /56.
    assert_eq!(admitted(&mut admission, 10_000, &|number| ip(&format!("192.0.2.{}", number % 250))), 64);
    assert_eq!(admitted(&mut admission, 20_000, &|number| ip(&format!("2001:db8::{number:x}"))), 64);
    let wide = |number: u64| ip(&format!("2001:db8:0:{:x}::1", number % 256));
    assert_eq!(admitted(&mut admission, 30_000, &wide), 64);
    assert_eq!(admission.counts().0, 256);
}

#[test]
fn a_handshake_that_stalls_makes_room_for_a_new_one() {
    let (mut admission, now) = admission(|_| {});
    // 100 from one subnet, 156 from everywhere.
    for number in 0..256u32 {
        let addr = if number < 100 { ip(&format!("192.0.2.{}", number % 50)) } else { far(number) };
        assert_eq!(admission.on_accept(ConnId(u64::from(number)), addr, now), Decision::Admit);
    }
    let newcomer = ip("198.51.100.1");
    let soon = now + Duration::from_millis(999);
    assert_eq!(admission.on_accept(ConnId(1000), newcomer, soon), Decision::Refuse(Refusal::Handshakes));
    let later = now + Duration::from_secs(1);
    assert_eq!(admission.on_accept(ConnId(1000), newcomer, later), Decision::Replace(ConnId(0)));
    assert_eq!(admission.on_accept(ConnId(1001), newcomer, later), Decision::Replace(ConnId(1)));
    // A connection that lost its place is not admitted after all.
    let entered = admission.enter(ConnId(0), peer(1), true, no_merit, later);
    assert_eq!(entered, Decision::Refuse(Refusal::Handshakes));
    assert_eq!(admission.enter(ConnId(1000), peer(1), false, no_merit, later), Decision::Admit);
}

#[test]
fn an_address_that_connects_too_often_waits_and_the_table_stays_small() {
    let (mut admission, now) = admission(|config| config.connects_at_once = 3);
    let mut tries = |addr: IpAddr, at: Instant| {
        let on_accept = |number| {
            let decision = admission.on_accept(ConnId(number), addr, at);
            admission.release(ConnId(number));
            decision
        };
        (0..10).map(on_accept).filter(|decision| *decision == Decision::Admit).count()
    };
    assert_eq!(tries(ip("192.0.2.1"), now), 3);
    assert_eq!(tries(ip("192.0.2.2"), now), 3);
    assert_eq!(tries(ip("127.0.0.1"), now), 10, "loopback is exempt");
    // Two a second.
    assert_eq!(tries(ip("192.0.2.1"), now + Duration::from_secs(1)), 2);
    for number in 0..50_000 {
        tries(far(number), now + Duration::from_millis(u64::from(number)));
    }
    assert!(admission.rates.tracked() <= rate::MAX_TRACKED);
}

#[test]
fn fifty_peers_behind_one_address_are_admitted_and_no_more_than_allowed() {
    let (mut admission, now) = admission(|_| {});
    let nat = ip("192.0.2.1");
    let mut come = |number: u64, wanted: bool| {
        let at = now + Duration::from_secs(number);
        match admission.on_accept(ConnId(number), nat, at) {
            Decision::Admit => admission.enter(ConnId(number), peer(number), wanted, no_merit, at),
            refused => refused,
        }
    };
    (0..64).for_each(|number| assert_eq!(come(number, false), Decision::Admit));
    assert_eq!(come(64, false), Decision::Refuse(Refusal::Address));
    assert_eq!(come(65, true), Decision::Admit, "who is wanted and proves it is not held to that");
}

#[test]
fn a_second_connection_is_worth_less_than_the_first_one_of_another_peer() {
    let (mut admission, now) = admission(|config| config.max_inbound_per_address = 64);
    let mut enter = |conn: u64, name: u64| {
        let now = now + Duration::from_secs(conn);
        assert_eq!(admission.on_accept(ConnId(conn), far(1), now), Decision::Admit);
        let decision = admission.enter(ConnId(conn), peer(name), false, no_merit, now);
        match decision {
            Decision::Refuse(_) => admission.release(ConnId(conn)),
            Decision::Replace(victim) => admission.release(victim),
            Decision::Admit => {}
        }
        decision
    };
    // 21 nodes have pools of three, one has a single connection: the address is full.
    for conn in 0..64 {
        assert_eq!(enter(conn, conn / 3), Decision::Admit);
    }
    // The other 42 that are behind the address get their first connection.
    for name in 22..64 {
        assert!(matches!(enter(100 + name, name), Decision::Replace(_)), "node {name} has no connection");
    }
    assert_eq!(admission.inbound.values().map(|inbound| inbound.peer).collect::<HashSet<_>>().len(), 64);
    // Now each has one. Nobody's second one comes in, and no further node.
    let mut enter = |conn: u64, name: u64| {
        let now = now + Duration::from_secs(conn);
        assert_eq!(admission.on_accept(ConnId(conn), far(1), now), Decision::Admit);
        let decision = admission.enter(ConnId(conn), peer(name), false, no_merit, now);
        admission.release(ConnId(conn));
        decision
    };
    assert_eq!(enter(300, 63), Decision::Refuse(Refusal::Address));
    assert_eq!(enter(301, 64), Decision::Refuse(Refusal::Address));
}

#[test]
fn one_identity_has_its_share() {
    let (mut admission, now) = admission(|_| {});
    for number in 0..8 {
        let conn = ConnId(number);
        assert_eq!(admission.on_accept(conn, far(number as u32), now), Decision::Admit);
        let expected = if number < 6 { Decision::Admit } else { Decision::Refuse(Refusal::Peer) };
        assert_eq!(admission.enter(conn, peer(1), true, no_merit, now), expected);
    }
}

#[test]
fn strangers_never_get_the_reserved_slots() {
    let (mut admission, now) = admission(|config| (config.max_inbound, config.reserved) = (20, 5));
    let mut come = |number: u32, wanted| {
        let conn = ConnId(u64::from(number));
        assert_eq!(admission.on_accept(conn, far(number), now), Decision::Admit);
        let decision = admission.enter(conn, peer(u64::from(number)), wanted, no_merit, now);
        if let Decision::Replace(victim) = decision {
            admission.release(victim);
        }
        (decision, admission.counts().1)
    };
    for number in 0..100 {
        let (decision, inbound) = come(number, false);
        assert_eq!(decision == Decision::Admit, number < 15, "{number}: {decision:?}");
        assert!(inbound <= 15);
    }
    for number in 100..120 {
        let (decision, inbound) = come(number, true);
        assert!(!matches!(decision, Decision::Refuse(_)), "{number}: {decision:?}");
        assert!(inbound <= 20);
    }
    assert_eq!(come(120, true).0, Decision::Refuse(Refusal::Full), "no wanted peer goes for another");
    assert!(matches!(come(121, false).0, Decision::Refuse(_)));
}

#[test]
fn a_stranger_that_has_become_wanted_is_not_evicted() {
    let (mut admission, now) = admission(|config| (config.max_inbound, config.reserved) = (4, 0));
    let mut come = |number: u64, wanted_now: u64| {
        let conn = ConnId(number);
        assert_eq!(admission.on_accept(conn, far(number as u32), now), Decision::Admit);
        let merit = |conn: ConnId| Merit { wanted: conn.0 == wanted_now, ..Merit::default() };
        admission.enter(conn, peer(number), false, merit, now)
    };
    (0..4).for_each(|number| assert_eq!(come(number, 99), Decision::Admit));
    // The youngest goes, unless it is wanted.
    assert_eq!(come(4, 3), Decision::Replace(ConnId(2)));
    assert_eq!(come(5, 3), Decision::Replace(ConnId(4)));
}

#[derive(Clone, Debug)]
enum Step {
    Accept { subnet: u32, host: u32 },
    Enter { nth: usize, peer: u64, wanted: bool },
    Leave { nth: usize },
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u32..30, 0u32..5).prop_map(|(subnet, host)| Step::Accept { subnet, host }),
        6 => (any::<prop::sample::Index>(), 0u64..60, 0u8..8)
            .prop_map(|(nth, peer, draw)| Step::Enter { nth: nth.index(1000), peer, wanted: draw == 0 }),
        2 => any::<prop::sample::Index>().prop_map(|nth| Step::Leave { nth: nth.index(1000) }),
        1 => (0u64..3000).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Every bound holds after every step, a wanted inbound connection is never evicted, and nothing is counted that left.
    #[test]
    fn every_bound_holds(steps in prop::collection::vec(step(), 1..600), secret: u64) {
        let config = AdmissionConfig {
            max_handshakes_per_address: 3,
            max_handshakes_per_subnet: 5,
            max_inbound: 24,
            max_inbound_per_address: 4,
            max_inbound_per_subnet: 8,
            max_inbound_per_peer: 3,
            reserved: 6,
            connects_at_once: 20,
            ..AdmissionConfig::default()
        };
        let mut now = Instant::now();
        let mut admission = Admission::new(config, 200, 12, Duration::from_secs(1), secret);
        let mut next = 0;
        let mut handshaking: Vec<ConnId> = Vec::new();
        let mut inbound: Vec<(ConnId, bool)> = Vec::new();
        let mut leaving: Vec<ConnId> = Vec::new();
        for step in steps {
            match step {
                Step::Wait(millis) => now += Duration::from_millis(millis),
                Step::Accept { subnet, host } => {
                    next += 1;
                    let conn = ConnId(next);
                    let addr = IpAddr::V4(Ipv4Addr::from_bits(0x0b00_0001 + (subnet << 8) + host));
                    match admission.on_accept(conn, addr, now) {
                        Decision::Refuse(_) => continue,
                        Decision::Admit => {}
                        Decision::Replace(other) => {
                            prop_assert!(handshaking.contains(&other));
                            handshaking.retain(|conn| *conn != other);
                        }
                    }
                    handshaking.push(conn);
                }
                Step::Enter { nth, peer: name, wanted } if !handshaking.is_empty() => {
                    let conn = handshaking.swap_remove(nth % handshaking.len());
                    match admission.enter(conn, peer(name), wanted, no_merit, now) {
                        Decision::Refuse(_) => {
                            admission.release(conn);
                            continue;
                        }
                        Decision::Admit => {}
                        Decision::Replace(victim) => {
                            prop_assert!(inbound.contains(&(victim, false)), "a stranger goes");
                            inbound.retain(|(conn, _)| *conn != victim);
                            leaving.push(victim);
                        }
                    }
                    inbound.push((conn, wanted));
                }
                Step::Enter { .. } => {}
                Step::Leave { nth } => {
                    let gone = leaving.pop().or_else(|| {
                        let index = nth.checked_rem(inbound.len())?;
                        Some(inbound.swap_remove(index).0)
                    });
                    gone.into_iter().for_each(|conn| admission.release(conn));
                }
            }
            prop_assert_eq!(admission.counts(), (handshaking.len(), inbound.len()));
            prop_assert!(handshaking.len() <= 12 && inbound.len() <= 24);
            prop_assert!(inbound.iter().filter(|(_, wanted)| !wanted).count() <= 18);
            let most = |key: &dyn Fn(&Inbound) -> Option<IpAddr>| {
                let mut counts: HashMap<IpAddr, usize> = HashMap::new();
                admission.inbound.values().filter_map(key).for_each(|addr| *counts.entry(addr).or_default() += 1);
                counts.into_values().max().unwrap_or(0)
            };
            prop_assert!(most(&|inbound| (!inbound.wanted).then_some(address(inbound.addr))) <= 4);
            prop_assert!(most(&|inbound| (!inbound.wanted).then_some(subnet(inbound.addr))) <= 8);
        }
        for conn in handshaking.into_iter().chain(inbound.into_iter().map(|(conn, _)| conn)).chain(leaving) {
            admission.release(conn);
        }
        prop_assert_eq!(admission.counts(), (0, 0));
        prop_assert!(admission.leaving.is_empty());
    }
}
