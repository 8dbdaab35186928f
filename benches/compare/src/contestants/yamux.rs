//! yamux over tokio: streams of one connection, each with `LengthDelimitedCodec` as in `tokio framed`. A task
//! reads and writes the connection.

use std::future::poll_fn;

use futures_util::StreamExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};
use yamux::{Config, Connection, Mode, Stream};

use super::tokio_framed::{
    Messages, ask_on, echo_on, framed_on, listen, receive_from, runtime, runtime_with_a_thread, send_to,
    serve_on, vote_on,
};
use super::{Came, Connections, Contestant, OneWay, RoundTrip, Tell, Vote, Wait, Work};
use crate::Failure;

pub const CONTESTANT: Contestant = Contestant {
    one_way: Some(OneWay { shares: [0.1, 0.5], receive, send }),
    round_trip: Some(RoundTrip { trips: 10_000, echo, ask }),
    vote: Some(Vote { serve, vote }),
    ..Contestant::named("yamux")
};

type OfStream = Messages<Compat<Stream>>;

const ENDED: &str = "the yamux connection ended, expected a stream";

fn connection(socket: TcpStream, mode: Mode) -> Result<Connection<Compat<TcpStream>>, Failure> {
    socket.set_nodelay(true)?;
    Ok(Connection::new(socket.compat(), Config::default(), mode))
}

/// Reads and writes a connection as long as it lasts, and passes on the streams that the other side opens.
fn drive(mut connection: Connection<Compat<TcpStream>>) -> mpsc::UnboundedReceiver<OfStream> {
    let (opened, streams) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(stream)) = poll_fn(|cx| connection.poll_next_inbound(cx)).await {
            // The connection goes on without those who wait for streams.
            let _ = opened.send(framed_on(stream.compat()));
        }
    });
    streams
}

/// The streams of a connection, each of which comes with its first message.
async fn next(listener: &TcpListener) -> Result<mpsc::UnboundedReceiver<OfStream>, Failure> {
    Ok(drive(connection(listener.accept().await?.0, Mode::Server)?))
}

async fn accept(tell: Tell<'_>) -> Result<OfStream, Failure> {
    Ok(next(&listen(tell).await?).await?.recv().await.ok_or(ENDED)?)
}

/// So many streams of one connection.
async fn connect<const STREAMS: usize>(addr: &str) -> Result<[OfStream; STREAMS], Failure> {
    let mut connection = connection(TcpStream::connect(addr).await?, Mode::Client)?;
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let stream = poll_fn(|cx| connection.poll_new_outbound(cx)).await?;
        streams.push(framed_on(stream.compat()));
    }
    drop(drive(connection));
    streams.try_into().map_err(|_| "too few streams, expected as many as were opened".into())
}

// --- one way and round trip -----------------------------------------------------------------------

fn receive(size: usize, count: u64, tell: Tell<'_>, came: Came<'_>) -> Result<(), Failure> {
    runtime()?.block_on(async { receive_from(accept(tell).await?, size, count, came).await })
}

fn send(size: usize, count: u64, addr: &str, wait: Wait<'_>) -> Result<(), Failure> {
    // What was handed to the connection is written by its task while this waits.
    let runtime = runtime_with_a_thread()?;
    runtime.block_on(async {
        let [mut messages] = connect(addr).await?;
        send_to(&mut messages, size, count).await?;
        wait()
    })
}

fn echo(count: u64, tell: Tell<'_>) -> Result<(), Failure> {
    let runtime = runtime_with_a_thread()?;
    let mut messages = runtime.block_on(async {
        let mut messages = accept(tell).await?;
        echo_on(&mut messages, count).await?;
        Ok::<_, Failure>(messages)
    })?;
    // The last message may still be with the task that writes: the end comes after it.
    runtime.block_on(async { while messages.next().await.is_some_and(|message| message.is_ok()) {} });
    Ok(())
}

fn ask(count: u64, addr: &str, came: Came<'_>) -> Result<(), Failure> {
    runtime()?.block_on(async {
        let [mut messages] = connect(addr).await?;
        ask_on(&mut messages, count, came).await
    })
}

// --- votes beside bulk messages -------------------------------------------------------------------

/// Votes have a stream of their own on the connection of the bulk messages, or on a second connection.
fn serve(connections: Connections, tell: Tell<'_>, came: Came<'_>) -> Result<(), Failure> {
    runtime_with_a_thread()?.block_on(async {
        let listener = listen(tell).await?;
        let mut streams = next(&listener).await?;
        let mut bulk = streams.recv().await.ok_or(ENDED)?;
        echo_on(&mut bulk, 1).await?;
        if connections == Connections::Two {
            streams = next(&listener).await?;
        }
        tokio::spawn(async move {
            let mut votes = streams.recv().await.ok_or(ENDED)?;
            echo_on(&mut votes, u64::MAX).await
        });
        serve_on(bulk, came).await
    })
}

fn vote(connections: Connections, addr: &str, work: Work<'_>) -> Result<(), Failure> {
    let runtime = runtime_with_a_thread()?;
    let (bulk, votes) = runtime.block_on(async {
        let [mut bulk, mut votes] = connect(addr).await?;
        // The other side takes the first stream that it sees for the one of the bulk messages.
        ask_on(&mut bulk, 1, &mut |_| {}).await?;
        if connections == Connections::Two {
            [votes] = connect(addr).await?;
        }
        Ok::<_, Failure>((bulk, votes))
    })?;
    vote_on(&runtime, bulk, Some(votes), work)
}
