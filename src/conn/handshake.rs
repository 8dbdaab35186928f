//! The handshake, up to where both sides know each other's HELLO. It runs on the connection's own
//! thread; the monitor ends the socket when it takes too long, however much progress it makes.
//!
//! ```text
//!   dialer                                        listener
//!     | -- preface ---------------------------------> |   checks magic, version, mode, network
//!     | <--------------------------------- preface -- |
//!     | -- HELLO ------------------> <------- HELLO -- |
//! ```

use std::fmt;
use std::io::{self, Read, Write};

use crate::id::{Incarnation, PeerId};
use crate::wire::control::{Hello, MAX_NAME};
use crate::wire::frame::Frame;
use crate::wire::preface::{Mode, NetworkName, PREFACE_LEN, Preface, PrefaceError};
use crate::wire::reader::{FrameReader, ReadError};

/// Who we are, for the preface.
#[derive(Clone, Debug)]
pub(crate) struct Card {
    pub(crate) network: NetworkName,
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
    Protocol(String),
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
            HandshakeError::Protocol(what) => write!(f, "{what}"),
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

/// Exchanges prefaces. Gives who the other side says it is.
pub(crate) fn introduce(
    stream: &mut (impl Read + Write),
    dialled: bool,
    card: &Card,
    expected: Option<PeerId>,
) -> Result<(PeerId, Incarnation), HandshakeError> {
    let ours = Preface {
        mode: Mode::Plaintext,
        network: card.network,
        peer: card.peer,
        incarnation: card.incarnation,
    }
    .encode();
    if dialled {
        stream.write_all(&ours)?;
    }
    let mut theirs = [0; PREFACE_LEN];
    stream.read_exact(&mut theirs)?;
    let theirs = Preface::decode(&theirs, card.network).map_err(HandshakeError::Preface)?;
    if theirs.peer == card.peer {
        if !dialled {
            // Our own dial waits at the other end: only our name tells it whom it has reached.
            stream.write_all(&ours)?;
        }
        return Err(HandshakeError::SelfConnection);
    }
    if let Some(expected) = expected.filter(|expected| *expected != theirs.peer) {
        return Err(HandshakeError::WrongPeer { expected, found: theirs.peer });
    }
    if !dialled {
        stream.write_all(&ours)?;
    }
    Ok((theirs.peer, theirs.incarnation))
}

/// Sends our HELLO. It is small: the kernel takes it at once.
pub(crate) fn send_hello(stream: &mut impl Write, hello: &Hello) -> Result<(), HandshakeError> {
    let mut bytes = Vec::new();
    hello.encode(&mut bytes).map_err(|error| HandshakeError::Protocol(error.to_string()))?;
    Ok(stream.write_all(&bytes)?)
}

/// Reads the other side's HELLO.
pub(crate) fn read_hello<R: Read>(reader: &mut FrameReader<R>) -> Result<Hello, HandshakeError> {
    loop {
        match reader.next_buffered() {
            Ok(Some(Frame::Hello(hello))) if hello.name.len() <= MAX_NAME => return Ok(hello),
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
            ReadError::Wire(error) => HandshakeError::Protocol(error.to_string()),
        }
    }
}
