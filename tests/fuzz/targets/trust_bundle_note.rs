//! For: bytes that libFuzzer finds for the parser `trust_bundle_note`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _depth = lianxin_specimens::parse("trust_bundle_note", bytes);
});
