//! For: bytes that libFuzzer finds for the parser `key_packages_publish_request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _depth = lianxin_specimens::parse("key_packages_publish_request", bytes);
});
