//! Two nodes in one process: one greets, the other prints what it hears.

use unbroken::{Event, Node, URGENT};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let alice = Node::builder().listen("127.0.0.1:0".parse()?).start()?;
    let address = alice.local_addrs().first().ok_or("nobody listens")?.to_string();
    let bob = Node::builder().peer(address).start()?;

    let peer = loop {
        if let Event::LinkUp { peer, .. } | Event::Connected { peer, .. } = bob.recv()? {
            break peer;
        }
    };
    // Whatever happens to the connection from here on, the greeting arrives, and once.
    let receipt = bob.send(peer, (URGENT, "hello, Alice"))?;

    let greeting = alice.lane_receiver(URGENT).ok_or("no urgent lane")?.recv()?.into_bytes();
    println!("Alice heard {greeting:?}; Bob's receipt says: {}", receipt.wait());
    Ok(())
}
