//! Screens of 80x24 and 120x40 with extreme values.

use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Cell;
use ratatui::crossterm::event::KeyCode;
use ratatui::style::Color;

use crate::app::{App, Effect, Message, Mode};
use crate::draw::{Theme, draw, lines_of};
use crate::picture::picture;
use crate::text::width;
use crate::wire::{Action, Answer, Command, Conn, Event, FromNode, Lane, Peer, Snapshot};

const SIZES: [(u16, u16); 3] = [(80, 24), (120, 40), (200, 60)];
const SECOND: Duration = Duration::from_secs(1);

fn screen_of(app: &App, (columns, rows): (u16, u16), colour: bool) -> (Vec<String>, Vec<Color>) {
    for line in lines_of(app, Theme { colour }, columns.into(), rows.into()) {
        assert!(line.width() <= columns.into(), "{line} is cut at {columns}");
    }
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    terminal.draw(|frame| draw(frame, app, Theme { colour })).unwrap();
    let buffer = terminal.backend().buffer();
    // A wide character takes two cells, of which the second is blank.
    let text_of = |cells: &[Cell]| {
        let (mut text, mut at) = (String::new(), 0);
        while let Some(cell) = cells.get(at) {
            text += cell.symbol();
            at += width(cell.symbol()).max(1);
        }
        text
    };
    let lines = buffer.content.chunks(columns.into()).map(text_of).collect();
    (lines, buffer.content.iter().flat_map(|cell| [cell.fg, cell.bg]).collect())
}

fn screen(app: &App, size: (u16, u16)) -> Vec<String> {
    screen_of(app, size, true).0
}

/// The line with this text. Fails if there is none.
fn line<'a>(screen: &'a [String], text: &str) -> &'a str {
    let found = screen.iter().find(|line| line.contains(text));
    found.unwrap_or_else(|| panic!("{text:?} is not on the screen:\n{}", screen.join("\n")))
}

fn id(number: usize) -> String {
    format!("{number:a>8}{}", "z".repeat(48))
}

fn peer(number: usize) -> Peer {
    Peer {
        id: id(number),
        name: format!("validator {number}"),
        addresses: vec![format!("10.0.0.{number}:4000")],
        state: "up".into(),
        state_age_ms: 754_000.0,
        score: 0.98,
        rtt_ms: Some(12.34),
        ping_interval_ms: Some(10_000.0),
        connections_wanted: 2,
        connections: vec![conn(7), conn(8)],
        lanes: vec![lane("urgent"), lane("normal"), lane("bulk")],
        reconnects: 3,
        replaced: 2,
        bytes_sent: 5 << 20,
        bytes_received: 6 << 30,
        messages_sent: 12_345,
        messages_received: 1_234_567,
        last_error: Some("closed without goodbye (by the network)".into()),
        ..Peer::default()
    }
}

fn conn(id: u64) -> Conn {
    Conn {
        id,
        slot: 1,
        addr: "10.0.0.1:4000".into(),
        dialled: true,
        state: "up".into(),
        age_ms: 61_000.0,
        silent_ms: 120.0,
        rtt_ms: Some(12.34),
        score: 0.87,
        loss: Some(0.0123),
        bytes_sent: 1 << 20,
        bytes_received: 1 << 21,
    }
}

fn lane(name: &str) -> Lane {
    Lane {
        name: name.into(),
        queued_messages: 12,
        queued_bytes: 3 << 20,
        credit: 7 << 20,
        taken: 4321,
        resent_bytes: 2048,
        inbox_bytes: 99,
        ..Lane::default()
    }
}

/// Everything as large as it can be.
fn extreme(number: usize) -> Peer {
    const MOST: u64 = u64::MAX;
    let conn = Conn {
        id: MOST,
        slot: 2,
        addr: "[2001:db8:1111:2222:3333:4444:5555:6666]:65535".into(),
        state: "draining".into(),
        age_ms: 1e18,
        silent_ms: 1e18,
        rtt_ms: Some(99_999.0),
        score: 1.0,
        loss: Some(0.9999),
        bytes_sent: MOST,
        bytes_received: MOST,
        ..Conn::default()
    };
    let lane = Lane {
        name: "lane 255".into(),
        queued_messages: MOST,
        queued_bytes: MOST,
        credit: MOST,
        taken: MOST,
        expired: MOST,
        dropped: MOST,
        resent_bytes: MOST,
        inbox_messages: MOST,
        inbox_bytes: MOST,
    };
    Peer {
        id: id(number),
        name: format!("{number} 検証者\u{1b}[31m{}", "long ".repeat(100)),
        addresses: vec!["validator.of.a.very.long.name.example.org:65535".into(); 5],
        important: true,
        state: "connecting".into(),
        state_age_ms: 1e18,
        score: 1.0,
        rtt_ms: Some(99_999.0),
        ping_interval_ms: Some(999_999.0),
        connections_wanted: 3,
        connections: vec![conn; 7],
        lanes: vec![lane; 20],
        reconnects: MOST,
        replaced: MOST,
        bytes_sent: MOST,
        bytes_received: MOST,
        messages_sent: MOST,
        messages_received: MOST,
        failures: u32::MAX,
        next_dial_ms: Some(1e18),
        last_error: Some("reason ".repeat(60)),
        ..Peer::default()
    }
}

fn snapshot(t_ms: u64, peers: Vec<Peer>) -> Message {
    let snapshot = Snapshot {
        t_ms,
        id: id(0),
        name: "alpha".into(),
        listening: vec!["127.0.0.1:4000".into()],
        connections: 5,
        queued_bytes: 9 << 20,
        inbox_bytes: 1000,
        replacements: 4,
        peers,
        ..Snapshot::default()
    };
    Message::FromNode(FromNode::Snapshot(Box::new(snapshot)))
}

fn attached(peers: Vec<Peer>) -> App {
    let mut app = App::new("/run/a.sock".into());
    app.apply(Message::Attached, SECOND);
    app.apply(snapshot(60_000, peers), SECOND);
    app
}

#[test]
fn everything_that_matters_is_on_the_least_screen() {
    let mut down = peer(2);
    (down.state, down.name, down.rtt_ms) = ("down".into(), "bob".into(), None);
    let mut app = attached(vec![peer(1), down]);
    let text = "connection #8 ended: closed without goodbye (by the network)";
    let event = Event { t_ms: 59_900, peer: id(2), event: "disconnected".into(), text: text.into() };
    app.apply(Message::FromNode(FromNode::Events(vec![event])), SECOND);
    let screen = screen(&app, (80, 24));
    for text in ["alpha", "attached", "peers 1/2 up", "conns 5", "queued 9.00 MiB", "inbox 1000 B"] {
        line(&screen, text);
    }
    for text in ["> validator 1", "up ", "0.98", "12.3 ms"] {
        assert!(line(&screen, "> validator 1").contains(text), "{text}");
    }
    assert!(line(&screen, "  bob").contains("down"));
    for text in ["up for 12 min", "pool 2/2", "replaced 2", "later conns 3"] {
        assert!(line(&screen, "up for").contains(text), "{text}");
    }
    assert!(line(&screen, "sent 5.00 MiB, 12345 msgs").contains("received 6.00 GiB, 1.23 M msgs"));
    line(&screen, "pings every 10.0 s");
    line(&screen, "last error: closed without goodbye (by the network)");
    for text in ["10.0.0.1:4000", "out", "up", "61.0 s", "120 ms", "12.3 ms", "0.87", "1.23 %"] {
        assert!(line(&screen, "#7").contains(text), "{text}");
    }
    for name in ["urgent", "normal", "bulk"] {
        for text in ["12", "3.00 MiB", "7.00 MiB", "4321", "2.00 KiB", "99 B"] {
            assert!(line(&screen, name).contains(text), "{text}");
        }
    }
    // The name of the peer, and as much of the text as there is room for.
    line(&screen, "    59.9 bob          connection #8 ended: closed without goodbye (by th");
    line(&screen, "p ping  r replace  d disconnect  b ban  e events  ? help  q quit");
}

#[test]
fn titles_stand_above_their_numbers() {
    for size in SIZES {
        let screen = screen(&attached(vec![peer(1)]), size);
        for (title, first, row, number) in [
            ("RTT", "SCORE LAST", "> validator 1", "12.3 ms"),
            ("QUEUED", "SENT/s", "> validator 1", "9.00 MiB"),
            ("SCORE", "CONN", "#7", "0.87"),
            ("LOST", "CONN", "#7", "1.23 %"),
            ("CREDIT", "LANE", "bulk", "7.00 MiB"),
            ("INBOX", "LANE", "bulk", "99 B"),
        ] {
            let first = if title == "RTT" { "STATE" } else { first };
            let titles = line(&screen, first);
            let column = |line: &str, text: &str| line.find(text).map(|at| width(&line[..at + text.len()]));
            let (above, below) = (column(titles, title), column(line(&screen, row), number));
            assert!(above.is_some() && above == below, "{title} at {size:?}:\n{}", screen.join("\n"));
        }
    }
}

#[test]
fn extreme_values_fit_and_only_texts_are_shortened() {
    for size in SIZES {
        let mut app = attached((0..50).map(extreme).collect());
        for second in 1..200 {
            app.apply(snapshot(60_000 + 1000 * second, (0..50).map(extreme).collect()), SECOND);
        }
        let text = "word ".repeat(100);
        let event = Event { t_ms: 999_999_900, peer: id(3), event: "x".into(), text };
        app.apply(Message::FromNode(FromNode::Events(vec![event; 900])), SECOND);
        let screen = screen(&app, size);
        let whole = screen.join("\n");
        for line in &screen {
            assert!(
                !line.contains('\u{1b}') && !line.contains("long long long long long long long"),
                "{line}"
            );
        }
        assert!(line(&screen, "peers 0/50 up").contains("successors 4/min"));
        line(&screen, "PEER 1 of 50");
        let row = line(&screen, "> 0 検証者");
        for text in ["connecting", "1.00", "99.9 s", "16.0 EiB"] {
            assert!(row.contains(text), "{text} is not in {row:?}\n{whole}");
        }
        let link = line(&screen, "connecting for >999 d");
        for text in ["pool 7/3", "replaced 18.4 E", "later conns 18.4 E", "important"] {
            assert!(link.contains(text), "{text} at {size:?}: {link:?}");
        }
        let sums = line(&screen, "sent 16.0 EiB, 18.4 E msgs");
        assert!(sums.contains("received 16.0 EiB, 18.4 E msgs  pings every 16 min"), "{sums}");
        line(&screen, "4.29 G dials failed, next in >999 d; last error: reason reason");
        let conn = line(&screen, "#18…615");
        for text in ["  2 ", "…", "]:65535", "in", "draining", ">999 d", "99.9 s", "1.00", "99.9 %"] {
            assert!(
                text == "…" && size.0 >= 200 || conn.contains(text),
                "{text} is not in {conn:?}\n{whole}"
            );
        }
        let lane = line(&screen, "lane 255");
        assert_eq!(lane.matches("16.0 EiB").count(), 4, "{lane}");
        assert_eq!(lane.matches("18.4 E").count(), if size.0 >= 120 { 5 } else { 4 }, "{lane}");
        // Those that have no row are counted: 7 connections and 20 lanes.
        let (conns, lanes) = if size.1 >= 36 { (6, 8) } else { (3, 3) };
        line(&screen, &format!("… and {} more", 7 - conns + 1));
        line(&screen, &format!("… and {} more", 20 - lanes + 1));
        assert_eq!(screen.last().map(|line| line.trim_end().ends_with("q quit")), Some(true), "{whole}");
        if size.0 >= 120 {
            line(&screen, &id(0));
        }
        if size.0 >= 200 {
            line(&screen, "[2001:db8:1111:2222:3333:4444:5555:6666]:65535");
        }
    }
}

#[test]
fn the_keys_the_help_and_the_questions_are_whole() {
    for size in SIZES {
        let mut app = attached(vec![extreme(1)]);
        assert_eq!(app.handle_key(KeyCode::Char('?')), None);
        let help = screen(&app, size);
        for text in ["asks first)", "Ctrl-C", "a bar for each second: its worst value", "has not taken"] {
            line(&help, text);
        }
        // The words that a screen shows and that do not explain themselves, down to the last line.
        for text in
            ["  QUEUED, MSGS ", "  successors ", "  later conns ", "  REPL, replaced ", "  INBOX, IN MSGS "]
        {
            line(&help, text);
        }
        assert!(!help.iter().any(|line| line.contains('…')), "{}", help.join("\n"));
        app.handle_key(KeyCode::Char('x'));
        assert_eq!(app.mode, Mode::Peers);
        for (key, text) in [('d', "dropped. y / n"), ('b', "at once. y / n")] {
            app.handle_key(KeyCode::Char(key));
            assert!(screen(&app, size).last().unwrap().contains(text));
            app.handle_key(KeyCode::Esc);
        }
        app.handle_key(KeyCode::Char('e'));
        let event = Event { t_ms: 1500, text: "reason ".repeat(40), ..Event::default() };
        app.apply(Message::FromNode(FromNode::Events(vec![event])), SECOND);
        let events = screen(&app, size);
        let words: usize = events.iter().map(|line| line.matches("reason").count()).sum();
        assert_eq!(words, 40, "{}", events.join("\n"));
        line(&events, "     1.5 - ");
    }
}

#[test]
fn a_screen_that_is_too_small_says_what_is_expected() {
    let text = screen(&attached(vec![peer(1)]), (40, 10)).join(" ");
    assert!(text.contains("40x10") && text.contains("80x24"), "{text}");
    screen(&attached(vec![peer(1)]), (1, 1));
}

#[test]
fn without_colour_every_cell_has_the_terminal_s_own() {
    let mut app = attached(vec![peer(1), extreme(2)]);
    app.apply(Message::Gone("the node has gone".into()), SECOND);
    let (with, without) = (screen_of(&app, (80, 24), true), screen_of(&app, (80, 24), false));
    assert_eq!(with.0, without.0);
    assert!(with.1.iter().any(|colour| *colour != Color::Reset));
    assert!(without.1.iter().all(|colour| *colour == Color::Reset));
}

#[test]
fn keys_ask_for_what_they_say_and_harm_is_confirmed() {
    let mut app = attached(vec![peer(1), peer(2), peer(3)]);
    let wants = |command, number| Some(Effect::Send(Command { command, peer: id(number) }));
    app.handle_key(KeyCode::Char('j'));
    assert_eq!(app.handle_key(KeyCode::Char('p')), wants(Action::Ping, 2));
    app.handle_key(KeyCode::Down);
    app.handle_key(KeyCode::Down);
    assert_eq!(app.handle_key(KeyCode::Char('r')), wants(Action::Replace, 3));
    app.handle_key(KeyCode::Char('k'));
    assert_eq!(app.handle_key(KeyCode::Char('u')), wants(Action::Unban, 2));
    for (key, action) in [('d', Action::Disconnect), ('b', Action::Ban)] {
        assert_eq!(app.handle_key(KeyCode::Char(key)), None);
        assert_eq!(app.handle_key(KeyCode::Char('p')), None, "the question stays");
        assert_eq!(app.handle_key(KeyCode::Char('n')), None);
        assert_eq!(app.handle_key(KeyCode::Char('y')), None, "nothing is asked any longer");
        app.handle_key(KeyCode::Char(key));
        // The peer is the one that was asked about, although another peer stands there now.
        app.apply(snapshot(60_250, vec![peer(1), peer(3)]), SECOND);
        assert_eq!(app.handle_key(KeyCode::Char('y')), wants(action, 2));
        app.apply(snapshot(60_500, vec![peer(1), peer(2), peer(3)]), SECOND);
        app.handle_key(KeyCode::Home);
        app.handle_key(KeyCode::Char('j'));
    }
    assert_eq!(app.handle_key(KeyCode::Char('q')), Some(Effect::Quit));
}

#[test]
fn the_selection_follows_the_peer() {
    let mut app = attached(vec![peer(2), peer(5)]);
    app.handle_key(KeyCode::Char('G'));
    app.apply(snapshot(60_250, vec![peer(1), peer(2), peer(3), peer(5)]), SECOND);
    assert_eq!(app.selected().map(|peer| peer.id.clone()), Some(id(5)));
    app.apply(snapshot(60_500, vec![peer(1)]), SECOND);
    assert_eq!(app.selected().map(|peer| peer.id.clone()), Some(id(1)));
    // An event is still about a peer by its name.
    let event = Event { peer: id(5), text: "down".into(), ..Event::default() };
    app.apply(Message::FromNode(FromNode::Events(vec![event])), SECOND);
    assert!(line(&screen(&app, (80, 24)), "  down").contains("validator 5"));
    app.apply(snapshot(60_750, vec![]), SECOND);
    assert_eq!(app.handle_key(KeyCode::Char('p')), None);
    line(&screen(&app, (80, 24)), "no peer is selected");
}

#[test]
fn answers_and_the_state_of_the_node_are_told() {
    let mut app = App::new("/run/a.sock".into());
    app.apply(Message::Gone("there is no socket".into()), SECOND);
    let before = screen(&app, (80, 24));
    line(&before, "NO NODE, trying again");
    line(&before, "there is no socket");
    app.apply(Message::Attached, SECOND);
    app.apply(snapshot(1000, vec![peer(1)]), SECOND);
    let answer = |ok: Option<&str>, error: Option<&str>| {
        let (ok, error) = (ok.map(Into::into), error.map(Into::into));
        Message::FromNode(FromNode::Answer(Answer { command: Some(Action::Ping), peer: id(1), ok, error }))
    };
    app.apply(answer(Some("2 connections asked"), None), SECOND);
    line(&screen(&app, (80, 24)), "─ events  ping validator 1: 2 connections asked ─");
    app.apply(answer(None, Some("it has no connection")), SECOND);
    line(&screen(&app, (80, 24)), "ping validator 1: it has no connection");
    app.tick(SECOND * 4);
    line(&screen(&app, (80, 24)), "SILENT for 3.00 s");
    app.apply(Message::Gone("the node has gone".into()), SECOND * 5);
    let gone = screen(&app, (80, 24));
    line(&gone, "NO NODE, trying again");
    line(&gone, "the node has gone");
    // The last snapshot stays on the screen, but nobody can be told anything.
    line(&gone, "> validator 1");
    assert_eq!(app.handle_key(KeyCode::Char('p')), None);
    line(&screen(&app, (80, 24)), "there is no node to tell");
    app.apply(Message::FromNode(FromNode::Refused("8 dashboards are attached already".into())), SECOND);
    line(&screen(&app, (80, 24)), "8 dashboards are attached already");
}

#[test]
fn rates_and_sparklines_are_of_whole_seconds_and_of_the_worst() {
    let mut app = attached(vec![peer(1)]);
    let at = |ms: u64, bytes: u64, rtt: f64, score: f64| {
        let mut peer = peer(1);
        (peer.bytes_sent, peer.bytes_received) = ((5 << 20) + bytes, (6 << 30) + 2 * bytes);
        (peer.rtt_ms, peer.score) = (Some(rtt), score);
        snapshot(60_000 + ms, vec![peer])
    };
    for (ms, bytes, rtt, score) in
        [(250, 500, 100.0, 0.1), (500, 700, 1.0, 1.0), (1000, 3072, 50.0, 1.0), (1250, 9000, 50.0, 1.0)]
    {
        app.apply(at(ms, bytes, rtt, score), SECOND);
    }
    let history = &app.history[&id(1)];
    assert_eq!(history.rtt_ms, [Some(100.0), Some(50.0)]);
    assert_eq!(history.score, [Some(0.1), Some(1.0)]);
    assert_eq!((history.sent, history.received), (3072, 6144));
    let screen_of_it = screen(&app, (80, 24));
    let row = line(&screen_of_it, "> validator 1");
    assert!(row.contains("▂▇") && row.contains("▇▄") && row.contains("3.00 KiB"), "{row}");
    // Another life of the node begins anew.
    app.apply(snapshot(10, vec![peer(1)]), SECOND);
    assert_eq!(app.history[&id(1)].score.len(), 1);
}

#[test]
fn a_picture_has_what_the_screen_has_and_selects_the_lowest_score() {
    let mut poor = peer(2);
    (poor.score, poor.name) = (0.2, "bob & co".into());
    let mut app = attached(vec![peer(1), poor, peer(3)]);
    app.select_lowest();
    for size in SIZES {
        let svg = picture(&app, size, Theme { colour: true });
        for text in ["peers 3/3 up", "&gt;", "bob &amp; co", "validator 1", "12.3 ms", "urgent", "q quit"] {
            assert!(svg.contains(text), "{text} is not in the picture of {size:?}:\n{svg}");
        }
        assert!(!svg.contains("bob & co") && !svg.contains('▇'), "{svg}");
    }
    line(&screen(&app, (80, 24)), "> bob & co");
}

#[test]
fn a_node_of_another_version_is_understood() {
    let line = r#"{"snapshot":{"t_ms":5,"id":"x","new":[1],"peers":[{"id":"y","also_new":{}}]}}"#;
    let FromNode::Snapshot(snapshot) = serde_json::from_str(line).unwrap() else { panic!("no snapshot") };
    assert_eq!((snapshot.t_ms, snapshot.peers[0].id.as_str()), (5, "y"));
    let command = Command { command: Action::Ping, peer: "y".into() };
    assert_eq!(serde_json::to_string(&command).unwrap(), r#"{"command":"ping","peer":"y"}"#);
}
