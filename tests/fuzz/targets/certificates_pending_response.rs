//! For: bytes that libFuzzer finds for the parser `certificates_pending_response`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _depth = lianxin_specimens::parse("certificates_pending_response", bytes);
});
