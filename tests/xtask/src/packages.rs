//! Packages of the system, installed where we may.

use std::process::{Command, Stdio};

use anyhow::Result;

use crate::program;

/// Installs `packages` with apt-get because of `reason`. Gives whether it was tried: only as root, and only where there is apt-get.
///
/// # Errors
/// If apt-get fails.
pub(crate) fn install(reason: &str, packages: &str) -> Result<bool> {
    if !is_root() || !succeeds(Command::new("apt-get").arg("--version")) {
        return Ok(false);
    }
    program::tell(&format!("{reason}: installing {packages} with apt-get"));
    let mut apt = Command::new("sh");
    apt.arg("-c").arg(format!("apt-get update && apt-get install --yes {packages}"));
    program::run(apt.env("DEBIAN_FRONTEND", "noninteractive"))?;
    Ok(true)
}

fn is_root() -> bool {
    program::output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

/// Whether a command succeeds; what it says goes nowhere.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
