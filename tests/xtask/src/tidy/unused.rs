//! No dependency that is only listed: it is built, reviewed and updated for nothing.

use anyhow::Result;

use super::Violation;
use super::house::{House, Package};
use crate::source::Source;

/// Crate, dependency: listed, and named in no file of ours.
const ALLOWED: &[(&str, &str)] = &[
    // The code that its build script generates from the contract names it.
    ("lianxin-proto", "tonic-prost"),
];

pub(super) fn check(house: &House) -> Result<Vec<Violation>> {
    Ok(house.packages.iter().flat_map(|package| unused(house, package)).collect())
}

fn unused(house: &House, package: &Package) -> Vec<Violation> {
    let sources: Vec<_> = house.sources.iter().filter(|source| owner(house, source) == Some(&package.name)).collect();
    let named = |in_code: &str| sources.iter().any(|source| names(&source.code, in_code));
    let allowed = |name: &str| ALLOWED.contains(&(package.name.as_str(), name));
    let listed = package.listed.iter();
    listed
        .filter(|listed| !named(&listed.in_code) && !allowed(&listed.name))
        .map(|listed| Violation::new(&package.name, format!("lists {} and names it nowhere", listed.name)))
        .collect()
}

/// The crate whose folder holds this file; crates lie inside the folders of others.
fn owner<'house>(house: &'house House, source: &Source) -> Option<&'house String> {
    let inside = |package: &&Package| {
        source.path.strip_prefix(&package.folder).is_some_and(|rest| package.folder.is_empty() || rest.starts_with('/'))
    };
    let holders = house.packages.iter().filter(inside);
    holders.max_by_key(|package| package.folder.len()).map(|package| &package.name)
}

/// Whether `code` has `krate` as a path's first word, or imports it.
fn names(code: &str, krate: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    code.match_indices(krate).any(|(at, _)| {
        let (before, after) = (&code[..at], &code[at + krate.len()..]);
        let whole = !before.bytes().next_back().is_some_and(is_word) && !after.bytes().next().is_some_and(is_word);
        // `::krate` starts at the root, `other::krate` does not.
        let inner = before.strip_suffix("::").and_then(|outer| outer.bytes().next_back());
        whole && !inner.is_some_and(is_word) && (after.starts_with("::") || before.ends_with("use "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::house::Listed;

    fn package(name: &str, folder: &str, listed: &[&str]) -> Package {
        let listed = listed.iter().map(|name| Listed { name: (*name).to_owned(), in_code: name.replace('-', "_") });
        Package { name: name.into(), folder: folder.into(), listed: listed.collect(), ..Package::default() }
    }

    fn found(packages: Vec<Package>, files: &[(&str, &str)]) -> Vec<String> {
        let sources = files.iter().map(|(path, text)| Source::new(*path, *text)).collect();
        let house = House { packages, sources, ..House::default() };
        check(&house).expect("no I/O").into_iter().map(|violation| violation.place + " " + &violation.what).collect()
    }

    #[test]
    fn a_dependency_that_only_a_comment_a_word_or_a_neighbour_names_is_red() {
        let packages = || vec![package("a", "a", &["some-crate"]), package("b", "a/b", &[])];
        for text in [
            "// some_crate::thing();",
            "let some_crate = 1;",
            "awesome_crate::thing();",
            "f(\"some_crate::thing\");",
            "other::some_crate::thing();",
        ] {
            let files = [("a/src/lib.rs", text), ("a/b/src/lib.rs", "use some_crate::thing;")];
            assert_eq!(found(packages(), &files), ["a lists some-crate and names it nowhere"], "{text}");
        }
    }

    #[test]
    fn a_dependency_that_any_file_of_the_crate_names_passes() {
        for (path, text) in [
            ("a/src/lib.rs", "use some_crate::thing;"),
            ("a/src/deep/er.rs", "fn f() { some_crate::thing() }"),
            ("a/src/lib.rs", "fn f() -> ::some_crate::Thing {}"),
            ("a/build.rs", "use some_crate as other;"),
            ("a/tests/story.rs", "#[some_crate::test]\nfn f() {}"),
        ] {
            assert!(found(vec![package("a", "a", &["some-crate"])], &[(path, text)]).is_empty(), "{path}");
        }
    }

    #[test]
    fn an_allowance_is_for_one_crate() {
        assert!(found(vec![package("lianxin-proto", "proto", &["tonic-prost"])], &[]).is_empty());
        assert_eq!(found(vec![package("lianxin-rpc", "rpc", &["tonic-prost"])], &[]).len(), 1);
    }
}
