//! Lists in files: where a list is meant its only entry may stand alone, as in `listen = "0.0.0.0:4000"`.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, IntoDeserializer, MapAccess, SeqAccess, Visitor};

pub(crate) fn deserialize<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_any(List(PhantomData))
}

/// Entries are read within the visitor, so that formats with positions (TOML, JSON) point at the entry that
/// is wrong.
struct List<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list, or its only entry")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(entry) = entries.next_element()? {
            list.push(entry);
        }
        Ok(list)
    }

    fn visit_map<A: MapAccess<'de>>(self, entry: A) -> Result<Vec<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(entry)).map(|entry| vec![entry])
    }

    fn visit_str<E: Error>(self, entry: &str) -> Result<Vec<T>, E> {
        T::deserialize(entry.into_deserializer()).map(|entry| vec![entry])
    }

    // These are right for no list there is; the error of the entry says what it should be.
    fn visit_i64<E: Error>(self, entry: i64) -> Result<Vec<T>, E> {
        T::deserialize(entry.into_deserializer()).map(|entry| vec![entry])
    }

    fn visit_u64<E: Error>(self, entry: u64) -> Result<Vec<T>, E> {
        T::deserialize(entry.into_deserializer()).map(|entry| vec![entry])
    }

    fn visit_bool<E: Error>(self, entry: bool) -> Result<Vec<T>, E> {
        T::deserialize(entry.into_deserializer()).map(|entry| vec![entry])
    }
}

/// Implements `Deserialize` for an entry of a list that is written as a string: what is expected, and a
/// function that parses it or returns what is wrong with it.
macro_rules! text_entry {
    ($entry:ident, $expected:expr, $parse:expr) => {
        impl<'de> serde::Deserialize<'de> for $entry {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl serde::de::Visitor<'_> for Text {
                    type Value = $entry;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str($expected)
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$entry, E> {
                        let parse: fn(&str) -> Result<$entry, String> = $parse;
                        parse(text).map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    };
}
pub(crate) use text_entry;
