//! Addresses that do not answer, on loopback and without privileges.

use std::net::SocketAddr;

use socket2::{Domain, SockAddr, Socket, Type};

/// A listener whose queue is full: the kernel drops each SYN to it, and whoever connects waits. It listens on
/// all loopback addresses (127.0.0.0/8), so it can stand for any number of peers that are absent.
#[derive(Debug)]
pub struct BlackHole {
    _listener: Socket,
    _queued: Vec<Socket>,
    port: u16,
}

impl BlackHole {
    pub fn start() -> BlackHole {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SockAddr::from(SocketAddr::from(([0, 0, 0, 0], 0)))).unwrap();
        listener.listen(0).unwrap();
        let port = listener.local_addr().unwrap().as_socket().unwrap().port();
        // The queue takes one more than its length (listen(2) with 0: one).
        let queued = (0..3).map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _in_progress = socket.connect(&SockAddr::from(SocketAddr::from(([127, 0, 0, 1], port))));
            socket
        });
        BlackHole { _queued: queued.collect(), _listener: listener, port }
    }

    /// The n-th of its addresses.
    pub fn addr(&self, n: u16) -> SocketAddr {
        let [high, low] = n.to_be_bytes();
        ([127, 9, high, low], self.port).into()
    }
}
