//! No `.rs` file that no `mod` reaches: it looks alive and nothing compiles it.

use std::collections::BTreeSet;

use anyhow::Result;

use super::Violation;
use super::house::House;
use crate::source::Source;

pub(super) fn check(house: &House) -> Result<Vec<Violation>> {
    let mut reached = BTreeSet::new();
    let mut waiting: Vec<(String, Root)> = house
        .packages
        .iter()
        .flat_map(|package| &package.targets)
        .map(|target| (target.path.clone(), Root::Yes))
        .collect();
    while let Some((path, root)) = waiting.pop() {
        let Some(source) = house.source(&path) else { continue };
        if reached.insert(path) {
            let found = mounted_by(source, root).into_iter();
            waiting.extend(found.filter(|path| house.source(path).is_some()).map(|path| (path, Root::No)));
        }
    }
    let dead = house.sources.iter().filter(|source| !reached.contains(&source.path));
    Ok(dead.map(|source| Violation::new(&source.path, "no `mod` reaches this file: mount it or delete it")).collect())
}

/// Whether a file is the first of a target: then its modules lie beside it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Root {
    Yes,
    No,
}

/// The paths at which the modules that `source` declares may lie.
fn mounted_by(source: &Source, root: Root) -> Vec<String> {
    let (folder, file) = source.path.rsplit_once('/').unwrap_or(("", &source.path));
    let beside = root == Root::Yes || file == "mod.rs";
    let base = if beside { folder.to_owned() } else { source.path.trim_end_matches(".rs").to_owned() };
    let mut paths = Vec::new();
    let mut inside: Vec<(usize, String)> = Vec::new();
    let mut depth = 0;
    let code = &source.code;
    for (at, byte) in code.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                inside.retain(|(opened, _)| *opened <= depth);
            }
            b'm' => {
                let Some((name, end)) = module_at(code, at) else { continue };
                if end == b'{' {
                    inside.push((depth + 1, name.to_owned()));
                    continue;
                }
                let nested: String = inside.iter().map(|(_, name)| format!("{name}/")).collect();
                paths.extend(explicit_path(source, at).map(|path| format!("{folder}/{path}")));
                paths.push(format!("{base}/{nested}{name}.rs"));
                paths.push(format!("{base}/{nested}{name}/mod.rs"));
            }
            _ => {}
        }
    }
    paths
}

/// The module declared at `at`, and the byte after its name: `;` or `{`.
fn module_at(code: &str, at: usize) -> Option<(&str, u8)> {
    let starts_word = at == 0 || !is_word(code.as_bytes()[at - 1]);
    let rest = code[at..].strip_prefix("mod ").filter(|_| starts_word)?.trim_start();
    let rest = rest.strip_prefix("r#").unwrap_or(rest);
    let name = &rest[..rest.bytes().position(|byte| !is_word(byte))?];
    let end = *rest[name.len()..].trim_start().as_bytes().first()?;
    (!name.is_empty() && matches!(end, b';' | b'{')).then_some((name, end))
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The path in a `#[path = "…"]` right before the declaration at `at`. The literal is blanked in the code, not in the text.
fn explicit_path(source: &Source, at: usize) -> Option<&str> {
    let statement = source.code[..at].rfind([';', '}']).map_or(0, |end| end + 1);
    let attribute = statement + source.code[statement..at].find("#[path")?;
    let literal = source.text[attribute..at].split('"').nth(1)?;
    Some(literal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::house::{Package, Target};

    fn house(files: &[(&str, &str)]) -> House {
        let target = Target { kind: "lib".into(), path: "a/src/lib.rs".into() };
        House {
            packages: vec![Package { name: "a".into(), targets: vec![target], ..Package::default() }],
            sources: files.iter().map(|(path, text)| Source::new(*path, *text)).collect(),
            ..House::default()
        }
    }

    fn dead(files: &[(&str, &str)]) -> Vec<String> {
        check(&house(files)).expect("no I/O").into_iter().map(|violation| violation.place).collect()
    }

    #[test]
    fn a_file_that_only_a_comment_mentions_is_red() {
        assert_eq!(
            dead(&[("a/src/lib.rs", "// mod lost;\nmod found;"), ("a/src/found.rs", ""), ("a/src/lost.rs", "")]),
            ["a/src/lost.rs"]
        );
    }

    #[test]
    fn every_way_to_mount_is_known() {
        let files = [
            (
                "a/src/lib.rs",
                "pub mod b;\nmod c { pub(crate) mod d; }\n#[path = \"odd/name.rs\"]\nmod e;\nfn f() { g() }\nmod h;",
            ),
            ("a/src/b.rs", "#[cfg(test)]\nmod tests;"),
            ("a/src/b/tests.rs", ""),
            ("a/src/c/d.rs", ""),
            ("a/src/odd/name.rs", ""),
            ("a/src/h/mod.rs", "mod i;"),
            ("a/src/h/i.rs", ""),
        ];
        assert!(dead(&files).is_empty(), "{:?}", dead(&files));
    }
}
