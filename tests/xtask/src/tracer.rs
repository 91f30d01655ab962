//! strace, by which the tests let the disk fail under a running application.

use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::packages::{self, succeeds};

/// Makes sure that strace is there and may attach to a process of this user. Installs it with apt-get where we may (as root).
/// Only Linux has it: elsewhere the tests that need it are left out.
///
/// # Errors
/// Says what is missing and how to get it.
pub(crate) fn ensure() -> Result<()> {
    if !cfg!(target_os = "linux") {
        return Ok(());
    }
    if !is_there() {
        packages::install("no strace", "strace")?;
    }
    if !is_there() {
        bail!(
            "strace is missing, by which the tests let the disk fail under an application.\n\
             Install it, then run this again:\n  \
             Debian, Ubuntu   sudo apt-get install strace\n  \
             Fedora, openEuler, Kylin   sudo dnf install strace"
        );
    }
    if !attaches() {
        bail!(
            "strace may not attach to a process of this user, by which the tests let the disk fail under an application.\n\
             Allow it, then run this again:   sudo sysctl kernel.yama.ptrace_scope=0\n\
             In a container:   --cap-add=SYS_PTRACE"
        );
    }
    Ok(())
}

fn is_there() -> bool {
    succeeds(Command::new("strace").arg("--version"))
}

/// Whether strace may attach to a process that it has not started.
fn attaches() -> bool {
    let Ok(mut other) = Command::new("sleep").arg("1").stdout(Stdio::null()).spawn() else { return false };
    let attached = succeeds(Command::new("strace").args(["-o", "/dev/null", "-p", &other.id().to_string()]));
    // It ends by itself, within the second.
    other.wait().is_ok() && attached
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_runs_the_tests_has_it() {
        ensure().expect("strace is there and may attach");
    }
}
