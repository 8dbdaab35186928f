//! The reports of a node about its links: the decisions of the library and why, and how the links are.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use unbroken::{
    ConnId, ConnSnapshot, ConnState, EndCause, Event, GoawayReason, PeerId, PeerSnapshot, ReplaceReason,
    ScoreParts,
};

use crate::Failure;
use crate::content;
use crate::node::Shared;
use crate::sender::Job;
use crate::wire::{LinkFigures, LinkNews, News, Report};

/// Events that are reported together.
const BATCH: usize = 64;
/// Time between two reports of how the links are.
const EVERY: Duration = Duration::from_millis(250);
/// Parts of a score above this are not worth a word.
const FINE: f64 = 0.95;

/// Where peers are dialled: the addresses of each, one for each path.
#[derive(Default)]
pub(crate) struct Paths(Mutex<HashMap<SocketAddr, usize>>);

impl Paths {
    pub(crate) fn learn(&self, addrs: &[SocketAddr]) {
        let mut paths = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        paths.extend(addrs.iter().enumerate().map(|(path, addr)| (*addr, path)));
    }

    fn of(&self, addr: SocketAddr) -> Option<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&addr).copied()
    }
}

struct Replacing {
    slot: u8,
    reason: ReplaceReason,
    since: Instant,
}

struct Monitor<'a> {
    shared: &'a Shared,
    /// The paths of the connections that this node dialled.
    dialled: HashMap<ConnId, Option<usize>>,
    replacing: HashMap<ConnId, Replacing>,
    /// Those that a successor has relieved.
    relieved: HashSet<ConnId>,
}

/// Runs until the node has shut down.
pub(crate) fn run(shared: &Shared, jobs: &Sender<Job>) -> Result<(), Failure> {
    let mut monitor = Monitor::new(shared);
    let mut up = HashSet::new();
    let mut due = Instant::now();
    loop {
        let wait = due.saturating_duration_since(Instant::now());
        let Ok(events) = shared.node.recv_batch(BATCH, wait) else { return Ok(()) };
        let mut reports = Vec::new();
        for event in &events {
            log::info!("node {}: {event:?}", shared.role.index);
            let Some((id, news)) = monitor.news_of(event) else { continue };
            if news.news == News::Up && up.insert(id) && up.len() == shared.peers.len() {
                jobs.send(Job::Linked)?;
            }
            if let Some(view) = &shared.view {
                let event = format!("{:?}", news.news).to_lowercase();
                view.event(Some(id), &event, &format!("{event} {}", news.why));
            }
            reports.push(Report::Link(news));
        }
        if Instant::now() >= due {
            due = Instant::now() + EVERY;
            reports.push(Report::Links { at_us: content::now_us(), links: monitor.figures() });
        }
        shared.reporter.report(&reports)?;
    }
}

impl<'a> Monitor<'a> {
    fn new(shared: &'a Shared) -> Self {
        Monitor { shared, dialled: HashMap::new(), replacing: HashMap::new(), relieved: HashSet::new() }
    }

    /// The meaning of an event that concerns a peer's link.
    fn news_of(&mut self, event: &Event) -> Option<(PeerId, LinkNews)> {
        let peer_of = |id: &PeerId| self.shared.peers.iter().find(|(_, peer)| peer == id);
        let plain = |id: &PeerId, news, why: String| {
            let (peer, id) = peer_of(id)?;
            let (at_us, peer) = (content::now_us(), *peer);
            let news = LinkNews {
                peer,
                at_us,
                news,
                conn: None,
                path: None,
                slot: None,
                dialled: false,
                superfluous: false,
                reason: None,
                ping_ms: None,
                why,
            };
            Some((*id, news))
        };
        match event {
            Event::LinkUp { peer, .. } => plain(peer, News::Up, String::new()),
            Event::LinkDegraded { peer } => plain(peer, News::Degraded, String::new()),
            Event::LinkDown { peer, reason } => plain(peer, News::Down, reason.to_string()),
            Event::PeerRestarted { peer, resent, .. } => {
                plain(peer, News::Restarted, format!("{resent} messages sent again"))
            }
            Event::Lost { peer, messages, .. } => plain(peer, News::Lost, format!("{messages} messages")),
            Event::Connected { peer, conn, addr, dialled } => {
                let (id, news) = plain(peer, News::Connected, String::new())?;
                let path = dialled.then(|| self.shared.paths.of(*addr));
                if let Some(path) = path {
                    self.dialled.insert(*conn, path);
                }
                let slot = self.shared.node.peer(id).and_then(|peer| slot_of(&peer, *conn));
                let news = LinkNews { dialled: *dialled, slot, path: path.flatten(), ..news };
                Some((id, LinkNews { conn: Some(conn.get()), ..news }))
            }
            Event::Disconnected { peer, conn, reason } => {
                let (id, mut news) = plain(peer, News::Disconnected, reason.to_string())?;
                let relieved = self.relieved.remove(conn);
                match reason.cause {
                    // Only the end at which the successor proved itself first is told of it as such.
                    EndCause::Goaway(GoawayReason::Replaced) if !relieved => {
                        news = self.replaced(*conn, None, LinkNews { news: News::Replaced, ..news });
                    }
                    EndCause::Goaway(GoawayReason::Duplicate) => news.superfluous = !relieved,
                    _ => {}
                }
                let dialled = self.dialled.remove(conn).is_some();
                self.replacing.remove(conn);
                self.relieved.remove(conn);
                Some((id, LinkNews { dialled, conn: Some(conn.get()), ..news }))
            }
            Event::Suspect { peer, conn } => self.of_conn(plain(peer, News::Suspect, String::new())?, *conn),
            Event::Recovered { peer, conn } => {
                self.of_conn(plain(peer, News::Recovered, String::new())?, *conn)
            }
            Event::ConnDegraded { peer, conn } => {
                self.of_conn(plain(peer, News::Poor, String::new())?, *conn)
            }
            Event::ConnHealthy { peer, conn } => self.of_conn(plain(peer, News::Well, String::new())?, *conn),
            Event::Replacing { peer, conn, slot, reason } => {
                let (id, news) = plain(peer, News::Replacing, format!("{conn} in place {slot}"))?;
                let begun = Replacing { slot: *slot, reason: *reason, since: Instant::now() };
                // Every attempt is told; the first one counts.
                self.replacing.entry(*conn).or_insert(begun);
                Some((id, LinkNews { slot: Some(*slot), reason: Some(*reason), ..news }))
            }
            Event::Replaced { peer, old, new } => {
                let (id, news) = plain(peer, News::Replaced, String::new())?;
                Some((id, self.replaced(*old, Some(*new), news)))
            }
            Event::PingIntervalLearned { peer, ping_interval } => {
                let (id, news) =
                    plain(peer, News::Learned, format!("every {ping_interval:.0?} from now on"))?;
                Some((id, LinkNews { ping_ms: Some(ping_interval.as_secs_f64() * 1e3), ..news }))
            }
            _ => None,
        }
    }

    /// Adds what is known of the connection: its place, its path, its score.
    fn of_conn(&self, (id, news): (PeerId, LinkNews), conn: ConnId) -> Option<(PeerId, LinkNews)> {
        let dialled = self.dialled.get(&conn);
        let peer = self.shared.node.peer(id);
        let snapshot = peer.iter().flat_map(|peer| &peer.connections).find(|other| other.id == conn);
        let path = dialled.copied().flatten().map(|path| format!(" by path {path}")).unwrap_or_default();
        let why = match snapshot {
            Some(ConnSnapshot { slot, score, score_parts, .. }) => {
                format!("{conn} in place {slot}{path}, score {score:.2}{}", in_words(score_parts))
            }
            None => format!("{conn}{path}"),
        };
        let slot = snapshot.map(|conn| conn.slot);
        Some((id, LinkNews { slot, dialled: dialled.is_some(), why, ..news }))
    }

    /// `new`: if it is known.
    fn replaced(&mut self, old: ConnId, new: Option<ConnId>, news: LinkNews) -> LinkNews {
        let path_of = |conn| self.dialled.get(&conn).copied().flatten();
        let paths = match (path_of(old), new.and_then(path_of)) {
            (Some(old), Some(new)) => format!(", path {old} to {new}"),
            (Some(old), None) => format!(", was by path {old}"),
            _ => String::new(),
        };
        let by = new.map_or_else(|| ", says the peer".into(), |new| format!(" by {new}"));
        self.relieved.insert(old);
        let begun = self.replacing.remove(&old);
        let (slot, took) = match &begun {
            Some(begun) => {
                let took = begun.since.elapsed().as_millis();
                (format!(" in place {}", begun.slot), format!(" after {took} ms"))
            }
            None => Default::default(),
        };
        LinkNews {
            conn: Some(old.get()),
            slot: begun.as_ref().map(|begun| begun.slot),
            dialled: self.dialled.contains_key(&old),
            reason: begun.map(|begun| begun.reason),
            why: format!("{old}{slot}{by}{paths}{took}"),
            ..news
        }
    }

    fn figures(&self) -> Vec<LinkFigures> {
        let peers = self.shared.node.peers();
        let figures = |(peer, id): &(usize, PeerId)| {
            let snapshot = peers.iter().find(|snapshot| snapshot.peer == Some(*id))?;
            Some(self.figures_of(*peer, snapshot))
        };
        self.shared.peers.iter().filter_map(figures).collect()
    }

    fn figures_of(&self, peer: usize, snapshot: &PeerSnapshot) -> LinkFigures {
        let conns = &snapshot.connections;
        let serving = conns.iter().filter(|conn| conn.state != ConnState::Draining);
        let up: Vec<_> =
            conns.iter().filter(|conn| conn.state == ConnState::Up && conn.rtt_ms.is_some()).collect();
        let oldest_ms = serving.clone().map(|conn| conn.age_ms).fold(0.0, f64::max);
        let worst = serving.min_by(|a, b| a.score.total_cmp(&b.score));
        let dialled = up.iter().filter(|conn| conn.dialled);
        LinkFigures {
            peer,
            up: up.len(),
            wanted: usize::from(snapshot.connections_wanted),
            oldest_us: content::now_us().saturating_sub((oldest_ms * 1e3) as u64),
            score: worst.map_or(0.0, |conn| conn.score),
            parts: worst.map(|conn| in_words(&conn.score_parts)).unwrap_or_default(),
            peer_score: snapshot.score,
            rtt_ms: up.iter().filter_map(|conn| conn.rtt_ms).reduce(f64::max),
            ping_ms: snapshot.ping_interval_ms.unwrap_or_default(),
            paths: dialled.filter_map(|conn| Some((conn.slot, self.shared.paths.of(conn.addr)?))).collect(),
        }
    }
}

fn slot_of(peer: &PeerSnapshot, conn: ConnId) -> Option<u8> {
    peer.connections.iter().find(|other| other.id == conn).map(|conn| conn.slot)
}

/// The parts of a score that are low.
fn in_words(parts: &ScoreParts) -> String {
    let all = [
        ("answers", parts.answers),
        ("retransmission", parts.retransmission),
        ("path", parts.path),
        ("round trip", parts.round_trip),
        ("writer", parts.writer),
        ("window", parts.window),
    ];
    let bad: Vec<_> = all.iter().filter(|(_, part)| *part < FINE).collect();
    let bad: Vec<_> = bad.iter().map(|(name, part)| format!("{name} {part:.2}")).collect();
    if bad.is_empty() { String::new() } else { format!(" ({})", bad.join(", ")) }
}
