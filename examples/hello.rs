//! Two nodes in one process: one greets, the other prints what it hears.

use unbroken::{Event, Node, URGENT};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let alice = Node::builder().listen("127.0.0.1:0".parse()?).start()?;
    let bob = Node::builder().peer(alice.local_addrs()[0].to_string()).start()?;

    // Whatever happens to the connection from here on, the greeting arrives, and once.
    let Event::Connected { peer, .. } = bob.recv()? else { return Err("not connected".into()) };
    let receipt = bob.send(peer, (URGENT, "hello, Alice"))?;

    while let event = alice.recv()? {
        if let Event::Message(message) = event {
            println!("{} says {:?}", message.peer().short(), message.into_bytes());
            break;
        }
    }
    println!("the greeting was {}", receipt.wait());
    Ok(())
}
