//! The main loop: one thread that waits for whatever comes first - an event of the node, a receipt, a
//! signal, or the time for the next message.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Select, bounded};
use unbroken::{
    ConnId, Event, Message, Node, Outcome, Outgoing, PeerId, PeerRecord, Receipt, RetireReason, SendErrorKind,
};

use crate::args::Args;
use crate::records;
use crate::report::Reporter;
use crate::tally::{LinkTally, Tally};
use crate::view::View;
use crate::vote::{self, Checker, Kind, Sequence};

/// How long the end may take.
const GRACE: Duration = Duration::from_secs(5);
/// Events that are handled before the clock and the receipts are looked at again.
const BATCH: usize = 256;
/// How often what is known of peers is written to its file.
const SAVE_EVERY: Duration = Duration::from_secs(60);

pub(crate) struct Run {
    node: Node,
    args: Args,
    report: Reporter,
    start: Instant,
    peers: BTreeMap<PeerId, Peer>,
    checker: Checker,
    plans: [Plan; 2],
    /// When sending may begin: known once the first link is up.
    send_from: Option<Instant>,
    /// When the records are due to be written; `None` without a file for them.
    save_at: Option<Instant>,
    /// Closed when the node has said its goodbyes; `None` until it stops.
    stopped: Option<Receiver<()>>,
}

/// When the next message of a kind goes to all peers.
struct Plan {
    kind: Kind,
    every: Option<Duration>,
    size: usize,
    next: Option<Instant>,
}

#[derive(Default)]
struct Peer {
    link: LinkTally,
    lanes: [Lane; 2],
}

/// The messages of one kind to one peer. Their numbers are per peer, so that a missing number is a
/// missing message.
#[derive(Default)]
struct Lane {
    last_seq: u64,
    pending: VecDeque<Pending>,
    tally: Tally,
}

struct Pending {
    seq: u64,
    sent: Instant,
    receipt: Receipt,
    /// Asked for when it is the oldest: a lane's receipts end in order.
    ready: Option<Receiver<()>>,
}

impl Peer {
    fn lane(&mut self, kind: Kind) -> &mut Lane {
        let [vote, bulk] = &mut self.lanes;
        match kind {
            Kind::Vote => vote,
            Kind::Bulk => bulk,
        }
    }
}

impl Run {
    pub(crate) fn new(node: Node, args: Args, view: Option<View>) -> Self {
        let start = Instant::now();
        let plan = |kind, every, size| Plan { kind, every, size, next: None };
        Run {
            report: Reporter::new(args.json, start, view),
            start,
            peers: BTreeMap::new(),
            checker: Checker::default(),
            plans: [
                plan(Kind::Vote, args.vote_every, vote::VOTE_SIZE),
                plan(Kind::Bulk, args.bulk_every, args.bulk_size),
            ],
            send_from: None,
            save_at: args.records.is_some().then(|| start + SAVE_EVERY),
            stopped: None,
            node,
            args,
        }
    }

    /// Runs until the time is over or a signal comes. True when every message came through.
    pub(crate) fn run(mut self, signals: &Receiver<i32>) -> io::Result<bool> {
        let id = self.node.id();
        let line = self.report.event("started").with("id", id.to_string());
        line.with("incarnation", self.node.incarnation().to_string())
            .say(&self.node, format_args!("this is {id}"))?;
        for addr in self.node.local_addrs() {
            let line = self.report.event("listening").with("addr", addr.to_string());
            line.say(&self.node, format_args!("listening on {addr}"))?;
        }
        let mut at_once = false;
        loop {
            let deadline = self.send_due()?.into_iter().chain(self.save_due()?).min();
            self.wait(signals, deadline);
            let is_over = self.args.run_for.is_some_and(|run_for| self.start.elapsed() >= run_for);
            if is_over || !signals.is_empty() {
                let why = if is_over { "the time is over" } else { "a signal came" };
                // A second signal ends it at once.
                if self.stopped.is_some() && signals.try_recv().is_ok() {
                    at_once = true;
                    break;
                }
                if self.stopped.is_none() {
                    let _ = signals.try_recv();
                    self.stop(why)?;
                }
            }
            // The token is taken before the events, so that what comes later leaves a new one.
            let _ = self.node.ready().try_recv();
            let Ok(events) = self.node.recv_batch(BATCH, Duration::ZERO) else { break };
            events.into_iter().try_for_each(|event| self.handle(event))?;
            self.collect_receipts()?;
        }
        if let Some(stopped) = self.stopped.as_ref().filter(|_| !at_once) {
            // The goodbyes; a second signal ends them too.
            let mut select = Select::new();
            select.recv(stopped);
            select.recv(signals);
            select.ready();
        }
        self.collect_receipts()?;
        self.summary()
    }

    /// Begins the end: what was accepted still goes out, and what comes in is still taken.
    fn stop(&mut self, why: &str) -> io::Result<()> {
        // While the links still are what they were.
        self.save()?;
        self.save_at = None;
        let (done, stopped) = bounded::<()>(0);
        self.stopped = Some(stopped);
        self.report.event("stopping").with("why", why).say(&self.node, format_args!("stopping: {why}"))?;
        let node = self.node.clone();
        std::thread::Builder::new().name("shutdown".into()).spawn(move || {
            node.shutdown(GRACE);
            drop(done);
        })?;
        Ok(())
    }

    /// Writes the records when it is time to. Returns when it is next.
    fn save_due(&mut self) -> io::Result<Option<Instant>> {
        if self.save_at.is_some_and(|at| at <= Instant::now()) {
            self.save()?;
            self.save_at = Some(Instant::now() + SAVE_EVERY);
        }
        Ok(self.save_at)
    }

    /// A file that cannot be written is no reason to end: the links matter more.
    fn save(&self) -> io::Result<()> {
        let Some(path) = &self.args.records else { return Ok(()) };
        let known: Vec<PeerRecord> = self.node.records();
        match records::save(path, &known) {
            Ok(()) => {
                let line = self.report.event("records_saved").with("peers", known.len());
                line.say(&self.node, format_args!("records of {} peers saved", known.len()))
            }
            Err(error) => {
                let text = format!("records not saved: {error}");
                self.report.event("records_not_saved").with("reason", error.to_string()).say(&self.node, text)
            }
        }
    }

    /// Waits for an event, the oldest receipts, a signal, or `deadline`.
    fn wait(&mut self, signals: &Receiver<i32>, deadline: Option<Instant>) {
        let mut select = Select::new();
        select.recv(self.node.ready());
        select.recv(signals);
        for lane in self.peers.values_mut().flat_map(|peer| &mut peer.lanes) {
            if let Some(Pending { receipt, ready, .. }) = lane.pending.front_mut() {
                select.recv(ready.get_or_insert_with(|| receipt.ready()));
            }
        }
        let end = self.args.run_for.filter(|_| self.stopped.is_none()).map(|run_for| self.start + run_for);
        match deadline.into_iter().chain(end).min() {
            Some(deadline) => drop(select.ready_deadline(deadline)),
            None => drop(select.ready()),
        }
    }

    // --- sending --------------------------------------------------------------------------------

    /// Sends what is due. Returns the time of the next message.
    fn send_due(&mut self) -> io::Result<Option<Instant>> {
        let Some(from) = self.send_from.filter(|_| self.stopped.is_none()) else { return Ok(None) };
        let now = Instant::now();
        let mut due = Vec::new();
        for plan in &mut self.plans {
            let Some(every) = plan.every else { continue };
            let next = *plan.next.get_or_insert(from);
            if next <= now {
                due.push((plan.kind, plan.size));
                // After a pause (a frozen process) it does not catch up.
                plan.next = Some((next + every).max(now));
            }
        }
        for (kind, size) in due {
            let peers: Vec<PeerId> = self.peers.keys().copied().collect();
            peers.into_iter().try_for_each(|peer| self.send(peer, kind, size))?;
        }
        Ok(self.plans.iter().filter_map(|plan| plan.next).min())
    }

    /// Sends the next message to one peer. Whether the link is up does not matter: it waits if not.
    fn send(&mut self, peer: PeerId, kind: Kind, size: usize) -> io::Result<()> {
        let lane = self.peers.entry(peer).or_default().lane(kind);
        let seq = lane.last_seq + 1;
        let sent = Instant::now();
        let name = kind.name();
        match self.node.try_send(peer, Outgoing::new(kind.lane(), vote::encode(kind, seq, size))) {
            Ok(receipt) => {
                lane.last_seq = seq;
                lane.tally.sent += 1;
                lane.pending.push_back(Pending { seq, sent, receipt, ready: None });
                let line = self.report.event(&format!("{name}_sent")).peer(peer).seq(seq);
                line.say(&self.node, format_args!("{name} {seq} sent"))
            }
            Err(error) if *error.kind() == SendErrorKind::Closed => Ok(()), // The end has begun.
            Err(error) => {
                lane.tally.refused += 1;
                let reason = error.kind().to_string();
                let text = format!("{name} {seq} refused: {reason}");
                let line = self.report.event(&format!("{name}_refused")).peer(peer).seq(seq);
                line.with("reason", reason).say(&self.node, text)
            }
        }
    }

    fn collect_receipts(&mut self) -> io::Result<()> {
        for (id, peer) in &mut self.peers {
            for kind in Kind::ALL {
                let lane = peer.lane(kind);
                while let Some((front, outcome)) =
                    lane.pending.front().and_then(|front| Some((front, front.receipt.poll()?)))
                {
                    let (seq, delay) = (front.seq, front.sent.elapsed());
                    lane.pending.pop_front();
                    lane.tally.ended(outcome, delay);
                    let delay = delay.as_secs_f64() * 1e3;
                    let text = format!("{} {seq} {outcome} after {delay:.2} ms", kind.name());
                    let what = if outcome == Outcome::Taken { "receipt" } else { "dropped" };
                    let line = self.report.event(&format!("{}_{what}", kind.name())).peer(*id).seq(seq);
                    line.millis("delay_ms", delay)
                        .with("outcome", outcome.to_string())
                        .say(&self.node, text)?;
                }
            }
        }
        Ok(())
    }

    // --- receiving ------------------------------------------------------------------------------

    fn handle(&mut self, event: Event) -> io::Result<()> {
        let report = &self.report;
        match event {
            Event::Message(message) => self.handle_message(message),
            Event::LinkUp { peer, incarnation, after } => {
                self.peers.entry(peer).or_default().link.ups += 1;
                let name = self.node.peer(peer).map(|peer| peer.name).unwrap_or_default();
                let line = report.event("up").peer(peer).with("incarnation", incarnation.to_string());
                let line = line.with("name", name);
                match after {
                    Some(after) => line
                        .millis("after_ms", after.as_secs_f64() * 1e3)
                        .say(&self.node, format_args!("up again after {:.3} s", after.as_secs_f64()))?,
                    None => line.say(&self.node, "up")?,
                }
                self.begin_sending()
            }
            Event::LinkDown { peer, reason } => {
                self.peers.entry(peer).or_default().link.downs += 1;
                let line = report.event("down").peer(peer).with("reason", reason.to_string());
                line.say(&self.node, format_args!("down: {reason}"))
            }
            Event::LinkDegraded { peer } => {
                report.event("degraded").peer(peer).say(&self.node, "degraded: no connection above suspicion")
            }
            Event::Connected { peer, conn, addr, dialled } => {
                let how = if dialled { "dialled" } else { "accepted" };
                let line = report.event("connected").peer(peer).with("conn", conn.get());
                let line = line.with("addr", addr.to_string()).with("dialled", dialled);
                line.say(&self.node, format_args!("connection {conn} {how}, {addr}"))
            }
            Event::Disconnected { peer, conn, reason } => {
                let line = report.event("disconnected").peer(peer).with("conn", conn.get());
                let line = line.with("reason", reason.to_string());
                line.say(&self.node, format_args!("connection {conn} ended: {reason}"))
            }
            Event::Suspect { peer, conn } => {
                self.peers.entry(peer).or_default().link.suspects += 1;
                let line = report.event("suspect").peer(peer).with("conn", conn.get());
                line.say(&self.node, format_args!("connection {conn} is suspect: an answer is overdue"))
            }
            Event::Recovered { peer, conn } => {
                let line = report.event("recovered").peer(peer).with("conn", conn.get());
                line.say(&self.node, format_args!("connection {conn} is well again"))
            }
            Event::Replacing { peer, conn, slot, reason } => {
                let reason = format!("{reason:?}").to_lowercase();
                let text = format!("connection {conn} in place {slot} gets a successor: {reason}");
                let line = report.event("replacing").peer(peer).with("conn", conn.get());
                line.with("slot", slot).with("reason", reason).say(&self.node, text)
            }
            Event::Replaced { peer, old, new } => {
                let line = report.event("replaced").peer(peer).with("old", old.get()).with("new", new.get());
                line.say(&self.node, format_args!("connection {old} replaced by {new}"))
            }
            Event::ConnDegraded { peer, conn } => {
                let score = self.score_of(peer, conn);
                let text = format!("connection {conn} is poor, {}", score.as_deref().unwrap_or("and gone"));
                let line = report.event("poor").peer(peer).with("conn", conn.get()).with("score", score);
                line.say(&self.node, text)
            }
            Event::ConnHealthy { peer, conn } => {
                let line = report.event("well").peer(peer).with("conn", conn.get());
                line.say(&self.node, format_args!("connection {conn} scores well again"))
            }
            Event::PingIntervalLearned { peer, ping_interval } => {
                let line = report.event("ping_interval_learned").peer(peer);
                line.millis("ping_interval_ms", ping_interval.as_secs_f64() * 1e3).say(
                    &self.node,
                    format_args!("died of silence: pings every {ping_interval:.1?} from now on"),
                )
            }
            Event::PeerRetired { peer, successor, reason } => {
                let why = match reason {
                    RetireReason::Poor => "poor".to_owned(),
                    other => format!("{other:?}").to_lowercase(),
                };
                let text = format!("let go ({why}), {} came instead", successor.short());
                let line = report.event("peer_retired").peer(peer).with("successor", successor.to_string());
                line.with("reason", why).say(&self.node, text)
            }
            Event::PeerRestarted { peer, incarnation, resent } => {
                self.peers.entry(peer).or_default().link.restarts += 1;
                let line = report.event("restarted").peer(peer).with("resent", resent);
                line.with("incarnation", incarnation.to_string())
                    .say(&self.node, format_args!("restarted; {resent} messages are sent again"))
            }
            Event::Lost { peer, messages, by_peer } => {
                let who = if by_peer { "the peer" } else { "this node" };
                let line =
                    report.event("lost").peer(peer).with("messages", messages).with("by_peer", by_peer);
                line.say(&self.node, format_args!("{messages} messages lost: {who} gave up its memory"))
            }
            Event::DialFailed { peer, address, reason, next } => {
                let again = next.map_or("again when something changes".into(), |next| {
                    format!("again in {:.1} s", next.as_secs_f64())
                });
                let text = format!("dial {address}: {reason}; {again}");
                let line = report.event("dial_failed").about(peer).with("address", address);
                let line = line.with("reason", reason.to_string());
                let next = next.map(|next| (next.as_secs_f64() * 1e3).round());
                line.with("next_ms", next).say(&self.node, text)
            }
            Event::Refused { peer, addr, why } => {
                let who = peer.map_or("a connection".to_owned(), |peer| peer.to_string());
                let line = report.event("refused").with("addr", addr.to_string());
                let line =
                    line.with("peer", peer.map(|peer| peer.to_string())).with("reason", why.to_string());
                line.say(&self.node, format_args!("refused {who} from {addr}: {why}"))
            }
            Event::Breaker { peer, address, state } => {
                let text = format!("breaker of {address}: {state}");
                let line = report.event("breaker").about(peer).with("address", address);
                line.with("state", state.to_string()).say(&self.node, text)
            }
            Event::AddressConflict { address, expected, found } => {
                let line = report.event("address_conflict").with("address", address.as_str());
                let line = line.with("expected", expected.to_string()).with("found", found.to_string());
                let text = format!("{address} leads to {found}, expected {expected}: one entry is one node");
                line.say(&self.node, text)
            }
            Event::Repeated { peer, messages } => {
                let text =
                    format!("{messages} messages may come twice: an earlier life may have processed them");
                report.event("repeated").peer(peer).with("messages", messages).say(&self.node, text)
            }
            Event::Offended { who, misbehavior, strikes } => {
                let line = report.event("offended").with("who", who.to_string()).with("strikes", strikes);
                let line = line.with("reason", misbehavior.to_string());
                line.say(&self.node, format_args!("{who}: {misbehavior}, {strikes} strikes"))
            }
            Event::Banned { ban } => {
                let time = ban.remaining_ms.map_or("until it is lifted".into(), |millis| {
                    format!("for {}", humantime::format_duration(Duration::from_millis(millis)))
                });
                let line =
                    report.event("banned").with("who", ban.who.to_string()).with("reason", ban.why.as_str());
                let line = line.with("remaining_ms", ban.remaining_ms);
                line.say(&self.node, format_args!("{} is banned {time}: {}", ban.who, ban.why))
            }
            Event::Unbanned { who } => {
                let line = report.event("unbanned").with("who", who.to_string());
                line.say(&self.node, format_args!("{who} is banned no longer"))
            }
            other => report.event("other").say(&self.node, format_args!("{other:?}")),
        }
    }

    /// The fault of a connection, as long as it is there.
    fn score_of(&self, peer: PeerId, conn: ConnId) -> Option<String> {
        let peer = self.node.peer(peer)?;
        let conn = peer.connections.iter().find(|other| other.id == conn)?;
        let parts = &conn.score_parts;
        Some(format!(
            "score {:.2}: answers {:.2}, retransmission {:.2}, path {:.2}, round trip {:.2}, writer {:.2}, window {:.2}",
            conn.score,
            parts.answers,
            parts.retransmission,
            parts.path,
            parts.round_trip,
            parts.writer,
            parts.window
        ))
    }

    /// The first link is up: the plan begins now, or after the idle time.
    fn begin_sending(&mut self) -> io::Result<()> {
        if self.send_from.is_some() {
            return Ok(());
        }
        let idle = self.args.idle_first;
        self.send_from = Some(Instant::now() + idle);
        if idle.is_zero() {
            return Ok(());
        }
        let line = self.report.event("idle").millis("idle_ms", idle.as_secs_f64() * 1e3);
        line.say(&self.node, format_args!("idle for {}", humantime::format_duration(idle)))
    }

    fn handle_message(&mut self, mut message: Message) -> io::Result<()> {
        let (id, size) = (message.peer(), message.len());
        let peer = self.peers.entry(id).or_default();
        let (kind, seq, sequence) = match self.checker.check(&mut message) {
            Ok(checked) => checked,
            Err(why) => {
                peer.link.damaged += 1;
                let line = self.report.event("damaged").peer(id).with("bytes", size).with("reason", why);
                return line.say(&self.node, format_args!("message of {size} bytes is damaged: {why}"));
            }
        };
        let name = kind.name();
        let tally = &mut peer.lane(kind).tally;
        tally.received += 1;
        tally.received_bytes += size as u64;
        match sequence {
            Sequence::First | Sequence::Next => {}
            Sequence::Gap { missing } => {
                tally.missing += missing;
                let line =
                    self.report.event("gap").peer(id).seq(seq).with("kind", name).with("missing", missing);
                line.say(&self.node, format_args!("GAP: {missing} before {name} {seq} are missing"))?;
            }
            Sequence::Repeat { expected } => {
                tally.repeated += 1;
                let line = self.report.event("repeat").peer(id).seq(seq).with("kind", name);
                line.with("expected", expected)
                    .say(&self.node, format_args!("REPEAT: {name} {seq} came, {expected} was next"))?;
            }
        }
        let line = self.report.event(&format!("{name}_received")).peer(id).seq(seq);
        line.with("bytes", size).say(&self.node, format_args!("{name} {seq} received"))
    }

    // --- the end --------------------------------------------------------------------------------

    /// A line per peer and kind, and one for all. True when every message came through.
    fn summary(&mut self) -> io::Result<bool> {
        let (mut totals, mut links) = ([Tally::default(), Tally::default()], LinkTally::default());
        for (id, peer) in &self.peers {
            links.add(&peer.link);
            self.say_link(Some(*id), &peer.link)?;
            for ((lane, total), kind) in peer.lanes.iter().zip(&mut totals).zip(Kind::ALL) {
                total.add(&lane.tally);
                self.say_tally(Some(*id), kind, &lane.tally)?;
            }
        }
        self.say_link(None, &links)?;
        for (total, kind) in totals.iter().zip(Kind::ALL) {
            self.say_tally(None, kind, total)?;
        }
        let spoiled = |total: &Tally| total.missing + total.repeated + total.failed > 0;
        Ok(links.damaged == 0 && !totals.iter().any(spoiled))
    }

    fn say_link(&self, peer: Option<PeerId>, link: &LinkTally) -> io::Result<()> {
        let line = self.report.event(if peer.is_some() { "summary_link" } else { "total_link" });
        let line = match peer {
            Some(peer) => line.peer(peer),
            None => line,
        };
        let line = line.with("ups", link.ups).with("downs", link.downs).with("suspects", link.suspects);
        let line = line.with("restarts", link.restarts).with("damaged", link.damaged);
        let who = if peer.is_some() { "link" } else { "all links" };
        let LinkTally { ups, downs, suspects, restarts, damaged } = link;
        let text = format!(
            "{who}: up {ups}, down {downs}, suspect {suspects}, restarted {restarts}, damaged messages {damaged}"
        );
        line.say(&self.node, text)
    }

    fn say_tally(&self, peer: Option<PeerId>, kind: Kind, tally: &Tally) -> io::Result<()> {
        if tally.sent + tally.received + tally.refused == 0 {
            return Ok(());
        }
        let line = self.report.event(if peer.is_some() { "summary" } else { "total" });
        let line = match peer {
            Some(peer) => line.peer(peer),
            None => line,
        };
        let delays = &tally.delays;
        let [p50, p95] = [50, 95].map(|percent| delays.percentile_ms(percent));
        let line = line.with("kind", kind.name()).with("sent", tally.sent).with("taken", tally.taken);
        let line =
            line.with("dropped", tally.failed).with("left", tally.left()).with("refused", tally.refused);
        let line = line.with("received", tally.received).with("received_bytes", tally.received_bytes);
        let line = line.with("missing", tally.missing).with("repeated", tally.repeated);
        let line = line.millis("delay_p50_ms", p50).millis("delay_p95_ms", p95);
        let who = if peer.is_some() { "" } else { "all " };
        let text = format!(
            "{who}{}: sent {}, taken {}, dropped {}, left {}, refused {}; delay p50 {p50:.2}, p95 {p95:.2}, \
             max {:.2} ms; received {}, missing {}, repeated {}",
            kind.name(),
            tally.sent,
            tally.taken,
            tally.failed,
            tally.left(),
            tally.refused,
            delays.max_ms(),
            tally.received,
            tally.missing,
            tally.repeated,
        );
        line.millis("delay_max_ms", delays.max_ms()).say(&self.node, text)
    }
}
