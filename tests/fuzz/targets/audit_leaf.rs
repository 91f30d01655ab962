//! For: bytes that libFuzzer finds for the parser `audit_leaf`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _depth = lianxin_specimens::parse("audit_leaf", bytes);
});
