//! Forwarding, and the faults that slow a link down.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use unbroken::test_util::{Direction, Faults, Ways};
use unbroken_test_support::rig::*;

const BOTH: [Direction; 2] = Direction::BOTH;

/// (sender, receiver) for a direction.
fn ends(direction: Direction, client: TcpStream, target: TcpStream) -> (TcpStream, TcpStream) {
    match direction {
        Direction::ToTarget => (client, target),
        Direction::ToClient => (target, client),
    }
}

#[test]
fn forwards_both_ways_and_counts() {
    let rig = Rig::new();
    let (mut client, mut target) = rig.connect();
    let data = pattern(3_000_000);
    thread::scope(|scope| {
        scope.spawn(|| (&client).write_all(&data).unwrap());
        scope.spawn(|| (&target).write_all(&data).unwrap());
        scope.spawn(|| expect(&client, &data));
        expect(&target, &data);
    });
    client.write_all(b"x").unwrap();
    expect(&target, b"x");
    assert!(rig.proxy.wait_until(LONG, |s| s.bytes.to_target == 3_000_001));
    assert_eq!(rig.proxy.bytes(Direction::ToClient), 3_000_000);
    assert_eq!((rig.proxy.accepted(), rig.proxy.flows()), (1, 1));

    // Each FIN by itself.
    client.shutdown(Shutdown::Write).unwrap();
    expect_eof(&target);
    target.write_all(b"still open").unwrap();
    expect(&client, b"still open");
    drop(target);
    expect_eof(&client);
    assert!(rig.proxy.wait_until(LONG, |s| s.flows == 0));
}

#[test]
fn a_last_message_before_close_arrives() {
    let rig = Rig::new();
    for direction in BOTH {
        for delay in [0, 5] {
            rig.proxy.update(|f| f.delay = Ways::both(ms(delay)));
            let (client, target) = rig.connect();
            let (mut sender, receiver) = ends(direction, client, target);
            let data = pattern(100_000);
            sender.write_all(&data).unwrap();
            drop(sender);
            expect(&receiver, &data);
            expect_eof(&receiver);
            drop(receiver);
            assert!(rig.proxy.wait_until(LONG, |s| s.flows == 0));
        }
    }
}

#[test]
fn a_reset_is_forwarded() {
    let rig = Rig::new();
    for direction in BOTH {
        let (client, target) = rig.connect();
        let (sender, receiver) = ends(direction, client, target);
        socket2::SockRef::from(&sender).set_linger(Some(Duration::ZERO)).unwrap();
        drop(sender);
        expect_reset(&receiver);
        assert!(rig.proxy.wait_until(LONG, |s| s.flows == 0));
    }
}

#[test]
fn a_reset_after_fin_is_forwarded() {
    let rig = Rig::new();
    for direction in BOTH {
        let (client, target) = rig.connect();
        let (sender, receiver) = ends(direction, client, target);
        sender.shutdown(Shutdown::Write).unwrap();
        expect_eof(&receiver);
        socket2::SockRef::from(&sender).set_linger(Some(Duration::ZERO)).unwrap();
        drop(sender);
        // The receiver has had its end of file; only the error tells.
        assert!(rig.proxy.wait_until(LONG, |s| s.flows == 0));
        assert!(receiver.take_error().unwrap().is_some() || (&receiver).write(b"x").is_err());
    }
}

#[test]
fn delay_is_one_way_and_does_not_limit_the_rate() {
    let rig = Rig::new();
    rig.proxy.update(|f| f.delay = Ways::both(ms(60)));
    let (mut client, mut target) = rig.connect();
    let start = Instant::now();
    client.write_all(b"ping").unwrap();
    expect(&target, b"ping");
    assert!(start.elapsed() >= ms(60));
    target.write_all(b"pong").unwrap();
    expect(&client, b"pong");
    assert!(start.elapsed() >= ms(120));

    // 100 messages, one at a time, would take 6 s if each waited for the one before.
    let start = Instant::now();
    for i in 0..100u8 {
        client.write_all(&[i; 1000]).unwrap();
    }
    for i in 0..100u8 {
        expect(&target, &[i; 1000]);
    }
    let took = start.elapsed();
    assert!(took >= ms(60) && took < ms(3000), "{took:?}");

    // One way only.
    rig.proxy.set(Faults { delay: Ways::only(Direction::ToClient, ms(100)), ..Faults::default() });
    let start = Instant::now();
    target.write_all(b"x").unwrap();
    expect(&client, b"x");
    assert!(start.elapsed() >= ms(100));
}

#[test]
fn a_new_delay_applies_to_bytes_under_way() {
    let rig = Rig::new();
    rig.proxy.update(|f| f.delay = Ways::both(Duration::from_secs(100_000)));
    let (mut client, target) = rig.connect();
    client.write_all(b"soon").unwrap();
    expect_silence(&target);
    assert_eq!(unacknowledged(&client), 0);
    rig.proxy.set(Faults::default());
    expect(&target, b"soon");
}

/// Sends `len` bytes and returns how long they took, from the first write to the last read.
fn transfer(mut sender: &TcpStream, receiver: &TcpStream, len: usize) -> Duration {
    let data = pattern(len);
    let start = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| sender.write_all(&data).unwrap());
        expect(receiver, &data);
    });
    start.elapsed()
}

#[test]
fn rate_is_accurate() {
    let rig = Rig::new();
    for (rate, len) in [(200_000u64, 100_000), (5_000_000, 2_500_000)] {
        rig.proxy.update(|f| f.rate = Ways::both(Some(rate)));
        for direction in BOTH {
            let (client, target) = rig.connect();
            let (sender, receiver) = ends(direction, client, target);
            let ideal = Duration::from_secs_f64(len as f64 / rate as f64);
            // Never too fast. Too slow may be the machine's fault, but hardly every time.
            let times: Vec<Duration> = (0..10)
                .map(|_| transfer(&sender, &receiver, len))
                .inspect(|time| assert!(*time >= ideal.mul_f64(0.98), "{time:?}"))
                .take_while(|time| *time > ideal.mul_f64(1.03))
                .collect();
            assert!(times.len() < 10, "{rate}: {times:?}");
        }
    }
}

#[test]
fn rate_changes_at_once() {
    let rig = Rig::new();
    rig.proxy.update(|f| f.rate = Ways::both(Some(0)));
    let (mut client, target) = rig.connect();
    let data = pattern(1_000_000);
    thread::scope(|scope| {
        scope.spawn(|| client.write_all(&data).unwrap());
        expect_silence(&target);
        // At 1 byte per second, the next portion is a second away; at the next rate, it is not.
        rig.proxy.update(|f| f.rate = Ways::both(Some(1)));
        expect(&target, &data[..1]);
        rig.proxy.update(|f| f.rate = Ways::both(Some(10_000_000)));
        let start = Instant::now();
        expect(&target, &data[1..]);
        assert!(start.elapsed() >= ms(90));
    });
}

#[test]
fn a_slow_link_queues_in_the_kernel_only() {
    let rig = Rig::new();
    rig.proxy.update(|f| {
        f.rate = Ways::both(Some(1));
        f.recv_buffer = Some(8 * 1024);
    });
    let (client, target) = rig.connect();
    let (client2, _target2) = {
        rig.proxy.update(|f| f.recv_buffer = None);
        rig.connect()
    };
    let small = fill(&client);
    assert!(small <= 32 * 1024, "{small}");
    let large = fill(&client2);
    assert!(large > 2 * small, "{large} {small}");
    drop(target);
}

#[test]
fn trickle_is_a_byte_at_a_time() {
    let rig = Rig::new();
    rig.proxy.update(|f| f.trickle = Ways::both(Some(ms(20))));
    let (mut client, mut target) = rig.connect();
    let start = Instant::now();
    client.write_all(b"0123456789").unwrap();
    let mut buffer = [0; 10];
    let mut reads = 0;
    let mut got = 0;
    while got < 10 {
        got += target.read(&mut buffer[got..]).unwrap();
        reads += 1;
    }
    assert_eq!(&buffer, b"0123456789");
    assert!(start.elapsed() >= ms(9 * 20));
    println!("{reads} reads, {:?}", start.elapsed());
    rig.proxy.set(Faults::default());
    transfer(&client, &target, 1_000_000);
}

#[test]
fn a_stalled_direction_is_acknowledged_and_delivered_later() {
    let rig = Rig::new();
    for direction in BOTH {
        let (client, target) = rig.connect();
        let (mut sender, mut receiver) = ends(direction, client, target);
        rig.proxy.update(|f| f.stall = Ways::only(direction, true));
        sender.write_all(b"late").unwrap();
        sender.shutdown(Shutdown::Write).unwrap();
        expect_silence(&receiver);
        assert_eq!(unacknowledged(&sender), 0);
        receiver.write_all(b"other way").unwrap();
        expect(&sender, b"other way");
        rig.proxy.set(Faults::default());
        expect(&receiver, b"late");
        expect_eof(&receiver);
        drop((sender, receiver));
        assert!(rig.proxy.wait_until(LONG, |s| s.flows == 0));
    }
}

#[test]
fn a_stall_hides_a_reset_and_closes_the_window() {
    let rig = Rig::new();
    let (client, target) = rig.connect();
    rig.proxy.update(|f| f.stall = Ways::both(true));
    let taken = fill(&client);
    assert!(taken < 64 << 20, "{taken}");
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    expect_silence(&target);
    rig.proxy.set(Faults::default());
    let mut received = 0;
    let error = loop {
        match (&target).read(&mut [0; 65536]) {
            Ok(0) => panic!("FIN instead of RST"),
            Ok(n) => received += n,
            Err(error) => break error,
        }
    };
    println!("{received} bytes before {error}");
    assert!(rig.proxy.wait_until(LONG, |s| s.flows == 0));
}

#[test]
#[ignore = "a measurement"]
fn full_speed() {
    let rig = Rig::new();
    let (client, target) = rig.connect();
    let direct = listener();
    let a = connect(direct.local_addr().unwrap());
    let b = accept(&direct);
    for (name, mut sender, mut receiver) in [("direct", a, b), ("proxy", client, target)] {
        let total = 4usize << 30;
        let start = Instant::now();
        thread::scope(|scope| {
            scope.spawn(|| {
                let block = vec![1; 256 * 1024];
                for _ in 0..total / block.len() {
                    sender.write_all(&block).unwrap();
                }
            });
            let mut block = vec![1; 256 * 1024];
            let mut got = 0;
            while got < total {
                got += receiver.read(&mut block).unwrap();
            }
        });
        let rate = total as f64 / start.elapsed().as_secs_f64() / 1e9;
        println!("{name}: {rate:.2} GB/s");
    }
}
