//! A peer made by hand: speaks the preface, Noise and HELLO of the protocol over a plain socket, and then
//! does what a test tells it to, or nothing. It is written from the page on the wire format, with the ciphers
//! that come with `snow`: a second implementation. In the mode of [`encryption`].

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use snow::{HandshakeState, StatelessTransportState};
use socket2::{Domain, Socket, Type};
use unbroken::{Encryption, Identity, LaneConfig, PeerId};

/// The mode of the tests: encrypted, or in plaintext if the environment has `UNBROKEN_PLAINTEXT=1`.
pub fn encryption() -> Encryption {
    match std::env::var("UNBROKEN_PLAINTEXT").as_deref() {
        Ok("1") => Encryption::Plaintext,
        _ => Encryption::Noise,
    }
}

pub const HELLO: u8 = 1;
pub const CHUNK: u8 = 2;
pub const ACK: u8 = 3;
pub const PING: u8 = 4;
pub const PONG: u8 = 5;
pub const GOAWAY: u8 = 6;
pub const CANCEL: u8 = 7;
pub const REFUSED: u8 = 8;

/// The state of one lane: lane, received, taken, limit.
pub type State = (u8, u64, u64, u64);

/// The body of HELLO, field by field as `wire` documents it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hello {
    pub session_id: u64,
    pub peer_session_id: Option<u64>,
    pub token: u64,
    pub slot: u8,
    pub replaces: Option<u64>,
    pub lanes: Vec<HelloLane>,
    pub name: String,
    /// Bytes behind each entry of `lanes` and behind the known fields, as a later version may send them.
    pub later_entry: Vec<u8>,
    pub later_fields: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct HelloLane {
    pub lane: u8,
    pub max_message: u32,
    pub max_untaken: u32,
    pub received: u64,
    pub taken: u64,
    pub limit: u64,
}

impl Hello {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes =
            [&self.session_id.to_le_bytes()[..], &self.token.to_le_bytes(), &[self.slot]].concat();
        bytes.extend([self.lanes.len() as u8, 33 + self.later_entry.len() as u8]);
        for lane in &self.lanes {
            bytes.push(lane.lane);
            bytes.extend(lane.max_message.to_le_bytes());
            bytes.extend(lane.max_untaken.to_le_bytes());
            [lane.received, lane.taken, lane.limit]
                .iter()
                .for_each(|number| bytes.extend(number.to_le_bytes()));
            bytes.extend_from_slice(&self.later_entry);
        }
        let mut field = |id: u8, value: &[u8]| {
            bytes.push(id);
            bytes.extend((value.len() as u16).to_le_bytes());
            bytes.extend_from_slice(value);
        };
        self.peer_session_id.into_iter().for_each(|peer_session_id| field(1, &peer_session_id.to_le_bytes()));
        self.replaces.into_iter().for_each(|replaces| field(2, &replaces.to_le_bytes()));
        field(3, self.name.as_bytes());
        bytes.extend_from_slice(&self.later_fields);
        bytes
    }

    pub fn decode(mut body: &[u8]) -> Hello {
        let body = &mut body;
        let mut hello = Hello {
            session_id: number(take(body, 8)),
            token: number(take(body, 8)),
            slot: take(body, 1)[0],
            ..Hello::default()
        };
        let (count, len) = (take(body, 1)[0], usize::from(take(body, 1)[0]));
        for _ in 0..count {
            let mut entry = take(body, len);
            let entry = &mut entry;
            hello.lanes.push(HelloLane {
                lane: take(entry, 1)[0],
                max_message: number(take(entry, 4)) as u32,
                max_untaken: number(take(entry, 4)) as u32,
                received: number(take(entry, 8)),
                taken: number(take(entry, 8)),
                limit: number(take(entry, 8)),
            });
        }
        while !body.is_empty() {
            let (id, len) = (take(body, 1)[0], number(take(body, 2)) as usize);
            let value = take(body, len);
            match id {
                1 => hello.peer_session_id = Some(number(value)),
                2 => hello.replaces = Some(number(value)),
                3 => hello.name = String::from_utf8(value.to_vec()).unwrap(),
                _ => {}
            }
        }
        hello
    }
}

/// The body of ACK.
pub fn encode_states(lanes: &[State]) -> Vec<u8> {
    let mut bytes = vec![lanes.len() as u8, 25];
    for (lane, received, taken, limit) in lanes {
        bytes.push(*lane);
        [received, taken, limit].iter().for_each(|number| bytes.extend(number.to_le_bytes()));
    }
    bytes
}

/// Decodes a body of ACK.
pub fn decode_states(mut body: &[u8]) -> Vec<State> {
    let body = &mut body;
    let (count, len) = (take(body, 1)[0], usize::from(take(body, 1)[0]));
    let states = (0..count).map(|_| {
        let mut entry = take(body, len);
        let entry = &mut entry;
        let lane = take(entry, 1)[0];
        (lane, number(take(entry, 8)), number(take(entry, 8)), number(take(entry, 8)))
    });
    states.collect()
}

/// The body of GOAWAY without any state.
pub fn encode_goaway(reason: u8) -> Vec<u8> {
    [&[reason][..], &encode_states(&[])].concat()
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(count);
    *bytes = rest;
    taken
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The identity and the memory of the hand-made peer.
#[derive(Clone, Debug)]
pub struct RawIdentity {
    pub secret: [u8; 32],
    pub encryption: Encryption,
    /// The network that it says it belongs to.
    pub network: String,
    /// The lowest and the highest version that it says it speaks.
    pub versions: (u8, u8),
    pub incarnation: u64,
    pub hello: Hello,
}

impl RawIdentity {
    /// A stranger with the default lanes, giving `limit` bytes of credit on each.
    pub fn new(seed: u16, limit: u64) -> Self {
        let lanes = LaneConfig::defaults().into_iter().map(|lane| HelloLane {
            lane: lane.id.0,
            max_message: lane.max_message as u32,
            max_untaken: lane.max_untaken,
            received: 0,
            taken: 0,
            limit,
        });
        let hello = Hello {
            session_id: u64::from(seed) + 1,
            peer_session_id: None,
            token: u64::from(seed) + 7,
            slot: 0,
            replaces: None,
            lanes: lanes.collect(),
            name: "raw".into(),
            ..Hello::default()
        };
        let incarnation = u64::from(seed) + 100;
        let mut secret = [0; 32];
        secret.chunks_mut(2).for_each(|part| part.copy_from_slice(&seed.to_le_bytes()));
        RawIdentity {
            secret,
            encryption: encryption(),
            network: "unbroken".into(),
            versions: (1, 1),
            incarnation,
            hello,
        }
    }

    pub fn id(&self) -> PeerId {
        Identity::from_bytes(self.secret).peer_id()
    }

    /// Magic, versions, mode and network.
    pub fn preface(&self) -> Vec<u8> {
        let mut bytes = b"unbroken".to_vec();
        bytes.extend_from_slice(&[
            self.versions.0,
            self.versions.1,
            u8::from(self.encryption == Encryption::Noise),
            0,
        ]);
        let mut network = self.network.clone().into_bytes();
        network.resize(32, 0);
        bytes.extend_from_slice(&network);
        bytes
    }

    fn claim(&self) -> Vec<u8> {
        [self.id().as_bytes().as_slice(), &self.incarnation.to_le_bytes()].concat()
    }

    /// Noise with this identity as the dialer, before the first message.
    pub fn noise(&self) -> HandshakeState {
        self.noise_builder(&self.preface()).build_initiator().unwrap()
    }

    /// As the listener that was dialled with this preface.
    fn noise_behind(&self, preface: &[u8]) -> HandshakeState {
        self.noise_builder(preface).build_responder().unwrap()
    }

    fn noise_builder<'a>(&'a self, prologue: &'a [u8]) -> snow::Builder<'a> {
        let builder = snow::Builder::new("Noise_XX_25519_AESGCM_SHA256".parse().unwrap());
        builder.local_private_key(&self.secret).unwrap().prologue(prologue).unwrap()
    }
}

/// The next message of a handshake.
pub fn noise_message(noise: &mut HandshakeState, payload: &[u8]) -> Vec<u8> {
    let mut buffer = [0; 256];
    let len = noise.write_message(payload, &mut buffer).unwrap();
    buffer[..len].to_vec()
}

/// A connection to a node, past the handshake.
pub struct Raw {
    pub stream: TcpStream,
    pub input: RawIn,
    pub output: RawOut,
    /// The node's HELLO.
    pub hello: Hello,
}

/// Frames in, out of records unless in plaintext.
pub struct RawIn {
    stream: TcpStream,
    noise: Option<Arc<StatelessTransportState>>,
    next: u64,
    opened: io::Cursor<Vec<u8>>,
    /// Bytes of an unfinished record that stood at the end.
    pub torn: usize,
}

/// Frames out, a record for each write unless in plaintext.
pub struct RawOut {
    pub stream: TcpStream,
    noise: Option<Arc<StatelessTransportState>>,
    next: u64,
}

impl Raw {
    /// Dials a node and shakes hands.
    pub fn dial(addr: SocketAddr, who: &RawIdentity) -> io::Result<Raw> {
        Raw::dial_by(TcpStream::connect(addr)?, who)
    }

    /// Dials a node from one of this machine's addresses, 127.0.0.0/8 among them.
    pub fn dial_from(source: IpAddr, addr: SocketAddr, who: &RawIdentity) -> io::Result<Raw> {
        Raw::dial_by(connect_from(source, addr)?, who)
    }

    fn dial_by(stream: TcpStream, who: &RawIdentity) -> io::Result<Raw> {
        let mut stream = open(stream)?;
        if who.encryption == Encryption::Plaintext {
            stream.write_all(&[who.preface(), who.claim()].concat())?;
            stream.read_exact(&mut [0; 84])?;
            return Raw::greet(stream, None, who);
        }
        let mut noise = who.noise();
        stream.write_all(&[who.preface(), noise_message(&mut noise, &[])].concat())?;
        let mut answer = [0; 44 + 106];
        stream.read_exact(&mut answer)?;
        noise.read_message(&answer[44..], &mut [0; 128]).map_err(io::Error::other)?;
        stream.write_all(&noise_message(&mut noise, &who.incarnation.to_le_bytes()))?;
        Raw::greet(stream, Some(noise), who)
    }

    /// Accepts a node's dial and shakes hands.
    pub fn accept(listener: &TcpListener, who: &RawIdentity) -> io::Result<Raw> {
        let (stream, _) = listener.accept()?;
        let mut stream = open(stream)?;
        if who.encryption == Encryption::Plaintext {
            stream.read_exact(&mut [0; 84])?;
            stream.write_all(&[who.preface(), who.claim()].concat())?;
            return Raw::greet(stream, None, who);
        }
        let mut first = [0; 44 + 32];
        stream.read_exact(&mut first)?;
        let mut noise = who.noise_behind(&first[..44]);
        noise.read_message(&first[44..], &mut [0; 128]).map_err(io::Error::other)?;
        let payload = [&who.incarnation.to_le_bytes()[..], &[who.versions.0, who.versions.1]].concat();
        let second = noise_message(&mut noise, &payload);
        stream.write_all(&[who.preface(), second].concat())?;
        let mut third = [0; 72];
        stream.read_exact(&mut third)?;
        noise.read_message(&third, &mut [0; 128]).map_err(io::Error::other)?;
        Raw::greet(stream, Some(noise), who)
    }

    fn greet(stream: TcpStream, noise: Option<HandshakeState>, who: &RawIdentity) -> io::Result<Raw> {
        let noise = noise.map(|noise| Arc::new(noise.into_stateless_transport_mode().unwrap()));
        let mut output = RawOut { stream: stream.try_clone()?, noise: noise.clone(), next: 0 };
        let mut input =
            RawIn { stream: stream.try_clone()?, noise, next: 0, opened: io::Cursor::default(), torn: 0 };
        output.write_all(&frame(HELLO, &who.hello.encode()))?;
        let (kind, body) = read_frame(&mut input)?;
        if kind == REFUSED {
            return Err(io::Error::other(format!("refused, reason {}", body[0])));
        }
        if kind != HELLO {
            return Err(io::Error::other(format!("kind {kind} instead of HELLO")));
        }
        Ok(Raw { stream, input, output, hello: Hello::decode(&body) })
    }

    pub fn read_frame(&mut self) -> io::Result<(u8, Vec<u8>)> {
        read_frame(&mut self.input)
    }

    pub fn send(&mut self, kind: u8, body: &[u8]) -> io::Result<()> {
        self.output.write_all(&frame(kind, body))
    }
}

impl RawOut {
    /// A record as it stands on the wire, for a test to send, spoil or repeat. At most 65,519 bytes.
    pub fn seal(&mut self, bytes: &[u8]) -> Vec<u8> {
        let Some(noise) = &self.noise else { return bytes.to_vec() };
        let mut record = vec![0; 2 + bytes.len() + 16];
        let len = noise.write_message(self.next, bytes, &mut record[2..]).unwrap();
        record[..2].copy_from_slice(&(len as u16).to_le_bytes());
        self.next += 1;
        record
    }
}

impl Write for RawOut {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(65_519)];
        let record = self.seal(bytes);
        self.stream.write_all(&record)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for RawIn {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let Some(noise) = &self.noise else { return self.stream.read(to) };
        let read = self.opened.read(to)?;
        if read > 0 || to.is_empty() {
            return Ok(read);
        }
        let mut length = [0; 2];
        let read = read_up_to(&mut self.stream, &mut length)?;
        if read < length.len() {
            self.torn = read;
            return Ok(0);
        }
        let mut record = vec![0; usize::from(u16::from_le_bytes(length))];
        let read = read_up_to(&mut self.stream, &mut record)?;
        if read < record.len() {
            self.torn = length.len() + read;
            return Ok(0);
        }
        let mut opened = vec![0; record.len()];
        let len = noise.read_message(self.next, &record, &mut opened).map_err(io::Error::other)?;
        opened.truncate(len);
        self.next += 1;
        self.opened = io::Cursor::new(opened);
        self.opened.read(to)
    }
}

/// Fills the buffer as far as the connection goes.
pub fn read_up_to(stream: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut have = 0;
    while have < buffer.len() {
        match stream.read(&mut buffer[have..]) {
            Ok(0) => break,
            Ok(count) => have += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
            Err(error) => return Err(error),
        }
    }
    Ok(have)
}

/// Only the two prefaces and what comes with them, then nothing: a handshake that stalls in its middle.
pub fn preface_only(addr: SocketAddr, who: &RawIdentity) -> io::Result<TcpStream> {
    let mut stream = open(TcpStream::connect(addr)?)?;
    if who.encryption == Encryption::Plaintext {
        stream.write_all(&[who.preface(), who.claim()].concat())?;
        stream.read_exact(&mut [0; 84])?;
    } else {
        stream.write_all(&[who.preface(), noise_message(&mut who.noise(), &[])].concat())?;
        stream.read_exact(&mut [0; 44 + 106])?;
    }
    Ok(stream)
}

/// Only a connection, from one of this machine's addresses.
pub fn connect_from(source: IpAddr, addr: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.connect(&addr.into())?;
    open(socket.into())
}

fn open(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.set_write_timeout(Some(Duration::from_secs(30)))?;
    Ok(stream)
}

pub fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let len = (body.len() as u32).to_le_bytes();
    let mut bytes = vec![kind];
    bytes.extend(len.iter().take(3));
    bytes.extend_from_slice(body);
    bytes
}

pub fn read_frame(stream: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut header = [0; 4];
    stream.read_exact(&mut header)?;
    let [kind, a, b, c] = header;
    let mut body = vec![0; u32::from_le_bytes([a, b, c, 0]) as usize];
    stream.read_exact(&mut body)?;
    Ok((kind, body))
}
