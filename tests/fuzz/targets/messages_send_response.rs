//! For: bytes that libFuzzer finds for the parser `messages_send_response`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _depth = lianxin_specimens::parse("messages_send_response", bytes);
});
