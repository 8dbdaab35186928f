//! The first bytes of a connection: protocol, versions, network, mode.

use std::fmt;

use super::proxy_header;
use crate::id::{Incarnation, PeerId};

/// Magic, versions, mode and answer: what a side must agree on before the rest has a meaning.
pub(crate) const OPENING_LEN: usize = 12;
/// The opening and the network.
pub(crate) const PREFACE_LEN: usize = OPENING_LEN + MAX_NETWORK;
/// The claim that follows in plaintext: the unproven identity of the sender.
pub(crate) const CLAIM_LEN: usize = PeerId::LEN + 8;
/// The longest name of a network, in bytes.
pub(crate) const MAX_NETWORK: usize = 32;
const MAGIC: [u8; 8] = *b"unbroken";

/// How the frames after the preface are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
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

/// The versions of the protocol that a side speaks, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Versions {
    pub(crate) lowest: u8,
    pub(crate) highest: u8,
}

impl Versions {
    /// Those of this build. The other one exists for tests of two releases in one network.
    pub(crate) const OURS: Versions =
        Versions { lowest: 1, highest: if cfg!(unbroken_next_version) { 2 } else { 1 } };

    /// The version that two sides speak: the highest that both know.
    pub(crate) fn common(self, theirs: Versions) -> Option<u8> {
        let (lowest, highest) = (self.lowest.max(theirs.lowest), self.highest.min(theirs.highest));
        (lowest <= highest).then_some(highest)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Versions { lowest, highest } if lowest == highest => write!(f, "version {highest}"),
            Versions { lowest, highest } => write!(f, "versions {lowest} to {highest}"),
        }
    }
}

/// The last byte of an opening: whether the rest follows, or why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Answer {
    GoesOn = 0,
    OtherVersions = 1,
    OtherMode = 2,
    OtherNetwork = 3,
}

/// The first bytes of a side. Mode and network must be the same on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Preface {
    pub(crate) versions: Versions,
    pub(crate) mode: Mode,
    pub(crate) network: NetworkName,
}

/// The unproven identity of the sender: all that plaintext has to offer.
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
    /// It is the header of a proxy.
    ProxyHeader,
    Versions {
        theirs: Versions,
        ours: Versions,
    },
    Mode {
        theirs: u8,
        ours: Mode,
    },
    /// `theirs` is unknown to a dialer: a listener names its network to nobody who does not know the name.
    Network {
        theirs: Option<NetworkName>,
        ours: NetworkName,
    },
    /// An answer of a later version.
    Answer(u8),
}

impl PrefaceError {
    fn answer(&self) -> Option<Answer> {
        match self {
            PrefaceError::Magic | PrefaceError::ProxyHeader | PrefaceError::Answer(_) => None,
            PrefaceError::Versions { .. } => Some(Answer::OtherVersions),
            PrefaceError::Mode { .. } => Some(Answer::OtherMode),
            PrefaceError::Network { .. } => Some(Answer::OtherNetwork),
        }
    }
}

impl fmt::Display for PrefaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PrefaceError::Magic => write!(f, "the other side does not speak the unbroken protocol"),
            PrefaceError::ProxyHeader => f.write_str(
                "it begins with a PROXY header, but `proxy_protocol_from` does not hold its address",
            ),
            PrefaceError::Versions { theirs, ours } => {
                write!(f, "the other side speaks {theirs} of the protocol, this side {ours}")
            }
            PrefaceError::Mode { theirs, ours } => {
                write!(f, "the other side insists on ")?;
                match [Mode::Plaintext, Mode::Noise].into_iter().find(|mode| *mode as u8 == *theirs) {
                    Some(mode) => write!(f, "{mode}")?,
                    None => write!(f, "mode {theirs}, which is not known here")?,
                }
                write!(f, ", this side on {ours}: the setting `encryption` must be the same on both")
            }
            PrefaceError::Network { theirs: Some(theirs), ours } => {
                write!(f, "the other side belongs to network {theirs}, this side to {ours}")
            }
            PrefaceError::Network { theirs: None, ours } => {
                write!(
                    f,
                    "the other side belongs to another network than {ours}: the setting `network` must be the same on both"
                )
            }
            PrefaceError::Answer(answer) => {
                write!(f, "the other side refused the preface with code {answer}, which is not known here")
            }
        }
    }
}

impl Preface {
    pub(crate) fn encode(&self) -> [u8; PREFACE_LEN] {
        concat(&[&self.opening(Answer::GoesOn), &self.network.0])
    }

    /// The answer of a listener instead of its preface; nothing to another protocol.
    pub(crate) fn refusal(&self, error: &PrefaceError) -> Option<[u8; OPENING_LEN]> {
        error.answer().map(|answer| self.opening(answer))
    }

    fn opening(&self, answer: Answer) -> [u8; OPENING_LEN] {
        let Versions { lowest, highest } = self.versions;
        concat(&[&MAGIC, &[lowest, highest, self.mode as u8, answer as u8]])
    }

    /// Compares the beginning of the other side's preface with this one. Returns its versions.
    pub(crate) fn check_opening(&self, theirs: &[u8; OPENING_LEN]) -> Result<Versions, PrefaceError> {
        if *theirs == proxy_header::SIGNATURE || theirs.starts_with(b"PROXY ") {
            return Err(PrefaceError::ProxyHeader);
        }
        let mut rest = theirs.as_slice();
        if take(&mut rest) != MAGIC {
            return Err(PrefaceError::Magic);
        }
        let [lowest, highest, mode, answer] = take(&mut rest);
        let versions = Versions { lowest, highest };
        if self.versions.common(versions).is_none() || answer == Answer::OtherVersions as u8 {
            return Err(PrefaceError::Versions { theirs: versions, ours: self.versions });
        }
        if mode != self.mode as u8 || answer == Answer::OtherMode as u8 {
            return Err(PrefaceError::Mode { theirs: mode, ours: self.mode });
        }
        match answer {
            answer if answer == Answer::GoesOn as u8 => Ok(versions),
            answer if answer == Answer::OtherNetwork as u8 => {
                Err(PrefaceError::Network { theirs: None, ours: self.network })
            }
            answer => Err(PrefaceError::Answer(answer)),
        }
    }

    /// Compares the rest of it.
    pub(crate) fn check_network(&self, theirs: &[u8; MAX_NETWORK]) -> Result<(), PrefaceError> {
        let theirs = NetworkName(*theirs);
        if theirs == self.network {
            Ok(())
        } else {
            Err(PrefaceError::Network { theirs: Some(theirs), ours: self.network })
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
pub(crate) fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    match rest.split_first_chunk() {
        Some((field, behind)) => {
            *rest = behind;
            *field
        }
        None => [0; N],
    }
}
