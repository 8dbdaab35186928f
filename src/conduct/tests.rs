#![allow(clippy::disallowed_methods)] // Tests need some instant to start from; they never read the clock again.

use proptest::prelude::*;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn peer(number: u32) -> BanTarget {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    BanTarget::Peer(PeerId::from_bytes(bytes))
}

fn conduct() -> (Conduct, Instant) {
    (Conduct::new(ConductConfig::default()), Instant::now())
}

#[test]
fn strikes_add_up_fade_and_ban() {
    let (mut conduct, now) = conduct();
    assert_eq!(conduct.report(peer(1), Misbehavior::Protocol, false, now), Penalty::Noted(60));
    // Half is left after ten minutes: 30 and 60.
    let later = now + 10 * MINUTE;
    assert_eq!(conduct.report(peer(1), Misbehavior::Protocol, false, later), Penalty::Noted(90));
    assert_eq!(conduct.strikes(peer(1), later + 10 * MINUTE), 45);
    assert!(!conduct.is_banned(peer(1), later));
    assert_eq!(
        conduct.report(peer(1), Misbehavior::Application(25), false, later),
        Penalty::Banned(60 * MINUTE)
    );
    assert!(conduct.is_banned(peer(1), later));
    assert!(!conduct.is_banned(peer(2), later));
    assert_eq!(conduct.next_timeout(), Some(later + 60 * MINUTE));
    assert!(conduct.is_banned(peer(1), later + 60 * MINUTE - Duration::from_nanos(1)));
    assert!(!conduct.is_banned(peer(1), later + 60 * MINUTE));
    assert_eq!(conduct.expire(later + 60 * MINUTE), [peer(1)]);
    assert_eq!((conduct.next_timeout(), conduct.strikes(peer(1), later)), (None, 0));
}

#[test]
fn a_peer_that_offends_seldom_is_never_banned() {
    let (mut conduct, mut now) = conduct();
    for _ in 0..1000 {
        assert!(matches!(conduct.report(peer(1), Misbehavior::Protocol, false, now), Penalty::Noted(_)));
        now += 20 * MINUTE;
    }
}

#[test]
fn a_wanted_peer_is_disconnected_and_not_banned_unless_it_is_said_so() {
    let (mut conduct, now) = conduct();
    for _ in 0..5 {
        assert_eq!(conduct.report(peer(1), Misbehavior::Flood, true, now), Penalty::Noted(60));
        assert_eq!(conduct.report(peer(1), Misbehavior::Flood, true, now), Penalty::Disconnect);
    }
    assert!(!conduct.is_banned(peer(1), now));
    let mut strict = Conduct::new(ConductConfig { ban_wanted: true, ..ConductConfig::default() });
    assert_eq!(
        strict.report(peer(1), Misbehavior::Application(100), true, now),
        Penalty::Banned(60 * MINUTE)
    );
    assert!(strict.is_banned(peer(1), now));
}

#[test]
fn an_address_is_banned_for_a_short_time_and_ipv6_by_its_64() {
    let (mut conduct, now) = conduct();
    let at = |text: &str| BanTarget::at(text.parse().unwrap());
    let offender = at("2001:db8:1:2::1");
    assert_eq!(
        conduct.report(offender, Misbehavior::Application(100), false, now),
        Penalty::Banned(5 * MINUTE)
    );
    assert!(conduct.is_banned(at("2001:db8:1:2:ffff::9"), now));
    assert!(!conduct.is_banned(at("2001:db8:1:3::1"), now));
    // A target that an application makes by hand is brought into the same form.
    let raw = BanTarget::Address("::ffff:192.0.2.1".parse().unwrap());
    conduct.ban(&Ban::new(raw, None, ""), now);
    assert!(conduct.is_banned(at("192.0.2.1"), now) && !conduct.is_banned(at("192.0.2.2"), now));
    assert!(conduct.unban(raw) && !conduct.is_banned(at("192.0.2.1"), now));
}

#[test]
fn bans_survive_a_restart_with_what_was_left() {
    let (mut conduct, now) = conduct();
    conduct.ban(&Ban::new(PeerId::from_bytes([1; 32]), Some(10 * MINUTE), "spam"), now);
    conduct.ban(&Ban::new("192.0.2.1".parse::<IpAddr>().unwrap(), None, "for good"), now);
    let text = serde_json::to_string(&conduct.bans(now + 4 * MINUTE)).unwrap();
    let kept: Vec<Ban> = serde_json::from_str(&text).unwrap();

    let mut next = Conduct::new(ConductConfig::default());
    let start = now + 1000 * MINUTE;
    kept.iter().for_each(|ban| next.ban(ban, start));
    assert_eq!(next.bans(start), kept);
    assert!(next.bans(start).iter().any(|ban| ban.remaining_ms == Some(6 * 60_000)), "{text}");
    assert_eq!(next.bans(start + 6 * MINUTE).len(), 1);
    assert_eq!(next.bans(start + 600_000 * MINUTE).len(), 1);
}

#[test]
fn the_later_of_two_bans_counts_and_a_strange_file_does_no_harm() {
    let (mut conduct, now) = conduct();
    let id = PeerId::from_bytes([1; 32]);
    conduct.ban(&Ban::new(id, Some(10 * MINUTE), "long"), now);
    conduct.ban(&Ban::new(id, Some(MINUTE), "short"), now);
    assert_eq!(conduct.bans(now), [Ban::new(id, Some(10 * MINUTE), "long")]);
    conduct.ban(&Ban { who: id.into(), remaining_ms: Some(u64::MAX), why: "ä".repeat(1000) }, now);
    assert_eq!(conduct.bans(now), [Ban::new(id, None, "ä".repeat(128))]);
    conduct.ban(&Ban::new(id, Some(MINUTE), "short"), now);
    assert_eq!(conduct.bans(now)[0].remaining_ms, None);
}

#[test]
fn a_flood_of_names_drives_out_neither_worse_records_nor_lasting_bans() {
    let config = ConductConfig { max_records: 50, max_bans: 50, ..ConductConfig::default() };
    let (mut conduct, now) = (Conduct::new(config), Instant::now());
    conduct.report(peer(0), Misbehavior::Application(80), false, now);
    conduct.ban(&Ban::new(PeerId::from_bytes([9; 32]), None, "by hand"), now);
    for number in 1..5000 {
        let later = now + Duration::from_millis(u64::from(number));
        conduct.report(peer(number), Misbehavior::InvalidData, false, later);
        conduct.report(peer(1_000_000 + number), Misbehavior::Application(100), false, later);
    }
    let later = now + Duration::from_secs(5);
    assert!(conduct.records.len() <= 50 && conduct.bans.len() <= 50);
    assert_eq!(conduct.strikes(peer(0), later), 79);
    assert!(conduct.is_banned(BanTarget::Peer(PeerId::from_bytes([9; 32])), later));
}

#[derive(Clone, Debug)]
enum Step {
    Report(u32, Misbehavior, bool),
    Ban(u32, Option<u64>),
    Unban(u32),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0u32..6;
    let misbehavior = prop_oneof![
        Just(Misbehavior::Protocol),
        Just(Misbehavior::WastedEffort),
        Just(Misbehavior::InvalidData),
        (0u32..300).prop_map(Misbehavior::Application),
    ];
    prop_oneof![
        4 => (who.clone(), misbehavior, any::<bool>()).prop_map(|(who, misbehavior, wanted)| Step::Report(who, misbehavior, wanted)),
        1 => (who.clone(), prop::option::of(0u64..100_000)).prop_map(|(who, time)| Step::Ban(who, time)),
        1 => who.prop_map(Step::Unban),
        2 => (0u64..2_000_000).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Against a plain model: who is banned, until when; tables within their bounds.
    #[test]
    fn bans_are_those_of_a_plain_model(steps in prop::collection::vec(step(), 1..200)) {
        let (mut conduct, mut now) = conduct();
        // By target: the end of the ban, `None` for one without; and the strikes one by one.
        let mut bans: HashMap<BanTarget, Option<Instant>> = HashMap::new();
        let mut strikes: HashMap<BanTarget, Vec<(f64, Instant)>> = HashMap::new();
        for step in steps {
            match step {
                Step::Wait(millis) => now += Duration::from_millis(millis),
                Step::Unban(who) => {
                    conduct.unban(peer(who));
                    bans.remove(&peer(who));
                    strikes.remove(&peer(who));
                }
                Step::Ban(who, millis) => {
                    let time = millis.map(Duration::from_millis);
                    conduct.ban(&Ban { who: peer(who), remaining_ms: millis, why: String::new() }, now);
                    let end = time.map(|time| now + time);
                    let known = bans.entry(peer(who)).or_insert(end);
                    *known = known.zip(end).map(|(a, b)| a.max(b));
                }
                Step::Report(who, misbehavior, wanted) => {
                    let penalty = conduct.report(peer(who), misbehavior, wanted, now);
                    let list = strikes.entry(peer(who)).or_default();
                    list.push((f64::from(misbehavior.strikes()), now));
                    let fade = |at: Instant| 0.5f64.powf((now - at).as_secs_f64() / 600.0);
                    let sum: f64 = list.iter().map(|(strikes, at)| strikes * fade(*at)).sum();
                    // Not at the edge, where two ways to add may differ.
                    prop_assume!((sum - 100.0).abs() > 1e-6);
                    prop_assert_eq!(sum > 100.0, !matches!(penalty, Penalty::Noted(_)));
                    if sum > 100.0 {
                        list.clear();
                        prop_assert_eq!(wanted, penalty == Penalty::Disconnect);
                        if !wanted {
                            let end = Some(now + 60 * MINUTE);
                            let known = bans.entry(peer(who)).or_insert(end);
                            *known = known.zip(end).map(|(a, b)| a.max(b));
                        }
                    }
                }
            }
            bans.retain(|_, end| end.is_none_or(|end| now < end));
            for number in 0..6 {
                prop_assert_eq!(conduct.is_banned(peer(number), now), bans.contains_key(&peer(number)));
            }
            prop_assert_eq!(conduct.bans(now).len(), bans.len());
        }
    }
}

#[test]
fn a_penalty_is_a_sentence_in_the_log() {
    let text = |penalty: Penalty| format!("{}; {penalty}", Misbehavior::Protocol);
    assert_eq!(text(Penalty::Noted(1)), "it broke the protocol; it has 1 strike");
    assert_eq!(text(Penalty::Noted(60)), "it broke the protocol; it has 60 strikes");
    assert_eq!(text(Penalty::Disconnect), "it broke the protocol; it is disconnected");
    assert_eq!(text(Penalty::Banned(90 * MINUTE)), "it broke the protocol; it is banned for 1h 30m");
}
