//! The child's side: a node in a namespace, that sends what it is told to and prints what it takes.

use std::io::BufRead;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use unbroken::{Config, ConnSnapshot, Event, Identity, LaneId, Node, PeerId};

use crate::net::Way;
use crate::support::numbered;

pub(crate) const CONFIG: &str = "UNBROKEN_TEST_NETNS";
pub(crate) const WHO: &str = "UNBROKEN_TEST_NETNS_WHO";

/// The identity of a or b. Both sides know each other.
pub(crate) fn identity(who: u8) -> Identity {
    Identity::from_bytes([who; 32])
}

/// Microseconds on a clock that all processes share.
pub(crate) fn micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_micros() as u64)
}

/// What the node says about its link.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) reconnects: u64,
    pub(crate) resent: u64,
    /// Messages of ours that the peer has not taken.
    pub(crate) queued: usize,
    pub(crate) ping_interval: Duration,
    pub(crate) conns: Vec<ConnFigures>,
}

/// What it says about a connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ConnFigures {
    pub(crate) slot: u8,
    /// The other side's end.
    pub(crate) addr: SocketAddr,
    /// Bytes written to it.
    pub(crate) sent: u64,
    pub(crate) score: f64,
}

pub(crate) fn run() {
    let (Ok(config), Ok(who)) = (std::env::var(CONFIG), std::env::var(WHO)) else { return };
    let config: Config = serde_json::from_str(&config).unwrap();
    let who: u8 = who.parse().unwrap();
    let peer = identity(3 - who).peer_id();
    let node = Node::builder().config(config).identity(identity(who)).start().unwrap();
    println!("\n@up");
    let its_node = node.clone();
    thread::spawn(move || take(&its_node));
    thread::spawn(notice_stalls);
    let stop = Arc::new(AtomicBool::new(false));
    let mut senders: Vec<JoinHandle<()>> = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        match words[0] {
            "send" => {
                stop.store(false, SeqCst);
                let job = Job {
                    lane: LaneId(number(1) as u8),
                    stream: number(2),
                    first: number(3),
                    every: Duration::from_micros(number(4)),
                    len: number(5) as usize,
                };
                let (node, stop) = (node.clone(), Arc::clone(&stop));
                senders.push(thread::spawn(move || job.run(&node, peer, &stop)));
            }
            "hold" => {
                stop.store(true, SeqCst);
                senders.drain(..).for_each(|sender| sender.join().unwrap());
                println!("@held");
            }
            "figures" => {
                let figures = figures(&node, peer).unwrap_or_default();
                println!("@figures {}", serde_json::to_string(&figures).unwrap());
            }
            _ => println!("@error what is {line:?}?"),
        }
    }
    node.shutdown(Duration::from_millis(100));
    std::process::exit(0);
}

fn take(node: &Node) {
    while let Ok(event) = node.recv() {
        let now = micros();
        match event {
            Event::Message(mut message) => match numbered::read(message.bytes()) {
                Ok((stream, seq)) => println!("@took {} {stream} {seq} {now}", message.lane().0),
                Err(error) => println!("@error {error}"),
            },
            event => println!("@event {now} {event:?}"),
        }
    }
}

/// Tells the story when this process does not get to run: then it is the machine that makes votes late.
fn notice_stalls() {
    const NAP: Duration = Duration::from_millis(20);
    loop {
        let before = Instant::now();
        thread::sleep(NAP);
        let late = before.elapsed().saturating_sub(NAP);
        if late > Duration::from_millis(200) {
            println!("@event {} Stalled {{ this process did not run for {late:?} }}", micros());
        }
    }
}

struct Job {
    lane: LaneId,
    stream: u64,
    first: u64,
    every: Duration,
    len: usize,
}

impl Job {
    /// Sends until it is told to stop. What is due while a send waits, or the process is frozen, is
    /// left out.
    fn run(&self, node: &Node, peer: PeerId, stop: &AtomicBool) {
        // A node that was just started may not know its peer yet.
        while node.peer(peer).is_none() && !stop.load(SeqCst) {
            thread::sleep(Duration::from_millis(1));
        }
        let mut next = Instant::now();
        for seq in self.first.. {
            if stop.load(SeqCst) {
                return;
            }
            let body = numbered::message(self.stream, seq, self.len);
            println!("@sent {} {} {seq} {}", self.lane.0, self.stream, micros());
            if let Err(error) = node.send(peer, (self.lane, body)) {
                println!("@error refused: {error}");
                return;
            }
            next = Instant::now().max(next + self.every);
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }
}

impl Figures {
    /// The connections that go by this way.
    pub(crate) fn by(&self, way: Way) -> impl Iterator<Item = &ConnFigures> {
        self.conns.iter().filter(move |conn| conn.addr.to_string().starts_with(way.prefix()))
    }
}

impl ConnFigures {
    fn of(conn: &ConnSnapshot) -> Self {
        ConnFigures { slot: conn.slot, addr: conn.addr, sent: conn.bytes_sent, score: conn.score }
    }
}

fn figures(node: &Node, peer: PeerId) -> Option<Figures> {
    let peer = node.peer(peer)?;
    Some(Figures {
        reconnects: peer.reconnects,
        resent: peer.lanes.iter().map(|lane| lane.resent_bytes).sum(),
        queued: peer.lanes.iter().map(|lane| lane.queued_messages).sum(),
        ping_interval: Duration::from_secs_f64(peer.ping_interval_ms.unwrap_or_default() / 1000.0),
        conns: peer.connections.iter().map(ConnFigures::of).collect(),
    })
}
