//! `cargo demo`: builds what the demo starts, with progress, then becomes the demo.

use std::io::IsTerminal as _;

use anyhow::Result;

use crate::program::{cargo, root};
use crate::{compiler, program};

/// Builds the gateway and the demo's programs, then runs the demo with `arguments`.
///
/// # Errors
/// If something does not build, or a step of the demo fails.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    compiler::ensure()?;
    let mut build = cargo();
    build.args([
        "build",
        "--bins",
        "--package",
        "lianxin-gateway",
        "--package",
        "lianxin-issuer",
        "--package",
        "lianxin-harness",
    ]);
    // One line in any case: minutes of silence look like a hang.
    program::tell("编译中，首次需要几分钟 · building; the first time takes some minutes");
    if !std::io::stderr().is_terminal() {
        build.arg("--quiet");
    }
    program::run(&mut build)?;
    let binaries = std::env::current_exe()?.parent().map_or_else(|| root().join("target/debug"), Into::into);
    let mut demo = std::process::Command::new(binaries.join("lianxin-demo"));
    program::run(demo.args(arguments).env("LIANXIN_BINARIES_READY", "1"))
}
