//! A server that answers typed requests, and a client with several of them open at once.
//!
//! Requests and replies are ordinary serde types. Each request has a deadline; it survives the loss of
//! connections, and ends in exactly one way: a reply, or a reason why there is none.

use std::error::Error;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use unbroken::{Event, Message, NORMAL, Node, Outgoing, PendingReply, RequestError, codec};

#[derive(Debug, Serialize, Deserialize)]
enum Request {
    /// The block at this height.
    Block(u64),
    /// The height of the chain.
    Height,
    /// Something that takes the server too long.
    Hard,
}

#[derive(Debug, Serialize, Deserialize)]
enum Reply {
    Block { height: u64, transactions: Vec<String> },
    Height(u64),
    Refused(String),
}

fn main() -> Result<(), Box<dyn Error>> {
    let server = Node::builder().listen("127.0.0.1:0".parse()?).start()?;
    let address = server.local_addrs().first().ok_or("the server does not listen")?.to_string();
    let thread = std::thread::Builder::new().name("server".into()).spawn({
        let server = server.clone();
        move || serve(&server).map_err(|error| error.to_string())
    })?;

    let client = Node::builder().peer(address).start()?;
    let peer = server.id();
    client.wait_linked(peer, Duration::from_secs(10))?;

    // Many at once: none waits for the others, and each is waited for where its reply is needed.
    let ask = |request: &Request| -> Result<PendingReply, Box<dyn Error>> {
        Ok(client.request(peer, Outgoing::typed(NORMAL, request)?)?)
    };
    let height = ask(&Request::Height)?;
    let blocks = (7..10).map(|height| ask(&Request::Block(height))).collect::<Result<Vec<_>, _>>()?;
    let too_high = ask(&Request::Block(1_000))?;
    // One with a deadline of its own. The server will not make it.
    let hard =
        client.request_timeout(peer, Outgoing::typed(NORMAL, &Request::Hard)?, Duration::from_millis(300))?;

    println!("height: {:?}", answer(height)?);
    for block in blocks {
        println!("block: {:?}", answer(block)?);
    }
    println!("too high: {:?}", answer(too_high)?);
    match hard.wait() {
        Err(RequestError::Timeout) => println!("hard: no reply within 300 ms, as expected"),
        other => println!("hard: {other:?}"),
    }

    client.shutdown(Duration::from_secs(1));
    server.shutdown(Duration::from_secs(1));
    thread.join().map_err(|_| "the server's thread panicked")??;
    Ok(())
}

/// Waits for a reply and decodes it.
fn answer(pending: PendingReply) -> Result<Reply, Box<dyn Error>> {
    Ok(codec::decode(&pending.wait()?.into_bytes())?)
}

/// Answers requests until the node shuts down.
fn serve(server: &Node) -> Result<(), Box<dyn Error>> {
    // Requests can be kept and answered later, in any order, by any thread.
    let mut unanswered = Vec::new();
    while let Ok(event) = server.recv() {
        let Event::Message(mut message) = event else { continue };
        let reply = match message.decode() {
            Ok(Request::Height) => Reply::Height(42),
            Ok(Request::Block(height)) if height <= 42 => {
                Reply::Block { height, transactions: vec![format!("coinbase of {height}")] }
            }
            Ok(Request::Block(height)) => Reply::Refused(format!("there is no block {height} yet")),
            Ok(Request::Hard) => {
                unanswered.push(message);
                continue;
            }
            Err(error) => Reply::Refused(error.to_string()),
        };
        // A reply that comes too late is refused here: nobody waits any longer.
        if let Err(error) = message.reply(codec::encode(&reply)?) {
            eprintln!("not answered: {error}");
        }
    }
    let abandoned = unanswered.iter().filter(|message: &&Message| !message.is_awaited()).count();
    println!("server: {abandoned} of {} unanswered requests are no longer waited for", unanswered.len());
    Ok(())
}
