//! Every dependency in the lock file can be used and passed on under one of these licences.

use anyhow::Result;

use super::Violation;
use super::house::{Foreign, House};

/// SPDX names. Weak copyleft (MPL) binds its own files only.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "Unlicense",
    "Zlib",
];

pub(super) fn check(house: &House) -> Result<Vec<Violation>> {
    Ok(house.foreign.iter().filter_map(refused).collect())
}

fn refused(package: &Foreign) -> Option<Violation> {
    let licence = package.licence.as_deref().unwrap_or("no licence");
    let place = || format!("{} {}", package.name, package.version);
    (!allows(licence)).then(|| Violation::new(place(), format!("`{licence}` is not on the list of allowed licences")))
}

/// Whether an SPDX expression can be met: any side of an OR, both sides of an AND, AND binding closer. `/` is an old OR.
fn allows(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    let met = any(&mut words);
    met && words.next().is_none()
}

type Words<'text> = std::iter::Peekable<std::str::SplitWhitespace<'text>>;

fn any(words: &mut Words<'_>) -> bool {
    let mut met = all(words);
    while words.next_if_eq(&"OR").is_some() {
        // Both sides are read, whatever the first one said.
        met = all(words) || met;
    }
    met
}

fn all(words: &mut Words<'_>) -> bool {
    let mut met = one(words);
    while words.next_if_eq(&"AND").is_some() {
        met = one(words) && met;
    }
    met
}

fn one(words: &mut Words<'_>) -> bool {
    let Some(word) = words.next() else { return false };
    if word == "(" {
        let met = any(words);
        return words.next() == Some(")") && met;
    }
    match words.next_if_eq(&"WITH").and_then(|_| words.next()) {
        Some(exception) => ALLOWED.contains(&format!("{word} WITH {exception}").as_str()),
        None => ALLOWED.contains(&word),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_licence_that_is_not_listed_is_red() {
        for licence in ["GPL-3.0-only", "MIT AND GPL-3.0-only", "(MIT OR Apache-2.0) AND LGPL-3.0-only", "", "(MIT"] {
            let package = Foreign { name: "x".into(), version: "1.0.0".into(), licence: Some(licence.into()) };
            assert!(refused(&package).is_some(), "{licence}");
        }
        assert!(refused(&Foreign { name: "x".into(), version: "1.0.0".into(), licence: None }).is_some());
    }

    #[test]
    fn a_way_to_meet_it_passes() {
        for licence in [
            "MIT/Apache-2.0",
            "GPL-3.0-only OR MIT",
            "ISC AND (Apache-2.0 OR GPL-2.0-only)",
            "Apache-2.0 WITH LLVM-exception",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
        ] {
            assert!(allows(licence), "{licence}");
        }
    }
}
