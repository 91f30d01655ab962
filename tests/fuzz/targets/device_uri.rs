//! For: bytes that libFuzzer finds for the parser `device_uri`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _depth = lianxin_specimens::parse("device_uri", bytes);
});
