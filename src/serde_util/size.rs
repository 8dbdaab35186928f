//! Sizes as people write them: a number of bytes, or text with a unit.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};
use serde::ser::Serializer;

/// The greatest first: a size is written with the first one that divides it.
const BINARY: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// As the SI has them (the `k` is small), and as drives are sold.
const DECIMAL: [(&str, u64); 5] =
    [("kB", 1_000), ("KB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000), ("TB", 1_000_000_000_000)];

const EXPECTED: &str = "a size such as \"64KiB\" or \"4MiB\", or a number of bytes";

pub(crate) fn serialize<S: Serializer>(size: &usize, serializer: S) -> Result<S::Ok, S::Error> {
    let size = *size as u64;
    let divides = |&&(_, factor): &&(&str, u64)| size >= factor && size.is_multiple_of(factor);
    let (unit, factor) = BINARY.iter().find(divides).copied().unwrap_or(("B", 1));
    serializer.collect_str(&format_args!("{}{unit}", size / factor))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    Size::deserialize(deserializer).map(|Size(size)| size)
}

/// A number of bytes.
pub(crate) struct Size(pub(crate) usize);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Human)
    }
}

struct Human;

impl Visitor<'_> for Human {
    type Value = Size;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_u64<E: Error>(self, bytes: u64) -> Result<Size, E> {
        let size = usize::try_from(bytes);
        size.map(Size).map_err(|_| E::invalid_value(Unexpected::Unsigned(bytes), &self))
    }

    fn visit_i64<E: Error>(self, bytes: i64) -> Result<Size, E> {
        let size = usize::try_from(bytes);
        size.map(Size).map_err(|_| E::invalid_value(Unexpected::Signed(bytes), &self))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Size, E> {
        parse(text)
            .map(Size)
            .map_err(|problem| E::custom(format_args!("{text:?} is not {EXPECTED}: {problem}")))
    }
}

fn parse(text: &str) -> Result<usize, &'static str> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: String = number.chars().filter(|&c| c != '_').collect();
    if number.is_empty() {
        return Err("it does not begin with a whole number");
    }
    let unit = unit.trim_start();
    let known = BINARY.iter().chain(&DECIMAL).find(|(name, _)| *name == unit);
    let factor = match (known, unit) {
        (Some((_, factor)), _) => *factor,
        (None, "") => 1,
        (None, _) => return Err("the unit must be one of B, KiB, MiB, GiB, TiB, kB, MB, GB, TB"),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    bytes.and_then(|bytes| usize::try_from(bytes).ok()).ok_or("it is too large")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, is) in [
            ("0", 0),
            ("512", 512),
            ("512B", 512),
            ("64KiB", 65_536),
            ("64 KiB", 65_536),
            (" 4MiB ", 4 << 20),
            ("1GiB", 1 << 30),
            ("2TiB", 2 << 40),
            ("1_000kB", 1_000_000),
            ("10MB", 10_000_000),
            ("18446744073709551615B", usize::MAX),
        ] {
            assert_eq!(parse(text), Ok(is), "{text}");
        }
        for (text, problem) in [
            ("", "whole number"),
            ("_", "whole number"),
            ("-1", "whole number"),
            ("MiB", "whole number"),
            (".5MiB", "whole number"),
            ("1.5MiB", "the unit must be"),
            ("4M", "the unit must be"),
            ("4mib", "the unit must be"),
            ("4 MiB/s", "the unit must be"),
            ("18446744073709551616", "too large"),
            ("16777216TiB", "too large"),
        ] {
            assert!(parse(text).unwrap_err().contains(problem), "{text}: {:?}", parse(text));
        }
    }

    #[test]
    fn a_size_is_written_in_one_form_and_read_back() {
        for (size, text) in [
            (0, "0B"),
            (1, "1B"),
            (1023, "1023B"),
            (1024, "1KiB"),
            (65_536, "64KiB"),
            ((4 << 20) + 1, "4194305B"),
            (34 << 20, "34MiB"),
            (1 << 40, "1TiB"),
            (usize::MAX, "18446744073709551615B"),
        ] {
            let written = serialize(&size, serde_json::value::Serializer).unwrap();
            assert_eq!(written, text);
            assert_eq!(deserialize(written).unwrap(), size);
        }
    }
}
