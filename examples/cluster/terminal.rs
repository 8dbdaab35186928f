//! Text for a terminal of 80 columns, with colours where it has them.

use std::io::{self, IsTerminal};

/// One column less than the terminal has: some wrap a line that fills the last one.
pub(crate) const WIDTH: usize = 79;

/// Breaks a text between words into lines of at most so many characters; a longer word is broken, too.
pub(crate) fn fold(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let letters: Vec<char> = word.chars().collect();
        for (number, piece) in letters.chunks(width.max(1)).enumerate() {
            let Some(line) = lines.last_mut() else { continue };
            let room = line.is_empty() || (number == 0 && line.chars().count() + 1 + piece.len() <= width);
            if !room {
                lines.push(String::new());
            }
            let Some(line) = lines.last_mut() else { continue };
            if !line.is_empty() {
                line.push(' ');
            }
            line.extend(piece);
        }
    }
    lines
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    Bold,
    Green,
    Red,
    Yellow,
}

/// Paints, or leaves text as it is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Paint(bool);

impl Paint {
    /// Colours for standard output, if it can show them and nobody asked for none (<https://no-color.org>).
    pub(crate) fn for_stdout() -> Paint {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Paint(is_screen() && !unwanted)
    }

    pub(crate) fn paint(self, colour: Colour, text: &str) -> String {
        let code = match colour {
            Colour::Bold => "1",
            Colour::Green => "1;32",
            Colour::Red => "1;31",
            Colour::Yellow => "1;33",
        };
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Paints the beginning of a text.
    pub(crate) fn begin(self, colour: Colour, begin: &str, text: &str) -> String {
        match text.strip_prefix(begin) {
            Some(rest) => format!("{}{rest}", self.paint(colour, begin)),
            None => text.to_owned(),
        }
    }
}

/// Standard output is a terminal on which the cursor can be moved.
pub(crate) fn is_screen() -> bool {
    io::stdout().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words_and_never_too_long() {
        assert_eq!(fold("one two  three", 7), ["one two", "three"]);
        assert_eq!(fold("one two three", 8), ["one two", "three"]);
        assert_eq!(fold("", 8), [""]);
        assert_eq!(fold("a abcdefghij k", 4), ["a", "abcd", "efgh", "ij k"]);
        assert_eq!(fold("ééé ééé", 3), ["ééé", "ééé"]);
    }

    #[test]
    fn colours_are_only_where_they_are_wanted() {
        assert_eq!(Paint(false).begin(Colour::Red, "FAIL", "FAIL: x"), "FAIL: x");
        assert_eq!(Paint(true).begin(Colour::Red, "FAIL", "FAIL: x"), "\x1b[1;31mFAIL\x1b[0m: x");
        assert_eq!(Paint(true).begin(Colour::Red, "FAIL", "PASS: x"), "PASS: x");
    }
}
