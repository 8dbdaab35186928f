#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| unbroken::__fuzz::frames(data));
