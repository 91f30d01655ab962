//! For: bytes that libFuzzer finds for the parser `directory_get_trust_request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _depth = lianxin_specimens::parse("directory_get_trust_request", bytes);
});
