//! nng: PUSH and PULL one way, PAIR for round trips. Its sockets have the threads of its own that it starts
//! by default.

use crossbeam_channel::{Receiver, unbounded};
use nng::options::{Options, RecvBufferSize, RecvMaxSize, SendBufferSize, Url};
use nng::{Error, Listener, Message, PipeEvent, Protocol, Socket};

use super::{ASKED, Came, Contestant, Idle, OneWay, RoundTrip, Shape, Tell, Wait};
use crate::Failure;

pub const CONTESTANT: Contestant = Contestant {
    one_way: Some(OneWay { shares: [0.05, 0.5], receive, send }),
    round_trip: Some(RoundTrip { trips: 5_000, echo, ask }),
    idle: Some(Idle { shapes: &[Shape::Both], accept: idle_accept, dial: idle_dial }),
    ..Contestant::named("nng")
};

/// The bytes that may wait at each side of a socket, as far as nng allows: its limit is a number of messages.
const WAITING: usize = 16 << 20;

/// The most messages that nng lets wait.
const MAX_WAITING: usize = 8192;

fn socket(protocol: Protocol, size: usize) -> Result<Socket, Failure> {
    let socket = Socket::new(protocol)?;
    let waiting = i32::try_from((WAITING / size).clamp(2, MAX_WAITING))?;
    socket.set_opt::<SendBufferSize>(waiting)?;
    socket.set_opt::<RecvBufferSize>(waiting)?;
    // No limit: the default is 1 MiB.
    socket.set_opt::<RecvMaxSize>(0)?;
    Ok(socket)
}

/// Listens at a port that the system chooses. The listener lasts as long as its socket.
fn listen(socket: &Socket, tell: Tell<'_>) -> Result<(), Failure> {
    let listener = Listener::new(socket, "tcp://127.0.0.1:0")?;
    // The crate returns the port of `LocalAddr` in network byte order; the URL has the right one.
    tell(listener.get_opt::<Url>()?)
}

/// Is told of connections that were made, or that ended.
fn notified(socket: &Socket, wanted: PipeEvent) -> Result<Receiver<()>, Failure> {
    let (notify, notified) = unbounded();
    socket.pipe_notify(move |_, event| {
        if event == wanted {
            // Nobody waits any more when this fails.
            let _ = notify.send(());
        }
    })?;
    Ok(notified)
}

/// Sends, and returns the error without the message that was not sent.
fn send_on(socket: &Socket, message: Message) -> Result<(), Error> {
    socket.send(message).map_err(|(_, error)| error)
}

fn receive(size: usize, count: u64, tell: Tell<'_>, came: Came<'_>) -> Result<(), Failure> {
    let socket = socket(Protocol::Pull0, size)?;
    listen(&socket, tell)?;
    for _ in 0..count {
        assert_eq!(socket.recv()?.len(), size);
        came(1);
    }
    Ok(())
}

fn send(size: usize, count: u64, addr: &str, wait: Wait<'_>) -> Result<(), Failure> {
    let socket = socket(Protocol::Push0, size)?;
    socket.dial(addr)?;
    let message = vec![7; size];
    for _ in 0..count {
        send_on(&socket, Message::from(&message[..]))?;
    }
    wait()
}

fn echo(count: u64, tell: Tell<'_>) -> Result<(), Failure> {
    let socket = socket(Protocol::Pair0, ASKED)?;
    let ended = notified(&socket, PipeEvent::RemovePost)?;
    listen(&socket, tell)?;
    for _ in 0..count {
        let message = socket.recv()?;
        send_on(&socket, message)?;
    }
    // The last message is sent when the other side, which waits for it, closes the connection.
    Ok(ended.recv()?)
}

fn ask(count: u64, addr: &str, came: Came<'_>) -> Result<(), Failure> {
    let socket = socket(Protocol::Pair0, ASKED)?;
    socket.dial(addr)?;
    for _ in 0..count {
        send_on(&socket, Message::from(&[7; ASKED][..]))?;
        socket.recv()?;
        came(1);
    }
    Ok(())
}

fn idle_accept(_: Shape, count: usize, tell: Tell<'_>, wait: Wait<'_>) -> Result<(), Failure> {
    let socket = socket(Protocol::Pull0, ASKED)?;
    let made = notified(&socket, PipeEvent::AddPost)?;
    listen(&socket, tell)?;
    (0..count).try_for_each(|_| made.recv())?;
    wait()
}

/// One socket that dials so many times.
fn idle_dial(
    _: Shape,
    count: usize,
    addr: &str,
    ready: &mut dyn FnMut(),
    wait: Wait<'_>,
) -> Result<(), Failure> {
    let socket = socket(Protocol::Push0, ASKED)?;
    let made = notified(&socket, PipeEvent::AddPost)?;
    ready();
    for _ in 0..count {
        socket.dial(addr)?;
    }
    (0..count).try_for_each(|_| made.recv())?;
    wait()
}
