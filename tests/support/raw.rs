//! A peer made by hand: speaks the preface and HELLO of the protocol over a plain socket, and then does
//! what a test tells it to, or nothing.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::disallowed_methods,
    reason = "included by several tests, none of which uses all of it; it reads the real clock"
)]

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};
use unbroken::{LaneConfig, PeerId, codec};

pub const HELLO: u8 = 1;
pub const CHUNK: u8 = 2;
pub const ACK: u8 = 3;
pub const PING: u8 = 4;
pub const PONG: u8 = 5;
pub const GOAWAY: u8 = 6;
pub const CANCEL: u8 = 7;

/// The body of HELLO, field by field as `wire` documents it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    pub memory: u64,
    pub token: u64,
    pub slot: u8,
    pub replaces: Option<u64>,
    pub lanes: Vec<HelloLane>,
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HelloLane {
    pub lane: u8,
    pub max_message: u32,
    pub max_untaken: u32,
    pub received: u64,
    pub taken: u64,
    pub limit: u64,
}

/// Who the hand-made peer is, and what it remembers.
#[derive(Clone, Debug)]
pub struct RawIdentity {
    pub peer: [u8; 32],
    pub incarnation: u64,
    pub hello: Hello,
}

impl RawIdentity {
    /// A stranger with the default lanes, giving `limit` bytes of credit on each.
    pub fn new(seed: u8, limit: u64) -> Self {
        let lanes = LaneConfig::defaults().into_iter().map(|lane| HelloLane {
            lane: lane.id.0,
            max_message: lane.max_message as u32,
            max_untaken: lane.max_untaken,
            received: 0,
            taken: 0,
            limit,
        });
        let hello = Hello {
            memory: u64::from(seed) + 1,
            token: u64::from(seed) + 7,
            slot: 0,
            replaces: None,
            lanes: lanes.collect(),
            name: "raw".into(),
        };
        RawIdentity { peer: [seed; 32], incarnation: u64::from(seed) + 100, hello }
    }

    pub fn id(&self) -> PeerId {
        PeerId::from_bytes(self.peer)
    }

    fn preface(&self) -> Vec<u8> {
        let mut bytes = b"unbroken".to_vec();
        bytes.extend_from_slice(&1u16.to_le_bytes());
        bytes.extend_from_slice(&0u16.to_le_bytes());
        let mut network = b"unbroken".to_vec();
        network.resize(32, 0);
        bytes.extend_from_slice(&network);
        bytes.extend_from_slice(&self.peer);
        bytes.extend_from_slice(&self.incarnation.to_le_bytes());
        bytes
    }
}

/// A connection to a node, past the handshake.
pub struct Raw {
    pub stream: TcpStream,
    /// The node's HELLO.
    pub hello: Hello,
}

impl Raw {
    /// Dials a node and shakes hands.
    pub fn dial(addr: SocketAddr, who: &RawIdentity) -> io::Result<Raw> {
        let mut stream = open(TcpStream::connect(addr)?)?;
        stream.write_all(&who.preface())?;
        stream.read_exact(&mut [0; 84])?;
        Raw::greet(stream, who)
    }

    /// Dials a node from one of this machine's addresses, 127.0.0.0/8 among them.
    pub fn dial_from(source: IpAddr, addr: SocketAddr, who: &RawIdentity) -> io::Result<Raw> {
        let mut stream = connect_from(source, addr)?;
        stream.write_all(&who.preface())?;
        stream.read_exact(&mut [0; 84])?;
        Raw::greet(stream, who)
    }

    /// Accepts a node's dial and shakes hands.
    pub fn accept(listener: &TcpListener, who: &RawIdentity) -> io::Result<Raw> {
        let (stream, _) = listener.accept()?;
        let mut stream = open(stream)?;
        stream.read_exact(&mut [0; 84])?;
        stream.write_all(&who.preface())?;
        Raw::greet(stream, who)
    }

    fn greet(mut stream: TcpStream, who: &RawIdentity) -> io::Result<Raw> {
        stream.write_all(&frame(HELLO, &codec::encode(&who.hello).map_err(io::Error::other)?))?;
        let (kind, body) = read_frame(&mut stream)?;
        if kind != HELLO {
            return Err(io::Error::other(format!("kind {kind} instead of HELLO")));
        }
        let hello = codec::decode(&body).map_err(io::Error::other)?;
        Ok(Raw { stream, hello })
    }

    pub fn read_frame(&mut self) -> io::Result<(u8, Vec<u8>)> {
        read_frame(&mut self.stream)
    }

    pub fn send(&mut self, kind: u8, body: &[u8]) -> io::Result<()> {
        self.stream.write_all(&frame(kind, body))
    }
}

/// Only the two prefaces, then nothing: a handshake that stalls in its middle.
pub fn preface_only(addr: SocketAddr, who: &RawIdentity) -> io::Result<TcpStream> {
    let mut stream = open(TcpStream::connect(addr)?)?;
    stream.write_all(&who.preface())?;
    stream.read_exact(&mut [0; 84])?;
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
