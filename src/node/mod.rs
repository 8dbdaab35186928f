//! The node: what an application holds.
//!
//! ```text
//!   application --send--> link (lanes, receipts) --> writer thread --> socket   (or the sending thread)
//!               <-events- mailbox <- inboxes <------- reader thread <-- socket
//!                                        ^
//!                 monitor thread: deadlines, pings, dials      acceptor thread per address
//! ```
//!
//! The threads and their names: [`crate::conn::threads`]. They share [`inner::NodeInner`]; the application's
//! handle is not part of it, so dropping the last handle ends everything. The order in which they take locks:
//! [`crate::lock`].
//!
//! # From suspect to replaced
//! The monitor carries one fact from layer to layer, and posts nothing to itself:
//!
//! | layer | form of the fact | made by |
//! | --- | --- | --- |
//! | `health` | `LivenessEvent::Suspect`, `score::Change::Poor` | the timers of the connection, the kernel's figures |
//! | `link` | [`Notice`](crate::link::Notice)`::Suspect`, `ConnDegraded`; the state of the connection | `handle_timeout`, `handle_sample` |
//! | application | [`Event::Suspect`], [`Event::ConnDegraded`] | `monitor::handle_notice` |
//! | `roster` | [`Trouble`](crate::roster::Trouble) in a [`LinkView`](crate::roster::LinkView), which names the connection and the reason | `pool::feedback`, from the state |
//! | dial | [`Action::Dial`](crate::roster::Action) with that `Trouble` as `replaces`; `HELLO.replaces` | `Roster::poll`, `dial` |
//! | the other `link` | `succeeds` of the newcomer, until it is proven | `pool::settle_newcomer` |
//! | application | [`Event::Replaced`] | `monitor::handle_notice` |

mod acceptor;
mod agenda;
mod api;
mod background;
mod budget;
mod connect;
mod dial;
mod event;
mod event_queue;
mod fan_out;
mod inbound;
mod inbound_control;
mod inner;
mod lane_receiver;
mod link;
mod mailbox;
mod message;
mod monitor;
mod moved;
mod named;
mod outgoing;
mod peer_handle;
mod pending_reply;
mod pool;
mod received;
mod refusal;
mod resolver;
mod shared;
mod shares;
mod signal;
mod snapshot;
mod start_error;
mod tracked;
mod wait;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::clock;
use crate::config::{Config, ConfigError, Encryption, Listening, PeerConfig};
use crate::conn::handshake::Card;
use crate::conn::socket;
use crate::conn::threads::Panicked;
use crate::id::{Identity, Incarnation, PeerId};
use crate::lane::LaneConfig;
use crate::roster::PeerRecord;
use crate::wire::preface::{NetworkName, Versions};

use acceptor::Acceptor;
pub use event::{Event, RetireReason};
pub use lane_receiver::{EventReceiver, Events, LaneReceiver, Messages};
pub use link::LinkState;
pub use mailbox::Closed;
pub use message::Message;
pub use outgoing::{Outgoing, SendManyError, SendOrRecv, TypedError};
pub use peer_handle::PeerHandle;
pub use pending_reply::PendingReply;
use resolver::Resolver;
pub use snapshot::{ConnSnapshot, ConnState, FloodSnapshot, LaneSnapshot, NodeSnapshot, PeerSnapshot};
pub use start_error::StartError;
pub use wait::{FailedDial, WaitError};

/// A running node. Cheap to clone; all clones are the same node.
///
/// **Dropping the last clone shuts the node down**, as [`Node::shutdown`] without grace.
#[derive(Clone)]
pub struct Node {
    handle: Arc<Handle>,
}

struct Handle {
    core: Arc<inner::NodeInner>,
    local_addrs: Vec<SocketAddr>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.core.shutdown(Duration::ZERO);
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Node({})", self.id().short())
    }
}

/// Starts a node: `Node::builder().listen("127.0.0.1:0".parse()?).start()`.
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until it is started"]
pub struct Builder {
    config: Config,
    identity: Option<IdentitySource>,
    records: Vec<PeerRecord>,
    admit_hook: inbound_control::AdmitHook,
    /// The method that changed a setting first, if any did.
    changed_by: Option<&'static str>,
    /// The same, if all settings were replaced after that.
    discarded: Option<&'static str>,
}

#[derive(Clone, Debug)]
enum IdentitySource {
    Value(Identity),
    File(PathBuf),
}

impl Builder {
    /// Replaces all settings. To be called before [`Builder::listen`], [`Builder::peer`],
    /// [`Builder::network`] and [`Builder::configure`]: after one of them [`Builder::start`] returns an error, because what it had set would be
    /// gone.
    pub fn config(mut self, config: Config) -> Self {
        self.discarded = self.discarded.or(self.changed_by);
        self.config = config;
        self
    }

    /// Changes settings in place.
    pub fn configure(mut self, change: impl FnOnce(&mut Config)) -> Self {
        self.changed_by.get_or_insert("configure");
        change(&mut self.config);
        self
    }

    /// The identity of this node. Default: a new identity, drawn at start. A node that shall be known again
    /// after a restart needs to keep its identity.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(IdentitySource::Value(identity));
        self
    }

    /// The network's name ([`Config::network`]).
    pub fn network(mut self, network: impl Into<String>) -> Self {
        self.changed_by.get_or_insert("network");
        self.config.network = network.into();
        self
    }

    /// This application's name, as peers have it in their snapshots ([`Config::name`]).
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.changed_by.get_or_insert("name");
        self.config.name = name.into();
        self
    }

    /// Accepts connections on one more address; port 0 lets the system choose.
    pub fn listen(mut self, addr: SocketAddr) -> Self {
        self.changed_by.get_or_insert("listen");
        self.config.listen.push(addr);
        self
    }

    /// Keeps a link to one more peer, at `host:port` or `id@host:port`, or by its id alone if it only dials
    /// this node ([`PeerConfig::inbound_only`]).
    pub fn peer(mut self, address: impl Into<String>) -> Self {
        self.changed_by.get_or_insert("peer");
        self.config.peers.push(PeerConfig::new(address));
        self
    }

    /// Keeps links to more peers, at `host:port` or `id@host:port`.
    pub fn peers<A: Into<String>>(self, addresses: impl IntoIterator<Item = A>) -> Self {
        addresses.into_iter().fold(self, Self::peer)
    }

    /// Keeps a link to one more peer, with settings of its own.
    ///
    /// ```
    /// use unbroken::{Node, PeerConfig};
    ///
    /// let validator = PeerConfig { important: true, ..PeerConfig::new("10.0.0.2:4000") };
    /// let builder = Node::builder().peer_config(validator).peers(["10.0.0.3:4000", "10.0.0.4:4000"]);
    /// ```
    pub fn peer_config(mut self, peer: PeerConfig) -> Self {
        self.changed_by.get_or_insert("peer_config");
        self.config.peers.push(peer);
        self
    }

    /// Adds a lane, or replaces the lane with the same id. All nodes need not have the same lanes: a message
    /// on a lane that the peer does not have ends as
    /// [`DropReason::LaneRefused`](crate::DropReason::LaneRefused).
    ///
    /// ```
    /// use unbroken::{LaneConfig, LaneId, Node};
    ///
    /// const GOSSIP: LaneId = LaneId(7);
    /// let builder = Node::builder().lane(LaneConfig { id: GOSSIP, ..LaneConfig::default() });
    /// ```
    pub fn lane(mut self, lane: LaneConfig) -> Self {
        self.changed_by.get_or_insert("lane");
        match self.config.lanes.iter_mut().find(|known| known.id == lane.id) {
            Some(known) => *known = lane,
            None => self.config.lanes.push(lane),
        }
        self
    }

    /// Reads the identity of this node from a file when it starts; if there is none, draws one and writes it
    /// there ([`Identity::load_or_generate`]). The later call of this and [`Builder::identity`] counts.
    pub fn identity_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.identity = Some(IdentitySource::File(path.into()));
        self
    }

    /// Records that an earlier life of this node kept ([`Node::records`]). A configured peer with the same
    /// address has what was learned of it; the others are candidates, dialled only as long as
    /// [`Config::target_peers`] (0 by default) asks for more links. An example:
    /// [`manual::restart_and_recovery`](crate::manual::restart_and_recovery#what-to-keep-on-disk).
    pub fn records(mut self, records: Vec<PeerRecord>) -> Self {
        self.records = records;
        self
    }

    /// Checks the settings, listens, and starts the threads.
    ///
    /// # Errors
    /// Names the setting that cannot be right, or the address that cannot be listened on.
    pub fn start(self) -> Result<Node, StartError> {
        self.start_with(Resolver::default())
    }

    pub(crate) fn start_with(self, resolver: Resolver) -> Result<Node, StartError> {
        if let Some(method) = self.discarded {
            return Err(ConfigError::discarded(method).into());
        }
        self.config.validate()?;
        let random = |error| StartError::System("draw random numbers", error);
        let identity = match self.identity {
            Some(IdentitySource::Value(identity)) => identity,
            Some(IdentitySource::File(path)) => Identity::load_or_generate(path)?,
            None => Identity::generate().map_err(random)?,
        };
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| random(std::io::Error::other(error)))?;
        let [seed, incarnation] = halves(bytes);
        let network = NetworkName::new(&self.config.network).unwrap_or_else(NetworkName::empty);
        if self.config.encryption == Encryption::Plaintext {
            log_line!(
                Warn,
                "encryption is off: anybody on the path can read and change what is sent, and no peer proves its identity"
            );
        }
        let card = Card {
            versions: Versions::OURS,
            mode: self.config.encryption.into(),
            network,
            peer: identity.peer_id(),
            identity,
            incarnation: Incarnation(incarnation),
        };
        let mut acceptors = Vec::new();
        let mut local_addrs = Vec::new();
        for addr in &self.config.listen {
            let only_v6 = self.config.only_v6(*addr);
            let (socket, bound) = socket::listen(*addr, only_v6, self.config.path.max_segment)
                .map_err(|error| StartError::Listen(*addr, error))?;
            acceptors.push(Acceptor::new(socket, Listening { addr: bound, only_v6 }));
            local_addrs.push(bound);
        }
        let core =
            Arc::new(inner::NodeInner::new(self.config, card, acceptors, self.admit_hook, resolver, seed));
        // From here on a failure drops the handle, which stops the threads that have started.
        let node = Node { handle: Arc::new(Handle { core, local_addrs }) };
        // Before the threads write lines of their own.
        log_line!(Info, "{}", Started(&node));
        node.handle.core.config.doubts(node.id()).iter().for_each(|doubt| log_line!(Warn, "{doubt}"));
        node.start_threads(self.records).map_err(|error| StartError::System("start a thread", error))?;
        Ok(node)
    }
}

/// What the log says of a node that starts.
struct Started<'a>(&'a Node);

impl fmt::Display for Started<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Started(node) = self;
        write!(f, "{} started as {}", node.id().short(), node.id())?;
        match node.local_addrs() {
            [] => f.write_str(", listens nowhere"),
            [first, rest @ ..] => {
                write!(f, ", listens at {first}")?;
                rest.iter().try_for_each(|addr| write!(f, ", {addr}"))
            }
        }
    }
}

fn halves([a, b, c, d, e, f, g, h, rest @ ..]: [u8; 16]) -> [u64; 2] {
    [u64::from_le_bytes([a, b, c, d, e, f, g, h]), u64::from_le_bytes(rest)]
}

/// A node without its monitor or an acceptor would only seem to work: a bug there ends it.
fn given_up(core: &Arc<inner::NodeInner>) -> impl FnOnce(Panicked) + Send + 'static {
    let core = Arc::clone(core);
    move |panicked| {
        if panicked == Panicked(true) {
            core.give_up();
        }
    }
}

impl Node {
    /// Starts to build a node.
    pub fn builder() -> Builder {
        Builder::default()
    }

    fn start_threads(&self, records: Vec<PeerRecord>) -> std::io::Result<()> {
        let core = &self.handle.core;
        core.config.peers.iter().cloned().for_each(|peer| core.want(peer));
        let now = clock::now();
        records.iter().for_each(|record| core.roster.lock().restore(record, now));
        let monitor = Arc::clone(core);
        core.shared.background.start(&core.threads.name("log"))?;
        core.threads.spawn("monitor", move || monitor::run(&monitor), given_up(core))?;
        for index in 0..core.acceptors.len() {
            let after = given_up(core);
            let core = Arc::clone(core);
            let threads = Arc::clone(&core.threads);
            let run = move || {
                let Some(acceptor) = core.acceptors.get(index) else { return };
                let accepted = |socket, addr| connect::accept(&core, socket, addr);
                acceptor.run(&core.shared, || core.is_closing(), accepted);
            };
            threads.spawn("accept", run, after)?;
        }
        Ok(())
    }

    /// The name of this node.
    pub fn id(&self) -> PeerId {
        self.handle.core.card.peer
    }

    /// This life of the node.
    pub fn incarnation(&self) -> Incarnation {
        self.handle.core.card.incarnation
    }

    /// The identity of this node, to be kept for its next life.
    pub fn identity(&self) -> &Identity {
        &self.handle.core.card.identity
    }

    /// The settings that it was started with.
    pub fn config(&self) -> &Config {
        &self.handle.core.config
    }

    /// The addresses that it accepts connections on, with the ports that the system chose.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.handle.local_addrs
    }

    /// Stops the node. Messages that were accepted go out first, for at most `grace`; then it says goodbye to
    /// its peers, ends all connections, and joins all threads. Receipts that have not ended by then end
    /// as dropped. Returns at most about `grace` later, when no thread is left, except those that are just
    /// looking up a name: the system's resolver cannot be interrupted, so they end by themselves when it
    /// answers.
    ///
    /// New messages are refused from the first moment on, but for replies and for those that wait for room
    /// already. Called on a thread of a node, as within the hook of [`Builder::admit`], it returns at
    /// once, and a thread of its own does the rest.
    ///
    /// In a child of `fork` this does nothing, and neither does dropping the node: its threads and
    /// connections are the parent's.
    ///
    /// Messages that the application has not taken when
    /// the grace is over are not given out any more: their senders keep them, for this node's next life.
    pub fn shutdown(&self, grace: Duration) {
        self.handle.core.shutdown(grace);
    }
}
