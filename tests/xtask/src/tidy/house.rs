//! What the checks look at: the workspace's own packages, all packages, all sources.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::program::{cargo, output, root};
use crate::source::{self, Source};

/// Manifests of ours that are workspaces apart, from the root: they need other tools and never build with the rest.
const APART: &[&str] = &["tests/fuzz/Cargo.toml"];

/// The project as the checks see it.
#[derive(Debug, Default)]
pub(crate) struct House {
    pub(crate) root: PathBuf,
    /// The workspace's own packages, and those of the workspaces apart.
    pub(crate) packages: Vec<Package>,
    /// Every package in the lock file that is not ours.
    pub(crate) foreign: Vec<Foreign>,
    pub(crate) sources: Vec<Source>,
}

/// One package of the workspace.
#[derive(Debug, Default, Clone)]
pub(crate) struct Package {
    pub(crate) name: String,
    /// Folder from the root, with `/`.
    pub(crate) folder: String,
    /// Names of normal and build dependencies.
    pub(crate) dependencies: Vec<String>,
    /// Everything listed, for tests too, once each.
    pub(crate) listed: BTreeSet<Listed>,
    pub(crate) targets: Vec<Target>,
}

/// A dependency as the manifest and as the sources call it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Listed {
    pub(crate) name: String,
    /// What stands before the `::`.
    pub(crate) in_code: String,
}

/// One thing that Cargo compiles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// `lib`, `bin`, `test`, `example`, `bench`, `custom-build`, `proc-macro`.
    pub(crate) kind: String,
    /// Its first file, from the root.
    pub(crate) path: String,
}

/// A package from elsewhere.
#[derive(Debug, Clone)]
pub(crate) struct Foreign {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) licence: Option<String>,
}

impl House {
    /// Reads manifests and sources.
    ///
    /// # Errors
    /// If Cargo does not accept the manifests, or a source cannot be read.
    pub(crate) fn load() -> Result<Self> {
        let root = root();
        let text = output(cargo().args(["metadata", "--format-version", "1", "--locked"]))?;
        let metadata: Value = serde_json::from_str(&text).context("read cargo's metadata")?;
        let members: Vec<&str> = texts(&metadata["workspace_members"]).collect();
        let mut house = Self { sources: source::load(&root)?, root, ..Self::default() };
        let packages = metadata["packages"].as_array().context("packages in cargo's metadata")?;
        let libraries = packages.iter().filter_map(library).collect();
        for package in packages {
            if members.contains(&text_of(&package["id"])) {
                let own = house.own(package, &libraries);
                house.packages.push(own);
            } else {
                house.foreign.push(Foreign {
                    name: text_of(&package["name"]).to_owned(),
                    version: text_of(&package["version"]).to_owned(),
                    licence: package["license"].as_str().map(str::to_owned),
                });
            }
        }
        for manifest in APART {
            // Without their dependencies: those are not in our lock file, and nobody here builds them.
            let arguments = ["metadata", "--format-version", "1", "--no-deps", "--manifest-path", manifest];
            let metadata: Value =
                serde_json::from_str(&output(cargo().args(arguments))?).context("read cargo's metadata")?;
            for package in metadata["packages"].as_array().context("packages in cargo's metadata")? {
                let own = house.own(package, &libraries);
                house.packages.push(own);
            }
        }
        Ok(house)
    }

    fn own(&self, package: &Value, libraries: &BTreeMap<&str, &str>) -> Package {
        let array = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let listed = |dependency: &Value| {
            let name = text_of(&dependency["name"]);
            let in_code = dependency["rename"].as_str().or(libraries.get(name).copied()).unwrap_or(name);
            Listed { name: name.to_owned(), in_code: in_code.replace('-', "_") }
        };
        let folder = PathBuf::from(text_of(&package["manifest_path"]));
        Package {
            name: text_of(&package["name"]).to_owned(),
            folder: self.relative(&folder.parent().unwrap_or(&folder).to_string_lossy()),
            dependencies: array(&package["dependencies"])
                .iter()
                .filter(|dependency| dependency["kind"] != "dev")
                .map(|dependency| text_of(&dependency["name"]).to_owned())
                .collect(),
            listed: array(&package["dependencies"]).iter().map(listed).collect(),
            targets: array(&package["targets"])
                .iter()
                .map(|target| Target {
                    kind: texts(&target["kind"]).next().unwrap_or_default().to_owned(),
                    path: self.relative(text_of(&target["src_path"])),
                })
                .collect(),
        }
    }

    fn relative(&self, path: &str) -> String {
        let root = self.root.to_string_lossy();
        path.strip_prefix(root.as_ref()).unwrap_or(path).trim_start_matches('/').to_owned()
    }

    /// The source at `path`, from the root.
    pub(crate) fn source(&self, path: &str) -> Option<&Source> {
        self.sources.iter().find(|source| source.path == path)
    }
}

/// The package's name and what its library is called.
fn library(package: &Value) -> Option<(&str, &str)> {
    const KINDS: [&str; 2] = ["lib", "proc-macro"];
    let targets = package["targets"].as_array()?;
    let library = targets.iter().find(|target| texts(&target["kind"]).any(|kind| KINDS.contains(&kind)))?;
    Some((text_of(&package["name"]), text_of(&library["name"])))
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}
