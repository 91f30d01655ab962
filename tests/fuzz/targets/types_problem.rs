//! For: bytes that libFuzzer finds for the parser `types_problem`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _depth = lianxin_specimens::parse("types_problem", bytes);
});
