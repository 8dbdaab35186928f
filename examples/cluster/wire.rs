//! The messages between the parent and its nodes: JSON, one object a line. A line that a kill cut
//! short is no JSON and does not count.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use unbroken::ReplaceReason;

/// From the parent to a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Command {
    /// Where to dial which node: an address for each path.
    Peers(Vec<(usize, Vec<SocketAddr>)>),
    /// Sets the traffic from now on.
    Work(Work),
    /// Messages sent from now on belong to this row of the table.
    Row(usize),
    /// Take this long over each transaction and block from now on.
    Slow { ms: u64 },
    /// Replace all connections of all links now, or of that with this peer, while they serve.
    Replace { peer: Option<usize> },
    /// Say what state the links are in, for the story of a failed run.
    Dump,
    /// Shut down in order.
    Quit,
}

/// The traffic of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Work {
    /// Time between proposals, on average; 0 for none, and no votes.
    pub(crate) proposal_ms: u64,
    /// Transactions per second to each peer.
    pub(crate) transactions: u64,
    /// Time between blocks to each peer; 0 for none.
    pub(crate) block_ms: u64,
    /// The peers for which blocks always wait.
    pub(crate) saturate: Vec<usize>,
}

/// From a node to the parent. Lanes are numbers, peers the indices of nodes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// The node listens.
    Ready { addr: SocketAddr },
    /// It has links to all peers and sends from now on.
    Linked,
    /// Messages with numbers below `upto` may be sent from now on. `to`: nobody in particular, but all.
    Intent { lane: u8, to: Option<usize>, upto: u64, row: usize },
    /// All below `upto` were accepted, except those reported as errors.
    Accepted { lane: u8, to: Option<usize>, upto: u64 },
    /// Receipts say that the peer's application is done with all below `upto`.
    Taken { lane: u8, to: usize, upto: u64 },
    /// A receipt ended in another way.
    Dropped { lane: u8, to: usize, seq: u64, why: String },
    /// A send was refused.
    Refused { lane: u8, to: usize, seq: u64, why: String },
    /// A proposal or vote was processed.
    Vote { from: usize, life: u32, seq: u64, sent_us: u64, received_us: u64 },
    /// Transactions or blocks were processed, in this order, `first` to `last`.
    Got { lane: u8, from: usize, life: u32, first: u64, last: u64 },
    /// A message with wrong content.
    Bad { why: String },
    /// News of a link.
    Link(LinkNews),
    /// How all links are; a few times a second.
    Links { at_us: u64, links: Vec<LinkFigures> },
    /// Quorums since the last such report.
    Quorums { reached: u64, missed: u64 },
    /// The library had to drop events that nobody took in time.
    EventsLost(u64),
    /// The answer to [`Command::Dump`].
    State(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum News {
    Up,
    Degraded,
    Down,
    Connected,
    Disconnected,
    Suspect,
    Recovered,
    Poor,
    Well,
    /// A successor is dialled for a connection that serves.
    Replacing,
    Replaced,
    /// The time between pings became shorter.
    Learned,
    Restarted,
    Lost,
}

/// A decision of the library about a link, or one of its connections.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LinkNews {
    pub(crate) peer: usize,
    pub(crate) at_us: u64,
    pub(crate) news: News,
    /// The connection that joined, ended or was replaced, by its number at this node.
    pub(crate) conn: Option<u64>,
    /// The path by which this node dialled it; `None` too if it dialled past the proxies.
    pub(crate) path: Option<usize>,
    /// The connection's place in the pool.
    pub(crate) slot: Option<u8>,
    /// This node dialled the connection; of a replacement: the one that goes. So each counts at one end.
    pub(crate) dialled: bool,
    /// It ended because there was another one: both ends had dialled at once.
    pub(crate) superfluous: bool,
    pub(crate) reason: Option<ReplaceReason>,
    pub(crate) ping_ms: Option<f64>,
    /// In words.
    pub(crate) why: String,
}

/// The state of one link at one end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LinkFigures {
    pub(crate) peer: usize,
    /// Connections above suspicion that have answered, and how many there should be.
    pub(crate) up: usize,
    pub(crate) wanted: usize,
    /// When the oldest connection that still serves was opened.
    pub(crate) oldest_us: u64,
    /// The score of the worst connection, and the parts of it that are not what they should be.
    pub(crate) score: f64,
    pub(crate) parts: String,
    pub(crate) peer_score: f64,
    /// The longest smoothed round trip among the connections that have answered.
    pub(crate) rtt_ms: Option<f64>,
    pub(crate) ping_ms: f64,
    /// Place and path of those connections that this node dialled.
    pub(crate) paths: Vec<(u8, usize)>,
}

/// Standard output, shared by the threads of a node.
#[derive(Clone)]
pub(crate) struct Reporter {
    output: Arc<Mutex<io::Stdout>>,
}

impl Reporter {
    pub(crate) fn new() -> Self {
        Reporter { output: Arc::new(Mutex::new(io::stdout())) }
    }

    /// Returns when the kernel has the reports: a kill can no longer take them back.
    pub(crate) fn report(&self, reports: &[Report]) -> io::Result<()> {
        let mut lines = Vec::with_capacity(reports.len() * 96);
        for report in reports {
            serde_json::to_writer(&mut lines, report)?;
            lines.push(b'\n');
        }
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        output.write_all(&lines)?;
        output.flush()
    }
}
