//! The screen. Every line is made as wide as the screen is: what does not fit is left out whole, or shortened
//! with `…`, and nothing wraps.

use std::iter::repeat_n;

use ratatui::Frame;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use crate::app::{App, History, Mode, SECONDS, key_of, label, short};
use crate::text::{
    age, bytes, count, lines, percent, score, shorten, shorten_middle, sparkline, time, width,
};
use crate::wire::{Action, Conn, Event, Lane, Peer, Snapshot};

/// The least screen.
const LEAST: (usize, usize) = (80, 24);
/// The columns of bars, beside that of the last value. Their titles say how many seconds they show.
const SCORES: &str = "SCORES";
const RTTS: &str = "RTTS";
/// From this width on there are more columns.
const WIDE: usize = 120;
/// From this height on there are more connections and lanes.
const HIGH: usize = 36;

const KEYS: &str = "↑↓ select  p ping  r replace  d disconnect  b ban  e events  ? help  q quit";

const HELP: &[&str] = &[
    "up, down, k, j     select a peer; PgUp, PgDn, Home, End, g and G go further",
    "p                  ping: ask each connection of the peer for an answer now",
    "r                  replace its connections, without a gap",
    "d                  disconnect: end the link and dial no longer (asks first)",
    "b                  ban the peer for an hour (asks first); u lifts the ban",
    "e                  the last events in full; e, q or Esc goes back",
    "q, Ctrl-C          quit; the node goes on",
    "",
    "STATE              of the link: connecting, up, down, or degraded (none of its",
    "                   connections is above suspicion); or banned",
    "SCORE              how well the peer has done lately, 0 to 1",
    "LAST n s           of SCORE and of RTT, a bar for each second: its worst value",
    "QUEUED, MSGS       bytes and messages that the peer has not taken",
    "REPL, replaced     connections that a successor has replaced",
    "successors         dialled in the last minute to replace connections",
    "later conns        connections of the peer that came after its first",
    "PL, WAY            place in the pool; out: this node dialled; in: the peer did",
    "SILENT             time since the last byte was received",
    "LOST               segments that were sent again, if the kernel tells",
    "CREDIT             bytes that may be sent before the peer takes some",
    "RESENT             bytes sent again after a connection was lost or replaced",
    "INBOX, IN MSGS     bytes and messages that this application has not taken",
];

/// Colours, unless the user wants none (<https://no-color.org>).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Theme {
    pub(crate) colour: bool,
}

impl Theme {
    fn of(self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }

    fn of_state(self, state: &str) -> Style {
        match state {
            "up" => self.of(Color::Green),
            "degraded" | "suspect" | "draining" => self.of(Color::Yellow),
            "down" | "banned" => self.of(Color::Red),
            _ => self.of(Color::Cyan),
        }
    }

    fn of_score(self, score: f64) -> Style {
        match score {
            ..0.4 => self.of(Color::Red),
            ..0.8 => self.of(Color::Yellow),
            _ => self.of(Color::Green),
        }
    }

    fn faint(self) -> Style {
        self.of(Color::DarkGray)
    }
}

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const BAR: Style = Style::new().add_modifier(Modifier::REVERSED);

/// Draws everything.
pub(crate) fn draw(frame: &mut Frame<'_>, app: &App, theme: Theme) {
    let area = frame.area();
    let lines = lines_of(app, theme, area.width.into(), area.height.into());
    for (y, line) in (area.y..area.bottom()).zip(lines) {
        frame.buffer_mut().set_line(area.x, y, &line, area.width);
    }
}

/// The lines of a screen of this size; no line is wider than it.
pub(crate) fn lines_of(app: &App, theme: Theme, columns: usize, rows: usize) -> Vec<Line<'static>> {
    let mut lines = Screen { app, theme, columns, rows }.lines();
    lines.truncate(rows);
    lines
}

/// One cell: its text fits, or is shortened.
struct Cell {
    text: String,
    style: Style,
    /// The style of each character, if they differ.
    styles: Vec<Style>,
}

struct Column {
    title: &'static str,
    columns: usize,
    is_number: bool,
}

fn cell(text: impl Into<String>) -> Cell {
    Cell { text: text.into(), style: Style::new(), styles: Vec::new() }
}

impl Cell {
    fn style(self, style: Style) -> Cell {
        Cell { style, ..self }
    }
}

const fn left(title: &'static str, columns: usize) -> Column {
    Column { title, columns, is_number: false }
}

const fn right(title: &'static str, columns: usize) -> Column {
    Column { title, columns, is_number: true }
}

/// Text of exactly so many columns.
fn fit(text: &str, columns: usize, is_number: bool) -> String {
    let text = shorten(text, columns);
    let blank = " ".repeat(columns.saturating_sub(width(&text)));
    if is_number { blank + &text } else { text + &blank }
}

fn row(columns: &[Column], cells: Vec<Cell>) -> Line<'static> {
    let mut spans = Vec::with_capacity(2 * columns.len());
    for (column, cell) in columns.iter().zip(cells) {
        let text = fit(&cell.text, column.columns, column.is_number);
        if cell.styles.is_empty() {
            spans.push(Span::styled(text, cell.style));
        } else {
            let each = text.chars().zip(cell.styles);
            spans.extend(each.map(|(character, style)| Span::styled(character.to_string(), style)));
        }
        spans.push(Span::raw(" "));
    }
    spans.pop();
    Line::from(spans)
}

fn header(columns: &[Column]) -> Line<'static> {
    row(columns, columns.iter().map(|column| cell(column.title).style(BOLD)).collect())
}

/// As many of the pieces as fit, each whole.
fn pieces<'a>(pieces: impl IntoIterator<Item = (String, Style)>, columns: usize) -> Line<'a> {
    let (mut spans, mut used) = (Vec::new(), 0);
    for (text, style) in pieces {
        let gap = if spans.is_empty() { 0 } else { 2 };
        if used + gap + width(&text) > columns {
            break;
        }
        used += gap + width(&text);
        spans.push(Span::raw(" ".repeat(gap)));
        spans.push(Span::styled(text, style));
    }
    Line::from(spans)
}

fn plain(text: String) -> (String, Style) {
    (text, Style::new())
}

/// Shows `rows` of the items, from `first` on; when there are more, the last row says how many.
fn table<T>(items: &[T], rows: usize, line: impl Fn(&T) -> Line<'static>) -> Vec<Line<'static>> {
    let shown = if items.len() > rows { rows.saturating_sub(1) } else { items.len() };
    let mut table: Vec<_> = items.iter().take(shown).map(line).collect();
    if items.len() > rows && rows > 0 {
        table.push(Line::from(format!("  … and {} more", items.len() - shown)));
    }
    table.resize(rows, Line::default());
    table
}

struct Screen<'a> {
    app: &'a App,
    theme: Theme,
    columns: usize,
    rows: usize,
}

impl Screen<'_> {
    fn lines(&self) -> Vec<Line<'static>> {
        let (columns, rows) = LEAST;
        if self.columns < columns || self.rows < rows {
            let text = format!(
                "The terminal is {}x{}, expected at least {columns}x{rows}.",
                self.columns, self.rows
            );
            return lines(&text, self.columns.max(1)).into_iter().map(Line::from).collect();
        }
        let mut screen = vec![self.title()];
        let body = self.rows - 2;
        let mut shown = match (&self.app.mode, &self.app.snapshot) {
            (Mode::Help, _) => HELP.iter().map(|line| Line::from(format!("  {line}"))).collect(),
            (Mode::Events, _) => self.all_events(body),
            (_, Some(snapshot)) => self.peers_and_more(snapshot, body),
            (_, None) => self.nothing_yet(),
        };
        shown.resize(body, Line::default());
        screen.append(&mut shown);
        screen.push(self.footer());
        screen
    }

    fn title(&self) -> Line<'static> {
        let right = match (self.app.attached, self.app.silent()) {
            (false, _) => " NO NODE, trying again ".to_owned(),
            (true, Some(silence)) => {
                format!(" SILENT for {} ", time(silence.as_secs_f64() * 1e3))
            }
            (true, None) => " attached ".to_owned(),
        };
        let room = self.columns - width(&right);
        let left = match &self.app.snapshot {
            None => format!(" {}", self.app.path),
            Some(snapshot) => {
                let age = format!("up {}", time(snapshot.t_ms as f64));
                let name = if snapshot.name.is_empty() { "unbroken" } else { &snapshot.name };
                let listening = snapshot.listening.join(" ");
                format!(" {}  {}  {age}  {listening}", shorten(name, 24), short(&snapshot.id))
            }
        };
        let style = if self.app.attached && self.app.silent().is_none() {
            BAR
        } else {
            BAR.patch(self.theme.of(Color::Red))
        };
        Line::from(Span::styled(fit(&left, room, false) + &right, style))
    }

    fn footer(&self) -> Line<'static> {
        let question = match &self.app.mode {
            Mode::Confirm(command) => {
                let name = shorten(self.app.name_of(&command.peer), 16);
                Some(match command.command {
                    Action::Ban => format!("Ban {name} for an hour? Its connections end at once. y / n"),
                    _ => format!("Disconnect {name}? Messages under way to it are dropped. y / n"),
                })
            }
            _ => None,
        };
        match question {
            Some(question) => {
                let style = BAR.patch(BOLD).patch(self.theme.of(Color::Yellow));
                Line::from(Span::styled(fit(&format!(" {question}"), self.columns, false), style))
            }
            None => Line::from(Span::styled(fit(&format!(" {KEYS}"), self.columns, false), BAR)),
        }
    }

    fn nothing_yet(&self) -> Vec<Line<'static>> {
        let what = if self.app.attached { "The node is there; its first snapshot comes." } else { "" };
        let why = self.app.notice.as_ref().map_or(what, |(why, _)| why);
        let lines = lines(why, self.columns - 2).into_iter().map(|line| Line::from(format!(" {line}")));
        std::iter::once(Line::default()).chain(lines).collect()
    }

    fn peers_and_more(&self, snapshot: &Snapshot, body: usize) -> Vec<Line<'static>> {
        let most = |of: fn(&Peer) -> usize| snapshot.peers.iter().map(of).max().unwrap_or(0).max(1);
        let is_high = self.rows >= HIGH;
        // By the most that any peer has, so that nothing jumps when another one is selected.
        let conns = most(|peer| peer.connections.len()).min(if is_high { 6 } else { 3 });
        let lanes = most(|peer| peer.lanes.len()).min(if is_high { 8 } else { 3 });
        let least_events = if is_high { 8 } else { 3 };
        // Figures of the node, titles, the four lines about the selected peer.
        let fixed = 1 + 1 + 4 + 1 + 1 + 1;
        let room = body.saturating_sub(fixed + conns + lanes + least_events);
        let peers = snapshot.peers.len().clamp(1, room.max(1));
        let events = body.saturating_sub(fixed + conns + lanes + peers);

        let mut all = vec![self.figures(snapshot)];
        all.append(&mut self.peers(snapshot, peers));
        all.append(&mut self.details());
        let selected = self.app.selected();
        let columns = conn_columns(self.columns);
        all.push(header(&columns));
        let of_peer = selected.map_or(&[][..], |peer| &peer.connections);
        all.append(&mut table(of_peer, conns, |conn| self.conn(&columns, conn)));
        let columns = lane_columns(self.columns);
        all.push(header(&columns));
        let of_peer = selected.map_or(&[][..], |peer| &peer.lanes);
        all.append(&mut table(of_peer, lanes, |lane| self.lane(&columns, lane)));
        all.push(self.events_title());
        let from = self.app.events.len().saturating_sub(events);
        all.extend(self.app.events.iter().skip(from).map(|event| self.event(event)));
        all
    }

    fn figures(&self, snapshot: &Snapshot) -> Line<'static> {
        let peers = &snapshot.peers;
        let up = peers.iter().filter(|peer| peer.state == "up").count();
        let always = [
            format!("peers {up}/{} up", peers.len()),
            format!("conns {}", count(snapshot.connections)),
            format!("queued {}", bytes(snapshot.queued_bytes)),
            format!("inbox {}", bytes(snapshot.inbox_bytes)),
            format!("successors {}/min", count(snapshot.replacements)),
        ];
        // Where all is well these are 0.
        let sometimes = [
            ("refused", snapshot.refused),
            ("banned", snapshot.banned),
            ("evicted", snapshot.evicted),
            ("candidates", snapshot.candidates),
            ("events lost", snapshot.events_lost),
        ];
        let sometimes = sometimes.iter().filter(|(_, number)| *number > 0);
        let sometimes = sometimes.map(|(name, number)| format!("{name} {}", count(*number)));
        let mut line = pieces(always.into_iter().chain(sometimes).map(plain), self.columns - 1);
        line.spans.insert(0, Span::raw(" "));
        line
    }

    // --- peers ----------------------------------------------------------------------------------

    fn peers(&self, snapshot: &Snapshot, rows: usize) -> Vec<Line<'static>> {
        let columns = peer_columns(self.columns);
        let (total, position) = (snapshot.peers.len(), self.app.position());
        let title = |column: &Column| match column.title {
            SCORES | RTTS => cell(format!("LAST {} s", column.columns)),
            title => cell(title),
        };
        let mut titles: Vec<Cell> = columns.iter().map(|column| title(column).style(BOLD)).collect();
        if let Some(title) = titles.get_mut(1).filter(|_| total > rows) {
            title.text = format!("PEER {} of {total}", position + 1);
        }
        // The selected one stays in the middle while there are others on both sides.
        let first = position.saturating_sub(rows / 2).min(total.saturating_sub(rows));
        let mut lines = vec![row(&columns, titles)];
        let shown = snapshot.peers.iter().enumerate().skip(first).take(rows);
        lines.extend(shown.map(|(index, peer)| self.peer(&columns, peer, index == position)));
        lines.resize(rows + 1, Line::default());
        lines
    }

    fn peer(&self, columns: &[Column], peer: &Peer, is_selected: bool) -> Line<'static> {
        let none = History::default();
        let history = self.app.history.get(key_of(peer)).unwrap_or(&none);
        let rtt: Vec<Option<f64>> = history.rtt_ms.iter().copied().collect();
        let scores: Vec<Option<f64>> = history.score.iter().copied().collect();
        let state = if peer.banned { "banned" } else { &peer.state };
        let queued: u64 = peer.lanes.iter().map(|lane| lane.queued_bytes).fold(0, u64::saturating_add);
        let cells = columns.iter().map(|column| match column.title {
            "" => cell(if is_selected { ">" } else { "" }),
            "PEER" => cell(label(peer)).style(if is_selected { BOLD } else { Style::new() }),
            "ID" => cell(short(&peer.id)).style(self.theme.faint()),
            "STATE" => cell(state).style(self.theme.of_state(state)),
            "SCORE" => cell(score(peer.score)).style(self.theme.of_score(peer.score)),
            "RTT" => cell(peer.rtt_ms.map_or("-".into(), time)),
            "SENT/s" => cell(bytes(history.sent)),
            "RECV/s" => cell(bytes(history.received)),
            "POOL" => cell(pool(peer)),
            "REPL" => cell(count(peer.replaced)),
            "QUEUED" => cell(bytes(queued)),
            SCORES => {
                let unknown = column.columns.saturating_sub(scores.len());
                let shown = scores.iter().skip(scores.len().saturating_sub(column.columns));
                let style =
                    |score: &Option<f64>| score.map_or(Style::new(), |score| self.theme.of_score(score));
                let styles = repeat_n(Style::new(), unknown).chain(shown.map(style)).collect();
                Cell { styles, ..cell(sparkline(&scores, 1.0, column.columns)) }
            }
            RTTS => {
                let from = rtt.len().saturating_sub(column.columns);
                let shown = || rtt.iter().skip(from).flatten().copied();
                // A steady round trip is half as high as the line.
                let top = shown().fold(0.0, f64::max).max(2.0 * shown().fold(f64::MAX, f64::min));
                cell(sparkline(&rtt, top, column.columns)).style(self.theme.of(Color::Cyan))
            }
            _ => cell(""),
        });
        row(columns, cells.collect())
    }

    /// Four lines about the selected peer.
    fn details(&self) -> Vec<Line<'static>> {
        let Some(peer) = self.app.selected() else {
            let mut lines = vec![Line::default(), Line::from(" no peer is known")];
            lines.resize(4, Line::default());
            return lines;
        };
        let room = self.columns - 1;
        let name = shorten(label(peer), 24);
        let id = if self.columns >= WIDE { peer.id.as_str() } else { short(&peer.id) };
        let mut rule = format!("─ {name}");
        let addresses = peer.addresses.join(" ");
        for more in [id, &addresses].into_iter().filter(|more| !more.is_empty() && **more != *label(peer)) {
            // Two blanks and the end of the line.
            let room = self.columns.saturating_sub(width(&rule) + 3);
            rule += &format!(" {}", shorten_middle(more, room));
        }
        let rule = format!("{rule} {}", "─".repeat(self.columns.saturating_sub(width(&rule) + 1)));

        let mut link = vec![
            match peer.state_age_ms {
                0.0 => peer.state.clone(),
                age => format!("{} for {}", peer.state, time(age)),
            },
            format!("pool {}", pool(peer)),
            format!("replaced {}", count(peer.replaced)),
            format!("later conns {}", count(peer.reconnects)),
        ];
        link.extend(peer.important.then(|| "important".into()));
        let mut sums = vec![
            format!("sent {}, {} msgs", bytes(peer.bytes_sent), count(peer.messages_sent)),
            format!("received {}, {} msgs", bytes(peer.bytes_received), count(peer.messages_received)),
        ];
        sums.extend(peer.ping_interval_ms.map(|every| format!("pings every {}", time(every))));
        let mut last = Vec::new();
        if peer.failures > 0 {
            let next = peer.next_dial_ms.map(|next| match next {
                0.0 => ", dialling".into(),
                next => format!(", next in {}", time(next)),
            });
            last.push(format!("{} dials failed{}", count(peer.failures.into()), next.unwrap_or_default()));
        }
        last.extend(peer.last_error.as_ref().map(|error| format!("last error: {error}")));
        let last =
            if last.is_empty() { "no connection has ended, no dial failed".into() } else { last.join("; ") };
        let last = shorten(&last, room);
        let indented = |mut line: Line<'static>| {
            line.spans.insert(0, Span::raw(" "));
            line
        };
        vec![
            Line::from(Span::styled(fit(&rule, self.columns, false), BOLD)),
            indented(pieces(link.into_iter().map(plain), room)),
            indented(pieces(sums.into_iter().map(plain), room)),
            indented(Line::from(Span::styled(last, self.theme.faint()))),
        ]
    }

    fn conn(&self, columns: &[Column], conn: &Conn) -> Line<'static> {
        let cells = columns.iter().map(|column| match column.title {
            "CONN" => cell(shorten_middle(&format!("#{}", conn.id), column.columns)),
            "PL" => cell(conn.slot.to_string()),
            "ADDRESS" => cell(shorten_middle(&conn.addr, column.columns)),
            "WAY" => cell(if conn.dialled { "out" } else { "in" }),
            "STATE" => cell(&*conn.state).style(self.theme.of_state(&conn.state)),
            "AGE" => cell(age(conn.age_ms)),
            "SILENT" => cell(age(conn.silent_ms)),
            "RTT" => cell(conn.rtt_ms.map_or("-".into(), time)),
            "SCORE" => cell(score(conn.score)).style(self.theme.of_score(conn.score)),
            "LOST" => cell(conn.loss.map_or("-".into(), percent)),
            "SENT" => cell(bytes(conn.bytes_sent)),
            "RECEIVED" => cell(bytes(conn.bytes_received)),
            _ => cell(""),
        });
        row(columns, cells.collect())
    }

    fn lane(&self, columns: &[Column], lane: &Lane) -> Line<'static> {
        let cells = columns.iter().map(|column| match column.title {
            "LANE" => cell(&*lane.name),
            "MSGS" => cell(count(lane.queued_messages)),
            "QUEUED" => cell(bytes(lane.queued_bytes)),
            "CREDIT" => match lane.credit {
                0 => cell(bytes(0)).style(self.theme.of(Color::Yellow)),
                credit => cell(bytes(credit)),
            },
            "TAKEN" => cell(count(lane.taken)),
            "EXPIRED" => cell(count(lane.expired)),
            "DROPPED" => cell(count(lane.dropped)),
            "RESENT" => cell(bytes(lane.resent_bytes)),
            "INBOX" => cell(bytes(lane.inbox_bytes)),
            "IN MSGS" => cell(count(lane.inbox_messages)),
            _ => cell(""),
        });
        row(columns, cells.collect())
    }

    // --- events ---------------------------------------------------------------------------------

    fn events_title(&self) -> Line<'static> {
        let (text, style) = match &self.app.notice {
            Some((text, is_error)) => {
                let text = shorten(text, self.columns - 12);
                (format!(" {text} "), if *is_error { self.theme.of(Color::Red) } else { Style::new() })
            }
            None => (String::new(), Style::new()),
        };
        let rule = "─".repeat(self.columns.saturating_sub(9 + width(&text)));
        Line::from(vec![
            Span::styled("─ events ", BOLD),
            Span::styled(text, style.patch(BOLD)),
            Span::styled(rule, BOLD),
        ])
    }

    fn event(&self, event: &Event) -> Line<'static> {
        let columns = event_columns(self.columns);
        let peer = if event.peer.is_empty() { "-" } else { self.app.name_of(&event.peer) };
        let cells = [seconds(event.t_ms), peer.into(), event.text.clone()];
        row(&columns, cells.into_iter().map(cell).collect())
    }

    /// The last events, each with its whole text.
    fn all_events(&self, rows: usize) -> Vec<Line<'static>> {
        let [time, name, text] = event_columns(self.columns);
        let mut shown = Vec::new();
        for event in self.app.events.iter().rev().take(rows) {
            let mut parts = lines(&event.text, text.columns);
            if parts.is_empty() {
                parts.push(String::new());
            }
            let peer = if event.peer.is_empty() { "-" } else { self.app.name_of(&event.peer) };
            for (index, part) in parts.iter().enumerate().rev() {
                let (at, peer) = if index == 0 { (seconds(event.t_ms), peer) } else { Default::default() };
                let cells = [at, peer.into(), part.clone()];
                let columns = [right("", time.columns), left("", name.columns), left("", text.columns)];
                shown.push(row(&columns, cells.into_iter().map(cell).collect()));
            }
        }
        shown.truncate(rows);
        shown.reverse();
        shown
    }
}

/// Its connections, of those that this node wants to dial, if it does.
fn pool(peer: &Peer) -> String {
    match peer.connections_wanted {
        0 => peer.connections.len().to_string(),
        wanted => format!("{}/{wanted}", peer.connections.len()),
    }
}

/// Seconds since the view was opened, as the node prints them.
fn seconds(t_ms: u64) -> String {
    if t_ms < 1_000_000_000 { format!("{:.1}", t_ms as f64 / 1e3) } else { time(t_ms as f64) }
}

fn event_columns(columns: usize) -> [Column; 3] {
    let name = if columns >= WIDE { 20 } else { 12 };
    [right("", 8), left("", name), left("", columns - 8 - name - 2)]
}

/// 80 columns at least, one blank between two of them; wider screens have more of them and longer sparklines.
fn peer_columns(columns: usize) -> Vec<Column> {
    let mut all = vec![left("", 1), left("PEER", 16), left("STATE", 10)];
    all.extend([right("SCORE", 5), right(SCORES, 8), right("RTT", 7), right(RTTS, 8)]);
    all.extend([right("SENT/s", 8), right("QUEUED", 8)]);
    if columns >= WIDE {
        all.insert(2, left("ID", 8));
        all.insert(9, right("RECV/s", 8));
        all.extend([right("POOL", 5), right("REPL", 6)]);
    }
    let used: usize = all.iter().map(|column| column.columns).sum::<usize>() + all.len() - 1;
    // The rest goes to the sparklines, or to the names where there is only one column for each.
    let spare = columns.saturating_sub(used);
    let each = if columns >= WIDE { (spare / 3).min(SECONDS - 8) } else { 0 };
    for column in &mut all {
        match column.title {
            SCORES | RTTS => column.columns += each,
            "PEER" => column.columns += spare - 2 * each,
            _ => {}
        }
    }
    all
}

fn conn_columns(columns: usize) -> Vec<Column> {
    let mut all = vec![left("CONN", 7), right("PL", 2), left("ADDRESS", 21), left("WAY", 3)];
    all.extend([left("STATE", 8), right("AGE", 6), right("SILENT", 6), right("RTT", 7)]);
    all.extend([right("SCORE", 5), right("LOST", 6)]);
    if columns >= WIDE {
        all.extend([right("SENT", 8), right("RECEIVED", 8)]);
    }
    widen(all, "ADDRESS", columns)
}

fn lane_columns(columns: usize) -> Vec<Column> {
    let mut all = vec![left("LANE", 8), right("MSGS", 6), right("QUEUED", 8), right("CREDIT", 8)];
    all.extend([right("TAKEN", 6), right("EXPIRED", 7), right("DROPPED", 7), right("RESENT", 8)]);
    all.push(right("INBOX", 8));
    if columns >= WIDE {
        all.push(right("IN MSGS", 7));
    }
    widen(all, "LANE", columns.min(88))
}

fn widen(mut all: Vec<Column>, title: &str, columns: usize) -> Vec<Column> {
    let used: usize = all.iter().map(|column| column.columns).sum::<usize>() + all.len() - 1;
    if let Some(column) = all.iter_mut().find(|column| column.title == title) {
        // So much that an IPv6 address with its port is whole.
        column.columns += columns.saturating_sub(used).min(26);
    }
    all
}
