//! A proposal that goes to four validators, and the wait until enough of them have taken it: by heads,
//! and by weight.
//!
//! The bytes are encoded once and shared by all links; a slow peer delays nobody. A validator that does
//! not take its messages is no part of the quorum, however healthy its connection is.

use std::collections::HashMap;
use std::error::Error;
use std::time::Duration;

use unbroken::{Node, PeerId, URGENT};

fn main() -> Result<(), Box<dyn Error>> {
    // Three that take what comes, and one whose application hangs.
    let validators = (0..4)
        .map(|_| Ok(Node::builder().listen("127.0.0.1:0".parse()?).start()?))
        .collect::<Result<Vec<Node>, Box<dyn Error>>>()?;
    for node in validators.iter().take(3) {
        let node = node.clone();
        let take_all = move || while node.recv().is_ok() {};
        std::thread::Builder::new().name("validator".into()).spawn(take_all)?;
    }
    let weights: HashMap<PeerId, u64> = validators.iter().map(Node::id).zip([10, 20, 30, 40]).collect();

    let addresses = validators.iter().flat_map(Node::local_addrs);
    let proposer = addresses.fold(Node::builder(), |builder, addr| builder.peer(addr.to_string())).start()?;
    proposer.wait_for_links(validators.len(), Duration::from_secs(10))?;

    let names = |peers: &[PeerId]| peers.iter().map(PeerId::short).collect::<Vec<_>>().join(", ");
    let second = Duration::from_secs(1);

    let proposal = proposer.broadcast((URGENT, "block 7"));
    let progress = proposal.wait_for(3, second)?;
    println!("3 of 4 have it: {}; not yet: {}", names(&progress.taken), names(&progress.pending));

    let weight = |peer| weights.get(&peer).copied().unwrap_or(0);
    let progress = proposal.wait_for_weight(60, second, weight)?;
    println!("a weight of 60 of 100 has it: {}", names(&progress.taken));

    // More than two thirds by weight needs the one that hangs: the error says how far it came.
    match proposal.wait_for_weight(67, second, weight) {
        Ok(progress) => println!("two thirds have it: {}", names(&progress.taken)),
        Err(error) => println!("{error}; missing: {}", names(&error.progress.pending)),
    }
    Ok(())
}
