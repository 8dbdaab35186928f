//! Guide: nodes behind NAT and firewalls.
//!
//! # What they do to connections
//! A NAT or a stateful firewall remembers each flow and forgets it when it was idle: after 30 s in strict
//! ones, 300 s in common ones, and RFC 5382 asks for two hours. It says nothing then: packets of a forgotten
//! flow are dropped, or answered by a reset. A proxy closes idle connections by FIN or RST. Both ends believe
//! in the connection until they use it.
//!
//! # What the library does
//! - Pings every [`PathConfig::ping_interval`](crate::PathConfig::ping_interval) (10 s) in both directions
//!   and TCP keepalive after [`PathConfig::keepalive_time`](crate::PathConfig::keepalive_time) (15 s) keep
//!   flows in memory.
//! - Connections that die of silence, or are closed after the same silence two or three times, teach a
//!   shorter interval, down to [`PathConfig::min_ping_interval`](crate::PathConfig::min_ping_interval) (1 s):
//!   [`Event::PingIntervalLearned`](crate::Event::PingIntervalLearned). It grows back slowly.
//! - A vote into a forgotten flow makes the connection suspect after
//!   [`PathConfig::suspect_after`](crate::PathConfig::suspect_after) (1 s). A successor is dialled, and what
//!   was not acknowledged is sent again by it. Nothing is lost, and nothing arrives twice.
//!
//! # A node that can be dialled by nobody
//! It only dials: leave [`Config::listen`](crate::Config::listen) empty. Others send to it over the links
//! that it opened.
//!
//! ```
//! use std::time::Duration;
//! use unbroken::{Event, NORMAL, Node};
//!
//! let public = Node::builder().listen("127.0.0.1:0".parse()?).start()?;
//! let address = format!("{}@{}", public.id(), public.local_addrs()[0]);
//! let behind_nat = Node::builder().peer(address).start()?;
//! behind_nat.wait_linked(public.id(), Duration::from_secs(30))?;
//!
//! public.send(behind_nat.id(), (NORMAL, "block 7"))?;
//! let block = behind_nat.events().find_map(|event| match event {
//!     Event::Message(message) => Some(message.into_bytes()),
//!     _ => None,
//! });
//! assert_eq!(block.as_deref(), Some(&b"block 7"[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The public side need not know an address of it. Where it matters that this node finds room among
//! strangers, let the public side name it by its identity alone, in a file `peers = ["<id>"]`. Then the
//! places of [`AdmissionConfig::reserved`](crate::AdmissionConfig::reserved) are for it too, and messages
//! wait for it before it was ever there:
//!
//! ```
//! use unbroken::{Identity, Node, PeerConfig};
//!
//! # let behind_nat = Identity::generate()?.peer_id();
//! let public = Node::builder()
//!     .listen("127.0.0.1:0".parse()?)
//!     .peer_config(PeerConfig::inbound_only(behind_nat))
//!     .start()?;
//! let named = public.peer(behind_nat).expect("known from the start");
//! assert!(named.wanted && named.addresses.is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The public side cannot dial it back. When the flow dies it waits until the node behind the NAT notices: by
//! its own messages within a second; by the end of data that came regularly after twice the usual gap; else
//! by its next ping. Where a vote must reach such a node within seconds, let votes flow regularly, or
//! shorten the ping interval:
//!
//! ```
//! use std::time::Duration;
//! use unbroken::Node;
//!
//! let node = Node::builder()
//!     .configure(|config| config.path.ping_interval = Duration::from_secs(2))
//!     .peer("seed.example.org:4000");
//! ```
//!
//! # A forwarded port
//! A node behind a NAT with a forwarded port listens on the inner port and announces the outer one, so that
//! peers can dial back when a connection that it dialled no longer answers:
//!
//! ```
//! use unbroken::{Announce, Node};
//!
//! let node = Node::builder()
//!     .listen("0.0.0.0:4000".parse()?)
//!     .configure(|config| config.announce = Announce::Port(54000));
//! # Ok::<(), std::net::AddrParseError>(())
//! ```
//!
//! Peers dial the announced port at the address from which the connection came, and no other.
//!
//! # Behind a load balancer
//! Behind a load balancer that passes TCP on (haproxy, nginx, envoy, those of cloud providers) all
//! connections come from its address, and the limits per address count all clients together. Let it send the
//! PROXY protocol, version 2 (haproxy: `send-proxy-v2`), and list its network:
//!
//! ```
//! use unbroken::Node;
//!
//! let balancers = vec!["10.0.7.0/28".parse()?];
//! let node = Node::builder()
//!     .listen("0.0.0.0:4000".parse().unwrap())
//!     .configure(|config| config.proxy_protocol_from = balancers);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Limits, lists, bans, logs, snapshots and dialling back then know the client's own address. List no network
//! from which others can connect: whoever is in it can claim any address. From there a connection without the
//! header is refused ([`Event::Refused`](crate::Event::Refused)); so a health check must send LOCAL, or only
//! open the port. The load balancer must not close connections that are idle for less than
//! [`PathConfig::ping_interval`](crate::PathConfig::ping_interval).
//!
//! # Many nodes behind one address
//! The limits per address count them together:
//! [`AdmissionConfig::max_inbound_per_address`](crate::AdmissionConfig::max_inbound_per_address) and
//! [`AdmissionConfig::connects_at_once`](crate::AdmissionConfig::connects_at_once). Name the peers
//! (configured peers that have proven who they are do not count), or add the network to
//! [`AdmissionConfig::exempt`](crate::AdmissionConfig::exempt).
