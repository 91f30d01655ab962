//! Time is asked in one file (DESIGN 12). Clippy refuses the same calls where it can see them; this also sees into macros.

use anyhow::Result;

use super::Violation;
use super::house::House;
use super::words::occurrences;

/// The one file.
const CLOCK: &str = "proto/types/src/clock.rs";

const BANNED: &[&str] = &[
    "SystemTime::now",
    "Instant::now",
    "tokio::time",
    "thread::sleep",
    "time::sleep(",
    "time::timeout(",
    "time::interval(",
];

pub(super) fn check(house: &House) -> Result<Vec<Violation>> {
    let sources = house.sources.iter().filter(|source| source.path != CLOCK);
    Ok(sources
        .flat_map(|source| occurrences(source, BANNED))
        .map(|(place, word)| Violation::new(place, format!("`{word}`: take a lianxin_types::Clock instead")))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Source;

    fn check_one(path: &str, text: &str) -> usize {
        let house = House { sources: vec![Source::new(path, text)], ..House::default() };
        check(&house).expect("no I/O").len()
    }

    #[test]
    fn a_second_clock_is_red() {
        assert_eq!(check_one("gateway/src/app.rs", "let now = std::time::Instant::now();"), 1);
        assert_eq!(check_one("gateway/src/app.rs", "use tokio::time::{sleep, timeout};"), 1);
        assert_eq!(check_one("tests/e2e/main.rs", "macro_rules! m { () => { SystemTime::now() } }"), 1);
    }

    #[test]
    fn the_one_file_and_mere_words_pass() {
        assert_eq!(check_one(CLOCK, "std::time::Instant::now()"), 0);
        assert_eq!(check_one("gateway/src/app.rs", "// never Instant::now\nlet text = \"tokio::time\";"), 0);
    }
}
