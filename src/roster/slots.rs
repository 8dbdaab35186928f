//! The places of a pool, and what the roster is told of the connections in them.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::id::ConnId;
use crate::lane::MAX_SLOTS;

/// Some of the places of a pool.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Slots(u8);

impl Slots {
    /// A place that no pool has is not remembered.
    pub(crate) fn insert(&mut self, slot: u8) {
        if slot < MAX_SLOTS {
            self.0 |= 1 << slot;
        }
    }

    pub(crate) fn contains(self, slot: u8) -> bool {
        slot < MAX_SLOTS && self.0 & 1 << slot != 0
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn or(self, other: Slots) -> Slots {
        Slots(self.0 | other.0)
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = u8> {
        (0..MAX_SLOTS).filter(move |slot| self.contains(*slot))
    }
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// Why a connection that still serves gets a successor. The order is that in which they are served when
/// replacements are limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ReplaceReason {
    /// An answer is overdue on it.
    Suspect,
    /// It answers, but badly.
    Poor,
    /// The application asked for it ([`Node::replace`](crate::Node::replace)).
    Asked,
    /// The name by which it was dialled no longer stands for its address
    /// ([`Config::resolve_interval`](crate::Config::resolve_interval)).
    Moved,
    /// It reached [`PathConfig::max_age`](crate::PathConfig::max_age).
    Aged,
}

/// A connection that serves and needs a successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) conn: ConnId,
    /// The other side's address: the successor goes by another one, if there is one.
    pub(crate) addr: SocketAddr,
    pub(crate) reason: ReplaceReason,
    /// Where the peer accepts connections, as far as this connection tells: the address to which this node
    /// dialled it, or the port that the peer announced at the address that it came from.
    pub(crate) redial: Option<SocketAddr>,
}

/// The connections of a link that serve, place by place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LinkView {
    /// Places with a connection above suspicion.
    pub(crate) good: Slots,
    /// Where a connection needs a successor. One that has it already is not asked for again.
    pub(crate) troubled: [Option<Trouble>; MAX_SLOTS as usize],
    /// The other side's address.
    pub(crate) addr: Option<SocketAddr>,
}

impl LinkView {
    /// Whether anything serves at all.
    pub(crate) fn is_linked(&self) -> bool {
        !self.serving().is_empty()
    }

    pub(crate) fn serving(&self) -> Slots {
        (0..MAX_SLOTS).filter(|slot| self.trouble(*slot).is_some()).fold(self.good, |mut all, slot| {
            all.insert(slot);
            all
        })
    }

    /// The connection in this place that needs a successor and has none.
    pub(crate) fn trouble(&self, slot: u8) -> Option<Trouble> {
        self.troubled.get(usize::from(slot)).copied().flatten().filter(|_| !self.good.contains(slot))
    }

    pub(crate) fn set_trouble(&mut self, slot: u8, trouble: Trouble) {
        if let Some(place) = self.troubled.get_mut(usize::from(slot))
            && place.is_none_or(|old| trouble.reason < old.reason)
        {
            *place = Some(trouble);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_beyond_the_pool_is_nowhere() {
        let mut slots = Slots::default();
        [0, 2, 3, 7, 255].into_iter().for_each(|slot| slots.insert(slot));
        assert_eq!(slots.iter().collect::<Vec<_>>(), [0, 2]);
        assert!(!slots.contains(7) && !slots.contains(255));
    }

    #[test]
    fn a_successor_ends_the_trouble() {
        let trouble = Trouble {
            conn: ConnId(1),
            addr: ([127, 0, 0, 1], 1).into(),
            reason: ReplaceReason::Suspect,
            redial: None,
        };
        let mut view = LinkView::default();
        view.set_trouble(1, trouble);
        assert_eq!(view.trouble(1), Some(trouble));
        assert!(view.is_linked());
        view.good.insert(1);
        assert_eq!(view.trouble(1), None);
    }
}
