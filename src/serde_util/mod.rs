//! How settings are written in files: durations, sizes, networks, lists whose only entry may stand alone, and
//! errors that name an unknown setting and the closest known one.

pub(crate) mod human;
pub(crate) mod human_option;
pub(crate) mod known;
pub(crate) mod list;
pub(crate) mod networks;
pub(crate) mod size;
