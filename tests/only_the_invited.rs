//! Only the invited: peers prove who they are before anything else is heard from them, and nobody on the
//! path can read what they say, change it, or say it again. Here somebody sits in the middle.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test may panic, and runs on the real clock and real threads"
)]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use unbroken::{
    BULK, Config, Encryption, EndCause, Event, Identity, NORMAL, PeerConfig, PeerId, Receipt, URGENT,
};
use unbroken_test_support::cluster::{
    Peer, TIMEOUT, all_taken, any_addr, builder, calm_path, eventually, first_addr,
};
use unbroken_test_support::numbered::message;
use unbroken_test_support::raw::{self, Raw, RawIdentity};

/// These tests are about encryption, whatever the others run in.
fn encrypted(config: &mut Config) {
    config.encryption = Encryption::Noise;
    config.path = calm_path();
    config.path.backoff_first = Duration::from_millis(10);
    config.path.backoff_max = Duration::from_millis(50);
    config.path.breaker_threshold = 10_000;
}

/// Passes bytes on, keeps them all, and flips the bits that it is told to.
struct Middle {
    addr: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// The bits to flip in the connections to come, first in first out: the direction and the byte.
    flips: Mutex<Vec<(bool, usize)>>,
    heard: Mutex<Vec<Heard>>,
}

/// The bytes of one connection.
#[derive(Clone, Default)]
struct Heard {
    by_dialer: Vec<u8>,
    by_listener: Vec<u8>,
}

impl Middle {
    fn start(target: SocketAddr) -> Middle {
        let listener = TcpListener::bind(any_addr()).unwrap();
        let middle = Middle { addr: listener.local_addr().unwrap(), state: Arc::default() };
        let state = Arc::clone(&middle.state);
        thread::spawn(move || {
            for from in listener.incoming().map_while(Result::ok) {
                let Ok(to) = TcpStream::connect(target) else { continue };
                let index = {
                    let mut heard = state.heard.lock();
                    heard.push(Heard::default());
                    heard.len() - 1
                };
                let flip = state.flips.lock().pop();
                for (dialer, from, to) in
                    [(true, from.try_clone().unwrap(), to.try_clone().unwrap()), (false, to, from)]
                {
                    let state = Arc::clone(&state);
                    let flip = flip.filter(|flip| flip.0 == dialer).map(|flip| flip.1);
                    thread::spawn(move || state.carry(index, dialer, flip, from, to));
                }
            }
        });
        middle
    }

    fn heard(&self) -> Vec<Heard> {
        self.state.heard.lock().clone()
    }
}

impl State {
    fn carry(&self, index: usize, dialer: bool, flip: Option<usize>, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = [0; 16 * 1024];
        let mut at = 0;
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let bytes = &mut buffer[..count];
            {
                let heard = &mut self.heard.lock()[index];
                let kept = if dialer { &mut heard.by_dialer } else { &mut heard.by_listener };
                kept.extend_from_slice(bytes);
            }
            if let Some(byte) = flip.and_then(|flip| bytes.get_mut(flip.checked_sub(at)?)) {
                *byte ^= 1;
            }
            at += count;
            if to.write_all(bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    }
}

fn send(from: &Peer, to: PeerId, stream: u64, first: u64, count: u64) -> Vec<Receipt> {
    (first..first + count).map(|seq| from.send(to, (NORMAL, message(stream, seq, 700))).unwrap()).collect()
}

fn ended_for(peer: &Peer, text: &str) -> usize {
    peer.look(|log| {
        log.count(|event| match event {
            Event::Disconnected { reason, .. } | Event::DialFailed { reason, .. } => {
                matches!(&reason.cause, EndCause::Protocol(_) | EndCause::Tampered(_))
                    && reason.to_string().contains(text)
            }
            _ => false,
        })
    })
}

#[test]
fn a_flipped_bit_anywhere_ends_one_connection_and_no_message_is_harmed() {
    let b = Peer::start(builder(encrypted).listen(any_addr()));
    let bystander = Peer::start(builder(encrypted).peer(format!("{}@{}", b.id(), first_addr(&b))));
    bystander.wait_up(b.id());
    let middle = Middle::start(first_addr(&b));
    // In Noise, in HELLO, in the first records, and well into the stream; not in the preface, of which the
    // handshake's own tests take every bit.
    let places = [45, 80, 120, 150, 160, 200, 400, 900, 3_000, 30_000];
    let flips = places.iter().flat_map(|at| [(true, *at), (false, at % 1000)]).collect::<Vec<_>>();
    *middle.state.flips.lock() = flips;
    let a = Peer::start(builder(encrypted).peer(format!("{}@{}", b.id(), middle.addr)));
    a.wait_up(b.id());
    let mut sent = 0;
    let mut receipts = Vec::new();
    eventually("all flips were made", || {
        receipts.extend(send(&a, b.id(), 1, sent, 5));
        receipts.extend(send(&b, a.id(), 2, sent, 5));
        sent += 5;
        middle.state.flips.lock().is_empty()
    });
    receipts.extend(send(&a, b.id(), 1, sent, 100));
    receipts.extend(send(&b, a.id(), 2, sent, 100));
    all_taken(&receipts);
    a.check(sent + 100);
    b.check(sent + 100);
    let noticed = ended_for(&a, "does not authenticate") + ended_for(&b, "does not authenticate");
    assert!(noticed >= 5, "{noticed} connections ended for a record or message that does not authenticate");
    all_taken(&send(&bystander, b.id(), 3, 0, 10));
    assert_eq!(bystander.peer(b.id()).unwrap().reconnects, 0, "somebody else's trouble");
}

#[test]
fn an_attacker_on_the_path_understands_nothing() {
    let secret = "the launch code is 00000000";
    for encryption in [Encryption::Noise, Encryption::Plaintext] {
        let tune = |config: &mut Config| {
            encrypted(config);
            config.encryption = encryption;
            config.name = "telltale".into();
        };
        let b = Peer::start(builder(tune).listen(any_addr()));
        let middle = Middle::start(first_addr(&b));
        let a = Peer::start(builder(tune).peer(middle.addr.to_string()));
        a.wait_up(b.id());
        // A request: a taken message would have to be one of the numbered ones.
        a.request(b.id(), (URGENT, secret)).unwrap().wait().unwrap();
        let heard =
            middle.heard().into_iter().flat_map(|heard| [heard.by_dialer, heard.by_listener].concat());
        let heard: Vec<u8> = heard.collect();
        for part in [secret.as_bytes(), b"telltale", a.id().as_bytes(), b.id().as_bytes()] {
            let open = heard.windows(part.len()).any(|window| window == part);
            assert_eq!(open, encryption == Encryption::Plaintext, "{:?}", String::from_utf8_lossy(part));
        }
    }
}

#[test]
fn another_identity_at_the_address_is_refused_and_both_are_named() {
    let impostor = Peer::start(builder(encrypted).listen(any_addr()));
    let expected = Identity::generate().unwrap().peer_id();
    let a = Peer::start(builder(encrypted).peer(format!("{expected}@{}", first_addr(&impostor))));
    let (_, text) = a.wait_event("a refusal", 0, |event| match event {
        Event::DialFailed { reason, .. } => match &reason.cause {
            EndCause::Refused(text) => Some(text.clone()),
            _ => None,
        },
        _ => None,
    });
    assert!(text.contains(&expected.to_string()) && text.contains(&impostor.id().to_string()), "{text}");
    assert!(impostor.peers().is_empty(), "it was not even told who called");
    assert!(a.peer(impostor.id()).is_none());
}

#[test]
fn an_old_session_said_again_is_not_believed() {
    let b = Peer::start(builder(encrypted).listen(any_addr()));
    let middle = Middle::start(first_addr(&b));
    let a = Peer::start(builder(encrypted).peer(format!("{}@{}", b.id(), middle.addr)));
    a.wait_up(b.id());
    all_taken(&send(&a, b.id(), 1, 0, 50));
    let old = middle.heard().remove(0);
    let before = b.snapshot().connections;
    for _ in 0..5 {
        let mut replay = TcpStream::connect(first_addr(&b)).unwrap();
        replay.set_read_timeout(Some(TIMEOUT)).unwrap();
        // It may be thrown out before it is done.
        let _ = replay.write_all(&old.by_dialer);
        let _ = replay.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let _ = replay.read_to_end(&mut answer);
        assert!(answer.len() <= 44 + 106, "{} bytes: more than the handshake's answer", answer.len());
    }
    eventually("they are gone", || b.snapshot().connections == before);
    all_taken(&send(&a, b.id(), 1, 50, 50));
    b.check(100);
    assert_eq!(a.peer(b.id()).unwrap().reconnects, 0, "the real session is untouched");
    assert_eq!(b.peers().len(), 1);
}

#[test]
fn nodes_that_disagree_on_encryption_refuse_each_other_and_say_so() {
    for ours in [Encryption::Noise, Encryption::Plaintext] {
        let with = |encryption| {
            builder(move |config| {
                encrypted(config);
                config.encryption = encryption;
            })
        };
        let theirs = if ours == Encryption::Noise { Encryption::Plaintext } else { Encryption::Noise };
        let b = Peer::start(with(theirs).listen(any_addr()));
        let a = Peer::start(with(ours).peer(first_addr(&b).to_string()));
        let (_, text) = a.wait_event("a refusal", 0, |event| match event {
            Event::DialFailed { reason, .. } => match &reason.cause {
                EndCause::Refused(text) => Some(text.clone()),
                _ => None,
            },
            _ => None,
        });
        for part in ["plaintext (mode 0)", "Noise (mode 1)", "`encryption`"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(b.peers().is_empty());
        let is_link = |event: &Event| matches!(event, Event::LinkUp { .. });
        assert_eq!(a.look(|log| log.count(is_link)) + b.look(|log| log.count(is_link)), 0);
    }
}

#[test]
fn a_proven_peer_that_forges_repeats_or_leaves_out_a_record_is_ended() {
    let node = Peer::start(builder(encrypted).listen(any_addr()));
    let honest = Peer::start(builder(encrypted).peer(first_addr(&node).to_string()));
    honest.wait_up(node.id());
    type Lie = fn(&mut Raw, Vec<u8>);
    let lies: [Lie; 5] = [
        |raw, mut record| {
            record[10] ^= 4;
            raw.stream.write_all(&record).unwrap();
        },
        |raw, record| {
            raw.stream.write_all(&record).unwrap();
            raw.stream.write_all(&record).unwrap();
        },
        |raw, _left_out| raw.send(raw::PING, &[0; 8]).unwrap(),
        |raw, _| raw.stream.write_all(&[0, 0]).unwrap(),
        // In the open, as in plaintext: four bytes of header are a length of 0x0804.
        |raw, _| raw.stream.write_all(&vec![4; 4096]).unwrap(),
    ];
    for (at, lie) in lies.into_iter().enumerate() {
        let mut who = RawIdentity::new(20 + at as u16, 1 << 20);
        who.encryption = Encryption::Noise;
        let mut raw = Raw::dial(first_addr(&node), &who).unwrap();
        node.wait_up(who.id());
        let record = raw.output.seal(&raw::frame(raw::PING, &7u64.to_le_bytes()));
        lie(&mut raw, record);
        let (_, reason) = node.wait_event("its end", 0, |event| match event {
            Event::Disconnected { peer, reason, .. } if *peer == who.id() => Some(reason.clone()),
            _ => None,
        });
        assert!(
            matches!(&reason.cause, EndCause::Tampered(text) if text.contains("record")),
            "{at}: {reason}"
        );
    }
    all_taken(&[honest.send(node.id(), (BULK, message(1, 0, 300_000))).unwrap()]);
    node.check(1);
    assert_eq!(honest.peer(node.id()).unwrap().reconnects, 0);
}

#[test]
fn a_name_that_cannot_be_proved_opens_no_link() {
    // It claims the name of another, as plaintext would let it.
    let victim = Identity::generate().unwrap();
    let node = Peer::start(builder(encrypted).listen(any_addr()).configure(|config| {
        config.peers.push(PeerConfig { id: Some(victim.peer_id()), ..PeerConfig::new("127.0.0.1:1") });
    }));
    let mut who = RawIdentity::new(40, 1 << 20);
    who.encryption = Encryption::Noise;
    let mut noise = who.noise();
    let mut stream = TcpStream::connect(first_addr(&node)).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.write_all(&[who.preface(), raw::noise_message(&mut noise, &[])].concat()).unwrap();
    let mut answer = [0; 44 + 106];
    stream.read_exact(&mut answer).unwrap();
    noise.read_message(&answer[44..], &mut [0; 128]).unwrap();
    // The cipher is a stream: whoever knows his own name can turn it into the victim's. The tag tells.
    let mut forged = raw::noise_message(&mut noise, &[0; 8]);
    for (at, byte) in forged[..32].iter_mut().enumerate() {
        *byte ^= who.id().as_bytes()[at] ^ victim.peer_id().as_bytes()[at];
    }
    stream.write_all(&forged).unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.is_empty(), "something was said to a liar");
    eventually("it is gone", || node.snapshot().connections == 0);
    assert!(node.look(|log| log.count(|event| matches!(event, Event::LinkUp { .. }))) == 0);
}
