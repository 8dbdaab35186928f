//! The error for a setting that does not exist names the one that was probably meant.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, Visitor};
use serde::forward_to_deserialize_any;

/// Reads a struct from a table, and refuses names that are none of its fields.
pub(crate) struct Known<D>(pub(crate) D);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Known<D> {
    type Error = D::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_struct(name, fields, Table { fields, visitor })
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

struct Table<V> {
    fields: &'static [&'static str],
    visitor: V,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Table<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of settings")
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_map(Entries { fields: self.fields, entries })
    }
}

struct Entries<A> {
    fields: &'static [&'static str],
    entries: A,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Entries<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        let name = self.entries.next_key_seed(Name(self.fields))?;
        name.map(|name| seed.deserialize(name.into_deserializer())).transpose()
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.entries.next_value_seed(seed)
    }
}

/// One of these names. It is checked where it is read, so that formats with positions point at it.
struct Name(&'static [&'static str]);

impl<'de> DeserializeSeed<'de> for Name {
    type Value = &'static str;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<&'static str, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Name {
    type Value = &'static str;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a setting")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<&'static str, E> {
        let known = self.0.iter().copied().find(|known| *known == name);
        known.ok_or_else(|| E::custom(unknown(name, self.0)))
    }
}

/// A longer name is nobody's typing error, and to compare it takes time.
const LONGEST: usize = 64;

fn unknown(name: &str, fields: &[&str]) -> String {
    let distance = |field: &&&str| strsim::damerau_levenshtein(name, field);
    let nearest = fields.iter().filter(|_| name.len() <= LONGEST).min_by_key(distance);
    // A third of the letters may be wrong.
    match nearest.filter(|field| distance(field) <= field.len().max(3) / 3) {
        Some(nearest) => format!("unknown setting `{name}`, did you mean `{nearest}`?"),
        None => {
            let shown: String = name.chars().take(LONGEST).collect();
            format!("unknown setting `{shown}`, expected one of `{}`", fields.join("`, `"))
        }
    }
}

/// Implements `Deserialize` through [`Known`] for structs that derive it with `#[serde(remote = "Self")]`:
/// then the derived functions are inherent ones.
macro_rules! known_names {
    ($($settings:ident),+) => {
        $(impl<'de> serde::Deserialize<'de> for $settings {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $settings::deserialize($crate::serde_util::known::Known(deserializer))
            }
        })+
    };
}
pub(crate) use known_names;

/// The same for public structs that also derive `Serialize`. The derived functions are as public as the
/// struct and would stand on its page, so the documentation is built from the plain derives.
/// `deny_unknown_fields` is for programs whose call finds the inherent `deserialize` and not the one of the
/// trait.
macro_rules! known_settings {
    ($settings:ident) => {
        #[cfg(not(doc))]
        $crate::serde_util::known::known_names!($settings);

        #[cfg(not(doc))]
        impl serde::Serialize for $settings {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                $settings::serialize(self, serializer)
            }
        }
    };
}
pub(crate) use known_settings;
