//! The live view of a running node in a terminal: peers with state, score and round trip as sparklines, the
//! connections and lanes of one of them, and events as they come. Keys ping, replace, disconnect and ban.
//!
//! ```text
//! cargo run --example node -- --listen 127.0.0.1:7000 --name a --view /tmp/a.sock
//! cargo run --manifest-path examples/dashboard/Cargo.toml -- /tmp/a.sock
//! ```
//!
//! It attaches to the Unix domain socket that `examples/node --view PATH` serves, and each node of
//! `examples/cluster --view DIR`. Anyone who may open that socket may command the node. Up to eight
//! dashboards may be attached to one node, and none of them slows it. When the node goes away the dashboard
//! says so and tries again. With `NO_COLOR` in the environment it uses no colours. With `--picture` it needs
//! no terminal: after some seconds it writes the screen as SVG.
//!
//! ```text
//!   socket --> reader ---+
//!   keys ----> input ----+--> main: App::apply, App::handle_key --> draw
//!   signals -> signals --+      |
//!   socket <----- commands -----+
//! ```
//!
//! A package of its own, so that the library's dependencies stay as they are.
//!
//! These commands for bash make `dashboard.png`, the picture in the README, at the top of the repository
//! after `cargo build` of both: four nodes with traffic, of which `delta` is frozen for the last six seconds.
//! Started by root, `chromium` needs `--no-sandbox`.
//!
//! ```text
//! node="cargo run -q --release --example node -- --connections 2 --vote-every 200ms --bulk-every 1s --bulk-size 256KiB --seconds 60"
//! $node --name alpha --listen 127.0.0.1:7001 > alpha.log & sleep 1
//! $node --name beta --listen 127.0.0.1:7002 --peer 127.0.0.1:7001 > beta.log & sleep 1
//! $node --name gamma --listen 127.0.0.1:7000 --peer 127.0.0.1:7001 --peer 127.0.0.1:7002 --view gamma.sock > gamma.log & sleep 1
//! $node --name delta --listen 127.0.0.1:7003 --peer 127.0.0.1:7001 --peer 127.0.0.1:7002 --peer 127.0.0.1:7000 > delta.log &
//! (sleep 35; kill -STOP $!; sleep 8; kill -CONT $!) &
//! cargo run --manifest-path examples/dashboard/Cargo.toml -- gamma.sock --picture 40 > dashboard.svg
//! chromium --headless --hide-scrollbars --force-device-scale-factor=1.5 --window-size=976,696 \
//!     --default-background-color=00000000 --screenshot=dashboard.png dashboard.svg
//! pngquant --speed 1 --force --output examples/dashboard/dashboard.png dashboard.png
//! ```

#![allow(clippy::disallowed_methods, reason = "an application reads the clock")]

#[cfg(not(unix))]
compile_error!("the dashboard needs Unix: it attaches to a Unix domain socket");

mod app;
mod draw;
mod picture;
#[cfg(test)]
mod served;
#[cfg(test)]
mod tests;
mod text;
#[allow(clippy::duplicate_mod, reason = "the tests have both sides, each with its own messages")]
#[cfg(test)]
#[path = "../../view/mod.rs"]
mod view;
#[allow(dead_code, reason = "shared with the serving side, which needs more of it")]
#[path = "../../view/wire.rs"]
mod wire;

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, after, bounded, select, tick};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use app::{App, Effect, Message};
use draw::Theme;
use wire::{Command, FromNode};

const USAGE: &str = "\
A live view of a running node, in this terminal.

Usage: dashboard PATH
       dashboard PATH --picture SECONDS [COLUMNSxROWS]

PATH is the socket that a node serves: `node --view PATH`, or DIR/node-N.sock of `cluster --view DIR`.
The terminal needs 80 columns and 24 rows. With NO_COLOR in the environment there are no colours.
The key ? shows the keys.
With --picture it watches for so many seconds, which bars of one a second show, then writes the screen to
standard output as SVG and ends. The peer with the lowest score is selected. It needs no terminal. The size is
120x40 unless given.";

/// Time between two attempts to find the node.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How often the screen is drawn while nothing comes.
const REDRAW: Duration = Duration::from_millis(500);
/// A node that takes no commands for so long is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);
/// No line of a node is longer: that is about 20,000 peers.
const MAX_LINE: u64 = 64 << 20;
/// News that wait to be shown. When there are more, the socket fills and the node lets this dashboard go.
const NEWS: usize = 64;

/// News for the main thread.
enum News {
    Attached(UnixStream),
    Gone(String),
    FromNode(FromNode),
    Key(KeyEvent),
    /// The size of the terminal, or its colours: it is drawn again.
    Redraw,
    /// A signal came, or there are no more keys.
    Quit,
}

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err((text, code)) => {
            // If nobody reads it there is nobody to tell.
            let _ = writeln!(io::stderr(), "dashboard: {text}");
            ExitCode::from(code)
        }
    }
}

/// What the command line asks for.
enum Task {
    Help,
    Watch(PathBuf),
    Picture { path: PathBuf, time: Duration, size: (u16, u16) },
}

fn parse(mut words: impl Iterator<Item = OsString>) -> Result<Task, String> {
    let path: PathBuf = match words.next() {
        Some(word) if word == "--help" || word == "-h" => return Ok(Task::Help),
        Some(word) if !word.to_string_lossy().starts_with('-') => word.into(),
        Some(word) => return Err(format!("{word:?} is no flag, expected --help or a path")),
        None => return Err("the path of a socket is missing; --help says which".into()),
    };
    match words.next() {
        None => return Ok(Task::Watch(path)),
        Some(word) if word == "--picture" => {}
        Some(word) => return Err(format!("expected one path, but {word:?} follows")),
    }
    let seconds = words.next().unwrap_or_default();
    let time = seconds.to_str().and_then(|seconds| seconds.parse().ok()).filter(|seconds| *seconds <= 3600);
    let time = time.ok_or_else(|| format!("--picture: {seconds:?} is not a number of seconds up to 3600"))?;
    let size = match words.next() {
        None => (120, 40),
        Some(size) => size_of(&size).ok_or_else(|| format!("{size:?} is no size from 80x24 to 500x500"))?,
    };
    match words.next() {
        None => Ok(Task::Picture { path, time: Duration::from_secs(time), size }),
        Some(word) => Err(format!("{word:?} follows, expected nothing")),
    }
}

fn size_of(word: &OsStr) -> Option<(u16, u16)> {
    let (columns, rows) = word.to_str()?.split_once('x')?;
    let size = (columns.parse().ok()?, rows.parse().ok()?);
    ((80..=500).contains(&size.0) && (24..=500).contains(&size.1)).then_some(size)
}

fn start() -> Result<(), (String, u8)> {
    let path = match parse(env::args_os().skip(1)).map_err(|why| (why, 2))? {
        Task::Help => {
            let _ = writeln!(io::stdout(), "{USAGE}");
            return Ok(());
        }
        Task::Watch(path) => path,
        Task::Picture { path, time, size } => {
            let svg = picture_after(&path, time, size).map_err(|error| (error.to_string(), 1))?;
            return io::stdout().write_all(svg.as_bytes()).map_err(|error| (error.to_string(), 1));
        }
    };
    for (is_terminal, name) in [(io::stdout().is_terminal(), "output"), (io::stdin().is_terminal(), "input")]
    {
        if !is_terminal {
            return Err((format!("standard {name} is not a terminal, expected one of 80x24 at least"), 2));
        }
    }
    let system = |error: io::Error| (error.to_string(), 1);
    // Before the screen is taken: this restores it when a thread panics, too.
    let mut terminal = ratatui::try_init().map_err(system)?;
    let result = watch(&path, &mut terminal);
    ratatui::restore();
    result.map_err(system)
}

fn watch(path: &Path, terminal: &mut DefaultTerminal) -> io::Result<()> {
    let (say, news) = bounded(NEWS);
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
        thread::Builder::new().name(name.into()).spawn(run).map(drop)
    };
    let (of_signals, of_keys, of_node) = (say.clone(), say.clone(), say);
    spawn("signals", Box::new(move || signals.forever().for_each(|_| drop(of_signals.send(News::Quit)))))?;
    spawn("input", Box::new(move || read_keys(&of_keys)))?;
    let socket = path.to_path_buf();
    spawn("reader", Box::new(move || read_node(&socket, &of_node)))?;
    run(App::new(path.display().to_string()), &news, terminal, theme())
}

/// Watches for so long, and returns the picture of the screen. Fails if no node is attached by then.
fn picture_after(path: &Path, time: Duration, size: (u16, u16)) -> io::Result<String> {
    let (say, news) = bounded(NEWS);
    let socket = path.to_path_buf();
    thread::Builder::new().name("reader".into()).spawn(move || read_node(&socket, &say))?;
    let mut app = App::new(path.display().to_string());
    let (start, end, redraw) = (Instant::now(), after(time), tick(REDRAW));
    let mut node = None;
    loop {
        select! {
            recv(news) -> news => {
                let Ok(news) = news else { break };
                handle(&mut app, news, &mut node, start.elapsed());
            }
            recv(redraw) -> _ => app.tick(start.elapsed()),
            recv(end) -> _ => break,
        }
    }
    match node {
        Some(_) => {
            app.select_lowest();
            Ok(picture::picture(&app, size, theme()))
        }
        None => Err(io::Error::other(format!("no node was attached at {path:?} after {time:?}"))),
    }
}

fn theme() -> Theme {
    Theme { colour: env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) }
}

/// The main loop.
fn run(mut app: App, news: &Receiver<News>, terminal: &mut DefaultTerminal, theme: Theme) -> io::Result<()> {
    let start = Instant::now();
    let redraw = tick(REDRAW);
    let mut node = None;
    loop {
        terminal.draw(|frame| draw::draw(frame, &app, theme))?;
        select! {
            recv(news) -> first => {
                // Drawn once for what has come together.
                let more = news.try_iter().take(NEWS);
                for news in first.into_iter().chain(more) {
                    if !handle(&mut app, news, &mut node, start.elapsed()) {
                        return Ok(());
                    }
                }
            }
            recv(redraw) -> _ => app.tick(start.elapsed()),
        }
    }
}

/// False when the dashboard is to end.
fn handle(app: &mut App, news: News, node: &mut Option<UnixStream>, now: Duration) -> bool {
    match news {
        News::Attached(stream) => {
            *node = Some(stream);
            app.apply(Message::Attached, now);
        }
        News::Gone(why) => {
            *node = None;
            app.apply(Message::Gone(why), now);
        }
        News::FromNode(message) => app.apply(Message::FromNode(message), now),
        News::Key(key) => {
            if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
                return false;
            }
            match app.handle_key(key.code) {
                Some(Effect::Quit) => return false,
                Some(Effect::Send(command)) => {
                    if let Err(error) = node.as_ref().map_or(Ok(()), |node| send(node, &command)) {
                        app.apply(Message::Gone(format!("the node takes no command: {error}")), now);
                        // Ends the reader, which tries again.
                        *node = None;
                    }
                }
                None => {}
            }
        }
        News::Redraw => {}
        News::Quit => return false,
    }
    true
}

fn send(mut node: &UnixStream, command: &Command) -> io::Result<()> {
    let mut line = serde_json::to_string(command)?;
    line.push('\n');
    let sent = node.write_all(line.as_bytes());
    if sent.is_err() {
        // It may be closed already.
        let _ = node.shutdown(std::net::Shutdown::Both);
    }
    sent
}

fn read_keys(say: &Sender<News>) {
    loop {
        let news = match event::read() {
            Ok(event::Event::Key(key)) if key.kind != KeyEventKind::Release => News::Key(key),
            Ok(_) => News::Redraw,
            Err(_) => News::Quit,
        };
        let is_last = matches!(news, News::Quit);
        if say.send(news).is_err() || is_last {
            return;
        }
    }
}

/// Attaches to the node, again and again, until the main thread has ended.
fn read_node(path: &Path, say: &Sender<News>) {
    loop {
        let why = match attach(path) {
            Err(why) => why,
            Ok((stream, commands)) => {
                if say.send(News::Attached(commands)).is_err() {
                    return;
                }
                match read_lines(stream, say) {
                    Ok(why) => why,
                    Err(Ended) => return,
                }
            }
        };
        if say.send(News::Gone(why)).is_err() {
            return;
        }
        let _ = after(AGAIN_AFTER).recv();
    }
}

/// The main thread has ended.
struct Ended;

fn attach(path: &Path) -> Result<(UnixStream, UnixStream), String> {
    let stream = UnixStream::connect(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            format!("there is no socket {path:?}, expected that of a node which runs with --view")
        }
        io::ErrorKind::ConnectionRefused => format!("the node that served {path:?} has died"),
        _ => format!("cannot attach to {path:?}: {error}"),
    })?;
    let commands = stream.try_clone().and_then(|commands| {
        commands.set_write_timeout(Some(WRITE_TIMEOUT))?;
        Ok(commands)
    });
    commands.map(|commands| (stream, commands)).map_err(|error| format!("cannot use {path:?}: {error}"))
}

/// Returns why there are no more lines.
fn read_lines(stream: UnixStream, say: &Sender<News>) -> Result<String, Ended> {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        match stream.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
            Ok(0) => return Ok("the node has gone".into()),
            Ok(_) => {}
            Err(error) => return Ok(format!("the node has gone: {error}")),
        }
        match serde_json::from_slice(&line) {
            Ok(FromNode::Refused(why)) => return Ok(why),
            Ok(message) => say.send(News::FromNode(message)).map_err(|_| Ended)?,
            Err(error) => {
                return Ok(format!("the node's line is not understood, expected one of its view: {error}"));
            }
        }
    }
}
