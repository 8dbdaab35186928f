//! The screen as a picture: SVG, for a report or a page.

use std::fmt::Write as _;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};

use crate::app::App;
use crate::draw::{Theme, draw};
use crate::text::width;

/// One cell, in units of the picture.
const CELL: (f64, f64) = (8.0, 17.0);
const MARGIN: f64 = 8.0;
/// From the top of a cell to the line on which its text stands.
const BASELINE: f64 = 13.0;
const BACKGROUND: &str = "#14171c";
const FOREGROUND: &str = "#d5d9e0";

/// Draws a screen of this size, in columns and rows.
pub(crate) fn picture(app: &App, (columns, rows): (u16, u16), theme: Theme) -> String {
    let Ok(mut terminal) = Terminal::new(TestBackend::new(columns, rows));
    let Ok(_) = terminal.draw(|frame| draw(frame, app, theme));
    svg(terminal.backend().buffer())
}

fn svg(buffer: &Buffer) -> String {
    let columns = usize::from(buffer.area.width);
    let size = |cells: u16, cell: f64| f64::from(cells) * cell + 2.0 * MARGIN;
    let (w, h) = (size(buffer.area.width, CELL.0), size(buffer.area.height, CELL.1));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{h}\" viewBox=\"0 0 {w} {h}\" \
         font-family=\"DejaVu Sans Mono, Menlo, Consolas, monospace\" font-size=\"13\">\n\
         <rect width=\"{w}\" height=\"{h}\" rx=\"6\" fill=\"{BACKGROUND}\"/>\n"
    );
    for (row, cells) in buffer.content.chunks(columns).enumerate() {
        let y = MARGIN + row as f64 * CELL.1;
        let mut at = 0;
        while let Some((first, rest)) = cells.get(at..).and_then(<[Cell]>::split_first) {
            let looks = |cell: &&Cell| look(cell) == look(first) && bar(cell.symbol()).is_none();
            let run =
                if bar(first.symbol()).is_some() { 1 } else { 1 + rest.iter().take_while(looks).count() };
            let run = run.max(width(first.symbol()));
            let cells: Vec<&Cell> = cells.iter().skip(at).take(run).collect();
            write_run(&mut svg, &cells, MARGIN + at as f64 * CELL.0, y);
            at += run;
        }
    }
    svg + "</svg>\n"
}

/// Writes cells that look the same.
fn write_run(svg: &mut String, cells: &[&Cell], x: f64, y: f64) {
    let Some((front, back, is_bold)) = cells.first().map(|cell| look(cell)) else { return };
    let (w, h) = (cells.len() as f64 * CELL.0, CELL.1);
    let mut rect = |y: f64, h: f64, colour: &str| {
        let _ = writeln!(svg, "<rect x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\" fill=\"{colour}\"/>");
    };
    if back != BACKGROUND {
        rect(y, h, back);
    }
    if let Some((top, height)) = cells.first().and_then(|cell| bar(cell.symbol())) {
        return rect(y + top * h, height * h, front);
    }
    // A wide character takes two cells, of which the second is blank.
    let (mut text, mut taken) = (String::new(), 0);
    for (at, cell) in cells.iter().enumerate().filter(|(_, cell)| !cell.symbol().is_empty()) {
        if at >= taken {
            text += cell.symbol();
            taken = at + width(cell.symbol()).max(1);
        }
    }
    if text.trim().is_empty() {
        return;
    }
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let weight = if is_bold { " font-weight=\"bold\"" } else { "" };
    // The length keeps the columns in line whatever font there is.
    let _ = writeln!(
        svg,
        "<text x=\"{x}\" y=\"{}\" textLength=\"{w}\" lengthAdjust=\"spacingAndGlyphs\" fill=\"{front}\"{weight} \
         xml:space=\"preserve\">{text}</text>",
        y + BASELINE
    );
}

/// The colours of a cell, its background second, and whether it is bold.
fn look(cell: &Cell) -> (&'static str, &'static str, bool) {
    let (front, back) = (hex(cell.fg, FOREGROUND), hex(cell.bg, BACKGROUND));
    let is_bold = cell.modifier.contains(Modifier::BOLD);
    match cell.modifier.contains(Modifier::REVERSED) {
        true => (back, front, is_bold),
        false => (front, back, is_bold),
    }
}

fn hex(colour: Color, default: &'static str) -> &'static str {
    match colour {
        Color::Green => "#6cc66a",
        Color::Yellow => "#e2b93d",
        Color::Red => "#ef6262",
        Color::Cyan => "#56c2d6",
        Color::DarkGray => "#7c8591",
        _ => default,
    }
}

/// The characters that fonts draw with gaps between them: their top and height, in parts of the cell's
/// height.
fn bar(symbol: &str) -> Option<(f64, f64)> {
    match symbol.chars().next()? {
        '─' => Some((0.5, 1.0 / CELL.1)),
        block @ '▁'..='█' => {
            let height = f64::from(u32::from(block) - u32::from('▁') + 1) / 8.0;
            Some((1.0 - height, height))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use ratatui::style::Style;

    use super::*;

    fn of(text: &str, style: Style) -> String {
        let mut buffer = Buffer::empty(ratatui::layout::Rect::new(0, 0, 10, 1));
        buffer.set_string(0, 0, text, style);
        svg(&buffer)
    }

    #[test]
    fn text_is_escaped_and_as_wide_as_its_cells() {
        let svg = of("a<b & c>d", Style::new().fg(Color::Red));
        assert!(svg.contains("textLength=\"72\""), "{svg}");
        assert!(svg.contains("fill=\"#ef6262\" xml:space=\"preserve\">a&lt;b &amp; c&gt;d</text>"), "{svg}");
    }

    #[test]
    fn a_reversed_line_is_dark_on_bright() {
        let svg = of("x", Style::new().add_modifier(Modifier::REVERSED));
        assert!(svg.contains(&format!("width=\"8\" height=\"17\" fill=\"{FOREGROUND}\"/>")), "{svg}");
        assert!(svg.contains(&format!("fill=\"{BACKGROUND}\" xml:space=\"preserve\">x</text>")), "{svg}");
    }

    #[test]
    fn bars_are_drawn_from_the_bottom() {
        let svg = of("▄█", Style::new());
        assert!(svg.contains("y=\"16.5\" width=\"8\" height=\"8.5\""), "{svg}");
        assert!(svg.contains("x=\"16\" y=\"8\" width=\"8\" height=\"17\""), "{svg}");
        assert!(!svg.contains('▄'), "{svg}");
    }

    #[test]
    fn a_wide_character_stands_once() {
        let svg = of("検証", Style::new());
        assert!(svg.contains("textLength=\"80\"") && svg.contains(">検証      </text>"), "{svg}");
    }
}
