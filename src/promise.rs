//! A value that is set once and waited for: the reply to a request.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Condvar;

use crate::lock::{Guard, LEAF, Ordered};

/// The waiting end of a value that is set once.
#[derive(Debug)]
pub(crate) struct Promise<V> {
    state: Ordered<State<V>, LEAF>,
    set: Condvar,
}

#[derive(Debug)]
enum State<V> {
    /// With the channel of [`Promise::ready`], once it was asked for.
    Pending(Option<(Sender<()>, Receiver<()>)>),
    Set(Option<V>),
}

impl<V> Promise<V> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Promise { state: Ordered::new(State::Pending(None)), set: Condvar::new() })
    }

    /// Sets the value and wakes everybody. Only the first call counts.
    pub(crate) fn set(&self, value: V) {
        let mut state = self.state.lock();
        if let State::Pending(ready) = &mut *state {
            let ready = ready.take();
            *state = State::Set(Some(value));
            drop(state);
            self.set.notify_all();
            if let Some((sender, _)) = ready {
                let _ = sender.try_send(());
            }
        }
    }

    /// Waits until the value is set, and looks at it.
    pub(crate) fn wait<A>(
        &self,
        deadline: Option<Instant>,
        look: impl FnOnce(&mut Option<V>) -> A,
    ) -> Option<A> {
        let mut state = self.state.lock();
        loop {
            if let State::Set(value) = &mut *state {
                return Some(look(value));
            }
            match deadline {
                Some(deadline) if !Guard::wait_until(&mut state, &self.set, deadline) => {
                    return match &mut *state {
                        State::Set(value) => Some(look(value)),
                        State::Pending(_) => None,
                    };
                }
                Some(_) => {}
                None => Guard::wait(&mut state, &self.set),
            }
        }
    }

    pub(crate) fn poll<A>(&self, look: impl FnOnce(&mut Option<V>) -> A) -> Option<A> {
        match &mut *self.state.lock() {
            State::Set(value) => Some(look(value)),
            State::Pending(_) => None,
        }
    }

    /// A channel for `select!`, the same for all who ask before the value is set: then it gets one token and
    /// is disconnected, and both make a `select!` ready.
    pub(crate) fn ready(&self) -> Receiver<()> {
        match &mut *self.state.lock() {
            State::Pending(ready) => ready.get_or_insert_with(|| bounded(1)).1.clone(),
            State::Set(_) => {
                let (sender, receiver) = bounded(1);
                let _ = sender.try_send(());
                receiver
            }
        }
    }
}
