//! Pages that belong to no single item: the protocol and the threat model. There is no code here.

pub mod protocol;
pub mod threat_model;
