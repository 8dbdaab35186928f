use super::charts::{self, Time};
use super::svg::{Scale, decades, duration, escape, spread, ticks};
use super::*;
use crate::cluster::Row;
use crate::ledger::Counts;
use crate::record::{Delays, State, Timeline};
use crate::wire::{LinkFigures, LinkNews, News};
use unbroken::ReplaceReason;

const START: u64 = 1_700_000_000_000_000;

fn at(seconds: f64) -> u64 {
    START + (seconds * 1e6) as u64
}

fn args() -> Args {
    let faults = vec![Fault::Kill, Fault::Freeze];
    let time = Duration::from_secs(20);
    Args { nodes: 3, time, seed: 7, faults, json: false, real_time: false, report: None, view: None }
}

fn line(name: &str, from: f64, to: f64, fault: Option<(f64, f64)>) -> Line {
    let (struck_us, relented_us) = (fault.map(|(from, _)| at(from)), fault.map(|(_, to)| at(to)));
    let row = Row { name: name.into(), start_us: at(from), struck_us, relented_us, ..Row::default() };
    let row = Row { end_us: Some(at(to)), ..row };
    let (verdict, counts) = (Verdict::Pass, Counts::default());
    Line { row, counts, verdict, first_vote: None, since: "-", note: String::new() }
}

fn news(peer: usize, seconds: f64, news: News, conn: u64) -> LinkNews {
    LinkNews {
        peer,
        at_us: at(seconds),
        news,
        conn: Some(conn),
        path: Some(1),
        slot: Some(0),
        dialled: true,
        superfluous: false,
        reason: None,
        ping_ms: None,
        why: String::new(),
    }
}

fn figures(peer: usize, score: f64, rtt_ms: Option<f64>) -> LinkFigures {
    let (parts, paths) = (String::new(), Vec::new());
    LinkFigures {
        peer,
        up: 1,
        wanted: 2,
        oldest_us: 0,
        score,
        parts,
        peer_score: 1.0,
        rtt_ms,
        ping_ms: 1.0,
        paths,
    }
}

fn record() -> Record {
    let mut record = Record::new(3, START);
    for number in 0..200 {
        record.vote(at(f64::from(number) / 10.0), 500 + 10 * number as u64);
    }
    record.news(0, &news(1, 1.0, News::Connected, 1));
    record.news(0, &LinkNews { reason: Some(ReplaceReason::Suspect), ..news(1, 5.0, News::Replaced, 1) });
    record.news(0, &news(1, 5.0, News::Connected, 2));
    record.state(0, at(2.0), &figures(1, 0.9, Some(0.4)));
    record
}

fn balance(lines: Vec<Line>) -> Balance {
    let lines = std::iter::once(line("start", 0.0, 1.0, None)).chain(lines).collect();
    Balance { lines, ok: true, ..Balance::default() }
}

/// Checks what an XML parser would: tags that match, attributes in quotes, no bare signs.
fn assert_well_formed(page: &str) {
    let page = page.strip_prefix("<!DOCTYPE html>").unwrap();
    let (mut open, mut rest) = (Vec::new(), page);
    while let Some(begin) = rest.find('<') {
        assert_text(&rest[..begin]);
        let end = begin + rest[begin..].find('>').unwrap();
        let tag = &rest[begin + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "before {:?}", &rest[..rest.len().min(200)]);
            continue;
        }
        let name = tag.split([' ', '\n', '/']).next().unwrap();
        let mut attributes = tag[name.len()..].trim_end_matches('/').trim();
        while !attributes.is_empty() {
            let (key, value) = attributes.split_once("=\"").unwrap_or_else(|| panic!("<{tag}>"));
            assert!(
                key.chars().all(|letter| letter.is_ascii_alphanumeric() || "-:".contains(letter)),
                "<{tag}>"
            );
            let (value, left) = value.split_once('"').unwrap_or_else(|| panic!("<{tag}>"));
            assert_text(value);
            attributes = left.trim_start();
        }
        if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert_text(rest);
    assert!(open.is_empty(), "{open:?} are not closed");
}

fn assert_text(text: &str) {
    for (at, _) in text.match_indices('&') {
        let entity = text[at + 1..].split(';').next().unwrap();
        assert!(["amp", "lt", "gt", "quot", "#39", "#160"].contains(&entity), "&{entity}");
    }
}

/// The left border and the width of the rectangles of a class.
fn rects(drawing: &str, class: &str) -> Vec<(f64, f64)> {
    let begin = format!("<rect class=\"{class}\" ");
    let number = |rest: &str, key: &str| -> f64 {
        rest.split_once(&format!("{key}=\"")).unwrap().1.split('"').next().unwrap().parse().unwrap()
    };
    drawing.split(&begin).skip(1).map(|rest| (number(rest, "x"), number(rest, "width"))).collect()
}

#[test]
fn a_page_is_well_formed_and_needs_nothing_else() {
    let page = page(&args(), &record(), &balance(vec![line("kill", 1.0, 9.0, Some((2.0, 3.0)))]), at(21.0));
    assert_well_formed(&page);
    for outside in ["<script", "<link", "<img", "src=", "url(", "@import", "href"] {
        assert!(!page.contains(outside), "{outside}");
    }
    // The only address is the name of the language.
    assert_eq!(page.replace("http://www.w3.org/2000/svg", "").matches("http").count(), 0);
}

#[test]
fn the_checker_of_pages_finds_what_is_wrong() {
    let wrong = |page: &str| std::panic::catch_unwind(|| assert_well_formed(page)).is_err();
    assert!(!wrong("<!DOCTYPE html><a b=\"c\"><d/>&amp;</a>"));
    for page in ["<a>", "<a></b>", "<a b=c></a>", "<a>&</a>", "<a b=\"&x;\"></a>", "</a>"] {
        assert!(wrong(&format!("<!DOCTYPE html>{page}")), "{page}");
    }
}

#[test]
fn an_empty_run_has_a_page() {
    let empty = Balance { error: Some("no node <listens>".into()), ..Balance::default() };
    let page = page(&args(), &Record::new(3, START), &empty, at(0.0));
    assert_well_formed(&page);
    assert!(
        page.contains("no node &lt;listens&gt;")
            && page.contains("FAIL")
            && page.contains("No vote was received.")
    );
    assert!(!page.contains("NaN") && !page.contains("inf"));
}

#[test]
fn a_run_in_which_nothing_was_received_has_a_page() {
    let mut record = Record::new(2, START);
    record.state(0, at(1.0), &figures(1, 0.0, None));
    let page = page(&args(), &record, &balance(vec![line("kill", 1.0, 9.0, None)]), at(9.0));
    assert_well_formed(&page);
    assert!(page.contains("No vote was received.") && !page.contains("NaN"));
}

#[test]
fn what_others_say_is_escaped() {
    assert_eq!(
        escape("<a href=\"x\">'&'</a>\u{1}"),
        "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;&lt;/a&gt;\u{fffd}"
    );
    let mut line = line("<kill>", 1.0, 9.0, Some((2.0, 3.0)));
    line.note = "</td><script>alert(1)</script>".into();
    line.verdict = Verdict::Fail;
    let page = page(&args(), &record(), &balance(vec![line]), at(9.0));
    assert_well_formed(&page);
    assert!(!page.contains("<script>") && !page.contains("<kill>"));
}

#[test]
fn bands_are_where_the_faults_were() {
    let time = Time { start_us: START, end_us: at(20.0) };
    let faults = [line("kill", 2.0, 8.0, Some((5.0, 10.0))), line("freeze", 10.0, 20.0, None)];
    let drawing = charts::votes(&record(), &faults, time);
    // From 64 to 1116 in 20 s.
    assert_eq!(rects(&drawing, "fault"), [(327.0, 263.0)]);
    assert_eq!(rects(&drawing, "row"), [(169.2, 315.6)]);
    assert!(drawing.contains(">kill</text>") && drawing.contains(">freeze</text>"));
}

#[test]
fn a_fault_that_nobody_ended_lasts_until_its_row_ends() {
    let time = Time { start_us: START, end_us: at(20.0) };
    let row = line("kill", 2.0, 8.0, Some((5.0, 6.0))).row;
    assert_eq!(charts::fault_time(&row, time), Some((5.0, 6.0)));
    let row = Row { relented_us: None, ..row };
    assert_eq!(charts::fault_time(&row, time), Some((5.0, 8.0)));
    assert_eq!(charts::fault_time(&Row { end_us: None, ..row.clone() }, time), Some((5.0, 20.0)));
    assert_eq!(charts::fault_time(&Row { struck_us: None, ..row }, time), None);
}

#[test]
fn connections_are_bars_from_their_beginning_to_their_end() {
    let time = Time { start_us: START, end_us: at(20.0) };
    let drawing = charts::connections(&record(), &[], time);
    // From 1 s to 5 s, and from 5 s to the end.
    assert_eq!(rects(&drawing, "path1"), [(116.6, 210.4), (327.0, 789.0)]);
    assert_eq!(drawing.matches("class=\"mark suspect\"").count(), 1);
}

#[test]
fn a_connection_ends_once_and_for_its_first_reason() {
    let ends = |record: &Record| -> Vec<_> {
        record.links.get(&(0, 1)).unwrap().conns.iter().map(|conn| conn.end).collect()
    };
    let mut record = Record::new(2, START);
    // Node 0 dialled, node 1 has it replaced and says why.
    record.news(0, &news(1, 1.0, News::Connected, 1));
    record.news(
        1,
        &LinkNews { reason: Some(ReplaceReason::Poor), dialled: false, ..news(0, 2.0, News::Replacing, 9) },
    );
    record.news(0, &news(1, 3.0, News::Replaced, 1));
    record.news(0, &news(1, 4.0, News::Disconnected, 1));
    assert_eq!(ends(&record), [Some((at(3.0), End::Poor))]);
    // Another life numbers its connections from the beginning.
    record.news(0, &news(1, 5.0, News::Connected, 1));
    record.killed(1, at(5.5));
    record.killed(0, at(6.0));
    record.news(0, &news(1, 7.0, News::Connected, 1));
    record.news(0, &LinkNews { superfluous: true, ..news(1, 8.0, News::Disconnected, 1) });
    let expected = [(3.0, End::Poor), (6.0, End::Lost), (8.0, End::Superfluous)];
    assert_eq!(ends(&record), expected.map(|(seconds, end)| Some((at(seconds), end))));
}

#[test]
fn names_keep_their_distance_and_their_order() {
    let places =
        |wanted: &[f64]| spread(wanted, 10.0, (0.0, 100.0)).into_iter().flatten().collect::<Vec<_>>();
    assert_eq!(places(&[5.0, 50.0, 95.0]), [5.0, 50.0, 95.0]);
    assert_eq!(places(&[50.0, 51.0, 52.0]), [50.0, 60.0, 70.0]);
    assert_eq!(places(&[98.0, 99.0, 100.0]), [80.0, 90.0, 100.0]);
    // Too many: some have none, and the others do not touch.
    let many: Vec<f64> = (0..40).map(|number| f64::from(number) * 2.5).collect();
    let placed = spread(&many, 10.0, (0.0, 100.0));
    assert_eq!(placed.len(), 40);
    let placed: Vec<f64> = placed.into_iter().flatten().collect();
    assert!(
        placed.len() >= 8 && placed.windows(2).all(|pair| pair[1] - pair[0] >= 10.0 - 1e-9),
        "{placed:?}"
    );
    assert!(placed.iter().all(|place| (0.0..=100.0).contains(place)), "{placed:?}");
}

#[test]
fn axes_have_round_values() {
    assert_eq!(ticks(62.0, 14), [0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0, 40.0, 45.0, 50.0, 55.0, 60.0]);
    assert_eq!(ticks(0.0, 14), [0.0]);
    assert_eq!(ticks(f64::NAN, 14), [0.0]);
    assert_eq!(decades([0.3, 42.0]), Some(vec![0.1, 1.0, 10.0, 100.0]));
    assert_eq!(decades([1.0]), Some(vec![1.0, 10.0]));
    assert_eq!(decades([0.0, f64::NAN]), None);
    let scale = Scale::log((1.0, 100.0), (200.0, 0.0));
    assert_eq!([0.5, 1.0, 10.0, 100.0, 1e9].map(|value| scale.at(value)), [200.0, 200.0, 100.0, 0.0, 0.0]);
    assert_eq!(Scale::linear((0.0, 0.0), (3.0, 9.0)).at(1.0), 3.0);
    let shown = [0.1, 0.456, 1.0, 2.56, 42.4, 1000.0, 2472.0, 10_000.0].map(duration);
    assert_eq!(shown, ["0.1 ms", "0.46 ms", "1 ms", "2.6 ms", "42 ms", "1 s", "2.5 s", "10 s"]);
}

#[test]
fn quantiles_are_right_to_a_bin() {
    let mut delays = Delays::default();
    assert_eq!(delays.quantile_ms(0.5), None);
    (1..=1000).for_each(|number| delays.add(number * 100));
    for (part, exact) in [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0)] {
        let found = delays.quantile_ms(part).unwrap();
        assert!(found >= exact && found <= exact * 1.125, "{part}: {found}");
    }
    delays.add(0);
    assert_eq!(delays.count, 1001);
}

#[test]
fn a_long_run_needs_no_more_memory() {
    let mut votes: Timeline<Delays> = Timeline::new(START, 100_000);
    (0..86_400).for_each(|second| votes.update(at(f64::from(second)), |delays| delays.add(1000)));
    let (width_us, buckets) = votes.at_most(usize::MAX);
    assert!(buckets.len() <= 2048 && width_us * buckets.len() as u64 >= 86_399_000_000, "{}", buckets.len());
    assert_eq!(buckets.iter().map(|delays| delays.count).sum::<u64>(), 86_400);
    assert_eq!(votes.between(at(0.0), at(86_400.0)).count, 86_400);

    let mut states: Timeline<State> = Timeline::new(START, 250_000);
    states.update(at(1.0), |state| *state = State { score: Some(0.5), rtt_ms: Some(3.0) });
    states.update(at(86_400.0), |state| *state = State { score: Some(1.0), rtt_ms: None });
    let (_, states) = states.at_most(10);
    assert!(states.len() <= 10);
    assert_eq!(states.first(), Some(&State { score: Some(0.5), rtt_ms: Some(3.0) }));

    let mut record = Record::new(2, START);
    for number in 0..3000 {
        record.news(0, &news(1, f64::from(number), News::Connected, number as u64));
        record.news(0, &news(1, f64::from(number) + 0.5, News::Disconnected, number as u64));
    }
    let link = record.links.get(&(0, 1)).unwrap();
    assert_eq!((link.conns.len(), link.left_out), (1000, 2000));
}

#[test]
fn a_file_that_cannot_be_written_is_found_before_the_run() {
    let directory = std::env::temp_dir().join(format!("unbroken-report-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let file = directory.join("report.html");
    assert!(check(&directory).is_err());
    assert!(check(&directory.join("missing").join("report.html")).is_err());
    std::fs::write(&file, "an earlier report").unwrap();
    check(&file).unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "an earlier report");
    std::fs::remove_dir_all(&directory).unwrap();
}
