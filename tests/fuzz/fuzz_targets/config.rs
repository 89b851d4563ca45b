#![no_main]
#![expect(missing_docs, reason = "a target is its name")]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cardbridge_fuzz::config::check(data));
