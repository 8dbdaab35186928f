//! A node that has missed blocks fetches them from a peer: a few requests at a time on the bulk lane, so that
//! the path is never idle, and votes do not wait behind them. In the middle the connection is replaced.

use std::collections::VecDeque;
use std::error::Error;
use std::io::{IsTerminal, Write};
use std::time::Duration;
use std::{io, thread};

use unbroken::{BULK, Event, Node, Outgoing, PendingReply};

const BLOCKS: u64 = 200;
const BLOCK_SIZE: usize = 256 * 1024;
/// So many requests are open at once.
const OPEN: usize = 4;

fn main() -> Result<(), Box<dyn Error>> {
    let server = Node::builder().listen("127.0.0.1:0".parse()?).start()?;
    let address = server.local_addrs().first().ok_or("the server does not listen")?.to_string();
    let thread = thread::Builder::new().name("server".into()).spawn({
        let server = server.clone();
        move || serve(&server)
    })?;

    let client = Node::builder().peer(address).start()?;
    client.wait_linked(server.id(), Duration::from_secs(10))?;
    let ask = |height: u64| -> Result<PendingReply, Box<dyn Error>> {
        Ok(client.request(server.id(), Outgoing::typed(BULK, &height)?)?)
    };
    let mut open: VecDeque<_> = (0..OPEN as u64).map(ask).collect::<Result<_, _>>()?;
    let mut next = OPEN as u64;
    for height in 0..BLOCKS {
        let reply = open.pop_front().ok_or("no request is open")?.wait()?.into_bytes();
        if reply != block(height) {
            return Err(format!("block {height} is not what was asked for").into());
        }
        if next < BLOCKS {
            open.push_back(ask(next)?);
            next += 1;
        }
        if height == BLOCKS / 2 {
            // A new connection takes over; requests and half a block that are under way go on.
            client.replace(server.id())?;
        }
        show(height + 1);
    }
    let mib = (BLOCKS as usize * BLOCK_SIZE) >> 20;
    println!("{BLOCKS} blocks, {mib} MiB, all of them right");

    client.shutdown(Duration::from_secs(1));
    server.shutdown(Duration::from_secs(1));
    thread.join().map_err(|_| "the server's thread panicked")?;
    Ok(())
}

/// Answers until the node shuts down. What is no height, or too high a one, gets an empty reply.
fn serve(server: &Node) {
    while let Ok(event) = server.recv() {
        let Event::Message(mut message) = event else { continue };
        let height = message.decode::<u64>().ok().filter(|height| *height < BLOCKS);
        // A reply that is refused came too late.
        let _ = message.reply(height.map_or_else(Vec::new, block));
    }
}

fn block(height: u64) -> Vec<u8> {
    height.to_le_bytes().repeat(BLOCK_SIZE / 8)
}

/// A bar on a terminal; elsewhere a line for each tenth.
fn show(done: u64) {
    let tenths = done * 10 / BLOCKS;
    if io::stdout().is_terminal() {
        let bar = "#".repeat(done as usize * 40 / BLOCKS as usize);
        print!("\r[{bar:<40}] {done} of {BLOCKS}{}", if done == BLOCKS { "\n" } else { "" });
        let _ = io::stdout().flush();
    } else if (done * 10).is_multiple_of(BLOCKS) {
        println!("{tenths}0 %");
    }
}
