//! Who is who: the names of nodes and of their lives.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use x25519_dalek::{PublicKey, StaticSecret};

/// The name of a node: its X25519 public key.
///
/// Prints as 64 hexadecimal digits; `{:?}` prints the first eight only, enough to tell peers apart
/// in a log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId([u8; 32]);

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

    /// The first eight hexadecimal digits, for logs and tables.
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(8);
        text
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
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
}

impl fmt::Display for ParsePeerIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a peer id is 64 hexadecimal digits, not {:?}", self.text)
    }
}

impl std::error::Error for ParsePeerIdError {}

impl FromStr for PeerId {
    type Err = ParsePeerIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParsePeerIdError { text: text.chars().take(80).collect() };
        if text.len() != 64 || !text.is_ascii() {
            return Err(error());
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| error())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| error())?;
        }
        Ok(PeerId(bytes))
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
/// Keep the 32 bytes of [`Identity::to_bytes`] if the node shall have the same name after a restart:
/// peers can then tell a restart from a stranger. `Debug` prints the public half only.
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
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
        Ok(Self::from_bytes(bytes))
    }

    /// The identity whose secret key is `bytes`. Any 32 bytes are a valid key.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Identity { secret: StaticSecret::from(bytes) }
    }

    /// The secret key. Whoever knows it can pass for this node.
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
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
    fn a_bad_peer_id_is_refused_with_what_was_wrong() {
        for text in ["", "12", &"g".repeat(64), &"é".repeat(32)] {
            let error = text.parse::<PeerId>().unwrap_err();
            assert!(error.to_string().contains("64 hexadecimal digits"), "{error}");
        }
    }

    #[test]
    fn the_same_secret_gives_the_same_name() {
        let identity = Identity::generate().unwrap();
        assert_eq!(Identity::from_bytes(identity.to_bytes()).peer_id(), identity.peer_id());
    }
}
