//! More than there is room for: connections, messages, and sessions.

use std::io::Write;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use unbroken::{BULK, Config, Event, NORMAL, Node, Outcome, URGENT};

use crate::scene::{Scene, alone, chunk, in_stream, path};
use unbroken_test_support::cluster::{
    Peer, TIMEOUT, all_taken, any_addr, builder, eventually, first_addr, within,
};
use unbroken_test_support::numbered::message;
use unbroken_test_support::process;
use unbroken_test_support::raw::{self, Raw, RawIdentity, connect_from};

#[test]
fn two_thousand_connections_at_once() {
    const CAP: usize = 200;
    let scene = Scene::set(|config| {
        config.max_connections = CAP;
        config.max_handshakes = 40;
        config.admission.reserved = 4;
        // Nobody leaves while the others come.
        config.path.handshake_timeout = Duration::from_secs(4);
        config.path.suspect_after = Duration::from_secs(20);
        config.path.dead_after = Duration::from_secs(60);
    });
    scene.row("2,000 connections at once from 250 networks, a cap of 200", || {
        let addr = scene.addr();
        let most = AtomicU64::new(0);
        let done = AtomicBool::new(false);
        let kept = thread::scope(|threads| {
            threads.spawn(|| {
                while !done.load(SeqCst) {
                    most.fetch_max(scene.node.snapshot().connections as u64, SeqCst);
                    thread::sleep(Duration::from_millis(2));
                }
            });
            let crowds: Vec<_> = (0..4)
                .map(|crowd| {
                    threads.spawn(move || {
                        let mut kept = Vec::new();
                        for count in 0..500u16 {
                            let from: IpAddr = [127, 10 + crowd, (count % 250) as u8, 1].into();
                            // One half wants to join; the other half comes behind it and says nothing.
                            if count >= 250 {
                                kept.extend(connect_from(from, addr).ok());
                            } else {
                                let who = RawIdentity::new(u16::from(crowd) * 500 + count, 1 << 20);
                                kept.extend(Raw::dial_from(from, addr, &who).ok().map(|raw| raw.stream));
                            }
                        }
                        kept
                    })
                })
                .collect();
            let kept: Vec<_> = crowds.into_iter().map(|crowd| crowd.join().unwrap()).collect();
            done.store(true, SeqCst);
            kept
        });
        let most = most.load(SeqCst).max(scene.node.snapshot().connections as u64);
        assert!(most <= CAP as u64, "{most} connections");
        assert!(most > CAP as u64 * 9 / 10, "only {most} connections: too few to be an overload");
        assert!(scene.node.snapshot().refused > 0);
        println!("  at most {most} connections, {} refused", scene.node.snapshot().refused);
        drop(kept);
    });
}

/// So many peers, each of which sends as fast as it may, to an application that takes a message now and then.
fn full_speed_into_a_slow_application(peers: usize, each: u64) {
    let _alone = alone();
    const MAX_INBOX: u64 = 4 << 20;
    const WINDOW: usize = 128 << 10;
    const LEN: usize = 10_000;
    let tune = |config: &mut Config| {
        config.path = path();
        config.max_inbox = MAX_INBOX as usize;
        config.lanes[1].max_message = 60_000;
        config.lanes[1].window = WINDOW;
    };
    let node = builder(tune).listen(any_addr()).start().unwrap();
    let senders: Vec<Node> = (0..peers)
        .map(|_| builder(tune).peer(format!("{}@{}", node.id(), first_addr(&node))).start().unwrap())
        .collect();
    let linked = |sender: &Node| sender.peer(node.id()).is_some_and(|peer| !peer.connections.is_empty());
    eventually("all are connected", || node.snapshot().connections == peers && senders.iter().all(linked));
    let before = process::resident_bytes().unwrap();
    // The queues of the senders are theirs, and in the same process: one payload for all.
    let payload = bytes::Bytes::from(vec![7u8; LEN]);
    let receipts: Vec<Vec<_>> = senders
        .iter()
        .map(|sender| (0..each).map(|_| sender.send(node.id(), (NORMAL, payload.clone())).unwrap()).collect())
        .collect();
    let (mut taken, mut most_held, mut most_memory) = (0, 0, 0);
    let start = Instant::now();
    let total = each * peers as u64;
    // Nothing is taken until the windows are full, or until the node withholds credit.
    let settled = || node.snapshot().inbox_bytes >= MAX_INBOX;
    assert!(within(TIMEOUT, settled), "{} bytes in the inbox", node.snapshot().inbox_bytes);
    while taken < total {
        assert!(start.elapsed() < TIMEOUT * 4, "{taken} of {total}");
        let batch = node.recv_batch(8, Duration::from_millis(100)).unwrap();
        let messages = batch.into_iter().filter_map(|event| match event {
            Event::Message(message) => Some(message.into_bytes()),
            _ => None,
        });
        for bytes in messages {
            assert_eq!(bytes, payload);
            taken += 1;
        }
        if taken % 64 < 8 {
            most_held = most_held.max(node.snapshot().inbox_bytes);
            most_memory = most_memory.max(process::resident_bytes().unwrap());
        }
    }
    for receipts in &receipts {
        all_taken(receipts);
    }
    println!(
        "{peers} peers, {total} messages of {LEN} bytes in {:.2?}: at most {} KiB held, memory +{} KiB",
        start.elapsed(),
        most_held >> 10,
        most_memory.saturating_sub(before) >> 10,
    );
    // Lanes on which nothing waits keep their credit, so that the hard bound is the sum of the windows.
    assert!(most_held <= MAX_INBOX + (peers * WINDOW) as u64, "{most_held} bytes held");
    let bound = MAX_INBOX as usize + peers * (WINDOW + (256 << 10)) + (16 << 20);
    assert!(most_memory < before + bound, "{before} bytes before, {most_memory} at most");
    assert_eq!(node.snapshot().connections, peers, "nobody was put out");
}

#[test]
fn peers_at_full_speed_do_not_fill_the_memory() {
    full_speed_into_a_slow_application(40, 60);
}

#[test]
#[ignore = "200 nodes in one process"]
fn two_hundred_peers_at_full_speed_do_not_fill_the_memory() {
    full_speed_into_a_slow_application(200, 200);
}

/// A life in which as many empty messages are sent as there is credit for. Returns how many those are.
fn live(node: &Peer, who: &RawIdentity, patience: Duration) -> u64 {
    let mut raw = Raw::dial(first_addr(node), who).unwrap();
    raw.stream.set_read_timeout(Some(patience)).unwrap();
    let mut limit = raw.hello.lanes[0].limit;
    // After a restart the credit comes in an ACK.
    while limit == 0
        && let Ok((kind, body)) = raw.read_frame()
    {
        if kind == raw::ACK {
            let lanes = raw::decode_states(&body);
            limit = lanes.iter().find(|lane| lane.0 == 0).map_or(0, |lane| lane.3);
        }
    }
    let messages = (limit / 4).min(10_000);
    if messages > 0 {
        let before = messages_of(node, who);
        raw.output.write_all(&chunk(URGENT, 0, &in_stream(&[]).repeat(messages as usize))).unwrap();
        eventually("they have arrived", || messages_of(node, who) == before + messages);
    }
    messages
}

fn messages_of(node: &Node, who: &RawIdentity) -> u64 {
    node.peer(who.id()).map_or(0, |peer| peer.messages_received)
}

#[test]
fn restarts_in_a_loop_cannot_fill_the_memory_with_empty_messages() {
    let _alone = alone();
    let node = Peer::start(
        builder(|config| {
            config.path = path();
            config.lanes[0].max_message = 60_000;
            config.lanes[0].window = 1 << 20;
        })
        .listen(any_addr()),
    );
    node.pause();
    let mut who = RawIdentity::new(1, 1 << 20);
    let mut counts = Vec::new();
    for life in 0..8 {
        (who.incarnation, who.hello.session_id) = (1_000 + life, 1_000 + life);
        counts.push(live(&node, &who, Duration::from_millis(200)));
        eventually("that life is over", || node.snapshot().connections == 0);
    }
    println!("messages in each life: {counts:?}");
    let waiting = node.peer(who.id()).unwrap().lanes[0].inbox_messages;
    // Each counts 128 bytes in the window of 1 MiB, and one life's worth came before they counted.
    assert!(waiting <= 8_192 + 10_000, "{waiting} messages wait");
    node.resume();
    eventually("all is taken", || node.peer(who.id()).unwrap().lanes[0].inbox_messages == 0);
    (who.incarnation, who.hello.session_id) = (2_000, 2_000);
    assert_eq!(live(&node, &who, TIMEOUT), 10_000, "the credit is back");
}

#[test]
fn a_full_node_lets_in_nobody_new() {
    let _alone = alone();
    let node = Peer::start(
        builder(|config| {
            config.path = path();
            config.max_inbox = 1 << 20;
        })
        .listen(any_addr()),
    );
    let honest = Peer::start(builder(|config| config.path = path()).peer(format!(
        "{}@{}",
        node.id(),
        first_addr(&node)
    )));
    honest.wait_up(node.id());
    all_taken(&[honest.send(node.id(), (URGENT, message(1, 0, 64))).unwrap()]);
    node.pause();
    // A peer with the most names would fill the most windows: each comes, fills one, and goes.
    let mut refused = 0;
    for seed in 1..=20 {
        let who = RawIdentity::new(seed, 1 << 20);
        let Ok(mut raw) = Raw::dial(first_addr(&node), &who) else {
            refused += 1;
            continue;
        };
        raw.output.write_all(&chunk(URGENT, 0, &in_stream(&[1; 250_000]))).unwrap();
        eventually("it has arrived", || messages_of(&node, &who) == 1);
    }
    // Five fill the inbox; one may have been on its way out when the application stopped.
    assert!(refused >= 13, "{refused} of 20 were refused");
    assert!(node.snapshot().inbox_bytes < 2 << 20);
    // A peer that was known before is served, and comes back too.
    let vote = honest.send(node.id(), (URGENT, message(1, 1, 64))).unwrap();
    node.resume();
    assert_eq!(vote.wait_timeout(TIMEOUT), Some(Outcome::Taken));
    eventually("the inbox is empty", || node.snapshot().inbox_bytes == 0);
    let who = RawIdentity::new(30, 1 << 20);
    eventually("strangers are welcome again", || Raw::dial(first_addr(&node), &who).is_ok());
    let ended = honest.look(|log| log.count(|event| matches!(event, Event::Disconnected { .. })));
    assert_eq!(ended, 0);
}

#[test]
fn a_flood_of_urgent_messages_does_not_keep_a_slow_application_from_everybody_elses_others() {
    let _alone = alone();
    let node = builder(|config| config.path = path()).listen(any_addr()).start().unwrap();
    let address = format!("{}@{}", node.id(), first_addr(&node));
    let start = || builder(|config| config.path = path()).peer(address.clone()).start().unwrap();
    let (attacker, honest) = (start(), start());
    let linked = |peer: &Node| node.peer(peer.id()).is_some() && peer.peer(node.id()).is_some();
    eventually("both are linked", || linked(&attacker) && linked(&honest));
    // Far more than the application takes while this lasts: there is always an urgent message that waits.
    let flood: Vec<_> = (0..5_000).map(|_| attacker.send(node.id(), (URGENT, "!")).unwrap()).collect();
    eventually("the flood is there", || node.peer(attacker.id()).unwrap().messages_received == 5_000);
    for lane in [NORMAL, BULK] {
        (0..5).for_each(|_| drop(honest.send(node.id(), (lane, "honest")).unwrap()));
    }
    eventually("so is the rest", || node.peer(honest.id()).unwrap().messages_received == 10);
    let (mut urgent, mut others) = (0, 0);
    while others < 10 {
        match node.recv_timeout(TIMEOUT).unwrap() {
            Some(Event::Message(message)) if message.lane() == URGENT => urgent += 1,
            Some(Event::Message(_)) => others += 1,
            other => assert!(other.is_some(), "nothing comes any more"),
        }
        assert!(urgent <= 16 * 11, "{urgent} urgent messages, and only {others} of 10 others");
    }
    assert!(urgent >= 16 * 4, "{urgent}: urgent messages still go first");
    drop(flood);
}
