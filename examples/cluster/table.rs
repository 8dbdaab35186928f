//! The outcomes: the table and the last line at the end.

use std::time::Duration;

use serde_json::json;

use crate::cluster::{LinkEvents, Row};
use crate::ledger::Counts;
use crate::terminal::{Colour, Paint, WIDTH, fold};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Pass,
    Fail,
    /// It cannot be tried here.
    Skip,
}

impl Verdict {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Verdict::Pass => "PASS",
            Verdict::Fail => "FAIL",
            Verdict::Skip => "SKIP",
        }
    }

    pub(crate) fn colour(self) -> Colour {
        match self {
            Verdict::Pass => Colour::Green,
            Verdict::Fail => Colour::Red,
            Verdict::Skip => Colour::Yellow,
        }
    }
}

/// One row of the final table.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) row: Row,
    pub(crate) counts: Counts,
    pub(crate) verdict: Verdict,
    pub(crate) first_vote: Option<Duration>,
    pub(crate) since: &'static str,
    pub(crate) note: String,
}

/// The whole of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Balance {
    /// The first is that of the start.
    pub(crate) lines: Vec<Line>,
    pub(crate) total: Counts,
    pub(crate) complaints: Vec<String>,
    pub(crate) ok: bool,
    /// The reason for which the run ended early.
    pub(crate) error: Option<String>,
}

impl Line {
    /// The figures of a fault in a sentence.
    pub(crate) fn story(&self) -> String {
        let Line { row, first_vote, since, .. } = self;
        let mut story = Vec::new();
        if let Some(time) = first_vote {
            let millis = time.as_secs_f64() * 1e3;
            let slowest = row.worst_vote_us as f64 / 1e3;
            story.push(format!("first vote {millis:.0} ms after the {since}, slowest vote {slowest:.0} ms"));
        }
        let details = self.details();
        if !details.is_empty() {
            story.push(details);
        }
        let (replaced, reconnects) = (row.events.replaced, row.events.reconnects());
        if replaced + reconnects > 0 {
            story.push(format!("connections: {replaced} replaced, {reconnects} made for lost ones"));
        }
        story.join("; ")
    }

    /// What no column of the table has.
    pub(crate) fn details(&self) -> String {
        let quorums = match self.row.quorums {
            (0, 0) => String::new(),
            (reached, 0) => format!("{reached} quorums"),
            (reached, missed) => format!("{reached} quorums, {missed} missed"),
        };
        let parts = [self.note.as_str(), &quorums];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
    }
}

impl Balance {
    /// The rows of the faults, without that of the start.
    pub(crate) fn faults(&self) -> &[Line] {
        self.lines.get(1..).unwrap_or_default()
    }

    /// The outcome in a sentence.
    pub(crate) fn outcome(&self) -> String {
        let of = |verdict| self.faults().iter().filter(move |line| line.verdict == verdict);
        let (passed, all) = (of(Verdict::Pass).count(), self.faults().len());
        let failed: Vec<_> = of(Verdict::Fail).map(|line| line.row.name.as_str()).collect();
        let skipped = match of(Verdict::Skip).count() {
            0 => String::new(),
            count => format!(", {count} skipped"),
        };
        let failed =
            if failed.is_empty() { String::new() } else { format!(", failed: {}", failed.join(", ")) };
        // The table says why a fault failed.
        let error = self.error.iter().filter(|_| failed.is_empty()).map(|error| format!("; then: {error}"));
        let (word, error) = (if self.ok { "PASS" } else { "FAIL" }, error.collect::<String>());
        format!("{word}: {passed} of {all} faults passed{skipped}{failed}{error}")
    }

    /// The counts in the line that ends the run.
    pub(crate) fn counts(&self) -> String {
        let Counts { sent, received, lost, duplicated, out_of_order, died, errors, .. } = self.total;
        format!(
            "delivered {received} of {}, lost {lost}, duplicated {duplicated}, out of order {out_of_order}, \
             send errors {errors}",
            sent.saturating_sub(died)
        )
    }

    /// The last line. A failed run is not to be taken for a good one because its books balance.
    pub(crate) fn last_line(&self) -> String {
        if self.ok { self.counts() } else { format!("FAIL: {}", self.counts()) }
    }

    /// The table for a terminal.
    pub(crate) fn table(&self, paint: Paint) -> String {
        let mut text = format!(
            "\n{:<5}{:<20}{:>8}{:>10}{:>6}{:>5}{:>5}{:>7}{:>7}{:>6}\n",
            "", "fault", "sent", "delivered", "wrong", "died", "repl", "reconn", "first", "worst"
        );
        for Line { row, counts, verdict, first_vote, .. } in self.faults() {
            let first = first_vote.map_or("-".into(), |time| format!("{:.0}", time.as_secs_f64() * 1e3));
            let worst = format!("{:.0}", row.worst_vote_us as f64 / 1e3);
            let Counts { sent, received, died, .. } = counts;
            let (replaced, reconnects) = (row.events.replaced, row.events.reconnects());
            let (wrong, name) = (counts.wrong(), &row.name);
            let line = format!(
                "{:<5}{name:<20}{sent:>8}{received:>10}{wrong:>6}{died:>5}{replaced:>5}{reconnects:>7}\
                 {first:>7}{worst:>6}",
                verdict.word()
            );
            text.push_str(&paint.begin(verdict.colour(), verdict.word(), &line));
            text.push('\n');
        }
        let mut legend = String::from(
            "wrong: lost, duplicated, out of order or refused. died: waited in a node that was killed. repl: \
             connections replaced while they served. reconn: made for lost ones. first, worst: ms until the \
             first vote after the fault, and of the slowest vote.",
        );
        if self.total.again > 0 {
            legend.push_str(&format!(
                " A killed node had processed {} messages that came again to its next life.",
                self.total.again
            ));
        }
        fold(&legend, WIDTH).iter().for_each(|line| text.extend([line.as_str(), "\n"]));
        let colour = if self.ok { Colour::Green } else { Colour::Red };
        for line in fold(&self.outcome(), WIDTH) {
            text.extend([paint.begin(colour, if self.ok { "PASS" } else { "FAIL" }, &line).as_str(), "\n"]);
        }
        // Whole, for those who read it with a program: it is too long beyond 999,999 messages, and after
        // `FAIL: `.
        text.extend([paint.paint(colour, &self.last_line()).as_str(), "\n"]);
        text
    }
}

pub(crate) fn line_json(line: &Line) -> serde_json::Value {
    let Line { row, counts, verdict, first_vote, since, note } = line;
    let LinkEvents { connected, replaced, suspects, poor, learned, .. } = row.events;
    json!({
        "event": "fault", "fault": row.name, "verdict": verdict.word(), "sent": counts.sent, "received": counts.received,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, verdict: Verdict) -> Line {
        let row = Row { name: name.into(), worst_vote_us: 12_345_678, ..Row::default() };
        let counts = Counts { sent: 9_999_999, received: 9_999_991, died: 8, ..Counts::default() };
        Line {
            row,
            counts,
            verdict,
            first_vote: Some(Duration::from_millis(99_999)),
            since: "-",
            note: String::new(),
        }
    }

    fn balance(verdict: Verdict, ok: bool) -> Balance {
        let lines: Vec<_> = crate::plan::Fault::ALL.map(|fault| line(fault.name(), verdict)).into();
        let lines: Vec<_> = std::iter::once(line("start", Verdict::Pass)).chain(lines).collect();
        let total = Counts { sent: 123_457, received: 123_449, died: 8, again: 3, ..Counts::default() };
        Balance { lines, total, ok, ..Balance::default() }
    }

    #[test]
    fn the_table_fits_into_80_columns_and_24_lines() {
        for (verdict, ok) in [(Verdict::Pass, true), (Verdict::Fail, false), (Verdict::Skip, true)] {
            let (balance, plain) = (balance(verdict, ok), Paint::default());
            let table = balance.table(plain);
            let fits = |line: &str| line.chars().count() < 80 || line.starts_with("FAIL: delivered");
            assert!(table.lines().all(fits), "{table}");
        }
        let table = balance(Verdict::Pass, true).table(Paint::default());
        assert!(table.trim_start().lines().count() < 24, "{table}");
    }

    #[test]
    fn the_last_line_reads_as_what_it_was() {
        let good = balance(Verdict::Pass, true);
        assert_eq!(
            good.last_line(),
            "delivered 123449 of 123449, lost 0, duplicated 0, out of order 0, send errors 0"
        );
        assert_eq!(good.outcome(), "PASS: 16 of 16 faults passed");
        let bad = balance(Verdict::Fail, false);
        assert!(bad.last_line().starts_with("FAIL: delivered"));
        assert!(bad.outcome().starts_with("FAIL: 0 of 16 faults passed, failed: planned-replacement, "));
        let error = Some("node 1 does not end".into());
        let bad = Balance { error, ..balance(Verdict::Pass, false) };
        assert_eq!(bad.outcome(), "FAIL: 16 of 16 faults passed; then: node 1 does not end");
    }
}
