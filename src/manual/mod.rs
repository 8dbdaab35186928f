//! Pages that belong to no single item: guides, the protocol and the threat model. There
//! is no code here.

pub mod behind_nat;
pub mod event_loop;
pub mod protocol;
pub mod threat_model;
