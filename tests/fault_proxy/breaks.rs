//! Faults that end connections, or refuse them.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use socket2::{Domain, Socket, Type};
use unbroken::test_util::{Direction, FaultProxy, Faults, Ways};
use unbroken_test_support::rig::*;

#[test]
fn refuse_and_accept_on_the_same_port() {
    let rig = Rig::new();
    let (mut client, target) = rig.connect();
    for _ in 0..50 {
        rig.proxy.update(|f| f.refuse = true);
        for _ in 0..3 {
            let error = TcpStream::connect(rig.proxy.addr()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
        }
        rig.proxy.update(|f| f.refuse = false);
        let (mut new, new_target) = rig.connect();
        new.write_all(b"new").unwrap();
        expect(&new_target, b"new");
        client.write_all(b"old").unwrap();
        expect(&target, b"old");
    }
    assert_eq!(rig.proxy.accepted(), 51);
}

#[test]
fn a_refused_port_is_reserved() {
    let rig = Rig::new();
    rig.proxy.update(|f| f.refuse = true);
    // The kernel gives it to nobody who has not insisted by SO_REUSEADDR and number.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let error = socket.bind(&rig.proxy.addr().into()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    // Connecting to it for long does not end in a connection to oneself.
    for _ in 0..40_000 {
        let error = TcpStream::connect(rig.proxy.addr()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
    }
    rig.proxy.update(|f| f.refuse = false);
    rig.connect();
}

#[test]
fn an_absent_target_resets_the_client() {
    let gone = listener().local_addr().unwrap();
    let proxy = FaultProxy::start(gone).unwrap();
    // The reset may come so soon that already `connect` reports it.
    match TcpStream::connect_timeout(&proxy.addr(), LONG) {
        Ok(client) => expect_reset(&client),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    assert!(proxy.wait_until(LONG, |s| s.unreachable == 1));
    assert_eq!((proxy.flows(), proxy.accepted()), (0, 1));

    let target = listener();
    proxy.retarget(target.local_addr().unwrap());
    let mut client = connect(proxy.addr());
    client.write_all(b"here").unwrap();
    expect(&accept(&target), b"here");
}

#[test]
fn reset_all_reaches_both_ends() {
    let rig = Rig::new();
    let flows: Vec<_> = (0..5).map(|_| rig.connect()).collect();
    rig.proxy.reset_all();
    assert_eq!(rig.proxy.flows(), 0);
    for (client, target) in &flows {
        expect_reset(client);
        expect_reset(target);
    }
    let (mut client, target) = rig.connect();
    client.write_all(b"x").unwrap();
    expect(&target, b"x");
}

#[test]
fn reset_all_ends_stalled_and_black_holed_flows() {
    let rig = Rig::new();
    let (client, target) = rig.connect();
    rig.proxy.update(|f| f.stall = Ways::both(true));
    fill(&client);
    if can_black_hole() {
        assert!(rig.proxy.black_hole());
    }
    rig.proxy.reset_all();
    expect_reset(&client);
    expect_reset(&target);
}

#[test]
fn reset_some_takes_the_oldest() {
    let rig = Rig::new();
    let mut flows: Vec<_> = (0..4).map(|_| rig.connect()).collect();
    assert_eq!(rig.proxy.reset_some(3), 3);
    assert_eq!(rig.proxy.flows(), 1);
    let (mut client, target) = flows.pop().unwrap();
    client.write_all(b"alive").unwrap();
    expect(&target, b"alive");
    for (client, target) in &flows {
        expect_reset(client);
        expect_reset(target);
    }
    assert_eq!(rig.proxy.reset_some(10), 1);
}

#[test]
fn half_close_ends_one_direction() {
    for direction in Direction::BOTH {
        let rig = Rig::new();
        let (client, target) = rig.connect();
        let (mut source, mut sink) = match direction {
            Direction::ToTarget => (client, target),
            Direction::ToClient => (target, client),
        };
        source.write_all(b"before").unwrap();
        assert!(rig.proxy.wait_until(LONG, |s| *s.bytes.get(direction) == 6));
        rig.proxy.half_close(direction);
        expect(&sink, b"before");
        expect_eof(&sink);
        // The source does not know: it can go on, for nothing.
        for _ in 0..100 {
            source.write_all(&[1; 100_000]).unwrap();
        }
        sink.write_all(b"other way").unwrap();
        expect(&source, b"other way");
        assert_eq!(rig.proxy.bytes(direction), 6);
        source.shutdown(Shutdown::Write).unwrap();
        drop(sink);
        expect_eof(&source);
        assert!(rig.proxy.wait_until(LONG, |s| s.flows == 0));
    }
}

#[test]
fn cut_after_exactly_n_bytes() {
    for direction in Direction::BOTH {
        for n in [0u64, 1, 1000, 4096, 65_536, 70_001, 1_000_000] {
            for faults in [
                Faults::default(),
                Faults { delay: Ways::both(ms(2)), rate: Ways::both(Some(50_000_000)), ..Faults::default() },
            ] {
                let rig = Rig::new();
                rig.proxy.set(faults);
                rig.proxy.cut_after(direction, n);
                let client = connect(rig.proxy.addr());
                let target = accept(&rig.target);
                let (source, sink) = match direction {
                    Direction::ToTarget => (client, target),
                    Direction::ToClient => (target, client),
                };
                let data = pattern(n as usize + 1 + 300_000);
                thread::scope(|scope| {
                    scope.spawn(|| {
                        // Fails, or not, depending on how far it gets.
                        let _ = (&source).write_all(&data);
                    });
                    expect(&sink, &data[..n as usize]);
                    expect_reset(&sink);
                });
                assert!(rig.proxy.wait_until(LONG, |s| s.cut == 1 && s.flows == 0));
                assert_eq!(rig.proxy.bytes(direction), n);
                let error = loop {
                    if let Err(error) = (&source).read(&mut [0]) {
                        break error;
                    }
                };
                assert!(
                    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
                        || source.take_error().unwrap().is_some(),
                    "{error}"
                );
                // The one after it is whole.
                let (mut client, target) = rig.connect();
                client.write_all(b"whole").unwrap();
                expect(&target, b"whole");
            }
        }
    }
}

#[test]
fn cut_after_counts_one_direction_only() {
    let rig = Rig::new();
    rig.proxy.cut_after(Direction::ToClient, 5);
    rig.proxy.cut_after(Direction::ToTarget, 0);
    let (mut client, mut target) = rig.connect();
    client.write_all(&pattern(1000)).unwrap();
    expect(&target, &pattern(1000));
    target.write_all(b"1234").unwrap();
    expect(&client, b"1234");
    assert_eq!(rig.proxy.flows(), 1);
    target.write_all(b"5").unwrap();
    expect(&client, b"5");
    expect_reset(&client);
    expect_reset(&target);

    let (mut client, target) = rig.connect();
    client.write_all(b"x").unwrap();
    expect_reset(&client);
    expect_reset(&target);
    assert_eq!(rig.proxy.bytes(Direction::ToTarget), 1000);
}
