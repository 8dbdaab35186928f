//! Numbers and texts in so many columns. Pure.

use ratatui::text::Span;

/// The columns that a text takes: characters of some scripts take two, and marks none.
pub(crate) fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// At most `columns` wide: what has to go is replaced by `…`. Control characters, which a stranger may have
/// put into its name, become `�`.
pub(crate) fn shorten(text: &str, columns: usize) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if width(&text) <= columns {
        return text;
    }
    let mut short = String::new();
    for c in text.chars() {
        if width(&short) + width(c.encode_utf8(&mut [0; 4])) + 1 > columns {
            break;
        }
        short.push(c);
    }
    if columns > 0 {
        short.push('…');
    }
    short
}

/// The same, and without the middle: the end of an address tells as much as its beginning.
pub(crate) fn shorten_middle(text: &str, columns: usize) -> String {
    let count = text.chars().count();
    if count <= columns || columns < 3 {
        return shorten(text, columns);
    }
    let (head, tail) = (columns / 2, columns - columns / 2 - 1);
    let head: String = text.chars().take(head).collect();
    let tail: String = text.chars().skip(count - tail).collect();
    format!("{head}…{tail}")
}

/// Breaks a text at its spaces into lines of at most `columns`; a longer word is broken where the line ends.
pub(crate) fn lines(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let word: String = word.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        let used = lines.last().map_or(0, |line| width(line));
        if used > 0 && used + 1 + width(&word) > columns {
            lines.push(String::new());
        } else if used > 0
            && let Some(line) = lines.last_mut()
        {
            line.push(' ');
        }
        for c in word.chars() {
            let used = lines.last().map_or(0, |line| width(line));
            if used > 0 && used + width(c.encode_utf8(&mut [0; 4])) > columns {
                lines.push(String::new());
            }
            if let Some(line) = lines.last_mut() {
                line.push(c);
            }
        }
    }
    lines
}

/// Three digits, never rounded up to a fourth.
fn three(value: f64) -> String {
    match value {
        ..10.0 => format!("{:.2}", (value * 100.0).floor() / 100.0),
        ..100.0 => format!("{:.1}", (value * 10.0).floor() / 10.0),
        _ => format!("{:.0}", value.floor()),
    }
}

/// The value in the first unit in which it is below `step`.
fn in_units(mut value: f64, step: f64, units: &[&str]) -> String {
    let mut units = units.iter().peekable();
    while let Some(unit) = units.next() {
        if value < step || units.peek().is_none() {
            return format!("{} {unit}", three(value));
        }
        value /= step;
    }
    String::new()
}

/// At most 6 columns.
pub(crate) fn count(number: u64) -> String {
    match number {
        ..100_000 => number.to_string(),
        _ => in_units(number as f64 / 1e3, 1e3, &["k", "M", "G", "T", "P", "E"]),
    }
}

/// At most 8 columns.
pub(crate) fn bytes(number: u64) -> String {
    match number {
        ..1024 => format!("{number} B"),
        _ => in_units(number as f64 / 1024.0, 1024.0, &["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]),
    }
}

/// A time in milliseconds. At most 7 columns.
pub(crate) fn time(ms: f64) -> String {
    const MINUTE: f64 = 60e3;
    const HOUR: f64 = 60.0 * MINUTE;
    const DAY: f64 = 24.0 * HOUR;
    match ms {
        _ if !(ms >= 0.0 && ms.is_finite()) => "?".into(),
        ..1e3 => format!("{} ms", three(ms)),
        _ if ms < 100e3 => format!("{} s", three(ms / 1e3)),
        _ if ms < 100.0 * MINUTE => format!("{:.0} min", (ms / MINUTE).floor()),
        _ if ms < 100.0 * HOUR => format!("{:.0} h", (ms / HOUR).floor()),
        _ if ms < 1000.0 * DAY => format!("{:.0} d", (ms / DAY).floor()),
        _ => ">999 d".into(),
    }
}

/// A time in milliseconds without small parts of them. At most 6 columns.
pub(crate) fn age(ms: f64) -> String {
    if (0.0..1e3).contains(&ms) { format!("{:.0} ms", ms.floor()) } else { time(ms) }
}

/// A part of 1. At most 6 columns.
pub(crate) fn percent(part: f64) -> String {
    if part > 0.0 { format!("{} %", three((part * 100.0).min(100.0))) } else { "0 %".into() }
}

/// 0 to 1, in 4 columns.
pub(crate) fn score(score: f64) -> String {
    format!("{:.2}", score.clamp(0.0, 1.0))
}

/// One bar for each of the last `columns` values, the newest at the right; a blank where nothing is known.
/// The highest leaves a gap to the line above it, whose bars would merge with it.
pub(crate) fn sparkline(values: &[Option<f64>], top: f64, columns: usize) -> String {
    const BARS: [char; 7] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇'];
    let last = values.get(values.len().saturating_sub(columns)..).unwrap_or_default();
    let bar = |value: &Option<f64>| match value {
        Some(value) if top > 0.0 => {
            let level = (value / top * (BARS.len() - 1) as f64).round() as usize;
            BARS.get(level.min(BARS.len() - 1)).copied().unwrap_or(' ')
        }
        Some(_) => '▁',
        None => ' ',
    };
    let bars: String = last.iter().map(bar).collect();
    format!("{bars:>columns$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_never_exceed_their_columns() {
        for power in 0..=64 {
            for off in [-1i128, 0, 1] {
                let number = (1i128 << power).saturating_add(off).clamp(0, u64::MAX.into()) as u64;
                let ten = 10u128.pow(power.min(19)).saturating_add_signed(off).min(u64::MAX.into()) as u64;
                for number in [number, ten] {
                    let ms = number as f64;
                    let texts =
                        [count(number), bytes(number), time(ms), time(ms / 1e3), age(ms), age(ms / 1e3)];
                    for (text, most) in texts.iter().zip([6, 8, 7, 7, 6, 6]) {
                        assert!(width(text) <= most && !text.is_empty(), "{number}: {text:?}");
                    }
                }
            }
        }
        for part in [0.0, 1e-9, 0.001, 0.0999, 0.99999, 1.0, 7.0] {
            assert!(width(&percent(part)) <= 6 && width(&score(part)) == 4, "{part}");
        }
        assert_eq!(time(f64::NAN), "?");
    }

    #[test]
    fn numbers_are_written_with_three_digits_and_a_unit() {
        assert_eq!(
            [count(0), count(99_999), count(100_000), count(999_999)],
            ["0", "99999", "100 k", "999 k"]
        );
        assert_eq!(count(u64::MAX), "18.4 E");
        assert_eq!([bytes(1023), bytes(1024), bytes(1_048_575)], ["1023 B", "1.00 KiB", "1023 KiB"]);
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        assert_eq!([time(0.05), time(12.34), time(999.9)], ["0.05 ms", "12.3 ms", "999 ms"]);
        assert_eq!([time(1e3), time(99_999.0), time(100e3)], ["1.00 s", "99.9 s", "1 min"]);
        assert_eq!([time(86_400e3 * 5.0), time(1e300)], ["5 d", ">999 d"]);
        assert_eq!([percent(0.0123), percent(1.0)], ["1.23 %", "100 %"]);
    }

    #[test]
    fn what_is_shortened_says_so() {
        assert_eq!(shorten("abcdef", 6), "abcdef");
        assert_eq!(shorten("abcdefg", 6), "abcde…");
        assert_eq!(shorten("検証者検証者", 6), "検証…");
        assert_eq!(shorten("a\u{1b}[31mb", 20), "a\u{fffd}[31mb");
        assert_eq!(shorten_middle("[2001:db8:1:2:3:4:5:6]:65535", 13), "[2001:…:65535");
        assert_eq!(lines("one two  three", 7), ["one two", "three"]);
        assert_eq!(lines("abcdefghij k", 4), ["abcd", "efgh", "ij k"]);
    }

    #[test]
    fn a_sparkline_has_its_newest_value_at_the_right() {
        assert_eq!(sparkline(&[Some(0.0), None, Some(0.5), Some(1.0)], 1.0, 6), "  ▁ ▄▇");
        assert_eq!(sparkline(&[Some(1.0), Some(0.0), Some(9.0)], 1.0, 2), "▁▇");
        assert_eq!(sparkline(&[], 0.0, 3), "   ");
    }
}
