//! Between a node, whose calls block, and tasks, which must not.

use std::{io, thread};

use tokio::sync::mpsc;
use tokio::task::{JoinError, spawn_blocking};
use unbroken::{LaneId, Message, Node, Outcome, Outgoing, PeerId, SendError};

/// The messages of a lane, on a channel that a task can await. The thread that forwards them ends with the node,
/// or when the channel is dropped. A full channel makes the thread wait: the peers get no more credit, and no
/// message is lost.
pub fn messages(node: &Node, lane: LaneId, room: usize) -> io::Result<mpsc::Receiver<Message>> {
    let receiver = node.lane_receiver(lane).ok_or(io::ErrorKind::NotFound)?;
    let (sender, messages) = mpsc::channel(room);
    let forward = move || while receiver.recv().is_ok_and(|message| sender.blocking_send(message).is_ok()) {};
    thread::Builder::new().name("bridge".into()).spawn(forward)?;
    Ok(messages)
}

/// Sends a message, and returns when its receipt has ended. It needs one of the runtime's blocking threads until
/// then; messages that nobody waits for are better sent by [`Node::try_send`], which never blocks.
pub async fn send(
    node: &Node,
    peer: PeerId,
    message: impl Into<Outgoing>,
) -> Result<Result<Outcome, SendError>, JoinError> {
    let (node, message) = (node.clone(), message.into());
    spawn_blocking(move || node.send(peer, message).map(|receipt| receipt.wait())).await
}
