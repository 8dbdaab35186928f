//! The serving side, `examples/view`, with real nodes: here because examples have no tests of their own.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use unbroken::Node;

use crate::view::View;
use crate::wire::{Action, Answer, Command, Event, FromNode, Snapshot};

/// Far longer than anything takes.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A directory of this test. Removed with what is in it.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("view-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("a.sock")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

struct Client {
    lines: BufReader<UnixStream>,
}

impl Client {
    fn attach(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        Client { lines: BufReader::new(stream) }
    }

    fn say(&mut self, line: &str) {
        writeln!(self.lines.get_mut(), "{line}").unwrap();
    }

    fn next(&mut self) -> FromNode {
        let mut line = String::new();
        assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "the node has let go");
        serde_json::from_str(&line).unwrap()
    }

    fn snapshot(&mut self) -> Snapshot {
        loop {
            if let FromNode::Snapshot(snapshot) = self.next() {
                return *snapshot;
            }
        }
    }

    fn events(&mut self) -> Vec<Event> {
        loop {
            if let FromNode::Events(events) = self.next() {
                return events;
            }
        }
    }

    fn answer(&mut self, line: &str) -> Answer {
        self.say(line);
        loop {
            if let FromNode::Answer(answer) = self.next() {
                return answer;
            }
        }
    }

    fn ask(&mut self, command: Action, peer: &str) -> Answer {
        self.answer(&serde_json::to_string(&Command { command, peer: peer.into() }).unwrap())
    }
}

/// Two nodes that are linked; the first one has dialled.
fn pair() -> (Node, Node) {
    let to = Node::builder().listen("127.0.0.1:0".parse().unwrap()).start().unwrap();
    let from = Node::builder().peer(to.local_addrs()[0].to_string()).start().unwrap();
    from.wait_linked(to.id(), TIMEOUT).unwrap();
    (from, to)
}

#[test]
fn a_dashboard_sees_the_node_and_commands_it() {
    let directory = Directory::new("commands");
    let (node, peer) = pair();
    let view = View::serve(&node, &directory.socket()).unwrap();
    view.event(Some(peer.id()), "up", "up");
    let mut client = Client::attach(&directory.socket());
    let told = client.events();
    assert_eq!((told[0].peer.as_str(), told[0].event.as_str()), (&*peer.id().to_string(), "up"));
    let id = peer.id().to_string();
    let snapshot = client.snapshot();
    assert_eq!((snapshot.id, snapshot.peers.len()), (node.id().to_string(), 1));
    assert_eq!((snapshot.peers[0].id.as_str(), snapshot.peers[0].state.as_str()), (&*id, "up"));
    let lanes: Vec<&str> = snapshot.peers[0].lanes.iter().map(|lane| lane.name.as_str()).collect();
    assert_eq!(lanes, ["urgent", "normal", "bulk"]);
    assert!(snapshot.peers[0].lanes.iter().all(|lane| lane.credit > 0));

    let asked = client.ask(Action::Ping, &id);
    assert_eq!(asked.ok.as_deref(), Some("1 connection asked"), "{asked:?}");
    let first = client.snapshot().peers[0].connections[0].id;
    let replaced = client.ask(Action::Replace, &id);
    assert_eq!(replaced.ok.as_deref(), Some("1 connection gets a successor"), "{replaced:?}");
    while client.snapshot().peers[0].connections.iter().any(|conn| conn.id == first) {}
    view.event(Some(peer.id()), "replaced", "connection #1 replaced by #2");
    while client.snapshot().peers[0].replaced != 1 {}

    assert!(client.ask(Action::Unban, &id).error.unwrap().contains("is not banned"));
    client.ask(Action::Ban, &id).ok.unwrap();
    while !client.snapshot().peers[0].banned {}
    client.ask(Action::Unban, &id).ok.unwrap();
    node.wait_linked(peer.id(), TIMEOUT).unwrap();
    client.ask(Action::Disconnect, &id).ok.unwrap();
    while !client.snapshot().peers.is_empty() {}
    for action in [Action::Ping, Action::Disconnect] {
        assert!(client.ask(action, &id).error.unwrap().contains("there is no link to"));
    }
}

#[test]
fn what_is_no_command_is_answered_with_what_was_expected() {
    let directory = Directory::new("nonsense");
    let node = Node::builder().start().unwrap();
    let _view = View::serve(&node, &directory.socket()).unwrap();
    let mut client = Client::attach(&directory.socket());
    for line in ["", "nonsense", r#"{"command":"explode","peer":"x"}"#, "\u{fffd}"] {
        let answer = client.answer(line);
        let error = answer.error.unwrap();
        assert!(error.contains("is no command") && error.contains(r#"{"command":"ping""#), "{error}");
    }
    let error = client.ask(Action::Ban, "127.0.0.1:1").error.unwrap();
    assert!(error.contains("127.0.0.1:1") && error.contains("expected the id of a peer"), "{error}");
    // A line without an end is not kept.
    client.say(&"x".repeat(1 << 16));
    let mut rest = Vec::new();
    let end = client.lines.read_to_end(&mut rest);
    assert!(end.is_ok() || end.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
}

#[test]
fn the_socket_is_its_user_s_and_goes_with_the_view() {
    let directory = Directory::new("file");
    let path = directory.socket();
    let node = Node::builder().start().unwrap();
    // The socket of a process that has died.
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let view = View::serve(&node, &path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let mut client = Client::attach(&path);
    client.snapshot();
    let error = View::serve(&node, &path).err().unwrap().to_string();
    assert!(error.contains("a.sock") && error.contains("another process serves it"), "{error}");
    drop(view);
    assert!(!path.exists());
    let mut rest = Vec::new();
    client.lines.read_to_end(&mut rest).unwrap();

    fs::write(&path, "a file of the user").unwrap();
    let error = View::serve(&node, &path).err().unwrap().to_string();
    assert!(error.contains("expected none or a socket"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "a file of the user");
    fs::remove_file(&path).unwrap();

    // The file of another process, which took the place of this one's.
    let view = View::serve(&node, &path).unwrap();
    fs::rename(&path, directory.0.join("moved")).unwrap();
    fs::write(&path, "of another").unwrap();
    drop(view);
    assert!(path.exists());
}

#[test]
fn the_ninth_dashboard_is_refused() {
    let directory = Directory::new("many");
    let node = Node::builder().start().unwrap();
    let _view = View::serve(&node, &directory.socket()).unwrap();
    let mut clients: Vec<Client> = (0..8).map(|_| Client::attach(&directory.socket())).collect();
    clients.iter_mut().for_each(|client| drop(client.snapshot()));
    let refused = Client::attach(&directory.socket()).next();
    assert!(matches!(&refused, FromNode::Refused(why) if why.contains("8 dashboards")), "{refused:?}");
    // Its place is free when one has gone.
    clients.pop();
    while matches!(Client::attach(&directory.socket()).next(), FromNode::Refused(_)) {}
    clients[0].snapshot();
}

#[test]
fn a_dashboard_that_does_not_read_is_let_go_and_the_others_miss_nothing() {
    let directory = Directory::new("slow");
    let node = Node::builder().start().unwrap();
    let view = View::serve(&node, &directory.socket()).unwrap();
    let (mut slow, mut client) = (Client::attach(&directory.socket()), Client::attach(&directory.socket()));
    slow.snapshot();
    client.snapshot();
    // More than its socket and its queue hold: lines of 200 KB.
    for number in 0..100 {
        let text = format!("{number} {}", "x".repeat(400));
        (0..500).for_each(|_| view.event(None, "test", &text));
        let mut missing = 500;
        while missing > 0 {
            let events = client.events();
            assert!(events.iter().all(|event| event.text == text), "{events:?}");
            missing -= events.len();
        }
    }
    let mut told = String::new();
    slow.lines.read_to_string(&mut told).unwrap();
    assert!(!told.contains("\"99 x"), "it was told everything");
}

#[test]
fn events_for_which_there_is_no_room_are_counted() {
    let directory = Directory::new("lost");
    let node = Node::builder().start().unwrap();
    let view = View::serve(&node, &directory.socket()).unwrap();
    let mut client = Client::attach(&directory.socket());
    client.snapshot();
    let (mut total, mut seen, mut left_out) = (0, 0, 0);
    let mut send = |count: usize| {
        (0..count).for_each(|_| view.event(None, "test", "text"));
        total += count;
        total
    };
    let mut sent = send(100_000);
    while seen + left_out < sent {
        for event in client.events() {
            match event.event.as_str() {
                "test" => seen += 1,
                _ => left_out += event.text.split(' ').next().unwrap().parse::<usize>().unwrap(),
            }
        }
        if seen + left_out < sent {
            // The next event brings the number of those that found no room before it.
            sent = send(1);
        }
    }
    assert_eq!(seen + left_out, sent);
    assert!(left_out > 0, "all {seen} found room");
}
