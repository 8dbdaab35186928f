//! Guide: when to use this library, and when another one.
//!
//! This library does one thing: it keeps messages flowing between nodes that know each other's addresses or
//! learn them, over TCP, from programs that use threads. Where you need something else, something else is
//! better. Statements about others are from their documentation, in 2026; figures are in the
//! repository, in `benches/README.md`, with the command that repeats them.
//!
//! # In one table
//! *Survives* means: what was sent before a connection broke arrives after it, once and in order, without a
//! line in the application. *Taken* means: the sender learns that the other application has the message, and
//! not only its kernel.
//!
//! | | style | survives a broken connection | taken | bulk delays votes | finds peers | transports |
//! |---|---|---|---|---|---|---|
//! | **unbroken** | threads | yes; a restart of the receiver by repeating what was not taken | yes | no: lanes, one or more connections | no; it is told, and chooses among candidates | TCP |
//! | `std::net` by hand | threads | no | no | yes, unless you build it | no | all that you build |
//! | libp2p | async | no | by request and response | streams share a connection | yes: DHT, mDNS, hole punching, relays | TCP, QUIC, WebRTC, ... |
//! | quinn (QUIC) | async | no; a change of address, yes | no | no: streams are independent | no | QUIC over UDP |
//! | ZeroMQ | any; I/O threads inside | reconnects; what the dead connection had taken is lost | no | yes, on one socket | no | TCP, IPC, ... |
//! | nng | any; I/O threads inside | reconnects; only the request protocol repeats | by request and response | yes, on one socket | no | TCP, TLS, IPC, ... |
//! | message-io | callbacks, one event loop | no | no | yes, on one connection | no | TCP, UDP, WebSocket |
//! | Zenoh | async inside | reconnects; recovery of missed samples where it is switched on | by queries | priorities | yes, and routes through others | TCP, QUIC, UDP, ... |
//! | commonware-p2p | async, its own runtime | no: delivery is best effort, the consensus above repeats | no | channels with rate limits | among a known set of keys | TCP |
//! | MPTCP | the kernel's, below any of these | one path of several: yes | no | yes | no | TCP |
//!
//! # Take another one when
//! - **Nodes sit behind NATs on both sides, or find each other in the open**: libp2p. It has discovery,
//!   relays and hole punching, and speaks to other implementations of its protocols. This library needs one
//!   side of each pair that can be dialled.
//! - **Your program is asynchronous throughout** and has no wish for threads: libp2p, quinn, Zenoh. (The
//!   bridge is short: [`manual::async_code`](crate::manual::async_code).)
//! - **You move bytes, not messages**, or a mobile client changes its address in mid-download: quinn. QUIC
//!   has independent streams and moves a connection to a new address.
//! - **Tens of thousands of connections in one process**: an event loop. Two threads a connection are cheap
//!   up to some thousands ([`manual::operating`](crate::manual::operating) has what they cost).
//! - **Publish and subscribe, queries, many languages**: Zenoh, ZeroMQ, nng. This library has one
//!   implementation, although its protocol is written down ([`manual::protocol`](crate::manual::protocol)).
//! - **Lost messages do not matter**, the next one replaces them: any of these, or UDP.
//! - **Machines with two networks, and everything is TCP already**: MPTCP needs no change of a program, only
//!   kernels that have it on both sides, and middleboxes that let it pass. It goes well with this library:
//!   what MPTCP does not see (a restart, a frozen process, a path that is up and drops large packets) is what
//!   this library is for.
//!
//! # Take this one when
//! - a message that was accepted must arrive, in order and once, although connections break, NATs forget and
//!   peers restart;
//! - you decide on quorums: the sender must know which of its peers *took* the proposal;
//! - votes must not wait for blocks on the same peer;
//! - broken paths are to be left before they cost a round, and you want to read why;
//! - your node is made of threads, and an async runtime would be the largest dependency that it has.
//!
//! # What it costs
//! Exactly once takes memory for what was not taken yet ([`Config::max_queued`](crate::Config::max_queued))
//! and acknowledgements on the way back. A plain socket with large batched writes moves 3 times (1 KiB) to
//! 27 times (64 B) as many messages a second, tokio with a length-delimited codec 4 times as many at 64 B,
//! and as many at 1 KiB (measured on two processors; README). `benches/compare` measures them beside this
//! library, in one run, on your machine.
