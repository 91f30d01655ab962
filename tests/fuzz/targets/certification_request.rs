//! For: bytes that libFuzzer finds for the parser `certification_request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _depth = lianxin_specimens::parse("certification_request", bytes);
});
