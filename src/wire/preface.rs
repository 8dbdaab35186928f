//! The first bytes of a connection: who speaks, and in which tongue.

use std::fmt;

use crate::id::{Incarnation, PeerId};

pub(crate) const PREFACE_LEN: usize = 84;
pub(crate) const VERSION: u16 = 1;
/// The longest name of a network, in bytes.
pub(crate) const MAX_NETWORK: usize = 32;
const MAGIC: [u8; 8] = *b"unbroken";

/// How the frames after the preface are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Mode {
    Plaintext = 0,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Preface {
    pub(crate) mode: Mode,
    pub(crate) network: NetworkName,
    pub(crate) peer: PeerId,
    pub(crate) incarnation: Incarnation,
}

/// A network's name as it stands in the preface, filled up with zero bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct NetworkName([u8; MAX_NETWORK]);

impl NetworkName {
    pub(crate) fn empty() -> Self {
        NetworkName([0; MAX_NETWORK])
    }

    /// `None` when the name is longer than [`MAX_NETWORK`] or holds a zero byte.
    pub(crate) fn new(name: &str) -> Option<Self> {
        let mut bytes = [0; MAX_NETWORK];
        bytes.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        (!name.contains('\0')).then_some(NetworkName(bytes))
    }
}

impl fmt::Display for NetworkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = self.0.split(|byte| *byte == 0).next().unwrap_or_default();
        write!(f, "{:?}", String::from_utf8_lossy(used))
    }
}

impl fmt::Debug for NetworkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The other side does not speak our protocol, or not in our network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PrefaceError {
    Magic,
    Version(u16),
    Mode(u16),
    Network { theirs: NetworkName, ours: NetworkName },
}

impl fmt::Display for PrefaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PrefaceError::Magic => write!(f, "the other side does not speak the unbroken protocol"),
            PrefaceError::Version(version) => {
                write!(f, "the other side speaks protocol version {version}, this side {VERSION}")
            }
            PrefaceError::Mode(mode) => {
                write!(f, "the other side wants protection mode {mode}, this side plaintext (0)")
            }
            PrefaceError::Network { theirs, ours } => {
                write!(f, "the other side belongs to network {theirs}, this side to {ours}")
            }
        }
    }
}

impl Preface {
    pub(crate) fn encode(&self) -> [u8; PREFACE_LEN] {
        let mut bytes = [0; PREFACE_LEN];
        let fields: [&[u8]; 6] = [
            &MAGIC,
            &VERSION.to_le_bytes(),
            &(self.mode as u16).to_le_bytes(),
            &self.network.0,
            self.peer.as_bytes(),
            &self.incarnation.0.to_le_bytes(),
        ];
        let source = fields.into_iter().flatten();
        bytes.iter_mut().zip(source).for_each(|(to, from)| *to = *from);
        bytes
    }

    /// Decodes the other side's preface and holds it against our own network and mode.
    pub(crate) fn decode(bytes: &[u8; PREFACE_LEN], network: NetworkName) -> Result<Self, PrefaceError> {
        let mut rest = bytes.as_slice();
        if take(&mut rest) != MAGIC {
            return Err(PrefaceError::Magic);
        }
        let version = u16::from_le_bytes(take(&mut rest));
        if version != VERSION {
            return Err(PrefaceError::Version(version));
        }
        let mode = u16::from_le_bytes(take(&mut rest));
        if mode != Mode::Plaintext as u16 {
            return Err(PrefaceError::Mode(mode));
        }
        let theirs = NetworkName(take(&mut rest));
        if theirs != network {
            return Err(PrefaceError::Network { theirs, ours: network });
        }
        Ok(Preface {
            mode: Mode::Plaintext,
            network,
            peer: PeerId::from_bytes(take(&mut rest)),
            incarnation: Incarnation(u64::from_le_bytes(take(&mut rest))),
        })
    }
}

/// Splits the next `N` bytes off. The fields of a preface add up to its length, so they are there.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    match rest.split_first_chunk() {
        Some((field, behind)) => {
            *rest = behind;
            *field
        }
        None => [0; N],
    }
}
