//! A node in a process of its own, to be frozen, killed and restarted: the test binary runs itself with
//! the name of a hidden test.
//!
//! ```ignore
//! #[test]
//! #[ignore = "helper: child process"]
//! fn child_process() {
//!     support::child::run();
//! }
//! ```

use std::io::BufRead;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use unbroken::{Config, Event, Identity, LaneId, Message, Node, Outgoing};

use super::cluster::{TIMEOUT, first_addr};
use super::numbered;
use super::process::Child;

const CONFIG: &str = "UNBROKEN_TEST_CHILD";
const SECRET: &str = "UNBROKEN_TEST_SECRET";

/// The parent's handle.
pub struct ChildNode {
    pub child: Child,
    pub addr: SocketAddr,
    /// So many of the lines that were skipped were looked through for messages.
    passed: usize,
}

impl ChildNode {
    /// Starts a node with this identity. It takes nothing until it is told to.
    pub fn start(config: &Config, identity: &Identity) -> ChildNode {
        ChildNode::start_by(Child::current_exe().expect("this binary"), config, identity)
    }

    /// The same in another build of this binary.
    pub fn start_by(mut command: Command, config: &Config, identity: &Identity) -> ChildNode {
        command.args(["--exact", "child_process", "--ignored", "--nocapture", "--test-threads", "1"]);
        command.env(CONFIG, serde_json::to_string(config).expect("a config"));
        let secret: Vec<String> = identity.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        command.env(SECRET, secret.concat());
        let mut child = Child::spawn(command).expect("a child process");
        let line = child.wait_line(TIMEOUT, |line| line.contains("@listen "));
        let line = line.expect("the child listens");
        let addr = line.split("@listen ").nth(1).and_then(|addr| addr.parse().ok());
        ChildNode { child, addr: addr.expect("an address"), passed: 0 }
    }

    /// Takes `n` messages, one after the other, and keeps those of lanes that wait for `done`.
    pub fn take(&mut self, n: usize) -> Vec<Taken> {
        self.child.send_line(&format!("take {n}")).expect("the child runs");
        (0..n).map(|_| self.next_taken()).collect()
    }

    /// Takes everything from now on.
    pub fn take_all(&mut self) {
        self.child.send_line("drain").expect("the child runs");
    }

    /// Lets go of everything that `take` has kept.
    pub fn done(&mut self) {
        self.child.send_line("done").expect("the child runs");
        self.line("@done");
    }

    /// Sends numbered messages to the peer that sent the last message, from 0 on.
    pub fn send(&mut self, lane: LaneId, stream: u64, count: u64, len: usize) {
        self.child.send_line(&format!("send {} {stream} {count} {len}", lane.0)).expect("the child runs");
    }

    /// Replaces the connections to the only peer.
    pub fn replace(&mut self) {
        self.child.send_line("replace").expect("the child runs");
        self.line("@replacing");
    }

    /// Answers the first request that was taken and waits.
    pub fn reply(&mut self) -> String {
        self.child.send_line("reply").expect("the child runs");
        self.line("@replied")
    }

    /// The next message that the child has taken.
    pub fn next_taken(&mut self) -> Taken {
        // Another command may have passed over it while it waited for its own answer.
        let mut passed = self.child.skipped().iter().enumerate().skip(self.passed);
        let found = passed.find(|(_, line)| line.contains("@took "));
        let line = match found.map(|(at, line)| (at, line.clone())) {
            Some((at, line)) => {
                self.passed = at + 1;
                line
            }
            None => {
                self.passed = self.child.skipped().len();
                self.line("@took ")
            }
        };
        let mut words = line.split("@took ").nth(1).unwrap_or_default().split(' ');
        let mut number = || words.next().and_then(|word| word.parse().ok()).expect("a number");
        Taken { lane: LaneId(number() as u8), stream: number(), seq: number() }
    }

    /// How many messages the child's node said may come for the second time, since it started.
    pub fn repeated(&self) -> Option<usize> {
        let line = self.child.skipped().iter().find(|line| line.contains("@repeated "))?;
        line.split("@repeated ").nth(1)?.parse().ok()
    }

    fn line(&mut self, what: &str) -> String {
        match self.child.wait_line(TIMEOUT, |line| line.contains(what) || line.contains("@error")) {
            Some(line) if line.contains("@error") => panic!("the child says: {line}"),
            Some(line) => line,
            None => panic!("the child never said {what}: {:?}", self.child.skipped()),
        }
    }
}

/// A message that the child took, whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    pub lane: LaneId,
    pub stream: u64,
    pub seq: u64,
}

/// The child's side.
pub fn run() {
    let Ok(config) = std::env::var(CONFIG) else { return };
    let config: Config = serde_json::from_str(&config).expect("a config");
    let secret = std::env::var(SECRET).expect("a secret");
    let mut bytes = [0; 32];
    for (byte, index) in bytes.iter_mut().zip(0..) {
        let digits = secret.get(2 * index..2 * index + 2).expect("64 digits");
        *byte = u8::from_str_radix(digits, 16).expect("digits");
    }
    let node = Node::builder().config(config).identity(Identity::from_bytes(bytes)).start().expect("a node");
    println!("@listen {}", first_addr(&node));
    let kept: Arc<Mutex<Vec<Message>>> = Arc::default();
    let (orders, todo) = mpsc::channel::<usize>();
    let (its_node, its_kept) = (node.clone(), Arc::clone(&kept));
    thread::spawn(move || {
        for count in todo {
            let mut taken = 0;
            while taken < count {
                // A message that comes after the order counts too: events are no messages.
                let Ok(event) = its_node.recv() else { return };
                if let Event::Repeated { messages, .. } = event {
                    println!("@repeated {messages}");
                } else if let Event::Message(mut message) = event {
                    taken += 1;
                    match numbered::read(message.bytes()) {
                        Ok((stream, seq)) => println!("@took {} {stream} {seq}", message.lane().0),
                        Err(error) => println!("@error {error}"),
                    }
                    its_kept.lock().push(message);
                    if count == usize::MAX {
                        its_kept.lock().clear();
                    }
                }
            }
        }
    });
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
        match words.first().copied() {
            Some("take") => orders.send(number(1) as usize).expect("the taker runs"),
            Some("drain") => orders.send(usize::MAX).expect("the taker runs"),
            Some("done") => {
                kept.lock().clear();
                println!("@done");
            }
            Some("reply") => {
                let mut kept = kept.lock();
                let request = kept.iter_mut().find(|message| message.is_request());
                let result = request.map(|message| {
                    let echo = message.payload().clone().into_bytes();
                    message.reply(echo).map(|_| ()).map_err(|error| error.to_string())
                });
                println!("@replied {result:?}");
            }
            Some("replace") => {
                let peer = node.peers().iter().find_map(|peer| peer.peer).expect("a peer");
                match node.replace(peer) {
                    Ok(count) => println!("@replacing {count}"),
                    Err(error) => println!("@error {error}"),
                }
            }
            Some("send") => {
                let peer = node.peers().iter().find_map(|peer| peer.peer).expect("a peer");
                for seq in 0..number(3) {
                    let body = numbered::message(number(2), seq, number(4) as usize);
                    let outgoing = Outgoing::new(LaneId(number(1) as u8), body);
                    node.send(peer, outgoing).expect("accepted");
                }
            }
            _ => println!("@error what is {line:?}?"),
        }
    }
    node.shutdown(Duration::from_secs(1));
    std::process::exit(0);
}
