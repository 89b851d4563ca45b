#![no_main]
#![expect(missing_docs, reason = "a target is its name")]

use cardbridge::domain::Family;

libfuzzer_sys::fuzz_target!(|data: &[u8]| cardbridge_fuzz::card::check(Family::Gids, data));
