//! Faults for the tests of programs that use this library: a proxy that does to connections what networks do
//! to theirs, and clusters of nodes in one process with such a proxy on each path. Needs the feature
//! `test-util`, and Linux; made for `[dev-dependencies]`. The promises of this library are tested with the
//! same proxy.
//!
//! # A test of your node
//! A [`Cluster`] starts nodes with the builders that your program uses, on free ports of loopback.
//! [`PathConfig::scaled_down`](crate::PathConfig::scaled_down) makes the deadlines so much shorter that a
//! test does not take minutes. A test waits for what is to happen, and never sleeps.
//!
//! ```
//! use std::time::Duration;
//!
//! use unbroken::test_util::{Cluster, black_hole_supported};
//! use unbroken::{Config, Node, PathConfig, URGENT};
//!
//! const TIMEOUT: Duration = Duration::from_secs(30);
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Ten times as fast as by default: an answer that is overdue by 0.1 s makes a connection suspect.
//! let path = PathConfig::default().scaled_down(10);
//! let config = Config { path, ..Config::default() };
//! let cluster = Cluster::start(4, move |_| Node::builder().config(config.clone()))?;
//! cluster.wait_linked(TIMEOUT)?;
//!
//! // One of four nodes is cut off, without a FIN or RST: three of four must go on.
//! if black_hole_supported() {
//!     assert!(cluster.isolate(3));
//! }
//! let [leader, others @ ..] = cluster.nodes() else { unreachable!() };
//! let broadcast = leader.broadcast((URGENT, "block 7"));
//! let next = |node: &Node| node.lane_receiver(URGENT)?.recv_timeout(TIMEOUT).ok()?.map(|block| block.into_bytes());
//! for node in &others[..2] {
//!     assert_eq!(next(node).as_deref(), Some(&b"block 7"[..]));
//! }
//! broadcast.wait_for(2, TIMEOUT)?; // With the leader itself: three.
//!
//! // When it is back it gets what it has missed.
//! cluster.rejoin(3);
//! assert_eq!(next(&others[2]).as_deref(), Some(&b"block 7"[..]));
//! # Ok(())
//! # }
//! ```
//!
//! # A NAT that forgets
//! NATs and firewalls drop flows that were idle for a while, and tell nobody. The node must either ping often
//! enough, or notice.
//!
//! ```
//! use std::time::Duration;
//!
//! use unbroken::test_util::Cluster;
//! use unbroken::{Config, Node, Outcome, PathConfig, URGENT};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A ping after 1 s of silence, and not after 10 s.
//! let config = Config { path: PathConfig::default().scaled_down(10), ..Config::default() };
//! let cluster = Cluster::start(2, move |_| Node::builder().config(config.clone()))?;
//! cluster.wait_linked(Duration::from_secs(30))?;
//!
//! // The scale holds for the NAT, too: one that forgets after 20 s.
//! let nat = cluster.path(0, 1).ok_or("no path")?;
//! nat.update(|faults| faults.forget_idle = Some(Duration::from_secs(2)));
//! let forgotten = nat.wait_until(Duration::from_secs(3), |stats| stats.forgotten > 0);
//! assert!(!forgotten, "the pings keep the flow alive");
//!
//! let [a, b] = cluster.nodes() else { unreachable!() };
//! let receipt = a.send(b.id(), (URGENT, "after seconds of silence"))?;
//! b.lane_receiver(URGENT).ok_or("no urgent lane")?.recv()?;
//! assert_eq!(receipt.wait(), Outcome::Taken);
//! # Ok(())
//! # }
//! ```
//!
//! To see what your node does when a flow is forgotten all the same, raise
//! [`ping_interval`](crate::PathConfig::ping_interval) and
//! [`keepalive_time`](crate::PathConfig::keepalive_time) (the kernel's probes are segments, too) above the
//! NAT's time and wait for [`Stats::forgotten`]. The next message makes the connection suspect and arrives by
//! a new one.
//!
//! # Which fault is which
//! | what happens in the field | how to cause it |
//! |---|---|
//! | a middlebox forgets an idle flow | [`Faults::forget_idle`]; one that says so: [`Faults::close_idle`] |
//! | a cable is pulled, a route is lost | [`FaultProxy::black_hole`], [`Cluster::isolate`] |
//! | a machine loses its power, and comes back | [`FaultProxy::half_open`] |
//! | a process is killed and restarted | [`Cluster::restart`], after [`FaultProxy::reset_all`] |
//! | a process hangs | [`Faults::stall`]: its kernel acknowledges still |
//! | a connection breaks in mid-message | [`FaultProxy::cut_after`] |
//! | a slow or far path | [`Faults::rate`], [`Faults::delay`], [`Faults::recv_buffer`] |
//! | nobody listens | [`Faults::refuse`] |
//!
//! # Limits
//! The proxy needs no privileges. It ends TCP on both sides, so an end's keepalive probes and
//! acknowledgements meet the proxy's kernel, not the other end, and loss of single packets cannot be made
//! with it (use network namespaces and `tc-netem(8)` for that). A fault that shall not be acknowledged takes
//! [`FaultProxy::black_hole`], which works in the kernel: by TCP_MD5SIG (`tcp(7)`), which some containers do
//! not permit. One thread accepts, and one thread for each flow owns both its sockets; every setting and
//! action has taken effect on all flows when the call returns.
//!
//! ```
//! # use std::net::{TcpListener, TcpStream};
//! # use std::time::Duration;
//! # use unbroken::test_util::{FaultProxy, Ways};
//! # let server = TcpListener::bind("127.0.0.1:0")?;
//! let proxy = FaultProxy::start(server.local_addr()?)?;
//! let client = TcpStream::connect(proxy.addr())?;
//! proxy.wait_until(Duration::from_secs(10), |stats| stats.connected == 1);
//! proxy.update(|faults| faults.delay = Ways::both(Duration::from_millis(40)));
//! proxy.reset_all();
//! # Ok::<(), std::io::Error>(())
//! ```

mod cluster;
mod faults;
mod flow;
mod md5sig;
mod pipe;
mod shared;
mod sys;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

pub use self::cluster::Cluster;
pub use self::faults::{CloseIdle, Direction, Faults, Side, Stats, Ways};
pub use self::md5sig::black_hole_supported;

use self::flow::Command;
use self::shared::{Shared, wait_for};

/// A TCP proxy between the clients that connect to it and one target.
///
/// Dropping it resets all flows, closes the port and joins all threads.
pub struct FaultProxy {
    shared: Arc<Shared>,
    accept_thread: Option<JoinHandle<()>>,
    addr: SocketAddr,
}

impl FaultProxy {
    /// Starts a proxy to `target` on a free port of 127.0.0.1. The target need not exist yet: it
    /// is connected to for each flow, and a client is reset if that fails.
    ///
    /// # Errors
    ///
    /// Those of binding a port and starting a thread.
    pub fn start(target: SocketAddr) -> io::Result<FaultProxy> {
        let (listener, addr) = bind()?;
        let shared = Arc::new(Shared::new(listener, target)?);
        let accept_thread = thread::Builder::new().name("proxy-accept".into()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.accept_loop()
        })?;
        Ok(FaultProxy { shared, accept_thread: Some(accept_thread), addr })
    }

    /// Where clients connect to. It stays the same, and reserved, for the proxy's whole life.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Sends new flows to another address: that of a restarted target, for example.
    pub fn retarget(&self, target: SocketAddr) {
        self.shared.lock().target = target;
    }

    /// Replaces the lasting faults. `Faults::default()` ends them all, except what `forget_idle`
    /// has already forgotten.
    pub fn set(&self, faults: Faults) {
        self.shared.update(|current| *current = faults);
    }

    /// Changes some of the lasting faults. The closure must not use the proxy.
    pub fn update(&self, change: impl FnOnce(&mut Faults)) {
        self.shared.update(change);
    }

    /// The lasting faults in force.
    pub fn faults(&self) -> Faults {
        self.shared.lock().faults
    }

    /// Resets every flow on both sides (RST). Gets through black holes, which it heals first.
    pub fn reset_all(&self) {
        let answers = self.shared.lock().ask_all(Command::Reset);
        wait_for(answers);
    }

    /// Resets the `n` oldest connected flows on both sides. Returns how many there were.
    pub fn reset_some(&self, n: usize) -> usize {
        let answers = self.shared.lock().ask_live(n, Command::Reset);
        wait_for(answers).0
    }

    /// Sends FIN to the sink of this direction on all flows, behind the bytes under way. All that the
    /// source, which is told nothing, sends from now on is acknowledged and thrown away.
    pub fn half_close(&self, direction: Direction) {
        let answers = self.shared.lock().ask_all(Command::HalfClose(direction));
        wait_for(answers);
    }

    /// Resets the next flow on both sides after exactly `n_bytes` in this direction: as soon as
    /// the sink's kernel has acknowledged them, so that it can read them all (the proxy stops waiting
    /// after 10 s of closed window). With 0, the first byte triggers it and is not forwarded.
    /// Each call is for one flow: two calls are for the next two.
    pub fn cut_after(&self, direction: Direction, n_bytes: u64) {
        self.shared.lock().cuts.push_back((direction, n_bytes));
    }

    /// Makes all segments of all existing flows vanish, in both directions, without any
    /// acknowledgement, FIN or RST. A flow exists once it is counted in [`FaultProxy::flows`].
    /// Returns false if the kernel cannot do it; then nothing has happened.
    #[must_use = "without TCP_MD5SIG nothing happens"]
    pub fn black_hole(&self) -> bool {
        if !black_hole_supported() {
            return false;
        }
        let answers = self.shared.lock().ask_all(Command::BlackHole);
        let (yes, all) = wait_for(answers);
        yes == all
    }

    /// With true, makes the segments of new connections vanish: a connect hangs until it times
    /// out. With false, ends that: a connect that still waits succeeds with its next SYN (after
    /// 1, 3, 7... s). Existing flows are not touched. Returns false if the kernel cannot do it.
    #[must_use = "without TCP_MD5SIG nothing happens"]
    pub fn black_hole_new(&self, hole: bool) -> bool {
        if hole && !black_hole_supported() {
            return false;
        }
        let mut state = self.shared.lock();
        self.shared.set_hole(&mut state, hole)
    }

    /// Ends [`FaultProxy::black_hole`] and [`FaultProxy::black_hole_new`]: TCP carries on with its
    /// next retransmission, whose timer has doubled with each one that failed. Flows that were
    /// forgotten or are half-open stay so.
    pub fn heal(&self) {
        let mut state = self.shared.lock();
        self.shared.set_hole(&mut state, false);
        let answers = state.ask_all(Command::Heal);
        drop(state);
        wait_for(answers);
    }

    /// The proxy's sockets towards `side` vanish on all flows without any segment, as if the
    /// machine at the far end had lost its power. `side` hears nothing until it sends something,
    /// which is answered with RST. The other end never hears of it: the proxy acknowledges and
    /// throws away what it sends, until it closes. Returns false if the kernel cannot do it; then
    /// nothing has happened.
    #[must_use = "without TCP_MD5SIG nothing happens"]
    pub fn half_open(&self, side: Side) -> bool {
        if !black_hole_supported() {
            return false;
        }
        let state = self.shared.lock();
        let answers = state.ask_live(usize::MAX, Command::HalfOpen(side));
        drop(state);
        let (yes, all) = wait_for(answers);
        yes == all
    }

    /// Flows that are connected on both sides now. See [`Stats::flows`].
    pub fn flows(&self) -> usize {
        self.stats().flows
    }

    /// Connections accepted from clients so far.
    pub fn accepted(&self) -> u64 {
        self.stats().accepted
    }

    /// Bytes handed to the receiving kernel so far, over all flows.
    pub fn bytes(&self, direction: Direction) -> u64 {
        *self.stats().bytes.get(direction)
    }

    /// All counters, as of one moment.
    pub fn stats(&self) -> Stats {
        self.shared.lock().stats
    }

    /// Waits until the counters fulfil the condition; false if they did not in time. Looks
    /// whenever a counter changes; several changes may be seen as one.
    pub fn wait_until(&self, timeout: Duration, condition: impl Fn(&Stats) -> bool) -> bool {
        self.shared.wait_until(timeout, condition)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.shared.stop(self.accept_thread.take());
    }
}

/// A socket that keeps its port even while it does not listen.
fn bind() -> io::Result<(Socket, SocketAddr)> {
    let socket = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        // For the second bind below, and to listen again while flows are alive.
        socket.set_reuse_address(true)?;
        Ok(socket)
    };
    // A port that the kernel chose is given back by shutdown; one that was asked for by its number
    // is kept until close.
    let chosen = socket()?;
    chosen.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    let listener = socket()?;
    listener.bind(&chosen.local_addr()?)?;
    let addr = listener.local_addr()?.as_socket();
    let addr = addr.ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok((listener, addr))
}
