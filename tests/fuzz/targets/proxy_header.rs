#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| unbroken::fuzz_support::proxy_header(data));
