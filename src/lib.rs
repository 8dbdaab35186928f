//! unbroken
mod clock;
pub mod codec;
mod config;
mod conn;
mod error;
mod event;
mod health;
mod id;
mod lane;
mod link;
mod message;
mod node;
mod outcome;
mod receipt;
mod roster;
pub mod wire;

pub use config::{Config, ConfigError, PathConfig, PeerConfig};
pub use error::{EndCause, EndReason, Initiator, SendError, SendErrorKind, StartError};
pub use event::Event;
pub use health::breaker::BreakerState;
pub use id::{ConnId, Identity, Incarnation, ParsePeerIdError, PeerId};
pub use lane::{BULK, LaneConfig, LaneId, NORMAL, Priority, TakenWhen, URGENT};
pub use message::Payload;
pub use node::{
    Builder, Closed, ConnSnapshot, ConnState, LaneReceiver, LaneSnapshot, LinkState, Message, Node,
    NodeSnapshot, Outgoing, PeerSnapshot, PendingReply,
};
pub use outcome::{DropReason, Outcome, RequestError};
pub use receipt::{Broadcast, Progress, QuorumError, Receipt};
pub use wire::control::GoawayReason;
