//! The settings.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::serde_util::known::known_settings;

/// When a peer that misbehaves is banned, and for how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(doc, serde(default))] // See `known_settings`.
#[cfg_attr(not(doc), serde(default, deny_unknown_fields, remote = "Self"))]
pub struct ConductConfig {
    /// How many strikes ban. Default 100: two protocol errors, or five invalid messages, within five
    /// minutes; see [`Misbehavior`](crate::Misbehavior). Too small: one bug bans honest peers. Too large: an
    /// attacker has more attempts.
    pub threshold: u32,
    /// How long until a strike counts half. Default 10 min. Too small: who offends slowly is never
    /// banned. Too large: honest mistakes of a whole day add up.
    #[serde(with = "crate::serde_util::human")]
    pub half_life: Duration,
    /// How long a proven identity stays banned. Default 1 h. Identities cost nothing, so a longer time
    /// deters no attacker; it is long enough to be repaired in.
    #[serde(with = "crate::serde_util::human")]
    pub ban_time: Duration,
    /// How long an address stays banned. Default 5 min: honest peers may share it behind a NAT.
    #[serde(with = "crate::serde_util::human")]
    pub address_ban_time: Duration,
    /// Whether strikes ban wanted peers too. Default no: they are disconnected and redialled with
    /// backoff, because a bug in a new version must not take a validator set apart.
    pub ban_wanted: bool,
    /// For how many peers and addresses strikes are remembered. Default 4,096, about 100 bytes each.
    pub max_records: usize,
    /// How many bans there may be at once. Default 4,096, up to about 400 bytes each. Beyond it the one that
    /// ends first is lifted.
    pub max_bans: usize,
}

known_settings!(ConductConfig);

impl Default for ConductConfig {
    fn default() -> Self {
        ConductConfig {
            threshold: 100,
            half_life: Duration::from_secs(600),
            ban_time: Duration::from_secs(3600),
            address_ban_time: Duration::from_secs(300),
            ban_wanted: false,
            max_records: 4096,
            max_bans: 4096,
        }
    }
}

impl ConductConfig {
    /// The first setting that cannot be right, and what was expected.
    pub(crate) fn problem(&self) -> Option<(&'static str, String)> {
        let far = Duration::from_secs(365 * 24 * 3600);
        let numbers = [
            ("conduct.threshold", self.threshold as usize),
            ("conduct.max_records", self.max_records),
            ("conduct.max_bans", self.max_bans),
        ];
        let times = [
            ("conduct.half_life", self.half_life),
            ("conduct.ban_time", self.ban_time),
            ("conduct.address_ban_time", self.address_ban_time),
        ];
        let number = numbers.into_iter().find(|(_, value)| *value == 0);
        let time = times.into_iter().find(|(_, value)| value.is_zero() || *value > far);
        number
            .map(|(name, _)| (name, "must be at least 1".to_owned()))
            .or(time.map(|(name, value)| (name, format!("{value:?} is not between 0 and a year"))))
    }
}
