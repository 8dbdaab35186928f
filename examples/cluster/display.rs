//! The output while it runs: progress, decisions, and the verdict on each fault.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::args::Args;
use crate::cluster::{PATHS, Row};
use crate::ledger::Ledger;
use crate::member::Member;
use crate::plan::Fault;
use crate::table::{Balance, Line, line_json};
use crate::terminal::{Colour, Paint, WIDTH, fold, is_screen};
use crate::wire::{LinkFigures, LinkNews, News};

/// The display while it runs.
pub(crate) struct Progress<'a> {
    pub(crate) members: &'a [Member],
    pub(crate) ledger: &'a Ledger,
    pub(crate) row: Option<&'a Row>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    /// A table that is drawn again and again.
    Live,
    Lines,
    Json,
}

pub(crate) struct Display {
    style: Style,
    paint: Paint,
    start: Instant,
    due: Instant,
    /// Lines on the screen that the next table replaces.
    drawn: usize,
    before: (u64, u64),
    /// The decisions of the nodes' monitors since they were shown last, alike with alike.
    decisions: BTreeMap<(News, String), Vec<String>>,
    decisions_due: Instant,
}

/// Decisions are collected for so long, so that many of a kind become one line.
const DECISIONS: Duration = Duration::from_secs(1);
/// The width of the time before a line, and of the lines after it.
const MARGIN: usize = 10;
/// Beyond so many nodes a column for each is too much for the width, and a line for each link too long.
const COLUMNS: usize = 4;
const MATRIX: usize = 8;
/// A link whose worst score is below this is shown by itself.
const WELL: f64 = 0.6;

impl Display {
    pub(crate) fn new(args: &Args) -> Display {
        let style = match (args.json, is_screen()) {
            (true, _) => Style::Json,
            (_, true) => Style::Live,
            _ => Style::Lines,
        };
        let now = Instant::now();
        let mut display = Display {
            style,
            paint: Paint::for_stdout(),
            start: now,
            due: now,
            drawn: 0,
            before: (0, 0),
            decisions: BTreeMap::new(),
            decisions_due: now,
        };
        let factor = args.factor();
        let names: Vec<_> = args.faults.iter().map(|fault| fault.name()).collect();
        if style == Style::Json {
            display.json(&json!({
                "event": "start", "nodes": args.nodes, "seconds": args.time.as_secs(),
                "seed": args.seed, "faults": names, "timeouts_divided_by": factor,
            }));
        } else {
            let timeouts = match factor {
                1 => "the library's own timeouts".to_owned(),
                _ => format!("timeouts divided by {factor} (--real-time: the library's own)"),
            };
            let Args { nodes, seed, time, .. } = args;
            display.line(&format!("{nodes} nodes, seed {seed}, {} s, {timeouts}", time.as_secs()));
        }
        display
    }

    /// Shows how far it is, when it is time to.
    pub(crate) fn refresh(&mut self, progress: &Progress<'_>) {
        let now = Instant::now();
        if now >= self.decisions_due {
            self.flush();
        }
        if now < self.due {
            return;
        }
        let pause = if self.style == Style::Live { 250 } else { 1000 };
        let since = (now - self.due).as_secs_f64() + pause as f64 / 1000.0;
        self.due = now + Duration::from_millis(pause);
        let totals = progress.ledger.totals();
        let rate = (totals.1 - self.before.1) as f64 / since;
        self.before = totals;
        let name = progress.row.map_or("start", |row| row.name.as_str());
        let wrong = progress.ledger.incidents();
        // A receiver may tell of a message before its sender does.
        let (sent, delivered) = (totals.0.max(totals.1), totals.1);
        if self.style == Style::Json {
            let nodes: Vec<_> = progress.members.iter().map(Member::state).collect();
            let links: Vec<_> = links(progress.members).map(|link| link.json()).collect();
            self.json(&json!({
                "event": "progress", "fault": name, "sent": sent, "delivered": delivered,
                "duplicated": wrong.duplicated, "out_of_order": wrong.out_of_order,
                "send_errors": wrong.errors, "again_after_restart": wrong.again, "nodes": nodes,
                "links": links,
            }));
            return;
        }
        let worst = progress.row.map_or(0, |row| row.worst_vote_us) as f64 / 1000.0;
        let bad = wrong.wrong();
        let summary = format!(
            "sent {sent}, delivered {delivered} ({rate:.0}/s), wrong {bad}; slowest vote {worst:.0} ms"
        );
        if self.style == Style::Lines {
            let down: Vec<String> = progress
                .members
                .iter()
                .enumerate()
                .filter(|(_, member)| up(member) + 1 < member.links.len() || member.state() != "runs")
                .map(|(node, member)| format!("node {node} {} with {} links", member.state(), up(member)))
                .collect();
            let down = if down.is_empty() { String::new() } else { format!("; {}", down.join(", ")) };
            let pools = pools_in_a_line(progress.members);
            self.line(&format!("{name}: {summary}{down}; {pools}"));
            return;
        }
        self.draw(progress, name, &summary);
    }

    /// Each link, for those who have no table that shows them all the time.
    pub(crate) fn links(&mut self, members: &[Member]) {
        self.flush();
        if self.style == Style::Lines && members.len() <= MATRIX {
            self.line(&format!("links: {}", links_in_a_line(members)));
        }
    }

    fn draw(&mut self, progress: &Progress<'_>, name: &str, summary: &str) {
        let nodes = progress.members.len();
        let columns = match nodes {
            ..=COLUMNS => (0..nodes).map(|node| format!("{:<13}", format!("to {node}"))).collect(),
            _ => "worst link".to_owned(),
        };
        let mut lines = vec![
            format!("{:>6.1} s  {name}", self.start.elapsed().as_secs_f64()),
            format!("{:MARGIN$}{summary}", ""),
            format!("{:<3}{:<9}{:<6}{:>7}  {columns}", "#", "state", "links", "got"),
        ];
        for (node, member) in progress.members.iter().enumerate() {
            let (_, received) = progress.ledger.totals_of(node);
            let links = format!("{}/{}", up(member), member.links.len() - 1);
            let (state, cells) = (member.state(), cells(progress.members, node));
            lines.push(format!("{node:<3}{state:<9}{links:<6}{received:>7}  {cells}"));
        }
        lines.push("   per link: connections of those wanted, worst score, replaced so far".into());
        let mut out = String::new();
        if self.drawn > 0 {
            out.push_str(&format!("\x1b[{}A", self.drawn));
        }
        // In a window narrower than 80 columns a line is cut, not wrapped: the table would move.
        out.push_str("\x1b[?7l");
        for line in &lines {
            out.push_str(&format!("\r\x1b[2K{}\n", line.trim_end()));
        }
        out.push_str("\x1b[?7h");
        self.drawn = lines.len();
        self.print(&out);
    }

    /// News of a link: what the library decided is shown, the rest is for the log.
    pub(crate) fn link(&mut self, node: usize, news: &LinkNews) {
        let LinkNews { peer, news: what, slot, reason, ping_ms, why, dialled, .. } = news;
        log::info!("node {node} to node {peer}: {what:?} {why}");
        let Some(mut title) = title(*what) else { return };
        if self.style == Style::Json {
            self.json(&json!({
                "event": "decision", "node": node, "peer": peer, "what": what, "slot": slot,
                "reason": reason, "dialled": dialled, "ping_interval_ms": ping_ms, "why": why,
            }));
            return;
        }
        // Told by both ends, done by one.
        if *what == News::Replaced && !dialled {
            return;
        }
        match reason {
            Some(reason) => title = format!("{title} ({})", format!("{reason:?}").to_lowercase()),
            None if *what == News::Replaced => title.push_str(" (at the wish of the peer)"),
            None => {}
        }
        self.decisions.entry((*what, title)).or_default().push(format!("{node}>{peer} {why}"));
    }

    /// Shows what was decided since the last time, a line for each kind.
    pub(crate) fn flush(&mut self) {
        self.decisions_due = Instant::now() + DECISIONS;
        let decisions = std::mem::take(&mut self.decisions);
        if decisions.is_empty() {
            return;
        }
        for ((_, title), all) in decisions {
            let more = match all.len().saturating_sub(1) {
                0 => String::new(),
                more => format!("; and {more} more"),
            };
            let example = all.first().map(String::as_str).unwrap_or_default();
            self.line(&format!("{} x {title}: {example}{more}", all.len()));
        }
    }

    /// Says what comes, before it does.
    pub(crate) fn announce(&mut self, number: usize, of: usize, fault: Fault) {
        let (name, what) = (fault.name(), fault.what());
        if self.style == Style::Json {
            self.json(&json!({ "event": "announce", "fault": name, "number": number, "what": what }));
            return;
        }
        self.painted(Colour::Bold, name, &format!("{name} ({number} of {of}): {what}."));
    }

    /// Says how a fault ended.
    pub(crate) fn verdict(&mut self, line: &Line) {
        self.flush();
        let (word, name, story) = (line.verdict.word(), &line.row.name, line.story());
        if self.style == Style::Json {
            self.json(&json!({ "event": "verdict", "fault": name, "verdict": word, "story": story }));
            return;
        }
        self.painted(line.verdict.colour(), word, &format!("{word} {name}: {story}"));
    }

    /// Something that should not be, on standard error.
    pub(crate) fn warn(&mut self, text: &str) {
        self.clear();
        fold(text, WIDTH).iter().for_each(|line| eprintln!("{line}"));
    }

    /// Takes the table from the screen; it is drawn again below what is printed next.
    fn clear(&mut self) {
        if self.drawn > 0 {
            let up = std::mem::take(&mut self.drawn);
            self.print(&format!("\x1b[{up}A\r\x1b[J"));
            self.due = Instant::now();
        }
    }

    fn line(&mut self, text: &str) {
        self.painted(Colour::Bold, "", text);
    }

    /// A line with the time before it; a long one goes on below.
    fn painted(&mut self, colour: Colour, begin: &str, text: &str) {
        self.clear();
        let at = self.start.elapsed().as_secs_f64();
        let mut out = String::new();
        for (number, line) in fold(text, WIDTH - MARGIN).iter().enumerate() {
            match number {
                0 => out.push_str(&format!("{at:>6.1} s  {}\n", self.paint.begin(colour, begin, line))),
                _ => out.push_str(&format!("{:MARGIN$}{line}\n", "")),
            }
        }
        self.print(&out);
    }

    fn json(&mut self, value: &serde_json::Value) {
        let mut value = value.clone();
        if let Some(object) = value.as_object_mut() {
            object.insert("t_ms".into(), json!(self.start.elapsed().as_millis() as u64));
        }
        self.print(&format!("{value}\n"));
    }

    fn print(&mut self, text: &str) {
        let mut out = io::stdout().lock();
        // A reader that has gone does not stop the run: its exit code still counts.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    /// Shows the balance.
    pub(crate) fn finish(&mut self, balance: &Balance) {
        self.flush();
        for complaint in &balance.complaints {
            self.warn(&format!("wrong: {complaint}"));
        }
        if let Some(error) = &balance.error {
            self.warn(&format!("cluster: {error}"));
        }
        if self.style != Style::Json {
            let table = balance.table(self.paint);
            self.clear();
            return self.print(&table);
        }
        for line in &balance.lines {
            self.json(&line_json(line));
        }
        let total = &balance.total;
        self.json(&json!({
            "event": "summary", "sent": total.sent, "delivered": total.received, "lost": total.lost,
            "duplicated": total.duplicated, "out_of_order": total.out_of_order,
            "send_errors": total.errors, "died_with_their_sender": total.died,
            "again_after_restart": total.again, "ok": balance.ok, "text": balance.last_line(),
        }));
        eprintln!("{}", balance.last_line());
    }
}

/// A decision in words; `None` for other reports.
fn title(news: News) -> Option<String> {
    let title = match news {
        News::Suspect => "suspect, an answer is overdue",
        News::Recovered => "no longer suspect",
        News::Poor => "poor for its score",
        News::Well => "well again",
        News::Replacing => "successor dialled",
        News::Replaced => "replaced",
        News::Learned => "ping interval learned from a silent death",
        _ => return None,
    };
    Some(title.into())
}

/// One end of a link, as shown.
struct Shown<'a> {
    node: usize,
    figures: &'a LinkFigures,
    replaced: u64,
}

impl Shown<'_> {
    fn is_well(&self) -> bool {
        self.figures.up == self.figures.wanted && self.figures.score >= WELL
    }

    fn cell(&self) -> String {
        let LinkFigures { up, wanted, score, .. } = self.figures;
        format!("{up}/{wanted} {score:.2} {}", self.replaced)
    }

    fn json(&self) -> serde_json::Value {
        let LinkFigures { peer, up, wanted, score, peer_score, ping_ms, .. } = self.figures;
        json!({
            "node": self.node, "peer": peer, "connections": up, "wanted": wanted, "worst_score": score,
            "peer_score": peer_score, "ping_interval_ms": ping_ms, "replaced": self.replaced,
        })
    }
}

fn links(members: &[Member]) -> impl Iterator<Item = Shown<'_>> {
    let living = members.iter().enumerate().filter(|(_, member)| !member.gone || member.quitting);
    living.flat_map(|(node, member)| {
        member.figures.iter().zip(&member.replaced).filter_map(move |(figures, replaced)| {
            let (_, figures) = figures.as_ref()?;
            Some(Shown { node, figures, replaced: *replaced })
        })
    })
}

/// A cell for each link of a node.
fn cells(members: &[Member], node: usize) -> String {
    let of_node: Vec<_> = links(members).filter(|link| link.node == node).collect();
    if members.len() > COLUMNS {
        let worst = of_node.iter().min_by(|a, b| a.figures.score.total_cmp(&b.figures.score));
        return worst.map(|link| format!("to {}: {}", link.figures.peer, link.cell())).unwrap_or_default();
    }
    let cell = |peer| of_node.iter().find(|link| link.figures.peer == peer).map(Shown::cell);
    let cells = (0..members.len()).map(|peer| format!("{:<13}", cell(peer).unwrap_or_else(|| "-".into())));
    cells.collect()
}

/// Each link once: what its worse end says, and what was replaced by either.
fn links_in_a_line(members: &[Member]) -> String {
    let all: Vec<_> = links(members).collect();
    let each = all.iter().filter(|link| link.node < link.figures.peer).map(|link| {
        let (node, peer) = (link.node, link.figures.peer);
        let other = all.iter().find(|other| (other.node, other.figures.peer) == (peer, node)).unwrap_or(link);
        let LinkFigures { up, wanted, score, .. } = link.figures;
        let (up, score) = (up.min(&other.figures.up), score.min(other.figures.score));
        let replaced = link.replaced + if other.node == node { 0 } else { other.replaced };
        format!("{node}-{peer} {up}/{wanted} score {score:.2}, {replaced} replaced")
    });
    each.collect::<Vec<_>>().join("; ")
}

/// All pools together, and each link that is not well.
fn pools_in_a_line(members: &[Member]) -> String {
    let all: Vec<_> = links(members).collect();
    let up: usize = all.iter().map(|link| link.figures.up).sum();
    let wanted = members.len() * (members.len() - 1) * PATHS;
    let replaced: u64 = all.iter().map(|link| link.replaced).sum();
    let worst = all.iter().map(|link| link.figures.score).fold(1.0, f64::min);
    let mut bad: Vec<_> = all.iter().filter(|link| !link.is_well()).collect();
    bad.sort_by(|a, b| a.figures.score.total_cmp(&b.figures.score));
    let shown = bad.iter().take(4).map(|link| {
        let Shown { node, figures, .. } = link;
        format!("{node}>{} {}{}", figures.peer, link.cell(), figures.parts)
    });
    let more = if bad.len() > 4 { format!("; and {} more", bad.len() - 4) } else { String::new() };
    let bad = if bad.is_empty() {
        String::new()
    } else {
        format!("; {}{more}", shown.collect::<Vec<_>>().join("; "))
    };
    format!("pools {up}/{wanted}, worst score {worst:.2}, replaced {replaced}{bad}")
}

fn up(member: &Member) -> usize {
    member.links.iter().filter(|up| **up).count()
}
