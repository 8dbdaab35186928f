//! Scales, axes and labels of charts, in SVG.

use std::fmt::Write as _;

/// The text as it must be written in HTML and SVG, in attributes, too.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // No page may contain them, however they are written.
            letter if letter.is_control() && !letter.is_whitespace() => escaped.push('\u{fffd}'),
            letter => escaped.push(letter),
        }
    }
    escaped
}

/// From values to places on the page. A value outside is shown at the border.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    values: (f64, f64),
    places: (f64, f64),
    log: bool,
}

impl Scale {
    pub(crate) fn linear(values: (f64, f64), places: (f64, f64)) -> Scale {
        Scale { values, places, log: false }
    }

    pub(crate) fn log(values: (f64, f64), places: (f64, f64)) -> Scale {
        Scale { values: (values.0.log10(), values.1.log10()), places, log: true }
    }

    pub(crate) fn at(&self, value: f64) -> f64 {
        let value = if self.log { value.max(f64::MIN_POSITIVE).log10() } else { value };
        let (from, to) = self.values;
        let part = if to > from { ((value - from) / (to - from)).clamp(0.0, 1.0) } else { 0.0 };
        self.places.0 + part * (self.places.1 - self.places.0)
    }
}

/// Round values from 0 to `end`, about so many.
pub(crate) fn ticks(end: f64, about: usize) -> Vec<f64> {
    if !(end > 0.0 && end.is_finite()) {
        return vec![0.0];
    }
    let rough = end / about.max(1) as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= rough);
    let step = step.unwrap_or(rough);
    (0..=(end / step) as u32).map(|number| f64::from(number) * step).collect()
}

/// The powers of ten that enclose all values; at least one decade.
pub(crate) fn decades(values: impl IntoIterator<Item = f64>) -> Option<Vec<f64>> {
    let positive = values.into_iter().filter(|value| *value > 0.0 && value.is_finite());
    let range = |range: Option<(f64, f64)>, value: f64| match range {
        Some((low, high)) => Some((low.min(value), high.max(value))),
        None => Some((value, value)),
    };
    let (low, high) = positive.fold(None, range)?;
    let low = low.log10().floor() as i32;
    let high = (high.log10().ceil() as i32).max(low + 1);
    Some((low..=high).map(|power| 10f64.powi(power)).collect())
}

/// Milliseconds with a unit that suits them.
pub(crate) fn duration(ms: f64) -> String {
    match ms {
        ms if ms >= 10_000.0 => format!("{:.0} s", ms / 1e3),
        ms if ms >= 1000.0 => format!("{} s", short(ms / 1e3, 1)),
        ms if ms >= 10.0 => format!("{ms:.0} ms"),
        ms if ms >= 1.0 => format!("{} ms", short(ms, 1)),
        ms => format!("{} ms", short(ms, 2)),
    }
}

fn short(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Places for labels as near to where they belong as may be, in the same order, and at least `gap` apart.
/// `None` for those that there is no room for.
pub(crate) fn spread(wanted: &[f64], gap: f64, (from, to): (f64, f64)) -> Vec<Option<f64>> {
    let room = ((to - from) / gap) as usize + 1;
    let every = wanted.len().div_ceil(room).max(1);
    let mut last = f64::NEG_INFINITY;
    let mut places: Vec<Option<f64>> = Vec::with_capacity(wanted.len());
    for (index, place) in wanted.iter().enumerate() {
        places.push((index % every == 0).then(|| {
            last = place.max(from).max(last + gap);
            last
        }));
    }
    // Those that were pushed over the end push the others back.
    let mut limit = to;
    for place in places.iter_mut().rev().flatten() {
        *place = place.min(limit);
        limit = *place - gap;
    }
    places
}

/// An SVG drawing under construction.
pub(crate) struct Drawing {
    body: String,
}

impl Drawing {
    /// `id`: unique on the page. The title and the description are for those who cannot see it.
    pub(crate) fn new(id: &str, (width, height): (f64, f64), title: &str, what: &str) -> Drawing {
        let (title, what) = (escape(title), escape(what));
        let body = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" \
             aria-labelledby=\"{id}-title {id}-desc\">\n<title id=\"{id}-title\">{title}</title>\n\
             <desc id=\"{id}-desc\">{what}</desc>\n"
        );
        Drawing { body }
    }

    pub(crate) fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        let _ = writeln!(
            self.body,
            "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
        );
    }

    /// `tip`: shown when the pointer rests on it.
    pub(crate) fn rect(&mut self, class: &str, (x, y): (f64, f64), (w, h): (f64, f64), tip: &str) {
        let _ = write!(
            self.body,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{h:.1}\"",
            w.max(0.0)
        );
        let _ = match tip {
            "" => writeln!(self.body, "/>"),
            _ => writeln!(self.body, "><title>{}</title></rect>", escape(tip)),
        };
    }

    /// `place`: class names; `start`, `middle` and `end` say which part of the text is at the point.
    pub(crate) fn text(&mut self, place: &str, (x, y): (f64, f64), text: &str) {
        let _ =
            writeln!(self.body, "<text class=\"{place}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escape(text));
    }

    pub(crate) fn slanted(&mut self, class: &str, (x, y): (f64, f64), degrees: i32, text: &str) {
        let _ = writeln!(
            self.body,
            "<text class=\"{class}\" transform=\"translate({x:.1} {y:.1}) rotate({degrees})\">{}</text>",
            escape(text)
        );
    }

    pub(crate) fn path(&mut self, class: &str, data: &str) {
        if !data.is_empty() {
            let _ = writeln!(self.body, "<path class=\"{class}\" d=\"{data}\"/>");
        }
    }

    pub(crate) fn mark(&mut self, class: &str, (x, y): (f64, f64), data: &str, tip: &str) {
        let _ = writeln!(
            self.body,
            "<path class=\"{class}\" transform=\"translate({x:.1} {y:.1})\" d=\"{data}\"><title>{}</title></path>",
            escape(tip)
        );
    }

    pub(crate) fn finish(mut self) -> String {
        self.body.push_str("</svg>\n");
        self.body
    }
}

/// The data of a path that is a line through these points; it is interrupted where there is none.
pub(crate) fn line_through(points: impl IntoIterator<Item = Option<(f64, f64)>>) -> String {
    let mut data = String::new();
    let mut on = false;
    for point in points {
        if let Some((x, y)) = point {
            let _ = write!(data, "{}{x:.1} {y:.1}", if on { 'L' } else { 'M' });
        }
        on = point.is_some();
    }
    data
}
