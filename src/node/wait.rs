//! Waiting for links, without taking anything from those who receive.

use std::fmt;
use std::time::Duration;

use crate::clock;
use crate::error::EndReason;
use crate::id::PeerId;

use super::Node;
use super::link::LinkState;

/// Links that were waited for did not come up ([`Node::wait_linked`], [`Node::wait_for_links`]).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitError {
    /// The time was over.
    Timeout {
        /// How many links were up by then.
        linked: usize,
        /// How many were waited for.
        wanted: usize,
        /// The last dial error of each address in question whose link is not up. Empty if none has failed
        /// yet, or if this node has no address to dial.
        failed: Vec<FailedDial>,
    },
    /// The node shuts down.
    Closed,
}

/// Why an address could not be reached the last time that it was dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailedDial {
    /// The address as it was configured.
    pub address: String,
    /// Why.
    pub reason: EndReason,
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitError::Timeout { linked, wanted, failed } => {
                write!(f, "{linked} of {wanted} links came up in time")?;
                if failed.is_empty() {
                    f.write_str("; no dial has failed")?;
                }
                let mut separator = "; ";
                for failure in failed {
                    write!(f, "{separator}{failure}")?;
                    separator = ", ";
                }
                Ok(())
            }
            WaitError::Closed => f.write_str("the node is shutting down"),
        }
    }
}

impl std::error::Error for WaitError {}

impl fmt::Display for FailedDial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.address, self.reason)
    }
}

impl Node {
    /// Waits until the link to `peer` is up ([`LinkState::Up`]), at most for `timeout`. Takes no event and no
    /// message: they wait for [`Node::recv`] and the receivers as if nobody had waited here.
    ///
    /// # Errors
    /// [`WaitError::Timeout`] with the last dial error of each address of this peer, or
    /// [`WaitError::Closed`].
    pub fn wait_linked(&self, peer: PeerId, timeout: Duration) -> Result<(), WaitError> {
        self.wait_for(1, timeout, |other| other == peer).map(drop)
    }

    /// Waits until at least `count` links are up, whoever dialled, at most for `timeout`, and returns their
    /// peers. Takes no event and no message, as [`Node::wait_linked`].
    ///
    /// # Errors
    /// [`WaitError::Timeout`] with the last dial error of each address whose link is not up, or
    /// [`WaitError::Closed`].
    pub fn wait_for_links(&self, count: usize, timeout: Duration) -> Result<Vec<PeerId>, WaitError> {
        self.wait_for(count, timeout, |_| true)
    }

    fn wait_for(
        &self,
        wanted: usize,
        timeout: Duration,
        counts: impl Fn(PeerId) -> bool,
    ) -> Result<Vec<PeerId>, WaitError> {
        let core = &self.handle.core;
        let linked = || -> Vec<PeerId> {
            let is_up =
                |link: &super::link::LinkHandle| link.inspect(|core| core.life.announced) == LinkState::Up;
            let links = core.links();
            let up = links.iter().filter(|link| counts(link.peer) && is_up(link));
            up.map(|link| link.peer).collect()
        };
        core.shared.wait_until(clock::after(timeout), || core.is_closing() || linked().len() >= wanted);
        let linked = linked();
        if core.is_closing() {
            return Err(WaitError::Closed);
        }
        if linked.len() >= wanted {
            return Ok(linked);
        }
        let targets = core.roster.lock().stats(clock::now());
        let failed = targets.into_iter().filter_map(|target| match target.peer {
            Some(peer) if !counts(peer) || linked.contains(&peer) => None,
            // The peer that answers there is not known: it may be the one in question.
            _ => Some(FailedDial { address: target.config.address, reason: target.last_error? }),
        });
        Err(WaitError::Timeout { linked: linked.len(), wanted, failed: failed.collect() })
    }
}
