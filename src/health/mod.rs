//! How well connections and peers do. Pure: time is an argument, nothing here knows a socket.

pub(crate) mod backoff;
pub(crate) mod breaker;
pub(crate) mod liveness;
pub(crate) mod pace;
pub(crate) mod score;
