//! Two nodes in their namespaces: a dials b. The parent's side.

use std::collections::VecDeque;
use std::thread;
use std::time::{Duration, Instant};

use unbroken::{BULK, Config, LaneId, NORMAL, PathConfig, PeerConfig, URGENT};

use crate::agent::{self, Figures, micros};
use crate::ledger::Ledger;
use crate::net::{B, Net, PORT, Place, Way};
use crate::table::Row;
use unbroken_test_support::cluster::{self, TIMEOUT};
use unbroken_test_support::process::Child;

/// The length of a vote, of a letter (which fills a packet), and of a block.
const VOTE: usize = 64;
const LETTER: usize = 1000;
const BLOCK: usize = 64 * 1024;

pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn millis(time: u64) -> Duration {
    Duration::from_millis(time)
}

/// One of the two nodes.
pub(crate) struct Host {
    place: Place,
    who: u8,
    config: Config,
    child: Option<Child>,
    life: u32,
    /// The messages that it sent, and the other took.
    pub(crate) votes: Ledger,
    pub(crate) events: Vec<(u64, String)>,
    held: bool,
    pub(crate) figures: VecDeque<Figures>,
    /// Plain TCP with chunks of this size runs in the place of the node.
    plain: Option<usize>,
    next_stream: u64,
    /// The streams that go on after a pause, with the next number.
    going: Vec<Stream>,
    reconnects: u64,
    resent: u64,
}

#[derive(Clone, Copy)]
struct Stream {
    lane: LaneId,
    every: Duration,
    len: usize,
}

pub(crate) struct Pair {
    pub(crate) net: Net,
    pub(crate) a: Host,
    pub(crate) b: Host,
    fault: u64,
    patience: Duration,
}

/// Where b is to be dialled, and how both behave.
pub(crate) struct Setup {
    /// As so many peers, of which it turns out that they are one.
    pub(crate) addresses: Vec<String>,
    /// Further addresses of the one peer.
    pub(crate) alternatives: Vec<String>,
    /// How many connections a is to keep.
    pub(crate) pool: u8,
    pub(crate) path: PathConfig,
    pub(crate) drain_timeout: Duration,
    /// Plain TCP with chunks of this size, in the place of nodes.
    pub(crate) plain: Option<usize>,
    /// How long the test waits for what must come.
    pub(crate) patience: Duration,
}

impl Default for Setup {
    /// Everything ten times as fast as the defaults, but with the patience that a busy machine needs.
    fn default() -> Self {
        Setup {
            addresses: vec![format!("{B}:{PORT}")],
            alternatives: Vec::new(),
            pool: 1,
            path: cluster::calm_path(),
            drain_timeout: SECOND * 5,
            plain: None,
            patience: TIMEOUT,
        }
    }
}

impl Setup {
    /// Everything ten times as fast as the defaults, the suspicion too.
    pub(crate) fn fast() -> Self {
        Setup { path: cluster::path(), ..Setup::default() }
    }

    /// Suspicion ten times as fast as the defaults, but nothing else that ends a connection: what is noticed
    /// is noticed by suspicion.
    pub(crate) fn suspicious() -> Self {
        let usual = PathConfig::default();
        let path = PathConfig {
            dead_after: usual.dead_after,
            write_timeout: usual.write_timeout,
            user_timeout: usual.user_timeout,
            ..cluster::path()
        };
        Setup { path, ..Setup::default() }
    }
}

impl Pair {
    pub(crate) fn start(net: Net, setup: Setup) -> Pair {
        let mut config = Config { path: setup.path, drain_timeout: setup.drain_timeout, ..cluster::config() };
        // Blocks that wait in a queue would take a narrow link long after the test.
        for lane in config.lanes.iter_mut().filter(|lane| lane.id == BULK) {
            (lane.max_message, lane.queue) = (256 * 1024, 512 * 1024);
        }
        let listen = vec![format!("0.0.0.0:{PORT}").parse().unwrap()];
        let b = Host::new(Place::B, 2, Config { listen, ..config.clone() }, setup.plain);
        let peer = |address| PeerConfig {
            address,
            alternatives: setup.alternatives.clone(),
            connections: Some(setup.pool),
            ..PeerConfig::default()
        };
        let peers = setup.addresses.iter().cloned().map(peer).collect();
        let a = Host::new(Place::A, 1, Config { peers, ..config }, setup.plain);
        let mut pair = Pair { net, a, b, fault: 0, patience: setup.patience };
        pair.b.spawn(&pair.net);
        pair.wait("b runs", |pair| pair.b.has_event(0, "@up"));
        pair.a.spawn(&pair.net);
        pair.wait("the link", |pair| [&pair.a, &pair.b].iter().all(|host| host.has_event(0, "LinkUp")));
        pair
    }

    /// Both vote, as often as that.
    pub(crate) fn vote(&mut self, every: Duration) {
        for host in [&mut self.a, &mut self.b] {
            host.begin(Stream { lane: URGENT, every, len: VOTE });
        }
    }

    /// Both send a block as often as that, too.
    pub(crate) fn blocks(&mut self, every: Duration) {
        for host in [&mut self.a, &mut self.b] {
            host.begin(Stream { lane: BULK, every, len: BLOCK });
        }
    }

    /// a sends a block of `len` bytes as often as that.
    pub(crate) fn bulk(&mut self, every: Duration, len: usize) {
        self.a.begin(Stream { lane: BULK, every, len });
    }

    /// Both send a letter as often as that, too.
    pub(crate) fn letters(&mut self, every: Duration) {
        for host in [&mut self.a, &mut self.b] {
            host.begin(Stream { lane: NORMAL, every, len: LETTER });
        }
    }

    /// Both vote 100 times a second, and with load send 6 MB/s of blocks each.
    pub(crate) fn work(&mut self, load: bool) {
        self.vote(millis(10));
        if load {
            self.blocks(millis(10));
        }
        let (to_b, to_a) = (self.a.votes.votes() + 20, self.b.votes.votes() + 20);
        self.wait("the first votes", |pair| pair.a.votes.votes() > to_b && pair.b.votes.votes() > to_a);
    }

    /// Only b votes, until a has heard of it.
    pub(crate) fn b_votes(&mut self) {
        self.b.begin(Stream { lane: URGENT, every: millis(10), len: VOTE });
        let enough = self.b.votes.votes() + 20;
        self.wait("votes of b", |pair| pair.b.votes.votes() > enough);
    }

    /// Lets it be for a while.
    pub(crate) fn pass(&mut self, time: Duration) {
        let deadline = Instant::now() + time;
        while Instant::now() < deadline {
            self.pump();
            thread::sleep(millis(5));
        }
    }

    /// From here on delays count. To be called before the fault: on a busy machine a tool may return long
    /// after it has done its work.
    pub(crate) fn fault(&mut self) {
        self.fault = micros();
    }

    pub(crate) fn since_fault(&self) -> Duration {
        Duration::from_micros(micros() - self.fault)
    }

    /// Votes of both have come that long after this moment.
    pub(crate) fn until_votes(&mut self) {
        let now = micros();
        let flows = |pair: &Pair| pair.a.votes.votes_since(now) > 20 && pair.b.votes.votes_since(now) > 20;
        self.wait("votes in both directions", flows);
    }

    /// Both stop sending, and everything has arrived.
    pub(crate) fn hold(&mut self) {
        for host in [&mut self.a, &mut self.b] {
            host.held = false;
            host.going.clear();
            host.tell("hold");
        }
        self.wait("the end of sending", |pair| pair.a.held && pair.b.held);
        self.wait("everything that was sent", |pair| {
            pair.a.votes.missing() == 0 && pair.b.votes.missing() == 0
        });
    }

    /// The other ends' ports of the connections that b has: what flows look like on the router.
    pub(crate) fn ports(&mut self) -> Vec<u16> {
        self.figures();
        self.b.figures().conns.iter().map(|conn| conn.addr.port()).collect()
    }

    /// The time between a's pings.
    pub(crate) fn ping_interval(&mut self) -> Duration {
        self.figures();
        self.a.figures().ping_interval
    }

    /// How many connections go by this way.
    pub(crate) fn conns_by(&mut self, way: Way) -> usize {
        self.figures();
        self.a.figures().by(way).count().min(self.b.figures().by(way).count())
    }

    /// How many bytes both write to the connections that go by this way, in some time.
    pub(crate) fn traffic(&mut self, way: Way, time: Duration) -> u64 {
        let sent = |pair: &mut Pair| {
            pair.figures();
            let conns = [&pair.a, &pair.b].map(|host| host.figures().by(way).cloned().collect::<Vec<_>>());
            conns.concat()
        };
        let before = sent(self);
        self.pass(time);
        let after = sent(self);
        // Ends of a connection are told from others by their addresses.
        let grown = after.iter().map(|conn| {
            let old = before.iter().find(|old| old.addr == conn.addr && old.slot == conn.slot);
            conn.sent.saturating_sub(old.map_or(0, |old| old.sent))
        });
        grown.sum()
    }

    pub(crate) fn figures(&mut self) {
        for host in [&mut self.a, &mut self.b] {
            host.figures.clear();
            host.tell("figures");
        }
        self.wait("figures", |pair| [&pair.a, &pair.b].iter().all(|host| !host.figures.is_empty()));
    }

    /// The first such event that either has heard of since the fault, and when.
    pub(crate) fn heard_of(&self, words: &[&str]) -> Option<(u64, String)> {
        let events = self.a.events.iter().chain(&self.b.events).filter(|(at, _)| *at > self.fault);
        events.filter(|(_, text)| words.iter().any(|word| text.starts_with(word))).min().cloned()
    }

    /// The link was never in doubt since the fault.
    pub(crate) fn assert_untouched(&self) {
        let heard = self.heard_of(&["LinkDown", "LinkDegraded", "Disconnected", "Connected", "Suspect"]);
        assert_eq!(heard, None, "the link was in doubt\n{}", self.story());
    }

    /// Ends the work: everything arrived, once, in order, and no vote was later than `bound`.
    pub(crate) fn finish(&mut self, bound: Duration) -> Row {
        self.hold();
        let deadline = Instant::now() + self.patience;
        loop {
            self.figures();
            let queued = |host: &Host| host.figures().queued;
            match queued(&self.a) + queued(&self.b) {
                0 => break,
                n => assert!(Instant::now() < deadline, "{n} receipts never ended\n{}", self.story()),
            }
        }
        // A message that comes twice may come late.
        self.pass(millis(150));
        let again = self.a.votes.check() + self.b.votes.check();
        let (to_b, to_a) = self.worst_since(self.fault, URGENT);
        let (of_a, of_b) = (self.a.figures(), self.b.figures());
        let row = Row {
            to_b,
            to_a,
            bound,
            messages: self.a.votes.messages() + self.b.votes.messages(),
            again,
            resent: of_a.resent + of_b.resent + self.a.resent + self.b.resent,
            reconnects: (of_a.reconnects + self.a.reconnects).max(of_b.reconnects + self.b.reconnects),
            // Each replacement is news on both sides.
            replaced: self.a.count("Replaced").max(self.b.count("Replaced")),
        };
        assert!(
            to_b.max(to_a) <= bound,
            "outage {to_b:?} to b, {to_a:?} to a, bound {bound:?}\n{}",
            self.story()
        );
        row
    }

    /// The longest that a message of this lane took since then, to b and to a.
    pub(crate) fn worst_since(&self, time: u64, lane: LaneId) -> (Duration, Duration) {
        (self.a.votes.worst_since(time, lane), self.b.votes.worst_since(time, lane))
    }

    /// After a silence: the first votes must not be late at all.
    pub(crate) fn votes_at_once(&mut self) -> Row {
        self.fault();
        self.work(false);
        self.finish(millis(500))
    }

    pub(crate) fn wait(&mut self, what: &str, mut condition: impl FnMut(&Pair) -> bool) {
        let deadline = Instant::now() + self.patience;
        loop {
            self.pump();
            if condition(self) {
                return;
            }
            assert!(Instant::now() < deadline, "waited in vain for {what}\n{}", self.story());
            thread::sleep(millis(3));
        }
    }

    fn pump(&mut self) {
        self.a.pump(&mut self.b.votes);
        self.b.pump(&mut self.a.votes);
    }

    pub(crate) fn story(&self) -> String {
        let [a, b] = [&self.a, &self.b].map(|host| host.story(self.fault));
        let missing = (self.a.votes.missing(), self.b.votes.missing());
        format!("missing {missing:?}\na:\n{a}b:\n{b}")
    }

    pub(crate) fn restart(&mut self, place: Place) {
        let host = if place == Place::A { &mut self.a } else { &mut self.b };
        host.spawn(&self.net);
        for stream in std::mem::take(&mut host.going) {
            host.begin(stream);
        }
    }
}

impl Host {
    fn new(place: Place, who: u8, config: Config, plain: Option<usize>) -> Host {
        Host {
            place,
            who,
            config,
            child: None,
            life: 0,
            votes: Ledger::default(),
            events: Vec::new(),
            held: false,
            figures: VecDeque::new(),
            plain,
            next_stream: u64::from(who) << 32,
            going: Vec::new(),
            reconnects: 0,
            resent: 0,
        }
    }

    /// Starts its process.
    fn spawn(&mut self, net: &Net) {
        let exe = std::env::current_exe().expect("this binary");
        let mut command = net.command(self.place, exe.as_os_str());
        command.args(["--exact", "child_process", "--ignored", "--nocapture", "--test-threads", "1"]);
        command.env(agent::CONFIG, serde_json::to_string(&self.config).expect("a config"));
        command.env(agent::WHO, self.who.to_string());
        self.plain.into_iter().for_each(|chunk| {
            command.env(agent::PLAIN, chunk.to_string());
        });
        self.life += 1;
        self.child = Some(Child::spawn(command).expect("a child process"));
    }

    /// Kills its process, frozen or not. The messages that it had taken by then are known.
    pub(crate) fn kill(&mut self, its: &mut Ledger) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("killed");
        // Its output ends with it.
        let lines: Vec<String> = child.lines().iter().collect();
        lines.iter().for_each(|line| self.read(line, its));
        if let Some(figures) = self.figures.back() {
            self.reconnects += figures.reconnects;
            self.resent += figures.resent;
        }
        self.votes.cut();
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        self.child.as_mut().expect("it runs")
    }

    fn tell(&mut self, order: &str) {
        self.child().send_line(order).expect("the child runs");
    }

    fn begin(&mut self, stream: Stream) {
        self.next_stream += 1;
        let (number, every) = (self.next_stream, stream.every.as_micros());
        self.tell(&format!("send {} {number} 0 {every} {}", stream.lane.0, stream.len));
        self.going.push(stream);
    }

    /// Reads what its process has printed. `other`: what the other one sent.
    fn pump(&mut self, other: &mut Ledger) {
        let Some(child) = self.child.take() else { return };
        while let Ok(line) = child.lines().try_recv() {
            self.read(&line, other);
        }
        self.child = Some(child);
    }

    fn read(&mut self, line: &str, other: &mut Ledger) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let numbers = || rest.split(' ').filter_map(|word| word.parse().ok()).collect::<Vec<u64>>();
        match word {
            "@sent" => self.votes.sent(&numbers()),
            "@took" => other.took(self.life, &numbers()),
            "@held" => self.held = true,
            "@figures" => self.figures.push_back(serde_json::from_str(rest).expect("figures")),
            "@event" => {
                let (at, text) = rest.split_once(' ').unwrap_or_default();
                self.events.push((at.parse().unwrap_or(0), text.into()));
            }
            "@up" => self.events.push((micros(), "@up".into())),
            "@error" => panic!("{:?} says: {rest}", self.place),
            _ => {}
        }
    }

    /// Its last report about its link.
    pub(crate) fn figures(&self) -> &Figures {
        self.figures.back().expect("it was asked")
    }

    /// How many events of that name it has had.
    pub(crate) fn count(&self, name: &str) -> usize {
        self.events.iter().filter(|(_, text)| text.split(' ').next() == Some(name)).count()
    }

    pub(crate) fn has_event(&self, since: u64, word: &str) -> bool {
        self.events.iter().any(|(at, text)| *at >= since && text.starts_with(word))
    }

    fn story(&self, fault: u64) -> String {
        let skip = self.events.len().saturating_sub(40);
        let line = |(at, text): &(u64, String)| {
            format!("  {:>10.1} ms {text}\n", (*at as f64 - fault as f64) / 1000.0)
        };
        self.events.iter().skip(skip).map(line).collect()
    }
}
