//! unbroken with its defaults, encrypted and in plaintext: receipts and acknowledgements on, `Node::send` for
//! each message, received in batches by the receiver of the lane.

use std::thread;
use std::time::Duration;

use bytes::Bytes;
use unbroken::{BULK, Builder, Encryption, Event, LaneId, NORMAL, Node, PeerConfig, PeerId, URGENT};

use super::{
    ASKED, BROADCAST, Broadcast, Came, Connections, Contestant, Count, Idle, OneWay, RoundTrip, SENT,
    Senders, Shape, Tell, Vote, Wait, Work, on_threads,
};
use crate::Failure;

pub const PLAINTEXT: Contestant = Contestant {
    one_way: Some(OneWay {
        shares: [0.4, 1.0],
        receive: |size, count, tell, came| receive(Encryption::Plaintext, size, count, tell, came),
        send: |size, count, addr, wait| send(Encryption::Plaintext, 1, size, count, addr, wait),
    }),
    senders: Some(Senders {
        receive: |peers, tell, came| receive_many(Encryption::Plaintext, peers, tell, came),
        send: |threads, peers, addrs, wait| send_many(Encryption::Plaintext, threads, peers, addrs, wait),
    }),
    round_trip: Some(RoundTrip {
        trips: 10_000,
        echo: |count, tell| echo(Encryption::Plaintext, count, tell),
        ask: |count, addr, came| ask(Encryption::Plaintext, count, addr, came),
    }),
    vote: Some(Vote {
        serve: |_, tell, came| serve(Encryption::Plaintext, tell, came),
        vote: |connections, addr, work| vote(Encryption::Plaintext, connections, addr, work),
    }),
    broadcast: Some(Broadcast {
        broadcast: |peers, tell, work| broadcast(Encryption::Plaintext, peers, tell, work),
        peers: |peers, addr| broadcast_peers(Encryption::Plaintext, peers, addr),
    }),
    idle: Some(Idle {
        shapes: &[Shape::OneAccepts, Shape::OneDials],
        accept: |shape, count, tell, wait| idle_accept(Encryption::Plaintext, shape, count, tell, wait),
        dial: |shape, count, addrs, ready, wait| {
            idle_dial(Encryption::Plaintext, shape, count, addrs, ready, wait)
        },
    }),
    ..Contestant::named("unbroken plaintext")
};

pub const ENCRYPTED: Contestant = Contestant {
    one_way: Some(OneWay {
        shares: [0.4, 1.0],
        receive: |size, count, tell, came| receive(Encryption::Noise, size, count, tell, came),
        send: |size, count, addr, wait| send(Encryption::Noise, 1, size, count, addr, wait),
    }),
    senders: Some(Senders {
        receive: |peers, tell, came| receive_many(Encryption::Noise, peers, tell, came),
        send: |threads, peers, addrs, wait| send_many(Encryption::Noise, threads, peers, addrs, wait),
    }),
    round_trip: Some(RoundTrip {
        trips: 10_000,
        echo: |count, tell| echo(Encryption::Noise, count, tell),
        ask: |count, addr, came| ask(Encryption::Noise, count, addr, came),
    }),
    vote: Some(Vote {
        serve: |_, tell, came| serve(Encryption::Noise, tell, came),
        vote: |connections, addr, work| vote(Encryption::Noise, connections, addr, work),
    }),
    broadcast: Some(Broadcast {
        broadcast: |peers, tell, work| broadcast(Encryption::Noise, peers, tell, work),
        peers: |peers, addr| broadcast_peers(Encryption::Noise, peers, addr),
    }),
    idle: Some(Idle {
        shapes: &[Shape::OneAccepts, Shape::OneDials],
        accept: |shape, count, tell, wait| idle_accept(Encryption::Noise, shape, count, tell, wait),
        dial: |shape, count, addrs, ready, wait| {
            idle_dial(Encryption::Noise, shape, count, addrs, ready, wait)
        },
    }),
    ..Contestant::named("unbroken encrypted")
};

pub const MANY: Contestant = Contestant {
    one_way: Some(OneWay {
        shares: [0.4, 1.0],
        receive: |size, count, tell, came| receive(Encryption::Plaintext, size, count, tell, came),
        send: |size, count, addr, wait| send(Encryption::Plaintext, SENT_AT_ONCE, size, count, addr, wait),
    }),
    ..Contestant::named("unbroken plaintext, send_many")
};

/// Messages in one call of `send_many`.
const SENT_AT_ONCE: u64 = 128;

/// Messages that are received at once, at most.
const BATCH: usize = 1024;

fn lane(size: usize) -> LaneId {
    if size >= 16 * 1024 { BULK } else { NORMAL }
}

/// How long connections and acknowledgements may take before a run fails.
const LONG: Duration = Duration::from_secs(60);

/// The defaults, but for the limits of connections from one address: all come from this one.
fn builder(encryption: Encryption) -> Builder {
    Node::builder().configure(|config| {
        config.encryption = encryption;
        config.admission.exempt = ["127.0.0.0/8"].iter().filter_map(|network| network.parse().ok()).collect();
    })
}

/// A node that listens, and its address.
fn listening(encryption: Encryption) -> Result<(Node, String), Failure> {
    let node = builder(encryption).listen("127.0.0.1:0".parse()?).start()?;
    let addr = node.local_addrs().first().ok_or("the node has no address, expected one")?.to_string();
    Ok((node, addr))
}

fn listen(encryption: Encryption, tell: Tell<'_>) -> Result<Node, Failure> {
    let (node, addr) = listening(encryption)?;
    tell(addr)?;
    Ok(node)
}

/// So many nodes that listen. Tells their addresses, with spaces between them.
fn listen_many(encryption: Encryption, count: usize, tell: Tell<'_>) -> Result<Vec<Node>, Failure> {
    let nodes = (0..count).map(|_| listening(encryption)).collect::<Result<Vec<_>, _>>()?;
    let (nodes, addrs): (Vec<_>, Vec<_>) = nodes.into_iter().unzip();
    tell(addrs.join(" "))?;
    Ok(nodes)
}

fn dial(encryption: Encryption, addr: &str) -> Result<(Node, PeerId), Failure> {
    let node = builder(encryption).peer(addr).start()?;
    linked(node)
}

fn linked(node: Node) -> Result<(Node, PeerId), Failure> {
    let peers = node.wait_for_links(1, LONG)?;
    let peer = peers.first().copied().ok_or("there is no peer, expected one")?;
    Ok((node, peer))
}

fn receive(
    encryption: Encryption,
    size: usize,
    count: u64,
    tell: Tell<'_>,
    came: Came<'_>,
) -> Result<(), Failure> {
    let node = listen(encryption, tell)?;
    let receiver = node.lane_receiver(lane(size)).ok_or("the lane has a receiver")?;
    let mut left = count;
    while left > 0 {
        let messages = receiver.recv_batch(BATCH)?;
        assert!(messages.iter().all(|message| message.len() == size));
        came(messages.len() as u64);
        left -= messages.len() as u64;
    }
    Ok(())
}

fn send(
    encryption: Encryption,
    at_once: u64,
    size: usize,
    count: u64,
    addr: &str,
    wait: Wait<'_>,
) -> Result<(), Failure> {
    let (node, peer) = dial(encryption, addr)?;
    let (peer, lane, message) = (node.peer_handle(peer), lane(size), Bytes::from(vec![7; size]));
    match at_once {
        1 => {
            for _ in 0..count {
                peer.send((lane, message.clone()))?;
            }
        }
        _ => {
            let mut left = count;
            while left > 0 {
                let some = left.min(at_once);
                peer.send_many((0..some).map(|_| (lane, message.clone())))?;
                left -= some;
            }
        }
    }
    wait()
}

fn echo(encryption: Encryption, count: u64, tell: Tell<'_>) -> Result<(), Failure> {
    let node = listen(encryption, tell)?;
    let mut left = count;
    while left > 0 {
        if let Event::Message(mut message) = node.recv()? {
            let body = message.payload().clone().into_bytes();
            message.reply(body)?;
            left -= 1;
        }
    }
    // The last reply is taken before it ends.
    node.shutdown(Duration::from_secs(10));
    Ok(())
}

fn ask(encryption: Encryption, count: u64, addr: &str, came: Came<'_>) -> Result<(), Failure> {
    let (node, peer) = dial(encryption, addr)?;
    let message = Bytes::from(vec![7; ASKED]);
    for _ in 0..count {
        node.request(peer, (URGENT, message.clone()))?.wait()?;
        came(1);
    }
    Ok(())
}

// --- many threads that send -------------------------------------------------------------------------

/// A node for each peer, with a thread that receives.
fn receive_many(
    encryption: Encryption,
    peers: usize,
    tell: Tell<'_>,
    came: Count<'_>,
) -> Result<(), Failure> {
    let nodes = listen_many(encryption, peers, tell)?;
    on_threads(&nodes, |node| {
        let receiver = node.lane_receiver(NORMAL).ok_or("the lane has no receiver, expected one")?;
        loop {
            came(receiver.recv_batch(BATCH)?.len() as u64);
        }
    })
}

fn send_many(
    encryption: Encryption,
    threads: usize,
    peers: usize,
    addrs: &str,
    wait: Wait<'_>,
) -> Result<(), Failure> {
    let node = addrs.split(' ').fold(builder(encryption), |builder, addr| builder.peer(addr)).start()?;
    let peers = node.wait_for_links(peers, LONG)?;
    let message = Bytes::from(vec![7; SENT]);
    for _ in 0..threads {
        let handles: Vec<_> = peers.iter().map(|peer| node.peer_handle(*peer)).collect();
        let message = message.clone();
        thread::spawn(
            move || {
                while handles.iter().all(|peer| peer.send((NORMAL, message.clone())).is_ok()) {}
            },
        );
    }
    wait()
}

// --- votes beside bulk messages -------------------------------------------------------------------

fn serve(encryption: Encryption, tell: Tell<'_>, came: Came<'_>) -> Result<(), Failure> {
    let node = listen(encryption, tell)?;
    let bulk = node.lane_receiver(BULK).ok_or("the bulk lane has no receiver, expected one")?;
    thread::spawn(move || {
        for event in node.events() {
            if let Event::Message(mut message) = event {
                let body = message.payload().clone().into_bytes();
                if message.reply(body).is_err() {
                    return;
                }
            }
        }
    });
    loop {
        came(bulk.recv_batch(BATCH)?.len() as u64);
    }
}

fn vote(encryption: Encryption, connections: Connections, addr: &str, work: Work<'_>) -> Result<(), Failure> {
    let wanted = match connections {
        Connections::One => 1,
        Connections::Two => 2,
    };
    let node = builder(encryption).configure(|config| config.connections = wanted).peer(addr).start()?;
    let (node, peer) = linked(node)?;
    let mut connected = 0;
    while connected < wanted {
        let event = node.recv_timeout(LONG)?;
        match event.ok_or_else(|| format!("{connected} connections stand, expected {wanted}"))? {
            Event::Connected { .. } => connected += 1,
            _ => continue,
        }
    }
    let (handle, bulk) = (node.peer_handle(peer), Bytes::from(vec![7; super::BULK]));
    thread::spawn(move || while handle.send((BULK, bulk.clone())).is_ok() {});
    let vote = Bytes::from(vec![7; ASKED]);
    work(&mut || Ok(node.request(peer, (URGENT, vote.clone()))?.wait().map(drop)?))
}

// --- broadcast ------------------------------------------------------------------------------------

fn broadcast(encryption: Encryption, peers: usize, tell: Tell<'_>, work: Work<'_>) -> Result<(), Failure> {
    let node = listen(encryption, tell)?;
    node.wait_for_links(peers, LONG)?;
    let message = Bytes::from(vec![7; BROADCAST]);
    work(&mut || Ok(node.broadcast((URGENT, message.clone())).wait_for(peers, LONG).map(drop)?))
}

/// A node for each peer, with a thread that receives: what a process of its own would have.
fn broadcast_peers(encryption: Encryption, peers: usize, addr: &str) -> Result<(), Failure> {
    let mut receiving = Vec::new();
    for _ in 0..peers {
        let node = builder(encryption).peer(addr).start()?;
        let receiver = node.lane_receiver(URGENT).ok_or("the urgent lane has no receiver, expected one")?;
        receiving.push(thread::spawn(move || {
            // The node lives as long as its receiver.
            let _node = node;
            receiver.iter().for_each(drop);
        }));
    }
    for thread in receiving {
        thread.join().map_err(|_| "a receiver panicked, expected it to end with the process")?;
    }
    Ok(())
}

// --- idle connections -----------------------------------------------------------------------------

fn idle_accept(
    encryption: Encryption,
    shape: Shape,
    count: usize,
    tell: Tell<'_>,
    wait: Wait<'_>,
) -> Result<(), Failure> {
    let (nodes, links) = shape.accepting(count);
    let nodes = listen_many(encryption, nodes, tell)?;
    for node in &nodes {
        node.wait_for_links(links, LONG)?;
    }
    wait()
}

fn idle_dial(
    encryption: Encryption,
    shape: Shape,
    count: usize,
    addrs: &str,
    ready: &mut dyn FnMut(),
    wait: Wait<'_>,
) -> Result<(), Failure> {
    let (nodes, links) = shape.dialling(count);
    let nodes: Vec<_> = (0..nodes).map(|_| builder(encryption).start()).collect::<Result<_, _>>()?;
    ready();
    for node in &nodes {
        for addr in addrs.split(' ') {
            node.add_peer(PeerConfig { address: addr.to_owned(), ..PeerConfig::default() })?;
        }
    }
    for node in &nodes {
        node.wait_for_links(links, LONG)?;
    }
    wait()
}
