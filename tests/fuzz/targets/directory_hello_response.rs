//! For: bytes that libFuzzer finds for the parser `directory_hello_response`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _depth = lianxin_specimens::parse("directory_hello_response", bytes);
});
