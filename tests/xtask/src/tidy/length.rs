//! No source file over 500 lines, tests apart (STYLE 1).

use anyhow::Result;

use super::Violation;
use super::house::House;
use crate::source::Source;

const LINES_MAX: usize = 500;

pub(super) fn check(house: &House) -> Result<Vec<Violation>> {
    Ok(house.sources.iter().filter_map(too_long).collect())
}

fn too_long(source: &Source) -> Option<Violation> {
    let lines = if is_test(&source.path) { 0 } else { lines_before_tests(&source.text) };
    (lines > LINES_MAX)
        .then(|| Violation::new(&source.path, format!("{lines} lines; stop at {LINES_MAX}: one idea per file")))
}

/// A file of tests alone: `tests.rs`, a crate's own `tests` folder, or the stories. The root folder `tests` also holds
/// programs, which count.
fn is_test(path: &str) -> bool {
    let folders = path.strip_prefix("tests/").unwrap_or(path);
    path.ends_with("/tests.rs")
        || folders.contains("/tests/")
        || folders.starts_with("e2e/")
        || folders.starts_with("sim/")
}

/// Lines up to the unit tests at the end of the file.
fn lines_before_tests(text: &str) -> usize {
    let code = text.find("\n#[cfg(test)]\nmod tests {").map_or(text, |start| &text[..=start]);
    code.lines().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_too_many_is_red() {
        assert!(too_long(&Source::new("gateway/src/app.rs", "x\n".repeat(500))).is_none());
        assert!(too_long(&Source::new("gateway/src/app.rs", "x\n".repeat(501))).is_some());
        assert!(too_long(&Source::new("tests/harness/src/federation.rs", "x\n".repeat(501))).is_some());
    }

    #[test]
    fn tests_are_apart() {
        assert!(too_long(&Source::new("gateway/tests/refusals.rs", "x\n".repeat(501))).is_none());
        assert!(too_long(&Source::new("tests/e2e/crash.rs", "x\n".repeat(501))).is_none());
        let with_tests = format!("{}#[cfg(test)]\nmod tests {{\n{}}}\n", "x\n".repeat(500), "y\n".repeat(300));
        assert!(too_long(&Source::new("gateway/src/app.rs", with_tests)).is_none());
    }
}
