//! Two nodes in one process: one greets, the other prints what it hears.

use unbroken::{Event, Node, URGENT};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let alice = Node::builder().listen("127.0.0.1:0".parse()?).start()?;
    let bob = Node::builder().peer(alice.local_addrs()[0].to_string()).start()?;
    while let Event::LinkUp { peer, .. } | Event::Connected { peer, .. } = bob.recv()? {
        let receipt = bob.send(peer, (URGENT, "hello, Alice"))?;
        loop {
            if let Event::Message(message) = alice.recv()? {
                println!("{:?} says {:?}", message.peer(), message.into_bytes());
                break;
            }
        }
        println!("the message was {}", receipt.wait());
        break;
    }
    Ok(())
}
