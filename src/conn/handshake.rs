//! The handshake, up to where both sides know each other's HELLO. It runs on the connection's own
//! thread; the monitor ends the socket when it takes too long, however much progress it makes.
//!
//! ```text
//!   dialer                                              listener
//!     | -- preface, its claim or Noise 1 ---------------> |   checks magic, version, mode, network
//!     | <--------------- preface, its claim or Noise 2 -- |
//!     | -- Noise 3 -------------------------------------> |   not in plaintext
//!     | -- HELLO ---------------------> <------- HELLO -- |   the first frames, in records from here on;
//!     |                                                   |   either side may say REFUSED instead
//! ```
//!
//! # Invariants
//! - Every message has a length that is known beforehand: nothing is reserved on anybody's word.
//! - A stranger gets no more bytes than it sent, until it has shown that it knows the network's name.
//! - The dialer tells its name only to who has proved to be the one it expects, if it expects one.

use std::fmt;
use std::io::{self, Read, Write};

use super::noise::{FIRST, Keys, Noise, SECOND, SECOND_PAYLOAD, THIRD};
use super::record::{Key, Sealer};
use crate::id::{Identity, Incarnation, PeerId};
use crate::wire::batch::Batch;
use crate::wire::control::{Hello, Refused};
use crate::wire::frame::Frame;
use crate::wire::header::{Kind, WireError};
use crate::wire::preface::{
    CLAIM_LEN, Claim, MAX_NETWORK, Mode, NetworkName, OPENING_LEN, PREFACE_LEN, Preface, PrefaceError,
    Versions, concat, take,
};
use crate::wire::reader::{FrameReader, ReadError, Source};

/// A side that was refused is listened to for at most so much longer: closing a socket with unread data
/// resets the connection and destroys the answer (RFC 1122 section 4.2.2.13).
const MAX_IGNORED: usize = 16 * 1024;

/// A connection of which one side can be closed.
pub(crate) trait Duplex: Read + Write {
    fn close_writing(&self) -> io::Result<()>;
}

/// The identity and settings of this side.
#[derive(Clone, Debug)]
pub(crate) struct Card {
    pub(crate) versions: Versions,
    pub(crate) mode: Mode,
    pub(crate) network: NetworkName,
    pub(crate) identity: Identity,
    /// The name of `identity`.
    pub(crate) peer: PeerId,
    pub(crate) incarnation: Incarnation,
}

#[derive(Debug)]
pub(crate) enum HandshakeError {
    Io(io::Error),
    /// The other side closed before it was done.
    Closed,
    Preface(PrefaceError),
    SelfConnection,
    WrongPeer {
        expected: PeerId,
        found: PeerId,
    },
    Noise(snow::Error),
    /// A record does not authenticate.
    Record(String),
    Protocol(String),
    /// The other side does not want this connection, and says why.
    Refused(Refused),
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandshakeError::Io(error) => write!(f, "{error}"),
            HandshakeError::Closed => write!(f, "closed during the handshake"),
            HandshakeError::Preface(error) => write!(f, "{error}"),
            HandshakeError::SelfConnection => write!(f, "the other side is this node itself"),
            HandshakeError::WrongPeer { expected, found } => {
                write!(f, "expected peer {expected}, found {found}")
            }
            HandshakeError::Noise(snow::Error::Decrypt) => {
                write!(
                    f,
                    "the Noise handshake does not authenticate: changed on the way, or not meant for us"
                )
            }
            HandshakeError::Noise(snow::Error::Dh) => {
                write!(f, "the Noise handshake was tried with a key that has no secret")
            }
            HandshakeError::Noise(error) => write!(f, "the Noise handshake failed: {error}"),
            HandshakeError::Record(what) | HandshakeError::Protocol(what) => write!(f, "{what}"),
            HandshakeError::Refused(refused) => write!(f, "{refused}"),
        }
    }
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => HandshakeError::Closed,
            _ => HandshakeError::Io(error),
        }
    }
}

impl From<snow::Error> for HandshakeError {
    fn from(error: snow::Error) -> Self {
        HandshakeError::Noise(error)
    }
}

/// The identity of the other side, and the keys. Without keys: in plaintext, and who it is is only
/// what it says.
pub(crate) struct Introduced {
    pub(crate) peer: PeerId,
    pub(crate) incarnation: Incarnation,
    pub(crate) sealer: Sealer,
    pub(crate) opens: Option<Key>,
}

/// Everything before HELLO.
pub(crate) fn introduce(
    stream: &mut impl Duplex,
    dialled: bool,
    card: &Card,
    expected: Option<PeerId>,
) -> Result<Introduced, HandshakeError> {
    let preface = Preface { versions: card.versions, mode: card.mode, network: card.network };
    match (card.mode, dialled) {
        (Mode::Plaintext, _) => claims(stream, dialled, card, &preface, expected),
        (Mode::Noise, true) => prove_first(stream, card, &preface, expected),
        (Mode::Noise, false) => prove_second(stream, card, &preface, expected),
    }
}

/// Plaintext: each says who it is.
fn claims(
    stream: &mut impl Duplex,
    dialled: bool,
    card: &Card,
    preface: &Preface,
    expected: Option<PeerId>,
) -> Result<Introduced, HandshakeError> {
    let ours = Claim { peer: card.peer, incarnation: card.incarnation };
    let ours: [u8; PREFACE_LEN + CLAIM_LEN] = concat(&[&preface.encode(), &ours.encode()]);
    if dialled {
        stream.write_all(&ours)?;
    }
    read_preface(stream, dialled, preface)?;
    let Claim { peer, incarnation } = Claim::decode(&read(stream)?);
    let checked = check(peer, card, expected);
    // Our own dial waits at the other end: only our name tells it whom it has reached.
    if !dialled && matches!(checked, Ok(()) | Err(HandshakeError::SelfConnection)) {
        stream.write_all(&ours)?;
    }
    checked?;
    Ok(Introduced { peer, incarnation, sealer: Sealer::new(None), opens: None })
}

/// Noise, as the dialer.
fn prove_first(
    stream: &mut impl Duplex,
    card: &Card,
    preface: &Preface,
    expected: Option<PeerId>,
) -> Result<Introduced, HandshakeError> {
    let prologue = preface.encode();
    let mut noise = Noise::new(&card.identity, &prologue, true)?;
    let first: [u8; PREFACE_LEN + FIRST] = concat(&[&prologue, &noise.write::<FIRST>(&[])?]);
    stream.write_all(&first)?;
    let theirs = read_preface(stream, true, preface)?;
    let (peer, payload) = noise.read_name(&read::<SECOND>(stream)?)?;
    let (incarnation, versions) = second_payload(payload);
    // The versions of the preface again, authenticated: nobody can talk two sides into an older version.
    if versions != theirs.versions {
        return Err(HandshakeError::Noise(snow::Error::Decrypt));
    }
    check(peer, card, expected)?;
    stream.write_all(&noise.write::<THIRD>(&card.incarnation.0.to_le_bytes())?)?;
    introduced(peer, incarnation, noise)
}

/// Noise, as the listener.
fn prove_second(
    stream: &mut impl Duplex,
    card: &Card,
    preface: &Preface,
    expected: Option<PeerId>,
) -> Result<Introduced, HandshakeError> {
    let prologue = read_preface(stream, false, preface)?.encode();
    let mut noise = Noise::new(&card.identity, &prologue, false)?;
    noise.read::<0>(&read::<FIRST>(stream)?)?;
    let Versions { lowest, highest } = card.versions;
    let payload: [u8; SECOND_PAYLOAD] = concat(&[&card.incarnation.0.to_le_bytes(), &[lowest, highest]]);
    let second = noise.write::<SECOND>(&payload)?;
    let second: [u8; PREFACE_LEN + SECOND] = concat(&[&preface.encode(), &second]);
    stream.write_all(&second)?;
    let (peer, incarnation) = noise.read_name(&read::<THIRD>(stream)?)?;
    let incarnation = Incarnation(u64::from_le_bytes(incarnation));
    check(peer, card, expected)?;
    introduced(peer, incarnation, noise)
}

fn second_payload(payload: [u8; SECOND_PAYLOAD]) -> (Incarnation, Versions) {
    let mut rest = payload.as_slice();
    let incarnation = Incarnation(u64::from_le_bytes(take(&mut rest)));
    let [lowest, highest] = take(&mut rest);
    (incarnation, Versions { lowest, highest })
}

fn introduced(peer: PeerId, incarnation: Incarnation, noise: Noise) -> Result<Introduced, HandshakeError> {
    let Keys { ours, theirs } = noise.finish()?;
    Ok(Introduced { peer, incarnation, sealer: Sealer::new(Some(ours)), opens: Some(theirs) })
}

fn check(peer: PeerId, card: &Card, expected: Option<PeerId>) -> Result<(), HandshakeError> {
    if peer == card.peer {
        return Err(HandshakeError::SelfConnection);
    }
    match expected {
        Some(expected) if expected != peer => Err(HandshakeError::WrongPeer { expected, found: peer }),
        _ => Ok(()),
    }
}

/// Reads the other side's preface and compares it with ours.
fn read_preface(stream: &mut impl Duplex, dialled: bool, ours: &Preface) -> Result<Preface, HandshakeError> {
    let mut theirs = *ours;
    let checked = ours
        .check_opening(&read::<OPENING_LEN>(stream)?)
        .map(|versions| theirs.versions = versions)
        .map_err(HandshakeError::Preface)
        .and_then(|()| read::<MAX_NETWORK>(stream))
        .and_then(|network| ours.check_network(&network).map_err(HandshakeError::Preface));
    if let (Err(HandshakeError::Preface(error)), false) = (&checked, dialled) {
        refuse(stream, ours, error);
    }
    checked.map(|()| theirs)
}

/// Tells the dialer what the two sides disagree on, and waits until it has closed: at most until the
/// handshake's deadline, when the monitor ends the socket.
fn refuse(stream: &mut impl Duplex, ours: &Preface, error: &PrefaceError) {
    let Some(answer) = ours.refusal(error) else { return };
    // It may not have said what we read: then it waits for more, which does not come.
    if stream.write_all(&answer).and_then(|()| stream.close_writing()).is_ok() {
        ignore_rest(stream);
    }
}

/// The way in which it ends changes nothing: the connection is refused already.
fn ignore_rest(stream: &mut impl Read) {
    let mut ignored = 0;
    while ignored < MAX_IGNORED {
        match stream.read(&mut [0; 256]) {
            Ok(0) | Err(_) => return,
            Ok(count) => ignored += count,
        }
    }
}

fn read<const N: usize>(stream: &mut impl Read) -> Result<[u8; N], HandshakeError> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Sends our HELLO. It is small: the kernel takes it at once.
pub(crate) fn send_hello(
    stream: &mut impl Write,
    sealer: &mut Sealer,
    hello: &Hello,
) -> Result<(), HandshakeError> {
    send(stream, sealer, |out| hello.encode(out))
}

fn send(
    stream: &mut impl Write,
    sealer: &mut Sealer,
    encode: impl FnOnce(&mut Vec<u8>) -> Result<(), WireError>,
) -> Result<(), HandshakeError> {
    let protocol = |error: &dyn fmt::Display| HandshakeError::Protocol(error.to_string());
    let mut batch = Batch::default();
    batch.push_with(encode).map_err(|error| protocol(&error))?;
    let mut bytes = Vec::new();
    sealer.append(&batch, &mut bytes).map_err(|error| protocol(&error))?;
    Ok(stream.write_all(&bytes)?)
}

/// Refuses a connection in the place of HELLO, and waits until the other side has closed.
pub(crate) fn send_refused(
    stream: &mut impl Duplex,
    sealer: &mut Sealer,
    refused: &Refused,
) -> Result<(), HandshakeError> {
    send(stream, sealer, |out| refused.encode(out))?;
    stream.close_writing()?;
    ignore_rest(stream);
    Ok(())
}

/// Reads the other side's HELLO.
pub(crate) fn read_hello(reader: &mut FrameReader<impl Source>) -> Result<Hello, HandshakeError> {
    loop {
        // Before room is made for anything else.
        if reader.kind_ahead().is_some_and(|kind| !matches!(kind, Kind::Hello | Kind::Refused)) {
            return Err(HandshakeError::Protocol("the first frame is not a HELLO".into()));
        }
        match reader.next_buffered() {
            Ok(Some(Frame::Hello(hello))) => return Ok(hello),
            Ok(Some(Frame::Refused(refused))) => return Err(HandshakeError::Refused(refused)),
            Ok(Some(_)) => return Err(HandshakeError::Protocol("the first frame is not a HELLO".into())),
            Ok(None) => {}
            Err(error) => return Err(error.into()),
        }
        reader.fill()?;
    }
}

impl From<ReadError> for HandshakeError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Eof | ReadError::Torn => HandshakeError::Closed,
            ReadError::Io(error) => error.into(),
            ReadError::Record(error) => HandshakeError::Record(error),
            ReadError::Wire(error) => HandshakeError::Protocol(error.to_string()),
        }
    }
}
