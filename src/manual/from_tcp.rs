//! Guide: from a plain `TcpStream` to unbroken.
//!
//! A node that has written its own networking usually has a stream for each peer, a length before each
//! message, a thread that reads, and a lock around the stream for those who write. This page shows the same
//! program with this library, piece by piece.
//!
//! # One message to one peer
//! With a stream:
//!
//! ```
//! use std::io::{Read, Write};
//! use std::net::{TcpListener, TcpStream};
//!
//! # let listener = TcpListener::bind("127.0.0.1:0")?;
//! # let address = listener.local_addr()?;
//! let mut stream = TcpStream::connect(address)?;
//! let vote = b"vote for block 7";
//! stream.write_all(&(vote.len() as u32).to_le_bytes())?;
//! stream.write_all(vote)?; // Ok: it is in a buffer of this kernel, and nobody knows more.
//! # let (mut peer, _) = listener.accept()?;
//! let mut len = [0; 4];
//! peer.read_exact(&mut len)?;
//! let mut message = vec![0; u32::from_le_bytes(len) as usize];
//! peer.read_exact(&mut message)?;
//! assert_eq!(message, vote);
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! With nodes:
//!
//! ```
//! use std::time::Duration;
//! use unbroken::{Event, Node, Outcome, URGENT};
//!
//! let peer = Node::builder().listen("127.0.0.1:0".parse()?).start()?;
//! let node = Node::builder().peer(peer.local_addrs()[0].to_string()).start()?;
//! node.wait_linked(peer.id(), Duration::from_secs(30))?;
//!
//! let receipt = node.send(peer.id(), (URGENT, "vote for block 7"))?;
//! let message = peer.events().find_map(|event| match event {
//!     Event::Message(message) => Some(message.into_bytes()),
//!     _ => None,
//! });
//! assert_eq!(message.as_deref(), Some(&b"vote for block 7"[..]));
//! assert_eq!(receipt.wait(), Outcome::Taken); // The peer's application has received it.
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What takes the place of what
//!
//! | with streams | here |
//! |---|---|
//! | `TcpListener::bind`, a loop of `accept` | [`Builder::listen`](crate::Builder::listen) |
//! | `TcpStream::connect`, a loop with a pause after an error | [`Builder::peer`](crate::Builder::peer), [`Node::add_peer`](crate::Node::add_peer): dialled for ever, with backoff |
//! | a map from peers to streams behind a mutex | the [`Node`](crate::Node), which any thread may clone and use |
//! | a length before each message, a `read_exact` for both | messages; [`Message::bytes`](crate::Message::bytes) |
//! | a thread for each stream that calls a handler | one thread, or several, in [`Node::recv`](crate::Node::recv) |
//! | a lock around the stream, or a channel and a writer thread | nothing: [`Node::send`](crate::Node::send) from any thread |
//! | a byte that says which kind of message it is, and a queue for each | [lanes](super::lanes_and_sizes) |
//! | a number for each request, a map of those who wait | [`Node::request`](crate::Node::request), [`Message::reply`](crate::Message::reply) |
//! | a loop over all streams, ignoring those with errors | [`Node::broadcast`](crate::Node::broadcast), [`Broadcast::wait_for`](crate::Broadcast::wait_for) |
//! | `set_read_timeout`, a ping of one's own | done; [`Event::Suspect`](crate::Event::Suspect) says when an answer is late |
//! | TLS, or nothing | [Noise](super::protocol), with the peer's identity proven |
//! | messages that were in a buffer when the connection broke | sent again by the next connection, each once |
//!
//! # What changes for the program
//! - **A send that was accepted is not lost while both processes live.** There is no error to handle where a
//!   connection breaks: there is none at this level. The receipt says how a message ended, for those that
//!   matter.
//! - **A peer is an identity, not an address.** Its [`PeerId`](crate::PeerId) stays the same when it moves,
//!   and several connections to it are one link. Keep the identity in a file:
//!   [`Builder::identity_file`](crate::Builder::identity_file).
//! - **Queues are bounded.** `send` waits when the peer takes nothing for long; `try_send` refuses, and
//!   `send_timeout` returns an error. Never call `send` on the only thread that receives: [the event
//!   loop](super::event_loop) says why.
//! - **Nodes of one network give the same [`Config::network`](crate::Config::network).** Others are refused.
