//! For: bytes that libFuzzer finds for the parser `snapshot_end`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _depth = lianxin_specimens::parse("snapshot_end", bytes);
});
