//! The peers: nodes of one process that check what arrives.

use std::io::{BufRead, stdin};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use unbroken::{Event, Identity, Node};
use unbroken_test_support::numbered::Checker;

use super::{Args, Failure};

/// A peer, which may be started again.
struct Peer {
    identity: Identity,
    addr: SocketAddr,
    node: Node,
    checker: Arc<Mutex<Checker>>,
}

/// Starts the peers and obeys the commands on standard input.
pub fn run(args: &Args) -> Result<(), Failure> {
    let mut peers = Vec::new();
    for _ in 0..args.peers {
        let identity = Identity::generate()?;
        let checker = Arc::default();
        let node = start(args, &identity, "127.0.0.1:0".parse()?, &checker)?;
        peers.push(Peer { identity, addr: node.local_addrs()[0], node, checker });
    }
    let addrs: Vec<String> = peers.iter().map(|peer| peer.addr.to_string()).collect();
    println!("listening {}", addrs.join(" "));
    for line in stdin().lock().lines() {
        match line?.as_str() {
            "report" => report(&peers),
            "down" => {
                // All at once, as if their machine was gone.
                thread::scope(|scope| {
                    peers.iter().for_each(|peer| {
                        scope.spawn(|| peer.node.shutdown(Duration::ZERO));
                    });
                });
                println!("down");
            }
            "up" => {
                for peer in &mut peers {
                    peer.node = start(args, &peer.identity, peer.addr, &peer.checker)?;
                }
                println!("up");
            }
            other => return Err(format!("unknown command {other:?}").into()),
        }
    }
    Ok(())
}

fn start(
    args: &Args,
    identity: &Identity,
    addr: SocketAddr,
    checker: &Arc<Mutex<Checker>>,
) -> Result<Node, Failure> {
    let builder = Node::builder().configure(|config| args.configure(config));
    let node = builder.identity(identity.clone()).listen(addr).start()?;
    let (receiving, checker) = (node.clone(), Arc::clone(checker));
    thread::Builder::new().name("receiver".into()).spawn(move || {
        while let Ok(events) = receiving.recv_batch(1024, Duration::from_secs(60)) {
            let mut checker = checker.lock().unwrap_or_else(PoisonError::into_inner);
            for event in events {
                if let Event::Message(message) = event {
                    checker.take(message.lane(), &message.payload().clone().into_bytes());
                }
            }
        }
    })?;
    Ok(node)
}

fn report(peers: &[Peer]) {
    let mut received = 0;
    for (number, peer) in peers.iter().enumerate() {
        let checker = peer.checker.lock().unwrap_or_else(PoisonError::into_inner);
        received += checker.messages;
        checker.errors.iter().for_each(|error| println!("error peer {number}: {error}"));
    }
    println!("received {received}");
}
