//! message-io with its `FramedTcp` transport, whose receiver is a callback on the thread that reads. It has
//! no way to set `TCP_NODELAY` for it.

use std::ops::ControlFlow;
use std::thread;

use message_io::network::{Endpoint, NetEvent, SendStatus, Transport};
use message_io::node::{self, NodeHandler, NodeListener};

use super::{ASKED, Came, Contestant, Count, OneWay, RoundTrip, SENT, Senders, Tell, Wait};
use crate::Failure;

pub const CONTESTANT: Contestant = Contestant {
    one_way: Some(OneWay { shares: [0.06, 1.0], receive, send }),
    senders: Some(Senders { receive: receive_many, send: send_many }),
    round_trip: Some(RoundTrip { trips: 50, echo, ask }),
    ..Contestant::named("message-io")
};

fn listen(tell: Tell<'_>) -> Result<(NodeHandler<()>, NodeListener<()>), Failure> {
    let (handler, listener) = node::split::<()>();
    let (_, addr) = handler.network().listen(Transport::FramedTcp, "127.0.0.1:0")?;
    tell(addr.to_string())?;
    Ok((handler, listener))
}

fn connect(addr: &str) -> Result<(NodeHandler<()>, NodeListener<()>, Endpoint), Failure> {
    let (handler, listener) = node::split::<()>();
    let (endpoint, _) = handler.network().connect_sync(Transport::FramedTcp, addr)?;
    Ok((handler, listener, endpoint))
}

/// Sends, again as long as the library says that it cannot yet.
fn deliver(handler: &NodeHandler<()>, to: Endpoint, message: &[u8]) {
    while handler.network().send(to, message) != SendStatus::Sent {
        thread::yield_now();
    }
}

/// Runs until `each` says that it is enough.
fn messages(
    handler: NodeHandler<()>,
    listener: NodeListener<()>,
    mut each: impl FnMut(&NodeHandler<()>, Endpoint, &[u8]) -> ControlFlow<()>,
) {
    listener.for_each(move |event| {
        if let NetEvent::Message(from, message) = event.network()
            && each(&handler, from, message).is_break()
        {
            handler.stop();
        }
    });
}

fn receive(size: usize, count: u64, tell: Tell<'_>, came: Came<'_>) -> Result<(), Failure> {
    let (handler, listener) = listen(tell)?;
    let mut left = count;
    messages(handler, listener, |_, _, message| {
        assert_eq!(message.len(), size);
        came(1);
        left -= 1;
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    Ok(())
}

fn send(size: usize, count: u64, addr: &str, wait: Wait<'_>) -> Result<(), Failure> {
    let (handler, _listener, to) = connect(addr)?;
    let message = vec![7; size];
    (0..count).for_each(|_| deliver(&handler, to, &message));
    wait()
}

/// One node receives from all connections.
fn receive_many(_: usize, tell: Tell<'_>, came: Count<'_>) -> Result<(), Failure> {
    let (handler, listener) = listen(tell)?;
    messages(handler, listener, |_, _, _| {
        came(1);
        ControlFlow::Continue(())
    });
    Ok(())
}

/// One node sends on all connections.
fn send_many(threads: usize, peers: usize, addr: &str, wait: Wait<'_>) -> Result<(), Failure> {
    let (handler, listener) = node::split::<()>();
    let connect = |_| Ok(handler.network().connect_sync(Transport::FramedTcp, addr)?.0);
    let peers: Vec<_> = (0..peers).map(connect).collect::<Result<_, Failure>>()?;
    for _ in 0..threads {
        let (handler, peers) = (handler.clone(), peers.clone());
        thread::spawn(move || {
            loop {
                peers.iter().for_each(|peer| deliver(&handler, *peer, &[7; SENT]));
            }
        });
    }
    // The connections last as long as it does.
    let _listener = listener;
    wait()
}

fn echo(count: u64, tell: Tell<'_>) -> Result<(), Failure> {
    let (handler, listener) = listen(tell)?;
    let mut left = count;
    messages(handler, listener, |handler, from, message| {
        deliver(handler, from, message);
        left -= 1;
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    Ok(())
}

fn ask(count: u64, addr: &str, came: Came<'_>) -> Result<(), Failure> {
    let (handler, listener, to) = connect(addr)?;
    let mut left = count;
    deliver(&handler, to, &[7; ASKED]);
    messages(handler, listener, |handler, _, _| {
        came(1);
        left -= 1;
        if left == 0 {
            return ControlFlow::Break(());
        }
        deliver(handler, to, &[7; ASKED]);
        ControlFlow::Continue(())
    });
    Ok(())
}
