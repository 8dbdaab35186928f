//! Twenty nodes in one process pass on a rumour: each tells its peers when it hears it for the first time.

use std::error::Error;
use std::thread;
use std::time::Duration;

use unbroken::crossbeam_channel::bounded;
use unbroken::{Event, NORMAL, Node, Outgoing, PeerConfig};

const NODES: usize = 20;
/// Each node dials the one after it, and the one that is so many further on.
const STEPS: [usize; 2] = [1, 7];
const TIMEOUT: Duration = Duration::from_secs(20);

fn main() -> Result<(), Box<dyn Error>> {
    let start = |_| -> Result<Node, Box<dyn Error>> {
        Ok(Node::builder().network("gossip").listen("127.0.0.1:0".parse()?).start()?)
    };
    let nodes = (0..NODES).map(start).collect::<Result<Vec<_>, _>>()?;
    for (index, node) in nodes.iter().enumerate() {
        for step in STEPS {
            let peer = nodes.get((index + step) % NODES).and_then(|peer| peer.local_addrs().first());
            node.add_peer(PeerConfig::new(peer.ok_or("a node does not listen")?.to_string()))?;
        }
    }
    for node in &nodes {
        node.wait_for_links(2 * STEPS.len(), TIMEOUT)?;
    }

    let (heard, hears) = bounded(NODES);
    let mut relays = Vec::new();
    for (index, node) in nodes.iter().cloned().enumerate() {
        let heard = heard.clone();
        // The receiving end outlives all relays.
        let on_first = move |hops| heard.send((index, hops)).unwrap_or_default();
        relays.push(thread::Builder::new().name("relay".into()).spawn(move || relay(&node, on_first))?);
    }

    // The first node has the rumour; its own peers are one hop away.
    let first = nodes.first().ok_or("no nodes")?;
    first.broadcast(Outgoing::typed(NORMAL, &1_u32)?);
    // Every node hears of it, the first one too: from its peers.
    for _ in 0..NODES {
        let (index, hops) = hears.recv_timeout(TIMEOUT)?;
        println!("node {index:2} heard the rumour after {hops} hops");
    }

    nodes.iter().for_each(|node| node.shutdown(Duration::from_secs(1)));
    let mut copies = 0;
    for relay in relays {
        copies += relay.join().map_err(|_| "a relay panicked")?;
    }
    println!("all {NODES} nodes heard it; {copies} copies were received");
    Ok(())
}

/// Passes the rumour on until the node shuts down. Returns how often it came.
fn relay(node: &Node, on_first: impl Fn(u32)) -> usize {
    let mut copies = 0;
    while let Ok(event) = node.recv() {
        let Event::Message(mut message) = event else { continue };
        let Ok(hops) = message.decode::<u32>() else { continue };
        copies += 1;
        if copies == 1 {
            on_first(hops);
            let Ok(rumour) = Outgoing::typed(NORMAL, &(hops + 1)) else { continue };
            // Never waits, so that two nodes that tell each other cannot wait for each other.
            node.broadcast(rumour);
        }
    }
    copies
}
