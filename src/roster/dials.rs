//! How many dials may be under way at once, and whose. Pure counting.
//!
//! Each dial takes a thread and a descriptor, and one to a peer that is absent keeps them for
//! `connect_timeout`. So there is a bound ([`Config::max_dials`](crate::Config::max_dials)), and each class
//! of entries has a part of it that it does not exceed:
//!
//! | class | at most | dialled |
//! |---|---|---|
//! | named, was linked before (in this life, or by its record) | 7/8 | first |
//! | named, was never linked | 3/4 | next |
//! | candidates, and strangers that are dialled back | 1/8 | last |
//!
//! So peers that were linked before have an eighth that no others can take, and they cannot take everything
//! either. A dial that has to wait for its turn has not failed, and costs no backoff. Within a class the one
//! goes first that waits longest, those that replace a connection that still serves behind the others.
//!
//! While more entries wait than there is room for, the first dial of an entry that was never linked is
//! *short* ([`SHORT`]). Otherwise one peer that is there would wait for `connect_timeout` of each round of
//! absent ones before it.

use super::target::Target;

/// A short dial has this part of `connect_timeout`: 1 s by default, more than a round trip takes.
pub(crate) const SHORT: u32 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum DialClass {
    Linked,
    New,
    Candidate,
}

impl DialClass {
    pub(super) fn of(target: &Target) -> Self {
        match (target.is_wanted(), target.memory.was_seen()) {
            (true, true) => DialClass::Linked,
            (true, false) => DialClass::New,
            (false, _) => DialClass::Candidate,
        }
    }

    pub(super) fn most(self, max: usize) -> usize {
        match self {
            DialClass::Linked => max - max / 8,
            DialClass::New => max - max / 4,
            DialClass::Candidate => max / 8,
        }
    }
}

/// The dials that are under way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DialCounts {
    by_class: [usize; 3],
}

impl DialCounts {
    /// `dial_backs`: how many are under way to peers that are no targets.
    pub(super) fn of(targets: &[Target], dial_backs: usize) -> Self {
        let mut counts = DialCounts::default();
        for target in targets {
            if let Some(count) = counts.by_class.get_mut(DialClass::of(target) as usize) {
                *count += target.dials();
            }
        }
        if let Some(count) = counts.by_class.get_mut(DialClass::Candidate as usize) {
            *count += dial_backs;
        }
        counts
    }

    /// How many more dials of this class may begin.
    pub(super) fn room(&self, class: DialClass, max: usize) -> usize {
        let own = self.by_class.get(class as usize).copied().unwrap_or(0);
        let all = self.by_class.iter().sum();
        class.most(max).saturating_sub(own).min(max.saturating_sub(all))
    }
}
