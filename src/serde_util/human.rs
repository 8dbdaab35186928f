//! Durations as people write them.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserializer, Error, Visitor};
use serde::ser::Serializer;

pub(crate) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*time))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_str(Human)
}

struct Human;

impl Visitor<'_> for Human {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration such as \"15s\", \"1m 30s\" or \"250ms\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
        let wrong = |problem: &dyn fmt::Display| {
            E::custom(format_args!(
                "{text:?} is not a duration such as \"15s\", \"1m 30s\" or \"250ms\": {problem}"
            ))
        };
        if text.split(|c: char| !c.is_alphabetic()).any(|unit| unit == "M") {
            return Err(wrong(&"M may be minutes or months, write \"m\" or \"months\""));
        }
        humantime::parse_duration(text).map_err(|error| wrong(&error))
    }
}
