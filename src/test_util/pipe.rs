//! One direction of one flow: a queue with a delay, a pace, and an end.
//!
//! No blocking call and no thread in here: the sockets are non-blocking, time is an argument, and
//! what to wait for is an answer.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use super::faults::Link;

/// The largest read. Larger ones gain nothing on loopback.
const READ_MAX: usize = 64 * 1024;
/// The first read: most flows of a test carry a few short messages, and there may be thousands.
const READ_MIN: usize = 4 * 1024;
/// The largest read under a rate limit: the proxy must not be a queue of its own.
const PACED_READ_MAX: u64 = 16 * 1024;
/// Bytes under way at most in a link with delay.
const UNDER_WAY_MAX: usize = 4 * 1024 * 1024;
/// Counted for each chunk under way beside its bytes, so that tiny chunks are bounded too.
const CHUNK_COST: usize = 64;
/// A paced link makes up for a wake-up that came late by no more than this. Less would make the
/// rate too low on a busy machine; more would be a burst after a pause.
const CATCH_UP: Duration = Duration::from_millis(100);

/// The result of one step, and the next thing to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing can be done before what [`Pipe::wait`] says.
    Wait,
    /// Something was done; call again.
    Again,
    /// So many bytes were written; call again.
    Forwarded(usize),
    /// The sink has to be told that the source has finished.
    Fin,
    /// The sink has to be told that the source is gone.
    Reset,
    /// All bytes before the cut were written: reset both ends once they are acknowledged.
    Cut,
    /// The sink is gone, which is news for the other direction.
    SinkGone,
}

/// The event that a pipe waits for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wait {
    pub(super) readable: bool,
    pub(super) writable: bool,
    pub(super) until: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Open,
    /// A write to it failed. Bytes that came before are still there to be read; the end behind
    /// them is a reset, even if the kernel says end of file because the write took the error.
    Failing,
    /// It sent FIN.
    Finished,
    /// It is gone.
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Fin,
    Reset,
}

struct Chunk {
    arrived: Instant,
    data: Vec<u8>,
    /// The bytes of `data` that count: the rest is unused buffer.
    len: usize,
    sent: usize,
}

pub(super) struct Pipe {
    link: Link,
    queue: VecDeque<Chunk>,
    /// Sum over the queue, with `CHUNK_COST` for each.
    under_way: usize,
    /// The read buffer, when it is not in the queue.
    spare: Vec<u8>,
    pacer: Pacer,
    source: Source,
    /// The end behind the queue, and when it was known.
    end: Option<(Instant, End)>,
    /// Bytes that are read are dropped, because the sink was told that nothing more will come.
    discard: bool,
    sink_gone: bool,
    fin_sent: bool,
    /// Bytes still to forward before the cut.
    cut: Option<u64>,
    forwarded: u64,
    wait: Wait,
}

impl Pipe {
    pub(super) fn new(link: Link, cut: Option<u64>, now: Instant) -> Pipe {
        Pipe {
            link,
            queue: VecDeque::new(),
            under_way: 0,
            spare: Vec::new(),
            pacer: Pacer::new(now),
            source: Source::Open,
            end: None,
            discard: false,
            sink_gone: false,
            fin_sent: false,
            cut,
            forwarded: 0,
            wait: Wait::default(),
        }
    }

    /// The most useful thing that can be done now: deliver, else announce the end, else read.
    pub(super) fn step(&mut self, source: impl Read, sink: impl Write, now: Instant) -> Step {
        self.wait = Wait::default();
        if self.link.stall || self.sink_gone {
            return Step::Wait;
        }
        if self.cut == Some(0) && (self.forwarded > 0 || !self.queue.is_empty()) {
            return Step::Cut;
        }
        if let Some(step) = self.deliver(sink, now) {
            return step;
        }
        self.fetch(source, now)
    }

    /// The event to wait for, after a step that returned [`Step::Wait`].
    pub(super) fn wait(&self) -> Wait {
        self.wait
    }

    /// Takes a new setting; bytes under way take the new delay.
    pub(super) fn set_link(&mut self, link: Link, now: Instant) {
        if self.link != link {
            self.link = link;
            self.pacer = Pacer::new(now);
        }
    }

    /// Ends this direction with FIN behind the bytes under way, though the source has not.
    pub(super) fn finish(&mut self, now: Instant) {
        if self.end.is_none() && !self.fin_sent {
            self.end = Some((now, End::Fin));
        }
        self.discard = true;
    }

    /// From now on the sink is no more, and nobody shall notice.
    pub(super) fn swallow(&mut self) {
        self.queue.clear();
        self.under_way = 0;
        self.discard = true;
    }

    /// The source is gone, as seen elsewhere.
    pub(super) fn source_gone(&mut self, now: Instant) {
        match self.source {
            Source::Open => self.source = Source::Failing,
            Source::Finished => self.fail(now),
            Source::Failing | Source::Failed => {}
        }
    }

    /// The source has sent FIN and nothing worse.
    pub(super) fn source_finished(&self) -> bool {
        self.source == Source::Finished
    }

    /// The sink needs no more attention: it is gone, or it knows that nothing will come.
    pub(super) fn sink_done(&self) -> bool {
        self.sink_gone || self.fin_sent
    }

    /// Both ends have finished this direction.
    pub(super) fn complete(&self) -> bool {
        self.source_finished() && self.fin_sent
    }

    pub(super) fn sink_gone(&self) -> bool {
        self.sink_gone
    }

    fn fail(&mut self, now: Instant) {
        self.source = Source::Failed;
        self.end = Some((now, End::Reset));
    }

    /// `None`: nothing is due, so reading is the only thing left.
    fn deliver(&mut self, mut sink: impl Write, now: Instant) -> Option<Step> {
        let arrived = match (self.queue.front(), self.end) {
            (Some(chunk), _) => chunk.arrived,
            (None, Some((at, _))) => at,
            (None, None) => return None,
        };
        match arrived.checked_add(self.link.delay) {
            Some(due) if due <= now => {}
            due => {
                self.wait.until = due;
                return None;
            }
        }
        let Some(chunk) = self.queue.front_mut() else {
            let (_, end) = self.end.take()?;
            self.fin_sent |= end == End::Fin;
            return Some(match end {
                End::Fin => Step::Fin,
                End::Reset => Step::Reset,
            });
        };
        let mut bytes = chunk.data.get(chunk.sent..chunk.len).unwrap_or_default();
        if let Some(left) = self.cut {
            let left = usize::try_from(left).unwrap_or(usize::MAX);
            bytes = bytes.get(..left).unwrap_or(bytes);
        }
        match sink.write(bytes) {
            Ok(n) => {
                chunk.sent += n;
                self.forwarded += n as u64;
                self.cut = self.cut.map(|left| left.saturating_sub(n as u64));
                if chunk.sent == chunk.len {
                    self.recycle();
                }
                Some(Step::Forwarded(n))
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Some(Step::Again),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                // No reading either: what the sink does not take has to wait at the source.
                self.wait.writable = true;
                Some(Step::Wait)
            }
            Err(_) => {
                self.sink_gone = true;
                self.queue.clear();
                Some(Step::SinkGone)
            }
        }
    }

    fn recycle(&mut self) {
        if let Some(chunk) = self.queue.pop_front() {
            self.under_way -= chunk.len + CHUNK_COST;
            if self.spare.len() < chunk.data.len() {
                self.spare = chunk.data;
            }
        }
    }

    fn fetch(&mut self, mut source: impl Read, now: Instant) -> Step {
        let room =
            if self.link.delay.is_zero() { self.queue.is_empty() } else { self.under_way < UNDER_WAY_MAX };
        if !room || matches!(self.source, Source::Finished | Source::Failed) {
            return Step::Wait;
        }
        let most = match self.pacer.allowance(&self.link, now) {
            Ok(most) => most,
            Err(until) => {
                self.wait.until = earlier(self.wait.until, until);
                return Step::Wait;
            }
        };
        if self.spare.is_empty() {
            self.spare = vec![0; READ_MIN];
        }
        let size = most.min(self.spare.len());
        match source.read(self.spare.get_mut(..size).unwrap_or_default()) {
            Ok(0) if self.source == Source::Failing => self.fail(now),
            Ok(0) => {
                self.source = Source::Finished;
                if !self.fin_sent && self.end.is_none() {
                    self.end = Some((now, End::Fin));
                }
            }
            Ok(n) => {
                self.pacer.charge(&self.link, n, now);
                if !self.discard {
                    self.push(n, now);
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.pacer.idle = true;
                self.wait.readable = true;
                return Step::Wait;
            }
            Err(_) => self.fail(now),
        }
        Step::Again
    }

    /// Queues the first `len` bytes of the read buffer.
    fn push(&mut self, len: usize, now: Instant) {
        let full = len == self.spare.len() && len < READ_MAX;
        let data = if self.link.delay.is_zero() {
            // It comes back before the next read.
            std::mem::take(&mut self.spare)
        } else {
            self.spare.get(..len).unwrap_or_default().to_vec()
        };
        if full {
            self.spare = vec![0; (2 * len).min(READ_MAX)];
        }
        self.under_way += len + CHUNK_COST;
        self.queue.push_back(Chunk { arrived: now, data, len, sent: 0 });
    }
}

/// Holds a link to its rate, in small portions.
struct Pacer {
    /// When the portions taken so far have passed the link.
    free_at: Instant,
    /// There was nothing to read at the last try: the time until there is earns no credit.
    idle: bool,
}

impl Pacer {
    fn new(now: Instant) -> Pacer {
        Pacer { free_at: now, idle: true }
    }

    /// How much may be read now, or else when (`None`: never) to ask again.
    fn allowance(&self, link: &Link, now: Instant) -> Result<usize, Option<Instant>> {
        let most = match (link.trickle, link.rate) {
            (Some(_), _) => 1,
            (None, Some(0)) => return Err(None),
            (None, Some(rate)) => (rate / 1000).clamp(1, PACED_READ_MAX) as usize,
            (None, None) => return Ok(READ_MAX),
        };
        if self.free_at <= now { Ok(most) } else { Err(Some(self.free_at)) }
    }

    fn charge(&mut self, link: &Link, n: usize, now: Instant) {
        let (cost, catch_up) = match (link.trickle, link.rate) {
            (Some(interval), _) => (interval, Duration::ZERO),
            (None, Some(rate)) if rate > 0 => {
                let cost = Duration::from_secs_f64(n as f64 / rate as f64);
                (cost, if self.idle { Duration::ZERO } else { CATCH_UP })
            }
            _ => return,
        };
        let from = now.checked_sub(catch_up).unwrap_or(now).max(self.free_at);
        // An interval beyond the end of time: a day is as good as for ever.
        let day = Duration::from_secs(86_400);
        self.free_at = from.checked_add(cost).unwrap_or(from + day);
        self.idle = false;
    }
}

/// The earlier of two moments, where `None` is never.
pub(super) fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    a.into_iter().chain(b).min()
}
