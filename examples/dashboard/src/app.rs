//! The state of the dashboard, and how keys and messages change it. Pure: time is an argument, and what is to
//! be done is returned.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use ratatui::crossterm::event::KeyCode;

use crate::wire::{Action, Answer, Command, Event, FromNode, Peer, Snapshot};

/// Events that are kept.
const EVENTS: usize = 500;
/// Seconds of history: the widest sparkline.
pub(crate) const SECONDS: usize = 120;
/// A node from which nothing has come for so long is said to be silent.
const SILENT_AFTER: Duration = Duration::from_secs(2);

/// News for the dashboard.
#[derive(Debug)]
pub(crate) enum Message {
    /// The socket is open.
    Attached,
    /// There is no node, or it has gone; it is tried again.
    Gone(String),
    FromNode(FromNode),
}

/// An action for the main thread.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Send(Command),
    Quit,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Peers,
    /// All that is known of the last events.
    Events,
    Help,
    /// Shall this be done to this peer?
    Confirm(Command),
}

/// The last seconds of one peer, the newest last.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) rtt_ms: VecDeque<Option<f64>>,
    pub(crate) score: VecDeque<Option<f64>>,
    /// Bytes in a second.
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// The worst of this second so far.
    worst_rtt_ms: Option<f64>,
    least_score: f64,
    /// When this second began, and the bytes until then.
    since_ms: u64,
    bytes: (u64, u64),
}

#[derive(Debug)]
pub(crate) struct App {
    /// Where the node is.
    pub(crate) path: String,
    pub(crate) attached: bool,
    pub(crate) snapshot: Option<Snapshot>,
    pub(crate) events: VecDeque<Event>,
    pub(crate) history: HashMap<String, History>,
    /// The names of the peers that events are about, those that have gone included.
    names: HashMap<String, String>,
    pub(crate) mode: Mode,
    /// The result of the last command, or why there is no node; whether it is an error.
    pub(crate) notice: Option<(String, bool)>,
    /// The key of the peer that is selected; see [`key_of`].
    selected: Option<String>,
    /// Where it was, for when it has gone.
    position: usize,
    heard: Duration,
    now: Duration,
}

/// The name by which commands know a peer: its id, or its address until it has answered.
pub(crate) fn key_of(peer: &Peer) -> &str {
    match peer.id.is_empty() {
        true => peer.addresses.first().map_or("", String::as_str),
        false => &peer.id,
    }
}

/// The first eight characters of an id, as the node prints it.
pub(crate) fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

/// The name of a peer, for people.
pub(crate) fn label(peer: &Peer) -> &str {
    match peer.name.is_empty() {
        true if peer.id.is_empty() => key_of(peer),
        true => short(&peer.id),
        false => &peer.name,
    }
}

impl App {
    pub(crate) fn new(path: String) -> Self {
        App {
            path,
            attached: false,
            snapshot: None,
            events: VecDeque::new(),
            history: HashMap::new(),
            names: HashMap::new(),
            mode: Mode::Peers,
            notice: None,
            selected: None,
            position: 0,
            heard: Duration::ZERO,
            now: Duration::ZERO,
        }
    }

    pub(crate) fn peers(&self) -> &[Peer] {
        self.snapshot.as_ref().map_or(&[], |snapshot| &snapshot.peers)
    }

    /// The index of the selected peer.
    pub(crate) fn position(&self) -> usize {
        self.position
    }

    pub(crate) fn selected(&self) -> Option<&Peer> {
        self.peers().get(self.position)
    }

    /// The name of the peer with this id.
    pub(crate) fn name_of<'a>(&'a self, id: &'a str) -> &'a str {
        let known = self.peers().iter().find(|peer| key_of(peer) == id).map(label);
        known.or_else(|| self.names.get(id).map(String::as_str)).unwrap_or_else(|| short(id))
    }

    /// How long nothing has come from a node that is there, if that is longer than usual.
    pub(crate) fn silent(&self) -> Option<Duration> {
        Some(self.now.saturating_sub(self.heard)).filter(|time| self.attached && *time >= SILENT_AFTER)
    }

    /// Time goes on.
    pub(crate) fn tick(&mut self, now: Duration) {
        self.now = now;
    }

    pub(crate) fn apply(&mut self, message: Message, now: Duration) {
        self.now = now;
        match message {
            Message::Attached => {
                self.attached = true;
                self.heard = now;
                self.notice = None;
                // The node tells the last ones again.
                self.events.clear();
            }
            Message::Gone(why) => {
                self.attached = false;
                self.notice = Some((why, true));
            }
            Message::FromNode(message) => {
                self.heard = now;
                match message {
                    FromNode::Snapshot(snapshot) => self.take_snapshot(*snapshot),
                    FromNode::Events(events) => {
                        self.events.extend(events);
                        let excess = self.events.len().saturating_sub(EVENTS);
                        self.events.drain(..excess);
                    }
                    FromNode::Answer(answer) => self.notice = Some(self.words_of(&answer)),
                    FromNode::Refused(why) => self.apply(Message::Gone(why), now),
                }
            }
        }
    }

    fn words_of(&self, answer: &Answer) -> (String, bool) {
        let to = match answer.command {
            Some(action) => {
                format!("{} {}: ", format!("{action:?}").to_lowercase(), self.name_of(&answer.peer))
            }
            None => String::new(),
        };
        match &answer.error {
            Some(error) => (format!("{to}{error}"), true),
            None => (format!("{to}{}", answer.ok.as_deref().unwrap_or("done")), false),
        }
    }

    fn take_snapshot(&mut self, snapshot: Snapshot) {
        let before = self.snapshot.as_ref();
        if before.is_some_and(|before| before.id != snapshot.id || before.t_ms > snapshot.t_ms) {
            // Another life of the node, or another node.
            self.history.clear();
        }
        let keys: HashSet<&str> = snapshot.peers.iter().map(key_of).collect();
        self.history.retain(|key, _| keys.contains(key.as_str()));
        for peer in &snapshot.peers {
            self.history.entry(key_of(peer).into()).or_default().add(peer, snapshot.t_ms);
        }
        let named = snapshot.peers.iter().filter(|peer| !peer.name.is_empty());
        self.names.extend(named.map(|peer| (peer.id.clone(), peer.name.clone())));
        if self.names.len() > snapshot.peers.len() + EVENTS {
            // There is no event about most of them any longer.
            let told: HashSet<&str> = self.events.iter().map(|event| event.peer.as_str()).collect();
            self.names.retain(|id, _| told.contains(id.as_str()));
        }
        let selected = |peer: &Peer| self.selected.as_deref() == Some(key_of(peer));
        let position = snapshot.peers.iter().position(selected).unwrap_or(self.position);
        self.snapshot = Some(snapshot);
        self.select(position);
    }

    fn select(&mut self, position: usize) {
        self.position = position.min(self.peers().len().saturating_sub(1));
        self.selected = self.selected().map(|peer| key_of(peer).into());
    }

    /// Selects the peer with the lowest score.
    pub(crate) fn select_lowest(&mut self) {
        let lowest = self.peers().iter().enumerate().min_by(|(_, a), (_, b)| a.score.total_cmp(&b.score));
        self.select(lowest.map_or(0, |(position, _)| position));
    }

    pub(crate) fn handle_key(&mut self, key: KeyCode) -> Option<Effect> {
        match std::mem::replace(&mut self.mode, Mode::Peers) {
            Mode::Confirm(command) => match key {
                KeyCode::Char('y' | 'Y') => return Some(Effect::Send(command)),
                KeyCode::Char('n' | 'N' | 'q') | KeyCode::Esc => {
                    self.notice = Some(("nothing was done".into(), false));
                }
                // A user who hits another key has not read the question.
                _ => self.mode = Mode::Confirm(command),
            },
            // Any key closes the help.
            Mode::Help => {}
            Mode::Events if matches!(key, KeyCode::Char('e' | 'q') | KeyCode::Esc) => {}
            // No peer is to be seen here, so nothing is done to one.
            Mode::Events => self.mode = if key == KeyCode::Char('?') { Mode::Help } else { Mode::Events },
            Mode::Peers => return self.handle_plain_key(key),
        }
        None
    }

    fn handle_plain_key(&mut self, key: KeyCode) -> Option<Effect> {
        match key {
            KeyCode::Char('q') => return Some(Effect::Quit),
            KeyCode::Char('?') => self.mode = Mode::Help,
            KeyCode::Char('e') => self.mode = Mode::Events,
            KeyCode::Up | KeyCode::Char('k') => self.select(self.position.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.select(self.position + 1),
            KeyCode::Home | KeyCode::Char('g') => self.select(0),
            KeyCode::End | KeyCode::Char('G') => self.select(usize::MAX),
            KeyCode::PageUp => self.select(self.position.saturating_sub(10)),
            KeyCode::PageDown => self.select(self.position + 10),
            KeyCode::Char('p') => return self.command(Action::Ping),
            KeyCode::Char('r') => return self.command(Action::Replace),
            KeyCode::Char('u') => return self.command(Action::Unban),
            KeyCode::Char('d') => self.confirm(Action::Disconnect),
            KeyCode::Char('b') => self.confirm(Action::Ban),
            _ => {}
        }
        None
    }

    /// A command for the selected peer, if there is one and a node to tell.
    fn command_for(&mut self, action: Action) -> Option<Command> {
        let peer = self.selected().map(|peer| key_of(peer).to_owned());
        if !self.attached || peer.is_none() {
            let why = if self.attached { "no peer is selected" } else { "there is no node to tell" };
            self.notice = Some((why.into(), true));
            return None;
        }
        Some(Command { command: action, peer: peer? })
    }

    fn command(&mut self, action: Action) -> Option<Effect> {
        self.command_for(action).map(Effect::Send)
    }

    fn confirm(&mut self, action: Action) {
        if let Some(command) = self.command_for(action) {
            self.mode = Mode::Confirm(command);
        }
    }
}

impl History {
    fn add(&mut self, peer: &Peer, t_ms: u64) {
        let bytes = (peer.bytes_sent, peer.bytes_received);
        if self.score.is_empty() {
            // The first second has begun some time ago: what it brought is not known.
            self.begin(peer, t_ms, bytes);
            self.push();
            return;
        }
        let elapsed = t_ms.saturating_sub(self.since_ms);
        if elapsed >= 1000 {
            let rate = |now: u64, then: u64| {
                let bytes = now.saturating_sub(then);
                (u128::from(bytes) * 1000 / u128::from(elapsed)) as u64
            };
            (self.sent, self.received) = (rate(bytes.0, self.bytes.0), rate(bytes.1, self.bytes.1));
            self.begin(peer, t_ms, bytes);
            self.push();
            return;
        }
        self.worst_rtt_ms = [self.worst_rtt_ms, peer.rtt_ms].into_iter().flatten().reduce(f64::max);
        self.least_score = self.least_score.min(peer.score);
        if let (Some(rtt), Some(score)) = (self.rtt_ms.back_mut(), self.score.back_mut()) {
            (*rtt, *score) = (self.worst_rtt_ms, Some(self.least_score));
        }
    }

    fn begin(&mut self, peer: &Peer, t_ms: u64, bytes: (u64, u64)) {
        (self.since_ms, self.bytes) = (t_ms, bytes);
        (self.worst_rtt_ms, self.least_score) = (peer.rtt_ms, peer.score);
    }

    fn push(&mut self) {
        self.rtt_ms.push_back(self.worst_rtt_ms);
        self.score.push_back(Some(self.least_score));
        for values in [&mut self.rtt_ms, &mut self.score] {
            if values.len() > SECONDS {
                values.pop_front();
            }
        }
    }
}
