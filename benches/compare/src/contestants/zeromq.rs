//! ZeroMQ (libzmq) with one I/O thread in each process: PUSH and PULL one way, PAIR for round trips, DEALER
//! for votes beside bulk messages, XPUB and SUB for broadcasts, which PUSH and PULL acknowledge.

use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};
use zmq::{Context, DONTWAIT, POLLIN, POLLOUT, Socket, SocketType};

use super::{
    ASKED, BROADCAST, BULK, Broadcast, Came, Connections, Contestant, Idle, OneWay, RoundTrip, Shape, Tell,
    Vote, Wait, Work,
};
use crate::Failure;

pub const CONTESTANT: Contestant = Contestant {
    one_way: Some(OneWay { shares: [0.3, 0.5], receive, send }),
    round_trip: Some(RoundTrip { trips: 5_000, echo, ask }),
    vote: Some(Vote { serve, vote }),
    broadcast: Some(Broadcast { broadcast, peers }),
    idle: Some(Idle { shapes: &[Shape::Both], accept: idle_accept, dial: idle_dial }),
    ..Contestant::named("ZeroMQ")
};

/// The bytes that may wait at each side of a socket: the high-water mark, which is a number of messages, is
/// set to what makes these. They are those of unbroken's normal lane, and far more than the sockets' own
/// buffers.
const WAITING: usize = 16 << 20;

fn context() -> Result<Context, Failure> {
    let context = Context::new();
    context.set_io_threads(1)?;
    Ok(context)
}

/// A socket for messages of this size. It is dropped with what it has not sent yet.
fn socket(context: &Context, kind: SocketType, size: usize) -> Result<Socket, Failure> {
    let socket = context.socket(kind)?;
    let mark = i32::try_from((WAITING / size).max(2))?;
    socket.set_sndhwm(mark)?;
    socket.set_rcvhwm(mark)?;
    socket.set_linger(0)?;
    Ok(socket)
}

/// Binds to a port that the system chooses, and returns the address.
fn bind(socket: &Socket) -> Result<String, Failure> {
    socket.bind("tcp://127.0.0.1:*")?;
    let endpoint = socket.get_last_endpoint()?;
    endpoint.map_err(|_| "an endpoint that is no text, expected an address".into())
}

fn bound(context: &Context, kind: SocketType, size: usize, tell: Tell<'_>) -> Result<Socket, Failure> {
    let socket = socket(context, kind, size)?;
    tell(bind(&socket)?)?;
    Ok(socket)
}

fn connected(context: &Context, kind: SocketType, size: usize, addr: &str) -> Result<Socket, Failure> {
    let socket = socket(context, kind, size)?;
    socket.connect(addr)?;
    Ok(socket)
}

// --- one way and round trip -----------------------------------------------------------------------

fn receive(size: usize, count: u64, tell: Tell<'_>, came: Came<'_>) -> Result<(), Failure> {
    let socket = bound(&context()?, zmq::PULL, size, tell)?;
    let mut message = zmq::Message::new();
    for _ in 0..count {
        socket.recv(&mut message, 0)?;
        assert_eq!(message.len(), size);
        came(1);
    }
    Ok(())
}

fn send(size: usize, count: u64, addr: &str, wait: Wait<'_>) -> Result<(), Failure> {
    let socket = connected(&context()?, zmq::PUSH, size, addr)?;
    let message = vec![7; size];
    for _ in 0..count {
        socket.send(&message[..], 0)?;
    }
    wait()
}

fn echo(count: u64, tell: Tell<'_>) -> Result<(), Failure> {
    let context = context()?;
    let socket = bound(&context, zmq::PAIR, ASKED, tell)?;
    // The last message is still sent when the socket is closed.
    socket.set_linger(-1)?;
    echo_on(&socket, count)
}

fn echo_on(socket: &Socket, count: u64) -> Result<(), Failure> {
    let mut message = zmq::Message::new();
    for _ in 0..count {
        socket.recv(&mut message, 0)?;
        socket.send(&message[..], 0)?;
    }
    Ok(())
}

fn ask(count: u64, addr: &str, came: Came<'_>) -> Result<(), Failure> {
    let socket = connected(&context()?, zmq::PAIR, ASKED, addr)?;
    let mut message = zmq::Message::new();
    for _ in 0..count {
        socket.send(&[7; ASKED][..], 0)?;
        socket.recv(&mut message, 0)?;
        came(1);
    }
    Ok(())
}

// --- votes beside bulk messages -------------------------------------------------------------------

/// Two sockets: both are there, and with one connection the second one has none.
fn serve(_: Connections, tell: Tell<'_>, came: Came<'_>) -> Result<(), Failure> {
    let context = context()?;
    let (bulk, votes) = (socket(&context, zmq::DEALER, BULK)?, socket(&context, zmq::DEALER, ASKED)?);
    tell(format!("{} {}", bind(&bulk)?, bind(&votes)?))?;
    thread::spawn(move || echo_on(&votes, u64::MAX));
    let mut message = zmq::Message::new();
    loop {
        bulk.recv(&mut message, 0)?;
        match message.len() {
            ASKED => bulk.send(&message[..], 0)?,
            _ => came(1),
        }
    }
}

fn vote(connections: Connections, addr: &str, work: Work<'_>) -> Result<(), Failure> {
    let context = context()?;
    let (bulk, votes) = addr.split_once(' ').ok_or("one address, expected two")?;
    let bulk = connected(&context, zmq::DEALER, BULK, bulk)?;
    let separate = match connections {
        Connections::One => None,
        Connections::Two => Some(connected(&context, zmq::DEALER, ASKED, votes)?),
    };
    let ((asked, to_ask), (answered, answers)) = (bounded(1), bounded(1));
    thread::spawn(move || stream(&bulk, &to_ask, &answered));
    let mut message = zmq::Message::new();
    work(&mut || {
        match &separate {
            None => {
                asked.send(())?;
                answers.recv()?;
            }
            Some(socket) => {
                socket.send(&[7; ASKED][..], 0)?;
                socket.recv(&mut message, 0)?;
            }
        }
        Ok(())
    })
}

/// A socket belongs to one thread: it looks for a vote before each bulk message, and for answers.
fn stream(socket: &Socket, to_ask: &Receiver<()>, answered: &Sender<()>) -> Result<(), Failure> {
    let bulk = vec![7; BULK];
    loop {
        let events = socket.poll(POLLIN | POLLOUT, -1).map(|_| socket.get_events())??;
        if events.contains(POLLIN) {
            socket.recv_msg(0)?;
            answered.send(())?;
        }
        if events.contains(POLLOUT) {
            match to_ask.try_recv() {
                Ok(()) => socket.send(&[7; ASKED][..], DONTWAIT)?,
                Err(_) => socket.send(&bulk[..], DONTWAIT)?,
            }
        }
    }
}

// --- broadcast ------------------------------------------------------------------------------------

fn broadcast(peers: usize, tell: Tell<'_>, work: Work<'_>) -> Result<(), Failure> {
    let context = context()?;
    let (publish, acknowledged) =
        (socket(&context, zmq::XPUB, BROADCAST)?, socket(&context, zmq::PULL, BROADCAST)?);
    // Every subscription is seen, though all are the same.
    publish.set_xpub_verbose(true)?;
    tell(format!("{} {}", bind(&publish)?, bind(&acknowledged)?))?;
    let mut message = zmq::Message::new();
    for _ in 0..peers {
        publish.recv(&mut message, 0)?;
    }
    work(&mut || {
        publish.send(&[7; BROADCAST][..], 0)?;
        for _ in 0..peers {
            acknowledged.recv(&mut message, 0)?;
        }
        Ok(())
    })
}

fn peers(peers: usize, addr: &str) -> Result<(), Failure> {
    let context = context()?;
    let (publisher, acknowledge) = addr.split_once(' ').ok_or("one address, expected two")?;
    let mut sockets = Vec::new();
    for _ in 0..peers {
        let acknowledge = connected(&context, zmq::PUSH, BROADCAST, acknowledge)?;
        let subscribed = connected(&context, zmq::SUB, BROADCAST, publisher)?;
        subscribed.set_subscribe(b"")?;
        sockets.push((subscribed, acknowledge));
    }
    let mut message = zmq::Message::new();
    let mut items: Vec<_> = sockets.iter().map(|(socket, _)| socket.as_poll_item(POLLIN)).collect();
    loop {
        zmq::poll(&mut items, -1)?;
        for (item, (subscribed, acknowledge)) in items.iter().zip(&sockets) {
            if item.is_readable() {
                subscribed.recv(&mut message, 0)?;
                acknowledge.send(&[1][..], 0)?;
            }
        }
    }
}

// --- idle connections -----------------------------------------------------------------------------

/// Reports each connection of this socket that has shaken hands, to a socket of its own.
fn monitor(context: &Context, socket: &Socket) -> Result<Socket, Failure> {
    const NAME: &str = "inproc://handshakes";
    socket.monitor(NAME, zmq::SocketEvent::HANDSHAKE_SUCCEEDED.to_raw().into())?;
    let monitor = context.socket(zmq::PAIR)?;
    monitor.connect(NAME)?;
    Ok(monitor)
}

fn idle_accept(_: Shape, count: usize, tell: Tell<'_>, wait: Wait<'_>) -> Result<(), Failure> {
    let context = context()?;
    let socket = socket(&context, zmq::PULL, ASKED)?;
    let monitor = monitor(&context, &socket)?;
    tell(bind(&socket)?)?;
    for _ in 0..count {
        monitor.recv_multipart(0)?;
    }
    wait()
}

/// One socket that connects so many times. PUSH makes a connection each time, DEALER only one to each
/// address.
fn idle_dial(
    _: Shape,
    count: usize,
    addr: &str,
    ready: &mut dyn FnMut(),
    wait: Wait<'_>,
) -> Result<(), Failure> {
    let context = context()?;
    let socket = socket(&context, zmq::PUSH, ASKED)?;
    let monitor = monitor(&context, &socket)?;
    ready();
    for _ in 0..count {
        socket.connect(addr)?;
    }
    for _ in 0..count {
        monitor.recv_multipart(0)?;
    }
    wait()
}
