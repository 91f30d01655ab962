//! One TLS stack with one provider (STYLE 27), in what is really built here, test programs included.

use std::collections::BTreeSet;

use anyhow::Result;

use super::Violation;
use super::house::House;
use crate::program::{cargo, output};

/// Other TLS stacks and other providers of rustls.
const BANNED: &[&str] = &[
    "ring",
    "native-tls",
    "tokio-native-tls",
    "openssl",
    "openssl-sys",
    "boring",
    "boring-sys",
    "rustls-openssl",
    "rustls-graviola",
    "rustls-rustcrypto",
    "rustls-mbedtls-provider",
    "s2n-tls",
];

pub(super) fn check(_house: &House) -> Result<Vec<Violation>> {
    // The metadata lists optional crates that nobody builds; the tree is what is built.
    let arguments =
        ["tree", "--workspace", "--edges", "normal,build,dev", "--prefix", "none", "--format", "{p}", "--locked"];
    Ok(violations(&output(cargo().args(arguments))?))
}

/// `tree` has one package per line, `name vVERSION …`, with repetitions.
fn violations(tree: &str) -> Vec<Violation> {
    let packages: BTreeSet<(&str, &str)> = tree
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, rest)| (name, rest.split(' ').next().unwrap_or(rest)))
        .collect();
    let banned = packages.iter().filter(|(name, _)| BANNED.contains(name));
    let mut violations: Vec<_> = banned
        .map(|(name, version)| {
            Violation::new(*name, format!("{version} is in the build; `cargo tree -i {name}` shows why"))
        })
        .collect();
    let versions: Vec<_> = packages.iter().filter(|(name, _)| *name == "rustls").map(|(_, version)| *version).collect();
    if versions.len() != 1 {
        violations.push(Violation::new(
            "rustls",
            format!("one version is allowed, found {}: {}", versions.len(), versions.join(", ")),
        ));
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_provider_and_a_second_version_are_red() {
        assert_eq!(violations("rustls v0.23.1\nring v0.17.0\n").len(), 1);
        assert_eq!(violations("rustls v0.23.1\nopenssl-sys v0.9.0\n").len(), 1);
        assert_eq!(violations("rustls v0.23.1\nrustls v0.24.0\n").len(), 1);
        assert_eq!(violations("tokio v1.0.0\n").len(), 1, "the stack that we have is named");
    }

    #[test]
    fn one_stack_passes() {
        assert!(violations("rustls v0.23.1\nrustls v0.23.1 (*)\nrustls-webpki v0.103.0\nstring v1.0.0\n").is_empty());
    }
}
