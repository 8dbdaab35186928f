//! The same for one that need not be there.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer};

use super::human;

pub(crate) fn serialize<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => human::serialize(time, serializer),
        None => serializer.serialize_none(),
    }
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    #[derive(Deserialize)]
    struct Human(#[serde(with = "human")] Duration);
    Ok(Option::<Human>::deserialize(deserializer)?.map(|Human(time)| time))
}
