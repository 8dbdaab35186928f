//! A run over time, for the report: delays of votes, connections, scores and round trips. Its memory is
//! bounded, however long the run is: where there would be too many samples, they are merged by time.

use std::collections::{BTreeMap, HashMap};

use unbroken::ReplaceReason;

use crate::wire::{LinkFigures, LinkNews, News};

/// Samples of a kind at most.
const MOST_BUCKETS: usize = 2048;
/// Connections at most that are remembered of one link.
const MOST_CONNS: usize = 1000;
/// The least time of one sample.
const VOTES_US: u64 = 100_000;
const STATES_US: u64 = 250_000;

/// One sample.
pub(crate) trait Bucket: Default {
    fn merge(&mut self, other: &Self);
}

/// Samples of equal length, one after the other. Their length doubles whenever there are too many.
#[derive(Clone, Debug)]
pub(crate) struct Timeline<B> {
    start_us: u64,
    width_us: u64,
    buckets: Vec<B>,
}

impl<B: Bucket> Timeline<B> {
    pub(crate) fn new(start_us: u64, width_us: u64) -> Self {
        Timeline { start_us, width_us, buckets: Vec::new() }
    }

    /// Changes the sample of that time.
    pub(crate) fn update(&mut self, at_us: u64, change: impl FnMut(&mut B)) {
        let since = at_us.saturating_sub(self.start_us);
        while since / self.width_us >= MOST_BUCKETS as u64 {
            self.width_us *= 2;
            self.buckets = merged(&self.buckets, 2);
        }
        let index = (since / self.width_us) as usize;
        if self.buckets.len() <= index {
            self.buckets.resize_with(index + 1, B::default);
        }
        self.buckets.get_mut(index).into_iter().for_each(change);
    }

    /// At most so many samples, and the length of each.
    pub(crate) fn at_most(&self, most: usize) -> (u64, Vec<B>) {
        let together = self.buckets.len().div_ceil(most.max(1)).max(1);
        (self.width_us * together as u64, merged(&self.buckets, together))
    }

    /// The samples that began in this time, merged.
    pub(crate) fn between(&self, from_us: u64, to_us: u64) -> B {
        let mut sum = B::default();
        let starts = (0..).map(|index| self.start_us + self.width_us * index);
        let inside = starts.zip(&self.buckets).filter(|(start, _)| (from_us..to_us).contains(start));
        inside.for_each(|(_, bucket)| sum.merge(bucket));
        sum
    }

    pub(crate) fn start_us(&self) -> u64 {
        self.start_us
    }
}

fn merged<B: Bucket>(buckets: &[B], together: usize) -> Vec<B> {
    let merge = |buckets: &[B]| {
        let mut sum = B::default();
        buckets.iter().for_each(|bucket| sum.merge(bucket));
        sum
    };
    buckets.chunks(together).map(merge).collect()
}

/// Delays of votes: a histogram with bins an eighth of a power of two wide.
#[derive(Clone, Debug, Default)]
pub(crate) struct Delays {
    pub(crate) count: u64,
    pub(crate) max_us: u64,
    bins: Vec<u32>,
}

/// Delays below this, in microseconds, share a bin.
const SHORTEST: u64 = 8;

impl Delays {
    pub(crate) fn add(&mut self, delay_us: u64) {
        let delay_us = delay_us.max(SHORTEST);
        let octave = delay_us.ilog2();
        let bin = (u64::from(octave - 3) * 8 + ((delay_us >> (octave - 3)) & 7)) as usize;
        if self.bins.len() <= bin {
            self.bins.resize(bin + 1, 0);
        }
        self.bins.get_mut(bin).into_iter().for_each(|count| *count += 1);
        self.count += 1;
        self.max_us = self.max_us.max(delay_us);
    }

    /// The delay in milliseconds that this part of the votes did not exceed; a bin's width too much at most.
    pub(crate) fn quantile_ms(&self, part: f64) -> Option<f64> {
        let rank = (self.count as f64 * part).ceil().max(1.0) as u64;
        let mut below = 0;
        let reaches = |count: &u32| {
            below += u64::from(*count);
            below >= rank
        };
        let bin = self.bins.iter().position(reaches)?;
        let upper_us = 2f64.powi((bin / 8) as i32) * (8 + bin % 8 + 1) as f64;
        Some(upper_us.min(self.max_us as f64) / 1e3)
    }
}

impl Bucket for Delays {
    fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.max_us = self.max_us.max(other.max_us);
        if self.bins.len() < other.bins.len() {
            self.bins.resize(other.bins.len(), 0);
        }
        self.bins.iter_mut().zip(&other.bins).for_each(|(sum, count)| *sum += count);
    }
}

/// The worst state of a link that either end reported; `None` if none did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct State {
    pub(crate) score: Option<f64>,
    pub(crate) rtt_ms: Option<f64>,
}

impl Bucket for State {
    fn merge(&mut self, other: &Self) {
        self.score = self.score.into_iter().chain(other.score).reduce(f64::min);
        self.rtt_ms = self.rtt_ms.into_iter().chain(other.rtt_ms).reduce(f64::max);
    }
}

/// The end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// A successor relieved it because an answer was overdue.
    Suspect,
    /// A successor relieved it because its score was low.
    Poor,
    /// A successor relieved it because the application asked, or because of its age.
    Planned,
    /// It broke, was given up or its node was killed.
    Lost,
    /// Both ends had dialled at once, and the other one stayed.
    Superfluous,
}

/// A connection, as the end that dialled it tells.
#[derive(Clone, Debug)]
pub(crate) struct Conn {
    pub(crate) dialled_by: usize,
    /// Its place in the pool.
    pub(crate) slot: u8,
    /// `None`: past the proxies.
    pub(crate) path: Option<usize>,
    pub(crate) from_us: u64,
    /// `None`: it served until the end of the run.
    pub(crate) end: Option<(u64, End)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) conns: Vec<Conn>,
    /// Connections that were too many to be remembered.
    pub(crate) left_out: u64,
    pub(crate) states: Timeline<State>,
}

#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) start_us: u64,
    pub(crate) votes: Timeline<Delays>,
    /// By both ends, the lower one first.
    pub(crate) links: BTreeMap<(usize, usize), Link>,
    /// Where the connections are that still serve: by the node that dialled, and their number there.
    open: HashMap<(usize, u64), ((usize, usize), usize)>,
    /// The reason that a node gave last for a replacement: by the node, its peer and the place.
    reasons: HashMap<(usize, usize, u8), ReplaceReason>,
}

fn link_of(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

impl Record {
    pub(crate) fn new(nodes: usize, start_us: u64) -> Record {
        let pairs = (0..nodes).flat_map(|b| (0..b).map(move |a| (a, b)));
        let link = || Link { conns: Vec::new(), left_out: 0, states: Timeline::new(start_us, STATES_US) };
        Record {
            start_us,
            votes: Timeline::new(start_us, VOTES_US),
            links: pairs.map(|pair| (pair, link())).collect(),
            open: HashMap::new(),
            reasons: HashMap::new(),
        }
    }

    pub(crate) fn vote(&mut self, sent_us: u64, delay_us: u64) {
        self.votes.update(sent_us, |delays| delays.add(delay_us));
    }

    pub(crate) fn state(&mut self, node: usize, at_us: u64, figures: &LinkFigures) {
        let Some(link) = self.links.get_mut(&link_of(node, figures.peer)) else { return };
        // Where no connection serves there is no score.
        let score = (figures.up > 0).then_some(figures.score);
        let state = State { score, rtt_ms: figures.rtt_ms };
        link.states.update(at_us, |worst| worst.merge(&state));
    }

    pub(crate) fn news(&mut self, node: usize, news: &LinkNews) {
        if let (News::Replacing, Some(slot), Some(reason)) = (news.news, news.slot, news.reason) {
            self.reasons.insert((node, news.peer, slot), reason);
        }
        let Some(conn) = news.conn else { return };
        match news.news {
            News::Connected if news.dialled => self.connected(node, conn, news),
            News::Replaced => self.ended(node, conn, news.at_us, |record, slot| {
                // The end that did not begin it does not know the reason: the other one told it.
                let told = || record.reasons.get(&(news.peer, node, slot)).copied();
                match news.reason.or_else(told) {
                    Some(ReplaceReason::Suspect) => End::Suspect,
                    Some(ReplaceReason::Poor) => End::Poor,
                    _ => End::Planned,
                }
            }),
            News::Disconnected => self.ended(node, conn, news.at_us, |_, _| match news.superfluous {
                true => End::Superfluous,
                false => End::Lost,
            }),
            _ => {}
        }
    }

    fn connected(&mut self, node: usize, conn: u64, news: &LinkNews) {
        let pair = link_of(node, news.peer);
        let Some(link) = self.links.get_mut(&pair) else { return };
        if link.conns.len() >= MOST_CONNS {
            link.left_out += 1;
            return;
        }
        self.open.insert((node, conn), (pair, link.conns.len()));
        link.conns.push(Conn {
            dialled_by: node,
            slot: news.slot.unwrap_or_default(),
            path: news.path,
            from_us: news.at_us,
            end: None,
        });
    }

    /// Once relieved, it does not end a second time when it has been drained.
    fn ended(&mut self, node: usize, conn: u64, at_us: u64, why: impl FnOnce(&Record, u8) -> End) {
        let Some((pair, index)) = self.open.remove(&(node, conn)) else { return };
        let slot = self.conn(pair, index).map_or(0, |conn| conn.slot);
        let why = why(self, slot);
        self.conn(pair, index).into_iter().for_each(|conn| conn.end = Some((at_us, why)));
    }

    fn conn(&mut self, pair: (usize, usize), index: usize) -> Option<&mut Conn> {
        self.links.get_mut(&pair)?.conns.get_mut(index)
    }

    /// A killed node cannot say any more that its connections are gone.
    pub(crate) fn killed(&mut self, node: usize, at_us: u64) {
        let its: Vec<_> = self.open.keys().filter(|(of, _)| *of == node).copied().collect();
        for (node, conn) in its {
            self.ended(node, conn, at_us, |_, _| End::Lost);
        }
    }
}
