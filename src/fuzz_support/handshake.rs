//! The handshake with any other side: one that says anything, and an honest one behind somebody who changes
//! what it says.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::rc::Rc;

use super::script::Script;
use crate::conn::handshake::{Card, Duplex, HandshakeError, introduce, read_hello, send_hello};
use crate::conn::noise::{FIRST, Noise, SECOND, SECOND_PAYLOAD, THIRD};
use crate::conn::record::{Opener, Sealer};
use crate::id::{Identity, Incarnation, PeerId};
use crate::lane::LaneId;
use crate::wire::batch::Batch;
use crate::wire::control::{Hello, HelloLane, LaneAck};
use crate::wire::preface::{CLAIM_LEN, Claim, Mode, NetworkName, PREFACE_LEN, Preface, Versions};
use crate::wire::reader::FrameReader;

const NETWORK: &str = "fuzz";
const OURS: [u8; 32] = [1; 32];
const THEIRS: [u8; 32] = [2; 32];

/// Nobody is believed who has not proved it; a stranger gets no more bytes than it sent before it
/// knows the network's name; and what an honest side says arrives whole or not at all.
pub fn handshake(data: &[u8]) {
    let mut script = Script::new(data);
    let dialled = script.flag();
    let mode = if script.flag() { Mode::Noise } else { Mode::Plaintext };
    let theirs = Identity::from_bytes(THEIRS);
    let expected = match script.byte() % 3 {
        0 => None,
        1 => Some(theirs.peer_id()),
        _ => Some(PeerId::from_bytes([3; 32])),
    };
    let card = card(OURS, mode);
    if script.flag() {
        stranger(script.rest(), dialled, &card, expected);
    } else {
        meddler(&mut script, dialled, &card, expected);
    }
}

fn card(secret: [u8; 32], mode: Mode) -> Card {
    let identity = Identity::from_bytes(secret);
    let network = NetworkName::new(NETWORK).unwrap_or(NetworkName::empty());
    Card {
        versions: Versions::OURS,
        mode,
        network,
        peer: identity.peer_id(),
        identity,
        incarnation: Incarnation(u64::from(secret.len() as u8)),
    }
}

// --- any bytes ----------------------------------------------------------------------------------

fn stranger(bytes: &[u8], dialled: bool, card: &Card, expected: Option<PeerId>) {
    let mut stream = Stranger { bytes, taken: 0, written: 0 };
    let introduced = introduce(&mut stream, dialled, card, expected);
    let knows = knows_us(bytes, card);
    assert!(dialled || knows || stream.written <= stream.taken, "{} bytes for a stranger", stream.written);
    let Ok(introduced) = introduced else { return };
    assert!(card.mode == Mode::Plaintext, "nobody was there who could have proved anything");
    assert!(knows && introduced.peer != card.peer && expected.is_none_or(|peer| peer == introduced.peer));
    let mut reader = FrameReader::new(Opener::new(stream, introduced.opens));
    if let Ok(hello) = read_hello(&mut reader) {
        let mut again = Vec::new();
        assert!(hello.encode(&mut again).is_ok());
        let behind = bytes.get(PREFACE_LEN + CLAIM_LEN..).unwrap_or_default();
        super::frames::assert_said(&again, behind);
    }
}

/// Whether they begin with our preface, with any versions of which one is ours.
fn knows_us(bytes: &[u8], card: &Card) -> bool {
    let Some((&[lowest, highest], _)) = bytes.get(8..).and_then(<[u8]>::split_first_chunk) else {
        return false;
    };
    let versions = Versions { lowest, highest };
    let preface = Preface { versions, mode: card.mode, network: card.network };
    card.versions.common(versions).is_some() && bytes.starts_with(&preface.encode())
}

struct Stranger<'a> {
    bytes: &'a [u8],
    taken: usize,
    written: usize,
}

impl Read for Stranger<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let count = self.bytes.read(to)?;
        self.taken += count;
        Ok(count)
    }
}

impl Write for Stranger<'_> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.written += from.len();
        Ok(from.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Duplex for Stranger<'_> {
    fn close_writing(&self) -> io::Result<()> {
        Ok(())
    }
}

// --- an honest side, and somebody between --------------------------------------------------------

fn meddler(script: &mut Script<'_>, dialled: bool, card: &Card, expected: Option<PeerId>) {
    let theirs = self::card(THEIRS, card.mode);
    let proves = card.mode == Mode::Noise;
    let changes = (0..script.byte() % 4).map(|_| (usize::from(script.word()) % 400, script.byte())).collect();
    let cut_at = if script.flag() { usize::from(script.word()) % 400 } else { usize::MAX };
    let hello = hello(script);
    let meddled = Rc::new(Cell::new(false));
    let mut stream = Meddler {
        other: Other::new(theirs.clone(), !dialled, hello.clone()),
        changes,
        cut_at,
        given: 0,
        meddled: Rc::clone(&meddled),
    };
    let mut introduced = match introduce(&mut stream, dialled, card, expected) {
        Ok(introduced) => introduced,
        Err(error) => {
            let unwanted = expected.is_some_and(|expected| expected != theirs.peer);
            let refused = unwanted && matches!(error, HandshakeError::WrongPeer { .. });
            assert!(meddled.get() || refused, "an honest side is refused: {error}");
            return;
        }
    };
    // In plaintext nobody can know.
    assert!(!proves || !meddled.get(), "what was changed on the way was believed");
    assert!(meddled.get() || (introduced.peer, introduced.incarnation) == (theirs.peer, theirs.incarnation));
    assert!(expected.is_none_or(|expected| expected == introduced.peer));
    assert!(send_hello(&mut stream, &mut introduced.sealer, &hello).is_ok());
    match read_hello(&mut FrameReader::new(Opener::new(stream, introduced.opens))) {
        Ok(heard) if proves || !meddled.get() => assert_eq!(heard, hello),
        Ok(_) => {}
        Err(error) => assert!(meddled.get(), "an honest HELLO is refused: {error}"),
    }
}

fn hello(script: &mut Script<'_>) -> Hello {
    let lane =
        |lane| HelloLane { lane: LaneId(lane), max_message: 1, max_untaken: 1, state: LaneAck::default() };
    Hello {
        session_id: script.number(),
        peer_session_id: None,
        token: script.number(),
        slot: script.byte(),
        replaces: None,
        lanes: (0..script.byte() % 8).map(lane).collect(),
        name: "other".into(),
        ..Hello::default()
    }
}

/// The messages of the other side, with some bytes changed, and an early end perhaps.
struct Meddler {
    other: Other,
    changes: Vec<(usize, u8)>,
    cut_at: usize,
    given: usize,
    /// Something came through that was not said, or did not come.
    meddled: Rc<Cell<bool>>,
}

impl Read for Meddler {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let said = self.other.says.get(self.given..).unwrap_or_default();
        let count = said.len().min(to.len()).min(self.cut_at.saturating_sub(self.given));
        for ((byte, said), at) in to.iter_mut().zip(said).take(count).zip(self.given..) {
            let changes = self.changes.iter().filter(|(place, _)| *place == at);
            *byte = changes.fold(*said, |byte, (_, change)| byte ^ change);
            self.meddled.set(self.meddled.get() || byte != said);
        }
        if count == 0 && !said.is_empty() && !to.is_empty() {
            self.meddled.set(true);
        }
        self.given += count;
        Ok(count)
    }
}

impl Write for Meddler {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.other.handle(from);
        Ok(from.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Duplex for Meddler {
    fn close_writing(&self) -> io::Result<()> {
        Ok(())
    }
}

/// An honest side without a thread: what it has heard, and what it says to it.
struct Other {
    card: Card,
    dialled: bool,
    noise: Option<Noise>,
    heard: Vec<u8>,
    says: Vec<u8>,
    hello: Hello,
}

impl Other {
    fn new(card: Card, dialled: bool, hello: Hello) -> Self {
        let prologue = Preface { versions: card.versions, mode: card.mode, network: card.network }.encode();
        let noise = Noise::new(&card.identity, &prologue, dialled).ok();
        let noise = noise.filter(|_| card.mode == Mode::Noise);
        let mut other = Other { card, dialled, noise, heard: Vec::new(), says: Vec::new(), hello };
        if dialled {
            other.says.extend_from_slice(&prologue);
            match &mut other.noise {
                Some(noise) => other.says.extend(noise.write::<FIRST>(&[]).into_iter().flatten()),
                None => other.claim(),
            }
        }
        other
    }

    fn claim(&mut self) {
        let claim = Claim { peer: self.card.peer, incarnation: self.card.incarnation };
        self.says.extend_from_slice(&claim.encode());
        self.say_hello(&mut Sealer::new(None));
    }

    fn say_hello(&mut self, sealer: &mut Sealer) {
        let mut batch = Batch::default();
        let encoded = batch.push_with(|out| self.hello.encode(out));
        assert!(encoded.is_ok() && sealer.append(&batch, &mut self.says).is_ok());
    }

    /// Answers when the next message is there, if it can be read.
    fn handle(&mut self, bytes: &[u8]) {
        self.heard.extend_from_slice(bytes);
        let prologue =
            Preface { versions: self.card.versions, mode: self.card.mode, network: self.card.network }
                .encode();
        let Some(mut noise) = self.noise.take() else {
            if self.card.mode == Mode::Plaintext && self.says.is_empty() {
                self.says.extend_from_slice(&prologue);
                self.claim();
            }
            return;
        };
        let incarnation = self.card.incarnation.0.to_le_bytes();
        let behind = self.heard.get(PREFACE_LEN..).unwrap_or_default();
        if !self.dialled && self.says.is_empty() {
            let Some(first) = behind.get(..FIRST) else { return self.noise = Some(noise) };
            if noise.read::<0>(first).is_ok() {
                self.says.extend_from_slice(&prologue);
                let Versions { lowest, highest } = self.card.versions;
                let payload = [incarnation.as_slice(), &[lowest, highest]].concat();
                self.says.extend(noise.write::<SECOND>(&payload).into_iter().flatten());
                self.noise = Some(noise);
            }
            return;
        }
        let read = match self.dialled {
            true => behind.get(..SECOND),
            false => behind.get(FIRST..FIRST + THIRD),
        };
        let Some(message) = read else { return self.noise = Some(noise) };
        let heard = match self.dialled {
            true => noise.read_name::<SECOND_PAYLOAD>(message).is_ok(),
            false => noise.read_name::<8>(message).is_ok(),
        };
        if !heard {
            return;
        }
        if self.dialled {
            self.says.extend(noise.write::<THIRD>(&incarnation).into_iter().flatten());
        }
        if let Ok(keys) = noise.finish() {
            self.say_hello(&mut Sealer::new(Some(keys.ours)));
        }
    }
}
