//! For: bytes that libFuzzer finds for the parser `stored_unit`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _depth = lianxin_specimens::parse("stored_unit", bytes);
});
