//! Internals for the fuzz targets: one function for each. **Not part of the API**: it exists only with
//! `--cfg fuzzing`, which `cargo fuzz` sets.
//!
//! A function takes whatever the fuzzer came up with and panics if something does not hold that
//! should. How to run them, and what they cover: `tests/fuzz/README.md`.

mod frames;
mod handshake;
mod link;
mod proxy_header;
mod records;
mod script;
#[cfg(test)]
mod seeds;
mod side;

pub use crate::link::sim::pair;
pub use frames::frames;
pub use handshake::handshake;
pub use link::link;
pub use proxy_header::proxy_header;
pub use records::records;

use crate::config::Config;

/// Settings as they came out of a file: valid or refused, with the name of the setting.
pub fn config(config: &Config) {
    if let Err(error) = config.validate() {
        assert!(!error.setting().is_empty(), "{error}");
    }
}
