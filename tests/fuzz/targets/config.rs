//! The file of settings: text from anywhere must be refused or accepted, and never be a panic.

#![no_main]

use unbroken::Config;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let Ok(config) = toml::from_str::<Config>(text) else { return };
    unbroken::fuzz_support::config(&config);
    // The settings that were read are those that are written. A setting too large for the format is refused by it.
    if let Ok(written) = toml::to_string(&config) {
        assert_eq!(toml::from_str::<Config>(&written).as_ref(), Ok(&config), "{written}");
    }
});
