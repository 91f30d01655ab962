//! The visible root is fixed (DESIGN 3): what does not start with a dot is one of these names.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};

use super::Violation;
use super::house::House;

const VISIBLE: &[&str] =
    &["Cargo.lock", "Cargo.toml", "LICENSE", "README.md", "certs-dev", "client-sdk", "gateway", "proto", "tests"];

/// Where Cargo builds; not part of the project.
const BUILD: &str = "target";

pub(super) fn check(house: &House) -> Result<Vec<Violation>> {
    let entries = std::fs::read_dir(&house.root).context("read the root folder")?;
    let names =
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<Result<Vec<_>>>()?;
    Ok(violations(names.iter().map(String::as_str)))
}

fn violations<'names>(names: impl Iterator<Item = &'names str>) -> Vec<Violation> {
    let visible: BTreeSet<&str> = names.filter(|name| !name.starts_with('.') && *name != BUILD).collect();
    let wanted: BTreeSet<&str> = VISIBLE.iter().copied().collect();
    let extra = visible.difference(&wanted).map(|name| Violation::new(*name, "does not belong in the root"));
    let missing = wanted.difference(&visible).map(|name| Violation::new(*name, "is missing in the root"));
    extra.chain(missing).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_more_or_less_is_red() {
        let plus = VISIBLE.iter().copied().chain(["docs"]);
        assert_eq!(violations(plus), [Violation::new("docs", "does not belong in the root")]);
        let minus = VISIBLE.iter().copied().filter(|name| *name != "LICENSE");
        assert_eq!(violations(minus), [Violation::new("LICENSE", "is missing in the root")]);
    }

    #[test]
    fn hidden_names_and_the_build_pass() {
        assert!(violations(VISIBLE.iter().copied().chain([".cargo", "target"])).is_empty());
    }
}
