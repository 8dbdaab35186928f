//! The report: a page of HTML with the charts of a run, which needs nothing beside it.

mod charts;
mod svg;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use crate::args::Args;
use crate::plan::Fault;
use crate::record::{End, Record};
use crate::table::{Balance, Line, Verdict};
use charts::Time;
use svg::{duration, escape};

/// Fails if the file cannot be written. What is in it stays until there is a report.
pub(crate) fn check(file: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create(true).truncate(false).open(file).map(drop)
}

/// The page, of a run that ended at `end_us`.
pub(crate) fn page(args: &Args, record: &Record, balance: &Balance, end_us: u64) -> String {
    let faults = balance.faults();
    let last_us = faults.iter().filter_map(|line| line.row.end_us).max().unwrap_or(end_us);
    // The nodes end after the last fault, which is no part of the story.
    let time = Time { start_us: record.start_us, end_us: last_us.max(record.start_us + 1) };
    let mut page = String::new();
    head(&mut page, args, balance, time);
    figures(&mut page, record, balance);

    page.push_str("<section><h2>Delay of votes</h2>\n");
    page.push_str(
        "<p class=\"quiet\">From the send to when the receiver had processed it, at the time of the send; \
         logarithmic. All processes have the same clock.</p>\n<ul class=\"legend\">\
         <li><svg viewBox=\"0 0 22 14\" aria-hidden=\"true\"><path class=\"median\" d=\"M1 9L8 6L14 9L21 5\"/></svg>median</li>\
         <li><svg viewBox=\"0 0 22 14\" aria-hidden=\"true\"><path class=\"range\" d=\"M7 13V3M11 13V2M15 13V5\"/></svg>\
         up to the 99th percentile</li>\
         <li><svg viewBox=\"0 0 22 14\" aria-hidden=\"true\"><path class=\"slowest\" d=\"M11 7h0\"/></svg>slowest vote</li>",
    );
    page.push_str(BANDS);
    let _ =
        writeln!(page, "</ul>\n<div class=\"wide\">{}</div></section>", charts::votes(record, faults, time));

    connections(&mut page, record, faults, time);

    let rtt = charts::round_trips(record);
    page.push_str(
        "<section><h2>Score and round trip by link</h2>\n<p class=\"quiet\">The worst score of the connections of \
         the link, by what either end says (1 is good; below 0.4 for some time a connection is replaced), and their \
         longest smoothed round trip (RTT; logarithmic).</p>\n<div class=\"links\">\n",
    );
    for shown in charts::chosen(record) {
        let (a, b) = shown.0;
        let _ = writeln!(
            page,
            "<figure><h3>node {a} \u{2013} node {b}</h3>{}</figure>",
            charts::link(shown, faults, time, rtt)
        );
    }
    page.push_str("</div></section>\n");
    outcomes(&mut page, record, balance, time);
    page.push_str("</main></body></html>\n");
    page
}

const BANDS: &str = "<li><svg viewBox=\"0 0 22 14\" aria-hidden=\"true\"><rect class=\"fault\" width=\"22\" \
                     height=\"14\"/></svg>while the fault lasts</li>";

fn head(page: &mut String, args: &Args, balance: &Balance, time: Time) {
    let (word, class) = if balance.ok { ("PASS", "pass") } else { ("FAIL", "fail") };
    let timeouts = match args.factor() {
        1 => "the library's own timeouts".to_owned(),
        factor => format!("timeouts divided by {factor}"),
    };
    let begun = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_micros(time.start_us));
    let _ = write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>unbroken cluster, seed {seed}: {word}</title>\n<style>\n{css}</style></head>\n<body><main>\n\
         <h1>unbroken cluster, seed {seed}: <span class=\"{class}\">{sign} {word}</span></h1>\n\
         <p class=\"quiet\">{nodes} node processes, {timeouts}, {lasted:.0} s, begun {begun}.</p>\n\
         <p>{outcome}. {counts}.</p>\n<p class=\"quiet\">Again: <code>{command}</code></p>\n",
        seed = args.seed,
        css = include_str!("style.css"),
        sign = if balance.ok { "\u{2713}" } else { "\u{2717}" },
        nodes = args.nodes,
        lasted = time.seconds(),
        outcome = escape(balance.outcome().split_once(": ").map_or("", |(_, outcome)| outcome)),
        counts = escape(&capital(&balance.counts())),
        command = escape(&command(args)),
    );
    let trouble: Vec<_> = balance.error.iter().chain(&balance.complaints).collect();
    if !trouble.is_empty() {
        let items: String = trouble.iter().map(|what| format!("<li>{}</li>\n", escape(what))).collect();
        let _ = writeln!(page, "<ul class=\"fail\">\n{items}</ul>");
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// The command that repeats the run.
fn command(args: &Args) -> String {
    let Args { nodes, time, seed, faults, real_time, .. } = args;
    let mut command = format!(
        "cargo run --release --example cluster -- --nodes {nodes} --seconds {} --seed {seed}",
        time.as_secs()
    );
    if *real_time {
        command.push_str(" --real-time");
    }
    if *faults != Fault::ALL {
        faults.iter().for_each(|fault| command.extend([" --fault ", fault.name()]));
    }
    command
}

fn figures(page: &mut String, record: &Record, balance: &Balance) {
    let (_, votes) = record.votes.at_most(1);
    let delay = |part| votes.first().and_then(|all| all.quantile_ms(part)).map_or("-".into(), duration);
    let sum = |of: fn(&Line) -> u64| balance.faults().iter().map(of).sum::<u64>();
    let figures = [
        ("messages delivered", balance.total.received.to_string()),
        ("wrong", balance.total.wrong().to_string()),
        ("votes, median", delay(0.5)),
        ("votes, 99 %", delay(0.99)),
        ("slowest vote", delay(1.0)),
        ("replacements", sum(|line| line.row.events.replaced).to_string()),
        ("reconnections", sum(|line| line.row.events.reconnects()).to_string()),
    ];
    page.push_str("<dl class=\"figures\">\n");
    for (name, value) in figures {
        let _ = writeln!(page, "<div><dt>{name}</dt><dd>{value}</dd></div>");
    }
    page.push_str("</dl>\n");
}

fn connections(page: &mut String, record: &Record, faults: &[Line], time: Time) {
    let mut ends: BTreeMap<End, usize> = BTreeMap::new();
    for conn in record.links.values().flat_map(|link| &link.conns) {
        conn.end.into_iter().for_each(|(_, end)| *ends.entry(end).or_default() += 1);
    }
    page.push_str(
        "<section><h2>Connections</h2>\n<p class=\"quiet\">Each link is a pool of two connections, a line for each \
         place, over two paths. A bar is a connection, by what the node that dialled it says. Before a fault of one path, connections are reset and replaced \
         until each goes by the path of its place.",
    );
    if record.links.len() > charts::LINKS {
        let _ = write!(
            page,
            " Shown are the {} links with the most connections of {}.",
            charts::LINKS,
            record.links.len()
        );
    }
    page.push_str("</p>\n<ul class=\"legend\">");
    for (class, height, name) in
        [("path0", 10.0, "by path 0"), ("path1", 6.0, "by path 1"), ("direct", 3.0, "past the proxies")]
    {
        let y = 7.0 - height / 2.0;
        let _ = write!(
            page,
            "<li><svg viewBox=\"0 0 22 14\" aria-hidden=\"true\"><rect class=\"{class}\" y=\"{y}\" width=\"22\" \
             height=\"{height}\"/></svg>{name}</li>"
        );
    }
    for end in [End::Planned, End::Suspect, End::Poor, End::Lost] {
        let Some((class, shape)) = charts::mark(end) else { continue };
        let (count, what) = (ends.get(&end).copied().unwrap_or(0), charts::end_in_words(end));
        let _ = write!(
            page,
            "<li><svg viewBox=\"-11 -7 22 14\" aria-hidden=\"true\"><path class=\"{class}\" d=\"{shape}\"/></svg>\
             {what} ({count})</li>"
        );
    }
    let chart = charts::connections(record, faults, time);
    let _ = writeln!(page, "{BANDS}</ul>\n<div class=\"wide\">{chart}</div></section>");
}

fn outcomes(page: &mut String, record: &Record, balance: &Balance, time: Time) {
    page.push_str(
        "<section><h2>Faults and their outcomes</h2>\n<div class=\"wide\"><table>\n<thead><tr>\
         <th class=\"words\">result</th><th class=\"words\">fault</th><th>lasted</th><th>first vote<br/>after it</th>\
         <th>votes,<br/>median</th><th>votes,<br/>99 %</th><th>slowest<br/>vote</th><th>sent</th><th>delivered</th>\
         <th>wrong</th><th>died</th><th>conns<br/>replaced</th><th>made for<br/>lost ones</th></tr></thead>\n<tbody>\n",
    );
    for line in balance.faults() {
        let Line { row, counts, verdict, first_vote, .. } = line;
        let (class, sign) = match verdict {
            Verdict::Pass => ("pass", '\u{2713}'),
            Verdict::Fail => ("fail", '\u{2717}'),
            Verdict::Skip => ("skip", '\u{2013}'),
        };
        let what = Fault::from_name(&row.name).map(Fault::what).unwrap_or_default();
        let lasted =
            charts::fault_time(row, time).map_or("-".into(), |(from, to)| format!("{:.1} s", to - from));
        let votes = record.votes.between(row.start_us, row.end_us.unwrap_or(time.end_us));
        let delay = |part| votes.quantile_ms(part).map_or("-".into(), duration);
        let slowest = if row.votes > 0 { duration(row.worst_vote_us as f64 / 1e3) } else { "-".into() };
        let first = first_vote.map_or("-".into(), |time| duration(time.as_secs_f64() * 1e3));
        let story = escape(&capital(&line.details()));
        let _ = writeln!(
            page,
            "<tr><td class=\"words {class}\">{sign}&#160;{}</td><td class=\"words story\"><strong>{}</strong>\
             <span class=\"quiet\">{}.</span><span class=\"quiet\">{story}.</span></td><td>{lasted}</td>\
             <td>{first}</td><td>{}</td><td>{}</td><td>{slowest}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
             <td>{}</td><td>{}</td></tr>",
            verdict.word(),
            escape(&row.name),
            escape(&capital(what)),
            delay(0.5),
            delay(0.99),
            counts.sent,
            counts.received,
            counts.wrong(),
            counts.died,
            row.events.replaced,
            row.events.reconnects(),
        );
    }
    page.push_str(
        "</tbody></table></div>\n<p class=\"quiet\">Lasted: how long the fault was there. Wrong: lost, duplicated, out \
         of order or refused. Died: waited in the queues of a node that was killed.</p></section>\n",
    );
}
