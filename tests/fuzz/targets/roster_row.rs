//! For: bytes that libFuzzer finds for the parser `roster_row`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _depth = lianxin_specimens::parse("roster_row", bytes);
});
