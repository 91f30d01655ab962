//! What the checks look at: the workspace's own packages, all packages, all sources.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::program::{cargo, output, root};
use crate::source::{self, Source};

/// The project as the checks see it.
#[derive(Debug, Default)]
pub(crate) struct House {
    pub(crate) root: PathBuf,
    /// The workspace's own packages.
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
    pub(crate) targets: Vec<Target>,
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
        for package in metadata["packages"].as_array().context("packages in cargo's metadata")? {
            if members.contains(&text_of(&package["id"])) {
                let own = house.own(package);
                house.packages.push(own);
            } else {
                house.foreign.push(Foreign {
                    name: text_of(&package["name"]).to_owned(),
                    version: text_of(&package["version"]).to_owned(),
                    licence: package["license"].as_str().map(str::to_owned),
                });
            }
        }
        Ok(house)
    }

    fn own(&self, package: &Value) -> Package {
        let array = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let folder = PathBuf::from(text_of(&package["manifest_path"]));
        Package {
            name: text_of(&package["name"]).to_owned(),
            folder: self.relative(&folder.parent().unwrap_or(&folder).to_string_lossy()),
            dependencies: array(&package["dependencies"])
                .iter()
                .filter(|dependency| dependency["kind"] != "dev")
                .map(|dependency| text_of(&dependency["name"]).to_owned())
                .collect(),
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

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}
