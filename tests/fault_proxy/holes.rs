//! Faults that nobody hears of.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};
use unbroken::test_util::{Direction, Side};
use unbroken_test_support::rig::*;

#[test]
fn a_black_hole_swallows_everything_and_heals() {
    if !can_black_hole() {
        return;
    }
    let rig = Rig::new();
    let (mut client, mut target) = rig.connect();
    client.write_all(b"1").unwrap();
    expect(&target, b"1");
    assert!(rig.proxy.black_hole());
    client.write_all(b"2").unwrap();
    target.write_all(b"3").unwrap();
    expect_silence(&client);
    expect_silence(&target);
    // Unlike with a stalled peer.
    assert_eq!((unacknowledged(&client), unacknowledged(&target)), (1, 1));
    assert_eq!(rig.proxy.bytes(Direction::ToTarget), 1);
    assert_eq!(rig.proxy.flows(), 1);
    // A new flow is not affected.
    let (mut client2, target2) = rig.connect();
    client2.write_all(b"new").unwrap();
    expect(&target2, b"new");

    rig.proxy.heal();
    expect(&target, b"2");
    expect(&client, b"3");
    let data = pattern(2_000_000);
    thread::scope(|scope| {
        scope.spawn(|| client.write_all(&data).unwrap());
        expect(&target, &data);
    });
}

#[test]
fn a_black_hole_hides_fin_and_rst() {
    if !can_black_hole() {
        return;
    }
    let rig = Rig::new();
    let (client, target) = rig.connect();
    let (client2, target2) = rig.connect();
    assert!(rig.proxy.black_hole());
    drop(target);
    SockRef::from(&target2).set_linger(Some(Duration::ZERO)).unwrap();
    drop(target2);
    expect_silence(&client);
    expect_silence(&client2);
    // A FIN is sent again, and an RST is not: that flow is half-open, as in real life.
    rig.proxy.heal();
    expect_eof(&client);
    expect_silence(&client2);
}

#[test]
fn in_a_black_hole_writes_succeed_until_the_user_timeout() {
    if !can_black_hole() {
        return;
    }
    let rig = Rig::new();
    let (mut client, _target) = rig.connect();
    SockRef::from(&client).set_tcp_user_timeout(Some(ms(1500))).unwrap();
    assert!(rig.proxy.black_hole());
    let start = Instant::now();
    for _ in 0..100 {
        client.write_all(&[1; 64]).unwrap();
    }
    let error = client.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    assert!(start.elapsed() >= ms(1500));
}

#[test]
fn keepalive_finds_a_black_hole() {
    if !can_black_hole() {
        return;
    }
    let rig = Rig::new();
    let (mut client, _target) = rig.connect();
    let second = Duration::from_secs(1);
    SockRef::from(&client)
        .set_tcp_keepalive(&TcpKeepalive::new().with_time(second).with_interval(second).with_retries(2))
        .unwrap();
    assert!(rig.proxy.black_hole());
    let error = client.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
}

#[test]
fn connects_into_a_black_hole_hang() {
    if !can_black_hole() {
        return;
    }
    let rig = Rig::new();
    let (mut client, target) = rig.connect();
    assert!(rig.proxy.black_hole_new(true));
    let error = TcpStream::connect_timeout(&rig.proxy.addr(), QUIET).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    client.write_all(b"old").unwrap();
    expect(&target, b"old");
    assert_eq!(rig.proxy.accepted(), 1);
    rig.proxy.heal();
    rig.connect();

    assert!(rig.proxy.black_hole_new(true));
    thread::scope(|scope| {
        let connecting = scope.spawn(|| connect(rig.proxy.addr()));
        let error = TcpStream::connect_timeout(&rig.proxy.addr(), QUIET).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        assert!(rig.proxy.black_hole_new(false));
        // Its next SYN gets through.
        connecting.join().unwrap();
    });
}

#[test]
fn half_open_is_found_by_sending_only() {
    if !can_black_hole() {
        return;
    }
    for side in [Side::Client, Side::Target] {
        let rig = Rig::new();
        let (client, target) = rig.connect();
        let (mut orphan, mut survivor) = match side {
            Side::Client => (client, target),
            Side::Target => (target, client),
        };
        assert!(rig.proxy.half_open(side));
        assert!(rig.proxy.half_open(side), "twice changes nothing");
        expect_silence(&orphan);
        expect_silence(&survivor);
        for _ in 0..100 {
            survivor.write_all(&[1; 100_000]).unwrap();
        }
        orphan.write_all(b"anybody?").unwrap();
        expect_reset(&orphan);
        expect_silence(&survivor);
        assert_eq!(rig.proxy.flows(), 1);
        let sent = rig.proxy.stats().bytes;
        assert_eq!((sent.to_target, sent.to_client), (0, 0));

        // An orderly close of the survivor ends it.
        survivor.shutdown(std::net::Shutdown::Write).unwrap();
        expect_eof(&survivor);
        assert!(rig.proxy.wait_until(LONG, |s| s.flows == 0));
    }
}

#[test]
fn half_open_on_both_sides_ends_the_flow() {
    if !can_black_hole() {
        return;
    }
    let rig = Rig::new();
    let (client, target) = rig.connect();
    assert!(rig.proxy.half_open(Side::Client));
    assert!(rig.proxy.half_open(Side::Target));
    assert!(rig.proxy.wait_until(LONG, |s| s.flows == 0));
    expect_silence(&client);
    expect_silence(&target);
}

#[test]
fn a_nat_forgets_idle_flows_for_good() {
    let rig = Rig::new();
    let (mut idle, idle_target) = rig.connect();
    let (mut busy, busy_target) = rig.connect();
    let (probing, mut probing_target) = rig.connect();
    let second = Duration::from_secs(1);
    SockRef::from(&probing)
        .set_tcp_keepalive(&TcpKeepalive::new().with_time(second).with_interval(second))
        .unwrap();
    let start = Instant::now();
    rig.proxy.update(|f| f.forget_idle = Some(ms(5000)));
    // Messages well below the limit keep a flow, and so do keepalive probes.
    while !rig.proxy.wait_until(ms(500), |s| s.forgotten > 0) {
        busy.write_all(b"m").unwrap();
        expect(&busy_target, b"m");
        assert!(start.elapsed() < LONG);
    }
    assert!(start.elapsed() >= ms(5000), "{:?}", start.elapsed());
    assert_eq!((rig.proxy.flows(), rig.proxy.stats().forgotten), (2, 1));

    rig.proxy.heal();
    idle.write_all(b"lost").unwrap();
    expect_silence(&idle_target);
    expect_silence(&idle);
    if can_black_hole() {
        assert_eq!(unacknowledged(&idle), 4);
    }
    drop(idle_target);
    expect_silence(&idle);

    busy.write_all(b"busy").unwrap();
    expect(&busy_target, b"busy");
    probing_target.write_all(b"probing").unwrap();
    expect(&probing, b"probing");
    let (mut new, new_target) = rig.connect();
    new.write_all(b"new").unwrap();
    expect(&new_target, b"new");
}

#[test]
fn a_target_on_ipv6_falls_into_the_hole_too() {
    let Ok(target) = std::net::TcpListener::bind("[::1]:0") else {
        eprintln!("skipped: no IPv6");
        return;
    };
    if !can_black_hole() {
        return;
    }
    let proxy = unbroken::test_util::FaultProxy::start(target.local_addr().unwrap()).unwrap();
    let mut client = connect(proxy.addr());
    let mut server = accept(&target);
    assert!(proxy.wait_until(LONG, |s| s.connected == 1));
    assert!(proxy.black_hole());
    client.write_all(b"1").unwrap();
    server.write_all(b"2").unwrap();
    expect_silence(&client);
    expect_silence(&server);
    assert_eq!(unacknowledged(&server), 1);
    proxy.heal();
    expect(&server, b"1");
    expect(&client, b"2");
}
