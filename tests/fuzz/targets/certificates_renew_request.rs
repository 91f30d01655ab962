//! For: bytes that libFuzzer finds for the parser `certificates_renew_request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _depth = lianxin_specimens::parse("certificates_renew_request", bytes);
});
