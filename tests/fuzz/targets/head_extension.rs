//! For: bytes that libFuzzer finds for the parser `head_extension`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _depth = lianxin_specimens::parse("head_extension", bytes);
});
