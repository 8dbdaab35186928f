//! The parent's view: the node processes, the proxies between them, and what they report.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use crate::Failure;
use crate::args::Args;
use crate::content::now_us;
use crate::display::{Display, Progress};
use crate::ledger::Ledger;
use crate::member::Member;
use crate::node::Role;
use crate::record::Record;
use crate::wire::{Command, LinkFigures, LinkNews, News, Report, Work};
use unbroken::test_util::FaultProxy;

/// How long anything may take that must happen in the end, on a machine busy with other things too.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(120);
/// The paths of every link: as many as connections in its pool.
pub(crate) const PATHS: usize = 2;
/// How often reports are collected when none of the nodes has woken us.
const ROUND: Duration = Duration::from_millis(5);

/// The first vote of each directed pair that was sent at `since` or later.
struct Watch {
    since_us: u64,
    first: BTreeMap<(usize, usize), Option<u64>>,
}

/// The figures of a table row that are not in the books.
#[derive(Clone, Debug, Default)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) start_us: u64,
    /// When the fault struck, when it was over, and when its row ended.
    pub(crate) struck_us: Option<u64>,
    pub(crate) relented_us: Option<u64>,
    pub(crate) end_us: Option<u64>,
    pub(crate) votes: u64,
    pub(crate) worst_vote_us: u64,
    pub(crate) events: LinkEvents,
    pub(crate) quorums: (u64, u64),
}

/// Events of connections.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LinkEvents {
    /// Connections that joined, counted at both ends.
    pub(crate) connected: u64,
    /// Connections that joined, each counted once.
    pub(crate) joined: u64,
    /// Those of them that came in the place of one that served.
    pub(crate) replaced: u64,
    /// Those of them that were one too many: both ends had dialled at once.
    pub(crate) superfluous: u64,
    pub(crate) suspects: u64,
    pub(crate) poor: u64,
    pub(crate) learned: u64,
}

impl LinkEvents {
    /// Connections that came in the place of one that was lost.
    pub(crate) fn reconnects(&self) -> u64 {
        self.joined.saturating_sub(self.replaced + self.superfluous)
    }
}

pub(crate) struct Cluster {
    pub(crate) members: Vec<Member>,
    /// By who dials whom, and by which path.
    pub(crate) proxies: BTreeMap<(usize, usize, usize), FaultProxy>,
    pub(crate) ledger: Ledger,
    pub(crate) rows: Vec<Row>,
    /// When a connection last joined, for each directed pair (who says it, to whom).
    pub(crate) connected_us: BTreeMap<(usize, usize), u64>,
    pub(crate) display: Display,
    pub(crate) record: Record,
    watch: Option<Watch>,
    states: usize,
    work: Work,
    failures: Vec<String>,
}

impl Cluster {
    /// Starts the nodes and the proxies between them, and waits until all are linked.
    pub(crate) fn start(args: &Args) -> Result<Cluster, Failure> {
        let role = |index| Role {
            index,
            nodes: args.nodes,
            life: 0,
            seed: args.seed,
            factor: args.factor(),
            cluster: std::process::id(),
            view: args.view.clone(),
        };
        let members: io::Result<Vec<_>> = (0..args.nodes).map(|index| Member::start(role(index))).collect();
        let mut cluster = Cluster {
            members: members?,
            proxies: BTreeMap::new(),
            ledger: Ledger::new(args.nodes),
            rows: vec![Row { name: "start".into(), start_us: now_us(), ..Row::default() }],
            connected_us: BTreeMap::new(),
            display: Display::new(args),
            record: Record::new(args.nodes, now_us()),
            watch: None,
            states: 0,
            work: Work::default(),
            failures: Vec::new(),
        };
        cluster.expect("all nodes listen", |cluster| cluster.members.iter().all(|m| m.addr.is_some()))?;
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        for (from, to) in cluster.pairs() {
            let target = cluster.members.get(to).and_then(|member| member.addr).unwrap_or(nowhere);
            for path in 0..PATHS {
                cluster.proxies.insert((from, to, path), FaultProxy::start(target)?);
            }
        }
        for node in 0..args.nodes {
            cluster.introduce(node)?;
        }
        cluster.expect("all links are up", |cluster| cluster.members.iter().all(|m| m.linked))?;
        Ok(cluster)
    }

    /// All directed pairs of nodes.
    pub(crate) fn pairs(&self) -> Vec<(usize, usize)> {
        let all = 0..self.members.len();
        all.clone().flat_map(|a| all.clone().map(move |b| (a, b))).filter(|(a, b)| a != b).collect()
    }

    /// The directed pairs with this node at one end.
    pub(crate) fn pairs_of(&self, node: usize) -> Vec<(usize, usize)> {
        self.pairs().into_iter().filter(|(a, b)| *a == node || *b == node).collect()
    }

    pub(crate) fn proxies_of(&self, node: usize) -> impl Iterator<Item = &FaultProxy> {
        self.proxies
            .iter()
            .filter(move |((from, to, _), _)| *from == node || *to == node)
            .map(|(_, proxy)| proxy)
    }

    /// Tells a node where its peers are: behind the proxies.
    fn introduce(&mut self, node: usize) -> Result<(), Failure> {
        let mut peers: BTreeMap<usize, Vec<SocketAddr>> = BTreeMap::new();
        for ((_, to, _), proxy) in self.proxies.iter().filter(|((from, ..), _)| *from == node) {
            peers.entry(*to).or_default().push(proxy.addr());
        }
        self.tell(node, &Command::Peers(peers.into_iter().collect()))
    }

    pub(crate) fn tell(&mut self, node: usize, command: &Command) -> Result<(), Failure> {
        let line = serde_json::to_string(command)?;
        let member = self.members.get_mut(node).ok_or("no such node")?;
        let sent = member.child.send_line(&line);
        sent.map_err(|error| format!("node {node} does not listen to its parent: {error}").into())
    }

    /// A node that is dead at the moment is told when it is started again.
    pub(crate) fn tell_all(&mut self, command: &Command) -> Result<(), Failure> {
        for node in 0..self.members.len() {
            if self.members.get(node).is_some_and(|member| !member.gone) {
                self.tell(node, command)?;
            }
        }
        Ok(())
    }

    /// Sets the traffic of all nodes from now on.
    pub(crate) fn work(&mut self, work: Work) -> Result<(), Failure> {
        self.tell_all(&Command::Work(work.clone()))?;
        self.work = work;
        Ok(())
    }

    /// Shows how all links are.
    pub(crate) fn show_links(&mut self) {
        self.display.links(&self.members);
    }

    /// Begins a row of the table.
    pub(crate) fn begin_row(&mut self, name: &str) -> Result<(), Failure> {
        let row = self.rows.len();
        self.end_row();
        self.display.flush();
        self.rows.push(Row { name: name.into(), start_us: now_us(), ..Row::default() });
        self.ledger.set_row(row);
        self.tell_all(&Command::Row(row))
    }

    /// The fault of this row begins. Only the first time counts.
    pub(crate) fn strike(&mut self) {
        self.rows.last_mut().into_iter().for_each(|row| _ = row.struck_us.get_or_insert_with(now_us));
    }

    /// The fault of this row is over; unless it is said, it lasts until the row ends.
    pub(crate) fn relent(&mut self) {
        self.rows.last_mut().into_iter().for_each(|row| _ = row.relented_us.get_or_insert_with(now_us));
    }

    /// Ends a row of the table.
    pub(crate) fn end_row(&mut self) {
        self.rows.last_mut().into_iter().for_each(|row| _ = row.end_us.get_or_insert_with(now_us));
    }

    // --- what happens to nodes ------------------------------------------------------------------

    pub(crate) fn freeze(&mut self, node: usize, frozen: bool) -> Result<(), Failure> {
        let member = self.members.get_mut(node).ok_or("no such node")?;
        if frozen {
            member.child.freeze()?
        } else {
            member.child.thaw()?
        }
        member.frozen = frozen;
        Ok(())
    }

    /// Kills a node and takes the last things that it said into the books.
    pub(crate) fn kill(&mut self, node: usize) -> Result<(), Failure> {
        let member = self.members.get_mut(node).ok_or("no such node")?;
        member.child.kill()?;
        member.gone = true;
        let killed_us = now_us();
        let deadline = Instant::now() + TIMEOUT;
        while let Some(line) = self.members.get(node).and_then(|member| {
            member.child.lines().recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
        }) {
            self.handle_line(node, &line);
        }
        self.ledger.killed(node);
        self.record.killed(node, killed_us);
        Ok(())
    }

    /// Starts a killed node again, with its name and a new port, and gives it its share of the work.
    pub(crate) fn restart(&mut self, node: usize) -> Result<(), Failure> {
        let member = self.members.get_mut(node).ok_or("no such node")?;
        let replaced = std::mem::take(&mut member.replaced);
        *member = Member::start(Role { life: member.role.life + 1, ..member.role.clone() })?;
        member.replaced = replaced;
        self.expect("the node listens again", |cluster| {
            cluster.members.get(node).is_some_and(|member| member.addr.is_some())
        })?;
        let addr = self.members.get(node).and_then(|member| member.addr).ok_or("the node listens nowhere")?;
        for ((_, to, _), proxy) in &self.proxies {
            if *to == node {
                proxy.retarget(addr);
            }
        }
        self.introduce(node)?;
        self.tell(node, &Command::Row(self.rows.len() - 1))?;
        self.tell(node, &Command::Work(self.work.clone()))
    }

    /// Ends all nodes in order.
    pub(crate) fn quit(&mut self) -> Result<(), Failure> {
        for node in 0..self.members.len() {
            if let Some(member) = self.members.get_mut(node) {
                member.quitting = true;
            }
            self.tell(node, &Command::Quit)?;
        }
        self.expect("all nodes end", |cluster| cluster.members.iter().all(|member| member.gone))?;
        for (node, member) in self.members.iter_mut().enumerate() {
            match member.child.wait_exit(TIMEOUT)? {
                Some(status) if status.success() => {}
                Some(status) => self.failures.push(format!("node {node} ended with {status}")),
                None => self.failures.push(format!("node {node} closed its output but does not end")),
            }
        }
        self.failures.is_empty().then_some(()).ok_or_else(|| self.failures.join("; ").into())
    }

    // --- waiting and listening ------------------------------------------------------------------

    /// Listens to the nodes until `until`.
    pub(crate) fn listen(&mut self, until: Instant) -> Result<(), Failure> {
        self.wait_for(until, |_| false).map(drop)
    }

    /// Listens to the nodes until the condition holds; false if it did not by `until`.
    pub(crate) fn wait_for(
        &mut self,
        until: Instant,
        condition: impl Fn(&Cluster) -> bool,
    ) -> Result<bool, Failure> {
        let mut turn = 0;
        loop {
            self.listen_once(turn, until);
            turn += 1;
            if !self.failures.is_empty() {
                return Err(self.failures.join("; ").into());
            }
            if condition(self) {
                return Ok(true);
            }
            if Instant::now() >= until {
                return Ok(false);
            }
        }
    }

    /// Waits for what must come, with all patience.
    pub(crate) fn expect(&mut self, what: &str, condition: impl Fn(&Cluster) -> bool) -> Result<(), Failure> {
        if self.wait_for(Instant::now() + TIMEOUT, condition)? {
            return Ok(());
        }
        self.dump()?;
        Err(format!("waited {} s in vain until {what}", TIMEOUT.as_secs()).into())
    }

    fn listen_once(&mut self, turn: usize, until: Instant) {
        let mut lines = Vec::new();
        for (node, member) in self.members.iter().enumerate() {
            lines.extend(member.child.lines().try_iter().map(|line| (node, line)));
        }
        if lines.is_empty() {
            let node = turn % self.members.len();
            if let Some(member) = self.members.get_mut(node) {
                let wait = until.saturating_duration_since(Instant::now()).min(ROUND);
                match member.child.lines().recv_timeout(wait) {
                    Ok(line) => lines.push((node, line)),
                    Err(RecvTimeoutError::Disconnected) if !member.gone => {
                        member.gone = true;
                        if !member.quitting {
                            self.failures.push(format!("node {node} ended without being told to"));
                        }
                    }
                    Err(_) => {}
                }
            }
        }
        for (node, line) in lines {
            self.handle_line(node, &line);
        }
        self.display.refresh(&Progress {
            members: &self.members,
            ledger: &self.ledger,
            row: self.rows.last(),
        });
    }

    /// Asks the nodes for the state of their links and shows it, with what is missing.
    pub(crate) fn dump(&mut self) -> Result<(), Failure> {
        for line in self.ledger.unsettled() {
            self.display.warn(&format!("missing: {line}"));
        }
        self.states = 0;
        for node in 0..self.members.len() {
            if self.members.get(node).is_some_and(|member| !member.gone) {
                self.tell(node, &Command::Dump)?;
            }
        }
        let wanted = self.members.iter().filter(|member| !member.gone && !member.frozen).count();
        self.wait_for(Instant::now() + Duration::from_secs(5), |cluster| cluster.states >= wanted).map(drop)
    }

    // --- votes ----------------------------------------------------------------------------------

    /// From now on, looks for the first vote that is sent now or later, for each of these pairs.
    pub(crate) fn watch_votes(&mut self, pairs: Vec<(usize, usize)>) {
        let first = pairs.into_iter().map(|pair| (pair, None)).collect();
        self.watch = Some(Watch { since_us: now_us(), first });
    }

    /// Waits until the votes that are watched for have come. How long the last of them took.
    pub(crate) fn first_votes(&mut self) -> Result<Option<Duration>, Failure> {
        let all = |cluster: &Cluster| {
            cluster.watch.as_ref().is_none_or(|watch| watch.first.values().all(Option::is_some))
        };
        let arrived = self.wait_for(Instant::now() + TIMEOUT, all)?;
        let Some(watch) = self.watch.take() else { return Ok(None) };
        if !arrived {
            let missing: Vec<_> =
                watch.first.iter().filter(|(_, first)| first.is_none()).map(|(pair, _)| *pair).collect();
            let missing = format!("no vote came again from node to node {missing:?}");
            self.dump()?;
            return Err(missing.into());
        }
        Ok(watch.first.values().flatten().max().map(|micros| Duration::from_micros(*micros)))
    }

    fn vote(&mut self, from: usize, to: usize, sent_us: u64, received_us: u64) {
        if let Some(watch) = self.watch.as_mut().filter(|watch| sent_us >= watch.since_us)
            && let Some(first @ None) = watch.first.get_mut(&(from, to))
        {
            *first = Some(received_us.saturating_sub(watch.since_us));
        }
        self.record.vote(sent_us, received_us.saturating_sub(sent_us));
        // A vote belongs to the row in which it was sent.
        let row = self.rows.iter_mut().rev().find(|row| row.start_us <= sent_us);
        if let Some(row) = row {
            row.votes += 1;
            row.worst_vote_us = row.worst_vote_us.max(received_us.saturating_sub(sent_us));
        }
    }

    // --- reports --------------------------------------------------------------------------------

    fn handle_line(&mut self, node: usize, line: &str) {
        match serde_json::from_str(line) {
            Ok(report) => self.handle(node, report),
            // Cut short by a kill: then nothing followed from it.
            Err(_) if self.members.get(node).is_some_and(|member| member.gone) => {}
            Err(error) => self.failures.push(format!("node {node} said {line:?}: {error}")),
        }
    }

    fn handle(&mut self, node: usize, report: Report) {
        let Some(member) = self.members.get_mut(node) else { return };
        match report {
            Report::Ready { addr } => member.addr = Some(addr),
            Report::Linked => member.linked = true,
            Report::Intent { lane, to, upto, row } => self.ledger.intend(node, lane, to, upto, row),
            Report::Accepted { lane, to, upto } => self.ledger.accept(node, lane, to, upto),
            Report::Taken { lane, to, upto } => self.ledger.taken(node, lane, to, upto),
            Report::Dropped { lane, to, seq, why } => self.ledger.dropped(node, lane, to, seq, &why),
            Report::Refused { lane, to, seq, why } => self.ledger.refused(node, lane, to, seq, &why),
            Report::Vote { from, life, seq, sent_us, received_us } => {
                self.ledger.receive(node, unbroken::URGENT.0, from, life, seq, seq);
                self.vote(from, node, sent_us, received_us);
            }
            Report::Got { lane, from, life, first, last } => {
                self.ledger.receive(node, lane, from, life, first, last);
            }
            Report::EventsLost(count) => {
                self.display.warn(&format!("node {node}: {count} events pushed out of its mailbox"));
            }
            Report::Bad { why } => self.ledger.bad(node, &why),
            Report::Link(news) => self.link(node, news),
            Report::Links { at_us, links } => {
                for figures in links {
                    self.record.state(node, at_us, &figures);
                    if let Some(known) = member.figures.get_mut(figures.peer) {
                        *known = Some((at_us, figures));
                    }
                }
            }
            Report::Quorums { reached, missed } => {
                if let Some(row) = self.rows.last_mut() {
                    row.quorums.0 += reached;
                    row.quorums.1 += missed;
                }
            }
            Report::State(state) => {
                self.states += 1;
                self.display.warn(&format!("state of node {node}: {state}"));
            }
        }
    }

    fn link(&mut self, node: usize, news: LinkNews) {
        let LinkNews { peer, at_us, dialled, .. } = news;
        let quitting = self.members.iter().any(|member| member.quitting);
        let Some(member) = self.members.get_mut(node) else { return };
        let mut none = LinkEvents::default();
        let events = self.rows.last_mut().map_or(&mut none, |row| &mut row.events);
        if let Some(link) = member.links.get_mut(peer) {
            match news.news {
                News::Up => *link = true,
                News::Degraded | News::Down => *link = false,
                News::Connected => {
                    self.connected_us.insert((node, peer), at_us);
                    events.connected += 1;
                    events.joined += u64::from(dialled);
                }
                News::Disconnected => events.superfluous += u64::from(dialled && news.superfluous),
                News::Suspect => events.suspects += 1,
                News::Poor => events.poor += 1,
                News::Learned => events.learned += 1,
                News::Replaced if dialled => {
                    events.replaced += 1;
                    member.replaced.get_mut(peer).into_iter().for_each(|count| *count += 1);
                }
                _ => {}
            }
        }
        if news.news == News::Lost {
            let what =
                format!("node {node} says that messages to or from node {peer} were lost: {}", news.why);
            self.display.warn(&what);
        }
        if !quitting {
            self.record.news(node, &news);
            self.display.link(node, &news);
        }
    }

    // --- pools ----------------------------------------------------------------------------------

    /// The last state of a link that both its ends reported, if they did at `since_us` or later.
    fn both_ends(&self, (a, b): (usize, usize), since_us: u64) -> Option<[&LinkFigures; 2]> {
        let said = |at: usize, of: usize| {
            let said = self.members.get(at)?.figures.get(of)?.as_ref()?;
            (said.0 >= since_us).then_some(&said.1)
        };
        Some([said(a, b)?, said(b, a)?])
    }

    /// The links, each once.
    pub(crate) fn links(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        self.pairs().into_iter().filter(|(a, b)| a < b)
    }

    fn each_link(&self, since_us: u64, mut condition: impl FnMut([&LinkFigures; 2]) -> bool) -> bool {
        self.links().all(|link| self.both_ends(link, since_us).is_some_and(&mut condition))
    }

    /// Both ends of every link have said since then that all its connections do their work.
    pub(crate) fn pools_are_full(&self, since_us: u64) -> bool {
        self.each_link(since_us, |ends| ends.iter().all(|end| end.up == PATHS && end.wanted == PATHS))
    }

    /// All pools are full, and all their connections have been opened since.
    pub(crate) fn pools_are_new(&self, since_us: u64) -> bool {
        self.pools_are_full(since_us)
            && self.each_link(since_us, |ends| ends.iter().all(|end| end.oldest_us >= since_us))
    }

    /// The links whose connections do not go each by the path of its place, and their paths by place, by what
    /// their ends said last; without those that go past the proxies.
    pub(crate) fn not_spread(&self) -> Vec<((usize, usize), Vec<usize>)> {
        let paths_of = |link| {
            let ends = self.both_ends(link, 0);
            let mut paths: Vec<_> = ends.iter().flatten().flat_map(|end| &end.paths).copied().collect();
            paths.sort();
            paths.into_iter().map(|(_, path)| path).collect::<Vec<_>>()
        };
        let paths = self.links().map(|link| (link, paths_of(link)));
        paths.filter(|(_, paths)| !paths.iter().copied().eq(0..PATHS)).collect()
    }

    /// The shorter time between pings of each link's two ends, of the links with this node.
    pub(crate) fn ping_ms(&self, node: usize) -> Vec<f64> {
        let links = self.links().filter(|(a, b)| *a == node || *b == node);
        let ends = links.filter_map(|link| self.both_ends(link, 0));
        ends.map(|[a, b]| a.ping_ms.min(b.ping_ms)).collect()
    }

    /// How often connections of each link were replaced so far.
    pub(crate) fn replaced(&self) -> BTreeMap<(usize, usize), u64> {
        let one = |at: usize, of: usize| {
            self.members.get(at).and_then(|member| member.replaced.get(of)).copied().unwrap_or(0)
        };
        self.links().map(|(a, b)| ((a, b), one(a, b) + one(b, a))).collect()
    }
}
