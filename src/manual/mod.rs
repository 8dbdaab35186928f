//! Pages that belong to no single item: guides, the protocol and the threat model. There
//! is no code here.

pub mod async_code;
pub mod behind_nat;
pub mod comparison;
pub mod event_loop;
pub mod from_tcp;
pub mod lanes_and_sizes;
pub mod operating;
pub mod protocol;
pub mod restart_and_recovery;
pub mod threat_model;
