//! For: bytes that libFuzzer finds for the parser `mls_welcome`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _depth = lianxin_specimens::parse("mls_welcome", bytes);
});
