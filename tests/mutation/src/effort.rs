//! How much a seeded test does: a share by default, the whole with `cargo xtask test --long`.

/// `LIANXIN_TEST_SEED`, printed and set by `cargo xtask test`; a fixed one for a bare `cargo test`.
pub fn seed() -> u64 {
    std::env::var("LIANXIN_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_261_126)
}

/// `quick`, or `long` where `LIANXIN_TEST_LONG` is set.
pub fn share(quick: usize, long: usize) -> usize {
    if std::env::var_os("LIANXIN_TEST_LONG").is_some() { long } else { quick }
}
