use std::fmt;
use std::io;
use std::net::SocketAddr;

use crate::config::ConfigError;
use crate::identity_file::IdentityError;

/// A node could not be started.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// A setting cannot be right.
    Config(ConfigError),
    /// The file with the identity ([`Builder::identity_file`](crate::Builder::identity_file)) is of no use.
    Identity(IdentityError),
    /// An address could not be listened on.
    Listen(SocketAddr, io::Error),
    /// The system gave no random numbers, or no thread.
    System(&'static str, io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Config(error) => write!(f, "{error}"),
            StartError::Identity(error) => write!(f, "{error}"),
            StartError::Listen(addr, error) => write!(f, "cannot listen on {addr}: {error}"),
            StartError::System(what, error) => write!(f, "cannot {what}: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl From<ConfigError> for StartError {
    fn from(error: ConfigError) -> Self {
        StartError::Config(error)
    }
}

impl From<IdentityError> for StartError {
    fn from(error: IdentityError) -> Self {
        StartError::Identity(error)
    }
}
