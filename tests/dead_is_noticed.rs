//! Promise 5: a dead connection is noticed within its configured bound in every case, and one that is only
//! slow is left alone.

#![cfg(target_os = "linux")] // As the fault proxy is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test: it fails by panicking, and it reads the real clock"
)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use unbroken::test_util::{Faults, Ways, black_hole_supported};
use unbroken::{
    BULK, Config, ConnId, EndCause, EndReason, Event, Identity, NORMAL, Node, PeerConfig, PeerId, URGENT,
};
use unbroken_test_support::child::ChildNode;
use unbroken_test_support::cluster::{
    Pair, Peer, TIMEOUT, all_taken, any_addr, builder, calm_path, eventually, first_addr, flood, path, skip,
};
use unbroken_test_support::numbered::message;
use unbroken_test_support::raw::{self, Raw, RawIdentity};

/// How late the machine may make us. The bounds themselves are between half a second and two.
const SLACK: Duration = Duration::from_secs(3);

fn conn_to(node: &Node, peer: PeerId) -> ConnId {
    node.peer(peer).unwrap().connections.first().expect("a connection").id
}

/// Waits for the end of this connection; fails when it comes later than `bound` after `since`.
fn ends_within(peer: &Peer, conn: ConnId, since: Instant, bound: Duration) -> EndReason {
    let (at, reason) = peer.wait_event("the end of the connection", 0, |event| match event {
        Event::Disconnected { conn: ended, reason, .. } if *ended == conn => Some(reason.clone()),
        _ => None,
    });
    let took = at.saturating_duration_since(since);
    println!("noticed after {took:?} (bound {bound:?}): {reason}");
    assert!(took < bound + SLACK, "noticed after {took:?} only, configured {bound:?}: {reason}");
    reason
}

fn suspected_within(peer: &Peer, conn: ConnId, since: Instant, bound: Duration) {
    let (at, ()) = peer.wait_event("suspicion", 0, |event| match event {
        Event::Suspect { conn: suspect, .. } if *suspect == conn => Some(()),
        _ => None,
    });
    let took = at.saturating_duration_since(since);
    assert!(took < bound + SLACK, "suspected after {took:?} only, configured {bound:?}");
}

#[test]
fn a_ping_of_the_application_is_answered_or_makes_suspect() {
    if !black_hole_supported() {
        return skip("no TCP_MD5SIG, no black hole");
    }
    let pair = Pair::start(|config| {
        // None goes by itself.
        config.path.ping_interval = Duration::from_secs(600);
        config.path.dead_after = Duration::from_secs(1200);
    });
    let (a, b) = (&pair.a, &pair.b);
    let pings = || b.peer(a.id()).unwrap().flood.pings;
    eventually("the first ping is answered", || a.peer(b.id()).unwrap().rtt_ms.is_some());
    let rtt = || a.peer(b.id()).unwrap().rtt_ms;
    let (before, measured) = (pings(), rtt());
    assert_eq!(a.ping(b.id()), 1);
    eventually("another ping came", || pings() == before + 1);
    // A connection that owes an answer is not asked again.
    eventually("it was answered", || rtt() != measured);
    assert_eq!(a.ping(Identity::generate().unwrap().peer_id()), 0, "there is no such peer");

    let conn = conn_to(a, b.id());
    assert!(pair.proxy.black_hole());
    let since = Instant::now();
    assert_eq!(a.ping(b.id()), 1);
    suspected_within(a, conn, since, path().suspect_after);
}

#[test]
fn a_black_hole_while_idle() {
    if !black_hole_supported() {
        return skip("no TCP_MD5SIG, no black hole");
    }
    let pair = Pair::start(|_| ());
    let (of_a, of_b) = (conn_to(&pair.a, pair.b.id()), conn_to(&pair.b, pair.a.id()));
    // Nothing new gets through either, so that nothing but the deadline ends it.
    assert!(pair.proxy.black_hole_new(true));
    let since = Instant::now();
    assert!(pair.proxy.black_hole());
    suspected_within(&pair.a, of_a, since, path().ping_interval + path().suspect_after);
    let reason = ends_within(&pair.a, of_a, since, path().dead_after);
    assert_eq!(reason.cause, EndCause::Dead);
    ends_within(&pair.b, of_b, since, path().dead_after);
}

#[test]
fn a_black_hole_with_data_in_flight() {
    if !black_hole_supported() {
        return skip("no TCP_MD5SIG, no black hole");
    }
    let pair = Pair::start(|_| ());
    let (a, b) = (&pair.a, &pair.b);
    let (of_a, of_b) = (conn_to(a, b.id()), conn_to(b, a.id()));
    assert!(pair.proxy.black_hole_new(true));
    let since = Instant::now();
    assert!(pair.proxy.black_hole());
    let vote = a.send(b.id(), (URGENT, message(1, 0, 64))).unwrap();
    suspected_within(a, of_a, since, path().suspect_after);
    ends_within(a, of_a, since, path().dead_after);
    ends_within(b, of_b, since, path().dead_after);
    pair.proxy.heal();
    all_taken(&[vote]);
}

#[test]
fn a_black_hole_under_full_load() {
    if !black_hole_supported() {
        return skip("no TCP_MD5SIG, no black hole");
    }
    let pair = Pair::start(|config| config.path.user_timeout = Duration::from_secs(30));
    let (a, b) = (&pair.a, &pair.b);
    let flood = flood(a, b.id(), BULK, 1, 40, |_| 4 * 1024 * 1024);
    b.wait_count(BULK, 1, 2);
    // Whatever a busy machine made of the first connection: the one that is in use now.
    let of_a = conn_to(a, b.id());
    let since = Instant::now();
    assert!(pair.proxy.black_hole());
    ends_within(a, of_a, since, path().dead_after);
    all_taken(&flood.join().unwrap());
    b.check(40);
}

#[test]
fn a_path_that_stands_still_while_the_kernels_acknowledge() {
    let pair = Pair::start(|config| config.path.user_timeout = Duration::from_secs(30));
    let (of_a, of_b) = (conn_to(&pair.a, pair.b.id()), conn_to(&pair.b, pair.a.id()));
    let since = Instant::now();
    pair.proxy.update(|faults| faults.stall = Ways::both(true));
    let vote = pair.a.send(pair.b.id(), (URGENT, message(1, 0, 64))).unwrap();
    assert_eq!(ends_within(&pair.a, of_a, since, path().dead_after).cause, EndCause::Dead);
    ends_within(&pair.b, of_b, since, path().dead_after);
    pair.proxy.update(|faults| faults.stall = Ways::both(false));
    all_taken(&[vote]);
}

// --- a process that stands still ------------------------------------------------------------------

#[test]
#[ignore = "helper: child process"]
fn child_process() {
    unbroken_test_support::child::run();
}

#[test]
fn a_frozen_peer_idle_and_under_load() {
    let config = Config { listen: vec![any_addr()], ..unbroken_test_support::cluster::config() };
    let identity = Identity::generate().unwrap();
    let peer = identity.peer_id();
    let mut child = ChildNode::start(&config, &identity);
    let parent = Peer::start(builder(|_| ()).peer(child.addr.to_string()));
    parent.wait_up(peer);
    child.take_all();
    for load in [false, true] {
        let flood = load.then(|| flood(&parent, peer, BULK, 1, 12, |_| 4 * 1024 * 1024));
        if load {
            assert_eq!(child.next_taken().seq, 0);
        }
        let conn = conn_to(&parent, peer);
        let since = Instant::now();
        child.child.freeze().unwrap();
        ends_within(&parent, conn, since, path().dead_after);
        child.child.thaw().unwrap();
        parent.wait_up(peer);
        if let Some(flood) = flood {
            all_taken(&flood.join().unwrap());
        }
    }
}

// --- peers that misbehave -------------------------------------------------------------------------

/// Keeps a node's patience up with a byte now and then, until it is told to stop or the node closes.
fn drip(
    mut stream: impl Write + Send + 'static,
    every: Duration,
    mut bytes: impl FnMut() -> Vec<u8> + Send + 'static,
) -> Drip {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let thread = thread::spawn(move || {
        while !stopped.load(SeqCst) && stream.write_all(&bytes()).is_ok() {
            thread::sleep(every);
        }
    });
    Drip { stop, thread: Some(thread) }
}

struct Drip {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for Drip {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        self.thread.take().into_iter().for_each(|thread| thread.join().unwrap());
    }
}

#[test]
fn a_peer_that_reads_nothing_but_talks() {
    let node =
        Peer::start(builder(|config| config.path.user_timeout = Duration::from_secs(30)).listen(any_addr()));
    let who = RawIdentity::new(1, 1 << 40);
    let raw = Raw::dial(first_addr(&node), &who).unwrap();
    node.wait_up(who.id());
    let conn = conn_to(&node, who.id());
    // Signs of life without end, so that only the blocked write can be noticed.
    let mut nonce = 0u64;
    let pings = drip(raw.output, Duration::from_millis(50), move || {
        nonce += 1;
        raw::frame(raw::PING, &nonce.to_le_bytes())
    });
    let since = Instant::now();
    // One message of this size is what a stranger may have in the queue.
    let receipt = node.send(who.id(), (BULK, message(1, 0, 20 << 20))).unwrap();
    let reason = ends_within(&node, conn, since, path().write_timeout);
    assert_eq!(reason.cause, EndCause::WriteTimeout);
    assert!(receipt.poll().is_none(), "nobody has taken anything");
    drop(pings);
}

#[test]
fn a_peer_that_never_finishes_a_frame() {
    let node = Peer::start(builder(|_| ()).listen(any_addr()));
    let who = RawIdentity::new(2, 1 << 20);
    let raw = Raw::dial(first_addr(&node), &who).unwrap();
    node.wait_up(who.id());
    let conn = conn_to(&node, who.id());
    let mut chunk = raw::frame(raw::CHUNK, &vec![0; 100_000]).into_iter();
    let since = Instant::now();
    let bytes = drip(raw.output, Duration::from_millis(100), move || chunk.next().into_iter().collect());
    let reason = ends_within(&node, conn, since, path().dead_after);
    assert_eq!(reason.cause, EndCause::Dead);
    drop(bytes);
}

#[test]
fn handshakes_that_never_end_are_ended() {
    let node = Peer::start(builder(|_| ()).listen(any_addr()));
    let who = RawIdentity::new(3, 1 << 20);
    let addr = first_addr(&node);
    let bound = path().handshake_timeout;
    // Silent from the start, silent after the preface, and one byte at a time.
    let silent = TcpStream::connect(addr).unwrap();
    let half = raw::preface_only(addr, &who).unwrap();
    let slow = TcpStream::connect(addr).unwrap();
    let since = Instant::now();
    let mut preface = b"unbroken".iter().copied().chain([1, 0, 0, 0]).chain(*b"unbroken");
    let bytes = drip(slow.try_clone().unwrap(), Duration::from_millis(100), move || {
        vec![preface.next().unwrap_or(0)]
    });
    eventually("all three are in handshake", || node.snapshot().connections == 3);
    for mut stream in [silent, half, slow] {
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        // To the end of the stream: what the node had to say first is of no interest.
        let _ = stream.read_to_end(&mut Vec::new());
        let took = since.elapsed();
        assert!(took < bound + SLACK, "a handshake lasted {took:?}, configured {bound:?}");
    }
    drop(bytes);
    eventually("nothing is left of them", || node.snapshot().connections == 0);
    assert!(since.elapsed() < bound + SLACK);
}

#[test]
fn a_dialled_peer_that_says_nothing_is_given_up() {
    let listener = TcpListener::bind(any_addr()).unwrap();
    let node = Peer::start(builder(|_| ()).peer(listener.local_addr().unwrap().to_string()));
    let (stream, _) = listener.accept().unwrap();
    let since = Instant::now();
    let (at, reason) = node.wait_event("the failed dial", 0, |event| match event {
        Event::DialFailed { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    assert_eq!(reason.cause, EndCause::HandshakeTimeout);
    let took = at.saturating_duration_since(since);
    assert!(took < path().handshake_timeout + SLACK, "{took:?}");
    drop(stream);
}

// --- and what is alive stays ----------------------------------------------------------------------

/// A path that is busy for several times `dead_after`, with frames and pongs that come late, but come.
fn stays_up(rate: u64, len: usize) {
    let pair = Pair::unconnected(|config| config.path = calm_path(), |config| config.path = calm_path());
    pair.proxy.set(Faults {
        recv_buffer: Some(16 * 1024),
        rate: Ways::both(Some(rate)),
        ..Faults::default()
    });
    pair.a.add_peer(PeerConfig::new(pair.proxy.addr().to_string())).unwrap();
    pair.wait_up();
    let (a, b) = (&pair.a, &pair.b);
    let (of_a, of_b) = (conn_to(a, b.id()), conn_to(b, a.id()));
    let busy = path().dead_after * 3;
    let count = busy.as_secs() * rate / len as u64;
    let floods =
        [flood(a, b.id(), BULK, 1, count, move |_| len), flood(b, a.id(), NORMAL, 2, count, move |_| len)];
    for flood in floods {
        all_taken(&flood.join().unwrap());
    }
    for (peer, conn) in [(a, of_a), (b, of_b)] {
        let ended = peer.look(|log| log.count(|event| matches!(event, Event::Disconnected { .. })));
        assert_eq!(ended, 0, "a connection that was never silent was closed: {:?}", peer.peers());
        let other = if peer.id() == a.id() { b.id() } else { a.id() };
        assert_eq!(conn_to(peer, other), conn);
    }
}

#[test]
fn a_saturated_path_with_large_messages_is_left_alone() {
    stays_up(1_000_000, 1 << 20);
}

#[test]
fn a_saturated_path_with_small_messages_is_left_alone() {
    stays_up(400_000, 3_000);
}

#[test]
fn a_late_pong_behind_a_slow_consumer_closes_nothing() {
    // The application takes nothing for several times `dead_after`: the link is full, and alive.
    let pair = Pair::start(|config| config.path = calm_path());
    let (a, b) = (&pair.a, &pair.b);
    b.pause();
    let flood = flood(a, b.id(), NORMAL, 1, 30, |_| 1 << 20);
    let patience = Instant::now() + path().dead_after * 2;
    eventually("twice the time has passed", || Instant::now() > patience);
    b.resume();
    all_taken(&flood.join().unwrap());
    b.check(30);
    for peer in [a, b] {
        let ended = peer.look(|log| log.count(|event| matches!(event, Event::Disconnected { .. })));
        assert_eq!(ended, 0, "closed although it answered");
    }
}

#[test]
fn a_slow_start_is_no_death() {
    // A path with a long round trip: eight of them count, not `suspect_after`.
    let pair = Pair::unconnected(|_| (), |_| ());
    pair.proxy.update(|faults| faults.delay = Ways::both(Duration::from_millis(150)));
    pair.a.add_peer(PeerConfig::new(pair.proxy.addr().to_string())).unwrap();
    pair.wait_up();
    let receipt = pair.a.send(pair.b.id(), (NORMAL, message(1, 0, 100_000))).unwrap();
    all_taken(&[receipt]);
    let dead = pair.a.look(|log| {
        log.count(
            |event| matches!(event, Event::Disconnected { reason, .. } if reason.cause == EndCause::Dead),
        )
    });
    assert_eq!(dead, 0);
}
