//! Plain blocking sockets: one large write for many messages, reads of 64 KiB, nothing done per message.
//! Votes and bulk messages have a length before them. Broadcasts are sent and acknowledged by one thread with
//! epoll(7) in each process.

use std::io::{BufWriter, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use crossbeam_channel::{Receiver, bounded};
use mio::{Events, Interest, Poll, Token};

use super::{
    ASKED, BROADCAST, BULK, Broadcast, Came, Connections, Contestant, Count, Idle, OneWay, RoundTrip, SENT,
    Senders, Shape, Tell, Vote, Wait, Work, on_threads,
};
use crate::Failure;

pub const CONTESTANT: Contestant = Contestant {
    one_way: Some(OneWay {
        shares: [1.0, 1.0],
        receive,
        send: |size, count, addr, wait| send_to(&mut connect(addr)?, size, count, BATCH, wait),
    }),
    senders: Some(Senders { receive: receive_many, send: send_many }),
    round_trip: Some(RoundTrip {
        trips: 10_000,
        echo: |count, tell| echo_on(&mut accept(tell)?, count),
        ask: |count, addr, came| ask_on(&mut connect(addr)?, count, came),
    }),
    vote: Some(Vote { serve, vote }),
    broadcast: Some(Broadcast { broadcast, peers }),
    idle: Some(Idle { shapes: &[Shape::Both], accept: idle_accept, dial: idle_dial }),
    ..Contestant::named("raw")
};

pub const ONE_WRITE_EACH: Contestant = Contestant {
    one_way: Some(OneWay {
        shares: [0.1, 1.0],
        receive,
        send: |size, count, addr, wait| send_to(&mut connect(addr)?, size, count, size, wait),
    }),
    ..Contestant::named("raw, one write each")
};

/// The bytes of a write, unless a message is larger.
pub const BATCH: usize = 64 * 1024;

// --- one way and round trip -----------------------------------------------------------------------

fn receive(size: usize, count: u64, tell: Tell<'_>, came: Came<'_>) -> Result<(), Failure> {
    receive_from(&mut accept(tell)?, size, count, came)
}

pub fn receive_from(socket: &mut impl Read, size: usize, count: u64, came: Came<'_>) -> Result<(), Failure> {
    let (mut buffer, mut bytes, mut told) = (vec![0; BATCH], 0, 0);
    while told < count {
        let read = socket.read(&mut buffer)?;
        if read == 0 {
            return Err(format!("the connection ended after {told} messages, expected {count}").into());
        }
        bytes += read as u64;
        let whole = bytes / size as u64;
        came(whole - told);
        told = whole;
    }
    Ok(())
}

pub fn send_to(
    socket: &mut impl Write,
    size: usize,
    count: u64,
    batch: usize,
    wait: Wait<'_>,
) -> Result<(), Failure> {
    let batch = vec![7; (batch / size).max(1) * size];
    let mut left = size as u64 * count;
    while left > 0 {
        let bytes = left.min(batch.len() as u64);
        socket.write_all(&batch[..bytes as usize])?;
        left -= bytes;
    }
    socket.flush()?;
    wait()
}

pub fn echo_on(socket: &mut (impl Read + Write), count: u64) -> Result<(), Failure> {
    let mut buffer = [0; ASKED];
    for _ in 0..count {
        socket.read_exact(&mut buffer)?;
        socket.write_all(&buffer)?;
        socket.flush()?;
    }
    Ok(())
}

pub fn ask_on(socket: &mut (impl Read + Write), count: u64, came: Came<'_>) -> Result<(), Failure> {
    let mut buffer = [7; ASKED];
    for _ in 0..count {
        socket.write_all(&buffer)?;
        socket.flush()?;
        socket.read_exact(&mut buffer)?;
        came(1);
    }
    Ok(())
}

pub fn listen(tell: Tell<'_>) -> Result<TcpListener, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    tell(listener.local_addr()?.to_string())?;
    Ok(listener)
}

pub fn next(listener: &TcpListener) -> Result<TcpStream, Failure> {
    let socket = listener.accept()?.0;
    socket.set_nodelay(true)?;
    Ok(socket)
}

pub fn accept(tell: Tell<'_>) -> Result<TcpStream, Failure> {
    next(&listen(tell)?)
}

pub fn connect(addr: &str) -> Result<TcpStream, Failure> {
    let socket = TcpStream::connect(addr)?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

// --- many threads that send -------------------------------------------------------------------------

/// Waits for so many connections.
pub fn accept_many(peers: usize, tell: Tell<'_>) -> Result<Vec<TcpStream>, Failure> {
    let listener = listen(tell)?;
    (0..peers).map(|_| next(&listener)).collect()
}

fn receive_many(peers: usize, tell: Tell<'_>, came: Count<'_>) -> Result<(), Failure> {
    on_threads(accept_many(peers, tell)?, |mut socket| {
        receive_from(&mut socket, SENT, u64::MAX, &mut |messages| came(messages))
    })
}

/// A buffer of 64 KiB and a lock for each socket.
fn send_many(threads: usize, peers: usize, addr: &str, wait: Wait<'_>) -> Result<(), Failure> {
    let socket = |_| Ok(Mutex::new(BufWriter::with_capacity(BATCH, connect(addr)?)));
    let sockets: Arc<Vec<_>> = Arc::new((0..peers).map(socket).collect::<Result<_, Failure>>()?);
    let message = [7; SENT];
    for _ in 0..threads {
        let sockets = Arc::clone(&sockets);
        let send = move |socket: &Mutex<BufWriter<_>>| {
            socket.lock().is_ok_and(|mut socket| socket.write_all(&message).is_ok())
        };
        thread::spawn(move || while sockets.iter().all(&send) {});
    }
    wait()
}

// --- votes beside bulk messages -------------------------------------------------------------------

/// A message with its length before it.
fn frame(size: usize) -> Vec<u8> {
    let mut frame = (size as u32).to_le_bytes().to_vec();
    frame.resize(4 + size, 7);
    frame
}

/// Calls the function with each message that comes, until the connection ends.
fn frames(mut socket: &TcpStream, mut each: impl FnMut(&[u8]) -> Result<(), Failure>) -> Result<(), Failure> {
    let (mut len, mut message) = ([0; 4], vec![0; BULK]);
    loop {
        match socket.read_exact(&mut len) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        }
        let size = u32::from_le_bytes(len) as usize;
        let most = message.len();
        let message = message
            .get_mut(..size)
            .ok_or_else(|| format!("a frame of {size} bytes came, expected {most} at most"))?;
        socket.read_exact(message)?;
        each(message)?;
    }
}

fn serve(connections: Connections, tell: Tell<'_>, came: Came<'_>) -> Result<(), Failure> {
    let listener = listen(tell)?;
    let bulk = next(&listener)?;
    if connections == Connections::Two {
        let votes = next(&listener)?;
        thread::spawn(move || frames(&votes, |_| Ok((&votes).write_all(&frame(ASKED))?)));
    }
    let vote = frame(ASKED);
    frames(&bulk, |message| {
        match message.len() {
            ASKED => (&bulk).write_all(&vote)?,
            _ => came(1),
        }
        Ok(())
    })
}

fn vote(connections: Connections, addr: &str, work: Work<'_>) -> Result<(), Failure> {
    let bulk = connect(addr)?;
    let vote = frame(ASKED);
    let (asked, votes) = bounded(1);
    let mut back = bulk.try_clone()?;
    let separate = match connections {
        Connections::One => None,
        Connections::Two => Some(connect(addr)?),
    };
    thread::spawn(move || stream(bulk, &votes));
    let mut answer = frame(ASKED);
    work(&mut || {
        match &separate {
            // The thread that writes looks for a vote before each bulk message.
            None => {
                asked.send(())?;
                back.read_exact(&mut answer)?;
            }
            Some(socket) => {
                let mut socket = socket;
                socket.write_all(&vote)?;
                socket.read_exact(&mut answer)?;
            }
        }
        Ok(())
    })
}

fn stream(mut socket: TcpStream, votes: &Receiver<()>) -> Result<(), Failure> {
    let (bulk, vote) = (frame(BULK), frame(ASKED));
    loop {
        if votes.try_recv().is_ok() {
            socket.write_all(&vote)?;
        }
        socket.write_all(&bulk)?;
    }
}

// --- broadcast ------------------------------------------------------------------------------------

fn registered(poll: &Poll, number: usize, socket: TcpStream) -> Result<mio::net::TcpStream, Failure> {
    socket.set_nonblocking(true)?;
    let mut socket = mio::net::TcpStream::from_std(socket);
    poll.registry().register(&mut socket, Token(number), Interest::READABLE)?;
    Ok(socket)
}

/// Reads until nothing is left, as epoll is edge-triggered here, and returns how many bytes it was.
fn read_all(mut socket: &mio::net::TcpStream, buffer: &mut [u8]) -> Result<usize, Failure> {
    let mut bytes = 0;
    loop {
        match socket.read(buffer) {
            Ok(0) => return Err("a peer closed its connection, expected an open one".into()),
            Ok(read) => bytes += read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(bytes),
            Err(error) => return Err(error.into()),
        }
    }
}

fn broadcast(peers: usize, tell: Tell<'_>, work: Work<'_>) -> Result<(), Failure> {
    let listener = listen(tell)?;
    let mut poll = Poll::new()?;
    let sockets: Vec<_> = (0..peers)
        .map(|number| registered(&poll, number, next(&listener)?))
        .collect::<Result<_, Failure>>()?;
    let (mut events, mut buffer) = (Events::with_capacity(1024), vec![0; BATCH]);
    work(&mut || {
        // One message is on its way to a peer at a time, so the socket's buffer always has room for it.
        for mut socket in &sockets {
            socket.write_all(&[7; BROADCAST])?;
        }
        let mut acknowledged = 0;
        while acknowledged < peers {
            poll.poll(&mut events, None)?;
            for event in &events {
                acknowledged += read_all(&sockets[event.token().0], &mut buffer)?;
            }
        }
        Ok(())
    })
}

fn peers(peers: usize, addr: &str) -> Result<(), Failure> {
    let mut poll = Poll::new()?;
    let sockets: Vec<_> =
        (0..peers).map(|number| registered(&poll, number, connect(addr)?)).collect::<Result<_, Failure>>()?;
    let (mut events, mut buffer, mut bytes) = (Events::with_capacity(1024), vec![0; BATCH], vec![0; peers]);
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            let (mut socket, bytes) = (&sockets[event.token().0], &mut bytes[event.token().0]);
            *bytes += read_all(socket, &mut buffer)?;
            while *bytes >= BROADCAST {
                socket.write_all(&[1])?;
                *bytes -= BROADCAST;
            }
        }
    }
}

// --- idle connections -----------------------------------------------------------------------------

fn idle_accept(_: Shape, count: usize, tell: Tell<'_>, wait: Wait<'_>) -> Result<(), Failure> {
    let listener = listen(tell)?;
    let _sockets: Vec<_> = (0..count).map(|_| next(&listener)).collect::<Result<_, _>>()?;
    wait()
}

fn idle_dial(
    _: Shape,
    count: usize,
    addr: &str,
    ready: &mut dyn FnMut(),
    wait: Wait<'_>,
) -> Result<(), Failure> {
    ready();
    let _sockets: Vec<_> = (0..count).map(|_| connect(addr)).collect::<Result<_, _>>()?;
    wait()
}
