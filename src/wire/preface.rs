//! The first bytes of a connection: who speaks, and in which tongue.

use std::fmt;

use crate::id::{Incarnation, PeerId};

/// Magic, version and mode: what a side must agree on before the rest has a meaning.
pub(crate) const OPENING_LEN: usize = 12;
/// The opening and the network.
pub(crate) const PREFACE_LEN: usize = OPENING_LEN + MAX_NETWORK;
/// What follows in plaintext: who the sender says it is.
pub(crate) const CLAIM_LEN: usize = PeerId::LEN + 8;
pub(crate) const VERSION: u16 = 1;
/// The longest name of a network, in bytes.
pub(crate) const MAX_NETWORK: usize = 32;
const MAGIC: [u8; 8] = *b"unbroken";

/// How the frames after the preface are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Mode {
    Plaintext = 0,
    Noise = 1,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mode::Plaintext => f.write_str("plaintext (mode 0)"),
            Mode::Noise => f.write_str("encryption by Noise (mode 1)"),
        }
    }
}

/// What both sides must send alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Preface {
    pub(crate) mode: Mode,
    pub(crate) network: NetworkName,
}

/// Who speaks, unproven: all that plaintext has to offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
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
    Mode { theirs: u16, ours: Mode },
    Network { theirs: NetworkName, ours: NetworkName },
}

impl PrefaceError {
    /// Whether the other side is told our opening, so that it knows what we disagree on. The network's
    /// name is told to nobody who does not know it.
    pub(crate) fn is_answered(&self) -> bool {
        matches!(self, PrefaceError::Version(_) | PrefaceError::Mode { .. })
    }
}

impl fmt::Display for PrefaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PrefaceError::Magic => write!(f, "the other side does not speak the unbroken protocol"),
            PrefaceError::Version(version) => {
                write!(f, "the other side speaks protocol version {version}, this side {VERSION}")
            }
            PrefaceError::Mode { theirs, ours } => {
                write!(f, "the other side insists on ")?;
                match [Mode::Plaintext, Mode::Noise].into_iter().find(|mode| *mode as u16 == *theirs) {
                    Some(mode) => write!(f, "{mode}")?,
                    None => write!(f, "mode {theirs}, which is not known here")?,
                }
                write!(f, ", this side on {ours}: the setting `encryption` must be the same on both")
            }
            PrefaceError::Network { theirs, ours } => {
                write!(f, "the other side belongs to network {theirs}, this side to {ours}")
            }
        }
    }
}

impl Preface {
    pub(crate) fn encode(&self) -> [u8; PREFACE_LEN] {
        let fields: [&[u8]; 4] =
            [&MAGIC, &VERSION.to_le_bytes(), &(self.mode as u16).to_le_bytes(), &self.network.0];
        concat(&fields)
    }

    /// Holds the beginning of the other side's preface against ours.
    pub(crate) fn check_opening(&self, theirs: &[u8; OPENING_LEN]) -> Result<(), PrefaceError> {
        let mut rest = theirs.as_slice();
        if take(&mut rest) != MAGIC {
            return Err(PrefaceError::Magic);
        }
        let version = u16::from_le_bytes(take(&mut rest));
        if version != VERSION {
            return Err(PrefaceError::Version(version));
        }
        let mode = u16::from_le_bytes(take(&mut rest));
        if mode != self.mode as u16 {
            return Err(PrefaceError::Mode { theirs: mode, ours: self.mode });
        }
        Ok(())
    }

    /// Holds the rest of it against ours.
    pub(crate) fn check_network(&self, theirs: &[u8; MAX_NETWORK]) -> Result<(), PrefaceError> {
        let theirs = NetworkName(*theirs);
        if theirs == self.network {
            Ok(())
        } else {
            Err(PrefaceError::Network { theirs, ours: self.network })
        }
    }
}

impl Claim {
    pub(crate) fn encode(&self) -> [u8; CLAIM_LEN] {
        concat(&[self.peer.as_bytes(), &self.incarnation.0.to_le_bytes()])
    }

    pub(crate) fn decode(bytes: &[u8; CLAIM_LEN]) -> Self {
        let mut rest = bytes.as_slice();
        Claim {
            peer: PeerId::from_bytes(take(&mut rest)),
            incarnation: Incarnation(u64::from_le_bytes(take(&mut rest))),
        }
    }
}

/// Fields one after the other, which add up to `N` bytes.
pub(crate) fn concat<const N: usize>(fields: &[&[u8]]) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.iter_mut().zip(fields.iter().copied().flatten()).for_each(|(to, from)| *to = *from);
    bytes
}

/// Splits the next `N` bytes off. The lengths of the fields add up, so they are there.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    match rest.split_first_chunk() {
        Some((field, behind)) => {
            *rest = behind;
            *field
        }
        None => [0; N],
    }
}
