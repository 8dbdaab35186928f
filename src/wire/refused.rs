//! Why a connection is refused once both sides have proved who they are.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::body::{Cursor, Value};
use super::header::WireError;

/// Why a side refused a connection, as it told the other one.
///
/// Reasons up to 127 last until somebody changes something; those from 128 on pass by themselves. So a reason
/// that this version does not know still says what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RefusedReason {
    /// The refusing side does not say why.
    Unspecified,
    /// The identity or the address is denied, or is not among those allowed.
    Denied,
    /// The application refused it.
    Application,
    /// The identity or the address is banned.
    Banned,
    /// Another process with the same identity is connected and alive.
    IdentityInUse,
    /// It belongs to another network, or speaks no common version or mode of the protocol, or its PROXY
    /// header is wrong, missing or not expected
    /// ([`Config::proxy_protocol_from`](crate::Config::proxy_protocol_from)).
    Incompatible,
    /// The node is full.
    Full,
    /// Too many connections come from its address.
    Address,
    /// Too many connections come from its subnet.
    Subnet,
    /// It has too many connections itself.
    Peer,
    /// Its address opens connections too often.
    TooOften,
    /// Too many handshakes are under way.
    Handshakes,
    /// The session changed during the handshake; the next attempt will agree.
    Retry,
    /// The node is shutting down.
    Shutdown,
    /// A reason of a later version, by its number on the wire.
    Other(u8),
}

use RefusedReason::{
    Address, Application, Banned, Denied, Full, Handshakes, IdentityInUse, Incompatible, Other, Peer, Retry,
    Shutdown, Subnet, TooOften, Unspecified,
};

impl RefusedReason {
    pub(crate) const KNOWN: [RefusedReason; 14] = [
        Unspecified,
        Denied,
        Application,
        Banned,
        IdentityInUse,
        Incompatible,
        Full,
        Address,
        Subnet,
        Peer,
        TooOften,
        Handshakes,
        Retry,
        Shutdown,
    ];

    fn code(self) -> u8 {
        match self {
            Unspecified => 0,
            Denied => 1,
            Application => 2,
            Banned => 3,
            IdentityInUse => 4,
            Incompatible => 5,
            Full => 128,
            Address => 129,
            Subnet => 130,
            Peer => 131,
            TooOften => 132,
            Handshakes => 133,
            Retry => 134,
            Shutdown => 135,
            Other(code) => code,
        }
    }

    fn from_code(code: u8) -> Self {
        RefusedReason::KNOWN.into_iter().find(|reason| reason.code() == code).unwrap_or(Other(code))
    }

    /// Whether it passes by itself. Otherwise another attempt is in vain until somebody changes something.
    pub fn is_temporary(self) -> bool {
        self.code() >= 128
    }
}

impl fmt::Display for RefusedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unspecified => "no reason given",
            Denied => "not on the list, or denied",
            Application => "the application refused it",
            Banned => "banned",
            IdentityInUse => "another process uses this identity",
            Incompatible => "another network, or no common version or mode",
            Full => "no room",
            Address => "too many connections from this address",
            Subnet => "too many connections from this subnet",
            Peer => "too many connections of this peer",
            TooOften => "this address connects too often",
            Handshakes => "too many handshakes are under way",
            Retry => "the session changed during the handshake",
            Shutdown => "the node is shutting down",
            Other(code) => return write!(f, "reason {code}, which this version does not know"),
        })
    }
}

impl Value for RefusedReason {
    fn put(&self, out: &mut Vec<u8>) {
        Value::put(&self.code(), out);
    }

    fn take(from: &mut Cursor<'_>) -> Result<Self, WireError> {
        <u8 as Value>::take(from).map(RefusedReason::from_code)
    }
}
