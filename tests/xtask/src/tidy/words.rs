//! Nothing unfinished and no switched-off test: a gap is left out, not stubbed.

use anyhow::Result;

use super::Violation;
use super::house::House;
use crate::source::Source;

const BANNED: &[&str] = &["todo!", "unimplemented!", "dbg!", "#[ignore"];

pub(super) fn check(house: &House) -> Result<Vec<Violation>> {
    let found = house.sources.iter().flat_map(|source| occurrences(source, BANNED));
    Ok(found.map(|(place, word)| Violation::new(place, format!("`{word}` is not for a finished commit"))).collect())
}

/// Each place (`file:line`) in the code of `source` where one of `words` begins a word, in order.
pub(super) fn occurrences<'words>(source: &Source, words: &[&'words str]) -> Vec<(String, &'words str)> {
    let mut found = Vec::new();
    for word in words {
        for (at, _) in source.code.match_indices(word) {
            let before = source.code[..at].bytes().next_back();
            if !before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                found.push((format!("{}:{}", source.path, source.line(at)), *word));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        occurrences(&Source::new("a.rs", text), BANNED).into_iter().map(|(place, _)| place).collect()
    }

    #[test]
    fn an_unfinished_line_is_red() {
        assert_eq!(lines("fn a() {}\nfn b() { todo!() }"), ["a.rs:2"]);
        assert_eq!(lines("#[ignore = \"slow\"]\nfn b() {}"), ["a.rs:1"]);
        assert_eq!(lines("let x = dbg!(y);").len(), 1);
    }

    #[test]
    fn words_in_comments_strings_and_other_words_pass() {
        assert!(lines("// todo! later\nlet a = \"dbg!\"; my_dbg!(a);").is_empty());
    }
}
