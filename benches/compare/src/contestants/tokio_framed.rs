//! tokio with `LengthDelimitedCodec`, on a runtime of the current thread: messages are fed to the sink, which
//! writes when its buffer is full.

use bytes::Bytes;
use futures_util::SinkExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio_stream::StreamExt;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use super::{ASKED, Came, Contestant, OneWay, RoundTrip, Tell, Wait};
use crate::Failure;

pub const CONTESTANT: Contestant = Contestant {
    one_way: Some(OneWay { shares: [0.4, 1.0], receive, send }),
    round_trip: Some(RoundTrip { trips: 10_000, echo, ask }),
    ..Contestant::named("tokio framed")
};

fn runtime() -> Result<Runtime, Failure> {
    Ok(Builder::new_current_thread().enable_io().build()?)
}

fn framed(socket: TcpStream) -> Result<Framed<TcpStream, LengthDelimitedCodec>, Failure> {
    socket.set_nodelay(true)?;
    Ok(LengthDelimitedCodec::builder().max_frame_length(64 << 20).new_framed(socket))
}

async fn accept(tell: Tell<'_>) -> Result<Framed<TcpStream, LengthDelimitedCodec>, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    tell(listener.local_addr()?.to_string())?;
    framed(listener.accept().await?.0)
}

fn receive(size: usize, count: u64, tell: Tell<'_>, came: Came<'_>) -> Result<(), Failure> {
    runtime()?.block_on(async {
        let mut socket = accept(tell).await?;
        for _ in 0..count {
            assert_eq!(socket.next().await.ok_or("the end")??.len(), size);
            came(1);
        }
        Ok(())
    })
}

fn send(size: usize, count: u64, addr: &str, wait: Wait<'_>) -> Result<(), Failure> {
    runtime()?.block_on(async {
        let mut socket = framed(TcpStream::connect(addr).await?)?;
        let message = Bytes::from(vec![7; size]);
        for _ in 0..count {
            socket.feed(message.clone()).await?;
        }
        SinkExt::<Bytes>::flush(&mut socket).await?;
        wait()
    })
}

fn echo(count: u64, tell: Tell<'_>) -> Result<(), Failure> {
    runtime()?.block_on(async {
        let mut socket = accept(tell).await?;
        for _ in 0..count {
            let message = socket.next().await.ok_or("the end")??;
            socket.send(message.freeze()).await?;
        }
        Ok(())
    })
}

fn ask(count: u64, addr: &str, came: Came<'_>) -> Result<(), Failure> {
    runtime()?.block_on(async {
        let mut socket = framed(TcpStream::connect(addr).await?)?;
        let message = Bytes::from(vec![7; ASKED]);
        for _ in 0..count {
            socket.send(message.clone()).await?;
            socket.next().await.ok_or("the end")??;
            came(1);
        }
        Ok(())
    })
}
