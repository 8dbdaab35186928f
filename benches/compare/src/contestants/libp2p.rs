//! rust-libp2p as nodes of blockchains use it: TCP, Noise, yamux, and streams of `libp2p-stream`, each with
//! `LengthDelimitedCodec` as in `tokio framed`. A task drives the swarm, and libp2p has one for each
//! connection.

use std::time::Duration;

use futures_util::StreamExt;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol, Swarm, SwarmBuilder, noise, tcp, yamux};
use libp2p_stream::{Behaviour, Control, IncomingStreams};
use tokio::runtime::{Builder, Runtime};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};

use super::tokio_framed::{
    Messages, acknowledge_on, ask_on, broadcast_on, echo_on, framed_on, hold, receive_from, runtime,
    runtime_with_a_thread, send_to, serve_on, vote_on,
};
use super::{
    Broadcast, Came, Connections, Contestant, Idle, OneWay, RoundTrip, Shape, Tell, Vote, Wait, Work,
};
use crate::Failure;

pub const CONTESTANT: Contestant = Contestant {
    one_way: Some(OneWay { shares: [0.3, 0.3], receive, send }),
    round_trip: Some(RoundTrip { trips: 10_000, echo, ask }),
    vote: Some(Vote { serve, vote }),
    broadcast: Some(Broadcast { broadcast, peers }),
    idle: Some(Idle { shapes: &[Shape::OneAccepts, Shape::OneDials], accept: idle_accept, dial: idle_dial }),
    ..Contestant::named("libp2p")
};

type OfStream = Messages<Compat<Stream>>;

const ENDED: &str = "the swarm ended, expected a stream";

/// What the streams are for. Votes have a protocol of their own, so that either side knows which stream is
/// theirs.
const BULK: StreamProtocol = StreamProtocol::new("/compare/bulk/1");
const VOTES: StreamProtocol = StreamProtocol::new("/compare/votes/1");

/// How long a connection may have no stream. One that has a stream stays.
const UNUSED: Duration = Duration::from_secs(3600);

fn swarm() -> Result<Swarm<Behaviour>, Failure> {
    let swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)?
        .with_behaviour(|_| Behaviour::new())?
        .with_swarm_config(|config| config.with_idle_connection_timeout(UNUSED))
        .build();
    Ok(swarm)
}

/// Goes on as long as the runtime does.
fn drive(mut swarm: Swarm<Behaviour>) {
    tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
}

/// A node that listens, its address with its name, and the streams that its peers open.
struct Listening {
    addr: String,
    bulk: IncomingStreams,
    votes: IncomingStreams,
}

async fn listening() -> Result<Listening, Failure> {
    let mut swarm = swarm()?;
    let mut control = swarm.behaviour().new_control();
    let (bulk, votes) = (control.accept(BULK)?, control.accept(VOTES)?);
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
    let addr = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address.with(Protocol::P2p(*swarm.local_peer_id())).to_string();
        }
    };
    drive(swarm);
    Ok(Listening { addr, bulk, votes })
}

async fn listen(tell: Tell<'_>) -> Result<Listening, Failure> {
    let listening = listening().await?;
    tell(listening.addr.clone())?;
    Ok(listening)
}

/// A stream, which comes with the first message on it.
async fn next(streams: &mut IncomingStreams) -> Result<OfStream, Failure> {
    let (_, stream) = streams.next().await.ok_or(ENDED)?;
    Ok(framed_on(stream.compat()))
}

/// A node that has a connection to one peer.
struct Connected {
    control: Control,
    peer: PeerId,
}

impl Connected {
    async fn open(&mut self, protocol: StreamProtocol) -> Result<OfStream, Failure> {
        Ok(framed_on(self.control.open_stream(self.peer, protocol).await?.compat()))
    }
}

async fn connect(addr: &str) -> Result<Connected, Failure> {
    let mut swarm = swarm()?;
    let peer = dial(&mut swarm, addr).await?;
    let control = swarm.behaviour().new_control();
    drive(swarm);
    Ok(Connected { control, peer })
}

/// Returns when the connection stands.
async fn dial(swarm: &mut Swarm<Behaviour>, addr: &str) -> Result<PeerId, Failure> {
    swarm.dial(addr.parse::<Multiaddr>()?)?;
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::ConnectionEstablished { peer_id, .. } => return Ok(peer_id),
            SwarmEvent::OutgoingConnectionError { error, .. } => return Err(error.into()),
            _ => {}
        }
    }
}

// --- one way and round trip -----------------------------------------------------------------------

fn receive(size: usize, count: u64, tell: Tell<'_>, came: Came<'_>) -> Result<(), Failure> {
    runtime()?.block_on(async {
        let mut listening = listen(tell).await?;
        receive_from(next(&mut listening.bulk).await?, size, count, came).await
    })
}

fn send(size: usize, count: u64, addr: &str, wait: Wait<'_>) -> Result<(), Failure> {
    // What was handed to the connection is written by its task while this waits.
    runtime_with_a_thread()?.block_on(async {
        let mut messages = connect(addr).await?.open(BULK).await?;
        send_to(&mut messages, size, count).await?;
        wait()
    })
}

fn echo(count: u64, tell: Tell<'_>) -> Result<(), Failure> {
    runtime()?.block_on(async {
        let mut listening = listen(tell).await?;
        let mut messages = next(&mut listening.bulk).await?;
        echo_on(&mut messages, count).await?;
        // The last message may still be with the task of the connection: the end comes after it.
        while messages.next().await.is_some_and(|message| message.is_ok()) {}
        Ok(())
    })
}

fn ask(count: u64, addr: &str, came: Came<'_>) -> Result<(), Failure> {
    runtime()?.block_on(async {
        let mut messages = connect(addr).await?.open(BULK).await?;
        ask_on(&mut messages, count, came).await
    })
}

// --- votes beside bulk messages -------------------------------------------------------------------

/// The default of tokio, a thread for each processor: a connection that is busy with bulk messages leaves one
/// for the other connection.
fn runtime_with_threads() -> Result<Runtime, Failure> {
    Ok(Builder::new_multi_thread().enable_io().build()?)
}

/// Votes have a stream of their own on the connection of the bulk messages, or on that of a second node.
fn serve(_: Connections, tell: Tell<'_>, came: Came<'_>) -> Result<(), Failure> {
    runtime_with_threads()?.block_on(async {
        let Listening { mut bulk, mut votes, .. } = listen(tell).await?;
        tokio::spawn(async move {
            let mut votes = next(&mut votes).await?;
            echo_on(&mut votes, u64::MAX).await
        });
        serve_on(next(&mut bulk).await?, came).await
    })
}

fn vote(connections: Connections, addr: &str, work: Work<'_>) -> Result<(), Failure> {
    let runtime = runtime_with_threads()?;
    let (bulk, votes) = runtime.block_on(async {
        let mut node = connect(addr).await?;
        let bulk = node.open(BULK).await?;
        if connections == Connections::Two {
            // `libp2p-stream` chooses between two connections of the same nodes at random.
            node = connect(addr).await?;
        }
        Ok::<_, Failure>((bulk, node.open(VOTES).await?))
    })?;
    vote_on(&runtime, bulk, Some(votes), work)
}

// --- broadcast ------------------------------------------------------------------------------------

/// Each peer opens a stream with a message, which comes back.
fn broadcast(peers: usize, tell: Tell<'_>, work: Work<'_>) -> Result<(), Failure> {
    let runtime = runtime()?;
    let ends = runtime.block_on(async {
        let mut listening = listen(tell).await?;
        let mut ends = Vec::new();
        for _ in 0..peers {
            let mut messages = next(&mut listening.bulk).await?;
            echo_on(&mut messages, 1).await?;
            ends.push(messages);
        }
        Ok::<_, Failure>(ends)
    })?;
    broadcast_on(&runtime, ends, work)
}

/// A node for each peer.
fn peers(peers: usize, addr: &str) -> Result<(), Failure> {
    runtime()?.block_on(async {
        let mut tasks = Vec::new();
        for _ in 0..peers {
            let mut messages = connect(addr).await?.open(BULK).await?;
            ask_on(&mut messages, 1, &mut |_| {}).await?;
            tasks.push(tokio::spawn(acknowledge_on(messages)));
        }
        for task in tasks {
            task.await??;
        }
        Ok(())
    })
}

// --- idle connections -----------------------------------------------------------------------------

/// Each connection has a stream, which is read by a task after a message has gone in each direction.
fn idle_accept(shape: Shape, count: usize, tell: Tell<'_>, wait: Wait<'_>) -> Result<(), Failure> {
    let (nodes, links) = shape.accepting(count);
    // The tasks go on while this waits: the last message may still be with one of them.
    runtime_with_a_thread()?.block_on(async {
        let mut all = Vec::new();
        for _ in 0..nodes {
            all.push(listening().await?);
        }
        tell(all.iter().map(|node| node.addr.as_str()).collect::<Vec<_>>().join(" "))?;
        for node in &mut all {
            for _ in 0..links {
                let mut messages = next(&mut node.bulk).await?;
                echo_on(&mut messages, 1).await?;
                tokio::spawn(hold(messages));
            }
        }
        wait()
    })
}

fn idle_dial(
    shape: Shape,
    count: usize,
    addrs: &str,
    ready: &mut dyn FnMut(),
    wait: Wait<'_>,
) -> Result<(), Failure> {
    let (nodes, _) = shape.dialling(count);
    runtime_with_a_thread()?.block_on(async {
        let swarms: Vec<_> = (0..nodes).map(|_| swarm()).collect::<Result<_, _>>()?;
        ready();
        for mut swarm in swarms {
            let mut peers = Vec::new();
            for addr in addrs.split(' ') {
                peers.push(dial(&mut swarm, addr).await?);
            }
            let control = swarm.behaviour().new_control();
            drive(swarm);
            for peer in peers {
                let mut messages = Connected { control: control.clone(), peer }.open(BULK).await?;
                ask_on(&mut messages, 1, &mut |_| {}).await?;
                tokio::spawn(hold(messages));
            }
        }
        wait()
    })
}
