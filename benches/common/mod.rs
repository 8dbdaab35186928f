//! Two nodes over loopback, and two plain sockets to compare them with.

use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use unbroken::{Encryption, Event, Node, PeerId};

/// The contestants, by the names of the benches.
pub const MODES: [(&str, Encryption); 2] =
    [("unbroken", Encryption::Noise), ("unbroken_plaintext", Encryption::Plaintext)];

/// Two nodes in one process, linked over loopback; `a` dialled `b`.
pub struct Nodes {
    pub a: Node,
    pub b: Node,
    pub b_id: PeerId,
}

pub fn nodes(encryption: Encryption) -> Nodes {
    let builder = || Node::builder().configure(|config| config.encryption = encryption);
    let b = builder().listen("127.0.0.1:0".parse().unwrap()).start().unwrap();
    let a = builder().peer(b.local_addrs()[0].to_string()).start().unwrap();
    let b_id = loop {
        if let Event::LinkUp { peer, .. } = a.recv().unwrap() {
            break peer;
        }
    };
    Nodes { a, b, b_id }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.a.shutdown(Duration::ZERO);
        self.b.shutdown(Duration::ZERO);
    }
}

/// Both ends of one connection over loopback.
pub fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let a = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (b, _) = listener.accept().unwrap();
    a.set_nodelay(true).unwrap();
    b.set_nodelay(true).unwrap();
    (a, b)
}

/// Starts a thread that ends with its nodes, or with the process.
pub fn spawn(name: &str, run: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().name(name.into()).spawn(run).unwrap();
}
