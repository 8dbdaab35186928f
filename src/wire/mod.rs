//! The bytes on the wire: prefaces, frames, control bodies and the streams of lanes. Pure.
//!
//! The page on the protocol, [`crate::manual::protocol`], is the specification; the golden bytes of the tests
//! hold this module to it.

pub(crate) mod batch;
mod body;
pub(crate) mod buffer;
pub(crate) mod chunk_pool;
pub(crate) mod control;
pub(crate) mod frame;
pub(crate) mod header;
pub(crate) mod preface;
pub(crate) mod proxy_header;
pub(crate) mod reader;
pub(crate) mod refused;
pub(crate) mod stream;

#[cfg(test)]
mod tests;
