//! The cluster that users of the library get for their tests.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test: it fails by panicking"
)]
#![cfg(target_os = "linux")]

use std::time::Duration;

use unbroken::test_util::{Cluster, FaultProxy, black_hole_supported};
use unbroken::{Config, Node, Outcome, PathConfig, URGENT};
use unbroken_test_support::cluster::{TIMEOUT, eventually, skip};

fn cluster(count: usize) -> Cluster {
    let config = Config { path: PathConfig::default().scaled_down(10), ..Config::default() };
    let cluster = Cluster::start(count, move |_| Node::builder().config(config.clone())).unwrap();
    cluster.wait_linked(TIMEOUT).unwrap();
    cluster
}

/// Sends a vote, and takes it at the other side.
fn vote(from: &Node, to: &Node) {
    let receipt = from.send(to.id(), (URGENT, "vote")).unwrap();
    to.lane_receiver(URGENT).unwrap().recv_timeout(TIMEOUT).unwrap().expect("the vote");
    assert_eq!(receipt.wait_timeout(TIMEOUT), Some(Outcome::Taken));
}

#[test]
fn each_pair_has_one_path_and_each_path_leads_to_its_pair() {
    let cluster = cluster(3);
    assert!(cluster.path(0, 0).is_none() && cluster.path(0, 3).is_none());
    for (a, b) in [(0, 1), (2, 0), (1, 2)] {
        let path = cluster.path(a, b).unwrap();
        assert_eq!((path.addr(), path.flows()), (cluster.path(b, a).unwrap().addr(), 1));
        vote(&cluster.nodes()[a], &cluster.nodes()[b]);
        vote(&cluster.nodes()[b], &cluster.nodes()[a]);
    }
    let paths = |node| cluster.paths_of(node).map(FaultProxy::addr).collect::<Vec<_>>();
    assert_eq!(paths(1), [(0, 1), (1, 2)].map(|(a, b)| cluster.path(a, b).unwrap().addr()));
}

#[test]
fn a_node_that_is_isolated_hears_nothing_until_it_rejoins() {
    if !black_hole_supported() {
        return skip("no TCP_MD5SIG, no black hole");
    }
    let cluster = cluster(3);
    assert!(cluster.isolate(2));
    let [a, b, c] = cluster.nodes() else { unreachable!() };
    vote(a, b);
    let receipt = b.send(c.id(), (URGENT, "vote")).unwrap();
    let votes = c.lane_receiver(URGENT).unwrap();
    assert!(votes.recv_timeout(Duration::from_millis(300)).unwrap().is_none(), "it is cut off");
    cluster.rejoin(2);
    votes.recv_timeout(TIMEOUT).unwrap().expect("the vote");
    assert_eq!(receipt.wait_timeout(TIMEOUT), Some(Outcome::Taken));
}

/// Both kinds: one that dials nobody, and one that nobody dials.
#[test]
fn a_node_that_restarts_is_the_same_peer_in_a_new_life() {
    for node in [0, 2] {
        let mut cluster = cluster(3);
        let id = cluster.nodes()[node].id();
        let life = |cluster: &Cluster| cluster.nodes()[1].peer(id).and_then(|peer| peer.incarnation);
        let first = life(&cluster);
        cluster.paths_of(node).for_each(FaultProxy::reset_all);
        cluster.restart(node, Duration::ZERO).unwrap();
        assert_eq!(cluster.nodes()[node].id(), id);
        // No event tells it for certain: the new life may be there before the end of the old one was noticed.
        eventually("it comes back", || life(&cluster).is_some_and(|life| Some(life) != first));
        cluster.wait_linked(TIMEOUT).unwrap();
        vote(&cluster.nodes()[1], &cluster.nodes()[node]);
        vote(&cluster.nodes()[node], &cluster.nodes()[1]);
    }
}
