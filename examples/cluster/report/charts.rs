//! The charts: delays of votes, connections, and the state of each link.

use std::fmt::Write as _;

use crate::cluster::Row;
use crate::record::{Conn, Delays, End, Link, Record, State};
use crate::report::svg::{Drawing, Scale, decades, duration, line_through, spread, ticks};
use crate::table::{Line, Verdict};

/// The width of the large charts, and where they begin and end: they have the same time axis.
const WIDTH: f64 = 1200.0;
const PLOT: (f64, f64) = (64.0, 1116.0);
/// The slanted names of faults above a chart: their angle, the distance that they need, and the width of a
/// letter at most.
const SLANT: i32 = 50;
const NAME_GAP: f64 = 17.0;
const LETTER: f64 = 7.0;
/// Samples at most in a large chart and in a small one.
const SAMPLES: usize = 530;
const FEW_SAMPLES: usize = 230;
/// Links at most that are shown.
pub(crate) const LINKS: usize = 28;

/// A run's time axis.
#[derive(Clone, Copy)]
pub(crate) struct Time {
    pub(crate) start_us: u64,
    pub(crate) end_us: u64,
}

impl Time {
    pub(crate) fn seconds(self) -> f64 {
        self.since(self.end_us)
    }

    pub(crate) fn since(self, at_us: u64) -> f64 {
        at_us.saturating_sub(self.start_us) as f64 / 1e6
    }

    fn scale(self, places: (f64, f64)) -> Scale {
        Scale::linear((0.0, self.seconds()), places)
    }
}

/// When the fault of a row was there. `None` if it never began.
pub(crate) fn fault_time(row: &Row, time: Time) -> Option<(f64, f64)> {
    let from = row.struck_us?;
    let to = row.relented_us.or(row.end_us).unwrap_or(time.end_us).max(from);
    Some((time.since(from), time.since(to)))
}

/// The shaded bands behind a chart.
fn bands(drawing: &mut Drawing, faults: &[Line], time: Time, x: Scale, (top, bottom): (f64, f64)) {
    for (number, line) in (1..).zip(faults) {
        let row = &line.row;
        let (from, to) = (time.since(row.start_us), time.since(row.end_us.unwrap_or(time.end_us)));
        let mut band = |class: &str, from: f64, to: f64, tip: &str| {
            let (left, right) = (x.at(from), x.at(to));
            drawing.rect(class, (left, top), ((right - left).max(1.0), bottom - top), tip);
        };
        if number % 2 == 1 {
            band("row", from, to, &format!("{}: {from:.1} s to {to:.1} s", row.name));
        }
        if let Some((from, to)) = fault_time(row, time) {
            let class = if line.verdict == Verdict::Fail { "fault failed" } else { "fault" };
            band(class, from, to, &format!("{}: the fault lasted from {from:.1} s to {to:.1} s", row.name));
        }
    }
}

/// The room above a chart for the names of the faults.
fn room_for_names(faults: &[Line]) -> f64 {
    let longest = faults.iter().map(|line| line.row.name.chars().count() + 2).max().unwrap_or(0);
    24.0 + longest as f64 * LETTER * f64::from(SLANT).to_radians().sin()
}

/// The names of the faults above a chart that begins at `top`.
fn names(drawing: &mut Drawing, faults: &[Line], time: Time, x: Scale, top: f64) {
    let middle = |line: &Line| {
        let row = &line.row;
        let whole = || (time.since(row.start_us), time.since(row.end_us.unwrap_or(time.end_us)));
        let (from, to) = fault_time(row, time).unwrap_or_else(whole);
        x.at((from + to) / 2.0)
    };
    let wanted: Vec<f64> = faults.iter().map(middle).collect();
    for ((line, wanted), place) in faults.iter().zip(&wanted).zip(spread(&wanted, NAME_GAP, PLOT)) {
        let Some(place) = place else { continue };
        drawing.path("leader", &line_through([Some((place, top - 12.0)), Some((*wanted, top - 1.0))]));
        let (class, sign) = match line.verdict {
            Verdict::Fail => ("name fail", " \u{2717}"),
            _ => ("name strong", ""),
        };
        drawing.slanted(class, (place + 3.0, top - 14.0), -SLANT, &format!("{}{sign}", line.row.name));
    }
}

fn time_axis(drawing: &mut Drawing, time: Time, x: Scale, (top, bottom): (f64, f64)) {
    for tick in ticks(time.seconds(), 14) {
        drawing.line("grid", (x.at(tick), top), (x.at(tick), bottom));
        drawing.text("middle", (x.at(tick), bottom + 17.0), &format!("{tick}"));
    }
    drawing.line("axis", (PLOT.0, bottom), (PLOT.1, bottom));
    drawing.text("middle", ((PLOT.0 + PLOT.1) / 2.0, bottom + 35.0), "seconds since the start");
}

pub(crate) fn votes(record: &Record, faults: &[Line], time: Time) -> String {
    let top = room_for_names(faults);
    let bottom = top + 300.0;
    let what = "Each column is a short time. The line is the median of the votes that were sent in it, the bar reaches \
                to the 99th percentile, the dot is the slowest. Shaded bands are faults.";
    let mut drawing = Drawing::new("votes", (WIDTH, bottom + 44.0), "Delay of votes over time", what);
    let x = time.scale(PLOT);
    bands(&mut drawing, faults, time, x, (top, bottom));
    time_axis(&mut drawing, time, x, (top, bottom));
    names(&mut drawing, faults, time, x, top);

    let (width_us, columns) = record.votes.at_most(SAMPLES);
    let slowest = |delays: &Delays| (delays.count > 0).then_some(delays.max_us as f64 / 1e3);
    let values = columns.iter().flat_map(|delays| [delays.quantile_ms(0.5), slowest(delays)]).flatten();
    let Some(levels) = decades(values) else {
        let middle = ((PLOT.0 + PLOT.1) / 2.0, (top + bottom) / 2.0);
        drawing.text("middle strong", middle, "No vote was received.");
        return drawing.finish();
    };
    let range = (levels.first().copied().unwrap_or(0.1), levels.last().copied().unwrap_or(1.0));
    let y = Scale::log(range, (bottom, top));
    for level in levels {
        drawing.line("grid", (PLOT.0, y.at(level)), (PLOT.1, y.at(level)));
        drawing.text("end", (PLOT.0 - 8.0, y.at(level) + 4.0), &duration(level));
    }
    let middle_of = |index: usize| {
        let at_us = record.start_us + width_us * index as u64 + width_us / 2;
        x.at(time.since(at_us))
    };
    let (mut bars, mut dots) = (String::new(), String::new());
    let mut medians = Vec::new();
    for (index, delays) in columns.iter().enumerate() {
        let at = middle_of(index);
        let median = delays.quantile_ms(0.5).map(|ms| (at, y.at(ms)));
        medians.push(median);
        if let (Some((_, median)), Some(most), Some(slowest)) =
            (median, delays.quantile_ms(0.99), slowest(delays))
        {
            let _ = write!(bars, "M{at:.1} {median:.1}V{:.1}", y.at(most));
            let _ = write!(dots, "M{at:.1} {:.1}h0", y.at(slowest));
        }
    }
    drawing.path("range", &bars);
    drawing.path("slowest", &dots);
    drawing.path("median", &line_through(medians));
    drawing.finish()
}

/// The links that are shown: all, or those with the most connections.
pub(crate) fn chosen(record: &Record) -> Vec<((usize, usize), &Link)> {
    let mut links: Vec<_> = record.links.iter().map(|(pair, link)| (*pair, link)).collect();
    links.sort_by_key(|(_, link)| std::cmp::Reverse(link.conns.len() as u64 + link.left_out));
    links.truncate(LINKS);
    links.sort_by_key(|(pair, _)| *pair);
    links
}

/// The height of the bars of connections: path 1 differs not by its colour alone.
fn bar(conn: &Conn) -> (&'static str, f64) {
    match conn.path {
        Some(0) => ("path0", 10.0),
        Some(_) => ("path1", 6.0),
        None => ("direct", 3.0),
    }
}

/// The class and the shape of the mark at the end of a connection; `None` where nothing happened to it.
pub(crate) fn mark(end: End) -> Option<(&'static str, &'static str)> {
    match end {
        End::Suspect => Some(("mark suspect", "M0 -4.6L4.6 3.6H-4.6Z")),
        End::Poor => Some(("mark poor", "M0 -4.8L4.8 0L0 4.8L-4.8 0Z")),
        End::Planned => Some(("mark planned", "M-3 0A3 3 0 1 0 3 0A3 3 0 1 0 -3 0Z")),
        End::Lost => Some(("lost", "M-3.5 -3.5L3.5 3.5M-3.5 3.5L3.5 -3.5")),
        End::Superfluous => None,
    }
}

pub(crate) fn end_in_words(end: End) -> &'static str {
    match end {
        End::Suspect => "replaced: an answer was overdue",
        End::Poor => "replaced: its score was low",
        End::Planned => "replaced: the application asked",
        End::Lost => "lost",
        End::Superfluous => "closed: both ends had dialled at once",
    }
}

pub(crate) fn connections(record: &Record, faults: &[Line], time: Time) -> String {
    const LANE: f64 = 14.0;
    let links = chosen(record);
    let lanes = |link: &Link| link.conns.iter().map(|conn| usize::from(conn.slot) + 1).max().unwrap_or(1);
    let height = |link: &Link| lanes(link).max(2) as f64 * LANE + 12.0;
    let top = room_for_names(faults);
    let bottom = top + links.iter().map(|(_, link)| height(link)).sum::<f64>();
    let what = "A row for each link, a bar for each connection in its place of the pool, and a mark where it \
                was replaced or lost. Shaded bands are faults.";
    let mut drawing = Drawing::new("connections", (WIDTH, bottom + 44.0), "Connections of each link", what);
    let x = time.scale(PLOT);
    bands(&mut drawing, faults, time, x, (top, bottom));
    time_axis(&mut drawing, time, x, (top, bottom));
    names(&mut drawing, faults, time, x, top);

    let (mut y, mut marks) = (top, Vec::new());
    for ((a, b), link) in links {
        drawing.line("grid", (PLOT.0, y), (PLOT.1, y));
        drawing.text(
            "end strong",
            (PLOT.0 - 10.0, y + height(link) / 2.0 + 4.0),
            &format!("{a} \u{2013} {b}"),
        );
        if link.left_out > 0 {
            drawing.text(
                "",
                (PLOT.1 + 6.0, y + height(link) / 2.0 + 4.0),
                &format!("+ {} later", link.left_out),
            );
        }
        for conn in &link.conns {
            let middle = y + 6.0 + (f64::from(conn.slot) + 0.5) * LANE;
            let (from, to) =
                (time.since(conn.from_us), time.since(conn.end.map_or(time.end_us, |(at, _)| at)));
            let path = conn.path.map_or("past the proxies".into(), |path| format!("by path {path}"));
            let end = conn.end.map_or("served to the end", |(_, end)| end_in_words(end));
            let tip = format!(
                "place {}, node {} dialled it {path}; {from:.2} s to {to:.2} s; {end}",
                conn.slot, conn.dialled_by
            );
            let ((class, height), (left, right)) = (bar(conn), (x.at(from), x.at(to)));
            drawing.rect(class, (left, middle - height / 2.0), ((right - left).max(1.2), height), &tip);
            if let Some((class, shape)) = conn.end.and_then(|(_, end)| mark(end)) {
                marks.push((class, (right, middle), shape, tip));
            }
        }
        y += height(link);
    }
    // Above all bars.
    for (class, place, shape, tip) in marks {
        drawing.mark(class, place, shape, &tip);
    }
    drawing.finish()
}

/// The range of round trips of all links.
pub(crate) fn round_trips(record: &Record) -> (f64, f64) {
    let states = record.links.values().flat_map(|link| link.states.at_most(FEW_SAMPLES).1);
    let levels = decades(states.filter_map(|state| state.rtt_ms)).unwrap_or_default();
    (levels.first().copied().unwrap_or(0.1), levels.last().copied().unwrap_or(10.0))
}

/// Score and round trip of one link.
pub(crate) fn link(
    ((a, b), link): ((usize, usize), &Link),
    faults: &[Line],
    time: Time,
    rtt: (f64, f64),
) -> String {
    const SMALL: (f64, f64) = (50.0, 290.0);
    let title = format!("Score and round trip of the link between node {a} and node {b}");
    let what = "Above the worst score of its connections, from 0 to 1; below the longest smoothed round trip, on a \
                logarithmic scale. Interrupted where no end reported one.";
    let mut drawing = Drawing::new(&format!("link-{a}-{b}"), (300.0, 164.0), &title, what);
    let x = time.scale(SMALL);
    let (width_us, states) = link.states.at_most(FEW_SAMPLES);
    let mut panel = |name: &str,
                     y: Scale,
                     (top, bottom): (f64, f64),
                     levels: [(f64, String); 2],
                     value: fn(&State) -> Option<f64>| {
        bands(&mut drawing, faults, time, x, (top, bottom));
        for (level, label) in levels {
            drawing.line("grid", (SMALL.0, y.at(level)), (SMALL.1, y.at(level)));
            drawing.text("end", (SMALL.0 - 5.0, y.at(level) + 4.0), &label);
        }
        drawing.text("end strong", (SMALL.0 - 5.0, (top + bottom) / 2.0 + 4.0), name);
        // A step for each sample: the state was reported in it.
        let steps = states.iter().enumerate().flat_map(|(index, state)| {
            let at = |index: usize| x.at(time.since(link.states.start_us() + width_us * index as u64));
            let y = value(state).map(|value| y.at(value));
            [y.map(|y| (at(index), y)), y.map(|y| (at(index + 1), y))]
        });
        drawing.path("series", &line_through(steps));
    };
    let (score, trip) = ((8.0, 64.0), (82.0, 138.0));
    let scale = Scale::linear((0.0, 1.0), (score.1, score.0));
    panel("score", scale, score, [(1.0, "1".into()), (0.0, "0".into())], |state| state.score);
    let scale = Scale::log(rtt, (trip.1, trip.0));
    panel("RTT", scale, trip, [(rtt.1, duration(rtt.1)), (rtt.0, duration(rtt.0))], |state| state.rtt_ms);
    drawing.line("axis", (SMALL.0, trip.1), (SMALL.1, trip.1));
    drawing.text("", (SMALL.0, trip.1 + 17.0), "0 s");
    drawing.text("end", (SMALL.1, trip.1 + 17.0), &format!("{:.0} s", time.seconds()));
    drawing.finish()
}
