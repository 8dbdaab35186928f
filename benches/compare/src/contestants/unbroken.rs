//! unbroken with its defaults, encrypted and in plaintext: receipts and acknowledgements on, `Node::send` for
//! each message, received in batches by the receiver of the lane.

use std::time::Duration;

use bytes::Bytes;
use unbroken::{BULK, Encryption, Event, LaneId, NORMAL, Node, PeerId, URGENT};

use super::{ASKED, Came, Contestant, OneWay, RoundTrip, Tell, Wait};
use crate::Failure;

pub const PLAINTEXT: Contestant = Contestant {
    one_way: Some(OneWay {
        shares: [0.4, 1.0],
        receive: |size, count, tell, came| receive(Encryption::Plaintext, size, count, tell, came),
        send: |size, count, addr, wait| send(Encryption::Plaintext, 1, size, count, addr, wait),
    }),
    round_trip: Some(RoundTrip {
        trips: 10_000,
        echo: |count, tell| echo(Encryption::Plaintext, count, tell),
        ask: |count, addr, came| ask(Encryption::Plaintext, count, addr, came),
    }),
    ..Contestant::named("unbroken plaintext")
};

pub const ENCRYPTED: Contestant = Contestant {
    one_way: Some(OneWay {
        shares: [0.4, 1.0],
        receive: |size, count, tell, came| receive(Encryption::Noise, size, count, tell, came),
        send: |size, count, addr, wait| send(Encryption::Noise, 1, size, count, addr, wait),
    }),
    round_trip: Some(RoundTrip {
        trips: 10_000,
        echo: |count, tell| echo(Encryption::Noise, count, tell),
        ask: |count, addr, came| ask(Encryption::Noise, count, addr, came),
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

fn listen(encryption: Encryption, tell: Tell<'_>) -> Result<Node, Failure> {
    let builder = Node::builder().configure(|config| config.encryption = encryption);
    let node = builder.listen("127.0.0.1:0".parse()?).start()?;
    tell(node.local_addrs().first().ok_or("no address")?.to_string())?;
    Ok(node)
}

fn dial(encryption: Encryption, addr: &str) -> Result<(Node, PeerId), Failure> {
    let node = Node::builder().configure(|config| config.encryption = encryption).peer(addr).start()?;
    node.wait_for_links(1, Duration::from_secs(30))?;
    let peer = node.peers().iter().find_map(|peer| peer.peer).ok_or("no peer")?;
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
