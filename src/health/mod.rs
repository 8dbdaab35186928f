//! How well connections and peers do. Pure: time is an argument, nothing here knows a socket.

pub(crate) mod backoff;
pub(crate) mod breaker;
mod decay;
pub(crate) mod keepalive;
pub(crate) mod kernel;
pub(crate) mod liveness;
pub(crate) mod pace;
pub(crate) mod peer_score;
mod rhythm;
pub(crate) mod score;
