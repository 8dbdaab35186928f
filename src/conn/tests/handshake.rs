//! Handshakes with an attacker between the two sides, or with a side that lies.

use std::io::{self, Cursor, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;

use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};

use super::*;
use crate::conn::handshake::{Card, Duplex, HandshakeError, Introduced, introduce};
use crate::id::{Incarnation, PeerId};
use crate::wire::preface::{Mode, NetworkName, OPENING_LEN, PREFACE_LEN, Preface, PrefaceError, Versions};

const FROM_DIALER: usize = PREFACE_LEN + FIRST + THIRD;
const FROM_LISTENER: usize = PREFACE_LEN + SECOND;

fn card(seed: u8, mode: Mode) -> Card {
    let identity = identity(seed);
    Card {
        versions: Versions::OURS,
        mode,
        network: NetworkName::new("net").unwrap(),
        peer: identity.peer_id(),
        identity,
        incarnation: Incarnation(u64::from(seed) + 100),
    }
}

fn noise(seed: u8) -> Card {
    card(seed, Mode::Noise)
}

/// The change that is made to the bytes of one side on their way.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Safe,
    Flipped { at: usize, bit: u8 },
    Cut { at: usize },
}

struct Ends {
    dialer: Result<Introduced, HandshakeError>,
    listener: Result<Introduced, HandshakeError>,
    /// The bytes that each side wrote.
    from_dialer: Vec<u8>,
    from_listener: Vec<u8>,
}

fn shake(dialer: &Card, listener: &Card, expected: Option<PeerId>, fates: [Fate; 2]) -> Ends {
    let ((a, to_a), (b, to_b)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
    let (to_a2, to_b2) = (to_a.try_clone().unwrap(), to_b.try_clone().unwrap());
    thread::scope(|scope| {
        // Each closes its end when it is done, which the other learns.
        let dialer = scope.spawn(move || introduce(&mut { a }, true, dialer, expected));
        let listener = scope.spawn(move || introduce(&mut { b }, false, listener, None));
        let there = scope.spawn(move || carry(to_a, to_b, fates[0]));
        let back = scope.spawn(move || carry(to_b2, to_a2, fates[1]));
        Ends {
            dialer: dialer.join().unwrap(),
            listener: listener.join().unwrap(),
            from_dialer: there.join().unwrap(),
            from_listener: back.join().unwrap(),
        }
    })
}

fn carry(mut from: UnixStream, mut to: UnixStream, fate: Fate) -> Vec<u8> {
    let (mut carried, mut byte) = (Vec::new(), [0]);
    // Reads to the end whatever happens: closing with unread bytes would be a reset.
    while matches!(from.read(&mut byte), Ok(1)) {
        let at = carried.len();
        carried.push(byte[0]);
        match fate {
            Fate::Flipped { at: flipped, bit } if flipped == at => byte[0] ^= 1 << bit,
            Fate::Cut { at: cut } if cut == at => to.shutdown(Shutdown::Write).unwrap(),
            _ => {}
        }
        // Fails after a cut, and when the other side is done.
        let _ = to.write_all(&byte);
    }
    let _ = to.shutdown(Shutdown::Write);
    carried
}

fn error(result: &Result<Introduced, HandshakeError>) -> String {
    result.as_ref().map_or_else(ToString::to_string, |found| format!("introduced to {}", found.peer))
}

#[test]
fn both_learn_who_the_other_is() {
    for mode in [Mode::Noise, Mode::Plaintext] {
        let (a, b) = (card(1, mode), card(2, mode));
        let ends = shake(&a, &b, Some(b.peer), [Fate::Safe; 2]);
        let (at_a, at_b) = (ends.dialer.unwrap(), ends.listener.unwrap());
        assert_eq!((at_a.peer, at_a.incarnation), (b.peer, b.incarnation));
        assert_eq!((at_b.peer, at_b.incarnation), (a.peer, a.incarnation));
        assert_eq!((at_a.opens.is_some(), at_b.opens.is_some()), (mode == Mode::Noise, mode == Mode::Noise));
        if mode == Mode::Noise {
            assert_eq!((ends.from_dialer.len(), ends.from_listener.len()), (FROM_DIALER, FROM_LISTENER));
            let said = [ends.from_dialer, ends.from_listener].concat();
            for secret in [a.peer, b.peer] {
                assert!(!said.windows(32).any(|bytes| bytes == secret.as_bytes()), "a name was said aloud");
            }
        }
    }
}

#[test]
fn the_keys_of_the_two_sides_fit_and_are_new_each_time() {
    let mut seen = Vec::new();
    for _ in 0..2 {
        let ends = shake(&noise(1), &noise(2), None, [Fate::Safe; 2]);
        let (a, b) = (ends.dialer.unwrap(), ends.listener.unwrap());
        for (mut sealer, opens) in [(a.sealer, b.opens), (b.sealer, a.opens)] {
            let mut batch = crate::wire::batch::Batch::default();
            batch.push_slice(b"text");
            let mut record = Vec::new();
            sealer.append(&batch, &mut record).unwrap();
            assert!(!seen.contains(&record));
            seen.push(record.clone());
            assert_eq!(opens.unwrap().open(0, &[], &mut record[2..]).unwrap(), b"text");
        }
    }
}

#[test]
fn a_flipped_bit_ends_the_handshake() {
    for at in 0..FROM_DIALER + FROM_LISTENER {
        let bit = (at % 8) as u8;
        let fates = match at.checked_sub(FROM_DIALER) {
            None => [Fate::Flipped { at, bit }, Fate::Safe],
            Some(at) => [Fate::Safe, Fate::Flipped { at, bit }],
        };
        let ends = shake(&noise(1), &noise(2), None, fates);
        let (dialer, listener) = (error(&ends.dialer), error(&ends.listener));
        assert!(ends.listener.is_err(), "{fates:?}: {listener}");
        // When the last message is spoiled the dialer is done already; no record will ever open.
        let spoiled_last = (PREFACE_LEN + FIRST..FROM_DIALER).contains(&at);
        assert_eq!(ends.dialer.is_ok(), spoiled_last, "{fates:?}: {dialer}");
    }
}

#[test]
fn the_highest_bit_of_a_key_counts_although_the_curve_ignores_it() {
    for (fates, last) in [
        ([Fate::Flipped { at: PREFACE_LEN + 31, bit: 7 }, Fate::Safe], "does not authenticate"),
        ([Fate::Safe, Fate::Flipped { at: PREFACE_LEN + 31, bit: 7 }], "does not authenticate"),
    ] {
        let ends = shake(&noise(1), &noise(2), None, fates);
        assert!(error(&ends.dialer).contains(last), "{}", error(&ends.dialer));
        assert!(ends.listener.is_err());
    }
}

#[test]
fn a_handshake_cut_anywhere_ends_on_both_sides() {
    for at in 0..FROM_DIALER {
        let ends = shake(&noise(1), &noise(2), None, [Fate::Cut { at }, Fate::Safe]);
        assert!(matches!(ends.listener, Err(HandshakeError::Closed)), "{at}: {}", error(&ends.listener));
        assert_eq!(ends.dialer.is_err(), at < PREFACE_LEN + FIRST, "{at}: {}", error(&ends.dialer));
    }
    for at in 0..FROM_LISTENER {
        let ends = shake(&noise(1), &noise(2), None, [Fate::Safe, Fate::Cut { at }]);
        assert!(matches!(ends.dialer, Err(HandshakeError::Closed)), "{at}: {}", error(&ends.dialer));
        assert!(ends.listener.is_err(), "{at}");
    }
}

/// Reads from one place, writes to another.
struct Script {
    input: Cursor<Vec<u8>>,
    output: Vec<u8>,
}

impl Script {
    fn new(input: Vec<u8>) -> Self {
        Script { input: Cursor::new(input), output: Vec::new() }
    }
}

impl Read for Script {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.input.read(to)
    }
}

impl Write for Script {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.output.write(from)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Duplex for Script {
    fn close_writing(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Duplex for UnixStream {
    fn close_writing(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

#[test]
fn a_repeated_session_convinces_nobody() {
    let honest = shake(&noise(1), &noise(2), None, [Fate::Safe; 2]);
    let mut replay = Script::new(honest.from_dialer);
    let fooled = introduce(&mut replay, false, &noise(2), None);
    assert!(error(&fooled).contains("does not authenticate"), "{}", error(&fooled));
    assert_ne!(replay.output, honest.from_listener, "new keys for every connection");
    let mut replay = Script::new(honest.from_listener);
    let fooled = introduce(&mut replay, true, &noise(1), Some(noise(2).peer));
    assert!(error(&fooled).contains("does not authenticate"), "{}", error(&fooled));
    assert_eq!(replay.output.len(), PREFACE_LEN + FIRST, "no name for who cannot prove his");
}

#[test]
fn random_bytes_are_refused_without_an_answer() {
    let mut rng = fastrand::Rng::with_seed(1);
    for len in [0, 1, 11, 12, 43, 44, 75, 76, 149, 150, 10_000] {
        for dialled in [true, false] {
            let mut garbage = vec![0; len];
            rng.fill(&mut garbage);
            let mut script = Script::new(garbage);
            let result = introduce(&mut script, dialled, &noise(1), None);
            assert!(matches!(
                result,
                Err(HandshakeError::Closed | HandshakeError::Preface(PrefaceError::Magic))
            ));
            assert_eq!(script.output.len(), if dialled { PREFACE_LEN + FIRST } else { 0 });
        }
    }
    // With the right preface before them.
    let preface = Preface { versions: Versions::OURS, mode: Mode::Noise, network: noise(1).network }.encode();
    for dialled in [true, false] {
        let mut garbage = vec![0; FROM_DIALER.max(FROM_LISTENER)];
        rng.fill(&mut garbage);
        garbage[..PREFACE_LEN].copy_from_slice(&preface);
        let result = introduce(&mut Script::new(garbage), dialled, &noise(1), None);
        assert!(matches!(result, Err(HandshakeError::Noise(snow::Error::Decrypt))), "{}", error(&result));
    }
}

#[test]
fn two_modes_refuse_each_other_and_both_say_why() {
    for (a, b) in [(Mode::Noise, Mode::Plaintext), (Mode::Plaintext, Mode::Noise)] {
        let ends = shake(&card(1, a), &card(2, b), None, [Fate::Safe; 2]);
        for (text, ours, theirs) in [(error(&ends.dialer), a, b), (error(&ends.listener), b, a)] {
            let expected = [format!("this side on {ours}"), format!("other side insists on {theirs}")];
            assert!(expected.iter().all(|part| text.contains(part)), "{text}");
        }
        assert_eq!(ends.from_listener.len(), OPENING_LEN, "a stranger is not told the network's name");
    }
}

#[test]
fn another_version_or_network_is_refused() {
    let (ours, mut other) = (noise(1), noise(2));
    other.network = NetworkName::new("other").unwrap();
    let ends = shake(&ours, &other, None, [Fate::Safe; 2]);
    assert!(error(&ends.listener).contains(r#"network "net", this side to "other""#));
    assert!(error(&ends.dialer).contains(r#"another network than "net""#), "{}", error(&ends.dialer));
    assert_eq!(ends.from_listener.len(), OPENING_LEN, "the name is told to nobody who does not know it");
    let mut later = noise(2);
    later.versions = Versions { lowest: 3, highest: 4 };
    let ends = shake(&ours, &later, None, [Fate::Safe; 2]);
    let text = error(&ends.listener);
    assert!(text.contains("speaks version 1 of the protocol, this side versions 3 to 4"), "{text}");
    assert!(error(&ends.dialer).contains("speaks versions 3 to 4"), "{}", error(&ends.dialer));
    assert_eq!(ends.from_listener.len(), OPENING_LEN);
}

#[test]
fn two_releases_speak_what_both_know_and_nobody_can_change_the_range() {
    let (ours, mut next) = (noise(1), noise(2));
    next.versions = Versions { lowest: 1, highest: 2 };
    for (dialer, listener) in [(&ours, &next), (&next, &ours)] {
        let ends = shake(dialer, listener, None, [Fate::Safe; 2]);
        assert!(ends.dialer.is_ok() && ends.listener.is_ok());
        // From 1-1 to 1-3, from 1-2 to 1-3 or 1-0.
        for fates in [
            [Fate::Flipped { at: 9, bit: 1 }, Fate::Safe],
            [Fate::Safe, Fate::Flipped { at: 9, bit: 1 }],
            [Fate::Safe, Fate::Flipped { at: 9, bit: 0 }],
        ] {
            let ends = shake(dialer, listener, None, fates);
            assert!(ends.dialer.is_err() && ends.listener.is_err(), "{fates:?}");
        }
    }
}

/// A change of the plaintext prefaces makes the handshake fail, even if each side finds what it received in
/// order.
#[test]
fn the_prologue_is_bound() {
    let mut ours = Noise::new(&identity(1), b"another", true).unwrap();
    let mut theirs = stock(2, false);
    let mut buffer = [0; 256];
    theirs.read_message(&ours.write::<FIRST>(&[]).unwrap(), &mut buffer).unwrap();
    let len = theirs.write_message(&[0; 8], &mut buffer).unwrap();
    assert!(matches!(ours.read_name::<8>(&buffer[..len]), Err(snow::Error::Decrypt)));
}

#[test]
fn the_wrong_peer_is_refused_before_it_learns_our_name() {
    for mode in [Mode::Noise, Mode::Plaintext] {
        let expected = card(3, mode).peer;
        let ends = shake(&card(1, mode), &card(2, mode), Some(expected), [Fate::Safe; 2]);
        let text = error(&ends.dialer);
        assert!(
            text.contains(&expected.to_string()) && text.contains(&card(2, mode).peer.to_string()),
            "{text}"
        );
        if mode == Mode::Noise {
            assert!(matches!(ends.listener, Err(HandshakeError::Closed)));
            assert_eq!(ends.from_dialer.len(), PREFACE_LEN + FIRST);
        }
    }
}

#[test]
fn a_node_knows_itself() {
    for mode in [Mode::Noise, Mode::Plaintext] {
        let ends = shake(&card(1, mode), &card(1, mode), None, [Fate::Safe; 2]);
        assert!(matches!(ends.dialer, Err(HandshakeError::SelfConnection)), "{}", error(&ends.dialer));
        assert!(ends.listener.is_err());
    }
}

/// The points of small order (RFC 7748 section 6.1, <https://cr.yp.to/ecdh.html#validate>): with each of
/// them every secret gives zero.
fn low_order() -> Vec<[u8; 32]> {
    let hex = |text: &str| std::array::from_fn(|n| u8::from_str_radix(&text[2 * n..2 * n + 2], 16).unwrap());
    let zero = [0; 32];
    let mut one = zero;
    one[0] = 1;
    let eight = [
        hex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        hex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    ];
    // p - 1, p and p + 1, for p = 2^255 - 19.
    let around_p = [0xec, 0xed, 0xee].map(|last| {
        let mut bytes = [0xff; 32];
        (bytes[0], bytes[31]) = (last, 0x7f);
        bytes
    });
    [[zero, one].as_slice(), &eight, &around_p].concat()
}

#[test]
fn an_ephemeral_key_without_a_secret_is_refused() {
    for point in low_order() {
        let preface =
            Preface { versions: Versions::OURS, mode: Mode::Noise, network: noise(1).network }.encode();
        let mut script = Script::new([preface.as_slice(), &point].concat());
        let result = introduce(&mut script, false, &noise(1), None);
        assert!(error(&result).contains("a key that has no secret"), "{}", error(&result));
        assert!(script.output.is_empty());
    }
}

/// Ciphers as they come, but for a static key without a secret: anybody can compute what it gives.
struct Liar {
    point: [u8; 32],
    first: AtomicBool,
}

struct LiarsKey([u8; 32]);

impl Dh for LiarsKey {
    fn name(&self) -> &'static str {
        "25519"
    }
    fn pub_len(&self) -> usize {
        32
    }
    fn priv_len(&self) -> usize {
        32
    }
    fn set(&mut self, _: &[u8]) {}
    fn generate(&mut self, _: &mut dyn Random) -> Result<(), snow::Error> {
        Ok(())
    }
    fn pubkey(&self) -> &[u8] {
        &self.0
    }
    fn privkey(&self) -> &[u8] {
        &self.0
    }
    fn dh(&self, _: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        out[..32].fill(0);
        Ok(())
    }
}

impl CryptoResolver for Liar {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        DefaultResolver.resolve_rng()
    }
    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        // The static key is asked for first.
        match self.first.swap(false, SeqCst) {
            true => Some(Box::new(LiarsKey(self.point))),
            false => DefaultResolver.resolve_dh(choice),
        }
    }
    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }
    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

#[test]
fn a_name_without_a_secret_is_refused() {
    for point in low_order() {
        for dialled in [true, false] {
            let liar = Liar { point, first: AtomicBool::new(true) };
            let builder =
                snow::Builder::with_resolver("Noise_XX_25519_AESGCM_SHA256".parse().unwrap(), Box::new(liar));
            let builder = builder.local_private_key(&[0; 32]).unwrap().prologue(PROLOGUE).unwrap();
            let mut buffer = [0; 256];
            let mut ours = Noise::new(&identity(1), PROLOGUE, !dialled).unwrap();
            let refused = if dialled {
                let mut liar = builder.build_initiator().unwrap();
                let len = liar.write_message(&[], &mut buffer).unwrap();
                ours.read::<0>(&buffer[..len]).unwrap();
                let second = ours.write::<SECOND>(&[0; 10]).unwrap();
                liar.read_message(&second, &mut buffer).unwrap();
                let len = liar.write_message(&[0; 8], &mut buffer).unwrap();
                assert_eq!(len, THIRD);
                ours.read_name::<8>(&buffer[..len])
            } else {
                let mut liar = builder.build_responder().unwrap();
                liar.read_message(&ours.write::<FIRST>(&[]).unwrap(), &mut buffer).unwrap();
                let len = liar.write_message(&[0; 8], &mut buffer).unwrap();
                ours.read_name::<8>(&buffer[..len])
            };
            assert!(matches!(refused, Err(snow::Error::Dh)), "{refused:?}");
        }
    }
}
