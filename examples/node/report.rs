//! One line per event, for people or for programs.

use std::fmt;
use std::io::{self, Write};
use std::time::Instant;

use serde_json::{Value, json};
use unbroken::{Node, PeerId};

use crate::view::View;

/// Writes the lines to standard output, and tells the live view.
pub(crate) struct Reporter {
    json: bool,
    start: Instant,
    view: Option<View>,
}

/// One line in the making.
#[must_use = "a line is written by `say`"]
pub(crate) struct Line<'a> {
    reporter: &'a Reporter,
    event: String,
    fields: Vec<(String, Value)>,
    peer: Option<PeerId>,
}

impl Reporter {
    pub(crate) fn new(json: bool, start: Instant, view: Option<View>) -> Self {
        Reporter { json, start, view }
    }

    pub(crate) fn event(&self, event: &str) -> Line<'_> {
        let line = Line { reporter: self, event: event.into(), fields: Vec::with_capacity(8), peer: None };
        line.millis("t_ms", self.start.elapsed().as_secs_f64() * 1e3).with("event", event)
    }
}

impl Line<'_> {
    pub(crate) fn peer(mut self, peer: PeerId) -> Self {
        self.peer = Some(peer);
        self.with("peer", peer.to_string())
    }

    /// As [`Line::peer`], if the peer is known.
    pub(crate) fn about(self, peer: Option<PeerId>) -> Self {
        match peer {
            Some(peer) => self.peer(peer),
            None => self,
        }
    }

    pub(crate) fn seq(self, seq: u64) -> Self {
        self.with("seq", seq)
    }

    /// A time in milliseconds, to the microsecond.
    pub(crate) fn millis(self, name: &str, millis: f64) -> Self {
        self.with(name, round(millis))
    }

    /// A field of the JSON object.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }

    /// Writes the line; `text` is what people read instead of the fields.
    pub(crate) fn say(self, node: &Node, text: impl fmt::Display) -> io::Result<()> {
        // The view has a count of the messages that go well.
        let is_routine = ["_sent", "_receipt", "_received"].iter().any(|end| self.event.ends_with(end));
        if let Some(view) = self.reporter.view.as_ref().filter(|_| !is_routine) {
            view.event(self.peer, &self.event, &text.to_string());
        }
        let mut out = io::stdout().lock();
        if self.reporter.json {
            // In the order in which the fields were given: `t_ms` and `event` first.
            for (index, (name, value)) in self.fields.iter().enumerate() {
                write!(out, "{}{}:{value}", if index == 0 { '{' } else { ',' }, json!(name))?;
            }
            writeln!(out, "}}")?;
        } else {
            let seconds = self.reporter.start.elapsed().as_secs_f64();
            let peer = self.peer.map_or_else(|| "-".into(), |peer| label(node, peer));
            writeln!(out, "{seconds:>9.3}  {peer:<16}  {text}")?;
        }
        out.flush()
    }
}

/// The peer's short id, and its label, or the name that it gave.
fn label(node: &Node, peer: PeerId) -> String {
    let name = node.peer(peer).map(|peer| peer.label.unwrap_or(peer.name)).unwrap_or_default();
    if name.is_empty() { peer.short() } else { format!("{} {name}", peer.short()) }
}

fn round(millis: f64) -> f64 {
    (millis * 1e3).round() / 1e3
}
