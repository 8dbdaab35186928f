//! Guide: using a node from async code.
//!
//! A node has threads of its own and needs no runtime. Its calls block: a task that makes one keeps a thread
//! of its runtime from all other tasks, for as long as a queue is full or a receipt is open. So async code
//! meets the node at a few places only:
//!
//! | call | in a task |
//! |---|---|
//! | [`Node::try_send`](crate::Node::try_send), [`Node::broadcast`](crate::Node::broadcast), [`Node::peers`](crate::Node::peers), [`Receipt::poll`](crate::Receipt::poll) | as it is: they take locks, and wait for nobody |
//! | [`Node::send`](crate::Node::send), [`Receipt::wait`](crate::Receipt::wait), [`Broadcast::wait_for`](crate::Broadcast::wait_for), [`Node::request`](crate::Node::request) and its reply | on a thread that may block, such as those of `tokio::task::spawn_blocking` |
//! | [`LaneReceiver`](crate::LaneReceiver), [`EventReceiver`](crate::EventReceiver) | a thread for each that forwards to a channel of the runtime |
//! | [`Node::shutdown`](crate::Node::shutdown), and dropping the last clone of a node | on a thread that may block |
//!
//! # What to look out for
//! - **A task that is cancelled** does not take its message back: a message that was accepted goes out,
//!   unless it has expired ([`Outgoing::expires_in`](crate::Outgoing::expires_in)).
//! - **Taken** is a message when the forwarding thread has received it from the node, and not when the task
//!   has. Keep the channel short, and answer by a request where the sender must know more.
//! - **Many receipts at once** want one blocking thread each. For one message to many peers a
//!   [`Broadcast`](crate::Broadcast) needs one for all; for many messages to one peer it is enough to wait
//!   for the last of a lane, because a lane is taken in order.
//! - **`select!`** over a node and other sources works on the forwarded channels. On plain threads
//!   [`Receipt::ready`](crate::Receipt::ready) and [`crossbeam_channel`] do the same without a runtime
//!   ([`event_loop`](super::event_loop)).
//!
//! # The bridge
//! With tokio, this is all of it; `examples/async_bridge` in the repository is a program around it.
//!
//! ```ignore
#![doc = include_str!("bridge.rs")]
//! ```
