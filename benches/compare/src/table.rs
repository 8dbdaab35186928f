//! Tables in Markdown, and bar charts in SVG.

use std::fmt::{self, Write as _};
use std::path::Path;

use crate::Failure;
use crate::process::Load;

pub struct Table {
    pub title: String,
    /// What others used of the machine meanwhile.
    load: String,
    pub columns: &'static [&'static str],
    pub rows: Vec<Row>,
    /// What the bars of the chart stand for.
    pub bars: &'static str,
}

pub struct Row {
    pub name: String,
    pub cells: Vec<String>,
    pub bar: f64,
}

impl Table {
    pub fn new(title: String, load: &Load) -> Self {
        Table { title, load: load.to_string(), columns: &[], rows: Vec::new(), bars: "" }
    }

    /// Writes the chart to a file in this folder, which is named after the title.
    pub fn draw(&self, folder: &Path) -> Result<(), Failure> {
        let words = self.title.to_lowercase();
        let words: Vec<_> =
            words.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty()).collect();
        let path = folder.join(format!("{}.svg", words.join("-")));
        let failed = |error| format!("{}: {error}, expected a file that can be written", path.display());
        std::fs::create_dir_all(folder).map_err(failed)?;
        std::fs::write(&path, self.svg()?).map_err(failed)?;
        Ok(())
    }

    fn svg(&self) -> Result<String, fmt::Error> {
        let (names, bars, values, line, top) = (330, 420, 90, 24, 62);
        let (width, height) = (names + bars + values, top + line * self.rows.len() + 12);
        let most = self.rows.iter().map(|row| row.bar).fold(f64::MIN_POSITIVE, f64::max);
        let mut svg = String::new();
        writeln!(
            svg,
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" width="{width}">"#
        )?;
        // The page behind it may be light or dark; it has no background of its own.
        svg.push_str(concat!(
            "<style>\n",
            "text { font: 13px sans-serif; fill: #1f2328; }\n",
            ".title { font-weight: bold; font-size: 15px; }\n",
            ".small { font-size: 12px; fill: #59636e; }\n",
            ".other { fill: #6e7f91; } .own { fill: #1a7f5a; }\n",
            "@media (prefers-color-scheme: dark) {\n",
            "  text { fill: #e6edf3; } .small { fill: #9198a1; }\n",
            "  .other { fill: #8296ab; } .own { fill: #3fb68b; }\n",
            "}\n</style>\n",
        ));
        let (title, under) = (escaped(&self.title), escaped(&format!("{}; {}", self.bars, self.load)));
        writeln!(svg, "<title>{title}</title>")?;
        writeln!(svg, r#"<text class="title" x="8" y="22">{title}</text>"#)?;
        writeln!(svg, r#"<text class="small" x="8" y="42">{under}</text>"#)?;
        for (number, row) in self.rows.iter().enumerate() {
            let y = top + line * number;
            let length = (row.bar / most * f64::from(bars as u32)).max(1.0);
            let class = if row.name.starts_with("unbroken") { "own" } else { "other" };
            let (base, end) = (y + 13, names as f64 + length + 6.0);
            let name = escaped(&row.name);
            writeln!(svg, r#"<text x="{}" y="{base}" text-anchor="end">{name}</text>"#, names - 8)?;
            writeln!(
                svg,
                r#"<rect class="{class}" x="{names}" y="{y}" width="{length:.1}" height="{}"/>"#,
                line - 6
            )?;
            writeln!(svg, r#"<text class="small" x="{end:.1}" y="{base}">{}</text>"#, short(row.bar))?;
        }
        svg.push_str("</svg>\n");
        Ok(svg)
    }
}

/// Three digits, with a letter for thousands and millions.
fn short(value: f64) -> String {
    let (value, letter) = match value {
        value if value >= 1e6 => (value / 1e6, " M"),
        value if value >= 1e4 => (value / 1e3, " k"),
        value => (value, ""),
    };
    let decimals = match value {
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}{letter}")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n### {} ({})\n", self.title, self.load)?;
        writeln!(f, "| | {} |", self.columns.join(" | "))?;
        write!(f, "| --- |{}", " --- |".repeat(self.columns.len()))?;
        for row in &self.rows {
            write!(f, "\n| {} | {} |", row.name, row.cells.join(" | "))?;
        }
        Ok(())
    }
}
