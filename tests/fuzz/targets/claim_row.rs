//! For: bytes that libFuzzer finds for the parser `claim_row`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _depth = lianxin_specimens::parse("claim_row", bytes);
});
