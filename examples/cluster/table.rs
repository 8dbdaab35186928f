//! The output: progress while it runs, the table and the last line at the end.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::args::Args;
use crate::cluster::{LinkEvents, PATHS, Row};
use crate::ledger::{Counts, Ledger};
use crate::member::Member;
use crate::wire::{LinkFigures, LinkNews, News};

/// One row of the final table.
pub(crate) struct Line {
    pub(crate) row: Row,
    pub(crate) counts: Counts,
    pub(crate) first_vote: Option<Duration>,
    pub(crate) since: &'static str,
    pub(crate) note: String,
}

/// The whole of it.
pub(crate) struct Balance {
    pub(crate) lines: Vec<Line>,
    pub(crate) total: Counts,
    pub(crate) complaints: Vec<String>,
    pub(crate) ok: bool,
}

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

pub(crate) struct View {
    style: Style,
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
/// Examples in such a line.
const EXAMPLES: usize = 2;
/// Beyond so many nodes a line for each link is too much.
const MATRIX: usize = 8;
/// A link whose worst score is below this is shown by itself.
const WELL: f64 = 0.6;

impl View {
    pub(crate) fn new(args: &Args) -> View {
        let style = match (args.json, io::stdout().is_terminal()) {
            (true, _) => Style::Json,
            (_, true) => Style::Live,
            _ => Style::Lines,
        };
        let now = Instant::now();
        let mut view = View {
            style,
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
            view.json(&json!({
                "event": "start", "nodes": args.nodes, "seconds": args.time.as_secs(),
                "seed": args.seed, "faults": names, "timeouts_divided_by": factor,
            }));
        } else {
            let timeouts = match factor {
                1 => "the library's own timeouts".to_owned(),
                _ => format!("timeouts divided by {factor} (--real-time: the library's own)"),
            };
            let Args { nodes, seed, time, .. } = args;
            view.line(&format!("{nodes} nodes, seed {seed}, {} s, {timeouts}", time.as_secs()));
            view.line(&format!("faults: {}", names.join(", ")));
        }
        view
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
        let (sent, delivered) = totals;
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
        let bad = wrong.duplicated + wrong.out_of_order + wrong.errors;
        let summary = format!(
            "{name:<19} sent {sent:>8}  delivered {delivered:>8}  {rate:>6.0}/s  worst vote {worst:>6.0} ms  wrong {bad}"
        );
        if self.style == Style::Lines {
            let down: Vec<String> = progress
                .members
                .iter()
                .enumerate()
                .filter(|(_, member)| up(member) + 1 < member.links.len() || member.state() != "runs")
                .map(|(node, member)| format!("node {node} {} with {} links", member.state(), up(member)))
                .collect();
            self.line(&format!("{summary}  {}", down.join(", ")));
            let pools = pools_in_a_line(progress.members);
            self.line(&format!("{:<19} {pools}", ""));
            return;
        }
        self.draw(progress, &summary);
    }

    /// Each link, for those who have no table that shows them all the time.
    pub(crate) fn links(&mut self, members: &[Member]) {
        self.flush();
        if self.style == Style::Lines && members.len() <= MATRIX {
            self.line(&format!("links: {}", links_in_a_line(members)));
        }
    }

    fn draw(&mut self, progress: &Progress<'_>, summary: &str) {
        let mut lines = vec![
            format!("{:>6.1} s  {summary}", self.start.elapsed().as_secs_f64()),
            format!(
                "{:<6}{:<10}{:>5}{:>8}{:>12}{:>12}  {}",
                "node",
                "state",
                "life",
                "links",
                "sent",
                "received",
                "to each peer: connections, worst score, replaced so far"
            ),
        ];
        for (node, member) in progress.members.iter().enumerate() {
            let (sent, received) = progress.ledger.totals_of(node);
            let links = format!("{}/{}", up(member), member.links.len() - 1);
            let (state, life) = (member.state(), member.life());
            let cells = cells(progress.members, node);
            lines.push(format!("{node:<6}{state:<10}{life:>5}{links:>8}{sent:>12}{received:>12}  {cells}"));
        }
        let mut out = String::new();
        if self.drawn > 0 {
            out.push_str(&format!("\x1b[{}A", self.drawn));
        }
        // A line that is too long for the window is cut, not wrapped: the table would move.
        out.push_str("\x1b[?7l");
        for line in &lines {
            out.push_str(&format!("\r\x1b[2K{line}\n"));
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
        if self.drawn > 0 {
            // The lines take the table's place, which is drawn again below them.
            let up = std::mem::take(&mut self.drawn);
            self.print(&format!("\x1b[{up}A\r\x1b[J"));
            self.due = Instant::now();
        }
        for ((_, title), all) in decisions {
            let more = match all.len().saturating_sub(EXAMPLES) {
                0 => String::new(),
                more => format!("; and {more} more"),
            };
            let examples = all.iter().take(EXAMPLES).map(String::as_str).collect::<Vec<_>>().join("; ");
            self.line(&format!("  {:>3} x {title}: {examples}{more}", all.len()));
        }
    }

    fn line(&mut self, text: &str) {
        let at = self.start.elapsed().as_secs_f64();
        self.print(&format!("{at:>6.1} s  {}\n", text.trim_end()));
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

    // --- the end --------------------------------------------------------------------------------

    pub(crate) fn finish(&mut self, balance: &Balance) {
        self.flush();
        for complaint in &balance.complaints {
            eprintln!("wrong: {complaint}");
        }
        let total = &balance.total;
        let last = format!(
            "delivered {} of {}, lost {}, duplicated {}, out of order {}, send errors {}",
            total.received, total.sent, total.lost, total.duplicated, total.out_of_order, total.errors
        );
        if self.style == Style::Json {
            for line in &balance.lines {
                self.json(&line_json(line));
            }
            self.json(&json!({
                "event": "summary", "sent": total.sent, "delivered": total.received, "lost": total.lost,
                "duplicated": total.duplicated, "out_of_order": total.out_of_order,
                "send_errors": total.errors, "died_with_their_sender": total.died,
                "again_after_restart": total.again, "ok": balance.ok, "text": last,
            }));
            eprintln!("{last}");
            return;
        }
        let mut text = format!(
            "\n{:<20}{:>8}{:>9}{:>6}{:>6}{:>6}{:>6}{:>7}{:>6}{:>7}{:>12}{:>11}  {}\n",
            "fault",
            "sent",
            "received",
            "lost",
            "dup",
            "order",
            "died",
            "again",
            "repl",
            "reconn",
            "first vote",
            "worst vote",
            "first vote counted from; notes"
        );
        let told = balance.lines.iter().filter(|line| line.counts.sent > 0 || line.first_vote.is_some());
        for Line { row, counts, first_vote, since, note } in told {
            let first =
                first_vote.map_or("-".into(), |time| format!("{:.0} ms", time.as_secs_f64() * 1000.0));
            let worst = format!("{:.0} ms", row.worst_vote_us as f64 / 1000.0);
            let Counts { sent, received, lost, duplicated, out_of_order, died, again, .. } = counts;
            let (replaced, reconnects) = (row.events.replaced, row.events.reconnects());
            let (reached, missed) = row.quorums;
            let quorums = match (reached, missed) {
                (0, 0) => String::new(),
                (_, 0) => format!("; {reached} quorums"),
                _ => format!("; {reached} quorums, {missed} missed"),
            };
            text.push_str(&format!(
                "{:<20}{sent:>8}{received:>9}{lost:>6}{duplicated:>6}{out_of_order:>6}{died:>6}{again:>7}{replaced:>6}{reconnects:>7}{first:>12}{worst:>11}  {since}; {note}{quorums}\n",
                row.name
            ));
        }
        text.push_str(&format!(
            "\nrepl: connections replaced while they served; reconn: connections made for lost ones\n\
             again after restart {} (processed by a killed node that could not say so any more; no duplicates)\n",
            total.again
        ));
        text.push_str(&format!("died with their sender {}\n{last}\n", total.died));
        self.print(&text);
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
    if members.len() > MATRIX {
        let worst = of_node.iter().min_by(|a, b| a.figures.score.total_cmp(&b.figures.score));
        return worst
            .map(|link| format!("worst: to {} {}", link.figures.peer, link.cell()))
            .unwrap_or_default();
    }
    let cell = |peer| of_node.iter().find(|link| link.figures.peer == peer).map(Shown::cell);
    let cells = (0..members.len()).map(|peer| format!("{:<14}", cell(peer).unwrap_or_else(|| "-".into())));
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

fn line_json(line: &Line) -> serde_json::Value {
    let Line { row, counts, first_vote, since, note } = line;
    let LinkEvents { connected, replaced, suspects, poor, learned, .. } = row.events;
    json!({
        "event": "fault", "fault": row.name, "sent": counts.sent, "received": counts.received,
        "lost": counts.lost, "duplicated": counts.duplicated, "out_of_order": counts.out_of_order,
        "send_errors": counts.errors, "died_with_their_sender": counts.died,
        "again_after_restart": counts.again, "votes": row.votes,
        "first_vote_ms": first_vote.map(|time| time.as_secs_f64() * 1000.0), "first_vote_since": since,
        "worst_vote_ms": row.worst_vote_us as f64 / 1000.0, "connections": connected,
        "replacements": replaced, "reconnects": row.events.reconnects(), "suspects": suspects, "poor": poor,
        "ping_intervals_learned": learned,
        "quorums_reached": row.quorums.0, "quorums_missed": row.quorums.1, "note": note,
    })
}
