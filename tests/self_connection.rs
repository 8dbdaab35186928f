//! A node that is told to dial itself finds that out and does not try again.

use std::time::Duration;

use unbroken::{EndCause, Event, Node, PeerConfig};

#[test]
fn a_node_that_dials_itself_is_told_so_and_stops() {
    let node = Node::builder().listen("127.0.0.1:0".parse().unwrap()).start().unwrap();
    node.add_peer(PeerConfig::new(node.local_addrs()[0].to_string())).unwrap();
    match node.recv_timeout(Duration::from_secs(10)).unwrap() {
        Some(Event::DialFailed { reason, next, .. }) => {
            assert_eq!(reason.cause, EndCause::SelfConnection);
            assert_eq!(next, None, "it does not try again");
        }
        other => panic!("expected a failed dial, got {other:?}"),
    }
}
