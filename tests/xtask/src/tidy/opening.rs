//! Every crate opens with what it is for and what it must never know (STYLE 14).

use anyhow::Result;

use super::Violation;
use super::house::{House, Package};
use crate::source::Source;

const NEVER: &str = "Must never know";
const FOR: &str = "For:";

pub(super) fn check(house: &House) -> Result<Vec<Violation>> {
    let mut violations = Vec::new();
    for package in &house.packages {
        for target in &package.targets {
            if let Some(source) = house.source(&target.path) {
                violations.extend(wrong_opening(source, demand(package, &target.kind)));
            }
        }
    }
    Ok(violations)
}

/// What a target's first file has to say.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Demand {
    /// What the crate must never know.
    Never,
    /// What it is for, or what it must never know.
    For,
    /// Anything, in inner doc comments.
    Docs,
}

fn demand(package: &Package, kind: &str) -> Demand {
    match kind {
        "test" | "example" | "bench" | "custom-build" => Demand::Docs,
        "bin" => Demand::For,
        _ if package.folder.starts_with("tests/") => Demand::For,
        _ => Demand::Never,
    }
}

fn wrong_opening(source: &Source, demand: Demand) -> Option<Violation> {
    if !source.text.starts_with("//!") {
        return Some(Violation::new(&source.path, "does not open with `//!`"));
    }
    let lines = source.text.lines().take_while(|line| line.starts_with("//!"));
    // A sentence may be broken over lines.
    let opening = lines.map(|line| line.trim_start_matches("//!").trim()).collect::<Vec<_>>().join(" ");
    let missing = match demand {
        Demand::Never if !opening.contains(NEVER) => "\"Must never know\"",
        Demand::For if !opening.contains(NEVER) && !opening.contains(FOR) => "\"For:\" or \"Must never know\"",
        _ => return None,
    };
    Some(Violation::new(&source.path, format!("its opening does not say {missing}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str, demand: Demand) -> bool {
        wrong_opening(&Source::new("a/src/lib.rs", text), demand).is_some()
    }

    #[test]
    fn a_crate_without_its_opening_is_red() {
        assert!(wrong("mod a;", Demand::Docs));
        assert!(wrong("//! Does things.\nmod a;", Demand::Never));
        assert!(wrong("//! For: tests.", Demand::Never));
        assert!(wrong("//! Does things.", Demand::For));
        assert!(wrong("//! Does things.\n\n//! Must never know: late.", Demand::Never), "it is in the first block");
    }

    #[test]
    fn a_proper_opening_passes() {
        assert!(!wrong("//! Does things. Must never\n//! know: others.", Demand::Never));
        assert!(!wrong("//! For: tests.", Demand::For));
        assert!(!wrong("//! A story.", Demand::Docs));
    }

    #[test]
    fn libraries_say_the_most() {
        let package = |folder: &str| Package { folder: folder.into(), ..Package::default() };
        assert!(demand(&package("gateway/rpc"), "lib") == Demand::Never);
        assert!(demand(&package("tests/harness"), "lib") == Demand::For);
        assert!(demand(&package("gateway"), "bin") == Demand::For);
    }
}
