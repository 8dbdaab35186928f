//! Lanes in files. An entry of `lanes` changes the lane with its id, or adds one; the default lanes that the
//! file does not mention stay as they are, behind the others.

use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::Serializer;

use crate::lane::{AckMode, LaneConfig, LaneId, Priority, WhenFull};
use crate::serde_util::known::known_names;
use crate::serde_util::list;
use crate::serde_util::size::Size;

pub(super) fn serialize<S: Serializer>(lanes: &[LaneConfig], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(serde::Serialize)]
    #[serde(untagged)]
    enum Entry<'a> {
        Lane(&'a LaneConfig),
        Removed { id: LaneId, remove: bool },
    }
    let is_missing = |default: &LaneConfig| lanes.iter().all(|lane| lane.id != default.id);
    let missing = LaneConfig::defaults().into_iter().filter(is_missing);
    let removed = missing.map(|lane| Entry::Removed { id: lane.id, remove: true });
    serializer.collect_seq(lanes.iter().map(Entry::Lane).chain(removed))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<LaneConfig>, D::Error> {
    merge(&list::deserialize::<D, Written>(deserializer)?).map_err(D::Error::custom)
}

impl<'de> Deserialize<'de> for LaneConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written: Written = Deserialize::deserialize(deserializer)?;
        if written.remove {
            return Err(D::Error::custom("`remove` has a meaning in the list of lanes only"));
        }
        Ok(written.lane())
    }
}

/// A [`LaneConfig`] as it stands in a file.
#[derive(serde::Deserialize)]
#[serde(remote = "Self")]
struct Written {
    id: LaneId,
    #[serde(default)]
    remove: bool,
    priority: Option<Priority>,
    max_message: Option<Size>,
    window: Option<Size>,
    max_untaken: Option<u32>,
    queue: Option<Size>,
    when_full: Option<WhenFull>,
    ack_mode: Option<AckMode>,
    slot: Option<u8>,
}
known_names!(Written);

impl Written {
    /// The lane, where the file says nothing as the default one with this id.
    fn lane(&self) -> LaneConfig {
        let Written {
            id,
            remove: _,
            priority,
            max_message,
            window,
            max_untaken,
            queue,
            when_full,
            ack_mode,
            slot,
        } = self;
        let default = LaneConfig::defaults().into_iter().find(|lane| lane.id == *id);
        let default = default.unwrap_or(LaneConfig { id: *id, ..LaneConfig::default() });
        let size = |size: &Option<Size>, default| size.as_ref().map_or(default, |Size(size)| *size);
        LaneConfig {
            id: *id,
            priority: priority.unwrap_or(default.priority),
            max_message: size(max_message, default.max_message),
            window: size(window, default.window),
            max_untaken: max_untaken.unwrap_or(default.max_untaken),
            queue: size(queue, default.queue),
            when_full: when_full.unwrap_or(default.when_full),
            ack_mode: ack_mode.unwrap_or(default.ack_mode),
            slot: slot.or(default.slot),
        }
    }
}

fn merge(written: &[Written]) -> Result<Vec<LaneConfig>, String> {
    let mut left = LaneConfig::defaults();
    let mut lanes = Vec::new();
    for (index, entry) in written.iter().enumerate() {
        let id = entry.id;
        if written.iter().take(index).any(|earlier| earlier.id == id) {
            return Err(format!("lanes[{index}].id: {} is listed already", id.0));
        }
        let is_default = left.iter().any(|lane| lane.id == id);
        if entry.remove && !is_default {
            return Err(format!("lanes[{index}].remove: {} is no default lane", id.0));
        }
        left.retain(|lane| lane.id != id);
        if !entry.remove {
            lanes.push(entry.lane());
        }
    }
    lanes.extend(left);
    Ok(lanes)
}
