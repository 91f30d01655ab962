//! How much a seeded story does: a fixed small share by default, the whole with `cargo xtask test --long`.

/// `LIANXIN_TEST_SEED`, printed and set by `cargo xtask test`; a fixed one for a bare `cargo test`.
pub(crate) fn seed() -> u64 {
    std::env::var("LIANXIN_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_261_123)
}

/// `quick`, or `long` where `LIANXIN_TEST_LONG` is set.
pub(crate) fn share(quick: usize, long: usize) -> usize {
    if std::env::var_os("LIANXIN_TEST_LONG").is_some() { long } else { quick }
}

/// A long run is reported with what it did.
#[expect(clippy::print_stdout, reason = "that is for whoever keeps the report")]
pub(crate) fn closing_line(text: &str) {
    println!("{text}");
}
