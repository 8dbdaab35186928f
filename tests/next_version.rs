//! Two releases in one network: what the page on the protocol says that a receiver skips is skipped, and a
//! node of the next version works with one of this version.

#![cfg(target_os = "linux")] // As the child processes of the tests are.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test: it fails by panicking"
)]

use std::net::TcpListener;
use std::process::Command;

use unbroken::{Config, Event, Identity, NORMAL, Node, PeerConfig, PeerId, URGENT};
use unbroken_test_support::child::ChildNode;
use unbroken_test_support::cluster::{Peer, TIMEOUT, all_taken, any_addr, builder, eventually, first_addr};
use unbroken_test_support::numbered::message;
use unbroken_test_support::raw::{self, Raw, RawIdentity};

#[test]
#[ignore = "helper: child process"]
fn child_process() {
    unbroken_test_support::child::run();
}

/// A peer that speaks versions 1 and 2 and sends what only version 2 knows, wherever a receiver skips it.
fn later(seed: u16) -> RawIdentity {
    let mut later = RawIdentity::new(seed, 1 << 20);
    later.versions = (1, 2);
    later.hello.later_entry = vec![0xEE; 3];
    later.hello.later_fields = vec![200, 2, 0, 1, 2, 255, 0, 0];
    later
}

/// The body of ACK with longer entries and an unknown field.
fn later_ack(states: &[raw::State]) -> Vec<u8> {
    let mut body = vec![states.len() as u8, 25 + 2];
    for state in states {
        body.extend_from_slice(&raw::encode_states(&[*state])[2..]);
        body.extend_from_slice(&[0xEE; 2]);
    }
    body.extend_from_slice(&[200, 1, 0, 7]);
    body
}

/// A vote from the later peer, one to it, and a ping, with everything a receiver skips. `offset`: what went
/// before.
fn talk(later: &mut Raw, node: &Node, peer: PeerId, offset: u64) {
    later.send(200, b"a hint that only the next version knows").unwrap();
    let vote = [&4_u32.to_le_bytes()[..], b"vote"].concat();
    let flags = 0xF1; // ACK_NOW, and bits that may be ignored.
    later.send(raw::CHUNK, &[&[0, flags][..], &offset.to_le_bytes(), &vote].concat()).unwrap();
    let received = node.lane_receiver(URGENT).unwrap().recv_timeout(TIMEOUT).unwrap().expect("a vote");
    assert_eq!((received.peer(), &received.into_bytes()[..]), (peer, &b"vote"[..]));
    let receipt = node.send(peer, (URGENT, "answer")).unwrap();
    later.send(raw::PING, &[&7_u64.to_le_bytes()[..], &[200, 1, 0, 7]].concat()).unwrap();
    let (mut ponged, mut answered) = (false, false);
    while !(ponged && answered) {
        let (kind, body) = later.read_frame().unwrap();
        match kind {
            raw::PONG => ponged |= body[..8] == 7_u64.to_le_bytes(),
            raw::PING => later.send(raw::PONG, &[&body[..8], &[200, 0, 0]].concat()).unwrap(),
            raw::CHUNK => {
                assert_eq!(&body[10..], b"\x06\0\0\0answer", "the whole message in one chunk");
                let end = u64::from_le_bytes(body[2..10].try_into().unwrap()) + body.len() as u64 - 10;
                later.send(raw::ACK, &later_ack(&[(0, end, end, end + (1 << 20))])).unwrap();
                answered = true;
            }
            _ => {}
        }
    }
    all_taken(&[receipt]);
}

#[test]
fn a_later_version_may_say_more_wherever_the_protocol_says_so() {
    let node = Node::builder().configure(|config| config.encryption = raw::encryption());
    let node = node.listen(any_addr()).start().unwrap();
    let mut who = later(1);
    let mut first = Raw::dial(first_addr(&node), &who).unwrap();
    talk(&mut first, &node, who.id(), 0);
    // Its successor takes over, with what the next version adds to a goodbye.
    who.hello.peer_session_id = Some(first.hello.session_id);
    who.hello.replaces = Some(who.hello.token);
    who.hello.token += 1;
    let sent = 4 + 4;
    let answered = 4 + 6;
    let lane = &mut who.hello.lanes[0];
    (lane.received, lane.taken, lane.limit) = (answered, answered, answered + (1 << 20));
    let mut second = Raw::dial(first_addr(&node), &who).unwrap();
    talk(&mut second, &node, who.id(), sent);
    let goaway = [&[5][..], &later_ack(&[])].concat();
    second.send(raw::GOAWAY, &goaway).unwrap();
    let mut old = 0;
    while let Ok((kind, _)) = first.read_frame() {
        old = kind;
    }
    assert_eq!(old, raw::GOAWAY, "the connection that was replaced is drained");
}

#[test]
fn a_later_version_that_is_dialled_may_say_more_too() {
    let listener = TcpListener::bind(any_addr()).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let node = Node::builder().configure(|config| config.encryption = raw::encryption());
    let node = node.peer(address).start().unwrap();
    let who = later(2);
    let mut raw = Raw::accept(&listener, &who).unwrap();
    talk(&mut raw, &node, who.id(), 0);
}

/// This test binary, built as a node of the next version.
fn next_version() -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["test", "--test", "next_version", "--no-run", "--message-format", "json"]);
    let wrapper = concat!(env!("CARGO_MANIFEST_DIR"), "/.ci/cfg/unbroken_next_version");
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).env("RUSTC_WORKSPACE_WRAPPER", wrapper);
    let output = cargo.output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let messages = String::from_utf8(output.stdout).unwrap();
    let mut built = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(str::to_owned)
    });
    Command::new(built.next_back().expect("an executable"))
}

fn replaced(peer: &Peer) -> usize {
    peer.look(|log| log.count(|event| matches!(event, Event::Replaced { .. })))
}

/// Each side replaces the connections that it dialled again and again while both send.
#[test]
#[ignore = "builds the library a second time"]
fn a_node_of_the_next_version_and_one_of_this_version_replace_each_others_connections() {
    let tune = |config: &mut Config| {
        config.encryption = raw::encryption();
        config.max_replacements_per_minute = 100_000;
    };
    let identity = Identity::generate().unwrap();
    for child_dials in [false, true] {
        let mut config = Config { listen: vec![any_addr()], ..Config::default() };
        tune(&mut config);
        let this = builder(tune);
        let (this, mut next) = if child_dials {
            let this = Peer::start(this.listen(any_addr()));
            let pool = PeerConfig { connections: Some(3), ..PeerConfig::new(first_addr(&this).to_string()) };
            config.peers.push(pool);
            (this, ChildNode::start_by(next_version(), &config, &identity))
        } else {
            let next = ChildNode::start_by(next_version(), &config, &identity);
            let pool = PeerConfig { connections: Some(3), ..PeerConfig::new(next.addr.to_string()) };
            (Peer::start(this.configure(|config| config.peers.push(pool))), next)
        };
        let peer = identity.peer_id();
        this.wait_up(peer);
        let connections = || this.peer(peer).map_or(0, |peer| peer.connections.len());
        next.take_all();
        for round in 1..=3 {
            eventually("a pool of three", || connections() >= 3);
            next.send(NORMAL, round, 200, 2000);
            let receipts = (0..200).map(|seq| this.send(peer, (NORMAL, message(round, seq, 2000))).unwrap());
            let receipts: Vec<_> = receipts.collect();
            let before = replaced(&this);
            if child_dials {
                next.replace();
            } else {
                this.replace(peer).unwrap();
            }
            all_taken(&receipts);
            eventually("the connections are replaced", || replaced(&this) >= before + 3);
            for seq in 0..200 {
                let taken = next.next_taken();
                assert_eq!((taken.stream, taken.seq), (round, seq));
            }
            this.wait_count(NORMAL, round, 200);
        }
        this.check(600);
    }
}
