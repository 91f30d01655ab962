//! For: bytes that libFuzzer finds for the parser `group_snapshot`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _depth = lianxin_specimens::parse("group_snapshot", bytes);
});
