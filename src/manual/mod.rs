//! Pages that belong to no single item: a guide to the event loop, the protocol and the threat model. There
//! is no code here.

pub mod event_loop;
pub mod protocol;
pub mod threat_model;
