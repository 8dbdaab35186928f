//! Plain blocking sockets: one large write for many messages, reads of 64 KiB, nothing done per message.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use super::{ASKED, Came, Contestant, Tell, Wait};
use crate::Failure;

pub const CONTESTANT: Contestant =
    Contestant { name: "raw", shares: [1.0, 1.0], trips: 10_000, receive, send, echo, ask };

const BATCH: usize = 64 * 1024;

fn receive(size: usize, count: u64, tell: Tell<'_>, came: Came<'_>) -> Result<(), Failure> {
    let mut socket = accept(tell)?;
    let (mut buffer, mut bytes, mut told) = (vec![0; BATCH], 0, 0);
    while told < count {
        bytes += socket.read(&mut buffer)? as u64;
        let whole = bytes / size as u64;
        came(whole - told);
        told = whole;
    }
    Ok(())
}

fn send(size: usize, count: u64, addr: &str, wait: Wait<'_>) -> Result<(), Failure> {
    let mut socket = connect(addr)?;
    let batch = vec![7; (BATCH / size).max(1) * size];
    let mut left = size as u64 * count;
    while left > 0 {
        let bytes = left.min(batch.len() as u64);
        socket.write_all(&batch[..bytes as usize])?;
        left -= bytes;
    }
    wait()
}

fn echo(count: u64, tell: Tell<'_>) -> Result<(), Failure> {
    let mut socket = accept(tell)?;
    let mut buffer = [0; ASKED];
    for _ in 0..count {
        socket.read_exact(&mut buffer)?;
        socket.write_all(&buffer)?;
    }
    Ok(())
}

fn ask(count: u64, addr: &str, came: Came<'_>) -> Result<(), Failure> {
    let mut socket = connect(addr)?;
    let mut buffer = [7; ASKED];
    for _ in 0..count {
        socket.write_all(&buffer)?;
        socket.read_exact(&mut buffer)?;
        came(1);
    }
    Ok(())
}

pub fn accept(tell: Tell<'_>) -> Result<TcpStream, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    tell(listener.local_addr()?.to_string())?;
    let socket = listener.accept()?.0;
    socket.set_nodelay(true)?;
    Ok(socket)
}

pub fn connect(addr: &str) -> Result<TcpStream, Failure> {
    let socket = TcpStream::connect(addr)?;
    socket.set_nodelay(true)?;
    Ok(socket)
}
