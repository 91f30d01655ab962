//! The programs that stories start: beside the running program, built if nobody has done so.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, bail, ensure};

/// Where the project's programs lie.
#[derive(Clone, Debug)]
pub struct Binaries {
    folder: PathBuf,
}

/// Said by whoever has just built everything with the same features, so that nobody builds again.
const READY: &str = "LIANXIN_BINARIES_READY";

/// Builds the gateway, the issuer and this crate's programs once per process and says where they are. Does nothing if `cargo xtask`
/// has done it.
///
/// # Errors
/// If they do not build, or the running program does not lie in a target folder.
pub fn ensure_built() -> anyhow::Result<Binaries> {
    static BUILT: OnceLock<Result<Binaries, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    built.clone().map_err(anyhow::Error::msg)
}

/// Builds the SDK's examples, too; [`Binaries::example`] says where they are. Does nothing if `cargo xtask` has done it.
///
/// # Errors
/// As [`ensure_built`].
pub fn ensure_examples_built() -> anyhow::Result<Binaries> {
    let binaries = ensure_built()?;
    if std::env::var_os(READY).is_none() {
        run_cargo(&binaries.folder, &["build", "--examples", "--package", "lianxin-sdk"])?;
    }
    Ok(binaries)
}

fn build() -> anyhow::Result<Binaries> {
    let program = std::env::current_exe().context("find the running program")?;
    let folder = binary_folder(&program).context("the running program does not lie in a target folder")?;
    let binaries = Binaries { folder: folder.to_owned() };
    if std::env::var_os(READY).is_none() {
        let programs = ["build", "--bins", "--package", "lianxin-gateway", "--package", "lianxin-issuer"];
        run_cargo(folder, &[&programs[..], &["--package", "lianxin-harness"]].concat())?;
    }
    binaries.path("lianxin-gateway").map(|_| binaries)
}

/// `target/debug` for a program in it, and for a test program in `target/debug/deps`.
fn binary_folder(program: &Path) -> Option<&Path> {
    let folder = program.parent()?;
    if folder.ends_with("deps") { folder.parent() } else { Some(folder) }
}

fn run_cargo(folder: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(arguments);
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    if let Some(target) = folder.parent() {
        cargo.arg("--target-dir").arg(target);
    }
    if !std::io::stderr().is_terminal() {
        cargo.arg("--quiet");
    }
    let status = cargo.status().context("start cargo; it comes with Rust, see https://rustup.rs")?;
    ensure!(status.success(), "the gateway and the applications do not build: see above");
    Ok(())
}

impl Binaries {
    /// The path of a program.
    ///
    /// # Errors
    /// If it is not there.
    pub fn path(&self, name: &str) -> anyhow::Result<PathBuf> {
        self.found(self.folder.join(name), "cargo build --workspace --bins")
    }

    /// The path of one of the SDK's examples.
    ///
    /// # Errors
    /// If it is not there.
    pub fn example(&self, name: &str) -> anyhow::Result<PathBuf> {
        self.found(self.folder.join("examples").join(name), "cargo build --workspace --examples")
    }

    fn found(&self, path: PathBuf, maker: &str) -> anyhow::Result<PathBuf> {
        let path = path.with_extension(std::env::consts::EXE_EXTENSION);
        if !path.is_file() {
            bail!("{} is missing; `{maker}` makes it", path.display());
        }
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_program_finds_the_folder_above_its_own() {
        assert_eq!(binary_folder(Path::new("/t/debug/deps/e2e-12")), Some(Path::new("/t/debug")));
        assert_eq!(binary_folder(Path::new("/t/debug/lianxin-demo")), Some(Path::new("/t/debug")));
    }

    #[test]
    fn a_missing_program_is_named() {
        let binaries = Binaries { folder: PathBuf::from("/nowhere") };
        let error = binaries.path("lianxin-gateway").expect_err("nothing is there").to_string();
        assert!(error.starts_with("/nowhere/lianxin-gateway is missing"), "{error}");
    }
}
