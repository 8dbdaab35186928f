//! The Noise handshake: who proves what to whom, and the two keys that come out.
//!
//! ```text
//!   dialer                                             listener
//!     | -- e ------------------------------------------> |
//!     | <-------------- e, ee, s, es, its incarnation -- |   and versions: the dialer knows whom it has reached
//!     | -- s, se, its incarnation ---------------------> |   the listener knows who called
//! ```
//!
//! The suite is `Noise_XX_25519_AESGCM_SHA256` (<https://noiseprotocol.org/noise.html>, revision 34). All
//! of it is fixed, there is nothing to negotiate and so nothing to downgrade; another suite would be another
//! mode in the preface. Every message has one length only, so none announces any.
//!
//! # Why XX and not IK
//! IK would save one round trip where the dialer knows the listener's key beforehand. It saves it once in the
//! life of a connection, which is days, and costs: a first message that can be replayed, the dialer's
//! name under a key that is never renewed, and a second pattern to fall back to whenever a peer has a new
//! key.
//!
//! # Why AES-GCM of `ring`
//! Measured on one core of an x86-64 machine with VAES (AMD EPYC), records of 64 B / 1 KiB / 64 KiB
//! (`benches/cipher.rs`):
//!
//! | cipher | seal, MB/s |
//! |---|---|
//! | `ring` AES-256-GCM | 980 / 6,900 / 11,000 |
//! | `ring` ChaCha20-Poly1305 | 360 / 2,100 / 3,000 |
//! | `aes-gcm` (pure Rust) | 570 / 1,400 / 1,400 |
//! | `chacha20poly1305` (pure Rust) | 50 / 560 / 1,300 |
//! | `aws-lc-rs` AES-256-GCM | 980 / 7,900 / 23,700 |
//!
//! `aws-lc-rs` is faster still, but nothing here waits for the cipher any more, and `ring` is the much
//! smaller build. The rest, by `benches/encryption.rs` on two cores over loopback with nothing beside: 71 to
//! 75 % of the rate of plaintext at 256 KiB a message, 68 % at 1 KiB, 95 to 101 % at 64 B, and no difference
//! there and back. On processors without AES instructions ChaCha20 would be the faster choice.
//!
//! # What is wiped
//! The node's secret, its copies here, and the ephemeral secrets, when they are dropped. Copies that the
//! compiler leaves on the stack when it moves them, and `snow`'s intermediate values, are not. The keys of a
//! connection live in `ring`, which does not wipe them; each is good for 65,536 records of one direction of
//! one connection.

use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, Error, HandshakeState};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::record::Key;
use crate::id::{Identity, PeerId};

const SUITE: &str = "Noise_XX_25519_AESGCM_SHA256";
const INCARNATION: usize = 8;
const TAG: usize = 16;
const PUBLIC: usize = PeerId::LEN;

/// The lengths of the three messages.
pub(crate) const FIRST: usize = PUBLIC;
pub(crate) const SECOND: usize = PUBLIC + PUBLIC + TAG + SECOND_PAYLOAD + TAG;
/// The listener's incarnation and the versions that it speaks.
pub(crate) const SECOND_PAYLOAD: usize = INCARNATION + 2;
pub(crate) const THIRD: usize = PUBLIC + TAG + INCARNATION + TAG;

/// A handshake under way.
pub(crate) struct Noise(HandshakeState);

/// The keys of a connection: one for each direction.
pub(crate) struct Keys {
    pub(crate) ours: Key,
    pub(crate) theirs: Key,
}

impl Noise {
    /// `prologue` is what was said in the open: a handshake succeeds only if both sides heard the same.
    pub(crate) fn new(identity: &Identity, prologue: &[u8], dialled: bool) -> Result<Self, Error> {
        let secret = Zeroizing::new(identity.to_bytes());
        let builder = Builder::with_resolver(SUITE.parse()?, Box::new(Primitives));
        let builder = builder.prologue(prologue)?.local_private_key(secret.as_slice())?;
        Ok(Noise(if dialled { builder.build_initiator()? } else { builder.build_responder()? }))
    }

    /// The next message of ours, which has `N` bytes.
    pub(crate) fn write<const N: usize>(&mut self, payload: &[u8]) -> Result<[u8; N], Error> {
        // The builder of messages wants room for a tag even where there is none.
        let mut buffer = [0; SECOND + TAG];
        let written = self.0.write_message(payload, &mut buffer)?;
        buffer.get(..written).and_then(|message| message.try_into().ok()).ok_or(Error::Input)
    }

    /// The other side's next message, and what it carries.
    pub(crate) fn read<const N: usize>(&mut self, message: &[u8]) -> Result<[u8; N], Error> {
        let mut buffer = [0; SECOND];
        let read = self.0.read_message(message, &mut buffer)?;
        buffer.get(..read).and_then(|payload| payload.try_into().ok()).ok_or(Error::Input)
    }

    /// The same for a message with which the other side proves who it is.
    pub(crate) fn read_name<const N: usize>(&mut self, message: &[u8]) -> Result<(PeerId, [u8; N]), Error> {
        let payload = self.read(message)?;
        let key = self.0.get_remote_static().and_then(|key| key.try_into().ok()).ok_or(Error::Input)?;
        Ok((PeerId::from_bytes(key), payload))
    }

    /// The result, after the third message.
    pub(crate) fn finish(mut self) -> Result<Keys, Error> {
        if !self.0.is_handshake_finished() {
            return Err(Error::State(snow::error::StateProblem::HandshakeNotFinished));
        }
        let (dialer, listener) = self.0.dangerously_get_raw_split();
        let (dialer, listener) = (Zeroizing::new(dialer), Zeroizing::new(listener));
        let [dialer, listener] = [Key::new(&dialer), Key::new(&listener)];
        let (dialer, listener) = (dialer.ok_or(Error::Input)?, listener.ok_or(Error::Input)?);
        Ok(match self.0.is_initiator() {
            true => Keys { ours: dialer, theirs: listener },
            false => Keys { ours: listener, theirs: dialer },
        })
    }
}

/// Where `snow` gets its primitives.
struct Primitives;

impl CryptoResolver for Primitives {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(System))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        matches!(choice, DHChoice::Curve25519).then(|| Box::new(X25519::of([0; 32])) as Box<dyn Dh>)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        matches!(choice, HashChoice::SHA256).then(|| Box::new(Sha256::new()) as Box<dyn Hash>)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        matches!(choice, CipherChoice::AESGCM).then(|| Box::new(AesGcm(None)) as Box<dyn Cipher>)
    }
}

struct System;

impl Random for System {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        getrandom::fill(dest).map_err(|_| Error::Rng)
    }
}

/// Both are wiped when they are dropped.
struct X25519 {
    secret: StaticSecret,
    public: PublicKey,
}

impl X25519 {
    fn of(bytes: [u8; 32]) -> Self {
        let secret = StaticSecret::from(bytes);
        X25519 { public: PublicKey::from(&secret), secret }
    }
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        PUBLIC
    }

    fn priv_len(&self) -> usize {
        PUBLIC
    }

    fn set(&mut self, privkey: &[u8]) {
        if let Ok(bytes) = privkey.try_into() {
            *self = X25519::of(bytes);
        }
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), Error> {
        let mut bytes = Zeroizing::new([0; PUBLIC]);
        rng.try_fill_bytes(bytes.as_mut_slice())?;
        *self = X25519::of(*bytes);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        self.public.as_bytes()
    }

    fn privkey(&self) -> &[u8] {
        self.secret.as_bytes()
    }

    /// Refuses the few keys with which every secret gives the same result: whoever shows one has
    /// proved nothing (RFC 7748 section 6.1).
    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let theirs: [u8; PUBLIC] = *pubkey.first_chunk().ok_or(Error::Dh)?;
        let shared = self.secret.diffie_hellman(&PublicKey::from(theirs));
        if !shared.was_contributory() {
            return Err(Error::Dh);
        }
        *out.first_chunk_mut().ok_or(Error::Dh)? = *shared.as_bytes();
        Ok(())
    }
}

struct Sha256(ring::digest::Context);

impl Sha256 {
    fn new() -> Self {
        Sha256(ring::digest::Context::new(&ring::digest::SHA256))
    }
}

impl Hash for Sha256 {
    fn name(&self) -> &'static str {
        "SHA256"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        32
    }

    fn reset(&mut self) {
        *self = Sha256::new();
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        let digest = std::mem::replace(self, Sha256::new()).0.finish();
        out.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
    }
}

/// For the messages of the handshake; records have [`Key`] alone.
struct AesGcm(Option<Key>);

impl Cipher for AesGcm {
    fn name(&self) -> &'static str {
        "AESGCM"
    }

    fn set(&mut self, key: &[u8; 32]) {
        self.0 = Key::new(key);
    }

    /// Returns 0 if there is no key, which makes the message too short to be accepted by anybody.
    fn encrypt(&self, nonce: u64, authtext: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let Some(key) = &self.0 else { return 0 };
        let Some((text, behind)) = out.split_at_mut_checked(plaintext.len()) else { return 0 };
        let Some(tag) = behind.first_chunk_mut::<TAG>() else { return 0 };
        text.copy_from_slice(plaintext);
        match key.seal(nonce, authtext, text) {
            Ok(sealed) => *tag = sealed,
            Err(_) => return 0,
        }
        plaintext.len() + TAG
    }

    fn decrypt(
        &self,
        nonce: u64,
        authtext: &[u8],
        ciphertext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Error> {
        let key = self.0.as_ref().ok_or(Error::Decrypt)?;
        let mut text = ciphertext.to_vec();
        let opened = key.open(nonce, authtext, &mut text).map_err(|_| Error::Decrypt)?;
        out.get_mut(..opened.len()).ok_or(Error::Decrypt)?.copy_from_slice(opened);
        Ok(opened.len())
    }
}
