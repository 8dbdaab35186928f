//! A recorder is told the figures of a node; and the documentation and the dashboard speak of the same
//! figures.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods
)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use metrics_exporter_prometheus::PrometheusBuilder;
use unbroken::metrics::Reporter;
use unbroken::{BULK, Node, Outcome, PeerConfig, PeerId, URGENT};

const TIMEOUT: Duration = Duration::from_secs(30);

/// The figures that were reported, in the text format of Prometheus, after each of these steps.
struct Figures {
    recorder: metrics_exporter_prometheus::PrometheusRecorder,
    reporter: Reporter,
}

impl Figures {
    fn new() -> Figures {
        let recorder = PrometheusBuilder::new().build_recorder();
        let reporter = metrics::with_local_recorder(&recorder, Reporter::new);
        Figures { recorder, reporter }
    }

    fn report(&mut self, node: &Node) -> String {
        metrics::with_local_recorder(&self.recorder, || self.reporter.report(&node.snapshot()));
        self.recorder.handle().render()
    }
}

fn value(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
    line.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

fn linked() -> (Node, Node) {
    let b = Node::builder().listen("127.0.0.1:0".parse().unwrap()).start().unwrap();
    let a = Node::builder().peer(b.local_addrs()[0].to_string()).start().unwrap();
    a.wait_linked(b.id(), TIMEOUT).unwrap();
    (a, b)
}

fn votes(a: &Node, b: &Node, count: usize) {
    let receiver = b.lane_receiver(URGENT).unwrap();
    for _ in 0..count {
        let receipt = a.send(b.id(), (URGENT, "vote")).unwrap();
        receiver.recv().unwrap();
        assert_eq!(receipt.wait_timeout(TIMEOUT), Some(Outcome::Taken));
    }
}

fn of_peer(name: &str, peer: PeerId) -> String {
    format!("{name}{{peer=\"{peer}\"}}")
}

#[test]
fn figures_of_the_node_of_peers_and_of_lanes() {
    let ((a, b), mut figures) = (linked(), Figures::new());
    votes(&a, &b, 7);
    let text = figures.report(&a);
    let of_b = |name| value(&text, &of_peer(name, b.id()));
    assert_eq!(value(&text, "unbroken_peers{state=\"up\",wanted=\"true\"}"), Some(1.0), "{text}");
    assert_eq!(value(&text, "unbroken_peers{state=\"down\",wanted=\"true\"}"), Some(0.0));
    assert_eq!(value(&text, "unbroken_connections"), Some(1.0));
    assert_eq!(of_b("unbroken_peer_up"), Some(1.0));
    assert_eq!(of_b("unbroken_peer_sent_messages_total"), Some(7.0));
    assert!(of_b("unbroken_peer_sent_bytes_total").unwrap() > 7.0 * 4.0);
    let taken = |text: &str, lane: u8| {
        value(text, &format!("unbroken_lane_taken_total{{peer=\"{}\",lane=\"{lane}\"}}", b.id()))
    };
    assert_eq!((taken(&text, URGENT.0), taken(&text, BULK.0)), (Some(7.0), Some(0.0)));
    // A counter counts on, and a second look at the same value adds nothing.
    figures.report(&a);
    votes(&a, &b, 2);
    assert_eq!(taken(&figures.report(&a), URGENT.0), Some(9.0));
}

#[test]
fn series_of_a_peer_have_its_label() {
    let b = Node::builder().listen("127.0.0.1:0".parse().unwrap()).start().unwrap();
    let entry = PeerConfig::new(b.local_addrs()[0].to_string());
    let entry = PeerConfig { label: Some("tokyo-1".into()), ..entry };
    let a = Node::builder().peer_config(entry).start().unwrap();
    a.wait_linked(b.id(), TIMEOUT).unwrap();
    let text = Figures::new().report(&a);
    let series = format!("unbroken_peer_up{{peer=\"{}\",label=\"tokyo-1\"}}", b.id());
    assert_eq!(value(&text, &series), Some(1.0), "{text}");
}

#[test]
fn peers_that_only_dial_have_no_series_of_their_own() {
    let ((a, b), mut figures) = (linked(), Figures::new());
    votes(&a, &b, 1);
    let text = figures.report(&b);
    assert_eq!(value(&text, "unbroken_peers{state=\"up\",wanted=\"false\"}"), Some(1.0), "{text}");
    assert!(!text.contains("peer="), "{text}");
}

#[test]
fn a_peer_that_was_removed_shows_0() {
    let ((a, b), mut figures) = (linked(), Figures::new());
    let up = of_peer("unbroken_peer_up", b.id());
    assert_eq!(value(&figures.report(&a), &up), Some(1.0));
    assert!(a.remove_peer(b.id()));
    let deadline = Instant::now() + TIMEOUT;
    while value(&figures.report(&a), &up) != Some(0.0) {
        assert!(Instant::now() < deadline, "{}", figures.report(&a));
        std::thread::yield_now();
    }
}

/// All words of a text that are names of figures.
fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| word.starts_with("unbroken_")).collect()
}

#[test]
fn the_documentation_has_each_figure_and_the_dashboard_no_other() {
    let ((a, b), mut figures) = (linked(), Figures::new());
    votes(&a, &b, 1);
    let text = figures.report(&a);
    let told: BTreeSet<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let told: BTreeSet<_> = told.iter().map(|line| line.split(' ').next().unwrap()).collect();
    let rows = include_str!("../src/metrics.rs").lines().filter(|line| line.starts_with("//! | `"));
    assert_eq!(rows.flat_map(names).collect::<BTreeSet<_>>(), told);
    let dashboard = names(include_str!("../examples/metrics/grafana.json"));
    assert_eq!(dashboard.difference(&told).collect::<Vec<_>>(), Vec::<&&str>::new());
    assert!(dashboard.len() > 15, "{dashboard:?}");
}
