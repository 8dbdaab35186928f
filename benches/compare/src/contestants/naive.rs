//! The first design that comes to mind: a channel, a writer thread with one write for each message, a reader
//! thread with a buffer, and another channel. The length goes before each message.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::raw::{self, accept, connect};
use super::{
    ASKED, Came, Contestant, Count, Idle, OneWay, RoundTrip, SENT, Senders, Shape, Tell, Wait, on_threads,
};
use crate::Failure;

pub const CONTESTANT: Contestant = Contestant {
    one_way: Some(OneWay { shares: [0.015, 0.5], receive, send }),
    senders: Some(Senders { receive: receive_many, send: send_many }),
    round_trip: Some(RoundTrip { trips: 10_000, echo, ask }),
    idle: Some(Idle { shapes: &[Shape::Both], accept: idle_accept, dial: idle_dial }),
    ..Contestant::named("naive")
};

/// Messages that wait in a channel.
const WAITING: usize = 1024;

fn receive(size: usize, count: u64, tell: Tell<'_>, came: Came<'_>) -> Result<(), Failure> {
    let messages = reader(accept(tell)?);
    for _ in 0..count {
        assert_eq!(messages.recv()?.len(), size);
        came(1);
    }
    Ok(())
}

fn send(size: usize, count: u64, addr: &str, wait: Wait<'_>) -> Result<(), Failure> {
    let writer = writer(connect(addr)?);
    for _ in 0..count {
        writer.send(vec![7; size])?;
    }
    wait()
}

fn receive_many(peers: usize, tell: Tell<'_>, came: Count<'_>) -> Result<(), Failure> {
    on_threads(raw::accept_many(peers, tell)?, |socket| {
        reader(socket).iter().for_each(|_| came(1));
        Ok(())
    })
}

fn send_many(threads: usize, peers: usize, addr: &str, wait: Wait<'_>) -> Result<(), Failure> {
    let writers: Vec<_> = (0..peers).map(|_| Ok(writer(connect(addr)?))).collect::<Result<_, Failure>>()?;
    for _ in 0..threads {
        let writers = writers.clone();
        thread::spawn(move || while writers.iter().all(|writer| writer.send(vec![7; SENT]).is_ok()) {});
    }
    wait()
}

fn echo(count: u64, tell: Tell<'_>) -> Result<(), Failure> {
    let socket = accept(tell)?;
    let (messages, writer) = (reader(socket.try_clone()?), writer(socket));
    for _ in 0..count {
        writer.send(messages.recv()?)?;
    }
    Ok(())
}

fn ask(count: u64, addr: &str, came: Came<'_>) -> Result<(), Failure> {
    let socket = connect(addr)?;
    let (messages, writer) = (reader(socket.try_clone()?), writer(socket));
    for _ in 0..count {
        writer.send(vec![7; ASKED])?;
        messages.recv()?;
        came(1);
    }
    Ok(())
}

type Ends = (Receiver<Vec<u8>>, Sender<Vec<u8>>);

/// The ends of both channels of a connection, whose threads live as long as they do.
fn ends(socket: TcpStream) -> Result<Ends, Failure> {
    Ok((reader(socket.try_clone()?), writer(socket)))
}

fn idle_accept(_: Shape, count: usize, tell: Tell<'_>, wait: Wait<'_>) -> Result<(), Failure> {
    let listener = raw::listen(tell)?;
    let _ends: Vec<_> = (0..count).map(|_| ends(raw::next(&listener)?)).collect::<Result<_, _>>()?;
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
    let _ends: Vec<_> = (0..count).map(|_| ends(connect(addr)?)).collect::<Result<_, _>>()?;
    wait()
}

fn writer(mut socket: TcpStream) -> Sender<Vec<u8>> {
    let (sender, messages) = bounded::<Vec<u8>>(WAITING);
    thread::spawn(move || {
        let mut frame = Vec::new();
        for message in messages {
            frame.clear();
            frame.extend_from_slice(&(message.len() as u32).to_le_bytes());
            frame.extend_from_slice(&message);
            if socket.write_all(&frame).is_err() {
                return;
            }
        }
    });
    sender
}

fn reader(socket: TcpStream) -> Receiver<Vec<u8>> {
    let (sender, messages) = bounded(WAITING);
    thread::spawn(move || {
        let mut socket = BufReader::with_capacity(64 * 1024, socket);
        let mut len = [0; 4];
        while socket.read_exact(&mut len).is_ok() {
            let mut message = vec![0; u32::from_le_bytes(len) as usize];
            if socket.read_exact(&mut message).is_err() || sender.send(message).is_err() {
                return;
            }
        }
    });
    messages
}
