//! The serving side.
//!
//! ```text
//!   threads of the node -- events, never waits --> hub --> queue, bounded --> writer --> dashboard
//!                                                   ^                                        |
//!   snapshots, 4 a second <-------------------------+<------- commands ------- reader <------+
//! ```
//!
//! One hub thread, and two threads for each dashboard. All queues are bounded. The node never waits for any
//! of this: an event for which there is no room is counted and left out, and a dashboard whose queue is full
//! is disconnected; it attaches again when it has caught up. A node without a dashboard takes no snapshots.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, after, bounded, never, select, tick};
use socket2::{Domain, SockAddr, Socket, Type};
use unbroken::{BanTarget, ConnSnapshot, LaneSnapshot, Node, PeerId, PeerSnapshot};

use super::wire::{
    Action, Answer, Command, Conn, Event, FromNode, Lane, MAX_COMMAND, MAX_TEXT, Peer, Snapshot,
};

/// Time between two snapshots. Dashboards that attach wait for at most as long.
const EVERY: Duration = Duration::from_millis(250);
/// Events that come within this time of the first one go in one line: a burst of them does not make a
/// dashboard slow.
const GATHER: Duration = Duration::from_millis(50);
/// Dashboards at a time.
const MAX_DASHBOARDS: usize = 8;
/// Lines that wait for one dashboard.
const LINES: usize = 32;
/// While more lines wait for a dashboard it gets no snapshots, which may be large: a later one tells the
/// same.
const LINES_BEFORE_SNAPSHOT: usize = 4;
/// Events that wait for the hub, and that it gathers.
const EVENTS: usize = 1024;
/// Events that a new dashboard is told of.
const REMEMBERED: usize = 200;
/// A dashboard that reads nothing for so long has vanished.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the key `b` of a dashboard keeps a peer out.
const BAN_TIME: Duration = Duration::from_secs(3600);

/// The live view of a node. It ends, and its socket's file goes, when this is dropped.
pub(crate) struct View {
    start: Instant,
    events: Sender<Event>,
    lost: Arc<AtomicU64>,
    hub: Option<(Sender<()>, JoinHandle<()>)>,
    socket: SocketFile,
}

impl View {
    /// Serves the view at `path` from now on. The file of a process that has died is replaced.
    ///
    /// # Errors
    /// When there is another file, or another process serves it.
    pub(crate) fn serve(node: &Node, path: &Path) -> io::Result<View> {
        let start = Instant::now();
        let (listener, socket) = listen(path)
            .map_err(|error| io::Error::new(error.kind(), format!("cannot serve {path:?}: {error}")))?;
        let (events, new_events) = bounded(EVENTS);
        let (quit, quitting) = bounded(0);
        let lost = Arc::new(AtomicU64::new(0));
        let hub = Hub {
            node: node.clone(),
            start,
            listener,
            lost: Arc::clone(&lost),
            told_lost: 0,
            dashboards: Vec::new(),
            opened: 0,
            remembered: VecDeque::new(),
            replaced: HashMap::new(),
        };
        let run = move || hub.run(&new_events, &quitting);
        let thread = thread::Builder::new().name("view".into()).spawn(run)?;
        Ok(View { start, events, lost, hub: Some((quit, thread)), socket })
    }

    /// Passes on what happened. Never waits.
    pub(crate) fn event(&self, peer: Option<PeerId>, event: &str, text: &str) {
        let event = Event {
            t_ms: millis(self.start.elapsed()),
            peer: peer.map(|peer| peer.to_string()).unwrap_or_default(),
            event: event.into(),
            text: clip(text),
        };
        if self.events.try_send(event).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // First the file, so that nobody attaches to what is about to end.
        self.socket.remove();
        if let Some((quit, thread)) = self.hub.take() {
            drop(quit);
            // It panicked if that fails, which has been printed.
            let _ = thread.join();
        }
    }
}

/// The file of a socket, as it was when it was made.
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// Only if it still is the same one: another process may have put its own there.
    fn remove(&self) {
        let is_ours = |file: &fs::Metadata| (file.dev(), file.ino()) == (self.device, self.inode);
        if fs::symlink_metadata(&self.path).is_ok_and(|file| is_ours(&file))
            && let Err(error) = fs::remove_file(&self.path)
        {
            log::warn!("the socket {:?} stays: {error}", self.path);
        }
    }
}

fn listen(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Before it listens: until then nobody can connect, whatever the mode.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    socket.listen(MAX_DASHBOARDS as i32)?;
    // The hub looks for new dashboards once in a while and waits for none.
    socket.set_nonblocking(true)?;
    let file = fs::symlink_metadata(path)?;
    let file = SocketFile { path: path.into(), device: file.dev(), inode: file.ino() };
    Ok((UnixListener::from(std::os::fd::OwnedFd::from(socket)), file))
}

/// Removes the socket of a process that has died.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(file) if !file.file_type().is_socket() => {
            let why = "there is a file that is no socket, expected none or a socket";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another process serves it, expected a path of its own",
        )),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

/// One dashboard. Its threads end when this is dropped.
struct Dashboard {
    /// In the order in which they came.
    number: u64,
    stream: UnixStream,
    lines: Sender<Arc<str>>,
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        // Wakes the reader. An error means that it is closed already.
        let _ = self.stream.shutdown(Shutdown::Read);
    }
}

/// The dashboard by its number, and its line; `None` when it has gone.
type Said = (u64, Option<String>);

struct Hub {
    node: Node,
    start: Instant,
    listener: UnixListener,
    /// Events that found no room, and how many of them dashboards were told of.
    lost: Arc<AtomicU64>,
    told_lost: u64,
    dashboards: Vec<Dashboard>,
    /// Dashboards so far.
    opened: u64,
    remembered: VecDeque<Event>,
    /// How many connections of each peer were replaced, by its printed id.
    replaced: HashMap<String, u64>,
}

impl Hub {
    fn run(mut self, events: &Receiver<Event>, quitting: &Receiver<()>) {
        let (say, said) = bounded::<Said>(MAX_DASHBOARDS);
        let ticks = tick(EVERY);
        let (mut gathered, mut flush) = (Vec::new(), never());
        loop {
            select! {
                recv(ticks) -> _ => {
                    self.accept(&say);
                    self.send_snapshot();
                }
                recv(events) -> event => match event {
                    Ok(_) if gathered.len() >= EVENTS => drop(self.lost.fetch_add(1, Relaxed)),
                    Ok(event) => {
                        if gathered.is_empty() {
                            flush = after(GATHER);
                        }
                        gathered.push(event);
                    }
                    Err(_) => return,
                },
                recv(flush) -> _ => {
                    flush = never();
                    self.send_events(std::mem::take(&mut gathered));
                }
                recv(said) -> said => match said {
                    Ok((number, Some(line))) => self.obey(number, &line),
                    Ok((number, None)) => self.dashboards.retain(|dashboard| dashboard.number != number),
                    Err(_) => return,
                },
                recv(quitting) -> _ => {
                    gathered.extend(events.try_iter().take(EVENTS));
                    return self.send_events(gathered);
                }
            }
        }
    }

    // --- dashboards -----------------------------------------------------------------------------

    fn accept(&mut self, say: &Sender<Said>) {
        // An error: nobody is there, or the system is short of something; there is another tick.
        while let Ok((stream, _)) = self.listener.accept() {
            if let Err(error) = self.attach(stream, say) {
                log::debug!("a dashboard is not served: {error}");
            }
        }
    }

    fn attach(&mut self, mut stream: UnixStream, say: &Sender<Said>) -> io::Result<()> {
        // Some systems take this from the listener.
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        if self.dashboards.len() >= MAX_DASHBOARDS {
            let why = format!("{MAX_DASHBOARDS} dashboards are attached already, more are not served");
            // Fits into the socket's empty buffer: this does not wait.
            return stream.write_all(line_of(&FromNode::Refused(why))?.as_bytes());
        }
        let number = self.opened;
        self.opened += 1;
        let (lines, queue) = bounded(LINES);
        let (reading, writing, say) = (stream.try_clone()?, stream.try_clone()?, say.clone());
        let name = |role| thread::Builder::new().name(format!("view-{role}"));
        name("writer").spawn(move || write(writing, &queue))?;
        let dashboard = Dashboard { number, stream, lines };
        name("reader").spawn(move || read(number, reading, &say))?;
        if !self.remembered.is_empty() {
            let events = FromNode::Events(self.remembered.iter().cloned().collect());
            dashboard.lines.try_send(line_of(&events)?.into()).map_err(io::Error::other)?;
        }
        self.dashboards.push(dashboard);
        Ok(())
    }

    /// Sends this to the dashboards that `concerns` chooses. Those that cannot take it are disconnected.
    fn send(&mut self, message: &FromNode, concerns: impl Fn(&Dashboard) -> bool) {
        match line_of(message) {
            Ok(line) => {
                let line: Arc<str> = line.into();
                let taken = |dashboard: &Dashboard| !concerns(dashboard) || dashboard.send(Arc::clone(&line));
                self.dashboards.retain(taken);
            }
            Err(error) => log::warn!("dashboards are not told: {error}"),
        }
    }

    fn send_events(&mut self, mut events: Vec<Event>) {
        for event in events.iter().filter(|event| event.event == "replaced") {
            *self.replaced.entry(event.peer.clone()).or_default() += 1;
        }
        let lost = self.lost.load(Relaxed);
        if lost > self.told_lost {
            let text = format!("{} events were left out: too many came at once", lost - self.told_lost);
            self.told_lost = lost;
            events.push(Event { t_ms: millis(self.start.elapsed()), text, ..Event::default() });
        }
        self.remembered.extend(events.iter().cloned());
        let excess = self.remembered.len().saturating_sub(REMEMBERED);
        self.remembered.drain(..excess);
        if !self.dashboards.is_empty() && !events.is_empty() {
            self.send(&FromNode::Events(events), |_| true);
        }
    }

    fn send_snapshot(&mut self) {
        let has_room = |dashboard: &Dashboard| dashboard.lines.len() <= LINES_BEFORE_SNAPSHOT;
        if !self.dashboards.iter().any(has_room) {
            return;
        }
        let of_node = self.node.snapshot();
        let bans: Vec<_> = self.node.bans().into_iter().map(|ban| ban.who).collect();
        let known: HashSet<String> =
            of_node.peers.iter().filter_map(|peer| peer.peer).map(|id| id.to_string()).collect();
        self.replaced.retain(|peer, _| known.contains(peer));
        let snapshot = Snapshot {
            t_ms: millis(self.start.elapsed()),
            id: self.node.id().to_string(),
            name: self.node.config().name.clone(),
            listening: self.node.local_addrs().iter().map(ToString::to_string).collect(),
            connections: of_node.connections as u64,
            queued_bytes: of_node.queued_bytes as u64,
            inbox_bytes: of_node.inbox_bytes,
            candidates: of_node.candidates as u64,
            replacements: of_node.replacements as u64,
            refused: of_node.refused,
            evicted: of_node.evicted,
            banned: of_node.banned as u64,
            events_lost: of_node.events_lost,
            peers: of_node.peers.into_iter().map(|peer| self.of_peer(peer, &bans)).collect(),
        };
        self.send(&FromNode::Snapshot(Box::new(snapshot)), has_room);
    }

    fn of_peer(&self, peer: PeerSnapshot, bans: &[BanTarget]) -> Peer {
        let id = peer.peer.map(|id| id.to_string()).unwrap_or_default();
        Peer {
            name: clip(peer.label.as_ref().unwrap_or(&peer.name)),
            addresses: peer.addresses,
            important: peer.important,
            banned: peer.peer.is_some_and(|id| bans.contains(&id.into())),
            state: format!("{:?}", peer.state).to_lowercase(),
            state_age_ms: peer.state_age_ms,
            score: peer.score,
            rtt_ms: peer.rtt_ms,
            ping_interval_ms: peer.ping_interval_ms,
            connections_wanted: peer.connections_wanted,
            connections: peer.connections.iter().map(of_conn).collect(),
            lanes: peer.lanes.iter().map(of_lane).collect(),
            reconnects: peer.reconnects,
            replaced: self.replaced.get(&id).copied().unwrap_or(0),
            bytes_sent: peer.bytes_sent,
            bytes_received: peer.bytes_received,
            messages_sent: peer.messages_sent,
            messages_received: peer.messages_received,
            failures: peer.failures,
            next_dial_ms: peer.next_dial_ms,
            last_error: peer.last_error.map(|error| clip(&error.to_string())),
            id,
        }
    }

    // --- commands -------------------------------------------------------------------------------

    fn obey(&mut self, number: u64, line: &str) {
        let answer = match serde_json::from_str::<Command>(line) {
            Err(error) => Answer {
                error: Some(format!(
                    "{:?} is no command ({error}), expected one like {{\"command\":\"ping\",\"peer\":\"ID\"}}",
                    clip(line)
                )),
                ..Answer::default()
            },
            Ok(Command { command, peer }) => {
                let (ok, error) = match self.act(command, &peer) {
                    Ok(done) => (Some(done), None),
                    Err(why) => (None, Some(why)),
                };
                log::info!("a dashboard asks to {command:?} {peer}: {ok:?} {error:?}");
                Answer { command: Some(command), peer, ok, error }
            }
        };
        self.send(&FromNode::Answer(answer), |dashboard| dashboard.number == number);
    }

    fn act(&self, action: Action, peer: &str) -> Result<String, String> {
        let id = match peer.parse::<PeerId>() {
            Ok(id) => id,
            // One that has not answered yet has no name.
            Err(_) if action == Action::Disconnect && self.node.remove_address(peer) => {
                return Ok("it is not dialled any longer".into());
            }
            Err(error) => return Err(format!("{error}, expected the id of a peer")),
        };
        let unknown =
            || format!("there is no link to {}, expected the id of a peer of this node", id.short());
        match action {
            Action::Ping => match self.node.ping(id) {
                0 if self.node.peer(id).is_none() => Err(unknown()),
                0 => Err("it has no connection to send a ping on".into()),
                asked => Ok(format!("{} asked", connections(asked))),
            },
            Action::Replace => match self.node.replace(id) {
                Ok(1) => Ok("1 connection gets a successor".into()),
                Ok(count) => Ok(format!("{} get a successor", connections(count))),
                Err(error) => Err(error.to_string()),
            },
            Action::Disconnect if self.node.remove_peer(id) => {
                Ok("its link has ended, it is not dialled any longer".into())
            }
            Action::Disconnect => Err(unknown()),
            Action::Ban => {
                self.node.ban(id, Some(BAN_TIME));
                Ok(format!("banned for {} minutes", BAN_TIME.as_secs() / 60))
            }
            Action::Unban if self.node.unban(id) => Ok("the ban is lifted".into()),
            Action::Unban => Err(format!("{} is not banned", id.short())),
        }
    }
}

impl Dashboard {
    /// False when it is to be disconnected.
    fn send(&self, line: Arc<str>) -> bool {
        match self.lines.try_send(line) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                log::debug!("a dashboard reads too slowly and is disconnected");
                false
            }
            Err(TrySendError::Disconnected(_)) => false,
        }
    }
}

/// Writes until the dashboard has vanished or the hub has let it go.
fn write(mut stream: UnixStream, lines: &Receiver<Arc<str>>) {
    while let Ok(line) = lines.recv() {
        if stream.write_all(line.as_bytes()).is_err() {
            break;
        }
    }
    // The reader ends with it.
    let _ = stream.shutdown(Shutdown::Both);
}

/// Reads commands until the dashboard has vanished or the hub has let it go.
fn read(number: u64, stream: UnixStream, say: &Sender<Said>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        let mut limited = stream.by_ref().take(MAX_COMMAND as u64);
        let is_whole =
            limited.read_until(b'\n', &mut line).is_ok_and(|_| line.pop_if(|end| *end == b'\n').is_some());
        let line = is_whole.then(|| String::from_utf8_lossy(&line).into_owned());
        // A dashboard waits until the hub has time for its command.
        if say.send((number, line)).is_err() || !is_whole {
            return;
        }
    }
}

fn line_of(message: &FromNode) -> io::Result<String> {
    let mut line = serde_json::to_string(message)?;
    line.push('\n');
    Ok(line)
}

fn of_conn(conn: &ConnSnapshot) -> Conn {
    let kernel = conn.kernel.as_ref();
    let loss = kernel.and_then(|kernel| {
        let sent = kernel.data_segs_out.filter(|sent| *sent > 0)?;
        Some((f64::from(kernel.total_retrans) / f64::from(sent)).min(1.0))
    });
    Conn {
        id: conn.id.get(),
        slot: conn.slot,
        addr: conn.addr.to_string(),
        dialled: conn.dialled,
        state: format!("{:?}", conn.state).to_lowercase(),
        age_ms: conn.age_ms,
        silent_ms: conn.silent_ms,
        rtt_ms: conn.rtt_ms,
        score: conn.score,
        loss,
        bytes_sent: conn.bytes_sent,
        bytes_received: conn.bytes_received,
    }
}

fn of_lane(lane: &LaneSnapshot) -> Lane {
    Lane {
        name: lane.lane.to_string(),
        queued_messages: lane.queued_messages as u64,
        queued_bytes: lane.queued_bytes as u64,
        credit: lane.credit,
        taken: lane.taken_messages,
        expired: lane.expired_messages,
        dropped: lane.dropped_messages + lane.displaced_messages,
        resent_bytes: lane.resent_bytes,
        inbox_messages: lane.inbox_messages as u64,
        inbox_bytes: lane.inbox_bytes,
    }
}

fn connections(count: usize) -> String {
    format!("{count} connection{}", if count == 1 { "" } else { "s" })
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// No longer than [`MAX_TEXT`] bytes.
fn clip(text: &str) -> String {
    let end = (0..=MAX_TEXT.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default().into()
}
