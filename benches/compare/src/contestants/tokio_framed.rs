//! tokio with `LengthDelimitedCodec`, on a runtime of the current thread: messages are fed to the sink, which
//! writes when its buffer is full.

use std::thread;

use bytes::{Bytes, BytesMut};
use futures_util::SinkExt;
use futures_util::stream::{SplitSink, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use super::{
    ASKED, BROADCAST, BULK, Broadcast, Came, Connections, Contestant, Count, Idle, OneWay, RoundTrip, SENT,
    Senders, Shape, Tell, Vote, Wait, Work,
};
use crate::Failure;

pub const CONTESTANT: Contestant = Contestant {
    one_way: Some(OneWay { shares: [0.4, 1.0], receive, send }),
    senders: Some(Senders { receive: receive_many, send: send_many }),
    round_trip: Some(RoundTrip { trips: 10_000, echo, ask }),
    vote: Some(Vote { serve, vote }),
    broadcast: Some(Broadcast { broadcast, peers }),
    idle: Some(Idle { shapes: &[Shape::Both], accept: idle_accept, dial: idle_dial }),
    ..Contestant::named("tokio framed")
};

pub fn runtime() -> Result<Runtime, Failure> {
    Ok(Builder::new_current_thread().enable_io().build()?)
}

/// A runtime with one thread of its own beside the main thread, so that bulk messages and votes need not
/// share one.
pub fn runtime_with_a_thread() -> Result<Runtime, Failure> {
    Ok(Builder::new_multi_thread().worker_threads(1).enable_io().build()?)
}

const ENDED: &str = "the connection ended, expected a message";

pub type Messages<S> = Framed<S, LengthDelimitedCodec>;

pub fn framed_on<S: AsyncRead + AsyncWrite>(stream: S) -> Messages<S> {
    LengthDelimitedCodec::builder().max_frame_length(64 << 20).new_framed(stream)
}

fn framed(socket: TcpStream) -> Result<Messages<TcpStream>, Failure> {
    socket.set_nodelay(true)?;
    Ok(framed_on(socket))
}

async fn connect(addr: &str) -> Result<Messages<TcpStream>, Failure> {
    framed(TcpStream::connect(addr).await?)
}

pub async fn listen(tell: Tell<'_>) -> Result<TcpListener, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    tell(listener.local_addr()?.to_string())?;
    Ok(listener)
}

async fn next(listener: &TcpListener) -> Result<Messages<TcpStream>, Failure> {
    framed(listener.accept().await?.0)
}

async fn accept(tell: Tell<'_>) -> Result<Messages<TcpStream>, Failure> {
    next(&listen(tell).await?).await
}

// --- one way and round trip -----------------------------------------------------------------------

fn receive(size: usize, count: u64, tell: Tell<'_>, came: Came<'_>) -> Result<(), Failure> {
    runtime()?.block_on(async { receive_from(accept(tell).await?, size, count, came).await })
}

fn send(size: usize, count: u64, addr: &str, wait: Wait<'_>) -> Result<(), Failure> {
    runtime()?.block_on(async {
        let mut messages = connect(addr).await?;
        send_to(&mut messages, size, count).await?;
        wait()
    })
}

fn echo(count: u64, tell: Tell<'_>) -> Result<(), Failure> {
    runtime()?.block_on(async { echo_on(&mut accept(tell).await?, count).await })
}

fn ask(count: u64, addr: &str, came: Came<'_>) -> Result<(), Failure> {
    runtime()?.block_on(async { ask_on(&mut connect(addr).await?, count, came).await })
}

pub async fn receive_from<S: AsyncRead + Unpin>(
    mut messages: Messages<S>,
    size: usize,
    count: u64,
    came: Came<'_>,
) -> Result<(), Failure> {
    for _ in 0..count {
        assert_eq!(messages.next().await.ok_or(ENDED)??.len(), size);
        came(1);
    }
    Ok(())
}

pub async fn send_to<S: AsyncWrite + Unpin>(
    messages: &mut Messages<S>,
    size: usize,
    count: u64,
) -> Result<(), Failure> {
    let message = Bytes::from(vec![7; size]);
    for _ in 0..count {
        messages.feed(message.clone()).await?;
    }
    Ok(SinkExt::<Bytes>::flush(messages).await?)
}

pub async fn echo_on<S: AsyncRead + AsyncWrite + Unpin>(
    messages: &mut Messages<S>,
    count: u64,
) -> Result<(), Failure> {
    for _ in 0..count {
        let message = messages.next().await.ok_or(ENDED)??;
        messages.send(message.freeze()).await?;
    }
    Ok(())
}

pub async fn ask_on<S: AsyncRead + AsyncWrite + Unpin>(
    messages: &mut Messages<S>,
    count: u64,
    came: Came<'_>,
) -> Result<(), Failure> {
    let message = Bytes::from(vec![7; ASKED]);
    for _ in 0..count {
        messages.send(message.clone()).await?;
        messages.next().await.ok_or(ENDED)??;
        came(1);
    }
    Ok(())
}

// --- many threads that send -------------------------------------------------------------------------

fn receive_many(peers: usize, tell: Tell<'_>, came: Count<'_>) -> Result<(), Failure> {
    runtime()?.block_on(async {
        let listener = listen(tell).await?;
        let mut receiving = futures_util::stream::FuturesUnordered::new();
        for _ in 0..peers {
            let messages = next(&listener).await?;
            receiving
                .push(async move { receive_from(messages, SENT, u64::MAX, &mut |count| came(count)).await });
        }
        receiving.next().await.ok_or("there is no peer, expected one")?
    })
}

/// Messages that wait for a task.
const WAITING: usize = 1024;

/// A task for each connection, on one thread of the runtime, and a channel to it. The task feeds what waits in
/// the channel, and writes what is in its buffer when the channel is empty.
fn send_many(threads: usize, peers: usize, addr: &str, wait: Wait<'_>) -> Result<(), Failure> {
    let runtime = runtime_with_a_thread()?;
    let mut channels = Vec::new();
    for _ in 0..peers {
        let messages = runtime.block_on(connect(addr))?;
        let (channel, waiting) = mpsc::channel(WAITING);
        channels.push(channel);
        runtime.spawn(forward(messages, waiting));
    }
    let message = Bytes::from(vec![7; SENT]);
    for _ in 0..threads {
        let (channels, message) = (channels.clone(), message.clone());
        let send = move |channel: &mpsc::Sender<Bytes>| channel.blocking_send(message.clone()).is_ok();
        thread::spawn(move || while channels.iter().all(&send) {});
    }
    wait()
}

async fn forward(
    mut messages: Messages<TcpStream>,
    mut waiting: mpsc::Receiver<Bytes>,
) -> Result<(), std::io::Error> {
    let mut batch = Vec::new();
    while waiting.recv_many(&mut batch, WAITING).await > 0 {
        for message in batch.drain(..) {
            messages.feed(message).await?;
        }
        SinkExt::<Bytes>::flush(&mut messages).await?;
    }
    Ok(())
}

// --- votes beside bulk messages -------------------------------------------------------------------

fn serve(connections: Connections, tell: Tell<'_>, came: Came<'_>) -> Result<(), Failure> {
    runtime_with_a_thread()?.block_on(async {
        let listener = listen(tell).await?;
        let bulk = next(&listener).await?;
        if connections == Connections::Two {
            let mut votes = next(&listener).await?;
            tokio::spawn(async move { echo_on(&mut votes, u64::MAX).await });
        }
        serve_on(bulk, came).await
    })
}

/// Counts the bulk messages of a connection and returns its votes, until it ends.
pub async fn serve_on<S: AsyncRead + AsyncWrite + Unpin>(
    mut messages: Messages<S>,
    came: Came<'_>,
) -> Result<(), Failure> {
    while let Some(message) = messages.next().await {
        let message = message?;
        match message.len() {
            ASKED => messages.send(message.freeze()).await?,
            _ => came(1),
        }
    }
    Ok(())
}

fn vote(connections: Connections, addr: &str, work: Work<'_>) -> Result<(), Failure> {
    let runtime = runtime_with_a_thread()?;
    let (bulk, separate) = runtime.block_on(async {
        let bulk = connect(addr).await?;
        let separate = match connections {
            Connections::One => None,
            Connections::Two => Some(connect(addr).await?),
        };
        Ok::<_, Failure>((bulk, separate))
    })?;
    vote_on(&runtime, bulk, separate, work)
}

/// Sends bulk messages on one stream and votes on the other, or on the same one where there is no other.
pub fn vote_on<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    runtime: &Runtime,
    bulk: Messages<S>,
    separate: Option<Messages<S>>,
    work: Work<'_>,
) -> Result<(), Failure> {
    let (asked, votes) = mpsc::channel::<()>(1);
    let (sink, mut back) = bulk.split();
    runtime.spawn(stream(sink, votes));
    let vote = Bytes::from(vec![7; ASKED]);
    let mut separate = separate;
    work(&mut || {
        runtime.block_on(async {
            match &mut separate {
                None => {
                    asked.send(()).await?;
                    back.next().await.ok_or(ENDED)??;
                }
                Some(messages) => {
                    messages.send(vote.clone()).await?;
                    messages.next().await.ok_or(ENDED)??;
                }
            }
            Ok(())
        })
    })
}

/// Sends bulk messages one after another, and before each one a vote if one is wanted.
async fn stream<S: AsyncWrite + Unpin>(
    mut sink: SplitSink<Messages<S>, Bytes>,
    mut votes: mpsc::Receiver<()>,
) -> Result<(), std::io::Error> {
    let (bulk, vote) = (Bytes::from(vec![7; BULK]), Bytes::from(vec![7; ASKED]));
    loop {
        if votes.try_recv().is_ok() {
            sink.feed(vote.clone()).await?;
        }
        // Nothing is left in the buffer of the codec: the vote leaves with the bulk message.
        sink.send(bulk.clone()).await?;
    }
}

// --- broadcast ------------------------------------------------------------------------------------

fn broadcast(peers: usize, tell: Tell<'_>, work: Work<'_>) -> Result<(), Failure> {
    let runtime = runtime()?;
    let ends = runtime.block_on(async {
        let listener = listen(tell).await?;
        let mut ends = Vec::new();
        for _ in 0..peers {
            ends.push(next(&listener).await?);
        }
        Ok::<_, Failure>(ends)
    })?;
    broadcast_on(&runtime, ends, work)
}

/// Sends to one peer after the other, and then receives the acknowledgements.
pub fn broadcast_on<S: AsyncRead + AsyncWrite + Unpin>(
    runtime: &Runtime,
    mut ends: Vec<Messages<S>>,
    work: Work<'_>,
) -> Result<(), Failure> {
    let message = Bytes::from(vec![7; BROADCAST]);
    work(&mut || {
        runtime.block_on(async {
            for messages in &mut ends {
                messages.send(message.clone()).await?;
            }
            for messages in &mut ends {
                messages.next().await.ok_or(ENDED)??;
            }
            Ok(())
        })
    })
}

fn peers(peers: usize, addr: &str) -> Result<(), Failure> {
    runtime()?.block_on(async {
        let mut tasks = Vec::new();
        for _ in 0..peers {
            tasks.push(tokio::spawn(acknowledge_on(connect(addr).await?)));
        }
        for task in tasks {
            task.await??;
        }
        Ok(())
    })
}

/// Acknowledges each message, until the stream ends.
pub async fn acknowledge_on<S: AsyncRead + AsyncWrite + Unpin>(
    mut messages: Messages<S>,
) -> Result<(), std::io::Error> {
    while let Some(message) = messages.next().await {
        let _: BytesMut = message?;
        messages.send(Bytes::from_static(&[1])).await?;
    }
    Ok(())
}

// --- idle connections -----------------------------------------------------------------------------

/// Each connection is read by a task, after a message has gone in each direction: the buffers exist only
/// then.
pub async fn hold<S: AsyncRead + Unpin>(mut messages: Messages<S>) -> Result<(), std::io::Error> {
    while messages.next().await.transpose()?.is_some() {}
    Ok(())
}

fn idle_accept(_: Shape, count: usize, tell: Tell<'_>, wait: Wait<'_>) -> Result<(), Failure> {
    runtime()?.block_on(async {
        let listener = listen(tell).await?;
        for _ in 0..count {
            let mut messages = next(&listener).await?;
            echo_on(&mut messages, 1).await?;
            tokio::spawn(hold(messages));
        }
        wait()
    })
}

fn idle_dial(
    _: Shape,
    count: usize,
    addr: &str,
    ready: &mut dyn FnMut(),
    wait: Wait<'_>,
) -> Result<(), Failure> {
    runtime()?.block_on(async {
        ready();
        for _ in 0..count {
            let mut messages = connect(addr).await?;
            ask_on(&mut messages, 1, &mut |_| {}).await?;
            tokio::spawn(hold(messages));
        }
        wait()
    })
}
