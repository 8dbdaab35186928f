//! The child's side: a node in a namespace, that sends what it is told to and prints what it takes.

use std::io::BufRead;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use unbroken::{Config, ConnSnapshot, Event, Identity, LaneId, Node, PeerId};

use crate::net::Way;
use unbroken_test_support::numbered;

pub(crate) const CONFIG: &str = "UNBROKEN_TEST_NETNS";
pub(crate) const WHO: &str = "UNBROKEN_TEST_NETNS_WHO";
/// The size of chunks, where plain TCP takes the place of the node.
pub(crate) const PLAIN: &str = "UNBROKEN_TEST_NETNS_PLAIN";

/// The identity of a or b. Both sides know each other.
pub(crate) fn identity(who: u8) -> Identity {
    Identity::from_bytes([who; 32])
}

/// Microseconds on a clock that all processes share.
pub(crate) fn micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_micros() as u64)
}

/// The node's report about its link.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) reconnects: u64,
    pub(crate) resent: u64,
    /// Messages of ours that the peer has not taken.
    pub(crate) queued: usize,
    pub(crate) ping_interval: Duration,
    pub(crate) conns: Vec<ConnFigures>,
}

/// Its report about a connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ConnFigures {
    pub(crate) slot: u8,
    /// The other side's end.
    pub(crate) addr: SocketAddr,
    /// Bytes written to it.
    pub(crate) sent: u64,
    pub(crate) score: f64,
    /// The size of its chunks.
    pub(crate) chunk: usize,
}

pub(crate) fn run() {
    let (Ok(config), Ok(who)) = (std::env::var(CONFIG), std::env::var(WHO)) else { return };
    let config: Config = serde_json::from_str(&config).unwrap();
    let who: u8 = who.parse().unwrap();
    if let Ok(chunk) = std::env::var(PLAIN) {
        return crate::plain::run(chunk.parse().unwrap(), who == 1);
    }
    let peer = identity(3 - who).peer_id();
    let node = Node::builder().config(config).identity(identity(who)).start().unwrap();
    println!("\n@up");
    let its_node = node.clone();
    thread::spawn(move || take(&its_node));
    thread::spawn(notice_stalls);
    let mut senders = Senders::default();
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        match line.split(' ').next() {
            Some("send") => {
                let node = node.clone();
                // A node that was just started may not know its peer yet.
                while node.peer(peer).is_none() {
                    thread::sleep(Duration::from_millis(1));
                }
                senders.start(Job::parse(&line), move |lane, body| {
                    node.send(peer, (lane, body)).map(drop).map_err(|error| error.to_string())
                });
            }
            Some("hold") => senders.hold(),
            Some("figures") => {
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

/// A stream of messages to be sent, as the parent orders it.
pub(crate) struct Job {
    lane: LaneId,
    stream: u64,
    first: u64,
    every: Duration,
    len: usize,
}

impl Job {
    pub(crate) fn parse(line: &str) -> Job {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        Job {
            lane: LaneId(number(1) as u8),
            stream: number(2),
            first: number(3),
            every: Duration::from_micros(number(4)),
            len: number(5) as usize,
        }
    }

    /// Sends until it is told to stop. A message that is due while a send waits, or the process is frozen, is
    /// left out.
    fn run(&self, send: impl Fn(LaneId, Bytes) -> Result<(), String>, stop: &AtomicBool) {
        let mut next = Instant::now();
        for seq in self.first.. {
            let body = numbered::message(self.stream, seq, self.len);
            println!("@sent {} {} {seq} {}", self.lane.0, self.stream, micros());
            if let Err(error) = send(self.lane, body) {
                println!("@error refused: {error}");
                return;
            }
            next = Instant::now().max(next + self.every);
            loop {
                let left = next.saturating_duration_since(Instant::now());
                if stop.load(SeqCst) {
                    return;
                }
                if left.is_zero() {
                    break;
                }
                thread::sleep(left.min(Duration::from_millis(50)));
            }
        }
    }
}

/// The threads that send.
#[derive(Default)]
pub(crate) struct Senders {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Senders {
    pub(crate) fn start(
        &mut self,
        job: Job,
        send: impl Fn(LaneId, Bytes) -> Result<(), String> + Send + 'static,
    ) {
        self.stop.store(false, SeqCst);
        let stop = Arc::clone(&self.stop);
        self.threads.push(thread::spawn(move || job.run(send, &stop)));
    }

    pub(crate) fn hold(&mut self) {
        self.stop.store(true, SeqCst);
        self.threads.drain(..).for_each(|sender| sender.join().unwrap());
        println!("@held");
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
        let (slot, addr, sent, score, chunk) =
            (conn.slot, conn.addr, conn.bytes_sent, conn.score, conn.chunk);
        ConnFigures { slot, addr, sent, score, chunk }
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
