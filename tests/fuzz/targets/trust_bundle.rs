//! For: bytes that libFuzzer finds for the parser `trust_bundle`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _depth = lianxin_specimens::parse("trust_bundle", bytes);
});
