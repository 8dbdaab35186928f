//! [`ErrorKind`] in files: by its name in the standard library, as in `"ConnectionRefused"`.

use std::io::ErrorKind;

use serde::{Deserialize, Deserializer, Serializer};

/// The kinds that a socket, a name or a thread can fail with and that have a stable name.
const KINDS: [ErrorKind; 30] = [
    ErrorKind::AddrInUse,
    ErrorKind::AddrNotAvailable,
    ErrorKind::AlreadyExists,
    ErrorKind::ArgumentListTooLong,
    ErrorKind::BrokenPipe,
    ErrorKind::ConnectionAborted,
    ErrorKind::ConnectionRefused,
    ErrorKind::ConnectionReset,
    ErrorKind::Deadlock,
    ErrorKind::HostUnreachable,
    ErrorKind::Interrupted,
    ErrorKind::InvalidData,
    ErrorKind::InvalidInput,
    ErrorKind::NetworkDown,
    ErrorKind::NetworkUnreachable,
    ErrorKind::NotConnected,
    ErrorKind::NotFound,
    ErrorKind::NotSeekable,
    ErrorKind::Other,
    ErrorKind::OutOfMemory,
    ErrorKind::PermissionDenied,
    ErrorKind::QuotaExceeded,
    ErrorKind::ReadOnlyFilesystem,
    ErrorKind::ResourceBusy,
    ErrorKind::StorageFull,
    ErrorKind::TimedOut,
    ErrorKind::UnexpectedEof,
    ErrorKind::Unsupported,
    ErrorKind::WouldBlock,
    ErrorKind::WriteZero,
];

/// The kind, or `Other` if it has no stable name.
pub(super) fn stable(kind: ErrorKind) -> ErrorKind {
    if KINDS.contains(&kind) { kind } else { ErrorKind::Other }
}

pub(super) fn serialize<S: Serializer>(kind: &ErrorKind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{:?}", stable(*kind)))
}

/// A name that this version does not know is read as `Other`.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ErrorKind, D::Error> {
    let name = String::deserialize(deserializer)?;
    let kind = KINDS.into_iter().find(|kind| format!("{kind:?}") == name);
    Ok(kind.unwrap_or(ErrorKind::Other))
}
