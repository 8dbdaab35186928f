//! A thread for each kind of input: one takes votes, one takes blocks, one listens to what happens to the
//! links. A block that takes long to process delays no vote.

use std::error::Error;
use std::thread;
use std::time::Duration;

use unbroken::{BULK, Event, LaneReceiver, Node, Outcome, URGENT};

const VOTES: usize = 500;
const BLOCKS: usize = 20;
const BLOCK_SIZE: usize = 1 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let node = Node::builder().listen("127.0.0.1:0".parse()?).start()?;
    let address = node.local_addrs().first().ok_or("nobody listens")?.to_string();
    // Each receiver is given once, and takes only what is for it.
    let votes = node.lane_receiver(URGENT).ok_or("no urgent lane")?;
    let blocks = node.lane_receiver(BULK).ok_or("no bulk lane")?;
    let events = node.event_receiver().ok_or("somebody else has the events")?;

    // They end when the node shuts down.
    let named = |name: &str| thread::Builder::new().name(name.into());
    let votes = named("votes").spawn(move || count(&votes, |_| {}))?;
    let blocks = named("blocks").spawn(move || count(&blocks, verify))?;
    let events = named("events").spawn(move || {
        let mut links = 0;
        while let Ok(event) = events.recv() {
            match event {
                Event::LinkUp { peer, .. } => {
                    links += 1;
                    println!("{peer} is linked");
                }
                Event::LinkDown { peer, .. } => println!("{peer} is gone"),
                _ => {}
            }
        }
        links
    })?;

    let peer = Node::builder().peer(address).start()?;
    peer.wait_linked(node.id(), Duration::from_secs(10))?;
    let mut receipts = Vec::new();
    for block in 0..BLOCKS {
        receipts.push(peer.send(node.id(), (BULK, vec![block as u8; BLOCK_SIZE]))?);
        for _ in 0..VOTES / BLOCKS {
            receipts.push(peer.send(node.id(), (URGENT, "a vote"))?);
        }
    }
    if !receipts.iter().all(|receipt| receipt.wait() == Outcome::Taken) {
        return Err("not everything was taken".into());
    }
    peer.shutdown(Duration::from_secs(1));
    node.shutdown(Duration::from_secs(1));

    let panicked = |_| "a thread panicked";
    let votes = votes.join().map_err(panicked)?;
    let blocks = blocks.join().map_err(panicked)?;
    let links = events.join().map_err(panicked)?;
    println!("{votes} votes, {blocks} blocks, {links} link");
    if (votes, blocks, links) == (VOTES, BLOCKS, 1) { Ok(()) } else { Err("something is missing".into()) }
}

/// Takes messages until the node shuts down. Returns how many came.
fn count(receiver: &LaneReceiver, process: impl Fn(&[u8])) -> usize {
    let mut count = 0;
    for message in receiver {
        process(&message.into_bytes());
        count += 1;
    }
    count
}

/// What takes long about a block.
fn verify(block: &[u8]) {
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    std::hint::black_box(sum);
}
