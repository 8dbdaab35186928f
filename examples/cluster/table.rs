//! What people see: progress while it runs, the table and the last line at the end.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::args::Args;
use crate::cluster::Row;
use crate::ledger::{Counts, Ledger};
use crate::member::Member;
use crate::wire::News;

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

/// What is shown while it runs.
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
}

impl View {
    pub(crate) fn new(args: &Args) -> View {
        let style = match (args.json, io::stdout().is_terminal()) {
            (true, _) => Style::Json,
            (_, true) => Style::Live,
            _ => Style::Lines,
        };
        let mut view = View { style, start: Instant::now(), due: Instant::now(), drawn: 0, before: (0, 0) };
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
            self.json(&json!({
                "event": "progress", "fault": name, "sent": sent, "delivered": delivered,
                "duplicated": wrong.duplicated, "out_of_order": wrong.out_of_order,
                "send_errors": wrong.errors, "again_after_restart": wrong.again, "nodes": nodes,
            }));
            return;
        }
        let worst = progress.row.map_or(0, |row| row.worst_vote_us) as f64 / 1000.0;
        let bad = wrong.duplicated + wrong.out_of_order + wrong.errors;
        let summary = format!(
            "{name:<16} sent {sent:>8}  delivered {delivered:>8}  {rate:>6.0}/s  worst vote {worst:>6.0} ms  wrong {bad}"
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
            return;
        }
        self.draw(progress, &summary);
    }

    fn draw(&mut self, progress: &Progress<'_>, summary: &str) {
        let mut lines = vec![
            format!("{:>6.1} s  {summary}", self.start.elapsed().as_secs_f64()),
            format!(
                "{:<6}{:<10}{:>5}{:>8}{:>12}{:>12}",
                "node", "state", "life", "links", "sent", "received"
            ),
        ];
        for (node, member) in progress.members.iter().enumerate() {
            let (sent, received) = progress.ledger.totals_of(node);
            let links = format!("{}/{}", up(member), member.links.len() - 1);
            let (state, life) = (member.state(), member.life());
            lines.push(format!("{node:<6}{state:<10}{life:>5}{links:>8}{sent:>12}{received:>12}"));
        }
        let mut out = String::new();
        if self.drawn > 0 {
            out.push_str(&format!("\x1b[{}A", self.drawn));
        }
        for line in &lines {
            out.push_str(&format!("\r\x1b[2K{line}\n"));
        }
        self.drawn = lines.len();
        self.print(&out);
    }

    /// News of a link, for the log.
    pub(crate) fn link(&mut self, node: usize, peer: usize, news: News, why: &str) {
        log::info!("node {node} to node {peer}: {news:?} {why}");
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
        // Whoever stopped reading does not stop the run: its exit code still counts.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    // --- the end --------------------------------------------------------------------------------

    pub(crate) fn finish(&mut self, balance: &Balance) {
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
            "\n{:<16}{:>8}{:>9}{:>6}{:>6}{:>6}{:>6}{:>7}{:>12}{:>11}  {}\n",
            "fault",
            "sent",
            "received",
            "lost",
            "dup",
            "order",
            "died",
            "again",
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
            let (reached, missed) = row.quorums;
            let quorums = match (reached, missed) {
                (0, 0) => String::new(),
                (_, 0) => format!("; {reached} quorums"),
                _ => format!("; {reached} quorums, {missed} missed"),
            };
            text.push_str(&format!(
                "{:<16}{sent:>8}{received:>9}{lost:>6}{duplicated:>6}{out_of_order:>6}{died:>6}{again:>7}{first:>12}{worst:>11}  {since}; {note}{quorums}\n",
                row.name
            ));
        }
        text.push_str(&format!(
            "\nagain after restart {} (processed by a killed node that could not say so any more; no duplicates)\n",
            total.again
        ));
        text.push_str(&format!("died with their sender {}\n{last}\n", total.died));
        self.print(&text);
    }
}

fn up(member: &Member) -> usize {
    member.links.iter().filter(|up| **up).count()
}

fn line_json(line: &Line) -> serde_json::Value {
    let Line { row, counts, first_vote, since, note } = line;
    json!({
        "event": "fault", "fault": row.name, "sent": counts.sent, "received": counts.received,
        "lost": counts.lost, "duplicated": counts.duplicated, "out_of_order": counts.out_of_order,
        "send_errors": counts.errors, "died_with_their_sender": counts.died,
        "again_after_restart": counts.again, "votes": row.votes,
        "first_vote_ms": first_vote.map(|time| time.as_secs_f64() * 1000.0), "first_vote_since": since,
        "worst_vote_ms": row.worst_vote_us as f64 / 1000.0, "connections": row.connected,
        "suspects": row.suspects,
        "quorums_reached": row.quorums.0, "quorums_missed": row.quorums.1, "note": note,
    })
}
