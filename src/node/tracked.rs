//! The roster, and whether it may have something to do.

use std::ops::{Deref, DerefMut};
use std::time::Instant;

use crate::lock::{Guard, Ordered, ROSTER};

/// Protects a value that is polled, and remembers whether it was changed since. Looking for what is due costs
/// time for each target of the roster, and most wake-ups of the monitor concern a link alone.
pub(crate) struct Tracked<T> {
    state: Ordered<State<T>, ROSTER>,
}

struct State<T> {
    value: T,
    changed: bool,
    /// It has something to do by then, though nobody changes it.
    next: Option<Instant>,
}

/// The lock is held.
pub(crate) struct TrackedGuard<'a, T>(Guard<'a, State<T>, ROSTER>);

impl<T> Tracked<T> {
    pub(crate) fn new(value: T) -> Self {
        Tracked { state: Ordered::new(State { value, changed: true, next: None }) }
    }

    pub(crate) fn lock(&self) -> TrackedGuard<'_, T> {
        TrackedGuard(self.state.lock())
    }

    /// Polls the value if it was changed or if its time has come. `poll` returns an action and, if there is
    /// none, when there may be one. Returns the action, and that time.
    pub(crate) fn poll<A>(
        &self,
        now: Instant,
        poll: impl FnOnce(&mut T) -> Result<A, Option<Instant>>,
    ) -> Result<A, Option<Instant>> {
        let mut state = self.state.lock();
        if !state.changed && state.next.is_none_or(|next| next > now) {
            return Err(state.next);
        }
        let polled = poll(&mut state.value);
        if let Err(next) = polled {
            (state.changed, state.next) = (false, next);
        }
        polled
    }
}

impl<T> Deref for TrackedGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T> DerefMut for TrackedGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.changed = true;
        &mut self.0.value
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;

    #[test]
    fn it_is_polled_after_a_change_and_when_its_time_has_come() {
        let tracked = Tracked::new(1);
        let now = clock::now();
        let later = now + Duration::from_secs(1);
        let nothing = |_: &mut i32| Err::<i32, _>(Some(later));
        let unpolled = |_: &mut i32| -> Result<i32, Option<Instant>> { unreachable!("nothing is due") };
        assert_eq!(tracked.poll(now, |value| Ok::<_, Option<Instant>>(*value)), Ok(1));
        assert_eq!(tracked.poll(now, nothing), Err(Some(later)), "an action is followed by another look");
        assert_eq!(tracked.poll(now, unpolled), Err(Some(later)));
        assert_eq!(*tracked.lock(), 1);
        assert_eq!(tracked.poll(now, unpolled), Err(Some(later)), "it was only read");
        assert_eq!(tracked.poll(later, |value| Ok::<_, Option<Instant>>(*value)), Ok(1));
        assert_eq!(tracked.poll(now, nothing), Err(Some(later)));
        *tracked.lock() = 2;
        assert_eq!(tracked.poll(now, |value| Ok::<_, Option<Instant>>(*value)), Ok(2));
    }
}
