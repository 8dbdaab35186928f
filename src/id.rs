//! Identities of nodes, and the incarnations of their processes.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// The name of a node: its X25519 public key.
///
/// Prints as 56 characters, letters and the digits 2 to 7: the key and a check of three bytes in the base32
/// of RFC 4648, in lower case. One that was copied wrongly is refused, but for one in 16 million. `{:?}`
/// prints the first eight only, enough to tell peers apart in a log.
///
/// The check is the beginning of the SHA-256 of `unbroken peer id` and the key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerId([u8; 32]);

/// Eight bytes of a key are as good as the whole: to find many keys that share them is infeasible.
impl Hash for PeerId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
    }
}

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// Characters of a printed name: 35 bytes, five bits in each.
const PRINTED: usize = 56;
const CHECK: usize = 3;

impl PeerId {
    /// Length of a `PeerId` in bytes.
    pub const LEN: usize = 32;

    /// Makes a `PeerId` of the 32 bytes of a public key.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        PeerId(bytes)
    }

    /// The 32 bytes of the public key.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first eight characters, for logs and tables.
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(8);
        text
    }

    fn check(&self) -> [u8; CHECK] {
        let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
        hash.update(b"unbroken peer id");
        hash.update(&self.0);
        hash.finish().as_ref().first_chunk().copied().unwrap_or_default()
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut bits, mut count) = (0u32, 0);
        let mut text = String::with_capacity(PRINTED);
        for byte in self.0.into_iter().chain(self.check()) {
            bits = bits << 8 | u32::from(byte);
            count += 8;
            while count >= 5 {
                count -= 5;
                let digit = (bits >> count) as usize % ALPHABET.len();
                text.extend(ALPHABET.get(digit).map(|letter| char::from(*letter)));
            }
        }
        f.pad(&text)
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({})", self.short())
    }
}

/// A text is not a [`PeerId`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsePeerIdError {
    text: String,
    problem: Problem,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Problem {
    Length(usize),
    Character(char, usize),
    Check,
}

impl fmt::Display for ParsePeerIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a peer id: ", self.text)?;
        match self.problem {
            Problem::Length(count) => write!(f, "it has {count} characters instead of {PRINTED}"),
            Problem::Character(letter, at) => {
                write!(
                    f,
                    "character {at} is {letter:?}, expected are the letters a to z and the digits 2 to 7"
                )
            }
            Problem::Check => write!(f, "its check does not fit, some character was changed"),
        }
    }
}

impl std::error::Error for ParsePeerIdError {}

impl FromStr for PeerId {
    type Err = ParsePeerIdError;

    /// Takes capital letters too.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = |problem| ParsePeerIdError { text: text.chars().take(80).collect(), problem };
        let length = text.chars().count();
        if length != PRINTED {
            return Err(error(Problem::Length(length)));
        }
        let (mut bits, mut count) = (0u32, 0);
        let mut bytes = Vec::with_capacity(PeerId::LEN + CHECK);
        for (at, letter) in text.chars().enumerate() {
            let digit = ALPHABET.iter().position(|other| char::from(*other) == letter.to_ascii_lowercase());
            let digit = digit.ok_or_else(|| error(Problem::Character(letter, at + 1)))?;
            bits = bits << 5 | digit as u32;
            count += 5;
            if count >= 8 {
                count -= 8;
                bytes.push((bits >> count) as u8);
            }
        }
        let id = bytes.first_chunk().map(|key| PeerId(*key));
        let id = id.filter(|id| bytes.last_chunk() == Some(&id.check()));
        id.ok_or_else(|| error(Problem::Check))
    }
}

impl Serialize for PeerId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for PeerId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
        } else {
            <[u8; 32]>::deserialize(deserializer).map(PeerId)
        }
    }
}

/// The long-lived secret of a node; its public half is the node's [`PeerId`].
///
/// Keep it in a file ([`Identity::load_or_generate`]) if the node shall have the same name after a restart:
/// peers can then tell a restart from a stranger. `Debug` prints the public half only, and the memory
/// is wiped when the value is dropped.
#[derive(Clone)]
pub struct Identity {
    secret: StaticSecret,
}

impl Identity {
    /// Draws a new identity from the operating system's random numbers.
    ///
    /// # Errors
    /// When the operating system has none to give.
    pub fn generate() -> std::io::Result<Self> {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(bytes.as_mut_slice()).map_err(std::io::Error::other)?;
        Ok(Self::from_bytes(*bytes))
    }

    /// The identity whose secret key is `bytes`. Any 32 bytes are a valid key.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Identity { secret: StaticSecret::from(bytes) }
    }

    /// The secret key. Anybody who knows it can pass for this node.
    pub fn to_bytes(&self) -> [u8; 32] {
        self.secret.to_bytes()
    }

    /// The public name that belongs to this secret.
    pub fn peer_id(&self) -> PeerId {
        PeerId(PublicKey::from(&self.secret).to_bytes())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.peer_id().short())
    }
}

/// One life of a node: a number drawn at random when it starts.
///
/// Two connections from the same [`PeerId`] with the same incarnation come from the same process, so
/// what it had received is still in its memory; a different incarnation is a restart.
///
/// Prints as 16 hexadecimal digits, also in JSON, where a number of 64 bits would not be exact.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Incarnation(pub(crate) u64);

impl Incarnation {
    /// The number itself.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for Incarnation {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Incarnation {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return u64::deserialize(deserializer).map(Incarnation);
        }
        let text = String::deserialize(deserializer)?;
        let is_printed = text.len() == 16 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
        let number = is_printed.then(|| u64::from_str_radix(&text, 16).ok()).flatten();
        let expected = || serde::de::Error::custom(format!("{text:?} is not 16 hexadecimal digits"));
        number.map(Incarnation).ok_or_else(expected)
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Incarnation({self})")
    }
}

/// One connection of this node, numbered from 1 in the order in which they were opened.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ConnId(pub(crate) u64);

impl ConnId {
    /// The number itself.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnId({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_id_survives_print_and_parse() {
        let id = Identity::generate().unwrap().peer_id();
        assert_eq!(id.to_string().parse::<PeerId>().unwrap(), id);
        assert_eq!(serde_json::from_str::<PeerId>(&serde_json::to_string(&id).unwrap()).unwrap(), id);
    }

    #[test]
    fn the_form_of_a_printed_id_is_fixed() {
        let id = PeerId::from_bytes(std::array::from_fn(|n| n as u8));
        // printf 'unbroken peer id\0\1...\37' | sha256sum gives b1 d0 09 ..., behind the key in base32.
        assert_eq!(id.to_string(), "aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dyp3duaj");
        assert_eq!(id.to_string().to_uppercase().parse(), Ok(id));
        assert_eq!(format!("{id:?}"), "PeerId(aaaqeaye)");
        assert_eq!(format!("{id:>60}"), format!("    {id}"));
    }

    #[test]
    fn a_bad_peer_id_is_refused_with_what_was_wrong() {
        let good = PeerId::from_bytes([9; 32]).to_string();
        let with = |at: usize, letter: &str| format!("{}{letter}{}", &good[..at], &good[at + 1..]);
        for (text, problem) in [
            (String::new(), "0 characters instead of 56"),
            (good[1..].to_string(), "55 characters"),
            ("7".repeat(64), "64 characters"),
            (with(7, "1"), "character 8 is '1'"),
            (with(55, "é"), "character 56 is 'é'"),
            (format!("{} ", &good[..55]), "character 56 is ' '"),
        ] {
            let error = text.parse::<PeerId>().unwrap_err().to_string();
            assert!(error.contains(problem) && error.contains(&text), "{error}");
        }
        for at in 0..56 {
            let letter = if good[at..].starts_with('a') { "b" } else { "a" };
            let error = with(at, letter).parse::<PeerId>().unwrap_err().to_string();
            assert!(error.contains("its check does not fit"), "{at}: {error}");
        }
    }

    #[test]
    fn the_same_secret_gives_the_same_name() {
        let identity = Identity::generate().unwrap();
        assert_eq!(Identity::from_bytes(identity.to_bytes()).peer_id(), identity.peer_id());
    }
}
