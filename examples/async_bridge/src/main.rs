//! Two nodes in a program of tasks: one task sends votes, another one takes them.

// Where the guide shows it: a package has no files of the packages inside it.
#[path = "../../../src/manual/bridge.rs"]
mod bridge;

use std::error::Error;
use std::time::Duration;

use tokio::task::{JoinSet, spawn_blocking};
use unbroken::{Node, Outcome, URGENT};

const VOTES: u32 = 100;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let alice = Node::builder().listen("127.0.0.1:0".parse()?).start()?;
    let address = alice.local_addrs().first().ok_or("nobody listens")?.to_string();
    let bob = Node::builder().peer(address).start()?;
    let (node, peer) = (bob.clone(), alice.id());
    spawn_blocking(move || node.wait_linked(peer, Duration::from_secs(10))).await??;

    let mut votes = bridge::messages(&alice, URGENT, 16)?;
    let taken = tokio::spawn(async move {
        let mut sum = 0;
        for _ in 0..VOTES {
            let vote = votes.recv().await.ok_or("the node has ended")?.into_bytes();
            sum += u32::from_le_bytes(vote.as_ref().try_into().map_err(|_| "not a vote")?);
        }
        Ok::<_, &str>(sum)
    });
    let mut receipts = JoinSet::new();
    for vote in 0..VOTES {
        let bob = bob.clone();
        receipts.spawn(async move { bridge::send(&bob, peer, (URGENT, vote.to_le_bytes().to_vec())).await });
    }
    while let Some(outcome) = receipts.join_next().await {
        let outcome = outcome???;
        if outcome != Outcome::Taken {
            return Err(format!("a vote was not taken: {outcome}").into());
        }
    }
    println!("{VOTES} votes were taken; their sum is {}", taken.await??);

    // Blocks until its threads have ended.
    spawn_blocking(move || [alice, bob].iter().for_each(|node| node.shutdown(Duration::from_secs(1))))
        .await?;
    Ok(())
}
