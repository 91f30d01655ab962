//! For: bytes that libFuzzer finds for the parser `root_keys`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _depth = lianxin_specimens::parse("root_keys", bytes);
});
