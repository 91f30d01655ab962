//! For: bytes that libFuzzer finds for the parser `channels_replace_group_info_request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _depth = lianxin_specimens::parse("channels_replace_group_info_request", bytes);
});
