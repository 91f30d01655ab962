//! For: bytes that libFuzzer finds for the parser `payload`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _depth = lianxin_specimens::parse("channels_start_incarnation_response", bytes);
});
