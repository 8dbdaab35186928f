//! How well connections and peers do. Pure: time is an argument, nothing here knows a socket.

pub(crate) mod backoff;
pub(crate) mod breaker;
mod decay;
#[cfg_attr(not(test), expect(dead_code, reason = "the node does not feed all of it yet"))]
pub(crate) mod keepalive;
pub(crate) mod kernel;
#[cfg_attr(not(test), expect(dead_code, reason = "the node does not feed all of it yet"))]
pub(crate) mod liveness;
pub(crate) mod pace;
#[cfg_attr(not(test), expect(dead_code, reason = "the node does not feed all of it yet"))]
pub(crate) mod peer_score;
#[cfg_attr(not(test), expect(dead_code, reason = "the node does not feed all of it yet"))]
pub(crate) mod score;
