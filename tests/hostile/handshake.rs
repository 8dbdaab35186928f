//! Before the connection has joined.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::time::Duration;

use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use unbroken::{Encryption, EndCause, Event, PeerConfig};

use crate::scene::{CREDIT, Scene, nonce, refusal, say};
use unbroken_test_support::cluster::{eventually, first_addr};
use unbroken_test_support::raw::{self, Raw, RawIdentity, connect_from, encryption};

/// Sends this, reads to the end. Returns how many bytes came back, and why it ended.
fn answer(scene: &Scene, bytes: &[u8]) -> (usize, String) {
    let mut stream = TcpStream::connect(scene.addr()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // The node may have closed before it has read all.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut back = Vec::new();
    let _ = stream.read_to_end(&mut back);
    (back.len(), refusal(stream.local_addr().unwrap()))
}

fn first_bytes(who: &RawIdentity) -> Vec<u8> {
    match who.encryption {
        Encryption::Noise => [who.preface(), raw::noise_message(&mut who.noise(), &[])].concat(),
        _ => [who.preface().as_slice(), who.id().as_bytes(), &who.incarnation.to_le_bytes()].concat(),
    }
}

#[test]
fn strangers_that_speak_something_else() {
    let scene = Scene::set(|_| ());
    let good = first_bytes(&scene.stranger());
    let spoilt = |at: usize, with: u8| {
        let mut bytes = good.clone();
        bytes[at] = with;
        bytes
    };
    let other_mode = if encryption() == Encryption::Noise { 0 } else { 1 };
    for (what, bytes) in [
        ("wrong magic", spoilt(3, b'X')),
        ("wrong version", spoilt(8, 9)),
        ("the other mode: plaintext to an encrypted node", spoilt(10, other_mode)),
        ("another network", spoilt(20, b'!')),
        ("a web browser", b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n".repeat(4)),
        ("64 KiB of nothing", vec![0; 65_536]),
    ] {
        scene.row(what, || {
            let (back, why) = answer(&scene, &bytes);
            assert!(back <= bytes.len() && back <= 12, "{back} bytes for {}", bytes.len());
            assert!(why.starts_with("refused: ") && why.ends_with("(by the library)"), "{why}");
        });
    }
    scene.row("cut after every byte of the first message", || {
        for len in 0..good.len() {
            let (back, why) = answer(&scene, &good[..len]);
            assert_eq!((back, why.as_str()), (0, "closed without goodbye (by the peer)"), "{len}");
        }
    });
    scene.row("keys without a secret, names of nobody", || {
        for end in [0u8, 1] {
            let mut point = [0; 32];
            point[0] = end;
            let zeros = [&good[..44], &point].concat();
            let (back, why) = answer(&scene, &zeros);
            if encryption() == Encryption::Noise {
                assert_eq!(back, 0);
                assert!(why.contains("a key that has no secret"), "{why}");
            } else {
                assert_eq!(why, "closed without goodbye (by the peer)");
            }
        }
    });
    if encryption() == Encryption::Noise {
        scene.row("a handshake said again", || {
            let who = scene.stranger();
            let mut real = greet_by_hand(&scene, &who);
            let again = [real.said.as_slice(), &[7; 500]].concat();
            let (back, why) = answer(&scene, &again);
            assert_eq!(back, 150, "no more than any stranger gets");
            assert!(why.contains("does not authenticate"), "{why}");
            // The real one goes on as if nothing had been.
            let hello = (real.seal)(&raw::frame(raw::HELLO, &who.hello.encode()));
            real.stream.write_all(&hello).unwrap();
            scene.node.wait_event("it has joined", 0, |event| match event {
                Event::Connected { peer, .. } if *peer == who.id() => Some(()),
                _ => None,
            });
        });
        scene.row("a name without a secret, in a handshake that is right otherwise", || {
            let mut noise = nobody(&scene.stranger());
            let mut stream = TcpStream::connect(scene.addr()).unwrap();
            let preface = scene.stranger().preface();
            stream.write_all(&[preface, raw::noise_message(&mut noise, &[])].concat()).unwrap();
            let mut second = [0; 150];
            stream.read_exact(&mut second).unwrap();
            noise.read_message(&second[44..], &mut [0; 128]).unwrap();
            stream.write_all(&raw::noise_message(&mut noise, &1u64.to_le_bytes())).unwrap();
            let why = refusal(stream.local_addr().unwrap());
            assert!(why.contains("a key that has no secret"), "{why}");
        });
    }
}

#[test]
fn hellos_that_lie() {
    let scene = Scene::set(|_| ());
    // Frames in the place of HELLO.
    let instead = |bytes: &[u8]| {
        let mut who = scene.stranger();
        // The honest HELLO is cut off: it says so many lanes that `Raw` has to send it by hand.
        let Greeted { mut stream, seal: mut sealed, .. } = greet_by_hand(&scene, &who);
        who.hello.name.clear();
        let _ = stream.write_all(&sealed(bytes));
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        refusal(stream.local_addr().unwrap())
    };
    let hello = |change: fn(&mut raw::Hello)| {
        let mut hello = RawIdentity::new(1, CREDIT).hello;
        change(&mut hello);
        raw::frame(raw::HELLO, &hello.encode())
    };
    let mut endless = hello(|hello| hello.lanes.clear());
    // The header, memory, token, slot, and then the number of lanes.
    endless[4 + 8 + 8 + 1] = 0xff;
    let mut nameless = hello(|hello| hello.name = "x".into());
    *nameless.last_mut().unwrap() = 0xff;
    for (what, bytes, why) in [
        // It need not be complete: its kind is enough.
        (
            "a CHUNK of 1 MiB before HELLO",
            vec![raw::CHUNK, 0x0a, 0, 0x10, 1, 0],
            "the first frame is not a HELLO",
        ),
        ("a PING before HELLO", nonce(raw::PING, 1), "the first frame is not a HELLO"),
        ("HELLO for slot 3", hello(|hello| hello.slot = 3), "slot 3 in HELLO"),
        ("HELLO for slot 255", hello(|hello| hello.slot = 255), "slot 255 in HELLO"),
        ("HELLO with more lanes than there are bytes", endless, "Hello frame whose lanes is cut short"),
        (
            "HELLO with 65 lanes",
            hello(|hello| hello.lanes = vec![hello.lanes[0].clone(); 65]),
            "the field lanes is 65 long",
        ),
        ("HELLO with a long name", hello(|hello| hello.name = "x".repeat(65)), "the field name is 65 long"),
        ("HELLO with a name that is no text", nameless, "Hello frame whose name is not UTF-8"),
        ("HELLO of 16 MiB", vec![raw::HELLO, 0xff, 0xff, 0xff], "announces 16777215 bytes"),
        (
            "HELLO that has what was never sent",
            hello(|hello| hello.lanes[0].received = 1),
            "acknowledged up to 1, but only 0 were sent",
        ),
        (
            "HELLO that has taken more than it received",
            hello(|hello| hello.lanes[1].taken = u64::MAX),
            "acknowledged up to",
        ),
    ] {
        scene.row(what, || {
            let found = instead(&bytes);
            assert!(found.contains(why) && found.contains("protocol error"), "{found}");
        });
    }
    scene.row("HELLO of another conversation", || {
        let found = instead(&hello(|hello| hello.peer_session_id = Some(4711)));
        assert!(found.contains("the session changed"), "{found}");
    });
    scene.row("HELLO twice", || {
        scene.protocol_error("a second HELLO", |raw| {
            let again = raw::frame(raw::HELLO, &RawIdentity::new(1, CREDIT).hello.encode());
            say(raw, &again);
        });
    });
    scene.row("one lane fifty times, and lanes nobody has", || {
        let mut who = scene.stranger();
        let mut lanes = vec![who.hello.lanes[0].clone(); 50];
        lanes.iter_mut().skip(1).for_each(|lane| (lane.max_message, lane.limit) = (0, u64::MAX));
        lanes[49].lane = 200;
        who.hello.lanes = lanes;
        let raw = scene.join(&who);
        // A message that it does not have is refused at once, one that it has is sent.
        let refused = scene.node.send(who.id(), (unbroken::BULK, "x")).map(|receipt| receipt.wait());
        assert_eq!(refused, Ok(unbroken::Outcome::Dropped(unbroken::DropReason::LaneRefused)));
        drop(raw);
        scene.end_of(&who);
    });
}

/// Noise for somebody whose name is the point that every secret takes to zero: what is shared is known to
/// all.
fn nobody(who: &RawIdentity) -> snow::HandshakeState {
    let suite = "Noise_XX_25519_AESGCM_SHA256".parse().unwrap();
    let builder =
        snow::Builder::with_resolver(suite, Box::new(Zeros)).local_private_key(&who.secret).unwrap();
    builder.prologue(&who.preface()).unwrap().build_initiator().unwrap()
}

struct Zeros;

impl CryptoResolver for Zeros {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        DefaultResolver.resolve_rng()
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        Some(Box::new(Point { honest: DefaultResolver.resolve_dh(choice)?, zero: false }))
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

/// A static key is zero, an ephemeral one is honest.
struct Point {
    honest: Box<dyn Dh>,
    zero: bool,
}

impl Dh for Point {
    fn name(&self) -> &'static str {
        self.honest.name()
    }

    fn pub_len(&self) -> usize {
        self.honest.pub_len()
    }

    fn priv_len(&self) -> usize {
        self.honest.priv_len()
    }

    fn set(&mut self, privkey: &[u8]) {
        self.honest.set(privkey);
        self.zero = true;
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
        self.honest.generate(rng)
    }

    fn pubkey(&self) -> &[u8] {
        if self.zero { &[0; 32] } else { self.honest.pubkey() }
    }

    fn privkey(&self) -> &[u8] {
        self.honest.privkey()
    }

    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        if self.zero {
            out[..32].fill(0);
            return Ok(());
        }
        self.honest.dh(pubkey, out)
    }
}

/// Makes a record.
type Seal = Box<dyn FnMut(&[u8]) -> Vec<u8>>;

/// All of the handshake but HELLO.
pub(crate) struct Greeted {
    pub(crate) stream: TcpStream,
    /// For what follows.
    pub(crate) seal: Seal,
    /// The bytes that were sent for it.
    said: Vec<u8>,
}

pub(crate) fn greet_by_hand(scene: &Scene, who: &RawIdentity) -> Greeted {
    greet_from([127, 0, 0, 1].into(), scene, who)
}

fn greet_from(source: IpAddr, scene: &Scene, who: &RawIdentity) -> Greeted {
    let mut stream = connect_from(source, scene.addr()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    if who.encryption == Encryption::Plaintext {
        let said = first_bytes(who);
        stream.write_all(&said).unwrap();
        stream.read_exact(&mut [0; 84]).unwrap();
        return Greeted { stream, seal: Box::new(|bytes| bytes.to_vec()), said };
    }
    let mut noise = who.noise();
    let first = [who.preface(), raw::noise_message(&mut noise, &[])].concat();
    stream.write_all(&first).unwrap();
    let mut second = [0; 150];
    stream.read_exact(&mut second).unwrap();
    noise.read_message(&second[44..], &mut [0; 128]).unwrap();
    let third = raw::noise_message(&mut noise, &who.incarnation.to_le_bytes());
    stream.write_all(&third).unwrap();
    let keys = noise.into_stateless_transport_mode().unwrap();
    let mut number = 0;
    let seal = move |bytes: &[u8]| {
        let mut record = vec![0; 2 + bytes.len() + 16];
        let len = keys.write_message(number, bytes, &mut record[2..]).unwrap();
        record[..2].copy_from_slice(&(len as u16).to_le_bytes());
        number += 1;
        record
    };
    Greeted { stream, seal: Box::new(seal), said: [first, third].concat() }
}

#[test]
fn crowds_before_the_door() {
    let scene = Scene::set(|config| {
        config.max_handshakes = 64;
        config.admission.max_handshakes_per_address = 16;
        config.admission.max_handshakes_per_subnet = 32;
        config.admission.connects_at_once = 2_100;
        config.path.handshake_timeout = Duration::from_secs(4);
    });
    let addr = first_addr(&scene.node);
    let from = |subnet: u8, host: u8| IpAddr::from([127, 0, subnet, host]);
    scene.row("2,000 half-handshakes from one address", || {
        let who = scene.stranger();
        let preface = who.preface();
        let refused = scene.node.snapshot().refused;
        let mut most = 0;
        let streams: Vec<_> = (0..2_000)
            .filter_map(|count| {
                let mut stream = connect_from(from(3, 3), addr).ok()?;
                let _ = stream.write_all(&preface);
                if count % 100 == 0 {
                    most = most.max(scene.node.snapshot().connections);
                }
                Some(stream)
            })
            .collect();
        eventually("all were looked at", || scene.node.snapshot().refused >= refused + 2_000 - 16 * 20);
        assert!(most <= 1 + 16, "{most} connections");
        // Somebody from elsewhere gets in beside them.
        drop(Raw::dial_from(from(4, 4), addr, &who).expect("another address"));
        drop(streams);
    });
    scene.row("50 honest peers behind one address", || {
        // Each tries again, as honest peers do, while the handshakes of the others are under way.
        let peers: Vec<_> = (0..50)
            .map(|_| {
                let who = scene.stranger();
                let mut raw = None;
                eventually("it gets in", || {
                    raw = Raw::dial_from(from(5, 5), addr, &who).ok();
                    raw.is_some()
                });
                raw.unwrap()
            })
            .collect();
        eventually("all are in", || scene.node.snapshot().connections == 51);
        drop(peers);
    });
    scene.row("more than an address may have", || {
        let raws: Vec<_> =
            (0..80).filter_map(|_| Raw::dial_from(from(6, 6), addr, &scene.stranger()).ok()).collect();
        assert_eq!(raws.len(), 64, "as configured");
    });
}

#[test]
fn a_ban_reaches_handshakes_that_are_under_way() {
    let scene = Scene::set(|_| ());
    scene.row("an address that is banned in the middle of a handshake", || {
        let (who, from) = (scene.stranger(), IpAddr::from([127, 0, 8, 8]));
        let mut greeted = greet_from(from, &scene, &who);
        scene.node.ban(from, None);
        let hello = (greeted.seal)(&raw::frame(raw::HELLO, &who.hello.encode()));
        greeted.stream.write_all(&hello).unwrap();
        let why = refusal(greeted.stream.local_addr().unwrap());
        assert!(why.contains("banned"), "{why}");
        assert!(scene.node.unban(from));
    });
}

#[test]
fn dials_that_lead_to_the_wrong_one() {
    let scene = Scene::set(|_| ());
    let failed = |address: &str| {
        let (_, cause) = scene.node.wait_event("a failed dial", 0, |event| match event {
            Event::DialFailed { address: tried, reason, .. } if tried == address => {
                Some(reason.cause.clone())
            }
            _ => None,
        });
        assert!(scene.node.remove_address(address));
        cause
    };
    scene.row("who answers is not the one expected", || {
        let (who, expected) = (scene.stranger(), scene.stranger());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        scene.node.add_peer(PeerConfig::new(format!("{}@{address}", expected.id()))).unwrap();
        let raw = Raw::accept(&listener, &who);
        assert!(raw.is_err(), "it was told more than it should be");
        assert!(matches!(failed(&address), EndCause::Refused(text) if text.contains("expected peer")));
    });
    scene.row("we ourselves answer, by an alias", || {
        let address = format!("localhost:{}", scene.addr().port());
        scene.node.add_peer(PeerConfig::new(address.clone())).unwrap();
        assert_eq!(failed(&address), EndCause::SelfConnection);
    });
}
