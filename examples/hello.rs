//! Two nodes in one process: one greets, the other prints what it hears.

use std::time::Duration;

use unbroken::{Node, URGENT};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let alice = Node::builder().listen("127.0.0.1:0".parse()?).start()?;
    let address = alice.local_addrs().first().ok_or("nobody listens")?.to_string();
    let bob = Node::builder().peer(address).start()?;

    bob.wait_linked(alice.id(), Duration::from_secs(10))?;
    // Whatever happens to the connection from here on, the greeting arrives, and once.
    let receipt = bob.send(alice.id(), (URGENT, "hello, Alice"))?;

    let greeting = alice.lane_receiver(URGENT).ok_or("no urgent lane")?.recv()?.into_bytes();
    println!("Alice heard {greeting:?}; Bob's receipt says: {}", receipt.wait());
    Ok(())
}
