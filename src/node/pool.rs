//! The pool of a link as the roster sees it, and which of its connections are to be replaced.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock;
use crate::conn::ConnHandle;
use crate::error::ReplaceError;
use crate::id::PeerId;
use crate::link::conns::Conn;
use crate::roster::{LinkView, ReplaceReason, Trouble, aged_at};

use super::inner::NodeInner;
use super::link::{self, Life, LinkHandle};

/// A suspect connection whose successor would wait in the same queue is looked at again after this time.
const QUEUED_OUT_AGAIN: Duration = Duration::from_millis(100);

type Joined = Conn<Arc<ConnHandle>>;

/// The feedback to the roster about a link.
#[derive(Debug, Default)]
pub(crate) struct LinkFeedback {
    /// If it has changed.
    view: Option<LinkView>,
    /// Places with a connection that was proven since.
    proofs: Vec<u8>,
    /// When the view may have changed though nothing happened.
    pub(crate) next: Option<Instant>,
}

/// Returns what is new on a link. It counts as told.
pub(crate) fn feedback(state: &mut link::LinkInner, now: Instant) -> LinkFeedback {
    let (view, next) = view(state, now);
    let (conns, life) = (state.link.conns(), &mut state.life);
    let new = |conn: &&Joined| conn.proven && !life.proofs.contains(&conn.id);
    let new: Vec<_> = conns.iter().filter(new).map(|conn| (conn.id, conn.slot)).collect();
    life.proofs.extend(new.iter().map(|(id, _)| *id));
    let changed = life.announced_to_roster.replace(view) != Some(view);
    let proofs = new.into_iter().map(|(_, slot)| slot).collect();
    LinkFeedback { view: changed.then_some(view), proofs, next }
}

pub(crate) fn notify_roster(core: &NodeInner, peer: PeerId, feedback: LinkFeedback, now: Instant) {
    let mut roster = core.roster.lock();
    feedback.proofs.into_iter().for_each(|slot| roster.handle_proven(peer, slot, now));
    feedback.view.into_iter().for_each(|view| roster.handle_link(peer, view, now));
}

fn view(state: &link::LinkInner, now: Instant) -> (LinkView, Option<Instant>) {
    let (mut view, mut next) = (LinkView::default(), None);
    for conn in state.link.conns().iter().filter(|conn| conn.is_serving()) {
        let addr = conn.handle.addr();
        view.addr = view.addr.or(Some(addr));
        let reason = why_replaced(conn, &state.life);
        let waits = reason == Some(ReplaceReason::Suspect) && state.link.is_queued_out(conn.id, now);
        next = next.or(waits.then(|| now + QUEUED_OUT_AGAIN));
        match reason.filter(|_| !waits) {
            None => view.good.insert(conn.slot),
            Some(reason) => {
                let redial = redial(conn, addr);
                view.set_trouble(conn.slot, Trouble { conn: conn.id, addr, reason, redial });
            }
        }
    }
    (view, next)
}

/// Where the peer accepts connections, as this connection tells. An announced port counts only at the address
/// from which it has answered: its word makes this node dial nobody else.
fn redial(conn: &Joined, addr: SocketAddr) -> Option<SocketAddr> {
    if conn.dialled {
        return Some(addr);
    }
    let port = conn.peer_port.filter(|_| conn.proven)?;
    let mut announced = addr;
    announced.set_port(port.get());
    Some(announced)
}

/// Why a connection that serves needs a successor, if it does.
fn why_replaced(conn: &Joined, life: &Life) -> Option<ReplaceReason> {
    if !conn.is_up() {
        return Some(ReplaceReason::Suspect);
    }
    let retiring = life.retiring.iter().find(|(id, _)| *id == conn.id).map(|(_, reason)| *reason);
    conn.poor.then_some(ReplaceReason::Poor).or(retiring)
}

/// Sees to the successors of connections that this node dialled and that are old. Returns when the next one
/// is.
pub(crate) fn retire_aged(link: &LinkHandle, seed: u64, now: Instant) -> Option<Instant> {
    let (aged, next) = link.inspect(|core| {
        let max_age = core.path.max_age?;
        let young = |id| core.life.retiring.iter().all(|(retiring, _)| *retiring != id);
        let dialled = core.link.handles().filter(|conn| conn.dialled && young(conn.id));
        let due = dialled.map(|conn| (conn.id, aged_at(conn.opened, max_age, conn.id, seed)));
        let (aged, later): (Vec<_>, Vec<_>) = due.partition(|(_, at)| *at <= now);
        Some((aged, later.into_iter().map(|(_, at)| at).min()))
    })?;
    aged.into_iter().for_each(|(conn, _)| link.retire(conn, ReplaceReason::Aged));
    next
}

impl NodeInner {
    /// Every connection of this link is to send a ping. Returns how many those are.
    pub(crate) fn ping(&self, peer: PeerId) -> usize {
        let Some(link) = self.link(peer) else { return 0 };
        let asked = link.update(|core| core.link.ping(clock::now()));
        link.look_now();
        asked
    }

    /// Every connection of this link is to be replaced. Returns how many those are.
    pub(crate) fn replace(&self, peer: PeerId) -> Result<usize, ReplaceError> {
        let link = self.link(peer).ok_or(ReplaceError::NotConnected)?;
        let serving = |core: &link::LinkInner| {
            let serving = core.link.conns().iter().filter(|conn| conn.is_serving());
            serving.map(|conn| conn.id).collect::<Vec<_>>()
        };
        let serving = link.inspect(serving);
        if serving.is_empty() {
            return Err(ReplaceError::NotConnected);
        }
        if !self.roster.lock().may_dial(peer) {
            return Err(ReplaceError::NoAddress);
        }
        serving.iter().for_each(|conn| link.retire(*conn, ReplaceReason::Asked));
        link.look_now();
        Ok(serving.len())
    }
}
