//! One node of the cluster, in a process of its own: starts the library, receives, verifies, reports.

use std::io::{self, BufRead};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use unbroken::{
    AckMode, BULK, Config, Identity, LaneConfig, LaneId, LaneReceiver, Message, NORMAL, Node, PathConfig,
    PeerConfig, PeerId, URGENT,
};

use crate::Failure;
use crate::content::{self, Kind, mix};
use crate::monitor::{self, Paths};
use crate::sender::{self, Job};
use crate::view::View;
use crate::wire::{Command, Report, Reporter};
use unbroken_test_support::raw::encryption;

const VARIABLE: &str = "UNBROKEN_CLUSTER_NODE";
/// The directory of `--view`.
pub(crate) const VIEW: &str = "UNBROKEN_CLUSTER_VIEW";
/// How many messages are processed before they are reported together.
const BATCH: usize = 64;
/// How long what was accepted may take to go out when the node is told to quit.
const GRACE: Duration = Duration::from_secs(5);

/// The identity of a node process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Role {
    pub(crate) index: usize,
    pub(crate) nodes: usize,
    /// How often this node was started before.
    pub(crate) life: u32,
    pub(crate) seed: u64,
    pub(crate) factor: u32,
    /// Tells the clusters apart that run at the same time.
    pub(crate) cluster: u32,
    /// The directory in which it serves its live view.
    pub(crate) view: Option<PathBuf>,
}

impl Role {
    /// The parent's commands; `None` in the parent itself.
    pub(crate) fn from_environment() -> Option<Result<Role, Failure>> {
        let text = std::env::var(VARIABLE).ok()?;
        let numbers: Result<Vec<u64>, _> = text.split(' ').map(str::parse).collect();
        Some(match numbers.as_deref() {
            Ok([index, nodes, life, seed, factor, cluster]) => Ok(Role {
                index: *index as usize,
                nodes: *nodes as usize,
                life: *life as u32,
                seed: *seed,
                factor: *factor as u32,
                cluster: *cluster as u32,
                view: std::env::var_os(VIEW).map(PathBuf::from),
            }),
            _ => Err(format!("{VARIABLE}={text:?} was not set by the cluster's parent").into()),
        })
    }

    pub(crate) fn to_environment(&self) -> (&'static str, String) {
        let Role { index, nodes, life, seed, factor, cluster, view: _ } = self;
        (VARIABLE, format!("{index} {nodes} {life} {seed} {factor} {cluster}"))
    }

    /// The identity of a node outlives its process.
    fn identity_of(&self, index: usize) -> Identity {
        let mut bytes = [0; 32];
        fastrand::Rng::with_seed(mix(self.seed, index as u64)).fill(&mut bytes);
        Identity::from_bytes(bytes)
    }

    fn peer_id_of(&self, index: usize) -> PeerId {
        self.identity_of(index).peer_id()
    }

    /// The name of the network of this cluster.
    pub(crate) fn network(&self) -> String {
        format!("cluster {:x}", self.cluster)
    }

    fn config(&self) -> Config {
        let defaults = Config::default();
        let done = |lane| LaneConfig { ack_mode: AckMode::Done, ..lane };
        Config {
            network: self.network(),
            encryption: encryption(),
            name: format!("node {}", self.index),
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))],
            lanes: LaneConfig::defaults().into_iter().map(done).collect(),
            path: PathConfig::default().scaled_down(self.factor),
            // A minute is shorter here, too.
            max_replacements_per_minute: defaults.max_replacements_per_minute * self.factor,
            // Must stay far below the time after which a connection is suspect.
            ack_delay: defaults.ack_delay.min(PathConfig::default().suspect_after / self.factor / 8),
            ..defaults
        }
    }
}

/// The state that the threads of a node share.
pub(crate) struct Shared {
    pub(crate) role: Role,
    pub(crate) node: Node,
    pub(crate) reporter: Reporter,
    /// The index of a node and its name.
    pub(crate) peers: Vec<(usize, PeerId)>,
    pub(crate) paths: Paths,
    pub(crate) view: Option<View>,
    slow: Slow,
}

/// Runs until the parent says so, or is gone.
pub(crate) fn run(role: Role) -> Result<(), Failure> {
    let node = Node::builder().config(role.config()).identity(role.identity_of(role.index)).start()?;
    let addr = *node.local_addrs().first().ok_or("the node listens nowhere")?;
    let others = (0..role.nodes).filter(|index| *index != role.index);
    let peers = others.map(|index| (index, role.peer_id_of(index))).collect();
    let view = match &role.view {
        Some(dir) => {
            std::fs::create_dir_all(dir).map_err(|error| format!("--view: cannot make {dir:?}: {error}"))?;
            Some(View::serve(&node, &dir.join(format!("node-{}.sock", role.index)))?)
        }
        None => None,
    };
    let (reporter, paths, slow) = (Reporter::new(), Paths::default(), Slow::default());
    let shared = Arc::new(Shared { role, node, reporter, peers, paths, view, slow });
    shared.reporter.report(&[Report::Ready { addr }])?;

    let (jobs, receiver) = bounded(1 << 16);
    let mut threads = Vec::new();
    for lane in [URGENT, NORMAL, BULK] {
        let receiver = shared.node.lane_receiver(lane).ok_or("the lane has a receiver already")?;
        let (shared, jobs) = (Arc::clone(&shared), jobs.clone());
        threads.push(spawn(&format!("receive-{lane}"), move || receive(&shared, &receiver, &jobs))?);
    }
    threads.push(spawn("sender", {
        let shared = Arc::clone(&shared);
        move || sender::run(&shared, &receiver)
    })?);
    threads.push(spawn("monitor", {
        let (shared, jobs) = (Arc::clone(&shared), jobs.clone());
        move || monitor::run(&shared, &jobs)
    })?);

    obey(&shared, &jobs)?;
    shared.slow.set(Duration::ZERO);
    let events_lost = shared.node.snapshot().events_lost;
    if events_lost > 0 {
        shared.reporter.report(&[Report::EventsLost(events_lost)])?;
    }
    shared.node.shutdown(GRACE);
    drop(jobs);
    for thread in threads {
        thread.join().map_err(|_| "a thread of the node panicked")??;
    }
    Ok(())
}

type Outcome = Result<(), Failure>;

pub(crate) fn spawn(
    name: &str,
    run: impl FnOnce() -> Outcome + Send + 'static,
) -> io::Result<thread::JoinHandle<Outcome>> {
    thread::Builder::new().name(name.into()).spawn(run)
}

/// Does what the parent says, until it says to quit or has gone.
fn obey(shared: &Shared, jobs: &Sender<Job>) -> Outcome {
    for line in io::stdin().lock().lines() {
        let line = line?;
        match serde_json::from_str(&line).map_err(|error| format!("{line:?} is no command: {error}"))? {
            Command::Peers(addrs) => {
                for (index, addrs) in addrs {
                    let id = Some(shared.role.peer_id_of(index));
                    shared.paths.learn(&addrs);
                    let mut addrs = addrs.iter().map(SocketAddr::to_string);
                    let address = addrs.next().ok_or("a peer without address")?;
                    let alternatives = addrs.collect();
                    shared.node.add_peer(PeerConfig {
                        address,
                        alternatives,
                        id,
                        important: true,
                        ..PeerConfig::default()
                    })?;
                }
            }
            Command::Replace { peer } => {
                for (index, id) in
                    shared.peers.iter().filter(|(index, _)| peer.is_none_or(|peer| peer == *index))
                {
                    if let Err(error) = shared.node.replace(*id) {
                        log::warn!("connections to node {index} are not replaced: {error}");
                    }
                }
            }
            Command::Work(work) => jobs.send(Job::Work(work))?,
            Command::Row(row) => jobs.send(Job::Row(row))?,
            Command::Slow { ms } => shared.slow.set(Duration::from_millis(ms)),
            Command::Dump => {
                let state = serde_json::to_string(&shared.node.snapshot())?;
                shared.reporter.report(&[Report::State(state)])?;
            }
            Command::Quit => return Ok(()),
        }
    }
    Ok(())
}

/// Receives one lane: verifies, reports, and only then lets the messages go, which ends their receipts.
fn receive(shared: &Shared, receiver: &LaneReceiver, jobs: &Sender<Job>) -> Outcome {
    let mut lives = std::collections::HashMap::new();
    loop {
        let slow = receiver.lane() != URGENT && shared.slow.is_on();
        let Ok(mut messages) = receiver.recv_batch(if slow { 1 } else { BATCH }) else { return Ok(()) };
        if slow {
            shared.slow.pause();
        }
        let mut reports: Vec<Report> = Vec::new();
        for message in &mut messages {
            let (peer, lane, life) = (message.peer(), message.lane(), message.incarnation());
            let verified =
                content::verify(message.bytes(), shared.role.index, shared.role.seed).and_then(|header| {
                    let known = lives.entry((header.from, header.life)).or_insert(life);
                    let sender = shared.peers.iter().find(|(index, _)| *index == header.from);
                    if sender.is_none_or(|(_, id)| *id != peer) || header.kind.lane() != lane {
                        return Err(format!("{header:?} came from {} on lane {lane}", peer.short()));
                    }
                    if *known != life {
                        return Err(format!("{header:?} is said to be of another life of its sender"));
                    }
                    Ok(header)
                });
            match verified {
                Err(why) => reports.push(Report::Bad { why }),
                Ok(header) if lane == URGENT => {
                    if header.kind == Kind::Proposal
                        && let Err(TrySendError::Disconnected(_)) = jobs.try_send(Job::Vote)
                    {
                        return Ok(());
                    }
                    reports.push(Report::Vote {
                        from: header.from,
                        life: header.life,
                        seq: header.seq,
                        sent_us: header.sent_us,
                        received_us: content::now_us(),
                    });
                }
                Ok(header) => push_got(&mut reports, lane, header.from, header.life, header.seq),
            }
        }
        shared.reporter.report(&reports)?;
        // Backwards, since a lane must cope with any order.
        messages.into_iter().rev().for_each(Message::done);
    }
}

fn push_got(reports: &mut Vec<Report>, lane: LaneId, from: usize, life: u32, seq: u64) {
    if let Some(Report::Got { from: last_from, life: last_life, last, .. }) = reports.last_mut()
        && (*last_from, *last_life, *last + 1) == (from, life, seq)
    {
        *last = seq;
        return;
    }
    reports.push(Report::Got { lane: lane.0, from, life, first: seq, last: seq });
}

/// How long the application takes over a message.
#[derive(Default)]
struct Slow {
    pause: Mutex<Duration>,
    changed: Condvar,
}

impl Slow {
    fn set(&self, pause: Duration) {
        *self.pause.lock().unwrap_or_else(PoisonError::into_inner) = pause;
        self.changed.notify_all();
    }

    fn is_on(&self) -> bool {
        !self.pause.lock().unwrap_or_else(PoisonError::into_inner).is_zero()
    }

    /// Ends early when it is no longer slow.
    fn pause(&self) {
        let pause = self.pause.lock().unwrap_or_else(PoisonError::into_inner);
        let time = *pause;
        let wait = self.changed.wait_timeout_while(pause, time, |pause| !pause.is_zero());
        drop(wait.unwrap_or_else(PoisonError::into_inner));
    }
}

/// Waits for a job, at most until `deadline`.
pub(crate) fn next_job(jobs: &Receiver<Job>, deadline: Instant) -> Result<Option<Job>, Closed> {
    match jobs.recv_deadline(deadline) {
        Ok(job) => Ok(Some(job)),
        Err(crossbeam_channel::RecvTimeoutError::Timeout) => Ok(None),
        Err(crossbeam_channel::RecvTimeoutError::Disconnected) => Err(Closed),
    }
}

/// Nobody gives jobs any longer.
pub(crate) struct Closed;
