//! unbroken
mod clock;
pub mod codec;
mod health;
mod id;
mod lane;
mod link;
mod message;
mod outcome;
pub mod wire;

pub use id::{ConnId, Identity, Incarnation, ParsePeerIdError, PeerId};
pub use lane::{BULK, LaneConfig, LaneId, NORMAL, Priority, TakenWhen, URGENT};
pub use message::Payload;
pub use outcome::{DropReason, Outcome, RequestError};
