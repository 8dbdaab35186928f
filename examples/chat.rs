//! A chat: each line of standard input goes to all peers, and what they say is printed with their names. In
//! several terminals, where each dials those that were started before it:
//!
//! ```text
//! cargo run --example chat -- alice 127.0.0.1:7001
//! cargo run --example chat -- bob   127.0.0.1:7002 127.0.0.1:7001
//! ```
//!
//! Stop one with Ctrl-Z, talk on, and let it continue: it hears everything that it has missed, once. Ctrl-D
//! ends it. Without arguments three talk in one process, and the program checks what each of them has heard.

use std::collections::BTreeSet;
use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;
use std::{env, io, thread};

use serde::{Deserialize, Serialize};
use unbroken::crossbeam_channel::{Receiver, bounded, select};
use unbroken::{Event, NORMAL, Node, Outgoing, PeerId};

/// What the nodes send to each other: any serde type. An action is what follows `/me`, as in `/me waves`.
#[derive(Debug, Serialize, Deserialize)]
enum Say {
    Line(String),
    Action(String),
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let (name, listen, peers) = match args.as_slice() {
        [] => return demo(),
        [name, listen, peers @ ..] => (name, listen, peers),
        [_] => return Err("usage: chat [NAME ADDRESS [PEER ADDRESS]...]".into()),
    };
    let node = start(name, listen.parse()?, peers)?;
    chat(&node, &stdin_lines()?, |text| println!("{text}"))?;
    node.shutdown(Duration::from_secs(1)); // What was said last still goes out.
    Ok(())
}

/// Starts a node that shows `name` to its peers. Both ends of a link must name the same network.
fn start(name: &str, listen: SocketAddr, peers: &[String]) -> Result<Node, Box<dyn Error>> {
    let builder = Node::builder().network("chat").configure(|config| config.name = name.into());
    Ok(builder.listen(listen).peers(peers.iter().cloned()).start()?)
}

/// Says the lines and prints the events, until the lines end. One thread does both: nothing here waits for a
/// peer.
fn chat(node: &Node, lines: &Receiver<String>, mut print: impl FnMut(String)) -> Result<(), Box<dyn Error>> {
    loop {
        select! {
            // One token may stand for several events.
            recv(node.ready()) -> _ => while let Some(event) = node.try_recv()? {
                text_of(node, event).into_iter().for_each(&mut print);
            },
            recv(lines) -> line => {
                let Ok(line) = line else { return Ok(()) };
                say(node, &line, &mut print)?;
            }
        }
    }
}

/// Sends a line to all peers. Those that are away get it when they are back.
fn say(node: &Node, line: &str, mut print: impl FnMut(String)) -> Result<(), Box<dyn Error>> {
    let say = match line.strip_prefix("/me ") {
        Some(action) => Say::Action(action.into()),
        None => Say::Line(line.into()),
    };
    // Never waits: a peer that is away too long to keep more for is in `refused`.
    for (peer, why) in node.broadcast(Outgoing::typed(NORMAL, &say)?).refused() {
        print(format!("* not sent to {}: {why}", name_of(node, *peer)));
    }
    Ok(())
}

/// The line that an event is worth. The library acts on all of them by itself.
fn text_of(node: &Node, event: Event) -> Option<String> {
    Some(match event {
        Event::Message(mut message) => {
            let name = name_of(node, message.peer());
            match message.decode() {
                Ok(Say::Line(line)) => format!("{name}: {}", printable(&line)),
                Ok(Say::Action(action)) => format!("* {name} {}", printable(&action)),
                Err(error) => format!("* {name} said something strange: {error}"),
            }
        }
        Event::LinkUp { peer, .. } => format!("* {} ({}) is here", name_of(node, peer), peer.short()),
        Event::LinkDown { peer, reason } => format!("* {} is away: {reason}", name_of(node, peer)),
        Event::DialFailed { .. } | Event::Refused { .. } => format!("* {event}"),
        _ => return None,
    })
}

/// The name that a peer gave. It may be anything; what a peer has proven is its id.
fn name_of(node: &Node, peer: PeerId) -> String {
    node.peer(peer).map(|peer| printable(&peer.name)).unwrap_or_else(|| peer.short())
}

/// A peer's text must not move the cursor.
fn printable(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).collect()
}

/// The lines of standard input, read on a thread of their own: a read cannot be selected on.
fn stdin_lines() -> io::Result<Receiver<String>> {
    let (sender, lines) = bounded(16);
    let read = move || io::stdin().lines().map_while(Result::ok).try_for_each(|line| sender.send(line));
    thread::Builder::new().name("stdin".into()).spawn(read)?;
    Ok(lines)
}

/// Three chats in one process. An error if one of them does not hear what the others say.
fn demo() -> Result<(), Box<dyn Error>> {
    const NAMES: [&str; 3] = ["alice", "bob", "carol"];
    const TIMEOUT: Duration = Duration::from_secs(20);
    let (mut nodes, mut addresses) = (Vec::new(), Vec::new());
    for name in NAMES {
        nodes.push(start(name, "127.0.0.1:0".parse()?, &addresses)?);
        addresses.extend(nodes.last().into_iter().flat_map(Node::local_addrs).map(SocketAddr::to_string));
    }
    nodes.iter().try_for_each(|node| node.wait_for_links(NAMES.len() - 1, TIMEOUT).map(drop))?;
    let ((printed, prints), mut chats, mut missing) = (bounded(64), Vec::new(), BTreeSet::new());
    for (name, node) in NAMES.into_iter().zip(nodes.clone()) {
        let (say, lines) = bounded(2);
        say.send("hello".into())?;
        say.send("/me waves".into())?;
        for other in NAMES.into_iter().filter(|other| *other != name) {
            missing.extend([(other, format!("{name}: hello")), (other, format!("* {name} waves"))]);
        }
        let printed = printed.clone();
        let print = move |text| printed.send((name, text)).unwrap_or_default();
        let run = move || chat(&node, &lines, print).map_err(|error| error.to_string());
        chats.push((say, thread::Builder::new().name(name.into()).spawn(run)?));
    }
    while !missing.is_empty() {
        let line = prints.recv_timeout(TIMEOUT).map_err(|_| format!("not heard: {missing:?}"))?;
        println!("{:>5} | {}", line.0, line.1);
        missing.remove(&line);
    }
    for (say, chat) in chats {
        drop(say); // The end of its lines.
        chat.join().map_err(|_| "a chat panicked")??;
    }
    nodes.iter().for_each(|node| node.shutdown(Duration::from_secs(1)));
    println!("all {} heard each other", NAMES.len());
    Ok(())
}
